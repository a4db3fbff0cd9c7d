package carry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

// returning is two nodes that keep their tickets, and are restarted between one meeting and the next.
type returning struct {
	*pair
	port int
	kept [2][]byte // of who dials, and who is dialled
	live [2]*carry.Tickets
	now  func() time.Time
	road carry.Road // as who dials knows it

	mu     sync.Mutex // of what the taps see
	said   [256]int   // datagrams of each kind
	bytes  int
	sentBy [2][][]byte
}

// saw is how many datagrams of a kind there were.
func (r *returning) saw(kind byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said[kind]
}

// sent is what they sent together, and what who dials did.
func (r *returning) sent() (n int, dialled [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes, slices.Clone(r.sentBy[0])
}

// tap sees what a socket sends, and has it counted. see runs with mu held.
func (r *returning) tap(side int, see func(b []byte, to netip.AddrPort)) {
	[2]*carrytest.Socket{r.socketA, r.socketB}[side].Tap(func(b []byte, to netip.AddrPort) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said[b[0]]++
		r.bytes += len(b) + carrytest.IPOverhead
		r.sentBy[side] = append(r.sentBy[side], bytes.Clone(b))
		see(b, to)
	})
}

const shake, resume, resumed, retried = 0x03, 0x05, 0x06, 0x02

func newReturning(t *testing.T, road carrytest.Road) *returning {
	t.Helper()
	p := &pair{t: t, network: carrytest.NewNetwork(7, road), ctx: t.Context()}
	p.serverTLS, p.clientTLS = nodes(t)
	return &returning{pair: p, now: time.Now}
}

// begin sets both going with what was kept, and nothing of what was before.
func (r *returning) begin() {
	r.t.Helper()
	r.port++
	r.socketA = r.network.Listen(netip.AddrPortFrom(netip.MustParseAddr(hostA), uint16(100+r.port)).String())
	r.socketB = r.network.Listen(hostB + ":2")
	r.said, r.bytes, r.sentBy = [256]int{}, 0, [2][][]byte{}
	for i := range r.live {
		r.tap(i, func([]byte, netip.AddrPort) {})
		var err error
		if r.live[i], err = carry.NewTickets(r.kept[i], r.now); err != nil {
			r.t.Fatal(err)
		}
	}
	var err error
	if r.a, err = carry.NewEndpoint(carry.Config{Tickets: r.live[0], Now: r.now, Recall: func(*x509.Certificate) carry.Road { return r.road }}, r.socketA); err != nil {
		r.t.Fatal(err)
	}
	if r.b, err = carry.NewEndpoint(carry.Config{Server: r.serverTLS, Tickets: r.live[1], Now: r.now}, r.socketB); err != nil {
		r.t.Fatal(err)
	}
}

// meet has them meet, and say something to one another.
func (r *returning) meet() {
	r.t.Helper()
	r.connect()
	r.crosses("there")
	if err := r.connB.Send(r.ctx, redoubt.Routine, []byte("back")); err != nil {
		r.t.Fatal(err)
	}
	if _, msg, err := r.connA.Receive(r.ctx); err != nil || string(msg) != "back" {
		r.t.Fatalf("got %q, %v", msg, err)
	}
}

// end takes both away, with what they keep.
func (r *returning) end() {
	r.t.Helper()
	r.pair.close()
	r.kept = [2][]byte{r.live[0].Kept(), r.live[1].Kept()}
}

// again is begin, meet and end, and tells whether the handshake was short.
func (r *returning) again() (short bool) {
	r.t.Helper()
	r.begin()
	r.meet()
	r.end()
	return r.saw(resumed) > 0 && r.saw(shake) == 0
}

// met are two that have met once.
func met(t *testing.T, test func(t *testing.T, r *returning)) {
	bubble(t, func(t *testing.T) {
		r := newReturning(t, slow)
		if r.again() {
			t.Fatal("who never met had a short handshake")
		}
		test(t, r)
	})
}

