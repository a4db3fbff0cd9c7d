package oci

import (
	"errors"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// window is memory that the node and one keeper share. The node puts pieces of inputs there, so that they are not copied into a socket and out of it
// again. Only the node believes nothing of it: it writes, and never reads. What does not fit goes by the socket.
type window struct {
	mu sync.RWMutex // held to write; guards b
	b  []byte       // nil: no more
}

// windowPieces is how many pieces it has room for.
const windowPieces = 8

// newWindow makes one, and the file that the keeper maps. Nobody can change its size.
func newWindow() (*window, *os.File, error) {
	f, err := memfile("window", nil)
	if err != nil {
		return nil, nil, err
	}
	if err = unix.Fallocate(int(f.Fd()), 0, 0, windowPieces*pieceBytes); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	var b []byte
	if err == nil {
		b, err = unix.Mmap(int(f.Fd()), 0, windowPieces*pieceBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &window{b: b}, f, nil
}

// put has fill write a piece at a place. A machine without memory is an error, and not the node's end: the keeper may have given pages back.
func (w *window) put(place uint64, n uint64, fill func([]byte) (int, error)) (got int, err error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.b == nil || place >= windowPieces || n > pieceBytes {
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
	return fill(w.b[place*pieceBytes:][:n])
}

func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.b != nil {
		_ = unix.Munmap(w.b)
	}
	w.b = nil
}

// places are a window as its keeper has it.
type places struct {
	b    []byte
	free chan int
}

func newPlaces(f *os.File) (*places, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, windowPieces*pieceBytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	p := &places{b: b, free: make(chan int, windowPieces)}
	for i := range windowPieces {
		p.free <- i
	}
	return p, nil
}

// take gives a place that nothing is in; none: there is none.
func (p *places) take() int {
	if p != nil {
		select {
		case i := <-p.free:
			return i
		default:
		}
	}
	return noPlace
}

// noPlace has a piece come with the answer.
const noPlace = -1
