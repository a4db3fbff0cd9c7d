package sandbox_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"redoubt"
	"redoubt/sandbox"
)

// The hostile workers: each tries one thing, and tells how it went.
var workers = map[string]sandbox.Worker{
	"copy": func(in io.Reader, out io.Writer) error { _, err := io.Copy(out, in); return err },
	"fail": func(io.Reader, io.Writer) error { return errors.New("no good") },
	"crash": func(io.Reader, io.Writer) error {
		var p *int
		*p = 1
		return nil
	},
	"hang": func(io.Reader, io.Writer) error { time.Sleep(time.Hour); return nil },
	"spin": func(io.Reader, io.Writer) error {
		for {
		}
	},
	"eat": func(_ io.Reader, out io.Writer) error {
		var all [][]byte
		for range 64 {
			b := make([]byte, 64<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
		_, err := fmt.Fprint(out, len(all))
		return err
	},
	"flood": func(_ io.Reader, out io.Writer) error {
		for {
			if _, err := out.Write(make([]byte, 1<<16)); err != nil {
				return err
			}
		}
	},
	"chatter": func(_ io.Reader, out io.Writer) error {
		fmt.Fprint(os.Stderr, strings.Repeat("x", 1<<20))
		return errors.New("end")
	},
	"read": func(_ io.Reader, out io.Writer) error {
		for _, p := range []string{"/etc/passwd", "/etc/hostname", "/proc/self/status", "/usr/bin/env", "/dev/null", "/sys"} {
			if _, err := os.Stat(p); err == nil {
				fmt.Fprintln(out, "saw", p)
			}
			if _, err := os.ReadFile(p); err == nil {
				fmt.Fprintln(out, "read", p)
			}
		}
		return nil
	},
	"write": func(_ io.Reader, out io.Writer) error {
		for _, p := range []string{"/x", "/tmp/x", "/redoubt", "/given/x"} {
			if err := os.WriteFile(p, []byte("x"), 0o600); err == nil {
				fmt.Fprintln(out, "wrote", p)
			}
		}
		return nil
	},
	"list": func(_ io.Reader, out io.Writer) error {
		return filepath.WalkDir("/", func(p string, d os.DirEntry, err error) error { fmt.Fprintln(out, p, err); return nil })
	},
	"dial":  func(in io.Reader, out io.Writer) error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err },
	"unix":  func(in io.Reader, out io.Writer) error { _, err := net.Dial("unix", "/run/x"); return err },
	"exec":  func(in io.Reader, out io.Writer) error { return exec.Command("/redoubt").Run() },
	"again": func(io.Reader, io.Writer) error { return unix.Exec("/redoubt", []string{"x"}, nil) },
	"execat": func(io.Reader, io.Writer) error {
		_, _, e := unix.Syscall6(unix.SYS_EXECVEAT, 0, 0, 0, 0, unix.AT_EMPTY_PATH, 0)
		return e
	},
	"mount": func(io.Reader, io.Writer) error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") },
	"unshare": func(io.Reader, io.Writer) error {
		return unix.Unshare(unix.CLONE_NEWUSER)
	},
	"share": func(_ io.Reader, out io.Writer) error {
		b, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
		fmt.Fprint(out, len(b), err)
		return nil
	},
	"ptrace": func(io.Reader, io.Writer) error { return unix.PtraceAttach(1) },
	"keyctl": func(io.Reader, io.Writer) error { _, err := unix.KeyctlGetKeyringID(-3, false); return err },
	"bpf":    func(io.Reader, io.Writer) error { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return e },
	"uring": func(io.Reader, io.Writer) error {
		_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
		return e
	},
	"vm":     func(io.Reader, io.Writer) error { _, err := unix.ProcessVMReadv(1, nil, nil, 0); return err },
	"setuid": func(io.Reader, io.Writer) error { return unix.Setresuid(0, 0, 0) },
	"who": func(_ io.Reader, out io.Writer) error {
		var files []string
		for fd := range 64 {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
				files = append(files, fmt.Sprint(fd))
			}
		}
		fmt.Fprintf(out, "uid %d pid %d fds %s", os.Getuid(), os.Getpid(), strings.Join(files, " "))
		return nil
	},
	"env": func(_ io.Reader, out io.Writer) error { _, err := fmt.Fprint(out, os.Environ()); return err },
	"file": func(_ io.Reader, out io.Writer) error {
		b, err := os.ReadFile("/given/file")
		out.Write(b)
		return err
	},
	"scratch": func(_ io.Reader, out io.Writer) error {
		if err := os.WriteFile("/tmp/a", make([]byte, 4096), 0o600); err != nil {
			return err
		}
		err := os.WriteFile("/tmp/b", make([]byte, 1<<20), 0o600)
		fmt.Fprint(out, err != nil)
		return nil
	},
}

