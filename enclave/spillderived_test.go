package enclave

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// worked runs a job of who that opens one path of reports and puts one output; what it says goes to its log.
func (w *world) worked(who redoubt.Credential, path, out, content string, change func(*redoubt.SubmitJob)) redoubt.Job {
	w.t.Helper()
	j := w.submit(who, change)
	r := w.run()
	if path != "" && read(w.t, r, "reports/"+path) == "" {
		w.t.Fatalf("the job finds no %s", path)
	}
	r.Log(1, []byte("it says "+content))
	putOut(w.t, r, out, content)
	finish(w.t, r, redoubt.JobExit{})
	return w.job(who, j.ID)
}

func (w *world) reported(key string, id redoubt.VersionID, erase bool, spare ...redoubt.VersionID) (redoubt.SpillReport, error) {
	return w.ReportSpill(context.Background(), w.spillOfficer(), redoubt.Spill{Name: named(key), Version: id, Reason: "too low", Erase: erase, Spare: spare})
}

// listedAs is how a report lists a key: the relation of each of its versions.
func listedAs(r redoubt.SpillReport, key string) (all []string) {
	for _, c := range r.Copies {
		if c.Key == key {
			all = append(all, c.Relation)
		}
	}
	return all
}

func TestASpillTakesWhatJobsMadeOfIt(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.put(s, "else", "something else", "")
	w.put(s, "older", "made of the plan", "") // by chance: it was there before
	w.worked(s, "else", "other", "made of something else", nil)
	first := w.worked(s, "plan", "a", "made of the plan", nil)
	w.worked(s, "out/a", "b", "made of what was made", nil)
	if _, err := w.copied(s, "out/b", "copy", "", &redoubt.Attributes{Meta: map[string]string{"own": "value"}}); err != nil {
		t.Fatal(err)
	}
	w.worked(s, "plan", "moved", "and moved away", nil)
	if moved, err := w.copied(s, "out/moved", "there", "", &redoubt.Attributes{}); err != nil || moved.Attributes.Meta[metaMade] != "" {
		t.Fatal(moved, err)
	}
	if err := w.del(s, "out/moved", w.all("out/moved")[0].ID); err != nil {
		t.Fatal(err)
	}
	typed := w.put(s, "typed", "made of the plan", "") // a copy by hand may be one, and what was made of it is not followed
	w.worked(s, "typed", "c", "made of what was copied by hand", nil)
	w.worked(s, "plan", "empty", "", nil)
	w.put(s, "blank", "", "") // of the content of an output, and no copy
	for _, key := range []string{"out/a", "copy"} {
		got, err := w.HeadObject(ctx, s, redoubt.ReadObject{Name: named(key)})
		if err != nil || got.Attributes.Meta[metaMade] != "" {
			t.Errorf("%s shows its mark: %+v %v", key, got.Attributes, err)
		}
	}
	gone := []string{"plan", "out/a", "out/b", "out/empty", "copy", "there"}
	found, err := w.reported("plan", v.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range gone[1:] {
		if got := listedAs(found, key); !slices.Equal(got, []string{relDerived}) {
			t.Errorf("%s is listed as %q", key, got)
		}
	}
	if w.get(s, "out/a") == "" || w.get(s, "plan") == "" {
		t.Error("finding took something out")
	}
	i := slices.IndexFunc(found.Copies, func(c redoubt.SpillCopy) bool { return c.Key == "out/a" })
	if c := found.Copies[i]; c.Job != first.ID || c.From != v.ID {
		t.Errorf("out/a is said to be made by %q of %q", c.Job, c.From)
	}
	if got := listedAs(found, "typed"); !slices.Equal(got, []string{relMayBe}) {
		t.Errorf("what was copied by hand is listed as %q", got)
	}
	r, err := w.reported("plan", v.ID, true, typed.ID)
	if err != nil || !r.Proven {
		t.Fatalf("got %+v %v", r, err)
	}
	for _, key := range gone {
		if got := w.get(s, key); got != "" && key != "out/empty" || slices.Contains(w.list(s), key) {
			t.Errorf("%s is still there: %q", key, got)
		}
	}
	for _, key := range []string{"else", "out/other", "blank", "older", "typed", "out/c"} {
		if !slices.Contains(w.list(s), key) {
			t.Errorf("%s is gone", key)
		}
	}
	if text, _, _, err := w.JobLog(ctx, s, first.ID, 0, false); err != nil || len(text) > 0 {
		t.Errorf("its log says %q %v", text, err)
	}
	w.charges()
}

// TestAMarkNamesNothingAbove: whoever reads a version could be told all that its mark says.
func TestAMarkNamesNothingAbove(t *testing.T) {
	var meanwhile atomic.Pointer[func()]
	w := open(t, func(o *Options) {
		o.Clock = func() time.Time {
			if then := meanwhile.Swap(nil); then != nil {
				(*then)()
			}
			return time.Now()
		}
	})
	low, high := w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "")
	w.put(low, "low", "low", "")
	w.put(high, "high", "high", "")
	w.submit(low, maxed("SECRET"))
	r := w.run()
	read(t, r, "reports/low")
	if err := r.Keep(context.Background(), "x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	then := func() { // a driver has several opened at once: one that was let in before the first output is opened while that is put
		r.(*jobRun).ends.Store(false)
		read(t, r, "reports/high")
	}
	meanwhile.Store(&then)
	putOut(t, r, "x", "x")
	finish(t, r, redoubt.JobExit{})
	if got := w.labelOf(low, "out/x"); got != "UNCLASSIFIED" {
		t.Fatalf("the output is at %s: nothing was tried", got)
	}
	marks := 0
	if err := w.eachContent(context.Background(), func(_ *bucket, set *labelSet, key string, raw []byte, _ *record) error {
		rec, err := decodeRecord(raw)
		if err != nil {
			return err
		}
		m, is := markOf(rec)
		if !is {
			return nil
		}
		marks++
		for _, id := range m.reads {
			if of := w.sets.byTag(id.tag()); !set.label.Dominates(of.label) {
				t.Errorf("the mark of %s, %s, names a version at %s", key, set.label.Banner(), of.label.Banner())
			}
		}
		return nil
	}); err != nil || marks != 2 {
		t.Fatalf("%d marks, %v", marks, err)
	}
}

