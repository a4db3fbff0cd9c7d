package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

const gbrGateway = redoubt.NodeName("gbr--defence")

// ally is a world with an agreement with a British estate, whose gateway's key the test holds.
type ally struct {
	*world
	time *hands
	key  ed25519.PrivateKey // the partner's gateway's
	gbr  *label.Policy
	next uint64
}

func equivalence(t *testing.T, from, to *label.Policy, now func() time.Time, body string) func(label.Label) (label.Label, error) {
	t.Helper()
	doc := fmt.Sprintf(`{"format":"redoubt-equivalence-1","from":"%s@1","to":"%s@1","notBefore":"2000-01-01T00:00:00Z","expires":"2100-01-01T00:00:00Z",%s}`, from.Name(), to.Name(), body)
	e, err := label.ReadEquivalence(strings.NewReader(doc), now)
	if err != nil {
		t.Fatal(err)
	}
	return e.Convert
}

// openAlly opens it; the agreement is in force for a day around now.
func openAlly(t *testing.T, change func(*Agreement)) *ally {
	t.Helper()
	a := &ally{time: &hands{}}
	gbr, err := label.Builtin("GBR")
	if err != nil {
		t.Fatal(err)
	}
	usa, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	a.gbr = gbr
	parse := func(p *label.Policy, m string) label.Label {
		l, err := p.Parse(m)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	a.key = private
	alice, aliceKey, _ := ed25519.GenerateKey(rand.Reader)
	a.world = open(t, func(o *Options) {
		withClock(a.time)(o)
		now := a.time.clock()
		pact := Agreement{Name: "us-gbr", Serial: 3, Digest: "d", Estate: "gbr", Peer: gbrGateway, Self: "example--topsecret", NotBefore: now.Add(-12 * time.Hour), Expires: now.Add(12 * time.Hour),
			Key: public, Recipient: "r", Policy: gbr, People: []redoubt.SubjectName{"gbr.alice"},
			Gives: &AgreementFlow{Bound: parse(usa, "SECRET//REL TO USA, GBR"), Buckets: []redoubt.BucketName{"reports"}},
			Takes: &AgreementFlow{Bound: parse(gbr, "SECRET//REL TO GBR, USA"), Buckets: []redoubt.BucketName{"reports"}, Convert: equivalence(t, gbr, usa, a.time.clock,
				`"classifications":{"SECRET":"SECRET"},"categories":{},"marks":{},"audience":{"GBR":["GBR"],"USA":["USA"],"AUS":["AUS"]}`)}}
		if change != nil {
			change(&pact)
		}
		fra := Agreement{Name: "us-fra", Serial: 1, Estate: "fra", Peer: "fra--orbite", Self: pact.Self, NotBefore: pact.NotBefore, Expires: pact.Expires, Key: make(ed25519.PublicKey, 32), Policy: gbr,
			Gives: &AgreementFlow{Bound: parse(usa, "SECRET//REL TO USA, FRA"), Buckets: []redoubt.BucketName{"private"}}}
		o.Agreements = []Agreement{pact, fra}
		o.Buckets = append(o.Buckets, redoubt.Bucket{Name: "gbr.reports", BucketSettings: redoubt.BucketSettings{ReadOnly: true}}, redoubt.Bucket{Name: "private"})
		o.Partners = []redoubt.Person{
			{Name: redoubt.SubjectName(gbrGateway), Clearance: "SECRET//REL TO USA, GBR", Nation: "GBR", Roles: []redoubt.Role{redoubt.RolePartner}, Expires: pact.Expires, PublicKey: base64.StdEncoding.EncodeToString(public), Workload: true},
			{Name: "gbr.alice", Clearance: "SECRET", Nation: "GBR", Roles: []redoubt.Role{redoubt.RoleAnalyst}, Expires: pact.Expires, PublicKey: base64.StdEncoding.EncodeToString(alice)},
		}
	})
	a.keys[redoubt.SubjectName(gbrGateway)], a.keys["gbr.alice"] = private, aliceKey
	return a
}

func (a *ally) stamp() (s redoubt.Stamp) {
	a.next++
	binary.BigEndian.PutUint64(s[:], uint64(a.time.now.Load())+a.next)
	s[8] = 7
	return s
}

// says is a version as the partner's gateway might say it.
func (a *ally) says(key, content, marking string) redoubt.JournalEntry {
	return redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: a.stamp(), Label: "GBR@1 " + marking, Made: "GBR@1 " + marking, Maker: gbrGateway, Name: named(key), Author: "bob",
		SizeBytes: int64(len(content)), Content: sha256.Sum256([]byte(content)), Attributes: redoubt.Attributes{ContentType: "text/plain", Meta: map[string]string{"topic": "weather"}}}
}

