package diode

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// Limits of the book: what is beyond is forgotten, the oldest first.
const (
	maxNumberings = 1024      // of all makers; one begins when a state does
	maxRuns       = 4096      // of numbers in one numbering; between two runs something is missing
	maxRecent     = 1024      // IDs, so that the next pass of what is whole is not staged again
	maxBookBytes  = 128 << 20 // 1,024 numberings of 4,096 runs at 30 bytes at most
)

// Span is the numbers, or blocks, From to To, both counted in.
type Span = redoubt.NumberSpan

// SpanText is spans as people type them: 1-4,7.
func SpanText(spans []Span) string {
	var all []string
	for _, s := range spans {
		all = append(all, s.String())
	}
	return strings.Join(all, ",")
}

// ParseSpans reads what SpanText writes, in any order.
func ParseSpans(text string) (spans []Span, err error) {
	for _, one := range strings.Split(text, ",") {
		low, high, isRange := strings.Cut(one, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 64)
		to, err2 := strconv.ParseUint(high, 10, 64)
		if err != nil || err2 != nil || from > to {
			return nil, fmt.Errorf("want numbers such as 3,7-9, got %q", one)
		}
		spans = redoubt.AddSpan(spans, Span{From: from, To: to})
	}
	return spans, nil
}

// gaps are the numbers from 1 up to last that no span has.
func gaps(spans []Span, last uint64) (out []Span) {
	next := uint64(1)
	for _, s := range spans {
		if s.From > next {
			out = append(out, Span{From: next, To: s.From - 1})
		}
		if next = s.To + 1; next == 0 { // there is no later number
			return out
		}
	}
	if next <= last {
		out = append(out, Span{From: next, To: last})
	}
	return out
}

// series is one numbering: the bundles of one maker for one node, from 1.
type series struct {
	Maker     redoubt.NodeName `json:"maker"`
	For       redoubt.NodeName `json:"for"`
	Numbering string           `json:"numbering"` // hex
	Newest    time.Time        `json:"newest"`    // when the newest of its bundles was made
	Whole     []Span           `json:"whole"`
}

// book is what a receiver remembers of bundles that came whole, also when their files are gone.
type book struct {
	Format int       `json:"format"`
	Series []*series `json:"series"`
	Recent []string  `json:"recent"` // IDs of bundles, hex, the newest last
}

const bookFormat = 1

// known is the series of a bundle for one of its addressees; nil: there is none.
func (b *book) known(s *bundle.Sheet, to bundle.Addressee) *series {
	number := hex.EncodeToString(to.Numbering[:])
	for _, x := range b.Series {
		if x.Maker == s.Maker && x.For == to.Node && x.Numbering == number {
			return x
		}
	}
	return nil
}

// find is known, which is made where there is none.
func (b *book) find(s *bundle.Sheet, to bundle.Addressee) *series {
	x := b.known(s, to)
	if x == nil {
		x = &series{Maker: s.Maker, For: to.Node, Numbering: hex.EncodeToString(to.Numbering[:])}
		b.Series = append(b.Series, x)
	}
	return x
}

// note has a bundle of the book as whole. A receipt takes no number.
func (b *book) note(s *bundle.Sheet) {
	for _, to := range s.To {
		x := b.find(s, to)
		if s.Created.After(x.Newest) {
			x.Newest = s.Created
		}
		if s.Kind == bundle.Journal {
			x.Whole = redoubt.AddSpan(x.Whole, Span{From: to.Serial, To: to.Serial})
		}
		if len(x.Whole) > maxRuns {
			x.Whole = x.Whole[1:]
		}
	}
	if len(b.Series) > maxNumberings {
		slices.SortStableFunc(b.Series, func(x, y *series) int { return x.Newest.Compare(y.Newest) })
		b.Series = b.Series[len(b.Series)-maxNumberings:]
	}
	if id := hex.EncodeToString(s.ID[:]); !slices.Contains(b.Recent, id) {
		b.Recent = append(b.Recent, id)
	}
	if len(b.Recent) > maxRecent {
		b.Recent = b.Recent[len(b.Recent)-maxRecent:]
	}
}

