package keys

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"redoubt"
)

func sealTo(t *testing.T, plain []byte, to ...Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	s, err := SealTo(to, &out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(s, bytes.NewReader(plain)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openWith(id *Identity, sealed []byte) ([]byte, error) {
	r, err := OpenWith(id, bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestEachRecipientOpensAndNobodyElse(t *testing.T) {
	a, b, c := must[*Identity](t)(NewIdentity()), must[*Identity](t)(NewIdentity()), must[*Identity](t)(NewIdentity())
	for _, n := range edgeSizes {
		plain := pattern(n)
		sealed := sealTo(t, plain, a.Recipient(), b.Recipient())
		for _, id := range []*Identity{a, b} {
			if got, err := openWith(id, sealed); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes: got %d, %v", n, len(got), err)
			}
		}
		if _, err := openWith(c, sealed); !errors.Is(err, redoubt.Denied) {
			t.Errorf("a stranger got %v, want Denied", err)
		}
	}
	if _, err := openWith(nil, nil); !errors.Is(err, redoubt.Denied) {
		t.Errorf("nobody got %v", err)
	}
	var none []Recipient
	if _, err := SealTo(none, io.Discard); err == nil {
		t.Error("sealed to nobody")
	}
	if _, err := SealTo([]Recipient{{}}, io.Discard); err == nil {
		t.Error("sealed to the zero recipient")
	}
	if _, err := SealTo(slices.Repeat([]Recipient{a.Recipient()}, MaxRecipients+1), io.Discard); err == nil {
		t.Error("sealed to too many")
	}
	sealTo(t, nil, slices.Repeat([]Recipient{a.Recipient()}, MaxRecipients)...)
}

func TestTamperedSealedStreamsAreRefused(t *testing.T) {
	id := must[*Identity](t)(NewIdentity())
	other := must[*Identity](t)(NewIdentity())
	plain := pattern(2*ChunkBytes + 5)
	sealed := sealTo(t, plain, id.Recipient(), other.Recipient())
	head := len(sealToMagic) + 2 + 2*recipientBlock
	for _, n := range []int{0, 1, 9, head - 1, head, head + 1, head + ChunkOverhead, head + sealedChunk, head + 2*sealedChunk, len(sealed) - 1} {
		if got, err := openWith(id, sealed[:n]); !errors.Is(err, redoubt.Corrupt) {
			t.Errorf("cut to %d: got %d bytes, %v", n, len(got), err)
		}
	}
	if _, err := openWith(id, append(slices.Clone(sealed), 0)); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("a byte more: %v", err)
	}
	for _, at := range []int{0, 8, 9, 20, 1000, head - recipientBlock + 3, head - 1, head, head + 100, head + sealedChunk, len(sealed) - 1} {
		bad := slices.Clone(sealed)
		bad[at] ^= 1
		if _, err := openWith(id, bad); err == nil {
			t.Errorf("byte %d changed unseen", at)
		}
	}
}

func TestKeysInTextAreReadStrictly(t *testing.T) {
	id := must[*Identity](t)(NewIdentity())
	secret := must[[]byte](t)(id.Secret())
	id2 := must[*Identity](t)(ParseIdentity(secret))
	r := must[Recipient](t)(ParseRecipient(id.Recipient().String()))
	if got, err := openWith(id2, sealTo(t, []byte("x"), r)); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", string(secret) + "\n", string(secret[1:]), string(secret[:len(secret)-1]), id.Recipient().String(), identityPrefix} {
		if _, err := ParseIdentity([]byte(bad)); err == nil {
			t.Errorf("taken: %.30q", bad)
		}
		if bad == id.Recipient().String() {
			continue
		}
		if _, err := ParseRecipient(bad); err == nil {
			t.Errorf("taken: %.30q", bad)
		}
	}
	if (Recipient{}).String() != "" {
		t.Error("the zero recipient has a text")
	}
}

func TestSealedFilesOpenForTheirPurposeAndEnclave(t *testing.T) {
	k, _ := newKeyring(t)
	other, _ := newKeyring(t)
	path := filepath.Join(t.TempDir(), "estate")
	for _, plain := range [][]byte{nil, []byte("estate: x"), pattern(100_000)} {
		if err := k.SealFile(path, "estate", plain); err != nil {
			t.Fatal(err)
		}
		if got := must[[]byte](t)(k.OpenFile(path, "estate")); !bytes.Equal(got, plain) {
			t.Errorf("got %d bytes, want %d", len(got), len(plain))
		}
		_, err := k.OpenFile(path, "subject/x")
		wantKind(t, err, redoubt.Corrupt)
		_, err = other.OpenFile(path, "estate")
		wantKind(t, err, redoubt.Corrupt)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v", st.Mode())
	}
	_, err := k.OpenFile(path+"-none", "estate")
	wantKind(t, err, redoubt.NotFound)
	_, err = k.SealBytes("", nil)
	wantKind(t, err, redoubt.Invalid)
	_, err = k.SealBytes("p", make([]byte, MaxFileBytes+1))
	wantKind(t, err, redoubt.TooLarge)
	_, err = k.OpenBytes("p", []byte("short"))
	wantKind(t, err, redoubt.Corrupt)
}

func FuzzOpenWith(f *testing.F) {
	id, err := NewIdentity()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(sealToMagic + "\x00\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := openWith(id, in); err == nil {
			t.Fatalf("opened %d bytes that nobody sealed", len(got))
		}
		if tags, err := ReadTags(bytes.NewReader(in), int64(len(in))); err == nil {
			if got, err := openTagged(id, tags, in); err == nil {
				t.Fatalf("opened %d bytes that nobody sealed, by their tags", len(got))
			}
		}
	})
}

func FuzzKeyring(f *testing.F) {
	b := &body{labels: map[string]*labelEpochs{"L": {next: 3, live: map[uint32]*[32]byte{2: {1}}}}, secrets: map[string][]byte{"s": {9}}}
	f.Add(b.encode())
	file, err := sealFile("plain", []byte("e"), make([]byte, 32), make([]byte, 32), b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, in []byte) {
		if b, err := decodeBody(in); err == nil && !bytes.Equal(b.encode(), in) {
			t.Fatal("two encodings of one body")
		}
		if img, err := parseFile(in); err == nil && len(img.head) > len(in) {
			t.Fatal("more came out than went in")
		}
		parseFile(resumAny(in))
	})
}

func resumAny(in []byte) []byte {
	if len(in) < 40 {
		return in
	}
	return resum(in)
}
