package enclave

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/identity"
	"redoubt/store"
)

// statementChanges are what might be another in a statement.
var statementChanges = map[string]func(*redoubt.ReleaseStatement){
	"estate":       func(s *redoubt.ReleaseStatement) { s.Estate = "other" },
	"id":           func(s *redoubt.ReleaseStatement) { s.ID = "00000000000000000000000000000001" },
	"no id":        func(s *redoubt.ReleaseStatement) { s.ID = "" },
	"from":         func(s *redoubt.ReleaseStatement) { s.From = "unclass" },
	"to":           func(s *redoubt.ReleaseStatement) { s.To = "topsecret" },
	"requester":    func(s *redoubt.ReleaseStatement) { s.Requester = "s-analyst" },
	"bucket":       func(s *redoubt.ReleaseStatement) { s.Bucket = "unclass.reports" },
	"plain bucket": func(s *redoubt.ReleaseStatement) { s.Bucket = "reports" },
	"no bucket":    func(s *redoubt.ReleaseStatement) { s.Bucket = "topsecret.none" },
	"system":       func(s *redoubt.ReleaseStatement) { s.Bucket = redoubt.SystemBucket },
	"rebuilt":      func(s *redoubt.ReleaseStatement) { s.Bucket = RebuiltBucket },
	"key":          func(s *redoubt.ReleaseStatement) { s.Key = "other" },
	"no key":       func(s *redoubt.ReleaseStatement) { s.Key = "" },
	"type":         func(s *redoubt.ReleaseStatement) { s.ContentType = "text/html" },
	"meta":         func(s *redoubt.ReleaseStatement) { s.Meta = map[string]string{"a": "b"} },
	"much meta": func(s *redoubt.ReleaseStatement) {
		s.Meta = map[string]string{"a": strings.Repeat("b", redoubt.MaxMetadataBytes)}
	},
	"size":         func(s *redoubt.ReleaseStatement) { s.SizeBytes++ },
	"no size":      func(s *redoubt.ReleaseStatement) { s.SizeBytes = -1 },
	"digest":       func(s *redoubt.ReleaseStatement) { s.SHA256 = strings.Repeat("0", 64) },
	"no digest":    func(s *redoubt.ReleaseStatement) { s.SHA256 = "" },
	"label":        func(s *redoubt.ReleaseStatement) { s.Label = "CONFIDENTIAL" },
	"high label":   func(s *redoubt.ReleaseStatement) { s.Label = "TOP SECRET" },
	"no label":     func(s *redoubt.ReleaseStatement) { s.Label = "" },
	"policy":       func(s *redoubt.ReleaseStatement) { s.Policy = "USA@2" },
	"rules":        func(s *redoubt.ReleaseStatement) { s.Rules = "others" },
	"expires":      func(s *redoubt.ReleaseStatement) { s.Expires = s.Expires.Add(time.Hour) },
	"long expires": func(s *redoubt.ReleaseStatement) { s.Expires = s.Expires.Add(365 * 24 * time.Hour) },
}

