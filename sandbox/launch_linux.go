package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process with a namespace of users of its own is forked with a copy of its parent's tables of pages, and from then on the parent pays for each page that
// it writes to. A node has many. So what is executed of a Binary is started by a launcher: a process of that binary which is small, stands outside of walls,
// holds nothing but a socket to us, and does nothing but start stubs with the descriptors that come over it, end them, and tell how they ended.

const (
	launcherName = "redoubt-sandbox-launcher"
	launcherFD   = 3
	stubFiles    = 5 // of a stub: standard input, output and error, specFD, statusFD; windowFD may follow
	maxNotice    = 4096
)

// order is what a launcher is told.
type order struct {
	ID   uint64 `json:"id"`
	Kill bool   `json:"kill,omitempty"` // end what was started as ID; else start it, with the descriptors beside this
}

// notice is what it tells.
type notice struct {
	ID     uint64         `json:"id"`
	Begun  bool           `json:"begun,omitempty"`
	Error  string         `json:"error,omitempty"` // it could not be started
	Code   int            `json:"code,omitempty"`
	Signal syscall.Signal `json:"signal,omitempty"`
}

// launcher is one as who uses it sees it.
type launcher struct {
	conn     *net.UnixConn
	cmd      *exec.Cmd
	gone     chan struct{}
	patience time.Duration // with a start that is not answered

	mu     sync.Mutex
	next   uint64
	open   map[uint64]*launched
	unsaid int // starts in a row that were not answered in time, with nothing else told since
}

// hung is how many such starts make a launcher one that hangs.
const hung = 2

// launched is a process that a launcher started.
type launched struct {
	l     *launcher
	id    uint64
	begun chan struct{} // it is known whether it was started
	ended chan struct{}
	fault error // it was not
	exit  error
	late  bool // nobody waits for it any more: it is ended when it has begun
}

var (
	errLauncher = errors.New("the process that starts workers has ended")
	errLate     = errors.New("what starts workers has not started this one in time")
)

// startLauncher starts one, of what has the processor in this way.
func startLauncher(b *Binary, w way) (*launcher, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "launcher"), os.NewFile(uintptr(fds[1]), "launcher")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	l := &launcher{conn: conn.(*net.UnixConn), gone: make(chan struct{}), patience: w.patience(), open: map[uint64]*launched{}}
	l.cmd = &exec.Cmd{Path: b.path(), Args: []string{launcherName}, Env: stubEnv(), Dir: "/", ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}}
	if w.Gives { // starting what gives way, and taking it away, is work too
		l.cmd.Args = append(l.cmd.Args, strconv.Itoa(w.Nice))
	}
	if err := l.cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	go l.hear()
	return l, nil
}

// hear takes what it tells until it has ended, and all that it started with it.
func (l *launcher) hear() {
	defer close(l.gone)
	buf := make([]byte, maxNotice)
	for {
		n, err := l.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		var what notice
		if json.Unmarshal(buf[:n], &what) != nil {
			break
		}
		l.mu.Lock()
		l.unsaid = 0
		p := l.open[what.ID]
		late := false
		switch {
		case p == nil:
		case what.Begun:
			late = p.late
			close(p.begun)
		default:
			delete(l.open, what.ID)
		}
		l.mu.Unlock()
		switch {
		case late:
			p.kill()
		case p == nil || what.Begun:
		case what.Error != "":
			p.fault = errors.New(what.Error)
			close(p.begun)
			close(p.ended)
		default:
			p.exit = exitOf(what.Code, what.Signal)
			close(p.ended)
		}
	}
	l.cmd.Process.Kill()
	l.cmd.Wait()
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.open {
		select {
		case <-p.begun:
			p.exit = errLauncher
		default:
			p.fault = errLauncher
			close(p.begun)
		}
		close(p.ended)
	}
	l.open = nil
}

// exitOf is how a process ended; nil: well.
func exitOf(code int, signal syscall.Signal) error {
	switch {
	case signal != 0:
		return &Exit{Code: -1, Killed: signal.String()}
	case code != 0:
		return &Exit{Code: code}
	}
	return nil
}

// start has a stub started with these descriptors. What goes wrong with it is its own: others of every label run by the same launcher, which ends where the
// way to it is broken, or it says nothing to several starts in a row, alone.
func (l *launcher) start(files []*os.File) (*launched, error) {
	var fds []int
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, err
		}
	}
	p := &launched{l: l, begun: make(chan struct{}), ended: make(chan struct{})}
	l.mu.Lock()
	if l.open == nil {
		l.mu.Unlock()
		return nil, errLauncher
	}
	l.next++
	p.id = l.next
	l.open[p.id] = p
	l.mu.Unlock()
	if err := l.send(order{ID: p.id}, unix.UnixRights(fds...)); err != nil {
		if broken(err) {
			l.end()
			return nil, errors.Join(errLauncher, err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, p.id)
		return nil, err
	}
	select {
	case <-p.begun:
		return p, p.fault
	case <-time.After(l.patience):
	}
	l.mu.Lock()
	select {
	case <-p.begun:
		l.mu.Unlock()
		return p, p.fault
	default:
	}
	p.late = true
	l.unsaid++
	hangs := l.unsaid >= hung
	l.mu.Unlock()
	if hangs {
		l.end()
	}
	return nil, fmt.Errorf("%w: %v", errLate, l.patience)
}

