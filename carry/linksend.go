package carry

import (
	"time"

	"redoubt"
)

// turn does everything that is due and says when to look again.
func (l *link) turn(now time.Time) time.Duration {
	if l.cause != nil {
		return time.Hour
	}
	if now.Sub(l.heard) > l.endpoint.config.MaxSilence {
		l.end(errSilence)
		return time.Hour
	}
	if now.After(l.peer.NotAfter) {
		l.end(&redoubt.Error{Op: "carry", Kind: redoubt.Expired, Err: errExpired})
		return time.Hour
	}
	if l.endpoint.silent.Load() {
		for _, w := range l.ways.list {
			w.ackAll = true
		}
		return idleCheck
	}
	l.sendReplies(now)
	wait := idleCheck
	for _, w := range l.ways.list {
		wait = min(wait, l.watch(w, now))
	}
	if l.state == Up {
		wait = min(wait, l.sendQueued(now))
	}
	for _, w := range l.ways.list {
		wait = min(wait, l.tend(w, now))
	}
	if w := l.ways.best(); l.owed != 0 && (w.proved || l.dialled) {
		l.sendControl(w, now)
	}
	return max(wait, 0)
}

// tend does what a way needs beside what is queued: probes while it is down, signs of life, and answers.
func (l *link) tend(w *way, now time.Time) (wait time.Duration) {
	wait = idleCheck
	switch {
	case w.state == Down:
		wait = l.probe(w, now)
	case !w.hushed.IsZero():
		if wait = probeEvery - now.Sub(w.probed); wait <= 0 {
			w.probed, wait = now, probeEvery
			l.sendProbe(w, now)
		}
	case w.ping:
		l.sendPing(w, now)
	case l.dialled && now.Sub(w.askedAt) >= l.endpoint.config.KeepAlive: // so that translations of addresses stand
		l.sendPing(w, now)
	}
	if w.received.pending > 0 && w.proved {
		if due := w.received.due.Sub(now); due > 0 {
			wait = min(wait, due)
		} else {
			l.sendControl(w, now)
		}
	}
	return wait
}

// watch finds what silence tells: a lost tail, and an outage.
func (l *link) watch(w *way, now time.Time) time.Duration {
	if w.flight.silent.IsZero() || w.state == Down {
		return idleCheck
	}
	outage := max(outageTrips*w.pace.rtt.smooth, outageFloor) - now.Sub(w.flight.silent)
	if outage <= 0 {
		w.state, w.since, w.hushed = Down, now, time.Time{}
		l.choose(now)
		return 0
	}
	patience := w.patience()
	tail := patience - now.Sub(later(w.flight.lastSent, w.flight.silent))
	if tail <= 0 {
		w.tails = tailDatagrams
		w.flight.tail(tailDatagrams, func(s *sent) { l.missed(w, s, now) })
		if len(l.ways.list) > 1 || !l.out.sendable() { // what it carried may go by another way
			l.sendPing(w, now)
		}
		tail = patience
	}
	return min(outage, tail)
}

// tailDatagrams are sent again when nothing is answered.
const tailDatagrams = 2

