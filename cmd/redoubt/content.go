package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"image"
	_ "image/jpeg" // decoders of what is drawn
	_ "image/png"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"redoubt"
)

// How much of a content is shown without --all.
const (
	shownText = 64 << 10
	shownHex  = 4 << 10
	drawnWide = 100        // columns
	drawnMost = 64_000_000 // pixels: more is not decoded
)

// showContent shows bytes as they are: text with what cannot be seen made visible, an image where the terminal can draw it, else hexadecimal.
func (a *app) showContent(typ string, content []byte, all bool) error {
	switch {
	case strings.HasPrefix(typ, "text/") || typ == "application/json" || typ == "application/xml":
		return a.part(content, all, shownText, func(b []byte) string { return visible(string(b)) })
	case strings.HasPrefix(typ, "image/"):
		if drawn, err := draw(content, a.columns()); err == nil {
			_, err := io.WriteString(a.out, drawn)
			return err
		}
	}
	return a.part(content, all, shownHex, hex.Dump)
}

// part shows the beginning of a long content, and says so.
func (a *app) part(content []byte, all bool, most int, show func([]byte) string) error {
	rest := 0
	if !all && len(content) > most {
		rest, content = len(content)-most, content[:most]
	}
	text := show(content)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if _, err := io.WriteString(a.out, text); err != nil {
		return err
	}
	if rest > 0 {
		a.say("%d bytes more: --all shows them, --content FILE writes them", rest)
	}
	return nil
}

// visible is text in which nothing hides: control, invisible, format and unassigned characters, and what is not UTF-8, stand as escapes.
func visible(s string) string {
	var out strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			out.WriteRune(r)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case seen(r):
			out.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			out.WriteString(q[1 : len(q)-1])
		}
	}
	return out.String()
}

// seen holds for what shows as itself: no control, no sign that turns or joins what stands around it, no blank but the one.
func seen(r rune) bool {
	return unicode.IsGraphic(r) && !redoubt.Invisible(r) && !unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) && (r == ' ' || !unicode.Is(unicode.Zs, r))
}

// jsonWriter writes the same document with nothing in it that steers a terminal: encoding/json leaves DEL, CSI (U+009B) and the
// turns of direction as they are.
type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(doc []byte) (int, error) {
	out := make([]byte, 0, len(doc))
	for _, r := range string(doc) {
		if r == '\n' || r == '\t' || seen(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	if _, err := j.w.Write(out); err != nil {
		return 0, err
	}
	return len(doc), nil
}

func (a *app) columns() int {
	if f, ok := a.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return min(w, drawnWide)
		}
	}
	return 0
}

// draw paints an image in half blocks, two pixels a character cell, with 24-bit colours.
func draw(content []byte, columns int) (string, error) {
	c, _, err := image.DecodeConfig(bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	if columns < 8 || c.Width < 1 || c.Height < 1 || c.Width*c.Height > drawnMost {
		return "", fmt.Errorf("%d by %d is not drawn", c.Width, c.Height)
	}
	img, _, err := image.Decode(bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	wide := min(columns, c.Width)
	high := max(2, (c.Height*wide/c.Width+1)/2*2)
	colour := func(x, y int) string { // the mean of all that it stands for: no pixel is passed over
		x0, y0 := x*c.Width/wide, min(y*c.Height/high, c.Height-1)
		return mean(img, image.Rect(x0, y0, max(x0+1, (x+1)*c.Width/wide), max(y0+1, min((y+1)*c.Height/high, c.Height))))
	}
	var out strings.Builder
	for y := 0; y < high; y += 2 {
		for x := range wide {
			fmt.Fprintf(&out, "\x1b[38;2;%sm\x1b[48;2;%sm▀", colour(x, y), colour(x, y+1))
		}
		out.WriteString("\x1b[0m\n")
	}
	fmt.Fprintf(&out, "%d by %d pixels", c.Width, c.Height)
	if wide < c.Width {
		fmt.Fprintf(&out, ", drawn %d wide: --content FILE writes it, to look at it in full", wide)
	}
	out.WriteByte('\n')
	return out.String(), nil
}

// mean is the mean colour of a part of an image.
func mean(img image.Image, part image.Rectangle) string {
	var sum [3]uint64
	at := img.Bounds().Min
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			r, g, b, _ := img.At(at.X+x, at.Y+y).RGBA()
			sum[0], sum[1], sum[2] = sum[0]+uint64(r>>8), sum[1]+uint64(g>>8), sum[2]+uint64(b>>8)
		}
	}
	n := uint64(part.Dx() * part.Dy())
	return fmt.Sprintf("%d;%d;%d", sum[0]/n, sum[1]/n, sum[2]/n)
}
