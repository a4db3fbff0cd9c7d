package replica

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"redoubt"
	"redoubt/bundle"
)

// handing is a node that hands one thing over after the other to "high".
type handing struct {
	*bare
	p       *post
	refs    []redoubt.JournalRef
	entries func(s redoubt.Stamp) redoubt.JournalItem
	from    uint64 // what was handed over
}

func (h *handing) Permit(context.Context, redoubt.Credential, redoubt.Action, redoubt.NodeName) (redoubt.Link, error) {
	return redoubt.Link{Raise: redoubt.RaisedAway, Recipient: h.p.id.Recipient().String()}, nil
}
func (h *handing) Sets(context.Context, redoubt.NodeName) ([]string, error) {
	return []string{"S"}, nil
}
func (h *handing) Changed() <-chan struct{} { return nil }
func (h *handing) Since(_ context.Context, _ redoubt.NodeName, _ string, after uint64, max int) ([]redoubt.JournalRef, uint64, error) {
	left := h.refs[after:]
	left = left[:min(max, len(left))]
	return left, after + uint64(len(left)), nil
}
func (h *handing) Acknowledged(context.Context, redoubt.NodeName, string) (uint64, bool, error) {
	return h.from, true, nil
}
func (h *handing) Fetch(_ context.Context, _ redoubt.NodeName, _ string, stamps []redoubt.Stamp) (out []redoubt.JournalItem, _ error) {
	for _, s := range stamps {
		out = append(out, h.entries(s))
	}
	return out, nil
}
func (h *handing) Made(context.Context, redoubt.NodeName) (redoubt.BundleMark, error) {
	return redoubt.BundleMark{Numbering: [16]byte{1}}, nil
}
func (h *handing) Handed(context.Context, redoubt.NodeName, redoubt.BundleMark) ([]uint64, error) {
	return nil, nil
}
func (h *handing) Begun(context.Context, redoubt.NodeName) (map[string]redoubt.JournalSpan, error) {
	return nil, nil
}
func (h *handing) Passed(context.Context, redoubt.NodeName, redoubt.JournalSpan) error { return nil }
func (h *handing) LeftOut(context.Context, redoubt.NodeName) (map[string][]redoubt.Stamp, error) {
	return nil, nil
}
func (h *handing) Awaits(context.Context, redoubt.NodeName) (uint64, bool, error) {
	return 0, false, nil
}
func (h *handing) HandOver(_ context.Context, _ redoubt.Credential, _ redoubt.NodeName, _ redoubt.BundleMark, b redoubt.RaisedBundle) error {
	h.from = b.Spans[0].To
	return nil
}
func (h *handing) HandedOver(context.Context, redoubt.NodeName, uint64) (b redoubt.RaisedBundle, err error) {
	return b, redoubt.NotFound
}

// newHanding is one of which each entry has so much content, and metadata beside it that the sizes say nothing of.
func newHanding(t *testing.T, beside int, sizes ...int64) *handing {
	h := &handing{p: newPost(t)}
	h.bare = h.p.node
	for i, n := range sizes {
		h.refs = append(h.refs, redoubt.JournalRef{Position: uint64(i + 1), Stamp: redoubt.Stamp{byte(i >> 8), byte(i), 1}, SizeBytes: n})
	}
	h.entries = func(s redoubt.Stamp) redoubt.JournalItem {
		n := sizes[int(s[0])<<8|int(s[1])]
		e := redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: s, Label: "S", Made: "S", Maker: "outpost", SizeBytes: n,
			Name: redoubt.ObjectName{Bucket: "reports", Key: "k"}, Attributes: redoubt.Attributes{Meta: map[string]string{"m": string(make([]byte, beside))}}}
		return redoubt.JournalItem{Entry: e, Open: func() (redoubt.Content, error) { return body(lentContent(s[1], int(n))), nil }}
	}
	o := &h.p.o
	o.Journal, o.State, o.Ledger, o.Raises, o.Sign = h, h, h, h, func(m []byte) ([]byte, error) { return make([]byte, 64), nil }
	return h
}

// hand is the next bundle's form and size.
func (h *handing) hand(t *testing.T) (tagged bool, size int, err error) {
	t.Helper()
	var file bytes.Buffer
	h.p.handedOver("high", false, true, h.p.planned("high").first) // the next follows at once
	if _, err = h.p.HandRaise(t.Context(), redoubt.Credential{}, "high", redoubt.BundleMark{}, &file); err != nil {
		return false, 0, err
	}
	s, err := bundle.Inspect(bytes.NewReader(file.Bytes()), int64(file.Len()))
	return s.Tagged, file.Len(), err
}

// TestTheFormOfARaiseFollowsFromItsFirstVersion, to the byte; no tagged one is longer than goes into memory where it is taken.
func TestTheFormOfARaiseFollowsFromItsFirstVersion(t *testing.T) {
	begins := int64(4 + len((&manifest{Life: [16]byte{2}}).encode()))
	for _, c := range []struct {
		sizes []int64
		want  []bool
	}{
		{[]int64{10}, []bool{true}},
		{[]int64{maxTagged - begins}, []bool{true}},
		{[]int64{maxTagged - begins + 1}, []bool{false}},
		{[]int64{10, maxTagged, 10}, []bool{true, false, true}},
		{[]int64{15 << 20, 7 << 20, 10}, []bool{true, true}},
		{[]int64{15 << 20, 9 << 20, 10}, []bool{true, true}},
		{[]int64{maxTagged, maxTagged}, []bool{false, false}},
	} {
		h := newHanding(t, 0, c.sizes...)
		for i := 0; h.from < uint64(len(c.sizes)); i++ {
			tagged, size, err := h.hand(t)
			if err != nil {
				t.Fatal(err)
			}
			if i >= len(c.want) || tagged != c.want[i] || tagged && size > stagedInMemory {
				t.Errorf("of versions of %v the bundle %d is tagged: %v, %d bytes", c.sizes, i+1, tagged, size)
			}
		}
	}
}

