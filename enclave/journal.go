package enclave

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/label"
	"redoubt/store"
)

func digestOf(b []byte) [32]byte { return sha256.Sum256(b) }

// links is what an enclave knows of those it replicates with. Without a link nothing here costs a write anything.
type links struct {
	bundles sync.Mutex // one number for a bundle at a time
	mu      sync.Mutex // serialises changes of the table
	table   atomic.Pointer[map[redoubt.NodeName]redoubt.Link]
	sign    func(message []byte) ([]byte, error)
	key     ed25519.PublicKey
	grown   broadcast // a journal

	fixed    []redoubt.Link // given at the start: a device's, to its home
	declared map[redoubt.NodeName]DeclaredDevice
	altered  broadcast // the table
	makers   atomic.Pointer[map[redoubt.NodeName][]ed25519.PublicKey]

	deviceMu sync.Mutex // serialises changes of devices; taken before mu
	devices  map[redoubt.NodeName]*deviceRecord
}

// linked says whether versions are journaled: whether there is anybody to send them to.
func (e *Enclave) linked() bool {
	t := e.links.table.Load()
	return t != nil && len(*t) > 0
}

// link finds a peer's link. A peer without one is answered as a name never used.
func (e *Enclave) link(op string, peer redoubt.NodeName) (redoubt.Link, error) {
	if t := e.links.table.Load(); t != nil {
		if l, ok := (*t)[peer]; ok {
			return l, nil
		}
	}
	return redoubt.Link{}, &redoubt.Error{Op: op, Object: string(peer), Kind: redoubt.NotFound}
}

// as is the peer's subject, working at the link's bound: what is sent to it and taken from it is decided as hers.
func (e *Enclave) as(l redoubt.Link) redoubt.Credential {
	return redoubt.Credential{ID: linkCredential, Subject: access.LinkSubject(l.Peer), Working: l.Bound, Expires: e.clock().Add(linkLease)}
}

// The catalogue's keys of the journal:
//
//	s set stamp      what the stamp names: kind, bucket, and the object key; of a removal or an alteration the entry itself
//	j set n          the stamp of the set's nth entry, in commit order, and the peer that it came from, which has it
//	x set stamp      the removal of the version with that stamp, or the last alteration of it: kind, and its stamp
//	k link set       how far the peer has acknowledged the set
//	b peer o         the last bundle that was made for the peer
//	b peer i         the bundles that were taken of it
//	m i              the journal's index is complete: every version was entered
const (
	recStamp   = 's'
	recJournal = 'j'
	recFate    = 'x'
	recCursor  = 'k'
	recBundle  = 'b'
)

var indexedMark = []byte{recMark, 'i'}

func stampKey(set uint32, id versionID) []byte { return append(setKey(recStamp, set), id[:]...) }
func fateKey(set uint32, id versionID) []byte  { return append(setKey(recFate, set), id[:]...) }

// noteVersion enters a version in its set's journal, in the batch that commits it.
func (e *Enclave) noteVersion(b *store.Batch, bucket uint32, set *labelSet, key string, id versionID, from redoubt.NodeName) {
	b.Set(stampKey(set.id, id), placeOf(redoubt.EntryVersion, bucket, key))
	b.Number(setKey(recJournal, set.id), append(id[:], from...))
}

// placeOf says where a stamp's version lies.
func placeOf(kind redoubt.EntryKind, bucket uint32, key string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{byte(kind)}, bucket), key...)
}

// noteFate enters what became of a version: a removal or an alteration, made here or by another node. An entry made
// here comes without custody: it gets one when it is sent.
func (e *Enclave) noteFate(b *store.Batch, set *labelSet, entry *redoubt.JournalEntry, custody []byte, from redoubt.NodeName) error {
	encoded, err := entry.MarshalBinary()
	if err != nil {
		return err
	}
	id, of := versionID(entry.Stamp), versionID(entry.Of)
	value := append([]byte{byte(entry.Kind)}, binary.AppendUvarint(nil, uint64(len(encoded)))...)
	b.Set(stampKey(set.id, id), append(append(value, encoded...), custody...))
	b.Set(fateKey(set.id, of), append([]byte{byte(entry.Kind)}, id[:]...))
	if entry.Kind == redoubt.EntryRemoval {
		b.Delete(stampKey(set.id, of))
	}
	b.Number(setKey(recJournal, set.id), append(id[:], from...))
	return nil
}

