package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"redoubt/store"
)

// Check reads everything back: every page of the index, every key of it, every full log segment against its sum, every
// frame of the others, and every blob; and it counts again what the index says of
// each segment. It runs beside other calls and slows them; see store.Engine.
func (e *Engine) Check(ctx context.Context, report func(fault string)) (faults int, err error) {
	if err := e.enter("store.Check"); err != nil {
		return 0, err
	}
	defer e.leave()
	e.maintainMu.Lock() // segments stay put
	defer e.maintainMu.Unlock()
	fault := func(format string, args ...any) {
		faults++
		report(fmt.Sprintf(format, args...))
	}
	e.checkFormat(fault)
	if err := e.checkIndex(ctx, fault); err != nil {
		return faults, err
	}
	if err := e.checkSegments(ctx, fault); err != nil {
		return faults, err
	}
	return faults, e.checkBlobs(ctx, fault)
}

type faultFunc func(format string, args ...any)

func (e *Engine) checkFormat(fault faultFunc) {
	if _, err := readManifest(e.o.FS, e.o.FS.PathDir(e.dir)); err != nil {
		fault("format file: %v", err)
	}
	if err := e.fs.check(); err != nil {
		fault("table of file keys: %v", err)
	}
}

// checkIndex reads every byte of every file of the index, then every key. A table that the index does not use is none of it: one that is half written, or
// was when the power failed, and is removed soon.
func (e *Engine) checkIndex(ctx context.Context, fault faultFunc) error {
	buf := make([]byte, 64<<10)
	names, _ := e.fs.List("")
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return unavailable("store.Check", err)
		}
		broken := e.checkFile(name, buf)
		if broken == nil || !e.fs.has(name) { // it may have gone meanwhile
			continue
		}
		if isPaged(name) {
			used, err := e.usedTables()
			if err != nil {
				return err
			}
			if !used[name] {
				continue
			}
		}
		fault("index file: %v", broken)
	}
	snap := e.idx.NewSnapshot()
	defer snap.Close()
	it, err := snap.NewIter(nil)
	if err != nil {
		fault("index: %v", err)
		return nil
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if _, err := it.ValueAndErr(); err != nil {
			break
		}
	}
	if err := it.Error(); err != nil {
		fault("index: %v", err)
	}
	return nil
}

func (e *Engine) checkFile(name string, buf []byte) error {
	f, err := e.fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		_, err := f.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// checkSegments reads headers, sums and frames.
func (e *Engine) checkSegments(ctx context.Context, fault faultFunc) error {
	e.segs.mu.Lock()
	all := make([]*segment, 0, len(e.segs.byID))
	for _, seg := range e.segs.byID {
		all = append(all, seg)
	}
	e.segs.mu.Unlock()
	for _, seg := range all {
		if err := ctx.Err(); err != nil {
			return unavailable("store.Check", err)
		}
		if err := e.checkSegment(seg); err != nil {
			fault("segment %d: %v", seg.id, err)
		}
	}
	return nil
}

func (e *Engine) checkSegment(seg *segment) error {
	e.segs.mu.Lock()
	h, gone, active := seg.header, seg.gone, seg.active
	e.segs.mu.Unlock()
	if gone {
		return nil
	}
	found, page, err := e.segs.readHeaders(seg.f, seg.name)
	if err != nil {
		return err
	}
	if len(found) != headerCopies || found[0] != h || found[1] != h {
		return errors.New("header does not verify")
	}
	const used = len(segmentMagic) + headerPlain + sealOverhead
	if !allZero(page[used:headerStride]) || !allZero(page[headerStride+used:]) {
		return errors.New("header is not clean")
	}
	switch {
	case seg.kind == kindExtent:
		return nil // its blobs are checked one by one
	case h.sealed:
		crc, err := seg.checksum(int64(h.length))
		if err == nil && crc != h.crc {
			err = errors.New("sum does not match")
		}
		return err
	}
	return e.checkFrames(seg, active)
}

// checkFrames verifies the frames of a log segment that is not sealed. While it is appended to, only
// what the index had when the check came is looked at.
func (e *Engine) checkFrames(seg *segment, active bool) error {
	end, err := e.appliedEnd(seg, active)
	if err != nil {
		return err
	}
	head := make([]byte, frameHead)
	off := int64(headerBytes)
	for off < end {
		if err := readZeroed(seg.f, head, off); err != nil {
			return err
		}
		total, _, _, ok := frameLength(head)
		if !ok {
			return errFrame
		}
		frame := make([]byte, total)
		if err := readZeroed(seg.f, frame, off); err != nil {
			return err
		}
		if _, err := openFrame(seg.meta, seg.id, off, frame); err != nil {
			return err
		}
		off += int64(total)
	}
	return nil
}

func (e *Engine) appliedEnd(seg *segment, active bool) (int64, error) {
	if !active {
		return seg.length, nil
	}
	v, ok, err := lookup(e.idx, stateKey)
	if err != nil || !ok {
		return 0, err
	}
	s, err := decodeState(v)
	if s.segment != seg.id {
		return 0, err // made ahead of need, or taken up this instant
	}
	return s.off, err
}

// checkBlobs reads every blob, and counts the live bytes of each segment again.
func (e *Engine) checkBlobs(ctx context.Context, fault faultFunc) error {
	v := e.View().(*view)
	defer v.Close()
	snap, err := v.snapshot("store.Check")
	if err != nil {
		return err
	}
	live := map[uint64]int64{}
	buf := make([]byte, readAtOnce)
	err = eachBlob(ctx, snap, func(ref store.BlobRef, loc location) error {
		for _, r := range loc.runs {
			live[r.segment] += loc.disk(r)
			back, ok, err := lookup(snap, reverseKey(r.segment, r.off))
			if err != nil || !ok || len(back) != 8 || refOf(back) != ref {
				fault("blob %d: reverse entry is wrong (%v)", ref, err)
			}
		}
		if err := e.checkBlob(ref, loc, buf); err != nil {
			fault("blob %d: %v", ref, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return checkUsage(snap, live, fault)
}

func (e *Engine) checkBlob(ref store.BlobRef, loc location, buf []byte) error {
	pinned, ok := e.segs.pin(loc.runs)
	if !ok {
		b, err := e.OpenBlob(ref) // moved since the view was taken
		if err != nil {
			return err
		}
		defer b.Close()
		return readThrough(b, buf)
	}
	b := &blob{e: e, ref: ref, loc: loc, pinned: pinned}
	defer b.Close()
	return readThrough(b, buf)
}

func readThrough(b store.Blob, buf []byte) error {
	for off := int64(0); off < b.Size(); off += int64(len(buf)) {
		if _, err := b.ReadAt(buf, off); err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

func checkUsage(r pebble.Reader, live map[uint64]int64, fault faultFunc) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{sortSegment}, UpperBound: []byte{sortSegment + 1}})
	if err != nil {
		return indexError(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		id := binary.BigEndian.Uint64(it.Key()[1:])
		if got := int64(binary.BigEndian.Uint64(it.Value())); got != live[id] {
			fault("segment %d: %d live bytes noted, %d found", id, got, live[id])
		}
		delete(live, id)
	}
	for id, n := range live {
		if n > 0 {
			fault("segment %d: %d live bytes, none noted", id, n)
		}
	}
	return indexError(it.Error())
}