// forget takes a bundle out of the book.
func (b *book) forget(s *bundle.Sheet) {
	for _, to := range s.To {
		if x := b.known(s, to); x != nil && s.Kind == bundle.Journal {
			x.Whole = redoubt.CutSpan(x.Whole, to.Serial)
		}
	}
	b.Recent = slices.DeleteFunc(b.Recent, func(id string) bool { return id == hex.EncodeToString(s.ID[:]) })
}

// names says whether the book has a bundle by its number, too: it remembers fewer IDs than numbers.
func (b *book) names(s *bundle.Sheet) bool {
	if b.has(s.ID) || s.Kind == bundle.Receipt {
		return b.has(s.ID)
	}
	for _, to := range s.To {
		if x := b.known(s, to); x != nil && redoubt.InSpans(x.Whole, to.Serial) {
			return true
		}
	}
	return false
}

func (b *book) has(id [32]byte) bool { return slices.Contains(b.Recent, hex.EncodeToString(id[:])) }

// readBook reads the book at path; where none is, it is empty.
func readBook(path string) (*book, error) {
	b := &book{Format: bookFormat}
	err := readJSON(path, maxBookBytes, b)
	if err == nil && b.Format != bookFormat {
		err = fmt.Errorf("format %d, and only %d is read", b.Format, bookFormat)
	}
	if err != nil {
		return nil, &redoubt.Error{Op: "diode.book", Object: path, Kind: redoubt.Corrupt, Err: err,
			Hint: "move the file away: what came whole before is forgotten then, and shown as missing"}
	}
	return b, nil
}

// ReadRecord reads a JSON file of at most limit bytes strictly into v; one that is not there changes nothing.
func ReadRecord(path string, limit int64, v any) error {
	if err := readJSON(path, limit, v); err != nil {
		return &redoubt.Error{Op: "diode.ReadRecord", Object: path, Kind: redoubt.Corrupt, Err: err, Hint: "move the file away: what it remembers is forgotten then"}
	}
	return nil
}

// WriteRecord makes v the content of a JSON file, durable on return: whole, or as it was.
func WriteRecord(path string, v any) error {
	if err := writeJSON(path, v); err != nil {
		return &redoubt.Error{Op: "diode.WriteRecord", Object: path, Err: err}
	}
	return nil
}

func readJSON(path string, limit int64, v any) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return err
	}
	if int64(len(raw)) > limit {
		return redoubt.TooLarge
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the document")
	}
	return nil
}

func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, raw)
}

// writeFile makes a document the content of a file, durable on return: whole, or as it was.
func writeFile(path string, raw []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncFile makes a file's content durable. One that is gone is nobody's any more.
func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(keep(f), f.Close())
}

// errUnsaved is what the disk did not keep. It says so once: who asks again is told that all is well.
var errUnsaved = errors.New("the disk did not keep what was written")

// fsync is what a test has fail.
var fsync = (*os.File).Sync

func keep(f *os.File) error {
	if err := fsync(f); err != nil {
		return errors.Join(errUnsaved, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(keep(d), d.Close())
}

// FileName is what a whole bundle is called: its maker, whom it is for, the beginning of its numbering, its number and the beginning
// of its ID. The names of one numbering are in the order of their numbers.
func FileName(s *bundle.Sheet) string {
	to := s.To[0]
	name := fmt.Sprintf("%s.%s.%x.%010d.%x", s.Maker, to.Node, to.Numbering[:4], to.Serial, s.ID[:8])
	if s.Kind == bundle.Receipt {
		name += ".receipt"
	}
	return name + Suffix
}

// Suffix ends the name of a bundle's file.
const Suffix = ".rbundle"
