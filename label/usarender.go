package label

import "strings"

func (g *usaGrammar) render(l Label, portion bool) string {
	segments := []string{g.head(&l, portion)}
	add := func(s string) {
		if s != "" {
			segments = append(segments, s)
		}
	}
	add(g.paths(&l, setSCI, portion))
	if s := g.paths(&l, setSAR, portion); s != "" {
		add("SAR-" + s)
	}
	add(g.paths(&l, setAEA, portion))
	add(g.paths(&l, setNATO, portion))
	if l.owner == ownOwner && l.fgiSeen {
		add(strings.TrimSpace("FGI " + strings.Join(g.p.alphabetic(l.fgi), " ")))
	}
	add(g.cui(&l, portion))
	add(strings.Join(g.dissem(&l, portion), "/"))
	add(strings.Join(g.marks(&l, setNonIC, portion), "/"))
	if l.spelling == spellAudience {
		add(g.p.renderAudience(&l))
	}
	return strings.Join(segments, "//")
}

// head is the classification, with its owner when that is another.
func (g *usaGrammar) head(l *Label, portion bool) string {
	c := g.p.classes[l.class].in(portion)
	switch {
	case l.owner == ownOwner:
		return c
	case l.owner == jointOwner:
		return "//JOINT " + c + " " + strings.Join(g.p.alphabetic(l.fgi), " ")
	}
	owner := g.p.nations[l.owner-1].name
	if words, ok := natoWords[g.p.classes[l.class].name]; ok && owner == "NATO" {
		if portion {
			return "//" + words[1]
		}
		return "//" + words[0]
	}
	return "//" + owner + " " + c
}

// paths writes the categories of a set: systems by "/", compartments by "-", sub-compartments by " ".
func (g *usaGrammar) paths(l *Label, set string, portion bool) string {
	var b strings.Builder
	for i := range g.p.cats {
		c := &g.p.cats[i]
		if c.set != set || !l.cats.has(i) {
			continue
		}
		switch {
		case c.depth == 0 && b.Len() > 0:
			b.WriteString("/" + c.in(portion))
		case c.depth == 0:
			b.WriteString(c.in(portion))
		case c.depth == 1:
			b.WriteString("-" + c.name[strings.LastIndexByte(c.name, '-')+1:])
		default:
			b.WriteString(" " + c.name[strings.LastIndexByte(c.name, ' ')+1:])
		}
	}
	return b.String()
}

// cui writes CUI, and behind a further "//" the categories of it.
func (g *usaGrammar) cui(l *Label, portion bool) string {
	names := g.marks(l, setCUI, portion)
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return names[0] + "//" + strings.Join(names[1:], "/")
}

func (g *usaGrammar) marks(l *Label, set string, portion bool) []string {
	var names []string
	for i := range g.p.marks {
		if m := &g.p.marks[i]; m.set == set && l.marks.has(i) {
			names = append(names, m.in(portion))
		}
	}
	return names
}

// dissem writes the dissemination controls in the register's order, the audience's words in their places.
func (g *usaGrammar) dissem(l *Label, portion bool) []string {
	var out []string
	for i := range g.p.marks {
		m := &g.p.marks[i]
		if m.set != setDissem {
			continue
		}
		switch m.name {
		case "NOFORN":
			if l.spelling == spellNoforn && !g.saysNoforn(l) {
				out = append(out, m.in(portion))
			}
		case "REL TO":
			if l.spelling == spellRel {
				out = append(out, "REL TO "+strings.Join(g.p.listed(l.audience), ", "))
			}
		case "EYES ONLY":
			if l.spelling == spellEyes {
				out = append(out, strings.Join(g.p.listed(l.audience), "/")+" "+m.in(portion))
			}
		case "DISPLAY ONLY":
			if !l.display.empty() {
				out = append(out, "DISPLAY ONLY "+strings.Join(g.p.alphabetic(l.display), ", "))
			}
		default:
			if l.marks.has(i) {
				out = append(out, m.in(portion))
			}
		}
	}
	return out
}

// saysNoforn reports whether a mark of l has NOFORN in its name already: SBU NOFORN, LES NOFORN.
func (g *usaGrammar) saysNoforn(l *Label) bool {
	for i := range g.p.marks {
		if m := &g.p.marks[i]; l.marks.has(i) && m.ownerOnly && strings.HasSuffix(m.name, " NOFORN") {
			return true
		}
	}
	return false
}
