package carry

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
)

// Limits of an endpoint: what whoever can send it datagrams makes it keep.
const (
	maxLinks          = 16384
	maxHalfOpen       = 256 // handshakes that have begun, from addresses that are proved
	maxHalfOpenEach   = 8   // of one address (IPv4), or one /64 (IPv6)
	acceptQueue       = 64
	maxUnknown        = 100 // a second
	defaultKeepAlive  = 15 * time.Second
	defaultMaxSilence = 10 * time.Minute
)

// Config is what an Endpoint, a DialTCP and a ListenTCP are given. The zero value of each field but Server says
// what is usual.
type Config struct {
	// Server proves who we are to those who dial and verifies them: it must require a client certificate and
	// either verify it against ClientCAs or by VerifyConnection or VerifyPeerCertificate. Nil: nobody can dial here.
	Server *tls.Config

	// Recall gives what an earlier Conn found of the road to a peer (Stats.Road); nil, or the zero Road: nothing is known.
	Recall func(peer *x509.Certificate) Road

	// Tickets are kept for short handshakes with peers that were met before; nil: each is a full one.
	Tickets *Tickets

	KeepAlive  time.Duration // between signs of life of the side that dialled, 15 s
	MaxSilence time.Duration // without an authentic datagram; then a Conn ends, 10 min
	Now        func() time.Time
	Rand       io.Reader // connection IDs, cookies, challenges, for many at once; keys and nonces come from the cryptographic module itself
}

func (c Config) filled() Config {
	if c.KeepAlive == 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.MaxSilence == 0 {
		c.MaxSilence = defaultMaxSilence
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Recall == nil {
		c.Recall = func(*x509.Certificate) Road { return Road{} }
	}
	return c
}

// Endpoint makes Conns over the datagrams of one or several sockets. All methods may be called at once.
type Endpoint struct {
	config   Config
	server   *tls.Config
	sockets  []socket
	silent   atomic.Bool
	accepted chan *link
	ended    chan struct{}
	context  context.Context // of the handshakes
	cancel   context.CancelFunc
	work     sync.WaitGroup
	cookies  cookies

	mu       sync.Mutex
	closed   bool
	links    map[connID]taker
	halfOpen map[opening]*shake
	perHost  map[netip.Prefix]int
	resuming map[[ticketIDSize]byte][]*resuming
	answers  allowance // of "unknown" that are sent
	hints    allowance // and that are looked at
	resumes  allowance // of short handshakes

	resumesOf struct { // of each ticket
		second int64
		each   map[[ticketIDSize]byte]int
	}
}

// allowance is so much a second.
type allowance struct {
	second int64
	n      int
}

func (a *allowance) take(now time.Time, most int) bool {
	if second := now.Unix(); a.second != second {
		*a = allowance{second: second}
	}
	a.n++
	return a.n <= most
}

// taker is what datagrams of one connection ID go to.
type taker interface {
	deliver(datagram []byte, from path)
}

// opening names a handshake before the client knows our connection ID.
type opening struct {
	from   path
	client connID
}

// NewEndpoint serves the given sockets, which become its own: Close closes them. Addresses are of UDP. Several sockets are several ways
// to the same peers, out of this machine by different uplinks: who gives two that leave by one takes a double share of it.
func NewEndpoint(config Config, sockets ...net.PacketConn) (*Endpoint, error) {
	const op = "carry.NewEndpoint"
	if len(sockets) == 0 {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "at least one socket"}
	}
	e := &Endpoint{
		config: config.filled(), accepted: make(chan *link, acceptQueue), ended: make(chan struct{}),
		links: map[connID]taker{}, halfOpen: map[opening]*shake{}, perHost: map[netip.Prefix]int{},
		resuming: map[[ticketIDSize]byte][]*resuming{},
	}
	e.resumesOf.each = map[[ticketIDSize]byte]int{}
	if config.Server != nil {
		server, err := serverTLS(e.config, alpnDatagrams)
		if err != nil {
			return nil, err
		}
		e.server = server
	}
	if _, err := io.ReadFull(e.config.Rand, e.cookies.key[:]); err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	for _, s := range sockets {
		e.sockets = append(e.sockets, newSocket(s))
	}
	e.context, e.cancel = context.WithCancel(context.Background())
	for i := range e.sockets {
		e.work.Go(func() { e.read(i) })
		e.work.Go(func() { e.hear(i) })
	}
	return e, nil
}

func (e *Endpoint) now() time.Time { return e.config.Now() }

// SetSilent begins or ends radio silence: while it lasts, nothing at all is sent, not even an answer; what
// comes is received. The peer sees an outage, and sends its FLASH with the probes. A silence longer than the peer's MaxSilence ends
// its side of a Conn.
func (e *Endpoint) SetSilent(silent bool) {
	e.silent.Store(silent)
	if !silent {
		for _, l := range e.all() {
			l.wake()
		}
	}
}

