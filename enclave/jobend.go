package enclave

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// CancelJob ends one.
func (e *Enclave) CancelJob(ctx context.Context, who redoubt.Credential, id redoubt.JobID) error {
	const op = "CancelJob"
	j, ent, err := e.jobOf(ctx, op, who, redoubt.ActionReadJob, id)
	if err != nil {
		return err
	}
	made := j.start.label
	if who.Working.Equivalent(j.max.label) {
		made = j.max.label
	}
	ent, err = e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionCancelJob, object: made, made: made, detail: "job " + string(id)})
	if err != nil {
		return err
	}
	if j.By != who.Subject {
		ent.Allow, ent.Rule = false, "own-job (5.1)"
		return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Denied, Rule: "own-job (5.1)", Hint: fmt.Sprintf("%s submitted it", j.By)})
	}
	ent.Label = e.text(made)
	return e.cancelJob(ctx, j, ent, made == j.start.label)
}

// cancelJob makes the end of a job durable. From START it is on record there, whether it had ended or not: that is not known there.
func (e *Enclave) cancelJob(ctx context.Context, j *job, ent *entry, fromStart bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, s := new(store.Batch), j.state
	if fromStart {
		defer e.locks.lock(systemBucketID, kindJob+"/"+string(j.ID))()
		was := j.Canceled
		j.Canceled = true
		if j.Spec.Module == "" && j.Spec.Image == "" {
			if err := e.specOf(j); err != nil {
				return e.noted(ctx, ent, err)
			}
			defer j.letGo()
		}
		if err := e.putJob(ctx, b, j); err != nil {
			j.Canceled = was
			return e.noted(ctx, ent, err)
		}
	}
	if !s.State.Final() {
		s.State, s.Ended, s.Exit, s.Why = redoubt.JobCanceled, e.clock().UTC(), -1, "it was canceled"
		defer e.locks.lock(systemBucketID, kindJobState+"/"+string(j.ID))()
		if err := e.putJobState(ctx, b, j, s); err != nil {
			return e.noted(ctx, ent, err)
		}
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return err
	}
	if j.state = s; j.run != nil {
		j.run.cancel()
	} else {
		j.letGo()
	}
	j.waits.Store(false)
	j.news.wake()
	return nil
}

