package diode

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// The states of a block.
const (
	blockOpen  = iota // shards are awaited
	blockBusy         // it has enough of them, and is being made
	blockWhole        // its content is in place and was held against its digest
)

// transfer is one bundle that is on its way in, as it lies on disk: its folder holds
//
//	manifest  as it came
//	content   the file to be, head and end in place, and of the content what came
//	parity    the parity that came
//	marks     of each block a byte that says whether it is whole; then of each block a bit for each shard that came
//
// A shard's bit is written after the shard, with some others'. After a crash of the machine a bit may still stand for a shard that is not there:
// the block's digest finds that out.
type transfer struct {
	*manifest
	dir                    string // none of one that comes together in memory, which is slab
	slab                   []byte
	content, parity, marks place
	state                  []uint8
	have                   map[int]*shardSet // of open and busy blocks of which something came
	whole                  int
	resumed                bool // what is whole was found so by another process: it is looked at again at the end
	ending                 bool // it is being made a file
	named                  bool // it has its name, and is not in the book yet
	fed                    time.Time
}

// place is where a part of a transfer lies: a file, or memory.
type place interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
}

// memory is a place whose length does not change.
type memory []byte

func (m memory) ReadAt(p []byte, at int64) (int, error)  { return copy(p, m[at:]), nil }
func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }
func (m memory) Truncate(int64) error                    { return nil }
func (m memory) Close() error                            { return nil }

func (t *transfer) inMemory() bool { return t.dir == "" }

// createInMemory makes a transfer that is lost with this process, and becomes a file when it is whole. What slab holds is written over.
func createInMemory(m *manifest, slab []byte) *transfer {
	t := &transfer{manifest: m, slab: slab, state: make([]uint8, m.blocks()), have: map[int]*shardSet{}, marks: make(memory, m.marksAt(m.blocks()))}
	t.content, t.parity = memory(slab[:m.FileBytes]), memory(slab[m.FileBytes:])
	_ = t.frame() // memory fails at nothing
	return t
}

// frame puts what stands before and behind the content in its place.
func (t *transfer) frame() error {
	_, err := t.content.WriteAt(t.Start, 0)
	_, err2 := t.content.WriteAt(t.End, t.FileBytes-int64(len(t.End)))
	return errors.Join(err, err2)
}

// shardSet is which shards of a block came.
type shardSet struct {
	bits  []uint8
	n     int
	fresh int // of those, how many came since the bits were written
}

func (s *shardSet) has(i int) bool { return s.bits[i/8]&(1<<(i%8)) != 0 }

// hasAll says whether the first n came.
func (s *shardSet) hasAll(n int) bool {
	for i := range n {
		if !s.has(i) {
			return false
		}
	}
	return true
}

func (m *manifest) stride() int { return (m.most() + 7) / 8 }

func (m *manifest) marksAt(block int) int64 {
	return int64(m.blocks()) + int64(block)*int64(m.stride())
}

// holds is the most that the transfer takes on disk.
func (m *manifest) holds() int64 {
	return m.FileBytes + m.parityBytes() + int64(len(m.raw)) + m.marksAt(m.blocks())
}

func stageName(id transferID) string { return hex.EncodeToString(id[:]) }

// create makes a transfer's folder in dir: whole, or not at all.
func create(dir string, m *manifest) (t *transfer, err error) {
	tmp := filepath.Join(dir, newPrefix+stageName(m.id))
	if err := os.RemoveAll(tmp); err != nil {
		return nil, err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, err
	}
	t = &transfer{manifest: m, dir: tmp, state: make([]uint8, m.blocks()), have: map[int]*shardSet{}}
	defer func() {
		if err != nil {
			t.close()
			os.RemoveAll(t.dir)
		}
	}()
	if err := os.WriteFile(filepath.Join(tmp, "manifest"), m.raw, 0o600); err != nil {
		return nil, err
	}
	if err := t.open(os.O_RDWR | os.O_CREATE | os.O_EXCL); err != nil {
		return nil, err
	}
	if err = errors.Join(t.frame(), t.marks.Truncate(m.marksAt(m.blocks())), t.parity.Truncate(m.parityBytes())); err != nil {
		return nil, err
	}
	if err = os.Rename(tmp, filepath.Join(dir, stageName(m.id))); err == nil {
		t.dir = filepath.Join(dir, stageName(m.id))
	}
	return t, err
}

// newPrefix begins the name of a folder or file that is not finished.
const newPrefix = ".new-"

func (t *transfer) open(flag int) error {
	for _, f := range []struct {
		name string
		to   *place
	}{{"content", &t.content}, {"parity", &t.parity}, {"marks", &t.marks}} {
		file, err := os.OpenFile(filepath.Join(t.dir, f.name), flag, 0o600)
		if err != nil {
			return err
		}
		*f.to = file
	}
	return nil
}

