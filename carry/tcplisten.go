package carry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"redoubt"
)

// greetTime is how long a connection over TCP may take to be one of four.
const greetTime = 30 * time.Second

// Listener takes Conns over TCP. All methods may be called at once.
type Listener struct {
	config   Config
	server   *tls.Config
	listener net.Listener
	accepted chan *streams
	context  context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu      sync.Mutex
	open    int // connections that are not yet part of a Conn
	perHost map[netip.Prefix]int
	halves  map[[16]byte]*half
	conns   map[*streams]bool
}

// half is a session of which not every connection is here.
type half struct {
	leaf  string // the certificate, as bytes: all four must be of one peer
	lanes [redoubt.Precedences]*tls.Conn
	n     int
	whole chan struct{} // closed when all four are here
}

// ListenTCP serves a listener, which becomes its own: Close closes it. Config.Server must verify clients, as with NewEndpoint.
func ListenTCP(config Config, l net.Listener) (*Listener, error) {
	if config.Server == nil {
		return nil, &redoubt.Error{Op: "carry.ListenTCP", Kind: redoubt.Invalid, Hint: "Config.Server is needed"}
	}
	config = config.filled()
	server, err := serverTLS(config, alpnStreams)
	if err != nil {
		return nil, err
	}
	t := &Listener{
		config: config, server: server, listener: l, accepted: make(chan *streams, acceptQueue),
		perHost: map[netip.Prefix]int{}, halves: map[[16]byte]*half{}, conns: map[*streams]bool{},
	}
	t.context, t.cancel = context.WithCancel(context.Background())
	t.work.Go(t.listen)
	return t, nil
}

// Accept gives the next Conn that a peer has opened, its identity verified. Errors: Unavailable (the listener is closed), ctx.Err().
func (t *Listener) Accept(ctx context.Context) (Conn, error) {
	select {
	case s := <-t.accepted:
		return s, nil
	case <-t.context.Done():
		return nil, ended("carry.Accept", net.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Addr is where the listener listens.
func (t *Listener) Addr() net.Addr { return t.listener.Addr() }

// Close ends the listener and every Conn that it took. When it returns, no goroutine of either is left.
func (t *Listener) Close() error {
	t.cancel()
	err := t.listener.Close()
	t.work.Wait()
	t.mu.Lock()
	conns := t.conns
	t.conns = map[*streams]bool{}
	t.mu.Unlock()
	for s := range conns {
		s.Close()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return &redoubt.Error{Op: "carry.Listener.Close", Err: err}
	}
	return nil
}

func (t *Listener) listen() {
	for {
		c, err := t.listener.Accept()
		if t.context.Err() != nil {
			if err == nil {
				c.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select { // out of files, say: what is closed meanwhile makes room
			case <-time.After(probeEvery):
			case <-t.context.Done():
			}
			continue
		}
		host := tcpHost(c)
		if !t.enter(host) {
			c.Close()
			continue
		}
		t.work.Go(func() { t.take(c, host) })
	}
}

func tcpHost(c net.Conn) netip.Prefix {
	a, _ := c.RemoteAddr().(*net.TCPAddr)
	if a == nil {
		return netip.Prefix{}
	}
	return hostOf(a.AddrPort().Addr().Unmap())
}

// enter makes room for a connection, if there is any.
func (t *Listener) enter(host netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open >= redoubt.Precedences*maxHalfOpen || t.perHost[host] >= redoubt.Precedences*maxHalfOpenEach {
		return false
	}
	t.open++
	t.perHost[host]++
	return true
}

func (t *Listener) leave(host netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if t.perHost[host]--; t.perHost[host] == 0 {
		delete(t.perHost, host)
	}
}

// take brings one connection to the point where it belongs to a session, and begins the session with the last of the four.
func (t *Listener) take(raw net.Conn, host netip.Prefix) {
	defer t.leave(host)
	ctx, cancel := context.WithTimeout(t.context, greetTime)
	defer cancel()
	c := tls.Server(raw, t.server)
	var g greeting
	err := within(ctx, raw, func() (err error) {
		if err = c.HandshakeContext(ctx); err != nil {
			return err
		}
		var b [greetingSize]byte
		if _, err = io.ReadFull(c, b[:]); err != nil {
			return err
		}
		g, err = decodeGreeting(b[:])
		return err
	})
	if err != nil {
		raw.Close()
		return
	}
	lanes, whole, ok := t.join(g, c)
	if !ok {
		raw.Close()
		return
	}
	if whole == nil {
		t.begin(ctx, lanes)
		return
	}
	select {
	case <-whole:
	case <-ctx.Done():
		t.drop(g.session)
	}
}

// join puts a connection into its session: the one that completes it is given all four, the others what is closed when
// that has happened. ok is false when it does not belong.
func (t *Listener) join(g greeting, c *tls.Conn) (lanes [redoubt.Precedences]*tls.Conn, whole chan struct{}, ok bool) {
	leaf := string(c.ConnectionState().PeerCertificates[0].Raw)
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.halves[g.session]
	if h == nil {
		h = &half{leaf: leaf, whole: make(chan struct{})}
		t.halves[g.session] = h
	}
	if h.leaf != leaf || h.lanes[g.precedence] != nil {
		return lanes, nil, false
	}
	h.lanes[g.precedence] = c
	if h.n++; h.n < len(h.lanes) {
		return lanes, h.whole, true
	}
	delete(t.halves, g.session)
	close(h.whole)
	return h.lanes, nil, true
}

// drop closes what came of a session that was never complete.
func (t *Listener) drop(session [16]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.halves[session]; h != nil {
		for _, c := range h.lanes {
			if c != nil {
				c.NetConn().Close()
			}
		}
		delete(t.halves, session)
	}
}

// begin tells the client that all four are here, and hands the Conn to Accept.
func (t *Listener) begin(ctx context.Context, lanes [redoubt.Precedences]*tls.Conn) {
	for _, c := range lanes {
		if within(ctx, c.NetConn(), func() error { _, err := c.Write([]byte{wireVersion}); return err }) != nil {
			for _, c := range lanes {
				c.NetConn().Close()
			}
			return
		}
	}
	s := newStreams(t.config, lanes)
	s.listener = t
	t.mu.Lock()
	t.conns[s] = true
	t.mu.Unlock()
	select {
	case t.accepted <- s:
	default:
		s.Close()
	}
}

func (t *Listener) forget(s *streams) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, s)
}
