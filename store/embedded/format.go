package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
)

// The state lives in a generation, a sub-directory; the file "format" names the one
// in use and its format:
//
//	redoubt store
//	format 1
//	oldest-reader 1
//	generation 1
//	previous 0 0
//	sum <hex SHA-256 of the lines above>
//
// previous is the generation and format that the last upgrade left behind, 0 for none.
const (
	formatNow    = 1
	formatOldest = 1 // the oldest format whose readers read what we write
	formatName   = "format"
	formatTemp   = "format.new"
	lockName     = "lock"
	maxFormat    = 4096
)

type manifest struct {
	format, oldestReader                 int
	generation, previous, previousFormat int
}

// step brings a closed state of one format to the next: it reads the generation in from and
// writes a complete one to to, durably, and leaves from as it is.
type step func(fs vfs.FS, from, to string, key []byte) error

// formatSteps lead from the format that is their key to the next.
var formatSteps = map[int]step{}

func (m manifest) encode() []byte {
	body := fmt.Sprintf("redoubt store\nformat %d\noldest-reader %d\ngeneration %d\nprevious %d %d\n",
		m.format, m.oldestReader, m.generation, m.previous, m.previousFormat)
	sum := sha256.Sum256([]byte(body))
	return []byte(body + "sum " + hex.EncodeToString(sum[:]) + "\n")
}

func decodeManifest(b []byte) (m manifest, err error) {
	bad := corrupt("format file", errors.New("the format file is damaged"))
	lines := strings.SplitAfter(string(b), "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], "redoubt store\n") {
		return m, bad
	}
	at := len(lines) - 2
	sum := sha256.Sum256([]byte(strings.Join(lines[:at], "")))
	if lines[at] != "sum "+hex.EncodeToString(sum[:])+"\n" || lines[at+1] != "" {
		return m, bad
	}
	if n, _ := fmt.Sscanf(strings.Join(lines[1:3], ""), "format %d\noldest-reader %d\n", &m.format, &m.oldestReader); n != 2 {
		return m, bad
	}
	if m.oldestReader > formatNow {
		return m, nil // the rest may mean anything
	}
	n, _ := fmt.Sscanf(strings.Join(lines[3:at], ""), "generation %d\nprevious %d %d\n", &m.generation, &m.previous, &m.previousFormat)
	if n != 3 || string(m.encode()) != string(b) {
		return m, bad
	}
	return m, nil
}

func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, diskError("store.Open", err)
	}
	if err := syncDir(fsys, fsys.PathDir(dir)); err != nil {
		return nil, diskError("store.Open", err)
	}
	lock, err := fsys.Lock(fsys.PathJoin(dir, lockName))
	if err != nil {
		return nil, &redoubt.Error{Op: "store.Open", Kind: redoubt.Unavailable, Err: err,
			Hint: "another process has this store open: stop it, or wait until it has ended"}
	}
	return lock, nil
}

// prepareFormat returns the directory of the generation to open, after any upgrade.
func prepareFormat(fsys vfs.FS, dir string, key []byte, steps map[int]step) (string, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return "", err
	}
	if !slices.Contains(names, formatName) {
		return newStore(fsys, dir, names)
	}
	m, err := readManifest(fsys, dir)
	if err != nil {
		return "", err
	}
	if m.oldestReader > formatNow {
		return "", &redoubt.Error{Op: "store.Open", Kind: redoubt.Invalid,
			Err:  fmt.Errorf("store has format %d, this program reads up to %d", m.format, formatNow),
			Hint: "use a newer redoubt, or go back with the newer one's `redoubt store rollback`"}
	}
	if err := removeStrays(fsys, dir, names, m); err != nil {
		return "", err
	}
	for m.format < formatNow {
		if m, err = upgrade(fsys, dir, key, m, steps); err != nil {
			return "", err
		}
	}
	return generationDir(fsys, dir, m.generation), nil
}

func generationDir(fsys vfs.FS, dir string, n int) string {
	return fsys.PathJoin(dir, strconv.Itoa(n))
}

func newStore(fsys vfs.FS, dir string, names []string) (string, error) {
	m := manifest{format: formatNow, oldestReader: formatOldest, generation: 1}
	gen := generationDir(fsys, dir, 1)
	if slices.Contains(names, "1") {
		inside, err := fsys.List(gen)
		if err != nil {
			return "", err
		}
		if len(inside) > 0 {
			return "", corrupt("format file", errors.New("the format file is missing beside a store"))
		}
	}
	if err := fsys.MkdirAll(gen, 0o700); err != nil {
		return "", err
	}
	if err := syncDir(fsys, dir); err != nil {
		return "", err
	}
	return gen, replaceFile(fsys, dir, formatTemp, formatName, m.encode())
}

func readManifest(fsys vfs.FS, dir string) (manifest, error) {
	b, err := readWhole(fsys, fsys.PathJoin(dir, formatName), maxFormat)
	if err != nil {
		return manifest{}, err
	}
	return decodeManifest(b)
}

// removeStrays removes generations that no one may return to: an upgrade that did not
// complete, or one that was rolled back.
func removeStrays(fsys vfs.FS, dir string, names []string, m manifest) error {
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil || n == m.generation || n == m.previous {
			continue
		}
		if err := fsys.RemoveAll(fsys.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// upgrade takes one step into a new generation. Until the format file names it, the old state counts.
func upgrade(fsys vfs.FS, dir string, key []byte, m manifest, steps map[int]step) (manifest, error) {
	run := steps[m.format]
	if run == nil {
		return m, &redoubt.Error{Op: "store.Open", Kind: redoubt.Invalid, Err: fmt.Errorf("no way from format %d to %d", m.format, formatNow),
			Hint: "upgrade with an older redoubt first, which knows this format"}
	}
	next := manifest{format: m.format + 1, oldestReader: m.format + 1, generation: max(m.generation, m.previous) + 1,
		previous: m.generation, previousFormat: m.format}
	from, to := generationDir(fsys, dir, m.generation), generationDir(fsys, dir, next.generation)
	if err := fsys.MkdirAll(to, 0o700); err != nil {
		return m, err
	}
	if err := run(fsys, from, to, key); err != nil {
		return m, fmt.Errorf("upgrade from format %d: %w", m.format, err)
	}
	if err := syncDir(fsys, to); err != nil {
		return m, err
	}
	if err := syncDir(fsys, dir); err != nil {
		return m, err
	}
	return next, replaceFile(fsys, dir, formatTemp, formatName, next.encode())
}

// Rollback returns the closed store in dir to the state before its last upgrade. Whatever was written
// since is lost. Without one to return to, it is redoubt.NotFound. nil fs is the operating system's.
func Rollback(dir string, fsys vfs.FS) error {
	if fsys == nil {
		fsys = vfs.Default
	}
	lock, err := lockDir(fsys, dir)
	if err != nil {
		return err
	}
	m, err := readManifest(fsys, dir)
	switch {
	case err != nil:
	case m.previous == 0:
		err = &redoubt.Error{Op: "store.Rollback", Kind: redoubt.NotFound, Err: errors.New("no earlier state is kept")}
	default:
		old := manifest{format: m.previousFormat, oldestReader: m.previousFormat, generation: m.previous}
		err = replaceFile(fsys, dir, formatTemp, formatName, old.encode())
	}
	return errors.Join(diskError("store.Rollback", err), lock.Close())
}
