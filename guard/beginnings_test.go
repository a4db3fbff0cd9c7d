package guard

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"redoubt/label"
)

// TestWordsAreFoundByTheirBeginningsAsOneByOne: also such as begin alike, and have one another as their beginning.
func TestWordsAreFoundByTheirBeginningsAsOneByOne(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	some := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[draw.IntN(2)]
		}
		return string(b)
	}
	for range 200 {
		var b beginnings
		var words []string
		for i := range draw.IntN(60) {
			words = append(words, some(minWordLen+draw.IntN(6)))
			b.add(words[i], i)
		}
		b.sort()
		text := some(minWordLen + draw.IntN(8))
		want, got := map[int]string{}, map[int]string{}
		for i, w := range words {
			if strings.HasPrefix(text, w) {
				want[i] = w
			}
		}
		for _, s := range b.at([]byte(text)) {
			got[s.number] = s.word
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s in %v: got %v, want %v", text, words, got, want)
		}
	}
}

// BenchmarkSearchForWordsThatBeginAlike takes no longer than one for words that do not.
func BenchmarkSearchForWordsThatBeginAlike(b *testing.B) {
	policy, err := label.Builtin("USA")
	if err != nil {
		b.Fatal(err)
	}
	var list []string
	for i := range MaxWords {
		list = append(list, fmt.Sprintf("operation%05d", i))
	}
	w, err := NewWords(list, policy)
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("ope", 64<<10/3)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w.Search(text, policy.Lowest())
	}
}
