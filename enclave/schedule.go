package enclave

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// Schedules start jobs, at times or on new versions. One is a system record at the working label that it was made at. What brings a version writes
// nothing for those that wait for it, whatever stands above: it is noted in memory, and looked up once it is there. What is noted and not yet looked at when the node dies is
// found again: a schedule keeps the times up to which it has seen everything, and has started no job for a version twice.

const (
	kindSchedule  = "job.schedule" // SUBJECT/NAME
	ruleSchedule  = "schedule"
	scheduleEvery = time.Second
	maxFired      = 1000                    // jobs that one schedule starts in a minute: further versions wait
	maxNoted      = 100_000                 // versions that wait to be looked at; beyond that all are looked for
	notedFor      = 2 * time.Minute         // a version that is not there by then never was committed
	seenMargin    = time.Minute             // that a version may be committed after its time
	maxEventBytes = 2 * redoubt.MaxKeyBytes // that the variables of what started a job have
)

// scheduleRecord is a schedule as it is kept.
type scheduleRecord struct {
	redoubt.Schedule
	Max  string           `json:"max"`            // canonical text
	Cred string           `json:"credential"`     // that it was made with: it ends with that
	Born map[uint32]int64 `json:"born,omitempty"` // of one on new versions: of each label set the last time given out when it was made
	Seen map[uint32]int64 `json:"seen,omitempty"` // and the time up to which it has seen all since
}

// schedule is one in memory.
type schedule struct {
	scheduleRecord
	set *labelSet
	max label.Label

	// Of one on new versions:
	after   uint64 // the number of the first version that it is told of: what was noted before, for others that wait, tells of those
	waiting []fire
	seen    map[uint32]int64 // Seen, once nothing waits
	again   bool             // what was noted is not all: look for it
	minute  time.Time
	started int // in that minute
}

func (s *schedule) key() string { return string(s.By) + "/" + string(s.Name) }

// fire is a version that a schedule is to start a job for.
type fire struct {
	bucket  redoubt.BucketName
	key     string
	version redoubt.VersionID
}

// arrivedVersion is a version that is about to be committed.
type arrivedVersion struct {
	bucket redoubt.BucketName
	id     uint32
	set    *labelSet
	key    string
	rec    versionID
	at     time.Time
	number uint64 // in the order of noting
}

// schedules is what is in memory of them.
type schedules struct {
	mu    sync.Mutex
	bySet map[*labelSet]map[string]*schedule // by SUBJECT/NAME
	on    atomic.Pointer[map[redoubt.BucketName][]*schedule]
	fired broadcast

	notedMu sync.Mutex
	noted   []arrivedVersion
	number  uint64 // of the next one
	over    bool   // more than maxNoted
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
			x.max, x.again = l, x.On != nil
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
	if err := e.checkSchedule(ctx, op, who, max, in); err != nil {
		return in, e.noted(ctx, ent, err)
	}
	set, err := e.sets.of(ctx, who.Working)
	if err != nil {
		return in, e.noted(ctx, ent, err)
	}
	in.By, in.Made, in.Label, in.Last, in.LastJob, in.Fault, in.Job.From = who.Subject, e.clock().UTC(), set.label.Banner(), time.Time{}, "", "", ""
	in.Next = nextTick(in.Cron, in.Made)
	x := &schedule{scheduleRecord: scheduleRecord{Schedule: in, Max: e.text(max), Cred: who.ID}, set: set, max: max}
	if in.On != nil {
		x.Born = e.snapshot(set.label)
		x.Seen, x.seen = x.Born, x.Born
	}
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
	done, err := e.standing(who, nil, nil)
	if err != nil {
		return in, e.noted(ctx, ent, err)
	}
	defer done()
	if err := e.commit(ctx, b, ent); err != nil {
		return in, err
	}
	s.notedMu.Lock()
	x.after = s.number
	s.notedMu.Unlock()
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

func (e *Enclave) checkSchedule(ctx context.Context, op string, who redoubt.Credential, max label.Label, in redoubt.Schedule) error {
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
		b, err := e.readable(op, in.On.Bucket)
		if err != nil || b.Name == JobBucket {
			return &redoubt.Error{Op: op, Object: string(in.On.Bucket), Kind: redoubt.NoBucket}
		}
		a := ask{op: op, who: who, action: redoubt.ActionListObjects, bucket: b, name: redoubt.ObjectName{Bucket: in.On.Bucket, Key: in.On.Prefix}, object: who.Working}
		if d, ent := e.judge(ctx, a); !d.Allow { // it would be told of what it may not list
			ent.Kind = d.Kind.Error()
			return errors.Join(e.record(ctx, ent), e.refusal(d, a))
		}
		if out := in.Job.Out; out.Bucket == in.On.Bucket && (strings.HasPrefix(out.Prefix, in.On.Prefix) || strings.HasPrefix(in.On.Prefix, out.Prefix)) {
			return bad("what it writes would start it again: have it write elsewhere")
		}
	}
	if spec, err := json.Marshal(in.Job); err != nil || len(spec)+maxEventBytes > redoubt.MaxJobSpecBytes {
		return &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Rule: ruleJobSpec, Hint: fmt.Sprintf("arguments, environment and inputs of a schedule have at most %d bytes together", redoubt.MaxJobSpecBytes-maxEventBytes)}
	}
	return e.checkJob(ctx, op, who, max, in.Job)
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
		if err := e.commit(ctx, b, ent); err != nil {
			return err
		}
		delete(s.bySet[set], x.key())
		s.index()
		return nil
	}
	return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NotFound, Hint: "redoubt schedule ls lists them: one is removed at the label that it was made at"})
}