// sends has the node take entries, each with its content, signed by a key; it gives the rules that refused them.
func (a *ally) sends(key ed25519.PrivateKey, x redoubt.JournalEntry, content string) (rule string, err error) {
	a.t.Helper()
	encoded, err := x.MarshalBinary()
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := redoubt.SealBatch(x.Maker, [][]byte{encoded}, func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil })
	if err != nil {
		a.t.Fatal(err)
	}
	in := redoubt.Received{Entry: x, Custody: c[0]}
	if x.Kind == redoubt.EntryVersion && !x.Marker {
		in.Content = strings.NewReader(content)
	}
	taking, err := a.PartnerTaking(gbrGateway)
	if err != nil {
		a.t.Fatal(err)
	}
	no, err := taking.Apply(context.Background(), gbrGateway, []redoubt.Received{in})
	if err != nil || len(no) == 0 {
		return "", err
	}
	return no[0].Rule, nil
}

var theirs = redoubt.ObjectName{Bucket: "gbr.reports", Key: "a"}

func (a *ally) read(who redoubt.Credential, n redoubt.ObjectName) (redoubt.Version, string, error) {
	o, err := a.GetObject(context.Background(), who, redoubt.ReadObject{Name: n})
	if err != nil {
		return redoubt.Version{}, "", err
	}
	defer o.Close()
	b, err := io.ReadAll(o.Reader(0, -1))
	return o.Version(), string(b), err
}

func (a *ally) versions(who redoubt.Credential) int {
	a.t.Helper()
	page, err := a.ListVersions(context.Background(), who, redoubt.ListVersions{Bucket: "gbr.reports", Max: 1000})
	if err != nil {
		a.t.Fatal(err)
	}
	return len(page.Versions)
}

func TestAPartnersVersionStandsHereUnderThisEstatesLabelWithTheOriginatorsBeside(t *testing.T) {
	a := openAlly(t, nil)
	x := a.says("a", "hello", "SECRET//REL TO GBR, USA")
	x.Attributes.Meta["redoubt-label"], x.Attributes.Meta["Redoubt-Originator-Label"] = "UNCLASSIFIED", "USA@1 SECRET" // what this node says of it the partner does not
	if rule, err := a.sends(a.key, x, "hello"); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	who := a.as("s-analyst", "")
	v, content, err := a.read(who, theirs)
	if err != nil || content != "hello" || v.Label.Banner() != "//GBR SECRET//REL TO USA, GBR" || v.Author != "gbr.bob" {
		t.Fatalf("got %q by %s at %s: %v", content, v.Author, v.Label.Banner(), err)
	}
	if want := map[string]string{"topic": "weather", redoubt.MetaOriginatorLabel: "GBR@1 SECRET//REL TO GBR, USA"}; !maps.Equal(v.Attributes.Meta, want) {
		t.Errorf("metadata: got %v, want %v", v.Attributes.Meta, want)
	}
	if rule, err := a.sends(a.key, x, "hello"); rule != "" || err != nil || a.versions(who) != 1 {
		t.Errorf("the same once more: %s, %v, and %d versions", rule, err, a.versions(who))
	}
	if _, err := a.PutObject(context.Background(), who, redoubt.PutObject{Name: theirs, Body: strings.NewReader("ours"), SizeBytes: 4}); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a person writes in the partner's bucket: %v", err)
	}

	gone := redoubt.JournalEntry{Kind: redoubt.EntryRemoval, Stamp: a.stamp(), Of: x.Stamp, Label: x.Label, Made: x.Label, Maker: gbrGateway, Name: x.Name, Hold: true}
	if rule, err := a.sends(a.key, gone, ""); rule != "" || err != nil || a.versions(who) != 0 {
		t.Errorf("the partner's erasure: %s, %v, and %d versions", rule, err, a.versions(who))
	}
	if got := a.elsewhere(); len(got) != 1 || !a.saysOn(redoubt.ActionReceive, "erased there, and by no report here") {
		t.Errorf("the officer here is told of %q", got)
	}
	if rule, err := a.sends(a.key, x, "hello"); rule != "" || err != nil || a.versions(who) != 0 {
		t.Errorf("what it erased came back: %s, %v, and %d versions", rule, err, a.versions(who))
	}
	y := a.says("a", "again", "SECRET//REL TO GBR, USA")
	if rule, err := a.sends(a.key, y, "again"); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	hides := redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: a.stamp(), Label: y.Label, Made: y.Label, Maker: gbrGateway, Name: y.Name, Author: "bob", Marker: true}
	if rule, err := a.sends(a.key, hides, ""); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	if _, _, err := a.read(who, theirs); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("behind the partner's delete marker: %v", err)
	}
}

