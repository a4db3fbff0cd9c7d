package enclave

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adhocore/gronx"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// Schedules start jobs, at times or on new versions. One is a system record at the working label that it was made at, and so is a version that
// it is to start a job for: that is put on record in the commit that brings the version, so none is lost or counted twice.

const (
	kindSchedule  = "job.schedule" // SUBJECT/NAME
	ruleSchedule  = "schedule"
	scheduleEvery = time.Second
	maxFired      = 100 // jobs of one schedule that wait: further versions wait on record
)

// scheduleRecord is a schedule as it is kept.
type scheduleRecord struct {
	redoubt.Schedule
	Max  string `json:"max"`        // canonical text
	Cred string `json:"credential"` // that it was made with: it ends with that
}

// schedule is one in memory.
type schedule struct {
	scheduleRecord
	set *labelSet
	max label.Label
}

// fireKey begins the keys of the versions that it is to start jobs for.
func (s *schedule) fireKey() []byte {
	return append(append(setKey(recFire, s.set.id), s.key()...), 0)
}

func (s *schedule) key() string { return string(s.By) + "/" + string(s.Name) }

// fire is a version that a schedule is to start a job for.
type fire struct {
	Bucket  redoubt.BucketName `json:"bucket"`
	Key     string             `json:"key"`
	Version redoubt.VersionID  `json:"version"`
}

// schedules is what is in memory of them.
type schedules struct {
	mu    sync.Mutex
	bySet map[*labelSet]map[string]*schedule // by SUBJECT/NAME
	on    atomic.Pointer[map[redoubt.BucketName][]*schedule]
	fired broadcast
}

