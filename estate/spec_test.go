package estate

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"redoubt"
)

func TestSignatureFileHasItsKeysLetterForLetter(t *testing.T) {
	for _, bad := range []string{
		`{"Redoubt_Estate_Signature":1,"digest":"","signatures":[]}`,
		`{"redoubt_estate_signature":1,"digest":"a","DIGEST":"b","signatures":[]}`,
		`{"redoubt_estate_signature":1,"digest":"","signatures":[{"ſigner":"o1","sig":""}]}`,
	} {
		if _, err := ReadSignatures([]byte(bad)); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: got %v, want invalid", bad, err)
		}
	}
}

// The example of docs/spec/estate.md is read, and the bytes, the digest and the signatures that the page shows are made of it.
func TestTheSpecificationsEstateHolds(t *testing.T) {
	text, err := os.ReadFile("../docs/spec/estate.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for i, part := range strings.Split(string(text), "\n```") {
		if _, body, _ := strings.Cut(part, "\n"); i%2 == 1 {
			blocks = append(blocks, body)
		}
	}
	if len(blocks) != 3 {
		t.Fatalf("%d blocks", len(blocks))
	}
	e, err := Read([]byte(blocks[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(e.Canonical()), "redoubt estate v1\n"+strings.ReplaceAll(blocks[1], "\n", ""); got != want {
		t.Errorf("canonical: got\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(string(text), "Its digest: `"+e.Digest()+"`.") {
		t.Errorf("the digest is %s", e.Digest())
	}
	var sigs Signatures
	for name, seed := range map[redoubt.SubjectName]byte{"o1": 1, "o2": 2} {
		if sigs, err = Sign(e, sigs, name, key(seed)); err != nil {
			t.Fatal(err)
		}
	}
	if sigs.Signatures[0].Signer != "o1" {
		sigs.Signatures[0], sigs.Signatures[1] = sigs.Signatures[1], sigs.Signatures[0]
	}
	if got, err := json.MarshalIndent(sigs, "", "  "); err != nil || string(got) != blocks[2] {
		t.Errorf("signatures: got\n%s\nwant\n%s", got, blocks[2])
	}
	shown, err := ReadSignatures([]byte(blocks[2]))
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(e, nil, shown); err != nil {
		t.Error(err)
	}
}
