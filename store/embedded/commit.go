package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"redoubt"
	"redoubt/store"
)

// request is what waits for the committer: a batch, or moves of a compaction, or an
// order to start a new log segment.
type request struct {
	batch  *store.Batch
	moves  []move
	rotate bool
	taken  atomic.Bool // by the committer, or by a caller that gave up
	done   chan error
}

// move puts a blob elsewhere, if it is still where it was.
type move struct {
	ref  store.BlobRef
	from location
	to   location // zero: inline, holding data
	data []byte
}

const (
	groupRequests = 1024
	yields        = 8    // a few microseconds when nobody comes
	maxCounters   = 8192 // counters remembered between commits
)

// Commit applies a batch; see store.Engine. A caller that gives up before the batch was taken up gets
// redoubt.Unavailable and nothing of it happens; once taken up, Commit waits for the outcome.
func (e *Engine) Commit(ctx context.Context, b *store.Batch) error {
	if err := e.enter("store.Commit"); err != nil {
		return err
	}
	defer e.leave()
	if err := b.Validate(); err != nil {
		return err
	}
	if err := e.spill(ctx, b); err != nil {
		return err
	}
	return e.submit(ctx, &request{batch: b, done: make(chan error, 1)})
}

// spill turns the inline blobs of a batch into extents when they are too much for a frame.
func (e *Engine) spill(ctx context.Context, b *store.Batch) error {
	total := int64(0)
	for _, l := range b.Links {
		if s, ok := l.(*staged); ok && s.e == e {
			total += int64(s.inlineBytes())
		}
	}
	if total <= spillBytes {
		return nil
	}
	for _, l := range b.Links {
		if s, ok := l.(*staged); ok && s.e == e {
			if err := s.spill(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return unavailable("store.Commit", err)
	}
	e.queueMu.Lock()
	e.queue = append(e.queue, r)
	e.queueMu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return unavailable("store.Commit", ctx.Err())
		}
		return <-r.done
	}
}

// runCommitter serves the queue until the engine closes and the queue is empty.
func (e *Engine) runCommitter() {
	for {
		select {
		case <-e.wake:
		case <-e.ctx.Done():
			return // no caller is inside any more: Close saw to that
		}
		for e.commitGroup() {
			e.yield()
		}
	}
}

// yield lets those who were just answered come with their next batch, so that a few
// writers share a sync instead of taking turns in two halves.
func (e *Engine) yield() {
	for range yields {
		e.queueMu.Lock()
		enough := len(e.queue) >= e.lastGroup
		e.queueMu.Unlock()
		if enough {
			return
		}
		runtime.Gosched()
	}
}

// gather takes what waits, up to the size of a group.
func (e *Engine) gather() (group []*request) {
	e.queueMu.Lock()
	defer e.queueMu.Unlock()
	n, size := 0, 0
	for n < len(e.queue) && n < groupRequests && size < groupBytes {
		r := e.queue[n]
		n++
		if !r.taken.CompareAndSwap(false, true) {
			continue
		}
		if r.rotate && len(group) > 0 {
			r.taken.Store(false)
			n--
			break
		}
		group = append(group, r)
		if size += r.size(); r.rotate {
			break
		}
		if n < len(e.queue) && size+e.queue[n].size() > groupBytes {
			break
		}
	}
	rest := copy(e.queue, e.queue[n:])
	clear(e.queue[rest:])
	e.queue = e.queue[:rest]
	return group
}

func (r *request) size() (n int) {
	for _, m := range r.moves {
		n += len(m.data) + 64
	}
	if r.batch == nil {
		return n
	}
	for i := range r.batch.Writes {
		n += 2*len(r.batch.Writes[i].Key) + len(r.batch.Writes[i].Value)
	}
	for _, entry := range r.batch.Appends {
		n += len(entry)
	}
	for _, l := range r.batch.Links {
		if s, ok := l.(*staged); ok {
			n += s.inlineBytes()
		}
	}
	return n
}

// commitGroup makes one group durable: encode, write, sync, apply, wake. It reports
// whether there was one.
func (e *Engine) commitGroup() bool {
	group := e.gather()
	if len(group) == 0 {
		return false
	}
	e.lastGroup = len(group)
	accepted, err := e.encodeGroup(group)
	if len(accepted) == 0 {
		return true
	}
	if err == nil {
		err = e.writeGroup(accepted)
	}
	if err != nil {
		clear(e.counters) // they ran ahead of what was written
		for _, r := range accepted {
			r.refuse()
		}
	}
	for _, r := range accepted {
		r.done <- err
	}
	return true
}

// encodeGroup writes the changes of each request into one frame. One that cannot be
// applied is answered at once and left out.
func (e *Engine) encodeGroup(group []*request) (accepted []*request, err error) {
	if group[0].rotate {
		group[0].done <- e.log.rotate(e)
		return nil, nil
	}
	if p := e.failed.Load(); p != nil {
		return group, unavailable("store.Commit", fmt.Errorf("an earlier write failed, reopen the store: %w", *p))
	}
	size := 2 * framePage
	for _, r := range group {
		size += r.size() + r.overhead()
	}
	if err := e.log.room(e, int64(size)); err != nil {
		return group, diskError("store.Commit", err)
	}
	e.writer.reset(e.log.active, e.log.off, e.state.seq+1)
	clear(e.pending)
	next := e.state.appended
	for _, r := range group {
		if err := e.encode(r, &next); err != nil {
			r.done <- err
			continue
		}
		accepted = append(accepted, r)
	}
	return accepted, nil
}

