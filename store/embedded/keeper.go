package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"redoubt"
	"redoubt/store"
)

// A segment whose live bytes fall below half of those in use is compacted: to free one byte,
// at most one is moved.
const (
	sparseNumerator   = 1
	sparseDenominator = 2
	moveAtOnce        = 1 << 20 // bytes of inline blobs in one request of a compaction
)

func (e *Engine) kickKeeper() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// runKeeper maintains by itself: when a log segment is full, and now and then.
func (e *Engine) runKeeper() {
	var tick <-chan time.Time
	if e.o.MaintainEvery > 0 {
		t := time.NewTicker(e.o.MaintainEvery)
		defer t.Stop()
		tick = t.C
	}
	for {
		compact := false
		select {
		case <-e.kick:
		case <-tick:
			compact = true
		case <-e.ctx.Done():
			return
		}
		if err := e.round(e.ctx, compact, e.o.CompactPerSec); err != nil && e.ctx.Err() == nil {
			e.o.Logger.Warn("maintenance failed", "kind", redoubt.KindOf(err).Error(), "err", err)
		}
	}
}

// Maintain runs one round now, at full speed; see store.Engine.
func (e *Engine) Maintain(ctx context.Context) error {
	if err := e.enter("store.Maintain"); err != nil {
		return err
	}
	defer e.leave()
	return diskError("store.Maintain", e.round(ctx, true, 0))
}

// round seals full log segments, flushes the index past them, compacts sparse segments
// and drops dead ones. perSec bounds the bytes moved; 0 is no bound.
func (e *Engine) round(ctx context.Context, compact bool, perSec int64) error {
	e.maintainMu.Lock()
	defer e.maintainMu.Unlock()
	if err := e.sealFull(); err != nil {
		return err
	}
	if err := e.dropDead(); err != nil {
		return err
	}
	if !compact {
		return nil
	}
	if err := e.compactDropped(ctx); err != nil {
		return err
	}
	for _, seg := range e.pick(sparse) {
		if err := e.evacuate(ctx, seg, perSec); err != nil {
			return err
		}
	}
	return e.dropDead()
}

// compactDropped rewrites the tables that held entries dropped since the last round: pebble alone would do so in its own time.
func (e *Engine) compactDropped(ctx context.Context) error {
	first := e.stats.first.Load()
	if first == e.compacted {
		return nil
	}
	from, to := userKey(nil, store.AppendKey(e.compacted)), userKey(nil, store.AppendKey(first))
	if err := e.compactIndex(ctx, from, to); err != nil {
		return err
	}
	e.compacted = first
	return nil
}

func sparse(seg *segment, used int64) bool {
	return seg.live > 0 && seg.live*sparseDenominator < used*sparseNumerator
}

// used is how many bytes a closed segment takes. The caller holds segs.mu.
func (seg *segment) used() int64 {
	if seg.kind == kindLog {
		return int64(seg.header.length) - headerBytes
	}
	return max(seg.high-headerBytes, seg.ever)
}

// pick lists the closed segments that want applies to, in no order.
func (e *Engine) pick(want func(seg *segment, used int64) bool) (picked []*segment) {
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	for _, seg := range e.segs.byID {
		closed := !seg.active && seg.staged == 0 && (seg.kind == kindExtent || seg.header.sealed)
		if closed && want(seg, seg.used()) {
			picked = append(picked, seg)
		}
	}
	return picked
}

// sealFull notes in each full log segment where it ends and what its sum is.
func (e *Engine) sealFull() error {
	for _, seg := range e.segs.logSegments() {
		e.segs.mu.Lock()
		active, done := seg.active, seg.header.sealed
		e.segs.mu.Unlock()
		if active || done {
			continue
		}
		if err := e.seal(seg); err != nil {
			return diskError("store.Maintain", err)
		}
	}
	return nil
}

func (e *Engine) seal(seg *segment) (err error) {
	if seg.length == 0 {
		if seg.length, err = findEnd(seg); err != nil {
			return err
		}
	}
	if !seg.crcDone {
		if seg.crc, err = seg.checksum(seg.length); err != nil {
			return err
		}
	}
	if err := truncate(seg.f, seg.length); err != nil {
		return err
	}
	h := seg.header
	h.sealed, h.length, h.crc = true, uint64(seg.length), seg.crc
	return e.rewriteHeader(seg, h)
}

func (e *Engine) rewriteHeader(seg *segment, h header) error {
	if err := e.segs.writeHeader(seg, h); err != nil {
		return err
	}
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	seg.header = h
	return nil
}

