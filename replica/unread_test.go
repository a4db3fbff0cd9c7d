package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"redoubt"
	"redoubt/bundle"
)

// damaged is a handing node of which some stamps do not read: at once, or from a place in their content on.
type damaged struct {
	*handing
	bad   map[int]damage
	whole bool // nothing is known of what was handed over
	again []redoubt.Stamp
	made  []redoubt.RaisedBundle
	freed int
}

type damage struct {
	err   error
	at    int64 // of the content; below 0: it is not even fetched
	times int   // it passes after so many fetches; 0: never
}

func newDamaged(t *testing.T, bad map[int]damage, sizes ...int64) *damaged {
	d := &damaged{handing: newHanding(t, 0, sizes...), bad: bad}
	o := &d.p.o
	o.Journal, o.State, o.Ledger, o.Raises = d, d, d, d
	return d
}

// failing is content that reads up to a place.
type failing struct {
	body
	at  int64
	err error
}

func (f failing) Reader(off, n int64) io.Reader {
	return io.MultiReader(io.LimitReader(f.body.Reader(off, n), f.at-off), errReader{f.err})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func (d *damaged) Fetch(ctx context.Context, peer redoubt.NodeName, set string, stamps []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	out, _ := d.handing.Fetch(ctx, peer, set, stamps)
	for i, s := range stamps {
		n := int(s[0])<<8 | int(s[1])
		bad, is := d.bad[n]
		out[i].Release = func() { d.freed++ }
		switch {
		case !is:
		case bad.at < 0:
			if bad.times--; bad.times == 0 {
				delete(d.bad, n)
			} else {
				d.bad[n] = bad
			}
			return nil, bad.err
		default:
			out[i].Open = func() (redoubt.Content, error) {
				return failing{body(lentContent(s[1], int(out[i].Entry.SizeBytes))), bad.at, bad.err}, nil
			}
		}
	}
	return out, nil
}
func (d *damaged) Acknowledged(context.Context, redoubt.NodeName, string) (uint64, bool, error) {
	return d.from, !d.whole, nil
}
func (d *damaged) Inventory(_ context.Context, _ redoubt.NodeName, _ string, each func(redoubt.Stamp) error) (uint64, error) {
	for _, r := range d.refs {
		if err := each(r.Stamp); err != nil {
			return 0, err
		}
	}
	return uint64(len(d.refs)), nil
}
func (d *damaged) Refs(_ context.Context, _ redoubt.NodeName, _ string, stamps []redoubt.Stamp) (refs []redoubt.JournalRef, _ error) {
	for _, s := range stamps {
		refs = append(refs, d.refs[int(s[0])<<8|int(s[1])])
	}
	return refs, nil
}
func (d *damaged) HandOver(_ context.Context, _ redoubt.Credential, _ redoubt.NodeName, _ redoubt.BundleMark, b redoubt.RaisedBundle) error {
	if d.made = append(d.made, b); len(b.Spans) > 0 {
		d.from, d.whole = b.Spans[len(b.Spans)-1].To, false
	}
	return nil
}
func (d *damaged) HandedOver(context.Context, redoubt.NodeName, uint64) (redoubt.RaisedBundle, error) {
	return redoubt.RaisedBundle{Held: map[string][]redoubt.Stamp{"S": d.again}}, nil
}

// refused hands over once, and wants it to fail so.
func (d *damaged) refused(t *testing.T, kind redoubt.Kind) {
	t.Helper()
	if _, _, err := d.hand(t); redoubt.KindOf(err) != kind || err == nil {
		t.Fatalf("got %v, want %v", err, kind)
	}
}

func (d *damaged) stamps(of ...int) (out []redoubt.Stamp) {
	for _, i := range of {
		out = append(out, d.refs[i].Stamp)
	}
	return out
}

// wants says what is in the last bundle and what was left out of it.
func (d *damaged) wants(t *testing.T, held, unread []redoubt.Stamp) {
	t.Helper()
	b := d.made[len(d.made)-1]
	if !slices.Equal(b.Held["S"], held) || !slices.Equal(b.Unread["S"], unread) {
		t.Errorf("the bundle holds %v without %v, want %v without %v", b.Held, b.Unread, held, unread)
	}
}

const halfWay = 6 << 20

// TestWhatDoesNotReadIsLeftOutOfARaiseAndHoldsNothingUp: wherever it stands, and where all is handed over that there is; the one behind it is made as any.
func TestWhatDoesNotReadIsLeftOutOfARaiseAndHoldsNothingUp(t *testing.T) {
	corrupt := &redoubt.Error{Kind: redoubt.Corrupt}
	large := int64(maxWholeBytes + 1)
	for what, c := range map[string]struct {
		bad   damage
		sizes []int64
		whole bool
	}{
		"in the middle of a page":     {damage{corrupt, -1, 0}, []int64{10, 20, 30, 40}, false},
		"when it is read":             {damage{corrupt, 5, 0}, []int64{10, 20, 30, 40}, false},
		"a large one, in its middle":  {damage{corrupt, halfWay, 0}, []int64{10, large, 30, 40}, false},
		"of all that there is":        {damage{corrupt, -1, 0}, []int64{10, 20, 30, 40}, true},
		"a large one of all there is": {damage{corrupt, halfWay, 0}, []int64{10, large, 30, 40}, true},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDamaged(t, map[int]damage{1: c.bad}, c.sizes...)
			d.whole = c.whole
			for i := 0; i < 6 && (d.whole || d.from < 4); i++ {
				if _, _, err := d.hand(t); err != nil && redoubt.KindOf(err) != redoubt.Corrupt {
					t.Fatal(err)
				}
			}
			var held, unread []redoubt.Stamp
			for _, b := range d.made {
				held, unread = append(held, b.Held["S"]...), append(unread, b.Unread["S"]...)
			}
			if d.from != 4 || !slices.Equal(held, d.stamps(0, 2, 3)) || !slices.Equal(unread, d.stamps(1)) {
				t.Errorf("raised are %v without %v, up to %d", held, unread, d.from)
			}
			if d.freed == 0 {
				t.Error("no memory was given back")
			}
			if with := d.p.withCare("high", 0); with {
				t.Error("the next one is to be made with care as well")
			}
		})
	}
}