var scheduleNames = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (e *Enclave) loadSchedules(context.Context) error {
	s := &e.jobs.schedules
	s.bySet = map[*labelSet]map[string]*schedule{}
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.all() {
		err := e.recordsAt(view, set, kindSchedule, func(_ string, value []byte) error {
			x := &schedule{set: set}
			if err := strictJSON(value, &x.scheduleRecord); err != nil {
				return err
			}
			l, err := label.ParseText([]byte(x.Max), e.policy)
			if err != nil {
				return err
			}
			x.max = l
			s.put(x)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// put makes one known. mu is held, or nobody else is there.
func (s *schedules) put(x *schedule) {
	if s.bySet[x.set] == nil {
		s.bySet[x.set] = map[string]*schedule{}
	}
	s.bySet[x.set][x.key()] = x
	s.index()
}

// index is what a new version is looked up in.
func (s *schedules) index() {
	on := map[redoubt.BucketName][]*schedule{}
	for _, all := range s.bySet {
		for _, x := range all {
			if x.On != nil {
				on[x.On.Bucket] = append(on[x.On.Bucket], x)
			}
		}
	}
	if len(on) == 0 {
		s.on.Store(nil)
		return
	}
	s.on.Store(&on)
}

// PutSchedule makes a schedule, or replaces one of its maker's at this label.
func (e *Enclave) PutSchedule(ctx context.Context, who redoubt.Credential, in redoubt.Schedule) (redoubt.Schedule, error) {
	const op = "PutSchedule"
	max := who.Working
	if in.Job.Max != "" {
		l, err := e.policy.Parse(in.Job.Max)
		if err != nil {
			return in, e.unmarked(ctx, ask{op: op, who: who, action: redoubt.ActionSubmitJob}, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "label: " + err.Error(), Hint: "redoubt label parse shows what a marking means"})
		}
		max = l
	}
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSubmitJob, fresh: max, detail: "schedule " + string(in.Name)})
	if err != nil {
		return in, err
	}
	ent.Label = e.text(who.Working)
	if err := e.checkSchedule(ctx, op, who, in); err != nil {
		return in, e.noted(ctx, ent, err)
	}
	set, err := e.sets.of(ctx, who.Working)
	if err != nil {
		return in, e.noted(ctx, ent, err)
	}
	in.By, in.Made, in.Label, in.Last, in.LastJob, in.Fault, in.Job.From = who.Subject, e.clock().UTC(), set.label.Banner(), time.Time{}, "", "", ""
	in.Next = nextTick(in.Cron, in.Made)
	x := &schedule{scheduleRecord: scheduleRecord{Schedule: in, Max: e.text(max), Cred: who.ID}, set: set, max: max}
	s := &e.jobs.schedules
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bySet[set][x.key()] == nil && len(s.bySet[set]) >= redoubt.MaxSchedules {
		return in, e.noted(ctx, ent, &redoubt.Error{Op: op, Kind: redoubt.QuotaExceeded, Rule: ruleSchedule, Hint: fmt.Sprintf("there are %d schedules at this label", redoubt.MaxSchedules)})
	}
	b := new(store.Batch)
	if err := e.keepSchedule(ctx, b, x); err != nil {
		return in, e.noted(ctx, ent, err)
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return in, err
	}
	s.put(x)
	return in, nil
}

// keepSchedule adds one to a batch. Its mutex is held, so nobody else writes its record.
func (e *Enclave) keepSchedule(ctx context.Context, b *store.Batch, x *schedule) error {
	value, err := json.Marshal(x.scheduleRecord)
	if err != nil {
		return err
	}
	return e.putRecordAt(ctx, b, x.set.label, kindSchedule+"/"+x.key(), value)
}

func nextTick(cron string, after time.Time) time.Time {
	if cron == "" {
		return time.Time{}
	}
	next, err := gronx.NextTickAfter(cron, after.UTC(), false)
	if err != nil { // it never comes again
		return time.Time{}
	}
	return next
}

func (e *Enclave) checkSchedule(ctx context.Context, op string, who redoubt.Credential, in redoubt.Schedule) error {
	bad := func(hint string) error {
		return &redoubt.Error{Op: op, Object: string(in.Name), Kind: redoubt.Invalid, Rule: ruleSchedule, Hint: hint}
	}
	switch {
	case !scheduleNames.MatchString(string(in.Name)):
		return bad("a schedule's name is 1 to 63 of a-z, 0-9 and -")
	case (in.Cron == "") == (in.On == nil):
		return bad("a schedule starts jobs at times (--cron) or on new versions (--on)")
	case in.Cron != "" && (len(in.Cron) > 256 || len(strings.Fields(in.Cron)) != 5 || !gronx.IsValid(in.Cron)):
		return bad("a time is five fields, in UTC: minute hour day-of-month month day-of-week, as 30 6 * * 1-5")
	case in.Cron != "" && nextTick(in.Cron, e.clock()).IsZero():
		return bad("that time never comes")
	}
	if in.On != nil {
		if b, err := e.readable(op, in.On.Bucket); err != nil || b.Name == JobBucket {
			return &redoubt.Error{Op: op, Object: string(in.On.Bucket), Kind: redoubt.NoBucket}
		}
		if out := in.Job.Out; out.Bucket == in.On.Bucket && (strings.HasPrefix(out.Prefix, in.On.Prefix) || strings.HasPrefix(in.On.Prefix, out.Prefix)) {
			return bad("what it writes would start it again: have it write elsewhere")
		}
	}
	return e.checkJob(ctx, op, who, in.Job)
}

// Schedules lists those that the caller dominates, by maker and name.
func (e *Enclave) Schedules(ctx context.Context, who redoubt.Credential) ([]redoubt.Schedule, error) {
	ent, err := e.decide(ctx, ask{op: "Schedules", who: who, action: redoubt.ActionReadJob, detail: "schedules"})
	if err != nil {
		return nil, err
	}
	out := []redoubt.Schedule{}
	s := &e.jobs.schedules
	s.mu.Lock()
	for set, all := range s.bySet {
		if who.Working.Dominates(set.label) {
			for _, x := range all {
				out = append(out, x.Schedule)
			}
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b redoubt.Schedule) int {
		return cmp.Or(cmp.Compare(a.By, b.By), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Label, b.Label))
	})
	return out, e.noteRead(ctx, ent)
}

