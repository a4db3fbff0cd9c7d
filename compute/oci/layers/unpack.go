// Package layers makes one read-only file system of the layers of a container image, in one pass and without a file system's help: archives
// go in, and the bytes of an EROFS image come out. So it needs no privilege, no owner of a file is anybody on the machine, and no name in an
// archive is ever a path here. What it reads is hostile, and it is for a process that is walled in: its caller is package oci's unpacker.
package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Limits of images.
const (
	MaxFiles         = 400_000 // a distribution with all its documentation has 100,000
	maxImageDepth    = 128     // folders within folders
	maxSymlinks      = 40      // followed on the way to one name, as by the kernel
	maxAccountsBytes = 1 << 20 // of /etc/passwd and /etc/group each
	maxSpecBytes     = 1 << 20 // of what the unpacker is told, and of what it tells
	maxWindow        = 8 << 20 // of zstd: the largest that it asks its readers to take
)

// Spec is what an unpacker is told before the layers, each of which follows in full, the lowest first.
type Spec struct {
	Layers []Layer  `json:"layers"`
	User   string   `json:"user"`  // of the configuration: USER[:GROUP], names or numbers
	Dirs   []string `json:"dirs"`  // made where they are not there: mount points, the working directory
	Limit  int64    `json:"limit"` // bytes of the root
}

// Layer is one of a Spec.
type Layer struct {
	Size   int64  `json:"size"`
	Media  string `json:"media"`
	DiffID string `json:"diff_id"` // sha256:HEX of what is unpacked
}

// Told is what an unpacker tells at its end.
type Told struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
	Home   string   `json:"home"`
	Left   []string `json:"left"` // what of the image was left out; the first of it
}

