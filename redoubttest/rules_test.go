package redoubttest_test

import (
	"bytes"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/redoubttest"
)

// The rules of reading and writing (RULES section 2), each as a client of the S3 front end meets it.

// at is a credential at work.
type at struct {
	t      *testing.T
	s      *redoubttest.Stack
	minted redoubt.Minted
	bucket string
}

func as(t *testing.T, s *redoubttest.Stack, who redoubt.SubjectName, marking string) at {
	t.Helper()
	return at{t, s, s.MintFor(who, marking, redoubt.MaxCredentialLife), "reports"}
}

func (a at) in(bucket string) at {
	a.bucket = bucket
	return a
}

// do sends a request; header is name, value, name, value.
func (a at) do(method, key, body string, query url.Values, header ...string) redoubttest.Response {
	a.t.Helper()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	a.s.Clock.Add(time.Microsecond) // no two requests at one time: of a label above, a clock below knows nothing
	return a.s.Do(a.minted, redoubttest.Request{Method: method, Bucket: a.bucket, Key: key, Query: query, Header: h, Body: []byte(body)})
}

const labelHeader = "X-Amz-Meta-Redoubt-Label"

// put writes a version that must be taken, and gives its ID.
func (a at) put(key, body, marking string, header ...string) string {
	a.t.Helper()
	if marking != "" {
		header = append(header, labelHeader, marking)
	}
	res := a.do(http.MethodPut, key, body, nil, header...)
	want(a.t, res, http.StatusOK, "")
	return res.Header.Get("X-Amz-Version-Id")
}

// get reads the current version; "" is none.
func (a at) get(key string) string { return a.version(key, "") }

func (a at) version(key, id string) string {
	a.t.Helper()
	res := a.do(http.MethodGet, key, "", versionQuery(id))
	if res.Status == http.StatusNotFound {
		return ""
	}
	want(a.t, res, http.StatusOK, "")
	return string(res.Body)
}

func versionQuery(id string) url.Values {
	if id == "" {
		return nil
	}
	return url.Values{"versionId": {id}}
}

var listedKey = regexp.MustCompile(`<Key>([^<]*)</Key>`)

func (a at) list(query url.Values) (keys []string) {
	a.t.Helper()
	res := a.do(http.MethodGet, "", "", query)
	want(a.t, res, http.StatusOK, "")
	for _, m := range listedKey.FindAllSubmatch(res.Body, -1) {
		keys = append(keys, string(m[1]))
	}
	return keys
}

// want fails the test unless the answer has the status and, for an error, its body names code (an S3 code or part of the message).
func want(t *testing.T, res redoubttest.Response, status int, code string) {
	t.Helper()
	if res.Status != status || !strings.Contains(string(res.Body), code) {
		t.Errorf("got %d %s, want %d %s", res.Status, res.Body, status, code)
	}
}

// 2.1

func TestACredentialReadsExactlyWhatItsWorkingLabelDominates(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	markings := []string{"UNCLASSIFIED", "SECRET//REL TO USA, GBR", "SECRET", "SECRET//NOFORN", "TOP SECRET", "TOP SECRET//SI", "TOP SECRET//SI/TK"}
	writer := as(t, s, "ts-analyst", "UNCLASSIFIED")
	ids := map[string]string{}
	for _, m := range markings {
		ids[m] = writer.put("key of "+m, m, m)
	}
	for _, c := range []struct {
		who, working string
		reads        []string
	}{
		{"u-analyst", "UNCLASSIFIED", markings[:1]},
		{"gbr-liaison", "SECRET//REL TO USA, GBR", markings[:2]},
		{"s-analyst", "SECRET//REL TO USA, GBR", markings[:2]},
		{"s-analyst", "SECRET", markings[:4]},
		{"ts-analyst", "UNCLASSIFIED", markings[:1]},
		{"ts-analyst", "TOP SECRET", markings[:5]},
		{"ts-analyst", "TOP SECRET//SI", markings[:6]},
		{"ts-analyst", "TOP SECRET//SI/TK", markings},
	} {
		reader := as(t, s, redoubt.SubjectName(c.who), c.working)
		var listed []string
		for _, m := range markings {
			want := ""
			if slices.Contains(c.reads, m) {
				want, listed = m, append(listed, "key of "+m)
			}
			if got := reader.get("key of " + m); got != want {
				t.Errorf("%s at %s reads %q of %s, want %q", c.who, c.working, got, m, want)
			}
			if got := reader.version("key of "+m, ids[m]); got != want {
				t.Errorf("%s at %s reads %q of %s by its ID, want %q", c.who, c.working, got, m, want)
			}
		}
		slices.Sort(listed)
		if got := reader.list(nil); !slices.Equal(got, listed) {
			t.Errorf("%s at %s lists %v, want %v", c.who, c.working, got, listed)
		}
	}
}

