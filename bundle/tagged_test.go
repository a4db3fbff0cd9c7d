package bundle_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"slices"
	"testing"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
)

// What is sealed to one recipient: its block, then chunks.
const (
	blockBytes = 10 + 16 + 1665 + 48
	chunkBytes = 64<<10 + 28
)

func (w *world) tagged() bundle.Head {
	h := w.head()
	h.Tagged = true
	return h
}

// opens verifies and opens a file, and gives what came out of it.
func (w *world) opens(file []byte) ([]byte, error) {
	b, err := w.verify(file)
	if err != nil {
		return nil, err
	}
	r, err := b.Open(w.ids[0])
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func headLen(t *testing.T, h bundle.Head) int {
	t.Helper()
	head, err := bundle.EncodeHead(h)
	if err != nil {
		t.Fatal(err)
	}
	return len(head)
}

func TestATaggedBundleIsOpenedByItsRecipientAlone(t *testing.T) {
	w := newWorld(t, 1)
	for _, n := range []int{0, 7, 64<<10 - 32, 64<<10 - 31, 5_000_000} {
		content := bytes.Repeat([]byte("content."), n/8+1)[:n]
		file := w.make(t, w.tagged(), content)
		if got, err := w.opens(file); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: %d, %v", n, len(got), err)
		}
	}
	b, err := w.verify(w.make(t, w.tagged(), []byte("content")))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Open(newWorld(t, 1).ids[0])
	wantRule(t, err, redoubt.Denied, bundle.RuleSealed)
}

// TestATaggedBundleIsTakenWhereItIsExpected and nowhere else, under whatever format it says it has.
func TestATaggedBundleIsTakenWhereItIsExpected(t *testing.T) {
	w := newWorld(t, 1)
	file, plain := w.make(t, w.tagged(), []byte("content")), w.make(t, w.head(), []byte("content"))
	x := w.expect()
	x.Tagged = false
	verify := func(file []byte) error {
		_, err := bundle.Verify(context.Background(), bytes.NewReader(file), int64(len(file)), x, nil)
		return err
	}
	wantRule(t, verify(file), redoubt.Invalid, bundle.RuleFormat)
	if err := verify(plain); err != nil {
		t.Errorf("one of the first format: %v", err)
	}
	for name, change := range map[string]struct {
		file   []byte
		format byte
	}{"tagged as plain": {file, 1}, "plain as tagged": {plain, 2}} {
		bad := bytes.Clone(change.file)
		bad[9] = change.format
		if _, err := w.verify(bad); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoByteOfATaggedBundleMayBeAnother(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.tagged(), []byte("content"))
	if _, err := w.opens(file); err != nil {
		t.Fatal(err)
	}
	start := headLen(t, w.tagged()) + blockBytes
	ciphertext := func(i int) bool { return i >= start+12 && i < len(file)-bundle.TrailerLen-16 }
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if b, err := w.verify(bad); (err == nil) != ciphertext(i) {
			t.Errorf("with another byte %d, which is ciphertext %v, it is verified: %v", i, ciphertext(i), err)
		} else if err == nil {
			_, err := b.Open(w.ids[0])
			wantRule(t, err, redoubt.Denied, bundle.RuleDamaged)
		}
		if _, err := w.verify(file[:i]); err == nil {
			t.Errorf("the first %d bytes of a bundle were taken", i)
		}
	}
}

