package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// again has a guard given what was in a number.
func (c *chain) again(serial uint64) ([]byte, redoubt.BundleMark, error) {
	c.t.Helper()
	var file bytes.Buffer
	mark, err := c.files[c.unclass].HandAgain(context.Background(), c.unclass.as(lowGuard, ""), "secret", c.have["secret"], serial, &file)
	return file.Bytes(), mark, err
}

// TestWhatWasHandedOverIsGivenAgainByItsNumber: the guard had it and lost it. It comes as another number, which closes the gap of the one that it was in,
// and nothing that is new is passed over for it.
func TestWhatWasHandedOverIsGivenAgainByItsNumber(t *testing.T) {
	c := openChain(t)
	var lost [][]byte
	for i := range 3 { // the first two never come above
		c.low(fmt.Sprint(i), "text "+fmt.Sprint(i))
		lost = append(lost, c.next(c.unclass, c.secret))
	}
	if _, err := c.take(c.unclass, c.secret, lost[2]); err != nil {
		t.Fatal(err)
	}
	c.wantGaps(1, 2)
	c.low("new", "news")
	for n := uint64(1); n <= 2; n++ {
		file, mark, err := c.again(n)
		if err != nil || mark.Serial != 3+n {
			t.Fatalf("bundle %d again is bundle %d: %v", n, mark.Serial, err)
		}
		c.have["secret"] = mark
		if _, err := c.take(c.unclass, c.secret, file); err != nil {
			t.Fatal(err)
		}
	}
	c.wantGaps()
	c.raise(c.unclass, c.secret)
	if got := c.above("new"); got != "news" {
		t.Errorf("what was new is %q", got)
	}
	for i := range 3 {
		key := fmt.Sprint(i)
		if got := c.above(key); got != "text "+key || c.versions(c.secret, "unclass.reports", key) != 1 {
			t.Errorf("%s is %q in %d versions", key, got, c.versions(c.secret, "unclass.reports", key))
		}
	}
	if _, err := c.take(c.unclass, c.secret, lost[0]); !errors.Is(err, redoubt.Exists) && !errors.Is(err, redoubt.Conflict) {
		t.Errorf("the first number, late: %v", err)
	}
	c.wantGaps()
	c.nothing(c.unclass, c.secret)
}

// TestABundleThatHoldsAnotherIsLostLikeAnyOther: it is void where the guard does not have it, and what it held is given again by either number.
func TestABundleThatHoldsAnotherIsLostLikeAnyOther(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	c.next(c.unclass, c.secret)
	if _, _, err := c.again(1); err != nil { // number 2, which the guard does not have
		t.Fatal(err)
	}
	file, mark, err := c.again(1)
	if err != nil || mark.Serial != 3 {
		t.Fatalf("bundle %d: %v", mark.Serial, err)
	}
	c.have["secret"] = mark // and which is lost on the road
	if _, _, err := c.again(2); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("a void number: %v", err)
	}
	file, mark, err = c.again(3)
	if err != nil {
		t.Fatal(err)
	}
	c.have["secret"] = mark
	if _, err := c.take(c.unclass, c.secret, file); err != nil || c.above("a") != "one" {
		t.Errorf("a is %q: %v", c.above("a"), err)
	}
	c.wantGaps() // it says what the ones before it said
	if n := c.versions(c.secret, "unclass.reports", "a"); n != 1 {
		t.Errorf("%d versions", n)
	}
}

// TestAHalfThatLostWhatItHadSeesItThoughNothingIsNew: its note is gone, and the low enclave took what was in it for handed over.
func TestAHalfThatLostWhatItHadSeesItThoughNothingIsNew(t *testing.T) {
	c := openChain(t)
	c.beat = 10 * time.Millisecond
	c.files[c.unclass] = c.bundles(c.unclass)
	c.low("a", "one")
	c.next(c.unclass, c.secret) // lost with the half, and so is the empty one that followed
	c.next(c.unclass, c.secret)
	c.nothing(c.unclass, c.secret)
	delete(c.have, "secret")
	_, mark, err := c.handWithin(c.unclass, c.secret, time.Minute)
	if err != nil || mark.Serial != 3 {
		t.Fatalf("bundle %d: %v", mark.Serial, err)
	}
	c.have["secret"] = mark
	c.nothing(c.unclass, c.secret) // once
	file, mark, err := c.again(1)
	if err != nil {
		t.Fatal(err)
	}
	c.have["secret"] = mark
	if _, err := c.take(c.unclass, c.secret, file); err != nil || c.above("a") != "one" {
		t.Errorf("a is %q: %v", c.above("a"), err)
	}
}

