package enclave

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

const (
	kindSpill     = "spill"
	ruleUpgrade   = "upgrade (2.6)"
	maxSpills     = 1000 // that are listed
	maxSpillBytes = 1 << 20
)

// Upgrade gives a version a higher label: decide → hold against ranges → write it anew → in the same commit take the old one out. Its keys are
// destroyed after that, here and by whoever took it; see redoubt.SpillService.
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
	mark := "version/" + hex.EncodeToString(old.id[:])
	w.also = func(batch *store.Batch) error { // the name's lock is held
		now, err := e.byID(e.engine, b, f.set.label, q.Name.Key, e.ids.versionID(old.id))
		if err != nil || now.rec == nil {
			return errors.Join(err, b.missing(op, q.Name))
		}
		if err := (duty{Set: f.set.id, Bucket: b.id, Parts: old.parts, Version: old.id[:]}).add(batch, mark); err != nil {
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
	return redoubt.Regraded{Version: v.ID, Label: to.Banner(), Erased: e.ids.versionID(old.id)}, e.fulfil(ctx, mark)
}

// spillRecord is a report as it is kept: what was found, and what its progress is read off.
type spillRecord struct {
	redoubt.SpillReport
	Found []spillFound `json:"found"`
}

// spillFound is where one copy stood in its label set's journal, and where its erasure does.
type spillFound struct {
	Set    string `json:"set"`
	Stamp  []byte `json:"stamp"`
	At     uint64 `json:"at"` // 0: the journal has let go of it, so every peer of then has it
	Erased uint64 `json:"erased"`
}

// ReportSpill finds every copy, erases them and keeps a report; see redoubt.SpillService.
func (e *Enclave) ReportSpill(ctx context.Context, who redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID, reason string, erase bool) (out redoubt.SpillReport, err error) {
	const op = "ReportSpill"
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSpill, name: name, detail: reason})
	if err != nil {
		return out, err
	}
	if err := e.record(ctx, ent); err != nil {
		return out, err
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
	r := &spillRecord{SpillReport: redoubt.SpillReport{ID: hex.EncodeToString(raw[:]), Node: e.name, Name: name, Version: e.ids.versionID(f.rec.id), Reason: reason, By: who.Subject, Made: now,
		SHA256: hex.EncodeToString(sum[:]), Copies: []redoubt.SpillCopy{}, Peers: []redoubt.SpillPeer{}, Releases: []redoubt.SpillRelease{}}}
	if err := e.trace(ctx, who.Working, name, f, sum, r); err != nil {
		return out, err
	}
	if erase {
		if err := e.wipeOut(ctx, who, r); err != nil {
			return out, err
		}
	}
	if err := e.keepSpill(ctx, r); err != nil {
		return out, err
	}
	return e.asItStands(r)
}

// trace finds every version of the same content, what stands later under the same name, and what was released of them.
func (e *Enclave) trace(ctx context.Context, working label.Label, name redoubt.ObjectName, of found, sum [32]byte, r *spillRecord) error {
	view := e.engine.View()
	defer view.Close()
	for _, b := range *e.buckets.Load() {
		if b.id == systemBucketID {
			continue
		}
		for _, set := range e.look(lookVersions, working) {
			err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
				var head record
				if _, _, err := head.decodeHead(raw); err != nil {
					return &redoubt.Error{Op: "ReportSpill", Kind: redoubt.Corrupt, Err: err}
				}
				later := b.Name == name.Bucket && key == name.Key && head.id.newer(of.rec.id)
				if head.marker || head.size != of.rec.size && !later {
					return ctx.Err()
				}
				rec, err := decodeRecord(raw)
				if err != nil {
					return &redoubt.Error{Op: "ReportSpill", Kind: redoubt.Corrupt, Err: err}
				}
				relation := "later"
				if head.id == of.rec.id && set == of.set {
					relation = "itself"
				} else if head.size == of.rec.size {
					same, _, err := e.contentDigest(redoubt.ObjectName{Bucket: b.Name, Key: key}, found{set: set, rec: rec}, rec.size, 0)
					if err != nil {
						return err
					}
					if same == sum {
						relation = "same content"
					} else if !later {
						return nil
					}
				}
				at, err := e.journalPlace(view, set, rec.id)
				if err != nil {
					return err
				}
				r.Copies = append(r.Copies, redoubt.SpillCopy{Bucket: b.Name, Key: key, Version: e.ids.versionID(rec.id), Label: set.label.Banner(), Maker: redoubt.NodeName(rec.maker), Relation: relation})
				r.Found = append(r.Found, spillFound{Set: set.name, Stamp: rec.id[:], At: at})
				if len(r.Copies) > maxSpills {
					return &redoubt.Error{Op: "ReportSpill", Kind: redoubt.TooLarge, Hint: "more copies than one report takes: erase the label or the bucket (redoubt key erase)"}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return e.traceReleases(r)
}

// journalPlace is where a version stands in its set's journal; 0 where the journal has let go of it.
func (e *Enclave) journalPlace(view store.View, set *labelSet, id versionID) (uint64, error) {
	prefix := setKey(recJournal, set.id)
	it := view.Scan(store.NumberedKey(prefix, 1), nextPrefix(prefix))
	defer it.Close()
	for it.Next() {
		if k := it.Key(); len(k) == len(prefix)+8 && bytes.HasPrefix(it.Value(), id[:]) {
			return binary.BigEndian.Uint64(k[len(prefix):]), nil
		}
	}
	return 0, it.Err()
}

// traceReleases finds what was released of the copies.
func (e *Enclave) traceReleases(r *spillRecord) error {
	e.releases.view.Lock()
	all := slices.Clone(e.releases.order)
	e.releases.view.Unlock()
	for _, x := range all {
		rel, err := e.readRelease(x)
		if err != nil {
			return err
		}
		if rel.Receipt == nil || !slices.ContainsFunc(r.Copies, func(c redoubt.SpillCopy) bool {
			return c.Bucket == rel.Name.Bucket && c.Key == rel.Name.Key && c.Version == rel.Version
		}) {
			continue
		}
		r.Releases = append(r.Releases, redoubt.SpillRelease{ID: rel.ID, To: rel.To, Bucket: rel.Statement.Bucket, Key: rel.Statement.Key})
	}
	return nil
}

// wipeOut erases what was found: itself and what has the same content. What is only later under the name an officer looks at first.
func (e *Enclave) wipeOut(ctx context.Context, who redoubt.Credential, r *spillRecord) error {
	for i, c := range r.Copies {
		if c.Relation == "later" {
			continue
		}
		err := e.EraseVersion(ctx, who, redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}, c.Version, "spill "+r.ID+": "+r.Reason)
		if err != nil && redoubt.KindOf(err) != redoubt.NotFound {
			return err
		}
		set, err := e.setNamed(r.Found[i].Set)
		if err != nil {
			return err
		}
		if r.Found[i].Erased, err = journalEnd(e.engine, set); err != nil {
			return err
		}
	}
	return nil
}

func (e *Enclave) setNamed(name string) (*labelSet, error) {
	l, err := label.ParseText([]byte(name), e.policy)
	if err != nil {
		return nil, &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: err}
	}
	if set := e.sets.table.Load().byLabel[l]; set != nil {
		return set, nil
	}
	return nil, &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt}
}

