package sandbox

import (
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowed are the system calls of a program that computes: memory, time, threads of its own, what is open, files that Landlock and the
// root folder let it open. Those that a processor's kernel lacks are left out there.
var allowed = []string{
	"read", "write", "readv", "writev", "pread64", "pwrite64", "close", "lseek", "dup", "dup2", "dup3", "pipe", "pipe2", "fcntl",
	"poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "fadvise64",
	"open", "openat", "stat", "lstat", "fstat", "newfstatat", "statx", "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd", "chdir", "getdents64",
	"ftruncate", "fallocate", "fsync", "mkdir", "mkdirat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "rmdir", "umask", "fchmod", "chmod",
	"munmap", "mprotect", "mremap", "madvise", "brk", "mincore", "membarrier",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "rt_sigtimedwait", "tgkill", "kill", "futex", "sched_yield", "sched_getaffinity", "restart_syscall",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times", "getitimer", "setitimer", "timer_create", "timer_settime", "timer_delete",
	"getpid", "gettid", "getppid", "getpgrp", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "uname", "sysinfo", "getrandom",
	"getrlimit", "prlimit64", "getrusage", "arch_prctl", "set_tid_address", "set_robust_list", "get_robust_list", "rseq",
	"exit", "exit_group", "wait4", "waitid", "fork", "vfork", "execve", "seccomp",
}

// fatal are those that no program here has a use for, and that reach out of it or deep into the kernel: a call ends the whole program, so
// that an attempt never passes for a result.
var fatal = []string{
	"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg",
	"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_open", "pidfd_getfd", "pidfd_send_signal",
	"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	"unshare", "setns", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"keyctl", "add_key", "request_key", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
	"open_by_handle_at", "name_to_handle_at", "swapon", "swapoff", "reboot", "acct", "quotactl", "syslog", "iopl", "ioperm", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime",
	"shmget", "shmat", "msgget", "semget", "mq_open", "memfd_secret", "execveat", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset",
}

// enclosed are those that a process that was enclosed has no use for any more; it keeps its sockets, and what it has open.
var enclosed = append([]string{"execve"}, slices.DeleteFunc(slices.Clone(fatal), func(n string) bool {
	return slices.Contains([]string{
		"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg",
		"pidfd_open", "pidfd_send_signal", // how the Go runtime ends a process that it has started
	}, n)
})...)

// noSuchCall has the C library fall back from clone3, whose flags a filter cannot see, to clone.
const noSuchCall = seccomp.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))

// Memory that is shared (MAP_SHARED) counts towards no limit, so none may be mapped.

// newNamespaces are the flags of clone that nothing inside may set: CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const newNamespaces = 0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

// known are those of some calls that this processor's kernel has.
func known(names []string) ([]string, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { _, ok := info.SyscallNames[n]; return !ok }), nil
}

// restrictCalls has the kernel refuse this thread, and all that it executes, every other call. open: what it executes is open, and has no path.
func restrictCalls(open bool) error {
	may, not := allowed, fatal
	if open {
		const exec = "execveat"
		may, not = append(slices.Clone(may), exec), slices.DeleteFunc(slices.Clone(not), func(n string) bool { return n == exec })
	}
	allow, err := known(may)
	if err != nil {
		return err
	}
	kill, err := known(not)
	if err != nil {
		return err
	}
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionAllow, Names: allow},
			{Action: seccomp.ActionKillProcess, Names: kill},
			{Action: noSuchCall, Names: []string{"clone3"}},
			// Last, and in this order: where the condition of one does not hold, its argument is what the next is compared with, and an odd
			// number is not clone's.
			{Action: seccomp.ActionAllow, NamesWithCondtions: []seccomp.NameWithConditions{
				{Name: "mmap", Conditions: seccomp.ArgumentConditions{{Argument: 3, Operation: seccomp.BitsNotSet, Value: unix.MAP_SHARED}}},
				{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsNotSet, Value: newNamespaces}}},
			}},
		},
	}})
}

// restrictWorker takes from a worker, every thread of it, what only the stub needed: executing, and further filters.
func restrictWorker() error {
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionKillProcess, Names: []string{"execve", "execveat", "seccomp"}}},
	}})
}
