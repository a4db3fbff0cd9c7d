package enclave

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"redoubt"
	"redoubt/store"
)

// What of a segment has come and is kept: a part, from its beginning, and islands behind that.

// KeepPart keeps bytes of what is not whole yet; see redoubt.Arrivals.
func (e *Enclave) KeepPart(ctx context.Context, peer redoubt.NodeName, in redoubt.Received, part redoubt.Stretch, islands []redoubt.Stretch) (*redoubt.Refusal, error) {
	n, no, err := e.arriving(ctx, "KeepPart", peer, &in)
	if err != nil || no != nil {
		return no, err
	}
	pieces, content, err := partPieces(part, islands)
	if err == nil && n.system() {
		err = errTooMuch
	}
	if err != nil {
		return nil, err
	}
	return e.keepArrived(ctx, n, pieces, content, func(a *arrival, batch *store.Batch, sealed []piece) (freed int64, err error) {
		if part.From == 0 {
			if freed, err = a.goBack(batch, in.From); err != nil {
				return 0, err
			}
		}
		if a.rec.Whole != in.From || a.rec.Part != part.From {
			return 0, errGoOn
		}
		if len(part.Bytes) > 0 {
			if a.rec.Parts >= maxParts {
				return 0, &redoubt.Error{Op: "KeepPart", Kind: redoubt.TooLarge, Err: errors.New("it comes in more parts than are kept")}
			}
			if a.rec.OfPart, err = addDigest(a.rec.OfPart, part.Bytes); err != nil {
				return 0, err
			}
			a.rec.Part += int64(len(part.Bytes))
			if err = a.add(batch, arrivedPart, &a.rec.Parts, sealed[:1]); err != nil {
				return 0, err
			}
			sealed = sealed[1:]
		}
		reached, err := a.reach(batch, a.rec.Part)
		if err != nil {
			return 0, err
		}
		return freed + reached, a.addIslands(batch, islands, sealed)
	})
}

var errTooMuch = &redoubt.Error{Op: "KeepPart", Kind: redoubt.Invalid, Err: errors.New("more than may be kept")}

// partPieces gives what KeepPart keeps as pieces, and the bytes of all of them: the part's, where there are any, and each island's.
func partPieces(part redoubt.Stretch, islands []redoubt.Stretch) (pieces []piece, content []byte, err error) {
	if part.From < 0 || part.From > MaxArrivedPart-int64(len(part.Bytes)) || len(islands) > redoubt.MaxIslands {
		return nil, nil, errTooMuch
	}
	if len(part.Bytes) > 0 {
		pieces, content = append(pieces, piece{size: int64(len(part.Bytes))}), part.Bytes
	}
	if len(islands) > 0 {
		content = bytes.Clone(content)
	}
	for _, x := range islands {
		pieces, content = append(pieces, piece{size: int64(len(x.Bytes))}), append(content, x.Bytes...)
	}
	if len(content) == 0 {
		return nil, nil, errTooMuch
	}
	return pieces, content, nil
}

// reach adds to batch that the islands go that begin at upTo or before: the part has come to them. It says what was charged for them.
func (a *arrival) reach(batch *store.Batch, upTo int64) (freed int64, err error) {
	n := 0
	for n < len(a.rec.Islands) && a.rec.Islands[n].From <= upTo {
		n++
	}
	view := a.e.engine.View()
	defer view.Close()
	for _, x := range a.rec.Islands[:n] {
		key := a.pieceKey(arrivedApart, uint32(x.From))
		raw, ok, err := view.Get(key)
		if err != nil || !ok {
			return 0, errors.Join(err, errTorn)
		}
		r, err := decodeArrived(raw)
		if err != nil {
			return 0, err
		}
		batch.Delete(key)
		batch.Unlinks = append(batch.Unlinks, r.Ref)
		freed += r.charge()
	}
	a.rec.Islands = slices.Delete(a.rec.Islands, 0, n)
	return freed, nil
}

var errTorn = &redoubt.Error{Op: "Part", Kind: redoubt.Corrupt, Err: errRecord}

// addIslands adds to batch what stands apart from the part, and its charge to a.cost.
func (a *arrival) addIslands(batch *store.Batch, islands []redoubt.Stretch, sealed []piece) error {
	for i, x := range islands {
		digest := sha256.Sum256(x.Bytes)
		a.rec.Islands = append(a.rec.Islands, islandRecord{From: x.From, Size: int64(len(x.Bytes)), Digest: digest[:]})
		at := uint32(x.From)
		if err := a.add(batch, arrivedApart, &at, sealed[i:i+1]); err != nil {
			return err
		}
	}
	slices.SortFunc(a.rec.Islands, func(x, y islandRecord) int { return cmp.Compare(x.From, y.From) })
	if !a.rec.sound() {
		return errTooMuch
	}
	return nil
}

