package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"redoubt"
	"redoubt/store"
)

// Open opens the store in dir, and makes one where there is none. It takes the lock of
// the directory, brings an older format up to date, and applies again what the log holds beyond the index.
// A store that is open elsewhere gives redoubt.Unavailable; a newer format, a wrong key or damage an error
// with a hint. What was acknowledged is never cut off: a log that does not verify is
// redoubt.Corrupt, unless it ends in a write that a crash cut short.
func Open(dir string, o Options) (*Engine, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(o.FS, dir)
	if err != nil {
		return nil, err
	}
	e, err := open(dir, o, lock)
	if err != nil {
		return nil, errors.Join(diskError("store.Open", err), lock.Close())
	}
	return e, nil
}

func open(dir string, o Options, lock io.Closer) (_ *Engine, err error) {
	generation, err := prepareFormat(o.FS, dir, o.Key, formatSteps)
	if err != nil {
		return nil, err
	}
	e := &Engine{o: o, lock: lock, dir: generation, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		counters: map[string]int64{}, pending: map[string][]byte{}, views: map[*view]struct{}{},
		limbo: map[store.BlobRef]dead{}, changed: make(chan struct{}), log: &segmentLog{spares: make(chan spare)}}
	e.ext = &extents{e: e}
	e.idle = sync.NewCond(&e.life)
	e.ctx, e.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			e.stop()
			e.abandon()
		}
	}()
	if err := e.openFiles(); err != nil {
		return nil, err
	}
	if err := e.recover(); err != nil {
		return nil, err
	}
	e.work.Go(e.runCommitter)
	e.work.Go(e.runPreparer)
	e.work.Go(e.runKeeper)
	return e, nil
}

// abandon closes what a failed Open had opened.
func (e *Engine) abandon() {
	if e.fs != nil {
		close(e.fs.ended)
	}
	if e.idx != nil {
		e.idx.Close()
	}
	if e.segs != nil {
		e.segs.close()
	}
}

func (e *Engine) openFiles() error {
	fsys := e.o.FS
	dirs := [2]string{fsys.PathJoin(e.dir, "d"), fsys.PathJoin(e.dir, "i")}
	for _, d := range dirs {
		if err := fsys.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := syncDir(fsys, e.dir); err != nil {
		return err
	}
	headers, err := deriveAEAD(e.o.Key, "segment headers")
	if err != nil {
		return err
	}
	table, err := deriveAEAD(e.o.Key, "file keys")
	if err != nil {
		return err
	}
	e.segs = &segments{fs: fsys, dir: dirs[0], seal: headers, byID: map[uint64]*segment{}, nextID: 1}
	if e.fs, err = openCryptFS(fsys, dirs[1], table); err != nil {
		return err
	}
	e.fs.gone = e.announce
	if err := e.segs.load(); err != nil {
		return err
	}
	e.idx, err = openIndex(e.fs, &e.o, &e.trouble, e.announce)
	if err != nil {
		return indexOpenError(err)
	}
	return e.fs.brokenBy()
}

func indexOpenError(err error) error {
	var known *redoubt.Error
	if errors.As(err, &known) || errors.Is(err, redoubt.DiskFull) {
		return err
	}
	if d := diskError("store.Open", err); redoubt.KindOf(d) == redoubt.DiskFull {
		return d
	}
	return indexError(err)
}

// recover brings index and log together.
func (e *Engine) recover() error {
	if err := e.readState(); err != nil {
		return err
	}
	if err := e.readFirst(); err != nil {
		return err
	}
	if err := e.readUsage(); err != nil {
		return err
	}
	if err := e.replay(); err != nil {
		return err
	}
	if err := e.settleGhosts(); err != nil {
		return err
	}
	e.nextAt.Store(e.state.nextRef)
	e.stats.appended.Store(e.state.appended)
	e.stats.blobs.Store(e.state.blobs)
	e.stats.live.Store(e.state.live)
	return e.dropOrphans()
}

func (e *Engine) readState() error {
	v, ok, err := lookup(e.idx, stateKey)
	if err != nil {
		return err
	}
	e.state = state{nextRef: 1}
	if ok {
		e.state, err = decodeState(v)
	}
	return err
}

// readFirst finds the oldest entry of the append stream that is kept. The index says it by what it holds.
func (e *Engine) readFirst() error {
	it, err := e.idx.NewIter(&pebble.IterOptions{LowerBound: userKey(nil, []byte{store.AppendPrefix}), UpperBound: []byte{sortUser + 1}})
	if err != nil {
		return indexError(err)
	}
	defer it.Close()
	e.stats.first.Store(e.state.appended)
	if it.First() {
		if len(it.Key()) != len(store.AppendKey(0))+1 {
			return corrupt("append stream", errors.New("malformed key"))
		}
		e.stats.first.Store(binary.BigEndian.Uint64(it.Key()[2:]))
	}
	return indexError(it.Error())
}

// readUsage reads the live bytes of each segment. A segment may have been dropped just
// after the index said so for the last time: that is settled after the replay.
func (e *Engine) readUsage() error {
	e.segs.ghosts = map[uint64]*segment{}
	it, err := e.idx.NewIter(&pebble.IterOptions{LowerBound: []byte{sortSegment}, UpperBound: []byte{sortSegment + 1}})
	if err != nil {
		return indexError(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) != 9 || len(it.Value()) != 24 {
			return corrupt("segment", errors.New("malformed usage"))
		}
		seg := e.segs.get(binary.BigEndian.Uint64(it.Key()[1:]))
		seg.live = int64(binary.BigEndian.Uint64(it.Value()))
		seg.ever = int64(binary.BigEndian.Uint64(it.Value()[8:]))
		seg.high = int64(binary.BigEndian.Uint64(it.Value()[16:]))
	}
	return indexError(it.Error())
}

// settleGhosts ends the tolerance for dropped segments: none may still be needed.
func (e *Engine) settleGhosts() error {
	e.segs.mu.Lock()
	ghosts := e.segs.ghosts
	e.segs.ghosts = nil
	e.segs.mu.Unlock()
	for id, g := range ghosts {
		if g.live != 0 {
			return corrupt("segment", fmt.Errorf("segment %d is missing with %d live bytes", id, g.live))
		}
		if err := e.idx.Delete(segmentKey(id), pebble.NoSync); err != nil {
			return indexError(err)
		}
	}
	return nil
}

// dropOrphans gives back what a crash left: extents that no commit linked, log segments
// made ahead of need, and the unused ends of extents.
func (e *Engine) dropOrphans() error {
	e.segs.mu.Lock()
	var orphans []*segment
	for _, seg := range e.segs.byID {
		if seg.active {
			continue
		}
		if seg.kind == kindExtent && seg.live == 0 || seg.kind == kindLog && seg.id > e.log.active.id {
			orphans = append(orphans, seg)
		} else if seg.kind == kindExtent {
			if err := truncate(seg.f, seg.high); err != nil {
				e.segs.mu.Unlock()
				return err
			}
		}
	}
	e.segs.mu.Unlock()
	for _, seg := range orphans {
		if err := e.dropSegment(seg); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) dropSegment(seg *segment) error {
	if err := e.segs.drop(seg); err != nil {
		return diskError("store.Maintain", err)
	}
	return indexError(e.idx.Delete(segmentKey(seg.id), pebble.NoSync))
}
