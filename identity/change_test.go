package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"redoubt"
)

func (w *world) personChange(p redoubt.Person) redoubt.Change {
	w.now = w.now.Add(time.Second)
	return redoubt.Change{Kind: redoubt.ChangePerson, Person: &p, Reason: "test", Made: w.now, Expires: w.now.Add(time.Hour)}
}

func sign(c redoubt.Change, name redoubt.SubjectName) redoubt.Signature {
	return signWith(c, name, keyOf(name))
}

func signWith(c redoubt.Change, name redoubt.SubjectName, key ed25519.PrivateKey) redoubt.Signature {
	return redoubt.Signature{Signer: name, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(key, redoubt.ChangeMessage(c)))}
}

// propose proposes as the first and approves as the others, until one is refused.
func (w *world) propose(c redoubt.Change, signers ...redoubt.SubjectName) (redoubt.Change, error) {
	w.t.Helper()
	in := c
	in.Signatures = []redoubt.Signature{sign(c, signers[0])}
	out, recs, err := w.r.Propose(in)
	if err != nil {
		return out, err
	}
	w.commit(recs)
	for _, name := range signers[1:] {
		var next redoubt.Change
		if next, recs, err = w.r.Approve(out.ID, sign(c, name)); err != nil {
			return out, err
		}
		w.commit(recs)
		out = next
	}
	return out, nil
}

// change wants a change in effect.
func (w *world) change(c redoubt.Change, signers ...redoubt.SubjectName) redoubt.Change {
	w.t.Helper()
	out, err := w.propose(c, signers...)
	if err != nil || out.State != stateInEffect {
		w.t.Fatalf("got %q, %v, want it in effect", out.State, err)
	}
	return out
}

func TestAPersonNeedsTwoOfficers(t *testing.T) {
	w := newWorld(t, "SECRET")
	c := w.personChange(somebody("new", "SECRET", "USA", redoubt.RoleAnalyst))
	out, err := w.propose(c, "officer")
	if err != nil || out.State != statePending || out.ID != redoubt.ChangeID(c) {
		t.Fatalf("with one: got %+v, %v, want it pending", out, err)
	}
	if _, ok := w.r.Subject("new"); ok {
		t.Fatal("one officer made a person")
	}
	w.open() // a change that waits survives
	_, _, err = w.r.Approve(out.ID, sign(c, "officer"))
	wantKind(t, err, redoubt.Denied, RuleTwo)
	for _, name := range []redoubt.SubjectName{"s-analyst", "reviewer", "admin", "nobody"} {
		_, _, err = w.r.Approve(out.ID, sign(c, name))
		wantKind(t, err, redoubt.Denied, RuleOfficer)
	}
	_, _, err = w.r.Approve(out.ID, signWith(c, "officer-2", keyOf("officer")))
	wantKind(t, err, redoubt.Denied, RuleOfficer)
	out, recs, err := w.r.Approve(out.ID, sign(c, "officer-2"))
	if err != nil || out.State != stateInEffect || len(out.Signatures) != 2 {
		t.Fatalf("with two: got %+v, %v", out, err)
	}
	if _, ok := w.r.Subject("new"); ok {
		t.Fatal("in effect before it was durable")
	}
	w.commit(recs)
	for range 2 {
		if s, ok := w.r.Subject("new"); !ok || !s.Has(redoubt.RoleAnalyst) {
			t.Fatalf("got %+v, %v", s, ok)
		}
		w.mint("new", "")
		w.open()
	}
	_, _, err = w.r.Approve(out.ID, sign(c, "officer-2"))
	wantKind(t, err, redoubt.Conflict, "")
	_, _, err = w.r.Approve(strings.Repeat("0", 64), sign(c, "officer-2"))
	wantKind(t, err, redoubt.NotFound, "")
}

func TestAProposalMayCarryBothSignatures(t *testing.T) {
	w := newWorld(t, "SECRET")
	c := w.personChange(somebody("new", "SECRET", "USA"))
	in := c
	in.Signatures = []redoubt.Signature{sign(c, "officer"), sign(c, "officer-2")}
	out, recs, err := w.r.Propose(in)
	if err != nil || out.State != stateInEffect {
		t.Fatalf("got %q, %v", out.State, err)
	}
	w.commit(recs)
	in.Signatures[1] = in.Signatures[0]
	in.Reason = "another"
	in.Signatures[0] = sign(in, "officer")
	in.Signatures[1] = in.Signatures[0]
	_, _, err = w.r.Propose(in)
	wantKind(t, err, redoubt.Conflict, RuleNewestWins)
}

