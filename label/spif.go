package label

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Namespaces of a policy file.
const (
	spifNamespace = "http://www.xmlspif.org/spif"
	spifOurs      = "urn:redoubt:spif:1" // what SPIF has no word for, inside <extensions>
)

// Limits on a policy, beside those on XML.
const (
	maxClasses     = 32
	maxPhraseBytes = 128
	maxReferences  = 1 << 16 // of required and excluded categories to others, all of a set counted singly
)

// ReadSPIF reads a marking policy from an Open XML SPIF 2.1 file (schemaVersion 2.0, which has the same
// elements, is read too; 3.0 is another format and refused). It is strict: an element or attribute that
// the format does not name, a reference to nothing, two things with one spelling, or a digit too many
// anywhere is an error, and there is no policy then.
//
// Of the tag types, restrictive ones (also enumerated with enumType restrictive) become categories,
// tagType7 marks, and the permissive one the audience: a policy with several permissive tags has no single
// audience and is refused. Equivalences that the file states are checked for form and not used: see [Equivalence].
//
// What SPIF cannot say stands in <extensions> as one <policy xmlns="urn:redoubt:spif:1"> element: nation
// (the owner; without it the policy's own name is an audience of its own), grammar (usa or plain), and
//
//	<open classification="UNCLASSIFIED"/>           without a word on release it is for ALL
//	<foreign classification="RESTRICTED"/>          never own material's
//	<ownerOnly phrase="NOFORN" portion="NF"/>       the word for "the owner's nation alone"
//	<nations list="GENC"/>                          all country codes join the audience's vocabulary
//	<group name="FVEY" members="AUS CAN …"/>        read as its members
//	<rollUp mark="RELIDO" rule="all|widens|unless" other="ORCON"/>
//
// A refused file is best told to whoever wrote it: the error names the line.
func ReadSPIF(r io.Reader) (*Policy, error) {
	root, err := readXML(r)
	if err != nil {
		return nil, fmt.Errorf("read SPIF: %w", err)
	}
	p, err := newPolicy(root)
	if err != nil {
		return nil, fmt.Errorf("read SPIF: %w", err)
	}
	return p, nil
}

// spifReader gathers a policy; references are resolved when all is known.
type spifReader struct {
	p         *Policy
	tagItems  []spifItem
	permitted *element // the one permissive tag
	ours      *element
	refs      int // references resolved so far
}

// spifItem is a tagCategory with what it points at.
type spifItem struct {
	set, tagType, lacv string
	ref                ref
	e                  *element
}

// oidOK reports whether s is an object identifier in dotted form.
func oidOK(s string) bool {
	arcs := strings.Split(s, ".")
	if len(arcs) < 2 || len(s) > maxPhraseBytes || len(arcs[0]) != 1 || arcs[0] > "2" {
		return false
	}
	for _, a := range arcs {
		if !digits(a, 39) || len(a) > 1 && a[0] == '0' { // 39 digits hold a UUID
			return false
		}
	}
	return true
}

// digits reports whether s is 1 to n decimal digits.
func digits(s string, n int) bool {
	return s != "" && len(s) <= n && strings.Trim(s, "0123456789") == ""
}

