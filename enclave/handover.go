package enclave

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"redoubt"
	"redoubt/store"
)

// What was handed to a guard, at the lower end of a raise:
//
//	b peer r        handoverRecord, JSON
//	b peer h n      what was in bundle n (8): its numbering (16), void numbers (count 4, each 8), and of each label set its name (length 2) and stamps (count 4, each 16)
func handoverKey(peer redoubt.NodeName) []byte { return bundleKey(peer, 'r') }

func heldKey(peer redoubt.NodeName, serial uint64) []byte {
	return binary.BigEndian.AppendUint64(bundleKey(peer, 'h'), serial)
}

// handoverRecord is what no guard has confirmed yet: the bundle that was made last, and the numbers that came to nothing.
type handoverRecord struct {
	Mark  redoubt.BundleMark
	Spans []redoubt.JournalSpan
	Void  []uint64
	In    []uint64                       // those of Void that Mark's bundle tells of
	Begun map[string]redoubt.JournalSpan `json:",omitempty"` // wholes of which a part was handed over
	// Of what is known by number: the first, and how many entries there are in all.
	Oldest  uint64 `json:",omitempty"`
	Entries int    `json:",omitempty"`
	// By label sets, what was passed over, for it did not read; and how many there are besides.
	Unread map[string][]redoubt.Stamp `json:",omitempty"`
	Beyond int                        `json:",omitempty"`
	Has    uint64                     `json:",omitempty"` // of a partner: the newest number that it said it has
}

// next is the record without the bundle that it was about.
func (r handoverRecord) next() handoverRecord {
	return handoverRecord{Void: r.Void, Begun: r.Begun, Oldest: r.Oldest, Entries: r.Entries, Unread: r.Unread, Beyond: r.Beyond, Has: r.Has}
}

// Handed takes the guard's word for what it has; see redoubt.RaiseLedger.
func (e *Enclave) Handed(ctx context.Context, peer redoubt.NodeName, have redoubt.BundleMark) ([]uint64, error) {
	e.links.bundles.Lock()
	defer e.links.bundles.Unlock()
	var rec handoverRecord
	ok, err := e.bundleRecord(handoverKey(peer), &rec)
	if err != nil || !ok {
		return nil, err
	}
	if set, err := e.setBack(ctx, peer); err != nil || set {
		return nil, err
	}
	if rec.Mark.Serial == 0 {
		return rec.Void, nil
	}
	b := new(store.Batch) // of all: a number whose content is acknowledged must never be void
	if have.Serial == rec.Mark.Serial && have.Numbering == rec.Mark.Numbering && have.ID == rec.Mark.ID {
		begun := maps.Clone(rec.Begun)
		for _, s := range rec.Spans {
			if err := e.handed(ctx, b, peer, s, begun, &rec); err != nil {
				return nil, err
			}
		}
		if l, err := e.link("Handed", peer); err == nil && l.Partner {
			rec.Has = have.Serial
		}
		rec.Void = slices.DeleteFunc(rec.Void, func(n uint64) bool { return slices.Contains(rec.In, n) })
		if err := e.readAfterAll(peer, &rec); err != nil {
			return nil, err
		}
	} else {
		rec.Void = append(rec.Void, rec.Mark.Serial)
		if len(rec.Void) > redoubt.MaxRaiseGaps {
			rec.Void = rec.Void[len(rec.Void)-redoubt.MaxRaiseGaps:]
		}
		if err := e.forgetHeld(b, peer, rec.Mark.Serial, &rec); err != nil {
			return nil, err
		}
	}
	return rec.Void, e.keepHandover(ctx, b, peer, rec.next(), nil)
}

// setBack begins a raise anew where this state is a backup that was restored: what its positions, its numbers and its void ones say is of another
// life. The far side takes nothing twice, and drops the gaps of the life before, since all of it comes again.
func (e *Enclave) setBack(ctx context.Context, peer redoubt.NodeName) (bool, error) {
	life, err := e.Life(ctx)
	if err != nil {
		return false, err
	}
	var was madeRecord
	if ok, err := e.bundleRecord(madeKey(peer), &was); err != nil || !ok || was.Life == life {
		return false, err
	}
	b := new(store.Batch)
	if err := e.forgetPositions(b, peer); err != nil {
		return false, err
	}
	b.Delete(madeKey(peer))
	prefix := bundleKey(peer, 'h')
	if err := e.forget(b, prefix); err != nil {
		return false, err
	}
	return true, e.keepHandover(ctx, b, peer, handoverRecord{}, nil)
}