func TestWhatAPartnerMayNotSayIsRefusedAndShown(t *testing.T) {
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	const good = "SECRET//REL TO GBR, USA"
	for name, tt := range map[string]struct {
		change  func(*redoubt.JournalEntry)
		key     ed25519.PrivateKey
		content string
		rule    string
	}{
		"another's signature":            {key: stranger, rule: ruleCustody},
		"a maker of ours":                {change: func(x *redoubt.JournalEntry) { x.Maker = "topsecret" }, rule: ruleMaker},
		"a maker of a third party's":     {change: func(x *redoubt.JournalEntry) { x.Maker = "fra--orbite" }, rule: ruleMaker},
		"a label of our policy":          {change: func(x *redoubt.JournalEntry) { x.Label = "USA@1 SECRET//REL TO USA, GBR" }, rule: ruleForm},
		"a label of another version":     {change: func(x *redoubt.JournalEntry) { x.Label = "GBR@2 " + good }, rule: ruleForm},
		"above the bound":                {change: func(x *redoubt.JournalEntry) { x.Label = "GBR@1 TOP SECRET//REL TO GBR, USA" }, rule: rulePact},
		"not releasable to us":           {change: func(x *redoubt.JournalEntry) { x.Label = "GBR@1 SECRET//UK EYES ONLY" }, rule: rulePact},
		"a category beyond the bound":    {change: func(x *redoubt.JournalEntry) { x.Label = "GBR@1 SECRET//STRAP 1//REL TO GBR, USA" }, rule: rulePact},
		"a reader that nobody agreed on": {change: func(x *redoubt.JournalEntry) { x.Label = "GBR@1 SECRET//REL TO GBR, FRA, USA" }, rule: ruleNoMatch},
		"a class that nobody agreed on":  {change: func(x *redoubt.JournalEntry) { x.Label = "GBR@1 OFFICIAL//REL TO GBR, USA" }, rule: ruleNoMatch},
		"a bucket that it does not give": {change: func(x *redoubt.JournalEntry) { x.Name.Bucket = "private" }, rule: rulePact},
		"another's bucket":               {change: func(x *redoubt.JournalEntry) { x.Name.Bucket = "fra.reports" }, rule: rulePact},
		"a system record":                {change: func(x *redoubt.JournalEntry) { x.Name.Bucket = redoubt.SystemBucket }, rule: rulePact},
		"other content":                  {content: "hellO", rule: ruleContent},
		"less content":                   {content: "hell", rule: ruleContent},
		"more content":                   {content: "hello!", rule: ruleContent},
		"tags":                           {change: func(x *redoubt.JournalEntry) { x.Tags = []redoubt.Tag{{Key: "a", Value: "b"}} }, rule: ruleForm},
		"an alteration": {change: func(x *redoubt.JournalEntry) {
			*x = redoubt.JournalEntry{Kind: redoubt.EntryAlteration, Stamp: x.Stamp, Of: redoubt.Stamp{1}, Label: x.Label, Made: x.Label, Maker: x.Maker, Name: x.Name}
		}, rule: ruleForm},
	} {
		t.Run(name, func(t *testing.T) {
			a := openAlly(t, nil)
			x := a.says("a", "hello", good)
			if tt.change != nil {
				tt.change(&x)
			}
			key, content := a.key, "hello"
			if tt.key != nil {
				key = tt.key
			}
			if tt.content != "" {
				content = tt.content
			}
			if rule, err := a.sends(key, x, content); rule != tt.rule || err != nil {
				t.Errorf("got %q, %v, want %q", rule, err, tt.rule)
			}
			if n := a.versions(a.as("ts-analyst", "")); n != 0 {
				t.Errorf("%d versions are here", n)
			}
			for who, told := range map[redoubt.SubjectName]bool{"officer": true, "u-analyst": false} {
				all, err := a.Agreements(context.Background(), a.as(who, ""))
				if err != nil || len(all) != 2 || (all[0].Refused[tt.rule] == 1) != told || all[0].Numbers != told {
					t.Errorf("%s is told %+v, %v", who, all, err)
				}
			}
			if got := a.get(a.as("s-analyst", ""), "a"); got != "" {
				t.Errorf("it lies among our own: %q", got)
			}
		})
	}
}

