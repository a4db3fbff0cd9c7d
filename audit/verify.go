package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// MaxFaults is where Verify stops looking: the log is lost as evidence by then.
const MaxFaults = 1000

// Fault is one thing that Verify found wrong.
type Fault struct {
	What  string     // one of the Fault constants
	Entry int64      // the entry's number; -1 when it is not about one
	Tile  *tlog.Tile // nil when it is not about a tile
	Text  string     // for people
}

// What a Fault can be.
const (
	FaultEntry      = "entry"      // an entry is not what was signed
	FaultMissing    = "missing"    // an entry that was signed is gone
	FaultFormat     = "format"     // an entry is what was signed, and no entry
	FaultTile       = "tile"       // a tile is missing or not what the entries give
	FaultCheckpoint = "checkpoint" // a checkpoint is missing, unreadable or not signed by the log
	FaultFork       = "fork"       // a signed checkpoint that this log's tree does not hold
	FaultRollback   = "rollback"   // a signed checkpoint is newer than what the log now admits to
)

// Gap is a session's start that followed no clean end: up to a second of allowed reads
// before it may be missing. It is no fault; it is what a crash looks like.
type Gap struct {
	Entry uint64    // of the start
	Time  time.Time // of the start
	Text  string    // what the start says of the session before
}

// Summary is what Verify read.
type Summary struct {
	Entries    uint64     // entries there, covered or not
	Covered    uint64     // entries that the newest checkpoint covers
	First      uint64     // the oldest entry that is there: those below it are archived
	Checkpoint Checkpoint // the newest that the log itself keeps; zero when it keeps none that verifies
	Decisions  uint64     // what the covered entries stand for, by their counts
	Sessions   uint64
	Gaps       []Gap
	Faults     int
}

// Verify reads every entry and rebuilds the tree, and compares each tile, each
// checkpoint that the log keeps and each of trusted (checkpoints of this log that others
// kept) with it. report, which may be nil, is called with each fault as it is found. The
// error is redoubt.Corrupt when there was any; any other error means that Verify could
// not finish. Entries that were archived are taken by their hashes in the tree, and must be on record as archived in an
// entry of the log. It trusts nothing but v. It takes memory for the edge of the tree only.
func Verify(ctx context.Context, entries Entries, tiles Tiles, v note.Verifier, trusted []Checkpoint, report func(Fault)) (Summary, error) {
	if entries == nil || tiles == nil || v == nil {
		return Summary{}, &redoubt.Error{Op: "audit.Verify", Kind: redoubt.Invalid, Err: errors.New("entries, tiles and verifier are needed")}
	}
	x := &verification{archived: map[uint64]bool{}, ctx: ctx, entries: entries, tiles: tiles, verifier: v, report: report, edge: &edge{}}
	err := x.run(trusted)
	if err == nil && x.sum.Faults > 0 {
		err = &redoubt.Error{Op: "audit.Verify", Kind: redoubt.Corrupt, Err: fmt.Errorf("%d faults, the first: %s", x.sum.Faults, x.first)}
	}
	return x.sum, err
}

type verification struct {
	ctx      context.Context
	entries  Entries
	tiles    Tiles
	verifier note.Verifier
	report   func(Fault)
	sum      Summary
	first    string

	edge    *edge
	suspect []suspect // level-0 tiles that differ from what the entries give
	wrong   []tlog.Tile
	stopped error

	tileBad  bool            // a tile of archived entries is not what was signed
	archived map[uint64]bool // ends of archives that entries speak of
}

// suspect is a level-0 tile whose entries and hashes disagree; which is wrong is known
// once the root is.
type suspect struct {
	tile    tlog.Tile
	entries []uint64
}

func (x *verification) fault(f Fault) {
	x.sum.Faults++
	if x.first == "" {
		x.first = f.Text
	}
	if x.report != nil {
		x.report(f)
	}
	if x.sum.Faults >= MaxFaults && x.stopped == nil {
		x.stopped = &redoubt.Error{Op: "audit.Verify", Kind: redoubt.Corrupt, Err: errors.New("too many faults: stopped looking")}
	}
}