func TestWhatAnOfficerSparesStays(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.worked(s, "plan", "clean", "only a number", nil)
	w.worked(s, "out/clean", "of-clean", "of a number", nil)
	w.worked(s, "plan", "dirty", "much of the plan", nil)
	clean, err := w.HeadObject(context.Background(), s, redoubt.ReadObject{Name: named("out/clean")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.reported("plan", v.ID, true, clean.ID); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("spared unseen: %v", err)
	}
	if _, err := w.reported("plan", v.ID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.reported("plan", v.ID, true, v.ID); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("the version itself was spared: %v", err)
	}
	if w.get(s, "plan") == "" {
		t.Fatal("what was refused took it out")
	}
	r, err := w.reported("plan", v.ID, true, clean.ID)
	if err != nil || !r.Proven {
		t.Fatalf("got %+v %v", r, err)
	}
	if w.get(s, "out/clean") != "only a number" || w.get(s, "out/of-clean") != "of a number" || w.get(s, "out/dirty") != "" {
		t.Errorf("what is left: %q", w.list(s))
	}
	w.restart(true)
	s = w.as("s-analyst", "")
	if w.get(s, "out/clean") != "only a number" {
		t.Error("what was spared does not open after a restart")
	}
	i := slices.IndexFunc(r.Copies, func(c redoubt.SpillCopy) bool { return c.Key == "out/dirty" })
	if _, err := w.reported("plan", v.ID, true, r.Copies[i].Version); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("what goes was spared after it had begun: %v", err)
	}
	if _, err := w.reported("plan", v.ID, true, redoubt.VersionID("another")); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("spared unseen after it had begun: %v", err)
	}
}

// TestACopyAboveMayBeSpared: what was put too low is often a copy of what lies where it belongs.
func TestACopyAboveMayBeSpared(t *testing.T) {
	w := open(t, nil)
	s, ts := w.as("s-analyst", ""), w.as("ts-analyst", "TOP SECRET")
	right := w.put(ts, "right", "the plan", "TOP SECRET")
	v, beside := w.put(s, "plan", "the plan", ""), w.put(s, "copy", "the plan", "")
	if _, err := w.reported("plan", v.ID, true, right.ID); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("spared unseen: %v", err)
	}
	found, err := w.reported("plan", v.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found.Copies {
		if c.Above != (c.Version == right.ID) {
			t.Errorf("listed as %+v", c)
		}
	}
	if _, err := w.reported("plan", v.ID, true, beside.ID); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a copy beside was spared: %v", err)
	}
	r, err := w.reported("plan", v.ID, true, right.ID)
	if err != nil || !r.Proven {
		t.Fatalf("got %+v %v", r, err)
	}
	w.restart(true)
	if got := w.get(w.as("ts-analyst", "TOP SECRET"), "right"); got != "the plan" {
		t.Errorf("what lies where it belongs: %q", got)
	}
	if got := w.list(w.as("s-analyst", "")); len(got) > 0 {
		t.Errorf("left below is %q", got)
	}
}

func TestASpillEndsWhatHasReadIt(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.put(s, "else", "something else", "")
	j := w.submit(s, func(q *redoubt.SubmitJob) { q.Retries = 1 })
	reads := w.run()
	read(t, reads, "reports/plan")
	reads.Log(1, []byte("the plan"))
	putOut(t, reads, "a", "of the plan")
	w.submit(s, nil)
	other := w.run()
	read(t, other, "reports/else")
	w.deploy(s, "tool")
	call, err := w.CallService(ctx, s, "tool")
	if err != nil {
		t.Fatal(err)
	}
	instance, idle := call.Begin(), call.Begin()
	read(t, instance, "reports/plan")
	w.worked(s, "plan", "made", "made of the plan", nil)
	w.submit(s, nil)
	further := w.run()
	read(t, further, "reports/out/made")
	share := other.Share()
	opened, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: named("plan")})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if r, err := w.reported("plan", v.ID, false); err != nil || len(r.Readers) != 3 || r.Readers[0].Ended {
		t.Errorf("found: %+v %v", r.Readers, err)
	}
	r, err := w.reported("plan", v.ID, true)
	if err != nil || len(r.Readers) != 3 || !r.Readers[0].Ended || !r.Proven {
		t.Fatalf("got %+v %v", r, err)
	}
	ended := func(r redoubt.JobRun) bool {
		select {
		case <-r.Canceled():
			return true
		default:
			return false
		}
	}
	if !ended(further) {
		t.Error("what has read a derivative runs on")
	}
	if err := other.(*jobRun).note("Open", opened.(*object).rec); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("what was found before it was taken out is opened after: %v", err)
	}
	if !ended(reads) || !ended(instance) || ended(other) || ended(idle) {
		t.Errorf("ended: the job %v, the instance %v, another job %v, another instance %v", ended(reads), ended(instance), ended(other), ended(idle))
	}
	if share == other.Share() {
		t.Error("what is warm serves on")
	}
	reads.Log(1, []byte("the plan"))
	if text, _, _, err := w.JobLog(ctx, s, j.ID, 0, false); err != nil || len(text) > 0 {
		t.Errorf("the log says %q %v", text, err)
	}
	if err := reads.Keep(ctx, "x", []byte("the plan")); err == nil {
		t.Error("it keeps something")
	}
	finish(t, reads, redoubt.JobExit{})
	finish(t, further, redoubt.JobExit{})
	finish(t, instance, redoubt.JobExit{})
	finish(t, idle, redoubt.JobExit{})
	if got := w.get(s, "out/a"); got != "" {
		t.Errorf("its output is there: %q", got)
	}
	again := w.run()
	if again.Job().ID != j.ID || read(t, again, "reports/plan") != "" {
		t.Error("the second attempt reads it")
	}
	finish(t, again, redoubt.JobExit{})
	finish(t, other, redoubt.JobExit{})
	if got := w.job(s, j.ID); got.State != redoubt.JobDone {
		t.Errorf("it is %+v", got)
	}
	if n := len(w.readers.runs); n != 0 {
		t.Errorf("%d that have ended are still known", n)
	}
}

