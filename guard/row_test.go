package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"redoubt/faketime"
)

// TestTheFolderIsNotReadForEachThatComes: where the node was away for a day there are that day's in it. What nobody told of is found all the same.
func TestTheFolderIsNotReadForEachThatComes(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		low, dir := newLowNode(t), t.TempDir()
		high, all := newHighNode(t, low), made(t, low, 11)
		k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		come(t, dir, all, 1, 3, 2)
		stop := runs(t, k.Run)
		path := func(n int) string { return filepath.Join(dir, fmt.Sprintf("b%d%s", n, bundleExt)) }
		want := func(when string, serials ...uint64) {
			t.Helper()
			synctest.Wait()
			if got := high.serials(); !slices.Equal(got, serials) {
				t.Errorf("%s: taken %v, want %v", when, got, serials)
			}
		}
		want("at the start", 1, 2, 3)
		come(t, dir, all, 4, 6, 5)
		k.Came(path(6))
		want("none but the last was told of, and nothing else of its numbering waits", 1, 2, 3)
		time.Sleep(1500 * time.Millisecond)
		want("the folder was looked through", 1, 2, 3, 4, 5, 6)
		come(t, dir, all, 8, 9) // 7 is lacking
		k.Came(path(8))
		time.Sleep(gapPatience - time.Second) // and the folder is looked through: 8 is not newer for that
		come(t, dir, all, 7)
		k.Came(path(7))
		want("what is told of has its place before what waits", 1, 2, 3, 4, 5, 6, 7, 8, 9)
		come(t, dir, all, 11)
		k.Came(path(11))
		time.Sleep(gapPatience + time.Second)
		want("one that came is waited before for as long as any", 1, 2, 3, 4, 5, 6, 7, 8, 9, 11)
		stop()
	})
}

// TestWhatTheDiskLostIsPassedOver: a file that waits is removed by somebody else, as by who finds that the disk did not keep it.
func TestWhatTheDiskLostIsPassedOver(t *testing.T) {
	low, dir := newLowNode(t), t.TempDir()
	high, all := newHighNode(t, low), made(t, low, 3)
	k, err := NewTaker(TakerOptions{High: "high", Target: high, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	come(t, dir, all, 1, 2, 3)
	if held, err := k.row.held(); err != nil || held != int64(len(all[1])+len(all[2])+len(all[3])) {
		t.Fatalf("%d bytes wait, %v", held, err)
	}
	if err := os.Remove(filepath.Join(dir, "b1"+bundleExt)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := k.next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if held, err := k.row.held(); !slices.Equal(high.taken, []uint64{2, 3}) || err != nil || held != 0 {
		t.Errorf("taken %v, and %d bytes wait, %v", high.taken, held, err)
	}
}
