package carry_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

var nowhere = carrytest.Road{Blocked: true}

// newPairOfPaths dials from a to b over two roads that have no end in common, each from a socket of its own to an address of its own; the other
// two ways that the addresses give lead nowhere.
func newPairOfPaths(t *testing.T, seed uint64, roads ...carrytest.Road) *pair {
	t.Helper()
	p := &pair{t: t, network: carrytest.NewNetwork(seed, nowhere), ctx: t.Context()}
	server, client := nodes(t)
	p.clientTLS = client
	var remotes []netip.AddrPort
	var as, bs []*carrytest.Socket
	for i, r := range roads {
		a, b := pathHosts(i)
		p.network.SetRoad(a, b, r)
		as, bs = append(as, p.network.Listen(a+":1")), append(bs, p.network.Listen(b+":2"))
		remotes = append(remotes, bs[i].Addr())
	}
	p.socketA, p.socketB = as[0], bs[0]
	var err error
	if p.a, err = carry.NewEndpoint(carry.Config{}, conns(as)...); err != nil {
		t.Fatal(err)
	}
	if p.b, err = carry.NewEndpoint(carry.Config{Server: server}, conns(bs)...); err != nil {
		t.Fatal(err)
	}
	if p.connA, err = p.a.Dial(p.ctx, p.clientTLS, remotes...); err != nil {
		t.Fatal(err)
	}
	if p.connB, err = p.b.Accept(p.ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

func pathHosts(i int) (a, b string) {
	n := string(rune('1' + i))
	return "10.1." + n + ".1", "10.1." + n + ".2"
}

// goodput is how many bytes a second of bulk come over roads, after so long to find the rates.
func goodput(t *testing.T, seed uint64, settle, measure time.Duration, roads ...carrytest.Road) (rate float64) {
	bubble(t, func(t *testing.T) {
		p := newPairOfPaths(t, seed, roads...)
		defer p.close()
		stop, count := p.bulk(), p.drain()
		pause(settle)
		count()
		count = p.drain()
		pause(measure)
		rate = float64(count()[redoubt.Routine]) / measure.Seconds()
		for i, s := range p.connA.Stats().Paths {
			t.Logf("path %d: %+v", i, s)
		}
		stop()
	})
	return rate
}

func TestTwoPathsTogetherGiveWhatBothTake(t *testing.T) {
	road := carrytest.Road{BitsPerSec: 1e6, Delay: 40 * time.Millisecond, QueueBytes: 60_000}
	lossy := carrytest.LinkB
	for name, roads := range map[string][]carrytest.Road{"alike": {road, road}, "long and lossy": {lossy, lossy}} {
		t.Run(name, func(t *testing.T) {
			rate := goodput(t, 5, 30*time.Second, 2*time.Minute, roads...) * 8
			t.Logf("%.0f kbit/s", rate/1000)
			if rate < 1.75e6*(1-road.Loss) {
				t.Errorf("two paths of 1 Mbit/s gave %.0f kbit/s", rate/1000)
			}
		})
	}
}

// TestASlowPathBesideAFastOneIsNeverAHindrance compares what the fast one gives alone.
func TestASlowPathBesideAFastOneIsNeverAHindrance(t *testing.T) {
	for _, c := range []struct {
		name       string
		fast, slow carrytest.Road
	}{
		{"slow and long", carrytest.Road{BitsPerSec: 10e6, Delay: 15 * time.Millisecond, QueueBytes: 100_000}, carrytest.LinkB},
		{"slow and lossy", carrytest.Road{BitsPerSec: 1e6, Delay: 50 * time.Millisecond, QueueBytes: 60_000}, carrytest.Road{BitsPerSec: 256e3, Delay: 150 * time.Millisecond, Loss: 0.10, QueueBytes: 32_000}},
		{"so long that a hole would stop all", carrytest.Road{BitsPerSec: 30e6, Delay: 5 * time.Millisecond, QueueBytes: 200_000}, carrytest.Road{BitsPerSec: 1e6, Delay: 600 * time.Millisecond, QueueBytes: 200_000}},
		{"on and off", carrytest.Road{BitsPerSec: 1e6, Delay: 50 * time.Millisecond, QueueBytes: 60_000}, carrytest.LinkC},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.fast.BitsPerSec > 1e6 {
				t.Skip("-short: ten times as many datagrams, through the same code")
			}
			alone := goodput(t, 5, 20*time.Second, time.Minute, c.fast)
			both := goodput(t, 5, 20*time.Second, time.Minute, c.fast, c.slow)
			t.Logf("alone %.0f kbit/s, both %.0f", alone*8/1000, both*8/1000)
			if both < 0.99*alone {
				t.Errorf("alone the fast path gives %.0f kbit/s, with the other %.0f", alone*8/1000, both*8/1000)
			}
			for _, size := range [][2]int{{1, 5_000}, {1, 60_000}, {1, 300_000}, {15, 4_000}, {75, 4_000}} {
				one, two := update(t, size[0], size[1], c.fast), update(t, size[0], size[1], c.fast, c.slow)
				t.Logf("%d of %d bytes: alone %v, both %v", size[0], size[1], one, two)
				if two > one*103/100+5*time.Millisecond {
					t.Errorf("%d of %d bytes take %v over the fast path alone, with the other %v", size[0], size[1], one, two)
				}
			}
		})
	}
}

