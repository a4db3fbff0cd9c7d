package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"redoubt/compute"
	"redoubt/sandbox"
)

// With runc a keeper starts no kernel: what it runs stands on the machine's. It asks for all of /in before the program begins, has a copy of the image in
// memory, and looks at the program from outside. It cannot give up what it needs to start runc, so it is not enclosed; its namespaces are its walls,
// and the program's besides.

// runcIDs is where the users of such sandboxes begin on the machine, where the node is root: each sandbox has 65,536 of them while it is there, since
// the kernel counts by user what a job of another label could see. Where the node is not root there is one user, the node's own.
const (
	runcIDs     = 0x7e000000
	runcIDCount = 1 << 16
	runcRanges  = 256
	runcStarts  = time.Minute
)

// users are the ranges that sandboxes have at this time.
type users struct {
	mu    sync.Mutex // guards what follows
	taken [runcRanges]bool
}

// take draws one that is free: programs see which one they have, and one that went on would count all labels' sandboxes.
func (u *users) take() (slot int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, slot := range rand.Perm(runcRanges) {
		if !u.taken[slot] {
			u.taken[slot] = true
			return slot, nil
		}
	}
	return -1, unavailable("", fmt.Errorf("%d programs run with runc", runcRanges))
}

// give takes one back. A negative one is none.
func (u *users) give(slot int) {
	if slot >= 0 {
		u.mu.Lock()
		u.taken[slot] = false
		u.mu.Unlock()
	}
}

// Folders of the keeper's.
const (
	bundleDir  = dir + "/bundle"
	rootDir    = dir + "/root" // a copy of the image
	inDir      = dir + "/in"
	scratchDir = dir + "/scratch" // /tmp and /dev/shm
)

// deviceNames are what a program has of devices: null and its like.
var deviceNames = []string{"null", "zero", "full", "random", "urandom", "tty"}

// ownDevices gives a mount of a file system in memory with devices that are no other sandbox's: locks and times of the machine's own would be seen by
// all. It takes the machine's root, and so the node makes it and a keeper takes it over.
func ownDevices() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	err = errors.Join(unix.FsconfigSetString(fs, "size", "64k"), unix.FsconfigSetString(fs, "mode", "0755"), unix.FsconfigCreate(fs))
	if err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	at, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	for _, name := range deviceNames {
		var s unix.Stat_t
		if err == nil {
			err = unix.Stat("/dev/"+name, &s)
		}
		if err == nil {
			err = unix.Mknodat(at, name, unix.S_IFCHR|0o666, int(s.Rdev))
		}
		if err == nil {
			err = unix.Fchmodat(at, name, 0o666, 0)
		}
	}
	f := os.NewFile(uintptr(at), "devices")
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("devices: %w", err)
	}
	return f, nil
}

// runTrusted runs a program with runc.
func (k *keeper) runTrusted(r runSpec) error {
	stdio, root, err := k.takeFiles()
	if err != nil {
		return err
	}
	init, err := k.begin(r, stdio, root)
	for _, f := range append(stdio, root) {
		f.Close()
	}
	if own := new(fault); errors.As(err, &own) {
		return errors.Join(k.wire.sendJSON(tellEnded, 0, ending{Code: -1, Why: own.why}))
	}
	if err != nil {
		return err
	}
	if err := k.wire.send(tellStarted, 0, nil); err != nil {
		return err
	}
	watched := k.look(init)
	var ws unix.WaitStatus
	for err = unix.EINTR; err == unix.EINTR; { // with it all of its process namespace ends
		_, err = unix.Wait4(init, &ws, 0, nil)
	}
	why := watched.stop()
	if err != nil {
		return os.NewSyscallError("wait", err)
	}
	e := ending{Code: ws.ExitStatus()}
	if ws.Signaled() {
		e.Code, e.Signal = 128+int(ws.Signal()), int(ws.Signal())
	}
	if why != "" {
		e = ending{Code: -1, Why: why}
	}
	if err := k.wire.sendJSON(tellEnded, 0, e); err != nil || why != "" {
		return err
	}
	if e.Code == 0 {
		if err := k.giveFolder(outDir); err != nil {
			return err
		}
	}
	return k.wire.send(tellDone, 0, nil)
}

