package carry

import "testing"

func init() {
	spoil = func(msg []byte) {
		for i := range msg {
			msg[i] ^= 0xff
		}
	}
}

// What a peer may make us hold is counted in the bytes of its messages: large buffers that were given back do not stand behind small ones.
func TestABufferThatIsUsedAgainIsNotMuchLargerThanItsMessage(t *testing.T) {
	for range 100 {
		recycle(make([]byte, MaxMessage))
		if b := message(leastKept); len(b) != leastKept || cap(b) > 2*leastKept {
			t.Fatalf("a message of %d bytes lies in %d", leastKept, cap(b))
		}
	}
}
