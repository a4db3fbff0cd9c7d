package enclave

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"redoubt"
)

// spill reports a version of the plan at topsecret, by its officer; "" is the current one.
func (c *chain) spill(id redoubt.VersionID, erase bool) redoubt.SpillReport {
	c.t.Helper()
	r, err := c.ts.ReportSpill(context.Background(), c.ts.spillOfficer(), planRequest.Name, id, "too low", erase)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (w *world) spillOfficer() redoubt.Credential { return w.as("officer", w.ceiling.Banner()) }

// stands is how a report stands now.
func (c *chain) stands(id string) redoubt.SpillReport {
	c.t.Helper()
	r, err := c.ts.Spill(context.Background(), c.ts.spillOfficer(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// relations is what a report lists, in words: the relation of each copy, and whether it is gone.
func relations(r redoubt.SpillReport) (out []string) {
	for _, x := range r.Copies {
		gone := " left"
		if x.Gone {
			gone = " gone"
		}
		out = append(out, x.Relation+gone)
	}
	slices.Sort(out)
	return out
}

func wantSpill(t *testing.T, r redoubt.SpillReport, proven bool, copies ...string) {
	t.Helper()
	if got := relations(r); !slices.Equal(got, copies) || r.Proven != proven {
		t.Errorf("got %q, proven %v, why %q, peers %+v, releases %+v; want %q, proven %v", got, r.Proven, r.Why, r.Peers, r.Releases, copies, proven)
	}
}

// wantNoRebuilt says that nobody opens what was rebuilt: the reviewers do not, and neither does the guard.
func (c *chain) wantNoRebuilt(id redoubt.ReleaseID) {
	c.t.Helper()
	o, err := c.ts.OpenRebuilt(context.Background(), c.ts.as("ts-analyst", "SECRET"), id)
	if err == nil {
		b, _ := io.ReadAll(o.Reader(0, -1))
		o.Close()
		c.t.Errorf("what was rebuilt still opens: %q", b)
	}
	if _, o, err := c.ts.FetchApproved(context.Background(), c.ts.as(highGuard, ""), id); err == nil {
		o.Close()
		c.t.Error("the guard still fetches it")
	}
}

func TestASpillTakesWhatTheGuardRebuilt(t *testing.T) {
	c := openChain(t)
	id := c.inReview()
	wantSpill(t, c.spill("", false), false, "itself left", "rebuilt left")
	c.wantState(id, redoubt.ReleaseReview, "")
	wantSpill(t, c.spill("", true), true, "itself gone", "rebuilt gone")
	c.wantState(id, redoubt.ReleaseDead, ruleChanged)
	c.wantNoRebuilt(id)
	if err := c.approve("rev-1", id); err == nil {
		t.Error("it is still approved")
	}
}

func TestASpillTakesWhatWasRebuiltOfACopy(t *testing.T) {
	c := openChain(t)
	id := c.inReview()
	who := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(who, "copy", "the plan, dirty", "")
	name := named("copy")
	r, err := c.ts.ReportSpill(context.Background(), c.ts.spillOfficer(), name, "", "too low", true)
	if err != nil {
		t.Fatal(err)
	}
	wantSpill(t, r, true, "itself gone", "rebuilt gone", "same content gone")
	c.wantNoRebuilt(id)
}

// TestASpillEndsTheReleaseWhoseRebuiltIsACopy: the version that it was rebuilt of has other content, and stays.
func TestASpillEndsTheReleaseWhoseRebuiltIsACopy(t *testing.T) {
	c := openChain(t)
	id := c.inReview()
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "copy", "the plan", "")
	r, err := c.ts.ReportSpill(context.Background(), c.ts.spillOfficer(), named("copy"), "", "too low", true)
	if err != nil {
		t.Fatal(err)
	}
	wantSpill(t, r, true, "itself gone", "same content gone")
	c.wantState(id, redoubt.ReleaseDead, ruleChanged)
	c.wantNoRebuilt(id)
}

func TestAnUpgradeTakesWhatTheGuardRebuilt(t *testing.T) {
	c := openChain(t)
	id := c.inReview()
	if _, err := c.ts.Upgrade(context.Background(), c.ts.spillOfficer(), redoubt.Regrade{Name: planRequest.Name, Label: "TOP SECRET", Reason: "too low"}); err != nil {
		t.Fatal(err)
	}
	c.wantState(id, redoubt.ReleaseDead, ruleChanged)
	c.wantNoRebuilt(id)
	if got := c.ts.in(c.ts.as("ts-analyst", "TOP SECRET"), "reports", "plan"); got != "the plan, dirty" {
		t.Errorf("what was upgraded: got %q", got)
	}
}

// wordless carries everything to a device as carry does, and nothing that it acknowledges comes back.
func wordless(t *testing.T, from, to *world) {
	t.Helper()
	ctx := context.Background()
	sets, err := from.Sets(ctx, to.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range sets {
		at, known, err := from.Acknowledged(ctx, to.name, set)
		if err != nil {
			t.Fatal(err)
		}
		if known {
			refs, _, err := from.Since(ctx, to.name, set, at, 100)
			if err != nil {
				t.Fatal(err)
			}
			apply(t, from, to, fetch(t, from, to, set, refs))
			continue
		}
		var all []redoubt.Stamp
		if _, err := from.Inventory(ctx, to.name, set, func(s redoubt.Stamp) error { all = append(all, s); return nil }); err != nil {
			t.Fatal(err)
		}
		items, err := from.Fetch(ctx, to.name, set, all)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, from, to, items)
	}
}

func TestADeviceThatHasNotSaidSoMayHoldASpill(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
	wordless(t, c.ts, d)
	who := d.as("ts-analyst", "SECRET")
	if got := d.in(who, "reports", "plan"); got != "the plan, dirty" {
		t.Fatalf("the device has %q", got)
	}
	r := c.spill("", true)
	wantSpill(t, r, false, "itself gone")
	if len(r.Peers) != 1 || r.Peers[0].May != 1 || !strings.Contains(r.Peers[0].Why, "may have taken it") {
		t.Errorf("got %+v, want one that may have it", r.Peers)
	}
	if _, refused := carry(t, c.ts, d); len(refused) > 0 {
		t.Fatalf("refused: %+v", refused)
	}
	if got := d.in(who, "reports", "plan"); got != "" {
		t.Errorf("the device still has %q", got)
	}
	r = c.stands(r.ID)
	wantSpill(t, r, true, "itself gone")
	if len(r.Peers) != 1 || r.Peers[0].Gone != 1 || r.Peers[0].Why != "" {
		t.Errorf("got %+v, want one that it is gone from", r.Peers)
	}
}

func TestAReleaseWithoutAReceiptMayHaveLeft(t *testing.T) {
	c := openChain(t)
	id := c.approved()
	p, text := c.fetched(id)
	receipt, err := c.accept(p, text) // and the guard dies
	if err != nil {
		t.Fatal(err)
	}
	wantReleases := func(r redoubt.SpillReport, why string) {
		t.Helper()
		if r.Proven || len(r.Releases) != 1 || r.Releases[0].ID != id || !strings.Contains(r.Releases[0].Why, why) || why == "" && r.Releases[0].Why != "" {
			t.Errorf("proven %v, releases %+v; want %s, %q", r.Proven, r.Releases, id, why)
		}
	}
	wantReleases(c.spill("", false), "may have left")
	r := c.spill("", true)
	wantReleases(r, "may have left")
	c.wantState(id, redoubt.ReleaseDead, ruleChanged)
	if err := c.finish(id, &receipt, ""); err != nil { // the guard comes back
		t.Fatal(err)
	}
	wantReleases(c.stands(r.ID), "")
}
