package guard

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// spool is a folder of whole bundles, in the order of their numbers.
type spool struct {
	dir string

	mu   *sync.Mutex
	seen map[string]spooled // by file name; what a file says of itself does not change
}

const (
	bundleExt   = ".rbundle"
	partExt     = ".part"
	maxRecord   = 1 << 20
	refeedName  = "refeed"
	refeedExt   = ".json"
	refusedName = "refused"
)

// spooled is one bundle of the folder.
type spooled struct {
	path  string
	bytes int64
	seen  time.Time // first by this process
	mark  redoubt.BundleMark
}

// openSpoolAsIs is openSpool of one that another process has.
func openSpoolAsIs(dir string) (spool, error) {
	_, err := os.Stat(dir)
	return spool{dir: dir, mu: new(sync.Mutex), seen: map[string]spooled{}}, diskFault(dir, err)
}

func openSpool(dir string) (spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return spool{}, diskFault(dir, err)
	}
	return openSpoolAsIs(dir)
}

func diskFault(dir string, err error) error {
	if err == nil {
		return nil
	}
	return &redoubt.Error{Op: "guard.spool", Object: dir, Kind: redoubt.Unavailable, Err: err}
}

func (s spool) sync() error { return syncPath(s.dir) }

// syncPath makes a file's content durable, or a folder's names. A test looks at what is asked for.
var syncPath = func(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// all are the bundles of the folder for a node: numberings by age, each by number. What is no bundle for it is passed over.
func (s spool) all(node redoubt.NodeName) (out []spooled, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, diskFault(s.dir, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	there := make(map[string]spooled, len(entries))
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), bundleExt) || !e.Type().IsRegular() {
			continue
		}
		one, known := s.seen[e.Name()]
		if !known {
			if one, err = inspect(filepath.Join(s.dir, e.Name()), node); err != nil {
				continue // gone meanwhile, or none
			}
		}
		there[e.Name()] = one
		out = append(out, one)
	}
	clear(s.seen)
	maps.Copy(s.seen, there)
	slices.SortFunc(out, begins(out).compare)
	return out, nil
}

// keep has a file that was read not be read again.
func (s spool) keep(b spooled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[filepath.Base(b.path)] = b
}

// forget has a file read anew when one of its name comes again.
func (s spool) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, filepath.Base(path))
}

// inspect reads what a bundle says of itself: a claim until the node has verified it.
func inspect(path string, node redoubt.NodeName) (b spooled, err error) {
	f, err := os.Open(path)
	if err != nil {
		return b, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return b, err
	}
	sheet, err := bundle.Inspect(f, st.Size())
	if err != nil {
		return b, err
	}
	to, ok := sheet.For(node)
	if !ok {
		return b, &redoubt.Error{Op: "guard.spool", Object: path, Kind: redoubt.Denied, Rule: bundle.RuleRecipient}
	}
	return spooled{path: path, bytes: st.Size(), seen: time.Now(), mark: redoubt.BundleMark{Numbering: to.Numbering, Serial: to.Serial, ID: sheet.ID, Created: sheet.Created}}, nil
}

// record reads a record of a folder; none is the zero one, and so is what a power cut left empty of a hint.
func record(dir, name string, into any) error {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return diskFault(dir, err)
	}
	defer f.Close()
	d := json.NewDecoder(io.LimitReader(f, maxRecord))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && err != io.EOF {
		return &redoubt.Error{Op: "guard.spool", Object: filepath.Join(dir, name), Kind: redoubt.Corrupt, Err: err}
	}
	return nil
}

// hinted reads a hint. One that a power cut damaged is none, and is removed: losing it costs something repeated.
func hinted[T any](dir, name string, into *T, log *slog.Logger) error {
	err := record(dir, name, into)
	if redoubt.KindOf(err) == redoubt.Corrupt {
		log.Warn("a note of what was done does not read, and is done without", slog.String("file", name))
		*into = *new(T)
		return diskFault(dir, os.Remove(filepath.Join(dir, name)))
	}
	return err
}

// keepRecord writes a record, durable on return.
func keepRecord(dir, name string, record any) error {
	err := writeRecord(dir, name, record, (*os.File).Sync)
	if err == nil {
		err = syncPath(dir)
	}
	return diskFault(dir, err)
}

// hint writes a record that outlives this process, and costs something repeated where a power cut takes it back.
func hint(dir, name string, record any) error {
	return diskFault(dir, writeRecord(dir, name, record, func(*os.File) error { return nil }))
}

func writeRecord(dir, name string, record any, sync func(*os.File) error) error {
	raw, err := json.Marshal(record)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, sync(f), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	return err
}
