package carry_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
	"redoubt/faketime"
)

// bubble runs a test in fake time. Randomness is seeded too: the FIPS module's own source measures the
// machine's time, which stands still here.
func bubble(t *testing.T, test func(t *testing.T)) {
	cryptotest.SetGlobalRandom(t, 1)
	faketime.Test(t, test)
}

// pause lets time pass and everybody do what they do then.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// pair is two nodes on a network, with a Conn between them.
type pair struct {
	t            *testing.T
	network      *carrytest.Network
	socketA      *carrytest.Socket
	socketB      *carrytest.Socket
	a, b         *carry.Endpoint
	connA, connB carry.Conn
	clientTLS    *tls.Config
	serverTLS    *tls.Config
	ctx          context.Context
}

const (
	hostA = "10.0.0.1"
	hostB = "10.0.0.2"
)

// newPair dials from a to b over a road of its own in both directions.
func newPair(t *testing.T, seed uint64, road carrytest.Road) *pair {
	t.Helper()
	return newPairOver(t, seed, road, road)
}

// newPairOver has another road back than there.
func newPairOver(t *testing.T, seed uint64, there, back carrytest.Road) *pair {
	t.Helper()
	p := &pair{t: t, network: carrytest.NewNetwork(seed, there), ctx: t.Context()}
	p.network.SetOneWay(hostB, hostA, back)
	p.socketA, p.socketB = p.network.Listen(hostA+":1"), p.network.Listen(hostB+":2")
	p.serverTLS, p.clientTLS = nodes(t)
	var err error
	if p.a, err = carry.NewEndpoint(carry.Config{}, p.socketA); err != nil {
		t.Fatal(err)
	}
	if p.b, err = carry.NewEndpoint(carry.Config{Server: p.serverTLS}, p.socketB); err != nil {
		t.Fatal(err)
	}
	p.connect()
	return p
}

func (p *pair) connect() {
	p.t.Helper()
	var err error
	if p.connA, err = p.a.Dial(p.ctx, p.clientTLS, p.socketB.Addr()); err != nil {
		p.t.Fatal(err)
	}
	if p.connB, err = p.b.Accept(p.ctx); err != nil {
		p.t.Fatal(err)
	}
}

// close ends everything, and waits for what is still on the roads.
func (p *pair) close() {
	p.t.Helper()
	for _, e := range []*carry.Endpoint{p.a, p.b} {
		if err := e.Close(); err != nil {
			p.t.Error(err)
		}
	}
	p.network.Wait()
}

// nodes gives the configuration of a server "b" and of a client that dials it.
func nodes(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	authority, err := carrytest.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if server, _, err = authority.Node("b", "a", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, client, err = authority.Node("a", "b", time.Now()); err != nil {
		t.Fatal(err)
	}
	return server, client
}

var _ net.PacketConn = (*carrytest.Socket)(nil)

// message gives content that tells which it is.
func message(r *rand.Rand, p redoubt.Precedence, n uint32, size int) []byte {
	b := make([]byte, max(size, 5))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	b[0] = byte(p)
	binary.BigEndian.PutUint32(b[1:], n)
	return b
}
