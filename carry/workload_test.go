package carry_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry/carrytest"
)

// The workload of what links are measured by: 150 small, 45 middling and 5 large files, as they are once compressed.
func initialSizes() (sizes []int) {
	for _, k := range []struct{ n, size int }{{150, 4 << 10}, {45, 100 << 10}, {5, 1 << 20}} {
		for range k.n {
			sizes = append(sizes, k.size*5/8)
		}
	}
	return sizes
}

func TestInitialOnLinkBIsNearItsFloor(t *testing.T) {
	nearItsFloor(t, carrytest.LinkB, initialSizes(), 1.15)
}
func TestInitialOnLinkCIsNearItsFloor(t *testing.T) {
	nearItsFloor(t, carrytest.LinkC, initialSizes(), 1.15)
}
func TestBulkOnLinkBIsNearItsFloor(t *testing.T) {
	nearItsFloor(t, carrytest.LinkB, slices.Repeat([]int{1 << 20}, 5), 1.12)
}

// nearItsFloor sends messages over a link whose rate nobody has found yet, in fake time.
func nearItsFloor(t *testing.T, road carrytest.Road, sizes []int, most float64) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, 1, road)
		defer p.close()
		start := time.Now()
		go func() {
			r := rand.New(rand.NewPCG(1, 1))
			for i, s := range sizes {
				if err := p.connA.Send(p.ctx, redoubt.Routine, message(r, redoubt.Routine, uint32(i), s)); err != nil {
					t.Error(err)
				}
			}
		}()
		var total int64
		for i, s := range sizes {
			total += int64(s)
			_, msg, err := p.connB.Receive(p.ctx)
			if err != nil || len(msg) != s || binary.BigEndian.Uint32(msg[1:]) != uint32(i) {
				t.Fatalf("message %d: %v, %d bytes", i, err, len(msg))
			}
		}
		took, floor := time.Since(start), road.Floor(total, p.network.Age(start))
		ratio := took.Seconds() / floor.Seconds()
		stats := p.connA.Stats()
		t.Logf("%d bytes in %v, floor %v, ratio %.3f, sent %d", total, took, floor, ratio, stats.SentBytes)
		if ratio > most {
			t.Errorf("ratio %.3f, want at most %.2f", ratio, most)
		}
	})
}

func TestFlashOvertakesBulkOnLinkB(t *testing.T) {
	flashUnderBulk(t, carrytest.LinkB, 500*time.Millisecond)
}
func TestFlashOvertakesBulkOnLinkC(t *testing.T) { flashUnderBulk(t, carrytest.LinkC, time.Second) }

// flashUnderBulk sends 4 KiB of FLASH now and then while the link is full of routine, and looks at how long it takes where
// the link was up all the time.
func flashUnderBulk(t *testing.T, road carrytest.Road, most time.Duration) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, 2, road)
		defer p.close()
		const flashes = 60
		done := make(chan struct{})
		go func() { // bulk, until all FLASH is there
			defer close(done)
			r := rand.New(rand.NewPCG(2, 2))
			for i := uint32(0); p.ctx.Err() == nil; i++ {
				if p.connA.Send(p.ctx, redoubt.Routine, message(r, redoubt.Routine, i, 200<<10)) != nil {
					return
				}
			}
		}()
		var sentAt [flashes]time.Time
		go func() {
			r := rand.New(rand.NewPCG(3, 3))
			time.Sleep(15 * time.Second)
			for i := range sentAt {
				time.Sleep(2*time.Second + time.Duration(r.Int64N(int64(3*time.Second))))
				sentAt[i] = time.Now()
				if err := p.connA.Send(p.ctx, redoubt.Flash, message(r, redoubt.Flash, uint32(i), 4<<10)); err != nil {
					t.Error(err)
				}
			}
		}()
		var took []time.Duration
		for n := 0; n < flashes; {
			precedence, msg, err := p.connB.Receive(p.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if precedence != redoubt.Flash {
				continue
			}
			at := sentAt[binary.BigEndian.Uint32(msg[1:])]
			if late := time.Since(at); !road.DownAt(p.network.Age(at)-road.Delay) && !road.DownAt(p.network.Age(at)+most) && !road.DownAt(p.network.Age(at)-2*time.Second) {
				took = append(took, late)
			}
			n++
		}
		p.connA.Close()
		<-done
		slices.Sort(took)
		p50, p90 := took[len(took)/2], took[len(took)*9/10]
		t.Logf("FLASH under bulk, %d times: p50 %v, p90 %v, most %v", len(took), p50, p90, took[len(took)-1])
		if p90 > most {
			t.Errorf("p90 %v, want at most %v", p90, most)
		}
	})
}

