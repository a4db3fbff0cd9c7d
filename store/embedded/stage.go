package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"redoubt"
	"redoubt/store"
)

// States of a staged blob. Only the committer takes a blob from ready to claimed and on.
const (
	stagedOpen = iota
	stagedReady
	stagedClaimed
	stagedLinked
	stagedDiscarded
)

// staged is a blob being written, by one writer at a time. Up to store.InlineBytes it is kept in memory
// and travels inside the commit; beyond, it goes to extents piece by piece as it comes.
type staged struct {
	e     *Engine
	ref   store.BlobRef
	state atomic.Int32
	ended bool // by Settle or Finish: nothing is written to it any more
	small bool // decided by Finish: data travels in the commit
	data  []byte
	size  int64

	// Of a large blob:
	loc     location
	held    []*segment // one entry a run
	faults  []uint64   // of each of held, before anything was written there: which syncs had failed
	blocks  []byte     // framed blocks not yet written
	partial []byte     // content of the block being filled
	block   int64      // its number within the run
	room    int64      // bytes on disk left in the last run's reservation
	behind  int64      // bytes at the end of the last run that are written and not on their way to the disk
	marks   []uint64   // of each of held, once all is written: which syncs cover it
	left    bool       // it has told that it writes no more
	err     error
}

const writeAtOnce = 1 << 20 // a reservation's first size, and the largest single write

// Stage begins a blob; see store.Engine.
func (e *Engine) Stage(ctx context.Context) (store.Staged, error) {
	if err := e.enterWrite(ctx, "store.Stage"); err != nil {
		return nil, err
	}
	defer e.leave()
	return &staged{e: e, ref: store.BlobRef(e.nextAt.Add(1) - 1)}, nil
}

// StageAs begins a blob under a given name; see store.Restorer.
func (e *Engine) StageAs(ctx context.Context, ref store.BlobRef) (store.Staged, error) {
	if err := e.enterWrite(ctx, "store.StageAs"); err != nil {
		return nil, err
	}
	defer e.leave()
	for {
		next := e.nextAt.Load()
		if uint64(ref) < next {
			return nil, &redoubt.Error{Op: "store.StageAs", Kind: redoubt.Exists, Err: errors.New("names are given in rising order")}
		}
		if e.nextAt.CompareAndSwap(next, uint64(ref)+1) {
			return &staged{e: e, ref: ref}, nil
		}
	}
}

func (e *Engine) enterWrite(ctx context.Context, op string) error {
	if err := e.enter(op); err != nil {
		return err
	}
	err := ctx.Err()
	if err != nil {
		err = unavailable(op, err)
	} else {
		err = e.checkRoom(op, false)
	}
	if err != nil {
		e.leave()
	}
	return err
}

// Write adds p to the blob.
func (s *staged) Write(p []byte) (int, error) {
	if s.state.Load() != stagedOpen || s.ended || s.err != nil {
		return 0, &redoubt.Error{Op: "store.Write", Kind: redoubt.Invalid, Err: errors.Join(errors.New("blob is settled, finished, discarded or failed"), s.err)}
	}
	s.size += int64(len(p))
	if s.size <= store.InlineBytes {
		s.data = append(s.data, p...)
		return len(p), nil
	}
	if err := s.e.enter("store.Write"); err != nil {
		return 0, err
	}
	defer s.e.leave()
	if s.data != nil {
		early := s.data
		s.data = nil
		if s.err = s.extend(early); s.err != nil {
			return 0, diskError("store.Write", s.err)
		}
	}
	if s.err = s.extend(p); s.err != nil {
		return 0, diskError("store.Write", s.err)
	}
	return len(p), nil
}

