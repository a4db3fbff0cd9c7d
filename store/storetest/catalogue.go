package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"redoubt"
	"redoubt/store"
)

func testBatch(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	commit(t, e, func(b *store.Batch) {
		b.Set([]byte("a"), []byte("1"))
		b.Set([]byte("b"), nil)
		b.Append([]byte("first"))
	})
	wantValue(t, e, "a", "1")
	wantValue(t, e, "b", "")
	wantAbsent(t, e, "c")
	if err := e.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	e = open(t, dir)
	defer e.Close()
	wantValue(t, e, "a", "1")
	wantValue(t, e, "b", "")
	wantValue(t, e, string(store.AppendKey(0)), "first")
	commit(t, e, func(b *store.Batch) { b.Delete([]byte("a")) })
	wantAbsent(t, e, "a")
	commit(t, e, func(*store.Batch) {}) // an empty batch is no error
}

func testWriteOrder(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	commit(t, e, func(b *store.Batch) {
		b.Set([]byte("k"), []byte("1"))
		b.Delete([]byte("k"))
		b.Set([]byte("k"), []byte("2"))
		b.Set([]byte("gone"), []byte("1"))
		b.Delete([]byte("gone"))
		b.Delete([]byte("never was"))
	})
	wantValue(t, e, "k", "2")
	wantAbsent(t, e, "gone")
	// What the caller does to its buffers afterwards changes nothing.
	key, value := []byte("mine"), []byte("value")
	commit(t, e, func(b *store.Batch) { b.Set(key, value) })
	value[0] = 'X'
	wantValue(t, e, "mine", "value")
	got, _, _ := e.Get([]byte("mine"))
	got[0] = 'Y'
	wantValue(t, e, "mine", "value")
}

func testCounters(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	commit(t, e, func(b *store.Batch) {
		b.Add([]byte("n"), 5)
		b.Add([]byte("n"), -7)
		b.Add([]byte("m"), 1)
		b.Set([]byte("r"), []byte("12345678"))
		b.Delete([]byte("r"))
		b.Add([]byte("r"), 3)
	})
	if got := counter(t, e, "n"); got != -2 {
		t.Fatalf("got %d, want -2", got)
	}
	commit(t, e, func(b *store.Batch) { b.Delete([]byte("m")) })
	commit(t, e, func(b *store.Batch) { b.Add([]byte("m"), 4); b.Add([]byte("n"), 1) })
	e.Close()
	e = open(t, dir)
	defer e.Close()
	for key, want := range map[string]int64{"n": -1, "m": 4, "r": 3} {
		if got := counter(t, e, key); got != want {
			t.Fatalf("%s: got %d, want %d", key, got, want)
		}
	}
	commit(t, e, func(b *store.Batch) { b.Set([]byte("text"), []byte("abc")) })
	b := new(store.Batch)
	b.Set([]byte("x"), nil)
	b.Add([]byte("n"), 100)
	b.Add([]byte("text"), 1)
	wantKind(t, e.Commit(context.Background(), b), redoubt.Invalid)
	wantAbsent(t, e, "x")
	if got := counter(t, e, "n"); got != -1 {
		t.Fatalf("after a refused batch: got %d, want -1", got)
	}
}