func (x *verification) run(trusted []Checkpoint) error {
	marks, err := x.checkpoints(trusted)
	if err != nil {
		return err
	}
	x.sum.Entries, x.sum.First = x.entries.Len(), x.entries.First()
	x.sum.Covered = x.sum.Checkpoint.Size
	if len(marks) == 0 {
		if x.sum.Entries > 0 {
			x.fault(Fault{What: FaultCheckpoint, Entry: -1, Text: fmt.Sprintf("%d entries and no checkpoint that covers them", x.sum.Entries)})
		}
		return x.stopped
	}
	end := marks[len(marks)-1].Size
	if end > x.sum.Entries {
		x.fault(Fault{What: FaultMissing, Entry: int64(x.sum.Entries),
			Text: fmt.Sprintf("entries %d to %d were signed and are gone", x.sum.Entries, end-1)})
	}
	rootOK := true
	for i := 0; i < len(marks); {
		size := marks[i].Size
		if size > x.sum.Entries {
			break // reported as missing
		}
		if err := x.grow(size); err != nil {
			return err
		}
		root, err := x.edge.root()
		if err != nil {
			return &redoubt.Error{Op: "audit.Verify", Err: err}
		}
		if size == x.sum.Checkpoint.Size {
			x.edge.partials(x.compare)
		}
		for ; i < len(marks) && marks[i].Size == size; i++ {
			if marks[i].Root != root {
				rootOK = false
				x.forked(marks[i])
			}
		}
	}
	if x.sum.Checkpoint.Size > x.sum.Entries { // the tail's tiles cannot be rebuilt; show what is there
		if err := x.grow(x.sum.Entries); err != nil {
			return err
		}
		rootOK = false
	}
	x.blame(rootOK)
	if x.sum.First > 0 && !x.archived[x.sum.First] {
		x.fault(Fault{What: FaultMissing, Entry: 0, Text: fmt.Sprintf("entries 0 to %d are gone, and the log has no record of an archive that ends there", x.sum.First-1)})
	}
	return x.stopped
}

