package redoubttest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"redoubt"
	"redoubt/identity"
)

// officersCall plays a step about people, grants, changes and credentials; ok is false for another. IDs are random and
// drawn from one source for all labels, so answers are rendered without those that are not alike in every run.
func (w *world) officersCall(r *rand.Rand, a *actor, s step) (v any, err error, ok bool) {
	ctx := w.t.Context()
	top := a.marking == roles[0].marking
	switch s.op {
	case "people":
		v, err = w.s.People(ctx, a.cred)
	case "changes":
		v, err = w.s.Changes(ctx, a.cred)
	case "grants":
		var all []redoubt.Grant
		all, err = w.s.Grants(ctx, a.cred)
		v = len(all)
	case "mint":
		v, err = w.mint(a, time.Duration(1+r.IntN(200))*time.Hour)
	case "hoard-credentials":
		n, made := 0, ""
		for err == nil && n <= identity.MaxLiveCredentials {
			made, err = w.mint(a, redoubt.MaxCredentialLife)
			n++
		}
		v, err = made, reached(err)
	case "propose":
		_, err = w.propose(a, s.n, r.IntN(3) == 0, fmt.Sprintf("x-%d", r.IntN(6)))
	case "hoard-changes":
		for n := 0; err == nil && n <= identity.MaxPendingChanges; n++ {
			_, err = w.propose(a, s.n, false, fmt.Sprintf("y-%d-%d", s.n, n))
		}
		err = reached(err)
	case "approve":
		id := nobodys(r, w.waiting)
		_, err = w.s.ApproveChange(ctx, a.cred, id, redoubt.Signature{Signer: "officer-2"})
		if kind := redoubt.KindOf(err); top && kind == redoubt.Denied { // it has no signature: it was found, which is enough
			err = nil
		}
	case "grant":
		var g redoubt.Grant
		if g, err = w.s.Grant(ctx, a.cred, redoubt.Grant{Subject: "u-analyst", Bucket: "nowhere"}); err == nil && top {
			w.given = append(w.given, g.ID)
		}
	case "revoke-person":
		err = w.s.RevokePerson(ctx, a.cred, redoubt.SubjectName(fmt.Sprintf("x-%d", r.IntN(6))), "left")
	case "revoke-credential":
		err = w.s.RevokeCredential(ctx, a.cred, nobodys(r, w.minted))
	case "revoke-grant":
		err = w.s.RevokeGrant(ctx, a.cred, nobodys(r, w.given))
	default:
		return nil, nil, false
	}
	return v, err, true
}

// reached is nil for a limit that was reached.
func reached(err error) error {
	switch {
	case errors.Is(err, redoubt.QuotaExceeded):
		return nil
	case err == nil:
		return errors.New("no limit was reached")
	}
	return err
}

// nobodys draws the ID of something made at the ceiling, or one that never was: the answer for both must be alike below.
func nobodys(r *rand.Rand, made []string) string {
	if never := guess(r); len(made) == 0 || r.IntN(4) == 0 {
		return never
	}
	return pick(r, made[max(0, len(made)-12):])
}

// mint makes one more credential for an actor's subject at its working label.
func (w *world) mint(a *actor, life time.Duration) (string, error) {
	m, err := w.s.TryMint(a.who, a.marking, min(life, redoubt.MaxCredentialLife))
	if err == nil && a.marking == roles[0].marking {
		w.minted = append(w.minted, m.AccessKeyID)
	}
	return m.Label + " until " + m.Expires.String(), err
}

// propose proposes a person who acts nowhere; both officers sign when it is to take effect.
func (w *world) propose(a *actor, n int, both bool, name string) (redoubt.Change, error) {
	now := w.s.Clock.Now()
	key := sha256.Sum256([]byte(name))
	c := redoubt.Change{Kind: redoubt.ChangePerson, Reason: fmt.Sprintf("joins at step %d", n), Made: now, Expires: now.Add(200 * time.Hour),
		Person: &redoubt.Person{Name: redoubt.SubjectName(name), Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst},
			Expires: now.AddDate(1, 0, 0), PublicKey: base64.StdEncoding.EncodeToString(key[:])}}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{w.s.Sign("officer", c)}
	if both {
		c.Signatures = append(c.Signatures, w.s.Sign("officer-2", c))
	}
	c, err := w.s.ProposeChange(w.t.Context(), a.cred, c)
	if err == nil && c.State == "pending" {
		w.waiting = append(w.waiting, c.ID)
	}
	return c, err
}

// credentials renders a list of credentials as a set: their order is that of random IDs.
func (w *world) credentials(a *actor) (string, error) {
	all, err := w.s.Credentials(w.t.Context(), a.cred)
	var lines []string
	for _, c := range all {
		c.ID = w.masked(c.ID)
		lines = append(lines, render2(c))
	}
	return sortedLines(lines), err
}

var accessKeyID = regexp.MustCompile(`RD[A-Z0-9]{18}`)

// maskedIn hides access key IDs in a text: a hint names one.
func (w *world) maskedIn(text string) string { return accessKeyID.ReplaceAllStringFunc(text, w.masked) }

var randomID = regexp.MustCompile(`^[A-Za-z0-9]{16,32}$`)

// masked hides an ID that is not alike in every run.
func (w *world) masked(id string) string {
	if w.known[id] || !randomID.MatchString(id) {
		return id
	}
	return "ID"
}