// TestTheTargetTakesExactlyWhatTwoReviewersSigned, whatever a guard that was taken over brings.
func TestTheTargetTakesExactlyWhatTwoReviewersSigned(t *testing.T) {
	c := openChain(t)
	p, text := c.fetched(c.approved())
	s := p.Statement
	altered := func(change func(*redoubt.ReleaseStatement)) redoubt.ReleasePackage {
		out := redoubt.ReleasePackage{Statement: s, Approvals: append([]redoubt.Signature{}, p.Approvals...)}
		change(&out.Statement)
		return out
	}
	// Each field of the statement, one at a time. The signatures are over what it was.
	for what, change := range statementChanges {
		if _, err := c.accept(altered(change), text); err == nil {
			t.Errorf("another %s than was signed is taken", what)
		}
		// Nor is it taken under the signatures of a guard, or of nobody.
		q := altered(change)
		q.Approvals = []redoubt.Signature{c.signed(highGuard, q.Statement), c.signed(highGuard, q.Statement)}
		if _, err := c.accept(q, text); err == nil {
			t.Errorf("another %s, signed by the guard, is taken", what)
		}
	}
	for what, given := range map[string]string{"shorter": text[1:], "longer": text + " ", "other": strings.Repeat("x", len(text)), "none": ""} {
		if _, err := c.accept(p, given); err == nil {
			t.Errorf("%s content is taken", what)
		}
	}
	sign := func(by ...redoubt.SubjectName) (out []redoubt.Signature) {
		for _, name := range by {
			out = append(out, c.signed(name, s))
		}
		return out
	}
	public, private, _ := ed25519.GenerateKey(nil)
	_ = public
	forged := base64.StdEncoding.EncodeToString(ed25519.Sign(private, redoubt.ReleaseMessage(s.Public())))
	for what, one := range map[string]struct {
		sigs []redoubt.Signature
		rule string
	}{
		"nobody":                              {nil, identity.RuleReviewers},
		"one":                                 {sign("rev-1"), identity.RuleReviewers},
		"one twice":                           {sign("rev-1", "rev-1"), identity.RuleReviewers},
		"three":                               {sign("rev-1", "rev-2", "rev-3"), identity.RuleReviewers},
		"one and the requester":               {sign("rev-1", "ts-analyst"), identity.RuleReviewer},
		"one and the guard":                   {sign("rev-1", highGuard), identity.RuleReviewer},
		"one and an officer":                  {sign("rev-1", "officer"), identity.RuleReviewer},
		"one and one who is cleared for less": {sign("rev-1", "u-rev"), identity.RuleCleared},
		"one and one with another's key":      {append(sign("rev-1"), redoubt.Signature{Signer: "rev-2", Sig: forged}), identity.RuleSignature},
		"one under two names":                 {append(sign("rev-1"), redoubt.Signature{Signer: "rev-2", Sig: sign("rev-1")[0].Sig}), identity.RuleSignature},
	} {
		_, err := c.accept(redoubt.ReleasePackage{Statement: s, Approvals: one.sigs}, text)
		wantRefusal(t, what, err, redoubt.Denied, one.rule)
	}
	if got := c.released(); got != "" {
		t.Errorf("something came down: %q", got)
	}
	if n := c.versions(c.secret, "topsecret.reports", ""); n != 0 {
		t.Errorf("%d versions came down", n)
	}
	c.charged()
	if _, err := c.accept(p, text); err != nil {
		t.Errorf("what was signed: %v", err)
	}
}

// TestTheTargetRefusesWhatItKnowsBetterWhoeverSigned: reviewers sign what they are shown at the source.
func TestTheTargetRefusesWhatItKnowsBetterWhoeverSigned(t *testing.T) {
	theirs := []string{"id", "requester", "key", "type", "meta", "label", "expires"} // for reviewers to say, and for nobody else to know
	for what, change := range statementChanges {
		c := openChain(t)
		p, text := c.fetched(c.approved())
		change(&p.Statement)
		p.Approvals = []redoubt.Signature{c.signed("rev-1", p.Statement), c.signed("rev-2", p.Statement)}
		if _, err := c.accept(p, text); (err == nil) != slices.Contains(theirs, what) {
			t.Errorf("another %s, signed by two: %v", what, err)
		}
	}
}

// charged holds what every label of secret is charged against a count.
func (c *chain) charged() { c.secret.charges() }

func TestOnlyTheGuardOfThePairBringsARelease(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	p, text := c.fetched(c.approved())
	bring := func(who redoubt.Credential) error {
		_, err := c.secret.AcceptRelease(ctx, who, p, strings.NewReader(text))
		return err
	}
	wantRefusal(t, "the guard of another pair", bring(c.secret.as(lowGuard, "")), redoubt.Denied, ruleOtherGuard)
	for _, who := range []redoubt.SubjectName{"rev-1", "admin", "ts-analyst", "officer"} {
		marking := ""
		if who != "admin" {
			marking = "SECRET"
		}
		wantRefusal(t, string(who), bring(c.secret.as(who, marking)), redoubt.Denied, access.RuleRole)
	}
	live := c.secret.as(highGuard, "")
	c.hands.add(13 * time.Hour)
	if err := bring(live); err == nil {
		t.Error("a credential that has ended brings it")
	}
	live = c.secret.as(highGuard, "")
	if err := c.secret.RevokePerson(ctx, c.secret.as("officer", "SECRET"), highGuard, "taken over"); err != nil {
		t.Fatal(err)
	}
	if err := bring(live); err == nil {
		t.Error("a revoked guard brings it")
	}
	if got := c.released(); got != "" {
		t.Errorf("something came down: %q", got)
	}
}

