package guard_test

import "testing"

func TestNumbersOfAnyScriptHideNoWord(t *testing.T) {
	w := newWords(t, "planet", "zulu7")
	for _, c := range []struct {
		text string
		ends bool
	}{
		{"pla3net", true}, {"pla②net", true}, {"pla٣net", true}, {"pla३net", true}, {"pla๓net", true}, {"plaⅣnet", true}, {"pla½net", true}, {"pla❷net", true}, {"pla〇net", true}, {"pla𒐏net", true},
		{"p٣lan٣et", true}, {"xpla٣net", false}, {"p٣l٣a٣n٣e٣t", false},
		{"p\u217canet", true}, {"pl٤n३t", true}, {"zulu٧", true}, {"zulu८", false}, // letters written as numbers, digits read as letters, and digits of the word
	} {
		if found := w.Search(c.text, mark(t, "TOP SECRET")); fatal(found) != c.ends {
			t.Errorf("%q: got %v, want it ended %v", c.text, found, c.ends)
		}
	}
	if found := w.Search("p٣l٣a٣n٣e٣t", mark(t, "TOP SECRET")); len(found) == 0 {
		t.Error("a word with a number between each two letters is not told")
	}
}
