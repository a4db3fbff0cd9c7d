package replica

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"redoubt"
)

// The messages of a session; the first byte says which.
const (
	msgHello  = 'h' // who speaks
	msgItems  = 'i' // entries with their content, small ones together
	msgBegin  = 'b' // of a bundle: an entry whose content follows in pieces
	msgPiece  = 'p' // of the content of a begun entry, or of a segment
	msgAck    = 'a' // what became of items
	msgRanges = 'r' // what I have of a label set, in ranges
	msgAnswer = 'R' // how that differs from what the answerer has
	msgNote   = 'n' // what the nodes have to say to one another: a lease, a key, an order

	msgOpen    = 'o' // an entry whose content follows in segments
	msgSegment = 's' // one of them, whose pieces follow
	msgIslands = 'S' // likewise, and the islands that were told are not sent again
	msgAsk     = 'q' // which of these do you lack
	msgLacking = 'Q' // these
)

// Limits of what arrives; each message is at most carry.MaxMessage long.
const (
	protocol       = 2
	MaxNoteBytes   = 256 << 10
	maxName        = 63
	maxProof       = 4 << 10
	maxSetText     = 16 << 10 // the text of a label (label.ParseText)
	maxItems       = 256      // in one message
	maxRanges      = 4096     // in one message
	maxListed      = 64       // stamps of a range that are told singly
	pieceBytes     = 16 << 10 // of content in one message, where nothing is known of the road: what of one has come when a node dies is lost
	leastPiece     = 4 << 10
	mostPieceBytes = 256 << 10
	longPiece      = 32 << 10 // the least to a peer that keeps what has come of one: with a head that is lost, what follows has no place
	togetherBytes  = 32 << 10 // of content that is sent together
	leastTogether  = 8 << 10  // likewise, on a slow road: a message of which only a part has come when a node dies is lost
	togetherItems  = 64
	messageBytes   = 64 << 10 // of entries and content, from which on a message goes: what goes together as a rule, with its entries
	maxWholeBytes  = 8 << 20  // of content that is compressed whole, against its base
	maxPackedBytes = maxWholeBytes + 1<<10
)

// How content is packed.
const (
	packedNone  = iota // there is no content
	packedPlain        // as it is
	packedZstd         // zstd
	packedDelta        // zstd with the content of the entry's base as dictionary
)

var errMessage = errors.New("malformed message")

type hello struct {
	Estate      string
	Node        redoubt.NodeName
	Life        [16]byte // of the speaker's state
	RemembersOf [16]byte // the life of the hearer's state that the speaker's knowledge is of; zero: none
	Kept        []kept   // of the hearer's versions that have not come whole, at most redoubt.MaxArrivals
	Proof       []byte   // what else the speaker shows of itself, at most maxProof bytes; see Options.Proof
}

func (h hello) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgHello)
	b.AddUint8(protocol)
	text8(&b, h.Estate)
	text8(&b, string(h.Node))
	b.AddBytes(h.Life[:])
	b.AddBytes(h.RemembersOf[:])
	b.AddUint8(uint8(len(h.Kept)))
	for i := range h.Kept {
		h.Kept[i].add(&b)
	}
	text16(&b, h.Proof)
	return b.BytesOrPanic()
}

func decodeHello(msg []byte) (h hello, err error) {
	s := cryptobyte.String(msg)
	var kind, version, n uint8
	var estate, node cryptobyte.String
	if !s.ReadUint8(&kind) || kind != msgHello || !s.ReadUint8(&version) {
		return h, errMessage
	}
	if version != protocol {
		return h, errors.New("the peer speaks another version of the protocol")
	}
	if !s.ReadUint8LengthPrefixed(&estate) || !s.ReadUint8LengthPrefixed(&node) || len(node) > maxName ||
		!s.CopyBytes(h.Life[:]) || !s.CopyBytes(h.RemembersOf[:]) || !s.ReadUint8(&n) || n > redoubt.MaxArrivals {
		return h, errMessage
	}
	h.Kept = make([]kept, n)
	for i := range h.Kept {
		if !h.Kept[i].read(&s) {
			return h, errMessage
		}
	}
	var proof cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&proof) || len(proof) > maxProof || !s.Empty() {
		return h, errMessage
	}
	h.Estate, h.Node, h.Proof = string(estate), redoubt.NodeName(node), proof
	return h, nil
}

