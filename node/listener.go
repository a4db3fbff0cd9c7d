package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"redoubt"
	"redoubt/estate"
	"redoubt/s3"
)

// Limits on what arrives at a listener.
const (
	maxHeaderBytes    = 64 << 10         // S3 metadata (8 KiB), a presigned query and an authorisation header, with room
	maxConnections    = 4096             // of one listener; further clients wait in the kernel's queue
	readHeaderTimeout = 15 * time.Second // a client that starts a request finishes its head
	idleTimeout       = 2 * time.Minute  // between requests
	stallTimeout      = 1 * time.Minute  // without one byte moved within a request: a slow client is cut, a slow link is not
	stopTimeout       = 20 * time.Second // for requests in progress when the node stops
)

// Ports of listeners that name none are chosen here: below the range that systems give
// to outgoing connections (32768 and up on Linux), so that a chosen port is free again
// when the node starts the next time.
const (
	lowestPort  = 20000
	highestPort = 32000
	portTries   = 100
)

// ports remembers what was chosen for addresses with port 0.
type ports struct {
	S3  string `json:"s3,omitempty"`
	API string `json:"api,omitempty"`

	Peers string `json:"peers,omitempty"`
}

// face is one front end of a node: a listener and what serves it.
type face struct {
	url    string
	listen net.Listener
	server *http.Server
}

// openFaces binds both listeners. It remembers the ports that it chose, before anybody is told of them.
func openFaces(dir string, n estate.Node) (s3, api net.Listener, err error) {
	var chosen, was ports
	path := filepath.Join(dir, "ports")
	if err := readJSON(path, &was); err != nil && !errors.Is(err, redoubt.NotFound) {
		return nil, nil, err
	}
	chosen.Peers = was.Peers
	if s3, chosen.S3, err = bind(n.S3.Listen, was.S3); err != nil {
		return nil, nil, err
	}
	if api, chosen.API, err = bind(n.API.Listen, was.API); err == nil && chosen != was {
		err = writeJSON(path, chosen)
	}
	if err != nil {
		s3.Close()
		if api != nil {
			api.Close()
		}
		return nil, nil, err
	}
	return s3, api, nil
}

// openMeetingPlace binds the address where an enclave's devices meet it, for TCP and for UDP on the same port.
func openMeetingPlace(dir string, declared estate.Listener) (tcp net.Listener, udp net.PacketConn, err error) {
	var was ports
	path := filepath.Join(dir, "ports")
	if err := readJSON(path, &was); err != nil && !errors.Is(err, redoubt.NotFound) {
		return nil, nil, err
	}
	chosen := was
	for range portTries {
		if tcp, chosen.Peers, err = bind(declared.Listen, was.Peers); err != nil {
			return nil, nil, err
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		tcp.Close()
		if chosen.Peers == "" || was.Peers != "" {
			return nil, nil, &redoubt.Error{Op: "node.bind", Object: tcp.Addr().String(), Kind: redoubt.Unavailable, Err: cause(err), Hint: "stop what uses the UDP port, or give the node another in the estate"}
		}
	}
	if err == nil && chosen != was {
		err = writeJSON(path, chosen)
	}
	if err != nil {
		tcp.Close()
		if udp != nil {
			udp.Close()
		}
	}
	return tcp, udp, err
}

// meetingAddresses are what devices dial: where the node listens, or at every address the declared hosts that are addresses.
func meetingAddresses(bound string, declared estate.Listener) (all []string) {
	a, err := netip.ParseAddrPort(bound)
	if err != nil || !a.Addr().IsUnspecified() {
		return []string{bound}
	}
	for _, h := range declared.Hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			all = append(all, netip.AddrPortFrom(ip, a.Port()).String())
		}
	}
	return all
}

