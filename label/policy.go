package label

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Policy is one marking policy: its vocabulary, its order and its grammar, compiled. It is immutable, and
// labels compare by the Policy that made them: load each policy once and share it, as Builtin does.
type Policy struct {
	name, version, oid string
	nation             string // the owner; also the only audience of classified material that says nothing of release
	home               int    // nation's index in nations
	classes            []class
	ordinary           []uint8 // by rank: the class that own material of that rank has
	cats               []category
	marks              []mark
	nations            []nation
	byName             []int                // nations in the order of their codes
	groups             map[string]nationSet // FVEY: read as its members
	ownerOnly          phrases              // NOFORN; empty when the policy has no word for it
	tags               []tag
	setIDs             map[string]string // object identifiers of tag sets
	releaseSet         string            // the permissive tag set
	grammar            grammar
	banners            banners

	classBy, catBy, markBy, nationBy map[string]int // by folded phrase; categories by folded "SET\x00phrase" too
}

// grammar reads and writes markings of a policy.
type grammar interface {
	// prepare builds the grammar's tables; an error is a policy that it could not read or write unambiguously.
	prepare() error
	// parse reads a marking into a label, adding a fault for all that it does not understand.
	parse(in *input) Label
	// render writes the canonical marking; portion asks for abbreviations.
	render(l Label, portion bool) string
	// eyes reports whether `A/B EYES ONLY` is a spelling of a list.
	eyes() bool
}

// phrases are the spellings of one thing.
type phrases struct {
	name    string   // canonical, and how a banner writes it
	portion string   // how a portion writes it
	others  []string // what is read besides
}

func (w phrases) in(portion bool) string {
	if portion {
		return w.portion
	}
	return w.name
}

type class struct {
	phrases
	lacv     string
	rank     uint8
	open     bool // without a word on release it is for ALL
	foreign  bool // never own material's classification
	required []requirement
}

// category is one restrictive category. Names are paths: "SI-G ABCD" is under "SI-G", that under "SI".
type category struct {
	phrases
	item
	set     string
	implies categorySet // itself and all that it is under
	depth   int         // 0 for a system, 1 for a compartment, 2 for a sub-compartment
}

func (c *category) fullName() string {
	if c.set == setSAR {
		return "SAR-" + c.name
	}
	return c.name
}

// mark is one handling mark.
type mark struct {
	phrases
	item
	set      string
	needsAll bool // rolls up only when every portion has it
	widens   bool // speaks of further release, so it cannot stand beside NOFORN
	weaker   int  // index of a mark that says more, and replaces it; -1 for none
}

// structural reports whether the mark only holds the place of a word about the audience in the USA's order.
func (m *mark) structural() bool {
	if m.set != setDissem {
		return false
	}
	switch m.name {
	case "NOFORN", "REL TO", "EYES ONLY", "DISPLAY ONLY":
		return true
	}
	return false
}

type nation struct {
	phrases
	group bool // a tetragraph or other group, opaque
	item
}

// item is what SPIF says of any tag category.
type item struct {
	spif         string // its name in the file, which 4774 labels use
	lacv         string
	excluded     uint64 // bit per class that it may not stand with
	ownerOnly    bool   // it excludes every releasability: it forces NOFORN
	required     []requirement
	exclusions   []requirement
	replaceClass bool // its banner phrase stands instead of the classification's: OFFICIAL-SENSITIVE
}

func (it *item) excludesClass(c uint8) bool { return it.excluded&(1<<c) != 0 }

// requirement is SPIF's requiredCategory or excludedCategory, its references resolved.
type requirement struct {
	operation string // onlyOne, oneOrMore, all; empty for an exclusion
	groups    [][]ref
}

// ref points at an item of the policy.
type ref struct {
	kind  refKind
	index int
}

type refKind uint8

const (
	refCategory refKind = iota
	refNation
	refMark
)

// tag is SPIF's securityCategoryTag: how many of its items may be chosen.
type tag struct {
	name     string
	items    []ref
	min, max int // max 0: as many as one likes
}

// Name is the policy's short name: USA.
func (p *Policy) Name() string { return p.name }

// Version is the policy's version as its file states it. Labels are written with it, and read back only by it.
func (p *Policy) Version() string { return p.version }

// ID is the policy's object identifier in dotted form.
func (p *Policy) ID() string { return p.oid }

// Nation is the owner of material that names no other.
func (p *Policy) Nation() string { return p.nation }

// Classifications are the names of own material's classifications, lowest first.
func (p *Policy) Classifications() []string {
	var names []string
	for _, c := range p.classes {
		if !c.foreign {
			names = append(names, c.name)
		}
	}
	return names
}