// broken reports whether the other side of a socket has gone.
func broken(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, net.ErrClosed)
}

// end ends it, and what it has started.
func (l *launcher) end() {
	l.conn.SetReadDeadline(time.Unix(1, 0))
	<-l.gone
}

func (l *launcher) send(o order, rights []byte) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, _, err = l.conn.WriteMsgUnix(b, rights, nil)
	return err
}

func (p *launched) kill() { _ = p.l.send(order{ID: p.id, Kill: true}, nil) } // where it does not hear that it has ended

func (p *launched) wait() error {
	<-p.ended
	return p.exit
}

// closeInherited closes what came with the execution beside launcherFD: the node, or who started that, had it open for others. What the runtime has opened
// here goes with no execution, and by that is told from it.
func closeInherited() error {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range all {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= launcherFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// launch is a launcher, until nobody speaks with it any more. What it has started ends with it.
func launch(args []string) error {
	if err := closeInherited(); err != nil {
		return err
	}
	if len(args) > 0 {
		nice, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		if err := giveWayWhole(way{Nice: nice}); err != nil {
			return err
		}
	}
	f := os.NewFile(launcherFD, "launcher")
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	f.Close()
	conn := c.(*net.UnixConn)
	var mu sync.Mutex
	open := map[uint64]*os.Process{}
	tell := func(n notice) {
		b, err := json.Marshal(n)
		if err == nil {
			_, err = conn.Write(b)
		}
		if err != nil {
			os.Exit(1)
		}
	}
	buf, rights := make([]byte, maxNotice), make([]byte, unix.CmsgSpace(4*(stubFiles+1)))
	for {
		n, m, _, _, err := conn.ReadMsgUnix(buf, rights)
		if err != nil || n == 0 {
			return nil
		}
		var o order
		files, bad := filesOf(rights[:m])
		if err := json.Unmarshal(buf[:n], &o); err != nil || o.Kill {
			bad = err
			closeAll(files)
			files = nil
		}
		if bad == nil && o.Kill {
			mu.Lock()
			if p := open[o.ID]; p != nil {
				p.Kill()
			}
			mu.Unlock()
			continue
		}
		go func() {
			var cmd *exec.Cmd
			err := bad
			if err == nil {
				cmd = stubCommand("/proc/self/exe", files)
				err = cmd.Start()
				closeAll(files)
			}
			if err != nil {
				tell(notice{ID: o.ID, Error: fmt.Sprintf("%.1000s", err.Error())})
				return
			}
			mu.Lock()
			open[o.ID] = cmd.Process
			mu.Unlock()
			tell(notice{ID: o.ID, Begun: true})
			code, signal := ended(cmd.Wait())
			mu.Lock()
			delete(open, o.ID)
			mu.Unlock()
			tell(notice{ID: o.ID, Code: code, Signal: signal})
		}()
	}
}

// filesOf are the descriptors that came with an order. What came beside those of a stub, or in their place, is closed.
func filesOf(rights []byte) (files []*os.File, err error) {
	all, err := unix.ParseSocketControlMessage(rights)
	for _, m := range all {
		fds, err2 := unix.ParseUnixRights(&m)
		err = errors.Join(err, err2)
		for _, fd := range fds {
			err = errors.Join(err, unix.SetNonblock(fd, false)) // the other side of a pipe has its own mode
			files = append(files, os.NewFile(uintptr(fd), "handed"))
		}
	}
	if err == nil && len(files) != stubFiles && len(files) != stubFiles+1 {
		err = errors.New("not the descriptors of a stub came")
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// stubCommand starts a stub.
func stubCommand(path string, files []*os.File) *exec.Cmd {
	return &exec.Cmd{Path: path, Args: []string{stubName}, Env: stubEnv(), Dir: "/", Stdin: files[0], Stdout: files[1], Stderr: files[2], ExtraFiles: files[3:], SysProcAttr: walls(os.Geteuid() == 0)}
}

// ended is how a process ended, by what Wait said of it.
func ended(err error) (code int, signal syscall.Signal) {
	if err == nil {
		return 0, 0
	}
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return -1, 0
	}
	if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return -1, ws.Signal()
	}
	return e.ExitCode(), 0
}

// own is a process that we have started ourselves.
type own struct{ cmd *exec.Cmd }

func (p own) kill()       { p.cmd.Process.Kill() }
func (p own) wait() error { return exitOf(ended(p.cmd.Wait())) }

// startStub starts a stub with these descriptors: of our own binary, or by the launcher of another.
func startStub(b *Binary, w way, files []*os.File) (started, error) {
	if b == nil {
		cmd := stubCommand(b.path(), files)
		return own{cmd}, cmd.Start()
	}
	l, err := b.launcher(w)
	if err != nil {
		return nil, err
	}
	return l.start(files)
}

// launcher is the one that runs for what has the processor in this way, or another where that has ended.
func (b *Binary) launcher(w way) (*launcher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errLauncher
	}
	if l := b.starts[w]; l != nil {
		select {
		case <-l.gone:
			delete(b.starts, w)
		default:
			return l, nil
		}
	}
	l, err := startLauncher(b, w)
	if err != nil {
		return nil, err
	}
	b.starts[w] = l
	return l, nil
}

// Close ends what was started of it, and lets go of it.
func (b *Binary) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, l := range b.starts {
		l.end()
	}
	return b.file.Close()
}