func TestAVersionIsNotWrittenBelowTheWorkingLabel(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	for _, marking := range []string{"UNCLASSIFIED", "CONFIDENTIAL", "SECRET//REL TO USA, GBR"} {
		want(t, as(t, s, "s-analyst", "SECRET").do(http.MethodPut, "k", "x", nil, labelHeader, marking), http.StatusForbidden, "no-write-down")
	}
	if got := as(t, s, "ts-analyst", "").list(url.Values{"versions": {""}}); len(got) != 0 {
		t.Errorf("a refused write left %v", got)
	}
}

func TestAVersionIsNotWrittenAboveTheClearance(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	want(t, as(t, s, "s-analyst", "").do(http.MethodPut, "k", "x", nil, labelHeader, "TOP SECRET"), http.StatusForbidden, "within-clearance")
	want(t, as(t, s, "gbr-liaison", "").do(http.MethodPut, "k", "x", nil, labelHeader, "SECRET"), http.StatusForbidden, "within-clearance")
}

func TestAWriteUpNeedsItsGrant(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	want(t, as(t, s, "s-analyst", "UNCLASSIFIED").do(http.MethodPut, "k", "x", nil, labelHeader, "SECRET"), http.StatusForbidden, "write-up")
	writer := as(t, s, "ts-analyst", "UNCLASSIFIED")
	id := writer.put("k", "up", "SECRET")
	if got := writer.get("k") + writer.version("k", id); got != "" {
		t.Errorf("who wrote up reads %q back", got)
	}
	if got := as(t, s, "s-analyst", "SECRET").version("k", id); got != "up" {
		t.Errorf("at SECRET it reads %q, want up", got)
	}
}

func TestAVersionLiesInTheRangesOfBucketAndNode(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Name: "secret", Ceiling: "SECRET", Buckets: []redoubt.Bucket{
		{Name: "reports"},
		{Name: "high-only", BucketSettings: redoubt.BucketSettings{Floor: "CONFIDENTIAL"}},
		{Name: "low-only", BucketSettings: redoubt.BucketSettings{Ceiling: "CONFIDENTIAL"}},
	}})
	want(t, as(t, s, "u-analyst", "").in("high-only").do(http.MethodPut, "k", "x", nil), http.StatusForbidden, "bucket")
	want(t, as(t, s, "s-analyst", "").in("low-only").do(http.MethodPut, "k", "x", nil), http.StatusForbidden, "bucket")
	want(t, as(t, s, "ts-analyst", "SECRET").do(http.MethodPut, "k", "x", nil, labelHeader, "TOP SECRET"), http.StatusForbidden, "node")
	as(t, s, "s-analyst", "").in("high-only").put("k", "x", "")
	as(t, s, "u-analyst", "").in("low-only").put("k", "x", "")
}

// 2.2

func TestTheNewestDominatedVersionIsCurrentAndEachStaysReadable(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	u, g, h := as(t, s, "u-analyst", ""), as(t, s, "gbr-liaison", ""), as(t, s, "s-analyst", "")
	first, second, third := h.put("k", "secret", ""), g.put("k", "releasable", ""), u.put("k", "open", "")
	for _, c := range []struct {
		who  at
		want [4]string // current, and by ID
	}{{u, [4]string{"open", "", "", "open"}}, {g, [4]string{"open", "", "releasable", "open"}}, {h, [4]string{"open", "secret", "releasable", "open"}}} {
		got := [4]string{c.who.get("k"), c.who.version("k", first), c.who.version("k", second), c.who.version("k", third)}
		if got != c.want {
			t.Errorf("at %s: got %q, want %q", c.who.minted.Label, got, c.want)
		}
	}
}

func TestABucketMayShowTheHighest(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Buckets: []redoubt.Bucket{{Name: "reports", BucketSettings: redoubt.BucketSettings{Current: "highest"}}}})
	u, h := as(t, s, "u-analyst", ""), as(t, s, "s-analyst", "")
	h.put("k", "secret", "")
	u.put("k", "open", "")
	if got := h.get("k"); got != "secret" {
		t.Errorf("the high reader got %q, want the highest", got)
	}
	if got := u.get("k"); got != "open" {
		t.Errorf("the low reader got %q", got)
	}
}

