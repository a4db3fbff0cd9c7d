package embedded

import (
	"context"
	"errors"
	"hash/crc32"

	"redoubt/store"
)

// segmentLog is the append end of the commit log. The committer owns it, but for
// spares, through which the preparer hands over segments made ahead of need.
type segmentLog struct {
	active *segment
	off    int64 // where the next frame goes
	size   int64 // zero-filled; a frame that is larger than a whole segment may go beyond
	spares chan spare
}

type spare struct {
	seg *segment
	err error
}

// runPreparer keeps one empty log segment ready.
func (e *Engine) runPreparer() {
	for {
		seg, err := e.newLogSegment()
		select {
		case e.log.spares <- spare{seg, err}:
		case <-e.ctx.Done():
			if seg != nil {
				_ = e.segs.drop(seg) // empty: the next Open would drop it as well
			}
			return
		}
	}
}

func (e *Engine) newLogSegment() (*segment, error) {
	if err := e.checkRoom("store.Commit", true); err != nil {
		return nil, err
	}
	return e.segs.create(kindLog, e.o.SegmentBytes)
}

// room makes sure that a frame of n bytes fits where off is.
func (l *segmentLog) room(e *Engine, n int64) error {
	if l.off+n <= l.size || l.off == headerBytes {
		return nil
	}
	return l.rotate(e)
}

// rotate goes on in a new segment.
func (l *segmentLog) rotate(e *Engine) error {
	if l.off == headerBytes {
		return nil
	}
	var s spare
	for range 2 { // the first may be an error from long ago
		select {
		case s = <-l.spares:
		case <-e.ctx.Done():
			return unavailable("store.Commit", context.Cause(e.ctx))
		}
		if s.err == nil {
			break
		}
	}
	if s.err != nil {
		return s.err
	}
	e.segs.mu.Lock()
	l.active.active = false
	l.active.length = l.off
	e.segs.mu.Unlock()
	l.active, l.off, l.size = s.seg, headerBytes, e.o.SegmentBytes
	e.kickKeeper()
	return nil
}

// write makes one frame durable. If the write itself fails, what it left is wiped and
// nothing happened; if that or the sync fails, the outcome is uncertain.
func (l *segmentLog) write(e *Engine, frame []byte) error {
	if _, err := l.active.f.WriteAt(frame, l.off); err != nil {
		if wipe := wipeFrame(l.active, l.off, int64(len(frame))); wipe != nil {
			return e.fail(errors.Join(store.ErrUncertain, err, wipe))
		}
		return diskError("store.Commit", err)
	}
	if err := l.active.f.SyncData(); err != nil {
		return e.fail(errors.Join(store.ErrUncertain, err))
	}
	e.stats.syncs.Add(1)
	if l.active.crcDone {
		l.active.crc = crc32.Update(l.active.crc, castagnoli, frame)
	}
	l.off += int64(len(frame))
	return nil
}

// wipeFrame zeroes an incomplete frame. Its first sector goes last: until then the
// header, or its absence, still says what this is (see tornTail).
func wipeFrame(seg *segment, off, n int64) error {
	if n > sectorBytes {
		if err := zeroFill(seg.f, off+sectorBytes, off+n); err != nil {
			return err
		}
		if err := seg.f.SyncData(); err != nil {
			return err
		}
	}
	if err := zeroFill(seg.f, off, off+min(n, sectorBytes)); err != nil {
		return err
	}
	return seg.f.SyncData()
}
