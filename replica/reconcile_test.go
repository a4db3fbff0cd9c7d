package replica

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"redoubt"
)

func stamps(of []uint64) inventory {
	v := make(inventory, len(of))
	for i, n := range of {
		binary.BigEndian.PutUint64(v[i][8:], n)
		v[i][0] = 1
	}
	slices.SortFunc(v, compareStamps)
	return slices.Compact(v)
}

// TestReconciliationFindsExactlyWhatIsLacking asks and answers between any two inventories.
func TestReconciliationFindsExactlyWhatIsLacking(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		of := rapid.SliceOfN(rapid.Uint64Range(0, 5000), 0, 900)
		mine, theirs := stamps(of.Draw(r, "mine")), stamps(of.Draw(r, "theirs"))
		var missing []redoubt.Stamp
		ask := []span{mine.tell(redoubt.Stamp{}, redoubt.Stamp{})}
		for depth := 0; len(ask) > 0; depth++ {
			if depth == maxDepth {
				r.Fatal("it comes to no end")
			}
			answer := theirs.answer(ask)
			if !apart(answer) || len(answer) > splits*len(ask) {
				r.Fatalf("an honest answer would be refused: %+v", answer)
			}
			var lacks []redoubt.Stamp
			lacks, ask = mine.lacking(answer)
			missing = append(missing, lacks...)
		}
		var want []redoubt.Stamp
		for _, s := range mine {
			if _, held := slices.BinarySearchFunc(theirs, s, compareStamps); !held {
				want = append(want, s)
			}
		}
		if !slices.Equal(missing, want) {
			r.Fatalf("found %d lacking, want %d", len(missing), len(want))
		}
	})
}

// liar answers every question with what it is told to.
type liar struct {
	s      *Session
	answer func(asked spans) []span
}

func (l *liar) Send(_ context.Context, _ redoubt.Precedence, msg []byte) error {
	asked, err := decodeSpans(msgRanges, msg)
	if err == nil {
		l.s.answers <- spans{Set: asked.Set, Spans: l.answer(asked)}
	}
	return err
}
func (l *liar) Receive(context.Context) (redoubt.Precedence, []byte, error) { return 0, nil, nil }
func (l *liar) Recycle([]byte)                                              {}
func (l *liar) Peer() *x509.Certificate                                     { return nil }
func (l *liar) Close() error                                                { return nil }

// many is a journal of which reconciliation sees the stamps alone.
type many struct {
	redoubt.Journal
	of inventory
}

func (m many) Inventory(_ context.Context, _ redoubt.NodeName, _ string, each func(redoubt.Stamp) error) (uint64, error) {
	for _, s := range m.of {
		if err := each(s); err != nil {
			return 0, err
		}
	}
	return 1, nil
}

func TestAPeerThatAnswersWithLiesCostsNothing(t *testing.T) {
	of := make([]uint64, 10_000)
	for i := range of {
		of[i] = uint64(i)
	}
	all := span{Listed: true}
	for what, answer := range map[string]func(asked spans) []span{
		"the same range again and again": func(spans) []span { return slices.Repeat([]span{all}, 256) },
		"more than was asked":            func(spans) []span { return make([]span, maxRanges) },
		"no end":                         func(asked spans) []span { return []span{{From: asked.Spans[0].From, To: asked.Spans[0].To, Count: 1}} },
		"outside of what was asked": func(asked spans) []span {
			if asked.First {
				return []span{{To: stamps([]uint64{5})[0], Count: 1}}
			}
			return []span{all}
		},
	} {
		s := New(Options{Journal: many{of: stamps(of)}})
		s.o.Conn = &liar{s, answer}
		missing, _, err := s.reconcile(t.Context(), "set")
		if !errors.Is(err, errMessage) {
			t.Errorf("%s: %d stamps, %v; want it refused", what, len(missing), err)
		}
	}
}
