// Package carrytest is the contract of carry.Conn as tests, and what such tests stand on: roads that are slow, lossy, reordering and
// often down, from a seed; a network of them in memory, for fake time; and nodes with certificates.
package carrytest

import (
	"math/rand/v2"
	"time"
)

// IPOverhead is what IPv4 and UDP add to a datagram: a Road's rate, queue and MTU count whole packets.
const IPOverhead = 28

// Road is one direction between two addresses. The zero Road is instant and perfect.
type Road struct {
	BitsPerSec float64       // 0: unlimited
	Delay      time.Duration // one way
	Jitter     time.Duration // up to this much more, for each packet by itself: so they overtake one another
	Loss       float64       // probability, after the packet has taken its time on the road
	Duplicate  float64
	QueueBytes int           // what waits for the road; more is dropped. 0: no limit
	Up, Down   time.Duration // taking turns from the beginning on; 0: always up
	MTU        int           // larger packets vanish; 0: no limit
	Blocked    bool          // nothing passes
}

// LinkB and LinkC are the links that Redoubt is measured on, one direction of each.
var (
	LinkB = Road{BitsPerSec: 1e6, Delay: 300 * time.Millisecond, Loss: 0.02, QueueBytes: 100_000, MTU: 1500}
	LinkC = Road{BitsPerSec: 256e3, Delay: 150 * time.Millisecond, Loss: 0.10, QueueBytes: 32_000, Up: 30 * time.Second, Down: 30 * time.Second, MTU: 1500}
)

// Floor is the least time in which so many bytes of content can cross in full datagrams of 1,472 bytes without any overhead of a
// protocol, beginning at a time after the road's beginning: what a measured time is put in relation to.
func (r Road) Floor(content int64, begin time.Duration) time.Duration {
	perSec := r.BitsPerSec / 8 * (1 - r.Loss) * (1500 - IPOverhead) / 1500
	air := time.Duration(float64(content) / perSec * float64(time.Second))
	if r.Up == 0 || r.Down == 0 {
		return air + r.Delay
	}
	at := begin
	for {
		cycle := r.Up + r.Down
		if left := r.Up - at%cycle; left > 0 {
			if air <= left {
				return at + air - begin + r.Delay
			}
			air -= left
			at += left
		}
		at += cycle - at%cycle
	}
}

// UpTime is how much of a stretch of time, from a time after the road's beginning on, the road is up.
func (r Road) UpTime(begin, length time.Duration) (up time.Duration) {
	if r.Up == 0 || r.Down == 0 {
		return length
	}
	for at, end := begin, begin+length; at < end; {
		cycle := r.Up + r.Down
		next := min(at+cycle-at%cycle, end)
		if left := r.Up - at%cycle; left > 0 {
			up += min(left, next-at)
		}
		at = next
	}
	return up
}

// DownAt tells whether the road is down at a time after its beginning.
func (r Road) DownAt(since time.Duration) bool {
	return r.Up > 0 && r.Down > 0 && since%(r.Up+r.Down) >= r.Up
}

// Traffic moves packets along a Road. One goroutine at a time may use it.
type Traffic struct {
	Road
	began, busy time.Time
	random      *rand.Rand
	Sent, Lost  int // packets
	SentBytes   int64
}

// NewTraffic begins a road's time now.
func NewTraffic(r Road, seed, direction uint64, now time.Time) *Traffic {
	return &Traffic{Road: r, began: now, busy: now, random: rand.New(rand.NewPCG(seed, direction))}
}

// Take says when a packet of so many bytes, IPOverhead included, arrives: never, once, or twice.
func (t *Traffic) Take(size int, now time.Time) (arrivals []time.Time) {
	t.Sent++
	t.SentBytes += int64(size)
	if t.Blocked || t.MTU > 0 && size > t.MTU {
		t.Lost++
		return nil
	}
	leaves := now
	if t.BitsPerSec > 0 {
		if t.busy.Before(now) {
			t.busy = now
		}
		if t.QueueBytes > 0 && t.busy.Sub(now).Seconds()*t.BitsPerSec/8+float64(size) > float64(t.QueueBytes) {
			t.Lost++
			return nil
		}
		leaves = t.busy.Add(time.Duration(float64(size) * 8 / t.BitsPerSec * float64(time.Second)))
	}
	if t.DownAt(leaves.Sub(t.began)) {
		t.Lost++
		return nil
	}
	if t.BitsPerSec > 0 {
		t.busy = leaves
	}
	if t.random.Float64() < t.Loss {
		t.Lost++
		return nil
	}
	copies := 1
	if t.random.Float64() < t.Duplicate {
		copies = 2
	}
	for range copies {
		late := t.Delay
		if t.Jitter > 0 {
			late += time.Duration(t.random.Int64N(int64(t.Jitter)))
		}
		arrivals = append(arrivals, leaves.Add(late))
	}
	return arrivals
}