func TestAPartnersThirdPartyMaterialIsRefused(t *testing.T) {
	usa, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	for _, marking := range []string{"//FRA SECRET//REL TO USA, FRA, GBR", "SECRET//FGI FRA//REL TO USA, GBR", "SECRET//FGI//REL TO USA, GBR", "SECRET//ORCON/REL TO USA, GBR", "SECRET//PROPIN/REL TO USA, GBR", "SECRET//REL TO USA, GBR/FISA"} {
		l, err := usa.Parse(marking)
		if err != nil {
			t.Fatal(marking, err)
		}
		if thirdPartys(l) == "" {
			t.Errorf("%s would go on", marking)
		}
	}
	if l, _ := usa.Parse("SECRET//REL TO USA, GBR"); thirdPartys(l) != "" {
		t.Error("own material does not go")
	}
}

func TestNothingIsTakenOutsideAnAgreementsTime(t *testing.T) {
	a := openAlly(t, nil)
	ctx := context.Background()
	taking, err := a.PartnerTaking(gbrGateway)
	if err != nil {
		t.Fatal(err)
	}
	look := func(want redoubt.Kind, state string) {
		t.Helper()
		x := a.says(string(rune('a'+a.next)), "hello", "SECRET//REL TO GBR, USA")
		if _, err := a.sends(a.key, x, "hello"); !errors.Is(err, want) {
			t.Errorf("%s: an entry: %v", state, err)
		}
		if _, err := taking.Permit(ctx, redoubt.Credential{}, redoubt.ActionTakePartner, gbrGateway); !errors.Is(err, want) {
			t.Errorf("%s: a bundle: %v", state, err)
		}
		if err := taking.Take(ctx, redoubt.Credential{}, gbrGateway, redoubt.BundleTaking{}); !errors.Is(err, want) {
			t.Errorf("%s: its number: %v", state, err)
		}
		all, err := a.Agreements(ctx, a.as("officer", ""))
		if err != nil || all[0].State != state {
			t.Errorf("%+v, %v", all, err)
		}
	}
	a.time.add(12*time.Hour - time.Second)
	if rule, err := a.sends(a.key, a.says("last", "x", "SECRET//REL TO GBR, USA"), "x"); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	a.time.add(time.Second)
	look(redoubt.Expired, redoubt.AgreementExpired)
}

func TestAnAgreementThatHasNotBegunIsNotInForce(t *testing.T) {
	a := openAlly(t, func(p *Agreement) { p.NotBefore = p.Expires.Add(-time.Hour) })
	if _, err := a.sends(a.key, a.says("a", "x", "SECRET//REL TO GBR, USA"), "x"); !errors.Is(err, redoubt.Expired) {
		t.Error(err)
	}
	if _, is := a.Links()[gbrGateway]; is {
		t.Error("there is a link already")
	}
}

// TestTwoAgreementsHaveTwoNames: an end goes by the name, and says that nothing flows any more.
func TestTwoAgreementsHaveTwoNames(t *testing.T) {
	a := openAlly(t, nil)
	a.partners.all = nil
	if err := a.loadPartners(context.Background(), a.o.Agreements); err != nil {
		t.Fatal(err)
	}
	a.partners.all = nil
	a.o.Agreements[1].Name = a.o.Agreements[0].Name
	if err := a.loadPartners(context.Background(), a.o.Agreements); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("got %v, want %v", err, redoubt.Invalid)
	}
}

