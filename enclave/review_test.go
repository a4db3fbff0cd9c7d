package enclave

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/identity"
)

// changed has two officers change a person at one enclave.
func (w *world) changed(p redoubt.Person, by ...redoubt.SubjectName) {
	w.t.Helper()
	ctx, now := context.Background(), w.clock()
	c := redoubt.Change{Kind: redoubt.ChangePerson, Person: &p, Reason: "test", Made: now, Expires: now.Add(time.Hour)}
	if p.PublicKey == "" {
		p.PublicKey = base64.StdEncoding.EncodeToString(w.keys[p.Name].Public().(ed25519.PublicKey))
	}
	if p.Expires.IsZero() {
		p.Expires = now.Add(24 * 365 * time.Hour)
	}
	sign := func(by redoubt.SubjectName) redoubt.Signature {
		return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[by], redoubt.ChangeMessage(c)))}
	}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{sign(by[0]), sign(by[1])}
	if _, err := w.ProposeChange(ctx, w.as("officer", w.ceiling.Banner()), c); err != nil {
		w.t.Fatal(err)
	}
}

func reviewer(name redoubt.SubjectName, clearance string, roles ...redoubt.Role) redoubt.Person {
	return redoubt.Person{Name: name, Clearance: clearance, Nation: "USA", Roles: roles}
}

func TestTwoReviewersSignAndNeitherAsked(t *testing.T) {
	c := openChain(t)
	id := c.inReview()
	s := *c.show(id).Statement
	approve := func(as, marking, sig string) error {
		_, err := c.ts.ApproveRelease(context.Background(), c.ts.as(redoubt.SubjectName(as), marking), id, sig)
		return err
	}
	good := c.signed("rev-1", s).Sig
	other := s
	other.Label = "CONFIDENTIAL"
	wantRefusal(t, "who is no reviewer", approve("ts-analyst", "SECRET", c.signed("ts-analyst", s).Sig), redoubt.Denied, access.RuleRole)
	wantRefusal(t, "an officer", approve("officer", "SECRET", c.signed("officer", s).Sig), redoubt.Denied, access.RuleRole)
	wantRefusal(t, "no signature", approve("rev-1", "SECRET", ""), redoubt.Denied, identity.RuleSignature)
	wantRefusal(t, "another's signature", approve("rev-2", "SECRET", good), redoubt.Denied, identity.RuleSignature)
	wantRefusal(t, "a signature over another statement", approve("rev-1", "SECRET", c.signed("rev-1", other).Sig), redoubt.Denied, identity.RuleSignature)
	wantRefusal(t, "a signature over the content", approve("rev-1", "SECRET", base64.StdEncoding.EncodeToString(ed25519.Sign(c.keys["rev-1"], []byte("the plan")))), redoubt.Denied, identity.RuleSignature)
	wantRefusal(t, "a reviewer who works below it", approve("rev-1", "UNCLASSIFIED", good), redoubt.NotFound, "")
	wantRefusal(t, "a reviewer who is not cleared for it", approve("s-rev", "UNCLASSIFIED", good), redoubt.NotFound, "")
	c.wantState(id, redoubt.ReleaseReview, "")
	if err := approve("rev-1", "SECRET", good); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "the same reviewer again", approve("rev-1", "SECRET", good), redoubt.Denied, "two-reviewers (4.6)")
	wantRefusal(t, "by another credential of hers", approve("rev-1", "TOP SECRET", good), redoubt.Denied, "two-reviewers (4.6)")
	c.wantState(id, redoubt.ReleaseReview, "")
	if err := approve("rev-2", "SECRET", c.signed("rev-2", s).Sig); err != nil {
		t.Fatal(err)
	}
	c.wantState(id, redoubt.ReleaseApproved, "")
	wantRefusal(t, "a third", approve("rev-3", "SECRET", c.signed("rev-3", s).Sig), redoubt.Conflict, ruleState)
}

func TestWhoAsksDoesNotReview(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "text", "")
	r, err := c.ts.RequestRelease(ctx, c.ts.as("rev-3", "SECRET"), planRequest) // a reviewer who reads
	if err != nil {
		t.Fatal(err)
	}
	c.rebuilt(r.ID, "text")
	for _, marking := range []string{"SECRET", "TOP SECRET"} {
		_, err := c.ts.ApproveRelease(ctx, c.ts.as("rev-3", marking), r.ID, c.signed("rev-3", *c.show(r.ID).Statement).Sig)
		wantRefusal(t, "who asked, at "+marking, err, redoubt.Denied, identity.RuleRequester)
	}
}

