package ztdf

import (
	"fmt"
	"strings"

	"redoubt"
)

// Names of the attributes that a label becomes.
const (
	attrClassification = "classification"
	attrCategory       = "category"
	attrReleasable     = "releasable-to"
)

// Attributes are what a partner's service decides by: the label's classification, each of its categories and each nation that it is
// releasable to, as NAMESPACE/attr/NAME/value/VALUE. They stand for the label and are not the label: that is in the assertion.
func Attributes(namespace, classification string, categories, releasableTo []string) ([]string, error) {
	if !httpURL(namespace) || strings.HasSuffix(namespace, "/") || strings.Contains(namespace, "/attr/") {
		return nil, &redoubt.Error{Op: "ztdf", Kind: redoubt.Invalid, Err: fmt.Errorf("%q is no namespace of attributes", clip(namespace)), Hint: "such as https://label.gbr.example; the partner's service knows it"}
	}
	var out []string
	add := func(name, value string) {
		out = append(out, namespace+"/attr/"+name+"/value/"+attributeValue(value))
	}
	add(attrClassification, classification)
	for _, c := range categories {
		add(attrCategory, c)
	}
	for _, n := range releasableTo {
		add(attrReleasable, n)
	}
	return out, nil
}

// attributeValue spells a policy's word with what an attribute's value may have: lower case letters, digits and "-" as they are, "_"
// for a space, "_xHEX_" for anything else. Two words that differ in more than capitals never have one spelling.
func attributeValue(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('_')
		default:
			fmt.Fprintf(&b, "_x%x_", r)
		}
	}
	return b.String()
}

// validFQN says whether an attribute has the form NAMESPACE/attr/NAME/value/VALUE.
func validFQN(s string) bool {
	ns, rest, ok := strings.Cut(s, "/attr/")
	name, value, two := strings.Cut(rest, "/value/")
	return ok && two && len(s) <= MaxTextBytes && httpURL(ns) && name != "" && value != "" && printable(s) && !strings.ContainsAny(name+value, "/?# ")
}
