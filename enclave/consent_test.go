package enclave

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/identity"
)

const orcon = "SECRET//ORCON"

// askMarked has s-analyst ask for what somebody else wrote with a mark.
func (c *chain) askMarked(author redoubt.SubjectName, marking string, change func(*redoubt.RequestRelease)) redoubt.Release {
	c.t.Helper()
	c.ts.put(c.ts.as(author, "SECRET"), "plan", "the plan, dirty", marking)
	q := planRequest
	if change != nil {
		change(&q)
	}
	r, err := c.ts.RequestRelease(context.Background(), c.ts.as("s-analyst", ""), q)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// marked is a release in review that awaits ts-analyst's consent.
func (c *chain) marked() redoubt.ReleaseID {
	c.t.Helper()
	id := c.askMarked("ts-analyst", orcon, nil).ID
	c.rebuilt(id, "the plan")
	return id
}

// consent is somebody's signature of a consent.
func (c *chain) consent(by redoubt.SubjectName, s redoubt.ReleaseStatement) redoubt.Signature {
	return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(c.keys[by], redoubt.ConsentMessage(s.Public())))}
}

func (c *chain) consents(by redoubt.SubjectName, id redoubt.ReleaseID) error {
	c.t.Helper()
	_, err := c.ts.ConsentRelease(context.Background(), c.ts.as(by, "SECRET"), id, c.consent(by, *c.show(id).Statement).Sig)
	return err
}