// Lowest is the bottom of the order, which every label dominates: the lowest classification, for ALL.
func (p *Policy) Lowest() Label {
	l := Label{policy: p, class: p.ordinary[0], all: true}
	l.spell(spellPlain)
	return l
}

// Clearance is the label of a subject: it dominates what a holder of marking, of that nation, may read.
// Classification and categories are the marking's; the audience is the nation alone, at UNCLASSIFIED too,
// whatever the marking says of release. The nation is one atom of the policy: a trigraph, or an opaque
// group such as NATO for its own staff; FVEY, which stands for several, is refused.
//
// The error is *ParseError for the marking; rules of handling (HCS needs NOFORN) do not bind a clearance.
func (p *Policy) Clearance(marking, nation string) (Label, error) {
	m, err := p.read(marking, nil, false)
	if err != nil {
		return Label{}, err
	}
	n, ok := p.nationBy[fold(nation)]
	if !ok {
		return Label{}, &ParseError{Marking: marking, Faults: []Fault{{Text: nation, Reason: "is no nation of policy " + p.name}}}
	}
	l := Label{policy: p, rank: m.rank, class: p.ordinary[m.rank], cats: m.cats, audience: one(n)}
	l.spell(spellPlain)
	return l, nil
}

// forcesOwnerOnly reports whether something in l allows no release.
func (p *Policy) forcesOwnerOnly(l *Label) bool {
	for i := range p.cats {
		if p.cats[i].ownerOnly && l.cats.has(i) {
			return true
		}
	}
	for i := range p.marks {
		if p.marks[i].ownerOnly && l.marks.has(i) {
			return true
		}
	}
	return false
}

// has reports whether l carries what r points at.
func (l *Label) has(r ref) bool {
	switch r.kind {
	case refCategory:
		return l.cats.has(r.index)
	case refMark:
		return l.marks.has(r.index)
	}
	return !l.all && l.spelling != spellPlain && l.audience.has(r.index)
}

// index builds the look-up tables. Two things of one kind with one spelling make the policy ambiguous.
func (p *Policy) index() error {
	put := func(m map[string]int, prefix string, w phrases, i int, what string) error {
		for _, s := range append([]string{w.name, w.portion}, w.others...) {
			key := prefix + fold(s)
			if old, ok := m[key]; ok && old != i {
				return fmt.Errorf("two %s are spelled %q", what, s)
			}
			m[key] = i
		}
		return nil
	}
	p.classBy, p.catBy, p.markBy, p.nationBy = map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	for i := range p.classes {
		if err := put(p.classBy, "", p.classes[i].phrases, i, "classifications"); err != nil {
			return err
		}
	}
	for i := range p.cats {
		if err := put(p.catBy, p.cats[i].set+"\x00", p.cats[i].phrases, i, "categories"); err != nil {
			return err
		}
	}
	for i := range p.marks {
		if err := put(p.markBy, p.marks[i].set+"\x00", p.marks[i].phrases, i, "marks"); err != nil {
			return err
		}
	}
	for i := range p.nations {
		if err := put(p.nationBy, "", p.nations[i].phrases, i, "nations"); err != nil {
			return err
		}
		p.byName = append(p.byName, i)
	}
	slices.SortFunc(p.byName, func(a, b int) int { return strings.Compare(p.nations[a].name, p.nations[b].name) })
	return nil
}

// fold brings a phrase to the form that look-ups use: upper case, no accents or other marks, no strokes, single spaces. Any other
// letter stays, and so matches nothing but itself.
func fold(s string) string {
	if folded(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for _, r := range norm.NFD.String(s) {
		switch {
		case r == ' ' || r == '\t' || r == '\u00a0':
			space = b.Len() > 0
			continue
		case 'a' <= r && r <= 'z':
			r -= 'a' - 'A'
		case r >= 0x80 && unicode.Is(unicode.M, r): // combining accents: TRE + grave + S
			continue
		case r >= 0x80:
			r = unstroked(r)
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// folded reports whether s is plain ASCII in the folded form already, as most markings are.
func folded(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 || 'a' <= c && c <= 'z' || c == '\t' || c == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			return false
		}
	}
	return true
}

// unstroked is the bare capital of a letter with a stroke or hook, which Unicode does not take apart as it does accents.
func unstroked(r rune) rune {
	switch r {
	case 'Ø', 'ø':
		return 'O'
	case 'Đ', 'đ':
		return 'D'
	case 'Ł', 'ł':
		return 'L'
	case 'Ħ', 'ħ':
		return 'H'
	case 'Ŧ', 'ŧ':
		return 'T'
	case 'Ŋ', 'ŋ':
		return 'N'
	case 'ı':
		return 'I'
	}
	return r
}
