package carry

import (
	"slices"
	"time"
)

// How the largest datagram of a path is found (RFC 8899): probes of a size from the ladder, each tried
// sizeTries times; and the floor again when only large ones vanish.
const (
	sizeTries   = 3
	sizeRaise   = 10 * time.Minute // RFC 8899 PMTU_RAISE_TIMER
	jumboRate   = 8 << 20          // bytes a second; below it a jumbo frame gains nothing and delays FLASH
	vanishLarge = 24               // large datagrams lost in a row
	arriveSmall = 2                // while so many small ones arrive

	vanishRecalled = 5 // the same of a size that is only recalled: the road may be another one
	sizeProbeGap   = 100 * time.Millisecond
)

// sizes are what is tried, in order: Ethernet over IPv4, over IPv6, PPPoE and tunnels; then jumbo frames.
var (
	usualSizes = [...]int{1472, 1452, 1412, 1372, 1280}
	jumboSizes = [...]int{maxDatagram, 4052}
)

// sizer finds the size of a path's datagrams.
type sizer struct {
	size    int // what is known to arrive
	list    []int
	tries   int
	waiting bool // a probe is under way
	due     time.Time
	done    bool
	jumbo   bool // jumbo frames were tried
	large   int  // lost in a row
	small   int  // that arrived meanwhile
	trial   bool // the size is that of an earlier connection, and none of it has arrived yet
}

func newSizer(now time.Time) sizer {
	return sizer{size: floorDatagram, list: usualSizes[:], due: now}
}

// recall has it begin with a size that an earlier connection found, if that is one of Ethernet.
func (s *sizer) recall(size int, now time.Time) {
	if slices.Contains(usualSizes[:], size) {
		s.size, s.trial = size, true
		s.settle(now)
	}
}

// probe gives the size to try now, 0: none.
func (s *sizer) probe(now time.Time, rate float64) int {
	if s.done && !s.jumbo && rate > jumboRate {
		s.list, s.tries, s.due, s.done, s.jumbo = jumboSizes[:], 0, now, false, true
	}
	if s.done && now.After(s.due) {
		s.list, s.tries, s.done, s.jumbo = usualSizes[:], 0, false, false
	}
	if s.waiting || now.Before(s.due) {
		return 0
	}
	for len(s.list) > 0 && s.list[0] <= s.size {
		s.list, s.tries = s.list[1:], 0
	}
	if len(s.list) == 0 {
		s.settle(now)
		return 0
	}
	return s.list[0]
}

func (s *sizer) settle(now time.Time) {
	s.done, s.waiting, s.due = true, false, now.Add(sizeRaise)
}

// sent notes that a probe went out.
func (s *sizer) sent() { s.waiting = true }

// passed notes that a datagram of a size arrived as a probe.
func (s *sizer) passed(size int, now time.Time) {
	if s.waiting = false; size > s.size {
		s.size, s.large, s.small = size, 0, 0
		s.settle(now)
	}
}

// failed notes that a probe did not arrive, or that the machine refused to send it.
func (s *sizer) failed(now time.Time, refused bool) {
	s.waiting, s.due = false, now.Add(sizeProbeGap)
	if s.tries++; (s.tries >= sizeTries || refused) && len(s.list) > 0 {
		s.list, s.tries = s.list[1:], 0
	}
}

// fate takes what became of a datagram that was no probe: when only large ones vanish, the path has changed.
func (s *sizer) fate(size int, lost bool, now time.Time) {
	switch {
	case size <= floorDatagram:
		if !lost {
			s.small++
		}
	case !lost:
		s.large, s.small, s.trial = 0, 0, false
	default:
		s.large++
		if s.large >= vanishLarge && s.small >= arriveSmall || s.trial && s.large >= vanishRecalled {
			*s = newSizer(now.Add(sizeProbeGap))
		}
	}
}
