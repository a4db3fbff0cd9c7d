package enclave

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"time"

	"redoubt"
	"redoubt/store"
)

// The catalogue's keys of the journal:
//
//	s set stamp      what the stamp names: kind, bucket, and the object key; of a removal or an alteration the entry itself
//	j set n          the stamp of the set's nth entry, in commit order, and the peer that it came from, which has it
//	x set stamp      what became of the version with that stamp (fate.go): kind; of a removal its stamp, of alterations two
//	k link set       how far the peer has acknowledged the set
//	b peer o         the last bundle that was made for the peer
//	b peer i         the bundles that were taken of it
//	z peer set       what was sent of the set to the peer on a day: day 8, bytes 8
//	m i              the journal's index is complete: every version was entered
const (
	recStamp   = 's'
	recJournal = 'j'
	recFate    = 'x'
	recCursor  = 'k'
	recBundle  = 'b'
	recSpent   = 'z'
)

var indexedMark = []byte{recMark, 'i'}

func stampKey(set uint32, id versionID) []byte { return append(setKey(recStamp, set), id[:]...) }

func fateKey(set uint32, id versionID) []byte { return append(setKey(recFate, set), id[:]...) }

// noteVersion enters a version in its set's journal, in the batch that commits it.
func (e *Enclave) noteVersion(b *store.Batch, bucket uint32, set *labelSet, key string, id versionID, from redoubt.NodeName) {
	b.Set(stampKey(set.id, id), placeOf(redoubt.EntryVersion, bucket, key))
	b.Number(setKey(recJournal, set.id), append(id[:], from...))
}

// placeOf says where a stamp's version lies.
func placeOf(kind redoubt.EntryKind, bucket uint32, key string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{byte(kind)}, bucket), key...)
}

// linkCredential is the ID of the credentials of links' subjects; identity gives none like it.
const (
	linkCredential = "link"
	linkLease      = time.Minute
)

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
	out.PartSizes = r.partSizes()
	if b.id == systemBucketID {
		out.SizeBytes = int64(len(r.inline))
	}
	if r.altered.isZero() { // else an alteration of its own says what they became
		out.Tags, out.Retention, out.Hold = r.tags, r.retention, r.hold
	}
	return out, nil
}

func hashedCursorKey(peer redoubt.NodeName, hash []byte) []byte {
	return append(peerKey(peer), hex.EncodeToString(hash)...)
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

func (e *Enclave) acknowledge(ctx context.Context, key []byte, position uint64) error {
	b := new(store.Batch)
	b.Set(key, binary.BigEndian.AppendUint64(nil, position))
	return e.commit(ctx, b, nil)
}
