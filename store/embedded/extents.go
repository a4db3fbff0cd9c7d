package embedded

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// extents hands out space in extent segments. Few are open for writing at once: one in front, and
// those that uploads still write to.
type extents struct {
	e  *Engine
	mu sync.Mutex
	// Under mu:
	active *segment
	tail   int64 // of active
	size   int64
}

// reserve takes n bytes of an extent segment for a blob being written, which holds
// the segment until release.
func (x *extents) reserve(n int64) (*segment, int64, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.active == nil || x.tail+n > x.size {
		size := max(x.e.o.SegmentBytes, headerBytes+n)
		seg, err := x.e.segs.create(kindExtent, size)
		if err != nil {
			return nil, 0, err
		}
		x.retire()
		x.active, x.tail, x.size = seg, headerBytes, size
	}
	off := x.tail
	x.tail += n
	x.e.segs.mu.Lock()
	x.active.staged++
	x.active.refs++
	x.e.segs.mu.Unlock()
	return x.active, off, nil
}

// retire ends appending to the active segment. The caller holds mu.
func (x *extents) retire() {
	if x.active == nil {
		return
	}
	x.e.segs.mu.Lock()
	x.active.active = false
	x.e.segs.mu.Unlock()
	x.active = nil
}

// giveBack returns n bytes at off if nothing was reserved behind them.
func (x *extents) giveBack(seg *segment, off, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.active == seg && x.tail == off+n {
		x.tail = off
	}
}

// release ends a blob's hold on a segment.
func (x *extents) release(seg *segment) {
	x.e.segs.mu.Lock()
	seg.staged--
	x.e.segs.mu.Unlock()
	x.e.segs.unpin(seg)
	x.e.announce()
}

// startWriteback asks the kernel to begin writing, so that the sync at the end finds
// little to do. It promises nothing.
func startWriteback(f vfs.File, off, n int64) {
	if fd := f.Fd(); fd != vfs.InvalidFd {
		_ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE)
	}
}
