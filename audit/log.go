package audit

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// advanceStep is how many entries one Save covers at most: 256 tiles of hashes, half a megabyte.
const advanceStep = 1 << 16

// Log builds the tree over an append stream. All methods may be called at once.
type Log struct {
	signer  *signer
	entries Entries
	tiles   Tiles
	clock   func() time.Time

	mu     sync.Mutex // guards what follows; held while advancing
	edge   *edge
	latest Checkpoint
}

// NewLog opens the log that entries and tiles hold, or begins one at size 0. origin
// names the log for good (see VerifierKey); key is an Ed25519 key. The newest checkpoint
// must be the key's own, and the tiles at its edge must give its root: redoubt.Corrupt
// else, and the enclave should not run on. It reads no entries; Verify does.
func NewLog(ctx context.Context, origin string, key crypto.Signer, entries Entries, tiles Tiles, clock func() time.Time) (*Log, error) {
	const op = "audit.NewLog"
	s, err := newSigner(origin, key)
	if err != nil {
		return nil, err
	}
	if entries == nil || tiles == nil || clock == nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("entries, tiles and clock are needed")}
	}
	l := &Log{signer: s, entries: entries, tiles: tiles, clock: clock, edge: &edge{}}
	signed, err := tiles.Latest()
	if errors.Is(err, redoubt.NotFound) {
		return l, l.begin(ctx)
	}
	if err != nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	if l.latest, err = ParseCheckpoint(signed, s); err != nil {
		return nil, err
	}
	if n := entries.Len(); n < l.latest.Size {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: fmt.Errorf("%d entries are left of %d", n, l.latest.Size),
			Hint: "redoubt audit verify"}
	}
	if l.edge, err = loadEdge(tiles, l.latest); err != nil {
		return nil, err
	}
	return l, nil
}

// begin signs the empty tree.
func (l *Log) begin(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.save(ctx, nil, l.edge)
}

// loadEdge reads the right edge of c's tree and proves it against c's root.
func loadEdge(tiles Tiles, c Checkpoint) (*edge, error) {
	e, err := readEdge(tiles, c.Size)
	if err != nil {
		return nil, err
	}
	root, err := e.root()
	if err != nil || root != c.Root {
		return nil, &redoubt.Error{Op: "audit.NewLog", Kind: redoubt.Corrupt, Err: errors.New("the tiles do not give the signed root"),
			Hint: "redoubt audit verify"}
	}
	return e, nil
}

// readEdge reads the right edge of the tree of the first size entries, as the tiles have it.
func readEdge(tiles Tiles, size uint64) (*edge, error) {
	e := &edge{size: size}
	for _, t := range edgeTiles(size) {
		hashes := make([]tlog.Hash, 0, tileWidth)
		if t.W > 0 {
			data, err := readTile(tiles, t)
			if err != nil {
				return nil, err
			}
			hashes = tileHashes(data)
		}
		e.levels = append(e.levels, hashes)
	}
	return e, nil
}

// readTile gives exactly t.W hashes.
func readTile(tiles Tiles, t tlog.Tile) ([]byte, error) {
	data, err := tiles.Tile(t)
	if err == nil && (len(data) < t.W*tlog.HashSize || len(data) > tileWidth*tlog.HashSize) {
		err = errors.New("length of a tile")
	}
	if err != nil {
		return nil, &redoubt.Error{Op: "audit.Tile", Object: t.Path(), Kind: redoubt.Corrupt, Err: err}
	}
	return data[:t.W*tlog.HashSize], nil
}

// Advance takes the entries committed since into the tree and signs a checkpoint over
// all of them, durable on return. With nothing new it does nothing. It stops early with
// ctx; what it saved stays, and the next call goes on from there.
func (l *Log) Advance(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for end := l.entries.Len(); l.edge.size < end; {
		next, saves := l.edge.clone(), []TileData(nil)
		full := func(t tlog.Tile, hashes []tlog.Hash) { saves = append(saves, TileData{t, tileBytes(hashes)}) }
		to := min(end, l.edge.size+advanceStep)
		err := l.entries.Read(ctx, l.edge.size, to, func(n uint64, entry []byte) error {
			if n != next.size {
				return fmt.Errorf("entry %d came for %d", n, next.size)
			}
			next.add(tlog.RecordHash(entry), full)
			return nil
		})
		if err != nil {
			return &redoubt.Error{Op: "audit.Advance", Kind: redoubt.KindOf(err), Err: err}
		}
		if next.size != to {
			return &redoubt.Error{Op: "audit.Advance", Err: fmt.Errorf("%d entries came of %d", next.size, to)}
		}
		next.partials(full)
		if err := l.save(ctx, saves, next); err != nil {
			return err
		}
	}
	return nil
}

// save signs and saves the tree at next, and then takes it. l.mu is held.
func (l *Log) save(ctx context.Context, tiles []TileData, next *edge) error {
	root, err := next.root()
	if err != nil {
		return &redoubt.Error{Op: "audit.Advance", Err: err}
	}
	at := l.clock()
	if at.Before(l.latest.Time) {
		at = l.latest.Time // a clock set back does not unorder checkpoints
	}
	c, err := signCheckpoint(l.signer, next.size, root, at)
	if err != nil {
		return err
	}
	if err := l.tiles.Save(ctx, tiles, c.Size, c.Note); err != nil {
		return &redoubt.Error{Op: "audit.Advance", Kind: redoubt.KindOf(err), Err: err}
	}
	l.edge, l.latest = next, c
	return nil
}

// Checkpoint is the newest durable checkpoint. Entries committed after the last Advance
// are not covered by it.
func (l *Log) Checkpoint() Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest
}

// Verifier checks this log's checkpoints.
func (l *Log) Verifier() note.Verifier { return l.signer.Verifier }

// VerifierKey is the text of Verifier, to be given to others once.
func (l *Log) VerifierKey() string {
	text, _ := VerifierKey(l.signer.Name(), l.signer.key.Public()) // NewLog checked both
	return text
}