// update is how long so many messages take on a link whose rates are known and that is at rest: the mean of several.
func update(t *testing.T, n, size int, roads ...carrytest.Road) (took time.Duration) {
	const times = 10
	bubble(t, func(t *testing.T) {
		p := newPairOfPaths(t, 6, roads...)
		defer p.close()
		stop, count := p.bulk(), p.drain()
		pause(20 * time.Second)
		stop()
		pause(5 * time.Second)
		count()
		r := rand.New(rand.NewPCG(1, 1))
		for range times {
			start := time.Now()
			go func() {
				for range n {
					if err := p.connA.Send(p.ctx, redoubt.Routine, message(r, redoubt.Routine, 0, size)); err != nil {
						t.Error(err)
					}
				}
			}()
			for range n {
				if _, _, err := p.connB.Receive(p.ctx); err != nil {
					t.Fatal(err)
				}
			}
			took += time.Since(start) / times
			pause(3 * time.Second)
		}
	})
	return took
}

func TestFlashGoesByTheBestPathAndItsCopyByAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		quickRoad := carrytest.Road{BitsPerSec: 1e6, Delay: 30 * time.Millisecond, QueueBytes: 60_000}
		longRoad := quickRoad
		longRoad.Delay = 300 * time.Millisecond
		p := newPairOfPaths(t, 4, longRoad, quickRoad)
		defer p.close()
		stop, done := p.bulk(), make(chan time.Duration)
		pause(20 * time.Second)
		go func() {
			for {
				precedence, msg, err := p.connB.Receive(p.ctx)
				if err != nil {
					return
				}
				if precedence == redoubt.Flash {
					done <- time.Duration(binary.BigEndian.Uint32(msg[1:]))
				}
			}
		}()
		r := rand.New(rand.NewPCG(1, 1))
		flash := func() time.Duration {
			start := time.Now()
			if err := p.connA.Send(p.ctx, redoubt.Flash, message(r, redoubt.Flash, 1, 2000)); err != nil {
				t.Fatal(err)
			}
			<-done
			took := time.Since(start)
			pause(2 * time.Second)
			return took
		}
		if took := flash(); took > 150*time.Millisecond {
			t.Errorf("by the better of two paths FLASH took %v", took)
		}
		_, b := pathHosts(1)
		a, _ := pathHosts(1)
		p.network.SetOneWay(a, b, nowhere) // and nobody knows yet
		if took := flash(); took > 600*time.Millisecond {
			t.Errorf("while the better path swallows everything, FLASH took %v: its copy should come by the other", took)
		}
		stop()
	})
}

