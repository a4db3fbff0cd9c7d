package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"redoubt"
	"redoubt/store"
	"redoubt/store/embedded"
)

// TestHelperWriter is no test: TestKillLosesNothing runs it as a process of its own.
func TestHelperWriter(t *testing.T) {
	dir := os.Getenv("REDOUBT_KILL_DIR")
	if dir == "" {
		t.Skip("a helper of TestKillLosesNothing")
	}
	e, err := embedded.Open(dir, embedded.Options{Key: testKey, SegmentBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	for i := e.Stats().Appended; ; i++ {
		b := new(store.Batch)
		b.Append(fmt.Appendf(nil, "entry %d", i))
		s, _ := e.Stage(context.Background())
		s.Write(blobContent(int(i), int(i%7)*30_000))
		s.Finish()
		b.Links = append(b.Links, s)
		b.Set(fmt.Appendf(nil, "blob/%08d", i), fmt.Appendf(nil, "%d", s.Ref()))
		if err := e.Commit(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acked %d\n", i)
	}
}

func TestKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperWriter$")
		cmd.Env = append(os.Environ(), "REDOUBT_KILL_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked := int64(-1)
		for n := range 40 + 60*round {
			var i int64
			if _, err := fmt.Fscanf(out, "acked %d\n", &i); err != nil {
				t.Fatalf("after %d: %v", n, err)
			}
			acked = i
		}
		cmd.Process.Kill()
		cmd.Wait()
		e, err := embedded.Open(dir, embedded.Options{Key: testKey, SegmentBytes: 1 << 20, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		if got := int64(e.Stats().Appended); got <= acked {
			t.Fatalf("%d entries, %d were acknowledged", got, acked+1)
		}
		for i := range int(e.Stats().Appended) {
			v, ok, err := e.Get(fmt.Appendf(nil, "blob/%08d", i))
			if !ok || err != nil {
				t.Fatalf("entry %d: %v, %v", i, ok, err)
			}
			var ref store.BlobRef
			fmt.Sscan(string(v), &ref)
			b, err := e.OpenBlob(ref)
			if err != nil {
				t.Fatalf("blob of entry %d: %v", i, err)
			}
			got := make([]byte, b.Size())
			b.ReadAt(got, 0)
			b.Close()
			if !bytes.Equal(got, blobContent(i, i%7*30_000)) {
				t.Fatalf("blob of entry %d reads back different", i)
			}
		}
		if n, err := e.Check(context.Background(), func(f string) { t.Error(f) }); n > 0 || err != nil {
			t.Fatalf("check: %d faults, %v", n, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	o := embedded.Options{Key: testKey, SegmentBytes: 256 << 10, ReserveBytes: -1}
	e, err := embedded.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Open(dir, o); !errors.Is(err, redoubt.Unavailable) {
		t.Fatalf("second Open: got %v, want unavailable", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = embedded.Open(dir, o); err != nil {
		t.Fatalf("after Close: %v", err)
	}
	e.Close()
}
