package filter

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"reflect"
	"slices"
	"strings"

	"redoubt/guard"
	"redoubt/sandbox"
)

// node is an element as it was read: attributes without double, and either text or children.
type node struct {
	name     string
	attrs    map[string]string
	children []*node
	text     string
}

// cleanXML writes XML anew: elements, attributes in order, text, each in one spelling. It must meet the closed schema.
func cleanXML(in, schema []byte, n *notes) ([]byte, error) {
	s, err := readXSD(schema)
	if err != nil {
		return nil, err
	}
	root, err := readXML(in, n, "")
	if err != nil {
		return nil, err
	}
	if root.name != s.root.name {
		return nil, refuse("", "its root is %q, and the schema has %q", clip(root.name), s.root.name)
	}
	if err := s.cleanElement(root, s.root, n); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
	writeXML(&b, root)
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// cleanElement holds an element against its declaration, and gives all values in it their one spelling.
func (s *xsd) cleanElement(e *node, d *element, n *notes) (err error) {
	t, simple := d.complex, d.simple
	if d.kind != "" {
		t, simple = s.complex[d.kind], s.simple[d.kind]
	}
	if simple != nil {
		t = &complexType{text: simple}
	}
	bad := func(what, name string) error {
		return refuse("", "%q in element %q: %s", clip(name), clip(e.name), what)
	}
	for name := range e.attrs {
		if !slices.ContainsFunc(t.attrs, func(a attribute) bool { return a.name == name }) {
			return bad("the schema has no such attribute", name)
		}
	}
	for _, a := range t.attrs {
		v, ok := e.attrs[a.name]
		if !ok && a.required {
			return bad("the attribute is missing", a.name)
		}
		if ok {
			if e.attrs[a.name], err = a.simple.clean(v, n); err != nil {
				return err
			}
		}
	}
	if t.text != nil {
		if len(e.children) > 0 {
			return bad("an element where text stands", e.children[0].name)
		}
		e.text, err = t.text.clean(e.text, n)
		return err
	}
	if strings.TrimSpace(e.text) != "" {
		return bad("text where none stands", e.text)
	}
	e.text = ""
	return s.cleanChildren(e, t, n)
}

// cleanChildren holds the elements within one against its sequence or choice. The names of a closed schema decide by themselves which
// declaration an element is of.
func (s *xsd) cleanChildren(e *node, t *complexType, n *notes) error {
	at, chosen := 0, 0
	for _, d := range t.elements {
		count := 0
		for at < len(e.children) && e.children[at].name == d.name && count < d.max {
			if err := s.cleanElement(e.children[at], d, n); err != nil {
				return err
			}
			at++
			count++
		}
		if count > 0 {
			chosen++
		}
		if count < d.min && (!t.choice || count > 0) {
			return refuse("", "element %q in %q stands %d times, and %d it must", d.name, clip(e.name), count, d.min)
		}
	}
	if at < len(e.children) {
		return refuse("", "element %q in %q: the schema has none there", clip(e.children[at].name), clip(e.name))
	}
	if t.choice && (chosen > 1 || chosen == 0 && !slices.ContainsFunc(t.elements, func(d *element) bool { return d.min == 0 })) {
		return refuse("", "element %q has one of a choice", clip(e.name))
	}
	return nil
}

var (
	escapeText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	escapeAttr = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\n", "&#10;", "\t", "&#9;")
)

func writeXML(b *bytes.Buffer, e *node) {
	b.WriteString("<" + e.name)
	names := make([]string, 0, len(e.attrs))
	for name := range e.attrs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString(" " + name + `="` + escapeAttr.Replace(e.attrs[name]) + `"`)
	}
	if e.text == "" && len(e.children) == 0 {
		b.WriteString("/>")
		return
	}
	b.WriteByte('>')
	b.WriteString(escapeText.Replace(e.text))
	for _, c := range e.children {
		writeXML(b, c)
	}
	b.WriteString("</" + e.name + ">")
}

// schemaPath is where libxml2 finds the schema, inside.
const schemaPath = "/schema.xsd"

