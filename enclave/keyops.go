package enclave

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"redoubt"
	"redoubt/store"
)

// Keys tells of the keys of every label that the officer's working label dominates.
func (e *Enclave) Keys(ctx context.Context, who redoubt.Credential) ([]redoubt.KeyStatus, error) {
	entry, err := e.decide(ctx, ask{op: "Keys", who: who, action: redoubt.ActionKeyStatus})
	if err != nil {
		return nil, err
	}
	if err := e.noteRead(ctx, entry); err != nil {
		return nil, err
	}
	out := []redoubt.KeyStatus{}
	for _, set := range e.sets.seenBy(who.Working) {
		status, err := e.keyStatus(set)
		if err != nil {
			return nil, err
		}
		out = append(out, status)
	}
	return out, nil
}

func (e *Enclave) keyStatus(set *labelSet) (redoubt.KeyStatus, error) {
	live, current, err := e.keyring.Epochs(set.text)
	return redoubt.KeyStatus{Label: set.label.Banner(), Epoch: current, Epochs: live, Versions: set.versions.Load(), Bytes: set.bytes.Load()}, err
}

// RotateKey begins a new epoch for a label, re-wraps every data key under it and destroys the old ones.
func (e *Enclave) RotateKey(ctx context.Context, who redoubt.Credential, marking string) (redoubt.KeyStatus, error) {
	const op = "RotateKey"
	l, err := e.policy.Parse(marking)
	if err != nil {
		return redoubt.KeyStatus{}, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: err.Error()}
	}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionRotateKey, object: l})
	if err != nil {
		return redoubt.KeyStatus{}, err
	}
	if err := e.record(ctx, entry); err != nil {
		return redoubt.KeyStatus{}, err
	}
	set, err := e.sets.of(ctx, l)
	if err != nil {
		return redoubt.KeyStatus{}, err
	}
	e.rotateMu.Lock()
	defer e.rotateMu.Unlock()
	if err := e.rotate(ctx, set); err != nil {
		return redoubt.KeyStatus{}, err
	}
	return e.keyStatus(set)
}

// rotate leaves one epoch of the set's keys: a new one, under which every data key that is still on record is wrapped. What was
// removed before has no key any more, wherever a copy of it may lie. rotateMu is held.
func (e *Enclave) rotate(ctx context.Context, set *labelSet) error {
	old, _, err := e.keyring.Epochs(set.text)
	if err != nil || len(old) == 0 {
		return err
	}
	epoch, err := e.keyring.Rotate(set.text)
	if err != nil {
		return err
	}
	set.epoch.Store(epoch)
	set.epochGate.Lock() // whoever is committing under an old epoch is let through; later ones use the new
	set.epochGate.Unlock()
	if err := e.rewrapAll(ctx, set); err != nil {
		return err
	}
	for _, past := range old {
		if err := e.keyring.DestroyEpoch(set.text, past); err != nil {
			return err
		}
	}
	return nil
}

// rewrapAll re-wraps the data keys of the set's versions and of the parts of its uploads.
func (e *Enclave) rewrapAll(ctx context.Context, set *labelSet) error {
	view := e.engine.View()
	defer view.Close()
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(64)
	for _, b := range *e.buckets.Load() {
		err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
			rec, err := decodeRecord(raw)
			if err != nil {
				return &redoubt.Error{Op: "rotate", Kind: redoubt.Corrupt, Err: err}
			}
			if len(rec.pieces) > 0 {
				work.Go(func() error { return e.rewrap(ctx, b, set, key, rec.id) })
			}
			return ctx.Err()
		})
		if err != nil {
			work.Wait()
			return err
		}
	}
	if err := e.eachUpload(view, func(u *upload) error {
		if u.set == set {
			work.Go(func() error { return u.rewrap(ctx) })
		}
		return nil
	}); err != nil {
		work.Wait()
		return err
	}
	return work.Wait()
}

