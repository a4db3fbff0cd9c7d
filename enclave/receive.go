package enclave

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"redoubt"
	"redoubt/identity"
	"redoubt/label"
)

// Limits of what arrives from a peer.
const (
	MaxClockAhead = 5 * time.Minute // RULES 4.4: a version stamped further ahead is not taken and moves no clock
	MaxApply      = redoubt.MaxBatchEntries
)

// The rules that refuse what arrives, beside the monitor's.
const (
	ruleCustody   = "makers-signature (4.3)"
	ruleMaker     = "known-maker (4.3)"
	ruleAhead     = "clock-ahead (4.4)"
	ruleStamp     = "stamp-of-its-maker (3.1)"
	ruleForm      = "well-formed-entry"
	ruleContent   = "content-as-signed"
	ruleSubscribe = "subscription"
	ruleSigner    = "signer-of-its-kind (4.3)"
	ruleEnded     = "device-ended (4.4)"
	ruleOwn       = "speaks-for-its-own (4.3)"
	ruleLocked    = "locked-at-home (4.3)" // a device does not remove what is held or retained here
	ruleSets      = "new-labels-a-day (3.3)"
	ruleSound     = "sound-record (4.3)" // what it says cannot take effect here
)

// incoming is one entry on its way in.
type incoming struct {
	in      *redoubt.Received
	ask     ask
	from    redoubt.NodeName
	id, of  versionID
	b       *bucket
	set     *labelSet
	made    *labelSet
	tag     uint32             // of set, before there is one
	madeTag uint32             // what made adds to the maker in a stamp: nothing where it is the set
	signed  redoubt.ObjectName // as its maker signed it; in.Entry.Name is where it lies here
	encoded []byte             // as its maker signed it
	entry   *entry
	w       *write           // of a version
	record  *identity.Record // of a system record
	bucket  *bucket          // of a projection of one: what it is here
	newest  bool             // of a system record: it is the newest of its name
	custody []byte
	arrival *arrival // what was kept of its content, where something was
	fault   error    // why its content is not durable
	sum     []byte   // of an erasure: the SHA-256 of what it takes away, where that is known
}

// receive verifies one entry, decides it and takes its content in. A refusal is durable before it is returned.
func (e *Enclave) receive(ctx context.Context, l redoubt.Link, in *redoubt.Received, signed map[string]bool) (n *incoming, no *redoubt.Refusal, err error) {
	n, no, err = e.admit(ctx, l, in, signed)
	if err != nil || no != nil {
		return nil, no, err
	}
	if in.Entry.Kind != redoubt.EntryVersion && !n.system() {
		kind, rule, err := e.mayBecome(n)
		if err != nil {
			return nil, nil, err
		}
		if rule != "" {
			no, err = n.refuse(ctx, e, kind, rule, false)
			return nil, no, err
		}
		if in.Entry.Kind == redoubt.EntryRemoval && in.Entry.Hold {
			n.sum, err = e.sumBefore(n.b, n.set.label, n.in.Entry.Name.Key, n.of)
		}
		return n, nil, err
	}
	if held, err := e.holdsStamp(n); err != nil || held {
		return n, nil, err
	}
	take := e.takeIn
	if n.system() {
		take = func(_ context.Context, n *incoming) error { return e.takeRecord(n) }
	}
	if err := take(ctx, n); err != nil {
		no, err := n.failed(ctx, e, err)
		return nil, no, err
	}
	return n, nil, nil
}

// failed lets go of what was taken in of an entry, and refuses it where its content is the reason.
func (n *incoming) failed(ctx context.Context, e *Enclave, err error) (no *redoubt.Refusal, _ error) {
	if n.w != nil {
		n.w.discard()
	}
	if no, err = n.refuseContent(ctx, e, err); no != nil && !no.Later && n.arrival != nil {
		err = n.arrival.drop(ctx) // what was kept of it is not what was signed
	}
	return no, err
}

