package label

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestExamplePolicyOfOthersIsRead(t *testing.T) {
	f, err := os.Open("testdata/spif/uk-demo.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := ReadSPIF(f)
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Parse("OFFICIAL-SENSITIVE COMMERCIAL")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := l.Banner(), "OFFICIAL-SENSITIVE//COMMERCIAL"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for marking, why := range map[string]string{
		"OFFICIAL-SENSITIVE":        "exactly one of",                 // onlyOne
		"OFFICIAL//COMMERCIAL":      "\"COMMERCIAL\" (byte 10) needs", // all
		"SECRET//SENSITIVE":         "cannot stand with",              // excludedClass
		"OFFICIAL//REL TO UK, US":   "cannot stand with",              // excludedClass of a releasability
		"OFFICIAL-SENSITIVE PRIVAT": "not a caveat",
	} {
		if _, err := p.Parse(marking); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v, want it to say %q", marking, err, why)
		}
	}
}

func TestExampleFilesThatAreNotStandardAreRefused(t *testing.T) {
	for file, why := range map[string]string{
		"food-policy.xml":        "line 81",
		"food-policy-borked.xml": `is in namespace ""`,
		"food-label-bacon.xml":   "is not the root of a policy",
	} {
		data, err := os.ReadFile("testdata/spif/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSPIF(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v, want it to say %q", file, err, why)
		}
		if _, _, err := Read4774(bytes.NewReader(data)); err == nil {
			t.Errorf("%s: was read as a 4774 label", file)
		}
	}
}

// miniature is a policy with one thing of each kind.
const miniature = `<?xml version="1.0"?>
<SPIF xmlns="http://www.xmlspif.org/spif" schemaVersion="2.1" version="7">
<securityPolicyId name="MINI" id="2.25.1"/>
<securityClassifications>
<securityClassification name="LOW" lacv="1" hierarchy="0"/>
<securityClassification name="HIGH" lacv="2" hierarchy="5"/>
</securityClassifications>
<securityCategoryTagSets>
<securityCategoryTagSet name="Words" id="2.25.1.1">
<securityCategoryTag name="Words" tagType="restrictive"><tagCategory name="ALPHA" lacv="1"/><tagCategory name="BRAVO" lacv="2"/></securityCategoryTag>
</securityCategoryTagSet>
<securityCategoryTagSet name="To" id="2.25.1.2">
<securityCategoryTag name="To" tagType="permissive"><tagCategory name="AAA" lacv="1"/></securityCategoryTag>
</securityCategoryTagSet>
</securityCategoryTagSets>
</SPIF>`

func TestPolicyWithoutNationIsAnAudienceOfItsOwn(t *testing.T) {
	p, err := ReadSPIF(strings.NewReader(miniature))
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Parse("HIGH//ALPHA")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(l.ReleasableTo(), " "); got != "MINI" || p.Version() != "7" || p.ID() != "2.25.1" {
		t.Errorf("got audience %q, version %q, identifier %q", got, p.Version(), p.ID())
	}
}

