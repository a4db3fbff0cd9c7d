package embedded_test

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"redoubt/store"
	"redoubt/store/embedded"
	"redoubt/store/storetest"
)

var testKey = bytes.Repeat([]byte{7}, 32)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	storetest.Test(t, func(t *testing.T, dir string) store.Engine {
		e, err := embedded.Open(dir, embedded.Options{Key: testKey, SegmentBytes: 1 << 20, ReserveBytes: -1})
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		return e
	})
}

func TestCloseDuringMaintenanceEnds(t *testing.T) {
	for range 20 {
		e, err := embedded.Open("/store", embedded.Options{Key: testKey, FS: vfs.NewMem(), SegmentBytes: 64 << 10, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range 2 {
			wg.Go(func() {
				for i := 0; ; i++ {
					s, err := e.Stage(context.Background())
					if err != nil {
						return
					}
					s.Write(make([]byte, 20_000))
					s.Finish()
					b := &store.Batch{Links: []store.Staged{s}}
					if i%4 > 0 && s.Ref() > 2 {
						b.Unlinks = append(b.Unlinks, s.Ref()-2)
					}
					if e.Commit(context.Background(), b) != nil {
						s.Discard()
						return
					}
					if i == 5 {
						begun <- struct{}{}
					}
				}
			})
			wg.Go(func() {
				for e.Maintain(context.Background()) == nil {
				}
			})
			wg.Go(func() {
				for {
					if _, err := e.Check(context.Background(), func(string) {}); err != nil {
						return
					}
				}
			})
		}
		<-begun
		<-begun
		e.Close()
		wg.Wait()
	}
}

// TestOpeningDoesNotTakeTheMemoryOfASegment: a device is to stay small at its start too, when it looks for the end of its log.
func TestOpeningDoesNotTakeTheMemoryOfASegment(t *testing.T) {
	dir := t.TempDir()
	open := func() *embedded.Engine {
		e, err := embedded.Open(dir, embedded.Options{Key: testKey, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := open()
	b := new(store.Batch)
	b.Set([]byte("k"), []byte("v"))
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	e = open()
	runtime.ReadMemStats(&after)
	defer e.Close()
	if v, ok, err := e.Get([]byte("k")); err != nil || !ok || string(v) != "v" {
		t.Errorf("after opening again: %q, %v, %v", v, ok, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > embedded.DefaultSegmentBytes/2 {
		t.Errorf("opening allocated %d MiB for a log of one write", took>>20)
	}
}
