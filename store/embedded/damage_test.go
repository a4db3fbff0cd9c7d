package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
	"redoubt/store"
	"redoubt/store/embedded"
)

// written is a disk with a closed store of some history on it.
func written(t *testing.T, close bool) (*vfs.MemFS, *history) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	e, err := openOn(mem)
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory()
	if err := h.run(e, 19); err != nil { // not just after a Scrub: some of everything is there
		t.Fatal(err)
	}
	if close {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		return mem, h
	}
	disk := copyDisk(mem)
	e.Close()
	return disk, h
}

func copyDisk(mem *vfs.MemFS) *vfs.MemFS {
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

func files(t *testing.T, fs vfs.FS, dir string) (paths []string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			paths = append(paths, files(t, fs, path)...)
		} else {
			paths = append(paths, path)
		}
	}
	return paths
}

func read(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.Reader(f))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func overwrite(t *testing.T, fs vfs.FS, path string, off int64, b []byte) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// zeroAround tells whether a byte lies in space that nothing was written to.
func zeroAround(content []byte, at int) bool {
	for _, b := range content[max(0, at-64):min(len(content), at+64)] {
		if b != 0 {
			return false
		}
	}
	return true
}

func TestEveryFlippedBitIsDetected(t *testing.T) {
	for _, closed := range []bool{true, false} {
		disk, h := written(t, closed)
		points := 40
		if testing.Short() {
			points = 6
		}
		r := rand.New(rand.NewPCG(3, 4))
		for _, path := range files(t, disk, "/store") {
			content := read(t, disk, path)
			for range points {
				if len(content) == 0 {
					break
				}
				at := r.IntN(len(content))
				if zeroAround(content, at) {
					continue
				}
				spoiled := copyDisk(disk)
				bit := byte(1) << r.IntN(8)
				overwrite(t, spoiled, path, int64(at), []byte{content[at] ^ bit})
				if detected(t, spoiled, h) {
					continue
				}
				if _, err := spoiled.Stat(path); err != nil {
					continue // nothing referred to it: Open removed it
				}
				if at < 4096 && strings.Contains(path, "/d/") {
					continue // one of the two copies of a segment header: mended by Open
				}
				t.Errorf("closed %v: bit %#x of byte %d of %d in %s: not detected", closed, bit, at, len(content), path)
			}
		}
	}
}

// detected opens and checks a damaged store. Whatever is not detected must have done no harm.
func detected(t *testing.T, fs vfs.FS, h *history) bool {
	t.Helper()
	e, err := openOn(fs)
	if err != nil {
		return true
	}
	defer e.Close()
	n, err := e.Check(context.Background(), func(string) {})
	if n > 0 || err != nil {
		return true
	}
	c := *h
	if err := c.verify(e); err != nil {
		t.Errorf("damage was not detected and did harm: %v", err)
	}
	return false
}

// logTail finds the segment with the last frames and where they end.
func logTail(t *testing.T, fs vfs.FS) (path string, from, to int64) {
	t.Helper()
	best := uint64(0)
	for _, p := range files(t, fs, "/store/1/d") {
		b := read(t, fs, p)
		for off := 4096; off+32 <= len(b) && bytes.Equal(b[off:off+4], []byte("RDF1")); {
			total := int(b[off+4])<<24 | int(b[off+5])<<16 | int(b[off+6])<<8 | int(b[off+7])
			seq := uint64(0)
			for _, c := range b[off+12 : off+20] {
				seq = seq<<8 | uint64(c)
			}
			if seq > best {
				best, path, from, to = seq, p, int64(off), int64(off+total)
			}
			off += total
		}
	}
	return path, from, to
}

// lastUnapplied is a crashed store whose last frame is in the log only, and what it held before.
func lastUnapplied(t *testing.T) (disk *vfs.MemFS, before *history) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	e, err := openOn(mem)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	h := newHistory()
	if err := h.run(e, 5); err != nil {
		t.Fatal(err)
	}
	b := new(store.Batch)
	b.Set([]byte("last"), bytes.Repeat([]byte("x"), 700))
	s, _ := e.Stage(context.Background())
	s.Write(make([]byte, 2000))
	s.Finish()
	b.Links = append(b.Links, s)
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	return mem.CrashClone(vfs.CrashCloneCfg{}), h
}

func TestATornLastFrameIsForgotten(t *testing.T) {
	disk, h := lastUnapplied(t)
	path, from, to := logTail(t, disk)
	stride := int64(1)
	if testing.Short() {
		stride = 37
	}
	for cut := int64(0); cut < to-from; cut += stride {
		torn := copyDisk(disk)
		overwrite(t, torn, path, from+cut, make([]byte, to-from-cut))
		e, err := openOn(torn)
		if err != nil {
			t.Fatalf("cut after %d of %d bytes: %v", cut, to-from, err)
		}
		c := *h
		if err := c.verify(e); err != nil {
			t.Fatalf("cut after %d of %d bytes: %v", cut, to-from, err)
		}
		e.Close()
	}
	for sector := from; sector < to; sector += 512 { // sectors may arrive in any order
		torn := copyDisk(disk)
		overwrite(t, torn, path, sector, make([]byte, 512))
		e, err := openOn(torn)
		if err != nil {
			t.Fatalf("without sector %d: %v", (sector-from)/512, err)
		}
		e.Close()
	}
}

