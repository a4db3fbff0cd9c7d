package access

import (
	"slices"
	"strings"

	"redoubt"
)

// needToKnow decides by grants: those that name the subject, and those of the bucket. A denying grant wins
// over any number of others; a closed bucket needs one that allows. The node's own subject needs none.
//
// A list is refused here only when it could show nothing at all; which keys it shows is decided by Scope.
func (m *Monitor) needToKnow(class Class, r *Request) string {
	if class == ClassGranted && !redoubt.Granted(r.Granted, r.Subject.Name) {
		return RuleGranted
	}
	if !class.touchesObjects() || r.Subject.Name == m.own {
		return ""
	}
	if r.Bucket == nil {
		return RuleNoBucket
	}
	open := !r.Bucket.Closed
	if open && len(r.Subject.Grants) == 0 && len(r.Bucket.Grants) == 0 {
		return "" // nearly always
	}
	for _, grants := range [2][]redoubt.Grant{r.Subject.Grants, r.Bucket.Grants} {
		for i := range grants {
			g := &grants[i]
			if !concerns(g, r, r.Action) {
				continue
			}
			switch {
			case class == ClassList && g.Deny && g.Prefix != "":
			case class != ClassList && !strings.HasPrefix(r.Key, g.Prefix):
			case g.Deny:
				return RuleNeedDenied
			default:
				open = true
			}
		}
	}
	if !open {
		return RuleNeedToKnow
	}
	return ""
}

// Scope gives the keys of the bucket that need to know lets the request's subject see, for a list that Check
// has allowed: nil when it is all of them. It says nothing of labels. The function keeps nothing of r but
// prefixes, and its cost is a comparison for each grant of this subject in this bucket.
func (m *Monitor) Scope(r *Request) func(key string) bool {
	if r.Bucket == nil {
		return func(string) bool { return false }
	}
	if r.Subject.Name == m.own {
		return nil
	}
	var allow, deny []string
	all := !r.Bucket.Closed
	for _, grants := range [2][]redoubt.Grant{r.Subject.Grants, r.Bucket.Grants} {
		for i := range grants {
			switch g := &grants[i]; {
			case !concerns(g, r, r.Action):
			case g.Deny:
				deny = append(deny, g.Prefix)
			case g.Prefix == "":
				all = true
			default:
				allow = append(allow, g.Prefix)
			}
		}
	}
	if all && len(deny) == 0 {
		return nil
	}
	return func(key string) bool {
		begins := func(prefix string) bool { return strings.HasPrefix(key, prefix) }
		return (all || slices.ContainsFunc(allow, begins)) && !slices.ContainsFunc(deny, begins)
	}
}

// bypasses says whether an alteration goes past GOVERNANCE retention, or asks for the right to do so by its own name.
func bypasses(class Class, r *Request) bool {
	return class == ClassAlter && (r.Bypass || r.Action == redoubt.ActionBypassLock)
}

// bypass decides by rights: the storage role has the right to go past GOVERNANCE retention, and so has whom a grant
// gives it by name. One that names no actions gives reading and writing, and not this; one that denies it wins.
func (m *Monitor) bypass(r *Request) string {
	right := r.Subject.Has(redoubt.RoleStorage)
	for _, grants := range [2][]redoubt.Grant{r.Subject.Grants, r.Bucket.Grants} {
		for i := range grants {
			switch g := &grants[i]; {
			case !concerns(g, r, redoubt.ActionBypassLock) || !strings.HasPrefix(r.Key, g.Prefix):
			case g.Deny:
				return RuleNeedDenied
			case len(g.Actions) > 0:
				right = true
			}
		}
	}
	if !right {
		return RuleBypass
	}
	return ""
}

// concerns says whether a grant speaks of this subject, bucket, action and moment; the prefix is left to the caller.
func concerns(g *redoubt.Grant, r *Request, a redoubt.Action) bool {
	return g.Bucket == r.Bucket.Name && (g.Subject == r.Subject.Name || g.Subject == "*") &&
		covers(g.Actions, a) && (g.Expires.IsZero() || r.Now.Before(g.Expires))
}

// covers says whether the actions of a grant include a. None named: all reading and writing of objects.
func covers(actions []redoubt.Action, a redoubt.Action) bool {
	return len(actions) == 0 || slices.Contains(actions, a)
}
