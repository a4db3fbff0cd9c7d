package node

import (
	"io/fs"
	"path/filepath"
	"syscall"
)

// holdOf is how many bytes of disk bundles on their way may take at the high half where the estate does not say: a quarter of what its file system has for
// them, which is what is free there and what its folder takes. Twice as much may wait whole. Each half reckons by itself: where several have one disk, the
// estate says what each may have.
func holdOf(dir string) int64 {
	var fsys syscall.Statfs_t
	if err := syscall.Statfs(dir, &fsys); err != nil {
		return leastHold
	}
	return quarter(int64(fsys.Bavail)*fsys.Bsize, dir)
}

// quarter is of what is free and what a folder takes.
func quarter(free int64, dir string) int64 {
	room := free
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error { // what goes meanwhile is free soon
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				room += st.Blocks * 512 // what came: one that is on its way is as long from the beginning as it will be
			}
		}
		return nil
	})
	return max(room/4, leastHold)
}
