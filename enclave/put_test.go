package enclave

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"redoubt"
	"redoubt/store"
)

func TestABodyThatBreaksOffIsNotStored(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	broken := errors.New("broken")
	for _, size := range []int{0, 10, inlinePlain - 1, inlinePlain + 1, 3 << 20} {
		for _, cause := range []error{io.ErrUnexpectedEOF, broken} {
			body := io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(cause))
			_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: reports, SizeBytes: -1, Body: body})
			if !errors.Is(err, cause) {
				t.Errorf("%d bytes and then %v: got %v", size, cause, err)
			}
		}
	}
	if got := w.list(s); len(got) != 0 {
		t.Errorf("the bucket shows %v", got)
	}
	_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: reports, SizeBytes: -1, Body: idle{}})
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a body that gives nothing for ever: got %v", err)
	}
	for _, size := range []int64{4, 6} {
		_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: reports, SizeBytes: size, Body: strings.NewReader("12345")})
		want(t, err, redoubt.Invalid)
	}
	if n := w.blobs(); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
	if _, n := w.usage("SECRET"); n != 0 {
		t.Errorf("%d bytes count", n)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestContentOfEverySizeComesBackWhole(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	for _, size := range []int{0, 1, smallBytes, smallBytes + 1, 64 << 10, inlinePlain, inlinePlain + 1, 1 << 20} {
		for _, stated := range []int64{int64(size), -1} {
			whole := bytes.Repeat([]byte("x"), size)
			_, err := w.PutObject(context.Background(), s, redoubt.PutObject{Name: reports, SizeBytes: stated, Body: iotest.HalfReader(bytes.NewReader(whole))})
			if err != nil {
				t.Fatal(err)
			}
			if got := w.get(s, "a"); got != string(whole) {
				t.Errorf("%d bytes: got %d", size, len(got))
			}
		}
	}
	o, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: reports})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if got := content(t, o, 1<<20-2, 1<<62); got != "xx" {
		t.Errorf("a range far past the end: got %d bytes", len(got))
	}
	w.put(s, "small", "123", "")
	small, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: named("small")})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	for _, r := range []struct {
		off, n int64
		want   string
	}{{0, -1, "123"}, {1, 1, "2"}, {1, 1<<63 - 1, "23"}, {3, -1, ""}} {
		if got := content(t, small, r.off, r.n); got != r.want {
			t.Errorf("%d from %d: got %q, want %q", r.n, r.off, got, r.want)
		}
	}
	for _, off := range []int64{-1, 4} {
		if _, err := io.ReadAll(small.Reader(off, -1)); !errors.Is(err, redoubt.RangeInvalid) {
			t.Errorf("from %d: got %v", off, err)
		}
	}
}

