package enclave

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/replica"
)

// given is what a partner would be handed now.
func (a *ally) given() (all []redoubt.JournalItem) {
	a.t.Helper()
	ctx := context.Background()
	g := a.PartnerGiving()
	sets, err := g.Sets(ctx, gbrGateway)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, set := range sets {
		var stamps []redoubt.Stamp
		if _, err := g.Inventory(ctx, gbrGateway, set, func(s redoubt.Stamp) error { stamps = append(stamps, s); return nil }); err != nil {
			a.t.Fatal(err)
		}
		items, err := g.Fetch(ctx, gbrGateway, set, stamps)
		if err != nil {
			a.t.Fatal(err)
		}
		all = append(all, items...)
	}
	return all
}

func TestAPartnerIsGivenWhatIsReleasableToItAndNothingElse(t *testing.T) {
	a := openAlly(t, nil)
	ctx := context.Background()
	ts, s, u := a.as("ts-analyst", "UNCLASSIFIED"), a.as("s-analyst", "SECRET//REL TO USA, GBR"), a.as("u-analyst", "")
	a.put(u, "public", "1", "UNCLASSIFIED")
	a.put(s, "shared", "2", "")
	want := []string{"public", "shared"}
	look := func(after string) {
		t.Helper()
		var got []string
		for _, item := range a.given() {
			got = append(got, item.Entry.Name.Key)
			x := &item.Entry
			if x.Maker != "example--topsecret" || x.Made != x.Label || len(x.Tags) > 0 || x.Base != (redoubt.Stamp{}) || x.MD5 != "" {
				t.Errorf("what goes out: %+v", *x)
			}
			b, err := x.MarshalBinary()
			if err != nil || !item.Custody.Covers(b) || !item.Custody.Signed(x.Maker, a.JournalKey()) {
				t.Errorf("%s is not as this gateway signed it: %v", x.Name, err)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("after %s: got %v, want %v", after, got, want)
		}
	}
	look("what is releasable")
	sets := func() string { all, err := a.PartnerGiving().Sets(ctx, gbrGateway); return fmt.Sprint(all, err) }
	before := sets()
	for _, marking := range []string{"SECRET//NOFORN", "SECRET", "TOP SECRET//REL TO USA, GBR", "SECRET//REL TO USA, AUS", "SECRET//SI//REL TO USA, GBR", "SECRET//ORCON/REL TO USA, GBR", "SECRET//PROPIN/REL TO USA, GBR",
		"SECRET//REL TO USA, GBR/FISA", "//FRA SECRET//REL TO USA, FRA, GBR", "SECRET//FGI FRA//REL TO USA, GBR", "//GBR SECRET//REL TO USA, GBR"} {
		a.put(ts, "kept "+marking, "x", marking)
		look(marking)
		if got := sets(); got != before {
			t.Errorf("%s shows in the sets: %s, before %s", marking, got, before)
		}
	}
	if _, err := a.PutObject(ctx, s, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "private", Key: "x"}, Body: strings.NewReader("x"), SizeBytes: 1}); err != nil {
		t.Fatal(err)
	}
	look("a bucket that is not agreed on")

	x := a.says("ally", "hello", "SECRET//REL TO GBR, USA")
	if rule, err := a.sends(a.key, x, "hello"); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	look("what came of the partner itself")
	if _, err := a.PutObject(ctx, s, redoubt.PutObject{Name: named("copied"), Body: strings.NewReader("x"), SizeBytes: 1, Attributes: redoubt.Attributes{Meta: map[string]string{redoubt.MetaOriginatorLabel: x.Label}}}); err != nil {
		t.Fatal(err)
	}
	look("a copy of a partner's version, under a label of ours")
}

func TestAPartnersGatewayMayFetchForItselfAndDoNothingElse(t *testing.T) {
	a := openAlly(t, nil)
	ctx := context.Background()
	gate := a.as(redoubt.SubjectName(gbrGateway), "")
	a.put(a.as("u-analyst", ""), "public", "1", "UNCLASSIFIED")
	if l, err := a.PartnerGiving().Permit(ctx, gate, redoubt.ActionHandPartner, gbrGateway); err != nil || !l.Partner {
		t.Fatal(l, err)
	}
	for who, c := range map[string]redoubt.Credential{"a person": a.as("ts-analyst", ""), "an administrator": a.as("admin", ""), "the partner's person": a.as("gbr.alice", "")} {
		if _, err := a.PartnerGiving().Permit(ctx, c, redoubt.ActionHandPartner, gbrGateway); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s: %v", who, err)
		}
	}
	if _, err := a.PartnerGiving().Permit(ctx, gate, redoubt.ActionHandPartner, "fra--orbite"); err == nil {
		t.Error("it fetches for another partner")
	}
	if _, err := a.Permit(ctx, a.as("admin", ""), redoubt.ActionExportBundle, gbrGateway); !errors.Is(err, redoubt.Denied) {
		t.Errorf("an administrator exports past the agreement: %v", err)
	}
	if _, err := a.ListBuckets(ctx, gate); !errors.Is(err, redoubt.Denied) {
		t.Errorf("it lists buckets: %v", err)
	}
	if _, err := a.Agreements(ctx, gate); !errors.Is(err, redoubt.Denied) {
		t.Errorf("it lists agreements: %v", err)
	}
	if _, _, err := a.read(gate, named("public")); err == nil {
		t.Error("it reads an object")
	}
	if _, err := a.PutObject(ctx, gate, redoubt.PutObject{Name: named("x"), Body: bytes.NewReader(nil)}); err == nil {
		t.Error("it writes one")
	}
}