// fate is what became of a version, if anything did.
func (e *Enclave) fate(get getter, set *labelSet, of versionID) (kind redoubt.EntryKind, id versionID, err error) {
	v, ok, err := get.Get(fateKey(set.id, of))
	if err != nil || !ok {
		return 0, id, err
	}
	if len(v) != 1+len(id) {
		return 0, id, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return redoubt.EntryKind(v[0]), versionID(v[1:]), nil
}

// noteRemoval enters a removal that this node makes, at the working label that the version was made at.
func (e *Enclave) noteRemoval(ctx context.Context, b *store.Batch, bucket *bucket, f found, key string) error {
	if bucket.id == systemBucketID || !e.linked() {
		return nil
	}
	entry, err := e.fateEntry(ctx, redoubt.EntryRemoval, bucket, f, key)
	if err != nil {
		return err
	}
	if err := e.forgetAlteration(b, f); err != nil {
		return err
	}
	return e.noteFate(b, f.set, entry, nil, "")
}

// linkCredential is the ID of the credentials of links' subjects; identity gives none like it.
const (
	linkCredential = "link"
	linkLease      = time.Minute
)

// noteAlteration enters the tags, retention and hold that f.rec now has.
func (e *Enclave) noteAlteration(ctx context.Context, b *store.Batch, bucket *bucket, f found, key string) error {
	if bucket.id == systemBucketID || !e.linked() {
		return nil
	}
	entry, err := e.fateEntry(ctx, redoubt.EntryAlteration, bucket, f, key)
	if err != nil {
		return err
	}
	entry.Tags, entry.Retention, entry.Hold = f.rec.tags, f.rec.retention, f.rec.hold
	if err := e.forgetAlteration(b, f); err != nil {
		return err
	}
	f.rec.altered = versionID(entry.Stamp)
	return e.noteFate(b, f.set, entry, nil, "")
}

// forgetAlteration drops the entry of the last alteration: the one that replaces it says all that it said.
func (e *Enclave) forgetAlteration(b *store.Batch, f found) error {
	if !f.rec.altered.isZero() {
		b.Delete(stampKey(f.set.id, f.rec.altered))
	}
	return nil
}

func (e *Enclave) fateEntry(ctx context.Context, kind redoubt.EntryKind, bucket *bucket, f found, key string) (*redoubt.JournalEntry, error) {
	made := e.sets.byID(f.rec.made)
	if made == nil {
		return nil, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errRecord}
	}
	id, err := e.newID(ctx, made, f.set)
	if err != nil {
		return nil, err
	}
	return &redoubt.JournalEntry{Kind: kind, Stamp: redoubt.Stamp(id), Of: redoubt.Stamp(f.rec.id), Label: f.set.name, Made: made.name,
		Maker: e.name, Name: redoubt.ObjectName{Bucket: bucket.Name, Key: key}}, nil
}

// entryOf is a version as it travels.
func (e *Enclave) entryOf(b *bucket, f found, key string) (*redoubt.JournalEntry, error) {
	made := e.sets.byID(f.rec.made)
	if made == nil {
		return nil, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errRecord}
	}
	r := f.rec
	out := &redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: redoubt.Stamp(r.id), Base: redoubt.Stamp(r.base), Label: f.set.name, Made: made.name,
		Maker: redoubt.NodeName(r.maker), Name: redoubt.ObjectName{Bucket: b.Name, Key: key}, Author: redoubt.SubjectName(r.author),
		Marker: r.marker, SizeBytes: r.size, Attributes: r.attrs, Checksums: r.sums}
	if r.md5 != nil {
		out.MD5 = e.etag(r)
	}
	if r.parts {
		for _, p := range r.pieces {
			out.PartSizes = append(out.PartSizes, p.size)
		}
	}
	if b.id == systemBucketID {
		out.SizeBytes = int64(len(r.inline))
	}
	if r.altered.isZero() { // else an alteration of its own says what they became
		out.Tags, out.Retention, out.Hold = r.tags, r.retention, r.hold
	}
	return out, nil
}

// subscribed says whether a name travels over the link in the direction asked.
func subscribed(l redoubt.Link, name redoubt.ObjectName, in bool) bool {
	if len(l.Subscriptions) == 0 {
		return true
	}
	for _, s := range l.Subscriptions {
		if s.Bucket == name.Bucket && (in && s.In || !in && s.Out) && len(name.Key) >= len(s.Prefix) && name.Key[:len(s.Prefix)] == s.Prefix {
			return true
		}
	}
	return false
}

