package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
	"redoubt/faketime"
	"redoubt/store"
	"redoubt/store/embedded"
)

// tableDisk has no room for tables of the index while it is full, and has it for all else. crowded: it has none for what a compaction writes.
type tableDisk struct {
	vfs.FS
	full, crowded atomic.Bool
}

func (d *tableDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	if compaction := c == "pebble-compaction"; compaction || c == "pebble-memtable-flush" {
		f = &tableFile{f, d, compaction}
	}
	return f, err
}

type tableFile struct {
	vfs.File
	disk       *tableDisk
	compaction bool
}

func (f *tableFile) Write(p []byte) (int, error) {
	if f.disk.full.Load() || f.compaction && f.disk.crowded.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(p)
}

func onTableDisk(t *testing.T) (*tableDisk, *embedded.Engine) {
	t.Helper()
	disk := &tableDisk{FS: vfs.NewCrashableMem()}
	e, err := openOn(disk)
	if err != nil {
		t.Fatal(err)
	}
	return disk, e
}

// fill writes more than one log segment, so that the keeper flushes the index.
func fill(t *testing.T, e *embedded.Engine) {
	t.Helper()
	for i := range 20 {
		if err := set(e, fmt.Sprint("k", i), strings.Repeat("v", 30_000)); err != nil {
			t.Fatal(err)
		}
	}
}

// fillUp has the disk be full, and writes until the keeper has found the disk full.
func fillUp(t *testing.T, disk *tableDisk, e *embedded.Engine) {
	t.Helper()
	disk.full.Store(true)
	for {
		err := set(e, "k", strings.Repeat("v", 30_000))
		if errors.Is(err, redoubt.DiskFull) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func set(e *embedded.Engine, k, v string) error {
	b := new(store.Batch)
	b.Set([]byte(k), []byte(v))
	return e.Commit(context.Background(), b)
}

// TestOneCompactionThatFailsIsForgotten, when the disk has room again: nobody need reopen the store.
func TestOneCompactionThatFailsIsForgotten(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1) // the module's own generator cannot find entropy where time stands still
	faketime.Test(t, func(t *testing.T) {
		disk, e := onTableDisk(t)
		defer e.Close()
		fill(t, e)
		if err := e.Scrub(context.Background(), []byte("a"), []byte("z")); err != nil {
			t.Fatal(err)
		}
		fill(t, e) // over what lies below now: it cannot be compacted without writing
		disk.crowded.Store(true)
		if err := e.Scrub(context.Background(), []byte("a"), []byte("z")); !errors.Is(err, redoubt.DiskFull) {
			t.Fatalf("a compaction on a full disk: got %v, want disk full", err)
		}
		if err := set(e, "k", "v"); !errors.Is(err, redoubt.DiskFull) {
			t.Errorf("a write meanwhile: got %v, want disk full", err)
		}
		disk.crowded.Store(false)
		time.Sleep(45 * time.Second)
		if err := set(e, "k", "v"); err != nil {
			t.Errorf("45 s after the disk has room: %v", err)
		}
		if err := e.Scrub(context.Background(), []byte("a"), []byte("z")); err != nil {
			t.Errorf("a compaction then: %v", err)
		}
	})
}

// TestAFullDiskIsEmptiedByDeletes, though the index cannot be flushed: what is deleted is what it gets room by.
func TestAFullDiskIsEmptiedByDeletes(t *testing.T) {
	ctx := context.Background()
	disk, e := onTableDisk(t)
	defer e.Close()
	var all []store.BlobRef
	for i := range 8 {
		s, err := e.Stage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Write(blobContent(i, 300_000)); err == nil {
			err = s.Finish()
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s.Ref())
		b := &store.Batch{Links: []store.Staged{s}}
		b.Set(fmt.Appendf(nil, "blob %d", i), nil)
		if err := e.Commit(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	fillUp(t, disk, e)
	for range 50 { // each flushes: pebble must not come to hold who asks
		if err := e.Maintain(ctx); !errors.Is(err, redoubt.DiskFull) {
			t.Fatalf("maintenance on a full disk: got %v, want disk full", err)
		}
	}
	before := e.Stats().DiskBytes
	for i, ref := range all {
		b := &store.Batch{Unlinks: []store.BlobRef{ref}}
		b.Delete(fmt.Appendf(nil, "blob %d", i))
		if err := e.Commit(ctx, b); err != nil {
			t.Fatalf("a delete on a full disk: %v", err)
		}
	}
	if err := e.Maintain(ctx); !errors.Is(err, redoubt.DiskFull) {
		t.Errorf("maintenance on a full disk: got %v, want disk full", err)
	}
	if after := e.Stats().DiskBytes; after > before-5*300_000 { // but for what shares the segment that is written to
		t.Errorf("8 blobs of 300 KB were deleted, and the store has %d bytes of before %d", after, before)
	}
	disk.full.Store(false)
	for set(e, "k", "v") != nil { // as soon as pebble has tried once more
		runtime.Gosched()
	}
	if err := e.Maintain(ctx); err != nil {
		t.Errorf("maintenance when there is room: %v", err)
	}
}

// TestAFullDiskTakesDeletesOnlyWhileNothingWaits: then they are refused like all else, and when there is room again they pass.
func TestAFullDiskTakesDeletesOnlyWhileNothingWaits(t *testing.T) {
	disk, e := onTableDisk(t)
	defer e.Close()
	fillUp(t, disk, e)
	remove := func() error {
		b := new(store.Batch)
		for i := range 2000 {
			b.Delete(fmt.Appendf(nil, "%01000d", i))
		}
		return e.Commit(context.Background(), b)
	}
	passed := 0
	for remove() == nil {
		if passed++; passed > 100 {
			t.Fatal("more passes than the index has memory for")
		}
	}
	if err := remove(); passed == 0 || !errors.Is(err, redoubt.DiskFull) {
		t.Errorf("%d passed, then %v, want disk full", passed, err)
	}
	disk.full.Store(false)
	for remove() != nil {
		runtime.Gosched()
	}
}

// TestAFlushOfNothingIsNoTrouble: pebble speaks of it as of an error.
func TestAFlushOfNothingIsNoTrouble(t *testing.T) {
	_, e := onTableDisk(t)
	for range 3 {
		if err := e.Scrub(context.Background(), []byte("a"), []byte("z")); err != nil {
			t.Fatal(err)
		}
	}
	if err := set(e, "k", "v"); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
