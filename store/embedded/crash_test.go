package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
	"redoubt/store"
	"redoubt/store/embedded"
)

// history is what a workload was told: per key what was acknowledged, and what may be.
type history struct {
	acked   map[string]string // "" : absent
	unsure  map[string]string // of the one batch whose outcome is open
	blobs   map[store.BlobRef][]byte
	maybe   map[store.BlobRef][]byte
	appends int
	first   int // entry that was not dropped
	drop    int // of the open batch
}

func blobContent(seed, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// run commits a fixed sequence of batches, with maintenance between, until one fails. Whatever
// the engine acknowledges goes into h.
func (h *history) run(e store.Engine, steps int) error {
	ctx := context.Background()
	for i := range steps {
		b := new(store.Batch)
		h.unsure, h.maybe = map[string]string{}, map[store.BlobRef][]byte{}
		set := func(k, v string) { b.Set([]byte(k), []byte(v)); h.unsure[k] = v }
		set(fmt.Sprintf("k%d", i%5), fmt.Sprint(i))
		set("pair-a", fmt.Sprint(i))
		set("pair-b", fmt.Sprint(i))
		if i%4 == 3 {
			k := fmt.Sprintf("k%d", (i+1)%5)
			b.Delete([]byte(k))
			h.unsure[k] = ""
		}
		b.Append(fmt.Appendf(nil, "entry %d", h.appends))
		if h.drop = 0; i%5 == 4 {
			h.drop = max(0, h.appends-2)
			b.DropBelow = uint64(h.drop)
		}
		size := []int{0, 3000, 20_000, store.InlineBytes + 5000}[i%4]
		s, err := e.Stage(ctx)
		if err != nil {
			return err
		}
		if _, err := s.Write(blobContent(i, size)); err != nil {
			s.Discard()
			return err
		}
		if err := s.Finish(); err != nil {
			s.Discard()
			return err
		}
		b.Links = append(b.Links, s)
		h.maybe[s.Ref()] = blobContent(i, size)
		if i%3 == 2 {
			for ref := range h.blobs {
				b.Unlinks = append(b.Unlinks, ref)
				h.maybe[ref] = nil
				break
			}
		}
		if err := e.Commit(ctx, b); err != nil {
			if !errors.Is(err, store.ErrUncertain) {
				clear(h.unsure)
				clear(h.maybe)
			}
			return err
		}
		h.settle(1)
		if i%7 == 6 {
			if err := e.Maintain(ctx); err != nil {
				return err
			}
		}
		if i%10 == 9 {
			if err := e.Scrub(ctx, []byte("k"), []byte("l")); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle takes the open batch as having happened.
func (h *history) settle(appends int) {
	for k, v := range h.unsure {
		h.acked[k] = v
	}
	for ref, data := range h.maybe {
		if data == nil {
			delete(h.blobs, ref)
		} else {
			h.blobs[ref] = data
		}
	}
	h.appends += appends
	h.first = max(h.first, h.drop)
	clear(h.unsure)
	clear(h.maybe)
}

// verify checks that e holds exactly what was acknowledged, and the open batch whole or not at all.
func (h *history) verify(e store.Engine) error {
	if got := int(e.Stats().Appended); got == h.appends+1 && len(h.unsure) > 0 {
		h.settle(1)
	} else if got != h.appends {
		return fmt.Errorf("%d entries in the append stream, want %d", got, h.appends)
	}
	if got := int(e.Stats().FirstAppend); got != h.first {
		return fmt.Errorf("entries are kept from %d, want %d", got, h.first)
	}
	for n := range h.appends {
		got, ok, err := e.Get(store.AppendKey(uint64(n)))
		if want := fmt.Sprintf("entry %d", n); err != nil || ok != (n >= h.first) || ok && string(got) != want {
			return fmt.Errorf("entry %d, kept from %d: got %q, %v, %v", n, h.first, got, ok, err)
		}
	}
	for k, want := range h.acked {
		got, ok, err := e.Get([]byte(k))
		if err != nil || ok != (want != "") || string(got) != want {
			return fmt.Errorf("key %q: got %q, %v, %v; want %q", k, got, ok, err, want)
		}
	}
	for ref, want := range h.blobs {
		b, err := e.OpenBlob(ref)
		if err != nil {
			return fmt.Errorf("blob %d of %d bytes: %w", ref, len(want), err)
		}
		got := make([]byte, len(want))
		_, err = b.ReadAt(got, 0)
		b.Close()
		if !bytes.Equal(got, want) {
			return fmt.Errorf("blob %d of %d bytes reads back different: %v", ref, len(want), err)
		}
	}
	if got := e.Stats().Blobs; got != int64(len(h.blobs)) {
		return fmt.Errorf("%d blobs, want %d", got, len(h.blobs))
	}
	var faults []string
	if n, err := e.Check(context.Background(), func(f string) { faults = append(faults, f) }); n > 0 || err != nil {
		return fmt.Errorf("check: %d faults %q, %v", n, faults, err)
	}
	return nil
}

func newHistory() *history {
	return &history{acked: map[string]string{}, blobs: map[store.BlobRef][]byte{}}
}

func openOn(fs vfs.FS) (*embedded.Engine, error) {
	return embedded.Open("/store", embedded.Options{Key: testKey, FS: fs, SegmentBytes: 256 << 10, ReserveBytes: -1, MaintainEvery: -1})
}

const crashSteps = 24

// countChanges runs the workload on a healthy disk and returns how many changes it makes.
func countChanges(t *testing.T) int {
	fs := &faultFS{FS: vfs.NewCrashableMem()}
	e, err := openOn(fs)
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory()
	if err := h.run(e, crashSteps); err != nil {
		t.Fatal(err)
	}
	if err := h.verify(e); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return fs.changes()
}

// points picks the changes to spoil: all of them, or some in short mode.
func points(t *testing.T, total int) (at []int) {
	stride := 1
	if testing.Short() {
		stride = 17
	}
	for i := 1; i <= total; i += stride {
		at = append(at, i)
	}
	return at
}

func TestPowerMayFailAtEveryWriteAndSync(t *testing.T) {
	total := countChanges(t)
	for _, unsynced := range []int{0, 50, 100} {
		for _, at := range points(t, total) {
			mem := vfs.NewCrashableMem()
			fs := &faultFS{FS: mem, at: at, mode: powerOff, torn: rand.New(rand.NewPCG(uint64(at), 1))}
			h := newHistory()
			e, err := openOn(fs)
			if err == nil {
				h.run(e, crashSteps)
			}
			disk := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(uint64(at), 2))})
			if e != nil {
				e.Close()
			}
			again, err := openOn(disk)
			if err != nil {
				t.Fatalf("crash at change %d of %d, %d%% of unsynced data kept: Open: %v", at, total, unsynced, err)
			}
			if err := h.verify(again); err != nil {
				t.Fatalf("crash at change %d of %d, %d%% of unsynced data kept: %v", at, total, unsynced, err)
			}
			if err := newHistoryFrom(h).run(again, 6); err != nil {
				t.Fatalf("crash at change %d: the store does not go on: %v", at, err)
			}
			again.Close()
		}
	}
}

// newHistoryFrom goes on where h ended.
func newHistoryFrom(h *history) *history {
	h.unsure, h.maybe = nil, nil
	return h
}

func TestOneFailedWriteLosesNothing(t *testing.T) {
	total := countChanges(t)
	for _, at := range points(t, total) {
		mem := vfs.NewCrashableMem()
		fs := &faultFS{FS: mem, at: at, mode: failOnce}
		h := newHistory()
		e, err := openOn(fs)
		if err == nil {
			if err := h.run(e, crashSteps); err != nil && redoubt.KindOf(err) == redoubt.Corrupt {
				t.Fatalf("failed change %d of %d: %v", at, total, err)
			}
			e.Close()
		}
		again, err := openOn(mem)
		if err != nil {
			t.Fatalf("failed change %d of %d: Open: %v", at, total, err)
		}
		if err := h.verify(again); err != nil {
			t.Fatalf("failed change %d of %d: %v", at, total, err)
		}
		again.Close()
	}
}
