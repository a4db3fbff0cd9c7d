package filter_test

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"regexp"
	"strings"
	"testing"

	"redoubt/guard"
	"redoubt/guard/filter"
)

// document is a PDF of some pages, each with its number; more goes into its catalogue, and objects are added.
func document(pages int, box, more string, objects ...string) []byte {
	all := []string{"<< /Type /Catalog /Pages 2 0 R " + more + " >>"}
	kids := ""
	for i := range pages {
		kids += fmt.Sprintf("%d 0 R ", 4+2*i)
	}
	all = append(all, fmt.Sprintf("<< /Type /Pages /Count %d /Kids [%s] >>", pages, kids), "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
	for i := range pages {
		text := fmt.Sprintf("BT /F1 24 Tf 20 100 Td (Page %d) Tj ET", i+1)
		all = append(all, fmt.Sprintf("<< /Type /Page /Parent 2 0 R /MediaBox [%s] /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>", box, 5+2*i),
			fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(text), text))
	}
	all = append(all, objects...)
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	var table strings.Builder
	for i, o := range all {
		fmt.Fprintf(&table, "%010d 00000 n \n", b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	at := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(all)+1, table.String(), len(all)+1, at)
	return b.Bytes()
}

const a6 = "0 0 300 200"

func pdfOf(b []byte) guard.Content { return guard.Content{Type: filter.PDF, Bytes: b} }

// pictures are the pages of a PDF of our making.
func pictures(b []byte) (all [][]byte) {
	for _, at := range regexp.MustCompile(`/DCTDecode /Length (\d+) >>\nstream\n`).FindAllSubmatchIndex(b, -1) {
		var n int
		fmt.Sscan(string(b[at[2]:at[3]]), &n)
		all = append(all, b[at[1]:at[1]+n])
	}
	return all
}

func TestAPDFLeavesAsPicturesOfItsPages(t *testing.T) {
	s := newSet(t)
	out, seen, err := both(t, s, pdfOf(document(3, a6, "/Info (payload)")))
	if err != nil {
		t.Fatalf("%v (%s)", err, hint(err))
	}
	has(t, seen, "made a picture")
	all := pictures(out)
	if len(all) != 3 {
		t.Fatalf("got %d pages, want 3", len(all))
	}
	dark := 0
	m, err := jpeg.Decode(bytes.NewReader(all[0]))
	if err != nil || m.Bounds().Dx() != 625 || m.Bounds().Dy() != 417 {
		t.Fatalf("got %v and %v, want 625 by 417", m.Bounds(), err)
	}
	for y := range m.Bounds().Dy() {
		for x := range m.Bounds().Dx() {
			if r, _, _, _ := m.At(x, y).RGBA(); r < 0x4000 {
				dark++
			}
		}
	}
	if dark < 100 {
		t.Errorf("the page has %d dark pixels: what is written on it is not seen", dark)
	}
	for _, not := range []string{"/Font", "payload", "Page 1", "/Info", "/Author", "/ID", "CreationDate"} {
		if bytes.Contains(out, []byte(not)) {
			t.Errorf("%s left", not)
		}
	}
	// What left is a PDF that passes again.
	if _, _, err := both(t, s, pdfOf(out)); err != nil {
		t.Errorf("what left does not pass: %v", err)
	}
}

func TestAPDFThatIsMoreThanPagesIsRefused(t *testing.T) {
	s := newSet(t)
	good := document(1, a6, "")
	zip := string(zipOf(t, "a.txt", "x"))
	for name, c := range map[string]struct {
		b    []byte
		rule string
	}{
		"a script that opens":    {document(1, a6, "/OpenAction << /S /JavaScript /JS (app.alert(1)) >>"), "JavaScript"},
		"in disguise":            {document(1, a6, "/OpenAction << /S /J#61vaScript /#4aS (app.alert(1)) >>"), "JavaScript"},
		"a launch":               {document(1, a6, "/OpenAction << /S /Launch /F (cmd.exe) >>"), "Launch"},
		"an attachment":          {document(1, a6, "/Names << /EmbeddedFiles << /Names [(a) 6 0 R] >> >>", "<< /Type /Filespec /EF << /F 7 0 R >> >>"), "EmbeddedFiles"},
		"encryption":             {bytes.Replace(good, []byte("/Root"), []byte("/Encrypt 9 0 R /Root"), 1), "Encrypt"},
		"a form of XFA":          {document(1, a6, "/AcroForm << /XFA 6 0 R >>"), "XFA"},
		"an archive behind it":   {append(bytes.Clone(good), zip...), "does not end"},
		"an archive around it":   {append(append([]byte(nil), good[:len(good)-6]...), zip+"\n%%EOF\n"...), "archive"},
		"an archive before it":   {append([]byte(zip), good...), "does not begin"},
		"a byte before it":       {append([]byte(" "), good...), "does not begin"},
		"bytes behind it":        {append(bytes.Clone(good), "\n\n\n"...), "does not end"},
		"a script in its head":   {append([]byte("%PDF-1.4\n<script>alert(1)</script>\n"), good[9:]...), "begins as another"},
		"cut":                    {good[:len(good)/2], "does not end"},
		"nothing":                {nil, "does not begin"},
		"only a head and an end": {[]byte("%PDF-1.4\n%%EOF\n"), "page"},
		"an old office file":     {[]byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "does not begin"},
		"pages past the limit":   {document(filter.MaxPages+1, "0 0 20 20", ""), "pages"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "only a head and an end" {
				if out, _, err := both(t, s, pdfOf(c.b)); err == nil || out != nil {
					t.Errorf("got %.60q and %v", out, err)
				}
				return
			}
			refused(t, s, pdfOf(c.b), c.rule)
		})
	}
}

// TestWritingThatIsNotDrawnDoesNotPass: reviewers would sign a page that lacks what the document says.
func TestWritingThatIsNotDrawnDoesNotPass(t *testing.T) {
	s := newSet(t)
	good := document(1, a6, "")
	refused(t, s, pdfOf(bytes.Replace(good, []byte("/F1 24 Tf"), []byte("/F9 24 Tf"), 1)), "font")
	other := document(1, a6, "", "<< /Type /Font /Subtype /Type0 /BaseFont /A /Encoding /Identity-H /DescendantFonts [7 0 R] >>",
		"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /A /CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 0 >> >>")
	refused(t, s, pdfOf(bytes.Replace(other, []byte("/F1 3 0 R"), []byte("/F1 6 0 R"), 1)), "font")
}

func TestAPDFAtItsLimitOfPagesPasses(t *testing.T) {
	s := newSet(t)
	out, _, err := both(t, s, pdfOf(document(filter.MaxPages, "0 0 20 20", "")))
	if err != nil || len(pictures(out)) != filter.MaxPages {
		t.Errorf("got %d pages and %v", len(pictures(out)), err)
	}
}

func TestAPageThatCannotBeDrawnDoesNotPass(t *testing.T) {
	s := newSet(t)
	for box, rule := range map[string]string{"0 0 14400 14400": "too large", "0 0 5000 5000": "by", "0 0 1 1": "too small"} {
		refused(t, s, pdfOf(document(1, box, "")), rule)
	}
}
