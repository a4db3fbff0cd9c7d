package workers

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWhatIsReleasedReadsAsBefore has whole pages of a mapped file leave memory, and reads it again.
func TestWhatIsReleasedReadsAsBefore(t *testing.T) {
	page := os.Getpagesize()
	content := bytes.Repeat([]byte("redoubt "), 4*page/8)
	path := filepath.Join(t.TempDir(), "mapped")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	// What is changed is the process's own until its page is given back: the ends, which others may share, must not be.
	for _, at := range []int{0, page, 2 * page, 3 * page} {
		mapped[at] = 'X'
	}
	release(mapped[100 : 3*page+100])
	for at, want := range map[int]byte{0: 'X', page: content[page], 2 * page: content[2*page], 3 * page: 'X'} {
		if mapped[at] != want {
			t.Errorf("at %d it reads %q, want %q", at, mapped[at], want)
		}
	}
	for _, few := range [][]byte{nil, mapped[5:5], mapped[5 : page-5], mapped[5 : page+5], mapped[page : page+1]} {
		release(few)
	}
	if mapped[0] != 'X' {
		t.Error("what was less than a page was given back")
	}
}
