package enclave

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
)

func TestAReleaseGoesFromRequestToReceipt(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	r := c.ask(func(q *redoubt.RequestRelease) { q.Keep = []string{"subject"} })
	if r.State != redoubt.ReleaseRequested || r.Label != "SECRET" || r.As != "UNCLASSIFIED" || r.By != "ts-analyst" || r.From != "topsecret" || r.Key != "plan" || len(r.ID) != 32 ||
		r.Expires.Truncate(time.Hour) != r.Expires || r.Expires.Sub(r.Made) < redoubt.MaxReleaseLife {
		t.Errorf("asked: %+v", r)
	}
	ids, err := c.ts.PendingReleases(ctx, c.ts.as(highGuard, ""), redoubt.ReleaseRequested)
	if err != nil || len(ids) != 1 || ids[0] != r.ID {
		t.Errorf("pending %v, %v", ids, err)
	}
	work, o, err := c.ts.FetchRelease(ctx, c.ts.as(highGuard, ""), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, o, 0, -1); got != "the plan, dirty" || work.ID != r.ID {
		t.Errorf("the guard is given %q of %+v", got, work)
	}
	o.Close()
	c.rebuilt(r.ID, "the plan")
	s := c.show(r.ID).Statement
	if want := (redoubt.ReleaseStatement{Estate: "example", ID: r.ID, From: "topsecret", To: "secret", Requester: "ts-analyst", Bucket: "topsecret.reports", Key: "plan", ContentType: "text/plain",
		Meta: nil, SizeBytes: 8, SHA256: s.SHA256, Label: "UNCLASSIFIED", Policy: c.ts.policyName(), Rules: testRules, Expires: r.Expires}); s.Public().Rest != want.Public().Rest {
		t.Errorf("the statement is %+v, want %+v", s, want)
	}
	if o, err := c.ts.OpenRebuilt(ctx, c.ts.as("rev-1", "SECRET"), r.ID); err != nil || content(t, o, 0, -1) != "the plan" {
		t.Errorf("a reviewer looks at %v, %v", o, err)
	}
	for i, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		if err := c.approve(by, r.ID); err != nil {
			t.Fatal(err)
		}
		if got := c.show(r.ID); len(got.Approvals) != i+1 || (got.State == redoubt.ReleaseApproved) != (i == 1) {
			t.Errorf("after %d signatures it is %s with %d", i+1, got.State, len(got.Approvals))
		}
	}
	p, text := c.fetched(r.ID)
	receipt, err := c.accept(p, text)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.released(); got != "the plan" {
		t.Errorf("what came down is %q", got)
	}
	if err := c.finish(r.ID, &receipt, ""); err != nil {
		t.Fatal(err)
	}
	c.wantState(r.ID, redoubt.ReleaseReleased, "")
	if err := c.finish(r.ID, &receipt, ""); err != nil {
		t.Errorf("said twice: %v", err)
	}
	v, err := c.secret.HeadObject(ctx, c.secret.as("u-analyst", ""), redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "topsecret.reports", Key: "plan"}})
	if err != nil || v.Maker != "secret" || v.Author != "guard.topsecret" || v.Label.Banner() != "UNCLASSIFIED" || v.Attributes.ContentType != "text/plain" {
		t.Errorf("it came down as %+v, %v", v, err)
	}
	for _, action := range []redoubt.Action{redoubt.ActionRequestRelease, redoubt.ActionGuardRelease, redoubt.ActionApproveRelease} {
		if len(c.ts.decisions(action)) == 0 {
			t.Errorf("of %s nothing is on record", action)
		}
	}
	if got := c.secret.decisionsAt("SECRET", redoubt.ActionAcceptRelease); len(got) != 1 {
		t.Errorf("the target has %v on record", got)
	}
}

