package kube

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ownThreads are more than those of our binary beside the program, which the kernel counts with it.
const ownThreads = 64

// crowd waits until there are more processes and threads than there may be, and says whether that came. The kernel refuses them not much later, but a
// program that only waits for those that it has begun would then wait for ever.
func crowd(most int, ended <-chan struct{}) bool {
	for {
		select {
		case <-ended:
			return false
		case <-time.After(200 * time.Millisecond):
		}
		if threads() > most {
			return true
		}
	}
}

// threads counts those of all processes but this one and those that were started from outside: the first, which holds the container, and what exec has
// begun in it.
func threads() (n int) {
	self := strconv.Itoa(os.Getpid())
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, d := range all {
		if name := d.Name(); name[0] >= '0' && name[0] <= '9' && name != self && !fromOutside(name) {
			tasks, _ := os.ReadDir("/proc/" + name + "/task") // it may have ended
			n += len(tasks)
		}
	}
	return n
}

// fromOutside says whether a process has no parent in here. Its name may hold anything, and ends at the last ")".
func fromOutside(pid string) bool {
	stat, _ := os.ReadFile("/proc/" + pid + "/stat")
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(fields) > 1 && string(fields[1]) == "0"
}

// bound bounds how many processes this one and all that it starts may be, and that none leaves its memory in a file.
func bound(processes int) error {
	n := uint64(processes + ownThreads)
	for resource, limit := range map[int]uint64{unix.RLIMIT_NPROC: n, unix.RLIMIT_CORE: 0} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return nil
}

// secret keeps other processes of the same user from reading this one, writing to it and acting through it.
func secret() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

// wall takes from this process, and all that it starts, every network but sockets of the pod's own files. The cluster's network policy does that too, where
// the cluster has something that enforces one.
func wall() error {
	thread, err := loadFilter(filter(refuse), unix.SECCOMP_FILTER_FLAG_TSYNC)
	if err == nil && thread != 0 {
		err = errors.New("a thread is not behind the wall")
	}
	return err
}

// askingWall is a wall in which the program may have TCP sockets too, as whoever holds the descriptor gives them out (giveSockets). Without WAIT_KILLABLE a
// signal to the program would have it ask again.
func askingWall() (listener int, err error) {
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	listener, err = loadFilter(filter(unix.SECCOMP_RET_USER_NOTIF), flags|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.19
		listener, err = loadFilter(filter(unix.SECCOMP_RET_USER_NOTIF), flags)
	}
	return listener, err
}

// canAsk says whether the kernel has what askingWall and give take: that a descriptor is handed over and the call answered in one came last. gVisor has
// none of it.
func canAsk() bool {
	can := make(chan bool, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread, which has a filter then that lets everything pass, ends
		listener, err := loadFilter([]bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}}, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
		if err != nil {
			can <- false
			return
		}
		defer unix.Close(listener)
		err = tell(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&handed{flags: unix.SECCOMP_ADDFD_FLAG_SEND, from: uint32(listener)}))
		can <- errors.Is(err, unix.ENOENT) // nobody has asked; where it is not known, EINVAL
	}()
	return <-can
}

const refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)

// Where struct seccomp_data has what a filter looks at: of a call's first argument the lower half, which is all of an int.
const (
	callAt   = 0
	archAt   = 4
	familyAt = 16
)

// filter lets every call pass but those that make sockets, other than of files, and io_uring, which makes them too. inet is what becomes of TCP's and UDP's.
// A call by the numbers of another processor, as those of 32 bits, ends its process.
func filter(inet uint32) []bpf.Instruction {
	native, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		panic("kube: no seccomp for this processor: " + err.Error()) // it has been built for one
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: archAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(native.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: callAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(arch.X32.SeccompMask), SkipTrue: 1}, // x32; elsewhere no call has such a number
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_IO_URING_SETUP, SkipTrue: 1},
		bpf.RetConstant{Val: refuse},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKETPAIR, SkipTrue: 4},
		bpf.LoadAbsolute{Off: familyAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipTrue: 1},
		bpf.RetConstant{Val: refuse},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_SOCKET, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.LoadAbsolute{Off: familyAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_UNIX, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_INET6, SkipTrue: 1},
		bpf.RetConstant{Val: inet},
		bpf.RetConstant{Val: refuse},
	}
}

func loadFilter(program []bpf.Instruction, flags uintptr) (int, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return 0, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})))
	if errno != 0 {
		return 0, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}

// What the kernel and giveSockets tell each other: seccomp(2), seccomp_unotify(2).
type (
	asked struct {
		id    uint64
		pid   uint32
		flags uint32
		call  int32
		arch  uint32
		at    uint64
		args  [6]uint64
	}
	answered struct {
		id    uint64
		value int64
		errno int32
		flags uint32
	}
	handed struct {
		id       uint64
		flags    uint32
		from     uint32
		to       uint32
		fd_flags uint32
	}
)

// giveSockets gives out sockets to who asks by an askingWall, until nobody is left behind it. Each is of TCP and bound to the loopback device: nothing else
// reaches it, and it reaches nothing else. To bind it to another takes CAP_NET_RAW, which nobody in a pod has.
func giveSockets(listener int) {
	defer unix.Close(listener)
	for {
		events := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(events, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if events[0].Revents&unix.POLLIN == 0 {
			if events[0].Revents != 0 {
				return
			}
			continue
		}
		var q asked
		if err := tell(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&q)); err != nil {
			continue // who asked has ended
		}
		give(listener, q)
	}
}

func give(listener int, q asked) {
	fd, err := loopback(int(int32(q.args[0])), int(int32(q.args[1])), int(int32(q.args[2])))
	if err == nil {
		defer unix.Close(fd)
		h := handed{id: q.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, from: uint32(fd)}
		if q.args[1]&unix.SOCK_CLOEXEC != 0 {
			h.fd_flags = unix.O_CLOEXEC
		}
		if err = tell(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&h)); err == nil {
			return
		}
	}
	errno := unix.EACCES
	errors.As(err, &errno)
	_ = tell(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answered{id: q.id, errno: -int32(errno)})) // it may have ended
}

// loopback makes a TCP socket of the loopback device.
func loopback(family, kind, protocol int) (int, error) {
	const marks = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	if kind&^marks != unix.SOCK_STREAM || protocol != 0 && protocol != unix.IPPROTO_TCP {
		return 0, unix.EACCES
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return 0, err
	}
	if err := unix.BindToDevice(fd, "lo"); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func tell(fd int, request uintptr, what unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(what)); errno != 0 {
		return errno
	}
	return nil
}

// hold waits until the container is ended. It is the first of its process namespace: with it everything in there ends.
func hold() {
	signal.Ignore(syscall.SIGCHLD) // the kernel reaps
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
