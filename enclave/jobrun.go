package enclave

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// jobRun is one attempt of a job. Its label rises with what it opens (jobfiles.go).
type jobRun struct {
	e     *Enclave
	j     *job
	from  map[uint32]int64 // the snapshot; nil: everything is as it is when it is read
	acts  string           // the credential's ID; "": that of the job
	ended chan struct{}
	once  sync.Once
	ends  atomic.Bool // it puts what it wrote, and reads no more

	mu         sync.Mutex
	label      label.Label
	reads      map[versionID]struct{} // that it has opened
	over       bool                   // and others that are not in reads
	spilt      bool                   // one of them was reported as a spill
	originator redoubt.SubjectName    // of what it was told that needs a consent to leave; "": it was told of nothing such
	log        []byte
	logged     int64
	more       broadcast // of the log
	outs       []*write
	size       int64                  // of what the commit of outs carries itself
	total      int64                  // of outs
	dials      atomic.Int64           // it asked for
	conns      map[*jobConn]bool      // that are open
	spent      map[*destination]int64 // bytes that were sent to one and taken from it
}

// errSpilt is of an attempt that has read what was reported as a spill since.
var errSpilt = &redoubt.Error{Op: "job", Kind: redoubt.Conflict, Rule: ruleJobSpilt, Hint: "what it had read was erased by a security officer: nothing of this attempt is kept"}

// maxInlineOutputs bounds the outputs of one job that are small enough to travel in the commit itself: all of them are one.
const maxInlineOutputs = 256 << 20

