package enclave

import (
	"context"
	"encoding/binary"
	"encoding/hex"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// countPending bounds what is counted of one label set: more is told as that many.
const countPending = 100_000

// Pending counts what a peer has not acknowledged, in the label sets that shows says yes to.
func (e *Enclave) Pending(ctx context.Context, peer redoubt.NodeName, shows func(set string) bool) (p redoubt.LinkPending, err error) {
	sets, err := e.Sets(ctx, peer)
	if err != nil {
		return p, err
	}
	for _, set := range sets {
		if !shows(set) {
			continue
		}
		after, known, err := e.Acknowledged(ctx, peer, set)
		if err != nil {
			return p, err
		}
		if !known { // of what the peer has: all of it may be wanting
			if err := e.pendingWhole(ctx, peer, set, &p); err != nil {
				return p, err
			}
			continue
		}
		for counted := 0; counted < countPending; {
			refs, upTo, err := e.Since(ctx, peer, set, after, 1000)
			if err != nil {
				return p, err
			}
			if upTo == after {
				break
			}
			after, counted = upTo, counted+len(refs)
			for _, r := range refs {
				p.Add(r.Precedence, 1, r.SizeBytes)
			}
		}
	}
	return p, nil
}

// pendingWhole counts all of a set.
func (e *Enclave) pendingWhole(ctx context.Context, peer redoubt.NodeName, set string, p *redoubt.LinkPending) error {
	var all []redoubt.Stamp
	_, err := e.Inventory(ctx, peer, set, func(s redoubt.Stamp) error {
		if all = append(all, s); len(all) > countPending {
			return errCounted
		}
		return nil
	})
	if err != nil && err != errCounted {
		return err
	}
	refs, err := e.Refs(ctx, peer, set, all)
	for _, r := range refs {
		p.Add(r.Precedence, 1, r.SizeBytes)
	}
	return err
}

// errCounted ends an inventory of which no more is wanted.
var errCounted = &redoubt.Error{Op: "Pending", Kind: redoubt.TooLarge}

func spentKey(peer redoubt.NodeName, set string) []byte {
	return append(append(append([]byte{recSpent}, peer...), 0), hex.EncodeToString(setHash(peer, set))...)
}

// Budget reads what may be sent of a set in a day, and what was.
func (e *Enclave) Budget(_ context.Context, peer redoubt.NodeName, text string) (b redoubt.LinkBudget, err error) {
	budgets := e.links.budgets.Load()
	if budgets == nil || (*budgets)[peer] == nil {
		return b, nil
	}
	of, err := label.ParseText([]byte(text), e.policy)
	if err != nil {
		return b, &redoubt.Error{Op: "Budget", Kind: redoubt.Invalid, Err: err}
	}
	b.Label, b.PerDay = of.Banner(), (*budgets)[peer](of)
	v, ok, err := e.engine.Get(spentKey(peer, text))
	if err != nil || !ok {
		return b, err
	}
	if len(v) != 16 {
		return b, &redoubt.Error{Op: "Budget", Kind: redoubt.Corrupt, Err: errRecord}
	}
	b.Day, b.Spent = int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))
	return b, nil
}

// Spend adds to what was sent of a set on a day. Of a day that is over nothing is counted any more.
func (e *Enclave) Spend(ctx context.Context, peer redoubt.NodeName, text string, day, bytes int64) error {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	was, err := e.Budget(ctx, peer, text)
	if err != nil || day < was.Day {
		return err
	}
	if day == was.Day {
		bytes += was.Spent
	}
	b := new(store.Batch)
	b.Set(spentKey(peer, text), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(day)), uint64(bytes)))
	return e.commit(ctx, b, nil)
}