// TestTheLossOfWhatWasGivenAgainShows: an empty one follows it, as any that was the last, also where one had been sent.
func TestTheLossOfWhatWasGivenAgainShows(t *testing.T) {
	c := openChain(t)
	c.beat = 10 * time.Millisecond
	c.files[c.unclass] = c.bundles(c.unclass)
	c.low("a", "one")
	c.raise(c.unclass, c.secret)
	c.raise(c.unclass, c.secret) // the empty one
	c.nothing(c.unclass, c.secret)
	_, mark, err := c.again(1)
	if err != nil || mark.Serial != 3 {
		t.Fatalf("bundle %d: %v", mark.Serial, err)
	}
	c.have["secret"] = mark // and the road loses it
	if out, err := c.take(c.unclass, c.secret, c.next(c.unclass, c.secret)); err != nil || out.Serial != 4 {
		t.Fatalf("bundle %d, %v; want an empty fourth", out.Serial, err)
	}
	c.wantGaps(3, 3)
}

// TestANumberIsToldOfUntilABundleTookItAlong: one that came to nothing while another bundle was begun is not in that one.
func TestANumberIsToldOfUntilABundleTookItAlong(t *testing.T) {
	c := openChain(t)
	ctx, who := context.Background(), c.unclass.as(lowGuard, "")
	over := func(serial uint64, void ...uint64) redoubt.BundleMark {
		t.Helper()
		m := redoubt.BundleMark{Numbering: [16]byte{1}, Serial: serial, ID: [32]byte{byte(serial)}}
		if err := c.unclass.HandOver(ctx, who, "secret", m, redoubt.RaisedBundle{Void: void}); err != nil {
			t.Fatal(err)
		}
		return m
	}
	told := func(have redoubt.BundleMark, want ...uint64) {
		t.Helper()
		if got, err := c.unclass.Handed(ctx, "secret", have); err != nil || !slices.Equal(got, want) {
			t.Errorf("void %v, %v; want %v", got, err, want)
		}
	}
	over(1)
	told(redoubt.BundleMark{}, 1)
	last := over(2) // begun before the first came to nothing
	told(last, 1)
	last = over(3, 1)
	told(last)
}

// TestWhatIsGivenAgainIsWhatIsStillThere: of a version that was removed since its removal is what counts, and that stays above.
func TestWhatIsGivenAgainIsWhatIsStillThere(t *testing.T) {
	c := openChain(t)
	gone := c.low("a", "one")
	c.low("b", "two")
	c.next(c.unclass, c.secret) // lost
	if _, err := c.unclass.DeleteObject(context.Background(), c.unclass.as("u-analyst", ""), redoubt.DeleteObject{Name: gone.Name, ID: gone.ID}); err != nil {
		t.Fatal(err)
	}
	c.raise(c.unclass, c.secret)
	file, mark, err := c.again(1)
	if err != nil {
		t.Fatal(err)
	}
	c.have["secret"] = mark
	if _, err := c.take(c.unclass, c.secret, file); err != nil {
		t.Fatal(err)
	}
	if c.above("a") != "" || c.versions(c.secret, "unclass.reports", "a") != 0 || c.above("b") != "two" {
		t.Errorf("a is %q, b is %q", c.above("a"), c.above("b"))
	}
	c.wantGaps()
}