func TestAQuotaCountsWhatIsThereOnce(t *testing.T) {
	const quota = 8 << 20
	w := open(t, func(o *Options) { o.Quotas = map[string]int64{"SECRET": quota} })
	ctx, s := context.Background(), w.as("s-analyst", "")
	put := func(key string, n int, stated int64, marking string) error {
		_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: named(key), Label: marking, SizeBytes: stated, Body: bytes.NewReader(make([]byte, n))})
		return err
	}
	// Of unknown length: it fits to the byte, however large a step is.
	if err := put("a", quota/2, -1, ""); err != nil {
		t.Fatalf("half of the share: %v", err)
	}
	record := w.charged("SECRET") - quota/2 // as long as the next one's
	rest := quota/2 - 2*int(record)
	want(t, put("b", rest+1, -1, ""), redoubt.QuotaExceeded)
	want(t, put("b", rest+1, int64(rest+1), ""), redoubt.QuotaExceeded)
	want(t, put("b", rest+1, -1, "SECRET//NOFORN"), redoubt.QuotaExceeded) // another spelling is no other share
	if err := put("b", rest, -1, ""); err != nil {
		t.Fatalf("the rest: %v", err)
	}
	if n := w.charged("SECRET"); n != quota {
		t.Errorf("%d bytes are charged, want %d", n, quota)
	}
	want(t, put("c", 1, 1, ""), redoubt.QuotaExceeded)
	w.put(w.as("u-analyst", ""), "other", "another label", "")
	page, err := w.ListVersions(ctx, s, redoubt.ListVersions{Bucket: "reports", Prefix: "a", Max: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.del(s, "a", page.Versions[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := put("c", quota/2, -1, ""); err != nil {
		t.Errorf("after a removal: %v", err)
	}
	if _, n := w.usage("SECRET"); n != int64(quota/2+rest) {
		t.Errorf("%d bytes count, want %d", n, quota/2+rest)
	}
	usage, err := w.Usage(ctx, w.as("admin", ""))
	if err != nil || len(usage) != 1 || usage[0].Label != "UNCLASSIFIED" {
		t.Errorf("a low administrator is shown %+v, %v", usage, err)
	}
	_, err = Open(ctx, Options{Name: "x", Policy: w.policy, Floor: w.floor, Ceiling: w.ceiling, Keys: w.keyring, Region: "r",
		Quotas: map[string]int64{"SECRET": 1, "SECRET//NOFORN": 2}, Engine: w.engine})
	if err == nil {
		t.Error("two shares of one label were taken")
	}
}

func TestUsageFollowsPartsCopiesAndRemovals(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	ctx, s := context.Background(), w.as("s-analyst", "")
	u, list := w.upload(s, "parts", "", redoubt.MinPartBytes, 7, 9)
	list[1] = w.part(s, u, 2, bytes.Repeat([]byte("x"), 5)) // instead of 7
	f.when(func(b *store.Batch) error {
		if len(b.Links) > 0 {
			return &redoubt.Error{Kind: redoubt.DiskFull}
		}
		return nil
	})
	_, err := w.PutPart(ctx, s, redoubt.PutPart{Name: u.Name, Upload: u.ID, Number: 2, SizeBytes: 1, Body: strings.NewReader("y")})
	want(t, err, redoubt.DiskFull)
	f.when(func(*store.Batch) error { return nil })
	if _, n := w.usage("SECRET"); n != redoubt.MinPartBytes+5+9 {
		t.Errorf("%d bytes count for the parts", n)
	}
	v, err := w.complete(s, u, list[:2]) // the third is left out
	if err != nil {
		t.Fatal(err)
	}
	if n, size := w.usage("SECRET"); n != 1 || size != redoubt.MinPartBytes+5 {
		t.Errorf("%d versions of %d bytes", n, size)
	}
	if _, err := w.CopyObject(ctx, s, redoubt.CopyObject{Source: v.Name, Target: v.Name}); err != nil { // onto itself
		t.Fatal(err)
	}
	if n, size := w.usage("SECRET"); n != 2 || size != 2*(redoubt.MinPartBytes+5) {
		t.Errorf("%d versions of %d bytes", n, size)
	}
	gone, _ := w.upload(s, "gone", "", 100)
	if err := w.AbortUpload(ctx, s, gone.Name, gone.ID); err != nil {
		t.Fatal(err)
	}
	if err := w.del(s, "parts", v.ID); err != nil {
		t.Fatal(err)
	}
	if err := w.del(s, "parts", ""); err != nil { // a marker
		t.Fatal(err)
	}
	if n, size := w.usage("SECRET"); n != 2 || size != redoubt.MinPartBytes+5 {
		t.Errorf("%d versions of %d bytes", n, size)
	}
	if n := w.blobs(); n != 1 {
		t.Errorf("%d blobs are left, want that of the copy", n)
	}
}

// TestWhatIsAllowedAndFailsIsOnRecord lets an allowed request fail at each of its steps.
func TestWhatIsAllowedAndFailsIsOnRecord(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	ctx, s, admin := context.Background(), w.as("s-analyst", ""), w.as("admin", "")
	v := w.put(s, "a", "x", "")
	u, _ := w.upload(s, "parts", "", 3)
	full := func(b *store.Batch) error {
		if len(b.Writes) > 0 {
			return &redoubt.Error{Kind: redoubt.DiskFull}
		}
		return nil
	}
	put := func(in redoubt.PutObject) error {
		in.Name = named("b")
		if in.Body == nil {
			in.Body, in.SizeBytes = text("x")
		}
		_, err := w.PutObject(ctx, s, in)
		return err
	}
	cases := []struct {
		what   string
		action redoubt.Action
		kind   redoubt.Kind
		full   bool
		do     func() error
	}{
		{"a body that fails", redoubt.ActionPutObject, redoubt.Internal, false, func() error { return put(redoubt.PutObject{Body: iotest.ErrReader(errPulled), SizeBytes: -1}) }},
		{"a digest that differs", redoubt.ActionPutObject, redoubt.BadDigest, false, func() error {
			return put(redoubt.PutObject{Finish: func() (redoubt.Checksums, string, error) {
				return redoubt.Checksums{}, "", redoubt.BadDigest
			}})
		}},
		{"retention without object lock", redoubt.ActionPutObject, redoubt.Invalid, false, func() error {
			return put(redoubt.PutObject{Retention: redoubt.Retention{Mode: "GOVERNANCE", Until: time.Now().Add(time.Hour)}})
		}},
		{"a hold without object lock", redoubt.ActionPutObject, redoubt.Invalid, false, func() error { return put(redoubt.PutObject{Hold: true}) }},
		{"a condition", redoubt.ActionPutObject, redoubt.NotFound, false, func() error { return put(redoubt.PutObject{If: redoubt.Conditions{IfMatch: []string{"x"}}}) }},
		{"a full disk", redoubt.ActionPutObject, redoubt.DiskFull, true, func() error { return put(redoubt.PutObject{}) }},
		{"a marker on a full disk", redoubt.ActionDeleteObject, redoubt.DiskFull, true, func() error { return w.del(s, "a", "") }},
		{"a removal on a full disk", redoubt.ActionDeleteVersion, redoubt.DiskFull, true, func() error { return w.del(s, "a", v.ID) }},
		{"tags on a full disk", redoubt.ActionPutTags, redoubt.DiskFull, true, func() error {
			_, err := w.AlterObject(ctx, s, redoubt.AlterObject{Name: reports, Tags: &[]redoubt.Tag{}})
			return err
		}},
		{"an upload on a full disk", redoubt.ActionUpload, redoubt.DiskFull, true, func() error {
			_, err := w.CreateUpload(ctx, s, redoubt.CreateUpload{Name: reports})
			return err
		}},
		{"a part of number 0", redoubt.ActionUpload, redoubt.Invalid, false, func() error {
			_, err := w.PutPart(ctx, s, redoubt.PutPart{Name: u.Name, Upload: u.ID, Number: 0, Body: strings.NewReader("")})
			return err
		}},
		{"a completion of nothing", redoubt.ActionUpload, redoubt.Invalid, false, func() error { _, err := w.complete(s, u, nil); return err }},
		{"a range outside its source", redoubt.ActionUpload, redoubt.RangeInvalid, false, func() error {
			_, _, err := w.CopyPart(ctx, s, redoubt.CopyPart{Name: u.Name, Upload: u.ID, Number: 1, Source: reports, Off: 1, N: 1<<63 - 1})
			return err
		}},
		{"an abort on a full disk", redoubt.ActionAbortUpload, redoubt.DiskFull, true, func() error { return w.AbortUpload(ctx, s, u.Name, u.ID) }},
		{"a bucket that is there", redoubt.ActionCreateBucket, redoubt.Exists, false, func() error {
			_, err := w.CreateBucket(ctx, admin, "reports", redoubt.BucketSettings{})
			return err
		}},
		{"a bucket of a bad name", redoubt.ActionCreateBucket, redoubt.Invalid, false, func() error {
			_, err := w.CreateBucket(ctx, admin, "No", redoubt.BucketSettings{})
			return err
		}},
		{"settings that do not hold", redoubt.ActionPutBucket, redoubt.Invalid, false, func() error {
			_, err := w.UpdateBucket(ctx, admin, "reports", func(s *redoubt.BucketSettings) error { s.Current = "best"; return nil })
			return err
		}},
		{"object lock switched off", redoubt.ActionPutBucket, redoubt.Invalid, false, func() error {
			_, err := w.UpdateBucket(ctx, admin, "locked", func(s *redoubt.BucketSettings) error { s.Lock.Enabled = false; return nil })
			return err
		}},
		{"a removal of a full bucket's record", redoubt.ActionDeleteBucket, redoubt.DiskFull, true, func() error { return w.DeleteBucket(ctx, admin, "locked") }},
	}
	for _, c := range cases {
		before := w.decisions(c.action)
		if c.full {
			f.when(full)
		}
		err := c.do()
		f.when(func(*store.Batch) error { return nil })
		if redoubt.KindOf(err) != c.kind || err == nil {
			t.Errorf("%s: got %v, want %v", c.what, err, c.kind)
		}
		now := w.decisions(c.action)
		if len(now) != len(before)+1 || now[len(now)-1] != c.kind.Error() {
			t.Errorf("%s: the log has %v and then %v, want one %v more", c.what, before, now, c.kind)
		}
	}
	if got := w.get(s, "a"); got != "x" {
		t.Errorf("got %q, want x", got)
	}
	w.usage("SECRET")
}

func TestADenialIsOnRecordForAClientThatIsGone(t *testing.T) {
	w := open(t, nil)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	body, size := text("x")
	_, err := w.PutObject(gone, w.as("u-analyst", ""), redoubt.PutObject{Name: reports, Label: "TOP SECRET", Body: body, SizeBytes: size})
	want(t, err, redoubt.Denied)
	if got := w.decisions(redoubt.ActionPutObject); len(got) != 1 || got[0] != redoubt.Denied.Error() {
		t.Errorf("the log has %v, want one refusal", got)
	}
	_, err = w.PutObject(gone, w.as("s-analyst", ""), redoubt.PutObject{Name: reports, Body: strings.NewReader("x"), SizeBytes: 1})
	want(t, err, redoubt.Unavailable)
	if got := w.get(w.as("s-analyst", ""), "a"); got != "" {
		t.Errorf("got %q of a client that was gone", got)
	}
}

func TestConditionsSeeWhatTheWriterSees(t *testing.T) {
	w := open(t, nil)
	ctx, low, high := context.Background(), w.as("u-analyst", ""), w.as("ts-analyst", "")
	put := func(who redoubt.Credential, c redoubt.Conditions) (redoubt.Version, error) {
		body, size := text("x")
		return w.PutObject(ctx, who, redoubt.PutObject{Name: reports, If: c, Body: body, SizeBytes: size})
	}
	fresh := redoubt.Conditions{IfNoneMatch: []string{"*"}}
	w.put(high, "a", "high", "")
	v, err := put(low, fresh) // it cannot tell
	if err != nil {
		t.Fatal(err)
	}
	_, err = put(low, fresh)
	want(t, err, redoubt.PreconditionFail)
	_, err = put(low, redoubt.Conditions{IfMatch: []string{"other"}})
	want(t, err, redoubt.PreconditionFail)
	v, err = put(low, redoubt.Conditions{IfMatch: []string{v.ETag}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.DeleteObject(ctx, low, redoubt.DeleteObject{Name: reports, If: redoubt.Conditions{IfMatch: []string{"other"}}})
	want(t, err, redoubt.PreconditionFail)
	_, err = w.DeleteObject(ctx, low, redoubt.DeleteObject{Name: reports, ID: v.ID, If: redoubt.Conditions{IfMatch: []string{"other"}}})
	want(t, err, redoubt.PreconditionFail)
	if _, err := w.DeleteObject(ctx, low, redoubt.DeleteObject{Name: reports, If: redoubt.Conditions{IfMatch: []string{v.ETag}}}); err != nil {
		t.Fatal(err)
	}
	_, err = put(low, redoubt.Conditions{IfMatch: []string{"*"}}) // only a marker is there
	want(t, err, redoubt.NotFound)
	if _, err := put(low, fresh); err != nil { // and a marker is nothing
		t.Error(err)
	}
	read := func(c redoubt.Conditions) error {
		_, err := w.HeadObject(ctx, low, redoubt.ReadObject{Name: reports, If: c})
		return err
	}
	now, err := w.HeadObject(ctx, low, redoubt.ReadObject{Name: reports})
	if err != nil {
		t.Fatal(err)
	}
	want(t, read(redoubt.Conditions{IfMatch: []string{"other"}}), redoubt.PreconditionFail)
	want(t, read(redoubt.Conditions{IfNoneMatch: []string{now.ETag}}), redoubt.NotModified)
	want(t, read(redoubt.Conditions{IfModifiedSince: now.Modified}), redoubt.NotModified)
	want(t, read(redoubt.Conditions{IfUnmodifiedSince: now.Modified.Add(-time.Hour)}), redoubt.PreconditionFail)
	if err := read(redoubt.Conditions{IfMatch: []string{now.ETag}, IfUnmodifiedSince: now.Modified.Add(-time.Hour)}); err != nil {
		t.Errorf("If-Match decides before If-Unmodified-Since: %v", err)
	}
}

func TestNamesThatNoClientCouldReadBackAreRefused(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	for key, kind := range map[string]redoubt.Kind{"": redoubt.Invalid, "a\x00b": redoubt.Invalid, "\xff": redoubt.Invalid,
		strings.Repeat("k", redoubt.MaxKeyBytes+1): redoubt.TooLarge} {
		_, err := w.PutObject(context.Background(), s, redoubt.PutObject{Name: named(key), Body: strings.NewReader("")})
		want(t, err, kind)
	}
	w.put(s, strings.Repeat("k", redoubt.MaxKeyBytes), "x", "")
	for _, bucket := range []redoubt.BucketName{redoubt.SystemBucket, "nobody-made-it"} {
		_, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: bucket, Key: "person/officer"}})
		want(t, err, redoubt.NoBucket)
		_, err = w.PutObject(context.Background(), s, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: bucket, Key: "a"}, Body: strings.NewReader("")})
		want(t, err, redoubt.NoBucket)
		_, err = w.ListVersions(context.Background(), s, redoubt.ListVersions{Bucket: bucket, Max: 1})
		want(t, err, redoubt.NoBucket)
	}
	_, err := w.PutObject(context.Background(), s, redoubt.PutObject{Name: reports, Label: "VERY SECRET", Body: strings.NewReader("")})
	want(t, err, redoubt.Invalid)
	_, err = w.PutObject(context.Background(), s, redoubt.PutObject{Name: reports, SizeBytes: redoubt.MaxPutBytes + 1, Body: strings.NewReader("")})
	want(t, err, redoubt.TooLarge)
}

