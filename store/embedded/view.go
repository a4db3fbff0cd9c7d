package embedded

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"redoubt/store"
)

// view is a snapshot of the index. While it is open, blobs that die stay readable.
type view struct {
	e    *Engine
	seq  uint64
	snap *pebble.Snapshot // nil once closed; under e.viewMu for writing
}

var _ store.Archive = (*view)(nil)

// View is a picture of everything committed before the call; see store.Engine.
func (e *Engine) View() store.View {
	v := &view{e: e}
	if e.enter("store.View") != nil {
		return v
	}
	defer e.leave()
	e.viewMu.Lock()
	defer e.viewMu.Unlock()
	v.snap, v.seq = e.idx.NewSnapshot(), e.state.seq
	e.views[v] = struct{}{}
	return v
}

var errViewClosed = errors.New("view is closed")

func (v *view) snapshot(op string) (*pebble.Snapshot, error) {
	v.e.viewMu.Lock()
	defer v.e.viewMu.Unlock()
	if v.snap == nil {
		return nil, unavailable(op, errViewClosed)
	}
	return v.snap, nil
}

func (v *view) Get(key []byte) ([]byte, bool, error) {
	snap, err := v.snapshot("store.Get")
	if err != nil {
		return nil, false, err
	}
	var space [256]byte
	return lookup(snap, userKey(space[:0], key))
}

func (v *view) Scan(lower, upper []byte) store.Iterator {
	snap, err := v.snapshot("store.Scan")
	if err != nil {
		return &iterator{err: err}
	}
	o := &pebble.IterOptions{LowerBound: userKey(nil, lower), UpperBound: []byte{sortUser + 1}}
	if upper != nil {
		o.UpperBound = userKey(nil, upper)
	}
	if string(o.LowerBound) >= string(o.UpperBound) {
		return &iterator{}
	}
	it, err := snap.NewIter(o)
	return &iterator{it: it, err: indexError(err)}
}

// EachBlob visits every blob that was linked when the view was taken.
func (v *view) EachBlob(ctx context.Context, visit func(store.BlobRef, int64) error) error {
	snap, err := v.snapshot("store.EachBlob")
	if err != nil {
		return err
	}
	return eachBlob(ctx, snap, func(ref store.BlobRef, loc location) error { return visit(ref, loc.size) })
}

func eachBlob(ctx context.Context, r pebble.Reader, visit func(store.BlobRef, location) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{sortBlob}, UpperBound: []byte{sortBlob + 1}})
	if err != nil {
		return indexError(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return unavailable("store.EachBlob", err)
		}
		loc, err := decodeLocation(it.Value())
		if err == nil && len(it.Key()) != 9 {
			err = corrupt("blob name", errFrame)
		}
		if err == nil {
			err = visit(store.BlobRef(binary.BigEndian.Uint64(it.Key()[1:])), loc)
		}
		if err != nil {
			return err
		}
	}
	return indexError(it.Error())
}

// Close ends the view, and lets go of the dead blobs that no older view sees.
func (v *view) Close() error {
	v.e.viewMu.Lock()
	defer v.e.viewMu.Unlock()
	return v.end()
}

// end closes the snapshot. The caller holds viewMu.
func (v *view) end() error {
	if v.snap == nil {
		return nil
	}
	err := v.snap.Close()
	v.snap = nil
	delete(v.e.views, v)
	v.e.announce()
	oldest := ^uint64(0)
	for other := range v.e.views {
		oldest = min(oldest, other.seq)
	}
	for ref, d := range v.e.limbo {
		if d.seq <= oldest || oldest == ^uint64(0) {
			v.e.segs.unpin(d.pinned...)
			delete(v.e.limbo, ref)
		}
	}
	return indexError(err)
}

// iterator walks user keys; the zero one is empty.
type iterator struct {
	it      *pebble.Iterator
	started bool
	err     error
}

func (i *iterator) Next() bool {
	switch {
	case i.it == nil:
		return false
	case !i.started:
		i.started = true
		return i.it.First()
	}
	return i.it.Next()
}

func (i *iterator) SeekGE(key []byte) bool {
	if i.it == nil {
		return false
	}
	i.started = true
	var space [256]byte
	return i.it.SeekGE(userKey(space[:0], key))
}

func (i *iterator) Key() []byte   { return i.it.Key()[1:] }
func (i *iterator) Value() []byte { return i.it.Value() }

func (i *iterator) Err() error {
	if i.err != nil || i.it == nil {
		return i.err
	}
	return indexError(i.it.Error())
}

func (i *iterator) Close() error {
	if i.it == nil {
		return i.err
	}
	it := i.it
	i.it = nil
	if err := indexError(it.Close()); err != nil {
		i.err = err
	}
	return i.err
}