// admit verifies and decides an entry, without its content. What is admitted is not on record yet: n.entry says it, for the
// commit that comes of it.
func (e *Enclave) admit(ctx context.Context, l redoubt.Link, in *redoubt.Received, signed map[string]bool) (n *incoming, no *redoubt.Refusal, err error) {
	n = &incoming{in: in, from: l.Peer, id: versionID(in.Entry.Stamp), of: versionID(in.Entry.Of), signed: in.Entry.Name}
	if local := e.localName(in.Entry.Maker, in.Entry.Name); local != n.signed {
		own := *in // the caller's stays as it came
		own.Entry.Name = local
		n.in, in = &own, &own
	}
	n.ask = ask{op: "Apply", who: e.as(l), action: redoubt.ActionReceive, name: in.Entry.Name, guarded: e.guarded(l, in.Entry.Maker, in.Entry.Name), detail: "from " + string(l.Peer)}
	refuse := func(kind redoubt.Kind, rule string, later bool) (*incoming, *redoubt.Refusal, error) {
		no, err := n.refuse(ctx, e, kind, rule, later)
		return nil, no, err
	}
	if l.Ending == redoubt.NotesOnly {
		return refuse(redoubt.Denied, ruleEnded, false)
	}
	of, err := label.ParseText([]byte(in.Entry.Label), e.policy)
	if err != nil {
		return refuse(redoubt.Invalid, ruleForm, false)
	}
	made, err := label.ParseText([]byte(in.Entry.Made), e.policy)
	if err != nil || !of.Dominates(made) || !made.Dominates(e.floor) {
		return refuse(redoubt.Invalid, ruleForm, false)
	}
	n.ask.fresh = of
	if !n.system() {
		if n.b, err = e.bucket("Apply", in.Entry.Name.Bucket); err != nil {
			return refuse(redoubt.NoBucket, ruleForm, true)
		}
		n.ask.bucket = n.b
		n.entry, err = e.decide(ctx, n.ask)
	} else if err = e.receiveRecord(ctx, l, n, of); err != nil && n.entry != nil {
		return refuse(redoubt.KindOf(err), ruleOf(err), e.otherRange(l, in.Entry.Name.Key))
	}
	switch kind := redoubt.KindOf(err); {
	case err == nil:
	case kind == redoubt.Denied || kind == redoubt.NotFound || kind == redoubt.NoBucket:
		return nil, &redoubt.Refusal{Stamp: in.Entry.Stamp, Kind: kind, Rule: ruleOf(err)}, nil
	default:
		return nil, nil, err // the refusal could not be recorded: it is none, and the peer sends it again
	}
	n.entry.Version = n.id[:]
	if !e.raisedWell(l, in.Entry.Maker) {
		return refuse(redoubt.Denied, ruleMaker, false)
	}
	if !e.travels(l, in.Entry.Name, of, true) {
		return refuse(redoubt.Denied, ruleSubscribe, n.system() && e.otherRange(l, in.Entry.Name.Key))
	}
	if n.system() && in.Entry.Maker != e.home() {
		return refuse(redoubt.Denied, ruleSigner, false)
	}
	if kind, rule := e.genuine(l, n, signed); rule != "" {
		return refuse(kind, rule, rule == ruleMaker) // the home may yet tell of a key that is new here
	}
	if in.Entry.Stamp.Time() > e.clock().Add(MaxClockAhead).UnixNano() {
		return refuse(redoubt.Unavailable, ruleAhead, true)
	}
	if !e.stampFits(n, of, made) {
		return refuse(redoubt.Invalid, ruleStamp, false)
	}
	if !e.mayGrow(l, of, made) {
		return refuse(redoubt.QuotaExceeded, ruleSets, true)
	}
	if n.set, err = e.sets.of(ctx, of); err == nil {
		n.made, err = e.sets.of(ctx, made)
	}
	if err != nil {
		return nil, nil, err
	}
	return n, nil, nil
}

func (n *incoming) system() bool { return n.in.Entry.Name.Bucket == redoubt.SystemBucket }

// refuse puts a refusal on record; without that it is none.
func (n *incoming) refuse(ctx context.Context, e *Enclave, kind redoubt.Kind, rule string, later bool) (*redoubt.Refusal, error) {
	ent := e.describe(ctx, n.ask, false, rule)
	ent.Kind, ent.Version = kind.Error(), n.id[:]
	if err := e.record(ctx, ent); err != nil {
		return nil, err
	}
	return &redoubt.Refusal{Stamp: n.in.Entry.Stamp, Kind: kind, Rule: rule, Later: later}, nil
}

