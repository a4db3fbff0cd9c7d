package embedded

import (
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// fronts is how many extent segments are appended to at once, at most. Writers to one file wait for each other in the kernel, for
// its inode's lock and for its sync; each front takes a segment's size of disk.
const fronts = 4

// extents hands out space in extent segments. Few are open for writing at once: the fronts, and
// those that uploads still write to.
type extents struct {
	e  *Engine
	mu sync.Mutex
	// Under mu:
	front [fronts]front
}

// front is a segment that is appended to; the zero one has none yet.
type front struct {
	seg  *segment
	tail int64
	size int64
}

// reserve takes n bytes of an extent segment for a blob being written, which holds the segment until release. It goes
// on in the segment that the blob wrote to last, if that is still in front.
func (x *extents) reserve(n int64, last *segment) (*segment, int64, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.choose(last)
	if f.seg == nil || f.tail+n > f.size {
		size := max(x.e.o.SegmentBytes, headerBytes+n)
		seg, err := x.e.segs.create(kindExtent, size)
		if err != nil {
			return nil, 0, err
		}
		x.retire(f)
		*f = front{seg, headerBytes, size}
	}
	off := f.tail
	f.tail += n
	x.e.segs.mu.Lock()
	f.seg.staged++
	f.seg.writers++
	f.seg.refs++
	x.e.segs.mu.Unlock()
	return f.seg, off, nil
}

// choose gives the front of segment last, else the first that nobody writes to, else the one with the fewest
// writers: a writer alone uses one. The caller holds mu.
func (x *extents) choose(last *segment) *front {
	x.e.segs.mu.Lock()
	defer x.e.segs.mu.Unlock()
	best, fewest := &x.front[0], math.MaxInt
	for i := range x.front {
		f, writers := &x.front[i], 0
		if f.seg != nil {
			writers = f.seg.writers
		}
		if last != nil && f.seg == last {
			return f
		}
		if writers < fewest {
			best, fewest = f, writers
		}
	}
	return best
}

// retire ends appending to a front's segment. The caller holds mu.
func (x *extents) retire(f *front) {
	if f.seg == nil {
		return
	}
	x.e.segs.mu.Lock()
	f.seg.active = false
	x.e.segs.mu.Unlock()
	f.seg = nil
}

// retireAll ends appending to every segment that is appended to now.
func (x *extents) retireAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.front {
		x.retire(&x.front[i])
	}
}

// giveBack returns n bytes at off if nothing was reserved behind them.
func (x *extents) giveBack(seg *segment, off, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.front {
		if f := &x.front[i]; f.seg == seg && f.tail == off+n {
			f.tail = off
		}
	}
}

// settled tells that a blob writes to its segments no more: the next may go on there, and share its sync.
func (x *extents) settled(held []*segment) {
	x.e.segs.mu.Lock()
	defer x.e.segs.mu.Unlock()
	for _, seg := range held {
		seg.writers--
	}
}

// release ends a blob's hold on a segment, which it writes to or not.
func (x *extents) release(seg *segment, writes bool) {
	x.e.segs.mu.Lock()
	seg.staged--
	if writes {
		seg.writers--
	}
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