// before has something done before the next commit.
type before struct {
	store.Engine
	then atomic.Pointer[func()]
}

func (b *before) Commit(ctx context.Context, batch *store.Batch) error {
	if then := b.then.Swap(nil); then != nil {
		(*then)()
	}
	return b.Engine.Commit(ctx, batch)
}

// TestWhatIsPutWhileASpillIsFoundIsFound: an attempt either ends before its outputs are there, or they are seen. The commit of this one is under way
// when the report asks who has read it.
func TestWhatIsPutWhileASpillIsFoundIsFound(t *testing.T) {
	var e *before
	w := open(t, func(o *Options) {
		e = &before{Engine: o.Engine}
		o.Engine = e
	})
	s := w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.submit(s, nil)
	r := w.run()
	read(t, r, "reports/plan")
	putOut(t, r, "a", "of the plan")
	var report redoubt.SpillReport
	officer := w.spillOfficer()
	done := make(chan error, 1)
	id, _ := w.ids.parse(string(v.ID))
	then := func() {
		go func() {
			var err error
			report, err = w.ReportSpill(context.Background(), officer, redoubt.Spill{Name: named("plan"), Version: v.ID, Reason: "too low", Erase: true})
			done <- err
		}()
		for w.readers.gate.TryRLock() { // until the report waits for it
			w.readers.gate.RUnlock()
			if w.readers.takes(id) {
				t.Error("who has read it was asked for while its outputs were being committed")
				return
			}
			runtime.Gosched()
		}
	}
	e.then.Store(&then)
	finish(t, r, redoubt.JobExit{})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if slices.Contains(w.list(s), "out/a") || !report.Proven {
		t.Fatalf("its output is there: %q, %+v", w.list(s), report)
	}
}

// TestWhatWasMadeOfASpillIsOutOfReachBeforeItIsFound: nothing behind the commit that closes the version goes well.
func TestWhatWasMadeOfASpillIsOutOfReachBeforeItIsFound(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	link := redoubt.Link{Peer: "far", Key: w.links.key, Bound: w.ceiling}
	w.link(nil, link)
	ctx, s := context.Background(), w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.worked(s, "plan", "a", "made of the plan", nil)
	o, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: named("out/a")})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	made, at := o.(*object).rec.id, o.(*object).set.label.Banner()
	sent := func() (item, ref bool) {
		t.Helper()
		view, room := w.engine.View(), int64(0)
		defer view.Close()
		_, item, err := w.item(view, link, w.set(at), made, &room)
		_, ref, err2 := w.ref(view, link, w.set(at), made)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		return item, ref
	}
	if item, ref := sent(); !item || !ref {
		t.Fatal("before the report no peer is told of it")
	}
	f.failsAfterClosing(0)
	if _, err := w.reported("plan", v.ID, true); err == nil {
		t.Fatal("it did not fail")
	}
	f.when(nil)
	closedTo := func(when string) {
		t.Helper()
		if got := w.get(s, "out/a"); got != "" {
			t.Errorf("%s it opens: %q", when, got)
		}
		w.submit(s, nil)
		r := w.run()
		if got := read(t, r, "reports/out/a"); got != "" {
			t.Errorf("%s a job opens it: %q", when, got)
		}
		finish(t, r, redoubt.JobExit{})
		if _, _, _, err := w.lookAt(ctx, "RequestRelease", s, redoubt.ActionGetObject, named("out/a"), ""); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s it is let out: %v", when, err)
		}
		if item, ref := sent(); item || ref {
			t.Errorf("%s a peer is told of it: %v, %v", when, item, ref)
		}
	}
	closedTo("at once")
	if _, err := w.CopyObject(ctx, s, redoubt.CopyObject{Source: named("out/a"), Target: named("copy")}); err == nil {
		t.Error("it is copied")
	}
	// A copy that was begun before.
	rec := o.(*object).rec
	if _, err := w.PutObject(ctx, s, redoubt.PutObject{Name: named("copy"), Attributes: rec.attrs, SizeBytes: rec.size, Body: o.Reader(0, -1)}); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("a copy that was begun before is put: %v", err)
	}
	w.restart(true)
	s = w.as("s-analyst", "")
	closedTo("after a crash")
	if err := w.fulfilAll(ctx); err != nil {
		t.Fatal(err)
	}
	if all := w.list(s); slices.Contains(all, "out/a") {
		t.Errorf("then there is %q", all)
	}
}

