package enclave

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
	"sync/atomic"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// share is what those who work at one point of the order of labels may take of the disk (RULES 3.3). Every spelling and
// handling mark of that point has the same one.
//
// A version, marker, upload or part, and what is kept of a version on its way (arrival.go), is charged to the working label that it was made at, in full: its content, its
// record but for numbers of the node's own, its name and chargeOverhead. What is written up is charged to its writer, so that a low writer fills no high share and is
// refused by its own alone.
//
// A removal gives back what the charged label can see go: an upload, and a version that carries the label it was
// made at. Of a write-up its writer sees nothing any more; given back, its charge would tell the writer what is done
// above. It stays charged for good, on record as kept (recKept), whoever removes it, the node's own lifecycle too.
//
// What a peer sends is charged to the same label here, and refused for later when the share is spent. The node's own
// records, its journal and the audit log are charged to nobody, but for what is known of exports, which is charged to who exports for good.
type share struct {
	label label.Label  // one of its spellings
	quota int64        // bytes; 0: no limit
	used  atomic.Int64 // bytes charged, and held by writes under way
}

const (
	// chargeOverhead is what the store adds to one record: keys in log and index, frames and seals. An empty version takes some
	// 800 bytes of disk, with the audit entry that tells of it.
	chargeOverhead = 512
	// markerRoom is how far delete markers and locks may go over a share that is spent: who is over it can still delete
	// as clients do. Deleting by version and aborting need no room.
	markerRoom = 32 << 10
	// anyRoom is for the node's own markers: each stands over a version that was charged, and what lifecycle rules free comes
	// behind it. It is also for what a peer's alteration adds to a version that is here.
	anyRoom = 1 << 62
)

// chargeOf is what one record costs: name is the object's key, none for a part.
func chargeOf(name string, recordBytes int, content int64) int64 {
	return chargeOverhead + int64(len(name)) + int64(recordBytes) + content
}

// cost is what a version costs whose record has that many bytes. What in it depends on more than its writer may know of is left
// out, or its length would tell of it: numbers that the node gives, of blobs and label sets, which grow with what is
// stored at every label, and what links add, which depends on what lies under the key and goes into a batch at the version's label.
func (r *record) cost(key string, recordBytes int) int64 {
	recordBytes -= uvarintBytes(uint64(r.made)) + r.linkBytes() + r.digestBytes()
	for i := range r.pieces {
		recordBytes -= uvarintBytes(uint64(r.pieces[i].ref))
	}
	return chargeOf(key, recordBytes, r.size)
}

// linkBytes is how long the end of a record is that only a node with links writes.
func (r *record) linkBytes() (n int) {
	if !r.base.isZero() {
		n += len(r.base)
	}
	if !r.altered.isZero() {
		n += len(r.altered)
	}
	if r.custody != nil {
		n += uvarintBytes(uint64(len(r.custody))) + len(r.custody) + uvarintBytes(uint64(len(r.origin))) + len(r.origin)
	}
	return n
}

// digestBytes is how much longer a record is by the digest of its content: at one node that is kept, and at another not.
func (r *record) digestBytes() int {
	switch {
	case r.digest == nil:
		return 0
	case slices.ContainsFunc(r.pieces, func(p piece) bool { return p.joins }):
		return len(r.digest)
	}
	return len(r.digest) + len(r.pieces)
}

func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// charge is what a version that was read whole from the catalogue costs.
func (r *record) charge(key string) int64 { return r.cost(key, r.stored) }

// charge is what an upload costs, without its parts.
func (u *upload) charge() int64 { return chargeOf(u.name.Key, u.stored, 0) }

// charge is what a part costs, without the blob's number.
func (p *partRecord) charge() int64 {
	return chargeOf("", p.stored-len(strconv.FormatUint(uint64(p.Ref), 10)), p.Size)
}

// hold is what one commit does to a label's share: taken before it, so that no two writers count on the same bytes, and
// settled after it. Its zero value holds nothing.
type hold struct {
	set  *labelSet
	held int64 // of the share, not charged yet
	cost int64 // what the commit charges; below 0 it gives back
}

// reserve takes n bytes more of the label's share, or gives back what was taken too much. Only this label fails when
// its share is spent; room is how far this write may go over it.
func (e *Enclave) reserve(h *hold, n, room int64) error {
	s := h.set.share
	for {
		used := s.used.Load()
		if n > 0 && s.quota > 0 && e.lookUsed(s, used)+n-room > s.quota {
			return &redoubt.Error{Op: "write", Kind: redoubt.QuotaExceeded, Rule: "quota of " + s.label.Banner(),
				Hint: "remove versions at this label, or ask the platform administrator for a larger share"}
		}
		if s.used.CompareAndSwap(used, used+n) {
			h.held += n
			return nil
		}
	}
}

// charge has batch put cost on the label's account; of the share that is now held, no more and no less. After the commit
// the caller calls settle, and if there was none, release.
func (e *Enclave) charge(batch *store.Batch, h *hold, cost, room int64) error {
	if err := e.reserve(h, max(cost, 0)-h.held, room); err != nil {
		return err
	}
	h.cost = cost
	deltaSet(batch, recCharge, h.set.id, cost)
	return nil
}

