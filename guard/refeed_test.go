package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"redoubt"
	"redoubt/faketime"
)

func TestAGapIsFedAgainByAPerson(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, loses: map[uint64]int{1: 1000}}
		low.write("a")
		feed(t, below, low, over, 10*time.Minute)
		low.cut = 1000 // number 2 never is
		low.write("b")
		feed(t, below, low, over, 10*time.Minute)
		takeFor(t, above, high, time.Minute)
		if !slices.Equal(high.taken, []uint64{3}) {
			t.Fatalf("taken %v", high.taken)
		}
		for text, spans := range map[string][]redoubt.NumberSpan{"number 7 was not made yet: the newest that the guard's low half had is 3": {{From: 7, To: 9}}, "number 4 was not made yet": {{From: 1, To: 1}, {From: 2, To: 5}}} {
			e, ok := errors.AsType[*redoubt.Error](AskRefeed(below, spans))
			if !ok || e.Kind != redoubt.NotFound || !strings.Contains(e.Err.Error(), text) || strings.Contains(e.Hint, "--anew") {
				t.Errorf("of %v it is said: %v", spans, e)
			}
		}
		if err := AskRefeed(filepath.Join(below, "none"), nil); err == nil {
			t.Error("a folder that is not there is fed again")
		}
		if err := AskRefeed(below, []redoubt.NumberSpan{{From: 1, To: 2}}); err != nil { // a gap as it is shown above
			t.Fatal(err)
		}
		over.loses = nil
		n := over.sends(3)
		feed(t, below, low, over, 3*time.Second)
		takeFor(t, above, high, time.Minute)
		high.wantAll("a", "b")
		if over.sends(3) != n || !high.void[1] {
			t.Errorf("more was sent than was asked for: %v; void %v", over.sent, high.void)
		}
		if _, err := os.Stat(filepath.Join(below, refeedName)); err == nil {
			t.Error("it is asked for still")
		}
	})
}

// TestWhatAPersonAsksForOutlivesTheHalf: it is taken up and not yet asked for when the half ends.
func TestWhatAPersonAsksForOutlivesTheHalf(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, loses: map[uint64]int{1: 1000}}
		low.write("a")
		feed(t, below, low, over, 10*time.Minute)
		if err := AskRefeed(below, []redoubt.NumberSpan{{From: 1, To: 1}}); err != nil {
			t.Fatal(err)
		}
		low.away = redoubt.Unavailable
		feed(t, below, low, over, 10*time.Second)
		if _, err := os.Stat(filepath.Join(below, refeedName)); err == nil {
			t.Fatal("it was not taken up")
		}
		low.away = nil
		feed(t, below, low, over, 10*time.Second)
		takeFor(t, above, high, time.Minute)
		high.wantAll("a")
	})
}

// TestWhatIsHeldIsSentAsItIs, where a person asks for it: nothing is made anew.
func TestWhatIsHeldIsSentAsItIs(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, over := newLowNode(t), t.TempDir(), &road{}
		low.write("a")
		go func() {
			time.Sleep(30 * time.Second) // three repeats are over
			if err := AskRefeed(below, []redoubt.NumberSpan{{From: 1, To: 1}}); err != nil {
				t.Error(err)
			}
		}()
		feed(t, below, low, over, 10*time.Minute)
		if n := over.sends(1); len(low.agains) != 0 || len(over.sent) != n || n != 1+3+len(repeats) {
			t.Errorf("asked again for %v, sent %v", low.agains, over.sent)
		}
	})
}

// TestWhatWasSentIsHeldAsFarAsThereIsRoom, and what is let go was repeated often enough, as far as anybody after it knows.
func TestWhatWasSentIsHeldAsFarAsThereIsRoom(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below := newLowNode(t), t.TempDir()
		over := &road{}
		one, _ := low.bundle(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1, Created: time.Now()}, [32]byte{}, "void[]|1")
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: below, Send: over.Send, Memory: 3*int64(len(one)) + 2000}) // slices take a little more
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
		if n := len(f.sent); n < 1 || n > 3 {
			t.Fatalf("%d are held", n)
		}
		for _, b := range f.sent {
			if b.Mark.Serial <= 6-uint64(len(f.sent)) {
				t.Errorf("number %d is held, and newer ones are not", b.Mark.Serial)
			}
		}
		if n := len(f.note.lacking()); n != len(f.sent) {
			t.Errorf("%d would be asked for again, and %d are held", n, len(f.sent))
		}
	})
}

