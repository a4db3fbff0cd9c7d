package filter

import (
	"context"
	"sync"

	"redoubt/sandbox"
)

// pool keeps processes of one program that stand behind their walls and wait for input. Each is for one input and ends with it; as one is
// taken the next is started. A pool that keeps none starts each when it is asked.
type pool struct {
	program sandbox.Program
	keep    int

	mu     sync.Mutex
	ready  []*sandbox.Process
	coming int  // being started
	closed bool // ready stays empty
	starts sync.WaitGroup
}

func newPool(p sandbox.Program, keep int) *pool { return &pool{program: p, keep: keep} }

// run gives input to a process and waits for its output.
func (p *pool) run(ctx context.Context, in []byte) ([]byte, error) {
	out, _, err := p.runSaid(ctx, in)
	return out, err
}

// runSaid is run, and what the process said on standard error.
func (p *pool) runSaid(ctx context.Context, in []byte) (out []byte, said string, err error) {
	p.mu.Lock()
	var r *sandbox.Process
	if n := len(p.ready); n > 0 {
		r, p.ready = p.ready[n-1], p.ready[:n-1]
	}
	p.mu.Unlock()
	defer p.refill() // after the work, so that one starting does not take the processor of one that works
	if r == nil {
		if r, err = sandbox.Start(p.program); err != nil {
			return nil, "", err
		}
	}
	out, err = r.Run(ctx, in)
	return out, r.Said(), err
}

// refill starts what is missing, in the background. A start that fails is told to whoever needs the process next.
func (p *pool) refill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && len(p.ready)+p.coming < p.keep {
		p.coming++
		p.starts.Go(func() {
			r, err := sandbox.Start(p.program)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.coming--
			switch {
			case err != nil:
			case p.closed:
				r.Kill()
			default:
				p.ready = append(p.ready, r)
			}
		})
	}
}

// close ends what waits. No run may begin after it.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, r := range ready {
		r.Kill()
	}
	p.starts.Wait()
}
