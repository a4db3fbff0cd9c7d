package replica

import (
	"context"
	"slices"
	"time"

	"redoubt"
)

// purse is what a label set has for a day: a set that has spent its own waits for the next one, and no other set feels it. What is
// FLASH goes all the same, and is counted: who may do what is said with it, and what cannot wait.
type purse struct {
	perDay int64 // 0: no limit
	day    int64 // the latest that is known of the set: later than today where the clock was set back
	spent  int64 // on that day
	unkept int64 // of that, not on record
}

func (o *outbox) spentUp(out *outgoing, p redoubt.Precedence) bool {
	return p != redoubt.Flash && !o.free && out.purse.perDay > 0 && out.purse.spent >= out.purse.perDay
}

// ready says whether something may be sent in a precedence. What stands in front and may not is put by.
func (o *outbox) ready(p redoubt.Precedence) bool {
	by := o.putBy
	defer func() {
		if o.putBy > by {
			o.left()
		}
	}()
	for len(o.queues[p]) > 0 {
		r := o.queues[p][0]
		if !o.spentUp(r.set, p) {
			return true
		}
		r.set.idle[p] = append(r.set.idle[p], r)
		o.queues[p] = o.queues[p][1:]
		o.park(r, true)
	}
	return false
}

// pause puts an entry by that is sent as seq up to from, if its set's budget is spent: what is behind from follows when there is another.
// The peer may still settle it by seq, until it is sent as another.
func (o *outbox) pause(p redoubt.Precedence, r *ref, seq uint64, from int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.spentUp(r.set, p) || o.sent[seq] != r || r.put {
		return false
	}
	r.from = from
	r.set.idle[p] = append([]*ref{r}, r.set.idle[p]...)
	o.park(r, true)
	o.left()
	return true
}

// begins is where an entry goes on that was paused.
func (o *outbox) begins(r *ref) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return r.from
}

// unidle takes an entry out of what waits for another day.
func (o *outbox) unidle(r *ref) {
	if !r.put {
		return
	}
	for p := range r.set.idle {
		r.set.idle[p] = slices.DeleteFunc(r.set.idle[p], func(x *ref) bool { return x == r })
	}
	o.park(r, false)
}

// fund gives a set its purse. Of a day that is later than today its record is kept to: a clock that is set back gives nothing anew.
func (o *outbox) fund(out *outgoing, b redoubt.LinkBudget) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out.purse.perDay, out.purse.day = b.PerDay, o.day
	if b.Day >= o.day {
		out.purse.day, out.purse.spent = b.Day, b.Spent
	}
}

// spend counts what was sent of a set.
func (o *outbox) spend(out *outgoing, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if out.purse.perDay > 0 {
		out.purse.spent += int64(bytes)
		out.purse.unkept += int64(bytes)
	}
}

// renew begins a day for each set whose last is over, and queues again what was put by of it. A clock that is set back begins none.
func (o *outbox) renew(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.day = max(o.day, redoubt.BudgetDay(now))
	for _, out := range o.sets {
		if out.purse.day < o.day {
			out.purse.day, out.purse.spent, out.purse.unkept = o.day, 0, 0
			o.resume(out)
		}
	}
}

// lift lets everything go, budget or not: who is about to lose its keys hands over all that it has.
func (o *outbox) lift() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.free = true
	for _, out := range o.sets {
		o.resume(out)
	}
}

// resume queues what was put by of a set, in front: it is the older.
func (o *outbox) resume(out *outgoing) {
	for p := range out.idle {
		for _, r := range out.idle[p] {
			o.park(r, false)
			delete(o.sent, r.seq) // of one that was paused
		}
		if len(out.idle[p]) > 0 {
			o.queues[p] = append(out.idle[p], o.queues[p]...)
			out.idle[p] = nil
		}
	}
	o.filled.Broadcast()
}

// unkept gives what was spent and is not on record.
func (o *outbox) unkept() map[*outgoing]purse {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := map[*outgoing]purse{}
	for _, out := range o.sets {
		if out.purse.unkept > 0 {
			of[out], out.purse.unkept = out.purse, 0
		}
	}
	return of
}

// keepSpent puts what was spent on record.
func (s *Session) keepSpent(ctx context.Context) error {
	for out, p := range s.out.unkept() {
		if err := s.o.State.Spend(ctx, s.o.Peer, out.set, p.day, p.unkept); err != nil {
			return err
		}
	}
	return nil
}
