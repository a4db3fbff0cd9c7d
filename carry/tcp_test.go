package carry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

// listening is a listener on loopback, with an authority for those who dial.
type listening struct {
	*carry.Listener
	address   string
	authority *carrytest.Authority
}

func listenTCP(t *testing.T) listening {
	t.Helper()
	authority, err := carrytest.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server, _, err := authority.Node("b", "a", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := carry.ListenTCP(carry.Config{Server: server}, raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return listening{l, raw.Addr().String(), authority}
}

func (l listening) node(t *testing.T, name string) *tls.Config {
	t.Helper()
	_, client, err := l.authority.Node(name, "b", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// lane opens one connection by hand, as docs/spec/carry.md has it, and greets.
func (l listening) lane(t *testing.T, c *tls.Config, session string, p redoubt.Precedence) *tls.Conn {
	t.Helper()
	c = c.Clone()
	c.NextProtos = []string{"redoubt-carry-tcp/1"}
	conn, err := tls.Dial("tcp", l.address, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(append(append([]byte{1, byte(p)}, session...), 0)); err != nil {
		t.Fatal(err)
	}
	return conn
}

const sessionOne = "sixteen bytes 01"

func TestAForeignClientSpeaksTheFormatOverTCP(t *testing.T) {
	l := listenTCP(t)
	c := l.node(t, "a")
	var lanes [redoubt.Precedences]*tls.Conn
	for p := range lanes {
		lanes[p] = l.lane(t, c, sessionOne, redoubt.Precedence(p))
	}
	for _, conn := range lanes {
		if b, err := io.ReadAll(io.LimitReader(conn, 1)); err != nil || !bytes.Equal(b, []byte{1}) {
			t.Fatalf("got %x, %v, want the version", b, err)
		}
	}
	b, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lanes[redoubt.Priority].Write([]byte{0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o', 1, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if p, msg, err := b.Receive(t.Context()); err != nil || p != redoubt.Priority || string(msg) != "hello" {
		t.Errorf("got %v %q, %v", p, msg, err)
	}
	if pong, err := io.ReadAll(io.LimitReader(lanes[redoubt.Priority], 4)); err != nil || !bytes.Equal(pong, []byte{2, 0, 0, 0}) {
		t.Errorf("a ping had the answer %x, %v", pong, err)
	}
	for _, bad := range [][]byte{{0, 0x10, 0, 1}} { // a message of MaxMessage+1
		if _, err := lanes[redoubt.Routine].Write(bad); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Receive(t.Context()); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("after %x: got %v, want Unavailable", bad, err)
		}
	}
}

// TestConnectionsOfTwoPeersAreNeverOneConn: who learns another's session cannot put a connection of its own into it.
func TestConnectionsOfTwoPeersAreNeverOneConn(t *testing.T) {
	l := listenTCP(t)
	honest, other := l.node(t, "a"), l.node(t, "mallory")
	var lanes [redoubt.Precedences]*tls.Conn
	for p := range redoubt.Flash {
		lanes[p] = l.lane(t, honest, sessionOne, p)
	}
	mixed := l.lane(t, other, sessionOne, redoubt.Flash)
	if n, err := mixed.Read(make([]byte, 1)); err == nil {
		t.Errorf("another's connection was answered with %d bytes", n)
	}
	twice := l.lane(t, honest, sessionOne, redoubt.Routine)
	if n, err := twice.Read(make([]byte, 1)); err == nil {
		t.Errorf("a second connection of one precedence was answered with %d bytes", n)
	}
	lanes[redoubt.Flash] = l.lane(t, honest, sessionOne, redoubt.Flash)
	b, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Peer().Subject.CommonName; got != "a" {
		t.Errorf("the peer is %q", got)
	}
}

func TestPeersThatAreNotVerifiedAreRefusedOverTCP(t *testing.T) {
	l := listenTCP(t)
	good := l.node(t, "a")
	elsewhere := listenTCP(t).node(t, "a") // of another authority
	trusting := elsewhere.Clone()
	trusting.RootCAs = good.RootCAs
	for name, c := range map[string]*tls.Config{"a server of another authority": elsewhere, "a client of another authority": trusting} {
		if conn, err := carry.DialTCP(t.Context(), carry.Config{}, c, dialTCP(l.address)); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("%s: got %v, %v, want Unauthenticated", name, conn, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one of them was accepted: %v", err)
	}
}

func TestAKeyExchangeThatAQuantumComputerBreaksIsRefused(t *testing.T) {
	l := listenTCP(t)
	c := l.node(t, "a")
	c.NextProtos = []string{"redoubt-carry-tcp/1"}
	c.CurvePreferences = []tls.CurveID{tls.CurveP256, tls.CurveP384}
	if conn, err := tls.Dial("tcp", l.address, c); err == nil {
		conn.Close()
		t.Error("P-256 and P-384 were taken")
	}
	c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	conn, err := tls.Dial("tcp", l.address, c)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestConnectionsThatSayNothingAreLimited(t *testing.T) {
	l := listenTCP(t)
	const most = redoubt.Precedences * carry.MaxHalfOpenEach
	for i := range most + 1 {
		c, err := net.Dial("tcp", l.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i < most {
			continue
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("connection %d of one host is kept: %v", i+1, err)
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
