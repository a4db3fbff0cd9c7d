package embedded_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// faultFS counts every change of the disk beneath it, and can spoil one.
type faultFS struct {
	vfs.FS
	mu    sync.Mutex
	count int
	// at is the change that goes wrong, from 1; 0: none.
	at   int
	mode int
	torn *rand.Rand
	// freezes: from change at on, nothing happens any more
	dead bool
}

const (
	failOnce = iota // the change fails; the disk is well again after it
	failFull        // from here on every write gives ENOSPC
	powerOff        // the change may happen in part; all after it fail
)

var errDisk = errors.New("injected disk error")

// change is asked before each change; n is what of the write may happen, -1 for all of it.
func (f *faultFS) change(n int) (allowed int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	switch {
	case f.dead:
		return 0, errDisk
	case f.at == 0 || f.count < f.at || f.mode != failFull && f.count > f.at:
		return -1, nil
	}
	switch f.mode {
	case failFull:
		if n >= 0 {
			return 0, syscall.ENOSPC
		}
		return -1, nil
	case powerOff:
		f.dead = true
		if n > 0 && f.torn != nil {
			return f.torn.IntN(n + 1), errDisk
		}
	}
	return 0, errDisk
}

func (f *faultFS) changes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

func (f *faultFS) spoil(at, mode int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.mode = at, mode
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if _, err := f.change(-1); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.Create(name, c))
}

func (f *faultFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if _, err := f.change(-1); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.OpenReadWrite(name, c, o...))
}

func (f *faultFS) OpenDir(name string) (vfs.File, error) { return f.wrap(f.FS.OpenDir(name)) }

func (f *faultFS) Remove(name string) error {
	if _, err := f.change(-1); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *faultFS) Rename(a, b string) error {
	if _, err := f.change(-1); err != nil {
		return err
	}
	return f.FS.Rename(a, b)
}

func (f *faultFS) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f}, nil
}

type faultFile struct {
	vfs.File
	fs *faultFS
}

func (f *faultFile) Write(p []byte) (int, error) {
	n, err := f.fs.change(len(p))
	if err != nil {
		if n > 0 {
			f.File.Write(p[:n])
		}
		return 0, err
	}
	return f.File.Write(p)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.fs.change(len(p))
	if err != nil {
		if n > 0 {
			f.File.WriteAt(p[:n], off)
		}
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Sync() error {
	if _, err := f.fs.change(-1); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) SyncData() error {
	if _, err := f.fs.change(-1); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *faultFile) Fd() uintptr { return vfs.InvalidFd }
