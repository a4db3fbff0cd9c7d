package guard

import (
	"context"
	"io"
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

// slowNode is a high node that has come to the end of a bundle and takes a minute over it.
type slowNode struct {
	*highNode
	begun int                  // bundles of which something came
	while []int                // and how many they were at the end of each minute
	gives map[int]redoubt.Kind // what the call of a number ends with, when it has taken its time
	cuts  int                  // the call that it cuts off
	read  []int64              // of each call, in the order in which they end
	ended time.Time            // the last that it took its time over
}

type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (s *slowNode) TakeRaise(ctx context.Context, who redoubt.Credential, r io.Reader) (out redoubt.BundleImport, err error) {
	s.mu.Lock()
	s.begun++
	call := s.begun
	s.mu.Unlock()
	if call == s.cuts {
		return out, redoubt.Unavailable
	}
	c := &counted{Reader: r}
	out, err = s.highNode.TakeRaise(ctx, who, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read = append(s.read, c.n); err != nil {
		return out, err
	}
	s.mu.Unlock()
	time.Sleep(time.Minute)
	s.mu.Lock()
	s.while, s.ended = append(s.while, s.begun), time.Now()
	if kind := s.gives[call]; kind != 0 {
		s.taken = s.taken[:len(s.taken)-1]
		return out, kind
	}
	return out, nil
}

// TestTheNextBundleIsOnItsWayWhileOneIsTaken: one and no more, all of it but its end, which comes when the one before it is taken.
func TestTheNextBundleIsOnItsWayWhileOneIsTaken(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := &slowNode{highNode: newHighNode(t, low)}, made(t, low, 4)
		come(t, dir, all, 1, 2, 3)
		k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(150 * time.Second) // the third is being taken
			come(t, dir, all, 4)
			k.Came("")
			synctest.Wait()
			if high.begun != 4 {
				t.Errorf("%d were begun when the fourth had come", high.begun)
			}
		}()
		during(t, 5*time.Minute, k.Run)
		if !slices.Equal(high.taken, []uint64{1, 2, 3, 4}) || !slices.Equal(high.while, []int{1, 3, 4, 4}) {
			t.Errorf("taken %v; %v were begun when each was taken", high.taken, high.while)
		}
	})
}

// TestWhatIsBroughtAheadHasNoEndBeforeItsTurn: where the one before it is not taken, it is given up, and nothing is brought ahead while the node takes nothing.
func TestWhatIsBroughtAheadHasNoEndBeforeItsTurn(t *testing.T) {
	for _, kind := range []redoubt.Kind{redoubt.QuotaExceeded, redoubt.Denied} {
		faketime.Test(t, func(t *testing.T) {
			low, dir := newLowNode(t), t.TempDir()
			high, all := &slowNode{highNode: newHighNode(t, low), gives: map[int]redoubt.Kind{2: kind}}, made(t, low, 3)
			come(t, dir, all, 1)
			k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				time.Sleep(30 * time.Second)
				come(t, dir, all, 2, 3)
			}()
			during(t, 6*time.Minute, k.Run)
			want := []uint64{1, 2, 3}
			if kind == redoubt.Denied { // the second is set aside, and the third is taken when the gap was waited for
				want = []uint64{1, 3}
			}
			if !slices.Equal(high.taken, want) {
				t.Errorf("%v: taken %v, want %v", kind, high.taken, want)
			}
			whole := func(serial uint64) int64 { return int64(len(all[serial])) }
			if len(high.read) < 4 || high.read[2] != whole(3)-1 {
				t.Errorf("%v: the calls read %v bytes, want the third given up before its end at %d", kind, high.read, whole(3))
			}
		})
	}
}

// TestWhatWasCutOffBeforeItsTurnIsBroughtAnew, at once, as if it had not been brought.
func TestWhatWasCutOffBeforeItsTurnIsBroughtAnew(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := &slowNode{highNode: newHighNode(t, low), cuts: 3}, made(t, low, 3)
		come(t, dir, all, 1, 2, 3)
		k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		during(t, 4*time.Minute, k.Run)
		if took := high.ended.Sub(began); !slices.Equal(high.taken, []uint64{1, 2, 3}) || high.begun != 4 || took != 3*time.Minute {
			t.Errorf("taken %v of %d that were begun, in %v", high.taken, high.begun, took)
		}
	})
}

