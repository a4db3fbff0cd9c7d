//go:build !linux

package carry

import "net"

// forbidFragments is for Linux only: elsewhere large datagrams may travel in fragments.
func forbidFragments(*net.UDPConn) {}

// hearRefusals is for Linux only: elsewhere who is gone is found by silence.
func hearRefusals(*net.UDPConn) {}

func refusals(*net.UDPConn) (quotes [][]byte, any bool) { return nil, false }

// limitUnsent is for Linux only: elsewhere more waits in the kernel.
func limitUnsent(net.Conn) {}
