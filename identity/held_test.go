package identity

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"redoubt"
)

// tryMint is mint for who may be refused; n makes the nonce.
func (w *world) tryMint(name redoubt.SubjectName, marking string, n int) (redoubt.Credential, error) {
	nonce := binary.BigEndian.AppendUint64([]byte("the test"), uint64(n))
	_, who, recs, err := w.r.Mint(signed(redoubt.MintRequest{Subject: name, Node: "node", Label: marking, Seconds: 600, Issued: w.now,
		Nonce: base64.RawURLEncoding.EncodeToString(nonce)}, keyOf(name)))
	w.commit(recs)
	return who, err
}

// fill counts n credentials of nobody's making at a label, until their time.
func (w *world) fill(name redoubt.SubjectName, marking string, n int, until time.Time) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	for i := range n {
		w.r.hold(name, w.mark(w.o.Policy, marking), fmt.Sprintf("RDFILL%s%d", marking, i), until)
	}
}

func TestWhatIsHeldAboveOrBesideALabelRefusesNothingAtIt(t *testing.T) {
	for _, c := range []struct {
		held, minted string
		refused      bool
	}{
		{"SECRET", "SECRET", true},
		{"SECRET", "SECRET//NOFORN", true}, // the same point of the order
		{"SECRET", "UNCLASSIFIED", false},
		{"SECRET", "SECRET//REL TO USA, GBR", false},
		{"SECRET//REL TO USA, GBR", "SECRET//REL TO USA, AUS", false},
		{"SECRET//REL TO USA, GBR", "SECRET", true}, // what lies below is seen
		{"UNCLASSIFIED", "SECRET", true},
		{"TOP SECRET//SI", "TOP SECRET//TK", false},
		{"TOP SECRET//SI", "TOP SECRET//SI/TK", true},
	} {
		w := newWorld(t, "TOP SECRET//SI/TK")
		w.fill("ts-analyst", c.held, MaxLiveCredentials-1, noon.Add(time.Hour))
		if _, err := w.tryMint("ts-analyst", c.minted, 1); err != nil {
			t.Errorf("%s, with %d held at %s: %v", c.minted, MaxLiveCredentials-1, c.held, err)
		}
		w.fill("ts-analyst", c.held, MaxLiveCredentials, noon.Add(time.Hour))
		_, err := w.tryMint("ts-analyst", c.minted, 2)
		if got := errors.Is(err, redoubt.QuotaExceeded); got != c.refused {
			t.Errorf("%s, with %d held at %s: got %v, want refused %v", c.minted, MaxLiveCredentials, c.held, err, c.refused)
		}
	}
}

// TestHeldCredentialsAreBoundedOverAllLabels fills the memory of one subject from the side, and wants nobody to be refused for it.
func TestHeldCredentialsAreBoundedOverAllLabels(t *testing.T) {
	nations := []string{"AUS", "BEL", "CAN", "CZE", "DEU", "DNK", "ESP", "FRA", "GBR", "GRC", "HUN", "ITA", "NLD", "NOR", "NZL"}
	w := newWorld(t, "SECRET")
	above, err := w.tryMint("s-analyst", "SECRET", 1)
	if err != nil {
		t.Fatal(err)
	}
	beside, err := w.tryMint("s-analyst", "SECRET//REL TO USA, AUS", 2)
	if err != nil {
		t.Fatal(err)
	}
	low, err := w.tryMint("s-analyst", "UNCLASSIFIED", 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, nation := range nations {
		w.fill("s-analyst", "SECRET//REL TO USA, "+nation, MaxLiveCredentials-1, noon.Add(time.Hour))
	}
	total := func() int {
		_, all := w.r.held["s-analyst"].count(w.o.Ceiling)
		return all
	}
	w.fill("s-analyst", "CONFIDENTIAL//REL TO USA, POL", MaxHeldCredentials-total(), noon.Add(time.Hour))
	if total() != MaxHeldCredentials {
		t.Fatalf("%d are held", total())
	}
	const at = "SECRET//REL TO USA, ROU"
	if _, err := w.tryMint("s-analyst", at, 4); err != nil || total() != MaxHeldCredentials {
		t.Errorf("got %v with %d held", err, total())
	}
	for range 2 {
		wantKind(t, w.r.Live(above), redoubt.Unauthenticated, "") // the one above it went, though those beside end as soon
		if err := w.r.Live(beside); err != nil {
			t.Errorf("beside: %v", err)
		}
		w.restore()
	}
	w.fill("s-analyst", "CONFIDENTIAL//REL TO USA, POL", MaxLiveCredentials, noon.Add(time.Hour))
	for _, nation := range nations {
		w.fill("s-analyst", "SECRET//REL TO USA, "+nation, MaxLiveCredentials, noon.Add(time.Hour))
	}
	if _, err := w.tryMint("s-analyst", at, 5); err != nil {
		t.Error(err)
	}
	wantKind(t, w.r.Live(beside), redoubt.Unauthenticated, "") // there is none above it
	if err := w.r.Live(low); err != nil {
		t.Errorf("one below was ended: %v", err)
	}
	w.now = noon.Add(time.Hour)
	if _, err := w.tryMint("s-analyst", at, 6); err != nil || total() != 1 {
		t.Errorf("got %v; %d are counted after their time", err, total()-1)
	}
}

// restore opens the registry anew with what is held of nobody's making.
func (w *world) restore() {
	kept := w.r.held
	w.open()
	w.r.held = kept
}