// TestEachHalfOfAGuardThatRunsApartDoesItsOwnWorkAlone: at the lower enclave what takes a raise brings no release, and what brings releases takes no raise.
func TestEachHalfOfAGuardThatRunsApartDoesItsOwnWorkAlone(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	p, text := c.fetched(c.approved())
	const releaser = highGuard + "-release"
	bring := func(who redoubt.SubjectName) error {
		_, err := c.secret.AcceptRelease(ctx, c.secret.as(who, ""), p, strings.NewReader(text))
		return err
	}
	wantRefusal(t, "one that no guard has", bring(releaser), redoubt.Denied, ruleOtherGuard)
	for i := range c.secret.guards {
		if g := &c.secret.guards[i]; g.Name == highGuard {
			g.Releaser = releaser
		}
	}
	wantRefusal(t, "the half that takes the raise", bring(highGuard), redoubt.Denied, ruleOtherGuard)
	if _, _, err := c.secret.ReleaseTaken(ctx, c.secret.as(highGuard, ""), p.Statement.Public()); redoubt.KindOf(err) != redoubt.Denied {
		t.Errorf("the half that takes the raise asks what was released: %v", err)
	}
	for who, want := range map[redoubt.SubjectName]redoubt.Kind{releaser: redoubt.Denied, highGuard: redoubt.NotModified} {
		short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		_, err := c.files[c.secret].HandRaise(short, c.secret.as(who, ""), "topsecret", redoubt.BundleMark{}, io.Discard)
		stop()
		if got := redoubt.KindOf(err); got != want && !(err == nil && want == redoubt.NotModified) {
			t.Errorf("%s asks for what is raised: %v", who, err)
		}
	}
	if err := bring(releaser); err != nil || c.released() != text {
		t.Errorf("the half that releases: %v, %q", err, c.released())
	}
}

func TestAReviewerWhoEndedAtTheTargetSignsForNothingThere(t *testing.T) {
	for what, change := range map[string]func(c *chain){
		"revoked": func(c *chain) {
			if err := c.secret.RevokePerson(context.Background(), c.secret.as("officer", "SECRET"), "rev-2", "left"); err != nil {
				c.t.Fatal(err)
			}
		},
		"no reviewer": func(c *chain) {
			c.hands.add(time.Minute)
			c.secret.changed(reviewer("rev-2", "SECRET", redoubt.RoleAnalyst), "officer", "officer-2")
		},
		"cleared for less than the target": func(c *chain) {
			c.hands.add(time.Minute)
			c.secret.changed(reviewer("rev-2", "CONFIDENTIAL", redoubt.RoleReviewer), "officer", "officer-2")
		},
		"too late": func(c *chain) { c.hands.add(redoubt.MaxReleaseLife + 2*time.Hour) },
	} {
		c := openChain(t)
		p, text := c.fetched(c.approved())
		change(c)
		if _, err := c.accept(p, text); err == nil {
			t.Errorf("%s: it is taken", what)
		}
		// And who ends while the content comes.
		c = openChain(t)
		p, text = c.fetched(c.approved())
		_, err := c.secret.AcceptRelease(context.Background(), c.secret.as(highGuard, ""), p, &meanwhile{strings.NewReader(text), func() { change(c) }})
		if err == nil || c.released() != "" {
			t.Errorf("%s while the content came: it is taken (%v)", what, err)
		}
	}
}

// meanwhile does something when it is first read.
type meanwhile struct {
	io.Reader
	do func()
}

func (m *meanwhile) Read(p []byte) (int, error) {
	if m.do != nil {
		m.do()
		m.do = nil
	}
	return m.Reader.Read(p)
}

