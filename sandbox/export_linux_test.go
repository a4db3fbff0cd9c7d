package sandbox

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Dynamic reports whether the tests were built with cgo.
var Dynamic = dynamic

// FD is where it lies.
func (b *Binary) FD() int { return int(b.file.Fd()) }

// LauncherPID is the process that starts its workers.
func (b *Binary) LauncherPID() int { return b.starts[way{}].cmd.Process.Pid }

// LauncherOf is the one that starts those that give way by so much.
func (b *Binary) LauncherOf(nice int) int {
	w, _ := wayOf(nice, false)
	return b.starts[w].cmd.Process.Pid
}

// EndLauncher kills what starts its workers.
func (b *Binary) EndLauncher() {
	b.starts[way{}].cmd.Process.Kill()
	<-b.starts[way{}].gone
}

// ConfuseLauncher sends it what is no order, and what cannot be sent.
func (b *Binary) ConfuseLauncher() (faults []error) {
	_, err := b.starts[way{}].conn.Write([]byte("no order"))
	faults = append(faults, err, b.starts[way{}].send(order{ID: 1 << 40}, nil)) // without descriptors
	faults = append(faults, b.starts[way{}].send(order{ID: 1 << 41}, unix.UnixRights(0, 1)))
	_, err = b.starts[way{}].start([]*os.File{os.NewFile(1<<20, "none")})
	if err == nil {
		faults = append(faults, errors.New("what cannot be sent was"))
	}
	return faults
}

// StartLate has it start what it does not answer for in time, with these descriptors, and gives how that ended.
func (b *Binary) StartLate(files []*os.File) (start, ended error) {
	l := b.starts[way{}]
	_ = l.cmd.Process.Signal(unix.SIGSTOP)
	was := l.patience
	l.patience = time.Millisecond
	_, start = l.start(files)
	l.patience = was
	l.mu.Lock()
	p := l.open[l.next]
	l.mu.Unlock()
	_ = l.cmd.Process.Signal(unix.SIGCONT)
	return start, p.wait()
}

// HangLauncher has it say nothing more, and gives what starts by it come to.
func (b *Binary) HangLauncher(files []*os.File) (starts []error) {
	l := b.starts[way{}]
	_ = l.cmd.Process.Signal(unix.SIGSTOP)
	l.patience = time.Millisecond
	for range hung {
		_, err := l.start(files)
		starts = append(starts, err)
	}
	return starts
}

// PID is the process of a program of our own binary.
func (r *Process) PID() int { return r.stub.(own).cmd.Process.Pid }
