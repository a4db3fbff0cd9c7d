package label

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Limits on an equivalence file.
const (
	MaxEquivalenceBytes = 1 << 20
	maxJSONDepth        = 8
)

// ErrExpired says that an agreement's time has passed, or not come.
var ErrExpired = errors.New("the agreement is not in force")

// Equivalence is the part of an agreement that says what a label of one policy is in another. It has one
// direction: what is equivalent to what is disputed, and the way back is another treaty's. It is immutable.
//
// An Equivalence proves nothing: whoever reads one checks the agreement's signatures first.
type Equivalence struct {
	from, to          *Policy
	notBefore, expiry time.Time
	now               func() time.Time
	classes           map[int]uint8
	cats              map[int]categorySet
	marks             map[int]markSet
	nations           map[int]nationSet
	all               bool // ALL stays ALL
}

// equivalenceFile is the form of the file. A list that is empty says: known, and without counterpart;
// only handling marks may say so, since a category or a nation that vanished would widen who may read.
type equivalenceFile struct {
	Format          string              `json:"format"`          // "redoubt-equivalence-1"
	From            string              `json:"from"`            // POLICY@VERSION
	To              string              `json:"to"`              // POLICY@VERSION
	NotBefore       string              `json:"notBefore"`       // RFC 3339
	Expires         string              `json:"expires"`         // RFC 3339
	Classifications map[string]string   `json:"classifications"` // by full name
	Categories      map[string][]string `json:"categories"`      // by canonical name: all of these are needed
	Marks           map[string][]string `json:"marks"`           // by canonical name
	Audience        map[string][]string `json:"audience"`        // by code; ALL to ALL; a group to its members
}

const equivalenceFormat = "redoubt-equivalence-1"

// ReadEquivalence reads the mapping of an agreement from JSON, strictly: unknown or repeated keys, names
// that a policy lacks, an order of classifications that the mapping turns round, and anything after the
// document are errors. now is asked at every Convert. Without known policies the built-in ones are known.
func ReadEquivalence(r io.Reader, now func() time.Time, known ...*Policy) (*Equivalence, error) {
	e, err := readEquivalence(r, known)
	if err != nil {
		return nil, fmt.Errorf("read equivalence: %w", err)
	}
	if now == nil {
		return nil, errors.New("read equivalence: there is no clock to tell whether it is in force")
	}
	e.now = now
	return e, nil
}

func readEquivalence(r io.Reader, known []*Policy) (*Equivalence, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxEquivalenceBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxEquivalenceBytes {
		return nil, fmt.Errorf("is larger than %d bytes", MaxEquivalenceBytes)
	}
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	var f equivalenceFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if f.Format != equivalenceFormat {
		return nil, fmt.Errorf("has the format %q; this reads %q", clip(f.Format), equivalenceFormat)
	}
	e := &Equivalence{classes: map[int]uint8{}, cats: map[int]categorySet{}, marks: map[int]markSet{}, nations: map[int]nationSet{}}
	if e.from, err = policyOf(f.From, known); err != nil {
		return nil, err
	}
	if e.to, err = policyOf(f.To, known); err != nil {
		return nil, err
	}
	if e.from == e.to {
		return nil, errors.New("goes from a policy to itself")
	}
	if e.notBefore, err = time.Parse(time.RFC3339, f.NotBefore); err != nil {
		return nil, fmt.Errorf("notBefore: %w", err)
	}
	if e.expiry, err = time.Parse(time.RFC3339, f.Expires); err != nil {
		return nil, fmt.Errorf("expires: %w", err)
	}
	if !e.notBefore.Before(e.expiry) {
		return nil, errors.New("expires before it begins")
	}
	return e, errors.Join(e.readClasses(f.Classifications), e.readCategories(f.Categories), e.readMarks(f.Marks), e.readAudience(f.Audience))
}

func (e *Equivalence) readClasses(m map[string]string) error {
	find := func(p *Policy, name string) int {
		return slices.IndexFunc(p.classes, func(c class) bool { return c.name == name })
	}
	for from, to := range m {
		i, j := find(e.from, from), find(e.to, to)
		if i < 0 || j < 0 {
			return fmt.Errorf("the classification %q or %q is unknown", clip(from), clip(to))
		}
		e.classes[i] = uint8(j)
	}
	for i, a := range e.classes {
		for j, b := range e.classes {
			if e.from.classes[i].rank < e.from.classes[j].rank && e.to.classes[a].rank > e.to.classes[b].rank {
				return fmt.Errorf("%s and %s change their order", e.from.classes[i].name, e.from.classes[j].name)
			}
		}
	}
	return nil
}

func (e *Equivalence) readCategories(m map[string][]string) error {
	find := func(p *Policy, name string) int {
		return slices.IndexFunc(p.cats, func(c category) bool { return c.fullName() == name })
	}
	for from, list := range m {
		i := find(e.from, from)
		if i < 0 || len(list) == 0 {
			return fmt.Errorf("the category %q is unknown or becomes nothing", clip(from))
		}
		var set categorySet
		for _, to := range list {
			j := find(e.to, to)
			if j < 0 {
				return fmt.Errorf("the category %q is unknown", clip(to))
			}
			set = set.join(e.to.cats[j].implies)
		}
		e.cats[i] = set
	}
	return nil
}

