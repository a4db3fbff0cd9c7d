package node

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"redoubt"
	"redoubt/enclave"
	"redoubt/keys"
	"redoubt/store/embedded"
)

// Restore makes the node's folder out of a backup that is sealed to who: its keyring, held by
// unlock from now on (nil: a key file beside it, for an exercise), and everything its store
// held. It works in a folder of its own and puts that in place at the end, so that a
// restore that fails leaves nothing. Exists: the node has a folder already.
//
// The ports, the certificate authority and the estate in force are not part of a backup: the first
// start after it makes them anew, and two officers' signatures are asked for again.
func Restore(ctx context.Context, st State, name redoubt.NodeName, who *keys.Identity, backup io.Reader, unlock keys.Unlock) error {
	const op = "node.Restore"
	final := st.NodeDir(name)
	if _, err := os.Lstat(final); !errors.Is(err, fs.ErrNotExist) {
		return &redoubt.Error{Op: op, Object: final, Kind: redoubt.Exists, Hint: "restore into a fresh state: --state DIR"}
	}
	dir := filepath.Join(st.Dir(), ".restoring-"+string(name))
	if err := os.RemoveAll(dir); err != nil {
		return &redoubt.Error{Op: op, Object: dir, Err: errors.Unwrap(err)}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &redoubt.Error{Op: op, Object: dir, Err: errors.Unwrap(err)}
	}
	err := restoreInto(ctx, dir, who, backup, unlock)
	if err == nil {
		err = os.Rename(dir, final)
	}
	if err == nil {
		err = syncDir(st.Dir())
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

func restoreInto(ctx context.Context, dir string, who *keys.Identity, backup io.Reader, unlock keys.Unlock) error {
	if unlock == nil {
		unlock = keys.KeyFile(filepath.Join(dir, "key"))
	}
	key, err := freshKey()
	if err != nil {
		return err
	}
	defer clear(key)
	engine, err := embedded.Open(filepath.Join(dir, storeDir), embedded.Options{Key: key})
	if err != nil {
		return err
	}
	err = enclave.Restore(ctx, who, backup, func(exported []byte) error {
		ring, err := keys.Import(filepath.Join(dir, "keyring"), unlock, exported, nil)
		if err != nil {
			return err
		}
		err = ring.ForgetSecret(secretEngine)
		if err == nil {
			_, err = ring.Secret(secretEngine, func() ([]byte, error) { return append([]byte(nil), key...), nil })
		}
		return errors.Join(err, ring.Close())
	}, engine)
	return errors.Join(err, engine.Close())
}

// ChangeUnlock has the node's keyring held by next instead: a new passphrase or key file. The node must be down.
func ChangeUnlock(st State, name redoubt.NodeName, now, next keys.Unlock) error {
	release, err := lockNode(st, name, "redoubt down "+string(name))
	if err != nil {
		return err
	}
	defer release()
	dir := st.NodeDir(name)
	if now == nil {
		now = keys.KeyFile(filepath.Join(dir, "key"))
	}
	ring, err := keys.Open(filepath.Join(dir, "keyring"), now)
	if err != nil {
		return err
	}
	return errors.Join(ring.ChangeUnlock(next), ring.Close())
}

// Check reads a stopped node's store back: every byte that the engine keeps is opened and
// its log followed. A running node checks more, by its own command.
func Check(ctx context.Context, st State, name redoubt.NodeName, unlock keys.Unlock, report func(fault string)) (faults int, err error) {
	err = withStore(st, name, unlock, "redoubt fsck NODE --as ADMIN checks a running node", func(e *embedded.Engine) (err error) {
		faults, err = e.Check(ctx, report)
		return err
	})
	return faults, err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
