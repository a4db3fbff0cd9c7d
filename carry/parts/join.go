package parts

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"redoubt"
)

// Part is a file that may be a part.
type Part struct {
	Name string // for messages
	File io.ReaderAt
	Size int64
}

// Report says how well a file came together.
type Report struct {
	Layout
	Missing  []int    // parts that are not there, from 1
	Repaired int64    // blocks that were made again
	Foreign  []string // files that are no part of this file, and were not used
}

// Join writes the file that parts are of to w, in order, repairing what it can. The first file that is a part says which file is meant; of one part there may be several copies,
// each with damage of its own. Where a stripe has too little left it fails with Corrupt, and what was written is no file.
func Join(ctx context.Context, given []Part, w io.Writer, progress func(done int64)) (Report, error) {
	const op = "parts.Join"
	h, copies, report, err := gather(given)
	if err != nil {
		return report, err
	}
	code, err := coder(h.Layout)
	if err != nil {
		return report, err
	}
	buf, sealed := makeBlocks(h.Parts()), make([]byte, sealedBlock)
	left := h.FileBytes
	for stripe := range h.stripes {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		blocks, need := make([][]byte, h.Parts()), 0
		// Parity is read only where data is missing.
		for i := 0; i < h.Parts() && (i < h.Data || need > 0); i++ {
			blocks[i] = buf[i][:0]
			if h.block(copies[i], i, stripe, sealed) {
				blocks[i] = buf[i][:BlockBytes]
				copy(blocks[i], sealed)
				if i >= h.Data {
					need--
				}
			} else if i < h.Data {
				need++
				report.Repaired++
			}
		}
		if need > 0 {
			return report, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: fmt.Errorf("at byte %d of the file %d blocks more are lost than can be made again", h.FileBytes-left, need),
				Hint: "read the damaged parts again, or have the file made again with more parity"}
		}
		if code != nil {
			for i := range blocks {
				if blocks[i] == nil {
					blocks[i] = buf[i][:0]
				}
			}
			if err := code.ReconstructData(blocks); err != nil {
				return report, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err}
			}
		}
		for i := range h.Data {
			n := min(BlockBytes, left)
			if _, err := w.Write(blocks[i][:n]); err != nil {
				return report, &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
			}
			left -= n
		}
		if progress != nil {
			progress(h.FileBytes - left)
		}
	}
	return report, nil
}

// gather finds out of which file the parts are, and sorts them.
func gather(given []Part) (h head, copies [][]io.ReaderAt, report Report, err error) {
	for _, p := range given {
		found, ok := headOf(p)
		if ok && copies == nil {
			h, copies = found, make([][]io.ReaderAt, found.Parts())
			report.Layout = h.Layout
		}
		if !ok || found.Set != h.Set || found.Layout != h.Layout {
			report.Foreign = append(report.Foreign, p.Name)
			continue
		}
		copies[found.Index] = append(copies[found.Index], p.File)
	}
	if copies == nil {
		return h, nil, report, &redoubt.Error{Op: "parts.Join", Kind: redoubt.Invalid, Err: errHead}
	}
	for i, c := range copies {
		if len(c) == 0 {
			report.Missing = append(report.Missing, i+1)
		}
	}
	if len(report.Missing) > h.Parity {
		return h, nil, report, &redoubt.Error{Op: "parts.Join", Kind: redoubt.NotFound, Err: fmt.Errorf("of %d parts %d are missing, and %d may be: %v", h.Parts(), len(report.Missing), h.Parity, report.Missing),
			Hint: "bring the missing parts"}
	}
	return h, copies, report, nil
}

// headOf reads a part's head, at whichever end it is whole.
func headOf(p Part) (head, bool) {
	b := make([]byte, headBytes)
	for _, at := range []int64{0, p.Size - headBytes} {
		if at < 0 {
			continue
		}
		if n, err := p.File.ReadAt(b, at); n < len(b) && err != nil {
			continue
		}
		if h, err := decodeHead(b); err == nil {
			return h, true
		}
	}
	return head{}, false
}

// block reads one block of a part into sealed, from the first copy that has it whole. A part that is short or does not read lacks it.
func (h *head) block(copies []io.ReaderAt, index int, stripe int64, sealed []byte) bool {
	for _, c := range copies {
		if n, err := c.ReadAt(sealed, blockAt(stripe)); n < len(sealed) || err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		if binary.BigEndian.Uint32(sealed[BlockBytes:]) == h.blockSum(index, stripe, sealed[:BlockBytes]) {
			return true
		}
	}
	return false
}

// Is says whether a file is a part, and of how many bytes the file is that it belongs to.
func Is(p Part) (l Layout, ok bool) {
	h, ok := headOf(p)
	return h.Layout, ok
}
