package bundle_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"

	"redoubt"
	"redoubt/bundle"
)

func TestAnOutlineKnowsEachPieceOfItsBundle(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.head(), make([]byte, 9<<20))
	outline := func(b []byte) (*bundle.Outline, error) {
		return bundle.ReadOutline(context.Background(), bytes.NewReader(b), int64(len(b)), nil)
	}
	o, err := outline(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := bundle.NewOutline(o.Start, o.End, o.Leaves)
	if err != nil || again.ID != o.ID || again.FileBytes != int64(len(file)) || again.SealedBytes != o.SealedBytes || len(o.Leaves) != 3 {
		t.Fatalf("put together again: %+v, %v", again, err)
	}
	key := w.key.Public().(ed25519.PublicKey)
	other := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	if !again.SignedBy(key) || again.SignedBy(other) || again.SignedBy(nil) {
		t.Error("signed by the maker alone")
	}
	for i := range o.Leaves {
		at := len(o.Start) + i*bundle.LeafBytes
		piece := bytes.Clone(file[at : at+o.LeafLen(i)])
		if !o.IsLeaf(i, piece) || o.IsLeaf(i, piece[1:]) || o.IsLeaf((i+1)%3, piece) || o.IsLeaf(-1, piece) || o.IsLeaf(3, piece) {
			t.Errorf("piece %d is not known, or too well", i)
		}
		piece[100] ^= 1
		if o.IsLeaf(i, piece) {
			t.Errorf("another piece %d is taken", i)
		}
	}
	// A file that is not what its end says has no outline.
	file[5<<20] ^= 1
	_, err = outline(file)
	wantRule(t, err, redoubt.Denied, bundle.RuleSignature)
}

func TestAnOutlineThatDoesNotHangTogetherIsRefused(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.head(), make([]byte, 5<<20))
	o, err := bundle.ReadOutline(context.Background(), bytes.NewReader(file), int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	longer := func(b []byte) []byte { return append(bytes.Clone(b), 0) }
	swapped := [][32]byte{o.Leaves[1], o.Leaves[0]}
	for name, try := range map[string]func() (*bundle.Outline, error){
		"behind the head":   func() (*bundle.Outline, error) { return bundle.NewOutline(longer(o.Start), o.End, o.Leaves) },
		"half a head":       func() (*bundle.Outline, error) { return bundle.NewOutline(o.Start[:20], o.End, o.Leaves) },
		"a longer end":      func() (*bundle.Outline, error) { return bundle.NewOutline(o.Start, longer(o.End), o.Leaves) },
		"no end":            func() (*bundle.Outline, error) { return bundle.NewOutline(o.Start, nil, o.Leaves) },
		"a digest too few":  func() (*bundle.Outline, error) { return bundle.NewOutline(o.Start, o.End, o.Leaves[:1]) },
		"a digest too many": func() (*bundle.Outline, error) { return bundle.NewOutline(o.Start, o.End, append(swapped, [32]byte{})) },
		"in another order":  func() (*bundle.Outline, error) { return bundle.NewOutline(o.Start, o.End, swapped) },
		"as long as nothing is": func() (*bundle.Outline, error) {
			return bundle.NewOutline(o.Start, bytes.Repeat([]byte{255}, bundle.TrailerLen), o.Leaves)
		},
	} {
		if _, err := try(); redoubt.KindOf(err) != redoubt.Invalid && redoubt.KindOf(err) != redoubt.Denied && redoubt.KindOf(err) != redoubt.TooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
}
