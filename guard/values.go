package guard

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"path"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"redoubt"
	"redoubt/label"
)

// Limits of what is decoded to be searched: the filters' output has passed narrower ones.
const (
	maxMembers     = 10_000
	maxValueSize   = redoubt.MaxReleaseBytes // of all members of an archive together, unpacked
	maxNested      = 3                       // archives in one another
	searchedAtOnce = 1 << 20                 // the texts of content that is no longer, unpacked, are searched at once
)

// SearchContent is Search over content of a type: over its bytes as they stand, and over the values that a reader of the type decodes from
// them. What cannot be decoded, and a type that is not known here, is fatal. Pictures have no text that is looked at: their reviewers see them.
func (w *Words) SearchContent(mediaType string, content []byte, as label.Label) []redoubt.Finding {
	s := &search{left: maxValueSize}
	if err := s.add(mediaType, content, 0); err != nil {
		return []redoubt.Finding{finding(true, "what is to leave cannot be searched", err.Error())}
	}
	// Decoded values are searched one after another as one text, so that a word that is split between two is found; what stands in the
	// bytes is another text.
	texts := append([]string{string(s.values.b)}, append(s.texts, string(s.bare.b), string(s.names.b))...)
	if len(s.grades.b) > 0 {
		texts = append(texts, string(s.grades.b))
	}
	found := make([][]redoubt.Finding, len(texts))
	var all errgroup.Group
	all.SetLimit(1)
	if len(content) <= searchedAtOnce && s.left > maxValueSize-searchedAtOnce { // a search takes memory by the size of its text
		all.SetLimit(runtime.GOMAXPROCS(0))
	}
	for i, text := range texts {
		all.Go(func() error {
			defer func() {
				if recover() != nil { // else it would take the guard with it, and again after each start
					found[i] = []redoubt.Finding{finding(true, "what is to leave cannot be searched", "the search panicked")}
				}
			}()
			found[i] = w.Search(text, as)
			return nil
		})
	}
	_ = all.Wait()
	if len(s.grades.b) > 0 {
		for i, last := 0, found[len(texts)-1]; i < len(last); i++ { // marks and grades, one letter each: a thousand of them make any short word
			last[i].Fatal = false
		}
	}
	return trim(slices.Concat(found...))
}

// trim takes each finding once, fatal ones first, and not more than a report has.
func trim(found []redoubt.Finding) (out []redoubt.Finding) {
	seen := map[redoubt.Finding]bool{}
	for _, fatal := range []bool{true, false} {
		for _, f := range found {
			if f.Fatal == fatal && !seen[f] {
				seen[f] = true
				out = append(out, f)
			}
		}
	}
	return atMost(out)
}

// atMost is as many findings as a report has, the last of which says if there were more: one that ends the release is not given for that.
func atMost(found []redoubt.Finding) []redoubt.Finding {
	const most = redoubt.MaxReleaseReport
	if len(found) <= most {
		return found
	}
	if !found[most-1].Fatal {
		found[most-1] = finding(false, moreFound, fmt.Sprintf("%d more", len(found)-most+1))
	}
	return found[:most]
}

// search collects what is to be searched.
type search struct {
	values lines    // decoded, with the names that stand before them
	bare   lines    // without: a word that is split between two fields has no name in it
	names  lines    // of members
	grades lines    // columns of single letters
	texts  []string // as they stand
	left   int64
	count  int
}

// lines are values as one text.
type lines struct{ b []byte }

func (l *lines) add(values ...string) {
	for _, v := range values {
		l.b = append(append(l.b, v...), '\n')
	}
}

func (s *search) add(mediaType string, b []byte, depth int) error {
	switch mediaType {
	case "image/png", "image/jpeg", "application/pdf":
		return nil
	case "application/zip":
		return s.archive(b, depth)
	}
	if !utf8.Valid(b) {
		return fmt.Errorf("%s that is not UTF-8", mediaType)
	}
	s.texts = append(s.texts, string(b))
	switch mediaType {
	case "text/plain":
		if depth > 0 { // beside the other members of its archive
			s.bare.add(string(b))
		}
		return nil
	case "application/json":
		return s.json(b)
	case "application/xml":
		return s.xml(b)
	case "text/csv":
		return s.csv(b)
	}
	return fmt.Errorf("the type %q is not known", mediaType)
}

// json takes keys, strings and numbers.
func (s *search) json(b []byte) error {
	if !json.Valid(b) { // the decoder's tokens end at a cut without a word
		return errors.New("it is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	type level struct{ object, name bool } // name: one comes next
	var open []level
	for {
		t, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		text, isText := "", false
		switch t := t.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				open = append(open, level{t == '{', t == '{'})
				continue
			}
			open = open[:len(open)-1]
		case string:
			text, isText = t, true
		case json.Number:
			text, isText = string(t), true
		}
		name := false
		if n := len(open); n > 0 {
			name = open[n-1].name
			open[n-1].name = open[n-1].object && !name
		}
		if isText {
			s.values.add(text)
			if !name {
				s.bare.add(text)
			}
		}
	}
}

