//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package keys

import (
	"errors"
	"os"

	"redoubt"
)

// lock refuses: without a lock two processes would undo each other's rotations.
func lock(path string) (*os.File, error) {
	return nil, &redoubt.Error{Op: "keys.lock", Object: path, Kind: redoubt.NotImplemented,
		Err: errors.New("a keyring needs flock, which this system lacks")}
}
