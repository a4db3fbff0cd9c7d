package oci

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A keeper may ask for any place, at any time, and do what it likes with the file: the node writes where it means to, or nothing.
func TestAWindowHoldsWhatAKeeperAsksFor(t *testing.T) {
	w, f, err := newWindow()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := newPlaces(f)
	if err != nil {
		t.Fatal(err)
	}
	say := func(b []byte) (int, error) { return copy(b, "content"), nil }
	place := p.take()
	if n, err := w.put(uint64(place), 100, say); n != 7 || err != nil || string(p.b[place*pieceBytes:][:7]) != "content" {
		t.Errorf("got %d, %v", n, err)
	}
	if err := unix.Ftruncate(int(f.Fd()), 0); err == nil {
		t.Error("what the node writes to was cut off")
	}
	for range windowPieces - 1 {
		if p.take() == noPlace {
			t.Fatal("there is no place left")
		}
	}
	if p.take() != noPlace {
		t.Error("there is one place too many")
	}
	never := func([]byte) (int, error) { t.Error("it was written"); return 0, nil }
	for _, c := range []struct{ place, n uint64 }{{windowPieces, 1}, {1 << 63, 1}, {0, pieceBytes + 1}, {^uint64(0) - 1, 1}} {
		if _, err := w.put(c.place, c.n, never); err != unix.EBADF {
			t.Errorf("place %d, %d bytes: %v", c.place, c.n, err)
		}
	}
	if n, err := w.put(windowPieces-1, pieceBytes, func(b []byte) (int, error) { return len(b), nil }); n != pieceBytes || err != nil {
		t.Errorf("the last place: %d, %v", n, err)
	}
	// A page that cannot be had is an error of this read alone.
	gone, err := unix.Mmap(-1, 0, pieceBytes, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&window{b: gone}).put(0, 10, say); err != unix.ENOMEM {
		t.Errorf("of memory that is not there: %v", err)
	}
	w.close()
	w.close()
	if _, err := w.put(0, 1, never); err != unix.EBADF {
		t.Errorf("after its end: %v", err)
	}
}
