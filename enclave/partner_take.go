package enclave

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// PartnerTaking takes what one partner gave, for replica: what its gateway signed becomes versions of this node's own, in ESTATE.BUCKET, under
// this estate's label for it and with the partner's label beside.
type PartnerTaking struct {
	PartnerGiving // refuses what a journal does besides
	a             *Agreement
}

// PartnerTaking gives it; NotFound where nothing is taken of that partner.
func (e *Enclave) PartnerTaking(peer redoubt.NodeName) (PartnerTaking, error) {
	a := e.partners.byPeer[peer]
	if a == nil || a.Takes == nil {
		return PartnerTaking{}, &redoubt.Error{Op: "PartnerTaking", Object: string(peer), Kind: redoubt.NotFound}
	}
	return PartnerTaking{PartnerGiving{e}, a}, nil
}

// PartnerStands is nil while the agreement with a partner is in force.
func (e *Enclave) PartnerStands(peer redoubt.NodeName) error {
	a := e.partners.byPeer[peer]
	if a == nil {
		return &redoubt.Error{Op: "PartnerStands", Object: string(peer), Kind: redoubt.NotFound}
	}
	return e.inForce(a)
}

// b peer l        the life of the partner's state, JSON
// b peer x        what was refused for good, by rule, JSON
// b peer v stamp  takenRecord, JSON
func lifeKey(peer redoubt.NodeName) []byte    { return bundleKey(peer, 'l') }
func refusedKey(peer redoubt.NodeName) []byte { return bundleKey(peer, 'x') }
func tookKey(peer redoubt.NodeName, s redoubt.Stamp) []byte {
	return append(bundleKey(peer, 'v'), s[:]...)
}

// takenRecord says what a partner's version is here.
type takenRecord struct {
	Set     string // canonical text of the label here
	Bucket  redoubt.BucketName
	Key     string
	Version redoubt.VersionID
	Gone    bool // the partner removed it: it never comes again
}

// Permit decides that a bundle of the partner's is taken, by the node itself, which asked for it.
func (t PartnerTaking) Permit(ctx context.Context, _ redoubt.Credential, action redoubt.Action, peer redoubt.NodeName) (redoubt.Link, error) {
	ent, err := t.e.decide(ctx, ask{op: string(action), who: t.e.own(t.e.ceiling), action: action, fresh: t.e.ceiling, detail: "from " + string(peer)})
	if err != nil {
		return redoubt.Link{}, err
	}
	err = t.e.inForce(t.a)
	if action != redoubt.ActionTakePartner || peer != t.a.Peer {
		err = &redoubt.Error{Op: string(action), Object: string(peer), Kind: redoubt.NotFound}
	}
	if err != nil {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return redoubt.Link{}, t.e.noted(ctx, ent, err)
	}
	return redoubt.Link{Peer: peer, Key: t.a.Key}, t.e.record(ctx, ent)
}

// Refuse records it as the node's own.
func (t PartnerTaking) Refuse(ctx context.Context, _ redoubt.Credential, action redoubt.Action, peer redoubt.NodeName, err error) error {
	return t.e.Refuse(ctx, t.e.own(t.e.ceiling), action, peer, err)
}

// Taken is what was taken of the partner.
func (t PartnerTaking) Taken(ctx context.Context, peer redoubt.NodeName) (redoubt.BundleTaking, error) {
	return t.e.Taken(ctx, peer)
}

// Take keeps it.
func (t PartnerTaking) Take(ctx context.Context, _ redoubt.Credential, peer redoubt.NodeName, taking redoubt.BundleTaking) error {
	if err := t.e.inForce(t.a); err != nil {
		return err
	}
	return t.e.keepBundle(ctx, takenKey(peer), taking, t.e.own(t.e.ceiling), redoubt.ActionTakePartner, fmt.Sprintf("bundle %d of %s", taking.Last.Serial, peer))
}

// PeerLife is the life of the partner's state.
func (t PartnerTaking) PeerLife(_ context.Context, peer redoubt.NodeName) (life [16]byte, err error) {
	_, err = t.e.bundleRecord(lifeKey(peer), &life)
	return life, err
}

// Remember keeps it.
func (t PartnerTaking) Remember(ctx context.Context, peer redoubt.NodeName, life [16]byte) error {
	raw, err := json.Marshal(life)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	b.Set(lifeKey(peer), raw)
	return t.e.commit(ctx, b, nil)
}

// Forget makes what the partner was given unknown: its state is another, and may lack it.
func (t PartnerTaking) Forget(ctx context.Context, peer redoubt.NodeName) error {
	return t.e.Forget(ctx, peer)
}

// Life is this state's.
func (t PartnerTaking) Life(ctx context.Context) ([16]byte, error) { return t.e.Life(ctx) }

