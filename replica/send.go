package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"redoubt"
)

// send sends what waits in one precedence.
func (s *Session) send(ctx context.Context, p redoubt.Precedence) error {
	for {
		refs := s.out.take(p)
		if refs == nil {
			return ctx.Err()
		}
		if err := s.sendSome(ctx, p, refs); err != nil {
			return err
		}
	}
}

// sendSome sends entries of one label set: small ones together, a large one in pieces.
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
	m, size := items{Set: set.set}, 0
	for i := range fetched {
		item := &fetched[i]
		r := byStamp[item.Entry.Stamp]
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
			if err := s.o.Conn.Send(ctx, p, m.encode()); err != nil {
				return err
			}
			m.Parcels, size = nil, 0
		}
	}
	for _, gone := range byStamp { // removed since: the removal is on its way too
		s.out.done(gone)
	}
	if len(m.Parcels) == 0 {
		return nil
	}
	m.share(s.o.Node, fetched)
	return s.o.Conn.Send(ctx, p, m.encode())
}

// pack makes a parcel of an entry with all its content, against that of its base where the peer is known to hold it.
func (s *Session) pack(ctx context.Context, r *ref, item *redoubt.JournalItem) (parcel, error) {
	base := item.Entry.Base
	against := base != (redoubt.Stamp{}) && !r.plain && !s.out.waiting(r.set, base)
	return s.packer.pack(ctx, r.set.set, r.seq, item, against)
}

// sendLarge sends one entry in pieces: what can be held whole compressed, more as it is.
func (s *Session) sendLarge(ctx context.Context, p redoubt.Precedence, r *ref, item *redoubt.JournalItem) error {
	m := begin{Set: r.set.set, Parcel: parcel{Seq: r.seq, Packing: packedPlain}, Bytes: item.Entry.SizeBytes}
	var content io.Reader
	if item.Entry.SizeBytes <= maxWholeBytes {
		whole, err := s.pack(ctx, r, item)
		if err != nil {
			return err
		}
		m.Bytes, content = int64(len(whole.Content)), bytes.NewReader(whole.Content)
		whole.Content = nil
		m.Parcel = whole
	} else {
		if err := m.Parcel.describe(item); err != nil {
			return err
		}
		open, err := item.Open()
		if err != nil {
			return err
		}
		defer open.Close()
		content = open
	}
	if err := s.o.Conn.Send(ctx, p, m.encode()); err != nil {
		return err
	}
	buf := make([]byte, pieceBytes)
	for left := m.Bytes; left > 0; {
		n, err := io.ReadFull(content, buf[:min(int64(len(buf)), left)])
		if err != nil {
			return err
		}
		if err := s.o.Conn.Send(ctx, p, encodePiece(r.seq, buf[:n])); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
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
			s.tally.add(r.set.set, 1, 0)
			s.out.done(r)
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
