package enclave

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"redoubt"
	"redoubt/store"
)

// How releases are kept: each a system record, and of all of them in memory what a list goes by.

// loadReleases reads them all at start.
func (e *Enclave) loadReleases() error {
	e.releases.byID, e.releases.bySet, e.releases.open = map[redoubt.ReleaseID]*releaseEntry{}, map[*labelSet][]*releaseEntry{}, map[redoubt.ObjectName][]*releaseEntry{}
	e.releases.gives, e.releases.givesOf = map[redoubt.ReleaseID]*releaseEntry{}, map[redoubt.SubjectName]map[redoubt.ReleaseID]*releaseEntry{}
	var all []*releaseEntry
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.all() {
		lower := append(rangeKey(recHead, systemBucketID, set.id), kindRelease+"/"...)
		it := view.Scan(lower, after(lower))
		for it.Next() {
			rec, err := decodeRecord(it.Value())
			var r releaseRecord
			if err == nil {
				err = strictJSON(rec.inline, &r)
			}
			if err != nil {
				return errors.Join(&redoubt.Error{Op: "enclave.Open", Object: kindRelease, Kind: redoubt.Corrupt, Err: err}, it.Close())
			}
			all = append(all, e.newReleaseEntry(set, &r))
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return err
		}
	}
	slices.SortStableFunc(all, func(a, b *releaseEntry) int { return a.made.Compare(b.made) })
	for _, x := range all {
		e.releases.add(x)
	}
	return nil
}

func (r *releases) add(x *releaseEntry) {
	r.view.Lock()
	defer r.view.Unlock()
	r.byID[x.id], x.seq = x, len(r.order)
	r.order = append(r.order, x)
	r.bySet[x.set] = append(r.bySet[x.set], x)
	r.follows(x)
}

// follow takes over what changes of a release. releases.view is held, or x is not shared yet.
func (x *releaseEntry) follow(r *releaseRecord) {
	x.state, x.given, x.keeps = r.State, !r.Fetched.IsZero(), r.Rebuilt != "" && !r.Dropped
}

// follows has what changes a source find a release as long as it is open. view is held.
func (r *releases) follows(x *releaseEntry) {
	at := slices.Index(r.open[x.name], x)
	switch {
	case stillOpen(x.state) && at < 0:
		r.open[x.name] = append(r.open[x.name], x)
	case !stillOpen(x.state) && at >= 0:
		r.unwatch(x)
	}
}

// watch has what changes a source find a release that is not kept yet. What it gives ends that.
func (r *releases) watch(x *releaseEntry) (end func()) {
	r.view.Lock()
	defer r.view.Unlock()
	r.open[x.name] = append(r.open[x.name], x)
	return func() {
		r.view.Lock()
		defer r.view.Unlock()
		r.unwatch(x)
	}
}

func (r *releases) unwatch(x *releaseEntry) {
	rest := slices.DeleteFunc(r.open[x.name], func(o *releaseEntry) bool { return o == x })
	if r.open[x.name] = rest; len(rest) == 0 {
		delete(r.open, x.name)
	}
}

func (r *releases) find(id redoubt.ReleaseID) (*releaseEntry, redoubt.ReleaseState) {
	r.view.Lock()
	defer r.view.Unlock()
	x := r.byID[id]
	if x == nil {
		return nil, ""
	}
	return x, x.state
}

// read reads a release's record.
func (e *Enclave) readRelease(x *releaseEntry) (*releaseRecord, error) {
	raw, ok, err := e.engine.Get(headKey(systemBucketID, x.set.id, kindRelease+"/"+string(x.id)))
	if err != nil || !ok {
		return nil, errors.Join(err, redoubt.Corrupt)
	}
	rec, err := decodeRecord(raw)
	r := new(releaseRecord)
	if err == nil {
		err = strictJSON(rec.inline, r)
	}
	if err != nil {
		return nil, &redoubt.Error{Op: "release", Kind: redoubt.Corrupt, Err: err}
	}
	return r, nil
}

// keepRelease makes a release durable with an audit entry, then visible; with its end goes what was rebuilt of it, once nobody needs that any
// more. releases.mu is held.
func (e *Enclave) keepRelease(ctx context.Context, set *labelSet, r *releaseRecord, ent *entry) error {
	b := new(store.Batch)
	gone, unlock, err := e.dropRebuilt(ctx, b, r)
	if err != nil {
		return err
	}
	defer unlock()
	if !stillOpen(r.State) {
		b.Delete(dutyKey(fallenDuty + string(r.ID)))
	}
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	defer e.locks.lock(systemBucketID, kindRelease+"/"+string(r.ID))()
	if err := e.putRecordAt(ctx, b, set.label, kindRelease+"/"+string(r.ID), value); err != nil {
		return err
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return err
	}
	if gone.rec != nil {
		e.removed(gone, string(r.ID))
		e.readers.taken.Add(1) // who reads it looks
	}
	e.showRelease(set, r)
	return nil
}

// showRelease makes what was committed of a release visible. releases.mu is held.
func (e *Enclave) showRelease(set *labelSet, r *releaseRecord) {
	if x, _ := e.releases.find(r.ID); x != nil {
		e.releases.view.Lock()
		x.follow(r)
		e.releases.follows(x)
		e.releases.view.Unlock()
	} else {
		e.releases.add(e.newReleaseEntry(set, r))
	}
	e.releases.news.wake()
}
