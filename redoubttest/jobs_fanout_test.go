package redoubttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"redoubt"
	"redoubt/client"
)

// TestAHundredJobsFanOutAndOneGathers: a program of the repository counts the words of a hundred parts, each in a job of its own, all submitted at once; and
// once more over what they wrote. Each output has the label of the part that it was made of, and the last one the join of them all.
func TestAHundredJobsFanOutAndOneGathers(t *testing.T) {
	const parts = 100
	c := &crashes{victim: &victim{t: t, kind: kindNode, dir: t.TempDir()}}
	t.Cleanup(c.kill)
	c.serve()
	ctx := t.Context()
	low, high := c.mint("s-analyst", "UNCLASSIFIED"), c.mint("s-analyst", "SECRET")
	objects := func(who redoubt.Minted) *client.Objects {
		o, err := client.NewObjects(c.S3, c.roots, who)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(o.Close)
		return o
	}
	of := map[string]*client.Objects{"UNCLASSIFIED": objects(low), "SECRET": objects(high)}
	label := func(part int) string {
		if part%3 == 0 {
			return "SECRET"
		}
		return "UNCLASSIFIED"
	}
	for i := range parts {
		text := "dawn " + strings.Repeat("convoy ", i%7)
		in := client.Upload{Name: redoubt.ObjectName{Bucket: "reports", Key: fmt.Sprintf("parts/%02d.txt", i)}, SizeBytes: int64(len(text)), Body: strings.NewReader(text)}
		if _, err := of[label(i)].Put(ctx, in); err != nil {
			t.Fatal(err)
		}
	}

	program := buildModule(t, "words")
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	submits, err := client.New(c.API, c.roots, low.Token)
	if err != nil {
		t.Fatal(err)
	}
	defer submits.Close()
	if err := submits.PutModule(ctx, digest, bytes.NewReader(program)); err != nil {
		t.Fatal(err)
	}
	submit := func(in, out string) redoubt.JobID {
		t.Helper()
		j, err := submits.SubmitJob(ctx, redoubt.SubmitJob{Module: digest, Max: "SECRET", In: []redoubt.JobInput{{Bucket: "reports", Prefix: in}}, Out: redoubt.JobInput{Bucket: "reports", Prefix: out}})
		if err != nil {
			t.Fatal(err)
		}
		return j.ID
	}
	looks := submits.With(high.Token) // what became of them is told at MAX
	done := func(id redoubt.JobID, want string) {
		t.Helper()
		j, err := looks.Job(ctx, id)
		for err == nil && !j.State.Final() {
			j, err = looks.WaitJob(ctx, id, j.State)
		}
		if err != nil {
			t.Fatal(err)
		}
		if j.State != redoubt.JobDone || j.Label != want || len(j.Outputs) != 1 {
			t.Fatalf("job %s is %s (%s) at %q with %d outputs, want done at %q with one", id, j.State, j.Why, j.Label, len(j.Outputs), want)
		}
	}
	written := func(o *client.Objects, key string) (text, label string) {
		t.Helper()
		v, content, err := o.Get(ctx, redoubt.ObjectName{Bucket: "reports", Key: key}, "")
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		defer content.Close()
		b, err := io.ReadAll(content)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return string(b), v.Label
	}

	ids := make([]redoubt.JobID, parts)
	for i := range parts {
		ids[i] = submit(fmt.Sprintf("parts/%02d.txt", i), fmt.Sprintf("counts/%02d/", i))
	}
	for i, id := range ids {
		done(id, label(i))
		want := "dawn,1\n"
		switch n := i % 7; {
		case n == 1:
			want = "convoy,1\ndawn,1\n"
		case n > 1:
			want = fmt.Sprintf("convoy,%d\ndawn,1\n", n)
		}
		if got, marked := written(of[label(i)], fmt.Sprintf("counts/%02d/words.csv", i)); got != want || marked != label(i) {
			t.Errorf("part %d gave %q at %q, want %q at %q", i, got, marked, want, label(i))
		}
	}
	done(submit("counts/", "all/"), "SECRET")
	if got, marked := written(of["SECRET"], "all/words.csv"); got != "dawn,100\nconvoy,85\n" || marked != "SECRET" {
		t.Errorf("all of them gave %q at %q", got, marked)
	}
}
