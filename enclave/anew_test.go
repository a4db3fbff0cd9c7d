package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"redoubt"
)

func TestRaisingAnewBringsEverythingOnceMore(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	c.next(c.unclass, c.secret) // lost
	c.low("b", "two")
	c.raise(c.unclass, c.secret)
	gone := c.low("c", "three")
	c.raise(c.unclass, c.secret)
	if _, err := c.unclass.DeleteObject(context.Background(), c.unclass.as("u-analyst", ""), redoubt.DeleteObject{Name: named("c"), ID: gone.ID}); err != nil {
		t.Fatal(err)
	}
	if err := c.unclass.RaiseAnew(context.Background(), c.unclass.as("u-analyst", ""), "secret"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("an analyst raises anew: %v", err)
	}
	if err := c.secret.RaiseAnew(context.Background(), c.secret.as("admin", ""), "unclass"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("the higher end raises anew: %v", err)
	}
	if err := c.unclass.RaiseAnew(context.Background(), c.unclass.as("admin", ""), "secret"); err != nil {
		t.Fatal(err)
	}
	out := c.raise(c.unclass, c.secret)
	if out.Serial != 4 {
		t.Errorf("bundle %d, want the numbers to go on", out.Serial)
	}
	for key, n := range map[string]int{"a": 1, "b": 1, "c": 0} {
		if got := c.versions(c.secret, "unclass.reports", key); got != n {
			t.Errorf("%s is there %d times, want %d", key, got, n)
		}
	}
	c.nothing(c.unclass, c.secret)
}