// consented is a marked release that all three have signed.
func (c *chain) consented() redoubt.ReleaseID {
	c.t.Helper()
	id := c.marked()
	for _, err := range []error{c.approve("rev-1", id), c.consents("ts-analyst", id), c.approve("rev-2", id)} {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return id
}

func TestWhatIsMarkedLeavesByItsOriginatorsConsent(t *testing.T) {
	for marking, order := range map[string]string{orcon: "1c2", "SECRET//PROPIN": "c12", "SECRET//FISA": "12c", "SECRET//ORCON/PROPIN": "2c1"} {
		c := openChain(t)
		ctx := context.Background()
		r := c.askMarked("ts-analyst", marking, nil)
		marks := strings.Split(strings.TrimPrefix(marking, "SECRET//"), "/")
		if r.Originator != "ts-analyst" || strings.Join(r.ConsentFor, "/") != strings.Join(marks, "/") || r.AwaitsConsent() {
			t.Errorf("%s: asked for as %+v", marking, r)
		}
		wantRefusal(t, "before there is anything to consent to", func() error {
			_, err := c.ts.ConsentRelease(ctx, c.ts.as("ts-analyst", "SECRET"), r.ID, "")
			return err
		}(), redoubt.Conflict, ruleState)
		c.rebuilt(r.ID, "the plan")
		if o, err := c.ts.OpenRebuilt(ctx, c.ts.as("ts-analyst", "SECRET"), r.ID); err != nil || content(t, o, 0, -1) != "the plan" {
			t.Errorf("%s: its originator looks at %v, %v", marking, o, err)
		}
		for i, who := range order {
			c.wantState(r.ID, redoubt.ReleaseReview, "")
			if got := c.show(r.ID); got.AwaitsConsent() == strings.ContainsRune(order[:i], 'c') {
				t.Errorf("%s: after %q it awaits a consent: %v", marking, order[:i], got.AwaitsConsent())
			}
			if _, _, err := c.ts.FetchApproved(ctx, c.ts.as(highGuard, ""), r.ID); ruleOf(err) != ruleState {
				t.Errorf("%s: after %q the guard is given it: %v", marking, order[:i], err)
			}
			if order[:i] == "12" {
				wantRefusal(t, "a third reviewer", c.approve("rev-3", r.ID), redoubt.Conflict, ruleState)
			}
			var err error
			if who == 'c' {
				err = c.consents("ts-analyst", r.ID)
			} else {
				err = c.approve(redoubt.SubjectName("rev-"+string(who)), r.ID)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		c.wantState(r.ID, redoubt.ReleaseApproved, "")
		p, text := c.fetched(r.ID)
		receipt, err := c.accept(p, text)
		if err != nil {
			t.Fatalf("%s: %v", marking, err)
		}
		if again, err := c.accept(p, text); err != nil || again.Sig != receipt.Sig {
			t.Errorf("%s: once more: %v", marking, err)
		}
		if k := receipt.Consent; k == nil || k.Sig != p.Consent.Sig || k.Key != base64.StdEncoding.EncodeToString(c.keys["ts-analyst"].Public().(ed25519.PublicKey)) {
			t.Errorf("%s: the receipt has %+v", marking, k)
		}
		bare := receipt
		bare.Consent = nil
		wantRefusal(t, "a receipt without it", c.finish(r.ID, &bare, ""), redoubt.Denied, ruleReceipt)
		if err := c.finish(r.ID, &receipt, ""); err != nil {
			t.Fatal(err)
		}
		c.wantState(r.ID, redoubt.ReleaseReleased, "")
		if got := c.released(); got != "the plan" {
			t.Errorf("%s: what came down is %q", marking, got)
		}
		if v, err := c.secret.HeadObject(ctx, c.secret.as("u-analyst", ""), redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "topsecret.reports", Key: "plan"}}); err != nil || len(v.Attributes.Meta) != 0 {
			t.Errorf("%s: below is told %v, %v", marking, v.Attributes.Meta, err)
		}
		for w, one := range map[*world]struct {
			action redoubt.Action
			says   string
		}{c.ts: {redoubt.ActionConsent, "the originator's consent for " + strings.Join(marks, ", ")}, c.secret: {redoubt.ActionAcceptRelease, "by consent of ts-analyst for " + strings.Join(marks, ", ")}} {
			if !w.saysOn(one.action, one.says) {
				t.Errorf("%s: at %s nothing on record says %q", marking, w.name, one.says)
			}
		}
	}
}

// saysOn reports whether an allowed decision on record says something.
func (w *world) saysOn(action redoubt.Action, says string) (found bool) {
	w.t.Helper()
	err := w.SearchAudit(context.Background(), w.as("officer", "SECRET"), redoubt.AuditQuery{Action: action}, func(r redoubt.AuditRecord) error {
		found = found || r.Allow && strings.Contains(r.Detail, says)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func TestOnlyTheOriginatorConsentsAndOnlyToExactlyThis(t *testing.T) {
	c := openChain(t)
	other := c.marked()
	id := c.askMarked("ts-analyst", orcon, nil).ID // its version is the one that is current now
	c.rebuilt(id, "the plan")
	s := *c.show(id).Statement
	give := func(as, marking, sig string) error {
		_, err := c.ts.ConsentRelease(context.Background(), c.ts.as(redoubt.SubjectName(as), marking), id, sig)
		return err
	}
	good := c.consent("ts-analyst", s).Sig
	for what, by := range map[string]string{"who asked": "s-analyst", "a reviewer": "rev-1", "a reviewer who is an analyst too": "rev-3", "an officer": "officer"} {
		for _, sig := range []string{c.consent(redoubt.SubjectName(by), s).Sig, good} {
			if err := give(by, "SECRET", sig); redoubt.KindOf(err) != redoubt.Denied || ruleOf(err) != ruleConsent && ruleOf(err) != access.RuleRole {
				t.Errorf("%s consents: %v", what, err)
			}
		}
	}
	wantRefusal(t, "a reviewer by another credential of hers", give("rev-1", "TOP SECRET", c.consent("rev-1", s).Sig), redoubt.Denied, ruleConsent)
	wantRefusal(t, "who works below it", give("ts-analyst", "UNCLASSIFIED", good), redoubt.NotFound, "")
	changed := func(change func(*redoubt.ReleaseStatement)) string {
		q := s
		change(&q)
		return c.consent("ts-analyst", q).Sig
	}
	for what, sig := range map[string]string{
		"none":                          "",
		"an approval":                   c.signed("ts-analyst", s).Sig,
		"of another release":            c.consent("ts-analyst", *c.show(other).Statement).Sig,
		"of another's":                  c.consent("rev-1", s).Sig,
		"with a tail":                   good + "\n",
		"over other content":            changed(func(q *redoubt.ReleaseStatement) { q.SHA256 = strings.Repeat("0", 64) }),
		"for another target":            changed(func(q *redoubt.ReleaseStatement) { q.To = "unclass" }),
		"as another label":              changed(func(q *redoubt.ReleaseStatement) { q.Label = "CONFIDENTIAL" }),
		"until another time":            changed(func(q *redoubt.ReleaseStatement) { q.Expires = q.Expires.Add(time.Hour) }),
		"under another name":            changed(func(q *redoubt.ReleaseStatement) { q.Key = "other" }),
		"for another mark":              changed(func(q *redoubt.ReleaseStatement) { q.Consent = []string{"FISA"} }),
		"in the name of somebody else":  changed(func(q *redoubt.ReleaseStatement) { q.Originator = "rev-1" }),
		"under another marking policy":  changed(func(q *redoubt.ReleaseStatement) { q.Policy = "USA@0" }),
		"earlier than it was approved":  changed(func(q *redoubt.ReleaseStatement) { q.After = time.Unix(0, 0).UTC() }),
		"with metadata that is another": changed(func(q *redoubt.ReleaseStatement) { q.Meta = map[string]string{"a": "b"} }),
	} {
		wantRefusal(t, "a signature "+what, give("ts-analyst", "SECRET", sig), redoubt.Denied, identity.RuleSignature)
	}
	if r := c.show(id); r.Consent != nil || r.State != redoubt.ReleaseReview {
		t.Fatalf("it is %s with %+v", r.State, r.Consent)
	}
	_, err := c.ts.ApproveRelease(context.Background(), c.ts.as("rev-1", "SECRET"), id, c.consent("rev-1", s).Sig)
	wantRefusal(t, "a consent as an approval", err, redoubt.Denied, identity.RuleSignature)
	if err := give("ts-analyst", "SECRET", good); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "once more", give("ts-analyst", "SECRET", good), redoubt.Conflict, ruleState)
	plain := c.inReview()
	_, err = c.ts.ConsentRelease(context.Background(), c.ts.as("ts-analyst", "SECRET"), plain, c.consent("ts-analyst", *c.show(plain).Statement).Sig)
	wantRefusal(t, "to what needs none", err, redoubt.Conflict, ruleState)
}

func TestAnOriginatorDoesNotReviewHerOwn(t *testing.T) {
	c := openChain(t)
	id := c.askMarked("rev-3", orcon, nil).ID
	c.rebuilt(id, "the plan")
	wantRefusal(t, "before she consents", c.approve("rev-3", id), redoubt.Denied, identity.RuleOriginator)
	if err := c.consents("rev-3", id); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "after", c.approve("rev-3", id), redoubt.Denied, identity.RuleOriginator)
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		if err := c.approve(by, id); err != nil {
			t.Fatal(err)
		}
	}
	p, text := c.fetched(id)
	forged := p
	forged.Approvals = []redoubt.Signature{p.Approvals[0], c.signed("rev-3", p.Statement)}
	_, err := c.accept(forged, text)
	wantRefusal(t, "the target takes hers for a review", err, redoubt.Denied, identity.RuleOriginator)
}

// TestAConsentDiesWithWhatItRestsOn: once it was given, before and after the reviewers signed.
func TestAConsentDiesWithWhatItRestsOn(t *testing.T) {
	ctx := context.Background()
	change := func(clearance string, key bool) func(c *chain) {
		return func(c *chain) {
			c.hands.add(time.Minute)
			p := redoubt.Person{Name: "ts-analyst", Clearance: clearance, Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}}
			if key {
				public, _, _ := ed25519.GenerateKey(nil)
				p.PublicKey = base64.StdEncoding.EncodeToString(public)
			}
			c.ts.changed(p, "officer", "officer-2")
		}
	}
	for what, one := range map[string]struct {
		change func(c *chain)
		rule   string
	}{
		"it is written over by another": {func(c *chain) { c.ts.put(c.ts.as("rev-3", "SECRET"), "plan", "another", orcon) }, ruleChanged},
		"it is written over by her":     {func(c *chain) { c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", orcon) }, ruleChanged},
		"it is written over unmarked":   {func(c *chain) { c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "another", "SECRET") }, ruleChanged},
		"its time is over":              {func(c *chain) { c.hands.add(redoubt.MaxReleaseLife + 2*time.Hour) }, ruleExpired},
		"she is revoked": {func(c *chain) {
			if err := c.ts.RevokePerson(ctx, c.ts.as("officer", "SECRET"), "ts-analyst", "left"); err != nil {
				c.t.Fatal(err)
			}
		}, ruleConsent},
		"she is cleared for less":  {change("CONFIDENTIAL", false), ruleConsent},
		"she has another key":      {change("TOP SECRET//SI/TK", true), identity.RuleSignature},
		"the guard's rules change": {func(c *chain) { c.ts.guards[0].Rules = "others" }, rulePolicy},
	} {
		t.Run(what, func(t *testing.T) {
			c := openChain(t)
			id := c.consented()
			one.change(c)
			_, o, err := c.ts.FetchApproved(ctx, c.ts.as(highGuard, ""), id)
			if ruleOf(err) != one.rule || o != nil {
				t.Errorf("the guard is given it: %v, want it dead by %s", err, one.rule)
			}
			if r := c.kept(id); r.State != redoubt.ReleaseDead || !strings.Contains(r.Why, one.rule) {
				t.Errorf("it is %s: %s", r.State, r.Why)
			}
			c = openChain(t)
			id = c.marked()
			if err := c.consents("ts-analyst", id); err != nil {
				t.Fatal(err)
			}
			s := *c.show(id).Statement
			one.change(c)
			_, err = c.ts.ApproveRelease(ctx, c.ts.as("rev-1", "SECRET"), id, c.signed("rev-1", s).Sig)
			if ruleOf(err) != one.rule {
				t.Errorf("a review behind it: %v, want it dead by %s", err, one.rule)
			}
		})
	}
	// Not given yet, it dies where nobody can give it any more.
	c := openChain(t)
	id := c.marked()
	s := *c.show(id).Statement
	change("CONFIDENTIAL", false)(c)
	if _, err := c.ts.ApproveRelease(ctx, c.ts.as("rev-1", "SECRET"), id, c.signed("rev-1", s).Sig); ruleOf(err) != ruleConsent {
		t.Errorf("a review of what nobody can consent to: %v", err)
	}
	if r := c.kept(id); r.State != redoubt.ReleaseDead || !strings.Contains(r.Why, "nobody consents in her place") {
		t.Errorf("it is %s: %s", r.State, r.Why)
	}
}

// kept is a release as it is kept, whoever may know of it.
func (c *chain) kept(id redoubt.ReleaseID) redoubt.Release {
	c.t.Helper()
	x, _ := c.ts.releases.find(id)
	r, err := c.ts.readRelease(x)
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Release
}

// TestTheTargetLooksAtTheConsentItself: whatever a guard does that was taken over, nothing marked comes down without it.
func TestTheTargetLooksAtTheConsentItself(t *testing.T) {
	c := openChain(t)
	other := c.marked()
	s2 := *c.show(other).Statement
	id := c.consented()
	p, text := c.fetched(id)
	all := func(p *redoubt.ReleasePackage) { // as if everybody had signed what the package says
		p.Approvals = []redoubt.Signature{c.signed("rev-1", p.Statement), c.signed("rev-2", p.Statement)}
	}
	for what, one := range map[string]struct {
		change func(*redoubt.ReleasePackage)
		rule   string
	}{
		"it is dropped":            {func(p *redoubt.ReleasePackage) { p.Consent = nil }, ruleConsent},
		"it is an approval":        {func(p *redoubt.ReleasePackage) { s := c.signed("ts-analyst", p.Statement); p.Consent = &s }, identity.RuleSignature},
		"it is of another release": {func(p *redoubt.ReleasePackage) { s := c.consent("ts-analyst", s2); p.Consent = &s }, identity.RuleSignature},
		"it is of somebody else":   {func(p *redoubt.ReleasePackage) { s := c.consent("rev-3", p.Statement); p.Consent = &s }, ruleConsent},
		"it is of somebody else, renamed": {func(p *redoubt.ReleasePackage) {
			s := c.consent("rev-3", p.Statement)
			s.Signer = "ts-analyst"
			p.Consent = &s
		}, identity.RuleSignature},
		"it is empty":                 {func(p *redoubt.ReleasePackage) { p.Consent = &redoubt.Signature{} }, ruleConsent},
		"nobody asks for it any more": {func(p *redoubt.ReleasePackage) { p.Statement.Originator, p.Statement.Consent, p.Consent = "", nil, nil }, identity.RuleSignature},
		"another is asked": {func(p *redoubt.ReleasePackage) {
			p.Statement.Originator = "rev-3"
			s := c.consent("rev-3", p.Statement)
			p.Consent = &s
		}, identity.RuleSignature},
		"another is asked, and all signed": {func(p *redoubt.ReleasePackage) { p.Statement.Originator = "rev-3"; all(p) }, ruleConsent},
		"an originator, and no marks":      {func(p *redoubt.ReleasePackage) { p.Statement.Consent = nil; all(p) }, ruleConsent},
		"marks, and no originator":         {func(p *redoubt.ReleasePackage) { p.Statement.Originator = ""; all(p) }, ruleConsent},
		"marks that nobody has":            {func(p *redoubt.ReleasePackage) { p.Statement.Consent = []string{"NOFORN"}; all(p) }, ruleConsent},
		"another nation's":                 {func(p *redoubt.ReleasePackage) { p.Statement.Consent = []string{"FGI", "ORCON"}; all(p) }, ruleConsent},
		"a label that asks for more": {func(p *redoubt.ReleasePackage) {
			p.Statement.Label = "CONFIDENTIAL//PROPIN"
			all(p)
			s := c.consent("ts-analyst", p.Statement)
			p.Consent = &s
		}, ruleConsent},
		"a label that asks, and none is given": {func(p *redoubt.ReleasePackage) {
			p.Statement.Label, p.Statement.Originator, p.Statement.Consent, p.Consent = "CONFIDENTIAL//ORCON", "", nil, nil
			all(p)
		}, ruleConsent},
		"her name among the metadata": {func(p *redoubt.ReleasePackage) {
			p.Statement.Meta = map[string]string{redoubt.MetaOriginator: "rev-3"}
			all(p)
		}, "well-formed-statement (4.6)"},
		"the originator reviews": {func(p *redoubt.ReleasePackage) {
			p.Statement.Originator = "rev-2"
			all(p)
			s := c.consent("rev-2", p.Statement)
			p.Consent = &s
		}, identity.RuleOriginator},
	} {
		q := p
		q.Approvals = append([]redoubt.Signature(nil), p.Approvals...)
		one.change(&q)
		_, err := c.accept(q, text)
		if ruleOf(err) != one.rule {
			t.Errorf("%s: got %v, want it refused by %s", what, err, one.rule)
		}
	}
	plain := c.approved()
	q, words := c.fetched(plain)
	sig := c.consent("ts-analyst", q.Statement)
	q.Consent = &sig
	_, err := c.accept(q, words)
	wantRefusal(t, "a consent that nobody asked for", err, redoubt.Denied, ruleConsent)
	if got := c.released(); got != "" {
		t.Fatalf("what came down is %q", got)
	}
	if _, err := c.accept(p, text); err != nil {
		t.Errorf("as it was signed: %v", err)
	}
}

func TestAnOriginatorWhoEndedAtTheTargetConsentsToNothingThere(t *testing.T) {
	c := openChain(t)
	p, text := c.fetched(c.consented())
	c.hands.add(time.Minute)
	c.secret.changed(redoubt.Person{Name: "ts-analyst", Clearance: "UNCLASSIFIED", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}}, "officer", "officer-2")
	if _, err := c.accept(p, text); err != nil {
		t.Errorf("still cleared for what it is there: %v", err)
	}
	c = openChain(t)
	p, text = c.fetched(c.consented())
	if err := c.secret.RevokePerson(context.Background(), c.secret.as("officer", "SECRET"), "ts-analyst", "left"); err != nil {
		t.Fatal(err)
	}
	_, err := c.accept(p, text)
	wantRefusal(t, "revoked there", err, redoubt.Denied, ruleConsent)
}

