package carry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestTheKernelSaysWhichDatagramNobodyWasThereFor sends to a port of this machine that is closed, and to one that is open.
func TestTheKernelSaysWhichDatagramNobodyWasThereFor(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		defer c.Close()
		s := newSocket(c)
		other, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		closed := netip.MustParseAddrPort(other.LocalAddr().String())
		other.Close()
		if other, err = net.ListenPacket("udp", address); err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		open := netip.MustParseAddrPort(other.LocalAddr().String())
		datagram := append([]byte{kindSealed}, bytes.Repeat([]byte("datagram"), 100)...)
		for range 3 { // the second is told of the first, and goes all the same; whoever reads later must hear of it still
			if err := s.writeTo(datagram, closed); err != nil {
				t.Errorf("%s: to a closed port: %v", address, err)
			}
			if err := s.writeTo([]byte("to who is there"), open); err != nil {
				t.Errorf("%s: to an open port: %v", address, err)
			}
		}
		go func() {
			b := make([]byte, 2000)
			for {
				_, _, err := s.readFrom(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					s.refused(err)
				}
			}
		}()
		select {
		case q := <-s.quotes:
			if !bytes.Equal(q, datagram[:unknownSize-1]) {
				t.Errorf("%s: got %x", address, q)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the kernel has not said that nobody is there", address)
		}
		b := make([]byte, 2000)
		for range 3 {
			other.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, _, err := other.ReadFrom(b); err != nil {
				t.Errorf("%s: what was for another port was lost: %v", address, err)
			}
		}
	}
}

// TestWhoHasWritesFailKeepsNobodyFromReading writes to where the system sends nothing, all the while that datagrams come.
func TestWhoHasWritesFailKeepsNobodyFromReading(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := newSocket(c)
	other, err := net.Dial("udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	b := make([]byte, 100)
	for i := range 500 {
		if err := s.writeTo([]byte("an answer"), netip.MustParseAddrPort("127.0.0.1:0")); err == nil {
			t.Fatal("the system takes datagrams to port 0")
		}
		if _, err := other.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if n, _, err := s.readFrom(b); err != nil || n != 1 || b[0] != byte(i) {
			t.Fatalf("after a write that failed, datagram %d is read as %x, %v", i, b[:n], err)
		}
	}
}

// TestAFloodOfUnreachableHostsKeepsNobodyFromReading has ICMP say of each datagram of a socket's that its host cannot be reached.
func TestAFloodOfUnreachableHostsKeepsNobodyFromReading(t *testing.T) {
	icmp, err := net.ListenPacket("ip4:icmp", "127.0.0.1")
	if err != nil {
		t.Skipf("no raw sockets here: %v", err)
	}
	defer icmp.Close()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	errs, slept := 0, 0
	s := newSocket(c)
	defer c.Close()
	other, err := net.Dial("udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	b := make([]byte, 100)
	for i := range 500 {
		if _, err := icmp.WriteTo(unreachable(c.LocalAddr().(*net.UDPAddr).Port), &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		for {
			n, _, err := s.readFrom(b)
			if err == nil {
				if n != 1 || b[0] != byte(i) {
					t.Fatalf("datagram %d is read as %x", i, b[:n])
				}
				break
			}
			errs++
			if !s.refused(err) {
				slept++
			}
		}
	}
	if errs == 0 || slept > 0 || len(s.quotes) > 0 {
		t.Errorf("of %d errors %d are taken for a network that is down, %d for a closed port", errs, slept, len(s.quotes))
	}
}

// unreachable is ICMP's word that a datagram from a port of this machine did not reach its host.
func unreachable(port int) []byte {
	b := []byte{3, 1, 0, 0, 0, 0, 0, 0, // type, code, checksum
		0x45, 0, 0, 28 + unknownSize, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 9, // the IP header of what was sent
		byte(port >> 8), byte(port), 0, 9, 0, 8 + unknownSize, 0, 0}
	b = append(append(b, kindSealed), make([]byte, unknownSize-1)...)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 + uint32(b[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	b[2], b[3] = byte(^sum>>8), byte(^sum)
	return b
}

// TestOnlyICMPSaysThatAPortIsClosed reads what the kernel says of itself, and of other errors.
func TestOnlyICMPSaysThatAPortIsClosed(t *testing.T) {
	for _, c := range []struct {
		level, kind int32
		errno       unix.Errno
		origin      byte
		want        bool
	}{
		{unix.IPPROTO_IP, unix.IP_RECVERR, unix.ECONNREFUSED, unix.SO_EE_ORIGIN_ICMP, true},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.ECONNREFUSED, unix.SO_EE_ORIGIN_ICMP6, true},
		{unix.IPPROTO_IP, unix.IP_RECVERR, unix.ECONNREFUSED, unix.SO_EE_ORIGIN_LOCAL, false},
		{unix.IPPROTO_IP, unix.IP_RECVERR, unix.EHOSTUNREACH, unix.SO_EE_ORIGIN_ICMP, false},
		{unix.IPPROTO_IP, unix.IP_TTL, unix.ECONNREFUSED, unix.SO_EE_ORIGIN_ICMP, false},
	} {
		b := make([]byte, unix.CmsgSpace(16))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		h.Level, h.Type = c.level, c.kind
		h.SetLen(unix.CmsgLen(16))
		data := b[unix.CmsgLen(0):]
		binary.NativeEndian.PutUint32(data, uint32(c.errno))
		data[4] = c.origin
		if portClosed(b) != c.want {
			t.Errorf("level %d, kind %d, %v, origin %d: want %v", c.level, c.kind, c.errno, c.origin, c.want)
		}
	}
}
