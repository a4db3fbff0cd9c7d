package redoubttest

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"redoubt/enclave"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
	"redoubt/store/memory"
)

// Disk is what of a Stack outlives it: an engine in memory and a keyring file. One Stack at a time stands on it.
type Disk struct {
	engine   *memory.Engine
	ring     string
	secret   keys.Unlock
	sessions uint64
}

// NewDisk makes an empty one.
func NewDisk(t testing.TB) *Disk {
	dir := t.TempDir()
	return &Disk{engine: memory.Open(), ring: filepath.Join(dir, "ring"), secret: keys.KeyFile(filepath.Join(dir, "key"))}
}

// Cut takes the power away: what was committed stays, and whatever still stands on the disk fails from now on.
func (d *Disk) Cut() { d.engine = d.engine.Reopen() }

// Bytes is how many bytes the catalogue's keys and values have, the log aside.
func (d *Disk) Bytes() (n int, err error) {
	return n, d.scan(nil, func(key, value []byte) error { n += len(key) + len(value); return nil })
}

// Shows says whether any key or value of the catalogue has a text in it.
func (d *Disk) Shows(text string) (found bool, err error) {
	return found, d.scan(nil, func(key, value []byte) error {
		found = found || bytes.Contains(key, []byte(text)) || bytes.Contains(value, []byte(text))
		return nil
	})
}

// Labels is every label that anything in the catalogue is kept under.
func (d *Disk) Labels() (all []label.Label, err error) {
	policy, err := label.Builtin("USA")
	if err != nil {
		return nil, err
	}
	return all, d.scan([]byte{'l'}, func(_, text []byte) error {
		l, err := label.ParseText(text, policy)
		all = append(all, l)
		return err
	})
}

func (d *Disk) scan(prefix []byte, each func(key, value []byte) error) error {
	view := d.engine.View()
	defer view.Close()
	var end []byte
	if len(prefix) > 0 {
		end = []byte{prefix[0] + 1}
	}
	it := view.Scan(prefix, end)
	defer it.Close()
	for it.Next() {
		if err := each(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Err()
}

// mount opens the disk for a Stack.
func (d *Disk) mount(random *Rand) (store.Engine, *keys.Keyring, error) {
	d.sessions++
	if d.sessions > 1 {
		d.engine = d.engine.Reopen()
		ring, err := keys.Open(d.ring, d.secret)
		return d.engine, ring, err
	}
	ring, err := keys.Create(d.ring, d.secret, random)
	return d.engine, ring, err
}

// Cut takes a Stack's power away: what it committed stays, and whatever it does from now on fails. Stop ends what runs of it.
func (s *Stack) Cut() {
	s.cut = true
	s.disk.Cut()
}

// Entries is how many entries the journals ever had.
func (d *Disk) Entries() (n uint64, err error) {
	return n, d.scan([]byte{'j'}, func(key, value []byte) error {
		if len(key) == 5 {
			n += binary.LittleEndian.Uint64(value)
		}
		return nil
	})
}

// Device is a device as its home declares it.
type Device = enclave.DeclaredDevice
