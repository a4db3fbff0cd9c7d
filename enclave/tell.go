package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"slices"
	"sync"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// sending decides that a label set may go to a peer, once for each page of it. The page is recorded with what it held.
func (e *Enclave) sending(ctx context.Context, op string, peer redoubt.NodeName, text string) (redoubt.Link, *labelSet, *entry, error) {
	l, err := e.link(op, peer)
	if err != nil {
		return l, nil, nil, err
	}
	missing := &redoubt.Error{Op: op, Object: string(peer), Kind: redoubt.NotFound}
	if l.Ending != redoubt.NotEnding {
		return l, nil, nil, missing
	}
	of, err := label.ParseText([]byte(text), e.policy)
	if err != nil {
		return l, nil, nil, missing
	}
	ent, err := e.decide(ctx, ask{op: op, who: e.as(l), action: redoubt.ActionSend, object: of, detail: "to " + string(peer)})
	if err != nil {
		return l, nil, nil, err
	}
	set := e.sets.table.Load().byLabel[of]
	if set == nil {
		return l, nil, nil, missing
	}
	return l, set, ent, nil
}

// Sets names what the link's bound dominates, the bound's own set first: what a device is told of people and buckets lies there, and
// the rest is decided by it.
func (e *Enclave) Sets(ctx context.Context, peer redoubt.NodeName) ([]string, error) {
	l, err := e.link("Sets", peer)
	if err != nil || l.Ending != redoubt.NotEnding {
		return nil, err // to who has ended nothing is sent
	}
	var out []string
	for _, set := range e.look(lookJournal, l.Bound) {
		if set.label == l.Bound {
			out = slices.Insert(out, 0, set.name)
		} else {
			out = append(out, set.name)
		}
	}
	return out, nil
}

// Since reads a page of a set's journal; see redoubt.Journal. It is recorded by Fetch what is sent of it.
func (e *Enclave) Since(ctx context.Context, peer redoubt.NodeName, text string, after uint64, max int) ([]redoubt.JournalRef, uint64, error) {
	const op = "Since"
	l, set, _, err := e.sending(ctx, op, peer, text)
	if err != nil {
		return nil, after, err
	}
	view := e.engine.View()
	defer view.Close()
	prefix := setKey(recJournal, set.id)
	it := view.Scan(store.NumberedKey(prefix, after+1), nextPrefix(prefix))
	defer it.Close()
	var refs []redoubt.JournalRef
	for len(refs) < max && it.Next() {
		k, v := it.Key(), it.Value()
		if len(k) != len(prefix)+8 || len(v) < len(versionID{}) {
			return nil, after, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: errRecord}
		}
		after = binary.BigEndian.Uint64(k[len(prefix):])
		id, from := versionID(v), v[len(versionID{}):]
		if string(from) == string(peer) {
			continue
		}
		ref, ok, err := e.ref(view, l, set, id)
		if err != nil {
			return nil, after, err
		}
		if ok {
			ref.Position = after
			refs = append(refs, ref)
		}
	}
	return refs, after, it.Err()
}

// Refs tells of stamps what Since does.
func (e *Enclave) Refs(ctx context.Context, peer redoubt.NodeName, text string, stamps []redoubt.Stamp) ([]redoubt.JournalRef, error) {
	l, set, _, err := e.sending(ctx, "Refs", peer, text)
	if err != nil {
		return nil, err
	}
	view := e.engine.View()
	defer view.Close()
	var refs []redoubt.JournalRef
	for _, s := range stamps {
		ref, ok, err := e.ref(view, l, set, versionID(s))
		if err != nil {
			return nil, err
		}
		if ok {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// ref is how urgent and how large what a stamp names is, if the link carries it and it is still there.
func (e *Enclave) ref(view store.View, l redoubt.Link, set *labelSet, id versionID) (ref redoubt.JournalRef, ok bool, err error) {
	raw, ok, err := view.Get(stampKey(set.id, id))
	if err != nil || !ok {
		return ref, false, err
	}
	ref = redoubt.JournalRef{Stamp: redoubt.Stamp(id)}
	if entry, _, isFate, err := fateOf(raw); isFate || err != nil {
		if err != nil {
			return ref, false, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: err}
		}
		return ref, e.travels(l, e.localName(entry.Maker, entry.Name), set.label, false), nil
	}
	b, f, key, err := e.placed(view, set, id, raw)
	if err != nil || f.rec == nil || b == nil || !e.travels(l, redoubt.ObjectName{Bucket: b.Name, Key: key}, set.label, false) || e.readers.closes(f.rec, f.set.label) != "" {
		return ref, false, err
	}
	if old, err := e.superseded(view, l, b, f, key); err != nil || old {
		return ref, false, err
	}
	ref.SizeBytes = f.rec.size
	if b.id == systemBucketID { // who may do what is more urgent than anything done
		ref.SizeBytes, ref.Precedence = int64(len(f.rec.inline)), redoubt.Flash
		return ref, true, nil
	}
	_ = ref.Precedence.UnmarshalText([]byte(f.rec.attrs.Precedence)) // none, or none that is known: routine
	return ref, true, nil
}

// nextPrefix is the first key behind a numbered stream.
func nextPrefix(prefix []byte) []byte {
	return after(append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, 8)...))
}

