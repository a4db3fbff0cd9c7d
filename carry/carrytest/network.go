package carrytest

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Network is sockets joined by roads, in memory. In a testing/synctest bubble it costs no time.
type Network struct {
	seed  uint64
	began time.Time

	mu      sync.Mutex
	sockets map[netip.AddrPort]*Socket
	roads   map[[2]netip.Addr]*Traffic
	usual   Road
	refuses map[netip.Addr]*refusing
	flying  sync.WaitGroup
}

// refusing is a host whose kernel says of datagrams that nobody is there for them: as Linux does, six at once and then one a second.
type refusing struct {
	left int
	last time.Time
}

const (
	refusesAtOnce = 6
	refusesEvery  = time.Second
	mostQuoted    = 576 - IPOverhead - IPOverhead // of a datagram, by RFC 1812
)

// Refuse has a host answer what comes for a closed port, as the kernel of one does that has power.
func (n *Network) Refuse(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuses[netip.MustParseAddr(host)] = &refusing{left: refusesAtOnce}
}

func (r *refusing) may(now time.Time) bool {
	if more := int(now.Sub(r.last) / refusesEvery); more > 0 {
		r.left, r.last = min(r.left+more, refusesAtOnce), now
	}
	r.left--
	if r.left < 0 {
		r.left = 0
		return false
	}
	return true
}

// refuse sends who sent a datagram word that nobody is there for it.
func (n *Network) refuse(p packet, to netip.AddrPort) {
	now := time.Now()
	n.mu.Lock()
	r := n.refuses[to.Addr()]
	var arrivals []time.Time
	quote := p.b[:min(len(p.b), mostQuoted)]
	if r != nil && p.refused == nil && r.may(now) {
		arrivals = n.traffic(to.Addr(), p.from.Addr()).Take(len(quote)+2*IPOverhead, now)
	}
	n.mu.Unlock()
	n.fly(packet{from: to, refused: quote}, p.from, arrivals, now)
}

// Quote has who sent a datagram told that nobody was there for it, as an attacker may.
func (n *Network) Quote(b []byte, sender, to netip.AddrPort) {
	n.fly(packet{from: to, refused: append([]byte(nil), b...)}, sender, []time.Time{time.Now()}, time.Now())
}

// refused is the error of a socket that is told so.
type refused struct{ quote []byte }

func (refused) Error() string { return "connection refused" }

// Refused is how the datagram began that nobody was there for.
func (r refused) Refused() []byte { return r.quote }

// NewNetwork joins everything by the usual road, a traffic of its own for each direction between two addresses.
func NewNetwork(seed uint64, usual Road) *Network {
	return &Network{seed: seed, began: time.Now(), usual: usual, sockets: map[netip.AddrPort]*Socket{}, roads: map[[2]netip.Addr]*Traffic{}, refuses: map[netip.Addr]*refusing{}}
}

// SetRoad replaces the roads between two addresses in both directions. Their outages go on counting from the network's beginning.
func (n *Network) SetRoad(a, b string, r Road) {
	n.SetOneWay(a, b, r)
	n.SetOneWay(b, a, r)
}

// SetOneWay replaces the road in one direction.
func (n *Network) SetOneWay(from, to string, r Road) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.traffic(netip.MustParseAddr(from), netip.MustParseAddr(to))
	t.Road = r
}

// Totals gives what one direction was asked to carry.
func (n *Network) Totals(from, to string) (packets, lost int, sentBytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.traffic(netip.MustParseAddr(from), netip.MustParseAddr(to))
	return t.Sent, t.Lost, t.SentBytes
}

func (n *Network) traffic(from, to netip.Addr) *Traffic {
	key := [2]netip.Addr{from, to}
	t := n.roads[key]
	if t == nil {
		a, b := from.As16(), to.As16()
		direction := uint64(a[14])<<24 | uint64(a[15])<<16 | uint64(b[14])<<8 | uint64(b[15])
		t = NewTraffic(n.usual, n.seed, direction, n.began)
		n.roads[key] = t
	}
	return t
}

