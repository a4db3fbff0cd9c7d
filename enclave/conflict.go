package enclave

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"redoubt"
	"redoubt/store"
)

// recConflict keys names that were in conflict when a peer's version came: 'f' set bucket key. Whether they still are is worked out
// anew from their versions when somebody asks.
const recConflict = 'f'

func conflictKey(set, bucket uint32, key string) []byte {
	return append(binary.BigEndian.AppendUint32(setKey(recConflict, set), bucket), key...)
}

// leaves gives the versions of a name in one label set that no other builds on, the newest first: one for each node that wrote
// without knowing the others'. What a node wrote earlier is built on by what it wrote later.
func (e *Enclave) leaves(view store.View, b *bucket, set *labelSet, key string) ([]found, error) {
	var all []found
	raw, ok, err := view.Get(headKey(b.id, set.id, key))
	if err != nil || !ok {
		return nil, err
	}
	take := func(raw []byte) error {
		rec, err := decodeRecord(raw)
		if err != nil {
			return &redoubt.Error{Op: "conflicts", Kind: redoubt.Corrupt, Err: err}
		}
		all = append(all, found{set: set, rec: rec, raw: raw})
		return nil
	}
	if err := take(raw); err != nil {
		return nil, err
	}
	lower := nameKey(recOld, b.id, set.id, key)
	it := view.Scan(lower, after(lower))
	defer it.Close()
	for it.Next() {
		if err := take(slices.Clone(it.Value())); err != nil {
			return nil, err
		}
	}
	built, seen := map[versionID]bool{}, map[string]bool{}
	for _, f := range all {
		built[f.rec.base] = true
	}
	return slices.DeleteFunc(all, func(f found) bool {
		later := seen[f.rec.maker]
		seen[f.rec.maker] = true
		return later || built[f.rec.id]
	}), it.Err()
}

// noteConflict marks a name under which a peer's version was written without knowing this node's newest.
func (e *Enclave) noteConflict(b *store.Batch, n *incoming) error {
	if e.foreign(n.in.Entry.Maker) {
		return nil // it is for the enclave that it is of to resolve
	}
	raw, ok, err := e.engine.Get(headKey(n.b.id, n.set.id, n.in.Entry.Name.Key))
	if err != nil || !ok {
		return err
	}
	head, err := decodeRecord(raw)
	if err != nil {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Corrupt, Err: err}
	}
	if head.id != n.w.rec.base && head.base != n.id && head.maker != n.w.rec.maker {
		b.Set(conflictKey(n.set.id, n.b.id, n.in.Entry.Name.Key), nil)
	}
	return nil
}

// maxConflicts bounds one answer.
const maxConflicts = 10_000

