package carry_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

// bulk keeps routine flowing from a until the returned function is called.
func (p *pair) bulk() (stop func()) {
	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := rand.New(rand.NewPCG(6, 6))
		for i := uint32(0); p.connA.Send(ctx, redoubt.Routine, message(r, redoubt.Routine, i, 50_000)) == nil; i++ {
		}
	}()
	return func() { cancel(); <-done }
}

// drain receives at b until the returned function is called, which gives how many bytes of each precedence came.
func (p *pair) drain() (stop func() [redoubt.Precedences]int) {
	ctx, cancel := context.WithCancel(p.ctx)
	result := make(chan [redoubt.Precedences]int)
	go func() {
		var n [redoubt.Precedences]int
		for {
			precedence, msg, err := p.connB.Receive(ctx)
			if err != nil {
				result <- n
				return
			}
			n[precedence] += len(msg)
		}
	}()
	return func() [redoubt.Precedences]int { cancel(); return <-result }
}

func TestAnOutageEndsWithTheFirstAnswerAtTheRateFromBefore(t *testing.T) {
	road := carrytest.Road{BitsPerSec: 1e6, Delay: 100 * time.Millisecond, QueueBytes: 100_000}
	inFakeTime(t, road, func(t *testing.T, p *pair) {
		stop, count := p.bulk(), p.drain()
		time.Sleep(20 * time.Second)
		before := carry.Pacing(p.connA)
		down := road
		down.Blocked = true
		p.network.SetRoad(hostA, hostB, down)
		time.Sleep(2 * time.Second)
		if s := p.connA.Stats(); s.State != carry.Down {
			t.Errorf("two seconds into an outage the link is %v", s.State)
		}
		packets, _, _ := p.network.Totals(hostA, hostB)
		time.Sleep(time.Minute)
		probes, _, _ := p.network.Totals(hostA, hostB)
		if n := time.Duration(probes-packets) * carry.ProbeEvery; n < 50*time.Second || n > 70*time.Second {
			t.Errorf("in a minute of outage %d datagrams went, want one each %v", probes-packets, carry.ProbeEvery)
		}
		p.network.SetRoad(hostA, hostB, road)
		time.Sleep(2*carry.ProbeEvery + 2*road.Delay)
		if s := p.connA.Stats(); s.State != carry.Up {
			t.Errorf("two probes and a round trip after the outage the link is %v", s.State)
		}
		if after := carry.Pacing(p.connA); after < 0.8*before {
			t.Errorf("%.0f bytes a second before, %.0f after", before, after)
		}
		for range 20 {
			pause(200 * time.Millisecond)
			if s := p.connA.Stats(); s.BytesPerSec < 0.9*before { // what the outage swallowed says nothing of the rate
				t.Errorf("%.0f bytes a second before, then %.0f", before, s.BytesPerSec)
			}
		}
		stop()
		count()
	})
}

func TestRoutineIsNeverStarved(t *testing.T) {
	inFakeTime(t, carrytest.Road{BitsPerSec: 1e6, Delay: 50 * time.Millisecond, QueueBytes: 50_000}, func(t *testing.T, p *pair) {
		ctx, cancel := context.WithCancel(p.ctx)
		done := make(chan struct{}, redoubt.Precedences)
		for precedence := range redoubt.Precedence(redoubt.Precedences) {
			go func() {
				for p.connA.Send(ctx, precedence, make([]byte, 20_000)) == nil {
				}
				done <- struct{}{}
			}()
		}
		count := p.drain()
		time.Sleep(2 * time.Minute)
		got := count()
		cancel()
		for range redoubt.Precedences {
			<-done
		}
		total := 0
		for _, n := range got {
			total += n
		}
		for precedence := range redoubt.Flash {
			if share := float64(got[precedence]) / float64(total); share < 0.8/carry.AgedShare {
				t.Errorf("%v has %.1f %% of what came, want about %.0f %%", precedence, 100*share, 100.0/carry.AgedShare)
			}
		}
		if float64(got[redoubt.Flash]) < 0.6*float64(total) {
			t.Errorf("FLASH has %d of %d bytes", got[redoubt.Flash], total)
		}
	})
}

