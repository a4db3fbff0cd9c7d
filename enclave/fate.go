package enclave

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"redoubt"
	"redoubt/store"
)

// fates is what became of a version: that it was removed, or the alterations that stand. Three do at most, so that every node has the
// same ones whatever order they come in: the last by who speaks for all, the last by the version's maker where that is the newer, and
// the one that says COMPLIANCE for the longest, whoever gave it: nothing that comes later lifts that (ADR 19).
type fates struct {
	removal    versionID
	own, other versionID         // alterations: by the version's maker; by another
	firm       versionID         // the one that says COMPLIANCE until, of two that say the same the older
	until      int64             // s since 1970; 0: none does
	first      redoubt.Retention // that the version came with; known once the version is here and was altered
}

func (f fates) altered() bool { return !f.own.isZero() || !f.other.isZero() }

// last is the newest alteration that stands, but for the firm one.
func (f fates) last() versionID {
	if f.own.isZero() {
		return f.other
	}
	return f.own
}

// said is of an entry what decides whether it stands.
type said struct {
	kind  redoubt.EntryKind
	own   bool // by the version's maker
	id    versionID
	until int64 // COMPLIANCE that it says, s since 1970; 0: none
}

func saidBy(x *redoubt.JournalEntry, own bool) said {
	s := said{kind: x.Kind, own: own, id: versionID(x.Stamp)}
	if x.Kind == redoubt.EntryAlteration && x.Retention.Mode == compliance {
		s.until = x.Retention.Until.Unix()
	}
	return s
}

// stands says whether what became of a version stays as it is when an entry comes. A removal is for good, and of two the older
// stands; of two alterations by one side the newer, and one of the version's maker falls to a newer one by who speaks for all.
func (f fates) stands(s said) bool {
	switch {
	case !f.removal.isZero():
		return s.kind != redoubt.EntryRemoval || !f.removal.newer(s.id)
	case s.kind == redoubt.EntryRemoval:
		return false
	}
	return !f.firmer(s) && !f.newest(s)
}

// firmer says whether an alteration says COMPLIANCE for longer than any before.
func (f fates) firmer(s said) bool {
	return s.until > f.until || s.until > 0 && s.until == f.until && f.firm.newer(s.id)
}

// newest says whether an alteration is the last of its side.
func (f fates) newest(s said) bool {
	if s.own {
		return s.id.newer(f.own) && !f.other.newer(s.id)
	}
	return s.id.newer(f.other)
}

// with is what stands when an entry is added that changes something, and what falls to it.
func (f fates) with(s said) (next fates, gone []versionID) {
	if s.kind == redoubt.EntryRemoval {
		return fates{removal: s.id}, f.all()
	}
	next = f
	if f.firmer(s) {
		next.firm, next.until = s.id, s.until
	}
	switch {
	case !f.newest(s):
	case s.own:
		next.own = s.id
	default:
		next.other = s.id
		if !f.own.newer(s.id) {
			next.own = versionID{}
		}
	}
	stay := next.all()
	return next, slices.DeleteFunc(f.all(), func(id versionID) bool { return slices.Contains(stay, id) })
}