func TestWhoMadeAReviewerDoesNotReviewWithHer(t *testing.T) {
	c := openChain(t)
	c.keys["rev-new"] = ed25519.NewKeyFromSeed([]byte(strings.Repeat("n", 32)))
	c.keys["officer-3"] = ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", 32)))
	c.ts.changed(reviewer("officer-3", "TOP SECRET//SI/TK", redoubt.RoleOfficer, redoubt.RoleReviewer), "officer", "officer-2")
	c.ts.changed(reviewer("rev-new", "TOP SECRET//SI/TK", redoubt.RoleReviewer), "officer-4", "officer-3")
	id := c.inReview()
	if err := c.approve("officer-3", id); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "whom she made", c.approve("rev-new", id), redoubt.Denied, identity.RuleIndependent)
	if err := c.approve("rev-1", id); err != nil {
		t.Errorf("who owes her nothing: %v", err)
	}
}

// TestAnApprovalDiesWithWhatItRestsOn, whenever that changes: before the second signature, or when the guard comes for it.
func TestAnApprovalDiesWithWhatItRestsOn(t *testing.T) {
	ctx := context.Background()
	for what, one := range map[string]struct {
		change func(c *chain)
		rule   string
	}{
		"the version is written over": {func(c *chain) { c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "another plan", "") }, ruleChanged},
		"it is deleted":               {func(c *chain) { _ = c.ts.del(c.ts.as("ts-analyst", "SECRET"), "plan", "") }, ruleChanged},
		"it is removed": {func(c *chain) {
			for _, v := range c.ts.all("plan") {
				_ = c.ts.del(c.ts.as("ts-analyst", "SECRET"), "plan", v.ID)
			}
		}, ruleChanged},
		"a lower one is written over it": {func(c *chain) {
			c.hands.add(time.Second)
			c.ts.put(c.ts.as("ts-analyst", "CONFIDENTIAL"), "plan", "below", "")
		}, ruleChanged},
		"its time is over":         {func(c *chain) { c.hands.add(redoubt.MaxReleaseLife + 2*time.Hour) }, ruleExpired},
		"the guard's rules change": {func(c *chain) { c.ts.guards[0].Rules = "others" }, rulePolicy},
		"the guard is another":     {func(c *chain) { c.ts.guards[0].Name = "guard-other" }, rulePolicy},
		"who asked is revoked": {func(c *chain) {
			if err := c.ts.RevokePerson(ctx, c.ts.as("officer", "SECRET"), "ts-analyst", "left"); err != nil {
				c.t.Fatal(err)
			}
		}, ruleRequester},
		"who asked is cleared for less": {func(c *chain) {
			c.hands.add(time.Minute)
			c.ts.changed(reviewer("ts-analyst", "CONFIDENTIAL", redoubt.RoleAnalyst), "officer", "officer-2")
		}, ruleRequester},
		"a reviewer is revoked": {func(c *chain) {
			if err := c.ts.RevokePerson(ctx, c.ts.as("officer", "SECRET"), "rev-1", "left"); err != nil {
				c.t.Fatal(err)
			}
		}, identity.RuleReviewer},
		"a reviewer is one no more": {func(c *chain) {
			c.hands.add(time.Minute)
			c.ts.changed(reviewer("rev-1", "TOP SECRET//SI/TK", redoubt.RoleAnalyst), "officer", "officer-2")
		}, identity.RuleReviewer},
		"a reviewer is cleared for less": {func(c *chain) {
			c.hands.add(time.Minute)
			c.ts.changed(reviewer("rev-1", "CONFIDENTIAL", redoubt.RoleReviewer), "officer", "officer-2")
		}, identity.RuleCleared},
		"a reviewer has another key": {func(c *chain) {
			c.hands.add(time.Minute)
			p := reviewer("rev-1", "TOP SECRET//SI/TK", redoubt.RoleReviewer)
			public, _, _ := ed25519.GenerateKey(nil)
			p.PublicKey = base64.StdEncoding.EncodeToString(public)
			c.ts.changed(p, "officer", "officer-2")
		}, identity.RuleSignature},
	} {
		t.Run(what, func(t *testing.T) {
			state := func(c *chain, id redoubt.ReleaseID) redoubt.Release {
				x, _ := c.ts.releases.find(id)
				r, err := c.ts.readRelease(x)
				if err != nil {
					t.Fatal(err)
				}
				return r.Release
			}
			// Both signed, and the guard comes for it.
			c := openChain(t)
			id := c.approved()
			one.change(c)
			guard := c.ts.as(highGuard, "")
			_, o, err := c.ts.FetchApproved(ctx, guard, id)
			if what == "the guard is another" {
				err = c.ts.rested(id)
			}
			if ruleOf(err) != one.rule || o != nil {
				t.Errorf("the guard is given it: %v, want it dead by %s", err, one.rule)
			}
			if r := state(c, id); r.State != redoubt.ReleaseDead || !strings.Contains(r.Why, one.rule) {
				t.Errorf("it is %s: %s", r.State, r.Why)
			}
			if _, _, err := c.ts.FetchApproved(ctx, guard, id); !errors.Is(err, redoubt.Conflict) {
				t.Errorf("once more: %v", err)
			}
			// One signed, and the other is about to.
			c = openChain(t)
			id = c.inReview()
			s := *c.show(id).Statement
			if err := c.approve("rev-1", id); err != nil {
				t.Fatal(err)
			}
			one.change(c)
			_, err = c.ts.ApproveRelease(ctx, c.ts.as("rev-2", "SECRET"), id, c.signed("rev-2", s).Sig)
			if ruleOf(err) != one.rule {
				t.Errorf("the second signature: %v, want it dead by %s", err, one.rule)
			}
			if r := state(c, id); r.State != redoubt.ReleaseDead || len(r.Approvals) != 1 {
				t.Errorf("it is %s with %d signatures", r.State, len(r.Approvals))
			}
		})
	}
}