func (e *Equivalence) readMarks(m map[string][]string) error {
	find := func(p *Policy, name string) int {
		return slices.IndexFunc(p.marks, func(c mark) bool { return c.name == name && !c.structural() })
	}
	for from, list := range m {
		i := find(e.from, from)
		if i < 0 {
			return fmt.Errorf("the mark %q is unknown", clip(from))
		}
		var set markSet
		for _, to := range list {
			j := find(e.to, to)
			if j < 0 {
				return fmt.Errorf("the mark %q is unknown", clip(to))
			}
			set.add(j)
		}
		e.marks[i] = set
	}
	return nil
}

func (e *Equivalence) readAudience(m map[string][]string) error {
	for from, list := range m {
		if from == "ALL" {
			if !slices.Equal(list, []string{"ALL"}) {
				return errors.New("ALL can only stay ALL")
			}
			e.all = true
			continue
		}
		i, ok := e.from.nationBy[from]
		if !ok || e.from.nations[i].name != from || len(list) == 0 {
			return fmt.Errorf("the nation %q is unknown or becomes nobody", clip(from))
		}
		var set nationSet
		for _, to := range list {
			j, ok := e.to.nationBy[to]
			if !ok || e.to.nations[j].name != to {
				return fmt.Errorf("the nation %q is unknown", clip(to))
			}
			set.add(j)
		}
		e.nations[i] = set
	}
	return nil
}

// From is the policy that Convert reads, To the one that it writes.
func (e *Equivalence) From() *Policy { return e.from }

// To is the policy that Convert writes.
func (e *Equivalence) To() *Policy { return e.to }

// Expires is the moment from which Convert refuses.
func (e *Equivalence) Expires() time.Time { return e.expiry }

// Convert gives the label of the other policy that the agreement sets beside l. Whatever the agreement
// does not name is refused, never dropped: a classification, a category, a mark, a reader. Material of a
// third owner is refused too, for its consent is not this agreement's to give. Where the other policy's
// markings know owners, the result is owned by the nation of l's policy. Outside its time the error is ErrExpired.
//
// The result keeps the order: if a dominates b, Convert(a) dominates Convert(b).
func (e *Equivalence) Convert(l Label) (Label, error) {
	p := e.from
	switch now := e.now(); {
	case now.Before(e.notBefore) || !now.Before(e.expiry):
		return Label{}, ErrExpired
	case l.policy != p:
		return Label{}, fmt.Errorf("%q is not a label of policy %s", clip(l.Banner()), p.name)
	case l.owner != ownOwner || l.fgiSeen:
		return Label{}, fmt.Errorf("%q holds another owner's information", clip(l.Banner()))
	case !l.display.empty():
		return Label{}, fmt.Errorf("DISPLAY ONLY of %q has no counterpart", clip(l.Banner()))
	}
	c, ok := e.classes[int(l.class)]
	if !ok {
		return Label{}, unmapped(p.classes[l.class].name)
	}
	out := Label{policy: e.to, class: c, rank: e.to.classes[c].rank}
	for i := range p.cats {
		if !l.cats.has(i) {
			continue
		}
		set, ok := e.cats[i]
		if !ok {
			return Label{}, unmapped(p.cats[i].fullName())
		}
		out.cats = out.cats.join(set)
	}
	for i := range p.marks {
		if !l.marks.has(i) {
			continue
		}
		set, ok := e.marks[i]
		if !ok {
			return Label{}, unmapped(p.marks[i].name)
		}
		out.marks = out.marks.join(set)
	}
	if _, ok := e.to.grammar.(*usaGrammar); ok && p.nation != e.to.nation {
		n, ok := e.to.nationBy[p.nation]
		if !ok {
			return Label{}, fmt.Errorf("policy %s does not know the owner %s", e.to.name, p.nation)
		}
		out.owner = uint16(n + 1)
	}
	if err := e.audience(&l, &out); err != nil {
		return Label{}, err
	}
	e.to.closeCUI(&out)
	out.spell(l.spelling)
	if err := out.Valid(); err != nil {
		return Label{}, err
	}
	return out, nil
}

func (e *Equivalence) audience(l, out *Label) error {
	if l.all {
		if out.all = true; !e.all {
			return unmapped("ALL")
		}
		return nil
	}
	for i := range e.from.nations {
		if !l.audience.has(i) {
			continue
		}
		set, ok := e.nations[i]
		if !ok {
			return unmapped(e.from.nations[i].name)
		}
		out.audience = out.audience.join(set)
	}
	if out.audience.empty() {
		return errors.New("nobody may read it")
	}
	return nil
}

func unmapped(name string) error { return fmt.Errorf("the agreement does not say what %q is", name) }

// checkJSON refuses what encoding/json lets pass: keys given twice, also in another case, keys of the
// document in another case than the format's, nesting past the limit, and anything behind the document.
func checkJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := checkJSONValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something stands behind the document")
	}
	return nil
}

func checkJSONValue(d *json.Decoder, depth int) error {
	if depth > maxJSONDepth {
		return fmt.Errorf("is nested deeper than %d", maxJSONDepth)
	}
	tok, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			tok, err := d.Token()
			if err != nil {
				return err
			}
			key, _ := tok.(string)
			if seen[strings.ToLower(key)] {
				return fmt.Errorf("the key %q stands twice", clip(key))
			}
			seen[strings.ToLower(key)] = true
			if depth == 0 && !slices.Contains(equivalenceKeys[:], key) {
				return fmt.Errorf("the key %q is unknown", clip(key))
			}
		}
		if err := checkJSONValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

var equivalenceKeys = [...]string{"format", "from", "to", "notBefore", "expires", "classifications", "categories", "marks", "audience"}
