package identity

import (
	"fmt"
	"time"

	"redoubt"
	"redoubt/label"
)

// Limits on what a subject holds at once.
const (
	// MaxLiveCredentials bounds the live credentials of one subject at a working label and those that it dominates:
	// a shell loop that mints one a command for five minutes each stays below it. What is held above or
	// beside a label never refuses one at it, because that would tell of it (RULES 3).
	MaxLiveCredentials = 1024
	// MaxHeldCredentials bounds those over all labels, and so the memory: about half a KiB each, 8 MiB a subject. It is
	// reached by holding sixteen labels full at once, and refuses nobody: each further credential ends one that is
	// held above its label or, if there is none, beside it.
	MaxHeldCredentials = 16 * MaxLiveCredentials
	// promised is how long a credential that was minted and not yet applied counts.
	promised   = time.Minute
	sweepEvery = 10 * time.Minute
)

// held are the credentials that a subject holds or was promised, by working label: access key ID → until when it counts.
type held map[label.Label]map[string]time.Time

// hold counts a credential; r.mu is held.
func (r *Registry) hold(name redoubt.SubjectName, working label.Label, id string, until time.Time) {
	of := r.held[name]
	if of == nil {
		of = make(held)
		r.held[name] = of
	}
	if of[working] == nil {
		of[working] = make(map[string]time.Time)
	}
	of[working][id] = until
}

// unhold counts it no more; r.mu is held.
func (r *Registry) unhold(name redoubt.SubjectName, working label.Label, id string) {
	of := r.held[name]
	if delete(of[working], id); len(of[working]) == 0 {
		delete(of, working)
	}
	if len(of) == 0 {
		delete(r.held, name)
	}
}

// promise counts a credential that is about to be. The records, if any, end the one that makes room for it.
func (r *Registry) promise(name redoubt.SubjectName, working label.Label, id string, now time.Time) ([]Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(now)
	of := r.held[name]
	below, all := of.count(working)
	if below >= MaxLiveCredentials || all >= MaxHeldCredentials {
		of.prune(now)
		below, all = of.count(working)
	}
	if below >= MaxLiveCredentials {
		_, next := of.soonest(func(l label.Label) bool { return working.Dominates(l) })
		return nil, &redoubt.Error{Op: "identity.Mint", Object: string(name), Kind: redoubt.QuotaExceeded,
			Hint: fmt.Sprintf("%d credentials are live; revoke one, say %s, or ask for shorter ones", below, next)}
	}
	var displaced []Record
	if all >= MaxHeldCredentials {
		displaced = r.displace(name, working)
	}
	r.hold(name, working, id, now.Add(promised))
	return displaced, nil
}

// count tells how many are at labels that working dominates, and how many there are.
func (h held) count(working label.Label) (below, all int) {
	for l, ids := range h {
		if all += len(ids); working.Dominates(l) {
			below += len(ids)
		}
	}
	return below, all
}

// prune drops those whose time is over.
func (h held) prune(now time.Time) {
	for l, ids := range h {
		for id, until := range ids {
			if !until.After(now) {
				delete(ids, id)
			}
		}
		if len(ids) == 0 {
			delete(h, l)
		}
	}
}

// soonest finds, at the labels that at takes, the one that ends soonest; "" when there is none.
func (h held) soonest(at func(label.Label) bool) (working label.Label, id string) {
	var when time.Time
	for l, ids := range h {
		if !at(l) {
			continue
		}
		for candidate, until := range ids {
			if sooner := until.Compare(when); id == "" || sooner < 0 || sooner == 0 && candidate < id {
				working, id, when = l, candidate, until
			}
		}
	}
	return working, id
}

// displace ends one credential that is held above a working label, or else beside it. It bites when the records are
// applied. r.mu is held.
func (r *Registry) displace(name redoubt.SubjectName, working label.Label) []Record {
	at, id := r.held[name].soonest(func(l label.Label) bool { return l.Dominates(working) && !working.Dominates(l) })
	if id == "" {
		at, id = r.held[name].soonest(func(l label.Label) bool { return !working.Dominates(l) })
	}
	if id == "" {
		return nil
	}
	r.unhold(name, at, id)
	return []Record{{Kind: KindCredential, Name: id}}
}

// forget drops a credential whose record is no more; r.mu is held.
func (r *Registry) forget(id string) {
	if v, ok := r.credentials.Load(id); ok {
		c := v.(*credential)
		c.revoked.Store(true) // for whoever holds the pointer still
		r.credentials.Delete(id)
		r.unhold(c.Subject, c.Working, c.ID)
	}
}

// sweep forgets, now and then, what expired long ago; r.mu is held.
func (r *Registry) sweep(now time.Time) {
	if now.Sub(r.swept) < sweepEvery {
		return
	}
	r.swept = now
	r.credentials.Range(func(id, v any) bool {
		if c := v.(*credential); c.longGone(now) {
			r.credentials.Delete(id)
			r.unhold(c.Subject, c.Working, c.ID)
		}
		return true
	})
}
