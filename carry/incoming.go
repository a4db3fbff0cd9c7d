package carry

import (
	"encoding/binary"
	"errors"

	"redoubt"
)

// streamWindow is how far one precedence's stream may run ahead of what was received from the
// Conn: it bounds the memory that a peer can make us hold to that and half as much for each precedence, twice while a buffer
// grows. It takes more than one whole message, so that the next flows while one waits.
const streamWindow = 2 << 20

// maxGaps is how many stretches of one stream may stand apart: a bound on what a peer can make us
// keep account of. A piece that would open another is dropped, and is sent again.
const maxGaps = 1024

// incoming is one precedence's stream on the receiving side.
type incoming struct {
	base     uint64 // offset of buf[0]: everything before it stands in ready or was received
	buf      []byte
	whole    []byte // what buf is the end of
	got      spans  // what of buf is there
	ready    [][]byte
	consumed uint64 // bytes of stream that were received from the Conn
	told     uint64 // the limit that the peer was told last
}

func (in *incoming) init() { in.told = streamWindow }

var (
	errWindow  = errors.New("the peer sent more than it was allowed to")
	errMessage = errors.New("the peer sent a message of no allowed length")
)

// limit is how far the peer may go now.
func (in *incoming) limit() uint64 { return in.consumed + streamWindow }

// put takes a piece. taken is false when it could not be kept and must not be acknowledged.
func (in *incoming) put(offset uint64, data []byte) (taken bool, err error) {
	end := offset + uint64(len(data))
	if end > in.told {
		return false, errWindow
	}
	if end <= in.base || in.got.has(offset, end) {
		return true, nil // a repeat
	}
	if offset < in.base {
		data = data[in.base-offset:]
		offset = in.base
	}
	if len(in.got) >= maxGaps && offset != in.got.prefix(in.base) {
		return false, nil
	}
	if need := int(end - in.base); need > len(in.buf) {
		in.grow(need)
	}
	copy(in.buf[offset-in.base:], data)
	in.got.add(offset, end)
	return true, in.cut()
}

// grow makes buf n bytes long; what it has beyond its old end is not said. Room that was cut off its front is used again once that is a
// third of the whole: so a stream that flows is copied about once, and asks for no memory.
func (in *incoming) grow(n int) {
	if n <= cap(in.buf) {
		in.buf = in.buf[:n]
		return
	}
	whole := in.whole
	if n > len(whole)/3*2 {
		whole = make([]byte, max(n+n/2, leastBuffer))
	}
	copy(whole, in.buf)
	in.whole, in.buf = whole, whole[:n]
}

const leastBuffer = 16 << 10

// cut moves whole messages from the front of buf to ready.
func (in *incoming) cut() error {
	have := in.got.prefix(in.base)
	for have-in.base >= lengthSize {
		n := uint64(binary.BigEndian.Uint32(in.buf))
		if n == 0 || n > MaxMessage {
			return errMessage
		}
		if have-in.base < lengthSize+n {
			break
		}
		msg := message(int(n))
		copy(msg, in.buf[lengthSize:])
		in.ready = append(in.ready, msg)
		in.buf = in.buf[lengthSize+n:]
		in.base += lengthSize + n
	}
	in.got.drop(in.base)
	if len(in.buf) == 0 {
		in.buf, in.whole = nil, nil
	}
	return nil
}

// receive gives the next whole message, or nil.
func (in *incoming) receive() []byte {
	if len(in.ready) == 0 {
		return nil
	}
	msg := in.ready[0]
	in.ready[0] = nil
	in.ready = in.ready[1:]
	in.consumed += uint64(lengthSize + len(msg))
	return msg
}

// maxComing is of how many messages that are not handed on yet something is shown: a bound on the work, not a need.
const maxComing = 256

// coming calls each for what is there of the messages that receive has not given, as far as their lengths are known; see link.Coming.
func (in *incoming) coming(each func(n, length, at int, data []byte)) {
	n := 0
	for ; n < len(in.ready) && n < maxComing; n++ {
		each(n, len(in.ready[n]), 0, in.ready[n])
	}
	for base := in.base; n < maxComing && in.got.has(base, base+lengthSize); n++ {
		length := uint64(binary.BigEndian.Uint32(in.buf[base-in.base:]))
		if length == 0 || length > MaxMessage {
			return // the connection ends of it when it is that message's turn
		}
		from, to := base+lengthSize, base+lengthSize+length
		each(n, int(length), 0, nil)
		for i := in.got.search(from + 1); i < len(in.got) && in.got[i].from < to; i++ {
			a, b := max(in.got[i].from, from), min(in.got[i].to, to)
			each(n, int(length), int(a-from), in.buf[a-in.base:b-in.base])
		}
		base = to
	}
}

// owes tells whether the peer should hear of a wider window: not for every message.
func (in *incoming) owes() bool { return in.limit()-in.told >= streamWindow/8 }

// inbox is the four streams that come in.
type inbox [redoubt.Precedences]incoming

// receive gives a whole message of the highest precedence that has one.
func (b *inbox) receive() (p redoubt.Precedence, msg []byte) {
	for i := len(b) - 1; i >= 0; i-- {
		if msg := b[i].receive(); msg != nil {
			return redoubt.Precedence(i), msg
		}
	}
	return 0, nil
}
