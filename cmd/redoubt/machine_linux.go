package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// filesystem tells the free bytes, the size and the kind of the file system that holds path.
func filesystem(path string) (free, size int64, kind string, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, "", err
	}
	kinds := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.MSDOS_SUPER_MAGIC: "vfat", unix.FUSE_SUPER_MAGIC: "fuse", 0xff534d42: "cifs", 0x2fc12fc1: "zfs"}
	kind = kinds[int64(s.Type)]
	if kind == "" {
		kind = fmt.Sprintf("a file system of type %#x", s.Type)
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, kind, nil
}

// clockSynced asks the kernel whether a time service keeps its clock.
func clockSynced() (synced, known bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR, err == nil
}

// sockets lists the addresses that a process listens on, and the remote ends of the connections that it opened itself:
// those whose local port it does not listen on.
func sockets(pid int) (listens, dials []string, err error) {
	own := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, nil, err
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:[") {
			own[strings.Trim(target, "socket:[]")] = true
		}
	}
	ports := map[uint16]bool{}
	var remote [][2]netip.AddrPort
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // no IPv6, or the process has gone
		}
		in := bufio.NewScanner(f)
		in.Scan() // the heads
		for in.Scan() {
			c := strings.Fields(in.Text())
			if len(c) < 10 || !own[c[9]] {
				continue
			}
			local, ok := procAddress(c[1])
			far, ok2 := procAddress(c[2])
			switch {
			case !ok || !ok2:
			case c[3] == "0A" || strings.HasPrefix(table, "udp") && far.Port() == 0: // LISTEN; a UDP socket without a peer
				listens = append(listens, local.String())
				ports[local.Port()] = true
			default:
				remote = append(remote, [2]netip.AddrPort{local, far})
			}
		}
		err = in.Err()
		f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	for _, r := range remote {
		if !ports[r[0].Port()] {
			dials = append(dials, r[1].String())
		}
	}
	slices.Sort(listens)
	return listens, dials, nil
}

// procAddress reads HEXADDRESS:HEXPORT of /proc/net: 32-bit words in the machine's order.
func procAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(host)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 { // little-endian on amd64 and arm64
		slices.Reverse(b[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), ok
}

// leaveBeginning has this process hold no more of its binary in memory than it goes on to use. As it begins it touches nearly all: libraries fill tables that most nodes
// never look at, and the kernel maps what lies around. Pages of code and constants are the file's, and come back as they are touched.
func leaveBeginning() {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		var may string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &may); err != nil || !strings.HasSuffix(strings.TrimSpace(line), " "+own) || strings.Contains(may, "w") {
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED) // it is a hint
	}
}
