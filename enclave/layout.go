package enclave

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"

	"redoubt"
	"redoubt/store"
)

// The catalogue's keys. The first byte says what a record is; docs/spec/state.md
// has the same table. Numbers are big-endian, so byte order is number order.
//
//	l set                        a label set's text
//	c set                        the bound below which the set's clock has given out times
//	q set                        usage: versions
//	Q set                        usage: bytes
//	a set                        bytes charged to those who work at the set's label (share.go)
//	A set                        those of them that are kept charged for what is there no more
//	h bucket set key 0           the newest version (or marker) of a key within one label set
//	v bucket set key 0 ^id       the older ones, newest first
//	u bucket set key 0 id        a multipart upload, by the label set it was begun at
//	p id number                  a part of an upload
//	i peer 0 set id, I …, J …    what is kept of a version on its way from a peer (arrival.go)
//	t name                       the audit log's tiles and checkpoints; its archives, and the one that waits to be confirmed
//	m name                       a rotation or erasure that is ordered and not done (erase.go); the marks of time (clock.go) and of shares
//
// bucket and set are 4 bytes, id is 16 (see versionID). A key holds no NUL, so the 0 ends it.
const (
	recSet    = 'l'
	recClock  = 'c'
	recCount  = 'q'
	recBytes  = 'Q'
	recCharge = 'a'
	recKept   = 'A'
	recHead   = 'h'
	recOld    = 'v'
	recUpload = 'u'
	recPart   = 'p'
	recTree   = 't'
	recMark   = 'm'
)

func setKey(rec byte, set uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{rec}, set)
}

func rangeKey(rec byte, bucket, set uint32) []byte {
	k := make([]byte, 9, 9+64)
	k[0] = rec
	binary.BigEndian.PutUint32(k[1:], bucket)
	binary.BigEndian.PutUint32(k[5:], set)
	return k
}

const rangeBytes = 9 // of rangeKey

// nameKey starts the keys of one object name within one label set.
func nameKey(rec byte, bucket, set uint32, key string) []byte {
	k := make([]byte, rangeBytes, rangeBytes+len(key)+1+16)
	k[0] = rec
	binary.BigEndian.PutUint32(k[1:], bucket)
	binary.BigEndian.PutUint32(k[5:], set)
	return append(append(k, key...), 0)
}

func headKey(bucket, set uint32, key string) []byte { return nameKey(recHead, bucket, set, key) }

func oldKey(bucket, set uint32, key string, id versionID) []byte {
	k := nameKey(recOld, bucket, set, key)
	for _, b := range id {
		k = append(k, ^b)
	}
	return k
}

func uploadKey(bucket, set uint32, key string, id versionID) []byte {
	return append(nameKey(recUpload, bucket, set, key), id[:]...)
}

// parseUploadKey takes an upload's key apart.
func (e *Enclave) parseUploadKey(k []byte, buckets map[uint32]*bucket) (b *bucket, made *labelSet, key string, id versionID, ok bool) {
	if len(k) < rangeBytes+1+16 || k[len(k)-17] != 0 {
		return nil, nil, "", id, false
	}
	b, made = buckets[binary.BigEndian.Uint32(k[1:])], e.sets.byID(binary.BigEndian.Uint32(k[5:]))
	return b, made, string(k[rangeBytes : len(k)-17]), versionID(k[len(k)-16:]), b != nil && made != nil
}

const partKeyBytes = 1 + 16 + 2 // of partKey

func partKey(id versionID, number int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte{recPart}, id[:]...), uint16(number))
}

// after is the first key behind all that start with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

func deltaSet(b *store.Batch, rec byte, set uint32, delta int64) { b.Add(setKey(rec, set), delta) }

// versionID is what a version's opaque ID hides: the time that its label set's clock
// gave it (8 bytes, nanoseconds, hybrid logical), its maker (4) and a tag of its label
// set (4). Compared as bytes, it orders versions in time, then by maker (RULES 3.1).
// A label set's clock never gives one time twice, so the time is also the counter per (maker, label set).
type versionID [16]byte

func makeVersionID(time int64, maker, tag uint32) (id versionID) {
	binary.BigEndian.PutUint64(id[:], uint64(time))
	binary.BigEndian.PutUint32(id[8:], maker)
	binary.BigEndian.PutUint32(id[12:], tag)
	return id
}

// makerOf is a node in a version ID: the first bytes of the hash of its name.
func makerOf(node redoubt.NodeName) uint32 {
	sum := sha256.Sum256([]byte(node))
	return binary.BigEndian.Uint32(sum[:])
}

func (id versionID) time() int64   { return int64(binary.BigEndian.Uint64(id[:])) }
func (id versionID) maker() uint32 { return binary.BigEndian.Uint32(id[8:]) }
func (id versionID) tag() uint32   { return binary.BigEndian.Uint32(id[12:]) }
func (id versionID) isZero() bool  { return id == versionID{} }
func (id versionID) newer(o versionID) bool {
	return string(id[:]) > string(o[:])
}

// opaque turns version IDs into what clients see, and back: one AES-256 block under
// a key of the enclave, so that neither order nor time nor maker shows outside. A
// token that was made up decrypts to an ID that names nothing.
type opaque struct{ version, etag cipher.Block }

func newOpaque(version, etag []byte) (opaque, error) {
	v, err := aes.NewCipher(version)
	if err != nil {
		return opaque{}, err
	}
	t, err := aes.NewCipher(etag)
	if err != nil {
		return opaque{}, err
	}
	return opaque{v, t}, nil
}

var tokenText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func (o opaque) token(id versionID) string {
	var b [16]byte
	o.version.Encrypt(b[:], id[:])
	return tokenText.EncodeToString(b[:])
}

func (o opaque) parse(token string) (id versionID, ok bool) {
	var b [16]byte
	if len(token) != tokenText.EncodedLen(16) {
		return id, false
	}
	if n, err := tokenText.Decode(b[:], []byte(token)); err != nil || n != 16 {
		return id, false
	}
	o.version.Decrypt(id[:], b[:])
	return id, true
}

// tag is the ETag of content whose MD5 nobody asked for. It contains "-", as S3's
// own do where they are not an MD5, so that no client compares it with one.
func (o opaque) tag(id versionID) string {
	var b [16]byte
	o.etag.Encrypt(b[:], id[:])
	return "r-" + hex.EncodeToString(b[:])
}

func (o opaque) versionID(id versionID) redoubt.VersionID { return redoubt.VersionID(o.token(id)) }
