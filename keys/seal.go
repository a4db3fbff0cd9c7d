package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"

	"redoubt"
)

// newAEAD is AES-256-GCM with a random 96-bit nonce in front of the ciphertext, the one
// form of GCM that the FIPS module lets a caller seal with. A key seals at most 2^32
// messages (NIST SP 800-38D, 8.3).
func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, errors.New("a key has 32 bytes")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealUnder appends plain sealed under key to dst.
func sealUnder(dst, key, plain, aad []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.seal", Err: err}
	}
	return aead.Seal(dst, nil, plain, aad), nil
}

// openUnder opens what sealUnder appended. Its error is bare: the caller says what failed.
func openUnder(key, sealed, aad []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, aad)
}

func corrupt(op, what string) error {
	return &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: errors.New(what)}
}
