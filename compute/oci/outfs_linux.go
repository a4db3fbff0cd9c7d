package oci

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// outFS serves /out to a sandbox over gVisor's file protocol. Names, folders, links, owners and modes are kept here in memory and mean
// nothing to the machine; contents are files with numbers for names in a file system in memory that nobody else sees, and whose size is the limit.
type outFS struct {
	dir string // of contents

	mu    sync.Mutex // guards all of the tree and the attributes of files
	root  *outNode
	files int
	last  uint64
}

// Limits of what is under /out beside its bytes: what it costs here to keep.
const (
	maxOutFiles = 100_000
	maxOutName  = 255
	maxTarget   = 4095 // of a symbolic link
)

// outNode is a file, folder or link.
type outNode struct {
	ino      uint64
	mode     uint32
	uid, gid uint32
	links    int
	opens    int // that use its content, which stays until they and its names have gone
	children map[string]*outNode
	target   string
	a, m, c  time.Time
}

func (n *outNode) isDir() bool  { return n.mode&unix.S_IFMT == unix.S_IFDIR }
func (n *outNode) isFile() bool { return n.mode&unix.S_IFMT == unix.S_IFREG }

func newOutFS(dir string, uid, gid uint32) *outFS {
	fs := &outFS{dir: dir}
	fs.root = fs.node(unix.S_IFDIR|0o755, uid, gid)
	return fs
}

// node makes one that is in no folder yet.
func (fs *outFS) node(mode, uid, gid uint32) *outNode {
	now := time.Now()
	fs.last++
	fs.files++
	n := &outNode{ino: fs.last, mode: mode, uid: uid, gid: gid, a: now, m: now, c: now}
	if n.isDir() {
		n.children = map[string]*outNode{}
	}
	return n
}

func (fs *outFS) content(n *outNode) string {
	return filepath.Join(fs.dir, strconv.FormatUint(n.ino, 10))
}

var outMessages = []lisafs.MID{
	lisafs.Mount, lisafs.Channel, lisafs.FStat, lisafs.SetStat, lisafs.Walk, lisafs.WalkStat, lisafs.OpenAt, lisafs.OpenCreateAt, lisafs.Close, lisafs.FSync,
	lisafs.PWrite, lisafs.PRead, lisafs.MkdirAt, lisafs.MknodAt, lisafs.SymlinkAt, lisafs.LinkAt, lisafs.FStatFS, lisafs.FAllocate, lisafs.ReadLinkAt,
	lisafs.UnlinkAt, lisafs.RenameAt, lisafs.RenameAt2, lisafs.Getdents64, lisafs.FGetXattr, lisafs.FSetXattr, lisafs.FListXattr, lisafs.FRemoveXattr,
	lisafs.Connect, lisafs.ConnectWithCreds, lisafs.BindAt,
}

// Mount implements lisafs.ConnectionImpl.
func (fs *outFS) Mount(c *lisafs.Connection, n *lisafs.Node) (*lisafs.ControlFD, lisafs.Statx, int, error) {
	fd := &outFile{fs: fs, n: fs.root}
	n.IncRef()
	fd.ControlFD.Init(c, n, linux.ModeDirectory, fd)
	s, err := fd.Stat()
	return fd.FD(), s, -1, err
}

// SupportedMessages implements lisafs.ConnectionImpl.
func (fs *outFS) SupportedMessages() []lisafs.MID { return outMessages }

// MaxMessageSize implements lisafs.ConnectionImpl.
func (fs *outFS) MaxMessageSize() uint32 { return lisafs.MaxMessageSize() }

func stamp(t time.Time) lisafs.StatxTimestamp { return lisafs.NsecToStatxTimestamp(t.UnixNano()) }

// statx is called with mu held.
func (fs *outFS) statx(n *outNode) (lisafs.Statx, error) {
	s := lisafs.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: 64 << 10, Nlink: uint32(n.links), UID: n.uid, GID: n.gid, Mode: uint16(n.mode), Ino: n.ino,
		Atime: stamp(n.a), Mtime: stamp(n.m), Ctime: stamp(n.c),
	}
	switch {
	case n.isDir():
		s.Nlink = 2
	case n.isFile():
		var st unix.Stat_t
		if err := unix.Stat(fs.content(n), &st); err != nil {
			return s, err
		}
		s.Size, s.Blocks = uint64(st.Size), uint64(st.Blocks)
	default:
		s.Size = uint64(len(n.target))
	}
	return s, nil
}

