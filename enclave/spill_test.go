package enclave

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"redoubt"
	"redoubt/store"
)

// spill reports a version of the plan at topsecret, by its officer; "" is the current one.
func (c *chain) spill(id redoubt.VersionID, erase bool) redoubt.SpillReport {
	c.t.Helper()
	r, err := c.ts.ReportSpill(context.Background(), c.ts.spillOfficer(), redoubt.Spill{Name: planRequest.Name, Version: id, Reason: "too low", Erase: erase})
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
	r, err := c.ts.ReportSpill(context.Background(), c.ts.spillOfficer(), redoubt.Spill{Name: name, Version: "", Reason: "too low", Erase: true})
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
	r, err := c.ts.ReportSpill(context.Background(), c.ts.spillOfficer(), redoubt.Spill{Name: named("copy"), Version: "", Reason: "too low", Erase: true})
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

func TestAnErasureTakesWhatTheGuardRebuilt(t *testing.T) {
	c := openChain(t)
	id := c.inReview()
	v, err := c.ts.HeadObject(context.Background(), c.ts.as("ts-analyst", "SECRET"), redoubt.ReadObject{Name: planRequest.Name})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ts.EraseVersion(context.Background(), c.ts.spillOfficer(), planRequest.Name, v.ID, "spilled"); err != nil {
		t.Fatal(err)
	}
	c.wantState(id, redoubt.ReleaseDead, ruleChanged)
	c.wantNoRebuilt(id)
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

// TestASpillOutlivesACrashAnywhere fails each commit behind the one that closes the version in turn. After a restart the report is there and the
// version is not; asked for again, or behind the requests, it comes to its end.
func TestASpillOutlivesACrashAnywhere(t *testing.T) {
	for failAt := 0; ; failAt++ {
		var f *faulty
		w := open(t, withFaults(&f))
		ctx, s := context.Background(), w.as("s-analyst", "")
		v := w.put(s, "spilt", "do not keep", "")
		w.put(s, "copy", "do not keep", "")
		w.upload(s, "parts", "", 3)
		w.put(s, "kept", "keep", "")
		f.failsAfterClosing(failAt)
		_, err := w.ReportSpill(ctx, w.spillOfficer(), redoubt.Spill{Name: named("spilt"), Version: "", Reason: "too low", Erase: true})
		w.restart(true)
		if got := w.get(s, "spilt"); got != "" {
			t.Fatalf("failing at %d: got %q after the report was on record", failAt, got)
		}
		before, e := w.Spills(ctx, w.spillOfficer())
		if e != nil || len(before) != 1 {
			t.Fatalf("failing at %d: got %+v, %v, want the report", failAt, before, e)
		}
		if before[0].Proven && err != nil && slices.Contains(relations(before[0]), "same content left") {
			t.Errorf("failing at %d: it is proven before it is at its end", failAt)
		}
		if failAt%2 == 0 {
			if e := w.fulfilAll(ctx); e != nil {
				t.Fatal(e)
			}
		}
		again, e := w.ReportSpill(ctx, w.spillOfficer(), redoubt.Spill{Name: named("spilt"), Version: v.ID, Reason: "asked again", Erase: true})
		if e != nil {
			t.Fatalf("failing at %d: %v", failAt, e)
		}
		wantSpill(t, again, true, "itself gone", "same content gone", "upload gone")
		if again.ID != before[0].ID || again.Reason != "too low" {
			t.Errorf("failing at %d: another report was begun: %+v", failAt, again)
		}
		if e := w.fulfilAll(ctx); e != nil {
			t.Fatal(e)
		}
		if got := w.get(s, "kept"); got != "keep" {
			t.Errorf("got %q, want keep", got)
		}
		view := w.engine.View()
		it := view.Scan(dutyMark, after(dutyMark))
		if it.Next() {
			t.Errorf("failing at %d: a duty is left: %s", failAt, it.Key())
		}
		it.Close()
		view.Close()
		if err == nil {
			if failAt < 5 {
				t.Errorf("only %d steps were tried", failAt)
			}
			return
		}
	}
}

// TestASpillThatFailedIsNotTakenForTheVersionBefore: asked again without a version, it goes on with what was begun.
func TestASpillThatFailedIsNotTakenForTheVersionBefore(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	ctx, s := context.Background(), w.as("s-analyst", "")
	w.put(s, "plan", "clean", "")
	v := w.put(s, "plan", "spilt", "")
	f.failsAfterClosing(0)
	if _, err := w.ReportSpill(ctx, w.spillOfficer(), redoubt.Spill{Name: named("plan"), Version: "", Reason: "too low", Erase: true}); err == nil {
		t.Fatal("it did not fail")
	}
	f.when(nil)
	r, err := w.ReportSpill(ctx, w.spillOfficer(), redoubt.Spill{Name: named("plan"), Version: "", Reason: "too low", Erase: true})
	if err != nil || r.Version != v.ID || !r.Proven {
		t.Errorf("got %+v, %v, want the report of %s", r, err, v.ID)
	}
	if got := w.get(s, "plan"); got != "clean" {
		t.Errorf("the version before: got %q", got)
	}
}

// TestAReportedVersionIsClosedBeforeCopiesAreSearchedFor.
func TestAReportedVersionIsClosedBeforeCopiesAreSearchedFor(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	s := w.as("s-analyst", "")
	w.put(s, "plan", "spilt", "")
	w.put(s, "copy", "spilt", "")
	var first []int
	f.when(func(b *store.Batch) error {
		if len(b.Unlinks) > 0 {
			marks := 0
			for _, x := range b.Writes {
				if strings.HasPrefix(string(x.Key), string(dutyKey(spillDuty))) {
					marks++
				}
			}
			first = append(first, marks)
		}
		return nil
	})
	if _, err := w.ReportSpill(context.Background(), w.spillOfficer(), redoubt.Spill{Name: named("plan"), Version: "", Reason: "too low", Erase: true}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(first, []int{1, 0}) {
		t.Errorf("got %v: the first thing taken out is not in the commit that keeps the report", first)
	}
}

func TestASpillEndsTheUploadsThatMayHoldIt(t *testing.T) {
	w := open(t, nil)
	ctx, s, low := context.Background(), w.as("s-analyst", ""), w.as("u-analyst", "")
	w.put(s, "plan", "the plan, dirty", "")
	begin := func(who redoubt.Credential, key, body string) (redoubt.Upload, []redoubt.CompletePart) {
		u, list := w.upload(who, key, "")
		if body != "" {
			list = append(list, w.part(who, u, 1, []byte(body)))
		}
		return u, list
	}
	type upload struct {
		who  redoubt.Credential
		body string
		ends bool
	}
	uploads := map[string]upload{
		"whole":       {s, "the plan, dirty", true},
		"lower":       {low, "the plan, dirty", true},
		"piece":       {s, "the plan", true},
		"other":       {s, "the plan, clean", false}, // of its length, and another
		"longer":      {s, "the plan, dirty, and more", false},
		"of no parts": {s, "", false},
	}
	begun, lists := map[string]redoubt.Upload{}, map[string][]redoubt.CompletePart{}
	for key, u := range uploads {
		begun[key], lists[key] = begin(u.who, key, u.body)
	}
	before := w.epochs("SECRET")
	r, err := w.ReportSpill(ctx, w.spillOfficer(), redoubt.Spill{Name: named("plan"), Version: "", Reason: "too low", Erase: true})
	if err != nil {
		t.Fatal(err)
	}
	wantSpill(t, r, true, "itself gone", "upload gone", "upload gone", "upload gone")
	if now := w.epochs("SECRET"); slices.Contains(now, before[0]) {
		t.Errorf("epochs %v became %v: keys of parts are left", before, now)
	}
	for key, u := range uploads {
		if u.body == "" {
			lists[key] = append(lists[key], w.part(u.who, begun[key], 1, []byte("begun before, and put after")))
		}
		_, err := w.complete(u.who, begun[key], lists[key])
		if u.ends {
			want(t, err, redoubt.NotFound)
		} else if err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	w.charges()
}

// TestWhatAnUpgradeLeavesToDoIsDoneAfterACrash: all that was committed is that the version is gone, and the duty.
func TestWhatAnUpgradeLeavesToDoIsDoneAfterACrash(t *testing.T) {
	c := openChain(t)
	ctx, id := context.Background(), c.inReview()
	b, f, _, err := c.ts.lookAt(ctx, "Upgrade", c.ts.spillOfficer(), redoubt.ActionRegrade, planRequest.Name, "")
	if err != nil {
		t.Fatal(err)
	}
	act := c.ts.ownAct(f.set.label, redoubt.ActionErase, planRequest.Name)
	gone, err := c.ts.removeVersion(ctx, b, f.set, planRequest.Name.Key, f.rec.id, act, nil, func(batch *store.Batch) error {
		return duty{Source: &source{Name: planRequest.Name, Version: c.ts.ids.versionID(f.rec.id)}}.add(batch, sourceDuty+"it")
	})
	if err != nil || !gone {
		t.Fatal(gone, err)
	}
	c.ts.restartGuarded(c)
	if err := c.ts.fulfilAll(ctx); err != nil {
		t.Fatal(err)
	}
	c.wantState(id, redoubt.ReleaseDead, ruleChanged)
	c.wantNoRebuilt(id)
}

// TestADamagedVersionHoldsNoSpillUp: it may be a copy, so the report is not proven.
func TestADamagedVersionHoldsNoSpillUp(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	w.put(s, "plan", "spilt", "")
	w.put(s, "copy", "spilt", "")
	w.put(s, "damaged", "other", "")
	b := (*w.buckets.Load())["reports"]
	set := w.set("SECRET")
	key := headKey(b.id, set.id, "damaged")
	raw, _, err := w.engine.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := decodeRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	rec.pieces[0].bound[0] ^= 1 // its seal is of another version
	w.overwrite(key, rec.encode(nil))
	r, err := w.ReportSpill(context.Background(), w.spillOfficer(), redoubt.Spill{Name: named("plan"), Version: "", Reason: "too low", Erase: true})
	if err != nil {
		t.Fatal(err)
	}
	wantSpill(t, r, false, "itself gone", "same content gone")
	if !strings.Contains(r.Why, "reports/damaged") {
		t.Errorf("got %q, want the version that does not read back", r.Why)
	}
}

// TestASpillOfWhatIsEmptyTakesNothingElse: its name or its metadata is what was too low, and every folder of an S3 client has its content.
func TestASpillOfWhatIsEmptyTakesNothingElse(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	w.put(s, "spilt", "", "")
	w.put(s, "folder/", "", "")
	r, err := w.ReportSpill(context.Background(), w.spillOfficer(), redoubt.Spill{Name: named("spilt"), Reason: "its name is SECRET", Erase: true})
	if err != nil {
		t.Fatal(err)
	}
	wantSpill(t, r, true, "itself gone")
	if got := w.list(s); !slices.Equal(got, []string{"folder/"}) {
		t.Errorf("left is %q", got)
	}
}

// TestASpillRotatesALabelOnce: a rotation re-wraps every data key of its label, and a scrub rewrites what held them.
func TestASpillRotatesALabelOnce(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	for i := range 20 {
		w.put(s, "spilt"+strconv.Itoa(i), "do not keep", "")
	}
	w.put(s, "kept", "keep", "")
	before := w.set("SECRET").epoch.Load()
	r, err := w.ReportSpill(context.Background(), w.spillOfficer(), redoubt.Spill{Name: named("spilt7"), Reason: "too low", Erase: true})
	if err != nil || !r.Proven || len(r.Copies) != 20 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if after := w.set("SECRET").epoch.Load(); after > before+2 { // the first of a label's keys is of epoch 1
		t.Errorf("the epoch went from %d to %d", before, after)
	}
	if got := w.get(s, "kept"); got != "keep" {
		t.Errorf("what was kept: %q", got)
	}
}