func TestADamagedLastFrameIsNotForgotten(t *testing.T) {
	disk, _ := lastUnapplied(t)
	path, from, to := logTail(t, disk)
	content := read(t, disk, path)
	stride := int64(1)
	if testing.Short() {
		stride = 41
	}
	for at := from; at < to; at += stride {
		spoiled := copyDisk(disk)
		overwrite(t, spoiled, path, at, []byte{content[at] ^ 1<<(at%8)})
		e, err := openOn(spoiled)
		if err == nil {
			e.Close()
		}
		if !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("byte %d of the last frame: got %v, want corrupt", at-from, err)
		}
	}
}

func TestDamageInTheMiddleOfTheLogFailsClosed(t *testing.T) {
	disk, _ := lastUnapplied(t)
	path, _, _ := logTail(t, disk)
	for _, n := range []int{1, 512, 4096} { // even when it looks like a write cut short
		spoiled := copyDisk(disk)
		overwrite(t, spoiled, path, 4096, make([]byte, n))
		if _, err := openOn(spoiled); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("%d bytes of the first frame zeroed: got %v, want corrupt", n, err)
		}
	}
}

func TestNothingOnTheDiskIsReadable(t *testing.T) {
	mem := vfs.NewCrashableMem()
	e, err := openOn(mem)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("OPERATION-NIGHTJAR")
	b := new(store.Batch)
	b.Set(append([]byte("name/"), secret...), append([]byte("value "), secret...))
	b.Append(append([]byte("audit "), secret...))
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	if err := e.Scrub(context.Background(), []byte("a"), []byte("b")); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range files(t, mem, "/store") {
		if bytes.Contains(read(t, mem, path), secret[:8]) || strings.Contains(path, "sst") || strings.Contains(path, "MANIFEST") {
			t.Errorf("%s tells something", path)
		}
	}
	if _, err := embedded.Open("/store", embedded.Options{Key: bytes.Repeat([]byte{8}, 32), FS: mem, SegmentBytes: 256 << 10}); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("another key: got %v, want corrupt", err)
	}
}

func TestAFullDiskLosesNothingAndServesReads(t *testing.T) {
	total := countChanges(t)
	for _, at := range points(t, total) {
		mem := vfs.NewCrashableMem()
		fs := &faultFS{FS: mem}
		e, err := openOn(fs)
		if err != nil {
			t.Fatal(err)
		}
		fs.spoil(max(at, fs.changes()+1), failFull)
		h := newHistory()
		err = h.run(e, crashSteps)
		if err != nil && !errors.Is(err, redoubt.DiskFull) && !errors.Is(err, store.ErrUncertain) {
			t.Fatalf("full from change %d on: got %v, want disk full", at, err)
		}
		for k, want := range h.acked {
			if got, _, err := e.Get([]byte(k)); err != nil || string(got) != want {
				t.Fatalf("full from change %d on: Get(%q): got %q, %v; want %q", at, k, got, err, want)
			}
		}
		e.Close()
		again, err := openOn(mem)
		if err != nil {
			t.Fatalf("full from change %d on: Open: %v", at, err)
		}
		if err := h.verify(again); err != nil {
			t.Fatalf("full from change %d on: %v", at, err)
		}
		again.Close()
	}
}

// smallDisk tells of so much free space.
type smallDisk struct {
	vfs.FS
	free atomic.Uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free.Load()}, nil
}

func TestTheReserveIsKept(t *testing.T) {
	disk := &smallDisk{FS: vfs.NewCrashableMem()}
	disk.free.Store(1000)
	e, err := embedded.Open("/store", embedded.Options{Key: testKey, FS: disk, SegmentBytes: 256 << 10, ReserveBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	commit := func() error {
		b := new(store.Batch)
		b.Set([]byte("k"), nil)
		return e.Commit(context.Background(), b)
	}
	if err := commit(); err != nil {
		t.Fatalf("at the reserve: %v", err)
	}
	disk.free.Store(999)
	if err := commit(); !errors.Is(err, redoubt.DiskFull) {
		t.Fatalf("below the reserve: got %v, want disk full", err)
	}
	if _, ok, err := e.Get([]byte("k")); !ok || err != nil {
		t.Fatalf("Get: %v, %v", ok, err)
	}
	if err := e.Commit(context.Background(), &store.Batch{Appends: [][]byte{[]byte("a refusal")}}); err != nil {
		t.Fatalf("what only goes on record: %v", err)
	}
	disk.free.Store(249)
	if err := e.Commit(context.Background(), &store.Batch{Appends: [][]byte{[]byte("one more")}}); !errors.Is(err, redoubt.DiskFull) {
		t.Fatalf("with the space of the record used up: got %v, want disk full", err)
	}
	disk.free.Store(999)
	b := new(store.Batch)
	b.Delete([]byte("k"))
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatalf("what frees space: %v", err)
	}
}
