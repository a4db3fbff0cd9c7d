package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"redoubt"
	"redoubt/keys"
)

// wipedFile is the mark of a device whose home ordered its keys destroyed. It is on the disk before they go, and no command of ours
// takes it away: a keyring that is put back beside it is as one that was destroyed. That it is there counts, whatever it holds.
const wipedFile = "wiped"

// markWiped puts the mark, durable on return.
func markWiped(dir string, now time.Time) error {
	return writeFile(filepath.Join(dir, wipedFile), []byte("by order of its home, "+now.UTC().Format(time.RFC3339)+"\n"))
}

// NotWiped is Erased for a device that was wiped by order of its home, and nil for every other node. A mark that cannot be looked for is
// an error of another kind: such a node does not start either.
func (s State) NotWiped(name redoubt.NodeName) error {
	const op = "node.NotWiped"
	switch _, err := os.Lstat(filepath.Join(s.NodeDir(name), wipedFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &redoubt.Error{Op: op, Object: string(name), Err: errors.Unwrap(err)}
	}
	return &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Erased, Err: errors.New("the device was wiped by order of its home"),
		Hint: fmt.Sprintf("to use it again, remove its folder %s and enrol it anew: redoubt device enrol %s", s.NodeDir(name), name)}
}

// endWipe destroys what keyring lies in the folder of a wiped device: one that was put back, or that a crash left between the mark and
// the end. What o does not open stays, and is refused at the next start again.
func endWipe(dir string, o Options, log *slog.Logger) {
	unlock := o.Unlock
	if unlock == nil {
		unlock = keys.KeyFile(filepath.Join(dir, "key"))
	}
	ring, err := keys.Open(filepath.Join(dir, "keyring"), unlock)
	if errors.Is(err, redoubt.NotFound) {
		return
	}
	if err == nil {
		err = errors.Join(ring.Destroy(), ring.Close())
	}
	if err != nil {
		log.Error("the keyring of a wiped device could not be destroyed", slog.String("why", reason(err)))
	}
}

// destroy marks the device as wiped and destroys its keys.
func (d *deviceSide) destroy() error {
	if err := markWiped(d.dir, d.clock()); err != nil { // a disk that takes no file saves no key
		d.log.Error("the wipe could not be marked", slog.String("why", reason(err)))
	}
	return d.ring.Destroy()
}
