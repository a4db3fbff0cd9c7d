package carry

import (
	"errors"
	"time"
)

// fate is what is known of a datagram that was sent.
type fate uint8

const (
	underWay fate = iota
	arrived
	lost
)

// sent is a datagram that went out, by its number's place in flight.records.
type sent struct {
	at        time.Time
	size      int    // with ipOverhead
	sentBytes uint64 // of all datagrams up to this one
	epoch     uint64 // of the key that sealed it
	fate      fate
	repeated  bool // or is a repeat itself
	abandoned bool // held for lost with its path, not because later ones overtook it
	eliciting bool
	limited   bool // the layer above had no more to send
	sizeProbe bool // only tries its size: its loss says nothing else
	windows   uint8
	carries   []*stretch
}

// flight is what was sent and may yet be acknowledged.
type flight struct {
	records   []sent
	base      uint64 // number of records[0]
	bytes     int    // under way, of eliciting datagrams
	waiting   int    // datagrams that are
	sentBytes uint64

	acked    uint64 // the largest number that was acknowledged
	anyAcked bool
	reorder  uint64 // how many later ones must have arrived before one is held for lost
	lastSent time.Time
	silent   time.Time // since when nothing was answered; zero: nothing waits for an answer
	busy     time.Time // since when something waits for an answer without a pause
}

// Reordering is tolerated as RFC 9002 section 6.1.1 has it, and more where a path proves to reorder more.
const (
	leastReorder = 3
	mostReorder  = 256
)

func (f *flight) next() uint64 { return f.base + uint64(len(f.records)) }

// add notes a datagram under the number that next gave.
func (f *flight) add(s sent) {
	f.sentBytes += uint64(s.size)
	s.sentBytes = f.sentBytes
	if s.eliciting {
		if f.silent.IsZero() {
			f.silent, f.busy = s.at, s.at
		}
		f.bytes += s.size
		f.waiting++
		f.lastSent = s.at
	} else {
		s.fate = arrived // nobody will say so, and nobody asks
	}
	f.records = append(f.records, s)
}

var errAck = errors.New("the peer acknowledged what was never sent")

// news is what an ACK told.
type news struct {
	datagrams int    // reported for the first time
	newest    *sent  // the largest reported, if it was news
	windows   uint8  // windows that the peer now knows
	late      bool   // something that was held for lost had arrived
	sizes     []int  // of size probes that came through
	epoch     uint64 // the newest key that one of them was sealed with
}

// ack takes an ACK.
func (f *flight) ack(a ack, now time.Time) (n news, err error) {
	if a.largest >= f.next() {
		return n, errAck
	}
	for i := range len(a.bits) * 8 {
		if a.bits[i/8]>>(i%8)&1 == 0 {
			continue
		}
		if number := a.largest - uint64(i); number >= f.base {
			f.report(number, i == 0, &n)
		}
	}
	if n.datagrams > 0 {
		if f.silent = (time.Time{}); f.waiting > 0 {
			f.silent = now
		}
	}
	if !f.anyAcked || a.largest > f.acked {
		f.acked, f.anyAcked = a.largest, true
	}
	return n, nil
}

// report takes that one datagram arrived.
func (f *flight) report(number uint64, newest bool, n *news) {
	s := &f.records[number-f.base]
	if s.fate == arrived {
		return
	}
	switch {
	case s.fate == underWay:
		f.leaves(s)
	case !s.abandoned:
		n.late = true
		f.reorder = min(2*f.reorder, mostReorder)
	}
	s.fate = arrived
	n.datagrams++
	n.windows |= s.windows
	n.epoch = max(n.epoch, s.epoch)
	if newest {
		n.newest = s
	}
	if s.sizeProbe {
		n.sizes = append(n.sizes, s.size-ipOverhead)
	}
	for _, c := range s.carries {
		c.copies--
		c.of.arrived(c.span)
	}
}

func (f *flight) leaves(s *sent) {
	f.bytes -= s.size
	f.waiting--
}

// overtaken gives each datagram that must be lost: so many later ones have overtaken it, or one has and it was sent before
// a time at which it should have been answered.
func (f *flight) overtaken(answeredBy time.Time, each func(*sent)) {
	if f.anyAcked {
		for i := range f.records {
			s, number := &f.records[i], f.base+uint64(i)
			if number >= f.acked || number+f.reorder > f.acked && !s.at.Before(answeredBy) {
				break
			}
			if s.fate == underWay {
				f.lose(s, each)
			}
		}
	}
	f.forget()
}

func (f *flight) lose(s *sent, each func(*sent)) {
	f.leaves(s)
	s.fate = lost
	each(s)
}

// tail gives the newest n datagrams under way that carry something, as lost: nothing later can tell.
func (f *flight) tail(n int, each func(*sent)) {
	for i := len(f.records) - 1; i >= 0 && n > 0; i-- {
		if s := &f.records[i]; s.fate == underWay && len(s.carries) > 0 {
			f.lose(s, each)
			n--
		}
	}
}

// toRepeat gives what the newest datagram under way carries that was not repeated yet and has not arrived by another.
func (f *flight) toRepeat() (carries []*stretch) {
	for i := len(f.records) - 1; i >= 0 && f.waiting > 0; i-- {
		s := &f.records[i]
		if s.fate != underWay || s.repeated || len(s.carries) == 0 {
			continue
		}
		s.repeated = true
		for _, c := range s.carries {
			if !c.of.has(c.span) && c.span.from >= c.of.floor() {
				carries = append(carries, c)
			}
		}
		if len(carries) > 0 {
			return carries
		}
	}
	return nil
}

// abandon gives everything under way for lost.
func (f *flight) abandon(each func(*sent)) {
	for i := range f.records {
		if s := &f.records[i]; s.fate == underWay {
			s.abandoned = true
			f.lose(s, each)
		}
	}
	f.silent = time.Time{}
	f.forget()
}

// mostLost is how many records are kept of what is held for lost, on a path that answers nothing.
const mostLost = 4 * ackBits

// forget drops the records of which no ACK can tell anything more, and the oldest of too many.
func (f *flight) forget() {
	n := 0
	for n < len(f.records) {
		s := &f.records[n]
		if s.fate == underWay || s.fate == lost && f.base+uint64(n)+ackBits > f.acked && len(f.records)-n <= mostLost {
			break
		}
		n++
	}
	if n > 0 {
		clear(f.records[:n])
		f.records = f.records[n:]
		f.base += uint64(n)
	}
}
