package oci

import (
	"os"

	"golang.org/x/sys/unix"
)

// windowPieces is how many pieces of inputs the node and one keeper have room for in memory that they share.
const windowPieces = 8

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
