package carry_test

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
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

// BenchmarkMemory is what one end of a connection keeps at rest; and what each more for 75 kB, which is what a link of 1 Mbit/s and 600 ms holds:
// the receiver that has not been asked for it, and the sender to whom nobody has acknowledged it.
func BenchmarkMemory(b *testing.B) {
	const conns = 20
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	server, client := nodes(b)
	network := carrytest.NewNetwork(1, carrytest.Road{Delay: 2 * time.Millisecond})
	ea, err := carry.NewEndpoint(carry.Config{}, network.Listen(hostA+":1"))
	if err != nil {
		b.Fatal(err)
	}
	defer ea.Close()
	eb, err := carry.NewEndpoint(carry.Config{Server: server}, network.Listen(hostB+":2"))
	if err != nil {
		b.Fatal(err)
	}
	defer eb.Close()
	var from, to []carry.Conn
	before := heap()
	for range conns {
		c, err := ea.Dial(b.Context(), client, netip.MustParseAddrPort(hostB+":2"))
		if err != nil {
			b.Fatal(err)
		}
		d, err := eb.Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		from, to = append(from, c), append(to, d)
	}
	for b.Loop() {
	}
	rest := heap()
	const content = 75_000
	for _, c := range from {
		if err := c.Send(b.Context(), redoubt.Routine, make([]byte, content)); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range from {
		for s := c.Stats(); s.QueuedBytes[0]+s.UnackedBytes[0] > 0; s = c.Stats() {
			time.Sleep(time.Millisecond)
		}
	}
	busy := heap()
	b.ReportMetric(float64(rest-before)/conns/2, "B/end-at-rest")
	b.ReportMetric(float64(busy-rest)/conns, "B/unreceived")
	network.SetRoad(hostA, hostB, carrytest.Road{Blocked: true}) // so that all of it stays under way
	for _, c := range from {
		if err := c.Send(b.Context(), redoubt.Routine, make([]byte, content)); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(2 * time.Second)
	b.ReportMetric(float64(heap()-busy)/conns, "B/under-way")
	runtime.KeepAlive(to)
}
