package redoubttest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"redoubt"
)

// Jobs, schedules, triggers and services of a history. Programs are run by the test itself, in a step of the node: what one does is a function of its
// argument, and of what it is told.

var jobOps = []weighted{{"submit", 18}, {"jobs", 8}, {"job", 8}, {"job-log", 4}, {"cancel-job", 3}, {"put-schedule", 9}, {"schedules", 2}, {"remove-schedule", 2},
	{"deploy", 3}, {"services", 2}, {"call", 5}, {"remove-service", 1}}

// landmark is an object that is there from the start at a label that jobs may rise to. A job that may rise reads that of its MAX before it does anything
// else, and else writes nothing: that an output stays at START tells one bit (docs/spec/compute.md), and is no fault.
func landmark(max string) string { return "landmark/" + strings.ReplaceAll(max, "/", "-") }

// landmarks are who puts them.
var landmarks = map[int]string{0: "TOP SECRET//SI/TK", 1: "TOP SECRET", 4: "SECRET"}

const jobModule = "the module of a history"

func jobDigest() string {
	sum := sha256.Sum256([]byte(jobModule))
	return hex.EncodeToString(sum[:])
}

func (w *world) putLandmarks() {
	for _, role := range []int{0, 1, 4} {
		a := w.actors[role]
		if _, err := w.s.PutObject(w.t.Context(), a.cred, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "marks", Key: landmark(landmarks[role])}, SizeBytes: 1, Body: strings.NewReader("x")}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// jobsCall plays a step about jobs; ok is false for another.
func (w *world) jobsCall(r *rand.Rand, a *actor, s step) (v any, err error, ok bool) {
	ctx := w.t.Context()
	name := fmt.Sprintf("n-%d", r.IntN(3))
	has := map[string]int{"cancel-job": len(a.jobs), "job-log": len(a.jobs), "remove-schedule": len(a.schedules), "remove-service": len(a.services)}
	if first := map[string]string{"cancel-job": "submit", "job-log": "submit", "remove-schedule": "put-schedule", "remove-service": "deploy"}[s.op]; first != "" && has[s.op] == 0 {
		made := s
		made.op = first
		if v, err, ok = w.jobsCall(r, a, made); err != nil {
			return v, err, ok
		}
	}
	switch s.op {
	case "submit":
		var j redoubt.Job
		if j, err = w.s.SubmitJob(ctx, a.cred, w.jobSpec(r, a, s)); err == nil {
			a.jobs = append(a.jobs, j.ID)
		}
		v = j
	case "jobs":
		var all []redoubt.Job
		all, err = w.s.Jobs(ctx, a.cred, redoubt.ListJobs{Max: pick(r, []int{1, 3, 1000}), State: pick(r, []redoubt.JobState{"", "", redoubt.JobSubmitted, redoubt.JobDone})})
		for _, j := range all {
			a.jobs = append(a.jobs, j.ID)
		}
		v = all
	case "job":
		v, err = w.s.Job(ctx, a.cred, a.aJob(r))
	case "job-log":
		var text []byte
		text, _, _, err = w.s.JobLog(ctx, a.cred, a.aJob(r), 0, false)
		v = string(text)
	case "cancel-job":
		err = w.s.CancelJob(ctx, a.cred, a.aJob(r))
	case "put-schedule":
		x := redoubt.Schedule{Name: redoubt.ScheduleName(name), Job: w.jobSpec(r, a, s)}
		if r.IntN(2) == 0 {
			x.Cron = pick(r, []string{"* * * * *", "0 * * * *", "30 3 * * *"})
		} else {
			x.On = &redoubt.JobInput{Bucket: redoubt.BucketName(pick(r, []string{"reports", "closed", "temp"})), Prefix: pick(r, []string{"", "a/", "plan"})}
			x.Job.Out.Bucket, x.Job.Out.Prefix = "made", "by-trigger/"
		}
		if v, err = w.s.PutSchedule(ctx, a.cred, x); err == nil && !slices.Contains(a.schedules, name) {
			a.schedules = append(a.schedules, name)
		}
	case "schedules":
		v, err = w.s.Schedules(ctx, a.cred)
	case "remove-schedule":
		if len(a.schedules) > 0 {
			name = pick(r, a.schedules)
		}
		err = w.s.RemoveSchedule(ctx, a.cred, redoubt.ScheduleName(name))
	case "deploy":
		q := w.jobSpec(r, a, s)
		if v, err = w.s.DeployService(ctx, a.cred, redoubt.ServiceName(name), redoubt.ServiceSpec{Module: q.Module, Args: q.Args, In: q.In}); err == nil && !slices.Contains(a.services, name) {
			a.services = append(a.services, name)
		}
	case "services":
		v, err = w.s.Services(ctx, a.cred)
	case "call":
		v, err = w.callService(a, redoubt.ServiceName(name))
	case "remove-service":
		if len(a.services) > 0 {
			name = pick(r, a.services)
		}
		err = w.s.RemoveService(ctx, a.cred, redoubt.ServiceName(name))
	default:
		return nil, nil, false
	}
	return v, err, true
}

// aJob is one that the actor has been told of, or one that never was.
func (a *actor) aJob(r *rand.Rand) redoubt.JobID {
	never := redoubt.JobID(fmt.Sprintf("%032x", r.Uint64()))
	if len(a.jobs) == 0 || r.IntN(8) == 0 {
		return never
	}
	return pick(r, a.jobs[max(0, len(a.jobs)-8):])
}

// jobSpec draws a job. Its one argument is what it does.
func (w *world) jobSpec(r *rand.Rand, a *actor, s step) redoubt.SubmitJob {
	ctx := w.t.Context()
	if has, err := w.s.HasModule(ctx, a.cred, jobDigest()); err == nil && !has {
		_ = w.s.PutModule(ctx, a.cred, jobDigest(), strings.NewReader(jobModule)) // where it cannot be, the job is refused
	}
	bucket := pick(r, []string{"reports", "reports", "closed", "lasting", "temp"})
	q := redoubt.SubmitJob{Module: jobDigest(), Args: []string{strconv.FormatUint(r.Uint64(), 10), fmt.Sprint(s.n)}, Retries: r.IntN(2),
		In:  []redoubt.JobInput{{Bucket: redoubt.BucketName(bucket), Prefix: pick(r, []string{"", "", "a/"})}, {Bucket: "marks"}},
		Out: redoubt.JobInput{Bucket: redoubt.BucketName(pick(r, []string{"made", "made", "reports", "secrets", "temp"})), Prefix: pick(r, []string{"a/", "out/"})}}
	rises := []string{"SECRET", "TOP SECRET", "TOP SECRET//SI/TK"} // a few are beyond who asks
	switch {
	case r.IntN(2) == 0:
	case r.IntN(6) == 0 || a.who == "ts-analyst":
		q.Max = pick(r, rises)
	case a.who == "s-analyst":
		q.Max = "SECRET"
	}
	return q
}

// callService is a call, answered by an instance that reads.
func (w *world) callService(a *actor, name redoubt.ServiceName) (string, error) {
	call, err := w.s.CallService(w.t.Context(), a.cred, name)
	if err != nil {
		return "", err
	}
	run := call.Begin()
	defer func() { w.check(run.Finish(w.t.Context(), redoubt.JobExit{})) }()
	seed, _ := strconv.ParseUint(call.Service.Spec.Args[0], 10, 64)
	return fmt.Sprintf("revision %d at %s: %s", call.Service.Revision, call.At.Banner(), strings.Join(w.looks(rand.New(rand.NewPCG(seed, 4)), run), "; ")), nil
}

// looks has a program look at some of its inputs, and gives what it was told.
func (w *world) looks(r *rand.Rand, run redoubt.JobRun) (told []string) {
	ctx := w.t.Context()
	in := string(run.Job().Spec.In[0].Bucket)
	for range 1 + r.IntN(4) {
		path := in + "/" + pick(r, append([]string{"a", "b", "nothing"}, keyChoice...))
		switch r.IntN(3) {
		case 0:
			f, err := run.Stat(ctx, path)
			told = append(told, fmt.Sprintf("stat %s: %+v %s", path, f, errorText(err)))
		case 1:
			all, err := run.List(ctx, pick(r, []string{in, in + "/a"}))
			told = append(told, fmt.Sprintf("list: %+v %s", all, errorText(err)))
		default:
			_, c, err := run.Open(ctx, path)
			text := errorText(err)
			if err == nil {
				b, err := io.ReadAll(c.Reader(0, -1))
				w.check(errors.Join(err, c.Close()))
				text = string(b)
			}
			told = append(told, fmt.Sprintf("open %s: %.60s", path, text))
		}
	}
	return told
}

// jobWork is a step of the node: what is due is started, what ran is brought to its end, and what waits is run, each as if a worker of its lane had been
// free. In which order lanes take turns is a matter of time, and time is not compared.
func (w *world) jobWork() {
	time.Sleep(2 * time.Second) // of fake time: schedules are looked at each second
	synctest.Wait()
	ctx := w.t.Context()
	held := w.held
	w.held = nil
	for _, run := range held {
		w.perform(run)
	}
	all, err := w.s.Jobs(ctx, w.actors[0].cred, redoubt.ListJobs{State: redoubt.JobSubmitted})
	w.check(err)
	for _, j := range slices.Backward(all) {
		spec := render2(j.Spec)
		run, err := w.s.NextJob(polled{ctx}, func(_ string, q redoubt.SubmitJob) bool { q.From = j.Spec.From; return render2(q) == spec })
		w.check(err)
		if run == nil {
			continue
		}
		if seed, _ := strconv.ParseUint(run.Job().Spec.Args[0], 10, 64); seed%3 == 0 {
			w.held = append(w.held, run)
			continue
		}
		w.perform(run)
	}
}

// perform is what a program does.
func (w *world) perform(run redoubt.JobRun) {
	ctx, j := w.t.Context(), run.Job()
	seed, _ := strconv.ParseUint(j.Spec.Args[0], 10, 64)
	r := rand.New(rand.NewPCG(seed, 5))
	rises := true
	if j.Max != j.Start {
		_, c, err := run.Open(ctx, "marks/"+landmark(j.Max))
		if rises = err == nil; rises {
			w.check(c.Close())
		}
	}
	told := strings.Join(w.looks(r, run), "\n")
	run.Log(1, []byte(told))
	exit := redoubt.JobExit{}
	if r.IntN(5) == 0 {
		exit.Code = 1
	}
	for i := range r.IntN(3) {
		if !rises || exit.Code != 0 {
			break
		}
		if err := run.Put(ctx, "o"+strconv.Itoa(i), int64(len(told)), strings.NewReader(told)); err != nil { // as a driver says it
			exit = redoubt.JobExit{Code: -1, Why: errorText(err)}
		}
	}
	w.check(run.Finish(ctx, exit))
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// polled is a context for what waits: it is at its end at once, and anything else goes on.
type polled struct{ context.Context }

func (polled) Done() <-chan struct{} { return atOnce }

var atOnce = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// jobID is what stands for a job: random, drawn from one source for all labels.
var jobID = regexp.MustCompile(`\b[0-9a-f]{32}\b`)

func maskJobs(text string) string { return jobID.ReplaceAllString(text, "JOB") }
