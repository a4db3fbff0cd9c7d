package embedded

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment is one large file: of the commit log, or of extents. Its first page is its
// header, in two equal copies a sector each, so that one survives while the other is rewritten.
const (
	segmentMagic  = "RDBTSEG1"
	headerBytes   = 4096
	headerCopies  = 2
	headerStride  = 2048
	headerPlain   = 128
	kindLog       = 1
	kindExtent    = 2
	zeroFillBytes = 1 << 20
)

// header is what the engine key opens of a segment.
type header struct {
	kind    uint8
	sealed  bool   // nothing more is appended: length and crc hold
	retired bool   // the frames' key is destroyed: blobs only
	id      uint64 // from 1, one sequence for both kinds
	length  uint64 // bytes in use, header included
	crc     uint32 // CRC32C from headerBytes to length, of a sealed log segment
	metaKey [keyBytes]byte
	blobKey [keyBytes]byte
}

func (h *header) encode() []byte {
	b := make([]byte, 0, headerPlain)
	b = append(b, h.kind, flag(h.sealed), flag(h.retired), 0)
	b = binary.BigEndian.AppendUint32(b, h.crc)
	b = binary.BigEndian.AppendUint64(b, h.id)
	b = binary.BigEndian.AppendUint64(b, h.length)
	b = append(b, h.metaKey[:]...)
	b = append(b, h.blobKey[:]...)
	return append(b, make([]byte, headerPlain-len(b))...)
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}

func decodeHeader(b []byte) (h header, err error) {
	if len(b) != headerPlain || b[0] != kindLog && b[0] != kindExtent || b[1] > 1 || b[2] > 1 {
		return h, errors.New("malformed segment header")
	}
	h.kind, h.sealed, h.retired = b[0], b[1] == 1, b[2] == 1
	h.crc = binary.BigEndian.Uint32(b[4:])
	h.id = binary.BigEndian.Uint64(b[8:])
	h.length = binary.BigEndian.Uint64(b[16:])
	copy(h.metaKey[:], b[24:])
	copy(h.blobKey[:], b[24+keyBytes:])
	return h, nil
}

// segment is an open segment. Its file stays open while anyone holds a reference,
// even after it has been removed.
type segment struct {
	f          vfs.File
	name       string
	kind       uint8
	id         uint64
	meta, blob cipher.AEAD // of a log segment; meta is nil once retired

	// Under segments.mu:
	refs    int   // open readers, pinned dead blobs, and one for the table itself
	staged  int   // blobs being written here and not linked
	writers int   // those of them that are not settled
	live    int64 // bytes on disk of linked blobs
	ever    int64 // of all blobs that were ever linked here
	high    int64 // end of the furthest linked extent
	maxSeq  uint64
	active  bool // appended to, or ready for it
	gone    bool // out of the table
	header  header
	synced  gate
	length  int64 // of a full log segment: where its last frame ends; 0: to be found out
	crc     uint32
	crcDone bool // crc is that of everything to length
}

// segments is the table of all segments.
type segments struct {
	fs   vfs.FS
	dir  string
	seal cipher.AEAD // of headers

	mu     sync.Mutex
	byID   map[uint64]*segment
	ghosts map[uint64]*segment // while recovering: dropped already, and still spoken of by frames that are replayed
	nextID uint64
}

func (s *segments) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// create makes a segment of size bytes, durable with its name. A log segment is filled
// with zeros, so that a later write changes data only and its sync writes no metadata.
func (s *segments) create(kind uint8, size int64) (seg *segment, err error) {
	var random [8]byte
	rand.Read(random[:])
	name := hex.EncodeToString(random[:])
	s.mu.Lock()
	id := s.nextID
	s.nextID++
	s.mu.Unlock()
	h := header{kind: kind, id: id}
	copy(h.metaKey[:], newKey())
	copy(h.blobKey[:], newKey())
	f, err := s.fs.OpenReadWrite(s.path(name), diskCategory)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			s.fs.Remove(s.path(name))
		}
	}()
	if kind == kindExtent {
		if err := f.Preallocate(0, size); err != nil {
			return nil, err
		}
	} else if err := zeroFill(f, headerBytes, size); err != nil {
		return nil, err
	}
	seg = &segment{f: f, name: name, kind: kind, id: id, header: h, refs: 1, high: headerBytes, active: true, crcDone: true}
	if err := seg.ciphers(); err != nil {
		return nil, err
	}
	if err := s.writeHeader(seg, h); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := syncDir(s.fs, s.dir); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.byID[id] = seg
	s.mu.Unlock()
	return seg, nil
}

