package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
)

// Limits on one person.
const (
	maxNameBytes      = 63 // redoubt.SubjectName
	maxMarkingBytes   = label.MaxMarkingBytes
	MaxRolesPerPerson = 16 // there are six roles
)

// person is a subject compiled, with what two officers must know of its past. It is immutable once published.
type person struct {
	redoubt.Person
	clearance label.Label
	key       [ed25519.PublicKeySize]byte
	made      time.Time // of the change that left it so; zero: genesis
	change    string    // its ID
	told      bool      // as the home tells of her
	life      int       // of personProjection
	effective time.Time // when that change took effect here; zero: genesis
	footing   string    // see Registry.Footing
	// grantedBy names who gave each role. Who gave a person a key, gave it every role that it then held:
	// they could hold that key themselves.
	grantedBy map[redoubt.Role][]redoubt.SubjectName
	subject   redoubt.Subject // resolved, with grants
}

// has says whether the person is live and holds the role now.
func (p *person) has(role redoubt.Role, now time.Time) bool {
	return !p.Revoked && now.Before(p.Expires) && slices.Contains(p.Roles, role)
}

// compile reads a person strictly. It does not look at other people.
func (r *Registry) compile(in redoubt.Person) (*person, error) {
	if !validName(string(in.Name)) {
		return nil, errors.New("a name has 1 to 63 of a-z, 0-9 and -")
	}
	return r.compileAs(in, redoubt.Roles())
}

// compileAs is compile of somebody who may have these roles.
func (r *Registry) compileAs(in redoubt.Person, known []redoubt.Role) (*person, error) {
	p := &person{Person: in, grantedBy: map[redoubt.Role][]redoubt.SubjectName{}}
	p.Roles = slices.Clone(in.Roles)
	if len(in.Clearance) > maxMarkingBytes || len(in.Nation) > maxNameBytes || len(in.Roles) > MaxRolesPerPerson {
		return nil, errors.New("clearance, nation or roles too long")
	}
	for i, role := range in.Roles {
		if !slices.Contains(known, role) || slices.Contains(in.Roles[:i], role) {
			return nil, fmt.Errorf("role %q is unknown or named twice", role)
		}
	}
	if in.Expires.IsZero() {
		return nil, errors.New("a clearance has an expiry")
	}
	var err error
	if p.clearance, err = r.o.Policy.Clearance(in.Clearance, in.Nation); err != nil {
		return nil, fmt.Errorf("clearance: %w", err)
	}
	if p.key, err = publicKey(in.PublicKey); err != nil {
		return nil, err
	}
	return p, nil
}

// genesis takes a person of the signed estate; r is not yet shared.
func (r *Registry) genesis(in redoubt.Person) error {
	if !validName(string(in.Name)) {
		return errors.New("a name has 1 to 63 of a-z, 0-9 and -")
	}
	return r.first(in, append(redoubt.Roles(), redoubt.RoleGuard)) // which nothing but a signed estate gives
}

// partner takes somebody whom a signed agreement names: a gateway, or one of the partner's people, who may be an analyst and no more.
func (r *Registry) partner(in redoubt.Person) error {
	if slices.Contains(in.Roles, redoubt.RolePartner) != validName(string(in.Name)) || !validName(string(in.Name)) && !validPartner(string(in.Name)) {
		return errors.New("a partner's gateway is named ESTATE--NODE, and its people ESTATE.NAME")
	}
	return r.first(in, []redoubt.Role{redoubt.RoleAnalyst, redoubt.RolePartner})
}

func (r *Registry) first(in redoubt.Person, known []redoubt.Role) error {
	revoked := in.Revoked
	in.Revoked = false
	p, err := r.compileAs(in, known)
	if err != nil {
		return err
	}
	if err := r.claim(p); err != nil {
		return err
	}
	if revoked {
		r.revoked[KindPerson+"/"+string(p.Name)] = revocationRecord{Kind: KindPerson, Name: string(p.Name)}
	}
	p.footing = r.remember(p)
	r.publish(p)
	return nil
}

// claim makes p's key p's for good. One key is one person: else one could sign as two officers.
func (r *Registry) claim(p *person) error {
	if owner, taken := r.keys[string(p.key[:])]; taken && owner != p.Name {
		return fmt.Errorf("the public key is that of %s", owner)
	}
	r.keys[string(p.key[:])] = p.Name
	return nil
}

// publish makes p what its name resolves to, with grants and revocation as they stand; r.mu is held.
func (r *Registry) publish(p *person) {
	q := *p
	_, q.Revoked = r.revoked[KindPerson+"/"+string(q.Name)]
	q.Revoked = q.Revoked || r.withdrawn[q.Name]
	q.subject = redoubt.Subject{Name: q.Name, Clearance: q.clearance, Nation: q.Nation, Expires: q.Expires, Roles: q.Roles}
	for _, name := range []redoubt.SubjectName{q.Name, Everyone} {
		for _, id := range r.granted[name] {
			q.subject.Grants = append(q.subject.Grants, r.grants[id])
		}
	}
	r.people.Store(q.Name, &q)
}

