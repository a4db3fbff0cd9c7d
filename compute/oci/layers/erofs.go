package layers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
)

// An image's root is an EROFS file system (Linux Documentation/filesystems/erofs.rst) without compression, which the sandbox maps into its memory.
// Block 0 holds the superblock; then come the contents of files in the order that they arrived, then folders, links and inodes.
const (
	blockBits  = 12
	blockSize  = 1 << blockBits
	superAt    = 1024
	superBytes = 128
	inodeBytes = 64
	slotBits   = 5
	rootSlot   = 2
	direntSize = 12
	maxInline  = blockSize / 2 // of what stands behind its inode
	magic      = 0xe0f5e1e2
)

// Types of EROFS and of Unix modes.
const (
	typeFile, typeDir, typeLink  = 1, 2, 7
	modeFile, modeDir, modeLink  = 0o100000, 0o040000, 0o120000
	layoutPlain, layoutInline    = 1 | 0<<1, 1 | 2<<1 // with extended inodes
	MaxBytes                     = int64(1) << 40     // of an image, far below what a block's number holds
	maxNameBytes, maxTargetBytes = 255, 4095
)

// inode is a file, folder or link of an image.
type inode struct {
	mode     uint32 // with type
	uid, gid uint32
	mtime    int64
	links    uint32
	target   string            // of a link
	children map[string]*inode // of a folder
	parent   *inode            // of a folder
	block    uint32            // of a file: where its content begins
	size     int64
	layer    int // that it came from
	plain    bool

	nid  uint64 // while it is written
	data []byte // of a folder or link
}

func (n *inode) isDir() bool  { return n.mode&0o170000 == modeDir }
func (n *inode) isFile() bool { return n.mode&0o170000 == modeFile }
func (n *inode) isLink() bool { return n.mode&0o170000 == modeLink }

func (n *inode) fileType() byte {
	switch {
	case n.isDir():
		return typeDir
	case n.isLink():
		return typeLink
	}
	return typeFile
}

// blocks writes an image from its block 1 on.
type blocks struct {
	w    io.Writer
	next int64 // bytes, from the image's beginning
}

func newBlocks(w io.Writer) *blocks { return &blocks{w: w, next: blockSize} }

func (b *blocks) Write(p []byte) (int, error) {
	n, err := b.w.Write(p)
	b.next += int64(n)
	return n, err
}

var zeros [blockSize]byte

// align fills up to a block's end, and gives the number of the next.
func (b *blocks) align() (uint32, error) {
	if rest := b.next % blockSize; rest != 0 {
		if _, err := b.Write(zeros[rest:]); err != nil {
			return 0, err
		}
	}
	if b.next > MaxBytes {
		return 0, errors.New("the image is too large")
	}
	return uint32(b.next >> blockBits), nil
}

// finish writes folders, links and inodes, and gives the superblock.
func (b *blocks) finish(root *inode) ([]byte, error) {
	var all []*inode
	seen := map[*inode]bool{}
	var walk func(n *inode)
	walk = func(n *inode) {
		if seen[n] {
			return
		}
		seen[n] = true
		all = append(all, n)
		for _, name := range sortedNames(n.children) {
			walk(n.children[name])
		}
	}
	walk(root)
	for _, n := range all {
		n.links = 0
		if n.isLink() {
			n.data = []byte(n.target)
		}
		if n.isDir() {
			n.size = int64(dirBytes(n))
		} else if n.isLink() {
			n.size = int64(len(n.data))
		}
	}
	// Where inodes stand depends on sizes alone, and what folders hold on where inodes stand.
	at := uint64(rootSlot) << slotBits
	for _, n := range all {
		n.plain = n.isFile() || n.size > maxInline || n.size == 0
		tail := uint64(0)
		if !n.plain {
			tail = uint64(n.size)
			if at%blockSize+inodeBytes+tail > blockSize {
				at = (at + blockSize - 1) &^ (blockSize - 1)
			}
		}
		n.nid = at >> slotBits
		at = (at + inodeBytes + tail + 1<<slotBits - 1) &^ (1<<slotBits - 1)
	}
	for _, n := range all {
		if n.isDir() {
			n.links++
			for _, c := range n.children {
				c.links++
				if c.isDir() {
					n.links++
				}
			}
			n.data = dirData(n)
		}
	}
	root.links++
	for _, n := range all {
		if n.plain && !n.isFile() && n.size > 0 {
			var err error
			if n.block, err = b.align(); err != nil {
				return nil, err
			}
			if _, err := b.Write(n.data); err != nil {
				return nil, err
			}
		}
	}
	meta, err := b.align()
	if err != nil {
		return nil, err
	}
	base := b.next
	for _, n := range all {
		if pad := base + int64(n.nid<<slotBits) - b.next; pad > 0 {
			if _, err := b.Write(make([]byte, pad)); err != nil {
				return nil, err
			}
		}
		if _, err := b.Write(n.encode()); err != nil {
			return nil, err
		}
	}
	end, err := b.align()
	if err != nil {
		return nil, err
	}
	super := make([]byte, superBytes)
	le := binary.LittleEndian
	le.PutUint32(super[0:], magic)
	super[12] = blockBits
	le.PutUint16(super[14:], rootSlot)
	le.PutUint64(super[16:], uint64(len(all)))
	le.PutUint32(super[36:], end)
	le.PutUint32(super[40:], meta)
	return super, nil
}

