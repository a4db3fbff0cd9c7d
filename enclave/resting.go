package enclave

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"redoubt"
	"redoubt/store"
)

// What rests on a version: its releases, and what a guard rebuilt of it. Where an officer has the version erased for what is in it, they end
// with it.

const (
	sourceDuty = "source/"
	whyErased  = ruleChanged + ": the version was erased; ask for the one that is current"
)

// source is a version that was erased, in a duty: its releases end, and what was rebuilt of it goes.
type source struct {
	Name    redoubt.ObjectName `json:"name"`
	Version redoubt.VersionID  `json:"version"`
}

// versions is a set of versions by their names.
type versions map[redoubt.ObjectName][]redoubt.VersionID

func (v versions) add(name redoubt.ObjectName, id redoubt.VersionID) { v[name] = append(v[name], id) }

func (v versions) has(name redoubt.ObjectName, id redoubt.VersionID) bool {
	return slices.Contains(v[name], id)
}

func rebuiltName(id redoubt.ReleaseID) redoubt.ObjectName {
	return redoubt.ObjectName{Bucket: RebuiltBucket, Key: string(id)}
}

// releasesOf gives the releases of versions, or of which a version is what was rebuilt, oldest first.
func (e *Enclave) releasesOf(of versions) (entries []*releaseEntry, records []*releaseRecord, err error) {
	e.releases.view.Lock()
	all := slices.Clone(e.releases.order)
	e.releases.view.Unlock()
	for _, x := range all {
		if of[x.name] == nil && of[rebuiltName(x.id)] == nil {
			continue
		}
		r, err := e.readRelease(x)
		if err != nil {
			return nil, nil, err
		}
		if of.has(r.Name, r.Version) || r.Rebuilt != "" && of.has(rebuiltName(r.ID), r.Rebuilt) {
			entries, records = append(entries, x), append(records, r)
		}
	}
	return entries, records, nil
}

// endReleases ends those releases of versions that are open, and gives all of them. The versions are out of the catalogue: so nothing is
// rebuilt of them any more once this has begun.
func (e *Enclave) endReleases(ctx context.Context, of versions) ([]*releaseRecord, error) {
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	entries, records, err := e.releasesOf(of)
	for i, r := range records {
		if !stillOpen(r.State) {
			continue
		}
		r.State, r.Why = redoubt.ReleaseDead, whyErased
		ent := e.ownAct(entries[i].set.label, redoubt.ActionDenyRelease, r.Name)
		ent.Detail = "release " + string(r.ID) + ": its version was erased"
		if err := e.keepRelease(ctx, entries[i].set, r, ent); err != nil {
			return nil, err
		}
	}
	return records, err
}

// settleSource does what is left to do for an erased version's releases.
func (e *Enclave) settleSource(ctx context.Context, name string) error {
	raw, ok, err := e.engine.Get(dutyKey(name))
	if err != nil || !ok {
		return err
	}
	var d duty
	if err := strictJSON(raw, &d); err != nil || d.Source == nil {
		return &redoubt.Error{Op: "duty", Object: name, Kind: redoubt.Corrupt, Err: err}
	}
	of := versions{}
	of.add(d.Source.Name, d.Source.Version)
	releases, err := e.endReleases(ctx, of)
	if err != nil {
		return err
	}
	var marks []string
	for _, r := range releases {
		id, ok := e.ids.parse(string(r.Rebuilt))
		if !ok {
			continue
		}
		mark, err := e.takeOut(ctx, rebuiltName(r.ID), id, "rebuilt of "+d.Source.Name.String())
		if err != nil {
			return err
		}
		marks = append(marks, mark)
	}
	b := new(store.Batch)
	b.Delete(dutyKey(name))
	if err := e.commit(ctx, b, nil); err != nil {
		return err
	}
	return e.fulfilThese(ctx, marks)
}

// takeOut takes a version out of the catalogue as a part of an erasure that was decided, and puts the end of its keys on record: the name of
// that duty is returned. Of one that is gone already, by whom it may be, the keys end all the same.
func (e *Enclave) takeOut(ctx context.Context, name redoubt.ObjectName, id versionID, detail string) (mark string, err error) {
	b, err := e.readable("erase", name.Bucket)
	if err != nil {
		return "", err
	}
	set := e.sets.byTag(id.tag())
	if set == nil {
		return "", &redoubt.Error{Op: "erase", Kind: redoubt.Corrupt, Err: errRecord}
	}
	f, err := e.byID(e.engine, b, set.label, name.Key, e.ids.versionID(id))
	if err != nil {
		return "", err
	}
	mark = versionDuty(id)
	d := duty{Set: set.id, Bucket: b.id, Parts: f.rec == nil || f.rec.parts, Version: id[:]}
	ent := e.ownAct(set.label, redoubt.ActionErase, name)
	ent.Version, ent.Detail = id[:], detail
	gone, err := e.removeVersion(ctx, b, set, name.Key, id, ent, nil, func(batch *store.Batch) error { return d.add(batch, mark) })
	if err != nil || gone {
		return mark, err
	}
	batch := new(store.Batch)
	if err := d.add(batch, mark); err != nil {
		return "", err
	}
	return mark, e.commit(ctx, batch, nil)
}

// versionDuty names the duty to end the keys of a version that was erased.
func versionDuty(id versionID) string { return "version/" + hex.EncodeToString(id[:]) }

// behindDuty does a duty that is more than one set's keys; false: it is none.
func (e *Enclave) behindDuty(ctx context.Context, name string) (bool, error) {
	switch {
	case strings.HasPrefix(name, sourceDuty):
		return true, e.settleSource(ctx, name)
	case strings.HasPrefix(name, fallenDuty):
		return true, e.settleFallen(ctx, name)
	case strings.HasPrefix(name, spillDuty):
		return true, e.finishSpill(ctx, strings.TrimPrefix(name, spillDuty))
	}
	return false, nil
}