func TestAPathThatFailsTakesNothingWithItAndComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		road := carrytest.Road{BitsPerSec: 1e6, Delay: 40 * time.Millisecond, QueueBytes: 60_000}
		p := newPairOfPaths(t, 5, road, road)
		defer p.close()
		stop, meter := p.bulk(), p.meter()
		pause(20 * time.Second)
		a, b := pathHosts(0)
		p.network.SetRoad(a, b, nowhere)
		since := p.connA.Stats().Since
		pause(2 * time.Second)
		if rate := over(meter, 30*time.Second); rate < 0.9e6 {
			t.Errorf("with one of two paths left %.0f kbit/s came", rate/1000)
		}
		if s := p.connA.Stats(); s.State != carry.Up || s.Since != since {
			t.Errorf("with one of two paths left the link is %v since %v", s.State, s.Since)
		}
		if n := usable(p.connA); n != 1 {
			t.Errorf("%d paths are in use", n)
		}
		p.network.SetRoad(a, b, road)
		pause(5 * time.Second)
		if n := usable(p.connA); n != 2 {
			t.Errorf("5 s after the path came back %d are in use", n)
		}
		if rate := over(meter, 30*time.Second); rate < 1.75e6 {
			t.Errorf("with both paths back %.0f kbit/s came", rate/1000)
		}
		p.network.SetRoad(a, b, nowhere) // and all of it
		a2, b2 := pathHosts(1)
		p.network.SetRoad(a2, b2, nowhere)
		pause(3 * time.Second)
		if s := p.connA.Stats(); s.State != carry.Down {
			t.Errorf("without any path the link is %v", s.State)
		}
		p.network.SetRoad(a2, b2, road)
		pause(time.Second)
		if s := p.connA.Stats(); s.State != carry.Up {
			t.Errorf("a second after one path came back the link is %v", s.State)
		}
		stop()
	})
}

// meter receives at b until the test ends, and gives how many bytes of routine came since it was asked last.
func (p *pair) meter() func() int {
	var n atomic.Int64
	go func() {
		for {
			precedence, msg, err := p.connB.Receive(p.ctx)
			if err != nil {
				return
			}
			if precedence == redoubt.Routine {
				n.Add(int64(len(msg)))
			}
		}
	}()
	return func() int { return int(n.Swap(0)) }
}

// over is the rate, in bits a second, at which routine comes in the next stretch of time.
func over(meter func() int, d time.Duration) float64 {
	meter()
	pause(d)
	return float64(meter()) * 8 / d.Seconds()
}

// TestProbesOfAPathThatIsDownTakeNothingWithThem: they carry FLASH in an outage of the whole link alone.
func TestProbesOfAPathThatIsDownTakeNothingWithThem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		road := carrytest.Road{BitsPerSec: 1e6, Delay: 40 * time.Millisecond, Loss: 0.3, QueueBytes: 60_000}
		p := newPairOfPaths(t, 5, road, road)
		defer p.close()
		p.crosses("by either")
		a, b := pathHosts(0)
		p.network.SetRoad(a, b, nowhere)
		pause(2 * time.Second)
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Minute)
		defer cancel()
		for range 10 {
			want := message(rand.New(rand.NewPCG(1, 1)), redoubt.Flash, 1, 200_000)
			if err := p.connA.Send(ctx, redoubt.Flash, want); err != nil {
				t.Fatal(err)
			}
			if _, msg, err := p.connB.Receive(ctx); err != nil || !bytes.Equal(msg, want) {
				t.Fatalf("got %d bytes, %v", len(msg), err)
			}
		}
	})
}

func usable(c carry.Conn) (n int) {
	for _, s := range c.Stats().Paths {
		if s.InUse {
			n++
		}
	}
	return n
}

// TestTheSideThatWasDialledUsesThePathsThatTheOtherUses: it cannot tell by itself which have no end in common.
func TestTheSideThatWasDialledUsesThePathsThatTheOtherUses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		road := carrytest.Road{BitsPerSec: 1e6, Delay: 40 * time.Millisecond, QueueBytes: 60_000}
		p := newPairOfPaths(t, 5, road, road)
		defer p.close()
		p.connA, p.connB = p.connB, p.connA // b sends
		stop, meter := p.bulk(), p.meter()
		pause(20 * time.Second)
		if rate := over(meter, time.Minute); rate < 1.75e6 {
			t.Errorf("%.0f kbit/s came", rate/1000)
		}
		a, b := pathHosts(1)
		p.network.SetOneWay(b, a, nowhere)
		pause(3 * time.Second)
		if rate := over(meter, 20*time.Second); rate < 0.9e6 {
			t.Errorf("with one path left %.0f kbit/s came", rate/1000)
		}
		stop()
	})
}

