package embedded

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"redoubt"
)

type fileKey struct {
	id  uint64
	key []byte
}

func (k fileKey) diskName() string {
	return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, k.id))
}

const (
	tableName    = "keys"
	tableTemp    = "keys.new"
	tableMagic   = "RDBTKEY1"
	maxTableFile = 16 << 20 // 200,000 files
	doomedAtOnce = 16
)

func (c *cryptFS) readTable() error {
	sealed, err := readWhole(c.fs, c.path(tableName), maxTableFile)
	if err != nil {
		return err
	}
	rest, ok := bytes.CutPrefix(sealed, []byte(tableMagic))
	if !ok {
		return corrupt("file keys", errors.New("not a table of file keys"))
	}
	plain, err := c.seal.Open(nil, nil, rest, []byte(tableMagic))
	if err != nil {
		return &redoubt.Error{Op: "store.Open", Object: "file keys", Kind: redoubt.Corrupt, Err: err,
			Hint: "the key of this store is another one, or its table of file keys is damaged: open with the right key, or restore a backup"}
	}
	for len(plain) > 0 {
		if len(plain) < 1 || len(plain) < 1+int(plain[0])+8+keyBytes {
			return corrupt("file keys", errors.New("table is malformed"))
		}
		n := int(plain[0])
		name, rest := string(plain[1:1+n]), plain[1+n:]
		c.table[name] = fileKey{binary.BigEndian.Uint64(rest), bytes.Clone(rest[8 : 8+keyBytes])}
		plain = rest[8+keyBytes:]
	}
	return nil
}

// breaks notes an error that pebble must not see.
func (c *cryptFS) breaks(err error) {
	if err != nil {
		c.broken.CompareAndSwap(nil, &err)
		if c.gone != nil {
			c.gone()
		}
	}
}

// brokenBy is what broke it, or nil.
func (c *cryptFS) brokenBy() error {
	if p := c.broken.Load(); p != nil {
		e := &redoubt.Error{Op: "store", Kind: redoubt.Unavailable, Err: fmt.Errorf("the index could not be written: %w", *p), Hint: "reopen the store"}
		if redoubt.KindOf(diskError("store", *p)) == redoubt.DiskFull {
			e.Kind, e.Hint = redoubt.DiskFull, "free some disk and reopen the store"
		}
		return e
	}
	return nil
}

// persist makes the table durable, and then removes the files that left it.
func (c *cryptFS) persist() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.persistLocked()
}

func (c *cryptFS) persistLocked() error {
	if err := c.brokenBy(); err != nil {
		return err
	}
	if err := syncDir(c.fs, c.dir); err != nil {
		return err
	}
	if c.dirty {
		var plain []byte
		for _, name := range slices.Sorted(maps.Keys(c.table)) {
			k := c.table[name]
			plain = append(plain, byte(len(name)))
			plain = append(plain, name...)
			plain = binary.BigEndian.AppendUint64(plain, k.id)
			plain = append(plain, k.key...)
		}
		sealed := c.seal.Seal([]byte(tableMagic), nil, plain, []byte(tableMagic))
		if err := replaceFile(c.fs, c.dir, tableTemp, tableName, sealed); err != nil {
			return err
		}
		c.dirty = false
	}
	var errs error
	for _, name := range c.doomed {
		if err := c.fs.Remove(c.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
	}
	c.doomed = nil
	return errs
}

// tables names the table files.
func (c *cryptFS) tables() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.table {
		if isPaged(name) {
			names = append(names, name)
		}
	}
	return names
}

// named lists the files whose name starts with prefix.
func (c *cryptFS) named(prefix string) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.table {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

func (c *cryptFS) has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.table[name]
	return ok
}

// check reads the table of keys back from the disk.
func (c *cryptFS) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.persistLocked(); err != nil {
		return err
	}
	again := &cryptFS{fs: c.fs, dir: c.dir, seal: c.seal, table: map[string]fileKey{}}
	if err := again.readTable(); err != nil {
		return err
	}
	if len(again.table) != len(c.table) {
		return errors.New("table on disk is another one")
	}
	return nil
}
