package redoubttest_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var (
	freshSeeds   = flag.Int("noninterference.n", 2, "how many fresh seeds TestNonInterference tries beside the fixed ones")
	fixedSeeds   = flag.Uint64("noninterference.fixed", 10, "how many fixed seeds, from 1 on, it tries")
	onlySeed     = flag.Uint64("noninterference.seed", 0, "try this seed alone")
	noShrink     = flag.Bool("noninterference.noshrink", false, "report a difference without looking for the few steps that it takes")
	historySteps = flag.Int("noninterference.steps", 300, "length of a history")
)

// TestNonInterference plays each history whole, and once for each observer without the steps that the
// observer's working label does not dominate. What the observer and everybody below it receives
// must be the same to the byte (RULES 3). docs/spec/noninterference.md says what is left out, and why.
func TestNonInterference(t *testing.T) {
	var seeds []uint64
	for seed := range *fixedSeeds {
		seeds = append(seeds, seed+1)
	}
	for range *freshSeeds {
		seeds = append(seeds, rand.Uint64())
	}
	if *onlySeed != 0 {
		seeds = []uint64{*onlySeed}
	}
	for i, seed := range seeds {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { interferes(t, seed) }) {
			t.Fatalf("%s %d: the seed is %d", foundAfter, i+1, seed)
		}
	}
}

// foundAfter is what the hunt for planted leaks reads.
const foundAfter = "interference found by history number"

// interferes plays one seed.
func interferes(t *testing.T, seed uint64) {
	steps, at := plan(seed, *historySteps), moments(seed, *historySteps)
	whole := run(t, seed, steps, at, func(step) bool { return true })
	compared := 0
	for _, observer := range observers {
		keep, sees := visibleTo(t, observer), observes(t, observer)
		without := run(t, seed, steps, at, keep)
		if first, ok := differ(steps, whole, without, keep, sees); ok {
			report(t, seed, observer, steps, at, first)
			return
		}
		for _, s := range steps {
			if keep(s) && sees(s) && without.said[s.n] != "" {
				compared++
			}
		}
	}
	if compared < len(steps)/2 {
		t.Fatalf("only %d answers were compared: the history is too thin to say anything", compared)
	}
}

// differ finds the first step whose answer is not the same in both runs.
func differ(steps []step, a, b *world, keep, sees func(step) bool) (step, bool) {
	for _, s := range steps {
		if keep(s) && sees(s) && a.said[s.n] != b.said[s.n] {
			return s, true
		}
	}
	return step{}, false
}

