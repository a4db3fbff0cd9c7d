package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"slices"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/store"
)

// Limits of what is kept of versions that have not come whole.
const (
	// MaxArrivedPart is the most of a part: what a segment of a session is packed in, and its head (package replica).
	MaxArrivedPart = 9 << 20
	// MaxArrivedPieces is of how many pieces the content may come, beside those that end with a part.
	MaxArrivedPieces = 8192
	// maxParts is of how many records a part may be.
	maxParts = 4096
	// arrivalLife is how long nothing may come of it before it is let go.
	arrivalLife = 7 * 24 * time.Hour
)

// Arriving tells of what is kept that a peer sent; see redoubt.Arrivals.
func (e *Enclave) Arriving(_ context.Context, peer redoubt.NodeName) (all []redoubt.Arrival, err error) {
	l, err := e.link("Arriving", peer)
	if err != nil || l.Ending == redoubt.NotesOnly {
		return nil, err
	}
	view := e.engine.View()
	defer view.Close()
	var kept []*arrival
	err = e.eachArrival(view, peer, func(a *arrival) error {
		if e.stillArrives(l, a) {
			kept = append(kept, a)
		}
		return nil
	})
	slices.SortStableFunc(kept, func(a, b *arrival) int { return len(e.sets.seenBy(a.set.label)) - len(e.sets.seenBy(b.set.label)) })
	for _, a := range kept {
		all = append(all, a.told())
	}
	return all, err
}

// stillArrives says whether a link still carries what is kept.
func (e *Enclave) stillArrives(l redoubt.Link, a *arrival) bool {
	return a.b != nil && l.Ending != redoubt.NotesOnly && l.Bound.Dominates(a.set.label) && e.travels(l, a.entry.Name, a.set.label, true)
}

// Begin decides an entry before its content comes; see redoubt.Arrivals.
func (e *Enclave) Begin(ctx context.Context, peer redoubt.NodeName, in redoubt.Received) (at redoubt.Arrival, held bool, no *redoubt.Refusal, err error) {
	n, no, err := e.arriving(ctx, "Begin", peer, &in)
	if err != nil || no != nil {
		return at, false, no, err
	}
	at = redoubt.Arrival{Set: n.set.name, Stamp: in.Entry.Stamp}
	if held, err = e.holdsStamp(n); err != nil || held {
		return at, held, nil, errors.Join(err, e.dropArrival(ctx, n))
	}
	a, err := e.arrival(e.engine, peer, n.set, n.id)
	if err != nil {
		return at, false, nil, err
	}
	if a != nil && !bytes.Equal(a.rec.Entry, n.encoded) { // of one stamp two entries: what is kept is of the other
		err, a = a.drop(ctx), nil
	}
	if a != nil {
		at = a.told()
	}
	if err == nil { // what the share has no room for is not sent in vain
		rest := &hold{set: n.made}
		err = e.reserve(rest, in.Entry.SizeBytes-at.Whole, 0)
		rest.release()
	}
	no, err = n.refuseContent(ctx, e, err)
	return at, false, no, err
}

// arriving admits an entry whose content comes apart from it.
func (e *Enclave) arriving(ctx context.Context, op string, peer redoubt.NodeName, in *redoubt.Received) (*incoming, *redoubt.Refusal, error) {
	l, err := e.link(op, peer)
	if err != nil {
		return nil, nil, err
	}
	n, no, err := e.admit(ctx, l, in, map[string]bool{})
	if err == nil && no == nil && (in.Entry.Kind != redoubt.EntryVersion || in.Entry.Marker) {
		no, err = n.refuse(ctx, e, redoubt.Invalid, ruleForm, false)
	}
	return n, no, err
}

// dropArrival lets go of what is kept of a version that is not waited for.
func (e *Enclave) dropArrival(ctx context.Context, n *incoming) error {
	a, err := e.arrival(e.engine, n.from, n.set, n.id)
	if err != nil || a == nil {
		return err
	}
	return a.drop(ctx)
}

