package diode

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
)

// Limits of a datagram, in bytes of UDP payload.
const (
	MinDatagram     = headBytes + 448  // every path carries 576 bytes, less the headers of IP and UDP
	DefaultDatagram = headBytes + 1152 // 1200: what passes every network in use, tunnels included
	MaxDatagram     = headBytes + 8896 // 8,944: a jumbo frame of 9,000 bytes

	shardUnit = 64 // the code works on multiples of this

	tagBytes  = 16
	headBytes = tagBytes + 1 + 1 + 16 + 4 + 2 + 4 + 4
	version   = 1

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
	Seq      uint32 // counts the datagrams of a run; it wraps
	Payload  []byte
}

var (
	errDatagram = errors.New("not a datagram of this format")
	errTag      = errors.New("the datagram's tag is another's")
)

// tagger makes and checks tags. It is used by one at a time.
type tagger struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

// newTagger takes the shared key. Without one (nil) the tag is a checksum that anybody can make.
func newTagger(key []byte) (*tagger, error) {
	if key == nil {
		key = make([]byte, KeyBytes)
	} else if len(key) != KeyBytes {
		return nil, errors.New("the diode's key has another length")
	}
	own, err := hkdf.Expand(sha256.New, key, "redoubt diode 1 datagrams", sha256.Size)
	if err != nil {
		return nil, err
	}
	return &tagger{mac: hmac.New(sha256.New, own)}, nil
}

func (t *tagger) tag(datagram []byte) []byte {
	t.mac.Reset()
	t.mac.Write(datagram[tagBytes:])
	return t.mac.Sum(t.sum[:0])[:tagBytes]
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
	if !hmac.Equal(b[:tagBytes], t.tag(b)) {
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
