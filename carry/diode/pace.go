package diode

import (
	"context"
	"time"
)

// maxBurst bounds what is sent at once to make up for a sleep that was too long: who sleeps longer than this has lost that time.
const maxBurst = 3 * time.Millisecond

// leastSleep is what is not slept: at a fast pace a few go together, for each sleep costs more than a datagram.
const leastSleep = 200 * time.Microsecond

// pacer spaces datagrams out so that they make a rate, to the bit over any length of time.
type pacer struct {
	rate  int64     // bits a second
	next  time.Time // when the next may go
	left  int64     // of a nanosecond, in parts of rate
	timer *time.Timer
}

func newPacer(rate int64) *pacer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &pacer{rate: rate, timer: t}
}

// wait returns when size bytes may go.
func (p *pacer) wait(ctx context.Context, size int) error {
	now := time.Now()
	if earliest := now.Add(-maxBurst); p.next.Before(earliest) {
		p.next, p.left = earliest, 0
	}
	if d := p.next.Sub(now); d >= leastSleep {
		p.timer.Reset(d)
		select {
		case <-ctx.Done():
			p.timer.Stop()
			return ctx.Err()
		case <-p.timer.C:
		}
	}
	ns := int64(size)*8*int64(time.Second) + p.left
	p.next, p.left = p.next.Add(time.Duration(ns/p.rate)), ns%p.rate
	return ctx.Err()
}