func TestMain(m *testing.M) {
	sandbox.Enter(workers)
	os.Exit(m.Run())
}

// handed is the test's own binary, handed over as another would be. With cgo it needs libraries, which such a binary may not.
func handed(t *testing.T) *sandbox.Binary {
	t.Helper()
	if sandbox.Dynamic() {
		t.Skip("a binary with cgo is never handed over")
	}
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	b, err := sandbox.NewBinary(string(content))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestABinaryThatIsHandedOverStandsBehindTheSameWalls(t *testing.T) {
	b := handed(t)
	if out, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, "hello"); err != nil || out != "hello" {
		t.Fatalf("got %q and %v", out, err)
	}
	for w, want := range map[string]string{"read": "", "write": "", "env": "[GOMAXPROCS=2"} {
		if out, err := run(t, sandbox.Program{Worker: w, Binary: b}, ""); err != nil || !strings.HasPrefix(out, want) || want == "" && out != "" {
			t.Errorf("%s: got %q and %v, want %q", w, out, err, want)
		}
	}
	own, err := run(t, sandbox.Program{Worker: "who"}, "")
	if out, err2 := run(t, sandbox.Program{Worker: "who", Binary: b}, ""); err != nil || err2 != nil || out != own {
		t.Errorf("got %q and %v, want what a worker of our own binary is, %q and %v", out, err2, own, err)
	}
	out, err := run(t, sandbox.Program{Worker: "list", Binary: b}, "")
	if err != nil || strings.Contains(out, "redoubt") || strings.Contains(out, "/proc") {
		t.Errorf("got %q and %v, want no binary and nothing of the machine", out, err)
	}
	for _, w := range []string{"dial", "mount", "unshare", "ptrace", "bpf", "again", "execat", "setuid"} {
		_, err := run(t, sandbox.Program{Worker: w, Binary: b}, "")
		var x *sandbox.Exit
		if !errors.As(err, &x) || x.Killed != "bad system call" {
			t.Errorf("%s: got %v, want it killed", w, err)
		}
	}
	_, err = run(t, sandbox.Program{Worker: "eat", Binary: b, Limits: sandbox.Limits{Memory: 128 << 20}}, "")
	if x := (*sandbox.Exit)(nil); !errors.As(err, &x) {
		t.Errorf("a worker with more memory than it may have: got %v, want it ended", err)
	}
	if content, err := os.ReadFile("/bin/true"); err != nil {
		t.Error(err)
	} else if b, err := sandbox.NewBinary(string(content)); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("a binary that needs libraries: got %v and %v, want it refused", b, err)
	}
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary.NativeEndian.PutUint16(content[18:], uint16(elf.EM_S390))
	if b, err := sandbox.NewBinary(string(content)); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("a binary of another machine: got %v and %v, want it refused", b, err)
	}
	for _, p := range []sandbox.Program{{Path: "/bin/true", Binary: b}, {Binary: b}} {
		if _, err := run(t, p, ""); redoubt.KindOf(err) != redoubt.Unavailable {
			t.Errorf("%+v: got %v, want it refused", p, err)
		}
	}
}