// TestWhatIsLargerThanABundleIsLeftOutOfARaise, unread, to the byte: first or last of what there is, or among it, and nothing else is sent otherwise for it.
func TestWhatIsLargerThanABundleIsLeftOutOfARaise(t *testing.T) {
	const most = 100
	for _, sizes := range [][]int64{{10, most + 1, 30, 40}, {10, most, 30, 40}, {most + 1}, {most + 1, 10}, {10, most + 1}, {most + 1, most + 1, 10, most + 1}} {
		for _, whole := range []bool{false, true} {
			d := newDamaged(t, map[int]damage{}, sizes...)
			d.whole, d.p.one = whole, most
			var held, unread []redoubt.Stamp
			for i, n := range sizes {
				if n > most {
					d.bad[i] = damage{errors.New("it is read"), -1, 0}
					unread = append(unread, d.stamps(i)...)
				} else {
					held = append(held, d.stamps(i)...)
				}
			}
			tagged, _, err := d.hand(t)
			if err != nil || !tagged || d.from != uint64(len(sizes)) || len(d.made) != 1 {
				t.Fatalf("%v, whole %v: up to %d in %d bundles, tagged %v: %v", sizes, whole, d.from, len(d.made), tagged, err)
			}
			d.wants(t, held, unread)
		}
	}
}

// TestAVersionAtTheLimitGoesIntoABundle: what sealing and its pieces add has room beside it.
func TestAVersionAtTheLimitGoesIntoABundle(t *testing.T) {
	added := func(n int64) int64 {
		d := newDamaged(t, nil, n)
		_, size, err := d.hand(t)
		if err != nil {
			t.Fatal(err)
		}
		return int64(size) - n
	}
	large := int64(maxWholeBytes + 64<<20)
	bare, more := added(10), added(large)
	if all := bare + (more-bare)*(maxOne/large+1); all > bundle.MaxSealedBytes-maxOne-stagedInMemory {
		t.Errorf("%d bytes take %d more, so the largest version takes %d, where %d are spare", large, more, all, bundle.MaxSealedBytes-maxOne)
	}
}

// TestOnlyWhatIsDamagedIsLeftOut: what passes holds a raise up until it has, also in a bundle that is made with care.
func TestOnlyWhatIsDamagedIsLeftOut(t *testing.T) {
	for _, kind := range []redoubt.Kind{redoubt.Unavailable, redoubt.DiskFull, redoubt.NotFound, redoubt.Internal} {
		for _, at := range []int64{-1, 5} {
			d := newDamaged(t, map[int]damage{1: {&redoubt.Error{Kind: redoubt.Corrupt}, -1, 0}, 2: {&redoubt.Error{Kind: kind}, at, 0}}, 10, 20, 30)
			d.refused(t, redoubt.Corrupt)
			d.refused(t, kind)
			d.refused(t, kind)
			if len(d.made) > 0 || d.from > 0 {
				t.Fatalf("%v: %v was made", kind, d.made)
			}
			delete(d.bad, 2)
			if _, _, err := d.hand(t); err != nil {
				t.Fatal(err)
			}
			d.wants(t, d.stamps(0, 2), d.stamps(1))
		}
	}
}

// TestWhatReadsAtTheSecondLookIsNotLeftOut: a key or a place that changed while it was looked at.
func TestWhatReadsAtTheSecondLookIsNotLeftOut(t *testing.T) {
	d := newDamaged(t, map[int]damage{1: {&redoubt.Error{Kind: redoubt.Corrupt}, -1, 2}}, 10, 20, 30)
	d.refused(t, redoubt.Corrupt)
	if _, _, err := d.hand(t); err != nil {
		t.Fatal(err)
	}
	d.wants(t, d.stamps(0, 1, 2), nil)
}