// refuseContent refuses what the content is the reason of; any other error is given back.
func (n *incoming) refuseContent(ctx context.Context, e *Enclave, err error) (*redoubt.Refusal, error) {
	if err == nil {
		return nil, nil
	}
	switch kind := redoubt.KindOf(err); kind {
	case redoubt.BadDigest, redoubt.Invalid, redoubt.TooLarge:
		return n.refuse(ctx, e, kind, ruleContent, false)
	case redoubt.DiskFull, redoubt.QuotaExceeded:
		return n.refuse(ctx, e, kind, kind.Error(), true)
	}
	return nil, err
}

func ruleOf(err error) string {
	var e *redoubt.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return ""
}

// genuine says whether the entry is well formed and signed by the node that it names as its maker.
func (e *Enclave) genuine(l redoubt.Link, n *incoming, signed map[string]bool) (redoubt.Kind, string) {
	entry := &n.in.Entry
	if !wellFormed(entry) || validName("Apply", entry.Name) != nil {
		return redoubt.Invalid, ruleForm
	}
	var err error
	asSigned := *entry
	asSigned.Name = n.signed
	if n.encoded, err = asSigned.MarshalBinary(); err != nil {
		return redoubt.Invalid, ruleForm
	}
	live, ended := e.makerKeys(l, entry.Maker)
	if len(live)+len(ended) == 0 {
		return redoubt.Denied, ruleMaker
	}
	c := &n.in.Custody
	if !c.Covers(n.encoded) {
		return redoubt.Denied, ruleCustody
	}
	root := string(entry.Maker) + "\x00" + string(c.Root[:]) + string(c.Signature[:])
	if !signed[root] {
		by := func(k ed25519.PublicKey) bool { return e.signatures.hold(c, entry.Maker, k) }
		switch {
		case slices.ContainsFunc(live, by):
			signed[root] = true
		case slices.ContainsFunc(ended, by):
			return redoubt.Denied, ruleEnded
		default:
			return redoubt.Denied, ruleMaker
		}
	}
	n.custody, err = c.AppendBinary(nil)
	if err != nil {
		return redoubt.Invalid, ruleForm
	}
	return 0, ""
}

// makerKeys are the keys that entries of a node which come over a link are signed with: those by which they are taken, and those that
// have ended, by which nothing is (ADR 23). An enclave knows of its devices what their records say. A device takes its home's word: what
// the home itself passes on stands under any key, for the home had it before that ended; what a neighbour does, under one that has not.
// This node's own entries come back to it over others, and those that it made before it lost its state.
func (e *Enclave) makerKeys(l redoubt.Link, maker redoubt.NodeName) (live, ended []ed25519.PublicKey) {
	if v, ok := e.voices()[maker]; ok {
		if l.Peer == maker && l.Ending == redoubt.TakeOnly { // it hands over its work before it is wiped
			live = append(live, l.Key)
		}
		return append(live, v.live...), v.ended
	}
	if maker == e.name {
		live = append(live, e.links.key)
	} else if maker == l.Peer {
		live = append(live, l.Key)
	} else if other, err := e.link("Apply", maker); err == nil {
		live = append(live, other.Key)
	}
	live = append(live, e.raisedKeys(maker)...)
	told := e.links.makers.Load()
	if told == nil {
		return live, nil
	}
	live = append(live, (*told)[maker]...)
	if !e.neighbour(l.Peer) {
		return live, nil
	}
	return slices.DeleteFunc(live, func(k ed25519.PublicKey) bool {
		gone := slices.ContainsFunc((*told)[endedMakers], func(end ed25519.PublicKey) bool { return end.Equal(k) })
		if gone {
			ended = append(ended, k)
		}
		return gone
	}), ended
}

// stampFits says whether the stamp is one that its maker can have given in this label set. The set need not be there: none is made for
// what is refused. Where one that is has the tag already, nothing can be taken into it.
func (e *Enclave) stampFits(n *incoming, of, made label.Label) bool {
	tag, free := e.sets.tagOf(of)
	madeTag, madeFree := e.sets.tagOf(made)
	if !free || !madeFree || of != made && tag == madeTag {
		return false
	}
	if n.tag = tag; of != made {
		n.madeTag = madeTag
	}
	if n.in.Entry.Kind != redoubt.EntryVersion && n.of.tag() != n.tag {
		return false
	}
	return n.stampedBy(n.id, n.in.Entry.Maker)
}

