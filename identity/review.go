package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"slices"

	"redoubt"
	"redoubt/label"
)

// The rules that refuse a reviewer's signature, as they stand in the audit log and in messages.
const (
	RuleReviewers = "two-reviewers (4.6)"
	RuleReviewer  = "reviewer (4.6)"
	RuleRequester = "not-who-asked (4.6)"
	RuleSignature = "signed-statement (4.6)"
	RuleCleared   = "cleared-for-the-source (4.6)"
)

// Review says whether one person may stand as a reviewer of what another asked for: a live reviewer who is cleared for it, who
// is not the one who asked, and who signed message with her own key, the one that she has now.
func (r *Registry) Review(message []byte, sig redoubt.Signature, requester redoubt.SubjectName, cleared label.Label) (ed25519.PublicKey, error) {
	p, err := r.reviewer(message, sig, requester, cleared)
	if err != nil {
		return nil, err
	}
	return slices.Clone(p.key[:]), nil
}

func (r *Registry) reviewer(message []byte, sig redoubt.Signature, requester redoubt.SubjectName, cleared label.Label) (*person, error) {
	const op = "identity.Review"
	p, ok := r.person(sig.Signer)
	switch {
	case !ok || !p.has(redoubt.RoleReviewer, r.o.Clock()):
		return nil, refused(op, string(sig.Signer), RuleReviewer, "a release is reviewed by people with the role reviewer, whose clearance has not ended")
	case sig.Signer == requester || p.key == r.keyOf(requester):
		return nil, refused(op, string(sig.Signer), RuleRequester, "who asks for a release does not review it")
	case !p.clearance.Dominates(cleared):
		return nil, refused(op, string(sig.Signer), RuleCleared, "a reviewer is cleared for what is released")
	}
	if len(sig.Sig) != base64.StdEncoding.EncodedLen(ed25519.SignatureSize) || !signedBy(p.key[:], message, sig.Sig) { // one form: line ends would be passed over
		return nil, refused(op, string(sig.Signer), RuleSignature, "sign what is to leave as it is now: redoubt release show ID")
	}
	return p, nil
}

// keyOf is a person's public key; of nobody, one that nobody has.
func (r *Registry) keyOf(name redoubt.SubjectName) (key [ed25519.PublicKeySize]byte) {
	if p, ok := r.person(name); ok {
		return p.key
	}
	return key
}

// Reviewed says whether two different people stand as reviewers, neither of whom made the other one (RULES 4.2), and gives their keys in the
// order of the signatures. More than two signatures, or two of one person, are refused.
func (r *Registry) Reviewed(message []byte, sigs []redoubt.Signature, requester redoubt.SubjectName, cleared label.Label) ([]ed25519.PublicKey, error) {
	const op = "identity.Reviewed"
	if len(sigs) != 2 || sameSigner(sigs) {
		return nil, refused(op, "", RuleReviewers, "two different reviewers sign a release")
	}
	var people []*person
	var out []ed25519.PublicKey
	for _, s := range sigs {
		p, err := r.reviewer(message, s, requester, cleared)
		if err != nil {
			return nil, err
		}
		people, out = append(people, p), append(out, slices.Clone(p.key[:]))
	}
	if err := r.apart(people[0], people[1]); err != nil {
		return nil, err
	}
	return out, nil
}

// Apart says whether two people may approve one release together.
func (r *Registry) Apart(a, b redoubt.SubjectName) error {
	p, ok := r.person(a)
	q, also := r.person(b)
	if !ok || !also {
		return &redoubt.Error{Op: "identity.Apart", Kind: redoubt.NotFound, Err: errors.New("no such person")}
	}
	return r.apart(p, q)
}

func (r *Registry) apart(p, q *person) error {
	if !independent(p, q, redoubt.RoleReviewer) {
		return refused("identity.Reviewed", string(q.Name), RuleIndependent, "who made somebody a reviewer does not review together with her")
	}
	return nil
}
