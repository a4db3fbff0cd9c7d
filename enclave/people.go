package enclave

import (
	"context"
	"slices"

	"redoubt"
	"redoubt/audit"
	"redoubt/identity"
	"redoubt/store"
)

// loadIdentity brings the view of people up to what is on record: at a device what its home tells stands over the rest.
func (e *Enclave) loadIdentity(ctx context.Context) error {
	if err := e.loadTold(true); err != nil {
		return err
	}
	for _, kind := range identity.Kinds() {
		err := e.Records(ctx, kind, func(name string, value []byte) error {
			return e.identity.Load(identity.Record{Kind: kind, Name: name, Value: value})
		})
		if err != nil {
			return err
		}
	}
	return e.loadTold(false)
}

// enact makes what identity planned durable with its audit entry and with what devices are told of it, then effective. b may
// hold what belongs to it. peopleMu is held, but by who mints: those records are nobody else's.
func (e *Enclave) enact(ctx context.Context, b *store.Batch, entry *entry, recs []identity.Record) error {
	for _, r := range recs {
		if err := e.putRecord(ctx, b, r.Kind, r.Name, r.Value); err != nil {
			return err
		}
	}
	if err := e.tellPeople(ctx, b, recs); err != nil {
		return err
	}
	if err := e.commit(ctx, b, entry); err != nil {
		return err
	}
	e.standingMu.Lock() // what was committed under a right that ends is committed now; nothing is afterwards
	defer e.standingMu.Unlock()
	e.identity.Apply(recs...)
	return nil
}

// SigningKey gives a SigV4 key; see redoubt.Authenticator.
func (e *Enclave) SigningKey(_ context.Context, accessKeyID string, s redoubt.Scope) ([32]byte, redoubt.Credential, error) {
	return e.identity.SigningKey(accessKeyID, s)
}

// Bearer verifies a token.
func (e *Enclave) Bearer(_ context.Context, token string) (redoubt.Credential, error) {
	return e.identity.Bearer(token)
}

// Refused records a failure to authenticate, with its like.
func (e *Enclave) Refused(_ context.Context, remote, reason string) {
	e.recorder.Unauthenticated(&audit.Entry{Action: "Authenticate", Rule: reason, Source: remote, Kind: redoubt.Unauthenticated.Error()})
}

// MintCredential makes a credential for whoever signed the request.
func (e *Enclave) MintCredential(ctx context.Context, req redoubt.MintRequest) (redoubt.Minted, error) {
	minted, who, recs, err := e.identity.Mint(req) // promises a slot; several at once share a sync
	if err != nil {
		return redoubt.Minted{}, err
	}
	if err := e.partnersLive(req.Subject); err != nil {
		return redoubt.Minted{}, err
	}
	entry := e.describe(ctx, ask{who: who, action: redoubt.ActionMint}, true, "own key (4.1)")
	if err := e.enact(ctx, new(store.Batch), entry, recs); err != nil {
		return redoubt.Minted{}, err
	}
	return minted, nil
}

// RevokeCredential ends a credential; it bites before this returns. A subject ends her own, those that her
// working label dominates: any other is answered like one that never was. An officer ends anybody's, as revoke says.
func (e *Enclave) RevokeCredential(ctx context.Context, who redoubt.Credential, id string) error {
	own := func() bool {
		of, ok := e.identity.Credential(id)
		return ok && of.Subject == who.Subject && who.Working.Dominates(of.Working)
	}
	return e.revoke(ctx, ask{op: "RevokeCredential", who: who, action: redoubt.ActionRevoke, detail: id}, own, func() ([]identity.Record, error) {
		return e.identity.RevokeCredential(who.Subject, id)
	})
}

// revoke ends a person, a credential or a grant, for an officer at whatever label she works: a revocation does not
// wait for a higher credential. What there is to revoke is on record at the node's ceiling, so below it her
// answer does not say whether there was anything: it is taken, like a write-up, and is recorded alike.
func (e *Enclave) revoke(ctx context.Context, a ask, own func() bool, plan func() ([]identity.Record, error)) error {
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	a.self = own()
	entry, err := e.decide(ctx, a)
	if err != nil {
		return err
	}
	recs, err := plan()
	switch {
	case err == nil:
		return e.enact(ctx, new(store.Batch), entry, recs)
	case redoubt.KindOf(err) == redoubt.NotFound && !a.who.Working.Dominates(e.recordLabel(identity.KindRevocation)):
		return e.record(ctx, entry)
	}
	return e.noted(ctx, entry, err)
}

// nobodys says that what is to be ended is not the caller's own: people and grants are for officers to end.
func nobodys() bool { return false }

// Credentials lists one's own; an officer sees those at labels that the officer's dominates.
func (e *Enclave) Credentials(ctx context.Context, who redoubt.Credential) ([]redoubt.CredentialRecord, error) {
	entry, err := e.decide(ctx, ask{op: "Credentials", who: who, action: redoubt.ActionListCredentials, self: true})
	if err != nil {
		return nil, err
	}
	if err := e.noteRead(ctx, entry); err != nil {
		return nil, err
	}
	subject, _ := e.identity.Subject(who.Subject)
	officer := subject.Has(redoubt.RoleOfficer)
	return e.identity.Credentials(func(c redoubt.Credential) bool {
		return (c.Subject == who.Subject || officer) && who.Working.Dominates(c.Working)
	}), nil
}

// People lists everybody on the estate, for security officers who work at the node's ceiling, where it is on record.
func (e *Enclave) People(ctx context.Context, who redoubt.Credential) ([]redoubt.Person, error) {
	entry, err := e.decide(ctx, ask{op: "People", who: who, action: redoubt.ActionListPeople})
	if err != nil {
		return nil, err
	}
	return e.identity.People(), e.noteRead(ctx, entry)
}

