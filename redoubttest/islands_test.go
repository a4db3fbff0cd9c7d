package redoubttest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
	"redoubt/replica"
)

// ledger holds what a sender sends of each segment against what its peer told it has of that.
type ledger struct {
	mu       sync.Mutex
	t        *testing.T
	segments int // that went on from islands
	islands  int // that were told
	spared   int // bytes of them
	pieces   int
	longest  int // piece
}

// ledgerConn is the sender's Conn of one meeting. One version is on its way at a time.
type ledgerConn struct {
	carry.Conn
	l           *ledger
	part, apart int // bytes that the peer told
	due         int // bytes of the segment that it lacks
}

// showing is a ledgerConn that shows what comes.
type showing struct{ *ledgerConn }

func (c showing) Coming(p redoubt.Precedence, each func(n, length, at int, data []byte)) {
	c.Conn.(interface {
		Coming(redoubt.Precedence, func(n, length, at int, data []byte))
	}).Coming(p, each)
}

func (c *ledgerConn) Receive(ctx context.Context) (redoubt.Precedence, []byte, error) {
	p, msg, err := c.Conn.Receive(ctx)
	if err != nil {
		return p, msg, err
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	const note = "n\x07islands"
	switch {
	case len(msg) > len(note) && string(msg[:len(note)]) == note:
		body := msg[len(note)+32:]
		for b := body[1:]; len(b) > 0; b = b[6:] {
			c.apart += int(b[3])<<16 | int(b[4])<<8 | int(b[5])
			c.l.islands++
		}
		if int(body[0]) != (len(body)-1)/6 {
			c.l.t.Errorf("a note of more than one version: %x", body)
		}
	case msg[0] == 'h':
		b := msg[2:]
		b = b[1+int(b[0]):]
		b = b[1+int(b[0])+32:]
		if b[0] == 1 {
			b = b[3+int(binary.BigEndian.Uint16(b[1:])):]
			c.part = int(binary.BigEndian.Uint32(b[24:]))
		}
	}
	return p, msg, err
}

func (c *ledgerConn) Send(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	c.l.mu.Lock()
	switch msg[0] {
	case 's', 'S':
		size, skip := int(binary.BigEndian.Uint32(msg[10:])), int(binary.BigEndian.Uint32(msg[14:]))
		if c.due = size - skip; msg[0] == 'S' {
			c.due -= c.apart
			c.l.segments++
			c.l.spared += c.apart
		} else if c.apart > 0 {
			c.l.t.Errorf("islands of %d bytes were told, and are not gone on from", c.apart)
		}
		if skip != max(0, c.part-5) {
			c.l.t.Errorf("a part of %d bytes was told, and %d are gone on from", c.part-5, skip)
		}
		c.part, c.apart = 0, 0
	case 'p':
		c.l.pieces, c.l.longest = c.l.pieces+1, max(c.l.longest, len(msg)-9)
		if c.due -= len(msg) - 9; c.due < 0 {
			c.l.t.Errorf("%d bytes more are sent of a segment than were lacking", -c.due)
		}
	}
	c.l.mu.Unlock()
	return c.Conn.Send(ctx, p, msg)
}

// chances is a road that a slow link may be, by a seed.
func chances(dice *rand.Rand) carrytest.Road {
	r := carrytest.Road{BitsPerSec: 128e3 * float64(1+dice.IntN(16)), Delay: time.Duration(20+dice.IntN(200)) * time.Millisecond,
		Loss: 0.02 + 0.25*dice.Float64(), QueueBytes: 40_000, MTU: 1280 + dice.IntN(220)}
	if dice.IntN(2) == 0 {
		r.Jitter = time.Duration(dice.IntN(60)) * time.Millisecond
	}
	if dice.IntN(2) == 0 {
		r.Duplicate = 0.1 * dice.Float64()
	}
	if dice.IntN(2) == 0 {
		r.Up, r.Down = time.Duration(5+dice.IntN(20))*time.Second, time.Duration(1+dice.IntN(20))*time.Second
	}
	return r
}

// TestWhateverIsLostAndWhoeverDiesNothingThatWasToldIsSentAgain has one version after the other cross roads that lose, repeat and reorder, and are down at times,
// while either end dies at any moment: each comes as it was, and of what the receiver told that it has, be it behind a loss, not a byte is sent again.
func TestWhateverIsLostAndWhoeverDiesNothingThatWasToldIsSentAgain(t *testing.T) {
	seeds := uint64(10)
	if testing.Short() {
		seeds = 3
	}
	all := ledger{}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dice := rand.New(rand.NewPCG(seed, 44))
				f := newField(t, seed, carrytest.LinkC)
				f.network.SetRoad(fieldHome, fieldDevice, chances(dice))
				l := &ledger{t: t}
				f.spy = func(end int, c carry.Conn) replica.Conn { return showing{&ledgerConn{Conn: c, l: l}} }
				f.kill(1) // so that the spy stands
				for i := range 3 {
					put(f.t, f.ends[1], f.as[1], fmt.Sprintf("load/%d", i), noise(seed<<8|uint64(i), 40_000+dice.IntN(500_000)), "")
					next := time.Now()
					for began := time.Now(); !f.has(0, i+3); time.Sleep(50 * time.Millisecond) {
						if time.Now().After(next) {
							f.kill(dice.IntN(2))
							next = time.Now().Add(time.Second + time.Duration(dice.Int64N(int64(12*time.Second))))
						}
						if time.Since(began) > time.Hour {
							t.Fatal("it comes to no end")
						}
					}
				}
				f.same()
				f.out(1)
				f.out(0)
				l.mu.Lock()
				defer l.mu.Unlock()
				t.Logf("%d segments went on from %d islands told of; %d bytes were spared; %d pieces, of %d bytes at most", l.segments, l.islands, l.spared, l.pieces, l.longest)
				all.segments, all.spared, all.longest = all.segments+l.segments, all.spared+l.spared, max(all.longest, l.longest)
			})
		})
	}
	if all.segments < int(seeds) || all.spared < 1000*int(seeds) || all.longest < 32<<10 {
		t.Errorf("%d segments went on from islands, by which %d bytes were spared; the longest piece had %d: little was tried", all.segments, all.spared, all.longest)
	}
}