func TestSPIFIsReadStrictly(t *testing.T) {
	for _, c := range []struct{ name, old, new, why string }{
		{"schema 3.0", `schemaVersion="2.1"`, `schemaVersion="3.0"`, "another format"},
		{"no schema version", `schemaVersion="2.1"`, ``, "schemaVersion"},
		{"other namespace", "xmlspif.org/spif", "xmlspif.org/spif3", "namespace"},
		{"a DTD", "<SPIF", `<!DOCTYPE SPIF [<!ENTITY a "b">]><SPIF`, "DTD"},
		{"an entity", `name="MINI"`, `name="&mini;"`, "entity"},
		{"a processing instruction", "<SPIF", `<?php x?><SPIF`, "processing instruction"},
		{"an unknown element", "<securityClassifications>", "<securityClassifications><more/>", "not known"},
		{"an unknown attribute", `lacv="1" hierarchy="0"`, `lacv="1" hierarchy="0" height="9"`, "unknown attribute"},
		{"an attribute twice", `lacv="1" hierarchy="0"`, `lacv="1" lacv="1" hierarchy="0"`, "twice"},
		{"a foreign element", `hierarchy="5"/>`, `hierarchy="5"/><x xmlns="urn:x"/>`, "namespace"},
		{"something behind", "</SPIF>", "</SPIF><SPIF/>", "after the end"},
		{"text behind", "</SPIF>", "</SPIF>more", "outside the document"},
		{"text between", "<securityClassifications>", "<securityClassifications>hm", "text"},
		{"two policies", `<securityPolicyId name="MINI" id="2.25.1"/>`, `<securityPolicyId name="MINI" id="2.25.1"/><securityPolicyId name="B" id="2.25.2"/>`, "more than one"},
		{"no identifier", `id="2.25.1"/>`, `id="x"/>`, "object identifier"},
		{"no hierarchy", `hierarchy="0"`, `hierarchy="low"`, "hierarchy"},
		{"a class twice", `name="HIGH"`, `name="LOW"`, "second classification"},
		{"a lacv twice", `lacv="2" hierarchy="5"`, `lacv="1" hierarchy="5"`, "lacv"},
		{"a category twice", `name="BRAVO"`, `name="ALPHA"`, "two categories are spelled"},
		{"a category's lacv twice", `name="BRAVO" lacv="2"`, `name="BRAVO" lacv="1"`, "lacv"},
		{"an unknown tag type", `tagType="restrictive"`, `tagType="confusing"`, "tagType"},
		{"two permissive tags", `tagType="restrictive"`, `tagType="permissive"`, "one audience"},
		{"a slash in a name", `name="BRAVO"`, `name="BRA//VO"`, "cannot stand in a marking"},
		{"a caveat like a list", `name="BRAVO"`, `name="REL TO ALL"`, "something else"},
		{"a caveat like an audience", `name="BRAVO"`, `name="AUDIENCE ALL"`, "something else"},
		{"an unknown class excluded", `<tagCategory name="BRAVO" lacv="2"/>`, `<tagCategory name="BRAVO" lacv="2"><excludedClass>MID</excludedClass></tagCategory>`, "no classification"},
		{"a reference to nothing", `<tagCategory name="BRAVO" lacv="2"/>`, `<tagCategory name="BRAVO" lacv="2"><excludedCategory tagSetRef="No" tagType="restrictive" lacv="1"/></tagCategory>`, "which there is not"},
		{"a foreign extension", "</SPIF>", `<extensions><policy xmlns="urn:x"/></extensions></SPIF>`, "something other"},
		{"an unknown grammar", "</SPIF>", `<extensions><policy xmlns="urn:redoubt:spif:1" nation="AAA" grammar="x"/></extensions></SPIF>`, "unknown grammar"},
		{"a broken character", `name="BRAVO"`, "name=\"BRA\xff\"", "UTF-8"},
	} {
		file := strings.Replace(miniature, c.old, c.new, 1)
		if file == miniature {
			t.Fatalf("%s: the test changes nothing", c.name)
		}
		if _, err := ReadSPIF(strings.NewReader(file)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.why)
		}
	}
}

func TestXMLLimitsHoldAtTheirEdge(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("<a>", n) + strings.Repeat("</a>", n) }
	wide := func(n int) string { return "<a>" + strings.Repeat("<b/>", n-1) + "</a>" }
	size := func(n int) string { return "<a>" + strings.Repeat(" ", n-7) + "</a>" }
	attrs := func(n int) string {
		var b strings.Builder
		b.WriteString("<a")
		for i := range n {
			fmt.Fprintf(&b, ` a%d=""`, i)
		}
		return b.String() + "/>"
	}
	for name, c := range map[string]struct {
		make func(int) string
		max  int
	}{
		"depth": {nested, MaxXMLDepth}, "elements": {wide, MaxXMLElements}, "bytes": {size, MaxXMLBytes}, "attributes": {attrs, maxXMLAttrs},
	} {
		if _, err := readXML(strings.NewReader(c.make(c.max))); err != nil {
			t.Errorf("%s at the limit: %v", name, err)
		}
		if _, err := readXML(strings.NewReader(c.make(c.max + 1))); err == nil {
			t.Errorf("%s past the limit was read", name)
		}
	}
}