// forgetPositions makes unknown how far a peer has each set.
func (e *Enclave) forgetPositions(b *store.Batch, peer redoubt.NodeName) error {
	return e.forget(b, peerKey(peer))
}

// forget deletes what lies behind a prefix, and not at it.
func (e *Enclave) forget(b *store.Batch, prefix []byte) error {
	view := e.engine.View()
	defer view.Close()
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		if len(it.Key()) > len(prefix) {
			b.Delete(slices.Clone(it.Key()))
		}
	}
	return it.Err()
}

// handed takes a span for handed over. One that goes on behind what is not known any more says nothing: everything was asked for anew since.
// begun is what was handed over in part before the bundle.
func (e *Enclave) handed(ctx context.Context, b *store.Batch, peer redoubt.NodeName, s redoubt.JournalSpan, begun map[string]redoubt.JournalSpan, rec *handoverRecord) error {
	at, known, err := e.Acknowledged(ctx, peer, s.Set)
	if err != nil || s.Whole && s.Behind != begun[s.Set].Part || !s.Whole && (!known || at < s.From) {
		return err
	}
	if s.Part != (redoubt.Stamp{}) {
		if rec.Begun == nil {
			rec.Begun = map[string]redoubt.JournalSpan{}
		}
		rec.Begun[s.Set] = s
		return nil
	}
	delete(rec.Begun, s.Set)
	if !known || at < s.To {
		b.Set(cursorKey(peer, s.Set), binary.BigEndian.AppendUint64(nil, s.To))
	}
	return nil
}

// Passed keeps what there is nothing of; see redoubt.RaiseLedger. It is told of it by who looked without the lock.
func (e *Enclave) Passed(ctx context.Context, peer redoubt.NodeName, s redoubt.JournalSpan) error {
	if _, err := e.link("Passed", peer); err != nil {
		return err
	}
	e.links.bundles.Lock()
	defer e.links.bundles.Unlock()
	var rec handoverRecord
	made, err := e.bundleRecord(handoverKey(peer), &rec)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	if err := e.handed(ctx, b, peer, s, rec.Begun, &rec); err != nil {
		return err
	}
	if !made {
		return e.commit(ctx, b, nil)
	}
	return e.keepHandover(ctx, b, peer, rec, nil)
}

// Begun gives what was handed over in part; see redoubt.RaiseLedger.
func (e *Enclave) Begun(_ context.Context, peer redoubt.NodeName) (map[string]redoubt.JournalSpan, error) {
	var rec handoverRecord
	_, err := e.bundleRecord(handoverKey(peer), &rec)
	return rec.Begun, err
}

func (e *Enclave) keepHandover(ctx context.Context, b *store.Batch, peer redoubt.NodeName, rec handoverRecord, ent *entry) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	b.Set(handoverKey(peer), raw)
	return e.commit(ctx, b, ent)
}

// HandOver keeps that a bundle was made for a guard; see redoubt.RaiseLedger.
func (e *Enclave) HandOver(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, mark redoubt.BundleMark, made redoubt.RaisedBundle) error {
	e.links.bundles.Lock()
	defer e.links.bundles.Unlock()
	var rec handoverRecord
	if _, err := e.bundleRecord(handoverKey(peer), &rec); err != nil {
		return err
	}
	last, err := e.Made(ctx, peer)
	if err != nil {
		return err
	}
	if mark.Serial != last.Serial+1 || last.Serial > 0 && mark.Numbering != last.Numbering || rec.Mark.Serial != 0 {
		return &redoubt.Error{Op: "HandOver", Object: string(peer), Kind: redoubt.Conflict, Hint: "another bundle was made meanwhile: ask again"}
	}
	life, err := e.Life(ctx)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	raw, err := json.Marshal(madeRecord{life, mark})
	if err != nil {
		return err
	}
	b.Set(madeKey(peer), raw)
	was := rec
	rec = rec.next()
	rec.Mark, rec.Spans = mark, made.Spans
	rec.In = slices.DeleteFunc(slices.Clone(was.Void), func(n uint64) bool { return !slices.Contains(made.Void, n) }) // another may have come to nothing since it was begun
	if err := e.keepHeld(b, peer, &rec, made); err != nil {
		return err
	}
	rec.leftOut(made.Unread)
	action := redoubt.ActionHandRaise
	if l, err := e.link("HandOver", peer); err == nil && l.Partner {
		action = redoubt.ActionHandPartner
	}
	ent := e.describe(ctx, ask{who: who, action: action, detail: fmt.Sprintf("bundle %d for %s", mark.Serial, peer) + e.withoutText(made.Unread)}, true, ruleNumbered)
	e.blockRaise(peer, "")
	return e.keepHandover(ctx, b, peer, rec, ent)
}

