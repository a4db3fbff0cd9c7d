package label

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// eachPolicy runs a property over labels of every built-in policy.
func eachPolicy(t *testing.T, property func(t *rapid.T, p *Policy, labels *rapid.Generator[Label])) {
	for _, name := range BuiltinNames() {
		t.Run(name, func(t *testing.T) {
			p := policy(t, name)
			labels := labelsOf(p)
			rapid.Check(t, func(t *rapid.T) { property(t, p, labels) })
		})
	}
}

// labelsOf draws any point of the order of p with any spelling and marks that a banner may have.
func labelsOf(p *Policy) *rapid.Generator[Label] {
	_, usa := p.grammar.(*usaGrammar)
	return rapid.Custom(func(t *rapid.T) Label {
		l := Label{policy: p}
		few := rapid.SliceOfN(rapid.IntRange(0, 1<<20), 0, 4)
		nations := func(name string) (s nationSet) {
			for _, i := range few.Draw(t, name) {
				if i%3 == 0 {
					s.add(p.home)
				} else if i%3 == 1 { // few nations, so that sets often meet
					s.add(p.byName[i/3%5])
				} else {
					s.add(p.byName[i/3%len(p.byName)])
				}
			}
			return s
		}
		if usa {
			switch rapid.IntRange(0, 7).Draw(t, "owner") {
			case 0:
				if s := nations("owners"); s.count() > 1 {
					l.owner, l.fgi = jointOwner, s
				}
			case 1, 2:
				if i := rapid.IntRange(0, len(p.nations)-1).Draw(t, "foreign"); i != p.home {
					l.owner = uint16(i + 1)
				}
			case 3:
				l.fgiSeen, l.fgi = true, nations("sources")
				l.fgi.remove(p.home)
			}
			l.display = nations("display")
		}
		for {
			l.class = uint8(rapid.IntRange(0, len(p.classes)-1).Draw(t, "class"))
			if !p.classes[l.class].foreign || l.owner != ownOwner {
				break
			}
		}
		l.rank = p.classes[l.class].rank
		for _, i := range few.Draw(t, "categories") {
			if len(p.cats) > 0 {
				l.cats = l.cats.join(p.cats[i%len(p.cats)].implies)
			}
		}
		var marks markSet
		for _, i := range few.Draw(t, "marks") {
			if len(p.marks) > 0 && !p.marks[i%len(p.marks)].structural() {
				marks.add(i % len(p.marks))
			}
		}
		p.joinMarks(&l, marks, marks)
		p.closeCUI(&l)
		switch rapid.IntRange(0, 3).Draw(t, "audience") {
		case 0:
			l.audience, l.all = p.defaultAudience(&l)
		case 1:
			l.all = l.rank == 0
		default:
			l.audience = nations("readers")
		}
		if l.all {
			l.audience = nationSet{}
		}
		l.spell(spelling(rapid.IntRange(0, 4).Draw(t, "spelling")))
		l.dropWidening()
		return l
	})
}

func TestDominatesIsReflexiveAndTransitive(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a, b, c := labels.Draw(t, "a"), labels.Draw(t, "b"), labels.Draw(t, "c")
		if !a.Dominates(a) {
			t.Fatalf("%s does not dominate itself", a)
		}
		ab, abc := Join(a, b), Join(Join(a, b), c)
		if !abc.Dominates(ab) || !ab.Dominates(a) || !abc.Dominates(a) {
			t.Fatalf("%s, %s, %s is no chain", abc, ab, a)
		}
		if a.Dominates(b) && b.Dominates(c) && !a.Dominates(c) {
			t.Fatalf("%s over %s over %s, and not the first over the last", a, b, c)
		}
	})
}

