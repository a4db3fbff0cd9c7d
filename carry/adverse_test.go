package carry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

var quick = carrytest.Road{BitsPerSec: 20e6, Delay: 20 * time.Millisecond, QueueBytes: 200_000}

// inFakeTime runs a test on a pair over a road.
func inFakeTime(t *testing.T, road carrytest.Road, test func(t *testing.T, p *pair)) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, 7, road)
		defer p.close()
		test(t, p)
	})
}

// crosses sends one message from a to b and looks that it is the next to arrive.
func (p *pair) crosses(text string) {
	p.t.Helper()
	if err := p.connA.Send(p.ctx, redoubt.Priority, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Minute)
	defer cancel()
	if _, msg, err := p.connB.Receive(ctx); err != nil || string(msg) != text {
		p.t.Fatalf("got %q, %v, want %q", msg, err, text)
	}
}

func TestKeysChangeWithoutAnybodyNoticing(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		carry.RekeyAfter(p.connA, 5)
		carry.RekeyAfter(p.connB, 5)
		for range 40 {
			p.crosses("under one key or another")
			pause(100 * time.Millisecond)
		}
		for _, c := range []carry.Conn{p.connA, p.connB} {
			if epoch := carry.RekeyAfter(c, 5); epoch < 3 {
				t.Errorf("40 messages at 5 datagrams a key: epoch %d", epoch)
			}
		}
		if lost := p.connA.Stats().Lost; lost != 0 {
			t.Errorf("%d datagrams were lost on a road that loses none", lost)
		}
	})
}

func TestNoKeySealsMoreThanItMay(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		carry.WearOut(p.connA, 20)
		if err := p.connA.Send(p.ctx, redoubt.Routine, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
		defer cancel()
		if _, _, err := p.connA.Receive(ctx); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("got %v, want Unavailable", err)
		}
	})
}

func TestReplayedDatagramsChangeNothing(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		var seen [][]byte
		p.socketA.Tap(func(b []byte, _ netip.AddrPort) { seen = append(seen, bytes.Clone(b)) })
		for range 20 {
			p.crosses("once")
		}
		p.socketA.Tap(nil)
		before := p.connB.Stats().ReceivedBytes
		for range 3 {
			for _, b := range seen {
				p.network.Inject(b, p.socketA.Addr(), p.socketB.Addr())
			}
		}
		pause(time.Second)
		if after := p.connB.Stats().ReceivedBytes; after > before+200 { // a sign of life may have come
			t.Errorf("replays were taken for %d bytes", after-before)
		}
		p.crosses("and nothing else")
	})
}

// TestDamagedDatagramsChangeNothing flips bits, cuts and mixes what the peers say to one another, and sends it to both.
func TestDamagedDatagramsChangeNothing(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		r := rand.New(rand.NewPCG(4, 4))
		damage := func(from, to *carrytest.Socket) {
			from.Tap(func(b []byte, _ netip.AddrPort) {
				bad := bytes.Clone(b)
				switch r.IntN(4) {
				case 0:
					bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
				case 1:
					bad = bad[:r.IntN(len(bad))]
				case 2:
					bad = append(bad, byte(r.Uint32()))
				case 3:
					for i := range bad[1:] {
						bad[1+i] = byte(r.Uint32())
					}
				}
				p.network.Inject(bad, from.Addr(), to.Addr())
			})
		}
		damage(p.socketA, p.socketB)
		damage(p.socketB, p.socketA)
		for range 300 {
			p.crosses("whole")
		}
		if _, _, links := carry.Held(p.b); links != 1 {
			t.Errorf("there are %d links", links)
		}
	})
}

func TestGarbageMakesNothingAndIsNotAnswered(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		r := rand.New(rand.NewPCG(5, 5))
		stranger := p.network.Listen("10.0.9.9:9")
		var received, sent int
		p.socketB.Tap(func(b []byte, to netip.AddrPort) {
			if to == stranger.Addr() {
				received += len(b)
			}
		})
		for range 20_000 {
			b := make([]byte, r.IntN(1400))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if len(b) > 0 {
				b[0] = [...]byte{1, 2, 3, 4, 5, 6, 0x40, 0x41, byte(r.Uint32())}[r.IntN(9)]
			}
			sent += len(b)
			p.network.Inject(b, stranger.Addr(), p.socketB.Addr())
			pause(100 * time.Microsecond)
		}
		pause(time.Second)
		if half, hosts, links := carry.Held(p.b); half != 0 || hosts != 0 || links != 1 {
			t.Errorf("garbage left %d handshakes, %d hosts, %d links", half, hosts, links)
		}
		if received > sent/20 {
			t.Errorf("%d bytes of garbage had %d bytes of answer", sent, received)
		}
		p.crosses("as before")
	})
}

