package redoubt

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxMarks is how many combining marks may stand on one letter of what leaves: more are no writing of any language, and room for a payload.
const MaxMarks = 6

// Invisible reports whether r is a character that shows nothing: format characters, joiners, fillers, variation selectors and tags. Marks of
// direction are among them.
func Invisible(r rune) bool {
	return unicode.Is(invisible, r) || unicode.Is(unicode.Bidi_Control, r)
}

// invisible are the characters that Unicode has renderers show nothing of (Default_Ignorable_Code_Point), the annotation anchors, the mark of an
// object that is not there, blanks that count as letters and signs, and a joiner and a filler that count as marks.
var invisible = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x00AD, 0x00AD, 1}, {0x034F, 0x034F, 1}, {0x061C, 0x061C, 1}, {0x115F, 0x1160, 1}, {0x17B4, 0x17B5, 1}, {0x180B, 0x180F, 1},
		{0x200B, 0x200F, 1}, {0x202A, 0x202E, 1}, {0x2060, 0x206F, 1}, {0x2800, 0x2800, 1}, {0x3164, 0x3164, 1}, {0xFE00, 0xFE0F, 1}, {0xFEFF, 0xFEFF, 1}, {0xFFA0, 0xFFA0, 1},
		{0xFFF0, 0xFFFC, 1},
	},
	R32:         []unicode.Range32{{0x1107F, 0x1107F, 1}, {0x13441, 0x13442, 1}, {0x16FE4, 0x16FE4, 1}, {0x1BCA0, 0x1BCA3, 1}, {0x1D159, 0x1D159, 1}, {0x1D173, 0x1D17A, 1}, {0xE0000, 0xE0FFF, 1}},
	LatinOffset: 1,
}

// Hides finds in a name the byte from which it does not show all that it has; -1: it is plain. A plain string is UTF-8 in NFC of characters that
// are seen, with no white space but single U+0020 between them, no control characters and at most MaxMarks marks on a letter: whoever reads it has
// read it whole.
func Hides(s string) int {
	marks := 0
	for i, r := range s {
		switch {
		case r == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' '):
			return i
		case r == utf8.RuneError || Invisible(r):
			return i
		case r != ' ' && !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S): // white space, control, private and unassigned characters
			return i
		case !unicode.Is(unicode.M, r):
			marks = 0
		default:
			if marks++; marks > MaxMarks {
				return i
			}
		}
	}
	if norm.NFC.IsNormalString(s) {
		return -1
	}
	n, _ := norm.NFC.SpanString(s, true) // IsNormalString said that there is an end
	return min(n, len(s)-1)
}
