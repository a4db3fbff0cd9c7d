package carrytest

import (
	"testing"
	"time"
)

func TestTheFloorCountsOutagesFromWhereItBegins(t *testing.T) {
	road := Road{BitsPerSec: 8000 * 1500 / 1472, Delay: time.Second, Up: 30 * time.Second, Down: 30 * time.Second} // 1,000 bytes of content a second
	near := func(got, want time.Duration) bool { return (got - want).Abs() < 100*time.Millisecond }
	for _, c := range []struct {
		content     int64
		begin, want time.Duration
	}{
		{10_000, 0, 11 * time.Second},
		{10_000, 25 * time.Second, 41 * time.Second}, // 5 s, an outage, 5 s
		{10_000, 40 * time.Second, 31 * time.Second}, // the rest of an outage first
		{70_000, 0, 131 * time.Second},
	} {
		got := road.Floor(c.content, c.begin)
		if !near(got, c.want) {
			t.Errorf("%d bytes from %v: got %v, want %v", c.content, c.begin, got, c.want)
		}
		if up := road.UpTime(c.begin, got-road.Delay); !near(up, time.Duration(c.content)*time.Millisecond) {
			t.Errorf("%d bytes from %v: the road is up for %v of it", c.content, c.begin, up)
		}
	}
}

func TestARoadDoesWhatItIsToldAndReplays(t *testing.T) {
	road := Road{BitsPerSec: 1e6, Delay: 100 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, QueueBytes: 10_000, MTU: 1500, Up: time.Second, Down: time.Second}
	began := time.Unix(0, 0)
	run := func(seed uint64) (arrivals []time.Time) {
		traffic := NewTraffic(road, seed, 1, began)
		for i := range 1000 {
			arrivals = append(arrivals, traffic.Take(1000, began.Add(time.Duration(i)*9*time.Millisecond))...)
		}
		return arrivals
	}
	one, again, other := run(1), run(1), run(2)
	if len(one) != len(again) || len(one) == len(other) && one[len(one)/2].Equal(other[len(other)/2]) {
		t.Errorf("seed 1 gave %d and %d arrivals, seed 2 %d", len(one), len(again), len(other))
	}
	if n := len(one); n < 400 || n > 600 { // half the time up, of that 0.9 × 1.1
		t.Errorf("%d of 1,000 packets arrived", n)
	}
	traffic := NewTraffic(Road{BitsPerSec: 8000, QueueBytes: 3000, MTU: 1500}, 1, 1, began)
	if traffic.Take(1501, began) != nil {
		t.Error("a packet above the MTU arrived")
	}
	for i := range 4 {
		if got := traffic.Take(1000, began); (got == nil) != (i == 3) {
			t.Errorf("packet %d: %v; three fit into the queue", i+1, got)
		} else if i < 3 && !got[0].Equal(began.Add(time.Duration(i+1)*time.Second)) {
			t.Errorf("packet %d arrives at %v", i+1, got[0])
		}
	}
}