func text8(b *cryptobyte.Builder, s string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

func text16(b *cryptobyte.Builder, s []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s) })
}

// parcel is one entry in a message. Custody is empty where the message's batch signature speaks for it.
type parcel struct {
	Seq     uint64
	Entry   []byte
	Custody []byte
	Packing uint8
	Content []byte // packed
}

// items is a message of small entries of one label set. Those without a custody of their own are, all of them and in this
// order, one batch of the sender's under Signature: the receiver works out root and paths itself.
type items struct {
	Set       string
	Signature []byte // 64 bytes; empty: every parcel has its custody
	Parcels   []parcel
}

func (m items) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgItems)
	text16(&b, []byte(m.Set))
	text8(&b, string(m.Signature))
	b.AddUint16(uint16(len(m.Parcels)))
	for i := range m.Parcels {
		m.Parcels[i].add(&b)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.Parcels[i].Content) })
	}
	return b.BytesOrPanic()
}

func (p *parcel) add(b *cryptobyte.Builder) {
	b.AddUint64(p.Seq)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(p.Entry) })
	text16(b, p.Custody)
	b.AddUint8(p.Packing)
}

func (p *parcel) read(s *cryptobyte.String) bool {
	var entry, custody cryptobyte.String
	if !s.ReadUint64(&p.Seq) || !s.ReadUint24LengthPrefixed(&entry) || len(entry) > redoubt.MaxEntryBytes ||
		!s.ReadUint16LengthPrefixed(&custody) || !s.ReadUint8(&p.Packing) || p.Packing > packedDelta {
		return false
	}
	p.Entry, p.Custody = entry, custody
	return true
}

func decodeItems(msg []byte) (m items, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	var set, sig cryptobyte.String
	var n uint16
	if !s.ReadUint8(&kind) || kind != msgItems || !s.ReadUint16LengthPrefixed(&set) || len(set) > maxSetText ||
		!s.ReadUint8LengthPrefixed(&sig) || len(sig) != 0 && len(sig) != 64 || !s.ReadUint16(&n) || n == 0 || n > maxItems {
		return m, errMessage
	}
	m.Set, m.Signature = string(set), sig
	m.Parcels = make([]parcel, n)
	for i := range m.Parcels {
		p := &m.Parcels[i]
		var content cryptobyte.String
		if !p.read(&s) || !s.ReadUint24LengthPrefixed(&content) {
			return m, errMessage
		}
		p.Content = content
	}
	if !s.Empty() {
		return m, errMessage
	}
	return m, nil
}

// begin announces an entry whose content follows.
type begin struct {
	Set    string
	Parcel parcel // with custody, without content
	Bytes  int64  // of packed content that follow
}

func (m begin) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgBegin)
	text16(&b, []byte(m.Set))
	m.Parcel.add(&b)
	b.AddUint64(uint64(m.Bytes))
	return b.BytesOrPanic()
}

func decodeBegin(msg []byte) (m begin, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	var set cryptobyte.String
	var n uint64
	if !s.ReadUint8(&kind) || kind != msgBegin || !s.ReadUint16LengthPrefixed(&set) || len(set) > maxSetText ||
		!m.Parcel.read(&s) || !s.ReadUint64(&n) || n > 1<<62 || !s.Empty() {
		return m, errMessage
	}
	m.Set, m.Bytes = string(set), int64(n)
	return m, nil
}

func appendPiece(dst []byte, seq uint64, content []byte) []byte {
	return append(binary.BigEndian.AppendUint64(append(dst, msgPiece), seq), content...)
}

func decodePiece(msg []byte) (seq uint64, content []byte, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	if !s.ReadUint8(&kind) || kind != msgPiece || !s.ReadUint64(&seq) || s.Empty() {
		return 0, nil, errMessage
	}
	return seq, s, nil
}

// outcome is what became of one item.
type outcome struct {
	Seq   uint64
	State uint8
	Kind  redoubt.Kind
	Rule  string
}

// The states of an outcome.
const (
	taken     = iota // durable, or held already
	refused          // for good
	refusedAt        // for now
	needsBase        // packed against a version that is not here
)

func encodeAck(all []outcome) []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgAck)
	for _, o := range all {
		b.AddUint64(o.Seq)
		b.AddUint8(o.State)
		if o.State == refused || o.State == refusedAt {
			b.AddUint8(uint8(o.Kind))
			text8(&b, o.Rule[:min(len(o.Rule), 255)])
		}
	}
	return b.BytesOrPanic()
}

