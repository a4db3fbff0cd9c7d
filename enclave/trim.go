package enclave

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/store"
)

// A journal is trimmed as its peers acknowledge it. An entry goes when every peer that the set is for has acknowledged it:
// who comes later is told by the inventory. The mark of a removal outlives its entry: it goes a while after every
// peer acknowledged it or was retired, so that what was under way when they did finds the mark still there. By age alone none goes.
//
//	y set                the position that the set's journal was trimmed up to
//	w set time stamp     a removal that every peer has acknowledged, and when that was seen: its position (8), for a device's neighbours
const (
	recTrimmed = 'y'
	recDue     = 'w'
)

// forgetAfter is how long the mark of a removal is kept after everybody has acknowledged it: as long as a bundle may be under way
// that was made before, and as long as a peer that is set back to a backup is still told.
const forgetAfter = bundle.MaxLife

// trimAtOnce is how many entries go in one commit.
const trimAtOnce = 1000

// Trim drops what nobody needs any more of every journal, and of what is in memory of consents. Done twice it harms nothing.
func (e *Enclave) Trim(ctx context.Context) error {
	e.forgetConsents()
	for _, set := range e.sets.all() {
		if err := e.forgetGone(ctx, set); err != nil {
			return err
		}
	}
	if !e.linked() {
		return nil
	}
	if err := e.sweepArrivals(ctx); err != nil {
		return err
	}
	for _, set := range e.sets.all() {
		if err := e.trimSet(ctx, set); err != nil {
			return err
		}
		if err := e.forgetMarks(ctx, set); err != nil {
			return err
		}
	}
	return nil
}

// trimSet drops the entries that every peer of the set has acknowledged.
func (e *Enclave) trimSet(ctx context.Context, set *labelSet) error {
	low, err := e.leastAcknowledged(set)
	if err != nil {
		return err
	}
	for {
		at, known, err := e.trimmed(set)
		if err != nil || known && at >= low || low == 0 {
			return err
		}
		if err := e.trimPage(ctx, set, at, low); err != nil {
			return err
		}
	}
}

// leastAcknowledged is the position that every peer of a set has acknowledged: 0 where one is not known to have anything, the
// journal's end where there is no peer.
func (e *Enclave) leastAcknowledged(set *labelSet) (uint64, error) {
	low, err := journalEnd(e.engine, set)
	if err != nil {
		return 0, err
	}
	for _, l := range e.Links() {
		if !l.Bound.Dominates(set.label) || e.neighbour(l.Peer) || l.Raise == redoubt.RaisedHere {
			continue
		}
		at, known, err := e.acknowledged(cursorKey(l.Peer, set.name))
		if err != nil || !known {
			return 0, err
		}
		low = min(low, at)
	}
	return low, nil
}

// trimmed is the position that a set's journal was trimmed up to.
func (e *Enclave) trimmed(set *labelSet) (uint64, bool, error) {
	return e.acknowledged(setKey(recTrimmed, set.id))
}

// trimPage drops some entries behind a position, and notes which of them are removals.
func (e *Enclave) trimPage(ctx context.Context, set *labelSet, after, low uint64) error {
	view := e.engine.View()
	defer view.Close()
	prefix := setKey(recJournal, set.id)
	it := view.Scan(store.NumberedKey(prefix, after+1), store.NumberedKey(prefix, low+1))
	defer it.Close()
	b, upTo := new(store.Batch), low
	for it.Next() {
		k, v := it.Key(), it.Value()
		if len(k) != len(prefix)+8 || len(v) < len(versionID{}) {
			return &redoubt.Error{Op: "trim", Kind: redoubt.Corrupt, Err: errRecord}
		}
		b.Delete(bytes.Clone(k))
		id := versionID(v)
		raw, ok, err := view.Get(stampKey(set.id, id))
		if err != nil {
			return err
		}
		if ok && len(raw) > 0 && redoubt.EntryKind(raw[0]) == redoubt.EntryRemoval {
			b.Set(dueKey(set.id, e.clock(), id), bytes.Clone(k[len(prefix):]))
		}
		if len(b.Writes) >= trimAtOnce {
			upTo = binary.BigEndian.Uint64(k[len(prefix):])
			break
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	b.Set(setKey(recTrimmed, set.id), binary.BigEndian.AppendUint64(nil, upTo))
	return e.engine.Commit(ctx, b)
}

func dueKey(set uint32, seen time.Time, id versionID) []byte {
	return append(binary.BigEndian.AppendUint64(setKey(recDue, set), uint64(seen.UnixNano())), id[:]...)
}

// forgetMarks drops the marks of removals that everybody acknowledged long enough ago.
func (e *Enclave) forgetMarks(ctx context.Context, set *labelSet) error {
	view := e.engine.View()
	defer view.Close()
	prefix := setKey(recDue, set.id)
	it := view.Scan(prefix, dueKey(set.id, e.clock().Add(-forgetAfter), versionID{}))
	defer it.Close()
	for it.Next() {
		k := bytes.Clone(it.Key())
		if len(k) != len(prefix)+8+len(versionID{}) {
			return &redoubt.Error{Op: "trim", Kind: redoubt.Corrupt, Err: errRecord}
		}
		position := uint64(unknownPosition)
		if v := it.Value(); len(v) == 8 {
			position = binary.BigEndian.Uint64(v)
		}
		if told, err := e.toldNeighbours(set, position); err != nil {
			return err
		} else if !told {
			continue
		}
		if err := e.forgetMark(ctx, set, k, versionID(k[len(prefix)+8:])); err != nil {
			return err
		}
	}
	return it.Err()
}

// forgetMark drops one, unless another has taken its place.
func (e *Enclave) forgetMark(ctx context.Context, set *labelSet, due []byte, id versionID) error {
	b := new(store.Batch)
	b.Delete(due)
	raw, ok, err := e.engine.Get(stampKey(set.id, id))
	if err != nil {
		return err
	}
	if !ok {
		return e.engine.Commit(ctx, b)
	}
	entry, _, is, err := fateOf(raw)
	if err != nil || !is {
		return &redoubt.Error{Op: "trim", Kind: redoubt.Corrupt, Err: errors.Join(errRecord, err)}
	}
	if e.foreign(entry.Maker) && e.home() == "" { // what is fed again after a gap may bring what it removed, however late: it stays for good
		return e.engine.Commit(ctx, b)
	}
	bucket := (*e.buckets.Load())[e.localName(entry.Maker, entry.Name).Bucket]
	if bucket == nil {
		return &redoubt.Error{Op: "trim", Kind: redoubt.Corrupt, Err: errRecord}
	}
	defer e.lockName(bucket, entry.Name.Key)()
	of := versionID(entry.Of)
	if fate, err := e.fates(e.engine, set, of); err != nil || fate.removal != id {
		return errors.Join(err, e.engine.Commit(ctx, b))
	}
	b.Delete(stampKey(set.id, id))
	b.Delete(fateKey(set.id, of))
	return e.engine.Commit(ctx, b)
}
