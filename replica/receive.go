package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"redoubt"
)

// receive serves what the peer sends, in the order in which it comes.
func (s *Session) receive(ctx context.Context) error {
	for {
		msg, err := s.next(ctx)
		if err != nil {
			return err
		}
		s.heard.Store(time.Now().UnixNano())
		if err := s.serve(ctx, msg); err != nil {
			if errors.Is(err, errMessage) {
				err = s.broken(fmt.Errorf("%w of kind %q", err, msg[0]))
			}
			return err
		}
	}
}

// next gives what came before the peer's hello, and then what comes.
func (s *Session) next(ctx context.Context) (msg []byte, err error) {
	if len(s.early) > 0 {
		msg, s.early = s.early[0], s.early[1:]
		return msg, nil
	}
	_, msg, err = s.o.Conn.Receive(ctx)
	return msg, err
}

func (s *Session) serve(ctx context.Context, msg []byte) error {
	switch msg[0] {
	case msgItems:
		return s.takeItems(ctx, msg)
	case msgBegin:
		return s.takeBegin(ctx, msg)
	case msgPiece:
		return s.takePiece(ctx, msg)
	case msgAck:
		return s.heardOutcomes(msg)
	case msgRanges:
		return s.answerRanges(ctx, msg)
	case msgNote:
		kind, body, err := decodeNote(msg)
		if err != nil || s.o.Noted == nil {
			return err
		}
		return s.o.Noted(ctx, s, kind, body)
	case msgAnswer:
		m, err := decodeSpans(msgAnswer, msg)
		if err != nil {
			return err
		}
		select {
		case s.answers <- m:
			return nil
		default:
			return errMessage // nobody asked
		}
	}
	return errMessage
}

// takeItems applies a message of small entries.
func (s *Session) takeItems(ctx context.Context, msg []byte) error {
	m, err := decodeItems(msg)
	if err != nil {
		return err
	}
	in := make([]redoubt.Received, 0, len(m.Parcels))
	seqs := make(map[redoubt.Stamp]uint64, len(m.Parcels))
	var outcomes []outcome
	custodies, err := sharedCustody(s.o.Peer, m)
	if err != nil {
		return err
	}
	for i := range m.Parcels {
		p := &m.Parcels[i]
		r, state, err := s.packer.unpack(ctx, m.Set, p)
		if err != nil {
			return err
		}
		if state != taken {
			outcomes = append(outcomes, outcome{Seq: p.Seq, State: state, Kind: redoubt.Invalid, Rule: "packing"})
			continue
		}
		if custodies != nil {
			r.Custody = custodies[i]
		}
		seqs[r.Entry.Stamp] = p.Seq
		in = append(in, r)
	}
	applied, err := s.apply(ctx, in, seqs)
	if err != nil {
		return err
	}
	s.acks.add(append(outcomes, applied...)...)
	return nil
}

// apply has the enclave decide and take entries, and says what became of each.
func (s *Session) apply(ctx context.Context, in []redoubt.Received, seqs map[redoubt.Stamp]uint64) ([]outcome, error) {
	if len(in) == 0 {
		return nil, nil
	}
	refusals, err := s.o.Journal.Apply(ctx, s.o.Peer, in)
	if err != nil {
		return nil, err
	}
	out := make([]outcome, 0, len(in))
	for _, r := range refusals {
		seq, ok := seqs[r.Stamp]
		if !ok {
			continue
		}
		delete(seqs, r.Stamp)
		state := uint8(refused)
		if r.Later {
			state = refusedAt
		}
		out = append(out, outcome{Seq: seq, State: state, Kind: r.Kind, Rule: r.Rule})
	}
	for _, seq := range seqs {
		out = append(out, outcome{Seq: seq})
	}
	if len(seqs) == 0 { // what was refused may say any label
		return out, nil
	}
	s.tally.add(in[0].Entry.Label, 0, int64(len(seqs)))
	return out, nil
}

// arrival is an entry whose content is coming in pieces.
type arrival struct {
	m      begin
	left   int64
	packed []byte         // kept until it is whole, where it must be unpacked
	pipe   *io.PipeWriter // else it goes straight on
	ended  chan error     // what came of that
}

// abort ends an arrival that does not go on. Nothing of it is kept.
func (a *arrival) abort() {
	if a.pipe != nil {
		a.pipe.CloseWithError(io.ErrUnexpectedEOF)
		<-a.ended
	}
}

