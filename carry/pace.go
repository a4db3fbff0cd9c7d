package carry

import (
	"math"
	"time"
)

// How the rate of a path is found. docs/spec/carry.md tells the whole of it; in short: the receiver says when
// each datagram came, so the sender knows how far apart datagrams leave the narrowest hop (its rate, whatever is
// lost after it) and how long they stood in line before it. Loss alone changes nothing.
const (
	firstDatagrams = 10 // what the first round trip sends, RFC 6928; or what firstTime does, if it is longer
	firstTime      = 400 * time.Millisecond
	roundDatagrams = 24 // fewer give no rate worth the name

	// The line that is aimed for: long enough to keep the hop busy, short enough that FLASH hardly waits.
	lineTime      = 25 * time.Millisecond
	leastLine     = time.Millisecond // and on short paths no longer than a round trip
	lineDatagrams = 2
	mostJitter    = 100 * time.Millisecond // a path's own trembling is no line
	spreadNoise   = 0.03

	growth       = 0.02 // of the estimate, a round without a line; and, after growPatience, as much more for each one in a row
	growPatience = 3
	mostGrowth   = 1.25
	trialGrowth  = 1.3 // above what was recalled, without a line: a rate that was found a little low is not sought anew
	drainEvery   = 16  // rounds; one of them is sent slower, so that the line is seen to vanish
	drainGain    = 0.85
	leastGain    = 0.5
	drainShare   = 0.6 // of what is over, a round: the answer takes another round to show

	stubbornRounds = 4 // of draining that brings nothing: others stand in line too
	roundTripFloor = 100 * time.Millisecond
	yieldShare     = 0.5 // of the best rate of late: what we do not fall below beside others
	bestRounds     = 512
	lossSuspect    = 0.15 // above what is usual: it was dropped for want of room
	mostUsualLoss  = 0.3
	baseLife       = 30 * time.Second // how long the least delay seen stands
	leastRate      = 2 * floorDatagram
	greatestRate   = 10 << 30
)

// pacer decides how fast datagrams go. Rates are bytes a second, of datagrams with ipOverhead.
type pacer struct {
	rate       float64 // that of the narrowest hop, as believed
	gain       float64
	starting   bool
	best       float64 // of the last bestRounds
	bestAge    int
	rounds     int
	stalls     int     // rounds of the start that brought nothing more
	before     float64 // the best of the start so far
	known      float64 // what the hop passed when it was busy last
	recalled   float64 // where the start ends, of an earlier connection; 0: nowhere
	onTrial    bool    // the rate is what was recalled, and the hop was not busy since
	grown      int     // rounds in a row that the estimate grew
	stubborn   int
	lineBefore time.Duration

	rtt   rtt
	delay base // one way, in the two clocks' difference
	line  time.Duration

	usualLoss float64 // that of the path itself, as seen in rounds that were sent slower
	seenLoss  float64 // of all rounds of late
	round     round

	next time.Time // when the next datagram may go
}

// round is what is measured over one round trip or roundDatagrams, whichever is longer.
type round struct {
	open    bool
	began   time.Time
	first   mark
	least   time.Duration // line, over the round
	late    time.Duration // and over its second half
	halved  bool
	acked   int
	lost    int
	limited bool    // by what the layer above had to send
	spread  float64 // how much farther apart they came than they went
}

// mark is a datagram that arrived: when, by the receiver's clock, and all that was sent up to it.
type mark struct {
	receivedAt uint32
	sentAt     time.Time
	sentBytes  uint64
}

func newPacer(roundTrip time.Duration) pacer {
	p := pacer{starting: true, gain: 1, rtt: guess(max(roundTrip, time.Millisecond))}
	p.rate = firstDatagrams * (floorDatagram + ipOverhead) / min(p.rtt.smooth, firstTime).Seconds()
	return p
}

// road is what the narrowest hop was found to be like; zero where it never was busy.
func (p *pacer) road() Road {
	if p.starting || p.known == 0 {
		return Road{}
	}
	return Road{BytesPerSec: p.known, Loss: p.usualLoss}
}

// recall tells what an earlier connection found: the start ends at that rate, unless the hop then shows to take more.
func (p *pacer) recall(r Road) {
	if r.BytesPerSec >= leastRate && r.BytesPerSec <= greatestRate && r.Loss >= 0 && r.Loss <= mostUsualLoss {
		p.recalled, p.usualLoss = r.BytesPerSec, r.Loss
		p.settle()
	}
}

// settle ends the start where the rate has come to what is recalled.
func (p *pacer) settle() {
	if p.recalled > 0 && p.starting && p.rate >= p.recalled {
		p.starting, p.rate, p.known, p.onTrial = false, p.recalled, p.recalled, true
	}
}