// settle keeps the account in step with what was committed.
func (h *hold) settle() {
	h.set.charged.Add(h.cost)
	h.set.share.used.Add(h.cost - h.held)
	h.held, h.cost = 0, 0
}

// release gives back what was not charged.
func (h *hold) release() {
	if h.held != 0 {
		h.set.share.used.Add(-h.held)
	}
	h.held, h.cost = 0, 0
}

// room is how far a version of this credential may go over its share.
func room(who redoubt.Credential, rec *record) int64 {
	switch {
	case rec.marker && who.ID == ownCredential:
		return anyRoom
	case rec.marker:
		return markerRoom
	}
	return 0
}

// uncharge adds to batch what the removal of a version does to the label that it was charged to: given back, or kept there.
func (e *Enclave) uncharge(batch *store.Batch, f found, key string) {
	switch made := e.sets.byID(f.rec.made); {
	case made == nil: // no record of ours
	case e.seesGo(made, f):
		deltaSet(batch, recCharge, made.id, -f.rec.charge(key))
	default:
		deltaSet(batch, recKept, made.id, f.rec.charge(key))
	}
}

// givenBack is what uncharge gives back, to be settled after the commit; nil is nothing.
func (e *Enclave) givenBack(f found, key string) *hold {
	if made := e.sets.byID(f.rec.made); made != nil && e.seesGo(made, f) {
		return &hold{set: made, cost: -f.rec.charge(key)}
	}
	return nil
}

// removed keeps what is counted in step with a removal that was committed.
func (e *Enclave) removed(f found, key string) {
	e.count(f.set, -1, -f.rec.size)
	if h := e.givenBack(f, key); h != nil {
		h.settle()
	}
}

// shareMark holds the same time as timeMark, and is written with it. Where the two differ, a program that does not
// know of shares has run meanwhile, and the charges are counted anew.
var shareMark = []byte{recMark, 'a'}

// openShares takes up what is charged; in a state that does not say so it is counted once, and put on record.
func (e *Enclave) openShares(ctx context.Context) error {
	view := e.engine.View()
	defer view.Close()
	at, timed, err := view.Get(timeMark)
	if err != nil {
		return err
	}
	counted, ok, err := view.Get(shareMark)
	if err != nil || ok && timed && bytes.Equal(at, counted) {
		return err
	}
	charged, err := e.countCharges(view)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	for _, set := range e.sets.all() {
		b.Set(setKey(recCharge, set.id), binary.LittleEndian.AppendUint64(nil, uint64(charged[set.id])))
		set.share.used.Add(charged[set.id] - set.charged.Load())
		set.charged.Store(charged[set.id])
	}
	e.markNow(b)
	return e.engine.Commit(ctx, b)
}

// countCharges adds up what every label is charged by what a view shows, and by what is kept charged. A record that does not
// decode cannot be removed either, and counts for nobody; Check names it.
func (e *Enclave) countCharges(view store.View) (map[uint32]int64, error) {
	charged := map[uint32]int64{}
	for _, set := range e.sets.all() {
		kept, err := counter(view, recKept, set.id)
		if err != nil {
			return nil, err
		}
		charged[set.id] = kept
	}
	for _, rec := range []byte{recHead, recOld, recUpload, recPart} {
		if err := e.countRecords(view, rec, charged); err != nil {
			return nil, err
		}
	}
	return charged, e.eachArrival(view, "", func(a *arrival) error {
		if err := a.load(view); err != nil {
			return err
		}
		charged[a.rec.Made] += a.cost
		return nil
	})
}

func (e *Enclave) countRecords(view store.View, rec byte, charged map[uint32]int64) error {
	it := view.Scan([]byte{rec}, []byte{rec + 1})
	defer it.Close()
	for it.Next() {
		if made, cost := e.chargeAt(it.Key(), it.Value()); made != nil {
			charged[made.id] += cost
		}
	}
	return it.Err()
}

// chargeAt is what one record of the catalogue costs, and whom; nil is nobody.
func (e *Enclave) chargeAt(key, value []byte) (made *labelSet, cost int64) {
	switch key[0] {
	case recPart:
		p, err := decodePart(value)
		if err != nil || len(key) != partKeyBytes {
			return nil, 0
		}
		return e.sets.byTag(versionID(key[1:]).tag()), p.charge()
	case recUpload:
		if len(key) < rangeBytes+1+16 {
			return nil, 0
		}
		return e.sets.byID(binary.BigEndian.Uint32(key[5:])), chargeOf(string(key[rangeBytes:len(key)-17]), len(value), 0)
	}
	end := len(key) - 1
	if key[0] == recOld {
		end -= 16
	}
	if end < rangeBytes || binary.BigEndian.Uint32(key[1:]) == systemBucketID {
		return nil, 0
	}
	r, err := decodeRecord(value)
	if err != nil {
		return nil, 0
	}
	return e.sets.byID(r.made), r.charge(string(key[rangeBytes:end]))
}
