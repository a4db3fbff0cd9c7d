package enclave

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// reportedIn reports a version of any bucket.
func (w *world) reportedIn(bucket, key string, id redoubt.VersionID, erase bool, spare ...redoubt.VersionID) (redoubt.SpillReport, error) {
	return w.ReportSpill(context.Background(), w.spillOfficer(), redoubt.Spill{Name: redoubt.ObjectName{Bucket: redoubt.BucketName(bucket), Key: key}, Version: id, Reason: "too low", Erase: erase, Spare: spare})
}

// copiedHere copies what a guard or a partner brought.
func (w *world) copiedHere(who redoubt.Credential, bucket, key, to string) redoubt.Version {
	w.t.Helper()
	v, err := w.CopyObject(context.Background(), who, redoubt.CopyObject{Source: redoubt.ObjectName{Bucket: redoubt.BucketName(bucket), Key: key}, Target: named(to)})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// made runs a job that opens one version and puts one output.
func (w *world) made(who redoubt.Credential, bucket, key, out string) redoubt.JobRun {
	w.t.Helper()
	w.submit(who, func(q *redoubt.SubmitJob) { q.In = []redoubt.JobInput{{Bucket: redoubt.BucketName(bucket)}} })
	r := w.run()
	read(w.t, r, bucket+"/"+key)
	if out != "" {
		putOut(w.t, r, out, "made above as "+out)
		finish(w.t, r, redoubt.JobExit{})
	}
	return r
}

// keptGone counts what is kept of what erasures took away.
func (w *world) keptGone() (n int) {
	w.t.Helper()
	if err := w.eachGone(context.Background(), func(*bucket, found, string) error { n++; return nil }); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestWhatWasErasedBelowIsReportedAbove: the report below says that it was raised and is to be reported there, and its erasure comes first.
func TestWhatWasErasedBelowIsReportedAbove(t *testing.T) {
	c := openChain(t)
	c.low("plan", "the plan, dirty")
	c.low("else", "something else")
	c.unclass.worked(c.unclass.as("u-analyst", ""), "plan", "a", "made below", nil)
	c.raise(c.unclass, c.secret)
	c.raise(c.secret, c.ts)
	for _, w := range []*world{c.secret, c.ts} {
		who := w.as("ts-analyst", "SECRET")
		w.copiedHere(who, "unclass.reports", "plan", "copied")
		w.put(who, "typed", "the plan, dirty", "")
		w.put(who, "kept", "the plan, clean", "")
		w.made(who, "unclass.reports", "plan", "of the plan")
		w.made(who, "unclass.reports", "out/a", "of what was made below")
		w.made(who, "unclass.reports", "else", "of something else")
	}
	r, err := c.unclass.reportedIn("reports", "plan", "", true)
	if err != nil {
		t.Fatal(err)
	}
	if got := listedAs(r, "out/a"); !slices.Equal(got, []string{relDerived}) {
		t.Fatalf("below, what was made of it is listed as %q", got)
	}
	c.raise(c.unclass, c.secret)
	c.raise(c.secret, c.ts)
	raises := c.secret.links.raises
	c.secret.restart(true)
	c.files[c.secret] = c.bundles(c.secret)
	if err := c.secret.SetRaises(context.Background(), raises); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*world{c.secret, c.ts} {
		if w == c.ts {
			c.raise(c.secret, c.ts) // what the report at secret took out goes above too
		}
		if err := w.fulfilAll(context.Background()); err != nil { // behind the requests
			t.Fatal(err)
		}
		if got := w.in(w.as("ts-analyst", "SECRET"), "unclass.reports", "plan"); got != "" {
			t.Fatalf("at %s it is still %q", w.name, got)
		}
		found, err := w.reportedIn("unclass.reports", "plan", "", false)
		if err != nil {
			t.Fatalf("at %s: %v", w.name, err)
		}
		if c := found.Copies[0]; !c.Gone || c.Relation != relItself || c.Maker != "unclass" || found.SHA256 != r.SHA256 {
			t.Errorf("at %s it is listed as %+v, of %s", w.name, c, found.SHA256)
		}
		if got := w.get(w.as("ts-analyst", "SECRET"), "copied"); got == "" {
			t.Errorf("at %s finding took something out", w.name)
		}
		report, err := w.reportedIn("unclass.reports", "plan", found.Version, true)
		if err != nil {
			t.Fatalf("at %s: %v", w.name, err)
		}
		for key, want := range map[string][]string{"copied": {relSame}, "typed": {relSame}, "out/of the plan": {relDerived}, "out/of what was made below": {relDerived}, "out/a": {relDerived}, "kept": nil, "out/of something else": nil} {
			if got := slices.Compact(listedAs(report, key)); !slices.Equal(got, want) { // at topsecret there are those of secret too
				t.Errorf("at %s %s is listed as %q, want %q", w.name, key, got, want)
			}
			if there := w.get(w.as("ts-analyst", "SECRET"), key) != ""; there != (want == nil) {
				t.Errorf("at %s %s is there: %v", w.name, key, there)
			}
		}
		for _, x := range report.Copies {
			if !x.Gone && x.Relation != relMayBe {
				t.Errorf("at %s %+v is not gone", w.name, x)
			}
		}
		again, err := w.reportedIn("unclass.reports", "plan", "", true)
		if err != nil || again.ID != report.ID {
			t.Errorf("at %s, once more: %s, %v, want %s", w.name, again.ID, err, report.ID)
		}
		below := map[redoubt.NodeName]string{"secret": "unclass", "topsecret": "secret"}[w.name]
		if i := slices.IndexFunc(report.Peers, func(p redoubt.SpillPeer) bool { return string(p.Node) == below }); i < 0 || report.Peers[i].Gone != report.Peers[i].Had || !strings.Contains(report.Peers[i].Why, "erased there") {
			t.Errorf("at %s, of where it came from: %+v", w.name, report.Peers)
		}
	}
}

// TestWhatReadsWhatWasErasedBelowIsEnded: it opened it before the erasure came.
func TestWhatReadsWhatWasErasedBelowIsEnded(t *testing.T) {
	c := openChain(t)
	c.low("plan", "the plan, dirty")
	c.raise(c.unclass, c.secret)
	run := c.secret.made(c.secret.as("s-analyst", ""), "unclass.reports", "plan", "")
	if _, err := c.unclass.reportedIn("reports", "plan", "", true); err != nil {
		t.Fatal(err)
	}
	c.raise(c.unclass, c.secret)
	r, err := c.secret.reportedIn("unclass.reports", "plan", "", true)
	if err != nil || len(r.Readers) != 1 || !r.Readers[0].Ended || !run.(*jobRun).stopped() {
		t.Errorf("readers %+v, %v", r.Readers, err)
	}
}

// TestWhatIsMeantIsNotGuessedAbove: the version before is clean, and what is taken for the reported one goes.
func TestWhatIsMeantIsNotGuessedAbove(t *testing.T) {
	c := openChain(t)
	c.low("plan", "clean")
	v := c.low("plan", "the plan, dirty")
	c.raise(c.unclass, c.secret)
	c.secret.put(c.secret.as("s-analyst", ""), "typed", "the plan, dirty", "")
	if _, err := c.unclass.reportedIn("reports", "plan", v.ID, true); err != nil {
		t.Fatal(err)
	}
	c.raise(c.unclass, c.secret)
	_, err := c.secret.reportedIn("unclass.reports", "plan", "", true)
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != redoubt.Conflict {
		t.Fatalf("got %v, want to be asked which", err)
	}
	_, which, _ := strings.Cut(e.Hint, "mean: ")
	id, _, _ := strings.Cut(which, " ")
	if got := c.above("plan"); got != "clean" {
		t.Errorf("what is current is %q", got)
	}
	r, err := c.secret.reportedIn("unclass.reports", "plan", redoubt.VersionID(id), true)
	if err != nil || !slices.Equal(listedAs(r, "typed"), []string{relSame}) || c.above("plan") != "clean" {
		t.Errorf("by the ID %s: %+v, %v; current is %q", id, r.Copies, err, c.above("plan"))
	}
	c.low("plan", "newer")
	c.raise(c.unclass, c.secret)
	if r, err := c.secret.reportedIn("unclass.reports", "plan", "", false); err != nil || r.SHA256 == "" || r.Copies[0].Gone {
		t.Errorf("what is newer is current: %+v, %v", r.Copies, err)
	}
}

func TestWhatAPartnerErasedIsReported(t *testing.T) {
	a := openAlly(t, nil)
	x := a.says("a", "hello", "SECRET//REL TO GBR, USA")
	if rule, err := a.sends(a.key, x, "hello"); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	who := a.as("s-analyst", "")
	a.copiedHere(who, "gbr.reports", "a", "copied")
	gone := redoubt.JournalEntry{Kind: redoubt.EntryRemoval, Stamp: a.stamp(), Of: x.Stamp, Label: x.Label, Made: x.Label, Maker: gbrGateway, Name: x.Name, Hold: true}
	if rule, err := a.sends(a.key, gone, ""); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	r, err := a.reportedIn("gbr.reports", "a", "", true)
	if err != nil || !r.Copies[0].Gone || !slices.Equal(listedAs(r, "copied"), []string{relSame}) || a.get(who, "copied") != "" {
		t.Errorf("got %+v, %v", r.Copies, err)
	}
	if len(r.Peers) != 1 || r.Peers[0].Had != 1 || r.Peers[0].Gone != 1 || !strings.Contains(r.Peers[0].Why, "erased there") || r.Proven {
		t.Errorf("of the partner: %+v, proven %v", r.Peers, r.Proven)
	}
}

// TestWhatADeviceErasedIsReportedAtHome, and what its home erased is at the device.
func TestWhatADeviceErasedIsReportedAtHome(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	d := c.device("ts-device", c.ts)
	mine := d.put(d.as("ts-analyst", "SECRET"), "mine", "from the field", "")
	home := c.ts.put(c.ts.as("ts-analyst", "SECRET"), "home", "from home", "")
	carry(t, d, c.ts)
	carry(t, c.ts, d)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "typed", "from the field", "")
	d.put(d.as("ts-analyst", "SECRET"), "there", "from home", "")
	if err := d.EraseVersion(ctx, d.spillOfficer(), named("mine"), mine.ID, "spilled"); err != nil {
		t.Fatal(err)
	}
	if err := c.ts.EraseVersion(ctx, c.ts.spillOfficer(), named("home"), home.ID, "spilled"); err != nil {
		t.Fatal(err)
	}
	carry(t, d, c.ts)
	carry(t, c.ts, d)
	r, err := c.ts.reportedIn("reports", "mine", "", true)
	if err != nil || !r.Copies[0].Gone || !slices.Equal(listedAs(r, "typed"), []string{relSame}) {
		t.Errorf("at home: %+v, %v", r.Copies, err)
	}
	if carry(t, c.ts, d); !c.ts.stood(r.ID).Proven {
		t.Errorf("when the device has said so: %+v", c.ts.stood(r.ID))
	}
	r, err = d.reportedIn("reports", "home", "", true)
	if err != nil || !r.Copies[0].Gone || !slices.Equal(listedAs(r, "there"), []string{relSame}) {
		t.Errorf("at the device: %+v, %v", r.Copies, err)
	}
}

func (w *world) stood(id string) redoubt.SpillReport {
	w.t.Helper()
	r, err := w.Spill(context.Background(), w.spillOfficer(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// TestWhatWasErasedOrUpgradedHereIsReported: the officer erased one version first, or gave it its label.
func TestWhatWasErasedOrUpgradedHereIsReported(t *testing.T) {
	for what, erase := range map[string]func(*world, redoubt.VersionID) error{
		"erased": func(w *world, id redoubt.VersionID) error {
			return w.EraseVersion(context.Background(), w.spillOfficer(), named("plan"), id, "spilled")
		},
		"upgraded": func(w *world, id redoubt.VersionID) error {
			_, err := w.Upgrade(context.Background(), w.spillOfficer(), redoubt.Regrade{Name: named("plan"), Version: id, Label: "TOP SECRET", Reason: "too low"})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := open(t, nil)
			s := w.as("s-analyst", "")
			v := w.put(s, "plan", "the plan, dirty", "")
			w.put(s, "typed", "the plan, dirty", "")
			w.worked(s, "plan", "a", "made of the plan", nil)
			if err := erase(w, v.ID); err != nil {
				t.Fatal(err)
			}
			found, err := w.reported("plan", v.ID, false)
			if err != nil {
				t.Fatal(err)
			}
			var spare []redoubt.VersionID
			for _, x := range found.Copies {
				if x.Above {
					spare = append(spare, x.Version)
				}
			}
			r, err := w.reported("plan", v.ID, true, spare...)
			if err != nil || !r.Proven || w.get(s, "typed") != "" || w.get(s, "out/a") != "" {
				t.Errorf("got %+v, %v", r, err)
			}
			for _, x := range r.Copies {
				if x.Above != x.Spared || x.Gone == x.Spared {
					t.Errorf("listed is %+v", x)
				}
			}
			if len(spare) != map[string]int{"upgraded": 1}[what] {
				t.Errorf("%d are above", len(spare))
			}
		})
	}
}

// TestAReportOfWhatIsGoneOutlivesACrashAnywhere.
func TestAReportOfWhatIsGoneOutlivesACrashAnywhere(t *testing.T) {
	for failAt := 0; ; failAt++ {
		var f *faulty
		w := open(t, withFaults(&f))
		ctx, s := context.Background(), w.as("s-analyst", "")
		v := w.put(s, "plan", "do not keep", "")
		w.put(s, "typed", "do not keep", "")
		w.worked(s, "plan", "a", "made of it", nil)
		if err := w.EraseVersion(ctx, w.spillOfficer(), named("plan"), v.ID, "spilled"); err != nil {
			t.Fatal(err)
		}
		n, who := 0, w.spillOfficer()
		f.when(func(*store.Batch) error {
			if n++; n > failAt {
				return errPulled
			}
			return nil
		})
		_, err := w.ReportSpill(ctx, who, redoubt.Spill{Name: named("plan"), Version: v.ID, Reason: "too low", Erase: true})
		w.restart(true)
		again, e := w.reported("plan", v.ID, true)
		if e != nil {
			t.Fatalf("failing at %d: %v", failAt, e)
		}
		wantSpill(t, again, true, "derived gone", "derived gone", "itself gone", "same content gone")
		if err == nil {
			if failAt < 4 {
				t.Errorf("only %d steps were tried", failAt)
			}
			return
		}
	}
}

// TestAFullReportIsGoneOnWithThoughMuchOfItWasErased: what is kept stays, and is listed by one of them alone.
func TestAFullReportIsGoneOnWithThoughMuchOfItWasErased(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	for i := range 4 {
		x := w.put(s, fmt.Sprint("erased", i), "the plan, dirty", "")
		if err := w.EraseVersion(ctx, w.spillOfficer(), named(fmt.Sprint("erased", i)), x.ID, "spilled"); err != nil {
			t.Fatal(err)
		}
	}
	r := w.submitted(s, "plan")
	for i := range maxSpills {
		putOut(t, r, fmt.Sprint(i), fmt.Sprint("output ", i))
	}
	finish(t, r, redoubt.JobExit{})
	listed := map[string]int{}
	for range 9 {
		report, err := w.reported("plan", v.ID, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range report.Copies {
			if strings.HasPrefix(x.Key, "erased") {
				listed[x.Key]++
			}
		}
		if report.Why != whyMore {
			if !report.Proven || len(w.list(s)) != 0 || len(listed) != 4 || listed["erased0"] != 1 {
				t.Errorf("proven %v, why %q, %d left, listed %v", report.Proven, report.Why, len(w.list(s)), listed)
			}
			return
		}
	}
	t.Error("it comes to no end")
}

func (w *world) submitted(who redoubt.Credential, path string) redoubt.JobRun {
	w.submit(who, nil)
	r := w.run()
	read(w.t, r, "reports/"+path)
	return r
}

// TestWhatDidNotReadBackWhenItWasErasedIsFollowedByItsMark: of a state of before, whose records have no digest, it is read for it; and what is damaged leaves
// the report unproven, and leads to no program and no copy.
func TestWhatDidNotReadBackWhenItWasErasedIsFollowedByItsMark(t *testing.T) {
	for what, damage := range map[string]bool{"without a digest": false, "damaged": true} {
		t.Run(what, func(t *testing.T) {
			c := openChain(t)
			plan, manifest := "tools/_blobs/sha256/"+strings.Repeat("a", 64), "kept/_manifests/sha256/"+strings.Repeat("e", 64) // a layer, say
			c.low(plan, "the plan, dirty")
			c.raise(c.unclass, c.secret)
			s := c.secret.as("s-analyst", "")
			c.secret.put(s, "typed", "the plan, dirty", "")
			c.secret.put(s, "empty", "", "")
			c.secret.made(s, "unclass.reports", plan, "a")
			c.secret.put(s, manifest, `{"layers":[]}`, "")
			c.secret.made(s, "reports", manifest, "of another image")
			b, set := (*c.secret.buckets.Load())["unclass.reports"], c.secret.set("UNCLASSIFIED")
			key := headKey(b.id, set.id, plan)
			raw, _, err := c.secret.engine.Get(key)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := decodeRecord(raw)
			if err != nil {
				t.Fatal(err)
			}
			rec.digest, rec.sums = nil, redoubt.Checksums{}
			if damage {
				rec.pieces[0].bound[0] ^= 1
			}
			c.secret.overwrite(key, rec.encode(nil))
			if _, err := c.unclass.reportedIn("reports", plan, "", true); err != nil {
				t.Fatal(err)
			}
			c.raise(c.unclass, c.secret)
			r, err := c.secret.reportedIn("unclass.reports", plan, "", true)
			if err != nil || !slices.Equal(listedAs(r, "out/a"), []string{relDerived}) || c.secret.get(s, "out/a") != "" {
				t.Errorf("what was made of it: %+v, %v", r.Copies, err)
			}
			if there := c.secret.get(s, "typed") != ""; there != damage || (r.Why == whyUnknown) != damage || r.Proven {
				t.Errorf("its copy is there: %v, why %q, proven %v", there, r.Why, r.Proven)
			}
			if !slices.Contains(c.secret.list(s), "empty") || c.secret.get(s, "out/of another image") == "" {
				t.Error("something else is gone")
			}
		})
	}
}

// TestWhatErasuresTookAwayIsForgottenInTheEnd, and a removal that is no erasure leaves nothing.
func TestWhatErasuresTookAwayIsForgottenInTheEnd(t *testing.T) {
	c := openChain(t)
	c.low("plan", "the plan, dirty")
	v := c.low("deleted", "deleted")
	c.raise(c.unclass, c.secret)
	if err := c.unclass.del(c.unclass.as("u-analyst", ""), "deleted", v.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.unclass.reportedIn("reports", "plan", "", true); err != nil {
		t.Fatal(err)
	}
	c.raise(c.unclass, c.secret)
	for _, at := range []struct {
		after time.Duration
		kept  int
	}{{0, 1}, {forgetAfter - time.Hour, 1}, {2 * time.Hour, 0}} {
		c.hands.add(at.after)
		if err := c.secret.Trim(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := c.secret.keptGone(); n != at.kept {
			t.Errorf("%v later %d are kept, want %d", at.after, n, at.kept)
		}
	}
}

func TestAReportHasAReason(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	w.put(s, "plan", "the plan, dirty", "")
	for _, reason := range []string{"", " \t"} {
		_, err := w.ReportSpill(context.Background(), w.spillOfficer(), redoubt.Spill{Name: named("plan"), Reason: reason, Erase: true})
		want(t, err, redoubt.Invalid)
	}
	if w.get(s, "plan") == "" {
		t.Error("it was taken out for no reason")
	}
}
