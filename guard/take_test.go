package guard

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/faketime"
)

// made is bundles of consecutive numbers, by number.
func made(t *testing.T, low *lowNode, n int) map[uint64][]byte {
	t.Helper()
	out, previous := map[uint64][]byte{}, [32]byte{}
	for serial := uint64(1); serial <= uint64(n); serial++ {
		m := redoubt.BundleMark{Numbering: [16]byte{1}, Serial: serial, Created: time.Now().UTC().Truncate(time.Second)}
		out[serial], previous = low.bundle(m, previous, fmt.Sprintf("void[]|%d", serial))
	}
	return out
}

// come puts bundles in a folder, as a stage does.
func come(t *testing.T, dir string, all map[uint64][]byte, which ...uint64) {
	t.Helper()
	for _, n := range which {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("b%d%s", n, bundleExt)), all[n], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBundlesAreTakenInTheOrderOfTheirNumbersAndAGapIsWaitedFor(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 6)
		come(t, dir, all, 3, 2, 1)
		takeFor(t, dir, high, time.Second)
		if !slices.Equal(high.taken, []uint64{1, 2, 3}) {
			t.Fatalf("taken %v", high.taken)
		}
		come(t, dir, all, 5, 6) // 4 is lacking
		takeFor(t, dir, high, gapPatience-2*time.Second)
		if len(high.taken) != 3 {
			t.Errorf("taken %v before the gap was waited for", high.taken)
		}
		takeFor(t, dir, high, gapPatience+2*time.Second)
		if !slices.Equal(high.taken, []uint64{1, 2, 3, 5, 6}) {
			t.Errorf("taken %v", high.taken)
		}
		come(t, dir, all, 4) // late
		takeFor(t, dir, high, time.Second)
		if !slices.Equal(high.taken, []uint64{1, 2, 3, 5, 6, 4}) {
			t.Errorf("taken %v", high.taken)
		}
	})
}

// TestSeveralThatAreLackingAreWaitedForAtOnce, and not one after another: a burst of which the road lost every other bundle is above after one wait.
func TestSeveralThatAreLackingAreWaitedForAtOnce(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 10)
		come(t, dir, all, 1)
		takeFor(t, dir, high, time.Second)
		come(t, dir, all, 3, 5, 7)
		go func() {
			time.Sleep(20 * time.Second)
			come(t, dir, all, 9) // which is waited before for as long
		}()
		takeFor(t, dir, high, gapPatience+5*time.Second)
		if !slices.Equal(high.taken, []uint64{1, 3, 5, 7}) {
			t.Errorf("taken %v", high.taken)
		}
	})
}

func TestWhatComesWhileItIsWaitedForIsTakenInItsTurn(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 3)
		come(t, dir, all, 1)
		takeFor(t, dir, high, time.Second)
		come(t, dir, all, 3)
		go func() {
			time.Sleep(10 * time.Second)
			come(t, dir, all, 2)
		}()
		takeFor(t, dir, high, time.Minute)
		if !slices.Equal(high.taken, []uint64{1, 2, 3}) {
			t.Errorf("taken %v", high.taken)
		}
	})
}

func TestWhatTheNodeCannotTakeNowIsKeptAndBroughtAgain(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		for _, kind := range []redoubt.Kind{redoubt.QuotaExceeded, redoubt.DiskFull, redoubt.Unavailable, redoubt.Internal, redoubt.Unauthenticated, redoubt.Expired, redoubt.NotFound} {
			low, dir := newLowNode(t), t.TempDir()
			high, all := newHighNode(t, low), made(t, low, 2)
			for range 20 {
				high.fails = append(high.fails, kind)
			}
			come(t, dir, all, 1, 2)
			takeFor(t, dir, high, time.Minute)
			if n := len(files(t, dir)); n != 2 || len(high.taken) > 0 || high.came > 20 || high.came < 5 {
				t.Errorf("%v: %d files are left, taken %v, brought %d times in a minute", kind, n, high.taken, high.came)
			}
			high.fails = nil
			takeFor(t, dir, high, time.Minute)
			if !slices.Equal(high.taken, []uint64{1, 2}) {
				t.Errorf("%v: taken %v", kind, high.taken)
			}
		}
	})
}

func TestWhatIsRefusedForGoodIsSetAsideAndTriedAtTheNextStart(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		for _, kind := range []redoubt.Kind{redoubt.Denied, redoubt.Invalid, redoubt.Conflict, redoubt.Corrupt, redoubt.BadDigest, redoubt.TooLarge} {
			low, dir := newLowNode(t), t.TempDir()
			high, all := newHighNode(t, low), made(t, low, 2)
			high.fails = []error{kind}
			come(t, dir, all, 1, 2)
			takeFor(t, dir, high, time.Minute)
			if !slices.Equal(high.taken, []uint64{2}) {
				t.Errorf("%v: taken %v, want it to hold nothing up", kind, high.taken)
			}
			if _, err := os.Stat(filepath.Join(dir, refusedName, "b1"+bundleExt)); err != nil {
				t.Errorf("%v: %v", kind, err)
			}
			takeFor(t, dir, high, time.Minute) // the reason was mended
			if !slices.Equal(high.taken, []uint64{2, 1}) {
				t.Errorf("%v: taken %v after a start", kind, high.taken)
			}
		}
	})
}

