package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
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
		var x goneRecord
		k := it.Key()
		raw, err := e.gone.Open(nil, nil, it.Value(), k)
		if err != nil || len(k) != len(prefix)+8+len(versionID{}) || strictJSON(raw, &x) != nil || len(x.Sum) != 0 && len(x.Sum) != sha256.Size {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: errRecord}
		}
		rec := &record{id: versionID(k[len(prefix)+8:]), made: x.Made, maker: x.Maker, size: x.Size, digest: x.Sum, from: x.From}
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

// ErasedElsewhere lists what erasures of peers took away and no report erases, newest first.
func (e *Enclave) ErasedElsewhere(ctx context.Context, who redoubt.Credential) ([]redoubt.SpillErased, error) {
	ent, err := e.decide(ctx, ask{op: "ErasedElsewhere", who: who, action: redoubt.ActionSpill, detail: "list what was erased elsewhere"})
	if err != nil {
		return nil, err
	}
	var all []redoubt.SpillErased
	newest := func(a, b redoubt.SpillErased) int { return b.At.Compare(a.At) }
	err = e.eachGone(ctx, func(b *bucket, f found, key string) error {
		if f.rec.from == "" || e.readers.takes(f.rec.id) {
			return nil
		}
		all = append(all, redoubt.SpillErased{Name: redoubt.ObjectName{Bucket: b.Name, Key: key}, Version: e.ids.versionID(f.rec.id), Label: f.set.label.Banner(), Bytes: f.rec.size, From: f.rec.from, At: f.at})
		if len(all) > 2*maxSpills {
			slices.SortFunc(all, newest)
			all = all[:maxSpills]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, newest)
	return all[:min(len(all), maxSpills)], e.noteRead(ctx, ent)
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

// forgetGone drops what was kept for long enough; the rest the next time.
func (e *Enclave) forgetGone(ctx context.Context, set *labelSet) error {
	_, err := e.dropGone(ctx, set, goneKey(set.id, e.clock().Add(-forgetAfter), versionID{}))
	return err
}

// forgetAllGone drops all that was kept of a label.
func (e *Enclave) forgetAllGone(ctx context.Context, set *labelSet) error {
	for {
		if some, err := e.dropGone(ctx, set, nextPrefix(setKey(recGone, set.id))); err != nil || !some {
			return err
		}
	}
}

// dropGone drops some of what is kept of a label, up to a key.
func (e *Enclave) dropGone(ctx context.Context, set *labelSet, upTo []byte) (some bool, err error) {
	view := e.engine.View()
	defer view.Close()
	it := view.Scan(setKey(recGone, set.id), upTo)
	defer it.Close()
	b := new(store.Batch)
	for it.Next() && len(b.Writes) < trimAtOnce {
		b.Delete(bytes.Clone(it.Key()))
	}
	if err := it.Err(); err != nil || len(b.Writes) == 0 {
		return false, err
	}
	return true, e.engine.Commit(ctx, b)
}
