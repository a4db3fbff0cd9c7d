package oci

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
	"gvisor.dev/gvisor/runsc/boot"

	"redoubt"
)

// A sandbox whose job was granted destinations, or that serves, has one link more than its loopback, and the link's other end is the keeper: a pair of
// packet sockets, no interface of the machine. The keeper has a TCP stack in its own memory. For a job that bears one address for each host of its
// destinations, and takes a connection to one of them when the node, which it asks, has connected to the destination; for a service it connects to the
// program when the node has a request. Then it passes bytes on. Nothing else is behind the link, and there is no route to any other address. The
// program's names are in its /etc/hosts; there is no DNS.

const (
	linkMTU     = 32 << 10
	linkWindow  = 192 << 10 // what one connection has under way on the link in either direction: less than its sockets hold, so that nothing is dropped
	pendingMost = 64        // connections that are asked for at once
	copyBytes   = 64 << 10
)

// linkAddress is the sandbox's own; those of hosts follow. They are of 198.18.0.0/15, which no network uses (RFC 2544).
var linkAddress = netip.MustParseAddr("198.18.0.1")

// callerAddress is whom a service sees its requests come from.
var callerAddress = linkAddress.Next()

// named are a job's destinations as its sandbox has them.
type named struct {
	hosts []byte // its /etc/hosts
	all   []netip.Addr
	at    map[netip.AddrPort]string // the name of a destination
}

// callers is what a service has: nothing that it may connect to, and an address that it is called from.
func callers() named { return named{hosts: []byte(localHosts), all: []netip.Addr{callerAddress}} }

const localHosts = "127.0.0.1 localhost " + hostname + "\n"

func newNamed(destinations []string) (n named, err error) {
	n = named{hosts: []byte(localHosts), at: map[netip.AddrPort]string{}}
	hosts := map[string]netip.Addr{}
	next := linkAddress
	for _, name := range destinations {
		host, port, err := net.SplitHostPort(name)
		if err != nil || !redoubt.ValidDestination(name) {
			return n, errors.Join(fmt.Errorf("a destination %.300q", name), err)
		}
		a, ok := hosts[host]
		if !ok {
			next = next.Next()
			a, hosts[host] = next, next
			n.all = append(n.all, a)
			n.hosts = fmt.Appendf(n.hosts, "%s %s\n", a, host)
		}
		to, err := netip.ParseAddrPort(net.JoinHostPort(a.String(), port))
		if err != nil {
			return n, err
		}
		n.at[to] = name
	}
	return n, nil
}

// network is the keeper's end.
type network struct {
	named
	ask   func(name string) (number uint64, end *os.File, errno unix.Errno) // the node, to connect
	stack *stack.Stack

	mu    sync.Mutex // guards lines and what they hold
	lines map[uint64]*line
}

// line is a connection that the node has made.
type line struct {
	ep  tcpip.Endpoint // nil: the program's end is not there yet
	cut bool
}

// newNetwork makes the link and the keeper's stack. theirs is the sandbox's end.
func newNetwork(of named, ask func(string) (uint64, *os.File, unix.Errno)) (n *network, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "link")
	for _, fd := range fds { // as much as the machine lets it
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20); err != nil {
			return nil, nil, errors.Join(err, theirs.Close())
		}
	}
	link, err := fdbased.New(&fdbased.Options{FDs: fds[:1], MTU: linkMTU, PacketDispatchMode: fdbased.RecvMMsg, RXChecksumOffload: true, TXChecksumOffload: true})
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	n = &network{named: of, ask: ask, lines: map[uint64]*line{}}
	n.stack = stack.New(stack.Options{NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol}, TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol}})
	window := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: linkWindow, Max: linkWindow}
	sends := tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: linkWindow, Max: linkWindow}
	fixed, forgotten := tcpip.TCPModerateReceiveBufferOption(false), tcpip.TCPTimeWaitTimeoutOption(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{&window, &sends, &fixed, &forgotten} {
		if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return nil, nil, errors.Join(errors.New(err.String()), theirs.Close())
		}
	}
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(n.stack, linkWindow, pendingMost, n.accept).HandlePacket)
	const nic = 1
	if err := n.stack.CreateNIC(nic, link); err != nil {
		return nil, nil, errors.Join(errors.New(err.String()), theirs.Close())
	}
	for _, a := range of.all {
		if err := n.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFrom4(a.As4()).WithPrefix()}, stack.AddressProperties{}); err != nil {
			return nil, nil, errors.Join(errors.New(err.String()), theirs.Close())
		}
	}
	only, err := tcpip.NewSubnet(tcpip.AddrFrom4(linkAddress.As4()), tcpip.MaskFromBytes([]byte{255, 255, 255, 255}))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	n.stack.SetRouteTable([]tcpip.Route{{Destination: only, NIC: nic}})
	return n, theirs, nil
}

// links is what gVisor is told of the sandbox's end: routes to the hosts, one by one, and to nothing else.
func (n named) links(theirs *os.File) *boot.CreateLinksAndRoutesArgs {
	one := net.CIDRMask(32, 32)
	link := boot.FDBasedLink{Name: "eth0", MTU: linkMTU, NumChannels: 1, RXChecksumOffload: true, TXChecksumOffload: true, Addresses: []boot.IPWithPrefix{{Address: linkAddress.AsSlice(), PrefixLen: 32}}}
	for _, a := range n.all {
		link.Routes = append(link.Routes, boot.Route{Destination: net.IPNet{IP: a.AsSlice(), Mask: one}})
	}
	args := &boot.CreateLinksAndRoutesArgs{LoopbackLinks: []boot.LoopbackLink{boot.DefaultLoopbackLink}, FDBasedLinks: []boot.FDBasedLink{link}}
	args.FilePayload.Files = []*os.File{theirs}
	return args
}

