package enclave

import (
	"context"
	"slices"

	"redoubt"
	"redoubt/audit"
	"redoubt/identity"
	"redoubt/store"
)

// loadIdentity brings the view of people up to what is on record.
func (e *Enclave) loadIdentity(ctx context.Context) error {
	for _, kind := range identity.Kinds() {
		err := e.Records(ctx, kind, func(name string, value []byte) error {
			return e.identity.Load(identity.Record{Kind: kind, Name: name, Value: value})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// enact makes what identity planned durable with its audit entry, then effective. b may hold what
// belongs to it. peopleMu is held, but by who mints: those records are nobody else's.
func (e *Enclave) enact(ctx context.Context, b *store.Batch, entry *entry, recs []identity.Record) error {
	for _, r := range recs {
		if err := e.putRecord(ctx, b, r.Kind, r.Name, r.Value); err != nil {
			return err
		}
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
	entry := e.describe(ctx, ask{who: who, action: redoubt.ActionMint}, true, "own key (4.1)")
	if err := e.enact(ctx, new(store.Batch), entry, recs); err != nil {
		return redoubt.Minted{}, err
	}
	return minted, nil
}

// RevokeCredential ends a credential; it bites before this returns.
func (e *Enclave) RevokeCredential(ctx context.Context, who redoubt.Credential, id string) error {
	const op = "RevokeCredential"
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	of, ok := e.identity.Credential(id)
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionRevoke, self: ok && of.Subject == who.Subject, detail: id})
	if err != nil {
		return err
	}
	recs, err := e.identity.RevokeCredential(who.Subject, id)
	if err != nil {
		return e.noted(ctx, entry, err)
	}
	return e.enact(ctx, new(store.Batch), entry, recs)
}

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

// People lists everybody on the estate, for security officers at whatever label they work: one who
// clears people must know who is there.
func (e *Enclave) People(ctx context.Context, who redoubt.Credential) ([]redoubt.Person, error) {
	entry, err := e.decide(ctx, ask{op: "People", who: who, action: redoubt.ActionListPeople})
	if err != nil {
		return nil, err
	}
	return e.identity.People(), e.noteRead(ctx, entry)
}

// ProposeChange stores a change with the proposer's signature.
func (e *Enclave) ProposeChange(ctx context.Context, who redoubt.Credential, c redoubt.Change) (redoubt.Change, error) {
	return e.change(ctx, who, redoubt.ActionPropose, c.ID, func() (redoubt.Change, []identity.Record, error) { return e.identity.Propose(c) })
}

// ApproveChange adds an officer's signature.
func (e *Enclave) ApproveChange(ctx context.Context, who redoubt.Credential, id string, sig redoubt.Signature) (redoubt.Change, error) {
	return e.change(ctx, who, redoubt.ActionApprove, id, func() (redoubt.Change, []identity.Record, error) { return e.identity.Approve(id, sig) })
}

const stateInEffect = "in effect" // redoubt.Change.State

// change decides, plans, makes durable and, where it is an erasure that two officers now signed, carries it out. That
// may take long, and revocations do not wait for it.
func (e *Enclave) change(ctx context.Context, who redoubt.Credential, action redoubt.Action, id string, plan func() (redoubt.Change, []identity.Record, error)) (redoubt.Change, error) {
	c, mark, err := e.enactChange(ctx, who, action, id, plan)
	if err != nil || mark == "" {
		return c, err
	}
	return c, e.fulfil(ctx, mark)
}

// enactChange is change up to what is carried out behind it, which mark names.
func (e *Enclave) enactChange(ctx context.Context, who redoubt.Credential, action redoubt.Action, id string, plan func() (redoubt.Change, []identity.Record, error)) (c redoubt.Change, mark string, err error) {
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	entry, err := e.decide(ctx, ask{op: string(action), who: who, action: action, detail: id})
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

// RevokePerson ends a person and everything that acts for that person.
func (e *Enclave) RevokePerson(ctx context.Context, who redoubt.Credential, name redoubt.SubjectName, reason string) error {
	return e.officerAct(ctx, who, redoubt.ActionRevoke, string(name), func() ([]identity.Record, error) {
		return e.identity.RevokePerson(who.Subject, name, reason)
	})
}

// Grant gives need to know, or takes it.
func (e *Enclave) Grant(ctx context.Context, who redoubt.Credential, g redoubt.Grant) (redoubt.Grant, error) {
	var made redoubt.Grant
	err := e.officerAct(ctx, who, redoubt.ActionGrant, string(g.Subject), func() (recs []identity.Record, err error) {
		made, recs, err = e.identity.Grant(g)
		return recs, err
	})
	return made, err
}

// RevokeGrant ends a grant.
func (e *Enclave) RevokeGrant(ctx context.Context, who redoubt.Credential, id string) error {
	return e.officerAct(ctx, who, redoubt.ActionGrant, id, func() ([]identity.Record, error) {
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

func (e *Enclave) officerAct(ctx context.Context, who redoubt.Credential, action redoubt.Action, detail string, plan func() ([]identity.Record, error)) error {
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	entry, err := e.decide(ctx, ask{op: string(action), who: who, action: action, detail: detail})
	if err != nil {
		return err
	}
	recs, err := plan()
	if err != nil {
		return e.noted(ctx, entry, err)
	}
	return e.enact(ctx, new(store.Batch), entry, recs)
}