// Socket is one place of the network: a net.PacketConn.
type Socket struct {
	network *Network
	in      chan packet
	closed  chan struct{}
	once    sync.Once

	mu   sync.Mutex
	addr netip.AddrPort
	tap  func(b []byte, to netip.AddrPort)
	lose func(b []byte) bool
	mute bool
}

type packet struct {
	b       []byte
	from    netip.AddrPort
	refused []byte // it is word that this datagram came to a closed port
}

const socketQueue = 8192

// Listen makes a socket at an address such as "10.0.0.1:7".
func (n *Network) Listen(address string) *Socket {
	s := &Socket{network: n, in: make(chan packet, socketQueue), closed: make(chan struct{}), addr: netip.MustParseAddrPort(address)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[s.addr] = s
	return s
}

// Move gives the socket another address, as when a translation of addresses is forgotten or a node takes another network.
func (s *Socket) Move(address string) {
	a := netip.MustParseAddrPort(address)
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.network.sockets, s.addr)
	s.addr = a
	s.network.sockets[a] = s
}

// Tap has f see each datagram that the socket sends.
func (s *Socket) Tap(f func(b []byte, to netip.AddrPort)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tap = f
}

// Lose has the datagrams vanish that f chooses.
func (s *Socket) Lose(f func(b []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = f
}

// Mute has the socket send nothing from now on, as when its node has lost its power.
func (s *Socket) Mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = true
}

// Addr is where the socket is now.
func (s *Socket) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// ReadFrom implements net.PacketConn.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-s.in:
		if p.refused != nil {
			return 0, nil, refused{p.refused}
		}
		return copy(b, p.b), net.UDPAddrFromAddrPort(p.from), nil
	case <-s.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn.
func (s *Socket) WriteTo(b []byte, to net.Addr) (int, error) {
	target := to.(*net.UDPAddr).AddrPort()
	s.mu.Lock()
	from, tap, mute := s.addr, s.tap, s.mute || s.lose != nil && s.lose(b)
	s.mu.Unlock()
	if mute {
		return len(b), nil
	}
	if tap != nil {
		tap(b, target)
	}
	s.network.Inject(b, from, target)
	return len(b), nil
}

// Inject sends a datagram with any sender's address, as an attacker may.
func (n *Network) Inject(b []byte, from, to netip.AddrPort) {
	now := time.Now()
	n.mu.Lock()
	arrivals := n.traffic(from.Addr(), to.Addr()).Take(len(b)+IPOverhead, now)
	n.mu.Unlock()
	n.fly(packet{b: append([]byte(nil), b...), from: from}, to, arrivals, now)
}

// fly has a packet arrive.
func (n *Network) fly(p packet, to netip.AddrPort, arrivals []time.Time, now time.Time) {
	for _, at := range arrivals {
		n.flying.Add(1)
		time.AfterFunc(at.Sub(now), func() {
			defer n.flying.Done()
			n.arrive(p, to)
		})
	}
}

func (n *Network) arrive(p packet, to netip.AddrPort) {
	n.mu.Lock()
	s := n.sockets[to]
	n.mu.Unlock()
	if s == nil {
		n.refuse(p, to)
		return
	}
	select {
	case <-s.closed:
		n.refuse(p, to)
		return
	default:
	}
	select {
	case s.in <- p:
	default: // the socket's buffer is full
	}
}

// Wait returns when nothing is on the roads any more.
func (n *Network) Wait() { n.flying.Wait() }

// Close implements net.PacketConn.
func (s *Socket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (s *Socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.Addr()) }

// SetDeadline and its like are not needed by an Endpoint.
func (s *Socket) SetDeadline(time.Time) error      { return nil }
func (s *Socket) SetReadDeadline(time.Time) error  { return nil }
func (s *Socket) SetWriteDeadline(time.Time) error { return nil }

// Age is how long after the network's beginning a time is: what its roads count their outages from.
func (n *Network) Age(at time.Time) time.Duration { return at.Sub(n.began) }
