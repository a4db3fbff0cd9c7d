package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"sync"

	"redoubt"
)

// Namer turns object names into what the log keeps of them: HMAC-SHA256 under a key of
// the enclave, cut to 16 bytes. So the log finds all that happened to a name that one
// knows, and gives no name to one who does not. It may be used by many at once.
type Namer struct{ macs sync.Pool }

// NewNamer takes a key of 32 bytes, derived for this purpose alone.
func NewNamer(key []byte) (*Namer, error) {
	if len(key) != 32 {
		return nil, &redoubt.Error{Op: "audit.NewNamer", Kind: redoubt.Invalid, Err: errors.New("a key has 32 bytes")}
	}
	kept := append([]byte(nil), key...)
	n := &Namer{}
	n.macs.New = func() any { return hmac.New(sha256.New, kept) }
	return n, nil
}

// Name is the name of one object.
func (n *Namer) Name(bucket, key string) [16]byte { return n.sum('k', bucket, key) }

// Bucket is the name of a bucket.
func (n *Namer) Bucket(bucket string) [16]byte { return n.sum('b', bucket, "") }

func (n *Namer) sum(kind byte, bucket, key string) (out [16]byte) {
	mac := n.macs.Get().(hash.Hash)
	defer n.macs.Put(mac)
	mac.Reset()
	var room [256]byte
	in := append(room[:0], kind)
	in = binary.BigEndian.AppendUint32(in, uint32(len(bucket)))
	in = append(append(in, bucket...), key...)
	mac.Write(in)
	var full [sha256.Size]byte
	copy(out[:], mac.Sum(full[:0]))
	return out
}

// Format hides the key from every verb of fmt.
func (*Namer) Format(f fmt.State, _ rune) { io.WriteString(f, "redacted") }

// LogValue hides the key from slog.
func (*Namer) LogValue() slog.Value { return slog.StringValue("redacted") }