func TestWhatWasTakenIsTakenOnce(t *testing.T) {
	c := openChain(t)
	p, text := c.fetched(c.approved())
	var wg sync.WaitGroup
	var first redoubt.ReleaseReceipt
	all := make([]redoubt.ReleaseReceipt, 8)
	for i := range all { // also at once
		wg.Go(func() {
			r, err := c.secret.AcceptRelease(context.Background(), c.secret.as(highGuard, ""), p, strings.NewReader(text))
			if err != nil {
				t.Error(err)
			}
			all[i] = r
		})
	}
	wg.Wait()
	first = all[0]
	again := func(what string) {
		t.Helper()
		r, err := c.accept(p, text)
		if err != nil || r.Sig != first.Sig || r.Taken != first.Taken {
			t.Errorf("%s: another receipt: %+v, %v", what, r, err)
		}
		if n := c.versions(c.secret, "topsecret.reports", ""); n != 1 {
			t.Errorf("%s: %d versions", what, n)
		}
	}
	for _, r := range all {
		if r.Sig != first.Sig {
			t.Error("two receipts of one release")
		}
	}
	again("once more")
	other := p
	other.Statement.Key = "other"
	other.Approvals = []redoubt.Signature{c.signed("rev-1", other.Statement), c.signed("rev-2", other.Statement)}
	_, err := c.accept(other, text)
	wantRefusal(t, "another statement of the same ID", err, redoubt.Conflict, "single-use (4.6)")
	if err := c.secret.del(c.secret.own(c.secret.floor), "plan", ""); err != nil {
		t.Log(err)
	}
	guards := c.secret.guards
	c.secret.guards = slices.Clone(guards)
	for i := range c.secret.guards {
		c.secret.guards[i].Rules = "others"
	}
	again("after the guard's rules have changed here") // else its source would be told that it was refused
	c.secret.guards = guards
	c.hands.add(redoubt.MaxReleaseLife + 3*time.Hour)
	again("after its time")
	c.secret.restartGuarded(c)
	again("after a crash")
	_, err = c.accept(other, text)
	wantRefusal(t, "another statement after a crash", err, redoubt.Conflict, "single-use (4.6)")
}

func TestAReceiptIsVerifiedByAnybodyAndNamesNobody(t *testing.T) {
	c := openChain(t)
	p, text := c.fetched(c.approved())
	r, err := c.accept(p, text)
	if err != nil {
		t.Fatal(err)
	}
	sig, _ := base64.StdEncoding.DecodeString(r.Sig)
	if !ed25519.Verify(c.secret.links.key, redoubt.ReceiptMessage(r), sig) || r.Node != "secret" || r.ReleasePublic != p.Statement.Public() {
		t.Errorf("the receipt is not the target's: %+v", r)
	}
	for i, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		key, _ := base64.StdEncoding.DecodeString(r.Reviewers[i].Key)
		sig, _ := base64.StdEncoding.DecodeString(r.Reviewers[i].Sig)
		if !c.keys[by].Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(key)) || !ed25519.Verify(key, redoubt.ReleaseMessage(r.ReleasePublic), sig) {
			t.Errorf("%s's signature is not in the receipt", by)
		}
	}
	all := string(redoubt.ReceiptMessage(r))
	for _, secret := range []string{"rev-1", "rev-2", "ts-analyst", "topsecret", "plan", "reports", "press"} {
		if strings.Contains(all, secret) {
			t.Errorf("the receipt tells of %q", secret)
		}
	}
}

