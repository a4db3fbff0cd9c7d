package sim_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

var (
	seed    = flag.Uint64("sim.seed", 0, "try this seed alone")
	seeds   = flag.Int("sim.seeds", 4, "how many seeds to try, from 1 on")
	devices = flag.Int("sim.devices", 20, "devices of a fleet")
	steps   = flag.Int("sim.steps", 300, "steps of a history")
	fewer   = flag.Duration("sim.shrink", time.Minute, "how long to look for fewer steps that fail")
	most    = flag.Duration("sim.for", 0, "try seeds for so long, whatever -sim.seeds says")
)

// past are seeds that once found a fault. Each is tried by every run, at the size that it was found at.
var past = []struct {
	seed           uint64
	devices, steps int
	found          string
}{
	{1, 5, 200, "a device that lost its state could not take back what it had made under its old key"},
	{6, 6, 300, "a session that broke while it compared acknowledged what had not been sent"},
	{2, 6, 300, "two removals of one version, each kept by the node that made it, were told again and again"},
}

func TestFleet(t *testing.T) {
	if *seed != 0 {
		try(t, *seed, *devices, *steps)
		return
	}
	for _, p := range past {
		try(t, p.seed, p.devices, p.steps)
	}
	n, began := *seeds, time.Now()
	if testing.Short() {
		n = 1
	}
	var simulated time.Duration
	tried := 0
	for s := uint64(1); *most == 0 && s <= uint64(n) || *most > 0 && time.Since(began) < *most; s++ {
		simulated += try(t, s, *devices, *steps)
		tried++
	}
	spent := time.Since(began)
	const year = 365 * 24 * time.Hour
	years := float64(simulated) / float64(year) / spent.Minutes()
	fmt.Fprintf(os.Stderr, "sim: %d seeds of %d devices and %d steps in %v: a minute buys %.1f simulated years of the fleet, %.0f of devices\n",
		tried, *devices, *steps, spent.Round(time.Second), years, years*float64(*devices))
}

// try runs one history; where it fails it looks for fewer steps that do, and tells them.
func try(t *testing.T, seed uint64, devices, steps int) (simulated time.Duration) {
	t.Helper()
	history := draw(seed, devices, steps)
	simulated, faults := run(t, seed, devices, history)
	if len(faults) == 0 {
		return simulated
	}
	few := shrink(t, seed, devices, history, *fewer)
	t.Errorf("seed %d of %d devices and %d steps (go test ./sim -run TestFleet -sim.seed %d -sim.devices %d -sim.steps %d):\n%v", seed, devices, steps, seed, devices, steps, faults)
	t.Errorf("these %d steps do it:", len(few))
	for _, s := range few[:min(len(few), 60)] {
		t.Errorf("\t%s", s)
	}
	return simulated
}

// run plays a history in a world of its own, connects everything and says what is wrong.
func run(t *testing.T, seed uint64, devices int, history []step) (simulated time.Duration, faults []string) {
	t.Helper()
	// Randomness is of the seed too: and the module's own generator cannot find entropy where time stands still.
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := newWorld(t, seed, devices)
		for _, s := range history {
			w.play(s)
		}
		w.connectAll()
		w.compare()
		w.reconcile()
		w.end()
		simulated, faults = time.Since(began), w.faults
	})
	return simulated, faults
}

// shrink leaves steps out for as long as what remains still fails.
func shrink(t *testing.T, seed uint64, devices int, history []step, budget time.Duration) []step {
	t.Helper()
	deadline := time.Now().Add(budget)
	fails := func(h []step) bool { _, faults := run(t, seed, devices, h); return len(faults) > 0 }
	for part := len(history) / 2; part > 0; {
		cut := false
		for at := 0; at+part <= len(history) && time.Now().Before(deadline); {
			fewer := append(append([]step(nil), history[:at]...), history[at+part:]...)
			if fails(fewer) {
				history, cut = fewer, true
			} else {
				at += part
			}
		}
		if !cut || time.Now().After(deadline) {
			part /= 2
		}
		part = min(part, len(history))
	}
	return history
}
