package sim_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// meeting is a session between two nodes over a road in memory.
type meeting struct {
	sides [2]*node
	road  [2]*redoubttest.Road
	bound label.Label
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// way is how a meeting goes: how many messages pass until it breaks, and how many bytes a second; 0 has no limit.
type way struct{ limit, pace int }

// meet begins one, if both have power and may meet. Like package node, each side ends its older meeting with the peer first.
func (w *world) meet(a, b *node, on way) {
	w.meetBeside(a, b, on, false)
}

// meetBeside may leave an older meeting of the two as it is.
func (w *world) meetBeside(a, b *node, on way, beside bool) {
	if !mayMeet(a, b) {
		return
	}
	for m := range a.meetings {
		if !beside && (m.sides[0] == b || m.sides[1] == b) {
			m.part()
		}
	}
	m := &meeting{sides: [2]*node{a, b}, bound: linkBound(a, b)}
	m.road[0], m.road[1] = redoubttest.NewRoad(on.limit)
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	for i, n := range m.sides {
		peer := m.sides[1-i]
		if m.road[i].Watch(func(msg []byte) { w.overhear(n, peer, m.bound, msg) }); on.pace > 0 {
			m.road[i].Pace(on.pace)
		}
		var conn replica.Conn = m.road[i]
		if n.captured {
			conn = &liar{Conn: conn, dice: rand.New(rand.NewPCG(w.rand.Uint64(), 1))}
		}
		end := replica.New(replica.Options{Estate: "example", Node: n.name, Peer: peer.name, Journal: n.stack, State: n.stack, Conn: conn,
			Codecs: w.codecs, Log: w.log(n, peer), Met: n.met(peer), Noted: n.noted(peer)})
		m.done.Go(func() {
			if err := end.Run(ctx); err != nil && w.calm.Load() && !n.captured && !peer.captured {
				w.fault("%s: a meeting with %s that nothing disturbed ended: %v", n.name, peer.name, err)
			}
		})
		n.meetings[m] = true
	}
}

// log shows what a session logs, where -sim.log asks for it.
func (w *world) log(n, peer *node) *slog.Logger {
	if !*logged {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", n.name, "with", peer.name)
}

// mayMeet says what carriage would: a device meets its home while it is enrolled, and another device if the home has told each of the
// other's key, and the lease of each has not ended by the other's clock.
func mayMeet(a, b *node) bool {
	switch {
	case a == b || a.stack == nil || b.stack == nil || a.retired || b.retired:
		return false
	case a.index == 0 || b.index == 0:
		return !a.disowned && !b.disowned
	}
	return a.knows(b) && b.knows(a)
}

func (n *node) knows(peer *node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, told := range n.neighbours {
		if told.Device == peer.name {
			return bytes.Equal(told.Key, peer.stack.JournalKey()) && n.now().Before(peer.leaseEnds())
		}
	}
	return false
}

// leaseEnds is when the lease ends that a device shows.
func (n *node) leaseEnds() time.Time { return time.Unix(0, n.lease.Load()) }

// linkBound is the bound of the link between two nodes.
func linkBound(a, b *node) label.Label {
	if a.top.Dominates(b.top) {
		return b.top
	}
	return a.top
}

// neighbour is the one of those that a device was told of, by pick; nil where there is none.
func (n *node) neighbour(pick uint64) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.neighbours) == 0 {
		return nil
	}
	return n.w.byName[n.neighbours[pick%uint64(len(n.neighbours))].Device]
}

// met says what a home says at the beginning of a meeting, as package node does; a lease, where a quarter of the last one is over.
func (n *node) met(peer *node) func(context.Context, *replica.Session) error {
	if n.index != 0 {
		return nil
	}
	return func(ctx context.Context, s *replica.Session) error {
		if err := tell(ctx, s, "makers", n.stack.Makers()); err != nil {
			return err
		}
		if err := tell(ctx, s, "neighbours", n.stack.Neighbours(peer.name)); err != nil {
			return err
		}
		if n.stack.LeaseEnds(peer.name).Sub(n.now()) > peer.leaseLife()*3/4 {
			return nil
		}
		lease, err := n.stack.RenewLease(ctx, peer.name)
		if err != nil {
			return err
		}
		return tell(ctx, s, "lease", lease)
	}
}

