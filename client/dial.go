package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"sync"
	"time"
)

const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 10 * time.Second
	writeBytes       = 256 << 10 // of a body, by one write
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialTLS dials for an http.Transport. What is written at once leaves at once: TLS makes a record of each 16 KiB, and who reads is woken by each that is sent.
func dialTLS(roots *x509.CertPool, dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		under := &gathering{Conn: raw}
		c := tls.Client(under, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: host})
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if err := c.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return &wholeConn{Conn: c, under: under}, nil
	}
}

// wholeConn is a connection under TLS whose every Write is one to the network, if it is not too large for that.
type wholeConn struct {
	*tls.Conn
	under *gathering
}

func (c *wholeConn) Write(p []byte) (int, error) {
	c.under.begin(len(p))
	n, err := c.Conn.Write(p)
	if lost := c.under.end(); err == nil {
		err = lost
	}
	return n, err
}

// ReadFrom is how net/http writes a body: here by pieces of up to writeBytes, each as soon as it is read.
func (c *wholeConn) ReadFrom(r io.Reader) (n int64, err error) {
	buf := pieces.Get().(*[]byte)
	defer func() { clear(*buf); pieces.Put(buf) }()
	for {
		got, bad := r.Read((*buf)[:writeBytes])
		if got > 0 {
			sent, err := c.Write((*buf)[:got])
			if n += int64(sent); err != nil {
				return n, err
			}
		}
		if bad == io.EOF {
			return n, nil
		}
		if bad != nil {
			return n, bad
		}
	}
}

// pieces are memory for what is read of a body, and for what is kept of it under TLS.
var pieces = sync.Pool{New: func() any { b := make([]byte, mostKept); return &b }}

// gathering is a connection that can keep what is written to it for a while.
type gathering struct {
	net.Conn

	mu     sync.Mutex // guards what follows: TLS writes of itself too
	kept   *[]byte    // nil: nothing is to be kept
	length int        // of what is
}

func (g *gathering) begin(size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if size > tlsRecord {
		g.kept, g.length = pieces.Get().(*[]byte), 0
	}
}

// end sends what was kept.
func (g *gathering) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept == nil {
		return nil
	}
	err := g.flush()
	pieces.Put(g.kept)
	g.kept = nil
	return err
}

// flush sends what was kept; mu is held.
func (g *gathering) flush() error {
	if g.length == 0 {
		return nil
	}
	_, err := g.Conn.Write((*g.kept)[:g.length])
	g.length = 0
	return err
}

const (
	tlsRecord = 16 << 10           // the most that one record carries (RFC 8446 section 5.1)
	mostKept  = writeBytes + 4<<10 // with what each adds
)

func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept == nil {
		return g.Conn.Write(p)
	}
	if g.length+len(p) > len(*g.kept) {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	g.length += copy((*g.kept)[g.length:], p)
	return len(p), nil
}
