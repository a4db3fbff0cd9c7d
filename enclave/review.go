package enclave

import (
	"context"
	"fmt"
	"strings"

	"redoubt"
	"redoubt/label"
)

// What reviewers say to a release, and what a guard does with it, at its source.

// rests says whether everything that a release rests on stands as it did: the version, who asked for it, the policy, the guard's
// rules, the time, and every signature that was given. The rule is of what does not; "" of none.
func (e *Enclave) rests(x *releaseEntry, r *releaseRecord) (rule string, err error) {
	if !e.clock().Before(r.Expires) {
		return ruleExpired, nil
	}
	g, ok := e.guardTo(r.To)
	if !ok || g.Name != r.Guard || r.Policy != e.policyName() || r.Rules != g.Rules {
		return rulePolicy, nil
	}
	b, err := e.bucket("release", r.Name.Bucket)
	if err != nil {
		return ruleChanged, nil
	}
	working, err := label.ParseText([]byte(r.Working), e.policy)
	if err != nil {
		return rulePolicy, nil
	}
	view := e.engine.View()
	defer view.Close()
	cur, _, err := e.current(view, lookCurrent, b, working, r.Name.Key)
	if err != nil {
		return "", err
	}
	if cur.rec == nil || e.ids.versionID(cur.rec.id) != r.Version || cur.set != x.set {
		return ruleChanged, nil
	}
	s, ok := e.identity.Subject(r.By)
	if !ok || !e.clock().Before(s.Expires) || !s.Clearance.Dominates(x.set.label) {
		return ruleRequester, nil
	}
	for i, sig := range r.Approvals {
		if _, err := e.identity.Review(redoubt.ReleaseMessage(r.Statement.Public()), sig, r.By, x.set.label); err != nil {
			return ruleOf(err), nil
		}
		for _, other := range r.Approvals[:i] {
			if err := e.identity.Apart(sig.Signer, other.Signer); err != nil {
				return ruleOf(err), nil
			}
		}
	}
	if err := e.consentStands(x.set, r); err != nil {
		return ruleOf(err), nil
	}
	return e.stayed(r)
}

// why says in words what a rule means for a release, and what to do.
func why(rule string) string {
	switch rule {
	case ruleExpired:
		return rule + ": its time is over; ask for it again"
	case rulePolicy:
		return rule + ": the marking policy or the guard's rules are others now; ask for it again"
	case ruleChanged:
		return rule + ": the version was written over or removed, were it for a while; ask for the one that is current"
	case ruleFooting:
		return rule + ": the clearance, the roles or the key of who asked, signed or is to consent was changed meanwhile; ask for it again"
	case ruleRequester:
		return rule + ": who asked for it is no longer cleared for it"
	case ruleConsent:
		return rule + ": its originator is no subject here any more, or is not cleared for it: nobody consents in her place"
	}
	return rule + ": a signature that was given does not stand any more; ask for it again"
}

// stillRests is rests for who is about to build on it. What does not rest on everything is dead, on record, and an error.
func (e *Enclave) stillRests(ctx context.Context, op string, x *releaseEntry, r *releaseRecord, ent *entry) error {
	rule, err := e.rests(x, r)
	if err != nil || rule == "" {
		return err
	}
	r.State, r.Why = redoubt.ReleaseDead, why(rule)
	ent.Allow, ent.Rule, ent.Kind = false, rule, redoubt.Conflict.Error()
	if err := e.keepRelease(ctx, x.set, r, ent); err != nil {
		return err
	}
	return &redoubt.Error{Op: op, Object: string(r.ID), Kind: redoubt.Denied, Rule: rule, Hint: r.Why}
}

// ApproveRelease takes a reviewer's signature: decide, state, what it rests on, the reviewer, keep; see redoubt.ReleaseService.
func (e *Enclave) ApproveRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, sig string) (out redoubt.Release, err error) {
	const op = "ApproveRelease"
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, r, ent, err := e.releaseFor(ctx, op, who, redoubt.ActionApproveRelease, id)
	if err != nil {
		return out, err
	}
	refuse := func(err error) (redoubt.Release, error) {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return redoubt.Release{}, e.noted(ctx, ent, err)
	}
	if r.State != redoubt.ReleaseReview {
		return refuse(&redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Conflict, Rule: ruleState, Hint: "it is " + string(r.State) + ", and is approved while it is in review"})
	}
	if len(r.Approvals) == 2 {
		return refuse(&redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Conflict, Rule: ruleState, Hint: "two reviewers have signed: it awaits the consent of " + string(r.Originator)})
	}
	if err := e.stillRests(ctx, op, x, r, ent); err != nil {
		return out, err
	}
	given := redoubt.Signature{Signer: who.Subject, Sig: sig}
	e.standOn(r, who.Subject) // before she is looked at: what changes behind that finds her on another footing
	if _, err := e.identity.Review(redoubt.ReleaseMessage(r.Statement.Public()), given, r.By, x.set.label); err != nil {
		return refuse(err)
	}
	for _, other := range r.Approvals {
		err := e.identity.Apart(who.Subject, other.Signer)
		if other.Signer == who.Subject {
			err = &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Denied, Rule: "two-reviewers (4.6)", Hint: "you have signed already: a second person signs next"}
		}
		if err != nil {
			return refuse(err)
		}
	}
	if r.needsConsent() {
		if err := e.identity.NotOriginator(who.Subject, r.Originator); err != nil {
			return refuse(err)
		}
	}
	r.Approvals = append(r.Approvals, given)
	if r.signed() {
		r.State = redoubt.ReleaseApproved
	}
	done, err := e.standing(who, nil, nil)
	if err != nil {
		return out, err
	}
	defer done()
	ent.Detail = fmt.Sprintf("release %s, signature %d of 2, sha256 %s", id, len(r.Approvals), r.Statement.SHA256)
	return r.Release, e.keepRelease(ctx, x.set, r, ent)
}

// DenyRelease ends a release: a reviewer's or its originator's no, or its requester's withdrawal.
func (e *Enclave) DenyRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, reason string) (out redoubt.Release, err error) {
	const op = "DenyRelease"
	if len(reason) > redoubt.MaxReleaseReason {
		return out, &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Hint: fmt.Sprintf("a reason has at most %d bytes", redoubt.MaxReleaseReason)}
	}
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	action := redoubt.ActionDenyRelease
	if x, _ := e.releases.find(id); x != nil && (x.by == who.Subject || x.owner == who.Subject) {
		action = redoubt.ActionReadRelease // her own
	}
	x, r, ent, err := e.releaseFor(ctx, op, who, action, id)
	if err != nil {
		return out, err
	}
	if !stillOpen(r.State) {
		ent.Allow, ent.Rule = false, ruleState
		return out, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.Conflict, Rule: ruleState, Hint: "it is " + string(r.State) + " already"})
	}
	r.State, r.DeniedBy, r.Why = redoubt.ReleaseDenied, who.Subject, reason
	if r.By == who.Subject {
		r.State = redoubt.ReleaseDead
		r.Why = strings.TrimSuffix("withdrawn: "+reason, ": ")
	}
	ent.Action, ent.Detail = string(redoubt.ActionDenyRelease), "release "+string(id)
	return r.Release, e.keepRelease(ctx, x.set, r, ent)
}
