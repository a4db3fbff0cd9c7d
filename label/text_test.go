package label

import (
	"strings"
	"sync"
	"testing"
)

func TestTextOfAnUnknownPolicyOrVersionIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "USA@1", "USA SECRET", "USA@2 SECRET", "usa@1 SECRET", "XYZ@1 SECRET", "USA@1 secret", "USA@1 (S)", "USA@1  SECRET",
		"USA@1 SECRET//AUDIENCE USA", "USA@1 SECRET//REL TO GBR, USA", "USA@1 MYSTERY", "USA@1 SECRET ", " USA@1 SECRET",
		"USA@1 SECRET" + strings.Repeat(" ", 2*MaxMarkingBytes),
	} {
		if l, err := ParseText([]byte(text)); err == nil {
			t.Errorf("%.40q was read as %s", text, l)
		}
	}
	if _, err := ParseText([]byte("USA@1 SECRET"), policy(t, "GBR")); err == nil {
		t.Error("a policy that is not among the known ones was used")
	}
	if _, err := (Label{}).MarshalText(); err == nil {
		t.Error("an unmarked label has a text")
	}
}

func TestTextKeepsPolicyNamesWithSpaces(t *testing.T) {
	file := strings.Replace(strings.Replace(miniature, `"MINI"`, `"MINI 50%"`, 1), `version="7"`, `version="2026-01-01 10:00"`, 1)
	p, err := ReadSPIF(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Parse("HIGH//ALPHA")
	if err != nil {
		t.Fatal(err)
	}
	text, err := l.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if want := "MINI%2050%25@2026-01-01%2010%3A00 HIGH//ALPHA"; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	if got, err := ParseText(text, p); err != nil || got != l {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestBuiltinIsOneInstance(t *testing.T) {
	var wg sync.WaitGroup
	got := make([]*Policy, 8)
	for i := range got {
		wg.Go(func() { got[i], _ = Builtin("uSa") })
	}
	wg.Wait()
	for _, p := range got {
		if p == nil || p != got[0] {
			t.Fatal("two instances of one policy")
		}
	}
	if _, err := Builtin("ATLANTIS"); err == nil || !strings.Contains(err.Error(), "AUS, CAN, DEU, FRA, GBR, NATO, NZL, USA") {
		t.Errorf("got %v, want it to list the names", err)
	}
}

func TestClearanceRefusesWhatIsNoNation(t *testing.T) {
	for _, nation := range []string{"", "FVEY", "ATLANTIS"} {
		if c, err := usa(t).Clearance("SECRET", nation); err == nil || !c.IsZero() {
			t.Errorf("%q: got %s", nation, c)
		}
	}
	if _, err := usa(t).Clearance("MYSTERY", "USA"); err == nil {
		t.Error("an unknown classification was accepted")
	}
}

func TestClearancesOfTheExampleEstate(t *testing.T) {
	clear := func(marking, nation string) Label {
		l, err := usa(t).Clearance(marking, nation)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	gbr, us, u := clear("SECRET", "GBR"), clear("SECRET", "USA"), clear("UNCLASSIFIED", "USA")
	for _, c := range []struct {
		who     Label
		marking string
		want    bool
	}{
		{gbr, "SECRET", false}, {gbr, "SECRET//REL TO USA, GBR", true}, {gbr, "UNCLASSIFIED", true}, {gbr, "UNCLASSIFIED//NOFORN", false},
		{gbr, "//GBR SECRET", true}, {gbr, "//NATO SECRET", false}, {us, "SECRET", true}, {us, "SECRET//NOFORN", true},
		{us, "//GBR SECRET", true}, {us, "TOP SECRET", false}, {us, "SECRET//SI", false}, {u, "UNCLASSIFIED//FOUO", true},
		{u, "UNCLASSIFIED//NOFORN", true}, {u, "SECRET", false},
	} {
		if got := c.who.Dominates(marked(t, c.marking)); got != c.want {
			t.Errorf("%s reads %s: got %t, want %t", c.who, c.marking, got, c.want)
		}
	}
}

func TestHighestSharedLabelIsTheMeetOfClearanceAndCeiling(t *testing.T) {
	for _, c := range []struct{ clearance, nation, ceiling, want string }{
		{"SECRET", "USA", "SECRET", "SECRET"},
		{"SECRET", "GBR", "SECRET", "SECRET//REL TO USA, GBR"},
		{"TOP SECRET//SI/TK", "USA", "SECRET", "SECRET"},
		{"TOP SECRET//SI/TK", "USA", "TOP SECRET//SI/TK", "TOP SECRET//SI/TK"},
		{"TOP SECRET//SI/TK", "USA", "UNCLASSIFIED", "UNCLASSIFIED"},
		{"UNCLASSIFIED", "USA", "UNCLASSIFIED", "UNCLASSIFIED"},
	} {
		who, err := usa(t).Clearance(c.clearance, c.nation)
		if err != nil {
			t.Fatal(err)
		}
		if got := Meet(who, marked(t, c.ceiling)).Banner(); got != c.want {
			t.Errorf("%s of %s at %s: got %s, want %s", c.clearance, c.nation, c.ceiling, got, c.want)
		}
	}
}

func TestDominatesAllocatesNothing(t *testing.T) {
	a, b := marked(t, "TOP SECRET//SI/TK//NOFORN"), marked(t, "SECRET//REL TO USA, GBR")
	if n := testing.AllocsPerRun(100, func() { _ = a.Dominates(b) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestLabelsAreMapKeys(t *testing.T) {
	m := map[Label]int{marked(t, "SECRET"): 1, marked(t, "SECRET//NOFORN"): 2}
	if len(m) != 2 || m[marked(t, "S")] != 1 || m[marked(t, "(S//NF)")] != 2 {
		t.Errorf("got %v", m)
	}
}
