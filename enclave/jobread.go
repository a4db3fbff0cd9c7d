package enclave

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"

	"redoubt"
	"redoubt/label"
)

// jobFor is a job as a working label sees it. Who does not dominate MAX sees what was submitted.
func (e *Enclave) jobFor(j *job, at label.Label) redoubt.Job {
	out := redoubt.Job{ID: j.ID, By: j.By, Made: j.Made, Start: j.start.label.Banner(), Max: j.max.label.Banner(), State: redoubt.JobSubmitted}
	j.mu.Lock()
	defer j.mu.Unlock()
	out.Spec = j.Spec
	if j.Spec.Module == "" && j.Spec.Image == "" { // it was let go of: that it is read from its record says nothing of MAX but to a clock
		if err := e.specOf(j); err == nil {
			out.Spec = j.Spec
			j.letGo()
		}
	}
	out.Spec.From = j.From
	if !e.sees(lookState, at, j.max.label) {
		return out
	}
	s := j.state
	out.State, out.Attempt, out.Began, out.Ended, out.ExitCode, out.Why, out.Outputs, out.LogBytes = s.State, s.Attempt, s.Began, s.Ended, s.Exit, s.Why, s.Outputs, s.LogBytes
	if l, err := label.ParseText([]byte(s.Label), e.policy); err == nil {
		out.Label = l.Banner()
	}
	if j.run != nil {
		out.Label, out.LogBytes = j.run.now()
	}
	return out
}

// jobOf finds a job for who may know of it, and decides an action about it.
func (e *Enclave) jobOf(ctx context.Context, op string, who redoubt.Credential, action redoubt.Action, id redoubt.JobID) (*job, *entry, error) {
	e.jobs.mu.Lock()
	j := e.jobs.byID[id]
	e.jobs.mu.Unlock()
	a := ask{op: op, who: who, action: action}
	missing := &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.NotFound, Hint: "redoubt job ls lists the jobs that you may know of"}
	if j == nil {
		ent, err := e.decide(ctx, a)
		if err == nil {
			err = e.noted(ctx, ent, missing)
		}
		return nil, nil, err
	}
	a.object, a.detail = j.start.label, "job "+string(j.ID)
	d, ent := e.judge(ctx, a)
	if !d.Allow && d.Kind == redoubt.NotFound {
		return nil, nil, e.noted(ctx, ent, missing)
	}
	return j, ent, e.known(ctx, d, a, ent)
}

// Job shows one.
func (e *Enclave) Job(ctx context.Context, who redoubt.Credential, id redoubt.JobID) (redoubt.Job, error) {
	j, ent, err := e.jobOf(ctx, "Job", who, redoubt.ActionReadJob, id)
	if err != nil {
		return redoubt.Job{}, err
	}
	return e.jobFor(j, who.Working), e.noteRead(ctx, ent)
}

// maxJobsBytes is how much of arguments and variables a list holds before it ends.
const maxJobsBytes = 4 << 20

// Jobs lists those whose START the caller dominates, newest first.
func (e *Enclave) Jobs(ctx context.Context, who redoubt.Credential, q redoubt.ListJobs) ([]redoubt.Job, error) {
	ent, err := e.decide(ctx, ask{op: "Jobs", who: who, action: redoubt.ActionReadJob, detail: "jobs"})
	if err != nil {
		return nil, err
	}
	switch q.State {
	case "", redoubt.JobSubmitted, redoubt.JobRunning, redoubt.JobDone, redoubt.JobFailed, redoubt.JobCanceled:
	default:
		return nil, e.noted(ctx, ent, &redoubt.Error{Op: "Jobs", Kind: redoubt.Invalid, Hint: "a state is submitted, running, done, failed or canceled"})
	}
	most := cmp.Or(min(q.Max, redoubt.MaxJobsListed), redoubt.MaxJobsListed)
	var lanes [][]*job
	e.jobs.mu.Lock()
	before := math.MaxInt
	if j := e.jobs.byID[q.After]; j != nil && who.Working.Dominates(j.start.label) {
		before = j.seq
	} else if q.After != "" {
		before = 0
	}
	for set, all := range e.jobs.bySet {
		if e.sees(lookJobs, who.Working, set.label) {
			n, _ := slices.BinarySearchFunc(all, before, func(j *job, seq int) int { return cmp.Compare(j.seq, seq) })
			lanes = append(lanes, all[:n:n])
		}
	}
	e.jobs.mu.Unlock()
	out, size := []redoubt.Job{}, 0
	for len(out) < most && size < maxJobsBytes {
		newest := -1
		for i, l := range lanes {
			if len(l) > 0 && (newest < 0 || l[len(l)-1].seq > lanes[newest][len(lanes[newest])-1].seq) {
				newest = i
			}
		}
		if newest < 0 {
			break
		}
		l := lanes[newest]
		lanes[newest] = l[:len(l)-1]
		if v := e.jobFor(l[len(l)-1], who.Working); q.State == "" || v.State == q.State {
			v.Outputs = nil
			out = append(out, v)
			for _, s := range slices.Concat(v.Spec.Args, v.Spec.Env) {
				size += len(s)
			}
		}
	}
	ent.Count = uint32(max(len(out), 1))
	return out, e.noteRead(ctx, ent)
}