// TestWhatIsThereAlreadyIsRaisedThoughItFillsManyBundles: a raise may begin over much, and be begun anew over more.
func TestWhatIsThereAlreadyIsRaisedThoughItFillsManyBundles(t *testing.T) {
	c := openChain(t)
	for i := range 5 {
		c.low(fmt.Sprint(i), noise(9<<20))
	}
	goes := c.low("goes", "away")
	drain := func() (bundles int) {
		t.Helper()
		for ; bundles < 12; bundles++ {
			file, mark, err := c.handWithin(c.unclass, c.secret, 3*time.Second)
			if errors.Is(err, redoubt.NotModified) {
				return bundles
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.have["secret"] = mark; bundles == 0 { // it goes on below meanwhile
				c.low("while", fmt.Sprint("version ", mark.Serial))
				_ = c.unclass.del(c.unclass.as("u-analyst", ""), "goes", goes.ID)
			}
			if _, err := c.take(c.unclass, c.secret, file); err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("it does not end")
		return 0
	}
	for i, least := range []int{3, 3} {
		if n := drain(); n < least {
			t.Errorf("raised in %d bundles, want at least %d", n, least)
		}
		for k := range 5 {
			if n := c.versions(c.secret, "unclass.reports", fmt.Sprint(k)); n != 1 {
				t.Errorf("%d is there %d times", k, n)
			}
		}
		if n, gone := c.versions(c.secret, "unclass.reports", "while"), c.versions(c.secret, "unclass.reports", "goes"); n != i+1 || gone != 0 {
			t.Errorf("of what was written meanwhile there are %d, of what was removed %d", n, gone)
		}
		if err := c.unclass.RaiseAnew(context.Background(), c.unclass.as("admin", ""), "secret"); err != nil {
			t.Fatal(err)
		}
	}
	c.wantGaps()
}

// TestAskingAnewWhileABundleIsMadeForgetsWhatItGoesOnBehind: a whole that goes in parts may be asked for anew while one of them is made.
func TestAskingAnewWhileABundleIsMadeForgetsWhatItGoesOnBehind(t *testing.T) {
	c := openChain(t)
	for i := range 3 {
		c.low(fmt.Sprint(i), noise(9<<20))
	}
	c.next(c.unclass, c.secret) // the first part, which the guard has and which is lost
	ctx, anew := context.Background(), false
	file := func() []byte {
		var out bytes.Buffer
		mark, err := c.files[c.unclass].HandRaise(ctx, c.unclass.as(lowGuard, ""), "secret", c.have["secret"], writes(func(b []byte) (int, error) {
			if !anew && out.Len() > 1<<20 { // it is being made
				anew = true
				if err := c.unclass.RaiseAnew(ctx, c.unclass.as("admin", ""), "secret"); err != nil {
					t.Error(err)
				}
			}
			return out.Write(b)
		}))
		if err != nil {
			t.Fatal(err)
		}
		c.have["secret"] = mark
		return out.Bytes()
	}()
	for n := 0; ; n++ {
		if _, err := c.take(c.unclass, c.secret, file); err != nil {
			t.Fatal(err)
		}
		var err error
		var mark redoubt.BundleMark
		if file, mark, err = c.handWithin(c.unclass, c.secret, 3*time.Second); errors.Is(err, redoubt.NotModified) {
			break
		}
		if c.have["secret"] = mark; err != nil || n > 12 {
			t.Fatal(n, err)
		}
	}
	for k := range 3 {
		if n := c.versions(c.secret, "unclass.reports", fmt.Sprint(k)); n != 1 {
			t.Errorf("%d is there %d times", k, n)
		}
	}
}

type writes func([]byte) (int, error)

func (w writes) Write(b []byte) (int, error) { return w(b) }

// TestAskingAnewTakesBackAWholeThatIsOnItsWay: what was made before says nothing of what is to come again.
func TestAskingAnewTakesBackAWholeThatIsOnItsWay(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	c.next(c.unclass, c.secret) // a whole, and lost behind the guard
	if err := c.unclass.RaiseAnew(context.Background(), c.unclass.as("admin", ""), "secret"); err != nil {
		t.Fatal(err)
	}
	if got := c.raise(c.unclass, c.secret); got.Serial != 2 || c.above("a") != "one" {
		t.Errorf("bundle %d, and a is %q", got.Serial, c.above("a"))
	}
}

// asking is a ledger of a raise of which something is asked just before it keeps that there is nothing to hand over.
type asking struct {
	redoubt.RaiseLedger
	first func()
}

func (a asking) Passed(ctx context.Context, peer redoubt.NodeName, s redoubt.JournalSpan) error {
	a.first()
	return a.RaiseLedger.Passed(ctx, peer, s)
}

// setText is what a journal calls a label set.
func (w *world) setText(marking string) string {
	w.t.Helper()
	text, err := w.set(marking).label.MarshalText()
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// TestAskingAnewWhileNothingIsHandedOverForgetsThatToo: all is raised once more, though the guard had just been found to have it.
func TestAskingAnewWhileNothingIsHandedOverForgetsThatToo(t *testing.T) {
	c, asked := openChain(t), 0
	ctx, w := context.Background(), c.unclass
	c.files[w] = c.bundlesBy(w, asking{w, func() {
		if asked++; asked == 1 {
			if err := w.RaiseAnew(ctx, w.as("admin", ""), "secret"); err != nil {
				t.Error(err)
			}
		}
	}})
	c.low("a", "one")
	c.raise(w, c.secret)
	if _, err := w.PutObject(ctx, w.as("u-analyst", ""), redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "locked", Key: "k"}, SizeBytes: 1, Body: strings.NewReader("x")}); err != nil { // which is not raised
		t.Fatal(err)
	}
	file, mark, err := c.handWithin(w, c.secret, 10*time.Second)
	if err != nil || asked == 0 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	made, err := w.HandedOver(ctx, "secret", mark.Serial)
	if n := len(made.Held[w.setText("UNCLASSIFIED")]); err != nil || mark.Serial != 2 || n != 1 {
		t.Errorf("bundle %d has %d entries (%v), want all raised once more", mark.Serial, n, err)
	}
	c.have["secret"] = mark
	if _, err := c.take(w, c.secret, file); err != nil || c.above("a") != "one" {
		t.Errorf("a is %q, %v", c.above("a"), err)
	}
	c.nothing(w, c.secret)
}

// TestNothingIsPassedOfAWholeThatWasAskedForAnew: its end follows from what was begun, and that is forgotten.
func TestNothingIsPassedOfAWholeThatWasAskedForAnew(t *testing.T) {
	for _, anew := range []bool{false, true} {
		c := openChain(t)
		ctx, w, set := context.Background(), c.unclass, c.unclass.setText("UNCLASSIFIED")
		for i := range 3 {
			c.low(fmt.Sprint(i), noise(9<<20))
		}
		c.raise(w, c.secret)
		if _, _, err := c.hand(w, c.secret); err != nil { // the guard has the first part
			t.Fatal(err)
		}
		begun, err := w.Begun(ctx, "secret")
		if err != nil || begun[set].Part == (redoubt.Stamp{}) {
			t.Fatalf("got %+v, %v; want a part", begun, err)
		}
		if anew {
			if err := w.RaiseAnew(ctx, w.as("admin", ""), "secret"); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Passed(ctx, "secret", redoubt.JournalSpan{Set: set, To: begun[set].To, Whole: true, Behind: begun[set].Part}); err != nil {
			t.Fatal(err)
		}
		if at, known, err := w.Acknowledged(ctx, "secret", set); err != nil || known == anew || known && at != begun[set].To {
			t.Errorf("asked for anew %v: up to %d, known %v, %v", anew, at, known, err)
		}
	}
}

// TestTheLossOfTheLastBundleShows: a while later an empty one follows, once, and its number tells.
func TestTheLossOfTheLastBundleShows(t *testing.T) {
	c := openChain(t)
	c.beat = 10 * time.Millisecond
	c.files[c.unclass] = c.bundles(c.unclass)
	c.low("a", "one")
	c.raise(c.unclass, c.secret)
	c.low("b", "two")
	c.next(c.unclass, c.secret) // the guard has it, and the road loses it
	c.wantGaps()
	if out, err := c.take(c.unclass, c.secret, c.next(c.unclass, c.secret)); err != nil || out.Serial != 3 {
		t.Fatalf("bundle %d, %v; want an empty third", out.Serial, err)
	}
	c.wantGaps(2, 2)
	c.nothing(c.unclass, c.secret)
}
