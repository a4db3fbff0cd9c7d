package enclave

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"redoubt"
	"redoubt/access"
	"redoubt/label"
	"redoubt/store"
)

// links is what an enclave knows of those it replicates with. Without a link nothing here costs a write anything.
type links struct {
	blocked sync.Map   // redoubt.NodeName → string: why a raise is not taken now
	bundles sync.Mutex // one number for a bundle at a time
	mu      sync.Mutex // serialises changes of the table
	table   atomic.Pointer[map[redoubt.NodeName]redoubt.Link]
	sign    func(message []byte) ([]byte, error)
	key     ed25519.PublicKey
	budgets atomic.Pointer[map[redoubt.NodeName]func(label.Label) int64]
	grown   broadcast   // a journal
	journal atomic.Bool // there is or was a link: what is written is journaled

	fixed      []redoubt.Link // given at the start: a device's, to its home
	raises     []redoubt.Link // that guards carry, from here or to here
	neighbours []redoubt.Link // of a device: as its home told
	allKnown   atomic.Bool    // of a device: neighbours is its home's last word, and not less
	declared   map[redoubt.NodeName]DeclaredDevice
	altered    broadcast // the table
	makers     atomic.Pointer[map[redoubt.NodeName][]ed25519.PublicKey]
	raised     atomic.Pointer[map[redoubt.NodeName]map[redoubt.NodeName][]ed25519.PublicKey] // by the lower enclave that told of them

	voices   atomic.Pointer[map[redoubt.NodeName]voice] // of what devices says, for who does not wait
	deviceMu sync.Mutex                                 // serialises changes of devices; taken before mu
	devices  map[redoubt.NodeName]*deviceRecord
}

// linked says whether versions are journaled: whether there is anybody to send them to, or ever was. Who had a link and has none
// now may have one again, and a journal with a hole in it would lose what was written meanwhile.
func (e *Enclave) linked() bool { return e.links.journal.Load() }

// link finds a peer's link. A peer without one is answered as a name never used.
func (e *Enclave) link(op string, peer redoubt.NodeName) (redoubt.Link, error) {
	if t := e.links.table.Load(); t != nil {
		if l, ok := (*t)[peer]; ok {
			return l, nil
		}
	}
	return redoubt.Link{}, &redoubt.Error{Op: op, Object: string(peer), Kind: redoubt.NotFound}
}

// as is the peer's subject, working at the link's bound: what is sent to it and taken from it is decided as hers.
func (e *Enclave) as(l redoubt.Link) redoubt.Credential {
	return redoubt.Credential{ID: linkCredential, Subject: access.LinkSubject(l.Peer), Working: l.Bound, Expires: e.clock().Add(linkLease)}
}

// subscribed says whether a name travels over the link at a label, in the direction asked.
func subscribed(l redoubt.Link, name redoubt.ObjectName, of label.Label, in bool) bool {
	return len(l.Subscriptions) == 0 || slices.ContainsFunc(l.Subscriptions, func(s redoubt.Subscription) bool { return s.Carries(name, of, in) })
}

// latestOnly says whether every subscription that covers a name at a label, either way, carries the latest version alone.
func latestOnly(l redoubt.Link, name redoubt.ObjectName, of label.Label) bool {
	latest := false
	for _, s := range l.Subscriptions {
		if s.Carries(name, of, true) || s.Carries(name, of, false) {
			if !s.Latest {
				return false
			}
			latest = true
		}
	}
	return latest
}

// superseded says whether a version need not travel over a link that carries the latest alone: a newer one of its name and label is
// here. One that builds on another node's version travels nonetheless, so that what follows is not taken for a conflict with that.
// Both ends of a link work it out alike.
func (e *Enclave) superseded(get getter, l redoubt.Link, b *bucket, f found, key string) (bool, error) {
	if !latestOnly(l, redoubt.ObjectName{Bucket: b.Name, Key: key}, f.set.label) {
		return false, nil
	}
	if base := f.rec.base; !base.isZero() && base.maker() != f.rec.id.maker() {
		return false, nil
	}
	raw, ok, err := get.Get(headKey(b.id, f.set.id, key))
	if err != nil || !ok {
		return false, err
	}
	head, err := decodeRecord(raw)
	if err != nil {
		return false, &redoubt.Error{Op: "journal", Kind: redoubt.Corrupt, Err: err}
	}
	return head.id != f.rec.id, nil
}

func cursorKey(peer redoubt.NodeName, set string) []byte {
	return hashedCursorKey(peer, setHash(peer, set))
}

