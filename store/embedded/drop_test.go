package embedded

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"redoubt/store"
)

// TestDroppedEntriesGiveTheirSpaceBack: maintenance leaves no table that holds dropped entries, and the last entry stays.
func TestDroppedEntriesGiveTheirSpaceBack(t *testing.T) {
	e, err := Open(t.TempDir(), Options{Key: bytes.Repeat([]byte{7}, keyBytes), SegmentBytes: 1 << 20, ReserveBytes: -1, MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx := context.Background()
	const entries, size = 64, 256 << 10
	random := rand.NewChaCha8([32]byte{1})
	for range entries {
		entry := make([]byte, size) // which does not compress
		random.Read(entry)
		if err := e.Commit(ctx, &store.Batch{Appends: [][]byte{entry}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Maintain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := inTables(t, e); got < (entries-1)*size/2 {
		t.Fatalf("%d bytes in tables, of %d written: the test measures nothing", got, entries*size)
	}
	if err := e.Commit(ctx, &store.Batch{DropBelow: entries - 1}); err != nil {
		t.Fatal(err)
	}
	if err := e.Maintain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := inTables(t, e); got > 4*size {
		t.Fatalf("%d bytes are left in tables, for one entry of %d", got, size)
	}
	if got, ok, err := e.Get(store.AppendKey(entries - 1)); !ok || err != nil || len(got) != size {
		t.Fatalf("the last entry: %d bytes, %v, %v", len(got), ok, err)
	}
}

// inTables is the size of the tables that the index uses.
func inTables(t *testing.T, e *Engine) (total uint64) {
	t.Helper()
	levels, err := e.idx.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range levels {
		for _, table := range level {
			total += table.Size
		}
	}
	return total
}
