//go:build linux || darwin || freebsd || netbsd || openbsd

package diode

import (
	"errors"
	"os"
	"syscall"

	"redoubt"
)

// lockFile takes an exclusive lock that goes with the process, so that a crash leaves none.
func lockFile(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &redoubt.Error{Op: "diode.lock", Object: path, Err: err}
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &redoubt.Error{Op: "diode.lock", Object: path, Kind: redoubt.Unavailable, Err: errors.New("another process receives into this folder"),
			Hint: "end that one, or name another folder"}
	}
	return func() { f.Close() }, nil
}
