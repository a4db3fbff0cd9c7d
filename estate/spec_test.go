package estate

import (
	"errors"
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