// xmlProgram gives a program the schema of one content.
func xmlProgram(p sandbox.Program, c guard.Content) sandbox.Program {
	p.Files = map[string][]byte{schemaPath: c.Schema}
	return p
}

// sameXML agrees where two documents have the same elements, attributes and text.
func sameXML(_ context.Context, in, out []byte) error {
	a, b := xml.NewDecoder(bytes.NewReader(in)), xml.NewDecoder(bytes.NewReader(out))
	for {
		x, errX := part(a)
		y, errY := part(b)
		if errX == io.EOF && errY == io.EOF {
			return nil
		}
		if errX != nil || errY != nil || !reflect.DeepEqual(x, y) {
			return refuse("", "the two code bases do not agree on it")
		}
	}
}

// part is the next token that is not white space or the declaration.
func part(d *xml.Decoder) (xml.Token, error) {
	for {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		t = xml.CopyToken(t)
		if c, ok := t.(xml.CharData); ok && len(bytes.TrimSpace(c)) == 0 {
			continue
		}
		if p, ok := t.(xml.ProcInst); ok && p.Target == "xml" {
			continue
		}
		return t, nil
	}
}

// readXML reads a document as nodes: elements without namespaces (or all of the one that is given), attributes and text, nothing else.
func readXML(b []byte, n *notes, namespace string) (*node, error) {
	text, err := decode(b, n)
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader([]byte(text)))
	d.Strict = true
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) {
		return nil, refuse("write it in UTF-8", "another encoding than UTF-8")
	}
	var root *node
	var open []*node
	for values := 0; ; values++ {
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			if _, ok := err.(*refusal); ok {
				return nil, err
			}
			return nil, refuse("", "it is not XML: %v", err)
		}
		if values > maxValues {
			return nil, refuse("", "more than %d parts", maxValues)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if root != nil && len(open) == 0 {
				return nil, refuse("", "something follows the document")
			}
			if len(open) == maxDepth {
				return nil, refuse("", "more than %d elements in one another", maxDepth)
			}
			e, err := elementOf(t, namespace)
			if err != nil {
				return nil, err
			}
			if root == nil {
				root = e
			} else {
				up := open[len(open)-1]
				up.children = append(up.children, e)
			}
			open = append(open, e)
		case xml.EndElement:
			e := open[len(open)-1]
			if open = open[:len(open)-1]; len(e.children) > 0 || strings.TrimSpace(e.text) == "" && len(e.text) > 0 {
				if e.text = strings.TrimSpace(e.text); e.text != "" {
					return nil, refuse("", "text beside elements, in %q", clip(e.name))
				}
			}
		case xml.CharData:
			switch {
			case len(open) > 0:
				open[len(open)-1].text += string(t)
			case strings.TrimSpace(string(t)) != "":
				return nil, refuse("", "text outside of the document")
			}
		case xml.ProcInst:
			if t.Target != "xml" || root != nil {
				return nil, refuse("", "a processing instruction %q", clip(t.Target))
			}
		case xml.Comment:
			return nil, refuse("take comments out", "a comment")
		case xml.Directive:
			return nil, refuse("take the document type out", "a document type or an entity")
		}
	}
	if root == nil {
		return nil, refuse("", "it is not XML: no element")
	}
	return root, nil
}

// elementOf is an element with its attributes.
func elementOf(t xml.StartElement, namespace string) (*node, error) {
	if t.Name.Space != namespace || len(t.Name.Local) > maxKeyBytes {
		return nil, refuse("", "an element %q of namespace %q", clip(t.Name.Local), clip(t.Name.Space))
	}
	e := &node{name: t.Name.Local, attrs: map[string]string{}}
	for _, a := range t.Attr {
		if namespace != "" && a.Name.Space == "xmlns" && a.Name.Local == "xs" && a.Value == namespace {
			continue
		}
		if _, twice := e.attrs[a.Name.Local]; twice || a.Name.Space != "" || a.Name.Local == "xmlns" || len(a.Name.Local) > maxKeyBytes {
			return nil, refuse("", "an attribute %q that stands twice, or of a namespace", clip(a.Name.Local))
		}
		e.attrs[a.Name.Local] = a.Value
	}
	return e, nil
}
