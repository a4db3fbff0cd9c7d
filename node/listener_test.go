package node

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"redoubt/estate"
	"redoubt/keys"
)

func TestASlowClientIsCutAndASlowLinkIsNot(t *testing.T) {
	server, client := net.Pipe()
	defer client.Close()
	c := &steadyConn{Conn: server}
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a bound in the past: got %v, want it kept", err)
	}
	c.SetReadDeadline(time.Time{})
	go client.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

// sent is a connection that keeps each write to it.
type sent struct {
	net.Conn
	writes []string
}

func (s *sent) Write(p []byte) (int, error) {
	s.writes = append(s.writes, string(p))
	return len(p), nil
}

func (s *sent) SetWriteDeadline(time.Time) error { return nil }

func TestWhatAConnectionGathersGoesOutInOnePieceAndInOrder(t *testing.T) {
	out := new(sent)
	c := &steadyConn{Conn: out}
	write := func(s string) {
		t.Helper()
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	want := func(writes ...string) {
		t.Helper()
		if !slices.Equal(out.writes, writes) {
			t.Fatalf("got %d writes %.60q, want %d", len(out.writes), out.writes, len(writes))
		}
	}
	write("first ")
	want("first ")
	c.Gather()
	c.Gather()
	write("head ")
	write("body ")
	want("first ")
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	want("first ", "head body ")
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	write("last")
	want("first ", "head body ", "last")

	out.writes = nil
	c.Gather()
	full, more := strings.Repeat("x", maxGathered), "y"
	write(full)
	want()
	write(more) // one byte over what is kept
	want(full, more)
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	want(full, more)
}

// slowly is a connection on which a write moves so many bytes until its deadline.
type slowly struct {
	sent
	moves []int
	arms  int
}

func (s *slowly) SetWriteDeadline(time.Time) error { s.arms++; return nil }

func (s *slowly) Write(p []byte) (int, error) {
	if len(s.moves) == 0 {
		return s.sent.Write(p)
	}
	n := s.moves[0]
	s.moves = s.moves[1:]
	_, _ = s.sent.Write(p[:n])
	return n, os.ErrDeadlineExceeded
}

func TestAWriteHasAsLongAsBytesMove(t *testing.T) {
	out := &slowly{moves: []int{3, 1, 2}}
	c := &steadyConn{Conn: out}
	if n, err := c.Write([]byte("0123456789")); n != 10 || err != nil || strings.Join(out.writes, "|") != "012|3|45|6789" || out.arms != 4 {
		t.Errorf("got %d, %v: %q with %d deadlines", n, err, out.writes, out.arms)
	}
	out.writes, out.moves = nil, []int{2, 0}
	if n, err := c.Write([]byte("0123456789")); n != 2 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("where nothing moves: got %d, %v", n, err)
	}
	out.moves = []int{2}
	if err := c.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write([]byte("0123456789")); n != 2 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("beyond a bound that was set: got %d, %v", n, err)
	}
}

// tallying accepts connections whose writes it counts.
type tallying struct {
	net.Listener
	writes atomic.Int64
}

func (l *tallying) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &tallied{c, l}, err
}

type tallied struct {
	net.Conn
	l *tallying
}

func (c *tallied) Write(p []byte) (int, error) {
	c.l.writes.Add(1)
	return c.Conn.Write(p)
}

func TestAChunkOfAnAnswerOverTLSLeavesByOneWrite(t *testing.T) {
	dir := t.TempDir()
	ring, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	a, err := openAuthority(dir, ring, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const chunks = 40
	l := &tallying{Listener: inner}
	var before int64
	f, err := newFace(l, estate.Listener{Listen: inner.Addr().String()}, a, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			t.Error("a request over TLS does not look like one")
		}
		before = l.writes.Load()
		for i := range chunks {
			if n, err := w.Write(bytes.Repeat([]byte{byte(i)}, keys.ChunkBytes)); n != keys.ChunkBytes || err != nil {
				t.Errorf("got %d, %v", n, err)
			}
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte("end"))
	}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go f.serve()
	defer f.stop(t.Context())
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	res, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}).Get(f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || len(got) != chunks*keys.ChunkBytes+3 || !bytes.HasSuffix(got, []byte("end")) {
		t.Errorf("%d bytes came: %v", len(got), err)
	}
	for i := range min(chunks, len(got)/keys.ChunkBytes) {
		if chunk := got[i*keys.ChunkBytes : (i+1)*keys.ChunkBytes]; bytes.Count(chunk, []byte{byte(i)}) != len(chunk) {
			t.Errorf("chunk %d is another", i)
		}
	}
	if n := l.writes.Load() - before; n > chunks+4 { // and the end, and what is flushed
		t.Errorf("%d chunks left by %d writes", chunks, n)
	}
}