// takeBegin prepares for content that comes in pieces. What was packed as it is goes straight into the enclave, which
// takes it only when it is whole and as it was signed.
func (s *Session) takeBegin(ctx context.Context, msg []byte) error {
	m, err := decodeBegin(bytes.Clone(msg))
	if err != nil {
		return err
	}
	seq := m.Parcel.Seq
	if s.begun[seq] != nil || len(s.begun) >= redoubt.Precedences || len(m.Parcel.Custody) == 0 || m.Parcel.Packing == packedNone || m.Bytes == 0 {
		return errMessage
	}
	a := &arrival{m: m, left: m.Bytes}
	if m.Parcel.Packing != packedPlain {
		if m.Bytes > maxPackedBytes {
			return errMessage
		}
		s.begun[seq] = a
		return nil
	}
	r, state, err := s.packer.unpack(ctx, m.Set, &parcel{Entry: m.Parcel.Entry, Custody: m.Parcel.Custody})
	if err != nil || state != taken || r.Entry.SizeBytes != m.Bytes {
		return errors.Join(err, errMessage)
	}
	pr, pw := io.Pipe()
	a.pipe, a.ended, r.Content = pw, make(chan error, 1), pr
	s.begun[seq] = a
	go func() {
		out, err := s.apply(ctx, []redoubt.Received{r}, map[redoubt.Stamp]uint64{r.Entry.Stamp: seq})
		pr.CloseWithError(io.ErrClosedPipe) // the rest of what was refused, or is here already, is passed over
		s.acks.add(out...)
		a.ended <- err
		if err != nil {
			s.o.Conn.Close() // receive may be waiting for the peer: the fault ends the session now
		}
	}()
	return nil
}

// takePiece takes the next piece of an arrival.
func (s *Session) takePiece(ctx context.Context, msg []byte) error {
	seq, content, err := decodePiece(msg)
	if err != nil {
		return err
	}
	a := s.begun[seq]
	if a == nil || int64(len(content)) > a.left {
		return errMessage
	}
	a.left -= int64(len(content))
	if a.pipe == nil {
		a.packed = append(a.packed, content...)
	} else if _, err := a.pipe.Write(content); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	if a.left > 0 {
		return nil
	}
	delete(s.begun, seq)
	if a.pipe != nil {
		a.pipe.Close()
		return s.settling(a)
	}
	p := a.m.Parcel
	p.Content = a.packed
	r, state, err := s.packer.unpack(ctx, a.m.Set, &p)
	if err != nil {
		return err
	}
	if state != taken {
		s.acks.add(outcome{Seq: seq, State: state, Kind: redoubt.Invalid, Rule: "packing"})
		return nil
	}
	out, err := s.apply(ctx, []redoubt.Received{r}, map[redoubt.Stamp]uint64{r.Entry.Stamp: seq})
	s.acks.add(out...)
	return err
}

// mostSettling is how many large entries become durable while others come: enough that a sync is waited for beside receiving.
const mostSettling = 4

// settling lets an arrival that is whole become durable while the next one comes, and waits for the oldest where there are many.
func (s *Session) settling(a *arrival) error {
	s.whole = append(s.whole, a.ended)
	if len(s.whole) < mostSettling {
		return nil
	}
	oldest := s.whole[0]
	s.whole = s.whole[1:]
	return <-oldest
}

// settleAll waits for every arrival that is whole, and gives the first fault.
func (s *Session) settleAll() (err error) {
	for _, ended := range s.whole {
		if e := <-ended; err == nil {
			err = e
		}
	}
	return err
}

// ackQueue gathers outcomes, so that many travel in one message and the receiver never waits for the road back.
type ackQueue struct {
	mu     sync.Mutex
	some   *sync.Cond
	all    []outcome
	closed bool
}

func newAckQueue() *ackQueue {
	q := new(ackQueue)
	q.some = sync.NewCond(&q.mu)
	return q
}

func (q *ackQueue) add(o ...outcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, o...)
	q.some.Signal()
}

// take waits for outcomes; none means that the queue has closed.
func (q *ackQueue) take() []outcome {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.all) == 0 && !q.closed {
		q.some.Wait()
	}
	n := min(len(q.all), maxOutcomes)
	out := append([]outcome(nil), q.all[:n]...)
	q.all = append(q.all[:0], q.all[n:]...)
	return out
}

func (q *ackQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Signal()
}

// maxOutcomes keeps an acknowledgement within one message, and short.
const maxOutcomes = 1024

// acknowledge tells the peer what became of what it sent.
func (s *Session) acknowledge(ctx context.Context) error {
	for {
		out := s.acks.take()
		if len(out) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.o.Conn.Send(ctx, redoubt.Immediate, encodeAck(out)); err != nil {
			return err
		}
	}
}