// pruneJobs lets go of jobs that were submitted long ago, whatever became of them: at START nobody may see by that whether they had ended.
func (e *Enclave) pruneJobs(ctx context.Context) error {
	limit := e.clock().Add(-redoubt.JobLife)
	e.jobs.mu.Lock()
	var old []*job
	for _, all := range e.jobs.bySet {
		for _, j := range all {
			if !j.Made.Before(limit) {
				break
			}
			old = append(old, j)
		}
	}
	e.jobs.mu.Unlock()
	for _, j := range old {
		if err := e.forgetJob(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

// forgetJob ends a job where it has not ended, and lets go of its records.
func (e *Enclave) forgetJob(ctx context.Context, j *job) error {
	if err := e.cancelJob(ctx, j, e.ownAct(j.max.label, redoubt.ActionCancelJob, redoubt.ObjectName{}), false); err != nil {
		return err
	}
	b := new(store.Batch)
	if err := errors.Join(e.forgetRecord(b, j.start, kindJob+"/"+string(j.ID)), e.forgetRecord(b, j.max, kindJobState+"/"+string(j.ID)), e.forgetRecord(b, j.max, kindJobReads+"/"+string(j.ID))); err != nil {
		return err
	}
	if err := e.commit(ctx, b, nil); err != nil {
		return err
	}
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	if e.jobs.byID[j.ID] != j { // another has let go of it
		return nil
	}
	delete(e.jobs.byID, j.ID)
	e.jobs.bySet[j.start] = slices.DeleteFunc(slices.Clone(e.jobs.bySet[j.start]), func(x *job) bool { return x == j })
	e.jobs.sizes[j.start] -= j.size
	return nil
}

// forgetRecord adds to a batch that a system record and all its older versions are gone.
func (e *Enclave) forgetRecord(b *store.Batch, set *labelSet, key string) error {
	b.Delete(headKey(systemBucketID, set.id, key))
	view := e.engine.View()
	defer view.Close()
	lower := nameKey(recOld, systemBucketID, set.id, key)
	it := view.Scan(lower, after(lower))
	defer it.Close()
	for it.Next() {
		b.Delete(bytes.Clone(it.Key()))
	}
	return it.Err()
}

// Finish ends the attempt. After an error it may be called again.
func (r *jobRun) Finish(ctx context.Context, x redoubt.JobExit) (err error) {
	e, j := r.e, r.j
	defer r.more.wake()
	r.hangUp()
	defer func() {
		if err == nil {
			e.readers.end(r)
		}
	}()
	if r.acts != "" { // an instance of a service puts nothing
		return nil
	}
	e.readers.gate.RLock()
	defer e.readers.gate.RUnlock()
	r.mu.Lock()
	outs, log, logged, at := r.outs, r.log, r.logged, r.label
	attrs, spilt := r.made().on(redoubt.Attributes{}), r.spilt
	r.mu.Unlock()
	closed := func(a redoubt.Attributes, l label.Label) bool { return e.readers.closes(&record{attrs: a}, l) != "" }
	if spilt || closed(attrs, j.max.label) || slices.ContainsFunc(outs, func(w *write) bool { return closed(w.rec.attrs, w.set.label) }) { // nobody could open what it makes
		x.Code, x.Why, log, logged = -1, reason(errSpilt), nil, 0
	}
	if x.Retry {
		if err := e.lost(ctx, j, x.Why); err != nil {
			return err
		}
		return r.thrown(ctx, outs)
	}
	e.jobs.mu.Lock()
	known := e.jobs.byID[j.ID] == j
	e.jobs.mu.Unlock()
	if !known { // it was let go of while it ran
		return r.thrown(ctx, outs)
	}
	lost := ""
	if len(log) > 0 {
		_, err := e.PutObject(ctx, e.own(j.max.label), redoubt.PutObject{Name: logName(j.ID), Attributes: attrs, SizeBytes: int64(len(log)), Body: bytes.NewReader(log)})
		if k := redoubt.KindOf(err); err != nil && k != redoubt.QuotaExceeded && k != redoubt.DiskFull {
			return err
		}
		if err != nil { // the job has ended for all that
			lost, logged = "its log could not be kept: "+reason(err), 0
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.state
	s.Label, s.LogBytes, s.Exit, s.Why, s.Ended = e.text(at), logged, x.Code, x.Why, e.clock().UTC()
	again := false
	switch {
	case s.State == redoubt.JobCanceled:
		s.Exit, s.Why = -1, "it was canceled"
	case x.Code == 0 && x.Why == "":
		s.State = redoubt.JobDone
	case s.Attempt <= j.Spec.Retries:
		s.State, again = redoubt.JobSubmitted, true
	default:
		s.State = redoubt.JobFailed
	}
	s.Why = strings.Trim(s.Why+"; "+lost, "; ")
	kept := s.State == redoubt.JobDone
	if kept {
		err = r.end(ctx, s, outs)
	} else {
		err = r.end(ctx, s, nil)
	}
	if err != nil && kept { // its outputs cannot be kept: a share that is spent, a bucket that is gone, a clearance that has ended
		s.State, s.Exit, s.Why, s.Outputs, kept = redoubt.JobFailed, -1, "its outputs could not be kept: "+reason(err), nil, false
		err = r.end(ctx, s, nil)
	}
	if err != nil {
		return err
	}
	j.run = nil
	if again {
		e.enqueue(j)
	} else {
		j.letGo()
	}
	if !kept {
		return r.thrown(ctx, outs)
	}
	return nil
}

// thrown gives back outputs that are not kept, and puts on record that nothing came of what was allowed.
func (r *jobRun) thrown(ctx context.Context, outs []*write) error {
	var errs []error
	for _, w := range outs {
		w.discard()
		w.entry.Kind, w.entry.Bytes = redoubt.PreconditionFail.Error(), 0
		errs = append(errs, r.e.record(ctx, w.entry))
	}
	return errors.Join(errs...)
}

// reason is what a person is told of an error.
func reason(err error) string {
	var known *redoubt.Error
	if !errors.As(err, &known) {
		return redoubt.KindOf(err).Error()
	}
	text := known.Kind.Error()
	for _, more := range []string{known.Rule, known.Hint} {
		if more != "" {
			text += ": " + more
		}
	}
	return text
}

// end makes a job's end and all its outputs durable and visible in one commit. The job's mutex is held.
func (r *jobRun) end(ctx context.Context, s jobState, outs []*write) error {
	e, j := r.e, r.j
	slices.SortFunc(outs, func(a, b *write) int { return cmp.Compare(a.name.Key, b.name.Key) })
	for i := 1; i < len(outs); i++ {
		if outs[i].name == outs[i-1].name {
			return &redoubt.Error{Op: "EndJob", Object: outs[i].name.String(), Kind: redoubt.Invalid, Hint: "two outputs have one name"}
		}
	}
	defer e.locks.lock(systemBucketID, kindJobState+"/"+string(j.ID))()
	batch := new(store.Batch)
	if len(outs) > 0 {
		w := outs[0]
		w.b.gate.RLock()
		defer w.b.gate.RUnlock()
		if _, err := e.bucket("EndJob", w.name.Bucket); err != nil {
			return err
		}
		for _, w := range outs {
			defer e.locks.lock(w.b.id, w.name.Key)()
		}
		w.set.epochGate.RLock()
		defer w.set.epochGate.RUnlock()
		done, err := e.standing(w.who, nil, nil)
		if err != nil {
			return err
		}
		defer done()
		for _, w := range outs {
			if err := e.stillAllowed(&w.asked, w.entry); err != nil {
				return err
			}
		}
	}
	var bytes int64
	for _, w := range outs {
		if err := w.add(ctx, batch); err != nil {
			return err
		}
		bytes += w.rec.size
		s.Outputs = append(s.Outputs, redoubt.JobOutput{Key: w.name.Key, Version: e.ids.versionID(w.rec.id), Bytes: w.rec.size})
	}
	if err := errors.Join(e.putJobState(ctx, batch, j, s), r.keepReads(ctx, batch)); err != nil {
		return err
	}
	detail := string(s.State)
	if s.State == redoubt.JobFailed {
		detail += fmt.Sprintf(" with exit code %d", s.Exit)
	}
	if err := e.commit(ctx, batch, e.jobEntry(j, strings.TrimSpace(detail))); err != nil {
		return err
	}
	for _, w := range outs {
		w.hold.settle()
		w.discard() // gives back what is of no further use
	}
	if len(outs) > 0 {
		e.count(outs[0].set, int64(len(outs)), bytes)
	}
	j.state = s
	j.news.wake()
	return nil
}

// add puts a version that was staged into a batch, with its entry. Its locks are held.
func (w *write) add(ctx context.Context, batch *store.Batch) (err error) {
	if w.rec.id, err = w.e.newID(ctx, w.made, w.set); err != nil {
		return err
	}
	batch.Links = append(batch.Links, w.staged...)
	deltaSet(batch, recCount, w.set.id, 1)
	deltaSet(batch, recBytes, w.set.id, w.rec.size)
	if err := w.freshKeys(); err != nil {
		return err
	}
	recordBytes, err := w.e.place(batch, w.b.id, w.set, w.name.Key, w.rec)
	if err != nil {
		return err
	}
	if err := w.e.charge(batch, &w.hold, w.rec.cost(w.name.Key, recordBytes), 0); err != nil {
		return err
	}
	w.entry.Version, w.entry.Bytes = w.rec.id[:], w.rec.size
	batch.Append(w.e.recorder.Record(w.entry))
	return nil
}
