package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// What the timing measurement is made of. A slot is the time in which the high side stays as it is; somebody
// who wants to send holds a bit for one.
const (
	timingSlot    = 50 * time.Millisecond
	timingSlots   = 80   // of each state, for each low operation
	timingPairs   = 4000 // requests on either side of a comparison at rest
	timingNames   = 2000 // names of each sort
	timingWriters = 4    // high connections
	timingBytes   = 1024
)

// state is what the high side does during a slot.
type state int

const (
	idle  state = iota // nothing
	other              // writes names that the low side never asks for
	same               // writes the one name that the low side's put-hot writes too
)

// timing is one enclave, a low connection that takes times and high ones that write.
type timing struct {
	low   *client
	high  []*client
	r     *rand.Rand
	body  []byte
	fresh int // the next name for a PUT
}

// runTiming measures how well a low reader and writer can tell by latency what lies above it and what goes on there.
func runTiming(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "server-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	srv, err := startRedoubt(ctx, o, dir)
	if err != nil {
		return err
	}
	defer srv.stop()
	t := &timing{r: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)), body: make([]byte, timingBytes)}
	below := *srv
	if below.access, below.secret, err = credential(ctx, o, dir, "UNCLASSIFIED"); err != nil {
		return err
	}
	if t.low, err = below.dial(); err != nil {
		return err
	}
	defer t.low.close()
	defer func() { t.dialHigh(nil, 0) }()
	if err := t.dialHigh(srv, 1); err != nil {
		return err
	}
	if err := t.fill(); err != nil {
		return err
	}
	if err := t.atRest(ctx); err != nil {
		return err
	}
	if err := t.dialHigh(srv, timingWriters); err != nil { // anew: the node ends connections that rest
		return err
	}
	return t.besideWriters(ctx)
}

// dialHigh has n high connections in place of those that were.
func (t *timing) dialHigh(srv *server, n int) error {
	for _, c := range t.high {
		c.close()
	}
	t.high = nil
	for range n {
		c, err := srv.dial()
		if err != nil {
			return err
		}
		t.high = append(t.high, c)
	}
	return nil
}

func name(sort string, i int) string { return fmt.Sprintf("/bench/%s/%05d", sort, i) }

// fill stores what lies still. Every second name of "probe" is hidden above and the others are nowhere, so that nothing
// but that tells them apart; "mixed" and "under" have high versions; of "clean" and "mixed" the low side sees the same.
func (t *timing) fill() error {
	for i := range timingNames {
		for _, w := range []struct {
			c    *client
			sort string
			on   bool
		}{{t.low, "clean", i%20 == 0}, {t.low, "mixed", i%20 == 0}, {t.high[0], "mixed", true}, {t.high[0], "probe", i%2 == 0}, {t.high[0], "under", true}} {
			if w.on {
				if err := w.c.do("PUT", name(w.sort, i), "", t.body, nil); err != nil {
					return err
				}
			}
		}
	}
	return t.low.do("PUT", "/bench/hot", "", t.body, nil)
}

// take gives the time of one low request, in microseconds. A HEAD of what is not there is answered with 404.
func (t *timing) take(method, path, query string) (float64, error) {
	body := t.body
	if method != "PUT" {
		body = nil
	}
	if t.low.accept = 0; method == "HEAD" {
		t.low.accept = 404
	}
	began := time.Now()
	err := t.low.do(method, path, query, body, nil)
	return float64(time.Since(began).Nanoseconds()) / 1e3, err
}

// operation is one low request; i is a name's number.
type operation struct {
	name string
	one  func(t *timing, i int) (float64, error)
}

func get(sort string) func(*timing, int) (float64, error) {
	return func(t *timing, i int) (float64, error) { return t.take("GET", name(sort, i/20*20), "") }
}

// head asks for a name of "probe" whose number leaves rest when divided by four: 0 and 2 are hidden above, 1 and 3 are nowhere.
func head(rest int) func(*timing, int) (float64, error) {
	return func(t *timing, i int) (float64, error) { return t.take("HEAD", name("probe", i/4*4+rest), "") }
}

func list(sort string) func(*timing, int) (float64, error) {
	return func(t *timing, _ int) (float64, error) {
		return t.take("GET", "/bench", "list-type=2&max-keys=50&prefix="+sort+"%2F")
	}
}

func put(sort string) func(*timing, int) (float64, error) {
	return func(t *timing, _ int) (float64, error) {
		t.fresh++
		return t.take("PUT", name(sort, t.fresh), "")
	}
}

// under writes names that are hidden above, each once.
func under(t *timing, i int) (float64, error) {
	t.fresh++
	return t.take("PUT", name("under", t.fresh%timingNames), "")
}

func hot(t *timing, _ int) (float64, error) { return t.take("PUT", "/bench/hot", "") }