func newPolicy(root *element) (*Policy, error) {
	switch {
	case root.name.Local != "SPIF":
		return nil, root.errorf("is not the root of a policy; <SPIF> is")
	case root.name.Space != spifNamespace:
		return nil, root.errorf("is in namespace %q; SPIF 2.1 is %q", root.name.Space, spifNamespace)
	case strings.HasPrefix(root.attr("schemaVersion"), "3"):
		return nil, root.errorf("has schemaVersion %s; this reads 2.1, and 3.0 is another format", root.attr("schemaVersion"))
	case root.attr("schemaVersion") != "2.1" && root.attr("schemaVersion") != "2.0":
		return nil, root.errorf("has schemaVersion %q; this reads 2.1", root.attr("schemaVersion"))
	}
	err := root.conform(shape{
		attrs:    "schemaVersion! version creationDate originatorDN keyIdentifier privilegeId rbacId",
		children: "defaultSecurityPolicyId? securityPolicyId! equivalentPolicies? securityClassifications! securityCategoryTagSets? markingQualifier markingData extensions?",
	})
	if err != nil {
		return nil, err
	}
	r := &spifReader{p: &Policy{home: -1, setIDs: map[string]string{}, releaseSet: "Releasable To"}}
	r.p.version = root.attr("version")
	if r.p.version == "" {
		r.p.version = root.attr("creationDate")
	}
	if r.p.version == "" || len(r.p.version) > maxPhraseBytes {
		return nil, root.errorf("has neither version nor creationDate, or one that is too long")
	}
	steps := []func(*element) error{
		r.identity, r.extensions, r.classifications, r.tagSets, r.nations, r.references, r.marksAndGroups,
	}
	for _, step := range steps {
		if err := step(root); err != nil {
			return nil, err
		}
	}
	if err := r.p.index(); err != nil {
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	return r.p, nil
}

func (r *spifReader) identity(root *element) error {
	for _, name := range []string{"securityPolicyId", "defaultSecurityPolicyId"} {
		e := root.child(name)
		if e == nil {
			continue
		}
		if err := e.conform(shape{attrs: "name! id!"}); err != nil {
			return err
		}
		if !oidOK(e.attr("id")) {
			return e.errorf("has an id that is no object identifier: %q", e.attr("id"))
		}
		if err := e.phraseOK(e.attr("name")); err != nil {
			return err
		}
	}
	e := root.child("securityPolicyId")
	r.p.name, r.p.oid = e.attr("name"), e.attr("id")
	for _, q := range root.all("markingQualifier") {
		if err := checkQualifier(q); err != nil {
			return err
		}
	}
	for _, m := range root.all("markingData") { // how the policy's name is shown, which no marking here does
		if err := m.conform(shape{attrs: "phrase", children: "code", lang: true}); err != nil {
			return err
		}
	}
	eq := root.child("equivalentPolicies")
	if eq == nil {
		return nil
	}
	if err := eq.conform(shape{children: "equivalentPolicy"}); err != nil {
		return err
	}
	for _, c := range eq.children {
		if err := c.conform(shape{attrs: "name! id!", children: "requiredCategory"}); err != nil {
			return err
		}
	}
	return nil
}

// phraseOK refuses a phrase that could not stand in a marking.
func (e *element) phraseOK(s string) error {
	if s == "" || len(s) > maxPhraseBytes || fold(s) == "" || strings.Contains(s, "//") || strings.ContainsAny(s, "\n\r,()") ||
		strings.TrimSpace(s) != s {
		return e.errorf("has a name or phrase that cannot stand in a marking: %q", clip(s))
	}
	return nil
}

func (r *spifReader) classifications(root *element) error {
	list := root.child("securityClassifications")
	if err := list.conform(shape{children: "securityClassification"}); err != nil {
		return err
	}
	if len(list.children) == 0 || len(list.children) > maxClasses {
		return list.errorf("holds %d classifications; 1 to %d are possible", len(list.children), maxClasses)
	}
	hierarchy := map[*element]int{}
	var heights []int
	for _, e := range list.children {
		err := e.conform(shape{attrs: "name! lacv! hierarchy! color obsolete",
			children: "equivalentClassification markingData markingQualifier requiredCategory"})
		if err != nil {
			return err
		}
		h, err := strconv.Atoi(e.attr("hierarchy"))
		if err != nil || h < 0 || h > 1<<20 {
			return e.errorf("has the hierarchy %q", e.attr("hierarchy"))
		}
		hierarchy[e] = h
		heights = append(heights, h)
	}
	slices.Sort(heights)
	heights = slices.Compact(heights)
	slices.SortStableFunc(list.children, func(a, b *element) int { return hierarchy[a] - hierarchy[b] })
	for _, e := range list.children {
		w, replaces, err := e.spellings()
		if err != nil {
			return err
		}
		if replaces {
			return e.errorf("suppresses its own name")
		}
		if r.classByName(w.name) >= 0 {
			return e.errorf("is a second classification named %q", w.name)
		}
		rank, _ := slices.BinarySearch(heights, hierarchy[e])
		c := class{phrases: w, lacv: e.attr("lacv"), rank: uint8(rank)}
		if err := e.lacvOK(); err != nil {
			return err
		}
		for _, old := range r.p.classes {
			if old.lacv == c.lacv {
				return e.errorf("has the lacv of %s", old.name)
			}
		}
		for _, eq := range e.all("equivalentClassification") {
			if err := eq.conform(shape{attrs: "policyRef! lacv! applied!", children: "requiredCategory"}); err != nil {
				return err
			}
		}
		r.p.classes = append(r.p.classes, c)
	}
	return nil
}

func (e *element) lacvOK() error {
	if !digits(e.attr("lacv"), 9) {
		return e.errorf("has the lacv %q, which is no number", e.attr("lacv"))
	}
	return nil
}

// classByName is the index of the classification of that exact name, or -1.
func (r *spifReader) classByName(name string) int {
	return slices.IndexFunc(r.p.classes, func(c class) bool { return c.name == name })
}

// spellings reads an element's name and its markingData: the phrase of a portion (code portionMarking),
// phrases that are read and never written (noMarkingDisplay), and phrases of a page (all others, which
// take the name's place in a banner). replaces tells that the phrase suppresses the classification.
func (e *element) spellings() (w phrases, replaces bool, err error) {
	w.name = e.attr("name")
	if err := e.phraseOK(w.name); err != nil {
		return w, false, err
	}
	for _, m := range e.all("markingData") {
		if err := m.conform(shape{attrs: "phrase", children: "code", lang: true}); err != nil {
			return w, false, err
		}
		phrase := m.attr("phrase")
		if phrase != "" {
			if err := m.phraseOK(phrase); err != nil {
				return w, false, err
			}
			w.others = append(w.others, phrase)
		}
		for _, c := range m.children {
			if err := c.conform(shape{text: true}); err != nil {
				return w, false, err
			}
			switch c.text {
			case "portionMarking":
				if phrase == "" || w.portion != "" {
					return w, false, m.errorf("gives no phrase for the portion, or a second one")
				}
				w.portion = phrase
			case "suppressClassName":
				replaces = replaces || phrase != ""
				if phrase != "" {
					w.name, w.others = phrase, append(w.others, w.name)
				}
			case "pageTop", "pageBottom", "pageTopBottom", "documentStart", "documentEnd", "noNameDisplay",
				"noMarkingDisplay", "unused", "waterMark", "replacePolicy":
			default:
				return w, false, c.errorf("is the unknown marking code %q", clip(c.text))
			}
		}
	}
	for _, q := range e.all("markingQualifier") {
		if err := checkQualifier(q); err != nil {
			return w, false, err
		}
	}
	if w.portion == "" {
		w.portion = w.name
	}
	return w, replaces, nil
}

func checkQualifier(q *element) error {
	if err := q.conform(shape{attrs: "code markingCode", children: "qualifier"}); err != nil {
		return err
	}
	for _, c := range q.children {
		if err := c.conform(shape{attrs: "markingQualifier qualifierCode!"}); err != nil {
			return err
		}
	}
	return nil
}
