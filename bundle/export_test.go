package bundle

import (
	"bytes"
	"crypto/ed25519"

	"redoubt/keys"
)

// TrailerLen is how long a trailer is.
const TrailerLen = trailerLen

// EncodeHead gives a head's one form.
func EncodeHead(h Head) ([]byte, error) { return h.encode() }

// Sign puts head and sealed content together and signs them, whatever they say.
func Sign(head, sealed []byte, key ed25519.PrivateKey) []byte {
	t := trailer{Sealed: uint64(len(sealed))}
	if isTagged(head) {
		if tags, err := keys.ReadTags(bytes.NewReader(sealed), int64(len(sealed))); err == nil {
			t.Digest = tags.Digest()
		}
	} else {
		l := newLeaves(false)
		l.Write(sealed)
		t.Digest = l.sum()
	}
	copy(t.Signature[:], ed25519.Sign(key, message(head, t.Sealed, t.Digest)))
	out := append(append([]byte(nil), head...), sealed...)
	return t.append(out)
}
