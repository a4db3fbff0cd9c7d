package filter

import (
	"testing"
	"unicode"

	"redoubt"
)

// TestWhatIsPlainIsWhatCleaningLeavesAsItIs: names are held to redoubt.Hides, and content to cleanString. The two agree.
func TestWhatIsPlainIsWhatCleaningLeavesAsItIs(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		s := "1" + string(r)
		n := newNotes("")
		clean, err := cleanString(s, n, "")
		if as := err == nil && clean == s && len(n.findings()) == 0; as != (redoubt.Hides(s) < 0) {
			t.Fatalf("U+%04X: cleaning leaves it: %v (%v), it hides something from %d", r, as, err, redoubt.Hides(s))
		}
	}
}
