package audit

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// Entries is the append stream as the log reads it. It may be used by many at once.
type Entries interface {
	// Len is the number of entries committed; it never shrinks.
	Len() uint64
	// First is the number of the oldest entry that is there: those before it were archived, whole tiles of them. It never
	// shrinks.
	First() uint64
	// Read calls each with entries from to to-1 in order, and stops at its first error,
	// which it returns as it is. The bytes are only good during the call. An entry that
	// is not there is redoubt.NotFound.
	Read(ctx context.Context, from, to uint64, each func(n uint64, entry []byte) error) error
}

// TileData is a tile and its hashes, tile.W times 32 bytes.
type TileData struct {
	Tile tlog.Tile
	Data []byte
}

// Tiles keeps the log's tree: tiles of height 8 and signed checkpoints. It may be used by
// many at once. What it returns is not trusted: a log checks it.
type Tiles interface {
	// Tile gives the first t.W hashes of the tile at (t.L, t.N), or more: a store may
	// keep only the widest that was saved. redoubt.NotFound when it has fewer.
	Tile(t tlog.Tile) ([]byte, error)
	// Save makes tiles and checkpoint durable, and checkpoint never without tiles. A
	// wider tile replaces a narrower one of the same place, never the other way round.
	Save(ctx context.Context, tiles []TileData, size uint64, checkpoint []byte) error
	// Latest gives the checkpoint of the greatest size; redoubt.NotFound when none was saved.
	Latest() ([]byte, error)
	// Checkpoints gives checkpoints kept from size from up, in order of size, at most
	// limit of them. A store may thin old ones.
	Checkpoints(from uint64, limit int) ([][]byte, error)
}

// Memory is Entries and Tiles in memory, for tests and small exports. The zero Memory is empty.
type Memory struct {
	mu          sync.Mutex
	first       uint64
	entries     [][]byte             // from first on
	tiles       map[tlog.Tile][]byte // W is 0 in the key
	sizes       []uint64
	checkpoints map[uint64][]byte
}

// Commit appends entries; it fits NewRecorder.
func (m *Memory) Commit(_ context.Context, entries [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		m.entries = append(m.entries, bytes.Clone(e))
	}
	return nil
}

// Len is as Entries says.
func (m *Memory) Len() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first + uint64(len(m.entries))
}

// First is as Entries says.
func (m *Memory) First() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first
}

// Drop forgets the entries below a number.
func (m *Memory) Drop(below uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if below > m.first {
		m.entries, m.first = m.entries[below-m.first:], below
	}
}

// Read is as Entries says.
func (m *Memory) Read(ctx context.Context, from, to uint64, each func(uint64, []byte) error) error {
	for n := from; n < to; n++ {
		m.mu.Lock()
		if n < m.first || n >= m.first+uint64(len(m.entries)) {
			m.mu.Unlock()
			return &redoubt.Error{Op: "audit.Read", Kind: redoubt.NotFound}
		}
		e := m.entries[n-m.first]
		m.mu.Unlock()
		if err := each(n, e); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Tile is as Tiles says.
func (m *Memory) Tile(t tlog.Tile) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data := m.tiles[place(t)]
	if len(data) == 0 || len(data) < t.W*tlog.HashSize {
		return nil, &redoubt.Error{Op: "audit.Tile", Object: t.Path(), Kind: redoubt.NotFound}
	}
	return bytes.Clone(data), nil
}

// Save is as Tiles says, without the durability.
func (m *Memory) Save(_ context.Context, tiles []TileData, size uint64, checkpoint []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tiles == nil {
		m.tiles, m.checkpoints = map[tlog.Tile][]byte{}, map[uint64][]byte{}
	}
	for _, t := range tiles {
		if len(t.Data) >= len(m.tiles[place(t.Tile)]) {
			m.tiles[place(t.Tile)] = bytes.Clone(t.Data)
		}
	}
	if i, ok := slices.BinarySearch(m.sizes, size); !ok {
		m.sizes = slices.Insert(m.sizes, i, size)
	}
	m.checkpoints[size] = bytes.Clone(checkpoint)
	return nil
}

// Latest is as Tiles says.
func (m *Memory) Latest() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.sizes) == 0 {
		return nil, noCheckpoint()
	}
	return bytes.Clone(m.checkpoints[m.sizes[len(m.sizes)-1]]), nil
}

// Checkpoints is as Tiles says.
func (m *Memory) Checkpoints(from uint64, limit int) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, _ := slices.BinarySearch(m.sizes, from)
	var out [][]byte
	for ; i < len(m.sizes) && len(out) < limit; i++ {
		out = append(out, bytes.Clone(m.checkpoints[m.sizes[i]]))
	}
	return out, nil
}

func place(t tlog.Tile) tlog.Tile {
	t.W = 0
	return t
}

func noCheckpoint() error {
	return &redoubt.Error{Op: "audit.Latest", Kind: redoubt.NotFound, Err: errors.New("no checkpoint was signed yet")}
}
