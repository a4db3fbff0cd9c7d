package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/carry/parts"
)

// splitting is how a file is to be split, as it is typed.
type splitting struct{ size, parity string }

// splitPlan is what it means; partBytes 0: it is not split.
type splitPlan struct {
	partBytes int64
	parity    float64
}

func (s *splitting) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.size, "part-size", "", "split it into parts of this `size` at most, such as 650MiB")
	c.Flags().StringVar(&s.parity, "parity", "", "how much of it may be lost, a `share` of the parts such as 10%")
}

func (s *splitting) parse() (p splitPlan, err error) {
	if s.size == "" && s.parity != "" {
		return p, &usageError{message: "--parity is of parts", hint: "--part-size 650MiB --parity 10%"}
	}
	if s.size == "" {
		return p, nil
	}
	if p.partBytes, err = parseSize(s.size); err != nil {
		return p, err
	}
	if s.parity == "" {
		return p, nil
	}
	number, isShare := strings.CutSuffix(s.parity, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !isShare || !(n >= 0 && n <= 200) {
		return p, &usageError{message: "want a share such as 10%, got " + s.parity, hint: "--parity 10%"}
	}
	p.parity = n / 100
	return p, nil
}

var sizes = regexp.MustCompile(`^([0-9]{1,9})(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)$`)

// parseSize reads a number of bytes with its unit, as people and media have them.
func parseSize(text string) (int64, error) {
	m := sizes.FindStringSubmatch(text)
	if m == nil {
		return 0, &usageError{message: "want a size such as 650MiB, got " + text, hint: "B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB"}
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	unit := map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[m[2]]
	if err != nil || n > (1<<62)/unit {
		return 0, &usageError{message: "no medium has " + text}
	}
	return n * unit, nil
}

func dirOf(file string) string { return filepath.Dir(file) }

func partName(file string, index int) string { return fmt.Sprintf("%s.%03d", file, index+1) }

// splitFile writes a file's parts, all of them or none.
func splitFile(ctx context.Context, whole *os.File, to string, plan splitPlan) (err error) {
	st, err := whole.Stat()
	if err != nil {
		return err
	}
	l, err := parts.Plan(st.Size(), plan.partBytes, plan.parity)
	if err != nil {
		return err
	}
	if _, err := whole.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
			os.Remove(f.Name()) // not there any more when it has its name
		}
	}()
	writers, buffers := make([]io.Writer, l.Parts()), make([]*bufio.Writer, l.Parts())
	for i := range writers {
		f, err := os.CreateTemp(dirOf(to), ".redoubt-*")
		if err != nil {
			return &redoubt.Error{Object: to, Err: err}
		}
		files, buffers[i] = append(files, f), bufio.NewWriterSize(f, 1<<20)
		writers[i] = buffers[i]
	}
	if err := parts.Split(ctx, whole, l, writers, nil); err != nil {
		return err
	}
	for i, f := range files {
		if err := errors.Join(buffers[i].Flush(), f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := os.Rename(f.Name(), partName(to, i)); err != nil {
			for j := range i {
				os.Remove(partName(to, j))
			}
			return err
		}
	}
	return nil
}

// settle returns when a file lies on its medium: people pull sticks out.
func settle(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// bundleFiles is a bundle as it lies on this machine: one file, or parts of one.
type bundleFiles struct {
	given []parts.Part
	files []*os.File
	split bool
	size  int64
}

// openBundle opens a bundle, or its parts: those named, and those beside one that is named alone.
func openBundle(names []string) (*bundleFiles, error) {
	b := &bundleFiles{}
	if len(names) == 1 {
		names = siblings(names[0])
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			b.close()
			return nil, &redoubt.Error{Object: name, Kind: redoubt.NotFound, Err: errors.Unwrap(err), Hint: "name a file that redoubt bundle export wrote"}
		}
		b.files = append(b.files, f)
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = errors.New("is no file")
		}
		if err != nil {
			b.close()
			return nil, &redoubt.Error{Object: name, Kind: redoubt.Invalid, Err: err}
		}
		p := parts.Part{Name: name, File: f, Size: st.Size()}
		b.given = append(b.given, p)
		if l, ok := parts.Is(p); ok && !b.split {
			b.split, b.size = true, l.FileBytes
		}
	}
	if !b.split {
		b.size = b.given[0].Size
	}
	if !b.split && len(names) > 1 {
		b.close()
		return nil, &usageError{message: "several files, and none is a part of a bundle", hint: "import bundles one at a time, in the order of their numbers"}
	}
	return b, nil
}

var partSuffix = regexp.MustCompile(`^(.+)\.[0-9]{3}$`)

// siblings are the parts beside one; a file that has no part's name is alone.
func siblings(name string) []string {
	m := partSuffix.FindStringSubmatch(name)
	if m == nil {
		return []string{name}
	}
	var found []string
	entries, err := os.ReadDir(filepath.Dir(name))
	for _, e := range entries {
		if p := partSuffix.FindStringSubmatch(e.Name()); p != nil && p[1] == filepath.Base(m[1]) && !e.IsDir() {
			found = append(found, filepath.Join(filepath.Dir(name), e.Name()))
		}
	}
	if err != nil || !slices.Contains(found, filepath.Clean(name)) {
		return []string{name}
	}
	return found
}

// reader gives the bundle in order, repaired where it is in parts. done waits until nothing reads the files any more, and says why
// parts did not make the bundle, if they did not.
func (b *bundleFiles) reader(ctx context.Context) (r io.Reader, done func() error) {
	if !b.split {
		return io.NewSectionReader(b.files[0], 0, b.size), func() error { return nil }
	}
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := parts.Join(ctx, b.given, pw, nil)
		pw.CloseWithError(err)
		ended <- err
	}()
	return pr, func() error {
		pr.Close()
		if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		return nil // nobody wanted the rest
	}
}

func (b *bundleFiles) close() {
	for _, f := range b.files {
		f.Close()
	}
}

// partsView is what parts tell.
type partsView struct {
	Data     int      `json:"data"`
	Parity   int      `json:"parity"`
	Bytes    int64    `json:"file_bytes"`
	Missing  []int    `json:"missing"`
	Repaired int64    `json:"damaged_blocks"`
	Foreign  []string `json:"foreign"`
	Whole    bool     `json:"whole"` // they make the file
	Fault    string   `json:"fault,omitempty"`
}

func partsOf(r parts.Report, err error) *partsView {
	v := &partsView{Data: r.Data, Parity: r.Parity, Bytes: r.FileBytes, Missing: append([]int{}, r.Missing...), Repaired: r.Repaired,
		Foreign: append([]string{}, r.Foreign...), Whole: err == nil}
	if err != nil {
		v.Fault = plain(err)
	}
	return v
}

func (v *partsView) text() string {
	out := fmt.Sprintf("parts of one file of %s: %d, of which any %d may be lost\n", bytesText(v.Bytes), v.Data+v.Parity, v.Parity)
	if len(v.Missing) > 0 {
		out += fmt.Sprintf("  missing: %v\n", v.Missing)
	}
	if v.Repaired > 0 {
		out += fmt.Sprintf("  blocks that are missing or damaged: %d\n", v.Repaired)
	}
	for _, f := range v.Foreign {
		out += "  of another file: " + f + "\n"
	}
	if v.Whole {
		return out + "  they make the whole file\n"
	}
	return out + "  they do not make the file: " + v.Fault + "\n"
}
