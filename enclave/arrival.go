package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"

	"redoubt"
	"redoubt/keys"
	"redoubt/store"
)

// What is kept of versions that have not come whole from a peer (redoubt.Arrivals):
//
//	i peer 0 set stamp            how far it has come, and the entry, JSON
//	I peer 0 set stamp 0 n        a piece of its content, whole: JSON
//	I peer 0 set stamp 1 n        bytes of what follows the whole pieces, as they came: JSON
//	I peer 0 set stamp 2 n        bytes that came behind a gap of that, at n: JSON
//	J set stamp peer              nothing: that there is an arrival, so that who has only its name need not look through all
//
// What they name is sealed under the label's keys, each under a key of its own, as the content of a version is. All of it is charged to
// the label that the version was made at, and given back in the commit that ends it.
const (
	recArrival = 'i'
	recArrived = 'I'
	recArrives = 'J'

	arrivedWhole = 0
	arrivedPart  = 1
	arrivedApart = 2
)

// arrivalRecord is how far a version has come.
type arrivalRecord struct {
	Bucket  uint32 `json:"bucket"`
	Made    uint32 `json:"made"`
	Entry   []byte `json:"entry"` // canonical
	Whole   int64  `json:"whole"`
	Digest  []byte `json:"digest"` // the state of SHA-256 over the whole bytes
	Part    int64  `json:"part,omitempty"`
	OfPart  []byte `json:"of_part,omitempty"` // the same over the part
	Pieces  uint32 `json:"pieces,omitempty"`  // records of either sort
	Parts   uint32 `json:"parts,omitempty"`
	Touched int64  `json:"touched"` // when something last came, ns since 1970

	Islands []islandRecord `json:"islands,omitempty"` // ascending
}

// islandRecord is one stretch that stands apart from the part.
type islandRecord struct {
	From   int64  `json:"from"`
	Size   int64  `json:"size"`
	Digest []byte `json:"digest"` // SHA-256
}

func (i *islandRecord) end() int64 { return i.From + i.Size }

// arrivedRecord is a piece of it.
type arrivedRecord struct {
	Ref     store.BlobRef `json:"ref"`
	Size    int64         `json:"size"`
	Wrapped []byte        `json:"wrapped"`
	Joins   bool          `json:"joins,omitempty"`

	stored int // bytes of the record as it was read
}

// arrival is one that was found.
type arrival struct {
	e     *Enclave
	peer  redoubt.NodeName
	set   *labelSet
	id    versionID
	b     *bucket
	entry redoubt.JournalEntry
	rec   arrivalRecord

	stored int   // bytes of the record as it was read; 0: there is none
	cost   int64 // of the record and the pieces, as they are charged; set by load
}

func arrivalKey(rec byte, peer redoubt.NodeName, set uint32, id versionID) []byte {
	k := append(append([]byte{rec}, peer...), 0)
	return append(binary.BigEndian.AppendUint32(k, set), id[:]...)
}

func (a *arrival) key() []byte { return arrivalKey(recArrival, a.peer, a.set.id, a.id) }

// arrivesKey starts the keys that tell from whom a version is on its way.
func arrivesKey(set uint32, id versionID) []byte { return append(setKey(recArrives, set), id[:]...) }

func (a *arrival) arrivesKey() []byte { return append(arrivesKey(a.set.id, a.id), a.peer...) }

func (a *arrival) pieceKey(kind byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append(arrivalKey(recArrived, a.peer, a.set.id, a.id), kind), n)
}

// charged is what is charged for it; nil has nothing.
func (a *arrival) charged() int64 {
	if a == nil {
		return 0
	}
	return a.cost
}

func (r *arrivedRecord) charge() int64 {
	return chargeOf("", r.stored-len(strconv.FormatUint(uint64(r.Ref), 10)), r.Size)
}

func (r *arrivedRecord) piece(bound versionID) piece {
	return piece{ref: r.Ref, size: r.Size, wrapped: keys.Wrapped(r.Wrapped), bound: bound, joins: r.Joins}
}

