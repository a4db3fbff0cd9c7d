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
	"redoubt/store"
)

// TestTriggersAboveCostALowCommitNothing: what waits for a version at higher labels is not in the batch that brings it.
func TestTriggersAboveCostALowCommitNothing(t *testing.T) {
	writes := func(triggers int) (n int) {
		var f *faulty
		w := open(t, withFaults(&f))
		high, low := w.as("s-analyst", "SECRET"), w.as("u-analyst", "")
		spec := w.jobSpec(high, func(q *redoubt.SubmitJob) { q.Out.Prefix = "elsewhere/" })
		for i := range triggers {
			if _, err := w.PutSchedule(context.Background(), high, redoubt.Schedule{Name: redoubt.ScheduleName(fmt.Sprint("t-", i)), On: &redoubt.JobInput{Bucket: "reports", Prefix: "in/"}, Job: spec}); err != nil {
				t.Fatal(err)
			}
		}
		w.put(low, "in/first", "x", "") // its label set is made
		f.when(func(b *store.Batch) error {
			if len(b.Links) == 1 {
				n = len(b.Writes)
			}
			return nil
		})
		w.put(low, "in/a", "x", "")
		f.when(nil)
		return n
	}
	if none, many := writes(0), writes(40); none == 0 || none != many {
		t.Errorf("a low put writes %d records, and %d where 40 triggers above wait for it", none, many)
	}
}

func TestATriggerTellsNothingThatItsMakerMayNotKnow(t *testing.T) {
	w := open(t, func(o *Options) {
		o.Buckets = append(o.Buckets, redoubt.Bucket{Name: "closed", BucketSettings: redoubt.BucketSettings{Closed: true}})
	})
	ctx, who := context.Background(), w.as("s-analyst", "")
	spec := w.jobSpec(who, nil)
	if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "spy", On: &redoubt.JobInput{Bucket: "closed"}, Job: spec}); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a trigger on a bucket that is closed to its maker: %v", err)
	}
	if _, err := w.Grant(ctx, w.as("officer", top), redoubt.Grant{Subject: "s-analyst", Bucket: "reports", Prefix: "in/hidden/", Deny: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "in", On: &redoubt.JobInput{Bucket: "reports", Prefix: "in/"}, Job: spec}); err != nil {
		t.Fatal(err)
	}
	other := w.as("ts-analyst", "SECRET")
	w.put(other, "in/hidden/agent-smith", "x", "")
	w.put(other, "in/plain", "x", "")
	if err := w.startDue(ctx); err != nil {
		t.Fatal(err)
	}
	all, err := w.Jobs(ctx, who, redoubt.ListJobs{})
	if err != nil || len(all) != 1 || strings.Contains(fmt.Sprint(all), "smith") {
		t.Errorf("it started %+v %v", all, err)
	}
}

func TestAFaultThatPassesLosesNoVersion(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	ctx, who := context.Background(), w.as("s-analyst", "")
	if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "in", On: &redoubt.JobInput{Bucket: "reports", Prefix: "in/"}, Job: w.jobSpec(who, nil)}); err != nil {
		t.Fatal(err)
	}
	w.put(who, "in/a", "x", "")
	f.when(func(*store.Batch) error { return &redoubt.Error{Kind: redoubt.DiskFull} })
	if err := w.startDue(ctx); err == nil {
		t.Error("a job was started on a full disk")
	}
	f.when(nil)
	if err := w.startDue(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := w.Jobs(ctx, who, redoubt.ListJobs{}); err != nil || len(all) != 1 {
		t.Errorf("then %d jobs were started: %v", len(all), err)
	}
}

