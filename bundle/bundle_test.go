package bundle_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
)

var made = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// maker signs, and a recipient opens.
type world struct {
	key ed25519.PrivateKey
	ids []*keys.Identity
}

func newWorld(t testing.TB, recipients int) *world {
	t.Helper()
	w := &world{key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	for range recipients {
		id, err := keys.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		w.ids = append(w.ids, id)
	}
	return w
}

func (w *world) head() bundle.Head {
	h := bundle.Head{Kind: bundle.Journal, Estate: "example", Maker: "secret", Created: made, Expires: made.Add(24 * time.Hour)}
	for i := range w.ids {
		h.To = append(h.To, bundle.Addressee{Node: redoubt.NodeName(fmt.Sprintf("node-%d", i)), Numbering: [16]byte{1}, Serial: 1})
	}
	return h
}

func (w *world) sign(message []byte) ([]byte, error) { return ed25519.Sign(w.key, message), nil }

func (w *world) make(t testing.TB, h bundle.Head, content []byte) []byte {
	t.Helper()
	var to []keys.Recipient
	for _, id := range w.ids {
		to = append(to, id.Recipient())
	}
	var file bytes.Buffer
	b, err := bundle.NewWriter(&file, h, to, w.sign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(nil); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func (w *world) expect() bundle.Expect {
	return bundle.Expect{Estate: "example", Node: "node-0", Now: made.Add(time.Hour), Tagged: true,
		Key: func(redoubt.NodeName) (ed25519.PublicKey, error) { return w.key.Public().(ed25519.PublicKey), nil }}
}

func (w *world) verify(file []byte) (*bundle.Bundle, error) {
	return bundle.Verify(context.Background(), bytes.NewReader(file), int64(len(file)), w.expect(), nil)
}

func wantRule(t *testing.T, err error, kind redoubt.Kind, rule string) {
	t.Helper()
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Rule != rule || redoubt.KindOf(err) != kind {
		t.Errorf("got %v, want %v by %q", err, kind, rule)
	}
}

func TestEachRecipientOpensWhatWasSealedAndNobodyElse(t *testing.T) {
	w := newWorld(t, 3)
	content := bytes.Repeat([]byte("content "), 1_200_000) // three leaves
	file := w.make(t, w.head(), content)
	b, err := w.verify(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range w.ids {
		r, err := b.Open(id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("recipient %d: %d bytes, %v", i, len(got), err)
		}
	}
	stranger, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Open(stranger)
	wantRule(t, err, redoubt.Denied, bundle.RuleSealed)
}

func TestAMediumThatChangesAfterItWasVerifiedGainsNothing(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.head(), make([]byte, 9<<20))
	medium := io.NewSectionReader(bytes.NewReader(file), 0, int64(len(file))) // which may change, unlike memory
	b, err := bundle.Verify(context.Background(), medium, medium.Size(), w.expect(), nil)
	if err != nil {
		t.Fatal(err)
	}
	file[8<<20] ^= 1
	r, err := b.Open(w.ids[0])
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	wantRule(t, err, redoubt.Corrupt, "")
	if !strings.Contains(err.Error(), "changed after it was verified") || n > 8<<20 {
		t.Errorf("%d bytes came before %v", n, err)
	}
}

func TestAnotherMakersHeadDoesNotGoBeforeSealedContent(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.head(), []byte("content"))
	thief := newWorld(t, 0)
	thief.ids, thief.key = w.ids, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	// The thief has what is sealed go behind a head of its own, and signs that.
	h := w.head()
	h.Maker = "thief"
	stolen := resign(t, thief, h, file, w.head())
	x := w.expect()
	x.Key = func(redoubt.NodeName) (ed25519.PublicKey, error) { return thief.key.Public().(ed25519.PublicKey), nil }
	b, err := bundle.Verify(context.Background(), bytes.NewReader(stolen), int64(len(stolen)), x, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Open(w.ids[0])
	wantRule(t, err, redoubt.Denied, bundle.RuleSealed)
}

// resign puts the sealed content of file behind another head.
func resign(t *testing.T, w *world, h bundle.Head, file []byte, was bundle.Head) []byte {
	t.Helper()
	before, err := bundle.EncodeHead(was)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.EncodeHead(h)
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Sign(head, file[len(before):len(file)-bundle.TrailerLen], w.key)
}

func TestABundleIsForItsRecipientsInItsTime(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.head(), []byte("content"))
	for _, c := range []struct {
		name   string
		change func(*bundle.Expect)
		kind   redoubt.Kind
		rule   string
	}{
		{"another estate", func(x *bundle.Expect) { x.Estate = "other" }, redoubt.Denied, bundle.RuleEstate},
		{"another node", func(x *bundle.Expect) { x.Node = "node-1" }, redoubt.Denied, bundle.RuleRecipient},
		{"no node", func(x *bundle.Expect) { x.Node = "" }, redoubt.Denied, bundle.RuleRecipient},
		{"no link", func(x *bundle.Expect) {
			x.Key = func(redoubt.NodeName) (ed25519.PublicKey, error) { return nil, redoubt.NotFound }
		}, redoubt.Denied, bundle.RuleMaker},
		{"a link without a key", func(x *bundle.Expect) {
			x.Key = func(redoubt.NodeName) (ed25519.PublicKey, error) { return nil, nil }
		}, redoubt.Denied, bundle.RuleMaker},
		{"no time", func(x *bundle.Expect) { x.Now = time.Time{} }, redoubt.Unavailable, bundle.RuleAhead},
		{"before it was made", func(x *bundle.Expect) { x.Now = made.Add(-bundle.MaxAhead - time.Second) }, redoubt.Unavailable, bundle.RuleAhead},
		{"as it expires", func(x *bundle.Expect) { x.Now = made.Add(24 * time.Hour) }, redoubt.Expired, bundle.RuleExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := w.expect()
			c.change(&x)
			_, err := bundle.Verify(context.Background(), bytes.NewReader(file), int64(len(file)), x, nil)
			wantRule(t, err, c.kind, c.rule)
		})
	}
	for _, at := range []time.Time{made.Add(-bundle.MaxAhead), made.Add(24*time.Hour - time.Nanosecond)} {
		x := w.expect()
		x.Now = at
		if _, err := bundle.Verify(context.Background(), bytes.NewReader(file), int64(len(file)), x, nil); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
	}
}

func TestNoByteOfABundleMayBeAnother(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.head(), []byte("content"))
	if _, err := w.verify(file); err != nil {
		t.Fatal(err)
	}
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if _, err := w.verify(bad); err == nil {
			t.Errorf("a bundle with another byte %d was taken", i)
		}
		if _, err := w.verify(file[:i]); err == nil {
			t.Errorf("the first %d bytes of a bundle were taken", i)
		}
	}
}