func TestWhoHasMetBeforeMeetsInOneRoundTripAndFewBytes(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		first := r.connA.Peer()
		r.road = carry.Road{BytesPerSec: 32_000, DatagramBytes: 1472}
		for range 5 {
			r.begin()
			began := time.Now()
			r.connect()
			if took := time.Since(began); took > 600*time.Millisecond {
				t.Errorf("it took %v at a round trip of 300 ms until the other side had it", took)
			}
			if n, _ := r.sent(); r.saw(shake) > 0 || n > 500 {
				t.Errorf("it took %d bytes, %d datagrams of a full handshake", n, r.saw(shake))
			}
			if !r.connA.Peer().Equal(first) || !r.connB.Peer().Equal(mustParse(t, r.clientTLS)) {
				t.Error("the certificates are not those that were proved")
			}
			if rtt := r.connA.Stats().RTT; rtt > 350*time.Millisecond {
				t.Errorf("it begins with a round trip of %v", rtt)
			}
			r.crosses("there")
			r.end()
		}
	})
}

func mustParse(t *testing.T, c *tls.Config) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestAShortHandshakeComesThroughLossesAndOutages(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		lossy := carrytest.LinkC
		lossy.Loss = 0.3
		r.network.SetRoad(hostA, hostB, lossy)
		for i := range 20 {
			pause(time.Duration(i) * 3 * time.Second)
			r.begin()
			r.meet()
			if r.saw(resumed) == 0 && r.saw(resume) > 5 || r.saw(resume) > 8 {
				t.Errorf("meeting %d: %d requests, %d answers", i, r.saw(resume), r.saw(resumed))
			}
			r.end()
		}
	})
}

// TestWhereAShortHandshakeDoesNotPassAFullOneDoes loses either of its datagrams, and no other.
func TestWhereAShortHandshakeDoesNotPassAFullOneDoes(t *testing.T) {
	for _, kind := range []byte{resume, resumed} {
		met(t, func(t *testing.T, r *returning) {
			r.begin()
			for _, s := range []*carrytest.Socket{r.socketA, r.socketB} {
				s.Lose(func(b []byte) bool { return b[0] == kind })
			}
			ctx, stop := context.WithTimeout(r.ctx, 20*time.Second)
			defer stop()
			var err error
			if r.connA, err = r.a.Dial(ctx, r.clientTLS, r.socketB.Addr()); err != nil {
				t.Fatalf("where datagrams of kind %d are lost: %v", kind, err)
			}
			if r.connB, err = r.b.Accept(r.ctx); err != nil {
				t.Fatal(err)
			}
			r.crosses("in full")
			r.end()
			if !r.again() {
				t.Error("that left no ticket")
			}
		})
	}
}

// TestATicketIsUsedOnce restores what one side had kept before the last meeting.
func TestATicketIsUsedOnce(t *testing.T) {
	for side, who := range []string{"who dials", "who is dialled"} {
		met(t, func(t *testing.T, r *returning) {
			before := bytes.Clone(r.kept[side])
			if !r.again() {
				t.Fatal("the second handshake was not short")
			}
			r.kept[side] = before
			if r.again() {
				t.Errorf("with the disk of %s restored a ticket was used twice", who)
			}
			if !r.again() {
				t.Errorf("after that they met in full, and the next time again (%s)", who)
			}
		})
	}
}

func TestAShortHandshakeAsksOfAPeerWhatAFullOneAsks(t *testing.T) {
	revoked := errors.New("its link has ended")
	for name, revoke := range map[string]func(r *returning){
		"the server takes the client no more": func(r *returning) { r.serverTLS.VerifyConnection = func(tls.ConnectionState) error { return revoked } },
		"the client takes the server no more": func(r *returning) { r.clientTLS.VerifyConnection = func(tls.ConnectionState) error { return revoked } },
		"another authority of the server's":   func(r *returning) { r.serverTLS.ClientCAs = x509.NewCertPool() },
		"another authority of the client's":   func(r *returning) { r.clientTLS.RootCAs = x509.NewCertPool() },
		"another name":                        func(r *returning) { r.clientTLS.ServerName = "somebody" },
		"the raw certificate": func(r *returning) {
			r.serverTLS.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return revoked }
		},
	} {
		met(t, func(t *testing.T, r *returning) {
			revoke(r)
			r.begin()
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			if _, err := r.a.Dial(ctx, r.clientTLS, r.socketB.Addr()); !errors.Is(err, redoubt.Unauthenticated) {
				t.Errorf("%s: got %v, want Unauthenticated", name, err)
			}
			if r.saw(resumed) > 0 {
				t.Errorf("%s: the short handshake went on", name)
			}
			r.end()
		})
	}
}