func TestAServiceOfOneOwnerIsNeverAnsweredByAnothers(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	mallory, bob := w.as("s-analyst", "SECRET"), w.as("ts-analyst", "SECRET")
	w.deploy(mallory, "payroll")
	first, err := w.CallService(ctx, bob, "payroll")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.RemoveService(ctx, mallory, "payroll"); err != nil {
		t.Fatal(err)
	}
	w.deploy(bob, "payroll")
	second, err := w.CallService(ctx, bob, "payroll")
	if err != nil || first.Key == second.Key {
		t.Errorf("both deployments have one key: %v", err)
	}
	if w.deploy(bob, "payroll"); second.Service.Revision != 1 {
		t.Errorf("it is revision %d", second.Service.Revision)
	}
	if third, err := w.CallService(ctx, bob, "payroll"); err != nil || third.Key != second.Key || third.Service.Revision != 2 {
		t.Errorf("a new revision of the same deployment has another key: %v", err)
	}
	// SECRET and SECRET//NOFORN are one point of the order.
	noforn := w.as("s-analyst", "SECRET//NOFORN")
	if _, err := w.DeployService(ctx, noforn, "payroll", redoubt.ServiceSpec{Module: w.module(noforn)}); !errors.Is(err, redoubt.Exists) {
		t.Errorf("another's name in another spelling: %v", err)
	}
}

