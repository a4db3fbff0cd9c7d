package guard_test

import (
	"runtime"
	"strings"
	"testing"

	"redoubt"
	"redoubt/guard"
	"redoubt/label"
)

func newWords(t testing.TB, words ...string) *guard.Words {
	t.Helper()
	w, err := guard.NewWords(words, usa(t))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func usa(t testing.TB) *label.Policy {
	t.Helper()
	p, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mark(t testing.TB, s string) label.Label {
	t.Helper()
	l, err := usa(t).Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fatal reports whether a finding ended the release.
func fatal(found []redoubt.Finding) bool {
	for _, f := range found {
		if f.Fatal {
			return true
		}
	}
	return false
}

func TestAWordIsFoundUnderItsDisguises(t *testing.T) {
	w := newWords(t, "nightfall", "Iron Gate", "ZULU7")
	top := mark(t, "TOP SECRET")
	for _, text := range []string{
		"nightfall", "NIGHTFALL", "the Nightfall plan", "NightFalls", "xnightfally",
		"n i g h t f a l l", "n.i.g.h.t.f.a.l.l", "night-fall", "night fall", "night\nfall", "ni\u200bght\u00adfall", "n\u0336i\u0336ghtfall", "n_i_g_h_t_f_a_l_l",
		"n\u0456ghtfall", "\u039dIGHTFALL", "\uff4e\uff49\uff47\uff48\uff54\uff46\uff41\uff4c\uff4c", "\U0001d427ightfall", "\u24dd\u24d8\u24d6\u24d7\u24e3fall", "n\u00efghtf\u00e4ll", "nightf\u0430ll",
		"n1ghtf4ll", "nightf@ll", "n1ghtfa11", "irongate", "IRON\t GATE", "(iron) [gate]", "1r0n g4te", "iron&nbsp;gate"[:4] + " gate", "zulu7", "zulu 7", "ZULU-7",
		"\U0001F15D\U0001F158\U0001F156\U0001F157\U0001F163fall", "\U0001F17D\U0001F178\U0001F176\U0001F177\U0001F183fall", "\U0001F1F3\U0001F1EE\U0001F1EC\U0001F1ED\U0001F1F9fall", "n\u0365ght fall", "\ua4e0\ua4f2\ua4d6\ua4e7\ua4d4\ua4dd\ua4ee\ua4e1\ua4e1", "night\ua730all", "\uab75\uab71on gate",
		"\u144eightfall", "nightf\u15e9\u14aa\u14aa", "\u0418IGHTFALL", "n19htfall", "ni6htfall", "2ulu7",
	} {
		if !fatal(w.Search(text, top)) {
			t.Errorf("%q: nothing was found", text)
		}
	}
	for _, text := range []string{"", "night", "fallnight", "a light fall", "iron", "big iron. Gates open", "zulu", "zulu 8", "the night falcon"} {
		if found := w.Search(text, top); fatal(found) {
			t.Errorf("%q: got %v", text, found)
		}
	}
}

func TestLettersAcrossWordsAreToldAndDoNotEnd(t *testing.T) {
	found := newWords(t, "nightfall").Search("a knight fallen", mark(t, "TOP SECRET"))
	if len(found) != 1 || found[0].Fatal {
		t.Errorf("got %v, want one finding that is not fatal", found)
	}
}

// TestANumberThatReadsAsAWordIsToldAndDoesNotEnd: in a column of numbers any short word stands, each digit read as a letter.
func TestANumberThatReadsAsAWordIsToldAndDoesNotEnd(t *testing.T) {
	w := newWords(t, "eagle", "bob", "4711")
	top := mark(t, "TOP SECRET")
	for _, text := range []string{"34613", "x 34913 y", "1346137", "id,count\n3,8\n4,0\n6,8\n1,1\n3,1\n", "808"} {
		if found := w.SearchContent("text/csv", []byte(text), top); len(found) == 0 || fatal(found) {
			t.Errorf("%q: got %v, want findings that are not fatal", text, found)
		}
	}
	for _, text := range []string{"3agl3", "e4613", "3 4 g 1 3", "8o8", "4711", "4 7 1 1"} {
		if !fatal(w.SearchContent("text/csv", []byte(text), top)) {
			t.Errorf("%q: nothing was found", text)
		}
	}
}

func TestAMarkingAboveTheLabelEnds(t *testing.T) {
	w := newWords(t)
	for _, c := range []struct{ as, text string }{
		{"UNCLASSIFIED", "SECRET"}, {"UNCLASSIFIED", "Secret\n"}, {"UNCLASSIFIED", "text\nCONFIDENTIAL\ntext"}, {"UNCLASSIFIED", "this is TOP SECRET matter"},
		{"UNCLASSIFIED", "(S) A paragraph."}, {"UNCLASSIFIED", "(C) 2024"}, {"UNCLASSIFIED", "(TS//SI) x"}, {"UNCLASSIFIED", "(S//NF)"}, {"UNCLASSIFIED", "S//NF"}, {"UNCLASSIFIED", "s//nf"}, {"UNCLASSIFIED", "(secret//noforn)"},
		{"UNCLASSIFIED", "Classification: Secret"}, {"UNCLASSIFIED", "*** Top Secret ***"}, {"UNCLASSIFIED", "classified secret by"},
		{"SECRET", "TOP SECRET"}, {"SECRET", "(TS)"}, {"SECRET", "SECRET//SI"}, {"SECRET", "SECRET//TK//NOFORN for all"}, {"SECRET", "x (S//SI-G/TK//OC/NF) y"},
		{"SECRET//REL TO USA, GBR", "SECRET//NOFORN"}, {"SECRET//REL TO USA, GBR", "SECRET"}, {"SECRET//REL TO USA, AUS, GBR", "(S//REL TO USA, GBR)"}, {"UNCLASSIFIED", "UNCLASSIFIED//NOFORN"},
		{"UNCLASSIFIED", "//GBR SECRET"}, {"SECRET", "//GBR TOP SECRET"}, {"SECRET", "SECRET//XYZZY"}, {"SECRET", "SECRET//SI/XYZZY"}, {"SECRET", "SECRET//REL TO USA, ZZZ"},
		{"UNCLASSIFIED", "S E C R E T"}, {"UNCLASSIFIED", "S-E-C-R-E-T"}, {"UNCLASSIFIED", "T O P S E C R E T"}, {"UNCLASSIFIED", "T.O.P. S.E.C.R.E.T."}, {"SECRET", "TOP\nSECRET"}, {"SECRET", "TOP  \n  SECRET//SI"},
		{"UNCLASSIFIED", "\u0405\u0415CRET"}, {"UNCLASSIFIED", "SE\u200bCRET"}, {"UNCLASSIFIED", "\uff33\uff25\uff23\uff32\uff25\uff34"}, {"UNCLASSIFIED", "\U0001d412\U0001d404\U0001d402\U0001d411\U0001d404\U0001d413"},
		{"UNCLASSIFIED", "_SECRET_"}, {"UNCLASSIFIED", "__SECRET//NOFORN__"}, {"SECRET", "TOP-SECRET"}, {"SECRET", "TOP_SECRET"}, {"UNCLASSIFIED", "\ua4e2\ua4f0\ua4da\ua4e3\ua4f0\ua4d4"}, {"UNCLASSIFIED", "\U0001F162\U0001F154\U0001F152\U0001F161\U0001F154\U0001F163"},
		{"SECRET", "TOPSECRET"}, {"UNCLASSIFIED", "SECRET\u2215\u2215NOFORN"},
		{"UNCLASSIFIED", "NATO SECRET"}, {"UNCLASSIFIED", "COSMIC TOP SECRET"}, {"UNCLASSIFIED", "(NS)"}, {"UNCLASSIFIED", "STRENG GEHEIM"}, {"UNCLASSIFIED", "VS-NUR F\u00dcR DEN DIENSTGEBRAUCH"}, {"UNCLASSIFIED", "(VS-NfD)"},
		{"UNCLASSIFIED", "DIFFUSION RESTREINTE"}, {"UNCLASSIFIED", "PROTECTED B"}, {"UNCLASSIFIED", "OFFICIAL: Sensitive"},
	} {
		if found := w.Search(c.text, mark(t, c.as)); !fatal(found) {
			t.Errorf("%q under %s: got %v, want it ended", c.text, c.as, found)
		}
	}
}

func TestAMarkingThatTheLabelDominatesDoesNotEnd(t *testing.T) {
	w := newWords(t)
	for _, c := range []struct{ as, text string }{
		{"UNCLASSIFIED", "UNCLASSIFIED"}, {"UNCLASSIFIED", "(U) Text."}, {"UNCLASSIFIED", "U//FOUO"}, {"UNCLASSIFIED", "the secret of success"}, {"UNCLASSIFIED", "Secret gardens"}, {"UNCLASSIFIED", "a) x (b) y (c) z"},
		{"UNCLASSIFIED", "the file(s)"}, {"UNCLASSIFIED", "confidential talks"}, {"UNCLASSIFIED", "SECRETARY"}, {"UNCLASSIFIED", "CLIENT_SECRET"}, {"UNCLASSIFIED", "SECRET_KEY"}, {"UNCLASSIFIED", "top secretary"}, {"UNCLASSIFIED", "OFFICIAL RESULTS"}, {"UNCLASSIFIED", "NATO UNCLASSIFIED"},
		{"UNCLASSIFIED", "https://example.org//path"}, {"UNCLASSIFIED", "Vitamin C"}, {"UNCLASSIFIED", "sed s//x/"},
		{"SECRET", "SECRET"}, {"SECRET", "(S) (C) (U)"}, {"SECRET", "SECRET//NOFORN"}, {"SECRET", "SECRET//REL TO USA, GBR"}, {"TOP SECRET//SI/TK", "SECRET//SI and more"}, {"TOP SECRET", "S E C R E T"},
		{"SECRET//REL TO USA, GBR", "(S//REL TO USA, AUS, GBR)"}, {"SECRET//REL TO USA, GBR", "SECRET//REL TO USA, GBR"},
	} {
		if found := w.Search(c.text, mark(t, c.as)); fatal(found) {
			t.Errorf("%q under %s: got %v", c.text, c.as, found)
		}
	}
}

// TestAMarkingIsFoundWhereverItStands: a text is looked at piece by piece, and a marking may lie over the end of one.
func TestAMarkingIsFoundWhereverItStands(t *testing.T) {
	w := newWords(t)
	const piece = 256 << 10
	for _, c := range []struct {
		as, marking string
		ends        bool
	}{{"SECRET", "TOP SECRET", true}, {"SECRET", "(S//SI)", true}, {"SECRET", "é //GBR TOP SECRET", true}, {"SECRET", "(S//NF)", false}, {"TOP SECRET", "TOP SECRET", false}} {
		for at := piece - len(c.marking) - 2; at <= piece+1; at++ {
			text := strings.Repeat("a\n", at/2) + strings.Repeat(".", at%2) + c.marking + "\n"
			if found := w.Search(text, mark(t, c.as)); fatal(found) != c.ends {
				t.Errorf("%s under %s at byte %d: got %v", c.marking, c.as, at, found)
			}
		}
	}
}

// TestATextOfMarkingsNeedsNoMoreMemoryThanAnother: 64 MiB of them would take the guard with them.
func TestATextOfMarkingsNeedsNoMoreMemoryThanAnother(t *testing.T) {
	w := newWords(t)
	for _, c := range []struct {
		mediaType, unit string
		most            uint64 // of memory, in all, for each byte
	}{{"text/plain", "text ", 60}, {"text/plain", "(S) ", 60}, {"text/plain", "SECRET ", 60}, {"text/csv", "1,1,1,1\n", 120}} {
		text := strings.Repeat(c.unit, 1<<20/len(c.unit))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if found := w.SearchContent(c.mediaType, []byte(text), mark(t, "TOP SECRET")); len(found) > 0 {
			t.Errorf("%q: got %v", c.unit, found)
		}
		runtime.ReadMemStats(&after)
		if times := (after.TotalAlloc - before.TotalAlloc) / uint64(len(text)); times > c.most {
			t.Errorf("%q: a search took %d times the memory of its text", c.unit, times)
		}
	}
}

func TestAnUnmarkedLabelDominatesNoMarking(t *testing.T) {
	if !fatal(newWords(t).Search("UNCLASSIFIED", label.Label{})) {
		t.Error("a marking passed under no label")
	}
}

func TestTheListOfWordsHasLimits(t *testing.T) {
	many := make([]string, guard.MaxWords+1)
	for i := range many {
		many[i] = strings.Repeat("x", 3+i%50)
	}
	long := strings.Repeat("x", guard.MaxWordBytes+1)
	for _, c := range []struct {
		words []string
		ok    bool
	}{
		{many[:guard.MaxWords], true}, {many, false}, {[]string{long[1:]}, true}, {[]string{long}, false}, {[]string{"abc"}, true}, {[]string{"a-b"}, false}, {[]string{""}, false},
	} {
		if _, err := guard.NewWords(c.words, usa(t)); (err == nil) != c.ok {
			t.Errorf("%d words: got %v, want ok %v", len(c.words), err, c.ok)
		}
	}
	if _, err := guard.NewWords(nil, nil); err == nil {
		t.Error("no policy is taken")
	}
}

func TestFindingsAreBoundedAndFatalOnesStandFirst(t *testing.T) {
	list := []string{"nightfall"}
	text := "a knight fallen "
	for i := range 200 {
		w := "zz" + strings.Repeat(string(rune('a'+i%26)), 3+i/26)
		list = append(list, w)
		text += w + " "
	}
	found := newWords(t, list...).Search(text+strings.Repeat("SECRET//XYZZY ", 5000), mark(t, "UNCLASSIFIED"))
	if len(found) != redoubt.MaxReleaseReport || !found[len(found)-1].Fatal {
		t.Errorf("got %d findings, the last %v", len(found), found[len(found)-1])
	}
	for _, f := range found {
		if len(f.Detail) > 256 || f.Step != "words" {
			t.Errorf("got %v", f)
		}
	}
}

func TestLookAlikeFindsWordsOfTwoScripts(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "plain": "", "русский": "", "ελληνικά": "", "kΩ": "", "Δt": "", "漢字かな": "", "café": "",
		"p\u0430ss": "p\u0430ss", "a p\u0430ss, b": "p\u0430ss", "\u0421\u0422OP": "\u0421\u0422OP", "pa\u03bfs": "pa\u03bfs", "\u0430\u03bf": "\u0430\u03bf", "S\ua4f0CRET": "S\ua4f0CRET", "P\u15e9SS": "P\u15e9SS", "ꓡꓲꓢꓴ": "", "ᖃᓂᐅᔭ": "",
	} {
		if got := guard.LookAlike(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func FuzzSearch(f *testing.F) {
	for _, s := range []string{"SECRET//NOFORN", "(TS//SI-G ABCD/TK//OC/NF)", "n1ghtf4ll", "T O P S E C R E T", "//GBR SECRET//REL TO", "\xff\u200b\u0430", "S//"} {
		f.Add(s)
	}
	w := newWords(f, "nightfall", "iron gate")
	top, low := mark(f, "TOP SECRET"), mark(f, "UNCLASSIFIED")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 64<<10 {
			return
		}
		w.Search(s, top)
		// What is found in a text is found in it between two others, too.
		if fatal(w.Search(s+"\nSECRET\n", low)) != true {
			t.Errorf("%q hides a marking on a line of its own", s)
		}
	})
}

func TestEachLookAlikeHasOneLetter(t *testing.T) {
	w := newWords(t, "abehiklmnoprstuvwxyz")
	if !fatal(w.Search("\u0430\u0412\u0435\u041d\u0406\u041al\u041c\u039d\u041e\u0420r\u0405\u0422\u03c5\u03bd\u051d\u0425\u0443\u0396", mark(t, "UNCLASSIFIED"))) {
		t.Error("a word in look-alikes passed")
	}
}
