package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
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

// reading counts the scans of journals.
type reading struct {
	store.Engine
	scans atomic.Int64
}

func (r *reading) View() store.View { return &readView{View: r.Engine.View(), of: r} }

type readView struct {
	store.View
	of *reading
}

func (v *readView) Scan(lower, upper []byte) store.Iterator {
	if bytes.HasPrefix(lower, []byte{recJournal}) {
		v.of.scans.Add(1)
	}
	return v.View.Scan(lower, upper)
}

// TestAReportReadsTheJournalForAllCopiesAtOnce: and finds the place of each.
func TestAReportReadsTheJournalForAllCopiesAtOnce(t *testing.T) {
	c := openChain(t)
	const copies = 40
	for i := range copies {
		c.ts.put(c.ts.as("ts-analyst", "SECRET"), fmt.Sprint("spilt", i), "do not keep", "")
	}
	counted := &reading{Engine: c.ts.engine}
	c.ts.engine = counted
	r, err := c.ts.reported("spilt7", "", true)
	if err != nil || len(r.Copies) != copies {
		t.Fatalf("%d copies, %v", len(r.Copies), err)
	}
	if n := counted.scans.Load(); n > 8 {
		t.Errorf("the journal was read %d times for %d copies", n, copies)
	}
	kept, err := c.ts.Enclave.spill(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	for i, f := range kept.Found {
		if f.At == 0 || f.Erased <= f.At || seen[f.At] {
			t.Errorf("%s stands at %d, and its erasure at %d", kept.Copies[i].Key, f.At, f.Erased)
		}
		seen[f.At] = true
	}
}

// TestWhatIsKeptOfErasedVersionsGoesWithTheirLabel, and its names: nothing of a label that two officers erased is kept but that it was.
func TestWhatIsKeptOfErasedVersionsGoesWithTheirLabel(t *testing.T) {
	w := open(t, nil)
	for i := range trimAtOnce + 3 {
		b := new(store.Batch)
		set, err := w.sets.of(context.Background(), parsed(t, "SECRET"))
		if err != nil {
			t.Fatal(err)
		}
		f := found{set: set, rec: &record{id: makeVersionID(w.clock().UnixNano()+int64(i), w.maker, set.tag), maker: "low"}}
		if err := w.keepGone(b, (*w.buckets.Load())["reports"], f, "plan", nil, ""); err != nil {
			t.Fatal(err)
		}
		if err := w.engine.Commit(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.keptGone(); n != trimAtOnce+3 {
		t.Fatalf("%d are kept", n)
	}
	if err := w.erase(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "SECRET"}); err != nil {
		t.Fatal(err)
	}
	if n := w.keptGone(); n != 0 {
		t.Errorf("%d are kept after the label was erased", n)
	}
	scrubbed := duty{Destroy: map[uint32]uint32{w.set("SECRET").id: 1}}.scrubs()
	if !slices.ContainsFunc(scrubbed, func(prefix []byte) bool { return string(prefix) == string(rune(recGone)) }) {
		t.Errorf("their place is not among what is scrubbed: %q", scrubbed)
	}
}

// elsewhere lists what was erased elsewhere, as FROM KEY.
func (w *world) elsewhere() (all []string) {
	w.t.Helper()
	list, of, err := w.ErasedElsewhere(context.Background(), w.spillOfficer())
	if err != nil {
		w.t.Fatal(err)
	}
	if of != len(list) {
		w.t.Errorf("%d are listed, and it says %d", len(list), of)
	}
	for _, x := range list {
		if x.Version == "" || x.Label == "" || x.Bytes == 0 || x.At.IsZero() {
			w.t.Errorf("it says too little: %+v", x)
		}
		all = append(all, string(x.From)+" "+x.Name.String())
	}
	return all
}

// TestWhatWasErasedBelowIsToldToTheOfficerAbove, in her log and in a list, until a report of hers erases it; what an officer here erased she knows.
func TestWhatWasErasedBelowIsToldToTheOfficerAbove(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	c.low("plan", "the plan, dirty")
	c.low("other", "the other plan, dirty")
	c.low("kept", "the plan, clean")
	c.raise(c.unclass, c.secret)
	who := c.secret.as("ts-analyst", "SECRET")
	c.secret.copiedHere(who, "unclass.reports", "plan", "copied")
	own := c.secret.put(who, "own", "of this node", "")
	if err := c.secret.EraseVersion(ctx, c.secret.spillOfficer(), named("own"), own.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if got := c.secret.elsewhere(); len(got) != 0 {
		t.Errorf("before anything was erased below: %q", got)
	}
	for _, key := range []string{"plan", "other"} {
		if _, err := c.unclass.reportedIn("reports", key, "", true); err != nil {
			t.Fatal(err)
		}
		c.raise(c.unclass, c.secret)
		c.hands.add(time.Second)
	}
	if got, want := c.secret.elsewhere(), []string{"unclass unclass.reports/other", "unclass unclass.reports/plan"}; !slices.Equal(got, want) {
		t.Errorf("listed is %q, want %q", got, want)
	}
	if got := c.unclass.elsewhere(); len(got) != 0 {
		t.Errorf("where it was erased: %q", got)
	}
	if !c.secret.saysOn(redoubt.ActionReceive, "erased there, and by no report here") {
		t.Error("it is not in the audit log")
	}
	if _, _, err := c.secret.ErasedElsewhere(ctx, c.secret.as("s-analyst", "")); err == nil {
		t.Error("who is no officer is told")
	}
	if _, _, err := c.secret.ErasedElsewhere(ctx, c.secret.as("officer", "UNCLASSIFIED")); err == nil {
		t.Error("an officer below the ceiling is told")
	}
	if _, err := c.secret.reportedIn("unclass.reports", "plan", "", false); err != nil {
		t.Fatal(err)
	}
	if got := c.secret.elsewhere(); len(got) != 2 {
		t.Errorf("after it was only looked for: %q", got)
	}
	if _, err := c.secret.reportedIn("unclass.reports", "plan", "", true); err != nil {
		t.Fatal(err)
	}
	if got := c.secret.elsewhere(); len(got) != 1 || got[0] != "unclass unclass.reports/other" {
		t.Errorf("after a report: %q", got)
	}
}

// erasedHere puts and erases versions, the oldest first.
func (w *world) erasedHere(who redoubt.Credential, bucket redoubt.BucketName, keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		name := redoubt.ObjectName{Bucket: bucket, Key: key}
		v, err := w.PutObject(context.Background(), who, redoubt.PutObject{Name: name, SizeBytes: int64(len(key)), Body: strings.NewReader(key)})
		if err == nil {
			err = w.EraseVersion(context.Background(), w.spillOfficer(), name, v.ID, "test")
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestWhatIsKeptOfErasuresIsBounded, for each label by itself; that the oldest goes is on record.
func TestWhatIsKeptOfErasuresIsBounded(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	w.mostGone = 3
	w.erasedHere(w.as("u-analyst", ""), "reports", "low")
	w.erasedHere(w.as("s-analyst", ""), "reports", "1", "2", "3")
	trim := func(want int, says bool) {
		t.Helper()
		if err := w.Trim(ctx); err != nil {
			t.Fatal(err)
		}
		if got := w.keptGone(); got != want || w.saysOn(redoubt.ActionSystemRecord, "the oldest 2 are kept for spill reports no more") != says {
			t.Errorf("%d are kept, want %d, and on record: %v", got, want, says)
		}
	}
	trim(4, false)
	w.erasedHere(w.as("s-analyst", ""), "reports", "4", "5")
	trim(4, true)
	for key, want := range map[string]bool{"low": true, "1": false, "2": false, "3": true, "5": true} {
		if _, err := w.reported(key, "", false); (err == nil) != want {
			t.Errorf("a report of %s: %v", key, err)
		}
	}
}

// TestWhatIsKeptOfErasuresGoesWithItsBucket, where two officers erase that.
func TestWhatIsKeptOfErasuresGoesWithItsBucket(t *testing.T) {
	w := open(t, nil)
	w.erasedHere(w.as("u-analyst", ""), "reports", "a")
	w.erasedHere(w.as("s-analyst", ""), "reports", "b")
	w.erasedHere(w.as("s-analyst", ""), "locked", "c")
	if n := w.keptGone(); n != 3 {
		t.Fatalf("%d are kept", n)
	}
	if err := w.erase(redoubt.Change{Kind: redoubt.ChangeEraseBucket, Bucket: "reports"}); err != nil {
		t.Fatal(err)
	}
	if err := w.eachGone(context.Background(), func(b *bucket, _ found, key string) error {
		if key != "c" {
			t.Errorf("%s of %s is kept", key, b.Name)
		}
		return nil
	}); err != nil || w.keptGone() != 1 {
		t.Errorf("%d are kept, %v, want that of the other bucket", w.keptGone(), err)
	}
}

// TestHowMuchWasErasedElsewhereIsTold, though the newest alone are listed.
func TestHowMuchWasErasedElsewhereIsTold(t *testing.T) {
	hands := new(hands)
	w := open(t, withClock(hands))
	ctx, batch := context.Background(), new(store.Batch)
	w.put(w.as("s-analyst", ""), "plan", "the plan", "")
	set, b := w.set("SECRET"), (*w.buckets.Load())["reports"]
	const all = 2*maxSpills + 7
	for i := range all {
		f := found{set: set, rec: &record{id: versionID{byte(i), byte(i >> 8), 1}, size: 1}}
		if err := w.keepGone(batch, b, f, fmt.Sprint(i), nil, "unclass"); err != nil {
			t.Fatal(err)
		}
		hands.add(time.Millisecond)
	}
	if err := w.commit(ctx, batch, nil); err != nil {
		t.Fatal(err)
	}
	list, of, err := w.ErasedElsewhere(ctx, w.spillOfficer())
	if err != nil || of != all || len(list) != maxSpills || list[0].Name != named(fmt.Sprint(all-1)) {
		t.Errorf("%d are listed, it says %d, %v", len(list), of, err)
	}
}
