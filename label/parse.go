package label

import (
	"fmt"
	"strings"
)

// Limits on a marking. The longest that a manual shows is under 200 bytes; one that names everything that
// the USA policy knows, as joins and meets might, is 4,500.
const (
	MaxMarkingBytes = 8192
	maxFaults       = 20 // more would help nobody find the first
)

// Fault is one thing wrong with a marking.
type Fault struct {
	Offset int    // of the offending text, in bytes from the start of the marking
	Text   string // the offending text; empty when the whole marking is at fault
	Reason string // a clause whose subject is the text: "is not a classification of policy USA"
}

// ParseError names every fault of a marking.
type ParseError struct {
	Marking string
	Faults  []Fault
}

func (e *ParseError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "marking %q:", clip(e.Marking))
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte(';')
		}
		if f.Text == "" {
			fmt.Fprintf(&b, " %s", f.Reason)
		} else {
			fmt.Fprintf(&b, " %q (byte %d) %s", clip(f.Text), f.Offset, f.Reason)
		}
	}
	return b.String()
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

// Parse reads a marking: banner or portion (with or without parentheses), full words, abbreviations or a
// mixture, in any case. The result is Valid. The error is a *ParseError that names every fault it found;
// the label is then the zero Label.
func (p *Policy) Parse(marking string) (Label, error) { return p.read(marking, nil, true) }

// ParsePortion is Parse for a portion of a document with that banner: in it REL without a list, as in
// (S//REL), stands for the banner's list.
func (p *Policy) ParsePortion(marking string, banner Label) (Label, error) {
	if banner.policy != p {
		return Label{}, &ParseError{Marking: clip(marking), Faults: []Fault{{Reason: "the banner is of another policy"}}}
	}
	return p.read(marking, &banner, true)
}

// read is Parse; without rules it accepts every point of the order, valid as a marking or not.
func (p *Policy) read(marking string, banner *Label, rules bool) (Label, error) {
	in := &input{policy: p, text: marking, banner: banner}
	if len(marking) > MaxMarkingBytes {
		in.fault(0, "", fmt.Sprintf("is longer than %d bytes", MaxMarkingBytes))
		return Label{}, &ParseError{Marking: clip(marking), Faults: in.faults}
	}
	l := p.grammar.parse(in)
	if len(in.faults) == 0 && rules {
		in.faults = p.place(marking, p.check(&l))
	}
	if len(in.faults) > 0 {
		return Label{}, &ParseError{Marking: marking, Faults: in.faults}
	}
	return l, nil
}

// place finds where the faults of a rule stand in the marking, by any spelling of what they name; a fault of
// the whole, or of something only implied, keeps the start of the marking.
func (p *Policy) place(marking string, faults []Fault) []Fault {
	upper := strings.ToUpper(marking)
	if len(upper) != len(marking) {
		return faults
	}
	for i := range faults {
		for _, s := range p.spellings(faults[i].Text) {
			if at := wordIndex(upper, strings.ToUpper(s)); at >= 0 {
				faults[i].Offset = at
				break
			}
		}
	}
	return faults
}

// spellings are all ways to write what has that canonical name.
func (p *Policy) spellings(name string) []string {
	out := []string{name}
	add := func(full string, w phrases) {
		if full == name {
			out = append(append(out, w.others...), w.portion)
		}
	}
	for i := range p.classes {
		add(p.classes[i].name, p.classes[i].phrases)
	}
	for i := range p.cats {
		add(p.cats[i].fullName(), p.cats[i].phrases)
	}
	for i := range p.marks {
		add(p.marks[i].name, p.marks[i].phrases)
	}
	return out
}

// wordIndex is the place of text in s where it is no part of a longer word, or -1.
func wordIndex(s, text string) int {
	for at := 0; text != "" && at+len(text) <= len(s); at++ {
		end := at + len(text)
		if s[at:end] == text && (at == 0 || !wordByte(s[at-1])) && (end == len(s) || !wordByte(s[end])) {
			return at
		}
	}
	return -1
}

func wordByte(b byte) bool { return 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b >= 0x80 }

// input is a marking being read.
type input struct {
	policy *Policy
	text   string
	banner *Label // of the document that the marking is a portion of, when known
	faults []Fault
}

func (in *input) fault(offset int, text, reason string) {
	if len(in.faults) < maxFaults {
		in.faults = append(in.faults, Fault{Offset: offset, Text: text, Reason: reason})
	}
}

