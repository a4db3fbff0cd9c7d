package keys

import (
	"errors"
	"io/fs"
	"path/filepath"

	"redoubt"
)

const sealedMagic = "RDBTFILE"

// MaxFileBytes is the longest content of a sealed file: they are read whole.
const MaxFileBytes = 64 << 20

// SealBytes seals plain (at most MaxFileBytes) under a key of this enclave for one
// purpose, such as "estate" or "subject/ts-analyst". It opens only here and only for the
// same purpose.
func (k *Keyring) SealBytes(purpose string, plain []byte) ([]byte, error) {
	if len(plain) > MaxFileBytes {
		return nil, &redoubt.Error{Op: "keys.SealBytes", Object: purpose, Kind: redoubt.TooLarge}
	}
	d, err := k.fileKey(purpose)
	if err != nil {
		return nil, err
	}
	defer d.Wipe()
	out := make([]byte, 0, len(sealedMagic)+int(SealedSize(int64(len(plain)))))
	return SealAll(append(out, sealedMagic...), d, fileBinding(purpose), plain), nil
}

// OpenBytes opens what SealBytes made for the same purpose; anything else is redoubt.Corrupt.
func (k *Keyring) OpenBytes(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < len(sealedMagic) || string(sealed[:len(sealedMagic)]) != sealedMagic {
		return nil, corrupt("keys.OpenBytes", "not a sealed file")
	}
	d, err := k.fileKey(purpose)
	if err != nil {
		return nil, err
	}
	defer d.Wipe()
	return OpenAll(nil, d, fileBinding(purpose), sealed[len(sealedMagic):])
}

// SealFile makes plain, sealed for purpose, the content of path (mode 0600): whole and
// durable on return, and after a crash the whole old or the whole new. One caller a path.
func (k *Keyring) SealFile(path, purpose string, plain []byte) error {
	const op = "keys.SealFile"
	sealed, err := k.SealBytes(purpose, plain)
	if err != nil {
		return err
	}
	if err = k.disk.WriteNew(path+".new", sealed); err == nil {
		if err = k.disk.Rename(path+".new", path); err == nil {
			err = k.disk.SyncDir(filepath.Dir(path))
		}
	}
	if err != nil {
		return wrapError(op, path, err)
	}
	return nil
}

// OpenFile gives the content that SealFile put at path: redoubt.NotFound when there is no
// file, redoubt.Corrupt when it is not this enclave's or not for this purpose.
func (k *Keyring) OpenFile(path, purpose string) ([]byte, error) {
	const op = "keys.OpenFile"
	sealed, err := k.disk.ReadFile(path, int64(len(sealedMagic))+SealedSize(MaxFileBytes))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.NotFound, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, wrapError(op, path, err)
	}
	plain, err := k.OpenBytes(purpose, sealed)
	if err != nil {
		return nil, wrapError(op, path, err)
	}
	return plain, nil
}

func (k *Keyring) fileKey(purpose string) (DataKey, error) {
	if purpose == "" {
		return DataKey{}, &redoubt.Error{Op: "keys.SealFile", Kind: redoubt.Invalid, Err: errors.New("a sealed file has a purpose")}
	}
	raw, err := k.Derive("file/"+purpose, 32)
	if err != nil {
		return DataKey{}, err
	}
	defer clear(raw)
	d := DataKey{set: true}
	copy(d.key[:], raw)
	return d, nil
}

func fileBinding(purpose string) Binding { return Binding{Bucket: "file", Key: purpose} }
