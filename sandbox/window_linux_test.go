package sandbox

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A process may ask for any place, at any time, and do what it likes with the file: we write where we mean to, or nothing.
func TestAWindowHoldsWhatIsAskedFor(t *testing.T) {
	const pieces, pieceBytes = 3, 1 << 16
	w, err := NewWindow(pieces, pieceBytes)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(w.File().Fd())
	seen, err := unix.Mmap(fd, 0, pieces*pieceBytes, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(seen)
	for _, text := range []string{"content", "another"} { // also of what was looked at before
		if n, err := w.Put(1, 100, func(b []byte) (int, error) { return copy(b, text), nil }); n != 7 || err != nil || string(seen[pieceBytes:][:7]) != text {
			t.Errorf("got %d, %v", n, err)
		}
	}
	if unix.Ftruncate(fd, 0) == nil || unix.Ftruncate(fd, 1<<30) == nil {
		t.Error("what we write to was cut off, or made longer")
	}
	if unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, pieceBytes) == nil {
		t.Error("pages were given back")
	}
	if _, err := unix.Pwrite(fd, []byte("x"), 0); err == nil {
		t.Error("another has written to it")
	}
	if _, err := unix.Mmap(fd, 0, pieceBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("another may write to it")
	}
	never := func([]byte) (int, error) { t.Error("it was written"); return 0, nil }
	for _, c := range []struct{ place, n uint64 }{{pieces, 1}, {1 << 63, 1}, {0, pieceBytes + 1}, {^uint64(0), 1}} {
		if _, err := w.Put(c.place, c.n, never); err != unix.EBADF {
			t.Errorf("place %d, %d bytes: %v", c.place, c.n, err)
		}
	}
	if n, err := w.Put(pieces-1, pieceBytes, func(b []byte) (int, error) { return len(b), nil }); n != pieceBytes || err != nil {
		t.Errorf("the last place: %d, %v", n, err)
	}
	// A page that cannot be had is an error of this read alone.
	gone, err := unix.Mmap(-1, 0, pieceBytes, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Window{b: gone, piece: pieceBytes}).Put(0, 10, func(b []byte) (int, error) { return copy(b, "content"), nil }); err != unix.ENOMEM {
		t.Errorf("of memory that is not there: %v", err)
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	var none *Window
	for _, w := range []*Window{w, none} {
		if _, err := w.Put(0, 1, never); err != unix.EBADF {
			t.Errorf("after its end: %v", err)
		}
	}
}
