package carry

import (
	"bytes"
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"testing"
	"time"
)

// some is a ticket of a peer of that number, whose certificate nobody can read again.
func some(peer byte, dialled bool, full time.Time) ticket {
	x := ticket{secret: bytes.Repeat([]byte{peer}, ticketSecretSize), dialled: dialled, peer: &x509.Certificate{Raw: []byte{peer}, NotAfter: full.Add(time.Hour)}, full: full}
	x.id[0], x.key[0] = peer, peer
	if dialled {
		x.remote = netip.MustParseAddrPort("10.0.0.2:2")
	}
	return x
}

func TestOfAPeerOneTicketOfEachSideIsKept(t *testing.T) {
	all, err := NewTickets(nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, x := range []ticket{some(1, false, now), some(2, false, now), some(1, true, now), some(1, false, now), some(1, true, now)} {
		all.put(x)
	}
	if len(all.all) != 3 {
		t.Errorf("%d tickets are kept, want those of two peers and one of the other side", len(all.all))
	}
	large := some(3, false, now)
	large.peer.Raw = make([]byte, maxPeerCert+1)
	all.put(large)
	if _, ok := all.find(large.id); ok {
		t.Error("one with a certificate that may not be kept was")
	}
}

// TestWhatThisSideDialledWithIsNotAnswered: who sends a request back to who made it has nothing of it.
func TestWhatThisSideDialledWithIsNotAnswered(t *testing.T) {
	all, err := NewTickets(nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	x := some(1, true, time.Now())
	all.put(x.copy())
	if _, ok := all.find(x.id); ok || all.take(x.id) {
		t.Error("a ticket that this side dialled with is found for who dials")
	}
	x.dialled = false
	all.put(x.copy())
	if _, ok := all.find(x.id); !ok || !all.take(x.id) || all.take(x.id) {
		t.Error("a ticket of the other side is not there, or more than once")
	}
}

func TestSecretsOfTicketsGoWithThem(t *testing.T) {
	now := time.Now()
	all, err := NewTickets(nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	nothing := make([]byte, ticketSecretSize)
	for name, end := range map[string]func(x ticket){
		"replaced": func(x ticket) { all.put(some(1, false, now)) },
		"used up":  func(x ticket) { all.take(x.id) },
		"too old":  func(x ticket) { now = now.Add(ticketLife + time.Second); all.Kept() },
		"one of too many": func(ticket) {
			for i := range maxTickets {
				y := some(2, false, now)
				y.key[1], y.key[2] = byte(i), byte(i>>8)
				all.put(y)
			}
		},
	} {
		x := some(1, false, now)
		all.put(x)
		kept, _ := all.find(x.id)
		if end(x); !bytes.Equal(x.secret, nothing) {
			t.Errorf("%s: its secret is there still", name)
		}
		if bytes.Equal(kept.secret, nothing) {
			t.Errorf("%s: who goes on with it lost its secret meanwhile", name)
		}
	}
	x := some(1, false, now)
	all.put(x)
	all.Close()
	y := some(2, false, now)
	all.put(y)
	if _, ok := all.find(y.id); ok || !bytes.Equal(x.secret, nothing) || len(all.Kept()) != 3 {
		t.Error("after the end there are secrets, or a new one")
	}
}

// TestThereIsNoShortHandshakeWithoutRoomToAcceptIt has nobody accept.
func TestThereIsNoShortHandshakeWithoutRoomToAcceptIt(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEndpoint(Config{}, c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	half := func(id connID) *resuming {
		return &resuming{endpoint: e, ticket: some(byte(id), false, time.Now()), local: id, remote: 1, began: time.Now(),
			keys: resumedKeys{client: bytes.Repeat([]byte{1}, 48), server: bytes.Repeat([]byte{2}, 48)}}
	}
	from := path{0, netip.MustParseAddrPort(c.LocalAddr().String())}
	if e.promote(half(1), from, time.Now()) == nil {
		t.Error("there was room for one")
	}
	for range acceptQueue {
		e.accepted <- nil
	}
	if e.promote(half(2), from, time.Now()) != nil || e.find(2) != nil {
		t.Error("a connection was made that nobody has room for")
	}
	for range acceptQueue {
		if _, err := e.Accept(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATicketIsBoundToBothKeys(t *testing.T) {
	a, b, c := [32]byte{1}, [32]byte{2}, [32]byte{3}
	if !bytes.Equal(bothKeys(true, a, b), bothKeys(false, b, a)) {
		t.Error("the two sides name other keys")
	}
	for _, other := range [][]byte{bothKeys(true, b, a), bothKeys(true, c, b), bothKeys(true, a, c)} {
		if bytes.Equal(other, bothKeys(true, a, b)) {
			t.Errorf("%x is of other keys, or the other way around", other)
		}
	}
}
