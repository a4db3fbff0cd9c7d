package replica

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"redoubt"
)

// Conn is the road to the peer (carry.Conn): messages of four precedences, each in order, none lost while it lives.
type Conn interface {
	Send(ctx context.Context, p redoubt.Precedence, msg []byte) error // and keeps nothing of msg
	Receive(ctx context.Context) (redoubt.Precedence, []byte, error)
	Recycle(msg []byte) // what Receive gave and nobody looks at any more
	Peer() *x509.Certificate
	Close() error
}

// Options is what a session is made of. All but Log, Codecs, Rate, Met and Noted is needed.
type Options struct {
	Estate  string // its name; both ends are of one
	Node    redoubt.NodeName
	Peer    redoubt.NodeName // as the Conn proved it
	Journal redoubt.Journal
	State   redoubt.LinkState
	Conn    Conn         // owned: Run closes it
	Log     *slog.Logger // nil: nothing is logged
	Codecs  *Codecs      // that a node's sessions share; nil: its own

	// Proof is shown to the peer beside what the Conn proves; Admit looks at the peer's, and its error ends the session before anything
	// is told or believed. Nil: nothing is shown, and whatever is shown is passed over.
	Proof []byte
	Admit func(proof []byte) error

	// Rate is what the road is believed to take in our direction, in bytes a second; 0, or nil: not known.
	Rate func() float64

	// Met, when set, is called once the peer has been greeted; Noted for each note that the peer sends, in order, by the
	// goroutine that receives: it must not wait for the peer. An error of either ends the session.
	Met   func(ctx context.Context, s *Session) error
	Noted func(ctx context.Context, s *Session, kind string, body []byte) error
}

// Tell sends a note.
func (s *Session) Tell(ctx context.Context, kind string, body []byte) error {
	return s.say(ctx, redoubt.Immediate, encodeNote(kind, body))
}

// Offer is Tell that does not wait; it reports whether the note was taken up.
func (s *Session) Offer(kind string, body []byte) bool {
	select {
	case s.voice <- said{redoubt.Immediate, encodeNote(kind, body)}:
		return true
	default:
		return false
	}
}

// HandedOver waits until everything that this node has for the peer is acknowledged. From now on no budget holds anything back.
func (s *Session) HandedOver(ctx context.Context) error {
	s.out.lift()
	return s.out.empty(ctx)
}

// Session is one meeting with a peer. It is used once.
type Session struct {
	o       Options
	out     *outbox
	voice   chan said
	answers chan spans
	acks    *ackQueue
	packer  *packer

	// Of the receiver alone:
	shown    inventory // of shownSet, as a reconciling peer asks about it
	shownSet string
	begun    [redoubt.Precedences]*arrival
	ahead    foreseeing   // the Conn, where it is one
	whole    []chan error // entries that came whole and are being applied
	early    []said       // what came before the peer's hello

	asking  map[string]bool // sets of which the peer may have more than is on record; of follow alone
	lacking chan []byte     // answers to that
	keptMu  sync.Mutex
	kept    map[redoubt.Stamp]kept // what the peer keeps of what has not come whole
	islands bool                   // the peer keeps what comes behind a loss, and knows a node that does; from the greeting on

	heard atomic.Int64 // when anything last came, ns since 1970
	tally tally
}

type said struct {
	p   redoubt.Precedence
	msg []byte
}

// New makes a session; Run holds it.
func New(o Options) *Session {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Codecs == nil {
		o.Codecs = new(Codecs)
	}
	ahead, _ := o.Conn.(foreseeing)
	return &Session{o: o, ahead: ahead, packer: &packer{journal: o.Journal, peer: o.Peer, codecs: o.Codecs, rate: o.Rate}, out: newOutbox(), voice: make(chan said, 64), answers: make(chan spans, 1), acks: newAckQueue(),
		asking: map[string]bool{}, lacking: make(chan []byte, 1), kept: map[redoubt.Stamp]kept{}}
}

