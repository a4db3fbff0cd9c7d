package enclave

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

const top = "TOP SECRET//SI/TK"

// module keeps one, and gives its name.
func (w *world) module(who redoubt.Credential) string {
	w.t.Helper()
	sum := sha256.Sum256([]byte("a module"))
	digest := hex.EncodeToString(sum[:])
	if err := w.PutModule(context.Background(), who, digest, strings.NewReader("a module")); err != nil {
		w.t.Fatal(err)
	}
	return digest
}

// submit submits a job that reads and writes reports.
func (w *world) submit(who redoubt.Credential, change func(*redoubt.SubmitJob)) redoubt.Job {
	w.t.Helper()
	j, err := w.SubmitJob(context.Background(), who, w.jobSpec(who, change))
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

func (w *world) jobSpec(who redoubt.Credential, change func(*redoubt.SubmitJob)) redoubt.SubmitJob {
	q := redoubt.SubmitJob{Module: w.module(who), In: []redoubt.JobInput{{Bucket: "reports"}}, Out: redoubt.JobInput{Bucket: "reports", Prefix: "out/"}}
	if change != nil {
		change(&q)
	}
	return q
}

func maxed(marking string) func(*redoubt.SubmitJob) {
	return func(q *redoubt.SubmitJob) { q.Max = marking }
}

// run begins the next attempt.
func (w *world) run() redoubt.JobRun {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := w.NextJob(ctx, func(string, redoubt.SubmitJob) bool { return true })
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func read(t *testing.T, r redoubt.JobRun, path string) string {
	t.Helper()
	_, c, err := r.Open(context.Background(), path)
	if errors.Is(err, redoubt.NotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c.Reader(0, -1))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func putOut(t *testing.T, r redoubt.JobRun, path, content string) {
	t.Helper()
	if err := r.Put(context.Background(), path, int64(len(content)), strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func finish(t *testing.T, r redoubt.JobRun, x redoubt.JobExit) {
	t.Helper()
	if err := r.Finish(context.Background(), x); err != nil {
		t.Fatal(err)
	}
}

func (w *world) job(who redoubt.Credential, id redoubt.JobID) redoubt.Job {
	w.t.Helper()
	j, err := w.Job(context.Background(), who, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// labelOf is the banner of the current version of a key.
func (w *world) labelOf(who redoubt.Credential, key string) string {
	w.t.Helper()
	v, err := w.HeadObject(context.Background(), who, redoubt.ReadObject{Name: named(key)})
	if err != nil {
		w.t.Fatalf("%s: %v", key, err)
	}
	return v.Label.Banner()
}

func TestAJobsOutputCarriesTheJoinOfWhatItReadAndNothingElse(t *testing.T) {
	for name, c := range map[string]struct {
		read func(redoubt.JobRun) error
		want string
	}{
		"nothing": {func(redoubt.JobRun) error { return nil }, "UNCLASSIFIED"},
		"what is low": {func(r redoubt.JobRun) error {
			_, _, err := r.Open(context.Background(), "reports/low")
			return err
		}, "UNCLASSIFIED"},
		"what is higher": {func(r redoubt.JobRun) error {
			_, _, err := r.Open(context.Background(), "reports/high")
			return err
		}, "SECRET"},
		"that something is there": {func(r redoubt.JobRun) error {
			_, err := r.Stat(context.Background(), "reports/high")
			return err
		}, "SECRET"},
		"a directory by what lies in it": {func(r redoubt.JobRun) error {
			_, err := r.Stat(context.Background(), "reports/d")
			return err
		}, "SECRET"},
		"a list that shows it": {func(r redoubt.JobRun) error {
			_, err := r.List(context.Background(), "reports")
			return err
		}, "SECRET"},
		"a list that does not": {func(r redoubt.JobRun) error {
			_, err := r.List(context.Background(), "reports/l")
			return err
		}, "UNCLASSIFIED"},
		"two that do not compare": {func(r redoubt.JobRun) error {
			_, _, err := r.Open(context.Background(), "reports/gbr")
			_, _, err2 := r.Open(context.Background(), "reports/high")
			return errors.Join(err, err2)
		}, "SECRET"},
		"what may be shared": {func(r redoubt.JobRun) error {
			_, _, err := r.Open(context.Background(), "reports/gbr")
			return err
		}, "SECRET//REL TO USA, GBR"},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			low := w.as("s-analyst", "UNCLASSIFIED")
			w.put(low, "low", "l", "")
			w.put(low, "l/x", "l", "")
			w.put(w.as("s-analyst", "SECRET"), "high", "h", "")
			w.put(w.as("s-analyst", "SECRET"), "d/e/f", "h", "")
			w.put(w.as("s-analyst", "SECRET//REL TO USA, GBR"), "gbr", "g", "")
			w.submit(low, maxed("SECRET"))
			r := w.run()
			if err := c.read(r); err != nil {
				t.Fatal(err)
			}
			putOut(t, r, "result", "derived")
			finish(t, r, redoubt.JobExit{})
			if got := w.labelOf(w.as("s-analyst", "SECRET"), "out/result"); got != c.want {
				t.Errorf("the output is %s, want %s", got, c.want)
			}
		})
	}
}

func TestWhatLiesBeyondMaxIsNotThere(t *testing.T) {
	w := open(t, nil)
	ts, s := w.as("ts-analyst", top), w.as("ts-analyst", "SECRET")
	w.put(ts, "plan", "high", "")
	w.put(ts, "only/high", "high", "")
	w.put(s, "plan", "secret", "")
	w.put(ts, "plan", "higher", "")
	w.submit(s, nil)
	r := w.run()
	if got := read(t, r, "reports/plan"); got != "secret" {
		t.Errorf("the job read %q, want what SECRET sees", got)
	}
	_, gone := r.Stat(context.Background(), "reports/none/high")
	_, above := r.Stat(context.Background(), "reports/only/high")
	if gone == nil || above == nil || strings.ReplaceAll(above.Error(), "only", "none") != gone.Error() {
		t.Errorf("beyond MAX: %v, and of a name never used: %v", above, gone)
	}
	files, err := r.List(context.Background(), "reports")
	if err != nil || len(files) != 1 || files[0].Name != "plan" {
		t.Errorf("the job is shown %v %v, want plan alone", files, err)
	}
	if _, err := r.List(context.Background(), "reports/only"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("a directory of what is beyond MAX: %v", err)
	}
	finish(t, r, redoubt.JobExit{})
}

func TestInputsAreAsTheyWereAtSubmission(t *testing.T) {
	w := open(t, nil)
	who := w.as("s-analyst", "")
	w.put(who, "a", "before", "")
	w.put(who, "gone", "before", "")
	w.put(who, "old", "1", "")
	w.put(who, "old", "2", "")
	j := w.submit(who, nil)
	w.put(who, "a", "after", "")
	w.put(who, "new", "after", "")
	for i := range 3 {
		w.put(who, "old", fmt.Sprint("later ", i), "")
	}
	if err := w.del(who, "gone", ""); err != nil {
		t.Fatal(err)
	}
	check := func(r redoubt.JobRun) {
		t.Helper()
		for path, want := range map[string]string{"reports/a": "before", "reports/gone": "before", "reports/new": "", "reports/old": "2"} {
			if got := read(t, r, path); got != want {
				t.Errorf("%s: the job read %q, want %q", path, got, want)
			}
		}
		files, err := r.List(context.Background(), "reports")
		if err != nil || fmt.Sprint(names(files)) != "[a gone old]" {
			t.Errorf("the job is shown %v %v", names(files), err)
		}
	}
	check(w.run())
	w.restart(true) // and so after a crash
	r := w.run()
	check(r)
	if r.Job().ID != j.ID {
		t.Errorf("another job came back")
	}
	finish(t, r, redoubt.JobExit{})
}

func names(files []redoubt.JobFile) (all []string) {
	for _, f := range files {
		all = append(all, f.Name)
	}
	return all
}

func TestWhoDoesNotDominateMaxSeesThatItWasSubmitted(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	low, high := w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
	w.put(high, "high", "h", "")
	j := w.submit(low, maxed("SECRET"))
	before := w.job(low, j.ID)
	r := w.run()
	r.Log(1, []byte("said"))
	read(t, r, "reports/high")
	during := w.job(low, j.ID)
	if got := w.job(high, j.ID); got.State != redoubt.JobRunning || got.Label != "SECRET" || got.LogBytes != 4 {
		t.Errorf("from above it is %+v", got)
	}
	finish(t, r, redoubt.JobExit{Code: 3, Why: "it said so"})
	after := w.job(low, j.ID)
	for what, got := range map[string]redoubt.Job{"while it ran": during, "when it had ended": after} {
		if fmt.Sprint(got) != fmt.Sprint(before) || got.State != redoubt.JobSubmitted {
			t.Errorf("%s START sees %+v, want %+v", what, got, before)
		}
	}
	if got := w.job(high, j.ID); got.State != redoubt.JobFailed || got.ExitCode != 3 {
		t.Errorf("from above it ended as %+v", got)
	}
	if _, _, _, err := w.JobLog(ctx, low, j.ID, 0, false); !errors.Is(err, redoubt.Denied) {
		t.Errorf("the log from START: %v", err)
	}
	if _, err := w.WaitJob(ctx, low, j.ID, redoubt.JobSubmitted); !errors.Is(err, redoubt.Denied) {
		t.Errorf("waiting at START: %v", err)
	}
	if text, _, _, err := w.JobLog(ctx, high, j.ID, 0, false); err != nil || string(text) != "said" {
		t.Errorf("the log from above: %q %v", text, err)
	}
	// And below START it is not there at all.
	top := w.submit(high, nil)
	_, above := w.Job(ctx, w.as("u-analyst", ""), top.ID)
	_, never := w.Job(ctx, w.as("u-analyst", ""), "00000000000000000000000000000000")
	if above == nil || never == nil || strings.ReplaceAll(above.Error(), string(top.ID), "00000000000000000000000000000000") != never.Error() {
		t.Errorf("a job above: %v, one that never was: %v", above, never)
	}
	if all, err := w.Jobs(ctx, w.as("u-analyst", ""), redoubt.ListJobs{}); err != nil || len(all) != 1 || all[0].ID != j.ID {
		t.Errorf("the list below shows %v %v", all, err)
	}
}

func TestOutputsAppearWholeOrNotAtAll(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	who := w.as("s-analyst", "")
	j := w.submit(who, nil)
	r := w.run()
	for i := range 20 {
		putOut(t, r, fmt.Sprintf("part-%02d", i), strings.Repeat("x", i*20_000))
	}
	if got := w.list(who); len(got) != 0 {
		t.Errorf("before its end the job shows %v", got)
	}
	finish(t, r, redoubt.JobExit{})
	if got := w.list(who); len(got) != 20 {
		t.Errorf("%d outputs are there, want 20", len(got))
	}
	if got := w.job(who, j.ID); got.State != redoubt.JobDone || len(got.Outputs) != 20 || got.Outputs[3].Bytes != 60_000 {
		t.Errorf("it ended as %+v", got)
	}
	w.usage("SECRET")

	// A commit that fails leaves nothing, and the job is no success.
	j = w.submit(who, func(q *redoubt.SubmitJob) { q.Out.Prefix = "second/" })
	blobs := w.blobs()
	r = w.run()
	putOut(t, r, "a", "1")
	putOut(t, r, "b", "2")
	failed := false
	f.when(func(b *store.Batch) error {
		if len(b.Links) == 2 && !failed {
			failed = true
			return &redoubt.Error{Kind: redoubt.DiskFull}
		}
		return nil
	})
	finish(t, r, redoubt.JobExit{})
	f.when(nil)
	if got := w.job(who, j.ID); !failed || got.State != redoubt.JobFailed || !strings.Contains(got.Why, "disk") {
		t.Errorf("after a full disk it is %+v", got)
	}
	if got := w.list(who); len(got) != 20 {
		t.Errorf("%v are there", got)
	}
	if got := w.blobs(); got != blobs {
		t.Errorf("%d blobs are kept, want %d", got, blobs)
	}
	// A crash before the end: nothing, and the job comes again.
	j = w.submit(who, func(q *redoubt.SubmitJob) { q.Out.Prefix = "third/" })
	r = w.run()
	putOut(t, r, "a", "1")
	w.restart(true)
	who = w.as("s-analyst", "")
	if got := w.list(who); len(got) != 20 {
		t.Errorf("after a crash %v are there", got)
	}
	r = w.run()
	putOut(t, r, "a", "1")
	finish(t, r, redoubt.JobExit{})
	if got := w.job(who, j.ID); got.State != redoubt.JobDone || got.Attempt != 1 {
		t.Errorf("it ended as %+v", got)
	}
}

func TestAJobThatTheNodeDiesOfIsReported(t *testing.T) {
	w := open(t, nil)
	j := w.submit(w.as("s-analyst", ""), nil)
	for range maxLostAttempts {
		w.run()
		w.restart(true)
	}
	got := w.job(w.as("s-analyst", ""), j.ID)
	if got.State != redoubt.JobFailed || !strings.Contains(got.Why, "3 times") {
		t.Errorf("it is %+v", got)
	}
}

func TestRetriesAreCounted(t *testing.T) {
	w := open(t, nil)
	who := w.as("s-analyst", "")
	j := w.submit(who, func(q *redoubt.SubmitJob) { q.Retries = 2 })
	for i := range 3 {
		if got := w.job(who, j.ID); got.State != redoubt.JobSubmitted {
			t.Fatalf("before attempt %d it is %+v", i+1, got)
		}
		r := w.run()
		putOut(t, r, "x", "of a failed attempt")
		finish(t, r, redoubt.JobExit{Code: 1, Why: "exit code 1"})
	}
	if got := w.job(who, j.ID); got.State != redoubt.JobFailed || got.Attempt != 3 {
		t.Errorf("it ended as %+v", got)
	}
	if got := w.list(who); len(got) != 0 {
		t.Errorf("failed attempts left %v", got)
	}
}

func TestAJobEndsWithItsSubjectsRight(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		change func(*world, redoubt.Credential)
	}{
		"a person who was revoked": {func(w *world, _ redoubt.Credential) {
			if err := w.RevokePerson(ctx, w.as("officer", ""), "s-analyst", "gone"); err != nil {
				t.Fatal(err)
			}
		}},
		"the credential that it was submitted with": {func(w *world, c redoubt.Credential) {
			if err := w.RevokeCredential(ctx, w.as("officer", ""), c.ID); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			who := w.as("s-analyst", "")
			w.put(who, "a", "x", "")
			running := w.submit(who, nil)
			waiting := w.submit(who, nil)
			r := w.run()
			c.change(w, who)
			if _, _, err := r.Open(ctx, "reports/a"); err == nil {
				t.Error("it reads on")
			}
			if err := r.Put(ctx, "x", 1, strings.NewReader("x")); err == nil {
				t.Error("it writes on")
			}
			finish(t, r, redoubt.JobExit{Code: -1, Why: "refused"})
			short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			if r, err := w.NextJob(short, func(string, redoubt.SubmitJob) bool { return true }); err == nil {
				t.Errorf("%s began", r.Job().ID)
			}
			for _, id := range []redoubt.JobID{running.ID, waiting.ID} {
				if got := w.job(w.as("ts-analyst", top), id); got.State != redoubt.JobFailed {
					t.Errorf("%s is %+v", id, got)
				}
			}
		})
	}
}

func TestCancelingAJob(t *testing.T) {
	ctx := context.Background()
	w := open(t, nil)
	low, high := w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
	j := w.submit(low, maxed("SECRET"))
	if err := w.CancelJob(ctx, w.as("u-analyst", ""), j.ID); !errors.Is(err, redoubt.Denied) {
		t.Errorf("another's job: %v", err)
	}
	if err := w.CancelJob(ctx, w.as("s-analyst", "SECRET//REL TO USA, GBR"), j.ID); err == nil {
		t.Error("at a label between START and MAX it was canceled: that would tell MAX's readers below")
	}
	r := w.run()
	if err := w.CancelJob(ctx, low, j.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Canceled():
	default:
		t.Error("who runs it is not told")
	}
	putOut(t, r, "late", "x")
	finish(t, r, redoubt.JobExit{})
	if got := w.job(high, j.ID); got.State != redoubt.JobCanceled || got.Ended.IsZero() {
		t.Errorf("it is %+v", got)
	}
	if got := w.list(high); len(got) != 0 {
		t.Errorf("it left %v", got)
	}
	if got := w.job(low, j.ID); got.State != redoubt.JobSubmitted {
		t.Errorf("START sees %+v", got)
	}
	// One that waits, canceled from above; then once more, which is no error and tells nothing.
	j = w.submit(low, maxed("SECRET"))
	if err := w.CancelJob(ctx, high, j.ID); err != nil {
		t.Fatal(err)
	}
	for _, who := range []redoubt.Credential{low, high} {
		if err := w.CancelJob(ctx, who, j.ID); err != nil {
			t.Errorf("once more: %v", err)
		}
	}
	w.restart(true)
	if got := w.job(w.as("s-analyst", "SECRET"), j.ID); got.State != redoubt.JobCanceled {
		t.Errorf("after a restart it is %+v", got)
	}
}

func TestWhatIsWrongWithAJobIsSaid(t *testing.T) {
	w := open(t, nil)
	who := w.as("s-analyst", "SECRET//REL TO USA, GBR")
	for name, c := range map[string]struct {
		change func(*redoubt.SubmitJob)
		want   redoubt.Kind
	}{
		"no program":             {func(q *redoubt.SubmitJob) { q.Module = "" }, redoubt.Invalid},
		"two programs":           {func(q *redoubt.SubmitJob) { q.Image = "a/b:c" }, redoubt.Invalid},
		"a module that is not":   {func(q *redoubt.SubmitJob) { q.Module = strings.Repeat("0", 64) }, redoubt.Invalid},
		"MAX below START":        {maxed("UNCLASSIFIED"), redoubt.Denied},
		"MAX beyond clearance":   {maxed(top), redoubt.Denied},
		"MAX of no policy":       {maxed("VERY SECRET"), redoubt.Invalid},
		"no such input":          {func(q *redoubt.SubmitJob) { q.In[0].Bucket = "none" }, redoubt.NoBucket},
		"the node's own bucket":  {func(q *redoubt.SubmitJob) { q.In[0].Bucket = JobBucket }, redoubt.NoBucket},
		"records of the system":  {func(q *redoubt.SubmitJob) { q.In[0].Bucket = redoubt.SystemBucket }, redoubt.NoBucket},
		"no such output":         {func(q *redoubt.SubmitJob) { q.Out.Bucket = "none" }, redoubt.NoBucket},
		"output to a guard's":    {func(q *redoubt.SubmitJob) { q.Out.Bucket = JobBucket }, redoubt.Denied},
		"a variable without =":   {func(q *redoubt.SubmitJob) { q.Env = []string{"x"} }, redoubt.Invalid},
		"an argument with a NUL": {func(q *redoubt.SubmitJob) { q.Args = []string{"a\x00b"} }, redoubt.Invalid},
		"too long":               {func(q *redoubt.SubmitJob) { q.Seconds = int64(redoubt.MaxJobTime/time.Second) + 1 }, redoubt.Invalid},
		"too often":              {func(q *redoubt.SubmitJob) { q.Retries = redoubt.MaxJobRetries + 1 }, redoubt.Invalid},
		"too much":               {func(q *redoubt.SubmitJob) { q.Args = []string{strings.Repeat("x", redoubt.MaxJobSpecBytes)} }, redoubt.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.SubmitJob(context.Background(), who, w.jobSpec(who, c.change))
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if all, err := w.Jobs(context.Background(), who, redoubt.ListJobs{}); err != nil || len(all) != 0 {
		t.Errorf("refused jobs are there: %v %v", all, err)
	}
}

func TestAModuleIsWhatItsNameSays(t *testing.T) {
	w := open(t, nil)
	ctx, who := context.Background(), w.as("s-analyst", "")
	if err := w.PutModule(ctx, who, strings.Repeat("0", 64), strings.NewReader("x")); !errors.Is(err, redoubt.BadDigest) {
		t.Errorf("another module's name: %v", err)
	}
	if err := w.PutModule(ctx, who, "../x", strings.NewReader("x")); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("no digest: %v", err)
	}
	digest := w.module(who)
	if has, err := w.HasModule(ctx, who, digest); err != nil || !has {
		t.Errorf("a module that was put is not there: %v", err)
	}
	if has, err := w.HasModule(ctx, w.as("u-analyst", ""), digest); err != nil || has {
		t.Errorf("below it is there: %v %v", has, err)
	}
	if _, err := w.GetObject(ctx, who, redoubt.ReadObject{Name: moduleName(digest)}); err == nil {
		t.Error("its bucket opens to people")
	}
	if all, err := w.ListBuckets(ctx, who); err != nil || len(all) != 2 {
		t.Errorf("the buckets are %v %v", all, err)
	}
}

func TestALaneThatIsFullKeepsNoOtherWaiting(t *testing.T) {
	w := open(t, nil)
	high, low := w.as("ts-analyst", top), w.as("u-analyst", "")
	for range 50 {
		w.submit(high, nil)
	}
	full := w.run()
	if full.Job().Start != top {
		t.Fatal("the first job is not the first")
	}
	want := w.submit(low, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := w.NextJob(ctx, func(lane string, _ redoubt.SubmitJob) bool { return lane != full.Lane() })
	if err != nil || r.Job().ID != want.ID {
		t.Errorf("got %v, want the low job", err)
	}
}

func TestSchedulesStartJobsInTime(t *testing.T) {
	var h hands
	w := open(t, withClock(&h))
	ctx, who := context.Background(), w.as("s-analyst", "")
	spec := w.jobSpec(who, nil)
	for name, s := range map[string]redoubt.Schedule{
		"no name": {Cron: "* * * * *", Job: spec}, "neither": {Name: "x", Job: spec}, "both": {Name: "x", Cron: "* * * * *", On: &redoubt.JobInput{Bucket: "reports"}, Job: spec},
		"seconds": {Name: "x", Cron: "* * * * * *", Job: spec}, "nonsense": {Name: "x", Cron: "a b c d e", Job: spec}, "never": {Name: "x", Cron: "0 0 31 2 *", Job: spec},
		"itself": {Name: "x", On: &redoubt.JobInput{Bucket: "reports"}, Job: spec},
	} {
		if _, err := w.PutSchedule(ctx, who, s); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "nightly", Cron: "30 2 * * *", Job: spec}); err != nil {
		t.Fatal(err)
	}
	jobs := func() int {
		if err := w.startDue(ctx); err != nil {
			t.Fatal(err)
		}
		all, err := w.Jobs(ctx, w.as("ts-analyst", top), redoubt.ListJobs{})
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := jobs(); n != 0 {
		t.Errorf("%d jobs began at once", n)
	}
	h.add(24 * time.Hour)
	if n := jobs(); n != 1 {
		t.Errorf("after a day there are %d jobs, want 1", n)
	}
	if n := jobs(); n != 1 {
		t.Errorf("then %d, want 1 still", n)
	}
	w.restart(true)
	h.add(72 * time.Hour) // what passed meanwhile starts one
	if n := jobs(); n != 2 {
		t.Errorf("after three days cut off there are %d jobs, want 2", n)
	}
	r := w.run()
	if got := r.Job().Spec.From; r.Job().By != "s-analyst" || w.job(w.as("ts-analyst", top), r.Job().ID).Spec.From != "schedule nightly" {
		t.Errorf("it is of %s, from %q", r.Job().By, got)
	}
	who = w.as("s-analyst", "")
	if all, err := w.Schedules(ctx, who); err != nil || len(all) != 1 || all[0].LastJob == "" || all[0].Next.IsZero() {
		t.Errorf("the schedules are %+v %v", all, err)
	}
	if all, err := w.Schedules(ctx, w.as("u-analyst", "")); err != nil || len(all) != 0 {
		t.Errorf("below they are %+v %v", all, err)
	}
	if err := w.RemoveSchedule(ctx, who, "nightly"); err != nil {
		t.Fatal(err)
	}
	h.add(48 * time.Hour)
	if n := jobs(); n != 2 {
		t.Errorf("a schedule that was removed started one: %d jobs", n)
	}
}

func TestATriggerStartsOneJobForEachNewVersionThatItDominates(t *testing.T) {
	w := open(t, nil)
	ctx, who := context.Background(), w.as("s-analyst", "")
	spec := w.jobSpec(who, func(q *redoubt.SubmitJob) { q.Out.Prefix = "out/" })
	w.put(who, "in/before", "x", "")
	if _, err := w.PutSchedule(ctx, who, redoubt.Schedule{Name: "ingest", On: &redoubt.JobInput{Bucket: "reports", Prefix: "in/"}, Job: spec}); err != nil {
		t.Fatal(err)
	}
	started := func() map[string]int {
		if err := w.startDue(ctx); err != nil {
			t.Fatal(err)
		}
		all, err := w.Jobs(ctx, w.as("ts-analyst", top), redoubt.ListJobs{})
		if err != nil {
			t.Fatal(err)
		}
		keys := map[string]int{}
		for _, j := range all {
			for _, v := range j.Spec.Env {
				if key, ok := strings.CutPrefix(v, "REDOUBT_KEY="); ok {
					keys[key]++
				}
			}
		}
		return keys
	}
	w.put(who, "in/a", "1", "")
	w.put(who, "in/a", "2", "")
	w.put(who, "elsewhere", "1", "")
	w.put(w.as("u-analyst", ""), "in/low", "1", "")
	w.put(w.as("ts-analyst", top), "in/high", "1", "")
	if err := w.del(who, "in/a", ""); err != nil {
		t.Fatal(err)
	}
	w.restart(true) // before any was started: none is lost
	if got := fmt.Sprint(started()); got != "map[in/a:2 in/low:1]" {
		t.Errorf("jobs were started for %s", got)
	}
	w.restart(true)
	if got := fmt.Sprint(started()); got != "map[in/a:2 in/low:1]" {
		t.Errorf("after a restart for %s", got)
	}
}

func TestAnOutputNamesWhoseItsMarkedInputsAre(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		read []string
		want string
	}{
		"nothing": {nil, ""}, "one": {[]string{"hers"}, "s-analyst"}, "its own alone": {[]string{"own"}, ""}, "two": {[]string{"hers", "own"}, redoubt.SeveralOriginators}, "not marked": {[]string{"free"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			job := w.as("ts-analyst", "SECRET//NOFORN")
			w.put(w.as("s-analyst", "SECRET//NOFORN"), "hers", "x", "SECRET//ORCON/NOFORN")
			w.put(job, "own", "x", "SECRET//ORCON/NOFORN")
			w.put(w.as("s-analyst", "SECRET//NOFORN"), "free", "x", "")
			w.submit(job, nil)
			r := w.run()
			for _, key := range c.read {
				read(t, r, "reports/"+key)
			}
			putOut(t, r, "x", "derived")
			finish(t, r, redoubt.JobExit{})
			v, err := w.HeadObject(ctx, job, redoubt.ReadObject{Name: named("out/x")})
			if err != nil {
				t.Fatal(err)
			}
			if got := v.Attributes.Meta[redoubt.MetaOriginator]; got != c.want {
				t.Errorf("its originator is %q, want %q; it is %s", got, c.want, v.Label.Banner())
			}
			if marked := len(redoubt.ConsentMarks(v.Label)) > 0; marked != (c.want != "" || name == "its own alone") {
				t.Errorf("it is %s", v.Label.Banner())
			}
		})
	}
}