func TestAReceiptIsBelievedByTheTargetsSignatureAlone(t *testing.T) {
	c := openChain(t)
	id := c.approved()
	p, text := c.fetched(id)
	forged := redoubt.ReleaseReceipt{ReleasePublic: p.Statement.Public(), Taken: c.hands.clock().Truncate(time.Second), Node: "secret", Key: base64.StdEncoding.EncodeToString(c.secret.links.key),
		Reviewers: []redoubt.Pseudonym{{Sig: p.Approvals[0].Sig}, {Sig: p.Approvals[1].Sig}}}
	own := func(r redoubt.ReleaseReceipt, key ed25519.PrivateKey) *redoubt.ReleaseReceipt {
		r.Sig = base64.StdEncoding.EncodeToString(ed25519.Sign(key, redoubt.ReceiptMessage(r)))
		return &r
	}
	withKey := forged
	withKey.Key = base64.StdEncoding.EncodeToString(c.keys[highGuard].Public().(ed25519.PublicKey))
	for what, r := range map[string]*redoubt.ReleaseReceipt{"not signed": &forged, "signed by the guard": own(forged, c.keys[highGuard]), "of the guard's own key": own(withKey, c.keys[highGuard])} {
		wantRefusal(t, what, c.finish(id, r, ""), redoubt.Denied, ruleReceipt)
	}
	c.wantState(id, redoubt.ReleaseApproved, "")
	other := c.approved() // writes over the first
	q, text2 := c.fetched(other)
	receipt, err := c.accept(q, text2)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "of another release", c.finish(id, &receipt, ""), redoubt.Denied, ruleReceipt)
	if receipt, err = c.accept(p, text); err != nil {
		t.Fatal(err)
	}
	// What was taken has left, whatever was said meanwhile.
	if _, err := c.ts.DenyRelease(context.Background(), c.ts.as("rev-3", "SECRET"), id, "too late"); err != nil {
		t.Fatal(err)
	}
	if err := c.finish(id, &receipt, ""); err != nil {
		t.Fatal(err)
	}
	c.wantState(id, redoubt.ReleaseReleased, "")
	if err := c.finish(id, nil, "no"); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("a release is taken back: %v", err)
	}
}

// TestNothingIsHalfReleased: each commit fails once, and the node crashes there; what was not released is asked again and is released then.
func TestNothingIsHalfReleased(t *testing.T) {
	c := openChain(t)
	id := c.ask(nil).ID
	broken := errors.New("no more power")
	// crash has an act of a node fail at each of its commits in turn, and gives up when it goes well.
	crash := func(w *world, as redoubt.SubjectName, act func(who redoubt.Credential) error, halves func() string) {
		t.Helper()
		for n := 0; ; n++ {
			before, seen, who := halves(), 0, w.as(as, "SECRET")
			f := &faulty{Engine: w.engine, before: func(*store.Batch) error {
				if seen++; seen > n {
					return broken
				}
				return nil
			}}
			w.engine = f
			err := act(who)
			f.when(nil)
			w.engine = f.Engine
			if err == nil && seen <= n {
				return
			}
			w.restartGuarded(c)
			if after := halves(); err != nil && after != before {
				t.Errorf("%s: of what failed at commit %d something is left: %s, before it was %s", w.name, n, after, before)
			}
			if err == nil {
				return
			}
			if n > 20 {
				t.Fatal("it does not end")
			}
		}
	}
	above := func() string {
		r := c.show(id)
		return fmt.Sprint(r.State, " ", strings.Repeat("s", len(r.Approvals)), " ", c.rebuiltVersions(id))
	}
	ctx := context.Background()
	crash(c.ts, highGuard, func(who redoubt.Credential) error {
		return c.ts.SubmitRelease(ctx, who, id, redoubt.ReleaseVerdict{ContentType: "text/plain", Rules: testRules}, strings.NewReader("the plan"))
	}, above)
	if n := c.rebuiltVersions(id); n != 1 {
		t.Errorf("%d contents are kept of it", n)
	}
	s := *c.show(id).Statement
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		crash(c.ts, by, func(who redoubt.Credential) error {
			_, err := c.ts.ApproveRelease(ctx, who, id, c.signed(by, s).Sig)
			return err
		}, above)
	}
	p, text := c.fetched(id)
	var receipt redoubt.ReleaseReceipt
	crash(c.secret, highGuard, func(who redoubt.Credential) (err error) {
		receipt, err = c.secret.AcceptRelease(ctx, who, p, strings.NewReader(text))
		return err
	}, c.released)
	if got := c.released(); got != "the plan" || c.versions(c.secret, "topsecret.reports", "") != 1 {
		t.Errorf("what came down is %q", got)
	}
	crash(c.ts, highGuard, func(who redoubt.Credential) error { return c.ts.FinishRelease(ctx, who, id, &receipt, "") }, above)
	c.wantState(id, redoubt.ReleaseReleased, "")
	if n := c.rebuiltVersions(id); n != 0 {
		t.Errorf("%d contents are kept of what was released", n)
	}
	c.ts.charges()
	c.secret.charges()
}

