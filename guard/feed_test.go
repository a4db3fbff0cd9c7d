package guard

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// files is a folder as it is on disk.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Type().IsRegular() {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			out[e.Name()] = string(b)
		}
	}
	return out
}

// put has a folder be as it was.
func put(t *testing.T, dir string, as map[string]string) {
	t.Helper()
	for name := range files(t, dir) {
		os.Remove(filepath.Join(dir, name))
	}
	for name, b := range as {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsBelowIsAbove(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above}
		low.write("a", "b")
		feed(t, below, low, over, time.Second)
		low.write("c")
		feed(t, below, low, over, 5*time.Minute)
		takeFor(t, above, high, time.Minute)
		high.wantAll("a", "b", "c")
		if !slices.Equal(high.taken, []uint64{1, 2, 3}) || !slices.Equal(low.agains, []uint64{1}) { // whose repeats were not over when the first half ended
			t.Errorf("taken %v, asked again for %v", high.taken, low.agains)
		}
		if left := files(t, above); len(left) != 1 { // its record
			t.Errorf("above there is %v", slices.Collect(maps.Keys(left)))
		}
	})
}

// TestAFeederThatDiesAnywhereLosesNothing: what it noted is put back to each state that it had, and it goes on from there.
func TestAFeederThatDiesAnywhereLosesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		states := map[string]func(before, after map[string]string) map[string]string{
			"before anything": func(before, _ map[string]string) map[string]string { return before },
			"while it noted": func(before, after map[string]string) map[string]string {
				out := maps.Clone(before)
				out[noteName+".new"] = after[noteName][:len(after[noteName])/2]
				return out
			},
			"behind everything": func(_, after map[string]string) map[string]string { return after },
		}
		for _, sends := range []bool{true, false} {
			for name, state := range states {
				low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
				high, over := newHighNode(t, low), &road{to: above}
				if !sends {
					over.fails = 1 << 30
				}
				var want []string
				for i := range 3 {
					item := fmt.Sprint("item ", i)
					want = append(want, item)
					before := files(t, below)
					low.write(item)
					feed(t, below, low, over, 500*time.Millisecond)
					put(t, below, state(before, files(t, below)))
				}
				over.fails = 0
				low.write("last")
				feed(t, below, low, over, 10*time.Minute)
				takeFor(t, above, high, time.Minute)
				if high.wantAll(append(want, "last")...); t.Failed() {
					t.Fatalf("it died %s, and sent: %v; taken %v, void %v, sent %v, asked again %v", name, sends, high.taken, high.void, over.sent, low.agains)
				}
			}
		}
	})
}

// TestWhatWasNotRepeatedOftenEnoughIsAskedForAfterTheEnd: the higher half may have ended with the lower one, and lack what it had not made durable. What was
// is not asked for.
func TestWhatWasNotRepeatedOftenEnoughIsAskedForAfterTheEnd(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above}
		low.write("a")
		feed(t, below, low, over, 20*time.Minute)
		takeFor(t, above, high, time.Minute)
		over.loses = map[uint64]int{2: 1000}
		low.write("b")
		feed(t, below, low, over, 200*time.Millisecond)
		if over.sends(1) != 1+len(repeats) || over.sends(2) != 1 {
			t.Fatalf("sent %v", over.sent)
		}
		feed(t, below, low, over, 20*time.Minute)
		takeFor(t, above, high, time.Minute)
		if high.wantAll("a", "b"); !slices.Equal(low.agains, []uint64{2}) || over.sends(2) != 1 || over.sends(3) != 1+len(repeats) {
			t.Errorf("asked again for %v, sent %v", low.agains, over.sent)
		}
		feed(t, below, low, over, time.Minute)
		if len(low.agains) != 1 || over.sends(3) != 1+len(repeats) {
			t.Errorf("what is over was asked for: %v, sent %v", low.agains, over.sent)
		}
	})
}

// TestWhatAPowerCutTookBackIsAskedFor: bundles that it had, and the low node knows that it had, of which its note tells nothing any more.
func TestWhatAPowerCutTookBackIsAskedFor(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above}
		low.write("a")
		feed(t, below, low, over, time.Second)
		old := files(t, below)
		over.loses = map[uint64]int{0: 1000}
		for _, item := range []string{"b", "c", "d"} {
			low.write(item)
			feed(t, below, low, over, 200*time.Millisecond)
		}
		put(t, below, old)
		over.loses = nil
		low.write("e")
		feed(t, below, low, over, 10*time.Minute)
		takeFor(t, above, high, 2*time.Minute)
		high.wantAll("a", "b", "c", "d", "e")
	})
}