// checkpoints gives every checkpoint that verifies, in order of size.
func (x *verification) checkpoints(trusted []Checkpoint) ([]Checkpoint, error) {
	var marks []Checkpoint
	for from := uint64(0); ; {
		kept, err := x.tiles.Checkpoints(from, 256)
		if err != nil && !errors.Is(err, redoubt.Corrupt) {
			return nil, &redoubt.Error{Op: "audit.Verify", Kind: redoubt.KindOf(err), Err: err}
		}
		for _, signed := range kept {
			c, err := ParseCheckpoint(signed, x.verifier)
			if err != nil {
				x.fault(Fault{What: FaultCheckpoint, Entry: -1, Text: "a checkpoint kept by the log: " + err.Error()})
				continue
			}
			marks = append(marks, c)
		}
		if len(kept) < 256 || len(marks) == 0 || marks[len(marks)-1].Size < from {
			break
		}
		from = marks[len(marks)-1].Size + 1
	}
	if signed, err := x.tiles.Latest(); err == nil {
		c, err := ParseCheckpoint(signed, x.verifier)
		if err != nil {
			x.fault(Fault{What: FaultCheckpoint, Entry: -1, Text: "the log's newest checkpoint: " + err.Error()})
		} else {
			x.sum.Checkpoint = c
			marks = append(marks, c)
		}
	} else if !errors.Is(err, redoubt.NotFound) {
		x.fault(Fault{What: FaultCheckpoint, Entry: -1, Text: "the log's newest checkpoint: " + err.Error()})
	}
	for _, t := range trusted {
		c, err := ParseCheckpoint(t.Note, x.verifier)
		if err != nil {
			x.fault(Fault{What: FaultCheckpoint, Entry: -1, Text: "a trusted checkpoint: " + err.Error()})
			continue
		}
		if c.Size > x.sum.Checkpoint.Size {
			x.fault(Fault{What: FaultRollback, Entry: int64(x.sum.Checkpoint.Size),
				Text: fmt.Sprintf("the log once covered %d entries and now admits to %d", c.Size, x.sum.Checkpoint.Size)})
		}
		marks = append(marks, c)
	}
	slices.SortStableFunc(marks, func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	for i := 1; i < len(marks); i++ {
		if marks[i].Size == marks[i-1].Size && marks[i].Root != marks[i-1].Root {
			x.fault(Fault{What: FaultFork, Entry: -1, Text: fmt.Sprintf("two signed checkpoints of size %d differ: the log was forked", marks[i].Size)})
		}
	}
	return marks, x.stopped
}

// grow takes entries into the tree until it has size, comparing tiles as they fill.
func (x *verification) grow(size uint64) error {
	for x.edge.size < min(size, x.sum.First) && x.stopped == nil {
		x.growArchived(min(size, x.sum.First))
	}
	for x.edge.size < size {
		if err := x.ctx.Err(); err != nil {
			return &redoubt.Error{Op: "audit.Verify", Kind: redoubt.Unavailable, Err: err}
		}
		err := x.entries.Read(x.ctx, x.edge.size, size, func(n uint64, entry []byte) error {
			if n != x.edge.size {
				return fmt.Errorf("entry %d came for %d", n, x.edge.size)
			}
			x.look(n, entry)
			x.edge.add(tlog.RecordHash(entry), x.compare)
			return x.stopped
		})
		if x.stopped != nil {
			return x.stopped
		}
		if err == nil && x.edge.size < size {
			err = errors.New("the entries end early")
		}
		if err != nil && x.ctx.Err() == nil {
			// This entry cannot be read; what follows still can.
			x.fault(Fault{What: FaultMissing, Entry: int64(x.edge.size), Text: fmt.Sprintf("entry %d cannot be read: %v", x.edge.size, err)})
			x.edge.add(tlog.Hash{}, x.compare)
		}
	}
	return x.stopped
}

// growArchived takes a tile of archived entries into the tree, or the part of it in front of size, by its hashes.
func (x *verification) growArchived(size uint64) {
	first := x.edge.size / tileWidth * tileWidth
	t := tlog.Tile{H: tileHeight, L: 0, N: int64(first >> tileHeight), W: tileWidth}
	data, err := readTile(x.tiles, t)
	if err == nil && x.sum.Checkpoint.Size >= first+tileWidth {
		_, err = hashReader(x.tiles, x.sum.Checkpoint).ReadHashes([]int64{tlog.StoredHashIndex(0, int64(first))})
	}
	if err != nil {
		x.tileBad = true
		x.fault(Fault{What: FaultTile, Entry: -1, Tile: &t,
			Text: fmt.Sprintf("tile %s, of the archived entries %d to %d, is not what was signed: %v", t.Path(), first, first+tileWidth-1, err)})
	}
	if len(data) < tileWidth*tlog.HashSize {
		data = make([]byte, tileWidth*tlog.HashSize)
	}
	for _, h := range tileHashes(data)[x.edge.size-first : min(size-first, tileWidth)] {
		x.edge.add(h, x.compare)
	}
}

// look reads an entry for the summary.
func (x *verification) look(n uint64, entry []byte) {
	e, err := ParseEntry(entry)
	if err != nil {
		x.fault(Fault{What: FaultFormat, Entry: int64(n), Text: fmt.Sprintf("entry %d: %v", n, err)})
		return
	}
	x.sum.Decisions += uint64(e.Count)
	if a, ok := ParseArchived(&e); ok {
		x.archived[a.To] = true
	}
	if e.Action == ActionStart {
		x.sum.Sessions++
		if e.Rule == StartGap {
			x.sum.Gaps = append(x.sum.Gaps, Gap{Entry: n, Time: e.Time, Text: e.Detail})
		}
	}
}

// compare checks a stored tile against what the entries give.
func (x *verification) compare(t tlog.Tile, hashes []tlog.Hash) {
	if uint64(t.N)<<(tileHeight*(t.L+1))+uint64(t.W)<<(tileHeight*t.L) > x.sum.Checkpoint.Size {
		return // beyond what the log covers: no tile is promised
	}
	data, err := readTile(x.tiles, t)
	if err != nil {
		x.fault(Fault{What: FaultTile, Entry: -1, Tile: &t, Text: err.Error()})
		return
	}
	want := tileBytes(hashes)
	if bytes.Equal(data, want) {
		return
	}
	if t.L > 0 {
		x.wrong = append(x.wrong, t)
		return
	}
	s := suspect{tile: t}
	for i := range hashes {
		if !bytes.Equal(data[i*tlog.HashSize:(i+1)*tlog.HashSize], hashes[i][:]) {
			s.entries = append(s.entries, uint64(t.N)<<tileHeight+uint64(i))
		}
	}
	x.suspect = append(x.suspect, s)
	if len(x.suspect) >= MaxFaults {
		x.stopped = &redoubt.Error{Op: "audit.Verify", Kind: redoubt.Corrupt, Err: errors.New("too many tiles differ: stopped looking")}
	}
}

// forked reports a checkpoint that the entries do not give, unless a tile will tell
// more exactly which entry is to blame.
func (x *verification) forked(c Checkpoint) {
	if c.Size == x.sum.Checkpoint.Size && c.Root == x.sum.Checkpoint.Root && (len(x.suspect) > 0 || x.tileBad) {
		return
	}
	x.fault(Fault{What: FaultFork, Entry: -1,
		Text: fmt.Sprintf("the entries do not give the root signed at size %d: they were changed, or the log was forked", c.Size)})
}

// blame says of each difference whether the entry or the tile is wrong.
func (x *verification) blame(rootOK bool) {
	hashes := hashReader(x.tiles, x.sum.Checkpoint)
	altered := false
	for _, s := range x.suspect {
		for _, n := range s.entries {
			if !rootOK {
				if _, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(n))}); err == nil {
					altered = true
					x.fault(Fault{What: FaultEntry, Entry: int64(n), Text: fmt.Sprintf("entry %d is not what was signed", n)})
					continue
				}
			}
			t := s.tile
			x.fault(Fault{What: FaultTile, Entry: int64(n), Tile: &t, Text: fmt.Sprintf("the hash of entry %d in tile %s is not what was signed", n, t.Path())})
		}
	}
	if altered || x.tileBad {
		return // the tiles above differ from altered entries as they must
	}
	for _, t := range x.wrong {
		x.fault(Fault{What: FaultTile, Entry: -1, Tile: &t, Text: "tile " + t.Path() + " is not what the entries give"})
	}
}
