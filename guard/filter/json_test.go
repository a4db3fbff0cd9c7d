package filter_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"redoubt/guard"
	"redoubt/guard/filter"
)

const trackSchema = `{"type": "object", "additionalProperties": false, "required": ["id"], "properties": {
	"id": {"type": "string", "maxLength": 40}, "n": {"type": "number", "minimum": -1e15, "maximum": 1e15}, "ok": {"type": ["boolean", "null"]},
	"kind": {"enum": ["air", "sea", 3, null]}, "list": {"type": "array", "maxItems": 5, "items": {"$ref": "#/$defs/point"}}},
	"$defs": {"point": {"type": "object", "additionalProperties": false, "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 10}, "sub": {"$ref": "#/$defs/point"}}}}}`

func track(in string) guard.Content {
	return guard.Content{Type: filter.JSON, Schema: []byte(trackSchema), Bytes: []byte(in)}
}

func TestJSONLeavesInOneSpelling(t *testing.T) {
	s := newSet(t)
	for in, want := range map[string]string{
		`{"id": "a"}`: `{"id":"a"}`,
		` { "n" : 1.50e2 , "id" : "\u00e9\n\t\"\\\/" } `:          `{"id":"é\n\t\"\\/","n":150}`,
		`{"id":"x","n":-0.0,"ok":null,"kind":3}`:                  `{"id":"x","kind":3,"n":0,"ok":null}`,
		`{"id":"\ud83d\ude00","list":[{"x":1,"sub":{"x":2}},{}]}`: `{"id":"😀","list":[{"sub":{"x":2},"x":1},{}]}`,
		`{"id":"zero\u200bwidth"}`:                                `{"id":"zerowidth"}`,
		`{"id":"a \t\n b \u00a0\u200b "}`:                         `{"id":"a\n b"}`,
		`{"id":"x","n":0.1000000000000000055511151231}`:           `{"id":"x","n":0.1}`,
		`{"id":"x","n":123456.789}`:                               `{"id":"x","n":123456.789}`,
	} {
		passes(t, s, track(in), want+"\n")
	}
	if out, _, err := both(t, s, track(`{"id":"x","n":1e-7}`)); err != nil || !json.Valid(out) {
		t.Errorf("got %q and %v", out, err)
	}
}

func TestJSONThatIsNotWhatItsSchemaSaysIsRefused(t *testing.T) {
	s := newSet(t)
	deep := strings.Repeat(`{"sub":`, 31) + "{}" + strings.Repeat("}", 31)
	for in, rule := range map[string]string{
		`{"id":"a","id":"a"}`:       "twice",
		`{"id":"a","i\u0064":"b"}`:  "twice",
		`{"id":"a","i\u200bd":"b"}`: "twice",
		`{"id":"a","more":1}`:       "schema",
		`{}`:                        "schema",
		`{"id":"` + strings.Repeat("x", 41) + `"}`:         "schema",
		`{"id":"a","n":1e300}`:                             "larger than",
		`{"id":"a","n":1e400}`:                             "out of range",
		`{"id":"a","n":9007199254740993}`:                  "larger than",
		`{"id":"a","n":0.` + strings.Repeat("1", 40) + `}`: "digits",
		`{"id":"a"} {"id":"b"}`:                            "follows",
		`{"id":"a"}x`:                                      "follows",
		`{"id":"a"}` + "\x00":                              "follows",
		`{"id":"a",}`:                                      "not JSON",
		`{id:"a"}`:                                         "not JSON",
		`{"id":"a","n":NaN}`:                               "not JSON",
		`{"id":"a","n":01}`:                                "not JSON",
		`/* c */{"id":"a"}`:                                "not JSON",
		`{"id":"a\u202eb"}`:                                "direction",
		`{"id":"a\u0000"}`:                                 "control",
		`{"id":"\ud800"}`:                                  "could not be read",
		`{"id":"p\u0430ss"}`:                               "look like",
		``:                                                 "not JSON",
		"{\"id\":\"\xff\"}":                                "UTF-8",
		`{"id":"x","list":[` + deep + `]}`:                 "in one another",
		strings.Repeat("[", 100000):                        "in one another",
		`{"id":"x","list":[{},{},{},{},{},{}]}`:            "schema",
	} {
		refused(t, s, track(in), rule)
	}
}