func TestADeleteMarkerHidesOnlyOlderVersionsThatItDominates(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	u, g, h := as(t, s, "u-analyst", ""), as(t, s, "gbr-liaison", ""), as(t, s, "s-analyst", "")
	state := func() [3]string { return [3]string{u.get("k"), g.get("k"), h.get("k")} }
	expect := func(after string, want [3]string) {
		t.Helper()
		if got := state(); got != want {
			t.Errorf("after %s UNCLASSIFIED, REL TO USA, GBR and SECRET see %q, want %q", after, got, want)
		}
		for i, a := range []at{u, g, h} {
			if listed := len(a.list(nil)) > 0; listed != (want[i] != "") {
				t.Errorf("after %s the list of %s shows %v", after, a.minted.Label, listed)
			}
		}
	}
	h.put("k", "secret", "")
	g.put("k", "releasable", "")
	u.put("k", "open", "")
	expect("the writes", [3]string{"open", "open", "open"})
	want(t, u.do(http.MethodDelete, "k", "", nil), http.StatusNoContent, "")
	expect("the low delete", [3]string{"", "releasable", "releasable"})
	want(t, g.do(http.MethodDelete, "k", "", nil), http.StatusNoContent, "")
	expect("the delete between", [3]string{"", "", "secret"})
	u.put("k", "again", "")
	expect("a newer low write", [3]string{"again", "again", "again"})
	want(t, h.do(http.MethodDelete, "k", "", nil), http.StatusNoContent, "")
	expect("the high delete", [3]string{"again", "again", ""})
	g.put("k", "newer", "")
	expect("a write that is newer than the high delete", [3]string{"again", "newer", "newer"})
}

// 2.3

func TestAlteringNeedsTheWorkingLabelThatAVersionWasMadeAt(t *testing.T) {
	lock := []redoubt.Bucket{{Name: "reports", BucketSettings: redoubt.BucketSettings{Lock: redoubt.LockSettings{Enabled: true}}}}
	s := redoubttest.New(t, redoubttest.Options{Buckets: lock})
	owner, high, low := as(t, s, "s-analyst", "SECRET"), as(t, s, "ts-analyst", "TOP SECRET"), as(t, s, "u-analyst", "")
	same := as(t, s, "ts-analyst", "SECRET//NOFORN") // the same point of the order
	id := owner.put("k", "x", "")
	bypass := redoubt.Grant{Subject: "ts-analyst", Bucket: "reports", Actions: []redoubt.Action{redoubt.ActionBypassLock}}
	if _, err := s.Grant(t.Context(), s.As(as(t, s, "officer", "").minted), bypass); err != nil {
		t.Fatal(err)
	}
	until := s.Clock.Now().Add(time.Hour).Format(time.RFC3339)
	alterations := []struct{ method, sub, body string }{
		{http.MethodPut, "tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"},
		{http.MethodDelete, "tagging", ""},
		{http.MethodPut, "retention", "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>" + until + "</RetainUntilDate></Retention>"},
		{http.MethodPut, "legal-hold", "<LegalHold><Status>OFF</Status></LegalHold>"},
		{http.MethodDelete, "", ""},
	}
	for _, a := range alterations {
		q := url.Values{"versionId": {id}}
		if a.sub != "" {
			q.Set(a.sub, "")
		}
		want(t, high.do(a.method, "k", a.body, q), http.StatusForbidden, "same-working-label")
		if res := low.do(a.method, "k", a.body, q); res.Status != http.StatusNotFound && !(a.sub == "" && res.Status == http.StatusNoContent) {
			t.Errorf("%s %s: the low one got %d %s", a.method, a.sub, res.Status, res.Body)
		}
		header := []string{"X-Amz-Bypass-Governance-Retention", "true"}
		if res := same.do(a.method, "k", a.body, q, header...); res.Status/100 != 2 {
			t.Errorf("%s %s at the same point of the order: %d %s", a.method, a.sub, res.Status, res.Body)
		}
	}
	if got := owner.version("k", id); got != "" {
		t.Errorf("the version that was removed reads %q", got)
	}
}

func TestRetentionForbidsRemovingButNotWriting(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Buckets: []redoubt.Bucket{{Name: "reports", BucketSettings: redoubt.BucketSettings{Lock: redoubt.LockSettings{Enabled: true}}}}})
	u := as(t, s, "u-analyst", "")
	until := s.Clock.Now().Add(time.Hour).Format(time.RFC3339)
	kept := u.put("k", "kept", "", "X-Amz-Object-Lock-Mode", "COMPLIANCE", "X-Amz-Object-Lock-Retain-Until-Date", until)
	want(t, u.do(http.MethodDelete, "k", "", versionQuery(kept), "X-Amz-Bypass-Governance-Retention", "true"), http.StatusForbidden, "object lock")
	u.put("k", "newer", "")
	want(t, u.do(http.MethodDelete, "k", "", nil), http.StatusNoContent, "")
	if got := u.version("k", kept); got != "kept" {
		t.Errorf("got %q, want kept", got)
	}
	held := u.put("held", "held", "", "X-Amz-Object-Lock-Legal-Hold", "ON")
	want(t, u.do(http.MethodDelete, "held", "", versionQuery(held)), http.StatusForbidden, "object lock")
	s.Clock.Add(2 * time.Hour)
	want(t, u.do(http.MethodDelete, "k", "", versionQuery(kept)), http.StatusNoContent, "")
	want(t, u.do(http.MethodDelete, "held", "", versionQuery(held)), http.StatusForbidden, "object lock")
}

