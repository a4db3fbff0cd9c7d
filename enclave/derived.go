package enclave

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"redoubt"
	"redoubt/compute/image"
	"redoubt/label"
	"redoubt/store"
)

// What jobs make of what they read. Each version that a job makes (an output, its log, what was compiled of its module) bears a mark: the job, its
// program, and the versions that it had opened by then. Every one of those is dominated by the version's own label, for the job rose by it: who may
// read the mark is told nothing by it, and nobody is shown it. It goes where the version goes. A spill is followed by it (spilltrace.go).

// metaMade is the metadata that a mark stands in. Clients cannot write it: names that begin with redoubt are reserved.
const metaMade = "redoubt-made"

const (
	maxReadsMarked = 64        // versions that a mark names: a job may make 10,000 versions
	maxReadsKept   = 32 << 10  // that are kept of a job beside its marks, at MAX
	maxReadsKnown  = 256 << 10 // that are known of what runs, in memory
)

// kindJobReads is the record of a job that opened more than a mark names: their stamps, at MAX, in the commit that ends the job.
const kindJobReads = "job.reads"

// mark says what a version was made of.
type mark struct {
	job     redoubt.JobID
	program string // of a module its SHA-256, of an image its repository
	reads   []versionID
	more    bool // it opened others too
}

// encode gives the mark as it stands in the metadata.
func (m mark) encode() string {
	more := "0"
	if m.more {
		more = "1"
	}
	raw := make([]byte, 0, len(m.reads)*len(versionID{}))
	for _, id := range m.reads {
		raw = append(raw, id[:]...)
	}
	return strings.Join([]string{string(m.job), m.program, more, base64.StdEncoding.EncodeToString(raw)}, "|")
}

