package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/klauspost/compress/zstd"

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
	m := items{Set: set.set}
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
	}
	for _, gone := range byStamp { // removed since: the removal is on its way too
		s.out.done(gone)
	}
	if len(m.Parcels) == 0 {
		return nil
	}
	s.share(&m, fetched)
	return s.o.Conn.Send(ctx, p, m.encode())
}

// share leaves out the custodies of a message that is one whole batch of this node's: the receiver works them out.
func (s *Session) share(m *items, fetched []redoubt.JournalItem) {
	if len(m.Parcels) != len(fetched) {
		return
	}
	for i := range fetched {
		c := &fetched[i].Custody
		if fetched[i].Entry.Maker != s.o.Node || c.Count != int64(len(fetched)) || c.Index != int64(i) || c.Root != fetched[0].Custody.Root {
			return
		}
	}
	m.Signature = bytes.Clone(fetched[0].Custody.Signature[:])
	for i := range m.Parcels {
		m.Parcels[i].Custody = nil
	}
}

// pack makes a parcel of an entry with all its content.
func (s *Session) pack(ctx context.Context, r *ref, item *redoubt.JournalItem) (parcel, error) {
	p := parcel{Seq: r.seq}
	var err error
	if p.Entry, err = item.Entry.MarshalBinary(); err != nil {
		return p, err
	}
	if p.Custody, err = item.Custody.AppendBinary(nil); err != nil {
		return p, err
	}
	if item.Open == nil {
		return p, nil
	}
	plain, err := readAll(item)
	if err != nil {
		return p, err
	}
	p.Packing, p.Content, err = s.compress(ctx, r, &item.Entry, plain)
	return p, err
}

func readAll(item *redoubt.JournalItem) ([]byte, error) {
	r, err := item.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	plain := make([]byte, item.Entry.SizeBytes)
	if _, err := io.ReadFull(r, plain); err != nil {
		return nil, err
	}
	return plain, nil
}

// compress packs content, against that of its base where the peer is known to hold it, and as it is where nothing is gained.
func (s *Session) compress(ctx context.Context, r *ref, entry *redoubt.JournalEntry, plain []byte) (uint8, []byte, error) {
	packing, enc := uint8(packedZstd), s.plainEncoder
	if entry.Base != (redoubt.Stamp{}) && !r.plain && !s.out.waiting(r.set, entry.Base) {
		base, err := s.content(ctx, r.set.set, entry.Base)
		if err != nil {
			return 0, nil, err
		}
		if base != nil {
			if enc, err = newEncoder(zstd.WithEncoderDictRaw(dictID, base)); err != nil {
				return 0, nil, err
			}
			packing = packedDelta
			defer enc.Close()
		}
	}
	packed := enc.EncodeAll(plain, nil)
	if len(packed) >= len(plain) {
		return packedPlain, plain, nil
	}
	return packing, packed, nil
}

func newEncoder(more ...zstd.EOption) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, append(more, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))...)
}

// dictID marks frames that need a base; it is ours alone.
const dictID = 0x52444254

// content is the content of one version that both sides may hold, for a dictionary; nil where it is not here or too large.
func (s *Session) content(ctx context.Context, set string, stamp redoubt.Stamp) ([]byte, error) {
	held, err := s.o.Journal.Fetch(ctx, s.o.Peer, set, []redoubt.Stamp{stamp})
	if err != nil || len(held) == 0 || held[0].Open == nil || held[0].Entry.SizeBytes > maxWholeBytes || held[0].Entry.SizeBytes == 0 {
		return nil, err
	}
	return readAll(&held[0])
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
		var err error
		if m.Parcel.Entry, err = item.Entry.MarshalBinary(); err != nil {
			return err
		}
		if m.Parcel.Custody, err = item.Custody.AppendBinary(nil); err != nil {
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
		case refusedAt: // it stays open, and is sent again at the next meeting
			s.o.Log.Warn("the peer refused an entry for now", slog.String("peer", string(s.o.Peer)), slog.String("kind", o.Kind.Error()), slog.String("rule", o.Rule))
		}
	}
	return nil
}
