//go:build !linux

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"redoubt/carry/carrytest"
)

const tcpCongestion = ""

var errLinux = errors.New("an emulated link needs Linux: namespaces and TUN devices")

// emulator is for Linux only.
type emulator struct {
	namespaceA, namespaceB string
	addressA, addressB     netip.Addr
}

func startEmulator(string, carrytest.Road, uint64) (*emulator, error) { return nil, errLinux }
func (e *emulator) age() time.Duration                                { return 0 }
func (e *emulator) become(carrytest.Road, uint64)                     {}
func (e *emulator) sent() [2]int64                                    { return [2]int64{} }
func (e *emulator) arrived(byte) int64                                { return 0 }
func (e *emulator) close() error                                      { return nil }
func ip(...string) error                                              { return errLinux }
func within(string, func() error) error                               { return errLinux }
func dialWith(context.Context, string, string) (net.Conn, error)      { return nil, errLinux }
