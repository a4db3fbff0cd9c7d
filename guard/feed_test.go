package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		if !slices.IsSorted(high.taken) || len(high.taken) != 2 {
			t.Errorf("taken %v", high.taken)
		}
		if left := files(t, above); len(left) != 1 { // its record
			t.Errorf("above there is %v", slices.Collect(maps.Keys(left)))
		}
	})
}

// TestAFeederThatDiesAnywhereLosesNothing: its disk is put back to each state that it had after a write, and it goes on from there.
func TestAFeederThatDiesAnywhereLosesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		states := map[string]func(before, after map[string]string) map[string]string{
			"before anything": func(before, _ map[string]string) map[string]string { return before },
			"while it came": func(before, _ map[string]string) map[string]string {
				out := maps.Clone(before)
				out["123"+partExt] = "half of"
				return out
			},
			"before it said that it has it": func(before, after map[string]string) map[string]string {
				out := maps.Clone(after)
				delete(out, haveName)
				delete(out, sentName)
				for _, name := range []string{haveName, sentName} {
					if b, ok := before[name]; ok {
						out[name] = b
					}
				}
				return out
			},
			"before it was sent": func(before, after map[string]string) map[string]string {
				out := maps.Clone(after)
				delete(out, sentName)
				if b, ok := before[sentName]; ok {
					out[sentName] = b
				}
				return out
			},
			"behind everything": func(_, after map[string]string) map[string]string { return after },
		}
		for name, state := range states {
			low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
			high, over := newHighNode(t, low), &road{to: above}
			var want []string
			for i := range 3 {
				item := fmt.Sprint("item ", i)
				want = append(want, item)
				before := files(t, below)
				low.write(item)
				feed(t, below, low, over, 500*time.Millisecond)
				put(t, below, state(before, files(t, below)))
			}
			low.write("last")
			feed(t, below, low, over, 10*time.Minute)
			takeFor(t, above, high, time.Minute)
			if high.wantAll(append(want, "last")...); t.Failed() {
				t.Fatalf("it died %s; taken %v, void %v, sent %v", name, high.taken, high.void, over.sent)
			}
		}
	})
}

// TestWhatWasSentIsRepeatedAfterTheEnd: the higher half may have ended with the lower one, and lack what it had not made durable.
func TestWhatWasSentIsRepeatedAfterTheEnd(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		old, lost := filepath.Join(below, fileName(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1})), time.Now()
		over := &road{to: above, loses: map[string]int{"*": 2}}
		low.write("a")
		feed(t, below, low, over, 200*time.Millisecond)
		low.write("b")
		feed(t, below, low, over, 200*time.Millisecond)
		if over.sends(1)+over.sends(2) != 2 || len(files(t, above)) != 0 {
			t.Fatalf("sent %v", over.sent)
		}
		if err := os.Chtimes(old, lost, time.Now().Add(-2*repeatsLast)); err != nil { // by the disk's clock, which is not fake
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(below, fileName(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 2})), lost, time.Now()); err != nil {
			t.Fatal(err)
		}
		feed(t, below, low, over, 20*time.Minute)
		if over.sends(1) != 1 || over.sends(2) != 1+len(repeats) {
			t.Errorf("the old one was sent %d times and the new one %d, want once, and every repeat", over.sends(1), over.sends(2))
		}
	})
}

func TestAHintThatAPowerCutLeftEmptyIsNone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{haveName, sentName, takenName} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := NewFeeder(FeederOptions{Dir: dir}); err != nil || f.have.Serial != 0 || len(f.sent) != 0 {
		t.Errorf("a low half does not begin: %v", err)
	}
	if _, err := NewTaker(TakerOptions{Dir: dir}); err != nil {
		t.Errorf("a high half does not begin: %v", err)
	}
	for _, damaged := range []string{`{"Serial": 7`, "\x00\x00\x00\x00", `[{"Serial": 7}, {`, `{"Serial": 7, "Other": 1}`} {
		for _, name := range []string{haveName, sentName, takenName} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(damaged), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f, err := NewFeeder(FeederOptions{Dir: dir})
		if err != nil || f.have.Serial != 0 || len(f.sent) != 0 {
			t.Fatalf("a low half does not begin without %q: %v", damaged, err)
		}
		if room, err := f.room(); !room || err != nil {
			t.Errorf("nor does it find room: %v", err)
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
		var all [][]string
		for _, lost := range []map[string]int{nil, {"*": 1000}} {
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
		slow := func(ctx context.Context, path string, again bool) error {
			if !again {
				return over.Send(ctx, path, again)
			}
			began <- struct{}{}
			select {
			case <-ctx.Done():
				cut++
				return ctx.Err()
			case <-time.After(time.Second):
				return over.Send(ctx, path, again)
			}
		}
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: t.TempDir(), Send: slow})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
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
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAWriterThatNeverRestsDoesNotStarveRepeats: what is lost on the way comes by them, though something new comes all the time, which still goes
// first for most of it; and what is to be repeated is no more than what is kept.
func TestAWriterThatNeverRestsDoesNotStarveRepeats(t *testing.T) {
	for name, takes := range map[string]time.Duration{"a road that is fast": time.Millisecond, "one that is full": 200 * time.Millisecond} { // a sending
		faketime.Test(t, func(t *testing.T) {
			low, over := newLowNode(t), &road{to: t.TempDir()}
			var first, repeated int
			send := func(ctx context.Context, path string, again bool) error {
				select {
				case <-time.After(takes):
				case <-ctx.Done():
					return ctx.Err()
				}
				if base := filepath.Base(path); !slices.Contains(over.sent, base) {
					first++
				} else {
					repeated++
				}
				return over.Send(ctx, path, again)
			}
			one, _ := low.bundle(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1, Created: time.Now()}, [32]byte{}, "void[]|1")
			const kept = 60
			f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: t.TempDir(), Send: send, Keep: kept * int64(len(one))})
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
			if n := len(f.again); n > kept+2 {
				t.Errorf("%s: %d are to be repeated, and %d are kept", name, n, kept)
			}
		})
	}
}

