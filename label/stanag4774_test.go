package label

import (
	"os"
	"strings"
	"testing"
	"time"
)

var created4774 = time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)

func Test4774IsWrittenInTheStandardsForm(t *testing.T) {
	for file, c := range map[string]struct {
		policy, marking string
		meta            Options4774
	}{
		"usa-originator":   {"USA", "TOP SECRET//SI-G ABCD/TK//ORCON/NOFORN", Options4774{Kind: Originator4774, Created: created4774, Originator: "analyst@example.mil", OriginatorID: "rfc822Name"}},
		"nato-alternative": {"NATO", "NATO SECRET//ATOMAL//REL TO SWE", Options4774{Kind: Alternative4774, Created: created4774, ID: "label-1", Review: created4774.AddDate(5, 0, 0)}},
		"gbr-metadata":     {"GBR", "OFFICIAL-SENSITIVE", Options4774{Kind: Metadata4774, Created: created4774, PrivacyMark: "in confidence & trust"}},
	} {
		l, err := policy(t, c.policy).Parse(c.marking)
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.To4774(c.meta)
		if err != nil {
			t.Fatal(err)
		}
		path := "testdata/golden/4774-" + file + ".xml"
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(want)) != string(got) {
			t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
		}
		back, meta, err := Read4774(strings.NewReader(string(want)))
		if err != nil || back != l || meta != c.meta {
			t.Errorf("%s reads back as %s, %+v: %v", file, back, meta, err)
		}
	}
}

const nato4774 = `<?xml version="1.0" encoding="UTF-8"?>
<slab:originatorConfidentialityLabel xmlns:slab="urn:nato:stanag:4774:confidentialitymetadatalabel:1:0">
<slab:ConfidentialityInformation>
<slab:PolicyIdentifier>NATO</slab:PolicyIdentifier>
<slab:Classification>NATO SECRET</slab:Classification>
<slab:Category Type="PERMISSIVE" TagName="Releasable To"><slab:GenericValue>SWE</slab:GenericValue><slab:GenericValue>NATO</slab:GenericValue></slab:Category>
</slab:ConfidentialityInformation>
<slab:CreationDateTime>2026-11-21T22:00:00+01:00</slab:CreationDateTime>
</slab:originatorConfidentialityLabel>`

func Test4774OfOthersIsRead(t *testing.T) {
	l, meta, err := Read4774(strings.NewReader(nato4774))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := l.Banner(), "NATO SECRET//REL TO NATO, SWE"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if want := created4774.Add(-time.Hour); !meta.Created.Equal(want) || meta.Kind != Originator4774 {
		t.Errorf("got %+v", meta)
	}
}

func Test4774WithoutPermissiveValuesIsForTheOwnerAlone(t *testing.T) {
	from, to := strings.Index(nato4774, "<slab:Category"), strings.Index(nato4774, "</slab:Category>")
	l, _, err := Read4774(strings.NewReader(nato4774[:from] + nato4774[to+len("</slab:Category>"):]))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(l.ReleasableTo(), " "); got != "NATO" || l.ForAll() {
		t.Errorf("got audience %q, want NATO alone", got)
	}
}

