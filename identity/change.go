package identity

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"redoubt"
)

// Limits on changes.
const (
	// MaxPendingChanges is about 8 MiB at worst, and more than two officers look through. All changes lie at the node's
	// ceiling, and only who works there proposes one: that the limit is reached tells nobody below.
	MaxPendingChanges = 256
	MaxChangeLife     = 30 * 24 * time.Hour // an approval is for now, not for next year
	MaxSignatures     = 8                   // two are needed; some may turn out not to be independent
)

// The rules by which officers' signatures are refused.
const (
	RuleOfficer     = "live-officer (4.2)"         // the signer is no security officer now, or it is not her signature
	RuleNotOneself  = "not-oneself (4.2)"          // nobody signs for herself
	RuleTwo         = "two-officers (4.2)"         // the same officer signed already
	RuleIndependent = "granter-and-grantee (4.2)"  // one of the two made the other
	RuleRevoked     = "revoked-for-good (4.4)"     // a revocation outlives what it revokes
	RuleNewestWins  = "no-older-change (4.4)"      // an old change does not undo a newer one
	RuleOneKey      = "one-key-one-person (4.2)"   // the public key is, or was, another's
	RuleDead        = "dead-after-its-time (4.2)"  // the change expired
	RuleHere        = "signed-for-this-node (4.2)" // an erasure names its node, a person none
)

// States of a change.
const (
	statePending  = "pending"
	stateInEffect = "in effect"
	stateDead     = "dead"
)

// Propose takes a change with one officer's signature or more. With two that may approve together it takes
// effect: the Change says so by its State, and the records carry it out. An erasure in effect is for the
// caller to carry out.
//
// Invalid: a malformed change. Denied: by one of the rules above. Exists: proposed already. Conflict: a
// newer change of that person stands. QuotaExceeded: MaxPendingChanges wait, and it would be one more; what two have
// signed takes effect however many wait.
func (r *Registry) Propose(c redoubt.Change) (redoubt.Change, []Record, error) {
	const op = "identity.Propose"
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Clock()
	if err := r.checkChange(c); err != nil {
		return redoubt.Change{}, nil, invalid(op, c.ID, err)
	}
	c.ID = redoubt.ChangeID(c)
	if _, again := r.changes[c.ID]; again {
		return redoubt.Change{}, nil, &redoubt.Error{Op: op, Object: c.ID, Kind: redoubt.Exists, Hint: "approve it"}
	}
	if err := r.permitted(op, c, now); err != nil {
		return redoubt.Change{}, nil, err
	}
	sigs := c.Signatures
	c.Signatures = nil
	c, recs, err := r.sign(op, c, sigs, now)
	if waiting := r.pending(now); err == nil && c.State == statePending && waiting >= MaxPendingChanges {
		return redoubt.Change{}, nil, &redoubt.Error{Op: op, Object: c.ID, Kind: redoubt.QuotaExceeded,
			Hint: fmt.Sprintf("%d changes wait for approval; approve some or let them expire", waiting)}
	}
	return c, recs, err
}

// pending counts the changes that wait; r.mu is held.
func (r *Registry) pending(now time.Time) (n int) {
	for _, rec := range r.changes {
		if r.state(rec, now) == statePending {
			n++
		}
	}
	return n
}

// Approve adds an officer's signature to a change that waits. Errors are as of Propose, and NotFound: no such
// change.
func (r *Registry) Approve(id string, sig redoubt.Signature) (redoubt.Change, []Record, error) {
	const op = "identity.Approve"
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Clock()
	rec, ok := r.changes[id]
	if !ok {
		return redoubt.Change{}, nil, &redoubt.Error{Op: op, Object: id, Kind: redoubt.NotFound}
	}
	if !rec.Effective.IsZero() {
		return redoubt.Change{}, nil, &redoubt.Error{Op: op, Object: id, Kind: redoubt.Conflict, Hint: "it is in effect already"}
	}
	if err := r.permitted(op, rec.Change, now); err != nil {
		return redoubt.Change{}, nil, err
	}
	c := rec.Change
	// Who signed and is an officer no more counts no more.
	c.Signatures = slices.DeleteFunc(slices.Clone(c.Signatures), func(s redoubt.Signature) bool {
		_, err := r.signer(op, c, s, now)
		return err != nil
	})
	if len(c.Signatures) >= MaxSignatures {
		return redoubt.Change{}, nil, &redoubt.Error{Op: op, Object: id, Kind: redoubt.QuotaExceeded, Hint: "propose it anew"}
	}
	return r.sign(op, c, []redoubt.Signature{sig}, now)
}