// ProposeChange stores a change with the proposer's signature.
func (e *Enclave) ProposeChange(ctx context.Context, who redoubt.Credential, c redoubt.Change) (redoubt.Change, error) {
	return e.change(ctx, who, redoubt.ActionPropose, func() redoubt.Change { return c },
		func() (redoubt.Change, []identity.Record, error) { return e.identity.Propose(c) })
}

// ApproveChange adds an officer's signature.
func (e *Enclave) ApproveChange(ctx context.Context, who redoubt.Credential, id string, sig redoubt.Signature) (redoubt.Change, error) {
	known := func() redoubt.Change {
		c, _ := e.identity.Change(id)
		c.ID = id
		return c
	}
	return e.change(ctx, who, redoubt.ActionApprove, known, func() (redoubt.Change, []identity.Record, error) { return e.identity.Approve(id, sig) })
}

const stateInEffect = "in effect" // redoubt.Change.State

// change decides, plans, makes durable and, where it is an erasure that two officers now signed, carries it out. That
// may take long, and revocations do not wait for it.
func (e *Enclave) change(ctx context.Context, who redoubt.Credential, action redoubt.Action, of func() redoubt.Change, plan func() (redoubt.Change, []identity.Record, error)) (redoubt.Change, error) {
	c, mark, err := e.enactChange(ctx, who, action, of, plan)
	if err != nil || mark == "" {
		return c, err
	}
	return c, e.fulfil(ctx, mark)
}

// enactChange is change up to what is carried out behind it, which mark names. of gives what is signed, as it stands.
func (e *Enclave) enactChange(ctx context.Context, who redoubt.Credential, action redoubt.Action, of func() redoubt.Change, plan func() (redoubt.Change, []identity.Record, error)) (c redoubt.Change, mark string, err error) {
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	a := ask{op: string(action), who: who, action: action}
	signed := of()
	if a.detail = signed.ID; signed.Kind == redoubt.ChangeEraseLabel {
		a.object, _ = e.policy.Parse(signed.Label) // what is no marking erases nothing: identity refuses it
	}
	entry, err := e.decide(ctx, a)
	if err != nil {
		return redoubt.Change{}, "", err
	}
	defer e.noteFailure(ctx, entry, &err)
	c, recs, err := plan()
	if err != nil {
		return redoubt.Change{}, "", err
	}
	entry.Detail = string(c.Kind) + " " + c.ID
	batch := new(store.Batch)
	if c.State == stateInEffect && c.Kind != redoubt.ChangePerson {
		var d duty
		if d, mark, err = e.ordered(c); err == nil {
			err = d.add(batch, mark)
		}
		if err != nil {
			return redoubt.Change{}, "", err
		}
	}
	if err := e.enact(ctx, batch, entry, recs); err != nil {
		return redoubt.Change{}, "", err
	}
	return c, mark, nil
}

// Changes lists what waits and what was decided. The erasure of a label is shown to those whose working label
// dominates it; people and buckets are the whole estate's.
func (e *Enclave) Changes(ctx context.Context, who redoubt.Credential) ([]redoubt.Change, error) {
	entry, err := e.decide(ctx, ask{op: "Changes", who: who, action: redoubt.ActionListPeople})
	if err != nil {
		return nil, err
	}
	shown := slices.DeleteFunc(e.identity.Changes(), func(c redoubt.Change) bool {
		if c.Kind != redoubt.ChangeEraseLabel {
			return false
		}
		l, err := e.policy.Parse(c.Label)
		return err != nil || !who.Working.Dominates(l)
	})
	return shown, e.noteRead(ctx, entry)
}

// RevokePerson ends a person and everything that acts for that person; see revoke for what it answers.
func (e *Enclave) RevokePerson(ctx context.Context, who redoubt.Credential, name redoubt.SubjectName, reason string) error {
	return e.revoke(ctx, ask{op: "RevokePerson", who: who, action: redoubt.ActionRevoke, detail: string(name)}, nobodys, func() ([]identity.Record, error) {
		return e.identity.RevokePerson(who.Subject, name, reason)
	})
}

// Grant gives need to know, or takes it.
func (e *Enclave) Grant(ctx context.Context, who redoubt.Credential, g redoubt.Grant) (redoubt.Grant, error) {
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	entry, err := e.decide(ctx, ask{op: "Grant", who: who, action: redoubt.ActionGrant, detail: string(g.Subject)})
	if err != nil {
		return redoubt.Grant{}, err
	}
	made, recs, err := e.identity.Grant(g)
	if err != nil {
		return redoubt.Grant{}, e.noted(ctx, entry, err)
	}
	return made, e.enact(ctx, new(store.Batch), entry, recs)
}

// RevokeGrant ends a grant; see revoke for what it answers.
func (e *Enclave) RevokeGrant(ctx context.Context, who redoubt.Credential, id string) error {
	return e.revoke(ctx, ask{op: "RevokeGrant", who: who, action: redoubt.ActionRevokeGrant, detail: id}, nobodys, func() ([]identity.Record, error) {
		return e.identity.RevokeGrant(who.Subject, id)
	})
}

// Grants lists the grants in force.
func (e *Enclave) Grants(ctx context.Context, who redoubt.Credential) ([]redoubt.Grant, error) {
	entry, err := e.decide(ctx, ask{op: "Grants", who: who, action: redoubt.ActionListPeople})
	if err != nil {
		return nil, err
	}
	return e.identity.Grants(), e.noteRead(ctx, entry)
}
