package oci

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"hash/maphash"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

// inFS serves /in to a sandbox over gVisor's file protocol (lisafs). It knows nothing by itself: each lookup, listing and opening is asked of the
// node when the sandbox asks, so that nothing is read, and nothing raised, that the program did not reach for. It gives no descriptors away.
type inFS struct {
	ask  func(kind byte, payload []byte) ([]byte, unix.Errno) // of the node
	tell func(kind byte, payload []byte)
	seed maphash.Seed
	root fileInfo // of what is mounted
	in   *places  // where pieces come; nil: with answers alone

	mu   sync.Mutex // guards held; taken while an inOpen's is held
	held []*inOpen  // those that have a piece, the oldest first
}

// maxPieces are the pieces that are read ahead and kept at once, of all open files together.
const maxPieces = 32

// holds notes that o has a piece, and takes the oldest's away where there are too many. One that is being read keeps its own.
func (fs *inFS) holds(o *inOpen) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.held = append(slices.DeleteFunc(fs.held, func(h *inOpen) bool { return h == o }), o)
	for i := 0; len(fs.held) > maxPieces && i < len(fs.held)-1; {
		if h := fs.held[i]; h.mu.TryLock() {
			h.drop()
			h.mu.Unlock()
			fs.held = slices.Delete(fs.held, i, i+1)
		} else {
			i++
		}
	}
}

var inMessages = []lisafs.MID{
	lisafs.Mount, lisafs.Channel, lisafs.FStat, lisafs.Walk, lisafs.WalkStat, lisafs.OpenAt, lisafs.Close, lisafs.FSync, lisafs.PRead, lisafs.FStatFS,
	lisafs.Getdents64, lisafs.FGetXattr, lisafs.FListXattr, lisafs.ReadLinkAt,
}

// Mount implements lisafs.ConnectionImpl. What is mounted is always there, and tells nothing.
func (fs *inFS) Mount(c *lisafs.Connection, n *lisafs.Node) (*lisafs.ControlFD, lisafs.Statx, int, error) {
	fd := &inFile{fs: fs, info: fs.root}
	n.IncRef()
	fd.ControlFD.Init(c, n, fs.root.mode(), fd)
	return fd.FD(), fd.statx(), -1, nil
}

// SupportedMessages implements lisafs.ConnectionImpl.
func (fs *inFS) SupportedMessages() []lisafs.MID { return inMessages }

// MaxMessageSize implements lisafs.ConnectionImpl.
func (fs *inFS) MaxMessageSize() uint32 { return lisafs.MaxMessageSize() }

// inFile is a file or folder under /in.
type inFile struct {
	lisafs.ControlFD
	refusals
	fs   *inFS
	path string // below /in
	info fileInfo
}

func (i fileInfo) mode() linux.FileMode {
	if i.Dir {
		return linux.ModeDirectory
	}
	return linux.ModeRegular
}

func (f *inFile) FD() *lisafs.ControlFD { return &f.ControlFD }
func (f *inFile) Close()                {}

func (f *inFile) statx() lisafs.Statx { return f.fs.statx(f.path, f.info) }

func (fs *inFS) ino(name string) uint64 { return maphash.String(fs.seed, name) | 1 }

func (fs *inFS) statx(name string, i fileInfo) lisafs.Statx {
	t := lisafs.NsecToStatxTimestamp(i.MTime)
	s := lisafs.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: 64 << 10, Nlink: 1, Mode: unix.S_IFREG | 0o444, Ino: fs.ino(name), Size: uint64(i.Bytes), Blocks: (uint64(i.Bytes) + 511) / 512,
		Atime: t, Ctime: t, Mtime: t,
	}
	if i.Dir {
		s.Mode, s.Nlink = unix.S_IFDIR|0o555, 2
	}
	return s
}

func (fs *inFS) stat(name string) (i fileInfo, err error) {
	if len(name) > maxPathBytes {
		return i, unix.ENAMETOOLONG
	}
	b, errno := fs.ask(askStat, []byte(name))
	if errno != 0 {
		return i, errno
	}
	return i, badReply(json.Unmarshal(b, &i))
}

