package guard

import (
	"context"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// steady is a filter that works until it is stopped.
type steady struct{}

func (steady) Name() string { return "steady" }

func (steady) Clean(ctx context.Context, _ Content) ([]byte, []redoubt.Finding, error) {
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

// TestWhatIsFilteredForeverIsRefused: a few such requests would have both hands of a guard until they expire.
func TestWhatIsFilteredForeverIsRefused(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, adds("1"), adds("2"))
		of.o.Filters = func(string) (Pair, error) { return Pair{First: steady{}, Second: steady{}}, nil }
		of.r = NewReleaser(of.o)
		of.ask("a", "text", nil)
		of.runs(t, maxFiltering-time.Second)
		if v, judged := of.verdicts["a"]; judged {
			t.Errorf("what was in hand when the guard was stopped came to %+v", v)
		}
		of.runs(t, maxFiltering+time.Second)
		if v := of.verdicts["a"]; !strings.HasPrefix(v.Refused, "filters: it takes too long") {
			t.Errorf("it came to %+v", v)
		}
	})
}

// TestWhatIsToldOfWordsIsNotCrowdedOut: who asks chooses how much is taken out of her content, and the reviewers are to see what may be a word all the same.
func TestWhatIsToldOfWordsIsNotCrowdedOut(t *testing.T) {
	many := func(in Content) (out []byte, found []redoubt.Finding, err error) {
		for i := range redoubt.MaxReleaseReport {
			found = append(found, redoubt.Finding{Rule: "taken out", Detail: strings.Repeat("x", i)})
		}
		return in.Bytes, found, nil
	}
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, many, adds(""))
		of.ask("a", "the blueb irdx", nil)
		of.runs(t, time.Second)
		v := of.verdicts["a"]
		if n := len(v.Findings); v.Refused != "" || n != redoubt.MaxReleaseReport || v.Findings[0].Step != "words" || v.Findings[n-1].Rule != moreFound || v.Findings[n-1].Detail != "3 more" {
			t.Errorf("found %d: %+v", n, v)
		}
	})
	var found []redoubt.Finding
	for i := range redoubt.MaxReleaseReport + 5 {
		found = append(found, finding(false, "told", strings.Repeat("x", i)))
	}
	if out := trim(found); len(out) != redoubt.MaxReleaseReport || out[len(out)-1].Rule != moreFound || out[len(out)-1].Detail != "6 more" {
		t.Errorf("got %d, the last %+v", len(out), out[len(out)-1])
	}
	if out := trim(found[:redoubt.MaxReleaseReport]); len(out) != redoubt.MaxReleaseReport || out[len(out)-1].Rule != "told" {
		t.Errorf("got %d, the last %+v", len(out), out[len(out)-1])
	}
}

// TestASearchThatPanicsEndsTheRelease: it runs beside the step that asked for it, whose own recovery would not see it.
func TestASearchThatPanicsEndsTheRelease(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, adds(""), adds(""))
		broken := *of.o.Words
		broken.words = nil
		broken.headsBy['S'] = []head{{text: "SECRET", name: "SECRET", long: true}} // of no policy
		of.o.Words = &broken
		of.r = NewReleaser(of.o)
		of.ask("a", "SECRET", nil)
		of.runs(t, time.Second)
		if v := of.verdicts["a"]; !strings.Contains(v.Refused, "cannot be searched") {
			t.Errorf("it came to %+v", v)
		}
	})
}
