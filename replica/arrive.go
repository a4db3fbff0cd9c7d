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
	set    string
	seq    uint64
	in     redoubt.Received // without its content; From is where the segment begins that comes
	ended  bool             // it was settled before it had come whole: what still comes of it is passed over
	kept   int64            // of the segment's head and bytes: what is durable of them
	since  time.Time        // when that was last added to
	seg    segment          // none: Bytes is 0
	packed []byte
	left   redoubt.Arrival // what another session left of the segment that comes first, until that has come
	base   *baseline       // that content is packed against, once it was needed

	pipe   *io.PipeWriter // where content goes that is too large to be kept
	passed chan error     // what came of that
}

// How much of a segment that is coming is kept: what has come in keepEach, or before a pause of keepPause, and no less than minPart, so that
// its pieces are not too many. On a fast link no segment takes as long, and nothing is written of it.
const (
	keepEach  = 100 * time.Millisecond
	keepPause = 20 * time.Millisecond // on a road that loses, what was held up by a loss comes all at once, and then nothing for as long
	minPart   = 4 << 10
)

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
	if m.From == at.Whole && at.Part > segmentHead {
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
	a.ended, a.seg, a.packed = true, segment{}, nil
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
	a.seg, a.kept, a.since = m, 0, time.Now()
	left := a.left
	a.left = redoubt.Arrival{}
	if m.Skip > 0 {
		if int64(m.Skip) != left.Part-segmentHead {
			return errMessage // not what our hello said
		}
		if err := s.goOn(ctx, a, left); err != nil || a.ended {
			return err
		}
	}
	if int(m.Bytes) == len(a.packed) {
		return s.takeWhole(ctx, p, a)
	}
	return nil
}

// goOn takes up what another session left of a segment. It is read when it is needed, and not before: an opening and a hello are small, and
// cause no large read. One that cannot be read is lost, and no more than it: the version is refused for now, and comes again from its beginning.
func (s *Session) goOn(ctx context.Context, a *arrival, left redoubt.Arrival) error {
	part, err := s.o.Journal.Part(ctx, s.o.Peer, left)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.o.Log.Warn("what was kept of an entry that had not come whole is lost", slog.String("peer", string(s.o.Peer)), slog.String("kind", redoubt.KindOf(err).Error()))
		a.refuse(s, &redoubt.Refusal{Kind: redoubt.Unavailable, Rule: "kept-part", Later: true})
		return nil
	}
	if int64(len(part)) != left.Part || part[0] != a.seg.Packing || binary.BigEndian.Uint32(part[1:]) != a.seg.Bytes {
		return errMessage
	}
	a.kept, a.packed = left.Part, part[segmentHead:]
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
	if len(content) > int(a.seg.Bytes)-len(a.packed) {
		return errMessage
	}
	if a.packed == nil {
		a.packed = room(int64(a.seg.Bytes))
	}
	a.packed = append(a.packed, content...)
	if len(a.packed) == int(a.seg.Bytes) {
		return s.takeWhole(ctx, p, a)
	}
	if time.Since(a.since) >= keepEach {
		return s.keepPart(ctx, a)
	}
	return nil
}

// fresh says whether something has come of a segment that is to be kept and is not.
func (a *arrival) fresh() bool {
	return a != nil && !a.ended && a.seg.Bytes > 0 && int64(segmentHead+len(a.packed))-a.kept >= minPart && a.pipe == nil && a.in.Entry.Name.Bucket != redoubt.SystemBucket
}

// unkept says whether there is something to keep when nothing comes for a while.
func (s *Session) unkept() bool {
	for _, a := range s.begun {
		if a.fresh() {
			return true
		}
	}
	return false
}

// keepParts keeps what has come of every segment.
func (s *Session) keepParts(ctx context.Context) error {
	for _, a := range s.begun {
		if a.fresh() {
			if err := s.keepPart(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepPart keeps what has come of a segment.
func (s *Session) keepPart(ctx context.Context, a *arrival) error {
	if !a.fresh() {
		return nil
	}
	part := a.packed[max(a.kept-segmentHead, 0):]
	if a.kept == 0 {
		part = append(headed(a.seg.Packing, nil)[:1:1], binary.BigEndian.AppendUint32(nil, a.seg.Bytes)...)
		part = append(part, a.packed...)
	}
	no, err := s.o.Journal.KeepPart(ctx, s.o.Peer, a.in, a.kept, part)
	if err != nil {
		return err
	}
	if no != nil {
		a.refuse(s, no)
		return nil
	}
	a.kept += int64(len(part))
	a.since = time.Now()
	return nil
}

// takeWhole unpacks a segment that is whole and keeps its content, or with the last one has the enclave take the version.
func (s *Session) takeWhole(ctx context.Context, p redoubt.Precedence, a *arrival) error {
	size := min(a.in.Entry.SizeBytes-a.in.From, segmentBytes)
	plain, state, err := s.packer.restore(ctx, a, a.seg.Packing, a.packed, size)
	if err != nil {
		return err
	}
	if a.seg.Packing != packedPlain {
		leave(a.packed)
	}
	a.seg, a.packed = segment{}, nil
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
		_ = s.keepPart(ctx, a) // else it is sent again
	}
	a.ended = true
	if a.pipe != nil {
		a.pipe.CloseWithError(io.ErrUnexpectedEOF)
	}
	_ = a.close()
}
