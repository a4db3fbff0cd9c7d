package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"redoubt"
)

// The stream of a dump is a magic line and then records: one byte of kind, the length
// of the body as a big-endian uint32, the body. Keys come first, then blobs, then the
// append stream, then the end.
const (
	dumpMagic    = "redoubt dump 1\n"
	dumpKey      = 'K' // uint32 length of the key, key, value
	dumpBlob     = 'B' // uint64 name, uint64 size; its content follows in dumpPiece records
	dumpPiece    = 'P' // 1 to dumpPieceBytes of content
	dumpFirst    = 'F' // uint64: the number of the first entry, where it is not 0
	dumpEntry    = 'A' // one entry of the append stream, in order
	dumpDigest   = 'D' // SHA-256 of everything before this record, from the magic on
	dumpEnd      = 'E' // uint64 each: keys, blobs, entries; after it one digest and nothing more
	dumpRunBytes = 4 << 20

	dumpPieceBytes = 256 << 10
	maxDumpRecord  = MaxKeyBytes + MaxValueBytes + 4
)

// Dump writes the whole state that v shows, as a stream that no driver's layout
// shows through: keys, values, blobs and the append stream. The stream checks itself
// against damage but not against malice, and holds names and markings in clear: the
// caller seals it. e is the engine of v; a driver whose views are not an Archive
// gives redoubt.NotImplemented.
func Dump(ctx context.Context, v View, e Engine, w io.Writer) error {
	archive, ok := v.(Archive)
	if !ok {
		return &redoubt.Error{Op: "store.Dump", Kind: redoubt.NotImplemented}
	}
	d := &dumper{ctx: ctx, w: bufio.NewWriterSize(w, 1<<18), sum: sha256.New()}
	d.write([]byte(dumpMagic))
	keys := d.scan(v, nil, []byte{AppendPrefix}, func(it Iterator) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(it.Key())))
		d.record(dumpKey, n[:], it.Key(), it.Value())
	})
	var blobs uint64
	if d.err == nil {
		d.err = archive.EachBlob(ctx, func(ref BlobRef, size int64) error {
			blobs++
			return d.blob(e, ref, size)
		})
	}
	entries := d.entries(v)
	var end [24]byte
	binary.BigEndian.PutUint64(end[0:], keys)
	binary.BigEndian.PutUint64(end[8:], blobs)
	binary.BigEndian.PutUint64(end[16:], entries)
	d.record(dumpEnd, end[:])
	d.digest()
	if d.err == nil {
		d.err = d.w.Flush()
	}
	return d.err
}

// dumper keeps the first error, and writes nothing after it.
type dumper struct {
	ctx   context.Context
	w     *bufio.Writer
	sum   hash.Hash
	since int // bytes since the last digest, with some for each record, as a batch has both limits
	err   error
}

func (d *dumper) write(p []byte) {
	if d.err == nil {
		d.sum.Write(p)
		_, d.err = d.w.Write(p)
	}
}

func (d *dumper) record(kind byte, parts ...[]byte) {
	if d.err == nil {
		d.err = d.ctx.Err()
	}
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	var head [5]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(n))
	d.write(head[:])
	for _, p := range parts {
		d.write(p)
	}
	if d.since += n + 128; d.since > dumpRunBytes && kind != dumpDigest {
		d.digest()
	}
}

func (d *dumper) digest() {
	d.since = 0
	d.record(dumpDigest, d.sum.Sum(nil))
}

func (d *dumper) scan(v View, lower, upper []byte, each func(Iterator)) (n uint64) {
	if d.err != nil {
		return 0
	}
	it := v.Scan(lower, upper)
	for d.err == nil && it.Next() {
		each(it)
		n++
	}
	d.err = errors.Join(d.err, it.Err(), it.Close())
	return n
}

// entries writes the append stream, and where it begins: what was dropped is not there. A stream of which nothing
// is left cannot be told from one that was never written to; enclaves keep the last entries always.
func (d *dumper) entries(v View) uint64 {
	begun := false
	return d.scan(v, []byte{AppendPrefix}, nil, func(it Iterator) {
		if first := it.Key()[1:]; !begun && !bytes.Equal(first, make([]byte, 8)) {
			d.record(dumpFirst, first)
		}
		begun = true
		d.record(dumpEntry, it.Value())
	})
}

