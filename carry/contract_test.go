package carry_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"redoubt/carry"
	"redoubt/carry/carrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDatagramsKeepTheContract(t *testing.T) {
	carrytest.Test(t, func(t *testing.T) (a, b carry.Conn) {
		server, client := nodes(t)
		listen := func(c carry.Config) (*carry.Endpoint, netip.AddrPort) {
			socket, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			e, err := carry.NewEndpoint(c, socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
			return e, socket.LocalAddr().(*net.UDPAddr).AddrPort()
		}
		eb, address := listen(carry.Config{Server: server})
		ea, _ := listen(carry.Config{})
		return open(t, func(ctx context.Context) (carry.Conn, error) { return ea.Dial(ctx, client, address) }, eb.Accept)
	})
}

func TestStreamsKeepTheContract(t *testing.T) {
	carrytest.Test(t, func(t *testing.T) (a, b carry.Conn) {
		server, client := nodes(t)
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
		return open(t, func(ctx context.Context) (carry.Conn, error) {
			return carry.DialTCP(ctx, carry.Config{}, client, dialTCP(raw.Addr().String()))
		}, l.Accept)
	})
}

func dialTCP(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", address) }
}

func open(t *testing.T, dial, accept func(context.Context) (carry.Conn, error)) (a, b carry.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	accepted := make(chan error, 1)
	go func() {
		var err error
		b, err = accept(ctx)
		accepted <- err
	}()
	a, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	return a, b
}
