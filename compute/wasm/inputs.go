package wasm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	"redoubt"
)

// inputs is /in as the module sees it: each question that it asks of a name is asked outside, and none before. It has no method that changes
// anything, so the runtime refuses what would.
type inputs struct{ w *worker }

// ask sends one question and gives the body of the answer, which the next one overwrites.
func (w *worker) ask(kind byte, body ...[]byte) ([]byte, error) { return w.askInto(nil, kind, body...) }

// askInto has the body lie in b, where that has room for it.
func (w *worker) askInto(b []byte, kind byte, body ...[]byte) ([]byte, error) {
	if errors.Join(w.settle(), w.put(kind, body...)) != nil {
		return nil, syscall.EIO
	}
	b, err := w.take(b)
	if err == errBroken {
		err = syscall.EIO
	}
	return b, err
}

// errBroken is that no answer came that makes sense.
var errBroken = errors.New("no answer")

// put sends a question.
func (w *worker) put(kind byte, body ...[]byte) error {
	return errors.Join(w.write(kind, body...), w.flush())
}

// take takes an answer in.
func (w *worker) take(b []byte) ([]byte, error) {
	got, answered, err := w.readInto(b)
	switch {
	case err != nil:
		return nil, errBroken
	case got == answer:
		return answered, nil
	case got == refuse && len(answered) == 2:
		return nil, syscall.Errno(binary.BigEndian.Uint16(answered))
	}
	return nil, errBroken
}

// due is a piece of a file that was asked for before the module wants it, and whose answer was not taken in yet. That is a few bytes: who answers never waits
// for us to take it in.
type due struct {
	f     *file
	off   int64
	n     int
	place byte
}

// settle takes in the answer that is due. What lies in the window for that is asked for once more where it is wanted.
func (w *worker) settle() error {
	if w.due == nil {
		return nil
	}
	w.due = nil
	if _, err := w.take(nil); err == errBroken {
		return err
	}
	return nil
}

// want asks for a piece of a file to lie in the window.
func (w *worker) want(f *file, off int64, n int) (*due, error) {
	w.turn = (w.turn + 1) % places
	d := &due{f, off, n, w.turn}
	return d, w.put(askPlace, append(f.question(off, n), d.place))
}

// info is fs.FileInfo and fs.DirEntry of what a worker was told.
type info struct{ redoubt.JobFile }

func (i info) Name() string               { return i.JobFile.Name }
func (i info) Size() int64                { return i.Bytes }
func (i info) ModTime() time.Time         { return i.Modified }
func (i info) IsDir() bool                { return i.Dir }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.Mode().Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
func (i info) Mode() fs.FileMode {
	if i.Dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// Stat implements fs.StatFS.
func (in inputs) Stat(name string) (fs.FileInfo, error) {
	i, err := in.stat(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return i, nil
}

func (in inputs) stat(name string) (info, error) {
	if name == "." {
		return info{redoubt.JobFile{Name: ".", Dir: true}}, nil
	}
	b, err := in.w.ask(askStat, []byte(name))
	if err != nil {
		return info{}, err
	}
	var f redoubt.JobFile
	if json.Unmarshal(b, &f) != nil {
		return info{}, syscall.EIO
	}
	f.Name = path.Base(name)
	return info{f}, nil
}

// Open implements fs.FS.
func (in inputs) Open(name string) (fs.File, error) {
	i, err := in.stat(name)
	if err == nil && i.Dir {
		if name == "." {
			name = ""
		}
		return &directory{in: in, path: name, info: i}, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &file{in: in, path: name, info: i}, nil
}

// directory is an open one. It is listed when the module reads it.
type directory struct {
	in   inputs
	path string
	info info
	rest []fs.DirEntry
	read bool
}

// Stat implements fs.File.
func (d *directory) Stat() (fs.FileInfo, error) { return d.info, nil }

// Read implements fs.File.
func (d *directory) Read([]byte) (int, error) { return 0, syscall.EISDIR }

// Close implements fs.File.
func (d *directory) Close() error { return nil }

// ReadDir implements fs.ReadDirFile.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		files, err := d.in.w.list(d.path)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			d.rest = append(d.rest, info{f})
		}
		d.read = true
	}
	if n <= 0 {
		n = len(d.rest)
	} else if len(d.rest) == 0 {
		return nil, io.EOF
	}
	some := d.rest[:min(n, len(d.rest))]
	d.rest = d.rest[len(some):]
	return some, nil
}