// TestAFloodOfSpoofedOpeningsKeepsNothing: who cannot receive at the address it claims costs no memory and gets no more bytes
// sent than it sent itself.
func TestAFloodOfSpoofedOpeningsKeepsNothing(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		var answers, asked int
		p.socketB.Tap(func(b []byte, to netip.AddrPort) {
			if to.Addr() != p.socketA.Addr().Addr() {
				answers += len(b)
			}
		})
		for i := range uint32(10_000) {
			spoofed := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 5)
			opening := carry.Opening(i + 1)
			asked += len(opening)
			p.network.Inject(opening, spoofed, p.socketB.Addr())
			first := carry.First(make([]byte, carry.RetrySize), i+1, []byte("no cookie"))
			if first != nil {
				t.Fatal("zeros are no retry")
			}
			pause(50 * time.Microsecond)
		}
		pause(time.Second)
		if half, hosts, links := carry.Held(p.b); half != 0 || hosts != 0 || links != 1 {
			t.Errorf("the flood left %d handshakes, %d hosts, %d links", half, hosts, links)
		}
		if answers > asked {
			t.Errorf("%d bytes asked, %d answered: that amplifies", asked, answers)
		}
		p.crosses("as before")
	})
}

// TestWhoCanBeSentNothingIsAnsweredNothing: the system delivers what claims to come from such addresses, and then fails to send there.
func TestWhoCanBeSentNothingIsAnsweredNothing(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		answers := map[netip.AddrPort]int{}
		p.socketB.Tap(func(b []byte, to netip.AddrPort) { answers[to]++ })
		ask := func(from string) int {
			a := netip.MustParseAddrPort(from)
			p.network.Inject(carry.Opening(1), a, p.socketB.Addr())
			pause(time.Second)
			return answers[a]
		}
		for _, from := range []string{"10.9.9.9:0", "0.0.0.0:5", "[::]:5", "255.255.255.255:5", "224.0.0.1:5", "[ff02::1]:5"} {
			if n := ask(from); n > 0 {
				t.Errorf("%s was sent %d answers", from, n)
			}
		}
		if ask("10.9.9.9:5") == 0 {
			t.Error("nobody is answered")
		}
	})
}

// failing is a socket of which each second read fails, of nothing that the system can say more of.
type failing struct {
	*carrytest.Socket
	reads int
}

func (f *failing) ReadFrom(b []byte) (int, net.Addr, error) {
	if f.reads++; f.reads%2 == 0 {
		return 0, nil, errors.New("somebody's host is unreachable")
	}
	return f.Socket.ReadFrom(b)
}

// TestReadsThatFailBetweenOthersTakeNoTime asks a hundred times at once.
func TestReadsThatFailBetweenOthersTakeNoTime(t *testing.T) {
	inFakeTime(t, carrytest.Road{}, func(t *testing.T, p *pair) {
		socket := p.network.Listen("10.0.0.77:7")
		e, err := carry.NewEndpoint(carry.Config{Server: p.serverTLS}, &failing{Socket: socket})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		var answers atomic.Int64
		socket.Tap(func([]byte, netip.AddrPort) { answers.Add(1) })
		const asked = 100
		for i := range uint32(asked) {
			p.network.Inject(carry.Opening(i+1), netip.MustParseAddrPort("10.9.9.9:5"), socket.Addr())
		}
		pause(10 * time.Millisecond)
		if n := answers.Load(); n != asked {
			t.Errorf("of %d openings %d are answered at once", asked, n)
		}
	})
}

// TestHalfOpenHandshakesAreLimited: who can receive at its address may begin some handshakes and no more, and they end.
func TestHalfOpenHandshakesAreLimited(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		cookies := map[netip.AddrPort][]byte{}
		p.socketB.Tap(func(b []byte, to netip.AddrPort) {
			if len(b) == carry.RetrySize {
				cookies[to] = bytes.Clone(b)
			}
		})
		begin := func(from netip.AddrPort, client uint32) {
			p.network.Inject(carry.Opening(client), from, p.socketB.Addr())
			pause(100 * time.Millisecond)
			first := carry.First(cookies[from], client, []byte{1, 0, 9, 9}) // the beginning of a ClientHello
			if first == nil {
				t.Fatal("no cookie came")
			}
			p.network.Inject(first, from, p.socketB.Addr())
			pause(100 * time.Millisecond)
		}
		one := netip.MustParseAddr("10.3.0.1")
		for i := range uint32(carry.MaxHalfOpenEach + 1) {
			begin(netip.AddrPortFrom(one, uint16(100+i)), 1000+i)
			if half, _, _ := carry.Held(p.b); half != min(int(i)+1, carry.MaxHalfOpenEach) {
				t.Fatalf("one host began %d and holds %d", i+1, half)
			}
		}
		pause(carry.HandshakeLife)
		if half, hosts, _ := carry.Held(p.b); half != 0 || hosts != 0 {
			t.Errorf("after their life %d handshakes of %d hosts are left", half, hosts)
		}
		p.crosses("as before")
	})
}

