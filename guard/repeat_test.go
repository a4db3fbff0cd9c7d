package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// smallFeeder is one in a folder of its own that has memory for so many bundles.
func smallFeeder(t *testing.T, low *lowNode, held int, send func(context.Context, *Outgoing, bool, func(context.Context) error) error) *Feeder {
	t.Helper()
	one, _ := low.bundle(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1, Created: time.Now()}, [32]byte{}, "void[]|1")
	f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: t.TempDir(), Send: send, Memory: int64(held)*int64(len(one)) + 2000})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestWhatWasPushedOutBeforeItsRepeatsComes: a burst that is more than the half holds, of which the road loses everything once, waits for nobody to feed it
// again. It is asked for once each, and a half that ends meanwhile leaves it to the next.
func TestWhatWasPushedOutBeforeItsRepeatsComes(t *testing.T) {
	for name, ends := range map[string]bool{"it goes on": false, "it ends behind the burst": true} {
		faketime.Test(t, func(t *testing.T) {
			low, above := newLowNode(t), t.TempDir()
			high, over := newHighNode(t, low), &road{to: above, loses: map[uint64]int{}}
			f := smallFeeder(t, low, 4, over.Send)
			const many = 20
			var want []string
			go func() {
				for i := range many {
					low.write(fmt.Sprint(i))
					time.Sleep(10 * time.Millisecond)
				}
			}()
			for i := range many {
				want, over.loses[uint64(i+1)] = append(want, fmt.Sprint(i)), 1
			}
			d := 10 * time.Minute
			if ends {
				d = 250 * time.Millisecond
			}
			if during(t, d, f.Run); ends {
				feed(t, f.o.Dir, low, over, 10*time.Minute)
			}
			takeFor(t, above, high, 2*time.Minute)
			high.wantAll(want...)
			asked := slices.Clone(low.agains)
			slices.Sort(asked)
			if n := len(asked); n < many-4 || n > many+2 || len(slices.Compact(asked)) != n {
				t.Errorf("%s: asked again for %v", name, low.agains)
			}
			var n note
			if err := record(f.o.Dir, noteName, &n); err != nil || len(n.lacking()) > 0 {
				t.Errorf("%s: it is asked for still: %v, %v", name, n, err)
			}
		})
	}
}

// TestWhatIsMissedWaitsUntilNothingElseIsToBeDone: it takes nothing from what is new but a turn.
func TestWhatIsMissedWaitsUntilNothingElseIsToBeDone(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		f := smallFeeder(t, low, 8, over.Send)
		stop := runs(t, f.Run)
		for i := range 40 {
			low.write(fmt.Sprint(i))
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := low.asked(); n > 1 {
			t.Errorf("%d were asked for again while 40 came in 0.4 s", n)
		}
		time.Sleep(time.Minute)
		if n := low.asked(); n < 30 {
			t.Errorf("%d were asked for again when nothing came any more", n)
		}
		stop()
	})
}

// TestAFullRoadLeavesTurns to what is to be repeated, and to what was missed: something waits to be sent at every moment.
func TestAFullRoadLeavesTurns(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		first, repeated := 0, 0
		send := func(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error {
			wait(ctx, 100*time.Millisecond)
			if over.sends(b.Mark.Serial) == 0 {
				first++
			} else {
				repeated++
			}
			return over.Send(ctx, b, again, between)
		}
		f := smallFeeder(t, low, 10, send)
		writer := sync.WaitGroup{}
		writer.Go(func() {
			for i := range 2000 {
				low.write(fmt.Sprint(i))
				time.Sleep(20 * time.Millisecond)
			}
		})
		during(t, 40*time.Second, f.Run)
		writer.Wait()
		if all := first + repeated; first < all*3/4 || repeated < all/20 {
			t.Errorf("%d sendings of what was new, and %d repeats", first, repeated)
		}
		if n := len(low.agains); n < 5 || n > int(40*time.Second/repeatEvery)+1 {
			t.Errorf("%d of those that were missed were asked for", n)
		}
	})
}

