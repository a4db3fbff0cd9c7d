package enclave

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/store"
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

// TestAFullDiskAboveHoldsTheBundleUp: nothing of it is lost, and no number with it.
func TestAFullDiskAboveHoldsTheBundleUp(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	file := c.next(c.unclass, c.secret)
	who := c.secret.as(lowGuard, "")
	f := &faulty{Engine: c.secret.engine}
	c.secret.engine = f
	full := func(b *store.Batch) error {
		if len(b.Links) > 0 {
			return &redoubt.Error{Op: "store.Commit", Kind: redoubt.DiskFull}
		}
		return nil
	}
	f.when(full)
	if _, err := c.files[c.secret].TakeRaise(context.Background(), who, bytes.NewReader(file)); !errors.Is(err, redoubt.DiskFull) {
		t.Errorf("got %v, want %v", err, redoubt.DiskFull)
	}
	f.when(nil)
	if s := c.status(c.secret, "unclass"); s.Blocked != redoubt.DiskFull.Error() || s.Serial != 0 {
		t.Errorf("above: %+v", s)
	}
	if _, err := c.take(c.unclass, c.secret, file); err != nil {
		t.Fatal(err)
	}
	if s := c.status(c.secret, "unclass"); s.Blocked != "" || c.above("a") != "one" {
		t.Errorf("above: %+v, %q", s, c.above("a"))
	}
	c.secret.engine = f.Engine
}

// TestANodeThatDiesWhileItTakesOrHandsOverLosesNothing: each of its commits fails once, and it crashes there.
func TestANodeThatDiesWhileItTakesOrHandsOverLosesNothing(t *testing.T) {
	c := openChain(t)
	broken := errors.New("no more power")
	crash := func(w *world, act func() error) {
		t.Helper()
		for n := 0; n < 60; n++ {
			f, seen := &faulty{Engine: w.engine}, 0
			f.when(func(*store.Batch) error {
				if seen++; seen > n {
					return broken
				}
				return nil
			})
			w.engine = f
			err := act()
			f.when(nil)
			w.engine = f.Engine
			w.restartGuarded(c)
			if err == nil {
				return
			}
		}
		t.Fatal("it does not end")
	}
	var want []string
	for i := range 3 {
		key := string(rune('a' + i))
		want = append(want, key)
		c.low(key, "text "+key)
		if v := c.low("gone", "x"); i > 0 {
			if err := c.unclass.del(c.unclass.as("u-analyst", ""), "gone", v.ID); err != nil {
				t.Fatal(err)
			}
		}
		var file bytes.Buffer
		crash(c.unclass, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			file.Reset()
			who, err := c.unclass.bearer(lowGuard)
			if err != nil {
				return err
			}
			mark, err := c.files[c.unclass].HandRaise(ctx, who, "secret", c.have["secret"], &file)
			if err == nil {
				c.have["secret"] = mark
			}
			return err
		})
		crash(c.secret, func() error {
			who, err := c.secret.bearer(lowGuard)
			if err != nil {
				return err
			}
			_, err = c.files[c.secret].TakeRaise(context.Background(), who, bytes.NewReader(file.Bytes()))
			if errors.Is(err, redoubt.Exists) {
				return nil
			}
			return err
		})
	}
	c.wantGaps()
	for _, key := range want {
		if c.above(key) != "text "+key || c.versions(c.secret, "unclass.reports", key) != 1 {
			t.Errorf("%s is not there once", key)
		}
	}
	if n := c.versions(c.secret, "unclass.reports", "gone"); n != 1 {
		t.Errorf("of what was removed twice there are %d", n)
	}
	c.secret.charges()
	c.nothing(c.unclass, c.secret)
}

// bearer is as for a node that may fail at that.
func (w *world) bearer(who redoubt.SubjectName) (redoubt.Credential, error) {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	req := redoubt.MintRequest{Subject: who, Node: w.name, Issued: w.clock(), Nonce: base64.RawURLEncoding.EncodeToString(nonce)}
	req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[who], redoubt.MintMessage(req)))
	m, err := w.MintCredential(context.Background(), req)
	if err != nil {
		return redoubt.Credential{}, err
	}
	return w.Bearer(context.Background(), m.Token)
}
