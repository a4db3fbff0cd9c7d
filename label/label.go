package label

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Label is a point of one policy's order together with what is shown beside it. It is a comparable value:
// use == for "the same in every respect" and as a map key, and [Label.Equivalent] for "the same point".
//
// The zero Label is unmarked: it dominates nothing and is dominated by nobody, itself included.
type Label struct {
	policy   *Policy
	cats     categorySet // restrictive; always closed: a sub-compartment's bit brings its compartment's and system's
	audience nationSet   // who may read; empty when all is set
	fgi      nationSet   // shown: foreign sources of own material, or the owners of JOINT material
	display  nationSet   // shown: DISPLAY ONLY
	marks    markSet     // shown: handling marks
	owner    uint16      // shown: ownOwner, jointOwner, or a nation's index + 1
	class    uint8       // index in policy.classes
	rank     uint8       // policy.classes[class].rank, here so that Dominates need not follow a pointer
	all      bool        // the audience is everybody
	fgiSeen  bool        // shown: FGI stands in the marking; with an empty fgi the source is concealed
	spelling spelling    // shown: how the audience was written
}

// Owners that are not one foreign nation.
const (
	ownOwner   = 0
	jointOwner = 1<<16 - 1
)

// spelling tells how a label's audience is written. The same audience may have several, and each is kept.
type spelling uint8

const (
	spellPlain    spelling = iota // nothing is written: the default of class and owner
	spellNoforn                   // NOFORN, UK EYES ONLY, SPÉCIAL FRANCE: own nation alone
	spellRel                      // REL TO and a list
	spellEyes                     // USA/GBR EYES ONLY
	spellAudience                 // AUDIENCE and a list: ours, where no manual has a spelling
)

// Dominates reports whether a holder of l may read what is marked o: l's classification is at least o's,
// l has every category of o, and everybody in l's audience is in o's. It is false when either label is
// unmarked or their policies differ. It allocates nothing.
func (l Label) Dominates(o Label) bool { return Dominates(&l, &o) }

// Dominates is l.Dominates(o) without copying the two: for whoever decides by the million. Neither may be nil.
func Dominates(l, o *Label) bool {
	if l.policy == nil || l.policy != o.policy || l.rank < o.rank {
		return false
	}
	if o.cats[0]&^l.cats[0]|o.cats[1]&^l.cats[1]|o.cats[2]&^l.cats[2]|o.cats[3]&^l.cats[3] != 0 {
		return false
	}
	if o.all {
		return true
	}
	a, b := &l.audience, &o.audience
	return !l.all && a[0]&^b[0]|a[1]&^b[1]|a[2]&^b[2]|a[3]&^b[3]|a[4]&^b[4] == 0
}

// Equivalent reports whether l and o are the same point of the order, however they are spelled and
// whatever handling marks they carry: SECRET and SECRET//NOFORN. An unmarked label is equivalent to none.
func (l Label) Equivalent(o Label) bool { return Dominates(&l, &o) && Dominates(&o, &l) }

// IsZero reports whether l is unmarked.
func (l Label) IsZero() bool { return l.policy == nil }

// Policy is the policy that l was made by; nil for the zero Label.
func (l Label) Policy() *Policy { return l.policy }

// Banner is the canonical marking, as it stands at the head of a page: TOP SECRET//SI/TK//NOFORN. It is
// empty for the zero Label. The label's policy reads it back to an equal label, except that Parse refuses
// what [Label.Valid] does.
func (l Label) Banner() string {
	if l.policy == nil {
		return ""
	}
	return l.policy.banners.of(l)
}

// maxBanners bounds the banners that a policy remembers: more labels than an enclave has in use.
const maxBanners = 4096

// banners remembers what labels render to, since every answer of a node shows one. The zero banners is
// ready. It may be used by many at once.
type banners struct {
	known sync.Map // Label → string
	count atomic.Int32
}

