package enclave

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"time"

	"redoubt"
	"redoubt/store"
)

// PendingReleases waits for work of a guard; see redoubt.ReleaseSource.
func (e *Enclave) PendingReleases(ctx context.Context, guard redoubt.Credential, state redoubt.ReleaseState) ([]redoubt.ReleaseID, error) {
	ent, err := e.decide(ctx, ask{op: "PendingReleases", who: guard, action: redoubt.ActionGuardRelease})
	if err != nil {
		return nil, err
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return nil, err
	}
	for {
		news := e.releases.news.wait()
		ids := e.releases.due(guard.Subject, state, e.clock())
		if len(ids) > 0 {
			return ids, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// due are those that wait for a guard in a state, the oldest first.
func (r *releases) due(guard redoubt.SubjectName, state redoubt.ReleaseState, at time.Time) (ids []redoubt.ReleaseID) {
	r.view.Lock()
	defer r.view.Unlock()
	for _, x := range r.order {
		if x.state == redoubt.ReleaseApproved && at.Before(x.after) {
			continue // its time has not come
		}
		if (x.state == state || state == redoubt.ReleaseApproved && maybeLeft(x.state, x.given)) && string(x.guard) == string(guard) {
			ids = append(ids, x.id)
		}
		if len(ids) == redoubt.MaxReleasesListed {
			break
		}
	}
	return ids
}

// guardsWork finds a release that a guard may work on, in a state, and holds it against what it rests on.
func (e *Enclave) guardsWork(ctx context.Context, op string, guard redoubt.Credential, id redoubt.ReleaseID, state redoubt.ReleaseState) (*releaseEntry, *releaseRecord, *entry, error) {
	x, r, ent, err := e.guardsOwn(ctx, op, guard, id)
	if err != nil {
		return nil, nil, nil, err
	}
	if r.State != state {
		ent.Allow, ent.Rule = false, ruleState
		return nil, nil, nil, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Conflict, Rule: ruleState})
	}
	return x, r, ent, e.stillRests(ctx, op, x, r, ent)
}

// guardsOwn finds a release of a guard's, and decides that it may work on it.
func (e *Enclave) guardsOwn(ctx context.Context, op string, guard redoubt.Credential, id redoubt.ReleaseID) (*releaseEntry, *releaseRecord, *entry, error) {
	x, _ := e.releases.find(id)
	a := ask{op: op, who: guard, action: redoubt.ActionGuardRelease, detail: "release " + string(id)}
	if x != nil {
		a.object = x.set.label
	}
	ent, err := e.decide(ctx, a)
	if err != nil {
		return nil, nil, nil, err
	}
	if x == nil || string(x.guard) != string(guard.Subject) {
		ent.Allow, ent.Rule = false, ruleOtherGuard
		return nil, nil, nil, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.NotFound, Rule: ruleOtherGuard})
	}
	r, err := e.readRelease(x)
	if err != nil {
		return nil, nil, nil, err
	}
	return x, r, ent, nil
}

// FetchRelease opens the source version of a requested release for its guard.
func (e *Enclave) FetchRelease(ctx context.Context, guard redoubt.Credential, id redoubt.ReleaseID) (work redoubt.ReleaseWork, _ redoubt.Object, err error) {
	const op = "FetchRelease"
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, r, ent, err := e.guardsWork(ctx, op, guard, id, redoubt.ReleaseRequested)
	if err != nil {
		return work, nil, err
	}
	o, err := e.GetObject(ctx, e.own(x.set.label), redoubt.ReadObject{Name: r.Name, ID: r.Version, Action: redoubt.ActionReadRelease})
	if err != nil {
		return work, nil, e.noted(ctx, ent, err)
	}
	work = redoubt.ReleaseWork{Release: r.Release, Attributes: redoubt.Attributes{ContentType: o.Version().Attributes.ContentType, Meta: map[string]string{}}}
	for _, name := range r.Keep {
		if v, ok := o.Version().Attributes.Meta[name]; ok {
			work.Attributes.Meta[name] = v
		}
	}
	ent.Bytes = o.Version().SizeBytes
	return work, o, e.noteRead(ctx, ent)
}

