package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"redoubt"
	"redoubt/store"
)

// What a job is told, its own label sees too: else its output would tell START of what lies above.
func TestAJobIsToldNothingThatItsLabelDoesNotSee(t *testing.T) {
	levels := []string{"UNCLASSIFIED", "CONFIDENTIAL", "SECRET//REL TO USA, GBR", "SECRET", "TOP SECRET", "TOP SECRET//SI", "TOP SECRET//TK", top}
	keys := []string{"a", "d/x", "d/y"}
	rapid.Check(t, func(r *rapid.T) {
		current := rapid.SampledFrom([]string{"", "highest"}).Draw(r, "current")
		w := open(t, func(o *Options) { o.Buckets[0].Current = current })
		as := map[string]redoubt.Credential{}
		for _, l := range levels {
			as[l] = w.as("ts-analyst", l)
		}
		for i := range rapid.IntRange(1, 8).Draw(r, "versions") {
			who, key := as[rapid.SampledFrom(levels).Draw(r, "at")], rapid.SampledFrom(keys).Draw(r, "key")
			if rapid.Bool().Draw(r, "removed") {
				if err := w.del(who, key, ""); err != nil {
					r.Fatal(err)
				}
				continue
			}
			w.put(who, key, fmt.Sprint(i), "")
		}
		start := rapid.SampledFrom(levels[:4]).Draw(r, "start")
		j := w.submit(as[start], func(q *redoubt.SubmitJob) { q.Max, q.Module = top, w.module(as[start]) })
		run := w.run().(*jobRun)
		told := map[string]string{}
		for _, asked := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "d/", "d/x", ""}), 1, 4, rapid.ID).Draw(r, "asked") {
			told[asked] = w.toldInJob(r, run, asked)
		}
		for _, l := range append(levels, run.risen().Banner()) {
			if at := as[l].Working; !at.IsZero() && !at.Dominates(run.risen()) {
				continue
			}
			at := as[l].Working
			if at.IsZero() {
				at = run.risen()
			}
			for asked, got := range told {
				if want := w.seenAt(r, run.who(at), asked); got != want {
					r.Errorf("%s from %s rose to %s and was told %q of %q; at %s that is %q", j.ID, start, run.risen().Banner(), got, asked, at.Banner(), want)
				}
			}
		}
	})
}

