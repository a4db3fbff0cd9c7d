//go:build linux || darwin || freebsd || netbsd || openbsd

package node

import (
	"errors"
	"os"
	"syscall"
	"time"

	"redoubt"
)

// lockFile takes an exclusive lock that goes with the process, so that a crash leaves none.
func lockFile(path, why, hint string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &redoubt.Error{Op: "node.lock", Object: path, Err: errors.Unwrap(err)}
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for try := 0; err != nil && try < 20; try++ { // held takes it, too, for a moment
		time.Sleep(5 * time.Millisecond)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		f.Close()
		return nil, &redoubt.Error{Op: "node.lock", Object: path, Kind: redoubt.Unavailable, Err: errors.New(why), Hint: hint}
	}
	return func() { f.Close() }, nil
}

// runs reports whether a process is there.
func runs(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) != syscall.ESRCH }

// held reports whether a process holds the lock at path.
func held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}
