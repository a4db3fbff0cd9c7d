package store

import (
	"encoding/binary"
	"fmt"

	"redoubt"
)

// Batch is a set of changes that become durable and visible together.
// The zero Batch is empty and ready. A Batch is used once.
type Batch struct {
	Writes []Write
	// Appends are entries for the engine's one append-only stream (the audit log):
	// the engine numbers them in commit order and keeps entry i under AppendKey(i).
	// After a successful Commit, FirstAppend is the number of Appends[0].
	Appends     [][]byte
	FirstAppend uint64
	// DropBelow, unless it is 0, ends the entries of the stream below this number: they are gone, the numbers go on. It is at
	// most the length of the stream as the batch finds it, which entries of its own do not reach (redoubt.Invalid else; the
	// lower of two drops does nothing). Where nothing was ever appended it says at which number the stream begins.
	DropBelow uint64
	Links     []Staged  // blobs that become live
	Unlinks   []BlobRef // blobs that die; one that is not linked is passed over
}

// Op is what a Write does.
type Op uint8

const (
	OpSet    Op = iota + 1 // key becomes value
	OpDelete               // key is gone
	OpAdd                  // key holds a little-endian int64 (absent: 0), to which Delta is added
	OpNumber               // key holds a counter as OpAdd has it; it rises by one, to n, and NumberedKey(key, n) becomes value
)

// Write is one change of one key.
type Write struct {
	Op    Op
	Key   []byte
	Value []byte
	Delta int64
}

// Set adds a write of key to value.
func (b *Batch) Set(key, value []byte) {
	b.Writes = append(b.Writes, Write{Op: OpSet, Key: key, Value: value})
}

// Delete adds a removal of key.
func (b *Batch) Delete(key []byte) { b.Writes = append(b.Writes, Write{Op: OpDelete, Key: key}) }

// Add adds delta to the counter at key.
func (b *Batch) Add(key []byte, delta int64) {
	b.Writes = append(b.Writes, Write{Op: OpAdd, Key: key, Delta: delta})
}

// Number keeps value under the next number of the stream at key, in commit order and counted from 1: who
// reads NumberedKey(key, n) finds nothing new below it later.
func (b *Batch) Number(key, value []byte) {
	b.Writes = append(b.Writes, Write{Op: OpNumber, Key: key, Value: value})
}

// NumberedKey is the key of entry n of the numbered stream at key.
func NumberedKey(key []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(key[:len(key):len(key)], n)
}

// Append adds an entry to the append stream.
func (b *Batch) Append(entry []byte) { b.Appends = append(b.Appends, entry) }

// AppendPrefix starts the keys of the append stream; no other key may start with it.
const AppendPrefix = 0xff

// AppendKey is the key under which entry n of the append stream is kept.
func AppendKey(n uint64) []byte {
	return []byte{AppendPrefix, byte(n >> 56), byte(n >> 48), byte(n >> 40), byte(n >> 32),
		byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// Validate holds a batch against the limits of the contract, before a driver takes
// it up: MaxBatchWrites changes of any sort, MaxBatchBytes of keys, values and
// entries together, keys of 1 to MaxKeyBytes that do not start with AppendPrefix,
// values and entries of at most MaxValueBytes, a DropBelow of at most MaxAppends. What is too big is redoubt.TooLarge,
// what is malformed redoubt.Invalid.
func (b *Batch) Validate() error {
	if n := len(b.Writes) + len(b.Appends) + len(b.Links) + len(b.Unlinks); n > MaxBatchWrites {
		return tooLarge("batch of %d changes", n)
	}
	if b.DropBelow > MaxAppends {
		return &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: fmt.Errorf("drop of entries below %d", b.DropBelow)}
	}
	total := 0
	for i := range b.Writes {
		w := &b.Writes[i]
		switch {
		case len(w.Key) == 0 || w.Key[0] == AppendPrefix:
			return &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: fmt.Errorf("write %d: empty or reserved key", i)}
		case w.Op < OpSet || w.Op > OpNumber:
			return &redoubt.Error{Op: "store.Commit", Kind: redoubt.Invalid, Err: fmt.Errorf("write %d: unknown operation %d", i, w.Op)}
		case len(w.Key) > MaxKeyBytes, w.Op == OpNumber && len(w.Key)+8 > MaxKeyBytes:
			return tooLarge("key of %d bytes", len(w.Key))
		case len(w.Value) > MaxValueBytes:
			return tooLarge("value of %d bytes", len(w.Value))
		}
		total += len(w.Key) + len(w.Value)
	}
	for _, entry := range b.Appends {
		if len(entry) > MaxValueBytes {
			return tooLarge("append entry of %d bytes", len(entry))
		}
		total += len(entry)
	}
	if total > MaxBatchBytes {
		return tooLarge("batch of %d bytes", total)
	}
	return nil
}

func tooLarge(format string, n int) error {
	return &redoubt.Error{Op: "store.Commit", Kind: redoubt.TooLarge, Err: fmt.Errorf(format, n)}
}
