package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"image/png"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"redoubt"
	"redoubt/guard"
)

// Limits on PDF.
const (
	MaxPages    = 64
	pageDPI     = 150
	minPageSide = 16 // pixels
	pageQuality = 85 // of the JPEG that a page leaves as
)

// The steps of our own on a PDF: a look at what came in, and the writing of what leaves.
const (
	pdfLook  = "pdf: look"
	pdfWrite = "pdf: write"
)

// pages is the first filter of PDF: poppler draws each page as a picture, after our own look at the file. What it gives on is the pictures, one
// PNG after another; of the file itself nothing goes on.
type pages struct {
	look, draw *pool
}

func (p pages) Name() string { return poppler.base }

func (p pages) Clean(ctx context.Context, in guard.Content) ([]byte, []redoubt.Finding, error) {
	_, seen, err := ask(ctx, p.look, pdfLook, nil, in.Bytes)
	if err != nil {
		return nil, seen, denied(p.Name(), err)
	}
	out, said, err := p.draw.runSaid(ctx, in.Bytes)
	if err != nil {
		return nil, seen, denied(p.Name(), unread(poppler.path, err))
	}
	if slices.ContainsFunc(undrawn, func(what string) bool { return strings.Contains(said, what) }) {
		return nil, seen, denied(p.Name(), refuse("embed the fonts of the document", "a font that is neither in the document nor here: what is written in it would not be seen"))
	}
	if len(out) == 0 {
		return nil, seen, denied(p.Name(), refuse("", "it has no page that can be drawn"))
	}
	return out, seen, nil
}

// undrawn is what poppler says where it passes over what is written, and goes on.
var undrawn = []string{"Couldn't find a font", "No display font", "Unknown font", "No font in show", "Missing language pack"}

// active are the names in a PDF that act, carry files or depend on what is elsewhere. None would survive as a picture; who sends such a file
// is told, since the reader would not get what she sees.
var active = []string{"JavaScript", "JS", "Launch", "EmbeddedFile", "EmbeddedFiles", "RichMedia", "XFA", "SubmitForm", "ImportData", "GoToR", "GoToE", "AA", "Encrypt", "Sound", "Movie", "3D"}

var (
	pdfName   = regexp.MustCompile(`/(?:[^\x00-\x20/\[\]<>(){}%#]|#[0-9A-Fa-f]{2})+`)
	pdfStream = regexp.MustCompile(`stream\r?\n`)
)

// lookPDF finds that a file is a PDF from its first byte to its last, and that nothing in it is active.
func lookPDF(in, _ []byte, n *notes) ([]byte, error) {
	if !bytes.HasPrefix(in, []byte("%PDF-1.")) && !bytes.HasPrefix(in, []byte("%PDF-2.")) {
		return nil, refuse("", "it does not begin as a PDF does")
	}
	if !bytes.HasSuffix(bytes.TrimRight(in, "\r\n"), []byte("%%EOF")) || len(in)-len(bytes.TrimRight(in, "\r\n")) > 2 {
		return nil, refuse("take off what follows the document", "it does not end as a PDF does")
	}
	for _, magic := range []string{"PK\x05\x06", "PK\x03\x04", "<script", "Rar!\x1a"} {
		if i := bytes.Index(in[max(0, len(in)-65557):], []byte(magic)); i >= 0 && magic == "PK\x05\x06" {
			return nil, refuse("", "the end of an archive is in it")
		}
		if bytes.Contains(in[:min(len(in), 1024)], []byte(magic)) {
			return nil, refuse("", "it begins as another type does, too")
		}
	}
	for _, text := range outsideStreams(in) {
		for _, name := range pdfName.FindAll(text, -1) {
			if plain := plainName(string(name[1:])); slices.Contains(active, plain) {
				return nil, refuse("print it to a PDF without actions, attachments and encryption", "it has /%s", plain)
			}
		}
	}
	return []byte("looked at"), nil
}

// outsideStreams are the parts of a file that are not in streams.
func outsideStreams(b []byte) (parts [][]byte) {
	for {
		at := pdfStream.FindIndex(b)
		if at == nil {
			return append(parts, b)
		}
		parts = append(parts, b[:at[0]])
		end := bytes.Index(b[at[1]:], []byte("endstream"))
		if end < 0 {
			return append(parts, b[at[1]:]) // one that does not end hides nothing
		}
		b = b[at[1]+end+len("endstream"):]
	}
}