// outFile is a name that the sandbox holds.
type outFile struct {
	lisafs.ControlFD
	refusals
	fs *outFS
	n  *outNode
}

func (f *outFile) FD() *lisafs.ControlFD { return &f.ControlFD }
func (f *outFile) Close()                {}

// Stat implements lisafs.ControlFDImpl.
func (f *outFile) Stat() (lisafs.Statx, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.statx(f.n)
}

// SetStat implements lisafs.ControlFDImpl.
func (f *outFile) SetStat(s lisafs.SetStatReq) (failed uint32, err error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if s.Mask&unix.STATX_SIZE != 0 {
		err = unix.EISDIR
		if f.n.isFile() {
			err = unix.EFBIG
			if s.Size <= 1<<62 {
				err = os.Truncate(f.fs.content(f.n), int64(s.Size))
			}
		}
		if err != nil {
			return unix.STATX_SIZE, lisafs.ExtractErrno(err)
		}
	}
	if s.Mask&unix.STATX_MODE != 0 {
		f.n.mode = f.n.mode&unix.S_IFMT | s.Mode&0o1777
	}
	if s.Mask&unix.STATX_UID != 0 {
		f.n.uid = uint32(s.UID)
	}
	if s.Mask&unix.STATX_GID != 0 {
		f.n.gid = uint32(s.GID)
	}
	set := func(what uint32, t *time.Time, to linux.Timespec) {
		if s.Mask&what == 0 {
			return
		}
		if *t = time.Unix(to.Sec, to.Nsec); to.Nsec == unix.UTIME_NOW {
			*t = time.Now()
		}
	}
	set(unix.STATX_ATIME, &f.n.a, s.Atime)
	set(unix.STATX_MTIME, &f.n.m, s.Mtime)
	f.n.c = time.Now()
	return 0, nil
}

// hold gives the sandbox a name. It is called with mu held.
func (f *outFile) hold(name string, n *outNode) (*lisafs.ControlFD, lisafs.Statx, error) {
	s, err := f.fs.statx(n)
	if err != nil {
		return nil, s, err
	}
	child := &outFile{fs: f.fs, n: n}
	child.ControlFD.Init(f.Conn(), childNode(f.Node(), name), linux.FileMode(n.mode), child)
	return child.FD(), s, nil
}

// Walk implements lisafs.ControlFDImpl.
func (f *outFile) Walk(name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if !f.n.isDir() {
		return nil, lisafs.Statx{}, unix.ENOTDIR
	}
	n := f.n.children[name]
	if n == nil {
		return nil, lisafs.Statx{}, unix.ENOENT
	}
	return f.hold(name, n)
}

// WalkStat implements lisafs.ControlFDImpl.
func (f *outFile) WalkStat(names lisafs.StringArray, record func(lisafs.Statx)) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n := f.n
	for i, name := range names {
		if i > 0 || name != "" {
			if !n.isDir() {
				return nil
			}
			if n = n.children[name]; n == nil {
				return nil
			}
		}
		s, err := f.fs.statx(n)
		if err != nil {
			return err
		}
		record(s)
	}
	return nil
}

// make puts something new into a folder.
func (f *outFile) make(name string, mode uint32, uid lisafs.UID, gid lisafs.GID, fill func(*outNode) error) (*lisafs.ControlFD, lisafs.Statx, *outNode, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	switch {
	case !f.n.isDir():
		return nil, lisafs.Statx{}, nil, unix.ENOTDIR
	case len(name) > maxOutName:
		return nil, lisafs.Statx{}, nil, unix.ENAMETOOLONG
	case f.n.children[name] != nil:
		return nil, lisafs.Statx{}, nil, unix.EEXIST
	case f.fs.files >= maxOutFiles:
		return nil, lisafs.Statx{}, nil, unix.ENOSPC
	}
	n := f.fs.node(mode, uint32(uid), uint32(gid))
	if n.isFile() {
		c, err := os.OpenFile(f.fs.content(n), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			f.fs.files--
			return nil, lisafs.Statx{}, nil, lisafs.ExtractErrno(err)
		}
		c.Close()
	}
	if fill != nil {
		if err := fill(n); err != nil {
			f.fs.files--
			return nil, lisafs.Statx{}, nil, err
		}
	}
	n.links = 1
	f.n.children[name] = n
	f.n.m, f.n.c = n.m, n.m
	fd, s, err := f.hold(name, n)
	return fd, s, n, err
}

