//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package node

import (
	"errors"

	"redoubt"
)

// lockFile refuses: without a lock two nodes would write one state.
func lockFile(path, why, hint string) (func(), error) {
	return nil, &redoubt.Error{Op: "node.lock", Object: path, Kind: redoubt.NotImplemented, Err: errors.New("a state needs flock, which this system lacks")}
}

func held(string) bool { return false }

func runs(int) bool { return false }
