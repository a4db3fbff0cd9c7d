package keys

import (
	"crypto/rand"
	"errors"
	"io"

	"redoubt"
)

// Export gives the whole content of the keyring, readable by whoever holds it: it is for
// a sealed backup and nothing else. The caller clears it.
func (k *Keyring) Export() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return nil, closed("keys.Export")
	}
	return k.body.encode(), nil
}

// Import makes a keyring file at path, as Create does, with the content that Export gave, and opens it.
func Import(path string, u Unlock, exported []byte, random io.Reader) (*Keyring, error) {
	b, err := decodeBody(exported)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.Import", Kind: redoubt.Corrupt, Err: errors.New("not an exported keyring")}
	}
	if random == nil {
		random = rand.Reader
	}
	return createFrom(osDisk{}, path, u, random, b)
}
