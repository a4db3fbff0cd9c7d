package carry_test

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

func TestAConnFollowsItsPeerToANewAddress(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		p.crosses("from the old address")
		old := p.socketA.Addr()
		cut := quick
		cut.Blocked = true
		p.network.SetOneWay(hostA, hostB, cut)
		var held []byte
		p.socketA.Tap(func(b []byte, _ netip.AddrPort) { held = bytes.Clone(b) })
		if err := p.connA.Send(p.ctx, redoubt.Routine, []byte("held back")); err != nil {
			t.Fatal(err)
		}
		pause(100 * time.Millisecond)
		p.socketA.Tap(nil)
		p.network.SetOneWay(hostA, hostB, quick)
		if _, msg, err := p.connB.Receive(p.ctx); err != nil || string(msg) != "held back" {
			t.Fatalf("got %q, %v", msg, err)
		}
		p.socketA.Move("10.0.7.7:7")
		p.crosses("from the new one")
		if err := p.connB.Send(p.ctx, redoubt.Routine, []byte("back")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
		defer cancel()
		if _, msg, err := p.connA.Receive(ctx); err != nil || string(msg) != "back" {
			t.Errorf("got %q, %v", msg, err)
		}
		if got := p.connB.Stats().Remote; got != "10.0.7.7:7" {
			t.Errorf("b sends to %s", got)
		}
		p.network.Inject(held, old, p.socketB.Addr()) // what comes late from the old address draws nothing back
		pause(time.Second)
		if got := p.connB.Stats().Remote; got != "10.0.7.7:7" {
			t.Errorf("after a datagram that was late b sends to %s", got)
		}
	})
}

// TestSomebodyElsesAddressIsNotFollowed: an attacker who replays under its own address what it could hold back does not draw
// the connection to itself, for it cannot answer the challenge.
func TestSomebodyElsesAddressIsNotFollowed(t *testing.T) {
	inFakeTime(t, quick, func(t *testing.T, p *pair) {
		p.crosses("first")
		thief := netip.MustParseAddrPort("10.6.6.6:6")
		p.network.Listen(thief.String())
		stolen := 0
		p.socketA.Tap(func(b []byte, to netip.AddrPort) { p.network.Inject(b, thief, to) }) // ahead of the true one
		p.socketB.Tap(func(b []byte, to netip.AddrPort) {
			if to == thief {
				stolen += len(b)
			}
		})
		for range 20 {
			p.crosses("again")
			if err := p.connB.Send(p.ctx, redoubt.Routine, make([]byte, 20_000)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := p.connA.Receive(p.ctx); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := p.connB.Stats().Remote; got != p.socketA.Addr().String() {
			t.Errorf("b sends to %s", got)
		}
		if stolen > 20_000 {
			t.Errorf("%d bytes went to the thief", stolen)
		}
	})
}

func TestASecondAddressTakesOverWhenTheFirstFallsSilent(t *testing.T) {
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
		slow := quick
		slow.Delay *= 2
		network.SetRoad("10.0.0.1", "10.0.0.3", slow) // so that the first answers first
		if p.connA, err = a.Dial(p.ctx, client, first.Addr(), second.Addr()); err != nil {
			t.Fatal(err)
		}
		if p.connB, err = b.Accept(p.ctx); err != nil {
			t.Fatal(err)
		}
		p.crosses("by the first")
		cut := quick
		cut.Blocked = true
		network.SetRoad("10.0.0.1", "10.0.0.2", cut)
		start := time.Now()
		p.crosses("by the second")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("the second address took over after %v", took)
		}
		if got := p.connA.Stats().Remote; got != second.Addr().String() {
			t.Errorf("a sends to %s", got)
		}
		if err := p.connB.Send(p.ctx, redoubt.Flash, []byte("and back")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
		defer cancel()
		if _, msg, err := p.connA.Receive(ctx); err != nil || string(msg) != "and back" {
			t.Errorf("got %q, %v", msg, err)
		}
	})
}

// TestEveryPathIsKeptOpenAtRest: an address translation on the way of a path forgets it after half a minute.
func TestEveryPathIsKeptOpenAtRest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := carrytest.NewNetwork(3, quick)
		server, client := nodes(t)
		socket := network.Listen("10.0.0.1:1")
		a, err := carry.NewEndpoint(carry.Config{}, socket)
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
		slow := quick
		slow.Delay *= 2
		network.SetRoad("10.0.0.1", "10.0.0.3", slow) // so that the first answers first
		if p.connA, err = a.Dial(p.ctx, client, first.Addr(), second.Addr()); err != nil {
			t.Fatal(err)
		}
		if p.connB, err = b.Accept(p.ctx); err != nil {
			t.Fatal(err)
		}
		last := map[netip.AddrPort]time.Time{}
		longest := map[netip.AddrPort]time.Duration{}
		socket.Tap(func(_ []byte, to netip.AddrPort) {
			if at, ok := last[to]; ok {
				longest[to] = max(longest[to], time.Since(at))
			}
			last[to] = time.Now()
		})
		pause(5 * time.Minute)
		cut := quick
		cut.Blocked = true
		network.SetRoad("10.0.0.1", "10.0.0.3", cut)
		pause(5 * time.Minute)
		if s := p.connA.Stats(); s.State != carry.Up || s.Since.After(time.Now().Add(-time.Minute)) {
			t.Errorf("because a path that stands by is cut, the link is %v since %v", s.State, s.Since)
		}
		network.SetRoad("10.0.0.1", "10.0.0.3", slow)
		standing := 0
		second.Tap(func(b []byte, _ netip.AddrPort) { standing += len(b) })
		if err := p.connB.Send(p.ctx, redoubt.Routine, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.connA.Receive(p.ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if standing > 10_000 {
			t.Errorf("%d bytes went by the path that only stands by", standing)
		}
		for _, s := range []*carrytest.Socket{first, second} {
			if gap := longest[s.Addr()]; gap == 0 || gap > 20*time.Second {
				t.Errorf("%v heard nothing for %v", s.Addr(), gap)
			}
		}
	})
}
