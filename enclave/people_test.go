package enclave

import (
	"context"
	"testing"
	"time"

	"redoubt"
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
	for marking, n := range map[string]int{"": 3, "UNCLASSIFIED": 2} {
		got, err := w.Changes(ctx, w.as("officer", marking))
		if err != nil || len(got) != n {
			t.Errorf("at %q: got %d changes, %v; want %d", marking, len(got), err, n)
		}
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