func TestDominatesIsAntisymmetricUpToEquivalent(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a, b := labels.Draw(t, "a"), labels.Draw(t, "b")
		same := a.rank == b.rank && a.cats == b.cats && a.all == b.all && a.audience == b.audience
		if got := a.Dominates(b) && b.Dominates(a); got != same || a.Equivalent(b) != same {
			t.Fatalf("%s and %s dominate each other: %t; are one point: %t", a, b, got, same)
		}
	})
}

func TestJoinIsLeastUpperBound(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a, b, c := labels.Draw(t, "a"), labels.Draw(t, "b"), labels.Draw(t, "c")
		j := Join(a, b)
		if !j.Dominates(a) || !j.Dominates(b) {
			t.Fatalf("join(%s, %s) = %s is no upper bound", a, b, j)
		}
		upper := Join(Join(a, c), b) // every upper bound is of this form
		if !upper.Dominates(j) || c.Dominates(a) && c.Dominates(b) && !c.Dominates(j) {
			t.Fatalf("join(%s, %s) = %s is not the least upper bound", a, b, j)
		}
	})
}

func TestMeetIsGreatestLowerBound(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a, b, c := labels.Draw(t, "a"), labels.Draw(t, "b"), labels.Draw(t, "c")
		m := Meet(a, b)
		if !a.Dominates(m) || !b.Dominates(m) {
			t.Fatalf("meet(%s, %s) = %s is no lower bound", a, b, m)
		}
		lower := Meet(Meet(a, c), b)
		if !m.Dominates(lower) || a.Dominates(c) && b.Dominates(c) && !m.Dominates(c) {
			t.Fatalf("meet(%s, %s) = %s is not the greatest lower bound", a, b, m)
		}
	})
}

func TestJoinAndMeetAreAlgebra(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a, b, c := labels.Draw(t, "a"), labels.Draw(t, "b"), labels.Draw(t, "c")
		for name, op := range map[string]func(a, b Label) Label{"join": Join, "meet": Meet} {
			if x := op(a, a); !x.Equivalent(a) {
				t.Fatalf("%s(%s, itself) = %s", name, a, x)
			}
			if x, y := op(a, b), op(b, a); x != y {
				t.Fatalf("%s(%s, %s) = %s, the other way round %s", name, a, b, x, y)
			}
			if x, y := op(op(a, b), c), op(a, op(b, c)); !x.Equivalent(y) {
				t.Fatalf("%s of %s, %s, %s is not associative: %s, %s", name, a, b, c, x, y)
			}
		}
		if x := Join(a, Meet(a, b)); !x.Equivalent(a) {
			t.Fatalf("join(%s, meet(it, %s)) = %s", a, b, x)
		}
		if x := Meet(a, Join(a, b)); !x.Equivalent(a) {
			t.Fatalf("meet(%s, join(it, %s)) = %s", a, b, x)
		}
		if !Join(a, b).Equivalent(b) && b.Dominates(a) || Join(a, b).Equivalent(b) != b.Dominates(a) {
			t.Fatalf("join and order disagree on %s, %s", a, b)
		}
		if low := p.Lowest(); !a.Dominates(low) || !Join(a, low).Equivalent(a) {
			t.Fatalf("%s is not above the lowest label %s", a, low)
		}
	})
}

func TestRollUpEqualsFoldedJoins(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		portions := rapid.SliceOfN(labels, 1, 5).Draw(t, "portions")
		want := portions[0]
		for _, l := range portions[1:] {
			want = Join(want, l)
		}
		got := RollUp(portions)
		if !got.Equivalent(want) {
			t.Fatalf("got %s, want %s", got, want)
		}
		for i, j := 0, len(portions)-1; i < j; i, j = i+1, j-1 {
			portions[i], portions[j] = portions[j], portions[i]
		}
		if turned := RollUp(portions); turned != got {
			t.Fatalf("in the other order %s, not %s", turned, got)
		}
	})
}

