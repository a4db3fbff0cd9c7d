package enclave

import (
	"context"

	"redoubt"
	"redoubt/store"
)

// ListVersions gives one page of versions and markers, newest first under each key.
func (e *Enclave) ListVersions(ctx context.Context, who redoubt.Credential, in redoubt.ListVersions) (redoubt.VersionPage, error) {
	const op = "ListObjectVersions"
	b, visible, err := e.listing(ctx, op, redoubt.ActionListVersions, who, in.Bucket)
	if err != nil {
		return redoubt.VersionPage{}, err
	}
	var behind versionID
	if in.AfterID != "" {
		id, ok := e.ids.parse(string(in.AfterID))
		if set := e.sets.byTag(id.tag()); !ok || in.AfterKey == "" || set == nil || !who.Working.Dominates(set.label) { // else it would tell its time
			return redoubt.VersionPage{}, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "the version ID marker is not one of a listing"}
		}
		behind = id
	}
	view := e.engine.View()
	defer view.Close()
	heads := merge(view, e.look(lookVersions, who.Working), b, in.Prefix, recHead)
	defer heads.close()
	start := startOf(in.AfterKey, in.Prefix, in.Delimiter)
	if !behind.isZero() && in.AfterKey >= in.Prefix {
		start = append([]byte(in.AfterKey), 0)
	}
	heads.seek(start)
	page := redoubt.VersionPage{}
	full := func() bool { return len(page.Versions)+len(page.Prefixes) >= in.Max }
	for key, ok := heads.key(); ok; key, ok = heads.key() {
		if err := ctx.Err(); err != nil {
			return redoubt.VersionPage{}, err
		}
		if visible != nil && !visible(key) {
			heads.skipKey(key)
			continue
		}
		if full() {
			page.Truncated = in.Max > 0
			return page, heads.err()
		}
		if prefix, under := commonPrefix(key, in.Prefix, in.Delimiter); under {
			page.Prefixes = append(page.Prefixes, prefix)
			page.NextKey, page.NextID = prefix, ""
			heads.seek(after([]byte(prefix)))
			continue
		}
		tops, err := heads.take(key)
		if err != nil {
			return redoubt.VersionPage{}, err
		}
		cur, _ := choose(tops, b.Current == "highest")
		it := e.history(view, b, key, tops)
		for v := it.next(); v != nil; v = it.next() {
			if key == in.AfterKey && !behind.isZero() && !behind.newer(v.rec.id) {
				continue
			}
			if full() {
				page.Truncated = true
				break
			}
			out := e.listed(redoubt.ObjectName{Bucket: in.Bucket, Key: key}, v.set, v.rec)
			out.Latest = cur.rec != nil && cur.rec.id == v.rec.id || cur.rec == nil && it.first
			page.Versions = append(page.Versions, out)
			page.NextKey, page.NextID = key, out.ID
		}
		if err := it.close(); err != nil {
			return redoubt.VersionPage{}, err
		}
		if page.Truncated {
			return page, heads.err()
		}
	}
	page.NextKey, page.NextID = "", ""
	return page, heads.err()
}

// history walks all versions of one key over several sets, newest first.
type history struct {
	lanes []*past
	given int
	first bool // the last one given was the first
	fault error
}

// past is one set's versions of a key: its head, then the older ones.
type past struct {
	set *labelSet
	at  *record
	it  store.Iterator
}

func (e *Enclave) history(view store.View, b *bucket, key string, tops []found) *history {
	h := new(history)
	for _, t := range tops {
		lower := nameKey(recOld, b.id, t.set.id, key)
		h.lanes = append(h.lanes, &past{set: t.set, at: t.rec, it: view.Scan(lower, after(lower))})
	}
	return h
}

func (h *history) next() *found {
	var newest *past
	for _, p := range h.lanes {
		if p.at != nil && (newest == nil || p.at.id.newer(newest.at.id)) {
			newest = p
		}
	}
	if newest == nil || h.fault != nil {
		return nil
	}
	out := &found{set: newest.set, rec: newest.at}
	newest.at = nil
	if newest.it.Next() {
		rec := new(record)
		if _, _, err := rec.decodeHead(newest.it.Value()); err != nil {
			h.fault = &redoubt.Error{Op: "list", Kind: redoubt.Corrupt, Err: err}
			return nil
		}
		newest.at = rec
	}
	h.first = h.given == 0
	h.given++
	return out
}

func (h *history) close() error {
	for _, p := range h.lanes {
		if err := p.it.Err(); err != nil && h.fault == nil {
			h.fault = err
		}
		p.it.Close()
	}
	return h.fault
}

// eachVersion walks every version and marker of one label set in a bucket, as they
// stand in a view: for re-wrapping, lifecycle and checks.
func (e *Enclave) eachVersion(view store.View, bucket uint32, set *labelSet, each func(key string, raw []byte) error) error {
	for _, rec := range []byte{recHead, recOld} {
		lower := rangeKey(rec, bucket, set.id)
		it := view.Scan(lower, after(lower))
		l := &lane{set: set, it: it}
		for it.Next() {
			l.stand(true)
			if err := each(string(l.key), it.Value()); err != nil {
				it.Close()
				return err
			}
		}
		err := it.Err()
		it.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