// TestAConsentOutlivesAKill between it and what is signed behind it, at both ends, and is good once.
func TestAConsentOutlivesAKill(t *testing.T) {
	c := openChain(t)
	id := c.marked()
	if err := c.consents("ts-analyst", id); err != nil {
		t.Fatal(err)
	}
	c.ts.restartGuarded(c)
	if r := c.show(id); r.Consent == nil || r.Originator != "ts-analyst" || len(r.Approvals) != 0 || r.State != redoubt.ReleaseReview {
		t.Fatalf("after a kill it is %+v", r)
	}
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		if err := c.approve(by, id); err != nil {
			t.Fatal(err)
		}
		c.ts.restartGuarded(c)
	}
	p, text := c.fetched(id)
	first, err := c.accept(p, text)
	if err != nil {
		t.Fatal(err)
	}
	c.secret.restartGuarded(c)
	again, err := c.accept(p, text)
	if err != nil || again.Sig != first.Sig || again.Consent == nil || *again.Consent != *first.Consent {
		t.Errorf("brought again after a kill: %v", err)
	}
	// Nor does it serve the same content asked for anew.
	r, err := c.ts.RequestRelease(context.Background(), c.ts.as("s-analyst", ""), planRequest)
	if err != nil {
		t.Fatal(err)
	}
	c.rebuilt(r.ID, "the plan")
	_, err = c.ts.ConsentRelease(context.Background(), c.ts.as("ts-analyst", "SECRET"), r.ID, p.Consent.Sig)
	wantRefusal(t, "for the next release of the same bytes", err, redoubt.Denied, identity.RuleSignature)
}