// all are the entries that stand, each once.
func (f fates) all() (out []versionID) {
	for _, id := range []versionID{f.removal, f.own, f.other, f.firm} {
		if !id.isZero() && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// The formats of what became of a version, by their length: a removal; and alterations with what they say for good.
const (
	removedBytes = 1 + len(versionID{})
	alteredBytes = 1 + 3*len(versionID{}) + 8 + 1 + 8
)

var modes = []string{"", "GOVERNANCE", compliance}

func (f fates) encode() []byte {
	if !f.removal.isZero() {
		return append([]byte{byte(redoubt.EntryRemoval)}, f.removal[:]...)
	}
	out := append(append(append([]byte{byte(redoubt.EntryAlteration)}, f.own[:]...), f.other[:]...), f.firm[:]...)
	out = append(binary.BigEndian.AppendUint64(out, uint64(f.until)), byte(max(slices.Index(modes, f.first.Mode), 0)))
	until := int64(0)
	if f.first.Mode != "" {
		until = f.first.Until.Unix()
	}
	return binary.BigEndian.AppendUint64(out, uint64(until))
}

// fates reads what became of a version. Earlier states have one alteration, whosesoever it was, or two, and nothing that is firm.
func (e *Enclave) fates(get getter, set *labelSet, of versionID) (f fates, err error) {
	const two = 1 + 2*len(versionID{})
	v, ok, err := get.Get(fateKey(set.id, of))
	if err != nil || !ok {
		return f, err
	}
	removal := redoubt.EntryKind(v[0]) == redoubt.EntryRemoval
	switch {
	case len(v) == removedBytes && removal:
		return fates{removal: versionID(v[1:])}, nil
	case removal || redoubt.EntryKind(v[0]) != redoubt.EntryAlteration:
	case len(v) == alteredBytes:
		return decodeAltered(v[1:])
	case len(v) == two:
		return e.older(get, set, of, versionID(v[1:]), versionID(v[removedBytes:]))
	case len(v) == removedBytes:
		return e.older(get, set, of, versionID(v[1:]))
	}
	return f, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errRecord}
}

func decodeAltered(v []byte) (f fates, err error) {
	rd := reader{b: v}
	f.own, f.other, f.firm = rd.id(), rd.id(), rd.id()
	f.until = int64(binary.BigEndian.Uint64(rd.take(8)))
	mode := rd.take(1)[0]
	until := int64(binary.BigEndian.Uint64(rd.take(8)))
	if int(mode) >= len(modes) || f.until < 0 || (f.until == 0) != f.firm.isZero() || mode == 0 && until != 0 {
		return fates{}, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errRecord}
	}
	if mode > 0 {
		f.first = redoubt.Retention{Mode: modes[mode], Until: time.Unix(until, 0).UTC()}
	}
	return f, nil
}

// older makes of the alterations of an earlier state what stands by them.
func (e *Enclave) older(get getter, set *labelSet, of versionID, ids ...versionID) (f fates, err error) {
	for _, id := range ids {
		x, err := e.alteration(get, set, id)
		if err != nil {
			return fates{}, err
		}
		if x != nil {
			f, _ = f.with(saidBy(x, makerOf(x.Maker) == of.maker()^e.madeTag(set, x.Made)))
		}
	}
	return f, nil
}

// madeTag is what a working label adds to the maker in a stamp of the set: nothing where it is the set's own.
func (e *Enclave) madeTag(set *labelSet, made string) uint32 {
	for _, s := range e.sets.all() {
		if s.name == made && s != set {
			return s.tag
		}
	}
	return 0
}

// alteration reads one that stands; nil for none.
func (e *Enclave) alteration(get getter, set *labelSet, id versionID) (*redoubt.JournalEntry, error) {
	if id.isZero() {
		return nil, nil
	}
	raw, _, err := get.Get(stampKey(set.id, id))
	if err != nil {
		return nil, err
	}
	entry, _, is, err := fateOf(raw)
	if err != nil || !is || entry.Kind != redoubt.EntryAlteration {
		return nil, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: errors.Join(errRecord, err)}
	}
	return entry, nil
}

// settled is what a version's tags, retention and hold are by the alterations that stand.
type settled struct {
	tags      []redoubt.Tag
	retention redoubt.Retention
	hold      bool
}