// list asks for a directory. A long list comes in pieces: the answer to each says whether one follows.
func (w *worker) list(dir string) (all []redoubt.JobFile, err error) {
	var text []byte
	for {
		b, err := w.ask(askList, binary.BigEndian.AppendUint32(nil, uint32(len(text))), []byte(dir))
		if err != nil {
			return nil, err
		}
		if len(b) < 1 {
			return nil, syscall.EIO
		}
		text = append(text, b[1:]...)
		if b[0] == 0 {
			break
		}
	}
	if json.Unmarshal(text, &all) != nil {
		return nil, syscall.EIO
	}
	return all, nil
}

// file is an open one. The runtime opens a file to tell of it, so it is opened outside when the module reads it, and then in pieces of maxPiece, since
// a module reads in small ones.
type file struct {
	in     inputs
	path   string
	handle uint32 // 0: it was not read yet
	info   info
	at     int64
	next   int64  // where the piece ends that was read last
	piece  []byte // of the content, from
	from   int64
}

// Stat implements fs.File.
func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }

// Read implements fs.File.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt, but that it may read less, as the system call does.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, syscall.EINVAL
	case off >= f.info.Bytes:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if f.handle == 0 {
		b, err := f.in.w.ask(askOpen, []byte(f.path))
		if err != nil {
			return 0, err
		}
		if len(b) != 4 {
			return 0, syscall.EIO
		}
		f.handle = binary.BigEndian.Uint32(b)
	}
	if off < f.from || off >= f.from+int64(len(f.piece)) {
		n := int(min(maxPiece, f.info.Bytes-off))
		if len(p) >= n { // straight into the module's memory
			b, err := f.read(p[:n], off)
			return len(b), err
		}
		if cap(f.piece) < n {
			f.piece = make([]byte, n)
		}
		b, err := f.read(f.piece[:n], off)
		if f.piece, f.from = b, off; err != nil {
			return 0, err
		}
	}
	return copy(p, f.piece[off-f.from:]), nil
}

// question is what is asked of a file's content.
func (f *file) question(off int64, n int) []byte {
	var q [17]byte
	binary.BigEndian.PutUint32(q[:], f.handle)
	binary.BigEndian.PutUint64(q[4:], uint64(off))
	binary.BigEndian.PutUint32(q[12:], uint32(n))
	return q[:16]
}

// read fills b with what lies at off; less: the file ends there.
func (f *file) read(b []byte, off int64) (got []byte, err error) {
	if f.in.w.window != nil {
		got, err = f.look(b, off)
	} else {
		got, err = f.in.w.askInto(b, askRead, f.question(off, len(b)))
	}
	if err == nil && (len(got) == 0 || len(got) > len(b)) {
		err = syscall.EIO
	}
	if err != nil {
		return nil, err
	}
	f.next = off + int64(len(got))
	return got, nil
}

// look is read by the window. Who reads on has the next piece asked for before this one is taken out of it, so that it comes meanwhile.
func (f *file) look(b []byte, off int64) ([]byte, error) {
	w := f.in.w
	d := w.due
	if d == nil || d.f != f || d.off != off || d.n != len(b) {
		err := w.settle()
		if err == nil {
			d, err = w.want(f, off, len(b))
		}
		if err != nil {
			return nil, syscall.EIO
		}
	}
	w.due = nil
	if next := off + int64(len(b)); off == f.next && off > 0 && next < f.info.Bytes {
		var err error
		if w.due, err = w.want(f, next, int(min(maxPiece, f.info.Bytes-next))); err != nil {
			return nil, syscall.EIO
		}
	}
	told, err := w.take(nil)
	if err == errBroken || err == nil && (len(told) != 4 || binary.BigEndian.Uint32(told) > uint32(len(b))) {
		err = syscall.EIO
	}
	if err != nil {
		return nil, err
	}
	return b[:copy(b[:binary.BigEndian.Uint32(told)], w.window[int(d.place)*maxPiece:])], nil
}

// Seek implements io.Seeker.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.info.Bytes
	}
	if offset < 0 {
		return 0, syscall.EINVAL
	}
	f.at = offset
	return offset, nil
}

// Close implements fs.File.
func (f *file) Close() error {
	if f.piece = nil; f.handle == 0 {
		return nil
	}
	_, err := f.in.w.ask(askClose, binary.BigEndian.AppendUint32(nil, f.handle))
	return err
}