func TestAJobThatOpensMuchIsFollowed(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	var last redoubt.Version
	opensAll := func(out string) redoubt.Job {
		j := w.submit(s, nil)
		r := w.run()
		for i := range maxReadsMarked + 1 {
			read(t, r, fmt.Sprintf("reports/in/%03d", i))
		}
		putOut(t, r, out, "of much "+out)
		finish(t, r, redoubt.JobExit{})
		return j
	}
	for i := range maxReadsMarked + 1 {
		last = w.put(s, fmt.Sprintf("in/%03d", i), fmt.Sprintf("part %d", i), "")
	}
	name := fmt.Sprintf("in/%03d", maxReadsMarked) // the newest, so the one that a mark leaves out
	opensAll("a")
	j := opensAll("forgotten")
	w.worked(s, "in/000", "b", "of the first", nil)
	if err := w.forgetJob(ctx, w.jobs.byID[j.ID]); err != nil {
		t.Fatal(err)
	}
	r, err := w.reported(name, last.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := listedAs(r, "out/a"); !slices.Equal(got, []string{relDerived}) || w.get(s, "out/a") != "" {
		t.Errorf("what opened much is listed as %q", got)
	}
	if got := listedAs(r, "out/forgotten"); !slices.Equal(got, []string{relMayBe}) || w.get(s, "out/forgotten") == "" || r.Proven {
		t.Errorf("what may be derived is listed as %q, proven %v", got, r.Proven)
	}
	if got := listedAs(r, "out/b"); got != nil || w.get(s, "out/b") == "" {
		t.Errorf("what is not derived is listed as %q", got)
	}
	if _, err := w.reported("out/forgotten", "", true); err != nil {
		t.Fatal(err)
	}
	if now, err := w.Spill(ctx, w.spillOfficer(), r.ID); err != nil || !now.Proven {
		t.Errorf("when that is gone too: %+v %v", now, err)
	}
}

// TestTheReadsOfEveryAttemptAreKept: the log of one that failed stays for a day.
func TestTheReadsOfEveryAttemptAreKept(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	for i := range 2 * (maxReadsMarked + 1) {
		w.put(s, fmt.Sprintf("in/%03d", i), "x", "")
	}
	j := w.submit(s, func(q *redoubt.SubmitJob) { q.Retries = 1 })
	for attempt := range 2 {
		r := w.run()
		for i := range maxReadsMarked + 1 {
			read(t, r, fmt.Sprintf("reports/in/%03d", attempt*(maxReadsMarked+1)+i))
		}
		finish(t, r, redoubt.JobExit{Code: 1 - attempt})
	}
	if all, known, err := w.allReads(j.ID); err != nil || !known || len(all) != 2*(maxReadsMarked+1) {
		t.Errorf("%d are kept, %v, %v", len(all), known, err)
	}
}

func TestASpilledModuleTakesWhatItMade(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	ctx, s := context.Background(), w.as("s-analyst", "")
	v := w.put(s, "tool.wasm", "a module", "") // and it is put as one
	other := sha256.Sum256([]byte("another module"))
	if err := w.PutModule(ctx, s, hex.EncodeToString(other[:]), strings.NewReader("another module")); err != nil {
		t.Fatal(err)
	}
	j := w.submit(s, nil)
	r := w.run() // it finds what was compiled, and opens no module
	if err := r.Keep(ctx, "compiled", []byte("compiled")); err != nil {
		t.Fatal(err)
	}
	putOut(t, r, "a", "by the module")
	finish(t, r, redoubt.JobExit{})
	w.worked(s, "", "b", "by another", func(q *redoubt.SubmitJob) { q.Module = hex.EncodeToString(other[:]) })
	w.submit(s, nil)
	runs := w.run()
	f.failsAfterClosing(0)
	if _, err := w.reported("tool.wasm", v.ID, true); err == nil {
		t.Fatal("it did not fail")
	}
	f.when(nil)
	if got := w.get(s, "out/a"); got != "" {
		t.Errorf("before it is found it opens: %q", got)
	}
	report, err := w.reported("tool.wasm", v.ID, true)
	if err != nil || !report.Proven || len(report.Readers) != 1 {
		t.Fatalf("got %+v %v", report, err)
	}
	if w.get(s, "out/a") != "" || w.get(s, "out/b") == "" {
		t.Errorf("what is left: %q", w.list(s))
	}
	if _, err := runs.Kept(ctx, "compiled"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("what was compiled of it: %v", err)
	}
	if has, err := w.HasModule(ctx, s, j.Spec.Module); err != nil || has {
		t.Errorf("the module is there: %v %v", has, err)
	}
}

// TestASpilledLayerTakesWhatItsImageMade: a job opens the manifest of its image each time, a layer once for its share.
func TestASpilledLayerTakesWhatItsImageMade(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	layer := "a layer with a secret in it"
	sum := sha256.Sum256([]byte(layer))
	blob := "tools/_blobs/sha256/" + hex.EncodeToString(sum[:])
	v := w.put(s, blob, layer, "")
	dirty, clean := "tools/_manifests/sha256/"+strings.Repeat("d", 64), "tools/_manifests/sha256/"+strings.Repeat("c", 64)
	w.put(s, dirty, `{"layers":[{"digest":"sha256:`+hex.EncodeToString(sum[:])+`"}]}`, "")
	w.put(s, clean, `{"layers":[]}`, "")
	runs := func(image, manifest, out string) {
		w.submit(s, func(q *redoubt.SubmitJob) { q.Module, q.Image = "", image })
		r := w.run()
		if _, c, err := r.Object(ctx, named(manifest)); err != nil {
			t.Fatal(err)
		} else {
			c.Close()
		}
		putOut(t, r, out, "by "+image+" "+out)
		finish(t, r, redoubt.JobExit{})
	}
	runs("reports/tools:1", dirty, "a")
	runs("reports/tools:2", clean, "b")
	runs("reports/other:1", clean, "c")
	r, err := w.reported(blob, v.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	if a, b, c := listedAs(r, "out/a"), listedAs(r, "out/b"), listedAs(r, "out/c"); !slices.Equal(a, []string{relDerived}) || !slices.Equal(b, []string{relMayBe}) || c != nil {
		t.Errorf("of its image %q, of another of the repository %q, of another repository %q", a, b, c)
	}
	if w.get(s, "out/a") != "" || w.get(s, "out/b") == "" || w.get(s, dirty) == "" {
		t.Errorf("what is left: %q", w.list(s))
	}
}

// TestWhatADeviceMadeOfASpillGoesWhenItArrives.
func TestWhatADeviceMadeOfASpillGoesWhenItArrives(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	high := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(high, "plan", "the plan, dirty", "")
	c.ts.put(high, "else", "something else", "")
	carry(t, c.ts, d)
	who := d.as("ts-analyst", "SECRET")
	d.worked(who, "plan", "a", "made of the plan", nil)
	d.worked(who, "else", "b", "made of something else", nil)
	r := c.spill("", true)
	if got := listedAs(r, "out/a"); got != nil {
		t.Fatalf("it is listed before it came: %q", got)
	}
	if _, refused := carry(t, d, c.ts); len(refused) > 0 {
		t.Fatalf("refused: %+v", refused)
	}
	if got := c.ts.in(high, "reports", "out/a"); got != "" {
		t.Errorf("it opens when it has come: %q", got)
	}
	if err := c.ts.fulfilAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r = c.stands(r.ID); !slices.Equal(listedAs(r, "out/a"), []string{relDerived}) {
		t.Errorf("then it is listed as %q", listedAs(r, "out/a"))
	}
	if got := c.ts.in(high, "reports", "out/b"); got != "made of something else" {
		t.Errorf("what else it made: %q", got)
	}
	carry(t, c.ts, d)
	if got := d.in(who, "reports", "out/a"); got != "" {
		t.Errorf("the device still has %q", got)
	}
	if r = c.stands(r.ID); !r.Proven {
		t.Errorf("when the device has said so: %+v", r)
	}
}

// TestACopyThatADeviceMadeGoesWhenItArrives: by hand, so that no mark tells of it.
func TestACopyThatADeviceMadeGoesWhenItArrives(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	high := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(high, "plan", "the plan, dirty", "")
	carry(t, c.ts, d)
	who := d.as("ts-analyst", "SECRET")
	copies := func(to string) {
		t.Helper()
		if _, err := d.copied(who, "plan", to, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	copies("before")
	r := c.spill("", true)
	c.hands.add(time.Minute)
	copies("after")
	c.ts.put(high, "right", "the plan, dirty", "TOP SECRET") // where it should have been
	carry(t, c.ts, d)
	if r = c.stands(r.ID); !r.Proven {
		t.Fatalf("nothing has come yet: %+v", r)
	}
	carry(t, d, c.ts)
	if r = c.stands(r.ID); r.Proven {
		t.Error("copies are here, and it is proven")
	}
	if err := c.ts.fulfilAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	carry(t, c.ts, d)
	r = c.stands(r.ID)
	if !slices.Equal(listedAs(r, "before"), []string{relSame}) || !slices.Equal(listedAs(r, "after"), []string{relMayBe}) || listedAs(r, "right") != nil || r.Proven {
		t.Errorf("proven %v, listed %+v", r.Proven, r.Copies)
	}
	if got := c.ts.in(high, "reports", "before") + d.in(who, "reports", "before"); got != "" {
		t.Errorf("the copy of before is there: %q", got)
	}
	if got := c.ts.in(c.ts.as("ts-analyst", "TOP SECRET"), "reports", "right"); got != "the plan, dirty" {
		t.Errorf("what was put under the right label: %q", got)
	}
	var after redoubt.VersionID
	for _, x := range r.Copies {
		if x.Key == "after" {
			after = x.Version
		}
	}
	r, err := c.ts.ReportSpill(context.Background(), c.ts.spillOfficer(), redoubt.Spill{Name: planRequest.Name, Version: r.Version, Reason: "looked at", Erase: true, Spare: []redoubt.VersionID{after}})
	if err != nil || !r.Proven {
		t.Errorf("when it was looked at: proven %v, why %q, %v", r.Proven, r.Why, err)
	}
}

// TestAnOutputOverItsInputIsDerived: it is not only later under the same name.
func TestAnOutputOverItsInputIsDerived(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.worked(s, "plan", "plan", "the plan, worked over", func(q *redoubt.SubmitJob) { q.Out.Prefix = "" })
	r, err := w.reported("plan", v.ID, true)
	if got := listedAs(r, "plan"); err != nil || !r.Proven || !slices.Equal(got, []string{"itself", relDerived}) || w.get(s, "plan") != "" {
		t.Errorf("got %q %v", got, err)
	}
}

// TestWhatJobsMadeGoesAfterACrashAnywhere fails each commit behind the one that closes the version in turn.
func TestWhatJobsMadeGoesAfterACrashAnywhere(t *testing.T) {
	for failAt := 0; ; failAt++ {
		var f *faulty
		w := open(t, withFaults(&f))
		ctx, s := context.Background(), w.as("s-analyst", "")
		v := w.put(s, "plan", "the plan, dirty", "")
		w.worked(s, "plan", "a", "made of the plan", nil)
		w.worked(s, "out/a", "b", "made of that", nil)
		if _, err := w.copied(s, "out/b", "copy", "", nil); err != nil {
			t.Fatal(err)
		}
		f.failsAfterClosing(failAt)
		_, err := w.reported("plan", v.ID, true)
		w.restart(true)
		s = w.as("s-analyst", "")
		if a, b := w.get(s, "out/a"), w.get(s, "plan"); a != "" || b != "" {
			t.Fatalf("failing at %d: %q and %q open", failAt, a, b)
		}
		if e := w.fulfilAll(ctx); e != nil {
			t.Fatal(e)
		}
		all, e := w.Spills(ctx, w.spillOfficer())
		if e != nil || len(all) != 1 || !all[0].Proven || len(w.list(s)) != 0 {
			t.Fatalf("failing at %d: left %q, %+v, %v", failAt, w.list(s), all, e)
		}
		if err == nil {
			if failAt < 8 {
				t.Errorf("only %d steps were tried", failAt)
			}
			return
		}
	}
}

func TestAMarkDecodesOrMayBeAnything(t *testing.T) {
	id := versionID{1, 2, 3}
	of := func(text string) (mark, bool) {
		return markOf(&record{attrs: redoubt.Attributes{Meta: map[string]string{metaMade: text}}})
	}
	m := mark{job: "j", program: "p", reads: []versionID{id}}
	if got, is := of(m.encode()); !is || got.job != "j" || got.program != "p" || !slices.Equal(got.reads, m.reads) || got.more {
		t.Errorf("got %+v", got)
	}
	long := mark{reads: make([]versionID, maxReadsMarked+1)}
	for _, bad := range []string{"", "j|p|0", "j|p|0|!", "j|p|0|AAAA", m.encode() + "|", long.encode()} {
		if got, is := of(bad); !is || !got.more {
			t.Errorf("%.20q: %+v", bad, got)
		}
	}
	if _, is := markOf(&record{}); is {
		t.Error("a version without a mark has one")
	}
}

// TestAMarkGoesToNobody: neither down by a release, nor to a partner, and no search is told of it.
func TestAMarkGoesToNobody(t *testing.T) {
	meta := map[string]string{metaMade: "j|p|0|", "own": "value"}
	if got := keptOf(meta, []string{metaMade, "own"}); len(got) != 1 {
		t.Errorf("a release keeps %v", got)
	}
	if fitMeta(meta) {
		t.Error("one is taken from outside")
	}
	out := outward(&Agreement{}, &redoubt.JournalEntry{Kind: redoubt.EntryVersion, Attributes: redoubt.Attributes{Meta: meta}})
	if len(out.Attributes.Meta) != 1 {
		t.Errorf("a partner is given %v", out.Attributes.Meta)
	}
	w := open(t, nil)
	s := w.as("s-analyst", "")
	w.put(s, "plan", "the plan", "")
	j := w.worked(s, "plan", "a", "made of the plan", nil)
	for _, text := range []string{"redoubt-made", string(j.ID)} {
		if got, err := w.Find(context.Background(), s, redoubt.FindObjects{Text: text}); err != nil || len(got.Found) > 0 {
			t.Errorf("a search for %q finds %+v %v", text, got.Found, err)
		}
	}
}

// TestAReportThatIsFullIsGoneOnWith: a job may make more than one lists.
func TestAReportThatIsFullIsGoneOnWith(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.submit(s, nil)
	r := w.run()
	read(t, r, "reports/plan")
	for i := range maxSpills + 20 {
		putOut(t, r, fmt.Sprint(i), fmt.Sprint("output ", i))
	}
	finish(t, r, redoubt.JobExit{})
	first, err := w.reported("plan", v.ID, true)
	if err != nil || first.Proven || first.Why != whyMore || len(w.list(s)) == 0 {
		t.Fatalf("got %d copies, proven %v, why %q, %v", len(first.Copies), first.Proven, first.Why, err)
	}
	var last redoubt.SpillReport
	for range 9 {
		if last, err = w.reported("plan", v.ID, true); err != nil {
			t.Fatal(err)
		}
		if last.Why != whyMore {
			break
		}
	}
	if left := w.list(s); len(left) != 0 || !last.Proven || last.ID == first.ID {
		t.Errorf("%d are left, proven %v, why %q", len(left), last.Proven, last.Why)
	}
	if again, err := w.reported("plan", v.ID, true); err != nil || again.ID != last.ID {
		t.Errorf("then it is another: %+v %v", again.ID, err)
	}
}

// TestWhatWasMadeBelowAndRaisedIsFollowedAbove: a mark goes up with what bears it, and jobs above add to it.
func TestWhatWasMadeBelowAndRaisedIsFollowedAbove(t *testing.T) {
	c := openChain(t)
	c.low("plan", "the plan, dirty")
	c.low("else", "something else")
	low := c.unclass.as("u-analyst", "")
	c.unclass.worked(low, "plan", "a", "made of the plan", nil)
	c.unclass.worked(low, "else", "b", "made of something else", nil)
	c.raise(c.unclass, c.secret)
	high := c.secret.as("s-analyst", "")
	if c.above("out/a") == "" {
		t.Fatal("nothing was raised")
	}
	c.secret.submit(high, func(q *redoubt.SubmitJob) { q.In = []redoubt.JobInput{{Bucket: "unclass.reports"}} })
	r := c.secret.run()
	read(t, r, "unclass.reports/out/a")
	putOut(t, r, "above", "made above")
	finish(t, r, redoubt.JobExit{})
	name := redoubt.ObjectName{Bucket: "unclass.reports", Key: "plan"}
	report, err := c.secret.ReportSpill(context.Background(), c.secret.spillOfficer(), redoubt.Spill{Name: name, Reason: "too low", Erase: true})
	if err != nil {
		t.Fatal(err)
	}
	if a, above, b := listedAs(report, "out/a"), listedAs(report, "out/above"), listedAs(report, "out/b"); !slices.Equal(a, []string{relDerived}) || !slices.Equal(above, []string{relDerived}) || b != nil {
		t.Errorf("what was raised is listed as %q, what was made above as %q, something else as %q", a, above, b)
	}
	if c.above("out/a") != "" || c.above("out/b") == "" || c.secret.get(high, "out/above") != "" {
		t.Error("what is left is not what should be")
	}
}

// TestWhatADerivativeHoldsDecidesNothing: who read the spill chose it, and others have the same bytes.
func TestWhatADerivativeHoldsDecidesNothing(t *testing.T) {
	w := open(t, nil)
	ctx, low, s := context.Background(), w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "")
	module, layer, common := "a module of others", "a base layer", "{}\n"
	digest := func(of string) string {
		sum := sha256.Sum256([]byte(of))
		return hex.EncodeToString(sum[:])
	}
	manifest := "tools/_manifests/sha256/" + strings.Repeat("e", 64)
	byModule := func(q *redoubt.SubmitJob) { q.Module = digest(module) }
	byImage := func(q *redoubt.SubmitJob) { q.Module, q.Image = "", "reports/tools:1" }
	begin := func(who redoubt.Credential, change func(*redoubt.SubmitJob)) redoubt.JobRun {
		w.submit(who, change)
		r := w.run()
		if r.Job().Spec.Image != "" {
			_, c, err := r.Object(ctx, named(manifest))
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		return r
	}
	var stay []string
	others := func(when string) {
		for _, who := range []redoubt.Credential{low, s} {
			at := when + who.Working.Banner()
			w.put(who, at+"/common", common, "")
			stay = append(stay, at+"/common", "out/"+at+"/module", "out/"+at+"/image", "out/"+at+"/common")
			w.worked(who, "", at+"/module", "by a module "+at, byModule)
			w.worked(who, at+"/common", at+"/common", "of what all have "+at, nil)
			r := begin(who, byImage)
			putOut(t, r, at+"/image", "by an image "+at)
			finish(t, r, redoubt.JobExit{})
		}
	}
	if err := w.PutModule(ctx, low, digest(module), strings.NewReader(module)); err != nil {
		t.Fatal(err)
	}
	w.put(low, "tools/_blobs/sha256/"+digest(layer), layer, "")
	w.put(low, manifest, `{"layers":[{"digest":"sha256:`+digest(layer)+`"}]}`, "")
	stay = append(stay, "tools/_blobs/sha256/"+digest(layer), manifest)
	others("older ")
	v := w.put(s, "plan", "the plan, dirty", "")
	w.worked(s, "plan", "m", module, nil)
	w.worked(s, "plan", "tools/_blobs/sha256/"+digest(layer), layer, nil)
	w.worked(s, "plan", "c", common, nil)
	others("newer ")
	running := []redoubt.JobRun{begin(low, byModule), begin(s, byModule), begin(low, byImage), begin(s, byImage)}
	r, err := w.reported("plan", v.ID, true)
	if err != nil || len(r.Readers) != 0 {
		t.Fatalf("got %+v %v", r.Readers, err)
	}
	for _, x := range running {
		if x.(*jobRun).stopped() {
			t.Errorf("job %+v was ended", x.Job().Spec)
		}
		finish(t, x, redoubt.JobExit{})
	}
	for _, key := range stay {
		if w.get(s, key) == "" {
			t.Errorf("%s is gone, listed as %q", key, listedAs(r, key))
		}
		for _, as := range listedAs(r, key) {
			if as != relMayBe || !strings.HasPrefix(key, "newer SECRET") {
				t.Errorf("%s is listed as %q", key, as)
			}
		}
	}
	if has, err := w.HasModule(ctx, low, digest(module)); err != nil || !has {
		t.Errorf("the module: %v %v", has, err)
	}
	if got := listedAs(r, "newer SECRET/common"); len(got) != 1 {
		t.Errorf("what may be a copy is listed as %q", got)
	}
	for _, key := range []string{"out/m", "out/c", "out/tools/_blobs/sha256/" + digest(layer)} {
		if w.get(s, key) != "" || !slices.Equal(listedAs(r, key), []string{relDerived}) {
			t.Errorf("the derivative %s is left, listed as %q", key, listedAs(r, key))
		}
	}
}

// TestWhatNamesWhatIsNoLongerHereMayBeDerived: a copy, or what was made of the spill, that was deleted before anybody reported it.
func TestWhatNamesWhatIsNoLongerHereMayBeDerived(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	w.put(s, "older", "something older", "")
	w.worked(s, "older", "of-older", "of something older", nil)
	v := w.put(s, "plan", "the plan, dirty", "")
	w.put(s, "copy", "the plan, dirty", "")
	w.put(s, "else", "something else", "")
	w.worked(s, "copy", "of-copy", "of a copy", nil)
	w.worked(s, "plan", "between", "of the plan", nil)
	w.worked(s, "out/between", "of-between", "of what was made of it", nil)
	w.worked(s, "else", "of-else", "of something else", nil)
	for _, key := range []string{"older", "copy", "out/between"} {
		if err := w.del(s, key, w.all(key)[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	report, err := w.reported("plan", v.ID, true)
	if err != nil || report.Proven || report.Why != whyMayBe {
		t.Fatalf("proven %v, why %q, %v", report.Proven, report.Why, err)
	}
	for key, want := range map[string][]string{"out/of-copy": {relMayBe}, "out/of-between": {relMayBe}, "out/of-else": nil, "out/of-older": nil} {
		if got := listedAs(report, key); !slices.Equal(got, want) || w.get(s, key) == "" {
			t.Errorf("%s is listed as %q, want %q, and holds %q", key, got, want, w.get(s, key))
		}
	}
	// Somebody looks at each, now that the report stands.
	for _, key := range []string{"out/of-copy", "out/of-between"} {
		if report.Proven {
			t.Errorf("proven before %s was looked at", key)
		}
		if report, err = w.reported("plan", v.ID, true, w.all(key)[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range report.Copies {
		if c.Relation == relMayBe && !c.Spared { // their logs
			if report, err = w.reported("plan", v.ID, true, c.Version); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.restart(true)
	if now, err := w.Spill(context.Background(), w.spillOfficer(), report.ID); err != nil || !now.Proven || now.Why != "" {
		t.Errorf("when all was looked at: proven %v, why %q, %v", now.Proven, now.Why, err)
	}
	s = w.as("s-analyst", "")
	if w.get(s, "out/of-copy") == "" || w.get(s, "out/of-between") == "" {
		t.Error("what was spared is gone")
	}
}

// TestWhatArrivesWhileASpillIsSoughtIsSought: the search of a report has gone past where something of it then comes to lie.
func TestWhatArrivesWhileASpillIsSoughtIsSought(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	high := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(high, "plan", "the plan, dirty", "")
	carry(t, c.ts, d)
	who := d.as("ts-analyst", "SECRET")
	d.worked(who, "plan", "a", "made of the plan", nil)
	r := c.spill("", true)
	if _, refused := carry(t, d, c.ts); len(refused) > 0 {
		t.Fatalf("refused: %+v", refused)
	}
	d.worked(who, "plan", "b", "made of the plan too", nil)
	// The search is at its end but for the last commit when more comes.
	begun, due, err := c.ts.engine.Get(dutyKey(spillDuty + r.ID))
	if err != nil || !due {
		t.Fatal(due, err)
	}
	now, err := c.ts.spill(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ts.wipeAll(context.Background(), now); err != nil {
		t.Fatal(err)
	}
	if _, refused := carry(t, d, c.ts); len(refused) > 0 {
		t.Fatalf("refused: %+v", refused)
	}
	if err := c.ts.wiped(context.Background(), now, begun); err != nil {
		t.Fatal(err)
	}
	if r = c.stands(r.ID); r.Proven {
		t.Error("it is proven though more has come")
	}
	if err := c.ts.fulfilAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r = c.stands(r.ID); !slices.Equal(listedAs(r, "out/a"), []string{relDerived}) || !slices.Equal(listedAs(r, "out/b"), []string{relDerived}) {
		t.Errorf("then they are listed as %q and %q", listedAs(r, "out/a"), listedAs(r, "out/b"))
	}
}

// TestWhoAsksWhatIsClosedCommitsBeforeMoreIs: a report that has it known what it takes waits for copies and arrivals that were let in before.
func TestWhoAsksWhatIsClosedCommitsBeforeMoreIs(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	high := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(high, "plan", "the plan, dirty", "")
	c.ts.worked(high, "plan", "a", "made of the plan", nil)
	held := func(w *world, do func()) (held bool) {
		engine := w.engine
		defer func() { w.engine = engine }()
		w.engine = &each{engine, func(b *store.Batch) {
			if w.readers.gate.TryLock() {
				w.readers.gate.Unlock()
			} else {
				held = true
			}
		}}
		do()
		return held
	}
	if !held(c.ts, func() {
		if _, err := c.ts.copied(high, "out/a", "copy", "", nil); err != nil {
			t.Fatal(err)
		}
	}) {
		t.Error("a copy does not hold the gate")
	}
	if !held(d, func() { carry(t, c.ts, d) }) {
		t.Error("what arrives does not hold the gate")
	}
	if held(c.ts, func() { c.ts.put(high, "else", "x", "") }) {
		t.Error("what bears no mark holds it")
	}
}

// each has something done before each commit.
type each struct {
	store.Engine
	then func(*store.Batch)
}

func (x *each) Commit(ctx context.Context, b *store.Batch) error {
	x.then(b)
	return x.Engine.Commit(ctx, b)
}

// TestNothingBelowGoesByAMark: a true one names nothing above; by a false one nothing is erased or closed.
func TestNothingBelowGoesByAMark(t *testing.T) {
	w := open(t, nil)
	ctx, low, s := context.Background(), w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "")
	v := w.put(s, "plan", "the plan, dirty", "")
	id, _ := w.ids.parse(string(v.ID))
	put := func(who redoubt.Credential, key string) error {
		attrs := mark{job: "j", reads: []versionID{id}}.on(redoubt.Attributes{})
		_, err := w.PutObject(ctx, who, redoubt.PutObject{Name: named(key), Attributes: attrs, SizeBytes: 1, Body: strings.NewReader("x")})
		return err
	}
	if err := errors.Join(put(low, "low"), put(s, "high")); err != nil {
		t.Fatal(err)
	}
	r, err := w.reported("plan", v.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := listedAs(r, "low"); !slices.Equal(got, []string{relMayBe}) || r.Proven || w.get(low, "low") != "x" {
		t.Errorf("what is below is listed as %q, and holds %q", got, w.get(low, "low"))
	}
	if got := listedAs(r, "high"); !slices.Equal(got, []string{relDerived}) || w.get(s, "high") != "" {
		t.Errorf("what is at its label is listed as %q", got)
	}
	if low, high := put(low, "low2"), put(s, "high2"); low != nil || !errors.Is(high, redoubt.Conflict) {
		t.Errorf("afterwards below: %v, at its label: %v", low, high)
	}
}