// restart forgets what was a property of the path left behind.
func (p *pacer) restart(roundTrip time.Duration) {
	next := p.next
	*p = newPacer(roundTrip)
	p.next = next
}

// pacing is the rate that datagrams are sent at.
func (p *pacer) pacing() float64 {
	return min(max(p.rate*p.gain, leastRate), greatestRate)
}

// window is how many bytes may be under way: what the path holds and a short line. So the line stays short even
// while an estimate is too high, and a hop that became slow is noticed at once.
func (p *pacer) window(datagram int) int {
	span := p.rtt.least + 2*p.aim(datagram) + p.rtt.ackDelay() + p.rtt.vary
	switch {
	case p.starting:
		span += 2 * p.rtt.least
	case p.stubborn >= stubbornRounds:
		span += p.rtt.least
	}
	return int(max(p.rate, leastRate)*span.Seconds()) + 4*datagram
}

// aim is the line that is aimed for.
func (p *pacer) aim(datagram int) time.Duration {
	return max(min(lineTime, max(p.rtt.least, leastLine)), min(p.rtt.vary, mostJitter), time.Duration(float64(lineDatagrams*datagram)/max(p.rate, leastRate)*float64(time.Second)))
}

// arrived takes what an ACK tells of the newest datagram it reports: when it was sent, how
// long the receiver sat on the answer, and how many datagrams are reported for the first time.
func (p *pacer) arrived(now, sentAt time.Time, clock time.Time, m mark, held time.Duration, datagrams, size int, limited bool) {
	roundTrip := now.Sub(sentAt) - held
	if roundTrip > 0 {
		p.rtt.add(roundTrip)
	}
	sent := uint32(sentAt.Sub(clock).Microseconds())
	p.line = p.delay.line(now, time.Duration(int32(m.receivedAt-sent))*time.Microsecond)

	r := &p.round
	if !r.open {
		*r = round{open: true, began: now, first: m, least: p.line, late: p.line}
	}
	if length := p.rtt.least; !r.halved && now.Sub(r.began) > length/2 {
		r.halved, r.late = true, p.line
	}
	r.least, r.late = min(r.least, p.line), min(r.late, p.line)
	r.acked += datagrams
	r.limited = r.limited || limited
	length := p.rtt.least
	if p.starting && p.line > p.rtt.least/16+2*p.aim(size) && r.acked >= firstDatagrams {
		p.finish(now, m, size)
		return
	}
	if now.Sub(r.began) >= length && (r.acked >= roundDatagrams || p.starting && r.acked >= firstDatagrams) {
		p.finish(now, m, size)
	}
}

// missed takes the number of datagrams that were found lost.
func (p *pacer) missed(n int) { p.round.lost += n }

// finish ends a round and draws its conclusion.
func (p *pacer) finish(now time.Time, m mark, size int) {
	r := p.round
	p.round = round{open: true, began: now, first: m, least: p.line, late: p.line}
	elapsed := time.Duration(m.receivedAt-r.first.receivedAt) * time.Microsecond
	if elapsed <= 0 || m.sentBytes <= r.first.sentBytes {
		return
	}
	passed := float64(m.sentBytes-r.first.sentBytes) / elapsed.Seconds() // through the narrowest hop
	r.spread = elapsed.Seconds() / max(m.sentAt.Sub(r.first.sentAt), time.Microsecond).Seconds()
	loss := float64(r.lost) / float64(r.lost+r.acked)
	p.seenLoss += (loss - p.seenLoss) / 8
	if p.starting {
		p.start(r, passed, loss, size)
	} else {
		p.steer(r, passed, loss, size)
	}
	p.rate = min(max(p.rate, leastRate), greatestRate)
}

// start doubles the rate each round until a line shows, or until more brings no more.
func (p *pacer) start(r round, passed, loss float64, size int) {
	line := p.line > p.rtt.least/16+2*p.aim(size)
	switch {
	case line && r.limited: // what passed is what there was to send, and those that stood in line may have waited for a busy receiver
		p.rate = max(passed, p.rate/2)
		return
	case line:
		p.starting, p.rate, p.known = false, passed, passed
		p.steer(r, passed, loss, size)
		return
	case r.limited:
		return
	}
	if through := passed * (1 - loss); through < 1.2*p.before {
		if p.stalls++; p.stalls >= 3 {
			p.starting, p.rate = false, p.before/(1-p.usualLoss)
			return
		}
	} else {
		p.before, p.stalls = through, 0
		p.usualLoss = 0.5*p.usualLoss + 0.5*min(loss, mostUsualLoss)
	}
	p.rate = 2 * max(p.rate, passed)
	p.settle()
}

