package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"redoubt"
)

// Footing names what a person stands on: another name from the moment on at which her clearance, her roles, her key or who granted them are
// changed, and never again one that it was before. So who keeps it sees later that she was changed meanwhile, also where everything is as it
// was. A change that only prolongs her clearance while that runs leaves it as it is; one that comes after it ran out does not. Of whom the
// estate alone tells, or the home of a device, it follows from what that says, and may come back with it: an estate changes at a start alone, and a
// device releases nothing. "" is of nobody. It is the same after a restart.
func (r *Registry) Footing(name redoubt.SubjectName) string {
	p, ok := r.person(name)
	if !ok {
		return ""
	}
	return p.footing
}

// remember keeps what a person was made, and gives her footing now; r.mu is held, or r is not yet shared.
func (r *Registry) remember(p *person) string {
	past := r.past[p.Name]
	at, again := slices.BinarySearchFunc(past, p, func(a, b *person) int {
		switch {
		case a.change == b.change:
			return 0
		case newer(a, b):
			return 1
		}
		return -1
	})
	if !again {
		past = slices.Insert(slices.Clone(past), at, p) // a trial shares what there was
		r.past[p.Name] = past
	}
	from := len(past) - 1
	for from > 0 && prolongs(past[from-1], past[from]) {
		from--
	}
	if past[from].change != "" {
		return past[from].change
	}
	return past[from].content()
}

// prolongs says whether next is old with a clearance that runs as long or longer, and was made so while old's ran.
func prolongs(old, next *person) bool {
	for _, role := range next.Roles {
		if !slices.Equal(old.grantedBy[role], next.grantedBy[role]) {
			return false
		}
	}
	return old.content() == next.content() && !next.Expires.Before(old.Expires) && next.effective.Before(old.Expires)
}

// content names all that the estate or a change says of a person, but for when her clearance ends.
func (p *person) content() string {
	of := p.Person
	of.Roles, of.Expires, of.Revoked, of.Clearance = slices.Sorted(slices.Values(p.Roles)), time.Time{}, false, p.clearance.Banner()
	b, err := json.Marshal(of)
	if err != nil {
		panic("identity: a person of plain fields does not encode: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return "as " + hex.EncodeToString(sum[:])
}
