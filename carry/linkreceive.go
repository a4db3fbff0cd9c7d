package carry

import (
	"time"

	"redoubt"
)

// deliver takes a datagram that names this link. What does not open, was seen before or is not of the format
// leaves no trace.
func (l *link) deliver(datagram []byte, from path) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	now := l.endpoint.now()
	plain, err := l.open.open(l.opened[:0], datagram)
	if err != nil {
		return
	}
	l.opened = plain
	c := &l.contents
	if c.decode(plain) != nil {
		return
	}
	if !l.received.fresh(c.number) {
		return
	}
	l.bytes.received += uint64(len(datagram))
	silence := now.Sub(l.heard)
	l.heard = now
	l.announce()
	if c.closed {
		l.end(errPeerClosed)
		return
	}
	taken, err := l.takePieces(c.pieces)
	if err != nil {
		l.end(&redoubt.Error{Op: "carry", Kind: redoubt.Invalid, Err: err})
		return
	}
	way := l.takePath(c, from, now)
	if taken {
		l.acknowledge(c, way, silence, now)
	}
	for _, w := range c.windows {
		o := &l.out[w.precedence]
		o.limit = max(o.limit, w.limit)
	}
	if c.hasAck {
		if err := l.takeAck(c.ack, now); err != nil {
			l.end(&redoubt.Error{Op: "carry", Kind: redoubt.Invalid, Err: err})
			return
		}
	}
	l.wake()
}

// takePieces puts what came into the streams. taken is false when something could not be kept.
func (l *link) takePieces(pieces []piece) (taken bool, err error) {
	taken = true
	whole := false
	for _, p := range pieces {
		in := &l.in[p.precedence]
		before := len(in.ready)
		kept, err := in.put(p.offset, p.data)
		if err != nil {
			return false, err
		}
		taken = taken && kept
		whole = whole || len(in.ready) > before
	}
	if whole {
		close(l.mail)
		l.mail = make(chan struct{})
	}
	return taken, nil
}

// acknowledge notes what came, and when that must be said.
func (l *link) acknowledge(c *contents, way int, silence time.Duration, now time.Time) {
	gap := l.received.any && c.number != l.received.largest+1
	l.received.add(c.number, now)
	if !c.eliciting() {
		return
	}
	l.received.pending++
	delay := l.pace.rtt.ackDelay()
	urgent := c.ping || c.probe || gap || l.received.pending >= ackEvery || silence > outageFloor
	for _, p := range c.pieces {
		urgent = urgent || p.precedence == redoubt.Flash
	}
	if urgent {
		delay = 0
	}
	l.ackAll = l.ackAll || c.probe || silence > outageFloor
	if due := now.Add(delay); l.received.due.IsZero() || due.Before(l.received.due) {
		l.received.due = due
	}
	if c.probe && way >= 0 {
		l.answer(way)
	}
	if len(c.challenges) > 0 && way >= 0 {
		r := l.answer(way)
		for _, x := range c.challenges {
			if len(r.responses) < maxOfAKind {
				r.responses = append(r.responses, x)
			}
		}
	}
}

// answer gives the reply that is to go out on a path.
func (l *link) answer(way int) *reply {
	for i := range l.reply {
		if l.reply[i].way == way {
			return &l.reply[i]
		}
	}
	l.reply = append(l.reply, reply{way: way})
	return &l.reply[len(l.reply)-1]
}

// takePath follows the peer to where it is heard: the side that was dialled moves to where the other sends from, once
// a challenge has proved that it is there. The path's index, or -1 when there are too many.
func (l *link) takePath(c *contents, from path, now time.Time) int {
	i := l.ways.learn(from, now)
	if i < 0 {
		return -1
	}
	w := &l.ways.list[i]
	w.heard = now
	for _, r := range c.responses {
		if !w.challenged.IsZero() && r == w.challenge && now.Sub(w.challenged) < challengeLife {
			w.proved = true
		}
	}
	if !w.proved && now.Sub(w.challenged) > challengeGap && l.random(w.challenge[:]) {
		w.challenged = now
		l.answer(i).challenge = true
	}
	newest := !l.received.any || c.number > l.received.largest
	if !l.dialled && w.proved && newest && !c.probe && i != l.ways.active {
		l.move(i, now)
	}
	return i
}

// move sends by another path from now on, of which nothing is known yet but that it is up.
func (l *link) move(way int, now time.Time) {
	l.ways.active = way
	l.pace.restart(l.pace.rtt.smooth)
	l.sizer = newSizer(now)
	if !l.flight.silent.IsZero() {
		l.flight.silent = now
	}
}

// takeAck takes what the peer has received.
func (l *link) takeAck(a ack, now time.Time) error {
	n, err := l.flight.ack(a, l.ways.active, now)
	if err != nil {
		return err
	}
	if n.datagrams == 0 {
		return nil
	}
	if n.newest != nil {
		l.up(n, now)
		m := mark{a.receivedAt, n.newest.at, n.newest.sentBytes}
		if n.path == l.ways.active {
			l.pace.arrived(now, n.newest.at, l.clock, m, time.Duration(a.delay)*ackDelayUnit, n.datagrams, l.sizer.size, n.newest.limited)
		}
		l.sizer.fate(n.newest.size-ipOverhead, false, now)
	}
	for _, size := range n.sizes {
		l.sizer.passed(size, now)
	}
	l.flight.overtaken(now.Add(-l.patience()), func(s *sent) { l.missed(s, now) })
	if err := l.seal.rekey(l.flight.acked, l.flight.next()); err != nil {
		return err
	}
	return nil
}

// up ends an outage, if there is one, with the first answer, at the rate from before it.
func (l *link) up(n news, now time.Time) {
	if l.state == Up {
		return
	}
	l.state, l.since = Up, now
	l.pace.round = round{}
	if l.dialled && n.path != l.ways.active {
		l.ways.list[n.path].proved = true
		l.move(n.path, now)
	}
}

// missed puts what a lost datagram carried back into the queues.
func (l *link) missed(s *sent, now time.Time) {
	if s.sizeProbe {
		l.sizer.failed(now, false)
		return
	}
	l.lostCount++
	l.owed |= s.windows
	if s.path == l.ways.active && l.state == Up { // what an outage took falls into a round that is limited, by the probe that ended it
		l.pace.missed(1)
		l.sizer.fate(s.size-ipOverhead, true, now)
	}
	for _, c := range s.carries {
		c.of.missed(c)
	}
}
