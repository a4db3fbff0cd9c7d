package audit

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// ReadArchive reads what WriteArchive wrote for v's log, strictly, and verifies it: the signature over all of it, both
// checkpoints, and that its entries lie where it says in the tree that they cover. Each of trusted (checkpoints that
// others kept) whose size the archive reaches is compared; one that differs is a fork. each, which may be nil, is called
// with every entry in order; its error ends the reading and is returned as it is. Nothing that each was given counts
// before ReadArchive returns without an error, which is redoubt.Corrupt for whatever is wrong. It needs nothing else, and
// memory for the edge of the tree only.
func ReadArchive(ctx context.Context, in io.Reader, v note.Verifier, trusted []Checkpoint, each func(n uint64, entry []byte) error) (Archive, error) {
	if v == nil {
		return Archive{}, &redoubt.Error{Op: "audit.ReadArchive", Kind: redoubt.Invalid, Err: errors.New("no verifier given")}
	}
	r := &archiveReader{ctx: ctx, in: bufio.NewReaderSize(in, 1<<16), sum: sha256.New(), verifier: v, trusted: trusted, each: each}
	err := r.run()
	switch {
	case err == nil:
		return r.out, nil
	case r.stopped != nil:
		return Archive{}, r.stopped
	case ctx.Err() != nil:
		return Archive{}, &redoubt.Error{Op: "audit.ReadArchive", Kind: redoubt.Unavailable, Err: ctx.Err()}
	}
	return Archive{}, &redoubt.Error{Op: "audit.ReadArchive", Kind: redoubt.Corrupt, Err: err}
}

type archiveReader struct {
	ctx      context.Context
	in       *bufio.Reader
	sum      hash.Hash
	verifier note.Verifier
	trusted  []Checkpoint
	each     func(n uint64, entry []byte) error
	stopped  error // what each returned

	head *archiveHead
	tree *edge
	out  Archive
}

func (r *archiveReader) run() error {
	if err := r.readHead(); err != nil {
		return err
	}
	if err := r.checkHead(); err != nil {
		return err
	}
	for r.tree.size < r.head.to {
		if err := r.entry(); err != nil {
			return err
		}
	}
	if err := r.head.checkAfter(r.tree, r.verifier); err != nil {
		return fmt.Errorf("entries %d to %d are not what was signed: %w", r.head.from, r.head.to-1, err)
	}
	r.out.Root, _ = r.tree.root() // checkAfter took it
	if err := r.signature(); err != nil {
		return err
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return errors.New("bytes after the end")
	}
	return nil
}

// take reads n bytes, which the signature covers.
func (r *archiveReader) take(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r.in, b); err != nil {
		return nil, fmt.Errorf("cut short: %w", err)
	}
	r.sum.Write(b)
	return b, nil
}

func (r *archiveReader) readHead() error {
	prefix, err := r.take(len(archiveMagic) + 4)
	if err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(prefix[len(archiveMagic):])
	if string(prefix[:len(archiveMagic)]) != archiveMagic || n > maxArchiveHead {
		return errors.New("not an audit archive")
	}
	b, err := r.take(int(n))
	if err == nil {
		r.head, err = decodeArchiveHead(b)
	}
	return err
}

// checkHead holds the head against the log that it should be of, and what is trusted of it.
func (r *archiveReader) checkHead() (err error) {
	h := r.head
	if h.origin != r.verifier.Name() {
		return fmt.Errorf("it is an archive of %q, not of %q", h.origin, r.verifier.Name())
	}
	r.tree = h.edge.clone()
	r.out = Archive{Origin: h.origin, From: h.from, To: h.to}
	if r.out.After, err = ParseCheckpoint(h.after, r.verifier); err != nil {
		return err
	}
	if len(h.before) > 0 {
		if r.out.Before, err = ParseCheckpoint(h.before, r.verifier); err != nil {
			return err
		}
	}
	if err := h.checkBefore(r.verifier); err != nil {
		return fmt.Errorf("the checkpoint before it: %w", err)
	}
	r.trusted = slices.Clone(r.trusted)
	slices.SortStableFunc(r.trusted, func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	for i, t := range r.trusted {
		if r.trusted[i], err = ParseCheckpoint(t.Note, r.verifier); err != nil {
			return fmt.Errorf("a trusted checkpoint: %w", err)
		}
		for _, own := range []Checkpoint{r.out.Before, r.out.After} {
			if own.Size == t.Size && own.Root != t.Root && own.Note != nil {
				return forkAt(t.Size)
			}
		}
	}
	return r.compare()
}

func forkAt(size uint64) error {
	return fmt.Errorf("the log was forked: another checkpoint of size %d was signed", size)
}

// compare holds the tree as it stands against the trusted checkpoints of its size.
func (r *archiveReader) compare() error {
	for len(r.trusted) > 0 && r.trusted[0].Size <= r.tree.size {
		t := r.trusted[0]
		r.trusted = r.trusted[1:]
		if t.Size < r.tree.size {
			continue
		}
		if root, err := r.tree.root(); err != nil || root != t.Root {
			return forkAt(t.Size)
		}
	}
	return nil
}

func (r *archiveReader) entry() error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	length, err := r.take(2)
	if err != nil {
		return err
	}
	b, err := r.take(int(binary.BigEndian.Uint16(length)))
	if err != nil {
		return err
	}
	n := r.tree.size
	e, err := ParseEntry(b)
	if err != nil {
		return fmt.Errorf("entry %d: %w", n, err)
	}
	if r.out.Oldest.IsZero() || e.Time.Before(r.out.Oldest) {
		r.out.Oldest = e.Time
	}
	if e.Time.After(r.out.Newest) {
		r.out.Newest = e.Time
	}
	r.tree.add(tlog.RecordHash(b), func(tlog.Tile, []tlog.Hash) {})
	if r.each != nil {
		if r.stopped = r.each(n, b); r.stopped != nil {
			return r.stopped
		}
	}
	return r.compare()
}

