package carry_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

// slow is a road on which every byte counts: 256 kbit/s at 300 ms.
var slow = carrytest.Road{BitsPerSec: 256e3, Delay: 150 * time.Millisecond, QueueBytes: 32_000, MTU: 1500}

// sent is how many bytes went into the network from each side.
func (p *pair) sent() (a, b int64) {
	_, _, a = p.network.Totals(hostA, hostB)
	_, _, b = p.network.Totals(hostB, hostA)
	return a, b
}

// recalling has the side that dials know the road from before, and dial anew.
func (p *pair) recalling(r carry.Road) {
	p.t.Helper()
	if err := p.a.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.socketA = p.network.Listen(hostA + ":3")
	var err error
	if p.a, err = carry.NewEndpoint(carry.Config{Recall: func(*x509.Certificate) carry.Road { return r }}, p.socketA); err != nil {
		p.t.Fatal(err)
	}
	p.connect()
}

// TestAHandshakeThatIsCutOffIsNotRepeatedIntoTheOutage cuts the road at each stage of a handshake.
func TestAHandshakeThatIsCutOffIsNotRepeatedIntoTheOutage(t *testing.T) {
	const outage, most = time.Minute, 20_000
	for _, after := range []time.Duration{100, 400, 700} {
		inFakeTime(t, slow, func(t *testing.T, p *pair) {
			p.connA.Close()
			pause(20 * time.Second)
			dialled := make(chan error, 1)
			go func() {
				c, err := p.a.Dial(p.ctx, p.clientTLS, p.socketB.Addr())
				if err == nil {
					_, err = p.b.Accept(p.ctx)
					c.Close()
				}
				dialled <- err
			}()
			pause(after * time.Millisecond)
			cut := slow
			cut.Blocked = true
			p.network.SetRoad(hostA, hostB, cut)
			a, b := p.sent()
			pause(outage)
			a2, b2 := p.sent()
			t.Logf("cut off after %d ms: %d and %d bytes in a minute", after, a2-a, b2-b)
			if a2-a > most || b2-b > most {
				t.Errorf("cut off after %d ms the two sides sent %d and %d bytes in a minute", after, a2-a, b2-b)
			}
			p.network.SetRoad(hostA, hostB, slow)
			pause(5 * time.Second)
			select {
			case err := <-dialled:
				if err != nil {
					t.Error(err)
				}
			default:
				t.Errorf("cut off after %d ms it is not done 5 s after the outage", after)
			}
		})
	}
}

func TestWhoDiesInAHandshakeIsSentNothingMore(t *testing.T) {
	inFakeTime(t, slow, func(t *testing.T, p *pair) {
		p.connA.Close()
		pause(20 * time.Second)
		ctx, cancel := context.WithCancel(p.ctx)
		go func() { _, _ = p.a.Dial(ctx, p.clientTLS, p.socketB.Addr()) }()
		pause(400 * time.Millisecond)
		cancel()
		pause(time.Second)
		_, b := p.sent()
		pause(2 * time.Minute)
		if _, after := p.sent(); after != b {
			t.Errorf("%d bytes went to who is gone", after-b)
		}
	})
}

// TestAServerThatIsRestartedInAHandshakeIsDialledAnew restarts it at each stage.
func TestAServerThatIsRestartedInAHandshakeIsDialledAnew(t *testing.T) {
	for _, after := range []time.Duration{400, 700, 900, 1000} {
		inFakeTime(t, slow, func(t *testing.T, p *pair) {
			p.connA.Close()
			pause(20 * time.Second)
			dialled := make(chan error, 1)
			go func() {
				c, err := p.a.Dial(p.ctx, p.clientTLS, p.socketB.Addr())
				if err == nil {
					_, err = c.Peer(), c.Close()
				}
				dialled <- err
			}()
			pause(after * time.Millisecond)
			p.socketB.Mute()
			if err := p.b.Close(); err != nil {
				t.Error(err)
			}
			var err error
			if p.b, err = carry.NewEndpoint(carry.Config{Server: p.serverTLS}, p.network.Listen(hostB+":2")); err != nil {
				t.Fatal(err)
			}
			pause(5 * time.Second)
			select {
			case err := <-dialled:
				if err != nil {
					t.Error(err)
				}
			default:
				t.Errorf("restarted after %d ms it is not met 5 s later", after)
			}
		})
	}
}

