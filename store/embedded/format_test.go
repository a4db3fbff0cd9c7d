package embedded

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
	"redoubt/store"
)

func testOptions(fs vfs.FS) Options {
	return Options{Key: bytes.Repeat([]byte{7}, keyBytes), FS: fs, SegmentBytes: MinSegmentBytes, ReserveBytes: -1, MaintainEvery: -1}
}

// copyStep is a fake step: the same state in a new place.
func copyStep(fs vfs.FS, from, to string, key []byte) error {
	for _, sub := range []string{"d", "i"} {
		if err := fs.MkdirAll(fs.PathJoin(to, sub), 0o700); err != nil {
			return err
		}
		names, err := fs.List(fs.PathJoin(from, sub))
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := readWhole(fs, fs.PathJoin(from, sub, name), 1<<30)
			if err != nil {
				return err
			}
			if err := replaceFile(fs, fs.PathJoin(to, sub), "copy", name, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func setFormat(t *testing.T, fs vfs.FS, m manifest) {
	t.Helper()
	if err := replaceFile(fs, "/store", formatTemp, formatName, m.encode()); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, e *Engine, key, value string) {
	t.Helper()
	b := new(store.Batch)
	b.Set([]byte(key), []byte(value))
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

func TestUpgradeKeepsTheOldStateAndRollbackReturns(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e, err := Open("/store", testOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	put(t, e, "k", "old")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Rollback("/store", fs); !errors.Is(err, redoubt.NotFound) {
		t.Fatalf("Rollback before any upgrade: got %v, want not found", err)
	}
	// As if this state were of the format before: a step copies it.
	setFormat(t, fs, manifest{format: formatNow - 1, oldestReader: formatNow - 1, generation: 1})
	formatSteps[formatNow-1] = func(vfs.FS, string, string, []byte) error { return errors.New("step fails") }
	defer delete(formatSteps, formatNow-1)
	if _, err := Open("/store", testOptions(fs)); err == nil {
		t.Fatal("Open with a failing step: want an error")
	}
	formatSteps[formatNow-1] = copyStep
	if e, err = Open("/store", testOptions(fs)); err != nil {
		t.Fatalf("Open with an upgrade: %v", err)
	}
	put(t, e, "k", "new")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err := readManifest(fs, "/store"); err != nil || m.format != formatNow || m.generation != 2 || m.previous != 1 {
		t.Fatalf("after the upgrade: got %+v, %v", m, err)
	}
	if err := Rollback("/store", fs); err != nil {
		t.Fatalf("Rollback: %v", err)
	}
	setFormat(t, fs, manifest{format: formatNow, oldestReader: formatOldest, generation: 1})
	if e, err = Open("/store", testOptions(fs)); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if v, _, err := e.Get([]byte("k")); string(v) != "old" || err != nil {
		t.Fatalf("after Rollback: got %q, %v; want the old value", v, err)
	}
}

func TestANewerFormatIsRefusedWithAHint(t *testing.T) {
	fs := vfs.NewMem()
	e, err := Open("/store", testOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	setFormat(t, fs, manifest{format: formatNow + 1, oldestReader: formatNow + 1, generation: 1})
	_, err = Open("/store", testOptions(fs))
	var known *redoubt.Error
	if !errors.As(err, &known) || known.Kind != redoubt.Invalid || known.Hint == "" {
		t.Fatalf("got %v, want invalid with a hint", err)
	}
	// A newer format that we can still read is no reason to refuse.
	setFormat(t, fs, manifest{format: formatNow + 1, oldestReader: formatNow, generation: 1})
	if e, err = Open("/store", testOptions(fs)); err != nil {
		t.Fatal(err)
	}
	e.Close()
}

func TestScrubLeavesNothingToRecover(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e, err := Open("/store", testOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	secret := make([]byte, 500) // random, so that no compression hides it from the test
	rand.Read(secret)
	for i := range 20 {
		put(t, e, fmt.Sprintf("secret/%02d", i), string(secret))
		put(t, e, fmt.Sprintf("other/%02d", i), "stays")
	}
	if err := e.idx.Flush(); err != nil {
		t.Fatal(err)
	}
	b := new(store.Batch)
	for i := range 20 {
		b.Delete(fmt.Appendf(nil, "secret/%02d", i))
	}
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	if got := recoverable(t, e); !bytes.Contains(got, secret[100:120]) {
		t.Fatal("before Scrub: the test does not find what is there")
	}
	if err := e.Scrub(context.Background(), []byte("secret/"), []byte("secret0")); err != nil {
		t.Fatal(err)
	}
	got := recoverable(t, e)
	if bytes.Contains(got, secret[100:120]) {
		t.Error("a deleted value can be recovered")
	}
	if bytes.Contains(got, []byte("secret/")) {
		t.Error("a deleted key can be recovered")
	}
	if !bytes.Contains(got, []byte("stays")) {
		t.Error("the test does not find what should be there")
	}
}

// recoverable is everything that the engine's key opens on its disk: files of the index, frames. The
// keeper may drop a file between its listing and its opening; then the look begins again.
func recoverable(t *testing.T, e *Engine) []byte {
	t.Helper()
	for range 100 {
		plain, err := lookForAll(t, e)
		if err == nil {
			return plain
		}
		if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatal("files came and went a hundred times")
	return nil
}

func lookForAll(t *testing.T, e *Engine) (plain []byte, err error) {
	t.Helper()
	again := &cryptFS{fs: e.o.FS, dir: e.fs.dir, seal: e.fs.seal, table: map[string]fileKey{}}
	if err := again.readTable(); err != nil {
		return nil, err
	}
	for name := range again.table {
		f, err := again.Open(name)
		if err != nil {
			continue
		}
		info, _ := f.Stat()
		b := make([]byte, info.Size())
		f.ReadAt(b, 0)
		f.Close()
		plain = append(plain, b...)
	}
	segs := &segments{fs: e.segs.fs, dir: e.segs.dir, seal: e.segs.seal, byID: map[uint64]*segment{}}
	if err := segs.load(); err != nil {
		return nil, err
	}
	defer segs.close()
	for _, seg := range segs.logSegments() {
		if seg.header.retired {
			continue
		}
		head := make([]byte, frameHead)
		for off := int64(headerBytes); ; {
			readZeroed(seg.f, head, off)
			total, _, _, ok := frameLength(head)
			if !ok {
				break
			}
			frame := make([]byte, total)
			readZeroed(seg.f, frame, off)
			if b, err := openFrame(seg.meta, seg.id, off, frame); err == nil {
				plain = append(plain, b...)
			}
			off += int64(total)
		}
	}
	return plain, nil
}
