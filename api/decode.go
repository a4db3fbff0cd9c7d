package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"redoubt"
)

// Limits on what arrives.
const (
	// MaxBodyBytes bounds a request's body: the largest is the checkpoints of a fleet, or a change with eight signatures.
	MaxBodyBytes = 256 << 10
	// maxDepth bounds nesting; nothing that is read here nests deeper than four.
	maxDepth = 16
)

// read decodes the body strictly: one JSON document of the right type, in UTF-8, without a field that v does not
// have, a key named twice, or anything after it.
func read(w http.ResponseWriter, r *http.Request, v any) error {
	bad := func(hint string) error { return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: hint} }
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != "application/json" {
		return bad("send Content-Type: application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBodyBytes))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &redoubt.Error{Op: "api", Kind: redoubt.TooLarge}
	case err != nil:
		return bad("the body did not arrive whole")
	}
	return decode(body, v)
}

// decode reads one JSON document, strictly.
func decode(body []byte, v any) error {
	bad := func(hint string) error { return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: hint} }
	if !utf8.Valid(body) {
		return bad("the body is not UTF-8")
	}
	if hint := unique(body); hint != "" {
		return bad(hint)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bad(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// unique says what is wrong with the shape of a document: a key twice in one object, whatever its case
// (encoding/json takes "Name" for "name"), nesting, or what follows it.
func unique(body []byte) string {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var open []map[string]bool // nil for an array
	key := false               // the next token may be a key
	for {
		tok, err := d.Token()
		if err != nil {
			return "the body is not one JSON document"
		}
		switch t := tok.(type) {
		case json.Delim:
			switch t {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
			}
			if len(open) > maxDepth {
				return "the body is nested too deeply"
			}
			key = t != '[' && len(open) > 0 && open[len(open)-1] != nil
		default:
			if len(open) == 0 {
				break
			}
			top := open[len(open)-1]
			if s, ok := tok.(string); ok && key && top != nil {
				s = strings.ToLower(s)
				if top[s] {
					return "a key stands twice in one object"
				}
				top[s] = true
				key = false
				continue
			}
			key = top != nil
		}
		if len(open) == 0 {
			if _, err := d.Token(); err != io.EOF {
				return "something follows the JSON document"
			}
			return ""
		}
	}
}