// keptContent is how much of the content that a Fetch reads to hash it is kept for whoever opens it next: one object of a usual size,
// or all that goes in one message.
const keptContent = 1 << 20

// keptBuffers is memory for it, by powers of two from keptLeast on: made anew for each, it would have the collector go through the whole heap every
// few of them.
var keptBuffers [keptClasses]sync.Pool // of *[]byte

const (
	keptLeast   = 16 << 10
	keptClasses = 7 // up to keptContent
)

// keptClass is the smallest class that has room for so many bytes; below zero: they are too few to be worth it.
func keptClass(size int64) int {
	if size <= keptLeast/2 {
		return -1
	}
	return max(0, bits.Len64(uint64(size-1))-bits.Len64(keptLeast-1))
}

// keptBuffer is memory of so many bytes, and what gives it back; nil: nobody needs to.
func keptBuffer(size int64) (b []byte, release func()) {
	class := keptClass(size)
	if class < 0 {
		return make([]byte, size), nil
	}
	held, ok := keptBuffers[class].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, keptLeast<<class)
		held = &fresh
	}
	return (*held)[:size], func() { keptBuffers[class].Put(held) }
}

// item is what a stamp names, if the link carries it and it is still there. Content that had to be read for its digest is kept as far
// as there is room.
func (e *Enclave) item(view store.View, l redoubt.Link, set *labelSet, id versionID, room *int64) (item redoubt.JournalItem, ok bool, err error) {
	raw, ok, err := view.Get(stampKey(set.id, id))
	if err != nil || !ok {
		return item, false, err
	}
	if entry, custody, isFate, err := fateOf(raw); isFate || err != nil {
		if err == nil && custody != nil {
			err = item.Custody.UnmarshalBinary(custody)
		}
		if err != nil {
			return item, false, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: err}
		}
		item.Entry = *entry
		return item, e.travels(l, e.localName(entry.Maker, entry.Name), set.label, false), nil
	}
	b, f, key, err := e.placed(view, set, id, raw)
	if err != nil || f.rec == nil || b == nil || !e.travels(l, redoubt.ObjectName{Bucket: b.Name, Key: key}, set.label, false) || e.readers.closes(f.rec, f.set.label) != "" { // what a report takes out is carried no further
		return item, false, err
	}
	if item.Superseded, err = e.superseded(view, l, b, f, key); err != nil {
		return item, false, err
	}
	name := redoubt.ObjectName{Bucket: b.Name, Key: key}
	if !f.rec.marker {
		item.Open = func() (redoubt.Content, error) { return e.openContent(name, f) }
	}
	if f.rec.custody != nil {
		err = item.Custody.UnmarshalBinary(f.rec.custody)
	}
	if err == nil && f.rec.origin != nil {
		err = item.Entry.UnmarshalBinary(f.rec.origin)
	} else if err == nil {
		var kept []byte
		if item.Entry, kept, item.Release, err = e.signable(b, f, key, *room); kept != nil {
			*room -= int64(len(kept))
			item.Open = func() (redoubt.Content, error) { return inline(kept), nil }
		}
	}
	if k := redoubt.KindOf(err); k == redoubt.Unavailable || k == redoubt.DiskFull {
		return item, false, err // it passes, and is no damage
	}
	if err != nil {
		return item, false, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: err}
	}
	return item, true, nil
}

