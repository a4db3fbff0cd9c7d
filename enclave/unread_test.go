package enclave

import (
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

// damage has the content of a version not open any more, and gives what mends it.
func (w *world) damage(marking string, v redoubt.Version) (mend func()) {
	w.t.Helper()
	b, set := (*w.buckets.Load())[v.Name.Bucket], w.set(marking)
	f, err := w.byID(w.engine, b, set.label, v.Name.Key, v.ID)
	if err != nil || f.rec == nil || len(f.rec.pieces) == 0 {
		w.t.Fatal(err)
	}
	key := headKey(b.id, set.id, v.Name.Key)
	was := slices.Clone(f.raw)
	f.rec.pieces[0].bound[0] ^= 1
	w.overwrite(key, f.rec.encode(nil))
	return func() { w.overwrite(key, was) }
}

// refused has the guard given nothing, for what does not read.
func (c *chain) refused() {
	c.t.Helper()
	if _, _, err := c.hand(c.unclass, c.secret); !errors.Is(err, redoubt.Corrupt) {
		c.t.Fatalf("got %v, want %v", err, redoubt.Corrupt)
	}
}

func (c *chain) wantUnread(want int) {
	c.t.Helper()
	if s := c.status(c.unclass, "secret"); s.Unread != want {
		c.t.Errorf("passed over are %d, want %d: %+v", s.Unread, want, s)
	}
}

// TestADamagedVersionHoldsNoRaiseUpAndIsToldOf: what is behind it goes up, it is on record by what fsck calls it, and is raised with all once it reads.
func TestADamagedVersionHoldsNoRaiseUpAndIsToldOf(t *testing.T) {
	for what, size := range map[string]int{"small": 10, "of several chunks": 300 << 10, "not kept in memory": 2 << 20} {
		t.Run(what, func(t *testing.T) {
			c := openChain(t)
			c.low("a", "one")
			bad := c.low("b", strings.Repeat("x", size))
			c.low("c", "three")
			mend := c.unclass.damage("UNCLASSIFIED", bad)
			c.refused()
			if s := c.status(c.unclass, "secret"); s.Blocked != redoubt.Corrupt.Error() || s.Unread != 0 {
				t.Errorf("below: %+v", s)
			}
			c.raise(c.unclass, c.secret)
			c.unclass.restartGuarded(c)
			c.low("d", "four")
			c.raise(c.unclass, c.secret)
			for key, want := range map[string]string{"a": "one", "b": "", "c": "three", "d": "four"} {
				if got := c.above(key); got != want {
					t.Errorf("%s is %q", key, got)
				}
			}
			c.wantUnread(1)
			if s := c.status(c.unclass, "secret"); s.Blocked != "" {
				t.Errorf("below: %+v, want nothing held up", s)
			}
			name, told := c.unclass.ids.token(c.unclass.stampOf(bad)), false
			err := c.unclass.SearchAudit(context.Background(), c.unclass.as("officer", ""), redoubt.AuditQuery{Action: redoubt.ActionHandRaise}, func(r redoubt.AuditRecord) error {
				told = told || r.Allow && strings.Contains(r.Detail, "without 1 that do not read or are larger than a bundle: "+name)
				return nil
			})
			if err != nil || !told {
				t.Errorf("the audit log does not tell of %s: %v", name, err)
			}
			if report, err := c.unclass.Check(context.Background(), c.unclass.as("admin", ""), nil); err != nil || len(report.Faults) != 1 || !strings.Contains(report.Faults[0], name) {
				t.Errorf("fsck says %+v, %v", report, err)
			}
			mend()
			if err := c.unclass.RaiseAnew(context.Background(), c.unclass.as("admin", ""), "secret"); err != nil {
				t.Fatal(err)
			}
			c.wantUnread(0)
			c.raise(c.unclass, c.secret)
			if got := c.above("b"); len(got) != size || c.versions(c.secret, "unclass.reports", "a") != 1 {
				t.Errorf("b has %d bytes, a %d versions", len(got), c.versions(c.secret, "unclass.reports", "a"))
			}
			c.wantUnread(0)
		})
	}
}

// stampOf is the ID of a version of an enclave's own.
func (w *world) stampOf(v redoubt.Version) versionID {
	w.t.Helper()
	f, err := w.byID(w.engine, (*w.buckets.Load())[v.Name.Bucket], w.ceiling, v.Name.Key, v.ID)
	if err != nil || f.rec == nil {
		w.t.Fatal(err)
	}
	return f.rec.id
}

// TestWhatWasPassedOverCountsOnceAndWhileItIsThere: though a bundle without it came to nothing, and no longer when it is removed.
func TestWhatWasPassedOverCountsOnceAndWhileItIsThere(t *testing.T) {
	c := openChain(t)
	bad := c.low("a", "one")
	c.unclass.damage("UNCLASSIFIED", bad)
	c.refused()
	if _, _, err := c.hand(c.unclass, c.secret); err != nil { // the guard does not have it
		t.Fatal(err)
	}
	c.wantUnread(1)
	c.refused()
	c.raise(c.unclass, c.secret)
	c.wantUnread(1)
	c.nothing(c.unclass, c.secret)
	if _, err := c.unclass.DeleteObject(context.Background(), c.unclass.as("u-analyst", ""), redoubt.DeleteObject{Name: bad.Name, ID: bad.ID}); err != nil {
		t.Fatal(err)
	}
	c.wantUnread(0)
}

// TestWhatIsGivenAgainAndReadsByThenIsPassedOverNoLonger, from when the guard has it.
func TestWhatIsGivenAgainAndReadsByThenIsPassedOverNoLonger(t *testing.T) {
	c := openChain(t)
	bad := c.low("a", "one")
	c.low("b", "two")
	c.next(c.unclass, c.secret) // lost on the road
	mend := c.unclass.damage("UNCLASSIFIED", bad)
	if _, _, err := c.again(1); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("got %v, want %v", err, redoubt.Corrupt)
	}
	file, mark, err := c.again(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.take(c.unclass, c.secret, file); err != nil || c.above("b") != "two" || c.above("a") != "" {
		t.Fatalf("a is %q, b is %q: %v", c.above("a"), c.above("b"), err)
	}
	c.have["secret"] = mark
	c.wantUnread(1)
	mend()
	if file, mark, err = c.again(1); err != nil {
		t.Fatal(err)
	}
	c.wantUnread(1)
	c.have["secret"] = mark
	c.nothing(c.unclass, c.secret)
	c.wantUnread(0)
	if _, err := c.take(c.unclass, c.secret, file); err != nil || c.above("a") != "one" {
		t.Errorf("a is %q: %v", c.above("a"), err)
	}
}

// TestWhatReadsAgainIsRaisedWithoutAPerson: once the lower node begins anew.
func TestWhatReadsAgainIsRaisedWithoutAPerson(t *testing.T) {
	c := openChain(t)
	c.beat = 10 * time.Millisecond
	mend := c.unclass.damage("UNCLASSIFIED", c.low("a", "one"))
	c.unclass.damage("UNCLASSIFIED", c.low("b", "two"))
	c.refused()
	c.raise(c.unclass, c.secret)
	c.wantUnread(2)
	mend()
	c.unclass.restartGuarded(c)
	c.raise(c.unclass, c.secret) // nothing is new
	c.wantUnread(2)
	if a, b := c.above("a"), c.above("b"); a != "one" || b != "" {
		t.Errorf("a is %q, b is %q", a, b)
	}
	c.raise(c.unclass, c.secret) // the guard has what went before
	c.wantUnread(1)
}

// TestWhatWasPassedOverIsKnownUpToALimit, and what is beyond is counted.
func TestWhatWasPassedOverIsKnownUpToALimit(t *testing.T) {
	var r handoverRecord
	stamps := make([]redoubt.Stamp, redoubt.MaxRaiseUnread+1)
	for i := range stamps {
		stamps[i] = redoubt.Stamp{byte(i >> 8), byte(i)}
	}
	at := redoubt.MaxRaiseUnread / 2
	for want, n := range []int{len(stamps) - 1, len(stamps)} {
		r = handoverRecord{}
		r.leftOut(map[string][]redoubt.Stamp{"A": stamps[:at], "B": stamps[at:n]})
		r.leftOut(map[string][]redoubt.Stamp{"B": stamps[at : n-1]})
		if len(r.Unread["A"]) != at || len(r.Unread["B"]) != redoubt.MaxRaiseUnread-at || r.Beyond != want {
			t.Errorf("of %d: %d and %d are known, and %d are beyond", n, len(r.Unread["A"]), len(r.Unread["B"]), r.Beyond)
		}
	}
	r.wentUp(map[string][]redoubt.Stamp{"A": stamps[:at], "C": stamps})
	if next := r.next(); len(next.Unread) != 1 || next.Beyond != 1 {
		t.Errorf("what is left is of %d sets", len(next.Unread))
	}
}

// away is a store whose blobs are out of reach for now.
type away struct{ store.Engine }

func (away) OpenBlob(store.BlobRef) (store.Blob, error) {
	return nil, &redoubt.Error{Op: "store", Kind: redoubt.Unavailable}
}

// TestWhatIsOutOfReachIsNotTakenForDamaged: a raise waits for it.
func TestWhatIsOutOfReachIsNotTakenForDamaged(t *testing.T) {
	c := openChain(t)
	c.low("a", strings.Repeat("x", 100<<10))
	was := c.unclass.engine
	c.unclass.engine = away{was}
	for range 3 {
		if _, _, err := c.hand(c.unclass, c.secret); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("got %v, want %v", err, redoubt.Unavailable)
		}
	}
	c.unclass.engine = was
	c.raise(c.unclass, c.secret)
	if c.above("a") == "" {
		t.Error("it was not raised")
	}
	c.wantUnread(0)
}