// stampedBy says whether a stamp is one that a node gave what it made at the entry's working label.
func (n *incoming) stampedBy(id versionID, node redoubt.NodeName) bool {
	return id == makeVersionID(id.time(), makerOf(node)^n.madeTag, n.tag)
}

// mayGrow says whether a peer may have this node make the label sets that are not there yet, and counts them. Who speaks for all may.
func (e *Enclave) mayGrow(l redoubt.Link, of, made label.Label) bool {
	return e.speaksForAll(l.Peer) || e.newSets(l.Peer, of, made, maxNewSets)
}

// newSets says whether a peer may have the sets of an entry made that are not there yet, and counts them; most: in a day.
func (e *Enclave) newSets(peer redoubt.NodeName, of, made label.Label, most int) bool {
	fresh := 0
	t := e.sets.table.Load()
	if t.byLabel[of] == nil {
		fresh++
	}
	if of != made && t.byLabel[made] == nil {
		fresh++
	}
	return fresh == 0 || e.sets.allow(peer, e.clock().Unix()/secondsADay, fresh, most)
}

const secondsADay = 24 * 60 * 60

// mayBecome says whether a removal or an alteration is its maker's to say: a device speaks for what it made itself, a home for all.
// What it is about must have the name and the working label that the entry gives, where it is here already; what is locked at the
// home no device removes.
func (e *Enclave) mayBecome(n *incoming) (redoubt.Kind, string, error) {
	if !n.stampedBy(n.of, n.in.Entry.Maker) && !e.speaksForAll(n.in.Entry.Maker) || e.ofAnother(n) {
		return redoubt.Denied, ruleOwn, nil
	}
	raw, ok, err := e.engine.Get(stampKey(n.set.id, n.of))
	if err != nil || !ok {
		return 0, "", err
	}
	_, f, key, err := e.placed(e.engine, n.set, n.of, raw)
	if err != nil {
		return 0, "", err
	}
	if redoubt.EntryKind(raw[0]) != redoubt.EntryVersion || key != n.in.Entry.Name.Key || binary.BigEndian.Uint32(raw[1:]) != n.b.id || f.rec != nil && f.rec.made != n.made.id {
		return redoubt.Invalid, ruleForm, nil
	}
	if e.lockedHere(n, f.rec) {
		return redoubt.Locked, ruleLocked, nil
	}
	return 0, "", nil
}

// lockedHere says whether a device removes what this node, its home, holds or retains.
func (e *Enclave) lockedHere(n *incoming, r *record) bool {
	return n.in.Entry.Kind == redoubt.EntryRemoval && r != nil && e.speaksForAll(e.name) && !e.speaksForAll(n.in.Entry.Maker) && r.locked(e.clock(), false)
}

// speaksForAll says whether a node may alter and remove what others made: a device's home, and an enclave, this one or a linked one,
// that is nobody's device. Who is or ever was a device of this node's is not, whatever the estate declares now.
func (e *Enclave) speaksForAll(node redoubt.NodeName) bool {
	if e.foreign(node) { // another enclave speaks for all that is of it, its devices for their own
		return e.originOf(node) == node
	}
	if home := e.home(); home != "" {
		return node == home
	}
	if _, device := e.voices()[node]; device {
		return false
	}
	_, err := e.link("Apply", node)
	return node == e.name || err == nil
}

// alters says whether this node may alter and remove a version: a device only what it made.
func (e *Enclave) alters(r *record) bool { return r.maker == string(e.name) || e.speaksForAll(e.name) }

// holdsStamp says whether a version is here already, or was and is gone for good.
func (e *Enclave) holdsStamp(n *incoming) (bool, error) {
	fate, err := e.fates(e.engine, n.set, n.id)
	if err != nil || !fate.removal.isZero() {
		return true, err
	}
	f, err := e.byID(e.engine, n.b, n.set.label, n.in.Entry.Name.Key, e.ids.versionID(n.id))
	return f.rec != nil, err
}
