package carry

import (
	"net/netip"
	"slices"
	"time"
)

// maxPaths is how many paths a connection has at most: what the lane's bits of a number can tell apart.
const maxPaths = 1 << laneBits

// path is one way to a peer: by one of our sockets, to one of its addresses.
type path struct {
	socket int
	remote netip.AddrPort
}

// apart tells whether two paths have no end in common: neither our socket nor the peer's host. Only such are used at the
// same time, for what shares an end is likely to share its narrowest hop, where two paces would take twice the share of one.
func (p path) apart(q path) bool {
	return p.socket != q.socket && p.remote.Addr() != q.remote.Addr()
}

// way is a path as one connection knows it. Its lane is its place in the peer's list too: numbers, acknowledgements and what
// is known of pace, size and silence are each lane's own, so that paths of different length do not disturb one another.
type way struct {
	path
	lane   int
	proved bool // the peer answers there
	wanted bool // of the side that was dialled: the other sends its own by it
	inUse  bool

	state    State
	since    time.Time // of the last change of state
	heard    time.Time // when the last fresh datagram came
	probed   time.Time
	askedAt  time.Time // when something that wants an answer went
	received received
	flight   flight
	pace     pacer
	sizer    sizer
	ackAll   bool // the next ACK reports all it can
	ping     bool // the peer is to hear that this way is in use
	spare    int  // bytes that may be repeated
	tails    int  // datagrams that may go although answers stay away

	strangers []stranger
	probes    [16]beginning // of the last probes
	probeTurn int
	recent    [32]beginning // of the last datagrams of any kind
	sentTurn  int

	hushed  time.Time     // since when it is hinted that the peer is gone; zero: it is not
	deaf    time.Time     // until when hints are passed over
	deafFor time.Duration // the last time
}

// stranger is an address that a lane was heard from and that has not proved to be the peer's.
type stranger struct {
	path
	challenge  [8]byte
	challenged time.Time
}

// beginning is how a sealed datagram begins, nonce included: who repeats it saw it.
type beginning [sealedHeader + 12]byte

// maxStrangers of one lane: the one challenged longest ago makes room, once it has had its time to answer.
const maxStrangers = 4

// challengeLife is how long an answer to a challenge is waited for; another challenge goes not before challengeGap.
const (
	challengeLife = 10 * time.Second
	challengeGap  = 200 * time.Millisecond
)

func newWay(p path, lane int, roundTrip time.Duration, now time.Time) *way {
	w := &way{path: p, lane: lane, since: now, heard: now, pace: newPacer(roundTrip), sizer: newSizer(now)}
	w.flight.reorder = leastReorder
	return w
}

// usable tells whether something may be sent by it in the hope that it arrives.
func (w *way) usable() bool { return w.proved && w.state == Up }

// stranger gives what is known of an address, or nil when too many are being proved.
func (w *way) stranger(p path, now time.Time) *stranger {
	i := slices.IndexFunc(w.strangers, func(s stranger) bool { return s.path == p })
	switch {
	case i >= 0:
	case len(w.strangers) < maxStrangers:
		w.strangers = append(w.strangers, stranger{path: p})
		i = len(w.strangers) - 1
	default:
		i = 0
		for k, s := range w.strangers {
			if s.challenged.Before(w.strangers[i].challenged) {
				i = k
			}
		}
		if now.Sub(w.strangers[i].challenged) <= challengeLife {
			return nil
		}
		w.strangers[i] = stranger{path: p}
	}
	return &w.strangers[i]
}

// moves makes p, which the peer has proved to be at, the path of the lane. Of a new path nothing is known but that it is up, and
// how long the proof took.
func (w *way) moves(p path, roundTrip time.Duration, now time.Time) {
	w.strangers = nil
	w.proved = true
	w.path = p
	w.pace.restart(max(roundTrip, time.Millisecond))
	w.sizer = newSizer(now)
	if !w.flight.silent.IsZero() {
		w.flight.silent = now
	}
}

// ways are the paths of a connection, by their lanes; list has those that there are.
type ways struct {
	lanes [maxPaths]*way
	list  []*way
}

func (s *ways) add(w *way) {
	s.lanes[w.lane] = w
	s.list = append(s.list, w)
}

// best is the way that is in use and has the shortest round trip of those that are up; of none that is up, the first in use.
func (s *ways) best() *way {
	best := s.list[0]
	for _, w := range s.list[1:] {
		if better(w, best) {
			best = w
		}
	}
	return best
}

func better(w, than *way) bool {
	if w.inUse != than.inUse {
		return w.inUse
	}
	if w.usable() != than.usable() {
		return w.usable()
	}
	return w.pace.rtt.smooth < than.pace.rtt.smooth
}

// choose says which ways are in use, and whether any that is up is. The side that dialled takes the most that are apart,
// rather those that are in use already, then the quick ones; the other side uses what the first one does, and what it can where it hears
// nothing there. When none is up, all stays as it is.
func (s *ways) choose(dialled bool) (up bool) {
	use := 0
	if dialled {
		use = s.mostApart()
	} else {
		use = s.wanted()
	}
	if use == 0 {
		return false
	}
	for i, w := range s.list {
		now := use>>i&1 == 1
		w.ping = w.ping || dialled && now && !w.inUse
		w.inUse = now
	}
	return true
}

// wanted is the set, a bit for each of list, that the peer uses; or one way that is up.
func (s *ways) wanted() (set int) {
	for i, w := range s.list {
		if w.wanted && w.usable() {
			set |= 1 << i
		}
	}
	if set != 0 {
		return set
	}
	best := -1
	for i, w := range s.list {
		if w.usable() && (best < 0 || better(w, s.list[best])) {
			best, set = i, 1<<i
		}
	}
	return set
}

// mostApart tries every set of ways that are up: there are at most 2^maxPaths.
func (s *ways) mostApart() (best int) {
	var most, kept int
	var trip time.Duration
	for set := 1; set < 1<<len(s.list); set++ {
		n, k, sum, ok := s.weigh(set)
		if ok && (n > most || n == most && (k > kept || k == kept && sum < trip)) {
			best, most, kept, trip = set, n, k, sum
		}
	}
	return best
}

// weigh counts a set's ways and those of them in use, and adds up their round trips. ok is false where two of them have an end in
// common or one is not up.
func (s *ways) weigh(set int) (n, kept int, trips time.Duration, ok bool) {
	for i, w := range s.list {
		if set>>i&1 == 0 {
			continue
		}
		if !w.usable() {
			return 0, 0, 0, false
		}
		for k, v := range s.list[:i] {
			if set>>k&1 == 1 && !w.apart(v.path) {
				return 0, 0, 0, false
			}
		}
		n++
		trips += w.pace.rtt.smooth
		if w.inUse {
			kept++
		}
	}
	return n, kept, trips, true
}
