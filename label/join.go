package label

// Join is the least upper bound: what is drawn from material marked a and material marked b. It is the
// zero Label, which nobody reads, when either is unmarked or their policies differ.
//
// What is only shown rolls up by the rules of derived material: ORCON, IMCON, PROPIN, FISA and their like
// if any has them; RELIDO and DISPLAY ONLY only if all have them; FOUO only while the result is
// UNCLASSIFIED; material of several owners becomes own material with FGI. Where lists of nations have none
// but the owner in common, the result says NOFORN.
func Join(a, b Label) Label {
	if a.policy == nil || a.policy != b.policy {
		return Label{}
	}
	return rollUp([]Label{a, b})
}

// RollUp is the label of a document that consists of the portions: the same point as joining them one
// after another. No portions, or portions of several policies, make the zero Label.
//
// Only the spelling may differ from that of a chain of joins: RollUp sees all portions at once, so it does
// not depend on their order.
func RollUp(portions []Label) Label {
	for _, l := range portions {
		if l.policy == nil || l.policy != portions[0].policy {
			return Label{}
		}
	}
	if len(portions) == 0 {
		return Label{}
	}
	return rollUp(portions)
}

// rollUp joins one or more labels of one policy.
func rollUp(parts []Label) Label {
	p := parts[0].policy
	l := Label{policy: p, all: true}
	anyMarks, allMarks := markSet{}, parts[0].marks
	l.display = parts[0].display
	for i := range parts {
		o := &parts[i]
		if o.rank > l.rank {
			l.rank = o.rank
		}
		l.cats = l.cats.join(o.cats)
		switch {
		case o.all:
		case l.all:
			l.audience, l.all = o.audience, false
		default:
			l.audience = l.audience.meet(o.audience)
		}
		anyMarks, allMarks = anyMarks.join(o.marks), allMarks.meet(o.marks)
		l.display = l.display.meet(o.display)
	}
	l.class = p.ordinary[l.rank]
	joinOwners(&l, parts)
	p.joinMarks(&l, anyMarks, allMarks)
	l.spell(joinSpelling(&l, parts))
	l.dropWidening()
	return l
}

// joinOwners decides whose the derived material is. Portions for everybody without any mark are nobody's
// in particular. Owners that agree keep their ownership and their own word for the classification;
// otherwise it is own material, the others are its sources, and one concealed source conceals all.
func joinOwners(l *Label, parts []Label) {
	var first *Label
	same, concealed := true, false
	var sources nationSet
	for i := range parts {
		o := &parts[i]
		if o.public() {
			continue
		}
		if first == nil {
			first = o
		}
		same = same && o.owner == first.owner && (o.owner == ownOwner || o.fgi == first.fgi)
		if o.owner != ownOwner && o.owner != jointOwner {
			sources.add(int(o.owner - 1))
			continue
		}
		sources = sources.join(o.fgi) // of own material the sources, of JOINT material the owners
		l.fgiSeen = l.fgiSeen || o.fgiSeen
		concealed = concealed || o.fgiSeen && o.fgi.empty()
	}
	if first != nil && same && first.owner != ownOwner {
		l.owner, l.fgi = first.owner, first.fgi
		l.class = sharedClass(l, parts)
		return
	}
	sources.remove(l.policy.home)
	l.fgiSeen = l.fgiSeen || !sources.empty()
	if !concealed {
		l.fgi = sources
	}
}

// sharedClass is the classification that one other owner's portions have at l's rank: that owner's word
// (RESTRICTED) when all use it, else the ordinary one.
func sharedClass(l *Label, parts []Label) uint8 {
	class := l.class
	for i := range parts {
		if o := &parts[i]; o.rank == l.rank {
			if o.class == l.class {
				return l.class
			}
			class = o.class
		}
	}
	return class
}

// public reports whether l says nothing but the lowest classification, for everybody.
func (l *Label) public() bool {
	return l.all && l.rank == 0 && l.owner == ownOwner && !l.fgiSeen && l.cats.empty() && l.marks.empty()
}