// OpenCreate implements lisafs.ControlFDImpl.
func (f *outFile) OpenCreate(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string, flags uint32) (*lisafs.ControlFD, lisafs.Statx, *lisafs.OpenFD, int, error) {
	fd, s, n, err := f.make(name, unix.S_IFREG|uint32(mode)&0o1777, uid, gid, nil)
	if err != nil {
		return nil, s, nil, -1, err
	}
	o, err := f.fs.open(fd, n, flags)
	if err != nil {
		return nil, s, nil, -1, err
	}
	return fd, s, o, -1, nil
}

// Mkdir implements lisafs.ControlFDImpl.
func (f *outFile) Mkdir(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	fd, s, _, err := f.make(name, unix.S_IFDIR|uint32(mode)&0o1777, uid, gid, nil)
	return fd, s, err
}

// Mknod implements lisafs.ControlFDImpl. A fifo or a socket is a name that says so; devices are refused.
func (f *outFile) Mknod(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string, _, _ uint32) (*lisafs.ControlFD, lisafs.Statx, error) {
	switch mode.FileType() {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
		fd, s, _, err := f.make(name, uint32(mode.FileType())|uint32(mode)&0o1777, uid, gid, nil)
		return fd, s, err
	}
	return nil, lisafs.Statx{}, unix.EPERM
}

// Symlink implements lisafs.ControlFDImpl.
func (f *outFile) Symlink(name, target string, uid lisafs.UID, gid lisafs.GID) (*lisafs.ControlFD, lisafs.Statx, error) {
	fd, s, _, err := f.make(name, unix.S_IFLNK|0o777, uid, gid, func(n *outNode) error {
		if len(target) > maxTarget {
			return unix.ENAMETOOLONG
		}
		n.target = target
		return nil
	})
	return fd, s, err
}

// Link implements lisafs.ControlFDImpl.
func (f *outFile) Link(dir lisafs.ControlFDImpl, name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	d := dir.(*outFile)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	switch {
	case f.n.isDir() || f.n.links == 0:
		return nil, lisafs.Statx{}, unix.EPERM
	case !d.n.isDir():
		return nil, lisafs.Statx{}, unix.ENOTDIR
	case len(name) > maxOutName:
		return nil, lisafs.Statx{}, unix.ENAMETOOLONG
	case d.n.children[name] != nil:
		return nil, lisafs.Statx{}, unix.EEXIST
	case f.fs.files >= maxOutFiles:
		return nil, lisafs.Statx{}, unix.ENOSPC
	}
	f.n.links++
	f.fs.files++
	d.n.children[name] = f.n
	return d.hold(name, f.n)
}

// StatFS implements lisafs.ControlFDImpl.
func (f *outFile) StatFS() (lisafs.StatFS, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(f.fs.dir, &s); err != nil {
		return lisafs.StatFS{}, err
	}
	return lisafs.StatFS{Type: linux.V9FS_MAGIC, BlockSize: int64(s.Bsize), Blocks: s.Blocks, BlocksFree: s.Bfree, BlocksAvailable: s.Bavail, NameLength: maxOutName}, nil
}

// Readlink implements lisafs.ControlFDImpl.
func (f *outFile) Readlink(buf func(uint32) []byte) (uint16, error) {
	if f.n.mode&unix.S_IFMT != unix.S_IFLNK {
		return 0, unix.EINVAL
	}
	return uint16(copy(buf(uint32(len(f.n.target))), f.n.target)), nil
}

