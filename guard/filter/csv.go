package filter

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"redoubt/guard"
)

// Limits on CSV.
const (
	maxColumns = 256
	maxRows    = 1_000_000
)

// table is the closed schema of a CSV: its columns in their order, under a head line with their names.
//
//	{"rows": 1000, "columns": [{"name": "id", "type": "string", "max": 12}, {"name": "lat", "type": "number", "from": -90, "to": 90},
//	 {"name": "kind", "type": "enum", "values": ["air", "sea"]}, {"name": "seen", "type": "time"}]}
type table struct {
	Rows    int      `json:"rows"` // at most, the head line aside
	Columns []column `json:"columns"`
}

type column struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`             // string, integer, number, boolean, date (2006-01-02), time (RFC 3339), enum
	Max    int      `json:"max,omitempty"`    // characters of a string
	From   *float64 `json:"from,omitempty"`   // of a number
	To     *float64 `json:"to,omitempty"`     //
	Values []string `json:"values,omitempty"` // of an enum
	Empty  bool     `json:"empty,omitempty"`  // whether it may be empty
}

// readTable reads a schema and finds it closed.
func readTable(schema []byte) (t table, err error) {
	if len(schema) == 0 {
		return t, refuse(noSchema, "CSV without a schema")
	}
	if len(schema) > MaxSchemaBytes {
		return t, refuse("", "the schema has %d bytes, and %d may be", len(schema), MaxSchemaBytes)
	}
	if _, err := readJSON(schema, newNotes("")); err != nil { // no key twice, nothing behind it
		return t, refuse(schemaOpen, "the schema: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(schema))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, refuse(schemaOpen, "the schema: %v", err)
	}
	if t.Rows <= 0 || t.Rows > maxRows || len(t.Columns) == 0 || len(t.Columns) > maxColumns {
		return t, refuse(schemaOpen, "the schema is open: rows from 1 to %d, columns from 1 to %d", maxRows, maxColumns)
	}
	for _, c := range t.Columns {
		ok := true
		switch c.Type {
		case "string":
			ok = c.Max > 0 && c.Max <= maxStringChars
		case "integer", "number":
			ok = c.From != nil && c.To != nil && math.Abs(*c.From) <= maxInteger && math.Abs(*c.To) <= maxInteger
		case "enum":
			ok = len(c.Values) > 0 && !slices.ContainsFunc(c.Values, func(v string) bool { return len(v) > maxDetail })
		case "boolean", "date", "time":
		default:
			ok = false
		}
		if !ok || c.Name == "" || len(c.Name) > maxKeyBytes {
			return t, refuse(schemaOpen, "the schema is open at column %q: string with max, integer or number with from and to, boolean, date, time, enum with values", clip(c.Name))
		}
	}
	return t, nil
}

// cleanCSV writes a table anew: the head line and the rows of its schema, each value in one spelling.
func cleanCSV(in, schema []byte, n *notes) ([]byte, error) {
	t, err := readTable(schema)
	if err != nil {
		return nil, err
	}
	text, err := decode(in, n)
	if err != nil {
		return nil, err
	}
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = len(t.Columns)
	r.ReuseRecord = true
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	for row := 0; ; row++ {
		fields, err := r.Read()
		if err == io.EOF {
			if row == 0 {
				return nil, refuse("", "it has no head line")
			}
			w.Flush()
			return b.Bytes(), w.Error()
		}
		if err != nil {
			return nil, refuse("", "it is not CSV of %d columns: %v", len(t.Columns), err)
		}
		if row > t.Rows {
			return nil, refuse("", "more than %d rows", t.Rows)
		}
		for i := range fields {
			if row == 0 {
				if fields[i] != t.Columns[i].Name {
					return nil, refuse("", "the head of column %d is %q, and the schema has %q", i+1, clip(fields[i]), t.Columns[i].Name)
				}
				continue
			}
			if fields[i], err = t.Columns[i].clean(fields[i], n); err != nil {
				var f *refusal
				if errors.As(err, &f) {
					err = refuse(f.Hint, "row %d, column %q: %s", row, t.Columns[i].Name, f.Rule)
				}
				return nil, err
			}
		}
		if err := w.Write(fields); err != nil {
			return nil, err
		}
	}
}

// clean gives a value its one spelling, or refuses it.
func (c column) clean(s string, n *notes) (string, error) {
	if s == "" && c.Empty {
		return "", nil
	}
	bad := refuse("", "%q is no %s", clip(s), c.Type)
	switch c.Type {
	case "string":
		s, err := cleanString(s, n, "")
		if err != nil {
			return "", err
		}
		if s == "" && c.Empty {
			return "", nil
		}
		if s == "" || utf8.RuneCountInString(s) > c.Max {
			return "", refuse("", "a string of %d characters, and 1 to %d may be", utf8.RuneCountInString(s), c.Max)
		}
		if formula(s) {
			return "", refuse("begin it, and what follows a semicolon, with another character", "a string that a spreadsheet reads as a formula")
		}
		return s, nil
	case "integer", "number":
		if strings.ContainsAny(s, "xXpP_nN") { // forms that are Go's own
			return "", bad
		}
		v, err := number(json.Number(s), n)
		if err != nil {
			return "", bad
		}
		f, err := v.Float64()
		if err != nil || f < *c.From || f > *c.To || c.Type == "integer" && f != math.Trunc(f) {
			return "", bad
		}
		return string(v), nil
	case "boolean":
		if v, err := strconv.ParseBool(s); err == nil && (s == "true" || s == "false") {
			return strconv.FormatBool(v), nil
		}
	case "date":
		if v, err := time.Parse(time.DateOnly, s); err == nil {
			return v.Format(time.DateOnly), nil
		}
	case "time":
		if v, err := time.Parse(time.RFC3339, s); err == nil {
			return spelled(v, time.RFC3339, s, n)
		}
	case "enum":
		if slices.Contains(c.Values, s) {
			return s, nil
		}
	}
	return "", bad
}

// formula says whether a spreadsheet takes a string, or what follows a semicolon in it, for a formula: where that stands between the columns, and
// the comma does not, no quotes hold a value together that begins without them.
func formula(s string) bool {
	for part := range strings.SplitSeq(s, ";") {
		first, _ := utf8.DecodeRuneInString(strings.TrimLeft(part, " \""))
		if strings.ContainsAny(norm.NFKC.String(string(first))[:1], "=+-@") { // wide and small forms, too
			return true
		}
	}
	return false
}

// spelled gives a time its one spelling, in UTC: of one instant there are as many others as there are minutes between two days.
func spelled(v time.Time, layout, in string, n *notes) (string, error) {
	if v = v.UTC(); v.Year() < 0 || v.Year() > 9999 {
		return "", refuse("", "%q is of no year of four digits in UTC", clip(in))
	}
	out := v.Format(layout)
	if out != in {
		n.add("times were written in their one spelling", clip(in))
	}
	return out, nil
}

// csvScript has Python's own CSV reader take a table apart and its writer write it anew. The first line of the input has the number of columns
// and the longest value of each, in characters, which it holds the rows against.
const csvScript = `
import sys, io, _csv
data = sys.stdin.buffer.read()
head, _, data = data.partition(b"\n")
limits = [int(n) for n in head.split(b",")]
text = data.decode("utf-8", "strict")
out = io.StringIO(newline="")
w = _csv.writer(out, delimiter=",", quotechar='"', doublequote=True, lineterminator="\n", quoting=0)
_csv.field_size_limit(1 << 20)
for row in _csv.reader(io.StringIO(text, newline=""), delimiter=",", quotechar='"', doublequote=True, strict=True):
    if len(row) != len(limits): sys.exit("a row of %d columns" % len(row))
    for value, limit in zip(row, limits):
        if len(value) > limit: sys.exit("a value of %d characters" % len(value))
        if not value.isprintable(): sys.exit("a value that is not printable")
    w.writerow(row)
sys.stdout.buffer.write(out.getvalue().encode("utf-8"))
`

// csvInput puts the limits before a table.
func csvInput(c guard.Content) ([]byte, error) {
	t, err := readTable(c.Schema)
	if err != nil {
		return nil, err
	}
	var limits []string
	for _, c := range t.Columns {
		limit := max(c.Max, maxNumber, utf8.RuneCountInString(c.Name))
		for _, v := range c.Values {
			limit = max(limit, utf8.RuneCountInString(v))
		}
		limits = append(limits, strconv.Itoa(limit))
	}
	return append([]byte(strings.Join(limits, ",")+"\n"), c.Bytes...), nil
}

// sameCSV agrees where two tables have the same values: each program quotes in its own way.
func sameCSV(_ context.Context, in, out []byte) error {
	a, b := csv.NewReader(bytes.NewReader(in)), csv.NewReader(bytes.NewReader(out))
	for {
		x, errX := a.Read()
		y, errY := b.Read()
		if errX == io.EOF && errY == io.EOF {
			return nil
		}
		if errX != nil || errY != nil || !slices.Equal(x, y) {
			return refuse("", "the two code bases do not agree on it")
		}
	}
}
