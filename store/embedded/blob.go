package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"redoubt"
	"redoubt/store"
)

// Content in extents lies in blocks: content, then the CRC32C of blob name, block number and
// content. The last block of a run may be shorter. A block holds one chunk of content as package keys seals it, so
// that reading a chunk reads one block.
const (
	extentPlain   = 64<<10 + 28 // keys.ChunkBytes + keys.ChunkOverhead
	extentTrailer = 4
	extentBlock   = extentPlain + extentTrailer
)

// extentDisk is how many bytes n bytes of content take in an extent.
func extentDisk(n int64) int64 {
	return n + (n+extentPlain-1)/extentPlain*extentTrailer
}

// blockSum names the blob and the place within its run, so that a block that was moved or kept from
// an older blob does not pass.
func blockSum(ref store.BlobRef, block int64, content []byte) uint32 {
	var head [16]byte
	binary.BigEndian.PutUint64(head[:], uint64(ref))
	binary.BigEndian.PutUint64(head[8:], uint64(block))
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, content)
}

// locate reads where a blob lies.
func (e *Engine) locate(r pebble.Reader, ref store.BlobRef) (location, bool, error) {
	var space [9]byte
	v, closer, err := r.Get(blobKey(space[:0], ref))
	if errors.Is(err, pebble.ErrNotFound) {
		return location{}, false, nil
	}
	if err != nil {
		return location{}, false, indexError(err)
	}
	defer closer.Close()
	loc, err := decodeLocation(v)
	return loc, err == nil, err
}

// OpenBlob reads a linked blob, or one that an open view still sees; see store.Engine.
func (e *Engine) OpenBlob(ref store.BlobRef) (store.Blob, error) {
	if err := e.enter("store.OpenBlob"); err != nil {
		return nil, err
	}
	defer e.leave()
	for {
		loc, ok, err := e.locate(e.idx, ref)
		if err != nil {
			return nil, err
		}
		if !ok {
			return e.openDead(ref)
		}
		if pinned, ok := e.segs.pin(loc.runs); ok {
			return &blob{e: e, ref: ref, loc: loc, pinned: pinned}, nil
		}
		// Moved or unlinked between the two steps: the index knows better by now,
		// unless the segment is lost.
		again, ok, err := e.locate(e.idx, ref)
		if err == nil && ok && sameRuns(again.runs, loc.runs) {
			return nil, corrupt("blob", fmt.Errorf("a segment of blob %d is missing", ref))
		}
	}
}

func sameRuns(a, b []run) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (e *Engine) openDead(ref store.BlobRef) (store.Blob, error) {
	e.viewMu.Lock()
	defer e.viewMu.Unlock()
	d, ok := e.limbo[ref]
	if !ok {
		return nil, &redoubt.Error{Op: "store.OpenBlob", Kind: redoubt.NotFound}
	}
	e.segs.mu.Lock()
	for _, seg := range d.pinned {
		seg.refs++
	}
	e.segs.mu.Unlock()
	return &blob{e: e, ref: ref, loc: d.loc, pinned: d.pinned}, nil
}

// blob is an open blob. Its segments stay readable until it is closed.
type blob struct {
	e        *Engine
	ref      store.BlobRef
	loc      location
	pinned   []*segment
	once     sync.Once
	unsummed bool // the reader authenticates what it reads
}

func (b *blob) Size() int64 { return b.loc.size }

func (b *blob) Close() error {
	b.once.Do(func() { b.e.segs.unpin(b.pinned...) })
	return nil
}

// ReadAt reads content; what does not verify is redoubt.Corrupt and none of it is given out.
func (b *blob) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= b.loc.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > b.loc.size-off
	if short {
		p = p[:b.loc.size-off]
	}
	for i, r := range b.loc.runs {
		if off >= r.length {
			off -= r.length
			continue
		}
		want := min(int64(len(p)-n), r.length-off)
		if err := b.readRun(b.pinned[i], r, p[n:n+int(want)], off); err != nil {
			clear(p)
			return 0, err
		}
		n, off = n+int(want), 0
		if n == len(p) {
			break
		}
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

const readAtOnce = 512 << 10 // of an extent

var readPool = sync.Pool{New: func() any { b := make([]byte, readAtOnce+extentBlock); return &b }}
var smallPool = sync.Pool{New: func() any { b := make([]byte, 2*(inlinePiece+sealOverhead)); return &b }}

// readRun fills p from a run, from offset off of its content.
func (b *blob) readRun(seg *segment, r run, p []byte, off int64) error {
	if b.unsummed && !b.loc.inline {
		return b.readBare(seg, r, p, off)
	}
	plain, framed, atOnce, pool := int64(extentPlain), int64(extentBlock), int64(readAtOnce), &readPool
	if b.loc.inline {
		plain, framed, atOnce, pool = inlinePiece, inlinePiece+sealOverhead, inlinePiece+sealOverhead, &smallPool
	}
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	end := r.off + b.loc.disk(r)
	for len(p) > 0 {
		block, skip := off/plain, off%plain
		from := r.off + block*framed
		span := min((skip+int64(len(p))+plain-1)/plain*framed, max(atOnce/framed, 1)*framed, end-from)
		raw := (*buf)[:span]
		if n, err := seg.f.ReadAt(raw, from); n < len(raw) {
			return b.damaged(seg, errors.Join(io.ErrUnexpectedEOF, err))
		}
		for ; len(raw) > 0 && len(p) > 0; block++ {
			one := raw[:min(framed, int64(len(raw)))]
			raw = raw[len(one):]
			content, err := b.open(seg, block, one)
			if err != nil {
				return b.damaged(seg, err)
			}
			n := copy(p, content[skip:])
			p, off, skip = p[n:], off+int64(n), 0
		}
	}
	return nil
}

// readBare reads the content of an extent's blocks straight into p, and leaves their checksums where they are.
func (b *blob) readBare(seg *segment, r run, p []byte, off int64) error {
	for len(p) > 0 {
		block, skip := off/extentPlain, off%extentPlain
		one := p[:min(int64(len(p)), extentPlain-skip)]
		if n, err := seg.f.ReadAt(one, r.off+block*extentBlock+skip); n < len(one) {
			return b.damaged(seg, errors.Join(io.ErrUnexpectedEOF, err))
		}
		p, off = p[len(one):], off+int64(len(one))
	}
	return nil
}

// open verifies one sealed piece or one extent block, in place.
func (b *blob) open(seg *segment, block int64, framed []byte) ([]byte, error) {
	if b.loc.inline {
		return seg.blob.Open(framed[:0], nil, framed, pieceAAD(b.ref, uint32(block)))
	}
	content := framed[:len(framed)-extentTrailer]
	if binary.BigEndian.Uint32(framed[len(content):]) != blockSum(b.ref, block, content) {
		return nil, errors.New("checksum does not match")
	}
	return content, nil
}

// ReaderAuthenticates leaves out the checksum of extents; see store.SealedBlob.
func (b *blob) ReaderAuthenticates() { b.unsummed = true }

func (b *blob) damaged(seg *segment, err error) error {
	return corrupt("blob", fmt.Errorf("blob %d in segment %d: %w", b.ref, seg.id, err))
}