// TestTheTimeThatAnOutageTakesIsNotTakenForARoundTrip loses the first fragments after an outage, in which many openings went.
func TestTheTimeThatAnOutageTakesIsNotTakenForARoundTrip(t *testing.T) {
	inFakeTime(t, slow, func(t *testing.T, p *pair) {
		p.connA.Close()
		cut := slow
		cut.Blocked = true
		p.network.SetRoad(hostA, hostB, cut)
		for _, change := range []struct {
			at   time.Duration
			road carrytest.Road
		}{{12_100, slow}, {12_700, cut}, {13_100, slow}} {
			time.AfterFunc(change.at*time.Millisecond, func() { p.network.SetRoad(hostA, hostB, change.road) })
		}
		began := time.Now()
		p.connect()
		if took := time.Since(began) - 13_100*time.Millisecond; took > 2500*time.Millisecond {
			t.Errorf("after the outage the handshake took %v more", took)
		}
		for side, c := range map[string]carry.Conn{"dialled": p.connA, "was dialled": p.connB} {
			if rtt := c.Stats().RTT; rtt > time.Second {
				t.Errorf("the side that %s begins with a round trip of %v, it takes 300 ms", side, rtt)
			}
		}
	})
}

func TestARoundTripIsKnownThoughTheFirstOpeningsAreLost(t *testing.T) {
	inFakeTime(t, slow, func(t *testing.T, p *pair) {
		p.connA.Close()
		for _, lost := range []time.Duration{100, 600, 20_100} {
			cut := slow
			cut.Blocked = true
			p.network.SetRoad(hostA, hostB, cut)
			time.AfterFunc(lost*time.Millisecond, func() { p.network.SetRoad(hostA, hostB, slow) })
			p.connect()
			if rtt := p.connA.Stats().RTT; rtt > 320*time.Millisecond {
				t.Errorf("where the link is down for %d ms the round trip of 300 ms is taken for %v", lost, rtt)
			}
			p.connA.Close()
		}
		if _, _, links := carry.Held(p.a); links > 0 {
			t.Errorf("%d connection IDs are held for openings that are over", links)
		}
	})
}

func TestAPeerThatDiesIsSentLittleMoreThanWasOnTheRoad(t *testing.T) {
	onTheRoad := int64(slow.BitsPerSec / 8 * (2 * slow.Delay).Seconds())
	road := slow
	road.Loss = 0.1
	for _, after := range []time.Duration{1, 2, 5, 30} { // seconds: while the rate is sought, and when it is found
		inFakeTime(t, road, func(t *testing.T, p *pair) {
			stop, count := p.bulk(), p.drain()
			pause(after * time.Second)
			p.socketB.Mute()
			a, _ := p.sent()
			pause(10 * time.Second)
			a2, _ := p.sent()
			t.Logf("%d s after the beginning: %d bytes to a dead peer, %d are on the road at any time", after, a2-a, onTheRoad)
			if a2-a > 2*onTheRoad+50*200 { // and probes
				t.Errorf("%d s after the beginning %d bytes went to a peer that had died", after, a2-a)
			}
			stop()
			count()
		})
	}
}

func TestWhoOnlyAnswersTriesNoSizes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, 1, slow)
		defer p.close()
		large := 0
		p.socketB.Tap(func(b []byte, _ netip.AddrPort) {
			if len(b) > 1200 {
				large++
			}
		})
		p.recalling(carry.Road{}) // another connection
		stop, count := p.bulk(), p.drain()
		pause(10 * time.Second)
		stop()
		if n := count(); large > 0 || n[0] < 200_000 {
			t.Errorf("who received %d bytes sent %d datagrams that try a size", n[0], large)
		}
	})
}

