package keys

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"

	"redoubt"
)

// Content is sealed in chunks of ChunkBytes plaintext, each ChunkOverhead longer when
// sealed (nonce 12, tag 16). The last chunk may be shorter; empty content is one empty
// chunk. docs/spec/keys.md has the additional data of a chunk byte by byte.
const (
	ChunkBytes    = 64 << 10
	ChunkOverhead = 28

	// MaxPlainBytes is the longest content: 2^30 chunks, well within the 2^32 messages
	// that one key may seal with random nonces.
	MaxPlainBytes = ChunkBytes << 30

	sealedChunk = ChunkBytes + ChunkOverhead
)

// Binding is what content is bound to: a chunk opens only under the same label, bucket,
// key and version. All fields may be empty, but a caller that leaves them so binds nothing.
type Binding struct {
	Label       []byte // canonical text
	Bucket, Key string
	Version     []byte
}

// SealedSize is the sealed length of plain bytes; -1 when plain is negative or over MaxPlainBytes.
func SealedSize(plain int64) int64 {
	if plain < 0 || plain > MaxPlainBytes {
		return -1
	}
	return plain + ChunkOverhead*max(1, (plain+ChunkBytes-1)/ChunkBytes)
}

// PlainSize is the content's length given the sealed length; redoubt.Corrupt for a
// length that no content seals to.
func PlainSize(sealed int64) (int64, error) {
	chunks := (sealed + sealedChunk - 1) / sealedChunk
	plain := sealed - chunks*ChunkOverhead
	if sealed < ChunkOverhead || plain > MaxPlainBytes || SealedSize(plain) != sealed {
		return 0, corrupt("keys.PlainSize", "no content has this sealed length")
	}
	return plain, nil
}

// SealAll appends plain, sealed, to dst. dst must not overlap plain. It panics on the
// zero DataKey, since there is no key to seal under, and past MaxPlainBytes.
func SealAll(dst []byte, k DataKey, b Binding, plain []byte) []byte {
	aead, err := k.aead()
	if err != nil || len(plain) > MaxPlainBytes {
		panic("keys: SealAll without a key, or too much content")
	}
	if need := int(SealedSize(int64(len(plain)))); cap(dst)-len(dst) < need {
		dst = append(make([]byte, 0, len(dst)+need), dst...)
	}
	aad := b.appendAAD(nil)
	for i := uint64(0); ; i++ {
		n := min(len(plain), ChunkBytes)
		final := n == len(plain)
		dst = aead.Seal(dst, nil, plain[:n], chunkAAD(aad, i, final))
		plain = plain[n:]
		if final {
			return dst
		}
	}
}

// OpenAll appends the content of sealed, which is whole, to dst: all of it, or
// redoubt.Corrupt and nothing. dst must not overlap sealed.
func OpenAll(dst []byte, k DataKey, b Binding, sealed []byte) ([]byte, error) {
	const op = "keys.OpenAll"
	size, err := PlainSize(int64(len(sealed)))
	if err != nil {
		return nil, corrupt(op, "no content has this sealed length")
	}
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	start := len(dst)
	if cap(dst)-start < int(size) {
		dst = append(make([]byte, 0, start+int(size)), dst...)
	}
	aad := b.appendAAD(nil)
	for i := uint64(0); len(sealed) > 0; i++ {
		n := min(len(sealed), sealedChunk)
		dst, err = aead.Open(dst, nil, sealed[:n], chunkAAD(aad, i, n == len(sealed)))
		if err != nil {
			clear(dst[start:cap(dst)])
			return nil, corrupt(op, "content fails authentication")
		}
		sealed = sealed[n:]
	}
	return dst, nil
}

func (d DataKey) aead() (cipher.AEAD, error) {
	if !d.set {
		return nil, &redoubt.Error{Op: "keys.DataKey", Kind: redoubt.Denied, Err: errors.New("no data key given")}
	}
	aead, err := newAEAD(d.key[:])
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.DataKey", Err: err}
	}
	return aead, nil
}

const chunkTail = 9 // index 8, final flag 1

// appendAAD appends the additional data of chunk 0: each field behind its length, so
// that no two bindings encode alike, then room for index and final flag.
func (b Binding) appendAAD(dst []byte) []byte {
	const domain = "redoubt content v1\x00"
	if dst == nil {
		dst = make([]byte, 0, len(domain)+16+len(b.Label)+len(b.Bucket)+len(b.Key)+len(b.Version)+chunkTail)
	}
	dst = append(dst, domain...)
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(b.Label))), b.Label...)
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(b.Bucket))), b.Bucket...)
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(b.Key))), b.Key...)
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(b.Version))), b.Version...)
	return append(dst, make([]byte, chunkTail)...)
}

// chunkAAD sets index and final flag in what appendAAD made.
func chunkAAD(aad []byte, index uint64, final bool) []byte {
	tail := aad[len(aad)-chunkTail:]
	binary.BigEndian.PutUint64(tail, index)
	tail[8] = 0
	if final {
		tail[8] = 1
	}
	return aad
}
