package kube

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// ownThreads are more than those of our binary beside the program, which the kernel counts with it.
const ownThreads = 64

// crowd ends everything when there are more processes and threads than there may be, and says whether it did. The kernel refuses them not much later,
// but a program that only waits for those that it has begun would then wait for ever.
func crowd(most int, ended <-chan struct{}) bool {
	for {
		select {
		case <-ended:
			return false
		case <-time.After(200 * time.Millisecond):
		}
		if threads() > most {
			unix.Kill(-1, unix.SIGKILL)
			return true
		}
	}
}

// threads counts those of all processes but the first, which holds the container, and this one.
func threads() (n int) {
	self := strconv.Itoa(os.Getpid())
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, d := range all {
		if name := d.Name(); name[0] >= '0' && name[0] <= '9' && name != "1" && name != self {
			tasks, _ := os.ReadDir("/proc/" + name + "/task") // it may have ended
			n += len(tasks)
		}
	}
	return n
}

// confine takes from this process, and all that it starts, every network but sockets of the pod's own files, and bounds how many processes there may
// be. The cluster's network policy does the first too, where the cluster has something that enforces one.
func confine(processes int) error {
	n := uint64(processes + ownThreads)
	for resource, limit := range map[int]uint64{unix.RLIMIT_NPROC: n, unix.RLIMIT_CORE: 0} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	const refuse = seccomp.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES))
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{
			{Action: refuse, Names: []string{"io_uring_setup"}}, // it makes sockets too
			{Action: refuse, NamesWithCondtions: []seccomp.NameWithConditions{
				{Name: "socket", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_UNIX}}},
			}},
		},
	}})
}

// hold waits until the container is ended. It is the first of its process namespace: with it everything in there ends.
func hold() {
	signal.Ignore(syscall.SIGCHLD) // the kernel reaps
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
