package carry_test

import (
	"net"
	"testing"

	"redoubt"
	"redoubt/carry"
)

// BenchmarkLoopback is what carriage itself does on one machine: both ends, over UDP and over TCP.
func BenchmarkLoopback(b *testing.B) {
	server, client := nodes(b)
	b.Run("datagrams", func(b *testing.B) {
		var e [2]*carry.Endpoint
		var socket net.PacketConn
		for i := range e {
			var err error
			if socket, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
				b.Fatal(err)
			}
			if e[i], err = carry.NewEndpoint(carry.Config{Server: server}, socket); err != nil {
				b.Fatal(err)
			}
			defer e[i].Close()
		}
		to, err := e[0].Dial(b.Context(), client, socket.LocalAddr().(*net.UDPAddr).AddrPort())
		if err != nil {
			b.Fatal(err)
		}
		from, err := e[1].Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		stream(b, to, from)
	})
	b.Run("tcp", func(b *testing.B) {
		raw, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		l, err := carry.ListenTCP(carry.Config{Server: server}, raw)
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		to, err := carry.DialTCP(b.Context(), carry.Config{}, client, dialTCP(raw.Addr().String()))
		if err != nil {
			b.Fatal(err)
		}
		defer to.Close()
		from, err := l.Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		stream(b, to, from)
	})
}

func stream(b *testing.B, to, from carry.Conn) {
	msg := make([]byte, 256<<10)
	b.SetBytes(int64(len(msg)))
	go func() {
		for range b.N {
			if err := to.Send(b.Context(), redoubt.Routine, msg); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		if _, _, err := from.Receive(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	s := to.Stats()
	b.ReportMetric(float64(s.Lost), "lost")
	b.ReportMetric(float64(s.DatagramBytes), "datagram")
}
