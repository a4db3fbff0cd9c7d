package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/faketime"
)

func numbers(all ...uint64) (out []redoubt.NumberSpan) {
	for i := 0; i < len(all); i += 2 {
		out = append(out, redoubt.NumberSpan{From: all[i], To: all[i+1]})
	}
	return out
}

func TestGapsAreWhatIsLacking(t *testing.T) {
	at := func(serial uint64) redoubt.BundleMark {
		return redoubt.BundleMark{Numbering: [16]byte{1}, Serial: serial}
	}
	for _, one := range []struct {
		what      string
		was       []redoubt.NumberSpan
		last, now redoubt.BundleMark
		late      bool
		void      []uint64
		want      []redoubt.NumberSpan
	}{
		{"the first", nil, redoubt.BundleMark{}, at(1), false, nil, nil},
		{"the first that came", nil, redoubt.BundleMark{}, at(4), false, nil, numbers(1, 3)},
		{"the next", numbers(2, 3), at(5), at(6), false, nil, numbers(2, 3)},
		{"one beyond", nil, at(5), at(7), false, nil, numbers(6, 6)},
		{"some beyond", numbers(2, 3), at(5), at(9), false, nil, numbers(2, 3, 6, 8)},
		{"void in the middle", nil, at(5), at(9), false, []uint64{7}, numbers(6, 6, 8, 8)},
		{"all void", nil, at(5), at(9), false, []uint64{8, 6, 7}, nil},
		{"an older one void", numbers(2, 4), at(5), at(6), false, []uint64{3}, numbers(2, 2, 4, 4)},
		{"void that was taken", numbers(2, 3), at(5), at(6), false, []uint64{1, 5, 6, 9}, numbers(2, 3)},
		{"a late one", numbers(2, 4), at(9), at(3), true, nil, numbers(2, 2, 4, 4)},
		{"a late one at the edge", numbers(2, 4), at(9), at(2), true, nil, numbers(3, 4)},
		{"void before a late one", numbers(2, 4), at(9), at(4), true, []uint64{3}, numbers(2, 2)},
		{"void behind itself, as of another numbering", numbers(2, 4), at(9), at(2), true, []uint64{2, 3, 4}, numbers(3, 4)},
		{"another numbering", numbers(2, 4), at(9), redoubt.BundleMark{Numbering: [16]byte{2}, Serial: 1}, false, nil, nil},
		{"another numbering later", numbers(2, 4), at(9), redoubt.BundleMark{Numbering: [16]byte{2}, Serial: 3}, false, []uint64{1}, numbers(2, 2)},
	} {
		m := &importer{void: one.void}
		was := slices.Clone(one.was)
		if got := m.gaps(was, one.last, one.now, one.late); !slices.Equal(got, one.want) {
			t.Errorf("%s: got %v, want %v", one.what, got, one.want)
		}
	}
}

// TestTooManyGapsAreOneWithTheOldest: at the limit each is kept, and one more joins two, so that none is forgotten.
func TestTooManyGapsAreOneWithTheOldest(t *testing.T) {
	var was []redoubt.NumberSpan
	for i := range uint64(redoubt.MaxRaiseGaps - 1) {
		was = append(was, redoubt.NumberSpan{From: 10 * (i + 1), To: 10*(i+1) + 1})
	}
	last := redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 10 * redoubt.MaxRaiseGaps}
	now := last
	m := &importer{}
	now.Serial += 2
	full := m.gaps(was, last, now, false)
	if len(full) != redoubt.MaxRaiseGaps || full[0] != was[0] {
		t.Errorf("%d gaps from %v on", len(full), full[0])
	}
	last, now.Serial = now, now.Serial+2
	more := m.gaps(full, last, now, false)
	if len(more) != redoubt.MaxRaiseGaps || more[0] != (redoubt.NumberSpan{From: 10, To: 21}) || more[len(more)-1].To != now.Serial-1 {
		t.Errorf("%d gaps from %v to %v", len(more), more[0], more[len(more)-1])
	}
}

func TestVoidNumbersTravelAsTheyAre(t *testing.T) {
	for _, all := range [][]uint64{nil, {1}, {3, 1 << 63, 0}} {
		got, err := decodeVoid(encodeVoid(all))
		if err != nil || !slices.Equal(got, all) {
			t.Errorf("got %v, %v, want %v", got, err, all)
		}
	}
	for _, n := range []int{maxVoid, maxVoid + 1} {
		many := make([]uint64, n)
		for i := range many {
			many[i] = uint64(i)
		}
		body := encodeVoid(many)
		if got, err := decodeVoid(body); err != nil || len(body) > MaxNoteBytes || len(got) != maxVoid || got[len(got)-1] != many[n-1] {
			t.Errorf("of %d the newest %d travel in %d bytes, %v", n, len(got), len(body), err)
		}
	}
	if redoubt.MaxRaiseGaps > maxVoid {
		t.Error("more numbers are kept than a note holds")
	}
	if _, err := decodeVoid(make([]byte, 9)); err == nil {
		t.Error("half a number is read")
	}
}

// raising is a bare node with a link that is the end of a raise.
type raising struct {
	*bare
	link  redoubt.Link
	fails redoubt.Kind // of each entry, for later
}

func (r *raising) Permit(context.Context, redoubt.Credential, redoubt.Action, redoubt.NodeName) (redoubt.Link, error) {
	l, _ := r.bare.Permit(context.Background(), redoubt.Credential{}, "", "")
	l.Raise = r.link.Raise
	return l, nil
}

