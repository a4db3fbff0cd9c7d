package embedded

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"redoubt/store"
)

// applier turns the changes of one frame into one batch of the index. Serving and
// recovery share it, so a replayed frame leaves what it left the first time.
type applier struct {
	e     *Engine
	batch *pebble.Batch
	state state
	first uint64                     // entry of the append stream that is kept
	fresh map[store.BlobRef]location // linked or moved by this frame
	live  map[uint64]int64           // change of live bytes, by segment
	ever  map[uint64]int64           // bytes linked
	high  map[uint64]int64           // end of linked extents
	dead  []deadBlob
}

type deadBlob struct {
	ref store.BlobRef
	loc location
}

// apply applies the changes of frame seq; segment and next tell where the frame after it lies.
func (e *Engine) apply(changes []byte, seq, segment uint64, next int64) error {
	a := &applier{e: e, batch: e.idx.NewBatch(), state: e.state, first: e.stats.first.Load()}
	defer a.batch.Close()
	a.state.seq, a.state.segment, a.state.off = seq, segment, next
	for len(changes) > 0 {
		c, rest, err := nextChange(changes)
		if err != nil {
			return err
		}
		if err := a.change(c); err != nil {
			return err
		}
		changes = rest
	}
	if err := a.segments(); err != nil {
		return err
	}
	if err := a.batch.Set(stateKey, a.state.encode(), nil); err != nil {
		return err
	}
	return a.commit(segment, seq)
}

func (a *applier) change(c change) error {
	var space [320]byte
	switch c.kind {
	case 0:
		return nil
	case changeSet:
		return a.batch.Set(userKey(space[:0], c.key), c.value, nil)
	case changeDelete:
		return a.batch.Delete(userKey(space[:0], c.key), nil)
	case changeAppend:
		n := a.state.appended
		a.state.appended++
		return a.batch.Set(userKey(space[:0], store.AppendKey(n)), c.value, nil)
	case changeDrop:
		return a.drop(c.below)
	case changeLink:
		a.state.blobs++
		a.state.live += c.loc.size
		a.state.nextRef = max(a.state.nextRef, uint64(c.ref)+1)
		return a.place(c.ref, c.loc)
	case changeMove:
		old, ok, err := a.find(c.ref)
		if err != nil || !ok {
			return err
		}
		if err := a.vacate(c.ref, old); err != nil {
			return err
		}
		return a.place(c.ref, c.loc)
	default:
		return a.unlink(c.ref)
	}
}

// drop ends the entries below a number. Compaction gives their space back.
func (a *applier) drop(below uint64) error {
	a.state.appended = max(a.state.appended, below)
	if below <= a.first {
		return nil
	}
	from, to := userKey(nil, store.AppendKey(a.first)), userKey(nil, store.AppendKey(below))
	a.first = below
	return a.batch.DeleteRange(from, to, nil)
}

// find tells where a blob lies as of the changes so far.
func (a *applier) find(ref store.BlobRef) (location, bool, error) {
	if loc, ok := a.fresh[ref]; ok {
		return loc, loc.runs != nil || loc.size == 0 && loc.inline, nil
	}
	return a.e.locate(a.e.idx, ref)
}

func (a *applier) place(ref store.BlobRef, loc location) error {
	if a.fresh == nil {
		a.makeMaps()
	}
	a.fresh[ref] = loc
	var space [128]byte
	if err := a.batch.Set(blobKey(make([]byte, 0, 9), ref), loc.append(space[:0]), nil); err != nil {
		return err
	}
	for _, r := range loc.runs {
		n := loc.disk(r)
		a.live[r.segment] += n
		a.ever[r.segment] += n
		a.high[r.segment] = max(a.high[r.segment], r.off+n)
		if err := a.batch.Set(reverseKey(r.segment, r.off), binary.BigEndian.AppendUint64(nil, uint64(ref)), nil); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) makeMaps() {
	a.fresh = map[store.BlobRef]location{}
	a.live, a.ever, a.high = map[uint64]int64{}, map[uint64]int64{}, map[uint64]int64{}
}

func (a *applier) vacate(ref store.BlobRef, loc location) error {
	if a.fresh == nil {
		a.makeMaps()
	}
	for _, r := range loc.runs {
		a.live[r.segment] -= loc.disk(r)
		if err := a.batch.Delete(reverseKey(r.segment, r.off), nil); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) unlink(ref store.BlobRef) error {
	loc, ok, err := a.find(ref)
	if err != nil || !ok {
		return err
	}
	if err := a.vacate(ref, loc); err != nil {
		return err
	}
	a.fresh[ref] = location{}
	a.dead = append(a.dead, deadBlob{ref, loc})
	a.state.blobs--
	a.state.live -= loc.size
	return a.batch.Delete(blobKey(make([]byte, 0, 9), ref), nil)
}

// segments records the live bytes of each segment that the frame touched.
func (a *applier) segments() error {
	for id, delta := range a.live {
		seg := a.e.segs.get(id)
		if seg == nil {
			return corrupt("segment", fmt.Errorf("segment %d is missing", id))
		}
		live, ever, high := seg.live+delta, seg.ever+a.ever[id], max(seg.high, a.high[id]) // only the committer changes them
		if live < 0 {
			return corrupt("segment", fmt.Errorf("segment %d has negative live bytes", id))
		}
		if err := a.batch.Set(segmentKey(id), encodeUsage(live, ever, high), nil); err != nil {
			return err
		}
	}
	return nil
}

// commit makes the batch visible, together with what views and statistics see of it.
func (a *applier) commit(segment, seq uint64) error {
	e := a.e
	e.viewMu.Lock()
	defer e.viewMu.Unlock()
	for _, d := range a.dead {
		if len(e.views) == 0 {
			break
		}
		if pinned, ok := e.segs.pin(d.loc.runs); ok {
			e.limbo[d.ref] = dead{d.loc, seq, pinned}
		}
	}
	if err := e.idx.Apply(a.batch, pebble.NoSync); err != nil {
		return indexError(err)
	}
	e.segs.mu.Lock()
	for id, delta := range a.live {
		seg := e.segs.findLocked(id)
		seg.live += delta
		seg.ever += a.ever[id]
		seg.high = max(seg.high, a.high[id])
	}
	if seg := e.segs.byID[segment]; seg != nil {
		seg.maxSeq = seq
	}
	e.segs.mu.Unlock()
	e.state = a.state
	e.stats.first.Store(a.first)
	e.stats.appended.Store(a.state.appended)
	e.stats.blobs.Store(a.state.blobs)
	e.stats.live.Store(a.state.live)
	return nil
}