func TestInRadioSilenceNothingIsSentAndFlashIsReceived(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		p.crosses("before")
		time.Sleep(time.Second)
		p.b.SetSilent(true)
		packets, _, _ := p.network.Totals(hostB, hostA)
		for _, text := range []string{"one", "two", "three"} {
			if err := p.connA.Send(p.ctx, redoubt.Flash, []byte(text)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
			precedence, msg, err := p.connB.Receive(ctx)
			cancel()
			if err != nil || precedence != redoubt.Flash || string(msg) != text {
				t.Fatalf("got %v %q, %v, want FLASH %q", precedence, msg, err, text)
			}
			time.Sleep(5 * time.Second)
		}
		if err := p.connB.Send(p.ctx, redoubt.Flash, []byte("held back")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if now, _, _ := p.network.Totals(hostB, hostA); now != packets {
			t.Errorf("%d datagrams were sent in radio silence", now-packets)
		}
		if s := p.connA.Stats().State; s != carry.Down {
			t.Errorf("to its peer the silent side is %v", s)
		}
		p.b.SetSilent(false)
		ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
		defer cancel()
		if _, msg, err := p.connA.Receive(ctx); err != nil || string(msg) != "held back" {
			t.Errorf("got %q, %v", msg, err)
		}
	})
}

func TestAConnThatHearsNothingForTooLongEnds(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		p.crosses("before")
		cut := quick
		cut.Blocked = true
		p.network.SetRoad(hostA, hostB, cut)
		time.Sleep(9 * time.Minute)
		if err := p.connA.Send(p.ctx, redoubt.Routine, []byte("x")); err != nil {
			t.Errorf("after 9 minutes of outage: %v", err)
		}
		time.Sleep(2 * time.Minute)
		for _, c := range []carry.Conn{p.connA, p.connB} {
			if _, _, err := c.Receive(p.ctx); !errors.Is(err, redoubt.Unavailable) {
				t.Errorf("after 11 minutes: got %v, want Unavailable", err)
			}
		}
	})
}

func TestAPeerThatWasRestartedIsNoticedAtOnce(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		p.crosses("before")
		server, _ := nodes(t)
		p.network.SetRoad(hostA, hostB, carrytest.Road{Blocked: true}) // it dies without a word
		if err := p.b.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		p.network.SetRoad(hostA, hostB, quick)
		var err error
		if p.b, err = carry.NewEndpoint(carry.Config{Server: server}, p.network.Listen(hostB+":2")); err != nil {
			t.Fatal(err)
		}
		if err := p.connA.Send(p.ctx, redoubt.Routine, []byte("hello?")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
		defer cancel()
		if _, _, err := p.connA.Receive(ctx); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("got %v, want Unavailable", err)
		}
	})
}

func TestAHintThatThePeerForgotUsIsNotBelievedWhileTheLinkIsUp(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		var heads [][]byte // of everything a sends, its probes too
		p.socketA.Tap(func(b []byte, to netip.AddrPort) {
			if b[0]&^1 == 0x40 {
				heads = append(heads, bytes.Clone(b[:17]))
			}
		})
		cut := quick
		cut.Blocked = true
		p.network.SetRoad(hostA, hostB, cut)
		if err := p.connA.Send(p.ctx, redoubt.Flash, []byte("into an outage")); err != nil {
			t.Fatal(err)
		}
		pause(10 * time.Second)
		p.network.SetRoad(hostA, hostB, quick)
		pause(time.Second)
		p.socketA.Tap(nil)
		if _, msg, err := p.connB.Receive(p.ctx); err != nil || string(msg) != "into an outage" {
			t.Fatalf("got %q, %v", msg, err)
		}
		for _, head := range heads {
			p.network.Inject(append([]byte{4}, head...), p.socketB.Addr(), p.socketA.Addr())
		}
		pause(time.Second)
		p.crosses("still here")
	})
}

