package sandbox

import (
	"bytes"
	"context"
	"crypto/fips140"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"redoubt"
)

// stubName is the name under which our binary is executed to wall itself in.
const stubName = "redoubt-sandbox"

// The descriptors of the stub, beside the standard three.
const (
	specFD   = 3 // what it is told
	statusFD = 4 // what it tells: standing, or why not
	windowFD = 5 // where there is one: it goes on to the program
)

// standing is what the stub writes when every wall is up.
const standing = "standing\n"

// leastAddress is a file that our own binary does not begin without where gVisor is part of it, though only gVisor has a use for it.
const leastAddress = "/proc/sys/vm/mmap_min_addr"

// nobody is who a program is where we are root.
const nobody = 65534

// Process is a program that is walled in and waits for its input. It is for one input.
type Process struct {
	name   string
	limits Limits
	stub   started
	window *Window
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *bounded
	said   chan struct{} // closed when what it says to standard error has ended
	once   sync.Once     // ends the process and reaps it
	ended  error         // how: nil, an *Exit, or what went wrong
}

// started is a process that runs.
type started interface {
	kill()
	wait() error // until it has ended: an *Exit where it did not end well
}

// Run starts p, gives it in, and gives back what it wrote. Whatever happens, nothing of it runs when Run has returned. The error is a
// *redoubt.Error: Unavailable, nothing ran, and Hint says what the machine lacks; TooLarge, it wrote more than Limits.Output; Expired, it did
// not end in time; Internal with an *Exit, it was killed or failed by itself.
func Run(ctx context.Context, p Program, in []byte) ([]byte, error) {
	r, err := Start(p)
	if err != nil {
		return nil, err
	}
	return r.Run(ctx, in)
}

// Start walls a program in and has it wait for its input; whoever starts one calls Run or Kill. Limits.Wall counts from Run, so that a
// program may be started before its input is there.
func Start(p Program) (*Process, error) {
	fail := func(hint string, err error) (*Process, error) {
		p.Window.Close()
		return nil, &redoubt.Error{Op: "sandbox.Start", Object: p.Name, Kind: redoubt.Unavailable, Hint: hint, Err: err}
	}
	if (p.Worker == "") == (p.Path == "") || p.Path != "" && p.Binary != nil || p.Path != "" && !filepath.IsAbs(p.Path) || len(p.ReadOnly) > maxBinds {
		return fail("", errors.New("a program is a worker, or an absolute path"))
	}
	l := p.Limits.orDefaults()
	root := os.Geteuid() == 0
	own := p.Worker != "" && p.Binary == nil
	if own {
		p.Files = maps.Clone(p.Files)
		if p.Files == nil {
			p.Files = map[string][]byte{}
		}
		p.Files[leastAddress] = []byte("65536\n")
	}
	if own && dynamic() {
		p.ReadOnly = append(slices.Clone(p.ReadOnly), Libraries()...)
	}
	w, err := wayOf(p.Nice, p.Prompt)
	if err != nil {
		return fail("", err)
	}
	told, err := json.Marshal(spec{Worker: p.Worker, Handed: p.Binary != nil, Path: p.Path, Args: p.Args, Env: p.Env, ReadOnly: p.ReadOnly, Files: p.Files, Scratch: p.Scratch, Way: w, Window: p.Window != nil,
		Memory: l.Memory, CPU: int64((l.CPU + time.Second - 1) / time.Second), OpenFiles: l.Files, Processes: l.Processes, Nobody: root})
	if err != nil || len(told) > maxSpecBytes {
		return fail("", errors.Join(err, fmt.Errorf("what the program is told has %d bytes, and %d may be", len(told), maxSpecBytes)))
	}
	r := &Process{window: p.Window, name: p.Name, limits: l, stderr: &bounded{left: maxErrorBytes}}
	// The other side of each is the program's.
	var theirs, ours []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	for i := range stubFiles {
		read, write, err := os.Pipe()
		if err != nil {
			for _, f := range ours {
				f.Close()
			}
			return fail("", err)
		}
		if i == 0 || i == specFD { // what it reads
			theirs, ours = append(theirs, read), append(ours, write)
		} else {
			theirs, ours = append(theirs, write), append(ours, read)
		}
	}
	r.in, r.out = ours[0], ours[1]
	stderr, spec, status := ours[2], ours[specFD], ours[statusFD]
	defer spec.Close()
	defer status.Close()
	widen(ours[0])
	widen(ours[1])
	handed := theirs
	if p.Window != nil {
		handed = append(slices.Clone(theirs), p.Window.file)
	}
	if r.stub, err = startStub(p.Binary, w, handed); err != nil {
		for _, f := range ours[:3] {
			f.Close()
		}
		if errors.Is(err, errLate) || errors.Is(err, errLauncher) {
			return fail("", err)
		}
		return fail("allow user namespaces: user.max_user_namespaces above 0, and no security module or container profile that forbids them", fmt.Errorf("namespaces: %w", err))
	}
	for _, f := range theirs {
		f.Close()
	}
	theirs = nil
	r.said = make(chan struct{})
	go func() {
		defer close(r.said)
		defer stderr.Close()
		_, _ = io.Copy(r.stderr, stderr) // to its end
	}()
	deadline := time.Now().Add(w.patience())
	spec.SetWriteDeadline(deadline)
	status.SetReadDeadline(deadline)
	_, err = spec.Write(told)
	spec.Close()
	said, err2 := io.ReadAll(io.LimitReader(status, 4096))
	if err = errors.Join(err, err2); err != nil || string(said) != standing {
		r.Kill()
		why := strings.TrimSpace(strings.TrimPrefix(string(said), standing))
		if why == "" {
			why = fmt.Sprintf("the process ended before it stood (%v) %s", err, r.stderr)
		}
		return fail("redoubt doctor tells which mechanism is missing", errors.New(why))
	}
	return r, nil
}