func badReply(err error) error {
	if err != nil {
		return unix.EIO
	}
	return nil
}

// Stat implements lisafs.ControlFDImpl.
func (f *inFile) Stat() (lisafs.Statx, error) { return f.statx(), nil }

// Walk implements lisafs.ControlFDImpl.
func (f *inFile) Walk(name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	if !f.info.Dir {
		return nil, lisafs.Statx{}, unix.ENOTDIR
	}
	at := path.Join(f.path, name)
	i, err := f.fs.stat(at)
	if err != nil {
		return nil, lisafs.Statx{}, err
	}
	child := &inFile{fs: f.fs, path: at, info: i}
	child.ControlFD.Init(f.Conn(), childNode(f.Node(), name), i.mode(), child)
	return child.FD(), child.statx(), nil
}

// childNode finds or makes the node of a name, with a reference for who asked.
func childNode(parent *lisafs.Node, name string) (n *lisafs.Node) {
	parent.WithChildrenMu(func() {
		if n = parent.LookupChildLocked(name); n != nil {
			n.IncRef()
			return
		}
		n = &lisafs.Node{}
		n.InitLocked(name, parent)
	})
	return n
}

// WalkStat implements lisafs.ControlFDImpl.
func (f *inFile) WalkStat(names lisafs.StringArray, record func(lisafs.Statx)) error {
	if len(names) > 0 && names[0] == "" {
		record(f.statx())
		names = names[1:]
	}
	at := f.path
	for _, name := range names {
		at = path.Join(at, name)
		i, err := f.fs.stat(at)
		if err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return err
		}
		record(f.fs.statx(at, i))
		if !i.Dir {
			return nil
		}
	}
	return nil
}

// Open implements lisafs.ControlFDImpl. Here a file becomes one that was read.
func (f *inFile) Open(flags uint32) (*lisafs.OpenFD, int, error) {
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		return nil, -1, unix.EROFS
	}
	o := &inOpen{f: f}
	if !f.info.Dir {
		b, errno := f.fs.ask(askOpen, []byte(f.path))
		if errno != 0 {
			return nil, -1, errno
		}
		var r openReply
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, -1, unix.EIO
		}
		o.handle, o.size = r.Handle, r.File.Bytes
	}
	o.OpenFD.Init(&f.ControlFD, flags, o)
	return &o.OpenFD, -1, nil
}

// StatFS implements lisafs.ControlFDImpl.
func (f *inFile) StatFS() (lisafs.StatFS, error) {
	return lisafs.StatFS{Type: linux.V9FS_MAGIC, BlockSize: 4096, NameLength: 1024}, nil
}

// inOpen is an open file or folder. Of a file it keeps the last piece, so that small reads do not each cross to the node.
type inOpen struct {
	lisafs.OpenFD
	openRefusals
	f      *inFile
	handle uint64
	size   int64

	mu    sync.Mutex
	piece piece
	ahead chan piece // the piece after that, on its way: the program reads in order
	list  []fileInfo
	next  int
}

func (o *inOpen) FD() *lisafs.OpenFD { return &o.OpenFD }

// Close implements lisafs.OpenFDImpl.
func (o *inOpen) Close() {
	o.f.fs.mu.Lock()
	o.f.fs.held = slices.DeleteFunc(o.f.fs.held, func(h *inOpen) bool { return h == o })
	o.f.fs.mu.Unlock()
	o.mu.Lock()
	o.drop()
	o.mu.Unlock()
	if o.handle != 0 {
		o.f.fs.tell(askClose, binary.BigEndian.AppendUint64(nil, o.handle))
	}
}

// Stat implements lisafs.OpenFDImpl.
func (o *inOpen) Stat() (lisafs.Statx, error) { return o.f.statx(), nil }

// Sync implements lisafs.OpenFDImpl.
func (o *inOpen) Sync() error { return nil }

