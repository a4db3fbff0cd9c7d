package enclave

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// Jobs. What was submitted is a system record at START, known to who dominates that; how it goes is another at MAX, with the log beside it. An
// attempt is a jobRun: it opens what the job's subject may read up to MAX, and writes at the join of START and what was opened.

// jobSettings are those of JobBucket, which every node has.
func jobSettings() redoubt.BucketSettings {
	days := int(redoubt.ModuleLife / (24 * time.Hour))
	rule := func(id string, days int) redoubt.LifecycleRule {
		return redoubt.LifecycleRule{ID: id, Prefix: id + "/", Days: days, NoncurrentDays: 1, ExpiredMarkers: true}
	}
	return redoubt.BucketSettings{ReadOnly: true, Closed: true, Lifecycle: []redoubt.LifecycleRule{rule("module", days), rule("made", days), rule("log", int(redoubt.JobLife/(24*time.Hour)))}}
}

// JobBucket holds what belongs to jobs and is nobody's object: modules, logs, and what was made of programs. It is closed, and no list shows it.
const JobBucket redoubt.BucketName = "job.kept"

// The kinds of records: what was submitted, and how it goes.
const (
	kindJob      = "job"
	kindJobState = "job.state"
)

// The rules of jobs, beside the monitor's.
const (
	ruleJobMax     = "rises-to-max (5.1)"
	ruleJobProgram = "program-of-a-job (5.1)"
	ruleJobSpec    = "job"
	ruleJobQueue   = "jobs-waiting (3.3)"
	ruleJobEnds    = "read-before-write (5.1)"
	ruleJobSpilt   = "spill (2.7)"
)

// jobRecord is what was submitted, as it is kept.
type jobRecord struct {
	ID    redoubt.JobID       `json:"id"`
	By    redoubt.SubjectName `json:"by"`
	Max   string              `json:"max"` // canonical text
	Made  time.Time           `json:"made"`
	Cred  string              `json:"credential,omitempty"` // that it was submitted with: it ends with that
	Spec  redoubt.SubmitJob   `json:"spec"`
	From  string              `json:"from,omitempty"`  // what started it
	Event redoubt.VersionID   `json:"event,omitempty"` // the version that did

	Canceled bool `json:"canceled,omitempty"` // at START
}

// jobState is how a job goes, as it is kept.
type jobState struct {
	State    redoubt.JobState    `json:"state"`
	Snapshot map[uint32]int64    `json:"snapshot"` // of the label sets that MAX dominates: the last time that each had given out at submission
	Attempt  int                 `json:"attempt,omitempty"`
	Lost     int                 `json:"lost,omitempty"` // attempts that were not the program's fault
	Began    time.Time           `json:"began,omitzero"`
	Ended    time.Time           `json:"ended,omitzero"`
	Exit     int                 `json:"exit,omitempty"`
	Why      string              `json:"why,omitempty"`
	Label    string              `json:"label,omitempty"` // canonical text
	Outputs  []redoubt.JobOutput `json:"outputs,omitempty"`
	LogBytes int64               `json:"log_bytes,omitempty"`
}

// maxLostAttempts is how often a job begins anew that was running when the node, or its driver, went.
const maxLostAttempts = 3

// job is one in memory. What follows mu is guarded by it.
type job struct {
	jobRecord
	start, max *labelSet
	seq        int         // in the order of submission
	size       int         // of what it was submitted with, as JSON
	waits      atomic.Bool // for its turn

	mu    sync.Mutex
	state jobState
	run   *jobRun // while it runs
	news  broadcast
}

// jobs is what is in memory of them.
type jobs struct {
	schedules schedules
	mu        sync.Mutex
	byID      map[redoubt.JobID]*job
	bySet     map[*labelSet][]*job // by START, oldest first: what people ask costs nothing for what lies above them (3.2)
	sizes     map[*labelSet]int    // of them together
	most      int                  // of one START; MaxJobsKept
	seq       int
	days      map[*labelSet]jobDay // of each START: what was submitted today
	lanes     []*lanejobs          // of each MAX: those that wait
	turn      int                  // of lanes
	wake      broadcast            // something waits, or may be accepted now
}

