package label

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Read4774 reads one STANAG 4774 label. It is strict: the standard's namespace, its elements in their
// order, CreationDateTime with a time zone, a policy that is known by name and identifier, and in it every
// value; anything else is an error. Without known policies the built-in ones are known. A label with
// SuccessionHandling is refused, for what would come after it is not held here.
//
// Classified material without permissive values is for its owner alone. What is read may be no valid
// marking (see [Label.Valid]), and the document says nothing of who wrote it: its binding does.
func Read4774(r io.Reader, known ...*Policy) (Label, Meta4774, error) {
	fail := func(err error) (Label, Meta4774, error) {
		return Label{}, Meta4774{}, fmt.Errorf("read 4774 label: %w", err)
	}
	root, err := readXML(r)
	if err != nil {
		return fail(err)
	}
	meta, err := readMeta4774(root)
	if err != nil {
		return fail(err)
	}
	l, err := readLabel4774(root.child("ConfidentialityInformation"), &meta, known)
	if err != nil {
		return fail(err)
	}
	return l, meta, nil
}

func readMeta4774(root *element) (m Meta4774, err error) {
	if root.name.Space != namespace4774 {
		return m, root.errorf("is in namespace %q; a 4774 label is in %q", clip(root.name.Space), namespace4774)
	}
	for kind, name := range roots4774 {
		if root.name.Local == name {
			m.Kind = kind
		}
	}
	if m.Kind == 0 {
		return m, root.errorf("is no kind of confidentiality label")
	}
	if root.child("SuccessionHandling") != nil {
		return m, root.errorf("has SuccessionHandling, which is not supported")
	}
	err = root.conform(shape{attrs: "Id ReviewDateTime", ordered: true,
		children: "ConfidentialityInformation! OriginatorID? CreationDateTime!"})
	if err != nil {
		return m, err
	}
	if m.ID = root.attr("Id"); m.ID != "" && !ncName(m.ID) {
		return m, root.errorf("has an Id that is no XML name")
	}
	if s := root.attr("ReviewDateTime"); s != "" {
		if m.Review, err = time.Parse(time.RFC3339, s); err != nil {
			return m, root.errorf("has no proper ReviewDateTime: %q", clip(s))
		}
	}
	created := root.child("CreationDateTime")
	if err := created.conform(shape{text: true}); err != nil {
		return m, err
	}
	if m.Created, err = time.Parse(time.RFC3339, created.text); err != nil || m.Created.IsZero() {
		return m, created.errorf("is no time with a time zone: %q", clip(created.text))
	}
	if o := root.child("OriginatorID"); o != nil {
		if err := o.conform(shape{attrs: "IDType!", text: true}); err != nil {
			return m, err
		}
		m.Originator, m.OriginatorID = o.text, strings.TrimSpace(o.attr("IDType"))
		if m.Originator == "" || m.OriginatorID == "" {
			return m, o.errorf("is empty")
		}
	}
	m.Created, m.Review = m.Created.UTC().Truncate(time.Second), m.Review.UTC().Truncate(time.Second)
	return m, nil
}

func readLabel4774(info *element, meta *Meta4774, known []*Policy) (Label, error) {
	err := info.conform(shape{ordered: true, children: "PolicyIdentifier! Classification! PrivacyMark? Category"})
	if err != nil {
		return Label{}, err
	}
	p, err := policy4774(info.child("PolicyIdentifier"), known)
	if err != nil {
		return Label{}, err
	}
	word := info.child("Classification")
	if err := word.conform(shape{attrs: "URI", text: true}); err != nil {
		return Label{}, err
	}
	c := slices.IndexFunc(p.classes, func(c class) bool { return c.name == word.text })
	if c < 0 {
		return Label{}, word.errorf("names %q, which is no classification of policy %s", clip(word.text), p.name)
	}
	if mark := info.child("PrivacyMark"); mark != nil {
		if err := mark.conform(shape{text: true}); err != nil {
			return Label{}, err
		}
		meta.PrivacyMark = mark.text
	}
	r := &reader4774{p: p, l: Label{policy: p, class: uint8(c), rank: p.classes[c].rank}, seen: map[string]bool{}}
	for _, e := range info.all("Category") {
		if err := r.category(e); err != nil {
			return Label{}, err
		}
	}
	l := &r.l
	if !r.released {
		l.audience, l.all = p.defaultAudience(l)
	}
	switch {
	case l.owner == ownOwner && p.classes[c].foreign:
		return Label{}, word.errorf("names %q, which is not for %s material", word.text, p.nation)
	case l.all && l.rank > 0:
		return Label{}, word.errorf("names %q, which cannot be for ALL", word.text)
	case l.owner != ownOwner && l.fgiSeen || l.owner == uint16(p.home+1):
		return Label{}, info.errorf("has an owner that needs no naming, or another owner and FGI")
	}
	p.closeCUI(l)
	l.spell(r.spelled)
	if l.spelling != r.spelled && r.spelled != spellPlain {
		return Label{}, info.errorf("spells its audience as %q, which it is not", releaseWords[r.spelled])
	}
	return *l, nil
}