// rested has what a release rests on looked at, as at every step.
func (w *world) rested(id redoubt.ReleaseID) error {
	w.releases.mu.Lock()
	defer w.releases.mu.Unlock()
	x, _ := w.releases.find(id)
	r, err := w.readRelease(x)
	if err != nil {
		return err
	}
	ctx := context.Background()
	return w.stillRests(ctx, "test", x, r, w.ownAct(x.set.label, redoubt.ActionGuardRelease, r.Name))
}

// all are the versions of a key at SECRET.
func (w *world) all(key string) []redoubt.Version {
	w.t.Helper()
	page, err := w.ListVersions(context.Background(), w.as("ts-analyst", "SECRET"), redoubt.ListVersions{Bucket: "reports", Prefix: key, Max: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	return page.Versions
}

func TestThePolicyOfAnApprovalIsThatOfItsMarkings(t *testing.T) {
	c := openChain(t)
	id := c.approved()
	x, _ := c.ts.releases.find(id)
	c.ts.releases.mu.Lock()
	r, err := c.ts.readRelease(x)
	if err == nil {
		r.Policy = "USA@0"
		err = c.ts.keepRelease(context.Background(), x.set, r, c.ts.ownAct(x.set.label, redoubt.ActionGuardRelease, r.Name))
	}
	c.ts.releases.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ts.FetchApproved(context.Background(), c.ts.as(highGuard, ""), id); ruleOf(err) != rulePolicy {
		t.Errorf("got %v", err)
	}
}

func TestAReleaseEndsByAReviewersNoAndByWhoAskedForIt(t *testing.T) {
	ctx := context.Background()
	for what, begin := range map[string]func(c *chain) redoubt.ReleaseID{
		"requested": func(c *chain) redoubt.ReleaseID { return c.ask(nil).ID }, "in review": (*chain).inReview, "approved": (*chain).approved} {
		c := openChain(t)
		id := begin(c)
		if _, err := c.ts.DenyRelease(ctx, c.ts.as("s-analyst", ""), id, "no"); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s: who is no reviewer denies: %v", what, err)
		}
		r, err := c.ts.DenyRelease(ctx, c.ts.as("rev-1", "SECRET"), id, "names a source")
		if err != nil || r.State != redoubt.ReleaseDenied || r.DeniedBy != "rev-1" || r.Why != "names a source" {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
		if _, err := c.ts.DenyRelease(ctx, c.ts.as("ts-analyst", "SECRET"), id, ""); !errors.Is(err, redoubt.Conflict) {
			t.Errorf("%s: twice: %v", what, err)
		}
		if _, _, err := c.ts.FetchApproved(ctx, c.ts.as(highGuard, ""), id); !errors.Is(err, redoubt.Conflict) {
			t.Errorf("%s: the guard is given it: %v", what, err)
		}
		c = openChain(t)
		id = begin(c)
		if r, err := c.ts.DenyRelease(ctx, c.ts.as("ts-analyst", "SECRET"), id, "mine"); err != nil || r.State != redoubt.ReleaseDead || r.Why != "withdrawn: mine" {
			t.Errorf("%s: withdrawn: %+v, %v", what, r, err)
		}
	}
}

func TestNothingStepsOutOfTheOrderOfStates(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	guard := c.ts.as(highGuard, "")
	submit := func(id redoubt.ReleaseID, v redoubt.ReleaseVerdict) error {
		return c.ts.SubmitRelease(ctx, guard, id, v, strings.NewReader("other"))
	}
	well := redoubt.ReleaseVerdict{ContentType: "text/plain", Rules: testRules}
	id := c.ask(nil).ID
	if _, _, err := c.ts.FetchApproved(ctx, guard, id); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("requested, and fetched: %v", err)
	}
	if _, err := c.ts.OpenRebuilt(ctx, c.ts.as("rev-1", "SECRET"), id); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("requested, and looked at: %v", err)
	}
	if _, err := c.ts.ApproveRelease(ctx, c.ts.as("rev-1", "SECRET"), id, ""); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("requested, and approved: %v", err)
	}
	wantRefusal(t, "requested, and refused by the target", c.finish(id, nil, "no"), redoubt.Conflict, ruleState)
	c.rebuilt(id, "the plan")
	sum := c.show(id).Statement.SHA256
	if err := submit(id, well); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("in review, and rebuilt again: %v", err)
	}
	if err := submit(id, redoubt.ReleaseVerdict{Rules: testRules, Refused: "no"}); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("in review, and refused: %v", err)
	}
	if _, _, err := c.ts.FetchRelease(ctx, guard, id); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("in review, and its source fetched: %v", err)
	}
	if s := c.show(id); s.Statement.SHA256 != sum || s.State != redoubt.ReleaseReview {
		t.Errorf("it is %+v", s)
	}
	if o, err := c.ts.OpenRebuilt(ctx, c.ts.as("rev-1", "SECRET"), id); err != nil || content(t, o, 0, -1) != "the plan" {
		t.Errorf("what would leave changed: %v", err)
	}
	refused := c.ask(nil).ID
	if err := submit(refused, redoubt.ReleaseVerdict{Rules: testRules, Refused: "type: unknown"}); err != nil {
		t.Fatal(err)
	}
	c.wantState(refused, redoubt.ReleaseRefused, "type: unknown")
	others := c.ask(nil).ID
	if err := submit(others, redoubt.ReleaseVerdict{ContentType: "text/plain", Rules: "others"}); err != nil {
		t.Fatal(err)
	}
	c.wantState(others, redoubt.ReleaseRefused, "other rules")
	for _, id := range []redoubt.ReleaseID{refused, others} {
		if err := submit(id, well); !errors.Is(err, redoubt.Conflict) {
			t.Errorf("refused, and rebuilt: %v", err)
		}
	}
	long := c.ask(nil).ID
	for what, v := range map[string]redoubt.ReleaseVerdict{
		"a long reason": {Refused: strings.Repeat("x", redoubt.MaxReleaseReason+1)}, "many findings": {Findings: make([]redoubt.Finding, redoubt.MaxReleaseReport+1)}, "a long finding": {Findings: []redoubt.Finding{{Detail: strings.Repeat("x", 257)}}},
	} {
		if err := submit(long, v); !errors.Is(err, redoubt.TooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := c.ts.SubmitRelease(ctx, guard, long, well, strings.NewReader(strings.Repeat("x", redoubt.MaxReleaseBytes+1))); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("too much content: %v", err)
	}
	c.wantState(long, redoubt.ReleaseRequested, "")
}

