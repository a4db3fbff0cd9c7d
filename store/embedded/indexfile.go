package embedded

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A sealed page is one page of the disk: a block of the index that does not begin on a page opens one more than it fills.
const (
	pageBytes   = 4096
	pagePlain   = pageBytes - sealOverhead
	pagesAtOnce = 32
)

// pageFile is a table file: page i of it is sealed with (file id, i) as associated data, so that a
// page changed, moved or taken from another file does not open. It is written from
// front to back and synced when it is whole.
type pageFile struct {
	vfs.File
	aead  cipher.AEAD
	id    uint64
	plain []byte // written and not yet on the disk
	page  int64  // index of the first page of plain
	ended bool   // a page that is not full was written: nothing may follow
	pos   int64  // of Read
}

func newPageFile(f vfs.File, aead cipher.AEAD, id uint64) *pageFile {
	return &pageFile{File: f, aead: aead, id: id}
}

func pageAAD(id uint64, page int64) []byte { return appendPageAAD(make([]byte, 0, 16), id, page) }

func appendPageAAD(dst []byte, id uint64, page int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, id), uint64(page))
}

var pagePool = sync.Pool{New: func() any { b := make([]byte, 0, pagesAtOnce*pageBytes); return &b }}

func (f *pageFile) Write(p []byte) (int, error) {
	if f.ended {
		return 0, errors.New("table file goes on after its end was synced")
	}
	for n := len(p); ; {
		room := min(pagesAtOnce*pagePlain-len(f.plain), len(p))
		f.plain = append(f.plain, p[:room]...)
		if p = p[room:]; len(p) == 0 {
			return n, nil
		}
		if err := f.flush(false); err != nil {
			return 0, err
		}
	}
}

// flush writes the whole pages, and the last part of one when all is set, after which
// nothing more may be written.
func (f *pageFile) flush(all bool) error {
	buf := pagePool.Get().(*[]byte)
	defer pagePool.Put(buf)
	out, rest, page := (*buf)[:0], f.plain, f.page
	for len(rest) >= pagePlain || all && len(rest) > 0 {
		n := min(pagePlain, len(rest))
		f.ended = n < pagePlain
		out = f.aead.Seal(out, nil, rest[:n], pageAAD(f.id, page))
		rest, page = rest[n:], page+1
	}
	if len(out) == 0 {
		return nil
	}
	if _, err := f.File.Write(out); err != nil {
		return err
	}
	f.plain, f.page = append(f.plain[:0], rest...), page
	return nil
}

func (f *pageFile) Sync() error {
	if err := f.flush(true); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *pageFile) SyncData() error {
	if err := f.flush(true); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *pageFile) SyncTo(length int64) (bool, error) {
	return f.File.SyncTo(length / pagePlain * pageBytes)
}

func (f *pageFile) Close() error {
	return errors.Join(f.flush(true), f.File.Close())
}

func (f *pageFile) Preallocate(offset, length int64) error { return nil }
func (f *pageFile) Prefetch(offset, length int64) error {
	first := offset / pagePlain
	return f.File.Prefetch(first*pageBytes, ((offset+length)/pagePlain-first+1)*pageBytes)
}
func (f *pageFile) Fd() uintptr                        { return vfs.InvalidFd }
func (f *pageFile) WriteAt([]byte, int64) (int, error) { return 0, errUnsupported }

func (f *pageFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *pageFile) ReadAt(p []byte, off int64) (int, error) {
	buf := pagePool.Get().(*[]byte)
	defer pagePool.Put(buf)
	aad := make([]byte, 0, 16)
	done := 0
	for done < len(p) {
		page, skip := (off+int64(done))/pagePlain, int((off+int64(done))%pagePlain)
		pages := min((skip+len(p)-done+pagePlain-1)/pagePlain, pagesAtOnce)
		raw := (*buf)[:pages*pageBytes]
		n, err := f.File.ReadAt(raw, page*pageBytes)
		if err != nil && err != io.EOF {
			return done, err
		}
		for raw = raw[:n]; len(raw) > 0 && done < len(p); page++ {
			sealed := raw[:min(pageBytes, len(raw))]
			raw = raw[len(sealed):]
			var plain []byte
			if len(sealed) > sealOverhead {
				aad = appendPageAAD(aad[:0], f.id, page)
				plain, err = f.openPage(p[done:], sealed, skip, aad)
			}
			if len(sealed) <= sealOverhead || err != nil {
				return done, corrupt("index page", err)
			}
			if skip > len(plain) {
				return done, io.EOF
			}
			done += copy(p[done:], plain[skip:]) // onto itself where it was opened there
			skip = 0
			if len(plain) < pagePlain && done < len(p) {
				return done, io.EOF
			}
		}
		if n < pages*pageBytes && done < len(p) {
			return done, io.EOF
		}
	}
	return done, nil
}