// TestWhatWaitsIsBounded: while nothing can be sent the low node keeps its own; nothing of it is lost then.
func TestWhatWaitsIsBounded(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below, above := newLowNode(t), t.TempDir(), t.TempDir()
		high, over := newHighNode(t, low), &road{to: above, fails: 1 << 30}
		one, _ := low.bundle(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 1, Created: time.Now()}, [32]byte{}, "void[]|1")
		f, err := NewFeeder(FeederOptions{High: "high", Source: low, Dir: below, Send: over.Send, Memory: 4 * int64(len(one))})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		go func() {
			for i := range 20 {
				low.write(fmt.Sprint(i))
				time.Sleep(time.Second)
			}
		}()
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
		}
		during(t, time.Minute, f.Run)
		if n := len(f.waiting); n == 0 || n > 3 {
			t.Errorf("%d wait", n)
		}
		over.fails = 0
		feed(t, below, low, over, 10*time.Minute)
		takeFor(t, above, high, 2*time.Minute)
		high.wantAll(want...)
	})
}

// TestANumberingThatBeginsAnewIsSent, whatever the clock says: all within one second, and with a clock that was set back.
func TestANumberingThatBeginsAnewIsSent(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, below := newLowNode(t), t.TempDir()
		over := &road{}
		low.write("a")
		feed(t, below, low, over, 100*time.Millisecond)
		low.last, low.mark, low.pending, low.held = redoubt.BundleMark{Numbering: [16]byte{2}}, redoubt.BundleMark{}, nil, map[uint64][]string{}
		low.write("b")
		feed(t, below, low, over, 100*time.Millisecond)
		feed(t, below, low, over, 30*time.Second)
		if n := len(over.sent); n < 3 || n > 3+2*len(repeats) {
			t.Errorf("sent %d times: %v", n, over.sent)
		}
	})
}

// TestABundleThatIsTooLargeForMemoryIsSentFromAFile, which has no name and goes with it.
func TestABundleThatIsTooLargeForMemoryIsSentFromAFile(t *testing.T) {
	dir := t.TempDir()
	whole := make([]byte, maxInMemory+12345)
	for i := range whole {
		whole[i] = byte(i * 7 >> 3)
	}
	for name, in := range map[string]io.Reader{"read": bytes.NewReader(whole), "read in pieces": iotest.HalfReader(bytes.NewReader(whole)), "small": bytes.NewReader(whole[:1000]), "as much as there may be": bytes.NewReader(whole[:maxInMemory])} {
		c := &contents{dir: dir, room: func(n int) []byte { return make([]byte, n) }}
		n, err := io.Copy(c, struct{ io.Reader }{in})
		if err != nil || n != c.Size() {
			t.Fatalf("%s: %d of %d, %v", name, n, c.Size(), err)
		}
		got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
		if err != nil || !bytes.Equal(got, whole[:n]) {
			t.Errorf("%s: other bytes, %v", name, err)
		}
		if _, memory := c.Bytes(); memory != (n <= maxInMemory) {
			t.Errorf("%s: in memory: %v", name, memory)
		}
		if m, d := c.holds(); m > maxInMemory || (d > 0) != (n > maxInMemory) {
			t.Errorf("%s: holds %d and %d", name, m, d)
		}
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("%s: left %v", name, slices.Collect(maps.Keys(left)))
		}
		c.close()
	}
}

// TestWhatComesIsMovedOnce: memory for a bundle of the usual length is asked for twice, and what is in the first is little.
func TestWhatComesIsMovedOnce(t *testing.T) {
	var asked []int
	c := &contents{dir: t.TempDir(), room: func(n int) []byte { asked = append(asked, n); return make([]byte, n) }}
	if n, err := io.Copy(c, struct{ io.Reader }{io.LimitReader(zeros{}, maxRaised)}); n != maxRaised || err != nil {
		t.Fatal(n, err)
	}
	if want := []int{firstBytes, maxRaised + stepBytes}; !slices.Equal(asked, want) {
		t.Errorf("asked for %d, want %d", asked, want)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