func TestNobodyChangesABinaryThatWasHandedOver(t *testing.T) {
	b := handed(t)
	for what, try := range map[string]func(int) error{
		"write":    func(fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err },
		"truncate": func(fd int) error { return unix.Ftruncate(fd, 0) },
		"grow":     func(fd int) error { return unix.Ftruncate(fd, 1<<30) },
		"unseal":   func(fd int) error { _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, 0); return err },
		"map": func(fd int) error {
			_, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		},
	} {
		if err := try(b.FD()); err != unix.EPERM {
			t.Errorf("%s: got %v, want EPERM", what, err)
		}
	}
}

// TestWhatStartsWorkersMayEnd: what it has started ends with it, and another one takes its place.
func TestWhatStartsWorkersMayEnd(t *testing.T) {
	b := handed(t)
	for range 2 {
		p, err := sandbox.Start(sandbox.Program{Name: "hang", Worker: "hang", Binary: b})
		if err != nil {
			t.Fatal(err)
		}
		b.EndLauncher()
		if _, err := p.Run(t.Context(), nil); redoubt.KindOf(err) != redoubt.Internal {
			t.Errorf("got %v of a process whose starter has ended", err)
		}
		if out, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, "hello"); err != nil || out != "hello" {
			t.Fatalf("got %q and %v of the next", out, err)
		}
	}
	p, err := sandbox.Start(sandbox.Program{Name: "hang", Worker: "hang", Binary: b})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := p.Run(t.Context(), nil); redoubt.KindOf(err) != redoubt.Internal {
		t.Errorf("got %v of a process whose binary was closed", err)
	}
	if _, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, ""); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("got %v of a binary that was closed", err)
	}
}

// TestWhatCannotBeStartedEndsNothingElse: what runs by the same launcher runs on, and others are started.
func TestWhatCannotBeStartedEndsNothingElse(t *testing.T) {
	b := handed(t)
	p, err := sandbox.Start(sandbox.Program{Name: "hang", Worker: "hang", Binary: b, Limits: sandbox.Limits{Wall: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	launcher := b.LauncherPID()
	for _, err := range b.ConfuseLauncher() {
		if err != nil {
			t.Error(err)
		}
	}
	theirs := stubPipes(t)
	var x *sandbox.Exit
	if start, ended := b.StartLate(theirs); start == nil || !errors.As(ended, &x) || x.Killed != "killed" {
		t.Errorf("got %v and %v of one that was started late, want it refused, and killed", start, ended)
	}
	if out, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, "hello"); err != nil || out != "hello" || b.LauncherPID() != launcher {
		t.Errorf("got %q and %v of the next, by another launcher: %v", out, err, b.LauncherPID() != launcher)
	}
	if _, err := p.Run(t.Context(), nil); redoubt.KindOf(err) != redoubt.Expired {
		t.Errorf("got %v of what ran all the while, want that its time is over", err)
	}
}

// stubPipes are descriptors with which a stub starts, and waits for what it is told.
func stubPipes(t *testing.T) []*os.File {
	t.Helper()
	var theirs []*os.File
	for i := range 5 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		if i == 0 || i == 3 {
			theirs = append(theirs, r)
		} else {
			theirs = append(theirs, w)
		}
	}
	return theirs
}

// TestWhatStartsWorkersMayHang: one that does not answer twice is ended, and another one takes its place.
func TestWhatStartsWorkersMayHang(t *testing.T) {
	b := handed(t)
	p, err := sandbox.Start(sandbox.Program{Name: "hang", Worker: "hang", Binary: b})
	if err != nil {
		t.Fatal(err)
	}
	launcher := b.LauncherPID()
	for _, err := range b.HangLauncher(stubPipes(t)) {
		if err == nil {
			t.Error("a launcher that hangs has started something")
		}
	}
	if _, err := p.Run(t.Context(), nil); redoubt.KindOf(err) != redoubt.Internal {
		t.Errorf("got %v of a process whose starter was ended", err)
	}
	if out, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, "hello"); err != nil || out != "hello" || b.LauncherPID() == launcher {
		t.Errorf("got %q and %v of the next, by the same launcher: %v", out, err, b.LauncherPID() == launcher)
	}
}