// TestWhatIsVoidOrTooLongAgoIsGivenUp, on the record of the half, and holds nothing up.
func TestWhatIsVoidOrTooLongAgoIsGivenUp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, fails: 1 << 30}
		low.write("a")
		feed(t, below, low, over, time.Second)
		low.held = map[uint64][]string{}
		over.fails = 0
		low.write("b")
		feed(t, below, low, over, 10*time.Minute)
		takeFor(t, above, high, 2*time.Minute)
		if !slices.Equal(low.agains, []uint64{1}) || !high.items["b"] {
			t.Errorf("asked again for %v; above there is %v", low.agains, high.items)
		}
		var n note
		if err := record(below, noteName, &n); err != nil || len(n.lacking()) > 0 {
			t.Errorf("it is asked for still: %v, %v", n, err)
		}
	})
}

// TestWhatDoesNotReadBelowHoldsNothingUp: neither what is new nor what else is asked for again; and it is asked for still.
func TestWhatDoesNotReadBelowHoldsNothingUp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, loses: map[uint64]int{0: 1000}}
		for _, item := range []string{"a", "b"} {
			low.write(item)
			feed(t, below, low, over, 200*time.Millisecond)
			low.rotten = 1
		}
		over.loses = nil
		go func() {
			for _, item := range []string{"c", "d"} {
				time.Sleep(time.Minute)
				low.write(item)
			}
		}()
		feed(t, below, low, over, 10*time.Minute)
		takeFor(t, above, high, 2*time.Minute)
		for _, item := range []string{"b", "c", "d"} {
			if !high.items[item] {
				t.Errorf("%s did not come", item)
			}
		}
		low.rotten = 0
		feed(t, below, low, over, time.Minute)
		takeFor(t, above, high, 2*time.Minute)
		high.wantAll("a", "b", "c", "d")
	})
}

// TestTwoHalvesDoNotAskForEachOthersNumbersForEver: what one asks for again is a number that the other passes over.
func TestTwoHalvesDoNotAskForEachOthersNumbersForEver(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, above := newLowNode(t), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above}
		both := sync.WaitGroup{}
		for range 2 {
			dir := t.TempDir()
			both.Go(func() { feed(t, dir, low, over, 10*time.Minute) })
		}
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			low.write(want[i])
			time.Sleep(time.Second)
		}
		both.Wait()
		takeFor(t, above, high, 10*time.Minute)
		for _, item := range want {
			if !high.items[item] {
				t.Errorf("%s did not come", item)
			}
		}
		if n := len(low.agains); n > 40 {
			t.Errorf("asked %d times again", n)
		}
	})
}

// TestWhatANumberOfAnotherNumberingHeldIsNotOver because a bundle that holds what an older one had in a number was sent.
func TestWhatANumberOfAnotherNumberingHeldIsNotOver(t *testing.T) {
	f, err := NewFeeder(FeederOptions{High: "high", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	old := &Outgoing{contents: &contents{}, Mark: redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 9}, of: 1}
	for _, b := range []*Outgoing{old, {contents: &contents{}, Mark: redoubt.BundleMark{Numbering: [16]byte{2}, Serial: 1}}} {
		if err := f.hold(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.wasSent(old); err != nil || !slices.Equal(f.note.lacking(), []uint64{1}) {
		t.Errorf("left to do: %v, %v", f.note.lacking(), err)
	}
}

func TestAHintThatAPowerCutLeftEmptyIsNone(t *testing.T) {
	dir := t.TempDir()
	for _, damaged := range []string{"", `{"Have": 7`, "\x00\x00\x00\x00", `[{"Serial": 7}, {`, `{"Serial": 7, "Other": 1}`} {
		for _, name := range []string{noteName, takenName} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(damaged), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f, err := NewFeeder(FeederOptions{Dir: dir})
		if err != nil || f.note.Have.Serial != 0 || len(f.note.Over) != 0 || len(f.lacking) != 0 {
			t.Fatalf("a low half does not begin without %q: %v", damaged, err)
		}
		if !f.room() {
			t.Error("nor does it find room")
		}
		if k, err := NewTaker(TakerOptions{Dir: dir}); err != nil || k.last.Serial != 0 {
			t.Errorf("a high half does not begin without %q: %v", damaged, err)
		}
	}
}

func TestABundleThatIsCutOffIsNotHad(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above}
		low.write("a")
		low.cut = 1000
		feed(t, below, low, over, time.Minute)
		takeFor(t, above, high, time.Minute)
		high.wantAll("a")
		if !high.void[1] || !slices.Equal(high.taken, []uint64{2}) {
			t.Errorf("taken %v, void %v", high.taken, high.void)
		}
	})
}