func TestLimitsHaveLimits(t *testing.T) {
	w := open(t, nil)
	who := w.as("s-analyst", "")
	for name, l := range map[string]redoubt.JobLimits{"memory": {Memory: 1 << 50}, "disk": {Disk: 1 << 50}, "processors": {CPUs: 1e9}, "processes": {Processes: 1 << 30}} {
		if _, err := w.SubmitJob(context.Background(), who, w.jobSpec(who, func(q *redoubt.SubmitJob) { q.Limits = l })); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOneStartSubmitsSoMuchInADay(t *testing.T) {
	var h hands
	w := open(t, withClock(&h))
	ctx, who := context.Background(), w.as("s-analyst", "")
	w.submit(who, nil)
	w.jobs.days[w.set("SECRET")] = jobDay{day: redoubt.BudgetDay(w.clock()), jobs: redoubt.MaxJobsDay}
	if _, err := w.SubmitJob(ctx, who, w.jobSpec(who, nil)); !errors.Is(err, redoubt.QuotaExceeded) {
		t.Errorf("one more than a day has: %v", err)
	}
	low := w.as("u-analyst", "")
	if _, err := w.SubmitJob(ctx, low, w.jobSpec(low, nil)); err != nil {
		t.Errorf("another label's: %v", err)
	}
	h.add(24 * time.Hour)
	who = w.as("s-analyst", "")
	if _, err := w.SubmitJob(ctx, who, w.jobSpec(who, nil)); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

func TestAJobThatHasEndedStillSaysWhatItWas(t *testing.T) {
	w := open(t, nil)
	who := w.as("s-analyst", "")
	j := w.submit(who, func(q *redoubt.SubmitJob) { q.Args = []string{"--top", "10"} })
	r := w.run()
	finish(t, r, redoubt.JobExit{})
	w.jobs.mu.Lock()
	kept := w.jobs.byID[j.ID].Spec.Args
	w.jobs.mu.Unlock()
	if kept != nil {
		t.Errorf("%v of it is in memory still", kept)
	}
	for range 2 {
		if got := w.job(who, j.ID); fmt.Sprint(got.Spec.Args) != "[--top 10]" || got.Spec.Module != j.Spec.Module {
			t.Errorf("it is %+v", got.Spec)
		}
		w.restart(true)
		who = w.as("s-analyst", "")
	}
	if err := w.CancelJob(context.Background(), who, j.ID); err != nil {
		t.Fatal(err)
	}
	if got := w.job(who, j.ID); got.State != redoubt.JobDone || len(got.Spec.Args) != 2 {
		t.Errorf("after a cancel that came late it is %+v", got)
	}
}

func TestAJobWritesUpNoMoreThanItsSubjectMay(t *testing.T) {
	ctx := context.Background()
	w := open(t, func(o *Options) {
		o.Buckets = append(o.Buckets, redoubt.Bucket{Name: "up", BucketSettings: redoubt.BucketSettings{Default: "SECRET"}})
	})
	for subject, granted := range map[redoubt.SubjectName]bool{"s-analyst": false, "ts-analyst": true} { // who has the grant write-up
		who := w.as(subject, "UNCLASSIFIED")
		j, err := w.SubmitJob(ctx, who, w.jobSpec(who, func(q *redoubt.SubmitJob) { q.Out = redoubt.JobInput{Bucket: "up"} }))
		if err != nil {
			if granted || !errors.Is(err, redoubt.Denied) {
				t.Errorf("%s: %v", subject, err)
			}
			continue
		}
		r := w.run()
		err = r.Put(ctx, "x", 1, strings.NewReader("x"))
		if granted != (err == nil) {
			t.Errorf("%s: the output is %v", subject, err)
		}
		finish(t, r, redoubt.JobExit{})
		if got := w.job(w.as(subject, "UNCLASSIFIED"), j.ID); granted && got.State != redoubt.JobDone {
			t.Errorf("%s: it ended as %+v", subject, got)
		}
	}
}

func TestAnEndThatCouldNotBeKeptIsToldAgain(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	ctx, who := context.Background(), w.as("s-analyst", "")
	j := w.submit(who, nil)
	r := w.run()
	putOut(t, r, "x", "derived")
	f.when(func(*store.Batch) error { return &redoubt.Error{Kind: redoubt.DiskFull} })
	if err := r.Finish(ctx, redoubt.JobExit{}); err == nil {
		t.Error("an end was kept on a full disk")
	}
	f.when(nil)
	finish(t, r, redoubt.JobExit{})
	if got := w.job(who, j.ID); got.State != redoubt.JobDone || len(got.Outputs) != 1 {
		t.Errorf("it ended as %+v", got)
	}
	if got := w.get(who, "out/x"); got != "derived" {
		t.Errorf("its output is %q", got)
	}
	w.charges()
}

func TestALogIsOfTheLastAttempt(t *testing.T) {
	w := open(t, nil)
	ctx, who := context.Background(), w.as("s-analyst", "")
	j := w.submit(who, func(q *redoubt.SubmitJob) { q.Retries = 1 })
	r := w.run()
	r.Log(1, []byte("the first"))
	finish(t, r, redoubt.JobExit{Code: 1, Why: "exit code 1"})
	finish(t, w.run(), redoubt.JobExit{})
	if text, _, _, err := w.JobLog(ctx, who, j.ID, 0, false); err != nil || len(text) > 0 {
		t.Errorf("the log of an attempt that said nothing is %q %v", text, err)
	}
}

// A job is begun the moment that it is there: by then its submitter holds nothing that whoever begins it waits for while she waits for that one.
func TestJobsAreBegunWhileTheirSubmittersAreAnswered(t *testing.T) {
	w := open(t, nil)
	who := w.as("s-analyst", "SECRET")
	const n = 500
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for range n {
			if _, err := w.SubmitJob(context.Background(), who, w.jobSpec(who, func(*redoubt.SubmitJob) {})); err != nil {
				t.Error(err)
			}
		}
	})
	for range n {
		r, err := w.NextJob(t.Context(), func(string, redoubt.SubmitJob) bool {
			name := lockName{systemBucketID, kindJobState + "/" + string(w.jobs.lanes[w.jobs.turn].waiting[0].ID)}
			for i := range w.locks.shards {
				s := &w.locks.shards[i]
				s.mu.Lock()
				if s.held[name] != nil {
					t.Error("a job that may be begun is still held")
				}
				s.mu.Unlock()
			}
			return true
		})
		if err != nil || t.Failed() {
			t.Fatal(err)
		}
		finish(t, r, redoubt.JobExit{})
	}
}

// TestATriggerAboveHasNoneBelowStarted: what was noted for it before the one below was made starts nothing there, as if nobody had waited.
func TestATriggerAboveHasNoneBelowStarted(t *testing.T) {
	w := open(t, nil)
	ctx, high, low := context.Background(), w.as("s-analyst", "SECRET"), w.as("u-analyst", "")
	trigger := func(who redoubt.Credential) {
		t.Helper()
		spec := w.jobSpec(who, func(q *redoubt.SubmitJob) { q.Out.Prefix = "elsewhere/" })
		if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "t", On: &redoubt.JobInput{Bucket: "reports", Prefix: "in/"}, Job: spec}); err != nil {
			t.Fatal(err)
		}
	}
	trigger(high)
	w.put(low, "in/before", "x", "")
	trigger(low)
	w.put(low, "in/after", "x", "")
	if err := w.startDue(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := w.Jobs(ctx, low, redoubt.ListJobs{}); err != nil || len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].Spec.Env), "in/after") {
		t.Errorf("it started %+v %v", all, err)
	}
}
