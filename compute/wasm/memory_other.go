//go:build !linux

package wasm

import (
	"crypto/rand"

	"github.com/tetratelabs/wazero/experimental"
)

// limited is of Linux alone, where workers run.
type limited struct {
	most    uint64
	refused bool
}

func (l *limited) Allocate(_, _ uint64) experimental.LinearMemory { return nil }

func (l *limited) wipe() {}

func readRandom(p []byte) (int, error) { return rand.Read(p) }

func bound(int64) error { return nil }
