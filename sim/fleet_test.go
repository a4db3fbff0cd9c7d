package sim_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/cryptotest"
	"time"

	"redoubt/faketime"
)

var (
	seed    = flag.Uint64("sim.seed", 0, "try this seed alone")
	seeds   = flag.Uint64("sim.seeds", 3, "how many seeds to try")
	from    = flag.Uint64("sim.from", 1, "the first seed of them")
	devices = flag.Int("sim.devices", 20, "devices of a fleet")
	steps   = flag.Int("sim.steps", 300, "steps of a history")
	by      = flag.Int("sim.weights", 0, "with -sim.seed: which weights to draw by; 0: as the seed has it")
	fewer   = flag.Duration("sim.shrink", time.Minute, "how long to look for fewer steps that fail")
	hunt    = flag.Uint64("sim.hunt", 0, "try so many seeds, and stop at the first that fails")
	only    = flag.String("sim.planted", "", "of the planted faults, hunt for those alone whose names have this in them")
	script  = flag.String("sim.script", "", "play this written history alone")
	logged  = flag.Bool("sim.log", false, "show what sessions log")
	most    = flag.Duration("sim.for", 0, "try seeds for so long, whatever -sim.seeds says")
)

// past are seeds that once found a fault. Each is tried by every run, at the size that it was found at.
var past = []struct {
	seed           uint64
	devices, steps int
	weights        int // by which of weights, from 1 on
	found          string
}{
	{1, 5, 200, 1, "a device that lost its state could not take back what it had made under its old key"},
	{6, 6, 300, 1, "a session that broke while it compared acknowledged what had not been sent"},
	{2, 6, 300, 1, "two removals of one version, each kept by the node that made it, were told again and again"},
	{3, 6, 200, 2, "what was the newest again when the one after it was removed did not go over a link that carries the latest alone"},
	{227, 5, 500, 4, "nobody noted what a captured device wrote ahead of time, to a node whose clock was ahead by more: it supersedes"},
}

func TestFleet(t *testing.T) {
	if *seed != 0 {
		chosen := drawn(*seed)
		if *by > 0 {
			chosen = weights[*by-1]
		}
		try(t, *seed, *devices, *steps, chosen)
		return
	}
	if *script != "" {
		play(t, *script)
		return
	}
	if *hunt > 0 {
		for s := *from; s < *from+*hunt && !t.Failed(); s++ {
			try(t, s, *devices, *steps, drawn(s))
		}
		return
	}
	for _, p := range past {
		try(t, p.seed, p.devices, p.steps, weights[p.weights-1])
	}
	for name := range scripts {
		play(t, name)
	}
	n, began := *seeds, time.Now()
	if testing.Short() {
		n = 1
	}
	var simulated time.Duration
	tried := uint64(0)
	for ; *most == 0 && tried < n || *most > 0 && time.Since(began) < *most; tried++ {
		s := *from + tried
		simulated += try(t, s, *devices, *steps, drawn(s))
	}
	spent := time.Since(began)
	const year = 365 * 24 * time.Hour
	years := float64(simulated) / float64(year) / spent.Minutes()
	fmt.Fprintf(os.Stderr, "sim: %d seeds of %d devices and %d steps in %v: a minute buys %.1f simulated years of the fleet, %.0f of devices\n",
		tried, *devices, *steps, spent.Round(time.Second), years, years*float64(*devices))
}

// try runs one history; where it fails it looks for fewer steps that do, and tells them.
func try(t *testing.T, seed uint64, devices, steps int, by []weight) (simulated time.Duration) {
	t.Helper()
	history := draw(seed, devices, steps, by)
	simulated, faults := run(t, seed, devices, history)
	if len(faults) == 0 {
		return simulated
	}
	t.Errorf("seed %d of %d devices and %d steps (go test ./sim -run TestFleet -sim.seed %d -sim.devices %d -sim.steps %d):\n%v", seed, devices, steps, seed, devices, steps, faults)
	if *fewer == 0 {
		return simulated
	}
	few := shrink(t, seed, devices, history, *fewer)
	t.Errorf("these %d steps do it:", len(few))
	for _, s := range few[:min(len(few), 60)] {
		t.Errorf("\t%s", s)
	}
	return simulated
}

// play runs a written history, which must find nothing.
func play(t *testing.T, name string) {
	t.Helper()
	s := scripts[name]
	if _, faults := run(t, 1, s.devices, s.steps); s.devices == 0 || len(faults) > 0 {
		t.Errorf("script %s of %d devices: %v", name, s.devices, faults)
	}
}

// run plays a history in a world of its own, connects everything and says what is wrong.
func run(t *testing.T, seed uint64, devices int, history []step) (simulated time.Duration, faults []string) {
	t.Helper()
	// Randomness is of the seed too: and the module's own generator cannot find entropy where time stands still.
	cryptotest.SetGlobalRandom(t, seed)
	faketime.Test(t, func(t *testing.T) {
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
