package carry

import (
	"bytes"
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
	w := l.way(c.lane, from, now)
	if w == nil || !w.received.fresh(c.number) {
		return
	}
	l.bytes.received += uint64(len(datagram))
	silence := now.Sub(w.heard)
	l.heard, w.heard = now, now
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
	l.follow(w, c, from, now)
	if taken {
		l.acknowledge(w, c, from, silence, now)
	}
	for _, w := range c.windows {
		o := &l.out[w.precedence]
		o.limit = max(o.limit, w.limit)
	}
	if c.hasAck {
		if err := l.takeAck(w, c.ack, now); err != nil {
			l.end(&redoubt.Error{Op: "carry", Kind: redoubt.Invalid, Err: err})
			return
		}
	}
	l.wake()
}

// way gives the way of a lane. The side that dialled has named its own at the beginning; the other learns of each when it is
// first heard, and sends nothing of its own there before the peer has proved to be at that address.
func (l *link) way(lane int, from path, now time.Time) *way {
	w := l.ways.lanes[lane]
	if w == nil && !l.dialled {
		w = newWay(from, lane, l.ways.best().pace.rtt.smooth, now)
		l.ways.add(w)
	}
	return w
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
func (l *link) acknowledge(w *way, c *contents, from path, silence time.Duration, now time.Time) {
	gap := w.received.any && c.number != w.received.largest+1
	w.received.add(c.number, now)
	if !c.eliciting() {
		return
	}
	w.received.pending++
	delay := w.pace.rtt.ackDelay()
	urgent := c.ping || c.probe || gap || w.received.pending >= ackEvery || silence > outageFloor
	for _, p := range c.pieces {
		urgent = urgent || p.precedence == redoubt.Flash
	}
	if urgent {
		delay = 0
	}
	w.ackAll = w.ackAll || c.probe || silence > outageFloor
	if due := now.Add(delay); w.received.due.IsZero() || due.Before(w.received.due) {
		w.received.due = due
	}
	if l.dialled {
		from = w.path
	}
	if c.probe {
		l.answer(w, from)
	}
	if len(c.challenges) > 0 {
		r := l.answer(w, from)
		for _, x := range c.challenges {
			if len(r.responses) < maxOfAKind {
				r.responses = append(r.responses, x)
			}
		}
	}
}

// maxReplies of one turn: more come only from who sends datagrams from ever new addresses.
const maxReplies = 4 * maxPaths

// answer gives the reply that is to go out by a lane to an address.
func (l *link) answer(w *way, to path) *reply {
	for i := range l.reply {
		if l.reply[i].way == w && l.reply[i].to == to {
			return &l.reply[i]
		}
	}
	if len(l.reply) >= maxReplies {
		return &reply{}
	}
	l.reply = append(l.reply, reply{way: w, to: to})
	return &l.reply[len(l.reply)-1]
}

// follow is for the side that was dialled: a lane's path is where its newest datagram comes from, once a challenge has proved that
// the peer is there; and it is in use where the peer uses it.
func (l *link) follow(w *way, c *contents, from path, now time.Time) {
	if l.dialled || w.received.any && c.number < w.received.largest {
		return
	}
	if w.wanted = (w.wanted || c.ping || len(c.pieces) > 0) && !c.probe; w.wanted != w.inUse {
		defer l.choose(now)
	}
	if w.proved && from == w.path {
		return
	}
	s := w.stranger(from, now)
	if s == nil {
		return
	}
	for _, r := range c.responses {
		if !s.challenged.IsZero() && r == s.challenge && now.Sub(s.challenged) < challengeLife {
			w.moves(from, now.Sub(s.challenged), now)
			l.choose(now)
			return
		}
	}
	if now.Sub(s.challenged) > challengeGap && l.random(s.challenge[:]) {
		s.challenged = now
		l.answer(w, from).challenge = bytes.Clone(s.challenge[:])
	}
}

// choose says anew which ways are in use, after something has changed. While one of them is up, what is under way on those
// that are not goes again by it.
func (l *link) choose(now time.Time) {
	state := Down
	if l.ways.choose(l.dialled) {
		state = Up
	}
	if state != l.state {
		l.state, l.since = state, now
	}
	if l.state == Down {
		return
	}
	for _, w := range l.ways.list {
		if w.state == Down {
			w.flight.abandon(func(s *sent) { l.missed(w, s, now) })
		}
	}
}

// takeAck takes what the peer has received of a lane.
func (l *link) takeAck(w *way, a ack, now time.Time) error {
	n, err := w.flight.ack(a, now)
	if err != nil {
		return err
	}
	if n.datagrams == 0 {
		return nil
	}
	w.answered(now)
	if n.newest != nil {
		held := time.Duration(a.delay) * ackDelayUnit
		l.up(w, now.Sub(n.newest.at)-held, now)
		if a.delay < longestDelay { // else nobody knows how long it was held: it came before an outage and is told of after it
			m := mark{a.receivedAt, n.newest.at, n.newest.sentBytes}
			w.pace.arrived(now, n.newest.at, l.clock, m, held, n.datagrams, w.sizer.size, n.newest.limited)
		}
		w.sizer.fate(n.newest.size-ipOverhead, false, now)
	}
	for _, size := range n.sizes {
		w.sizer.passed(size, now)
	}
	w.flight.overtaken(now.Add(-w.patience()), func(s *sent) { l.missed(w, s, now) })
	return l.seal.rekey(n.epoch)
}

// up ends a way's outage, if there is one, with the first answer, at the rate from before it.
func (l *link) up(w *way, roundTrip time.Duration, now time.Time) {
	if w.state == Up {
		return
	}
	w.state, w.since = Up, now
	w.pace.round = round{}
	if l.dialled && !w.proved {
		w.proved = true
		w.pace.restart(max(roundTrip, time.Millisecond))
	}
	l.choose(now)
}

// missed puts what a lost datagram carried back into the queues.
func (l *link) missed(w *way, s *sent, now time.Time) {
	if s.sizeProbe {
		w.sizer.failed(now, false)
		return
	}
	l.lostCount++
	l.owed |= s.windows
	if w.state == Up { // what an outage took falls into a round that is limited, by the probe that ended it
		w.pace.missed(1)
		w.sizer.fate(s.size-ipOverhead, true, now)
	}
	for _, c := range s.carries {
		c.of.missed(c)
	}
}
