package enclave

import (
	"context"
	"fmt"

	"redoubt"
	"redoubt/store"
)

// DeleteObject writes a delete marker at the working label, which hides from its
// readers what it dominates and loses nothing; with a version ID it removes that version.
func (e *Enclave) DeleteObject(ctx context.Context, who redoubt.Credential, in redoubt.DeleteObject) (gone redoubt.Deleted, err error) {
	if err := validName("DeleteObject", in.Name); err != nil {
		return redoubt.Deleted{}, err
	}
	if in.ID != "" {
		return e.deleteVersion(ctx, who, in)
	}
	const op = "DeleteObject"
	b, err := e.bucket(op, in.Name.Bucket)
	if err != nil {
		return redoubt.Deleted{}, e.missingBucket(ctx, ask{op: op, who: who, action: redoubt.ActionDeleteObject, name: in.Name}, err)
	}
	asked := ask{op: op, who: who, action: redoubt.ActionDeleteObject, bucket: b, name: in.Name, fresh: who.Working}
	entry, err := e.decide(ctx, asked)
	if err != nil {
		return redoubt.Deleted{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	w, err := e.write(ctx, b, in.Name, who.Working, who)
	if err != nil {
		return redoubt.Deleted{}, err
	}
	defer w.discard()
	w.asked, w.rec.marker = asked, true
	v, err := w.commit(ctx, op, in.If, entry)
	if err != nil {
		return redoubt.Deleted{}, err
	}
	return redoubt.Deleted{ID: v.ID, Marker: true}, nil
}

// deleteVersion removes one version for good. It needs the working label that the version was made at.
func (e *Enclave) deleteVersion(ctx context.Context, who redoubt.Credential, in redoubt.DeleteObject) (gone redoubt.Deleted, err error) {
	const op = "DeleteObjectVersion"
	now := e.clock()
	bypass := func(r *record) bool { return in.BypassGovernance && r.governed(now) }
	f, b, entry, unlock, err := e.alter(ctx, op, redoubt.ActionDeleteVersion, who, in.Name, in.ID, bypass)
	if err != nil {
		return redoubt.Deleted{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	defer unlock()
	if len(in.If.IfMatch) > 0 && !anyTag(in.If.IfMatch, e.etag(f.rec)) {
		return redoubt.Deleted{}, &redoubt.Error{Op: op, Kind: redoubt.PreconditionFail}
	}
	if f.rec.locked(now, in.BypassGovernance) {
		return redoubt.Deleted{}, &redoubt.Error{Op: op, Object: in.Name.String(), Kind: redoubt.Locked}
	}
	batch := new(store.Batch)
	if err := e.noteRemoval(ctx, batch, b, f, in.Name.Key); err != nil {
		return redoubt.Deleted{}, err
	}
	if err := e.remove(batch, b, f, in.Name.Key); err != nil {
		return redoubt.Deleted{}, err
	}
	if err := e.commit(ctx, batch, entry); err != nil {
		return redoubt.Deleted{}, err
	}
	e.removed(f, in.Name.Key)
	return redoubt.Deleted{ID: in.ID, Marker: f.rec.marker}, nil
}

// alter finds a version that is to be altered or removed, locks its name and decides (RULES 2.3). bypass says
// whether what is asked goes past the version's GOVERNANCE retention. The caller unlocks.
func (e *Enclave) alter(ctx context.Context, op string, action redoubt.Action, who redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID, bypass func(*record) bool) (found, *bucket, *entry, func(), error) {
	b, err := e.readable(op, name.Bucket)
	if err != nil {
		return found{}, nil, nil, nil, e.missingBucket(ctx, ask{op: op, who: who, action: action, name: name}, err)
	}
	unlock := e.lockName(b, name.Key)
	var f found
	if id == "" {
		f, _, err = e.current(e.engine, lookCurrent, b, who.Working, name.Key)
	} else {
		f, err = e.byID(e.engine, b, who.Working, name.Key, id)
	}
	a := ask{op: op, who: who, action: action, bucket: b, name: name, object: who.Working, made: who.Working}
	if f.rec != nil {
		a.object, a.bypass = f.set.label, bypass(f.rec)
		if made := e.sets.byID(f.rec.made); made != nil {
			a.made = made.label
		}
	}
	var entry *entry
	if err == nil {
		if entry, err = e.decide(ctx, a); err != nil {
			err = b.refused(op, name, err)
		}
	}
	if err == nil && f.rec == nil {
		err = e.noted(ctx, entry, b.missing(op, name))
	}
	if err == nil && !e.alters(f.rec) {
		entry.Allow, entry.Rule = false, ruleOwn
		err = e.noted(ctx, entry, &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.Denied, Rule: ruleOwn,
			Hint: fmt.Sprintf("it was made at %s: a device alters and removes what was made on it; do it at %s", f.rec.maker, e.home())})
	}
	if err != nil {
		unlock()
		return found{}, nil, nil, nil, err
	}
	entry.Version = f.rec.id[:]
	return f, b, entry, unlock, nil
}

// lockName takes a bucket's gate, shared, and a name's lock.
func (e *Enclave) lockName(b *bucket, key string) (unlock func()) {
	b.gate.RLock()
	release := e.locks.lock(b.id, key)
	return func() { release(); b.gate.RUnlock() }
}

// remove takes a version out of the catalogue and gives its blobs back. When it was the
// head, the next older one of its set takes its place; no release of that lives again. The name's lock is held.
func (e *Enclave) remove(batch *store.Batch, b *bucket, f found, key string) error {
	if err := e.fell(batch, b, f, key); err != nil {
		return err
	}
	for _, p := range f.rec.pieces {
		if p.ref != 0 {
			batch.Unlinks = append(batch.Unlinks, p.ref)
		}
	}
	deltaSet(batch, recCount, f.set.id, -1)
	deltaSet(batch, recBytes, f.set.id, -f.rec.size)
	e.uncharge(batch, f, key)
	hk := headKey(b.id, f.set.id, key)
	raw, ok, err := e.engine.Get(hk)
	if err != nil {
		return err
	}
	var head record
	if ok {
		if _, _, err := head.decodeHead(raw); err != nil {
			return &redoubt.Error{Op: "remove", Kind: redoubt.Corrupt, Err: err}
		}
	}
	if !ok || head.id != f.rec.id {
		batch.Delete(oldKey(b.id, f.set.id, key, f.rec.id))
		return nil
	}
	view := e.engine.View()
	defer view.Close()
	lower := nameKey(recOld, b.id, f.set.id, key)
	it := view.Scan(lower, after(lower))
	defer it.Close()
	if it.Next() {
		batch.Set(hk, append([]byte(nil), it.Value()...))
		batch.Delete(append([]byte(nil), it.Key()...))
		return e.noteAgain(batch, b, f.set, key, it.Value())
	}
	if err := it.Err(); err != nil {
		return err
	}
	batch.Delete(hk)
	return nil
}

// noteAgain enters the version that is the newest again in the journal once more, where a link carries the latest alone: over that it may
// have been passed over for the one that was removed.
func (e *Enclave) noteAgain(batch *store.Batch, b *bucket, set *labelSet, key string, raw []byte) error {
	name := redoubt.ObjectName{Bucket: b.Name, Key: key}
	for _, l := range e.Links() {
		if !e.journaled(b.id, key) || !latestOnly(l, name, set.label) {
			continue
		}
		var head record
		if _, _, err := head.decodeHead(raw); err != nil {
			return &redoubt.Error{Op: "remove", Kind: redoubt.Corrupt, Err: err}
		}
		e.noteVersion(batch, b.id, set, key, head.id, "")
		return nil
	}
	return nil
}

// AlterObject changes tags, retention or hold of a version. What its record grows by is charged.
func (e *Enclave) AlterObject(ctx context.Context, who redoubt.Credential, in redoubt.AlterObject) (v redoubt.Version, err error) {
	const op = "AlterObject"
	action := redoubt.ActionPutLock
	if in.Tags != nil {
		action = redoubt.ActionPutTags
	}
	if err := validName(op, in.Name); err != nil {
		return redoubt.Version{}, err
	}
	if in.Tags != nil && (in.Retention != nil || in.Hold != nil) {
		return redoubt.Version{}, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "tags and locks are decided apart: change them in two requests"}
	}
	now := e.clock()
	bypass := func(r *record) bool {
		return in.BypassGovernance && in.Retention != nil && r.governed(now) && r.weaker(*in.Retention)
	}
	f, b, entry, unlock, err := e.alter(ctx, op, action, who, in.Name, in.ID, bypass)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	defer unlock()
	if f.rec.marker {
		return redoubt.Version{}, &redoubt.Error{Op: op, Object: in.Name.String(), Kind: redoubt.MethodNotAllowed}
	}
	before, stood := f.rec.charge(in.Name.Key), f.rec.retention
	if err := e.keepOrigin(b, f, in.Name.Key); err != nil {
		return redoubt.Version{}, err
	}
	if err := f.rec.change(op, b, in, now); err != nil {
		return redoubt.Version{}, err
	}
	batch := new(store.Batch)
	if err := e.noteAlteration(ctx, batch, b, f, in.Name.Key, in, stood); err != nil {
		return redoubt.Version{}, err
	}
	over := int64(0)
	if in.Tags == nil {
		over = markerRoom
	}
	change, err := e.recharge(batch, b, f, in.Name.Key, before, over)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer change.release()
	if err := e.commit(ctx, batch, entry); err != nil {
		return redoubt.Version{}, err
	}
	change.settle()
	return e.version(in.Name, f.set, f.rec), nil
}

// recharge is replace, and charges what the version costs more than before; the caller settles or releases what it gives.
// The name's lock is held.
func (e *Enclave) recharge(batch *store.Batch, b *bucket, f found, key string, before, room int64) (*hold, error) {
	made := e.sets.byID(f.rec.made)
	if made == nil {
		return nil, &redoubt.Error{Op: "replace", Kind: redoubt.Corrupt, Err: errRecord}
	}
	recordBytes, err := e.replace(batch, b, f, key)
	if err != nil {
		return nil, err
	}
	h := &hold{set: made}
	return h, e.charge(batch, h, f.rec.cost(key, recordBytes)-before, room)
}

// replace writes a version's record anew where it stands, and says how many bytes it has now. The name's lock is held.
func (e *Enclave) replace(batch *store.Batch, b *bucket, f found, key string) (recordBytes int, err error) {
	hk := headKey(b.id, f.set.id, key)
	raw, ok, err := e.engine.Get(hk)
	if err != nil {
		return 0, err
	}
	var head record
	if ok {
		if _, _, err := head.decodeHead(raw); err != nil {
			return 0, &redoubt.Error{Op: "replace", Kind: redoubt.Corrupt, Err: err}
		}
	}
	value := f.rec.encode(nil)
	if ok && head.id == f.rec.id {
		batch.Set(hk, value)
	} else {
		batch.Set(oldKey(b.id, f.set.id, key, f.rec.id), value)
	}
	return len(value), nil
}
