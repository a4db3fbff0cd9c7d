package enclave

import (
	"context"
	"encoding/binary"
	"time"

	"redoubt/store"
)

// clockAhead is how far beyond the present a set's durable bound is put: a crash
// may make the set's clock skip at most this much.
const clockAhead = int64(time.Second)

// nextTime gives the set's next time. Each label set has a hybrid logical clock of its own: it runs ahead of
// the sets that its label dominates and is never moved by one that it does not, so
// nothing high shows in a low version ID (RULES 3.1). A durable bound keeps it
// from going back when the machine's clock does, over restarts too.
func (e *Enclave) nextTime(ctx context.Context, set *labelSet) (int64, error) {
	floor := e.clock().UnixNano()
	for _, below := range e.look(lookClock, set.label) {
		floor = max(floor, below.clock.Load()+1)
	}
	var t int64
	for {
		last := set.clock.Load()
		t = max(floor, last+1)
		if set.clock.CompareAndSwap(last, t) {
			break
		}
	}
	if t <= set.bound.Load() {
		return t, nil
	}
	set.boundMu.Lock()
	defer set.boundMu.Unlock()
	if t <= set.bound.Load() {
		return t, nil
	}
	bound := t + clockAhead
	b := new(store.Batch)
	b.Set(setKey(recClock, set.id), binary.LittleEndian.AppendUint64(nil, uint64(bound)))
	if err := e.engine.Commit(ctx, b); err != nil {
		return 0, err
	}
	set.bound.Store(bound)
	return t, nil
}

// newID gives a version of set, made at the working label of made, its place in the order of versions. The
// time is that of the label it was made at, which is what its writer may know of: a version that is
// written up would otherwise tell its writer of the clock above. It carries that label in its maker, so that
// two labels' clocks never make one ID.
func (e *Enclave) newID(ctx context.Context, made, set *labelSet) (versionID, error) {
	t, err := e.nextTime(ctx, made)
	maker := e.maker
	if made != set {
		maker ^= made.tag
	}
	return makeVersionID(t, maker, set.tag), err
}

// settleClocks writes every set's exact time as its bound, at a clean close.
func (e *Enclave) settleClocks(b *store.Batch) {
	for _, s := range e.sets.all() {
		if t := s.clock.Load(); t > 0 {
			b.Set(setKey(recClock, s.id), binary.LittleEndian.AppendUint64(nil, uint64(t)))
		}
	}
	e.markNow(b)
}

// timeMark keeps a time that has been: the enclave's clock never goes before it.
var timeMark = []byte{recMark, 't'}

// markTime puts the present on record. It is called every minute, so that an idle enclave's clock is bounded too.
func (e *Enclave) markTime(ctx context.Context) error {
	b := new(store.Batch)
	e.markNow(b)
	return e.engine.Commit(ctx, b)
}

// markNow writes both marks of time.
func (e *Enclave) markNow(b *store.Batch) {
	now := binary.LittleEndian.AppendUint64(nil, uint64(e.clock().UnixNano()))
	b.Set(timeMark, now)
	b.Set(shareMark, now)
}

// lastTime is the mark. What the sets' clocks have given out is left aside: the mark is written on a schedule, and
// nothing high moves it.
func lastTime(engine store.Engine) (time.Time, error) {
	view := engine.View()
	defer view.Close()
	var last int64
	v, ok, err := view.Get(timeMark)
	if err != nil {
		return time.Time{}, err
	}
	if ok && len(v) == 8 {
		last = int64(binary.LittleEndian.Uint64(v))
	}
	return time.Unix(0, last), nil
}

// notBefore is a clock that never shows a time before last. A nil clock is the machine's as it stood at the start,
// carried on by the monotonic one: setting it while the enclave runs moves nothing.
func notBefore(last time.Time, clock func() time.Time) func() time.Time {
	if clock == nil {
		start := time.Now()
		wall := start.Round(0)
		if wall.Before(last) {
			wall = last
		}
		return func() time.Time { return wall.Add(time.Since(start)) }
	}
	return func() time.Time {
		if t := clock(); t.After(last) {
			return t
		}
		return last
	}
}
