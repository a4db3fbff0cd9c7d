package guard

import (
	"regexp"
	"strings"
	"testing"
	"unicode"

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

func TestDigitsOfEveryScriptAreSearchedAsThoseOfASCII(t *testing.T) {
	name := regexp.MustCompile(`DIGIT (ZERO|ONE|TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE)$`)
	values := map[string]string{"ZERO": "0", "ONE": "1", "TWO": "2", "THREE": "3", "FOUR": "4", "FIVE": "5", "SIX": "6", "SEVEN": "7", "EIGHT": "8", "NINE": "9"}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !unicode.IsDigit(r) {
			continue
		}
		m := name.FindStringSubmatch(runenames.Name(r))
		if m == nil {
			t.Errorf("U+%04X %s is a digit without a value", r, runenames.Name(r))
		} else if got := string(fold(string(r)).letters); got != values[m[1]] {
			t.Errorf("U+%04X %s is searched as %q", r, runenames.Name(r), got)
		}
	}
}

// TestEveryNumberSplitsAWord: whatever Unicode has as one is one.
func TestEveryNumberSplitsAWord(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if text := "pla" + string(r) + "net"; unicode.Is(unicode.N, r) && string(fold(text).withoutNumbers(text).letters) != "planet" {
			t.Errorf("U+%04X %s hides a word", r, runenames.Name(r))
		}
	}
}
