package carry

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"
)

// RekeyAfter makes one side of a link move to its next key after n datagrams; it gives the epoch it is in.
func RekeyAfter(c Conn, n uint64) (epoch uint64) {
	l := c.(*link)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seal.limit = n
	return l.seal.epoch
}

// Held is what an endpoint keeps of those who have not proved who they are, and how many links it has.
func Held(e *Endpoint) (halfOpen, hosts, links int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.halfOpen), len(e.perHost), len(e.links)
}

// Limits that tests try.
const (
	MaxHalfOpen     = maxHalfOpen
	MaxHalfOpenEach = maxHalfOpenEach
	OpenSize        = openSize
	RetrySize       = retrySize
	CookieLife      = cookieLife
	HandshakeLife   = handshakeLife
	StreamWindow    = streamWindow
	AgedShare       = agedShare
)

// Opening is a first datagram; First is a fragment with the cookie of a retry, as a client sends it.
func Opening(client uint32) []byte { return encodeOpen(connID(client)) }

// First is a fragment that begins a handshake with the cookie that a retry gave; nil when it is none.
func First(retryDatagram []byte, client uint32, data []byte) []byte {
	m, ok := decodeRetry(retryDatagram)
	if !ok {
		return nil
	}
	return encodeFragment(fragment{from: connID(client), cookie: m.cookie, data: data})
}

// Buffered is what a link holds for its peer's sake, in bytes.
func Buffered(c Conn) (n int) {
	l := c.(*link)
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.in {
		n += len(l.in[p].whole)
		for _, m := range l.in[p].ready {
			n += len(m)
		}
	}
	return n
}

// Pacing is the rate a link sends at.
func Pacing(c Conn) float64 {
	l := c.(*link)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ways.best().pace.pacing()
}

const (
	OutageFloor = outageFloor
	ProbeEvery  = probeEvery
)

// ForgeLevel0 makes of a server's fragment of level 1 one of level 0 with the bytes that would be next; nil of anything else.
func ForgeLevel0(datagram []byte) []byte {
	f, ok := decodeAny(datagram)
	if !ok || f.level != levelHandshake {
		return nil
	}
	f.level, f.offset, f.data = levelInitial, 1000, bytes.Repeat([]byte{2}, 1100)
	f.have = [2]uint16{}
	first := encodeFragment(f)
	return first
}

// WearOut has a link's key seal all but the last n of what it may.
func WearOut(c Conn, n uint64) {
	l := c.(*link)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seal.sealed, l.seal.limit = mostSealed-n, mostSealed+1
}

// Limits of short handshakes.
const (
	TicketLife  = ticketLife
	TicketUses  = ticketUses
	MaxResuming = maxResuming
	MaxTickets  = maxTickets

	MaxResumes     = maxResumes
	MaxResumesEach = maxResumesEach
	MostProofs     = mostProofs
)

// MayResume asks whether one more request on a ticket of this number would be gone on with.
func MayResume(e *Endpoint, ticket byte) bool {
	return e.mayResume([ticketIDSize]byte{ticket}, e.now())
}

// TakerOfTheHalfResumed takes datagrams for the only short handshake that is answered, whatever has become of it, as a socket does that looked it up before.
func TakerOfTheHalfResumed(e *Endpoint) func(b []byte, from netip.AddrPort) {
	s := e.halfResumed()[0]
	return func(b []byte, from netip.AddrPort) { s.deliver(b, path{0, from}) }
}

// HalfResumed is how many short handshakes are answered whose client is not heard yet.
func HalfResumed(e *Endpoint) int { return len(e.halfResumed()) }

// FullTickets has a ticket of each certificate, one more than are kept.
func FullTickets(t *testing.T, certificates [][]byte) *Tickets {
	t.Helper()
	all, err := NewTickets(nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i, cert := range certificates {
		peer, err := x509.ParseCertificate(cert)
		if err != nil {
			t.Fatal(err)
		}
		x := ticket{secret: bytes.Repeat([]byte{byte(i)}, ticketSecretSize), peer: peer, key: keyDigest(peer), full: time.Now()}
		x.id[0], x.id[1] = byte(i>>8), byte(i)
		all.put(x.copy())
		all.put(x) // the same peer again takes no more room
	}
	if _, ok := all.find([ticketIDSize]byte{}); ok || len(all.all) != maxTickets {
		t.Errorf("%d tickets are kept, the oldest among them: %v", len(all.all), ok)
	}
	return all
}