func TestOneOfficerEndsAnAgreementForGood(t *testing.T) {
	a := openAlly(t, nil)
	ctx := context.Background()
	alice := a.as("gbr.alice", "")
	gate := a.as(redoubt.SubjectName(gbrGateway), "")
	a.put(a.as("s-analyst", "SECRET//REL TO USA, GBR"), "shared", "for friends", "")
	if _, content, err := a.read(alice, named("shared")); err != nil || content != "for friends" {
		t.Fatalf("the partner's person reads %q, %v", content, err)
	}
	for _, who := range []redoubt.SubjectName{"ts-analyst", "admin", "gbr.alice", redoubt.SubjectName(gbrGateway)} {
		if err := a.EndAgreement(ctx, a.as(who, ""), "us-gbr", ""); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s ends it: %v", who, err)
		}
	}
	if err := a.EndAgreement(ctx, a.as("officer", ""), "us-xyz", ""); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("one that is not: %v", err)
	}
	if err := a.EndAgreement(ctx, a.as("officer", "UNCLASSIFIED"), "us-gbr", "over"); err != nil { // at whatever label she works
		t.Fatal(err)
	}
	ended := func(when string) {
		t.Helper()
		if _, err := a.sends(a.key, a.says("late", "x", "SECRET//REL TO GBR, USA"), "x"); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s something is taken: %v", when, err)
		}
		if _, err := a.PartnerGiving().Sets(ctx, gbrGateway); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s something is given: %v", when, err)
		}
		if _, _, err := a.read(alice, named("shared")); err == nil {
			t.Errorf("%s the partner's person reads", when)
		}
		if _, err := a.PutObject(ctx, alice, redoubt.PutObject{Name: named("new"), Body: strings.NewReader("x"), SizeBytes: 1}); err == nil {
			t.Errorf("%s the partner's person writes", when)
		}
		nonce := make([]byte, 16)
		rand.Read(nonce)
		for _, who := range []redoubt.SubjectName{"gbr.alice", redoubt.SubjectName(gbrGateway)} {
			req := redoubt.MintRequest{Subject: who, Node: a.name, Issued: a.clock(), Nonce: base64.RawURLEncoding.EncodeToString(nonce)}
			req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(a.keys[who], redoubt.MintMessage(req)))
			if _, err := a.MintCredential(ctx, req); err == nil {
				t.Errorf("%s %s gets a credential", when, who)
			}
		}
		if _, is := a.Links()[gbrGateway]; is {
			t.Errorf("%s there is a link", when)
		}
	}
	ended("after the end")
	if _, err := a.PartnerGiving().Permit(ctx, gate, redoubt.ActionHandPartner, gbrGateway); err == nil {
		t.Error("the gateway's old credential opens something")
	}
	if err := a.EndAgreement(ctx, a.as("officer-2", ""), "us-gbr", "again"); err != nil {
		t.Errorf("ending it twice: %v", err)
	}
	all, err := a.Agreements(ctx, a.as("officer", ""))
	if err != nil || all[0].State != redoubt.AgreementEnded || all[0].EndedBy != "officer" || all[0].Reason != "over" {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := a.Agreements(ctx, a.as("u-analyst", "")); err != nil || all[0].State != redoubt.AgreementEnded || all[0].EndedBy != "" || all[0].Reason != "" {
		t.Errorf("below the ceiling: %+v, %v", all, err)
	}
	a.restart(false)
	ended("after a restart")
	a.o.Agreements[0].Serial = 2 // an old one, put back
	a.restart(false)
	ended("under an old serial")
	a.o.Agreements[0].Serial = 4 // signed anew by both
	a.restart(false)
	if rule, err := a.sends(a.key, a.says("anew", "x", "SECRET//REL TO GBR, USA"), "x"); rule != "" || err != nil {
		t.Errorf("under another: %s, %v", rule, err)
	}
}

// ends has an officer end the agreement while content comes in.
type ends struct {
	a    *ally
	done bool
}

func (e *ends) Read(p []byte) (int, error) {
	if e.done {
		return 0, io.EOF
	}
	e.done = true
	p[0] = 'x'
	return 1, e.a.EndAgreement(context.Background(), e.a.as("officer", ""), "us-gbr", "")
}

func TestWhatAPartnersPersonWritesWhileTheAgreementEndsIsNotCommitted(t *testing.T) {
	a := openAlly(t, nil)
	alice := a.as("gbr.alice", "")
	if _, err := a.PutObject(context.Background(), alice, redoubt.PutObject{Name: named("late"), Body: &ends{a: a}, SizeBytes: 1}); err == nil {
		t.Error("it was taken")
	}
	if got := a.get(a.as("ts-analyst", ""), "late"); got != "" {
		t.Errorf("it is here: %q", got)
	}
}

func TestAPartnerOfOurOwnPolicyPassesOnNoThirdPartysMaterial(t *testing.T) {
	usa, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	bound, err := usa.Parse("SECRET//REL TO USA, GBR")
	if err != nil {
		t.Fatal(err)
	}
	a := openAlly(t, func(p *Agreement) {
		p.Policy, p.Takes.Bound, p.Takes.Convert = usa, bound, func(l label.Label) (label.Label, error) { return l, nil }
	})
	for marking, want := range map[string]string{"SECRET//REL TO USA, GBR": "", "//FRA SECRET//REL TO USA, FRA, GBR": ruleThird, "SECRET//FGI FRA//REL TO USA, GBR": ruleConsent, "SECRET//ORCON/REL TO USA, GBR": ruleConsent} {
		x := a.says("x"+want, "hello", "x")
		x.Label, x.Made = "USA@1 "+marking, "USA@1 "+marking
		if rule, err := a.sends(a.key, x, "hello"); rule != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", marking, rule, err, want)
		}
	}
}
