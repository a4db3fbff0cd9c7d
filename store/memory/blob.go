package memory

import (
	"bytes"
	"context"
	"errors"

	"redoubt"
	"redoubt/store"
)

// staged is a blob being written, by one writer at a time.
type staged struct {
	e    *Engine
	ref  store.BlobRef
	data []byte
	// Under e.mu:
	settled, finished, linked, discarded bool
}

// Stage begins a blob.
func (e *Engine) Stage(ctx context.Context) (store.Staged, error) {
	return e.stage(ctx, 0)
}

// StageAs begins a blob under a given name; see store.Restorer.
func (e *Engine) StageAs(ctx context.Context, ref store.BlobRef) (store.Staged, error) {
	if ref == 0 {
		return nil, &redoubt.Error{Op: "store.StageAs", Kind: redoubt.Exists}
	}
	return e.stage(ctx, ref)
}

func (e *Engine) stage(ctx context.Context, ref store.BlobRef) (store.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, unavailable("store.Stage", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, unavailable("store.Stage", errClosed)
	}
	if ref == 0 {
		ref = e.next
	} else if _, taken := e.blobs.find(refKey(ref)); taken || e.claimed[ref] {
		return nil, &redoubt.Error{Op: "store.StageAs", Kind: redoubt.Exists}
	} else {
		e.claimed[ref] = true
	}
	e.next = max(e.next, ref+1)
	return &staged{e: e, ref: ref}, nil
}

// Write adds p to the blob.
func (s *staged) Write(p []byte) (int, error) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if s.settled || s.finished || s.discarded {
		return 0, &redoubt.Error{Op: "store.Write", Kind: redoubt.Invalid, Err: errors.New("blob is settled, finished or discarded")}
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

// Settle ends the writing.
func (s *staged) Settle() error { return s.reach("store.Settle", &s.settled) }

// Finish makes the blob ready to be linked.
func (s *staged) Finish() error { return s.reach("store.Finish", &s.finished) }

func (s *staged) reach(op string, state *bool) error {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if s.discarded {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("blob is discarded")}
	}
	*state = true
	return nil
}

func (s *staged) Ref() store.BlobRef { return s.ref }
func (s *staged) Size() int64        { return int64(len(s.data)) }

// Discard forgets the blob unless it was linked.
func (s *staged) Discard() {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	delete(s.e.claimed, s.ref)
	if !s.linked {
		s.discarded = true
	}
}

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

// OpenBlob reads a linked blob, or one that an open view still sees.
func (e *Engine) OpenBlob(ref store.BlobRef) (store.Blob, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, unavailable("store.OpenBlob", errClosed)
	}
	if n, ok := e.blobs.find(refKey(ref)); ok {
		return blob{bytes.NewReader(n.value)}, nil
	}
	for _, d := range e.dead {
		if d.ref == ref {
			return blob{bytes.NewReader(d.data)}, nil
		}
	}
	return nil, &redoubt.Error{Op: "store.OpenBlob", Kind: redoubt.NotFound}
}