// sending decides that a label set may go to a peer, once for each page of it. The page is recorded with what it held.
func (e *Enclave) sending(ctx context.Context, op string, peer redoubt.NodeName, text string) (redoubt.Link, *labelSet, *entry, error) {
	l, err := e.link(op, peer)
	if err != nil {
		return l, nil, nil, err
	}
	missing := &redoubt.Error{Op: op, Object: string(peer), Kind: redoubt.NotFound}
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

// Sets names what the link's bound dominates.
func (e *Enclave) Sets(ctx context.Context, peer redoubt.NodeName) ([]string, error) {
	l, err := e.link("Sets", peer)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, set := range e.look(lookJournal, l.Bound) {
		out = append(out, set.name)
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
		return ref, e.travels(l, entry.Name, false), nil
	}
	b, f, key, err := e.placed(view, set, id, raw)
	if err != nil || f.rec == nil || b == nil || !e.travels(l, redoubt.ObjectName{Bucket: b.Name, Key: key}, false) {
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

// item is what a stamp names, if the link carries it and it is still there.
func (e *Enclave) item(view store.View, l redoubt.Link, set *labelSet, id versionID) (item redoubt.JournalItem, ok bool, err error) {
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
		return item, e.travels(l, entry.Name, false), nil
	}
	b, f, key, err := e.placed(view, set, id, raw)
	if err != nil || f.rec == nil || b == nil || !e.travels(l, redoubt.ObjectName{Bucket: b.Name, Key: key}, false) {
		return item, false, err
	}
	name := redoubt.ObjectName{Bucket: b.Name, Key: key}
	if !f.rec.marker {
		item.Open = func() (io.ReadCloser, error) { return e.openContent(name, f) }
	}
	if f.rec.custody != nil {
		err = item.Custody.UnmarshalBinary(f.rec.custody)
	}
	if err == nil && f.rec.origin != nil {
		err = item.Entry.UnmarshalBinary(f.rec.origin)
	} else if err == nil {
		item.Entry, err = e.signable(b, f, key)
	}
	if err != nil {
		return item, false, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: err}
	}
	return item, true, nil
}

// signable is a version's entry with the digest of its content.
func (e *Enclave) signable(b *bucket, f found, key string) (redoubt.JournalEntry, error) {
	entry, err := e.entryOf(b, f, key)
	if err != nil {
		return redoubt.JournalEntry{}, err
	}
	if !f.rec.marker {
		entry.Content, err = e.contentDigest(redoubt.ObjectName{Bucket: b.Name, Key: key}, f)
	}
	return *entry, err
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
func (e *Enclave) openContent(name redoubt.ObjectName, f found) (io.ReadCloser, error) {
	if name.Bucket == redoubt.SystemBucket {
		return io.NopCloser(bytes.NewReader(f.rec.inline)), nil
	}
	o := &object{e: e, name: name, set: f.set, rec: f.rec}
	if err := o.open(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{o.Reader(0, -1), o}, nil
}

// contentDigest is the SHA-256 of a version's content: the one that came with it, or else it is read once more.
func (e *Enclave) contentDigest(name redoubt.ObjectName, f found) (sum [32]byte, err error) {
	if given, err := base64.StdEncoding.DecodeString(f.rec.sums.SHA256); err == nil && len(given) == len(sum) && !f.rec.sums.Composite {
		return [32]byte(given), nil
	}
	r, err := e.openContent(name, f)
	if err != nil {
		return sum, err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
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
		if !e.carries(l, v) {
			continue
		}
		if err := each(redoubt.Stamp(k[len(prefix):])); err != nil {
			return 0, err
		}
	}
	return upTo, it.Err()
}

// carries says whether what a stamp names travels over the link, in either direction: both ends count the same.
func (e *Enclave) carries(l redoubt.Link, raw []byte) bool {
	if entry, _, is, err := fateOf(raw); is {
		return err == nil && (e.travels(l, entry.Name, false) || e.travels(l, entry.Name, true))
	}
	b := e.bucketByID(binary.BigEndian.Uint32(raw[1:]))
	if b == nil {
		return false
	}
	name := redoubt.ObjectName{Bucket: b.Name, Key: string(raw[5:])}
	return e.travels(l, name, false) || e.travels(l, name, true)
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
	for _, s := range stamps {
		item, ok, err := e.item(view, l, set, versionID(s))
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, item)
		}
	}
	return items, e.sealed(ctx, items, ent)
}

func cursorKey(peer redoubt.NodeName, set string) []byte {
	return hashedCursorKey(peer, setHash(peer, set))
}

func hashedCursorKey(peer redoubt.NodeName, hash []byte) []byte {
	return append(peerKey(peer), hex.EncodeToString(hash)...)
}

// Acknowledged reads how far a peer has a set.
func (e *Enclave) Acknowledged(_ context.Context, peer redoubt.NodeName, set string) (uint64, bool, error) {
	return e.acknowledged(cursorKey(peer, set))
}

func (e *Enclave) acknowledged(key []byte) (uint64, bool, error) {
	v, ok, err := e.engine.Get(key)
	if err != nil || !ok {
		return 0, false, err
	}
	if len(v) != 8 {
		return 0, false, &redoubt.Error{Op: "Acknowledged", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return binary.BigEndian.Uint64(v), true, nil
}

// Acknowledge keeps it.
func (e *Enclave) Acknowledge(ctx context.Context, peer redoubt.NodeName, set string, position uint64) error {
	if _, err := e.link("Acknowledge", peer); err != nil {
		return err
	}
	was, known, err := e.Acknowledged(ctx, peer, set)
	if err != nil || known && was >= position {
		return err
	}
	return e.acknowledge(ctx, cursorKey(peer, set), position)
}

func (e *Enclave) acknowledge(ctx context.Context, key []byte, position uint64) error {
	b := new(store.Batch)
	b.Set(key, binary.BigEndian.AppendUint64(nil, position))
	return e.commit(ctx, b, nil)
}

// Forget makes everything about a peer unknown.
func (e *Enclave) Forget(ctx context.Context, peer redoubt.NodeName) error {
	b := new(store.Batch)
	view := e.engine.View()
	defer view.Close()
	prefix := peerKey(peer)
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		b.Delete(bytes.Clone(it.Key()))
	}
	if err := it.Err(); err != nil {
		return err
	}
	b.Delete(madeKey(peer)) // the numbers of bundles begin anew
	return e.commit(ctx, b, nil)
}

var lifeMark = []byte{recMark, 'n'}

// Life reads the life of this state, and begins one where there is none.
func (e *Enclave) Life(ctx context.Context) (life [16]byte, err error) {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	v, ok, err := e.engine.Get(lifeMark)
	if err != nil {
		return life, err
	}
	if !ok {
		rand.Read(life[:])
		b := new(store.Batch)
		b.Set(lifeMark, life[:])
		return life, e.commit(ctx, b, nil)
	}
	if len(v) != len(life) {
		return life, &redoubt.Error{Op: "Life", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return [16]byte(v), nil
}

// LinkView decides that somebody may see a node's links, and gives what of them: a filter of label sets.
func (e *Enclave) LinkView(ctx context.Context, who redoubt.Credential) (shows func(set string) bool, err error) {
	entry, err := e.decide(ctx, ask{op: "LinkStatus", who: who, action: redoubt.ActionLinkStatus})
	if err != nil {
		return nil, err
	}
	return func(set string) bool {
		l, err := label.ParseText([]byte(set), e.policy)
		return err == nil && who.Working.Dominates(l)
	}, e.noteRead(ctx, entry)
}

// DecideCut decides that somebody may cut a link or restore it, and records it.
func (e *Enclave) DecideCut(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, cut bool) error {
	const op = "CutLink"
	detail := "restore " + string(peer)
	if cut {
		detail = "cut " + string(peer)
	}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionCutLink, detail: detail})
	if err != nil {
		return err
	}
	if _, err := e.link(op, peer); err != nil {
		return e.noted(ctx, entry, err)
	}
	return e.record(ctx, entry)
}

// countPending bounds what is counted of one label set: more is told as that many.
const countPending = 100_000

// Pending counts what a peer has not acknowledged, in the label sets that shows says yes to.
func (e *Enclave) Pending(ctx context.Context, peer redoubt.NodeName, shows func(set string) bool) (p redoubt.LinkPending, err error) {
	sets, err := e.Sets(ctx, peer)
	if err != nil {
		return p, err
	}
	for _, set := range sets {
		if !shows(set) {
			continue
		}
		after, known, err := e.Acknowledged(ctx, peer, set)
		if err != nil {
			return p, err
		}
		if !known { // nothing is known of what the peer has, so all of it may be wanting
			if _, err := e.Inventory(ctx, peer, set, func(redoubt.Stamp) error { p.Versions++; return nil }); err != nil {
				return p, err
			}
			continue
		}
		for counted := 0; counted < countPending; {
			refs, upTo, err := e.Since(ctx, peer, set, after, 1000)
			if err != nil {
				return p, err
			}
			if upTo == after {
				break
			}
			after, counted = upTo, counted+len(refs)
			for _, r := range refs {
				p.Versions++
				p.Bytes += r.SizeBytes
			}
		}
	}
	return p, nil
}

func peerKey(peer redoubt.NodeName) []byte { return append(append([]byte{recCursor}, peer...), 0) }

// PeerLife reads which life of a peer's state is known.
func (e *Enclave) PeerLife(_ context.Context, peer redoubt.NodeName) (life [16]byte, err error) {
	v, ok, err := e.engine.Get(peerKey(peer))
	if err == nil && ok && len(v) != len(life) {
		err = &redoubt.Error{Op: "PeerLife", Kind: redoubt.Corrupt, Err: errRecord}
	}
	if err != nil || !ok {
		return life, err
	}
	return [16]byte(v), nil
}

// Remember keeps it.
func (e *Enclave) Remember(ctx context.Context, peer redoubt.NodeName, life [16]byte) error {
	if _, err := e.link("Remember", peer); err != nil {
		return err
	}
	b := new(store.Batch)
	b.Set(peerKey(peer), life[:])
	return e.commit(ctx, b, nil)
}

// Changed tells when a journal has grown.
func (e *Enclave) Changed() <-chan struct{} { return e.links.grown.wait() }

// broadcast wakes everybody who waits.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// SetLinks replaces the table of links. The first link that a node ever has makes it enter what it holds already.
func (e *Enclave) SetLinks(ctx context.Context, all []redoubt.Link) error {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	table := make(map[redoubt.NodeName]redoubt.Link, len(all))
	for _, l := range all {
		if l.Peer == "" || l.Peer == e.name || l.Bound.IsZero() || len(l.Key) != ed25519.PublicKeySize {
			return &redoubt.Error{Op: "SetLinks", Object: string(l.Peer), Kind: redoubt.Invalid, Err: errors.New("a link names a peer, its key and a bound")}
		}
		table[l.Peer] = l
	}
	e.links.table.Store(&table)
	if len(table) == 0 {
		return nil
	}
	_, indexed, err := e.engine.Get(indexedMark)
	if err != nil || indexed {
		return err
	}
	for _, b := range *e.buckets.Load() { // who did not see the table yet has committed
		b.gate.Lock()
		b.gate.Unlock() //nolint:staticcheck // an empty section: it waits
	}
	return e.index(ctx)
}

const indexAtOnce = 1000

// index enters every version that was there before the first link.
func (e *Enclave) index(ctx context.Context) error {
	view := e.engine.View()
	defer view.Close()
	batch := new(store.Batch)
	flush := func() error {
		err := e.engine.Commit(ctx, batch)
		batch = new(store.Batch)
		return err
	}
	for _, b := range *e.buckets.Load() {
		for _, set := range e.sets.all() {
			err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
				if !e.journaled(b.id, key) {
					return nil
				}
				var rec record
				if _, _, err := rec.decodeHead(raw); err != nil {
					return &redoubt.Error{Op: "index", Kind: redoubt.Corrupt, Err: err}
				}
				batch.Set(stampKey(set.id, rec.id), placeOf(redoubt.EntryVersion, b.id, key))
				if len(batch.Writes) < indexAtOnce {
					return ctx.Err()
				}
				return flush()
			})
			if err != nil {
				return err
			}
		}
	}
	batch.Set(indexedMark, nil)
	return flush()
}

// JournalKey is the public key that this node's entries are signed with.
func (e *Enclave) JournalKey() ed25519.PublicKey { return e.links.key }

// signBatches takes the node's key for what it makes.
func (e *Enclave) signBatches() error {
	signer, err := e.keyring.Signer()
	if err != nil {
		return err
	}
	e.links.key = signer.Public().(ed25519.PublicKey)
	e.links.sign = func(message []byte) ([]byte, error) { return signer.Sign(nil, message, crypto.Hash(0)) }
	return nil
}