func (d *dumper) blob(e Engine, ref BlobRef, size int64) error {
	blob, err := e.OpenBlob(ref)
	if err != nil {
		return err
	}
	defer blob.Close()
	if blob.Size() != size {
		return &redoubt.Error{Op: "store.Dump", Kind: redoubt.Corrupt, Err: fmt.Errorf("blob %d has two sizes", ref)}
	}
	var head [16]byte
	binary.BigEndian.PutUint64(head[:], uint64(ref))
	binary.BigEndian.PutUint64(head[8:], uint64(size))
	d.record(dumpBlob, head[:])
	piece := make([]byte, min(size, dumpPieceBytes))
	for off := int64(0); off < size && d.err == nil; off += int64(len(piece)) {
		piece = piece[:min(int64(len(piece)), size-off)]
		if n, err := blob.ReadAt(piece, off); n < len(piece) {
			return err
		}
		d.record(dumpPiece, piece)
	}
	return d.err
}

// Load fills an empty engine from a dump. A stream that is cut short, damaged, out of
// order, over a limit or followed by anything gives redoubt.Corrupt; an engine
// that is not empty redoubt.NotEmpty. After any error the engine holds a part: throw
// it away.
func Load(ctx context.Context, e Engine, r io.Reader) error {
	restorer, ok := e.(Restorer)
	if !ok {
		return &redoubt.Error{Op: "store.Load", Kind: redoubt.NotImplemented}
	}
	if err := checkEmpty(e); err != nil {
		return err
	}
	l := &loader{ctx: ctx, e: restorer, r: bufio.NewReaderSize(r, 1<<18), sum: sha256.New(), batch: new(Batch)}
	defer l.discard()
	if err := l.run(); err != nil {
		if redoubt.KindOf(err) != redoubt.Internal {
			return err
		}
		return &redoubt.Error{Op: "store.Load", Kind: redoubt.Corrupt, Err: err}
	}
	return nil
}

func checkEmpty(e Engine) error {
	v := e.View()
	defer v.Close()
	it := v.Scan(nil, nil)
	some := it.Next()
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return err
	}
	if some || e.Stats().Blobs > 0 {
		return &redoubt.Error{Op: "store.Load", Kind: redoubt.NotEmpty, Hint: "load into a new, empty store"}
	}
	return nil
}

type loader struct {
	ctx   context.Context
	e     Restorer
	r     *bufio.Reader
	sum   hash.Hash
	buf   []byte
	batch *Batch // verified by the next digest, then committed
	bytes int    // in batch

	lastKey              []byte
	lastRef              BlobRef
	keys, blobs, entries uint64
	committed            uint64 // the next entry's number
	stage                byte   // of the last record: key, blob, entry, end
	open                 Staged // the blob whose pieces come
	want                 uint64 // bytes that open still lacks
	staged               []Staged
}

var dumpOrder = map[byte]int{dumpKey: 1, dumpBlob: 2, dumpPiece: 2, dumpFirst: 3, dumpEntry: 4, dumpEnd: 5}

func (l *loader) run() error {
	magic := make([]byte, len(dumpMagic))
	if _, err := io.ReadFull(l.r, magic); err != nil || string(magic) != dumpMagic {
		return errors.New("not a dump")
	}
	l.sum.Write(magic)
	for {
		if err := l.ctx.Err(); err != nil {
			return &redoubt.Error{Op: "store.Load", Kind: redoubt.Unavailable, Err: err}
		}
		before := l.sum.Sum(nil)
		kind, body, err := l.next()
		if err != nil {
			return err
		}
		if kind == dumpDigest {
			if !bytes.Equal(body, before) {
				return errors.New("digest does not match")
			}
			if err := l.commit(); err != nil {
				return err
			}
			if l.stage == dumpEnd {
				return l.finish()
			}
			continue
		}
		if dumpOrder[kind] < dumpOrder[l.stage] || l.stage == dumpEnd || l.want > 0 && kind != dumpPiece {
			return fmt.Errorf("record %q out of order", kind)
		}
		l.stage = kind
		if err := l.take(kind, body); err != nil {
			return err
		}
	}
}

// next reads one record. Memory grows with what arrives, not with what a length claims.
func (l *loader) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(l.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("cut short: %w", err)
	}
	l.sum.Write(head[:])
	n := int(binary.BigEndian.Uint32(head[1:]))
	limit, known := map[byte]int{dumpKey: maxDumpRecord, dumpBlob: 16, dumpPiece: dumpPieceBytes,
		dumpFirst: 8, dumpEntry: MaxValueBytes, dumpDigest: sha256.Size, dumpEnd: 24}[head[0]]
	if !known || n > limit {
		return 0, nil, fmt.Errorf("record %q of %d bytes", head[0], n)
	}
	l.buf = l.buf[:0]
	for len(l.buf) < n {
		at := len(l.buf)
		l.buf = append(l.buf, make([]byte, min(n-at, 64<<10))...)
		if _, err := io.ReadFull(l.r, l.buf[at:]); err != nil {
			return 0, nil, fmt.Errorf("cut short: %w", err)
		}
	}
	l.sum.Write(l.buf)
	return head[0], l.buf, nil
}