func tell(ctx context.Context, s *replica.Session, kind string, what any) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return s.Tell(ctx, kind, body)
}

// noted takes what the home says. What another device says is not listened to.
func (n *node) noted(peer *node) func(context.Context, *replica.Session, string, []byte) error {
	stack := n.stack
	return func(ctx context.Context, _ *replica.Session, kind string, body []byte) error {
		if peer.index != 0 {
			return nil
		}
		switch kind {
		case "makers":
			var makers map[redoubt.NodeName][]ed25519.PublicKey
			if err := json.Unmarshal(body, &makers); err != nil {
				return err
			}
			n.mu.Lock()
			n.makers = stack.SetMakers(makers)
			n.mu.Unlock()
		case "neighbours":
			var all []redoubt.Neighbour
			if err := json.Unmarshal(body, &all); err != nil {
				return err
			}
			if err := stack.SetNeighbours(ctx, all); err != nil {
				return err
			}
			n.mu.Lock()
			n.neighbours = all
			n.mu.Unlock()
		case "lease":
			var l redoubt.Lease
			if err := json.Unmarshal(body, &l); err != nil {
				return err
			}
			n.lease.Store(l.Expires.UnixNano())
		}
		return nil
	}
}

// part ends a meeting.
func (m *meeting) part() {
	m.stop()
	m.done.Wait()
	for _, n := range m.sides {
		delete(n.meetings, m)
	}
}

func (n *node) partAll() {
	for m := range n.meetings {
		m.part()
	}
}

// connectAll gives everybody power, has every device meet the home, once and at the same time, and waits until nothing moves.
// Devices do not meet one another any more: what one has of another the home has, or hears of now. Where budgets hold something
// back, those devices meet the home each day until it has come.
func (w *world) connectAll() {
	for _, n := range w.nodes {
		n.partAll()
		n.skew.Store(0)
		n.start()
		n.creds = map[string]redoubt.Credential{}
	}
	w.calm.Store(true)
	for _, n := range w.nodes[1:] {
		w.meet(n, w.home(), way{})
	}
	time.Sleep(40 * time.Minute) // clocks that were ahead are not any more, and what was refused for now was sent again
	w.settled()
	for day := 0; ; day++ {
		n := w.waiting()
		if n == nil {
			return
		}
		if day == mostDays {
			w.fault("budgets still hold back what is between %s and home after %d days: %+v, %+v", n.name, day, n.pending(w.home()), w.home().pending(n))
			return
		}
		w.nextDay()
	}
}

// waiting is a device for which a budget holds something back, or whose own does; nil is none.
func (w *world) waiting() *node {
	for _, n := range w.nodes[1:] {
		if n.honest() && len(n.budget) > 0 && n.pending(w.home()).Versions+w.home().pending(n).Versions > 0 {
			return n
		}
	}
	return nil
}

// mostDays is for how many days what a history wrote may wait: its largest content, at the smallest budget, and as long again.
const mostDays = 15

// nextDay has everybody meet the home on the next day: those with a budget first, for what it lets through is for others too. A home
// that starts tells of people anew, so that all must meet it.
func (w *world) nextDay() {
	for _, n := range w.nodes {
		n.stop(false)
	}
	time.Sleep(24 * time.Hour)
	w.home().start()
	for _, limited := range []bool{true, false} {
		for _, n := range w.nodes[1:] {
			if n.start(); limited == (len(n.budget) > 0) {
				w.meet(n, w.home(), way{})
			}
		}
		time.Sleep(2 * time.Minute)
	}
	w.settled()
}

// settled waits until nothing moves, and has everybody part.
func (w *world) settled() {
	before := w.sizes()
	time.Sleep(time.Minute)
	if after := w.sizes(); after != before {
		w.fault("the fleet does not settle:\n%s\n%s", before, after)
	}
	for _, n := range w.nodes {
		n.partAll()
	}
}

// pending is what a node has for a peer that has not been acknowledged.
func (n *node) pending(peer *node) redoubt.LinkPending {
	p, err := n.stack.Pending(context.Background(), peer.name, func(string) bool { return true })
	if err != nil {
		n.w.fault("%s: what waits for %s: %v", n.name, peer.name, err)
	}
	return p
}
