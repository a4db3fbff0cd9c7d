package enclave

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
)

// taken asks the target as the guard does.
func (c *chain) taken(p redoubt.ReleasePackage) (redoubt.ReleaseReceipt, bool) {
	c.t.Helper()
	r, is, err := c.secret.ReleaseTaken(context.Background(), c.secret.as(highGuard, ""), p.Statement.Public())
	if err != nil {
		c.t.Fatal(err)
	}
	return r, is
}

// pending is what waits for the guard among what is approved.
func (c *chain) pending() []redoubt.ReleaseID {
	return c.ts.releases.due(highGuard, redoubt.ReleaseApproved, c.ts.clock())
}

// endings are the ways in which an approved release ends while its guard is away.
var endings = map[string]struct {
	state redoubt.ReleaseState
	do    func(*chain, redoubt.ReleaseID)
}{
	"written over": {redoubt.ReleaseDead, func(c *chain, _ redoubt.ReleaseID) { c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "another", "") }},
	"expired":      {redoubt.ReleaseDead, func(c *chain, _ redoubt.ReleaseID) { c.hands.add(redoubt.MaxReleaseLife + 2*time.Hour) }},
	"denied": {redoubt.ReleaseDenied, func(c *chain, id redoubt.ReleaseID) {
		if _, err := c.ts.DenyRelease(context.Background(), c.ts.as("rev-3", "SECRET"), id, "no"); err != nil {
			c.t.Fatal(err)
		}
	}},
	"withdrawn": {redoubt.ReleaseDead, func(c *chain, id redoubt.ReleaseID) {
		if _, err := c.ts.DenyRelease(context.Background(), c.ts.as("ts-analyst", "SECRET"), id, ""); err != nil {
			c.t.Fatal(err)
		}
	}},
}

// TestWhatEndedAfterItWasTakenIsReleased: the guard died between the two, and the source says in the end what the target has.
func TestWhatEndedAfterItWasTakenIsReleased(t *testing.T) {
	for what, end := range endings {
		for _, crash := range []bool{false, true} {
			c := openChain(t)
			id := c.approved()
			p, text := c.fetched(id)
			if _, err := c.accept(p, text); err != nil {
				t.Fatal(err)
			}
			end.do(c, id)
			if crash {
				c.ts.restartGuarded(c)
			}
			for range 2 { // a guard may be cut off once more
				if got := c.pending(); !slices.Equal(got, []redoubt.ReleaseID{id}) {
					t.Fatalf("%s: %v waits", what, got)
				}
				again, o, err := c.ts.FetchApproved(context.Background(), c.ts.as(highGuard, ""), id)
				if err != nil || !again.Settle || o != nil || again.Statement.Public() != p.Statement.Public() {
					t.Fatalf("%s: the guard is given %+v, %v, %v", what, again, o, err)
				}
				c.wantState(id, end.state, "asks secret whether it was taken")
			}
			receipt, is := c.taken(p)
			if !is {
				t.Fatalf("%s: the target says that it was not taken", what)
			}
			if err := c.finish(id, &receipt, ""); err != nil {
				t.Fatal(err)
			}
			c.wantState(id, redoubt.ReleaseReleased, "")
			if got := c.pending(); len(got) > 0 {
				t.Errorf("%s: %v waits when it is over", what, got)
			}
			said := c.ts.saidOf(redoubt.ActionGuardRelease)
			for _, want := range []string{"release " + string(id) + " was given to its guard", "release " + string(id) + " was taken by secret"} {
				if !slices.Contains(said, want) {
					t.Errorf("%s: the record lacks %q: %q", what, want, said)
				}
			}
		}
	}
}