// toldInJob is what a job is told of a name, or of a directory.
func (w *world) toldInJob(r *rapid.T, run *jobRun, asked string) string {
	path := strings.TrimSuffix("reports/"+asked, "/")
	if asked != "" && !strings.HasSuffix(asked, "/") {
		f, err := run.Stat(context.Background(), path)
		if errors.Is(err, redoubt.NotFound) {
			return "nothing"
		}
		if err != nil {
			r.Fatal(err)
		}
		return fmt.Sprintf("%d %s", f.Bytes, f.Modified)
	}
	files, err := run.List(context.Background(), path)
	if err != nil && !errors.Is(err, redoubt.NotFound) {
		r.Fatal(err)
	}
	var all []string
	for _, f := range files {
		if f.Dir {
			all = append(all, f.Name+"/")
			continue
		}
		all = append(all, fmt.Sprintf("%s %d %s", f.Name, f.Bytes, f.Modified))
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// seenAt is what a credential sees of it.
func (w *world) seenAt(r *rapid.T, who redoubt.Credential, asked string) string {
	if asked != "" && !strings.HasSuffix(asked, "/") {
		v, err := w.HeadObject(context.Background(), who, redoubt.ReadObject{Name: named(asked)})
		if errors.Is(err, redoubt.NotFound) {
			return "nothing"
		}
		if err != nil {
			r.Fatal(err)
		}
		return fmt.Sprintf("%d %s", v.SizeBytes, v.Modified.UTC())
	}
	page, err := w.ListObjects(context.Background(), who, redoubt.ListObjects{Bucket: "reports", Prefix: asked, Delimiter: "/", Max: 100})
	if err != nil {
		r.Fatal(err)
	}
	var all []string
	for _, v := range page.Versions {
		all = append(all, fmt.Sprintf("%s %d %s", strings.TrimPrefix(v.Name.Key, asked), v.SizeBytes, v.Modified.UTC()))
	}
	for _, p := range page.Prefixes {
		all = append(all, strings.TrimPrefix(p, asked))
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

func TestWhatWasRemovedAboveIsToldAboveAlone(t *testing.T) {
	ctx := context.Background()
	for name, look := range map[string]func(redoubt.JobRun) error{
		"by a look at it": func(r redoubt.JobRun) error { _, err := r.Stat(ctx, "reports/d/x"); return err },
		"by opening it":   func(r redoubt.JobRun) error { _, _, err := r.Open(ctx, "reports/d/x"); return err },
		"by its folder":   func(r redoubt.JobRun) error { _, err := r.Stat(ctx, "reports/d"); return err },
		"by a list":       func(r redoubt.JobRun) error { _, err := r.List(ctx, "reports/d"); return err },
	} {
		for _, above := range []bool{true, false} {
			t.Run(fmt.Sprint(name, above), func(t *testing.T) {
				w := open(t, nil)
				low, high, want := w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET"), "SECRET"
				if above {
					w.put(low, "d/x", "x", "")
				} else { // START has never seen it
					w.put(high, "d/x", "x", "")
					want = "UNCLASSIFIED"
				}
				if err := w.del(high, "d/x", ""); err != nil {
					t.Fatal(err)
				}
				w.submit(low, maxed("SECRET"))
				r := w.run()
				if err := look(r); !errors.Is(err, redoubt.NotFound) {
					t.Errorf("the job sees it: %v", err)
				}
				putOut(t, r, "absent", "x")
				finish(t, r, redoubt.JobExit{})
				if got := w.labelOf(high, "out/absent"); got != want {
					t.Errorf("that it is not there is told at %s, want %s", got, want)
				}
			})
		}
	}
}

func TestArgumentsAndTheModuleCountAsStart(t *testing.T) {
	w := open(t, nil)
	high := w.as("s-analyst", "SECRET")
	w.put(w.as("u-analyst", ""), "low", "x", "")
	w.submit(high, func(q *redoubt.SubmitJob) { q.Args, q.Env = []string{"a plan"}, []string{"PLAN=x"} })
	r := w.run()
	read(t, r, "reports/low")
	putOut(t, r, "x", "a plan")
	finish(t, r, redoubt.JobExit{})
	if got := w.labelOf(high, "out/x"); got != "SECRET" {
		t.Errorf("an output of a job that was told something SECRET is %s", got)
	}
	if got := w.list(w.as("u-analyst", "")); fmt.Sprint(got) != "[low]" {
		t.Errorf("below there are %v", got)
	}
	// Nor is a module that lies above START one that it may run.
	spec := w.jobSpec(w.as("s-analyst", "UNCLASSIFIED"), nil)
	spec.Module = strings.Repeat("0", 64)
	if _, err := w.SubmitJob(context.Background(), w.as("s-analyst", "UNCLASSIFIED"), spec); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a module that is not at START: %v", err)
	}
}

func TestAJobReadsNothingOnceItWrites(t *testing.T) {
	w := open(t, nil)
	ctx, low := context.Background(), w.as("s-analyst", "UNCLASSIFIED")
	w.put(w.as("s-analyst", "SECRET"), "high", "h", "")
	w.submit(low, maxed("SECRET"))
	r := w.run()
	putOut(t, r, "first", "x")
	_, _, opened := r.Open(ctx, "reports/high")
	_, listed := r.List(ctx, "reports")
	_, told := r.Stat(ctx, "reports/high")
	for _, err := range []error{opened, listed, told} {
		if !errors.Is(err, redoubt.Invalid) {
			t.Errorf("it reads on: %v", err)
		}
	}
}

func TestOutputsThatTogetherAreTooLargeAreRefused(t *testing.T) {
	w := open(t, nil)
	who := w.as("s-analyst", "")
	j := w.submit(who, func(q *redoubt.SubmitJob) { q.Limits.Disk = 100 })
	r := w.run()
	putOut(t, r, "a", strings.Repeat("x", 60))
	for _, size := range []int64{41, 1 << 62, -1} {
		if err := r.Put(context.Background(), "b", size, strings.NewReader(strings.Repeat("x", 41))); !errors.Is(err, redoubt.TooLarge) {
			t.Errorf("%d bytes more: %v", size, err)
		}
	}
	putOut(t, r, "c", strings.Repeat("x", 40))
	finish(t, r, redoubt.JobExit{})
	if got := w.job(who, j.ID); len(got.Outputs) != 2 {
		t.Errorf("it ended as %+v", got)
	}
}

func TestAnOutputAboveItsBucketFailsTheJob(t *testing.T) {
	w := open(t, func(o *Options) {
		o.Buckets = append(o.Buckets, redoubt.Bucket{Name: "public", BucketSettings: redoubt.BucketSettings{Ceiling: "UNCLASSIFIED"}})
	})
	ctx, low, high := context.Background(), w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
	w.put(high, "high", "h", "")
	j := w.submit(low, func(q *redoubt.SubmitJob) { q.Max, q.Out = "SECRET", redoubt.JobInput{Bucket: "public"} })
	blobs := w.blobs()
	r := w.run()
	read(t, r, "reports/high")
	if err := r.Put(ctx, "x", 1, strings.NewReader("x")); !errors.Is(err, redoubt.Denied) {
		t.Errorf("SECRET into a public bucket: %v", err)
	}
	finish(t, r, redoubt.JobExit{Code: -1, Why: "what it wrote cannot be kept"})
	if got := w.job(high, j.ID); got.State != redoubt.JobFailed || w.blobs() != blobs {
		t.Errorf("it is %+v, with %d blobs, want %d", got, w.blobs(), blobs)
	}
	page, err := w.ListObjects(ctx, high, redoubt.ListObjects{Bucket: "public", Max: 10})
	if err != nil || len(page.Versions) != 0 {
		t.Errorf("there is %v %v", page.Versions, err)
	}
}

func TestNeedToKnowHoldsInAJob(t *testing.T) {
	w := open(t, func(o *Options) {
		o.Buckets = append(o.Buckets, redoubt.Bucket{Name: "closed", BucketSettings: redoubt.BucketSettings{Closed: true}})
	})
	ctx, who, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	for _, g := range []redoubt.Grant{{Subject: "ts-analyst", Bucket: "closed"}, {Subject: "s-analyst", Bucket: "reports", Prefix: "shut/", Deny: true}} {
		if _, err := w.Grant(ctx, officer, g); err != nil {
			t.Fatal(err)
		}
	}
	w.put(w.as("ts-analyst", "SECRET"), "shut/x", "x", "")
	w.put(who, "open/x", "x", "")
	body, size := text("x")
	if _, err := w.PutObject(ctx, w.as("ts-analyst", "SECRET"), redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "closed", Key: "x"}, Body: body, SizeBytes: size}); err != nil {
		t.Fatal(err)
	}
	w.submit(who, func(q *redoubt.SubmitJob) { q.In = []redoubt.JobInput{{Bucket: "reports"}, {Bucket: "closed"}} })
	r := w.run()
	for _, path := range []string{"reports/shut/x", "reports/shut", "closed/x"} {
		if f, err := r.Stat(ctx, path); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s: %+v %v", path, f, err)
		}
		if _, _, err := r.Open(ctx, path); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s opens: %v", path, err)
		}
		if _, err := r.List(ctx, path); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s is listed: %v", path, err)
		}
	}
	if files, err := r.List(ctx, "reports"); err != nil || fmt.Sprint(names(files)) != "[open]" {
		t.Errorf("it is shown %v %v", names(files), err)
	}
	// A grant that is given while it runs holds at once, as one that is taken away.
	if _, err := w.Grant(ctx, officer, redoubt.Grant{Subject: "s-analyst", Bucket: "reports", Prefix: "open/", Deny: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Open(ctx, "reports/open/x"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("it reads on: %v", err)
	}
}

// Whatever goes on at MAX, everything that START can ask of its jobs, schedules and usage is the same.
func TestStartIsToldNothingOfHowItsJobsGo(t *testing.T) {
	ctx := context.Background()
	tell := func(goesOn bool) string {
		var h hands
		w := open(t, withClock(&h))
		low, high := w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
		w.put(high, "high", "h", "")
		spec := w.jobSpec(low, maxed("SECRET"))
		if _, err := w.PutSchedule(ctx, low, redoubt.Schedule{Name: "ingest", On: &redoubt.JobInput{Bucket: "reports", Prefix: "in/"}, Job: spec}); err != nil {
			t.Fatal(err)
		}
		for i := range maxFired + 5 {
			w.put(low, fmt.Sprintf("in/%03d", i), "x", "")
			if goesOn {
				w.put(high, fmt.Sprintf("in/%03d", i), "x", "") // which the schedule does not dominate
			}
		}
		if err := w.startDue(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if !goesOn {
				break
			}
			r := w.run()
			read(t, r, "reports/high")
			r.Log(1, []byte("said"))
			if err := r.Keep(ctx, "x", []byte("compiled")); err != nil {
				t.Fatal(err)
			}
			if b, err := r.Kept(ctx, "x"); err != nil || string(b) != "compiled" {
				t.Errorf("what was kept: %q %v", b, err)
			}
			c, _, err := r.Module(ctx)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			putOut(t, r, fmt.Sprint(i), "x")
			finish(t, r, redoubt.JobExit{Code: i % 2, Why: strings.Repeat("x", i%2)})
		}
		h.add(time.Minute)
		if err := w.startDue(ctx); err != nil {
			t.Fatal(err)
		}
		h.add(time.Minute)
		var b bytes.Buffer
		jobs, err := w.Jobs(ctx, low, redoubt.ListJobs{})
		for _, j := range jobs {
			j.ID, j.Spec.Env, j.Made = "", nil, time.Time{}
			fmt.Fprintf(&b, "%+v\n", j)
		}
		all, err2 := w.Schedules(ctx, low)
		for _, s := range all {
			s.LastJob, s.Made, s.Last = "", time.Time{}, time.Time{}
			s.On = nil
			fmt.Fprintf(&b, "%+v\n", s)
		}
		usage, err3 := w.Usage(ctx, w.as("admin", ""))
		fmt.Fprintf(&b, "%+v\n", usage)
		err4 := w.SearchAudit(ctx, w.as("officer", "UNCLASSIFIED"), redoubt.AuditQuery{}, func(a redoubt.AuditRecord) error {
			fmt.Fprintf(&b, "%s %s %s\n", a.Subject, a.Action, a.Rule)
			return nil
		})
		if err := errors.Join(err, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	quiet, busy := strings.Split(tell(false), "\n"), strings.Split(tell(true), "\n")
	slices.Sort(quiet) // what the enclave starts by itself comes between what the test does
	slices.Sort(busy)
	if len(quiet) != len(busy) {
		t.Errorf("START is told %d things where nothing runs, and %d where much does", len(quiet), len(busy))
	}
	for i := range min(len(quiet), len(busy)) {
		if quiet[i] != busy[i] {
			t.Fatalf("START is told\n%s\nwhere nothing runs, and\n%s\nwhere much does", quiet[i], busy[i])
		}
	}
}

func TestWhatIsKeptOfAProgramIsForItsShareAlone(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	who := w.as("s-analyst", "SECRET")
	w.submit(who, nil)
	r := w.run()
	if err := r.Keep(ctx, "x", []byte("made")); err != nil {
		t.Fatal(err)
	}
	for _, next := range []redoubt.Credential{w.as("ts-analyst", "SECRET"), w.as("s-analyst", "UNCLASSIFIED"), w.as("ts-analyst", top), who} {
		w.submit(next, nil)
		other := w.run()
		b, err := other.Kept(ctx, "x")
		if same := other.Share() == r.Share(); same != (string(b) == "made") || same != (next.ID == who.ID) || !same && !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s at %s finds %q %v", next.Subject, next.Working.Banner(), b, err)
		}
	}
}

func TestAScheduleEndsWithItsSubjectsRight(t *testing.T) {
	ctx := context.Background()
	for name, end := range map[string]func(*world, redoubt.Credential) error{
		"a person who was revoked": func(w *world, _ redoubt.Credential) error {
			return w.RevokePerson(ctx, w.as("officer", ""), "s-analyst", "gone")
		},
		"the credential that it was made with": func(w *world, c redoubt.Credential) error {
			return w.RevokeCredential(ctx, w.as("officer", ""), c.ID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h hands
			w := open(t, withClock(&h))
			who := w.as("s-analyst", "")
			if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "nightly", Cron: "0 * * * *", Job: w.jobSpec(who, nil)}); err != nil {
				t.Fatal(err)
			}
			if err := end(w, who); err != nil {
				t.Fatal(err)
			}
			h.add(2 * time.Hour)
			if err := w.startDue(ctx); err != nil {
				t.Fatal(err)
			}
			high := w.as("ts-analyst", top)
			if all, err := w.Jobs(ctx, high, redoubt.ListJobs{}); err != nil || len(all) != 0 {
				t.Errorf("it started %v %v", all, err)
			}
			if all, err := w.Schedules(ctx, high); err != nil || len(all) != 1 || all[0].Fault == "" || all[0].LastJob != "" {
				t.Errorf("the schedules are %+v %v", all, err)
			}
		})
	}
}

