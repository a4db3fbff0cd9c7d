package carry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"redoubt"
)

// streams is a Conn where UDP is closed: four TLS connections over TCP, one a precedence, so that
// what is urgent does not stand behind what is not. When one of them breaks, the Conn ends.
type streams struct {
	config   Config
	listener *Listener // whose it is, if we did not dial
	peer     *x509.Certificate
	lanes    [redoubt.Precedences]*lane
	ended    chan struct{}
	work     sync.WaitGroup

	mu       sync.Mutex
	cause    error
	state    State
	since    time.Time
	heard    time.Time
	rtt      rtt
	pinged   time.Time // when the ping went that has no answer yet; zero: none
	lastPing time.Time
	bytes    struct{ sent, received uint64 }
	mail     chan struct{} // closed and made anew when a message comes
	room     chan struct{} // closed and made anew when there is room in a queue, out or in
}

// lane is one precedence's connection. Its queues belong to the streams' lock.
type lane struct {
	conn   *tls.Conn
	out    [][]byte
	queued int
	work   chan struct{} // one place: there is something to write
	pong   bool
	ping   bool
	in     [][]byte
	held   int // bytes of in
}

// The head of a record: its kind in the first byte, the length of a message in the other three.
const (
	recordMessage = 0
	recordPing    = 1
	recordPong    = 2
	recordHead    = 4
)

// Times and limits over TCP.
const (
	tcpPingEvery = time.Second // while something is under way
	tcpOutage    = 3 * time.Second
	tcpQueue     = 2 * QueueBytes
	tcpUnsent    = 64 << 10 // in the kernel
	greetingSize = 2 + 16 + 1
)

// greeting is what a client says first on each connection: version, precedence, which session they all belong to, and a zero.
type greeting struct {
	session    [16]byte
	precedence redoubt.Precedence
}

func (g greeting) encode() []byte {
	return append(append([]byte{wireVersion, byte(g.precedence)}, g.session[:]...), 0)
}

func decodeGreeting(b []byte) (g greeting, err error) {
	if len(b) != greetingSize || b[0] != wireVersion || b[1] >= redoubt.Precedences || b[greetingSize-1] != 0 {
		return g, errProtocol
	}
	return greeting{[16]byte(b[2:]), redoubt.Precedence(b[1])}, nil
}

// DialTCP opens a Conn over TCP: dial is called once for each precedence and must reach the same listener each
// time. What holds for Endpoint.Dial's configuration and errors holds here.
func DialTCP(ctx context.Context, config Config, c *tls.Config, dial func(context.Context) (net.Conn, error)) (Conn, error) {
	const op = "carry.DialTCP"
	config = config.filled()
	c, err := clientTLS(config, c, alpnStreams)
	if err != nil {
		return nil, err
	}
	g := greeting{}
	if _, err := io.ReadFull(config.Rand, g.session[:]); err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	var lanes [redoubt.Precedences]*tls.Conn
	var errs [redoubt.Precedences]error
	var work sync.WaitGroup
	for p := range lanes {
		own := greeting{g.session, redoubt.Precedence(p)}
		work.Go(func() { lanes[p], errs[p] = openLane(ctx, c, dial, own) })
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			for _, l := range lanes {
				if l != nil {
					l.NetConn().Close()
				}
			}
			return nil, dialError(ctx, op, err)
		}
	}
	return newStreams(config, lanes), nil
}

// openLane opens one of the four connections, and waits until the listener has them all. It gives a connection with an error when there is one to close.
func openLane(ctx context.Context, c *tls.Config, dial func(context.Context) (net.Conn, error), g greeting) (*tls.Conn, error) {
	raw, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	lane := tls.Client(raw, c)
	return lane, within(ctx, raw, func() error {
		if err := greet(ctx, lane, g); err != nil {
			return err
		}
		return welcomed(lane)
	})
}

func greet(ctx context.Context, l *tls.Conn, g greeting) error {
	if err := l.HandshakeContext(ctx); err != nil {
		return err
	}
	_, err := l.Write(g.encode())
	return err
}

var errNotWelcome = errors.New("the peer did not take the connection")