// TestWhatIsSealedInATaggedBundleIsNotExchanged: by whoever does not sign. Each file has all that is in another one's place right, as far as can be.
func TestWhatIsSealedInATaggedBundleIsNotExchanged(t *testing.T) {
	w := newWorld(t, 1)
	content := bytes.Repeat([]byte("content "), 40_000) // five chunks
	file, other := w.make(t, w.tagged(), content), w.make(t, w.tagged(), content)
	at, end := headLen(t, w.tagged()), len(file)-bundle.TrailerLen
	head, sealed, trailer := file[:at], file[at:end], file[end:]
	block, chunks := sealed[:blockBytes], slices.Collect(slices.Chunk(sealed[blockBytes:], chunkBytes))
	join := func(block []byte, chunks ...[]byte) []byte {
		return slices.Concat(head, block, slices.Concat(chunks...), trailer)
	}
	if !bytes.Equal(join(block, chunks...), file) || len(chunks) != 5 {
		t.Fatal("the file is put together otherwise")
	}
	theirs := other[at+blockBytes:]
	mixed := bytes.Clone(chunks[1]) // another ciphertext between its own nonce and tag
	copy(mixed[12:len(mixed)-16], theirs[chunkBytes+12:])
	two := slices.Concat(block[:8], []byte{0, 2}, block[10:], other[at+10:at+blockBytes])
	for name, c := range map[string]struct {
		file []byte
		rule string
	}{
		"reordered":         {join(block, chunks[1], chunks[0], chunks[2], chunks[3], chunks[4]), bundle.RuleSignature},
		"one twice":         {join(block, chunks[0], chunks[0], chunks[2], chunks[3], chunks[4]), bundle.RuleSignature},
		"one less":          {join(block, chunks[0], chunks[1], chunks[2], chunks[4]), bundle.RuleTruncated},
		"one more":          {join(block, chunks[0], chunks[1], chunks[2], chunks[2], chunks[3], chunks[4]), bundle.RuleTruncated},
		"cut":               {join(block, chunks[:4]...), bundle.RuleTruncated},
		"of another bundle": {join(block, chunks[0], theirs[chunkBytes:2*chunkBytes], chunks[2], chunks[3], chunks[4]), bundle.RuleSignature},
		"ciphertext alone":  {join(block, chunks[0], mixed, chunks[2], chunks[3], chunks[4]), bundle.RuleDamaged},
		"another key":       {join(other[at:at+blockBytes], chunks...), bundle.RuleSignature},
		"another recipient": {join(two, chunks...), bundle.RuleTruncated},
		"all of another":    {join(other[at:at+blockBytes], theirs[:len(theirs)-bundle.TrailerLen]), bundle.RuleSignature},
		"another's trailer": {slices.Concat(file[:end], other[end:]), bundle.RuleSignature},
	} {
		got, err := w.opens(c.file)
		wantRule(t, err, redoubt.KindOf(err), c.rule)
		if !bytes.HasPrefix(content, got) || len(got) > 64<<10-32 {
			t.Errorf("%s: %d bytes came out before it was refused", name, len(got))
		}
	}
	// The one recipient is so also of a file that its maker signed.
	signed := bundle.Sign(head, slices.Concat(two, sealed[blockBytes:]), w.key)
	_, err := w.opens(signed)
	wantRule(t, err, redoubt.Denied, bundle.RuleSignature)
}

func TestAnotherMakersHeadDoesNotGoBeforeTaggedContent(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.tagged(), []byte("content"))
	thief := newWorld(t, 0)
	thief.ids, thief.key = w.ids, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	h := w.tagged()
	h.Maker = "thief"
	_, err := thief.opens(resign(t, thief, h, file, w.tagged()))
	wantRule(t, err, redoubt.Denied, bundle.RuleSealed)
}

