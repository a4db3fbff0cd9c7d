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

// TestALargeSegmentTakesTheRoomOfAnother has segments of several sizes grow, and looks for their first bytes in them.
func TestALargeSegmentTakesTheRoomOfAnother(t *testing.T) {
	for round := range 20 {
		for _, size := range []int{firstRoom + 1, settlingBytes, maxSegment/2 + 1, maxSegment} {
			var x assembly
			x.begin(size)
			first, rest := make([]byte, firstRoom-100), make([]byte, size-firstRoom+100)
			for i := range first {
				first[i] = byte(round + 1)
			}
			x.piece(first)
			x.piece(rest)
			if len(x.b) != size || cap(x.b) > max(size, maxSegment) {
				t.Fatalf("a segment of %d bytes has %d, in a room of %d", size, len(x.b), cap(x.b))
			}
			for i, b := range x.b {
				if want := byte(round + 1); (i < len(first)) != (b == want) || b != want && b != 0 {
					t.Fatalf("of a segment of %d bytes byte %d is %d", size, i, b)
				}
			}
			leave(x.b)
		}
	}
}
