package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"redoubt"
)

// receive serves what the peer sends, in the order in which it comes.
func (s *Session) receive(ctx context.Context) error {
	for {
		p, msg, err := s.next(ctx)
		if err != nil {
			return err
		}
		s.heard.Store(time.Now().UnixNano())
		if err := s.serve(ctx, p, msg); err != nil {
			if errors.Is(err, errMessage) {
				err = s.broken(fmt.Errorf("%w of kind %q", err, msg[0]))
			}
			return err
		}
		if msg[0] == msgPiece { // the large ones, whose content was copied
			s.o.Conn.Recycle(msg)
		}
	}
}

// next gives what came before the peer's hello, and then what comes.
func (s *Session) next(ctx context.Context) (redoubt.Precedence, []byte, error) {
	if len(s.early) > 0 {
		first := s.early[0]
		s.early = s.early[1:]
		return first.p, first.msg, nil
	}
	return s.await(ctx)
}

func (s *Session) serve(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	switch msg[0] {
	case msgItems:
		return s.takeItems(ctx, msg)
	case msgOpen:
		return s.takeOpen(ctx, p, msg)
	case msgSegment, msgIslands:
		return s.takeSegment(ctx, p, msg)
	case msgPiece:
		return s.takePiece(ctx, p, msg)
	case msgAck:
		return s.heardOutcomes(msg)
	case msgRanges:
		return s.answerRanges(ctx, msg)
	case msgNote:
		kind, body, err := decodeNote(msg)
		if err == nil && kind == noteIslands {
			err = errMessage // its place is before the hello
		}
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
	case msgAsk:
		return s.answerInquiry(ctx, msg)
	case msgLacking:
		select {
		case s.lacking <- bytes.Clone(msg):
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
	s.tally.add(in[0].Entry.Label, 0, 0, int64(len(seqs)))
	return out, nil
}

// mostSettling is how many large entries become durable while others come: enough that a sync is waited for beside receiving. Each is of
// settlingBytes at most, which bounds what they hold in memory; a larger one is waited for.
const (
	mostSettling  = 4
	settlingBytes = 2 << 20
)

// settling has an entry applied, the last of whose content has come, while the next one comes, and waits for the oldest where there
// are many.
func (s *Session) settling(ctx context.Context, in redoubt.Received, seq uint64, content []byte) error {
	ended := make(chan error, 1)
	s.whole = append(s.whole, ended)
	go func() {
		in.Content = bytes.NewReader(content)
		out, err := s.apply(ctx, []redoubt.Received{in}, map[redoubt.Stamp]uint64{in.Entry.Stamp: seq})
		s.acks.add(out...)
		ended <- err
		if err == nil {
			leave(content)
		} else {
			s.o.Conn.Close() // receive may be waiting for the peer: the fault ends the session now
		}
	}()
	if len(content) > settlingBytes {
		return s.settleAll()
	}
	if len(s.whole) < mostSettling {
		return nil
	}
	oldest := s.whole[0]
	s.whole = s.whole[1:]
	return <-oldest
}

// settleAll waits for every entry that is being applied, and gives the first fault.
func (s *Session) settleAll() (err error) {
	for _, ended := range s.whole {
		if e := <-ended; err == nil {
			err = e
		}
	}
	s.whole = nil
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