// xml takes names, attributes, text and whatever else may stand.
func (s *search) xml(b []byte) error {
	var run strings.Builder // text as it is shown, without the elements that it is divided by
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		t, err := d.Token()
		if err == io.EOF {
			s.texts = append(s.texts, run.String())
			return nil
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			s.values.add(t.Name.Local)
			for _, a := range t.Attr {
				s.values.add(a.Name.Local, a.Value)
				s.bare.add(a.Value)
			}
		case xml.CharData:
			s.values.add(string(t))
			s.bare.add(string(t))
			run.Write(t)
		case xml.Comment:
			s.values.add(string(t))
		case xml.ProcInst:
			s.values.add(t.Target, string(t.Inst))
		case xml.Directive:
			s.values.add(string(t))
		}
	}
}

func (s *search) csv(b []byte) error {
	d := csv.NewReader(bytes.NewReader(b))
	d.FieldsPerRecord = -1
	type column struct {
		lines
		long bool // a cell below its head has more than one letter
	}
	var columns []column // a table is read downward, too
	for row := 0; ; row++ {
		fields, err := d.Read()
		if err == io.EOF {
			for _, c := range columns {
				if c.long {
					s.bare.b = append(s.bare.b, c.b...)
				} else {
					s.grades.b = append(s.grades.b, c.b...)
				}
			}
			return nil
		}
		if err != nil {
			return err
		}
		s.values.add(fields...)
		for i, f := range fields {
			if i == len(columns) {
				columns = append(columns, column{})
			}
			columns[i].add(f)
			columns[i].long = columns[i].long || row > 0 && utf8.RuneCountInString(f) > 1
		}
	}
}

// archive takes names and members, each by the type that its name says.
func (s *search) archive(b []byte, depth int) error {
	if depth == maxNested {
		return fmt.Errorf("more than %d archives in one another", maxNested)
	}
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	s.values.add(r.Comment)
	for _, f := range r.File {
		if s.count++; s.count > maxMembers {
			return fmt.Errorf("more than %d members", maxMembers)
		}
		s.values.add(f.Name, f.Comment)
		s.names.add(inWords(stem(f.Name)))
		m, err := f.Open()
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.LimitReader(m, s.left+1))
		m.Close()
		if err != nil {
			return err
		}
		if s.left -= int64(len(content)); s.left < 0 {
			return fmt.Errorf("members of more than %d bytes", int64(maxValueSize))
		}
		if err := s.add(MemberType(f.Name), content, depth+1); err != nil {
			return fmt.Errorf("%q: %w", f.Name, err)
		}
	}
	return nil
}

// MemberType is the media type of a member of an archive, which its name says; "" where that says none that may be released.
func MemberType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".txt":
		return "text/plain"
	case ".json":
		return "application/json"
	case ".xml":
		return "application/xml"
	case ".csv":
		return "text/csv"
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".pdf":
		return "application/pdf"
	case ".zip":
		return "application/zip"
	}
	return ""
}

// SearchNames is Search over what leaves beside the content: key, type, and the metadata's names and values, each by itself and one after another: all of
// them, the names alone, and the values behind the key. Encodings that such headers are written in (RFC 2047) are undone.
func (w *Words) SearchNames(key, contentType string, meta map[string]string, as label.Label) []redoubt.Finding {
	texts := []string{key, contentType}
	names, values, all := []string{}, []string{stem(key)}, []string{stem(key)}
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		value := meta[name]
		texts, names, values, all = append(texts, name, value), append(names, name), append(values, value), append(all, name, value)
		if d, err := new(mime.WordDecoder).DecodeHeader(value); err == nil && d != value {
			texts = append(texts, d)
		}
	}
	for _, some := range [][]string{names, values, all} {
		texts = append(texts, strings.Join(some, "\n"))
	}
	var found []redoubt.Finding
	for _, t := range texts {
		found = append(found, w.Search(t, as)...)
		if u := inWords(t); u != t {
			found = append(found, w.Search(u, as)...)
		}
	}
	return trim(found)
}

// inWords is a name as it is read: its folders are lines, and its signs spaces.
func inWords(name string) string {
	return strings.NewReplacer("/", "\n", "_", " ", "-", " ").Replace(name)
}

// stem is a name without the suffix that says its type.
func stem(name string) string {
	if MemberType(name) == "" {
		return name
	}
	return strings.TrimSuffix(name, path.Ext(name))
}