func decodeArrived(raw []byte) (*arrivedRecord, error) {
	r := new(arrivedRecord)
	if err := strictJSON(raw, r); err != nil || len(r.Wrapped) != keys.WrappedBytes || r.Size < 0 {
		return nil, &redoubt.Error{Op: "arrival", Kind: redoubt.Corrupt, Err: errRecord}
	}
	r.stored = len(raw)
	return r, nil
}

// parseArrivalKey takes the key of an arrival apart.
func (e *Enclave) parseArrivalKey(k []byte) (peer redoubt.NodeName, set *labelSet, id versionID, ok bool) {
	end := bytes.IndexByte(k, 0)
	if end < 1 || len(k) < end+1+4+16 {
		return "", nil, id, false
	}
	rest := k[end+1:]
	set = e.sets.byID(binary.BigEndian.Uint32(rest))
	return redoubt.NodeName(k[1:end]), set, versionID(rest[4:20]), set != nil
}

// decodeArrival reads an arrival. Its bucket is nil where that is gone.
func (e *Enclave) decodeArrival(k, raw []byte) (*arrival, error) {
	a := &arrival{e: e, stored: len(raw)}
	var ok bool
	a.peer, a.set, a.id, ok = e.parseArrivalKey(k)
	if !ok || strictJSON(raw, &a.rec) != nil || a.entry.UnmarshalBinary(a.rec.Entry) != nil || a.rec.Whole < 0 || a.rec.Part < 0 || !a.rec.sound() {
		return nil, &redoubt.Error{Op: "arrival", Kind: redoubt.Corrupt, Err: errRecord}
	}
	if a.b = e.bucketByID(a.rec.Bucket); a.b != nil {
		a.entry.Name.Bucket = a.b.Name // where it lies here
	}
	return a, nil
}

// sound tells whether the islands of a record are such as are kept.
func (r *arrivalRecord) sound() bool {
	at, total := r.Part, int64(0)
	for i := range r.Islands {
		x := &r.Islands[i]
		if x.From < at || x.From == r.Part || x.Size <= 0 || x.Size > redoubt.MaxIslandBytes || x.From > MaxArrivedPart-x.Size || len(x.Digest) != sha256.Size {
			return false
		}
		at, total = x.end(), total+x.Size
	}
	return len(r.Islands) <= redoubt.MaxIslands && total <= redoubt.MaxIslandBytes && (len(r.Islands) == 0 || r.Part > 0)
}

// told is what a peer is told of it. A part of which no digest is on record is none, and what lies behind it neither.
func (a *arrival) told() redoubt.Arrival {
	at := redoubt.Arrival{Set: a.set.name, Stamp: redoubt.Stamp(a.id), Whole: a.rec.Whole}
	h := sha256.New()
	if a.rec.Part > 0 && len(a.rec.OfPart) > 0 && resume(h, a.rec.OfPart) == nil {
		at.Part = a.rec.Part
		h.Sum(at.Digest[:0])
		for _, x := range a.rec.Islands {
			at.Islands = append(at.Islands, redoubt.Island{From: x.From, SizeBytes: x.Size, Digest: [32]byte(x.Digest)})
		}
	}
	return at
}

// arrival finds what is kept of a version; nil is nothing.
func (e *Enclave) arrival(get getter, peer redoubt.NodeName, set *labelSet, id versionID) (*arrival, error) {
	k := arrivalKey(recArrival, peer, set.id, id)
	raw, ok, err := get.Get(k)
	if err != nil || !ok {
		return nil, err
	}
	return e.decodeArrival(k, raw)
}

// eachArrival walks all of them, or those of one peer. One that does not decode is passed over: Check tells of it, and nothing
// else waits for it.
func (e *Enclave) eachArrival(view store.View, peer redoubt.NodeName, each func(*arrival) error) error {
	prefix := []byte{recArrival}
	if peer != "" {
		prefix = append(append(prefix, peer...), 0)
	}
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		a, err := e.decodeArrival(bytes.Clone(it.Key()), bytes.Clone(it.Value()))
		if err != nil {
			continue
		}
		if err := each(a); err != nil {
			return err
		}
	}
	return it.Err()
}