// signature reads the note that the log's key signed over everything before it.
func (r *archiveReader) signature() error {
	text := archiveText(r.head, r.sum)
	length, err := r.take(2)
	if err != nil {
		return err
	}
	signed, err := r.take(int(binary.BigEndian.Uint16(length)))
	if err != nil {
		return err
	}
	n, err := note.Open(signed, note.VerifierList(r.verifier))
	if err != nil {
		return err
	}
	if n.Text != text || len(n.UnverifiedSigs) > 0 {
		return errors.New("the signature is of something else")
	}
	return canonicalSignatures(signed[len(n.Text)+1:])
}

// encode gives magic, length and head. There is one form of each head.
func (h *archiveHead) encode() []byte {
	b := cryptobyte.NewBuilder([]byte(archiveMagic))
	b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) {
		text16(b, []byte(h.origin))
		b.AddUint64(h.from)
		b.AddUint64(h.to)
		text16(b, h.before)
		text16(b, h.after)
		for _, level := range h.edge.levels {
			b.AddBytes(tileBytes(level)) // how many there are follows from h.from
		}
		for _, proof := range [][]tlog.Hash{h.beforeProof, h.afterProof} {
			b.AddUint8(uint8(len(proof)))
			b.AddBytes(tileBytes(proof))
		}
	})
	return b.BytesOrPanic() // lengths are bounded: names, checkpoints and proofs
}

func text16(b *cryptobyte.Builder, text []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(text) })
}

// decodeArchiveHead reads what encode wrote behind the length, strictly.
func decodeArchiveHead(in []byte) (*archiveHead, error) {
	bad := errors.New("malformed head")
	s := cryptobyte.String(in)
	var origin, before, after cryptobyte.String
	h := &archiveHead{}
	if !s.ReadUint16LengthPrefixed(&origin) || !s.ReadUint64(&h.from) || !s.ReadUint64(&h.to) ||
		!s.ReadUint16LengthPrefixed(&before) || !s.ReadUint16LengthPrefixed(&after) {
		return nil, bad
	}
	h.origin, h.before, h.after = string(origin), before, after
	if h.from%tileWidth != 0 || h.to%tileWidth != 0 || h.from >= h.to || h.to > MaxEntries || h.to-h.from > MaxArchiveEntries {
		return nil, errors.New("not whole tiles")
	}
	h.edge = &edge{size: h.from}
	for _, t := range edgeTiles(h.from) {
		level, ok := readHashes(&s, t.W)
		if !ok {
			return nil, bad
		}
		h.edge.levels = append(h.edge.levels, level)
	}
	for _, proof := range []*[]tlog.Hash{&h.beforeProof, &h.afterProof} {
		var n uint8
		ok := s.ReadUint8(&n) && n <= 2*maxProofHashes
		if ok {
			*proof, ok = readHashes(&s, int(n))
		}
		if !ok {
			return nil, bad
		}
	}
	if !s.Empty() || len(h.before) == 0 && len(h.beforeProof) > 0 {
		return nil, bad
	}
	return h, nil
}

func readHashes(s *cryptobyte.String, n int) ([]tlog.Hash, bool) {
	var raw []byte
	if !s.ReadBytes(&raw, n*tlog.HashSize) {
		return nil, false
	}
	return tileHashes(raw), true
}

// ArchiveGap is a stretch of entries that none of some archives holds, or that two of them hold.
type ArchiveGap struct {
	From, To uint64 // entries From to To-1
	Twice    bool
}

// String says it for people.
func (g ArchiveGap) String() string {
	if g.Twice {
		return fmt.Sprintf("entries %d to %d are in two of the archives", g.From, g.To-1)
	}
	return fmt.Sprintf("entries %d to %d are in none of the archives: one is missing", g.From, g.To-1)
}

// Gaps names what is missing between the first of archives and entry end, such as the oldest that the live log keeps,
// and what stands in two of them.
func Gaps(archives []Archive, end uint64) (gaps []ArchiveGap) {
	sorted := slices.SortedFunc(slices.Values(archives), func(a, b Archive) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	for i, a := range sorted {
		next := max(end, a.To) // the last may reach into what is still kept
		if i+1 < len(sorted) {
			next = sorted[i+1].From
		}
		switch {
		case next > a.To:
			gaps = append(gaps, ArchiveGap{From: a.To, To: next})
		case next < a.To:
			gaps = append(gaps, ArchiveGap{From: next, To: min(a.To, sorted[i+1].To), Twice: true})
		}
	}
	return gaps
}