func TestAnApprovalIsForOneExactChange(t *testing.T) {
	w := newWorld(t, "SECRET")
	c := w.personChange(somebody("new", "SECRET", "USA", redoubt.RoleAnalyst))
	other := c
	p := *c.Person
	p.Clearance = "TOP SECRET//SI/TK"
	other.Person = &p
	out, err := w.propose(c, "officer")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.r.Approve(out.ID, sign(other, "officer-2"))
	wantKind(t, err, redoubt.Denied, RuleOfficer)
	other.ID = out.ID
	other.Signatures = []redoubt.Signature{sign(c, "officer-2")}
	_, _, err = w.r.Propose(other)
	wantKind(t, err, redoubt.Invalid, "")
}

func TestNobodySignsForHerself(t *testing.T) {
	w := newWorld(t, "SECRET")
	p := somebody("officer", "TOP SECRET//SI/TK", "USA", redoubt.RoleOfficer, redoubt.RoleReviewer)
	_, err := w.propose(w.personChange(p), "officer")
	wantKind(t, err, redoubt.Denied, RuleNotOneself)
	_, err = w.propose(w.personChange(p), "officer-2", "officer")
	wantKind(t, err, redoubt.Denied, RuleNotOneself)
}

func TestGranterAndGranteeCannotApproveTogether(t *testing.T) {
	w := newWorld(t, "SECRET")
	third := somebody("officer-3", "SECRET", "USA", redoubt.RoleOfficer)
	w.change(w.personChange(third), "officer", "officer-2")
	for range 2 {
		c := w.personChange(somebody("new", "SECRET", "USA"))
		for _, pair := range [][2]redoubt.SubjectName{{"officer", "officer-3"}, {"officer-3", "officer-2"}} {
			c := c
			c.Reason = string(pair[0])
			_, err := w.propose(c, pair[0], pair[1])
			wantKind(t, err, redoubt.Denied, RuleIndependent)
		}
		w.open()
	}
	// A fourth, signed by the first two as well, is independent of the third.
	w.change(w.personChange(somebody("officer-4", "SECRET", "USA", redoubt.RoleOfficer)), "officer", "officer-2")
	w.change(w.personChange(somebody("new", "SECRET", "USA")), "officer-3", "officer-4")
	// With a third signature the pair that may does.
	c := w.personChange(somebody("newer", "SECRET", "USA"))
	in := c
	in.Signatures = []redoubt.Signature{sign(c, "officer"), sign(c, "officer-2"), sign(c, "officer-3")}
	if out, _, err := w.r.Propose(in); err != nil || out.State != stateInEffect {
		t.Errorf("got %q, %v", out.State, err)
	}
}

func TestKeepingARoleDoesNotForgetWhoGrantedIt(t *testing.T) {
	w := newWorld(t, "SECRET")
	for _, name := range []redoubt.SubjectName{"officer-3", "officer-4"} {
		w.change(w.personChange(somebody(name, "SECRET", "USA", redoubt.RoleOfficer)), "officer", "officer-2")
	}
	w.change(w.personChange(somebody("officer-5", "SECRET", "USA", redoubt.RoleOfficer)), "officer-3", "officer-4")
	// The first two change only the clearance of the fifth: who granted her the role stays the same.
	w.change(w.personChange(somebody("officer-5", "TOP SECRET", "USA", redoubt.RoleOfficer)), "officer", "officer-2")
	_, err := w.propose(w.personChange(somebody("new", "SECRET", "USA")), "officer-5", "officer-3")
	wantKind(t, err, redoubt.Denied, RuleIndependent)
	w.change(w.personChange(somebody("new", "SECRET", "USA")), "officer-5", "officer")
}

func TestWhoGaveAKeyCannotApproveWithIt(t *testing.T) {
	w := newWorld(t, "SECRET")
	for _, name := range []redoubt.SubjectName{"officer-3", "officer-4"} {
		w.change(w.personChange(somebody(name, "SECRET", "USA", redoubt.RoleOfficer)), "officer", "officer-2")
	}
	w.change(w.personChange(somebody("officer-5", "SECRET", "USA", redoubt.RoleOfficer)), "officer-3", "officer-4")
	w.change(w.personChange(somebody("new", "SECRET", "USA")), "officer", "officer-5") // independent, so far
	// The second and the fifth give the first, who is of the genesis, a key that they may hold themselves.
	p := somebody("officer", "TOP SECRET//SI/TK", "USA", redoubt.RoleOfficer)
	p.PublicKey = public(keyOf("theirs"))
	w.change(w.personChange(p), "officer-2", "officer-5")
	for range 2 {
		if got := fmt.Sprint(w.r.GrantedBy("officer", redoubt.RoleOfficer)); got != "[officer-2 officer-5]" {
			t.Errorf("got %s", got)
		}
		c := w.personChange(somebody("newer", "SECRET", "USA"))
		in := c
		in.Signatures = []redoubt.Signature{signWith(c, "officer", keyOf("theirs")), sign(c, "officer-5")}
		_, _, err := w.r.Propose(in)
		wantKind(t, err, redoubt.Denied, RuleIndependent)
		w.open()
	}
}