func (b *banners) of(l Label) string {
	if text, ok := b.known.Load(l); ok {
		return text.(string)
	}
	text := l.policy.grammar.render(l, false)
	if b.count.Load() < maxBanners {
		if _, there := b.known.LoadOrStore(l, text); !there {
			b.count.Add(1)
		}
	}
	return text
}

// Portion is the canonical marking of a portion, in parentheses and abbreviated: (TS//SI/TK//NF).
func (l Label) Portion() string {
	if l.policy == nil {
		return ""
	}
	return "(" + l.policy.grammar.render(l, true) + ")"
}

// String is Banner.
func (l Label) String() string { return l.Banner() }

// Classification is the full name of the classification, without its owner: SECRET for //NATO SECRET.
func (l Label) Classification() string {
	if l.policy == nil {
		return ""
	}
	return l.policy.classes[l.class].name
}

// Rank is the position of the classification in its policy's hierarchy, 0 lowest; -1 for the zero Label.
// Two classifications may share a rank (the RESTRICTED of others is held as CONFIDENTIAL in the USA policy).
func (l Label) Rank() int {
	if l.policy == nil {
		return -1
	}
	return int(l.rank)
}

// Categories are the canonical names of the restrictive categories, implied ones included, in the
// policy's order: SI, SI-G, SI-G ABCD, TK. Names of special access programmes start with "SAR-".
func (l Label) Categories() []string {
	var names []string
	if l.policy != nil {
		for i := range l.policy.cats {
			if l.cats.has(i) {
				names = append(names, l.policy.cats[i].fullName())
			}
		}
	}
	return names
}

// Marks are the handling marks, by canonical name and in the policy's order, with "FGI" for material that
// is, or is drawn from, another owner's. They are not part of the order; the borders look at them.
func (l Label) Marks() []string {
	var names []string
	if l.policy == nil {
		return nil
	}
	if l.fgiSeen || l.owner != ownOwner {
		names = append(names, "FGI")
	}
	for i := range l.policy.marks {
		if l.marks.has(i) {
			names = append(names, l.policy.marks[i].name)
		}
	}
	if !l.display.empty() {
		names = append(names, "DISPLAY ONLY")
	}
	return names
}

// ReleasableTo is the audience: codes of nations and opaque groups, sorted. It is nil when the audience is
// everybody ([Label.ForAll]) and, for an unmarked label or an audience of nobody, empty.
func (l Label) ReleasableTo() []string {
	if l.policy == nil {
		return []string{}
	}
	if l.all {
		return nil
	}
	return l.policy.codes(l.audience)
}

// ForAll reports whether everybody may read, whatever the nation.
func (l Label) ForAll() bool { return l.all }

// Owners are those whose material this is: the policy's nation, another owner (//GBR SECRET), or the
// participants of JOINT material; sorted.
func (l Label) Owners() []string {
	switch {
	case l.policy == nil:
		return nil
	case l.owner == ownOwner:
		return []string{l.policy.nation}
	case l.owner == jointOwner:
		return l.policy.codes(l.fgi)
	}
	return []string{l.policy.nations[l.owner-1].name}
}

// Sources are the other owners whose information own material contains (FGI GBR NATO), sorted; empty when
// there are none or when the source is concealed, which Marks tells apart.
func (l Label) Sources() []string {
	if l.policy == nil || l.owner != ownOwner {
		return nil
	}
	return l.policy.codes(l.fgi)
}

// DisplayOnly are those that may be shown, but not given, the material; sorted. They are not in the audience.
func (l Label) DisplayOnly() []string {
	if l.policy == nil {
		return nil
	}
	return l.policy.codes(l.display)
}

// codes are the sorted codes of the nations in s.
func (p *Policy) codes(s nationSet) []string {
	names := []string{}
	for i := range p.nations {
		if s.has(i) {
			names = append(names, p.nations[i].name)
		}
	}
	slices.Sort(names)
	return names
}
