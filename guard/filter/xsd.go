package filter

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A closed schema of XML is an XML Schema 1.0 of the words below and no others: libxml2 holds content against all of it, and so do we. It has
// no namespaces, no mixed content, no references from one file to another and nothing without a bound:
//
//	schema     one element, the root; named simpleTypes and complexTypes
//	element    name, type or a type within it; minOccurs, maxOccurs (a number)
//	complexType  a sequence or a choice of elements, attributes; or simpleContent with an extension
//	attribute  name, type, use
//	simpleType   a restriction of string (maxLength or enumeration), integer or decimal (minInclusive and maxInclusive), boolean, date, dateTime
const xsdNamespace = "http://www.w3.org/2001/XMLSchema"

const maxOccursAt = 100_000

// xsd is a schema that was found closed.
type xsd struct {
	root    *element
	complex map[string]*complexType
	simple  map[string]*simpleType
}

type element struct {
	name     string
	min, max int
	kind     string // of a named type; "": it is within
	complex  *complexType
	simple   *simpleType
}

type complexType struct {
	choice   bool
	elements []*element
	attrs    []attribute
	text     *simpleType // of simpleContent; nil: there is no text
}

type attribute struct {
	name     string
	required bool
	simple   *simpleType
}

type simpleType struct {
	base       string // string, integer, decimal, boolean, date, dateTime
	min, max   int    // characters
	from, to   float64
	values     []string
	expression []*regexp.Regexp
}

// schemaReader makes an xsd of nodes. The first fault stays.
type schemaReader struct {
	xsd
	err error
}

func (r *schemaReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = refuse(schemaOpen, "the schema is open, or says what is not taken: "+format, args...)
	}
}

// readXSD reads a schema and finds it closed.
func readXSD(schema []byte) (*xsd, error) {
	if len(schema) == 0 {
		return nil, refuse(noSchema, "XML without a schema")
	}
	if len(schema) > MaxSchemaBytes {
		return nil, refuse("", "the schema has %d bytes, and %d may be", len(schema), MaxSchemaBytes)
	}
	top, err := readXML(schema, newNotes(""), xsdNamespace)
	if err != nil {
		return nil, refuse(schemaOpen, "the schema: %v", err)
	}
	r := &schemaReader{xsd: xsd{complex: map[string]*complexType{}, simple: map[string]*simpleType{}}}
	if top.name != "schema" {
		r.fail("its root is %q", clip(top.name))
	}
	r.attrs(top, "elementFormDefault", "attributeFormDefault", "version")
	for _, c := range top.children { // named types first, for they may be used before they stand
		name := c.attrs["name"]
		switch c.name {
		case "simpleType":
			r.simple[name] = r.simpleType(c, true)
		case "complexType":
			r.complex[name] = &complexType{}
		}
		if _, twice := r.complex[name]; twice && r.simple[name] != nil {
			r.fail("the type %q stands twice", clip(name))
		}
	}
	for _, c := range top.children {
		switch {
		case c.name == "complexType":
			*r.complex[c.attrs["name"]] = *r.complexType(c, true)
		case c.name == "element" && r.root == nil:
			r.root = r.element(c)
		case c.name != "simpleType":
			r.fail("%q at the top, where one element and types may stand", clip(c.name))
		}
	}
	if r.root == nil {
		r.fail("no element")
	}
	return &r.xsd, r.err
}

// attrs finds that a node of the schema has no attributes but these.
func (r *schemaReader) attrs(n *node, allowed ...string) {
	for a := range n.attrs {
		if !slices.Contains(allowed, a) {
			r.fail("attribute %q of %q", clip(a), clip(n.name))
		}
	}
	if n.text != "" {
		r.fail("text in %q", clip(n.name))
	}
}

