package carry

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
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
		quotes := make(chan []byte, 1)
		go func() {
			b := make([]byte, 2000)
			for {
				_, _, err := s.readFrom(b)
				if err == nil {
					continue
				}
				if q := s.refused(err); len(q) > 0 {
					quotes <- q[0]
					return
				}
				if errors.Is(err, net.ErrClosed) {
					return
				}
			}
		}()
		select {
		case q := <-quotes:
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
