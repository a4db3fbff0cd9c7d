package carry

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// socket is a net.PacketConn of UDP addresses as values.
type socket struct {
	conn   net.PacketConn
	udp    *net.UDPConn // conn, if it is one: no allocation a datagram
	quotes chan []byte  // how datagrams began that the system says nobody was there for; what finds no room is as good as not heard
}

// Kernel buffers, asked for and given as far as the machine allows.
const socketBuffer = 4 << 20

// mostRefusals are looked at together: what else waits is looked at with the next.
const mostRefusals = 64

func newSocket(c net.PacketConn) socket {
	udp, _ := c.(*net.UDPConn)
	if udp != nil {
		udp.SetReadBuffer(socketBuffer) // a smaller one is worse, not wrong
		udp.SetWriteBuffer(socketBuffer)
		forbidFragments(udp)
		hearRefusals(udp)
	}
	return socket{c, udp, make(chan []byte, mostRefusals)}
}

func (s socket) readFrom(b []byte) (int, netip.AddrPort, error) {
	if s.udp != nil {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		return n, plainAddress(from), err
	}
	n, from, err := s.conn.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	a, ok := from.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, nil
	}
	return n, plainAddress(a.AddrPort()), nil
}

func (s socket) writeTo(b []byte, to netip.AddrPort) error {
	if s.udp != nil {
		_, err := s.udp.WriteToUDPAddrPort(b, to)
		if err != nil { // it may be of an earlier datagram, perhaps to another peer; and this one was not sent
			s.hear() // who reads is not to be troubled: whoever can have a write fail would keep it from reading
			_, err = s.udp.WriteToUDPAddrPort(b, to)
		}
		return err
	}
	_, err := s.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}

// refused takes what the system says of datagrams that were sent, after an error of readFrom, and tells whether that was what the error was of.
func (s socket) refused(err error) (any bool) {
	if s.udp != nil {
		return s.hear()
	}
	r := (interface{ Refused() []byte })(nil)
	if any = errors.As(err, &r); any { // of a net.PacketConn that is no socket of the system's
		s.keep(r.Refused())
	}
	return any
}

// hear empties what the system has to say, as far as a moment allows, and tells whether there was anything.
func (s socket) hear() (any bool) {
	quotes, any := refusals(s.udp)
	for _, q := range quotes {
		s.keep(q)
	}
	return any
}

func (s socket) keep(quote []byte) {
	select {
	case s.quotes <- quote:
	default:
	}
}

func (s socket) close() error { return s.conn.Close() }

// plainAddress gives each address one form, whichever socket it came by.
func plainAddress(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func isTooLarge(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }

// answerable tells whether an address may be somebody's to whom an answer can go. The system delivers what claims to come from any other too.
func answerable(a netip.AddrPort) bool {
	ip := a.Addr()
	return a.Port() != 0 && !ip.IsUnspecified() && !ip.IsMulticast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
