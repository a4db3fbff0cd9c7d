// Package memory is a store.Engine that keeps everything in memory: the contract in
// its plainest form, for tests. Nothing in it is durable beyond its process, and
// nothing is sealed. There is one lock, Engine.mu.
package memory

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"redoubt"
	"redoubt/store"
)

// Engine is an in-memory store.Engine. Its zero value is not ready; see Open.
type Engine struct {
	mu      sync.Mutex
	closed  bool
	root    *node
	blobs   *node // key: big-endian BlobRef
	next    store.BlobRef
	seq     uint64
	views   map[*view]struct{}
	dead    []deadBlob // unlinked, and pinned by a view taken before
	stats   store.Stats
	claimed map[store.BlobRef]bool // names staged by StageAs
}

type deadBlob struct {
	ref  store.BlobRef
	seq  uint64
	data []byte
}

var _ store.Restorer = (*Engine)(nil)

// Open makes an empty engine.
func Open() *Engine {
	return &Engine{next: 1, views: map[*view]struct{}{}, claimed: map[store.BlobRef]bool{}}
}

// Reopen gives an engine with the committed state of this one, as a restart would.
// This one is closed.
func (e *Engine) Reopen() *Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	n := Open()
	n.root, n.blobs, n.next, n.stats = e.root, e.blobs, e.next, e.stats
	return n
}

var errClosed = errors.New("engine is closed")

func unavailable(op string, err error) error {
	return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: err}
}

// Commit applies b; see store.Engine.
func (e *Engine) Commit(ctx context.Context, b *store.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return unavailable("store.Commit", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return unavailable("store.Commit", errClosed)
	}
	root, err := applyWrites(e.root, b.Writes)
	if err != nil {
		return err
	}
	blobs, err := e.applyLinks(b.Links)
	if err != nil {
		return err
	}
	if b.DropBelow > e.stats.Appended && e.stats.Appended > 0 {
		return &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: errors.New("drop of entries that were not appended")}
	}
	root = e.drop(root, b.DropBelow)
	b.FirstAppend = e.stats.Appended
	for i, entry := range b.Appends {
		root = root.with(string(store.AppendKey(b.FirstAppend+uint64(i))), clone(entry))
	}
	e.seq++
	for _, ref := range b.Unlinks {
		if n, ok := blobs.find(refKey(ref)); ok {
			blobs = blobs.without(refKey(ref))
			e.dead = append(e.dead, deadBlob{ref, e.seq, n.value})
			e.stats.Blobs--
			e.stats.LiveBytes -= int64(len(n.value))
		}
	}
	for _, s := range b.Links {
		st := s.(*staged)
		st.linked = true
		e.stats.Blobs++
		e.stats.LiveBytes += int64(len(st.data))
	}
	e.root, e.blobs = root, blobs
	e.stats.Appended += uint64(len(b.Appends))
	e.stats.Batches++
	e.stats.Commits++
	e.bury()
	return nil
}

// drop ends the entries below a number. The caller holds mu, and takes the new root in any case.
func (e *Engine) drop(root *node, below uint64) *node {
	for ; e.stats.FirstAppend < min(below, e.stats.Appended); e.stats.FirstAppend++ {
		root = root.without(string(store.AppendKey(e.stats.FirstAppend)))
	}
	if below > e.stats.Appended {
		e.stats.FirstAppend, e.stats.Appended = below, below
	}
	return root
}

func applyWrites(root *node, writes []store.Write) (*node, error) {
	for _, w := range writes {
		key := string(w.Key)
		switch w.Op {
		case store.OpSet:
			root = root.with(key, clone(w.Value))
		case store.OpDelete:
			root = root.without(key)
		case store.OpAdd, store.OpNumber:
			var old uint64
			if n, ok := root.find(key); ok {
				if len(n.value) != 8 {
					return nil, &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: errors.New("add to a value that is no counter")}
				}
				old = binary.LittleEndian.Uint64(n.value)
			}
			if w.Op == store.OpAdd {
				root = root.with(key, binary.LittleEndian.AppendUint64(nil, old+uint64(w.Delta)))
				break
			}
			root = root.with(key, binary.LittleEndian.AppendUint64(nil, old+1))
			root = root.with(string(store.NumberedKey(w.Key, old+1)), clone(w.Value))
		}
	}
	return root, nil
}

func (e *Engine) applyLinks(links []store.Staged) (*node, error) {
	blobs := e.blobs
	for _, l := range links {
		st, ok := l.(*staged)
		if !ok || st.e != e || !st.finished || st.linked || st.discarded {
			return nil, &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: errors.New("link of a blob that is not ready")}
		}
		if _, taken := blobs.find(refKey(st.ref)); taken {
			return nil, &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: errors.New("blob linked twice")}
		}
		blobs = blobs.with(refKey(st.ref), st.data)
	}
	return blobs, nil
}

// bury forgets dead blobs that no open view can reach. The caller holds mu.
func (e *Engine) bury() {
	oldest := e.seq + 1
	for v := range e.views {
		oldest = min(oldest, v.seq)
	}
	kept := e.dead[:0]
	for _, d := range e.dead {
		if d.seq > oldest {
			kept = append(kept, d)
		}
	}
	clear(e.dead[len(kept):])
	e.dead = kept
}

// Get reads one key.
func (e *Engine) Get(key []byte) ([]byte, bool, error) {
	e.mu.Lock()
	root, closed := e.root, e.closed
	e.mu.Unlock()
	if closed {
		return nil, false, unavailable("store.Get", errClosed)
	}
	return get(root, key)
}

func get(root *node, key []byte) ([]byte, bool, error) {
	n, ok := root.find(string(key))
	if !ok {
		return nil, false, nil
	}
	return clone(n.value), true, nil
}

// Maintain has nothing to do.
func (e *Engine) Maintain(ctx context.Context) error { return ctx.Err() }

// Scrub has nothing to do: no file holds anything.
func (e *Engine) Scrub(ctx context.Context, lower, upper []byte) error { return ctx.Err() }

// Check finds no fault: memory is believed.
func (e *Engine) Check(ctx context.Context, report func(fault string)) (int, error) {
	return 0, ctx.Err()
}

// Stats tells what is kept.
func (e *Engine) Stats() store.Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// Close ends the engine; a second Close is no error.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return nil
}

func clone(b []byte) []byte { return append([]byte{}, b...) }

func refKey(ref store.BlobRef) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(ref)))
}
