package embedded_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt/store"
	"redoubt/store/embedded"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func stageContent(t *testing.T, e store.Engine, content []byte) store.Staged {
	t.Helper()
	s, err := e.Stage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(content); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAReaderThatAuthenticatesGetsTheSameBytes(t *testing.T) {
	e, err := embedded.Open("/store", embedded.Options{Key: testKey, FS: vfs.NewMem(), SegmentBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, size := range []int{100, store.InlineBytes, store.InlineBytes + 1, 3 * (64<<10 + 28), 5<<20 + 12345} { // the last in several runs
		content := noise(size)
		s := stageContent(t, e, content)
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		if err := e.Commit(context.Background(), &store.Batch{Links: []store.Staged{s}}); err != nil {
			t.Fatal(err)
		}
		b, err := e.OpenBlob(s.Ref())
		if err != nil {
			t.Fatal(err)
		}
		b.(store.SealedBlob).ReaderAuthenticates()
		for _, off := range []int{0, 1, 64<<10 + 27, 64<<10 + 28, 100_000, size - 1} {
			for _, n := range []int{1, 64<<10 + 28, 200_000, size} {
				if off < 0 || off+n > size {
					continue
				}
				p := make([]byte, n)
				if got, err := b.ReadAt(p, int64(off)); got != n || err != nil || !bytes.Equal(p, content[off:off+n]) {
					t.Fatalf("%d bytes at %d of %d: got %d, %v, or other bytes", n, off, size, got, err)
				}
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWritersAtOnceWriteToSegmentsOfTheirOwnAndOneAloneToOne(t *testing.T) {
	mem := vfs.NewMem()
	e, err := embedded.Open("/store", embedded.Options{Key: testKey, FS: mem, SegmentBytes: 16 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	content := noise(300_000)
	finish := func(s store.Staged) {
		t.Helper()
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		if err := e.Commit(context.Background(), &store.Batch{Links: []store.Staged{s}}); err != nil {
			t.Fatal(err)
		}
	}
	segments := func() (n int) { // that content was written to
		for _, path := range files(t, mem, "/store/1/d") {
			if bytes.Contains(read(t, mem, path), content[:64]) {
				n++
			}
		}
		return n
	}
	for range 3 {
		finish(stageContent(t, e, content))
	}
	if got := segments(); got != 1 {
		t.Errorf("one writer after the other: got %d segments, want 1", got)
	}
	var open []store.Staged
	for range 6 {
		open = append(open, stageContent(t, e, content))
	}
	for _, s := range open {
		finish(s)
		b, err := e.OpenBlob(s.Ref())
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, len(content))
		if _, err := b.ReadAt(p, 0); err != nil || !bytes.Equal(p, content) {
			t.Errorf("got other bytes, or %v", err)
		}
		b.Close()
	}
	if got := segments(); got != 4 {
		t.Errorf("six writers at once: got %d segments, want 4", got)
	}
	if n, err := e.Check(context.Background(), func(fault string) { t.Error(fault) }); n != 0 || err != nil {
		t.Errorf("got %d faults, %v", n, err)
	}
}

// TestWhatIsSettledWastesNoSpaceBeforeItIsFinished: whoever finishes many blobs together takes no more disk than who does it one by one,
// but for the segments that are appended to at once.
func TestWhatIsSettledWastesNoSpaceBeforeItIsFinished(t *testing.T) {
	const segment, fronts = 8 << 20, 4
	for _, size := range []int{300_000, 1<<20 + 1000} {
		content := noise(size)
		disk := func(together int) int64 {
			e, err := embedded.Open("/store", embedded.Options{Key: testKey, FS: vfs.NewMem(), SegmentBytes: segment, ReserveBytes: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			for range 64 / together {
				b := new(store.Batch)
				for range together {
					s := stageContent(t, e, content)
					if err := s.Settle(); err != nil {
						t.Fatal(err)
					}
					b.Links = append(b.Links, s)
				}
				for _, s := range b.Links {
					if err := s.Finish(); err != nil {
						t.Fatal(err)
					}
				}
				if err := e.Commit(context.Background(), b); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := e.Check(context.Background(), func(fault string) { t.Error(fault) }); n != 0 || err != nil {
				t.Errorf("got %d faults, %v", n, err)
			}
			return e.Stats().DiskBytes
		}
		if alone, together := disk(1), disk(16); together > alone+fronts*segment {
			t.Errorf("64 blobs of %d bytes: %d MiB one by one, %d MiB by sixteen", size, alone>>20, together>>20)
		}
	}
}
