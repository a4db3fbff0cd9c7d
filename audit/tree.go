package audit

import (
	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight is that of C2SP tlog-tiles: 256 hashes a tile.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// edge is the right edge of a tree: at each tile level the hashes of the last tile, as
// long as it is not full. It is all that is needed to grow the tree and to know its root.
type edge struct {
	size   uint64
	levels [][]tlog.Hash // levels[l] has fewer than tileWidth hashes
}

func (e *edge) clone() *edge {
	c := &edge{size: e.size, levels: make([][]tlog.Hash, len(e.levels))}
	for l, hashes := range e.levels {
		c.levels[l] = append(make([]tlog.Hash, 0, tileWidth), hashes...)
	}
	return c
}

// add appends a leaf; full is called with each tile that it completes.
func (e *edge) add(leaf tlog.Hash, full func(tlog.Tile, []tlog.Hash)) {
	h := leaf
	for l := 0; ; l++ {
		if l == len(e.levels) {
			e.levels = append(e.levels, make([]tlog.Hash, 0, tileWidth))
		}
		e.levels[l] = append(e.levels[l], h)
		if len(e.levels[l]) < tileWidth {
			break
		}
		n := e.size >> (tileHeight * (l + 1))
		full(tlog.Tile{H: tileHeight, L: l, N: int64(n), W: tileWidth}, e.levels[l])
		h = subtree(e.levels[l])
		e.levels[l] = e.levels[l][:0]
	}
	e.size++
}

// partials calls each with the tiles of the edge that are not empty.
func (e *edge) partials(each func(tlog.Tile, []tlog.Hash)) {
	for l, hashes := range e.levels {
		if len(hashes) > 0 {
			n := e.size >> (tileHeight * (l + 1))
			each(tlog.Tile{H: tileHeight, L: l, N: int64(n), W: len(hashes)}, hashes)
		}
	}
}

// root is the RFC 6962 hash of the tree: its perfect subtrees folded from the right.
func (e *edge) root() (tlog.Hash, error) {
	var acc tlog.Hash
	empty := true
	for _, hashes := range e.levels {
		for rest := len(hashes); rest > 0; {
			w := rest & -rest // the rightmost perfect subtree
			h := subtree(hashes[rest-w : rest])
			if empty {
				acc, empty = h, false
			} else {
				acc = tlog.NodeHash(h, acc)
			}
			rest -= w
		}
	}
	if empty {
		return tlog.TreeHash(0, nil)
	}
	return acc, nil
}

// subtree is the hash over a power of two of hashes.
func subtree(hashes []tlog.Hash) tlog.Hash {
	var room [tileWidth]tlog.Hash
	level := room[:copy(room[:], hashes)]
	for len(level) > 1 {
		for i := range len(level) / 2 {
			level[i] = tlog.NodeHash(level[2*i], level[2*i+1])
		}
		level = level[:len(level)/2]
	}
	return level[0]
}

func tileBytes(hashes []tlog.Hash) []byte {
	out := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		out = append(out, hashes[i][:]...)
	}
	return out
}

func tileHashes(data []byte) []tlog.Hash {
	out := make([]tlog.Hash, len(data)/tlog.HashSize, tileWidth)
	for i := range out {
		copy(out[i][:], data[i*tlog.HashSize:])
	}
	return out
}

// edgeTiles are the tiles that hold the edge of a tree of the given size.
func edgeTiles(size uint64) []tlog.Tile {
	var out []tlog.Tile
	for l := 0; size>>(tileHeight*l) > 0; l++ {
		at := size >> (tileHeight * l)
		out = append(out, tlog.Tile{H: tileHeight, L: l, N: int64(at >> tileHeight), W: int(at % tileWidth)})
	}
	return out // W is 0 where nothing is needed
}
