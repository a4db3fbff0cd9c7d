package guard_test

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"redoubt/guard"
)

// TestCharactersThatStandForManyNeedNoMoreMemoryThanOthers: 64 MiB of one that is written out as eleven would take the guard with them.
func TestCharactersThatStandForManyNeedNoMoreMemoryThanOthers(t *testing.T) {
	w := newWords(t, "nightfall")
	text := strings.Repeat("\ufdfa", 1<<20/3)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	found := w.SearchContent("text/plain", []byte(text), mark(t, "TOP SECRET"))
	runtime.ReadMemStats(&after)
	if times := (after.TotalAlloc - before.TotalAlloc) / uint64(len(text)); !fatal(found) || times > 60 {
		t.Errorf("got %v, for %d times the memory of the text", found, times)
	}
	for _, c := range []struct {
		text string
		ends bool
	}{
		{strings.Repeat("\ufdfa", 64<<10/30), false}, {strings.Repeat("\ufdfa", 64<<10/26), true}, {strings.Repeat("It is told that the Prophet \ufdfa said so. ", 10_000), false},
		{strings.Repeat("Vi\u1ec7t ", 100_000), false}, {strings.Repeat("\ud55c\uae00 ", 100_000), false}, {strings.Repeat("\u03b1\u1f50\u03c4\u1ff7 ", 100_000), false},
	} {
		if found := w.Search(c.text, mark(t, "TOP SECRET")); fatal(found) != c.ends {
			t.Errorf("%d bytes of %.6q: got %v, want it ended %v", len(c.text), c.text, found, c.ends)
		}
	}
}

// TestHangulIsSearchedBySyllables: by letters it would take three times the memory, and what stands for many is refused elsewhere.
func TestHangulIsSearchedBySyllables(t *testing.T) {
	for word, texts := range map[string][]string{
		"한국":                  {"한국", "대한국인", "한 국", "한국이", norm.NFD.String("한국"), norm.NFD.String("대한국인"), "한1국", "ㅎㅏ\u11ab국", "\u1112\u200b\u1161\u11ab국", "\uffbeㅏ\u11ab국"},
		"각":                   {"각", "각 1", norm.NFD.String("(각)"), "생각이"},
		"가나다":                 {"가나다", "㉮㉯㉰", "ㄱㅏㄴㅏㄷㅏ", norm.NFD.String("x가나다"), "㈎㈏㈐", "가2나3다"},
		norm.NFD.String("한국"): {"한국", norm.NFD.String("한국")},
	} {
		w := newWords(t, word)
		for _, text := range texts {
			if !fatal(w.Search(text, mark(t, "TOP SECRET"))) {
				t.Errorf("%q in %q (%+q): nothing was found", word, text, text)
			}
		}
		for _, text := range []string{"하국", "한", "한굴", "가나", "나다가", norm.NFD.String("하국")} {
			if found := w.Search(text, mark(t, "TOP SECRET")); len(found) > 0 {
				t.Errorf("%q in %q: got %v", word, text, found)
			}
		}
	}
	if _, err := guard.NewWords([]string{"가"}, usa(t)); err == nil {
		t.Error("a word of two letters is taken")
	}
	w := newWords(t, "nightfall")
	text := strings.Repeat("각", 1<<20/3)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	found := w.Search(text, mark(t, "TOP SECRET"))
	runtime.ReadMemStats(&after)
	if times := (after.TotalAlloc - before.TotalAlloc) / uint64(len(text)); len(found) > 0 || times > 20 {
		t.Errorf("got %v, for %d times the memory of the text", found, times)
	}
}