func TestASourceThatIsAwayIsAskedAgain(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, fails: 3}
		low.away = redoubt.Unavailable
		feed(t, below, low, over, 10*time.Minute)
		if n := len(low.haves); n < 10 || n > 60 {
			t.Errorf("in ten minutes it was asked %d times", n)
		}
		low.away = nil
		low.write("a")
		feed(t, below, low, over, time.Minute)
		takeFor(t, above, high, time.Minute)
		high.wantAll("a")
	})
}

// TestNothingAboveChangesWhatIsSent: what is lost on the way, and what is not, is sent alike.
func TestNothingAboveChangesWhatIsSent(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var all [][]uint64
		for _, lost := range []map[uint64]int{nil, {0: 1000}} {
			low, over := newLowNode(t), &road{to: t.TempDir(), loses: lost}
			low.last.Numbering = [16]byte{1}
			low.write("a")
			feed(t, t.TempDir(), low, over, 10*time.Minute)
			all = append(all, over.sent)
		}
		if !slices.Equal(all[0], all[1]) || len(all[0]) != 1+len(repeats) {
			t.Errorf("sent %v\nand, where all was lost, %v", all[0], all[1])
		}
	})
}

// TestARepeatGivesWay: it waits until nothing is new, as long as that is not for long, and gives way to what comes while it is sent.
func TestARepeatGivesWay(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, over := newLowNode(t), &road{to: t.TempDir()}
		began, cut := make(chan struct{}, 1000), 0
		slow := func(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error {
			if !again {
				return over.Send(ctx, b, again, between)
			}
			began <- struct{}{}
			select {
			case <-ctx.Done():
				cut++
				return ctx.Err()
			case <-time.After(time.Second):
				return over.Send(ctx, b, again, between)
			}
		}
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: t.TempDir(), Send: slow})
		if err != nil {
			t.Fatal(err)
		}
		stop := runs(t, f.Run)
		const many = 10
		for i := range many {
			low.write(fmt.Sprint("item ", i))
			time.Sleep(repeats[0] / 2)
		}
		synctest.Wait()
		if n := len(over.sent); n != many || len(began) != 0 {
			t.Errorf("while much came %d were sent, and %d repeats begun, want %d and none", n, len(began), many)
		}
		<-began // the first repeat, once nothing came
		before := time.Now()
		low.write("in between")
		synctest.Wait()
		if over.sends(many+1) != 1 || time.Since(before) != 0 || cut != 1 {
			t.Errorf("what came during a repeat was sent %d times within %v; %d repeats gave way", over.sends(many+1), time.Since(before), cut)
		}
		time.Sleep(10 * time.Minute)
		for _, serial := range []uint64{1, many, many + 1} {
			if n := over.sends(serial); n != 1+len(repeats) {
				t.Errorf("number %d was sent %d times in the end, want %d", serial, n, 1+len(repeats))
			}
		}
		stop()
	})
}

// TestAWriterThatNeverRestsDoesNotStarveRepeats: what is lost on the way comes by them, though something new comes all the time, which still goes
// first for most of it; and what is to be repeated is no more than what is kept.
func TestAWriterThatNeverRestsDoesNotStarveRepeats(t *testing.T) {
	for name, takes := range map[string]time.Duration{"a road that is fast": time.Millisecond, "one that is full": 200 * time.Millisecond} { // a sending
		faketime.Test(t, func(t *testing.T) {
			low, over := newLowNode(t), &road{to: t.TempDir()}
			var first, repeated int
			send := func(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error {
				select {
				case <-time.After(takes):
				case <-ctx.Done():
					return ctx.Err()
				}
				if !slices.Contains(over.sent, b.Mark.Serial) {
					first++
				} else {
					repeated++
				}
				return over.Send(ctx, b, again, between)
			}
			one, _ := low.bundle(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1, Created: time.Now()}, [32]byte{}, "void[]|1")
			const kept = 60
			f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: t.TempDir(), Send: send, Memory: kept * int64(len(one))})
			if err != nil {
				t.Fatal(err)
			}
			const many = 120
			go func() {
				for i := range many {
					low.write(fmt.Sprint(i))
					time.Sleep(250 * time.Millisecond)
				}
			}()
			during(t, many*250*time.Millisecond, f.Run)
			if first < many-2 || repeated == 0 {
				t.Errorf("%s: %d of %d that were new were sent, and %d repeats", name, first, many, repeated)
			}
			missed := 0
			for serial := range uint64(many - 60) {
				if over.sends(serial+1) < 2 {
					missed++
				}
			}
			if missed > 0 && takes < 50*time.Millisecond { // a full one does not have the time
				t.Errorf("%s: %d were never repeated", name, missed)
			}
			if n := len(f.sent); n > kept+2 || n == 0 {
				t.Errorf("%s: %d are to be repeated, and %d are kept", name, n, kept)
			}
		})
	}
}
