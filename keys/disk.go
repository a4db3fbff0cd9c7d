package keys

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is the file system as the keyring uses it; tests hand in one that fails.
type disk interface {
	ReadFile(path string, limit int64) ([]byte, error)
	// WriteNew makes path with exactly data, mode 0600, synced; an older file there goes.
	WriteNew(path string, data []byte) error
	Link(old, new string) error
	Rename(old, new string) error
	Remove(path string) error
	SyncDir(dir string) error
	// Overwrite fills path with random bytes in place and syncs it.
	Overwrite(path string) error
	// SameFile reports whether both names are one file; false when either is missing.
	SameFile(a, b string) (bool, error)
	Exists(path string) (bool, error)
}

// replace makes data the content of path, durable on return, and then destroys the old
// content. At every instant path holds the whole old or the whole new content.
//
// The old file is kept reachable as path+".old" until it is overwritten, so a crash in
// between leaves something that finish can still overwrite.
func replace(d disk, path string, data []byte) error {
	dir, next, old := filepath.Dir(path), path+".new", path+".old"
	if err := finish(d, path); err != nil { // of an earlier replace that failed
		return err
	}
	if err := d.WriteNew(next, data); err != nil {
		return err
	}
	if err := d.Link(path, old); err != nil {
		return err
	}
	if err := d.Rename(next, path); err != nil {
		return err
	}
	if err := d.SyncDir(dir); err != nil {
		return err
	}
	return finish(d, path)
}

// finish destroys what an interrupted replace left behind. path must hold a whole keyring.
func finish(d disk, path string) error {
	dir, next, old := filepath.Dir(path), path+".new", path+".old"
	left, err := d.Exists(old)
	if err != nil {
		return err
	}
	if left {
		// Linked but not yet renamed: old is the keyring itself, under a second name.
		same, err := d.SameFile(path, old)
		if err != nil {
			return err
		}
		if !same {
			// The rename must be on disk before the only other copy goes.
			if err := d.SyncDir(dir); err != nil {
				return err
			}
			if err := d.Overwrite(old); err != nil {
				return err
			}
		}
		if err := d.Remove(old); err != nil {
			return err
		}
	}
	fresh, err := d.Exists(next)
	if err != nil {
		return err
	}
	if fresh {
		if err := d.Overwrite(next); err != nil {
			return err
		}
		if err := d.Remove(next); err != nil {
			return err
		}
	}
	if left || fresh {
		return d.SyncDir(dir)
	}
	return nil
}

// create makes path with data, durable on return; fs.ErrExist when it exists.
func create(d disk, path string, data []byte) error {
	next := path + ".new"
	if err := d.WriteNew(next, data); err != nil {
		return err
	}
	if err := d.Link(next, path); err != nil { // unlike Rename, never replaces
		return errors.Join(err, d.Remove(next))
	}
	if err := d.Remove(next); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// osDisk is the machine's own file system.
type osDisk struct{}

func (osDisk) ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errors.New("file is too large")
	}
	return data, err
}

func (osDisk) WriteNew(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func (osDisk) Link(old, new string) error   { return os.Link(old, new) }
func (osDisk) Rename(old, new string) error { return os.Rename(old, new) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

func (osDisk) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osDisk) Overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = io.CopyN(f, rand.Reader, st.Size())
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func (osDisk) SameFile(a, b string) (bool, error) {
	sa, err := os.Lstat(a)
	if err != nil {
		return false, err
	}
	sb, err := os.Lstat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(sa, sb), nil
}

func (osDisk) Exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