// aboveStart refuses what takes a working label that dominates MAX.
func (e *Enclave) aboveStart(ctx context.Context, op string, who redoubt.Credential, j *job, ent *entry) error {
	if who.Working.Dominates(j.max.label) {
		return nil
	}
	ent.Allow, ent.Rule = false, ruleJobMax
	return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(j.ID), Kind: redoubt.Denied, Rule: ruleJobMax, Hint: fmt.Sprintf("it may rise to %s: ask with a credential at that label", j.max.label.Banner())})
}

// WaitJob waits until a job is in another state.
func (e *Enclave) WaitJob(ctx context.Context, who redoubt.Credential, id redoubt.JobID, not redoubt.JobState) (redoubt.Job, error) {
	const op = "WaitJob"
	j, ent, err := e.jobOf(ctx, op, who, redoubt.ActionReadJob, id)
	if err == nil {
		err = e.aboveStart(ctx, op, who, j, ent)
	}
	if err != nil {
		return redoubt.Job{}, err
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return redoubt.Job{}, err
	}
	for {
		news := j.news.wait()
		if v := e.jobFor(j, who.Working); v.State != not || v.State.Final() {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return e.jobFor(j, who.Working), nil
		case <-news:
		}
	}
}

// JobLog gives what the last attempt has written from a byte on.
func (e *Enclave) JobLog(ctx context.Context, who redoubt.Credential, id redoubt.JobID, from int64, wait bool) (text []byte, next int64, more bool, err error) {
	const op = "JobLog"
	j, ent, err := e.jobOf(ctx, op, who, redoubt.ActionReadJob, id)
	if err == nil {
		err = e.aboveStart(ctx, op, who, j, ent)
	}
	if err == nil && from < 0 {
		err = e.noted(ctx, ent, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "a log begins at byte 0"})
	}
	if err != nil {
		return nil, 0, false, err
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return nil, 0, false, err
	}
	for {
		news := j.news.wait()
		j.mu.Lock()
		r, state := j.run, j.state.State
		j.mu.Unlock()
		if r == nil {
			if wait && state == redoubt.JobSubmitted {
				select {
				case <-ctx.Done():
					return nil, from, true, nil
				case <-news:
					continue
				}
			}
			j.mu.Lock()
			said := j.state.LogBytes > 0
			j.mu.Unlock()
			if !said { // what an earlier attempt has said is not this one's
				return nil, from, false, nil
			}
			text, err = e.keptLog(ctx, who, j, from)
			return text, from + int64(len(text)), len(text) == maxLogPiece, err
		}
		written := r.more.wait()
		r.mu.Lock()
		if from < int64(len(r.log)) {
			text = bytes.Clone(r.log[from:min(from+maxLogPiece, int64(len(r.log)))])
		}
		r.mu.Unlock()
		if len(text) > 0 || !wait {
			return text, from + int64(len(text)), true, nil
		}
		select {
		case <-ctx.Done():
			return nil, from, true, nil
		case <-news:
		case <-written:
		}
	}
}

const maxLogPiece = 256 << 10

// keptLog reads a log that is whole. That it is read is on record at the label of who reads it, and not below.
func (e *Enclave) keptLog(ctx context.Context, who redoubt.Credential, j *job, from int64) ([]byte, error) {
	o, err := e.GetObject(ctx, e.own(who.Working), redoubt.ReadObject{Name: logName(j.ID)})
	if redoubt.KindOf(err) == redoubt.NotFound {
		return nil, nil // it wrote nothing
	}
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if from >= o.Version().SizeBytes {
		return nil, nil
	}
	return io.ReadAll(o.Reader(from, maxLogPiece))
}