// begin makes the program's folders, and has runc start it. Its process is a child of this one, which is the first of the namespace.
func (k *keeper) begin(r runSpec, stdio []*os.File, image *os.File) (pid int, err error) {
	most := k.boot.Memory + k.boot.Disk // of image and inputs; what the program writes to its root beside is its memory, which the watcher bounds
	for at, size := range map[string]int64{rootDir: most + k.boot.Memory, inDir: most, scratchDir: k.boot.Disk} {
		if err := os.Mkdir(at, 0o755); err != nil {
			return 0, err
		}
		if err := unix.Mount("keeper", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=0755,size=%d", size)); err != nil {
			return 0, fmt.Errorf("a file system in memory: %w", err)
		}
	}
	c := &copied{most: most}
	if err := copyImage(image, rootDir, c); err != nil {
		return 0, err
	}
	in := &inFS{in: k.in, ask: k.ask, tell: k.tell}
	if err := in.copyAll("", inDir, 0, c); err != nil {
		return 0, err
	}
	for _, d := range []string{"tmp", "shm"} {
		if err := errors.Join(os.Mkdir(scratchDir+"/"+d, 0o777), os.Chmod(scratchDir+"/"+d, 0o777|os.ModeSticky)); err != nil {
			return 0, err
		}
	}
	if err := os.Chown(outDir, int(r.Process.UID), int(r.Process.GID)); err != nil {
		return 0, faultf("the image's user %d cannot be had with runc: that takes a node that runs as root", r.Process.UID)
	}
	if err := os.Mkdir(bundleDir, 0o700); err != nil {
		return 0, err
	}
	if err := os.WriteFile(bundleDir+"/config.json", mustJSON(k.trustedSpec(r)), 0o600); err != nil {
		return 0, err
	}
	var said bytes.Buffer
	start := &exec.Cmd{Path: k.boot.Runc, Args: []string{"runc", "--root", dir + "/state", "--log", dir + "/log", "--log-format", "json", "run", "--detach", "--no-new-keyring", "--pid-file", dir + "/pid", "--bundle", bundleDir, "program"},
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Stdin: stdio[0], Stdout: stdio[1], Stderr: stdio[2]}
	if err := start.Start(); err != nil {
		return 0, faultf("runc cannot be started: %v", err)
	}
	late := time.AfterFunc(runcStarts, func() { start.Process.Kill() })
	defer late.Stop()
	if err := start.Wait(); err != nil {
		log, _ := os.ReadFile(dir + "/log")
		for line := range bytes.Lines(log) {
			var m struct{ Level, Msg string }
			if json.Unmarshal(line, &m) == nil && m.Level == "error" {
				said.Reset()
				said.WriteString(m.Msg)
			}
		}
		return 0, faultf("it cannot be begun: runc: %.400s (%v)", shown(said.String()), err)
	}
	text, err := os.ReadFile(dir + "/pid")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(text)))
}

// machineWide is what /proc tells of the whole machine, and so of other labels' jobs: a program finds it empty. sysinfo, which tells the same, is refused.
var machineWide = []string{
	"/proc/acpi", "/proc/asound", "/proc/buddyinfo", "/proc/bus", "/proc/cgroups", "/proc/cmdline", "/proc/consoles", "/proc/diskstats", "/proc/driver", "/proc/dynamic_debug",
	"/proc/fs", "/proc/interrupts", "/proc/iomem", "/proc/ioports", "/proc/irq", "/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/kpagecgroup",
	"/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats", "/proc/loadavg", "/proc/locks", "/proc/mdstat", "/proc/meminfo", "/proc/modules", "/proc/mtrr", "/proc/pagetypeinfo",
	"/proc/partitions", "/proc/pressure", "/proc/sched_debug", "/proc/schedstat", "/proc/scsi", "/proc/slabinfo", "/proc/softirqs", "/proc/stat", "/proc/swaps", "/proc/sysrq-trigger",
	"/proc/timer_list", "/proc/timer_stats", "/proc/tty", "/proc/uptime", "/proc/vmallocinfo", "/proc/vmstat", "/proc/zoneinfo",
	"/proc/sys/fs/aio-nr", "/proc/sys/fs/dentry-state", "/proc/sys/fs/file-nr", "/proc/sys/fs/inode-nr", "/proc/sys/fs/inode-state", "/proc/sys/kernel/pty/nr",
	"/proc/sys/kernel/random/entropy_avail",
}

