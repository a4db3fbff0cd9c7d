package redoubttest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/client"
	"redoubt/compute/computetest"
	"redoubt/node"
)

// serve brings the server up as the command has it: what walls a job in is made of the command's own binary.
func (v *victim) serve() {
	v.t.Helper()
	binary := redoubtBinary(v.t)
	st, err := node.OpenState(filepath.Join(v.dir, "state"))
	if err == nil {
		_, _, err = exerciseIn(st)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	v.cmd, v.said = exec.Command(binary, "serve", "topsecret", "--state", filepath.Join(v.dir, "state")), new(strings.Builder)
	v.cmd.Env = append(os.Environ(), "GODEBUG=")
	v.cmd.Stderr = v.said
	if v.life, err = v.cmd.StdinPipe(); err == nil {
		err = v.cmd.Start()
	}
	if err != nil {
		v.t.Fatal(err)
	}
	for deadline := time.Now().Add(readyWait); ; time.Sleep(10 * time.Millisecond) {
		r, err := st.Runtime("topsecret")
		if err == nil && r.PID == v.cmd.Process.Pid && r.State == node.Ready {
			v.place = place{r.S3URL, r.APIURL, st.CAFile("topsecret")}
			break
		}
		if time.Now().After(deadline) {
			v.kill()
			v.t.Fatalf("the server did not come up: %v\n%s", err, v.said)
		}
	}
	pem, err := os.ReadFile(v.CA)
	v.roots = x509.NewCertPool()
	if err != nil || !v.roots.AppendCertsFromPEM(pem) {
		v.t.Fatalf("%s: %v", v.CA, err)
	}
}

// TestSoakAKilledNodesJobsLeaveAllOfTheirOutputsOrNone kills a node while jobs run. Each comes to an end, and what it wrote is there whole or not at all,
// at every moment.
func TestSoakAKilledNodesJobsLeaveAllOfTheirOutputsOrNone(t *testing.T) {
	const jobs, outputs = 8, 40
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := &crashes{victim: &victim{t: t, kind: kindNode, dir: t.TempDir()}}
	t.Cleanup(c.kill)
	c.serve()
	who := c.mint("s-analyst", "SECRET")
	ctx := t.Context()
	connect := func() (*client.Client, *client.Objects) {
		a, err := client.New(c.API, c.roots, who.Token)
		if err != nil {
			t.Fatal(err)
		}
		o, err := client.NewObjects(c.S3, c.roots, who)
		if err != nil {
			t.Fatal(err)
		}
		return a, o
	}
	count := func(o *client.Objects, i int) (n int) {
		err := o.Versions(ctx, "reports", fmt.Sprintf("job-%d/", i), func(client.Object) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	program := computetest.Build(t, "wasip1", "wasm")
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	a, o := connect()
	if err := a.PutModule(ctx, digest, bytes.NewReader(program)); err != nil {
		t.Fatal(err)
	}
	ids := make([]redoubt.JobID, jobs)
	for i := range jobs {
		j, err := a.SubmitJob(ctx, redoubt.SubmitJob{Module: digest, Args: []string{"many", fmt.Sprintf("/out/d=%d", outputs-1), "fill", "/out/large=3000000"}, Out: redoubt.JobInput{Bucket: "reports", Prefix: fmt.Sprintf("job-%d/", i)}})
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = j.ID
	}
	kills, soFar := 4, time.Now()
	for round := 0; round < kills || time.Since(soFar) < *soak/soakShare; round++ {
		time.Sleep(time.Duration(r.IntN(900)) * time.Millisecond) // when it is killed is part of what is tried
		a.Close()
		o.Close()
		c.kill()
		c.serve()
		a, o = connect()
		for i, id := range ids {
			before, err := a.Job(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			n := count(o, i)
			if n != 0 && n != outputs || before.State == redoubt.JobDone && n != outputs {
				t.Fatalf("round %d: job %d is %s with %d of %d outputs", round, i, before.State, n, outputs)
			}
		}
	}
	defer a.Close()
	defer o.Close()
	done := 0
	for i, id := range ids {
		j, err := a.Job(ctx, id)
		for err == nil && !j.State.Final() {
			j, err = a.WaitJob(ctx, id, j.State)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch n := count(o, i); {
		case j.State == redoubt.JobDone && n == outputs && len(j.Outputs) == outputs:
			done++
		case j.State == redoubt.JobFailed && n == 0 && strings.Contains(j.Why, "the node stopped while it ran"):
		default:
			t.Errorf("job %d is %s (%s) with %d outputs", i, j.State, j.Why, n)
		}
	}
	t.Logf("%d of %d jobs did well", done, jobs)
	// And the node runs jobs as ever.
	j, err := a.SubmitJob(ctx, redoubt.SubmitJob{Module: digest, Args: []string{"exit", "7"}})
	for err == nil && !j.State.Final() {
		j, err = a.WaitJob(ctx, j.ID, j.State)
	}
	if err != nil || j.ExitCode != 7 {
		t.Errorf("after all that a job is %+v: %v", j, err)
	}
}
