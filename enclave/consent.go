package enclave

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"redoubt"
	"redoubt/identity"
	"redoubt/label"
)

// An originator's consent (RULES 1.5). What is marked so that nobody but its originator may have it leave needs a third signature beside the two
// reviewers': hers. Who she is stands in the version: its author, or of a copy whom it was copied from.

const ruleConsent = identity.RuleConsent

// originatorOf names who alone may consent to a version's leaving.
func originatorOf(r *record) redoubt.SubjectName {
	return redoubt.SubjectName(cmp.Or(r.attrs.Meta[redoubt.MetaOriginator], r.author))
}

// consentTo says which marks ask for a consent where a version at a label is to leave as another, and who may give it. What cannot be proved here
// is an error: nothing that needs a consent leaves without one.
func (e *Enclave) consentTo(op string, rec *record, l, as label.Label) (marks []string, originator redoubt.SubjectName, err error) {
	marks = append(redoubt.ConsentMarks(l), redoubt.ConsentMarks(as)...)
	slices.Sort(marks)
	if marks = slices.Compact(marks); len(marks) == 0 {
		return nil, "", nil
	}
	originator = originatorOf(rec)
	hint := ""
	switch {
	case slices.Contains(marks, redoubt.MarkFGI):
		hint = "it is another nation's: that nation's consent cannot be proved here, so it does not leave by a guard or as a file"
	case ofPartner(rec.attrs) || strings.IndexByte(string(originator), '.') >= 0:
		hint = strings.Join(marks, ", ") + " needs its originator's consent, and she is not of this estate or not known: it came from a partner, or down through a guard without her name"
	case originator == redoubt.SeveralOriginators:
		hint = strings.Join(marks, ", ") + " needs its originator's consent, and it was put together of several people's: each lets her own leave"
	default:
		if err := e.identity.Originator(originator, label.Join(l, as)); err == nil {
			return marks, originator, nil
		}
		hint = strings.Join(marks, ", ") + " needs the consent of its originator, " + string(originator) + ", who is no subject here, is one no more, or is not cleared for both labels: nobody consents in her place"
	}
	return nil, "", &redoubt.Error{Op: op, Kind: redoubt.Denied, Rule: ruleConsent, Hint: hint}
}

// copiedFrom keeps in the attributes of a copy whose it is, and what made it. Whoever copies what she may not let leave is not its originator.
func copiedFrom(src *record, l label.Label, who redoubt.SubjectName, a redoubt.Attributes) redoubt.Attributes {
	a = copiedMark(src, a)
	if len(redoubt.ConsentMarks(l)) == 0 {
		return a
	}
	return withOriginator(a, originatorOf(src), who)
}

// withOriginator is attributes of a version whose author is another than its originator, or is not.
func withOriginator(a redoubt.Attributes, originator, author redoubt.SubjectName) redoubt.Attributes {
	meta := map[string]string{}
	for name, value := range a.Meta {
		if name != redoubt.MetaOriginator {
			meta[name] = value
		}
	}
	if originator != author {
		meta[redoubt.MetaOriginator] = string(originator)
	}
	a.Meta = meta
	return a
}

// keepsConsentMarks says whether a label has all of another's marks that ask for a consent. They are not in the order, so a copy could lose them that
// dominates what it is of.
func keepsConsentMarks(l, of label.Label) bool {
	has := redoubt.ConsentMarks(l)
	return !slices.ContainsFunc(redoubt.ConsentMarks(of), func(m string) bool { return !slices.Contains(has, m) })
}

const ruleKeepsMarks = "an originator's marks stay (1.5)"

// needsConsent says whether a release leaves by its originator's consent alone.
func (r *releaseRecord) needsConsent() bool { return len(r.ConsentFor) > 0 }

// signed says whether everybody has signed who must.
func (r *releaseRecord) signed() bool {
	return len(r.Approvals) == 2 && r.needsConsent() == (r.Consent != nil)
}

// consentStands is rests of the consent, given or awaited: the originator is who she was, the consent is hers, and no reviewer is she.
func (e *Enclave) consentStands(set *labelSet, r *releaseRecord) error {
	if !r.needsConsent() {
		return nil
	}
	as, err := e.policy.Parse(r.As)
	if err != nil {
		return err
	}
	cleared := label.Join(set.label, as)
	if err := e.identity.Originator(r.Originator, cleared); err != nil {
		return err
	}
	for _, sig := range r.Approvals {
		if err := e.identity.NotOriginator(sig.Signer, r.Originator); err != nil {
			return err
		}
	}
	if r.Consent == nil {
		return nil
	}
	_, err = e.identity.Consented(redoubt.ConsentMessage(r.Statement.Public()), *r.Consent, r.Originator, cleared)
	return err
}

// ConsentRelease takes the originator's signature: decide, state, who she is, what it rests on, the signature, keep; see redoubt.ReleaseService.
func (e *Enclave) ConsentRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, sig string) (out redoubt.Release, err error) {
	const op = "ConsentRelease"
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, r, ent, err := e.releaseFor(ctx, op, who, redoubt.ActionConsent, id)
	if err != nil {
		return out, err
	}
	refuse := func(kind redoubt.Kind, rule, hint string) (redoubt.Release, error) {
		ent.Allow, ent.Rule = false, rule
		return redoubt.Release{}, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(id), Kind: kind, Rule: rule, Hint: hint})
	}
	switch {
	case !r.needsConsent():
		return refuse(redoubt.Conflict, ruleState, "it needs no originator's consent")
	case who.Subject != r.Originator:
		return refuse(redoubt.Denied, ruleConsent, "only "+string(r.Originator)+" may consent, who made it")
	case r.State != redoubt.ReleaseReview:
		return refuse(redoubt.Conflict, ruleState, "it is "+string(r.State)+", and is consented to while it is in review")
	case r.Consent != nil:
		return refuse(redoubt.Conflict, ruleState, "you have consented already; redoubt release deny ID takes it back")
	}
	if err := e.stillRests(ctx, op, x, r, ent); err != nil {
		return out, err
	}
	r.Consent = &redoubt.Signature{Signer: who.Subject, Sig: sig}
	if err := e.consentStands(x.set, r); err != nil {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return out, e.noted(ctx, ent, err)
	}
	if r.signed() {
		r.State = redoubt.ReleaseApproved
	}
	done, err := e.standing(who, nil, nil)
	if err != nil {
		return out, err
	}
	defer done()
	ent.Detail = "release " + string(id) + ", the originator's consent for " + strings.Join(r.ConsentFor, ", ") + ", sha256 " + r.Statement.SHA256
	return r.Release, e.keepRelease(ctx, x.set, r, ent)
}