// eachPiece walks the pieces of one kind, or of both (kind below 0), in order.
func (a *arrival) eachPiece(view store.View, kind int, each func(key []byte, r *arrivedRecord) error) error {
	prefix := arrivalKey(recArrived, a.peer, a.set.id, a.id)
	if kind >= 0 {
		prefix = append(prefix, byte(kind))
	}
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		r, err := decodeArrived(it.Value())
		if err != nil {
			return err
		}
		if err := each(bytes.Clone(it.Key()), r); err != nil {
			return err
		}
	}
	return it.Err()
}

// ownCharge is what the arrival's own record costs.
func (a *arrival) ownCharge() int64 {
	if a.stored == 0 {
		return 0
	}
	return chargeOf(a.entry.Name.Key, a.stored, 0)
}

// load adds up what is charged for it.
func (a *arrival) load(view store.View) error {
	a.cost = a.ownCharge()
	return a.eachPiece(view, -1, func(_ []byte, r *arrivedRecord) error { a.cost += r.charge(); return nil })
}

// end adds to batch that it goes, but for the blobs in keep. The caller gives the charge back.
func (a *arrival) end(batch *store.Batch, keep map[store.BlobRef]bool) error {
	view := a.e.engine.View()
	defer view.Close()
	batch.Delete(a.key())
	batch.Delete(a.arrivesKey())
	return a.eachPiece(view, -1, func(key []byte, r *arrivedRecord) error {
		batch.Delete(key)
		if !keep[r.Ref] {
			batch.Unlinks = append(batch.Unlinks, r.Ref)
		}
		return nil
	})
}

// drop lets go of it, if it is still there. Nobody else of those who change it holds its name's lock.
func (a *arrival) drop(ctx context.Context) error {
	defer a.lock()()
	now, err := a.e.arrival(a.e.engine, a.peer, a.set, a.id)
	if err != nil || now == nil {
		return err
	}
	batch := new(store.Batch)
	back, err := now.dropInto(batch)
	if err != nil {
		return err
	}
	if err := a.e.engine.Commit(ctx, batch); err != nil {
		return err
	}
	back.settle()
	return nil
}

// dropInto adds to batch that it goes, and gives what that gives back: settled after the commit. Its name's lock is held.
func (a *arrival) dropInto(batch *store.Batch) (*hold, error) {
	view := a.e.engine.View()
	defer view.Close()
	if err := a.load(view); err != nil {
		return nil, err
	}
	made := a.e.sets.byID(a.rec.Made)
	if made == nil {
		return nil, &redoubt.Error{Op: "arrival", Kind: redoubt.Corrupt, Err: errRecord}
	}
	if err := a.end(batch, nil); err != nil {
		return nil, err
	}
	back := &hold{set: made}
	return back, a.e.charge(batch, back, -a.cost, 0)
}

// lock takes the lock of the arrival's name; of a bucket that is gone too.
func (a *arrival) lock() (unlock func()) {
	if a.b == nil {
		return a.e.locks.lock(a.rec.Bucket, a.entry.Name.Key)
	}
	return a.e.lockName(a.b, a.entry.Name.Key)
}

// put adds the arrival's record to batch.
func (a *arrival) put(batch *store.Batch) error {
	value, err := json.Marshal(&a.rec)
	if err == nil {
		batch.Set(a.key(), value)
		batch.Set(a.arrivesKey(), nil)
		a.stored = len(value)
	}
	return err
}

// sweepArrivals lets go of what nobody waits for any more: what is here or was removed, what no link carries, and what
// nothing came of for long.
func (e *Enclave) sweepArrivals(ctx context.Context) error {
	return e.dropArrivals(ctx, func(a *arrival) (bool, error) {
		l, err := e.link("sweep", a.peer)
		if err != nil || !e.stillArrives(l, a) || e.clock().UnixNano()-a.rec.Touched > int64(arrivalLife) {
			return true, nil
		}
		return e.holdsStamp(&incoming{in: &redoubt.Received{Entry: a.entry}, b: a.b, set: a.set, id: a.id})
	})
}

