package node

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"time"

	"redoubt"
	"redoubt/enclave"
	"redoubt/estate"
	"redoubt/replica"
)

// declaredGuards are the guards that an enclave is an end of, as it knows them.
func declaredGuards(e *estate.Estate, name redoubt.NodeName) (all []enclave.DeclaredGuard) {
	for _, n := range e.Guards(name) {
		g := enclave.DeclaredGuard{Name: n.Name, Low: n.Guard.Low, High: n.Guard.High, Releaser: n.Guard.Releaser(n.Name), Rules: n.Guard.Release.Rules(), PerPersonDay: n.Guard.Release.PerPersonDay, PerDay: n.Guard.Release.PerDay}
		if low, ok := e.Node(n.Guard.Low); ok {
			g.Floor, g.Limit = low.Floor(), low.Ceiling()
		}
		all = append(all, g)
	}
	return all
}

// bucketsOf are an enclave's buckets, those that guards write among them.
func bucketsOf(e *estate.Estate, declared estate.Node) []redoubt.Bucket {
	if declared.Kind != estate.KindEnclave {
		return declared.Buckets
	}
	all := append(append([]redoubt.Bucket{}, declared.Buckets...), e.GuardBuckets(declared.Name)...)
	all = append(all, e.PartnerBuckets(declared.Name)...)
	for _, g := range e.Guards(declared.Name) {
		if g.Guard.High == declared.Name {
			return append(all, redoubt.Bucket{Name: enclave.RebuiltBucket, BucketSettings: redoubt.BucketSettings{ReadOnly: true, Closed: true}})
		}
	}
	return all
}

// learnEvery is how often an enclave of an exercise looks for the card of one that it raises to, or takes from, and that starts beside it.
const learnEvery = 100 * time.Millisecond

// learnRaises joins an enclave to those that guards raise between: by what the estate pins, or in an exercise by their cards, as soon as
// they have written them.
func (n *Node) learnRaises(ctx context.Context, e *estate.Estate, s State, cloud *enclave.Enclave) {
	waiting := e.Guards(n.name)
	var links []redoubt.Link
	for len(waiting) > 0 {
		var rest []estate.Node
		for _, g := range waiting {
			l, err := raiseLink(e, s, g, n.name)
			if errors.Is(err, redoubt.NotFound) {
				rest = append(rest, g)
				continue
			}
			if err != nil {
				n.log.Error("a guard's raise is not joined", slog.String("guard", string(g.Name)), slog.String("kind", redoubt.KindOf(err).Error()))
				continue
			}
			links = append(links, l)
		}
		if len(rest) < len(waiting) {
			if err := cloud.SetRaises(ctx, links); err != nil {
				n.log.Error("raises are not joined", slog.String("kind", redoubt.KindOf(err).Error()))
			}
		}
		if waiting = rest; len(waiting) == 0 {
			return
		}
		select {
		case <-time.After(learnEvery):
		case <-ctx.Done():
			return
		}
	}
}

// raiseLink is one end of a guard's raise.
func raiseLink(e *estate.Estate, s State, g estate.Node, self redoubt.NodeName) (l redoubt.Link, err error) {
	other := g.Guard.Low
	if self == other {
		other = g.Guard.High
	}
	pin, ok := g.Guard.Pins[string(other)]
	if !ok {
		if !e.Exercise {
			return l, redoubt.Denied
		}
		c, err := s.Card(other)
		if err != nil {
			return l, err
		}
		if pin, err = c.Pin(); err != nil {
			return l, err
		}
	}
	low, _ := e.Node(g.Guard.Low)
	l = redoubt.Link{Peer: other, Recipient: pin.Recipient, Bound: low.Ceiling(), Raise: redoubt.RaisedAway}
	if l.Key, err = base64.StdEncoding.DecodeString(pin.Key); err != nil || len(l.Key) != ed25519.PublicKeySize {
		return l, errors.Join(err, redoubt.Corrupt)
	}
	for _, b := range g.Guard.Raise {
		sub := redoubt.Subscription{Bucket: b, Out: true}
		if self == g.Guard.High {
			sub = redoubt.Subscription{Bucket: estate.RaisedName(g.Guard.Low, b), In: true}
		}
		l.Subscriptions = append(l.Subscriptions, sub)
	}
	if self == g.Guard.High {
		l.Raise = redoubt.RaisedHere
	}
	if len(l.Subscriptions) == 0 { // a guard that releases alone
		l.Subscriptions = []redoubt.Subscription{{}}
	}
	return l, nil
}

// raisedNotes are what a lower enclave says in each bundle that goes up: whose entries are in it.
func (p *peers) raisedNotes() (out []replica.Note, err error) {
	makers, err := p.makersNotes()
	for _, body := range makers {
		out = append(out, replica.Note{Kind: noteMakers, Body: body})
	}
	return out, err
}

// raisedSaid takes it.
func (p *peers) raisedSaid(ctx context.Context, peer redoubt.NodeName, n replica.Note) error {
	var w homesWord
	if err := strictly(n.Body, &w); err != nil {
		return err
	}
	if len(w.Makers) > maxMakers {
		return &redoubt.Error{Op: "node.raisedSaid", Kind: redoubt.TooLarge}
	}
	return p.cloud.RaisedMakers(ctx, peer, whole(w.Makers))
}
