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
		l.ackAll = true
		return idleCheck
	}
	l.sendReplies(now)
	wait := l.watch(now)
	if l.state == Down {
		wait = min(wait, l.probe(now))
	} else {
		wait = min(wait, l.sendQueued(now), l.keepAlive(now))
	}
	if l.received.pending > 0 {
		if due := l.received.due.Sub(now); due > 0 {
			wait = min(wait, due)
		} else {
			l.sendControl(now)
		}
	}
	if l.owed != 0 {
		l.sendControl(now)
	}
	return max(wait, 0)
}

// watch finds what silence tells: a lost tail, and an outage.
func (l *link) watch(now time.Time) time.Duration {
	if l.flight.silent.IsZero() || l.state == Down {
		return idleCheck
	}
	outage := max(outageTrips*l.pace.rtt.smooth, outageFloor) - now.Sub(l.flight.silent)
	if outage <= 0 {
		l.state, l.since = Down, now
		return 0
	}
	patience := l.patience()
	tail := patience - now.Sub(later(l.flight.lastSent, l.flight.silent))
	if tail <= 0 {
		l.flight.tail(2, func(s *sent) { l.missed(s, now) })
		if !l.out.sendable() {
			l.sendPing(now, l.ways.active, false)
		}
		tail = patience
	}
	return min(outage, tail)
}

