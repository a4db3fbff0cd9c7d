package enclave

import (
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
	"redoubt/access"
	"redoubt/identity"
)

func TestRevokingACredentialEndsItForItsOwnerAndAnOfficerAlone(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	mine, other := w.as("s-analyst", ""), w.as("u-analyst", "")
	want(t, w.RevokeCredential(ctx, s, other.ID), redoubt.Denied)
	want(t, w.RevokeCredential(ctx, s, "RDBTNEVER"), redoubt.Denied) // the same for one that never was
	want(t, w.RevokeCredential(ctx, officer, "RDBTNEVER"), redoubt.NotFound)
	for by, id := range map[redoubt.SubjectName]string{"s-analyst": mine.ID, "officer": other.ID} {
		if err := w.RevokeCredential(ctx, w.as(by, ""), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, who := range []redoubt.Credential{mine, other} {
		_, err := w.ListBuckets(ctx, who)
		want(t, err, redoubt.Unauthenticated)
	}
	if got := w.get(s, "a"); got != "" {
		t.Errorf("got %q", got)
	}
	list, err := w.Credentials(ctx, s)
	if err != nil || len(list) == 0 {
		t.Fatalf("got %+v, %v", list, err)
	}
	for _, c := range list {
		if c.Subject != "s-analyst" {
			t.Errorf("an analyst is shown a credential of %s", c.Subject)
		}
	}
	w.as("ts-analyst", "")
	low, err := w.Credentials(ctx, w.as("officer", "UNCLASSIFIED"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range low {
		if c.Label != "UNCLASSIFIED" {
			t.Errorf("a low officer is shown a credential at %s", c.Label)
		}
	}
}

func TestOfficersAloneSeePeopleAndChanges(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	if err := w.erase(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "TOP SECRET"}); err != nil {
		t.Fatal(err)
	}
	if err := w.erase(redoubt.Change{Kind: redoubt.ChangeEraseBucket, Bucket: "locked"}); err != nil {
		t.Fatal(err)
	}
	want(t, w.erase(redoubt.Change{Kind: redoubt.ChangeEraseBucket, Bucket: "nobody"}), redoubt.NoBucket)
	people, err := w.People(ctx, w.as("officer", ""))
	if err != nil || len(people) != len(testPeople) {
		t.Errorf("got %d people, %v", len(people), err)
	}
	_, err = w.People(ctx, w.as("s-analyst", ""))
	want(t, err, redoubt.Denied)
	_, err = w.Changes(ctx, w.as("s-analyst", ""))
	want(t, err, redoubt.Denied)
	if got, err := w.Changes(ctx, w.as("officer", "")); err != nil || len(got) != 3 {
		t.Errorf("got %d changes, %v; want 3", len(got), err)
	}
	want(t, w.RevokePerson(ctx, w.as("s-analyst", ""), "u-analyst", ""), redoubt.Denied)
	want(t, w.RevokePerson(ctx, w.as("officer", ""), "nobody", ""), redoubt.NotFound)
	if info := w.NodeInfo(ctx); info.Name != w.name || info.Range.Floor != "UNCLASSIFIED" {
		t.Errorf("got %+v", info)
	}
}

func TestExpiredCredentialsAreForgottenAndRevokedOnesAreNot(t *testing.T) {
	h := new(hands)
	w := open(t, withClock(h))
	ctx := context.Background()
	w.as("s-analyst", "")
	revoked := w.as("u-analyst", "")
	if err := w.RevokeCredential(ctx, w.as("officer", ""), revoked.ID); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		if err := w.Records(ctx, "credential", func(string, []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 3 {
		t.Fatalf("%d credentials on record", n)
	}
	h.add(3 * 24 * time.Hour)
	w.expire()
	if n := count(); n != 0 {
		t.Errorf("%d expired credentials stay on record", n)
	}
	w.restart(true)
	_, err := w.ListBuckets(ctx, revoked)
	want(t, err, redoubt.Unauthenticated)
	if err := w.PutRecord(ctx, "note", "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := w.PutRecord(ctx, "note", "a", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if err := w.PutRecord(ctx, "note", "b", nil); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = w.Records(ctx, "note", func(name string, value []byte) error { got[name] = string(value); return nil })
	if err != nil || len(got) != 1 || got["a"] != "y" {
		t.Errorf("got %v, %v; want a=y and no marker", got, err)
	}
}

func TestWhatAHostileClientNamesIsNotKeptForGood(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("u-analyst", "")
	sets := len(w.sets.all())
	for i := range 200 {
		nations := []string{"AUS", "CAN", "GBR", "NZL", "FRA", "DEU", "ITA", "ESP"}
		marking := "SECRET//REL TO USA"
		for bit, n := range nations {
			if (i+1)>>bit&1 == 1 {
				marking += ", " + n
			}
		}
		_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: reports, Label: marking, Body: nil})
		if k := redoubt.KindOf(err); k != redoubt.Denied && k != redoubt.Invalid {
			t.Fatalf("%s: %v", marking, err)
		}
	}
	if n := len(w.sets.all()); n != sets {
		t.Errorf("refused markings made %d label sets", n-sets)
	}
	full := new(labelCache)
	full.kept.Store(maxCachedLabels)
	full.store(w.floor, "x")
	if _, ok := full.load(w.floor); ok {
		t.Error("a full cache grows")
	}
}

// low are the markings of a label below the ceiling and of one beside it in its categories.
var low = []string{"UNCLASSIFIED", "SECRET", "TOP SECRET", "TOP SECRET//SI"}

func TestOfficersRecordsAreForWhoWorksAtTheCeiling(t *testing.T) {
	w := open(t, nil)
	ctx, high := context.Background(), w.as("officer", "")
	pending := w.signed(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "SECRET"}, "officer")
	if _, err := w.ProposeChange(ctx, high, pending); err != nil {
		t.Fatal(err)
	}
	before := w.recorded(redoubt.AuditQuery{Rule: access.RuleRecords})
	for _, marking := range low {
		who := w.as("officer-2", marking)
		for what, do := range map[string]func() error{
			"people":  func() error { _, err := w.People(ctx, who); return err },
			"changes": func() error { _, err := w.Changes(ctx, who); return err },
			"grants":  func() error { _, err := w.Grants(ctx, who); return err },
			"a grant": func() error {
				_, err := w.Grant(ctx, who, redoubt.Grant{Subject: "nobody", Bucket: "reports"})
				return err
			},
			"an erasure of a low label by two": func() error {
				_, err := w.ProposeChange(ctx, who, w.signed(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "UNCLASSIFIED"}, "officer", "officer-2"))
				return err
			},
			"an erasure of a high label by two": func() error {
				_, err := w.ProposeChange(ctx, who, w.signed(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "TOP SECRET//SI/TK"}, "officer", "officer-2"))
				return err
			},
			"a change proposed again": func() error { _, err := w.ProposeChange(ctx, who, pending); return err },
			"approval of a change": func() error {
				_, err := w.ApproveChange(ctx, who, pending.ID, w.signed(pending, "officer-2").Signatures[1])
				return err
			},
			"approval of one that never was": func() error { _, err := w.ApproveChange(ctx, who, "none", redoubt.Signature{}); return err },
		} {
			var e *redoubt.Error
			if err := do(); !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Rule != access.RuleRecords || e.Hint != `work at the node's ceiling: --label "TOP SECRET//SI/TK"` {
				t.Errorf("%s at %s: got %#v", what, marking, err)
			}
		}
	}
	if n := w.recorded(redoubt.AuditQuery{Rule: access.RuleRecords}) - before; n != 9*len(low) {
		t.Errorf("%d refusals are on record, want %d", n, 9*len(low))
	}
	if _, err := w.ApproveChange(ctx, w.as("officer-2", "TOP SECRET//SI/TK//NOFORN"), pending.ID, w.signed(pending, "officer-2").Signatures[1]); err != nil {
		t.Errorf("at the ceiling in its other spelling: %v", err)
	}
}

// TestTheErasureOfALabelIsSignedByWhoDominatesIt: one beside the ceiling may lie in a store whose range was another once.
func TestTheErasureOfALabelIsSignedByWhoDominatesIt(t *testing.T) {
	w := open(t, nil)
	c := w.signed(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "TOP SECRET//HCS//NOFORN"}, "officer")
	_, err := w.ProposeChange(context.Background(), w.as("officer", ""), c)
	want(t, err, redoubt.Denied)
	_, recs, err := w.identity.Propose(c) // as an older node took it
	if err != nil {
		t.Fatal(err)
	}
	w.identity.Apply(recs...)
	_, err = w.ApproveChange(context.Background(), w.as("officer-2", ""), c.ID, w.signed(c, "officer-2").Signatures[1])
	want(t, err, redoubt.Denied)
}

