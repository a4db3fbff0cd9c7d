package enclave

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/store"
)

const (
	kindSpill     = "spill"
	ruleUpgrade   = "upgrade (2.6)"
	ruleSpare     = "spare (2.7)"
	maxSpills     = 1000 // that are listed; copies of one
	maxSpillBytes = 1 << 20
)

// spillRecord is a report as it is kept: what was found, and what its progress is read off.
type spillRecord struct {
	redoubt.SpillReport
	Found  []spillFound `json:"found"` // of Copies, each; the first is the version itself
	Size   int64        `json:"size"`
	Erases bool         `json:"erases,omitempty"` // not to find alone

	Spare []redoubt.VersionID `json:"spare,omitempty"` // derivatives that an officer has looked at, and that stay
	After string              `json:"after,omitempty"` // the report that this one goes on with

	Searched time.Time `json:"searched,omitzero"` // when the search came to its first end: what was put here since is nobody's oversight

	bytes int // of Copies, Found and Readers as they are kept; 0: not counted yet
}

// spillFound is where one copy stood in its label set's journal, and where its erasure does.
type spillFound struct {
	Set    string `json:"set"`
	Made   string `json:"made,omitempty"` // of an upload: the set that it was begun at
	Stamp  []byte `json:"stamp"`
	At     uint64 `json:"at"` // 0: the journal has let go of it, so every peer of then has it
	Erased uint64 `json:"erased"`
	Done   bool   `json:"done,omitempty"` // it was taken out: what is left of its keys is a duty
	Sum    string `json:"sum,omitempty"`  // SHA-256 of its content, where that is followed
	Size   int64  `json:"size,omitempty"` // of that

	Placed bool             `json:"placed,omitempty"` // At was looked for
	From   redoubt.NodeName `json:"from,omitempty"`   // the peer whose erasure took it away before the report
}

// What a copy is to a report, where more than the word is asked of it.
const (
	relItself  = "itself"
	relSame    = "same content"
	relLater   = "later"
	relUpload  = "upload"
	relDerived = "derived"
	relMayBe   = "may be derived"
)

// whyMore is of a report that is full.
const whyMore = "there are more than one report takes: what it lists is erased; ask for the report of the same version once more, and the next one goes on"

// whyMayBe is of a report that lists what nobody has looked at.
const whyMayBe = "what it lists as \"may be derived\" is left, since it is not known what it was made of: look at each, and report it as a spill, or keep it by the same report with --spare VERSION"

// whyUnknown is of a report of what an erasure took away that did not read back by then.
const whyUnknown = "what it held is not known any more, so copies of its content are not found: what was made of it is"

// add lists a copy that is not listed yet, or not as what it turned out to be; false: the report is full.
func (r *spillRecord) add(c redoubt.SpillCopy, f spillFound) bool {
	c.Spared = (c.Relation == relDerived || c.Relation == relMayBe || c.Above) && slices.Contains(r.Spare, c.Version)
	if i := slices.IndexFunc(r.Copies, func(x redoubt.SpillCopy) bool {
		return x.Bucket == c.Bucket && x.Key == c.Key && x.Version == c.Version
	}); i >= 0 {
		if was := r.Copies[i].Relation; was == relLater && c.Relation != relLater || was == relMayBe && c.Relation == relDerived {
			f.At, f.Placed = r.Found[i].At, r.Found[i].Placed
			r.Copies[i], r.Found[i], r.bytes = c, f, 0
		}
		return true
	}
	if r.bytes == 0 {
		r.bytes = toldBytes(r.Copies, r.Found, r.Readers)
	}
	n := toldBytes(c, f)
	if len(r.Copies) == maxSpills || r.bytes+n > maxSpillBytes/2 {
		r.Why = whyMore
		return false
	}
	r.bytes += n
	r.Copies, r.Found = append(r.Copies, c), append(r.Found, f)
	return true
}

// addReader lists what ran and had read it.
func (r *spillRecord) addReader(x redoubt.SpillReader) {
	if len(r.Readers) == maxSpills || slices.ContainsFunc(r.Readers, func(y redoubt.SpillReader) bool { return x.Job == y.Job && x.Max == y.Max && x.By == y.By }) {
		return
	}
	r.Readers, r.bytes = append(r.Readers, x), 0
}

// listed changes when what is listed does.
func (r *spillRecord) listed() int {
	going := 0
	for i := range r.Copies {
		if r.goes(i) {
			going++
		}
	}
	return going + len(r.Copies)
}

func (r *spillRecord) lists(id versionID) bool {
	return slices.ContainsFunc(r.Found, func(f spillFound) bool { return bytes.Equal(f.Stamp, id[:]) })
}