// settle makes one of what the version's maker says and of what is said by who speaks for all, either of which may be nil; the
// maker's, where there is one, is the newer. Tags are the newer's. What the other locked stays locked: the maker may add to it, and
// lift what it locked itself. COMPLIANCE that had not ended when the last of them was given stands, whoever gave it; and to a device,
// whose maker's word is not that of who speaks for all, the GOVERNANCE too that its version came with.
func settle(f fates, own, other *redoubt.JournalEntry, device bool) (s settled) {
	last := own
	switch {
	case own == nil:
		s, last = settled{other.Tags, other.Retention, other.Hold}, other
	case other == nil:
		s = settled{own.Tags, own.Retention, own.Hold}
	default:
		s = settled{own.Tags, longer(own.Retention, other.Retention, time.Unix(0, own.Stamp.Time())), own.Hold || other.Hold}
	}
	given := time.Unix(0, last.Stamp.Time())
	if f.until > 0 {
		s.retention = longer(s.retention, redoubt.Retention{Mode: compliance, Until: time.Unix(f.until, 0).UTC()}, given)
	}
	if f.first.Mode == compliance || device && other == nil {
		s.retention = longer(s.retention, f.first, given)
	}
	return s
}

// longer is the retention that keeps all that both keep. One of b that was over when a was given does not count.
func longer(a, b redoubt.Retention, given time.Time) redoubt.Retention {
	switch {
	case b.Mode == "" || !b.Until.After(given):
		return a
	case a.Mode == "":
		return b
	}
	if b.Until.After(a.Until) {
		a.Until = b.Until
	}
	if b.Mode == compliance {
		a.Mode = compliance
	}
	return a
}

const compliance = "COMPLIANCE" // redoubt.Retention.Mode

// settle works out what a version's tags and locks are; with an entry that is not on record yet, when it is not nil.
func (e *Enclave) settle(get getter, set *labelSet, f fates, fresh *redoubt.JournalEntry) (settled, error) {
	read := func(id versionID) (*redoubt.JournalEntry, error) {
		if fresh != nil && id == versionID(fresh.Stamp) {
			return fresh, nil
		}
		return e.alteration(get, set, id)
	}
	own, err := read(f.own)
	if err != nil {
		return settled{}, err
	}
	other, err := read(f.other)
	if err != nil {
		return settled{}, err
	}
	return settle(f, own, other, own != nil && !e.speaksForAll(own.Maker)), nil
}

// take makes a record what its alterations say; id is of the last of them.
func (r *record) take(s settled, id versionID) {
	r.tags, r.retention, r.hold, r.altered = s.tags, s.retention, s.hold, id
}

// noteFate enters what became of a version, made here or by another node, and drops what falls to it. An entry made
// here comes without custody: it gets one when it is sent. It gives what stands then.
func (e *Enclave) noteFate(b *store.Batch, set *labelSet, was fates, entry *redoubt.JournalEntry, own bool, custody []byte, from redoubt.NodeName) (fates, error) {
	encoded, err := entry.MarshalBinary()
	if err != nil {
		return was, err
	}
	return e.noteEncoded(b, set, was, entry, encoded, own, custody, from)
}

// noteEncoded is noteFate of an entry in the form that its maker signed, under whose name it may lie elsewhere.
func (e *Enclave) noteEncoded(b *store.Batch, set *labelSet, was fates, entry *redoubt.JournalEntry, encoded []byte, own bool, custody []byte, from redoubt.NodeName) (fates, error) {
	id, of := versionID(entry.Stamp), versionID(entry.Of)
	next, gone := was.with(saidBy(entry, own))
	for _, g := range gone {
		b.Delete(stampKey(set.id, g))
	}
	value := append([]byte{byte(entry.Kind)}, binary.AppendUvarint(nil, uint64(len(encoded)))...)
	b.Set(stampKey(set.id, id), append(append(value, encoded...), custody...))
	b.Set(fateKey(set.id, of), next.encode())
	if entry.Kind == redoubt.EntryRemoval {
		b.Delete(stampKey(set.id, of))
	}
	b.Number(setKey(recJournal, set.id), append(id[:], from...))
	return next, nil
}

// noteRemoval enters a removal that this node makes, at the working label that the version was made at.
func (e *Enclave) noteRemoval(ctx context.Context, b *store.Batch, bucket *bucket, f found, key string) error {
	return e.noteGone(ctx, b, bucket, f, key, false)
}