// patience is how long an answer may take: RFC 9002 section 6.2.1.
func (w *way) patience() time.Duration {
	return w.pace.rtt.smooth + max(4*w.pace.rtt.vary, 2*leastAckDelay) + mostAckDelay
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// probe asks whether a way is back; in an outage of the whole link with a stretch of FLASH if one waits.
func (l *link) probe(w *way, now time.Time) time.Duration {
	if !w.proved && !l.dialled {
		return idleCheck
	}
	if wait := l.probeGap(w, now) - now.Sub(w.probed); wait > 0 {
		return wait
	}
	w.probed = now
	if l.state == Up {
		w.flight.abandon(func(s *sent) { l.missed(w, s, now) })
	}
	l.sendProbe(w, now)
	return l.probeGap(w, now)
}

// probeGap is the time between two probes. While another way is up there is less haste the longer this one has been down.
func (l *link) probeGap(w *way, now time.Time) time.Duration {
	if l.state == Down {
		return probeEvery
	}
	return min(max(probeEvery, now.Sub(w.since)/probeShare), max(l.endpoint.config.KeepAlive, probeEvery))
}

// probeShare: a path that was down for so long is found again after at most one part in probeShare more.
const probeShare = 16

// begin starts the plaintext of the next datagram.
func (l *link) begin(w *way) {
	l.plain = appendUint48(l.plain[:0], uint64(w.lane)<<laneShift|w.flight.next())
}

// addAck adds what was received by the way, if anything was: an answer takes the path of what it answers.
func (l *link) addAck(w *way, now time.Time) {
	if w.received.any && (w.received.pending > 0 || w.ackAll) {
		l.plain = appendAck(l.plain, w.received.ack(now, l.clock, w.ackAll, l.ackBuffer[:0]))
		w.ackAll = false
	}
}

// addWindows adds the windows that the peer must hear of, and says which.
func (l *link) addWindows() (told uint8) {
	told = l.owed
	for p := range l.in {
		if told>>p&1 == 1 {
			in := &l.in[p]
			in.told = in.limit()
			l.plain = appendWindow(l.plain, window{redoubt.Precedence(p), in.told})
		}
	}
	l.owed = 0
	return told
}

// leastPiece is the least worth adding to a datagram that carries something already.
const leastPiece = 64

func (l *link) addStretch(st *stretch) {
	st.copies++
	l.plain = appendPieceHeader(l.plain, st.of.precedence, st.span.from, int(st.span.to-st.span.from))
	l.plain = st.of.appendBytes(l.plain, st.span)
}

// sendControl sends what the peer must hear though there is nothing to send.
func (l *link) sendControl(w *way, now time.Time) {
	l.begin(w)
	l.addAck(w, now)
	told := uint8(0)
	if w.inUse {
		told = l.addWindows()
	}
	ask := l.seal.sealed >= l.seal.limit // who only answers must hear that the key is known before it takes the next
	if ask {
		l.plain = append(l.plain, w.asks())
	}
	l.transmit(now, w, w.path, sent{eliciting: told != 0 || ask, windows: told, limited: true})
}

// asks is the frame that asks for an answer: where a way only stands by, a probe, so that the peer does not use it either.
func (w *way) asks() byte {
	if w.inUse {
		return framePing
	}
	return frameProbe
}

// sendPing asks for an answer.
func (l *link) sendPing(w *way, now time.Time) {
	w.ping = false
	l.begin(w)
	l.addAck(w, now)
	l.plain = append(l.plain, w.asks())
	l.transmit(now, w, w.path, sent{eliciting: true, limited: true})
}

// sendProbe asks whether a way is back.
func (l *link) sendProbe(w *way, now time.Time) {
	l.begin(w)
	w.ackAll = true
	l.addAck(w, now)
	frame := byte(frameProbe)
	if w.state == Up {
		frame = w.asks()
	}
	l.plain = append(l.plain, frame)
	s := sent{eliciting: true, limited: true}
	if l.state == Down {
		if st := l.flashToProbeWith(w); st != nil {
			l.addStretch(st)
			s.carries = append(s.carries, st)
		}
	}
	l.transmit(now, w, w.path, s)
	copy(w.probes[w.probeTurn%len(w.probes)][:], l.packet)
	w.probeTurn++
}

// How often a stretch of FLASH goes with any probe, and how many probes there are afterwards for one that it goes with.
const (
	flashOften = 10
	flashThin  = 5
)

// flashToProbeWith takes turns among the FLASH that has not arrived: so it gets through to a peer
// that only listens. A stretch that went often goes with one probe in flashThin from then on: most often nobody listens.
func (l *link) flashToProbeWith(w *way) *stretch {
	o := &l.out[redoubt.Flash]
	const most = floorDatagram - sealedOverhead - ackFixed - ackBits/8 - 1 - pieceOverhead
	if o.next < min(o.end, o.limit) || len(o.lost) > 0 {
		return o.take(most, lostOnes|newOnes, w.lane)
	}
	var open []*stretch
	for _, way := range l.ways.list {
		for i := range way.flight.records {
			for _, c := range way.flight.records[i].carries {
				if c.of == o && !o.has(c.span) && c.span.from >= o.floor() && c.span.to-c.span.from <= most && (c.probes < flashOften || w.probeTurn%flashThin == 0) {
					open = append(open, c)
				}
			}
		}
	}
	if len(open) == 0 {
		return nil
	}
	l.flashTurn++
	st := open[l.flashTurn%len(open)]
	st.probes++
	return st
}

// sendSize tries a size.
func (l *link) sendSize(w *way, now time.Time, size int) {
	l.begin(w)
	l.plain = append(l.plain, framePing)
	l.plain = append(l.plain, make([]byte, size-sealedOverhead+numberSize-len(l.plain))...)
	w.sizer.sent()
	if l.transmit(now, w, w.path, sent{eliciting: true, sizeProbe: true, limited: true}) == 0 {
		w.sizer.failed(now, true)
	}
}

// sendReplies answers where something was asked. Whether a stranger answers says nothing of the path that is in use.
func (l *link) sendReplies(now time.Time) {
	replies := l.reply
	l.reply = l.reply[:0]
	for _, r := range replies {
		l.begin(r.way)
		r.way.ackAll = true
		l.addAck(r.way, now)
		s := sent{limited: true}
		for _, x := range r.responses {
			l.plain = append(append(l.plain, frameResponse), x[:]...)
			s.eliciting = r.to == r.way.path && r.way.proved
		}
		if r.challenge != nil {
			l.plain = append(append(l.plain, frameChallenge), r.challenge...)
		}
		l.transmit(now, r.way, r.to, s)
	}
}

// sayClosed tells the peer, twice, since nobody will repeat it.
func (l *link) sayClosed() {
	if l.endpoint.silent.Load() {
		return
	}
	now := l.endpoint.now()
	for range 2 {
		for _, w := range l.ways.list {
			if w.inUse {
				l.begin(w)
				l.plain = append(l.plain, frameClose)
				l.transmit(now, w, w.path, sent{})
			}
		}
	}
}

// transmit seals and sends the plaintext by a way to an address, and gives its size on the link; 0 when the machine refused it for its size.
func (l *link) transmit(now time.Time, w *way, to path, s sent) int {
	l.packet = l.seal.seal(l.packet[:0], l.plain)
	copy(w.recent[w.sentTurn%len(w.recent)][:], l.packet)
	w.sentTurn++
	s.at, s.epoch, s.size = now, l.seal.epoch, len(l.packet)+ipOverhead
	tooLarge := l.endpoint.send(to, l.packet)
	if tooLarge && s.sizeProbe {
		s.eliciting, s.sizeProbe = false, false
	}
	w.flight.add(s)
	if s.eliciting {
		w.askedAt = now
	}
	if l.seal.sealed >= mostSealed {
		l.end(errWornOut)
	}
	l.bytes.sent += uint64(len(l.packet))
	w.pace.sent(now, s.size)
	if s.repeated {
		w.spare -= s.size
	} else if len(s.carries) > 0 {
		w.spare = min(w.spare+s.size/repeatShare, spareDatagrams*w.sizer.size)
	}
	if tooLarge {
		return 0
	}
	return s.size
}
