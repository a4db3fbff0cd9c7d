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

func testBlobSizes(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	sizes := []int{0, 1, 2, 15, 4096, 32<<10 - 1, 32 << 10, 32<<10 + 1, 65_531, 65_532, 65_533, 65_536,
		store.InlineBytes - 1, store.InlineBytes, store.InlineBytes + 1, 300_000, 1 << 20, 1<<20 + 1, 5<<20 + 12345}
	refs := map[int]store.BlobRef{}
	for _, n := range sizes {
		refs[n] = put(t, e, content(n, n))
		wantBlob(t, e, refs[n], content(n, n))
	}
	zeros := put(t, e, make([]byte, 100_000))
	e.Close()
	e = open(t, dir)
	defer e.Close()
	for _, n := range sizes {
		wantBlob(t, e, refs[n], content(n, n))
	}
	wantBlob(t, e, zeros, make([]byte, 100_000))
	if got := e.Stats().Blobs; got != int64(len(sizes))+1 {
		t.Fatalf("Blobs: got %d, want %d", got, len(sizes)+1)
	}
	next := put(t, e, []byte("next"))
	for n, ref := range refs {
		if ref == next || ref == 0 {
			t.Fatalf("name %d of the blob of %d bytes was given twice or is zero", ref, n)
		}
	}
}

func testUnlink(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	_, err := e.OpenBlob(0)
	wantKind(t, err, redoubt.NotFound)
	_, err = e.OpenBlob(1 << 60)
	wantKind(t, err, redoubt.NotFound)
	small, large, both := put(t, e, content(1, 100)), put(t, e, content(2, 400_000)), stage(t, e, content(3, 50))
	_, err = e.OpenBlob(both.Ref())
	wantKind(t, err, redoubt.NotFound) // staged only
	commit(t, e, func(b *store.Batch) { b.Unlinks = append(b.Unlinks, small, large, 1<<60) })
	commit(t, e, func(b *store.Batch) { b.Links = append(b.Links, both); b.Unlinks = append(b.Unlinks, both.Ref()) })
	for range 2 {
		for _, ref := range []store.BlobRef{small, large, both.Ref()} {
			_, err := e.OpenBlob(ref)
			wantKind(t, err, redoubt.NotFound)
		}
		if got := e.Stats(); got.Blobs != 0 || got.LiveBytes != 0 {
			t.Fatalf("got %d blobs of %d bytes, want none", got.Blobs, got.LiveBytes)
		}
		e.Close()
		e = open(t, dir)
	}
	e.Close()
}

func testStagedState(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	link := func(s ...store.Staged) error {
		b := &store.Batch{Links: s}
		b.Set([]byte("sentinel"), nil)
		return e.Commit(context.Background(), b)
	}
	for _, n := range []int{10, 200_000} {
		s, err := e.Stage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.Write(content(n, n))
		wantKind(t, link(s), redoubt.Invalid) // not finished
		for range 2 {
			if err := s.Settle(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("more")); err == nil {
				t.Fatal("Write after Settle: want an error")
			}
		}
		wantKind(t, link(s), redoubt.Invalid) // settled only
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("more")); err == nil {
			t.Fatal("Write after Finish: want an error")
		}
		wantKind(t, link(s, s), redoubt.Invalid) // twice
		wantAbsent(t, e, "sentinel")
		if err := e.Commit(context.Background(), &store.Batch{Links: []store.Staged{s}}); err != nil {
			t.Fatal(err)
		}
		s.Discard() // no-op
		s.Discard()
		wantBlob(t, e, s.Ref(), content(n, n))
		wantKind(t, link(s), redoubt.Invalid) // again
		d := stage(t, e, content(n, n))
		if err := d.Settle(); err != nil { // finished, and so settled
			t.Fatal(err)
		}
		d.Discard()
		d.Discard()
		wantKind(t, d.Settle(), redoubt.Invalid)
		wantKind(t, link(d), redoubt.Invalid) // discarded
		wantAbsent(t, e, "sentinel")
	}
}

func testPinned(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	var refs []store.BlobRef
	var pins []store.Blob
	sizes := []int{10, 4096, 100_000, 200_000, 3 << 20}
	for i, n := range sizes {
		refs = append(refs, put(t, e, content(i, n)))
		b, err := e.OpenBlob(refs[i])
		if err != nil {
			t.Fatal(err)
		}
		pins = append(pins, b)
	}
	commit(t, e, func(b *store.Batch) { b.Unlinks = refs })
	if err := e.Maintain(context.Background()); err != nil {
		t.Fatalf("Maintain: %v", err)
	}
	if err := e.Scrub(context.Background(), []byte("a"), []byte("b")); err != nil {
		t.Fatalf("Scrub: %v", err)
	}
	for i, n := range sizes {
		wantContent(t, pins[i], content(i, n))
		if err := pins[i].Close(); err != nil {
			t.Fatal(err)
		}
		_, err := e.OpenBlob(refs[i])
		wantKind(t, err, redoubt.NotFound)
	}
}