// noteErasure is noteRemoval of what is erased: whoever took the version destroys the keys that opened it too.
func (e *Enclave) noteErasure(ctx context.Context, b *store.Batch, bucket *bucket, f found, key string) error {
	return e.noteGone(ctx, b, bucket, f, key, true)
}

func (e *Enclave) noteGone(ctx context.Context, b *store.Batch, bucket *bucket, f found, key string, erase bool) error {
	if bucket.id == systemBucketID || !e.linked() {
		return nil
	}
	was, err := e.fates(e.engine, f.set, f.rec.id)
	if err != nil {
		return err
	}
	entry, err := e.fateEntry(ctx, redoubt.EntryRemoval, bucket, f, key)
	if err != nil {
		return err
	}
	entry.Hold = erase
	_, err = e.noteFate(b, f.set, was, entry, e.made(f.rec), nil, "")
	return err
}

// made says whether this node made a version.
func (e *Enclave) made(r *record) bool { return r.maker == string(e.name) }

// noteAlteration enters what somebody altered here, which f.rec has, and makes f.rec what stands by it. Where others have locked the
// version that this node made, it says what it locks itself; what would lift theirs is refused. stood is the retention before that.
func (e *Enclave) noteAlteration(ctx context.Context, b *store.Batch, bucket *bucket, f found, key string, in redoubt.AlterObject, stood redoubt.Retention) error {
	if bucket.id == systemBucketID || !e.linked() {
		return nil
	}
	was, err := e.fates(e.engine, f.set, f.rec.id)
	if err != nil {
		return err
	}
	entry, err := e.fateEntry(ctx, redoubt.EntryAlteration, bucket, f, key)
	if err != nil {
		return err
	}
	own := e.made(f.rec)
	if f.rec.altered.isZero() {
		was.first = stood
	}
	entry.Tags, entry.Retention, entry.Hold = f.rec.tags, f.rec.retention, f.rec.hold
	if own && !was.other.isZero() {
		if err := e.ownWord(f.set, was, entry, in); err != nil {
			return err
		}
	}
	if !was.newest(saidBy(entry, own)) {
		return &redoubt.Error{Op: "AlterObject", Object: key, Kind: redoubt.Conflict, Hint: "a clock elsewhere is ahead, and what was said there is the newer: try again"}
	}
	next, err := e.noteFate(b, f.set, was, entry, own, nil, "")
	if err != nil {
		return err
	}
	s, err := e.settle(e.engine, f.set, next, entry)
	if err != nil {
		return err
	}
	if in.Hold != nil && s.hold != *in.Hold || in.Retention != nil && !sameRetention(s.retention, *in.Retention) {
		return &redoubt.Error{Op: "AlterObject", Object: key, Kind: redoubt.Denied, Rule: ruleOwn,
			Hint: fmt.Sprintf("it was locked elsewhere, and is opened there alone: do it at %s", e.home())}
	}
	f.rec.take(s, next.last())
	return nil
}

// ownWord makes of an alteration of the version's maker what the maker says itself: of locks, what its last one said that still stands,
// and what is asked for now.
func (e *Enclave) ownWord(set *labelSet, was fates, entry *redoubt.JournalEntry, in redoubt.AlterObject) error {
	last, err := e.alteration(e.engine, set, was.own)
	if err != nil {
		return err
	}
	entry.Retention, entry.Hold = redoubt.Retention{}, false
	if last != nil {
		entry.Retention, entry.Hold = last.Retention, last.Hold
	}
	if in.Hold != nil {
		entry.Hold = *in.Hold
	}
	if in.Retention != nil {
		entry.Retention = *in.Retention
	}
	return nil
}

// sameRetention compares to the second, as retention is kept.
func sameRetention(a, b redoubt.Retention) bool {
	return a.Mode == b.Mode && (a.Mode == "" || a.Until.Unix() == b.Until.Unix())
}