// TestATicketEndsWithAgeUseAndCertificates also turns the clock back.
func TestATicketEndsWithAgeUseAndCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		later time.Duration
		short bool
	}{
		"a day later":               {carry.TicketLife - time.Minute, true},
		"more than a day later":     {carry.TicketLife + time.Minute, false},
		"before it was made":        {-time.Hour, false},
		"nothing is moved":          {0, true},
		"just before it was made":   {-time.Minute, false},
		"as long as clocks tremble": {-500 * time.Millisecond, true},
	} {
		met(t, func(t *testing.T, r *returning) {
			r.now = func() time.Time { return time.Now().Add(c.later) }
			if got := r.again(); got != c.short {
				t.Errorf("%s: short %v, want %v", name, got, c.short)
			}
		})
	}
	bubble(t, func(t *testing.T) {
		r := newReturning(t, carrytest.Road{Delay: time.Millisecond})
		r.again()
		n := 0
		for r.again() {
			n++
		}
		if n != carry.TicketUses {
			t.Errorf("one full handshake was gone on from %d times, want %d", n, carry.TicketUses)
		}
	})
}

func TestATicketIsOfOneKeyOnEitherSide(t *testing.T) {
	for name, change := range map[string]func(r *returning, server, client *tls.Config){
		"the client has another key": func(r *returning, _, client *tls.Config) { r.clientTLS.Certificates = client.Certificates },
		"the server has another key": func(r *returning, server, _ *tls.Config) { r.serverTLS.Certificates = server.Certificates },
	} {
		met(t, func(t *testing.T, r *returning) {
			server, client := nodes(t)
			change(r, server, client)
			anybody := func(tls.ConnectionState) error { return nil }
			r.clientTLS.InsecureSkipVerify, r.clientTLS.VerifyConnection = true, anybody
			r.serverTLS.ClientAuth, r.serverTLS.VerifyConnection = tls.RequireAnyClientCert, anybody
			if r.again() {
				t.Errorf("%s: the handshake was short", name)
			}
		})
	}
}

// TestReplayedRequestsMakeNothing records a short handshake and repeats it from elsewhere, before the ticket is used up and after.
func TestReplayedRequestsMakeNothing(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		r.begin()
		thief := r.network.Listen("10.0.9.9:9")
		var asked, answered int
		var ids [][]byte
		r.tap(1, func(b []byte, to netip.AddrPort) {
			if to == thief.Addr() {
				answered += len(b)
				ids = append(ids, bytes.Clone(b[6:10]))
			}
		})
		var request []byte
		r.tap(0, func(b []byte, _ netip.AddrPort) {
			if b[0] == resume {
				request = bytes.Clone(b)
			}
		})
		replay := func(n int) {
			r.mu.Lock()
			again := request
			r.mu.Unlock()
			for range n {
				asked += len(again)
				r.network.Inject(again, thief.Addr(), r.socketB.Addr())
			}
			pause(time.Second)
		}
		dialled := make(chan error, 1)
		cut := slow
		cut.Blocked = true
		r.network.SetOneWay(hostB, hostA, cut) // the client hears nothing yet
		go func() {
			var err error
			r.connA, err = r.a.Dial(r.ctx, r.clientTLS, r.socketB.Addr())
			dialled <- err
		}()
		pause(200 * time.Millisecond)
		replay(100)
		if half, _, links := carry.Held(r.b); half > 0 || links > 2 {
			t.Errorf("replays left %d handshakes and %d connection IDs", half, links)
		}
		r.mu.Lock()
		seen := slices.Clone(ids)
		r.mu.Unlock()
		for _, id := range seen { // to which the thief seals nothing that opens
			r.network.Inject(append(append([]byte{0x40}, id...), make([]byte, 60)...), thief.Addr(), r.socketB.Addr())
		}
		pause(time.Second)
		r.network.SetOneWay(hostB, hostA, slow)
		if err := <-dialled; err != nil {
			t.Fatal(err)
		}
		var err error
		if r.connB, err = r.b.Accept(r.ctx); err != nil {
			t.Fatal(err)
		}
		replay(100)
		r.mu.Lock()
		if answered > asked {
			t.Errorf("%d bytes were asked and %d answered: that amplifies", asked, answered)
		}
		r.mu.Unlock()
		if _, _, links := carry.Held(r.b); links != 1 || r.saw(shake) > 0 {
			t.Errorf("there are %d connections, want the one; %d fragments of a full handshake", links, r.saw(shake))
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if _, err := r.b.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a replay was accepted: %v", err)
		}
		r.crosses("as before")
		r.end()
	})
}

