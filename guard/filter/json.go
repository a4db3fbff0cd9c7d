package filter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Limits on JSON.
const (
	maxDepth    = 32        // of arrays and objects in one another, in content and in schemas
	maxInteger  = 1<<53 - 1 // what every reader of JSON holds exactly
	maxKeyBytes = 256       // a key is a name
	maxNumber   = 32        // bytes of a number: no double needs more
	maxValues   = 1_000_000 // in one document
	noSchema    = "give the closed schema that the content must meet"
	schemaOpen  = "a schema must say everything that may stand"
	sharedLines = "\n\t"     // control characters that a string of JSON may have
	schemaURL   = "schema:x" // under which the schema is known to its compiler; nothing is fetched
)

// object is a JSON object as it was read: no key twice.
type object map[string]any

// cleanJSON writes JSON anew: no spaces, keys in order, one spelling of every number and string. It must meet the closed schema.
func cleanJSON(in, schema []byte, n *notes) ([]byte, error) {
	if len(schema) == 0 {
		return nil, refuse(noSchema, "JSON without a schema")
	}
	s, err := compile(schema)
	if err != nil {
		return nil, err
	}
	text, err := decode(in, n)
	if err != nil {
		return nil, err
	}
	v, err := readJSON([]byte(text), n)
	if err != nil {
		return nil, err
	}
	if err := s.Validate(plain(v)); err != nil {
		return nil, refuse("", "it does not meet its schema: %s", firstFault(err))
	}
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// jsonReader reads one document.
type jsonReader struct {
	d      *json.Decoder
	n      *notes
	values int
}

// readJSON reads strictly: one document, no key twice, strings that show all they have.
func readJSON(b []byte, n *notes) (any, error) {
	r := &jsonReader{d: json.NewDecoder(bytes.NewReader(b)), n: n}
	r.d.UseNumber()
	v, err := r.value(0)
	if err != nil {
		return nil, asRefusal(err)
	}
	if _, err := r.d.Token(); err != io.EOF {
		return nil, refuse("", "something follows the document")
	}
	return v, nil
}

func asRefusal(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return err
	}
	return refuse("", "it is not JSON: %v", err)
}

func (r *jsonReader) value(depth int) (any, error) {
	if r.values++; r.values > maxValues {
		return nil, refuse("", "more than %d values", maxValues)
	}
	t, err := r.d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if depth == maxDepth {
			return nil, refuse("", "more than %d arrays and objects in one another", maxDepth)
		}
		if t == '{' {
			return r.object(depth + 1)
		}
		return r.array(depth + 1)
	case string:
		return cleanString(t, r.n, sharedLines)
	case json.Number:
		return number(t, r.n)
	default:
		return t, nil // true, false, null
	}
}

func (r *jsonReader) object(depth int) (any, error) {
	o := object{}
	for r.d.More() {
		t, err := r.d.Token()
		if err != nil {
			return nil, err
		}
		key, err := cleanString(t.(string), r.n, "") // the decoder gives no other here
		if err != nil {
			return nil, err
		}
		if len(key) > maxKeyBytes {
			return nil, refuse("", "a key of %d bytes, and %d may be", len(key), maxKeyBytes)
		}
		if _, ok := o[key]; ok {
			return nil, refuse("", "the key %q stands twice", clip(key))
		}
		if o[key], err = r.value(depth); err != nil {
			return nil, err
		}
	}
	_, err := r.d.Token()
	return o, err
}

func (r *jsonReader) array(depth int) (any, error) {
	a := []any{}
	for r.d.More() {
		v, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	_, err := r.d.Token()
	return a, err
}

// number gives a number its one spelling. What a double does not hold exactly, or reads differently elsewhere, is refused or rounded.
func number(t json.Number, n *notes) (json.Number, error) {
	if len(t) > maxNumber {
		return "", refuse("", "a number of %d digits, and %d may be", len(t), maxNumber)
	}
	f, err := strconv.ParseFloat(string(t), 64)
	if err != nil {
		return "", refuse("", "the number %s is out of range", t)
	}
	if f == math.Trunc(f) && math.Abs(f) > maxInteger {
		return "", refuse("write it as a string", "the number %s is larger than every reader holds exactly", t)
	}
	if f == 0 {
		f = 0 // not -0
	}
	out := json.Number(strconv.FormatFloat(f, 'f', -1, 64))
	if math.Abs(f) < 1e-5 && f != 0 {
		out = json.Number(strconv.FormatFloat(f, 'e', -1, 64))
	}
	if out != t {
		n.add("numbers were written in their one spelling", string(t))
	}
	return out, nil
}

// plain is a value as the schema's library takes it.
func plain(v any) any {
	switch v := v.(type) {
	case object:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	case []any:
		a := make([]any, len(v))
		for i, e := range v {
			a[i] = plain(e)
		}
		return a
	default:
		return v
	}
}

func writeJSON(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case object:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			writeString(b, k)
			b.WriteByte(':')
			if err := writeJSON(b, v[k]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case string:
		writeString(b, v)
	case json.Number:
		b.WriteString(string(v))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case nil:
		b.WriteString("null")
	default:
		return fmt.Errorf("a value of type %T", v)
	}
	return nil
}

// writeString needs few escapes: cleanString left no control characters but these.
func writeString(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case '\n':
			b.WriteString(`\n`)
		case '\t':
			b.WriteString(`\t`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
}

// sameJSON agrees where two documents have the same tokens in the same order, numbers compared as doubles: each program spells them its own way.
func sameJSON(_ context.Context, in, out []byte) error {
	if !utf8.Valid(out) {
		return errors.New("what came out is not UTF-8")
	}
	a, b := json.NewDecoder(bytes.NewReader(in)), json.NewDecoder(bytes.NewReader(out))
	a.UseNumber()
	b.UseNumber()
	differ := refuse("", "the two code bases do not agree on it")
	for {
		x, errX := a.Token()
		y, errY := b.Token()
		if errX == io.EOF && errY == io.EOF {
			return nil
		}
		if errX != nil || errY != nil {
			return differ
		}
		nx, ok := x.(json.Number)
		ny, ok2 := y.(json.Number)
		if ok && ok2 {
			fx, errX := nx.Float64()
			fy, errY := ny.Float64()
			if errX != nil || errY != nil || fx != fy {
				return differ
			}
			continue
		}
		if x != y {
			return differ
		}
	}
}

// firstFault is the innermost fault that a validation found first, with its place.
func firstFault(err error) string {
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return err.Error()
	}
	for len(v.Causes) > 0 {
		v = v.Causes[0]
	}
	s := v.Error()
	if i := strings.Index(s, "at '"); i >= 0 {
		s = s[i:]
	}
	return s
}