func TestAConsentIsGivenAhead(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	ahead := c.hands.clock().Add(30 * 24 * time.Hour)
	id := c.askMarked("ts-analyst", orcon, func(q *redoubt.RequestRelease) { q.After = ahead }).ID
	c.rebuilt(id, "the plan")
	for _, err := range []error{c.consents("ts-analyst", id), c.approve("rev-1", id), c.approve("rev-2", id)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.ts.FetchApproved(ctx, c.ts.as(highGuard, ""), id); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("before its time: %v", err)
	}
	c.hands.add(30*24*time.Hour + time.Second)
	p, text := c.fetched(id)
	if receipt, err := c.accept(p, text); err != nil || receipt.Consent == nil {
		t.Errorf("at its time: %v", err)
	}
}

func TestAnOriginatorsNoEndsARelease(t *testing.T) {
	for what, begin := range map[string]func(c *chain) redoubt.ReleaseID{"in review": (*chain).marked, "approved": (*chain).consented} {
		c := openChain(t)
		id := begin(c)
		r, err := c.ts.DenyRelease(context.Background(), c.ts.as("ts-analyst", "SECRET"), id, "not yet")
		if err != nil || r.State != redoubt.ReleaseDenied || r.DeniedBy != "ts-analyst" {
			t.Errorf("%s: it is %s by %s, %v", what, r.State, r.DeniedBy, err)
		}
	}
	c := openChain(t)
	id := c.askMarked("rev-3", orcon, nil).ID
	if _, err := c.ts.DenyRelease(context.Background(), c.ts.as("ts-analyst", "SECRET"), id, "no"); redoubt.KindOf(err) != redoubt.Denied {
		t.Errorf("by who is not its originator: %v", err)
	}
}