// sign adds signatures to c, whose own are verified, and carries it out when two of all may approve together.
func (r *Registry) sign(op string, c redoubt.Change, sigs []redoubt.Signature, now time.Time) (redoubt.Change, []Record, error) {
	var signers []*person
	for _, s := range c.Signatures {
		p, err := r.signer(op, c, s, now)
		if err != nil {
			return redoubt.Change{}, nil, err
		}
		signers = append(signers, p)
	}
	enough := false
	for _, s := range sigs {
		p, err := r.signer(op, c, s, now)
		if err != nil {
			return redoubt.Change{}, nil, err
		}
		for _, other := range signers {
			if other.Name == p.Name {
				return redoubt.Change{}, nil, refused(op, c.ID, RuleTwo, "it has this officer's signature already; another security officer must sign")
			}
			enough = enough || independent(p, other, redoubt.RoleOfficer)
		}
		if len(signers) > 0 && !enough {
			return redoubt.Change{}, nil, refused(op, c.ID, RuleIndependent,
				"who granted a role cannot approve together with the one it was granted to; ask another officer")
		}
		signers = append(signers, p)
		c.Signatures = append(c.Signatures, s)
	}
	if !enough {
		out := []Record{encode(KindChange, c.ID, changeRecord{Change: c})}
		c.State = statePending
		return c, out, nil
	}
	return r.effect(c, signers, now)
}

// effect gives the records of a change that two have signed.
func (r *Registry) effect(c redoubt.Change, signers []*person, now time.Time) (redoubt.Change, []Record, error) {
	at := now.UTC()
	out := []Record{encode(KindChange, c.ID, changeRecord{Change: c, Effective: at})}
	if c.Kind == redoubt.ChangePerson {
		next, err := r.compile(*c.Person)
		if err != nil {
			return redoubt.Change{}, nil, invalid("identity.Approve", c.ID, err)
		}
		var names []redoubt.SubjectName
		for _, s := range signers {
			names = append(names, s.Name)
		}
		old, _ := r.person(c.Person.Name)
		out = append(out, encode(KindPerson, personRecordName(c), personRecord{
			Change: c, Effective: at, GrantedBy: granters(old, next, names),
		}))
	}
	c.State = stateInEffect
	return c, out, nil
}

// signer gives the live officer whose signature over c this is. Being gone, never there, no officer and a bad signature
// are one refusal.
func (r *Registry) signer(op string, c redoubt.Change, s redoubt.Signature, now time.Time) (*person, error) {
	if c.Person != nil && s.Signer == c.Person.Name {
		return nil, refused(op, c.ID, RuleNotOneself, "nobody signs for herself; ask another officer")
	}
	p, ok := r.person(s.Signer)
	if !ok || !p.has(redoubt.RoleOfficer, now) || len(s.Sig) > 128 || !signedBy(p.key[:], redoubt.ChangeMessage(c), s.Sig) {
		return nil, refused(op, c.ID, RuleOfficer, "a security officer signs with her own key, the change exactly as it stands")
	}
	return p, nil
}

// permitted holds a change against what stands now: anew at every signature.
func (r *Registry) permitted(op string, c redoubt.Change, now time.Time) error {
	if !now.Before(c.Expires) {
		return refused(op, c.ID, RuleDead, "propose it anew")
	}
	if c.Kind != redoubt.ChangePerson {
		if c.Node != r.o.Node {
			return refused(op, c.ID, RuleHere, "sign it for "+string(r.o.Node))
		}
		return nil
	}
	if c.Node != "" {
		return refused(op, c.ID, RuleHere, "a person is signed for the whole estate: leave the node out")
	}
	if r.told[c.Person.Name] {
		return refused(op, c.ID, RuleHome, "its home tells this node of that person: propose the change there")
	}
	if _, revoked := r.revoked[KindPerson+"/"+string(c.Person.Name)]; revoked {
		return refused(op, c.ID, RuleRevoked, "a revoked name is never used again; choose another")
	}
	next, err := r.compile(*c.Person)
	if err != nil {
		return invalid(op, c.ID, err)
	}
	if owner, taken := r.keys[string(next.key[:])]; taken && owner != next.Name {
		return refused(op, c.ID, RuleOneKey, "everybody has a key of her own")
	}
	if old, ok := r.person(next.Name); ok && !c.Made.After(old.made) {
		return &redoubt.Error{Op: op, Object: c.ID, Kind: redoubt.Conflict, Rule: RuleNewestWins,
			Hint: "a newer change of this person stands; read it and propose anew"}
	}
	return nil
}

