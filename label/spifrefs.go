package label

import (
	"errors"
	"fmt"
	"strings"
)

// references resolves requiredCategory and excludedCategory of classifications and tag categories.
func (r *spifReader) references(root *element) error {
	for _, e := range root.child("securityClassifications").children {
		c := &r.p.classes[r.classByName(e.attr("name"))]
		required, err := r.requirements(e)
		if err != nil {
			return err
		}
		c.required = required
	}
	for _, from := range r.tagItems {
		it := r.p.itemOf(from.ref)
		required, err := r.requirements(from.e)
		if err != nil {
			return err
		}
		it.required = required
		for _, x := range from.e.all("excludedCategory") {
			group, err := r.group(x)
			if err != nil {
				return err
			}
			if x.attr("all") == "true" && x.attr("tagType") == "permissive" {
				it.ownerOnly = true
				continue
			}
			it.exclusions = append(it.exclusions, requirement{groups: [][]ref{group}})
		}
	}
	return nil
}

func (p *Policy) itemOf(r ref) *item {
	switch r.kind {
	case refCategory:
		return &p.cats[r.index].item
	case refMark:
		return &p.marks[r.index].item
	}
	return &p.nations[r.index].item
}

func (r *spifReader) requirements(e *element) ([]requirement, error) {
	var out []requirement
	for _, x := range e.all("requiredCategory") {
		if err := x.conform(shape{attrs: "operation!", children: "categoryGroup"}); err != nil {
			return nil, err
		}
		q := requirement{operation: x.attr("operation")}
		if q.operation != "onlyOne" && q.operation != "oneOrMore" && q.operation != "all" {
			return nil, x.errorf("has the operation %q", clip(q.operation))
		}
		for _, g := range x.children {
			group, err := r.group(g)
			if err != nil {
				return nil, err
			}
			q.groups = append(q.groups, group)
		}
		out = append(out, q)
	}
	return out, nil
}

// group is what a categoryGroup or excludedCategory points at: one item, or all of a tag set and type.
func (r *spifReader) group(e *element) ([]ref, error) {
	if err := e.conform(shape{attrs: "tagSetRef! tagType! enumType lacv all"}); err != nil {
		return nil, err
	}
	kind, err := e.tagKind()
	if err != nil {
		return nil, err
	}
	set, lacv := e.attr("tagSetRef"), e.attr("lacv")
	if r.p.setIDs[set] == "" {
		return nil, e.errorf("points at the tag set %q, which there is not", clip(set))
	}
	if lacv != "" && e.attr("all") == "true" {
		return nil, e.errorf("has both lacv and all")
	}
	var out []ref
	for _, it := range r.tagItems {
		if it.set == set && it.tagType == kind && (lacv == "" || lacv == it.lacv) {
			out = append(out, it.ref)
		}
	}
	if r.refs += len(out); r.refs > maxReferences {
		return nil, e.errorf("is one reference too many; %d are possible", maxReferences)
	}
	if len(out) == 0 {
		return nil, e.errorf("points at nothing in the tag set %q", clip(set))
	}
	return out, nil
}

// extensions reads what SPIF has no word for, before anything that depends on it.
func (r *spifReader) extensions(root *element) error {
	ext := root.child("extensions")
	if ext == nil {
		return nil
	}
	if len(ext.attrs) > 0 || ext.text != "" || len(ext.children) != 1 || ext.children[0].name.Local != "policy" ||
		ext.children[0].name.Space != spifOurs {
		return ext.errorf("holds something other than one <policy> of %s", spifOurs)
	}
	r.ours = ext.children[0]
	shapes := map[string]string{
		"open": "classification!", "foreign": "classification!", "ownerOnly": "phrase! portion!", "alias": "phrase!",
		"nations": "list!", "group": "name! members!", "rollUp": "mark! rule! other",
	}
	err := r.ours.conform(shape{attrs: "nation! grammar!", children: "open foreign ownerOnly? alias nations? group rollUp"})
	if err != nil {
		return err
	}
	for _, e := range r.ours.children {
		if err := e.conform(shape{attrs: shapes[e.name.Local]}); err != nil {
			return err
		}
	}
	return nil
}