func TestJSONWithoutAClosedSchemaIsRefused(t *testing.T) {
	s := newSet(t)
	refused(t, s, guard.Content{Type: filter.JSON, Bytes: []byte(`{}`)}, "without a schema")
	for _, schema := range []string{
		`true`, `{}`, `[]`, `x`, `{"type":"object"}`, `{"type":"object","additionalProperties":true,"properties":{}}`, `{"type":"object","additionalProperties":false}`,
		`{"type":"string"}`, `{"type":"string","pattern":"^a*$"}`, `{"type":"string","maxLength":65537}`, `{"type":"array","items":{"type":"null"}}`, `{"type":"array","maxItems":3}`,
		`{"type":"array","maxItems":3,"items":{}}`, `{"type":"array","maxItems":3,"items":true}`, `{"type":"number"}`, `{"type":"number","minimum":1}`, `{"type":"any"}`, `{"not":{"type":"null"}}`,
		`{"$ref":"https://example.org/x"}`, `{"$ref":"#"}`, `{"$ref":"#/$defs/none"}`, `{"$id":"x","type":"null"}`, `{"type":"null","$anchor":"a"}`, `{"anyOf":[{"type":"null"},{}]}`, `{"anyOf":[]}`,
		`{"type":"null","$defs":{"a":{}}}`, `{"type":"object","additionalProperties":false,"properties":{"a":{}}}`, `{"type":"object","additionalProperties":false,"properties":{},"patternProperties":{"a":{"type":"null"}}}`,
		`{"type":"string","maxLength":5,"pattern":"("}`, `{"enum":[{}]}`, `{"const":"` + strings.Repeat("x", 257) + `"}`, `{"type":"null","type":"null"}`, `{"$schema":"http://json-schema.org/draft-07/schema#","type":"null"}`,
	} {
		refused(t, s, guard.Content{Type: filter.JSON, Schema: []byte(schema), Bytes: []byte(`null`)}, "schema")
		if filter.CheckSchema(filter.JSON, []byte(schema)) == nil {
			t.Errorf("%s is taken for closed", schema)
		}
	}
	if err := filter.CheckSchema(filter.JSON, []byte(trackSchema)); err != nil {
		t.Error(err)
	}
	big := fmt.Sprintf(`{"type":"null","title":%q}`, strings.Repeat("x", filter.MaxSchemaBytes-26))
	if err := filter.CheckSchema(filter.JSON, []byte(big[:len(big)])); err != nil {
		t.Errorf("a schema of %d bytes: %v", len(big), err)
	}
	refused(t, s, guard.Content{Type: filter.JSON, Schema: []byte(big + " "), Bytes: []byte(`null`)}, "schema has")
}

// trackOf64K is a document of about 64 KiB.
func trackOf64K() guard.Content {
	var b strings.Builder
	b.WriteString("[")
	for i := 0; b.Len() < 64<<10; i++ {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `{"id":"T%06d","lat":%.5f,"lon":%.5f,"course":%d,"name":"a vessel of the second fleet"}`, i, 54+float64(i)/1000, 10+float64(i)/999, i%360)
	}
	b.WriteString("]")
	schema := `{"type":"array","maxItems":5000,"items":{"type":"object","additionalProperties":false,"properties":{"id":{"type":"string","pattern":"^T[0-9]{6}$","maxLength":7},
		"lat":{"type":"number","minimum":-90,"maximum":90},"lon":{"type":"number","minimum":-180,"maximum":180},"course":{"type":"integer","minimum":0,"maximum":359},"name":{"type":"string","maxLength":64}}}}`
	return guard.Content{Type: filter.JSON, Schema: []byte(schema), Bytes: []byte(b.String())}
}
