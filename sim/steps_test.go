package sim_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/label"
)

func parse(t testing.TB, marking string) label.Label {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	l, err := policy.Parse(marking)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// step is one thing that happens. It says all of it, so that a history that lacks others still means the same.
type step struct {
	what    string
	node    int
	peer    int
	subject redoubt.SubjectName
	key     string
	pick    uint64 // of several, which
	size    int
	limit   int // messages until the road breaks; 0: it does not
	pace    int // bytes a second that it takes; 0: no limit
	span    time.Duration
}

func (s step) String() string {
	switch s.what {
	case "put", "large", "delete", "remove", "tag", "hold", "retain", "resolve":
		return fmt.Sprintf("%s by %s at node %d of %s (%d bytes, pick %d)", s.what, s.subject, s.node, s.key, s.size, s.pick)
	case "meet", "again":
		return s.what + fmt.Sprintf(": nodes %d and %d meet, for %d messages at %d bytes a second", s.node, s.peer, s.limit, s.pace)
	case "wait", "years", "skew":
		return fmt.Sprintf("%s %v at node %d", s.what, s.span, s.node)
	}
	return fmt.Sprintf("%s: node %d, peer %d, pick %d", s.what, s.node, s.peer, s.pick)
}

// weight is how often a thing happens.
type weight struct {
	what string
	n    int
}

// weights are what histories are drawn by: the first as all of them once were, so that what was found by it is found again; the
// others in turn, by the seed.
var weights = [][]weight{
	{
		{"put", 60}, {"burst", 12}, {"delete", 10}, {"remove", 14}, {"tag", 16}, {"hold", 4}, {"resolve", 3},
		{"meet", 60}, {"again", 6}, {"part", 10}, {"settle", 12}, {"wait", 16}, {"skew", 6}, {"forget", 4}, {"trim", 20},
		{"crash", 6}, {"off", 6}, {"on", 6}, {"homeless", 2}, {"lose", 2}, {"years", 1}, {"ahead", 1}, {"capture", 1}, {"forge", 12}, {"revoke", 1},
	},
	{ // some of everything
		{"put", 60}, {"burst", 12}, {"large", 2}, {"delete", 10}, {"remove", 14}, {"tag", 16}, {"hold", 8}, {"retain", 4}, {"resolve", 3},
		{"meet", 60}, {"neighbour", 16}, {"again", 6}, {"part", 10}, {"settle", 12}, {"wait", 16}, {"skew", 6}, {"forget", 4}, {"trim", 20},
		{"crash", 6}, {"off", 6}, {"on", 6}, {"homeless", 2}, {"lose", 2}, {"years", 1}, {"ahead", 1}, {"capture", 1}, {"forge", 12}, {"revoke", 1}, {"disown", 1},
		{"join", 3}, {"change", 3}, {"leave", 2}, {"ask", 10},
	},
	{ // in the field: the home is away, and devices meet one another
		{"put", 60}, {"burst", 6}, {"large", 2}, {"delete", 6}, {"remove", 14}, {"tag", 20}, {"hold", 8}, {"retain", 2}, {"resolve", 3},
		{"meet", 30}, {"neighbour", 70}, {"part", 10}, {"settle", 20}, {"wait", 16}, {"skew", 6}, {"forget", 2}, {"trim", 10},
		{"crash", 6}, {"off", 4}, {"on", 6}, {"homeless", 12}, {"lose", 2}, {"ahead", 1}, {"capture", 3}, {"forge", 16}, {"disown", 1},
		{"join", 4}, {"change", 6}, {"leave", 4}, {"ask", 20},
	},
	{ // in a drawer: years go by, and what everybody has heard of is forgotten
		{"put", 40}, {"burst", 4}, {"delete", 6}, {"remove", 40}, {"tag", 10}, {"hold", 4}, {"retain", 4},
		{"meet", 50}, {"neighbour", 50}, {"part", 16}, {"settle", 30}, {"wait", 10}, {"forget", 6}, {"trim", 50},
		{"crash", 4}, {"off", 4}, {"on", 20}, {"lose", 1}, {"years", 8}, {"capture", 1}, {"forge", 4},
		{"join", 2}, {"change", 3}, {"leave", 2}, {"ask", 6},
	},
}

// drawn is by which weights a seed draws.
func drawn(seed uint64) []weight { return weights[1+seed%3] }

var subjects = []redoubt.SubjectName{"ts-analyst", "s-analyst", "c-analyst", "gbr-liaison", "u-analyst"}

// draw makes a history of a seed.
func draw(seed uint64, devices, steps int, weights []weight) (all []step) {
	r, later := rand.New(rand.NewPCG(seed, 7)), rand.New(rand.NewPCG(seed, 8))
	total := 0
	for _, w := range weights {
		total += w.n
	}
	for range steps {
		s := step{node: r.IntN(devices + 1), peer: r.IntN(devices + 1), subject: subjects[r.IntN(len(subjects))], pick: r.Uint64()}
		n := r.IntN(total)
		for _, w := range weights {
			if n -= w.n; n < 0 {
				s.what = w.what
				break
			}
		}
		if r.IntN(3) > 0 { // most things happen between a device and its home
			s.peer = 0
		}
		s.key = []string{"a/", "b/", "c/"}[r.IntN(3)] + fmt.Sprint("k", r.IntN(2))
		s.size = []int{0, 10, 200, 4000, 40_000, 300_000}[r.IntN(6)]
		if r.IntN(2) == 0 {
			s.limit = 2 + r.IntN(14)
		}
		s.span = time.Duration(1+r.IntN(90)) * time.Second
		switch s.what {
		case "skew":
			s.span = time.Duration(r.IntN(240)-120) * time.Second
		case "years":
			s.span = time.Duration(30+r.IntN(400)) * 24 * time.Hour
		case "large":
			s.size = 9<<20 + later.IntN(11<<20)
		}
		if roll := later.IntN(8); s.limit > 0 && roll < 2 { // it breaks within large content
			s.limit *= 40
		} else if s.limit == 0 && roll < 2 {
			s.pace = 16 << (10 + later.IntN(8))
		}
		all = append(all, s)
	}
	return all
}

// play makes one step happen, as far as it can.
func (w *world) play(s step) {
	n, peer := w.nodes[s.node], w.nodes[s.peer]
	switch s.what {
	case "meet", "again", "neighbour":
		w.encounter(n, peer, s)
	case "part":
		n.partAll()
	case "settle":
		synctest.Wait()
	case "wait":
		time.Sleep(s.span)
	case "skew":
		n.skew.Store(int64(s.span))
	case "ahead":
		if s.node > 0 { // what it writes is refused for now until the others' clocks have caught up
			n.skew.Store(int64(20 * time.Minute))
		}
	case "crash":
		n.stop(true)
		n.start()
	case "off":
		n.stop(s.pick%2 == 0)
	case "on":
		n.start()
	case "homeless":
		w.home().stop(s.pick%2 == 0)
	case "years":
		for _, n := range w.nodes {
			n.stop(s.pick%2 == 0)
		}
		time.Sleep(s.span)
		for _, n := range w.nodes {
			if s.pick>>uint(n.index%60)&2 == 0 {
				n.start()
			}
		}
	case "forget":
		if n.stack != nil && n != peer {
			if err := n.stack.Forget(context.Background(), peer.name); err != nil {
				w.t.Fatal(err)
			}
		}
	case "trim":
		if n.stack != nil {
			if err := n.stack.Trim(context.Background()); err != nil {
				w.fault("%s: trim: %v", n.name, err)
			}
		}
	case "lose", "revoke", "capture":
		if s.node > 0 && n.honest() {
			w.lose(n, s.what)
		}
	case "disown":
		w.disown(s.pick)
	case "forge":
		w.forge(s)
	case "join", "change", "leave":
		w.staff(s)
	case "ask":
		if n.stack != nil && !n.captured {
			w.ask(n, s.pick)
		}
	default:
		if n.stack != nil && !n.captured {
			w.act(n, s)
		}
	}
}

// encounter has two nodes meet: of devices those that the first was told of.
func (w *world) encounter(n, peer *node, s step) {
	if s.what == "neighbour" || n.index > 0 && peer.index > 0 {
		if peer = n.neighbour(s.pick); peer == nil {
			return
		}
	}
	w.meetBeside(n, peer, way{limit: s.limit, pace: s.pace}, s.what == "again")
}

// disown has the home revoke a device that somebody else has. Who has not heard of it meets it until its lease ends.
func (w *world) disown(pick uint64) {
	for i := range w.nodes {
		n := w.nodes[(uint64(i)+pick)%uint64(len(w.nodes))]
		if !n.captured || n.disowned {
			continue
		}
		n.disowned = true
		w.endDevice(n, "disowned")
		return
	}
}

// endDevice has the home end a device, and the meetings with it.
func (w *world) endDevice(n *node, why string) {
	home := w.home()
	home.start()
	if err := home.stack.EndDevice(context.Background(), home.as("officer", ""), n.name, false, false, why); err != nil {
		w.t.Fatal(err)
	}
	for m := range home.meetings {
		if m.sides[0] == n || m.sides[1] == n {
			m.part()
		}
	}
}

// lose ends a device as it was: its state is gone and another takes its name, it is revoked, or somebody else has it.
func (w *world) lose(n *node, how string) {
	home := w.home()
	home.start()
	n.start()
	w.ledger.uncertain(n, home)
	switch how {
	case "capture":
		n.captured = true
		return
	case "revoke":
		n.retired = true
	}
	n.stop(true)
	w.endDevice(n, how)
	if how == "lose" {
		n.home, n.makers = nil, nil
		n.fresh()
	}
}
