package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"redoubt"
)

// Tags is, of content that is sealed to one recipient, everything but the ciphertext: the recipient's block, the length, and nonce and tag of
// each chunk. Nobody without the content's key can make another chunk that opens under its tag, so to everyone else the tags fix every byte.
// Whoever has the key, which is who sealed it and who it is for, can make others.
type Tags struct {
	head   []byte // of what is sealed, up to its first chunk
	size   int64  // of all that is sealed
	chunks []byte // nonce and tag of each, ChunkOverhead bytes
}

const (
	nonceBytes = 12
	tagBytes   = ChunkOverhead - nonceBytes
	soleHead   = len(sealToMagic) + 2 + recipientBlock // of what is sealed to one recipient
)

// SealToOne is SealTo for one recipient, with the tags of what is written. They are all there when the Sealer was closed, and take 28 bytes of
// memory for each 64 KiB.
func SealToOne(to Recipient, w io.Writer) (*Sealer, *Tags, error) {
	s, head, err := sealFor([]Recipient{to}, w)
	if err != nil {
		return nil, nil, err
	}
	s.tags = &Tags{head: head, size: int64(len(head))}
	return s, s.tags, nil
}

// add takes the tag of the next chunk, sealed as it is.
func (t *Tags) add(chunk []byte) {
	t.size += int64(len(chunk))
	t.chunks = append(append(t.chunks, chunk[:nonceBytes]...), chunk[len(chunk)-tagBytes:]...)
}

// ReadTags reads the tags of the size bytes of sealed, and of the rest nothing. The caller bounds size. What is sealed to another number of
// recipients, or has a length that no content has, is redoubt.Corrupt. Whether anything opens is not asked.
func ReadTags(sealed io.ReaderAt, size int64) (*Tags, error) {
	const op = "keys.ReadTags"
	plain, err := PlainSize(size - int64(soleHead))
	if err != nil {
		return nil, corrupt(op, "a length that no content has")
	}
	n := max(1, (plain+ChunkBytes-1)/ChunkBytes)
	t := &Tags{head: make([]byte, soleHead), size: size, chunks: make([]byte, n*ChunkOverhead)}
	if err := readWhole(op, sealed, t.head, 0); err != nil {
		return nil, err
	}
	if string(t.head[:len(sealToMagic)]) != sealToMagic || binary.BigEndian.Uint16(t.head[len(sealToMagic):]) != 1 {
		return nil, corrupt(op, "not content sealed to one recipient")
	}
	for i := range n {
		at, tag := int64(soleHead)+i*sealedChunk, t.chunks[i*ChunkOverhead:][:ChunkOverhead]
		end := min(at+sealedChunk, size)
		if err := errors.Join(readWhole(op, sealed, tag[:nonceBytes], at), readWhole(op, sealed, tag[nonceBytes:], end-tagBytes)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func readWhole(op string, r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return corrupt(op, "the sealed content ends early")
	}
	return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: err}
}

// Digest is what stands for the tags where they are signed.
func (t *Tags) Digest() [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("redoubt keys tags v1\n"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(t.size)))
	h.Write(t.head)
	h.Write(t.chunks)
	return [sha256.Size]byte(h.Sum(nil))
}

// OpenTagged opens what the tags are of, as a stream: only what opens under them comes out, whatever sealed gives by now. Nothing of a chunk is
// given before it is authenticated. A chunk that is another, or has another tag by now, is redoubt.Corrupt at its place; content that is not
// sealed to who is redoubt.Denied.
func OpenTagged(who *Identity, t *Tags, sealed io.ReaderAt) (io.Reader, error) {
	const op = "keys.OpenTagged"
	if err := given(op, who); err != nil {
		return nil, err
	}
	d, err := fileKey(op, who, t.head)
	if err != nil {
		return nil, err
	}
	defer d.Wipe()
	o := NewOpener(d, sealToBinding(t.head), tagged{t, sealed}, t.size-int64(soleHead))
	return o.Range(0, -1), o.err
}

// tagged is what an Opener reads, chunk by chunk: each has the tag that it had.
type tagged struct {
	t      *Tags
	sealed io.ReaderAt
}

func (s tagged) ReadAt(p []byte, at int64) (int, error) {
	const op = "keys.OpenTagged"
	if err := readWhole(op, s.sealed, p, int64(soleHead)+at); err != nil {
		return 0, err
	}
	tag := s.t.chunks[at/sealedChunk*ChunkOverhead:][:ChunkOverhead]
	if !bytes.Equal(tag[:nonceBytes], p[:nonceBytes]) || !bytes.Equal(tag[nonceBytes:], p[len(p)-tagBytes:]) {
		return 0, corrupt(op, "the content has another tag by now")
	}
	return len(p), nil
}
