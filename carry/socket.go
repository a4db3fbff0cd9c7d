package carry

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// socket is a net.PacketConn of UDP addresses as values.
type socket struct {
	conn net.PacketConn
	udp  *net.UDPConn // conn, if it is one: no allocation a datagram
}

// Kernel buffers, asked for and given as far as the machine allows.
const socketBuffer = 4 << 20

func newSocket(c net.PacketConn) socket {
	udp, _ := c.(*net.UDPConn)
	if udp != nil {
		udp.SetReadBuffer(socketBuffer) // a smaller one is worse, not wrong
		udp.SetWriteBuffer(socketBuffer)
		forbidFragments(udp)
		hearRefusals(udp)
	}
	return socket{c, udp}
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
			s.udp.SetReadDeadline(time.Unix(1, 0)) // who reads is to look at what it was
			_, err = s.udp.WriteToUDPAddrPort(b, to)
		}
		return err
	}
	_, err := s.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}

// refused gives, after an error of readFrom, the datagrams that the system says nobody was there for, as far as it repeats them.
func (s socket) refused(err error) (quotes [][]byte) {
	if s.udp != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.udp.SetReadDeadline(time.Time{})
		}
		return refusals(s.udp)
	}
	if r := (interface{ Refused() []byte })(nil); errors.As(err, &r) { // of a net.PacketConn that is no socket of the system's
		return [][]byte{r.Refused()}
	}
	return nil
}

func (s socket) close() error { return s.conn.Close() }

// plainAddress gives each address one form, whichever socket it came by.
func plainAddress(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func isTooLarge(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }
