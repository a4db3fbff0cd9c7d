package carry

import (
	"slices"
	"time"

	"redoubt"
)

// flashRoom is how much FLASH may be under way beyond what the rest may.
const flashRoom = 64 << 10

// holeShare: a path is not used for what a quicker one would send past it, beyond one part in holeShare of a stream's
// window, while a loss on it is found and mended: then the quicker one would stand still.
const holeShare = 2

// order gives the ways that something may go by, soonest first by when a datagram that is given to them now arrives; and
// behind those in use the ones that stand by.
func (l *link) order(now time.Time, buf []*way) []*way {
	buf = buf[:0]
	for _, w := range l.ways.list {
		if w.usable() {
			buf = append(buf, w)
		}
	}
	if len(buf) > 1 {
		slices.SortStableFunc(buf, func(a, b *way) int {
			switch {
			case a.inUse != b.inUse && a.inUse:
				return -1
			case a.inUse != b.inUse:
				return 1
			}
			return int(a.arrival(now) - b.arrival(now))
		})
	}
	return buf
}

// arrival is in how long a datagram that is given to the way now should be there.
func (w *way) arrival(now time.Time) time.Duration {
	ahead := w.sizer.size + max(0, w.flight.bytes-w.pace.window(w.sizer.size))
	return w.pace.allow(now) + time.Duration(float64(ahead)/w.pace.pacing()*float64(time.Second)) + w.pace.rtt.smooth/2
}

// sendQueued sends from the queues as fast as the paces allow.
func (l *link) sendQueued(now time.Time) time.Duration {
	sentAny := false
	defer func() {
		if sentAny {
			close(l.room)
			l.room = make(chan struct{})
		}
	}()
	var buf [maxPaths]*way
	for {
		wait, again := idleCheck, false // Send, a wider window or an ACK will wake us
		order := l.order(now, buf[:])
		for i, w := range order {
			if pause := w.pace.allow(now); pause > 0 {
				wait = min(wait, pause)
				continue
			}
			if sent, data := l.sendBy(w, order[:i], len(order) == 1, now); sent {
				sentAny, again = sentAny || data, true
				break
			}
		}
		if !again {
			return wait
		}
	}
}

// worthSizing is how much has to wait at the side that was dialled for a larger datagram to be worth a probe of its size: many ends only ever
// answer. Who dialled tries while the link is idle still.
const worthSizing = 8 << 10

// sendBy sends the next datagram by a way; sooner are those that it would arrive earlier by. It is data unless it tries a size.
func (l *link) sendBy(w *way, sooner []*way, alone bool, now time.Time) (sent, data bool) {
	if size := w.sizer.probe(now, w.pace.rate); size > 0 && w.hushed.IsZero() && w.inUse && (l.dialled || l.out.queued() >= worthSizing) {
		l.sendSize(w, now, size)
		return true, false
	}
	may := l.may(w, sooner, alone, now)
	for p := range l.out {
		l.out[p].prune()
	}
	p, ok := l.out.pick(w.sizer.size, may, w.lane)
	if !ok {
		return l.repeat(w, now), false
	}
	window := w.pace.window(w.sizer.size)
	if p == redoubt.Flash {
		window += flashRoom
	}
	if w.flight.bytes >= window {
		return false, false
	}
	if p != redoubt.Flash && (!w.hushed.IsZero() || w.lull(now)) {
		if w.tails == 0 || !w.hushed.IsZero() {
			return false, false
		}
		w.tails--
	}
	l.sendData(w, p, may, now)
	if len(sooner) > 0 { // it is limited, too, by what it may not carry
		last := &w.flight.records[len(w.flight.records)-1]
		_, more := l.out.pick(w.sizer.size, l.may(w, sooner, alone, now), w.lane)
		last.limited = !more
	}
	return true, true
}

// lull tells whether answers stay away that should have come by now, four of them: then the path is down or the peer is dead, and what is sent
// is lost. It is waited for a sign of life.
func (w *way) lull(now time.Time) bool {
	if w.flight.silent.IsZero() {
		return false
	}
	spacing := time.Duration(float64(w.sizer.size) / w.pace.pacing() * float64(time.Second))
	gap := max(4*(w.pace.rtt.ackDelay()+spacing)+2*w.pace.rtt.vary, leastLull)
	return now.Sub(later(w.flight.silent, w.flight.busy.Add(w.pace.rtt.smooth))) > gap
}