// openPage opens a page straight into dst where all of it is wanted there, else in its own place.
func (f *pageFile) openPage(dst, sealed []byte, skip int, aad []byte) ([]byte, error) {
	if whole := len(sealed) - sealOverhead; skip == 0 && len(dst) >= whole {
		return f.aead.Open(dst[:0:whole], nil, sealed, aad)
	}
	return f.aead.Open(sealed[:0], nil, sealed, aad)
}

func (f *pageFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size() / pageBytes * pagePlain
	if part := info.Size() % pageBytes; part > sealOverhead {
		size += part - sealOverhead
	}
	return sizedInfo{info, size + int64(len(f.plain))}, nil
}

type sizedInfo struct {
	vfs.FileInfo
	size int64
}

func (i sizedInfo) Size() int64 { return i.size }

// streamFile is any other file of the index. What is written between two syncs is one piece: length, CRC32C of the
// length, sealed bytes, with (file id, number) as associated data. No write touches a synced byte,
// so a crash can spoil only the last piece, which then counts as not written.
// A damaged piece that was written whole is an error.
type streamFile struct {
	vfs.File
	aead     cipher.AEAD
	id       uint64
	writable bool
	c        *cryptFS // takes the errors of writing, which pebble would end the process for
	failed   bool     // nothing may follow a piece that was not written whole
	pieces   int64
	plain    []byte // written: not yet on the disk; read: everything
	size     int64
	pos      int64
}

const streamHead = 8

func (s *streamFile) Write(p []byte) (int, error) {
	s.plain = append(s.plain, p...)
	s.size += int64(len(p))
	return len(p), nil
}

func (s *streamFile) flush() error {
	if !s.writable || len(s.plain) == 0 || s.c.broken.Load() != nil {
		return nil
	}
	head := make([]byte, streamHead, streamHead+len(s.plain)+sealOverhead)
	binary.BigEndian.PutUint32(head, uint32(len(s.plain)+sealOverhead))
	binary.BigEndian.PutUint32(head[4:], ^crc32.Checksum(head[:4], castagnoli))
	if _, err := s.File.Write(sealMarked(s.aead, head, s.plain, pageAAD(s.id, s.pieces))); err != nil {
		s.c.breaks(err) // nothing may follow a piece that was not written whole
		return err
	}
	s.pieces++
	s.plain = s.plain[:0]
	return nil
}

func (s *streamFile) load() error {
	raw, err := io.ReadAll(io.Reader(s.File))
	if err != nil {
		return err
	}
	for at := int64(0); len(raw) > 0; s.pieces++ {
		n := int64(streamHead)
		if len(raw) < streamHead {
			break
		}
		if binary.BigEndian.Uint32(raw[4:]) != ^crc32.Checksum(raw[:4], castagnoli) {
			if allZero(raw[streamHead:]) {
				break
			}
			return corrupt("index file", fmt.Errorf("piece %d has a bad length", s.pieces))
		}
		n += int64(binary.BigEndian.Uint32(raw))
		if n > int64(len(raw)) {
			break
		}
		plain, err := s.aead.Open(nil, nil, raw[streamHead:n], pageAAD(s.id, s.pieces))
		if err != nil {
			if n == int64(len(raw)) && tornWrite(raw[:n], at) {
				break
			}
			return corrupt("index file", err)
		}
		s.plain = append(s.plain, plain...)
		raw, at = raw[n:], at+n
	}
	s.size = int64(len(s.plain))
	return nil
}

func (s *streamFile) Sync() error {
	if s.File == nil {
		return nil
	}
	err := s.flush()
	if err == nil {
		err = s.File.Sync()
	}
	s.c.breaks(err)
	return nil
}

func (s *streamFile) SyncData() error { return s.Sync() }

func (s *streamFile) SyncTo(int64) (bool, error)         { return false, nil }
func (s *streamFile) Preallocate(_, _ int64) error       { return nil }
func (s *streamFile) Prefetch(_, _ int64) error          { return nil }
func (s *streamFile) Fd() uintptr                        { return vfs.InvalidFd }
func (s *streamFile) WriteAt([]byte, int64) (int, error) { return 0, errUnsupported }

func (s *streamFile) Close() error {
	if s.File == nil {
		return nil
	}
	if s.writable {
		s.c.breaks(s.flush())
	}
	return s.File.Close()
}

func (s *streamFile) Read(p []byte) (int, error) {
	n, err := s.ReadAt(p, s.pos)
	s.pos += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (s *streamFile) ReadAt(p []byte, off int64) (int, error) {
	if s.writable {
		return 0, errUnsupported
	}
	return bytes.NewReader(s.plain).ReadAt(p, off)
}

func (s *streamFile) Stat() (vfs.FileInfo, error) {
	if s.File == nil {
		return nil, errUnsupported
	}
	info, err := s.File.Stat()
	if err != nil {
		return nil, err
	}
	return sizedInfo{info, s.size}, nil
}
