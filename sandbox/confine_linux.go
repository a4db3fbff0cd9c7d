package sandbox

import (
	"syscall"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"redoubt"
)

// Confine leaves this process, every thread of it and all that it starts, the files of some folders to write and some others to read, for good.
// A process that is confined can neither trace one that is not, nor read its memory. Its network stays as it was. What is not there is passed
// over. An error: the kernel has no Landlock that knows moves between folders (5.19), and nothing has changed.
func Confine(write, read []string) error {
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 2 {
		return &redoubt.Error{Op: "sandbox.Confine", Kind: redoubt.NotImplemented, Hint: "Linux 5.19 or later, with landlock among its security modules"}
	}
	rules := []landlock.Rule{landlock.RWDirs(write...).WithRefer().IgnoreIfMissing(), landlock.ROFiles(read...).IgnoreIfMissing()}
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return &redoubt.Error{Op: "sandbox.Confine", Err: err}
	}
	return nil
}

// Enclose is Confine for a process that has done all that it needed privileges for: it also gives up every capability, and executes, mounts,
// traces and enters nothing any more, in any of its threads. Its descriptors and sockets stay. A call that is forbidden ends it. It is for binaries without cgo.
func Enclose(write, read []string) error {
	if err := Confine(write, read); err != nil {
		return err
	}
	header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0); e != 0 {
		return &redoubt.Error{Op: "sandbox.Enclose", Err: e}
	}
	forbidden, err := known(enclosed)
	if err == nil {
		err = seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{{Action: seccomp.ActionKillProcess, Names: forbidden}},
		}})
	}
	if err != nil {
		return &redoubt.Error{Op: "sandbox.Enclose", Err: err}
	}
	return nil
}
