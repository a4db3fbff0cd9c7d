// Package storetest is the contract of store.Engine, written as tests: every driver
// passes Test.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"redoubt"
	"redoubt/store"
)

// Open opens the engine whose state lives in dir. Test calls it again with the same
// dir after Close, and expects the same state. It fails t rather than return an error.
type Open func(t *testing.T, dir string) store.Engine

// Test holds a driver against the contract.
func Test(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, open Open)
	}{
		{"BatchIsAtomicAndDurable", testBatch},
		{"WritesApplyInOrder", testWriteOrder},
		{"CountersAdd", testCounters},
		{"StreamsAreNumberedInCommitOrder", testNumbers},
		{"AppendsAreNumberedInCommitOrder", testAppends},
		{"DroppedEntriesAreGoneAndNumbersGoOn", testDrop},
		{"ViewsAreConsistent", testViews},
		{"IteratorsWalkInByteOrder", testIterators},
		{"LimitsHoldAtNAndRefuseAtNPlusOne", testLimits},
		{"MalformedBatchesChangeNothing", testMalformed},
		{"CommitsRunConcurrently", testConcurrent},
		{"ClosedEngineRefuses", testClosed},
		{"CancelledContextChangesNothing", testCancel},
		{"BlobsOfEverySizeReadBack", testBlobSizes},
		{"BlobsDieWhenUnlinked", testUnlink},
		{"StagedBlobsMustBeFinishedAndLinkedOnce", testStagedState},
		{"OpenBlobsSurviveUnlinkAndCompaction", testPinned},
		{"ViewsPinBlobs", testViewPins},
		{"MaintainRunsWhileServing", testMaintain},
		{"ScrubKeepsTheLiving", testScrub},
		{"CheckFindsNoFaultInAHealthyStore", testCheck},
		{"DumpLoadsElsewhere", testDump},
		{"BehavesLikeAMap", testModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

// commit commits a batch that build fills, and fails t on error.
func commit(t testing.TB, e store.Engine, build func(b *store.Batch)) *store.Batch {
	t.Helper()
	b := new(store.Batch)
	build(b)
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return b
}

func wantValue(t testing.TB, e interface {
	Get([]byte) ([]byte, bool, error)
}, key string, want string) {
	t.Helper()
	got, ok, err := e.Get([]byte(key))
	if err != nil || !ok || string(got) != want {
		t.Fatalf("Get(%q): got %.40q, %v, %v; want %.40q", key, got, ok, err, want)
	}
}

func wantAbsent(t testing.TB, e interface {
	Get([]byte) ([]byte, bool, error)
}, key string) {
	t.Helper()
	if got, ok, err := e.Get([]byte(key)); ok || err != nil {
		t.Fatalf("Get(%q): got %.40q, %v, %v; want absent", key, got, ok, err)
	}
}

func wantKind(t testing.TB, err error, want redoubt.Kind) {
	t.Helper()
	if err == nil || !errors.Is(err, want) {
		t.Fatalf("got error %v, want kind %q", err, want)
	}
}

func counter(t testing.TB, e store.Engine, key string) int64 {
	t.Helper()
	v, ok, err := e.Get([]byte(key))
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	if !ok {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(v))
}

// content is n bytes that differ by seed and by place.
func content(seed, n int) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// stage stages and finishes a blob, written in pieces.
func stage(t testing.TB, e store.Engine, data []byte) store.Staged {
	t.Helper()
	s, err := e.Stage(context.Background())
	if err != nil {
		t.Fatalf("Stage: %v", err)
	}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 70_001)
		if got, err := s.Write(rest[:n]); err != nil || got != n {
			t.Fatalf("Write: got %d, %v; want %d", got, err, n)
		}
		rest = rest[n:]
	}
	if err := s.Finish(); err != nil {
		t.Fatalf("Finish: %v", err)
	}
	if s.Size() != int64(len(data)) {
		t.Fatalf("Size: got %d, want %d", s.Size(), len(data))
	}
	return s
}

func put(t testing.TB, e store.Engine, data []byte) store.BlobRef {
	t.Helper()
	s := stage(t, e, data)
	commit(t, e, func(b *store.Batch) { b.Links = append(b.Links, s) })
	return s.Ref()
}

func wantBlob(t testing.TB, e store.Engine, ref store.BlobRef, want []byte) {
	t.Helper()
	b, err := e.OpenBlob(ref)
	if err != nil {
		t.Fatalf("OpenBlob(%d): %v", ref, err)
	}
	defer b.Close()
	wantContent(t, b, want)
}

func wantContent(t testing.TB, b store.Blob, want []byte) {
	t.Helper()
	if b.Size() != int64(len(want)) {
		t.Fatalf("Size: got %d, want %d", b.Size(), len(want))
	}
	got := make([]byte, len(want))
	if n, err := b.ReadAt(got, 0); n != len(want) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt: got %d, %v; want %d bytes", n, err, len(want))
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("blob of %d bytes reads back different", len(want))
	}
	// A piece from the middle, and one past the end.
	if n := len(want); n > 2 {
		piece := make([]byte, (n+1)/2)
		if _, err := b.ReadAt(piece, int64(n/3)); err != nil && err != io.EOF {
			t.Fatalf("ReadAt(%d): %v", n/3, err)
		} else if !bytes.Equal(piece, want[n/3:n/3+len(piece)]) {
			t.Fatalf("blob of %d bytes reads back different from its middle", n)
		}
	}
	if n, err := b.ReadAt(make([]byte, 10), int64(len(want))-3); len(want) > 3 && (n != 3 || err != io.EOF) {
		t.Fatalf("ReadAt over the end: got %d, %v; want 3, EOF", n, err)
	}
	if n, err := b.ReadAt(make([]byte, 1), int64(len(want))); n != 0 || err != io.EOF {
		t.Fatalf("ReadAt at the end: got %d, %v; want 0, EOF", n, err)
	}
}

func scan(t testing.TB, v store.View, lower, upper []byte) (keys []string) {
	t.Helper()
	it := v.Scan(lower, upper)
	for it.Next() {
		keys = append(keys, fmt.Sprintf("%s=%s", it.Key(), it.Value()))
	}
	if err := it.Err(); err != nil {
		t.Fatalf("Scan: %v", err)
	}
	if err := it.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return keys
}
