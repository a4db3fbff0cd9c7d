package redoubttest

import (
	"context"
	"crypto/x509"
	"math/rand/v2"
	"sync"
	"time"

	"redoubt"
)

// Road is one end of a road between two nodes in memory, with a few messages under way: each precedence comes in order, and
// between them there is none. It promises as much as carry.Conn does, and no more, without a network.
type Road struct {
	in, out *lane
	cut     func()
}

// NewRoad makes both ends. When one end closes both have ended, once what was under way has come; after limit messages in one
// direction (0: no limit) the road breaks, and what was under way is lost.
func NewRoad(limit int) (a, b *Road) {
	left, right := newLane(), newLane()
	var once sync.Once
	end := func(lost bool) func() { return func() { once.Do(func() { left.end(lost); right.end(lost) }) } }
	left.limit, right.limit, left.breaks, right.breaks = limit, limit, end(true), end(true)
	return &Road{in: left, out: right, cut: end(false)}, &Road{in: right, out: left, cut: end(false)}
}

// Bytes is how much this end has sent.
func (r *Road) Bytes() (messages, bytes int) {
	r.out.mu.Lock()
	defer r.out.mu.Unlock()
	return r.out.messages, r.out.bytes
}

// Pace has what this end sends take time, as on a line of so many bytes a second.
func (r *Road) Pace(bytesPerSecond int) { r.out.pace = bytesPerSecond }

// Break ends the road for both ends; what was under way is lost.
func (r *Road) Break() { r.out.breaks() }

// Watch has each message that this end sends shown.
func (r *Road) Watch(each func(msg []byte)) { r.out.watch = each }

// maxMessage is the longest message of a road: that of carry.Conn.
const maxMessage = 1 << 20

// Send queues a message; see carry.Conn.
func (r *Road) Send(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	if len(msg) == 0 || len(msg) > maxMessage {
		return &redoubt.Error{Op: "Road.Send", Kind: redoubt.TooLarge}
	}
	return r.out.put(ctx, p, append([]byte(nil), msg...))
}

// Receive gives the next message of a precedence that chance picks.
func (r *Road) Receive(ctx context.Context) (redoubt.Precedence, []byte, error) { return r.in.get(ctx) }

// Recycle spoils a message, so that who looks at it later is found out.
func (r *Road) Recycle(msg []byte) {
	for i := range msg {
		msg[i] ^= 0xff
	}
}

// Peer is nobody: what stands on a Road knows who it speaks with.
func (r *Road) Peer() *x509.Certificate { return nil }

// Close ends both ends.
func (r *Road) Close() error { r.cut(); return nil }

// laneDepth is how many messages of one precedence may be under way.
const laneDepth = 4

type lane struct {
	mu              sync.Mutex
	changed         *sync.Cond
	queues          [redoubt.Precedences][][]byte
	ended           bool
	limit           int
	breaks          func()
	messages, bytes int
	watch           func([]byte)
	pace            int       // bytes a second; 0: no limit
	free            time.Time // when the line is, that has one
	dice            *rand.Rand
}

func newLane() *lane {
	l := &lane{dice: rand.New(rand.NewPCG(1, 1))}
	l.changed = sync.NewCond(&l.mu)
	return l
}

func (l *lane) put(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queues[p]) >= laneDepth && !l.ended && ctx.Err() == nil {
		l.changed.Wait()
	}
	if l.ended || ctx.Err() != nil {
		return &redoubt.Error{Op: "Road.Send", Kind: redoubt.Unavailable, Err: ctx.Err()}
	}
	l.messages++
	l.bytes += len(msg)
	if l.pace > 0 {
		l.travel(len(msg))
		if l.ended {
			return &redoubt.Error{Op: "Road.Send", Kind: redoubt.Unavailable}
		}
	}
	l.queues[p] = append(l.queues[p], msg)
	if l.watch != nil {
		l.watch(msg)
	}
	if l.limit > 0 && l.messages >= l.limit {
		go l.breaks()
	}
	l.changed.Broadcast()
	return nil
}

// travel waits for as long as bytes are under way, behind those that were sent before. The lock is held, and let go of meanwhile.
func (l *lane) travel(bytes int) {
	begin := time.Now()
	if l.free.After(begin) {
		begin = l.free
	}
	l.free = begin.Add(time.Duration(bytes) * time.Second / time.Duration(l.pace))
	there := l.free
	l.mu.Unlock()
	time.Sleep(time.Until(there))
	l.mu.Lock()
}

func (l *lane) get(ctx context.Context) (redoubt.Precedence, []byte, error) {
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		first := l.dice.IntN(redoubt.Precedences)
		for i := range redoubt.Precedences {
			p := redoubt.Precedence((first + i) % redoubt.Precedences)
			if q := l.queues[p]; len(q) > 0 {
				l.queues[p] = q[1:]
				l.changed.Broadcast()
				return p, q[0], nil
			}
		}
		if l.ended || ctx.Err() != nil {
			return 0, nil, &redoubt.Error{Op: "Road.Receive", Kind: redoubt.Unavailable, Err: ctx.Err()}
		}
		l.changed.Wait()
	}
}

func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

func (l *lane) end(lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if lost {
		clear(l.queues[:])
	}
	l.changed.Broadcast()
}
