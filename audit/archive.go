package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// Limits of an archive.
const (
	// MaxArchiveEntries is the most that one archive takes, some gigabytes: a longer stretch becomes several.
	MaxArchiveEntries = 1 << 24

	// maxArchiveHead is over any head: two checkpoints, the edge of a tree of MaxEntries, two proofs.
	maxArchiveHead = 256 << 10
)

const (
	archiveMagic = "redoubt audit archive 1\n"
	archiveNote  = "redoubt audit archive 1" // first line of the signed note; no origin has a space, so no checkpoint reads as one
)

// Archive is what a file of old entries says of itself, once all of it was verified.
type Archive struct {
	Origin   string
	From, To uint64     // entries From to To-1; both are first entries of tiles
	Before   Checkpoint // the newest that the log kept, of at most From entries; zero when it kept none
	After    Checkpoint // of at least To entries: it covers the archive
	Root     tlog.Hash  // of the log's first To entries
	Oldest   time.Time  // of the entries
	Newest   time.Time
}

// archiveHead stands before the entries. Proofs are those of RFC 6962.
type archiveHead struct {
	origin      string
	from, to    uint64
	before      []byte // signed note, empty for none
	after       []byte
	edge        *edge
	beforeProof []tlog.Hash // that the first From entries hold those of before
	afterProof  []tlog.Hash // that after holds the first To entries
}

// Archivable gives the stretch of entries that an archive of what is older than before takes: from the oldest entry to
// the last boundary of a tile with nothing but older entries in front of it, of those that the newest checkpoint covers.
// redoubt.PreconditionFail when that is nothing.
func (l *Log) Archivable(ctx context.Context, before time.Time) (from, to uint64, err error) {
	from = l.entries.First()
	end := min(l.Checkpoint().Size, from+MaxArchiveEntries)
	to = end
	err = l.entries.Read(ctx, from, end, func(n uint64, b []byte) error {
		e, err := ParseEntry(b)
		if err == nil && !e.Time.Before(before) {
			to, err = n, errYoung
		}
		return err
	})
	if err != nil && !errors.Is(err, errYoung) {
		return 0, 0, &redoubt.Error{Op: "audit.Archivable", Kind: redoubt.KindOf(err), Err: err}
	}
	if to = to / tileWidth * tileWidth; to <= from {
		return 0, 0, &redoubt.Error{Op: "audit.Archivable", Kind: redoubt.PreconditionFail, Err: errors.New("no whole tile of entries is older"),
			Hint: fmt.Sprintf("nothing is old enough: entries are archived %d at a time", tileWidth)}
	}
	return from, to, nil
}

var errYoung = errors.New("an entry is not old enough")

// WriteArchive writes entries from to to-1, both tile boundaries, with all that proves that they are this log's. It
// reads back what it writes against the signed tree: entries that are not what was signed are redoubt.Corrupt, and what
// was written is then no archive. It changes nothing.
func (l *Log) WriteArchive(ctx context.Context, w io.Writer, from, to uint64) error {
	const op = "audit.WriteArchive"
	h, err := l.archiveHead(from, to)
	if err != nil {
		return err
	}
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	if _, err := out.Write(h.encode()); err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	var line []byte
	tree := h.edge.clone()
	err = l.entries.Read(ctx, from, to, func(_ uint64, entry []byte) error {
		tree.add(tlog.RecordHash(entry), func(tlog.Tile, []tlog.Hash) {})
		line = append(binary.BigEndian.AppendUint16(line[:0], uint16(len(entry))), entry...)
		_, err := out.Write(line)
		return err
	})
	if err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	if err := h.checkAfter(tree, l.signer); err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: fmt.Errorf("entries %d to %d are not what was signed: %w", from, to-1, err), Hint: "redoubt audit verify"}
	}
	signed, err := note.Sign(&note.Note{Text: archiveText(h, sum)}, l.signer)
	if err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	if _, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(signed))), signed...)); err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	return nil
}

// archiveText is what the log's key signs of an archive.
func archiveText(h *archiveHead, sum hash.Hash) string {
	return fmt.Sprintf("%s\n%s\n%d %d\n%s\n", archiveNote, h.origin, h.from, h.to, base64.StdEncoding.EncodeToString(sum.Sum(nil)))
}

