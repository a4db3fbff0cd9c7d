package embedded

import (
	"bytes"
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt/store"
)

// Small blobs of a batch that is too much for a frame go to extents. Compaction and Scrub move them like any other.
func TestASpilledBlobIsMovedByCompaction(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.SegmentBytes = 8 << 20 // several blobs in one segment
	e, err := Open("/store", o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx := context.Background()
	b := new(store.Batch)
	content := bytes.Repeat([]byte{5}, store.InlineBytes)
	for range spillBytes/store.InlineBytes + 1 {
		s, err := e.Stage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.Write(content)
		s.Finish()
		b.Links = append(b.Links, s)
	}
	if err := e.Commit(ctx, b); err != nil {
		t.Fatal(err)
	}
	dead := new(store.Batch)
	for _, s := range b.Links[1:] {
		dead.Unlinks = append(dead.Unlinks, s.Ref())
	}
	if err := e.Commit(ctx, dead); err != nil {
		t.Fatal(err)
	}
	if err := e.Maintain(ctx); err != nil {
		t.Fatalf("Maintain: %v", err)
	}
	if err := e.Scrub(ctx, nil, nil); err != nil {
		t.Fatalf("Scrub: %v", err)
	}
	got, err := e.readBlob(b.Links[0].Ref())
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
}
