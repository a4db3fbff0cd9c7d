package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"

	"redoubt/store"
)

// Keys of the index start with the sort of what they hold.
const (
	sortUser    = 'k' // the catalogue's own keys, and the append stream
	sortBlob    = 'b' // blob name -> location
	sortReverse = 'r' // segment, offset -> blob name; what compaction must move
	sortSegment = 's' // segment -> bytes live, bytes ever linked, high-water mark
	sortNothing = 'y' // one key, written only to give pebble something to flush
	sortState   = 'z' // one key: how far the index follows the log
)

var stateKey = []byte{sortState}

// stopTables is how many layers of new tables there may be until pebble lets nobody write.
const stopTables = 24

// stopMemTables is how many memtables of full size there may be until then.
const stopMemTables = 3

const indexRoot = "index" // pebble's idea of its directory; cryptFS has only one

// state is written with every applied frame, so the index always tells which frame
// it is right after.
type state struct {
	seq      uint64 // of the last applied frame
	segment  uint64 // where the next frame is looked for
	off      int64
	appended uint64
	nextRef  uint64
	blobs    int64
	live     int64 // bytes of content
}

func (s *state) encode() []byte {
	b := make([]byte, 0, 56)
	for _, v := range []uint64{s.seq, s.segment, uint64(s.off), s.appended, s.nextRef, uint64(s.blobs), uint64(s.live)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeState(b []byte) (s state, err error) {
	if len(b) != 56 {
		return s, corrupt("index state", errors.New("wrong length"))
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return state{u(0), u(1), int64(u(2)), u(3), u(4), int64(u(5)), int64(u(6))}, nil
}

func userKey(dst, key []byte) []byte { return append(append(dst, sortUser), key...) }

func blobKey(dst []byte, ref store.BlobRef) []byte {
	return binary.BigEndian.AppendUint64(append(dst, sortBlob), uint64(ref))
}

func reverseKey(segment uint64, off int64) []byte {
	b := binary.BigEndian.AppendUint64(append(make([]byte, 0, 17), sortReverse), segment)
	return binary.BigEndian.AppendUint64(b, uint64(off))
}

func segmentKey(id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), sortSegment), id)
}

func encodeUsage(live, ever, high int64) []byte {
	b := make([]byte, 0, 24)
	for _, v := range []int64{live, ever, high} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// indexLog hands pebble's messages to slog. They name no key: the formatter redacts nothing, so only
// the fact and the error's type are passed on.
type indexLog struct{ log *slog.Logger }

func (l indexLog) Infof(string, ...any) {}
func (l indexLog) Errorf(format string, args ...any) {
	l.log.Error("index error", "format", format)
}
func (l indexLog) Fatalf(format string, args ...any) {
	l.log.Error("index failed", "format", format)
	panic(fmt.Sprintf("index failed: "+format, args...))
}

// troubles are why the index cannot get on. Pebble repeats a flush that fails until it goes well. A compaction it repeats when it looks for the
// next, and what could not be compacted need not be any more: of one that is not told of for troubleLasts there is no trouble.
type troubles struct{ flush, compaction atomic.Pointer[trouble] }

type trouble struct {
	err error
	at  time.Time
}

const troubleLasts = 30 * time.Second

// Load gives one of them; nil: there is none.
func (t *troubles) Load() error {
	if p := t.flush.Load(); p != nil {
		return p.err
	}
	if p := t.compaction.Load(); p != nil && time.Since(p.at) < troubleLasts {
		return p.err
	}
	return nil
}

// emptyTable is what pebble says of a flush that went well and had nothing to write. It does not export it.
const emptyTable = "pebble: empty table"

func (t *troubles) flushed(info pebble.FlushInfo) {
	if info.Err == nil || info.Err.Error() == emptyTable {
		t.flush.Store(nil)
		return
	}
	t.flush.Store(&trouble{info.Err, time.Now()})
}

// A flush that goes well says nothing of compactions that fail: tables would pile up until pebble lets nobody write.
func (t *troubles) compacted(info pebble.CompactionInfo) {
	switch {
	case info.Err == nil:
		t.compaction.Store(nil)
	case !errors.Is(info.Err, pebble.ErrCancelledCompaction):
		t.compaction.Store(&trouble{info.Err, time.Now()})
	}
}

// openIndex opens pebble on fs. Its own log is off: the commit log is the log. trouble
// is set while a flush or compaction fails.
func openIndex(fs *cryptFS, o *Options, failing *troubles, changed func()) (db *pebble.DB, err error) {
	defer func() {
		if p := recover(); p != nil { // how pebble reports some errors of the disk
			db, err = nil, fmt.Errorf("index: %v", p)
		}
	}()
	opts := &pebble.Options{
		FS:                          fs,
		DisableWAL:                  true,
		CacheSize:                   o.CacheBytes + 2*memTableBytes, // pebble takes its memtables out of the cache
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: stopMemTables,
		BytesPerSync:                1 << 40, // one sync a table, at its end (see pageFile)
		MaxOpenFiles:                500,
		MaxManifestFileSize:         1, // begin anew as soon as it costs no more than what was written since (see renewManifest)
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       stopTables,
		LBaseMaxBytes:               64 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      indexLog{o.Logger},
		EventListener: &pebble.EventListener{
			BackgroundError: func(error) {}, // it does not say of what: flushes and compactions tell of theirs
			FlushEnd:        func(info pebble.FlushInfo) { failing.flushed(info); changed() },
			CompactionEnd:   func(info pebble.CompactionInfo) { failing.compacted(info); changed() },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				o.Logger.Error("index is corrupt")
			},
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = indexBlockBytes
		opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression } // most of a record is random: keys, IDs
		opts.Levels[i].IndexBlockSize = 16 << 10
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return pebble.Open(indexRoot, opts)
}

// lookup copies the value of one key of the index; ok is false when there is none.
func lookup(r pebble.Reader, key []byte) (value []byte, ok bool, err error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, indexError(err)
	}
	value = append(make([]byte, 0, len(v)), v...)
	return value, true, closer.Close()
}

// indexError classifies what pebble returns: its checksums and ours both mean Corrupt.
func indexError(err error) error {
	if err == nil {
		return nil
	}
	if pebble.IsCorruptionError(err) {
		return corrupt("index", err)
	}
	return diskError("store", err)
}

// indexBlockBytes is how much of the index is read at once. A listing reads on from block to block, and every block costs a read, the
// opening of its first and last page in part for nothing, and a place in the cache; a single record costs no more than with 4 KiB.
const indexBlockBytes = 16 << 10

// memTableBytes is the size of one memtable; two are in memory most of the time, one that fills and one that is
// flushed, and three at most.
const memTableBytes = 8 << 20