// findEnd walks the frames of a full segment.
func findEnd(seg *segment) (int64, error) {
	head := make([]byte, frameHead)
	for off := int64(headerBytes); ; {
		if err := readZeroed(seg.f, head, off); err != nil {
			return 0, err
		}
		if allZero(head) {
			return off, nil
		}
		total, _, _, ok := frameLength(head)
		if !ok {
			return 0, corrupt("log", errFrame)
		}
		off += int64(total)
	}
}

// flushIndex brings the index up to date on disk. Pebble repeats a flush that fails without end: then it is left to itself, and another one would
// only take from the memory that deletes still have.
func (e *Engine) flushIndex() error {
	if err := e.unflushable(); err != nil {
		return err
	}
	if err := e.awaitRoom(context.Background()); err != nil {
		return err
	}
	flushed, err := e.idx.AsyncFlush()
	if err != nil {
		return indexError(err)
	}
	for {
		e.changedMu.Lock()
		changed := e.changed
		e.changedMu.Unlock()
		select {
		case <-flushed:
			return e.fs.brokenBy()
		default:
		}
		if err := e.unflushable(); err != nil {
			return err
		}
		select {
		case <-flushed: // pebble closes it after it has told of the end
		case <-changed:
		}
	}
}

// awaitRoom waits until pebble takes an order at once: it would hold whoever gives one until it could flush and compact, however long that takes.
func (e *Engine) awaitRoom(ctx context.Context) error {
	return e.await(ctx, func() (bool, error) {
		if err := e.fs.brokenBy(); err != nil {
			return false, err
		}
		if e.roomy() {
			return true, nil // whatever it could not compact: this may end it
		}
		return false, e.stuck()
	})
}

// roomy says that pebble holds neither the next write nor a flush before it: there is room for one memtable more, and for the tables that all
// memtables become.
func (e *Engine) roomy() bool {
	m := e.idx.Metrics()
	return m.MemTable.Size < (stopMemTables-1)*memTableBytes && int64(m.Levels[0].Sublevels)+m.MemTable.Count < stopTables
}

// unflushable says why nothing may ever come of a flush; nil: it will.
func (e *Engine) unflushable() error {
	if err := e.fs.brokenBy(); err != nil {
		return err
	}
	if p := e.trouble.flush.Load(); p != nil {
		return diskError("store.Maintain", p.err)
	}
	return nil
}

// stuck says why nothing may ever come of what pebble does behind; nil: it will.
func (e *Engine) stuck() error {
	if err := e.unflushable(); err != nil {
		return err
	}
	return diskError("store.Maintain", e.trouble.Load())
}

// compactIndex rewrites a range of the index. What fails pebble would repeat without end: then it is left to itself, as a flush is.
func (e *Engine) compactIndex(ctx context.Context, from, to []byte) error {
	if err := e.awaitRoom(ctx); err != nil { // what lies in memtables is flushed first
		return err
	}
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for {
			e.changedMu.Lock()
			changed := e.changed
			e.changedMu.Unlock()
			if err := e.stuck(); err != nil {
				cancel(err)
			}
			select {
			case <-within.Done():
				return
			case <-changed:
			}
		}
	}()
	err := e.idx.Compact(within, from, to, false)
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && within.Err() != nil:
		return context.Cause(within)
	}
	return indexError(err)
}

// durableSeq is the last frame that the index holds on disk.
func (e *Engine) durableSeq() (uint64, error) {
	if err := e.fs.brokenBy(); err != nil { // pebble believes what is not so
		return 0, err
	}
	it, err := e.idx.NewIter(&pebble.IterOptions{LowerBound: []byte{sortState}, UpperBound: []byte{sortState + 1}, OnlyReadGuaranteedDurable: true})
	if err != nil {
		return 0, indexError(err)
	}
	defer it.Close()
	if !it.First() {
		return 0, indexError(it.Error())
	}
	s, err := decodeState(it.Value())
	return s.seq, err
}

// dropDead removes segments that nothing needs: no blob in them lives, and the index has
// all their frames on disk. It flushes the index if closed log segments wait for that; where that
// fails it removes the others, which is how a full disk gets room for it.
func (e *Engine) dropDead() error {
	durable, err := e.durableSeq()
	if err != nil {
		return err
	}
	var unflushed error
	if waiting := e.pick(func(seg *segment, _ int64) bool { return seg.kind == kindLog && seg.maxSeq > durable }); len(waiting) > 0 {
		if unflushed = e.flushIndex(); unflushed == nil {
			if durable, err = e.durableSeq(); err != nil {
				return err
			}
		}
	}
	for _, seg := range e.pick(func(seg *segment, _ int64) bool {
		return seg.live == 0 && (seg.kind == kindExtent || seg.maxSeq <= durable)
	}) {
		if err := e.dropSegment(seg); err != nil {
			return errors.Join(err, unflushed)
		}
	}
	return unflushed
}