// TestARateThatIsRecalledIsWhereTheSearchForItEnds: nothing is sent too fast into a road that is known, and one that has changed is found.
func TestARateThatIsRecalledIsWhereTheSearchForItEnds(t *testing.T) {
	fast := carrytest.Road{BitsPerSec: 10e6, Delay: 50 * time.Millisecond, QueueBytes: 200_000}
	begin := func(road carrytest.Road, r carry.Road, length time.Duration) (longest time.Duration, st carry.Stats) {
		inFakeTime(t, road, func(t *testing.T, p *pair) {
			p.recalling(r)
			stop, count := p.bulk(), p.drain()
			for range length / (50 * time.Millisecond) {
				pause(50 * time.Millisecond)
				longest = max(longest, p.connA.Stats().RTT)
			}
			st = p.connA.Stats()
			stop()
			count()
		})
		return longest, st
	}
	unknown, found := begin(slow, carry.Road{}, 20*time.Second)
	if r := found.Road.BytesPerSec; r < 29_000 || r > 35_000 {
		t.Errorf("a road of 32,000 bytes a second is found to have %.0f", r)
	}
	known, _ := begin(slow, found.Road, 20*time.Second)
	t.Logf("the longest round trip is %v where the rate is not known, %v where it is", unknown, known)
	if known > 600*time.Millisecond || known > unknown-300*time.Millisecond {
		t.Errorf("with the rate known the round trip of 300 ms grew to %v", known)
	}
	if low, _ := begin(slow, carry.Road{BytesPerSec: 29_000}, time.Minute); low > 750*time.Millisecond {
		t.Errorf("with a rate that is a little low recalled the round trip of 300 ms grew to %v", low)
	}
	slower, _ := begin(slow, carry.Road{BytesPerSec: 10e6}, 20*time.Second)
	if slower > unknown+50*time.Millisecond {
		t.Errorf("a road that became slower had a round trip of %v, one that is not known %v", slower, unknown)
	}
	_, quicker := begin(fast, carry.Road{BytesPerSec: 31_000, Loss: 0.1}, 20*time.Second)
	if quicker.BytesPerSec < 1e6 {
		t.Errorf("a road that became faster, of 1,250,000 bytes a second, is believed to take %.0f", quicker.BytesPerSec)
	}
	for _, r := range []carry.Road{{BytesPerSec: -1}, {BytesPerSec: 1e300}, {BytesPerSec: 31_000, Loss: 2}} { // nonsense is as good as nothing
		if got, _ := begin(slow, r, 20*time.Second); (got - unknown).Abs() > 10*time.Millisecond {
			t.Errorf("with %v recalled the longest round trip is %v, with nothing %v", r, got, unknown)
		}
	}
}

// TestAPeerWhosePortIsClosedIsSentNothingMore kills a process whose machine goes on: the kernel says so.
func TestAPeerWhosePortIsClosedIsSentNothingMore(t *testing.T) {
	onTheRoad := int64(slow.BitsPerSec / 8 * (2 * slow.Delay).Seconds())
	for _, after := range []time.Duration{2, 5, 30} {
		inFakeTime(t, slow, func(t *testing.T, p *pair) {
			p.network.Refuse(hostB)
			stop, count := p.bulk(), p.drain()
			pause(after * time.Second)
			p.socketB.Mute()
			a, _ := p.sent()
			go p.b.Close()
			pause(10 * time.Second)
			a2, _ := p.sent()
			t.Logf("%d s after the beginning: %d bytes to a closed port, %d are on the road at any time", after, a2-a, onTheRoad)
			if a2-a > onTheRoad*5/4+50*150 { // with the line, and probes
				t.Errorf("%d s after the beginning %d bytes went to a closed port", after, a2-a)
			}
			stop()
			count()
		})
	}
}

// TestWhoForgesHintsHoldsNothingUp injects, for each datagram that is seen, both hints that the peer is gone: a connection that works is not
// ended by them, and loses less than the time of a round trip now and then.
func TestWhoForgesHintsHoldsNothingUp(t *testing.T) {
	for _, road := range []carrytest.Road{slow, quick} {
		inFakeTime(t, road, func(t *testing.T, p *pair) {
			received := func() (n int) {
				stop, count := p.bulk(), p.drain()
				pause(time.Minute)
				stop()
				pause(5 * time.Second)
				for _, x := range count() {
					n += x
				}
				return n
			}
			received()
			alone := received()
			p.network.Refuse(hostB)
			p.socketA.Tap(func(b []byte, to netip.AddrPort) {
				if b[0]&^1 == 0x40 {
					p.network.Inject(append([]byte{4}, b[:17]...), to, p.socketA.Addr())
					p.network.Quote(b, p.socketA.Addr(), to)
				}
			})
			beset := received()
			t.Logf("%d bytes alone, %d under forged hints", alone, beset)
			if beset < alone*95/100 {
				t.Errorf("forged hints left %d bytes a minute of %d", beset, alone)
			}
			p.crosses("and nothing is ended")
		})
	}
}