// joinSpelling is the spelling that the parts ask for; spell takes it where the audience allows.
func joinSpelling(l *Label, parts []Label) spelling {
	lists, eyes, plain := 0, 0, false
	for i := range parts {
		switch o := &parts[i]; o.spelling {
		case spellNoforn:
			return spellNoforn
		case spellPlain:
			plain = plain || !o.all
		case spellEyes:
			eyes++
			lists++
		default:
			lists++
		}
	}
	switch {
	case !plain && lists > 0 && l.audience == one(l.policy.home):
		return spellNoforn
	case lists > 0 && eyes == lists:
		return spellEyes
	case lists > 0:
		return spellRel
	}
	return spellPlain
}

// joinMarks sets l's marks from those that some and those that all parts carry.
func (p *Policy) joinMarks(l *Label, some, all markSet) {
	for i := range p.marks {
		m := &p.marks[i]
		has := some.has(i)
		if m.needsAll {
			has = all.has(i)
		}
		if !has || m.excludesClass(l.class) {
			continue
		}
		if m.weaker >= 0 && some.has(m.weaker) {
			continue
		}
		l.marks.add(i)
	}
}

// dropWidening takes off what speaks of further release where the label says NOFORN.
func (l *Label) dropWidening() {
	if l.spelling != spellNoforn {
		return
	}
	l.display = nationSet{}
	for i := range l.policy.marks {
		if l.policy.marks[i].widens {
			l.marks.remove(i)
		}
	}
}

// Meet is the greatest lower bound: the highest label that both dominate. It is the zero Label when either
// is unmarked or their policies differ. Shown marks are those that both carry.
func Meet(a, b Label) Label {
	if a.policy == nil || a.policy != b.policy {
		return Label{}
	}
	p := a.policy
	low := &a
	if b.rank < a.rank {
		low = &b
	}
	l := Label{policy: p, rank: low.rank, class: p.ordinary[low.rank], cats: a.cats.meet(b.cats)}
	if l.all = a.all || b.all; !l.all {
		l.audience = a.audience.join(b.audience)
	}
	if a.owner == b.owner && a.owner != ownOwner && a.fgi == b.fgi {
		l.owner, l.fgi = a.owner, a.fgi
		if a.class == b.class || low.rank != a.rank || low.rank != b.rank {
			l.class = low.class
		}
	}
	l.display = a.display.meet(b.display)
	want := spellRel
	if a.spelling == spellNoforn && b.spelling == spellNoforn {
		want = spellNoforn
	} else if a.spelling == spellEyes && b.spelling == spellEyes {
		want = spellEyes
	} else if a.spelling == spellPlain && b.spelling == spellPlain {
		want = spellPlain
	}
	shared := a.marks.meet(b.marks)
	p.joinMarks(&l, shared, shared)
	l.spell(want)
	l.dropWidening()
	return l
}

// spell sets the spelling of l's audience: the wanted one where it can say this audience, else the most
// ordinary one that can. Each audience of a class and an owner has exactly one spelling that is not a matter of wish.
func (l *Label) spell(want spelling) {
	p := l.policy
	set, all := p.defaultAudience(l)
	plain := all == l.all && (all || set == l.audience)
	alone := p.ownerOnly.name != "" && !l.all && l.owner == ownOwner && l.audience == one(p.home)
	list := p.listable(l)
	switch {
	case alone && (want == spellNoforn || !plain || p.forcesOwnerOnly(l)):
		l.spelling = spellNoforn
	case list && (want == spellRel || want == spellEyes && p.grammar.eyes()):
		l.spelling = want
	case plain:
		l.spelling = spellPlain
	case list:
		l.spelling = spellRel
	default:
		l.spelling = spellAudience
	}
}

// listable reports whether l's audience can be written as REL TO: two or more, the own nation and the owner among them.
func (p *Policy) listable(l *Label) bool {
	if l.all || l.audience.count() < 2 || !l.audience.has(p.home) {
		return false
	}
	return l.owner == ownOwner || l.owner == jointOwner || l.audience.has(int(l.owner-1))
}

// defaultAudience is the audience of a marking that does not speak of release.
func (p *Policy) defaultAudience(l *Label) (set nationSet, all bool) {
	switch {
	case l.owner == jointOwner:
		return l.fgi, false
	case l.owner != ownOwner:
		set.add(int(l.owner - 1))
	case p.classes[l.class].open && !p.forcesOwnerOnly(l):
		return set, true
	}
	set.add(p.home)
	return set, false
}
