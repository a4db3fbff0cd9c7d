//go:build linux || darwin || freebsd || netbsd || openbsd

package keys

import (
	"errors"
	"os"
	"syscall"

	"redoubt"
)

// lock takes the keyring for this process alone: two writers would undo each other's
// rotations. The lock goes with the file descriptor, so a crash leaves none.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.lock", Object: path, Err: pathless(err)}
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &redoubt.Error{Op: "keys.lock", Object: path, Kind: redoubt.Unavailable,
			Err: errors.New("another process has the keyring open"), Hint: "stop the other process: redoubt status"}
	}
	return f, nil
}
