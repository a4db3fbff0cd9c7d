package guard_test

import (
	"runtime"
	"strings"
	"testing"
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
