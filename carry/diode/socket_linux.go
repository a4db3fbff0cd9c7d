package diode

import (
	"net"

	"golang.org/x/sys/unix"
)

// deafen has the kernel drop whatever comes to a socket, by a filter that takes nothing.
func deafen(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	raw.Control(func(fd uintptr) {
		// Where it fails, what comes is queued up to the least that a socket has, and still read by nobody.
		unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	})
}
