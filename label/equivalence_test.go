package label

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const gbrToUSA = `{
 "format": "redoubt-equivalence-1", "from": "GBR@1", "to": "USA@1",
 "notBefore": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z",
 "classifications": {"OFFICIAL": "CONFIDENTIAL", "SECRET": "SECRET", "TOP SECRET": "TOP SECRET"},
 "categories": {"STRAP 2": ["SI"]},
 "marks": {"OFFICIAL-SENSITIVE": ["ORCON"], "COMMERCIAL": []},
 "audience": {"GBR": ["GBR"], "USA": ["USA"], "AUS": ["AUS"]}
}`

func at(s string) func() time.Time {
	when, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return func() time.Time { return when }
}

var inForce = at("2026-06-01T00:00:00Z")

func equivalence(t testing.TB, file string) *Equivalence {
	t.Helper()
	e, err := ReadEquivalence(strings.NewReader(file), inForce)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestConvertFollowsTheAgreement(t *testing.T) {
	e := equivalence(t, gbrToUSA)
	for from, want := range map[string]string{
		"SECRET//REL TO GBR, USA":            "//GBR SECRET//REL TO USA, GBR",
		"SECRET//UK/US EYES ONLY":            "//GBR SECRET//USA/GBR EYES ONLY",
		"SECRET//UK EYES ONLY":               "//GBR SECRET//AUDIENCE GBR",
		"TOP SECRET//STRAP 2//REL TO USA":    "//GBR TOP SECRET//SI//REL TO USA, GBR",
		"OFFICIAL-SENSITIVE//REL TO USA":     "//GBR CONFIDENTIAL//ORCON/REL TO USA, GBR",
		"OFFICIAL//COMMERCIAL//REL TO USA":   "//GBR CONFIDENTIAL//REL TO USA, GBR",
		"SECRET//REL TO FVEY":                "",
		"SECRET//REL TO USA, NATO":           "",
		"TOP SECRET//STRAP 1//REL TO USA":    "",
		"OFFICIAL//PERSONAL//REL TO USA":     "",
		"TOP SECRET//OVERLORD//UK EYES ONLY": "",
	} {
		l, err := policy(t, "GBR").Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Convert(l)
		if got.Banner() != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", from, got, err, want)
		}
	}
}

func TestConvertHasOneDirection(t *testing.T) {
	if _, err := equivalence(t, gbrToUSA).Convert(marked(t, "SECRET//REL TO USA, GBR")); err == nil {
		t.Error("the agreement was read backwards")
	}
	if _, err := equivalence(t, gbrToUSA).Convert(Label{}); err == nil {
		t.Error("an unmarked label was converted")
	}
}

func TestConvertRefusesAThirdOwnersMaterial(t *testing.T) {
	e := equivalence(t, `{"format": "redoubt-equivalence-1", "from": "USA@1", "to": "GBR@1",
 "notBefore": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z",
 "classifications": {"SECRET": "SECRET"}, "audience": {"GBR": ["GBR"], "USA": ["USA"], "FRA": ["FRA"]}}`)
	for _, m := range []string{"//FRA SECRET//REL TO USA, FRA, GBR", "SECRET//FGI FRA//REL TO USA, GBR", "SECRET//REL TO USA, GBR/DISPLAY ONLY AUS"} {
		if got, err := e.Convert(marked(t, m)); err == nil {
			t.Errorf("%s became %s", m, got)
		}
	}
	if got, err := e.Convert(marked(t, "SECRET//REL TO USA, GBR")); err != nil || got.Banner() != "SECRET//REL TO GBR, USA" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestConvertEndsWithTheAgreement(t *testing.T) {
	l, err := policy(t, "GBR").Parse("SECRET//REL TO USA")
	if err != nil {
		t.Fatal(err)
	}
	for when, want := range map[string]bool{
		"2025-12-31T23:59:59Z": false, "2026-01-01T00:00:00Z": true, "2026-12-31T23:59:59Z": true, "2027-01-01T00:00:00Z": false,
	} {
		e, err := ReadEquivalence(strings.NewReader(gbrToUSA), at(when))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Convert(l); (err == nil) != want || !want && !errors.Is(err, ErrExpired) {
			t.Errorf("at %s: got %v, want in force %t", when, err, want)
		}
	}
}

func TestEquivalenceIsReadStrictly(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"another format", "equivalence-1", "equivalence-2"},
		{"an unknown policy", "GBR@1", "GBR@2"},
		{"to itself", "USA@1", "GBR@1"},
		{"an unknown key", `"marks"`, `"remarks"`},
		{"a key in another case", `"marks"`, `"Marks"`},
		{"a key twice", `"STRAP 2": ["SI"]`, `"STRAP 2": ["SI"], "STRAP 2": ["TK"]`},
		{"an unknown classification", `"SECRET": "SECRET"`, `"SECRET": "MYSTERY"`},
		{"a turned order", `"SECRET": "SECRET"`, `"SECRET": "UNCLASSIFIED"`},
		{"a category that vanishes", `["SI"]`, `[]`},
		{"an unknown category", `["SI"]`, `["SJ"]`},
		{"an unknown mark", `["ORCON"]`, `["NOFORN"]`},
		{"an unknown nation", `["AUS"]`, `["AUX"]`},
		{"a nation that becomes nobody", `["AUS"]`, `[]`},
		{"a nation by another name", `"GBR": [`, `"UK": [`},
		{"a nation that becomes all", `"AUS": ["AUS"]`, `"ALL": ["AUS"]`},
		{"no end", `"expires": "2027-01-01T00:00:00Z"`, `"expires": ""`},
		{"an end before its start", `"expires": "2027`, `"expires": "2025`},
		{"something behind", "\n}", "\n} {}"},
		{"a wrong type", `["SI"]`, `"SI"`},
		{"deep nesting", `["SI"]`, strings.Repeat("[", 20) + strings.Repeat("]", 20)},
	} {
		file := strings.Replace(gbrToUSA, c.old, c.new, 1)
		if file == gbrToUSA {
			t.Fatalf("%s: the test changes nothing", c.name)
		}
		if _, err := ReadEquivalence(strings.NewReader(file), inForce); err == nil {
			t.Errorf("%s: was read", c.name)
		}
	}
	for n, want := range map[int]bool{MaxEquivalenceBytes: true, MaxEquivalenceBytes + 1: false} {
		file := gbrToUSA + strings.Repeat(" ", n-len(gbrToUSA))
		if _, err := ReadEquivalence(strings.NewReader(file), inForce); (err == nil) != want {
			t.Errorf("%d bytes: got %v, want read %t", n, err, want)
		}
	}
	if _, err := ReadEquivalence(strings.NewReader(gbrToUSA), nil); err == nil {
		t.Error("an agreement without a clock was read")
	}
}

func TestConvertKeepsTheOrder(t *testing.T) {
	e := equivalence(t, gbrToUSA)
	labels := labelsOf(policy(t, "GBR"))
	rapid.Check(t, func(t *rapid.T) {
		a, b := labels.Draw(t, "a"), labels.Draw(t, "b")
		a = Join(a, b)
		x, errA := e.Convert(a)
		y, errB := e.Convert(b)
		if errA == nil && errB == nil && !x.Dominates(y) {
			t.Fatalf("%s dominates %s, but %s not %s", a, b, x, y)
		}
	})
}