// TestRevokingTellsOfNothingAbove: it bites whatever label the officer works at, and below the ceiling nobody is told whether
// there was anything to revoke.
func TestRevokingTellsOfNothingAbove(t *testing.T) {
	for _, marking := range low {
		w := open(t, nil)
		ctx := context.Background()
		g, err := w.Grant(ctx, w.as("officer", ""), redoubt.Grant{Subject: "ts-analyst", Bucket: "reports"})
		if err != nil {
			t.Fatal(err)
		}
		high := w.as("ts-analyst", "TOP SECRET//SI/TK")
		officer := w.as("officer", marking)
		for what, err := range map[string]error{
			"a credential":                w.RevokeCredential(ctx, officer, high.ID),
			"it again":                    w.RevokeCredential(ctx, officer, high.ID),
			"a credential that never was": w.RevokeCredential(ctx, officer, "RDNEVER"),
			"a grant":                     w.RevokeGrant(ctx, officer, g.ID),
			"the grant again":             w.RevokeGrant(ctx, officer, g.ID),
			"a grant that never was":      w.RevokeGrant(ctx, officer, "never"),
			"a person":                    w.RevokePerson(ctx, officer, "s-analyst", "left"),
			"the person again":            w.RevokePerson(ctx, officer, "s-analyst", "left"),
			"a person who never was":      w.RevokePerson(ctx, officer, "nobody", "left"),
		} {
			if err != nil {
				t.Errorf("at %s, %s: %v", marking, what, err)
			}
		}
		long := strings.Repeat("x", 2000)
		want(t, w.RevokePerson(ctx, officer, "u-analyst", long), redoubt.Invalid)
		want(t, w.RevokePerson(ctx, officer, "nobody", long), redoubt.Invalid)
		for range 2 {
			_, err := w.ListBuckets(ctx, high)
			want(t, err, redoubt.Unauthenticated)
			if _, known := w.identity.Subject("s-analyst"); known {
				t.Errorf("at %s: the person is there still", marking)
			}
			if s, _ := w.identity.Subject("ts-analyst"); len(s.Grants) != 0 {
				t.Errorf("at %s: the grant stands still", marking)
			}
			w.restart(true)
		}
		outcomes := map[string]int{}
		err = w.SearchAudit(ctx, officer, redoubt.AuditQuery{Subject: "officer"}, func(r redoubt.AuditRecord) error {
			if r.Action == redoubt.ActionRevoke || r.Action == redoubt.ActionRevokeGrant {
				outcomes[r.Outcome+" "+r.Rule]++
			}
			return nil
		})
		if err != nil || outcomes["ok own-or-officer (4.1)"] != 6 || outcomes["ok officer (4.2)"] != 3 {
			t.Errorf("at %s: the record of it says %v, %v", marking, outcomes, err)
		}
	}
	w := open(t, nil) // and at the ceiling one is told
	officer := w.as("officer", "")
	want(t, w.RevokeCredential(context.Background(), officer, "RDNEVER"), redoubt.NotFound)
	want(t, w.RevokeGrant(context.Background(), officer, "never"), redoubt.NotFound)
	want(t, w.RevokePerson(context.Background(), officer, "nobody", ""), redoubt.NotFound)
}

