package replica

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"redoubt"
)

// send sends what waits in one precedence.
func (s *Session) send(ctx context.Context, p redoubt.Precedence) error {
	for {
		refs := s.out.take(p, s.together())
		if refs == nil {
			return ctx.Err()
		}
		if err := s.sendSome(ctx, p, refs); err != nil {
			return err
		}
	}
}

// sendSome sends entries of one label set: small ones together, a large one in segments.
func (s *Session) sendSome(ctx context.Context, p redoubt.Precedence, refs []*ref) error {
	set := refs[0].set
	stamps := make([]redoubt.Stamp, len(refs))
	byStamp := make(map[redoubt.Stamp]*ref, len(refs))
	for i, r := range refs {
		stamps[i], byStamp[r.stamp] = r.stamp, r
	}
	fetched, err := s.o.Journal.Fetch(ctx, s.o.Peer, set.set, stamps)
	if err != nil {
		return err
	}
	defer func() { // what was sent of it was copied
		for i := range fetched {
			if free := fetched[i].Release; free != nil {
				free()
			}
		}
	}()
	m, size := items{Set: set.set}, 0
	for i := range fetched {
		item := &fetched[i]
		r := byStamp[item.Entry.Stamp]
		if item.Superseded { // a newer one is on its way too
			continue
		}
		delete(byStamp, item.Entry.Stamp)
		if item.Entry.SizeBytes > togetherBytes {
			if err := s.sendLarge(ctx, p, r, item); err != nil {
				return err
			}
			continue
		}
		parcel, err := s.pack(ctx, r, item)
		if err != nil {
			return err
		}
		m.Parcels = append(m.Parcels, parcel)
		if size += len(parcel.Entry) + len(parcel.Content); size >= messageBytes { // of what was found by comparing no size was known
			if err := s.sendOf(ctx, p, set, m.encode()); err != nil {
				return err
			}
			m.Parcels, size = nil, 0
		}
	}
	for _, gone := range byStamp { // removed since, and the removal is on its way too, or superseded
		s.out.pass(gone)
	}
	if len(m.Parcels) == 0 {
		return nil
	}
	m.share(s.o.Node, fetched)
	return s.sendOf(ctx, p, set, m.encode())
}

// sendOf sends a message of one label set, at the cost of its budget.
func (s *Session) sendOf(ctx context.Context, p redoubt.Precedence, of *outgoing, msg []byte) error {
	s.out.spend(of, len(msg))
	return s.o.Conn.Send(ctx, p, msg)
}

// pack makes a parcel of an entry with all its content, against that of its base where the peer is known to hold it.
func (s *Session) pack(ctx context.Context, r *ref, item *redoubt.JournalItem) (parcel, error) {
	return s.packer.pack(ctx, r.set.set, r.seq, item, s.against(r, item))
}

func (s *Session) against(r *ref, item *redoubt.JournalItem) bool {
	base := item.Entry.Base
	return base != (redoubt.Stamp{}) && !r.plain && !s.out.waiting(r.set, base)
}

// sendLarge sends one entry in segments, from where the peer has kept it. It ends early where the peer settles it before, and where
// the day's budget is spent: then it goes on from there when there is another.
func (s *Session) sendLarge(ctx context.Context, p redoubt.Precedence, r *ref, item *redoubt.JournalItem) error {
	seq, size := r.seq, item.Entry.SizeBytes
	m := opening{Set: r.set.set, Parcel: parcel{Seq: seq}}
	if err := m.Parcel.describe(item); err != nil {
		return err
	}
	src, err := s.packer.open(ctx, r.set.set, item, s.against(r, item))
	if err != nil {
		return err
	}
	defer src.close()
	at := s.resumes(r.set.set, item.Entry.Stamp)
	if at.Whole >= size || size > maxKeptBytes {
		at = kept{}
	}
	m.From = max(at.Whole, s.out.begins(r))
	if err := s.sendOf(ctx, p, r.set, m.encode()); err != nil {
		return err
	}
	for off := m.From; off < size; off += segmentBytes {
		packing, packed, err := src.segment(off)
		if err != nil {
			return err
		}
		seg := segment{Seq: seq, Packing: packing, Bytes: uint32(len(packed))}
		lacked := runs{{0, len(packed)}}
		if skip, same := sameBeginning(&at, packing, packed); same && off == at.Whole {
			seg.Skip, lacked[0].from = uint32(skip), skip
			if beside, same := sameIslands(&at, packed); same {
				seg.Islands, seg.Of, lacked = true, at.of, beside
			}
		}
		went := func(left int) { // as far as the pieces are, so far the content is
			plain := min(size-off, segmentBytes)
			s.out.went(r, seq, off+plain*int64(len(packed)-left)/int64(len(packed)))
		}
		if going, err := s.sendPieces(ctx, p, r, seg, packed, lacked, went); err != nil || !going {
			return err
		}
		if next := off + segmentBytes; next < size && size <= maxKeptBytes && s.out.pause(p, r, seq, next) {
			return nil
		}
	}
	return nil
}