// trustedSpec is what runc is told of the program.
func (k *keeper) trustedSpec(r runSpec) *specs.Spec {
	s := containerSpec(r, k.boot.Disk)
	s.Annotations, s.Root = nil, &specs.Root{Path: rootDir}
	var files unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &files) // 0: none, and it says so
	most := min(files.Max, 65536)
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NOFILE", Soft: most, Hard: most}}
	s.Process.Capabilities.Bounding = slices.Clone(s.Process.Capabilities.Bounding)
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/shm", Type: "bind", Source: scratchDir + "/shm", Options: []string{"bind", "nosuid", "nodev", "noexec"}},
		{Destination: "/in", Type: "bind", Source: inDir, Options: []string{"bind", "ro", "nosuid", "nodev"}},
		{Destination: "/out", Type: "bind", Source: outDir, Options: []string{"bind", "rw", "nosuid", "nodev"}},
		{Destination: "/tmp", Type: "bind", Source: scratchDir + "/tmp", Options: []string{"bind", "rw", "nosuid", "nodev"}},
	}
	s.Linux.Namespaces = append(slices.Clone(firstNamespaces), specs.LinuxNamespace{Type: specs.NetworkNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	s.Linux.MaskedPaths = machineWide
	s.Linux.ReadonlyPaths = []string{"/proc/sys"}
	no, arch := uint(unix.EPERM), specs.ArchX86_64
	if runtime.GOARCH == "arm64" {
		arch = specs.ArchAARCH64
	}
	refused := func(names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: specs.ActErrno, ErrnoRet: &no}
	}
	clone := refused("clone")
	const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	for bit := uint64(1); bit < 1<<32; bit <<= 1 {
		if namespaces&bit != 0 {
			one := clone
			one.Args = []specs.LinuxSeccompArg{{Index: 0, Value: bit, ValueTwo: bit, Op: specs.OpMaskedEqual}}
			s.Linux.Seccomp = &specs.LinuxSeccomp{Syscalls: append(seccompOf(s), one)}
		}
	}
	family := func(op specs.LinuxSeccompOperator, value uint64) {
		one := refused("socket", "socketpair")
		one.Args = []specs.LinuxSeccompArg{{Index: 0, Value: value, Op: op}}
		s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, one)
	}
	for f := uint64(0); f < unix.AF_NETLINK; f++ {
		if f != unix.AF_UNIX && f != unix.AF_INET && f != unix.AF_INET6 {
			family(specs.OpEqualTo, f)
		}
	}
	family(specs.OpGreaterThan, unix.AF_NETLINK) // the whole register is compared: bits that the kernel does not look at open nothing
	missing := uint(unix.ENOSYS)
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{arch}, Syscalls: append(seccompOf(s),
		specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &missing}, // its flags cannot be looked at; the C library then asks with clone
		refused("unshare", "setns", "mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
			"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key", "keyctl", "kexec_load", "kexec_file_load",
			"init_module", "finit_module", "delete_module", "ptrace", "process_vm_readv", "process_vm_writev", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd",
			"settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "syslog", "open_by_handle_at", "name_to_handle_at", "lookup_dcookie", "vhangup", "kcmp", "fanotify_init", "sysinfo"))}
	return s
}

func seccompOf(s *specs.Spec) []specs.LinuxSyscall {
	if s.Linux.Seccomp == nil {
		return nil
	}
	return s.Linux.Seccomp.Syscalls
}

// look watches what a program has of memory and processes, and ends it where that is too much.
func (k *keeper) look(init int) *watcher {
	w := &watcher{k: k, end: make(chan struct{}), ends: func() { unix.Kill(init, unix.SIGKILL) }}
	var before unix.Statfs_t
	_ = unix.Statfs(rootDir, &before)
	device := sharedDevice()
	w.done.Go(func() {
		w.every(memoryEvery, func() bool {
			own, threads := inUse()
			if own+wrote(before) > k.boot.Memory { // what processes share is counted once, and what they map of files not at all, if it comes to that
				if exactlyInUse(device)+wrote(before) > k.boot.Memory {
					w.kill(outOfMemory(k.boot.Memory))
					return false
				}
			}
			if threads > k.boot.Processes {
				w.kill(tooMany(k.boot.Processes))
				return false
			}
			return true
		})
	})
	return w
}

