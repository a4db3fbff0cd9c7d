package embedded

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt/store"
)

// TestATableThatIsNotUsedIsNoFault: one that was half written when the power failed is there until it is removed, some time after Open. One that is used is
// one still.
func TestATableThatIsNotUsedIsNoFault(t *testing.T) {
	e, err := Open(t.TempDir(), Options{Key: bytes.Repeat([]byte{7}, keyBytes), SegmentBytes: 1 << 20, ReserveBytes: -1, MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := new(store.Batch)
	b.Set([]byte("key"), bytes.Repeat([]byte("value"), 1000))
	if err := e.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := e.flushIndex(); err != nil {
		t.Fatal(err)
	}
	used, err := e.usedTables()
	if err != nil || len(used) == 0 {
		t.Fatal(used, err)
	}
	unused := tableFile(900_000)
	if _, err := e.fs.Create(unused, vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	damage := func(name string) {
		k, err := e.fs.lookup("open", name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.fs.fs.OpenReadWrite(e.fs.path(k.diskName()), vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = f.WriteAt(bytes.Repeat([]byte{1}, pageBytes/2), 0)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func() string {
		var faults []string
		if _, err := e.Check(context.Background(), func(f string) { faults = append(faults, f) }); err != nil {
			t.Fatal(err)
		}
		return strings.Join(faults, "; ")
	}
	damage(unused)
	if err := e.checkFile(unused, make([]byte, 4096)); err == nil {
		t.Fatal("the table that is not used reads: the test tests nothing")
	}
	if got := check(); got != "" {
		t.Errorf("faults: %s", got)
	}
	for name := range used {
		damage(name)
	}
	if got := check(); !strings.Contains(got, "index file") {
		t.Errorf("a table that is used is damaged, and the faults are: %q", got)
	}
}