func policy4774(e *element, known []*Policy) (*Policy, error) {
	if err := e.conform(shape{attrs: "URI", text: true}); err != nil {
		return nil, err
	}
	if len(known) == 0 {
		for _, name := range BuiltinNames() {
			p, err := Builtin(name)
			if err != nil {
				return nil, err
			}
			known = append(known, p)
		}
	}
	for _, p := range known {
		if p != nil && p.name == e.text && (e.attr("URI") == "" || e.attr("URI") == "urn:oid:"+p.oid) {
			return p, nil
		}
	}
	return nil, e.errorf("names %q (%s), which is no policy that is known here", clip(e.text), clip(e.attr("URI")))
}

// reader4774 gathers the categories of a label.
type reader4774 struct {
	p        *Policy
	l        Label
	seen     map[string]bool // kind, tag and value
	released bool
	owners   nationSet
	spelled  spelling
}

func (r *reader4774) category(e *element) error {
	if err := e.conform(shape{attrs: "Type! TagName! URI", children: "GenericValue"}); err != nil {
		return err
	}
	kind, tag := e.attr("Type"), e.attr("TagName")
	if uri, id := e.attr("URI"), r.p.setIDs[tag]; uri != "" && uri != "urn:oid:"+id {
		return e.errorf("has the URI %q, which is not that of %q", clip(uri), clip(tag))
	}
	if len(e.children) == 0 {
		return e.errorf("has no value")
	}
	for _, v := range e.children {
		if err := v.conform(shape{text: true}); err != nil {
			return err
		}
		key := kind + "\x00" + tag + "\x00" + v.text
		if r.seen[key] {
			return v.errorf("gives %q twice", clip(v.text))
		}
		r.seen[key] = true
		if !r.value(kind, tag, v.text) {
			return v.errorf("gives %q, which is no %s value of %q in policy %s", clip(v.text), clip(kind), clip(tag), r.p.name)
		}
	}
	return nil
}

// value takes one value into the label, and reports whether the policy has it.
func (r *reader4774) value(kind, tag, v string) bool {
	p, l := r.p, &r.l
	switch kind {
	case "RESTRICTIVE":
		i := slices.IndexFunc(p.cats, func(c category) bool { return c.set == tag && c.spif == v })
		if i >= 0 {
			l.cats = l.cats.join(p.cats[i].implies)
		}
		return i >= 0
	case "PERMISSIVE":
		if tag != p.releaseSet {
			return false
		}
		first := !r.released
		r.released = true
		if v == "ALL" || v == "NONE" {
			l.all = v == "ALL"
			r.seen[kind] = true // nothing may follow
			return first
		}
		return !r.seen[kind] && r.nation(v, &l.audience)
	case "INFORMATIVE":
		return r.informative(tag, v)
	}
	return false
}

func (r *reader4774) informative(tag, v string) bool {
	p, l := r.p, &r.l
	i := slices.IndexFunc(p.marks, func(m mark) bool { return m.set == tag && m.spif == v })
	if i >= 0 {
		if p.marks[i].structural() {
			return false
		}
		l.marks.add(i)
		return true
	}
	_, usa := p.grammar.(*usaGrammar)
	switch {
	case tag == tagRelease:
		for s, word := range releaseWords {
			if word == v && r.spelled == spellPlain {
				r.spelled = s
				return true
			}
		}
	case !usa: // the rest is of that grammar alone
	case tag == tagDisplay:
		return r.nation(v, &l.display)
	case tag == tagFGI:
		first := !l.fgiSeen
		l.fgiSeen = true
		if v == "FGI" {
			r.seen[tagFGI] = true
			return first
		}
		return !r.seen[tagFGI] && v != p.nation && r.nation(v, &l.fgi)
	case tag == tagOwner:
		n := slices.IndexFunc(p.nations, func(n nation) bool { return n.spif == v })
		if n < 0 {
			return false
		}
		if r.owners.add(n); r.owners.count() > 1 {
			l.owner, l.fgi = jointOwner, r.owners
			return true
		}
		l.owner = uint16(n + 1)
		return true
	}
	return false
}

func (r *reader4774) nation(v string, s *nationSet) bool {
	i := slices.IndexFunc(r.p.nations, func(n nation) bool { return n.spif == v })
	if i < 0 {
		return false
	}
	s.add(i)
	return true
}