// TestASizeThatIsRecalledAndDoesNotPassAnyMoreIsLeft recalls it on a road that takes less.
func TestASizeThatIsRecalledAndDoesNotPassAnyMoreIsLeft(t *testing.T) {
	narrow := slow
	narrow.MTU = 1400
	for _, c := range []struct {
		road carrytest.Road
		size int
		want int
	}{{slow, 1472, 1472}, {narrow, 1472, 1372}, {slow, 0, 1472}, {slow, 60_000, 1472}, {slow, 7, 1472}} {
		inFakeTime(t, c.road, func(t *testing.T, p *pair) {
			p.recalling(carry.Road{BytesPerSec: 32_000, DatagramBytes: c.size})
			stop, count := p.bulk(), p.drain()
			pause(1500 * time.Millisecond)
			if got := p.connA.Stats().DatagramBytes; c.size > c.want && got > c.want {
				t.Errorf("after a second and a half datagrams of %d are still tried", got)
			}
			pause(20 * time.Second)
			stop()
			if got := p.connA.Stats().DatagramBytes; got != c.want {
				t.Errorf("with %d recalled where %d pass: %d", c.size, c.road.MTU-carrytest.IPOverhead, got)
			}
			if n := count()[redoubt.Routine]; n < 450_000 {
				t.Errorf("with %d recalled where %d pass: %d bytes in 20 s", c.size, c.road.MTU-carrytest.IPOverhead, n)
			}
		})
	}
}

// TestASecondCopyOfFlashGoesInADatagramOfItsOwn loses the first datagram of each message.
func TestASecondCopyOfFlashGoesInADatagramOfItsOwn(t *testing.T) {
	inFakeTime(t, slow, func(t *testing.T, p *pair) {
		for range 20 {
			pause(5 * time.Second)
			var lost atomic.Bool
			p.socketA.Lose(func([]byte) bool { return !lost.Swap(true) })
			began := time.Now()
			if err := p.connA.Send(p.ctx, redoubt.Flash, make([]byte, 150)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := p.connB.Receive(p.ctx); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 200*time.Millisecond {
				t.Errorf("with its first datagram lost FLASH took %v, on the way it is 150 ms", took)
			}
		}
	})
}

// TestNobodysWordThatAPortIsClosedEndsALink has each probe of an outage answered by it.
func TestNobodysWordThatAPortIsClosedEndsALink(t *testing.T) {
	inFakeTime(t, slow, func(t *testing.T, p *pair) {
		cut := slow
		cut.Blocked = true
		p.network.SetRoad(hostA, hostB, cut)
		if err := p.connA.Send(p.ctx, redoubt.Routine, []byte("into the outage")); err != nil {
			t.Fatal(err)
		}
		pause(5 * time.Second)
		if s := p.connA.Stats().State; s != carry.Down {
			t.Fatalf("the link is %v", s)
		}
		quoted := 0
		p.socketA.Tap(func(b []byte, to netip.AddrPort) {
			quoted++
			p.network.Quote(b, p.socketA.Addr(), to)
		})
		pause(10 * time.Second)
		p.socketA.Tap(nil)
		p.network.SetRoad(hostA, hostB, slow)
		if _, msg, err := p.connB.Receive(p.ctx); err != nil || string(msg) != "into the outage" || quoted < 10 {
			t.Errorf("after %d false words got %q, %v", quoted, msg, err)
		}
		p.crosses("after it")
	})
}

// TestWhatStandsBehindALossIsShownThoughTheConnectionHasEnded loses one datagram of a message, and ends the connection before it is sent again.
func TestWhatStandsBehindALossIsShownThoughTheConnectionHasEnded(t *testing.T) {
	inFakeTime(t, slow, func(t *testing.T, p *pair) {
		pause(20 * time.Second)
		msg := make([]byte, 20_000)
		for i := range msg {
			msg[i] = byte(i / 7)
		}
		n := 0
		p.socketA.Lose(func(b []byte) bool {
			if len(b) > 1000 {
				n++
			}
			return len(b) > 1000 && n == 3
		})
		if err := p.connA.Send(p.ctx, redoubt.Routine, msg); err != nil {
			t.Fatal(err)
		}
		pause(600 * time.Millisecond)
		p.connB.Close()
		conn := p.connB.(interface {
			Coming(redoubt.Precedence, func(n, length, at int, data []byte))
		})
		shown, stretches, end, hole := 0, 0, 0, 0
		conn.Coming(redoubt.Routine, func(n, length, at int, data []byte) {
			if n != 0 || length != len(msg) || !bytes.Equal(data, msg[at:at+len(data)]) {
				t.Errorf("of message %d, of %d bytes, is shown from %d on what was not sent", n, length, at)
			}
			if len(data) > 0 {
				hole, end = at-end, at+len(data)
				shown, stretches = shown+len(data), stretches+1
			}
		})
		if stretches != 2 || hole < 1000 || hole > 1500 || shown < 8000 {
			t.Errorf("%d bytes in %d stretches with %d between them are shown, where one datagram was lost", shown, stretches, hole)
		}
		if _, _, err := p.connB.Receive(p.ctx); redoubt.KindOf(err) != redoubt.Unavailable {
			t.Errorf("a message that has not come whole is given: %v", err)
		}
	})
}
