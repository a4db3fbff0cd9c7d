package guard

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"redoubt"
)

// atOnce is how many releases are in hand at once, of those to be filtered, to be fetched and to each of the two enclaves: each holds its content
// twice, and a filter's process.
const atOnce = 2

// errLater says that where a release goes has as many in hand as it may: it is begun again.
var errLater = errors.New("later")

// lane is where a release goes, once that is known. Those of one lane wait for one another, and for no other's.
type lane string

// queue is what one worker has in hand.
type queue struct {
	ended chan struct{} // one of them is done

	mu    sync.Mutex
	jobs  map[redoubt.ReleaseID]*job
	hands map[lane]int
}

type job struct {
	busy  bool
	lane  lane
	next  time.Time     // it is begun again no earlier
	pause time.Duration // that it rests if it fails once more
}

// deadline is how long content of a size may take to an enclave or from it, with all that the enclave does about it: one that falls silent holds its own
// lane up so long, and no other.
func deadline(bytes int64) time.Duration {
	return 10*time.Minute + time.Duration(bytes>>16)*time.Second // 64 KiB/s
}

// work does what waits in a state until ctx ends. What fails is tried again after a rest of its own.
func (r *Releaser) work(ctx context.Context, state redoubt.ReleaseState, do func(context.Context, redoubt.ReleaseID, func(lane) bool) error) {
	q := &queue{ended: make(chan struct{}, 1), jobs: map[redoubt.ReleaseID]*job{}, hands: map[lane]int{}}
	var group sync.WaitGroup
	defer group.Wait()
	pause := time.Duration(0)
	for ctx.Err() == nil {
		ids, err := r.o.Source.PendingReleases(ctx, r.o.AtHigh, state)
		if err != nil {
			pause = min(max(2*pause, 250*time.Millisecond), againMax)
			r.failed(ctx, state, err)
			wait(ctx, pause)
			continue
		}
		begun := q.begin(ids, time.Now(), func(id redoubt.ReleaseID) {
			group.Go(func() {
				err := do(ctx, id, func(l lane) bool { return q.moves(id, l) })
				if q.done(id, err, time.Now()); err != nil && !errors.Is(err, errLater) {
					r.failed(ctx, state, err)
				}
			})
		})
		if begun || len(ids) == 0 {
			pause = 0
			continue
		}
		pause = min(max(2*pause, 250*time.Millisecond), 5*time.Second) // what waits is in hand or rests: no answer will be another at once
		q.wait(ctx, pause)
	}
}

func (r *Releaser) failed(ctx context.Context, state redoubt.ReleaseState, err error) {
	if ctx.Err() == nil {
		r.o.Log.Warn("releases wait", slog.String("state", string(state)), slog.String("kind", redoubt.KindOf(err).Error()))
	}
}

// begin takes in hand what can be now, and forgets what does not wait any more.
func (q *queue) begin(ids []redoubt.ReleaseID, now time.Time, do func(redoubt.ReleaseID)) (begun bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waits := make(map[redoubt.ReleaseID]bool, len(ids))
	for _, id := range ids {
		waits[id] = true
		j := q.jobs[id]
		if j == nil {
			j = new(job)
			q.jobs[id] = j
		}
		if !j.busy && !now.Before(j.next) && q.hands[j.lane] < atOnce {
			j.busy, begun = true, true
			q.hands[j.lane]++
			do(id)
		}
	}
	for id, j := range q.jobs {
		if !j.busy && !waits[id] {
			delete(q.jobs, id)
		}
	}
	return begun
}

// moves takes a release to its lane, if that has room.
func (q *queue) moves(id redoubt.ReleaseID, to lane) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := q.jobs[id]
	if j.lane == to {
		return true
	}
	q.hands[j.lane]--
	j.lane = to
	q.hands[to]++
	q.wake()
	return q.hands[to] <= atOnce
}

func (q *queue) done(id redoubt.ReleaseID, err error, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := q.jobs[id]
	q.hands[j.lane]--
	j.busy = false
	switch {
	case err == nil: // if it waits all the same, nothing came of it
		j.next, j.pause = now.Add(250*time.Millisecond), 0
	case !errors.Is(err, errLater):
		j.pause = min(max(2*j.pause, 250*time.Millisecond), againMax)
		j.next = now.Add(j.pause)
	}
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.ended <- struct{}{}:
	default:
	}
}

// wait is until something is done, at most for a while.
func (q *queue) wait(ctx context.Context, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-q.ended:
	case <-t.C:
	}
}
