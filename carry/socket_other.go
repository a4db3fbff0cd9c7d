//go:build !linux

package carry

import "net"

// forbidFragments is for Linux only: elsewhere large datagrams may travel in fragments.
func forbidFragments(*net.UDPConn) {}
