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
