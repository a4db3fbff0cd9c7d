package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unicode/utf8"

	"redoubt"
)

// Command is the first argument of our binary in a pod.
const Command = "kube-agent"

// Where things are in a pod.
const (
	agentDir  = "/.redoubt"
	agentPath = agentDir + "/redoubt"
	imagePath = "/redoubt" // in the agent's own image
	inDir     = "/in"
	outDir    = "/out"
	tmpDir    = "/tmp"
)

// The verbs after Command.
const (
	verbCopy   = "copy"   // puts this binary at agentPath
	verbHold   = "hold"   // stands first in a container, until that is ended
	verbTake   = "take"   // takes inputs
	verbRun    = "run"    // runs the program of a job
	verbKeep   = "keep"   // stands first in the container of a service
	verbKeeper = "keeper" // keeps a service's program, and speaks with the node
	verbStart  = "start"  // becomes a service's program
	verbJoin   = "join"   // joins the node with the keeper
)

// Exit codes of our binary, which those of a release before this one had not: they ended with 1.
const (
	exitFault    = 89 // it could not do what it is there for
	exitNoWall   = 90 // of verbKeep: what a service is walled in with is not there
	exitNoKeeper = 91 // of verbKeep: the keeper could not be started
	exitNoVerb   = 92 // it knows no such verb
)

var errNoVerb = errors.New("no such verb")

// Enter does the work of a process that was started in a pod, and ends it. In every other it returns.
func Enter() {
	if len(os.Args) != 3 || os.Args[1] != Command {
		return
	}
	// A process that exec starts has its parent outside of the container's process namespace; there alone everybody else may be ended.
	a := agent{in: inDir, out: outDir, alone: os.Getpid() == 1 || os.Getppid() == 0}
	var err error
	if verb := os.Args[2]; verb != verbCopy && verb != verbKeep && verb != verbStart {
		err = secret()
	}
	if err == nil {
		err = a.enter(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitOf(err))
	}
	os.Exit(0)
}

func exitOf(err error) int {
	if start, ok := errors.AsType[*startError](err); ok {
		return start.code
	}
	if errors.Is(err, errNoVerb) {
		return exitNoVerb
	}
	return exitFault
}

// startError is a keeper that could not be started.
type startError struct {
	code int
	error
}

func (a agent) enter(verb string) (err error) {
	switch verb {
	case verbCopy:
		err = copySelf(agentPath)
	case verbHold:
		hold()
	case verbTake:
		err = a.take(os.Stdin, os.Stdout)
	case verbRun:
		err = a.run(os.Stdin, os.Stdout)
	case verbKeep:
		err = keep()
	case verbKeeper:
		err = keepProgram()
	case verbStart:
		err = startProgram()
	case verbJoin:
		err = join(keeperSocket, os.Stdin, os.Stdout)
	default:
		err = errNoVerb
	}
	return err
}

// agent is what works in a pod.
type agent struct {
	in, out string
	alone   bool // in a container of its own, where it may end everybody else
}

