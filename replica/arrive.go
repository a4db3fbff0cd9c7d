package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"time"

	"redoubt"
)

// arrival is an entry whose content is coming in segments. Of each precedence one comes at a time.
type arrival struct {
	set   string
	seq   uint64
	in    redoubt.Received // without its content; From is where the segment begins that comes
	ended bool             // it was settled before it had come whole: what still comes of it is passed over
	seg   segment          // none: Bytes is 0
	come  assembly         // what has come of that
	since time.Time        // when some of it was last kept
	left  redoubt.Arrival  // what another session left of the segment that comes first, until that has come
	base  *baseline        // that content is packed against, once it was needed

	pipe   *io.PipeWriter // where content goes that is too large to be kept
	passed chan error     // what came of that
}

// takeOpen prepares for content that comes in segments: the entry is decided, and what of it is here already is known.
func (s *Session) takeOpen(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	m, err := decodeOpening(bytes.Clone(msg))
	if err != nil {
		return err
	}
	s.endArrival(ctx, s.begun[p]) // the peer has given it up, if it was not whole
	a := &arrival{set: m.Set, seq: m.Parcel.Seq}
	s.begun[p] = a
	r, state, err := s.packer.unpack(ctx, m.Set, &m.Parcel)
	if err != nil {
		return err
	}
	if state != taken {
		a.end(s, outcome{State: state, Kind: redoubt.Invalid, Rule: "packing"})
		return nil
	}
	if r.Entry.Kind != redoubt.EntryVersion || r.Entry.SizeBytes <= m.From || m.From > 0 && r.Entry.SizeBytes > maxKeptBytes {
		return errMessage
	}
	a.in = r
	for _, other := range s.begun {
		if other != nil && other != a && other.in.Entry.Stamp == r.Entry.Stamp {
			s.endArrival(ctx, other)
		}
	}
	at, held, no, err := s.o.Journal.Begin(ctx, s.o.Peer, r)
	switch {
	case err != nil:
		return err
	case held:
		a.end(s, outcome{})
		return nil
	case no != nil:
		a.refuse(s, no)
		return nil
	case m.From > 0 && m.From != at.Whole:
		return errMessage // not what our hello said
	}
	a.in.From = m.From
	if m.From == at.Whole && (at.Part > segmentHead || len(at.Islands) > 0) {
		a.left = at
	}
	if r.Entry.SizeBytes > maxKeptBytes {
		s.pass(ctx, a)
	}
	return nil
}

// pass has the content go straight into the enclave, which takes it only when it is whole and as it was signed.
func (s *Session) pass(ctx context.Context, a *arrival) {
	pr, pw := io.Pipe()
	in := a.in
	a.pipe, a.passed, in.Content = pw, make(chan error, 1), pr
	go func() {
		out, err := s.apply(ctx, []redoubt.Received{in}, map[redoubt.Stamp]uint64{in.Entry.Stamp: a.seq})
		pr.CloseWithError(io.ErrClosedPipe) // the rest of what was refused, or is here already, is passed over
		s.acks.add(out...)
		a.passed <- err
	}()
}

// end settles an arrival.
func (a *arrival) end(s *Session, o outcome) {
	o.Seq = a.seq
	s.acks.add(o)
	a.ended, a.seg, a.come = true, segment{}, assembly{}
	a.base.close()
	a.base = nil
}

func (a *arrival) refuse(s *Session, no *redoubt.Refusal) {
	state := uint8(refused)
	if no.Later {
		state = refusedAt
	}
	a.end(s, outcome{State: state, Kind: no.Kind, Rule: no.Rule})
}

// takeSegment prepares for the pieces of a segment.
func (s *Session) takeSegment(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	m, err := decodeSegment(msg)
	if err != nil {
		return err
	}
	a := s.begun[p]
	if a == nil || a.seq != m.Seq || a.seg.Bytes > 0 {
		return errMessage
	}
	if a.ended {
		return nil
	}
	a.seg, a.come, a.since = m, assembly{}, time.Now()
	left := a.left
	a.left = redoubt.Arrival{}
	if m.Skip > 0 || m.Islands {
		if int64(m.Skip) != left.Part-segmentHead || m.Islands && (len(left.Islands) == 0 || m.Of != islandsDigest(left.Islands)) {
			return errMessage // not what our hello said
		}
		if err := s.goOn(ctx, a, left); err != nil || a.ended {
			return err
		}
	}
	a.come.begin(int(m.Bytes))
	if a.come.left() == 0 {
		return s.takeWhole(ctx, p, a)
	}
	return nil
}