// report shrinks what differs to the few high steps that it takes, and shows both answers.
func report(t *testing.T, seed uint64, observer string, steps []step, at []time.Time, first step) {
	t.Helper()
	keep, sees := visibleTo(t, observer), observes(t, observer)
	steps = steps[:first.n+1]
	var high []step
	for _, s := range steps {
		if !keep(s) {
			high = append(high, s)
		}
	}
	without := run(t, seed, steps, at, keep)
	plays := func(kept []step) *world {
		in := map[int]bool{}
		for _, s := range kept {
			in[s.n] = true
		}
		return run(t, seed, steps, at, func(s step) bool { return keep(s) || in[s.n] })
	}
	with, budget := plays(high), 60
	if *noShrink {
		budget = 0
	}
	for size := len(high) / 2; size >= 1 && budget > 0; size /= 2 {
		for from := 0; from+size <= len(high) && budget > 0; budget-- {
			fewer := append(append([]step(nil), high[:from]...), high[from+size:]...)
			w := plays(fewer)
			if s, ok := differ(steps, w, without, keep, sees); ok {
				high, with, first = fewer, w, s
				continue
			}
			from += size
		}
	}
	first, ok := differ(steps, with, without, keep, sees)
	if !ok {
		t.Fatalf("seed %d: the runs differed and, played again, do not: the history is not deterministic", seed)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: an observer at %s is told of what it does not dominate\n%v\n", seed, observer, first)
	fmt.Fprintf(&b, "it takes %d high steps:\n", len(high))
	for _, s := range high[:min(len(high), 8)] {
		fmt.Fprintf(&b, "  %v\n%s\n", s, indent(with.said[s.n]))
	}
	onlyWith, onlyWithout := unlike(with.said[first.n], without.said[first.n])
	fmt.Fprintf(&b, "with them it is told:\n%s\nand without them:\n%s\n", indent(onlyWith), indent(onlyWithout))
	t.Error(b.String())
}

// unlike gives the lines of each that the other lacks.
func unlike(a, b string) (onlyA, onlyB string) {
	lacks := func(from, in string) string {
		have := map[string]int{}
		for line := range strings.SplitSeq(in, "\n") {
			have[line]++
		}
		var out []string
		for line := range strings.SplitSeq(from, "\n") {
			if have[line]--; have[line] < 0 || strings.HasPrefix(line, "> ") {
				out = append(out, line)
			}
		}
		return strings.Join(out, "\n")
	}
	return lacks(a, b), lacks(b, a)
}

func indent(s string) string {
	if len(s) > 4000 {
		s = s[:4000] + "…"
	}
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ")
}

// TestAHistoryIsDeterministic: otherwise a difference would say nothing.
func TestAHistoryIsDeterministic(t *testing.T) {
	for seed := range uint64(3) {
		steps, at := plan(seed, *historySteps), moments(seed, *historySteps)
		all := func(step) bool { return true }
		a, b := run(t, seed, steps, at, all), run(t, seed, steps, at, all)
		if s, ok := differ(steps, a, b, all, all); ok {
			t.Errorf("seed %d: %v\n%s\nthen\n%s", seed, s, indent(a.said[s.n]), indent(b.said[s.n]))
		}
	}
}

// TestHistoriesReachEverything: a generator that never gets through to an operation tests nothing of it.
func TestHistoriesReachEverything(t *testing.T) {
	good, refused := map[string]int{}, map[string]int{}
	for seed := range uint64(24) {
		steps, at := plan(seed, *historySteps), moments(seed, *historySteps)
		w := run(t, seed, steps, at, func(step) bool { return true })
		for _, s := range steps {
			if strings.Contains(w.said[s.n], "< 20") || strings.HasSuffix(w.said[s.n], "< ok") {
				good[s.op]++
			} else {
				refused[s.op]++
			}
			if strings.Contains(w.said[s.n], "QuotaExceeded") {
				good["quota exceeded"]++
			}
			if how, _, ok := strings.Cut(strings.TrimPrefix(w.said[s.n], "> spend on "), "\n"); ok && s.op == "spend" && strings.Contains(w.said[s.n], "QuotaExceeded") {
				end := "a high"
				if roles[s.role].marking == "UNCLASSIFIED" {
					end = "a low"
				}
				good[end+" share spent on "+how]++
			}
			for what, says := range map[string]string{"a job that is done": `"state":"done"`, "one that failed": `"state":"failed"`, "one that runs": `"state":"running"`, "one that was canceled": `"state":"canceled"`,
				"one that rose": `"start":"UNCLASSIFIED","max":"SECRET","spec"`, "outputs": `"outputs":[{`, "one of a trigger": `"from":"trigger `, "one of a schedule": `"from":"schedule `} {
				if strings.Contains(w.said[s.n], says) {
					good[what]++
				}
			}
			if strings.Contains(w.said[s.n], "<Code>PreconditionFailed") {
				good["precondition failed"]++
			}
		}
	}
	want := []string{"quota exceeded", "precondition failed", "write-up", "a job that is done", "one that failed", "one that runs", "one that was canceled", "one that rose", "outputs", "one of a trigger", "one of a schedule"}
	for _, how := range spendings {
		want = append(want, "a low share spent on "+how, "a high share spent on "+how)
	}
	for _, w := range officerOps {
		want = append(want, w.op)
	}
	for _, w := range adminOps {
		want = append(want, w.op)
	}
	for _, op := range want {
		if good[op] == 0 {
			t.Errorf("%s never succeeded (refused %d times)", op, refused[op])
		}
	}
}