func zeroFill(f vfs.File, from, to int64) error {
	zeros := make([]byte, zeroFillBytes)
	for from < to {
		n, err := f.WriteAt(zeros[:min(zeroFillBytes, to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

func (seg *segment) ciphers() (err error) {
	seg.meta, seg.blob = nil, nil
	if seg.kind != kindLog {
		return nil
	}
	if !seg.header.retired {
		if seg.meta, err = newAEAD(seg.header.metaKey[:]); err != nil {
			return err
		}
	}
	seg.blob, err = newAEAD(seg.header.blobKey[:])
	return err
}

// headerPage makes one copy of a header.
func (s *segments) headerCopy(name string, h header, copyIndex int) []byte {
	aad := append([]byte(segmentMagic+name), byte(copyIndex))
	return s.seal.Seal([]byte(segmentMagic), nil, h.encode(), aad)
}

// writeHeader replaces both copies, the second first, each durably before the next is touched.
func (s *segments) writeHeader(seg *segment, h header) error {
	for i := headerCopies - 1; i >= 0; i-- {
		if _, err := seg.f.WriteAt(s.headerCopy(seg.name, h, i), int64(i)*headerStride); err != nil {
			return err
		}
		if err := seg.f.SyncData(); err != nil {
			return err
		}
	}
	return nil
}

// readHeaders opens the copies of a header; those that do not open are left out.
func (s *segments) readHeaders(f vfs.File, name string) (found []header, page []byte, err error) {
	page = make([]byte, headerBytes)
	if err := readZeroed(f, page, 0); err != nil {
		return nil, nil, err
	}
	const n = len(segmentMagic) + headerPlain + sealOverhead
	for i := range headerCopies {
		c := page[i*headerStride:][:n]
		aad := append([]byte(segmentMagic+name), byte(i))
		plain, err := s.seal.Open(nil, nil, c[len(segmentMagic):], aad)
		if err != nil || string(c[:len(segmentMagic)]) != segmentMagic {
			continue
		}
		if h, err := decodeHeader(plain); err == nil {
			found = append(found, h)
		}
	}
	return found, page, nil
}

// load opens every segment of the directory. A file without a header was being made, or dropped,
// when a crash came, if it looks like that there; else it is corrupt.
func (s *segments) load() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.loadOne(name); err != nil {
			return err
		}
	}
	return nil
}

func (s *segments) loadOne(name string) error {
	f, err := s.fs.OpenReadWrite(s.path(name), diskCategory)
	if err != nil {
		return err
	}
	found, page, err := s.readHeaders(f, name)
	switch {
	case err != nil:
		f.Close()
		return err
	case len(found) == 0 && cutShort(page):
		return errors.Join(f.Close(), s.fs.Remove(s.path(name)))
	case len(found) == 0 || s.byID[found[0].id] != nil:
		f.Close()
		return corrupt("segment", fmt.Errorf("header of %s does not verify", name))
	}
	h := found[len(found)-1] // the second is written first
	seg := &segment{f: f, name: name, kind: h.kind, id: h.id, header: h, refs: 1, high: headerBytes}
	err = seg.ciphers()
	if err == nil && (len(found) != headerCopies || found[0] != h) {
		err = s.writeHeader(seg, h) // a crash came between the copies, or one is damaged
	}
	if err != nil {
		f.Close()
		return err
	}
	s.byID[h.id] = seg
	s.nextID = max(s.nextID, h.id+1)
	return nil
}

// cutShort tells of a header page that a crash left half written, when there was nothing in the file yet, or nothing any more. It is made in two copies, the
// second first, with a sync between, and zeroed from front to back: so the first is zero, and of the second the end is, or the beginning.
func cutShort(page []byte) bool {
	const n = len(segmentMagic) + headerPlain + sealOverhead
	second := page[headerStride:][:n]
	return allZero(page[:n]) && (second[0] == 0 || second[n-1] == 0)
}

// pin takes a reference to each of the segments that runs lie in, or to none.
func (s *segments) pin(runs []run) ([]*segment, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range runs {
		if s.byID[r.segment] == nil {
			return nil, false
		}
	}
	pinned := make([]*segment, len(runs))
	for i, r := range runs {
		pinned[i] = s.byID[r.segment]
		pinned[i].refs++
	}
	return pinned, true
}

func (s *segments) get(id uint64) *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.findLocked(id)
}

func (s *segments) findLocked(id uint64) *segment {
	seg := s.byID[id]
	if seg == nil && s.ghosts != nil {
		if seg = s.ghosts[id]; seg == nil {
			seg = &segment{id: id, gone: true}
			s.ghosts[id] = seg
		}
	}
	return seg
}

// unpin gives references back; the last one closes the file.
func (s *segments) unpin(pinned ...*segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range pinned {
		if seg.refs--; seg.refs == 0 {
			seg.f.Close()
		}
	}
}

// drop removes a segment: its keys are overwritten, then its name goes.
func (s *segments) drop(seg *segment) error {
	s.mu.Lock()
	if seg.gone {
		s.mu.Unlock()
		return nil
	}
	seg.gone = true
	delete(s.byID, seg.id)
	s.mu.Unlock()
	defer s.unpin(seg)
	_, err := seg.f.WriteAt(make([]byte, headerBytes), 0)
	if err == nil {
		err = seg.f.SyncData()
	}
	return errors.Join(err, s.fs.Remove(s.path(seg.name)))
}

// checksum is the CRC32C of a segment from its header to length.
func (seg *segment) checksum(length int64) (uint32, error) {
	crc := uint32(0)
	buf := make([]byte, 256<<10)
	for off := int64(headerBytes); off < length; {
		n, err := seg.f.ReadAt(buf[:min(int64(len(buf)), length-off)], off)
		if n == 0 && err != nil && err != io.EOF {
			return 0, err
		}
		if n == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		crc = crc32.Update(crc, castagnoli, buf[:n])
		off += int64(n)
	}
	return crc, nil
}
