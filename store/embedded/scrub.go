package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"redoubt"
	"redoubt/store"
)

// Scrub destroys what was deleted in [lower, upper) and every unlinked blob; see store.Engine. It waits for views that were
// open when it began, and for uploads under way in segments that hold dead bytes, as long as ctx
// allows. It takes the time of rewriting the range and the touched segments.
func (e *Engine) Scrub(ctx context.Context, lower, upper []byte) error {
	if err := e.enter("store.Scrub"); err != nil {
		return err
	}
	defer e.leave()
	return diskError("store.Scrub", e.scrub(ctx, lower, upper))
}

func (e *Engine) scrub(ctx context.Context, lower, upper []byte) error {
	if err := e.awaitViews(ctx); err != nil {
		return err
	}
	e.maintainMu.Lock()
	defer e.maintainMu.Unlock()
	if err := e.submit(ctx, &request{rotate: true, done: make(chan error, 1)}); err != nil {
		return err
	}
	e.ext.retireAll()
	if err := e.sealFull(); err != nil {
		return err
	}
	if err := e.scrubIndex(ctx, lower, upper); err != nil {
		return err
	}
	if err := e.scrubBlobs(ctx); err != nil {
		return err
	}
	return e.scrubFrames()
}

func (e *Engine) awaitViews(ctx context.Context) error {
	e.viewMu.Lock()
	old := make([]*view, 0, len(e.views))
	for v := range e.views {
		old = append(old, v)
	}
	e.viewMu.Unlock()
	return e.await(ctx, func() (bool, error) {
		e.viewMu.Lock()
		defer e.viewMu.Unlock()
		for _, v := range old {
			if v.snap != nil {
				return false, nil
			}
		}
		return true, nil
	})
}

// scrubIndex rewrites the range, waits until the files that held it are gone, and
// renews the list of files twice, since it names the first and last key of each and keeps one predecessor.
func (e *Engine) scrubIndex(ctx context.Context, lower, upper []byte) error {
	if err := e.flushIndex(); err != nil {
		return err
	}
	from, to := userKey(nil, lower), []byte{sortUser + 1}
	if upper != nil {
		to = userKey(nil, upper)
	}
	before := e.fs.tables()
	if string(from) < string(to) {
		if err := e.compactIndex(ctx, from, to); err != nil {
			return err
		}
	}
	if err := e.awaitTables(ctx, before); err != nil {
		return err
	}
	if err := e.renewManifest(ctx); err != nil {
		return err
	}
	return indexError(e.fs.persist())
}

// renewManifest lets pebble begin its list of files anew until the lists of before are
// gone: they name the first and last key of each file. It does so once there have been as many
// changes as there are files, so this takes about twice as many small flushes.
func (e *Engine) renewManifest(ctx context.Context) error {
	before := e.fs.named("MANIFEST-")
	for {
		left := false
		for _, name := range e.fs.named("MANIFEST-") {
			left = left || slices.Contains(before, name)
		}
		if !left {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return unavailable("store.Scrub", err)
		}
		if err := e.stuck(); err != nil { // each makes a table more
			return err
		}
		if err := e.idx.Set([]byte{sortNothing}, nil, pebble.NoSync); err != nil {
			return indexError(err)
		}
		if err := e.flushIndex(); err != nil {
			return err
		}
	}
}

// awaitTables waits until those files of before that the index no longer uses are removed.
func (e *Engine) awaitTables(ctx context.Context, before []string) error {
	return e.await(ctx, func() (bool, error) {
		if err := e.stuck(); err != nil {
			return false, err
		}
		used, err := e.usedTables() // again each time: a file may have been about to be used
		if err != nil {
			return false, err
		}
		for _, name := range e.fs.tables() {
			if slices.Contains(before, name) && !used[name] {
				return false, nil
			}
		}
		return true, nil
	})
}

// usedTables are the table files that the index uses.
func (e *Engine) usedTables() (map[string]bool, error) {
	levels, err := e.idx.SSTables()
	if err != nil {
		return nil, indexError(err)
	}
	used := map[string]bool{}
	for _, level := range levels {
		for _, t := range level {
			used[tableFile(uint64(t.BackingSSTNum))] = true
		}
	}
	return used, nil
}

// scrubBlobs empties and removes every closed segment that holds a dead byte.
func (e *Engine) scrubBlobs(ctx context.Context) error {
	dirty := func(seg *segment) bool {
		if seg.active || seg.gone {
			return false
		}
		if seg.kind == kindExtent {
			return seg.live < max(seg.ever, seg.high-headerBytes)
		}
		return seg.live < seg.ever
	}
	err := e.await(ctx, func() (bool, error) {
		e.segs.mu.Lock()
		defer e.segs.mu.Unlock()
		for _, seg := range e.segs.byID {
			if dirty(seg) && seg.staged > 0 {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, seg := range e.pick(func(seg *segment, _ int64) bool { return dirty(seg) }) {
		if err := e.evacuate(ctx, seg, 0); err != nil {
			return err
		}
		e.segs.mu.Lock()
		left := seg.live
		e.segs.mu.Unlock()
		if left != 0 {
			return &redoubt.Error{Op: "store.Scrub", Kind: redoubt.Internal, Err: errLeft}
		}
	}
	return e.dropDead()
}

// scrubFrames destroys the frames' keys of the log segments that stay for their blobs:
// the index holds all that the frames say.
func (e *Engine) scrubFrames() error {
	durable, err := e.durableSeq()
	if err != nil {
		return err
	}
	for _, seg := range e.pick(func(seg *segment, _ int64) bool {
		return seg.kind == kindLog && !seg.header.retired && seg.maxSeq <= durable
	}) {
		h := seg.header
		h.retired = true
		clear(h.metaKey[:])
		if err := e.rewriteHeader(seg, h); err != nil {
			return diskError("store.Scrub", err)
		}
	}
	return nil
}

var errLeft = errors.New("a blob could not be moved")

func refOf(key []byte) store.BlobRef { return store.BlobRef(binary.BigEndian.Uint64(key)) }
