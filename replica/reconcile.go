package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"

	"redoubt"
)

// splits is into how many parts a range that differs is divided: more cost bytes, fewer cost round trips.
const splits = 16

// askAtOnce bounds the answer to one message: 32 ranges of 64 stamps are 32 KiB.
const askAtOnce = 32

// inventory is the stamps of a label set, in order.
type inventory []redoubt.Stamp

func compareStamps(a, b redoubt.Stamp) int { return bytes.Compare(a[:], b[:]) }

// within is the part of it in a range.
func (v inventory) within(s span) inventory {
	from, _ := slices.BinarySearchFunc(v, s.From, compareStamps)
	to := len(v)
	if s.To != (redoubt.Stamp{}) {
		to, _ = slices.BinarySearchFunc(v, s.To, compareStamps)
	}
	return v[from:max(from, to)]
}

// tell describes a range by count and fingerprint.
func (v inventory) tell(from, to redoubt.Stamp) span {
	s := span{From: from, To: to}
	in := v.within(s)
	h := sha256.New()
	for i := range in {
		h.Write(in[i][:])
	}
	s.Count = uint32(len(in))
	copy(s.Fingerprint[:], h.Sum(nil))
	return s
}

// answer says how this inventory differs from what the other told: nothing where it does not, the stamps
// where they are few, and smaller ranges where they are many.
func (v inventory) answer(asked []span) (out []span) {
	for _, s := range asked {
		mine := v.tell(s.From, s.To)
		if mine.Count == s.Count && mine.Fingerprint == s.Fingerprint {
			continue
		}
		in := v.within(s)
		if len(in) <= maxListed {
			out = append(out, span{From: s.From, To: s.To, Listed: true, Stamps: in})
			continue
		}
		from := s.From
		for i := 1; i <= splits; i++ {
			to := s.To
			if i < splits {
				to = in[len(in)*i/splits]
			}
			out = append(out, v.tell(from, to))
			from = to
		}
	}
	return out
}

// lacking works out of an answer what the answerer lacks of this inventory, and which ranges must be asked about again.
func (v inventory) lacking(answer []span) (missing []redoubt.Stamp, again []span) {
	for _, s := range answer {
		in := v.within(s)
		if s.Listed {
			slices.SortFunc(s.Stamps, compareStamps)
			for _, x := range in {
				if _, held := slices.BinarySearchFunc(s.Stamps, x, compareStamps); !held {
					missing = append(missing, x)
				}
			}
			continue
		}
		mine := v.tell(s.From, s.To)
		switch {
		case mine.Count == s.Count && mine.Fingerprint == s.Fingerprint, mine.Count == 0:
		case s.Count == 0:
			missing = append(missing, in...)
		default:
			again = append(again, mine)
		}
	}
	return missing, again
}

// reconcile finds out what the peer lacks of a set, at a cost in the order of the difference, and queues it. upTo is
// the journal's position that the finding is of.
func (s *Session) reconcile(ctx context.Context, set string) (missing []redoubt.Stamp, upTo uint64, err error) {
	var mine inventory
	upTo, err = s.o.Journal.Inventory(ctx, s.o.Peer, set, func(x redoubt.Stamp) error { mine = append(mine, x); return nil })
	if err != nil {
		return nil, 0, err
	}
	ask, first := []span{mine.tell(redoubt.Stamp{}, redoubt.Stamp{})}, true
	for depth := 0; len(ask) > 0; depth++ {
		if depth == maxDepth {
			return nil, 0, errMessage // a peer whose answers come to no end
		}
		var deeper []span
		for part := range slices.Chunk(ask, askAtOnce) {
			answer, err := s.question(ctx, spans{Set: set, First: first, Spans: part})
			if err != nil {
				return nil, 0, err
			}
			lacks, again := mine.lacking(answer)
			missing, deeper, first = append(missing, lacks...), append(deeper, again...), false
		}
		ask = deeper
	}
	return missing, upTo, nil
}

// maxDepth bounds how often a range is divided: eight times by sixteen is four billion.
const maxDepth = 8

// question asks about ranges, and holds the answer to them: it lies within what was asked, in order, and divides no range into more
// than its parts.
func (s *Session) question(ctx context.Context, asked spans) ([]span, error) {
	if err := s.o.Conn.Send(ctx, redoubt.Immediate, asked.encode(msgRanges)); err != nil {
		return nil, err
	}
	var answer spans
	select {
	case answer = <-s.answers:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if answer.Set != asked.Set || len(answer.Spans) > splits*len(asked.Spans) || !apart(answer.Spans) {
		return nil, errMessage
	}
	for _, a := range answer.Spans {
		if !slices.ContainsFunc(asked.Spans, func(q span) bool { return q.covers(a) }) {
			return nil, errMessage
		}
	}
	return answer.Spans, nil
}

// apart says whether ranges follow one another without overlap, none of them backwards.
func apart(all []span) bool {
	for i, s := range all {
		open := s.To == redoubt.Stamp{}
		if !open && compareStamps(s.From, s.To) > 0 || open && i < len(all)-1 || i > 0 && compareStamps(all[i-1].To, s.From) > 0 {
			return false
		}
	}
	return true
}

// covers says whether another range lies within this one.
func (s span) covers(o span) bool {
	end := s.To == redoubt.Stamp{}
	return compareStamps(s.From, o.From) <= 0 && (end || o.To != redoubt.Stamp{} && compareStamps(o.To, s.To) <= 0)
}

// answerRanges answers a peer that reconciles. A set of which there is nothing here is an empty one.
func (s *Session) answerRanges(ctx context.Context, msg []byte) error {
	m, err := decodeSpans(msgRanges, msg)
	if err != nil {
		return err
	}
	if len(m.Spans) > askAtOnce || !apart(m.Spans) {
		return errMessage
	}
	if m.First || s.shownSet != m.Set {
		s.shown, s.shownSet = nil, m.Set
		_, err := s.o.Journal.Inventory(ctx, s.o.Peer, m.Set, func(x redoubt.Stamp) error { s.shown = append(s.shown, x); return nil })
		if err != nil && redoubt.KindOf(err) != redoubt.NotFound {
			return err
		}
	}
	return s.say(ctx, redoubt.Immediate, spans{Set: m.Set, Spans: s.shown.answer(m.Spans)}.encode(msgAnswer))
}
