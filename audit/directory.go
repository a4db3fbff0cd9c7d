package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// Directory is a log as files in the layout of C2SP tlog-tiles: checkpoint, tile/L/N,
// tile/entries/N, and, beside it, checkpoints/SIZE. An export is one, and Verify reads
// it without an enclave. It may be read by many at once and is written by one.
type Directory struct {
	path  string
	size  uint64 // how many entries there were when it was opened, with those archived before
	first uint64 // of those that are there
}

// OpenDirectory opens the log at path, or an empty one when nothing is there. How many
// entries there are it takes from the files, not from the checkpoint.
func OpenDirectory(path string) (*Directory, error) {
	d := &Directory{path: path}
	var err error
	if d.first, err = d.readFirst(); err != nil {
		return nil, dirError("audit.OpenDirectory", path, err)
	}
	if d.size, err = d.countEntries(); err != nil {
		return nil, dirError("audit.OpenDirectory", path, err)
	}
	return d, nil
}

func (d *Directory) file(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// tileName is C2SP's path of t: x/mod's without the height.
func tileName(t tlog.Tile) string { return "tile/" + strings.TrimPrefix(t.Path(), "tile/8/") }

// bundleName is C2SP's path of the entry bundle n of width w.
func bundleName(n uint64, w int) string {
	path := tlog.Tile{H: tileHeight, L: 0, N: int64(n), W: w}.Path()
	return "tile/entries/" + strings.TrimPrefix(path, "tile/8/0/")
}

// countEntries finds the widest bundle by doubling and halving.
func (d *Directory) countEntries() (uint64, error) {
	full := func(n uint64) (bool, error) { return fileExists(d.file(bundleName(n, tileWidth))) }
	begin := d.first >> tileHeight
	lo, hi := begin, begin // bundles from begin to lo-1 are there, bundle hi is not
	for step := uint64(1); ; step *= 2 {
		hi = begin + step
		ok, err := full(hi - 1)
		if err != nil || hi > MaxEntries>>tileHeight {
			return 0, err
		}
		if !ok {
			hi--
			break
		}
		lo = hi
	}
	for lo < hi {
		mid := lo + (hi-lo)/2
		ok, err := full(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	w, err := d.widest(filepath.Dir(d.file(bundleName(lo, 1))))
	return lo<<tileHeight + uint64(w), err
}

// firstName is the file that says from which entry on an export goes; without it, it goes from the first.
const firstName = "first"

func (d *Directory) readFirst() (uint64, error) {
	text, err := os.ReadFile(d.file(firstName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	first, err := strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 64)
	if err != nil || fmt.Sprintf("%d\n", first) != string(text) || first%tileWidth != 0 || first > MaxEntries {
		return 0, &redoubt.Error{Op: "audit.OpenDirectory", Kind: redoubt.Corrupt, Err: errors.New("the file first names no tile's first entry")}
	}
	return first, nil
}

// widest is the greatest width among the partial files in dir; 0 when there is none.
func (d *Directory) widest(dir string) (int, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	widest := 0
	for _, f := range files {
		if w, err := strconv.Atoi(f.Name()); err == nil && w > widest && w < tileWidth {
			widest = w
		}
	}
	return widest, err
}

// Len is as Entries says.
func (d *Directory) Len() uint64 { return d.size }

// First is as Entries says.
func (d *Directory) First() uint64 { return d.first }

// Read is as Entries says.
func (d *Directory) Read(ctx context.Context, from, to uint64, each func(uint64, []byte) error) error {
	for n := from; n < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		bundle, err := d.bundle(n >> tileHeight)
		if err != nil {
			return err
		}
		for ; n < to; n++ {
			i := int(n % tileWidth)
			if i >= len(bundle) {
				return &redoubt.Error{Op: "audit.Read", Kind: redoubt.NotFound}
			}
			if err := each(n, bundle[i]); err != nil {
				return err
			}
			if i == tileWidth-1 {
				n++
				break
			}
		}
	}
	return nil
}

// bundle reads an entry bundle: each entry behind its 16-bit length.
func (d *Directory) bundle(n uint64) ([][]byte, error) {
	data, err := os.ReadFile(d.file(bundleName(n, tileWidth)))
	if errors.Is(err, fs.ErrNotExist) {
		var w int
		if w, err = d.widest(filepath.Dir(d.file(bundleName(n, 1)))); err == nil {
			if w == 0 {
				return nil, &redoubt.Error{Op: "audit.Read", Kind: redoubt.NotFound}
			}
			data, err = os.ReadFile(d.file(bundleName(n, w)))
		}
	}
	if err != nil {
		return nil, dirError("audit.Read", d.path, err)
	}
	var out [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) || len(out) == tileWidth {
			return nil, &redoubt.Error{Op: "audit.Read", Kind: redoubt.Corrupt, Err: fmt.Errorf("entry bundle %d", n)}
		}
		size := int(binary.BigEndian.Uint16(data))
		out = append(out, data[2:2+size])
		data = data[2+size:]
	}
	return out, nil
}

// Tile is as Tiles says.
func (d *Directory) Tile(t tlog.Tile) ([]byte, error) {
	wide := t
	wide.W = tileWidth
	data, err := os.ReadFile(d.file(tileName(wide)))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = os.ReadFile(d.file(tileName(t)))
	}
	if err != nil {
		return nil, dirError("audit.Tile", t.Path(), err)
	}
	return data, nil
}

// Save is as Tiles says: every file is written aside, synced and renamed, and the
// checkpoint comes last.
func (d *Directory) Save(_ context.Context, tiles []TileData, size uint64, checkpoint []byte) error {
	for _, t := range tiles {
		if err := writeFile(d.file(tileName(t.Tile)), t.Data); err != nil {
			return dirError("audit.Save", d.path, err)
		}
	}
	if err := writeFile(d.file(fmt.Sprintf("checkpoints/%020d", size)), checkpoint); err != nil {
		return dirError("audit.Save", d.path, err)
	}
	if err := writeFile(d.file("checkpoint"), checkpoint); err != nil {
		return dirError("audit.Save", d.path, err)
	}
	return nil
}

// Latest is as Tiles says.
func (d *Directory) Latest() ([]byte, error) {
	data, err := os.ReadFile(d.file("checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noCheckpoint()
	}
	if err != nil {
		return nil, dirError("audit.Latest", d.path, err)
	}
	return data, nil
}

// Checkpoints is as Tiles says.
func (d *Directory) Checkpoints(from uint64, limit int) ([][]byte, error) {
	files, err := os.ReadDir(d.file("checkpoints"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, dirError("audit.Checkpoints", d.path, err)
	}
	var out [][]byte
	for _, f := range files { // in order of name, so of size
		if size, err := strconv.ParseUint(f.Name(), 10, 64); err != nil || size < from {
			continue
		}
		if len(out) == limit {
			break
		}
		data, err := os.ReadFile(d.file("checkpoints/" + f.Name()))
		if err != nil {
			return nil, dirError("audit.Checkpoints", d.path, err)
		}
		out = append(out, data)
	}
	return out, nil
}

// ExportTo copies the log, from its oldest entry as far as its newest checkpoint covers it, into the empty
// directory path: what an archive or an inspector gets. Verify reads it back.
func (l *Log) ExportTo(ctx context.Context, path string) error {
	const op = "audit.ExportTo"
	if there, err := fileExists(filepath.Join(path, "checkpoint")); err != nil || there {
		return dirError(op, path, errors.Join(err, fs.ErrExist))
	}
	d, c := &Directory{path: path}, l.Checkpoint()
	first := l.entries.First()
	if first > 0 {
		if err := writeFile(d.file(firstName), fmt.Appendf(nil, "%d\n", first)); err != nil {
			return dirError(op, path, err)
		}
	}
	var bundle []byte
	err := l.entries.Read(ctx, first, c.Size, func(n uint64, entry []byte) error {
		bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
		if n%tileWidth != tileWidth-1 && n != c.Size-1 {
			return nil
		}
		err := writeFile(d.file(bundleName(n/tileWidth, int(n%tileWidth)+1)), bundle)
		bundle = bundle[:0]
		return err
	})
	if err != nil {
		return dirError(op, path, err)
	}
	for _, t := range tlog.NewTiles(tileHeight, 0, int64(c.Size)) {
		data, err := readTile(l.tiles, t)
		if err == nil {
			err = writeFile(d.file(tileName(t)), bytes.Clone(data))
		}
		if err != nil {
			return dirError(op, path, err)
		}
	}
	return d.Save(ctx, nil, c.Size, c.Note)
}

// writeFile makes data the content of path, durable on return.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func fileExists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func dirError(op, object string, err error) error {
	kind := redoubt.KindOf(err)
	if i := slices.IndexFunc([]error{fs.ErrNotExist, fs.ErrExist}, func(e error) bool { return errors.Is(err, e) }); i >= 0 {
		kind = []redoubt.Kind{redoubt.NotFound, redoubt.Exists}[i]
	}
	return &redoubt.Error{Op: op, Object: object, Kind: kind, Err: err}
}
