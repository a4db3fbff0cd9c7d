package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// What an erasure took away before this node's officers reported it (docs/adr/0050): raised from below a guard, given by a partner, or carried, and erased
// where it was made; or erased or upgraded here. What was made of it, and its copies, are here still. So what a report needs is kept, for as
// long as a bundle may be under way: a report begins with it, or comes by it. The content is in none of that.
//
//	g set time stamp     what an erasure took away, and when: goneRecord, JSON, sealed under a key of the keyring, with this key as additional data
const recGone = 'g'

// goneRecord is what is kept of a version. Nobody but a spill report is told of it.
type goneRecord struct {
	Bucket uint32           `json:"bucket"`
	Key    string           `json:"key"`
	Made   uint32           `json:"made"` // set of the working label that it was made at
	Maker  string           `json:"maker"`
	Size   int64            `json:"size"`
	Sum    []byte           `json:"sum,omitempty"`  // SHA-256 of its content; none: it did not read back
	Mark   string           `json:"mark,omitempty"` // of who made it (derived.go)
	From   redoubt.NodeName `json:"from,omitempty"` // the peer that said so
}

func goneKey(set uint32, at time.Time, id versionID) []byte {
	return append(binary.BigEndian.AppendUint64(setKey(recGone, set), uint64(at.UnixNano())), id[:]...)
}

// keepGone adds to the batch that erases a version what a report needs of it. sum is of its content, where its record does not say it.
func (e *Enclave) keepGone(batch *store.Batch, b *bucket, f found, key string, sum []byte, from redoubt.NodeName) error {
	if f.rec.marker || b.id == systemBucketID {
		return nil
	}
	if known, ok := f.rec.contentSum(); ok {
		sum = known[:]
	}
	raw, err := json.Marshal(goneRecord{Bucket: b.id, Key: key, Made: f.rec.made, Maker: f.rec.maker, Size: f.rec.size, Sum: sum, Mark: f.rec.attrs.Meta[metaMade], From: from})
	if err != nil {
		return err
	}
	k := goneKey(f.set.id, e.clock(), f.rec.id)
	batch.Set(k, e.gone.Seal(nil, nil, raw, k)) // a name may be what was spilled: who has the state and not its keyring reads none
	return nil
}

// sumBefore is the SHA-256 of what a version holds that is about to be erased: it may have to be read, with no lock held. nil: it is not here, or does not read back.
func (e *Enclave) sumBefore(b *bucket, of label.Label, key string, id versionID) ([]byte, error) {
	f, err := e.byID(e.engine, b, of, key, e.ids.versionID(id))
	if err != nil || f.rec == nil || f.rec.marker {
		return nil, err
	}
	sum, _, _, err := e.contentDigest(redoubt.ObjectName{Bucket: b.Name, Key: key}, f, f.rec.size, 0)
	if unreadable(err) {
		return nil, nil
	}
	return sum[:], err
}

// eachGone goes over what is kept, as versions that were here; f.rec.from is who said so.
func (e *Enclave) eachGone(ctx context.Context, each func(b *bucket, f found, key string) error) error {
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.look(lookVersions, e.ceiling) {
		if err := e.eachGoneOf(ctx, view, set, each); err != nil {
			return err
		}
	}
	return nil
}