// SubmitRelease takes what the guard's pipeline came to: the rebuilt content, or why it is refused. Durable on return. The content is taken in
// before anything is locked, so that a guard which stalls holds nobody else up; content and statement are one commit.
func (e *Enclave) SubmitRelease(ctx context.Context, guard redoubt.Credential, id redoubt.ReleaseID, v redoubt.ReleaseVerdict, content io.Reader) (err error) {
	const op = "SubmitRelease"
	if err := fitVerdict(v); err != nil {
		return err
	}
	var w *write
	sum := sha256.New()
	if v.Refused == "" {
		x, ent, err := e.guardsTurn(ctx, op, guard, id, redoubt.ReleaseRequested)
		if err == nil {
			if w, err = e.takeRebuilt(ctx, op, x, v, io.TeeReader(content, sum)); err != nil {
				err = e.noted(ctx, ent, err)
			}
		}
		if err != nil {
			return err
		}
		defer w.discard()
	}
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, r, ent, err := e.guardsWork(ctx, op, guard, id, redoubt.ReleaseRequested) // it may have ended meanwhile
	if err != nil {
		return err
	}
	defer e.noteFailure(ctx, ent, &err)
	r.Findings = v.Findings
	if v.Refused != "" || v.Rules != r.Rules {
		r.State, r.Why = redoubt.ReleaseRefused, v.Refused
		if v.Refused == "" {
			r.Why = "the guard holds releases to other rules than this node knows: bring both up with the same estate, and ask again"
		}
		ent.Detail = "release " + string(id) + " refused by the guard"
		return e.keepRelease(ctx, x.set, r, ent)
	}
	kept, err := e.keptMeta(r)
	if err != nil {
		return err
	}
	r.State = redoubt.ReleaseReview
	r.Statement = &redoubt.ReleaseStatement{Estate: e.estate, ID: r.ID, From: r.From, To: r.To, Requester: r.By, Bucket: e.releasedBucket(r), Key: r.Key, ContentType: v.ContentType,
		Meta: kept, SizeBytes: w.rec.size, SHA256: hex.EncodeToString(sum.Sum(nil)), Label: r.As, Policy: r.Policy, Rules: r.Rules, After: r.After, Expires: r.Expires,
		Originator: r.Originator, Consent: r.ConsentFor}
	w.also = func(b *store.Batch) error {
		r.Rebuilt = e.ids.versionID(w.rec.id)
		value, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return e.putRecordAt(ctx, b, x.set.label, kindRelease+"/"+string(r.ID), value)
	}
	ent.Detail = "release " + string(id) + " rebuilt, sha256 " + r.Statement.SHA256
	if _, err := w.commit(ctx, op, redoubt.Conditions{}, ent); err != nil {
		return err
	}
	e.showRelease(x.set, r)
	return nil
}

// guardsTurn is guardsWork for who goes on without the lock, and asks once more with it.
func (e *Enclave) guardsTurn(ctx context.Context, op string, guard redoubt.Credential, id redoubt.ReleaseID, state redoubt.ReleaseState) (*releaseEntry, *entry, error) {
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, _, ent, err := e.guardsWork(ctx, op, guard, id, state)
	return x, ent, err
}

// takeRebuilt takes in what would leave, for a commit that is yet to come.
func (e *Enclave) takeRebuilt(ctx context.Context, op string, x *releaseEntry, v redoubt.ReleaseVerdict, content io.Reader) (*write, error) {
	b, err := e.bucket(op, RebuiltBucket)
	if err != nil {
		return nil, err
	}
	w, err := e.write(ctx, b, redoubt.ObjectName{Bucket: RebuiltBucket, Key: string(x.id)}, x.set.label, e.own(x.set.label))
	if err != nil {
		return nil, err
	}
	w.rec.attrs = redoubt.Attributes{ContentType: v.ContentType}
	if err = w.reserve(w.least()); err == nil {
		err = w.read(ctx, io.LimitReader(content, redoubt.MaxReleaseBytes+1), -1)
	}
	if err == nil && w.rec.size > redoubt.MaxReleaseBytes {
		err = &redoubt.Error{Op: op, Object: string(x.id), Kind: redoubt.TooLarge}
	}
	if err != nil {
		w.discard()
		return nil, err
	}
	return w, nil
}

