package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/erofs"

	"redoubt"
)

// copied counts what is copied for a program, which stays in memory while it runs.
type copied struct {
	bytes, most int64
	inputs      int // files and folders
}

// add counts a file, in whole pages, before it is copied.
func (c *copied) add(bytes int64) error {
	page := int64(os.Getpagesize())
	if bytes < 0 || bytes > c.most-c.bytes {
		return c.tooMuch()
	}
	if c.bytes += (bytes + page - 1) / page * page; c.bytes > c.most {
		return c.tooMuch()
	}
	return nil
}

func (c *copied) tooMuch() error {
	return faultf("its image and inputs are more than %d MiB, which is its memory and disk: runc copies all of them, so name fewer with --in, or ask for more with --memory or --disk", c.most>>20)
}

// copyImage makes folders and files of an image. They are as its layers say, but for what only the machine's root may make.
func copyImage(image *os.File, to string, count *copied) error {
	im, err := erofs.OpenImage(image)
	if err != nil {
		return err
	}
	top, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer top.Close()
	c := &imageCopy{im: im, to: top, made: map[uint64]string{}, count: count}
	return c.dir(im.RootNid(), ".")
}

type imageCopy struct {
	im   *erofs.Image
	to   *os.Root
	made map[uint64]string // files by their number: one may have several names

	count *copied
}

func (c *imageCopy) dir(nid uint64, at string) error {
	i, err := c.im.Inode(nid)
	if err != nil {
		return err
	}
	err = i.IterDirents(func(name string, _ uint8, nid uint64) error {
		if name == "." || name == ".." {
			return nil
		}
		return c.one(nid, path.Join(at, name))
	})
	if err != nil {
		return err
	}
	return c.owned(i, at)
}

// owned gives a file its owner and its mode, once it is whole.
func (c *imageCopy) owned(i erofs.Inode, at string) error {
	if err := c.to.Lchown(at, int(i.UID()), int(i.GID())); err != nil && !errors.Is(err, unix.EINVAL) { // one user alone: all is that one's
		return err
	}
	if i.IsSymlink() {
		return nil
	}
	mode := fs.FileMode(i.Mode() & 0o777)
	if i.Mode()&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return c.to.Chmod(at, mode)
}

func (c *imageCopy) one(nid uint64, at string) error {
	i, err := c.im.Inode(nid)
	if err != nil {
		return err
	}
	switch {
	case i.IsDir():
		if err := c.to.Mkdir(at, 0o700); err != nil {
			return err
		}
		return c.dir(nid, at)
	case i.IsSymlink():
		to, err := i.Readlink()
		if err == nil {
			err = c.to.Symlink(to, at)
		}
		return errors.Join(err, c.owned(i, at))
	case !i.IsRegular():
		return nil
	}
	if first, ok := c.made[nid]; ok {
		return c.to.Link(first, at)
	}
	if err := c.count.add(int64(i.Size())); err != nil {
		return err
	}
	f, err := c.to.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ranges, err := i.DataRanges()
	for _, r := range ranges {
		if err == nil {
			_, err = f.Write(r.Bytes)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if i.Nlink() > 1 {
		c.made[nid] = at
	}
	return c.owned(i, at)
}

// Limits of /in, which is copied.
const (
	maxCopied = 100_000 // files and folders, in all
	maxNested = 200
)

// copyAll reads all that lies below a folder of /in. The job rises by it.
func (in *inFS) copyAll(from, to string, depth int, c *copied) error {
	if depth > maxNested {
		return faultf("its inputs lie in folders more than %d deep", maxNested)
	}
	b, errno := in.ask(askList, []byte(from))
	if errno != 0 {
		return faultf("its input %.200q cannot be listed: %v", from, errno)
	}
	var all []fileInfo
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	if c.inputs += len(all); c.inputs > maxCopied {
		return faultf("its inputs are more than %d files: name fewer with --in", maxCopied)
	}
	for _, f := range all {
		name, at := path.Join(from, f.Name), filepath.Join(to, f.Name)
		if f.Dir {
			if err := os.Mkdir(at, 0o755); err != nil {
				return err
			}
			if err := in.copyAll(name, at, depth+1, c); err != nil {
				return err
			}
			if err := os.Chmod(at, 0o555); err != nil {
				return err
			}
			continue
		}
		if err := in.copyFile(name, at, c); err != nil {
			return err
		}
	}
	return nil
}

func (in *inFS) copyFile(name, at string, c *copied) error {
	b, errno := in.ask(askOpen, []byte(name))
	if errno != 0 {
		return faultf("its input %.200q cannot be read: %v", name, errno)
	}
	var r openReply
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	o := &inOpen{f: &inFile{fs: in, path: name}, handle: r.Handle, size: r.File.Bytes}
	defer o.Close()
	if err := c.add(o.size); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	piece := make([]byte, min(pieceBytes, o.size))
	for off := int64(0); off < o.size && err == nil; {
		var n uint64
		if n, err = o.Read(piece[:min(int64(len(piece)), o.size-off)], uint64(off)); err == nil {
			_, err = f.Write(piece[:n])
			off += int64(n)
		}
	}
	when := time.Unix(0, r.File.MTime)
	return errors.Join(err, f.Close(), os.Chtimes(at, when, when))
}

// giveFolder tells the node of what lies in a folder that nobody writes to any more, and sends each regular file.
func (k *keeper) giveFolder(at string) error {
	top, err := os.OpenRoot(at)
	if err != nil {
		return err
	}
	defer top.Close()
	n := 0
	return fs.WalkDir(top.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		left := func(why string) error {
			return k.wire.send(tellLeft, 0, fmt.Appendf(nil, "/out/%s is %s, and was left", shown(name), why))
		}
		switch {
		case err != nil || d.IsDir():
			return err
		case d.Type()&fs.ModeSymlink != 0:
			return left("a symbolic link")
		case !d.Type().IsRegular():
			return left("a device, a fifo or a socket")
		case !utf8.ValidString(name):
			return left("not named in UTF-8")
		}
		if n++; n > redoubt.MaxJobOutputs+1 {
			return fs.SkipAll // one more than there may be, which is how the node knows
		}
		f, err := top.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return k.giveFile(name, f)
	})
}

// giveFile sends one output.
func (k *keeper) giveFile(name string, f *os.File) error {
	i, err := f.Stat()
	if err != nil {
		return err
	}
	if err := k.wire.sendJSON(tellPut, 0, putHeader{Path: name, Bytes: i.Size()}); err != nil {
		return err
	}
	piece := make([]byte, min(pieceBytes, i.Size()))
	for left := i.Size(); left > 0; {
		n, err := f.Read(piece[:min(left, int64(len(piece)))])
		if n == 0 {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		if err := k.wire.send(tellData, 0, piece[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
