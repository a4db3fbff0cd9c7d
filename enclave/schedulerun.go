package enclave

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"redoubt"
	"redoubt/store"
)

// runSchedules starts what is due, until ctx ends.
func (e *Enclave) runSchedules(ctx context.Context) {
	tick := time.NewTicker(scheduleEvery)
	defer tick.Stop()
	for {
		fired := e.jobs.schedules.fired.wait()
		if err := e.startDue(ctx); err != nil && ctx.Err() == nil {
			e.log.Error("background work failed", "work", "schedules", "kind", redoubt.KindOf(err).Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-fired: // by a commit that may not be there yet: the tick comes after it
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// startDue starts what is due now. A time that passed while the node did not run starts one job, however often it did.
func (e *Enclave) startDue(ctx context.Context) error {
	s, now := &e.jobs.schedules, e.clock().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{e.lookUp(ctx, now)}
	for _, set := range slices.SortedFunc(maps.Keys(s.bySet), func(a, b *labelSet) int { return cmp.Compare(a.id, b.id) }) {
		all := s.bySet[set]
		for _, name := range slices.Sorted(maps.Keys(all)) {
			x := all[name]
			switch {
			case x.On != nil:
				errs = append(errs, e.startFired(ctx, x, now))
			case !x.Next.IsZero() && !now.Before(x.Next):
				_, err := e.start(ctx, x, now, nil)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// startFired starts a job for each version that waits, up to a bound in a minute: how jobs go is not known at the schedule's label.
func (e *Enclave) startFired(ctx context.Context, x *schedule, now time.Time) error {
	if minute := now.Truncate(time.Minute); !minute.Equal(x.minute) {
		x.minute, x.started = minute, 0
	}
	for len(x.waiting) > 0 && x.started < maxFired {
		x.started++
		done, err := e.start(ctx, x, now, &x.waiting[0])
		if done {
			x.waiting = x.waiting[1:]
		}
		if err != nil || !done {
			return err
		}
	}
	return nil
}

func (s *schedule) from() string {
	if s.On != nil {
		return "trigger " + string(s.Name)
	}
	return "schedule " + string(s.Name)
}

// start submits one job as the schedule's maker. What refuses is kept as the schedule's fault; done is false where what started it is to be tried again.
func (e *Enclave) start(ctx context.Context, x *schedule, now time.Time, f *fire) (done bool, err error) {
	q := x.Job
	q.From = x.from()
	who := redoubt.Credential{ID: schedulePrefix + x.Cred, Subject: x.By, Working: x.set.label, Expires: e.clock().Add(time.Minute)} // of now: what was due before it may have taken long to start
	if f != nil {
		if may, err := e.mayFire(ctx, who, f); err != nil || !may {
			return err == nil, err
		}
		q.Env = append(slices.Clone(q.Env), "REDOUBT_BUCKET="+string(f.bucket), "REDOUBT_KEY="+f.key, "REDOUBT_VERSION="+string(f.version))
	}
	next := *x
	next.Last, next.Next, next.Fault, next.LastJob = now, nextTick(x.Cron, now), "", ""
	if x.seen != nil {
		next.Seen = x.seen
	}
	b := new(store.Batch)
	ent, err := e.decide(ctx, ask{op: "StartJob", who: who, action: redoubt.ActionSubmitJob, fresh: x.max, detail: q.From})
	if err == nil {
		err = e.checkJob(ctx, "StartJob", who, x.max, q)
	}
	var j *job
	if err == nil {
		j, err = e.newJob(ctx, who, x.max, q)
	}
	if err != nil {
		passes := !slices.Contains([]redoubt.Kind{redoubt.Denied, redoubt.Unauthenticated, redoubt.Expired, redoubt.NotFound, redoubt.Invalid, redoubt.TooLarge, redoubt.NoBucket}, redoubt.KindOf(err))
		if why := reason(err); why != x.Fault {
			next.Fault = why
			if passes && f != nil {
				next.Last, next.LastJob = x.Last, x.LastJob
			}
			if err := e.keepSchedule(ctx, b, &next); err != nil {
				return false, err
			}
			if err := e.commit(ctx, b, nil); err != nil {
				return false, err
			}
			x.went(next)
		} else if f == nil {
			x.Next = next.Next
		}
		return !passes, nil
	}
	ent.Label = e.text(x.set.label)
	j.Cred, next.LastJob = x.Cred, j.ID
	if f != nil {
		j.Event = f.version
	}
	unlock, err := e.keepNew(ctx, b, j)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := e.keepSchedule(ctx, b, &next); err != nil {
		return false, err
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return false, err
	}
	unlock()
	x.went(next)
	e.addJob(j)
	e.enqueue(j)
	return true, e.keepSome(ctx, j.start)
}

// mayFire says whether a schedule may know of a version: it is there still, and its maker may read it.
func (e *Enclave) mayFire(ctx context.Context, who redoubt.Credential, f *fire) (bool, error) {
	b, err := e.readable("schedule", f.bucket)
	if err != nil {
		return false, nil
	}
	v, err := e.byID(e.engine, b, who.Working, f.key, f.version)
	if err != nil || v.rec == nil {
		return false, err
	}
	d, _ := e.judge(ctx, ask{op: "StartJob", who: who, action: redoubt.ActionGetObject, bucket: b, name: redoubt.ObjectName{Bucket: f.bucket, Key: f.key}, object: v.set.label})
	return d.Allow, nil
}

// went takes over what a start has changed. What else there is of a schedule never changes: fires reads it without the mutex.
func (s *schedule) went(next schedule) {
	s.Last, s.LastJob, s.Next, s.Fault, s.Seen = next.Last, next.LastJob, next.Next, next.Fault, next.Seen
}
