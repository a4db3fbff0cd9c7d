package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"slices"

	"redoubt"
	"redoubt/label"
)

// The rules that refuse an originator's consent, and a reviewer who is the originator.
const (
	RuleConsent    = "originators-consent (1.5)"
	RuleOriginator = "not-the-originator (1.5)"
)

// Originator says whether somebody may consent at all: a live subject who is cleared for it.
func (r *Registry) Originator(name redoubt.SubjectName, cleared label.Label) error {
	_, err := r.originator(name, cleared)
	return err
}

func (r *Registry) originator(name redoubt.SubjectName, cleared label.Label) (*person, error) {
	p, ok := r.person(name)
	if !ok || p.Revoked || !r.o.Clock().Before(p.Expires) || !p.clearance.Dominates(cleared) {
		return nil, refused("identity.Originator", string(name), RuleConsent, "only "+string(name)+" may consent, who is no subject here or is not cleared for it")
	}
	return p, nil
}

// Consented says whether the originator signed message with her own key, the one that she has now, and gives that.
func (r *Registry) Consented(message []byte, sig redoubt.Signature, originator redoubt.SubjectName, cleared label.Label) (ed25519.PublicKey, error) {
	const op = "identity.Consented"
	p, err := r.originator(originator, cleared)
	switch {
	case sig.Signer != originator:
		return nil, refused(op, string(sig.Signer), RuleConsent, "only "+string(originator)+" may consent")
	case err != nil:
		return nil, err
	case len(sig.Sig) != base64.StdEncoding.EncodedLen(ed25519.SignatureSize) || !signedBy(p.key[:], message, sig.Sig): // one form, as of a reviewer
		return nil, refused(op, string(sig.Signer), RuleSignature, "sign what is to leave as it is now")
	}
	return slices.Clone(p.key[:]), nil
}

// NotOriginator refuses a reviewer who is the originator: her consent is no review.
func (r *Registry) NotOriginator(signer, originator redoubt.SubjectName) error {
	p, ok := r.person(signer)
	if !ok || signer == originator || p.key == r.keyOf(originator) {
		return refused("identity.NotOriginator", string(signer), RuleOriginator, "the originator consents and does not review: redoubt release consent ID")
	}
	return nil
}