func (e *Enclave) eachGoneOf(ctx context.Context, view store.View, set *labelSet, each func(*bucket, found, string) error) error {
	prefix := setKey(recGone, set.id)
	it := view.Scan(prefix, nextPrefix(prefix))
	defer it.Close()
	for it.Next() {
		k := it.Key()
		x, id, err := e.openGone(prefix, k, it.Value())
		if err != nil {
			return err
		}
		rec := &record{id: id, made: x.Made, maker: x.Maker, size: x.Size, digest: x.Sum, from: x.From}
		if x.Mark != "" {
			rec.attrs.Meta = map[string]string{metaMade: x.Mark}
		}
		b := e.bucketByID(x.Bucket)
		if b == nil {
			continue
		}
		if err := each(b, found{set: set, rec: rec, gone: true, at: time.Unix(0, int64(binary.BigEndian.Uint64(k[len(prefix):]))).UTC()}, x.Key); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return it.Err()
}

// reported finds the version that a report is asked for. One that an erasure took away is found by its ID, or by its name, where nothing else there can be
// meant: what is not said is not guessed, since what is taken for it goes.
func (e *Enclave) reported(ctx context.Context, op string, b *bucket, who redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID) (f found, err error) {
	if id != "" {
		f, err = e.byID(e.engine, b, who.Working, name.Key, id)
	} else {
		f, _, err = e.current(e.engine, lookCurrent, b, who.Working, name.Key)
	}
	if f.rec != nil && f.rec.marker {
		f = found{}
	}
	if err != nil || id != "" && f.rec != nil {
		return f, err
	}
	var newer []found
	err = e.eachGone(ctx, func(at *bucket, x found, key string) error {
		meant := e.ids.versionID(x.rec.id) == id
		if id == "" {
			meant = f.rec == nil || x.rec.id.newer(f.rec.id)
		}
		if at.id == b.id && key == name.Key && meant {
			newer = append(newer, x)
		}
		return nil
	})
	switch {
	case err != nil || len(newer) == 0 && f.rec != nil:
		return f, err
	case len(newer) == 0:
		return f, b.missing(op, name)
	case len(newer) == 1 && f.rec == nil:
		return newer[0], nil
	}
	slices.SortFunc(newer, func(a, b found) int { return bytes.Compare(b.rec.id[:], a.rec.id[:]) })
	var which []string
	for _, x := range newer[:min(len(newer), 8)] {
		which = append(which, fmt.Sprintf("%s (%s, %d bytes)", e.ids.versionID(x.rec.id), x.set.label.Banner(), x.rec.size))
	}
	return f, &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.Conflict, Hint: "versions of it were erased before they were reported here, newer than what is current: say with --version which you mean: " + strings.Join(which, ", ")}
}

// erasedThere says in the audit log what the officers here may have to do about a version that a peer's erasure takes away. "": a report here erases it.
func (e *Enclave) erasedThere(id versionID) string {
	if e.readers.takes(id) {
		return ""
	}
	return "; erased there, and by no report here (redoubt spill ls --erased): if it was a spill, what was copied and made of it here is here still"
}

