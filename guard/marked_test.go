package guard_test

import (
	"os"
	"strings"
	"testing"

	"redoubt/guard"
	"redoubt/label"
)

// TestMarksDoNotHideAMarking: a line through or below a classification leaves it readable.
func TestMarksDoNotHideAMarking(t *testing.T) {
	w := newWords(t)
	under := func(s, mark string) string {
		return strings.NewReplacer("A", "A"+mark, "C", "C"+mark, "E", "E"+mark, "F", "F"+mark, "S", "S"+mark, "T", "T"+mark).Replace(s)
	}
	for _, c := range []struct {
		as, text string
		ends     bool
	}{
		{"UNCLASSIFIED", under("TOP SECRET", "\u0332"), true}, {"UNCLASSIFIED", under("SECRET//NOFORN", "\u0336"), true}, {"UNCLASSIFIED", under("(S//NF)", "\u0301"), true},
		{"UNCLASSIFIED", "T\u00d6P S\u00c9CRET", true}, {"UNCLASSIFIED", "S\u0332 E\u0332 C\u0332 R\u0332 E\u0332 T\u0332", true}, {"UNCLASSIFIED", "VS-NUR FUR DEN DIENSTGEBRAUCH", true},
		{"UNCLASSIFIED", "the \u02bcSECRET\u02bc matter", true}, {"UNCLASSIFIED", "\ua7a8E\ua793\ua7a7E\u2c66//NOFORN", true},
		{"SECRET", under("SECRET//NOFORN", "\u0332"), false}, {"UNCLASSIFIED", under("SECRETARY", "\u0332"), false}, {"UNCLASSIFIED", "un jardin secret, très secrète", false},
	} {
		if found := w.Search(c.text, mark(t, c.as)); fatal(found) != c.ends {
			t.Errorf("%q under %s: got %v, want it ended %v", c.text, c.as, found, c.ends)
		}
	}
}

func TestLettersThatAreSeenAsSignsSplitAWord(t *testing.T) {
	w := newWords(t, "nightfall")
	for _, text := range []string{"night\u02bcfall", "n\u01c3ightfall", "night\ua78cfall", "nig\u02d0htfall", "n\u1e9ahtfall"} {
		if found := w.Search(text, mark(t, "TOP SECRET")); fatal(found) != !strings.Contains(text, "\u1e9a") {
			t.Errorf("%q: got %v", text, found)
		}
	}
}

func TestOtherSignsDoNotHideAMarking(t *testing.T) {
	w := newWords(t)
	for _, text := range []string{"(S\u2571\u2571NF)", "(S\u2afdNF)", "secret\u27cb\u27cbnoforn", "S|E|C|R|E|T", "T,O,P,S,E,C,R,E,T", "s:e:c:r:e:t:/:/:n:o:f:o:r:n", "S+E+C+R+E+T"} {
		if found := w.Search(text, mark(t, "UNCLASSIFIED")); !fatal(found) {
			t.Errorf("%q: got %v, want it ended", text, found)
		}
	}
}

// TestACaveatWithAccentsIsReadWithItsClassification: the accents that a search takes off are those that the policy's own phrases have.
func TestACaveatWithAccentsIsReadWithItsClassification(t *testing.T) {
	file, err := os.ReadFile("../label/policies/deu.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, caveat := range []string{"KRYPTO", "ZVLÁŠTNÍ REŽIM", "ŘÁD", "ŚCISŁE", "ŐRSÉG", "ĐURĐEVAK", "TRÈS", "NØD"} {
		p, err := label.ReadSPIF(strings.NewReader(strings.ReplaceAll(string(file), `"KRYPTO"`, `"`+caveat+`"`)))
		if err != nil {
			t.Fatal(err)
		}
		w, err := guard.NewWords(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			as   string
			ends bool
		}{{"GEHEIM", true}, {"GEHEIM//" + caveat, false}} {
			as, err := p.Parse(c.as)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"GEHEIM " + caveat, "GEHEIM//" + caveat, "geheim//" + strings.ToLower(caveat)} {
				if found := w.Search(text, as); fatal(found) != c.ends || c.ends && found[0].Rule != "a marking above the label" {
					t.Errorf("%q under %s: got %v, want it ended %v", text, c.as, found, c.ends)
				}
			}
		}
	}
}
