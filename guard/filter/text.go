package filter

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"redoubt"
	"redoubt/guard"
)

// cleanText writes text anew: UTF-8 in NFC, lines that end in a line feed and in nothing that is not seen before it.
func cleanText(in, _ []byte, n *notes) ([]byte, error) {
	s, err := decode(in, n)
	if err != nil {
		return nil, err
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	if s, err = cleanString(s, n, "\n\t"); err != nil {
		return nil, err
	}
	if m := otherMagic(s); m != "" {
		return nil, refuse("release it under its own type, if that is one of the allowed", "text that begins as another type does (%s)", m)
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if t := strings.TrimRight(l, " \t"); t != l {
			lines[i] = t
			n.add("white space at the end of a line was taken out", fmt.Sprintf("line %d", i+1))
		}
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// decode takes content for UTF-8, without the mark that may stand before it.
func decode(in []byte, n *notes) (string, error) {
	if !utf8.Valid(in) {
		return "", refuse("write it in UTF-8", "it is not UTF-8")
	}
	s := string(in)
	if t, ok := strings.CutPrefix(s, "\uFEFF"); ok {
		n.add("a byte order mark was taken out", "at the beginning")
		s = t
	}
	return s, nil
}

// otherMagic finds the beginning of a format that readers know by it, in text.
func otherMagic(s string) string {
	s = strings.ToLower(strings.TrimLeft(s, " \t\n"))
	for _, m := range []string{"%pdf-", "%!ps", "<?", "<!", "<html", "<script", "<svg", "<math", "{\\rtf", "#!", "gif8", "mime-version:", "content-type:", "begin 6", "begin 7"} {
		if strings.HasPrefix(s, m) {
			return m
		}
	}
	return ""
}

// cleanString makes a string show all that it has: it is in NFC, white space is plain, and what is not seen is taken out. keep are the
// control characters that may stand. What changes how the rest is read, or has no agreed meaning, is refused.
func cleanString(s string, n *notes, keep string) (string, error) {
	var b strings.Builder
	b.Grow(len(s))
	for i, r := range s {
		at := func() string { return fmt.Sprintf("U+%04X at byte %d", r, i) }
		switch {
		case r < 0x7F && r >= ' ' || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case unicode.Is(unicode.Bidi_Control, r):
			return "", refuse("write it without marks of direction", "a mark that turns the direction of what is read, %s", at())
		case unicode.Is(unicode.Cc, r):
			return "", refuse("", "a control character, %s", at())
		case redoubt.Invisible(r):
			n.add("invisible characters were taken out", at())
		case r == '\u2028' || r == '\u2029':
			n.add("separators of lines were made line feeds", at())
			if strings.ContainsRune(keep, '\n') {
				b.WriteByte('\n')
			} else {
				b.WriteByte(' ')
			}
		case unicode.Is(unicode.Zs, r):
			n.add("unusual spaces were made plain", at())
			b.WriteByte(' ')
		case r == utf8.RuneError:
			return "", refuse("", "a character that stands for what could not be read, %s", at())
		case unicode.Is(unicode.Co, r) || unicode.Is(unicode.Cf, r):
			return "", refuse("", "a character without an agreed meaning, %s", at())
		case !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S):
			return "", refuse("", "a character that this version of Unicode does not have, %s", at())
		default:
			b.WriteRune(r)
		}
	}
	out := norm.NFC.String(b.String())
	marks := 0
	for i, r := range out {
		if !unicode.Is(unicode.M, r) {
			marks = 0
		} else if marks++; marks > redoubt.MaxMarks {
			return "", refuse("", "more than %d marks on one letter, at byte %d", redoubt.MaxMarks, i)
		}
	}
	if w := guard.LookAlike(out); w != "" {
		return "", refuse("write the word in the letters of one script", "the word %q has letters of one script that look like those of another", clip(w))
	}
	return out, nil
}
