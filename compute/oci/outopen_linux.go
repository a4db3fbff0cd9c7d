package oci

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

// outOpen is an open file or folder.
type outOpen struct {
	lisafs.OpenFD
	openRefusals
	fs *outFS
	n  *outNode
	f  *os.File // nil: a folder

	mu    sync.Mutex
	names []string
	next  int
}

func (o *outOpen) FD() *lisafs.OpenFD { return &o.OpenFD }

// Close implements lisafs.OpenFDImpl.
func (o *outOpen) Close() {
	if o.f == nil {
		return
	}
	o.f.Close()
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	o.n.opens--
	o.fs.forget(o.n)
}

// Stat implements lisafs.OpenFDImpl.
func (o *outOpen) Stat() (lisafs.Statx, error) {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	return o.fs.statx(o.n)
}

// Sync implements lisafs.OpenFDImpl. Nothing here outlives the run.
func (o *outOpen) Sync() error { return nil }

// Write implements lisafs.OpenFDImpl.
func (o *outOpen) Write(buf []byte, off uint64) (uint64, error) {
	if o.f == nil {
		return 0, unix.EISDIR
	}
	if off > 1<<62 {
		return 0, unix.EFBIG
	}
	n, err := unix.Pwrite(int(o.f.Fd()), buf, int64(off))
	if n <= 0 && err != nil {
		return 0, err
	}
	o.fs.mu.Lock()
	o.n.m = time.Now()
	o.fs.mu.Unlock()
	return uint64(n), nil
}

// Read implements lisafs.OpenFDImpl.
func (o *outOpen) Read(buf []byte, off uint64) (uint64, error) {
	if o.f == nil {
		return 0, unix.EISDIR
	}
	if off > 1<<62 {
		return 0, nil
	}
	n, err := unix.Pread(int(o.f.Fd()), buf, int64(off))
	return uint64(max(0, n)), err
}

// Allocate implements lisafs.OpenFDImpl.
func (o *outOpen) Allocate(mode, off, length uint64) error {
	if o.f == nil || off > 1<<62 || length > 1<<62 {
		return unix.EINVAL
	}
	return unix.Fallocate(int(o.f.Fd()), uint32(mode), int64(off), int64(length))
}

// Getdent64 implements lisafs.OpenFDImpl.
func (o *outOpen) Getdent64(count uint32, seek0 bool, record func(lisafs.Dirent64)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	if !o.n.isDir() {
		return unix.ENOTDIR
	}
	if seek0 || o.names == nil {
		o.names, o.next = sortedNames(o.n.children), 0
	}
	for used := 0; o.next < len(o.names); o.next++ {
		name := o.names[o.next]
		c := o.n.children[name]
		if c == nil { // removed since
			continue
		}
		if used += direntBytes(name); used > int(count) {
			return nil
		}
		record(lisafs.Dirent64{Ino: primitive.Uint64(c.ino), Off: primitive.Uint64(o.next + 1), Type: primitive.Uint8(c.mode & unix.S_IFMT >> 12), Name: lisafs.SizedString(name)})
	}
	return nil
}