func (r *schemaReader) element(n *node) *element {
	r.attrs(n, "name", "type", "minOccurs", "maxOccurs")
	e := &element{name: n.attrs["name"], min: r.number(n.attrs["minOccurs"], 1), max: r.number(n.attrs["maxOccurs"], 1), kind: n.attrs["type"]}
	if e.name == "" || e.max > maxOccursAt || e.min > e.max {
		r.fail("element %q: a name, and maxOccurs up to %d", clip(e.name), maxOccursAt)
	}
	switch {
	case e.kind != "" && len(n.children) == 0:
		if builtin, ok := strings.CutPrefix(e.kind, "xs:"); ok {
			e.kind, e.simple = "", r.builtin(builtin)
		} else if r.complex[e.kind] == nil && r.simple[e.kind] == nil {
			r.fail("type %q is none", clip(e.kind))
		}
	case e.kind == "" && len(n.children) == 1 && n.children[0].name == "complexType":
		e.complex = r.complexType(n.children[0], false)
	case e.kind == "" && len(n.children) == 1 && n.children[0].name == "simpleType":
		e.simple = r.simpleType(n.children[0], false)
	default:
		r.fail("element %q has one type", clip(e.name))
	}
	return e
}

func (r *schemaReader) number(s string, otherwise int) int {
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		r.fail("%q is no number", clip(s))
	}
	return int(n)
}

func (r *schemaReader) complexType(n *node, named bool) *complexType {
	if named {
		r.attrs(n, "name")
	} else {
		r.attrs(n)
	}
	t := &complexType{}
	for i, c := range n.children {
		switch {
		case (c.name == "sequence" || c.name == "choice") && i == 0:
			r.attrs(c)
			t.choice = c.name == "choice"
			for _, e := range c.children {
				if e.name != "element" {
					r.fail("%q within %s", clip(e.name), c.name)
					continue
				}
				t.elements = append(t.elements, r.element(e))
			}
		case c.name == "simpleContent" && i == 0 && len(n.children) == 1 && len(c.children) == 1 && c.children[0].name == "extension":
			r.attrs(c)
			x := c.children[0]
			r.attrs(x, "base")
			t.text = r.named(x.attrs["base"])
			for _, a := range x.children {
				t.attrs = append(t.attrs, r.attribute(a))
			}
		case c.name == "attribute":
			t.attrs = append(t.attrs, r.attribute(c))
		default:
			r.fail("%q within a complexType", clip(c.name))
		}
	}
	return t
}

func (r *schemaReader) attribute(n *node) attribute {
	if n.name != "attribute" {
		r.fail("%q where attributes stand", clip(n.name))
	}
	r.attrs(n, "name", "type", "use")
	a := attribute{name: n.attrs["name"], required: n.attrs["use"] == "required"}
	if u := n.attrs["use"]; u != "" && u != "required" && u != "optional" || a.name == "" {
		r.fail("attribute %q", clip(a.name))
	}
	switch {
	case n.attrs["type"] != "" && len(n.children) == 0:
		a.simple = r.named(n.attrs["type"])
	case n.attrs["type"] == "" && len(n.children) == 1 && n.children[0].name == "simpleType":
		a.simple = r.simpleType(n.children[0], false)
	default:
		r.fail("attribute %q has one type", clip(a.name))
	}
	return a
}

// named is a simple type by its name.
func (r *schemaReader) named(name string) *simpleType {
	if b, ok := strings.CutPrefix(name, "xs:"); ok {
		return r.builtin(b)
	}
	if r.simple[name] == nil {
		r.fail("simple type %q is none", clip(name))
	}
	return r.simple[name]
}

// builtin is a type that is bounded by itself.
func (r *schemaReader) builtin(name string) *simpleType {
	switch name {
	case "boolean", "date", "dateTime":
	default:
		r.fail("xs:%s has no bounds: restrict it", clip(name))
	}
	return &simpleType{base: name}
}