// extend frames content into blocks, and writes them when there are enough.
func (s *staged) extend(p []byte) error {
	for len(p) > 0 {
		s.startWriteback()
		if s.room == 0 || len(s.partial) == 0 && s.room <= extentTrailer {
			if err := s.reserve(); err != nil {
				return err
			}
		}
		if s.blocks == nil {
			s.blocks = (*blockPool.Get().(*[]byte))[:0]
		}
		n := int(min(extentPlain, s.room-extentTrailer)) - len(s.partial)
		n = min(n, len(p))
		if len(s.partial) == 0 && n == extentPlain { // a whole block, not copied twice
			s.frame(p[:n])
		} else if s.partial = append(s.partial, p[:n]...); int64(len(s.partial)) == min(extentPlain, s.room-extentTrailer) {
			s.frame(s.partial)
			s.partial = s.partial[:0]
		}
		p = p[n:]
		if len(s.blocks) >= writeAtOnce || s.room == 0 {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

var blockPool = sync.Pool{New: func() any { b := make([]byte, 0, writeAtOnce+extentBlock); return &b }}

// frame closes one block.
func (s *staged) frame(content []byte) {
	s.blocks = append(s.blocks, content...)
	s.blocks = binary.BigEndian.AppendUint32(s.blocks, blockSum(s.ref, s.block, content))
	s.block++
	s.room -= int64(len(content)) + extentTrailer
	s.loc.runs[len(s.loc.runs)-1].length += int64(len(content))
}

// flush writes the closed blocks to their place.
func (s *staged) flush() error {
	if len(s.blocks) == 0 {
		return nil
	}
	last := len(s.loc.runs) - 1
	r := s.loc.runs[last]
	at := r.off + extentDisk(r.length) - int64(len(s.blocks))
	if _, err := s.held[last].f.WriteAt(s.blocks, at); err != nil {
		return err
	}
	s.behind = int64(len(s.blocks))
	s.blocks = s.blocks[:0]
	return nil
}

// startWriteback starts what was last flushed on its way to the disk, once more comes: at the end the sync does it.
func (s *staged) startWriteback() {
	if s.behind == 0 {
		return
	}
	last := len(s.loc.runs) - 1
	r := s.loc.runs[last]
	startWriteback(s.held[last].f, r.off+extentDisk(r.length)-s.behind, s.behind)
	s.behind = 0
}

// reserve takes space for what comes, more at a time the longer the blob grows.
func (s *staged) reserve() error {
	if err := s.flush(); err != nil {
		return err
	}
	s.startWriteback()
	if err := s.e.checkRoom("store.Write", false); err != nil {
		return err
	}
	want := (max(writeAtOnce, min(s.size/4, 16<<20)) + extentBlock - 1) / extentBlock * extentBlock
	last := len(s.loc.runs) - 1
	var lastSeg *segment
	if last >= 0 {
		lastSeg = s.held[last]
	}
	seg, off, err := s.e.ext.reserve(want, lastSeg)
	if err != nil {
		return err
	}
	if last >= 0 && lastSeg == seg && s.loc.runs[last].length%extentPlain == 0 &&
		s.loc.runs[last].off+extentDisk(s.loc.runs[last].length) == off {
		s.room = want // goes on where the last run ends
		s.e.ext.release(seg, true)
		return nil
	}
	s.loc.runs = append(s.loc.runs, run{segment: seg.id, off: off})
	s.held, s.faults = append(s.held, seg), append(s.faults, seg.synced.failed())
	s.block, s.room = 0, want
	return nil
}

// Settle writes out the rest of a large blob, and gives back its buffer and what was reserved too much; see store.Staged.
// It is on its way to the disk then: the sync comes later, and for others too.
func (s *staged) Settle() error {
	return s.end("store.Settle", func() error {
		if err := s.settle(); err != nil {
			return err
		}
		if s.startWriteback(); !s.left {
			s.left = true
			s.e.ext.settled(s.held)
		}
		return nil
	})
}

// end has a large blob written out by how, unless it is ready: nothing is written to it any more.
func (s *staged) end(op string, how func() error) error {
	switch s.state.Load() {
	case stagedReady:
		return nil
	case stagedOpen:
	default:
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("blob is discarded or linked")}
	}
	s.ended = true
	if s.err == nil && s.size > store.InlineBytes {
		if err := s.e.enter(op); err != nil {
			return err
		}
		defer s.e.leave()
		s.err = how()
	}
	if s.err != nil {
		return diskError(op, s.err)
	}
	return nil
}

// Finish makes a large blob durable; a small one travels in the commit.
func (s *staged) Finish() error {
	if err := s.end("store.Finish", s.persist); err != nil || s.state.Load() == stagedReady {
		return err
	}
	if s.size <= store.InlineBytes {
		s.small = true
		s.loc = location{size: s.size, inline: true}
	}
	s.state.Store(stagedReady)
	return nil
}

// settle writes out the rest, and gives back the buffer and what was reserved too much: before anything is reserved behind it, as a
// rule, for then the space is lost until its segment is compacted.
func (s *staged) settle() error {
	if len(s.partial) > 0 {
		s.frame(s.partial)
		s.partial = nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.giveBlocks()
	s.loc.size = s.size
	if s.marks == nil {
		for _, seg := range s.held {
			s.marks = append(s.marks, seg.synced.mark())
		}
	}
	if s.room > 0 {
		last := s.loc.runs[len(s.loc.runs)-1]
		s.e.ext.giveBack(s.held[len(s.held)-1], last.off+extentDisk(last.length), s.room)
		s.room = 0
	}
	return nil
}

// persist settles, and syncs.
func (s *staged) persist() error {
	if err := s.settle(); err != nil {
		return err
	}
	for i, seg := range s.held {
		if i > 0 && s.held[i-1] == seg {
			continue
		}
		if err := seg.synced.sync(s.marks[i], s.faults[i], func() error {
			s.e.stats.syncs.Add(1)
			return seg.f.SyncData()
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *staged) giveBlocks() {
	if s.blocks != nil {
		b := s.blocks[:0]
		blockPool.Put(&b)
		s.blocks = nil
	}
}

// inlineBytes is what the blob adds to a frame. Only a ready small blob has any.
func (s *staged) inlineBytes() int {
	if s.state.Load() == stagedReady && s.small {
		return len(s.data)
	}
	return 0
}

// spill moves a small ready blob to an extent.
func (s *staged) spill() error {
	if s.inlineBytes() == 0 {
		return nil
	}
	data := s.data
	s.small, s.data, s.loc = false, nil, location{}
	err := s.extend(data)
	if err == nil {
		err = s.persist()
	}
	if err != nil {
		s.abandon()
		s.small, s.data, s.loc = true, data, location{size: s.size, inline: true}
		return diskError("store.Commit", err)
	}
	return nil
}

func (s *staged) Ref() store.BlobRef { return s.ref }
func (s *staged) Size() int64        { return s.size }

// Discard gives the space back unless the blob is linked. A blob whose commit is under way is left alone.
func (s *staged) Discard() {
	if s.state.CompareAndSwap(stagedOpen, stagedDiscarded) || s.state.CompareAndSwap(stagedReady, stagedDiscarded) {
		s.abandon()
		s.data = nil
	}
}

// abandon lets go of the reserved space.
func (s *staged) abandon() {
	s.giveBlocks()
	for i, seg := range s.held {
		if i == len(s.held)-1 {
			r := s.loc.runs[i]
			s.e.ext.giveBack(seg, r.off, extentDisk(r.length)+s.room)
		}
		s.e.ext.release(seg, !s.left)
	}
	s.held, s.faults, s.marks, s.left, s.room, s.partial, s.block, s.behind = nil, nil, nil, false, 0, nil, 0, 0
}

// linked is called by the committer once the blob is in the index.
func (s *staged) linked() {
	s.state.Store(stagedLinked)
	for _, seg := range s.held {
		s.e.ext.release(seg, !s.left)
	}
	s.held, s.data = nil, nil
}
