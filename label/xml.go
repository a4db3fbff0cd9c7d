package label

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits on XML. A full national policy is under 200 KB and five deep.
const (
	MaxXMLBytes    = 1 << 20
	MaxXMLDepth    = 16
	MaxXMLElements = 20000
	maxXMLAttrs    = 32
)

// element is one XML element, read strictly.
type element struct {
	name     xml.Name
	attrs    []xml.Attr
	children []*element
	text     string
	raw      []byte // the text as it is gathered
	line     int
}

// readXML reads one XML document into a tree. It refuses what a label or a policy never needs and an
// attacker does: DTDs and entities, processing instructions, attributes given twice, undeclared prefixes,
// text between elements, anything after the root, and more than the limits.
func readXML(r io.Reader) (*element, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxXMLBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxXMLBytes {
		return nil, fmt.Errorf("is larger than %d bytes", MaxXMLBytes)
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	d.Strict = true
	var root *element
	var open []*element
	count := 0
	for {
		line, _ := d.InputPos()
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		fail := func(why string, args ...any) (*element, error) {
			return nil, fmt.Errorf("line %d: %s", line, fmt.Sprintf(why, args...))
		}
		switch tok := tok.(type) {
		case xml.Directive:
			return fail("a DTD is not accepted")
		case xml.ProcInst:
			if tok.Target != "xml" || root != nil || count > 0 || len(open) > 0 {
				return fail("processing instruction %q is not accepted", tok.Target)
			}
		case xml.StartElement:
			if count++; count > MaxXMLElements {
				return fail("more than %d elements", MaxXMLElements)
			}
			if len(open) >= MaxXMLDepth {
				return fail("elements are nested deeper than %d", MaxXMLDepth)
			}
			e, err := newElement(tok, line)
			if err != nil {
				return fail("%v", err)
			}
			switch {
			case len(open) > 0:
				up := open[len(open)-1]
				up.children = append(up.children, e)
			case root != nil:
				return fail("<%s> stands after the end of the document", e.name.Local)
			default:
				root = e
			}
			open = append(open, e)
		case xml.EndElement:
			e := open[len(open)-1]
			open = open[:len(open)-1]
			if len(e.children) > 0 && len(bytes.TrimSpace(e.raw)) > 0 {
				return fail("text stands between the elements of <%s>", e.name.Local)
			}
			e.text, e.raw = string(bytes.TrimSpace(e.raw)), nil
		case xml.CharData:
			if len(open) == 0 {
				if len(bytes.TrimSpace(tok)) > 0 {
					return fail("text stands outside the document")
				}
				continue
			}
			up := open[len(open)-1]
			up.raw = append(up.raw, tok...)
		}
	}
	if root == nil {
		return nil, errors.New("is not an XML document")
	}
	return root, nil
}

func newElement(tok xml.StartElement, line int) (*element, error) {
	e := &element{name: tok.Name, line: line}
	if len(tok.Attr) > maxXMLAttrs {
		return nil, fmt.Errorf("<%s> has more than %d attributes", tok.Name.Local, maxXMLAttrs)
	}
	for i, a := range tok.Attr {
		for _, b := range tok.Attr[:i] {
			if a.Name == b.Name {
				return nil, fmt.Errorf("<%s> has the attribute %s twice", tok.Name.Local, a.Name.Local)
			}
		}
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			continue
		}
		e.attrs = append(e.attrs, a)
	}
	return e, nil
}

// attr is the value of the unqualified attribute, "" when it is absent.
func (e *element) attr(name string) string {
	for _, a := range e.attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// errorf is an error at the element's line.
func (e *element) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: <%s> %s", e.line, e.name.Local, fmt.Sprintf(format, args...))
}

// shape is what an element may hold.
type shape struct {
	attrs    string // allowed attributes; a ! after the name: required
	children string // allowed children in the element's own namespace; a ! : exactly one, a ? : at most one
	text     bool   // text is allowed
	lang     bool   // xml:lang is allowed
	ordered  bool   // the children stand in the order of the list
}

const xmlNamespace = "http://www.w3.org/XML/1998/namespace"

// conform checks e against s: the standards that this package reads are closed, so what s does not name is refused.
func (e *element) conform(s shape) error {
	allowed := map[string]bool{}
	for _, a := range strings.Fields(s.attrs) {
		name, required := strings.CutSuffix(a, "!")
		allowed[name] = true
		if required && e.attr(name) == "" {
			return e.errorf("has no attribute %s", name)
		}
	}
	for _, a := range e.attrs {
		switch {
		case a.Name.Space == "" && allowed[a.Name.Local]:
		case s.lang && a.Name == xml.Name{Space: xmlNamespace, Local: "lang"}:
		default:
			return e.errorf("has the unknown attribute %s", a.Name.Local)
		}
	}
	count := map[string]int{}
	for _, c := range e.children {
		if c.name.Space == e.name.Space {
			count[c.name.Local]++
		} else {
			return c.errorf("is in namespace %q, not %q", c.name.Space, e.name.Space)
		}
	}
	known := map[string]bool{}
	for _, c := range strings.Fields(s.children) {
		name := strings.TrimRight(c, "!?")
		known[name] = true
		if strings.HasSuffix(c, "!") && count[name] == 0 {
			return e.errorf("has no <%s>", name)
		}
		if name != c && count[name] > 1 {
			return e.errorf("has more than one <%s>", name)
		}
	}
	for _, c := range e.children {
		if !known[c.name.Local] {
			return c.errorf("is not known inside <%s>", e.name.Local)
		}
	}
	if s.ordered {
		list, at := strings.Fields(s.children), 0
		for _, c := range e.children {
			for strings.TrimRight(list[at], "!?") != c.name.Local {
				if at++; at == len(list) {
					return c.errorf("stands out of its place in <%s>", e.name.Local)
				}
			}
		}
	}
	if !s.text && e.text != "" {
		return e.errorf("has text, which it may not")
	}
	return nil
}

// child is the first child of that name in e's namespace, or nil.
func (e *element) child(name string) *element {
	for _, c := range e.children {
		if c.name.Local == name && c.name.Space == e.name.Space {
			return c
		}
	}
	return nil
}

// all are the children of that name in e's namespace.
func (e *element) all(name string) []*element {
	var out []*element
	for _, c := range e.children {
		if c.name.Local == name && c.name.Space == e.name.Space {
			out = append(out, c)
		}
	}
	return out
}