func TestAGapIsFedAgainByAPerson(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, loses: map[string]int{fileName(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1}): 1000}}
		low.write("a")
		feed(t, below, low, over, 10*time.Minute)
		low.cut = 1000 // number 2 never is
		low.write("b")
		feed(t, below, low, over, 10*time.Minute)
		takeFor(t, above, high, time.Minute)
		if !slices.Equal(high.taken, []uint64{3}) {
			t.Fatalf("taken %v", high.taken)
		}
		var e *redoubt.Error
		if err := AskRefeed(below, "high", []redoubt.NumberSpan{{From: 7, To: 9}}); !errors.As(err, &e) || e.Kind != redoubt.NotFound || !strings.Contains(e.Hint, "--anew") {
			t.Errorf("numbers that are not there: %v", err)
		}
		if err := AskRefeed(filepath.Join(below, "none"), "high", nil); err == nil {
			t.Error("a folder that is not there is fed again")
		}
		if err := AskRefeed(below, "high", []redoubt.NumberSpan{{From: 1, To: 2}}); err != nil { // a gap as it is shown above
			t.Fatal(err)
		}
		over.loses = nil
		n := over.sends(3)
		feed(t, below, low, over, repeats[0]/2) // before what is repeated after a start
		takeFor(t, above, high, time.Minute)
		high.wantAll("a", "b")
		if over.sends(3) != n {
			t.Error("more was sent than was asked for")
		}
		if _, err := os.Stat(filepath.Join(below, refeedName)); err == nil {
			t.Error("it is asked for still")
		}
	})
}

func TestWhatWasSentIsKeptAsFarAsThereIsRoom(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below := newLowNode(t), t.TempDir()
		over := &road{}
		one, _ := low.bundle(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1, Created: time.Now()}, [32]byte{}, "void[]|1")
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: below, Send: over.Send, Keep: 3 * int64(len(one))})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for i := range 6 {
				time.Sleep(time.Second)
				low.write(fmt.Sprint(i))
			}
		}()
		during(t, time.Minute, f.Run)
		bundles, err := f.spool.all("high")
		if err != nil || len(bundles) != 3 {
			t.Fatalf("%d are kept, %v", len(bundles), err)
		}
		for _, b := range bundles {
			if b.mark.Serial <= 6-uint64(len(bundles)) {
				t.Errorf("number %d is kept, and newer ones are not", b.mark.Serial)
			}
		}
	})
}

// TestWhatIsNotSentIsNeverForgotten, however full the spool is; and what is sent of one numbering says nothing of another.
func TestWhatIsNotSentIsNeverForgotten(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{fails: 1 << 30}
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: below, Send: over.Send, Keep: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			low.write(fmt.Sprint(i))
			during(t, time.Second, func(ctx context.Context) error { return f.Run(ctx) })
		}
		if all, _ := f.spool.all("high"); len(all) != 3 {
			t.Errorf("%d wait to be sent", len(all))
		}
		over.fails, over.to = 0, above
		feed(t, below, low, over, time.Minute)
		takeFor(t, above, high, time.Minute)
		high.wantAll("0", "1", "2")
	})
}

// TestANumberingThatBeginsAnewIsSent, whatever the clock says: all within one second, and with a clock that was set back.
func TestANumberingThatBeginsAnewIsSent(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below := newLowNode(t), t.TempDir()
		over := &road{}
		low.write("a")
		feed(t, below, low, over, 100*time.Millisecond)
		low.last, low.mark, low.pending = redoubt.BundleMark{Numbering: [16]byte{2}}, redoubt.BundleMark{}, nil
		low.write("b")
		feed(t, below, low, over, 100*time.Millisecond)
		if len(over.sent) != 2 {
			t.Fatalf("sent %v", over.sent)
		}
		feed(t, below, low, over, 30*time.Second)
		if n := len(over.sent); n > 2+2*len(repeats) {
			t.Errorf("sent %d times: %v", n, over.sent)
		}
	})
}