// releasedBucket is where a release appears: under this node's name at another, in its own bucket here.
func (e *Enclave) releasedBucket(r *releaseRecord) redoubt.BucketName {
	if r.To == e.name {
		return r.Name.Bucket
	}
	return redoubt.BucketName(e.name) + "." + r.Name.Bucket
}

// keptMeta is of the source's metadata what was asked to leave.
func (e *Enclave) keptMeta(r *releaseRecord) (map[string]string, error) {
	if len(r.Keep) == 0 {
		return nil, nil
	}
	b, err := e.readable("release", r.Name.Bucket)
	if err != nil {
		return nil, err
	}
	l, err := e.policy.Parse(r.Label)
	if err != nil {
		return nil, err
	}
	f, err := e.byID(e.engine, b, l, r.Name.Key, r.Version)
	if err != nil || f.rec == nil {
		return nil, errors.Join(err, redoubt.Conflict)
	}
	return keptOf(f.rec.attrs.Meta, r.Keep), nil
}

// fitVerdict holds what a guard says to limits.
func fitVerdict(v redoubt.ReleaseVerdict) error {
	long := len(v.Findings) > redoubt.MaxReleaseReport || len(v.Refused) > redoubt.MaxReleaseReason || len(v.ContentType) > 128 || len(v.Rules) > 64
	for _, f := range v.Findings {
		long = long || len(f.Detail) > 256 || len(f.Step) > 64 || len(f.Rule) > 128
	}
	if long {
		return &redoubt.Error{Op: "SubmitRelease", Kind: redoubt.TooLarge}
	}
	return nil
}

// FetchApproved gives what two reviewers signed to its guard, after everything that it rests on was looked at once more. That it did is durable
// before the guard has it: it may leave from then on, and one that ends afterwards is settled by asking its target, whatever becomes of the guard.
func (e *Enclave) FetchApproved(ctx context.Context, guard redoubt.Credential, id redoubt.ReleaseID) (p redoubt.ReleasePackage, _ redoubt.Object, err error) {
	const op = "FetchApproved"
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, r, ent, err := e.guardsOwn(ctx, op, guard, id)
	if err != nil {
		return p, nil, err
	}
	settle := redoubt.ReleasePackage{Settle: true}
	if maybeLeft(r.State, !r.Fetched.IsZero()) {
		settle.Statement, settle.Approvals = *r.Statement, r.Approvals
		return settle, nil, e.noteRead(ctx, ent)
	}
	if r.State != redoubt.ReleaseApproved {
		ent.Allow, ent.Rule = false, ruleState
		return p, nil, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Conflict, Rule: ruleState})
	}
	if err := e.stillRests(ctx, op, x, r, ent); err != nil {
		if !maybeLeft(r.State, !r.Fetched.IsZero()) || redoubt.KindOf(err) != redoubt.Denied {
			return p, nil, err
		}
		settle.Statement, settle.Approvals = *r.Statement, r.Approvals
		return settle, nil, nil // that it is dead is on record
	}
	if !r.signed() {
		return p, nil, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Corrupt})
	}
	if e.clock().Before(r.After) {
		return p, nil, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Unavailable, Rule: ruleExpired, Hint: "its time has not come"})
	}
	o, err := e.openRebuilt(ctx, x, r)
	if err != nil {
		return p, nil, e.noted(ctx, ent, err)
	}
	p = redoubt.ReleasePackage{Statement: *r.Statement, Approvals: r.Approvals, Consent: r.Consent}
	ent.Bytes = o.Version().SizeBytes
	if !r.Fetched.IsZero() {
		return p, o, e.noteRead(ctx, ent)
	}
	r.Fetched = e.clock().UTC().Truncate(time.Second)
	ent.Detail = "release " + string(id) + " was given to its guard"
	if err := e.keepRelease(ctx, x.set, r, ent); err != nil {
		return redoubt.ReleasePackage{}, nil, errors.Join(err, o.Close())
	}
	return p, o, nil
}

