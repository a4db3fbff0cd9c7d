package sandbox

import (
	"errors"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// Window is memory that we share with one process that works for us. We put pieces of what it reads there, so that they are not copied into the kernel and out
// of it again. Only we write, and never read: nothing in it is believed.
type Window struct {
	file  *os.File
	piece uint64

	mu     sync.RWMutex // held to write
	b      []byte       // nil: no more
	closed bool
}

// NewWindow makes one with room for so many pieces. Nobody can change its size, and nobody who is given its file can write to it.
func NewWindow(pieces, pieceBytes int) (*Window, error) {
	fd, err := unix.MemfdCreate("window", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	w := &Window{file: os.NewFile(uintptr(fd), "window"), piece: uint64(pieceBytes)}
	if err = unix.Ftruncate(fd, int64(pieces*pieceBytes)); err == nil { // its pages come as they are written to
		w.b, err = unix.Mmap(fd, 0, pieces*pieceBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err == nil {
		_, err = unix.FcntlInt(w.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// File is what the other side maps.
func (w *Window) File() *os.File { return w.file }

// Put has fill write a piece at a place. A machine without memory is an error, and not our end. After Close, and of a nil window, it is an error too.
func (w *Window) Put(place uint64, n uint64, fill func([]byte) (int, error)) (got int, err error) {
	if w == nil {
		return 0, unix.EBADF
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if n > w.piece || place >= uint64(len(w.b))/w.piece {
		return 0, unix.EBADF
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			got, err = 0, unix.ENOMEM
		}
	}()
	return fill(w.b[place*w.piece:][:n])
}

// Close ends it. What the other side has mapped stays there.
func (w *Window) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.file.Close()
	if w.b != nil {
		err = errors.Join(err, unix.Munmap(w.b))
	}
	w.b = nil
	return err
}

// LookThrough maps the window that this worker was given.
func LookThrough(pieces, pieceBytes int) ([]byte, error) {
	// Not MAP_SHARED, which no worker may: what is never written to is the file's own pages all the same.
	return unix.Mmap(windowFD, 0, pieces*pieceBytes, unix.PROT_READ, unix.MAP_PRIVATE)
}