// TestWhatIsDamagedIsDropped, so that the true one is taken when it comes: it is neither kept nor counted as come, and costs who sends it time.
func TestWhatIsDamagedIsDropped(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 2)
		bad := bytes.Clone(all[1])
		bad[len(bad)-200] ^= 1 // of what is sealed
		come(t, dir, map[uint64][]byte{1: bad}, 1)
		come(t, dir, all, 2)
		var dropped []string
		k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir, Drop: func(path string) error {
			dropped = append(dropped, filepath.Base(path))
			if len(dropped) < 30 { // as fast as it is sent
				return nil
			}
			return os.Remove(path)
		}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		during(t, time.Minute, k.Run)
		if len(dropped) != 30 || high.came != 31 || !slices.Equal(high.taken, []uint64{2}) {
			t.Errorf("in %v dropped %q, brought %d, taken %v", time.Since(began), dropped, high.came, high.taken)
		}
		if left, err := os.ReadDir(filepath.Join(dir, refusedName)); err == nil {
			t.Errorf("it is kept: %v", left)
		}
		come(t, dir, all, 1)
		takeFor(t, dir, high, time.Minute)
		if !slices.Equal(high.taken, []uint64{2, 1}) {
			t.Errorf("taken %v", high.taken)
		}
		come(t, dir, map[uint64][]byte{1: bad}, 1)
		high.came = 0
		k.o.Drop = func(path string) error { // it comes again and again
			if high.came > 100 {
				return os.Remove(path)
			}
			return nil
		}
		during(t, 10*time.Second, k.Run)
		if high.came < 5 || high.came > 11 {
			t.Errorf("in ten seconds the node refused %d", high.came)
		}
	})
}

// TestWhatTheNodeSaysIsDamagedIsDropped: of a tagged bundle nobody but it can see that. What it refuses by another rule is kept.
func TestWhatTheNodeSaysIsDamagedIsDropped(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		for rule, kept := range map[string]bool{bundle.RuleDamaged: false, bundle.RuleSealed: true, bundle.RuleSignature: true} {
			low, dir := newLowNode(t), t.TempDir()
			low.tagged = true
			high, all := newHighNode(t, low), made(t, low, 2)
			high.fails = []error{&redoubt.Error{Kind: redoubt.Denied, Rule: rule}}
			come(t, dir, all, 1, 2)
			takeFor(t, dir, high, time.Minute)
			_, err := os.Stat(filepath.Join(dir, refusedName, "b1"+bundleExt))
			if kept != (err == nil) || !slices.Equal(high.taken, []uint64{2}) {
				t.Errorf("%s: kept %v, taken %v", rule, err == nil, high.taken)
			}
			come(t, dir, all, 1) // the true one
			if takeFor(t, dir, high, time.Minute); !slices.Equal(high.taken, []uint64{2, 1}) {
				t.Errorf("%s: taken %v", rule, high.taken)
			}
		}
	})
}

// TestADamagedCiphertextIsDroppedThoughTheGuardCannotSeeIt.
func TestADamagedCiphertextIsDroppedThoughTheGuardCannotSeeIt(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		low.tagged = true
		high, all := newHighNode(t, low), made(t, low, 2)
		bad := bytes.Clone(all[1])
		bad[len(bad)-bundle.TrailerBytes-20] ^= 1 // before the last tag
		come(t, dir, map[uint64][]byte{1: bad}, 1)
		come(t, dir, all, 2)
		if damaged(t.Context(), filepath.Join(dir, "b1"+bundleExt)) {
			t.Error("the guard sees it")
		}
		takeFor(t, dir, high, time.Minute)
		if left, _ := filepath.Glob(filepath.Join(dir, "*"+bundleExt)); len(left) != 0 || !slices.Equal(high.taken, []uint64{2}) || high.came != 2 {
			t.Errorf("left %v, taken %v, brought %d", left, high.taken, high.came)
		}
		if _, err := os.Stat(filepath.Join(dir, refusedName)); err == nil {
			t.Error("it is kept")
		}
	})
}