// encode is an inode with what stands behind it.
func (n *inode) encode() []byte {
	p := make([]byte, inodeBytes, inodeBytes+len(n.data))
	le := binary.LittleEndian
	le.PutUint16(p[0:], layoutPlain)
	if !n.plain {
		le.PutUint16(p[0:], layoutInline)
	}
	le.PutUint16(p[4:], uint16(n.mode))
	le.PutUint64(p[8:], uint64(n.size))
	le.PutUint32(p[16:], n.block)
	le.PutUint32(p[20:], uint32(n.nid))
	le.PutUint32(p[24:], n.uid)
	le.PutUint32(p[28:], n.gid)
	le.PutUint64(p[32:], uint64(n.mtime))
	le.PutUint32(p[44:], n.links)
	if !n.plain {
		p = append(p, n.data...)
	}
	return p
}

func sortedNames(children map[string]*inode) []string { return slices.Sorted(maps.Keys(children)) }

// entries are the names of a folder in EROFS's order, "." and ".." among them.
func (n *inode) entries() []string {
	names := append(sortedNames(n.children), ".", "..")
	slices.SortFunc(names, strings.Compare)
	return names
}

// inBlocks cuts a folder's entries so that each part fits a block.
func inBlocks(names []string) (parts [][]string, last int) {
	begin, used := 0, 0
	for i, name := range names {
		if need := direntSize + len(name); used+need > blockSize {
			parts, begin, used = append(parts, names[begin:i]), i, need
		} else {
			used += need
		}
	}
	return append(parts, names[begin:]), used
}

func dirBytes(n *inode) int {
	parts, last := inBlocks(n.entries())
	return (len(parts)-1)*blockSize + last
}

func dirData(n *inode) []byte {
	parts, _ := inBlocks(n.entries())
	var out []byte
	le := binary.LittleEndian
	for i, names := range parts {
		block := make([]byte, len(names)*direntSize)
		for j, name := range names {
			c := n.children[name]
			switch name {
			case ".":
				c = n
			case "..":
				if c = n.parent; c == nil {
					c = n
				}
			}
			d := block[j*direntSize:]
			le.PutUint64(d, c.nid)
			le.PutUint16(d[8:], uint16(len(block)))
			d[10] = c.fileType()
			block = append(block, name...)
		}
		if i < len(parts)-1 {
			block = append(block, zeros[len(block):]...)
		}
		out = append(out, block...)
	}
	return out
}

// Program gives an image that holds one program, in whose place a sandbox waits, and the folders that are mounted on.
func Program(name string, content []byte, dirs ...string) ([]byte, error) {
	var out bytes.Buffer
	b := newBlocks(&out)
	root := newDir(nil, 0)
	root.children[name] = &inode{mode: modeFile | 0o555, size: int64(len(content)), block: 1}
	for _, d := range dirs {
		root.children[d] = newDir(root, 0)
	}
	if _, err := b.Write(content); err != nil {
		return nil, err
	}
	super, err := b.finish(root)
	if err != nil {
		return nil, err
	}
	image := make([]byte, blockSize, blockSize+out.Len())
	copy(image[superAt:], super)
	return append(image, out.Bytes()...), nil
}