// dial connects to a port of the program.
func (n *network) dial(ctx context.Context, port uint16) (*gonet.TCPConn, error) {
	return gonet.DialContextTCP(ctx, n.stack, tcpip.FullAddress{Addr: tcpip.AddrFrom4(linkAddress.As4()), Port: port}, ipv4.ProtocolNumber)
}

// accept takes a connection of the program's, once the node has made the one that it stands for.
func (n *network) accept(r *tcp.ForwarderRequest) {
	id := r.ID()
	name, ok := n.at[netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort)]
	if !ok {
		r.Complete(true)
		return
	}
	number, end, errno := n.ask(name)
	if errno != 0 {
		r.Complete(true)
		return
	}
	defer func() {
		n.mu.Lock()
		delete(n.lines, number)
		n.mu.Unlock()
	}()
	node, err := net.FileConn(end)
	end.Close()
	if err != nil {
		r.Complete(true)
		return
	}
	defer node.Close()
	var queue waiter.Queue
	ep, failed := r.CreateEndpoint(&queue)
	r.Complete(failed != nil)
	if failed != nil {
		return
	}
	c := gonet.NewTCPConn(&queue, ep)
	defer c.Close()
	if n.stands(number, ep) {
		splice(c, node.(*net.UnixConn), func() {
			ep.Abort()
			node.Close()
		})
	}
}

// connected notes that the node has made a connection: from now on it may be cut.
func (n *network) connected(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines[number] = new(line)
}

// stands notes the program's end of a connection, unless that was cut off already.
func (n *network) stands(number uint64, ep tcpip.Endpoint) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.lines[number]
	if l == nil || l.cut {
		ep.Abort()
		return false
	}
	l.ep = ep
	return true
}

// cut has the program see that a connection was cut off, which is not as one that has ended.
func (n *network) cut(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.lines[number]; l != nil {
		if l.cut = true; l.ep != nil {
			l.ep.Abort()
		}
	}
}

// duplex is either end of what is spliced.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
}

// splice passes bytes on both ways until both have ended, each where it ended in order with the end of what is sent that way. fail is called where one did
// not end in order; it must end the other.
func splice(a, b duplex, fail func()) {
	relay(a, b, func(to io.Writer, err error) {
		if err == nil {
			err = to.(duplex).CloseWrite()
		}
		if err != nil {
			fail()
		}
	})
}

// relay passes bytes on both ways until both have ended. ended is called as one of them has, which was written to what it is given.
func relay(a, b io.ReadWriter, ended func(to io.Writer, err error)) {
	var both sync.WaitGroup
	pass := func(to io.Writer, from io.Reader) {
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, copyBytes))
		ended(to, err)
	}
	both.Go(func() { pass(a, b) })
	both.Go(func() { pass(b, a) })
	both.Wait()
}

// hostsFS serves a file that is always the same.
func hostsFS(content []byte) *inFS {
	ask := func(kind byte, q []byte) ([]byte, unix.Errno) {
		switch {
		case kind == askOpen:
			return mustJSON(openReply{Handle: 1, File: fileInfo{Bytes: int64(len(content))}}), 0
		case kind == askRead && len(q) == 32:
			off, n := binary.BigEndian.Uint64(q[8:]), binary.BigEndian.Uint64(q[16:])
			off = min(off, uint64(len(content)))
			return slices.Clone(content[off : off+min(n, uint64(len(content))-off)]), 0
		}
		return nil, unix.EINVAL
	}
	return &inFS{root: fileInfo{Bytes: int64(len(content))}, ask: ask, tell: func(byte, []byte) {}, seed: maphash.MakeSeed()}
}

// connect asks the node for a connection to a destination.
func (k *keeper) connect(name string) (number uint64, end *os.File, errno unix.Errno) {
	f, number, err := k.question(askDial, []byte(name))
	if err != nil || f.kind != doConnect {
		return 0, nil, unix.ECONNREFUSED
	}
	return number, f.end, 0
}

// dial connects to a destination for the program, passes bytes on, and returns when that has ended.
func (r *run) dial(ctx context.Context, f frame) {
	refuse := func() { r.b.wire.send(answer, f.number, binary.BigEndian.AppendUint32(nil, uint32(unix.ECONNREFUSED))) }
	name := string(f.payload)
	c, err := r.t.Dial(ctx, name)
	if err != nil {
		var e *redoubt.Error
		why := "it cannot be reached"
		if errors.As(err, &e) && e.Kind != redoubt.Unavailable && e.Hint != "" {
			why = e.Hint
		}
		if ctx.Err() == nil {
			r.t.Log(2, fmt.Appendf(nil, "redoubt: no connection to %s: %s\n", shown(name), why))
		}
		refuse()
		return
	}
	defer c.Close()
	theirs, ours, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		refuse()
		return
	}
	defer ours.Close()
	err = r.b.give(theirs, func() error { return r.b.wire.send(doConnect, f.number, nil) })
	theirs.Close()
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() {
		c.Close()
		ours.Close()
	})()
	splice(c, ours.(*net.UnixConn), sync.OnceFunc(func() {
		c.Close()
		r.b.wire.send(doCut, f.number, nil) // the keeper closes its end, which ends the other way
	}))
}
