package label

import (
	"fmt"
	"strings"
)

// plainGrammar reads and writes the markings of policies without a grammar of their own:
//
//	CLASSIFICATION//CAVEAT/CAVEAT//REL TO A, B
//
// Behind the classification a caveat may also follow directly: COSMIC TOP SECRET ATOMAL, CTS-A, SECRET UK
// EYES ONLY, OFFICIAL-SENSITIVE COMMERCIAL. REL TO adds to the owner, who need not be named. Written are
// restrictive categories, then marks, then the audience, each kind in the policy's order.
type plainGrammar struct {
	p       *Policy
	caveats map[string]ref // by folded phrase
}

func (g *plainGrammar) eyes() bool { return true }

// prepare indexes the caveats. A phrase must stand for one thing, whichever tag set it is from.
func (g *plainGrammar) prepare() error {
	g.caveats = map[string]ref{}
	put := func(w phrases, r ref, replaces bool) error {
		for _, s := range append([]string{w.name, w.portion}, w.others...) {
			key := fold(s)
			old, taken := g.caveats[key]
			_, class := g.p.classBy[key]
			switch {
			case taken && old != r, class && replaces, g.p.ownerOnlyPhrase(key):
				return fmt.Errorf("%q stands for two things", s)
			case strings.Contains(key, "/"), key == "AUDIENCE", strings.HasPrefix(key, "AUDIENCE "),
				strings.HasPrefix(key, "REL "), strings.HasPrefix(key, "RELEASABLE TO"), strings.HasSuffix(key, " EYES ONLY"):
				return fmt.Errorf("%q would be read as something else", s)
			}
			g.caveats[key] = r
		}
		return nil
	}
	for i, c := range g.p.cats {
		if err := put(c.phrases, ref{refCategory, i}, c.replaceClass); err != nil {
			return err
		}
	}
	for i, m := range g.p.marks {
		if err := put(m.phrases, ref{refMark, i}, m.replaceClass); err != nil {
			return err
		}
	}
	for _, c := range g.p.classes {
		for _, s := range append([]string{c.name, c.portion}, c.others...) {
			if strings.Contains(s, "/") {
				return fmt.Errorf("the classification %q has a slash", s)
			}
		}
	}
	for _, n := range g.p.nations {
		if strings.Contains(n.name, "/") || fold(n.name) == "ALL" || fold(n.name) == "NONE" {
			return fmt.Errorf("the releasability %q cannot stand in a list", n.name)
		}
	}
	return nil
}

// ownerOnlyPhrase reports whether the folded phrase is the policy's word for "the owner's nation alone".
func (p *Policy) ownerOnlyPhrase(key string) bool {
	if p.ownerOnly.name == "" {
		return false
	}
	for _, s := range append([]string{p.ownerOnly.name, p.ownerOnly.portion}, p.ownerOnly.others...) {
		if fold(s) == key {
			return true
		}
	}
	return false
}

// plainReader is one marking being read by plainGrammar.
type plainReader struct {
	*input
	g       *plainGrammar
	label   Label
	said    bool
	spelled spelling
}

func (g *plainGrammar) parse(in *input) Label {
	r := &plainReader{input: in, g: g, label: Label{policy: g.p}}
	segments := in.body().split("//")
	if segments[0].text == "" {
		in.fault(0, "", "there is no classification")
		return Label{}
	}
	r.first(segments[0])
	for _, s := range segments[1:] {
		if s.text == "" {
			r.bad(s, "an empty segment stands between slashes")
			continue
		}
		r.caveats(s)
	}
	if len(in.faults) == 0 {
		l := &r.label
		if !r.said {
			l.audience, l.all = g.p.defaultAudience(l)
		}
		l.spell(r.spelled)
	}
	return r.label
}

// first reads the classification, the longest that the segment starts with, and what follows it directly.
func (r *plainReader) first(s token) {
	for end := candidate(s.text); end > 0; end = strings.LastIndexAny(s.text[:end], " -:") {
		key := fold(s.text[:end])
		rest := s.from(end)
		rest = rest.from(len(rest.text) - len(strings.TrimLeft(rest.text, " -:")))
		if c, ok := r.policy.classBy[key]; ok {
			r.label.class, r.label.rank = uint8(c), r.policy.classes[c].rank
		} else if to, ok := r.g.caveats[key]; ok {
			c, ok := r.g.replaces(to)
			if !ok {
				continue
			}
			r.label.class, r.label.rank = c, r.policy.classes[c].rank
			r.take(s, to)
		} else {
			continue
		}
		if rest.text != "" {
			r.caveats(rest)
		}
		return
	}
	r.bad(s, "does not start with a classification of policy "+r.policy.name)
}

// candidate is where the longest phrase that s could start with may end. It is bounded, so that a long
// marking of many words costs no more than its length.
func candidate(s string) int {
	const longest = 2 * maxPhraseBytes // accents and spaces may be written at greater length than the policy does
	if len(s) <= longest {
		return len(s)
	}
	return max(0, strings.LastIndexAny(s[:longest], " -:"))
}