// bind listens at address; where it names port 0, at the remembered address, or at a fresh
// port, which it gives back to be remembered.
func bind(address, remembered string) (net.Listener, string, error) {
	const op = "node.bind"
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, "", &redoubt.Error{Op: op, Object: address, Kind: redoubt.Invalid, Err: err}
	}
	if want.Port() != 0 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, "", &redoubt.Error{Op: op, Object: address, Kind: redoubt.Unavailable, Err: cause(err),
				Hint: "stop what uses the port, or give the node another in the estate"}
		}
		return l, "", nil
	}
	if was, err := netip.ParseAddrPort(remembered); err == nil && was.Addr() == want.Addr() {
		l, err := net.Listen("tcp", remembered)
		if err != nil {
			return nil, "", &redoubt.Error{Op: op, Object: remembered, Kind: redoubt.Unavailable, Err: cause(err),
				Hint: "clients know this port: stop what uses it, or remove the file ports in the node's state to choose another"}
		}
		return l, remembered, nil
	}
	for range portTries {
		fresh := netip.AddrPortFrom(want.Addr(), uint16(lowestPort+rand.IntN(highestPort-lowestPort))).String()
		if l, err := net.Listen("tcp", fresh); err == nil {
			return l, fresh, nil
		}
	}
	return nil, "", &redoubt.Error{Op: op, Object: address, Kind: redoubt.Unavailable,
		Err: fmt.Errorf("no free port found from %d to %d", lowestPort, highestPort)}
}

func cause(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}

// newFace puts a handler behind a listener, with TLS unless the estate turned it off for a loopback address.
func newFace(l net.Listener, declared estate.Listener, a *authority, h http.Handler, log *slog.Logger) (*face, error) {
	scheme := "https"
	address := l.Addr().String()
	inner := net.Listener(steadyListener{netutil.LimitListener(l, maxConnections)})
	if declared.Clear {
		if !declared.Loopback() {
			return nil, &redoubt.Error{Op: "node.newFace", Object: address, Kind: redoubt.Denied, Err: errors.New("TLS may be off on a loopback address only")}
		}
		scheme = "http"
	} else {
		inner = tls.NewListener(inner, a.config())
		h = inWholes(h)
	}
	return &face{url: scheme + "://" + hostPort(address, declared), listen: inner, server: &http.Server{
		Handler: h, MaxHeaderBytes: maxHeaderBytes, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout,
		ConnContext: withSteady,
		ErrorLog:    slog.NewLogLogger(quiet{log.Handler()}, slog.LevelDebug),
	}}, nil
}

// withSteady lets a handler find the connection that a request came on.
func withSteady(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if steady, ok := c.(*steadyConn); ok {
		return s3.WithGatherer(ctx, steady)
	}
	return ctx
}

// inWholes has a larger piece of an answer leave by one write to the network: TLS makes a record of each 16 KiB, and whoever waits for them is woken by each
// that is sent.
func inWholes(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := s3.GathererOf(r.Context()).(*steadyConn); ok {
			w = wholeWriter{w, c}
		}
		h.ServeHTTP(w, r)
	})
}

type wholeWriter struct {
	http.ResponseWriter
	c *steadyConn
}

// Unwrap is for http.ResponseController.
func (w wholeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w wholeWriter) Write(p []byte) (int, error) {
	if len(p) <= tlsRecord || !w.c.gather() {
		return w.ResponseWriter.Write(p)
	}
	n, err := w.ResponseWriter.Write(p)
	if lost := w.c.Release(); err == nil {
		err = lost
	}
	return n, err
}

// tlsRecord is the most that one record of TLS carries (RFC 8446 section 5.1).
const tlsRecord = 16 << 10

// hostPort is what a client dials: the first declared host where the listener takes every address.
func hostPort(address string, declared estate.Listener) string {
	a, err := netip.ParseAddrPort(address)
	if err == nil && a.Addr().IsUnspecified() && len(declared.Hosts) > 0 {
		return net.JoinHostPort(declared.Hosts[0], fmt.Sprint(a.Port()))
	}
	return address
}

func (f *face) serve() error {
	if err := f.server.Serve(f.listen); !errors.Is(err, http.ErrServerClosed) {
		return &redoubt.Error{Op: "node.serve", Object: f.url, Err: err}
	}
	return nil
}