// overhead bounds what a request takes in a frame beyond its size.
func (r *request) overhead() int {
	n := 256 + 64*len(r.moves)
	for _, m := range r.moves {
		n += 32*len(m.to.runs) + 32 + 16*sealOverhead
	}
	if r.batch != nil {
		n += 32*len(r.batch.Writes) + 8*len(r.batch.Appends) + 16*len(r.batch.Unlinks)
		for _, l := range r.batch.Links {
			n += 64 + 8*sealOverhead
			if s, ok := l.(*staged); ok {
				n += 32 * len(s.loc.runs)
			}
		}
	}
	return n
}

// encode writes one request's changes. It checks everything before it writes anything.
func (e *Engine) encode(r *request, next *uint64) error {
	w := &e.writer
	for _, m := range r.moves {
		to := m.to
		if to.runs == nil {
			to = w.inline(m.ref, m.data)
		}
		w.link(changeMove, m.ref, to)
	}
	if r.batch == nil {
		return nil
	}
	b := r.batch
	if err := e.checkRoom("store.Commit", frees(b)); err != nil {
		return err
	}
	if b.DropBelow > *next && *next > 0 {
		return invalid("drop of entries below %d: %d were appended", b.DropBelow, *next)
	}
	values, err := e.resolve(b.Writes)
	if err != nil {
		return err
	}
	if err := e.claim(b.Links); err != nil {
		return err
	}
	for i := range b.Writes {
		switch write := &b.Writes[i]; write.Op {
		case store.OpSet:
			w.set(write.Key, write.Value)
			e.remember(write.Key, write.Value)
		case store.OpDelete:
			w.delete(write.Key)
			delete(e.counters, string(write.Key))
			e.pending[string(write.Key)] = nil
		case store.OpAdd:
			v := values[i]
			w.set(write.Key, v[:])
			e.remember(write.Key, v[:])
		case store.OpNumber:
			v := values[i]
			w.set(write.Key, v[:])
			e.remember(write.Key, v[:])
			key := store.NumberedKey(write.Key, binary.LittleEndian.Uint64(v[:]))
			w.set(key, write.Value)
			e.remember(key, write.Value)
		}
	}
	if b.DropBelow > 0 {
		w.drop(b.DropBelow)
		*next = max(*next, b.DropBelow)
	}
	b.FirstAppend = *next
	for _, entry := range b.Appends {
		w.append(entry)
	}
	*next += uint64(len(b.Appends))
	for _, l := range b.Links {
		s := l.(*staged)
		loc := s.loc
		if s.small {
			loc = w.inline(s.ref, s.data)
		}
		w.link(changeLink, s.ref, loc)
	}
	for _, ref := range b.Unlinks {
		w.unlink(ref)
	}
	return nil
}

// frees says whether a batch may use the reserve: one that gives space back, and one that
// only appends to the stream. So the record of reads and refusals has space of its own that no content can take; when
// that is used up too, the record fails and with it what it speaks of (RULES 6).
func frees(b *store.Batch) bool {
	if len(b.Links) > 0 {
		return false
	}
	if len(b.Writes) == 0 && len(b.Appends) > 0 {
		return true
	}
	for i := range b.Writes {
		if b.Writes[i].Op == store.OpDelete {
			return true
		}
	}
	return len(b.Unlinks) > 0 || b.DropBelow > 0
}

// claim takes the staged blobs of a batch, all or none.
func (e *Engine) claim(links []store.Staged) error {
	for i, l := range links {
		s, ok := l.(*staged)
		if !ok || s.e != e || !s.state.CompareAndSwap(stagedReady, stagedClaimed) {
			for _, l := range links[:i] {
				l.(*staged).state.Store(stagedReady)
			}
			return invalid("link %d: the blob is not finished, or is linked or discarded already", i)
		}
	}
	return nil
}

// refuse gives back what claim took.
func (r *request) refuse() {
	if r.batch != nil {
		for _, l := range r.batch.Links {
			if s, ok := l.(*staged); ok {
				s.state.CompareAndSwap(stagedClaimed, stagedReady)
			}
		}
	}
}

// writeGroup makes the frame durable and applies it.
func (e *Engine) writeGroup(group []*request) error {
	frame := e.writer.finish()
	if err := e.log.write(e, frame); err != nil {
		return err
	}
	changes := e.writer.record[4:]
	if err := e.apply(changes, e.state.seq+1, e.log.active.id, e.log.off); err != nil {
		return e.fail(errors.Join(store.ErrUncertain, err))
	}
	for _, r := range group {
		if r.batch == nil {
			continue
		}
		e.stats.batches.Add(1)
		for _, l := range r.batch.Links {
			l.(*staged).linked()
		}
	}
	e.stats.commits.Add(1)
	return nil
}

// fail refuses all further writes, and returns what this write's callers are told.
func (e *Engine) fail(err error) error {
	e.failed.CompareAndSwap(nil, &err)
	e.o.Logger.Error("store refuses writes until it is reopened", "err", err)
	return &redoubt.Error{Op: "store.Commit", Kind: redoubt.Internal, Err: err, Hint: "reopen the store"}
}