func TestAMediumThatChangesAfterTagsWereVerifiedGainsNothing(t *testing.T) {
	w := newWorld(t, 1)
	made := w.make(t, w.tagged(), make([]byte, 1<<20))
	at := headLen(t, w.tagged()) + blockBytes + 8*chunkBytes
	for name, change := range map[string]func(file []byte){
		"another nonce":      func(file []byte) { file[at] ^= 1 },
		"another ciphertext": func(file []byte) { file[at+20] ^= 1 },
		"another tag":        func(file []byte) { file[at+chunkBytes-1] ^= 1 },
		"an earlier chunk":   func(file []byte) { copy(file[at:at+chunkBytes], file[at-chunkBytes:at]) },
	} {
		file := bytes.Clone(made)
		medium := io.NewSectionReader(bytes.NewReader(file), 0, int64(len(file)))
		b, err := bundle.Verify(context.Background(), medium, medium.Size(), w.expect(), nil)
		if err != nil {
			t.Fatal(err)
		}
		change(file)
		r, err := b.Open(w.ids[0])
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if wantRule(t, err, redoubt.Denied, bundle.RuleDamaged); n != 8*64<<10-32 {
			t.Errorf("%s: %d bytes came before it", name, n)
		}
	}
	// The block is taken as it was verified; what stands there by now is nobody's.
	file := bytes.Clone(made)
	b, err := w.verify(file)
	if err != nil {
		t.Fatal(err)
	}
	clear(file[at-8*chunkBytes-blockBytes : at-8*chunkBytes])
	if r, err := b.Open(w.ids[0]); err != nil {
		t.Error(err)
	} else if n, err := io.Copy(io.Discard, r); n != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestATaggedBundleHasASize: one at the limit is made and read, and what is longer neither.
func TestATaggedBundleHasASize(t *testing.T) {
	w := newWorld(t, 1)
	most := bundle.MaxTaggedBytes - headLen(t, w.tagged()) - bundle.TrailerLen - blockBytes
	content := make([]byte, most-28*((most+chunkBytes-1)/chunkBytes)-32)
	file := w.make(t, w.tagged(), content)
	if got, err := w.opens(file); err != nil || len(got) != len(content) || len(file) != bundle.MaxTaggedBytes {
		t.Errorf("a file of %d bytes: %d, %v", len(file), len(got), err)
	}
	b, err := bundle.NewWriter(io.Discard, w.tagged(), []keys.Recipient{w.ids[0].Recipient()}, w.sign)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Write(append(content, 0))
	err = errors.Join(err, b.Finish(nil))
	wantRule(t, err, redoubt.TooLarge, bundle.RuleLarge)
	longer := bundle.Sign(file[:headLen(t, w.tagged())], append(bytes.Clone(file[headLen(t, w.tagged()):len(file)-bundle.TrailerLen]), 0), w.key)
	_, err = w.verify(longer)
	wantRule(t, err, redoubt.TooLarge, bundle.RuleLarge)
	_, err = bundle.NewBareOutline(longer[:headLen(t, w.tagged())], longer[len(longer)-bundle.TrailerLen:])
	wantRule(t, err, redoubt.TooLarge, bundle.RuleLarge)
	if _, err := bundle.NewBareOutline(file[:headLen(t, w.tagged())], file[len(file)-bundle.TrailerLen:]); err != nil {
		t.Errorf("the outline of one at the limit: %v", err)
	}
}

// TestAnOutlineOfATaggedBundleHasNoLeaves: form and tags are held against its end, and no piece is known by a digest.
func TestAnOutlineOfATaggedBundleHasNoLeaves(t *testing.T) {
	w := newWorld(t, 1)
	file := w.make(t, w.tagged(), make([]byte, 200_000))
	outline := func(b []byte) (*bundle.Outline, error) {
		return bundle.ReadOutline(context.Background(), bytes.NewReader(b), int64(len(b)), nil)
	}
	o, err := outline(file)
	if err != nil || len(o.Leaves) != 0 || o.IsLeaf(0, file[len(o.Start):][:o.LeafLen(0)]) || !o.SignedBy(w.key.Public().(ed25519.PublicKey)) {
		t.Fatalf("%+v, %v", o, err)
	}
	_, err = bundle.NewOutline(o.Start, o.End, nil)
	wantRule(t, err, redoubt.Invalid, bundle.RuleFormat)
	if bare, err := bundle.NewBareOutline(o.Start, o.End); err != nil || bare.ID != o.ID || bare.FileBytes != int64(len(file)) {
		t.Errorf("put together again: %+v, %v", bare, err)
	}
	bad := bytes.Clone(file)
	bad[len(o.Start)+blockBytes+chunkBytes] ^= 1 // a nonce
	_, err = outline(bad)
	wantRule(t, err, redoubt.Denied, bundle.RuleSignature)
	bad = bytes.Clone(file)
	bad[len(o.Start)+blockBytes+chunkBytes+100] ^= 1
	if _, err := outline(bad); err != nil {
		t.Errorf("of what only the recipient can see: %v", err)
	}
	_, err = w.opens(bad)
	wantRule(t, err, redoubt.Denied, bundle.RuleDamaged)
}
