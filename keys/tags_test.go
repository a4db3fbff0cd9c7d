package keys

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"redoubt"
)

// sealOne seals content to a recipient, and gives what was written with its tags.
func sealOne(t testing.TB, to Recipient, content []byte) ([]byte, *Tags) {
	t.Helper()
	var out bytes.Buffer
	s, tags, err := SealToOne(to, &out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), tags
}

func openTagged(who *Identity, tags *Tags, sealed []byte) ([]byte, error) {
	r, err := OpenTagged(who, tags, bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestTaggedContentOpensByTheTagsThatAreReadOfIt(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range edgeSizes {
		content := pattern(n)
		sealed, written := sealOne(t, id.Recipient(), content)
		read, err := ReadTags(bytes.NewReader(sealed), int64(len(sealed)))
		if err != nil || read.Digest() != written.Digest() {
			t.Fatalf("%d bytes: the tags that are read are others than were written: %v", n, err)
		}
		if got, err := openTagged(id, read, sealed); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes come out as %d, %v", n, len(got), err)
		}
		r, err := OpenTagged(id, read, bytes.NewReader(sealed))
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, content); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		// What SealTo makes for one recipient is the same form, and opens the same way.
		if r, err := OpenWith(id, bytes.NewReader(sealed)); err != nil {
			t.Error(err)
		} else if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes open as %d without their tags, %v", n, len(got), err)
		}
		for _, who := range []*Identity{other, nil, {}} {
			if _, err := OpenTagged(who, read, bytes.NewReader(sealed)); redoubt.KindOf(err) != redoubt.Denied {
				t.Errorf("opened by another: %v", err)
			}
		}
	}
}

func TestNoByteBesideTheCiphertextChangesWithoutItsDigest(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	content := pattern(2*ChunkBytes + 100)
	sealed, tags := sealOne(t, id.Recipient(), content)
	want := tags.Digest()
	inTags := func(i int) bool {
		at := (i - soleHead) % sealedChunk
		return i < soleHead || at < nonceBytes || at >= sealedChunk-tagBytes || i >= len(sealed)-tagBytes
	}
	try := func(i int) {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1 << (i % 8)
		got, err := ReadTags(bytes.NewReader(bad), int64(len(bad)))
		if same := err == nil && got.Digest() == want; same == inTags(i) {
			t.Errorf("byte %d of %d, %v of the tags: the same digest %v, %v", i, len(sealed), inTags(i), same, err)
		}
		if i < soleHead {
			return // which is taken from the tags
		}
		// Under the true tags nothing of that chunk is given, nor of what is behind it.
		plain, err := openTagged(id, tags, bad)
		if chunk := (i - soleHead) / sealedChunk; redoubt.KindOf(err) != redoubt.Corrupt || !bytes.Equal(plain, content[:chunk*ChunkBytes]) {
			t.Errorf("with another byte %d came %d bytes, %v", i, len(plain), err)
		}
	}
	for i := range sealed {
		if inTags(i) || i%997 == 0 {
			try(i)
		}
	}
	for n := range len(sealed) {
		if n > 2*soleHead && n%7 != 0 {
			continue
		}
		if got, err := ReadTags(bytes.NewReader(sealed), int64(n)); err == nil && got.Digest() == want {
			t.Errorf("the first %d bytes have the digest of all", n)
		}
	}
	for name, bad := range map[string][]byte{
		"a byte more":      append(bytes.Clone(sealed), 0),
		"a chunk more":     slices.Concat(sealed, sealed[soleHead:soleHead+sealedChunk]),
		"in another order": slices.Concat(sealed[:soleHead], sealed[soleHead+sealedChunk:soleHead+2*sealedChunk], sealed[soleHead:soleHead+sealedChunk], sealed[soleHead+2*sealedChunk:]),
		"a chunk twice":    slices.Concat(sealed[:soleHead+sealedChunk], sealed[soleHead:soleHead+sealedChunk], sealed[soleHead+2*sealedChunk:]),
	} {
		if got, err := ReadTags(bytes.NewReader(bad), int64(len(bad))); err == nil && got.Digest() == want {
			t.Errorf("%s: the same digest", name)
		}
		if plain, err := openTagged(id, tags, bad); err == nil && !bytes.Equal(plain, content) {
			t.Errorf("%s opens to something else", name)
		}
	}
}

// TestWhatHasAnotherTagByNowIsNotOpened, though it was sealed under the same key: what was verified is what is opened.
func TestWhatHasAnotherTagByNowIsNotOpened(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	_, tags := sealOne(t, id.Recipient(), pattern(100))
	d, err := fileKey("test", id, tags.head)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.NewBuffer(bytes.Clone(tags.head))
	s := NewSealer(d, sealToBinding(tags.head), other)
	if _, err = s.Write(make([]byte, 100)); err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err := OpenWith(id, bytes.NewReader(other.Bytes())); err != nil {
		t.Fatal(err)
	} else if _, err := io.ReadAll(r); err != nil {
		t.Fatalf("it does not open at all: %v", err)
	}
	if got, err := openTagged(id, tags, other.Bytes()); redoubt.KindOf(err) != redoubt.Corrupt || len(got) > 0 {
		t.Errorf("%d bytes of it came out, %v", len(got), err)
	}
}

func TestTagsAreOfContentForOne(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	two := sealTo(t, pattern(100), id.Recipient(), id.Recipient())
	if _, err := ReadTags(bytes.NewReader(two), int64(len(two))); redoubt.KindOf(err) != redoubt.Corrupt {
		t.Errorf("content for two has tags: %v", err)
	}
	if _, _, err := SealToOne(Recipient{}, io.Discard); redoubt.KindOf(err) != redoubt.Invalid {
		t.Errorf("sealed to nobody: %v", err)
	}
	sealed, tags := sealOne(t, id.Recipient(), pattern(ChunkBytes+1))
	if _, err := ReadTags(bytes.NewReader(sealed[:len(sealed)-1]), int64(len(sealed))); redoubt.KindOf(err) != redoubt.Corrupt {
		t.Errorf("a file that is shorter than it was said: %v", err)
	}
	if _, err := ReadTags(failing{}, int64(len(sealed))); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("a medium that fails: %v", err)
	}
	if _, err := openTagged(id, tags, sealed[:len(sealed)-1]); redoubt.KindOf(err) != redoubt.Corrupt {
		t.Errorf("a file that was cut since: %v", err)
	}
}

// failing is a medium that does not read.
type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) {
	return 0, errors.New("no medium")
}