// token is a piece of the marking with its place.
type token struct {
	text   string
	offset int
}

func (in *input) bad(t token, reason string) { in.fault(t.offset, t.text, reason) }

// trim drops the spaces around t.
func (t token) trim() token {
	left := strings.TrimLeft(t.text, " \t")
	return token{strings.TrimRight(left, " \t"), t.offset + len(t.text) - len(left)}
}

// split cuts t at every sep and trims the pieces.
func (t token) split(sep string) []token {
	var out []token
	for {
		i := strings.Index(t.text, sep)
		if i < 0 {
			return append(out, t.trim())
		}
		out = append(out, token{t.text[:i], t.offset}.trim())
		t = t.from(i + len(sep))
	}
}

// fields cuts t at spaces.
func (t token) fields() []token {
	var out []token
	for t = t.trim(); t.text != ""; t = t.trim() {
		i := strings.IndexAny(t.text, " \t")
		if i < 0 {
			return append(out, t)
		}
		out = append(out, token{t.text[:i], t.offset})
		t = t.from(i)
	}
	return out
}

// from is t without its first n bytes.
func (t token) from(n int) token { return token{t.text[n:], t.offset + n} }

// afterWord reports whether t starts with the words, and gives what follows them. Case does not matter.
func (t token) afterWord(words string) (rest token, ok bool) {
	if len(t.text) < len(words) || fold(t.text[:len(words)]) != words {
		return t, false
	}
	if len(t.text) > len(words) && t.text[len(words)] != ' ' && t.text[len(words)] != '\t' {
		return t, false
	}
	return t.from(len(words)).trim(), true
}

// body is the marking without its outer parentheses.
func (in *input) body() token {
	t := token{text: in.text}.trim()
	if strings.HasPrefix(t.text, "(") && strings.HasSuffix(t.text, ")") && len(t.text) > 1 {
		t = token{t.text[1 : len(t.text)-1], t.offset + 1}.trim()
	}
	return t
}

// nationList reads codes into a set; a group that the policy decomposes counts as its members. It says
// what is no code, what is named twice, and what stands in no list at all.
func (in *input) nationList(list []token) (set nationSet) {
	var named nationSet
	for _, t := range list {
		key := fold(t.text)
		if members, ok := in.policy.groups[key]; ok {
			set = set.join(members)
			continue
		}
		n, ok := in.policy.nationBy[key]
		switch {
		case t.text == "":
			in.bad(t, "a country code is missing")
		case !ok:
			in.bad(t, "is not a nation or group of policy "+in.policy.name)
		case named.has(n):
			in.bad(t, "is listed twice")
		default:
			named.add(n)
			set.add(n)
		}
	}
	return set
}

// listing is a list after REL TO, EYES or AUDIENCE: codes between commas, or, where none has a space, between spaces.
func (in *input) listing(t token) []token {
	if _, ok := in.policy.nationBy[fold(t.text)]; ok {
		return []token{t}
	}
	if strings.Contains(t.text, ",") {
		return t.split(",")
	}
	if f := t.fields(); len(f) > 0 {
		return f
	}
	return []token{t}
}

// audience reads what follows the word AUDIENCE: NONE, ALL, or a list.
func (in *input) audience(l *Label, rest token) {
	switch fold(rest.text) {
	case "NONE":
		l.audience = nationSet{}
	case "ALL":
		l.all = true
	default:
		l.audience = in.nationList(in.listing(rest))
	}
}

// renderAudience is the inverse of audience.
func (p *Policy) renderAudience(l *Label) string {
	switch {
	case l.all:
		return "AUDIENCE ALL"
	case l.audience.empty():
		return "AUDIENCE NONE"
	}
	return "AUDIENCE " + strings.Join(p.listed(l.audience), ", ")
}

// listed are the codes of s as REL TO lists them: the own nation, nations A to Z, groups A to Z.
func (p *Policy) listed(s nationSet) []string {
	if !s.has(p.home) {
		return p.alphabetic(s)
	}
	s.remove(p.home)
	return append([]string{p.nation}, p.alphabetic(s)...)
}

// alphabetic are the codes of s: nations A to Z, then groups A to Z.
func (p *Policy) alphabetic(s nationSet) []string {
	var nations, groups []string
	for _, i := range p.byName {
		switch {
		case !s.has(i):
		case p.nations[i].group:
			groups = append(groups, p.nations[i].name)
		default:
			nations = append(nations, p.nations[i].name)
		}
	}
	return append(nations, groups...)
}
