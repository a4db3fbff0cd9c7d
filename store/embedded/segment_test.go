package embedded

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
)

// TestAHeaderThatPowerCutShortIsNoDamage: of every write of it any beginning may be all that came to the disk. A segment is then there, or it is not.
func TestAHeaderThatPowerCutShortIsNoDamage(t *testing.T) {
	seal, err := newAEAD(bytes.Repeat([]byte{7}, keyBytes))
	if err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	open := func() *segments {
		return &segments{fs: fs, dir: "/d", seal: seal, byID: map[uint64]*segment{}, nextID: 1}
	}
	s := open()
	seg, err := s.create(kindLog, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, headerBytes)
	if _, err := seg.f.ReadAt(page, 0); err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, headerBytes)
	second := append(append([]byte{}, zero[:headerStride]...), page[headerStride:]...)
	for name, step := range map[string]struct{ before, after []byte }{
		"the second copy is made": {zero, second},
		"the first copy is made":  {second, page},
		"it is dropped":           {page, zero},
	} {
		for n := range headerBytes + 1 {
			f, err := fs.OpenReadWrite(s.path(seg.name), vfs.WriteCategoryUnspecified)
			if err == nil {
				_, err = f.WriteAt(append(append([]byte{}, step.after[:n]...), step.before[n:]...), 0)
				f.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			again := open()
			if err := again.load(); err != nil {
				t.Fatalf("%s, %d bytes of it: %v", name, n, err)
			}
			again.close()
		}
	}
	damaged := append([]byte{}, page...)
	damaged[100] ^= 1
	damaged[headerStride+100] ^= 1
	f, err := fs.OpenReadWrite(s.path(seg.name), vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.WriteAt(damaged, 0)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := open().load(); redoubt.KindOf(err) != redoubt.Corrupt {
		t.Errorf("a header of which both copies are damaged: %v", err)
	}
}
