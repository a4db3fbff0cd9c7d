package keys

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"redoubt"
)

const fileMagic = "RDBTKEY1"

// fileImage is a keyring file taken apart. See docs/spec/keys.md:
//
//	magic 8 | method u8+n | envelope u32+n | body key under root 60 | body u32+n | SHA-256 32
type fileImage struct {
	method   string
	envelope []byte
	wrapped  []byte // the body key under the root
	sealed   []byte // the body under the body key
	head     []byte // all before wrapped: its additional data, and with wrapped the body's
}

// sealFile renders b under a fresh body key.
func sealFile(method string, envelope, root, bodyKey []byte, b *body) ([]byte, error) {
	plain := b.encode()
	defer clear(plain)
	out := make([]byte, 0, len(fileMagic)+1+len(method)+4+len(envelope)+sealedKey+4+len(plain)+ChunkOverhead+32)
	out = append(out, fileMagic...)
	out = append(out, byte(len(method)))
	out = append(out, method...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(envelope)))
	out = append(out, envelope...)
	out, err := sealUnder(out, root, bodyKey, slices.Clone(out))
	if err != nil {
		return nil, err
	}
	head := slices.Clone(out)
	out = binary.BigEndian.AppendUint32(out, uint32(len(plain)+ChunkOverhead))
	if out, err = sealUnder(out, bodyKey, plain, head); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...), nil
}

// parseFile takes a keyring file apart. The checksum tells damage from a wrong key; it
// proves nothing.
func parseFile(in []byte) (*fileImage, error) {
	if len(in) < len(fileMagic)+sha256.Size || string(in[:len(fileMagic)]) != fileMagic {
		return nil, errors.New("not a keyring")
	}
	content := in[:len(in)-sha256.Size]
	if sum := sha256.Sum256(content); string(sum[:]) != string(in[len(content):]) {
		return nil, errors.New("checksum")
	}
	r := reader{in: content[len(fileMagic):]}
	f := &fileImage{}
	f.method = string(r.take(int(r.byte())))
	r.check(validMethod(f.method), "method")
	f.envelope = r.take(int(r.count(MaxEnvelopeBytes)))
	f.head = content[:len(content)-len(r.in)]
	f.wrapped = r.take(sealedKey)
	f.sealed = r.take(int(r.count(maxFileBytes)))
	r.check(len(r.in) == 0, "trailing bytes")
	if r.err != nil {
		return nil, r.err
	}
	return f, nil
}

// open gives the body under root.
func (f *fileImage) open(root []byte) (*body, error) {
	bodyKey, err := openUnder(root, f.wrapped, f.head)
	if err != nil {
		return nil, &redoubt.Error{Kind: redoubt.Corrupt, Err: errors.New("the body key does not open under the root")}
	}
	defer clear(bodyKey)
	plain, err := openUnder(bodyKey, f.sealed, slices.Concat(f.head, f.wrapped))
	if err != nil {
		return nil, &redoubt.Error{Kind: redoubt.Corrupt, Err: errors.New("the body does not open")}
	}
	defer clear(plain)
	b, err := decodeBody(plain)
	if err != nil {
		return nil, &redoubt.Error{Kind: redoubt.Corrupt, Err: err}
	}
	return b, nil
}

func validMethod(s string) bool {
	if s == "" || len(s) > MaxMethodBytes {
		return false
	}
	for _, c := range []byte(s) {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}