// Unlink implements lisafs.ControlFDImpl.
func (f *outFile) Unlink(name string, flags uint32) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n := f.n.children[name]
	switch {
	case n == nil:
		return unix.ENOENT
	case flags&unix.AT_REMOVEDIR != 0 && !n.isDir():
		return unix.ENOTDIR
	case flags&unix.AT_REMOVEDIR == 0 && n.isDir():
		return unix.EISDIR
	case len(n.children) > 0:
		return unix.ENOTEMPTY
	}
	f.fs.drop(f.n, name)
	return nil
}

// drop takes a name away.
func (fs *outFS) drop(dir *outNode, name string) {
	n := dir.children[name]
	delete(dir.children, name)
	dir.m = time.Now()
	dir.c, n.c = dir.m, dir.m
	fs.files--
	n.links--
	fs.forget(n)
}

// forget removes the content of a file that nothing leads to any more.
func (fs *outFS) forget(n *outNode) {
	if n.isFile() && n.links == 0 && n.opens == 0 {
		os.Remove(fs.content(n))
	}
}

// RenameAt implements lisafs.ControlFDImpl.
func (f *outFile) RenameAt(old string, dir lisafs.ControlFDImpl, name string) error {
	return f.RenameAt2(old, dir, name, 0)
}

// RenameAt2 implements lisafs.ControlFDImpl.
func (f *outFile) RenameAt2(old string, dir lisafs.ControlFDImpl, name string, flags uint32) error {
	d := dir.(*outFile)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if flags&^unix.RENAME_NOREPLACE != 0 {
		return unix.EINVAL
	}
	n, there := f.n.children[old], d.n.children[name]
	switch {
	case n == nil:
		return unix.ENOENT
	case len(name) > maxOutName:
		return unix.ENAMETOOLONG
	case n.isDir() && within(d.n, n):
		return unix.EINVAL
	case there == n:
		return nil
	case there != nil && flags&unix.RENAME_NOREPLACE != 0:
		return unix.EEXIST
	case there != nil && there.isDir() && !n.isDir():
		return unix.EISDIR
	case there != nil && !there.isDir() && n.isDir():
		return unix.ENOTDIR
	case there != nil && len(there.children) > 0:
		return unix.ENOTEMPTY
	}
	if there != nil {
		f.fs.drop(d.n, name)
	}
	delete(f.n.children, old)
	d.n.children[name] = n
	n.c = time.Now()
	f.n.m, d.n.m = n.c, n.c
	return nil
}

// within reports whether a folder is in another, or is it.
func within(n, in *outNode) bool {
	if n == in {
		return true
	}
	for _, c := range in.children {
		if c.isDir() && within(n, c) {
			return true
		}
	}
	return false
}

// Open implements lisafs.ControlFDImpl.
func (f *outFile) Open(flags uint32) (*lisafs.OpenFD, int, error) {
	o, err := f.fs.open(&f.ControlFD, f.n, flags)
	return o, -1, err
}

func (fs *outFS) open(fd *lisafs.ControlFD, n *outNode, flags uint32) (*lisafs.OpenFD, error) {
	o := &outOpen{fs: fs, n: n}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch {
	case n.isFile():
		var err error
		if o.f, err = os.OpenFile(fs.content(n), int(flags&(unix.O_ACCMODE|unix.O_TRUNC)), 0); err != nil {
			return nil, lisafs.ExtractErrno(err)
		}
		n.opens++
	case !n.isDir():
		return nil, unix.ENXIO
	}
	o.OpenFD.Init(fd, flags, o)
	return &o.OpenFD, nil
}

// walk tells of everything under /out, in order of names, once the sandbox can change nothing any more.
func (fs *outFS) walk(tell func(name string, n *outNode) error) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var down func(dir string, n *outNode) error
	down = func(dir string, n *outNode) error {
		for _, name := range sortedNames(n.children) {
			c, at := n.children[name], path.Join(dir, name)
			if len(at) > maxPathBytes {
				continue
			}
			err := tell(at, c)
			if err == nil && c.isDir() {
				err = down(at, c)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return down("", fs.root)
}

func sortedNames(children map[string]*outNode) []string { return slices.Sorted(maps.Keys(children)) }