// goes says whether what is listed is a version that is erased; what is not an officer looks at, or has.
func (r *spillRecord) goes(i int) bool {
	c := &r.Copies[i]
	return !c.Spared && c.Relation != relLater && c.Relation != relUpload && c.Relation != relMayBe
}

// erased are the listed versions that go, by their names.
func (r *spillRecord) erased() versions {
	of := versions{}
	for i, c := range r.Copies {
		if r.goes(i) {
			of.add(redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}, c.Version)
		}
	}
	return of
}

// ReportSpill closes the version, in one commit with the report, then finds every copy and what was made of it, and erases all of it; see
// redoubt.SpillService.
func (e *Enclave) ReportSpill(ctx context.Context, who redoubt.Credential, q redoubt.Spill) (out redoubt.SpillReport, err error) {
	const op = "ReportSpill"
	name, id := q.Name, q.Version
	if strings.TrimSpace(q.Reason) == "" {
		return out, &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.Invalid, Hint: "a report has a reason: --reason TEXT"}
	}
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSpill, name: name, detail: q.Reason})
	if err != nil {
		return out, err
	}
	if q.Erase {
		begun, err := e.spillOf(name, id)
		if err == nil && begun == nil {
			err = e.maySpare(op, q)
		} else if err == nil {
			err = e.mayStillSpare(op, begun, q)
		}
		if err != nil {
			return out, e.noted(ctx, ent, err)
		}
		if err := e.record(ctx, ent); err != nil {
			return out, err
		}
		if begun != nil {
			return e.reportOn(ctx, who, begun, q)
		}
	} else if err := e.record(ctx, ent); err != nil {
		return out, err
	}
	b, err := e.readable(op, name.Bucket)
	if err != nil {
		return out, err
	}
	f, err := e.reported(ctx, op, b, who, name, id)
	if err != nil {
		return out, err
	}
	if f.gone && q.Erase && id == "" { // whose report it is was not known before
		begun, err := e.spillOf(name, e.ids.versionID(f.rec.id))
		if err != nil {
			return out, err
		}
		if begun != nil {
			return e.reportOn(ctx, who, begun, q)
		}
	}
	sum, err := e.spilledSum(name, f)
	if err != nil {
		return out, err
	}
	now := e.clock().UTC().Truncate(time.Second)
	r := &spillRecord{Size: f.rec.size, Erases: q.Erase, Spare: q.Spare, SpillReport: redoubt.SpillReport{ID: newSpillID(), Node: e.name, Name: name, Version: e.ids.versionID(f.rec.id), Reason: q.Reason, By: who.Subject, Made: now,
		SHA256: sum, Copies: []redoubt.SpillCopy{}, Peers: []redoubt.SpillPeer{}, Releases: []redoubt.SpillRelease{}}}
	if sum == "" {
		r.Why = whyUnknown
	}
	if err := e.listCopy(r, name, f, relItself); err != nil {
		return out, err
	}
	if err := e.findPlaces(r); err != nil {
		return out, err
	}
	if q.Erase {
		begin := e.beginGone
		if !f.gone {
			begin = func(ctx context.Context, r *spillRecord) error { return e.beginSpill(ctx, who, b, f, r) }
		}
		if err := begin(ctx, r); err != nil {
			return out, err
		}
		return e.endSpill(ctx, r.ID)
	}
	for _, find := range slices.Concat(e.searches(), []spillSearch{e.traceUnsure}) {
		if err := find(ctx, r); err != nil {
			return out, err
		}
	}
	o, err := e.originsOf(ctx, r)
	if err != nil {
		return out, err
	}
	e.readersOf(r, o)
	if err := e.findPlaces(r); err != nil {
		return out, err
	}
	if err := e.keepSpill(ctx, r, nil); err != nil {
		return out, err
	}
	return e.asItStands(r)
}

// reportOn brings a report that has begun to its end. One that is there and full is gone on with by another: of the same version, and of what was made of
// all that was listed.
func (e *Enclave) reportOn(ctx context.Context, who redoubt.Credential, begun *spillRecord, q redoubt.Spill) (out redoubt.SpillReport, err error) {
	if begun, err = e.spareMore(ctx, begun, q); err != nil {
		return out, err
	}
	if _, due, err := e.engine.Get(dutyKey(spillDuty + begun.ID)); err != nil || due || begun.Why != whyMore {
		if err != nil {
			return out, err
		}
		return e.endSpill(ctx, begun.ID)
	}
	next := &spillRecord{Size: begun.Size, Erases: true, Spare: begun.Spare, After: begun.ID, Searched: begun.Searched, Found: begun.Found[:1:1], SpillReport: begun.SpillReport}
	next.ID, next.Reason, next.By, next.Made, next.Why, next.Readers = newSpillID(), q.Reason, who.Subject, e.clock().UTC().Truncate(time.Second), "", nil
	if next.Copies = begun.Copies[:1:1]; begun.SHA256 == "" {
		next.Why = whyUnknown
	}
	if err := e.keepSpill(ctx, next, func(b *store.Batch) error { return (duty{}).add(b, spillDuty+next.ID) }); err != nil {
		return out, err
	}
	return e.endSpill(ctx, next.ID)
}