// TestANumberIsGivenAgainWithoutWhatDoesNotRead, whatever else has its turn meanwhile.
func TestANumberIsGivenAgainWithoutWhatDoesNotRead(t *testing.T) {
	d := newDamaged(t, map[int]damage{1: {&redoubt.Error{Kind: redoubt.Corrupt}, 5, 0}}, 10, 20, 30, 40)
	d.again, d.from = d.stamps(0, 1, 2), 3
	again := func(serial uint64) error {
		_, err := d.p.HandAgain(t.Context(), redoubt.Credential{}, "high", redoubt.BundleMark{}, serial, new(bytes.Buffer))
		return err
	}
	for _, serial := range []uint64{5, 6} {
		if err := again(serial); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("bundle %d: %v", serial, err)
		}
	}
	if _, _, err := d.hand(t); err != nil { // what is new
		t.Fatal(err)
	}
	d.wants(t, d.stamps(3), nil)
	for _, serial := range []uint64{5, 6} {
		if err := again(serial); err != nil {
			t.Fatalf("bundle %d: %v", serial, err)
		}
		d.wants(t, d.stamps(0, 2), d.stamps(1))
	}
	if err := again(5); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("one that was made is made with care again: %v", err)
	}
}

// TestReadingWithCareEndsWithWhoAsks: a large version is read for as long as it takes, and no longer than it is wanted.
func TestReadingWithCareEndsWithWhoAsks(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	item := redoubt.JournalItem{Entry: redoubt.JournalEntry{SizeBytes: 1 << 40}, Open: func() (redoubt.Content, error) {
		return endless(func() {
			if n++; n == 3 {
				cancel()
			}
		}), nil
	}}
	if err := reads(ctx, &item); !errors.Is(err, context.Canceled) || n != 3 {
		t.Errorf("got %v after %d reads", err, n)
	}
}

// endless is content without an end that tells of each read.
type endless func()

func (e endless) Reader(int64, int64) io.Reader { return e }
func (e endless) Read(p []byte) (int, error)    { e(); return len(p), nil }
func (e endless) Close() error                  { return nil }

// retrying is a damaged node that left out something earlier.
type retrying struct {
	*damaged
	left  []redoubt.Stamp
	asked int
}

func (r *retrying) LeftOut(context.Context, redoubt.NodeName) (map[string][]redoubt.Stamp, error) {
	r.asked++
	return map[string][]redoubt.Stamp{"S": r.left}, nil
}

// TestWhatWasLeftOutIsTriedAgainByItself: once since the node began and then by the hour, without what is large, and once in a bundle.
func TestWhatWasLeftOutIsTriedAgainByItself(t *testing.T) {
	d := newDamaged(t, map[int]damage{0: {&redoubt.Error{Kind: redoubt.Corrupt}, -1, 0}}, 10, 20, maxRaiseBytes+1, maxRaiseBytes, 10, 10)
	r := &retrying{damaged: d, left: d.stamps(0, 1, 2, 3, 4)}
	d.p.o.Raises = r
	d.from = 4
	for i := 0; i < 4 && d.from < 6; i++ {
		if _, _, err := d.hand(t); err != nil {
			t.Fatal(err)
		}
	}
	var held []redoubt.Stamp
	for _, b := range d.made {
		if len(b.Unread) > 0 {
			t.Errorf("on record once more: %v", b.Unread)
		}
		held = append(held, b.Held["S"]...)
	}
	if !slices.Equal(held, d.stamps(1, 3, 4, 5)) || r.asked != 1 {
		t.Errorf("raised are %v, asked %d times", held, r.asked)
	}
	d.from = 4 // what it was left out of came to nothing: it is new as well
	d.p.replan("high", func(p *raisePlan) { p.retry = p.retry.Add(-raiseRetry) })
	r.left = d.stamps(1, 4)
	if _, _, err := d.hand(t); err != nil || r.asked != 2 {
		t.Fatalf("asked %d times: %v", r.asked, err)
	}
	d.wants(t, d.stamps(1, 4, 5), nil)
}

// TestATryThatFailsHoldsNothingUp: the next bundle is made without it.
func TestATryThatFailsHoldsNothingUp(t *testing.T) {
	d := newDamaged(t, map[int]damage{0: {&redoubt.Error{Kind: redoubt.NotFound}, -1, 0}}, 10, 20)
	d.p.o.Raises = &retrying{damaged: d, left: d.stamps(0)}
	d.from = 1
	d.refused(t, redoubt.NotFound)
	if _, _, err := d.hand(t); err != nil {
		t.Fatal(err)
	}
	d.wants(t, d.stamps(1), nil)
}