// TestEverythingAtOnce is for the race detector: every operation, on few keys, by people of every label.
func TestEverythingAtOnce(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	people := []redoubt.Credential{w.as("u-analyst", ""), w.as("s-analyst", ""), w.as("ts-analyst", ""), w.as("gbr-liaison", "")}
	officer, admin := w.as("officer", ""), w.as("admin", "")
	var work sync.WaitGroup
	for n, who := range people {
		for lane := range 2 {
			work.Go(func() {
				for i := range 25 {
					key := []string{"a", "b/c", "b/d"}[(i+n+lane)%3]
					body, size := text(key)
					v, err := w.PutObject(ctx, who, redoubt.PutObject{Name: named(key), Body: body, SizeBytes: size})
					if err != nil {
						t.Error(err)
						continue
					}
					if o, err := w.GetObject(ctx, who, redoubt.ReadObject{Name: named(key)}); err == nil {
						if got := content(t, o, 0, -1); got != key && got != strings.Repeat("1", 20) {
							t.Errorf("got %q under %q", got, key)
						}
						o.Close()
					} else if k := redoubt.KindOf(err); k != redoubt.NotFound {
						t.Error(err)
					}
					switch i % 5 {
					case 0:
						err = w.del(who, key, "")
					case 1:
						err = w.del(who, key, v.ID)
					case 2:
						_, err = w.CopyObject(ctx, who, redoubt.CopyObject{Source: named(key), SourceID: v.ID, Target: named("copy")})
					case 3:
						_, err = w.AlterObject(ctx, who, redoubt.AlterObject{Name: named(key), ID: v.ID, Tags: &[]redoubt.Tag{{Key: "k", Value: "v"}}})
					case 4:
						u, list := w.upload(who, key, "", 20)
						_, err = w.complete(who, u, list)
					}
					if err != nil {
						t.Errorf("%d: %v", i%5, err)
					}
					if _, err := w.ListObjects(ctx, who, redoubt.ListObjects{Bucket: "reports", Delimiter: "/", Max: 2}); err != nil {
						t.Error(err)
					}
					if _, err := w.ListVersions(ctx, who, redoubt.ListVersions{Bucket: "reports", Max: 100}); err != nil {
						t.Error(err)
					}
					if _, err := w.ListUploads(ctx, who, redoubt.ListUploads{Bucket: "reports", Max: 100}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	work.Go(func() {
		for range 5 {
			if err := w.Expire(ctx); err != nil {
				t.Error(err)
			}
			if _, err := w.UpdateBucket(ctx, admin, "reports", func(s *redoubt.BucketSettings) error { s.MD5ETag = !s.MD5ETag; return nil }); err != nil {
				t.Error(err)
			}
			w.BucketMD5ETag(ctx, "reports")
			w.BucketCORS(ctx, "reports")
			if _, err := w.Usage(ctx, admin); err != nil {
				t.Error(err)
			}
			if _, err := w.Check(ctx, admin, nil); err != nil {
				t.Error(err)
			}
			if _, err := w.VerifyAudit(ctx, officer, nil); err != nil {
				t.Error(err)
			}
		}
	})
	work.Wait()
	for _, marking := range []string{"UNCLASSIFIED", "SECRET", "TOP SECRET//SI/TK"} {
		w.usage(marking)
	}
	if report, err := w.Check(ctx, admin, nil); err != nil || !report.OK {
		t.Errorf("got %+v, %v", report, err)
	}
}
