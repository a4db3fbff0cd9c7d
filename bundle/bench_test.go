package bundle_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"redoubt/bundle"
	"redoubt/keys"
)

// BenchmarkForms is what writing a bundle of 16 MiB takes in each form, and what reading it into memory does.
func BenchmarkForms(b *testing.B) {
	w := newWorld(b, 1)
	content := make([]byte, 16<<20)
	for name, tagged := range map[string]bool{"digested": false, "tagged": true} {
		h := w.head()
		h.Tagged = tagged
		b.Run("write/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				f, err := bundle.NewWriter(io.Discard, h, []keys.Recipient{w.ids[0].Recipient()}, w.sign)
				if err == nil {
					_, err = f.Write(content)
				}
				if err == nil {
					err = f.Finish(nil)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		file := w.make(b, h, content)
		b.Run("read/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			var into bytes.Buffer
			into.Grow(len(file))
			for b.Loop() {
				v, err := bundle.Verify(context.Background(), bytes.NewReader(file), int64(len(file)), w.expect(), nil)
				if err != nil {
					b.Fatal(err)
				}
				r, err := v.Open(w.ids[0])
				if err != nil {
					b.Fatal(err)
				}
				into.Reset()
				if _, err := into.ReadFrom(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