// resume opens a transfer that an earlier process left.
func resume(dir, name string) (*transfer, error) {
	m, err := readManifest(filepath.Join(dir, name, "manifest"))
	if err != nil {
		return nil, err
	}
	if stageName(m.id) != name || m.bare() {
		return nil, errManifest
	}
	t := &transfer{manifest: m, dir: filepath.Join(dir, name), have: map[int]*shardSet{}, resumed: true}
	if err := t.open(os.O_RDWR); err != nil {
		t.close()
		return nil, err
	}
	st, err := os.Stat(filepath.Join(t.dir, "marks"))
	if err == nil {
		t.fed = st.ModTime()
		err = t.load()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func readManifest(path string) (*manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, int64(maxManifestBytes)+1))
	if err != nil {
		return nil, err
	}
	return decodeManifest(raw)
}

// load reads the marks.
func (t *transfer) load() error {
	t.state = make([]uint8, t.blocks())
	if _, err := t.marks.ReadAt(t.state, 0); err != nil {
		return err
	}
	for b := range t.state {
		if t.state[b] == blockWhole {
			t.whole++
			continue
		}
		t.state[b] = blockOpen
		set := &shardSet{bits: make([]uint8, t.stride())}
		if _, err := t.marks.ReadAt(set.bits, t.marksAt(b)); err != nil {
			return err
		}
		clearFrom(set.bits, t.shards(b))
		for _, x := range set.bits {
			set.n += bits.OnesCount8(x)
		}
		if set.n > 0 {
			t.have[b] = set
		}
	}
	return nil
}

// clearFrom clears the bits that stand for nothing.
func clearFrom(b []uint8, from int) {
	for i := from; i < len(b)*8; i++ {
		b[i/8] &^= 1 << (i % 8)
	}
}

func (t *transfer) close() {
	for _, f := range []place{t.content, t.parity, t.marks} {
		if f != nil {
			f.Close()
		}
	}
}

// contentAt is where a block's content begins in the file.
func (t *transfer) contentAt(block int) int64 {
	return int64(len(t.Start)) + int64(block)*bundle.LeafBytes
}

func (t *transfer) parityAt(block int) int64 {
	return int64(block) * int64(t.manifest.parity) * int64(t.shardBytes)
}

// keep writes a shard and its bit. fresh: it was not there; enough: with it the block can be made.
func (t *transfer) keep(block, index int, shard []byte) (fresh, enough bool, err error) {
	if t.state[block] != blockOpen {
		return false, false, nil
	}
	set := t.have[block]
	if set == nil {
		set = &shardSet{bits: make([]uint8, t.stride())}
		t.have[block] = set
	}
	if set.has(index) {
		return false, false, nil
	}
	data := t.data(block)
	if index < data {
		end := min((index+1)*t.shardBytes, t.blockLen(block))
		_, err = t.content.WriteAt(shard[:end-index*t.shardBytes], t.contentAt(block)+int64(index*t.shardBytes))
	} else {
		_, err = t.parity.WriteAt(shard, t.parityAt(block)+int64((index-data)*t.shardBytes))
	}
	if err != nil {
		return false, false, err
	}
	set.bits[index/8] |= 1 << (index % 8)
	set.n++
	if set.fresh++; set.fresh < marksEvery && set.n < data {
		return true, false, nil
	}
	if err := t.note(block, set); err != nil { // as if it had not come: its next copy is noted
		set.bits[index/8] &^= 1 << (index % 8)
		set.n--
		return false, false, err
	}
	return true, set.n >= data, nil
}

// marksEvery is how many shards of a block come before their bits are written together: that many a process that is killed forgets.
const marksEvery = 16

// note writes the bits of a block.
func (t *transfer) note(block int, set *shardSet) error {
	_, err := t.marks.WriteAt(set.bits, t.marksAt(block))
	if err == nil {
		set.fresh = 0
	}
	return err
}

// noteAll writes the bits of all blocks, before the transfer is left to a later process.
func (t *transfer) noteAll() (err error) {
	for b, set := range t.have {
		if set.fresh > 0 {
			err = errors.Join(err, t.note(b, set))
		}
	}
	return err
}

// forget has a block begin anew.
func (t *transfer) forget(block int) error {
	if t.state[block] == blockWhole {
		t.whole--
	}
	t.state[block] = blockOpen
	delete(t.have, block)
	_, err := t.marks.WriteAt([]byte{blockOpen}, int64(block))
	_, err2 := t.marks.WriteAt(make([]byte, t.stride()), t.marksAt(block))
	return errors.Join(err, err2)
}

// markWhole says that a block's content is in place.
func (t *transfer) markWhole(block int) error {
	t.state[block] = blockWhole
	delete(t.have, block)
	t.whole++
	_, err := t.marks.WriteAt([]byte{blockWhole}, int64(block))
	return err
}