// wrote is what the program has written into its root, /tmp and /dev/shm.
func wrote(before unix.Statfs_t) int64 {
	var root, scratch unix.Statfs_t
	if unix.Statfs(rootDir, &root) != nil || unix.Statfs(scratchDir, &scratch) != nil {
		return 0
	}
	used := func(s unix.Statfs_t) int64 { return int64(s.Blocks-s.Bfree) * s.Bsize }
	return max(used(root)-used(before), 0) + used(scratch)
}

// inUse sums what all processes of this namespace but the keeper have, in memory of their own or shared between them, and their threads. It counts
// too much: a page for each that shares it, and what is mapped of files in memory.
func inUse() (own int64, threads int) {
	eachProcess("/status", func(f []string) {
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "RssAnon:", "RssShmem:":
			own += n << 10
		case "Threads:":
			threads += int(n)
		}
	})
	return own, threads
}

// exactlyInUse is the same memory, with each page counted once. It takes longer. device is where shared memory lies that is no file's.
func exactlyInUse(device string) (own int64) {
	kib := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64)
		return n << 10
	}
	eachProcess("/smaps_rollup", func(f []string) {
		if f[0] == "Pss_Anon:" {
			own += kib(f[1])
		}
	})
	shared := false
	eachProcess("/smaps", func(f []string) {
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"): // where a mapping begins: addresses, rights, offset, device, inode
			shared = f[3] == device
		case shared && f[0] == "Pss:":
			own += kib(f[1])
		}
	})
	return own
}

// eachProcess gives the fields of each line of a file of each process of this namespace but the keeper.
func eachProcess(file string, line func(fields []string)) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, d := range all {
		if name := d.Name(); name[0] >= '1' && name[0] <= '9' && name != "1" {
			text, _ := os.ReadFile("/proc/" + name + file) // it may have ended
			for l := range strings.Lines(string(text)) {
				if f := strings.Fields(l); len(f) >= 2 {
					line(f)
				}
			}
		}
	}
}

// sharedDevice is the device, as smaps has it, that anonymous shared memory, memfds and System V segments lie on.
func sharedDevice() string {
	fd, err := unix.MemfdCreate("device", unix.MFD_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var s unix.Stat_t
	if unix.Fstat(fd, &s) != nil {
		return ""
	}
	return fmt.Sprintf("%02x:%02x", unix.Major(s.Dev), unix.Minor(s.Dev))
}

// Trusted runs images with runc, on the machine's own kernel. It runs no services, and no job whose subject the estate file does not grant it to.
type Trusted struct{ d *Driver }

var _ compute.Driver = (*Trusted)(nil)

// NewTrusted makes one. Debian's runc is found in PATH, or where it is installed; what is lacking, Available tells.
func NewTrusted(o Options) (*Trusted, error) {
	o.Runc = "/usr/sbin/runc"
	if at, err := exec.LookPath("runc"); err == nil && filepath.IsAbs(at) {
		o.Runc = at
	}
	d, err := New(o)
	return &Trusted{d}, err
}

// Available starts a keeper, and asks for runc.
func (t *Trusted) Available() error {
	if out, err := exec.Command(t.d.o.Runc, "--version").Output(); err != nil || !bytes.HasPrefix(out, []byte("runc version")) {
		return unavailable("install runc (Debian: apt-get install runc)", errors.Join(errors.New("there is no runc here"), err))
	}
	return t.d.Available()
}

// Run implements compute.Driver.
func (t *Trusted) Run(ctx context.Context, task compute.Task) (compute.Exit, error) {
	return t.d.Run(ctx, task)
}

// Close ends all runs.
func (t *Trusted) Close() error { return t.d.Close() }

// Details say what its walls are, and what holds a program's limits here.
func (t *Trusted) Details() []sandbox.Mechanism {
	walls := "namespaces, a user namespace of its own users, seccomp, no new privileges; the machine's kernel is the wall"
	if os.Geteuid() != 0 {
		walls = "namespaces, one user (the node's own), seccomp, no new privileges; the machine's kernel is the wall"
	}
	return []sandbox.Mechanism{{Name: "walls of runc", OK: t.Available() == nil, Detail: walls}, {Name: "limits of runc", OK: true, Detail: t.d.groups.String()}}
}