// TestWhatStartsWorkersHoldsNothingOfTheNodes, be it open for whatever the node executes.
func TestWhatStartsWorkersHoldsNothingOfTheNodes(t *testing.T) {
	b := handed(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "of the node"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inherited, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	if out, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, "hello"); err != nil || out != "hello" {
		t.Fatalf("got %q and %v", out, err)
	}
	at := fmt.Sprintf("/proc/%d/fd", b.LauncherPID())
	all, err := os.ReadDir(at)
	if err != nil || len(all) < 4 {
		t.Fatalf("got %v and %v", all, err)
	}
	for _, fd := range all {
		if to, _ := os.Readlink(filepath.Join(at, fd.Name())); to == f.Name() {
			t.Errorf("it has %s open, as %s", to, fd.Name())
		}
	}
}

// TestAProgramGivesWay to who started it, as what starts it does: it never takes the processor because it has just woken, and has it in short slices, but where it is prompt. It is of
// the same session, since the kernel shares processors out among sessions before it asks how nice anybody is.
func TestAProgramGivesWay(t *testing.T) {
	const by = 7
	ours, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, pid int, gives bool) {
		t.Helper()
		if got, err := unix.Getsid(pid); err != nil || got != session {
			t.Errorf("%s is of the session %d, %v, want %d", what, got, err, session)
		}
		if got, err := unix.Getpgid(pid); err != nil || got != pid { // Ctrl-C is not for it
			t.Errorf("%s, %d, is of the group of processes %d, %v", what, pid, got, err)
		}
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %v", what, err)
		}
		for _, one := range all {
			tid, _ := strconv.Atoi(one.Name())
			got, err := unix.SchedGetAttr(tid, 0)
			if gives && (err != nil || got.Policy != unix.SCHED_BATCH || got.Nice != min(ours.Nice+by, 19)) || !gives && (err != nil || got.Policy != ours.Policy || got.Nice != ours.Nice) {
				t.Errorf("%s has %+v and %v, of our own %+v", what, got, err, ours)
			}
		}
	}
	p, err := sandbox.Start(sandbox.Program{Name: "hang", Worker: "hang", Nice: by})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	check("one of our own binary", p.PID(), true)
	if p, err = sandbox.Start(sandbox.Program{Name: "hang", Worker: "hang", Nice: by, Prompt: true}); err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if got, err := unix.SchedGetAttr(p.PID(), 0); err != nil || got.Policy != unix.SCHED_NORMAL || got.Nice != min(ours.Nice+by, 19) {
		t.Errorf("one that is prompt has %+v and %v, of our own %+v", got, err, ours)
	}
	b := handed(t)
	if _, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, ""); err != nil {
		t.Fatal(err)
	}
	check("what starts those that do not", b.LauncherPID(), false)
	if p, err = sandbox.Start(sandbox.Program{Name: "hang", Worker: "hang", Binary: b, Nice: by}); err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	check("what starts those that do", b.LauncherOf(by), true)
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.LauncherOf(by)))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range strings.Fields(string(text)) {
			pid, _ := strconv.Atoi(one)
			check("one of another", pid, true)
			n++
		}
	}
	if n != 1 {
		t.Errorf("it has started %d", n)
	}
}

// TestWhatGivesWayHasItsShare, and be every processor busy with what does not: it is begun and ends. (How soon is the kernel's.)
func TestWhatGivesWayHasItsShare(t *testing.T) {
	for range 2 * runtime.NumCPU() {
		busy := exec.Command("/bin/sh", "-c", "while :; do :; done")
		busy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		defer busy.Wait()
		defer busy.Process.Kill()
	}
	if out, err := run(t, sandbox.Program{Worker: "copy", Binary: handed(t), Nice: 19}, "hello"); err != nil || out != "hello" {
		t.Errorf("got %q and %v", out, err)
	}
}

