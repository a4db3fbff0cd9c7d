package compute

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"redoubt"
	"redoubt/label"
)

const (
	maxBackoff = 30 * time.Second
	poolKept   = time.Hour // without a call: so long its log and what it counted can be seen
	emptyPools = 64        // of one label, in which nothing runs: the log of one is a few hundred KB
)

// pool is what runs of one service at one label.
type pool struct {
	name   redoubt.ServiceName
	by     redoubt.SubjectName
	of     string // banner of the service's own label
	at     label.Label
	since  time.Time
	log    ring
	forget *time.Timer

	mu       sync.Mutex
	closed   bool // nothing is begun any more
	replaced bool // another deployment has its name: what it has ends as it becomes free
	called   time.Time
	wake     chan struct{} // closed and replaced when an instance is free, begun or gone
	revision int
	all      []*running
	starting int
	waiting  int
	requests int64
	failed   int64
	fault    string
	faults   int       // in a row
	after    time.Time // of the last fault: not before it is another begun
	bad      int       // the newest revision that could not be begun
}

// running is one instance.
type running struct {
	Instance
	revision int
	atOnce   int
	calls    int // under way
	idle     *time.Timer
	gone     bool
}

// empty says that nothing runs, begins or waits. p.mu is held.
func (p *pool) empty() bool { return len(p.all) == 0 && p.starting == 0 && p.waiting == 0 }

// news tells those that wait for an instance to look again. p.mu is held.
func (p *pool) news() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// faulty is the answer while nothing can be begun.
func (p *pool) faulty(wait time.Duration) error {
	return &redoubt.Error{Op: "Serve", Object: string(p.name), Kind: redoubt.Unavailable, Hint: fmt.Sprintf("it cannot be begun, and is tried again in %s: %s", wait.Round(time.Second), p.fault)}
}

// count counts the instances of a revision.
func (p *pool) count(revision int) (n int) {
	for _, x := range p.all {
		if x.revision == revision {
			n++
		}
	}
	return n
}

// newest is the newest revision that there is an instance of; 0: there is none. p.mu is held.
func (p *pool) newest() (n int) {
	for _, x := range p.all {
		n = max(n, x.revision)
	}
	return n
}

// free takes an instance that has room, of the newest revision there is one of. p.mu is held.
func (p *pool) free() *running {
	newest := p.newest()
	for _, x := range p.all {
		if x.revision == newest && x.calls < x.atOnce {
			x.calls++
			x.idle.Stop()
			return x
		}
	}
	return nil
}

// ring keeps the end of what is written to it.
type ring struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, p...)
	if over := len(r.text) - redoubt.MaxServiceLogBytes; over > redoubt.MaxServiceLogBytes/4 {
		r.text = append(r.text[:0:0], r.text[over:]...)
	}
	return len(p), nil
}

func (r *ring) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.text)
	r.text = nil
}

func (r *ring) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.text[max(0, len(r.text)-redoubt.MaxServiceLogBytes):])
}