func TestEveryLabelHasATextThatReadsBackExactly(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a, b := labels.Draw(t, "a"), labels.Draw(t, "b")
		for _, l := range []Label{a, Join(a, b), Meet(a, b), Join(Meet(a, b), b), RollUp([]Label{a, b, a})} {
			text, err := l.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseText(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if got != l {
				t.Fatalf("%s reads back as another label: %s\n%+v\n%+v", text, got, l, got)
			}
			portion, err := p.read(l.Portion(), nil, false)
			if err != nil || portion != l {
				t.Fatalf("portion %s of %s reads back as %s: %v", l.Portion(), l, portion, err)
			}
		}
	})
}

func TestClearanceOfOneNationReadsWhatNamesIt(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		l := labels.Draw(t, "label")
		n := p.nations[rapid.IntRange(0, len(p.nations)-1).Draw(t, "nation")]
		who, err := p.Clearance(p.classes[l.class].name, n.name)
		if err != nil {
			if p.classes[l.class].foreign {
				return
			}
			t.Fatal(err)
		}
		i := p.nationBy[fold(n.name)]
		want := l.cats.empty() && (l.all || l.audience.has(i))
		if got := who.Dominates(l); got != want {
			t.Fatalf("%s of %s dominates %s: got %t, want %t", who, n.name, l, got, want)
		}
		text, err := who.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseText(text); err != nil || got != who {
			t.Fatalf("clearance %s reads back as %s: %v", text, got, err)
		}
	})
}

func TestJoinOfValidMarkingsWithAReaderIsValid(t *testing.T) {
	labels := labelsOf(usa(t))
	rapid.Check(t, func(t *rapid.T) {
		a, b := labels.Draw(t, "a"), labels.Draw(t, "b")
		if a.Valid() != nil || b.Valid() != nil {
			t.Skip()
		}
		j := Join(a, b)
		if err := j.Valid(); err != nil && !j.audience.empty() {
			t.Fatalf("join(%s, %s) = %s: %v", a, b, j, err)
		}
	})
}

func TestAnAudienceOfNobodyIsReadByNobody(t *testing.T) {
	nobody := Join(marked(t, "SECRET"), marked(t, "SECRET//AUDIENCE GBR"))
	if got := nobody.Banner(); got != "SECRET//AUDIENCE NONE" {
		t.Errorf("got %s", got)
	}
	for _, nation := range []string{"USA", "GBR", "NATO"} {
		who, err := usa(t).Clearance("TOP SECRET//SI/TK", nation)
		if err != nil {
			t.Fatal(err)
		}
		if who.Dominates(nobody) {
			t.Errorf("a clearance of %s reads what nobody may", nation)
		}
	}
	if !nobody.Dominates(marked(t, "SECRET")) {
		t.Error("it does not dominate what it was drawn from")
	}
}

func TestEvery4774LabelReadsBackExactly(t *testing.T) {
	created := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a, b := labels.Draw(t, "a"), labels.Draw(t, "b")
		for _, l := range []Label{a, Join(a, b), Meet(a, b)} {
			in := Options4774{Kind: Alternative4774, Created: created, Originator: "a@b", OriginatorID: "rfc822Name"}
			doc, err := l.To4774(in)
			if err != nil {
				t.Fatal(err)
			}
			got, meta, err := Read4774(bytes.NewReader(doc))
			if err != nil {
				t.Fatalf("%s: %v\n%s", l, err, doc)
			}
			if got != l || meta != in {
				t.Fatalf("%s reads back as %s\n%s\n%+v", l, got, doc, meta)
			}
		}
	})
}

func TestJoinWithItselfChangesNothingThatIsShown(t *testing.T) {
	eachPolicy(t, func(t *rapid.T, p *Policy, labels *rapid.Generator[Label]) {
		a := labels.Draw(t, "a")
		if a.Valid() != nil {
			return
		}
		if got := Join(a, a); got != a {
			t.Fatalf("got %s, want %s", got, a)
		}
		if got := RollUp([]Label{a}); got != a {
			t.Fatalf("alone: got %s, want %s", got, a)
		}
	})
}