func testNumbers(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	stream := func(b *store.Batch, value string) { b.Number([]byte("j\x00a"), []byte(value)) }
	commit(t, e, func(b *store.Batch) { stream(b, "one"); b.Number([]byte("other"), nil); stream(b, "two") })
	e.Close()
	e = open(t, dir)
	defer e.Close()
	commit(t, e, func(b *store.Batch) { b.Delete(store.NumberedKey([]byte("j\x00a"), 1)); stream(b, "three") })
	wantValue(t, e, string(store.NumberedKey([]byte("j\x00a"), 3)), "three")
	wantValue(t, e, string(store.NumberedKey([]byte("j\x00a"), 2)), "two")
	wantAbsent(t, e, string(store.NumberedKey([]byte("j\x00a"), 1)))
	wantValue(t, e, string(store.NumberedKey([]byte("other"), 1)), "")
	if got := counter(t, e, "j\x00a"); got != 3 {
		t.Fatalf("the stream stands at %d, want 3", got)
	}

	// A number that can be read has none below it that comes later.
	const writers, each = 8, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := new(store.Batch)
				b.Number([]byte("busy"), fmt.Appendf(nil, "%d/%d", w, i))
				if err := e.Commit(context.Background(), b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for last := 0; last < writers*each; {
		v := e.View()
		got := scan(t, v, store.NumberedKey([]byte("busy"), 0), store.NumberedKey([]byte("busy"), 1<<40))
		for i, entry := range got {
			if want := string(store.NumberedKey([]byte("busy"), uint64(i+1))) + "="; !strings.HasPrefix(entry, want) {
				t.Fatalf("entry %d of the stream is missing among %d", i+1, len(got))
			}
		}
		last = len(got)
		v.Close()
		if t.Failed() {
			return
		}
	}
	wg.Wait()
}

func testAppends(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	next := uint64(0)
	for round := range 3 {
		for i := range 5 {
			b := commit(t, e, func(b *store.Batch) {
				for j := range i {
					b.Append(fmt.Appendf(nil, "%d/%d/%d", round, i, j))
				}
			})
			if i > 0 && b.FirstAppend != next {
				t.Fatalf("FirstAppend: got %d, want %d", b.FirstAppend, next)
			}
			next += uint64(i)
		}
		if got := e.Stats().Appended; got != next {
			t.Fatalf("Appended: got %d, want %d", got, next)
		}
		e.Close()
		e = open(t, dir)
	}
	defer e.Close()
	v := e.View()
	defer v.Close()
	if got := scan(t, v, []byte{store.AppendPrefix}, nil); uint64(len(got)) != next || got[1] != string(store.AppendKey(1))+"=0/2/0" {
		t.Fatalf("append stream has %d entries (second %q), want %d", len(got), got[1], next)
	}
}

func testViews(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	commit(t, e, func(b *store.Batch) { b.Set([]byte("a"), []byte("1")); b.Set([]byte("b"), []byte("1")) })
	v := e.View()
	commit(t, e, func(b *store.Batch) { b.Set([]byte("a"), []byte("2")); b.Delete([]byte("b")); b.Set([]byte("c"), nil) })
	wantValue(t, v, "a", "1")
	wantValue(t, v, "b", "1")
	wantAbsent(t, v, "c")
	if got, want := scan(t, v, nil, nil), []string{"a=1", "b=1"}; !slices.Equal(got, want) {
		t.Fatalf("old view: got %q, want %q", got, want)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = e.View()
	defer v.Close()
	if got, want := scan(t, v, nil, nil), []string{"a=2", "c="}; !slices.Equal(got, want) {
		t.Fatalf("new view: got %q, want %q", got, want)
	}
}

func testIterators(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	keys := []string{"\x00", "\x00\x00", "a", "a\x00", "ab", "b", "\xfe", "\xfe\xff\xff"}
	commit(t, e, func(b *store.Batch) {
		for _, k := range keys {
			b.Set([]byte(k), []byte("v"))
		}
		b.Append([]byte("entry"))
	})
	v := e.View()
	defer v.Close()
	for _, c := range []struct {
		lower, upper []byte
		want         []string
	}{
		{nil, []byte{store.AppendPrefix}, keys},
		{[]byte{}, []byte{store.AppendPrefix}, keys},
		{[]byte("a"), []byte("b"), keys[2:5]},
		{[]byte("a\x00"), []byte("b\x00"), keys[3:6]},
		{[]byte("b"), []byte("a"), nil},
		{[]byte("a"), []byte("a"), nil},
		{[]byte("a"), []byte{}, nil}, // empty is a bound, nil is none
	} {
		var want []string
		for _, k := range c.want {
			want = append(want, k+"=v")
		}
		if got := scan(t, v, c.lower, c.upper); !slices.Equal(got, want) {
			t.Fatalf("Scan(%q, %q): got %q, want %q", c.lower, c.upper, got, want)
		}
	}
	it := v.Scan([]byte("a"), []byte("b"))
	defer it.Close()
	for _, c := range []struct{ seek, want string }{{"", "a"}, {"aa", "ab"}, {"a", "a"}, {"a\x00", "a\x00"}, {"b", ""}, {"ab", "ab"}, {"a", "a"}} {
		ok := it.SeekGE([]byte(c.seek))
		if ok != (c.want != "") || ok && string(it.Key()) != c.want {
			t.Fatalf("SeekGE(%q): got %v; want %q", c.seek, ok, c.want)
		}
	}
	if !it.Next() || string(it.Key()) != "a\x00" {
		t.Fatal("Next after SeekGE: want the key after it")
	}
}

func testLimits(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	for name, c := range map[string]struct {
		limit int
		fill  func(b *store.Batch, n int)
	}{
		"MaxKeyBytes":    {store.MaxKeyBytes, func(b *store.Batch, n int) { b.Set(bytes.Repeat([]byte("k"), n), nil) }},
		"MaxValueBytes":  {store.MaxValueBytes, func(b *store.Batch, n int) { b.Set([]byte("k"), content(1, n)) }},
		"append entry":   {store.MaxValueBytes, func(b *store.Batch, n int) { b.Append(content(2, n)) }},
		"MaxBatchWrites": {store.MaxBatchWrites, func(b *store.Batch, n int) { fillWrites(b, n) }},
		"MaxBatchBytes":  {store.MaxBatchBytes, fillBytes},
	} {
		b := new(store.Batch)
		c.fill(b, c.limit)
		if err := e.Commit(context.Background(), b); err != nil {
			t.Fatalf("%s: at the limit: %v", name, err)
		}
		b = new(store.Batch)
		b.Set([]byte("sentinel"), nil)
		c.fill(b, c.limit+1)
		wantKind(t, e.Commit(context.Background(), b), redoubt.TooLarge)
		wantAbsent(t, e, "sentinel")
	}
}

func fillWrites(b *store.Batch, n int) {
	for i := range n {
		b.Set(fmt.Appendf(nil, "w%d", i), nil)
	}
}

func fillBytes(b *store.Batch, n int) {
	for i := byte('a'); n > 0; i++ {
		size := min(n, store.MaxValueBytes)
		b.Set([]byte{i}, make([]byte, size-1))
		n -= size
	}
}

func testMalformed(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	for name, spoil := range map[string]func(b *store.Batch){
		"empty key":         func(b *store.Batch) { b.Set(nil, nil) },
		"reserved key":      func(b *store.Batch) { b.Set(store.AppendKey(0), nil) },
		"reserved delete":   func(b *store.Batch) { b.Delete([]byte{store.AppendPrefix}) },
		"no operation":      func(b *store.Batch) { b.Writes = append(b.Writes, store.Write{Key: []byte("k")}) },
		"unknown operation": func(b *store.Batch) { b.Writes = append(b.Writes, store.Write{Op: 99, Key: []byte("k")}) },
	} {
		b := new(store.Batch)
		b.Set([]byte("sentinel"), nil)
		spoil(b)
		if err := e.Commit(context.Background(), b); redoubt.KindOf(err) != redoubt.Invalid {
			t.Fatalf("%s: got %v, want invalid", name, err)
		}
		wantAbsent(t, e, "sentinel")
	}
}

func testConcurrent(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir)
	const writers, each = 16, 40
	var wg sync.WaitGroup
	seen := make([][]uint64, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := new(store.Batch)
				b.Add([]byte("total"), 1)
				b.Set(fmt.Appendf(nil, "w%02d/%04d", w, i), content(w, 300))
				b.Append(fmt.Appendf(nil, "w%02d/%04d", w, i))
				if err := e.Commit(context.Background(), b); err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
				seen[w] = append(seen[w], b.FirstAppend)
				if _, ok, err := e.Get(fmt.Appendf(nil, "w%02d/%04d", w, i)); !ok || err != nil {
					t.Errorf("own write is not visible: %v", err)
				}
			}
		})
	}
	wg.Wait()
	e.Close()
	e = open(t, dir)
	defer e.Close()
	if got := counter(t, e, "total"); got != writers*each {
		t.Fatalf("total: got %d, want %d", got, writers*each)
	}
	for w := range writers {
		for i, n := range seen[w] {
			wantValue(t, e, string(store.AppendKey(n)), fmt.Sprintf("w%02d/%04d", w, i))
		}
		if !slices.IsSorted(seen[w]) {
			t.Fatalf("writer %d saw its appends out of order", w)
		}
	}
}

func testClosed(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	s := stage(t, e, content(1, 10))
	commit(t, e, func(b *store.Batch) { b.Links = append(b.Links, s) })
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	b := new(store.Batch)
	b.Set([]byte("k"), nil)
	wantKind(t, e.Commit(context.Background(), b), redoubt.Unavailable)
	_, _, err := e.Get([]byte("k"))
	wantKind(t, err, redoubt.Unavailable)
	_, err = e.OpenBlob(s.Ref())
	wantKind(t, err, redoubt.Unavailable)
	_, err = e.Stage(context.Background())
	wantKind(t, err, redoubt.Unavailable)
	v := e.View()
	defer v.Close()
	_, _, err = v.Get([]byte("k"))
	wantKind(t, err, redoubt.Unavailable)
}

func testCancel(t *testing.T, open Open) {
	e := open(t, t.TempDir())
	defer e.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := new(store.Batch)
	b.Set([]byte("k"), nil)
	wantKind(t, e.Commit(ctx, b), redoubt.Unavailable)
	wantAbsent(t, e, "k")
	if _, err := e.Stage(ctx); err == nil {
		t.Fatal("Stage with a cancelled context: want an error")
	}
}
