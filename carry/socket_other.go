//go:build !linux

package carry

import "net"

// forbidFragments is for Linux only: elsewhere large datagrams may travel in fragments.
func forbidFragments(*net.UDPConn) {}

// limitUnsent is for Linux only: elsewhere more waits in the kernel.
func limitUnsent(net.Conn) {}
