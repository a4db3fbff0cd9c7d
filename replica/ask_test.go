package replica

import (
	"context"
	"slices"
	"testing"

	"redoubt"
)

// asked is a peer that has some of what it is asked about.
type asked struct {
	Conn
	s     *Session
	has   map[redoubt.Stamp]bool
	sizes []int
}

func (a *asked) Send(_ context.Context, _ redoubt.Precedence, msg []byte) error {
	m, err := decodeInquiry(msg)
	if err != nil {
		return err
	}
	a.sizes = append(a.sizes, len(m.Stamps))
	var lacks []redoubt.Stamp
	for _, s := range m.Stamps {
		if !a.has[s] {
			lacks = append(lacks, s)
		}
	}
	a.s.lacking <- encodeLacking(m.Stamps, lacks)
	return nil
}

// TestThePeerIsAskedAboutFewUntilItLacksAll has it hold the first so many of 200, and one behind them.
func TestThePeerIsAskedAboutFewUntilItLacksAll(t *testing.T) {
	for _, c := range []struct {
		has  int
		asks []int
	}{{0, []int{32}}, {1, []int{32, 64}}, {32, []int{32, 64}}, {33, []int{32, 64, 104}}, {200, []int{32, 64, 104}}} {
		peer := &asked{has: map[redoubt.Stamp]bool{}}
		peer.s = &Session{o: Options{Conn: peer}, asking: map[string]bool{"SET": true}, lacking: make(chan []byte, 1)}
		var refs, want []redoubt.JournalRef
		for i := range 200 {
			r := redoubt.JournalRef{Stamp: redoubt.Stamp{byte(i + 1)}, SizeBytes: 4096}
			refs = append(refs, r)
			if peer.has[r.Stamp] = i < c.has; i >= c.has {
				want = append(want, r)
			}
		}
		got, err := peer.s.winnow(t.Context(), &outgoing{set: "SET"}, refs, false)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("with %d there: %d go, want %d; %v", c.has, len(got), len(want), err)
		}
		if !slices.Equal(peer.sizes, c.asks) {
			t.Errorf("with %d there it was asked about %v, want %v", c.has, peer.sizes, c.asks)
		}
		if still := peer.s.asking["SET"]; still != (c.has > 96) {
			t.Errorf("with %d there the next page is asked about: %v", c.has, still)
		}
	}
}
