package enclave

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"sync"

	"redoubt"
	"redoubt/store"
)

// Apply takes what a peer sent: each entry is verified, decided and staged by itself, and those that are taken are committed
// together with their audit entries; see redoubt.Journal.
func (e *Enclave) Apply(ctx context.Context, peer redoubt.NodeName, in []redoubt.Received) (refused []redoubt.Refusal, err error) {
	const op = "Apply"
	l, err := e.link(op, peer)
	if err != nil {
		return nil, err
	}
	if len(in) > MaxApply {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.TooLarge}
	}
	signed := map[string]bool{}                  // roots that were verified
	for _, system := range []bool{true, false} { // who may do what, and in which buckets, comes before anything done
		taken, no, err := e.receiveAll(ctx, l, in, system, signed)
		refused = append(refused, no...)
		if err == nil && system {
			no, err = e.applyRecords(ctx, taken)
			refused = append(refused, no...)
		} else if err == nil {
			e.readers.gate.RLock() // from the question what is closed to the commit; records, which ask nothing, are under other locks by then
			err = e.applyAll(ctx, taken)
			e.readers.gate.RUnlock()
		}
		for _, n := range taken {
			if n.w != nil {
				n.w.discard()
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return refused, nil
}

// finishTogether is how many pieces of content are made durable at once, so that they share syncs, while more are sealed.
const finishTogether = 16

// receiveAll receives the system records among what a peer sent, or the rest.
func (e *Enclave) receiveAll(ctx context.Context, l redoubt.Link, in []redoubt.Received, system bool, signed map[string]bool) (taken []*incoming, refused []redoubt.Refusal, err error) {
	f := new(finisher)
	defer f.wait() // nothing is let go of that is still being made durable
	begun, pieces := 0, 0
	for i := range in {
		if (in[i].Entry.Name.Bucket == redoubt.SystemBucket) != system {
			continue
		}
		n, refusal, err := e.receive(ctx, l, &in[i], signed)
		if err != nil {
			return taken, refused, err
		}
		if refusal != nil {
			refused = append(refused, *refusal)
			continue
		}
		taken = append(taken, n)
		if n.w == nil {
			continue
		}
		if pieces += n.w.unfinished(); pieces >= finishTogether {
			f.begin(taken[begun:])
			begun, pieces = len(taken), 0
		}
	}
	f.begin(taken[begun:])
	f.wait()
	return e.finished(ctx, taken, refused)
}

// finisher makes durable what was taken in, while more is. It is used by one goroutine.
type finisher struct{ running sync.WaitGroup }

// begin has some made durable; what cannot be says so in its fault, when wait returns.
func (f *finisher) begin(some []*incoming) {
	for _, n := range some {
		if n.w != nil {
			f.running.Go(func() { n.fault = n.w.finish() })
		}
	}
}

func (f *finisher) wait() { f.running.Wait() }

// finished refuses what could not be made durable.
func (e *Enclave) finished(ctx context.Context, all []*incoming, refused []redoubt.Refusal) (durable []*incoming, _ []redoubt.Refusal, err error) {
	for _, n := range all {
		if n.fault == nil || err != nil {
			durable = append(durable, n) // the caller lets go of them where there is an error
			continue
		}
		var no *redoubt.Refusal
		if no, err = n.failed(ctx, e, n.fault); no != nil {
			refused = append(refused, *no)
		}
	}
	return durable, refused, err
}

// applyAll commits what was taken, in one batch; a second one is needed only for what is about a name, or of a label set, that
// the first has an entry of already.
func (e *Enclave) applyAll(ctx context.Context, taken []*incoming) error {
	for len(taken) > 0 {
		var round, rest []*incoming
		names := map[lockName]bool{}
		for _, n := range taken {
			name := lockName{n.b.id, n.in.Entry.Name.Key}
			if n.set != taken[0].set || names[name] {
				rest = append(rest, n)
				continue
			}
			names[name] = true
			round = append(round, n)
		}
		if err := e.applyRound(ctx, taken[0].set, round); err != nil {
			return err
		}
		taken = rest
	}
	return nil
}

// applyRound commits entries of one label set, each of another name.
func (e *Enclave) applyRound(ctx context.Context, set *labelSet, round []*incoming) error {
	unlock := e.lockNames(round)
	defer unlock()
	set.epochGate.RLock()
	defer set.epochGate.RUnlock()
	batch := new(store.Batch)
	var last, versions, bytes int64
	var charges []*hold
	defer func() {
		for _, h := range charges {
			h.release() // what was committed is settled, and holds nothing
		}
	}()
	for _, n := range round {
		last = max(last, n.id.time())
		o, err := e.applyOne(ctx, batch, n)
		if err != nil {
			return err
		}
		versions, bytes = versions+o.versions, bytes+o.bytes
		if o.charge != nil {
			charges = append(charges, o.charge)
		}
		batch.Append(e.recorder.Record(n.entry))
	}
	if err := e.commitPast(ctx, batch, set, last); err != nil {
		return err
	}
	for _, h := range charges {
		h.settle()
	}
	e.count(set, versions, bytes)
	e.believe(round)
	return nil
}

// commitPast commits what bears times up to last, and moves the set's clock past them: a restart must not give out a time before one
// that is on record.
func (e *Enclave) commitPast(ctx context.Context, batch *store.Batch, set *labelSet, last int64) error {
	set.boundMu.Lock()
	defer set.boundMu.Unlock()
	if last > set.bound.Load() {
		batch.Set(setKey(recClock, set.id), binary.LittleEndian.AppendUint64(nil, uint64(last)))
	}
	if err := e.commit(ctx, batch, nil); err != nil {
		return err
	}
	set.bound.Store(max(set.bound.Load(), last))
	set.observe(last)
	return nil
}

// observe moves the set's clock past a time that another node gave out.
func (s *labelSet) observe(t int64) {
	for last := s.clock.Load(); last < t; last = s.clock.Load() {
		if s.clock.CompareAndSwap(last, t) {
			return
		}
	}
}

// lockNames takes the gates of the buckets and the locks of the names, each in one order, so that no two of these wait for one another.
func (e *Enclave) lockNames(round []*incoming) (unlock func()) {
	byName := slices.Clone(round)
	slices.SortFunc(byName, func(a, b *incoming) int {
		return cmp.Or(cmp.Compare(a.b.id, b.b.id), cmp.Compare(a.in.Entry.Name.Key, b.in.Entry.Name.Key))
	})
	var undo []func()
	for i, n := range byName {
		if i == 0 || byName[i-1].b.id != n.b.id {
			n.b.gate.RLock()
			undo = append(undo, n.b.gate.RUnlock)
		}
	}
	for _, n := range byName {
		undo = append(undo, e.locks.lock(n.b.id, n.in.Entry.Name.Key))
	}
	return func() {
		for _, u := range slices.Backward(undo) {
			u()
		}
	}
}

// outcome is what one entry adds to the use of its set, and what it charges; nil is nothing.
type outcome struct {
	versions, bytes int64
	charge          *hold
}

// applyOne adds what one entry changes to the batch, and says what comes of it. What is held already, or was
// removed for good, adds nothing. The name's lock is held.
func (e *Enclave) applyOne(ctx context.Context, batch *store.Batch, n *incoming) (o outcome, err error) {
	x := &n.in.Entry
	switch {
	case n.record != nil:
		return o, e.placeRecord(ctx, batch, n)
	case x.Kind == redoubt.EntryVersion:
		return e.applyVersion(batch, n)
	}
	was, err := e.fates(e.engine, n.set, n.of)
	if err != nil {
		return o, err
	}
	own := n.stampedBy(n.of, x.Maker)
	if was.stands(saidBy(x, own)) {
		n.entry.Kind = outcomeHeld
		return o, nil
	}
	f, err := e.byID(e.engine, n.b, n.set.label, x.Name.Key, e.ids.versionID(n.of))
	if err != nil {
		return o, err
	}
	if e.lockedHere(n, f.rec) { // since it was received
		n.entry.Allow, n.entry.Rule, n.entry.Kind = false, ruleLocked, redoubt.Locked.Error()
		return o, nil
	}
	if f.rec != nil && f.rec.altered.isZero() {
		was.first = f.rec.retention
	}
	next, err := e.noteEncoded(batch, n.set, was, x, n.encoded, own, n.custody, n.from)
	if err != nil || f.rec == nil && x.Kind != redoubt.EntryRemoval {
		return o, err // what it is about has not come yet, and will find it
	}
	if f.rec == nil {
		o.charge, err = e.removedArrivals(batch, n.set, n.of, x.Name)
		return o, err
	}
	if x.Kind == redoubt.EntryRemoval {
		if x.Hold { // erased where it was made: what opened it here goes too, behind the requests
			d := duty{Set: n.set.id, Bucket: n.b.id, Parts: f.rec.parts, Version: f.rec.id[:]}
			if err := d.add(batch, "version/"+hex.EncodeToString(f.rec.id[:])); err != nil {
				return o, err
			}
			if err := e.keepGone(batch, n.b, f, x.Name.Key, n.sum, n.from); err != nil {
				return o, err
			}
			n.entry.Detail += e.erasedThere(f.rec.id)
		}
		return outcome{versions: -1, bytes: -f.rec.size, charge: e.givenBack(f, x.Name.Key)}, e.remove(batch, n.b, f, x.Name.Key)
	}
	before := f.rec.charge(x.Name.Key)
	if err := e.keepOrigin(n.b, f, x.Name.Key); err != nil {
		return o, err
	}
	s, err := e.settle(e.engine, n.set, next, x)
	if err != nil {
		return o, err
	}
	f.rec.take(s, next.last())
	o.charge, err = e.recharge(batch, n.b, f, x.Name.Key, before, anyRoom)
	return o, err
}

// outcomeHeld is on record for what brought nothing new.
const outcomeHeld = "held already"

// applyVersion places a version, with the alteration that came before it, if one did.
func (e *Enclave) applyVersion(batch *store.Batch, n *incoming) (o outcome, err error) {
	held, err := e.holdsStamp(n)
	if err != nil || held || n.w == nil {
		n.entry.Kind = outcomeHeld
		return o, err
	}
	kept, err := e.endArrival(batch, n)
	if err != nil {
		return o, err
	}
	// made of what was taken out, or a copy of it, where that was not known yet: its search is not over, nor is one under way
	if report := cmp.Or(e.readers.closes(n.w.rec, n.set.label), e.readers.holds(&n.in.Entry)); report != "" {
		if err := (duty{Version: n.id[:]}).add(batch, spillDuty+report); err != nil {
			return o, err
		}
	}
	if err := n.w.freshKeys(); err != nil {
		return o, err
	}
	fate, err := e.fates(e.engine, n.set, n.id)
	if err != nil {
		return o, err
	}
	rec := n.w.rec
	if fate.altered() {
		fate.first = rec.retention
		batch.Set(fateKey(n.set.id, n.id), fate.encode())
		s, err := e.settle(e.engine, n.set, fate, nil)
		if err != nil {
			return o, err
		}
		rec.origin = n.encoded
		rec.take(s, fate.last())
	}
	if err := e.noteConflict(batch, n); err != nil {
		return o, err
	}
	recordBytes, err := e.place(batch, n.b.id, n.set, n.in.Entry.Name.Key, rec)
	if err != nil {
		return o, err
	}
	if err := e.charge(batch, &n.w.hold, rec.cost(n.w.name.Key, recordBytes)-kept, anyRoom); err != nil {
		return o, err
	}
	deltaSet(batch, recCount, n.set.id, 1)
	deltaSet(batch, recBytes, n.set.id, rec.size)
	batch.Links = append(batch.Links, n.w.staged...)
	n.entry.Bytes = rec.size
	return outcome{versions: 1, bytes: rec.size, charge: &n.w.hold}, nil
}

// keepOrigin keeps another node's entry as it was signed, before the version is altered here for the first time.
func (e *Enclave) keepOrigin(b *bucket, f found, key string) error {
	if f.rec.custody == nil || f.rec.origin != nil {
		return nil
	}
	entry, _, _, err := e.signable(b, f, key, 0)
	if err == nil {
		f.rec.origin, err = entry.MarshalBinary()
	}
	return err
}
