package diode

import (
	"net"
	"unsafe"

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

// widen has the kernel queue bytes that come while this process does not run: more than it lets everybody, where we may.
func widen(c *net.UDPConn, bytes int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) // takes CAP_NET_ADMIN; without it what was asked for before stays
	})
}

// granted is how much of what was asked for the kernel gives: half of what it says, for it counts what it takes itself too (socket(7)).
func granted(c *net.UDPConn) (bytes int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
			bytes = n / 2
		}
	})
	return bytes
}

// backlog is how much the kernel holds that was not read yet, and how much it would, both in bytes as it counts them (sock_diag(7), SK_MEMINFO).
func backlog(c *net.UDPConn) (waits, room int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0
	}
	var info [9]uint32 // SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_RCVBUF, and others
	size := uint32(unsafe.Sizeof(info))
	_ = raw.Control(func(fd uintptr) {
		if _, _, no := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); no != 0 {
			clear(info[:])
		}
	})
	return int(info[0]), int(info[1])
}