// Keep keeps whole bytes of a version's content; see redoubt.Arrivals.
func (e *Enclave) Keep(ctx context.Context, peer redoubt.NodeName, in redoubt.Received, content []byte) (*redoubt.Refusal, error) {
	n, no, err := e.arriving(ctx, "Keep", peer, &in)
	if err != nil || no != nil {
		return no, err
	}
	x := &in.Entry
	end := in.From + int64(len(content))
	if in.From < 0 || len(content) == 0 || end >= x.SizeBytes || n.system() { // the last bytes come to Apply
		return nil, &redoubt.Error{Op: "Keep", Kind: redoubt.Invalid, Err: errors.New("not a part of the version's content before its end")}
	}
	pieces := pieceSizes(x, in.From, end)
	return e.keepArrived(ctx, n, pieces, content, func(a *arrival, batch *store.Batch, sealed []piece) (freed int64, err error) {
		if freed, err = a.goBack(batch, in.From); err != nil {
			return 0, err
		}
		if a.rec.Pieces >= MaxArrivedPieces+redoubt.MaxParts {
			return 0, &redoubt.Error{Op: "Keep", Kind: redoubt.TooLarge, Err: errors.New("it comes in more pieces than are kept")}
		}
		if a.rec.Digest, err = addDigest(a.rec.Digest, content); err != nil {
			return 0, err
		}
		a.rec.Whole = end
		return freed, a.add(batch, arrivedWhole, &a.rec.Pieces, sealed)
	})
}

// keepArrived seals and stages content in pieces, and commits them as change has it, with what that costs. change gives back what it frees.
func (e *Enclave) keepArrived(ctx context.Context, n *incoming, pieces []piece, content []byte, change func(*arrival, *store.Batch, []piece) (int64, error)) (*redoubt.Refusal, error) {
	w := &write{e: e, b: n.b, name: n.in.Entry.Name, set: n.set, made: n.made, rec: &record{id: n.id}, hold: hold{set: n.made}}
	defer w.discard()
	if err := w.reserve(int64(len(content))); err != nil {
		return n.refuseContent(ctx, e, err)
	}
	body := bytes.NewReader(content)
	for _, p := range pieces {
		if err := w.takePart(ctx, io.LimitReader(body, p.size), p); err != nil {
			return n.refuseContent(ctx, e, err)
		}
	}
	if err := w.finish(); err != nil {
		return n.refuseContent(ctx, e, err)
	}
	if err := e.makeRoom(ctx, n); err != nil {
		return nil, err
	}
	defer e.lockName(n.b, n.in.Entry.Name.Key)()
	n.set.epochGate.RLock()
	defer n.set.epochGate.RUnlock()
	if held, err := e.holdsStamp(n); err != nil || held {
		return nil, err // it came by another way meanwhile: nothing more is kept
	}
	a, err := e.arrival(e.engine, n.from, n.set, n.id)
	if err != nil {
		return nil, err
	}
	var ent *entry
	if a == nil {
		a, ent = e.newArrival(n), n.entry
		ent.Kind, ent.Bytes = outcomeArriving, 0
	}
	before := a.ownCharge()
	if err := w.freshKeys(); err != nil {
		return nil, err
	}
	batch := &store.Batch{Links: w.staged}
	freed, err := change(a, batch, w.rec.pieces)
	if err != nil {
		return nil, err
	}
	a.rec.Touched = e.clock().UnixNano()
	if err := a.put(batch); err != nil {
		return nil, err
	}
	if err := e.charge(batch, &w.hold, a.cost+a.ownCharge()-before-freed, 0); err != nil {
		return n.refuseContent(ctx, e, err)
	}
	if ent != nil {
		batch.Append(e.recorder.Record(ent))
	}
	if err := e.engine.Commit(ctx, batch); err != nil {
		return n.refuseContent(ctx, e, err)
	}
	w.hold.settle()
	return nil, nil
}

