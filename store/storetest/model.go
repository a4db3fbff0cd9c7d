package storetest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"redoubt/store"
)

// model is what an engine should hold, in plain maps.
type model struct {
	keys    map[string]string
	blobs   map[store.BlobRef][]byte
	entries []string
	first   int // entry that was not dropped
}

// testModel runs random operations on an engine and on a model, and compares them.
func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		e := open(t, dir)
		defer func() { e.Close() }()
		m := &model{keys: map[string]string{}, blobs: map[store.BlobRef][]byte{}}
		for step := range rapid.IntRange(1, 25).Draw(r, "steps") {
			switch rapid.IntRange(0, 9).Draw(r, "what") {
			case 0:
				if err := e.Maintain(context.Background()); err != nil {
					r.Fatalf("Maintain: %v", err)
				}
			case 1:
				e.Close()
				e = open(t, dir)
			case 2:
				if err := e.Scrub(context.Background(), []byte{0}, []byte{store.AppendPrefix}); err != nil {
					r.Fatalf("Scrub: %v", err)
				}
			default:
				m.commit(r, e, step)
			}
			m.compare(r, e)
		}
	})
}

func (m *model) commit(r *rapid.T, e store.Engine, step int) {
	b := new(store.Batch)
	staged := map[store.BlobRef][]byte{}
	for range rapid.IntRange(0, 6).Draw(r, "writes") {
		text := rapid.StringMatching(`t[a-c]{1,2}`).Draw(r, "key")
		count := rapid.StringMatching(`n[a-c]`).Draw(r, "counter")
		switch rapid.IntRange(0, 5).Draw(r, "op") {
		case 0, 1:
			value := rapid.StringN(0, 20, 200).Draw(r, "value")
			b.Set([]byte(text), []byte(value))
			m.keys[text] = value
		case 2:
			b.Delete([]byte(text))
			delete(m.keys, text)
		case 3:
			delta := rapid.Int64Range(-100, 100).Draw(r, "delta")
			b.Add([]byte(count), delta)
			m.keys[count] = addTo(m.keys[count], delta)
		case 4:
			b.Delete([]byte(count))
			delete(m.keys, count)
		case 5:
			b.Append([]byte(text))
			m.entries = append(m.entries, text)
		}
	}
	if had := len(m.entries) - len(b.Appends); had > 0 && rapid.IntRange(0, 3).Draw(r, "drop") == 0 {
		b.DropBelow = uint64(rapid.IntRange(0, had).Draw(r, "below"))
		m.first = max(m.first, int(b.DropBelow))
	}
	for i := range rapid.IntRange(0, 2).Draw(r, "blobs") {
		n := rapid.SampledFrom([]int{0, 1, 100, 40_000, store.InlineBytes, store.InlineBytes + 1, 400_000}).Draw(r, "size")
		s := stageIn(r, e, content(step*10+i, n))
		b.Links = append(b.Links, s)
		staged[s.Ref()] = content(step*10+i, n)
	}
	for _, ref := range slices.Sorted(maps.Keys(m.blobs)) {
		if rapid.IntRange(0, 3).Draw(r, "unlink") == 0 {
			b.Unlinks = append(b.Unlinks, ref)
			delete(m.blobs, ref)
		}
	}
	maps.Copy(m.blobs, staged)
	if err := e.Commit(context.Background(), b); err != nil {
		r.Fatalf("Commit: %v", err)
	}
}

func stageIn(r *rapid.T, e store.Engine, data []byte) store.Staged {
	s, err := e.Stage(context.Background())
	if err != nil {
		r.Fatalf("Stage: %v", err)
	}
	if _, err := s.Write(data); err != nil {
		r.Fatalf("Write: %v", err)
	}
	if err := s.Finish(); err != nil {
		r.Fatalf("Finish: %v", err)
	}
	return s
}

func addTo(old string, delta int64) string {
	var n uint64
	for i := len(old) - 1; i >= 0; i-- {
		n = n<<8 | uint64(old[i])
	}
	n += uint64(delta)
	out := make([]byte, 8)
	for i := range out {
		out[i] = byte(n >> (8 * i))
	}
	return string(out)
}

func (m *model) compare(r *rapid.T, e store.Engine) {
	v := e.View()
	defer v.Close()
	var got, want []string
	it := v.Scan(nil, []byte{store.AppendPrefix})
	for it.Next() {
		got = append(got, fmt.Sprintf("%x=%x", it.Key(), it.Value()))
	}
	it.Close()
	for _, k := range slices.Sorted(maps.Keys(m.keys)) {
		want = append(want, fmt.Sprintf("%x=%x", k, m.keys[k]))
	}
	if !slices.Equal(got, want) {
		r.Fatalf("keys: got %q, want %q", got, want)
	}
	for i, entry := range m.entries {
		if got, ok, err := v.Get(store.AppendKey(uint64(i))); ok != (i >= m.first) || err != nil || ok && string(got) != entry {
			r.Fatalf("entry %d: got %q, %v, %v; want %q", i, got, ok, err, entry)
		}
	}
	var live int64
	for ref, data := range m.blobs {
		live += int64(len(data))
		blob, err := e.OpenBlob(ref)
		if err != nil {
			r.Fatalf("OpenBlob(%d): %v", ref, err)
		}
		got := make([]byte, len(data))
		blob.ReadAt(got, 0)
		blob.Close()
		if !bytes.Equal(got, data) {
			r.Fatalf("blob %d of %d bytes reads back different", ref, len(data))
		}
	}
	if s := e.Stats(); s.Blobs != int64(len(m.blobs)) || s.LiveBytes != live || s.Appended != uint64(len(m.entries)) || s.FirstAppend != uint64(m.first) {
		r.Fatalf("Stats: got %d blobs, %d bytes, %d entries; want %d, %d, %d", s.Blobs, s.LiveBytes, s.Appended, len(m.blobs), live, len(m.entries))
	}
}