// Unpack reads what Header wrote and the layers, and writes an EROFS image from block 1 on, its superblock, what it tells and that one's
// length: what Seal takes.
func Unpack(in io.Reader, out io.Writer) error {
	var s Spec
	if err := readSpec(in, &s); err != nil {
		return err
	}
	u := &unpacker{out: newBlocks(out), copying: make([]byte, 256<<10), limit: s.Limit, root: newDir(nil, -1)}
	for i, l := range s.Layers {
		if err := u.layer(in, i, l); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	for _, d := range s.Dirs {
		if err := u.makeDir(d, len(s.Layers)); err != nil {
			return err
		}
	}
	t, err := u.who(s.User)
	if err != nil {
		return err
	}
	t.Left = u.left
	super, err := u.out.finish(u.root)
	if err != nil {
		return err
	}
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = out.Write(binary.BigEndian.AppendUint32(append(super, b...), uint32(len(b))))
	return err
}

func readSpec(in io.Reader, s *Spec) error {
	var n [4]byte
	if _, err := io.ReadFull(in, n[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > maxSpecBytes {
		return errors.New("the specification is too long")
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	return json.Unmarshal(b, s)
}

// unpacker applies layers to one tree.
type unpacker struct {
	out     *blocks
	limit   int64 // bytes of the root, and of what any one layer may unpack to
	root    *inode
	files   int // made, also those that are no more
	copying []byte
	left    []string
	passwd  accounts
	group   accounts
}

// accounts is a file whose content is kept, since it says who a user is.
type accounts struct {
	of *inode
	b  []byte
}

func newDir(parent *inode, layer int) *inode {
	return &inode{mode: modeDir | 0o755, children: map[string]*inode{}, parent: parent, layer: layer}
}

// layer reads one layer in full, whatever its archive says, and checks what it unpacks to.
func (u *unpacker) layer(in io.Reader, i int, l Layer) error {
	packed := &io.LimitedReader{R: in, N: l.Size}
	plain, done, err := decompress(packed, l.Media)
	if err != nil {
		return err
	}
	defer done()
	sum := sha256.New()
	bounded := &boundedReader{r: io.TeeReader(plain, sum), left: u.limit + int64(MaxFiles)*1024}
	if err := u.archive(tar.NewReader(bounded), i); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, bounded); err != nil { // what follows the archive's end belongs to the digest
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != l.DiffID {
		return fmt.Errorf("it unpacks to %s, and the configuration says %s", got, l.DiffID)
	}
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return err
	}
	if packed.N != 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// decompress reads a layer of one of the media types that are taken.
func decompress(r io.Reader, media string) (io.Reader, func(), error) {
	switch {
	case strings.HasSuffix(media, "gzip"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case strings.HasSuffix(media, "zstd"):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

// boundedReader refuses, where io.LimitedReader would say that all is well.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("it unpacks to more than an image may hold")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (u *unpacker) archive(t *tar.Reader, layer int) error {
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := u.entry(t, h, layer); err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
	}
}

// cleanName gives the elements of a name within the root. A name that leads out of it is refused, though here it would lead nowhere.
func cleanName(name string) ([]string, error) {
	var all []string
	for _, e := range strings.Split(name, "/") {
		switch {
		case e == "" || e == ".":
		case e == "..":
			return nil, errors.New("the name leads out of the image")
		case len(e) > maxNameBytes || strings.ContainsRune(e, 0):
			return nil, errors.New("the name is too long, or holds a zero byte")
		default:
			all = append(all, e)
		}
	}
	if len(all) > maxImageDepth {
		return nil, errors.New("the name is too deep")
	}
	return all, nil
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

func (u *unpacker) entry(t *tar.Reader, h *tar.Header, layer int) error {
	names, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if u.files++; u.files > MaxFiles {
		return fmt.Errorf("the image has more than %d files", MaxFiles)
	}
	n := &inode{mode: uint32(h.Mode) & 0o1777, uid: id(h.Uid), gid: id(h.Gid), mtime: h.ModTime.Unix(), layer: layer}
	if len(names) == 0 {
		if h.Typeflag == tar.TypeDir {
			u.root.mode, u.root.uid, u.root.gid, u.root.mtime = modeDir|n.mode, n.uid, n.gid, n.mtime
		}
		return nil
	}
	dir, err := u.dir(names[:len(names)-1], layer)
	if err != nil {
		return err
	}
	name := names[len(names)-1]
	switch {
	case name == opaque:
		for k, c := range dir.children {
			cover(dir, k, c, layer)
		}
		return nil
	case strings.HasPrefix(name, whiteout):
		if c := dir.children[name[len(whiteout):]]; c != nil {
			cover(dir, name[len(whiteout):], c, layer)
		}
		return nil
	}
	old := dir.children[name]
	switch h.Typeflag {
	case tar.TypeDir:
		if old != nil && old.isDir() {
			old.mode, old.uid, old.gid, old.mtime, old.layer = modeDir|n.mode, n.uid, n.gid, n.mtime, layer
			return nil
		}
		n.mode |= modeDir
		n.children, n.parent = map[string]*inode{}, dir
	case tar.TypeReg, tar.TypeGNUSparse:
		n.mode |= modeFile
		if err := u.content(n, t, h.Size, names); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxTargetBytes || strings.ContainsRune(h.Linkname, 0) {
			return errors.New("the link leads nowhere")
		}
		n.mode, n.target = modeLink|0o777, h.Linkname
	case tar.TypeLink:
		to, err := cleanName(h.Linkname)
		if err != nil || len(to) == 0 {
			return errors.Join(errors.New("the hard link leads nowhere"), err)
		}
		from, err := u.dir(to[:len(to)-1], layer)
		if err != nil {
			return err
		}
		if n = from.children[to[len(to)-1]]; n == nil || n.isDir() {
			return errors.New("the hard link leads to no file")
		}
		if n.layer < layer { // the file below stays its own, and may be covered
			above := *n
			above.layer, n = layer, &above
		}
	default: // devices, fifos
		if len(u.left) < 20 {
			u.left = append(u.left, strings.ToValidUTF8(h.Name, "?"))
		}
		return nil
	}
	dir.children[name] = n
	return nil
}

// cover takes away what layers below had, and leaves what this layer has put there, wherever in its archive that stood.
func cover(dir *inode, name string, c *inode, layer int) {
	for k, cc := range c.children {
		cover(c, k, cc, layer)
	}
	if c.layer < layer && len(c.children) == 0 {
		delete(dir.children, name)
	}
}

// id is that of an owner; a number that is none is nobody's.
func id(n int) uint32 {
	if n < 0 || int64(n) >= 1<<32-1 {
		return 65534
	}
	return uint32(n)
}

// content writes a file's bytes where the image is.
func (u *unpacker) content(n *inode, r io.Reader, size int64, names []string) error {
	n.size = size
	if size > u.limit-u.out.next {
		return fmt.Errorf("the image holds more than %d MiB", u.limit>>20)
	}
	var err error
	if n.block, err = u.out.align(); err != nil {
		return err
	}
	var kept *accounts
	switch path.Join(names...) {
	case "etc/passwd":
		kept = &u.passwd
	case "etc/group":
		kept = &u.group
	}
	if kept != nil && size <= maxAccountsBytes {
		b, err := io.ReadAll(io.LimitReader(r, maxAccountsBytes))
		if err != nil {
			return err
		}
		*kept, r = accounts{n, b}, bytes.NewReader(b)
	}
	got, err := io.CopyBuffer(struct{ io.Writer }{u.out}, struct{ io.Reader }{r}, u.copying)
	if err == nil && got != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// dir finds a folder, through links, none of which leads out of the root. What is not there is made, and so is what stands in the way.
func (u *unpacker) dir(names []string, layer int) (*inode, error) {
	at, hops := u.root, 0
	for i := 0; i < len(names); i++ {
		if names[i] == ".." {
			if at.parent != nil {
				at = at.parent
			}
			continue
		}
		c := at.children[names[i]]
		if c != nil && c.isLink() {
			if hops++; hops > maxSymlinks {
				return nil, errors.New("too many symbolic links")
			}
			if strings.HasPrefix(c.target, "/") {
				at = u.root
			}
			var to []string
			for _, e := range strings.Split(c.target, "/") {
				if len(e) > maxNameBytes {
					return nil, errors.New("a link's name is too long")
				}
				if e != "" && e != "." {
					to = append(to, e)
				}
			}
			if names, i = append(to, names[i+1:]...), -1; len(names) > 2*maxImageDepth {
				return nil, errors.New("a link leads too deep")
			}
			continue
		}
		if c == nil || !c.isDir() {
			if u.files++; u.files > MaxFiles {
				return nil, fmt.Errorf("the image has more than %d files", MaxFiles)
			}
			c = newDir(at, layer)
			at.children[names[i]] = c
		}
		at = c
	}
	return at, nil
}

// makeDir has a folder be there.
func (u *unpacker) makeDir(name string, layer int) error {
	names, err := cleanName(name)
	if err != nil {
		return err
	}
	_, err = u.dir(names, layer)
	return err
}

// Header writes what stands before the layers.
func Header(s Spec) ([]byte, error) {
	b, err := json.Marshal(s)
	if err == nil && len(b) > maxSpecBytes {
		err = errors.New("the image's description is too long")
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...), err
}

// Begin is where in a file what Unpack writes begins.
const Begin = blockSize

// Seal makes an image of a file that holds from Begin on what Unpack wrote: the superblock goes where it belongs, and what was told is cut off.
func Seal(f *os.File) (t Told, bytes int64, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return t, 0, err
	}
	var n [4]byte
	if _, err := f.ReadAt(n[:], end-4); err != nil {
		return t, 0, err
	}
	size := int64(binary.BigEndian.Uint32(n[:]))
	if bytes = end - 4 - size - superBytes; size > maxSpecBytes || bytes < blockSize {
		return t, 0, errors.New("no superblock")
	}
	tail := make([]byte, superBytes+size)
	if _, err := f.ReadAt(tail, bytes); err != nil {
		return t, 0, err
	}
	if err := json.Unmarshal(tail[superBytes:], &t); err != nil {
		return t, 0, err
	}
	if _, err := f.WriteAt(tail[:superBytes], superAt); err != nil {
		return t, 0, err
	}
	return t, bytes, f.Truncate(bytes)
}

// Inside reports whether a folder's name, as an image gives it, stays within the image.
func Inside(name string) bool {
	_, err := cleanName(name)
	return err == nil
}