func TestAHeadSaysOnlyWhatItMay(t *testing.T) {
	w := newWorld(t, 1)
	for name, change := range map[string]func(*bundle.Head){
		"no kind":                func(h *bundle.Head) { h.Kind = 0 },
		"an unknown kind":        func(h *bundle.Head) { h.Kind = 3 },
		"no estate":              func(h *bundle.Head) { h.Estate = "" },
		"a marking for a name":   func(h *bundle.Head) { h.Maker = "TOP SECRET" },
		"a name of 64":           func(h *bundle.Head) { h.Maker = redoubt.NodeName(strings.Repeat("a", 64)) },
		"no recipient":           func(h *bundle.Head) { h.To = nil },
		"itself":                 func(h *bundle.Head) { h.To[0].Node = h.Maker },
		"one twice":              func(h *bundle.Head) { h.To = append(h.To, h.To[0]) },
		"too many":               func(h *bundle.Head) { h.To = make([]bundle.Addressee, bundle.MaxRecipients+1) },
		"no numbering":           func(h *bundle.Head) { h.To[0].Numbering = [16]byte{} },
		"no number":              func(h *bundle.Head) { h.To[0].Serial = 0 },
		"none before the second": func(h *bundle.Head) { h.To[0].Serial = 2 },
		"one before the first":   func(h *bundle.Head) { h.To[0].Previous[0] = 1 },
		"no end":                 func(h *bundle.Head) { h.Expires = h.Created },
		"two years and a second": func(h *bundle.Head) { h.Expires = h.Created.Add(bundle.MaxLife + time.Second) },
		"no time":                func(h *bundle.Head) { h.Created = time.Time{} },
		"a tagged receipt":       func(h *bundle.Head) { h.Tagged, h.Kind, h.To[0].Serial = true, bundle.Receipt, 0 },
		"two of a tagged one": func(h *bundle.Head) {
			h.Tagged, h.To = true, append(h.To, bundle.Addressee{Node: "node-1", Numbering: [16]byte{1}, Serial: 1})
		},
	} {
		h := w.head()
		change(&h)
		if _, err := bundle.EncodeHead(h); redoubt.KindOf(err) != redoubt.Invalid {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	h := w.head()
	h.Maker, h.Expires = redoubt.NodeName(strings.Repeat("a", 63)), h.Created.Add(bundle.MaxLife)
	h.To = nil
	for i := range bundle.MaxRecipients {
		h.To = append(h.To, bundle.Addressee{Node: redoubt.NodeName(fmt.Sprintf("%063d", i)), Numbering: [16]byte{1}, Serial: 1})
	}
	raw, err := bundle.EncodeHead(h)
	if err != nil {
		t.Fatal(err)
	}
	got, again, err := bundle.ReadHead(bytes.NewReader(raw))
	if err != nil || !bytes.Equal(raw, again) || len(got.To) != bundle.MaxRecipients || got.To[15] != h.To[15] {
		t.Errorf("the largest head: %+v, %v", got, err)
	}
}

func TestNumbersTellWhatWasLostAndWhatIsOld(t *testing.T) {
	w := newWorld(t, 1)
	at := func(serial uint64, numbering, previous, id byte, created int) *bundle.Bundle {
		h := w.head()
		h.Created = made.Add(time.Duration(created) * time.Second)
		h.To[0] = bundle.Addressee{Node: "node-0", Numbering: [16]byte{numbering}, Serial: serial, Previous: [32]byte{previous}}
		return &bundle.Bundle{Sheet: bundle.Sheet{Head: h, ID: [32]byte{id}}}
	}
	mark := func(b *bundle.Bundle) redoubt.BundleMark { return b.Mark("node-0") }
	three := at(3, 1, 2, 30, 30)
	for _, c := range []struct {
		name    string
		b       *bundle.Bundle
		last    redoubt.BundleMark
		missing uint64
		kind    redoubt.Kind
		rule    string
	}{
		{"the first", at(1, 1, 0, 10, 10), redoubt.BundleMark{}, 0, 0, ""},
		{"the third as the first", three, redoubt.BundleMark{}, 2, 0, ""},
		{"the next", at(4, 1, 30, 40, 40), mark(three), 0, 0, ""},
		{"the next but two", at(6, 1, 50, 60, 60), mark(three), 2, 0, ""},
		{"the same", three, mark(three), 0, redoubt.Exists, bundle.RuleReplayed},
		{"an older one", at(2, 1, 10, 20, 20), mark(three), 0, redoubt.Conflict, bundle.RuleReordered},
		{"a twin", at(3, 1, 2, 31, 31), mark(three), 0, redoubt.Conflict, bundle.RuleChain},
		{"a twin's next", at(4, 1, 31, 41, 41), mark(three), 0, redoubt.Conflict, bundle.RuleChain},
		{"a new numbering", at(1, 2, 0, 11, 31), mark(three), 0, 0, ""},
		{"a new numbering's second", at(2, 2, 11, 21, 31), mark(three), 1, 0, ""},
		{"an ended numbering", at(1, 9, 0, 11, 29), mark(three), 0, redoubt.Conflict, bundle.RuleReplayed},
	} {
		t.Run(c.name, func(t *testing.T) {
			missing, err := c.b.Follows("node-0", c.last)
			if c.rule == "" && err != nil || missing != c.missing {
				t.Errorf("%d missing, %v; want %d", missing, err, c.missing)
			}
			if c.rule != "" {
				wantRule(t, err, c.kind, c.rule)
			}
		})
	}
	if _, err := three.Follows("node-1", redoubt.BundleMark{}); redoubt.KindOf(err) != redoubt.Denied {
		t.Errorf("at another node: %v", err)
	}
}

func TestWhatIsNotFinishedIsNoBundle(t *testing.T) {
	w := newWorld(t, 1)
	gone := errors.New("gone")
	var file bytes.Buffer
	b, err := bundle.NewWriter(&file, w.head(), []keys.Recipient{w.ids[0].Recipient()}, w.sign)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(func([32]byte) error { return gone }); err != gone {
		t.Errorf("a number that is not kept: %v", err)
	}
	if _, err := w.verify(file.Bytes()); err == nil {
		t.Error("a bundle whose number was not kept is taken")
	}
	if _, err := b.Write([]byte("more")); err == nil {
		t.Error("a finished bundle takes content")
	}
	for name, to := range map[string][]keys.Recipient{"no key": nil, "an empty key": {{}}} {
		if _, err := bundle.NewWriter(io.Discard, w.head(), to, w.sign); redoubt.KindOf(err) != redoubt.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
