package enclave

import (
	"context"
	"errors"
	"slices"

	"redoubt"
	"redoubt/label"
)

// PartnerGiving is a gateway's journal as partners see it, for replica: each sees what its agreement lets out and nothing more, as made by
// this gateway, which answers for all of it. It is asked again at every step whether the agreement is in force.
type PartnerGiving struct{ e *Enclave }

// PartnerGiving gives it.
func (e *Enclave) PartnerGiving() PartnerGiving { return PartnerGiving{e} }

var errNoJournal = &redoubt.Error{Op: "partner", Kind: redoubt.Denied, Err: errors.New("no part of what goes between estates")}

func (g PartnerGiving) agreement(peer redoubt.NodeName) (*Agreement, error) {
	a := g.e.partners.byPeer[peer]
	if a == nil || a.Gives == nil {
		return nil, &redoubt.Error{Op: "partner", Object: string(peer), Kind: redoubt.NotFound}
	}
	return a, g.e.inForce(a)
}

// Permit decides that a partner's gateway may be handed what is for it, and for nobody else.
func (g PartnerGiving) Permit(ctx context.Context, who redoubt.Credential, action redoubt.Action, peer redoubt.NodeName) (redoubt.Link, error) {
	ent, err := g.e.decide(ctx, ask{op: string(action), who: who, action: action, detail: "to " + string(peer)})
	if err != nil {
		return redoubt.Link{}, err
	}
	if action != redoubt.ActionHandPartner || string(who.Subject) != string(peer) {
		ent.Allow, ent.Rule = false, ruleGateway
		return redoubt.Link{}, g.e.noted(ctx, ent, &redoubt.Error{Op: string(action), Kind: redoubt.Denied, Rule: ruleGateway})
	}
	if _, err := g.agreement(peer); err != nil {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return redoubt.Link{}, g.e.noted(ctx, ent, err)
	}
	if err := g.e.RefreshPartners(ctx); err != nil {
		return redoubt.Link{}, err
	}
	if err := g.e.record(ctx, ent); err != nil {
		return redoubt.Link{}, err
	}
	return g.e.link(string(action), peer)
}

// Refuse is that of the enclave.
func (g PartnerGiving) Refuse(ctx context.Context, who redoubt.Credential, action redoubt.Action, peer redoubt.NodeName, err error) error {
	return g.e.Refuse(ctx, who, action, peer, err)
}

// Made is that of the enclave, and so is HandOver's and Handed's record.
func (g PartnerGiving) Made(ctx context.Context, peer redoubt.NodeName) (redoubt.BundleMark, error) {
	return g.e.Made(ctx, peer)
}

// Make refuses: a partner fetches, and no file is carried to it.
func (g PartnerGiving) Make(context.Context, redoubt.Credential, redoubt.NodeName, redoubt.BundleMark) error {
	return errNoJournal
}

// Taken is empty: what comes of a partner is no answer to what it was given.
func (g PartnerGiving) Taken(context.Context, redoubt.NodeName) (t redoubt.BundleTaking, err error) {
	return t, nil
}

// Take refuses.
func (g PartnerGiving) Take(context.Context, redoubt.Credential, redoubt.NodeName, redoubt.BundleTaking) error {
	return errNoJournal
}

// Handed takes the partner's word for what it has, also where that is less than before.
func (g PartnerGiving) Handed(ctx context.Context, peer redoubt.NodeName, have redoubt.BundleMark) ([]uint64, error) {
	a, err := g.agreement(peer)
	if err != nil {
		return nil, err
	}
	if err := g.e.lessThanBefore(ctx, a, have); err != nil {
		return nil, err
	}
	return g.e.Handed(ctx, peer, have)
}

// HandOver keeps that a bundle was made. Until it has, what was written is no bundle: so an agreement that ended meanwhile let nothing out.
func (g PartnerGiving) HandOver(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, mark redoubt.BundleMark, b redoubt.RaisedBundle) error {
	if _, err := g.agreement(peer); err != nil {
		return err
	}
	return g.e.HandOver(ctx, who, peer, mark, b)
}

// HandedOver is nothing: a partner that lost what it has is given everything anew.
func (g PartnerGiving) HandedOver(_ context.Context, peer redoubt.NodeName, _ uint64) (b redoubt.RaisedBundle, err error) {
	return b, &redoubt.Error{Op: "HandedOver", Object: string(peer), Kind: redoubt.NotFound}
}

// Begun is that of the enclave.
func (g PartnerGiving) Begun(ctx context.Context, peer redoubt.NodeName) (map[string]redoubt.JournalSpan, error) {
	if _, err := g.agreement(peer); err != nil {
		return nil, err
	}
	return g.e.Begun(ctx, peer)
}

// Passed is that of the enclave.
func (g PartnerGiving) Passed(ctx context.Context, peer redoubt.NodeName, s redoubt.JournalSpan) error {
	if _, err := g.agreement(peer); err != nil {
		return err
	}
	return g.e.Passed(ctx, peer, s)
}

// LeftOut is that of the enclave.
func (g PartnerGiving) LeftOut(ctx context.Context, peer redoubt.NodeName) (map[string][]redoubt.Stamp, error) {
	if _, err := g.agreement(peer); err != nil {
		return nil, err
	}
	return g.e.LeftOut(ctx, peer)
}

// Awaits is that of the enclave.
func (g PartnerGiving) Awaits(ctx context.Context, peer redoubt.NodeName) (uint64, bool, error) {
	return g.e.Awaits(ctx, peer)
}

