package tpm

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"redoubt"
)

func sample() *envelope {
	return &envelope{policy: policy{pcrs: PCRs{0, 7, 22}, values: [][32]byte{{1}, {}, {3}}, pin: true}, maker: [4]byte{'I', 'F', 'X', 0},
		root: append([]byte{0, 0x0B}, bytes.Repeat([]byte{5}, 32)...), index: firstIndex + 7, public: []byte("public"), private: []byte("private"), sealed: bytes.Repeat([]byte{6}, sealedRootBytes)}
}

func TestAnEnvelopeIsReadStrictly(t *testing.T) {
	good := sample().encode()
	e := must[*envelope](t)(parseEnvelope(good))
	if !bytes.Equal(e.encode(), good) {
		t.Error("it comes back another")
	}
	for n := range len(good) {
		if _, err := parseEnvelope(good[:n]); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("cut at %d: got %v", n, err)
		}
	}
	for what, spoil := range map[string]func(*envelope, []byte) []byte{
		"a byte more":         func(_ *envelope, b []byte) []byte { return append(b, 0) },
		"a later version":     func(_ *envelope, b []byte) []byte { b[0]++; return b },
		"an unknown flag":     func(_ *envelope, b []byte) []byte { b[1] |= 2; return b },
		"PCR 24":              func(_ *envelope, b []byte) []byte { b[6] = 1; return b },
		"no PCR":              func(e *envelope, _ []byte) []byte { e.pcrs, e.values = nil, nil; return e.encode() },
		"an index of others":  func(e *envelope, _ []byte) []byte { e.index = firstIndex - 1; return e.encode() },
		"an index past ours":  func(e *envelope, _ []byte) []byte { e.index = firstIndex + indexes; return e.encode() },
		"no public":           func(e *envelope, _ []byte) []byte { e.public = nil; return e.encode() },
		"a private too large": func(e *envelope, _ []byte) []byte { e.private = make([]byte, maxPartBytes+1); return e.encode() },
	} {
		if _, err := parseEnvelope(spoil(sample(), slices.Clone(good))); !errors.Is(err, redoubt.Corrupt) {
			t.Errorf("%s: got %v, want Corrupt", what, err)
		}
	}
	e = sample()
	e.private = make([]byte, maxPartBytes)
	must[*envelope](t)(parseEnvelope(e.encode()))
}

func TestAnEnvelopeTellsWhatItIsBoundTo(t *testing.T) {
	d := must[Description](t)(Describe(sample().encode()))
	if d.Maker != "IFX" || d.PCRs.String() != "0,7,22" || d.Unmeasured.String() != "7" || !d.PIN || len(d.Chip) != 64 {
		t.Errorf("got %+v", d)
	}
}

func TestPCRsAreNamedPlainly(t *testing.T) {
	if got := must[PCRs](t)(ParsePCRs("7,0,22")); got.String() != "0,7,22" {
		t.Errorf("got %s", got)
	}
	for _, text := range []string{"", "24", "-1", "07", "7,", "7,7", "16", "23", "a", "0x7", "256"} {
		if _, err := ParsePCRs(text); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%q: got %v, want Invalid", text, err)
		}
	}
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add(sample().encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if e, err := parseEnvelope(in); err == nil && !bytes.Equal(e.encode(), in) {
			t.Error("two spellings of one envelope")
		}
	})
}

// TestTheVectorIsAsSpecified holds docs/spec/tpm.md to an envelope that this code made once: its halves open its root.
func TestTheVectorIsAsSpecified(t *testing.T) {
	var halves, want []byte
	for i := range 64 {
		halves = append(halves, byte(i))
	}
	for i := range 32 {
		want = append(want, byte(0xE0+i))
	}
	text := must[[]byte](t)(os.ReadFile("testdata/envelope.hex"))
	in := must[[]byte](t)(hex.DecodeString(strings.ReplaceAll(string(text), "\n", "")))
	e := must[*envelope](t)(parseEnvelope(in))
	s := sample()
	if s.sealed = e.sealed; !bytes.Equal(s.encode(), in) {
		t.Errorf("got %x", s.encode())
	}
	aead := must[cipher.AEAD](t)(rootCipher(halves))
	if got := must[[]byte](t)(aead.Open(nil, nil, e.sealed, e.head())); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
