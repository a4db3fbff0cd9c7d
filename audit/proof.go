package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// proofHeader is the first line of a C2SP tlog-proof.
const proofHeader = "c2sp.org/tlog-proof@v1"

// maxProofHashes is the depth of a tree of MaxEntries.
const maxProofHashes = 48

// Proof shows that an entry is in the log, to whoever has the log's verifier key.
type Proof struct {
	Index      uint64
	Hashes     []tlog.Hash
	Checkpoint []byte // the signed note
}

// Prove shows that entry n is covered by the log's newest checkpoint; redoubt.NotFound
// when it is not (yet).
func (l *Log) Prove(n uint64) (Proof, error) {
	c := l.Checkpoint()
	if n >= c.Size {
		return Proof{}, &redoubt.Error{Op: "audit.Prove", Kind: redoubt.NotFound, Err: fmt.Errorf("the checkpoint covers %d entries", c.Size)}
	}
	hashes, err := tlog.ProveRecord(int64(c.Size), int64(n), hashReader(l.tiles, c))
	if err != nil {
		return Proof{}, &redoubt.Error{Op: "audit.Prove", Kind: redoubt.Corrupt, Err: err}
	}
	return Proof{Index: n, Hashes: hashes, Checkpoint: c.Note}, nil
}

// Check proves that entry, byte for byte, is entry p.Index of v's log, and returns the
// checkpoint that covers it; redoubt.Corrupt when it does not. It needs nothing else.
func (p Proof) Check(v note.Verifier, entry []byte) (Checkpoint, error) {
	c, err := ParseCheckpoint(p.Checkpoint, v)
	if err != nil {
		return Checkpoint{}, err
	}
	if p.Index >= c.Size || len(p.Hashes) > maxProofHashes {
		return Checkpoint{}, badProof(errors.New("index or length"))
	}
	if err := tlog.CheckRecord(p.Hashes, int64(c.Size), c.Root, int64(p.Index), tlog.RecordHash(entry)); err != nil {
		return Checkpoint{}, badProof(err)
	}
	return c, nil
}

// Append appends p as a C2SP tlog-proof text.
func (p Proof) Append(dst []byte) []byte {
	dst = fmt.Appendf(dst, "%s\nindex %d\n", proofHeader, p.Index)
	for _, h := range p.Hashes {
		dst = base64.StdEncoding.AppendEncode(dst, h[:])
		dst = append(dst, '\n')
	}
	return append(append(dst, '\n'), p.Checkpoint...)
}

// ParseProof reads a C2SP tlog-proof without an extra line, strictly. It proves nothing until checked.
func ParseProof(text []byte) (Proof, error) {
	head, signed, ok := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(signed) > MaxCheckpointBytes || len(lines) < 2 || len(lines) > 2+maxProofHashes || lines[0] != proofHeader {
		return Proof{}, badProof(errors.New("not a tlog-proof"))
	}
	number, ok := strings.CutPrefix(lines[1], "index ")
	index, err := strconv.ParseUint(number, 10, 63)
	if !ok || err != nil || strconv.FormatUint(index, 10) != number {
		return Proof{}, badProof(errors.New("bad index"))
	}
	p := Proof{Index: index, Checkpoint: bytes.Clone(signed)}
	for _, line := range lines[2:] {
		var h tlog.Hash
		raw, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(raw) != len(h) || len(line) != base64.StdEncoding.EncodedLen(len(h)) {
			return Proof{}, badProof(errors.New("bad hash"))
		}
		copy(h[:], raw)
		p.Hashes = append(p.Hashes, h)
	}
	return p, nil
}

// Consistency shows that the tree of a newer checkpoint holds that of an older one unchanged.
type Consistency struct {
	Old, New []byte // signed notes
	Hashes   []tlog.Hash
}

// ProveConsistency shows that the log still holds all that the older checkpoint covered.
// A checkpoint that this log never could have signed is redoubt.Corrupt: a fork.
func (l *Log) ProveConsistency(old Checkpoint) (Consistency, error) {
	const op = "audit.ProveConsistency"
	c := l.Checkpoint()
	old, err := ParseCheckpoint(old.Note, l.signer)
	if err != nil {
		return Consistency{}, err
	}
	if old.Size > c.Size {
		return Consistency{}, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: errors.New("the checkpoint is ahead of the log")}
	}
	p := Consistency{Old: old.Note, New: c.Note}
	if old.Size > 0 {
		if p.Hashes, err = tlog.ProveTree(int64(c.Size), int64(old.Size), hashReader(l.tiles, c)); err != nil {
			return Consistency{}, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err}
		}
	}
	if _, _, err := p.Check(l.signer); err != nil {
		return Consistency{}, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: errors.New("the log was forked: it does not hold that checkpoint's tree")}
	}
	return p, nil
}

// Check proves it with v's key alone and returns both checkpoints; redoubt.Corrupt else.
func (p Consistency) Check(v note.Verifier) (old, new Checkpoint, err error) {
	if old, err = ParseCheckpoint(p.Old, v); err != nil {
		return Checkpoint{}, Checkpoint{}, err
	}
	if new, err = ParseCheckpoint(p.New, v); err != nil {
		return Checkpoint{}, Checkpoint{}, err
	}
	if old.Size == 0 {
		empty, _ := tlog.TreeHash(0, nil) // which only reads a constant
		if old.Root != empty || len(p.Hashes) != 0 {
			err = errors.New("the empty tree has one root")
		}
	} else if len(p.Hashes) > 2*maxProofHashes || old.Size > new.Size {
		err = errors.New("sizes")
	} else {
		err = tlog.CheckTree(p.Hashes, int64(new.Size), new.Root, int64(old.Size), old.Root)
	}
	if err != nil {
		return Checkpoint{}, Checkpoint{}, badProof(err)
	}
	return old, new, nil
}

func badProof(err error) error {
	return &redoubt.Error{Op: "audit.Proof", Kind: redoubt.Corrupt, Err: err}
}

// hashReader reads hashes of c's tree from tiles, each proven against c's root.
func hashReader(tiles Tiles, c Checkpoint) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: int64(c.Size), Hash: c.Root}, tileReader{tiles})
}

// tileReader is Tiles as x/mod's tlog reads them.
type tileReader struct{ tiles Tiles }

// Height is that of every tile.
func (tileReader) Height() int { return tileHeight }

// ReadTiles reads each tile at its exact width.
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		data, err := readTile(r.tiles, t)
		if err != nil {
			return nil, err
		}
		out[i] = data
	}
	return out, nil
}

// SaveTiles does nothing: the tiles are kept already.
func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
