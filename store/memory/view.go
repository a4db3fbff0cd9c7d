package memory

import (
	"context"
	"encoding/binary"
	"errors"

	"redoubt/store"
)

type view struct {
	e           *Engine
	root, blobs *node
	seq         uint64
	closed      bool // under e.mu
}

var _ store.Archive = (*view)(nil)

// View is a picture of everything committed so far.
func (e *Engine) View() store.View {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := &view{e: e, root: e.root, blobs: e.blobs, seq: e.seq, closed: e.closed}
	if !e.closed {
		e.views[v] = struct{}{}
	}
	return v
}

func (v *view) isClosed() bool {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	return v.closed
}

var errViewClosed = errors.New("view is closed")

func (v *view) Get(key []byte) ([]byte, bool, error) {
	if v.isClosed() {
		return nil, false, unavailable("store.Get", errViewClosed)
	}
	return get(v.root, key)
}

func (v *view) Scan(lower, upper []byte) store.Iterator {
	it := &iterator{root: v.root, lower: string(lower), upper: string(upper), bounded: upper != nil, next: string(lower)}
	if v.isClosed() {
		it.err, it.done = unavailable("store.Scan", errViewClosed), true
	}
	return it
}

func (v *view) EachBlob(ctx context.Context, visit func(store.BlobRef, int64) error) error {
	for n := v.blobs.ceiling(""); n != nil; n = v.blobs.ceiling(n.key + "\x00") {
		if err := ctx.Err(); err != nil {
			return unavailable("store.EachBlob", err)
		}
		if err := visit(store.BlobRef(binary.BigEndian.Uint64([]byte(n.key))), int64(len(n.value))); err != nil {
			return err
		}
	}
	return nil
}

func (v *view) Close() error {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	v.closed = true
	delete(v.e.views, v)
	v.e.bury()
	return nil
}

type iterator struct {
	root         *node
	lower, upper string
	bounded      bool
	next         string // where Next looks
	at           *node
	err          error
	done         bool
}

func (it *iterator) Next() bool {
	if it.done {
		return false
	}
	n := it.root.ceiling(it.next)
	if n == nil || it.bounded && n.key >= it.upper {
		it.at, it.done = nil, true
		return false
	}
	it.at, it.next = n, n.key+"\x00"
	return true
}

func (it *iterator) SeekGE(key []byte) bool {
	if it.err != nil {
		return false
	}
	it.done, it.next = false, max(it.lower, string(key))
	return it.Next()
}

func (it *iterator) Key() []byte   { return []byte(it.at.key) }
func (it *iterator) Value() []byte { return it.at.value }
func (it *iterator) Err() error    { return it.err }
func (it *iterator) Close() error  { it.done = true; return it.err }