// TestGovernanceIsBypassedByRight: by the storage role, or by whom a bucket policy or an officer names for it.
func TestGovernanceIsBypassedByRight(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Buckets: []redoubt.Bucket{{Name: "reports", BucketSettings: redoubt.BucketSettings{Lock: redoubt.LockSettings{Enabled: true}}}}})
	u, admin := as(t, s, "u-analyst", ""), as(t, s, "admin", "")
	until := s.Clock.Now().Add(time.Hour).Format(time.RFC3339)
	keep := func(key string) string {
		return u.put(key, "kept", "", "X-Amz-Object-Lock-Mode", "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date", until)
	}
	policy := func(action string) {
		doc := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"u-analyst"},"Action":"` + action + `","Resource":"arn:aws:s3:::reports/free/*"}]}`
		want(t, admin.do(http.MethodPut, "", doc, url.Values{"policy": {""}}), http.StatusNoContent, "")
	}
	remove := func(a at, key, id string) redoubttest.Response {
		return a.do(http.MethodDelete, key, "", versionQuery(id), "X-Amz-Bypass-Governance-Retention", "true")
	}
	first, second, third := keep("free/a"), keep("free/b"), keep("other")
	want(t, remove(u, "free/a", first), http.StatusForbidden, "<Code>AccessDenied</Code><Message>Access Denied: bypass-governance-right")
	many := u.do(http.MethodPost, "", "<Delete><Object><Key>free/a</Key><VersionId>"+first+"</VersionId></Object></Delete>", url.Values{"delete": {""}},
		"X-Amz-Bypass-Governance-Retention", "true")
	want(t, many, http.StatusOK, "<Code>AccessDenied</Code><Message>Access Denied: bypass-governance-right")
	lift := func(a at) redoubttest.Response {
		return a.do(http.MethodPut, "free/b", "<Retention/>", url.Values{"retention": {""}, "versionId": {second}}, "X-Amz-Bypass-Governance-Retention", "True") // as boto3 writes it
	}
	want(t, lift(u), http.StatusForbidden, "bypass-governance-right")
	policy("s3:*")
	want(t, remove(u, "free/a", first), http.StatusForbidden, "bypass-governance-right")
	policy("s3:BypassGovernanceRetention")
	want(t, remove(u, "other", third), http.StatusForbidden, "bypass-governance-right")
	want(t, u.do(http.MethodDelete, "free/a", "", versionQuery(first)), http.StatusForbidden, "object lock") // the right, and not asked for
	want(t, remove(u, "free/a", first), http.StatusNoContent, "")
	want(t, lift(u), http.StatusOK, "")
	want(t, remove(admin, "other", third), http.StatusNoContent, "")
}

func TestConditionsSeeOnlyWhatIsDominated(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	u, h := as(t, s, "u-analyst", ""), as(t, s, "s-analyst", "")
	high := h.do(http.MethodPut, "k", "secret", nil)
	want(t, u.do(http.MethodPut, "k", "x", nil, "If-Match", high.Header.Get("Etag")), http.StatusNotFound, "")
	want(t, u.do(http.MethodDelete, "k", "", nil, "If-Match", high.Header.Get("Etag")), http.StatusNotFound, "")
	res := u.do(http.MethodPut, "k", "open", nil, "If-None-Match", "*")
	want(t, res, http.StatusOK, "")
	want(t, h.do(http.MethodPut, "k", "x", nil, "If-Match", high.Header.Get("Etag")), http.StatusPreconditionFailed, "")
	want(t, h.do(http.MethodPut, "k", "x", nil, "If-Match", res.Header.Get("Etag")), http.StatusOK, "")
	want(t, u.do(http.MethodPut, "k", "x", nil, "If-Match", res.Header.Get("Etag")), http.StatusOK, "")
}

func TestAnUploadExistsOnlyAtTheWorkingLabelThatBeganIt(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	begun := as(t, s, "ts-analyst", "SECRET")
	res := begun.do(http.MethodPost, "k", "", url.Values{"uploads": {""}}, labelHeader, "TOP SECRET")
	want(t, res, http.StatusOK, "<UploadId>")
	id := uploadPattern.FindStringSubmatch(string(res.Body))[2]
	part := begun.do(http.MethodPut, "k", "content", url.Values{"uploadId": {id}, "partNumber": {"1"}})
	want(t, part, http.StatusOK, "")
	complete := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.Header.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"
	never := strings.Repeat("a", 26)
	for _, other := range []at{as(t, s, "ts-analyst", "TOP SECRET//SI/TK"), as(t, s, "ts-analyst", "TOP SECRET"), as(t, s, "ts-analyst", "UNCLASSIFIED"), as(t, s, "gbr-liaison", "")} {
		for _, c := range []struct{ method, number, body string }{
			{http.MethodPut, "2", "x"}, {http.MethodGet, "", ""}, {http.MethodPost, "", complete}, {http.MethodDelete, "", ""},
		} {
			ask := func(id string) redoubttest.Response {
				q := url.Values{"uploadId": {id}}
				if c.number != "" {
					q.Set("partNumber", c.number)
				}
				return other.do(c.method, "k", c.body, q)
			}
			got, unknown := ask(id), ask(never)
			want(t, got, http.StatusNotFound, "NoSuchUpload")
			if !bytes.Equal(got.Body, unknown.Body) {
				t.Errorf("%s at %s: the answer\n%s\ndiffers from that for an upload that never was\n%s", c.method, other.minted.Label, got.Body, unknown.Body)
			}
		}
		if uploads := uploadPattern.FindAllString(string(other.do(http.MethodGet, "", "", url.Values{"uploads": {""}}).Body), -1); len(uploads) != 0 {
			t.Errorf("at %s the uploads are %v", other.minted.Label, uploads)
		}
	}
	// Another subject at the same working label goes on with it; the version has the label that was asked for.
	colleague := as(t, s, "s-analyst", "SECRET")
	if uploads := uploadPattern.FindAllString(string(colleague.do(http.MethodGet, "", "", url.Values{"uploads": {""}}).Body), -1); len(uploads) != 1 {
		t.Errorf("a colleague at the same working label sees %v", uploads)
	}
	want(t, begun.do(http.MethodPost, "k", complete, url.Values{"uploadId": {id}}), http.StatusOK, "")
	if got := begun.get("k"); got != "" {
		t.Errorf("below its label it reads %q", got)
	}
	if got := as(t, s, "ts-analyst", "TOP SECRET").get("k"); got != "content" {
		t.Errorf("at its label it reads %q", got)
	}
}

// 2.4

func TestACopyIsAtLeastTheJoinOfItsSources(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Buckets: []redoubt.Bucket{{Name: "reports"}, {Name: "topped", BucketSettings: redoubt.BucketSettings{Default: "TOP SECRET"}}}})
	u, g, h, ts := as(t, s, "u-analyst", ""), as(t, s, "gbr-liaison", ""), as(t, s, "s-analyst", ""), as(t, s, "ts-analyst", "TOP SECRET")
	u.put("open", "open", "")
	g.put("releasable", "releasable", "")
	h.put("secret", "secret", "")
	for _, c := range []struct {
		name   string
		who    at
		source string
		header []string
		status int
		label  string
	}{
		{"at its own label", u, "open", nil, http.StatusOK, "UNCLASSIFIED"},
		{"read from below: the working label", h, "open", nil, http.StatusOK, "SECRET"},
		{"of something releasable, by who is not working so", h, "releasable", nil, http.StatusOK, "SECRET"},
		{"into a bucket with a default", as(t, s, "ts-analyst", "SECRET").in("topped"), "open", nil, http.StatusOK, "TOP SECRET"},
		{"asked for below the bucket's default", as(t, s, "ts-analyst", "SECRET").in("topped"), "secret", []string{labelHeader, "SECRET", "X-Amz-Metadata-Directive", "REPLACE"}, http.StatusForbidden, ""},
		{"the source's own label repeated is no request", h, "open", []string{labelHeader, "UNCLASSIFIED"}, http.StatusOK, "SECRET"},
		{"asked for below the join", h, "secret", []string{labelHeader, "UNCLASSIFIED"}, http.StatusForbidden, ""},
		{"asked for below the join, with new attributes", h, "open", []string{labelHeader, "UNCLASSIFIED", "X-Amz-Metadata-Directive", "REPLACE"}, http.StatusForbidden, ""},
		{"asked for above it", ts, "secret", []string{labelHeader, "TOP SECRET//SI", "X-Amz-Metadata-Directive", "REPLACE"}, http.StatusForbidden, ""},
		{"of what is not dominated", u, "secret", nil, http.StatusNotFound, ""},
	} {
		if c.name == "asked for above it" { // the grant write-up is ts-analyst's: it is allowed
			c.status, c.label = http.StatusOK, "TOP SECRET//SI"
		}
		res := c.who.do(http.MethodPut, "copy of "+c.source, "", nil, append(c.header, "X-Amz-Copy-Source", "reports/"+c.source)...)
		if res.Status != c.status || res.Header.Get(labelHeader) != c.label {
			t.Errorf("%s: got %d %q, want %d %q (%s)", c.name, res.Status, res.Header.Get(labelHeader), c.status, c.label, res.Body)
		}
	}
}

func TestACopiedPartMayNotComeFromAboveTheUpload(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	h := as(t, s, "s-analyst", "SECRET")
	as(t, s, "u-analyst", "").put("open", "open", "")
	h.put("secret", "secret", "")
	begin := func(a at) url.Values {
		m := uploadPattern.FindStringSubmatch(string(a.do(http.MethodPost, "k", "", url.Values{"uploads": {""}}).Body))
		return url.Values{"uploadId": {m[2]}, "partNumber": {"1"}}
	}
	want(t, h.do(http.MethodPut, "k", "", begin(h), "X-Amz-Copy-Source", "reports/open"), http.StatusOK, "ETag")
	u := as(t, s, "s-analyst", "UNCLASSIFIED")
	want(t, u.do(http.MethodPut, "k", "", begin(u), "X-Amz-Copy-Source", "reports/secret"), http.StatusNotFound, "")
}

// 2.5

func TestOnlyTheStorageRoleAtTheFloorMakesAndRemovesBuckets(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{People: []redoubt.Person{
		{Name: "s-storage", Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleStorage, redoubt.RoleWriteUp}}}})
	above := as(t, s, "s-storage", "SECRET").in("fresh")
	want(t, above.do(http.MethodPut, "", "", nil), http.StatusForbidden, "no-write-down")
	want(t, above.in("reports").do(http.MethodDelete, "", "", nil), http.StatusForbidden, "no-write-down")
	want(t, above.in("reports").do(http.MethodPut, "", "<Tagging><TagSet></TagSet></Tagging>", url.Values{"tagging": {""}}), http.StatusForbidden, "no-write-down")
	for _, who := range []redoubt.SubjectName{"u-analyst", "s-analyst", "ts-analyst", "officer", "u-officer"} {
		a := as(t, s, who, "").in("fresh")
		want(t, a.do(http.MethodPut, "", "", nil), http.StatusForbidden, "AccessDenied")
		want(t, a.in("reports").do(http.MethodDelete, "", "", nil), http.StatusForbidden, "AccessDenied")
	}
	admin := as(t, s, "admin", "").in("fresh")
	want(t, admin.do(http.MethodPut, "", "", nil), http.StatusOK, "")
	for _, who := range []redoubt.SubjectName{"u-analyst", "ts-analyst", "gbr-liaison"} {
		want(t, as(t, s, who, "").in("").do(http.MethodGet, "", "", nil), http.StatusOK, "<Name>fresh</Name>")
	}
	want(t, admin.do(http.MethodDelete, "", "", nil), http.StatusNoContent, "")
}

func TestARemovedBucketStaysReadableToThoseWhoHaveSomethingInIt(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	admin, u, h := as(t, s, "admin", ""), as(t, s, "u-analyst", ""), as(t, s, "s-analyst", "")
	id := h.put("k", "secret", "")
	low := u.put("low", "open", "")
	want(t, admin.do(http.MethodDelete, "", "", nil), http.StatusConflict, "BucketNotEmpty")
	want(t, u.do(http.MethodDelete, "low", "", versionQuery(low)), http.StatusNoContent, "")
	want(t, admin.do(http.MethodDelete, "", "", nil), http.StatusNoContent, "")
	if got := h.get("k") + h.version("k", id) + strings.Join(h.list(nil), ","); got != "secretsecretk" {
		t.Errorf("the high reader finds %q in the removed bucket", got)
	}
	want(t, h.do(http.MethodPut, "more", "x", nil), http.StatusNotFound, "NoSuchBucket")
	never := u.in("never-was")
	for _, c := range []struct {
		method, key string
		query       url.Values
	}{{http.MethodGet, "k", nil}, {http.MethodGet, "k", versionQuery(id)}, {http.MethodGet, "", nil}, {http.MethodGet, "", url.Values{"versions": {""}}},
		{http.MethodPut, "k", nil}, {http.MethodDelete, "k", nil}, {http.MethodHead, "k", nil}, {http.MethodHead, "", nil}} {
		got, unknown := u.do(c.method, c.key, "", c.query), never.do(c.method, c.key, "", c.query)
		body := strings.ReplaceAll(string(unknown.Body), "never-was", "reports")
		if got.Status != unknown.Status || string(got.Body) != body {
			t.Errorf("%s %s %v: the removed bucket answers %d %s\nand one that never was %d %s", c.method, c.key, c.query, got.Status, got.Body, unknown.Status, body)
		}
	}
	want(t, admin.do(http.MethodPut, "", "", nil), http.StatusOK, "")
	if got := len(u.list(url.Values{"versions": {""}})); got != 0 {
		t.Errorf("made anew, the bucket shows the low reader %d versions", got)
	}
	if got := h.get("k"); got != "secret" {
		t.Errorf("made anew, the bucket shows the high reader %q", got)
	}
}

func TestNamesWithADotAreReserved(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	admin := as(t, s, "admin", "")
	for _, name := range []string{"secret.reports", "a.b"} {
		if res := admin.in(name).do(http.MethodPut, "", "", nil); res.Status/100 == 2 {
			t.Errorf("%s was made", name)
		}
		if _, err := s.CreateBucket(t.Context(), s.As(admin.minted), redoubt.BucketName(name), redoubt.BucketSettings{}); err == nil {
			t.Errorf("%s was made by the service", name)
		}
	}
	for _, who := range []redoubt.SubjectName{"admin", "officer", "ts-analyst"} {
		a := as(t, s, who, "").in(".system")
		for _, res := range []redoubttest.Response{a.do(http.MethodGet, "", "", nil), a.do(http.MethodGet, "bucket/reports", "", nil), a.do(http.MethodPut, "k", "x", nil), a.do(http.MethodDelete, "", "", nil)} {
			if res.Status/100 == 2 {
				t.Errorf("%s reached the node's own records: %d %s", who, res.Status, res.Body)
			}
		}
		if strings.Contains(string(a.in("").do(http.MethodGet, "", "", nil).Body), ".system") {
			t.Errorf("%s is shown the reserved bucket", who)
		}
	}
}

// 2.6 and 2.7

func TestALabelIsRaisedByACopyAndTheErasureOfTheOld(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	u, h, officer := as(t, s, "u-analyst", ""), as(t, s, "s-analyst", ""), as(t, s, "officer", "")
	old := u.put("k", "turned out secret", "")
	want(t, h.do(http.MethodPut, "k", "", nil, "X-Amz-Copy-Source", "reports/k", "X-Amz-Metadata-Directive", "REPLACE"), http.StatusOK, "")
	if err := s.EraseVersion(t.Context(), s.As(officer.minted), redoubt.ObjectName{Bucket: "reports", Key: "k"}, redoubt.VersionID(old), "upgrade"); err != nil {
		t.Fatal(err)
	}
	if got := u.get("k") + u.version("k", old) + strings.Join(u.list(url.Values{"versions": {""}}), ","); got != "" {
		t.Errorf("the low reader still finds %q", got)
	}
	if got := h.get("k"); got != "turned out secret" {
		t.Errorf("the high reader got %q", got)
	}
}

func TestASpillIsErasedInSpiteOfRetentionAndOnTheRecord(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Buckets: []redoubt.Bucket{{Name: "reports", BucketSettings: redoubt.BucketSettings{Lock: redoubt.LockSettings{Enabled: true}}}}})
	h, officer := as(t, s, "s-analyst", ""), as(t, s, "officer", "")
	until := s.Clock.Now().Add(time.Hour).Format(time.RFC3339)
	id := h.put("k", "spilt", "", "X-Amz-Object-Lock-Mode", "COMPLIANCE", "X-Amz-Object-Lock-Retain-Until-Date", until, "X-Amz-Object-Lock-Legal-Hold", "ON")
	name := redoubt.ObjectName{Bucket: "reports", Key: "k"}
	for _, who := range []at{h, as(t, s, "admin", ""), as(t, s, "ts-analyst", ""), as(t, s, "u-officer", "")} {
		if err := s.EraseVersion(t.Context(), s.As(who.minted), name, redoubt.VersionID(id), "no"); err == nil {
			t.Errorf("%s erased it", who.minted.Label)
		}
	}
	if got := h.version("k", id); got != "spilt" {
		t.Fatalf("got %q before the erasure", got)
	}
	if err := s.EraseVersion(t.Context(), s.As(officer.minted), name, redoubt.VersionID(id), "spill 17"); err != nil {
		t.Fatal(err)
	}
	if got := h.version("k", id); got != "" {
		t.Errorf("after the erasure it reads %q", got)
	}
	var erasures []redoubt.AuditRecord
	err := s.SearchAudit(t.Context(), s.As(officer.minted), redoubt.AuditQuery{Action: redoubt.ActionErase, Object: name, Subject: "officer"}, func(r redoubt.AuditRecord) error {
		erasures = append(erasures, r)
		return nil
	})
	if err != nil || len(erasures) == 0 || erasures[0].Subject != "officer" || erasures[0].Detail != "spill 17" {
		t.Errorf("the log says %+v (%v)", erasures, err)
	}
}

// Need to know

func TestWithoutNeedToKnowAnObjectAnswersLikeANameNeverUsed(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Buckets: []redoubt.Bucket{{Name: "reports", BucketSettings: redoubt.BucketSettings{Closed: true}}}})
	officer := as(t, s, "officer", "")
	grant := func(g redoubt.Grant) redoubt.Grant {
		t.Helper()
		g.Bucket = "reports"
		made, err := s.Grant(t.Context(), s.As(officer.minted), g)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	grant(redoubt.Grant{Subject: "ts-analyst"})
	mine := grant(redoubt.Grant{Subject: "s-analyst", Prefix: "mine/"})
	insider, outsider := as(t, s, "ts-analyst", "SECRET"), as(t, s, "s-analyst", "SECRET")
	id := insider.put("theirs/there", "x", "")
	insider.put("mine/there", "mine", "")
	if got := outsider.get("mine/there"); got != "mine" {
		t.Errorf("with need to know: got %q", got)
	}
	for _, c := range []struct {
		method string
		query  url.Values
		header []string
	}{
		{http.MethodGet, nil, nil}, {http.MethodHead, nil, nil}, {http.MethodGet, versionQuery(id), nil}, {http.MethodGet, url.Values{"tagging": {""}}, nil},
		{http.MethodPut, nil, nil}, {http.MethodPut, nil, []string{"If-None-Match", "*"}}, {http.MethodPut, nil, []string{"If-Match", "*"}},
		{http.MethodDelete, nil, nil}, {http.MethodDelete, versionQuery(id), nil}, {http.MethodGet, nil, []string{"If-None-Match", "*"}},
		{http.MethodPost, url.Values{"uploads": {""}}, nil},
	} {
		there, never := outsider.do(c.method, "theirs/there", "", c.query, c.header...), outsider.do(c.method, "theirs/never", "", c.query, c.header...)
		body := strings.ReplaceAll(string(never.Body), "theirs/never", "theirs/there")
		if there.Status != never.Status || string(there.Body) != body || there.Status == http.StatusOK {
			t.Errorf("%s %v %v: what is there answers %d %s\nand a name never used %d %s", c.method, c.query, c.header, there.Status, there.Body, never.Status, body)
		}
	}
	for _, q := range []url.Values{nil, {"versions": {""}}, {"list-type": {"2"}}} {
		if got := outsider.list(q); !slices.Equal(got, []string{"mine/there"}) {
			t.Errorf("the list %v shows %v", q, got)
		}
	}
	if got := outsider.list(url.Values{"prefix": {"theirs/"}}); len(got) != 0 {
		t.Errorf("under the other prefix the list shows %v", got)
	}
	want(t, as(t, s, "u-analyst", "").do(http.MethodGet, "", "", nil), http.StatusForbidden, "need-to-know")
	denied := grant(redoubt.Grant{Subject: "s-analyst", Prefix: "mine/there", Deny: true})
	if got := outsider.get("mine/there") + strings.Join(outsider.list(nil), ","); got != "" {
		t.Errorf("in spite of a grant that denies: got %q", got)
	}
	if err := s.RevokeGrant(t.Context(), s.As(officer.minted), denied.ID); err != nil {
		t.Fatal(err)
	}
	if got := outsider.get("mine/there"); got != "mine" {
		t.Errorf("after the denial was revoked: got %q", got)
	}
	if err := s.RevokeGrant(t.Context(), s.As(officer.minted), mine.ID); err != nil {
		t.Fatal(err)
	}
	if got := outsider.get("mine/there"); got != "" {
		t.Errorf("after the grant was revoked: got %q", got)
	}
}

// TestALabelThatNothingCarriesIsErased: that there was nothing is no error, and not to be told apart from that there was something.
func TestALabelThatNothingCarriesIsErased(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{})
	u, officer := as(t, s, "u-analyst", ""), as(t, s, "officer", "")
	u.put("k", "kept", "")
	now := s.Clock.Now()
	c := redoubt.Change{Kind: redoubt.ChangeEraseLabel, Node: "topsecret", Label: "TOP SECRET", Reason: "spill", Made: now, Expires: now.Add(time.Hour)}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{s.Sign("officer", c), s.Sign("officer-2", c)}
	if got, err := s.ProposeChange(t.Context(), s.As(officer.minted), c); err != nil || got.State != "in effect" {
		t.Errorf("got %q, %v", got.State, err)
	}
	if got := u.get("k"); got != "kept" {
		t.Errorf("another label's version reads %q", got)
	}
}
