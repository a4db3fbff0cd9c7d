package redoubt

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const entryFormat = 1

const (
	entryMarker = 1 << iota
	entryHold
	entryComposite
	entryFlags // the first bit that means nothing
)

// MarshalBinary writes the entry in its canonical form: there is one for each entry.
func (e *JournalEntry) MarshalBinary() ([]byte, error) {
	if e.Kind < EntryVersion || e.Kind > EntryAlteration {
		return nil, &Error{Op: "redoubt.JournalEntry", Kind: Invalid, Err: errors.New("unknown kind of entry")}
	}
	var flags byte
	set := func(on bool, bit byte) {
		if on {
			flags |= bit
		}
	}
	set(e.Marker, entryMarker)
	set(e.Hold, entryHold)
	set(e.Checksums.Composite, entryComposite)
	b := append(make([]byte, 0, 512), entryFormat, byte(e.Kind), flags)
	b = append(b, e.Stamp[:]...)
	b = append(b, e.Of[:]...)
	b = append(b, e.Base[:]...)
	b = append(b, e.Content[:]...)
	b = appendTexts(b, e.Label, e.Made, string(e.Maker), string(e.Name.Bucket), e.Name.Key, string(e.Author), e.MD5)
	b = binary.AppendUvarint(b, uint64(e.SizeBytes))
	b = binary.AppendUvarint(b, uint64(len(e.PartSizes)))
	for _, n := range e.PartSizes {
		b = binary.AppendUvarint(b, uint64(n))
	}
	a, s := &e.Attributes, &e.Checksums
	b = appendTexts(b, a.ContentType, a.ContentEncoding, a.ContentLanguage, a.ContentDisposition, a.CacheControl, a.Expires, a.StorageClass,
		a.Precedence, s.CRC32, s.CRC32C, s.CRC64NVME, s.SHA1, s.SHA256)
	b = binary.AppendUvarint(b, uint64(len(a.Meta)))
	for _, name := range slices.Sorted(maps.Keys(a.Meta)) {
		b = appendTexts(b, name, a.Meta[name])
	}
	b = binary.AppendUvarint(b, uint64(len(e.Tags)))
	for _, t := range e.Tags {
		b = appendTexts(b, t.Key, t.Value)
	}
	b = appendTexts(b, e.Retention.Mode)
	var until int64
	if !e.Retention.Until.IsZero() {
		until = e.Retention.Until.Unix()
	}
	b = binary.AppendVarint(b, until)
	if len(b) > MaxEntryBytes {
		return nil, &Error{Op: "redoubt.JournalEntry", Kind: TooLarge}
	}
	return b, nil
}

// UnmarshalBinary reads the canonical form and nothing else: another format, an unknown flag, a count that the rest cannot
// hold, names out of order and a trailing byte are errors. It does not judge what the entry says.
func (e *JournalEntry) UnmarshalBinary(b []byte) error {
	bad := func() error { return &Error{Op: "redoubt.JournalEntry", Kind: Invalid, Err: errWire} }
	if len(b) > MaxEntryBytes {
		return &Error{Op: "redoubt.JournalEntry", Kind: TooLarge}
	}
	r := wire{b: b}
	head := r.take(3)
	if head == nil || head[0] != entryFormat || head[1] < byte(EntryVersion) || head[1] > byte(EntryAlteration) || head[2] >= entryFlags {
		return bad()
	}
	*e = JournalEntry{Kind: EntryKind(head[1]), Marker: head[2]&entryMarker != 0, Hold: head[2]&entryHold != 0}
	for _, to := range [...][]byte{e.Stamp[:], e.Of[:], e.Base[:], e.Content[:]} {
		copy(to, r.take(len(to)))
	}
	e.Label, e.Made, e.Maker = r.text(), r.text(), NodeName(r.text())
	e.Name = ObjectName{Bucket: BucketName(r.text()), Key: r.text()}
	e.Author, e.MD5 = SubjectName(r.text()), r.text()
	e.SizeBytes = r.size()
	if n := r.count(1); n > 0 {
		e.PartSizes = make([]int64, n)
		for i := range e.PartSizes {
			e.PartSizes[i] = r.size()
		}
	}
	a, s := &e.Attributes, &e.Checksums
	for _, to := range [...]*string{&a.ContentType, &a.ContentEncoding, &a.ContentLanguage, &a.ContentDisposition, &a.CacheControl,
		&a.Expires, &a.StorageClass, &a.Precedence, &s.CRC32, &s.CRC32C, &s.CRC64NVME, &s.SHA1, &s.SHA256} {
		*to = r.text()
	}
	s.Composite = head[2]&entryComposite != 0
	if n := r.count(2); n > 0 {
		a.Meta = make(map[string]string, n)
		last := ""
		for i := range n {
			name := r.text()
			r.bad = r.bad || i > 0 && name <= last
			a.Meta[name], last = r.text(), name
		}
	}
	for range r.count(2) {
		e.Tags = append(e.Tags, Tag{Key: r.text(), Value: r.text()})
	}
	e.Retention.Mode = r.text()
	if until := r.varint(); until != 0 {
		e.Retention.Until = time.Unix(until, 0).UTC()
	}
	if r.bad || len(r.b) != 0 {
		return bad()
	}
	return nil
}

// AppendBinary writes a custody: index and count (uvarint each), root (32), signature (64), the path.
func (c *Custody) AppendBinary(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.Index)), uint64(c.Count))
	b = append(append(b, c.Root[:]...), c.Signature[:]...)
	b = binary.AppendUvarint(b, uint64(len(c.Path)))
	for _, h := range c.Path {
		b = append(b, h[:]...)
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote.
func (c *Custody) UnmarshalBinary(b []byte) error {
	r := wire{b: b}
	*c = Custody{Index: r.size(), Count: r.size()}
	copy(c.Root[:], r.take(tlog.HashSize))
	copy(c.Signature[:], r.take(len(c.Signature)))
	if n := r.count(tlog.HashSize); n > 0 {
		c.Path = make(tlog.RecordProof, n)
		for i := range c.Path {
			copy(c.Path[i][:], r.take(tlog.HashSize))
		}
	}
	if r.bad || len(r.b) != 0 {
		return &Error{Op: "redoubt.Custody", Kind: Invalid, Err: errWire}
	}
	return nil
}

func appendTexts(b []byte, texts ...string) []byte {
	for _, s := range texts {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

var errWire = errors.New("malformed, or not in canonical form")

// wire takes a message apart; the first fault sticks and every later read gives zero.
type wire struct {
	b   []byte
	bad bool
}

func (r *wire) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// uvarint reads a number in its shortest form.
func (r *wire) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *wire) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.bad || n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *wire) size() int64 {
	v := r.uvarint()
	if v > 1<<62 {
		r.bad = true
		return 0
	}
	return int64(v)
}

// count reads how many items of at least min bytes each follow.
func (r *wire) count(min int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/min) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *wire) text() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	return string(r.take(int(n)))
}