// Acknowledged, Acknowledge, Budget and Spend are of links.
func (t PartnerTaking) Acknowledged(context.Context, redoubt.NodeName, string) (uint64, bool, error) {
	return 0, false, errNoJournal
}

// Acknowledge refuses.
func (t PartnerTaking) Acknowledge(context.Context, redoubt.NodeName, string, uint64) error {
	return errNoJournal
}

// Budget refuses.
func (t PartnerTaking) Budget(context.Context, redoubt.NodeName, string) (b redoubt.LinkBudget, err error) {
	return b, errNoJournal
}

// Spend refuses.
func (t PartnerTaking) Spend(context.Context, redoubt.NodeName, string, int64, int64) error {
	return errNoJournal
}

// Ticket refuses, and Redeem passes over: nothing that a partner says acknowledges anything but what it has by number.
func (t PartnerTaking) Ticket(context.Context, redoubt.NodeName, redoubt.JournalSpan) ([]byte, error) {
	return nil, errNoJournal
}

// Redeem passes over.
func (t PartnerTaking) Redeem(context.Context, redoubt.NodeName, []byte) error { return nil }

// Fetch gives nothing: a bundle between estates is packed against nothing.
func (t PartnerTaking) Fetch(context.Context, redoubt.NodeName, string, []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	return nil, nil
}

// Apply takes entries, each in a commit of its own with what it is here, so that the same once more changes nothing.
func (t PartnerTaking) Apply(ctx context.Context, peer redoubt.NodeName, in []redoubt.Received) (refused []redoubt.Refusal, err error) {
	if peer != t.a.Peer || len(in) > MaxApply {
		return nil, errNoJournal
	}
	t.e.partners.taking.Lock()
	defer t.e.partners.taking.Unlock()
	for i := range in {
		if err := t.e.inForce(t.a); err != nil { // it may end between two entries
			return nil, err
		}
		n := &partnerEntry{x: &in[i].Entry, in: &in[i]}
		no, err := t.take(ctx, n)
		if err != nil {
			return nil, err
		}
		if no != nil {
			refused = append(refused, *no)
		}
	}
	return refused, nil
}

// partnerEntry is one entry on its way in.
type partnerEntry struct {
	x        *redoubt.JournalEntry
	in       *redoubt.Received
	original label.Label // as the partner labelled it
	as       label.Label // what that is here
	name     redoubt.ObjectName
	b        *bucket
	ask      ask
	entry    *entry
}

// take is: form → signature → agreement → label → decide → version, marker or removal.
func (t PartnerTaking) take(ctx context.Context, n *partnerEntry) (*redoubt.Refusal, error) {
	e, x := t.e, n.x
	n.name = redoubt.ObjectName{Bucket: partnersBucket(t.a, x.Name.Bucket), Key: x.Name.Key}
	n.ask = ask{op: "Apply", who: e.own(e.ceiling), action: redoubt.ActionReceive, name: n.name, guarded: true, detail: "from " + string(t.a.Peer)}
	if kind, rule := t.genuine(n); rule != "" {
		return t.refuse(ctx, n, kind, rule, false)
	}
	if kind, rule := t.agreed(n); rule != "" {
		return t.refuse(ctx, n, kind, rule, false)
	}
	var err error
	if n.as, err = t.a.Takes.Convert(n.original); err != nil {
		if errors.Is(err, label.ErrExpired) {
			return nil, e.inForce(t.a)
		}
		return t.refuse(ctx, n, redoubt.Denied, ruleNoMatch, false)
	}
	if n.b, err = e.bucket("Apply", n.name.Bucket); err != nil {
		return t.refuse(ctx, n, redoubt.NoBucket, rulePact, false)
	}
	bound, err := t.a.Takes.Convert(t.a.Takes.Bound)
	if err != nil {
		return t.refuse(ctx, n, redoubt.Denied, ruleNoMatch, false)
	}
	n.ask.who = e.as(redoubt.Link{Peer: t.a.Peer, Bound: label.Meet(bound, e.ceiling)})
	n.ask.bucket, n.ask.fresh = n.b, n.as
	if n.entry, err = e.decide(ctx, n.ask); err != nil {
		if kind := redoubt.KindOf(err); kind == redoubt.Denied || kind == redoubt.NotFound || kind == redoubt.NoBucket {
			return &redoubt.Refusal{Stamp: x.Stamp, Kind: kind, Rule: ruleOf(err)}, t.countRefused(ctx, ruleOf(err))
		}
		return nil, err
	}
	if x.Kind == redoubt.EntryRemoval {
		return nil, t.remove(ctx, n)
	}
	if _, is, err := t.took(x.Stamp); err != nil {
		return nil, err
	} else if !is && !e.newSets(t.a.Peer, n.as, n.as, maxPartnerSets) {
		return t.refuse(ctx, n, redoubt.QuotaExceeded, ruleSets, true)
	}
	return t.write(ctx, n)
}