func (e *Enclave) keepSpill(ctx context.Context, r *spillRecord) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(value) > maxSpillBytes {
		return redoubt.TooLarge
	}
	return e.PutRecord(ctx, kindSpill, r.ID, value)
}

// asItStands brings a report up to now, and signs it.
func (e *Enclave) asItStands(r *spillRecord) (redoubt.SpillReport, error) {
	out := r.SpillReport
	out.As, out.Key = e.clock().UTC().Truncate(time.Second), base64.StdEncoding.EncodeToString(e.links.key)
	out.Copies, out.Peers, out.Proven = slices.Clone(r.Copies), nil, true
	for i := range out.Copies {
		c := &out.Copies[i]
		gone, err := e.goneHere(c, r.Found[i])
		if err != nil {
			return out, err
		}
		c.Gone = gone
		out.Proven = out.Proven && (gone || c.Relation == "later")
	}
	for _, l := range e.Links() {
		p, err := e.spillPeer(l, r)
		if err != nil {
			return out, err
		}
		if p == nil {
			continue
		}
		out.Peers = append(out.Peers, *p)
		out.Proven = out.Proven && p.Why == "" && p.Had == p.Gone
	}
	slices.SortFunc(out.Peers, func(a, b redoubt.SpillPeer) int { return cmp.Compare(a.Node, b.Node) })
	out.Proven = out.Proven && len(out.Releases) == 0
	sig, err := e.links.sign(redoubt.SpillMessage(out))
	out.Sig = base64.StdEncoding.EncodeToString(sig)
	return out, err
}

// goneHere says whether a copy's record is gone and nothing is left to do of the erasure of its keys.
func (e *Enclave) goneHere(c *redoubt.SpillCopy, f spillFound) (bool, error) {
	b, err := e.readable("spill", c.Bucket)
	if err != nil {
		return false, nil
	}
	set, err := e.setNamed(f.Set)
	if err != nil {
		return false, err
	}
	left, err := e.byID(e.engine, b, set.label, c.Key, c.Version)
	if err != nil || left.rec != nil {
		return false, err
	}
	_, due, err := e.engine.Get(dutyKey("version/" + hex.EncodeToString(f.Stamp)))
	return !due, err
}

// spillPeer is how far a peer has the copies, and their erasure; nil: none went there.
func (e *Enclave) spillPeer(l redoubt.Link, r *spillRecord) (*redoubt.SpillPeer, error) {
	p := &redoubt.SpillPeer{Node: l.Peer}
	carried := false
	for i, c := range r.Copies {
		set, err := e.setNamed(r.Found[i].Set)
		if err != nil {
			return nil, err
		}
		if c.Relation == "later" || !l.Bound.Dominates(set.label) || !e.travels(l, redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}, set.label, false) {
			continue
		}
		carried = true
		at, known, err := e.acknowledged(cursorKey(l.Peer, set.name))
		if err != nil {
			return nil, err
		}
		f := r.Found[i]
		if c.Maker == l.Peer || f.At == 0 || known && at >= f.At {
			p.Had++
			if f.Erased > 0 && known && at >= f.Erased {
				p.Gone++
			}
		}
	}
	switch {
	case !carried:
		return nil, nil
	case l.Partner:
		p.Why = "it was given to a partner by an agreement, and so is its erasure: whether it is gone there the partner knows"
	case l.Raise == redoubt.RaisedAway:
		p.Why = "what was handed to the guard is above: whether it is gone there is seen there, and nothing comes back"
	case l.Ending != redoubt.NotEnding:
		p.Why = "the device has ended: what it holds is behind its lease and its keys"
	case p.Gone < p.Had:
		p.Why = "it has not been met since: the erasure waits for it"
	}
	return p, nil
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
