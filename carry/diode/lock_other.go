//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package diode

import (
	"errors"

	"redoubt"
)

// lockFile refuses: without a lock two processes would write one folder.
func lockFile(path string) (func(), error) {
	return nil, &redoubt.Error{Op: "diode.lock", Object: path, Kind: redoubt.NotImplemented, Err: errors.New("receiving needs flock, which this system lacks")}
}
