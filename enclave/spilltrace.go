package enclave

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// How a spill is brought to its end: what may hold the content is found and listed, the list is kept, and what is on it goes. Uploads come
// first, so that one which is completed meanwhile is found as a version; what a guard rebuilt comes last, when there is nothing left to rebuild
// it of. Each step may be done twice: a crash anywhere is gone on from by the duty that stands from the first commit.

const (
	spillDuty  = "spill/"
	uploadDuty = "upload/"
)

// spillSearch lists what it finds.
type spillSearch func(context.Context, *spillRecord) error

var errSpillFull = errors.New("the report is full")

// finishSpill does what is left to do of a report; of one that is at its end nothing is.
func (e *Enclave) finishSpill(ctx context.Context, id string) error {
	if err := e.wipeOut(ctx, id); err != nil {
		return err
	}
	r, err := e.spill(id)
	if err != nil {
		return err
	}
	return e.fulfilThese(ctx, r.duties())
}

// wipeOut finds and takes out everything, as long as the report's duty stands.
func (e *Enclave) wipeOut(ctx context.Context, id string) error {
	e.spillMu.Lock()
	defer e.spillMu.Unlock()
	begun, due, err := e.engine.Get(dutyKey(spillDuty + id))
	if err != nil || !due {
		return err
	}
	r, err := e.spill(id)
	if err != nil {
		return err
	}
	if err := e.wipeAll(ctx, r); err != nil {
		return err
	}
	return e.wiped(ctx, r, begun)
}

// wiped ends a report's duty, if it is what it was when the search began. Else something came over a link meanwhile, where the search may have been
// already, and the duty stands for another.
func (e *Enclave) wiped(ctx context.Context, r *spillRecord, begun []byte) error {
	e.readers.gate.Lock() // what comes commits with it held
	defer e.readers.gate.Unlock()
	now, _, err := e.engine.Get(dutyKey(spillDuty + r.ID))
	if err != nil {
		return err
	}
	ended := bytes.Equal(now, begun)
	if ended && r.Searched.IsZero() {
		r.Searched = e.clock().UTC()
	}
	return e.keepSpill(ctx, r, func(b *store.Batch) error {
		if ended {
			b.Delete(dutyKey(spillDuty + r.ID))
		}
		return nil
	})
}

// wipeAll finds and takes out what is there now.
func (e *Enclave) wipeAll(ctx context.Context, r *spillRecord) error {
	if !r.Found[0].Done { // it went with the report's first commit
		if err := e.settled(r, 0); err != nil {
			return err
		}
	}
	for had := -1; had < r.listed(); { // what was made of what was found is closed, and looked for, in turn
		had = r.listed()
		if err := e.closeReaders(ctx, r); err != nil {
			return err
		}
		for _, find := range e.searches() {
			before := r.listed()
			if err := find(ctx, r); err != nil {
				return err
			}
			if r.listed() > before {
				if err := e.findPlaces(r); err != nil {
					return err
				}
				if err := e.keepSpill(ctx, r, nil); err != nil {
					return err
				}
			}
			for i := range r.Copies {
				if err := e.wipe(ctx, r, i); err != nil {
					return err
				}
			}
		}
	}
	if err := e.traceUnsure(ctx, r); err != nil {
		return err
	}
	return e.findPlaces(r)
}

// searches are those for what goes, in their order.
func (e *Enclave) searches() []spillSearch {
	return []spillSearch{e.traceUploads, e.traceVersions, e.traceDerived, e.traceRebuilt}
}

// duties names those that end the keys of what was taken out.
func (r *spillRecord) duties() (names []string) {
	for i, c := range r.Copies {
		switch stamp := hex.EncodeToString(r.Found[i].Stamp); {
		case c.Relation == relUpload:
			names = append(names, uploadDuty+stamp)
		case r.goes(i):
			names = append(names, "version/"+stamp)
		}
	}
	return names
}

