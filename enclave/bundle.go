package enclave

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"redoubt"
	"redoubt/keys"
	"redoubt/store"
)

// BundleIdentity is what opens bundles that are for this node; its public half is Link.Recipient at its peers.
func (e *Enclave) BundleIdentity() (*keys.Identity, error) { return e.keyring.BundleIdentity() }

// SignBundle signs with the key that signs this node's batches.
func (e *Enclave) SignBundle(message []byte) ([]byte, error) { return e.links.sign(message) }

// Permit decides a bundle; see redoubt.BundleLedger.
func (e *Enclave) Permit(ctx context.Context, who redoubt.Credential, action redoubt.Action, peer redoubt.NodeName) (redoubt.Link, error) {
	ent, err := e.decide(ctx, ask{op: string(action), who: who, action: action, detail: "with " + string(peer)})
	if err != nil {
		return redoubt.Link{}, err
	}
	l, err := e.link(string(action), peer)
	if rule := e.carrier(who, action, peer, l.Raise); rule != "" {
		ent.Allow, ent.Rule = false, rule
		return redoubt.Link{}, e.noted(ctx, ent, &redoubt.Error{Op: string(action), Object: string(peer), Kind: redoubt.Denied, Rule: rule})
	}
	if err != nil && (action == redoubt.ActionHandRaise || action == redoubt.ActionTakeRaise) { // declared, and this node has just started
		err = &redoubt.Error{Op: string(action), Object: string(peer), Kind: redoubt.Unavailable, Err: errors.New("the raise is not joined yet")}
	}
	if lost := e.record(ctx, ent); lost != nil {
		return redoubt.Link{}, lost
	}
	return l, err
}

// carrier says by what rule somebody does not carry bundles between this node and a peer: a raise goes by the guard that the estate declares
// for it and by nobody else, for a file that goes down tells what was taken, and one that goes up by another way takes a number that looks lost.
func (e *Enclave) carrier(who redoubt.Credential, action redoubt.Action, peer redoubt.NodeName, of redoubt.Raise) string {
	low, high := peer, e.name
	switch action {
	case redoubt.ActionHandRaise:
		low, high = e.name, peer
	case redoubt.ActionTakeRaise:
	default:
		if of != redoubt.NoRaise {
			return ruleRaise
		}
		return ""
	}
	for _, g := range e.guards {
		if string(g.Name) == string(who.Subject) && g.Low == low && g.High == high {
			return ""
		}
	}
	return ruleRaise
}

const ruleRaise = "raised-by-its-guard (4.7)"

// Refuse records that nothing came of a bundle that was permitted.
func (e *Enclave) Refuse(ctx context.Context, who redoubt.Credential, action redoubt.Action, peer redoubt.NodeName, err error) error {
	ent := e.describe(ctx, ask{who: who, action: action, detail: "with " + string(peer)}, false, cmp.Or(ruleOf(err), ruleNumbered))
	switch kind := redoubt.KindOf(err); kind {
	case redoubt.QuotaExceeded, redoubt.DiskFull, redoubt.Unavailable: // what comes again; anything else holds nothing up
		if action == redoubt.ActionTakeRaise {
			e.blockRaise(peer, kind.Error())
		}
	case redoubt.Corrupt, redoubt.TooLarge: // what stays so until a person mends it, and nothing behind it goes meanwhile
		if action == redoubt.ActionHandRaise {
			e.blockRaise(peer, kind.Error())
		}
	}
	return e.noted(ctx, ent, err)
}

func madeKey(peer redoubt.NodeName) []byte  { return bundleKey(peer, 'o') }
func takenKey(peer redoubt.NodeName) []byte { return bundleKey(peer, 'i') }

func bundleKey(peer redoubt.NodeName, way byte) []byte {
	return append(append([]byte{recBundle}, peer...), 0, way)
}

// madeRecord is the last bundle made for a peer, in one life of this state: one that was set back must not give a number twice.
type madeRecord struct {
	Life [16]byte
	Mark redoubt.BundleMark
}

// Made reads the last bundle made for a peer.
func (e *Enclave) Made(ctx context.Context, peer redoubt.NodeName) (redoubt.BundleMark, error) {
	var rec madeRecord
	life, err := e.Life(ctx)
	if err != nil {
		return rec.Mark, err
	}
	if ok, err := e.bundleRecord(madeKey(peer), &rec); err != nil || ok && rec.Life == life {
		return rec.Mark, err
	}
	var none redoubt.BundleMark
	rand.Read(none.Numbering[:])
	return none, nil
}

func (e *Enclave) bundleRecord(key []byte, into any) (ok bool, err error) {
	raw, ok, err := e.engine.Get(key)
	if err != nil || !ok {
		return false, err
	}
	if err := strictJSON(raw, into); err != nil {
		return false, &redoubt.Error{Op: "bundles", Kind: redoubt.Corrupt, Err: err}
	}
	return true, nil
}