// earlier is the Conn of a node of a version before there were islands: it shows nothing, and a note of them is none that it knows.
type earlier struct{ carry.Conn }

func (c earlier) Receive(ctx context.Context) (redoubt.Precedence, []byte, error) {
	for {
		p, msg, err := c.Conn.Receive(ctx)
		if err != nil || len(msg) < 9 || string(msg[:9]) != "n\x07islands" {
			return p, msg, err
		}
	}
}

// told counts what a Conn receives of islands.
type told struct {
	showing
	n *int
}

func (c told) Receive(ctx context.Context) (redoubt.Precedence, []byte, error) {
	p, msg, err := c.showing.Receive(ctx)
	if err == nil && len(msg) > 9 && string(msg[:9]) == "n\x07islands" {
		*c.n++
	}
	return p, msg, err
}

// TestANodeOfAnEarlierVersionIsMetAsBefore has either end be one.
func TestANodeOfAnEarlierVersionIsMetAsBefore(t *testing.T) {
	for old := range 2 {
		bubble(t, func(t *testing.T) {
			f := newField(t, 5, carrytest.LinkC)
			l, n := &ledger{t: t}, 0
			f.spy = func(end int, c carry.Conn) replica.Conn {
				switch own := (&ledgerConn{Conn: c, l: l}); {
				case end == old && end == 1: // it sends; the ledger is kept of what it would have sent
					return earlier{own}
				case end == old:
					return earlier{c}
				case end == 1:
					return told{showing{own}, &n}
				default:
					return told{showing{&ledgerConn{Conn: c, l: &ledger{t: t}}}, &n}
				}
			}
			f.kill(0)
			f.kill(1)
			put(f.t, f.ends[1], f.as[1], "load", noise(9, 600_000), "")
			for kills := 0; !f.has(0, 3); kills++ {
				time.Sleep(7 * time.Second)
				f.kill(kills % 2)
			}
			f.same()
			f.out(1)
			f.out(0)
			if l.segments > 0 || l.pieces < 100 || l.longest > 16<<10 || n > 0 {
				t.Errorf("end %d is of an earlier version: %d segments went on from islands, of %d told; %d pieces of %d bytes at most", old, l.segments, n, l.pieces, l.longest)
			}
		})
	}
}