func TestMetadataIsDroppedUnlessItIsKept(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	who := c.ts.as("ts-analyst", "SECRET")
	if _, err := c.ts.PutObject(ctx, who, redoubt.PutObject{Name: planRequest.Name, SizeBytes: 4, Body: strings.NewReader("text"),
		Attributes: redoubt.Attributes{ContentType: "text/html", CacheControl: "secret", Meta: map[string]string{"subject": "weather", "source": "agent"}}}); err != nil {
		t.Fatal(err)
	}
	for _, keep := range [][]string{nil, {"subject"}, {"none"}} {
		q := planRequest
		q.Keep, q.Key = keep, "public"
		r, err := c.ts.RequestRelease(ctx, who, q)
		if err != nil {
			t.Fatal(err)
		}
		work, o, err := c.ts.FetchRelease(ctx, c.ts.as(highGuard, ""), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		o.Close()
		c.rebuilt(r.ID, "text")
		s := c.show(r.ID).Statement
		want := map[string]string{}
		if len(keep) > 0 && keep[0] == "subject" {
			want["subject"] = "weather"
		}
		if len(s.Meta) != len(want) || s.Meta["subject"] != want["subject"] || len(work.Attributes.Meta) != len(want) || s.ContentType != "text/plain" || s.Key != "public" {
			t.Errorf("of %v kept: %+v, and the guard is told %v", keep, s, work.Attributes)
		}
	}
}

// TestWhatIsToldBesideTheContentFitsInAHeader: what does not is refused before anybody works on it.
func TestWhatIsToldBesideTheContentFitsInAHeader(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	who := c.ts.as("ts-analyst", "SECRET")
	for value, fits := range map[string]bool{strings.Repeat("x", 8000): true, strings.Repeat("<", 8000): false, strings.Repeat("é", 4000): true} {
		if _, err := c.ts.PutObject(ctx, who, redoubt.PutObject{Name: planRequest.Name, SizeBytes: 4, Body: strings.NewReader("text"), Attributes: redoubt.Attributes{Meta: map[string]string{"subject": value}}}); err != nil {
			t.Fatal(err)
		}
		q := planRequest
		if _, err := c.ts.RequestRelease(ctx, who, q); err != nil {
			t.Errorf("what is dropped counts: %v", err)
		}
		q.Keep = []string{"subject"}
		if _, err := c.ts.RequestRelease(ctx, who, q); fits != (err == nil) || !fits && ruleOf(err) != ruleTold {
			t.Errorf("%.1s: %v", value, err)
		}
	}
}

func TestWhatIsApprovedAheadLeavesNoEarlier(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	after := c.hands.clock().Add(3 * 24 * time.Hour) // and a day: the target would take it as far as its end goes
	id := c.ask(func(q *redoubt.RequestRelease) { q.After, q.Life = after, 24*time.Hour }).ID
	c.rebuilt(id, "the plan")
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		if err := c.approve(by, id); err != nil {
			t.Fatal(err)
		}
	}
	guard := c.ts.as(highGuard, "")
	if _, _, err := c.ts.FetchApproved(ctx, guard, id); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("the guard is given it ahead: %v", err)
	}
	r := c.show(id)
	if _, err := c.accept(redoubt.ReleasePackage{Statement: *r.Statement, Approvals: r.Approvals}, "the plan"); err == nil || c.released() != "" {
		t.Errorf("the target takes it ahead: %v", err)
	}
	early := *r.Statement
	early.After = time.Time{}
	if _, err := c.accept(redoubt.ReleasePackage{Statement: early, Approvals: r.Approvals}, "the plan"); err == nil || c.released() != "" {
		t.Errorf("the target takes it as if it were not: %v", err)
	}
	c.hands.add(3*24*time.Hour + time.Second)
	p, text := c.fetched(id)
	if _, err := c.accept(p, text); err != nil || c.released() != "the plan" {
		t.Errorf("when its time has come: %v", err)
	}
	if _, err := c.ts.RequestRelease(ctx, c.ts.as("ts-analyst", "SECRET"), redoubt.RequestRelease{Name: planRequest.Name, To: "secret", Label: "UNCLASSIFIED", Reason: "r", After: c.hands.clock().Add(redoubt.MaxReleaseAhead + time.Hour)}); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("too far ahead: %v", err)
	}
}