// signable is a version's entry with the digest of its content. Content that had to be read for it is returned too, where it is not
// longer than most, with what gives its memory back.
func (e *Enclave) signable(b *bucket, f found, key string, most int64) (out redoubt.JournalEntry, content []byte, release func(), err error) {
	entry, err := e.entryOf(b, f, key)
	if err != nil {
		return out, nil, nil, err
	}
	if !f.rec.marker {
		entry.Content, content, release, err = e.contentDigest(redoubt.ObjectName{Bucket: b.Name, Key: key}, f, entry.SizeBytes, most)
	}
	return *entry, content, release, err
}

// fateOf takes a removal or an alteration apart; a place of a version is none.
func fateOf(raw []byte) (entry *redoubt.JournalEntry, custody []byte, is bool, err error) {
	if len(raw) == 0 || redoubt.EntryKind(raw[0]) == redoubt.EntryVersion {
		return nil, nil, false, nil
	}
	rd := reader{b: raw[1:]}
	encoded := rd.take(rd.uvarint())
	if rd.bad {
		return nil, nil, true, errRecord
	}
	entry = new(redoubt.JournalEntry)
	if err := entry.UnmarshalBinary(encoded); err != nil {
		return nil, nil, true, err
	}
	if len(rd.b) > 0 {
		custody = rd.b
	}
	return entry, custody, true, nil
}

// placed finds the version that a place names; a nil record is one that is gone.
func (e *Enclave) placed(get getter, set *labelSet, id versionID, raw []byte) (*bucket, found, string, error) {
	if len(raw) < 6 {
		return nil, found{}, "", &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errRecord}
	}
	number, key := binary.BigEndian.Uint32(raw[1:]), string(raw[5:])
	b := e.bucketByID(number)
	if b == nil {
		return nil, found{}, key, nil
	}
	f, err := e.byID(get, b, set.label, key, e.ids.versionID(id))
	return b, f, key, err
}

func (e *Enclave) bucketByID(id uint32) *bucket {
	for _, b := range *e.buckets.Load() {
		if b.id == id {
			return b
		}
	}
	return nil
}

// openContent opens a version's content for a peer. The version may have gone since it was found.
func (e *Enclave) openContent(name redoubt.ObjectName, f found) (redoubt.Content, error) {
	if name.Bucket == redoubt.SystemBucket {
		return inline(f.rec.inline), nil
	}
	o := &object{e: e, name: name, set: f.set, rec: f.rec}
	if err := o.open(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// inline is content that is in memory: that of a system record, or one that was read already.
type inline []byte

func (c inline) Reader(off, n int64) io.Reader {
	if n < 0 {
		n = int64(len(c))
	}
	return io.NewSectionReader(bytes.NewReader(c), off, n)
}

func (c inline) Close() error { return nil }

// Whole is all of it, for who would read it into memory; it is not written to.
func (c inline) Whole() []byte { return c }

// contentDigest is the SHA-256 of a version's size bytes of content: the one that it came with or was hashed to then, or else they are read once more. Where
// they are not more than most they are returned, with what gives their memory back: who asks is about to send them.
func (e *Enclave) contentDigest(name redoubt.ObjectName, f found, size, most int64) (sum [32]byte, content []byte, release func(), err error) {
	sum, known := f.rec.contentSum()
	if known && (size > most || f.rec.inline != nil) {
		return sum, nil, nil, nil
	}
	r, err := e.openContent(name, f)
	if err != nil {
		return sum, nil, nil, err
	}
	defer r.Close()
	if size <= most {
		content, release = keptBuffer(size)
		if _, err = io.ReadFull(r.Reader(0, -1), content); !known {
			sum = sha256.Sum256(content)
		}
		return sum, content, release, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, r.Reader(0, -1)); err != nil {
		return sum, nil, nil, err
	}
	return [32]byte(h.Sum(nil)), nil, nil, nil
}

// sealed gives entries made here their custody, one signature for all of them, and records the page.
func (e *Enclave) sealed(ctx context.Context, items []redoubt.JournalItem, ent *entry) error {
	var own []int
	var encoded [][]byte
	for i := range items {
		ent.Bytes += items[i].Entry.SizeBytes
		if items[i].Entry.Maker != e.name {
			continue
		}
		b, err := items[i].Entry.MarshalBinary()
		if err != nil {
			return err
		}
		own, encoded = append(own, i), append(encoded, b)
	}
	if len(items) == 0 {
		return nil
	}
	if ent.Count = uint32(len(items)); len(own) > 0 {
		custodies, err := redoubt.SealBatch(e.name, encoded, e.links.sign)
		if err != nil {
			return err
		}
		for n, i := range own {
			items[i].Custody = custodies[n]
		}
	}
	return e.noteRead(ctx, ent)
}

// Inventory walks the stamps of a set, which the catalogue has in order.
func (e *Enclave) Inventory(ctx context.Context, peer redoubt.NodeName, text string, each func(redoubt.Stamp) error) (uint64, error) {
	const op = "Inventory"
	l, set, ent, err := e.sending(ctx, op, peer, text)
	if err != nil {
		return 0, err
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return 0, err
	}
	view := e.engine.View()
	defer view.Close()
	upTo, err := journalEnd(view, set)
	if err != nil {
		return 0, err
	}
	prefix := setKey(recStamp, set.id)
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		k, v := it.Key(), it.Value()
		if len(k) != len(prefix)+len(versionID{}) || len(v) < 6 {
			return 0, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: errRecord}
		}
		id := versionID(k[len(prefix):])
		if carried, err := e.carries(view, l, set, id, v); err != nil {
			return 0, err
		} else if !carried {
			continue
		}
		if err := each(redoubt.Stamp(id)); err != nil {
			return upTo, err
		}
	}
	return upTo, it.Err()
}