// goOn takes up what another session left of a segment. It is read when it is needed, and not before: an opening and a hello are small, and
// cause no large read. One that cannot be read is lost, and no more than it: the version is refused for now, and comes again from its beginning.
func (s *Session) goOn(ctx context.Context, a *arrival, left redoubt.Arrival) error {
	if !a.seg.Islands { // it is another segment behind the part, or its sender is of a version that knows of none
		left.Islands = nil
	}
	part, islands, err := s.o.Journal.Part(ctx, s.o.Peer, left)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.o.Log.Warn("what was kept of an entry that had not come whole is lost", slog.String("peer", string(s.o.Peer)), slog.String("kind", redoubt.KindOf(err).Error()))
		a.refuse(s, &redoubt.Refusal{Kind: redoubt.Unavailable, Rule: "kept-part", Later: true})
		return nil
	}
	size := int64(segmentHead) + int64(a.seg.Bytes)
	if int64(len(part)) != left.Part || left.Part > size || part[0] != a.seg.Packing || binary.BigEndian.Uint32(part[1:]) != a.seg.Bytes {
		return errMessage
	}
	a.come.b, a.come.kept = part[segmentHead:], len(part)
	a.come.have.add(0, len(a.come.b))
	for _, x := range islands {
		if x.From <= left.Part || x.From+int64(len(x.Bytes)) > size {
			return errMessage
		}
		from := int(x.From) - segmentHead
		a.come.put(from, x.Bytes)
		a.come.islands = append(a.come.islands, run{from, from + len(x.Bytes)})
	}
	return nil
}

// takePiece takes the next piece of a segment.
func (s *Session) takePiece(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	seq, content, err := decodePiece(msg)
	if err != nil {
		return err
	}
	a := s.begun[p]
	if a == nil || seq != a.seq {
		return errMessage
	}
	if a.ended {
		return nil
	}
	if len(content) > a.come.left() {
		return errMessage
	}
	a.come.piece(content)
	if a.come.left() == 0 {
		return s.takeWhole(ctx, p, a)
	}
	if time.Since(a.since) >= keepEach {
		return s.keepPart(ctx, a, minPart)
	}
	return nil
}

// takeWhole unpacks a segment that is whole and keeps its content, or with the last one has the enclave take the version.
func (s *Session) takeWhole(ctx context.Context, p redoubt.Precedence, a *arrival) error {
	size := min(a.in.Entry.SizeBytes-a.in.From, segmentBytes)
	packed := a.come.b
	plain, state, err := s.packer.restore(ctx, a, a.seg.Packing, packed, size)
	if err != nil {
		return err
	}
	if a.seg.Packing != packedPlain {
		leave(packed)
	}
	a.seg, a.come = segment{}, assembly{}
	if state != taken {
		a.end(s, outcome{State: state, Kind: redoubt.Invalid, Rule: "packing"})
		return nil
	}
	last := a.in.From+size == a.in.Entry.SizeBytes
	switch {
	case a.pipe != nil:
		if _, err := a.pipe.Write(plain); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		leave(plain)
		a.in.From += size
	case !last:
		no, err := s.o.Journal.Keep(ctx, s.o.Peer, a.in, plain)
		if err != nil {
			return err
		}
		if no != nil {
			a.refuse(s, no)
			return nil
		}
		leave(plain)
		a.in.From += size
	default:
		a.ended = true
		if err := s.settling(ctx, a.in, a.seq, plain); err != nil {
			return err
		}
	}
	if last {
		s.begun[p] = nil
		return a.close()
	}
	return nil
}

// close gives back what an arrival holds that has come whole.
func (a *arrival) close() error {
	a.base.close()
	a.base = nil
	if a.pipe == nil {
		return nil
	}
	a.pipe.Close()
	return <-a.passed
}

// endArrival ends one that does not go on in this session, if there is one: what has come of it is kept.
func (s *Session) endArrival(ctx context.Context, a *arrival) {
	if a == nil {
		return
	}
	if !a.ended {
		_ = s.keepPart(ctx, a, leastPart) // else it is sent again
	}
	a.ended = true
	if a.pipe != nil {
		a.pipe.CloseWithError(io.ErrUnexpectedEOF)
	}
	_ = a.close()
}
