package embedded

import "sync"

// gate lets those who wait for a sync of one file share it: a sync that begins after
// mark covers what was written before it.
type gate struct {
	mu      sync.Mutex
	running bool
	next    *syncRound
	begun   uint64 // rounds
	covered uint64 // the last that ended well
	failed  uint64 // the last that did not, with err
	err     error
}

type syncRound struct {
	done chan struct{}
	err  error
}

// mark is what a later sync is told of what has been written by now.
func (g *gate) mark() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.begun
}

// sync makes durable what was written before mark. A round that began since and failed may have lost it: the kernel tells of that once.
func (g *gate) sync(mark uint64, do func() error) error {
	g.mu.Lock()
	if g.failed > mark || g.covered > mark {
		defer g.mu.Unlock()
		if g.failed > mark {
			return g.err
		}
		return nil
	}
	if g.next == nil {
		g.next = &syncRound{done: make(chan struct{})}
	}
	mine := g.next
	if g.running {
		g.mu.Unlock()
		<-mine.done
		return mine.err
	}
	g.running = true
	for g.next != nil { // until no one came while the last sync ran
		round := g.next
		g.next = nil
		g.begun++
		g.mu.Unlock()
		round.err = do()
		g.mu.Lock()
		if round.err == nil {
			g.covered = g.begun
		} else {
			g.failed, g.err = g.begun, round.err
		}
		close(round.done)
	}
	g.running = false
	g.mu.Unlock()
	return mine.err
}