func TestASubjectRevokesHerOwnThatSheDominates(t *testing.T) {
	w := open(t, nil)
	ctx, mine, below := context.Background(), w.as("ts-analyst", "TOP SECRET"), w.as("ts-analyst", "SECRET")
	low := w.as("ts-analyst", "UNCLASSIFIED")
	want(t, w.RevokeCredential(ctx, low, mine.ID), redoubt.Denied) // as one that never was
	want(t, w.RevokeCredential(ctx, low, "RDNEVER"), redoubt.Denied)
	for _, c := range []redoubt.Credential{below, mine} {
		if err := w.RevokeCredential(ctx, mine, c.ID); err != nil {
			t.Error(err)
		}
		_, err := w.ListBuckets(ctx, c)
		want(t, err, redoubt.Unauthenticated)
	}
}

// TestPendingChangesTellNobodyBelow: the limit on them is reached, and below the ceiling every answer is as before.
func TestPendingChangesTellNobodyBelow(t *testing.T) {
	w := open(t, nil)
	ctx, high, officer := context.Background(), w.as("officer", ""), w.as("officer", "SECRET")
	propose := func(who redoubt.Credential, n int) error {
		c := w.signed(redoubt.Change{Kind: redoubt.ChangeEraseBucket, Bucket: "reports", Reason: fmt.Sprint(n)}, "officer")
		_, err := w.ProposeChange(ctx, who, c)
		return err
	}
	answers := func() (out []string) {
		_, err := w.Changes(ctx, officer)
		for _, err := range []error{err, propose(officer, 1000), w.RevokePerson(ctx, officer, "nobody", ""), w.RevokeGrant(ctx, officer, "never")} {
			out = append(out, fmt.Sprint(err))
		}
		return out
	}
	before := answers()
	for n := range identity.MaxPendingChanges {
		if err := propose(high, n); err != nil {
			t.Fatal(err)
		}
	}
	want(t, propose(high, identity.MaxPendingChanges), redoubt.QuotaExceeded)
	if after := answers(); !slices.Equal(before, after) {
		t.Errorf("got %q, before %q", after, before)
	}
}

// signed adds signatures to a change, which it dates if nobody has signed it yet.
func (w *world) signed(c redoubt.Change, by ...redoubt.SubjectName) redoubt.Change {
	if c.ID == "" {
		c.Node, c.Made, c.Expires = w.name, w.clock(), w.clock().Add(time.Hour)
		c.ID = redoubt.ChangeID(c)
	}
	for _, name := range by {
		c.Signatures = append(slices.Clone(c.Signatures), redoubt.Signature{Signer: name, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[name], redoubt.ChangeMessage(c)))})
	}
	return c
}

// recorded counts the records that a search at the ceiling finds.
func (w *world) recorded(q redoubt.AuditQuery) (n int) {
	w.t.Helper()
	if err := w.SearchAudit(context.Background(), w.as("officer", ""), q, func(redoubt.AuditRecord) error { n++; return nil }); err != nil {
		w.t.Fatal(err)
	}
	return n
}