// TestWhatWasPassedOverOfAnotherLifeIsForgotten: what was set back raises everything anew.
func TestWhatWasPassedOverOfAnotherLifeIsForgotten(t *testing.T) {
	c := openChain(t)
	mend := c.unclass.damage("UNCLASSIFIED", c.low("a", "one"))
	c.refused()
	c.raise(c.unclass, c.secret)
	c.wantUnread(1)
	c.unclass.lose()
	mend()
	for i := 0; c.above("a") == "" && i < 4; i++ {
		c.raise(c.unclass, c.secret)
	}
	c.wantUnread(0)
}

// TestTheRecordNamesSomeOfWhatWasPassedOver, and how many there are.
func TestTheRecordNamesSomeOfWhatWasPassedOver(t *testing.T) {
	c := openChain(t)
	stamps := make([]redoubt.Stamp, shownUnread+1)
	for i := range stamps {
		stamps[i] = redoubt.Stamp{1, byte(i)}
	}
	for n, more := range map[int]bool{shownUnread: false, shownUnread + 1: true} {
		got := c.unclass.withoutText(map[string][]redoubt.Stamp{"A": stamps[:1], "B": stamps[1:n]})
		if !strings.HasPrefix(got, fmt.Sprintf(", without %d that do not read or are larger than a bundle: ", n)) || strings.HasSuffix(got, "…") != more {
			t.Errorf("of %d: %q", n, got)
		}
	}
	if got := c.unclass.withoutText(map[string][]redoubt.Stamp{}); got != "" {
		t.Errorf("of none: %q", got)
	}
}
