package enclave

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"redoubt"
	"redoubt/guard"
	"redoubt/guard/filter"
	"redoubt/sandbox"
)

// TestMain lets the filters run this binary for what they wall in.
func TestMain(m *testing.M) {
	sandbox.Enter(filter.Workers())
	os.Exit(m.Run())
}

// TestAGuardRaisesAndReleasesFromEndToEnd: between three enclaves with both halves, the real filters, and a folder for the road.
func TestAGuardRaisesAndReleasesFromEndToEnd(t *testing.T) {
	filters, err := filter.New(filter.Options{})
	if err == nil {
		t.Cleanup(filters.Close)
		_, err = filters.Pair(filter.Text)
	}
	if err != nil {
		if os.Getuid() == 0 {
			t.Fatalf("scripts/deps installs what is missing: %v", err)
		}
		t.Skip(err)
	}
	c := openChain(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{}, 8)
	running := 0
	start := func(run func(context.Context) error) {
		running++
		go func() {
			defer func() { ended <- struct{}{} }()
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	defer func() {
		for stop(); running > 0; running-- {
			<-ended
		}
	}()
	for _, way := range [][2]*world{{c.unclass, c.secret}, {c.secret, c.ts}} {
		low, high := way[0], way[1]
		above := t.TempDir()
		k, err := guard.NewTaker(guard.TakerOptions{High: high.name, Guard: high.as(c.guardOf(low), ""), Target: c.files[high], Dir: above})
		if err != nil {
			t.Fatal(err)
		}
		f, err := guard.NewFeeder(guard.FeederOptions{High: high.name, Guard: low.as(c.guardOf(low), ""), Source: c.files[low], Dir: t.TempDir(), Send: func(_ context.Context, b *guard.Outgoing, _ bool, _ func(context.Context) error) error {
			raw, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			coming := filepath.Join(above, ".coming")
			if err == nil {
				err = os.WriteFile(coming, raw, 0o600)
			}
			if err == nil {
				err = os.Rename(coming, filepath.Join(above, fmt.Sprintf("%d.rbundle", b.Mark.Serial)))
			}
			k.Came("")
			return err
		}})
		if err != nil {
			t.Fatal(err)
		}
		start(k.Run)
		start(f.Run)
	}
	words, err := guard.NewWords([]string{"BLUEBIRD"}, c.ts.policy)
	if err != nil {
		t.Fatal(err)
	}
	r := guard.NewReleaser(guard.ReleaserOptions{AtHigh: c.ts.as(highGuard, ""), AtLow: c.secret.as(highGuard, ""), Source: c.ts, Same: c.ts, Target: c.secret, Filters: filters.Pair, Words: words,
		Rules: guard.Rules{Digest: testRules, Types: []string{filter.Text}, Floor: c.secret.floor, Limit: c.secret.ceiling, Policy: c.ts.policy, High: "topsecret", Low: "secret"}})
	start(func(ctx context.Context) error { r.Run(ctx); return nil })

	c.low("a", "weather")
	until(t, "the raise", func() bool { return c.ts.in(c.ts.as("u-analyst", ""), "unclass.reports", "a") == "weather" })

	who := c.ts.as("ts-analyst", "SECRET")
	ask := func(text string) redoubt.ReleaseID {
		c.ts.put(who, "plan", text, "")
		r, err := c.ts.RequestRelease(ctx, who, planRequest)
		if err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	dirty := ask("the plan of BLUEBIRD\n")
	until(t, "the refusal", func() bool { return c.show(dirty).State == redoubt.ReleaseRefused })
	if got := c.show(dirty); got.Why == "" || len(got.Findings) == 0 || c.released() != "" {
		t.Errorf("refused: %+v", got)
	}
	id := ask("the plan\r\n")
	until(t, "the review", func() bool { return c.show(id).State == redoubt.ReleaseReview })
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		if err := c.approve(by, id); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the release", func() bool { return c.show(id).State == redoubt.ReleaseReleased })
	if got := c.released(); got != "the plan\n" {
		t.Errorf("what came down is %q", got)
	}
	if got := c.show(id).Receipt; got == nil || got.Node != "secret" {
		t.Errorf("the receipt is %+v", got)
	}
	// What was released is not raised, and comes back to nobody.
	if got := c.ts.in(c.ts.as("u-analyst", ""), "secret.reports", "plan"); got != "" {
		t.Errorf("it came back as %q", got)
	}
}

// until waits for what others are at work on.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 600 {
		if is() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s did not come", what)
}
