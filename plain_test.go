package redoubt_test

import (
	"strings"
	"testing"

	"redoubt"
)

func TestAPlainNameShowsAllThatItHas(t *testing.T) {
	for s, want := range map[string]int{
		"": -1, "plan.txt": -1, "a b/ç ñ 報告 ا": -1, "e" + strings.Repeat("\u0316", redoubt.MaxMarks): -1, "Δt ½ ☃ 😀": -1,
		"plan\U000E0141": 4, "plan\uFE00": 4, "plan\uFE0F": 4, "p\u034Flan": 1, "\u3164": 0, "a\u2800b": 1, "a\u00ADb": 1, "a\u200Bb": 1, "a\U000E0041": 1,
		"a\u202Etxt.exe": 1, "a\nb": 1, "a\tb": 1, "a\x7f": 1, "a\u0085": 1, "a\u00A0b": 1, "a\u2003b": 1, "a\u2028": 1, "a\uE000": 1, "a\u0378": 1, "a\xff": 1, "a\uFFFD": 1,
		" ": 0, " a": 0, "a ": 1, "a  b": 2, "a b c": -1, "a\U0001D159": 1, "a\U00013441": 1, "a\U0001107F": 1, "a\U00016FE4": 1, "a\uFFFC": 1,
		"e\u0301t\u00e9": 0, "e" + strings.Repeat("\u0316", redoubt.MaxMarks+1): 1 + 2*redoubt.MaxMarks,
	} {
		if got := redoubt.Hides(s); got != want {
			t.Errorf("%q hides something from byte %d, want %d", s, got, want)
		}
	}
}
