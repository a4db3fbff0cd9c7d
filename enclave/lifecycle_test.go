package enclave

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/faketime"
)

const day = 24 * time.Hour

// aged is an enclave with rules and a clock.
func aged(t *testing.T, rules ...redoubt.LifecycleRule) (*world, *hands) {
	t.Helper()
	h := new(hands)
	set := withClock(h)
	w := open(t, func(o *Options) {
		set(o)
		for i := range o.Buckets {
			o.Buckets[i].Lifecycle = rules
		}
		for i := range o.People {
			o.People[i].Expires = time.Now().Add(10 * 365 * day)
		}
	})
	return w, h
}

func (w *world) expire() {
	w.t.Helper()
	if err := w.Expire(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// versions counts what a reader finds in a bucket.
func (w *world) versions(who redoubt.Credential, bucket redoubt.BucketName) (n, markers int) {
	w.t.Helper()
	page, err := w.ListVersions(context.Background(), who, redoubt.ListVersions{Bucket: bucket, Max: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range page.Versions {
		if v.Marker {
			markers++
		} else {
			n++
		}
	}
	return n, markers
}

// TestANodeExpiresSoonAfterItsStart: one that is started anew within every hour would else never expire anything.
func TestANodeExpiresSoonAfterItsStart(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1) // the FIPS module's own source needs a time that passes
	faketime.Test(t, func(t *testing.T) {
		w := open(t, func(o *Options) {
			for i := range o.Buckets {
				o.Buckets[i].Lifecycle = []redoubt.LifecycleRule{{Date: time.Now().Add(-day)}}
			}
		})
		s, start := w.as("s-analyst", ""), time.Now()
		left := func(key string, at time.Duration) string {
			t.Helper()
			time.Sleep(time.Until(start.Add(at)))
			synctest.Wait()
			return w.get(s, key)
		}
		w.put(s, "first", "x", "")
		if got := left("first", lifecycleFirst-time.Nanosecond); got != "x" {
			t.Errorf("before the first round: got %q", got)
		}
		if got := left("first", lifecycleFirst); got != "" {
			t.Errorf("after the first round: got %q", got)
		}
		w.put(s, "second", "x", "")
		if got := left("second", lifecycleFirst+lifecycleEvery-time.Nanosecond); got != "x" {
			t.Errorf("before the second round: got %q", got)
		}
		if got := left("second", lifecycleFirst+lifecycleEvery); got != "" {
			t.Errorf("after the second round: got %q", got)
		}
	})
}

func TestGoingPastRetentionTakesARightAndIsOnRecord(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	name := redoubt.ObjectName{Bucket: "locked", Key: "a"}
	later := w.clock().Add(day)
	put := func() redoubt.Version {
		body, size := text("x")
		v, err := w.PutObject(ctx, s, redoubt.PutObject{Name: name, Body: body, SizeBytes: size, Retention: redoubt.Retention{Mode: "GOVERNANCE", Until: later}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	free := func() redoubt.Version {
		body, size := text("x")
		v, err := w.PutObject(ctx, s, redoubt.PutObject{Name: name, Body: body, SizeBytes: size})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	remove := func(v redoubt.Version) error {
		_, err := w.DeleteObject(ctx, s, redoubt.DeleteObject{Name: name, ID: v.ID, BypassGovernance: true})
		return err
	}
	shorten := func(v redoubt.Version, until time.Time) error {
		_, err := w.AlterObject(ctx, s, redoubt.AlterObject{Name: name, ID: v.ID, Retention: &redoubt.Retention{Mode: "GOVERNANCE", Until: until}, BypassGovernance: true})
		return err
	}
	byName := func(err error) {
		t.Helper()
		var e *redoubt.Error
		if !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Rule != access.RuleBypass || !strings.Contains(e.Hint, string(redoubt.ActionBypassLock)) {
			t.Errorf("got %#v, want it refused by %s with a hint", err, access.RuleBypass)
		}
	}
	recorded := func(rule string) int { return w.recorded(redoubt.AuditQuery{Rule: rule}) }
	v := put()
	byName(remove(v))
	byName(shorten(v, later.Add(-time.Hour)))
	if n := recorded(access.RuleBypass); n != 2 {
		t.Errorf("%d refusals are on record, want 2", n)
	}
	if err := remove(free()); err != nil { // clients ask for it whether or not there is anything to go past
		t.Errorf("asked for where nothing is in the way: %v", err)
	}
	if err := shorten(v, later.Add(time.Hour)); err != nil {
		t.Errorf("retention made longer: %v", err)
	}
	if _, err := w.Grant(ctx, officer, redoubt.Grant{Subject: "s-analyst", Bucket: "locked"}); err != nil {
		t.Fatal(err)
	}
	byName(remove(v)) // a grant of everything names it not
	g, err := w.Grant(ctx, officer, redoubt.Grant{Subject: "s-analyst", Bucket: "locked", Actions: []redoubt.Action{redoubt.ActionBypassLock}})
	if err != nil {
		t.Fatal(err)
	}
	if err := shorten(v, later); err != nil {
		t.Errorf("with the grant: %v", err)
	}
	if err := remove(v); err != nil {
		t.Errorf("with the grant: %v", err)
	}
	if n := recorded("bypass-governance"); n != 2 {
		t.Errorf("%d acts in spite of retention are on record, want 2", n)
	}
	v = put()
	if err := w.RevokeGrant(ctx, officer, g.ID); err != nil {
		t.Fatal(err)
	}
	byName(remove(v))
}

func TestExpiryHidesAtItsOwnLabelOnly(t *testing.T) {
	w, h := aged(t, redoubt.LifecycleRule{Days: 2, Prefix: "tmp/"})
	low, high := w.as("u-analyst", ""), w.as("ts-analyst", "")
	w.put(high, "tmp/a", "high", "")
	h.add(day)
	low = w.as("u-analyst", "")
	w.put(low, "tmp/a", "low", "") // what the high reader sees now, and not due as soon
	w.put(low, "kept", "x", "")
	h.add(2 * day) // the high one is due, the low one is not
	low, high = w.as("u-analyst", ""), w.as("ts-analyst", "")
	for range 2 {
		w.expire()
		if got := w.get(high, "tmp/a"); got != "low" {
			t.Errorf("the high reader got %q, want low", got)
		}
	}
	if got := w.decisions(redoubt.ActionExpire); len(got) != 0 {
		t.Errorf("what does not happen is recorded every time: %v", got)
	}
	h.add(2 * day)
	low, high = w.as("u-analyst", ""), w.as("ts-analyst", "")
	w.expire()
	if got := w.get(low, "tmp/a"); got != "" {
		t.Errorf("the low reader got %q after expiry", got)
	}
	if got := w.get(low, "kept"); got != "x" {
		t.Errorf("got %q, want what no rule names", got)
	}
	w.expire() // the high one is seen again, and now it is expired too
	if got := w.get(high, "tmp/a"); got != "" {
		t.Errorf("the high reader got %q after expiry", got)
	}
	if n, markers := w.versions(high, "reports"); n != 3 || markers != 2 {
		t.Errorf("%d versions and %d markers, want 3 and 2: nothing is lost", n, markers)
	}
	if n, _ := w.versions(low, "reports"); n != 2 {
		t.Errorf("the low reader sees %d versions", n)
	}
}

func TestNoncurrentVersionsEndByTagCountAndAge(t *testing.T) {
	w, h := aged(t, redoubt.LifecycleRule{NoncurrentDays: 3, NewerNoncurrent: 1, Tags: []redoubt.Tag{{Key: "keep", Value: "no"}}})
	ctx, s := context.Background(), w.as("s-analyst", "")
	tagged := redoubt.AlterObject{Name: reports, Tags: &[]redoubt.Tag{{Key: "keep", Value: "no"}}}
	for i := range 4 { // 0, 1, 2 become noncurrent; 1 has no tag
		w.put(s, "a", string(rune('0'+i)), "")
		if i != 1 {
			if _, err := w.AlterObject(ctx, s, tagged); err != nil {
				t.Fatal(err)
			}
		}
		h.add(time.Minute)
	}
	w.expire()
	if n, _ := w.versions(s, "reports"); n != 4 {
		t.Fatalf("%d versions before their time", n)
	}
	h.add(5 * day)
	w.expire()
	s = w.as("s-analyst", "")
	if n, _ := w.versions(s, "reports"); n != 3 {
		t.Errorf("%d versions, want 3: the current, the newest noncurrent, the untagged", n)
	}
	if got := w.get(s, "a"); got != "3" {
		t.Errorf("got %q, want 3", got)
	}
	w.usage("SECRET")
}

func TestAMarkerThatHidesALowerVersionIsNoRubbish(t *testing.T) {
	w, _ := aged(t, redoubt.LifecycleRule{ExpiredMarkers: true})
	low, high := w.as("u-analyst", ""), w.as("ts-analyst", "")
	v := w.put(low, "a", "low", "")
	if err := w.del(high, "a", ""); err != nil {
		t.Fatal(err)
	}
	if err := w.del(low, "nothing", ""); err != nil { // a marker over nothing
		t.Fatal(err)
	}
	w.expire()
	if got := w.get(high, "a"); got != "" {
		t.Errorf("lifecycle brought %q back", got)
	}
	if _, markers := w.versions(high, "reports"); markers != 1 {
		t.Errorf("%d markers, want the one that hides something", markers)
	}
	if err := w.del(low, "a", v.ID); err != nil {
		t.Fatal(err)
	}
	w.expire()
	if n, markers := w.versions(high, "reports"); n+markers != 0 {
		t.Errorf("%d versions and %d markers are left", n, markers)
	}
}

func TestLifecycleKeepsWhatIsLockedAndEndsOldUploads(t *testing.T) {
	w, h := aged(t, redoubt.LifecycleRule{NoncurrentDays: 1, AbortUploadDays: 7})
	ctx, s := context.Background(), w.as("s-analyst", "")
	name := redoubt.ObjectName{Bucket: "locked", Key: "a"}
	put := func(in redoubt.PutObject) redoubt.Version {
		in.Name = name
		in.Body, in.SizeBytes = text("x")
		v, err := w.PutObject(ctx, s, in)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	held := put(redoubt.PutObject{Hold: true})
	put(redoubt.PutObject{Retention: redoubt.Retention{Mode: "GOVERNANCE", Until: h.clock().Add(30 * day)}})
	put(redoubt.PutObject{})
	w.upload(s, "old", "", 100)
	h.add(3 * day)
	w.upload(w.as("s-analyst", ""), "young", "", 100)
	h.add(6 * day)
	w.expire()
	s = w.as("s-analyst", "")
	if n, _ := w.versions(s, "locked"); n != 3 {
		t.Errorf("%d versions, want all 3", n)
	}
	if page, err := w.ListUploads(ctx, s, redoubt.ListUploads{Bucket: "reports", Max: 10}); err != nil || len(page.Uploads) != 1 || page.Uploads[0].Name.Key != "young" {
		t.Errorf("got %+v, %v; want the young upload alone", page.Uploads, err)
	}
	off := false
	if _, err := w.AlterObject(ctx, s, redoubt.AlterObject{Name: name, ID: held.ID, Hold: &off}); err != nil {
		t.Fatal(err)
	}
	h.add(30 * day)
	w.expire()
	if n, _ := w.versions(w.as("s-analyst", ""), "locked"); n != 1 {
		t.Errorf("%d versions, want 1", n)
	}
	w.usage("SECRET")
	if n := w.blobs(); n != 1 {
		t.Errorf("%d blobs are left, want 1", n)
	}
}

func TestRetentionAndHoldsAreKept(t *testing.T) {
	h := new(hands)
	w := open(t, withClock(h))
	ctx, s := context.Background(), w.as("s-analyst", "")
	name := redoubt.ObjectName{Bucket: "locked", Key: "a"}
	now := h.clock()
	body, size := text("x")
	v, err := w.PutObject(ctx, s, redoubt.PutObject{Name: name, Body: body, SizeBytes: size, Retention: redoubt.Retention{Mode: "GOVERNANCE", Until: now.Add(10 * day)}})
	if err != nil {
		t.Fatal(err)
	}
	alter := func(in redoubt.AlterObject) error {
		in.Name, in.ID = name, v.ID
		_, err := w.AlterObject(ctx, s, in)
		return err
	}
	remove := func(bypass bool) error {
		_, err := w.DeleteObject(ctx, s, redoubt.DeleteObject{Name: name, ID: v.ID, BypassGovernance: bypass})
		return err
	}
	retain := func(mode string, d time.Duration) *redoubt.Retention {
		return &redoubt.Retention{Mode: mode, Until: now.Add(d)}
	}
	if _, err := w.Grant(ctx, w.as("officer", ""), redoubt.Grant{Subject: "s-analyst", Bucket: "locked", Actions: []redoubt.Action{redoubt.ActionBypassLock}}); err != nil {
		t.Fatal(err)
	}
	want(t, remove(false), redoubt.Locked)
	want(t, alter(redoubt.AlterObject{Retention: retain("GOVERNANCE", 5*day)}), redoubt.Locked)
	want(t, alter(redoubt.AlterObject{Retention: retain("GOVERNANCE", -day)}), redoubt.Invalid)
	want(t, alter(redoubt.AlterObject{Retention: retain("NONE", day)}), redoubt.Invalid)
	want(t, alter(redoubt.AlterObject{Retention: retain("GOVERNANCE", 20*day), Tags: &[]redoubt.Tag{}}), redoubt.Invalid)
	if err := alter(redoubt.AlterObject{Retention: retain("GOVERNANCE", 5*day), BypassGovernance: true}); err != nil {
		t.Error(err)
	}
	if err := alter(redoubt.AlterObject{Retention: retain("COMPLIANCE", 8*day)}); err != nil {
		t.Error(err)
	}
	want(t, alter(redoubt.AlterObject{Retention: retain("GOVERNANCE", 9*day), BypassGovernance: true}), redoubt.Locked)
	want(t, alter(redoubt.AlterObject{Retention: &redoubt.Retention{}, BypassGovernance: true}), redoubt.Locked)
	want(t, remove(true), redoubt.Locked)
	on, off := true, false
	if err := alter(redoubt.AlterObject{Hold: &on}); err != nil {
		t.Error(err)
	}
	h.add(9 * time.Hour)
	w.restart(true)
	v2, err := w.HeadObject(ctx, s, redoubt.ReadObject{Name: name})
	if err != nil || !v2.Hold || v2.Retention.Mode != "COMPLIANCE" || !v2.Retention.Until.Equal(now.Add(8*day).Truncate(time.Second)) {
		t.Errorf("got %+v, %v", v2, err)
	}
	h.add(9 * day)
	s = w.as("s-analyst", "")
	want(t, remove(true), redoubt.Locked) // held, though retention has ended
	if err := w.EraseVersion(ctx, w.as("officer", ""), name, v.ID, "spill"); err != nil {
		t.Errorf("a spill is erased in spite of retention: %v", err)
	}
	_ = off
	want(t, alter(redoubt.AlterObject{Hold: &off}), redoubt.NotFound)
	plain := w.put(s, "a", "x", "")
	_, err = w.AlterObject(ctx, s, redoubt.AlterObject{Name: plain.Name, Hold: &on})
	want(t, err, redoubt.Invalid)
	_, err = w.UpdateBucket(ctx, w.as("admin", ""), "locked", func(s *redoubt.BucketSettings) error { s.Lock.Mode, s.Lock.Days = "COMPLIANCE", 3; return nil })
	if err != nil {
		t.Fatal(err)
	}
	body, size = text("x")
	v3, err := w.PutObject(ctx, s, redoubt.PutObject{Name: name, Body: body, SizeBytes: size})
	if err != nil || v3.Retention.Mode != "COMPLIANCE" || v3.Retention.Until.Before(h.clock().Add(2*day)) {
		t.Errorf("the bucket's default: got %+v, %v", v3.Retention, err)
	}
}
