package filter_test

import (
	"strings"
	"testing"

	"redoubt/guard"
	"redoubt/guard/filter"
)

const tableSchema = `{"rows": 3, "columns": [{"name": "id", "type": "string", "max": 12}, {"name": "lat", "type": "number", "from": -90, "to": 90, "empty": true},
	{"name": "n", "type": "integer", "from": 0, "to": 1000}, {"name": "kind", "type": "enum", "values": ["air", "sea, deep"]}, {"name": "seen", "type": "time"}, {"name": "ok", "type": "boolean"}]}`

func tableOf(in string) guard.Content {
	return guard.Content{Type: filter.CSV, Schema: []byte(tableSchema), Bytes: []byte(in)}
}

const heads = "id,lat,n,kind,seen,ok\n"

func TestCSVLeavesInOneSpelling(t *testing.T) {
	s := newSet(t)
	for in, want := range map[string]string{
		"a,1.50,7,air,2026-01-02T03:04:05Z,true\n":                   "a,1.5,7,air,2026-01-02T03:04:05Z,true\n",
		"\"a\",,1e2,\"sea, deep\",2026-01-02T03:04:05Z,false\r\n":    "a,,100,\"sea, deep\",2026-01-02T03:04:05Z,false\n",
		"\"say \"\"x\"\"\",-90,0,air,2026-01-02T03:04:05+02:00,true": "\"say \"\"x\"\"\",-90,0,air,2026-01-02T01:04:05Z,true\n",
		"a ,,0,air,2026-01-02T03:04:05-00:00,true\n":                 "a,,0,air,2026-01-02T03:04:05Z,true\n",
		"zero\u200bwidth,,0,air,2026-01-02T03:04:05Z,true\n":         "zerowidth,,0,air,2026-01-02T03:04:05Z,true\n",
		"a;b;;c = d,,0,air,2026-01-02T03:04:05.123456Z,true\n":       "a;b;;c = d,,0,air,2026-01-02T03:04:05Z,true\n",
		"": "",
		strings.Repeat("größe,,0,air,2026-01-02T03:04:05Z,true\n", 3): strings.Repeat("größe,,0,air,2026-01-02T03:04:05Z,true\n", 3),
	} {
		passes(t, s, tableOf(heads+in), heads+want)
	}
}

func TestCSVThatIsNotItsTableIsRefused(t *testing.T) {
	s := newSet(t)
	row := "a,1,7,air,2026-01-02T03:04:05Z,true\n"
	for in, rule := range map[string]string{
		"": "no head line", "id,lat\n": "columns", "id,lat,n,kind,seen,more\n": "head of column",
		heads + strings.Repeat(row, 4):                                "more than 3 rows",
		heads + "abcdefghijklm,1,7,air,2026-01-02T03:04:05Z,true\n":   "13 characters",
		heads + "a,91,7,air,2026-01-02T03:04:05Z,true\n":              "no number",
		heads + "a,1,7,air,0000-01-01T00:00:00+01:00,true\n":          "four digits",
		heads + "a,NaN,7,air,2026-01-02T03:04:05Z,true\n":             "no number",
		heads + "a,0x1p2,7,air,2026-01-02T03:04:05Z,true\n":           "no number",
		heads + "a,1,7.5,air,2026-01-02T03:04:05Z,true\n":             "no integer",
		heads + "a,1,,air,2026-01-02T03:04:05Z,true\n":                "no integer",
		heads + "a,1,7,land,2026-01-02T03:04:05Z,true\n":              "no enum",
		heads + "a,1,7,air,yesterday,true\n":                          "no time",
		heads + "a,1,7,air,2026-01-02T03:04:05Z,1\n":                  "no boolean",
		heads + "=1+2,1,7,air,2026-01-02T03:04:05Z,true\n":            "formula",
		heads + "@SUM(1),1,7,air,2026-01-02T03:04:05Z,true\n":         "formula",
		heads + " =1+2,1,7,air,2026-01-02T03:04:05Z,true\n":           "formula",
		heads + "\uff1d1+2,1,7,air,2026-01-02T03:04:05Z,true\n":       "formula",
		heads + "\ufe621,1,7,air,2026-01-02T03:04:05Z,true\n":         "formula",
		heads + "x;=1+2,1,7,air,2026-01-02T03:04:05Z,true\n":          "formula",
		heads + "\"x; \"\"@a\"\"\",1,7,air,2026-01-02T03:04:05Z,true": "formula",
		heads + "\"a\nb\",1,7,air,2026-01-02T03:04:05Z,true\n":        "control",
		heads + "a\u202eb,1,7,air,2026-01-02T03:04:05Z,true\n":        "direction",
		heads + "p\u0430ss,1,7,air,2026-01-02T03:04:05Z,true\n":       "look like",
		heads + "a\"b,1,7,air,2026-01-02T03:04:05Z,true\n":            "not CSV",
		heads + "\"a,1,7,air,2026-01-02T03:04:05Z,true\n":             "not CSV",
		heads + row + "trailing":                                      "columns",
		heads + "\xff,1,7,air,2026-01-02T03:04:05Z,true\n":            "UTF-8",
		heads + ",1,7,air,2026-01-02T03:04:05Z,true\n":                "0 characters",
	} {
		refused(t, s, tableOf(in), rule)
	}
}

func TestCSVWithoutAClosedSchemaIsRefused(t *testing.T) {
	s := newSet(t)
	for _, schema := range []string{"", "x", "{}", `{"rows":1,"columns":[]}`, `{"rows":0,"columns":[{"name":"a","type":"boolean"}]}`, `{"rows":1,"columns":[{"name":"a","type":"string"}]}`,
		`{"rows":1,"columns":[{"name":"a","type":"number"}]}`, `{"rows":1,"columns":[{"name":"a","type":"enum"}]}`, `{"rows":1,"columns":[{"name":"a","type":"any"}]}`, `{"rows":1,"columns":[{"name":"","type":"boolean"}]}`,
		`{"rows":1,"columns":[{"name":"a","type":"boolean","more":1}]}`, `{"rows":1000001,"columns":[{"name":"a","type":"boolean"}]}`} {
		refused(t, s, guard.Content{Type: filter.CSV, Schema: []byte(schema), Bytes: []byte("a\ntrue\n")}, "schema")
	}
	passes(t, s, guard.Content{Type: filter.CSV, Schema: []byte(`{"rows":1000000,"columns":[{"name":"a","type":"boolean"}]}`), Bytes: []byte("a\ntrue\n")}, "a\ntrue\n")
}
