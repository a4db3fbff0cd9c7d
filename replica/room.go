package replica

import "sync"

// rooms are buffers of a segment that came: on a fast link the collector would spend a third of the processor on finding them again.
var rooms sync.Pool

// firstRoom is made for a segment when its first piece has come: what it will be is only announced.
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

// leave gives a buffer up that nobody looks at any more.
func leave(b []byte) {
	if cap(b) >= firstRoom {
		rooms.Put(&b)
	}
}
