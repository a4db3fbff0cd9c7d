package oci

import (
	"testing"

	"redoubt/sandbox"
)

// A keeper has as many places as there are, and sees in each what the node has put there.
func TestAKeeperTakesPlacesOfItsWindow(t *testing.T) {
	w, err := sandbox.NewWindow(windowPieces, pieceBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p, err := newPlaces(w.File())
	if err != nil {
		t.Fatal(err)
	}
	place := p.take()
	if n, err := w.Put(uint64(place), 100, func(b []byte) (int, error) { return copy(b, "content"), nil }); n != 7 || err != nil || string(p.b[place*pieceBytes:][:7]) != "content" {
		t.Errorf("got %d, %v", n, err)
	}
	for range windowPieces - 1 {
		if p.take() == noPlace {
			t.Fatal("there is no place left")
		}
	}
	if p.take() != noPlace {
		t.Error("there is one place too many")
	}
}