// TestWhatIsLackingDoesNotHoldUpWhatIsNew: thousands of numbers are, since a half lost its note, or a person asked for them.
func TestWhatIsLackingDoesNotHoldUpWhatIsNew(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, f *Feeder){
		"without a note": func(*testing.T, *Feeder) {},
		"asked for": func(t *testing.T, f *Feeder) {
			during(t, time.Second, f.Run)
			f.note.over(redoubt.NumberSpan{From: 1, To: 4001})
			f.missed = nil
			if err := f.keep(); err != nil {
				t.Fatal(err)
			}
			if err := AskRefeed(f.o.Dir, []redoubt.NumberSpan{{From: 1, To: 4000}}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		faketime.Test(t, func(t *testing.T) {
			low, over := newLowNode(t), &road{}
			for serial := range uint64(4000) {
				low.held[serial+1] = []string{fmt.Sprint(serial)}
			}
			low.last.Serial, low.last.ID = 4000, [32]byte{1}
			low.write("first")
			dir := t.TempDir()
			f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: dir, Send: over.Send})
			if err != nil {
				t.Fatal(err)
			}
			begin(t, f)
			if f, err = NewFeeder(f.o); err != nil {
				t.Fatal(err)
			}
			stop := runs(t, f.Run)
			time.Sleep(10 * time.Second)
			low.write("new")
			time.Sleep(time.Second)
			low.mu.Lock()
			if some := len(low.items); some != 0 || len(low.agains) < 10 || len(low.agains) > 1000 {
				t.Errorf("%s: %d things that are new wait, and %d were asked for again", name, some, len(low.agains))
			}
			low.mu.Unlock()
			stop()
		})
	}
}

// slowly is a road on which the first bundle takes 20 s when it is repeated, and each other one so many steps of 10 ms: between them others go.
type slowly struct {
	*road
	steps int

	mu       sync.Mutex
	came     map[uint64]time.Time // when what is new was handed over
	worst    time.Duration        // from then until it began to be sent
	repeated bool                 // all of the first went again
	changed  bool                 // what was sent became another meanwhile
}

// timed notes when each is handed over.
type timed struct {
	*lowNode
	over *slowly
}

func (n timed) HandRaise(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, w io.Writer) (redoubt.BundleMark, error) {
	m, err := n.lowNode.HandRaise(ctx, who, peer, have, w)
	n.over.mu.Lock()
	defer n.over.mu.Unlock()
	n.over.came[m.Serial] = time.Now()
	return m, err
}

