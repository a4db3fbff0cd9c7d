package label

import "strings"

func (r *usaReader) segment(kind segment, s token) {
	switch kind {
	case segSCI, segAEA:
		for _, t := range s.split("/") {
			r.path(segmentNames[kind], t)
		}
	case segSAR:
		for _, t := range s.split("/") {
			for _, prefix := range []string{"SAR-", "SPECIAL ACCESS REQUIRED-"} {
				if len(t.text) > len(prefix) && fold(t.text[:len(prefix)]) == prefix {
					t = t.from(len(prefix)).trim()
				}
			}
			r.path(setSAR, t)
		}
	case segNATO:
		for _, t := range s.split("/") {
			if i, ok := r.policy.catBy[setNATO+"\x00"+fold(t.text)]; ok {
				r.category(t, i)
			} else {
				r.bad(t, "is not a restrictive category of NATO")
			}
		}
	case segFGI:
		r.fgi(s)
	case segCUI, segNonIC:
		for _, t := range s.split("/") {
			r.mark(segmentNames[kind], t)
		}
		r.policy.closeCUI(&r.label)
	case segDissem:
		r.dissem(s)
	case segAudience:
		rest, _ := s.afterWord("AUDIENCE")
		if r.audience {
			r.bad(s, "speaks of the audience a second time")
		}
		r.audience, r.spelled = true, spellAudience
		r.input.audience(&r.label, rest)
	}
}

// category adds category i, which t names, and all above it.
func (r *usaReader) category(t token, i int) {
	if r.named.has(i) {
		r.bad(t, "is named twice")
	}
	r.named.add(i)
	r.label.cats = r.label.cats.join(r.policy.cats[i].implies)
}

// path reads SYSTEM-COMPARTMENT SUB SUB-COMPARTMENT SUB of a set.
func (r *usaReader) path(set string, t token) {
	find := func(name string) (int, bool) {
		i, ok := r.policy.catBy[set+"\x00"+fold(name)]
		return i, ok
	}
	if i, ok := find(t.text); ok {
		r.category(t, i)
		return
	}
	parts := t.split("-")
	system, ok := find(parts[0].text)
	if !ok {
		r.bad(t, "is not in the register "+set+" of policy "+r.policy.name)
		return
	}
	if len(parts) == 1 {
		r.bad(t, "is not in the register "+set+" of policy "+r.policy.name)
	}
	for _, part := range parts[1:] {
		words := part.fields()
		if len(words) == 0 {
			r.bad(t, "has an empty compartment")
			continue
		}
		comp, ok := find(r.policy.cats[system].name + "-" + words[0].text)
		if !ok {
			r.bad(words[0], "is no compartment of "+r.policy.cats[system].name)
			continue
		}
		if len(words) == 1 {
			r.category(part, comp)
		}
		for _, w := range words[1:] {
			if sub, ok := find(r.policy.cats[comp].name + " " + w.text); ok {
				r.category(w, sub)
			} else {
				r.bad(w, "is no sub-compartment of "+r.policy.cats[comp].name)
			}
		}
	}
}

// closeCUI adds the mark CUI where a category of CUI stands.
func (p *Policy) closeCUI(l *Label) {
	i, ok := p.markBy[setCUI+"\x00CUI"]
	if !ok {
		return
	}
	for j := range p.marks {
		if p.marks[j].set == setCUI && l.marks.has(j) {
			l.marks.add(i)
			return
		}
	}
}

func (r *usaReader) fgi(s token) {
	rest, ok := s.afterWord("FGI")
	if !ok {
		rest, _ = s.afterWord("FOREIGN GOVERNMENT INFORMATION")
	}
	if r.label.owner != ownOwner {
		r.bad(s, "stands on material that is another owner's throughout")
		return
	}
	r.label.fgiSeen = true
	if rest.text == "" {
		return
	}
	r.label.fgi = r.nationList(r.listing(rest))
	if r.label.fgi.has(r.policy.home) {
		r.bad(rest, "names "+r.policy.nation+", which is not foreign")
	}
}

func (r *usaReader) mark(set string, t token) {
	i, ok := r.policy.markBy[set+"\x00"+fold(t.text)]
	switch {
	case !ok:
		r.bad(t, "is not in the register "+set+" of policy "+r.policy.name)
	case r.policy.marks[i].structural():
		r.bad(t, "names no nation")
	case r.label.marks.has(i):
		r.bad(t, "is named twice")
	default:
		r.label.marks.add(i)
	}
}