// TestTheNextIsTakenWhileTheLastIsPutAway: it has its end before that, so the node has work where putting away takes long; and its answer counts, however early.
func TestTheNextIsTakenWhileTheLastIsPutAway(t *testing.T) {
	for away, took := range map[time.Duration]time.Duration{50 * time.Second: 3*time.Minute + 50*time.Second, 90 * time.Second: 4*time.Minute + 30*time.Second} {
		faketime.Test(t, func(t *testing.T) {
			low, dir := newLowNode(t), t.TempDir()
			high, all := &slowNode{highNode: newHighNode(t, low)}, made(t, low, 3)
			come(t, dir, all, 1, 2, 3)
			var put []int
			k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir, Taken: func(path string) error {
				time.Sleep(away)
				high.mu.Lock()
				defer high.mu.Unlock()
				put = append(put, len(high.taken))
				return os.Remove(path)
			}})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			during(t, 10*time.Minute, k.Run) // nothing is brought ahead of what follows the first
			if last := high.ended.Sub(began); !slices.Equal(high.taken, []uint64{1, 2, 3}) || last != took || high.begun != 3 {
				t.Errorf("taken %v of %d that were begun, in %v", high.taken, high.begun, last)
			}
			if !slices.Equal(put, []int{1, 3, 3}) {
				t.Errorf("the node had %v when each was put away", put)
			}
			if left := files(t, dir); len(left) != 1 || k.last.Serial != 3 {
				t.Errorf("%d files are left, the last that was taken is %d", len(left), k.last.Serial)
			}
		})
	}
}

// TestWhatComesLateIsTakenBeforeWhatWasBroughtAhead, which has no end while another is before it; what has its end is taken to its end.
func TestWhatComesLateIsTakenBeforeWhatWasBroughtAhead(t *testing.T) {
	for at, want := range map[time.Duration][]uint64{100 * time.Second: {2, 3, 1, 4}, 150 * time.Second: {2, 3, 4, 1}} { // while the third is taken, and while it is put away
		faketime.Test(t, func(t *testing.T) {
			low, dir := newLowNode(t), t.TempDir()
			high, all := &slowNode{highNode: newHighNode(t, low)}, made(t, low, 4)
			come(t, dir, all, 2, 3, 4)
			k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir, Taken: func(path string) error {
				time.Sleep(20 * time.Second)
				return os.Remove(path)
			}})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				time.Sleep(at)
				come(t, dir, all, 1)
				k.Came(filepath.Join(dir, "b1"+bundleExt))
			}()
			during(t, 10*time.Minute, k.Run)
			if !slices.Equal(high.taken, want) || at > 140*time.Second && high.begun != 4 {
				t.Errorf("after %v: taken %v of %d that were begun", at, high.taken, high.begun)
			}
		})
	}
}

func TestALargeBundleIsNotBroughtAhead(t *testing.T) {
	for _, over := range []int64{0, 1} {
		faketime.Test(t, func(t *testing.T) {
			low, dir := newLowNode(t), t.TempDir()
			high, all := &slowNode{highNode: newHighNode(t, low)}, made(t, low, 3)
			come(t, dir, all, 1, 2, 3)
			k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			k.early = int64(len(all[3])) - over
			during(t, 4*time.Minute, k.Run)
			if want := []int{1, 3 - int(over), 3}; !slices.Equal(high.while, want) {
				t.Errorf("%d bytes over the limit: %v were begun when each was taken, want %v", over, high.while, want)
			}
		})
	}
}

// TestWhatIsOnTheRoadIsReadFirst: what is handed over rests while the road is behind, for as long as it goes on and no longer.
func TestWhatIsOnTheRoadIsReadFirst(t *testing.T) {
	const always = time.Hour
	for _, c := range []struct {
		behind      time.Duration // it is for so long
		piece, took time.Duration // that one takes to go, and ten
	}{
		{0, roadPause / 4, 10 * roadPause / 4},
		{always, roadPause / 4, 10*roadPause/4 + restsMost},
		{always, restsMost / 3, 10*restsMost/3 + 10*restsMost},
		{always, restsMost / 6, 10*restsMost/6 + 5*restsMost},
		{2*roadPause + 1, restsMost / 3, 10*restsMost/3 + 3*roadPause},
	} {
		faketime.Test(t, func(t *testing.T) {
			began := time.Now()
			i := &inTurn{ctx: t.Context(), r: strings.NewReader("abcdefghijklmn"), left: 12, turn: make(chan struct{}), sent: func() {}, rests: new(rests), behind: func() bool { return time.Since(began) < c.behind }}
			for range 10 {
				if n, err := i.Read(make([]byte, 1)); n != 1 || err != nil {
					t.Errorf("got %d, %v", n, err)
				}
				time.Sleep(c.piece)
			}
			if took := time.Since(began); took != c.took {
				t.Errorf("behind %v: ten pieces of %v took %v, want %v", c.behind, c.piece, took, c.took)
			}
		})
	}
}

// TestManySmallBundlesRestAsOneLargeOneDoes: on a road that is always behind each has a quarter of the time at least, not a rest of its own.
func TestManySmallBundlesRestAsOneLargeOneDoes(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		shared, began := new(rests), time.Now()
		for range 100 {
			i := &inTurn{ctx: t.Context(), r: strings.NewReader("ab"), left: 1, turn: make(chan struct{}), sent: func() {}, rests: shared, behind: func() bool { return true }}
			if n, err := i.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("got %d, %v", n, err)
			}
			time.Sleep(roadPause)
		}
		if took := time.Since(began); took != 100*roadPause+25*restsMost {
			t.Errorf("a hundred of a millisecond took %v", took)
		}
	})
}