// evacuate moves every live blob out of a segment.
func (e *Engine) evacuate(ctx context.Context, seg *segment, perSec int64) error {
	refs, err := e.blobsIn(seg)
	if err != nil {
		return err
	}
	var inline []move
	size := int64(0)
	for i, ref := range refs {
		loc, ok, err := e.locate(e.idx, ref)
		if err != nil {
			return err
		}
		if ok && loc.size <= store.InlineBytes { // also one that was spilled to an extent: it returns to the log
			data, err := e.readBlob(ref)
			if err != nil {
				return err
			}
			if data != nil {
				inline = append(inline, move{ref: ref, from: loc, data: data})
				size += int64(len(data))
			}
		} else if ok {
			if err := e.moveExtents(ctx, ref, perSec); err != nil {
				return err
			}
		}
		if size >= moveAtOnce || i == len(refs)-1 && len(inline) > 0 {
			if err := e.submit(ctx, &request{moves: inline, done: make(chan error, 1)}); err != nil {
				return err
			}
			if err := e.pace(ctx, size, perSec); err != nil {
				return err
			}
			inline, size = nil, 0
		}
	}
	return nil
}

// blobsIn lists the blobs that have a part in a segment.
func (e *Engine) blobsIn(seg *segment) (refs []store.BlobRef, err error) {
	it, err := e.idx.NewIter(&pebble.IterOptions{LowerBound: reverseKey(seg.id, 0), UpperBound: reverseKey(seg.id+1, 0)})
	if err != nil {
		return nil, indexError(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Value()) != 8 {
			return nil, corrupt("index", errors.New("malformed reverse entry"))
		}
		refs = append(refs, store.BlobRef(binary.BigEndian.Uint64(it.Value())))
	}
	return refs, indexError(it.Error())
}

// readBlob reads a small blob; nil when it is gone by now.
func (e *Engine) readBlob(ref store.BlobRef) ([]byte, error) {
	b, err := e.OpenBlob(ref)
	if errors.Is(err, redoubt.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data := make([]byte, b.Size())
	_, err = b.ReadAt(data, 0)
	return data, err
}

// moveExtents copies a large blob to fresh extents.
func (e *Engine) moveExtents(ctx context.Context, ref store.BlobRef, perSec int64) error {
	b, err := e.OpenBlob(ref)
	if errors.Is(err, redoubt.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	s := &staged{e: e, ref: ref}
	defer s.Discard()
	buf := make([]byte, min(b.Size(), moveAtOnce))
	for off := int64(0); off < b.Size(); off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), b.Size()-off)]
		if _, err := b.ReadAt(buf, off); err != nil {
			return err
		}
		if _, err := s.Write(buf); err != nil {
			return err
		}
		if err := e.pace(ctx, int64(len(buf)), perSec); err != nil {
			return err
		}
	}
	if err := s.Finish(); err != nil {
		return err
	}
	if s.small {
		return corrupt("blob", errors.New("small blob in an extent"))
	}
	err = e.submit(ctx, &request{moves: []move{{ref: ref, to: s.loc}}, done: make(chan error, 1)})
	if err == nil {
		s.linked()
	}
	return err
}

// pace waits as long as n bytes may take.
func (e *Engine) pace(ctx context.Context, n, perSec int64) error {
	if ctx.Err() != nil {
		return unavailable("store.Maintain", ctx.Err())
	}
	if perSec <= 0 {
		return nil
	}
	t := time.NewTimer(time.Duration(n) * time.Second / time.Duration(perSec))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return unavailable("store.Maintain", ctx.Err())
	}
}

// announce wakes who waits for the end of a view, an upload or a file.
func (e *Engine) announce() {
	e.changedMu.Lock()
	defer e.changedMu.Unlock()
	close(e.changed)
	e.changed = make(chan struct{})
}

// await returns when done reports true, which it is asked at each announcement.
func (e *Engine) await(ctx context.Context, done func() (bool, error)) error {
	for {
		e.changedMu.Lock()
		changed := e.changed
		e.changedMu.Unlock()
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return unavailable("store.Scrub", ctx.Err())
		}
	}
}
