package identity

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"redoubt"
)

// Everyone is the subject of a grant that names everybody.
const Everyone redoubt.SubjectName = "*"

// MaxGrantsPerSubject bounds the grants that name one subject, for each is looked at in every decision about it.
const MaxGrantsPerSubject = 256

const grantIDBytes = 16

// grantable is every action that a grant may name: those on objects. A name that is not here is refused, for
// a denial with a slip of the pen would deny nothing.
var grantable = []redoubt.Action{
	redoubt.ActionGetObject, redoubt.ActionHeadObject, redoubt.ActionPutObject, redoubt.ActionDeleteObject,
	redoubt.ActionDeleteVersion, redoubt.ActionBypassLock, redoubt.ActionListObjects, redoubt.ActionListVersions, redoubt.ActionGetTags,
	redoubt.ActionPutTags, redoubt.ActionGetLock, redoubt.ActionPutLock, redoubt.ActionUpload,
	redoubt.ActionListUploads, redoubt.ActionAbortUpload,
}

// Grant gives or (Deny) takes need to know. The ID is made here. Invalid: a malformed grant. NotFound: no such
// subject. QuotaExceeded: MaxGrantsPerSubject name it.
func (r *Registry) Grant(g redoubt.Grant) (redoubt.Grant, []Record, error) {
	const op = "identity.Grant"
	var err error
	if g.ID, err = r.random(grantIDBytes); err != nil {
		return redoubt.Grant{}, nil, &redoubt.Error{Op: op, Err: err}
	}
	if err := checkGrant(g); err != nil {
		return redoubt.Grant{}, nil, invalid(op, string(g.Subject), err)
	}
	if !g.Expires.IsZero() && !r.o.Clock().Before(g.Expires) {
		return redoubt.Grant{}, nil, invalid(op, string(g.Subject), errors.New("it has expired already"))
	}
	if p, ok := r.person(g.Subject); g.Subject != Everyone && (!ok || p.Revoked) {
		return redoubt.Grant{}, nil, &redoubt.Error{Op: op, Object: string(g.Subject), Kind: redoubt.NotFound}
	}
	r.mu.Lock()
	held := len(r.granted[g.Subject])
	r.mu.Unlock()
	if held >= MaxGrantsPerSubject {
		return redoubt.Grant{}, nil, &redoubt.Error{Op: op, Object: string(g.Subject), Kind: redoubt.QuotaExceeded,
			Hint: fmt.Sprintf("%d grants name this subject; revoke some, or grant a wider prefix", held)}
	}
	return g, []Record{encode(KindGrant, g.ID, g)}, nil
}

// Grants lists those in force, by ID.
func (r *Registry) Grants() []redoubt.Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]redoubt.Grant, 0, len(r.grants))
	for _, g := range r.grants {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b redoubt.Grant) int { return compare(a.ID, b.ID) })
	return all
}

func checkGrant(g redoubt.Grant) error {
	switch {
	case g.Subject != Everyone && !validName(string(g.Subject)) && !validPartner(string(g.Subject)):
		return errors.New("a grant names one subject, or * for everyone")
	case g.Bucket == "" || len(g.Bucket) > maxNameBytes || !utf8.ValidString(string(g.Bucket)) || g.Bucket == redoubt.SystemBucket:
		return errors.New("a grant names one bucket")
	case len(g.Prefix) > redoubt.MaxKeyBytes || !utf8.ValidString(g.Prefix):
		return errors.New("the prefix is longer than a key, or not UTF-8")
	case len(g.Actions) > len(grantable):
		return errors.New("too many actions")
	}
	for i, a := range g.Actions {
		if !slices.Contains(grantable, a) || slices.Contains(g.Actions[:i], a) {
			return fmt.Errorf("action %q is not one on objects, or named twice", a)
		}
	}
	return nil
}

func (r *Registry) takeGrant(rec Record) error {
	var g redoubt.Grant
	if err := decode(rec, &g); err != nil {
		return err
	}
	if g.ID != rec.Name || len(g.ID) != grantIDBytes {
		return errors.New("not a grant record")
	}
	if err := checkGrant(g); err != nil {
		return err
	}
	if old, ok := r.grants[g.ID]; ok && old.Subject != g.Subject {
		return errors.New("a grant does not change its subject")
	}
	if _, revoked := r.revoked[KindGrant+"/"+g.ID]; revoked {
		return nil
	}
	r.grants[g.ID] = g
	ids := r.granted[g.Subject]
	if at, ok := slices.BinarySearch(ids, g.ID); !ok {
		r.granted[g.Subject] = slices.Insert(slices.Clone(ids), at, g.ID)
	}
	r.regrant(g.Subject)
	return nil
}

// ungrant takes a grant out of force; r.mu is held.
func (r *Registry) ungrant(id string) {
	g, ok := r.grants[id]
	if !ok {
		return
	}
	delete(r.grants, id)
	r.granted[g.Subject] = slices.DeleteFunc(slices.Clone(r.granted[g.Subject]), func(x string) bool { return x == id })
	r.regrant(g.Subject)
}

// regrant publishes anew whomever grants of this subject concern; r.mu is held.
func (r *Registry) regrant(name redoubt.SubjectName) {
	if name != Everyone {
		if p, ok := r.person(name); ok {
			r.publish(p)
		}
		return
	}
	r.people.Range(func(_, v any) bool {
		r.publish(v.(*person))
		return true
	})
}