// lanejobs are the jobs of one MAX that wait, oldest first.
type lanejobs struct {
	max     *labelSet
	waiting []*job
}

// jobPrefix begins the ID of a credential that stands for a job: identity gives none such.
const jobPrefix = "job:"

// as is the job's credential at a working label. Its subject is resolved anew on every decision, as any.
func (e *Enclave) asJob(j *job, working label.Label) redoubt.Credential {
	return redoubt.Credential{ID: jobPrefix + string(j.ID), Subject: j.By, Working: working, Expires: e.clock().Add(time.Minute)}
}

// credential is that which a job was submitted with; "": there is no such job.
func (x *jobs) credential(id redoubt.JobID) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if j := x.byID[id]; j != nil {
		return j.Cred
	}
	return ""
}

// loadJobs reads them all at start. What was running comes again.
func (e *Enclave) loadJobs(ctx context.Context) error {
	e.jobs.byID, e.jobs.bySet, e.jobs.days = map[redoubt.JobID]*job{}, map[*labelSet][]*job{}, map[*labelSet]jobDay{}
	e.jobs.sizes, e.jobs.most = map[*labelSet]int{}, redoubt.MaxJobsKept
	var all []*job
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.all() {
		err := e.recordsAt(view, set, kindJob, func(_ string, value []byte) error {
			j := &job{start: set}
			if err := strictJSON(value, &j.jobRecord); err != nil {
				return err
			}
			if day := redoubt.BudgetDay(j.Made); day == redoubt.BudgetDay(e.clock()) {
				d := e.jobs.days[set]
				e.jobs.days[set] = jobDay{day: day, jobs: d.jobs + 1, bytes: d.bytes + int64(len(value))}
			}
			l, err := label.ParseText([]byte(j.Max), e.policy)
			if err == nil {
				j.max, err = e.sets.of(ctx, l)
			}
			all = append(all, j)
			return err
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(a, b *job) int { return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.ID, b.ID)) })
	for _, j := range all {
		value, err := e.currentRecord(j.max, kindJobState+"/"+string(j.ID))
		if err != nil {
			return err
		}
		if value == nil {
			continue // it was removed in between
		}
		if err := strictJSON(value, &j.state); err != nil {
			return &redoubt.Error{Op: "job", Object: string(j.ID), Kind: redoubt.Corrupt, Err: err}
		}
		e.addJob(j)
		if j.state.State == redoubt.JobRunning {
			if err := e.lost(ctx, j, "the node stopped while it ran"); err != nil {
				return err
			}
		} else if j.state.State == redoubt.JobSubmitted {
			e.enqueue(j)
		} else {
			j.letGo()
		}
	}
	if err := e.loadSchedules(ctx); err != nil {
		return err
	}
	return e.loadServices()
}

// recordsAt gives the current system records of a kind in a set.
func (e *Enclave) recordsAt(view store.View, set *labelSet, kind string, each func(name string, value []byte) error) error {
	lower := append(rangeKey(recHead, systemBucketID, set.id), kind+"/"...)
	it := view.Scan(lower, after(lower))
	defer it.Close()
	for it.Next() {
		rec, err := decodeRecord(it.Value())
		if err != nil {
			return &redoubt.Error{Op: kind, Kind: redoubt.Corrupt, Err: err}
		}
		name := strings.TrimPrefix(string(it.Key()[rangeBytes:len(it.Key())-1]), kind+"/")
		if !rec.marker {
			if err := each(name, rec.inline); err != nil {
				return &redoubt.Error{Op: kind, Object: name, Kind: redoubt.Corrupt, Err: err}
			}
		}
	}
	return it.Err()
}