// saidOf is what is on record of an action, in words.
func (w *world) saidOf(action redoubt.Action) (all []string) {
	w.t.Helper()
	err := w.SearchAudit(context.Background(), w.as("officer", w.ceiling.Banner()), redoubt.AuditQuery{Action: action}, func(r redoubt.AuditRecord) error {
		all = append(all, r.Detail)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// TestWhatEndedUntakenStaysSo: the target says that it has it not, and takes it no more, though it is brought by who still had it.
func TestWhatEndedUntakenStaysSo(t *testing.T) {
	for what, end := range endings {
		c := openChain(t)
		id := c.approved()
		p, text := c.fetched(id)
		end.do(c, id)
		for range 2 {
			if _, is := c.taken(p); is {
				t.Fatalf("%s: the target says that it was taken", what)
			}
		}
		c.secret.restartGuarded(c)
		if _, err := c.accept(p, text); redoubt.KindOf(err) != redoubt.Conflict {
			t.Errorf("%s: brought later: %v", what, err)
		}
		if _, o, err := c.ts.FetchApproved(context.Background(), c.ts.as(highGuard, ""), id); err != nil || o != nil {
			t.Errorf("%s: it is given again: %v, %v", what, o, err)
		}
		if err := c.finish(id, nil, "it was not taken before"); err != nil {
			t.Fatal(err)
		}
		if r := c.show(id); r.State != end.state || strings.Contains(r.Why, "whether it was taken") {
			t.Errorf("%s: it is %s, %q", what, r.State, r.Why)
		}
		if got := c.pending(); len(got) > 0 {
			t.Errorf("%s: %v waits when it is over", what, got)
		}
	}
}

// TestWhatWasNeverGivenIsNotAskedFor: it ends as it did.
func TestWhatWasNeverGivenIsNotAskedFor(t *testing.T) {
	for what, end := range endings {
		c := openChain(t)
		id := c.approved()
		end.do(c, id)
		if _, _, err := c.ts.FetchApproved(context.Background(), c.ts.as(highGuard, ""), id); err == nil {
			t.Errorf("%s: it is given", what)
		}
		if got := c.pending(); len(got) > 0 {
			t.Errorf("%s: %v waits", what, got)
		}
		if r := c.show(id); r.State != end.state || strings.Contains(r.Why, "whether it was taken") {
			t.Errorf("%s: it is %s, %q", what, r.State, r.Why)
		}
	}
}

func TestOnlyTheDeclaredGuardAsksWhatWasTaken(t *testing.T) {
	c := openChain(t)
	p, text := c.fetched(c.approved())
	ctx, public := context.Background(), p.Statement.Public()
	if _, _, err := c.secret.ReleaseTaken(ctx, c.secret.as("u-analyst", ""), public); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a person asks: %v", err)
	}
	for what, change := range map[string]func(*redoubt.ReleasePublic){
		"another estate": func(p *redoubt.ReleasePublic) { p.Estate = "other" }, "another target": func(p *redoubt.ReleasePublic) { p.To = "unclass" },
		"no ID": func(p *redoubt.ReleasePublic) { p.ID = "x" }, "no digest": func(p *redoubt.ReleasePublic) { p.Rest = "x" },
		"no label": func(p *redoubt.ReleasePublic) { p.Label = "NO SUCH" }, "a label above": func(p *redoubt.ReleasePublic) { p.Label = "TOP SECRET" },
	} {
		q := public
		change(&q)
		if _, is, err := c.secret.ReleaseTaken(ctx, c.secret.as(highGuard, ""), q); err == nil || is {
			t.Errorf("%s: %v, %v", what, is, err)
		}
	}
	if _, err := c.accept(p, text); err != nil {
		t.Errorf("a question that was refused ended it: %v", err)
	}
	other := public
	other.Rest = strings.Repeat("0", 64)
	if _, is, err := c.secret.ReleaseTaken(ctx, c.secret.as(highGuard, ""), other); err != nil || is {
		t.Errorf("another statement of the same ID: %v, %v", is, err)
	}
	if _, is := c.taken(p); !is {
		t.Error("it is forgotten")
	}
}
