package guard

import "unicode"

// scripts whose letters are taken for one another.
var scripts = []*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee, unicode.Coptic, unicode.Lisu, unicode.Canadian_Aboriginal, unicode.Tifinagh}

// LookAlike gives the first word of s that mixes scripts so that it reads as another word: letters of two scripts, one of them not Latin and
// looking like a Latin one. It is "" where there is none. Units (kΩ, Δt) are no such words, since their Greek letters look like themselves.
func LookAlike(s string) string {
	begin, seen, alikes := -1, 0, false
	word := func(end int) string {
		if begin >= 0 && alikes && seen&(seen-1) != 0 {
			return s[begin:end]
		}
		return ""
	}
	for i, r := range s {
		if r < 0x80 && !unicode.IsLetter(r) || !unicode.In(r, unicode.L, unicode.M) {
			if w := word(i); w != "" {
				return w
			}
			begin, seen, alikes = -1, 0, false
			continue
		}
		if begin < 0 {
			begin = i
		}
		for bit, t := range scripts {
			if unicode.Is(t, r) {
				seen |= 1 << bit
				_, ok := alike[r]
				alikes = alikes || ok && bit > 0
			}
		}
	}
	return word(len(s))
}
