package main

import "golang.org/x/sys/unix"

// warm touches as much memory as a run of a load fills, in the page caches of whoever has it on its way, and holds it until the run begins. A virtual machine
// whose host takes back what is free pays several times for a page that it touches first; whether one that was free lately is such a page is chance, and no
// two runs compare that differ in it. On a machine that has its memory for itself it changes nothing. begin lets go of it; a second call does nothing.
func (o options) warm(size, n int) (begin func(), err error) {
	if o.fresh {
		return func() {}, nil
	}
	const copies, more = 3, 256 * mib
	mem, err := unix.Mmap(-1, 0, copies*size*n+more, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(mem); i += 4 * kib {
		mem[i] = 1
	}
	return func() {
		if mem != nil {
			_ = unix.Munmap(mem)
			mem = nil
		}
	}, nil
}