// all gives the links.
func (e *Endpoint) all() (list []*link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.links {
		if l, ok := t.(*link); ok {
			list = append(list, l)
		}
	}
	return list
}

// halfResumed gives the short handshakes whose client is not heard yet.
func (e *Endpoint) halfResumed() (list []*resuming) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, all := range e.resuming {
		list = append(list, all...)
	}
	return list
}

// Accept gives the next Conn that a peer has opened, its identity verified. Errors: Unavailable (the endpoint is closed), ctx.Err().
func (e *Endpoint) Accept(ctx context.Context) (Conn, error) {
	select {
	case l := <-e.accepted:
		return l, nil
	case <-e.ended:
		return nil, ended("carry.Accept", net.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends every Conn and closes the sockets. When it returns, no goroutine of the endpoint is left.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	already := e.closed
	e.closed = true
	e.mu.Unlock()
	if already {
		return nil
	}
	close(e.ended)
	e.cancel()
	for _, s := range e.halfResumed() {
		e.giveUp(s)
	}
	for _, l := range e.all() {
		l.Close()
	}
	var err error
	for _, s := range e.sockets {
		err = errors.Join(err, s.close())
	}
	e.work.Wait()
	if err != nil {
		return &redoubt.Error{Op: "carry.Endpoint.Close", Err: err}
	}
	return nil
}

// read takes one socket's datagrams until it is closed.
func (e *Endpoint) read(socket int) {
	buf := make([]byte, 1<<16)
	failed := false // the last time
	for {
		n, from, err := e.sockets[socket].readFrom(buf)
		if err == nil {
			failed = false
			e.take(buf[:n], path{socket, from})
			continue
		}
		select {
		case <-e.ended:
			return
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if e.sockets[socket].refused(err) { // an error of one peer's, or of whoever says so, is nothing to the others
			continue
		}
		if !failed { // of something that a writer has heard of meanwhile
			failed = true
			continue
		}
		select { // a network that is down for now
		case <-time.After(leastAckDelay):
		case <-e.ended:
			return
		}
	}
}

// hear takes what a socket's system says of datagrams that nobody was there for: not where that is found, which may be within a link's turn.
func (e *Endpoint) hear(socket int) {
	for {
		select {
		case b := <-e.sockets[socket].quotes:
			e.takeRefused(b)
		case <-e.ended:
			return
		}
	}
}

// take gives a datagram to whom it is for.
func (e *Endpoint) take(b []byte, from path) {
	if len(b) == 0 || !answerable(from.remote) {
		return
	}
	switch {
	case b[0]&^1 == kindSealed && len(b) >= sealedOverhead:
		if t := e.find(connID(binary.BigEndian.Uint32(b[1:]))); t != nil {
			t.deliver(b, from)
		} else {
			e.answerUnknown(b, from)
		}
	case b[0] == kindOpen:
		e.answerOpen(b, from)
	case b[0] == kindShake:
		e.takeShake(b, from)
	case b[0] == kindRetry:
		if m, ok := decodeRetry(b); ok {
			e.deliverAnswer(m.client, b, from)
		}
	case b[0] == kindResume:
		e.takeResume(b, from)
	case b[0] == kindResumed:
		if m, ok := decodeResumed(b); ok {
			e.deliverAnswer(m.client, b, from)
		}
	case b[0] == kindUnknown:
		e.takeUnknown(b)
	}
}

// deliverAnswer delivers what answers a handshake that this side began.
func (e *Endpoint) deliverAnswer(client connID, b []byte, from path) {
	if s, ok := e.find(client).(*shake); ok {
		s.deliver(b, from)
	}
}

func (e *Endpoint) find(id connID) taker {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.links[id]
}

// forget lets go of a connection ID.
func (e *Endpoint) forget(id connID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.links, id)
}

// claim gives a free connection ID to t. ok is false when there are too many already, or the endpoint is closed.
func (e *Endpoint) claim(t taker) (id connID, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || len(e.links) >= maxLinks {
		return 0, false
	}
	for {
		var b [4]byte
		if _, err := io.ReadFull(e.config.Rand, b[:]); err != nil {
			return 0, false
		}
		id = connID(binary.BigEndian.Uint32(b[:]))
		if _, taken := e.links[id]; id != 0 && !taken {
			e.links[id] = t
			return id, true
		}
	}
}

// establish puts a link in the place of its handshake and sets it going.
func (e *Endpoint) establish(s session) (*link, error) {
	l, err := newLink(e, s)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, net.ErrClosed
	}
	e.links[s.local] = l
	e.work.Go(l.run)
	return l, nil
}

// send sends one datagram. Errors are those of a link that is down, but for one: tooLarge says that this machine knows that
// the path takes no such size.
func (e *Endpoint) send(p path, b []byte) (tooLarge bool) {
	if e.silent.Load() {
		return false
	}
	return isTooLarge(e.sockets[p.socket].writeTo(b, p.remote))
}