func (r *schemaReader) simpleType(n *node, named bool) *simpleType {
	if named {
		r.attrs(n, "name")
	} else {
		r.attrs(n)
	}
	t := &simpleType{max: -1, from: math.Inf(-1), to: math.Inf(1)}
	if len(n.children) != 1 || n.children[0].name != "restriction" {
		r.fail("a simpleType that is no restriction")
		return t
	}
	x := n.children[0]
	r.attrs(x, "base")
	t.base = strings.TrimPrefix(x.attrs["base"], "xs:")
	for _, f := range x.children {
		r.attrs(f, "value")
		v := f.attrs["value"]
		switch f.name {
		case "minLength":
			t.min = r.number(v, 0)
		case "maxLength":
			t.max = r.number(v, 0)
		case "enumeration":
			if t.values = append(t.values, v); len(v) > maxDetail {
				r.fail("a listed value of %d bytes", len(v))
			}
		case "minInclusive":
			t.from = r.bound(v)
		case "maxInclusive":
			t.to = r.bound(v)
		case "pattern":
			t.expression = append(t.expression, r.pattern(v))
		default:
			r.fail("%q within a restriction", clip(f.name))
		}
	}
	switch ok := true; t.base {
	case "string":
		ok = len(t.values) > 0 || t.max >= 0 && t.max <= maxStringChars
		if !ok {
			r.fail("a string without maxLength or enumeration")
		}
	case "integer", "decimal":
		ok = math.Abs(t.from) <= maxInteger && math.Abs(t.to) <= maxInteger
		if !ok {
			r.fail("a number without minInclusive and maxInclusive")
		}
	case "boolean", "date", "dateTime":
	default:
		r.fail("a restriction of %q", clip(x.attrs["base"]))
	}
	return t
}

func (r *schemaReader) bound(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		r.fail("%q is no bound", clip(s))
	}
	return f
}

// pattern takes what both languages of patterns read alike.
func (r *schemaReader) pattern(s string) *regexp.Regexp {
	outside := strings.ReplaceAll(s, "[^", "[")
	if strings.ContainsAny(outside, "^$") || strings.Contains(s, "-[") || strings.Contains(s, "(?") || strings.Contains(s, `\p`) || strings.Contains(s, `\b`) || strings.Contains(s, "[[") || strings.Contains(s, "*?") || strings.Contains(s, "+?") {
		r.fail("the pattern %q: ^, $, classes of properties and subtraction are not taken", clip(s))
	}
	e, err := regexp.Compile("^(?:" + s + ")$")
	if err != nil {
		r.fail("the pattern %q: %v", clip(s), err)
	}
	return e
}

// clean gives a value of a simple type its one spelling, or refuses it.
func (t *simpleType) clean(s string, n *notes) (string, error) {
	var err error
	if t.base == "string" {
		if s, err = cleanString(s, n, "\n"); err != nil {
			return "", err
		}
	} else {
		s = strings.TrimSpace(s)
	}
	bad := refuse("", "%q does not meet its schema", clip(s))
	switch t.base {
	case "string":
		if c := utf8.RuneCountInString(s); c < t.min || t.max >= 0 && c > t.max {
			return "", bad
		}
	case "integer", "decimal":
		if len(s) > maxNumber || strings.Trim(strings.TrimPrefix(s, "-"), "0123456789.") != "" {
			return "", bad
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < t.from || f > t.to || t.base == "integer" && (f != math.Trunc(f) || strings.Contains(s, ".")) {
			return "", bad
		}
		if f == 0 {
			f = 0
		}
		s = strconv.FormatFloat(f, 'f', -1, 64)
	case "boolean":
		if s != "true" && s != "false" {
			return "", bad
		}
	case "date":
		if _, err := time.Parse(time.DateOnly, s); err != nil {
			return "", bad
		}
	case "dateTime":
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return "", bad
		}
		if s, err = spelled(v, time.RFC3339Nano, s, n); err != nil { // of a second nine digits at most
			return "", err
		}
	}
	if len(t.values) > 0 && !slices.Contains(t.values, s) {
		return "", bad
	}
	if len(t.expression) > 0 && !slices.ContainsFunc(t.expression, func(e *regexp.Regexp) bool { return e.MatchString(s) }) {
		return "", bad
	}
	return s, nil
}
