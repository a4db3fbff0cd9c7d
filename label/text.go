package label

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// MarshalText writes a label so that it can be read back exactly: POLICY@VERSION, a space, and the
// canonical banner, as in
//
//	USA@1 TOP SECRET//SI/TK//NOFORN
//
// Every label has such a text: those that joins, meets and clearances make, too, since a banner can say any
// audience. In POLICY and VERSION a byte other than a letter, a digit or one of -_.~ is written %XX, as in a
// URL's path. The zero Label has no text and is an error.
func (l Label) MarshalText() ([]byte, error) {
	if l.policy == nil {
		return nil, errors.New("an unmarked label has no text")
	}
	return []byte(l.policy.ref() + " " + l.Banner()), nil
}

// ref is POLICY@VERSION.
func (p *Policy) ref() string { return escape(p.name) + "@" + escape(p.version) }

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// ParseText reads what MarshalText wrote. The label is of the known policy with that very name and
// version; without known policies, of the built-in one. Any other policy or version is an error, and so is
// a text that is not canonical: there is one text for a label.
func ParseText(b []byte, known ...*Policy) (Label, error) {
	if len(b) > MaxMarkingBytes+2*3*maxPhraseBytes {
		return Label{}, errors.New("the text of a label is too long")
	}
	ref, marking, ok := strings.Cut(string(b), " ")
	if !ok {
		return Label{}, fmt.Errorf("%q is not POLICY@VERSION MARKING", clip(string(b)))
	}
	p, err := policyOf(ref, known)
	if err != nil {
		return Label{}, err
	}
	l, err := p.read(marking, nil, false)
	if err != nil {
		return Label{}, err
	}
	if l.Banner() != marking {
		return Label{}, fmt.Errorf("%q is not in canonical form: %q", clip(marking), clip(l.Banner()))
	}
	return l, nil
}

func policyOf(ref string, known []*Policy) (*Policy, error) {
	for _, p := range known {
		if p != nil && p.ref() == ref {
			return p, nil
		}
	}
	if len(known) == 0 {
		name, _, _ := strings.Cut(ref, "@")
		if p, err := Builtin(name); err == nil && p.ref() == ref {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%q is no policy and version that is known here", clip(ref))
}
