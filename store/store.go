// Package store keeps an enclave's bytes: an ordered, durable catalogue of small
// records and a place for blobs, behind one contract that every driver meets
// (storetest.Test). It knows nothing of subjects and decides nothing: only package
// enclave may import it, so nothing reaches these bytes around the reference monitor.
//
// What a driver receives as blob content is sealed already (package keys). Catalogue
// keys and values hold names and markings in clear, so a driver seals them itself:
// nothing that it writes to a disk is readable without its key.
package store

import (
	"context"
	"io"
)

// Limits of what a driver accepts, each tested at n and n+1.
const (
	MaxKeyBytes    = 4 << 10  // a 1,024-byte object name, twice escaped, with its prefix
	MaxValueBytes  = 16 << 20 // a multipart manifest of 10,000 parts
	InlineBytes    = 128 << 10
	MaxBatchWrites = 1 << 16
	MaxBatchBytes  = 64 << 20 // keys, values and entries of one batch; inline blobs come on top
	MaxAppends     = 1 << 48  // entries of the append stream ever: more than any log holds, so that sums of numbers are safe
)

// Engine is one enclave's durable state. All methods may be called at once.
type Engine interface {
	// Commit applies a batch whole or not at all, in one place of the engine's single
	// order, and returns when it is durable: power may fail at any later instant.
	// Many waiting callers share one disk sync. After an error nothing of the batch is visible, now or
	// after a restart, except when the error is ErrUncertain (the engine then refuses further writes until reopened).
	// A full disk gives redoubt.DiskFull, and reads go on.
	Commit(ctx context.Context, b *Batch) error

	// Get reads the newest committed value of one key; ok is false when there is none.
	// The value is the caller's to keep.
	Get(key []byte) (value []byte, ok bool, err error)

	// View is a consistent picture of everything committed before the call.
	// It must be closed; it pins blobs against collection while open.
	View() View

	// Stage begins a blob. What is written becomes reachable only by a Commit that
	// links it; until then a crash forgets it.
	Stage(ctx context.Context) (Staged, error)

	// OpenBlob reads a linked blob. The reader pins it: an Unlink or a compaction while it is
	// open does not disturb it. A blob that is gone gives redoubt.NotFound.
	OpenBlob(ref BlobRef) (Blob, error)

	// Maintain runs one round of garbage collection and compaction now (it also runs by itself while
	// serving) and returns when it is done.
	Maintain(ctx context.Context) error

	// Scrub returns when no byte of a deleted key in [lower, upper) and of any
	// unlinked blob can be recovered from the driver's files even with the engine's
	// key: the files that held them were rewritten and their file keys destroyed.
	Scrub(ctx context.Context, lower, upper []byte) error

	// Check reads everything back and reports each fault; it returns the number of faults found.
	Check(ctx context.Context, report func(fault string)) (faults int, err error)

	Stats() Stats
	Close() error
}

// View is a consistent picture. Its iterators must be closed before it.
type View interface {
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan iterates keys in [lower, upper) in byte order. A nil upper has no bound.
	Scan(lower, upper []byte) Iterator
	Close() error
}

// Archive is what Dump asks of a View beyond reading: EachBlob visits every blob that
// was linked when the view was taken, in the order of their names, until visit fails.
type Archive interface {
	View
	EachBlob(ctx context.Context, visit func(ref BlobRef, size int64) error) error
}

// Restorer is what Load asks of an Engine beyond committing: StageAs begins a blob
// under a name it had in another engine. A name that is zero or taken is redoubt.Exists;
// a driver may ask for names in rising order, as Archive gives them.
type Restorer interface {
	Engine
	StageAs(ctx context.Context, ref BlobRef) (Staged, error)
}

// Iterator walks keys in order. It starts before the first key. Key and Value
// are valid only until the next move.
type Iterator interface {
	Next() bool
	SeekGE(key []byte) bool
	Key() []byte
	Value() []byte
	Err() error
	Close() error
}

// BlobRef names a blob within one engine. The zero BlobRef names none.
type BlobRef uint64

// Staged is a blob being written. Finish makes it ready to be linked; Discard (idempotent, a no-op after a
// successful Commit that linked it) gives its space back.
type Staged interface {
	io.Writer
	// Settle ends the writing: what is held in memory only to be written is written out, and space that was reserved beyond it is given
	// back. Nothing is durable before Finish, which may wait so that several share a sync, and which settles what is not.
	Settle() error
	// Finish flushes what was written: what does not travel inside the commit itself is durable on return.
	Finish() error
	Ref() BlobRef
	Size() int64
	Discard()
}

// Blob is a readable blob.
type Blob interface {
	io.ReaderAt
	Size() int64
	Close() error
}

// SealedBlob is a Blob of a driver that keeps checksums of its own. Whoever authenticates all that it reads says so before it
// reads, and the driver leaves its checksum out. It is for reading content, never for copying or checking it.
type SealedBlob interface {
	Blob
	ReaderAuthenticates()
}

// Stats are for metrics and quotas of the whole engine, never for a subject.
type Stats struct {
	DiskBytes, LiveBytes, FreeBytes int64
	Blobs                           int64
	Syncs, Commits, Batches         uint64
	Appended                        uint64 // length of the append stream, with what was dropped
	FirstAppend                     uint64 // the number of the oldest entry that was not dropped; Appended when none is left
}