func (s *slowly) Send(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error {
	read := func() string {
		raw, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		return fmt.Sprint(string(raw), err)
	}
	was, steps, first := read(), s.steps, b.Mark.Serial == 1
	s.mu.Lock()
	if came, is := s.came[b.Mark.Serial]; is && s.sends(b.Mark.Serial) == 0 {
		s.worst = max(s.worst, time.Since(came))
	} else if first {
		steps = 2000
	}
	s.mu.Unlock()
	for range steps {
		if between != nil {
			if err := between(ctx); err != nil {
				return err
			}
		}
		if wait(ctx, 10*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	s.mu.Lock()
	s.repeated, s.changed = s.repeated || first && s.sends(1) > 0, s.changed || read() != was
	s.mu.Unlock()
	return s.road.Send(ctx, b, again, nil)
}

func (s *slowly) is() (repeated, changed bool, worst time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repeated, s.changed, s.worst
}

// TestWhatIsNewWaitsForNoRepeatOfALargeBundle for longer than a part of a second, and the repeat comes to its end all the same: also where something new
// waits at every moment, and where what is new leaves no room for what is being repeated.
func TestWhatIsNewWaitsForNoRepeatOfALargeBundle(t *testing.T) {
	for name, c := range map[string]struct {
		every         time.Duration // something new is written
		steps         int           // that each takes on the road
		held          int           // bundles in memory
		within, worst time.Duration
	}{
		"now and then":      {5 * time.Second, 1, 8, time.Minute, 300 * time.Millisecond},
		"with room for six": {500 * time.Millisecond, 1, 6, time.Minute, 300 * time.Millisecond},
		"without end":       {90 * time.Millisecond, 10, 40, 4 * time.Minute, 5 * time.Second},
	} {
		faketime.Test(t, func(t *testing.T) {
			over := &slowly{road: &road{}, steps: c.steps, came: map[uint64]time.Time{}}
			low := timed{newLowNode(t), over}
			f := smallFeeder(t, low.lowNode, c.held, over.Send)
			f.o.Source = low
			stop := runs(t, f.Run)
			repeated := false
			for began := time.Now(); !repeated && time.Since(began) < c.within; repeated, _, _ = over.is() {
				low.write("new")
				time.Sleep(c.every)
			}
			_, changed, worst := over.is()
			if !repeated {
				t.Errorf("%s: it is not repeated within %v", name, c.within)
			}
			if worst > c.worst {
				t.Errorf("%s: something new waited for %v", name, worst)
			}
			if changed {
				t.Errorf("%s: what was sent became another in its midst", name)
			}
			stop()
		})
	}
}

// TestOtherRepeatsWaitForNoRepeatOfALargeBundle, nor does what is missed: what is lost meanwhile comes within seconds, also where something new waits at
// every moment, and where what goes between is long itself.
func TestOtherRepeatsWaitForNoRepeatOfALargeBundle(t *testing.T) {
	for name, c := range map[string]struct {
		every         time.Duration // something new is written
		steps         int           // that each takes on the road
		within, worst time.Duration // of the large one; and from when another is sent until it is repeated
	}{
		"now and then": {3 * time.Second, 10, time.Minute, 5 * time.Second},
		"often":        {90 * time.Millisecond, 1, 2 * time.Minute, 5 * time.Second},
		"without end":  {90 * time.Millisecond, 10, 5 * time.Minute, 5 * time.Minute}, // more than can be repeated
	} {
		faketime.Test(t, func(t *testing.T) {
			low, over := newLowNode(t), &road{}
			sent, worst, others, depth, deepest := map[uint64]time.Time{}, time.Duration(0), 0, 0, 0
			var began, ended time.Time
			var f *Feeder
			asked := 0
			writes, enough := context.WithTimeout(t.Context(), c.within)
			defer enough()
			send := func(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error {
				serial, steps := b.Mark.Serial, c.steps
				first := sent[serial].IsZero()
				switch {
				case !first && serial == 1:
					steps = 800
					if began.IsZero() {
						began = time.Now()
					}
				case !first && serial == 2: // the long one
					steps = 150
				case !first && !began.IsZero() && ended.IsZero():
					if others++; over.sends(serial) == 1 {
						worst = max(worst, time.Since(sent[serial]))
					}
				}
				depth++
				deepest = max(deepest, depth)
				defer func() { depth-- }()
				for i := range steps {
					if between != nil {
						if err := between(ctx); err != nil {
							return err
						}
					}
					if wait(ctx, 10*time.Millisecond); ctx.Err() != nil {
						return ctx.Err()
					}
					if steps == 800 && i == 100 && ended.IsZero() { // as of what was pushed out
						f.mu.Lock()
						f.missed = append(f.missed, 3)
						f.mu.Unlock()
					}
				}
				if first {
					sent[serial] = time.Now()
				} else if serial == 1 && ended.IsZero() {
					ended, asked = time.Now(), low.asked()
					enough()
				}
				return over.Send(ctx, b, again, nil)
			}
			f = smallFeeder(t, low, 400, send)
			f.o.Memory += 1 << 20
			stop := runs(t, f.Run)
			low.write(strings.Repeat("large", 40<<10))
			time.Sleep(50 * time.Millisecond)
			low.write(strings.Repeat("long", 5<<10))
			time.Sleep(50 * time.Millisecond)
			for writes.Err() == nil {
				low.write("new")
				wait(writes, c.every)
			}
			stop()
			if began.IsZero() || ended.IsZero() {
				t.Fatalf("%s: the large one is repeated from %v to %v", name, began, ended)
			}
			d := ended.Sub(began)
			if worst > c.worst || others < int(d/(4*time.Second)) {
				t.Errorf("%s: within %v %d others were repeated, one of them after %v", name, d, others, worst)
			}
			if asked == 0 {
				t.Errorf("%s: what was missed is not asked for", name)
			}
			if deepest > 3 {
				t.Errorf("%s: %d go between one another", name, deepest)
			}
		})
	}
}

// TestWhatFailsBetweenEndsTheFeeder where it is the folder that fails, as a full disk does: no less than when nothing is repeated.
func TestWhatFailsBetweenEndsTheFeeder(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		dir, failed := t.TempDir(), false
		order := filepath.Join(dir, refeedName+"-x"+refeedExt) // neither read nor removed
		send := func(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error {
			for i := 0; between != nil && !failed && i < 300; i++ {
				if err := os.MkdirAll(filepath.Join(order, "x"), 0o700); err != nil {
					t.Error(err)
				}
				err := between(ctx)
				if err := os.RemoveAll(order); err != nil { // it fails but once
					t.Error(err)
				}
				if failed = err != nil; failed {
					return fmt.Errorf("on the road: %w", redoubt.Unavailable)
				}
				wait(ctx, 10*time.Millisecond)
			}
			return over.Send(ctx, b, again, nil)
		}
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: dir, Send: send})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		go func() {
			for ctx.Err() == nil {
				low.write("new")
				wait(ctx, 90*time.Millisecond)
			}
		}()
		err = f.Run(ctx)
		if e, is := errors.AsType[*redoubt.Error](err); !failed || !is || e.Object != dir || ctx.Err() != nil {
			t.Errorf("something failed: %v; it ends with %v, %v", failed, err, ctx.Err())
		}
		stop()
	})
}

// TestARepeatThatFailsIsNone: it is tried again after its pause, and as often as any when the road is back.
func TestARepeatThatFailsIsNone(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		f := smallFeeder(t, low, 8, nil)
		tries, down := 0, true
		f.o.Send = func(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error {
			over.mu.Lock()
			fails := down && len(over.sent) > 0
			if fails {
				tries++
			}
			over.mu.Unlock()
			if fails {
				return redoubt.Unavailable
			}
			return over.Send(ctx, b, again, nil)
		}
		stop := runs(t, f.Run)
		low.write("a")
		time.Sleep(10 * time.Second)
		over.mu.Lock()
		if down = false; tries < 3 || tries > 40 {
			t.Errorf("%d tries in 10 s", tries)
		}
		over.mu.Unlock()
		time.Sleep(5 * time.Minute)
		if n := over.sends(1); n != 1+len(repeats) {
			t.Errorf("it was sent %d times, want %d", n, 1+len(repeats))
		}
		stop()
	})
}