func TestWhatIsAskedIsHeldAgainstPolicyAtOnce(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	who := c.ts.as("ts-analyst", "SECRET")
	v := c.ts.put(who, "plan", "text", "")
	for key, marking := range map[string]string{"fgi": "SECRET//FGI GBR", "both": "SECRET//FGI GBR//ORCON"} {
		c.ts.put(who, key, "text", marking)
	}
	c.low("raised", "weather")
	c.raise(c.unclass, c.secret)
	c.raise(c.secret, c.ts)
	for what, one := range map[string]struct {
		change func(*redoubt.RequestRelease)
		kind   redoubt.Kind
		rule   string
	}{
		"to where no guard leads":        {func(q *redoubt.RequestRelease) { q.To = "unclass" }, redoubt.Denied, ruleNoGuard},
		"to nobody":                      {func(q *redoubt.RequestRelease) { q.To = "nobody" }, redoubt.Denied, ruleNoGuard},
		"as the same label":              {func(q *redoubt.RequestRelease) { q.Label = "SECRET" }, redoubt.Denied, ruleNotLower},
		"as a higher label":              {func(q *redoubt.RequestRelease) { q.Label = "TOP SECRET" }, redoubt.Denied, ruleNotLower},
		"as no lower one in other words": {func(q *redoubt.RequestRelease) { q.Label = "SECRET//NOFORN" }, redoubt.Denied, ruleNotLower},
		"as another nation's":            {func(q *redoubt.RequestRelease) { q.Label = "CONFIDENTIAL//FGI GBR" }, redoubt.Denied, ruleConsent},
		"of another enclave":             {func(q *redoubt.RequestRelease) { q.Name = redoubt.ObjectName{Bucket: "unclass.reports", Key: "raised"} }, redoubt.Denied, ruleOrigin},
		"FGI and ORCON":                  {func(q *redoubt.RequestRelease) { q.Name.Key = "both" }, redoubt.Denied, ruleConsent},
		"FGI":                            {func(q *redoubt.RequestRelease) { q.Name.Key = "fgi" }, redoubt.Denied, ruleConsent},
		"what is not there":              {func(q *redoubt.RequestRelease) { q.Name.Key = "none" }, redoubt.NotFound, ""},
		"no reason":                      {func(q *redoubt.RequestRelease) { q.Reason = "" }, redoubt.Invalid, ""},
		"a reason that is too long":      {func(q *redoubt.RequestRelease) { q.Reason = strings.Repeat("x", redoubt.MaxReleaseReason+1) }, redoubt.Invalid, ""},
		"for too long":                   {func(q *redoubt.RequestRelease) { q.Life = redoubt.MaxReleaseLife + 1 }, redoubt.Invalid, ""},
		"for less than nothing":          {func(q *redoubt.RequestRelease) { q.Life = -1 }, redoubt.Invalid, ""},
		"under no key that there can be": {func(q *redoubt.RequestRelease) { q.Key = strings.Repeat("k", redoubt.MaxKeyBytes+1) }, redoubt.Invalid, ""},
		"with more names than there are": {func(q *redoubt.RequestRelease) { q.Keep = []string{strings.Repeat("n", redoubt.MaxMetadataBytes+1)} }, redoubt.Invalid, ""},
	} {
		q := planRequest
		one.change(&q)
		r, err := c.ts.RequestRelease(ctx, who, q)
		var e *redoubt.Error
		if !errors.As(err, &e) || e.Kind != one.kind && !(one.kind == redoubt.Invalid && e.Kind == redoubt.TooLarge) || one.rule != "" && e.Rule != one.rule || r.ID != "" {
			t.Errorf("%s: got %v, want %v by %s", what, err, one.kind, one.rule)
		}
	}
	q := planRequest
	q.Version = v.ID
	c.ts.put(who, "plan", "newer", "SECRET")
	if _, err := c.ts.RequestRelease(ctx, who, q); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("of a version that is not current: %v", err)
	}
	q.Reason, q.Life, q.Version = strings.Repeat("x", redoubt.MaxReleaseReason), redoubt.MaxReleaseLife, ""
	if _, err := c.ts.RequestRelease(ctx, who, q); err != nil {
		t.Errorf("at the limits: %v", err)
	}
	if all, err := c.ts.Releases(ctx, who, redoubt.ListReleases{}); err != nil || len(all) != 1 {
		t.Errorf("%d releases came of it, %v", len(all), err)
	}
}

func TestALabelOutsideTheTargetsRangeIsRefused(t *testing.T) {
	c := openChain(t)
	who := c.ts.as("ts-analyst", "TOP SECRET//SI")
	c.ts.put(who, "plan", "text", "")
	for marking, rule := range map[string]string{"TOP SECRET": ruleTarget, "SECRET//SI": ruleTarget, "SECRET": ""} {
		q := planRequest
		q.Label = marking
		_, err := c.ts.RequestRelease(context.Background(), who, q)
		if rule == "" && err != nil || rule != "" && ruleOf(err) != rule {
			t.Errorf("as %s: %v, want %q", marking, err, rule)
		}
	}
}