// markOf reads the mark of a version. One that does not decode is another node's, and may have opened anything.
func markOf(r *record) (m mark, is bool) {
	text, is := r.attrs.Meta[metaMade]
	if !is {
		return m, false
	}
	part := strings.Split(text, "|")
	if len(part) != 4 {
		return mark{more: true}, true
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(part[3])
	if err != nil || len(raw)%len(versionID{}) != 0 || len(raw) > maxReadsMarked*len(versionID{}) {
		return mark{more: true}, true
	}
	return mark{job: redoubt.JobID(part[0]), program: part[1], more: part[2] != "0", reads: stampsOf(raw)}, true
}

func stampsOf(raw []byte) (all []versionID) {
	for stamp := range slices.Chunk(raw, len(versionID{})) {
		all = append(all, versionID(stamp))
	}
	return all
}

// shown is a version's attributes without its mark.
func shown(a redoubt.Attributes) redoubt.Attributes {
	if _, is := a.Meta[metaMade]; is {
		a.Meta = maps.Clone(a.Meta)
		delete(a.Meta, metaMade)
	}
	return a
}

// programOf names what a job runs, beside what it opened of it: what was compiled of a module for its share, or unpacked of an image, serves again
// without being opened.
func programOf(q redoubt.SubmitJob) string {
	if q.Module != "" {
		return q.Module
	}
	ref, err := image.ParseReference(q.Image)
	if err != nil {
		return ""
	}
	return ref.Repository.String()
}

// made is the mark of what an attempt makes now. r.mu is held.
func (r *jobRun) made() mark {
	m := mark{job: r.j.ID, program: programOf(r.j.Spec), more: r.over || len(r.reads) > maxReadsMarked, reads: slices.SortedFunc(maps.Keys(r.reads), byStamp)}
	m.reads = m.reads[:min(len(m.reads), maxReadsMarked)]
	return m
}

func byStamp(a, b versionID) int { return bytes.Compare(a[:], b[:]) }

// marked gives attributes the mark of an attempt as it is now.
func (r *jobRun) marked(a redoubt.Attributes) redoubt.Attributes {
	r.mu.Lock()
	m := r.made()
	r.mu.Unlock()
	return m.on(a)
}

// on gives attributes a mark.
func (m mark) on(a redoubt.Attributes) redoubt.Attributes {
	if a.Meta = maps.Clone(a.Meta); a.Meta == nil {
		a.Meta = map[string]string{}
	}
	a.Meta[metaMade] = m.encode()
	return a
}

// copiedMark keeps in the attributes of a copy what made it.
func copiedMark(src *record, a redoubt.Attributes) redoubt.Attributes {
	if m, is := markOf(src); is && a.Meta[metaMade] == "" {
		return m.on(a)
	}
	return a
}

// keepReads adds to a batch what an attempt opened, where its marks do not name all of it. Of a job that is tried again the attempts before count
// too: their logs stay for a day. The job's record is locked.
func (r *jobRun) keepReads(ctx context.Context, b *store.Batch) error {
	r.mu.Lock()
	all, over := slices.Collect(maps.Keys(r.reads)), r.over
	r.mu.Unlock()
	if len(all) <= maxReadsMarked && !over {
		return nil
	}
	key := kindJobReads + "/" + string(r.j.ID)
	defer r.e.locks.lock(systemBucketID, key)()
	if r.j.state.Attempt > 1 {
		was, err := r.e.currentRecord(r.j.max, key)
		if err != nil {
			return err
		}
		all = append(all, stampsOf(was[:len(was)-len(was)%len(versionID{})])...)
	}
	slices.SortFunc(all, byStamp)
	if all = slices.Compact(all); over || len(all) > maxReadsKept { // what says "more" without a record of what, may have opened anything
		return r.e.forgetRecord(b, r.j.max, key)
	}
	raw := make([]byte, 0, len(all)*len(versionID{}))
	for _, id := range all {
		raw = append(raw, id[:]...)
	}
	return r.e.putRecordAt(ctx, b, r.j.max.label, key, raw)
}

// allReads gives all that a job opened which ran here; false: it is not known.
func (e *Enclave) allReads(id redoubt.JobID) ([]versionID, bool, error) {
	for _, set := range e.sets.all() {
		raw, err := e.currentRecord(set, kindJobReads+"/"+string(id))
		if err != nil {
			return nil, false, err
		}
		if len(raw) > 0 && len(raw)%len(versionID{}) == 0 {
			return stampsOf(raw), true, nil
		}
	}
	return nil, false, nil
}

// readers are the attempts and instances that run, and what was taken out as a spill. What one of them commits is committed with gate held shared,
// and what is spilled becomes known with gate held alone: so who has read it is seen while it runs, or in what it has committed. gate is taken before
// any other lock but spillMu, mu before a run's own. Copies and what arrives over a link hold it shared too.
type readers struct {
	gate    sync.RWMutex
	mu      sync.Mutex
	runs    map[*jobRun]struct{}
	spilt   map[versionID]spilt // what reports take out
	modules map[string]spilt    // SHA-256 of what was spilled -> the oldest version of it that is taken out
	spared  map[string]map[versionID]struct{}
	turn    int // counts what was spilled since the node began: nothing that was kept in memory before serves after

	taken atomic.Uint64 // counts what reports take out, ends of keys, and what goes that was rebuilt: what is open looks whether it is its own (standing.go)
}

// spilt is a version that a report takes out.
type spilt struct {
	report string
	origin
}

// loadReaders takes up what reports have taken out.
func (e *Enclave) loadReaders(ctx context.Context) error {
	x := &e.readers
	x.runs, x.spilt, x.modules, x.spared = map[*jobRun]struct{}{}, map[versionID]spilt{}, map[string]spilt{}, map[string]map[versionID]struct{}{}
	return e.Records(ctx, kindSpill, func(_ string, value []byte) error {
		r := new(spillRecord)
		if err := strictJSON(value, r); err != nil {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: err}
		}
		if r.Erases {
			e.takenOut(r)
		}
		return nil
	})
}

// takenOut has it known what a report has listed.
func (e *Enclave) takenOut(r *spillRecord) {
	x := &e.readers
	defer x.taken.Add(1)
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, f := range r.Found {
		if !r.goes(i) || len(f.Stamp) != len(versionID{}) {
			continue
		}
		id := versionID(f.Stamp)
		s := spilt{r.ID, origin{of: r.Copies[i].Version, stamp: id}}
		if set := e.sets.byTag(id.tag()); set != nil {
			s.label = set.label
		}
		if x.spilt[id].report == "" {
			x.spilt[id] = s
			x.turn++
		}
		if was := x.modules[f.Sum]; r.isContent(i) && (was.report == "" || was.stamp.newer(id)) {
			x.modules[f.Sum] = s
		}
	}
	if x.spared[r.ID] == nil {
		x.spared[r.ID] = map[versionID]struct{}{}
	}
	for _, token := range r.Spare {
		if id, ok := e.ids.parse(string(token)); ok {
			x.spared[r.ID][id] = struct{}{}
		}
	}
}

