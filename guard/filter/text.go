package filter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"redoubt"
	"redoubt/guard"
)

// cleanText writes text anew: UTF-8 in NFC, lines that end in a line feed.
func cleanText(in, _ []byte, n *notes) ([]byte, error) {
	s, err := decode(in, n)
	if err != nil {
		return nil, err
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	if s, err = cleanString(s, n, "\n\t"); err != nil {
		return nil, err
	}
	if s == "" && len(in) > 0 {
		return nil, refuse("", "nothing of it is seen")
	}
	if m := otherMagic(s); m != "" {
		return nil, refuse("release it under its own type, if that is one of the allowed", "text that begins as another type does (%s)", m)
	}
	return []byte(s), nil
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
	for _, m := range []string{"%!", "%fdf-", "<?", "<!", "{\\rtf", "#!", "gif8", "mime-version:", "content-type:", "begin 6", "begin 7"} {
		if strings.HasPrefix(s, m) {
			return m
		}
	}
	tag, ok := strings.CutPrefix(s, "<")
	end := strings.IndexFunc(tag, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	if ok && end > 0 && strings.ContainsRune(" \t\n/>", rune(tag[end])) && slices.Contains(pageTags, tag[:end]) {
		return "<" + tag[:end]
	}
	return ""
}

// pageTags are elements by which a browser, or a desktop that looks at what a file has, takes one for a page or a drawing.
var pageTags = []string{"a", "article", "aside", "audio", "b", "base", "blockquote", "body", "br", "button", "center", "details", "dialog", "div", "dl", "embed", "fieldset", "font", "footer", "form", "frame", "frameset",
	"h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "i", "iframe", "img", "input", "link", "main", "marquee", "math", "menu", "meta", "nav", "object", "ol", "p", "plaintext", "pre", "script", "section",
	"select", "span", "style", "svg", "table", "template", "textarea", "title", "u", "ul", "video", "xmp"}

// pdfHead is how far readers of PDF look for where one begins: whatever stands before it they pass over.
const pdfHead = 1024

// noPDF is a filter of text none of which is a PDF besides.
func noPDF(clean func(in, schema []byte, n *notes) ([]byte, error)) func(in, schema []byte, n *notes) ([]byte, error) {
	return func(in, schema []byte, n *notes) ([]byte, error) {
		out, err := clean(in, schema, n)
		if err == nil && bytes.Contains(out[:min(len(out), pdfHead)], []byte("%PDF-")) {
			return nil, refuse("release it as a PDF, or write the word otherwise", "text that begins as another type does (%%PDF- in its first %d bytes)", pdfHead)
		}
		return out, err
	}
}

// cleanString makes a string show all that it has: it is in NFC, white space is plain and stands at the end of no line, and what is not seen is taken out. keep are the
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
	lines := strings.Split(b.String(), "\n")
	for i, l := range lines {
		if lines[i] = strings.TrimRight(l, " \t"); lines[i] != l {
			n.add("white space at the end of a line was taken out", fmt.Sprintf("line %d", i+1))
		}
	}
	out := norm.NFC.String(strings.Join(lines, "\n"))
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
