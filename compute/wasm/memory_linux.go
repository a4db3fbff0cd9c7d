package wasm

import (
	"os"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// limited gives modules their memory, up to a bound. All that a memory may ever take is mapped at once, without a page behind it; as it grows
// more of it may be written. So it never moves, and what is not used costs nothing.
type limited struct {
	most, used uint64
	refused    bool // more was asked for
}

type memory struct {
	of  *limited
	all []byte
	use uint64
}

// Allocate implements experimental.MemoryAllocator.
func (l *limited) Allocate(_, max uint64) experimental.LinearMemory {
	all, err := unix.Mmap(-1, 0, int(min(max, l.most)), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		all = nil
	}
	return &memory{of: l, all: all}
}

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.use {
		if size > uint64(len(m.all)) || m.of.used+size-m.use > m.of.most || unix.Mprotect(m.all[:size], unix.PROT_READ|unix.PROT_WRITE) != nil {
			m.of.refused = true
			return nil
		}
		m.of.used, m.use = m.of.used+size-m.use, size
	}
	return m.all[:size]
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() {
	if m.all != nil {
		_ = unix.Munmap(m.all) // the process is about to end
		m.all, m.of.used, m.use = nil, m.of.used-m.use, 0
	}
}

func readRandom(p []byte) (int, error) { return unix.Getrandom(p, 0) }

// bound leaves as much of the worker's disk as the module may have.
func bound(disk int64) error {
	f, err := os.OpenFile("/tmp/ballast", os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	if over := int64(st.Bavail)*st.Bsize - disk; over > 0 {
		return unix.Fallocate(int(f.Fd()), 0, 0, over)
	}
	return nil
}
