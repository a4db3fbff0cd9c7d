package guard

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"
)

// TestSpacedLettersAreJoinedAsTheExpressionSays: looking only where there may be some finds what the expression finds in all of a text.
func TestSpacedLettersAreJoinedAsTheExpressionSays(t *testing.T) {
	whole := func(s string) string {
		return spaced.ReplaceAllStringFunc(s, func(m string) string {
			return strings.Map(func(r rune) rune {
				if unicode.IsLetter(r) || r == '/' {
					return r
				}
				return -1
			}, m)
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "B", "é", "/", " ", " ", "\n", " \n", ".", "-", "_", "*", "|", ",", "x y z w", "1", "(", "\xff", "S E C R E T", "ab"}
	joined := 0
	for range 200_000 {
		var b strings.Builder
		for range r.IntN(24) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		s := b.String()
		want := whole(s)
		if got := joinSpaced(s); got != want {
			t.Fatalf("%q is joined as %q, want %q", s, got, want)
		}
		if want != s {
			joined++
		}
	}
	if joined < 10_000 {
		t.Errorf("only %d texts had anything to join", joined)
	}
}
