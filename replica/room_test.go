package replica

import "testing"

func init() {
	spoil = func(b []byte) {
		for i := range b {
			b[i] ^= 0xff
		}
	}
}

func TestARoomThatIsUsedAgainIsWithinWhatIsCounted(t *testing.T) {
	for range 100 {
		leave(make([]byte, segmentBytes))
		if b := room(firstRoom / 2); len(b) != 0 || cap(b) > settlingBytes {
			t.Fatalf("a segment of %d bytes has a room of %d", firstRoom/2, cap(b))
		}
	}
}
