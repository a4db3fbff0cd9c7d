package enclave

import (
	"crypto/ed25519"
	"encoding/binary"
	"testing"

	"redoubt"
)

func TestASignatureIsRememberedForWhatItSaysAndNothingElse(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(n uint64) *redoubt.Custody {
		all, err := redoubt.SealBatch("device", [][]byte{binary.BigEndian.AppendUint64(nil, n)}, func(m []byte) ([]byte, error) { return ed25519.Sign(private, m), nil })
		if err != nil {
			t.Fatal(err)
		}
		return &all[0]
	}
	s, c := new(signatures), sealed(0)
	for range 2 {
		if !s.hold(c, "device", public) || len(s.known) != 1 {
			t.Fatalf("it does not hold, or %d are remembered", len(s.known))
		}
	}
	for what, change := range map[string]func(c *redoubt.Custody) (redoubt.NodeName, ed25519.PublicKey){
		"another maker": func(*redoubt.Custody) (redoubt.NodeName, ed25519.PublicKey) { return "devicf", public },
		"another key":   func(*redoubt.Custody) (redoubt.NodeName, ed25519.PublicKey) { return "device", other },
		"no key":        func(*redoubt.Custody) (redoubt.NodeName, ed25519.PublicKey) { return "device", nil },
		"another count": func(c *redoubt.Custody) (redoubt.NodeName, ed25519.PublicKey) { c.Count++; return "device", public },
		"another root": func(c *redoubt.Custody) (redoubt.NodeName, ed25519.PublicKey) {
			c.Root[31] ^= 1
			return "device", public
		},
		"another signature": func(c *redoubt.Custody) (redoubt.NodeName, ed25519.PublicKey) {
			c.Signature[63] ^= 1
			return "device", public
		},
	} {
		altered := *c
		maker, key := change(&altered)
		for range 2 {
			if s.hold(&altered, maker, key) {
				t.Errorf("%s holds", what)
			}
		}
	}
	for n := range uint64(maxSignatures + 1) {
		if !s.hold(sealed(n), "device", public) {
			t.Fatal("a good one does not hold")
		}
		if len(s.known) > maxSignatures {
			t.Fatalf("%d are remembered", len(s.known))
		}
	}
}
