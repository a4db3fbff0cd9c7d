package sandbox

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// The root folder inside holds names and small files.
const rootBytes = 1 << 20

// null is the one device that may be given.
const null = "/dev/null"

// inside are the paths that are given, as they stand inside.
func inside(s spec) []string {
	all := slices.Clone(s.ReadOnly)
	if s.Worker != "" && !s.Handed {
		all = append(all, workerPath)
	} else if s.Path != "" {
		all = append(all, s.Path)
	}
	all = slices.AppendSeq(all, maps.Keys(s.Files))
	slices.Sort(all)
	return slices.Compact(all)
}

// given is one path of this machine that is bound inside.
type given struct {
	path string
	link string // what it points to; "": it is none
	dir  bool
	tree int // a copy of its mounts, not yet anywhere
}

// build makes a root folder in memory that has what was given and nothing else, and makes it the root.
func build(s spec) error {
	// What we mount is nobody else's.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	size := int64(rootBytes)
	for _, b := range s.Files {
		size += int64(len(b)) + 4096
	}
	all, exe, err := take(s)
	if err != nil {
		return err
	}
	if exe != nil {
		defer exe.Close()
		info, err := exe.Stat()
		if err != nil {
			return err
		}
		size += info.Size() + 4096
	}
	const at = "/tmp"
	if err := unix.Mount("root", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,nr_inodes=4096,mode=0755", size)); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if err := os.Chdir(at); err != nil {
		return err
	}
	for _, g := range all {
		if err := place(g); err != nil {
			return fmt.Errorf("%s: %w", g.path, err)
		}
	}
	if exe != nil {
		if err := write(workerPath, exe, 0o555); err != nil {
			return err
		}
	}
	for name, b := range s.Files {
		if err := writeBytes(name, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := os.MkdirAll("tmp", 0o755); err != nil {
		return err
	}
	if s.Scratch > 0 {
		if err := unix.Mount("scratch", "tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("size=%d,nr_inodes=16384,mode=01777", s.Scratch)); err != nil {
			return fmt.Errorf("scratch: %w", err)
		}
	}
	// Both names of pivot_root may be one: the old root lies over the new one then, and goes with the first unmount.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// take copies the mounts of what is given, before anything of it is covered. exe is our own binary where it cannot be bound: where nobody may
// not execute it, or its path leads to another by now. It is to be copied then.
func take(s spec) (all []given, exe *os.File, err error) {
	paths := slices.Clone(s.ReadOnly)
	if s.Path != "" {
		paths = append(paths, s.Path)
	}
	found := map[string]given{}
	for _, p := range paths {
		if err := resolve(p, found); err != nil && (!os.IsNotExist(err) || p == s.Path) {
			return nil, nil, err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(found)) { // a folder before what is in it
		g := found[p]
		if covered(all, p) {
			continue
		}
		if g.link == "" {
			if g.tree, err = clone(p); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", p, err)
			}
		}
		all = append(all, g)
	}
	if s.Worker == "" || s.Handed {
		return all, nil, nil
	}
	const self = "/proc/self/exe"
	info, err := os.Stat(self)
	if err != nil {
		return nil, nil, err
	}
	path, err := os.Readlink(self)
	if err != nil {
		return nil, nil, err
	}
	there, err := os.Stat(path)
	if err != nil || !os.SameFile(info, there) || s.Nobody && info.Mode().Perm()&0o001 == 0 {
		exe, err = os.Open(self)
		return all, exe, err
	}
	g := given{path: workerPath}
	if g.tree, err = clone(path); err != nil {
		return nil, nil, fmt.Errorf("our own binary: %w", err)
	}
	return append(all, g), nil, nil
}

// resolve finds what p is, and each link on the way to it.
func resolve(p string, found map[string]given) error {
	for range 40 { // as many links as the kernel follows
		link := ""
		for i := 1; i <= len(p) && link == ""; i++ {
			if i < len(p) && p[i] != '/' {
				continue
			}
			at := p[:i]
			info, err := os.Lstat(at)
			if err != nil {
				return err
			}
			switch {
			case info.Mode()&os.ModeSymlink != 0:
				if link, err = os.Readlink(at); err != nil {
					return err
				}
				found[at] = given{path: at, link: link}
				if !filepath.IsAbs(link) {
					link = filepath.Join(filepath.Dir(at), link)
				}
				p = filepath.Join(link, p[i:])
			case i == len(p):
				found[p] = given{path: p, dir: info.IsDir()}
				return nil
			}
		}
	}
	return fmt.Errorf("%s: %w", p, unix.ELOOP)
}

// covered reports whether a folder that is given holds p already.
func covered(all []given, p string) bool {
	return slices.ContainsFunc(all, func(g given) bool {
		rest, err := filepath.Rel(g.path, p)
		return g.dir && err == nil && filepath.IsLocal(rest)
	})
}

// clone copies a tree of mounts. It is recursive since in a user namespace what lies over a folder may not be looked under.
func clone(p string) (int, error) {
	return unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
}

// place puts a given path into the new root, which is the working folder, read-only.
func place(g given) error {
	at := "." + g.path
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if g.link != "" {
		return os.Symlink(g.link, at)
	}
	defer unix.Close(g.tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if g.path == null {
		attr.Attr_set &^= unix.MOUNT_ATTR_NODEV
	}
	if err := unix.MountSetattr(g.tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	var err error
	if g.dir {
		err = os.MkdirAll(at, 0o755)
	} else {
		err = writeBytes(g.path, nil)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(g.tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func writeBytes(name string, b []byte) error {
	at := "." + name
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, b, 0o444)
}

func write(name string, from io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile("."+name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, from); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
