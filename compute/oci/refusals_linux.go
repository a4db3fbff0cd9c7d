package oci

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// refusals answers every request about a file that its file system does not know: nothing of the machine stands behind any of them.
type refusals struct{}

func (refusals) SetStat(s lisafs.SetStatReq) (uint32, error) { return s.Mask, unix.EROFS }
func (refusals) OpenCreate(linux.FileMode, lisafs.UID, lisafs.GID, string, uint32) (*lisafs.ControlFD, lisafs.Statx, *lisafs.OpenFD, int, error) {
	return nil, lisafs.Statx{}, nil, -1, unix.EROFS
}
func (refusals) Mkdir(linux.FileMode, lisafs.UID, lisafs.GID, string) (*lisafs.ControlFD, lisafs.Statx, error) {
	return nil, lisafs.Statx{}, unix.EROFS
}
func (refusals) Mknod(linux.FileMode, lisafs.UID, lisafs.GID, string, uint32, uint32) (*lisafs.ControlFD, lisafs.Statx, error) {
	return nil, lisafs.Statx{}, unix.EPERM
}
func (refusals) Symlink(string, string, lisafs.UID, lisafs.GID) (*lisafs.ControlFD, lisafs.Statx, error) {
	return nil, lisafs.Statx{}, unix.EROFS
}
func (refusals) Link(lisafs.ControlFDImpl, string) (*lisafs.ControlFD, lisafs.Statx, error) {
	return nil, lisafs.Statx{}, unix.EROFS
}
func (refusals) Readlink(func(uint32) []byte) (uint16, error) { return 0, unix.EINVAL }
func (refusals) Connect(uint32) (int, error)                  { return -1, unix.ECONNREFUSED }
func (refusals) ConnectWithCreds(uint32, lisafs.UID, lisafs.GID) (int, error) {
	return -1, unix.ECONNREFUSED
}
func (refusals) BindAt(string, uint32, linux.FileMode, lisafs.UID, lisafs.GID) (*lisafs.ControlFD, lisafs.Statx, *lisafs.BoundSocketFD, int, error) {
	return nil, lisafs.Statx{}, nil, -1, unix.EPERM
}
func (refusals) Unlink(string, uint32) error                         { return unix.EROFS }
func (refusals) RenameAt(string, lisafs.ControlFDImpl, string) error { return unix.EROFS }
func (refusals) RenameAt2(string, lisafs.ControlFDImpl, string, uint32) error {
	return unix.EROFS
}
func (refusals) Renamed()                                                     {}
func (refusals) GetXattr(string, uint32, func(uint32) []byte) (uint16, error) { return 0, unix.ENODATA }
func (refusals) SetXattr(string, string, uint32) error                        { return unix.EOPNOTSUPP }
func (refusals) ListXattr(uint64) (lisafs.StringArray, error)                 { return nil, nil }
func (refusals) RemoveXattr(string) error                                     { return unix.ENODATA }

// openRefusals is the same of an open file.
type openRefusals struct{}

func (openRefusals) Write([]byte, uint64) (uint64, error)    { return 0, unix.EROFS }
func (openRefusals) Allocate(mode, off, length uint64) error { return unix.EROFS }
func (openRefusals) Flush() error                            { return nil }
func (openRefusals) Renamed()                                {}
