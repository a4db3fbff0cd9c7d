package replica

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"io"

	"redoubt"
)

// Content-defined chunks: content is cut where its own bytes say so, so an insertion moves the cuts behind it along and chunks far from it
// are the same as before. Only who sends cuts; what it finds it says as copies, and who receives cuts nothing.
const (
	minChunk  = 16 << 10
	meanChunk = 80 << 10
	maxChunk  = 256 << 10

	// cutMask is of bits of a gear hash that each of the last 48 bytes or more had a say in. There is one for a chunk of any length: who begins to cut
	// at another place then soon cuts at the same ones.
	cutMask = (1<<16 - 1) << 48

	// maxBaseBytes bounds the index of a base: a quarter of a million chunks.
	maxBaseBytes = 16 << 30
)

// gear is a number for each byte, drawn once by splitmix64. Both cuts that are compared are made by one process, so no other
// program has to have the same.
var gear = func() (t [256]uint64) {
	x := uint64(0x5265646f75627421)
	for i := range t {
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		t[i] = z ^ z>>31
	}
	return t
}()

// chunkBytes is how long the first chunk of p is, which has maxChunk bytes or is the end of the content.
func chunkBytes(p []byte) int {
	n := min(len(p), maxChunk)
	if n <= minChunk {
		return n
	}
	var h uint64
	for i := minChunk; i < n; i++ {
		if h = h<<1 + gear[p[i]]; h&cutMask == 0 {
			return i + 1
		}
	}
	return n
}

// baseline is the content of a version that both sides hold, to copy from.
type baseline struct {
	content redoubt.Content
	size    int64
	seed    maphash.Seed
	at      map[uint64]int64 // the hash of a chunk -> where it begins; filled by index
	buf     []byte
}

func (b *baseline) close() {
	if b != nil {
		b.content.Close()
	}
}

// index cuts all of it.
func (b *baseline) index() error {
	b.seed, b.at = maphash.MakeSeed(), make(map[uint64]int64, b.size/meanChunk+1)
	r, buf, off, ended := b.content.Reader(0, b.size), make([]byte, 0, 8*maxChunk), int64(0), false
	for {
		for !ended && len(buf) < maxChunk {
			n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			if ended = err == io.EOF || err == io.ErrUnexpectedEOF; err != nil && !ended {
				return err
			}
			if len(buf) == cap(buf) {
				break
			}
		}
		if len(buf) == 0 {
			return nil
		}
		at := 0
		for len(buf)-at >= maxChunk || ended && at < len(buf) {
			n := chunkBytes(buf[at:])
			h := maphash.Bytes(b.seed, buf[at:at+n])
			if _, known := b.at[h]; !known {
				b.at[h] = off
			}
			at, off = at+n, off+int64(n)
		}
		buf = buf[:copy(buf, buf[at:])]
	}
}

// read gives n bytes of it, valid until the next call.
func (b *baseline) read(off int64, n int) ([]byte, error) {
	if cap(b.buf) < n {
		b.buf = make([]byte, max(n, maxChunk))
	}
	_, err := io.ReadFull(b.content.Reader(off, int64(n)), b.buf[:n])
	return b.buf[:n], err
}

// step is one step of how content is made: bytes of its own, then bytes of the base.
type step struct {
	literal int
	copies  int
	from    int64
}

// steps says how content is made of the base.
func (b *baseline) steps(plain []byte) (all []step, err error) {
	at, literal := 0, 0
	for at < len(plain) {
		n := chunkBytes(plain[at:])
		from, known := b.at[maphash.Bytes(b.seed, plain[at:at+n])]
		if known && from+int64(n) <= b.size {
			there, err := b.read(from, n)
			if err != nil {
				return nil, err
			}
			known = bytes.Equal(there, plain[at:at+n])
		}
		if !known || from+int64(n) > b.size {
			at += n
			continue
		}
		before, err := b.before(plain[literal:at], from)
		if err != nil {
			return nil, err
		}
		behind, err := b.behind(plain[at+n:], from+int64(n))
		if err != nil {
			return nil, err
		}
		all = append(all, step{literal: at - before - literal, copies: before + n + behind, from: from - int64(before)})
		at += n + behind
		literal = at
	}
	if literal < len(plain) {
		all = append(all, step{literal: len(plain) - literal})
	}
	return all, nil
}

// before is how many bytes at the end of p the base has before from.
func (b *baseline) before(p []byte, from int64) (same int, err error) {
	for same < len(p) {
		n := int(min(int64(len(p)-same), from-int64(same), maxChunk))
		there, err := b.read(from-int64(same+n), n)
		if err != nil {
			return 0, err
		}
		i := 0
		for i < n && there[n-1-i] == p[len(p)-1-same-i] {
			i++
		}
		if same += i; n == 0 || i < n {
			break
		}
	}
	return same, nil
}

// behind is how many bytes at the beginning of p the base has from off on.
func (b *baseline) behind(p []byte, off int64) (same int, err error) {
	for same < len(p) {
		n := int(min(int64(len(p)-same), b.size-off-int64(same), maxChunk))
		there, err := b.read(off+int64(same), n)
		if err != nil {
			return 0, err
		}
		i := 0
		for i < n && there[i] == p[same+i] {
			i++
		}
		if same += i; n == 0 || i < n {
			break
		}
	}
	return same, nil
}

// maxSteps is the most that a segment has: each but the last has a chunk that is no shorter than the shortest.
const maxSteps = maxWholeBytes/minChunk + 2

// encodeSteps writes them: their number, and of each how many bytes of its own it has, how many it copies, and from where.
func encodeSteps(all []step) []byte {
	b := binary.AppendUvarint(nil, uint64(len(all)))
	for _, s := range all {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(s.literal)), uint64(s.copies))
		if s.copies > 0 {
			b = binary.AppendUvarint(b, uint64(s.from))
		}
	}
	return b
}

// decodeSteps reads what encodeSteps wrote, for content of size bytes out of a base of baseBytes, and gives what follows. A number that is not in
// its shortest form, a step that does nothing, a copy from beyond the base and a sum that is not the size are errors.
func decodeSteps(msg []byte, size, baseBytes int64) (all []step, literals int, rest []byte, err error) {
	number := func(most int64) int64 {
		v, n := binary.Uvarint(msg)
		if err != nil || n <= 0 || n > 1 && msg[n-1] == 0 || v > uint64(most) {
			err = errMessage
			return 0
		}
		msg = msg[n:]
		return int64(v)
	}
	left := size
	for range number(maxSteps) {
		s := step{literal: int(number(left))}
		left -= int64(s.literal)
		s.copies = int(number(left))
		left -= int64(s.copies)
		if s.copies > 0 {
			s.from = number(baseBytes - int64(s.copies))
		}
		if baseBytes < int64(s.copies) || s.literal+s.copies == 0 {
			err = errMessage
		}
		if err != nil {
			return nil, 0, nil, err
		}
		literals += s.literal
		all = append(all, s)
	}
	if err != nil || left != 0 {
		return nil, 0, nil, errMessage
	}
	return all, literals, msg, nil
}

// make puts content together.
func (b *baseline) make(all []step, literals []byte, size int64) ([]byte, error) {
	out := make([]byte, 0, size)
	for _, s := range all {
		out = append(out, literals[:s.literal]...)
		literals = literals[s.literal:]
		at := len(out)
		out = out[:at+s.copies]
		if _, err := io.ReadFull(b.content.Reader(s.from, int64(s.copies)), out[at:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