func TestManyStartAtOnce(t *testing.T) {
	b := handed(t)
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			in := strings.Repeat(fmt.Sprint(i), 1<<18)
			if out, err := run(t, sandbox.Program{Worker: "copy", Binary: b}, in); err != nil || out != in {
				t.Errorf("%d got %d bytes and %v", i, len(out), err)
			}
			var x *sandbox.Exit
			if _, err := run(t, sandbox.Program{Worker: "hang", Binary: b, Limits: sandbox.Limits{Wall: time.Millisecond}}, ""); redoubt.KindOf(err) != redoubt.Expired {
				t.Errorf("%d got %v", i, err)
			}
			if _, err := run(t, sandbox.Program{Worker: "fail", Binary: b}, ""); !errors.As(err, &x) || x.Code != 1 || x.Stderr != "no good" {
				t.Errorf("%d got %v", i, err)
			}
		})
	}
	all.Wait()
}

func run(t *testing.T, p sandbox.Program, in string) (string, error) {
	t.Helper()
	p.Name = t.Name()
	out, err := sandbox.Run(t.Context(), p, []byte(in))
	return string(out), err
}

func TestAWorkerGetsItsInputAndGivesItsOutput(t *testing.T) {
	in := strings.Repeat("what leaves ", 1<<20)
	if out, err := run(t, sandbox.Program{Worker: "copy"}, in); err != nil || out != in {
		t.Fatalf("got %d bytes and %v, want the %d that went in", len(out), err, len(in))
	}
}