// genuine says whether the partner's gateway signed the entry as its own. A partner speaks for no maker of anybody else's.
func (t PartnerTaking) genuine(n *partnerEntry) (redoubt.Kind, string) {
	x := n.x
	if !wellFormed(x) || validName("Apply", x.Name) != nil || x.Kind == redoubt.EntryAlteration || len(x.Tags) > 0 || n.in.From != 0 || !fitMeta(x.Attributes.Meta) {
		return redoubt.Invalid, ruleForm
	}
	if x.Maker != t.a.Peer {
		return redoubt.Denied, ruleMaker
	}
	encoded, err := x.MarshalBinary()
	if err != nil {
		return redoubt.Invalid, ruleForm
	}
	if !n.in.Custody.Covers(encoded) || !n.in.Custody.Signed(x.Maker, t.a.Key) {
		return redoubt.Denied, ruleCustody
	}
	return 0, ""
}

// agreed says whether the agreement covers the entry: its bucket, and its label by the partner's own policy.
func (t PartnerTaking) agreed(n *partnerEntry) (kind redoubt.Kind, rule string) {
	if !slices.Contains(t.a.Takes.Buckets, n.x.Name.Bucket) {
		return redoubt.Denied, rulePact
	}
	var err error
	if n.original, err = label.ParseText([]byte(n.x.Label), t.a.Policy); err != nil {
		return redoubt.Invalid, ruleForm
	}
	if rule := thirdPartys(n.original); rule != "" {
		return redoubt.Denied, rule
	}
	if !t.a.Takes.Bound.Dominates(n.original) {
		return redoubt.Denied, rulePact
	}
	return 0, ""
}

// refuse puts a refusal on record, and counts it for people to see.
func (t PartnerTaking) refuse(ctx context.Context, n *partnerEntry, kind redoubt.Kind, rule string, later bool) (*redoubt.Refusal, error) {
	ent := t.e.describe(ctx, n.ask, false, rule)
	ent.Kind = kind.Error()
	if err := t.e.record(ctx, ent); err != nil {
		return nil, err
	}
	no := &redoubt.Refusal{Stamp: n.x.Stamp, Kind: kind, Rule: rule, Later: later}
	if later {
		return no, nil
	}
	return no, t.countRefused(ctx, rule)
}

func (t PartnerTaking) countRefused(ctx context.Context, rule string) error {
	all := map[string]int{}
	if _, err := t.e.bundleRecord(refusedKey(t.a.Peer), &all); err != nil {
		return err
	}
	all[rule]++
	raw, err := json.Marshal(all)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	b.Set(refusedKey(t.a.Peer), raw)
	return t.e.commit(ctx, b, nil)
}

func (t PartnerTaking) took(s redoubt.Stamp) (r takenRecord, ok bool, err error) {
	ok, err = t.e.bundleRecord(tookKey(t.a.Peer, s), &r)
	return r, ok, err
}

// tookAs finds what a version here is of the partner's. It goes through all that was taken.
func (t PartnerTaking) tookAs(version redoubt.VersionID) (s redoubt.Stamp, ok bool, err error) {
	view := t.e.engine.View()
	defer view.Close()
	prefix := bundleKey(t.a.Peer, 'v')
	it := view.Scan(prefix, nextPrefix(prefix))
	defer it.Close()
	for it.Next() {
		var r takenRecord
		if err := strictJSON(it.Value(), &r); err != nil || len(it.Key()) != len(prefix)+len(s) {
			return s, false, &redoubt.Error{Op: "PartnerTaking", Kind: redoubt.Corrupt, Err: errors.Join(err, errRecord)}
		}
		if r.Version == version {
			return redoubt.Stamp(it.Key()[len(prefix):]), true, nil
		}
	}
	return s, false, it.Err()
}

func (t PartnerTaking) note(b *store.Batch, s redoubt.Stamp, r takenRecord) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b.Set(tookKey(t.a.Peer, s), raw)
	return nil
}

// write makes the partner's version, or its delete marker, one of this node's own. What came before is here already.
func (t PartnerTaking) write(ctx context.Context, n *partnerEntry) (no *redoubt.Refusal, err error) {
	e, x := t.e, n.x
	if _, is, err := t.took(x.Stamp); err != nil || is {
		n.entry.Kind = outcomeHeld
		return nil, errors.Join(err, e.record(ctx, n.entry))
	}
	w, err := e.write(ctx, n.b, n.name, n.as, e.own(n.as))
	if err != nil {
		return nil, err
	}
	defer w.discard()
	w.rec.author, w.rec.marker = t.a.Estate+"."+string(x.Author), x.Marker
	if !x.Marker {
		if err := t.content(ctx, w, n); err != nil {
			return t.refuseContent(ctx, n, err)
		}
	}
	w.also = func(b *store.Batch) error {
		return t.note(b, x.Stamp, takenRecord{Set: e.text(n.as), Bucket: n.name.Bucket, Key: n.name.Key, Version: e.ids.versionID(w.rec.id)})
	}
	if _, err := w.commit(ctx, "Apply", redoubt.Conditions{}, n.entry); err != nil {
		return t.refuseContent(ctx, n, err)
	}
	return nil, nil
}

