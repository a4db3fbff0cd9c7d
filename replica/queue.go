package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"redoubt"
)

// ref is one entry on its way to the peer.
type ref struct {
	set     *outgoing
	at      uint64 // position in the journal; 0: found by reconciliation
	stamp   redoubt.Stamp
	size    int64
	seq     uint64 // of the parcel that carries it
	plain   bool   // the peer lacks its base: it is not packed against it
	urgency redoubt.Precedence
	from    int64 // content before it was sent in this session, when the day's budget was spent, and the peer keeps it
	gone    int64 // content before it is on the road, as seq
	put     bool  // by: it is idle or aside, and takes none of the room that all sets share
	retold  bool  // the journal told of it once more since it was taken from its queue

	wait time.Duration // after the last refusal for now; 0: there was none
	due  time.Time     // when it is sent again
}

// outgoing is a label set's way to the peer.
type outgoing struct {
	set   string
	read  uint64                 // the journal was read up to here
	open  map[redoubt.Stamp]*ref // read, and not acknowledged
	begun bool                   // it is known what the peer has up to read, or that is among open
	saved uint64                 // acknowledged on record
	known bool                   // saved means something
	purse purse
	idle  [redoubt.Precedences][]*ref // for which the day's budget is spent
	full  bool                        // its journal is read on when there is room
}

// outbox is what waits to be sent and what was sent and is not acknowledged.
type outbox struct {
	mu     sync.Mutex
	room   *sync.Cond    // something was settled, every journal was read, or it closed
	filled *sync.Cond    // something came, or it closed
	roomy  chan struct{} // a set that was full has room
	queues [redoubt.Precedences][]*ref
	sets   map[string]*outgoing
	sent   map[uint64]*ref // by seq; of one that is paused, by its last
	aside  []*ref          // refused for now
	seq    uint64
	count  int // of all sets, not acknowledged
	putBy  int // of them
	day    int64
	read   bool // every journal was read to its end
	free   bool // everything goes, budget or not
	closed bool
}

// Bounds of what is known to wait, at some 200 bytes each. What is put by, for another day's budget or until the peer takes it, counts for
// its own set alone: it may wait for long, and no other set feels it (RULES 3.3). What is urgent behind that many is found late.
const (
	maxQueued = 200_000 // of all sets, on its way
	maxOfSet  = 100_000 // of one set, put by or on its way
)

func newOutbox() *outbox {
	o := &outbox{sets: map[string]*outgoing{}, sent: map[uint64]*ref{}, day: redoubt.BudgetDay(time.Now()), roomy: make(chan struct{}, 1)}
	o.room, o.filled = sync.NewCond(&o.mu), sync.NewCond(&o.mu)
	return o
}

// set gives a label set's way, made on first use.
func (o *outbox) set(name string) (out *outgoing, fresh bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out = o.sets[name]
	if out == nil {
		out, fresh = &outgoing{set: name, open: map[redoubt.Stamp]*ref{}}, true
		o.sets[name] = out
	}
	return out, fresh
}

// add queues entries of a set.
func (o *outbox) add(out *outgoing, upTo uint64, p []redoubt.Precedence, refs []*ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, r := range refs {
		if was := out.open[r.stamp]; was != nil {
			was.retold = true // found by reconciliation, and in the journal too; or the newest of its name again
			continue
		}
		r.set, r.urgency = out, p[i]
		out.open[r.stamp] = r
		o.queues[p[i]] = append(o.queues[p[i]], r)
		o.count++
	}
	out.read, out.begun = max(out.read, upTo), true
	o.filled.Broadcast()
}

// hasRoom says whether more of a set may be read. Of one that is full roomy tells: when half of what all share is free, and any of its own,
// which a page of its journal fills at once.
func (o *outbox) hasRoom(out *outgoing) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(out.open) >= maxOfSet || o.count-o.putBy >= maxQueued {
		out.full = true
	}
	return !out.full
}

// left tells of what has room again. Something was settled or put by.
func (o *outbox) left() {
	for _, out := range o.sets {
		if out.full && len(out.open) < maxOfSet && o.count-o.putBy <= maxQueued/2 {
			out.full = false
			select {
			case o.roomy <- struct{}{}:
			default: // it is told already
			}
		}
	}
	o.room.Broadcast()
}

// park notes whether an entry is put by.
func (o *outbox) park(r *ref, by bool) {
	if r.put == by {
		return
	}
	if r.put = by; by {
		o.putBy++
	} else {
		o.putBy--
	}
}

// begin says from where on a set's journal is read, as it is on record. Until a set has begun nothing of it is acknowledged.
func (o *outbox) begin(out *outgoing, at uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out.read, out.saved, out.known, out.begun = at, at, true, true
}

// position is how far a set's journal was read.
func (o *outbox) position(out *outgoing) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return out.read
}