func (l *loader) take(kind byte, body []byte) error {
	switch kind {
	case dumpKey:
		return l.takeKey(body)
	case dumpBlob:
		return l.takeBlob(body)
	case dumpPiece:
		return l.takePiece(body)
	case dumpFirst:
		return l.takeFirst(body)
	case dumpEntry:
		l.entries++
		l.batch.Append(bytes.Clone(body))
		return l.room(len(body))
	default: // dumpEnd
		if len(body) != 24 || binary.BigEndian.Uint64(body) != l.keys ||
			binary.BigEndian.Uint64(body[8:]) != l.blobs || binary.BigEndian.Uint64(body[16:]) != l.entries {
			return errors.New("counts do not match")
		}
		return nil
	}
}

func (l *loader) takeFirst(body []byte) error {
	if len(body) != 8 || l.committed > 0 {
		return errors.New("first record is malformed, or stands twice")
	}
	l.committed = binary.BigEndian.Uint64(body)
	if l.batch.DropBelow = l.committed; l.committed == 0 || l.committed > MaxAppends {
		return errors.New("first record names no number")
	}
	return l.room(len(body))
}

func (l *loader) takeKey(body []byte) error {
	if len(body) < 4 || uint64(binary.BigEndian.Uint32(body)) > uint64(len(body)-4) {
		return errors.New("key record is malformed")
	}
	n := binary.BigEndian.Uint32(body)
	key, value := bytes.Clone(body[4:4+n]), bytes.Clone(body[4+n:])
	if l.keys > 0 && bytes.Compare(key, l.lastKey) <= 0 {
		return errors.New("keys out of order")
	}
	l.keys, l.lastKey = l.keys+1, key
	l.batch.Set(key, value)
	return l.room(len(body))
}

func (l *loader) takeBlob(body []byte) error {
	if len(body) != 16 {
		return errors.New("blob record is malformed")
	}
	ref := BlobRef(binary.BigEndian.Uint64(body))
	if ref <= l.lastRef {
		return errors.New("blobs out of order")
	}
	s, err := l.e.StageAs(l.ctx, ref)
	if err != nil {
		return err
	}
	l.staged = append(l.staged, s)
	l.blobs, l.lastRef, l.open, l.want = l.blobs+1, ref, s, binary.BigEndian.Uint64(body[8:])
	if l.want > 0 {
		return nil
	}
	return l.closeBlob()
}

func (l *loader) takePiece(body []byte) error {
	if l.open == nil || len(body) == 0 || uint64(len(body)) > l.want {
		return errors.New("piece does not belong to a blob")
	}
	if _, err := l.open.Write(body); err != nil {
		return err
	}
	if l.want -= uint64(len(body)); l.want > 0 {
		return nil
	}
	return l.closeBlob()
}

func (l *loader) closeBlob() error {
	if err := l.open.Finish(); err != nil {
		return err
	}
	l.batch.Links = append(l.batch.Links, l.open)
	l.open = nil
	return l.room(0)
}

// room refuses a stream that lets more gather between two digests than Dump does.
func (l *loader) room(n int) error {
	l.bytes += n
	if changes := len(l.batch.Writes) + len(l.batch.Appends) + len(l.batch.Links); l.bytes > MaxBatchBytes || changes > MaxBatchWrites {
		return errors.New("too much without a digest")
	}
	return nil
}

func (l *loader) commit() error {
	if err := l.e.Commit(l.ctx, l.batch); err != nil {
		return err
	}
	if len(l.batch.Appends) > 0 && l.batch.FirstAppend != l.committed {
		return &redoubt.Error{Op: "store.Load", Kind: redoubt.Conflict, Err: errors.New("the engine is in use")}
	}
	l.committed += uint64(len(l.batch.Appends))
	l.batch, l.bytes, l.staged = new(Batch), 0, nil
	if l.open != nil {
		l.staged = append(l.staged, l.open)
	}
	return nil
}

func (l *loader) finish() error {
	if _, err := l.r.ReadByte(); err != io.EOF {
		return errors.New("bytes after the end")
	}
	return nil
}

func (l *loader) discard() {
	for _, s := range l.staged {
		s.Discard()
	}
}
