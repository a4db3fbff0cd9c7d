package s3

import (
	"bytes"
	"encoding/xml"
	"io"
	"strconv"
	"strings"
)

// element is a node of a request document. S3's documents are small, and are read whole and strictly: an unknown
// element, a repeated one that is not a list, mixed content, a DTD or an entity is an error.
type element struct {
	name string
	text string
	kids []element
}

// parseXML reads a document whose root has one of the given names.
func parseXML(body []byte, roots ...string) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errMalformedXML } // UTF-8 alone
	p := xmlParser{d: d}
	root, err := p.document()
	if err != nil {
		return nil, err
	}
	for _, name := range roots {
		if root.name == name {
			return root, nil
		}
	}
	return nil, malformed(root.name)
}

type xmlParser struct {
	d     *xml.Decoder
	nodes int
}

func (p *xmlParser) document() (*element, error) {
	var root *element
	for first := true; ; first = false {
		token, err := p.d.Token()
		if err == io.EOF && root != nil {
			return root, nil
		}
		if err != nil {
			return nil, errMalformedXML
		}
		switch t := token.(type) {
		case xml.StartElement:
			if root != nil {
				return nil, errMalformedXML
			}
			e, err := p.element(t, 1)
			if err != nil {
				return nil, err
			}
			root = &e
		case xml.ProcInst:
			if !first || t.Target != "xml" {
				return nil, errMalformedXML
			}
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return nil, errMalformedXML
			}
		case xml.Comment:
		default: // a directive: DOCTYPE and what hides in it
			return nil, errMalformedXML
		}
	}
}

func (p *xmlParser) element(start xml.StartElement, depth int) (element, error) {
	e := element{name: start.Name.Local}
	if p.nodes++; depth > maxXMLDepth || p.nodes > maxXMLNodes {
		return e, errMalformedXML
	}
	if err := checkNames(start); err != nil {
		return e, err
	}
	for {
		token, err := p.d.Token()
		if err != nil {
			return e, errMalformedXML
		}
		switch t := token.(type) {
		case xml.StartElement:
			kid, err := p.element(t, depth+1)
			if err != nil {
				return e, err
			}
			e.kids = append(e.kids, kid)
		case xml.EndElement:
			if len(e.kids) > 0 && strings.TrimSpace(e.text) != "" {
				return e, malformed(e.name)
			}
			return e, nil
		case xml.CharData:
			e.text += string(t)
		case xml.Comment:
		default:
			return e, errMalformedXML
		}
	}
}

// checkNames allows S3's namespace or none, and of attributes only declarations of namespaces and xsi:type.
func checkNames(start xml.StartElement) error {
	if s := start.Name.Space; s != "" && s != xmlNamespace && s != strings.TrimSuffix(xmlNamespace, "/") {
		return malformed(start.Name.Local)
	}
	for _, a := range start.Attr {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" && a.Name.Local != "type" {
			return malformed(start.Name.Local)
		}
	}
	return nil
}

// each hands every child to f by name; f refuses what it does not know with e.unknown.
func (e *element) each(f func(kid *element) error) error {
	for i := range e.kids {
		if err := f(&e.kids[i]); err != nil {
			return err
		}
	}
	return nil
}

// fields reads a document whose children are all different: each into its own place; any other is an error.
func (e *element) fields(places map[string]func(*element) error) error {
	seen := make(map[string]bool, len(e.kids))
	return e.each(func(kid *element) error {
		place := places[kid.name]
		if place == nil || seen[kid.name] {
			return malformed(kid.name)
		}
		seen[kid.name] = true
		return place(kid)
	})
}

// into reads the text of a leaf.
func into(s *string) func(*element) error {
	return func(e *element) error {
		if len(e.kids) > 0 {
			return malformed(e.name)
		}
		*s = e.text
		return nil
	}
}

// intoInt reads a leaf that holds a number from low to high.
func intoInt(n *int, low, high int) func(*element) error {
	return func(e *element) error {
		v, err := strconv.Atoi(strings.TrimSpace(e.text))
		if err != nil || len(e.kids) > 0 || v < low || v > high {
			return malformed(e.name)
		}
		*n = v
		return nil
	}
}

// intoBool reads true or false.
func intoBool(b *bool) func(*element) error {
	return func(e *element) error {
		switch strings.TrimSpace(e.text) {
		case "true":
			*b = true
		case "false":
			*b = false
		default:
			return malformed(e.name)
		}
		return nil
	}
}

// ignored reads a leaf whose value does not matter.
func ignored(e *element) error {
	if len(e.kids) > 0 {
		return malformed(e.name)
	}
	return nil
}

// readDocument reads a small XML body that is a setting.
func (c *call) readDocument(roots ...string) (*element, error) {
	body, _, err := c.readSmall(maxXMLBytes)
	if err != nil {
		return nil, tooLargeXML(err)
	}
	return parseXML(body, roots...)
}

// tooLargeXML is what S3 calls a document that passes its limit.
func tooLargeXML(err error) error {
	if own, ok := err.(*apiError); ok && own.code == errEntityTooLarge.code {
		return errMalformedXML.say("The XML you provided is too large.")
	}
	return err
}