func TestAHelperRunsUnderTheSameWalls(t *testing.T) {
	p := sandbox.Program{Path: "/bin/sh", ReadOnly: append(sandbox.Libraries(), "/usr/bin/dash", "/bin", "/usr/bin/cat", "/usr/bin/ls", "/usr/bin/id")}
	p.Args = []string{"-c", "cat; ls /; cat /etc/passwd || echo no passwd; echo x >/tmp/x || echo no file; export"}
	out, err := run(t, p, "hello\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hello\n", "no passwd\n", "no file\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
	for _, not := range []string{"etc\n", "HOME", "GODEBUG", "PATH"} {
		if strings.Contains(out, not) {
			t.Errorf("got %q, which has %q", out, not)
		}
	}
}

func TestAWorkerSeesNothingOfTheMachine(t *testing.T) {
	for _, w := range []string{"read", "write"} {
		if out, err := run(t, sandbox.Program{Worker: w}, ""); err != nil || out != "" {
			t.Errorf("%s: got %q and %v, want nothing", w, out, err)
		}
	}
}

func TestWhatReachesOutIsKilled(t *testing.T) {
	for _, w := range []string{"dial", "unix", "exec", "mount", "unshare", "ptrace", "keyctl", "bpf", "uring", "vm", "setuid"} {
		_, err := run(t, sandbox.Program{Worker: w}, "")
		var x *sandbox.Exit
		if !errors.As(err, &x) || x.Killed == "" && w != "exec" || redoubt.KindOf(err) != redoubt.Internal {
			t.Errorf("%s: got %v, want a killed process", w, err)
		}
	}
}

func TestAHelperThatReachesOutIsKilled(t *testing.T) {
	for _, script := range []string{
		"import socket; socket.socket()", "import socket; socket.socketpair()",
		"import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))", "import ctypes; print(ctypes.CDLL(None).ptrace(0,0,0,0))",
	} {
		p := sandbox.Program{Path: "/usr/bin/python3", Args: []string{"-I", "-S", "-c", script}, ReadOnly: append(sandbox.Libraries(), "/usr/bin", "/usr/lib/python3.11", "/usr/lib/python3.13")}
		_, err := run(t, p, "")
		var x *sandbox.Exit
		if !errors.As(err, &x) || x.Killed != "bad system call" {
			t.Errorf("%s: got %v, want it killed", script, err)
		}
	}
}

func TestLimitsEndAProgram(t *testing.T) {
	for _, c := range []struct {
		worker string
		limits sandbox.Limits
		kind   redoubt.Kind
	}{
		{"hang", sandbox.Limits{Wall: 200 * time.Millisecond}, redoubt.Expired},
		{"spin", sandbox.Limits{CPU: time.Second, Wall: time.Minute}, redoubt.Internal},
		{"eat", sandbox.Limits{Memory: 300 << 20}, redoubt.Internal},
		{"flood", sandbox.Limits{Output: 1 << 20}, redoubt.TooLarge},
		{"crash", sandbox.Limits{}, redoubt.Internal},
		{"fail", sandbox.Limits{}, redoubt.Internal},
		{"chatter", sandbox.Limits{}, redoubt.Internal},
		{"none of that name", sandbox.Limits{}, redoubt.Internal},
	} {
		if c.worker == "eat" && sandbox.Instrumented {
			continue
		}
		out, err := run(t, sandbox.Program{Worker: c.worker, Limits: c.limits}, "")
		if redoubt.KindOf(err) != c.kind || err == nil || out != "" {
			t.Errorf("%s: got %q and %v, want %v", c.worker, out, err, c.kind)
		}
		if len(fmt.Sprint(err)) > 8<<10 {
			t.Errorf("%s: the error has %d bytes", c.worker, len(fmt.Sprint(err)))
		}
	}
}

func TestOutputAtItsLimitPassesAndOneByteMoreDoesNot(t *testing.T) {
	p := sandbox.Program{Worker: "copy", Limits: sandbox.Limits{Output: 1000}}
	if out, err := run(t, p, strings.Repeat("x", 1000)); err != nil || len(out) != 1000 {
		t.Errorf("got %d bytes and %v, want 1000", len(out), err)
	}
	if _, err := run(t, p, strings.Repeat("x", 1001)); redoubt.KindOf(err) != redoubt.TooLarge {
		t.Errorf("got %v, want too large", err)
	}
}

func TestSharedMemoryIsNoWayRoundTheLimit(t *testing.T) {
	if out, err := run(t, sandbox.Program{Worker: "share"}, ""); err != nil || out != "0 operation not permitted" {
		t.Errorf("got %q and %v, want it refused", out, err)
	}
}

func TestNothingIsLeftRunningOfAHelper(t *testing.T) {
	mark := fmt.Sprintf("%d", 100000+os.Getpid())
	p := sandbox.Program{Path: "/bin/sh", Args: []string{"-c", "sleep " + mark + " & sleep " + mark + " & wait"}, Limits: sandbox.Limits{Wall: 300 * time.Millisecond},
		ReadOnly: append(sandbox.Libraries(), "/bin", "/usr/bin/dash", "/usr/bin/sleep", "/dev/null")}
	if _, err := run(t, p, ""); redoubt.KindOf(err) != redoubt.Expired {
		t.Fatalf("got %v, want the end of its time", err)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		t.Fatal(err)
	}
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && bytes.Contains(b, []byte(mark)) {
			t.Errorf("%s is left: %q", l, b)
		}
	}
}

func TestAForkBombIsBounded(t *testing.T) {
	p := sandbox.Program{Path: "/bin/sh", Args: []string{"-c", "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all; wait"}, Limits: sandbox.Limits{Processes: 10},
		ReadOnly: append(sandbox.Libraries(), "/bin", "/usr/bin/dash", "/usr/bin/sleep", "/dev/null")}
	if out, err := run(t, p, ""); err == nil || strings.Contains(out, "all") {
		t.Errorf("got %q and %v, want it stopped at ten processes", out, err)
	}
}

func TestAWorkerIsNobodyAloneWithThreeDescriptors(t *testing.T) {
	leak, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil { // as one that was inherited from a shell
		t.Fatal(err)
	}
	want := "uid 65534 pid 1 fds 0 1 2"
	if os.Getuid() != 0 {
		want = "uid 0 pid 1 fds 0 1 2" // of its own namespace
	}
	if out, err := run(t, sandbox.Program{Worker: "who"}, ""); err != nil || out != want {
		t.Errorf("got %q and %v, want %q", out, err, want)
	}
}