// rewrap re-wraps one version's data keys, if it is still there.
func (e *Enclave) rewrap(ctx context.Context, b *bucket, set *labelSet, key string, id versionID) error {
	unlock := e.locks.lock(b.id, key)
	defer unlock()
	f, err := e.byID(e.engine, b, set.label, key, e.ids.versionID(id))
	if err != nil || f.rec == nil {
		return err
	}
	for i := range f.rec.pieces {
		p := &f.rec.pieces[i]
		if p.wrapped, err = e.keyring.Rewrap(set.text, p.wrapped); err != nil {
			return fmt.Errorf("rewrap: %w", err)
		}
	}
	batch := new(store.Batch)
	if err := e.replace(batch, b, f, key); err != nil {
		return err
	}
	return e.commit(ctx, batch, nil)
}

// rewrap re-wraps the parts of an upload.
func (u *upload) rewrap(ctx context.Context) error {
	unlock := u.e.locks.lock(u.b.id, u.name.Key)
	defer unlock()
	batch := new(store.Batch)
	err := u.eachPart(0, func(number int, p *partRecord) error {
		piece := p.piece()
		w, err := u.e.keyring.Rewrap(u.set.text, piece.wrapped)
		if err != nil {
			return err
		}
		p.Wrapped = append([]byte(nil), w[:]...)
		return putPart(batch, u.id, number, p)
	})
	if err != nil || len(batch.Writes) == 0 {
		return err
	}
	return u.e.commit(ctx, batch, nil)
}

// eachUpload walks every upload in progress.
func (e *Enclave) eachUpload(view store.View, each func(*upload) error) error {
	byID := map[uint32]*bucket{}
	for _, b := range *e.buckets.Load() {
		byID[b.id] = b
	}
	it := view.Scan([]byte{recUpload}, []byte{recUpload + 1})
	defer it.Close()
	for it.Next() {
		b, made, key, id, ok := e.parseUploadKey(it.Key(), byID)
		if !ok {
			return &redoubt.Error{Op: "uploads", Kind: redoubt.Corrupt, Err: errRecord}
		}
		u, err := e.decodeUpload(b, made, redoubt.ObjectName{Bucket: b.Name, Key: key}, id, it.Value())
		if err != nil {
			return err
		}
		if err := each(u); err != nil {
			return err
		}
	}
	return it.Err()
}

// EraseVersion destroys one version for good (RULES 2.7: in spite of retention and hold):
// its record and blobs go, its label's epoch is rotated so that no copy of its key
// opens anything, and the files that held it are rewritten.
func (e *Enclave) EraseVersion(ctx context.Context, who redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID, reason string) error {
	const op = "EraseVersion"
	if err := validName(op, name); err != nil {
		return err
	}
	a := ask{op: op, who: who, action: redoubt.ActionErase, name: name, object: who.Working, detail: reason}
	b, err := e.readable(op, name.Bucket)
	if err != nil {
		return e.missingBucket(ctx, a, err)
	}
	a.bucket = b
	e.rotateMu.Lock()
	defer e.rotateMu.Unlock()
	f, err := e.byID(e.engine, b, who.Working, name.Key, id)
	if err != nil {
		return err
	}
	if f.rec != nil {
		a.object = f.set.label
	}
	entry, err := e.decide(ctx, a)
	if err != nil {
		return err
	}
	if f.rec == nil {
		return e.noted(ctx, entry, b.missing(op, name))
	}
	entry.Version = f.rec.id[:]
	if err := e.removeVersion(ctx, b, f.set, name.Key, f.rec.id, entry, nil); err != nil {
		return err
	}
	if err := e.rotate(ctx, f.set); err != nil {
		return err
	}
	return e.scrub(ctx, b.id, f.set)
}