func TestManyCommentsDoNotMakeReadingSlow(t *testing.T) {
	file := "<a>" + strings.Repeat("x<!---->", (MaxXMLBytes-7)/8) + "</a>"
	if _, err := readXML(strings.NewReader(file)); err != nil {
		t.Fatal(err)
	}
}

func TestPolicyLimitsHoldAtTheirEdge(t *testing.T) {
	with := func(old string, item func(i int) string, n int) error {
		var b strings.Builder
		for i := range n {
			b.WriteString(item(i))
		}
		_, err := ReadSPIF(strings.NewReader(strings.Replace(miniature, old, b.String(), 1)))
		return err
	}
	class := func(i int) string {
		return fmt.Sprintf(`<securityClassification name="C%d" lacv="%d" hierarchy="%d"/>`, i, i+10, i+10)
	}
	category := func(i int) string { return fmt.Sprintf(`<tagCategory name="W%d" lacv="%d"/>`, i, i) }
	nation := func(i int) string { return fmt.Sprintf(`<tagCategory name="N%d" lacv="%d"/>`, i, i) }
	for name, c := range map[string]struct {
		old  string
		item func(int) string
		max  int
	}{
		"classifications": {`<securityClassification name="LOW" lacv="1" hierarchy="0"/>`, class, maxClasses - 1},
		"categories":      {`<tagCategory name="ALPHA" lacv="1"/><tagCategory name="BRAVO" lacv="2"/>`, category, maxCategories},
		"nations":         {`<tagCategory name="AAA" lacv="1"/>`, nation, maxNations - 1}, // and the policy's own
	} {
		if err := with(c.old, c.item, c.max); err != nil {
			t.Errorf("%d %s: %v", c.max, name, err)
		}
		if err := with(c.old, c.item, c.max+1); err == nil {
			t.Errorf("%d %s were read", c.max+1, name)
		}
	}
}

func TestReferencesHaveALimit(t *testing.T) {
	file := func(n int) string {
		one := `<requiredCategory operation="oneOrMore"><categoryGroup tagSetRef="Words" tagType="restrictive"/></requiredCategory>`
		var b strings.Builder
		b.WriteString(`<tagCategory name="ALPHA" lacv="1">` + strings.Repeat(one, n) + `</tagCategory>`)
		for i := range 200 {
			fmt.Fprintf(&b, `<tagCategory name="X%d" lacv="%d"/>`, i, i+100)
		}
		return strings.Replace(miniature, `<tagCategory name="ALPHA" lacv="1"/>`, b.String(), 1)
	}
	edge := maxReferences / 202 // ALPHA, BRAVO and 200 more
	if _, err := ReadSPIF(strings.NewReader(file(edge))); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ReadSPIF(strings.NewReader(file(edge + 1))); err == nil || !strings.Contains(err.Error(), "one reference too many") {
		t.Errorf("past the limit: got %v", err)
	}
}

