package carry

import (
	"encoding/binary"
	"errors"

	"redoubt"
)

// The first byte of a datagram. docs/spec/carry.md has the whole format.
const (
	kindOpen    = 0x01 // client: I would like to talk
	kindRetry   = 0x02 // server: prove your address with this cookie
	kindShake   = 0x03 // a piece of the TLS handshake
	kindUnknown = 0x04 // no connection of that ID here
	kindResume  = 0x05 // client: let us go on from where we met last
	kindResumed = 0x06 // server: yes
	kindSealed  = 0x40 // a sealed datagram; the lowest bit is that of the key epoch
)

const wireVersion = 1

// Sizes.
const (
	sealedHeader   = 5       // kind, connection ID
	aeadOverhead   = 12 + 16 // random nonce, tag
	numberSize     = 6       // of a datagram's number
	sealedOverhead = sealedHeader + aeadOverhead + numberSize
	maxDatagram    = 8952 // what a 9,000-byte Ethernet frame takes over IPv4, less a little
	floorDatagram  = 1200 // every IPv6 path takes it: 1,280 less 48, and room for a tunnel
	ipOverhead     = 28   // counted for every datagram, so that rates are those of the link
	maxNumber      = 1<<(8*numberSize) - 1
	laneBits       = 3 // the highest of a datagram's number: by which of the paths it goes
	laneShift      = 8*numberSize - laneBits
	maxLaneNumber  = 1<<laneShift - 1
	pieceOverhead  = 1 + 6 + 2
	ackFixed       = 1 + numberSize + 4 + 2 + 1
	ackBits        = 512
)

// Frames of a sealed datagram.
const (
	framePad       = 0x00 // and nothing but zeros after it
	frameAck       = 0x01
	framePing      = 0x02 // answer at once
	frameProbe     = 0x03 // answer at once, on the path it came by, and stay on yours
	frameWindow    = 0x04 // how far a precedence's stream may go
	frameChallenge = 0x05
	frameResponse  = 0x06
	frameClose     = 0x07
	framePiece     = 0x10 // | precedence
)

// connID names a connection to the side that chose it.
type connID uint32

// ack is what one side says it has received. Bit i of bits, lowest first in each byte, is number
// largest-i; bit 0 is always set.
type ack struct {
	largest    uint64
	receivedAt uint32 // microseconds of the receiver's clock, wrapping, when largest came
	delay      uint16 // in units of ackDelayUnit: how long the receiver sat on it
	bits       []byte // at most ackBits/8
}

// piece is a stretch of one precedence's stream.
type piece struct {
	precedence redoubt.Precedence
	offset     uint64
	data       []byte
}

type window struct {
	precedence redoubt.Precedence
	limit      uint64
}

// contents is a decoded datagram. Slices point into what was decoded.
type contents struct {
	lane       int
	number     uint64 // within the lane
	ack        ack    // of our datagrams of the same lane
	hasAck     bool
	ping       bool
	probe      bool
	closed     bool
	windows    []window
	pieces     []piece
	challenges [][8]byte
	responses  [][8]byte
}

// eliciting tells whether the sender wants to hear that this came.
func (c *contents) eliciting() bool {
	return c.ping || c.probe || len(c.windows) > 0 || len(c.pieces) > 0 || len(c.challenges) > 0 || len(c.responses) > 0
}

var errFormat = errors.New("a datagram that is not of this format")

// Each list of a datagram has a limit, so that what is decoded is never much larger than what came.
const maxOfAKind = 16

