package label

import (
	"errors"
	"fmt"
	"strings"
)

// usaGrammar reads and writes the banner line of the United States:
//
//	CLASS//SCI//SAR//AEA//NATO//FGI//CUI//DISSEM//NON-IC//AUDIENCE
//
// with empty segments left out. Another owner's material starts with "//": //GBR SECRET, //COSMIC TOP
// SECRET, //JOINT SECRET CAN GBR USA. The words come from the policy; the shape is this file.
type usaGrammar struct{ p *Policy }

// The tag sets that the grammar knows by name.
const (
	setSCI    = "SCI"
	setSAR    = "SAR"
	setAEA    = "AEA"
	setNATO   = "NATO"
	setCUI    = "CUI"
	setDissem = "DISSEM"
	setNonIC  = "NON-IC"
)

// segment kinds in the order of a banner.
type segment int

const (
	segUnknown segment = iota
	segSCI
	segSAR
	segAEA
	segNATO
	segFGI
	segCUI
	segDissem
	segNonIC
	segAudience
)

var segmentNames = [...]string{"", setSCI, setSAR, setAEA, setNATO, "FGI", setCUI, setDissem, setNonIC, "AUDIENCE"}

// natoWords are NATO's own names of the classifications, by the name that the policy gives them.
var natoWords = map[string][2]string{
	"TOP SECRET":   {"COSMIC TOP SECRET", "CTS"},
	"SECRET":       {"NATO SECRET", "NS"},
	"CONFIDENTIAL": {"NATO CONFIDENTIAL", "NC"},
	"RESTRICTED":   {"NATO RESTRICTED", "NR"},
	"UNCLASSIFIED": {"NATO UNCLASSIFIED", "NU"},
}

// natoSuffixes are the ways in which NATO's restrictive categories follow its classification directly.
var natoSuffixes = [...][2]string{
	{" ATOMAL", "ATOMAL"}, {" BOHEMIA", "BOHEMIA"}, {" BALK", "BALK"}, {"-A", "ATOMAL"}, {"-B", "BOHEMIA"}, {"-BALK", "BALK"},
}

func (g *usaGrammar) eyes() bool { return true }

// prepare refuses a policy that this grammar could not write: a tag set that has no segment, a word that
// the grammar needs and the policy lacks, a phrase with a slash.
func (g *usaGrammar) prepare() error {
	p := g.p
	clean := func(w phrases) error {
		for _, s := range append([]string{w.name, w.portion}, w.others...) {
			if strings.Contains(s, "/") {
				return fmt.Errorf("%q has a slash", s)
			}
		}
		return nil
	}
	for i := range p.cats {
		c := &p.cats[i]
		if err := clean(c.phrases); err != nil {
			return err
		}
		if c.set != setSCI && c.set != setSAR && c.set != setAEA && c.set != setNATO || c.replaceClass {
			return fmt.Errorf("the category %q is in no segment of this grammar", c.name)
		}
	}
	for i := range p.marks {
		m := &p.marks[i]
		if err := clean(m.phrases); err != nil {
			return err
		}
		if m.set != setCUI && m.set != setDissem && m.set != setNonIC || m.replaceClass {
			return fmt.Errorf("the mark %q is in no segment of this grammar", m.name)
		}
	}
	for _, c := range p.classes {
		if err := clean(c.phrases); err != nil {
			return err
		}
	}
	for _, n := range p.nations {
		if err := clean(n.phrases); err != nil {
			return err
		}
		if strings.Contains(n.name, " ") || n.name == "ALL" || n.name == "NONE" {
			return fmt.Errorf("the nation %q cannot stand in a list", n.name)
		}
	}
	for _, word := range []string{"NOFORN", "REL TO", "EYES ONLY", "DISPLAY ONLY"} {
		if _, ok := p.markBy[setDissem+"\x00"+word]; !ok {
			return fmt.Errorf("this grammar needs %s in the tag set %s", word, setDissem)
		}
	}
	if p.ownerOnly.name != "NOFORN" || p.ownerOnly.portion != "NF" {
		return errors.New("this grammar needs the ownerOnly phrase NOFORN, NF")
	}
	return nil
}

// usaReader is one marking being read by usaGrammar.
type usaReader struct {
	*input
	label    Label
	named    categorySet // categories that the marking names itself
	spelled  spelling
	audience bool // some word about the audience was read
}

func (g *usaGrammar) parse(in *input) Label {
	r := &usaReader{input: in, label: Label{policy: g.p}}
	t := in.body()
	if t.text == "" {
		in.fault(0, "", "there is no marking")
		return Label{}
	}
	foreign := strings.HasPrefix(t.text, "//")
	if foreign {
		t = t.from(2)
	}
	segments := t.split("//")
	switch first := segments[0]; {
	case foreign:
		r.foreignHead(first)
		segments = segments[1:]
	case fold(first.text) == "CUI" || r.kind(first, segUnknown) == segCUI:
		r.ownClass(token{g.p.classes[g.p.ordinary[0]].name, first.offset})
	default:
		r.ownClass(first)
		segments = segments[1:]
	}
	last := segUnknown
	for _, s := range segments {
		kind := r.kind(s, last)
		switch {
		case s.text == "":
			r.bad(s, "an empty segment stands between slashes")
			continue
		case kind == segUnknown:
			r.bad(s, "is in no register of policy "+g.p.name)
			continue
		case kind == last && kind != segCUI:
			r.bad(s, "is a second segment of kind "+segmentNames[kind])
		case kind < last:
			r.bad(s, fmt.Sprintf("is a segment of kind %s and stands after %s", segmentNames[kind], segmentNames[last]))
		}
		last = max(last, kind)
		r.segment(kind, s)
	}
	if len(in.faults) == 0 {
		r.settle()
	}
	return r.label
}