func Test4774IsReadStrictly(t *testing.T) {
	for _, c := range []struct{ name, old, new, why string }{
		{"no creation time", "<slab:CreationDateTime>2026-11-21T22:00:00+01:00</slab:CreationDateTime>", "", "no <CreationDateTime>"},
		{"no time zone", "22:00:00+01:00", "22:00:00", "time zone"},
		{"no namespace", ` xmlns:slab="urn:nato:stanag:4774:confidentialitymetadatalabel:1:0"`, "", "namespace"},
		{"another version's namespace", ":1:0", ":2:0", "namespace"},
		{"an unknown root", "<slab:originatorConf", "<slab:otherConf", "element"},
		{"an unknown policy", ">NATO</slab:PolicyIdentifier>", ">OTAN</slab:PolicyIdentifier>", "no policy"},
		{"another's identifier", "<slab:PolicyIdentifier>", `<slab:PolicyIdentifier URI="urn:oid:1.2.3">`, "no policy"},
		{"an unknown classification", "NATO SECRET", "NATO MYSTERY", "no classification"},
		{"an unknown type", `Type="PERMISSIVE"`, `Type="OPTIONAL"`, "which is no"},
		{"an unknown tag", `TagName="Releasable To"`, `TagName="Eyes"`, "which is no"},
		{"an unknown value", "SWE", "XYZ", "which is no"},
		{"a value twice", "<slab:GenericValue>SWE</slab:GenericValue>", "<slab:GenericValue>SWE</slab:GenericValue><slab:GenericValue>SWE</slab:GenericValue>", "twice"},
		{"everybody and somebody", "<slab:GenericValue>SWE</slab:GenericValue>", "<slab:GenericValue>ALL</slab:GenericValue>", "which is no"},
		{"SECRET for everybody", "<slab:GenericValue>SWE</slab:GenericValue><slab:GenericValue>NATO</slab:GenericValue>", "<slab:GenericValue>ALL</slab:GenericValue>", "cannot be for ALL"},
		{"no values", "<slab:GenericValue>SWE</slab:GenericValue><slab:GenericValue>NATO</slab:GenericValue>", "", "no value"},
		{"elements out of order", "<slab:Classification>NATO SECRET</slab:Classification>", "", "no <Classification>"},
		{"succession", "<slab:CreationDateTime>", "<slab:SuccessionHandling/><slab:CreationDateTime>", "SuccessionHandling"},
		{"a classification twice", "<slab:Classification>NATO SECRET</slab:Classification>", "<slab:Classification>NATO SECRET</slab:Classification><slab:Classification>NATO UNCLASSIFIED</slab:Classification>", "more than one"},
		{"a qualified attribute", ` Type="PERM`, ` slab:Type="PERM`, "attribute"},
		{"something behind", "</slab:originatorConfidentialityLabel>", "</slab:originatorConfidentialityLabel><a/>", "after the end"},
		{"a DTD", "<slab:originator", "<!DOCTYPE a><slab:originator", "DTD"},
	} {
		doc := strings.Replace(nato4774, c.old, c.new, 1)
		if doc == nato4774 {
			t.Fatalf("%s: the test changes nothing", c.name)
		}
		l, meta, err := Read4774(strings.NewReader(doc))
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.why)
		}
		if !l.IsZero() || meta != (Meta4774{}) {
			t.Errorf("%s: a refused document gave a label", c.name)
		}
	}
}

func Test4774IsNotWrittenIncomplete(t *testing.T) {
	good := Options4774{Kind: Originator4774, Created: created4774}
	l := marked(t, "SECRET")
	if _, err := (Label{}).To4774(good); err == nil {
		t.Error("an unmarked label was written")
	}
	for name, o := range map[string]Options4774{
		"no kind":              {Created: created4774},
		"no time":              {Kind: Originator4774},
		"originator, no type":  {Kind: Originator4774, Created: created4774, Originator: "a"},
		"an Id with a space":   {Kind: Originator4774, Created: created4774, ID: "a b"},
		"a control character":  {Kind: Originator4774, Created: created4774, PrivacyMark: "a\x01b"},
		"a too long free text": {Kind: Originator4774, Created: created4774, PrivacyMark: strings.Repeat("a", MaxMarkingBytes+1)},
	} {
		if _, err := l.To4774(o); err == nil {
			t.Errorf("%s: was written", name)
		}
	}
}

func Test4774KnowsOnlyThePoliciesGiven(t *testing.T) {
	if _, _, err := Read4774(strings.NewReader(nato4774), usa(t)); err == nil {
		t.Error("a label of a policy that is not known was read")
	}
}
