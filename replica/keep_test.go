package replica

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"redoubt"
)

// pieced keeps a part in so many pieces at most.
type pieced struct {
	holder
	most int
	at   []int // where each went on
}

func (p *pieced) KeepPart(ctx context.Context, peer redoubt.NodeName, in redoubt.Received, part redoubt.Stretch, islands []redoubt.Stretch) (*redoubt.Refusal, error) {
	if part.From == 0 {
		p.at, p.islands = nil, nil
	}
	if len(p.at) == p.most {
		return nil, &redoubt.Error{Op: "KeepPart", Kind: redoubt.TooLarge}
	}
	p.at = append(p.at, int(part.From))
	return p.holder.KeepPart(ctx, peer, in, part, islands)
}

// keeping is a receiver of a segment of 100,000 bytes from a peer that knows islands, or none.
func keeping(t *testing.T, islands bool) (s *Session, p *pieced, road *ahead) {
	p, road = &pieced{most: 3}, new(ahead)
	s = New(Options{Node: "outpost", Peer: "secret", Journal: p, Conn: road})
	s.islands = islands
	for _, m := range [][]byte{openedWith(t, 100_000, 0), segment{Seq: 7, Packing: packedPlain, Bytes: 100_000}.encode()} {
		if err := s.serve(t.Context(), redoubt.Routine, m); err != nil {
			t.Fatal(err)
		}
	}
	return s, p, road
}

// TestAPartOfAsManyPiecesAsMayBeGoesOnAsOne: on a road where each meeting brings little, a segment comes in many; it comes to its end all the same.
func TestAPartOfAsManyPiecesAsMayBeGoesOnAsOne(t *testing.T) {
	s, p, road := keeping(t, true)
	packed := random(1, 100_000)
	a := s.begun[redoubt.Routine]
	behind := appendPiece(nil, 7, packed[48_000:50_000])
	for i, want := range [][]int{{0}, {0, 8005}, {0, 8005, 16_005}, {0}, {0, 32_005}} {
		if err := s.serve(t.Context(), redoubt.Routine, appendPiece(nil, 7, packed[8000*i:8000*(i+1)])); err != nil {
			t.Fatal(err)
		}
		if i == 2 { // the next piece has only its head, and behind it some of another is there
			next := appendPiece(nil, 7, packed[24_000:48_000])
			road.coming[redoubt.Routine] = []come{{0, len(next), 0, next[:9]}, {1, len(behind), 0, behind}}
			s.look()
		}
		if err := s.keepPart(t.Context(), a, minPart); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.at, want) {
			t.Fatalf("after %d pieces the part is kept from %v on, want %v", i+1, p.at, want)
		}
	}
	if !bytes.Equal(p.part, headed(packedPlain, 100_000, packed[:40_000])) {
		t.Error("what is kept is not of the segment")
	}
	if len(p.islands) != 1 || p.islands[0].From != segmentHead+48_000 || !bytes.Equal(p.islands[0].Bytes, packed[48_000:50_000]) {
		t.Errorf("%d islands are kept", len(p.islands))
	}
}

// TestWhatMayNotBeKeptMakesNoSmallPieces: a peer of an earlier version is not told of islands, so what came behind a loss waits.
func TestWhatMayNotBeKeptMakesNoSmallPieces(t *testing.T) {
	s, p, road := keeping(t, false)
	piece := appendPiece(nil, 7, random(1, 50_000))
	show := func(first int) {
		road.coming[redoubt.Routine] = []come{{0, len(piece), 0, piece[:9+first]}, {0, len(piece), 20_009, piece[20_009:40_009]}}
		s.look()
		if err := s.keepParts(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1000; n <= 10_000; n += 1000 {
		show(n)
	}
	if want := []int{0, 5005}; !slices.Equal(p.at, want) { // 4096 bytes each at least, of the first 5 of a head
		t.Errorf("of 10,000 bytes the part is kept from %v on, want %v", p.at, want)
	}
}

// TestBeforeWhatCameAheadOfTheHelloIsServedNothingIsLaidDown: it may be pieces, which stand before those that come.
func TestBeforeWhatCameAheadOfTheHelloIsServedNothingIsLaidDown(t *testing.T) {
	s, p, road := keeping(t, true)
	packed := random(1, 100_000)
	s.early = []said{{redoubt.Routine, appendPiece(nil, 7, packed[:10_000])}}
	second := appendPiece(nil, 7, packed[10_000:20_000])
	road.coming[redoubt.Routine] = []come{{0, len(second), 0, second}}
	s.endArrivals(t.Context()) // something that came earlier ended the session
	if len(p.part) > 0 {
		t.Errorf("%d bytes are kept, of the second piece in the place of the first", len(p.part))
	}
}
