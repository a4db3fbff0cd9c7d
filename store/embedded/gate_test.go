package embedded

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt/faketime"
)

func TestASyncThatBeganSinceCoversWhatWasWritten(t *testing.T) {
	var g gate
	syncs := 0
	do := func() error { syncs++; return nil }
	first := g.mark()
	if err := g.sync(first, 0, do); err != nil || syncs != 1 {
		t.Fatalf("%v, %d syncs", err, syncs)
	}
	if err := g.sync(first, 0, do); err != nil || syncs != 1 {
		t.Errorf("what was written before a sync that ended is synced again: %v, %d", err, syncs)
	}
	if err := g.sync(g.mark(), 0, do); err != nil || syncs != 2 {
		t.Errorf("what was written since is taken for durable: %v, %d", err, syncs)
	}
	var during uint64
	g.sync(g.mark(), 0, func() error { during = g.mark(); return nil }) // written while it runs: it may be too late for it
	if err := g.sync(during, 0, do); err != nil || syncs != 3 {
		t.Errorf("what was written while a sync ran is taken for covered: %v, %d", err, syncs)
	}
}

// TestASyncThatFailedFailsAllThatItMayHaveLost: the kernel tells of a fault once, and the next sync of the file ends well.
func TestASyncThatFailedFailsAllThatItMayHaveLost(t *testing.T) {
	var g gate
	broken := errors.New("broken")
	mark, before := g.mark(), g.failed()
	if err := g.sync(mark, before, func() error { return broken }); err != broken {
		t.Fatal(err)
	}
	well := func() error { return nil }
	if err := g.sync(mark, before, well); err != broken {
		t.Errorf("what a failed sync was about is durable by the next: %v", err)
	}
	if err := g.sync(g.mark(), before, well); err != broken {
		t.Errorf("what was begun before a sync failed, and written to its end since, is durable by the next: %v", err)
	}
	if err := g.sync(g.mark(), g.failed(), well); err != nil {
		t.Errorf("what was written since: %v", err)
	}
	if err := g.sync(mark, before, well); err != broken {
		t.Errorf("what a failed sync was about is durable by a later one: %v", err)
	}
}

// TestWhoWaitsForTheNextSyncIsToldThatTheOneBeforeItFailed: what waits may be what that one lost.
func TestWhoWaitsForTheNextSyncIsToldThatTheOneBeforeItFailed(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var g gate
		broken := errors.New("broken")
		mark, before, waited := g.mark(), g.failed(), make(chan error)
		rounds := 0
		if err := g.sync(mark, before, func() error {
			if rounds++; rounds == 2 { // who was first syncs for who waits
				return nil
			}
			go func() { waited <- g.sync(mark, before, nil) }()
			synctest.Wait() // it waits for the sync behind this one
			return broken
		}); err != broken || rounds != 2 {
			t.Errorf("the first: %v, %d syncs", err, rounds)
		}
		if err := <-waited; err != broken {
			t.Errorf("who waited: %v", err)
		}
	})
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

// TestASyncOfAnothersThatFailedFailsABlobThatIsBeingWritten: its first half may have been lost with it.
func TestASyncOfAnothersThatFailedFailsABlobThatIsBeingWritten(t *testing.T) {
	e, err := Open("/store", Options{Key: make([]byte, 32), FS: vfs.NewMem(), SegmentBytes: 16 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	stage := func() *staged {
		one, err := e.Stage(t.Context())
		if err == nil {
			_, err = one.Write(make([]byte, 3<<20))
		}
		if err != nil {
			t.Fatal(err)
		}
		return one.(*staged)
	}
	broken := errors.New("broken")
	one := stage()
	seg := one.held[0]
	if err := seg.synced.sync(seg.synced.mark(), seg.synced.failed(), func() error { return broken }); err != broken {
		t.Fatal(err)
	}
	if _, err := one.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := one.Finish(); !errors.Is(err, broken) {
		t.Errorf("it is durable: %v", err)
	}
	one.Discard()
	if again := stage(); again.held[0] != seg {
		t.Error("the next lies elsewhere")
	} else if err := again.Finish(); err != nil {
		t.Errorf("what was begun since: %v", err)
	}
}
