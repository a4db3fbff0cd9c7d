package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"
)

// TestADocumentHasOneReading: what encoding/json takes for one field another reader takes for two, and shows the other one.
func TestADocumentHasOneReading(t *testing.T) {
	for doc, want := range map[string]bool{
		`{"sha256":"a","keys":[{"key":1},{"key":2}]}`: true, `{"a":{"a":1}}`: true, `{}`: true,
		`{"sha256":"a","sha256":"b"}`: false, `{"sha256":"a","SHA256":"b"}`: false, "{\"sha256\":\"a\",\"\u017fha256\":\"b\"}": false, `{"sha256":"a","\u017fha256":"b"}`: false,
		"{\"key\":1,\"\u212aey\":2}": false, `[{"a":1,"a":2}]`: false, `{"a":1}{}`: false, `{"a":1`: false, ``: false,
	} {
		if got := oneReading([]byte(doc)); got != want {
			t.Errorf("%s: got %t, want %t", doc, got, want)
		}
	}
}

// TestAKeyOfAReceiptHasOneSpelling: else one reviewer signs twice.
func TestAKeyOfAReceiptHasOneSpelling(t *testing.T) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	key, sig := base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey)), base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("m")))
	for spelled, want := range map[string]bool{key: true, key[:4] + "\n" + key[4:]: false, key + "\r\n": false} {
		if got := verifies(spelled, []byte("m"), sig); got != want {
			t.Errorf("%q: got %t, want %t", spelled, got, want)
		}
	}
}
