package guard

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// spool is a folder of bundles, in the order of their numbers. A file is named NUMBERING-SERIAL.rbundle and is whole; a record beside them
// survives a crash.
type spool struct {
	dir string

	mu   *sync.Mutex
	seen map[string]spooled // by file name; what a file says of itself does not change
}

const (
	bundleExt   = ".rbundle"
	partExt     = ".part"
	maxRecord   = 1 << 20
	writeBytes  = 1 << 20 // bytes that are written together
	refeedName  = "refeed.json"
	refusedName = "refused"
)

// spooled is one bundle of the folder.
type spooled struct {
	path  string
	bytes int64
	at    time.Time
	mark  redoubt.BundleMark
}

// openSpoolAsIs is openSpool of one that another process has.
func openSpoolAsIs(dir string) (spool, error) {
	_, err := os.Stat(dir)
	return spool{dir: dir, mu: new(sync.Mutex), seen: map[string]spooled{}}, diskFault(dir, err)
}

func openSpool(dir string) (spool, error) {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var parts []string
		parts, err = filepath.Glob(filepath.Join(dir, "*"+partExt))
		for _, p := range parts { // a crash in the middle
			err = errors.Join(err, os.Remove(p))
		}
	}
	return spool{dir: dir, mu: new(sync.Mutex), seen: map[string]spooled{}}, diskFault(dir, err)
}

func diskFault(dir string, err error) error {
	if err == nil {
		return nil
	}
	return &redoubt.Error{Op: "guard.spool", Object: dir, Kind: redoubt.Unavailable, Err: err}
}

// fileName is a bundle's name in the folder: in one numbering the names are in the order of the numbers.
func fileName(m redoubt.BundleMark) string {
	return fmt.Sprintf("%s-%020d%s", hex.EncodeToString(m.Numbering[:]), m.Serial, bundleExt)
}

// take keeps a bundle as write gives it: whole and durable, or not at all.
func (s spool) take(write func(w io.Writer) (redoubt.BundleMark, error)) (m redoubt.BundleMark, err error) {
	f, err := os.CreateTemp(s.dir, "*"+partExt)
	if err != nil {
		return m, diskFault(s.dir, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, writeBytes)
	if m, err = write(struct{ io.Writer }{w}); err != nil { // without ReadFrom, which would go past the buffer
		return m, err
	}
	if err = w.Flush(); err != nil {
		return m, diskFault(s.dir, err)
	}
	if err = errors.Join(f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, fileName(m)))
	}
	if err == nil {
		err = s.sync()
	}
	return m, diskFault(s.dir, err)
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
	began := map[[16]byte]time.Time{}
	for _, b := range out {
		if t, ok := began[b.mark.Numbering]; !ok || b.mark.Created.Before(t) {
			began[b.mark.Numbering] = b.mark.Created
		}
	}
	slices.SortFunc(out, func(a, b spooled) int {
		return cmp.Or(began[a.mark.Numbering].Compare(began[b.mark.Numbering]), strings.Compare(string(a.mark.Numbering[:]), string(b.mark.Numbering[:])), cmp.Compare(a.mark.Serial, b.mark.Serial))
	})
	return out, nil
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
	return spooled{path: path, bytes: st.Size(), at: st.ModTime(), mark: redoubt.BundleMark{Numbering: to.Numbering, Serial: to.Serial, ID: sheet.ID, Created: sheet.Created}}, nil
}

// record reads the record beside the bundles; none is the zero one, and so is what a power cut left empty of a hint.
func (s spool) record(name string, into any) error {
	f, err := os.Open(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return diskFault(s.dir, err)
	}
	defer f.Close()
	d := json.NewDecoder(io.LimitReader(f, maxRecord))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && err != io.EOF {
		return &redoubt.Error{Op: "guard.spool", Object: filepath.Join(s.dir, name), Kind: redoubt.Corrupt, Err: err}
	}
	return nil
}

// hinted reads a hint. One that a power cut damaged is none, and is removed: losing it costs something repeated.
func hinted[T any](s spool, name string, into *T, log *slog.Logger) error {
	err := s.record(name, into)
	if redoubt.KindOf(err) == redoubt.Corrupt {
		log.Warn("a note of what was done does not read, and is done without", slog.String("file", name))
		*into = *new(T)
		return diskFault(s.dir, os.Remove(filepath.Join(s.dir, name)))
	}
	return err
}

// keep writes a record, durable on return.
func (s spool) keep(name string, record any) error {
	err := s.write(name, record, (*os.File).Sync)
	if err == nil {
		err = s.sync()
	}
	return diskFault(s.dir, err)
}

// hint writes a record that outlives this process, and costs something repeated where a power cut takes it back.
func (s spool) hint(name string, record any) error {
	return diskFault(s.dir, s.write(name, record, func(*os.File) error { return nil }))
}

func (s spool) write(name string, record any, sync func(*os.File) error) error {
	raw, err := json.Marshal(record)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, name)
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