// An update is what a small change of many files comes to. What it takes on a link at rest is mostly the wait for what was lost last.
func TestAnUpdateOnLinkBIsNearItsFloor(t *testing.T) {
	updatesNearTheirFloor(t, carrytest.LinkB, 1.45, 1.85)
}
func TestAnUpdateOnLinkCIsNearItsFloor(t *testing.T) {
	updatesNearTheirFloor(t, carrytest.LinkC, 1.15, 1.3)
}

// updatesNearTheirFloor sends updates on a link that is at rest, up, and whose rate is known.
func updatesNearTheirFloor(t *testing.T, road carrytest.Road, mean, p90 float64) {
	const messages, size, updates = 15, 4200, 30
	var took []float64
	var sent uint64
	for seed := range uint64(4) {
		bubble(t, func(t *testing.T) {
			p := newPair(t, seed+1, road)
			defer p.close()
			stop, count := p.bulk(), p.drain()
			pause(22 * time.Second)
			stop()
			pause(6 * time.Second)
			count()
			r := rand.New(rand.NewPCG(1, seed))
			for range updates {
				age := p.network.Age(time.Now())
				pause((age/time.Minute+1)*time.Minute + time.Second + time.Duration(r.Int64N(int64(22*time.Second))) - age)
				before, start := p.connA.Stats().SentBytes, time.Now()
				for i := range uint32(messages) {
					if err := p.connA.Send(p.ctx, redoubt.Routine, message(r, redoubt.Routine, i, size)); err != nil {
						t.Fatal(err)
					}
				}
				for range messages {
					if _, _, err := p.connB.Receive(p.ctx); err != nil {
						t.Fatal(err)
					}
				}
				took = append(took, time.Since(start).Seconds()/road.Floor(messages*size, 0).Seconds())
				pause(3 * time.Second)
				sent += p.connA.Stats().SentBytes - before
			}
		})
	}
	slices.Sort(took)
	sum := 0.0
	for _, x := range took {
		sum += x
	}
	m, late := sum/float64(len(took)), took[len(took)*9/10]
	t.Logf("%d updates: ratio to the floor in the mean %.2f, p90 %.2f, most %.2f; %.2f bytes sent for each", len(took), m, late, took[len(took)-1], float64(sent)/float64(len(took)*messages*size))
	if m > mean || late > p90 {
		t.Errorf("ratio %.2f in the mean and %.2f at p90, want at most %.2f and %.2f", m, late, mean, p90)
	}
}

func TestNothingIsRepeatedWithoutNeed(t *testing.T) {
	lossy := carrytest.Road{BitsPerSec: 1e6, Delay: 100 * time.Millisecond, Loss: 0.05, QueueBytes: 100_000}
	clean, short := lossy, lossy
	clean.Loss = 0
	short.Delay = 10 * time.Millisecond
	sent := func(road carrytest.Road, message int) (each float64) {
		inFakeTime(t, road, func(t *testing.T, p *pair) {
			count := p.drain()
			for range 60 { // until the loss is known
				if err := p.connA.Send(p.ctx, redoubt.Routine, make([]byte, 20_000)); err != nil {
					t.Fatal(err)
				}
			}
			pause(30 * time.Second)
			before := p.connA.Stats().SentBytes
			total := 0
			for total < 1_000_000 {
				if err := p.connA.Send(p.ctx, redoubt.Routine, make([]byte, message)); err != nil {
					t.Fatal(err)
				}
				if total += message; message < 20_000 {
					pause(time.Second)
				}
			}
			pause(20 * time.Second)
			each = float64(p.connA.Stats().SentBytes-before) / float64(total)
			count()
		})
		return each
	}
	for _, c := range []struct {
		name        string
		road        carrytest.Road
		message     int
		least, most float64
	}{
		{"a path that loses, at rest in between", lossy, 10_000, 1.12, 1.3},
		{"one that loses, always busy", lossy, 50_000, 1.05, 1.17},
		{"one that loses nothing", clean, 10_000, 1, 1.1},
		{"a short one that loses", short, 10_000, 1.05, 1.25},
	} {
		if got := sent(c.road, c.message); got < c.least || got > c.most {
			t.Errorf("%s: %.2f bytes are sent for each, want %.2f to %.2f", c.name, got, c.least, c.most)
		}
	}
}