// checkChange is the form of a change, whatever stands.
func (r *Registry) checkChange(c redoubt.Change) error {
	now := r.o.Clock()
	switch {
	case c.ID != "" && c.ID != redoubt.ChangeID(c):
		return errors.New("the ID is not that of the content")
	case c.State != "":
		return errors.New("the state is for the node to say")
	case len(c.Signatures) == 0 || len(c.Signatures) > MaxSignatures:
		return fmt.Errorf("a change comes with 1 to %d signatures", MaxSignatures)
	case len(c.Reason) > maxReasonBytes || !utf8.ValidString(c.Reason):
		return errors.New("the reason is too long or not UTF-8")
	case c.Made.IsZero() || c.Made.After(now.Add(redoubt.MintSkew)):
		return errors.New("the time it was made is missing or ahead of this node's clock")
	case !c.Expires.After(c.Made) || c.Expires.Sub(c.Made) > MaxChangeLife:
		return fmt.Errorf("a change expires after it was made, within %v", MaxChangeLife)
	}
	switch c.Kind {
	case redoubt.ChangePerson:
		if c.Person == nil || c.Label != "" || c.Bucket != "" {
			return errors.New("a person change carries a person alone")
		}
		if c.Person.Revoked {
			return errors.New("revoking is not a change: it takes one officer and effect at once")
		}
		if !now.Before(c.Person.Expires) {
			return errors.New("the clearance has expired already; to end a person, revoke her")
		}
		_, err := r.compile(*c.Person)
		return err
	case redoubt.ChangeEraseLabel:
		if c.Person != nil || c.Bucket != "" || len(c.Label) > maxMarkingBytes {
			return errors.New("an erasure by label carries a label alone")
		}
		_, err := r.o.Policy.Parse(c.Label)
		return err
	case redoubt.ChangeEraseBucket:
		if c.Person != nil || c.Label != "" || c.Bucket == "" || len(c.Bucket) > maxNameBytes ||
			!utf8.ValidString(string(c.Bucket)) || c.Bucket == redoubt.SystemBucket {
			return errors.New("an erasure by bucket carries a bucket alone")
		}
		return nil
	}
	return errors.New("unknown kind of change")
}

// Changes lists every change, the newest first, each with its State.
func (r *Registry) Changes() []redoubt.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Clock()
	all := make([]redoubt.Change, 0, len(r.changes))
	for _, rec := range r.changes {
		c := rec.Change
		c.State = r.state(rec, now)
		c.Signatures = slices.Clone(c.Signatures)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b redoubt.Change) int {
		return cmp.Or(b.Made.Compare(a.Made), compare(a.ID, b.ID))
	})
	return all
}

// Change gives one change by its ID; false when there is none. Its State is not filled in.
func (r *Registry) Change(id string) (redoubt.Change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.changes[id]
	return rec.Change, ok
}

func (r *Registry) state(rec changeRecord, now time.Time) string {
	switch {
	case !rec.Effective.IsZero():
		return stateInEffect
	case !now.Before(rec.Change.Expires):
		return stateDead
	}
	return statePending
}

func (r *Registry) takeChange(rec Record) error {
	var in changeRecord
	if err := decode(rec, &in); err != nil {
		return err
	}
	c := in.Change
	if raw, err := hex.DecodeString(c.ID); err != nil || len(raw) != 32 || c.ID != rec.Name || c.ID != redoubt.ChangeID(c) {
		return errors.New("the ID is not that of the content")
	}
	if c.State != "" || len(c.Signatures) == 0 || len(c.Signatures) > MaxSignatures || sameSigner(c.Signatures) {
		return errors.New("not a change record")
	}
	if !in.Effective.IsZero() && len(c.Signatures) < 2 {
		return errors.New("in effect with one signature")
	}
	if old, ok := r.changes[c.ID]; ok && !old.Effective.IsZero() {
		return nil // what is in effect stays so
	}
	r.changes[c.ID] = in
	return nil
}

func compare(a, b string) int { return cmp.Compare(a, b) }