// Make keeps the last bundle made for a peer.
func (e *Enclave) Make(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, mark redoubt.BundleMark) error {
	const op = "Make"
	e.links.bundles.Lock()
	defer e.links.bundles.Unlock()
	last, err := e.Made(ctx, peer)
	if err != nil {
		return err
	}
	if mark.Serial != last.Serial+1 || last.Serial > 0 && mark.Numbering != last.Numbering {
		return &redoubt.Error{Op: op, Object: string(peer), Kind: redoubt.Conflict, Err: errors.New("another bundle was made meanwhile"), Hint: "export again"}
	}
	life, err := e.Life(ctx)
	if err != nil {
		return err
	}
	return e.keepBundle(ctx, madeKey(peer), madeRecord{life, mark}, who, redoubt.ActionExportBundle, fmt.Sprintf("bundle %d for %s", mark.Serial, peer))
}

// keepBundle commits a record together with the audit entry of whose bundle it is of.
func (e *Enclave) keepBundle(ctx context.Context, key []byte, rec any, who redoubt.Credential, action redoubt.Action, detail string) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	b.Set(key, raw)
	return e.commit(ctx, b, e.describe(ctx, ask{who: who, action: action, detail: detail}, true, ruleNumbered))
}

// ruleNumbered is what a bundle's number is recorded under; that it may be made or taken was decided by Permit.
const ruleNumbered = "bundle-numbered"

// Taken reads what was taken of a peer.
func (e *Enclave) Taken(_ context.Context, peer redoubt.NodeName) (t redoubt.BundleTaking, err error) {
	_, err = e.bundleRecord(takenKey(peer), &t)
	return t, err
}

// Take keeps it.
func (e *Enclave) Take(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, t redoubt.BundleTaking) error {
	e.blockRaise(peer, "")
	if _, err := e.link("Take", peer); err != nil {
		return err
	}
	return e.keepBundle(ctx, takenKey(peer), t, who, redoubt.ActionImportBundle, fmt.Sprintf("bundle %d of %s", t.Last.Serial, peer))
}

// A ticket's content: this state's life, the peer's, the label set's hash, two positions, and whether it is whole.
const ticketBytes = 16 + 16 + 16 + 8 + 8 + 1

// Ticket seals a span to this node.
func (e *Enclave) Ticket(ctx context.Context, peer redoubt.NodeName, s redoubt.JournalSpan) ([]byte, error) {
	lives, err := e.lives(ctx, peer)
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, ticketBytes), lives[:]...)
	b = append(b, setHash(peer, s.Set)...)
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, s.From), s.To)
	whole := byte(0)
	if s.Whole {
		whole = 1
	}
	return e.keyring.SealBytes("ticket/"+string(peer), append(b, whole))
}

// lives is this state's life and that of the peer's as far as it is known.
func (e *Enclave) lives(ctx context.Context, peer redoubt.NodeName) (both [32]byte, err error) {
	mine, err := e.Life(ctx)
	if err != nil {
		return both, err
	}
	theirs, err := e.PeerLife(ctx, peer)
	copy(both[:], mine[:])
	copy(both[16:], theirs[:])
	return both, err
}

// Redeem acknowledges what a ticket says. A ticket made before the peer was known by its life says enough when it is whole.
func (e *Enclave) Redeem(ctx context.Context, peer redoubt.NodeName, ticket []byte) error {
	if _, err := e.link("Redeem", peer); err != nil {
		return err
	}
	b, err := e.keyring.OpenBytes("ticket/"+string(peer), ticket)
	if redoubt.KindOf(err) == redoubt.Corrupt || err == nil && len(b) != ticketBytes {
		return nil // of another state of this node, or nobody's
	}
	if err != nil {
		return err
	}
	now, err := e.lives(ctx, peer)
	if err != nil {
		return err
	}
	unknown := [16]byte(b[16:32]) == [16]byte{}
	if [16]byte(b[:16]) != [16]byte(now[:16]) || !unknown && [16]byte(b[16:32]) != [16]byte(now[16:]) {
		return nil
	}
	from, to, whole := binary.BigEndian.Uint64(b[48:]), binary.BigEndian.Uint64(b[56:]), b[64] == 1
	key := hashedCursorKey(peer, b[32:48])
	at, known, err := e.acknowledged(key)
	if err != nil || known && at >= to || !whole && (unknown || !known || at < from) {
		return err
	}
	return e.acknowledge(ctx, key, to)
}

func setHash(peer redoubt.NodeName, set string) []byte {
	sum := sha256.Sum256([]byte(string(peer) + "\x00" + set))
	return sum[:16]
}