// leastLull is what a busy machine may take to answer.
const leastLull = 200 * time.Millisecond

// may says what of each precedence may go by a way. The soonest takes all but second copies, which go by another if there is one. A later one
// takes what is new, where the queue is so long that it arrives before the soonest ones would be done; one that stands by, second copies alone.
func (l *link) may(w *way, sooner []*way, alone bool, now time.Time) (may [redoubt.Precedences]portion) {
	for p := range may {
		switch {
		case len(sooner) == 0 && alone:
			may[p] = lostOnes | newOnes | copiesOf | copiesAll
		case len(sooner) == 0:
			may[p] = lostOnes | newOnes | copiesOf
		case redoubt.Precedence(p) == redoubt.Flash:
			may[p] = copiesOf
		case w.inUse && l.worth(w, sooner, redoubt.Precedence(p), now):
			may[p] = newOnes
		}
	}
	return may
}

// worth tells whether what is new of a precedence should go by a way that is not the soonest: if it is there, mended where the way
// loses, before the soonest ones would be done with the queue, and if the soonest ones would not fill the stream's window meanwhile.
func (l *link) worth(w *way, sooner []*way, p redoubt.Precedence, now time.Time) bool {
	rate := 0.0
	for _, s := range sooner {
		rate += s.pace.rate
	}
	queued := 0.0
	for q := p; q < redoubt.Precedences; q++ {
		queued += float64(l.out[q].queued())
		if l.waiting[q] > 0 {
			queued += rate * moreToCome.Seconds()
		}
	}
	done := sooner[0].arrival(now) + sooner[0].risk() + time.Duration(queued/rate*float64(time.Second))
	return w.arrival(now)+w.risk() <= done && rate*w.mended().Seconds() <= streamWindow/holeShare
}

// moreToCome is what is believed to follow while a Send waits for room.
const moreToCome = 2 * time.Second

// mended is how long a loss may take to be found and what was lost to be there.
func (w *way) mended() time.Duration { return 2*w.pace.rtt.smooth + w.patience() }

// risk is what a loss adds, on a way that loses more than a little.
func (w *way) risk() time.Duration {
	if w.pace.usualLoss < littleLoss {
		return 0
	}
	return w.mended() - w.pace.rtt.smooth/2
}

const littleLoss = 0.005

// sendData sends one datagram that begins with precedence p and is filled up from those below.
func (l *link) sendData(w *way, p redoubt.Precedence, may [redoubt.Precedences]portion, now time.Time) {
	l.begin(w)
	l.addAck(w, now)
	s := sent{eliciting: true}
	if w.inUse {
		s.windows = l.addWindows()
	} else {
		l.plain = append(l.plain, frameProbe)
	}
	room := w.sizer.size - sealedOverhead + numberSize
	first := true
	for i := p; ; i-- {
		if left := room - len(l.plain) - pieceOverhead; left >= leastPiece || first {
			if st := l.out[i].take(left, may[i], w.lane); st != nil {
				l.addStretch(st)
				s.carries = append(s.carries, st)
				may[redoubt.Flash] &^= copiesOf | copiesAll // a second copy is for when this datagram is lost
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
	l.out.sent(p, l.transmit(now, w, w.path, s))
}

// repeatTrip: on a shorter round trip an answer tells of a loss soon enough.
const repeatTrip = 50 * time.Millisecond

// What repeats may cost: a twelfth of what is sent, kept for a few datagrams. Idle capacity is not free where bytes are paid for.
const (
	repeatShare    = 12
	spareDatagrams = 8
)

// repeat sends once more, newest first, what is under way on a way that loses, when nothing else waits: of the newest a loss is learned
// last, and the capacity would be idle. Each datagram is repeated once, and no more than spare allows.
func (l *link) repeat(w *way, now time.Time) bool {
	if !w.inUse || !w.hushed.IsZero() || w.pace.seenLoss < littleLoss || w.pace.rtt.smooth < repeatTrip || l.out.sendable() || w.spare < w.sizer.size || w.flight.bytes >= w.pace.window(w.sizer.size) {
		return false
	}
	carries := w.flight.toRepeat()
	if len(carries) == 0 {
		return false
	}
	l.begin(w)
	l.addAck(w, now)
	for _, st := range carries {
		l.addStretch(st)
	}
	l.transmit(now, w, w.path, sent{eliciting: true, limited: true, repeated: true, carries: carries})
	return true
}