func (r *raising) Apply(_ context.Context, _ redoubt.NodeName, in []redoubt.Received) ([]redoubt.Refusal, error) {
	return []redoubt.Refusal{{Stamp: in[0].Entry.Stamp, Kind: r.fails, Rule: "r", Later: true}}, nil
}

// TestOnlyWhatMayPassByItselfHoldsABundleUp: a share, a disk. What else cannot be taken is counted, and the bundle is done with.
func TestOnlyWhatMayPassByItselfHoldsABundleUp(t *testing.T) {
	for kind, held := range map[redoubt.Kind]bool{redoubt.QuotaExceeded: true, redoubt.DiskFull: true, redoubt.Unavailable: true, redoubt.NoBucket: false, redoubt.Denied: false} {
		for _, raised := range []bool{true, false} { // a stick that is brought anyway is another matter
			p := newPost(t)
			p.o.Journal = &raising{bare: p.node, fails: kind}
			m := &importer{b: p.Bundles, peer: "secret", counts: newCounts(), broken: map[string]bool{}, whole: raised}
			err := m.apply(t.Context(), "S", []redoubt.Received{{}})
			if want := held && raised; want != errors.Is(err, kind) || want != (err != nil) || !want && m.counts.of("S").Waiting != 1 {
				t.Errorf("%v, raised %v: %v", kind, raised, err)
			}
		}
	}
}

func TestARaiseIsTakenAtItsHigherEndAndHandedAtItsLower(t *testing.T) {
	content := framed(testManifest, []byte{msgEnd})
	for end, takes := range map[redoubt.Raise]bool{redoubt.NoRaise: false, redoubt.RaisedAway: false, redoubt.RaisedHere: true} {
		p := newPost(t)
		r := &raising{bare: p.node, link: redoubt.Link{Raise: end}}
		p.o.Ledger = r
		_, err := p.TakeRaise(t.Context(), redoubt.Credential{}, bytes.NewReader(p.wrap(t, bundle.Journal, content)))
		if takes != (err == nil) || !takes && !errors.Is(err, redoubt.Denied) {
			t.Errorf("end %d takes: %v", end, err)
		}
		if _, err := p.HandRaise(t.Context(), redoubt.Credential{}, "high", redoubt.BundleMark{}, io.Discard); !errors.Is(err, redoubt.Denied) {
			t.Errorf("end %d, which keeps no record of it, hands over: %v", end, err)
		}
	}
}

// TestWhatComesDuringARaiseGoesInOneBundle: the next one waits a little, but where more was waiting than went into the last.
func TestWhatComesDuringARaiseGoesInOneBundle(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := NewBundles(BundleOptions{})
		wait := func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			err := b.gatherRaise(ctx, "high")
			return time.Since(began), err
		}
		if d, err := wait(t.Context()); d != 0 || err != nil {
			t.Errorf("the first waited %v, %v", d, err)
		}
		b.handedOver("high", false, false, "")
		ended, end := context.WithTimeout(t.Context(), raiseGather/2)
		defer end()
		if d, err := wait(ended); d != raiseGather/2 || redoubt.KindOf(err) != redoubt.NotModified {
			t.Errorf("one that is given up waited %v, %v", d, err)
		}
		if d, err := wait(t.Context()); d != raiseGather/2 || err != nil {
			t.Errorf("the next waited %v more, %v", d, err)
		}
		b.handedOver("high", false, true, "")
		if d, err := wait(t.Context()); d != 0 || err != nil {
			t.Errorf("behind a full one the next waited %v, %v", d, err)
		}
		b.handedOver("other", false, false, "")
		if d, _ := wait(t.Context()); d != 0 {
			t.Errorf("it waited %v for another's", d)
		}
	})
}

// TestALittleIsHeldInMemoryWhileItIsImported, and what is more, or comes while others are, goes to the disk: so many callers take no more memory.
func TestALittleIsHeldInMemoryWhileItIsImported(t *testing.T) {
	b := NewBundles(BundleOptions{Stage: t.TempDir()})
	ctx := t.Context()
	stage := func(size int64) (inMemory bool, end func()) {
		t.Helper()
		head := []byte("head")
		at, n, end, err := b.stage(ctx, head, io.LimitReader(zeros{}, size))
		if err != nil || n != size+int64(len(head)) {
			t.Fatalf("%d bytes are staged as %d, %v", size, n, err)
		}
		if got := make([]byte, 4); size < 1<<20 {
			if _, err := at.ReadAt(got, 0); err != nil || string(got) != "head" {
				t.Errorf("it begins with %q, %v", got, err)
			}
		}
		_, inMemory = at.(*bytes.Reader)
		return inMemory, end
	}
	for size, want := range map[int64]bool{10: true, stagedInMemory: true, stagedInMemory + 1: false} {
		in, end := stage(size)
		if end(); in != want {
			t.Errorf("%d bytes are in memory: %v", size, in)
		}
	}
	var ends []func()
	for i := range stagedAtOnce + 1 {
		in, end := stage(10)
		if ends = append(ends, end); in != (i < stagedAtOnce) {
			t.Errorf("of what is imported at once number %d is in memory: %v", i+1, in)
		}
	}
	for _, end := range ends {
		end()
	}
	if _, _, _, err := b.stage(ctx, nil, iotest.ErrReader(errors.New("the line broke"))); err == nil {
		t.Error("half a bundle is staged")
	}
	if in, end := stage(10); !in {
		t.Error("what failed keeps its place")
	} else {
		end()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
