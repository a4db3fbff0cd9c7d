package carry

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"sync"
	"time"

	"redoubt"
)

// Times of a link.
const (
	outageFloor   = 500 * time.Millisecond // silence shorter than this is no outage, however short the round trip
	outageTrips   = 3                      // and neither is less than this many round trips
	probeEvery    = 200 * time.Millisecond // while a link is down
	mostAckDelay  = 50 * time.Millisecond
	leastAckDelay = time.Millisecond
	ackEvery      = 32 // datagrams
	idleCheck     = time.Second
)

// link is a Conn over datagrams. Its fields below mu have one owner: whoever holds it.
type link struct {
	endpoint *Endpoint
	local    connID
	peer     *x509.Certificate
	dialled  bool
	clock    time.Time // the beginning of this side's microseconds

	kick  chan struct{} // wakes run; one place
	ended chan struct{} // closed when the link has ended
	quiet chan struct{} // closed when run has returned

	mu   sync.Mutex
	seal *sealer
	open *opener
	out  outbox
	in   inbox
	ways ways

	state     State // Up: a way in use is
	since     time.Time
	heard     time.Time
	owed      uint8                    // windows that the peer must hear of, a bit for each precedence
	reply     []reply                  // what goes out at once, to where it was asked
	waiting   [redoubt.Precedences]int // Sends that wait for room
	lostCount uint64
	bytes     struct{ sent, received uint64 }
	cause     error         // why it has ended
	mail      chan struct{} // closed and made anew when a message comes
	room      chan struct{} // closed and made anew when a queue has emptied
	flashTurn int           // which FLASH stretch the next probe carries
	plain     []byte
	packet    []byte
	opened    []byte
	contents  contents

	verdict     []byte // what the handshake's server repeats to a client that asks
	verdictSent time.Time
	announced   bool // to Accept

	ackBuffer [ackBits / 8]byte
}

// reply is a small datagram of a lane to the address that asked, which may be a stranger's.
type reply struct {
	way       *way
	to        path
	challenge []byte
	responses [][8]byte
}

// session is what a handshake leaves behind.
type session struct {
	local, remote connID
	read, write   []byte // traffic secrets
	peer          *x509.Certificate
	roundTrip     time.Duration
	paths         []path
	dialled       bool
	unproved      bool // it is not known yet that the peer is at the first path
}

func newLink(e *Endpoint, s session) (*link, error) {
	now := e.now()
	l := &link{
		endpoint: e, local: s.local, peer: s.peer, dialled: s.dialled, clock: now,
		kick: make(chan struct{}, 1), ended: make(chan struct{}), quiet: make(chan struct{}),
		mail: make(chan struct{}), room: make(chan struct{}),
		since: now, heard: now,
	}
	l.out.init(streamWindow)
	for p := range l.in {
		l.in[p].init()
	}
	for i, p := range s.paths {
		w := newWay(p, i, s.roundTrip, now)
		if i == 0 {
			r := e.config.Recall(s.peer)
			w.pace.recall(r)
			w.sizer.recall(r.DatagramBytes, now)
		}
		first := i == 0 && !s.unproved
		if w.proved, w.inUse, w.wanted = first, first, i == 0; i > 0 {
			w.state = Down // until a probe is answered
		}
		l.ways.add(w)
	}
	var err error
	if l.seal, err = newSealer(s.write, s.remote); err != nil {
		return nil, err
	}
	l.open, err = newOpener(s.read)
	return l, err
}

// Send implements Conn.
func (l *link) Send(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	const op = "carry.Send"
	if err := checkMessage(op, p, msg); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.mu.Lock()
		if l.cause != nil {
			l.mu.Unlock()
			return ended(op, l.cause)
		}
		if l.out[p].queued() < l.queueBytes() {
			l.out[p].put(msg)
			l.mu.Unlock()
			l.wake()
			return nil
		}
		room := l.room
		l.waiting[p]++
		l.mu.Unlock()
		select {
		case <-room:
		case <-l.ended:
		case <-ctx.Done():
		}
		l.mu.Lock()
		l.waiting[p]--
		l.mu.Unlock()
	}
}

// queueBytes is what a queue holds: what the link takes in QueueTime.
func (l *link) queueBytes() int {
	return int(min(max(l.rate()*QueueTime.Seconds(), QueueBytes), queueMost))
}