func copySelf(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	mode := fs.FileMode(0o111) // of what cannot be read, no other process reads the memory, from its beginning
	if !canAsk() {
		mode = 0o555 // gVisor does not begin what cannot be read; a service's program is in a namespace of users below there, and reads nobody's
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// take makes /in from what the node tells.
func (a agent) take(in io.Reader, out io.Writer) error {
	f := &frames{r: in, w: out, max: maxFrame}
	if err := a.fill(f); err != nil {
		return errors.Join(err, f.write(sayFault, []byte(err.Error())))
	}
	return f.write(sayDone, nil)
}

func (a agent) fill(f *frames) error {
	root, err := os.OpenRoot(a.in)
	if err != nil {
		return err
	}
	defer root.Close()
	for {
		kind, body, err := f.read()
		if err != nil {
			return err
		}
		if kind == tellEnd {
			return nil
		}
		var e entry
		if kind != tellEntry || json.Unmarshal(body, &e) != nil || e.Bytes < 0 {
			return errFrame
		}
		if e.Dir {
			if err := root.Mkdir(e.Path, 0o755); err != nil {
				return err
			}
			continue
		}
		file, err := root.OpenFile(e.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, &content{f: f, left: e.Bytes})
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
		if err := root.Chtimes(e.Path, e.Modified, e.Modified); err != nil {
			return err
		}
	}
}

// run runs the program to its end, and tells of its outputs.
func (a agent) run(in io.Reader, out io.Writer) error {
	f := &frames{r: in, w: out, max: maxTask}
	kind, body, err := f.read()
	var t task
	if err != nil || kind != tellTask || json.Unmarshal(body, &t) != nil || len(t.Args) == 0 {
		return errors.Join(errFrame, err)
	}
	end, err := a.execute(f, t)
	if err != nil {
		return errors.Join(err, f.write(sayFault, []byte(err.Error())))
	}
	if err := f.writeJSON(sayExit, end); err != nil {
		return err
	}
	if end.Code == 0 {
		w := walk{f: f}
		if err := w.dir(a.out, "", 0); err != nil {
			return errors.Join(err, f.write(sayFault, []byte(err.Error())))
		}
	}
	return f.write(sayDone, nil)
}

// execute runs the program. An error is not the program's.
func (a agent) execute(f *frames, t task) (end ending, err error) {
	if a.alone {
		if err := errors.Join(bound(t.Processes), wall()); err != nil {
			return end, err
		}
	}
	c := &exec.Cmd{Args: texts(t.Args), Env: texts(t.Env), Dir: t.Dir}
	if c.Path, err = look(c.Args[0], c.Dir, c.Env); err != nil {
		return ending{Code: -1, Fault: err.Error()}, nil
	}
	var pumps sync.WaitGroup
	var ends []*os.File
	for kind, to := range map[byte]*io.Writer{sayOut: &c.Stdout, sayErr: &c.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return end, err
		}
		defer r.Close()
		*to, ends = w, append(ends, w)
		pumps.Go(func() { pump(f, kind, r) })
	}
	if err := f.write(sayBegan, nil); err != nil {
		return end, err
	}
	err = c.Start()
	for _, w := range ends {
		w.Close()
	}
	if err != nil {
		return ending{Code: -1, Fault: err.Error()}, nil
	}
	go func() { // the node says nothing more: when its stream ends, it has gone
		io.Copy(io.Discard, f.r)
		c.Process.Kill()
	}()
	var crowded atomic.Bool
	ended := make(chan struct{})
	if a.alone {
		pumps.Go(func() {
			if crowd(t.Processes, ended) {
				crowded.Store(true)
				syscall.Kill(-1, syscall.SIGKILL)
			}
		})
	}
	err = c.Wait()
	close(ended)
	if a.alone { // what it left running ends, and with that the pipes do
		syscall.Kill(-1, syscall.SIGKILL)
	}
	pumps.Wait()
	var x *exec.ExitError
	if err != nil && !errors.As(err, &x) {
		return end, err
	}
	if crowded.Load() {
		return ending{Code: -1, Crowded: true}, nil
	}
	return endingOf(c.ProcessState), nil
}

// endingOf is how a program ended by itself.
func endingOf(s *os.ProcessState) ending {
	end := ending{Code: s.ExitCode()}
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		end = ending{Code: 128 + int(w.Signal()), Signal: w.Signal().String()}
	}
	end.Memory = end.Code != 0 && outOfMemory()
	return end
}

// pump tells what the program says.
func pump(f *frames, kind byte, r io.Reader) {
	text := make([]byte, 32<<10)
	for {
		n, err := r.Read(text)
		if n > 0 && f.write(kind, text[:n]) != nil || err != nil {
			return
		}
	}
}

// defaultPath is where programs are looked for that have no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// look finds the program's file, as a shell would.
func look(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		return name, nil
	}
	paths := defaultPath
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			paths = p
		}
	}
	for _, dir := range filepath.SplitList(paths) {
		at := path.Join(dir, name)
		if s, err := os.Stat(at); path.IsAbs(dir) && err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0 {
			return at, nil
		}
	}
	return "", fmt.Errorf("%q is not in the image", name)
}

// outOfMemory says whether the kernel has ended anything of this container for want of memory.
func outOfMemory() bool {
	for _, file := range []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			if n, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
				return string(bytes.TrimSpace(n)) != "0"
			}
		}
	}
	return false
}

// walk tells of outputs.
type walk struct {
	f    *frames
	left int
}

// maxDepth is how deep folders below /out may lie within each other.
const maxDepth = 100

// dir tells of what a folder holds. at is where it is, name its path below /out.
func (w *walk) dir(at, name string, depth int) error {
	all, err := os.ReadDir(at)
	if errors.Is(err, fs.ErrPermission) { // it is the program's own: that it may not be read is no reason to lose it
		if os.Chmod(at, 0o700) == nil {
			all, err = os.ReadDir(at)
		}
	}
	if err != nil {
		return w.leave(name)
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, d := range all {
		at, name := at+"/"+d.Name(), path.Join(name, d.Name())
		switch {
		case !utf8.ValidString(d.Name()) || len(name) > redoubt.MaxKeyBytes || depth >= maxDepth:
			err = w.leave(name)
		case d.IsDir():
			err = w.dir(at, name, depth+1)
		case d.Type().IsRegular():
			err = w.file(at, name)
		default:
			err = w.leave(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) leave(name string) error {
	if w.left++; w.left > maxLeft {
		return nil
	}
	return w.f.write(sayLeft, []byte(name))
}

func (w *walk) file(at, name string) error {
	const flags = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	file, err := os.OpenFile(at, flags, 0)
	if errors.Is(err, fs.ErrPermission) {
		if os.Chmod(at, 0o600) == nil {
			file, err = os.OpenFile(at, flags, 0)
		}
	}
	if err != nil {
		return w.leave(name)
	}
	defer file.Close()
	s, err := file.Stat()
	if err != nil || !s.Mode().IsRegular() {
		return w.leave(name)
	}
	if err := w.f.writeJSON(sayFile, entry{Path: name, Bytes: s.Size()}); err != nil {
		return err
	}
	return w.f.writeContent(file, s.Size())
}