// TestWhatWasInANumberIsKnownThroughACrashAndForgottenWithItsNumbering.
func TestWhatWasInANumberIsKnownThroughACrashAndForgottenWithItsNumbering(t *testing.T) {
	c := openChain(t)
	c.low("a", "one")
	c.next(c.unclass, c.secret)
	c.low("b", "two")
	c.next(c.unclass, c.secret)
	c.unclass.restartGuarded(c)
	held, err := c.unclass.HandedOver(context.Background(), "secret", 1)
	if err != nil || len(held.Held) == 0 {
		t.Fatalf("%v, %v", held, err)
	}
	if _, err := c.unclass.HandedOver(context.Background(), "secret", 3); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("a number that never was: %v", err)
	}
	c.unclass.lose()
	if _, err := c.unclass.Handed(context.Background(), "secret", c.have["secret"]); err != nil {
		t.Fatal(err)
	}
	if _, err := c.unclass.HandedOver(context.Background(), "secret", 1); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("a number of another life: %v", err)
	}
}

// TestWhatIsKnownOfNumbersIsBounded, in bundles and in entries, and what is void counts for nothing.
func TestWhatIsKnownOfNumbersIsBounded(t *testing.T) {
	c := openChain(t)
	e := c.unclass.Enclave
	known := func() (n int, oldest uint64) {
		for serial := uint64(1); serial < 3*redoubt.MaxRaisedBundles; serial++ {
			if _, ok, err := e.engine.Get(heldKey("secret", serial)); err != nil {
				t.Fatal(err)
			} else if ok {
				if n++; oldest == 0 {
					oldest = serial
				}
			}
		}
		return n, oldest
	}
	rec := handoverRecord{Mark: redoubt.BundleMark{Numbering: [16]byte{1}}}
	add := func(bundles, entries int) {
		t.Helper()
		held := redoubt.RaisedBundle{Held: map[string][]redoubt.Stamp{"SET": make([]redoubt.Stamp, entries)}}
		for range bundles {
			b := new(store.Batch)
			rec.Mark.Serial++
			if err := e.keepHeld(b, "secret", &rec, held); err != nil {
				t.Fatal(err)
			}
			if rec.Mark.Serial%10 == 0 { // it comes to nothing
				if err := e.commit(context.Background(), b, nil); err != nil {
					t.Fatal(err)
				}
				b = new(store.Batch)
				if err := e.forgetHeld(b, "secret", rec.Mark.Serial, &rec); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.commit(context.Background(), b, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(redoubt.MaxRaisedBundles+100, 1)
	if n, oldest := known(); oldest != 101 || n > redoubt.MaxRaisedBundles || n < redoubt.MaxRaisedBundles*9/10-1 {
		t.Errorf("%d are known, from %d", n, oldest)
	}
	add(80, redoubt.MaxRaiseEntries)
	if n, _ := known(); n > redoubt.MaxRaisedEntries/redoubt.MaxRaiseEntries || n < 50 || rec.Entries > redoubt.MaxRaisedEntries || rec.Entries < n*redoubt.MaxRaiseEntries {
		t.Errorf("%d are known, with %d entries", n, rec.Entries)
	}
}

func TestHeldIsReadStrictly(t *testing.T) {
	made := redoubt.RaisedBundle{Held: map[string][]redoubt.Stamp{"A": {{1}, {2}}, "B": nil, "C": {{3}}}, Void: []uint64{4, 7}}
	same := func(other redoubt.RaisedBundle) bool {
		return slices.Equal(other.Void, made.Void) && maps.EqualFunc(other.Held, made.Held, slices.Equal[[]redoubt.Stamp])
	}
	raw, _, err := encodeHeld([16]byte{9}, made)
	if err != nil {
		t.Fatal(err)
	}
	numbering, got, err := decodeHeld(raw)
	if err != nil || numbering != [16]byte{9} || !same(got) {
		t.Errorf("%v, %v", got, err)
	}
	for n := range raw {
		if _, other, err := decodeHeld(raw[:n]); err == nil && same(other) {
			t.Errorf("%d bytes of %d read as all", n, len(raw))
		}
	}
	for _, bad := range [][]byte{append(slices.Clone(raw), 0), append(slices.Clone(raw[:16]), 0, 0, 0, 0, 0, 1, 'A', 0xff, 0xff, 0xff, 0xff), raw[:15], append(slices.Clone(raw[:16]), 0xff, 0xff, 0xff, 0xff)} {
		if _, _, err := decodeHeld(bad); redoubt.KindOf(err) != redoubt.Corrupt {
			t.Errorf("%x: %v", bad, err)
		}
	}
}
