package diode

import (
	"net"

	"golang.org/x/net/ipv4"

	"redoubt"
)

// Socket is a way out to one address. It has no way in: nothing that comes to its port is ever read, and where the system can do it
// (Linux) nothing is even queued.
type Socket struct {
	c  *net.UDPConn
	to net.Addr
}

// Dial opens a way out, from an address of this machine ("": the one that its routes say). The socket is not connected, so that refusals that come
// back by ICMP are not told to it either.
func Dial(address, source string) (*Socket, error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, &redoubt.Error{Op: "diode.Dial", Object: address, Kind: redoubt.Invalid, Err: err, Hint: "want HOST:PORT"}
	}
	network := "udp6"
	if to.IP.To4() != nil {
		network = "udp4"
	}
	var from *net.UDPAddr // of every address, but where it leads to this machine alone
	if to.IP.IsLoopback() {
		from = &net.UDPAddr{IP: to.IP}
	}
	if source != "" {
		ip := net.ParseIP(source)
		if ip == nil {
			return nil, &redoubt.Error{Op: "diode.Dial", Object: source, Kind: redoubt.Invalid, Hint: "want an address of this machine"}
		}
		from = &net.UDPAddr{IP: ip}
	}
	c, err := net.ListenUDP(network, from)
	if err != nil {
		return nil, &redoubt.Error{Op: "diode.Dial", Object: address, Kind: redoubt.Unavailable, Err: err}
	}
	deafen(c)
	return &Socket{c: c, to: to}, nil
}

// Write sends one datagram.
func (s *Socket) Write(p []byte) (int, error) { return s.c.WriteTo(p, s.to) }

// Close closes the socket.
func (s *Socket) Close() error { return s.c.Close() }

// receiveBuffer is asked of the kernel, which gives as much as it allows: it is what may come while this process does not run.
const receiveBuffer = 64 << 20

// ReceiveBuffer is how many bytes the kernel queues for a way in that this process opens; 0: nobody says.
func ReceiveBuffer() int {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0
	}
	defer c.Close()
	_ = c.SetReadBuffer(receiveBuffer)
	widen(c, receiveBuffer)
	return granted(c)
}

// Listen opens a way in.
func Listen(address string) (Source, net.Addr, error) {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, nil, &redoubt.Error{Op: "diode.Listen", Object: address, Kind: redoubt.Unavailable, Err: err, Hint: "want HOST:PORT of this machine, which nothing else listens at"}
	}
	_ = c.(*net.UDPConn).SetReadBuffer(receiveBuffer) // less is less
	widen(c.(*net.UDPConn), receiveBuffer)
	return &udpSource{c, c.(*net.UDPConn), ipv4.NewPacketConn(c)}, c.LocalAddr(), nil
}

// udpSource gives several datagrams a call, of either protocol.
type udpSource struct {
	net.PacketConn
	c       *net.UDPConn
	batches *ipv4.PacketConn
}