func testViewPins(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	small, large := put(t, e, content(1, 5000)), put(t, e, content(2, 400_000))
	v := e.View()
	commit(t, e, func(b *store.Batch) { b.Unlinks = append(b.Unlinks, small, large) })
	if err := e.Maintain(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, e, small, content(1, 5000))
	wantBlob(t, e, large, content(2, 400_000))
	later := e.View()
	v.Close()
	_, err := e.OpenBlob(small)
	wantKind(t, err, redoubt.NotFound)
	_, err = e.OpenBlob(large)
	wantKind(t, err, redoubt.NotFound)
	later.Close()
}

func testMaintain(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	const writers, each = 4, 25
	stop := make(chan struct{})
	var bg, wg sync.WaitGroup
	bg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := e.Maintain(context.Background()); err != nil {
				t.Errorf("Maintain: %v", err)
				return
			}
		}
	})
	live := make([]map[int]store.BlobRef, writers)
	for w := range writers {
		live[w] = map[int]store.BlobRef{}
		wg.Go(func() {
			for i := range each {
				n := []int{200, 60_000, 150_000}[i%3]
				s := stage(t, e, content(w*1000+i, n))
				b := &store.Batch{Links: []store.Staged{s}}
				b.Set(fmt.Appendf(nil, "%d/%d", w, i), []byte("v"))
				if i%2 == 1 {
					b.Unlinks = append(b.Unlinks, live[w][i-1])
					delete(live[w], i-1)
				}
				if err := e.Commit(context.Background(), b); err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
				live[w][i] = s.Ref()
			}
		})
	}
	wg.Wait()
	close(stop)
	bg.Wait()
	for range 2 {
		for w := range writers {
			for i, ref := range live[w] {
				wantBlob(t, e, ref, content(w*1000+i, []int{200, 60_000, 150_000}[i%3]))
			}
		}
		if n, err := e.Check(context.Background(), func(f string) { t.Error(f) }); n != 0 || err != nil {
			t.Fatalf("Check: %d faults, %v", n, err)
		}
		e.Close()
		e = open(t, dir)
	}
	e.Close()
}

func testScrub(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	keep, drop := put(t, e, content(1, 3000)), put(t, e, content(2, 3000))
	keepLarge, dropLarge := put(t, e, content(3, 300_000)), put(t, e, content(4, 300_000))
	commit(t, e, func(b *store.Batch) {
		for i := range 100 {
			b.Set(fmt.Appendf(nil, "k%03d", i), bytes.Repeat([]byte{byte(i)}, 100))
		}
		b.Append([]byte("entry"))
	})
	commit(t, e, func(b *store.Batch) {
		for i := range 50 {
			b.Delete(fmt.Appendf(nil, "k%03d", 2*i))
		}
		b.Unlinks = append(b.Unlinks, drop, dropLarge)
	})
	if err := e.Scrub(context.Background(), []byte("k"), []byte("l")); err != nil {
		t.Fatalf("Scrub: %v", err)
	}
	for range 2 {
		for i := range 100 {
			if key := fmt.Sprintf("k%03d", i); i%2 == 0 {
				wantAbsent(t, e, key)
			} else {
				wantValue(t, e, key, string(bytes.Repeat([]byte{byte(i)}, 100)))
			}
		}
		wantBlob(t, e, keep, content(1, 3000))
		wantBlob(t, e, keepLarge, content(3, 300_000))
		e.Close()
		e = open(t, dir)
	}
	e.Close()
}

func testCheck(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	for i := range 10 {
		put(t, e, content(i, i*40_000))
	}
	for range 2 {
		if n, err := e.Check(context.Background(), func(f string) { t.Error(f) }); n != 0 || err != nil {
			t.Fatalf("Check: %d faults, %v", n, err)
		}
		e.Close()
		e = open(t, dir)
	}
	e.Close()
}

func testDump(t *testing.T, open Open) {
	e, other := open(t, t.TempDir()), open(t, t.TempDir())
	defer e.Close()
	defer other.Close()
	small, large := put(t, e, content(1, 5000)), put(t, e, content(2, 1<<20))
	commit(t, e, func(b *store.Batch) {
		b.Set([]byte("k"), []byte("v"))
		b.Add([]byte("n"), 7)
		b.Append([]byte("one"))
		b.Append([]byte("two"))
	})
	v := e.View()
	defer v.Close()
	commit(t, e, func(b *store.Batch) { b.Unlinks = append(b.Unlinks, small); b.Set([]byte("later"), nil) })
	var dump bytes.Buffer
	if err := store.Dump(context.Background(), v, e, &dump); err != nil {
		t.Fatalf("Dump: %v", err)
	}
	if err := store.Load(context.Background(), other, &dump); err != nil {
		t.Fatalf("Load: %v", err)
	}
	wantValue(t, other, "k", "v")
	wantAbsent(t, other, "later")
	wantBlob(t, other, small, content(1, 5000))
	wantBlob(t, other, large, content(2, 1<<20))
	if got := counter(t, other, "n"); got != 7 {
		t.Fatalf("counter: got %d, want 7", got)
	}
	if b := commit(t, other, func(b *store.Batch) { b.Append([]byte("three")) }); b.FirstAppend != 2 {
		t.Fatalf("FirstAppend after Load: got %d, want 2", b.FirstAppend)
	}
	if fresh := put(t, other, content(5, 10)); fresh == small || fresh == large {
		t.Fatal("a loaded name was given again")
	}
}