// FinishRelease takes the target's receipt, or why it would not have it.
func (e *Enclave) FinishRelease(ctx context.Context, guard redoubt.Credential, id redoubt.ReleaseID, receipt *redoubt.ReleaseReceipt, refused string) error {
	const op = "FinishRelease"
	if len(refused) > redoubt.MaxReleaseReason {
		refused = refused[:redoubt.MaxReleaseReason]
	}
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, _ := e.releases.find(id)
	a := ask{op: op, who: guard, action: redoubt.ActionGuardRelease, detail: "release " + string(id)}
	if x != nil {
		a.object = x.set.label
	}
	ent, err := e.decide(ctx, a)
	if err != nil {
		return err
	}
	if x == nil || string(x.guard) != string(guard.Subject) {
		return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.NotFound, Rule: ruleOtherGuard})
	}
	r, err := e.readRelease(x)
	if err != nil {
		return err
	}
	genuine := false
	if receipt != nil {
		if genuine, err = e.genuineReceipt(r, receipt); err != nil {
			return e.noted(ctx, ent, err)
		}
	}
	switch {
	case genuine && r.State != redoubt.ReleaseReleased:
		r.State, r.Why, r.Receipt = redoubt.ReleaseReleased, "", receipt // what was approved and taken has left, whatever was said since
		ent.Detail = "release " + string(id) + " was taken by " + string(r.To)
	case receipt == nil && refused != "" && r.State == redoubt.ReleaseApproved:
		r.State, r.Why, r.Fetched = redoubt.ReleaseRefused, string(r.To)+" did not take it: "+refused, time.Time{}
		ent.Detail = "release " + string(id) + " was not taken by " + string(r.To)
	case receipt == nil && refused != "" && maybeLeft(r.State, !r.Fetched.IsZero()):
		r.Fetched = time.Time{}
		ent.Detail = "release " + string(id) + " was not taken by " + string(r.To) + " before it ended"
	case genuine:
		return e.noteRead(ctx, ent) // said twice
	case receipt != nil:
		return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Denied, Rule: ruleReceipt})
	default:
		return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Conflict, Rule: ruleState})
	}
	return e.keepRelease(ctx, x.set, r, ent)
}

// genuineReceipt says whether the target signed for what two reviewers of this release signed: a guard's word for it is not enough.
func (e *Enclave) genuineReceipt(r *releaseRecord, receipt *redoubt.ReleaseReceipt) (bool, error) {
	key := e.links.key
	if r.To != e.name {
		l, err := e.link("FinishRelease", r.To)
		if err != nil {
			return false, &redoubt.Error{Op: "FinishRelease", Object: string(r.To), Kind: redoubt.Unavailable, Err: errors.New("the target's key is not known yet")}
		}
		key = l.Key
	}
	if r.Statement == nil || !r.signed() || (receipt.Consent == nil) != (r.Consent == nil) || r.Consent != nil && receipt.Consent.Sig != r.Consent.Sig || len(receipt.Reviewers) != 2 || receipt.Node != r.To || receipt.Key != base64.StdEncoding.EncodeToString(key) {
		return false, nil
	}
	for i, by := range receipt.Reviewers {
		if by.Sig != r.Approvals[i].Sig {
			return false, nil
		}
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(receipt.Sig)
	return err == nil && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, redoubt.ReceiptMessage(*receipt), sig) &&
		bytes.Equal(redoubt.ReleaseMessage(receipt.ReleasePublic), redoubt.ReleaseMessage(r.Statement.Public())), nil
}