// wipe takes one out of what is listed, if it goes.
func (e *Enclave) wipe(ctx context.Context, r *spillRecord, i int) (err error) {
	c, f := r.Copies[i], r.Found[i]
	name := redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}
	if f.Done || !r.goes(i) && c.Relation != relUpload {
		return nil
	}
	if len(f.Stamp) != len(versionID{}) {
		return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: errRecord}
	}
	if c.Relation == relUpload {
		err = e.wipeUpload(ctx, name, f, "spill "+r.ID)
	} else {
		_, err = e.takeOut(ctx, name, versionID(f.Stamp), "spill "+r.ID)
	}
	if err != nil {
		return err
	}
	return e.settled(r, i)
}

// settled notes that one was taken out, and that the journal has it by now.
func (e *Enclave) settled(r *spillRecord, i int) error {
	set, err := e.setNamed(r.Found[i].Set)
	if err != nil {
		return err
	}
	at, err := journalEnd(e.engine, set)
	r.Found[i].Erased, r.Found[i].Done = at, err == nil
	return err
}

// wipeUpload ends an upload, and puts the end of its parts' keys on record. One that ended meanwhile had keys too.
func (e *Enclave) wipeUpload(ctx context.Context, name redoubt.ObjectName, f spillFound, detail string) error {
	b, err := e.readable("spill", name.Bucket)
	if err != nil {
		return err
	}
	set, err := e.setNamed(f.Set)
	if err != nil {
		return err
	}
	made, err := e.setNamed(f.Made)
	if err != nil {
		return err
	}
	id, d := versionID(f.Stamp), duty{Set: set.id, Bucket: b.id, Parts: true}
	with := func(batch *store.Batch) error { return d.add(batch, uploadDuty+hex.EncodeToString(f.Stamp)) }
	raw, ok, err := e.engine.Get(uploadKey(b.id, made.id, name.Key, id))
	if err != nil {
		return err
	}
	if ok {
		u, err := e.decodeUpload(b, made, name, id, raw)
		if err != nil {
			return err
		}
		ent := e.ownAct(set.label, redoubt.ActionErase, name)
		ent.Detail = detail
		if err := u.end(ctx, ent, with); err == nil || redoubt.KindOf(err) != redoubt.NotFound {
			return err
		}
	}
	batch := new(store.Batch)
	if err := with(batch); err != nil {
		return err
	}
	return e.commit(ctx, batch, nil)
}

// traceUploads finds the uploads in progress, whatever their label and whoever began them, whose parts may be the content or a piece of it.
func (e *Enclave) traceUploads(ctx context.Context, r *spillRecord) error {
	view := e.engine.View()
	defer view.Close()
	err := e.eachUpload(view, func(u *upload) error {
		holds, err := u.mayHold(ctx, r)
		if err != nil || !holds {
			return err
		}
		c := redoubt.SpillCopy{Bucket: u.b.Name, Key: u.name.Key, Version: redoubt.VersionID(e.ids.token(u.id)), Label: u.set.label.Banner(), Maker: e.name, Relation: relUpload}
		if !r.add(c, spillFound{Set: u.set.name, Made: u.made.name, Stamp: bytes.Clone(u.id[:])}) {
			return errSpillFull
		}
		return nil
	})
	if errors.Is(err, errSpillFull) {
		return nil
	}
	return err
}

// mayHold says whether parts of an upload may be a report's content, or a piece of it. A part of its length is compared with it. A shorter
// one may be any piece, cut anywhere, and is not compared with all of them; one that is longer, or empty, is none. So what is completed of parts
// that were there before is never the content again, as a copy is one: whole.
func (u *upload) mayHold(ctx context.Context, r *spillRecord) (holds bool, err error) {
	err = u.eachPart(0, func(_ int, p *partRecord) error {
		if holds || p.Size == 0 || p.Size > r.Size {
			return ctx.Err()
		}
		if p.Size < r.Size {
			holds = true
			return nil
		}
		rec := &record{id: p.Bound, size: p.Size, sums: p.Sums, pieces: []piece{p.piece()}, parts: true}
		sum, _, _, err := u.e.contentDigest(u.name, found{set: u.set, rec: rec}, p.Size, 0)
		holds = err != nil || r.SHA256 == "" || hex.EncodeToString(sum[:]) == r.SHA256 // what does not open is not known to be anything else
		return ctx.Err()
	})
	return holds, err
}

