package node

import (
	"errors"
	"os"
	"path/filepath"

	"redoubt"
	"redoubt/keys"
)

// Inspect looks at what a stopped node's start needs: that its keyring is there and whole, and opens by unlock; and
// that its store has a format that this program reads. nil opens an exercise by its key file, and of another keyring
// sees only that it is whole. A node that never started is well. Erased: the device was wiped by order of its home.
func Inspect(st State, name redoubt.NodeName, unlock keys.Unlock) error {
	if err := st.NotWiped(name); err != nil {
		return err
	}
	dir := st.NodeDir(name)
	f, err := ReadStoreFormat(st, name)
	fresh := errors.Is(err, redoubt.NotFound)
	if err != nil && !fresh {
		return err
	}
	if !f.Readable() {
		return &redoubt.Error{Op: "node.Inspect", Object: string(name), Kind: redoubt.Invalid, Err: errors.New("the store is too new for this program"), Hint: "redoubt state show " + string(name)}
	}
	ownKey := filepath.Join(dir, "key")
	if _, err := os.Stat(ownKey); unlock == nil && err == nil {
		unlock = keys.KeyFile(ownKey)
	}
	known := unlock != nil
	if !known {
		unlock = glance{}
	}
	ring, err := keys.Open(filepath.Join(dir, "keyring"), unlock)
	switch {
	case err == nil:
		return ring.Close()
	case errors.Is(err, redoubt.NotFound) && fresh, errors.Is(err, redoubt.Denied) && !known:
		return nil
	case errors.Is(err, redoubt.NotFound):
		return lostKeyring(filepath.Join(dir, "keyring"))
	}
	return err
}

// glance opens no keyring: a whole one is refused for its method, a damaged one for its damage.
type glance struct{}

func (glance) Method() string                { return "none" }
func (glance) Wrap([]byte) ([]byte, error)   { return nil, redoubt.Denied }
func (glance) Unwrap([]byte) ([]byte, error) { return nil, redoubt.Denied }

func lostKeyring(path string) error {
	return &redoubt.Error{Op: "node.openKeyring", Object: path, Kind: redoubt.Corrupt,
		Err: errors.New("the store is there and its keyring is gone"), Hint: "put the keyring back from its backup"}
}
