package enclave

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sort"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/store"
)

// record is a version as the catalogue keeps it, under its bucket, label set and key.
type record struct {
	id        versionID
	marker    bool
	made      uint32 // label set of the working label that it was made at
	size      int64
	md5       []byte // 16 bytes, or nil: the ETag is then derived from the ID
	md5Parts  int    // of a composite MD5 (S3's "-N"); 0 otherwise
	author    string
	maker     string
	attrs     redoubt.Attributes
	sums      redoubt.Checksums
	tags      []redoubt.Tag
	retention redoubt.Retention
	hold      bool
	pieces    []piece // the content; none for a marker and for an inline value
	parts     bool    // pieces are the parts of a multipart upload
	inline    []byte  // a system record's value
	digest    []byte  // SHA-256 of the content, where it was computed as that came in and is no checksum in sums; nil: it is read for it
	stored    int     // bytes of the record as it was read whole; else 0

	// Of a node with links:
	base    versionID        // the newest that there was under the key in the set when this was made; zero: none
	altered versionID        // of the last change of tags, retention or hold; zero: never changed
	custody []byte           // how another node's version proves itself (redoubt.Custody); nil: made here
	from    redoubt.NodeName // the peer that it came from; not kept in the record but in the journal
	origin  []byte           // that version as its maker signed it, once it was altered; nil: as it stands
}

// piece is one sealed blob of a version's content.
type piece struct {
	ref     store.BlobRef
	size    int64        // of the plaintext
	wrapped keys.Wrapped // the data key
	bound   versionID    // what the seal is bound to: the version's ID, or the upload's for a part
	joins   bool         // it goes on with the part that the piece before it is of
}

// The formats of a record: the first that has all that there is to say. Content that came in several pieces over a link, and was not a part each, needs
// the second.
const (
	recordFormat = 1
	joinedFormat = 2 // each piece says whether it goes on with the one before it
	digestFormat = 3 // that, and the digest of the content
)

// hashed keeps what the content was hashed to as it came in, unless its checksums say it.
func (r *record) hashed(sum [sha256.Size]byte) {
	if r.digest = nil; r.checksum256() == nil || [sha256.Size]byte(r.checksum256()) != sum {
		r.digest = sum[:]
	}
}

// hashedAs keeps it where it is what was signed for.
func (r *record) hashedAs(sum, signed [sha256.Size]byte) error {
	if sum != signed {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.BadDigest}
	}
	r.hashed(sum)
	return nil
}

// contentSum is the SHA-256 of the content, where it is known.
func (r *record) contentSum() (sum [sha256.Size]byte, ok bool) {
	if r.digest != nil {
		return [sha256.Size]byte(r.digest), true
	}
	if given := r.checksum256(); given != nil {
		return [sha256.Size]byte(given), true
	}
	return sum, false
}

// checksum256 is the SHA-256 that a client stated or asked for, of the whole; nil: none.
func (r *record) checksum256() []byte {
	given, err := base64.StdEncoding.DecodeString(r.sums.SHA256)
	if err != nil || len(given) != sha256.Size || r.sums.Composite {
		return nil
	}
	return given
}

// partSizes are the sizes of the parts that a multipart version was made of.
func (r *record) partSizes() (sizes []int64) {
	if !r.parts {
		return nil
	}
	for _, p := range r.pieces {
		if p.joins && len(sizes) > 0 {
			sizes[len(sizes)-1] += p.size
		} else {
			sizes = append(sizes, p.size)
		}
	}
	return sizes
}

// format is the one that the record needs.
func (r *record) format() byte {
	if r.digest != nil {
		return digestFormat
	}
	for i := range r.pieces {
		if r.pieces[i].joins {
			return joinedFormat
		}
	}
	return recordFormat
}

const (
	flagMarker = 1 << iota
	flagHold
	flagParts
	flagComposite
	flagMD5
	flagBase
	flagAltered
	flagCustody
)

// encode appends the record. What a listing shows comes first, so that a listing
// reads no further (decodeHead).
func (r *record) encode(dst []byte) []byte {
	var flags byte
	set := func(on bool, f byte) {
		if on {
			flags |= f
		}
	}
	set(r.marker, flagMarker)
	set(r.hold, flagHold)
	set(r.parts, flagParts)
	set(r.sums.Composite, flagComposite)
	set(r.md5 != nil, flagMD5)
	set(!r.base.isZero(), flagBase)
	set(!r.altered.isZero(), flagAltered)
	set(r.custody != nil, flagCustody)
	format := r.format()
	dst = append(dst, format, flags)
	dst = append(dst, r.id[:]...)
	dst = binary.AppendUvarint(dst, uint64(r.made))
	dst = binary.AppendUvarint(dst, uint64(r.size))
	if r.md5 != nil {
		dst = append(dst, r.md5...)
		dst = binary.AppendUvarint(dst, uint64(r.md5Parts))
	}
	dst = appendText(dst, r.author)
	dst = appendText(dst, r.maker)
	a := &r.attrs
	for _, s := range [...]string{a.ContentType, a.ContentEncoding, a.ContentLanguage, a.ContentDisposition,
		a.CacheControl, a.Expires, a.StorageClass, a.Precedence,
		r.sums.CRC32, r.sums.CRC32C, r.sums.CRC64NVME, r.sums.SHA1, r.sums.SHA256} {
		dst = appendText(dst, s)
	}
	names := make([]string, 0, len(a.Meta))
	for name := range a.Meta {
		names = append(names, name)
	}
	sort.Strings(names)
	dst = binary.AppendUvarint(dst, uint64(len(names)))
	for _, name := range names {
		dst = appendText(appendText(dst, name), a.Meta[name])
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.tags)))
	for _, t := range r.tags {
		dst = appendText(appendText(dst, t.Key), t.Value)
	}
	dst = appendText(dst, r.retention.Mode)
	var until int64
	if !r.retention.Until.IsZero() {
		until = r.retention.Until.Unix()
	}
	dst = binary.AppendVarint(dst, until)
	dst = binary.AppendUvarint(dst, uint64(len(r.pieces)))
	for i := range r.pieces {
		p := &r.pieces[i]
		dst = binary.AppendUvarint(dst, uint64(p.ref))
		dst = binary.AppendUvarint(dst, uint64(p.size))
		dst = append(dst, p.wrapped[:]...)
		dst = append(dst, p.bound[:]...)
		if format != recordFormat {
			dst = append(dst, joined(p.joins))
		}
	}
	dst = appendText(dst, string(r.inline))
	if !r.base.isZero() {
		dst = append(dst, r.base[:]...)
	}
	if !r.altered.isZero() {
		dst = append(dst, r.altered[:]...)
	}
	if r.custody != nil {
		dst = appendText(appendText(dst, string(r.custody)), string(r.origin))
	}
	return append(dst, r.digest...)
}