// Acknowledged reads how far a peer has a set. Of one that was retired while the journal went on nothing is known any more.
func (e *Enclave) Acknowledged(_ context.Context, peer redoubt.NodeName, text string) (uint64, bool, error) {
	at, known, err := e.acknowledged(cursorKey(peer, text))
	if err != nil || !known {
		return 0, false, err
	}
	of, err := label.ParseText([]byte(text), e.policy)
	if err != nil {
		return at, true, nil
	}
	if set := e.sets.table.Load().byLabel[of]; set != nil {
		if gone, trimmed, err := e.trimmed(set); err != nil || trimmed && at < gone {
			return 0, false, err
		}
	}
	return at, true, nil
}

// Acknowledge keeps it.
func (e *Enclave) Acknowledge(ctx context.Context, peer redoubt.NodeName, set string, position uint64) error {
	if _, err := e.link("Acknowledge", peer); err != nil {
		return err
	}
	was, known, err := e.Acknowledged(ctx, peer, set)
	if err != nil || known && was >= position {
		return err
	}
	return e.acknowledge(ctx, cursorKey(peer, set), position)
}

// Forget makes everything about a peer unknown.
func (e *Enclave) Forget(ctx context.Context, peer redoubt.NodeName) error {
	b := new(store.Batch)
	view := e.engine.View()
	defer view.Close()
	prefix := peerKey(peer)
	it := view.Scan(prefix, after(prefix))
	defer it.Close()
	for it.Next() {
		b.Delete(bytes.Clone(it.Key()))
	}
	if err := it.Err(); err != nil {
		return err
	}
	b.Delete(madeKey(peer)) // the numbers of bundles begin anew
	return e.commit(ctx, b, nil)
}

var lifeMark = []byte{recMark, 'n'}

// Life reads the life of this state, and begins one where there is none.
func (e *Enclave) Life(ctx context.Context) (life [16]byte, err error) {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	v, ok, err := e.engine.Get(lifeMark)
	if err != nil {
		return life, err
	}
	if !ok {
		rand.Read(life[:])
		b := new(store.Batch)
		b.Set(lifeMark, life[:])
		return life, e.commit(ctx, b, nil)
	}
	if len(v) != len(life) {
		return life, &redoubt.Error{Op: "Life", Kind: redoubt.Corrupt, Err: errRecord}
	}
	return [16]byte(v), nil
}

// LinkView decides that somebody may see a node's links, and gives what of them: a filter of label sets.
func (e *Enclave) LinkView(ctx context.Context, who redoubt.Credential) (shows func(set string) bool, err error) {
	entry, err := e.decide(ctx, ask{op: "LinkStatus", who: who, action: redoubt.ActionLinkStatus})
	if err != nil {
		return nil, err
	}
	return func(set string) bool {
		l, err := label.ParseText([]byte(set), e.policy)
		return err == nil && who.Working.Dominates(l)
	}, e.noteRead(ctx, entry)
}

// DecideCut decides that somebody may cut a link or restore it, and records it.
func (e *Enclave) DecideCut(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, cut bool) error {
	const op = "CutLink"
	detail := "restore " + string(peer)
	if cut {
		detail = "cut " + string(peer)
	}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionCutLink, detail: detail})
	if err != nil {
		return err
	}
	if _, err := e.link(op, peer); err != nil {
		return e.noted(ctx, entry, err)
	}
	return e.record(ctx, entry)
}

// DecideSilence decides that somebody may begin or end radio silence on the link to a peer, and records it.
func (e *Enclave) DecideSilence(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, silent bool) error {
	const op = "SilenceLink"
	detail := "speak to " + string(peer)
	if silent {
		detail = "silent to " + string(peer)
	}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSilenceLink, detail: detail})
	if err != nil {
		return err
	}
	if _, err := e.link(op, peer); err != nil {
		return e.noted(ctx, entry, err)
	}
	return e.record(ctx, entry)
}

func peerKey(peer redoubt.NodeName) []byte { return append(append([]byte{recCursor}, peer...), 0) }

// PeerLife reads which life of a peer's state is known.
func (e *Enclave) PeerLife(_ context.Context, peer redoubt.NodeName) (life [16]byte, err error) {
	v, ok, err := e.engine.Get(peerKey(peer))
	if err == nil && ok && len(v) != len(life) {
		err = &redoubt.Error{Op: "PeerLife", Kind: redoubt.Corrupt, Err: errRecord}
	}
	if err != nil || !ok {
		return life, err
	}
	return [16]byte(v), nil
}

// Remember keeps it.
func (e *Enclave) Remember(ctx context.Context, peer redoubt.NodeName, life [16]byte) error {
	if _, err := e.link("Remember", peer); err != nil {
		return err
	}
	b := new(store.Batch)
	b.Set(peerKey(peer), life[:])
	return e.commit(ctx, b, nil)
}