// outcomeArriving is on record when the first of a version's content is kept.
const outcomeArriving = "arriving"

func (e *Enclave) newArrival(n *incoming) *arrival {
	return &arrival{e: e, peer: n.from, set: n.set, id: n.id, b: n.b, entry: n.in.Entry,
		rec: arrivalRecord{Bucket: n.b.id, Made: n.made.id, Entry: n.encoded}}
}

// add adds pieces that were sealed to batch, and their charge to a.cost.
func (a *arrival) add(batch *store.Batch, kind byte, count *uint32, sealed []piece) error {
	for _, p := range sealed {
		r := arrivedRecord{Ref: p.ref, Size: p.size, Wrapped: p.wrapped[:], Joins: p.joins}
		value, err := json.Marshal(&r)
		if err != nil {
			return err
		}
		batch.Set(a.pieceKey(kind, *count), value)
		r.stored = len(value)
		a.cost += r.charge()
		*count++
	}
	return nil
}

// goBack adds to batch that the parts go, and where the content begins anew the whole pieces too. It says what was charged for them.
func (a *arrival) goBack(batch *store.Batch, from int64) (freed int64, err error) {
	if from != 0 && from != a.rec.Whole {
		return 0, errGoOn
	}
	if from == 0 {
		a.rec.Whole, a.rec.Pieces, a.rec.Digest = 0, 0, nil
	}
	a.rec.Part, a.rec.Parts, a.rec.OfPart, a.rec.Islands = 0, 0, nil, nil
	view := a.e.engine.View()
	defer view.Close()
	return freed, a.eachPiece(view, -1, func(key []byte, r *arrivedRecord) error {
		if from != 0 && key[len(key)-5] == arrivedWhole {
			return nil
		}
		batch.Delete(key)
		batch.Unlinks = append(batch.Unlinks, r.Ref)
		freed += r.charge()
		return nil
	})
}

var errGoOn = &redoubt.Error{Op: "Keep", Kind: redoubt.Conflict, Err: errors.New("it does not go on where what is kept ends")}

// makeRoom lets go of a peer's oldest arrival of a label set where one more is too many: what comes at one label pushes out nothing that
// comes at another.
func (e *Enclave) makeRoom(ctx context.Context, n *incoming) error {
	var all []*arrival
	view := e.engine.View()
	err := e.eachArrival(view, n.from, func(a *arrival) error {
		if a.set == n.set && a.id != n.id {
			all = append(all, a)
		}
		return nil
	})
	if err = errors.Join(err, view.Close()); err != nil || len(all) < redoubt.MaxArrivals {
		return err
	}
	return slices.MinFunc(all, func(a, b *arrival) int { return int(a.rec.Touched>>20 - b.rec.Touched>>20) }).drop(ctx)
}

// addDigest goes on with a SHA-256 whose state was kept; none is its beginning.
func addDigest(state, content []byte) ([]byte, error) {
	h := sha256.New()
	if err := resume(h, state); err != nil {
		return nil, err
	}
	h.Write(content)
	return h.(encoding.BinaryMarshaler).MarshalBinary()
}

func resume(h hash.Hash, state []byte) error {
	if len(state) == 0 {
		return nil
	}
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return &redoubt.Error{Op: "arrival", Kind: redoubt.Corrupt, Err: err}
	}
	return nil
}

// readPiece appends what a piece holds.
func (a *arrival) readPiece(dst []byte, r *arrivedRecord) ([]byte, error) {
	o := &object{e: a.e, name: a.entry.Name, set: a.set, rec: &record{size: r.Size, pieces: []piece{r.piece(a.id)}}}
	defer o.Close()
	if err := o.open(); err != nil {
		return dst, err
	}
	at := len(dst)
	dst = append(dst, make([]byte, r.Size)...)
	_, err := io.ReadFull(o.Reader(0, -1), dst[at:])
	return dst, err
}

