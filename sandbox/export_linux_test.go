package sandbox

// Dynamic reports whether the tests were built with cgo.
var Dynamic = dynamic

// FD is where it lies.
func (b *Binary) FD() int { return int(b.file.Fd()) }

// LauncherPID is the process that starts its workers.
func (b *Binary) LauncherPID() int { return b.starts.cmd.Process.Pid }

// EndLauncher kills what starts its workers.
func (b *Binary) EndLauncher() {
	b.starts.cmd.Process.Kill()
	<-b.starts.gone
}

// ConfuseLauncher sends it what is no order.
func (b *Binary) ConfuseLauncher() {
	_ = b.starts.send(order{ID: 7}, nil) // without descriptors
	<-b.starts.gone
}

// PID is the process of a program of our own binary.
func (r *Process) PID() int { return r.stub.(own).cmd.Process.Pid }
