package wasm

import (
	"os"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// limited gives modules their memory, up to a bound: one after the other. All that a memory may ever take is mapped at once, without a page behind it; as it grows
// more of it may be written. So it never moves, and what is not used costs nothing, but for the first of it, which is there before the module touches it.
type limited struct {
	most    uint64
	refused bool    // more was asked for
	last    *memory // that a module has, or had: nil, or what the next one is given
}

type memory struct {
	of   *limited
	all  []byte
	open uint64 // that a module may have written
}

// Allocate implements experimental.MemoryAllocator.
func (l *limited) Allocate(_, max uint64) experimental.LinearMemory {
	size := min(max, l.most)
	if m := l.last; m != nil {
		if uint64(len(m.all)) == size && m.wipe() == nil {
			return m
		}
		if m.all != nil {
			_ = unix.Munmap(m.all)
		}
	}
	all, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		all = nil
	}
	l.last = &memory{of: l, all: all}
	return l.last
}

// wipe leaves nothing of what the last module has written, but where the kernel refuses: then the next one has another memory.
func (l *limited) wipe() {
	if l.last != nil {
		_ = l.last.wipe()
	}
}

// wipe leaves nothing of what was written.
func (m *memory) wipe() error {
	warm := min(m.open, warmBytes)
	clear(m.all[:warm])
	if m.open == warm {
		return nil
	}
	return unix.Madvise(m.all[warm:m.open], unix.MADV_DONTNEED) // of memory that is ours alone: it reads as zeros then
}

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.open {
		if size > uint64(len(m.all)) || unix.Mprotect(m.all[:size], unix.PROT_READ|unix.PROT_WRITE) != nil {
			m.of.refused = true
			return nil
		}
		if warm := min(size, warmBytes); warm > m.open {
			_ = unix.Madvise(m.all[m.open:warm], unix.MADV_POPULATE_WRITE) // kernels before 5.14 have it come as it is touched
		}
		m.open = size
	}
	return m.all[:size]
}

// Free implements experimental.LinearMemory. Whoever waits for the module's end does not wait for this: the next one's memory is wiped first.
func (m *memory) Free() {}

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
