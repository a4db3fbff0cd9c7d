package identity

import (
	"errors"
	"strings"
	"unicode/utf8"

	"redoubt"
)

// maxReasonBytes bounds what officers write of their reasons.
const maxReasonBytes = 1024

// RevokeCredential ends one credential for good. NotFound: there is none of that ID, or it expired long ago.
// Revoking again changes nothing and is no error. Who may is for the monitor to say.
func (r *Registry) RevokeCredential(by redoubt.SubjectName, id string) ([]Record, error) {
	_, ok := r.credential(id)
	return r.revoke(KindCredential, id, by, "", ok)
}

// RevokePerson ends a person for good, with every credential, every signature not yet in effect, and the
// public key. The name is never used again. NotFound: there is none of that name. Invalid: the reason, whoever is there.
func (r *Registry) RevokePerson(by, name redoubt.SubjectName, reason string) ([]Record, error) {
	_, ok := r.person(name)
	return r.revoke(KindPerson, string(name), by, reason, ok)
}

// RevokeGrant ends a grant, one that denies too. NotFound: there is none in force of that ID.
func (r *Registry) RevokeGrant(by redoubt.SubjectName, id string) ([]Record, error) {
	r.mu.Lock()
	_, ok := r.grants[id]
	r.mu.Unlock()
	return r.revoke(KindGrant, id, by, "", ok)
}

// revoke gives the record of a revocation. What is wrong with the request is said before whether there is what it names.
func (r *Registry) revoke(kind, name string, by redoubt.SubjectName, reason string, there bool) ([]Record, error) {
	const op = "identity.Revoke"
	if len(reason) > maxReasonBytes || !utf8.ValidString(reason) {
		return nil, invalid(op, name, errors.New("the reason is too long or not UTF-8"))
	}
	if !there {
		return nil, &redoubt.Error{Op: op, Object: name, Kind: redoubt.NotFound}
	}
	rec := revocationRecord{Kind: kind, Name: name, By: by, Reason: reason, At: r.o.Clock().UTC()}
	return []Record{encode(KindRevocation, kind+"/"+name, rec)}, nil
}

// takeRevocation adds to what is revoked. Nothing ever takes from it; what it names may come later or be gone.
func (r *Registry) takeRevocation(rec Record) error {
	var in revocationRecord
	if err := decode(rec, &in); err != nil {
		return err
	}
	if rec.Name != in.Kind+"/"+in.Name || in.Name == "" {
		return errors.New("not a revocation record")
	}
	switch in.Kind {
	case KindCredential:
		r.revoked[rec.Name] = in
		if c, ok := r.credential(in.Name); ok {
			c.revoked.Store(true)
			r.unhold(c.Subject, c.Working, c.ID)
		}
	case KindPerson:
		r.revoked[rec.Name] = in
		if p, ok := r.person(redoubt.SubjectName(in.Name)); ok {
			r.publish(p)
			delete(r.held, p.Name)
		}
	case KindGrant:
		r.revoked[rec.Name] = in
		r.ungrant(in.Name)
	default:
		return errors.New("this kind is not revoked: " + strings.ToValidUTF8(in.Kind, "?"))
	}
	return nil
}
