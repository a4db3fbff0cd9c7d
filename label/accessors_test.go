package label

import (
	"slices"
	"strings"
	"testing"
)

func TestAccessorsSayWhatTheBannerSays(t *testing.T) {
	join := func(s []string) string { return strings.Join(s, " ") }
	for _, c := range []struct{ marking, class, owners, sources, display string }{
		{"TOP SECRET//FGI GBR NATO//DISPLAY ONLY IRQ, AFG", "TOP SECRET", "USA", "GBR NATO", "AFG IRQ"},
		{"//NATO RESTRICTED", "RESTRICTED", "NATO", "", ""},
		{"//JOINT SECRET USA CAN GBR", "SECRET", "CAN GBR USA", "", ""},
		{"SECRET//FGI//NOFORN", "SECRET", "USA", "", ""},
	} {
		l := marked(t, c.marking)
		if l.Classification() != c.class || join(l.Owners()) != c.owners || join(l.Sources()) != c.sources || join(l.DisplayOnly()) != c.display {
			t.Errorf("%s: got %s, owners %v, sources %v, display %v", l, l.Classification(), l.Owners(), l.Sources(), l.DisplayOnly())
		}
		if l.String() != l.Banner() || l.Policy() != usa(t) {
			t.Errorf("%s: its string or its policy is another's", l)
		}
	}
	var zero Label
	if zero.Classification() != "" || zero.Owners() != nil || zero.Sources() != nil || zero.DisplayOnly() != nil || zero.Marks() != nil ||
		zero.Categories() != nil || zero.ForAll() || zero.String() != "" || zero.Policy() != nil {
		t.Error("the zero Label says something")
	}
	if r := zero.ReleasableTo(); r == nil || len(r) > 0 {
		t.Errorf("the zero Label is for %v, want nobody", r)
	}
}

func TestRanksFollowTheHierarchy(t *testing.T) {
	for name, want := range map[string][]string{
		"USA":  {"UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "TOP SECRET"},
		"NATO": {"NATO UNCLASSIFIED", "NATO RESTRICTED", "NATO CONFIDENTIAL", "NATO SECRET", "COSMIC TOP SECRET"},
		"FRA":  {"NON PROTÉGÉ", "DIFFUSION RESTREINTE", "SECRET", "TRÈS SECRET"},
	} {
		p := policy(t, name)
		if got := p.Classifications(); !slices.Equal(got, want) || p.Name() != name || p.Nation() != name {
			t.Errorf("%s of %s: got %v, want %v", p.Name(), p.Nation(), got, want)
		}
		for i, c := range want {
			l, err := p.Parse(c)
			if err != nil || l.Rank() != i {
				t.Errorf("%s: got rank %d, %v, want %d", c, l.Rank(), err, i)
			}
		}
	}
	if r, c := marked(t, "//DEU RESTRICTED"), marked(t, "CONFIDENTIAL"); r.Rank() != c.Rank() {
		t.Errorf("another's RESTRICTED has rank %d, CONFIDENTIAL %d", r.Rank(), c.Rank())
	}
}

func TestUSAGrammarRefusesPoliciesThatItCouldNotWrite(t *testing.T) {
	data, err := policyFiles.ReadFile("policies/usa.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, why string }{
		{"an unknown set", `<securityCategoryTagSet name="SAR"`, `<securityCategoryTagSet name="SAP"`, "no segment"},
		{"an unknown set of marks", `<securityCategoryTagSet name="CUI"`, `<securityCategoryTagSet name="CUX"`, "no segment"},
		{"no REL TO", `<tagCategory name="REL TO"`, `<tagCategory name="RELEASE"`, "needs REL TO"},
		{"another word for NOFORN", `<ownerOnly phrase="NOFORN"`, `<ownerOnly phrase="NATIONAL"`, "ownerOnly"},
		{"a slash in a category", `name="TK"`, `name="T/K"`, "above it"},
		{"a slash in a mark", `name="FISA"`, `name="FI/SA"`, "slash"},
		{"a compartment without its system", `name="RSV"`, `name="RSX"`, "above it"},
		{"an unknown nation list", `list="GENC"`, `list="ISO"`, "unknown list"},
		{"an unknown member", `members="AUS CAN GBR USA"`, `members="AUS CAN GBR UKR USX"`, "no nation"},
		{"a group of one", `members="AUS CAN GBR USA"`, `members="AUS"`, "fewer than two"},
		{"a group like a nation", `group name="ACGU"`, `group name="AUS"`, "second thing"},
		{"an unknown mark to roll up", `rollUp mark="RELIDO"`, `rollUp mark="RELIDOX"`, "which there is not"},
		{"an unknown rule", `rule="widens"`, `rule="sometimes"`, "rule"},
		{"an unknown other mark", `other="ORCON"`, `other="ORCOM"`, "other mark"},
		{"an open class that is not the lowest", `<open classification="UNCLASSIFIED"/>`, `<open classification="SECRET"/>`, "not the lowest"},
		{"an unknown foreign class", `<foreign classification="RESTRICTED"/>`, `<foreign classification="RESTRAINED"/>`, "no classification"},
		{"a rank without own class", `<foreign classification="RESTRICTED"/>`, `<foreign classification="SECRET"/>`, "no own classification"},
		{"an unknown element of ours", `<nations list="GENC"/>`, `<nation list="GENC"/>`, "not known"},
		{"an unknown marking code", `<code>portionMarking</code>`, `<code>portion</code>`, "unknown marking code"},
	} {
		file := strings.Replace(string(data), c.old, c.new, 1)
		if file == string(data) {
			t.Fatalf("%s: the test changes nothing", c.name)
		}
		if _, err := ReadSPIF(strings.NewReader(file)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.why)
		}
	}
}

func TestSelectionsOfATagAreCounted(t *testing.T) {
	limited := func(attr string) *Policy {
		p, err := ReadSPIF(strings.NewReader(strings.Replace(miniature, `name="Words" tagType`, `name="Words" `+attr+` tagType`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for attr, want := range map[string][2]bool{ // one word, two words
		`maxSelection="2"`: {true, true}, `maxSelection="1"`: {true, false}, `singleSelection="true"`: {true, false}, `minSelection="2"`: {false, true},
	} {
		p := limited(attr)
		for i, marking := range []string{"HIGH//ALPHA", "HIGH//ALPHA/BRAVO"} {
			if _, err := p.Parse(marking); (err == nil) != want[i] {
				t.Errorf("%s, %s: got %v, want allowed %t", attr, marking, err, want[i])
			}
		}
	}
}
