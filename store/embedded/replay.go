package embedded

import (
	"errors"
	"fmt"
	"slices"

	"redoubt"
)

// logSegments are the segments of the log in order.
func (s *segments) logSegments() (logs []*segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.byID {
		if seg.kind == kindLog {
			logs = append(logs, seg)
		}
	}
	slices.SortFunc(logs, func(a, b *segment) int { return int(int64(a.id - b.id)) })
	return logs
}

// replay applies the frames that the index lacks, and finds where the log goes on.
func (e *Engine) replay() error {
	logs := e.segs.logSegments()
	for i, seg := range logs {
		if seg.id < e.state.segment || seg.header.retired {
			continue
		}
		off := int64(headerBytes)
		if seg.id == e.state.segment {
			off = e.state.off
		}
		end, err := e.replaySegment(seg, off, logs[i+1:])
		if err != nil {
			return err
		}
		if end > headerBytes && !seg.header.sealed {
			if old := e.log.active; old != nil {
				old.active, old.length = false, e.log.off
			}
			seg.active = true
			e.log.active, e.log.off, e.log.size = seg, end, max(e.o.SegmentBytes, end)
		}
		if end > headerBytes && seg.header.sealed {
			if old := e.log.active; old != nil {
				return corrupt("log", fmt.Errorf("segment %d is sealed after an open one", seg.id))
			}
		}
	}
	if e.log.active != nil {
		return nil
	}
	seg, err := e.newLogSegment()
	if err != nil {
		return err
	}
	e.log.active, e.log.off, e.log.size = seg, headerBytes, e.o.SegmentBytes
	return nil
}

// replaySegment applies the frames of one segment from off, and returns where they end.
func (e *Engine) replaySegment(seg *segment, off int64, later []*segment) (int64, error) {
	last := int64(0)
	for {
		frame, err := readFrame(seg, off, e.state.seq+1)
		if err != nil || frame == nil {
			if err := e.endSegment(seg, off, err, later); err != nil {
				return 0, err
			}
			break
		}
		changes, err := openFrame(seg.meta, seg.id, off, frame)
		if err != nil {
			if err := e.endSegment(seg, off, err, later); err != nil {
				return 0, err
			}
			break
		}
		last = off
		off += int64(len(frame))
		if err := e.apply(changes, e.state.seq+1, seg.id, off); err != nil {
			return 0, err
		}
	}
	if last > 0 {
		return off, resync(seg, last, off)
	}
	return off, nil
}

// resync writes the last frame again. If its sync failed before the restart, the page
// cache may show what the disk does not hold; now the disk holds it, or Open fails.
func resync(seg *segment, from, to int64) error {
	b := make([]byte, to-from)
	if err := readZeroed(seg.f, b, from); err != nil {
		return err
	}
	if _, err := seg.f.WriteAt(b, from); err != nil {
		return err
	}
	return seg.f.SyncData()
}

// readFrame reads the frame at off, which should have number seq; nil where there is none.
func readFrame(seg *segment, off int64, seq uint64) ([]byte, error) {
	head := make([]byte, frameHead)
	if err := readZeroed(seg.f, head, off); err != nil {
		return nil, diskError("store.Open", err)
	}
	if allZero(head) {
		return nil, nil
	}
	total, _, got, ok := frameLength(head)
	if !ok {
		return nil, errFrame
	}
	if got != seq {
		return nil, corrupt("log", fmt.Errorf("segment %d at %d: frame %d where %d should be", seg.id, off, got, seq))
	}
	frame := make([]byte, total)
	return frame, readZeroed(seg.f, frame, off)
}

// endSegment decides what the end of the frames in a segment means: the end of the log, a
// write cut short, which is wiped, or damage.
func (e *Engine) endSegment(seg *segment, off int64, cause error, later []*segment) error {
	if cause != nil && redoubt.KindOf(cause) == redoubt.Corrupt {
		return cause
	}
	if seg.header.sealed {
		if off == int64(seg.header.length) {
			return nil
		}
		return corrupt("log", fmt.Errorf("segment %d ends at %d, not at %d: %w", seg.id, off, seg.header.length, orFrame(cause)))
	}
	rest, err := tail(seg, off)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return nil
	}
	for _, next := range later {
		if after, err := tail(next, headerBytes); err != nil || len(after) > 0 {
			return errors.Join(corrupt("log", fmt.Errorf("segment %d at %d, with more of the log behind it: %w", seg.id, off, orFrame(cause))), err)
		}
	}
	if !tornTail(rest, off, e.state.seq+1) {
		return corrupt("log", fmt.Errorf("segment %d at %d: %w", seg.id, off, orFrame(cause)))
	}
	e.o.Logger.Info("log ended in a write that was cut short", "bytes", len(rest))
	return wipeFrame(seg, off, int64(len(rest)))
}

func orFrame(err error) error {
	if err == nil {
		return errFrame
	}
	return err
}

// tailPiece is how much of a segment's zeros is looked at in one read: a segment is many times as long as the memory that opening may cost.
const tailPiece = 256 << 10

// tail reads a segment from off up to its last byte that is not zero. It needs memory for what it returns.
func tail(seg *segment, off int64) ([]byte, error) {
	info, err := seg.f.Stat()
	if err != nil {
		return nil, err
	}
	end, piece := info.Size(), make([]byte, tailPiece)
	for end > off {
		b := piece[:min(tailPiece, end-off)]
		if err := readZeroed(seg.f, b, end-int64(len(b))); err != nil {
			return nil, err
		}
		zeros := 0
		for zeros < len(b) && b[len(b)-1-zeros] == 0 {
			zeros++
		}
		if end -= int64(zeros); zeros < len(b) {
			break
		}
	}
	rest := make([]byte, max(0, end-off))
	return rest, readZeroed(seg.f, rest, off)
}

// tornTail tells whether rest, all that follows the last good frame of the log, is one frame that
// was being written when a crash came. Only one write is ever under way, and nothing follows it.
func tornTail(rest []byte, off int64, seq uint64) bool {
	full := append(rest[:len(rest):len(rest)], make([]byte, framePage)...)
	for at := framePage; at < len(rest); at += framePage {
		if _, _, got, ok := frameLength(full[at:][:frameHead]); ok && got > seq {
			return false // a later frame: this one was acknowledged
		}
	}
	total, _, got, ok := frameLength(full[:frameHead])
	switch {
	case ok && (got != seq || len(rest) > total):
		return false
	case ok:
		return len(rest) < total || tornWrite(rest, off)
	case len(rest) <= sectorBytes: // cut within the header's sector, or wiped but for it
		return true
	}
	return allZero(rest[:sectorBytes]) && len(rest) <= maxFrame // its first sector never arrived
}
