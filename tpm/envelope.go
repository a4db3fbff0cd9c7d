package tpm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"

	"redoubt"
)

// Limits and sizes of an envelope.
const (
	envelopeVersion = 1
	flagPIN         = 1
	nameBytes       = 2 + sha256.Size // algorithm, digest
	maxPartBytes    = 1 << 10         // of the sealed object's two halves: some 80 and 220 bytes
	sealedRootBytes = 12 + 32 + 16    // nonce, root, tag
)

// envelope is what a keyring holds of a seal. See docs/spec/tpm.md.
type envelope struct {
	policy
	maker   [4]byte // of the TPM, as it calls itself
	root    []byte  // name of the storage root key
	index   uint32  // NV index of the TPM's half
	public  []byte  // of the sealed object
	private []byte
	sealed  []byte // the root key
}

// head is all but the root: what the root is bound to.
func (e *envelope) head() []byte {
	var flags byte
	if e.pin {
		flags |= flagPIN
	}
	out := append([]byte{envelopeVersion, flags}, e.maker[:]...)
	var mask uint32
	for _, n := range e.pcrs {
		mask |= 1 << n
	}
	out = binary.BigEndian.AppendUint32(out, mask)
	for _, v := range e.values {
		out = append(out, v[:]...)
	}
	out = append(out, e.root...)
	out = binary.BigEndian.AppendUint32(out, e.index)
	for _, part := range [][]byte{e.public, e.private} {
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

func (e *envelope) encode() []byte { return append(e.head(), e.sealed...) }

// parseEnvelope takes an envelope apart, strictly: Corrupt is all that it can be but right.
func parseEnvelope(in []byte) (*envelope, error) {
	e, rest := &envelope{}, in
	ok := true
	take := func(n int) []byte {
		if ok = ok && n <= len(rest); !ok {
			return make([]byte, min(n, 64))
		}
		out := rest[:n:n]
		rest = rest[n:]
		return out
	}
	head := take(6)
	ok = ok && head[0] == envelopeVersion && head[1]&^flagPIN == 0
	e.pin = head[1]&flagPIN != 0
	copy(e.maker[:], head[2:])
	mask := binary.BigEndian.Uint32(take(4))
	ok = ok && mask != 0 && mask>>pcrCount == 0
	for n := uint(0); n < pcrCount && ok; n++ {
		if mask>>n&1 == 1 {
			e.pcrs = append(e.pcrs, n)
			e.values = append(e.values, [sha256.Size]byte(take(sha256.Size)))
		}
	}
	e.root = take(nameBytes)
	e.index = binary.BigEndian.Uint32(take(4))
	ok = ok && e.index >= firstIndex && e.index < firstIndex+indexes
	for _, part := range []*[]byte{&e.public, &e.private} {
		n := binary.BigEndian.Uint16(take(2))
		ok = ok && n > 0 && n <= maxPartBytes
		*part = take(int(n))
	}
	e.sealed = take(sealedRootBytes)
	if !ok || len(rest) != 0 {
		return nil, &redoubt.Error{Op: "tpm.parseEnvelope", Kind: redoubt.Corrupt, Err: errors.New("the TPM's seal is damaged, or of a later program")}
	}
	return e, nil
}

// Description is what an envelope tells to who has no TPM.
type Description struct {
	Chip       string // SHA-256 name of the TPM's storage root key, hex
	Maker      string // of the TPM, as it calls itself: "IFX", "INTC"
	PCRs       PCRs
	Unmeasured PCRs // those that were zero: nothing was measured into them, and they bind nothing
	PIN        bool
}

// Describe reads an envelope that Wrap made.
func Describe(in []byte) (Description, error) {
	e, err := parseEnvelope(in)
	if err != nil {
		return Description{}, err
	}
	d := Description{Chip: hex.EncodeToString(e.root[2:]), PCRs: slices.Clone(e.pcrs), PIN: e.pin}
	for i, v := range e.values {
		if v == ([sha256.Size]byte{}) {
			d.Unmeasured = append(d.Unmeasured, e.pcrs[i])
		}
	}
	for _, c := range e.maker {
		if c > ' ' && c <= '~' {
			d.Maker += string(rune(c))
		}
	}
	return d, nil
}
