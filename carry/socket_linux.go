package carry

import (
	"bytes"
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// forbidFragments has the kernel send each datagram whole or not at all, and not guess at the path's
// size itself (RFC 8899 needs both).
func forbidFragments(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		// One of the two fails where the socket speaks only the other protocol.
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	})
}

// hearRefusals has the kernel keep what ICMP says of datagrams that nobody was there for. It is not authenticated, but it repeats
// how the datagram began.
func hearRefusals(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	})
}

// refusals gives how the datagrams began that a port was not open for, and whether the kernel had anything to say, of these or others. What it
// has is taken out of what there is for datagrams, so all of it is read.
func refusals(c *net.UDPConn) (quotes [][]byte, any bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, false
	}
	raw.Control(func(fd uintptr) {
		quote, control := make([]byte, unknownSize-1), make([]byte, 512)
		for range mostRefusals {
			n, oob, _, _, err := unix.Recvmsg(int(fd), quote, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			any = true
			if portClosed(control[:oob]) {
				quotes = append(quotes, bytes.Clone(quote[:n]))
			}
		}
	})
	return quotes, any
}

// portClosed reads an entry of a socket's error queue (ip(7), IP_RECVERR).
func portClosed(control []byte) bool {
	all, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false
	}
	for _, m := range all {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(m.Data) >= 16 {
			origin := m.Data[4]
			return binary.NativeEndian.Uint32(m.Data) == uint32(unix.ECONNREFUSED) && (origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6)
		}
	}
	return false
}

// limitUnsent keeps what waits in the kernel short: what is decided late goes early.
func limitUnsent(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, tcpUnsent)
		})
	}
}