func welcomed(l *tls.Conn) error {
	var b [1]byte
	if _, err := io.ReadFull(l, b[:]); err != nil {
		return errors.Join(errNotWelcome, err)
	}
	if b[0] != wireVersion {
		return errProtocol
	}
	return nil
}

// dialError classes what a dial failed with: what TLS refused is Unauthenticated.
func dialError(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var alert tls.AlertError
	var verify *tls.CertificateVerificationError
	var remote *net.OpError
	if errors.As(err, &alert) || errors.As(err, &verify) || errors.As(err, &remote) && remote.Op == "remote error" {
		return unauthenticated(op, err)
	}
	return ended(op, err)
}

// within runs f and breaks the connection when ctx is done first.
func within(ctx context.Context, c net.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return err
}

func newStreams(config Config, lanes [redoubt.Precedences]*tls.Conn) *streams {
	now := config.Now()
	s := &streams{
		config: config, ended: make(chan struct{}), mail: make(chan struct{}), room: make(chan struct{}),
		peer: lanes[0].ConnectionState().PeerCertificates[0], since: now, heard: now,
	}
	for p, c := range lanes {
		limitUnsent(c.NetConn())
		s.lanes[p] = &lane{conn: c, work: make(chan struct{}, 1)}
	}
	for p := range s.lanes {
		s.work.Go(func() { s.write(redoubt.Precedence(p)) })
		s.work.Go(func() { s.read(redoubt.Precedence(p)) })
	}
	s.work.Go(s.watch)
	return s
}

// Send implements Conn.
func (s *streams) Send(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	const op = "carry.Send"
	if err := checkMessage(op, p, msg); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		if s.cause != nil {
			s.mu.Unlock()
			return ended(op, s.cause)
		}
		if l := s.lanes[p]; l.queued < tcpQueue {
			record := binary.BigEndian.AppendUint32(make([]byte, 0, recordHead+len(msg)), recordMessage<<24|uint32(len(msg)))
			l.out = append(l.out, append(record, msg...))
			l.queued += len(msg)
			s.mu.Unlock()
			l.wake()
			return nil
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.ended:
		case <-ctx.Done():
		}
	}
}

func (l *lane) wake() {
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// Receive implements Conn.
func (s *streams) Receive(ctx context.Context) (redoubt.Precedence, []byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		s.mu.Lock()
		for i := len(s.lanes) - 1; i >= 0; i-- {
			if l := s.lanes[i]; len(l.in) > 0 {
				msg := l.in[0]
				l.in[0] = nil
				l.in = l.in[1:]
				l.held -= len(msg)
				s.changed(&s.room)
				s.mu.Unlock()
				return redoubt.Precedence(i), msg, nil
			}
		}
		if s.cause != nil {
			s.mu.Unlock()
			return 0, nil, ended("carry.Receive", s.cause)
		}
		mail := s.mail
		s.mu.Unlock()
		select {
		case <-mail:
		case <-s.ended:
		case <-ctx.Done():
		}
	}
}

// changed wakes all who wait on c, with the lock held.
func (s *streams) changed(c *chan struct{}) {
	close(*c)
	*c = make(chan struct{})
}

// Recycle implements Conn.
func (s *streams) Recycle(msg []byte) { recycle(msg) }

// Peer implements Conn.
func (s *streams) Peer() *x509.Certificate { return s.peer }

// Stats implements Conn.
func (s *streams) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		State: s.state, Since: s.since, LastHeard: s.heard, RTT: s.rtt.smooth,
		SentBytes: s.bytes.sent, ReceivedBytes: s.bytes.received, Remote: s.lanes[0].conn.RemoteAddr().String(),
	}
	for p, l := range s.lanes {
		st.QueuedBytes[p] = l.queued
	}
	return st
}

// Close implements Conn.
func (s *streams) Close() error {
	s.end(errClosed)
	s.work.Wait()
	if s.listener != nil {
		s.listener.forget(s)
	}
	return nil
}

// end makes the Conn a thing of the past. The first cause stands.
func (s *streams) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return
	}
	s.cause = cause
	close(s.ended)
	for _, l := range s.lanes {
		l.conn.NetConn().Close() // reads and writes that are under way return
	}
}
