package enclave

import (
	"context"
	"crypto/ed25519"
	"errors"
	"maps"
	"math"
	"slices"

	"redoubt"
	"redoubt/label"
)

// Devices of one home may meet without it (ADR 22): the home tells each of them of the others.

// Neighbours is what a device is told of those that it may meet without this node, its home.
func (e *Enclave) Neighbours(name redoubt.NodeName) []redoubt.Neighbour {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	out := []redoubt.Neighbour{}
	d, ok := e.links.declared[name]
	for _, other := range slices.Sorted(maps.Keys(e.links.declared)) {
		o, r := e.links.declared[other], e.links.devices[other]
		dials := slices.Contains(d.Meets, other)
		if !ok || other == name || r == nil || r.Key == nil || !r.Ended.IsZero() || !dials && !slices.Contains(o.Meets, name) {
			continue
		}
		n := redoubt.Neighbour{Device: other, Key: r.Key, Recipient: r.Recipient, Bound: lower(d.Ceiling, o.Ceiling).Banner(), Subscriptions: between(d, o),
			Alike: d.Floor == o.Floor && d.Ceiling == o.Ceiling}
		if dials {
			n.Addresses = o.Addresses
		}
		if len(out) < redoubt.MaxNeighbours {
			out = append(out, n)
		}
	}
	return out
}

// lower is the one of two labels that the other dominates; the zero label where neither does.
func lower(a, b label.Label) label.Label {
	switch {
	case a.Dominates(b):
		return b
	case b.Dominates(a):
		return a
	}
	return label.Label{}
}

// between is what travels between two devices, as the first has it: to each what its home would send it. Where one is the lower, what it
// carries itself travels, both ways: it is told nothing of what the other carries.
func between(d, o DeclaredDevice) (out []redoubt.Subscription) {
	mine, others := d.Carries, o.Carries
	if d.Ceiling != o.Ceiling {
		if mine = d.Carries; lower(d.Ceiling, o.Ceiling) != d.Ceiling {
			mine = o.Carries
		}
		for _, s := range mine {
			if s.In {
				s.Out = true
				out = append(out, s)
			}
		}
		return orNothing(out, mine)
	}
	if len(mine) == 0 && len(others) == 0 {
		return nil
	}
	toward := func(all []redoubt.Subscription, in bool) {
		if len(all) == 0 {
			out = append(out, redoubt.Subscription{In: in, Out: !in})
		}
		for _, s := range all {
			if s.In {
				s.In, s.Out = in, !in
				out = append(out, s)
			}
		}
	}
	toward(mine, true)
	toward(others, false)
	return orNothing(out, append(slices.Clone(mine), others...))
}

// orNothing is subscriptions that carry nothing where some were cut to none: no subscriptions at all carry everything.
func orNothing(out, of []redoubt.Subscription) []redoubt.Subscription {
	if len(out) == 0 && len(of) > 0 {
		return []redoubt.Subscription{{}}
	}
	return out
}

// SetNeighbours takes a home's word for the devices that this one may meet without it. Of a word with a fault nothing is taken. Until
// one has been taken, and after one that was not, no mark of a removal is forgotten: whom it waits for is not known.
func (e *Enclave) SetNeighbours(ctx context.Context, all []redoubt.Neighbour) error {
	e.links.allKnown.Store(false)
	if len(all) > redoubt.MaxNeighbours {
		return &redoubt.Error{Op: "SetNeighbours", Kind: redoubt.TooLarge}
	}
	var links []redoubt.Link
	for _, n := range all {
		l, err := e.neighbourLink(n)
		if err != nil {
			return &redoubt.Error{Op: "SetNeighbours", Object: string(n.Device), Kind: redoubt.Invalid, Err: err}
		}
		links = append(links, l)
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	e.links.neighbours = links
	if err := e.relink(ctx); err != nil {
		return err
	}
	e.links.allKnown.Store(true)
	return nil
}

// CheckNeighbour says whether SetNeighbours would take one.
func (e *Enclave) CheckNeighbour(n redoubt.Neighbour) error {
	if _, err := e.neighbourLink(n); err != nil {
		return &redoubt.Error{Op: "SetNeighbours", Object: string(n.Device), Kind: redoubt.Invalid, Err: err}
	}
	return nil
}

func (e *Enclave) neighbourLink(n redoubt.Neighbour) (l redoubt.Link, err error) {
	l = redoubt.Link{Peer: n.Device, Key: n.Key, Recipient: n.Recipient, Relays: n.Alike}
	if n.Device == "" || n.Device == e.name || n.Device == e.home() || len(n.Key) != ed25519.PublicKeySize {
		return l, errors.New("a neighbour is another device, with a key")
	}
	if l.Bound, err = e.policy.Parse(n.Bound); err != nil {
		return l, err
	}
	if !e.ceiling.Dominates(l.Bound) {
		return l, errors.New("its bound lies above this node's ceiling")
	}
	if l.Relays && l.Bound != e.ceiling {
		return l, errors.New("its range is another than this node's")
	}
	for _, s := range n.Subscriptions {
		if s.Bound != "" {
			if s.Limit, err = e.policy.Parse(s.Bound); err != nil {
				return l, err
			}
		}
		l.Subscriptions = append(l.Subscriptions, s)
	}
	return l, nil
}

// neighbour says whether a peer is another device of this one's home.
func (e *Enclave) neighbour(peer redoubt.NodeName) bool {
	return e.home() != "" && peer != e.home()
}

// toldNeighbours says whether every neighbour that is to know of a set has acknowledged a position. The mark of a removal waits for them
// too; entries do not: a neighbour that was never met would keep them for ever, and who comes later is compared with.
func (e *Enclave) toldNeighbours(set *labelSet, position uint64) (bool, error) {
	if e.home() != "" && !e.links.allKnown.Load() {
		return false, nil
	}
	for _, l := range e.Links() {
		if !e.neighbour(l.Peer) || !l.Bound.Dominates(set.label) {
			continue
		}
		at, known, err := e.acknowledged(cursorKey(l.Peer, set.name))
		if err != nil || !known || at < position {
			return false, err
		}
	}
	return true, nil
}

// unknownPosition is that of a mark that an older version noted, which knew no neighbours.
const unknownPosition = math.MaxUint64
