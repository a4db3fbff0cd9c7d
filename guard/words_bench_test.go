package guard_test

import (
	"strings"
	"testing"
)

func BenchmarkSearch(b *testing.B) {
	var list []string
	for i := range 10000 {
		list = append(list, "word"+strings.Repeat(string(rune('a'+i%26)), 1+i/26%13)+string(rune('a'+i/338%26))+"q")
	}
	w := newWords(b, list...)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog and (U) SECRET//NOFORN. Größer, élégant.\n", 64<<10/85)
	as := mark(b, "TOP SECRET")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w.Search(text, as)
	}
}