// TestWhoHasNoSecretLearnsNothing compares the answers to a ticket that is not there, one that is and is not proved, and one whose peer is
// taken no more.
func TestWhoHasNoSecretLearnsNothing(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		r.begin()
		cut := slow
		cut.Blocked = true
		r.network.SetOneWay(hostB, hostA, cut)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		_, _ = r.a.Dial(ctx, r.clientTLS, r.socketB.Addr())
		stop()
		var request []byte
		_, sent := r.sent()
		for _, b := range sent {
			if b[0] == resume {
				request = b
			}
		}
		if request == nil {
			t.Fatal("no request was made")
		}
		r.end()
		thief := r.network.Listen("10.0.9.9:9")
		try := func(b []byte) (answers [][]byte) {
			r.tap(1, func(b []byte, to netip.AddrPort) {
				if to == thief.Addr() {
					answers = append(answers, bytes.Clone(b))
				}
			})
			r.network.Inject(b, thief.Addr(), r.socketB.Addr())
			pause(time.Second)
			r.mu.Lock()
			defer r.mu.Unlock()
			return answers
		}
		r.begin()
		if got := try(request); len(got) != 1 || got[0][0] != resumed {
			t.Errorf("what was recorded is answered with %x", got)
		}
		for i := range request[6:] {
			bad := bytes.Clone(request)
			bad[6+i] ^= 1
			if got := try(bad); len(got) != 1 || got[0][0] != retried || len(got[0]) != carry.RetrySize {
				t.Errorf("with byte %d changed the answer is %x, want a cookie", 6+i, got)
			}
		}
		for _, bad := range [][]byte{request[:len(request)-1], append(bytes.Clone(request), 0), append([]byte{resume, 2}, request[2:]...), append([]byte{resume, 1, 0, 0, 0, 0}, request[6:]...)} {
			if got := try(bad); len(got) > 0 {
				t.Errorf("%d bytes of version %d are answered", len(bad), bad[1])
			}
		}
		r.end()
		r.serverTLS.VerifyConnection = func(tls.ConnectionState) error { return errors.New("revoked") }
		r.begin()
		if got := try(request); len(got) != 1 || got[0][0] != retried {
			t.Errorf("whose link has ended is answered with %x, want a cookie", got)
		}
		if _, _, links := carry.Held(r.b); links > 0 {
			t.Errorf("%d connection IDs are held", links)
		}
		r.end()
	})
}

// TestWhoIsHeardTooLateMeetsAnew loses all that the client seals for longer than a handshake may take, or until it may not be taken any more.
func TestWhoIsHeardTooLateMeetsAnew(t *testing.T) {
	for name, c := range map[string]struct {
		lost    time.Duration
		revoked bool
		want    error
	}{"late": {carry.HandshakeLife + time.Second, false, nil}, "revoked meanwhile": {10 * time.Second, true, redoubt.Unauthenticated}} {
		met(t, func(t *testing.T, r *returning) {
			var revoked, lost atomic.Bool
			r.serverTLS.VerifyConnection = func(tls.ConnectionState) error {
				if revoked.Load() {
					return errors.New("its link has ended")
				}
				return nil
			}
			r.begin()
			lost.Store(true)
			r.socketA.Lose(func(b []byte) bool { return lost.Load() && b[0]&^1 == 0x40 })
			first, err := r.a.Dial(r.ctx, r.clientTLS, r.socketB.Addr())
			if err != nil || r.saw(resumed) == 0 {
				t.Fatalf("%s: %v", name, err)
			}
			pause(c.lost)
			lost.Store(false)
			revoked.Store(c.revoked)
			ctx, stop := context.WithTimeout(r.ctx, time.Minute)
			defer stop()
			if _, _, err := first.Receive(ctx); !errors.Is(err, redoubt.Unavailable) {
				t.Errorf("%s: the first connection goes on: %v", name, err)
			}
			if _, err := r.a.Dial(ctx, r.clientTLS, r.socketB.Addr()); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
			r.end()
		})
	}
}

