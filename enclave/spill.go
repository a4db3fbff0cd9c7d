package enclave

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"redoubt"
	"redoubt/store"
)

const (
	kindSpill     = "spill"
	ruleUpgrade   = "upgrade (2.6)"
	maxSpills     = 1000 // that are listed; copies of one
	maxSpillBytes = 1 << 20
)

// Upgrade gives a version a higher label: decide → hold against ranges → write it anew → in the same commit take the old one out. Its keys are
// destroyed after that, here and by whoever took it, and its releases end with what was rebuilt of it; see redoubt.SpillService.
func (e *Enclave) Upgrade(ctx context.Context, who redoubt.Credential, q redoubt.Regrade) (out redoubt.Regraded, err error) {
	const op = "Upgrade"
	if err := validName(op, q.Name); err != nil {
		return out, err
	}
	b, f, ent, err := e.lookAt(ctx, op, who, redoubt.ActionRegrade, q.Name, q.Version)
	if err != nil {
		return out, err
	}
	ent.Detail = q.Reason
	to, err := e.policy.Parse(q.Label)
	refuse := func(kind redoubt.Kind, rule, hint string) (redoubt.Regraded, error) {
		ent.Allow, ent.Rule = false, rule
		return redoubt.Regraded{}, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: q.Name.String(), Kind: kind, Rule: rule, Hint: hint})
	}
	switch {
	case err != nil:
		return refuse(redoubt.Invalid, "label: "+err.Error(), "redoubt label parse shows what a marking means")
	case !to.Dominates(f.set.label) || f.set.label.Dominates(to):
		return refuse(redoubt.Denied, ruleUpgrade, fmt.Sprintf("that is not above %s: what becomes lower is released, by two reviewers (redoubt release request --from %s --to %s)", f.set.label.Banner(), e.name, e.name))
	case !keepsConsentMarks(to, f.set.label):
		return refuse(redoubt.Denied, ruleKeepsMarks, f.set.label.Banner()+" has marks that its originator alone takes away: keep them in the higher label")
	case !who.Working.Dominates(to) || !b.facts.Ceiling.Dominates(to) || !e.ceiling.Dominates(to):
		return refuse(redoubt.Denied, "within-bucket-range (2.1)", "it cannot lie in this bucket at that label: if it is not to be here at all, redoubt spill report")
	case e.foreign(redoubt.NodeName(f.rec.maker)) || !e.alters(f.rec):
		return refuse(redoubt.Denied, ruleOwn, "it is of another node: upgrade it where it was made")
	}
	defer e.noteFailure(ctx, ent, &err)
	content, err := e.openContent(q.Name, f)
	if err != nil {
		return out, err
	}
	defer content.Close()
	w, err := e.write(ctx, b, q.Name, to, e.own(to))
	if err != nil {
		return out, err
	}
	defer w.discard()
	old := f.rec
	w.rec.author, w.rec.attrs, w.rec.tags, w.rec.retention, w.rec.hold, w.rec.sums = old.author, old.attrs, old.tags, old.retention, old.hold, old.sums
	if old.parts {
		w.rec.sums = redoubt.Checksums{} // those of parts are of parts
	}
	if err := w.reserve(w.least()); err != nil {
		return out, err
	}
	if err := w.read(ctx, content.Reader(0, -1), old.size); err != nil {
		return out, err
	}
	mark, rest := versionDuty(old.id), sourceDuty+hex.EncodeToString(old.id[:])
	w.also = func(batch *store.Batch) error { // the name's lock is held
		now, err := e.byID(e.engine, b, f.set.label, q.Name.Key, e.ids.versionID(old.id))
		if err != nil || now.rec == nil {
			return errors.Join(err, b.missing(op, q.Name))
		}
		if err := (duty{Set: f.set.id, Bucket: b.id, Parts: old.parts, Version: old.id[:]}).add(batch, mark); err != nil {
			return err
		}
		if err := (duty{Source: &source{Name: q.Name, Version: e.ids.versionID(old.id)}}).add(batch, rest); err != nil {
			return err
		}
		if err := e.noteErasure(ctx, batch, b, now, q.Name.Key); err != nil {
			return err
		}
		return e.remove(batch, b, now, q.Name.Key)
	}
	v, err := w.commit(ctx, op, redoubt.Conditions{}, ent)
	if err != nil {
		return out, err
	}
	e.removed(f, q.Name.Key)
	return redoubt.Regraded{Version: v.ID, Label: to.Banner(), Erased: e.ids.versionID(old.id)}, e.fulfilThese(ctx, []string{mark, rest})
}

// spillRecord is a report as it is kept: what was found, and what its progress is read off.
type spillRecord struct {
	redoubt.SpillReport
	Found  []spillFound `json:"found"` // of Copies, each; the first is the version itself
	Size   int64        `json:"size"`
	Erases bool         `json:"erases,omitempty"` // not to find alone

	bytes int // of Copies and Found as they are kept; 0: not counted yet
}

