package guard

import (
	"regexp"
	"strings"
	"testing"

	"golang.org/x/text/unicode/runenames"
)

// A pair of the table that is one letter short would shift all that follow.
func TestTheTableOfLookAlikesIsStraight(t *testing.T) {
	for from, to := range map[rune]rune{'ꓴ': 'U', 'ᘔ': 'Z', 'ⴹ': 'E', 'Ѵ': 'V', 'ᴎ': 'n', 'ȥ': 'z', 'Ꮷ': 'd', 'ꮷ': 'd', 'Ⲍ': 'Z', 'З': '3', 'Ӏ': 'I', 'ӕ': 'a', 'ү': 'y', 'ӏ': 'l', 'Ͽ': 'C', 'β': 'b', 'σ': 'o', 'χ': 'x', 'յ': 'j', 'ꜱ': 's', 'ɑ': 'a', 'ᴀ': 'a', 'ǀ': 'l', 'ɨ': 'i', 'Ꮯ': 'C', 'ⲣ': 'p', 'Х': 'X', 'т': 't'} {
		if alike[from] != to {
			t.Errorf("%c is taken for %c, want %c", from, alike[from], to)
		}
	}
}

// TestEveryLatinLetterIsSearchedAsItsOwn: what Unicode calls a letter with something, and does not decompose, a reader takes for that letter.
func TestEveryLatinLetterIsSearchedAsItsOwn(t *testing.T) {
	name := regexp.MustCompile(`^(?:COMBINING )?LATIN (?:CAPITAL |SMALL )?LETTER (?:SMALL CAPITAL |TURNED |REVERSED )?([A-Z])(?: WITH .*)?$`)
	for r := rune(0x80); r <= 0xFFFF; r++ {
		if m := name.FindStringSubmatch(runenames.Name(r)); m != nil && !strings.Contains(m[0], " WITH SMALL LETTER ") {
			if got := string(fold(string(r)).letters); got != strings.ToLower(m[1]) {
				t.Errorf("U+%04X %s is searched as %q", r, runenames.Name(r), got)
			}
		}
	}
}
