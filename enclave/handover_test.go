package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// low writes at unclass.
func (c *chain) low(key, text string) redoubt.Version {
	return c.unclass.put(c.unclass.as("u-analyst", ""), key, text, "")
}

// above reads what was raised to secret.
func (c *chain) above(key string) string {
	return c.secret.in(c.secret.as("s-analyst", "UNCLASSIFIED"), "unclass.reports", key)
}

// versions counts all of a raised key.
func (c *chain) versions(w *world, bucket, key string) (n int) {
	c.t.Helper()
	page, err := w.ListVersions(context.Background(), w.as("ts-analyst", w.ceiling.Banner()), redoubt.ListVersions{Bucket: redoubt.BucketName(bucket), Prefix: key, Max: 1000})
	if err != nil {
		c.t.Fatal(err)
	}
	return len(page.Versions)
}

func spans(all ...uint64) (out []redoubt.NumberSpan) {
	for i := 0; i < len(all); i += 2 {
		out = append(out, redoubt.NumberSpan{From: all[i], To: all[i+1]})
	}
	return out
}

func (c *chain) wantGaps(want ...uint64) {
	c.t.Helper()
	if got := c.status(c.secret, "unclass").Gaps; !slices.Equal(got, spans(want...)) {
		c.t.Errorf("gaps %v, want %v", got, spans(want...))
	}
}

func TestABundleThatTheGuardDoesNotKeepIsVoidAndComesInTheNext(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	if _, _, err := c.hand(c.unclass, c.secret); err != nil { // it died before it was on its disk
		t.Fatal(err)
	}
	if s := c.status(c.unclass, "secret"); !s.Awaiting || s.Serial != 1 || s.Way != "up" {
		t.Errorf("below: %+v, want one that nobody has", s)
	}
	c.low("b", "two")
	if _, _, err := c.hand(c.unclass, c.secret); err != nil {
		t.Fatal(err)
	}
	c.low("c", "three")
	if got := c.raise(c.unclass, c.secret); got.Serial != 3 {
		t.Errorf("bundle %d, want the third", got.Serial)
	}
	for key, want := range map[string]string{"a": "one", "b": "two", "c": "three"} {
		if got := c.above(key); got != want || c.versions(c.secret, "unclass.reports", key) != 1 {
			t.Errorf("%s is %q in %d versions", key, got, c.versions(c.secret, "unclass.reports", key))
		}
	}
	c.wantGaps()
	c.nothing(c.unclass, c.secret)
	if s := c.status(c.unclass, "secret"); s.Awaiting {
		t.Errorf("below: %+v, want nothing awaited", s)
	}
}

// TestALowerEnclaveThatWasSetBackRaisesEverythingAnew: a backup is restored that has positions, a void number and a bundle on its way.
func TestALowerEnclaveThatWasSetBackRaisesEverythingAnew(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	_, first, err := c.hand(c.unclass, c.secret) // it is lost on the road, and the guard takes it for sent
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.unclass.Handed(context.Background(), "secret", first); err != nil {
		t.Fatal(err)
	}
	c.have["secret"] = first
	c.low("b", "two")
	if _, _, err := c.hand(c.unclass, c.secret); err != nil { // void
		t.Fatal(err)
	}
	if void, err := c.unclass.Handed(context.Background(), "secret", first); err != nil || !slices.Equal(void, []uint64{2}) {
		t.Fatalf("void are %v, %v", void, err)
	}
	c.unclass.lose()
	if void, err := c.unclass.Handed(context.Background(), "secret", first); err != nil || len(void) != 0 {
		t.Errorf("numbers of another life are void: %v, %v", void, err)
	}
	for c.above("b") == "" || c.above("a") == "" {
		if got := c.raise(c.unclass, c.secret); got.Serial > 2 {
			t.Fatalf("a is %q and b is %q after bundle %d", c.above("a"), c.above("b"), got.Serial)
		}
	}
	c.nothing(c.unclass, c.secret)
}

func TestWhatWasVoidIsToldUntilTheGuardHasWhatTellsIt(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	c.raise(c.unclass, c.secret)
	c.low("b", "two")
	c.hand(c.unclass, c.secret)         // 2 is void
	lost := c.next(c.unclass, c.secret) // 3 says so, and is lost behind the guard
	c.low("c", "three")
	c.raise(c.unclass, c.secret) // 4
	c.wantGaps(2, 3)
	if _, err := c.take(c.unclass, c.secret, lost); err != nil {
		t.Fatal(err)
	}
	c.wantGaps()
	if got := c.above("b"); got != "two" {
		t.Errorf("b is %q", got)
	}
}

