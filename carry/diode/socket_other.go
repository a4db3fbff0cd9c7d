//go:build !linux

package diode

import "net"

func deafen(c *net.UDPConn) { c.SetReadBuffer(1) }

func widen(*net.UDPConn, int) {}

func granted(*net.UDPConn) int { return 0 }

func backlog(*net.UDPConn) (waits, room int) { return 0, 0 }