func TestAPartnersPersonIsWhatTheAgreementSaysAndNoMore(t *testing.T) {
	a := openAlly(t, nil)
	ctx := context.Background()
	alice := a.as("gbr.alice", "")
	if got := alice.Working.Banner(); got != "SECRET//REL TO USA, GBR" && !strings.Contains(got, "GBR") {
		t.Errorf("she works at %s", got)
	}
	a.put(a.as("s-analyst", ""), "ours", "x", "SECRET//NOFORN")
	if _, _, err := a.read(alice, named("ours")); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("what is not releasable to her: %v", err)
	}
	for _, marking := range []string{"SECRET", "TOP SECRET//REL TO USA, GBR"} {
		req := redoubt.MintRequest{Subject: "gbr.alice", Node: a.name, Label: marking, Issued: a.clock(), Nonce: base64.RawURLEncoding.EncodeToString(make([]byte, 16))}
		req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(a.keys["gbr.alice"], redoubt.MintMessage(req)))
		if _, err := a.MintCredential(ctx, req); !errors.Is(err, redoubt.Denied) {
			t.Errorf("a credential at %s: %v", marking, err)
		}
	}
	c := redoubt.Change{Kind: redoubt.ChangePerson, Node: a.name, Reason: "x", Made: a.clock(), Expires: a.clock().Add(time.Hour),
		Person: &redoubt.Person{Name: "gbr.alice", Clearance: "TOP SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleOfficer}, Expires: a.clock().Add(time.Hour), PublicKey: base64.StdEncoding.EncodeToString(a.keys["gbr.alice"].Public().(ed25519.PublicKey))}}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{{Signer: "officer", Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(a.keys["officer"], redoubt.ChangeMessage(c)))}}
	if _, err := a.ProposeChange(ctx, a.as("officer", ""), c); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("officers make her another beside the agreement: %v", err)
	}
	if all, err := a.Agreements(ctx, alice); err != nil || len(all) != 1 || all[0].Numbers {
		t.Errorf("she is told %+v, %v", all, err)
	}
	a.time.add(12 * time.Hour)
	if _, _, err := a.read(alice, named("shared")); !errors.Is(err, redoubt.Expired) {
		t.Errorf("after the agreement's time: %v", err)
	}
}

// TestADamagedVersionHoldsUpNothingThatAPartnerIsGiven: it is counted to who is told the agreement's numbers, and given once it reads.
func TestADamagedVersionHoldsUpNothingThatAPartnerIsGiven(t *testing.T) {
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	a := openAlly(t, func(g *Agreement) { g.Recipient = id.Recipient().String() })
	ctx, gate, giving := context.Background(), a.as(redoubt.SubjectName(gbrGateway), ""), a.PartnerGiving()
	var have redoubt.BundleMark
	begin := func() *replica.Bundles {
		return replica.NewBundles(replica.BundleOptions{Estate: "example", Node: "example--topsecret", Policy: a.policy, Journal: giving, State: a, Ledger: giving, Raises: giving, Sign: a.SignBundle, Clock: a.clock, Stage: t.TempDir()})
	}
	hand := func(b *replica.Bundles) error {
		mark, err := b.HandPartner(ctx, gate, have, new(bytes.Buffer))
		if err == nil {
			have = mark
		}
		return err
	}
	held := func() (n int) {
		t.Helper()
		b, err := a.HandedOver(ctx, gbrGateway, have.Serial)
		if err != nil {
			t.Fatal(err)
		}
		for _, all := range b.Held {
			n += len(all)
		}
		return n
	}
	unread := func(want int) {
		t.Helper()
		for who, want := range map[redoubt.SubjectName]int{"ts-analyst": want, "gbr.alice": 0} {
			all, err := a.Agreements(ctx, a.as(who, ""))
			i := slices.IndexFunc(all, func(s redoubt.AgreementStatus) bool { return s.Gateway == gbrGateway })
			if err != nil || i < 0 || all[i].Unread != want {
				t.Errorf("%s is told %+v, %v; want %d", who, all, err, want)
			}
		}
	}
	u := a.as("u-analyst", "")
	a.put(u, "one", "1", "UNCLASSIFIED")
	mend := a.damage("UNCLASSIFIED", a.put(u, "two", strings.Repeat("2", 300<<10), "UNCLASSIFIED"))
	a.put(u, "three", "3", "UNCLASSIFIED")
	b := begin()
	if err := hand(b); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("got %v, want %v", err, redoubt.Corrupt)
	}
	unread(0)
	if err := hand(b); err != nil || held() != 2 {
		t.Fatalf("%d are given, %v", held(), err)
	}
	unread(1)
	a.put(u, "four", "4", "UNCLASSIFIED")
	if err := hand(b); err != nil || held() != 1 {
		t.Errorf("%d are given, %v", held(), err)
	}
	mend()
	b = begin() // with the first bundle since the node began what was left out is tried again
	a.put(u, "five", "5", "UNCLASSIFIED")
	if err := hand(b); err != nil || held() != 2 {
		t.Errorf("%d are given, %v", held(), err)
	}
	a.put(u, "six", "6", "UNCLASSIFIED")
	if err := hand(b); err != nil { // by which the partner has the one before
		t.Fatal(err)
	}
	unread(0)
}