// busy is one with another label set besides, in which something is new whenever it is looked at.
type busy struct{ *handing }

func (busy) Sets(context.Context, redoubt.NodeName) ([]string, error) {
	return []string{"A", "S", "T"}, nil
}
func (b busy) Acknowledged(ctx context.Context, peer redoubt.NodeName, set string) (uint64, bool, error) {
	if set == "S" {
		return b.handing.Acknowledged(ctx, peer, set)
	}
	return 0, true, nil
}
func (b busy) Since(ctx context.Context, peer redoubt.NodeName, set string, after uint64, max int) ([]redoubt.JournalRef, uint64, error) {
	if set == "S" {
		return b.handing.Since(ctx, peer, set, after, max)
	}
	return []redoubt.JournalRef{{Position: after + 1, Stamp: redoubt.Stamp{2: 1}, SizeBytes: 10}}[min(after, 1):], after + 1, nil
}
func (b busy) Fetch(ctx context.Context, peer redoubt.NodeName, set string, stamps []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	if set == "S" {
		return b.handing.Fetch(ctx, peer, set, stamps)
	}
	item := b.entries(redoubt.Stamp{2: 1})
	item.Entry.SizeBytes, item.Open = 10, func() (redoubt.Content, error) { return body(lentContent(1, 10)), nil }
	return []redoubt.JournalItem{item}, nil
}
func (b busy) HandOver(_ context.Context, _ redoubt.Credential, _ redoubt.NodeName, _ redoubt.BundleMark, of redoubt.RaisedBundle) error {
	for _, s := range of.Spans {
		if s.Set == "S" {
			b.from = s.To
		}
	}
	return nil
}

// TestALargeVersionHasItsTurnBesideASetThatIsNeverAtRest: it begins the next bundle, whatever is new at another label.
func TestALargeVersionHasItsTurnBesideASetThatIsNeverAtRest(t *testing.T) {
	h := newHanding(t, 0, 10, maxTagged+1, maxTagged-1000, 10)
	b, o := busy{h}, &h.p.o
	o.Journal, o.State, o.Ledger, o.Raises = b, b, b, b
	var got []bool
	for range 4 {
		tagged, _, err := h.hand(t)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tagged)
	}
	if h.from != 4 || !slices.Equal(got, []bool{true, false, true, true}) {
		t.Errorf("%d were handed over; the bundles are tagged: %v", h.from, got)
	}
}

// TestWhatATaggedBundleCannotHoldGoesInOneOfTheOtherForm: entries may say more beside their content than their sizes tell, and a raise does not stand for it.
func TestWhatATaggedBundleCannotHoldGoesInOneOfTheOtherForm(t *testing.T) {
	h := newHanding(t, 100_000, make([]int64, 400)...)
	if _, _, err := h.hand(t); !errors.Is(err, redoubt.TooLarge) {
		t.Fatalf("the first: %v", err)
	}
	tagged, size, err := h.hand(t)
	if tagged || size <= bundle.MaxTaggedBytes || err != nil || h.from != 400 {
		t.Errorf("the next is tagged %v, %d bytes, %v; %d were handed over", tagged, size, err, h.from)
	}
	h.from = 399
	if tagged, _, err := h.hand(t); !tagged || err != nil {
		t.Errorf("the one behind it is tagged %v, %v", tagged, err)
	}
}

// TestATaggedBundleIsTakenOfARaiseAndOfAPartnerAlone: not as a file that a person brings.
func TestATaggedBundleIsTakenOfARaiseAndOfAPartnerAlone(t *testing.T) {
	content := framed(testManifest, []byte{msgEnd})
	take := func(by func(*post, *bytes.Reader) error) error {
		p := newPost(t)
		p.o.Ledger = &raising{bare: p.node, link: redoubt.Link{Raise: redoubt.RaisedHere}}
		return by(p, bytes.NewReader(p.wrapAs(t, true, bundle.Journal, content)))
	}
	if err := take(func(p *post, r *bytes.Reader) error {
		_, err := p.TakeRaise(t.Context(), redoubt.Credential{}, r)
		return err
	}); err != nil {
		t.Errorf("of a raise: %v", err)
	}
	if err := take(func(p *post, r *bytes.Reader) error { _, err := p.TakePartner(t.Context(), r); return err }); err != nil {
		t.Errorf("of a partner: %v", err)
	}
	err := take(func(p *post, r *bytes.Reader) error {
		_, err := p.ImportBundle(t.Context(), redoubt.Credential{}, r, nil)
		return err
	})
	if e, ok := errors.AsType[*redoubt.Error](err); !ok || e.Rule != bundle.RuleFormat {
		t.Errorf("of a person: %v", err)
	}
}