// RemoveSchedule ends one of the caller's own at her working label. What it has started goes on.
func (e *Enclave) RemoveSchedule(ctx context.Context, who redoubt.Credential, name redoubt.ScheduleName) error {
	const op = "RemoveSchedule"
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionCancelJob, made: who.Working, detail: "schedule " + string(name)})
	if err != nil {
		return err
	}
	s := &e.jobs.schedules
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range e.sets.equalTo(who.Working) {
		x := s.bySet[set][string(who.Subject)+"/"+string(name)]
		if x == nil {
			continue
		}
		b := new(store.Batch)
		if err := e.putRecordAt(ctx, b, set.label, kindSchedule+"/"+x.key(), nil); err != nil {
			return e.noted(ctx, ent, err)
		}
		if err := e.dropFires(b, x); err != nil {
			return e.noted(ctx, ent, err)
		}
		if err := e.commit(ctx, b, ent); err != nil {
			return err
		}
		delete(s.bySet[set], x.key())
		s.index()
		return nil
	}
	return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NotFound, Hint: "redoubt schedule ls lists them: one is removed at the label that it was made at"})
}

// fires adds to the batch that brings a version what it is to start.
func (e *Enclave) fires(b *store.Batch, bucketID uint32, set *labelSet, key string, rec *record) error {
	on := e.jobs.schedules.on.Load()
	if on == nil || rec.marker || bucketID == systemBucketID {
		return nil
	}
	for name, all := range *on {
		if of := (*e.buckets.Load())[name]; of == nil || of.id != bucketID {
			continue
		}
		for _, x := range all {
			if !strings.HasPrefix(key, x.On.Prefix) || !x.set.label.Dominates(set.label) {
				continue
			}
			value, err := json.Marshal(fire{Bucket: name, Key: key, Version: e.ids.versionID(rec.id)})
			if err != nil {
				return err
			}
			b.Set(append(x.fireKey(), rec.id[:]...), value)
			e.jobs.schedules.fired.wake()
		}
	}
	return nil
}

// dropFires adds to a batch that nothing waits for a schedule any more.
func (e *Enclave) dropFires(b *store.Batch, x *schedule) error {
	view := e.engine.View()
	defer view.Close()
	it := view.Scan(x.fireKey(), after(x.fireKey()))
	defer it.Close()
	for n := 0; n < store.MaxBatchWrites/2 && it.Next(); n++ {
		b.Delete(bytes.Clone(it.Key()))
	}
	return it.Err()
}

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
	var errs []error
	for _, all := range s.bySet {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			x := all[name]
			switch {
			case x.On != nil:
				errs = append(errs, e.startFired(ctx, x, now))
			case !x.Next.IsZero() && !now.Before(x.Next):
				errs = append(errs, e.start(ctx, x, now, nil, nil))
			}
		}
	}
	return errors.Join(errs...)
}