// content takes the content in, holds it against what was signed, and sets the originator's label beside it.
func (t PartnerTaking) content(ctx context.Context, w *write, n *partnerEntry) error {
	x := n.x
	w.rec.attrs = x.Attributes
	w.rec.attrs.Meta = map[string]string{}
	for name, value := range x.Attributes.Meta {
		if !strings.HasPrefix(strings.ToLower(name), "redoubt") { // what this node says of it no partner does
			w.rec.attrs.Meta[name] = value
		}
	}
	w.rec.attrs.Meta[redoubt.MetaOriginatorLabel] = x.Label
	if w.rec.attrs.Precedence != "" {
		if _, err := redoubt.ParsePrecedence(w.rec.attrs.Precedence); err != nil {
			return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: err}
		}
	}
	if err := w.reserve(w.least()); err != nil {
		return err
	}
	if n.in.Content == nil && x.SizeBytes > 0 {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: errors.New("a version came without its content")}
	}
	body := n.in.Content
	if body == nil {
		body = noBody{}
	}
	sum := sha256.New()
	if err := w.read(ctx, io.TeeReader(io.LimitReader(body, x.SizeBytes+1), sum), x.SizeBytes); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(sum.Sum(nil), x.Content[:]) != 1 {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.BadDigest, Rule: ruleContent}
	}
	return nil
}

// refuseContent refuses what the content is the reason of; any other error is given back.
func (t PartnerTaking) refuseContent(ctx context.Context, n *partnerEntry, err error) (*redoubt.Refusal, error) {
	switch kind := redoubt.KindOf(err); kind {
	case redoubt.BadDigest, redoubt.Invalid, redoubt.TooLarge:
		return t.refuse(ctx, n, kind, ruleContent, false)
	case redoubt.DiskFull, redoubt.QuotaExceeded:
		return t.refuse(ctx, n, kind, kind.Error(), true)
	}
	return nil, err
}

// remove follows the partner's removal: what it removed or erased goes here too, whatever it was, and never comes again.
func (t PartnerTaking) remove(ctx context.Context, n *partnerEntry) error {
	e, x := t.e, n.x
	r, is, err := t.took(x.Of)
	if err != nil {
		return err
	}
	batch := new(store.Batch)
	if !is || r.Gone {
		n.entry.Kind = outcomeHeld
		if err := t.note(batch, x.Of, takenRecord{Gone: true}); err != nil {
			return err
		}
		return e.commit(ctx, batch, n.entry)
	}
	l, err := label.ParseText([]byte(r.Set), e.policy)
	if err != nil {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Corrupt, Err: err}
	}
	b, err := e.readable("Apply", r.Bucket)
	if err != nil {
		return err
	}
	var sum []byte
	if id, ok := e.ids.parse(string(r.Version)); ok && x.Hold {
		if sum, err = e.sumBefore(b, l, r.Key, id); err != nil {
			return err
		}
	}
	defer e.lockName(b, r.Key)()
	f, err := e.byID(e.engine, b, l, r.Key, r.Version)
	if err != nil {
		return err
	}
	if err := t.note(batch, x.Of, takenRecord{Gone: true}); err != nil {
		return err
	}
	if f.rec == nil {
		n.entry.Kind = outcomeHeld
		return e.commit(ctx, batch, n.entry)
	}
	n.entry.Version = f.rec.id[:]
	noted := e.noteRemoval
	if x.Hold {
		noted = e.noteErasure
	}
	if err := noted(ctx, batch, b, f, r.Key); err != nil {
		return err
	}
	if x.Hold { // erased there: what opened it here goes too, behind the requests
		d := duty{Set: f.set.id, Bucket: b.id, Parts: f.rec.parts, Version: f.rec.id[:]}
		if err := d.add(batch, "version/"+hex.EncodeToString(f.rec.id[:])); err != nil {
			return err
		}
		if err := e.keepGone(batch, b, f, r.Key, sum, t.a.Peer); err != nil {
			return err
		}
		n.entry.Detail += e.erasedThere(f.rec.id)
	}
	if err := e.remove(batch, b, f, r.Key); err != nil {
		return err
	}
	if err := e.commit(ctx, batch, n.entry); err != nil {
		return err
	}
	e.removed(f, r.Key)
	return nil
}
