package replica

import "sync"

// rooms are buffers of segments that came, of up to settlingBytes, and largeRooms those of more than half of maxSegment, as all but the last of a large
// content are: on a fast link the collector would spend a third of the processor on finding them again.
var rooms, largeRooms sync.Pool

// firstRoom is made for a segment when its first piece has come: what it will be is only announced. Once that is full there is room for all of it: a peer
// can have one of maxSegment held for each precedence, whatever it sends.
const firstRoom = 1 << 20

// room is an empty buffer for n bytes, or for the first of them.
func room(n int64) []byte {
	if n >= firstRoom/2 {
		if b, ok := rooms.Get().(*[]byte); ok {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, min(n, firstRoom))
}

// larger is a buffer for end bytes or more of a segment of which the first fill the one that it had, which is left: for all of it, unless little of it was
// there before. How large it is is not known while what was kept of it is laid down.
func larger(b []byte, end, size int) (out []byte) {
	n := max(end, size)
	if end <= firstRoom {
		n = max(end, min(size, firstRoom))
	}
	if n <= maxSegment/2 {
		out = make([]byte, len(b), n)
	} else if held, ok := largeRooms.Get().(*[]byte); ok {
		out = (*held)[:len(b)]
	} else {
		out = make([]byte, len(b), maxSegment)
	}
	copy(out, b)
	leave(b)
	return out
}

// leave gives a buffer up that nobody looks at any more. What stands in a room for a small segment is no more than settlingBytes says.
func leave(b []byte) {
	spoil(b)
	switch n := cap(b); {
	case n >= maxSegment:
		largeRooms.Put(&b)
	case n >= firstRoom && n <= settlingBytes:
		rooms.Put(&b)
	}
}

// spoil is for tests: it has whoever still looks at a buffer that was left be found out.
var spoil = func([]byte) {}