func TestTheEnvironmentIsEmpty(t *testing.T) {
	t.Setenv("SECRET", "x")
	out, err := run(t, sandbox.Program{Worker: "env"}, "")
	if err != nil || strings.Contains(out, "SECRET") || strings.Contains(out, "PATH") {
		t.Errorf("got %q and %v", out, err)
	}
}

// Who starts a program may keep its own files to itself.
func TestAMaskOfModesIsNotThePrograms(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	if out, err := run(t, sandbox.Program{Worker: "file", Files: map[string][]byte{"/given/file": []byte("schema")}}, ""); err != nil || out != "schema" {
		t.Errorf("got %q and %v, want the file", out, err)
	}
	p := sandbox.Program{Path: "/bin/sh", Args: []string{"-c", "cat"}, ReadOnly: append(sandbox.Libraries(), "/usr/bin/cat", "/bin/cat")}
	if out, err := run(t, p, "hello"); err != nil || out != "hello" {
		t.Errorf("got %q and %v", out, err)
	}
}

func TestFilesAndScratchAreWhatWasGiven(t *testing.T) {
	if out, err := run(t, sandbox.Program{Worker: "file", Files: map[string][]byte{"/given/file": []byte("schema")}}, ""); err != nil || out != "schema" {
		t.Errorf("got %q and %v, want the file", out, err)
	}
	if out, err := run(t, sandbox.Program{Worker: "scratch", Scratch: 64 << 10}, ""); err != nil || out != "true" {
		t.Errorf("got %q and %v, want a small file to be written and a large one not", out, err)
	}
}

func TestAProgramThatIsNotThereDoesNotRun(t *testing.T) {
	for _, p := range []sandbox.Program{{}, {Path: "/no/such"}, {Path: "sh"}, {Path: "/bin/sh", Worker: "copy"}} {
		if _, err := run(t, p, ""); redoubt.KindOf(err) != redoubt.Unavailable {
			t.Errorf("%+v: got %v, want unavailable", p, err)
		}
	}
}

func TestTheOneWhoCallsCanEndIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sandbox.Run(ctx, sandbox.Program{Worker: "hang"}, nil); redoubt.KindOf(err) != redoubt.Expired {
		t.Errorf("got %v, want it ended", err)
	}
}

// An ordinary user's walls are the same. Where the kernel does not let ordinary users have them, nothing runs and the error says so.
func TestAnOrdinaryUserGetsTheSameOrNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the other tests are run as an ordinary user now")
	}
	dir, err := os.MkdirTemp("/tmp", "sandbox") // t.TempDir is for its owner alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b, err := os.ReadFile("/proc/self/exe")
	exe := filepath.Join(dir, "test")
	if err = errors.Join(err, os.WriteFile(exe, b, 0o755), os.Chmod(exe, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.count", "1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as user 12345: %v\n%s", err, out)
	}
}

func TestAvailableTellsEachMechanism(t *testing.T) {
	all, err := sandbox.Available()
	for _, m := range all {
		t.Logf("%s: %v (%s)", m.Name, m.OK, m.Detail)
		if m.OK != (err == nil) {
			t.Errorf("%s: %v, with error %v", m.Name, m.OK, err)
		}
	}
	if len(all) != 3 {
		t.Errorf("got %d mechanisms", len(all))
	}
}

func BenchmarkAWorker(b *testing.B) {
	for b.Loop() {
		if _, err := sandbox.Run(b.Context(), sandbox.Program{Worker: "copy"}, []byte("x")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAWarmWorker(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		p, err := sandbox.Start(sandbox.Program{Worker: "copy"})
		if err != nil {
			b.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		b.StartTimer()
		if _, err := p.Run(b.Context(), []byte("x")); err != nil {
			b.Fatal(err)
		}
	}
}