// Sets names the label sets that the agreement covers: of this estate's own material, releasable to the partner, and without an
// originator's mark that asks for a consent (RULES 1.5).
func (g PartnerGiving) Sets(ctx context.Context, peer redoubt.NodeName) ([]string, error) {
	a, err := g.agreement(peer)
	if err != nil {
		return nil, err
	}
	all, err := g.e.Sets(ctx, peer)
	return slices.DeleteFunc(all, func(set string) bool { return g.mayGo(a, set) != nil }), err
}

func (g PartnerGiving) mayGo(a *Agreement, set string) error {
	l, err := label.ParseText([]byte(set), g.e.policy)
	if err == nil && a.Gives.Bound.Dominates(l) && thirdPartys(l) == "" {
		return nil
	}
	return &redoubt.Error{Op: "partner", Object: string(a.Peer), Kind: redoubt.NotFound}
}

func (g PartnerGiving) covers(peer redoubt.NodeName, set string) error {
	a, err := g.agreement(peer)
	if err != nil {
		return err
	}
	return g.mayGo(a, set)
}

// Since is the enclave's, of what the agreement covers.
func (g PartnerGiving) Since(ctx context.Context, peer redoubt.NodeName, set string, after uint64, max int) ([]redoubt.JournalRef, uint64, error) {
	if err := g.covers(peer, set); err != nil {
		return nil, after, err
	}
	return g.e.Since(ctx, peer, set, after, max)
}

// Refs likewise.
func (g PartnerGiving) Refs(ctx context.Context, peer redoubt.NodeName, set string, stamps []redoubt.Stamp) ([]redoubt.JournalRef, error) {
	if err := g.covers(peer, set); err != nil {
		return nil, err
	}
	return g.e.Refs(ctx, peer, set, stamps)
}

// Inventory likewise.
func (g PartnerGiving) Inventory(ctx context.Context, peer redoubt.NodeName, set string, each func(redoubt.Stamp) error) (uint64, error) {
	if err := g.covers(peer, set); err != nil {
		return 0, err
	}
	return g.e.Inventory(ctx, peer, set, each)
}

// Fetch gives entries as the partner is to have them, under one signature of this gateway's.
func (g PartnerGiving) Fetch(ctx context.Context, peer redoubt.NodeName, set string, stamps []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	a, err := g.agreement(peer)
	if err == nil {
		err = g.mayGo(a, set)
	}
	if err != nil {
		return nil, err
	}
	items, err := g.e.Fetch(ctx, peer, set, stamps)
	if err != nil {
		return nil, err
	}
	var out []redoubt.JournalItem
	var encoded [][]byte
	for _, item := range items {
		if !g.goes(a, &item.Entry) {
			continue
		}
		item.Entry = outward(a, &item.Entry)
		b, err := item.Entry.MarshalBinary()
		if err != nil {
			return nil, err
		}
		out, encoded = append(out, item), append(encoded, b)
	}
	if len(out) == 0 {
		return nil, nil
	}
	custodies, err := redoubt.SealBatch(a.Self, encoded, g.e.links.sign)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Custody = custodies[i]
	}
	return out, nil
}

// goes says whether an entry is for a partner: a version or its removal, in one of the agreement's buckets, that this estate made.
func (g PartnerGiving) goes(a *Agreement, x *redoubt.JournalEntry) bool {
	return x.Kind != redoubt.EntryAlteration && !g.e.foreign(x.Maker) && plainBucket(x.Name.Bucket) && slices.Contains(a.Gives.Buckets, x.Name.Bucket) && !ofPartner(x.Attributes)
}

// outward is an entry without what is this estate's own business: its working label, tags, locks, parts, and what it was built on.
func outward(a *Agreement, x *redoubt.JournalEntry) redoubt.JournalEntry {
	out := redoubt.JournalEntry{Kind: x.Kind, Stamp: x.Stamp, Of: x.Of, Label: x.Label, Made: x.Label, Maker: a.Self, Name: x.Name}
	if x.Kind == redoubt.EntryVersion {
		out.Author, out.Marker, out.SizeBytes, out.Attributes, out.Content = x.Author, x.Marker, x.SizeBytes, shown(x.Attributes), x.Content
		out.Attributes.StorageClass = ""
	} else {
		out.Hold = x.Hold // erased: the partner is told to destroy its keys too
	}
	return out
}

// Changed is that of the enclave.
func (g PartnerGiving) Changed() <-chan struct{} { return g.e.Changed() }

// What else a journal does goes between nodes of one estate alone.

// Apply refuses.
func (g PartnerGiving) Apply(context.Context, redoubt.NodeName, []redoubt.Received) ([]redoubt.Refusal, error) {
	return nil, errNoJournal
}

// Arriving refuses.
func (g PartnerGiving) Arriving(context.Context, redoubt.NodeName) ([]redoubt.Arrival, error) {
	return nil, errNoJournal
}

// Begin refuses.
func (g PartnerGiving) Begin(context.Context, redoubt.NodeName, redoubt.Received) (at redoubt.Arrival, held bool, no *redoubt.Refusal, err error) {
	return at, false, nil, errNoJournal
}

// Keep refuses.
func (g PartnerGiving) Keep(context.Context, redoubt.NodeName, redoubt.Received, []byte) (*redoubt.Refusal, error) {
	return nil, errNoJournal
}

// KeepPart refuses.
func (g PartnerGiving) KeepPart(context.Context, redoubt.NodeName, redoubt.Received, redoubt.Stretch, []redoubt.Stretch) (*redoubt.Refusal, error) {
	return nil, errNoJournal
}

// Part refuses.
func (g PartnerGiving) Part(context.Context, redoubt.NodeName, redoubt.Arrival) ([]byte, []redoubt.Stretch, error) {
	return nil, nil, errNoJournal
}

// Lacking refuses.
func (g PartnerGiving) Lacking(context.Context, redoubt.NodeName, string, []redoubt.Stamp) ([]redoubt.Stamp, error) {
	return nil, errNoJournal
}