func TestDatagramsGrowToWhatThePathTakesAndShrinkWhenItChanges(t *testing.T) {
	road := quick
	road.MTU = 1440
	inFakeTime(t, road, func(t *testing.T, p *pair) {
		stop, count := p.bulk(), p.drain()
		time.Sleep(10 * time.Second)
		if got, want := p.connA.Stats().DatagramBytes, 1412; got != want {
			t.Errorf("datagrams of %d bytes on a path that takes %d", got, want)
		}
		road.MTU = 1280
		p.network.SetRoad(hostA, hostB, road)
		time.Sleep(30 * time.Second)
		if got := p.connA.Stats().DatagramBytes; got > 1252 {
			t.Errorf("datagrams of %d bytes on a path that takes 1252", got)
		}
		stop()
		count()
	})
}

func TestAnUnreceivedPrecedenceHoldsABoundedAmount(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		stop := p.bulk()
		time.Sleep(time.Minute)
		if n := carry.Buffered(p.connB); n > 2*carry.StreamWindow+carry.MaxMessage {
			t.Errorf("%d bytes are held for a sender that nobody receives from", n)
		}
		stop()
	})
}

func TestDialWaitsForALinkThatIsDownAndEndsWithItsContext(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		cut := quick
		cut.Blocked = true
		p.network.SetRoad(hostA, hostB, cut)
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Minute)
		defer cancel()
		if _, err := p.a.Dial(ctx, p.clientTLS, p.socketB.Addr()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's", err)
		}
		time.AfterFunc(3*time.Minute, func() { p.network.SetRoad(hostA, hostB, quick) })
		c, err := p.a.Dial(p.ctx, p.clientTLS, p.socketB.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestAConnEndsWithItsPeersCertificate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := carrytest.NewNetwork(1, quick)
		server, client := nodes(t)
		var ahead atomic.Int64 // of a's clock
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		p := &pair{t: t, network: network, clientTLS: client, ctx: t.Context(), socketA: network.Listen(hostA + ":1"), socketB: network.Listen(hostB + ":2")}
		const century = 100 * 365 * 24 * time.Hour
		var err error
		if p.a, err = carry.NewEndpoint(carry.Config{Now: now, MaxSilence: century}, p.socketA); err != nil {
			t.Fatal(err)
		}
		if p.b, err = carry.NewEndpoint(carry.Config{Server: server}, p.socketB); err != nil {
			t.Fatal(err)
		}
		defer p.close()
		p.connect()
		p.crosses("while it holds")
		ahead.Store(int64(11 * 365 * 24 * time.Hour))
		ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
		defer cancel()
		if _, _, err := p.connA.Receive(ctx); !errors.Is(err, redoubt.Unavailable) || !strings.Contains(err.Error(), redoubt.Expired.Error()) {
			t.Errorf("a year after the certificate's end: got %v", err)
		}
	})
}

func TestTwoConnsShareALink(t *testing.T) {
	road := carrytest.Road{BitsPerSec: 2e6, Delay: 50 * time.Millisecond, Loss: 0.01, QueueBytes: 100_000}
	inFakeTime(t, road, func(t *testing.T, p *pair) {
		q := *p
		q.connect()
		stopP, countP := p.bulk(), p.drain()
		pause(20 * time.Second)
		stopQ, countQ := q.bulk(), q.drain()
		pause(20 * time.Second)
		countP()
		countQ()
		countP, countQ = p.drain(), q.drain()
		pause(2 * time.Minute)
		one, two := countP()[redoubt.Routine], countQ()[redoubt.Routine]
		stopP()
		stopQ()
		share := float64(two) / float64(one+two)
		t.Logf("the first had %d, the second %d: %.0f %%", one, two, 100*share)
		if share < 0.2 || share > 0.8 {
			t.Errorf("of two Conns on one link the second had %.0f %%", 100*share)
		}
		if used := float64(one+two) * 8 / road.BitsPerSec / 120; used < 0.8 {
			t.Errorf("together they used %.0f %% of the link", 100*used)
		}
	})
}
