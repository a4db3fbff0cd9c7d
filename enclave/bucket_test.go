package enclave

import (
	"context"
	"errors"
	"strings"
	"testing"

	"redoubt"
)

func TestOnlyTheStorageRoleAtTheFloorMakesBuckets(t *testing.T) {
	w := open(t, nil)
	ctx, admin, s := context.Background(), w.as("admin", ""), w.as("s-analyst", "")
	_, err := w.CreateBucket(ctx, s, "mine", redoubt.BucketSettings{})
	want(t, err, redoubt.Denied)
	want(t, w.DeleteBucket(ctx, s, "reports"), redoubt.Denied)
	_, err = w.UpdateBucket(ctx, s, "reports", func(*redoubt.BucketSettings) error { t.Error("asked"); return nil })
	want(t, err, redoubt.Denied)
	for _, settings := range []redoubt.BucketSettings{{Floor: "TOP SECRET", Ceiling: "SECRET"}, {Default: "SECRET", Ceiling: "CONFIDENTIAL"},
		{Ceiling: "TOP SECRET//HCS"}, {Current: "best"}, {Floor: "no marking"}} {
		_, err := w.CreateBucket(ctx, admin, "bad", settings)
		want(t, err, redoubt.Invalid)
	}
	for _, name := range []redoubt.BucketName{".system", "a.b", "xn--a", "ab", "-ab", "Ab", "x-s3alias", redoubt.BucketName(strings.Repeat("a", 64))} {
		_, err := w.CreateBucket(ctx, admin, name, redoubt.BucketSettings{})
		if err == nil {
			t.Errorf("%q was made", name)
		}
	}
	made, err := w.CreateBucket(ctx, admin, "made", redoubt.BucketSettings{Default: "SECRET", Floor: "CONFIDENTIAL"})
	if err != nil || made.Default != "SECRET" {
		t.Fatalf("got %+v, %v", made, err)
	}
	body, size := text("x")
	v, err := w.PutObject(ctx, w.as("ts-analyst", "CONFIDENTIAL//NOFORN"), redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "made", Key: "a"}, Body: body, SizeBytes: size})
	if err != nil || v.Label.Banner() != "SECRET//NOFORN" {
		t.Errorf("the default joins the working label: got %v, %v", v.Label, err)
	}
	_, err = w.PutObject(ctx, w.as("u-analyst", ""), redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "made", Key: "a"}, Label: "UNCLASSIFIED", Body: strings.NewReader("")})
	want(t, err, redoubt.Denied)
	list, err := w.ListBuckets(ctx, s)
	if err != nil || len(list) != 3 || list[0].Name != "locked" || list[1].Name != "made" {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestARefusedChangeOfSettingsChangesNothing(t *testing.T) {
	w := open(t, nil)
	ctx, admin := context.Background(), w.as("admin", "")
	_, err := w.UpdateBucket(ctx, admin, "reports", func(s *redoubt.BucketSettings) error {
		s.CORS = []redoubt.CORSRule{{ID: "one", Origins: []string{"https://a"}, Methods: []string{"GET"}}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("no")
	_, err = w.UpdateBucket(ctx, admin, "reports", func(s *redoubt.BucketSettings) error {
		s.CORS[0].ID, s.CORS[0].Origins[0], s.Closed = "two", "https://b", true
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	if got := w.BucketCORS(ctx, "reports"); len(got) != 1 || got[0].ID != "one" || got[0].Origins[0] != "https://a" {
		t.Errorf("got %+v, want the rules as they were", got)
	}
	if w.BucketCORS(ctx, "nobody") != nil || w.BucketMD5ETag(ctx, "nobody") {
		t.Error("a bucket that is not there has settings")
	}
	_, err = w.UpdateBucket(ctx, admin, "nobody", nil)
	want(t, err, redoubt.NoBucket)
	_, err = w.HeadBucket(ctx, admin, "nobody")
	want(t, err, redoubt.NoBucket)
}

// TestARemovedBucketLooksNeverUsedToWhoFindsNothingInIt compares every answer with that for a name never used.
func TestARemovedBucketLooksNeverUsedToWhoFindsNothingInIt(t *testing.T) {
	w := open(t, func(o *Options) {
		o.Buckets = append(o.Buckets, redoubt.Bucket{Name: "closed", BucketSettings: redoubt.BucketSettings{Closed: true}})
	})
	ctx, admin, high := context.Background(), w.as("admin", ""), w.as("ts-analyst", "")
	if _, err := w.Grant(ctx, w.as("officer", ""), redoubt.Grant{Subject: "ts-analyst", Bucket: "closed"}); err != nil {
		t.Fatal(err)
	}
	ids := map[redoubt.BucketName]redoubt.VersionID{}
	for _, bucket := range []redoubt.BucketName{"reports", "closed"} {
		body, size := text("high")
		v, err := w.PutObject(ctx, high, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: bucket, Key: "a"}, Body: body, SizeBytes: size})
		if err != nil {
			t.Fatal(err)
		}
		ids[bucket] = v.ID
	}
	begun, _ := w.upload(high, "parts", "", 100)
	low := w.put(w.as("u-analyst", ""), "low", "x", "")
	want(t, w.DeleteBucket(ctx, admin, "reports"), redoubt.NotEmpty)
	if err := w.del(w.as("u-analyst", ""), "low", low.ID); err != nil {
		t.Fatal(err)
	}
	for bucket := range ids {
		if err := w.DeleteBucket(ctx, admin, bucket); err != nil {
			t.Fatal(err)
		}
	}
	// An officer has no role that reads; an analyst has no grant; a low one does not dominate what is there.
	people := []redoubt.Credential{w.as("u-analyst", ""), w.as("s-analyst", ""), w.as("officer", ""), w.as("admin", "")}
	try := func(who redoubt.Credential, bucket redoubt.BucketName) (answers []string) {
		name := redoubt.ObjectName{Bucket: bucket, Key: "a"}
		say := func(err error) { answers = append(answers, redoubt.KindOf(err).Error()) }
		_, err := w.GetObject(ctx, who, redoubt.ReadObject{Name: name})
		say(err)
		_, err = w.HeadObject(ctx, who, redoubt.ReadObject{Name: name, ID: ids[bucket]})
		say(err)
		_, err = w.ListObjects(ctx, who, redoubt.ListObjects{Bucket: bucket, Max: 1})
		say(err)
		_, err = w.ListUploads(ctx, who, redoubt.ListUploads{Bucket: bucket, Max: 1})
		say(err)
		_, err = w.AlterObject(ctx, who, redoubt.AlterObject{Name: name, Tags: &[]redoubt.Tag{}})
		say(err)
		_, err = w.DeleteObject(ctx, who, redoubt.DeleteObject{Name: name})
		say(err)
		_, err = w.DeleteObject(ctx, who, redoubt.DeleteObject{Name: name, ID: ids[bucket]})
		say(err)
		_, err = w.CreateUpload(ctx, who, redoubt.CreateUpload{Name: name})
		say(err)
		_, err = w.HeadBucket(ctx, who, bucket)
		say(err)
		say(w.AbortUpload(ctx, who, name, begun.ID))
		return answers
	}
	for _, who := range people {
		never := strings.Join(try(who, "never-used"), ", ")
		for bucket := range ids {
			if bucket == "reports" && who.Subject == "officer" {
				continue // dominates it, and lacks the role
			}
			if got := strings.Join(try(who, bucket), ", "); got != never {
				t.Errorf("%s in %s:\n got %s\nwant %s", who.Subject, bucket, got, never)
			}
		}
	}
	if got := strings.Join(try(w.as("officer", ""), "reports"), ", "); got != strings.Join(try(w.as("officer", ""), "never-used"), ", ") {
		t.Errorf("the officer is told: %s", got)
	}
	if got := w.get(high, "a"); got != "high" {
		t.Errorf("its reader got %q", got)
	}
	if got := w.list(high); len(got) != 1 {
		t.Errorf("its reader lists %v", got)
	}
	finds := func(who redoubt.Credential) int {
		page, err := w.Find(ctx, who, redoubt.FindObjects{Text: "a", Max: 10})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Found)
	}
	if got := finds(high); got != 2 {
		t.Errorf("its reader finds %d versions in two removed buckets", got)
	}
	for _, who := range people {
		if got := finds(who); got != 0 {
			t.Errorf("%s finds %d", who.Subject, got)
		}
	}
	_, err := w.PutObject(ctx, high, redoubt.PutObject{Name: reports, Body: strings.NewReader("")})
	want(t, err, redoubt.NoBucket)
	if err := w.AbortUpload(ctx, high, begun.Name, begun.ID); err != nil {
		t.Errorf("an upload in a removed bucket cannot be ended: %v", err)
	}
	if _, n := w.usage("TOP SECRET//SI/TK"); n != 2*int64(len("high")) {
		t.Errorf("%d bytes count", n)
	}
	w.restart(false)
	if got := w.get(high, "a"); got != "high" {
		t.Errorf("after a restart its reader got %q", got)
	}
	if _, err := w.CreateBucket(ctx, admin, "reports", redoubt.BucketSettings{}); err != nil {
		t.Fatal(err)
	}
	w.put(w.as("u-analyst", ""), "again", "x", "")
	if got := w.list(high); len(got) != 2 {
		t.Errorf("the bucket made anew shows %v to its high reader", got)
	}
}

func TestNeedToKnowHidesLikeALabel(t *testing.T) {
	w := open(t, nil)
	ctx, officer, s := context.Background(), w.as("officer", ""), w.as("s-analyst", "")
	w.put(s, "open/a", "x", "")
	w.put(s, "shut/a", "x", "")
	g, err := w.Grant(ctx, officer, redoubt.Grant{Subject: "s-analyst", Bucket: "reports", Prefix: "shut/", Deny: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"shut/a", "shut/never"} {
		_, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: named(key)})
		want(t, err, redoubt.NotFound)
	}
	if got := strings.Join(w.list(s), " "); got != "open/a" {
		t.Errorf("the list shows %q", got)
	}
	page, err := w.ListObjects(ctx, s, redoubt.ListObjects{Bucket: "reports", Delimiter: "/", Max: 10})
	if err != nil || len(page.Prefixes) != 1 {
		t.Errorf("got prefixes %v, %v", page.Prefixes, err)
	}
	versions, err := w.ListVersions(ctx, s, redoubt.ListVersions{Bucket: "reports", Max: 10})
	if err != nil || len(versions.Versions) != 1 {
		t.Errorf("got %d versions, %v", len(versions.Versions), err)
	}
	if err := w.RevokeGrant(ctx, officer, g.ID); err != nil {
		t.Fatal(err)
	}
	if got := w.get(s, "shut/a"); got != "x" {
		t.Errorf("got %q once the grant is gone", got)
	}
	grants, err := w.Grants(ctx, officer)
	if err != nil || len(grants) != 0 {
		t.Errorf("got %+v, %v", grants, err)
	}
	_, err = w.Grant(ctx, s, redoubt.Grant{Subject: "s-analyst", Bucket: "reports"})
	want(t, err, redoubt.Denied)
	want(t, w.RevokeGrant(ctx, officer, "none"), redoubt.NotFound)
}
