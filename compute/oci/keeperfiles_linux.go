package oci

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/unet"

	"redoubt"
)

// takeFiles receives the descriptors of a run: standard output and error, and the root.
func (k *keeper) takeFiles() (stdio []*os.File, root *os.File, err error) {
	fds, err := k.takeDescriptors(3)
	if err != nil {
		return nil, nil, err
	}
	null, err := unix.FcntlInt(k.null.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return []*os.File{os.NewFile(uintptr(null), "stdin"), os.NewFile(uintptr(fds[0]), "stdout"), os.NewFile(uintptr(fds[1]), "stderr")}, os.NewFile(uintptr(fds[2]), "root"), nil
}

// takeDescriptors receives so many.
func (k *keeper) takeDescriptors(n int) ([]int, error) {
	space := make([]byte, unix.CmsgSpace(n*4))
	_, got, _, _, err := k.files.ReadMsgUnix(make([]byte, 1), space)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(space[:got])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("no descriptors"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != n {
		return nil, errors.Join(fmt.Errorf("other than %d descriptors", n), err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

// serveFiles begins to serve a file system, and gives the sandbox's end.
func serveFiles(mount string, fs lisafs.ConnectionImpl, readonly bool) (*os.File, *lisafs.Server, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), mount)
	sock, err := unet.NewSocket(fds[0])
	if err != nil {
		return nil, nil, err
	}
	s := lisafs.NewServer()
	// Files are held here, not walked to, so that what has no name any more may still be used.
	c, err := s.CreateConnection(sock, mount, lisafs.ConnectionOpts{Readonly: readonly, WalkStatSupported: true, SetAttrOnDeleted: true, AllocateOnDeleted: true, OpenOnDeleted: true}, fs)
	if err != nil {
		return nil, nil, err
	}
	s.StartConnection(c)
	return theirs, s, nil
}

// give tells the node of what is under /out, and sends each regular file.
func (k *keeper) give(out *outFS) func(string, *outNode) error {
	n := 0
	return func(name string, f *outNode) error {
		left := func(why string) error {
			return k.wire.send(tellLeft, 0, fmt.Appendf(nil, "/out/%s is %s, and was left", shown(name), why))
		}
		switch f.mode & unix.S_IFMT {
		case unix.S_IFDIR:
			return nil
		case unix.S_IFREG:
		case unix.S_IFLNK:
			return left("a symbolic link")
		default:
			return left("a fifo or a socket")
		}
		if !utf8.ValidString(name) {
			return left("not named in UTF-8")
		}
		if n++; n > redoubt.MaxJobOutputs+1 {
			return nil // one more than there may be, which is how the node knows
		}
		c, err := os.Open(out.content(f))
		if err != nil {
			return err
		}
		defer c.Close()
		return k.giveFile(name, c)
	}
}

// shown is a name for the log.
func shown(name string) string {
	if len(name) > 200 {
		name = name[:200] + "..."
	}
	q := strconv.Quote(name)
	return q[1 : len(q)-1]
}
