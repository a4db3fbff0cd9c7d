package storetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"redoubt"
	"redoubt/store"
)

// testDrop holds a driver to what DropBelow promises.
func testDrop(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	commit(t, e, func(b *store.Batch) { appendMany(b, 0, 10) })
	v := e.View()
	commit(t, e, func(b *store.Batch) {
		b.DropBelow = 4
		b.Set([]byte("with"), []byte("it"))
		b.Append([]byte("entry 10"))
	})
	if got := scan(t, v, []byte{store.AppendPrefix}, nil); len(got) != 10 {
		t.Fatalf("an older view has %d entries, want 10", len(got))
	}
	v.Close()
	wantStream(t, e, 4, 11)
	commit(t, e, func(b *store.Batch) { b.DropBelow = 2 }) // what is gone already
	wantStream(t, e, 4, 11)

	wantDropRefused(t, e, 12) // and the numbers go on, over restarts and maintenance
	for range 2 {
		if err := e.Maintain(context.Background()); err != nil {
			t.Fatal(err)
		}
		e.Close()
		e = open(t, dir)
		wantStream(t, e, 4, 11)
		wantValue(t, e, "with", "it")
		wantDropRefused(t, e, 12)
	}
	wantDumpedStream(t, open, e, 4, 11)

	commit(t, e, func(b *store.Batch) { b.DropBelow = 11 })
	wantStream(t, e, 11, 11)
	e.Close()
	e = open(t, dir)
	defer e.Close()
	wantStream(t, e, 11, 11)
	if b := commit(t, e, func(b *store.Batch) { appendMany(b, 11, 2) }); b.FirstAppend != 11 {
		t.Fatalf("the next entry is number %d, want 11", b.FirstAppend)
	}
	wantStream(t, e, 11, 13)
	dropWhileAppending(t, e)
}

// dropWhileAppending drops beside writers: no number is given twice, and what is kept is whole.
func dropWhileAppending(t *testing.T, e store.Engine) {
	t.Helper()
	const writers, each = 8, 40
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				b := new(store.Batch)
				b.Append([]byte("busy"))
				if err := e.Commit(context.Background(), b); err != nil {
					t.Error(err)
					return
				}
				drop := &store.Batch{DropBelow: b.FirstAppend}
				if err := e.Commit(context.Background(), drop); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s := e.Stats()
	if s.Appended != 13+writers*each || s.FirstAppend < s.Appended-writers || s.FirstAppend == s.Appended {
		t.Fatalf("entries %d to %d are kept, of %d", s.FirstAppend, s.Appended, 13+writers*each)
	}
	v := e.View()
	defer v.Close()
	if got := scan(t, v, []byte{store.AppendPrefix}, nil); uint64(len(got)) != s.Appended-s.FirstAppend {
		t.Fatalf("%d entries are kept, want %d", len(got), s.Appended-s.FirstAppend)
	}
}

func appendMany(b *store.Batch, from, n int) {
	for i := range n {
		b.Append(fmt.Appendf(nil, "entry %d", from+i))
	}
}

// wantStream wants entries first to end-1, and no other.
func wantStream(t *testing.T, e store.Engine, first, end int) {
	t.Helper()
	if s := e.Stats(); s.FirstAppend != uint64(first) || s.Appended != uint64(end) {
		t.Fatalf("Stats: got entries %d to %d, want %d to %d", s.FirstAppend, s.Appended, first, end)
	}
	v := e.View()
	defer v.Close()
	got := scan(t, v, []byte{store.AppendPrefix}, nil)
	if len(got) != end-first {
		t.Fatalf("%d entries are kept, want %d", len(got), end-first)
	}
	for i, entry := range got {
		if want := string(store.AppendKey(uint64(first+i))) + fmt.Sprintf("=entry %d", first+i); entry != want {
			t.Fatalf("got %q, want %q", entry, want)
		}
	}
	if first > 0 {
		wantAbsent(t, v, string(store.AppendKey(uint64(first-1))))
	}
}

// wantDropRefused wants a drop of what was never appended to change nothing.
func wantDropRefused(t *testing.T, e store.Engine, below uint64) {
	t.Helper()
	for _, below := range []uint64{below, store.MaxAppends, store.MaxAppends + 1} {
		b := &store.Batch{DropBelow: below}
		b.Set([]byte("sentinel"), nil)
		b.Append([]byte("an entry of the batch itself does not count"))
		wantKind(t, e.Commit(context.Background(), b), redoubt.Invalid)
		wantAbsent(t, e, "sentinel")
	}
}

func wantDumpedStream(t *testing.T, open Open, e store.Engine, first, end int) {
	t.Helper()
	other := open(t, t.TempDir())
	defer other.Close()
	v := e.View()
	defer v.Close()
	var dump bytes.Buffer
	if err := store.Dump(context.Background(), v, e, &dump); err != nil {
		t.Fatal(err)
	}
	if err := store.Load(context.Background(), other, &dump); err != nil {
		t.Fatal(err)
	}
	wantStream(t, other, first, end)
}