// nations completes the audience's vocabulary: the country codes, the own nation, and the groups.
func (r *spifReader) nations(*element) error {
	p := r.p
	named := map[string]int{}
	for i, n := range p.nations {
		named[n.name] = i
	}
	add := func(code string) {
		if _, ok := named[code]; ok {
			return
		}
		named[code] = len(p.nations)
		n := nation{phrases: phrases{name: code, portion: code}, group: len(code) != 3, item: item{spif: code}}
		p.nations = append(p.nations, n)
	}
	p.nation = p.name
	if r.ours != nil {
		p.nation = r.ours.attr("nation")
		if e := r.ours.child("nations"); e != nil {
			if e.attr("list") != "GENC" {
				return e.errorf("names the unknown list %q", clip(e.attr("list")))
			}
			for _, c := range countryCodes() {
				add(c)
			}
		}
	}
	if err := r.permittedName(p.nation); err != nil {
		return err
	}
	add(p.nation)
	p.home = named[p.nation]
	if len(p.nations) > maxNations {
		return errors.New("the policy has more nations than fit in a label")
	}
	p.groups = map[string]nationSet{}
	if r.ours == nil {
		return nil
	}
	for _, e := range r.ours.all("group") {
		var set nationSet
		for _, m := range strings.Fields(e.attr("members")) {
			i, ok := named[m]
			if !ok || set.has(i) {
				return e.errorf("has the member %q, which is no nation or was named before", clip(m))
			}
			set.add(i)
		}
		name := fold(e.attr("name"))
		if _, ok := named[name]; ok || !p.groups[name].empty() || set.count() < 2 {
			return e.errorf("is a second thing named %q, or has fewer than two members", clip(name))
		}
		p.groups[name] = set
	}
	return nil
}

func (r *spifReader) permittedName(name string) error {
	return (&element{name: xmlName("securityPolicyId")}).phraseOK(name)
}

// marksAndGroups reads the rest of the extension and settles ranks and grammar.
func (r *spifReader) marksAndGroups(*element) error {
	p := r.p
	grammarName := "plain"
	if r.ours != nil {
		grammarName = r.ours.attr("grammar")
		for _, e := range r.ours.children {
			if err := r.extension(e); err != nil {
				return err
			}
		}
	}
	top := int(p.classes[len(p.classes)-1].rank)
	p.ordinary = make([]uint8, top+1)
	have := make([]bool, top+1)
	for i, c := range p.classes {
		if c.foreign || have[c.rank] {
			continue
		}
		p.ordinary[c.rank], have[c.rank] = uint8(i), true
	}
	for rank, ok := range have {
		if !ok {
			return fmt.Errorf("no own classification has rank %d", rank)
		}
	}
	switch grammarName {
	case "usa":
		p.grammar = &usaGrammar{p: p}
	case "plain":
		p.grammar = &plainGrammar{p: p}
	default:
		return r.ours.errorf("names the unknown grammar %q", clip(grammarName))
	}
	return nil
}

func (r *spifReader) extension(e *element) error {
	p := r.p
	switch e.name.Local {
	case "open", "foreign":
		c := r.classByName(e.attr("classification"))
		if c < 0 || e.name.Local == "open" && p.classes[c].rank != 0 {
			return e.errorf("names %q, which is no classification or not the lowest", clip(e.attr("classification")))
		}
		if e.name.Local == "open" {
			p.classes[c].open = true
		} else {
			p.classes[c].foreign = true
		}
	case "ownerOnly":
		if err := errors.Join(e.phraseOK(e.attr("phrase")), e.phraseOK(e.attr("portion"))); err != nil {
			return err
		}
		p.ownerOnly.name, p.ownerOnly.portion = e.attr("phrase"), e.attr("portion")
	case "alias":
		if err := e.phraseOK(e.attr("phrase")); err != nil {
			return err
		}
		p.ownerOnly.others = append(p.ownerOnly.others, e.attr("phrase"))
	case "rollUp":
		m, other := r.markByName(e.attr("mark")), r.markByName(e.attr("other"))
		if m < 0 {
			return e.errorf("names the mark %q, which there is not", clip(e.attr("mark")))
		}
		switch e.attr("rule") {
		case "all":
			p.marks[m].needsAll = true
		case "widens":
			p.marks[m].needsAll, p.marks[m].widens = true, true
		case "unless":
			if other < 0 || other == m {
				return e.errorf("names the other mark %q", clip(e.attr("other")))
			}
			p.marks[m].weaker = other
		default:
			return e.errorf("has the rule %q", clip(e.attr("rule")))
		}
	}
	return nil
}

func (r *spifReader) markByName(name string) int {
	for i, m := range r.p.marks {
		if m.name == name {
			return i
		}
	}
	return -1
}

// finish closes the categories and lets the grammar prepare its tables.
func (r *spifReader) finish() error {
	p := r.p
	_, paths := p.grammar.(*usaGrammar)
	for i := range p.cats {
		c := &p.cats[i]
		c.implies.add(i)
		if !paths {
			continue
		}
		for up := c.parentName(); up != ""; up = (&category{phrases: phrases{name: up}}).parentName() {
			j, ok := p.catBy[c.set+"\x00"+fold(up)]
			if !ok {
				return fmt.Errorf("the category %q has no %q above it", c.name, up)
			}
			c.implies.add(j)
			c.depth++
		}
	}
	return p.grammar.prepare()
}

// parentName is the name of what a category is directly under, or "": SI-G for SI-G ABCD, SI for SI-G.
func (c *category) parentName() string {
	if i := strings.LastIndexByte(c.name, ' '); i >= 0 && strings.Contains(c.name[:i], "-") {
		return c.name[:i]
	}
	if i := strings.LastIndexByte(c.name, '-'); i >= 0 {
		return c.name[:i]
	}
	return ""
}
