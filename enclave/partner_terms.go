package enclave

import (
	"context"

	"redoubt"
	"redoubt/store"
)

// An agreement that is signed anew may give more than the one before, or turn into labels there what that did not. How far a partner has a label set says
// nothing then of what was passed over in it. So under other terms everything is given once more, and so it is to a partner that lost what it had; a partner
// takes nothing twice.

const overTerms = "it was given to a partner under terms that are no more: it is not told of the erasure, and whether it is gone there the partner knows"

// given is what an agreement gives, as a device's carriage is kept (spillformer.go).
func (a *Agreement) given() DeclaredDevice {
	d := DeclaredDevice{Name: a.Peer, Ceiling: a.Gives.Bound}
	for _, b := range a.Gives.Buckets {
		d.Carries = append(d.Carries, redoubt.Subscription{Bucket: b, In: true})
	}
	return d
}

// noteTerms keeps what partners are given now, and begins anew with those that are given by other terms than before. links.deviceMu is held.
func (e *Enclave) noteTerms(ctx context.Context) error {
	for _, a := range e.partners.all {
		if a.Gives == nil || e.inForce(a) != nil {
			continue
		}
		all, changed, err := e.carriedNow(a.Peer, a.given(), a.Terms)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		b := new(store.Batch)
		if err := setCarried(b, a.Peer, all); err != nil {
			return err
		}
		if len(all) == 1 { // the first that are known
			err = e.commit(ctx, b, nil)
		} else {
			err = e.handAnew(ctx, a.Peer, b, e.forgetGiven(a))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetGiven makes unknown how far a partner has what it is given. Of label sets that it is not given any more it stays known: a spill report goes by it.
func (e *Enclave) forgetGiven(a *Agreement) func(*store.Batch) error {
	return func(b *store.Batch) error {
		for _, set := range e.sets.all() {
			if a.Gives.Bound.Dominates(set.label) {
				b.Delete(cursorKey(a.Peer, set.name))
			}
		}
		return nil
	}
}

// lessThanBefore begins anew with a partner that has less than it said before: its state is a backup that was restored, or another. It may have nothing to
// give by which that would show.
func (e *Enclave) lessThanBefore(ctx context.Context, a *Agreement, have redoubt.BundleMark) error {
	var rec handoverRecord
	if _, err := e.bundleRecord(handoverKey(a.Peer), &rec); err != nil || rec.Has == 0 {
		return err
	}
	if last, err := e.Made(ctx, a.Peer); err != nil || have.Numbering == last.Numbering && have.Serial >= rec.Has {
		return err
	}
	return e.handAnew(ctx, a.Peer, new(store.Batch), e.forgetGiven(a))
}

// givenBefore gives the links that a partner had by other terms than those of now.
func (e *Enclave) givenBefore(peer redoubt.NodeName, now redoubt.Link) (out []spillLink, err error) {
	out, err = e.carriedBefore(peer)
	for i := range out {
		out[i].Partner, out[i].over, out[i].now = true, overTerms, now
	}
	return out, err
}