// removeVersion takes one version out of the catalogue, if it is still there and keep, asked with the
// name's lock held, does not say that it stays. A nil keep keeps nothing: erasure is in spite of retention.
func (e *Enclave) removeVersion(ctx context.Context, b *bucket, set *labelSet, key string, id versionID, entry *entry, keep func(*record) bool) error {
	unlock := e.locks.lock(b.id, key)
	defer unlock()
	f, err := e.byID(e.engine, b, set.label, key, e.ids.versionID(id))
	if err != nil || f.rec == nil || keep != nil && keep(f.rec) {
		return err
	}
	batch := new(store.Batch)
	if err := e.remove(batch, b, f, key); err != nil {
		return err
	}
	if err := e.commit(ctx, batch, entry); err != nil {
		return err
	}
	e.count(f.set, -1, -f.rec.size)
	return nil
}

// scrub has the store rewrite the files that held the set's records in a bucket.
func (e *Enclave) scrub(ctx context.Context, bucket uint32, set *labelSet) error {
	for _, rec := range []byte{recHead, recOld, recUpload} {
		lower := rangeKey(rec, bucket, set.id)
		if err := e.engine.Scrub(ctx, lower, after(lower)); err != nil {
			return err
		}
	}
	return nil
}

// eraseLabel carries out what two officers signed: everything under one label goes, and its keys first.
func (e *Enclave) eraseLabel(ctx context.Context, c redoubt.Change) error {
	l, err := e.policy.Parse(c.Label)
	if err != nil {
		return &redoubt.Error{Op: "EraseLabel", Kind: redoubt.Invalid, Err: err}
	}
	e.rotateMu.Lock()
	defer e.rotateMu.Unlock()
	for _, set := range e.sets.equalTo(l) {
		live, _, err := e.keyring.Epochs(set.text)
		if err != nil {
			return err
		}
		set.epochGate.Lock() // nothing is committed under a key that is about to go
		if len(live) > 0 {
			set.epoch.Store(live[len(live)-1] + 1)
		}
		err = e.keyring.DestroyLabel(set.text)
		set.epochGate.Unlock()
		if err != nil && redoubt.KindOf(err) != redoubt.NotFound {
			return err
		}
		for _, b := range *e.buckets.Load() {
			if b.id == systemBucketID {
				continue
			}
			if err := e.clearOut(ctx, b, set); err != nil {
				return err
			}
		}
	}
	return nil
}

// eraseBucket carries out the erasure of everything in a bucket, at every label.
func (e *Enclave) eraseBucket(ctx context.Context, c redoubt.Change) error {
	b := (*e.buckets.Load())[c.Bucket]
	if b == nil || b.id == systemBucketID {
		return &redoubt.Error{Op: "EraseBucket", Object: string(c.Bucket), Kind: redoubt.NoBucket}
	}
	e.rotateMu.Lock()
	defer e.rotateMu.Unlock()
	for _, set := range e.sets.all() {
		if err := e.clearOut(ctx, b, set); err != nil {
			return err
		}
		if err := e.rotate(ctx, set); err != nil {
			return err
		}
	}
	return nil
}

// clearOut removes every version of a set in a bucket and scrubs what held them.
func (e *Enclave) clearOut(ctx context.Context, b *bucket, set *labelSet) error {
	view := e.engine.View()
	defer view.Close()
	work, wctx := errgroup.WithContext(ctx)
	work.SetLimit(64)
	found := false
	err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
		var rec record
		if _, _, err := rec.decodeHead(raw); err != nil {
			return &redoubt.Error{Op: "erase", Kind: redoubt.Corrupt, Err: err}
		}
		found = true
		id := rec.id
		work.Go(func() error {
			return e.removeVersion(wctx, b, set, key, id, e.ownAct(set.label, redoubt.ActionErase, redoubt.ObjectName{Bucket: b.Name, Key: key}), nil)
		})
		return wctx.Err()
	})
	if waited := work.Wait(); err == nil {
		err = waited
	}
	if err != nil || !found {
		return err
	}
	return e.scrub(ctx, b.id, set)
}