// listed tells which of the words that a list belongs to stands in t: REL TO, EYES ONLY, DISPLAY ONLY, or "".
func (r *usaReader) listed(t token) string {
	key := fold(t.text)
	if strings.HasSuffix(key, " EYES ONLY") || strings.HasSuffix(key, " EYES") {
		return "EYES ONLY"
	}
	for _, word := range []string{"REL TO", "DISPLAY ONLY"} {
		i, ok := r.policy.markBy[setDissem+"\x00"+word]
		if !ok {
			continue
		}
		w := &r.policy.marks[i].phrases
		for _, s := range append([]string{w.name, w.portion}, w.others...) {
			if _, ok := t.afterWord(s); ok {
				return word
			}
		}
	}
	return ""
}

// dissem reads the dissemination controls, the audience's words among them.
func (r *usaReader) dissem(s token) {
	var pending []token // codes that belong to an EYES ONLY further on
	for _, t := range s.split("/") {
		key := fold(t.text)
		_, isNation := r.policy.nationBy[key]
		_, isGroup := r.policy.groups[key]
		switch word := r.listed(t); {
		case key == r.policy.ownerOnly.name || key == r.policy.ownerOnly.portion || key == "NOT RELEASABLE TO FOREIGN NATIONALS":
			r.say(t, spellNoforn, one(r.policy.home))
			if r.label.owner != ownOwner {
				r.bad(t, "is for "+r.policy.nation+" material")
			}
		case key == "RELEASABLE BY INFORMATION DISCLOSURE OFFICIAL":
			r.mark(setDissem, t)
		case word == "REL TO":
			r.relTo(t)
		case word == "DISPLAY ONLY":
			r.displayOnly(t)
		case word == "EYES ONLY":
			end := strings.LastIndex(fold(t.text), " EYES")
			list := append(pending, token{t.text[:min(end, len(t.text))], t.offset}.trim())
			pending = nil
			r.list(t, spellEyes, list)
		case isNation || isGroup:
			pending = append(pending, t)
		default:
			r.mark(setDissem, t)
		}
	}
	for _, t := range pending {
		r.bad(t, "is a nation without REL TO or EYES ONLY")
	}
}

// after is what follows the words of a mark in t.
func (r *usaReader) after(t token, mark string) token {
	w := &r.policy.marks[r.policy.markBy[setDissem+"\x00"+mark]].phrases
	best := t
	for _, s := range append([]string{w.name, w.portion}, w.others...) {
		if rest, ok := t.afterWord(s); ok && len(rest.text) < len(best.text) {
			best = rest
		}
	}
	return best
}

func (r *usaReader) relTo(t token) {
	rest := r.after(t, "REL TO")
	if rest.text == "" {
		if b := r.banner; b != nil && b.spelling == spellRel {
			r.say(t, spellRel, b.audience)
			return
		}
		r.bad(t, "names no nation; that is for a portion under a banner with REL TO")
		return
	}
	r.list(t, spellRel, r.listing(rest))
}

// list reads a list that says who may read.
func (r *usaReader) list(t token, s spelling, list []token) {
	before := len(r.faults)
	set := r.nationList(list)
	if len(r.faults) > before {
		return
	}
	if !set.has(r.policy.home) {
		r.bad(t, "does not name "+r.policy.nation)
	}
	if o := r.label.owner; o != ownOwner && o != jointOwner && !set.has(int(o-1)) {
		r.bad(t, "does not name the owner")
	}
	if set.count() < 2 {
		r.bad(t, "names fewer than two")
	}
	r.say(t, s, set)
}

// say takes note of the one word about the audience.
func (r *usaReader) say(t token, s spelling, set nationSet) {
	if r.audience {
		r.bad(t, "speaks of release a second time: NOFORN, REL TO and EYES ONLY exclude each other")
	}
	r.audience, r.spelled, r.label.audience = true, s, set
}

func (r *usaReader) displayOnly(t token) {
	rest := r.after(t, "DISPLAY ONLY")
	if !r.label.display.empty() {
		r.bad(t, "is named twice")
	}
	r.label.display = r.nationList(r.listing(rest))
}

// settle gives a label that nothing was said of its default audience, and every label its one spelling.
func (r *usaReader) settle() {
	l := &r.label
	if !r.audience {
		l.audience, l.all = r.policy.defaultAudience(l)
	}
	l.spell(r.spelled)
}
