package main

import (
	"bytes"
	"testing"
)

// TestNothingHidesFromAReviewer: what has no shape of its own stands as an escape.
func TestNothingHidesFromAReviewer(t *testing.T) {
	for in, want := range map[string]string{
		"plan.txt ç 報告\n\t": "plan.txt ç 報告\n\t", "plan\U000E0141": `plan\U000e0141`, "plan\uFE00": `plan\ufe00`, "a\u034Fb": `a\u034fb`, "\u3164": `\u3164`, "\u2800": `\u2800`,
		"\u115F": `\u115f`, "\u00AD": `\u00ad`, "\u202Etxt": `\u202etxt`, "\U000E0041": `\U000e0041`, "\u00A0": `\u00a0`, "\xff": `\xff`, "\x1b[2J": `\x1b[2J`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
}

// TestANameStaysInItsRow: a name that somebody chose below is shown to who reads above.
func TestANameStaysInItsRow(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, err: &out}
	w := a.table("KEY", "LABEL")
	w.row("a\x1b[31m\nplan.txt\tSECRET", "UNCLASSIFIED")
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	a.say("%s is gone", "b\x1b[2J")
	want := "KEY                          LABEL\n" + `a\x1b[31m\nplan.txt\tSECRET  UNCLASSIFIED` + "\n" + `b\x1b[2J is gone` + "\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