// traceVersions finds every version of the same content, and what stands later under the same name.
func (e *Enclave) traceVersions(ctx context.Context, r *spillRecord) error {
	of, ok := e.ids.parse(string(r.Version))
	if !ok {
		return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: errRecord}
	}
	err := e.eachContent(ctx, func(b *bucket, set *labelSet, key string, raw []byte, head *record) error {
		later := b.Name == r.Name.Bucket && key == r.Name.Key && head.id.newer(of)
		same := head.size == r.Size && r.Size > 0 && r.SHA256 != "" // what is empty is a copy of anything
		if !same && !later {
			return nil
		}
		rec, err := decodeRecord(raw)
		if err != nil {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: err}
		}
		f, name := found{set: set, rec: rec}, redoubt.ObjectName{Bucket: b.Name, Key: key}
		if same {
			if same, err = e.sameContent(b, name, f, r); err != nil {
				return err
			}
			if same {
				return e.listSame(r, name, f, later)
			}
		}
		if later {
			return e.list(r, name, f, relLater, "", derivation{})
		}
		return nil
	})
	if err == nil {
		err = e.traceGone(ctx, r)
	}
	if errors.Is(err, errSpillFull) {
		return nil
	}
	return err
}

// listSame lists a version of the same content. When the search had come to its end once, and something arrived for which it is taken up again, what was put
// here since is somebody's own act, say under the label that it should have had; and what was made elsewhere after the report may be, or be a
// copy by who had not heard of it.
func (e *Enclave) listSame(r *spillRecord, name redoubt.ObjectName, f found, later bool) error {
	made := time.Unix(0, f.rec.id.time())
	switch own := f.rec.maker == string(e.name); {
	case r.Searched.IsZero(), own && !made.After(r.Searched), !own && made.Before(r.Made.Add(time.Second)): // it is kept in whole seconds
		return e.listCopy(r, name, f, relSame)
	case later:
		return e.list(r, name, f, relLater, "", derivation{})
	case own:
		return nil
	}
	return e.list(r, name, f, relMayBe, "", derivation{From: r.Version})
}

// sameContent compares a version's content with a report's. A rotation may have ended the key since the view was taken: then there is
// a newer record, or none; what is still without a key nobody opens. One that is damaged holds nothing else up, and leaves the report unproven.
func (e *Enclave) sameContent(b *bucket, name redoubt.ObjectName, f found, r *spillRecord) (bool, error) {
	sum, _, _, err := e.contentDigest(name, f, f.rec.size, 0)
	if redoubt.KindOf(err) == redoubt.Erased {
		now, lerr := e.byID(e.engine, b, f.set.label, name.Key, e.ids.versionID(f.rec.id))
		if lerr != nil || now.rec == nil {
			return false, lerr
		}
		sum, _, _, err = e.contentDigest(name, now, now.rec.size, 0)
	}
	switch redoubt.KindOf(err) {
	case redoubt.Erased:
		return false, nil
	case redoubt.Corrupt:
		r.Why = "a version of its length does not read back, and may be a copy: " + name.String() + " " + string(e.ids.versionID(f.rec.id))
		return false, nil
	}
	return hex.EncodeToString(sum[:]) == r.SHA256, err
}

// traceRebuilt finds what guards rebuilt of the versions that go; where they have gone, their open releases end.
func (e *Enclave) traceRebuilt(ctx context.Context, r *spillRecord) (err error) {
	var of []*releaseRecord
	if r.Erases {
		of, err = e.endReleases(ctx, r.erased())
	} else {
		_, of, err = e.releasesOf(r.erased())
	}
	if err != nil {
		return err
	}
	for _, rel := range of {
		id, ok := e.ids.parse(string(rel.Rebuilt))
		b, err := e.readable("spill", RebuiltBucket)
		if !ok || err != nil {
			continue // nothing was rebuilt yet
		}
		f, err := e.byID(e.engine, b, e.ceiling, string(rel.ID), rel.Rebuilt)
		if err != nil {
			return err
		}
		if f.rec == nil {
			f = found{set: e.sets.byTag(id.tag()), rec: &record{id: id, maker: string(e.name)}}
		}
		if f.set == nil {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: errRecord}
		}
		if err := e.list(r, rebuiltName(rel.ID), f, "rebuilt", "", derivation{}); err != nil {
			if errors.Is(err, errSpillFull) {
				return nil
			}
			return err
		}
	}
	return nil
}