// TestOfNumbersThatNobodyKnowsAllIsRaisedAnew: one that is known among them is fed again.
func TestOfNumbersThatNobodyKnowsAllIsRaisedAnew(t *testing.T) {
	dir := t.TempDir()
	if err := AskRefeed(dir, []redoubt.NumberSpan{{From: 1, To: 1}}); err == nil || !strings.Contains(err.Error(), "not made yet") {
		t.Errorf("of a half that had nothing yet: %v", err)
	}
	const newest = 2 * redoubt.MaxRaisedBundles
	if err := hint(dir, noteName, note{Have: redoubt.BundleMark{Serial: newest}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		span redoubt.NumberSpan
		anew bool
	}{{redoubt.NumberSpan{From: 1, To: newest - redoubt.MaxRaisedBundles}, true}, {redoubt.NumberSpan{From: 1, To: newest - redoubt.MaxRaisedBundles + 1}, false}, {redoubt.NumberSpan{From: newest, To: newest}, false}} {
		err := AskRefeed(dir, []redoubt.NumberSpan{c.span})
		if e, is := errors.AsType[*redoubt.Error](err); is != c.anew || is && (e.Kind != redoubt.NotFound || !strings.Contains(e.Hint, "--anew")) {
			t.Errorf("of %v: %v", c.span, err)
		}
	}
}
