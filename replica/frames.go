package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/crypto/cryptobyte"

	"redoubt"
)

// What a bundle holds is the messages of a session (wire.go), each behind its length, with three of its own.
const (
	msgManifest = 'm' // first: who writes, in which life, and what was taken of the reader's
	msgMark     = 't' // a ticket for all that came before it in a label set
	msgEnd      = 'e' // last; zeros follow up to a multiple of padBytes
)

// Limits of what a bundle holds.
const (
	bundleProtocol = 1
	maxFrame       = 4 << 20   // 256 entries, and what is sent together
	maxTickets     = 4096      // label sets of one bundle; the rest goes into the next
	bundleItems    = maxItems  // entries in one message
	bundleTogether = 256 << 10 // of packed content and entries in one message, before the one that passes it
	bundlePiece    = 1 << 20   // of content in one piece
	maxNotes       = 16        // of one bundle, before anything else
	padBytes       = 64 << 10  // so that a size tells little of what is small
)

// manifest begins a bundle's content.
type manifest struct {
	Life        [16]byte // of the maker's state
	RemembersOf [16]byte // the life of the reader's state that the maker's knowledge is of; zero: none
	Took        uint64   // the number of the reader's last bundle that the maker took
	Lacking     bool     // in it was what the maker cannot unpack
	Tickets     [][]byte // of it
}

func (m *manifest) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgManifest)
	b.AddUint8(bundleProtocol)
	b.AddBytes(m.Life[:])
	b.AddBytes(m.RemembersOf[:])
	b.AddUint64(m.Took)
	b.AddUint8(flag(m.Lacking))
	b.AddUint16(uint16(len(m.Tickets)))
	for _, t := range m.Tickets {
		text16(&b, t)
	}
	return b.BytesOrPanic()
}

func decodeManifest(msg []byte) (m manifest, err error) {
	s := cryptobyte.String(msg)
	var kind, version, lacking uint8
	var n uint16
	if !s.ReadUint8(&kind) || kind != msgManifest || !s.ReadUint8(&version) {
		return m, errMessage
	}
	if version != bundleProtocol {
		return m, errors.New("the bundle's content is of another version of the protocol")
	}
	if !s.CopyBytes(m.Life[:]) || m.Life == [16]byte{} || !s.CopyBytes(m.RemembersOf[:]) || !s.ReadUint64(&m.Took) ||
		!s.ReadUint8(&lacking) || lacking > 1 || !s.ReadUint16(&n) || n > maxTickets {
		return m, errMessage
	}
	m.Lacking = lacking == 1
	for range n {
		var t cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&t) || len(t) == 0 || len(t) > redoubt.MaxTicketBytes {
			return m, errMessage
		}
		m.Tickets = append(m.Tickets, t)
	}
	if !s.Empty() {
		return m, errMessage
	}
	return m, nil
}

// mark is a msgMark.
type mark struct {
	Set    string
	Ticket []byte
}

func (m mark) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint8(msgMark)
	text16(&b, []byte(m.Set))
	text16(&b, m.Ticket)
	return b.BytesOrPanic()
}

func decodeMark(msg []byte) (m mark, err error) {
	s := cryptobyte.String(msg)
	var kind uint8
	var set, ticket cryptobyte.String
	if !s.ReadUint8(&kind) || kind != msgMark || !s.ReadUint16LengthPrefixed(&set) || len(set) > maxSetText ||
		!s.ReadUint16LengthPrefixed(&ticket) || len(ticket) == 0 || len(ticket) > redoubt.MaxTicketBytes || !s.Empty() {
		return m, errMessage
	}
	return mark{Set: string(set), Ticket: ticket}, nil
}

// frameWriter writes messages, each behind its length.
type frameWriter struct {
	w     io.Writer
	bytes int64
}

func (f *frameWriter) write(msg []byte) error { return f.parts(msg, nil) }

// piece writes a msgPiece of content, which is not copied for it.
func (f *frameWriter) piece(seq uint64, content []byte) error {
	return f.parts(binary.BigEndian.AppendUint64([]byte{msgPiece}, seq), content)
}

// parts writes a message that lies in two.
func (f *frameWriter) parts(msg, rest []byte) error {
	if n := len(msg) + len(rest); n == 0 || n > maxFrame {
		return &redoubt.Error{Op: "replica.Export", Kind: redoubt.TooLarge, Err: errors.New("a message is larger than a bundle's may be")}
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(msg)+len(rest)))
	for _, b := range [][]byte{head, msg, rest} {
		if _, err := f.w.Write(b); err != nil {
			return err
		}
		f.bytes += int64(len(b))
	}
	return nil
}

// end writes the end, and zeros.
func (f *frameWriter) end() error {
	if err := f.write([]byte{msgEnd}); err != nil {
		return err
	}
	_, err := f.w.Write(make([]byte, (padBytes-f.bytes%padBytes)%padBytes))
	return err
}

// frameReader reads messages until the end. A message is valid until the next is read, unless all are in memory.
type frameReader struct {
	r     io.Reader
	held  []byte // what is left, where all of it is in memory; r is nil then
	bytes int64
	buf   []byte
}

var errCut = errors.New("the content ends early")

func (f *frameReader) next() ([]byte, error) {
	head, err := f.read(4)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head))
	if n == 0 || n > maxFrame {
		return nil, errMessage
	}
	return f.read(n)
}

// read gives the next n bytes.
func (f *frameReader) read(n int) (b []byte, err error) {
	if f.r == nil {
		if n > len(f.held) {
			return nil, errCut
		}
		b, f.held = f.held[:n:n], f.held[n:]
	} else {
		if cap(f.buf) < n {
			f.buf = make([]byte, n)
		}
		b = f.buf[:n]
		_, err = io.ReadFull(f.r, b)
	}
	f.bytes += int64(n)
	return b, cut(err)
}

// lasting is a message that stays as it is.
func (f *frameReader) lasting(msg []byte) []byte {
	if f.r == nil {
		return msg
	}
	return bytes.Clone(msg)
}

// finish reads what follows the end: zeros, fewer than padBytes.
func (f *frameReader) finish() error {
	rest, err := f.held, error(nil)
	if f.r != nil {
		if rest, err = io.ReadAll(io.LimitReader(f.r, padBytes+1)); err != nil {
			return err
		}
	}
	if want := int((padBytes - f.bytes%padBytes) % padBytes); len(rest) != want {
		return errMessage
	}
	for _, b := range rest {
		if b != 0 {
			return errMessage
		}
	}
	return nil
}

func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCut
	}
	return err
}