// Conflicts lists the names under which nodes that were cut off wrote apart; see redoubt.ConflictService.
func (e *Enclave) Conflicts(ctx context.Context, who redoubt.Credential) ([]redoubt.NameConflict, error) {
	view := e.engine.View()
	defer view.Close()
	out := []redoubt.NameConflict{}
	for _, b := range *e.buckets.Load() {
		if b.id == systemBucketID || b.deleted {
			continue
		}
		_, visible, err := e.listing(ctx, "Conflicts", redoubt.ActionListVersions, who, b.Name)
		if redoubt.KindOf(err) == redoubt.NotFound || redoubt.KindOf(err) == redoubt.Denied {
			continue // a bucket that is closed to the caller
		}
		if err != nil {
			return nil, err
		}
		for _, set := range e.look(lookVersions, who.Working) {
			if out, err = e.conflictsIn(view, b, set, visible, out); err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(out, func(a, b redoubt.NameConflict) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	return out, nil
}

func (e *Enclave) conflictsIn(view store.View, b *bucket, set *labelSet, visible func(string) bool, out []redoubt.NameConflict) ([]redoubt.NameConflict, error) {
	prefix := conflictKey(set.id, b.id, "")
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		key := string(it.Key()[len(prefix):])
		if visible != nil && !visible(key) {
			continue
		}
		leaves, err := e.leaves(view, b, set, key)
		if err != nil {
			return nil, err
		}
		if len(leaves) < 2 {
			continue
		}
		if len(out) == maxConflicts {
			return nil, &redoubt.Error{Op: "Conflicts", Kind: redoubt.TooLarge, Hint: "resolve some first"}
		}
		name := redoubt.ObjectName{Bucket: b.Name, Key: key}
		c := redoubt.NameConflict{Name: name, Label: set.label.Banner()}
		for _, f := range leaves {
			c.Versions = append(c.Versions, e.version(name, set, f.rec))
		}
		out = append(out, c)
	}
	return out, it.Err()
}

// ResolveConflict settles a conflict at the working label; see redoubt.ConflictService.
func (e *Enclave) ResolveConflict(ctx context.Context, who redoubt.Credential, name redoubt.ObjectName, keep redoubt.VersionID) (v redoubt.Version, err error) {
	const op = "ResolveConflict"
	if err := validName(op, name); err != nil {
		return redoubt.Version{}, err
	}
	b, err := e.bucket(op, name.Bucket)
	if err != nil {
		return redoubt.Version{}, e.missingBucket(ctx, ask{op: op, who: who, action: redoubt.ActionPutObject, name: name}, err)
	}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionPutObject, bucket: b, name: name, fresh: who.Working, detail: "resolve a conflict"})
	if err != nil {
		return redoubt.Version{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	none := &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.NotFound, Hint: "redoubt conflicts ls shows those that there are; work at the label that the versions have"}
	set := e.sets.table.Load().byLabel[who.Working]
	if set == nil {
		return redoubt.Version{}, none
	}
	view := e.engine.View()
	defer view.Close()
	leaves, err := e.leaves(view, b, set, name.Key)
	if err != nil {
		return redoubt.Version{}, err
	}
	if len(leaves) < 2 {
		return redoubt.Version{}, none
	}
	kept := slices.IndexFunc(leaves, func(f found) bool { return keep == "" || e.ids.versionID(f.rec.id) == keep })
	if kept < 0 {
		return redoubt.Version{}, &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.Invalid, Hint: "keep one of the versions that are in conflict: redoubt conflicts ls"}
	}
	// Each version written here builds on one more of the others' until none is left apart.
	for _, f := range leaves {
		if f.rec.maker == string(e.name) {
			continue
		}
		if v, err = e.writeOver(ctx, who, b, name, leaves[kept], f.rec.id, entry); err != nil {
			return redoubt.Version{}, err
		}
		entry = e.describe(ctx, ask{op: op, who: who, action: redoubt.ActionPutObject, bucket: b, name: name, fresh: who.Working, detail: "resolve a conflict"}, true, entry.Rule)
	}
	done := new(store.Batch)
	done.Delete(conflictKey(set.id, b.id, name.Key))
	return v, e.commit(ctx, done, nil)
}

// writeOver writes a version's content anew, on top of another.
func (e *Enclave) writeOver(ctx context.Context, who redoubt.Credential, b *bucket, name redoubt.ObjectName, kept found, base versionID, entry *entry) (redoubt.Version, error) {
	w, err := e.write(ctx, b, name, kept.set.label, who)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer w.discard()
	w.copies = true
	w.rec.base, w.rec.marker = base, kept.rec.marker
	w.rec.attrs, w.rec.tags, w.rec.sums = copiedFrom(kept.rec, kept.set.label, who.Subject, kept.rec.attrs), kept.rec.tags, kept.rec.sums
	if w.rec.sums.Composite {
		w.rec.sums = redoubt.Checksums{}
	}
	if sum, ok := kept.rec.contentSum(); ok {
		w.rec.hashed(sum)
	}
	if kept.rec.marker {
		return w.commit(ctx, "ResolveConflict", redoubt.Conditions{}, entry)
	}
	content, err := e.openContent(name, kept)
	if err != nil {
		return redoubt.Version{}, err
	}
	err = w.read(ctx, content.Reader(0, -1), kept.rec.size)
	if err = errors.Join(err, content.Close()); err != nil {
		return redoubt.Version{}, err
	}
	return w.commit(ctx, "ResolveConflict", redoubt.Conditions{}, entry)
}
