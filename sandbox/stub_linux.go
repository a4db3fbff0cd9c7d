package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// workerName is the name under which our binary is executed once more, inside, to be a worker.
const workerName = "redoubt-sandbox-worker"

// workerPath is where a worker's binary stands inside.
const workerPath = "/redoubt"

// Enter must be the first that main does in a program whose workers are to be run, with all of them. In a process that Start started it
// never returns; in any other it does nothing.
func Enter(workers map[string]Worker) {
	switch os.Args[0] {
	case stubName:
		debug.SetGCPercent(-1) // a thread that the collector begins while execFile executes would end us: that has not the runtime's lock against it
		runtime.LockOSThread() // what follows holds for this thread, and it alone goes on into the program
		wall, err := stub()
		fmt.Fprintf(os.NewFile(statusFD, "status"), "%s: %v", wall, err)
		os.Exit(126)
	case workerName:
		os.Exit(work(workers))
	case launcherName:
		if err := launch(os.Args[1:]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// stub walls the process in and executes the program. It returns only where something is missing, and tells which wall.
func stub() (wall string, err error) {
	unix.Umask(0o022) // whoever starts it may keep its own files to itself: the folders that are built here are for the program, which is somebody else
	s, err := readSpec()
	if err != nil {
		return "specification", err
	}
	if s.Way.Gives { // from here on: building the walls is work too
		if err := giveWay(0, s.Way); err != nil {
			return "priority", err
		}
	}
	path, args := s.Path, append([]string{filepath.Base(s.Path)}, s.Args...)
	if s.Worker != "" {
		path, args, s.Env = workerPath, []string{workerName, s.Worker}, workerEnv(s.Memory)
	}
	handed := -1
	if s.Handed { // there is no way to it from inside
		if handed, err = unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return "binary", err
		}
	}
	if err := build(s); err != nil {
		return "root folder", err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "no_new_privs", err
	}
	if err := limit(s); err != nil {
		return "rlimits", err
	}
	if err := dropPrivileges(s.Nobody); err != nil {
		return "privileges", err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil { // who becomes somebody else has lost it
		return "end with its parent", err
	}
	if err := restrictFiles(s); err != nil {
		return "landlock", err
	}
	// Whatever is open goes with the execution, this process's own and what its parent's parent may have left open.
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return "descriptors", err
	}
	if s.Window { // but for this
		if _, err := unix.FcntlInt(windowFD, unix.F_SETFD, 0); err != nil {
			return "window", err
		}
	}
	if err := restrictCalls(s.Handed); err != nil {
		return "seccomp", err
	}
	if _, err := unix.Write(statusFD, []byte(standing)); err != nil {
		return "status", err
	}
	if s.Handed {
		return "execution", execFile(handed, args, s.Env)
	}
	return "execution of " + path, unix.Exec(path, args, s.Env)
}

// execFile executes what is open.
func execFile(fd int, args, env []string) error {
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&[1]byte{})), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return e
}

// workerEnv has the collector of garbage come seldom, since a worker lives for one input, and often as its memory runs out.
func workerEnv(memory int64) []string {
	return append(stubEnv(), "GOGC=400", fmt.Sprintf("GOMEMLIMIT=%d", memory*3/4))
}

func readSpec() (s spec, err error) {
	f := os.NewFile(specFD, "specification")
	if f == nil {
		return s, errors.New("there is none")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSpecBytes+1))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, errors.Join(err, f.Close())
}

// limit sets the rlimits. That of memory is of private writable memory, and no other may be mapped (restrictCalls); the address space has
// room beside it for what is never written: libraries, and what the Go runtime reserves, ours before the execution included.
func limit(s spec) error {
	data, space := uint64(s.Memory), uint64(s.Memory)+4<<30
	if instrumented {
		data, space = unix.RLIM_INFINITY, unix.RLIM_INFINITY
	}
	for _, l := range []struct {
		what int
		to   uint64
	}{
		{unix.RLIMIT_DATA, data}, {unix.RLIMIT_AS, space}, {unix.RLIMIT_CPU, uint64(s.CPU)}, {unix.RLIMIT_FSIZE, uint64(s.Scratch)},
		{unix.RLIMIT_NOFILE, uint64(s.OpenFiles)}, {unix.RLIMIT_NPROC, uint64(s.Processes)}, {unix.RLIMIT_CORE, 0}, {unix.RLIMIT_MEMLOCK, 0}, {unix.RLIMIT_MSGQUEUE, 0},
	} {
		// Not syscall.Setrlimit, which for open files remembers the old limit and brings it back at execution.
		if err := unix.Prlimit(0, l.what, &unix.Rlimit{Cur: l.to, Max: l.to}, nil); err != nil {
			return fmt.Errorf("limit %d: %w", l.what, err)
		}
	}
	return nil
}