// TestPathsThatShareAnEndAreNotTakenForTwo: beside other traffic of a shared hop two paces would have twice the share.
func TestPathsThatShareAnEndAreNotTakenForTwo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := carrytest.NewNetwork(3, quick)
		server, client := nodes(t)
		a, err := carry.NewEndpoint(carry.Config{}, network.Listen("10.0.0.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		first, second := network.Listen("10.0.0.2:2"), network.Listen("10.0.0.3:3")
		b, err := carry.NewEndpoint(carry.Config{Server: server}, first, second)
		if err != nil {
			t.Fatal(err)
		}
		p := &pair{t: t, network: network, a: a, b: b, clientTLS: client, ctx: t.Context()}
		defer p.close()
		if p.connA, err = a.Dial(p.ctx, client, first.Addr(), second.Addr()); err != nil {
			t.Fatal(err)
		}
		if p.connB, err = b.Accept(p.ctx); err != nil {
			t.Fatal(err)
		}
		stopA, countB := p.bulk(), p.drain()
		other := &pair{t: t, ctx: p.ctx, connA: p.connB, connB: p.connA}
		stopB, countA := other.bulk(), other.drain()
		pause(time.Minute)
		stopA()
		stopB()
		countA()
		countB()
		for _, from := range []struct{ host, one, two string }{{"a", "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.3"}, {"b", "10.0.0.2 10.0.0.1", "10.0.0.3 10.0.0.1"}} {
			sent := func(road string) int64 {
				var ends [2]string
				ends[0], ends[1] = road[:8], road[9:]
				_, _, n := network.Totals(ends[0], ends[1])
				return n
			}
			if one, two := sent(from.one), sent(from.two); min(one, two) > 20_000 {
				t.Errorf("%s sent %d bytes to one address and %d to the other of a host behind the same socket", from.host, one, two)
			}
		}
	})
}

// TestNothingIsLostWhilePathsComeAndGo: every message arrives once and in order, whatever the paths do.
func TestNothingIsLostWhilePathsComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		road := carrytest.Road{BitsPerSec: 2e6, Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.03, Duplicate: 0.02, QueueBytes: 60_000}
		long := road
		long.Delay = 250 * time.Millisecond
		roads := []carrytest.Road{road, long, road}
		p := newPairOfPaths(t, 8, roads...)
		defer p.close()
		ctx, cancel := context.WithCancel(p.ctx)
		defer cancel()
		weather := make(chan struct{})
		go func() {
			defer close(weather)
			r := rand.New(rand.NewPCG(7, 7))
			for ctx.Err() == nil {
				i := r.IntN(len(roads))
				a, b := pathHosts(i)
				next := roads[i]
				next.Blocked = r.IntN(2) == 0
				p.network.SetOneWay(a, b, next)
				next.Blocked = next.Blocked && r.IntN(2) == 0
				p.network.SetOneWay(b, a, next)
				time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second))))
			}
		}()
		const messages = 400
		for _, ends := range [][2]carry.Conn{{p.connA, p.connB}, {p.connB, p.connA}} {
			from, to := ends[0], ends[1]
			go func() {
				r := rand.New(rand.NewPCG(5, 5))
				for i := range messages {
					precedence := redoubt.Precedence(i % redoubt.Precedences)
					if err := from.Send(ctx, precedence, message(r, precedence, uint32(i), 500+r.IntN(20_000))); err != nil {
						t.Error(err)
					}
				}
			}()
			var last [redoubt.Precedences]int
			for n := range messages {
				patience, stop := context.WithTimeout(p.ctx, 5*time.Minute)
				precedence, msg, err := to.Receive(patience)
				stop()
				if err != nil {
					t.Fatalf("message %d: %v", n, err)
				}
				i := int(binary.BigEndian.Uint32(msg[1:]))
				if want := last[precedence]; i/redoubt.Precedences != want {
					t.Fatalf("%v: message %d came for number %d", precedence, i/redoubt.Precedences, want)
				}
				last[precedence]++
			}
		}
		cancel()
		<-weather
		synctest.Wait()
	})
}

func conns(sockets []*carrytest.Socket) (all []net.PacketConn) {
	for _, s := range sockets {
		all = append(all, s)
	}
	return all
}
