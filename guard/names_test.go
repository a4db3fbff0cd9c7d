package guard_test

import "testing"

// TestAWordIsFoundOverNames: whoever gets the metadata and the list of an archive reads names as well as values.
func TestAWordIsFoundOverNames(t *testing.T) {
	w := newWords(t, "nightfall")
	low := mark(t, "UNCLASSIFIED")
	for _, c := range []struct {
		key  string
		meta map[string]string
		ends bool
	}{
		{"plan.txt", map[string]string{"night": "fall"}, true}, {"plan.txt", map[string]string{"night": "x", "nil": "y"}, false}, {"plan.txt", map[string]string{"a-night": "x", "fall": "y"}, true},
		{"plan.txt", map[string]string{"a": "night", "fall": "x"}, true}, {"plan.txt", map[string]string{"ni": "1", "ght": "2", "x": "3"}, false}, {"night.txt", map[string]string{"x": "fall"}, true},
		{"plan.txt", map[string]string{"author": "staff", "week": "14"}, false},
	} {
		if found := w.SearchNames(c.key, "text/plain", c.meta, low); fatal(found) != c.ends {
			t.Errorf("%s, %v: got %v, want it ended %v", c.key, c.meta, found, c.ends)
		}
	}
	for _, c := range []struct {
		archive string
		ends    bool
	}{
		{zipOf(t, "night.txt", "x", "wfall.txt", "y"), false}, {zipOf(t, "a/night.txt", "x", "fall.txt", "y"), true}, {zipOf(t, "report_SECRET_2026.txt", "x"), true}, {zipOf(t, "b.zip", zipOf(t, "TOP_SECRET.txt", "x")), true},
		{zipOf(t, "report_2026.txt", "x", "secretary.txt", "y"), false},
	} {
		if found := w.SearchContent("application/zip", []byte(c.archive), low); fatal(found) != c.ends {
			t.Errorf("%.60q: got %v, want it ended %v", c.archive, found, c.ends)
		}
	}
}

// TestNumbersDoNotHideAWord: a number between two of its parts splits a word as a space does.
func TestNumbersDoNotHideAWord(t *testing.T) {
	w := newWords(t, "nightfall", "fox", "faced", "zulu7")
	low := mark(t, "TOP SECRET")
	for _, c := range []struct {
		mediaType, content string
		ends, told         bool
	}{
		{"text/plain", "nig2htfa2ll", true, true}, {"text/plain", "the night 365 fall", true, true}, {"text/plain", "n i g h 2 t f a l l", true, true}, {"application/json", `[{"a":"night","b":12,"c":"fall"}]`, true, true},
		{"text/csv", "a,b,c\nnight,12,fall\n", true, true}, {"application/xml", "<a b='night' c='12' d='fall'/>", true, true}, {"text/plain", "zulu 17", false, false},
		{"text/plain", "n1i2g3h4t5f6a7l8l", false, true}, {"text/csv", "id,grade\n1,F\n2,A\n3,C\n4,E\n5,D\n", false, true}, {"text/plain", "f2o2x", false, true},
		{"text/plain", "the f 10 o 11 xylophones", false, false}, {"text/plain", "knight 365 fallen", false, false}, {"text/plain", "4e6967687466616c6c", false, false},
	} {
		found := w.SearchContent(c.mediaType, []byte(c.content), low)
		if fatal(found) != c.ends || len(found) > 0 != c.told {
			t.Errorf("%q: got %v, want it ended %v, told %v", c.content, found, c.ends, c.told)
		}
	}
}