// TestWhatIsSetAsideIsDurable before it has its place, and the place then: the stage remembers it as come.
func TestWhatIsSetAsideIsDurable(t *testing.T) {
	low, dir := newLowNode(t), t.TempDir()
	all := made(t, low, 1)
	come(t, dir, all, 1)
	k, err := NewTaker(TakerOptions{High: "high", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func(was func(string) error) { syncPath = was }(syncPath)
	var synced []string
	syncPath = func(path string) error {
		_, err := os.Stat(filepath.Join(dir, refusedName, "b1"+bundleExt))
		synced = append(synced, fmt.Sprint(filepath.Base(path), " ", err == nil))
		return nil
	}
	if err := k.setAside(spooled{path: filepath.Join(dir, "b1"+bundleExt)}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"b1" + bundleExt + " false", refusedName + " true", filepath.Base(dir) + " true"}; !slices.Equal(synced, want) {
		t.Errorf("made durable, and whether it was set aside then: %q, want %q", synced, want)
	}
}

// TestATakerThatDiesAnywhereTakesNothingTwice: its folder is put back to each state that it had.
func TestATakerThatDiesAnywhereTakesNothingTwice(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 3)
		come(t, dir, all, 1)
		before := files(t, dir)
		takeFor(t, dir, high, time.Second)
		put(t, dir, before) // taken, and the file is still there, and no record
		come(t, dir, all, 2)
		takeFor(t, dir, high, time.Second)
		after := files(t, dir)
		come(t, dir, all, 2) // taken and recorded, and the file is still there
		takeFor(t, dir, high, time.Second)
		put(t, dir, after)
		come(t, dir, all, 3)
		takeFor(t, dir, high, time.Second)
		if !slices.Equal(high.taken, []uint64{1, 2, 3}) {
			t.Errorf("taken %v", high.taken)
		}
		high.wantAll("1", "2", "3")
		if n := len(files(t, dir)); n != 1 {
			t.Errorf("%d files are left", n)
		}
	})
}

func TestWhatIsNoBundleForTheNodeIsPassedOver(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 1)
		for name, b := range map[string]string{"a" + bundleExt: "no bundle", "empty" + bundleExt: "", "cut" + bundleExt: string(all[1][:len(all[1])/2]), "other.txt": string(all[1])} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		come(t, dir, all, 1)
		takeFor(t, dir, high, 10*time.Second)
		if !slices.Equal(high.taken, []uint64{1}) || high.came != 1 {
			t.Errorf("taken %v of %d brought", high.taken, high.came)
		}
	})
}

func TestATakerIsToldOfWhatComes(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 1)
		k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		stop := runs(t, k.Run)
		synctest.Wait()
		began := time.Now()
		come(t, dir, all, 1)
		for range 3 { // it never waits
			k.Came("")
		}
		synctest.Wait()
		if !slices.Equal(high.taken, []uint64{1}) || !time.Now().Equal(began) {
			t.Errorf("taken %v after %v", high.taken, time.Since(began))
		}
		stop()
	})
}

// TestAForgedNumberMovesNothing: what a bundle says of its number counts once the node has it, and not before.
func TestAForgedNumberMovesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 6)
		come(t, dir, all, 1)
		takeFor(t, dir, high, time.Second)
		all[99], _ = low.bundle(redoubt.BundleMark{Numbering: [16]byte{1}, Serial: math.MaxUint64, Created: time.Now().UTC().Truncate(time.Second)}, [32]byte{9}, "forged")
		high.fails = []error{redoubt.Denied}
		come(t, dir, all, 99)
		takeFor(t, dir, high, 2*gapPatience)
		come(t, dir, all, 2, 3, 4, 5, 6)
		takeFor(t, dir, high, 10*time.Second)
		if !slices.Equal(high.taken, []uint64{1, 2, 3, 4, 5, 6}) {
			t.Errorf("taken %v, want what came behind the forged one taken at once", high.taken)
		}
	})
}

// TestWhatWaitsAndWhatWasRefusedIsBounded, whatever comes over the road.
func TestWhatWaitsAndWhatWasRefusedIsBounded(t *testing.T) {
	low, dir := newLowNode(t), t.TempDir()
	all := made(t, low, 3)
	come(t, dir, all, 1, 2, 3)
	dropped := 0
	k, err := NewTaker(TakerOptions{High: "high", Dir: dir, Drop: func(path string) error { dropped++; return os.Remove(path) }})
	if err != nil {
		t.Fatal(err)
	}
	k.Came(filepath.Join(dir, "b3"+bundleExt))
	if _, err := os.Stat(filepath.Join(dir, "b3"+bundleExt)); err != nil {
		t.Fatalf("dropped where there is room: %v", err)
	}
	if k, err = NewTaker(TakerOptions{High: "high", Dir: dir, Waiting: int64(len(all[1])), Drop: k.o.Drop}); err != nil {
		t.Fatal(err)
	}
	k.Came(filepath.Join(dir, "b3"+bundleExt))
	if left, err := filepath.Glob(filepath.Join(dir, "*"+bundleExt)); err != nil || len(left) != 2 {
		t.Errorf("%q wait, want the newest dropped (%v)", left, err)
	}
	refused := filepath.Join(dir, refusedName)
	if err := os.MkdirAll(refused, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range maxRefusedFiles {
		path := filepath.Join(refused, fmt.Sprintf("old%d", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(int64(i+1), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.setAside(spooled{path: filepath.Join(dir, "b1"+bundleExt)}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(refused)
	_, oldest := os.Stat(filepath.Join(refused, "old0"))
	_, newest := os.Stat(filepath.Join(refused, "b1"+bundleExt))
	if err != nil || len(left) != maxRefusedFiles || dropped != 2 || !os.IsNotExist(oldest) || newest != nil {
		t.Errorf("%d are kept (%v), the oldest %v, the newest %v; %d were dropped", len(left), err, oldest, newest, dropped)
	}
}