// spillFound is where one copy stood in its label set's journal, and where its erasure does.
type spillFound struct {
	Set    string `json:"set"`
	Made   string `json:"made,omitempty"` // of an upload: the set that it was begun at
	Stamp  []byte `json:"stamp"`
	At     uint64 `json:"at"` // 0: the journal has let go of it, so every peer of then has it
	Erased uint64 `json:"erased"`
	Done   bool   `json:"done,omitempty"` // it was taken out: what is left of its keys is a duty
}

// whyMore is of a report that is full. What it lists is erased.
const whyMore = "there are more copies than one report takes: report one of those that are left, or erase the label or the bucket (redoubt key erase-all)"

// add lists a copy that is not listed yet; false: the report is full.
func (r *spillRecord) add(c redoubt.SpillCopy, f spillFound) bool {
	if slices.ContainsFunc(r.Copies, func(x redoubt.SpillCopy) bool {
		return x.Bucket == c.Bucket && x.Key == c.Key && x.Version == c.Version
	}) {
		return true
	}
	if r.bytes == 0 {
		r.bytes = toldBytes(r.Copies, r.Found)
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

// erased are the listed versions that go, by their names.
func (r *spillRecord) erased() versions {
	of := versions{}
	for _, c := range r.Copies {
		if c.Relation != "later" && c.Relation != "upload" {
			of.add(redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}, c.Version)
		}
	}
	return of
}

// ReportSpill closes the version, in one commit with the report, then finds every copy and erases it; see redoubt.SpillService.
func (e *Enclave) ReportSpill(ctx context.Context, who redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID, reason string, erase bool) (out redoubt.SpillReport, err error) {
	const op = "ReportSpill"
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSpill, name: name, detail: reason})
	if err != nil {
		return out, err
	}
	if err := e.record(ctx, ent); err != nil {
		return out, err
	}
	if erase {
		if begun, err := e.spillOf(name, id); err != nil || begun != "" {
			if err != nil {
				return out, err
			}
			return e.endSpill(ctx, begun)
		}
	}
	b, err := e.readable(op, name.Bucket)
	if err != nil {
		return out, err
	}
	var f found
	if id != "" {
		f, err = e.byID(e.engine, b, who.Working, name.Key, id)
	} else {
		f, _, err = e.current(e.engine, lookCurrent, b, who.Working, name.Key)
	}
	if err != nil {
		return out, err
	}
	if f.rec == nil || f.rec.marker {
		return out, b.missing(op, name)
	}
	sum, _, err := e.contentDigest(name, f, f.rec.size, 0)
	if err != nil {
		return out, err
	}
	var raw [8]byte
	rand.Read(raw[:])
	now := e.clock().UTC().Truncate(time.Second)
	r := &spillRecord{Size: f.rec.size, Erases: erase, SpillReport: redoubt.SpillReport{ID: hex.EncodeToString(raw[:]), Node: e.name, Name: name, Version: e.ids.versionID(f.rec.id), Reason: reason, By: who.Subject, Made: now,
		SHA256: hex.EncodeToString(sum[:]), Copies: []redoubt.SpillCopy{}, Peers: []redoubt.SpillPeer{}, Releases: []redoubt.SpillRelease{}}}
	if err := e.listVersion(r, name, f, "itself"); err != nil {
		return out, err
	}
	if erase {
		if err := e.beginSpill(ctx, who, b, f, r); err != nil {
			return out, err
		}
		return e.endSpill(ctx, r.ID)
	}
	for _, find := range []spillSearch{e.traceUploads, e.traceVersions, e.traceRebuilt} {
		if err := find(ctx, r); err != nil {
			return out, err
		}
	}
	if err := e.keepSpill(ctx, r, nil); err != nil {
		return out, err
	}
	return e.asItStands(r)
}

// spillOf finds the report that erases a version: of one that is named any, and else the one of the name that is not at its end. "": none.
func (e *Enclave) spillOf(name redoubt.ObjectName, id redoubt.VersionID) (report string, err error) {
	err = e.Records(context.Background(), kindSpill, func(_ string, value []byte) error {
		r := new(spillRecord)
		if err := strictJSON(value, r); err != nil {
			return &redoubt.Error{Op: "ReportSpill", Kind: redoubt.Corrupt, Err: err}
		}
		if !r.Erases || r.Name != name || id != "" && r.Version != id {
			return nil
		}
		if id == "" {
			if _, due, err := e.engine.Get(dutyKey(spillDuty + r.ID)); err != nil || !due {
				return err
			}
		}
		report = r.ID
		return nil
	})
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
func (e *Enclave) keepSpill(ctx context.Context, r *spillRecord, with func(*store.Batch)) error {
	defer e.locks.lock(systemBucketID, kindSpill+"/"+r.ID)()
	b := new(store.Batch)
	if err := e.putSpill(ctx, b, r); err != nil {
		return err
	}
	if with != nil {
		with(b)
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