// begin has an attempt or an instance known from here on.
func (x *readers) begin(r *jobRun) *jobRun {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.runs[r] = struct{}{}
	return r
}

func (x *readers) end(r *jobRun) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.runs, r)
}

// takes says whether a report takes a version out.
func (x *readers) takes(id versionID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.spilt[id].report != ""
}

// closes names the report that takes out what a version was made of: nobody opens that any more, also before it is found, or when it comes later
// over a link. "": none does. One that has no stamp yet is being put at that label.
func (x *readers) closes(rec *record, at label.Label) string {
	m, is := markOf(rec)
	if !is { // most are not, and take no lock
		return ""
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	id := rec.id
	if id.isZero() {
		id = newestStamp
	}
	by := func(s spilt) bool {
		_, spared := x.spared[s.report][rec.id]
		return s.report != "" && !spared
	}
	if s := x.modules[m.program]; by(s) && id.newer(s.stamp) {
		return s.report
	}
	for _, r := range m.reads {
		if s := x.spilt[r]; by(s) && s.ledTo(id, at) {
			return s.report
		}
	}
	return ""
}

// holds names the report that takes out what a version holds, byte for byte: one that comes over a link was copied where that was not known yet. "": none does.
func (x *readers) holds(entry *redoubt.JournalEntry) string {
	if entry.SizeBytes == 0 {
		return ""
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.modules) == 0 {
		return ""
	}
	return x.modules[hex.EncodeToString(entry.Content[:])].report
}

// note has it known that a version is opened, before its content is given.
func (r *jobRun) note(op string, rec *record) error {
	r.mu.Lock()
	if len(r.reads) < maxReadsKnown {
		if r.reads == nil {
			r.reads = map[versionID]struct{}{}
		}
		r.reads[rec.id] = struct{}{}
	} else if _, known := r.reads[rec.id]; !known {
		r.over = true
	}
	r.mu.Unlock()
	set := r.e.sets.byTag(rec.id.tag())
	if set == nil || r.e.readers.takes(rec.id) || r.e.readers.closes(rec, set.label) != "" { // it was found before it was taken out
		return &redoubt.Error{Op: op, Kind: redoubt.NotFound}
	}
	return nil
}

// stop ends an attempt or an instance that read what was spilled: what it has said goes at once, and nothing more is taken of it.
func (r *jobRun) stop() {
	r.mu.Lock()
	r.spilt, r.log, r.logged = true, nil, 0
	for c := range r.conns {
		c.cut("what the job had read was taken out as a spill")
	}
	r.mu.Unlock()
	r.cancel()
}

func (r *jobRun) stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spilt
}

// closeReaders has it known what a report has listed, and ends whatever runs and has read it. The report tells of those.
func (e *Enclave) closeReaders(ctx context.Context, r *spillRecord) error {
	o, err := e.originsOf(ctx, r)
	if err != nil {
		return err
	}
	e.readers.gate.Lock()
	defer e.readers.gate.Unlock()
	e.takenOut(r) // before it is asked who has read it: who reads it now is refused, or seen
	for _, run := range e.readersOf(r, o) {
		run.stop()
	}
	return nil
}

// readersOf finds what runs and has read what a report lists, or may have, and lists it.
func (e *Enclave) readersOf(r *spillRecord, o *origins) (all []*jobRun) {
	e.readers.mu.Lock()
	defer e.readers.mu.Unlock()
	for run := range e.readers.runs {
		run.mu.Lock()
		over, at, program, read := run.over, run.label, programOf(run.j.Spec), maps.Clone(run.reads)
		run.mu.Unlock()
		if o.from(newestStamp, at, maps.Keys(read), program) == "" && !o.mayHave(over, program, at) {
			continue
		}
		all = append(all, run)
		r.addReader(redoubt.SpillReader{Job: run.j.ID, By: run.j.By, Max: run.j.max.label.Banner(), Ended: r.Erases})
	}
	return all
}
