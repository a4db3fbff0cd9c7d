package keys

import (
	"crypto/cipher"
	"errors"
	"io"
	"sync"

	"redoubt"
)

// Opener reads sealed content anywhere. It may be used by many at once. No byte of a
// chunk is handed out before the whole chunk is authenticated; what was altered,
// truncated, reordered or taken from elsewhere is redoubt.Corrupt.
//
// Each read authenticates only the chunks that it touches: that content ends where it
// should is known from its sealed length and shown once the last chunk is read.
type Opener struct {
	aead   cipher.AEAD
	aad    []byte // shared; each read copies it
	sealed io.ReaderAt
	size   int64 // of the content
	chunks int64
	err    error
}

// NewOpener opens the sealedSize bytes of sealed. It reads nothing yet; a length that
// cannot be, or the zero DataKey, is the error of every read.
func NewOpener(k DataKey, b Binding, sealed io.ReaderAt, sealedSize int64) *Opener {
	o := &Opener{sealed: sealed, aad: b.appendAAD(nil)}
	o.aead, o.err = k.aead()
	if o.err == nil {
		o.size, o.err = PlainSize(sealedSize)
		o.chunks = max(1, (o.size+ChunkBytes-1)/ChunkBytes)
	}
	return o
}

// Size is the content's length, as the sealed length implies it.
func (o *Opener) Size() int64 { return o.size }

// ReadAt reads content at off as io.ReaderAt asks. Before a chunk that fails it gives
// what came before it. Each call opens every chunk that it touches, so many small reads
// in a row belong in a Range.
func (o *Opener) ReadAt(p []byte, off int64) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	if off < 0 {
		return 0, &redoubt.Error{Op: "keys.ReadAt", Kind: redoubt.RangeInvalid}
	}
	c := o.newCursor()
	defer c.release()
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= o.size {
			if o.size == 0 { // nothing to give, and still the content must be genuine
				if _, err := c.open(0, nil); err != nil {
					return 0, err
				}
			}
			return done, io.EOF
		}
		index, within := at/ChunkBytes, at%ChunkBytes
		if size := o.chunkSize(index); within == 0 && int64(len(p)-done) >= size {
			if _, err := c.open(index, p[done:done:done+int(size)]); err != nil {
				return done, err
			}
			done += int(size)
			continue
		}
		plain, err := c.open(index, nil)
		if err != nil {
			return done, err
		}
		done += copy(p[done:], plain[within:])
	}
	return done, nil
}

// Range reads n bytes of content from off, or all from off when n is negative. A range
// that leaves the content gives redoubt.RangeInvalid on its first read. The reader is
// for one goroutine; its memory goes back when it ends, fails or is closed.
func (o *Opener) Range(off, n int64) *RangeReader {
	r := &RangeReader{o: o, at: off, end: off + n, err: o.err}
	if n < 0 {
		r.end = o.size
	}
	if r.err == nil && (off < 0 || off > o.size || r.end < off || r.end > o.size) {
		r.err = &redoubt.Error{Op: "keys.Range", Kind: redoubt.RangeInvalid}
	}
	return r
}

func (o *Opener) chunkSize(index int64) int64 { return min(ChunkBytes, o.size-index*ChunkBytes) }

// cursor is the working memory of one reader.
type cursor struct {
	o   *Opener
	aad []byte
	buf *scratch
}

func (o *Opener) newCursor() *cursor {
	return &cursor{o: o, aad: append([]byte(nil), o.aad...), buf: scratches.Get().(*scratch)}
}

func (c *cursor) release() {
	if c != nil && c.buf != nil {
		c.buf.release()
		c.buf = nil
	}
}

// open gives the content of one chunk, in dst when it is not nil and else in the cursor's own memory.
func (c *cursor) open(index int64, dst []byte) ([]byte, error) {
	const op = "keys.Opener"
	if dst == nil {
		dst = c.buf.plain[:0]
	}
	sealed := c.buf.sealed[:c.o.chunkSize(index)+ChunkOverhead]
	if n, err := c.o.sealed.ReadAt(sealed, index*sealedChunk); n < len(sealed) {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, corrupt(op, "the sealed content ends early")
		}
		return nil, &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	plain, err := c.o.aead.Open(dst, nil, sealed, chunkAAD(c.aad, uint64(index), index == c.o.chunks-1))
	if err != nil {
		return nil, corrupt(op, "content fails authentication")
	}
	return plain, nil
}

