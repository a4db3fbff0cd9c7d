package carry

import "time"

// replayBits is how far behind the newest a datagram may come and still be taken.
const replayBits = 4096

// ackRepeats is in how many ACKs each datagram is reported: losing all of them costs one
// needless repeat.
const ackRepeats = 4

// received remembers which datagrams came: it refuses repeats and says what to acknowledge.
type received struct {
	seen    [replayBits / 64]uint64 // bit number%replayBits
	largest uint64
	any     bool
	at      time.Time // when largest came

	lowest  [ackRepeats]uint64 // lowest new number of each of the last ACKs' intervals; [0] is the running one
	pending int                // datagrams that want an ACK and have none yet
	due     time.Time          // when it goes at the latest; zero: nothing is due
}

// fresh tells whether number was never seen and is not too old to know.
func (r *received) fresh(number uint64) bool {
	if !r.any || number > r.largest {
		return true
	}
	return r.largest-number < replayBits && r.seen[number%replayBits/64]>>(number%64)&1 == 0
}

// add takes a fresh number.
func (r *received) add(number uint64, now time.Time) {
	switch {
	case !r.any:
		r.any, r.largest, r.at = true, number, now
		for i := range r.lowest {
			r.lowest[i] = number
		}
	case number > r.largest:
		r.forget(number)
		r.largest, r.at = number, now
	}
	r.seen[number%replayBits/64] |= 1 << (number % 64)
	r.lowest[0] = min(r.lowest[0], number)
}

// forget clears the places that the numbers up to number will stand in.
func (r *received) forget(number uint64) {
	if number-r.largest >= replayBits {
		clear(r.seen[:])
		return
	}
	for n := r.largest + 1; n <= number; n++ {
		r.seen[n%replayBits/64] &^= 1 << (n % 64)
	}
}

// ack says what was received, and begins a new interval. all reports as far back as an ACK goes.
func (r *received) ack(now time.Time, clock time.Time, all bool, buf []byte) ack {
	from := r.largest
	for _, l := range r.lowest {
		from = min(from, l)
	}
	n := int(min(r.largest-from+1, ackBits))
	if all {
		n = int(min(r.largest+1, ackBits))
	}
	set := buf[:0]
	for i := 0; i < n; i += 8 {
		set = append(set, 0)
	}
	for i := range n {
		number := r.largest - uint64(i)
		if r.seen[number%replayBits/64]>>(number%64)&1 == 1 {
			set[i/8] |= 1 << (i % 8)
		}
	}
	for len(set) > 1 && set[len(set)-1] == 0 {
		set = set[:len(set)-1]
	}
	copy(r.lowest[1:], r.lowest[:])
	r.lowest[0] = r.largest + 1
	r.pending, r.due = 0, time.Time{}
	return ack{
		largest: r.largest, receivedAt: uint32(r.at.Sub(clock).Microseconds()),
		delay: uint16(min(now.Sub(r.at)/ackDelayUnit, longestDelay)), bits: set,
	}
}

const (
	ackDelayUnit = 100 * time.Microsecond
	longestDelay = 1<<16 - 1 // or longer
)
