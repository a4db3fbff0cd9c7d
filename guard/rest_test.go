package guard

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// TestWhatNeverReadsDoesNotHoldUpWhatWasMissed: one number whose content does not read is asked for behind the others, for ever. The others come.
func TestWhatNeverReadsDoesNotHoldUpWhatWasMissed(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, above := newLowNode(t), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, loses: map[uint64]int{}}
		low.rotten = 3
		f := smallFeeder(t, low, 4, over.Send)
		var want []string
		go func() {
			for i := range 20 {
				low.write(fmt.Sprint(i))
				time.Sleep(10 * time.Millisecond)
			}
		}()
		for i := range 20 {
			over.loses[uint64(i+1)] = 1
			if i != 2 {
				want = append(want, fmt.Sprint(i))
			}
		}
		during(t, 20*time.Minute, f.Run)
		takeFor(t, above, high, 10*time.Minute)
		high.mu.Lock()
		defer high.mu.Unlock()
		for _, item := range want {
			if !high.items[item] {
				t.Errorf("%s did not come", item)
			}
		}
	})
}

// TestWhatNeverReadsDoesNotHoldUpWhatIsNew: between its tries what is new goes at once.
func TestWhatNeverReadsDoesNotHoldUpWhatIsNew(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		low.held[1], low.rotten, low.last.Serial, low.last.ID = []string{"rotten"}, 1, 1, [32]byte{1}
		low.write("first")
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: t.TempDir(), Send: over.Send})
		if err != nil {
			t.Fatal(err)
		}
		stop := runs(t, f.Run)
		time.Sleep(10 * time.Minute)
		var worst time.Duration
		for i := range 20 {
			time.Sleep(41 * time.Second)
			low.write(fmt.Sprint("new ", i))
			began := time.Now()
			for d := time.Duration(0); d < time.Minute; d += 10 * time.Millisecond {
				low.mu.Lock()
				waits := len(low.items) > 0
				low.mu.Unlock()
				if !waits {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			worst = max(worst, time.Since(began))
		}
		if worst > time.Second {
			t.Errorf("what is new waited for %v", worst)
		}
		low.mu.Lock()
		if n := len(low.agains); n > 200 {
			t.Errorf("what does not read was asked for %d times in 24 minutes", n)
		}
		low.mu.Unlock()
		stop()
	})
}

// TestTwoOrdersToFeedAgainAreBothCarriedOut: the second is given before the half has looked at the first.
func TestTwoOrdersToFeedAgainAreBothCarriedOut(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		dir := t.TempDir()
		for i := range 4 {
			low.write(fmt.Sprint(i))
			feed(t, dir, low, over, 10*time.Minute)
		}
		low.agains = nil
		for _, n := range []uint64{1, 3} {
			if err := AskRefeed(dir, []redoubt.NumberSpan{{From: n, To: n}}); err != nil {
				t.Fatal(err)
			}
		}
		feed(t, dir, low, over, 10*time.Minute)
		synctest.Wait()
		if fmt.Sprint(low.agains) != "[1 3]" {
			t.Errorf("asked again for %v, want 1 and 3", low.agains)
		}
	})
}

// TestNumbersOfAnEarlierNumberingAreNotFedForThoseOfANewOne: the low state was set back, and its numbers begin anew while bundles of the earlier ones are held.
func TestNumbersOfAnEarlierNumberingAreNotFedForThoseOfANewOne(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: t.TempDir(), Send: over.Send})
		if err != nil {
			t.Fatal(err)
		}
		stop := runs(t, f.Run)
		low.write("a")
		time.Sleep(time.Minute)
		low.mu.Lock()
		low.last = redoubt.BundleMark{Numbering: [16]byte{2}}
		low.pending, low.mark, low.void, low.held, low.said = nil, redoubt.BundleMark{}, nil, map[uint64][]string{}, map[uint64][]uint64{}
		low.mu.Unlock()
		low.write("a")
		time.Sleep(time.Second)
		f.mu.Lock() // as where it was let go for room
		for _, b := range f.sent {
			if b.Mark.Numbering == f.note.Have.Numbering {
				f.end(b)
				break
			}
		}
		f.note.over(redoubt.NumberSpan{From: 1, To: 1})
		f.missed = nil
		f.mu.Unlock()
		if err := AskRefeed(f.o.Dir, []redoubt.NumberSpan{{From: 1, To: 1}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		low.mu.Lock()
		if fmt.Sprint(low.agains) != "[1]" {
			t.Errorf("asked again for %v, want 1", low.agains)
		}
		low.mu.Unlock()
		stop()
	})
}

// TestWhatWasMissedTooLongAgoTakesNoTurns: of what is missed beyond what is known by number nothing comes, and what is behind it does.
func TestWhatWasMissedTooLongAgoTakesNoTurns(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{}
		f := smallFeeder(t, low, 4, over.Send)
		f.note.Have = redoubt.BundleMark{Numbering: low.last.Numbering, Serial: 10000, ID: [32]byte{1}}
		f.note.Sent, f.had = 10000, true
		f.note.over(redoubt.NumberSpan{From: 1, To: 10000})
		low.last.Serial, low.last.ID = 10000, [32]byte{1}
		for serial := uint64(1); serial <= 10000; serial++ {
			if serial > 10000-redoubt.MaxRaisedBundles {
				low.held[serial] = []string{fmt.Sprint(serial)}
			}
			if serial%2 == 0 {
				f.note.undo(serial)
				f.missed = append(f.missed, serial)
			}
		}
		stop := runs(t, f.Run)
		time.Sleep(10 * time.Second)
		low.mu.Lock()
		for _, serial := range low.agains {
			if _, ok := low.held[serial]; !ok {
				t.Errorf("%d was asked for, which nobody knows any more", serial)
				break
			}
		}
		low.mu.Unlock()
		stop()
	})
}
