package enclave

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"redoubt"
	"redoubt/keys"
	"redoubt/store"
)

// duty is what was decided and takes several steps to the end: a rotation or an erasure. It stands in the catalogue from
// the commit that decided it until all is done, so neither a client that leaves nor
// a crash ends it half way; what is left is taken up behind the requests.
type duty struct {
	Set     uint32             `json:"set,omitempty"`     // whose keys are rotated
	Bucket  uint32             `json:"bucket,omitempty"`  // where a version of Set was erased; where everything goes, if Set is 0
	Parts   bool               `json:"parts,omitempty"`   // the version was a multipart one
	Version []byte             `json:"version,omitempty"` // that was erased: what is kept of it from a peer that was slower goes too
	Destroy map[uint32]uint32  `json:"destroy"`           // of an erased label: set -> its last epoch that goes; empty for a label that nothing carries, null for a bucket
	Clocks  map[uint32]int64   `json:"clocks,omitempty"`  // of the sets when it was ordered: what is newer stays
	Keyed   bool               `json:"keyed,omitempty"`   // records and keys are gone; what is left is to scrub
	Name    redoubt.BucketName `json:"name,omitempty"`    // of Bucket, for the record
	Source  *source            `json:"source,omitempty"`  // whose releases end; nothing else is set then
}

// dutyMark starts the keys of the duties.
var dutyMark = []byte{recMark, 'd'}

func dutyKey(name string) []byte { return append(dutyMark[:2:2], name...) }

// add puts the duty on record with what decided it.
func (d duty) add(b *store.Batch, name string) error {
	value, err := json.Marshal(d)
	if err == nil {
		b.Set(dutyKey(name), value)
	}
	return err
}

// fulfil brings a duty to its end: keys first, so that nothing opens any more, then the bytes. One that is done already is no error.
func (e *Enclave) fulfil(ctx context.Context, name string) error {
	if is, err := e.behindDuty(ctx, name); is {
		return err
	}
	return e.fulfilTogether(ctx, []string{name})
}

// maxTogether is how many duties one rotation is for, and end in one commit: all of a spill's.
const maxTogether = maxSpills

// fulfilThese brings all of them to their end: those that one set's keys are rotated for by one rotation. What fails holds up nothing else.
func (e *Enclave) fulfilThese(ctx context.Context, names []string) (err error) {
	of := map[uint32][]string{}
	for _, name := range names {
		d, ok, one := e.dutyOf(name)
		if one == nil && ok && d.Set != 0 && e.sets.byID(d.Set) != nil {
			of[d.Set] = append(of[d.Set], name)
			continue
		}
		if one == nil && ok {
			one = e.fulfil(ctx, name)
		}
		err = errors.Join(err, one)
	}
	for _, set := range slices.Sorted(maps.Keys(of)) {
		for some := range slices.Chunk(of[set], maxTogether) {
			err = errors.Join(err, e.fulfilTogether(ctx, some))
		}
	}
	return err
}

// fulfilTogether is fulfil of duties for one set's keys, or of one duty.
func (e *Enclave) fulfilTogether(ctx context.Context, names []string) error {
	all, err := e.settleKeys(ctx, names)
	if err != nil || len(all) == 0 {
		return err
	}
	var done [][]byte
	b := new(store.Batch)
	for name, d := range all {
		for _, r := range d.scrubs() {
			if slices.ContainsFunc(done, func(x []byte) bool { return bytes.Equal(x, r) }) {
				continue
			}
			if err := e.engine.Scrub(ctx, r, after(r)); err != nil {
				return err
			}
			done = append(done, r)
		}
		b.Delete(dutyKey(name))
	}
	return e.commit(ctx, b, nil)
}

// dutyOf reads a duty that stands.
func (e *Enclave) dutyOf(name string) (d duty, ok bool, err error) {
	raw, ok, err := e.engine.Get(dutyKey(name))
	if err != nil || !ok {
		return d, false, err
	}
	if err := strictJSON(raw, &d); err != nil {
		return d, false, &redoubt.Error{Op: "duty", Object: name, Kind: redoubt.Corrupt, Err: err}
	}
	return d, true, nil
}

