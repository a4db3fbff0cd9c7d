package keys

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// resum repairs a keyring file's checksum.
func resum(file []byte) []byte {
	file = slices.Clone(file)
	sum := sha256.Sum256(file[:len(file)-32])
	copy(file[len(file)-32:], sum[:])
	return file
}

var errDisk = errors.New("injected disk fault")

// failingDisk fails the call number failAt that changes anything, and every one after
// it when dead: a fault, or a crash. Half of what a failing write would write may be there.
type failingDisk struct {
	osDisk
	calls, failAt int
	dead          bool
}

func (d *failingDisk) fails() bool {
	d.calls++
	return d.calls == d.failAt || d.dead && d.calls > d.failAt && d.failAt > 0
}

func (d *failingDisk) WriteNew(path string, data []byte) error {
	if d.fails() {
		if d.calls == d.failAt {
			d.osDisk.WriteNew(path, data[:len(data)/2])
		}
		return errDisk
	}
	return d.osDisk.WriteNew(path, data)
}

func (d *failingDisk) Link(old, new string) error {
	if d.fails() {
		return errDisk
	}
	return d.osDisk.Link(old, new)
}

func (d *failingDisk) Rename(old, new string) error {
	if d.fails() {
		return errDisk
	}
	return d.osDisk.Rename(old, new)
}

func (d *failingDisk) Remove(path string) error {
	if d.fails() {
		return errDisk
	}
	return d.osDisk.Remove(path)
}

func (d *failingDisk) SyncDir(dir string) error {
	if d.fails() {
		return errDisk
	}
	return d.osDisk.SyncDir(dir)
}

func (d *failingDisk) Overwrite(path string) error {
	if d.fails() {
		if d.calls == d.failAt {
			os.Truncate(path, 10) // cut down in the middle of it
		}
		return errDisk
	}
	return d.osDisk.Overwrite(path)
}

// TestEveryFailedWriteLeavesAReadableKeyring fails each write of each change once, as a
// fault that passes and as a crash, and reopens.
func TestEveryFailedWriteLeavesAReadableKeyring(t *testing.T) {
	changes := map[string]func(k *Keyring) error{
		"rotate": func(k *Keyring) error { _, err := k.Rotate(secretLabel); return err },
		"label":  func(k *Keyring) error { _, _, err := k.NewDataKey([]byte("new")); return err },
		"secret": func(k *Keyring) error {
			_, err := k.Secret("s", func() ([]byte, error) { return []byte("x"), nil })
			return err
		},
		"destroy": func(k *Keyring) error { return k.DestroyEpoch(secretLabel, 1) },
		"unlock":  func(k *Keyring) error { return k.ChangeUnlock(plainUnlock{}) },
	}
	for name, change := range changes {
		for _, dead := range []bool{false, true} {
			for failAt := 1; ; failAt++ {
				path := filepath.Join(t.TempDir(), "keyring")
				d := &failingDisk{dead: dead}
				k := must[*Keyring](t)(createOn(d, path, plainUnlock{}, nil))
				k.NewDataKey(secretLabel)
				k.Rotate(secretLabel)
				key, w, err := k.NewDataKey(secretLabel)
				if err != nil {
					t.Fatal(err)
				}
				before := d.calls
				d.failAt = before + failAt
				err = change(k)
				reached := d.calls >= d.failAt
				if reached && err == nil {
					t.Fatalf("%s: write %d failed unnoticed", name, failAt)
				}
				if got, err := k.DataKey(secretLabel, w); err != nil || got != key {
					t.Fatalf("%s: write %d: the open keyring lost a key: %v", name, failAt, err)
				}
				if !dead && reached { // the fault passes: the same change works now
					if err := change(k); err != nil {
						t.Fatalf("%s: after write %d failed: %v", name, failAt, err)
					}
				}
				k.Close()
				k, err = Open(path, plainUnlock{})
				if err != nil {
					t.Fatalf("%s: write %d failed (dead %v): %v", name, failAt, dead, err)
				}
				if got, err := k.DataKey(secretLabel, w); err != nil || got != key {
					t.Fatalf("%s: write %d: the file lost a key: %v", name, failAt, err)
				}
				if err := change(k); err != nil {
					t.Fatalf("%s: after reopening: %v", name, err)
				}
				k.Close()
				for _, left := range []string{".old", ".new"} {
					if there, _ := (osDisk{}).Exists(path + left); there {
						t.Errorf("%s: write %d: %s is left", name, failAt, left)
					}
				}
				if !reached {
					break
				}
			}
		}
	}
}

func TestEveryFailedWriteOfCreateCanBeTriedAgain(t *testing.T) {
	for failAt := 1; ; failAt++ {
		path := filepath.Join(t.TempDir(), "keyring")
		d := &failingDisk{failAt: failAt, dead: true}
		k, err := createOn(d, path, plainUnlock{}, nil)
		if err == nil {
			k.Close()
			if d.calls >= failAt {
				t.Fatalf("write %d failed unnoticed", failAt)
			}
			return
		}
		there, _ := (osDisk{}).Exists(path)
		if there {
			k, err = Open(path, plainUnlock{})
		} else {
			k, err = Create(path, plainUnlock{}, nil)
		}
		if err != nil {
			t.Fatalf("write %d: %v", failAt, err)
		}
		k.Close()
	}
}
