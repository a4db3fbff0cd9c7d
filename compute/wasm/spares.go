package wasm

import (
	"bufio"
	"context"
	"io"
	"runtime"
	"sync"
	"time"

	"redoubt/sandbox"
)

// A worker is begun before it is needed where the same share has run the same module lately: it stands behind its walls with the module ready, and was told
// nothing else. It runs one attempt, as any, and is another share's never.

const (
	spareLife  = 15 * time.Second // without a run: its memory is that of the module
	spareAfter = time.Minute      // so long a first run is remembered: the second has spares made
	spareBytes = 32 << 20         // of a module, with what is made of it (made.weight), that workers stand ready for: each holds it whole,
	laneBytes  = 256 << 20        // and of those of all that stand ready for one MAX
	endTime    = time.Second      // that a worker has to end in when it has said its last word
)

// shelfKey is what workers that stand ready have in common.
type shelfKey struct {
	lane, share, module string
	memory, disk        int64
	timeout             time.Duration
}

// spares are the workers that stand ready. How many there may be is counted for each lane alone, so that what goes on at one MAX takes none from another.
type spares struct {
	life  time.Duration
	ends  time.Duration // endTime
	start func(shelfKey, *made) (*sandbox.Process, error)

	mu      sync.Mutex
	closed  bool
	shelves map[shelfKey]*shelf
	work    sync.WaitGroup // workers that were begun
}

// shelf is what there is for one key.
type shelf struct {
	all  []*runner // the oldest first
	used time.Time
	ends *time.Timer
}

// most is how many stand ready for one share and module, and twice that for one MAX.
var most = runtime.NumCPU()

// take gives a worker: one that stands ready, or is begun. From the second time on it has others begun in its place.
func (s *spares) take(key shelfKey, m *made) *runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := s.shelves[key], time.Now()
	again := h != nil
	if h == nil {
		h = &shelf{}
		h.ends = time.AfterFunc(spareAfter, func() { s.forget(key, h) })
		if !s.closed {
			s.shelves[key] = h
		}
	}
	h.used = now
	var r *runner
	for r == nil && len(h.all) > 0 {
		r, h.all = h.all[0], h.all[1:]
		select {
		case <-r.ended:
			r = nil
		default:
		}
	}
	if r == nil {
		r = s.begin(key, m)
	}
	if again && !s.closed {
		h.ends.Reset(s.life)
		for weight, known := m.weight(); known && len(h.all) < most && s.room(key, weight); {
			another, start := newRunner(s.ends), s.start
			another.bytes = weight
			h.all = append(h.all, another)
			s.work.Go(func() { another.run(start, key, m) })
		}
	}
	return r
}

// begin gives a worker that was not begun before. s.mu is held.
func (s *spares) begin(key shelfKey, m *made) *runner {
	r, start := newRunner(s.ends), s.start
	run := func() { r.run(start, key, m) }
	if s.closed {
		go run()
	} else {
		s.work.Go(run)
	}
	return r
}

// room makes room for one more on the shelf of a key, by others' of its lane that were not used for longer; false: there is none. s.mu is held.
func (s *spares) room(key shelfKey, bytes int) bool {
	if bytes > spareBytes {
		return false
	}
	for {
		n, held := 0, bytes
		var oldest *shelf
		for k, h := range s.shelves {
			if k.lane != key.lane {
				continue
			}
			n += len(h.all)
			for _, r := range h.all {
				held += r.bytes
			}
			if k != key && len(h.all) > 0 && (oldest == nil || h.used.Before(oldest.used)) {
				oldest = h
			}
		}
		if n < 2*most && held <= laneBytes {
			return true
		}
		if oldest == nil {
			return false
		}
		oldest.all[0].cancel()
		oldest.all = oldest.all[1:]
	}
}

// forget ends what stands on a shelf that was not used for long.
func (s *spares) forget(key shelfKey, h *shelf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shelves[key] != h {
		return
	}
	if len(h.all) == 0 && time.Since(h.used) < spareAfter { // it is remembered for longer than it holds anything
		h.ends.Reset(spareAfter)
		return
	}
	h.clear()
	delete(s.shelves, key)
}

// clear ends what stands on it.
func (h *shelf) clear() {
	h.ends.Stop()
	for _, r := range h.all {
		r.cancel()
	}
	h.all = nil
}

// close ends them all, and none is begun any more.
func (s *spares) close() {
	s.mu.Lock()
	s.closed = true
	for key, h := range s.shelves {
		h.clear()
		delete(s.shelves, key)
	}
	s.mu.Unlock()
	s.work.Wait()
}

// runner is a worker for one run.
type runner struct {
	bytes  int // made.weight, where it stands ready
	ctx    context.Context
	cancel context.CancelFunc
	ends   time.Duration // that it may take to end when it has said its last word
	job    chan *session // what it is for, once
	done   chan struct{} // closed when it has said its last word in order: nothing is heard of it any more
	ended  chan struct{} // closed when it runs no more

	said, exit error // once it has ended
}

func newRunner(ends time.Duration) *runner {
	r := &runner{ends: ends, job: make(chan *session, 1), done: make(chan struct{}), ended: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// run has the worker load the module, wait for what it is for, and do that.
func (r *runner) run(start func(shelfKey, *made) (*sandbox.Process, error), key shelfKey, m *made) {
	defer close(r.ended)
	defer r.cancel()
	p, err := start(key, m)
	if err != nil {
		r.said = err
		return
	}
	var ends *time.Timer
	defer func() {
		if ends != nil {
			ends.Stop()
		}
	}()
	r.said, r.exit = p.Talk(r.ctx, func(in io.Writer, out io.Reader) error {
		f := frames{r: bufio.NewReaderSize(out, 64<<10), w: in}
		if err := f.load(loading{Memory: key.memory, Disk: key.disk, Made: m.name}, m.bare, m.code); err != nil {
			return err
		}
		if err := f.ready(); err != nil {
			return err
		}
		select {
		case s := <-r.job:
			s.frames, s.window = f, p.Window()
			if err := s.talk(r.ctx); err != nil {
				return err
			}
			ends = time.AfterFunc(r.ends, r.cancel)
			close(r.done)
			return nil
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	})
}

// serve has it do what it is for, and gives how that ended. When ctx ends so does the worker. For the end of a worker that has said its last word in order
// nobody waits: the kernel takes its memory back, which for a large one takes longer than it ran.
func (r *runner) serve(ctx context.Context, s *session) (said, exit error) {
	stop := context.AfterFunc(ctx, r.cancel)
	defer stop()
	r.job <- s
	select {
	case <-r.done:
	case <-r.ended:
	}
	select {
	case <-r.done:
		return nil, nil
	default:
		return r.said, r.exit
	}
}

// start begins the process of a worker.
func (d *Driver) start(key shelfKey, m *made) (*sandbox.Process, error) {
	w, err := sandbox.NewWindow(places, maxPiece)
	if err != nil {
		return nil, err
	}
	return sandbox.Start(sandbox.Program{Name: "wasm", Worker: runnerName, Binary: d.binary, Nice: niceness, Window: w, Scratch: key.disk + int64(len(m.code)) + 16384,
		Limits: sandbox.Limits{Memory: key.memory + workerMemory + int64(m.size()), CPU: key.timeout + 10*time.Second, Files: 256}})
}