func TestPhrasesInOtherLanguagesAreRead(t *testing.T) {
	p, err := ReadSPIF(strings.NewReader(strings.Replace(miniature, `<tagCategory name="BRAVO" lacv="2"/>`,
		`<tagCategory name="BRAVO" lacv="2"><markingData xml:lang="fr" phrase="BRAVÔ-B"><code>pageTopBottom</code></markingData></tagCategory>`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Parse("high bravo-b")
	if err != nil || l.Banner() != "HIGH//BRAVO" {
		t.Errorf("got %s, %v", l, err)
	}
}

// TestAccentsAndStrokesOfAnyLanguageMayBeLeftOut: whoever searches for markings takes them off.
func TestAccentsAndStrokesOfAnyLanguageMayBeLeftOut(t *testing.T) {
	with := func(phrases ...string) (*Policy, error) {
		s := `<tagCategory name="BRAVO" lacv="2"/>`
		for i, phrase := range phrases {
			s += fmt.Sprintf(`<tagCategory name="%s" lacv="%d"/>`, phrase, 7+i)
		}
		return ReadSPIF(strings.NewReader(strings.Replace(miniature, `<tagCategory name="BRAVO" lacv="2"/>`, s, 1)))
	}
	p, err := with("ZVLÁŠTNÍ REŽIM", "ŁĄCZNOŚĆ", "ĐURĐEVAK ŐRSÉG", "SØR", "한국")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ marking, want string }{
		{"ZVLÁŠTNÍ REŽIM", "ZVLÁŠTNÍ REŽIM"}, {"zvláštní režim", "ZVLÁŠTNÍ REŽIM"}, {"ZVLASTNI REZIM", "ZVLÁŠTNÍ REŽIM"}, {"ZVLA\u0301S\u030cTNI\u0301 REZ\u030cIM", "ZVLÁŠTNÍ REŽIM"},
		{"łączność", "ŁĄCZNOŚĆ"}, {"LACZNOSC", "ŁĄCZNOŚĆ"}, {"DURDEVAK ORSEG", "ĐURĐEVAK ŐRSÉG"}, {"sør", "SØR"}, {"SOR", "SØR"}, {"한국", "한국"}, {"\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국"},
	} {
		if l, err := p.Parse("HIGH//" + c.marking); err != nil || l.Banner() != "HIGH//"+c.want {
			t.Errorf("%s: got %s, %v", c.marking, l, err)
		}
	}
	for _, marking := range []string{"SÆR", "SR", "한", "ZVLASTNI REZI"} {
		if l, err := p.Parse("HIGH//" + marking); err == nil {
			t.Errorf("%s: got %s", marking, l)
		}
	}
	for _, two := range [][]string{{"REŽIM", "REZIM"}, {"ŁAD", "LAD"}, {"ŐR", "ÖR"}} {
		if _, err := with(two...); err == nil {
			t.Errorf("a policy with both of %v is taken", two)
		}
	}
}

func TestLongMarkingsOfManyWordsAreReadQuickly(t *testing.T) {
	for _, name := range BuiltinNames() {
		p := policy(t, name)
		for _, piece := range []string{"A ", "A/", "A-", "A,", "//A", "COMMERCIAL ", "SI-", "USA/", "REL TO ", "É", " ", "("} {
			for _, head := range []string{"", p.classes[0].name, p.classes[0].name + "//", p.classes[0].name + "//REL TO "} {
				marking := head + strings.Repeat(piece, MaxMarkingBytes/len(piece))
				start := time.Now()
				_, _ = p.Parse(marking[:min(len(marking), MaxMarkingBytes)])
				if d := time.Since(start); d > time.Second {
					t.Errorf("%s: %.20q… took %v", name, marking, d)
				}
			}
		}
	}
}

func TestMarkingLengthHasALimit(t *testing.T) {
	for n, want := range map[int]bool{MaxMarkingBytes: true, MaxMarkingBytes + 1: false} {
		_, err := usa(t).Parse("SECRET" + strings.Repeat(" ", n-6))
		if (err == nil) != want {
			t.Errorf("%d bytes: got %v, want accepted %t", n, err, want)
		}
	}
}

func TestTheLongestBannerFitsAMarking(t *testing.T) {
	for _, name := range BuiltinNames() {
		p := policy(t, name)
		l := Label{policy: p, class: uint8(len(p.classes) - 1)}
		l.rank = p.classes[l.class].rank
		for i := range p.cats {
			l.cats.add(i)
		}
		for i := range p.nations {
			l.audience.add(i)
			l.fgi.add(i)
			l.display.add(i)
		}
		l.fgi.remove(p.home)
		l.fgiSeen = true
		for i := range p.marks {
			if !p.marks[i].structural() {
				l.marks.add(i)
			}
		}
		l.spell(spellRel)
		if n := len(l.Banner()); n > MaxMarkingBytes {
			t.Errorf("%s: %d bytes", name, n)
		}
	}
}

func TestEveryFaultIsNamedWithItsPlace(t *testing.T) {
	_, err := usa(t).Parse("SECRET//SI-ZZ//BLAH//NOFORM")
	var pe *ParseError
	if !errors.As(err, &pe) {
		t.Fatalf("got %v, want a *ParseError", err)
	}
	want := []Fault{{11, "ZZ", ""}, {15, "BLAH", ""}, {21, "NOFORM", ""}}
	if len(pe.Faults) != len(want) {
		t.Fatalf("got %v", pe.Faults)
	}
	for i, f := range pe.Faults {
		if f.Offset != want[i].Offset || f.Text != want[i].Text || f.Reason == "" {
			t.Errorf("got %+v, want %q at %d", f, want[i].Text, want[i].Offset)
		}
	}
}

func TestOurVocabularyHoldsThePublicTaxonomies(t *testing.T) {
	type file struct {
		Values []struct {
			Predicate string
			Entry     []struct{ Value, Expanded string }
		}
	}
	read := func(name string) (f file) {
		data, err := os.ReadFile("testdata/taxonomies/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	check := func(policyName, marking string) {
		t.Helper()
		if _, err := policy(t, policyName).Parse(marking); err != nil {
			t.Errorf("%s: %v", policyName, err)
		}
	}
	for _, v := range read("dni-ism").Values {
		for _, e := range v.Entry {
			for _, word := range []string{e.Value, e.Expanded} {
				switch v.Predicate {
				case "classification:us":
					check("USA", word)
				case "classification:all":
					check("USA", "//GBR "+word)
				case "scicontrols", "atomicenergymarkings":
					class := "TS//"
					if strings.HasSuffix(word, "CNI") || strings.Contains(word, "CONTROLLED NUCLEAR") {
						class = "U//"
					}
					check("USA", class+expandKDK(word))
				case "nonuscontrols":
					check("USA", "//CTS//"+strings.ToUpper(strings.TrimSuffix(word, " mark")))
				case "nonic":
					check("USA", "U//"+word)
				case "dissem":
					switch {
					case strings.HasPrefix(word, "REL"), strings.HasPrefix(word, "AUTHORIZED FOR RELEASE"):
						if word != "RELIDO" && !strings.Contains(word, "OFFICIAL") {
							word += " USA, GBR"
						}
					case strings.Contains(word, "DISPLAY"):
						word = "DISPLAY ONLY GBR"
					}
					class := "S//"
					if word == "FOUO" || word == "FOR OFFICIAL USE ONLY" {
						class = "U//"
					}
					check("USA", class+word)
				}
			}
		}
	}
	for _, v := range read("nato").Values {
		for _, e := range v.Entry {
			check("NATO", e.Value)
			check("NATO", e.Expanded)
			check("USA", "//"+e.Value)
			check("USA", "//"+e.Expanded)
		}
	}
	for _, v := range read("de-vs").Values {
		for _, e := range v.Entry {
			if v.Predicate == "Einstufung" {
				check("DEU", e.Value)
				check("DEU", e.Expanded)
			}
		}
	}
	for _, v := range read("fr-classif").Values {
		for _, e := range v.Entry {
			if v.Predicate == "special-france" {
				check("FRA", "SECRET//"+e.Expanded)
			} else {
				check("FRA", e.Expanded)
			}
		}
	}
}

// expandKDK writes the taxonomy's "KDK BLUEFISH" with the hyphen that a marking has.
func expandKDK(word string) string { return strings.Replace(word, "KDK ", "KDK-", 1) }