// steer keeps the line near what is aimed for.
func (p *pacer) steer(r round, passed, loss float64, size int) {
	p.rounds++
	aim := p.aim(size)
	slow := p.gain < 1
	if slow && r.least <= aim {
		p.usualLoss = 0.75*p.usualLoss + 0.25*min(loss, mostUsualLoss)
	}
	if unusual := loss - p.usualLoss; unusual > lossSuspect {
		passed *= 1 - unusual // what was dropped for want of room has not passed
	}
	switch {
	case r.least > aim/2: // the hop was busy throughout: this is its rate
		// Where they came as they went, the hop passes that much at least; else it is the hop that spaced them.
		if passed > p.rate || !r.limited && math.Abs(r.spread-1) > spreadNoise {
			p.rate = 0.25*p.rate + 0.75*passed
			p.known = p.rate
		}
		p.grown, p.onTrial = 0, false
	case r.limited || slow:
	case loss > p.usualLoss+lossSuspect: // it drops without a line
		p.rate, p.grown = min(p.rate, passed), 0
	case p.rate < p.known:
		p.rate = p.known
	default:
		if p.grown++; p.onTrial && p.rate > trialGrowth*p.recalled { // the road takes more than it did
			p.starting, p.onTrial, p.recalled, p.before, p.stalls = true, false, 0, 0, 0
			return
		}
		most := mostGrowth * passed * (1 - loss) / (1 - p.usualLoss)
		p.rate = max(p.rate, min(p.rate*(1+growth*max(1, float64(p.grown-growPatience))), most))
	}
	p.yield(r, aim)
}

// yield decides the gain: it works off the line if that is ours; one that does not get shorter is somebody else's too, and
// then our share is held.
func (p *pacer) yield(r round, aim time.Duration) {
	over := r.late - aim
	if p.gain < 1 && over > aim && r.late > p.lineBefore*9/10 {
		p.stubborn++
	} else if over <= aim {
		p.stubborn = 0
	}
	p.lineBefore = r.late
	p.gain = 1
	switch {
	case p.stubborn >= stubbornRounds:
		p.rate = max(p.rate, min(p.best*yieldShare, p.rate*(1+growth)))
	case over > 0:
		p.gain = max(leastGain, 1-drainShare*over.Seconds()/max(p.rtt.least, roundTripFloor).Seconds())
	case p.rounds%drainEvery == 0:
		p.gain = drainGain
	}
	if p.stubborn == 0 {
		if p.bestAge++; p.rate >= p.best || p.bestAge > bestRounds {
			p.best, p.bestAge = p.rate, 0
		}
	}
}

// allow tells how long to wait before the next datagram, 0: none.
func (p *pacer) allow(now time.Time) time.Duration { return max(0, p.next.Sub(now)) }

// pacingSlack is how late the sending loop may wake and still catch up: timers are no finer.
const pacingSlack = 2 * time.Millisecond

// sent moves the time of the next datagram on.
func (p *pacer) sent(now time.Time, size int) {
	if earliest := now.Add(-pacingSlack); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(float64(size) / p.pacing() * float64(time.Second)))
}

// rtt is the round trip as RFC 9002 section 5 smooths it.
type rtt struct {
	smooth, vary, least time.Duration
	guessed             bool // by a handshake or a proof, in which something may have been lost: a shorter first answer says better
}

func guess(roundTrip time.Duration) rtt {
	return rtt{roundTrip, roundTrip / 2, roundTrip, true}
}

func (r *rtt) add(sample time.Duration) {
	if r.guessed && sample < r.smooth {
		*r = guess(sample)
	}
	r.guessed = false
	r.least = min(r.least, sample)
	d := r.smooth - sample
	r.vary += (max(d, -d) - r.vary) / 4
	r.smooth += (sample - r.smooth) / 8
}

// ackDelay is how long an answer is held so that it can speak of several datagrams.
func (r *rtt) ackDelay() time.Duration {
	return min(max(r.smooth/6, leastAckDelay), mostAckDelay)
}

// base keeps the least one-way delay of the last baseLife, in two halves.
type base struct {
	now, before time.Duration
	set         bool
	since       time.Time
}

// line takes a delay and gives what it is above the least.
func (b *base) line(now time.Time, delay time.Duration) time.Duration {
	switch {
	case !b.set:
		*b = base{delay, delay, true, now}
	case now.Sub(b.since) > baseLife:
		b.before, b.now, b.since = b.now, delay, now
	}
	b.now = min(b.now, delay)
	return delay - min(b.now, b.before)
}
