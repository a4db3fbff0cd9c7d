package main

import "testing"

// No key puts its content where another's belongs, however it is written: "a/z/../b" would come after "a/b".
func TestEachKeyHasAFileOfItsOwn(t *testing.T) {
	for prefix, keys := range map[string][][2]string{
		"in/": {{"in//b", ""}, {"in/./b", ""}, {"in/a", "a"}, {"in/a/b", ""}, {"in/a/b/c", ""}, {"in/b", "b"}, {"in/d//e", ""}, {"in/d/e", "d/e"},
			{"in/d/z/../e", ""}, {"in/../../x", ""}, {"in/d/", ""}, {"in/", ""}, {"in/.", ""}},
		"in":   {{"in", "in"}, {"in//b", ""}, {"in/b", "b"}, {"inb", ""}, {"inc", "c"}},
		"in/b": {{"in/b", "b"}, {"in/b/c", "c"}, {"in/bb", ""}},
		"":     {{"/etc/passwd", ""}, {"a", "a"}, {"..", ""}},
	} {
		f := folder{prefix: prefix, taken: map[string]bool{}}
		for _, k := range keys {
			if got, why := f.file(k[0]); got != k[1] || (why == "") != (got != "") {
				t.Errorf("%q under %q: got %q (%s), want %q", k[0], prefix, got, why, k[1])
			}
		}
	}
}
