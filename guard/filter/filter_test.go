package filter_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"redoubt"
	"redoubt/guard"
	"redoubt/guard/filter"
	"redoubt/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Enter(filter.Workers())
	os.Exit(m.Run())
}

// newSet is the filters of this machine. Root's tests need all of them; elsewhere a test of a type that lacks one is skipped.
func newSet(t testing.TB) *filter.Set {
	t.Helper()
	if raced {
		t.Skip("each process under the race detector takes a second; what is concurrent here is the pool, which TestWarmProcessesServeOneItemEach runs")
	}
	s, err := filter.New(filter.Options{})
	if err != nil {
		if os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(s.Close)
	return s
}

// both sends content through both filters of its type, as a guard does.
func both(t testing.TB, s *filter.Set, c guard.Content) ([]byte, []redoubt.Finding, error) {
	t.Helper()
	pair, err := s.Pair(c.Type)
	if err != nil {
		if os.Getuid() == 0 && slices.Contains(filter.Types(), c.Type) {
			t.Fatalf("scripts/deps installs what is missing: %v", err)
		}
		return nil, nil, err
	}
	out, seen, err := pair.First.Clean(t.Context(), c)
	if err != nil {
		return nil, seen, err
	}
	c.Bytes = out
	out, more, err := pair.Second.Clean(t.Context(), c)
	return out, append(seen, more...), err
}

// passes expects content to pass as want.
func passes(t *testing.T, s *filter.Set, c guard.Content, want string) []redoubt.Finding {
	t.Helper()
	out, seen, err := both(t, s, c)
	if err != nil || string(out) != want {
		t.Errorf("%.80q: got %.200q and %v (%s), want %.200q", c.Bytes, out, err, hint(err), want)
	}
	return seen
}

// refused expects content to be refused for a reason that has rule in it.
func refused(t *testing.T, s *filter.Set, c guard.Content, rule string) {
	t.Helper()
	out, _, err := both(t, s, c)
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != redoubt.Denied || !strings.Contains(e.Rule+": "+e.Hint, rule) || out != nil {
		t.Errorf("%.80q: got %.80q and %v, want it refused for %q", c.Bytes, out, err, rule)
	}
	if e != nil && len(e.Hint) > 600 {
		t.Errorf("the reason has %d bytes", len(e.Hint))
	}
}

func hint(err error) string {
	var e *redoubt.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

func has(t *testing.T, seen []redoubt.Finding, rule string) {
	t.Helper()
	if !slices.ContainsFunc(seen, func(f redoubt.Finding) bool { return strings.Contains(f.Rule, rule) }) {
		t.Errorf("got findings %v, want one of %q", seen, rule)
	}
}

func TestOtherTypesAreRefusedWithAHint(t *testing.T) {
	s := newSet(t)
	for _, mediaType := range []string{"", "text/html", "application/octet-stream", "application/msword", "text/plain; charset=utf-8", "TEXT/PLAIN", "image/svg+xml",
		"application/vnd.openxmlformats-officedocument.wordprocessingml.document", "image/gif"} {
		if _, err := s.Pair(mediaType); redoubt.KindOf(err) != redoubt.Denied || hint(err) == "" {
			t.Errorf("%s: got %v, want it denied with a hint", mediaType, err)
		}
	}
}

func TestTheTwoFiltersOfATypeAreOfTwoCodeBases(t *testing.T) {
	s := newSet(t)
	for _, mediaType := range filter.Types() {
		p, err := s.Pair(mediaType)
		if err != nil {
			t.Fatal(err)
		}
		if p.First.Name() == p.Second.Name() || p.First.Name() == "" || p.Second.Name() == "" {
			t.Errorf("%s: %q and %q", mediaType, p.First.Name(), p.Second.Name())
		}
	}
}

func TestAvailableTellsEachProgramAndItsVersion(t *testing.T) {
	all, err := filter.Available(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		t.Logf("%s: %s %s %q %v", b.Type, b.Name, b.Path, b.Version, b.Err)
		if b.Err != nil || b.Version == "" {
			t.Errorf("%s: %s has version %q and error %v", b.Type, b.Path, b.Version, b.Err)
		}
	}
}

func TestWarmProcessesServeOneItemEach(t *testing.T) {
	s, err := filter.New(filter.Options{Warm: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for j := range 3 {
				in := fmt.Sprintf("item %d of %d", j, i)
				passes(t, s, guard.Content{Type: filter.Text, Bytes: []byte(in)}, in)
			}
		})
	}
	all.Wait()
}

func TestTextLeavesAsItIsSeen(t *testing.T) {
	s := newSet(t)
	long := strings.Repeat("Zażółć gęślą jaźń. Всё хорошо. 漢字かな交じり文 ελληνικά\n", 20000)
	for in, want := range map[string]string{
		"":                                  "",
		"plain\n":                           "plain\n",
		"cafe\u0301":                        "caf\u00e9",
		"a\r\nb\r\n":                        "a\nb\n",
		"\ufeffmarked":                      "marked",
		"zero\u200bwidth\u200c\u200d\u2060": "zerowidth",
		"soft\u00adhyphen \U000E0041tag":    "softhyphen tag",
		"snow \t \nnext\t\n":                "snow\nnext\n",
		"a\u00a0b\u2003c\u3000d":            "a b c d",
		"one\u2028two":                      "one\ntwo",
		"10 k\u2126 and \u0394t, \u03bcm":   "10 k\u03a9 and \u0394t, \u03bcm",
		"\u2764\ufe0f":                      "\u2764",
		long:                                long,
		"tab\tin\tline":                     "tab\tin\tline",
		"<ann@example.org> wrote":           "<ann@example.org> wrote",
		"<body":                             "<body",
		strings.Repeat("x", 1020) + "%PDF-": strings.Repeat("x", 1020) + "%PDF-",
		"\u0440\u0443\u0441\u0441\u043a\u0438\u0439": "\u0440\u0443\u0441\u0441\u043a\u0438\u0439",
	} {
		seen := passes(t, s, guard.Content{Type: filter.Text, Bytes: []byte(in)}, want)
		if in != want && !strings.Contains(in, "\r") && !strings.Contains(in, "\u0301") && !strings.Contains(in, "\u2126") && len(seen) == 0 {
			t.Errorf("%q: nothing was said of what was taken out", in)
		}
	}
}

func TestTextThatHidesIsRefused(t *testing.T) {
	s := newSet(t)
	for in, rule := range map[string]string{
		"caf\xe9":                              "UTF-8",
		"\xed\xa0\x80":                         "UTF-8",
		"nul\x00":                              "control character",
		"esc\x1b[31m":                          "control character",
		"lone\rreturn":                         "control character",
		"next\u0085line":                       "control character",
		"right\u202eleft":                      "direction",
		"iso\u2066late":                        "direction",
		"mark\u200f":                           "direction",
		"private\ue000":                        "agreed meaning",
		"\ufffd":                               "could not be read",
		"\ufdd0":                               "does not have",
		" \u200b\u3164\ufeff":                  "nothing of it",
		"s\u0435cret":                          "look like",
		"\u0420ASS":                            "look like",
		"pa\u03bfper":                          "look like",
		"z" + strings.Repeat("\u0301", 9):      "marks on one letter",
		"%PDF-1.4 text":                        "begins as another type",
		"  <?xml version='1.0'?>":              "begins as another type",
		"#!/bin/sh":                            "begins as another type",
		"%!\n(x) show showpage":                "begins as another type",
		"%FDF-1.2\n1 0 obj":                    "begins as another type",
		"GIF89a=1;//":                          "begins as another type",
		"PK\x03\x04":                           "control character",
		"<body onload=go()>":                   "begins as another type",
		"\n <IFRAME\nsrc=x>":                   "begins as another type",
		"<table>":                              "begins as another type",
		"<br/>":                                "begins as another type",
		"a line\n%PDF-1.4\n1 0 obj":            "begins as another type",
		strings.Repeat("x", 1019) + "%PDF-1.4": "begins as another type",
	} {
		refused(t, s, guard.Content{Type: filter.Text, Bytes: []byte(in)}, rule)
	}
}

func TestContentAtTheLimitPassesAndOneByteMoreDoesNot(t *testing.T) {
	if testing.Short() {
		t.Skip("64 MiB through both filters")
	}
	s := newSet(t)
	in := bytes.Repeat([]byte("a line of text.\n"), redoubt.MaxReleaseBytes/16)
	passes(t, s, guard.Content{Type: filter.Text, Bytes: in}, string(in))
	refused(t, s, guard.Content{Type: filter.Text, Bytes: append(in, 'x')}, "bytes")
}
