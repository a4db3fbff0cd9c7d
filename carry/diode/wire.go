package diode

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// Limits of a datagram, in bytes of UDP payload.
const (
	MinDatagram     = headBytes + 448    // every path carries 576 bytes, less the headers of IP and UDP
	DefaultDatagram = headBytes + 1152   // 1212: what passes every network in use, tunnels included
	MaxDatagram     = headBytes + 32<<10 // what a machine sends itself: fewer of them cost less, and what the kernel drops is dropped one by one

	shardUnit = 64 // the code works on multiples of this

	nonceBytes = 12
	tagBytes   = nonceBytes + 16
	headBytes  = tagBytes + 1 + 1 + 16 + 4 + 2 + 4 + 4
	runAt      = tagBytes + 1 + 1 + 16 + 4 + 2
	version    = 2

	// runLength is after how many datagrams a sender begins another run, and with it another key: a quarter of what one may tag under random nonces (2^32,
	// NIST SP 800-38D section 8.3).
	runLength = 1 << 30

	// UDPOverhead is what a datagram takes on the wire beside its payload: the headers of IPv4 and UDP. Rates count it.
	UDPOverhead = 20 + 8
)

// The kinds of datagrams.
const (
	kindManifest = 1 // a piece of a manifest: index of block pieces
	kindShard    = 2 // a shard of a block: data first, then parity
)

// KeyBytes is how long the key is that both sides share.
const KeyBytes = 32

// transferID is a transfer's name: the hash of its manifest.
type transferID [16]byte

// packet is one datagram without its tag.
type packet struct {
	Kind     byte
	Transfer transferID
	Block    uint32 // of a shard; of a piece: how many pieces there are
	Index    uint16
	Run      uint32 // drawn when a sender begins
	Seq      uint32 // counts the datagrams of a run
	Payload  []byte
}

var (
	errDatagram = errors.New("not a datagram of this format")
	errTag      = errors.New("the datagram's tag is another's")
)

// tagger makes and checks tags: AES-256-GCM over nothing but what is tagged, under a key of each run. It is used by one at a time.
type tagger struct {
	key  []byte
	runs []runKey // those that were met last, the newest last
	sum  []byte
	// Of runs that were not met: how many were tried since when.
	tried int
	since time.Time
}

// maxTries is how many datagrams of runs that were not met are looked at in a second: each costs a key. Of a run that is true many come, so one of them has its turn.
const maxTries = 1024

// mayTry says whether one more of them is looked at.
func (t *tagger) mayTry(now time.Time) bool {
	if now.Sub(t.since) >= time.Second {
		t.tried, t.since = 0, now
	}
	t.tried++
	return t.tried <= maxTries
}

type runKey struct {
	run  uint32
	aead cipher.AEAD
}

// newTagger takes the shared key. Without one (nil) the tag is a checksum that anybody can make.
func newTagger(key []byte) (*tagger, error) {
	if key == nil {
		key = make([]byte, KeyBytes)
	} else if len(key) != KeyBytes {
		return nil, errors.New("the diode's key has another length")
	}
	return &tagger{key: slices.Clone(key)}, nil
}

// of is the AEAD of a run; known: it was met before.
func (t *tagger) of(run uint32) (aead cipher.AEAD, known bool) {
	for _, k := range t.runs {
		if k.run == run {
			return k.aead, true
		}
	}
	key, err := hkdf.Expand(sha256.New, t.key, "redoubt diode 2 datagrams"+string(binary.BigEndian.AppendUint32(nil, run)), 32)
	if err == nil {
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			aead, err = cipher.NewGCMWithRandomNonce(block)
		}
	}
	if err != nil {
		panic(err) // all lengths are constants
	}
	return aead, false
}

// meet keeps the key of a run that is no forger's.
func (t *tagger) meet(run uint32, aead cipher.AEAD) {
	if len(t.runs) == maxSenders {
		t.runs = slices.Delete(t.runs, 0, 1)
	}
	t.runs = append(t.runs, runKey{run, aead})
}

// tag is that of a datagram, which stands behind the room for it.
func (t *tagger) tag(datagram []byte) []byte {
	run := binary.BigEndian.Uint32(datagram[runAt:])
	aead, known := t.of(run)
	if !known {
		t.meet(run, aead)
	}
	t.sum = aead.Seal(t.sum[:0], nil, nil, datagram[tagBytes:])
	return t.sum
}

// tagged says whether a datagram has the tag that it should.
func (t *tagger) tagged(datagram []byte) bool {
	run := binary.BigEndian.Uint32(datagram[runAt:])
	if !slices.ContainsFunc(t.runs, func(k runKey) bool { return k.run == run }) && !t.mayTry(time.Now()) {
		return false
	}
	aead, known := t.of(run)
	if _, err := aead.Open(nil, nil, datagram[:tagBytes], datagram[tagBytes:]); err != nil {
		return false
	}
	if !known {
		t.meet(run, aead)
	}
	return true
}

// append writes a packet as a datagram.
func (t *tagger) append(b []byte, p *packet) []byte {
	at := len(b)
	b = append(b, make([]byte, tagBytes)...)
	b = append(b, version, p.Kind)
	b = append(b, p.Transfer[:]...)
	b = binary.BigEndian.AppendUint32(b, p.Block)
	b = binary.BigEndian.AppendUint16(b, p.Index)
	b = binary.BigEndian.AppendUint32(b, p.Run)
	b = binary.BigEndian.AppendUint32(b, p.Seq)
	b = append(b, p.Payload...)
	copy(b[at:], t.tag(b[at:]))
	return b
}

// parse reads a datagram; the payload stays in b. What is not tagged with the key is refused before its kind is looked at.
func (t *tagger) parse(b []byte) (p packet, err error) {
	if len(b) <= headBytes || len(b) > MaxDatagram || b[tagBytes] != version {
		return p, errDatagram
	}
	if !t.tagged(b) {
		return p, errTag
	}
	h := b[tagBytes+1:]
	p.Kind = h[0]
	copy(p.Transfer[:], h[1:])
	p.Block = binary.BigEndian.Uint32(h[17:])
	p.Index = binary.BigEndian.Uint16(h[21:])
	p.Run = binary.BigEndian.Uint32(h[23:])
	p.Seq = binary.BigEndian.Uint32(h[27:])
	p.Payload = b[headBytes:]
	switch {
	case p.Kind == kindManifest && p.Block >= 1 && p.Block <= maxPieces && uint32(p.Index) < p.Block:
	case p.Kind == kindShard && p.Block < maxBlocks && len(p.Payload)%shardUnit == 0:
	default:
		return p, errDatagram
	}
	return p, nil
}
