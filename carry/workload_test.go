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
