package filter_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/guard"
	"redoubt/guard/filter"
)

// zipOf is an archive of names and contents, in turn.
func zipOf(t testing.TB, all ...string) []byte {
	t.Helper()
	var files []*zip.FileHeader
	for i := 0; i < len(all); i += 2 {
		files = append(files, &zip.FileHeader{Name: all[i], Method: zip.Deflate, Comment: ""})
	}
	return zipWith(t, files, func(i int, w io.Writer) { io.WriteString(w, all[2*i+1]) })
}

func zipWith(t testing.TB, files []*zip.FileHeader, fill func(i int, w io.Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, h := range files {
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		fill(i, f)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func archiveOf(b []byte) guard.Content { return guard.Content{Type: filter.ZIP, Bytes: b} }

// contents are the members of an archive, in its order.
func contents(t *testing.T, b []byte) (s string) {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.File {
		m, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		c, err := io.ReadAll(m)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf("%s=%s;", f.Name, c)
		if f.Comment != "" || f.Mode().Perm() == 0o777 {
			t.Errorf("%s has comment %q and mode %v", f.Name, f.Comment, f.Mode())
		}
	}
	return s
}

func TestAnArchiveLeavesRebuiltOfCleanMembers(t *testing.T) {
	s := newSet(t)
	h := &zip.FileHeader{Name: "docs/b.txt", Method: zip.Store, Modified: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Comment: "payload-comment", Extra: []byte("pl\x04\x00load")}
	h.SetMode(0o777)
	in := zipWith(t, []*zip.FileHeader{h, {Name: "a.txt", Method: zip.Deflate}, {Name: "docs/"}, {Name: "p.png"}, {Name: "in.zip"}}, func(i int, w io.Writer) {
		w.Write([][]byte{[]byte("zero\u200bwidth"), []byte("first\n"), nil, encodePNG(t, picture(9, 9)), zipOf(t, "c.txt", "inner")}[i])
	})
	out, seen, err := both(t, s, archiveOf(in))
	if err != nil {
		t.Fatalf("%v (%s)", err, hint(err))
	}
	has(t, seen, "invisible")
	has(t, seen, "folders")
	got := contents(t, out)
	if !strings.HasPrefix(got, "a.txt=first\n;docs/b.txt=zerowidth;in.zip=PK") || !strings.Contains(got, "p.png=\x89PNG") {
		t.Errorf("got %.200q", got)
	}
	if bytes.Contains(out, []byte("payload")) || bytes.Contains(out, []byte("load")) {
		t.Error("a comment or an extra field left")
	}
	again, _, err := both(t, s, archiveOf(in))
	if err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(again), int64(len(again)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.File {
		if f.Modified.Year() == 2026 {
			t.Errorf("%s has the time %v", f.Name, f.Modified)
		}
	}
}

func TestNamesOfMembersMayBeOfAnyScript(t *testing.T) {
	s := newSet(t)
	out, _, err := both(t, s, archiveOf(zipOf(t, "gr\u00f6\u00dfe/\u0441\u043b\u043e\u0432\u043e \u6f22.txt", "x")))
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, out); got != "gr\u00f6\u00dfe/\u0441\u043b\u043e\u0432\u043e \u6f22.txt=x;" {
		t.Errorf("got %q", got)
	}
}

func TestMembersMeetTheSchemasOfTheArchive(t *testing.T) {
	s := newSet(t)
	in := zipOf(t, "t/a.json", `{"id": "a"}`, "r.xml", "<report><title>a</title></report>", "x.csv", heads)
	schema := fmt.Sprintf(`{"t/*.json": %s, "r.xml": %q, "*.csv": %s}`, trackSchema, strings.ReplaceAll(reportSchema, "\n", " "), tableSchema)
	c := guard.Content{Type: filter.ZIP, Schema: []byte(schema), Bytes: in}
	out, _, err := both(t, s, c)
	if err != nil {
		t.Fatalf("%v (%s)", err, hint(err))
	}
	if got := contents(t, out); !strings.Contains(got, `t/a.json={"id":"a"}`) {
		t.Errorf("got %q", got)
	}
	c.Schema = nil
	refused(t, s, c, "schema")
	c.Schema = []byte(`{"*.csv": ` + tableSchema + `, "x.*": ` + tableSchema + `, "*/*": ` + trackSchema + `, "r.xml": ""}`)
	refused(t, s, c, "schema")
}

func TestAHostileArchiveIsRefused(t *testing.T) {
	s := newSet(t)
	link := &zip.FileHeader{Name: "a.txt"}
	link.SetMode(os.ModeSymlink | 0o777)
	device := &zip.FileHeader{Name: "a.txt"}
	device.SetMode(os.ModeDevice | 0o600)
	good := zipOf(t, "a.txt", "x")
	crypt := bytes.Clone(good)
	binary.LittleEndian.PutUint16(crypt[bytes.Index(crypt, []byte("PK\x01\x02"))+8:], 1)
	method := bytes.Clone(good)
	binary.LittleEndian.PutUint16(method[bytes.Index(method, []byte("PK\x01\x02"))+10:], 12)
	one := func(h *zip.FileHeader) []byte {
		return zipWith(t, []*zip.FileHeader{h}, func(_ int, w io.Writer) { io.WriteString(w, "/etc/passwd") })
	}
	many := func(n int) []byte {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("%d.txt", i), "x")
		}
		return zipOf(t, all...)
	}
	zeros := func(n int64) []byte {
		return zipWith(t, []*zip.FileHeader{{Name: "a.txt", Method: zip.Deflate}}, func(_ int, w io.Writer) { io.CopyN(w, zeroes{}, n) })
	}
	nested := zipOf(t, "a.txt", "x")
	for range filter.MaxArchives {
		nested = zipOf(t, "n.zip", string(nested))
	}
	comment := bytes.Clone(good)
	comment[len(comment)-2] = 5
	comment = append(comment, "hello"...)
	for name, c := range map[string]struct {
		b    []byte
		rule string
	}{
		"a path upwards":         {zipOf(t, "../a.txt", "x"), "name"},
		"a path inside upwards":  {zipOf(t, "a/../../b.txt", "x"), "name"},
		"an absolute path":       {zipOf(t, "/etc/a.txt", "x"), "name"},
		"a path of Windows":      {zipOf(t, `..\a.txt`, "x"), "name"},
		"a drive":                {zipOf(t, "C:a.txt", "x"), "name"},
		"a hidden file":          {zipOf(t, ".a.txt", "x"), "name"},
		"an option":              {zipOf(t, "-a.txt", "x"), "name"},
		"a control in the name":  {zipOf(t, "a\x07.txt", "x"), "name"},
		"a turned name":          {zipOf(t, "a\u202etxt.txt", "x"), "name"},
		"an invisible name":      {zipOf(t, "a\u200b.txt", "x"), "name"},
		"a look-alike name":      {zipOf(t, "p\u0430ss.txt", "x"), "name"},
		"a link":                 {one(link), "no file"},
		"a device":               {one(device), "no file"},
		"one name twice":         {zipOf(t, "a.txt", "x", "a.txt", "y"), "twice"},
		"one name in two cases":  {zipOf(t, "a.txt", "x", "A.TXT", "y"), "twice"},
		"a file and a folder":    {zipOf(t, "a.txt", "x", "a.txt/b.txt", "y"), "folder"},
		"an encrypted member":    {crypt, "encrypted"},
		"another method":         {method, "method"},
		"a program":              {zipOf(t, "a.exe", "MZ"), "type that is not released"},
		"a document with macros": {zipOf(t, "[Content_Types].xml", "<x/>", "word/vbaProject.bin", "x"), ""},
		"a member that lies":     {zipOf(t, "a.png", "GIF89a"), "a.png"},
		"a hidden word":          {zipOf(t, "a.txt", "p\u0430ss"), "a.txt"},
		"no member":              {zipOf(t), "does not begin"},
		"only folders":           {zipWith(t, []*zip.FileHeader{{Name: "a/"}}, func(int, io.Writer) {}), "no members"},
		"a picture before it":    {append(encodePNG(t, picture(2, 2)), good...), "does not begin"},
		"bytes behind it":        {append(bytes.Clone(good), "x"...), "does not end"},
		"a comment":              {comment, "does not end"},
		"cut":                    {good[:len(good)-4], "does not end"},
		"nothing":                {nil, "does not begin"},
		"too many":               {many(filter.MaxMembers + 1), "members"},
		"a bomb":                 {zeros(1 << 30), "unpacked"},
		"a bomb in an archive":   {zipOf(t, "a.zip", string(zeros(1<<30))), "unpacked"},
		"archives in archives":   {nested, "in one another"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, s, archiveOf(c.b), c.rule) })
	}
}

// zeroes is a reader of nothing but zero bytes.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestDocumentsOfOfficesAreNoTypeThatLeaves(t *testing.T) {
	s := newSet(t)
	ooxml := zipOf(t, "[Content_Types].xml", "<Types/>", "word/document.xml", "<w/>", "word/vbaProject.bin", "\xd0\xcf\x11\xe0")
	ole := []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + strings.Repeat("\x00", 504))
	for _, mediaType := range filter.Types() {
		for _, b := range [][]byte{ooxml, ole} {
			if out, _, err := both(t, s, guard.Content{Type: mediaType, Schema: []byte(trackSchema), Bytes: b}); redoubt.KindOf(err) != redoubt.Denied || out != nil {
				t.Errorf("%s: got %v", mediaType, err)
			}
		}
	}
}