func decodeAck(msg []byte) (all []outcome, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	if !s.ReadUint8(&kind) || kind != msgAck {
		return nil, errMessage
	}
	for !s.Empty() {
		var o outcome
		if !s.ReadUint64(&o.Seq) || !s.ReadUint8(&o.State) || o.State > needsBase {
			return nil, errMessage
		}
		if o.State == refused || o.State == refusedAt {
			var k uint8
			var rule cryptobyte.String
			if !s.ReadUint8(&k) || !s.ReadUint8LengthPrefixed(&rule) {
				return nil, errMessage
			}
			o.Kind, o.Rule = redoubt.Kind(k), string(rule)
		}
		all = append(all, o)
	}
	return all, nil
}

func encodeNote(kind string, body []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgNote)
	text8(&b, kind)
	b.AddBytes(body)
	return b.BytesOrPanic()
}

func decodeNote(msg []byte) (kind string, body []byte, err error) {
	s := cryptobyte.String(msg)
	var k uint8
	var name cryptobyte.String
	if !s.ReadUint8(&k) || k != msgNote || !s.ReadUint8LengthPrefixed(&name) || len(s) > MaxNoteBytes {
		return "", nil, errMessage
	}
	return string(name), s, nil
}

// span is a range of stamps, [From, To), and what the sender has in it: its count and fingerprint, or
// (in an answer) the stamps themselves.
type span struct {
	From, To    redoubt.Stamp // To is the zero stamp: to the end
	Count       uint32
	Fingerprint [16]byte
	Listed      bool
	Stamps      []redoubt.Stamp
}

func (s span) holds(x redoubt.Stamp) bool {
	return bytes.Compare(x[:], s.From[:]) >= 0 && (s.To == redoubt.Stamp{} || bytes.Compare(x[:], s.To[:]) < 0)
}

// spans is a msgRanges or a msgAnswer.
type spans struct {
	Set   string
	First bool // of this reconciliation: the answerer looks at its set anew
	Spans []span
}

func (m spans) encode(kind byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(kind)
	text16(&b, []byte(m.Set))
	b.AddUint8(flag(m.First))
	b.AddUint16(uint16(len(m.Spans)))
	for i := range m.Spans {
		s := &m.Spans[i]
		b.AddBytes(s.From[:])
		b.AddBytes(s.To[:])
		b.AddUint8(flag(s.Listed))
		if !s.Listed {
			b.AddUint32(s.Count)
			b.AddBytes(s.Fingerprint[:])
			continue
		}
		b.AddUint16(uint16(len(s.Stamps)))
		for _, x := range s.Stamps {
			b.AddBytes(x[:])
		}
	}
	return b.BytesOrPanic()
}

func flag(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

func decodeSpans(kind byte, msg []byte) (m spans, err error) {
	s := cryptobyte.String(msg)
	var k, first uint8
	var set cryptobyte.String
	var n uint16
	if !s.ReadUint8(&k) || k != kind || !s.ReadUint16LengthPrefixed(&set) || len(set) > maxSetText || !s.ReadUint8(&first) || first > 1 ||
		!s.ReadUint16(&n) || n > maxRanges {
		return m, errMessage
	}
	m.Set, m.First, m.Spans = string(set), first == 1, make([]span, n)
	for i := range m.Spans {
		if !m.Spans[i].read(&s) {
			return m, errMessage
		}
	}
	if !s.Empty() {
		return m, errMessage
	}
	return m, nil
}

func (x *span) read(s *cryptobyte.String) bool {
	var listed uint8
	if !s.CopyBytes(x.From[:]) || !s.CopyBytes(x.To[:]) || !s.ReadUint8(&listed) || listed > 1 {
		return false
	}
	if x.Listed = listed == 1; !x.Listed {
		return s.ReadUint32(&x.Count) && s.CopyBytes(x.Fingerprint[:])
	}
	var n uint16
	if !s.ReadUint16(&n) || n > maxListed {
		return false
	}
	x.Stamps = make([]redoubt.Stamp, n)
	for i := range x.Stamps {
		if !s.CopyBytes(x.Stamps[i][:]) {
			return false
		}
	}
	return true
}