// Read implements lisafs.OpenFDImpl.
func (o *inOpen) Read(buf []byte, off uint64) (n uint64, err error) {
	if o.handle == 0 {
		return 0, unix.EISDIR
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(buf) > 0 && off < uint64(o.size) {
		if off < uint64(o.piece.at) || off >= uint64(o.piece.end()) {
			if err := o.fetch(int64(off)); err != nil {
				return n, err
			}
		}
		m := copy(buf, o.piece.b[int64(off)-o.piece.at:])
		buf, n, off = buf[m:], n+uint64(m), off+uint64(m)
	}
	return n, nil
}

// piece is a part of a file.
type piece struct {
	at    int64
	b     []byte
	place int // of the window; noPlace: b is its own
	err   error
}

func (p *piece) end() int64 { return p.at + int64(len(p.b)) }

// gone gives a piece's place back.
func (fs *inFS) gone(p piece) {
	if p.b != nil && p.place != noPlace {
		fs.in.free <- p.place
	}
}

// drop forgets what was read, and what is on its way. mu is held.
func (o *inOpen) drop() {
	o.f.fs.gone(o.piece)
	if ahead := o.ahead; ahead != nil {
		go func() { o.f.fs.gone(<-ahead) }() // ends with its answer
	}
	o.piece, o.ahead = piece{}, nil
}

// fetch has the piece that begins at off be there. Where a program reads in order, the one behind it is asked for before the program needs it.
func (o *inOpen) fetch(off int64) error {
	inOrder := off > 0 && off == o.piece.end()
	var p piece
	if o.ahead != nil {
		p = <-o.ahead
		o.ahead = nil
	}
	o.drop()
	if p.b == nil || p.at != off {
		o.f.fs.gone(p)
		p = o.part(off)
	}
	if p.err != nil {
		return p.err
	}
	o.piece = p
	o.f.fs.holds(o)
	if next := off + int64(len(p.b)); inOrder && next < o.size {
		ahead := make(chan piece, 1)
		go func() { ahead <- o.part(next) }() // ends with its answer
		o.ahead = ahead
	}
	return nil
}

func (o *inOpen) part(off int64) piece {
	want := min(pieceBytes, o.size-off)
	q := binary.BigEndian.AppendUint64(nil, o.handle)
	q = binary.BigEndian.AppendUint64(q, uint64(off))
	place := o.f.fs.in.take()
	q = binary.BigEndian.AppendUint64(q, uint64(want))
	b, errno := o.f.fs.ask(askRead, binary.BigEndian.AppendUint64(q, uint64(place)))
	if place != noPlace {
		if errno == 0 && len(b) == 8 && binary.BigEndian.Uint64(b) == uint64(want) {
			return piece{at: off, b: o.f.fs.in.b[place*pieceBytes:][:want:want], place: place}
		}
		o.f.fs.in.free <- place
		return piece{err: cmp.Or(errno, unix.EIO)}
	}
	switch {
	case errno != 0:
		return piece{err: errno}
	case int64(len(b)) != want:
		return piece{err: unix.EIO}
	}
	return piece{at: off, b: b, place: noPlace}
}

// Getdent64 implements lisafs.OpenFDImpl. The node lists the folder when its first entry is asked for.
func (o *inOpen) Getdent64(count uint32, seek0 bool, record func(lisafs.Dirent64)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if seek0 || o.list == nil {
		b, errno := o.f.fs.ask(askList, []byte(o.f.path))
		if errno != 0 {
			return errno
		}
		o.list, o.next = []fileInfo{}, 0
		if err := json.Unmarshal(b, &o.list); err != nil {
			return unix.EIO
		}
	}
	for used := 0; o.next < len(o.list); o.next++ {
		e := o.list[o.next]
		d := lisafs.Dirent64{Ino: primitive.Uint64(o.f.fs.ino(path.Join(o.f.path, e.Name))), Off: primitive.Uint64(o.next + 1), Type: unix.DT_REG, Name: lisafs.SizedString(e.Name)}
		if e.Dir {
			d.Type = unix.DT_DIR
		}
		if used += direntBytes(e.Name); used > int(count) {
			return nil
		}
		record(d)
	}
	return nil
}

// direntBytes is what linux_dirent64 takes with a name.
func direntBytes(name string) int { return (19 + len(name) + 1 + 7) &^ 7 }
