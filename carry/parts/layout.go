package parts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"redoubt"
)

// Limits of a split file.
const (
	MaxParts     = 256           // of Reed–Solomon over bytes
	MaxFileBytes = 1<<40 + 1<<20 // the largest bundle
	BlockBytes   = 64 << 10      // of one part in one stripe
	MinPartBytes = 2*headBytes + sealedBlock

	sealedBlock = BlockBytes + crc32.Size
	headBytes   = 8 + 2 + 16 + 2 + 2 + 2 + 8 + crc32.Size
	magic       = "RDBTPART"
	format      = 1
)

// Layout says how a file is split. Data parts hold its bytes, and as many as Parity parts may be lost.
type Layout struct {
	Data, Parity int
	FileBytes    int64
	stripes      int64
}

// Plan lays a file out over parts of at most partBytes, with parity of them (0.1: one in ten, and one at least; 0: none).
func Plan(fileBytes, partBytes int64, parity float64) (Layout, error) {
	bad := func(why, hint string) (Layout, error) {
		return Layout{}, &redoubt.Error{Op: "parts.Plan", Kind: redoubt.Invalid, Err: errors.New(why), Hint: hint}
	}
	switch {
	case fileBytes < 1 || fileBytes > MaxFileBytes:
		return bad("a file of this size is not split", "")
	case partBytes < MinPartBytes:
		return bad(fmt.Sprintf("a part has %d bytes at least", MinPartBytes), "")
	case !(parity >= 0 && parity <= 2):
		return bad("parity is between nothing and twice the file", "")
	}
	stripes := (partBytes - 2*headBytes) / sealedBlock
	data := ceil(ceil(fileBytes, BlockBytes), stripes)
	extra := int64(0)
	if parity > 0 {
		extra = max(1, int64(float64(data)*parity+0.999999))
	}
	if data+extra > MaxParts {
		return bad(fmt.Sprintf("that makes %d parts, and there may be %d", data+extra, MaxParts), "make the parts larger, or the parity less")
	}
	return newLayout(int(data), int(extra), fileBytes), nil
}

func newLayout(data, parity int, fileBytes int64) Layout {
	return Layout{Data: data, Parity: parity, FileBytes: fileBytes, stripes: ceil(fileBytes, int64(data)*BlockBytes)}
}

func ceil(n, by int64) int64 { return (n + by - 1) / by }

// Parts is how many there are.
func (l Layout) Parts() int { return l.Data + l.Parity }

// PartBytes is how long each is.
func (l Layout) PartBytes() int64 { return 2*headBytes + l.stripes*sealedBlock }

// head is at both ends of a part.
type head struct {
	Set   [16]byte // random, of all parts of one file
	Index int
	Layout
}

func (h *head) encode() []byte {
	b := append(make([]byte, 0, headBytes), magic...)
	b = binary.BigEndian.AppendUint16(b, format)
	b = append(b, h.Set[:]...)
	for _, n := range []int{h.Index, h.Data, h.Parity} {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(h.FileBytes))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errHead = errors.New("not a part, or its head is damaged")

func decodeHead(b []byte) (h head, err error) {
	if len(b) != headBytes || string(b[:len(magic)]) != magic ||
		binary.BigEndian.Uint32(b[headBytes-crc32.Size:]) != crc32.Checksum(b[:headBytes-crc32.Size], castagnoli) {
		return h, errHead
	}
	b = b[len(magic):]
	if f := binary.BigEndian.Uint16(b); f != format {
		return h, fmt.Errorf("a part of format %d, and only %d is read", f, format)
	}
	copy(h.Set[:], b[2:])
	b = b[18:]
	h.Index = int(binary.BigEndian.Uint16(b))
	data, parity, size := int(binary.BigEndian.Uint16(b[2:])), int(binary.BigEndian.Uint16(b[4:])), binary.BigEndian.Uint64(b[6:])
	if data < 1 || data+parity > MaxParts || h.Index >= data+parity || size < 1 || size > MaxFileBytes {
		return h, errHead
	}
	h.Layout = newLayout(data, parity, int64(size))
	return h, nil
}

// blockSum is the checksum of one block in its place: a block at another one does not pass.
func (h *head) blockSum(index int, stripe int64, block []byte) uint32 {
	at := append(make([]byte, 0, 26), h.Set[:]...)
	at = binary.BigEndian.AppendUint16(at, uint16(index))
	at = binary.BigEndian.AppendUint64(at, uint64(stripe))
	return crc32.Update(crc32.Checksum(at, castagnoli), castagnoli, block)
}

func blockAt(stripe int64) int64 { return headBytes + stripe*sealedBlock }