// TestAForgedAnswerIsPassedOver injects answers that are not the server's; a forged refusal leads to the full handshake, and no lower.
func TestAForgedAnswerIsPassedOver(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		r.begin()
		r.tap(1, func(b []byte, to netip.AddrPort) {
			if b[0] == resumed {
				for i := 0; i < len(b); i += 4 {
					bad := bytes.Clone(b)
					bad[i] ^= 1
					r.network.Inject(bad, r.socketB.Addr(), to)
				}
			}
		})
		r.meet()
		if r.saw(resumed) == 0 || r.saw(shake) > 0 {
			t.Error("forged answers ended the short handshake")
		}
		r.end()
		r.begin()
		r.tap(1, func(b []byte, to netip.AddrPort) {
			for i := 0; b[0] == resumed && i < carry.MostProofs; i++ {
				bad := bytes.Clone(b)
				bad[len(b)-1] ^= byte(i + 1)
				r.network.Inject(bad, r.socketB.Addr(), to)
			}
		})
		r.meet()
		if r.saw(shake) == 0 {
			t.Error("more forged answers were looked at than may be")
		}
		r.end()
		r.begin()
		r.tap(0, func(b []byte, to netip.AddrPort) {
			if b[0] == resume {
				forged := append([]byte{retried, 1}, b[2:6]...)
				r.network.Inject(append(forged, make([]byte, 24)...), to, r.socketA.Addr())
			}
		})
		ctx, stop := context.WithTimeout(r.ctx, 5*time.Minute)
		defer stop()
		if _, err := r.a.Dial(ctx, r.clientTLS, r.socketB.Addr()); err != nil {
			t.Logf("with every refusal forged: %v", err) // who can do this can keep any handshake from its end
		}
		if r.saw(shake) == 0 {
			t.Error("a refusal did not lead to the full handshake")
		}
		r.end()
	})
}

// TestRequestsOfOneTicketAreLimited asks under many connection IDs and never goes on.
func TestRequestsOfOneTicketAreLimited(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		for range 3 { // each attempt makes new ones
			r.begin()
			kept := r.kept
			cut := slow
			cut.Blocked = true
			r.network.SetOneWay(hostB, hostA, cut)
			for range 20 {
				ctx, stop := context.WithTimeout(t.Context(), 700*time.Millisecond)
				_, _ = r.a.Dial(ctx, r.clientTLS, r.socketB.Addr())
				stop()
			}
			if _, _, links := carry.Held(r.b); links > carry.MaxResuming {
				t.Errorf("%d connection IDs are held for one ticket, at most %d may be", links, carry.MaxResuming)
			}
			pause(carry.HandshakeLife)
			ctx, stop := context.WithTimeout(t.Context(), 400*time.Millisecond)
			_, _ = r.a.Dial(ctx, r.clientTLS, r.socketB.Addr())
			stop()
			if _, _, links := carry.Held(r.b); links != 1 {
				t.Errorf("%d connection IDs are held of handshakes that were begun too long ago, and of one", links)
			}
			r.network.SetOneWay(hostB, hostA, slow)
			r.end()
			r.kept = kept
		}
		if !r.again() {
			t.Error("what was asked and not gone on with used the ticket up")
		}
	})
}

func TestTicketsOfTheOldestPeersMakeRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		authority, err := carrytest.NewAuthority(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var certificates [][]byte
		for range carry.MaxTickets + 1 {
			server, _, err := authority.Node("x", "y", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			certificates = append(certificates, server.Certificates[0].Certificate[0])
		}
		tickets := carry.FullTickets(t, certificates)
		kept := tickets.Kept()
		again, err := carry.NewTickets(kept, time.Now)
		if err != nil || !bytes.Equal(again.Kept(), kept) {
			t.Errorf("what was kept is read as something else: %v", err)
		}
		for _, bad := range [][]byte{kept[:len(kept)-1], append(bytes.Clone(kept), 0), append([]byte{9}, kept[1:]...)} {
			if _, err := carry.NewTickets(bad, time.Now); !errors.Is(err, redoubt.Corrupt) {
				t.Errorf("%d bytes were taken for tickets: %v", len(bad), err)
			}
		}
	})
}