func TestAChangeDiesAtItsTime(t *testing.T) {
	w := newWorld(t, "SECRET")
	c := w.personChange(somebody("new", "SECRET", "USA"))
	out, err := w.propose(c, "officer")
	if err != nil {
		t.Fatal(err)
	}
	w.now = c.Expires
	_, _, err = w.r.Approve(out.ID, sign(c, "officer-2"))
	wantKind(t, err, redoubt.Denied, RuleDead)
	if got := w.r.Changes(); len(got) != 1 || got[0].State != stateDead {
		t.Errorf("got %+v", got)
	}
	w.now = c.Expires.Add(-1)
	if _, _, err = w.r.Approve(out.ID, sign(c, "officer-2")); err != nil {
		t.Errorf("an instant before: %v", err)
	}
}

func TestOfficersMustBeLiveWhenTheSecondSigns(t *testing.T) {
	w := newWorld(t, "SECRET")
	w.change(w.personChange(somebody("officer-3", "SECRET", "USA", redoubt.RoleOfficer)), "officer", "officer-2")
	c := w.personChange(somebody("new", "SECRET", "USA"))
	out, err := w.propose(c, "officer")
	if err != nil {
		t.Fatal(err)
	}
	recs, err := w.r.RevokePerson("officer-2", "officer", "left")
	if err != nil {
		t.Fatal(err)
	}
	w.commit(recs)
	out, recs, err = w.r.Approve(out.ID, sign(c, "officer-2"))
	if err != nil || out.State != statePending || len(out.Signatures) != 1 || out.Signatures[0].Signer != "officer-2" {
		t.Fatalf("got %+v, %v: want the revoked officer's signature to count no more", out, err)
	}
	w.commit(recs)
	_, _, err = w.r.Approve(out.ID, sign(c, "officer"))
	wantKind(t, err, redoubt.Denied, RuleOfficer)
	w.now = w.now.Add(400 * 24 * time.Hour) // every clearance has run out
	d := w.personChange(somebody("late", "SECRET", "USA"))
	d.Person.Expires = w.now.Add(time.Hour)
	_, err = w.propose(d, "officer-2")
	wantKind(t, err, redoubt.Denied, RuleOfficer)
}

func TestAnOldChangeUndoesNothing(t *testing.T) {
	w := newWorld(t, "SECRET")
	old := w.personChange(somebody("new", "TOP SECRET", "USA", redoubt.RoleAnalyst))
	older, err := w.propose(old, "officer")
	if err != nil {
		t.Fatal(err)
	}
	w.change(w.personChange(somebody("new", "UNCLASSIFIED", "USA", redoubt.RoleAnalyst)), "officer", "officer-2")
	_, _, err = w.r.Approve(older.ID, sign(old, "officer-2"))
	wantKind(t, err, redoubt.Conflict, RuleNewestWins)

	// Records come in any order, and the newest stands.
	done := w.personChange(somebody("new", "SECRET", "USA"))
	w.change(done, "officer", "officer-2")
	for range 10 {
		w.open()
		if s, ok := w.r.Subject("new"); !ok || s.Clearance.Banner() != "SECRET//NOFORN" && s.Clearance.Banner() != "SECRET" {
			t.Fatalf("got %s, %v, want the newest", s.Clearance.Banner(), ok)
		}
	}
	recs, err := w.r.RevokePerson("officer", "new", "")
	if err != nil {
		t.Fatal(err)
	}
	w.commit(recs)
	for range 2 {
		_, err = w.propose(w.personChange(somebody("new", "SECRET", "USA")), "officer")
		wantKind(t, err, redoubt.Denied, RuleRevoked)
		w.open()
	}
	c := w.personChange(somebody("other", "SECRET", "USA"))
	c.Person.PublicKey = public(keyOf("new"))
	_, err = w.propose(c, "officer")
	wantKind(t, err, redoubt.Denied, RuleOneKey)
}

