package enclave

import (
	"context"

	"redoubt/store"
)

// What a guard rebuilt is kept for as long as a release of it is open, or may have left with nobody knowing.

// dropsRebuilt says whether nobody needs any more what was rebuilt of a release: it has ended, and did not leave with nobody knowing.
func (r *releaseRecord) dropsRebuilt() bool {
	return r.Rebuilt != "" && !r.Dropped && !stillOpen(r.State) && !maybeLeft(r.State, !r.Fetched.IsZero())
}

// dropRebuilt takes out what was rebuilt of a release that has ended, in the commit that keeps the release: so it is never there for nothing, and
// charged to its label for good. The caller unlocks.
func (e *Enclave) dropRebuilt(ctx context.Context, batch *store.Batch, r *releaseRecord) (gone found, unlock func(), err error) {
	if !r.dropsRebuilt() {
		return found{}, func() {}, nil
	}
	b, err := e.readable("release", RebuiltBucket)
	if err != nil {
		return found{}, nil, err
	}
	unlock = e.lockName(b, string(r.ID))
	if gone, err = e.byID(e.engine, b, e.ceiling, string(r.ID), r.Rebuilt); err == nil && gone.rec != nil {
		if err = e.noteRemoval(ctx, batch, b, gone, string(r.ID)); err == nil {
			err = e.remove(batch, b, gone, string(r.ID))
		}
	}
	if err != nil {
		unlock()
		return found{}, nil, err
	}
	r.Dropped = true
	return gone, unlock, nil
}