// addJob puts a job into the table.
func (e *Enclave) addJob(j *job) {
	spec, _ := json.Marshal(j.Spec) // it was marshalled before
	j.size = len(spec)
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	j.seq, e.jobs.seq = e.jobs.seq, e.jobs.seq+1
	e.jobs.byID[j.ID] = j
	e.jobs.bySet[j.start] = append(e.jobs.bySet[j.start], j)
	e.jobs.sizes[j.start] += j.size
}

// keepSome lets go of the oldest jobs of a START beyond what is kept of it, whatever became of them: that is not known there.
func (e *Enclave) keepSome(ctx context.Context, start *labelSet) error {
	for {
		var oldest *job
		e.jobs.mu.Lock()
		if all := e.jobs.bySet[start]; len(all) > e.jobs.most || e.jobs.sizes[start] > redoubt.MaxJobsKeptBytes {
			oldest = all[0]
		}
		e.jobs.mu.Unlock()
		if oldest == nil {
			return nil
		}
		if err := e.forgetJob(ctx, oldest); err != nil {
			return err
		}
	}
}

// enqueue has a job wait for its turn.
func (e *Enclave) enqueue(j *job) {
	j.waits.Store(true)
	e.jobs.mu.Lock()
	i := slices.IndexFunc(e.jobs.lanes, func(l *lanejobs) bool { return l.max == j.max })
	if i < 0 {
		i, e.jobs.lanes = len(e.jobs.lanes), append(e.jobs.lanes, &lanejobs{max: j.max})
	}
	e.jobs.lanes[i].waiting = append(e.jobs.lanes[i].waiting, j)
	e.jobs.mu.Unlock()
	e.jobs.wake.wake()
}

// SubmitJob takes a job: check, decide, keep.
func (e *Enclave) SubmitJob(ctx context.Context, who redoubt.Credential, q redoubt.SubmitJob) (redoubt.Job, error) {
	const op = "SubmitJob"
	q.From = ""
	max := who.Working
	if q.Max != "" {
		l, err := e.policy.Parse(q.Max)
		if err != nil {
			return redoubt.Job{}, e.unmarked(ctx, ask{op: op, who: who, action: redoubt.ActionSubmitJob}, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "label: " + err.Error(), Hint: "redoubt label parse shows what a marking means"})
		}
		max = l
	}
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSubmitJob, fresh: max})
	if err != nil {
		return redoubt.Job{}, err
	}
	ent.Label = e.text(who.Working) // what it says is of START
	if err := e.checkJob(ctx, op, who, max, q); err != nil {
		return redoubt.Job{}, e.noted(ctx, ent, err)
	}
	j, err := e.newJob(ctx, who, max, q)
	if err != nil {
		return redoubt.Job{}, e.noted(ctx, ent, err)
	}
	j.Cred, ent.Detail = who.ID, "job "+string(j.ID)+grantedIn(q)
	b := new(store.Batch)
	unlock, err := e.keepNew(ctx, b, j)
	if err != nil {
		return redoubt.Job{}, e.noted(ctx, ent, err)
	}
	defer unlock()
	done, err := e.standing(who, nil, nil)
	if err != nil {
		return redoubt.Job{}, e.noted(ctx, ent, err)
	}
	defer done()
	if err := e.commit(ctx, b, ent); err != nil {
		return redoubt.Job{}, err
	}
	unlock() // who begins it holds it, and waits for its records
	e.addJob(j)
	e.enqueue(j)
	if err := e.keepSome(ctx, j.start); err != nil { // the next one tries again
		e.log.Error("old jobs could not be let go of", "kind", redoubt.KindOf(err).Error())
	}
	return e.jobFor(j, who.Working), nil
}

