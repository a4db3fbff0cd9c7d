package guard

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"redoubt"
	"redoubt/label"
)

// search looks for words and markings in everything that leaves: name, metadata, the content as it stands, and its values as they are read. An image and a
// PDF of images have no text: the reviewers look at them.
func (r *Releaser) search(said []string, typ string, content []byte, as label.Label) ([]redoubt.Finding, error) {
	texts := said
	if utf8.Valid(content) {
		texts = append(texts, string(content))
	}
	values, err := valuesOf(typ, content)
	if err != nil {
		return nil, refuse("words", "not readable", "what the filters wrote is not read as "+typ)
	}
	texts = append(texts, values...)
	var out []redoubt.Finding
	seen := map[redoubt.Finding]bool{}
	for _, t := range texts {
		for _, f := range stepped("words", r.o.Words.Search(t, as)) {
			if !seen[f] {
				seen[f] = true
				out = append(out, f)
			}
		}
	}
	return out, nil
}

// valuesOf gives the texts that a structured content holds, unescaped, each by itself and all of them together: a word may be split over two.
func valuesOf(typ string, content []byte) (all []string, err error) {
	switch typ {
	case "application/json":
		all, err = jsonTexts(content)
	case "application/xml":
		all, err = xmlTexts(content)
	case "text/csv":
		all, err = csvTexts(content)
	case "application/zip":
		all, err = zipTexts(content)
	default:
		return nil, nil
	}
	return append(all, strings.Join(all, ""), strings.Join(all, " ")), err
}

func jsonTexts(content []byte) (all []string, err error) {
	if !json.Valid(content) { // a decoder takes what ends in the middle for what has ended
		return nil, errors.New("not one JSON text")
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		switch v := tok.(type) {
		case string:
			all = append(all, v)
		case json.Number:
			all = append(all, v.String())
		}
	}
}

func xmlTexts(content []byte) (all []string, err error) {
	d := xml.NewDecoder(bytes.NewReader(content))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		switch v := tok.(type) {
		case xml.CharData:
			all = append(all, string(v))
		case xml.StartElement:
			all = append(all, v.Name.Local)
			for _, a := range v.Attr {
				all = append(all, a.Name.Local, a.Value)
			}
		}
	}
}

func csvTexts(content []byte) (all []string, err error) {
	r := csv.NewReader(bytes.NewReader(content))
	r.FieldsPerRecord = -1
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, row...)
	}
}

// zipTexts gives the names of an archive's members, and what of them is text with what it holds. The filters have bounded what is in it; what is read here is
// bounded once more.
func zipTexts(content []byte) (all []string, err error) {
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, err
	}
	left := int64(redoubt.MaxReleaseBytes)
	for _, f := range z.File {
		all = append(all, f.Name, f.Comment)
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(r, left+1))
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		if left -= int64(len(b)); left < 0 {
			return nil, redoubt.TooLarge
		}
		if !utf8.Valid(b) {
			continue
		}
		all = append(all, string(b))
		values, err := valuesOf(detect(b, "", f.Name), b)
		if err != nil {
			return nil, err
		}
		all = append(all, values...)
	}
	return all, nil
}
