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

// RotateKey begins a new epoch for a label, re-wraps every data key under it and destroys the old ones. A label under which
// nothing was ever stored has no keys and gets none.
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
	set := e.sets.table.Load().byLabel[l]
	if set == nil {
		return redoubt.KeyStatus{Label: l.Banner()}, e.record(ctx, entry)
	}
	mark, batch := fmt.Sprintf("rotate/%d", set.id), new(store.Batch)
	if err := (duty{Set: set.id}).add(batch, mark); err != nil {
		return redoubt.KeyStatus{}, err
	}
	if err := e.commit(ctx, batch, entry); err != nil {
		return redoubt.KeyStatus{}, e.noted(ctx, entry, err)
	}
	if err := e.fulfil(ctx, mark); err != nil {
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
	defer e.readers.taken.Add(1)
	for _, past := range old {
		if err := e.keyring.DestroyEpoch(set.text, past); err != nil {
			return err
		}
	}
	return nil
}

// keyWorkers is how many records are changed at once: enough to share a disk sync, and few beside what clients do.
const keyWorkers = 64

// rewrapAll re-wraps the data keys of the set's versions, of the parts of its uploads and of what is on its way.
func (e *Enclave) rewrapAll(ctx context.Context, set *labelSet) error {
	view := e.engine.View()
	defer view.Close()
	work, wctx := errgroup.WithContext(ctx)
	work.SetLimit(keyWorkers)
	var err error
	for _, b := range *e.buckets.Load() {
		if err = e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
			rec, err := decodeRecord(raw)
			if err != nil {
				return &redoubt.Error{Op: "rotate", Kind: redoubt.Corrupt, Err: err}
			}
			if len(rec.pieces) > 0 {
				work.Go(func() error { return e.rewrap(wctx, b, set, key, rec.id) })
			}
			return wctx.Err()
		}); err != nil {
			break
		}
	}
	if err == nil {
		err = e.eachUpload(view, func(u *upload) error {
			if u.set == set {
				work.Go(func() error { return u.rewrap(wctx) })
			}
			return wctx.Err()
		})
	}
	if err == nil {
		err = e.eachArrival(view, "", func(a *arrival) error {
			if a.set == set {
				work.Go(func() error { return a.rewrap(wctx) })
			}
			return wctx.Err()
		})
	}
	if failed := work.Wait(); failed != nil {
		return failed // the cause, and not that the others were told to stop
	}
	return err
}

// rewrap re-wraps one version's data keys, if it is still there.
func (e *Enclave) rewrap(ctx context.Context, b *bucket, set *labelSet, key string, id versionID) error {
	unlock := e.locks.lock(b.id, key)
	defer unlock()
	f, err := e.byID(e.engine, b, set.label, key, e.ids.versionID(id))
	if err != nil || f.rec == nil {
		return err
	}
	changed := false
	for i := range f.rec.pieces {
		p := &f.rec.pieces[i]
		was := p.wrapped
		if p.wrapped, err = e.keyring.Rewrap(set.text, was); err != nil {
			return rewrapFault(err)
		}
		changed = changed || p.wrapped != was
	}
	if !changed {
		return nil
	}
	batch := new(store.Batch)
	if _, err := e.replace(batch, b, f, key); err != nil { // of the same length, so nothing changes in its charge
		return err
	}
	return e.commit(ctx, batch, nil)
}

// rewrapFault passes over what was erased already: it has no key to lose, and must not keep the
// rest from being rotated.
func rewrapFault(err error) error {
	if redoubt.KindOf(err) == redoubt.Erased {
		return nil
	}
	return fmt.Errorf("rewrap: %w", err)
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
			return rewrapFault(err)
		}
		p.Wrapped = append([]byte(nil), w[:]...)
		_, err = putPart(batch, u.id, number, p) // of the same length, so nothing changes in its charge
		return err
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
