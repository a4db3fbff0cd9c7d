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
