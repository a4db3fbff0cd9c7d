package carry

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestWhatIsShownOfMessagesThatCannotBeGivenIsOfThem has pieces come in any order, some never, and messages be received now and then: what is shown is
// each time what was sent, at its place, in order, and all that is there up to the first length that is not.
func TestWhatIsShownOfMessagesThatCannotBeGivenIsOfThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		out := outgoing{limit: streamWindow}
		var want [][]byte
		fill := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "fill"), 0))
		for range rapid.IntRange(1, 8).Draw(t, "messages") {
			msg := make([]byte, rapid.IntRange(1, 4000).Draw(t, "size"))
			for i := range msg {
				msg[i] = byte(fill.Uint32())
			}
			want = append(want, msg)
			out.put(msg)
		}
		var pieces []span
		for at := uint64(0); at < out.end; {
			to := min(out.end, at+rapid.Uint64Range(1, 900).Draw(t, "length"))
			pieces = append(pieces, span{at, to})
			at = to
		}
		fill.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		var in incoming
		in.init()
		var came spans
		received := 0
		for _, s := range pieces[:rapid.IntRange(0, len(pieces)).Draw(t, "come")] {
			if _, err := in.put(s.from, out.appendBytes(nil, s)); err != nil {
				t.Fatal(err)
			}
			came.add(s.from, s.to)
			if fill.IntN(3) == 0 && in.receive() != nil {
				received++
			}
			at, next, last := -1, 0, uint64(0)
			shown := 0
			in.coming(func(n, length, from int, data []byte) {
				if n == at+1 {
					at, next = n, 0
				}
				if n != at || received+n >= len(want) || length != len(want[received+n]) || from < next || !bytes.Equal(data, want[received+n][from:from+len(data)]) {
					t.Fatalf("of message %d, of %d bytes, is shown from %d on: %x", n, length, from, data)
				}
				next = from + len(data)
				shown += len(data)
			})
			// All that is there, up to the first length that is not.
			offset, there := uint64(0), 0
			for i, m := range want {
				if i >= received && !came.has(offset, offset+lengthSize) {
					break
				}
				if i >= received {
					for b := range len(m) {
						if x := offset + lengthSize + uint64(b); came.has(x, x+1) {
							there++
						}
					}
				}
				offset += lengthSize + uint64(len(m))
				last = offset
			}
			if shown != there {
				t.Fatalf("%d bytes are shown of %d that are there before %d", shown, there, last)
			}
		}
	})
}

// TestWhoSendsManySmallMessagesOrNonsenseIsShownWithinLimits has a peer put them behind a loss.
func TestWhoSendsManySmallMessagesOrNonsenseIsShownWithinLimits(t *testing.T) {
	many := append([]byte{0, 0, 0, 2, 'x'}, bytes.Repeat([]byte{0, 0, 0, 1, 'y'}, 10_000)...) // the first lacks a byte
	for what, c := range map[string]struct {
		stream []byte
		hole   int
		want   []int // lengths
	}{
		"small ones":      {slices.Insert(many, 5, 'z'), 5, append([]int{2}, slices.Repeat([]int{1}, maxComing-1)...)},
		"an empty one":    {[]byte{0, 0, 0, 2, 'x', 'z', 0, 0, 0, 0, 0, 0, 0, 1}, 5, []int{2}},
		"one too large":   {[]byte{0, 0, 0, 2, 'x', 'z', 0, 0x10, 0, 1, 'a'}, 5, []int{2}},
		"an unknown one":  {[]byte{0, 0, 0, 2, 'x', 'y', 0, 0, 0, 2, 'z', 'z'}, 8, []int{2}},
		"a first unknown": {[]byte{0, 0, 0, 2, 'x', 'y'}, 2, nil},
	} {
		in := &incoming{}
		in.init()
		for _, s := range []span{{0, uint64(c.hole)}, {uint64(c.hole) + 1, uint64(len(c.stream))}} {
			if _, err := in.put(s.from, c.stream[s.from:s.to]); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		var got []int
		in.coming(func(n, length, _ int, _ []byte) {
			if n == len(got) {
				got = append(got, length)
			}
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: messages of %v are shown, want %v", what, got, c.want)
		}
	}
}
