package embedded

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestASyncThatBeganSinceCoversWhatWasWritten(t *testing.T) {
	var g gate
	syncs := 0
	do := func() error { syncs++; return nil }
	first := g.mark()
	if err := g.sync(first, do); err != nil || syncs != 1 {
		t.Fatalf("%v, %d syncs", err, syncs)
	}
	if err := g.sync(first, do); err != nil || syncs != 1 {
		t.Errorf("what was written before a sync that ended is synced again: %v, %d", err, syncs)
	}
	if err := g.sync(g.mark(), do); err != nil || syncs != 2 {
		t.Errorf("what was written since is taken for durable: %v, %d", err, syncs)
	}
	var during uint64
	g.sync(g.mark(), func() error { during = g.mark(); return nil }) // written while it runs: it may be too late for it
	if err := g.sync(during, do); err != nil || syncs != 3 {
		t.Errorf("what was written while a sync ran is taken for covered: %v, %d", err, syncs)
	}
}

// TestASyncThatFailedFailsAllThatItMayHaveLost: the kernel tells of a fault once, and the next sync of the file ends well.
func TestASyncThatFailedFailsAllThatItMayHaveLost(t *testing.T) {
	var g gate
	broken := errors.New("broken")
	mark := g.mark()
	if err := g.sync(mark, func() error { return broken }); err != broken {
		t.Fatal(err)
	}
	well := func() error { return nil }
	if err := g.sync(mark, well); err != broken {
		t.Errorf("what a failed sync was about is durable by the next: %v", err)
	}
	if err := g.sync(g.mark(), well); err != nil {
		t.Errorf("what was written since: %v", err)
	}
	if err := g.sync(mark, well); err != broken {
		t.Errorf("what a failed sync was about is durable by a later one: %v", err)
	}
}

// TestSettledBlobsShareASync, and lie in one file, where one after the other is written.
func TestSettledBlobsShareASync(t *testing.T) {
	e, err := Open("/store", Options{Key: make([]byte, 32), FS: vfs.NewMem(), SegmentBytes: 16 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	before := e.Stats().Syncs
	var all []*staged
	for range 8 {
		one, err := e.Stage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := one.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		s := one.(*staged)
		if err := s.Settle(); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for _, s := range all {
		if s.held[0] != all[0].held[0] {
			t.Error("one that was written when the last was settled lies in another file")
		}
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.Stats().Syncs - before; n != 1 {
		t.Errorf("%d syncs for %d blobs", n, len(all))
	}
}