// NextJob waits for a job that is to run and begins an attempt.
func (e *Enclave) NextJob(ctx context.Context, accept func(lane string, q redoubt.SubmitJob) bool) (redoubt.JobRun, error) {
	for {
		woken := e.jobs.wake.wait()
		for j := e.takeJob(accept); j != nil; j = e.takeJob(accept) {
			r, err := e.beginJob(ctx, j)
			if err != nil {
				e.enqueue(j)
				return nil, err
			}
			if r != nil {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-woken:
		}
	}
}

// Retry has those that wait looked at again.
func (e *Enclave) Retry() { e.jobs.wake.wake() }

// takeJob takes the oldest that may run, of one lane after another.
func (e *Enclave) takeJob(accept func(string, redoubt.SubmitJob) bool) *job {
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	for range e.jobs.lanes {
		e.jobs.turn = (e.jobs.turn + 1) % len(e.jobs.lanes)
		l := e.jobs.lanes[e.jobs.turn]
		for len(l.waiting) > 0 && !l.waiting[0].waits.Load() { // canceled meanwhile
			l.waiting = l.waiting[1:]
		}
		if len(l.waiting) > 0 && accept(laneName(l.max), l.waiting[0].Spec) {
			j := l.waiting[0]
			l.waiting = l.waiting[1:]
			j.waits.Store(false)
			return j
		}
	}
	return nil
}

// laneName tells lanes apart, and tells nothing of their labels.
func laneName(max *labelSet) string {
	sum := sha256.Sum256(max.text)
	return hex.EncodeToString(sum[:8])
}

// beginJob makes the beginning of an attempt durable. It gives none where the job may no longer run.
func (e *Enclave) beginJob(ctx context.Context, j *job) (*jobRun, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.State != redoubt.JobSubmitted {
		return nil, nil
	}
	ent, err := e.decide(ctx, ask{op: "RunJob", who: e.asJob(j, j.start.label), action: redoubt.ActionRunJob, fresh: j.max.label, detail: "job " + string(j.ID) + grantedIn(j.Spec)})
	if err == nil && j.Spec.Driver == redoubt.DriverRunc { // the estate file may have changed
		err = e.trusted(ctx, "RunJob", e.asJob(j, j.start.label), j.max.label)
	}
	s := j.state
	if err != nil {
		if k := redoubt.KindOf(err); k != redoubt.Denied && k != redoubt.Unauthenticated && k != redoubt.Expired {
			return nil, err
		}
		s.State, s.Ended, s.Exit, s.Why = redoubt.JobFailed, e.clock().UTC(), -1, fmt.Sprintf("%s may no longer have it run: the clearance, the credential that it was submitted with, or a grant of the estate file has ended", j.By)
		if err := e.keepState(ctx, j, s, nil); err != nil {
			return nil, err
		}
		j.letGo()
		return nil, nil
	}
	if j.Spec.Module == "" && j.Spec.Image == "" { // it was let go of
		if err := e.specOf(j); err != nil {
			return nil, err
		}
	}
	s.State, s.Attempt, s.Began, s.Ended, s.Exit, s.Why, s.Label = redoubt.JobRunning, s.Attempt+1, e.clock().UTC(), time.Time{}, 0, "", j.start.name
	if err := e.keepState(ctx, j, s, ent); err != nil {
		return nil, err
	}
	j.run = e.readers.begin(&jobRun{e: e, j: j, from: s.Snapshot, ended: make(chan struct{}), label: j.start.label})
	return j.run, nil
}

// keepState makes a job's state durable, then visible. j.mu is held.
func (e *Enclave) keepState(ctx context.Context, j *job, s jobState, ent *entry) error {
	b := new(store.Batch)
	defer e.locks.lock(systemBucketID, kindJobState+"/"+string(j.ID))()
	if err := e.putJobState(ctx, b, j, s); err != nil {
		return err
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return err
	}
	j.state = s
	j.news.wake()
	return nil
}

// lost is about an attempt that ended through no fault of the program: it begins anew, but not forever.
func (e *Enclave) lost(ctx context.Context, j *job, why string) error {
	j.mu.Lock()
	s := j.state
	if s.State != redoubt.JobRunning {
		j.run = nil
		j.mu.Unlock()
		return nil
	}
	if why != "" {
		s.Lost++
	}
	s.Attempt--
	if s.State, s.Label = redoubt.JobSubmitted, ""; s.Lost >= maxLostAttempts {
		s.State, s.Ended, s.Exit, s.Why = redoubt.JobFailed, e.clock().UTC(), -1, fmt.Sprintf("%s, %d times", why, s.Lost)
	}
	err := e.keepState(ctx, j, s, e.jobEntry(j, "lost: "+why))
	if err == nil {
		j.run = nil
	}
	if err == nil && s.State.Final() {
		j.letGo()
	}
	j.mu.Unlock()
	if err == nil && s.State == redoubt.JobSubmitted {
		e.enqueue(j)
	}
	return err
}

// jobEntry describes what the node does about a job, at MAX.
func (e *Enclave) jobEntry(j *job, detail string) *entry {
	return e.describe(context.Background(), ask{who: e.asJob(j, j.max.label), action: redoubt.ActionRunJob, fresh: j.max.label, detail: "job " + string(j.ID) + " " + detail}, true, "job (5.1)")
}

// rise has the job's label rise by a version that it is told of next. Of one that its originator alone may let leave it is kept whose that is.
func (r *jobRun) rise(f found) error {
	var originator redoubt.SubjectName
	if len(redoubt.ConsentMarks(f.set.label)) > 0 {
		rec, err := decodeRecord(f.raw)
		if err != nil {
			return &redoubt.Error{Op: "job", Kind: redoubt.Corrupt, Err: err}
		}
		originator = originatorOf(rec)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.risesTo(r.e.risen(r.label, f.set.label))
	if r.originator != "" && originator != "" && originator != r.originator {
		originator = redoubt.SeveralOriginators
	}
	r.originator = cmp.Or(originator, r.originator)
	return nil
}

// risen is the label so far.
func (r *jobRun) risen() label.Label {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.label
}

// now is the label so far as text, and how much was written to the log.
func (r *jobRun) now() (banner string, logged int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.label.Banner(), r.logged
}

func (r *jobRun) who(working label.Label) redoubt.Credential {
	c := r.e.asJob(r.j, working)
	c.ID = cmp.Or(r.acts, c.ID)
	return c
}

// cancel tells whoever runs it to stop.
func (r *jobRun) cancel() { r.once.Do(func() { close(r.ended) }) }

// Canceled ends when the job is ended.
func (r *jobRun) Canceled() <-chan struct{} { return r.ended }

// Job is the job itself.
func (r *jobRun) Job() redoubt.Job {
	return redoubt.Job{ID: r.j.ID, By: r.j.By, Made: r.j.Made, Start: r.j.start.label.Banner(), Max: r.j.max.label.Banner(), Spec: r.j.Spec, State: redoubt.JobRunning}
}

// Share names whom a sandbox may serve. It is another one after a spill: what was unpacked or begun before may hold what was taken out.
func (r *jobRun) Share() string {
	r.e.readers.mu.Lock()
	turn := r.e.readers.turn
	r.e.readers.mu.Unlock()
	return r.share(strconv.Itoa(turn))
}

func (r *jobRun) share(of string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(r.j.By), r.j.start.name, r.j.max.name, of}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Lane is that of NextJob.
func (r *jobRun) Lane() string { return laneName(r.j.max) }

func (r *jobRun) keptName(name string) redoubt.ObjectName {
	return redoubt.ObjectName{Bucket: JobBucket, Key: "made/" + r.share("") + "/" + name}
}

// Kept gives what Keep kept.
func (r *jobRun) Kept(ctx context.Context, name string) ([]byte, error) {
	o, err := r.e.GetObject(ctx, r.e.own(r.j.max.label), redoubt.ReadObject{Name: r.keptName(name)})
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return io.ReadAll(o.Reader(0, -1))
}

// Keep keeps what was made of the program before it ran. It does so at MAX: at START it would tell when a job of the share began.
func (r *jobRun) Keep(ctx context.Context, name string, content []byte) error {
	r.e.readers.gate.RLock()
	defer r.e.readers.gate.RUnlock()
	if r.stopped() {
		return errSpilt
	}
	_, err := r.e.PutObject(ctx, r.e.own(r.j.max.label), redoubt.PutObject{Name: r.keptName(name), Attributes: r.marked(redoubt.Attributes{}), SizeBytes: int64(len(content)), Body: bytes.NewReader(content)})
	return err
}

// Log takes what the program writes. Who follows it is told in turn.
func (r *jobRun) Log(_ int, text []byte) {
	r.mu.Lock()
	if r.spilt {
		r.mu.Unlock()
		return
	}
	if room := redoubt.MaxJobLogBytes - len(r.log); room > 0 {
		r.log = append(r.log, text[:min(room, len(text))]...)
	}
	r.logged += int64(len(text))
	r.mu.Unlock()
	r.more.wake()
}

// Put takes one output: mark, decide, seal and stage. It shows with Finish.
func (r *jobRun) Put(ctx context.Context, path string, size int64, content io.Reader) (err error) {
	const op = "PutOutput"
	e, out := r.e, r.j.Spec.Out
	if out.Bucket == "" {
		return &redoubt.Error{Op: op, Object: "/out/" + path, Kind: redoubt.Invalid, Hint: "the job was submitted without --out: there is nowhere to put what it writes"}
	}
	name := redoubt.ObjectName{Bucket: out.Bucket, Key: out.Prefix + path}
	if err := validName(op, name); err != nil {
		return err
	}
	r.ends.Store(true)
	disk := cmp.Or(r.j.Spec.Limits.Disk, redoubt.DefaultJobDisk)
	r.mu.Lock()
	at, made, n, originator := r.label, r.made(), len(r.outs), cmp.Or(r.originator, r.j.By)
	fits := size >= 0 && size <= disk-r.total
	if fits {
		r.total += size
	}
	r.mu.Unlock()
	if !fits { // a file with holes may be larger than what it takes
		return &redoubt.Error{Op: op, Object: "/out/" + path, Kind: redoubt.TooLarge, Hint: fmt.Sprintf("what it writes has more than %d MiB; ask for more with --disk", disk>>20)}
	}
	if n >= redoubt.MaxJobOutputs {
		return &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Hint: fmt.Sprintf("a job writes at most %d files: put them into an archive", redoubt.MaxJobOutputs)}
	}
	b, err := e.bucket(op, name.Bucket)
	if err != nil {
		return err
	}
	l := at
	if !b.facts.Default.IsZero() {
		l = label.Join(at, b.facts.Default)
	}
	who := r.who(at) // a bucket whose default lies above that is written up, as by anybody
	asked := ask{op: op, who: who, action: redoubt.ActionPutObject, bucket: b, name: name, fresh: l, detail: "job " + string(r.j.ID)}
	ent, err := e.decide(ctx, asked)
	if err != nil {
		return err
	}
	defer e.noteFailure(ctx, ent, &err)
	w, err := e.write(ctx, b, name, l, who)
	if err != nil {
		return err
	}
	w.asked = asked
	if len(redoubt.ConsentMarks(l)) > 0 {
		w.rec.attrs = withOriginator(w.rec.attrs, originator, r.j.By)
	}
	w.rec.attrs = made.on(w.rec.attrs)
	if err := r.take(ctx, w, size, content); err != nil {
		w.discard()
		return err
	}
	w.entry = ent
	r.mu.Lock()
	r.outs = append(r.outs, w)
	r.mu.Unlock()
	return nil
}

// take seals and stages an output, however small: it waits for the others.
func (r *jobRun) take(ctx context.Context, w *write, size int64, content io.Reader) (err error) {
	if w.rec.retention, err = w.b.retention("PutOutput", redoubt.Retention{}, false, r.e.clock()); err != nil {
		return err
	}
	if err := w.reserve(w.least() + size); err != nil {
		return err
	}
	w.buffer = buffers.Get().(*[]byte)
	ended, err := w.fill(content)
	if err != nil {
		return err
	}
	if ended {
		if r.size += int64(w.filled); r.size > maxInlineOutputs {
			return &redoubt.Error{Op: "PutOutput", Kind: redoubt.TooLarge, Hint: "there are too many small outputs: put them into an archive"}
		}
		content = noBody{}
	}
	return w.stream(ctx, content, w.filled, size)
}

func logName(id redoubt.JobID) redoubt.ObjectName {
	return redoubt.ObjectName{Bucket: JobBucket, Key: "log/" + string(id)}
}