func newSpillID() string {
	var raw [8]byte
	rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}

// chain gives a report and those that it goes on with.
func (e *Enclave) chain(r *spillRecord) (all []*spillRecord, err error) {
	for all = append(all, r); r.After != ""; all = append(all, r) {
		if r, err = e.spill(r.After); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// mayStillSpare is maySpare of a report that has begun: what it has listed as derived goes, and is not kept by saying so later.
func (e *Enclave) mayStillSpare(op string, begun *spillRecord, q redoubt.Spill) error {
	q.Version = begun.Version
	if err := e.maySpare(op, q); err != nil {
		return err
	}
	all, err := e.chain(begun)
	for _, r := range all {
		for i, c := range r.Copies {
			if r.goes(i) && slices.Contains(q.Spare, c.Version) {
				return &redoubt.Error{Op: op, Object: q.Name.String(), Kind: redoubt.Conflict, Rule: ruleSpare, Hint: "report " + r.ID + " has begun, and erases " + string(c.Version)}
			}
		}
	}
	return err
}

// spareMore has a report that has begun, and those that it goes on with, keep what they do not erase yet, and gives it as it is then.
func (e *Enclave) spareMore(ctx context.Context, begun *spillRecord, q redoubt.Spill) (*spillRecord, error) {
	if len(q.Spare) == 0 {
		return begun, nil
	}
	e.spillMu.Lock() // what is being searched for is not changed behind it
	defer e.spillMu.Unlock()
	latest, err := e.spill(begun.ID)
	if err != nil {
		return nil, err
	}
	if err := e.mayStillSpare("ReportSpill", latest, q); err != nil {
		return nil, err
	}
	all, err := e.chain(latest)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		for _, v := range q.Spare {
			if !slices.Contains(r.Spare, v) {
				r.Spare = append(r.Spare, v)
			}
		}
		for i, c := range r.Copies {
			r.Copies[i].Spared = c.Spared || c.Relation == relMayBe && slices.Contains(q.Spare, c.Version)
		}
		if err := e.keepSpill(ctx, r, nil); err != nil {
			return nil, err
		}
		e.takenOut(r)
	}
	return latest, nil
}

// maySpare holds what an officer spares against what she has been shown: derivatives, and of copies those at a label above.
func (e *Enclave) maySpare(op string, q redoubt.Spill) error {
	if len(q.Spare) == 0 {
		return nil
	}
	shown := map[redoubt.VersionID]bool{}
	err := e.Records(context.Background(), kindSpill, func(_ string, value []byte) error {
		r := new(spillRecord)
		if err := strictJSON(value, r); err != nil {
			return &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err}
		}
		for _, c := range r.Copies {
			if r.Name == q.Name && r.Version == q.Version && (c.Relation == relDerived || c.Relation == relMayBe || c.Above) {
				shown[c.Version] = true
			}
		}
		return nil
	})
	for _, v := range q.Spare {
		if err == nil && !shown[v] {
			err = &redoubt.Error{Op: op, Object: q.Name.String(), Kind: redoubt.Invalid, Rule: ruleSpare, Hint: string(v) + " is in no report of that version as what was made of it, or as a copy above: name the version, and find before you spare (redoubt spill report --find-only)"}
		}
	}
	return err
}

// spillOf finds the report that erases a version, the last of those that go on with one another: of one that is named any, and else the one of the
// name that is not at its end. nil: none.
func (e *Enclave) spillOf(name redoubt.ObjectName, id redoubt.VersionID) (report *spillRecord, err error) {
	before, all := map[string]bool{}, []*spillRecord{}
	err = e.Records(context.Background(), kindSpill, func(_ string, value []byte) error {
		r := new(spillRecord)
		if err := strictJSON(value, r); err != nil {
			return &redoubt.Error{Op: "ReportSpill", Kind: redoubt.Corrupt, Err: err}
		}
		before[r.After] = true
		if !r.Erases || r.Name != name || id != "" && r.Version != id {
			return nil
		}
		if id == "" {
			if _, due, err := e.engine.Get(dutyKey(spillDuty + r.ID)); err != nil || !due {
				return err
			}
		}
		all = append(all, r)
		return nil
	})
	for _, r := range all {
		if !before[r.ID] {
			report = r
		}
	}
	return report, err
}

