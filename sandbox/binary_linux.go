package sandbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"redoubt"
)

// Binary is a program of ours that has workers and little else: it begins sooner than our own binary, which sets up all that a node may need. It lies in
// memory, where nobody changes it.
type Binary struct {
	file *os.File

	mu     sync.Mutex
	closed bool
	starts map[way]*launcher
}

// leastFD is above the descriptors that a child gets, which would take the place of one that it is to execute.
const leastFD = 64

// machines are those that Redoubt is built for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// NewBinary takes in a static binary of this machine whose main begins with Enter.
func NewBinary(content string) (*Binary, error) {
	fail := func(err error) (*Binary, error) {
		return nil, &redoubt.Error{Op: "sandbox.NewBinary", Kind: redoubt.Unavailable, Err: err}
	}
	if f, err := elf.NewFile(strings.NewReader(content)); err != nil || interpreted(f) {
		return fail(errors.Join(err, errors.New("it is no static binary")))
	} else if f.Machine != machines[runtime.GOARCH] || f.Class != elf.ELFCLASS64 {
		return fail(fmt.Errorf("it is of another machine: %v, %v", f.Machine, f.Class))
	}
	fd, err := unix.MemfdCreate("redoubt-worker", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // a kernel before 6.3, where every such file can be executed
		fd, err = unix.MemfdCreate("redoubt-worker", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fail(err)
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, leastFD)
	unix.Close(fd)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(high), "redoubt-worker")
	if _, err = f.WriteString(content); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return fail(err)
	}
	return &Binary{file: f, starts: map[way]*launcher{}}, nil
}

// path is where the binary is executed from; that of our own where there is none.
func (b *Binary) path() string {
	if b == nil {
		return "/proc/self/exe"
	}
	return "/proc/self/fd/" + strconv.Itoa(int(b.file.Fd()))
}