// mender makes blocks of shards, one at a time, in memory that it keeps.
type mender struct{ slab []byte }

var errSpoiled = errors.New("a block is not what its digest says")

// mend puts a block's missing content in its place. It writes nothing of a block that is not what the manifest says: errSpoiled.
func (m *mender) mend(t *transfer, block int, set *shardSet) error {
	if t.bare() && set.hasAll(t.data(block)) {
		return nil
	}
	data, n := t.data(block), t.blockLen(block)
	if size := t.shards(block) * t.shardBytes; len(m.slab) < size {
		m.slab = make([]byte, size)
	}
	content, parity := m.slab[:data*t.shardBytes], m.slab[data*t.shardBytes:t.shards(block)*t.shardBytes]
	if _, err := t.content.ReadAt(content[:n], t.contentAt(block)); err != nil {
		return err
	}
	clear(content[n:])
	shards, lacking := cut(m.slab, t.shards(block), t.shardBytes), []int{}
	for i := range shards {
		if !set.has(i) {
			if i < data {
				lacking = append(lacking, i)
			}
			shards[i] = shards[i][:0]
		}
	}
	if len(lacking) > 0 {
		if _, err := t.parity.ReadAt(parity, t.parityAt(block)); err != nil {
			return err
		}
		code, err := coder(data, t.parityOf(block))
		if err != nil {
			return err
		}
		if err := code.ReconstructData(shards); err != nil {
			return err
		}
	}
	if !t.bare() && !t.IsLeaf(block, content[:n]) {
		return errSpoiled
	}
	for _, i := range lacking {
		end := min((i+1)*t.shardBytes, n)
		if _, err := t.content.WriteAt(content[i*t.shardBytes:end], t.contentAt(block)+int64(i*t.shardBytes)); err != nil {
			return err
		}
	}
	return nil
}

// check holds a whole block's content against its digest once more.
func (m *mender) check(t *transfer, block int) bool {
	n := t.blockLen(block)
	if len(m.slab) < n {
		m.slab = make([]byte, n)
	}
	_, err := t.content.ReadAt(m.slab[:n], t.contentAt(block))
	return err == nil && t.IsLeaf(block, m.slab[:n])
}

// settle makes a transfer whose blocks are all whole a file in dir: durable on return, but for one in memory. Another file of that name stays. spare is a
// file that is nobody's, or "": what is in memory is written over what that holds.
func (t *transfer) settle(dir, spare string) (name string, err error) {
	const op = "diode.settle"
	name = FileName(&t.Sheet)
	if t.named {
		return name, nil
	}
	path := filepath.Join(dir, name)
	from, err := t.file(filepath.Join(dir, stageDir), spare)
	if err != nil {
		return name, &redoubt.Error{Op: op, Object: name, Err: err}
	}
	defer func() {
		if err != nil && !t.named && t.inMemory() {
			os.Remove(from)
		}
	}()
	if s, err := Inspect(path); err == nil && s.ID != t.ID || err != nil && !errors.Is(err, os.ErrNotExist) {
		return name, &redoubt.Error{Op: op, Object: path, Kind: redoubt.Exists, Err: errors.New("another file has the bundle's name"), Hint: "move it away"}
	}
	if err := os.Rename(from, path); err != nil {
		return name, &redoubt.Error{Op: op, Object: name, Err: err}
	}
	t.named = true
	if t.inMemory() {
		return name, nil
	}
	return name, syncDir(dir)
}

// file is the file of a transfer's content, durable; or one that is made now, in the folder dir, of what is in memory.
func (t *transfer) file(dir, spare string) (path string, err error) {
	if f, ok := t.content.(*os.File); ok {
		return filepath.Join(t.dir, "content"), keep(f)
	}
	path = cmp.Or(spare, filepath.Join(dir, newPrefix+stageName(t.id)))
	if err = writeOver(path, t.content.(memory)); err != nil {
		os.Remove(path)
	}
	return path, err
}

// writeOver makes whole all that a file holds. Pages that the kernel has of it already cost a quarter of new ones.
func writeOver(path string, whole []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(whole); err == nil {
		err = f.Truncate(int64(len(whole)))
	}
	return errors.Join(err, f.Close())
}

// Inspect reads what a bundle's file says of itself.
func Inspect(path string) (bundle.Sheet, error) { return readFile(path, bundle.Inspect) }

// readFile has a file of a bundle read.
func readFile[T any](path string, read func(f io.ReaderAt, size int64) (T, error)) (out T, err error) {
	f, err := os.Open(path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return out, err
	}
	if !st.Mode().IsRegular() {
		return out, errors.New("is no file")
	}
	return read(f, st.Size())
}
