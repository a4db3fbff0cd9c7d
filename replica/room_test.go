package replica

import (
	"bytes"
	"testing"
)

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
		leave(make([]byte, maxSegment))
		if b := room(firstRoom / 2); len(b) != 0 || cap(b) > settlingBytes {
			t.Fatalf("a segment of %d bytes has a room of %d", firstRoom/2, cap(b))
		}
	}
}

// TestALargeSegmentShowsNothingOfAnother has segments come in rooms that are full of something else, a gap in the middle: what may be kept of them is
// what came.
func TestALargeSegmentShowsNothingOfAnother(t *testing.T) {
	const gap = 1000
	for range 20 {
		for _, size := range []int{firstRoom + gap + 300, settlingBytes, maxSegment/2 + 1, maxSegment} {
			used := make([]byte, maxSegment)
			for i := range used {
				used[i] = 0xee
			}
			leave(used)
			var x assembly
			x.begin(size)
			x.piece(make([]byte, firstRoom))
			x.show(gap, make([]byte, size-firstRoom-gap))
			if cap(x.b) > max(size, maxSegment) {
				t.Fatalf("a segment of %d bytes has a room of %d", size, cap(x.b))
			}
			part, islands := x.unkept(nil, true)
			if len(part.Bytes) != firstRoom {
				t.Fatalf("of a segment of %d bytes a part of %d may be kept, want %d", size, len(part.Bytes), firstRoom)
			}
			for _, s := range append(islands, part) {
				if at := bytes.IndexFunc(s.Bytes, func(r rune) bool { return r != 0 }); at >= 0 {
					t.Fatalf("of a segment of %d bytes what begins at %d has another's byte at %d", size, s.From, at)
				}
			}
			if len(islands) != 1 {
				t.Fatalf("of a segment of %d bytes %d islands may be kept, want 1", size, len(islands))
			}
			leave(x.b)
		}
	}
}

// TestOfASegmentThatIsGoneOnFromLittleIsHeld has a part of which little is there get a little more.
func TestOfASegmentThatIsGoneOnFromLittleIsHeld(t *testing.T) {
	var x assembly
	x.b = make([]byte, 600)
	x.have.add(0, 600)
	x.begin(maxSegment)
	if x.piece([]byte{1}); cap(x.b) > firstRoom {
		t.Errorf("601 bytes stand in a room of %d", cap(x.b))
	}
}

// TestALargeRoomIsUsedAgain: the pool forgets now and then, and under the race detector at random.
func TestALargeRoomIsUsedAgain(t *testing.T) {
	for range 1000 {
		first := larger(make([]byte, firstRoom), firstRoom+1, maxSegment)
		at := &first[0]
		leave(first)
		if second := larger(make([]byte, firstRoom), firstRoom+1, maxSegment); &second[0] == at {
			return
		}
	}
	t.Error("none of 1,000 was")
}