// rebuiltVersions counts what is kept of a release.
func (c *chain) rebuiltVersions(id redoubt.ReleaseID) (n int) {
	c.t.Helper()
	view := c.ts.engine.View()
	defer view.Close()
	b := (*c.ts.buckets.Load())[RebuiltBucket]
	for _, set := range c.ts.sets.all() {
		err := c.ts.eachVersion(view, b.id, set, func(key string, _ []byte) error {
			if key == string(id) {
				n++
			}
			return nil
		})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return n
}

// TestTheTargetTakesNothingThatHides: a reviewer signs what she sees, and neither key nor metadata may have more.
func TestTheTargetTakesNothingThatHides(t *testing.T) {
	hidden := strings.Repeat("\U000E0141\U000E0142\uFE03", 80)
	for what, change := range map[string]func(*redoubt.ReleaseStatement){
		"selectors in the key":        func(s *redoubt.ReleaseStatement) { s.Key += hidden },
		"a filler in the key":         func(s *redoubt.ReleaseStatement) { s.Key += "\u3164" },
		"a key that is not in NFC":    func(s *redoubt.ReleaseStatement) { s.Key += "e\u0301" },
		"the content type":            func(s *redoubt.ReleaseStatement) { s.ContentType += "\u2800" },
		"a name of metadata":          func(s *redoubt.ReleaseStatement) { s.Meta = map[string]string{"subject\u034F": "x"} },
		"a value of metadata":         func(s *redoubt.ReleaseStatement) { s.Meta = map[string]string{"subject": "x" + hidden} },
		"spaces behind a value":       func(s *redoubt.ReleaseStatement) { s.Meta = map[string]string{"subject": "a   "} },
		"a space behind the key":      func(s *redoubt.ReleaseStatement) { s.Key += " " },
		"an unusual space in a value": func(s *redoubt.ReleaseStatement) { s.Meta = map[string]string{"subject": "a\u00A0b"} },
	} {
		c := openChain(t)
		p, text := c.fetched(c.approved())
		change(&p.Statement)
		for i, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
			p.Approvals[i] = c.signed(by, p.Statement)
		}
		_, err := c.accept(p, text)
		wantRefusal(t, what, err, redoubt.Invalid, "well-formed-statement (4.6)")
	}
}

// TestWithinOneEnclaveReviewersAreClearedForTheSource: what is asked of them when they sign is asked at the end, and no more.
func TestWithinOneEnclaveReviewersAreClearedForTheSource(t *testing.T) {
	c := openChain(t)
	id := c.ask(func(q *redoubt.RequestRelease) { q.To, q.Label = "topsecret", "CONFIDENTIAL" }).ID
	c.rebuilt(id, "the plan")
	for _, by := range []redoubt.SubjectName{"s-rev", "rev-2"} {
		if err := c.approve(by, id); err != nil {
			t.Fatal(err)
		}
	}
	p, text := c.fetched(id)
	accept := func(p redoubt.ReleasePackage) error {
		_, err := c.ts.AcceptRelease(context.Background(), c.ts.as(highGuard, ""), p, strings.NewReader(text))
		return err
	}
	other := redoubt.ReleasePackage{Statement: p.Statement}
	other.Statement.ID = "00000000000000000000000000000001" // of a release that is not here nothing is known: the ceiling is asked for
	for _, by := range []redoubt.SubjectName{"s-rev", "rev-2"} {
		other.Approvals = append(other.Approvals, c.signed(by, other.Statement))
	}
	if err := accept(other); !errors.Is(err, redoubt.Denied) {
		t.Errorf("of a release that is not here: %v", err)
	}
	if err := accept(p); err != nil {
		t.Errorf("two who are cleared for the source: %v", err)
	}
}