// ownClass reads the classification of own material.
func (r *usaReader) ownClass(t token) {
	c, ok := r.policy.classBy[fold(t.text)]
	switch {
	case !ok:
		r.bad(t, "is not a classification of policy "+r.policy.name)
	case r.policy.classes[c].foreign:
		r.bad(t, "is not a classification of "+r.policy.nation+" material")
	default:
		r.setClass(c)
	}
}

func (r *usaReader) setClass(c int) {
	r.label.class, r.label.rank = uint8(c), r.policy.classes[c].rank
}

// foreignHead reads what follows the leading "//": owner and classification.
func (r *usaReader) foreignHead(t token) {
	p := r.policy
	if rest, ok := t.afterWord("JOINT"); ok {
		r.label.owner = jointOwner
		list := r.classThen(rest)
		r.label.fgi = r.nationList(list)
		if r.label.fgi.count() < 2 {
			r.bad(t, "names fewer than two owners")
		}
		return
	}
	nato, isNATO := p.nationBy["NATO"]
	if isNATO && r.natoHead(t, nato) {
		return
	}
	words := t.fields()
	if len(words) < 2 {
		r.bad(t, "is not an owner and a classification")
		return
	}
	n, ok := p.nationBy[fold(words[0].text)]
	if !ok || n == p.home {
		r.bad(words[0], "is not another owner that policy "+p.name+" knows")
		return
	}
	r.label.owner = uint16(n + 1)
	for _, extra := range r.classThen(t.from(len(words[0].text)).trim()) {
		r.bad(extra, "follows the classification")
	}
}

// classThen reads a classification of one or two words and gives the words after it.
func (r *usaReader) classThen(t token) []token {
	words := t.fields()
	for n := min(2, len(words)); n > 0; n-- {
		text := t.text[:words[n-1].offset+len(words[n-1].text)-t.offset]
		if c, ok := r.policy.classBy[fold(text)]; ok {
			r.setClass(c)
			return words[n:]
		}
	}
	r.bad(t, "does not start with a classification")
	return nil
}

// natoHead reads NATO's own classifications, with or without a restrictive category behind: CTS-A.
func (r *usaReader) natoHead(t token, nato int) bool {
	text, category := fold(t.text), ""
	for _, s := range natoSuffixes {
		if head, ok := strings.CutSuffix(text, s[0]); ok {
			text, category = head, s[1]
			break
		}
	}
	for class, words := range natoWords {
		if text != words[0] && text != words[1] && (category == "" || text != class) {
			continue
		}
		c, ok := r.policy.classBy[class]
		if !ok {
			return false
		}
		r.setClass(c)
		r.label.owner = uint16(nato + 1)
		if category != "" {
			if i, ok := r.policy.catBy[setNATO+"\x00"+category]; ok {
				r.category(t, i)
			}
		}
		return true
	}
	return false
}

// kind tells what a segment holds by the first of its parts that some register knows. The names of CUI
// categories count only behind CUI.
func (r *usaReader) kind(s token, last segment) segment {
	if _, ok := s.afterWord("AUDIENCE"); ok {
		return segAudience
	}
	for _, t := range s.split("/") {
		key := fold(t.text)
		system, _, _ := strings.Cut(key, "-")
		switch {
		case r.known(setSCI, key) || r.known(setSCI, strings.TrimSpace(system)):
			return segSCI
		case strings.HasPrefix(key, "SAR-") || strings.HasPrefix(key, "SPECIAL ACCESS REQUIRED-"):
			return segSAR
		case r.known(setAEA, key) || r.known(setAEA, strings.TrimSpace(system)):
			return segAEA
		case r.known(setNATO, key):
			return segNATO
		case key == "FGI" || strings.HasPrefix(key, "FGI ") || strings.HasPrefix(key, "FOREIGN GOVERNMENT INFORMATION"):
			return segFGI
		case r.markKnown(setCUI, key) && (last == segCUI || key == "CUI" || strings.HasPrefix(key, "SP-") || len(key) > 8):
			return segCUI
		case r.markKnown(setDissem, key) || r.listed(t) != "":
			return segDissem
		case r.markKnown(setNonIC, key):
			return segNonIC
		}
	}
	return segUnknown
}

func (r *usaReader) known(set, key string) bool {
	_, ok := r.policy.catBy[set+"\x00"+key]
	return ok
}

func (r *usaReader) markKnown(set, key string) bool {
	_, ok := r.policy.markBy[set+"\x00"+key]
	return ok
}