// pipeBytes is how much may lie in a pipe: what is said in pieces of a mebibyte would otherwise wake the other side sixteen times for each.
const pipeBytes = 1 << 20

// widen has a pipe take more, as far as this user may have that; it does without as well.
func widen(pipe *os.File) {
	if raw, err := pipe.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeBytes) })
	}
}

// walls are the namespaces. Root maps itself, which it needs to read what it was given, and nobody, which it becomes; others map themselves.
//
// It stays in our session: where no control group has a say in processors, the kernel shares them out among sessions first (sched_autogroup), and how nice a
// process is counts against those of its own session alone. In one of its own it would give way to nobody. The terminal that a session may have is
// nowhere inside, and its signals are for another process group.
func walls(root bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Setpgid:     true,
		Pdeathsig:   syscall.SIGKILL,
	}
	if root {
		a.UidMappings = append(a.UidMappings, syscall.SysProcIDMap{ContainerID: nobody, HostID: nobody, Size: 1})
		a.GidMappings = append(a.GidMappings, syscall.SysProcIDMap{ContainerID: nobody, HostID: nobody, Size: 1})
		a.GidMappingsEnableSetgroups = true
	}
	return a
}

// stubEnv is the environment of the stub, which is a Go program; the program that it executes gets Program.Env alone.
func stubEnv() []string {
	env := []string{"GOMAXPROCS=2", "GOTRACEBACK=none"}
	if fips140.Enforced() {
		return append(env, "GODEBUG=fips140=only")
	}
	if fips140.Enabled() {
		return append(env, "GODEBUG=fips140=on")
	}
	return env
}

// Run gives the program its input, waits for its end and gives back its output. See the function Run for the error.
func (r *Process) Run(ctx context.Context, in []byte) ([]byte, error) {
	var out bytes.Buffer
	if err := r.Stream(ctx, bytes.NewReader(in), &out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Stream is Run for what need not be in memory. An error of in ends the program, and is Stream's, and so is one of out.
func (r *Process) Stream(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, r.limits.Wall)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { r.stub.kill() })
	defer stop()
	from := &source{Reader: in}
	fed := make(chan struct{})
	go func() { // ends when everything is written, or the process has gone
		defer close(fed)
		_, err := io.Copy(r.in, from)
		_ = errors.Join(err, r.in.Close()) // a program need not read to the end; whether it did well it says by its exit code
		if from.err != nil {
			r.stub.kill()
		}
	}()
	n, err := io.Copy(out, io.LimitReader(r.out, r.limits.Output+1))
	if n > r.limits.Output || err != nil {
		r.Kill()
	}
	r.wait()
	<-fed
	fail := func(k redoubt.Kind, err error) error {
		return &redoubt.Error{Op: "sandbox.Run", Object: r.name, Kind: k, Err: err}
	}
	switch {
	case from.err != nil:
		return fail(redoubt.KindOf(from.err), from.err)
	case n > r.limits.Output:
		return fail(redoubt.TooLarge, fmt.Errorf("it wrote more than %d bytes", r.limits.Output))
	case ctx.Err() != nil:
		return fail(redoubt.Expired, errors.Join(ctx.Err(), fmt.Errorf("it did not end within %v", r.limits.Wall)))
	case err != nil:
		return fail(redoubt.Internal, err)
	}
	if r.ended != nil {
		return fail(redoubt.Internal, r.how())
	}
	return nil
}

// source remembers why its reader ended.
type source struct {
	io.Reader
	err error // but io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Said is the beginning of what the program wrote to standard error, after Run.
func (r *Process) Said() string { return r.stderr.String() }

// Kill ends the program and everything that it started.
func (r *Process) Kill() {
	r.stub.kill()
	r.wait()
}

// wait reaps the process, once. Standard output was read to its end, or is of no more use.
func (r *Process) wait() {
	r.once.Do(func() {
		r.ended = r.stub.wait()
		r.window.Close()
		r.in.Close()
		r.out.Close()
		<-r.said
	})
}

// how is how it ended, once it has: with what it said of it.
func (r *Process) how() error {
	var x *Exit
	if errors.As(r.ended, &x) {
		return &Exit{Code: x.Code, Killed: x.Killed, Stderr: r.stderr.String()}
	}
	return r.ended
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	mu   sync.Mutex
	kept bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(p), b.left)
	b.kept.Write(p[:n])
	b.left -= n
	return len(p), nil
}

func (b *bounded) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.ToValidUTF8(strings.TrimSpace(b.kept.String()), "?")
}

// dynamic reports whether our own binary needs libraries: one that was built with cgo, as for the race detector, does.
var dynamic = sync.OnceValue(func() bool {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	return interpreted(f)
})

// interpreted reports whether a binary needs libraries.
func interpreted(f *elf.File) bool {
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Libraries are the folders of a Debian machine that its programs load shared libraries from.
func Libraries() []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return []string{"/lib/" + triplet, "/lib64", "/lib/ld-linux-aarch64.so.1", "/usr/lib/" + triplet}
}
