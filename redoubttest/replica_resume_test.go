package redoubttest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// guarded is a road on whose way in each message is looked at before it is given on; false: it never comes, and nothing behind it.
type guarded struct {
	*redoubttest.Road
	passes func(msg []byte) bool
	shut   bool
}

func (g *guarded) Receive(ctx context.Context) (redoubt.Precedence, []byte, error) {
	if !g.shut {
		p, msg, err := g.Road.Receive(ctx)
		if err != nil || g.passes(msg) {
			return p, msg, err
		}
		g.shut = true
	}
	<-ctx.Done()
	return 0, nil, ctx.Err()
}

// meetGuarded is meet with a guard on one end's way in.
func (p *pair) meetGuarded(end int, passes func(msg []byte) bool) {
	m := &meeting{errs: make(chan error, 2)}
	m.road[0], m.road[1] = redoubttest.NewRoad(0)
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	for i, s := range p.ends {
		o := replica.Options{Estate: "example", Node: s.Name(), Peer: p.ends[1-i].Name(), Journal: s, State: s, Conn: m.road[i]}
		if i == end {
			o.Conn = &guarded{Road: m.road[i], passes: passes}
		}
		m.ends[i] = replica.New(o)
		go func() { m.errs <- m.ends[i].Run(ctx) }()
	}
	p.m = m
}

// after lets n messages of a kind pass, and nothing behind them.
func after(kind byte, n int) func(msg []byte) bool {
	return func(msg []byte) bool {
		if msg[0] == kind {
			n--
		}
		return n >= 0
	}
}

// pieces is the kind of a message with a piece of content.
const pieces = 'p'

func TestWhatCameAllAtOnceIsKeptThoughNothingFollows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		put(t, p.ends[1], p.who(1), "imagery", noise(1, 1<<20), "")
		p.meetGuarded(0, after(pieces, 10))
		time.Sleep(50 * time.Millisecond)
		p.kill(0)
		kept, err := p.ends[0].Arriving(context.Background(), "outpost")
		if err != nil || len(kept) != 1 || kept[0].Part < 10*16<<10 {
			t.Errorf("of ten pieces of 16 KiB the home kept %+v, %v", kept, err)
		}
		p.meet(0)
		synctest.Wait()
		p.part()
		p.same()
		p.fine()
	})
}

// TestWhatThePeerHasInPartGoesOnBeforeItHasSaidWhatItLacks withholds the answer: a round trip, and more where it is lost.
func TestWhatThePeerHasInPartGoesOnBeforeItHasSaidWhatItLacks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.meet(0) // so that the sets have been compared
		put(t, p.ends[1], p.who(1), "before", "before", "")
		synctest.Wait()
		time.Sleep(2 * time.Second)
		p.part()
		put(t, p.ends[1], p.who(1), "imagery", noise(1, 1<<20), "")
		put(t, p.ends[1], p.who(1), "other", noise(2, 1<<20), "")
		p.meetGuarded(0, after(pieces, 10))
		time.Sleep(50 * time.Millisecond)
		p.kill(0)
		put(t, p.ends[1], p.who(1), "contact", "report", "flash")
		const lacking = 'Q'
		p.meetGuarded(1, func(msg []byte) bool { return msg[0] != lacking })
		synctest.Wait()
		if got := seen(t, p.ends[0], p.who(0)); len(got) != 3 {
			t.Errorf("without an answer the home shows %d versions, want what came before, what it had in part and what is flash", len(got))
		}
		p.part()
		p.meet(0)
		synctest.Wait()
		p.part()
		p.same()
		p.fine()
	})
}
