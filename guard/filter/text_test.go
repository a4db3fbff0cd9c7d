package filter

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"redoubt"
	"redoubt/sandbox"
)

// TestWhatIsPlainIsWhatCleaningLeavesAsItIs: names are held to redoubt.Hides, and content to cleanString. The two agree.
func TestWhatIsPlainIsWhatCleaningLeavesAsItIs(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		s := "1" + string(r) + "1"
		n := newNotes("")
		clean, err := cleanString(s, n, "")
		if as := err == nil && clean == s && len(n.findings()) == 0; as != (redoubt.Hides(s) < 0) {
			t.Fatalf("U+%04X: cleaning leaves it: %v (%v), it hides something from %d", r, as, err, redoubt.Hides(s))
		}
	}
}

// TestNoRuleHasContent: rules are told where the content may not be.
func TestNoRuleHasContent(t *testing.T) {
	_, text := cleanText([]byte("the agent is Р\u0430ul, secretname\n"), nil, newNotes(""))
	_, csv := cleanCSV([]byte("id\nAGENT-NAME-IN-CLEAR\n"), []byte(`{"rows":1,"columns":[{"name":"id","type":"integer","from":0,"to":9}]}`), newNotes(""))
	exit := unread("/usr/bin/jq", &sandbox.Exit{Code: 2, Stderr: "cannot parse AGENT-NAME-IN-CLEAR"})
	for _, err := range []error{text, csv, exit, inMember("AGENT-NAME-IN-CLEAR", csv), inMember("a", denied("redoubt", csv))} {
		var e *redoubt.Error
		if !errors.As(denied("redoubt", err), &e) || e.Kind != redoubt.Denied || e.Rule != ruleContent || strings.Count(e.Hint, ruleContent) > 0 || len(e.Hint) < 20 {
			t.Errorf("%v: refused by %+v", err, e)
		}
	}
}
