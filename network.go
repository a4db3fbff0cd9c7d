package redoubt

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits of what jobs reach over a network.
const (
	MaxDestinations       = 256     // of one node
	MaxJobDestinations    = 64      // of one job
	MaxJobConnections     = 64      // of one attempt at once
	MaxJobDials           = 10_000  // of one attempt in all: each is on record
	DefaultDestinationCap = 1 << 30 // bytes that an attempt sends to a destination and takes from it, together
)

// Destination is what jobs may connect to. It has one label: it may be told what that label dominates, and whatever it answers counts as of that
// label, since it may have been told as much before. The zero Destination is nobody's.
type Destination struct {
	Name     string        `json:"name"`            // HOST:PORT, as programs call it
	Address  string        `json:"address"`         // IP:PORT that the node dials
	Label    string        `json:"label"`           // banner
	Subjects []SubjectName `json:"subjects"`        // whose jobs may; "*" is everyone
	Bytes    int64         `json:"bytes,omitempty"` // that one attempt sends to it and takes from it, together; DefaultDestinationCap
}

// ValidDestination says whether a name is HOST:PORT with a host that programs can look up: lower-case letters, digits, "-" and ".". Addresses are none,
// nor is what a sandbox calls itself.
func ValidDestination(name string) bool {
	host, port, err := net.SplitHostPort(name)
	if err != nil || len(host) > 253 || host == "localhost" || strings.HasSuffix(host, ".localhost") || host == SandboxHost {
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	for part := range strings.SplitSeq(host, ".") {
		odd := func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' }
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' || strings.ContainsFunc(part, odd) {
			return false
		}
	}
	last := host[strings.LastIndexByte(host, '.')+1:] // one of digits alone is taken for a part of an address
	return strings.ContainsFunc(last, func(c rune) bool { return c < '0' || c > '9' })
}

// DriverRunc is the driver that has the machine's own kernel for a wall. A job asks for it by name, and the estate file says whose may.
const DriverRunc = "runc"

// SandboxHost is the host name of a sandbox.
const SandboxHost = "redoubt"

// Granted says whether a subject is among those that something was granted to.
func Granted(to []SubjectName, s SubjectName) bool {
	return slices.Contains(to, s) || slices.Contains(to, "*")
}

// JobConn is a connection of a job's to a destination.
type JobConn interface {
	io.ReadWriteCloser
	CloseWrite() error // nothing more is sent; the other side reads to the end
}