func TestACookieIsGoodForItsAddressAndItsTimeAlone(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		var cookie []byte
		p.socketB.Tap(func(b []byte, to netip.AddrPort) {
			if len(b) == carry.RetrySize {
				cookie = bytes.Clone(b)
			}
		})
		mine := netip.MustParseAddrPort("10.3.0.1:7")
		p.network.Inject(carry.Opening(77), mine, p.socketB.Addr())
		pause(100 * time.Millisecond)
		held := func(from string, client uint32) int {
			p.network.Inject(carry.First(cookie, client, []byte{1, 0, 9, 9}), netip.MustParseAddrPort(from), p.socketB.Addr())
			pause(100 * time.Millisecond)
			half, _, _ := carry.Held(p.b)
			return half
		}
		if n := held("10.3.0.2:7", 77) + held("10.3.0.1:8", 77) + held("10.3.0.1:7", 78); n != 0 {
			t.Errorf("a cookie was taken from another address or for another connection")
		}
		pause(carry.CookieLife)
		if held("10.3.0.1:7", 77) != 0 {
			t.Error("an old cookie was taken")
		}
		p.network.Inject(carry.Opening(77), mine, p.socketB.Addr())
		pause(100 * time.Millisecond)
		if held("10.3.0.1:7", 77) != 1 {
			t.Error("a good cookie was not taken")
		}
	})
}

func TestPeersThatAreNotVerifiedAreRefusedOnBothSides(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, 7, quick)
		defer p.close()
		_, stranger := nodes(t) // of another authority
		if _, err := p.a.Dial(p.ctx, stranger, p.socketB.Addr()); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("a server of another authority: got %v, want Unauthenticated", err)
		}
		trusting := stranger.Clone()
		trusting.RootCAs = p.clientTLS.RootCAs
		if _, err := p.a.Dial(p.ctx, trusting, p.socketB.Addr()); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("a client of another authority: got %v, want Unauthenticated", err)
		}
		wrongName := p.clientTLS.Clone()
		wrongName.ServerName = "c"
		if _, err := p.a.Dial(p.ctx, wrongName, p.socketB.Addr()); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("a server of another name: got %v, want Unauthenticated", err)
		}
		ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
		defer cancel()
		if _, err := p.b.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one of them was accepted: %v", err)
		}
	})
}

func TestConfigurationsThatVerifyNobodyAreRefused(t *testing.T) {
	server, client := nodes(t)
	for name, change := range map[string]func(*tls.Config){
		"no client certificate": func(c *tls.Config) { c.ClientAuth = tls.NoClientCert },
		"only if given":         func(c *tls.Config) { c.ClientAuth = tls.VerifyClientCertIfGiven },
		"any, unverified":       func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert },
		"another for each client": func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
		},
	} {
		c := server.Clone()
		change(c)
		network := carrytest.NewNetwork(1, quick)
		if _, err := carry.NewEndpoint(carry.Config{Server: c}, network.Listen("10.0.0.1:1")); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("a server that asks for %s: got %v, want Invalid", name, err)
		}
	}
	network := carrytest.NewNetwork(1, quick)
	e, err := carry.NewEndpoint(carry.Config{}, network.Listen("10.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	believing := client.Clone()
	believing.InsecureSkipVerify = true
	nobody := client.Clone()
	nobody.Certificates = nil
	for name, c := range map[string]*tls.Config{"nil": nil, "believing": believing, "without a certificate": nobody} {
		if _, err := e.Dial(t.Context(), c, netip.MustParseAddrPort("10.0.0.2:2")); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("a client that is %s: got %v, want Invalid", name, err)
		}
	}
	own := client.Clone()
	own.InsecureSkipVerify = true
	own.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return nil }
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := e.Dial(ctx, own, netip.MustParseAddrPort("10.0.0.2:2")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a client with a verification of its own: got %v", err)
	}
}

// TestForgedHandshakeDataThatComesLateChangesNothing: the first level of a handshake is in clear, so it is over as soon as the
// second has begun.
func TestForgedHandshakeDataThatComesLateChangesNothing(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		forged := 0
		p.socketB.Tap(func(b []byte, to netip.AddrPort) {
			if bad := carry.ForgeLevel0(b); bad != nil {
				forged++
				p.network.Inject(bad, p.socketB.Addr(), to)
			}
		})
		c, err := p.a.Dial(p.ctx, p.clientTLS, p.socketB.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if forged == 0 {
			t.Error("nothing was forged")
		}
		c.Close()
	})
}

func TestNobodyDialsAnEndpointThatServesNobody(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		answers := 0
		stranger := netip.MustParseAddrPort("10.4.4.4:4")
		p.socketA.Tap(func(_ []byte, to netip.AddrPort) {
			if to == stranger {
				answers++
			}
		})
		p.network.Inject(carry.Opening(5), stranger, p.socketA.Addr())
		pause(time.Second)
		if answers != 0 {
			t.Errorf("an endpoint without a server's configuration answered %d times", answers)
		}
	})
}