func TestAGuardThatSaysItHasWhatItHasNotLosesNothingByIt(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	_, mark, err := c.hand(c.unclass, c.secret)
	if err != nil {
		t.Fatal(err)
	}
	for what, have := range map[string]redoubt.BundleMark{
		"another ID":        {Numbering: mark.Numbering, Serial: mark.Serial, ID: [32]byte{1}},
		"another numbering": {Numbering: [16]byte{1}, Serial: mark.Serial, ID: mark.ID},
		"a later number":    {Numbering: mark.Numbering, Serial: mark.Serial + 1, ID: mark.ID},
		"nothing":           {},
	} {
		c.have["secret"] = have
		file, next, err := c.hand(c.unclass, c.secret)
		if err != nil {
			t.Fatal(err)
		}
		if next.Serial != mark.Serial+1 {
			t.Errorf("%s: bundle %d follows %d", what, next.Serial, mark.Serial)
		}
		if mark = next; len(file) == 0 {
			t.Errorf("%s: what was not handed over did not come again", what)
		}
	}
}

func TestHandedOverIsWhatIsOnTheGuardsDiskThroughACrash(t *testing.T) {
	c := openChain(t)
	restart := func() {
		raises := c.unclass.links.raises
		c.unclass.restart(true)
		if err := c.unclass.SetRaises(context.Background(), raises); err != nil {
			t.Fatal(err)
		}
		c.files[c.unclass] = c.bundles(c.unclass)
	}
	c.low("a", "one")
	restart() // before anything was made
	c.hand(c.unclass, c.secret)
	restart() // made, and not kept by the guard
	file := c.next(c.unclass, c.secret)
	restart() // kept by the guard, which has not said so yet
	c.nothing(c.unclass, c.secret)
	restart() // said
	c.nothing(c.unclass, c.secret)
	if out, err := c.take(c.unclass, c.secret, file); err != nil || out.Serial != 2 {
		t.Fatalf("%+v, %v", out, err)
	}
	c.wantGaps()
	if got := c.above("a"); got != "one" || c.versions(c.secret, "unclass.reports", "a") != 1 {
		t.Errorf("a is %q", got)
	}
}

func TestGapsAreNumberedAndClosedByWhatIsFedAgain(t *testing.T) {
	c := openChain(t)
	var files [][]byte
	for i := range 6 {
		c.low(fmt.Sprint(i), "text")
		files = append(files, c.next(c.unclass, c.secret))
	}
	take := func(n int) {
		t.Helper()
		if _, err := c.take(c.unclass, c.secret, files[n-1]); err != nil {
			t.Fatal(err)
		}
	}
	take(2)
	c.wantGaps(1, 1)
	take(6)
	c.wantGaps(1, 1, 3, 5)
	if s := c.status(c.secret, "unclass"); s.Serial != 6 || s.Way != "here" || s.At.IsZero() {
		t.Errorf("above: %+v", s)
	}
	take(4)
	c.wantGaps(1, 1, 3, 3, 5, 5)
	raises := c.secret.links.raises
	c.secret.restart(true)
	if err := c.secret.SetRaises(context.Background(), raises); err != nil {
		t.Fatal(err)
	}
	c.files[c.secret] = c.bundles(c.secret)
	take(1)
	take(3)
	take(5)
	c.wantGaps()
	for i := range 6 {
		if c.above(fmt.Sprint(i)) != "text" || c.versions(c.secret, "unclass.reports", fmt.Sprint(i)) != 1 {
			t.Errorf("%d is not there once", i)
		}
	}
	for n := range files { // what is fed again needlessly
		if _, err := c.take(c.unclass, c.secret, files[n]); !errors.Is(err, redoubt.Exists) {
			t.Errorf("bundle %d once more: %v, want %v", n+1, err, redoubt.Exists)
		}
	}
	if s := c.status(c.secret, "unclass"); s.Blocked != "" || s.Serial != 6 {
		t.Errorf("above: %+v, want nothing blocked by repeats", s)
	}
}