// Changed tells when a journal has grown.
func (e *Enclave) Changed() <-chan struct{} { return e.links.grown.wait() }

// broadcast wakes everybody who waits.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// SetLinks replaces the table of links. The first link that a node ever has makes it enter what it holds already.
func (e *Enclave) SetLinks(ctx context.Context, all []redoubt.Link) error {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	table := make(map[redoubt.NodeName]redoubt.Link, len(all))
	budgets := map[redoubt.NodeName]func(label.Label) int64{}
	for _, l := range all {
		if l.Peer == "" || l.Peer == e.name || l.Bound.IsZero() || l.Raise != redoubt.RaisedAway && len(l.Key) != ed25519.PublicKeySize {
			return &redoubt.Error{Op: "SetLinks", Object: string(l.Peer), Kind: redoubt.Invalid, Err: errors.New("a link names a peer, its key and a bound")}
		}
		table[l.Peer] = l
		if len(l.Budget) > 0 {
			of, err := e.quotas(l.Budget)
			if err != nil {
				return &redoubt.Error{Op: "SetLinks", Object: string(l.Peer), Kind: redoubt.Invalid, Err: err}
			}
			budgets[l.Peer] = of
		}
	}
	_, indexed, err := e.engine.Get(indexedMark)
	if err != nil {
		return err
	}
	e.links.journal.Store(indexed || len(table) > 0)
	e.links.budgets.Store(&budgets)
	e.links.table.Store(&table)
	if indexed || len(table) == 0 {
		return nil
	}
	for _, b := range *e.buckets.Load() { // who did not see the table yet has committed
		b.gate.Lock()
		b.gate.Unlock() //nolint:staticcheck // an empty section: it waits
	}
	return e.index(ctx)
}

const indexAtOnce = 1000

// index enters every version that was there before the first link.
func (e *Enclave) index(ctx context.Context) error {
	view := e.engine.View()
	defer view.Close()
	batch := new(store.Batch)
	flush := func() error {
		err := e.engine.Commit(ctx, batch)
		batch = new(store.Batch)
		return err
	}
	for _, b := range *e.buckets.Load() {
		for _, set := range e.sets.all() {
			err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
				if !e.journaled(b.id, key) {
					return nil
				}
				var rec record
				if _, _, err := rec.decodeHead(raw); err != nil {
					return &redoubt.Error{Op: "index", Kind: redoubt.Corrupt, Err: err}
				}
				batch.Set(stampKey(set.id, rec.id), placeOf(redoubt.EntryVersion, b.id, key))
				if len(batch.Writes) < indexAtOnce {
					return ctx.Err()
				}
				return flush()
			})
			if err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if err := e.sweep(ctx); err != nil {
		return err
	}
	batch.Set(indexedMark, nil)
	return flush()
}

// sweep takes out of the index what was removed while it was made.
func (e *Enclave) sweep(ctx context.Context) error {
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.all() {
		prefix := setKey(recStamp, set.id)
		it := view.Scan(prefix, after(prefix))
		for it.Next() {
			id, raw := versionID(it.Key()[len(prefix):]), bytes.Clone(it.Value())
			if redoubt.EntryKind(raw[0]) != redoubt.EntryVersion {
				continue
			}
			if err := e.sweepOne(ctx, set, id, raw); err != nil {
				return errors.Join(err, it.Close())
			}
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return err
		}
	}
	return nil
}

// sweepOne drops a stamp whose version is gone. Only what was removed after the index was begun is.
func (e *Enclave) sweepOne(ctx context.Context, set *labelSet, id versionID, raw []byte) error {
	b, f, key, err := e.placed(e.engine, set, id, raw)
	if err != nil || b == nil || f.rec != nil {
		return err
	}
	defer e.locks.lock(b.id, key)()
	if _, f, _, err = e.placed(e.engine, set, id, raw); err != nil || f.rec != nil {
		return err
	}
	gone := new(store.Batch)
	gone.Delete(stampKey(set.id, id))
	return e.engine.Commit(ctx, gone)
}

// JournalKey is the public key that this node's entries are signed with.
func (e *Enclave) JournalKey() ed25519.PublicKey { return e.links.key }

// signBatches takes the node's key for what it makes.
func (e *Enclave) signBatches() error {
	signer, err := e.keyring.Signer()
	if err != nil {
		return err
	}
	e.links.key = signer.Public().(ed25519.PublicKey)
	e.links.sign = func(message []byte) ([]byte, error) { return signer.Sign(nil, message, crypto.Hash(0)) }
	return nil
}
