package carry_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

// hostileRoad is a road that does everything a road may do, from a seed; it is up sometimes.
func hostileRoad(r *rand.Rand) carrytest.Road {
	road := carrytest.Road{
		BitsPerSec: 64e3 * float64(1+r.IntN(200)),
		Delay:      time.Duration(r.Int64N(int64(400 * time.Millisecond))),
		Loss:       0.3 * r.Float64(),
		QueueBytes: 8_000 + r.IntN(100_000),
	}
	if r.IntN(2) == 0 {
		road.Jitter = time.Duration(r.Int64N(int64(200 * time.Millisecond)))
	}
	if r.IntN(2) == 0 {
		road.Duplicate = 0.2 * r.Float64()
	}
	if r.IntN(2) == 0 {
		road.Up = 5*time.Second + time.Duration(r.Int64N(int64(20*time.Second)))
		road.Down = time.Second + time.Duration(r.Int64N(int64(40*time.Second)))
	}
	if r.IntN(2) == 0 {
		road.MTU = 1228 + r.IntN(400)
	}
	return road
}

// TestWhateverTheNetworkDoesEachMessageArrivesOnceWholeAndInOrder tries many seeds; one that fails replays by its number.
func TestWhateverTheNetworkDoesEachMessageArrivesOnceWholeAndInOrder(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { anyNetwork(t, seed) })
		})
	}
}

func anyNetwork(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 99))
	there, back := hostileRoad(r), hostileRoad(r)
	p := newPairOver(t, seed, there, back)
	defer p.close()
	if r.IntN(2) == 0 { // keys change on the way
		carry.RekeyAfter(p.connA, 40)
		carry.RekeyAfter(p.connB, 70)
	}
	ctx, cancel := context.WithTimeout(p.ctx, time.Hour) // of fake time: whatever the road, that is enough
	defer cancel()
	var work sync.WaitGroup
	for i, ends := range [][2]carry.Conn{{p.connA, p.connB}, {p.connB, p.connA}} {
		from, to := ends[0], ends[1]
		content := func(precedence redoubt.Precedence, n int) []byte {
			r := rand.New(rand.NewPCG(seed<<8|uint64(i), uint64(precedence)<<32|uint64(n)))
			return message(r, precedence, uint32(n), 1+r.IntN(1<<(4+r.IntN(13))))
		}
		const each = 12
		for precedence := range redoubt.Precedence(redoubt.Precedences) {
			work.Go(func() {
				for n := range each {
					if err := from.Send(ctx, precedence, content(precedence, n)); err != nil {
						t.Errorf("Send: %v", err)
						return
					}
				}
			})
		}
		work.Go(func() {
			var next [redoubt.Precedences]int
			for range each * redoubt.Precedences {
				precedence, msg, err := to.Receive(ctx)
				if err != nil {
					t.Errorf("Receive: %v; there %+v, back %+v; %+v; %+v", err, there, back, from.Stats(), to.Stats())
					return
				}
				if want := content(precedence, next[precedence]); !bytes.Equal(msg, want) {
					t.Errorf("%v message %d is not the one that was sent", precedence, next[precedence])
					return
				}
				next[precedence]++
			}
		})
	}
	work.Wait()
}