// takePerson applies a change that took effect. The newest change of a person stands, whatever the order in
// which they come.
func (r *Registry) takePerson(rec Record) error {
	var in personRecord
	if err := decode(rec, &in); err != nil {
		return err
	}
	c := in.Change
	if c.Kind != redoubt.ChangePerson || c.Person == nil || c.Person.Revoked || c.ID != redoubt.ChangeID(c) ||
		rec.Name != personRecordName(c) || c.State != "" || in.Effective.IsZero() || in.GrantedBy == nil {
		return errors.New("not a person record")
	}
	if len(c.Signatures) < 2 || sameSigner(c.Signatures) {
		return errors.New("a person needs two different signers")
	}
	p, err := r.compile(*c.Person)
	if err != nil {
		return err
	}
	p.made, p.change, p.grantedBy, p.effective = c.Made, c.ID, in.GrantedBy, in.Effective
	if err := r.claim(p); err != nil {
		return err
	}
	p.footing = r.remember(p)
	if old, ok := r.person(p.Name); ok {
		if old.told {
			return nil
		}
		if !newer(p, old) { // it came before, and may be what she stands on still
			q := *old
			q.footing = p.footing
			r.publish(&q)
			return nil
		}
		if p.life = old.life; r.withdrawn[p.Name] {
			p.life++ // what was minted before stays ended
		}
	}
	if !r.told[p.Name] {
		delete(r.withdrawn, p.Name)
	}
	r.publish(p)
	return nil
}

// newer says whether p replaces old. Every change replaces genesis; ties are broken by ID, the same everywhere.
func newer(p, old *person) bool {
	if !p.made.Equal(old.made) {
		return p.made.After(old.made)
	}
	return p.change >= old.change
}

// granters gives who is to be held to have granted each role of next, when signers put it in the place of old.
func granters(old, next *person, signers []redoubt.SubjectName) map[redoubt.Role][]redoubt.SubjectName {
	out := make(map[redoubt.Role][]redoubt.SubjectName)
	for _, role := range next.Roles {
		var by []redoubt.SubjectName
		if old != nil && slices.Contains(old.Roles, role) {
			by = slices.Clone(old.grantedBy[role])
		} else {
			by = slices.Clone(signers)
		}
		if old == nil || old.key != next.key {
			by = append(by, signers...)
		}
		slices.Sort(by)
		out[role] = slices.Compact(by)
	}
	return out
}

// GrantedBy names those who gave a person a role, or the key it holds it with; nobody for genesis. None of them may
// approve together with that person.
func (r *Registry) GrantedBy(name redoubt.SubjectName, role redoubt.Role) []redoubt.SubjectName {
	p, ok := r.person(name)
	if !ok {
		return nil
	}
	return slices.Clone(p.grantedBy[role])
}

// independent says whether a and b may approve together in the role: they differ, and neither made the other.
func independent(a, b *person, role redoubt.Role) bool {
	return a.Name != b.Name && a.key != b.key &&
		!slices.Contains(a.grantedBy[role], b.Name) && !slices.Contains(b.grantedBy[role], a.Name)
}

func personRecordName(c redoubt.Change) string { return string(c.Person.Name) + "/" + c.ID }

func sameSigner(sigs []redoubt.Signature) bool {
	seen := make(map[redoubt.SubjectName]bool)
	for _, s := range sigs {
		if seen[s.Signer] {
			return true
		}
		seen[s.Signer] = true
	}
	return false
}

// publicKey reads an Ed25519 public key, standard base64.
func publicKey(text string) (key [ed25519.PublicKeySize]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(key) {
		return key, errors.New("a public key is 32 bytes of Ed25519 in base64")
	}
	return [ed25519.PublicKeySize]byte(b), nil
}

// signedBy says whether text is the key's signature over message, standard base64.
func signedBy(key []byte, message []byte, text string) bool {
	sig, err := base64.StdEncoding.Strict().DecodeString(text)
	return err == nil && len(sig) == ed25519.SignatureSize && ed25519.Verify(key, message, sig)
}

// validPartner takes ESTATE.NAME, as another estate's people are called here.
func validPartner(s string) bool {
	estate, name, ok := strings.Cut(s, ".")
	return ok && validName(estate) && validName(name)
}

func validName(s string) bool {
	return s != "" && len(s) <= maxNameBytes &&
		strings.IndexFunc(s, func(c rune) bool { return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') }) < 0
}