// settleKeys does of duties for one set's keys, or of one duty, what concerns records and keys, and gives those that stand. What they are for was committed
// before: so one rotation is enough for all. It does not scrub: that waits for readers, and must not keep the next rotation or backup waiting with it.
func (e *Enclave) settleKeys(ctx context.Context, names []string) (all map[string]duty, err error) {
	e.rotateMu.Lock()
	defer e.rotateMu.Unlock()
	all = map[string]duty{}
	var fresh duty // of what is not keyed yet, one
	versions, b := map[versionID]bool{}, new(store.Batch)
	for _, name := range names {
		d, ok, err := e.dutyOf(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if !d.Keyed {
			if len(d.Version) == len(versionID{}) {
				versions[versionID(d.Version)] = true
			}
			fresh, d.Keyed = d, true
			if err := d.add(b, name); err != nil {
				return nil, err
			}
		}
		all[name] = d
	}
	if len(b.Writes) == 0 {
		return all, nil
	}
	switch set := e.sets.byID(fresh.Set); {
	case set != nil:
		if len(versions) > 0 {
			err = e.dropArrivals(ctx, func(a *arrival) (bool, error) { return a.set == set && versions[a.id], nil })
		}
		if err == nil {
			err = e.rotate(ctx, set)
		}
	case fresh.Destroy != nil:
		err = e.eraseLabel(ctx, fresh)
	default:
		err = e.eraseBucket(ctx, fresh)
	}
	if err != nil {
		return nil, err
	}
	return all, e.commit(ctx, b, nil)
}

// scrubs gives the prefixes of the keys that held what the duty destroys.
func (d duty) scrubs() [][]byte {
	in := func(rec byte) []byte { return binary.BigEndian.AppendUint32([]byte{rec}, d.Bucket) }
	var out [][]byte
	switch {
	case d.Destroy != nil:
		return [][]byte{{recHead}, {recOld}, {recUpload}, {recPart}, {recArrival}, {recArrived}, {recGone}}
	case d.Set == 0:
		return [][]byte{in(recHead), in(recOld), in(recUpload), {recPart}, {recArrival}, {recArrived}, {recGone}}
	case d.Bucket != 0:
		out = [][]byte{rangeKey(recHead, d.Bucket, d.Set), rangeKey(recOld, d.Bucket, d.Set)}
	}
	if d.Parts {
		out = append(out, in(recUpload), []byte{recPart})
	}
	if len(d.Version) > 0 {
		out = append(out, []byte{recArrival}, []byte{recArrived})
	}
	return out
}

// fulfilAll takes up every duty that is left.
func (e *Enclave) fulfilAll(ctx context.Context) error {
	var names []string
	view := e.engine.View()
	it := view.Scan(dutyMark, after(dutyMark))
	for it.Next() {
		names = append(names, string(it.Key()[len(dutyMark):]))
	}
	return errors.Join(it.Err(), it.Close(), view.Close(), e.fulfilThese(ctx, names))
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
	sum, err := e.sumBefore(b, f.set.label, name.Key, f.rec.id)
	if err != nil {
		return e.noted(ctx, entry, err)
	}
	entry.Version = f.rec.id[:]
	d, mark := duty{Set: f.set.id, Bucket: b.id, Parts: f.rec.parts, Version: f.rec.id[:]}, versionDuty(f.rec.id)
	rest := sourceDuty + hex.EncodeToString(f.rec.id[:]) // its releases, and what was rebuilt of it
	gone, err := e.removeVersion(ctx, b, f.set, name.Key, f.rec.id, entry, nil, func(batch *store.Batch) error {
		return errors.Join(d.add(batch, mark), e.keepGone(batch, b, f, name.Key, sum, ""), duty{Source: &source{Name: name, Version: e.ids.versionID(f.rec.id)}}.add(batch, rest))
	})
	if err != nil {
		return e.noted(ctx, entry, err)
	}
	if !gone {
		return e.noted(ctx, entry, b.missing(op, name))
	}
	return e.fulfilThese(ctx, []string{mark, rest})
}

// removeVersion takes one version out of the catalogue, if it is still there and keep, asked with the
// name's lock held, does not say that it stays. A nil keep keeps nothing: erasure is in spite of retention. What more belongs
// to the commit is added by with.
func (e *Enclave) removeVersion(ctx context.Context, b *bucket, set *labelSet, key string, id versionID, entry *entry, keep func(*record) bool, with func(*store.Batch) error) (gone bool, err error) {
	defer e.lockName(b, key)()
	f, err := e.byID(e.engine, b, set.label, key, e.ids.versionID(id))
	if err != nil || f.rec == nil || keep != nil && keep(f.rec) {
		return false, err
	}
	batch := new(store.Batch)
	if with != nil {
		if err := with(batch); err != nil {
			return false, err
		}
	}
	note := e.noteRemoval
	if keep == nil {
		note = e.noteErasure
	}
	if err := note(ctx, batch, b, f, key); err != nil {
		return false, err
	}
	if err := e.remove(batch, b, f, key); err != nil {
		return false, err
	}
	if err := e.commit(ctx, batch, entry); err != nil {
		return false, err
	}
	e.removed(f, key)
	return true, nil
}

// ordered makes the duty of an erasure that two officers signed: it says what there is now, so that
// what is written later is not erased with it, however late the work is done.
func (e *Enclave) ordered(c redoubt.Change) (d duty, name string, err error) {
	name = "change/" + c.ID
	d.Clocks = map[uint32]int64{}
	for _, set := range e.sets.all() {
		d.Clocks[set.id] = set.clock.Load()
	}
	if c.Kind == redoubt.ChangeEraseBucket {
		b := (*e.buckets.Load())[c.Bucket]
		if b == nil || b.id == systemBucketID {
			return d, "", &redoubt.Error{Op: "EraseBucket", Object: string(c.Bucket), Kind: redoubt.NoBucket}
		}
		d.Bucket, d.Name = b.id, b.Name
		return d, name, nil
	}
	l, err := e.policy.Parse(c.Label)
	if err != nil {
		return d, "", &redoubt.Error{Op: "EraseLabel", Kind: redoubt.Invalid, Err: err}
	}
	d.Destroy = map[uint32]uint32{}
	for _, set := range e.sets.equalTo(l) {
		live, _, err := e.keyring.Epochs(set.text)
		if err != nil {
			return d, "", err
		}
		d.Destroy[set.id] = 0
		if len(live) > 0 {
			d.Destroy[set.id] = live[len(live)-1]
		}
	}
	return d, name, nil
}

// older says whether a version or an upload was there when the duty was ordered.
func (d duty) older(made uint32, id versionID) bool { return id.time() <= d.Clocks[made] }

// eraseLabel carries out what two officers signed: everything under one label goes, and its keys first, which is
// at once however much there is. rotateMu is held.
func (e *Enclave) eraseLabel(ctx context.Context, d duty) error {
	for id, last := range d.Destroy {
		set := e.sets.byID(id)
		if set == nil {
			return &redoubt.Error{Op: "EraseLabel", Kind: redoubt.Corrupt, Err: fmt.Errorf("no label set %d", id)}
		}
		if err := e.destroyUpTo(set, last); err != nil {
			return err
		}
		// What was written between the order and the end of its key has no key and goes too.
		keyless := func(w keys.Wrapped) bool { return w.Epoch() <= last }
		for _, b := range *e.buckets.Load() {
			if b.id == systemBucketID {
				continue
			}
			if err := e.clearOut(ctx, d, b, set, keyless); err != nil {
				return err
			}
		}
		if err := e.clearUploads(ctx, d, func(u *upload) bool { return u.set == set }, keyless); err != nil {
			return err
		}
		if err := e.dropArrivals(ctx, func(a *arrival) (bool, error) { return a.set == set, nil }); err != nil {
			return err // what comes later is sent again from its beginning
		}
		if err := e.forgetAllGone(ctx, set, nil); err != nil { // names, too
			return err
		}
		if err := e.rotate(ctx, set); err != nil { // what a rotation since the order saved from the end of its epoch
			return err
		}
	}
	return nil
}

// destroyUpTo ends the epochs of a set up to last. What is being written under one of them is refused, what comes
// later is under a new one. Doing it twice harms nothing that came between.
func (e *Enclave) destroyUpTo(set *labelSet, last uint32) error {
	if last == 0 {
		return nil
	}
	set.epochGate.Lock() // nothing is committed under a key that is about to go
	defer set.epochGate.Unlock()
	live, current, err := e.keyring.Epochs(set.text)
	if err != nil {
		return err
	}
	if current == last {
		if current, err = e.keyring.Rotate(set.text); err != nil {
			return err
		}
	}
	set.epoch.Store(max(set.epoch.Load(), current))
	defer e.readers.taken.Add(1)
	for _, epoch := range live {
		if epoch > last {
			break
		}
		if err := e.keyring.DestroyEpoch(set.text, epoch); err != nil {
			return err
		}
	}
	return nil
}

// eraseBucket carries out the erasure of everything in a bucket, at every label. rotateMu is held.
func (e *Enclave) eraseBucket(ctx context.Context, d duty) error {
	b := (*e.buckets.Load())[d.Name]
	if b == nil || b.id != d.Bucket {
		return &redoubt.Error{Op: "EraseBucket", Object: string(d.Name), Kind: redoubt.Corrupt}
	}
	none := func(keys.Wrapped) bool { return false }
	if err := e.clearUploads(ctx, d, func(u *upload) bool { return u.b.id == b.id }, none); err != nil {
		return err
	}
	if err := e.dropArrivals(ctx, func(a *arrival) (bool, error) { return a.rec.Bucket == b.id, nil }); err != nil {
		return err
	}
	for _, set := range e.sets.all() {
		if err := e.clearOut(ctx, d, b, set, none); err != nil {
			return err
		}
		if err := e.forgetAllGone(ctx, set, b); err != nil {
			return err
		}
		if err := e.rotate(ctx, set); err != nil {
			return err
		}
	}
	return nil
}

// clearOut removes every version of a set in a bucket that was there when the duty was ordered, or that keyless
// says of that its key is gone.
func (e *Enclave) clearOut(ctx context.Context, d duty, b *bucket, set *labelSet, keyless func(keys.Wrapped) bool) error {
	view := e.engine.View()
	defer view.Close()
	work, wctx := errgroup.WithContext(ctx)
	work.SetLimit(keyWorkers)
	err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
		rec, err := decodeRecord(raw)
		if err != nil {
			return &redoubt.Error{Op: "erase", Kind: redoubt.Corrupt, Err: err}
		}
		if !d.older(rec.made, rec.id) && !slices.ContainsFunc(rec.pieces, func(p piece) bool { return keyless(p.wrapped) }) {
			return wctx.Err()
		}
		work.Go(func() error {
			_, err := e.removeVersion(wctx, b, set, key, rec.id, e.ownAct(set.label, redoubt.ActionErase, redoubt.ObjectName{Bucket: b.Name, Key: key}), nil, nil)
			return err
		})
		return wctx.Err()
	})
	if failed := work.Wait(); failed != nil {
		err = failed // the cause, and not that the others were told to stop
	}
	return err
}

// clearUploads ends the uploads that were there when the duty was ordered: their parts are content too.
func (e *Enclave) clearUploads(ctx context.Context, d duty, which func(*upload) bool, keyless func(keys.Wrapped) bool) error {
	view := e.engine.View()
	defer view.Close()
	return e.eachUpload(view, func(u *upload) error {
		if !which(u) {
			return ctx.Err()
		}
		goes := d.older(u.made.id, u.id)
		err := u.eachPart(0, func(_ int, p *partRecord) error {
			goes = goes || keyless(keys.Wrapped(p.Wrapped))
			return nil
		})
		if err != nil || !goes {
			return err
		}
		err = u.abort(ctx, e.ownAct(u.set.label, redoubt.ActionErase, u.name))
		if redoubt.KindOf(err) == redoubt.NotFound {
			return nil // ended meanwhile
		}
		return err
	})
}