func TestGapsAreShownToWhoDominatesTheLowerCeiling(t *testing.T) {
	c := openChain(t)
	c.secret.put(c.secret.as("s-analyst", ""), "a", "one", "")
	c.next(c.secret, c.ts)
	c.secret.put(c.secret.as("s-analyst", ""), "b", "two", "")
	c.raise(c.secret, c.ts)
	for who, n := range map[redoubt.Credential]int{
		c.ts.as("ts-analyst", ""):             1,
		c.ts.as("ts-analyst", "SECRET"):       1,
		c.ts.as("ts-analyst", "CONFIDENTIAL"): 0,
		c.ts.as("u-analyst", ""):              0,
	} {
		all, err := c.ts.Raises(context.Background(), who)
		if err != nil || len(all) != n {
			t.Errorf("at %s: %+v, %v, want %d raises", who.Working.Banner(), all, err, n)
		}
	}
	if got := c.status(c.ts, "secret").Gaps; !slices.Equal(got, spans(1, 1)) {
		t.Errorf("gaps %v", got)
	}
}

func TestARemovalThatWasRaisedStaysThoughWhatItRemovesIsFedLate(t *testing.T) {
	c := openChain(t)
	v := c.low("a", "spilt")
	late := c.next(c.unclass, c.secret)
	if _, err := c.unclass.DeleteObject(context.Background(), c.unclass.as("u-analyst", ""), redoubt.DeleteObject{Name: named("a"), ID: v.ID}); err != nil {
		t.Fatal(err)
	}
	c.raise(c.unclass, c.secret)
	c.wantGaps(1, 1)
	c.raise(c.secret, c.ts)
	c.nothing(c.secret, c.ts) // so that nobody is waited for
	c.secret.trim()
	if kept := c.secret.removals("UNCLASSIFIED"); kept != 1 {
		t.Fatalf("%d removals are known", kept)
	}
	c.hands.add(300 * 24 * time.Hour)
	c.secret.trim()
	if _, err := c.take(c.unclass, c.secret, late); err != nil {
		t.Fatal(err)
	}
	c.wantGaps()
	if got := c.versions(c.secret, "unclass.reports", "a"); got != 0 {
		t.Errorf("%d versions came back", got)
	}
	c.hands.add(forgetAfter)
	c.secret.trim()
	if kept := c.secret.removals("UNCLASSIFIED"); kept != 1 {
		t.Errorf("%d removals are known after years: what is raised anew would bring it back", kept)
	}
}

func TestWhatThereIsNoRoomForWaitsWholeAndSaysWhy(t *testing.T) {
	c := openChain(t)
	c.low("a", strings.Repeat("x", 5000))
	c.low("b", strings.Repeat("y", 5000))
	share := c.secret.set("UNCLASSIFIED").share
	share.quota = share.used.Load() + 7000
	file := c.next(c.unclass, c.secret)
	if _, err := c.take(c.unclass, c.secret, file); !errors.Is(err, redoubt.QuotaExceeded) {
		t.Fatalf("got %v, want %v", err, redoubt.QuotaExceeded)
	}
	if s := c.status(c.secret, "unclass"); s.Blocked != redoubt.QuotaExceeded.Error() || s.Serial != 0 {
		t.Errorf("above: %+v, want it blocked by its quota", s)
	}
	c.low("c", "more") // the lower side feels nothing of it
	behind := c.next(c.unclass, c.secret)
	share.quota = 0
	for _, f := range [][]byte{file, behind} {
		if _, err := c.take(c.unclass, c.secret, f); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.status(c.secret, "unclass"); s.Blocked != "" || s.Serial != 2 || len(s.Gaps) > 0 {
		t.Errorf("above: %+v, want all taken", s)
	}
	for _, key := range []string{"a", "b", "c"} {
		if c.versions(c.secret, "unclass.reports", key) != 1 {
			t.Errorf("%s is not there once", key)
		}
	}
}

func TestWhatIsRefusedForGoodBlocksNothing(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	file := c.next(c.unclass, c.secret)
	forged := bytes.Clone(file)
	forged[len(forged)-40] ^= 1
	if _, err := c.take(c.unclass, c.secret, forged); redoubt.KindOf(err) != redoubt.Denied && redoubt.KindOf(err) != redoubt.Invalid {
		t.Errorf("a forged bundle: %v", err)
	}
	if s := c.status(c.secret, "unclass"); s.Blocked != "" {
		t.Errorf("a forged bundle blocks the raise: %+v", s)
	}
	if _, err := c.take(c.unclass, c.secret, file); err != nil {
		t.Error(err)
	}
}

// TestWhatIsNotRaisedHoldsNoJournalUp: a guard that raises little, or releases alone, is waited for no longer than it takes to see so.
func TestWhatIsNotRaisedHoldsNoJournalUp(t *testing.T) {
	c := openChain(t)
	u := c.unclass.as("u-analyst", "")
	for range 2 {
		for i := range 3 {
			if _, err := c.unclass.PutObject(context.Background(), u, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "locked", Key: fmt.Sprint(i)}, SizeBytes: -1}); err != nil {
				t.Fatal(err)
			}
		}
		c.nothing(c.unclass, c.secret)
		set := c.unclass.set("UNCLASSIFIED")
		end, err := journalEnd(c.unclass.engine, set)
		if err != nil {
			t.Fatal(err)
		}
		if least, err := c.unclass.leastAcknowledged(set); err != nil || least != end || end == 0 {
			t.Errorf("the journal is kept from %d on, of %d (%v)", least, end, err)
		}
	}
	c.low("a", "one")
	c.raise(c.unclass, c.secret)
	if got := c.above("a"); got != "one" {
		t.Errorf("a is %q", got)
	}
}

