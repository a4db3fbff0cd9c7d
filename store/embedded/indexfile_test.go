package embedded

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestIndexFilesReadBackWhatWasWritten(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("i", 0o700); err != nil {
		t.Fatal(err)
	}
	seal, _ := deriveAEAD(make([]byte, keyBytes), "test")
	c, err := openCryptFS(fs, "i", seal)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"1.sst", "MANIFEST"} {
		for _, size := range []int{0, 1, pagePlain - 1, pagePlain, pagePlain + 1, 32 * pagePlain, 32*pagePlain + 1, 1_000_000} {
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(r.Uint32())
			}
			f, err := c.Create(name, diskCategory)
			if err != nil {
				t.Fatal(err)
			}
			for rest := want; len(rest) > 0; {
				n := min(1+r.IntN(40_000), len(rest))
				if _, err := f.Write(bytes.Clone(rest[:n])); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			g, err := c.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := g.Stat(); err != nil || info.Size() != int64(size) {
				t.Fatalf("%s of %d bytes: size %d, %v", name, size, info.Size(), err)
			}
			for range 100 {
				off := r.IntN(size + 1)
				p := make([]byte, r.IntN(size-off+10))
				n, err := g.ReadAt(p, int64(off))
				if want := min(len(p), size-off); n != want || n < len(p) && err != io.EOF {
					t.Fatalf("%s of %d bytes: ReadAt(%d, %d): got %d, %v; want %d", name, size, len(p), off, n, err, want)
				}
				if !bytes.Equal(p[:n], want[off:off+n]) {
					t.Fatalf("%s of %d bytes: reads back different at %d", name, size, off)
				}
			}
			g.Close()
		}
	}
}