// Run meets the peer and keeps both in step until ctx or the Conn ends. When it returns the Conn is closed, nothing of the session
// runs, and what the peer acknowledged is on record. A nil error is an end that was asked for.
func (s *Session) Run(ctx context.Context) error {
	run, stop := context.WithCancel(ctx)
	defer stop()
	defer s.o.Conn.Close()
	if err := s.greet(run); err != nil {
		return err
	}
	work, run := errgroup.WithContext(run)
	context.AfterFunc(run, func() { s.out.close(); s.acks.close(); s.o.Conn.Close() })
	work.Go(func() error { return s.receive(run) })
	work.Go(func() error { return s.speak(run) })
	work.Go(func() error { return s.acknowledge(run) })
	work.Go(func() error { return s.unlessEnded(run, s.follow(run)) })
	work.Go(func() error { return s.keep(run) })
	if s.o.Met != nil {
		work.Go(func() error { return s.o.Met(run, s) })
	}
	for p := range redoubt.Precedence(redoubt.Precedences) {
		work.Go(func() error { return s.unlessEnded(run, s.send(run, p)) })
	}
	err := work.Wait()
	s.endArrivals(context.WithoutCancel(ctx))
	if fault := s.settleAll(); fault != nil && !errors.Is(fault, context.Canceled) {
		err = fault // the Conn's end followed from it
	}
	if kept := s.settle(context.WithoutCancel(ctx)); kept != nil && err == nil {
		err = kept
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// unlessEnded waits with the end of what sends, where it met that nothing of a set is there, for as long as there is nothing at all for the peer: one that
// was ended after we began to read for it. The meeting goes on for what it has still to hand over and to say, as that its keys are gone. Where there
// is something for it after all, err ends the meeting, and the next begins anew.
func (s *Session) unlessEnded(ctx context.Context, err error) error {
	for redoubt.KindOf(err) == redoubt.NotFound {
		grown := s.o.Journal.Changed()
		if sets, fault := s.o.Journal.Sets(ctx, s.o.Peer); fault != nil || len(sets) > 0 {
			return err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// greet exchanges hellos. Whose state is not the one that was known starts from nothing.
func (s *Session) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	mine := hello{Estate: s.o.Estate, Node: s.o.Node, Proof: s.o.Proof}
	var err error
	if mine.Life, err = s.o.State.Life(ctx); err != nil {
		return err
	}
	if mine.RemembersOf, err = s.o.State.PeerLife(ctx, s.o.Peer); err != nil {
		return err
	}
	if mine.Kept, err = s.tellKept(ctx); err != nil {
		return err
	}
	if s.ahead != nil {
		if err := s.o.Conn.Send(ctx, redoubt.Flash, noteApart(mine.Kept)); err != nil {
			return err
		}
	}
	if err := s.o.Conn.Send(ctx, redoubt.Flash, mine.encode()); err != nil {
		return err
	}
	var theirs hello
	for {
		p, msg, err := s.o.Conn.Receive(ctx)
		if err != nil {
			return err
		}
		if msg[0] != msgHello { // there is no order between precedences: what came first waits
			if len(s.early) >= maxEarly {
				return s.broken(errors.New("the peer does not greet"))
			}
			s.early = append(s.early, said{p, msg})
			continue
		}
		if theirs, err = decodeHello(msg); err != nil {
			return s.broken(err)
		}
		break
	}
	s.heard.Store(time.Now().UnixNano())
	if theirs.Estate != s.o.Estate || theirs.Node != s.o.Peer {
		return s.broken(errors.New("the peer says that it is " + string(theirs.Node) + " of the estate " + theirs.Estate))
	}
	if s.o.Admit != nil {
		if err := s.o.Admit(theirs.Proof); err != nil {
			return err
		}
	}
	if err := s.heardIslands(&theirs); err != nil {
		return s.broken(err)
	}
	s.heardKept(theirs.Kept)
	if theirs.Life == mine.RemembersOf && theirs.RemembersOf == mine.Life {
		return nil
	}
	// One of us is not who the other knew: what was acknowledged may be lost, in either direction.
	if err := s.o.State.Forget(ctx, s.o.Peer); err != nil {
		return err
	}
	return s.o.State.Remember(ctx, s.o.Peer, theirs.Life)
}

const (
	greetTimeout = 5 * time.Minute // longer than any outage that a meeting may begin in
	maxEarly     = 64              // messages before the peer's hello
	keepEvery    = time.Second     // how late an acknowledgement is put on record
)

func (s *Session) broken(err error) error {
	return &redoubt.Error{Op: "replica.Run", Object: string(s.o.Peer), Kind: redoubt.Invalid, Err: err}
}

// say sends a message of the receiver's without holding it up.
func (s *Session) say(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	select {
	case s.voice <- said{p, msg}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Session) speak(ctx context.Context) error {
	for {
		select {
		case m := <-s.voice:
			if err := s.o.Conn.Send(ctx, m.p, m.msg); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow keeps the queues filled: it reconciles sets of which nothing is known, and reads the journals of the others as they grow.
func (s *Session) follow(ctx context.Context) error {
	for {
		grown := s.o.Journal.Changed()
		sets, err := s.o.Journal.Sets(ctx, s.o.Peer)
		if err != nil {
			return err
		}
		full := false
		for _, set := range sets {
			room, err := s.followSet(ctx, set)
			if err != nil {
				return err
			}
			full = full || !room
		}
		s.out.current(!full)
		select {
		case <-grown:
		case <-s.out.roomy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pageEntries is how much of a journal is read at once.
const pageEntries = 512

// followSet queues what is new of a set; room is false where the rest waits for room, of that set or of all.
func (s *Session) followSet(ctx context.Context, set string) (room bool, err error) {
	out, fresh := s.out.set(set)
	if fresh {
		budget, err := s.o.State.Budget(ctx, s.o.Peer, set)
		if err != nil {
			return false, err
		}
		s.out.fund(out, budget)
		at, known, err := s.o.State.Acknowledged(ctx, s.o.Peer, set)
		if err != nil {
			return false, err
		}
		if known {
			s.out.begin(out, at)
			s.asking[set] = true
		} else if err := s.discover(ctx, out); err != nil {
			return false, err
		}
	}
	for s.out.hasRoom(out) {
		after := s.out.position(out)
		refs, upTo, err := s.o.Journal.Since(ctx, s.o.Peer, set, after, pageEntries)
		if err != nil || upTo == after {
			return true, err
		}
		if s.asking[set] {
			last := len(refs) < pageEntries
			sure, others := s.surelyLacking(set, refs)
			s.queue(out, after, sure) // while it is asked for the others
			refs, err = s.winnow(ctx, out, others, last)
		}
		if err != nil {
			return false, err
		}
		s.queue(out, upTo, refs)
	}
	return false, nil
}

// queue puts entries of a page of a set's journal in their queues; the journal has been read up to upTo.
func (s *Session) queue(out *outgoing, upTo uint64, refs []redoubt.JournalRef) {
	queued := make([]*ref, len(refs))
	urgency := make([]redoubt.Precedence, len(refs))
	for i, r := range refs {
		queued[i], urgency[i] = &ref{at: r.Position, stamp: r.Stamp, size: r.SizeBytes}, r.Precedence
	}
	s.out.add(out, upTo, urgency, queued)
}

// discover reconciles a set and queues what the peer lacks.
func (s *Session) discover(ctx context.Context, out *outgoing) error {
	missing, upTo, err := s.reconcile(ctx, out.set)
	if err != nil {
		return err
	}
	s.o.Log.Info("replica found a difference", slog.String("peer", string(s.o.Peer)), slog.Int("entries", len(missing)))
	var refs []*ref
	var urgency []redoubt.Precedence
	for page := range slices.Chunk(missing, pageEntries) {
		told, err := s.o.Journal.Refs(ctx, s.o.Peer, out.set, page)
		if err != nil {
			return err
		}
		for _, r := range told { // what is left out is gone since, or superseded
			refs, urgency = append(refs, &ref{stamp: r.Stamp, size: r.SizeBytes}), append(urgency, r.Precedence)
		}
	}
	s.out.add(out, upTo, urgency, refs)
	return nil
}

// keep puts acknowledgements on record now and then, and sends again what was refused for now.
func (s *Session) keep(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.out.retry(now)
			s.out.renew(now)
			if err := s.settle(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Session) settle(ctx context.Context) error {
	if err := s.keepSpent(ctx); err != nil {
		return err
	}
	for out, at := range s.out.settled() {
		if err := s.o.State.Acknowledge(ctx, s.o.Peer, out.set, at); err != nil {
			return err
		}
		s.out.saved(out, at)
	}
	return nil
}

// tally counts entries by label set, and the bytes of those sent.
type tally struct {
	mu                    sync.Mutex
	sent, received, bytes map[string]int64
	rested                map[string]int64 // bytes when nothing waited last
}

// rest notes that nothing waits.
func (t *tally) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rested = maps.Clone(t.bytes)
}

func (t *tally) add(set string, sent, bytes, received int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sent == nil {
		t.sent, t.received, t.bytes = map[string]int64{}, map[string]int64{}, map[string]int64{}
	}
	t.sent[set] += sent
	t.bytes[set] += bytes
	t.received[set] += received
}

func (t *tally) read() (sent, bytes, rested, received map[string]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.sent), maps.Clone(t.bytes), maps.Clone(t.rested), maps.Clone(t.received)
}

// Status is a session as it stands.
type Status struct {
	LastHeard time.Time
	Sent      map[string]int64 // by label set: entries that the peer acknowledged
	SentBytes map[string]int64 // of their content
	Rested    map[string]int64 // of that, what had been sent when nothing waited last
	UnderWay  map[string]int64 // content that is on the road and not acknowledged, of entries that are sent in segments
	Received  map[string]int64 // by label set: entries that were taken from it
}

// Status covers every label set within the link's bound; who shows it leaves out what its reader does not dominate.
func (s *Session) Status() Status {
	st := Status{}
	st.Sent, st.SentBytes, st.Rested, st.Received = s.tally.read()
	st.UnderWay = s.out.underWay()
	if at := s.heard.Load(); at > 0 {
		st.LastHeard = time.Unix(0, at)
	}
	return st
}
