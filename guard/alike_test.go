package guard

import "testing"

// A pair of the table that is one letter short would shift all that follow.
func TestTheTableOfLookAlikesIsStraight(t *testing.T) {
	for from, to := range map[rune]rune{'ꓴ': 'U', 'ᘔ': 'Z', 'ⴹ': 'E', 'Ѵ': 'V', 'ᴎ': 'n', 'ȥ': 'z', 'Ꮷ': 'd', 'ꮷ': 'd', 'Ⲍ': 'Z', 'З': '3', 'Ӏ': 'I', 'ӕ': 'a', 'ү': 'y', 'ӏ': 'l', 'Ͽ': 'C', 'β': 'b', 'σ': 'o', 'χ': 'x', 'յ': 'j', 'ꜱ': 's', 'ɑ': 'a', 'ᴀ': 'a', 'ǀ': 'l', 'ɨ': 'i', 'Ꮯ': 'C', 'ⲣ': 'p', 'Х': 'X', 'т': 't'} {
		if alike[from] != to {
			t.Errorf("%c is taken for %c, want %c", from, alike[from], to)
		}
	}
}