// atRest compares what differs only in what lies above, while nothing goes on there.
func (t *timing) atRest(ctx context.Context) error {
	fmt.Println("At rest: is something hidden above? Requests of both sorts in random order.")
	fmt.Printf("%-44s %9s %9s %9s %9s %9s %9s %10s\n", "", "each", "p50 us", "p50 us", "p99 us", "p99 us", "told", "by chance")
	for _, pair := range []struct {
		what string
		a, b func(*timing, int) (float64, error)
		most int
	}{
		{"HEAD: a missing name, one hidden above", head(1), head(2), 3 * timingPairs},
		{"HEAD: a missing name, another missing one", head(1), head(3), 3 * timingPairs},
		{"GET: no version above, one above", get("clean"), get("mixed"), timingPairs},
		{"LIST of 50: no names above, 1,900 among them", list("clean"), list("mixed"), timingPairs / 4},
		{"PUT: a new name, one hidden above", put("fresh"), under, timingNames / 2},
	} {
		var took [2][]float64
		for len(took[0])+len(took[1]) < 2*pair.most {
			if err := ctx.Err(); err != nil {
				return err
			}
			of, one := 0, pair.a
			if t.r.IntN(2) == 1 {
				of, one = 1, pair.b
			}
			us, err := one(t, t.r.IntN(timingNames))
			if err != nil {
				return fmt.Errorf("%s: %w", pair.what, err)
			}
			took[of] = append(took[of], us)
		}
		h := listen(took[0], took[1], t.r)
		fmt.Printf("%-44s %9d %9.0f %9.0f %9.0f %9.0f %8.1f%% %9.1f%%\n", pair.what, pair.most, quantile(took[0], .5), quantile(took[1], .5),
			quantile(took[0], .99), quantile(took[1], .99), 100*h.accuracy, 100*h.chance)
	}
	return nil
}

// besideWriters compares each low operation in slots in which the high side is idle, writes other names, or
// writes the same name.
func (t *timing) besideWriters(ctx context.Context) error {
	fmt.Printf("\nBeside %d high writers: slots of %v in random order, %d of each sort.\n", timingWriters, timingSlot, timingSlots)
	fmt.Printf("%-14s %-18s %9s %9s %9s %10s %10s %10s\n", "low", "high", "p50 us", "p99 us", "requests", "told, one", "told, slot", "bits/s")
	for _, op := range []operation{{"GET", get("clean")}, {"HEAD missing", head(1)}, {"HEAD hidden", head(2)},
		{"LIST", list("clean")}, {"PUT", put("beside")}, {"PUT hot", hot}} {
		var single, slots [3][]float64 // times of requests, and the median of each slot's
		for _, s := range t.schedule() {
			took, err := t.slot(ctx, op, s)
			if err != nil {
				return fmt.Errorf("%s: %w", op.name, err)
			}
			single[s] = append(single[s], took...)
			slots[s] = append(slots[s], quantile(took, .5))
		}
		for s, what := range []string{"idle", "other names", "the same name"} {
			fmt.Printf("%-14s %-18s %9.0f %9.0f %9d", op.name, what, quantile(single[s], .5), quantile(single[s], .99), len(single[s]))
			if state(s) == idle {
				fmt.Println()
				continue
			}
			one, slot := listen(single[idle], single[s], t.r), listen(slots[idle], slots[s], t.r)
			fmt.Printf(" %9.1f%% %9.1f%% %10.1f\n", 100*one.accuracy, 100*slot.accuracy, slot.bits/timingSlot.Seconds())
		}
		between := listen(slots[other], slots[same], t.r)
		fmt.Printf("%-14s %-18s %9s %9s %9s %10s %9.1f%% %10.1f\n", op.name, "which of the two", "", "", "", "", 100*between.accuracy, between.bits/timingSlot.Seconds())
	}
	return nil
}

// schedule is a random order of states.
func (t *timing) schedule() (all []state) {
	for range timingSlots {
		all = append(all, idle, other, same)
	}
	t.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// slot lets the high side do as s says for a while, and takes low times meanwhile.
func (t *timing) slot(ctx context.Context, op operation, s state) (took []float64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	end := make(chan struct{})
	var wg sync.WaitGroup
	errs := make([]error, len(t.high))
	for i, c := range t.high {
		if s == idle {
			break
		}
		path := "/bench/hot"
		if s == other {
			path = fmt.Sprintf("/bench/busy/%d", i)
		}
		wg.Go(func() {
			for errs[i] == nil {
				select {
				case <-end:
					return
				default:
					errs[i] = c.do("PUT", path, "", t.body, nil)
				}
			}
		})
	}
	for until := time.Now().Add(timingSlot); err == nil && (time.Now().Before(until) || len(took) == 0); {
		var us float64
		if us, err = op.one(t, t.r.IntN(timingNames)); err == nil {
			took = append(took, us)
		}
	}
	close(end)
	wg.Wait()
	return took, errors.Join(append(errs, err)...)
}
