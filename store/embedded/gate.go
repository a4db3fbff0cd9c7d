package embedded

import "sync"

// gate lets those who wait for a sync of one file share it: a sync that begins after
// mark covers what was written before it.
type gate struct {
	mu      sync.Mutex
	running bool
	next    chan struct{} // closed at the end of the round that has not begun; nil: nobody waits for one
	begun   uint64        // rounds
	covered uint64        // the last that ended well
	faults  uint64        // how many did not, the last with err
	err     error
}

// mark is what a later sync is told of what has been written by now.
func (g *gate) mark() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.begun
}

// failed is what a later sync is told that was so before anything was written.
func (g *gate) failed() (faults uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.faults
}

// sync makes durable what was written after failed gave faults and before mark. A round that failed since, whenever it began, may have lost some
// of it: the kernel tells of that once, and the next one ends well.
func (g *gate) sync(mark, faults uint64, do func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.faults == faults && g.covered <= mark {
		g.round(do)
	}
	if g.faults != faults {
		return g.err
	}
	return nil
}

// round waits for a sync that begins now or later. It is called with mu held, and lets go of it meanwhile.
func (g *gate) round(do func() error) {
	if g.next == nil {
		g.next = make(chan struct{})
	}
	if g.running {
		mine := g.next
		g.mu.Unlock()
		<-mine
		g.mu.Lock()
		return
	}
	g.running = true
	for g.next != nil { // until no one came while the last sync ran
		done := g.next
		g.next = nil
		g.begun++
		begun := g.begun
		g.mu.Unlock()
		err := do()
		g.mu.Lock()
		if err == nil {
			g.covered = begun
		} else {
			g.faults++
			g.err = err
		}
		close(done)
	}
	g.running = false
}
