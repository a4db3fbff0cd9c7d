package oci

import (
	"bytes"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"redoubt/sandbox"
)

// bootTimeout is from a keeper's start to its sandbox standing.
const bootTimeout = 30 * time.Second

// box is a sandbox with its keeper, as the node holds it. One run at a time is in it.
type box struct {
	cmd   *exec.Cmd
	conn  net.Conn
	files *net.UnixConn
	wire  *wire
	said  bytes.Buffer // beginning of the keeper's standard error
	once  sync.Once
	ended chan struct{} // the keeper has

	window *sandbox.Window
	giving sync.Mutex // a descriptor and its frame are sent together

	group *group
	users *users
	slot  int    // of users
	oom   bool   // the kernel ended something of it for its memory; known after kill
	key   string // of the pool
	timer *time.Timer
	runs  int
}

// newBox starts a keeper and its sandbox. As root, both are nobody outside of their namespaces.
func newBox(spec bootSpec, in *groups, of *users) (b *box, err error) {
	theirs, conn, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	theirFiles, files, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer theirFiles.Close()
	b = &box{conn: conn, files: files.(*net.UnixConn), wire: newWire(conn, maxFromKeep), ended: make(chan struct{}), users: of, slot: -1}
	b.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: []string{keeperName}, Env: keeperEnv(), Dir: "/", ExtraFiles: []*os.File{theirs, theirFiles}, Stderr: &boundedWriter{w: &b.said, left: 4096}}
	if spec.Runc != "" && os.Geteuid() == 0 {
		if b.slot, err = of.take(); err != nil {
			conn.Close()
			files.Close()
			return nil, err
		}
	}
	spec.Devices = b.slot >= 0
	b.cmd.SysProcAttr = keeperWalls(b.slot)
	// Pdeathsig counts from the thread that forks, so that thread stays.
	started := make(chan error)
	go func() { // ends with the keeper
		defer close(b.ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := b.cmd.Start()
		started <- err
		if err == nil {
			_ = b.cmd.Wait() // what it has to say it says in frames
		}
	}()
	if err := <-started; err != nil {
		of.give(b.slot)
		conn.Close()
		files.Close()
		return nil, unavailable("allow user namespaces, and let others execute this program (chmod o+x)", err)
	}
	if b.group, err = in.make(spec); err != nil {
		b.group = nil // the watcher bounds it
	}
	if err := b.group.add(b.cmd.Process.Pid); err != nil { // it waits to be told to start anything
		b.kill()
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(bootTimeout))
	if b.window, err = sandbox.NewWindow(windowPieces, pieceBytes); err == nil {
		err = b.give(b.window.File(), func() error { return b.wire.sendJSON(doBoot, 0, spec) })
	}
	if err == nil && spec.Devices {
		var devices *os.File
		if devices, err = ownDevices(); err == nil {
			err = b.give(devices, func() error { return nil })
			devices.Close()
		}
	}
	if err == nil {
		err = b.wire.expect(tellReady, nil)
	}
	if err != nil {
		b.kill()
		return nil, unavailable("redoubt doctor tells what this machine lacks", fmt.Errorf("a sandbox did not start: %w %s", err, b.said.String()))
	}
	return b, conn.SetDeadline(time.Time{})
}

func socketpair(kind int) (theirs *os.File, ours net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[0]), "keeper")
	f := os.NewFile(uintptr(fds[1]), "node")
	defer f.Close()
	if ours, err = net.FileConn(f); err != nil {
		theirs.Close()
	}
	return theirs, ours, err
}

// keeperWalls are namespaces for a keeper. slot is the range of users that it has where it starts runc as root, else negative.
func keeperWalls(slot int) *syscall.SysProcAttr {
	uid, gid, count := os.Geteuid(), os.Getegid(), 1
	root := uid == 0
	switch {
	case slot >= 0:
		uid = runcIDs + slot*runcIDCount
		gid, count = uid, runcIDCount
	case root:
		uid, gid = 65534, 65534
	}
	return &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: count}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: count}},
		Credential:                 &syscall.Credential{NoSetGroups: true},
		GidMappingsEnableSetgroups: slot >= 0,
		Setsid:                     true,
		Pdeathsig:                  syscall.SIGKILL,
	}
}

func keeperEnv() []string {
	env := []string{"GOTRACEBACK=none", "GOGC=400"}
	switch {
	case fips140.Enforced():
		return append(env, "GODEBUG=fips140=only")
	case fips140.Enabled():
		return append(env, "GODEBUG=fips140=on")
	}
	return env
}

// kill ends the keeper, and with it, as the first of its process namespace, all that it started, and all of its mounts.
func (b *box) kill() {
	b.once.Do(func() {
		if b.timer != nil {
			b.timer.Stop()
		}
		b.cmd.Process.Kill()
		<-b.ended // and with it all that was in its process namespace
		b.users.give(b.slot)
		b.oom = b.group.killed()
		b.group.remove()
		b.conn.Close()
		b.files.Close()
		b.window.Close()
	})
}

// run sends a run with its descriptors.
func (b *box) run(r runSpec, stdout, stderr, root *os.File) error {
	rights := unix.UnixRights(int(stdout.Fd()), int(stderr.Fd()), int(root.Fd()))
	if _, _, err := b.files.WriteMsgUnix([]byte{0}, rights, nil); err != nil {
		return err
	}
	return b.wire.sendJSON(doRun, 0, r)
}

// give sends a descriptor, and the frame that is about it.
func (b *box) give(f *os.File, send func() error) error {
	b.giving.Lock()
	defer b.giving.Unlock()
	if _, _, err := b.files.WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil); err != nil {
		return err
	}
	return send()
}

// pool keeps sandboxes that nothing runs in. One serves a share alone, with the same limits, and only such a share whose label cannot rise: what a
// program left in it is of no other label (RULES 5.2).
type pool struct {
	max    int
	keep   time.Duration
	mu     sync.Mutex // guards what follows
	idle   []*box     // oldest first
	closed bool
}

// take gives an idle sandbox, or nil.
func (p *pool) take(key string) *box {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		if b := p.idle[i]; b.key == key && b.timer.Stop() {
			p.idle = append(p.idle[:i:i], p.idle[i+1:]...)
			return b
		}
	}
	return nil
}

// give takes a sandbox back. What is too much, or stays unused for too long, ends.
func (p *pool) give(b *box) {
	p.mu.Lock()
	var out *box
	if p.closed {
		out = b
	} else {
		b.timer = time.AfterFunc(p.keep, func() { p.drop(b) })
		if p.idle = append(p.idle, b); len(p.idle) > p.max {
			out, p.idle = p.idle[0], p.idle[1:]
		}
	}
	p.mu.Unlock()
	if out != nil {
		out.kill()
	}
}

func (p *pool) drop(b *box) {
	p.mu.Lock()
	for i := range p.idle {
		if p.idle[i] == b {
			p.idle = append(p.idle[:i:i], p.idle[i+1:]...)
			break
		}
	}
	p.mu.Unlock()
	b.kill()
}

func (p *pool) close() {
	p.mu.Lock()
	all := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, b := range all {
		b.kill()
	}
}

var errEnded = errors.New("the sandbox ended")

// sandboxError says that a sandbox went away under a run, which is no fault of the program's as far as anybody can tell.
func sandboxError(err error) error {
	if err == io.EOF || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		err = errEnded
	}
	return fmt.Errorf("oci: %w", err)
}
