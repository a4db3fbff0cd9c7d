package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
)

const diskCategory = vfs.WriteCategoryUnspecified

// corrupt says that stored bytes failed authentication.
func corrupt(object string, err error) error {
	return &redoubt.Error{Op: "store", Object: object, Kind: redoubt.Corrupt, Err: err,
		Hint: "keep the disk as it is, and restore this store from a backup or from a neighbour"}
}

// diskError classifies an error of the operating system.
func diskError(op string, err error) error {
	var known *redoubt.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable(op, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &redoubt.Error{Op: op, Kind: redoubt.DiskFull, Err: err}
	}
	return &redoubt.Error{Op: op, Kind: redoubt.Internal, Err: err}
}

func unavailable(op string, err error) error {
	return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: err}
}

func invalid(format string, args ...any) error {
	return &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: fmt.Errorf(format, args...)}
}

// syncDir makes the names in dir durable.
func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readWhole reads a file of at most limit bytes.
func readWhole(fsys vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(io.Reader(f), limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("file of more than %d bytes", limit)
	}
	return b, err
}

// replaceFile makes content the content of dir/name, in one step and durably.
func replaceFile(fsys vfs.FS, dir, temp, name string, content []byte) error {
	f, err := fsys.Create(fsys.PathJoin(dir, temp), diskCategory)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(fsys.PathJoin(dir, temp), fsys.PathJoin(dir, name)); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

// readFull reads b at off; bytes beyond the end of the file read as zero.
func readZeroed(f vfs.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if err == io.EOF {
		clear(b[n:])
		return nil
	}
	return err
}

// truncate cuts a file where its file system can.
func truncate(f vfs.File, size int64) error {
	if t, ok := f.(interface{ Truncate(int64) error }); ok {
		return t.Truncate(size)
	}
	return nil
}
