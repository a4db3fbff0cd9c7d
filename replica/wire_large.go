package replica

import (
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"

	"redoubt"
)

// opening announces an entry whose content follows in segments.
type opening struct {
	Set    string
	Parcel parcel // with custody, without content
	From   int64  // of the content, where the first segment begins: what is before is kept
}

func (m opening) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgOpen)
	text16(&b, []byte(m.Set))
	m.Parcel.add(&b)
	b.AddUint64(uint64(m.From))
	return b.BytesOrPanic()
}

func decodeOpening(msg []byte) (m opening, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	var set cryptobyte.String
	var from uint64
	if !s.ReadUint8(&kind) || kind != msgOpen || !s.ReadUint16LengthPrefixed(&set) || len(set) > maxSetText ||
		!m.Parcel.read(&s) || m.Parcel.Packing != packedNone || len(m.Parcel.Custody) == 0 ||
		!s.ReadUint64(&from) || from > redoubt.MaxObjectBytes || from%segmentBytes != 0 || !s.Empty() {
		return m, errMessage
	}
	m.Set, m.From = string(set), int64(from)
	return m, nil
}

// segment announces the pieces of one segment.
type segment struct {
	Seq     uint64
	Packing uint8
	Bytes   uint32   // packed
	Skip    uint32   // of them, which are kept
	Islands bool     // those that the receiver told are kept too, and do not follow
	Of      [16]byte // which: their digest, as the sender found it
}

func (m segment) encode() []byte {
	var b cryptobyte.Builder
	if m.Islands {
		b.AddUint8(msgIslands)
	} else {
		b.AddUint8(msgSegment)
	}
	b.AddUint64(m.Seq)
	b.AddUint8(m.Packing)
	b.AddUint32(m.Bytes)
	b.AddUint32(m.Skip)
	if m.Islands {
		b.AddBytes(m.Of[:])
	}
	return b.BytesOrPanic()
}

func decodeSegment(msg []byte) (m segment, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	if !s.ReadUint8(&kind) || kind != msgSegment && kind != msgIslands || !s.ReadUint64(&m.Seq) || !s.ReadUint8(&m.Packing) ||
		m.Packing == packedNone || m.Packing > packedChunks || !s.ReadUint32(&m.Bytes) || m.Bytes == 0 || m.Bytes > maxSegment ||
		!s.ReadUint32(&m.Skip) || m.Skip > m.Bytes {
		return m, errMessage
	}
	if m.Islands = kind == msgIslands; m.Islands && !s.CopyBytes(m.Of[:]) || !s.Empty() {
		return m, errMessage
	}
	return m, nil
}

// headed is a segment as a part of it is kept: what it is packed in behind how, and how long that is.
func headed(packing uint8, size uint32, packed []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{packing}, size), packed...)
}

// partDigest is the digest of a segment's head and its first bytes.
func partDigest(packing uint8, packed []byte, skip int) []byte {
	sum := sha256.Sum256(headed(packing, uint32(len(packed)), packed[:skip]))
	return sum[:]
}

// kept is what a hello says of an arrival; its islands are told before it.
type kept struct {
	redoubt.Arrival
	of [16]byte // the islands' digest, as the peer tells it; theirs are not known
}

func (k *kept) add(b *cryptobyte.Builder) {
	text16(b, []byte(k.Set))
	b.AddBytes(k.Stamp[:])
	b.AddUint64(uint64(k.Whole))
	b.AddUint32(uint32(k.Part))
	b.AddBytes(k.Digest[:])
}

func (k *kept) read(s *cryptobyte.String) bool {
	var set cryptobyte.String
	var whole uint64
	var part uint32
	if !s.ReadUint16LengthPrefixed(&set) || len(set) > maxSetText || !s.CopyBytes(k.Stamp[:]) || !s.ReadUint64(&whole) ||
		whole > redoubt.MaxObjectBytes || whole%segmentBytes != 0 || !s.ReadUint32(&part) || part > segmentHead+maxSegment || !s.CopyBytes(k.Digest[:]) {
		return false
	}
	k.Set, k.Whole, k.Part = string(set), int64(whole), int64(part)
	return true
}

// inquiry asks which of some stamps of a set are not there.
type inquiry struct {
	Set    string
	Stamps []redoubt.Stamp
}

func (m inquiry) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgAsk)
	text16(&b, []byte(m.Set))
	for _, x := range m.Stamps {
		b.AddBytes(x[:])
	}
	return b.BytesOrPanic()
}

func decodeInquiry(msg []byte) (m inquiry, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	var set cryptobyte.String
	if !s.ReadUint8(&kind) || kind != msgAsk || !s.ReadUint16LengthPrefixed(&set) || len(set) > maxSetText ||
		s.Empty() || len(s)%len(redoubt.Stamp{}) != 0 || len(s)/len(redoubt.Stamp{}) > pageEntries {
		return m, errMessage
	}
	m.Set, m.Stamps = string(set), make([]redoubt.Stamp, len(s)/len(redoubt.Stamp{}))
	for i := range m.Stamps {
		s.CopyBytes(m.Stamps[i][:])
	}
	return m, nil
}

// encodeLacking answers an inquiry: a bit for each stamp, the first the lowest of its byte, set where it is not there.
func encodeLacking(asked, lacks []redoubt.Stamp) []byte {
	b := make([]byte, 1+(len(asked)+7)/8)
	b[0] = msgLacking
	for i, x := range asked {
		if len(lacks) > 0 && lacks[0] == x {
			b[1+i/8] |= 1 << (i % 8)
			lacks = lacks[1:]
		}
	}
	return b
}

// decodeLacking reads the answer about n stamps.
func decodeLacking(msg []byte, n int) (lacks []bool, err error) {
	if len(msg) != 1+(n+7)/8 || msg[0] != msgLacking || n%8 != 0 && msg[len(msg)-1]>>(n%8) != 0 {
		return nil, errMessage
	}
	lacks = make([]bool, n)
	for i := range lacks {
		lacks[i] = msg[1+i/8]>>(i%8)&1 == 1
	}
	return lacks, nil
}
