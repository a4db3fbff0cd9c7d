package embedded

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"redoubt/store"
)

// A frame is what one group of commits adds to the log, in one write:
//
//	header  32 bytes: magic, total length, length of the record, sequence number, CRC32C of these
//	blobs   the inline blobs of the group, each in sealed pieces
//	record  sealed: CRC32C of the blobs area, changes, zeros up to a whole page
//
// A frame is a whole number of pages, so no write touches a page that holds
// acknowledged bytes. Its parts are ciphertext throughout and its last byte has two bits
// set: tornWrite relies on it.
const (
	frameMagic   = 0x52444631
	frameHead    = 32
	framePage    = 4096
	groupBytes   = 4 << 20   // a group takes no more batches beyond this
	spillBytes   = 16 << 20  // inline blobs of one batch; beyond, they become extents
	maxFrame     = 160 << 20 // MaxBatchBytes, spillBytes and their overhead
	inlinePiece  = 32 << 10  // a read of 4 KiB opens no more than this
	changeSet    = 1
	changeDelete = 2
	changeAppend = 3
	changeLink   = 4
	changeUnlink = 5
	changeMove   = 6
	changeDrop   = 7
)

// frameWriter builds one frame for a place in a segment.
type frameWriter struct {
	seg    *segment
	off    int64
	seq    uint64
	buf    []byte // header and blobs
	record []byte // in clear
}

func (w *frameWriter) reset(seg *segment, off int64, seq uint64) {
	w.seg, w.off, w.seq = seg, off, seq
	w.buf = append(w.buf[:0], make([]byte, frameHead)...)
	w.record = append(w.record[:0], 0, 0, 0, 0)
}

func (w *frameWriter) bytes(b []byte) {
	w.record = binary.AppendUvarint(w.record, uint64(len(b)))
	w.record = append(w.record, b...)
}

func (w *frameWriter) set(key, value []byte) {
	w.record = append(w.record, changeSet)
	w.bytes(key)
	w.bytes(value)
}

func (w *frameWriter) delete(key []byte) {
	w.record = append(w.record, changeDelete)
	w.bytes(key)
}

func (w *frameWriter) append(entry []byte) {
	w.record = append(w.record, changeAppend)
	w.bytes(entry)
}

func (w *frameWriter) drop(below uint64) {
	w.record = append(w.record, changeDrop)
	w.record = binary.AppendUvarint(w.record, below)
}

func (w *frameWriter) unlink(ref store.BlobRef) {
	w.record = append(w.record, changeUnlink)
	w.record = binary.AppendUvarint(w.record, uint64(ref))
}

// link records a blob; change is changeLink or changeMove.
func (w *frameWriter) link(change byte, ref store.BlobRef, loc location) {
	w.record = append(w.record, change)
	w.record = binary.AppendUvarint(w.record, uint64(ref))
	w.record = loc.append(w.record)
}

// inline seals a small blob into the frame and tells where it will lie.
func (w *frameWriter) inline(ref store.BlobRef, data []byte) location {
	loc := location{size: int64(len(data)), inline: true}
	if len(data) == 0 {
		return loc // no place: two runs may not begin at one offset
	}
	loc.runs = []run{{segment: w.seg.id, off: w.off + int64(len(w.buf)), length: loc.size}}
	for i := uint32(0); len(data) > 0; i++ {
		n := min(inlinePiece, len(data))
		w.buf = w.seg.blob.Seal(w.buf, nil, data[:n], pieceAAD(ref, i))
		data = data[n:]
	}
	return loc
}

func pieceAAD(ref store.BlobRef, piece uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(make([]byte, 0, 12), uint64(ref)), piece)
}

// inlineDisk is how many bytes an inline blob of n bytes takes on disk.
func inlineDisk(n int64) int64 {
	return n + (n+inlinePiece-1)/inlinePiece*sealOverhead
}

// finish completes the frame; the result is valid until the next reset.
func (w *frameWriter) finish() []byte {
	binary.BigEndian.PutUint32(w.record, crc32.Checksum(w.buf[frameHead:], castagnoli))
	total := len(w.buf) + len(w.record) + sealOverhead
	pad := (framePage - total%framePage) % framePage
	w.record = append(w.record, make([]byte, pad)...)
	total += pad
	h := w.buf[:frameHead]
	binary.BigEndian.PutUint32(h[0:], frameMagic)
	binary.BigEndian.PutUint32(h[4:], uint32(total))
	binary.BigEndian.PutUint32(h[8:], uint32(len(w.record)+sealOverhead))
	binary.BigEndian.PutUint64(h[12:], w.seq)
	binary.BigEndian.PutUint32(h[28:], crc32.Checksum(h[:28], castagnoli))
	w.buf = sealMarked(w.seg.meta, w.buf, w.record, frameAAD(w.seg.id, w.off, h))
	return w.buf
}

func frameAAD(segment uint64, off int64, head []byte) []byte {
	b := make([]byte, 0, 16+frameHead)
	b = binary.BigEndian.AppendUint64(b, segment)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return append(b, head...)
}

var errFrame = errors.New("log frame does not verify")

// frameLength reads the header of a frame; ok is false when it is none.
func frameLength(head []byte) (total, record int, seq uint64, ok bool) {
	total = int(binary.BigEndian.Uint32(head[4:]))
	record = int(binary.BigEndian.Uint32(head[8:]))
	seq = binary.BigEndian.Uint64(head[12:])
	ok = binary.BigEndian.Uint32(head) == frameMagic && binary.BigEndian.Uint32(head[28:]) == crc32.Checksum(head[:28], castagnoli) &&
		total <= maxFrame && total%framePage == 0 && record >= sealOverhead+4 && record <= total-frameHead
	return total, record, seq, ok
}

// openFrame verifies a whole frame and returns its changes.
func openFrame(meta cipher.AEAD, segment uint64, off int64, frame []byte) (changes []byte, err error) {
	total, record, _, ok := frameLength(frame[:frameHead])
	if !ok || total != len(frame) {
		return nil, errFrame
	}
	blobs := frame[frameHead : total-record]
	plain, err := meta.Open(nil, nil, frame[total-record:], frameAAD(segment, off, frame[:frameHead]))
	if err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(plain) != crc32.Checksum(blobs, castagnoli) {
		return nil, errFrame
	}
	return plain[4:], nil
}

// change is one decoded change of a frame.
type change struct {
	kind       byte
	key, value []byte // value is the entry of an append
	ref        store.BlobRef
	loc        location
	below      uint64 // of a drop
}

// nextChange decodes one change; a zero kind ends the frame.
func nextChange(b []byte) (c change, rest []byte, err error) {
	if len(b) == 0 || b[0] == 0 {
		if !allZero(b) {
			return c, nil, errFrame
		}
		return c, nil, nil
	}
	d := decoder{b: b[1:]}
	switch c.kind = b[0]; c.kind {
	case changeSet:
		c.key, c.value = d.bytes(), d.bytes()
	case changeDelete:
		c.key = d.bytes()
	case changeAppend:
		c.value = d.bytes()
	case changeDrop:
		c.below = d.uvarint()
	case changeUnlink:
		c.ref = store.BlobRef(d.uvarint())
	case changeLink, changeMove:
		c.ref = store.BlobRef(d.uvarint())
		c.loc = d.location()
	default:
		return c, nil, errFrame
	}
	if d.bad {
		return c, nil, errFrame
	}
	return c, d.b, nil
}

// decoder reads what frameWriter and location write; bad is set once anything is amiss.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}