// stop lets requests in progress end, for as long as ctx allows, and then cuts them.
func (f *face) stop(ctx context.Context) error {
	if err := f.server.Shutdown(ctx); err != nil {
		return f.server.Close()
	}
	return nil
}

// quiet drops what net/http says of a connection: it may quote a client's bytes.
type quiet struct{ slog.Handler }

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Message = "http server reported a connection error"
	return q.Handler.Handle(ctx, r)
}

// steadyListener cuts connections on which nothing moves. Deadlines are for one read or
// write each, so the slowest link may take all day for an object as long as bytes move.
type steadyListener struct{ net.Listener }

func (l steadyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &steadyConn{Conn: c}, nil
}

type steadyConn struct {
	net.Conn

	mu          sync.Mutex // makes setting a deadline and reading its bound one step
	read, write time.Time  // bounds that net/http set; zero: none

	outMu    sync.Mutex // taken before mu
	gathered *[]byte    // what waits for Release; nil: nothing is to wait
}

func (c *steadyConn) Read(p []byte) (int, error) {
	if err := c.arm(&c.read, idleTimeout+stallTimeout, c.Conn.SetReadDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write sends p, or keeps it while the connection gathers.
func (c *steadyConn) Write(p []byte) (int, error) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	if c.gathered == nil {
		return c.send(p)
	}
	if len(*c.gathered)+len(p) > maxGathered {
		if err := c.sendGathered(); err != nil {
			return 0, err
		}
		return c.send(p)
	}
	*c.gathered = append(*c.gathered, p...)
	return len(p), nil
}

// maxGathered is what is kept of an answer to send it in one piece: a chunk of content (keys.ChunkBytes), with its head and TLS records.
const maxGathered = 68 << 10

var gatherPool = sync.Pool{New: func() any { b := make([]byte, 0, maxGathered); return &b }}

// Gather keeps what is written from here on, until Release sends it in one piece. net/http sends a small answer in
// two, and whoever waits for it wakes twice.
func (c *steadyConn) Gather() { c.gather() }

// gather says whether it has begun: false is that the connection gathers already.
func (c *steadyConn) gather() bool {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	if c.gathered != nil {
		return false
	}
	c.gathered = gatherPool.Get().(*[]byte)
	return true
}

// Release sends what was gathered; what is written after it goes out at once again.
func (c *steadyConn) Release() error {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	if c.gathered == nil {
		return nil
	}
	err := c.sendGathered()
	gatherPool.Put(c.gathered)
	c.gathered = nil
	return err
}

// sendGathered leaves nothing gathered, also when it fails. The caller holds outMu.
func (c *steadyConn) sendGathered() error {
	if len(*c.gathered) == 0 {
		return nil
	}
	_, err := c.send(*c.gathered)
	clear(*c.gathered)
	*c.gathered = (*c.gathered)[:0]
	return err
}

// send writes p, however long that takes, as long as some of it moves.
func (c *steadyConn) send(p []byte) (sent int, err error) {
	for {
		if err := c.arm(&c.write, stallTimeout, c.Conn.SetWriteDeadline); err != nil {
			return sent, err
		}
		n, err := c.Conn.Write(p[sent:])
		if sent += n; n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.bounded() {
			return sent, err
		}
	}
}

// bounded says whether the bound that was set for writes is over.
func (c *steadyConn) bounded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.write.IsZero() && !time.Now().Before(c.write)
}

// arm sets a deadline one stall from now, or the bound that was set if that is earlier.
func (c *steadyConn) arm(bound *time.Time, stall time.Duration, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := time.Now().Add(stall)
	if !bound.IsZero() && bound.Before(d) {
		d = *bound
	}
	return set(d)
}

// SetReadDeadline bounds this and later reads.
func (c *steadyConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline bounds this and later writes.
func (c *steadyConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline bounds both.
func (c *steadyConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