// rate is what the ways in use take together.
func (l *link) rate() (sum float64) {
	for _, w := range l.ways.list {
		if w.inUse && w.state == Up {
			sum += w.pace.rate
		}
	}
	if sum == 0 { // an outage: that from before it
		sum = l.ways.best().pace.rate
	}
	return sum
}

// Receive implements Conn.
func (l *link) Receive(ctx context.Context) (redoubt.Precedence, []byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		l.mu.Lock()
		p, msg := l.in.receive()
		if msg != nil {
			owes := l.in[p].owes()
			if owes {
				l.owed |= 1 << p
			}
			l.mu.Unlock()
			if owes {
				l.wake()
			}
			return p, msg, nil
		}
		if l.cause != nil {
			l.mu.Unlock()
			return 0, nil, ended("carry.Receive", l.cause)
		}
		mail := l.mail
		l.mu.Unlock()
		select {
		case <-mail:
		case <-l.ended:
		case <-ctx.Done():
		}
	}
}

// Coming shows what has come of the messages of a precedence that Receive has not given, also where something before them is lacking, and after the
// Conn has ended. n counts the messages, from 0: the one that Receive gives next; length is how long it is, and data stands in it from at on. Each
// message is told of once with nothing, then with what is there of it, in its order; they end where a length has not come. each is called
// with the Conn's lock held: it copies what it wants, and calls nothing of the Conn. What is shown is authentic as what Receive gives,
// and Receive gives it all the same.
func (l *link) Coming(p redoubt.Precedence, each func(n, length, at int, data []byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in[p].coming(each)
}

// Recycle implements Conn.
func (l *link) Recycle(msg []byte) { recycle(msg) }

// Peer implements Conn.
func (l *link) Peer() *x509.Certificate { return l.peer }

// Stats implements Conn.
func (l *link) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	best := l.ways.best()
	s := Stats{
		State: l.state, Since: l.since, LastHeard: l.heard, RTT: best.pace.rtt.smooth, BytesPerSec: l.rate(),
		SentBytes: l.bytes.sent, ReceivedBytes: l.bytes.received, Lost: l.lostCount,
		DatagramBytes: best.sizer.size, Remote: best.remote.String(), Road: best.pace.road(),
	}
	if s.Road.BytesPerSec > 0 && best.sizer.size > floorDatagram {
		s.Road.DatagramBytes = min(best.sizer.size, usualSizes[0])
	}
	for _, w := range l.ways.list {
		s.Paths = append(s.Paths, PathStats{Remote: w.remote.String(), State: w.state, InUse: w.inUse && w.state == Up, RTT: w.pace.rtt.smooth, BytesPerSec: w.pace.rate})
	}
	for p := range l.out {
		s.QueuedBytes[p], s.UnackedBytes[p] = l.out[p].queued(), l.out[p].unacked()
	}
	return s
}

var (
	errClosed     = errors.New("closed on this side")
	errPeerClosed = errors.New("closed by the peer")
	errSilence    = errors.New("nothing was heard for too long")
	errForgotten  = errors.New("the peer does not know this connection any more")
	errWornOut    = errors.New("the peer never took the next key")
	errExpired    = errors.New("the peer's certificate is past its time")
)

// Close implements Conn.
func (l *link) Close() error {
	l.mu.Lock()
	if l.cause == nil {
		l.sayClosed()
	}
	l.end(errClosed)
	l.mu.Unlock()
	<-l.quiet
	l.endpoint.forget(l.local)
	return nil
}

// end makes the link a thing of the past, with the lock held. The first cause stands.
func (l *link) end(cause error) {
	if l.cause != nil {
		return
	}
	l.cause = cause
	close(l.ended)
}

// wake has run look at what there is to do.
func (l *link) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// run sends what is due until the link has ended.
func (l *link) run() {
	defer close(l.quiet)
	defer l.wipe()
	defer l.endpoint.forget(l.local)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.kick:
		case <-timer.C:
		case <-l.ended:
			return
		}
		l.mu.Lock()
		wait := l.turn(l.endpoint.now())
		l.mu.Unlock()
		timer.Reset(wait)
	}
}

// wipe forgets the secrets, as far as Go allows: expanded keys cannot be.
func (l *link) wipe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.seal.secret)
	clear(l.open.secret)
}

// random fills b; a source that fails ends the link rather than being worked around.
func (l *link) random(b []byte) bool {
	if _, err := io.ReadFull(l.endpoint.config.Rand, b); err != nil {
		l.end(err)
		return false
	}
	return true
}
