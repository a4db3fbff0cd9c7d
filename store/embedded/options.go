package embedded

import (
	"errors"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
)

// Options are how an engine is opened. Only Key is required.
type Options struct {
	Key           []byte           // 32 bytes; what derives or wraps every key on the disk. Open copies what it needs.
	FS            vfs.FS           // the disk; nil: the operating system's. Tests hand in one that fails.
	SegmentBytes  int64            // size of a log or extent segment; 0: 64 MiB
	ReserveBytes  int64            // free disk below which writes give redoubt.DiskFull; 0: 256 MiB, negative: none
	CacheBytes    int64            // of index blocks in memory; 0: 16 MiB
	CompactPerSec int64            // bytes a second that compaction moves by itself; 0: 32 MiB
	MaintainEvery time.Duration    // between rounds of maintenance by itself; 0: one minute, negative: never
	Logger        *slog.Logger     // nil: nothing is logged
	Now           func() time.Time // nil: time.Now
}

// Sizes that Options leaves open, with their bounds.
const (
	DefaultSegmentBytes = 64 << 20  // zero-filled in about 50 ms, replayed in about as long
	MinSegmentBytes     = 64 << 10  // for tests
	MaxSegmentBytes     = 512 << 20 // offsets and zero-filling stay cheap
	DefaultReserveBytes = 256 << 20 // index flushes and compactions in flight
	DefaultCacheBytes   = 16 << 20
)

func (o Options) withDefaults() (Options, error) {
	if len(o.Key) != keyBytes {
		return o, &redoubt.Error{Op: "store.Open", Kind: redoubt.Invalid, Err: errors.New("engine key is not 32 bytes")}
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.SegmentBytes < MinSegmentBytes || o.SegmentBytes > MaxSegmentBytes {
		return o, &redoubt.Error{Op: "store.Open", Kind: redoubt.Invalid, Err: errors.New("segment size out of bounds")}
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = DefaultReserveBytes
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.CompactPerSec == 0 {
		o.CompactPerSec = 32 << 20
	}
	if o.MaintainEvery == 0 {
		o.MaintainEvery = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}
