package enclave

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// TestARaiseThatIsNotJoinedYetWaits: a guard is quicker to come back than a node is to know its neighbours, and what it refuses for good is lost.
func TestARaiseThatIsNotJoinedYetWaits(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	file := c.next(c.unclass, c.secret)
	raises := c.secret.links.raises
	c.secret.restart(true)
	c.files[c.secret] = c.bundles(c.secret)
	if _, err := c.take(c.unclass, c.secret, file); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("got %v, want %v", err, redoubt.Unavailable)
	}
	if _, _, err := c.handWithin(c.secret, c.ts, time.Second); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("got %v, want %v", err, redoubt.Unavailable)
	}
	if err := c.secret.SetRaises(context.Background(), raises); err != nil {
		t.Fatal(err)
	}
	if _, err := c.take(c.unclass, c.secret, file); err != nil {
		t.Error(err)
	}
}

func TestARaiseThatExpiredIsRefusedForGood(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	file := c.next(c.unclass, c.secret)
	c.hands.add(bundle.MaxLife + time.Hour)
	if _, err := c.take(c.unclass, c.secret, file); !errors.Is(err, redoubt.Denied) {
		t.Errorf("got %v, want %v: an expired credential is another matter", err, redoubt.Denied)
	}
}

func TestOnlyTheGuardOfARaiseCarriesIt(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	c.low("a", "one")
	c.secret.put(c.secret.as("s-analyst", ""), "b", "two", "")
	file := c.next(c.unclass, c.secret)
	hand := func(who redoubt.SubjectName) error {
		ctx, cancel := context.WithTimeout(ctx, quiet)
		defer cancel()
		var out bytes.Buffer
		_, err := c.files[c.secret].HandRaise(ctx, c.secret.as(who, ""), "topsecret", redoubt.BundleMark{}, &out)
		if err != nil && out.Len() > 0 {
			t.Errorf("%s was given %d bytes", who, out.Len())
		}
		return err
	}
	take := func(who redoubt.SubjectName) error {
		_, err := c.files[c.secret].TakeRaise(ctx, c.secret.as(who, ""), bytes.NewReader(file))
		return err
	}
	for _, who := range []redoubt.SubjectName{lowGuard, "admin", "s-analyst", "officer"} {
		if err := hand(who); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s is handed a bundle for topsecret: %v", who, err)
		}
	}
	for _, who := range []redoubt.SubjectName{highGuard, "admin", "s-analyst", "officer"} {
		if err := take(who); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s brings a bundle from unclass: %v", who, err)
		}
	}
	live := c.secret.as(highGuard, "")
	if err := c.secret.RevokePerson(ctx, c.secret.as("officer", "SECRET"), highGuard, "taken over"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := c.files[c.secret].HandRaise(ctx, live, "topsecret", redoubt.BundleMark{}, &out); err == nil || out.Len() > 0 {
		t.Errorf("a revoked guard is given %d bytes: %v", out.Len(), err)
	}
	if err := take(lowGuard); err != nil {
		t.Errorf("its own guard: %v", err)
	}
}

// TestARaiseGoesByItsGuardAloneAndOneWay: a file that an administrator carries would bring down what was taken, and take numbers that look lost.
func TestARaiseGoesByItsGuardAloneAndOneWay(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	c.low("a", "one")
	file := c.next(c.unclass, c.secret)
	for w, peer := range map[*world]redoubt.NodeName{c.unclass: "secret", c.secret: "unclass"} {
		for _, receipt := range []bool{false, true} {
			var out bytes.Buffer
			_, err := c.files[w].ExportBundle(ctx, w.as("admin", ""), redoubt.ExportBundle{Peer: peer, Receipt: receipt}, &out)
			if !errors.Is(err, redoubt.Denied) || out.Len() > 0 {
				t.Errorf("%s exports %d bytes for %s (receipt %v): %v", w.name, out.Len(), peer, receipt, err)
			}
		}
	}
	if _, err := c.files[c.secret].ImportBundle(ctx, c.secret.as("admin", ""), bytes.NewReader(file), nil); !errors.Is(err, redoubt.Denied) {
		t.Errorf("an administrator imports what a guard carries: %v", err)
	}
	if _, err := c.take(c.unclass, c.secret, file); err != nil {
		t.Error(err)
	}
	if last, err := c.unclass.Made(ctx, "secret"); err != nil || last.Serial != 1 {
		t.Errorf("bundle %d was made (%v)", last.Serial, err)
	}
	var e *redoubt.Error
	_, err := c.files[c.unclass].TakeRaise(ctx, c.unclass.as(lowGuard, ""), bytes.NewReader(file))
	if !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Rule == bundle.RuleSignature {
		t.Errorf("its maker takes a bundle: %v", err)
	}
}