// TestNothingGoesWhereThePeerWasNotProvedToBe has what the client sends first come from elsewhere, or the answer go to two addresses and what the client
// sends first come from that where it is not; much waits to be sent.
func TestNothingGoesWhereThePeerWasNotProvedToBe(t *testing.T) {
	for _, asked := range []bool{false, true} {
		met(t, func(t *testing.T, r *returning) {
			r.begin()
			stranger := r.network.Listen("10.0.9.9:9")
			var moved, stopped atomic.Bool
			var toStranger, injected int
			r.tap(0, func(b []byte, to netip.AddrPort) {
				if b[0] == resume && asked {
					r.network.Inject(b, stranger.Addr(), to)
				}
			})
			r.socketA.Lose(func(b []byte) bool {
				if b[0]&^1 != 0x40 || stopped.Load() {
					return false
				}
				if !moved.Swap(true) {
					injected = len(b)
					r.network.Inject(b, stranger.Addr(), r.socketB.Addr())
				}
				return true
			})
			r.tap(1, func(b []byte, to netip.AddrPort) {
				if to == stranger.Addr() && b[0]&^1 == 0x40 {
					toStranger += len(b)
				}
			})
			r.connect()
			if err := r.connB.Send(r.ctx, redoubt.Routine, make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			pause(3 * time.Second)
			r.mu.Lock()
			if injected == 0 || toStranger == 0 || toStranger > 3*injected {
				t.Errorf("asked %v: %d bytes came from elsewhere and %d went there", asked, injected, toStranger)
			}
			r.mu.Unlock()
			stopped.Store(true)
			if _, msg, err := r.connA.Receive(r.ctx); err != nil || len(msg) != 100_000 {
				t.Errorf("asked %v: got %d bytes, %v", asked, len(msg), err)
			}
			r.end()
		})
	}
}

// TestWhoIsProvedIsSentAtOnce has the side that was dialled answer without a further round trip.
func TestWhoIsProvedIsSentAtOnce(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		r.begin()
		began := time.Now()
		r.connect()
		if err := r.connB.Send(r.ctx, redoubt.Routine, []byte("at once")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.connA.Receive(r.ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 750*time.Millisecond {
			t.Errorf("it took %v at a round trip of 300 ms", took)
		}
		r.end()
	})
}

// unheard dials n times while no answer comes through, and gives the requests that were made.
func (r *returning) unheard(n int) (requests [][]byte) {
	r.t.Helper()
	cut := slow
	cut.Blocked = true
	r.network.SetOneWay(hostB, hostA, cut)
	defer r.network.SetOneWay(hostB, hostA, slow)
	for range n {
		ctx, stop := context.WithTimeout(r.ctx, 400*time.Millisecond)
		_, _ = r.a.Dial(ctx, r.clientTLS, r.socketB.Addr())
		stop()
	}
	_, sent := r.sent()
	for _, b := range sent {
		if b[0] == resume {
			requests = append(requests, b)
		}
	}
	if len(requests) < n {
		r.t.Fatalf("%d requests were made, want %d", len(requests), n)
	}
	return requests
}

// nextSecond lets time pass until limits of a second are as if nothing had been.
func nextSecond() { pause(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) }

// TestWhoRepeatsRequestsTakesNobodyTheirs repeats one from everywhere, and then asks too often on one ticket and on all.
func TestWhoRepeatsRequestsTakesNobodyTheirs(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		var verified atomic.Int64
		r.serverTLS.VerifyConnection = func(tls.ConnectionState) error { verified.Add(1); return nil }
		r.begin()
		request := r.unheard(1)[0]
		nextSecond()
		for i := range byte(2 * carry.MaxResumes) {
			r.network.Inject(request, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 9, i}), 9), r.socketB.Addr())
		}
		pause(250 * time.Millisecond) // the road is slow for who dials
		r.connect()
		if r.saw(shake) > 0 || r.saw(resumed) <= 2*carry.MaxResumes || verified.Load() > 5 {
			t.Errorf("a request that was repeated took another its short handshake: %d answers, its peer verified %d times", r.saw(resumed), verified.Load())
		}
		r.crosses("there")
		r.end()
	})
	for name, tickets := range map[string]int{"one": 1, "many": 100} {
		met(t, func(t *testing.T, r *returning) {
			r.begin()
			nextSecond()
			allowed := 0
			for i := range 3 * carry.MaxResumes {
				if carry.MayResume(r.b, byte(i%tickets)) {
					allowed++
				}
			}
			if want := min(tickets*carry.MaxResumesEach, carry.MaxResumes); allowed != want {
				t.Errorf("%s: %d requests of a second are gone on with, want %d", name, allowed, want)
			}
			r.connect()
			if short := r.saw(resumed) > 0; short != (tickets == 1) || short == (r.saw(shake) > 0) {
				t.Errorf("beside requests on %s: %d answers, %d datagrams of a full handshake", name, r.saw(resumed), r.saw(shake))
			}
			r.end()
			nextSecond()
			if !r.again() {
				t.Errorf("%s: a second later it is too much still", name)
			}
		})
	}
}