func (l *Log) archiveHead(from, to uint64) (*archiveHead, error) {
	const op = "audit.WriteArchive"
	c := l.Checkpoint()
	if from%tileWidth != 0 || to%tileWidth != 0 || from >= to || to > c.Size || to-from > MaxArchiveEntries {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: fmt.Errorf("no archive of entries %d to %d, of %d", from, to, c.Size)}
	}
	h := &archiveHead{origin: c.Origin, from: from, to: to, after: c.Note}
	var err error
	hashes := hashReader(l.tiles, c)
	if h.edge, err = readEdge(l.tiles, from); err != nil {
		return nil, err
	}
	if h.afterProof, err = tlog.ProveTree(int64(c.Size), int64(to), hashes); err != nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err}
	}
	before, err := l.keptBelow(from)
	if err != nil || before.Size == 0 {
		return h, err
	}
	h.before = before.Note
	if h.beforeProof, err = tlog.ProveTree(int64(from), int64(before.Size), hashes); err != nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err}
	}
	if err := h.checkBefore(l.signer); err != nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err, Hint: "redoubt audit verify"}
	}
	return h, nil
}

// keptBelow is the newest checkpoint kept of at most size entries, the zero one when there is none.
func (l *Log) keptBelow(size uint64) (best Checkpoint, err error) {
	for from := uint64(0); from <= size; {
		kept, err := l.tiles.Checkpoints(from, 256)
		if err != nil {
			return best, &redoubt.Error{Op: "audit.Checkpoints", Kind: redoubt.KindOf(err), Err: err}
		}
		for _, signed := range kept {
			c, err := ParseCheckpoint(signed, l.signer)
			if err != nil || c.Size > size {
				return best, err
			}
			best = c
		}
		if len(kept) < 256 || best.Size < from {
			break
		}
		from = best.Size + 1
	}
	return best, nil
}

// checkBefore proves that the entries in front of the archive hold those of the checkpoint before it.
func (h *archiveHead) checkBefore(v note.Verifier) error {
	if len(h.before) == 0 {
		return nil
	}
	c, err := ParseCheckpoint(h.before, v)
	if err != nil {
		return err
	}
	root, err := h.edge.root()
	if err == nil && (c.Size == 0 || c.Size > h.from) {
		err = errors.New("the checkpoint before it is not before it")
	}
	if err == nil {
		err = tlog.CheckTree(h.beforeProof, int64(h.from), root, int64(c.Size), c.Root)
	}
	return err
}

// checkAfter proves that tree, of the first To entries, is what the checkpoint after the archive covers.
func (h *archiveHead) checkAfter(tree *edge, v note.Verifier) error {
	c, err := ParseCheckpoint(h.after, v)
	if err != nil {
		return err
	}
	root, err := tree.root()
	if err == nil && c.Size < h.to {
		err = errors.New("the checkpoint after it does not cover it")
	}
	if err == nil {
		err = tlog.CheckTree(h.afterProof, int64(c.Size), c.Root, int64(h.to), root)
	}
	return err
}

// Archived is what the log has on record of an archive: which entries it holds, and the SHA-256 of its file.
type Archived struct {
	From, To uint64
	Digest   [sha256.Size]byte
}

// String is the detail of the entry that puts an archive on record.
func (a Archived) String() string {
	return fmt.Sprintf("from=%d to=%d sha256=%s", a.From, a.To, hex.EncodeToString(a.Digest[:]))
}

// ParseArchived reads such an entry; ok is false for every other one.
func ParseArchived(e *Entry) (a Archived, ok bool) {
	if e.Action != string(redoubt.ActionConfirmArchive) || !e.Allow || e.Kind != "ok" {
		return a, false
	}
	fields := strings.Fields(e.Detail)
	if len(fields) != 3 {
		return a, false
	}
	var errs [3]error
	a.From, errs[0] = strconv.ParseUint(strings.TrimPrefix(fields[0], "from="), 10, 64)
	a.To, errs[1] = strconv.ParseUint(strings.TrimPrefix(fields[1], "to="), 10, 64)
	digest, err := hex.DecodeString(strings.TrimPrefix(fields[2], "sha256="))
	copy(a.Digest[:], digest)
	return a, errors.Join(errs[0], errs[1], err) == nil && a.String() == e.Detail && bytes.Equal(digest, a.Digest[:])
}