// Part reads back what KeepPart kept; see redoubt.Arrivals.
func (e *Enclave) Part(ctx context.Context, peer redoubt.NodeName, at redoubt.Arrival) (part []byte, islands []redoubt.Stretch, err error) {
	const op = "Part"
	l, err := e.link(op, peer)
	if err != nil {
		return nil, nil, err
	}
	missing := &redoubt.Error{Op: op, Kind: redoubt.NotFound}
	id := versionID(at.Stamp)
	set := e.sets.byTag(id.tag())
	if set == nil || set.name != at.Set {
		return nil, nil, missing
	}
	view := e.engine.View()
	defer view.Close()
	a, err := e.arrival(view, peer, set, id)
	if err != nil {
		return nil, nil, err
	}
	if a == nil || !e.stillArrives(l, a) {
		return nil, nil, missing
	}
	part, islands, err = a.readPart(view, len(at.Islands) > 0)
	if k := redoubt.KindOf(err); k == redoubt.Corrupt || k == redoubt.Erased {
		return nil, nil, errors.Join(err, a.dropPart(ctx))
	}
	if err == nil && len(islands) < len(a.rec.Islands) {
		err = a.dropIslands(ctx)
	}
	return part, islands, err
}

// readPart opens the part, and what stands apart from it, if that is asked for.
func (a *arrival) readPart(view store.View, apart bool) (part []byte, islands []redoubt.Stretch, err error) {
	part = make([]byte, 0, min(a.rec.Part, MaxArrivedPart))
	err = a.eachPiece(view, arrivedPart, func(_ []byte, r *arrivedRecord) (err error) {
		if int64(len(part))+r.Size > MaxArrivedPart {
			return errTorn
		}
		part, err = a.readPiece(part, r)
		return err
	})
	if err == nil && int64(len(part)) != a.rec.Part {
		err = errTorn
	}
	if err != nil || !apart {
		return part, nil, err
	}
	err = a.eachPiece(view, arrivedApart, func(key []byte, r *arrivedRecord) error {
		if len(islands) == len(a.rec.Islands) {
			return errTorn
		}
		x := &a.rec.Islands[len(islands)]
		if int64(binary.BigEndian.Uint32(key[len(key)-4:])) != x.From || r.Size != x.Size {
			return errTorn
		}
		b, err := a.readPiece(nil, r)
		if err != nil {
			return err
		}
		if sha256.Sum256(b) != [sha256.Size]byte(x.Digest) {
			return errTorn
		}
		islands = append(islands, redoubt.Stretch{From: x.From, Bytes: b})
		return nil
	})
	if err == nil && len(islands) != len(a.rec.Islands) {
		err = errTorn
	}
	return part, islands, err
}

// dropPart lets go of the part, if it is still as it was read: the whole bytes before it stay.
func (a *arrival) dropPart(ctx context.Context) error {
	return a.letGo(ctx, func(now *arrival, batch *store.Batch) (int64, error) { return now.goBack(batch, now.rec.Whole) })
}

// dropIslands lets go of what stands apart from the part, if that is still as it was read.
func (a *arrival) dropIslands(ctx context.Context) error {
	return a.letGo(ctx, func(now *arrival, batch *store.Batch) (int64, error) { return now.reach(batch, MaxArrivedPart) })
}

// letGo commits that some of it goes, if it is still as it was read. what says what was charged for that.
func (a *arrival) letGo(ctx context.Context, what func(now *arrival, batch *store.Batch) (freed int64, err error)) error {
	defer a.lock()()
	now, err := a.e.arrival(a.e.engine, a.peer, a.set, a.id)
	if err != nil || now == nil || now.rec.Part != a.rec.Part || now.rec.Whole != a.rec.Whole {
		return err
	}
	made := a.e.sets.byID(now.rec.Made)
	if made == nil {
		return &redoubt.Error{Op: "arrival", Kind: redoubt.Corrupt, Err: errRecord}
	}
	batch, back, before := new(store.Batch), &hold{set: made}, now.ownCharge()
	freed, err := what(now, batch)
	if err != nil {
		return err
	}
	if err := now.put(batch); err != nil {
		return err
	}
	if err := a.e.charge(batch, back, now.ownCharge()-before-freed, 0); err != nil {
		return err
	}
	if err := a.e.engine.Commit(ctx, batch); err != nil {
		return err
	}
	back.settle()
	return nil
}