// dropPrivileges makes this thread nobody, where that is mapped, and without any capability for good.
func dropPrivileges(toNobody bool) error {
	for c := uintptr(0); ; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err == unix.EINVAL && c > 0 {
			break // past the last that this kernel knows
		} else if err != nil {
			return err
		}
	}
	if toNobody {
		for _, call := range []func() error{
			func() error { return raw(unix.SYS_SETGROUPS, 0, 0, 0) },
			func() error { return raw(unix.SYS_SETRESGID, nobody, nobody, nobody) },
			func() error { return raw(unix.SYS_SETRESUID, nobody, nobody, nobody) },
		} {
			if err := call(); err != nil {
				return err
			}
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	// The user that the program runs as inside may be number 0 of its namespace: without these bits executing would give it capabilities back.
	const noRoot = 1<<0 | 1<<1 | 1<<2 | 1<<3 // SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, and both locked
	if !toNobody {
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil {
			return err
		}
	}
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}

// slice is how long at most a program that gives way runs on before another that has waited for less may have the processor.
const slice = 100 * time.Microsecond

// wayOf is how a program has the processor that gives way by so much, from wherever we are.
func wayOf(by int, prompt bool) (way, error) {
	if by <= 0 {
		return way{}, nil
	}
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the nice value: the system call has no negative answers
	return way{Gives: true, Nice: min(20-now+by, 19), Prompt: prompt}, err
}

// giveWay lowers the priority of a thread; 0: this one. It has the processor in short slices (of which kernels before 6.12 know nothing), and takes it from
// nobody when it wakes, but where it is prompt, from those that have had more of it. What it starts does as it does.
func giveWay(tid int, w way) error {
	return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: w.policy(), Nice: int32(w.Nice), Runtime: uint64(slice)}, 0)
}

func (w way) policy() uint32 {
	if w.Prompt {
		return unix.SCHED_NORMAL
	}
	return unix.SCHED_BATCH
}

// giveWayWhole has all threads of this process give way. One that begins meanwhile may have been begun by one that did not yet, so it looks until there is none.
func giveWayWhole(w way) error {
	for more := true; more; {
		more = false
		all, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range all {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			was, err := unix.SchedGetAttr(tid, 0)
			if err == nil && (was.Policy != w.policy() || was.Nice != int32(w.Nice)) {
				more = true
				err = giveWay(tid, w)
			}
			if err != nil && err != unix.ESRCH { // it has ended
				return err
			}
		}
	}
	return nil
}

func raw(call, a, b, c uintptr) error {
	if _, _, e := syscall.RawSyscall(call, a, b, c); e != 0 {
		return e
	}
	return nil
}

// restrictFiles has Landlock allow reading what was given and, in the scratch folder, writing. Everything else that this kernel's Landlock
// knows, network and signals included, is refused.
func restrictFiles(s spec) error {
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 1 {
		return errors.Join(err, errors.New("the kernel has no Landlock; it needs 5.13 or later with landlock in its list of security modules"))
	}
	rules := []landlock.Rule{}
	for _, p := range inside(s) {
		info, err := os.Stat(p)
		if err != nil {
			continue // a link to what was not given
		}
		switch {
		case p == null:
			rules = append(rules, landlock.RWFiles(p))
		case info.IsDir():
			rules = append(rules, landlock.RODirs(p))
		default:
			rules = append(rules, landlock.ROFiles(p))
		}
	}
	if s.Scratch > 0 {
		rules = append(rules, landlock.RWDirs("/tmp").WithRefer())
	}
	fd, flags, err := landlock.V9.BestEffort().NewRulesetFD(rules...)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ll.LandlockRestrictSelf(fd, flags)
}

// work is one worker, inside: it may execute nothing more, then works.
func work(workers map[string]Worker) int {
	name := strings.Join(os.Args[1:], " ")
	w := workers[name]
	if name == probe {
		w = answer
	}
	if w == nil {
		fmt.Fprintf(os.Stderr, "there is no worker %q", name)
		return 127
	}
	if err := restrictWorker(); err != nil {
		fmt.Fprintf(os.Stderr, "seccomp: %v", err)
		return 126
	}
	if err := w(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
