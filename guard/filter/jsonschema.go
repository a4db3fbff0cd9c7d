package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Limits that a schema of JSON may set at most.
const (
	maxStringChars = 65536
	maxArrayItems  = 100_000
)

// words that a closed schema may use. What is not among them either opens a schema (patternProperties, unevaluated…, not) or says nothing
// that both sides could hold a content against.
var schemaWords = []string{"$schema", "$ref", "$defs", "title", "description", "type", "properties", "required", "additionalProperties", "items", "prefixItems", "maxItems", "minItems", "uniqueItems",
	"enum", "const", "maxLength", "minLength", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minProperties", "maxProperties", "anyOf", "oneOf"}

// compile reads a schema, finds it closed, and makes a validator of it. Nothing is fetched.
func compile(schema []byte) (*jsonschema.Schema, error) {
	if len(schema) > MaxSchemaBytes {
		return nil, refuse("", "the schema has %d bytes, and %d may be", len(schema), MaxSchemaBytes)
	}
	v, err := readJSON(schema, newNotes(""))
	if err != nil {
		return nil, refuse(schemaOpen, "the schema: %v", err)
	}
	root, ok := v.(object)
	if !ok {
		return nil, refuse(schemaOpen, "the schema is not an object")
	}
	if d, ok := root["$schema"]; ok && d != "https://json-schema.org/draft/2020-12/schema" {
		return nil, refuse("", "the schema is of another draft than 2020-12")
	}
	if err := closed(root, root, "#"); err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(schemaURL, plain(v)); err != nil {
		return nil, refuse(schemaOpen, "the schema: %v", err)
	}
	s, err := c.Compile(schemaURL)
	if err != nil {
		return nil, refuse(schemaOpen, "the schema: %v", err)
	}
	return s, nil
}

// noLoader fetches nothing.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) { return nil, errors.New("nothing is fetched") }

// closed walks one schema and all in it.
func closed(root object, v any, at string) error {
	open := func(format string, args ...any) error {
		return refuse(schemaOpen, "the schema is open at %s: %s", at, fmt.Sprintf(format, args...))
	}
	s, ok := v.(object)
	if !ok {
		return open("not an object")
	}
	for k := range s {
		if !slices.Contains(schemaWords, k) || at != "#" && (k == "$defs" || k == "$schema") {
			return open("%q is not taken here", k)
		}
	}
	if defs, ok := s["$defs"]; ok {
		if err := closedAll(root, defs, at+"/$defs"); err != nil {
			return err
		}
	}
	if ref, ok := s["$ref"]; ok {
		name, ok := strings.CutPrefix(fmt.Sprint(ref), "#/$defs/")
		defs, _ := root["$defs"].(object)
		if _, there := defs[name]; !ok || !there || strings.ContainsAny(name, "/%~") || at == "#" && len(s) > 2 || at != "#" && len(s) > 1 {
			return open("$ref stands alone and names one of $defs")
		}
		return nil
	}
	for _, word := range []string{"enum", "const"} {
		if e, ok := s[word]; ok {
			return bounded(e, open)
		}
	}
	for _, word := range []string{"anyOf", "oneOf"} {
		if list, ok := s[word].([]any); ok {
			if s["type"] != nil || len(list) == 0 {
				return open("%s stands without type, and has members", word)
			}
			for i, e := range list {
				if err := closed(root, e, fmt.Sprintf("%s/%s/%d", at, word, i)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	types, err := typesOf(s["type"])
	if err != nil {
		return open("%v", err)
	}
	for _, t := range types {
		if err := closedType(root, s, t, at, open); err != nil {
			return err
		}
	}
	return nil
}

// closedAll walks the members of an object of schemas.
func closedAll(root object, v any, at string) error {
	members, ok := v.(object)
	if !ok {
		return refuse(schemaOpen, "the schema is open at %s: not an object", at)
	}
	for name, s := range members {
		if err := closed(root, s, at+"/"+clip(name)); err != nil {
			return err
		}
	}
	return nil
}

// typesOf are the names of what a value may be: one name or several.
func typesOf(v any) (names []string, err error) {
	switch v := v.(type) {
	case string:
		names = []string{v}
	case []any:
		for _, e := range v {
			names = append(names, fmt.Sprint(e))
		}
	}
	if len(names) == 0 {
		return nil, errors.New("it has no type, enum, const, anyOf, oneOf or $ref")
	}
	return names, nil
}

func closedType(root, s object, t, at string, open func(string, ...any) error) error {
	switch t {
	case "null", "boolean":
	case "number", "integer":
		for _, word := range []string{"minimum", "maximum"} {
			if s[word] == nil && s["exclusiveM"+word[1:]] == nil {
				return open("a number without %s", word)
			}
		}
	case "string":
		if n, ok := count(s["maxLength"]); !ok || n > maxStringChars {
			return open("a string without a maxLength of %d at most", maxStringChars)
		}
	case "array":
		if n, ok := count(s["maxItems"]); !ok || n > maxArrayItems {
			return open("an array without a maxItems of %d at most", maxArrayItems)
		}
		if prefix, ok := s["prefixItems"].([]any); ok {
			for i, e := range prefix {
				if err := closed(root, e, fmt.Sprintf("%s/prefixItems/%d", at, i)); err != nil {
					return err
				}
			}
			if s["items"] == false {
				return nil
			}
		}
		return closed(root, s["items"], at+"/items")
	case "object":
		if s["additionalProperties"] != false {
			return open("an object without \"additionalProperties\": false")
		}
		if s["properties"] == nil {
			return open("an object without properties")
		}
		return closedAll(root, s["properties"], at+"/properties")
	default:
		return open("%q is no type", clip(t))
	}
	return nil
}

// bounded finds values that are listed short.
func bounded(v any, open func(string, ...any) error) error {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, e := range list {
		switch e := e.(type) {
		case string:
			if len(e) > maxDetail {
				return open("a listed value of %d bytes, and %d may be", len(e), maxDetail)
			}
		case bool, nil, json.Number:
		default:
			return open("a listed value that is an object or an array")
		}
	}
	return nil
}

// count is a whole number that is not negative.
func count(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return int64(f), err == nil && f >= 0 && f == math.Trunc(f)
}