func joined(on bool) byte {
	if on {
		return 1
	}
	return 0
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

var errRecord = errors.New("record does not decode")

// reader takes a record apart; the first fault sticks and every later read gives zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.take(r.uvarint())) }

func (r *reader) bytes() []byte {
	b := r.take(r.uvarint())
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

func (r *reader) id() (id versionID) {
	copy(id[:], r.take(16))
	return id
}

// yes reads one byte that is 0 or 1.
func (r *reader) yes() bool {
	b := r.take(1)
	r.bad = r.bad || b[0] > 1
	return !r.bad && b[0] == 1
}

// count reads a number of items that are at least min bytes each, so that a
// damaged count cannot ask for more memory than the record has bytes.
func (r *reader) count(min int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/min) {
		r.bad = true
		return 0
	}
	return int(n)
}

// decodeHead reads what a listing shows: ID, marker, size, ETag and author. The rest stays in rd.
func (r *record) decodeHead(b []byte) (rd reader, flags byte, err error) {
	rd = reader{b: b}
	h := rd.take(2)
	if h == nil || h[0] < recordFormat || h[0] > digestFormat {
		return rd, 0, errRecord
	}
	flags = h[1]
	r.marker, r.hold, r.parts = flags&flagMarker != 0, flags&flagHold != 0, flags&flagParts != 0
	r.id = rd.id()
	r.made = uint32(rd.uvarint())
	r.size = int64(rd.uvarint())
	if flags&flagMD5 != 0 {
		r.md5 = append([]byte(nil), rd.take(16)...)
		r.md5Parts = int(rd.uvarint())
	}
	if author := rd.take(rd.uvarint()); string(author) != r.author { // in a listing mostly that of the record before
		r.author = string(author)
	}
	if rd.bad || r.size < 0 {
		return rd, 0, errRecord
	}
	return rd, flags, nil
}

func decodeRecord(b []byte) (*record, error) {
	r := new(record)
	rd, flags, err := r.decodeHead(b)
	if err != nil {
		return nil, err
	}
	r.maker = rd.text()
	a := &r.attrs
	for _, s := range [...]*string{&a.ContentType, &a.ContentEncoding, &a.ContentLanguage, &a.ContentDisposition,
		&a.CacheControl, &a.Expires, &a.StorageClass, &a.Precedence,
		&r.sums.CRC32, &r.sums.CRC32C, &r.sums.CRC64NVME, &r.sums.SHA1, &r.sums.SHA256} {
		*s = rd.text()
	}
	r.sums.Composite = flags&flagComposite != 0
	if n := rd.count(2); n > 0 {
		a.Meta = make(map[string]string, n)
		for range n {
			name := rd.text()
			a.Meta[name] = rd.text()
		}
	}
	for range rd.count(2) {
		r.tags = append(r.tags, redoubt.Tag{Key: rd.text(), Value: rd.text()})
	}
	r.retention.Mode = rd.text()
	if until := rd.varint(); until != 0 {
		r.retention.Until = time.Unix(until, 0).UTC()
	}
	if n := rd.count(2 + keys.WrappedBytes + 16); n > 0 {
		r.pieces = make([]piece, n)
		for i := range r.pieces {
			p := &r.pieces[i]
			p.ref = store.BlobRef(rd.uvarint())
			p.size = int64(rd.uvarint())
			copy(p.wrapped[:], rd.take(keys.WrappedBytes))
			p.bound = rd.id()
			if b[0] != recordFormat {
				p.joins = rd.yes()
			}
		}
	}
	r.inline = rd.bytes()
	if flags&flagBase != 0 {
		r.base = rd.id()
	}
	if flags&flagAltered != 0 {
		r.altered = rd.id()
	}
	if flags&flagCustody != 0 {
		r.custody, r.origin = rd.bytes(), rd.bytes()
	}
	if b[0] == digestFormat {
		r.digest = bytes.Clone(rd.take(sha256.Size))
	}
	if rd.bad || len(rd.b) != 0 || r.format() != b[0] {
		return nil, errRecord
	}
	r.stored = len(b)
	return r, nil
}
