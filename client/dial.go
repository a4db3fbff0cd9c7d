package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"time"
)

const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 10 * time.Second
	writeBytes       = 256 << 10 // of a body, to one write
)

// dialTLS dials for an http.Transport. What is written at once leaves at once: TLS makes a record of each 16 KiB, and who reads is woken by each that is sent.
func dialTLS(roots *x509.CertPool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dialer.DialContext(ctx, network, addr)
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

// gathering is a connection that can keep what is written to it for a while.
type gathering struct {
	net.Conn

	mu   sync.Mutex // guards what follows: TLS writes of itself too
	kept []byte
	on   bool
}

func (g *gathering) begin(size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on = size > tlsRecord
}

// end sends what was kept.
func (g *gathering) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on = false
	return g.flush()
}

// flush sends what was kept; mu is held.
func (g *gathering) flush() error {
	if len(g.kept) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.kept)
	g.kept = g.kept[:0]
	return err
}

const (
	tlsRecord = 16 << 10           // the most that one record carries (RFC 8446 section 5.1)
	mostKept  = writeBytes + 4<<10 // with what each adds
)

func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.on {
		return g.Conn.Write(p)
	}
	if len(g.kept)+len(p) > mostKept {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	g.kept = append(g.kept, p...)
	return len(p), nil
}