// patience is how long an answer may take: RFC 9002 section 6.2.1.
func (l *link) patience() time.Duration {
	return l.pace.rtt.smooth + max(4*l.pace.rtt.vary, 2*leastAckDelay) + mostAckDelay
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// probe asks on every path whether the link is back, with a stretch of FLASH if one waits.
func (l *link) probe(now time.Time) time.Duration {
	if wait := probeEvery - now.Sub(l.probed); wait > 0 {
		return wait
	}
	l.probed = now
	for i := range l.ways.list {
		if i == l.ways.active || l.dialled || l.ways.list[i].proved {
			l.sendProbe(now, i)
		}
	}
	return probeEvery
}

// keepAlive keeps address translations and standing paths open, from the side that dialled.
func (l *link) keepAlive(now time.Time) time.Duration {
	every := l.endpoint.config.KeepAlive
	if !l.dialled {
		return idleCheck
	}
	if len(l.ways.list) > 1 && now.Sub(l.warmed) >= every {
		l.warmed = now
		for i := range l.ways.list {
			if i != l.ways.active {
				l.sendPing(now, i, true)
			}
		}
	}
	if now.Sub(l.askedAt) >= every {
		l.sendPing(now, l.ways.active, false)
	}
	return idleCheck
}

// sendQueued sends from the queues as fast as the pace allows.
func (l *link) sendQueued(now time.Time) time.Duration {
	sentAny := false
	defer func() {
		if sentAny {
			close(l.room)
			l.room = make(chan struct{})
		}
	}()
	for {
		if wait := l.pace.allow(now); wait > 0 {
			return wait
		}
		if size := l.sizer.probe(now, l.pace.rate); size > 0 {
			l.sendSize(now, size)
			continue
		}
		p, ok := l.out.pick(l.sizer.size)
		if !ok {
			return idleCheck // Send, or a wider window, will wake us
		}
		window := l.pace.window(l.sizer.size)
		if p == redoubt.Flash {
			window += flashRoom
		}
		if l.flight.bytes >= window {
			return idleCheck // an ACK will wake us
		}
		if l.sendData(now, p) {
			sentAny = true
		}
	}
}

// flashRoom is how much FLASH may be under way beyond what the rest may.
const flashRoom = 64 << 10

// begin starts the plaintext of the next datagram.
func (l *link) begin() {
	l.plain = appendUint48(l.plain[:0], l.flight.next())
}

// addAck adds what was received, if anything was.
func (l *link) addAck(now time.Time) {
	if l.received.any && (l.received.pending > 0 || l.ackAll) {
		l.plain = appendAck(l.plain, l.received.ack(now, l.clock, l.ackAll, l.ackBuffer[:0]))
		l.ackAll = false
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

// sendData sends one datagram that begins with precedence p and is filled up from those below; false when all
// that was to be sent again has arrived meanwhile.
func (l *link) sendData(now time.Time, p redoubt.Precedence) bool {
	if !l.out[p].prune() {
		return false
	}
	l.begin()
	l.addAck(now)
	s := sent{eliciting: true, windows: l.addWindows()}
	room := l.sizer.size - sealedOverhead + numberSize
	first := true
	for i := p; ; i-- {
		if left := room - len(l.plain) - pieceOverhead; left >= leastPiece || first {
			if st := l.out[i].take(left); st != nil {
				l.addStretch(st)
				s.carries = append(s.carries, st)
				if first = false; room-len(l.plain)-pieceOverhead >= leastPiece {
					i++ // there may be more of the same
					continue
				}
			}
		}
		if i == 0 {
			break
		}
	}
	s.limited = !l.out.sendable()
	size := l.transmit(now, l.ways.active, s)
	l.out.sent(p, size)
	return true
}

// leastPiece is the least worth adding to a datagram that carries something already.
const leastPiece = 64

func (l *link) addStretch(st *stretch) {
	st.copies++
	l.plain = appendPieceHeader(l.plain, st.of.precedence, st.span.from, int(st.span.to-st.span.from))
	l.plain = st.of.appendBytes(l.plain, st.span)
}

// sendControl sends what the peer must hear though there is nothing to send.
func (l *link) sendControl(now time.Time) {
	l.begin()
	l.addAck(now)
	told := l.addWindows()
	ask := l.seal.sealed >= l.seal.limit // who only answers must hear that the key is known before it takes the next
	if ask {
		l.plain = append(l.plain, framePing)
	}
	l.transmit(now, l.ways.active, sent{eliciting: told != 0 || ask, windows: told, limited: true})
}

// sendPing asks for an answer; a standing path is asked by a probe, so that the peer stays where it is.
func (l *link) sendPing(now time.Time, way int, standing bool) {
	l.begin()
	l.addAck(now)
	frame := byte(framePing)
	if standing {
		frame = frameProbe
	}
	l.plain = append(l.plain, frame)
	l.transmit(now, way, sent{eliciting: true, limited: true})
}

// sendProbe asks on one path whether the link is back.
func (l *link) sendProbe(now time.Time, way int) {
	l.begin()
	l.ackAll = true
	l.addAck(now)
	l.plain = append(l.plain, frameProbe)
	s := sent{eliciting: true, limited: true}
	if st := l.flashToProbeWith(); st != nil {
		l.addStretch(st)
		s.carries = append(s.carries, st)
	}
	l.transmit(now, way, s)
	copy(l.probes[l.probeTurn%len(l.probes)][:], l.packet)
	l.probeTurn++
}

// flashToProbeWith takes turns among the FLASH that has not arrived: so it gets through to a peer
// that only listens.
func (l *link) flashToProbeWith() *stretch {
	o := &l.out[redoubt.Flash]
	const most = floorDatagram - sealedOverhead - ackFixed - ackBits/8 - 1 - pieceOverhead
	if o.next < min(o.end, o.limit) || len(o.lost) > 0 {
		return o.take(most)
	}
	var open []*stretch
	for i := range l.flight.records {
		for _, c := range l.flight.records[i].carries {
			if c.of == o && !o.acked.has(c.span.from, c.span.to) && c.span.from >= o.floor() && c.span.to-c.span.from <= most {
				open = append(open, c)
			}
		}
	}
	if len(open) == 0 {
		return nil
	}
	l.flashTurn++
	return open[l.flashTurn%len(open)]
}

// sendSize tries a size.
func (l *link) sendSize(now time.Time, size int) {
	l.begin()
	l.plain = append(l.plain, framePing)
	l.plain = append(l.plain, make([]byte, size-sealedOverhead+numberSize-len(l.plain))...)
	l.sizer.sent()
	if l.transmit(now, l.ways.active, sent{eliciting: true, sizeProbe: true, limited: true}) == 0 {
		l.sizer.failed(now, true)
	}
}

// sendReplies answers on the paths where something was asked.
func (l *link) sendReplies(now time.Time) {
	replies := l.reply
	l.reply = l.reply[:0]
	for _, r := range replies {
		l.begin()
		l.ackAll = true
		l.addAck(now)
		s := sent{limited: true}
		for _, x := range r.responses {
			l.plain = append(append(l.plain, frameResponse), x[:]...)
			s.eliciting = true
		}
		if w := &l.ways.list[r.way]; r.challenge {
			l.plain = append(append(l.plain, frameChallenge), w.challenge[:]...)
			s.eliciting = true
		}
		l.transmit(now, r.way, s)
	}
}

// sayClosed tells the peer, twice, since nobody will repeat it.
func (l *link) sayClosed() {
	if l.endpoint.silent.Load() {
		return
	}
	now := l.endpoint.now()
	for range 2 {
		l.begin()
		l.plain = append(l.plain, frameClose)
		l.transmit(now, l.ways.active, sent{})
	}
}

// transmit seals and sends the plaintext, and gives its size on the link; 0 when the machine refused it for its size.
func (l *link) transmit(now time.Time, way int, s sent) int {
	l.packet = l.seal.seal(l.packet[:0], l.plain)
	s.at, s.path, s.size = now, way, len(l.packet)+ipOverhead
	tooLarge := l.endpoint.send(l.ways.list[way].path, l.packet)
	if tooLarge && s.sizeProbe {
		s.eliciting, s.sizeProbe = false, false
	}
	l.flight.add(s, l.ways.active)
	if s.eliciting && way == l.ways.active {
		l.askedAt = now
	}
	if l.seal.sealed >= mostSealed {
		l.end(errWornOut)
	}
	l.bytes.sent += uint64(len(l.packet))
	l.pace.sent(now, s.size)
	if tooLarge {
		return 0
	}
	return s.size
}