func TestRatesAreKeptAPersonAndADay(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	c.ts.guards[0].PerPersonDay, c.ts.guards[0].PerDay = 3, 5
	ask := func(who redoubt.SubjectName) error {
		_, err := c.ts.RequestRelease(ctx, c.ts.as(who, "SECRET"), planRequest)
		return err
	}
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "text", "")
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	who := c.ts.as("ts-analyst", "SECRET")
	for range 20 { // at once, too
		wg.Go(func() {
			_, err := c.ts.RequestRelease(ctx, who, planRequest)
			errs <- err
		})
	}
	wg.Wait()
	taken := 0
	for range 20 {
		switch err := <-errs; {
		case err == nil:
			taken++
		case ruleOf(err) != ruleRate || !errors.Is(err, redoubt.QuotaExceeded):
			t.Error(err)
		}
	}
	if taken != 3 {
		t.Errorf("one person asked for %d, want 3", taken)
	}
	for range 2 {
		if err := ask("s-analyst"); err != nil {
			t.Fatal(err)
		}
	}
	wantRefusal(t, "the sixth of a day", ask("s-analyst"), redoubt.QuotaExceeded, ruleRate)
	c.ts.restartGuarded(c)
	wantRefusal(t, "the sixth, after a restart", ask("s-analyst"), redoubt.QuotaExceeded, ruleRate)
	c.hands.add(24*time.Hour + time.Second)
	if err := ask("s-analyst"); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

// TestWhatIsReleasedAboveTellsNothingBelow: no rate, no list, no answer.
func TestWhatIsReleasedAboveTellsNothingBelow(t *testing.T) {
	answers := func(above bool) (out []string) {
		c := openChain(t)
		ctx := context.Background()
		c.ts.guards[0].PerPersonDay, c.ts.guards[0].PerDay = 4, 6
		high, low := c.ts.as("ts-analyst", "TOP SECRET"), c.ts.as("ts-analyst", "SECRET")
		c.ts.put(low, "plan", "text", "")
		var hidden redoubt.ReleaseID = "00000000000000000000000000000000"
		if above {
			c.ts.put(high, "hidden", "text", "")
			q := planRequest
			q.Name.Key = "hidden"
			for range 4 {
				r, err := c.ts.RequestRelease(ctx, high, q)
				if err != nil {
					t.Fatal(err)
				}
				hidden = r.ID
			}
			c.rebuilt(hidden, "text")
		}
		say := func(what string, v any, err error) {
			var e *redoubt.Error
			if errors.As(err, &e) {
				err = fmt.Errorf("%s %v %s %s %s", e.Op, e.Kind, e.Rule, strings.ReplaceAll(e.Object, string(hidden), "ID"), e.Hint)
			}
			out = append(out, fmt.Sprintf("%s: %v, %v", what, v, err))
		}
		for range 6 {
			r, err := c.ts.RequestRelease(ctx, low, planRequest)
			say("ask", r.State, err)
			for _, q := range []redoubt.ListReleases{{}, {Max: 1}, {State: redoubt.ReleaseRequested}, {State: redoubt.ReleaseReview}, {After: hidden}} {
				all, err := c.ts.Releases(ctx, low, q)
				say("list", len(all), err)
			}
		}
		for _, who := range []redoubt.Credential{low, c.ts.as("rev-1", "SECRET"), c.ts.as("u-analyst", "")} {
			r, err := c.ts.Release(ctx, who, hidden)
			say("show", r.ID, err)
			_, err = c.ts.OpenRebuilt(ctx, who, hidden)
			say("open", "", err)
			_, err = c.ts.ApproveRelease(ctx, who, hidden, "AAAA")
			say("approve", "", err)
			_, err = c.ts.ConsentRelease(ctx, who, hidden, "AAAA")
			say("consent", "", err)
			_, err = c.ts.DenyRelease(ctx, who, hidden, "no")
			say("deny", "", err)
		}
		usage, err := c.ts.Usage(ctx, low)
		say("usage", len(usage), err)
		return out
	}
	with, without := answers(true), answers(false)
	for i := range with {
		if with[i] != without[i] {
			t.Errorf("with something above: %s\nwithout:              %s", with[i], without[i])
		}
	}
}