// pieceRooms are buffers of messages of that kind: the Conn keeps none that it was given.
var pieceRooms = sync.Pool{New: func() any { return new([]byte) }}

// sendPieces sends what the peer lacks of what a segment is packed in, for as long as it has not settled the entry.
func (s *Session) sendPieces(ctx context.Context, p redoubt.Precedence, r *ref, seg segment, packed []byte, lacked runs, went func(left int)) (going bool, err error) {
	if s.out.bySeq(seg.Seq) != r {
		return false, nil
	}
	if err := s.sendOf(ctx, p, r.set, seg.encode()); err != nil {
		return false, err
	}
	piece := pieceRooms.Get().(*[]byte)
	defer pieceRooms.Put(piece)
	for at, left := 0, lacked.total(); left > 0; {
		if s.out.bySeq(seg.Seq) != r {
			return false, nil
		}
		n := min(left, s.pieceSize())
		*piece = appendPiece((*piece)[:0], seg.Seq, nil)
		for _, x := range lacked.within(at, n) {
			*piece = append(*piece, packed[x.from:x.to]...)
		}
		if err := s.sendOf(ctx, p, r.set, *piece); err != nil {
			return false, err
		}
		at, left = at+n, left-n
		went(left)
	}
	return true, nil
}

// pieceSize is what the road takes in a tenth of a second: on a slow one little is lost with a node that dies, on a fast one little
// is spent on messages. Where the peer keeps what has come of a piece that is not whole, nothing is lost with a long one.
func (s *Session) pieceSize() int {
	least, usual := float64(leastPiece), pieceBytes
	if s.islands {
		least, usual = longPiece, longPiece
	}
	if rate := s.rate(); rate > 0 {
		return int(min(max(rate/10, least), mostPieceBytes))
	}
	return usual
}

// together is how much content goes in one message: what the road takes in a fifth of a second, within limits.
func (s *Session) together() int64 {
	if rate := s.rate(); rate > 0 {
		return int64(min(max(rate/5, leastTogether), togetherBytes))
	}
	return togetherBytes
}

func (s *Session) rate() float64 {
	if s.o.Rate == nil {
		return 0
	}
	return s.o.Rate()
}

// heardOutcomes ends what the peer has taken or refused for good, and sends again what lacked its base.
func (s *Session) heardOutcomes(msg []byte) error {
	all, err := decodeAck(msg)
	if err != nil {
		return err
	}
	for _, o := range all {
		r := s.out.bySeq(o.Seq)
		if r == nil {
			continue // an answer to what is settled already
		}
		switch o.State {
		case taken:
			s.tally.add(r.set.set, 1, r.size, 0)
			s.out.done(r)
			if s.out.quiet() {
				s.tally.rest()
			}
		case refused:
			s.o.Log.Warn("the peer refused an entry", slog.String("peer", string(s.o.Peer)), slog.String("kind", o.Kind.Error()), slog.String("rule", o.Rule))
			s.out.done(r)
		case needsBase:
			if r.plain {
				return errors.New("the peer asks for a base that was not used")
			}
			r.plain = true
			s.out.again(redoubt.Immediate, r)
		case refusedAt: // it stays open, and is sent again later or at the next meeting
			s.out.later(r, time.Now())
			s.o.Log.Warn("the peer refused an entry for now", slog.String("peer", string(s.o.Peer)), slog.String("kind", o.Kind.Error()), slog.String("rule", o.Rule))
		}
	}
	return nil
}