// TestWhatIsUnderWayIsNotEndedByWhatComesLater makes more requests on a ticket than are kept.
func TestWhatIsUnderWayIsNotEndedByWhatComesLater(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		r.begin()
		requests := r.unheard(carry.MaxResuming + 2)
		if n := r.saw(retried); r.saw(resumed) != carry.MaxResuming || n != 2 {
			t.Errorf("%d were gone on with and %d sent to the full handshake", r.saw(resumed), n)
		}
		thief, got := r.network.Listen("10.0.9.9:9"), []byte(nil)
		r.tap(1, func(b []byte, to netip.AddrPort) {
			if to == thief.Addr() {
				got = append(got, b[0])
			}
		})
		r.network.Inject(requests[0], thief.Addr(), r.socketB.Addr())
		pause(time.Second)
		r.mu.Lock()
		if !bytes.Equal(got, []byte{resumed}) {
			t.Errorf("the first is answered with %x", got)
		}
		r.mu.Unlock()
		pause(carry.HandshakeLife)
		if _, _, links := carry.Held(r.b); links > 0 || carry.HalfResumed(r.b) > 0 {
			t.Errorf("%d connection IDs and %d handshakes are held that nobody goes on with", links, carry.HalfResumed(r.b))
		}
		r.end()
	})
}

// TestATicketServesWhereItsPeerWasMet has the same peer be dialled elsewhere.
func TestATicketServesWhereItsPeerWasMet(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		r.begin()
		r.socketB.Move(hostB + ":3")
		r.meet()
		r.end()
		if r.saw(resume) > 0 || r.saw(shake) == 0 {
			t.Error("a ticket was shown to who is elsewhere")
		}
	})
}

// TestTwoSocketsThatBringTheFirstDatagramMakeOneConnection has each have looked up the handshake before the other's came.
func TestTwoSocketsThatBringTheFirstDatagramMakeOneConnection(t *testing.T) {
	met(t, func(t *testing.T, r *returning) {
		r.begin()
		var first []byte
		r.socketA.Lose(func(b []byte) bool {
			lost := b[0]&^1 == 0x40 && first == nil
			if lost {
				first = bytes.Clone(b)
			}
			return lost
		})
		var err error
		if r.connA, err = r.a.Dial(r.ctx, r.clientTLS, r.socketB.Addr()); err != nil {
			t.Fatal(err)
		}
		take := carry.TakerOfTheHalfResumed(r.b)
		pause(10 * time.Millisecond)
		if first == nil {
			t.Fatal("nothing came first")
		}
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { take(first, r.socketA.Addr()) })
		}
		both.Wait()
		if r.connB, err = r.b.Accept(r.ctx); err != nil {
			t.Fatal(err)
		}
		if _, _, links := carry.Held(r.b); links != 1 {
			t.Errorf("there are %d connections", links)
		}
		r.crosses("there")
		if r.saw(0x04) > 0 || r.saw(shake) > 0 {
			t.Error("it was said that there is no such connection")
		}
		r.end()
	})
}