// take waits for entries of a precedence and gives some of one label set that travel together; nil when the outbox has closed.
func (o *outbox) take(p redoubt.Precedence, most int64) []*ref {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && !o.ready(p) {
		o.filled.Wait()
	}
	if o.closed {
		return nil
	}
	q := o.queues[p]
	n, size := 0, int64(0)
	for n < len(q) && n < togetherItems && q[n].set == q[0].set && (n == 0 || size+q[n].size <= most) {
		size += q[n].size
		n++
	}
	out := append([]*ref(nil), q[:n]...)
	o.queues[p] = q[n:]
	for _, r := range out {
		o.seq++
		r.seq, r.retold = o.seq, false
		o.sent[r.seq] = r
	}
	return out
}

// done ends entries: acknowledged or refused for good.
func (o *outbox) done(refs ...*ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range refs {
		o.end(r)
	}
	o.left()
}

func (o *outbox) end(r *ref) {
	if r.set.open[r.stamp] != r {
		return
	}
	delete(r.set.open, r.stamp)
	delete(o.sent, r.seq)
	o.unidle(r)
	o.count--
}

// pass ends an entry that is not sent: it was gone or superseded when it was looked up. Where the journal has told of it since it was taken
// from its queue, that may hold no more, and it is looked up again.
func (o *outbox) pass(r *ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.retold && r.set.open[r.stamp] == r {
		o.requeue(r.urgency, r)
		return
	}
	o.end(r)
	o.left()
}

// went notes how much of an entry's content is on the road that is sent as seq.
func (o *outbox) went(r *ref, seq uint64, content int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sent[seq] == r {
		r.gone = content
	}
}

// underWay is how much content of each set is on the road and not acknowledged.
func (o *outbox) underWay() map[string]int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[string]int64{}
	for _, r := range o.sent {
		if r.gone > 0 && !r.put {
			out[r.set.set] += r.gone
		}
	}
	return out
}

// quiet says whether nothing waits or is unacknowledged.
func (o *outbox) quiet() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count == 0
}

// bySeq finds what a parcel carried.
func (o *outbox) bySeq(seq uint64) *ref {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent[seq]
}

// current says whether every journal has been read to its end.
func (o *outbox) current(all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read = all
	o.room.Broadcast()
}

// empty waits until nothing waits or is unacknowledged.
func (o *outbox) empty(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.room.Broadcast()
	})()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !(o.read && o.count == 0) && !o.closed && ctx.Err() == nil {
		o.room.Wait()
	}
	if o.closed || ctx.Err() != nil {
		return &redoubt.Error{Op: "replica.HandedOver", Kind: redoubt.Unavailable, Err: ctx.Err()}
	}
	return nil
}

// anew forgets of an entry what of it was sent: the peer keeps none of it.
func (o *outbox) anew(r *ref) {
	delete(o.sent, r.seq)
	o.unidle(r)
	r.from, r.gone = 0, 0
}

// again puts an entry in front of its queue. It is sent from its beginning.
func (o *outbox) again(p redoubt.Precedence, r *ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requeue(p, r)
}

func (o *outbox) requeue(p redoubt.Precedence, r *ref) {
	o.anew(r)
	o.queues[p] = append([]*ref{r}, o.queues[p]...)
	o.filled.Broadcast()
}

// later puts an entry aside that the peer refused for now: it is sent again after a while that grows with each refusal,
// from its beginning.
func (o *outbox) later(r *ref, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.set.open[r.stamp] != r || o.sent[r.seq] != r {
		return
	}
	o.anew(r)
	r.wait = min(max(2*r.wait, retryFirst), retryMax)
	r.due = now.Add(r.wait)
	o.aside = append(o.aside, r)
	o.park(r, true)
	o.left()
}

// How long an entry waits that the peer refused for now: a clock that is ahead, a share that is spent.
const (
	retryFirst = 15 * time.Second
	retryMax   = 15 * time.Minute
)

// retry queues what has waited long enough.
func (o *outbox) retry(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.aside = slices.DeleteFunc(o.aside, func(r *ref) bool {
		if r.set.open[r.stamp] == r && now.Before(r.due) {
			return false
		}
		if r.set.open[r.stamp] == r {
			o.queues[r.urgency] = append(o.queues[r.urgency], r)
			o.park(r, false)
		}
		return true
	})
	o.filled.Broadcast()
}

// settled gives, for each set, the position up to which everything is acknowledged, where that is news.
func (o *outbox) settled() map[*outgoing]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	news := map[*outgoing]uint64{}
	for _, out := range o.sets {
		low, found := out.read, out.begun
		for _, r := range out.open {
			if r.at == 0 { // of a reconciliation that is not done: nothing is known yet
				found = false
				break
			}
			low = min(low, r.at-1)
		}
		if found && (!out.known || low > out.saved) {
			news[out] = low
		}
	}
	return news
}

func (o *outbox) saved(out *outgoing, at uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out.saved, out.known = at, true
}

// waiting says whether a stamp is among what the peer has not acknowledged.
func (o *outbox) waiting(out *outgoing, stamp redoubt.Stamp) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return out.open[stamp] != nil
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.filled.Broadcast()
	o.room.Broadcast()
}
