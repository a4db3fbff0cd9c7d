package embedded

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// cryptFS is the directory in which pebble keeps the index: every file is sealed
// under a random key of its own, and the names on the disk are random. The names that
// pebble knows and the keys are in one small table, sealed under the engine
// key and replaced in one step. A file whose key has left the table is gone,
// whatever becomes of its blocks.
//
// Tables (*.sst) are written once from front to back and read anywhere: pageFile. All else
// is short and read from front to back: streamFile.
type cryptFS struct {
	fs   vfs.FS
	dir  string
	seal cipher.AEAD // of the table

	// broken is set once a file of the index other than a table, or the directory, could not be written. Pebble
	// ends the process then. We rather let it go on in memory: nothing more of the index
	// reaches the disk, which keeps its last good state, and the engine refuses writes until it is reopened.
	broken atomic.Pointer[error]
	ended  chan struct{} // closed when the engine closes

	gone func() // called when a file was removed; set by who waits for that

	mu     sync.Mutex
	table  map[string]fileKey
	doomed []string // disk names out of the table, to be removed once that is durable
	dirty  bool
}

// openCryptFS reads the table of dir, and removes what no entry speaks of.
func openCryptFS(fsys vfs.FS, dir string, seal cipher.AEAD) (*cryptFS, error) {
	c := &cryptFS{fs: fsys, dir: dir, seal: seal, table: map[string]fileKey{}, ended: make(chan struct{})}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	if slices.Contains(names, tableName) {
		if err := c.readTable(); err != nil {
			return nil, err
		}
	}
	if err := c.readStreams(names); err != nil {
		return nil, err
	}
	known := map[string]bool{tableName: true}
	for _, k := range c.table {
		known[k.diskName()] = true
	}
	for _, name := range names {
		if !known[name] {
			if err := fsys.Remove(c.path(name)); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// readStreams verifies the short files, since pebble does not read all of them.
func (c *cryptFS) readStreams(names []string) error {
	for name, k := range c.table {
		if isPaged(name) || !slices.Contains(names, k.diskName()) {
			continue
		}
		f, err := c.Open(name)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (c *cryptFS) path(diskName string) string { return c.fs.PathJoin(c.dir, diskName) }

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func isPaged(name string) bool { return strings.HasSuffix(name, ".sst") }

// Create makes a file with a new key.
func (c *cryptFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	name = c.fs.PathBase(name)
	if len(name) > 255 {
		return nil, fmt.Errorf("name of %d bytes", len(name))
	}
	var id [8]byte
	rand.Read(id[:])
	k := fileKey{binary.BigEndian.Uint64(id[:]), newKey()}
	aead, err := newAEAD(k.key)
	if err != nil {
		return nil, err
	}
	f, err := c.createOnDisk(k, category, isPaged(name))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.drop(name)
	c.table[name], c.dirty = k, true
	c.mu.Unlock()
	if isPaged(name) {
		return newPageFile(f, aead, k.id), nil
	}
	return &streamFile{File: f, aead: aead, id: k.id, writable: true, c: c}, nil
}

// retryPause spaces the attempts of pebble, which repeats a failed flush at once.
const retryPause = 100 * time.Millisecond

// createOnDisk makes the file; nil, without an error, for one that no longer matters.
func (c *cryptFS) createOnDisk(k fileKey, category vfs.DiskWriteCategory, paged bool) (vfs.File, error) {
	err := c.brokenBy()
	if err == nil {
		var f vfs.File
		if f, err = c.fs.Create(c.path(k.diskName()), category); err == nil {
			return f, nil
		}
	}
	if !paged {
		c.breaks(err)
		return nil, nil
	}
	select {
	case <-time.After(retryPause):
	case <-c.ended:
	}
	return nil, err
}

// drop takes name from the table. The caller holds mu.
func (c *cryptFS) drop(name string) bool {
	k, ok := c.table[name]
	if ok {
		delete(c.table, name)
		c.doomed, c.dirty = append(c.doomed, k.diskName()), true
	}
	return ok
}

func (c *cryptFS) lookup(op, name string) (fileKey, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.table[c.fs.PathBase(name)]
	if !ok {
		return k, notExist(op, name)
	}
	return k, nil
}

// Open opens a file for reading.
func (c *cryptFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	k, err := c.lookup("open", name)
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(k.key)
	if err != nil {
		return nil, err
	}
	f, err := c.fs.Open(c.path(k.diskName()), opts...)
	if err != nil {
		return nil, err
	}
	if isPaged(name) {
		return newPageFile(f, aead, k.id), nil
	}
	s := &streamFile{File: f, aead: aead, id: k.id}
	if err := s.load(); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// Remove drops a file's key at once; its blocks follow when the table is durable.
func (c *cryptFS) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.drop(c.fs.PathBase(name)) {
		return notExist("remove", name)
	}
	if c.gone != nil {
		c.gone()
	}
	if len(c.doomed) >= doomedAtOnce && c.broken.Load() == nil {
		c.breaks(c.persistLocked())
	}
	return nil
}

// Rename gives a file another name in the table.
func (c *cryptFS) Rename(oldname, newname string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldname, newname = c.fs.PathBase(oldname), c.fs.PathBase(newname)
	k, ok := c.table[oldname]
	if !ok {
		return notExist("rename", oldname)
	}
	c.drop(newname)
	delete(c.table, oldname)
	c.table[newname], c.dirty = k, true
	return nil
}

// OpenDir opens the directory, of which only Sync means anything.
func (c *cryptFS) OpenDir(name string) (vfs.File, error) {
	f, err := c.fs.OpenDir(c.dir)
	if err != nil {
		c.breaks(err)
	}
	return &cryptDir{f, c}, nil
}

type cryptDir struct {
	vfs.File
	c *cryptFS
}

func (d *cryptDir) Sync() error {
	if d.c.broken.Load() == nil {
		d.c.breaks(d.c.persist())
	}
	return nil
}

func (d *cryptDir) SyncData() error { return d.Sync() }

func (d *cryptDir) Close() error {
	if d.File == nil {
		return nil
	}
	return d.File.Close()
}

// List names the files of the table that exist.
func (c *cryptFS) List(string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.table)), nil
}

// Stat tells the size of the content, not of its sealed form.
func (c *cryptFS) Stat(name string) (vfs.FileInfo, error) {
	if base := c.fs.PathBase(name); base == indexRoot {
		return c.fs.Stat(c.dir)
	}
	f, err := c.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func tableFile(number uint64) string { return fmt.Sprintf("%06d.sst", number) }

var errUnsupported = errors.New("not supported by the index's file system")

func (c *cryptFS) Link(oldname, newname string) error { return errUnsupported }
func (c *cryptFS) RemoveAll(name string) error        { return errUnsupported }
func (c *cryptFS) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, errUnsupported
}
func (c *cryptFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := c.Remove(oldname); err != nil {
		return nil, err
	}
	return c.Create(newname, category)
}
func (c *cryptFS) MkdirAll(string, os.FileMode) error { return nil }

// Lock does nothing: the engine holds the lock of the whole state.
func (c *cryptFS) Lock(string) (io.Closer, error)                  { return io.NopCloser(nil), nil }
func (c *cryptFS) PathBase(path string) string                     { return c.fs.PathBase(path) }
func (c *cryptFS) PathJoin(elem ...string) string                  { return c.fs.PathJoin(elem...) }
func (c *cryptFS) PathDir(path string) string                      { return c.fs.PathDir(path) }
func (c *cryptFS) GetDiskUsage(path string) (vfs.DiskUsage, error) { return c.fs.GetDiskUsage(c.dir) }
func (c *cryptFS) Unwrap() vfs.FS                                  { return nil }