func TestErasuresAreSignedForOneNode(t *testing.T) {
	w := newWorld(t, "SECRET")
	c := redoubt.Change{Kind: redoubt.ChangeEraseLabel, Node: "other", Label: "SECRET//NOFORN", Made: w.now, Expires: w.now.Add(time.Hour)}
	_, err := w.propose(c, "officer")
	wantKind(t, err, redoubt.Denied, RuleHere)
	c.Node = "node"
	out := w.change(c, "officer", "officer-2")
	w.open()
	in := c
	in.Signatures = out.Signatures
	_, _, err = w.r.Propose(in) // the same signatures do not erase twice
	wantKind(t, err, redoubt.Exists, "")
	w.now = c.Expires
	w.r.changes = map[string]changeRecord{} // even when the change is long forgotten
	_, _, err = w.r.Propose(in)
	wantKind(t, err, redoubt.Denied, RuleDead)
	w.now = noon
	w.change(redoubt.Change{Kind: redoubt.ChangeEraseBucket, Node: "node", Bucket: "reports", Made: w.now, Expires: w.now.Add(time.Hour)}, "officer", "officer-2")
	p := w.personChange(somebody("new", "SECRET", "USA"))
	p.Node = "node"
	_, err = w.propose(p, "officer")
	wantKind(t, err, redoubt.Denied, RuleHere)
}

func TestMalformedChangesAreInvalid(t *testing.T) {
	w := newWorld(t, "SECRET")
	for name, spoil := range map[string]func(*redoubt.Change){
		"no kind":              func(c *redoubt.Change) { c.Kind = "" },
		"another kind":         func(c *redoubt.Change) { c.Kind = "policy" },
		"no person":            func(c *redoubt.Change) { c.Person = nil },
		"a label too":          func(c *redoubt.Change) { c.Label = "SECRET" },
		"a bucket too":         func(c *redoubt.Change) { c.Bucket = "reports" },
		"said to be in effect": func(c *redoubt.Change) { c.State = stateInEffect },
		"made never":           func(c *redoubt.Change) { c.Made = time.Time{} },
		"made ahead":           func(c *redoubt.Change) { c.Made = w.now.Add(redoubt.MintSkew + 1) },
		"expired before made":  func(c *redoubt.Change) { c.Expires = c.Made },
		"lives too long":       func(c *redoubt.Change) { c.Expires = c.Made.Add(MaxChangeLife + 1) },
		"long reason":          func(c *redoubt.Change) { c.Reason = strings.Repeat("x", maxReasonBytes+1) },
		"reason not UTF-8":     func(c *redoubt.Change) { c.Reason = "\xff" },
		"revokes":              func(c *redoubt.Change) { c.Person.Revoked = true },
		"expired clearance":    func(c *redoubt.Change) { c.Person.Expires = w.now },
		"a wild role":          func(c *redoubt.Change) { c.Person.Roles = []redoubt.Role{"root"} },
		"no label to erase":    func(c *redoubt.Change) { c.Kind, c.Person = redoubt.ChangeEraseLabel, nil },
		"no bucket to erase":   func(c *redoubt.Change) { c.Kind, c.Person = redoubt.ChangeEraseBucket, nil },
		"the system's bucket": func(c *redoubt.Change) {
			c.Kind, c.Person, c.Bucket = redoubt.ChangeEraseBucket, nil, redoubt.SystemBucket
		},
	} {
		c := w.personChange(somebody("new", "SECRET", "USA"))
		spoil(&c)
		if _, err := w.propose(c, "officer"); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
	c := w.personChange(somebody("new", "SECRET", "USA"))
	_, _, err := w.r.Propose(c)
	wantKind(t, err, redoubt.Invalid, "") // no signature
	for range MaxSignatures + 1 {
		c.Signatures = append(c.Signatures, sign(c, "officer"))
	}
	_, _, err = w.r.Propose(c)
	wantKind(t, err, redoubt.Invalid, "")
}

func TestPendingChangesAreBounded(t *testing.T) {
	w := newWorld(t, "SECRET")
	for i := range MaxPendingChanges {
		if _, err := w.propose(w.personChange(somebody(redoubt.SubjectName(fmt.Sprint("p", i)), "SECRET", "USA")), "officer"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.propose(w.personChange(somebody("more", "SECRET", "USA")), "officer")
	wantKind(t, err, redoubt.QuotaExceeded, "")
	w.mint("officer", "UNCLASSIFIED") // what is refused is one more change that waits, and nothing else
	urgent := w.personChange(somebody("urgent", "SECRET", "USA"))
	urgent.Signatures = []redoubt.Signature{sign(urgent, "officer"), sign(urgent, "officer-2")}
	if c, _, err := w.r.Propose(urgent); err != nil || c.State != stateInEffect {
		t.Errorf("signed by two: got %q, %v", c.State, err)
	}
	if _, _, err := w.r.Grant(redoubt.Grant{Subject: "s-analyst", Bucket: "reports"}); err != nil {
		t.Error(err)
	}
	w.now = w.now.Add(2 * time.Hour) // they die, and make room
	if _, err := w.propose(w.personChange(somebody("more", "SECRET", "USA")), "officer"); err != nil {
		t.Error(err)
	}
}