// startFired starts a job for each version that waits, up to a bound.
func (e *Enclave) startFired(ctx context.Context, x *schedule, now time.Time) error {
	type pending struct {
		record []byte
		fire
	}
	var all []pending
	view := e.engine.View()
	defer view.Close()
	it := view.Scan(x.fireKey(), after(x.fireKey()))
	defer it.Close()
	for room := maxFired - e.waitingOf(x); len(all) < room && it.Next(); {
		p := pending{record: bytes.Clone(it.Key())}
		if err := strictJSON(it.Value(), &p.fire); err != nil {
			return &redoubt.Error{Op: "schedule", Object: string(x.Name), Kind: redoubt.Corrupt, Err: err}
		}
		all = append(all, p)
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, p := range all {
		if err := e.start(ctx, x, now, p.record, &p.fire); err != nil {
			return err
		}
	}
	return nil
}

// waitingOf counts the jobs of a schedule that wait. Of those that may rise it is not known at the schedule's label which do.
func (e *Enclave) waitingOf(x *schedule) (n int) {
	if !x.set.label.Dominates(x.max) {
		return 0
	}
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	for _, l := range e.jobs.lanes {
		for _, j := range l.waiting {
			if j.start == x.set && j.By == x.By && j.From == x.from() {
				n++
			}
		}
	}
	return n
}

func (s *schedule) from() string {
	if s.On != nil {
		return "trigger " + string(s.Name)
	}
	return "schedule " + string(s.Name)
}

// start submits one job as the schedule's maker, and puts what started it off record, in one commit. What refuses is kept as the schedule's
// fault: nothing waits for it.
func (e *Enclave) start(ctx context.Context, x *schedule, now time.Time, record []byte, f *fire) error {
	q := x.Job
	q.From = x.from()
	if f != nil {
		q.Env = append(slices.Clone(q.Env), "REDOUBT_BUCKET="+string(f.Bucket), "REDOUBT_KEY="+f.Key, "REDOUBT_VERSION="+string(f.Version))
	}
	who := redoubt.Credential{ID: schedulePrefix + x.Cred, Subject: x.By, Working: x.set.label, Expires: e.clock().Add(time.Minute)} // of now: what was due before it may have taken long to start
	next := *x
	next.Last, next.Next, next.Fault, next.LastJob = now, nextTick(x.Cron, now), "", ""
	b := new(store.Batch)
	if record != nil {
		b.Delete(record)
	}
	ent, err := e.decide(ctx, ask{op: "StartJob", who: who, action: redoubt.ActionSubmitJob, fresh: x.max, detail: q.From})
	if err == nil {
		err = e.checkJob(ctx, "StartJob", who, q)
	}
	var j *job
	if err == nil {
		j, err = e.newJob(ctx, who, x.max, q)
	}
	if err != nil {
		next.Fault = reason(err)
		if err := e.keepSchedule(ctx, b, &next); err != nil {
			return err
		}
		if err := e.commit(ctx, b, nil); err != nil {
			return err
		}
		x.went(next)
		return nil
	}
	ent.Label = e.text(x.set.label)
	j.Cred, next.LastJob = x.Cred, j.ID
	unlock, err := e.keepNew(ctx, b, j)
	if err != nil {
		return err
	}
	defer unlock()
	if err := e.keepSchedule(ctx, b, &next); err != nil {
		return err
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return err
	}
	x.went(next)
	e.addJob(j)
	e.enqueue(j)
	return e.keepSome(ctx, j.start)
}

// went takes over what a start has changed. What else there is of a schedule never changes: fires reads it without the mutex.
func (s *schedule) went(next schedule) {
	s.Last, s.LastJob, s.Next, s.Fault = next.Last, next.LastJob, next.Next, next.Fault
}

// keepModules puts the modules of schedules and services once more before they go.
func (e *Enclave) keepModules(ctx context.Context) error {
	type need struct {
		at     label.Label
		digest string
	}
	all := map[need]bool{}
	s := &e.jobs.schedules
	s.mu.Lock()
	for set, of := range s.bySet {
		for _, x := range of {
			if x.Job.Module != "" {
				all[need{set.label, x.Job.Module}] = true
			}
		}
	}
	s.mu.Unlock()
	e.services.mu.RLock()
	for set, of := range e.services.bySet {
		for _, x := range of {
			if x.Spec.Module != "" {
				all[need{set.label, x.Spec.Module}] = true
			}
		}
	}
	e.services.mu.RUnlock()
	var errs []error
	for n := range all {
		f, err := e.moduleAt(n.at, n.digest)
		if err != nil || f.rec == nil || e.clock().UnixNano() < f.rec.id.time()+int64(redoubt.ModuleLife/4) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, e.keepModule(ctx, n.at, moduleName(n.digest)))
	}
	return errors.Join(errs...)
}

func (e *Enclave) keepModule(ctx context.Context, at label.Label, name redoubt.ObjectName) error {
	o, err := e.GetObject(ctx, e.own(at), redoubt.ReadObject{Name: name})
	if redoubt.KindOf(err) == redoubt.NotFound && err != nil {
		return nil // it is gone: the schedule says so when it is due
	}
	if err != nil {
		return err
	}
	defer o.Close()
	_, err = e.PutObject(ctx, e.own(at), redoubt.PutObject{Name: name, SizeBytes: o.Version().SizeBytes, Body: o.Reader(0, -1)})
	return err
}

// schedulePrefix begins the ID of a credential that stands for a schedule: identity gives none such.
const schedulePrefix = "schedule:"