// listCopy lists a version of the content itself.
func (e *Enclave) listCopy(r *spillRecord, name redoubt.ObjectName, f found, relation string) error {
	return e.list(r, name, f, relation, r.SHA256, derivation{})
}

// list lists a version, and the SHA-256 of its content if that is to be followed.
func (e *Enclave) list(r *spillRecord, name redoubt.ObjectName, f found, relation, sum string, d derivation) error {
	c := redoubt.SpillCopy{Bucket: name.Bucket, Key: name.Key, Version: e.ids.versionID(f.rec.id), Label: f.set.label.Banner(), Maker: redoubt.NodeName(f.rec.maker), Relation: relation, Job: d.Job, From: d.From}
	if relation == relSame {
		low, err := e.setNamed(r.Found[0].Set)
		if err != nil {
			return err
		}
		c.Above = f.set.label.Dominates(low.label) && !low.label.Dominates(f.set.label)
	}
	at := spillFound{Set: f.set.name, Stamp: bytes.Clone(f.rec.id[:]), Sum: sum, Size: f.rec.size}
	if f.gone { // its removal is in the journal already
		var err error
		if at.Erased, err = journalEnd(e.engine, f.set); err != nil {
			return err
		}
		at.Done, at.From = true, f.rec.from
	}
	if !r.add(c, at) {
		return errSpillFull
	}
	return nil
}

// findPlaces finds where what was listed stands in the journals of its sets: each of those is read once for all that is new, and not for each.
func (e *Enclave) findPlaces(r *spillRecord) error {
	wanted := map[string]map[versionID]int{}
	for i, f := range r.Found {
		if f.Placed || f.At > 0 || r.Copies[i].Relation == relUpload || len(f.Stamp) != len(versionID{}) {
			continue
		}
		if wanted[f.Set] == nil {
			wanted[f.Set] = map[versionID]int{}
		}
		wanted[f.Set][versionID(f.Stamp)] = i
	}
	if len(wanted) == 0 {
		return nil
	}
	view := e.engine.View()
	defer view.Close()
	for name, ids := range wanted {
		set, err := e.setNamed(name)
		if err != nil {
			return err
		}
		err = e.eachPlace(view, set, func(id versionID, at uint64) (more bool) {
			if i, is := ids[id]; is && r.Found[i].At == 0 {
				r.Found[i].At = at
				delete(ids, id)
			}
			return len(ids) > 0
		})
		if err != nil {
			return err
		}
		for i := range r.Found { // the journal has let go of the others
			r.Found[i].Placed = r.Found[i].Placed || r.Found[i].Set == name
		}
	}
	return nil
}

// eachPlace goes over a set's journal for as long as more is wanted.
func (e *Enclave) eachPlace(view store.View, set *labelSet, each func(id versionID, at uint64) (more bool)) error {
	prefix := setKey(recJournal, set.id)
	it := view.Scan(store.NumberedKey(prefix, 1), nextPrefix(prefix))
	defer it.Close()
	for it.Next() {
		k, v := it.Key(), it.Value()
		if len(k) != len(prefix)+8 || len(v) < len(versionID{}) {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: errRecord}
		}
		if !each(versionID(v), binary.BigEndian.Uint64(k[len(prefix):])) {
			return nil
		}
	}
	return it.Err()
}

// spilledSum is the SHA-256 of what is reported, in hex; "": an erasure took it away, and it did not read back by then.
func (e *Enclave) spilledSum(name redoubt.ObjectName, f found) (string, error) {
	if f.gone {
		return hex.EncodeToString(f.rec.digest), nil
	}
	sum, _, _, err := e.contentDigest(name, f, f.rec.size, 0)
	return hex.EncodeToString(sum[:]), err
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