// goOn takes up what was kept of a version's content, which the rest follows: its pieces, and the digest over them.
func (e *Enclave) goOn(n *incoming, digest hash.Hash) (*arrival, error) {
	view := e.engine.View()
	defer view.Close()
	a, err := e.arrival(view, n.from, n.set, n.id)
	if err != nil {
		return nil, err
	}
	if a == nil || a.rec.Whole != n.in.From || !bytes.Equal(a.rec.Entry, n.encoded) {
		return nil, &redoubt.Error{Op: "Apply", Kind: redoubt.Conflict, Err: errGoOn.Err}
	}
	if err := a.load(view); err != nil {
		return nil, err
	}
	if err := a.eachPiece(view, arrivedWhole, func(_ []byte, r *arrivedRecord) error {
		n.w.rec.pieces = append(n.w.rec.pieces, r.piece(n.id))
		return nil
	}); err != nil {
		return nil, err
	}
	return a, resume(digest, a.rec.Digest)
}

// endArrival adds to the batch that places a version what becomes of what was kept of it: it is the version's, or goes. It says what
// was charged for it. The name's lock is held.
func (e *Enclave) endArrival(batch *store.Batch, n *incoming) (cost int64, err error) {
	a, err := e.arrival(e.engine, n.from, n.set, n.id)
	if err != nil || a == nil && n.arrival == nil {
		return 0, err
	}
	if n.arrival != nil && (a == nil || a.rec.Whole != n.arrival.rec.Whole || a.rec.Pieces != n.arrival.rec.Pieces) {
		return 0, &redoubt.Error{Op: "Apply", Kind: redoubt.Conflict, Err: errors.New("what was kept of the version changed meanwhile")}
	}
	view := e.engine.View()
	defer view.Close()
	if err := a.load(view); err != nil {
		return 0, err
	}
	keep, i := map[store.BlobRef]bool{}, 0
	if n.arrival != nil {
		err = a.eachPiece(view, arrivedWhole, func(_ []byte, r *arrivedRecord) error {
			n.w.rec.pieces[i].wrapped = keys.Wrapped(r.Wrapped) // it may have been wrapped anew since
			keep[r.Ref] = true
			i++
			return nil
		})
	}
	return a.cost, errors.Join(err, a.end(batch, keep))
}

// Lacking tells a peer what of some stamps is not here; see redoubt.Arrivals.
func (e *Enclave) Lacking(ctx context.Context, peer redoubt.NodeName, set string, stamps []redoubt.Stamp) (out []redoubt.Stamp, err error) {
	l, s, ent, err := e.sending(ctx, "Lacking", peer, set)
	if redoubt.KindOf(err) == redoubt.NotFound {
		return stamps, nil // nothing of the set is here, or it is told nothing
	}
	if err != nil {
		return nil, err
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return nil, err
	}
	view := e.engine.View()
	defer view.Close()
	for _, stamp := range stamps {
		held, err := e.holdsFor(view, l, s, versionID(stamp))
		if err != nil {
			return nil, err
		}
		if !held {
			out = append(out, stamp)
		}
	}
	return out, nil
}

// holdsFor says whether what a stamp names is here, or was removed, and the link carries it.
func (e *Enclave) holdsFor(view store.View, l redoubt.Link, set *labelSet, id versionID) (bool, error) {
	raw, ok, err := view.Get(stampKey(set.id, id))
	if err != nil {
		return false, err
	}
	if !ok {
		fate, err := e.fates(view, set, id)
		if err != nil || fate.removal.isZero() {
			return false, err
		}
		if raw, ok, err = view.Get(stampKey(set.id, fate.removal)); err != nil || !ok {
			return false, err
		}
	}
	return len(raw) > 5 && e.eitherWay(l, set, raw), nil
}