// replaces gives the classification that a caveat's phrase stands for as well: the only one that it may stand with.
func (g *plainGrammar) replaces(to ref) (uint8, bool) {
	it := g.p.itemOf(to)
	if !it.replaceClass {
		return 0, false
	}
	found, n := uint8(0), 0
	for i := range g.p.classes {
		if !it.excludesClass(uint8(i)) {
			found, n = uint8(i), n+1
		}
	}
	return found, n == 1
}

// caveats reads one segment behind the classification.
func (r *plainReader) caveats(s token) {
	if rest, ok := s.afterWord("AUDIENCE"); ok {
		r.say(s, spellAudience, nationSet{})
		r.input.audience(&r.label, rest)
		return
	}
	var pending []token
	for _, t := range s.split("/") {
		key := fold(t.text)
		if r.policy.ownerOnlyPhrase(key) {
			r.say(t, spellNoforn, one(r.policy.home))
			continue
		}
		if strings.HasSuffix(key, " EYES ONLY") {
			end := max(0, len(t.text)-len("EYES ONLY"))
			r.eyesOnly(t, append(pending, token{t.text[:end], t.offset}.trim()))
			pending = nil
			continue
		}
		if _, ok := r.policy.nationBy[key]; ok {
			if _, caveat := r.g.caveats[key]; !caveat {
				pending = append(pending, t)
				continue
			}
		}
		r.words(t)
	}
	for _, t := range pending {
		r.bad(t, "is a nation without REL TO or EYES ONLY")
	}
}

// words reads caveats that only spaces part, longest first.
func (r *plainReader) words(t token) {
	for t.text != "" {
		for _, word := range []string{"REL TO", "RELEASABLE TO", "REL"} {
			if rest, ok := t.afterWord(word); ok {
				r.relTo(t, rest)
				return
			}
		}
		end := candidate(t.text)
		for ; end > 0; end = max(0, strings.LastIndexAny(t.text[:end], " \t")) {
			key := fold(t.text[:end])
			if to, ok := r.g.caveats[key]; ok {
				r.take(token{t.text[:end], t.offset}, to)
				break
			}
			if r.policy.ownerOnlyPhrase(key) {
				r.say(token{t.text[:end], t.offset}, spellNoforn, one(r.policy.home))
				break
			}
		}
		if end == 0 {
			r.bad(t, "is not a caveat of policy "+r.policy.name)
			return
		}
		t = t.from(end).trim()
	}
}

// take adds the caveat that t names.
func (r *plainReader) take(t token, to ref) {
	l := &r.label
	if to.kind == refCategory && l.cats.has(to.index) || to.kind == refMark && l.marks.has(to.index) {
		r.bad(t, "is named twice")
		return
	}
	if to.kind == refCategory {
		l.cats = l.cats.join(r.policy.cats[to.index].implies)
	} else {
		l.marks.add(to.index)
	}
}

func (r *plainReader) relTo(t, rest token) {
	if rest.text == "" {
		if b := r.banner; b != nil && b.spelling == spellRel {
			r.say(t, spellRel, b.audience)
			return
		}
		r.bad(t, "names no nation; that is for a portion under a banner with REL TO")
		return
	}
	before := len(r.faults)
	set := r.nationList(r.listing(rest))
	set.add(r.policy.home)
	if set.count() < 2 && len(r.faults) == before {
		r.bad(t, "names nobody but the owner")
	}
	r.say(t, spellRel, set)
}

func (r *plainReader) eyesOnly(t token, list []token) {
	before := len(r.faults)
	set := r.nationList(list)
	if len(r.faults) == before && (!set.has(r.policy.home) || set.count() < 2) {
		r.bad(t, "does not name "+r.policy.nation+" and another")
	}
	r.say(t, spellEyes, set)
}

func (r *plainReader) say(t token, s spelling, set nationSet) {
	if r.said {
		r.bad(t, "speaks of release a second time")
	}
	r.said, r.spelled, r.label.audience = true, s, set
}

func (g *plainGrammar) render(l Label, portion bool) string {
	p := g.p
	head := p.classes[l.class].in(portion)
	var cats, marks []string
	replaced := false
	word := func(w phrases, to ref) (string, bool) {
		if c, ok := g.replaces(to); ok && c == l.class && !replaced {
			replaced, head = true, w.in(portion)
			return "", false
		}
		return w.in(portion), true
	}
	for i := range p.cats {
		if l.cats.has(i) {
			if s, ok := word(p.cats[i].phrases, ref{refCategory, i}); ok {
				cats = append(cats, s)
			}
		}
	}
	for i := range p.marks {
		if l.marks.has(i) {
			if s, ok := word(p.marks[i].phrases, ref{refMark, i}); ok {
				marks = append(marks, s)
			}
		}
	}
	segments := []string{head}
	for _, s := range [][]string{cats, marks} {
		if len(s) > 0 {
			segments = append(segments, strings.Join(s, "/"))
		}
	}
	switch l.spelling {
	case spellNoforn:
		segments = append(segments, p.ownerOnly.in(portion))
	case spellRel:
		segments = append(segments, "REL TO "+strings.Join(p.listed(l.audience), ", "))
	case spellEyes:
		segments = append(segments, strings.Join(p.listed(l.audience), "/")+" EYES ONLY")
	case spellAudience:
		segments = append(segments, p.renderAudience(&l))
	}
	return strings.Join(segments, "//")
}