// TestWhatIsAcknowledgedIsNeverVoid: what the guard has is one commit. Were it two, a crash between them and the loss of what it noted
// would have the next bundle say that the number never was, and nothing would show as lacking.
func TestWhatIsAcknowledgedIsNeverVoid(t *testing.T) {
	for n := 0; ; n++ {
		c := openChain(t)
		c.low("a", "one")
		c.next(c.unclass, c.secret)
		seen, broken := 0, errors.New("no more power")
		f := &faulty{Engine: c.unclass.engine, before: func(*store.Batch) error {
			if seen++; seen > n {
				return broken
			}
			return nil
		}}
		c.unclass.engine = f
		_, err := c.unclass.Handed(context.Background(), "secret", c.have["secret"])
		f.when(nil)
		c.unclass.engine = f.Engine
		c.unclass.restartGuarded(c)
		c.have["secret"] = redoubt.BundleMark{} // the guard's disk is lost, and what was on it
		c.low("b", "two")
		c.raise(c.unclass, c.secret)
		if a, gaps := c.versions(c.secret, "unclass.reports", "a"), c.status(c.secret, "unclass").Gaps; a == 0 && len(gaps) == 0 {
			t.Fatalf("failed at commit %d: what was handed over is not there, and no gap is shown", n)
		}
		if err == nil {
			return
		}
	}
}

// removals counts what is known to have been removed of a label.
func (w *world) removals(marking string) (n int) {
	w.t.Helper()
	set := w.set(marking)
	view := w.engine.View()
	defer view.Close()
	prefix := setKey(recStamp, set.id)
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		if redoubt.EntryKind(it.Value()[0]) == redoubt.EntryRemoval {
			n++
		}
	}
	return n
}

// TestARaiseThatIsHeldUpBelowSaysSo: what does not read, or does not go into any bundle, holds up all that is behind it until a person mends it.
func TestARaiseThatIsHeldUpBelowSaysSo(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	for kind, want := range map[redoubt.Kind]string{redoubt.Corrupt: redoubt.Corrupt.Error(), redoubt.TooLarge: redoubt.TooLarge.Error(), redoubt.NotFound: ""} {
		bad := &redoubt.Error{Op: "HandRaise", Kind: kind}
		if err := c.unclass.Refuse(ctx, c.unclass.as(c.guardOf(c.unclass), ""), redoubt.ActionHandRaise, "secret", bad); redoubt.KindOf(err) != kind {
			t.Fatal(err)
		}
		if got := c.status(c.unclass, "secret").Blocked; got != want {
			t.Errorf("held up by %q, want %q", got, want)
		}
		c.low("a", string(want))
		c.raise(c.unclass, c.secret)
		if got := c.status(c.unclass, "secret").Blocked; got != "" {
			t.Errorf("held up by %q, and it goes on", got)
		}
	}
}
