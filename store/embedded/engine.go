// Package embedded is the store of one machine: an append-only, encrypted commit log
// with group commit, extents for large blobs, and pebble as an index that is rebuilt from the log.
//
// One goroutine, the committer, owns the order of the engine: it gathers every waiting
// batch into one frame, writes it with one write and one sync, applies it to the index and
// wakes the waiters. A second, the keeper, prepares the next log segment, seals full ones, and
// compacts. The index never writes ahead of the log: each frame's changes carry its
// sequence number, and after a crash the frames beyond the index are applied again.
//
// What is sealed with what: segment headers and the table of file keys under keys derived from the engine key;
// frames and inline blobs under keys in their segment's header; each file of the index under its own
// key. Blobs in extents arrive sealed by the caller (store's contract) and get a checksum against accident only.
//
// Locks, in the order in which they may be taken together: extents.mu, Engine.viewMu, segments.mu, cryptFS.mu. Engine.maintainMu is taken before all of them;
// Engine.life, Engine.queueMu, Engine.changedMu and gate.mu inside any and with nothing inside.
package embedded

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"redoubt"
	"redoubt/store"
)

// Engine is a store.Engine on one directory. All its methods may be called at once.
type Engine struct {
	o    Options
	lock io.Closer
	dir  string // of the current generation
	fs   *cryptFS
	idx  *pebble.DB
	segs *segments
	log  *segmentLog
	ext  *extents

	life   sync.Mutex
	closed bool
	calls  int        // under way
	idle   *sync.Cond // on life: calls is zero

	done sync.Once
	err  error // of Close

	// The queue of the committer.
	queueMu sync.Mutex
	queue   []*request
	wake    chan struct{}
	stop    context.CancelFunc
	ctx     context.Context // ends the goroutines
	work    sync.WaitGroup
	kick    chan struct{} // asks the keeper for a round

	// Owned by the committer (and by Open before it starts).
	state     state
	lastGroup int // requests in the last group
	writer    frameWriter
	counters  map[string]int64      // committed, a part of them
	pending   map[string][]byte     // written by the frame being built; nil: deleted
	failed    atomic.Pointer[error] // set after an uncertain write: no more writes

	trouble troubles // why the index cannot get on

	viewMu sync.Mutex
	views  map[*view]struct{}
	limbo  map[store.BlobRef]dead // unlinked, and pinned by a view taken before
	nextAt atomic.Uint64          // next blob name

	changedMu sync.Mutex
	changed   chan struct{} // closed and replaced when a view, an upload or a file ends

	maintainMu sync.Mutex // one round of maintenance at a time; taken before all others
	compacted  uint64     // the dropped entries below it were compacted away since the store was opened; under maintainMu

	stats struct {
		syncs, commits, batches, appended, first atomic.Uint64
		blobs, live                              atomic.Int64
	}
}

var _ store.Restorer = (*Engine)(nil)

type dead struct {
	loc    location
	seq    uint64
	pinned []*segment
}

var errClosed = errors.New("engine is closed")

// enter keeps the engine from closing until leave. A call may enter again further
// down; once Close has begun that is refused, and the call ends early.
func (e *Engine) enter(op string) error {
	e.life.Lock()
	defer e.life.Unlock()
	if e.closed {
		return unavailable(op, errClosed)
	}
	e.calls++
	return nil
}

func (e *Engine) leave() {
	e.life.Lock()
	defer e.life.Unlock()
	if e.calls--; e.calls == 0 {
		e.idle.Broadcast()
	}
}

// Get reads the newest committed value of one key; see store.Engine.
func (e *Engine) Get(key []byte) ([]byte, bool, error) {
	if err := e.enter("store.Get"); err != nil {
		return nil, false, err
	}
	defer e.leave()
	var space [256]byte
	return lookup(e.idx, userKey(space[:0], key))
}

// Stats tells sizes and counts; see store.Engine.
func (e *Engine) Stats() store.Stats {
	s := store.Stats{
		LiveBytes: e.stats.live.Load(), Blobs: e.stats.blobs.Load(), Appended: e.stats.appended.Load(),
		FirstAppend: e.stats.first.Load(), Syncs: e.stats.syncs.Load(), Commits: e.stats.commits.Load(), Batches: e.stats.batches.Load(),
	}
	if e.enter("store.Stats") != nil {
		return s
	}
	defer e.leave()
	e.segs.mu.Lock()
	for _, seg := range e.segs.byID {
		if seg.header.sealed {
			s.DiskBytes += int64(seg.header.length)
		} else {
			s.DiskBytes += e.o.SegmentBytes
		}
	}
	e.segs.mu.Unlock()
	s.DiskBytes += int64(e.idx.Metrics().DiskSpaceUsage())
	if usage, err := e.o.FS.GetDiskUsage(e.dir); err == nil {
		s.FreeBytes = max(0, int64(usage.AvailBytes)-e.o.ReserveBytes)
	}
	return s
}

// Close waits for what is under way, writes the index out and gives up the lock. Views that are still
// open end. A second Close is no error.
func (e *Engine) Close() error {
	e.done.Do(func() { e.err = e.close() })
	return e.err
}

func (e *Engine) close() error {
	e.life.Lock()
	e.closed = true
	for e.calls > 0 {
		e.idle.Wait()
	}
	e.life.Unlock()
	e.stop()
	e.work.Wait()
	var errs error
	e.viewMu.Lock()
	for v := range e.views {
		errs = errors.Join(errs, v.end())
	}
	e.viewMu.Unlock()
	close(e.fs.ended)
	if e.failed.Load() == nil && e.fs.broken.Load() == nil && e.trouble.Load() == nil {
		errs = errors.Join(errs, e.flushIndex()) // only spares the next Open the replay
	}
	errs = errors.Join(errs, indexError(e.idx.Close()), e.fs.persist(), e.segs.close(), e.lock.Close())
	if errs != nil {
		return diskError("store.Close", errs)
	}
	return nil
}

func (s *segments) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs error
	for id, seg := range s.byID {
		delete(s.byID, id)
		if seg.refs--; seg.refs == 0 {
			errs = errors.Join(errs, seg.f.Close())
		}
	}
	return errs
}

// checkRoom refuses a write that would eat into the reserve. What frees space, and the record of what
// is refused and read, may use three quarters of it: else a full disk could never be emptied, nor read. While the index cannot get on, that is let
// through as long as the index takes it without waiting.
func (e *Engine) checkRoom(op string, frees bool) error {
	if err := e.fs.brokenBy(); err != nil {
		return err
	}
	if why := e.trouble.Load(); why != nil && !(frees && e.roomy()) {
		if err := diskError(op, why); errors.Is(err, redoubt.DiskFull) {
			return err
		}
		return unavailable(op, why)
	}
	if e.o.ReserveBytes <= 0 {
		return nil
	}
	usage, err := e.o.FS.GetDiskUsage(e.dir)
	if err != nil {
		return nil // a file system that cannot tell; its own error comes with the write
	}
	reserve := uint64(e.o.ReserveBytes)
	if frees {
		reserve /= 4
	}
	if usage.AvailBytes < reserve {
		return &redoubt.Error{Op: op, Kind: redoubt.DiskFull, Err: errors.New("disk reserve reached"),
			Hint: "delete objects, let retention expire, or add disk"}
	}
	return nil
}
