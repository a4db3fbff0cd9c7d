package main

import "testing"

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