// newJob makes a job that nobody knows of yet.
func (e *Enclave) newJob(ctx context.Context, who redoubt.Credential, max label.Label, q redoubt.SubmitJob) (*job, error) {
	start, err := e.sets.of(ctx, who.Working)
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(q)
	if err == nil {
		err = e.admitJob(start, len(spec))
	}
	if err != nil {
		return nil, err
	}
	top, err := e.sets.of(ctx, max)
	if err != nil {
		return nil, err
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	return &job{start: start, max: top, state: jobState{State: redoubt.JobSubmitted, Snapshot: e.snapshot(max)},
		jobRecord: jobRecord{ID: redoubt.JobID(hex.EncodeToString(id[:])), By: who.Subject, Max: top.name, Made: e.clock().UTC(), Spec: q, From: q.From}}, nil
}

// admitJob counts a job towards what one START may submit in a day: another's do not make one fail (3.3), and how those go that were submitted before
// does not either, for that is not known at START.
func (e *Enclave) admitJob(start *labelSet, specBytes int) error {
	day := redoubt.BudgetDay(e.clock())
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	d := e.jobs.days[start]
	if d.day != day {
		d = jobDay{day: day}
	}
	if d.jobs++; d.jobs > redoubt.MaxJobsDay {
		return &redoubt.Error{Op: "SubmitJob", Kind: redoubt.QuotaExceeded, Rule: ruleJobQueue, Hint: fmt.Sprintf("%d jobs were submitted at this label today: wait for the next day (UTC)", redoubt.MaxJobsDay)}
	}
	if d.bytes += int64(specBytes); d.bytes > redoubt.MaxJobsDayBytes {
		return &redoubt.Error{Op: "SubmitJob", Kind: redoubt.QuotaExceeded, Rule: ruleJobQueue, Hint: "the jobs that were submitted at this label today have too much of arguments and variables: put them into an input, or wait for the next day (UTC)"}
	}
	e.jobs.days[start] = d
	return nil
}

// jobDay is what one START has submitted in a day.
type jobDay struct {
	day   int64
	jobs  int
	bytes int64
}

// letGo keeps no more of a job that has ended in memory than it must. j.mu is held.
func (j *job) letGo() { j.Spec = redoubt.SubmitJob{} }

// specOf reads what a job was submitted with, where it was let go of. j.mu is held.
func (e *Enclave) specOf(j *job) error {
	value, err := e.currentRecord(j.start, kindJob+"/"+string(j.ID))
	if err != nil || value == nil {
		return errors.Join(err, &redoubt.Error{Op: "job", Object: string(j.ID), Kind: redoubt.Corrupt})
	}
	var rec jobRecord
	if err := strictJSON(value, &rec); err != nil {
		return &redoubt.Error{Op: "job", Object: string(j.ID), Kind: redoubt.Corrupt, Err: err}
	}
	j.Spec = rec.Spec
	return nil
}

// snapshot is the last time that each label set has given out, of those that a label dominates.
func (e *Enclave) snapshot(of label.Label) map[uint32]int64 {
	all := map[uint32]int64{}
	for _, set := range e.sets.seenBy(of) {
		all[set.id] = set.clock.Load()
	}
	return all
}

// keepNew adds both records of a job to a batch. The caller commits, then unlocks, before anybody is told of it; once more does nothing.
func (e *Enclave) keepNew(ctx context.Context, b *store.Batch, j *job) (unlock func(), err error) {
	first := e.locks.lock(systemBucketID, kindJob+"/"+string(j.ID))
	second := e.locks.lock(systemBucketID, kindJobState+"/"+string(j.ID))
	unlock = sync.OnceFunc(func() { second(); first() })
	if err := errors.Join(e.putJob(ctx, b, j), e.putJobState(ctx, b, j, j.state)); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

func (e *Enclave) putJob(ctx context.Context, b *store.Batch, j *job) error {
	value, err := json.Marshal(j.jobRecord)
	if err != nil {
		return err
	}
	return e.putRecordAt(ctx, b, j.start.label, kindJob+"/"+string(j.ID), value)
}

func (e *Enclave) putJobState(ctx context.Context, b *store.Batch, j *job, s jobState) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return e.putRecordAt(ctx, b, j.max.label, kindJobState+"/"+string(j.ID), value)
}

// checkJob says what is wrong with a job before it is kept.
func (e *Enclave) checkJob(ctx context.Context, op string, who redoubt.Credential, max label.Label, q redoubt.SubmitJob) error {
	bad := func(hint string, args ...any) error {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: ruleJobSpec, Hint: fmt.Sprintf(hint, args...)}
	}
	spec, err := json.Marshal(q)
	l := q.Limits
	switch {
	case err != nil || len(spec) > redoubt.MaxJobSpecBytes:
		return &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Rule: ruleJobSpec, Hint: fmt.Sprintf("arguments, environment and inputs have at most %d bytes together: put the rest into an input", redoubt.MaxJobSpecBytes)}
	case (q.Module == "") == (q.Image == ""):
		return bad("a job runs a WebAssembly module or an image: one of --wasm and --image")
	case len(q.In) > redoubt.MaxJobInputs:
		return bad("a job has at most %d inputs", redoubt.MaxJobInputs)
	case q.Seconds < 0 || q.Seconds > int64(redoubt.MaxJobTime/time.Second):
		return bad("a job may run for at most %s", redoubt.MaxJobTime)
	case q.Retries < 0 || q.Retries > redoubt.MaxJobRetries:
		return bad("a job is tried again at most %d times", redoubt.MaxJobRetries)
	case l.Memory < 0 || l.Disk < 0 || l.Processes < 0 || l.CPUs < 0 || math.IsNaN(l.CPUs):
		return bad("limits are above 0")
	case l.Memory > redoubt.MaxJobMemory || l.Disk > redoubt.MaxJobDisk || l.Processes > redoubt.MaxJobProcesses || l.CPUs > redoubt.MaxJobCPUs:
		return bad("a job may have at most %d GiB of memory, %d GiB of disk, %d processes and %d processors", redoubt.MaxJobMemory>>30, redoubt.MaxJobDisk>>30, redoubt.MaxJobProcesses, redoubt.MaxJobCPUs)
	}
	for _, s := range slices.Concat(q.Args, q.Env, q.Network) {
		if strings.ContainsRune(s, 0) {
			return bad("an argument or a variable holds a NUL")
		}
	}
	for _, v := range q.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return bad("the environment is NAME=VALUE: %q is not", v)
		}
	}
	for _, in := range q.In {
		if _, err := e.readable(op, in.Bucket); err != nil || in.Bucket == JobBucket {
			return &redoubt.Error{Op: op, Object: string(in.Bucket), Kind: redoubt.NoBucket}
		}
	}
	if q.Module != "" {
		has, err := e.hasModule(who.Working, q.Module)
		if strings.HasPrefix(who.ID, schedulePrefix) && err == nil { // keepModules keeps it
			f, err2 := e.moduleAt(who.Working, q.Module)
			has, err = f.rec != nil, err2
		}
		if err != nil || !has {
			return errors.Join(err, &redoubt.Error{Op: op, Object: q.Module, Kind: redoubt.Invalid, Rule: ruleJobProgram, Hint: "the module is not here: put it first, at START or below"})
		}
	}
	if err := e.checkGranted(ctx, op, who, max, q); err != nil {
		return err
	}
	if q.Out.Bucket == "" {
		return nil
	}
	b, err := e.bucket(op, q.Out.Bucket)
	if err != nil {
		return err
	}
	a := ask{op: op, who: who, action: redoubt.ActionPutObject, bucket: b, name: redoubt.ObjectName{Bucket: q.Out.Bucket, Key: q.Out.Prefix}, fresh: who.Working}
	if d, ent := e.judge(ctx, a); !d.Allow && d.Rule != "within-bucket-range (2.1)" { // which it may rise into
		ent.Kind = d.Kind.Error()
		return errors.Join(e.record(ctx, ent), e.refusal(d, a))
	}
	return nil
}