// fires notes a version that a batch brings. It costs who writes it the same, whatever waits for it.
func (e *Enclave) fires(bucketID uint32, set *labelSet, key string, rec *record) {
	s := &e.jobs.schedules
	on := s.on.Load()
	if on == nil || rec.marker || bucketID == systemBucketID {
		return
	}
	for name := range *on {
		if of := (*e.buckets.Load())[name]; of == nil || of.id != bucketID {
			continue
		}
		s.notedMu.Lock()
		if len(s.noted) < maxNoted {
			s.noted = append(s.noted, arrivedVersion{bucket: name, id: bucketID, set: set, key: key, rec: rec.id, at: e.clock(), number: s.number})
			s.number++
		} else {
			s.over = true
		}
		s.notedMu.Unlock()
		s.fired.wake()
		return
	}
}

// there says whether a version was committed.
func (e *Enclave) there(v arrivedVersion) (bool, error) {
	raw, ok, err := e.engine.Get(headKey(v.id, v.set.id, v.key))
	if err != nil || !ok {
		return false, err
	}
	var head record
	if _, _, err := head.decodeHead(raw); err != nil {
		return false, &redoubt.Error{Op: "schedule", Kind: redoubt.Corrupt, Err: err}
	}
	if head.id == v.rec {
		return true, nil
	}
	_, ok, err = e.engine.Get(oldKey(v.id, v.set.id, v.key, v.rec))
	return ok, err
}

// lookUp hands what was noted and is there by now to the schedules that wait for it. mu is held.
func (e *Enclave) lookUp(ctx context.Context, now time.Time) error {
	s := &e.jobs.schedules
	upTo := map[*labelSet]map[uint32]int64{}
	for set := range s.bySet {
		upTo[set] = e.snapshot(set.label) // before what was noted is taken: all that is not after it is among that, or was before
	}
	s.notedMu.Lock()
	noted, over := s.noted, s.over
	s.noted, s.over = nil, false
	s.notedMu.Unlock()
	var later []arrivedVersion
	on := s.on.Load()
	for i, v := range noted {
		there, err := e.there(v)
		if err != nil {
			later = append(later, noted[i:]...)
			break
		}
		if !there {
			if now.Sub(v.at) < notedFor {
				later = append(later, v)
			}
			continue
		}
		if on == nil {
			continue
		}
		for _, x := range (*on)[v.bucket] {
			if strings.HasPrefix(v.key, x.On.Prefix) && x.set.label.Dominates(v.set.label) && v.number >= x.after {
				x.wait(fire{v.bucket, v.key, e.ids.versionID(v.rec)})
			}
		}
	}
	if len(later) > 0 {
		s.notedMu.Lock()
		s.noted = append(later, s.noted...)
		s.notedMu.Unlock()
	}
	for set, all := range s.bySet {
		for _, x := range all {
			if x.On == nil {
				continue
			}
			x.again = x.again || over
			if x.again {
				if err := e.lookFor(ctx, x); err != nil {
					return err
				}
			} else if len(later) == 0 && len(x.waiting) == 0 {
				x.seen = upTo[set]
			}
		}
	}
	return nil
}

// wait has a version wait for its job. Beyond a bound it is looked for instead.
func (x *schedule) wait(f fire) {
	if len(x.waiting) >= maxNoted {
		x.again = true
		return
	}
	x.waiting = append(x.waiting, f)
}

// lookFor finds the versions that came after those which a schedule has seen, and that no job of it was started for. mu is held.
func (e *Enclave) lookFor(ctx context.Context, x *schedule) error {
	b, err := e.readable("schedule", x.On.Bucket)
	if err != nil {
		return nil // the bucket is gone
	}
	had := map[redoubt.VersionID]bool{}
	for _, f := range x.waiting {
		had[f.version] = true
	}
	e.jobs.mu.Lock()
	for _, j := range e.jobs.bySet[x.set] {
		if j.By == x.By && j.From == x.from() {
			had[j.Event] = true
		}
	}
	e.jobs.mu.Unlock()
	upTo := e.snapshot(x.set.label)
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.seenBy(x.set.label) {
		newer := func(rec *record) bool {
			t := rec.id.time()
			return t > max(x.Born[set.id], x.Born[rec.made]) && t > max(x.Seen[set.id], x.Seen[rec.made])-int64(seenMargin)
		}
		lower := append(rangeKey(recHead, b.id, set.id), x.On.Prefix...)
		it := view.Scan(lower, after(lower))
		for it.Next() {
			if err := ctx.Err(); err != nil {
				it.Close()
				return err
			}
			rec := new(record)
			if _, _, err := rec.decodeHead(it.Value()); err != nil {
				it.Close()
				return &redoubt.Error{Op: "schedule", Kind: redoubt.Corrupt, Err: err}
			}
			if !newer(rec) {
				continue
			}
			key := string(it.Key()[rangeBytes : len(it.Key())-1])
			for h := e.history(view, b, key, []found{{set: set, rec: rec}}); ; {
				v := h.next()
				if v == nil || !newer(v.rec) {
					if err := h.close(); err != nil {
						it.Close()
						return err
					}
					break
				}
				if id := e.ids.versionID(v.rec.id); !v.rec.marker && !had[id] {
					x.waiting = append(x.waiting, fire{x.On.Bucket, key, id})
				}
			}
		}
		err := it.Err()
		it.Close()
		if err != nil {
			return err
		}
	}
	x.again = false
	if len(x.waiting) == 0 {
		x.seen = upTo
	}
	return nil
}

// schedulePrefix begins the ID of a credential that stands for a schedule: identity gives none such.
const schedulePrefix = "schedule:"
