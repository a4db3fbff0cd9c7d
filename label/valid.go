package label

import (
	"fmt"
	"strings"
)

// Valid says whether the policy allows l as the marking of material: nil, or a *ParseError whose faults
// name each rule that is broken. The zero Label is not valid. A label that a join, a meet or a clearance
// made may be a sound point of the order and still no marking (an audience of nobody with ORCON dropped
// below CONFIDENTIAL, say): decisions do not ask Valid, whoever marks new material does.
func (l Label) Valid() error {
	if l.policy == nil {
		return &ParseError{Faults: []Fault{{Reason: "there is no marking"}}}
	}
	if faults := l.policy.check(&l); len(faults) > 0 {
		return &ParseError{Marking: l.Banner(), Faults: faults}
	}
	return nil
}

func (p *Policy) check(l *Label) []Fault {
	var faults []Fault
	bad := func(text, reason string, args ...any) {
		if len(faults) < maxFaults {
			faults = append(faults, Fault{Text: text, Reason: fmt.Sprintf(reason, args...)})
		}
	}
	c := &p.classes[l.class]
	if c.foreign && l.owner == ownOwner {
		bad(c.name, "is not a classification of %s material", p.nation)
	}
	if l.all && l.rank > 0 {
		bad(c.name, "cannot be for ALL")
	}
	p.checkRequired(l, c.name, c.required, nil, bad)
	alone := l.audience
	alone.remove(p.home)
	one := func(w string, it *item) {
		if it.excludesClass(l.class) {
			bad(w, "cannot stand with %s", c.name)
		}
		if it.ownerOnly && (l.all || !alone.empty()) {
			bad(w, "allows no release beyond %s", p.nation)
		}
		p.checkRequired(l, w, it.required, it.exclusions, bad)
	}
	for i := range p.cats {
		if l.cats.has(i) {
			one(p.cats[i].fullName(), &p.cats[i].item)
		}
	}
	for i := range p.marks {
		if !l.marks.has(i) {
			continue
		}
		m := &p.marks[i]
		one(m.name, &m.item)
		if m.widens && l.spelling == spellNoforn {
			bad(m.name, "cannot stand with %s", p.ownerOnly.name)
		}
		if m.weaker >= 0 && l.marks.has(m.weaker) {
			bad(m.name, "cannot stand with %s, which says more", p.marks[m.weaker].name)
		}
	}
	if l.spelling == spellRel || l.spelling == spellEyes {
		for i := range p.nations {
			if l.audience.has(i) {
				one(p.nations[i].name, &p.nations[i].item)
			}
		}
	}
	if !l.display.empty() && l.spelling == spellNoforn {
		bad("DISPLAY ONLY", "cannot stand with %s", p.ownerOnly.name)
	}
	for _, t := range p.tags {
		n := 0
		for _, r := range t.items {
			if l.has(r) {
				n++
			}
		}
		if n > 0 && n < t.min || t.max > 0 && n > t.max {
			bad(t.name, "has %d chosen, where the policy allows %d to %d", n, t.min, t.max)
		}
	}
	return faults
}

func (p *Policy) checkRequired(l *Label, name string, required, excluded []requirement, bad func(string, string, ...any)) {
	for _, r := range required {
		met, chosen := 0, 0
		for _, g := range r.groups {
			n := 0
			for _, item := range g {
				if l.has(item) {
					n++
				}
			}
			chosen += n
			if n > 0 {
				met++
			}
		}
		switch {
		case r.operation == "onlyOne" && chosen != 1:
			bad(name, "needs exactly one of %s", p.refNames(r))
		case r.operation == "oneOrMore" && chosen == 0:
			bad(name, "needs at least one of %s", p.refNames(r))
		case r.operation == "all" && met != len(r.groups):
			bad(name, "needs %s", p.refNames(r))
		}
	}
	for _, r := range excluded {
		for _, g := range r.groups {
			for _, item := range g {
				if l.has(item) {
					bad(name, "cannot stand with %s", p.refName(item))
				}
			}
		}
	}
}

func (p *Policy) refName(r ref) string {
	switch r.kind {
	case refCategory:
		return p.cats[r.index].fullName()
	case refMark:
		return p.marks[r.index].name
	}
	return p.nations[r.index].name
}

func (p *Policy) refNames(r requirement) string {
	var names []string
	for _, g := range r.groups {
		for _, item := range g {
			if len(names) == 8 {
				return strings.Join(names, ", ") + " …"
			}
			names = append(names, p.refName(item))
		}
	}
	return strings.Join(names, ", ")
}