// RangeReader reads a range of content in order; io.Copy uses its WriteTo.
type RangeReader struct {
	o       *Opener
	at, end int64
	cur     *cursor
	rest    []byte // opened and not yet read
	checked bool   // empty content was authenticated
	err     error
}

// next opens the chunk at r.at into r.rest; io.EOF at the end.
func (r *RangeReader) next() error {
	if r.err != nil {
		return r.err
	}
	if r.at >= r.end && (r.o.size > 0 || r.checked) {
		r.fail(io.EOF)
		return r.err
	}
	if r.cur == nil {
		r.cur = r.o.newCursor()
	}
	r.checked = true
	plain, err := r.cur.open(r.at/ChunkBytes, nil)
	if err != nil {
		r.fail(err)
		return err
	}
	plain = plain[r.at%ChunkBytes:]
	r.rest = plain[:min(int64(len(plain)), r.end-r.at)]
	r.at += int64(len(r.rest))
	return nil
}

func (r *RangeReader) fail(err error) {
	r.err, r.rest = err, nil
	r.cur.release()
	r.cur = nil
}

// Read gives the next bytes of the range: whole chunks straight into p where they fit. Its memory is given back with the last byte.
func (r *RangeReader) Read(p []byte) (int, error) {
	defer r.done()
	if len(r.rest) == 0 {
		if n, _ := r.run(p); n > 0 { // what failed behind them fails the next call
			return n, nil
		}
	}
	for len(r.rest) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
		if len(p) == 0 {
			return 0, nil
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// done gives the memory back when everything was read: who reads just that far meets no end, and may not close.
func (r *RangeReader) done() {
	if len(r.rest) == 0 && r.at >= r.end {
		r.cur.release()
		r.cur = nil
	}
}

// writeChunks is how many chunks WriteTo hands over in one write: a reader on the same machine is then woken
// once for them all.
const writeChunks = 8

var runs = sync.Pool{New: func() any { return new([writeChunks * ChunkBytes]byte) }}

// WriteTo writes the rest of the range to w, several chunks at a time.
func (r *RangeReader) WriteTo(w io.Writer) (int64, error) {
	buf := runs.Get().(*[writeChunks * ChunkBytes]byte)
	defer runs.Put(buf)
	var total int64
	write := func(b []byte) error {
		n, err := w.Write(b)
		total += int64(n)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		return err
	}
	for {
		if len(r.rest) > 0 {
			rest := r.rest
			r.rest = nil
			if err := write(rest); err != nil {
				return total, err
			}
		}
		n, err := r.run(buf[:])
		if n > 0 {
			if werr := write(buf[:n]); werr != nil {
				return total, werr
			}
		}
		if err == nil {
			err = r.next()
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// run opens whole chunks of the range into buf, as many as fit, and gives what came before one that fails.
func (r *RangeReader) run(buf []byte) (n int, err error) {
	for r.err == nil && r.at%ChunkBytes == 0 && r.at < r.end && n < len(buf) {
		size := r.o.chunkSize(r.at / ChunkBytes)
		if r.end-r.at < size || int64(len(buf)-n) < size {
			break
		}
		if r.cur == nil {
			r.cur = r.o.newCursor()
		}
		if _, err := r.cur.open(r.at/ChunkBytes, buf[n:n:n+int(size)]); err != nil {
			r.fail(err)
			return n, err
		}
		r.checked = true
		n, r.at = n+int(size), r.at+size
	}
	return n, nil
}

// Close gives the reader's memory back; later reads fail.
func (r *RangeReader) Close() error {
	if r.err == nil {
		r.fail(errors.New("keys: the range is closed"))
	}
	return nil
}
