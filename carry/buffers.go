package carry

import "sync"

// messages are buffers that held a message and are not looked at any more: a fast link moves hundreds of megabytes a second through them, and a
// collector that had to find each of them again would take a third of the processor.
var messages sync.Pool

// leastKept is the least buffer that is kept: smaller ones cost next to nothing.
const leastKept = 16 << 10

// message is a buffer of n bytes. What is in it is not said.
func message(n int) []byte {
	if n >= leastKept {
		if b, ok := messages.Get().(*[]byte); ok && cap(*b) >= n {
			return (*b)[:n]
		}
	}
	return make([]byte, n)
}

// recycle keeps a buffer that nobody looks at any more for a message to come.
func recycle(msg []byte) {
	if cap(msg) >= leastKept {
		messages.Put(&msg)
	}
}