// keepHeld notes what is in the bundle that rec is about, and forgets the oldest of those before it, beyond what is known.
func (e *Enclave) keepHeld(b *store.Batch, peer redoubt.NodeName, rec *handoverRecord, made redoubt.RaisedBundle) error {
	n := rec.Mark.Serial
	raw, entries, err := encodeHeld(rec.Mark.Numbering, made)
	if err != nil {
		return err
	}
	if rec.Oldest == 0 {
		rec.Oldest = n
	}
	for rec.Entries += entries; rec.Oldest < n && (rec.Entries > redoubt.MaxRaisedEntries || n-rec.Oldest >= redoubt.MaxRaisedBundles); rec.Oldest++ {
		if err := e.forgetHeld(b, peer, rec.Oldest, rec); err != nil {
			return err
		}
	}
	b.Set(heldKey(peer, n), raw)
	return nil
}

// forgetHeld forgets what was in a bundle.
func (e *Enclave) forgetHeld(b *store.Batch, peer redoubt.NodeName, serial uint64, rec *handoverRecord) error {
	raw, ok, err := e.engine.Get(heldKey(peer, serial))
	if err != nil || !ok {
		return err
	}
	b.Delete(heldKey(peer, serial))
	rec.Entries -= len(raw) / len(redoubt.Stamp{}) // as they were counted
	return nil
}

// encodeHeld also counts the entries, or as many of them as its bytes would be.
func encodeHeld(numbering [16]byte, made redoubt.RaisedBundle) (raw []byte, entries int, err error) {
	var b cryptobyte.Builder
	b.AddBytes(numbering[:])
	b.AddUint32(uint32(len(made.Void)))
	for _, n := range made.Void {
		b.AddUint64(n)
	}
	for _, set := range slices.Sorted(maps.Keys(made.Held)) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(set)) })
		b.AddUint32(uint32(len(made.Held[set])))
		for _, s := range made.Held[set] {
			b.AddBytes(s[:])
		}
	}
	raw, err = b.Bytes()
	return raw, len(raw) / len(redoubt.Stamp{}), err
}