func TestAClosedBucketKeepsItsReleasesForWhoNeedsToKnow(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	r := c.ask(nil)
	c.rebuilt(r.ID, "the plan")
	for range 3 {
		c.ask(nil)
	}
	c.ts.put(c.ts.as("s-analyst", ""), "open", "text", "")
	facts := &(*c.ts.buckets.Load())["reports"].facts
	facts.Closed = true
	facts.Grants = []redoubt.Grant{{Subject: "rev-3", Bucket: "reports"}}
	defer func() { facts.Closed = false }()
	none := redoubt.ReleaseID("00000000000000000000000000000000")
	who := c.ts.as("rev-1", "SECRET")
	if all, err := c.ts.Releases(ctx, who, redoubt.ListReleases{}); err != nil || len(all) != 0 {
		t.Errorf("listed %d, %v", len(all), err)
	}
	if all, err := c.ts.Releases(ctx, c.ts.as("rev-3", "SECRET"), redoubt.ListReleases{}); err != nil || len(all) != 4 {
		t.Errorf("to who needs to know %d are listed, %v", len(all), err)
	}
	for what, do := range map[string]func(redoubt.ReleaseID) error{
		"show":    func(id redoubt.ReleaseID) error { _, err := c.ts.Release(ctx, who, id); return err },
		"open":    func(id redoubt.ReleaseID) error { _, err := c.ts.OpenRebuilt(ctx, who, id); return err },
		"approve": func(id redoubt.ReleaseID) error { _, err := c.ts.ApproveRelease(ctx, who, id, ""); return err },
		"consent": func(id redoubt.ReleaseID) error { _, err := c.ts.ConsentRelease(ctx, who, id, ""); return err },
		"deny":    func(id redoubt.ReleaseID) error { _, err := c.ts.DenyRelease(ctx, who, id, ""); return err },
	} {
		got, want := do(r.ID), do(none)
		if !errors.Is(got, redoubt.NotFound) || strings.ReplaceAll(got.Error(), string(r.ID), string(none)) != want.Error() {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	if _, err := c.ts.Release(ctx, c.ts.as("rev-3", "SECRET"), r.ID); err != nil {
		t.Errorf("who needs to know: %v", err)
	}
}

func TestTheListGoesOnWhereItsPageEnded(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	var want []redoubt.ReleaseID
	for range 7 {
		want = append([]redoubt.ReleaseID{c.ask(nil).ID}, want...)
	}
	who := c.ts.as("s-analyst", "")
	var got []redoubt.ReleaseID
	var after redoubt.ReleaseID
	for range 10 {
		page, err := c.ts.Releases(ctx, who, redoubt.ListReleases{Max: 2, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			got, after = append(got, r.ID), r.ID
		}
		if len(page) < 2 {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	c.hands.add(redoubt.MaxReleaseLife + 2*time.Hour)
	who = c.ts.as("s-analyst", "")
	for state, n := range map[redoubt.ReleaseState]int{redoubt.ReleaseRequested: 0, redoubt.ReleaseDead: 7} {
		all, err := c.ts.Releases(ctx, who, redoubt.ListReleases{State: state})
		if err != nil || len(all) != n {
			t.Errorf("%d are %s when their time is over, want %d (%v)", len(all), state, n, err)
		}
	}
}

func TestAGuardIsGivenWhatIsUnderAnOpenRequestAlone(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	guard := c.ts.as(highGuard, "")
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "other", "not asked for", "")
	name := redoubt.ObjectName{Bucket: "reports", Key: "other"}
	if _, err := c.ts.GetObject(ctx, guard, redoubt.ReadObject{Name: name}); !errors.Is(err, redoubt.Denied) && !errors.Is(err, redoubt.NotFound) {
		t.Errorf("a guard reads: %v", err)
	}
	if _, err := c.ts.ListObjects(ctx, guard, redoubt.ListObjects{Bucket: "reports", Max: 9}); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a guard lists: %v", err)
	}
	id := c.ask(nil).ID
	for what, who := range map[string]redoubt.Credential{"a person": c.ts.as("ts-analyst", ""), "a reviewer": c.ts.as("rev-1", ""), "an administrator": c.ts.as("ts-admin", "")} {
		if _, _, err := c.ts.FetchRelease(ctx, who, id); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s is given the source: %v", what, err)
		}
		if err := c.ts.SubmitRelease(ctx, who, id, redoubt.ReleaseVerdict{Rules: testRules}, strings.NewReader("x")); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s submits: %v", what, err)
		}
		if _, err := c.ts.PendingReleases(ctx, who, redoubt.ReleaseRequested); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s sees what waits: %v", what, err)
		}
	}
	x, _ := c.ts.releases.find(id)
	x.guard = "guard-other"
	if _, _, err := c.ts.FetchRelease(ctx, guard, id); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("the guard of another pair: %v", err)
	}
	x.guard = highGuard
	for _, id := range []redoubt.ReleaseID{"", "00000000000000000000000000000000", "../plan"} {
		if _, _, err := c.ts.FetchRelease(ctx, guard, id); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("release %q: %v", id, err)
		}
	}
	if _, err := c.ts.DenyRelease(ctx, c.ts.as("ts-analyst", "SECRET"), id, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ts.FetchRelease(ctx, guard, id); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("of one that was withdrawn: %v", err)
	}
	if err := c.ts.RevokePerson(ctx, c.ts.as("officer", "SECRET"), highGuard, "taken over"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ts.PendingReleases(ctx, guard, redoubt.ReleaseRequested); err == nil {
		t.Error("a revoked guard sees what waits")
	}
}