// beginSpill takes the version itself out, in the commit that keeps the report and the duty to bring it to its end.
func (e *Enclave) beginSpill(ctx context.Context, who redoubt.Credential, b *bucket, f found, r *spillRecord) error {
	ent, err := e.decide(ctx, ask{op: "EraseVersion", who: who, action: redoubt.ActionErase, bucket: b, name: r.Name, object: f.set.label, detail: "spill " + r.ID + ": " + r.Reason})
	if err != nil {
		return err
	}
	ent.Version = f.rec.id[:]
	if _, err := e.sets.of(ctx, e.recordLabel(kindSpill)); err != nil {
		return err
	}
	gone, err := e.removeVersion(ctx, b, f.set, r.Name.Key, f.rec.id, ent, nil, func(batch *store.Batch) error {
		d := duty{Set: f.set.id, Bucket: b.id, Parts: f.rec.parts, Version: f.rec.id[:]}
		if err := d.add(batch, versionDuty(f.rec.id)); err != nil {
			return err
		}
		if err := (duty{}).add(batch, spillDuty+r.ID); err != nil {
			return err
		}
		return e.putSpill(ctx, batch, r)
	})
	if err == nil && !gone {
		err = b.missing("ReportSpill", r.Name)
	}
	if err != nil {
		return e.noted(ctx, ent, err)
	}
	return nil
}

// endSpill brings a report to its end, if it is not there, and tells how it stands.
func (e *Enclave) endSpill(ctx context.Context, id string) (out redoubt.SpillReport, err error) {
	if err := e.finishSpill(ctx, id); err != nil {
		return out, err
	}
	r, err := e.spill(id)
	if err != nil {
		return out, err
	}
	return e.asItStands(r)
}

func (e *Enclave) putSpill(ctx context.Context, b *store.Batch, r *spillRecord) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return e.putRecord(ctx, b, kindSpill, r.ID, value)
}

// keepSpill keeps what a report has come to; what more belongs to the commit is added by with.
func (e *Enclave) keepSpill(ctx context.Context, r *spillRecord, with func(*store.Batch) error) error {
	defer e.locks.lock(systemBucketID, kindSpill+"/"+r.ID)()
	b := new(store.Batch)
	if err := e.putSpill(ctx, b, r); err != nil {
		return err
	}
	if with != nil {
		if err := with(b); err != nil {
			return err
		}
	}
	return e.commit(ctx, b, e.ownAct(e.recordLabel(kindSpill), redoubt.ActionSystemRecord, redoubt.ObjectName{Bucket: redoubt.SystemBucket, Key: kindSpill + "/" + r.ID}))
}

// Spill tells how one stands now.
func (e *Enclave) Spill(ctx context.Context, who redoubt.Credential, id string) (out redoubt.SpillReport, err error) {
	ent, err := e.decide(ctx, ask{op: "Spill", who: who, action: redoubt.ActionSpill, detail: "look at " + id})
	if err != nil {
		return out, err
	}
	r, err := e.spill(id)
	if err != nil {
		return out, e.noted(ctx, ent, err)
	}
	if out, err = e.asItStands(r); err != nil {
		return out, err
	}
	return out, e.noteRead(ctx, ent)
}

func (e *Enclave) spill(id string) (r *spillRecord, err error) {
	err = e.Records(context.Background(), kindSpill, func(name string, value []byte) error {
		if name != id {
			return nil
		}
		r = new(spillRecord)
		return strictJSON(value, r)
	})
	if err == nil && r == nil {
		err = &redoubt.Error{Op: "Spill", Object: id, Kind: redoubt.NotFound, Hint: "redoubt spill ls lists the reports"}
	}
	return r, err
}

// Spills lists them, newest first.
func (e *Enclave) Spills(ctx context.Context, who redoubt.Credential) ([]redoubt.SpillReport, error) {
	ent, err := e.decide(ctx, ask{op: "Spills", who: who, action: redoubt.ActionSpill, detail: "list"})
	if err != nil {
		return nil, err
	}
	out := []redoubt.SpillReport{}
	err = e.Records(ctx, kindSpill, func(_ string, value []byte) error {
		r := new(spillRecord)
		if err := strictJSON(value, r); err != nil {
			return &redoubt.Error{Op: "Spills", Kind: redoubt.Corrupt, Err: err}
		}
		now, err := e.asItStands(r)
		out = append(out, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b redoubt.SpillReport) int { return b.Made.Compare(a.Made) })
	return out[:min(len(out), maxSpills)], e.noteRead(ctx, ent)
}