func decodeHeld(raw []byte) (numbering [16]byte, made redoubt.RaisedBundle, err error) {
	s := cryptobyte.String(raw)
	var n uint32
	ok := s.CopyBytes(numbering[:]) && s.ReadUint32(&n) && uint64(n)*8 <= uint64(len(s))
	made.Held = map[string][]redoubt.Stamp{}
	for ; ok && n > 0; n-- {
		var serial uint64
		ok = s.ReadUint64(&serial)
		made.Void = append(made.Void, serial)
	}
	for ok && !s.Empty() {
		var set cryptobyte.String
		if ok = s.ReadUint16LengthPrefixed(&set) && s.ReadUint32(&n) && uint64(n)*uint64(len(redoubt.Stamp{})) <= uint64(len(s)); ok {
			stamps := make([]redoubt.Stamp, n)
			for i := range stamps {
				s.CopyBytes(stamps[i][:])
			}
			made.Held[string(set)] = stamps
		}
	}
	if !ok {
		return numbering, redoubt.RaisedBundle{}, &redoubt.Error{Op: "HandedOver", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return numbering, made, nil
}

// HandedOver reads what was in a bundle of the numbering that goes on; see redoubt.RaiseLedger.
func (e *Enclave) HandedOver(ctx context.Context, peer redoubt.NodeName, serial uint64) (made redoubt.RaisedBundle, err error) {
	missing := &redoubt.Error{Op: "HandedOver", Object: string(peer), Kind: redoubt.NotFound, Err: errors.New("what was in that number is not known any more, or it is void"),
		Hint: "have everything raised anew: redoubt guard refeed GUARD --anew --as ADMIN@LOW"}
	last, err := e.Made(ctx, peer)
	if err != nil {
		return made, err
	}
	raw, ok, err := e.engine.Get(heldKey(peer, serial))
	if err != nil || !ok {
		return made, cmp.Or(err, error(missing))
	}
	numbering, made, err := decodeHeld(raw)
	if err == nil && numbering != last.Numbering {
		err = missing
	}
	return made, err
}

// Awaits tells of the last bundle that no guard said it has.
func (e *Enclave) Awaits(_ context.Context, peer redoubt.NodeName) (uint64, bool, error) {
	var rec handoverRecord
	ok, err := e.bundleRecord(handoverKey(peer), &rec)
	return rec.Mark.Serial, ok && rec.Mark.Serial != 0, err
}

// Raises tells of the raises that this node is an end of; see redoubt.RaiseService.
func (e *Enclave) Raises(ctx context.Context, who redoubt.Credential) ([]redoubt.RaiseStatus, error) {
	entry, err := e.decide(ctx, ask{op: "Raises", who: who, action: redoubt.ActionLinkStatus})
	if err != nil {
		return nil, err
	}
	var out []redoubt.RaiseStatus
	for _, l := range e.Links() {
		if l.Raise == redoubt.NoRaise || l.Partner || !who.Working.Dominates(l.Bound) {
			continue
		}
		s := redoubt.RaiseStatus{Peer: l.Peer, Way: "up"}
		mark, err := e.Made(ctx, l.Peer)
		if l.Raise == redoubt.RaisedHere {
			var taken redoubt.BundleTaking
			taken, err = e.Taken(ctx, l.Peer)
			mark, s.Way, s.Gaps = taken.Last, "here", taken.Gaps
			s.Blocked = e.blockedRaise(l.Peer)
		} else if s.Blocked = e.blockedRaise(l.Peer); err == nil {
			if _, s.Awaiting, err = e.Awaits(ctx, l.Peer); err == nil {
				s.Unread, err = e.unread(l)
			}
		}
		if err != nil {
			return nil, err
		}
		s.Serial, s.At = mark.Serial, mark.Created.Truncate(time.Minute)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b redoubt.RaiseStatus) int {
		if a.Peer < b.Peer {
			return -1
		}
		return 1
	})
	return out, e.noteRead(ctx, entry)
}

// RaiseAnew has everything handed over once more.
func (e *Enclave) RaiseAnew(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName) error {
	const op = "RaiseAnew"
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionExportBundle, detail: "raise anew to " + string(peer)})
	if err != nil {
		return err
	}
	l, err := e.link(op, peer)
	if err == nil && l.Raise != redoubt.RaisedAway {
		err = &redoubt.Error{Op: op, Object: string(peer), Kind: redoubt.NotFound}
	}
	if err != nil {
		return e.noted(ctx, entry, err)
	}
	if err := e.record(ctx, entry); err != nil {
		return err
	}
	if err := e.handAnew(ctx, peer, new(store.Batch), func(b *store.Batch) error { return e.forgetPositions(b, peer) }); err != nil {
		return err
	}
	e.links.grown.wake()
	return nil
}

// handAnew makes unknown what a peer was handed, as forget says, in one commit with what is in the batch. The numbers go on.
func (e *Enclave) handAnew(ctx context.Context, peer redoubt.NodeName, b *store.Batch, forget func(*store.Batch) error) error {
	e.links.bundles.Lock()
	defer e.links.bundles.Unlock()
	var rec handoverRecord
	made, err := e.bundleRecord(handoverKey(peer), &rec)
	if err != nil {
		return err
	}
	if err := forget(b); err != nil {
		return err
	}
	if !made {
		return e.commit(ctx, b, nil)
	}
	rec.Spans, rec.Begun, rec.Unread, rec.Beyond, rec.Has = nil, nil, nil, 0, 0 // what is on its way counts for nothing any more, and its number stands
	return e.keepHandover(ctx, b, peer, rec, nil)
}

// blockRaise notes why a raise is not taken now, for people; "": it goes on.
func (e *Enclave) blockRaise(peer redoubt.NodeName, why string) { e.links.blocked.Store(peer, why) }

func (e *Enclave) blockedRaise(peer redoubt.NodeName) string {
	if why, ok := e.links.blocked.Load(peer); ok {
		return why.(string)
	}
	return ""
}
