package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"redoubt"
	"redoubt/keys"
	"redoubt/store/embedded"
)

// storeFormat is the format that the engine of this build writes; TestTheStoreFormatIsTheEngines holds it to that.
const storeFormat = 1

// maxFormatBytes bounds the engine's format file.
const maxFormatBytes = 4 << 10

// StoreFormat is what a node's store says of itself.
type StoreFormat struct {
	Node           redoubt.NodeName `json:"node"`
	Format         int              `json:"format"`
	OldestReader   int              `json:"oldest_reader"` // the oldest format whose programs read this one
	Program        int              `json:"program_format"`
	Generation     int              `json:"generation"`      // the folder in use
	Previous       int              `json:"previous"`        // the folder that the last upgrade left; 0: none
	PreviousFormat int              `json:"previous_format"` // 0: none
}

// Readable reports whether this program reads the store.
func (f StoreFormat) Readable() bool { return f.OldestReader <= f.Program }

// Old reports whether opening the store upgrades it.
func (f StoreFormat) Old() bool { return f.Format < f.Program }

// ReadStoreFormat reads the format of a node's store, and opens nothing of it. NotFound: there is no store yet.
func ReadStoreFormat(st State, name redoubt.NodeName) (StoreFormat, error) {
	const op = "node.ReadStoreFormat"
	path := filepath.Join(st.NodeDir(name), storeDir, "format")
	bad := func(why string) error {
		return &redoubt.Error{Op: op, Object: path, Kind: redoubt.Corrupt, Err: errors.New(why), Hint: "redoubt restore from the last backup, into a fresh state"}
	}
	f := StoreFormat{Node: name, Program: storeFormat}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NotFound, Err: errors.New("the state has no store of that node"), Hint: "redoubt status lists the nodes"}
	}
	if err == nil && info.Size() > maxFormatBytes {
		return f, bad("the format file is too large")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return f, &redoubt.Error{Op: op, Object: path, Err: err}
	}
	body, sum, _ := strings.Cut(string(text), "sum ")
	want := sha256.Sum256([]byte(body))
	if sum != hex.EncodeToString(want[:])+"\n" {
		return f, bad("the format file is damaged")
	}
	// What follows the second line is another format's to say, where we do not read it.
	if n, _ := fmt.Sscanf(body, "redoubt store\nformat %d\noldest-reader %d\n", &f.Format, &f.OldestReader); n != 2 {
		return f, bad("the format file is not one of ours")
	}
	if _, rest, ok := strings.Cut(body, "generation "); ok && f.Readable() {
		if n, _ := fmt.Sscanf(rest, "%d\nprevious %d %d\n", &f.Generation, &f.Previous, &f.PreviousFormat); n != 3 {
			return f, bad("the format file is not one of ours")
		}
	}
	return f, nil
}

// UpgradeStore brings a stopped node's store to the format of this program, as its next start would. What was before is
// kept beside it, for RollbackStore. Unavailable: the node runs.
func UpgradeStore(ctx context.Context, st State, name redoubt.NodeName, unlock keys.Unlock) error {
	return withStore(st, name, unlock, "redoubt down "+string(name), func(*embedded.Engine) error { return ctx.Err() })
}

// RollbackStore returns a stopped node's store to where its last upgrade found it; whatever was written since is lost.
// NotFound: no earlier state is kept. Unavailable: the node runs.
func RollbackStore(st State, name redoubt.NodeName) error {
	release, err := lockNode(st, name, "redoubt down "+string(name))
	if err != nil {
		return err
	}
	defer release()
	return embedded.Rollback(filepath.Join(st.NodeDir(name), storeDir), nil)
}

// lockNode takes a stopped node for a command; one that was wiped it refuses.
func lockNode(st State, name redoubt.NodeName, hint string) (release func(), err error) {
	if err := st.NotWiped(name); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(st.NodeDir(name), "keyring")); err != nil {
		return nil, &redoubt.Error{Op: "node.lock", Object: string(name), Kind: redoubt.NotFound, Err: errors.New("the state has no such node"), Hint: "redoubt status lists the nodes"}
	}
	return lockFile(filepath.Join(st.NodeDir(name), "lock"), "the node is running", hint)
}

// withStore opens a stopped node's engine, by its keyring, for the length of do.
func withStore(st State, name redoubt.NodeName, unlock keys.Unlock, hint string, do func(*embedded.Engine) error) error {
	release, err := lockNode(st, name, hint)
	if err != nil {
		return err
	}
	defer release()
	dir := st.NodeDir(name)
	if unlock == nil {
		unlock = keys.KeyFile(filepath.Join(dir, "key"))
	}
	ring, err := keys.Open(filepath.Join(dir, "keyring"), unlock)
	if err != nil {
		return err
	}
	defer ring.Close()
	key, err := ring.Secret(secretEngine, nil)
	if err != nil {
		return err
	}
	defer clear(key)
	engine, err := embedded.Open(filepath.Join(dir, storeDir), embedded.Options{Key: key, MaintainEvery: -1})
	if err != nil {
		return err
	}
	return errors.Join(do(engine), engine.Close())
}