func TestTheModuleOfAScheduleOrAServiceIsKept(t *testing.T) {
	var h hands
	w := open(t, withClock(&h))
	ctx, who := context.Background(), w.as("s-analyst", "")
	digest := w.module(who)
	if _, err := w.DeployService(ctx, who, "hello", redoubt.ServiceSpec{Module: digest}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "monthly", Cron: "0 0 1 * *", Job: w.jobSpec(who, nil)}); err != nil {
		t.Fatal(err)
	}
	day := func() {
		t.Helper()
		h.add(24 * time.Hour)
		if err := errors.Join(w.keepModules(ctx), w.Expire(ctx), w.startDue(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	for range 95 {
		day()
		if all, err := w.Schedules(ctx, w.as("s-analyst", "")); err != nil || all[0].Fault != "" {
			t.Fatalf("the schedules are %+v %v", all, err)
		}
	}
	if all, err := w.Jobs(ctx, w.as("s-analyst", ""), redoubt.ListJobs{}); err != nil || len(all) < 3 {
		t.Errorf("%d jobs were started in three months: %v", len(all), err)
	}
	who = w.as("s-analyst", "")
	if err := w.RemoveSchedule(ctx, who, "monthly"); err != nil {
		t.Fatal(err)
	}
	for range 32 {
		day()
	}
	if f, err := w.moduleAt(w.as("s-analyst", "").Working, digest); err != nil || f.rec == nil {
		t.Errorf("the module of a service is gone: %v", err)
	}
	who = w.as("s-analyst", "")
	if err := w.RemoveService(ctx, who, "hello"); err != nil {
		t.Fatal(err)
	}
	waiting, err := w.Jobs(ctx, who, redoubt.ListJobs{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range waiting {
		if err := w.CancelJob(ctx, who, j.ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 32 {
		day()
	}
	if f, err := w.moduleAt(w.as("s-analyst", "").Working, digest); err != nil || f.rec != nil {
		t.Errorf("the module of what is gone is kept: %v", err)
	}
}

func TestAShareThatIsSpentFailsItsOwnJobsAlone(t *testing.T) {
	const quota = 60_000
	w := shares(t, map[string]int64{"SECRET": quota, "UNCLASSIFIED": quota})
	high, low := w.as("s-analyst", "SECRET"), w.as("s-analyst", "UNCLASSIFIED")
	spent, rising, other := w.submit(high, nil), w.submit(low, maxed("SECRET")), w.submit(low, nil)
	w.fillUp(high, "SECRET", quota)
	for range 3 {
		r := w.run()
		r.Log(1, []byte("said"))
		why := ""
		if err := r.Put(context.Background(), "x", 5_000, strings.NewReader(strings.Repeat("x", 5_000))); err != nil {
			why = reason(err)
		}
		code := 0
		if why != "" {
			code = -1
		}
		finish(t, r, redoubt.JobExit{Code: code, Why: why})
	}
	if got := w.job(high, spent.ID); got.State != redoubt.JobFailed {
		t.Errorf("in a share that is spent it is %+v", got)
	}
	if got := w.job(high, rising.ID); got.State != redoubt.JobDone || !strings.Contains(got.Why, "log could not be kept") {
		t.Errorf("a job whose log alone lies in a share that is spent is %+v", got)
	}
	if got := w.job(low, other.ID); got.State != redoubt.JobDone || got.Why != "" {
		t.Errorf("in another share it is %+v", got)
	}
}

func TestAThousandJobsAboveKeepNoneBelowWaiting(t *testing.T) {
	w := open(t, nil)
	ctx, high, low := context.Background(), w.as("ts-analyst", top), w.as("u-analyst", "")
	spec := w.jobSpec(high, nil)
	for range 1000 {
		if _, err := w.SubmitJob(ctx, high, spec); err != nil {
			t.Fatal(err)
		}
	}
	j := w.submit(low, nil)
	for range 2 { // the turn goes from lane to lane
		if w.run().Job().ID == j.ID {
			return
		}
	}
	t.Error("the low job waits for those above")
}

func TestAJobHasSoManyOutputsAndNoMore(t *testing.T) {
	w := open(t, nil)
	ctx, who := context.Background(), w.as("s-analyst", "")
	j := w.submit(who, nil)
	r := w.run()
	for i := range redoubt.MaxJobOutputs {
		putOut(t, r, fmt.Sprintf("%s/%05d", strings.Repeat("a-name-of-some-length", 8), i), "x")
	}
	if err := r.Put(ctx, "more", 1, strings.NewReader("x")); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("one more: %v", err)
	}
	finish(t, r, redoubt.JobExit{})
	if got := w.job(who, j.ID); got.State != redoubt.JobDone || len(got.Outputs) != redoubt.MaxJobOutputs {
		t.Errorf("it is %s with %d outputs: %s", got.State, len(got.Outputs), got.Why)
	}
	w.restart(true)
	if got := w.job(w.as("s-analyst", ""), j.ID); got.State != redoubt.JobDone || len(got.Outputs) != redoubt.MaxJobOutputs {
		t.Errorf("after a crash it is %s with %d outputs: %s", got.State, len(got.Outputs), got.Why)
	}
}

func TestAListOfJobsIsBounded(t *testing.T) {
	w := open(t, nil)
	ctx, who := context.Background(), w.as("s-analyst", "")
	spec := w.jobSpec(who, func(q *redoubt.SubmitJob) { q.Args = []string{strings.Repeat("x", redoubt.MaxJobSpecBytes-1000)} })
	for range 80 {
		if _, err := w.SubmitJob(ctx, who, spec); err != nil {
			t.Fatal(err)
		}
	}
	seen, after, lists := 0, redoubt.JobID(""), 0
	for {
		all, err := w.Jobs(ctx, who, redoubt.ListJobs{After: after})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			break
		}
		seen, after, lists = seen+len(all), all[len(all)-1].ID, lists+1
	}
	if seen != 80 || lists < 2 {
		t.Errorf("%d jobs came in %d lists", seen, lists)
	}
	if _, err := w.Jobs(ctx, who, redoubt.ListJobs{State: "nonsense"}); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a state that is none: %v", err)
	}
}

// What is due together may take long to start: the last is started as the first.
func TestWhatTakesLongToStartIsStarted(t *testing.T) {
	var h hands
	var f *faulty
	w := open(t, func(o *Options) { withClock(&h)(o); withFaults(&f)(o) })
	ctx, who := context.Background(), w.as("s-analyst", "")
	spec := w.jobSpec(who, nil)
	for i := range 5 {
		if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: redoubt.ScheduleName(fmt.Sprint("s", i)), Cron: "0 * * * *", Job: spec}); err != nil {
			t.Fatal(err)
		}
	}
	h.add(time.Hour)
	f.when(func(*store.Batch) error { h.add(40 * time.Second); return nil })
	err := w.startDue(ctx)
	f.when(nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := w.Schedules(ctx, w.as("s-analyst", ""))
	for _, s := range all {
		if s.Fault != "" || s.LastJob == "" {
			t.Errorf("%s: %+v", s.Name, s)
		}
	}
	if err != nil || len(all) != 5 {
		t.Errorf("there are %d: %v", len(all), err)
	}
}

func TestOfOneStartSoManyJobsAreKept(t *testing.T) {
	w := open(t, nil)
	ctx, low, high := context.Background(), w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
	w.jobs.most = 5
	other := w.submit(high, nil)
	var ids []redoubt.JobID
	for i := range 8 {
		ids = append(ids, w.submit(low, maxed([]string{"SECRET", ""}[i%2])).ID)
	}
	all, err := w.Jobs(ctx, low, redoubt.ListJobs{})
	if err != nil || len(all) != 5 || all[0].ID != ids[7] || all[4].ID != ids[3] {
		t.Errorf("%d are there: %v", len(all), err)
	}
	for range 6 {
		if r := w.run(); slices.Contains(ids[:3], r.Job().ID) {
			t.Errorf("%s runs, and is gone", r.Job().ID)
		}
	}
	w.restart(true)
	if got := w.job(w.as("s-analyst", "SECRET"), other.ID); got.ID != other.ID {
		t.Error("another label's job is gone")
	}
	if all, err := w.Jobs(ctx, w.as("s-analyst", "UNCLASSIFIED"), redoubt.ListJobs{}); err != nil || len(all) != 5 {
		t.Errorf("after a crash %d are there: %v", len(all), err)
	}
}

// TestWhoReadsALogFromAboveIsNotToldBelow.
func TestWhoReadsALogFromAboveIsNotToldBelow(t *testing.T) {
	w := open(t, nil)
	ctx, low := context.Background(), w.as("u-analyst", "")
	w.put(low, "a", "x", "")
	j := w.worked(low, "a", "b", "y", nil)
	reads := func() (n int) {
		if err := w.SearchAudit(ctx, w.as("officer", "UNCLASSIFIED"), redoubt.AuditQuery{Action: redoubt.ActionGetObject}, func(redoubt.AuditRecord) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := reads()
	if text, _, _, err := w.JobLog(ctx, w.as("ts-analyst", "SECRET"), j.ID, 0, false); err != nil || len(text) == 0 {
		t.Fatalf("it reads %q %v", text, err)
	}
	if after := reads(); after != before {
		t.Errorf("%d reads are on record below, and %d once somebody above had read the log", before, after)
	}
}

// TestNamesOfAProgramAreThoseOfStart: what refers to an image above START is not there, and neither is what need-to-know hides.
func TestNamesOfAProgramAreThoseOfStart(t *testing.T) {
	w := open(t, nil)
	ctx, low, high := context.Background(), w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
	if _, err := w.Grant(ctx, w.as("officer", top), redoubt.Grant{Subject: "s-analyst", Bucket: "reports", Prefix: "tool/hidden", Deny: true}); err != nil {
		t.Fatal(err)
	}
	other := w.as("u-analyst", "")
	for _, key := range []string{"tool/a", "tool/b", "tool/hidden", "tool/removed", "tools"} {
		w.put(other, key, "x", "")
	}
	if err := w.del(other, "tool/removed", ""); err != nil {
		t.Fatal(err)
	}
	w.put(high, "tool/above", "x", "")
	w.submit(low, maxed("SECRET"))
	r := w.run()
	before := w.recorded(redoubt.AuditQuery{Action: redoubt.ActionListObjects, Max: 1000})
	for most, want := range map[int]string{9: "[tool/a tool/b]", 1: "[tool/a]"} {
		if got, err := r.Names(ctx, "reports", "tool/", most); err != nil || fmt.Sprint(got) != want {
			t.Errorf("at most %d: got %v %v, want %s", most, got, err, want)
		}
	}
	if got := r.(*jobRun).risen().Banner(); got != "UNCLASSIFIED" {
		t.Errorf("it rises to %s", got)
	}
	if after := w.recorded(redoubt.AuditQuery{Action: redoubt.ActionListObjects, Max: 1000}); after == before {
		t.Error("nothing is on record")
	}
	if err := w.SearchAudit(ctx, w.as("officer", "UNCLASSIFIED"), redoubt.AuditQuery{Action: redoubt.ActionListObjects}, func(x redoubt.AuditRecord) error {
		t.Errorf("it is on record below MAX: %+v", x)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	finish(t, r, redoubt.JobExit{})
}