// carries says whether the peer is to have what a stamp names, or this node of it: both ends count the same.
func (e *Enclave) carries(view store.View, l redoubt.Link, set *labelSet, id versionID, raw []byte) (bool, error) {
	if !e.eitherWay(l, set, raw) || redoubt.EntryKind(raw[0]) != redoubt.EntryVersion {
		return e.eitherWay(l, set, raw), nil
	}
	b := e.bucketByID(binary.BigEndian.Uint32(raw[1:]))
	if b == nil || !latestOnly(l, redoubt.ObjectName{Bucket: b.Name, Key: string(raw[5:])}, set.label) {
		return true, nil
	}
	_, f, key, err := e.placed(view, set, id, raw)
	if err != nil || f.rec == nil {
		return err == nil, err
	}
	old, err := e.superseded(view, l, b, f, key)
	return !old, err
}

// eitherWay says whether what a stamp names travels over the link, in either direction.
func (e *Enclave) eitherWay(l redoubt.Link, set *labelSet, raw []byte) bool {
	if entry, _, is, err := fateOf(raw); is {
		if err != nil {
			return false
		}
		name := e.localName(entry.Maker, entry.Name)
		return e.travels(l, name, set.label, false) || e.travels(l, name, set.label, true)
	}
	b := e.bucketByID(binary.BigEndian.Uint32(raw[1:]))
	if b == nil {
		return false
	}
	name := redoubt.ObjectName{Bucket: b.Name, Key: string(raw[5:])}
	return e.travels(l, name, set.label, false) || e.travels(l, name, set.label, true)
}

func journalEnd(get getter, set *labelSet) (uint64, error) {
	v, ok, err := get.Get(setKey(recJournal, set.id))
	if err != nil || !ok {
		return 0, err
	}
	if len(v) != 8 {
		return 0, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return binary.LittleEndian.Uint64(v), nil
}

// Fetch gives the entries of stamps that an inventory showed.
func (e *Enclave) Fetch(ctx context.Context, peer redoubt.NodeName, text string, stamps []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	l, set, ent, err := e.sending(ctx, "Fetch", peer, text)
	if err != nil {
		return nil, err
	}
	view := e.engine.View()
	defer view.Close()
	var items []redoubt.JournalItem
	room := int64(keptContent)
	for _, s := range stamps {
		item, ok, err := e.item(view, l, set, versionID(s), &room)
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, item)
		}
	}
	return items, e.sealed(ctx, items, ent)
}