// dropArrivals lets go of those that which says yes to.
func (e *Enclave) dropArrivals(ctx context.Context, which func(*arrival) (bool, error)) error {
	view := e.engine.View()
	defer view.Close()
	return e.eachArrival(view, "", func(a *arrival) error {
		goes, err := which(a)
		if err != nil || !goes {
			return errors.Join(err, ctx.Err())
		}
		return a.drop(ctx)
	})
}

// removedArrivals adds to batch that what was kept of a version goes, which was removed before it had come. The name's lock is held. It
// looks at what there is of that version, and at no other's: a peer may send a thousand such removals at once.
func (e *Enclave) removedArrivals(batch *store.Batch, set *labelSet, id versionID, name redoubt.ObjectName) (back *hold, err error) {
	view := e.engine.View()
	defer view.Close()
	prefix := arrivesKey(set.id, id)
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		a, err := e.arrival(view, redoubt.NodeName(it.Key()[len(prefix):]), set, id)
		if err != nil || a == nil || a.entry.Name != name {
			continue // what does not decode, Check tells of
		}
		one, err := a.dropInto(batch)
		if err != nil {
			return back, err
		}
		if back != nil {
			one.cost += back.cost
		}
		back = one
	}
	return back, it.Err()
}

// rewrap wraps the keys of what is kept anew, if it is still there.
func (a *arrival) rewrap(ctx context.Context) error {
	defer a.lock()()
	view := a.e.engine.View()
	defer view.Close()
	batch := new(store.Batch)
	err := a.eachPiece(view, -1, func(key []byte, r *arrivedRecord) error {
		was := keys.Wrapped(r.Wrapped)
		w, err := a.e.keyring.Rewrap(a.set.text, was)
		if err != nil || w == was {
			return rewrapped(err)
		}
		r.Wrapped = w[:]
		value, err := json.Marshal(r) // of the same length, so nothing changes in its charge
		batch.Set(key, value)
		return err
	})
	if err != nil || len(batch.Writes) == 0 {
		return err
	}
	return a.e.engine.Commit(ctx, batch)
}

func rewrapped(err error) error {
	if err == nil {
		return nil
	}
	return rewrapFault(err)
}

// checkArrivals reads back what is kept of versions that have not come whole.
func (e *Enclave) checkArrivals(ctx context.Context, view store.View, each func(set *labelSet, id versionID, fault error)) error {
	it := view.Scan([]byte{recArrival}, []byte{recArrival + 1})
	defer it.Close()
	for it.Next() {
		key := bytes.Clone(it.Key())
		a, err := e.decodeArrival(key, bytes.Clone(it.Value()))
		if err != nil {
			_, set, id, _ := e.parseArrivalKey(key)
			each(set, id, err)
			continue
		}
		fault := a.readBack(view)
		if redoubt.KindOf(fault) == redoubt.Erased { // rotated or erased since the view was taken?
			now := e.engine.View()
			fault = a.readBack(now)
			now.Close()
		}
		each(a.set, a.id, fault)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return it.Err()
}

// readBack opens every piece, and holds what they are together against the record.
func (a *arrival) readBack(view store.View) error {
	var sizes [arrivedApart + 1]int64
	var buf []byte
	err := a.eachPiece(view, -1, func(key []byte, r *arrivedRecord) (err error) {
		if kind := key[len(key)-5]; kind <= arrivedApart {
			sizes[kind] += r.Size
		}
		buf, err = a.readPiece(buf[:0], r)
		return err
	})
	if raw, ok, gone := view.Get(a.key()); gone == nil && (!ok || len(raw) != a.stored) {
		return err // it went, or went on, since it was read
	}
	want := [...]int64{a.rec.Whole, a.rec.Part, 0}
	for i := range a.rec.Islands {
		want[arrivedApart] += a.rec.Islands[i].Size
	}
	if err == nil && sizes != want {
		err = &redoubt.Error{Op: "check", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return err
}
