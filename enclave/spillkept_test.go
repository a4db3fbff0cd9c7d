package enclave

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

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