// plainName undoes the escapes of a name.
func plainName(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '#' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// writePDF writes a PDF of pictures: a page for each, and nothing else. There are no dates, names, identifiers or links in it.
func writePDF(in, _ []byte, n *notes) ([]byte, error) {
	r := bytes.NewReader(in)
	w := newPDFWriter()
	for r.Len() > 0 {
		if w.count == MaxPages {
			return nil, refuse("release it in parts", "more than %d pages", MaxPages)
		}
		at := len(in) - r.Len()
		conf, err := png.DecodeConfig(bytes.NewReader(in[at:]))
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", w.count+1, err)
		}
		if err := size(conf.Width, conf.Height); err != nil {
			return nil, err
		}
		if conf.Width < minPageSide || conf.Height < minPageSide { // what cannot be drawn poppler gives as one pixel
			return nil, refuse("print it to a common size of paper", "page %d is too large or too small to be drawn", w.count+1)
		}
		img, err := png.Decode(r)
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", w.count+1, err)
		}
		clean, err := noisy(img, newNotes(""))
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, clean, &jpeg.Options{Quality: pageQuality}); err != nil {
			return nil, err
		}
		w.page(conf.Width, conf.Height, clean.ColorModel() == grayModel, b.Bytes())
	}
	if w.count == 0 {
		return nil, errors.New("no page")
	}
	n.add("each page was made a picture", strconv.Itoa(w.count))
	return w.finish(), nil
}

// pdfWriter writes the objects of a PDF one after another: 1 is the catalogue, 2 the pages, and each page has three.
type pdfWriter struct {
	b       bytes.Buffer
	offsets []int
	count   int
}

func newPDFWriter() *pdfWriter {
	w := &pdfWriter{offsets: make([]int, 2)}
	w.b.WriteString("%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
	return w
}

// object writes the next object: a dictionary, and a stream where there is one.
func (w *pdfWriter) object(dict string, stream []byte) {
	w.offsets = append(w.offsets, w.b.Len())
	w.body(len(w.offsets), dict, stream)
}

func (w *pdfWriter) body(number int, dict string, stream []byte) {
	fmt.Fprintf(&w.b, "%d 0 obj\n<< %s", number, dict)
	if stream != nil {
		fmt.Fprintf(&w.b, " /Length %d >>\nstream\n", len(stream))
		w.b.Write(stream)
		w.b.WriteString("\nendstream\nendobj\n")
		return
	}
	w.b.WriteString(" >>\nendobj\n")
}

// page writes one of w by h pixels.
func (w *pdfWriter) page(width, height int, grey bool, picture []byte) {
	first := len(w.offsets) + 1
	space := "/DeviceRGB"
	if grey {
		space = "/DeviceGray"
	}
	x, y := float64(width)*72/pageDPI, float64(height)*72/pageDPI
	w.object(fmt.Sprintf("/Type /Page /Parent 2 0 R /MediaBox [0 0 %.2f %.2f] /Resources << /XObject << /P %d 0 R >> >> /Contents %d 0 R", x, y, first+2, first+1), nil)
	w.object("", fmt.Appendf(nil, "%.2f 0 0 %.2f 0 0 cm /P Do", x, y))
	w.object(fmt.Sprintf("/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace %s /BitsPerComponent 8 /Filter /DCTDecode", width, height, space), picture)
	w.count++
}

func (w *pdfWriter) finish() []byte {
	w.offsets[0] = w.b.Len()
	w.body(1, "/Type /Catalog /Pages 2 0 R", nil)
	w.offsets[1] = w.b.Len()
	kids := make([]string, w.count)
	for i := range kids {
		kids[i] = fmt.Sprintf("%d 0 R", 3+3*i)
	}
	w.body(2, fmt.Sprintf("/Type /Pages /Count %d /Kids [%s]", w.count, strings.Join(kids, " ")), nil)
	table := w.b.Len()
	fmt.Fprintf(&w.b, "xref\n0 %d\n0000000000 65535 f \n", len(w.offsets)+1)
	for _, at := range w.offsets {
		fmt.Fprintf(&w.b, "%010d 00000 n \n", at)
	}
	fmt.Fprintf(&w.b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(w.offsets)+1, table)
	return w.b.Bytes()
}