// ErasedElsewhere lists what erasures of peers took away and no report erases, newest first, and says how many that are.
func (e *Enclave) ErasedElsewhere(ctx context.Context, who redoubt.Credential) (list []redoubt.SpillErased, all int, err error) {
	ent, err := e.decide(ctx, ask{op: "ErasedElsewhere", who: who, action: redoubt.ActionSpill, detail: "list what was erased elsewhere"})
	if err != nil {
		return nil, 0, err
	}
	newest := func(a, b redoubt.SpillErased) int { return b.At.Compare(a.At) }
	err = e.eachGone(ctx, func(b *bucket, f found, key string) error {
		if f.rec.from == "" || e.readers.takes(f.rec.id) {
			return nil
		}
		all++
		list = append(list, redoubt.SpillErased{Name: redoubt.ObjectName{Bucket: b.Name, Key: key}, Version: e.ids.versionID(f.rec.id), Label: f.set.label.Banner(), Bytes: f.rec.size, From: f.rec.from, At: f.at})
		if len(list) > 2*maxSpills {
			slices.SortFunc(list, newest)
			list = list[:maxSpills]
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(list, newest)
	return list[:min(len(list), maxSpills)], all, e.noteRead(ctx, ent)
}

// traceGone lists what erasures took away that held the content, if no report of the chain has it: what was made of it is followed.
func (e *Enclave) traceGone(ctx context.Context, r *spillRecord) error {
	before, err := e.listedBefore(r)
	if err != nil || r.SHA256 == "" || r.Size == 0 {
		return err
	}
	return e.eachGone(ctx, func(b *bucket, f found, key string) error {
		if before[f.rec.id] || f.rec.size != r.Size || hex.EncodeToString(f.rec.digest) != r.SHA256 {
			return nil
		}
		return e.listSame(r, redoubt.ObjectName{Bucket: b.Name, Key: key}, f, false)
	})
}

// listedBefore are the versions that a report, or one that it goes on with, lists.
func (e *Enclave) listedBefore(r *spillRecord) (map[versionID]bool, error) {
	all, err := e.chain(r)
	before := map[versionID]bool{}
	for _, of := range all {
		for _, f := range of.Found {
			if len(f.Stamp) == len(versionID{}) {
				before[versionID(f.Stamp)] = true
			}
		}
	}
	return before, err
}

// beginGone keeps a report of what an erasure took away, with the duty to bring it to its end.
func (e *Enclave) beginGone(ctx context.Context, r *spillRecord) error {
	return e.keepSpill(ctx, r, func(b *store.Batch) error { return (duty{}).add(b, spillDuty+r.ID) })
}

// maxGoneKept is how much is kept of one label: some 20 MB, and ten times that where all of it bears marks. Who puts and erases, below or at a
// partner, is charged for none of it.
const maxGoneKept = 100_000

// forgetGone drops what was kept for long enough, and the oldest of what is too much, on record.
func (e *Enclave) forgetGone(ctx context.Context, set *labelSet) error {
	if err := e.dropGone(ctx, set, goneKey(set.id, e.clock().Add(-forgetAfter), versionID{}), math.MaxInt, nil, ""); err != nil {
		return err
	}
	all := nextPrefix(setKey(recGone, set.id))
	n, err := e.countGone(set)
	if err != nil || n <= e.mostGone {
		return err
	}
	n -= e.mostGone
	return e.dropGone(ctx, set, all, n, nil, fmt.Sprintf("of versions that erasures took away at this label the oldest %d are kept for spill reports no more: %d are kept", n, e.mostGone))
}

func (e *Enclave) countGone(set *labelSet) (n int, err error) {
	view := e.engine.View()
	defer view.Close()
	prefix := setKey(recGone, set.id)
	it := view.Scan(prefix, nextPrefix(prefix))
	defer it.Close()
	for it.Next() {
		n++
	}
	return n, it.Err()
}

// forgetAllGone drops all that was kept of a label; of one bucket where one is given.
func (e *Enclave) forgetAllGone(ctx context.Context, set *labelSet, of *bucket) error {
	return e.dropGone(ctx, set, nextPrefix(setKey(recGone, set.id)), math.MaxInt, of, "")
}

// dropGone drops the oldest of what is kept of a label, up to a key, of a bucket if one is given. With a detail it is on record, once.
func (e *Enclave) dropGone(ctx context.Context, set *labelSet, upTo []byte, most int, of *bucket, detail string) error {
	view := e.engine.View()
	defer view.Close()
	prefix := setKey(recGone, set.id)
	it := view.Scan(prefix, upTo)
	defer it.Close()
	for more := true; more; {
		b := new(store.Batch)
		for len(b.Writes) < min(most, trimAtOnce) {
			if more = it.Next(); !more {
				break
			}
			if of != nil {
				if x, _, err := e.openGone(prefix, it.Key(), it.Value()); err != nil {
					return err
				} else if x.Bucket != of.id {
					continue
				}
			}
			b.Delete(bytes.Clone(it.Key()))
		}
		if err := it.Err(); err != nil || len(b.Writes) == 0 {
			return err
		}
		var ent *entry
		if detail != "" {
			ent = e.ownAct(set.label, redoubt.ActionSystemRecord, redoubt.ObjectName{Bucket: redoubt.SystemBucket, Key: kindSpill})
			ent.Detail, detail = detail, ""
		}
		most -= len(b.Writes)
		if err := e.commit(ctx, b, ent); err != nil {
			return err
		}
	}
	return nil
}

// openGone reads what is kept of one version.
func (e *Enclave) openGone(prefix, key, value []byte) (x *goneRecord, id versionID, err error) {
	x = new(goneRecord)
	raw, err := e.gone.Open(nil, nil, value, key)
	if err != nil || len(key) != len(prefix)+8+len(id) || strictJSON(raw, x) != nil || len(x.Sum) != 0 && len(x.Sum) != sha256.Size {
		return nil, id, &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return x, versionID(key[len(prefix)+8:]), nil
}
