package keys

import (
	"crypto/cipher"
	"errors"
	"io"
	"sync"

	"redoubt"
)

// scratch is the working memory of one stream.
type scratch struct {
	plain  [ChunkBytes + 1]byte // the byte more tells that its chunk is not the last
	sealed [sealedChunk]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// release overwrites the plaintext and gives the memory back.
func (s *scratch) release() {
	clear(s.plain[:])
	scratches.Put(s)
}

// Sealer seals a stream. It holds back one chunk, since only Close knows which is the
// last. It is used by one goroutine. After an error it stays failed.
type Sealer struct {
	w     io.Writer
	aead  cipher.AEAD
	aad   []byte
	buf   *scratch // nil once closed
	n     int      // bytes of buf.plain in use
	index uint64
	tags  *Tags // of what SealToOne seals; else nil
	err   error
}

// NewSealer seals what is written to it into w. Without Close, what w holds does not
// open. Of the zero DataKey it refuses every write.
func NewSealer(k DataKey, b Binding, w io.Writer) *Sealer {
	aead, err := k.aead()
	return &Sealer{w: w, aead: aead, aad: b.appendAAD(nil), buf: scratches.Get().(*scratch), err: err}
}

// Write seals p. Whole chunks are sealed from p without a copy.
func (s *Sealer) Write(p []byte) (int, error) {
	if s.buf == nil {
		return 0, errSealerClosed
	}
	total := len(p)
	for s.err == nil && len(p) > 0 {
		switch {
		case s.n == ChunkBytes: // more follows: the held chunk is not the last
			s.seal(s.buf.plain[:ChunkBytes], false)
			s.n = 0
		case s.n == 0 && len(p) > ChunkBytes:
			s.seal(p[:ChunkBytes], false)
			p = p[ChunkBytes:]
		default:
			n := copy(s.buf.plain[s.n:ChunkBytes], p)
			s.n += n
			p = p[n:]
		}
	}
	if s.err != nil {
		return total - len(p), s.err
	}
	return total, nil
}

// ReadFrom seals all of r, reading straight into the sealer's chunk; io.Copy uses it.
func (s *Sealer) ReadFrom(r io.Reader) (int64, error) {
	if s.buf == nil {
		return 0, errSealerClosed
	}
	var total int64
	for empty := 0; s.err == nil; {
		n, err := r.Read(s.buf.plain[s.n:])
		s.n += n
		total += int64(n)
		if s.n > ChunkBytes {
			s.seal(s.buf.plain[:ChunkBytes], false)
			s.buf.plain[0], s.n = s.buf.plain[ChunkBytes], 1
		}
		switch {
		case err == io.EOF:
			return total, s.err
		case err != nil:
			return total, err
		case n > 0:
			empty = 0
		default:
			if empty++; empty == 100 {
				return total, io.ErrNoProgress
			}
		}
	}
	return total, s.err
}

// Close seals the last chunk, also of empty content, and frees the sealer's memory. It
// does not close w. A second Close does nothing.
func (s *Sealer) Close() error {
	if s.buf == nil {
		return nil
	}
	if s.err == nil {
		s.seal(s.buf.plain[:s.n], true)
	}
	s.buf.release()
	s.buf, s.aead = nil, nil
	return s.err
}

func (s *Sealer) seal(plain []byte, final bool) {
	if s.index >= MaxPlainBytes/ChunkBytes && len(plain) > 0 {
		s.err = &redoubt.Error{Op: "keys.Sealer", Kind: redoubt.TooLarge}
	}
	if s.err != nil {
		return
	}
	out := s.aead.Seal(s.buf.sealed[:0], nil, plain, chunkAAD(s.aad, s.index, final))
	s.index++
	if s.tags != nil {
		s.tags.add(out)
	}
	_, s.err = s.w.Write(out)
}

var errSealerClosed = errors.New("keys: the sealer is closed")