// decode reads the plaintext of a sealed datagram strictly into c, whose slices it uses again.
func (c *contents) decode(b []byte) error {
	*c = contents{windows: c.windows[:0], pieces: c.pieces[:0], challenges: c.challenges[:0], responses: c.responses[:0]}
	if len(b) < numberSize {
		return errFormat
	}
	c.lane, c.number = int(uint48(b)>>laneShift), uint48(b)&maxLaneNumber
	b = b[numberSize:]
	for len(b) > 0 {
		rest, err := c.frame(b[0], b[1:])
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// frame reads one frame of a kind and gives what follows it.
func (c *contents) frame(kind byte, b []byte) ([]byte, error) {
	switch kind {
	case framePad:
		for _, x := range b {
			if x != 0 {
				return nil, errFormat
			}
		}
		return nil, nil
	case frameAck:
		return c.ackFrame(b)
	case framePing:
		c.ping = true
		return b, nil
	case frameProbe:
		c.probe = true
		return b, nil
	case frameClose:
		c.closed = true
		return b, nil
	case frameWindow:
		if len(b) < 1+6 || b[0] >= redoubt.Precedences || len(c.windows) == maxOfAKind {
			return nil, errFormat
		}
		c.windows = append(c.windows, window{redoubt.Precedence(b[0]), uint48(b[1:])})
		return b[7:], nil
	case frameChallenge, frameResponse:
		list := &c.challenges
		if kind == frameResponse {
			list = &c.responses
		}
		if len(b) < 8 || len(*list) == maxOfAKind {
			return nil, errFormat
		}
		*list = append(*list, [8]byte(b))
		return b[8:], nil
	case framePiece, framePiece + 1, framePiece + 2, framePiece + 3:
		return c.pieceFrame(redoubt.Precedence(kind-framePiece), b)
	}
	return nil, errFormat
}

func (c *contents) ackFrame(b []byte) ([]byte, error) {
	if c.hasAck || len(b) < ackFixed-1 {
		return nil, errFormat
	}
	a := ack{largest: uint48(b), receivedAt: binary.BigEndian.Uint32(b[6:]), delay: binary.BigEndian.Uint16(b[10:])}
	n := int(b[12])
	b = b[13:]
	if n == 0 || n > ackBits/8 || len(b) < n || b[0]&1 == 0 {
		return nil, errFormat
	}
	a.bits = b[:n]
	if n > 1 && a.bits[n-1] == 0 || highestBit(a.bits) > a.largest || a.largest > maxLaneNumber {
		return nil, errFormat // one encoding for each set, and no number below 0 or past the last
	}
	c.ack, c.hasAck = a, true
	return b[n:], nil
}

func highestBit(bits []byte) uint64 {
	top := len(bits) - 1
	for i := 7; i >= 0; i-- {
		if bits[top]>>i&1 == 1 {
			return uint64(top*8 + i)
		}
	}
	return 0
}

func (c *contents) pieceFrame(p redoubt.Precedence, b []byte) ([]byte, error) {
	if len(b) < pieceOverhead-1 || len(c.pieces) == maxOfAKind {
		return nil, errFormat
	}
	offset, n := uint48(b), int(binary.BigEndian.Uint16(b[6:]))
	b = b[8:]
	if n == 0 || n > len(b) || offset+uint64(n) > maxNumber {
		return nil, errFormat
	}
	c.pieces = append(c.pieces, piece{p, offset, b[:n]})
	return b[n:], nil
}

func appendAck(b []byte, a ack) []byte {
	b = appendUint48(append(b, frameAck), a.largest)
	b = binary.BigEndian.AppendUint32(b, a.receivedAt)
	b = binary.BigEndian.AppendUint16(b, a.delay)
	return append(append(b, byte(len(a.bits))), a.bits...)
}

func appendPieceHeader(b []byte, p redoubt.Precedence, offset uint64, n int) []byte {
	b = appendUint48(append(b, framePiece|byte(p)), offset)
	return binary.BigEndian.AppendUint16(b, uint16(n))
}

func appendWindow(b []byte, w window) []byte {
	return appendUint48(append(b, frameWindow, byte(w.precedence)), w.limit)
}

func uint48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

func appendUint48(b []byte, v uint64) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(v>>32))
	return binary.BigEndian.AppendUint32(b, uint32(v))
}
