//go:build !linux

package main

import (
	"errors"

	"redoubt"
)

func filesystem(string) (free, size int64, kind string, err error) {
	return 0, 0, "", errors.New("known on Linux only")
}

func clockSynced() (synced, known bool) { return false, false }

func sockets(int) (listens, dials []string, err error) {
	return nil, nil, &redoubt.Error{Kind: redoubt.NotImplemented, Err: errors.New("a process's sockets are listed on Linux only")}
}

func leaveBeginning() {}
