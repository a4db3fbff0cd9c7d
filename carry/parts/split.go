package parts

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/reedsolomon"

	"redoubt"
)

// Split reads a file once, in order, and writes its parts, each in order; len(to) is l.Parts(). It needs memory for one stripe: BlockBytes
// for each part. Who gave the writers flushes and closes them. progress may be nil.
func Split(ctx context.Context, file io.Reader, l Layout, to []io.Writer, progress func(done int64)) error {
	h := head{Layout: l}
	rand.Read(h.Set[:])
	return splitAs(ctx, file, h, to, progress)
}

// splitAs is Split under an ID that was drawn.
func splitAs(ctx context.Context, file io.Reader, h head, to []io.Writer, progress func(done int64)) error {
	const op = "parts.Split"
	l := h.Layout
	if len(to) != l.Parts() || l.Data < 1 {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("each part has one writer")}
	}
	code, err := coder(l)
	if err != nil {
		return err
	}
	ends := func() error {
		for i, w := range to {
			h.Index = i
			if _, err := w.Write(h.encode()); err != nil {
				return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
			}
		}
		return nil
	}
	if err := ends(); err != nil {
		return err
	}
	blocks := makeBlocks(l.Parts())
	left := l.FileBytes
	for stripe := range l.stripes {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range l.Data {
			n := min(BlockBytes, left)
			if _, err := io.ReadFull(file, blocks[i][:n]); err != nil {
				return &redoubt.Error{Op: op, Err: err}
			}
			clear(blocks[i][n:])
			left -= n
		}
		if code != nil {
			if err := code.Encode(blocks); err != nil {
				return &redoubt.Error{Op: op, Err: err}
			}
		}
		for i, w := range to {
			sum := binary.BigEndian.AppendUint32(nil, h.blockSum(i, stripe, blocks[i]))
			for _, b := range [][]byte{blocks[i], sum} {
				if _, err := w.Write(b); err != nil {
					return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
				}
			}
		}
		if progress != nil {
			progress(l.FileBytes - left)
		}
	}
	return ends()
}

// coder is nil where there is no parity.
func coder(l Layout) (reedsolomon.Encoder, error) {
	if l.Parity == 0 {
		return nil, nil
	}
	code, err := reedsolomon.New(l.Data, l.Parity, reedsolomon.WithMaxGoroutines(2))
	if err != nil {
		return nil, &redoubt.Error{Op: "parts", Err: err}
	}
	return code, nil
}

func makeBlocks(n int) [][]byte {
	all := make([]byte, n*BlockBytes)
	blocks := make([][]byte, n)
	for i := range blocks {
		blocks[i] = all[i*BlockBytes : (i+1)*BlockBytes : (i+1)*BlockBytes]
	}
	return blocks
}
