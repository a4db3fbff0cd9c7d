package s3

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func TestARequestWithoutACredentialIsDenied(t *testing.T) {
	s := newSite(t, "reports")
	for _, r := range []struct{ method, path string }{{"GET", "/"}, {"GET", "/reports"}, {"GET", "/reports/k"}, {"PUT", "/reports/k"},
		{"DELETE", "/reports/k"}, {"GET", "/never"}, {"PUT", "/reports?website"}, {"PATCH", "/reports"}} {
		a := s.send(s.request(r.method, r.path, nil)).want(t, 403, "AccessDenied")
		if a.header.Get("X-Amz-Request-Id") == "" || a.header.Get("X-Amz-Id-2") == "" {
			t.Error("the answer has no name")
		}
	}
	if len(s.refused) != 8 {
		t.Errorf("got %d refusals recorded, want 8", len(s.refused))
	}
}

func TestASignatureMustCoverWhatIsSent(t *testing.T) {
	s := newSite(t, "reports")
	for name, change := range map[string]struct {
		f    func(*http.Request)
		code string
	}{
		"another path":     {func(r *http.Request) { r.URL.Path = "/reports/other" }, "SignatureDoesNotMatch"},
		"another query":    {func(r *http.Request) { r.URL.RawQuery = "versionId=x" }, "SignatureDoesNotMatch"},
		"another method":   {func(r *http.Request) { r.Method = "GET"; r.Body = nil; r.ContentLength = 0 }, "SignatureDoesNotMatch"},
		"another host":     {func(r *http.Request) { r.Host = "other" }, "SignatureDoesNotMatch"},
		"a label unsigned": {func(r *http.Request) { r.Header.Set("X-Amz-Meta-Redoubt-Label", "SECRET") }, "AccessDenied"},
		"a label changed":  {func(r *http.Request) { r.Header.Set("X-Amz-Meta-Own", "2") }, "SignatureDoesNotMatch"},
		"content changed": {func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("other!!")), 7
		}, "SignatureDoesNotMatch"},
		"hash changed": {func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", hashUnsigned) }, "SignatureDoesNotMatch"},
		"unknown key": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "LOW/", "WHO/", 1))
		}, "InvalidAccessKeyId"},
		"broken signature": {func(r *http.Request) { r.Header.Set("Authorization", r.Header.Get("Authorization")+"0") }, "AuthorizationHeaderMalformed"},
		"another scheme":   {func(r *http.Request) { r.Header.Set("Authorization", "AWS LOW:abc") }, "InvalidRequest"},
		"a session token":  {func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }, "InvalidToken"},
		"two schemes":      {func(r *http.Request) { r.URL.RawQuery = "X-Amz-Signature=x" }, "InvalidArgument"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.sign(s.request("PUT", "/reports/k", []byte("content"), "X-Amz-Meta-Own", "1", "X-Amz-Content-Sha256", ""), "LOW", []byte("content"))
			change.f(r)
			if name == "content changed" {
				s.send(r).want(t, 400, "XAmzContentSHA256Mismatch")
				return
			}
			a := s.send(r)
			if a.code() != change.code {
				t.Errorf("got %d %s, want %s", a.status, a.code(), change.code)
			}
		})
	}
	if n := len(s.versions["reports"]); n != 0 {
		t.Errorf("got %d keys stored, want none", n)
	}
}

func TestOddKeysKeepTheirNames(t *testing.T) {
	s := newSite(t, "reports")
	for _, key := range []string{"a//b", "a/../b", "../b", "/lead", "a/", ".", "..", "a%2Fb", "a+b", "a b", "\u00fc\u4e16", "a?b", "a#b", "a;b=c&d", "%", "~'()*!", "a\\b", "x\ty"} {
		u := (&url.URL{Path: "/reports/" + key}).EscapedPath()
		r := s.request("PUT", "/", []byte("x"))
		r.URL.Path, r.URL.RawPath = "/reports/"+key, u
		s.send(s.sign(r, "LOW", []byte("x"))).want(t, 200, "")
		if s.seen.Name.Key != key {
			t.Errorf("got key %q, want %q", s.seen.Name.Key, key)
		}
	}
	// A client that escapes more than it must, and signs what it wrote.
	r := s.request("PUT", "/", []byte("x"))
	r.URL.Path, r.URL.RawPath = "/reports/a/b(c)", "/reports/a%2Fb(c)"
	s.send(s.sign(r, "LOW", []byte("x"))).want(t, 200, "")
	if s.seen.Name.Key != "a/b(c)" {
		t.Errorf("got key %q", s.seen.Name.Key)
	}
}

func TestAClockMayBeFifteenMinutesOff(t *testing.T) {
	s := newSite(t, "reports")
	base := time.Now()
	for _, c := range []struct {
		off  time.Duration
		code string
	}{{-15 * time.Minute, ""}, {15 * time.Minute, ""}, {-15*time.Minute - time.Second, "RequestTimeTooSkewed"}, {15*time.Minute + time.Second, "RequestTimeTooSkewed"}} {
		s.now = func() time.Time { return base.Truncate(time.Second).Add(c.off) }
		r := s.sign(s.request("GET", "/reports", nil), "LOW", nil)
		s.now = func() time.Time { return base.Truncate(time.Second) }
		if a := s.send(r); a.code() != c.code {
			t.Errorf("%v: got %d %s, want %q", c.off, a.status, a.code(), c.code)
		}
	}
}

func TestTheScopeMustBeOursAndOfTheDay(t *testing.T) {
	s := newSite(t, "reports")
	for _, c := range []struct{ region, service string }{{"eu-west-1", "s3"}, {testRegion, "sts"}} {
		r := s.request("GET", "/reports", nil, "X-Amz-Content-Sha256", hashEmpty)
		creds := aws.Credentials{AccessKeyID: "LOW", SecretAccessKey: s.people["LOW"].secret}
		if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hashEmpty, c.service, c.region, time.Now()); err != nil {
			t.Fatal(err)
		}
		a := s.send(r).want(t, 400, "AuthorizationHeaderMalformed")
		if c.region != testRegion && !strings.Contains(a.body, "<Region>"+testRegion+"</Region>") {
			t.Errorf("the answer does not name the region: %s", a.body)
		}
	}
}

func TestAClientThatWasToldNoRegionIsServed(t *testing.T) {
	s := newSite(t, "reports")
	r := s.request("GET", "/reports", nil, "X-Amz-Content-Sha256", hashEmpty)
	creds := aws.Credentials{AccessKeyID: "LOW", SecretAccessKey: s.people["LOW"].secret}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hashEmpty, "s3", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	s.send(r).want(t, 200, "")
}

// presign signs a URL with the AWS signer.
func (s *site) presign(method, path string, seconds int64, at time.Time) *http.Request {
	r := s.request(method, path, nil)
	q := r.URL.Query()
	q.Set("X-Amz-Expires", strconv.FormatInt(seconds, 10))
	r.URL.RawQuery = q.Encode()
	creds := aws.Credentials{AccessKeyID: "LOW", SecretAccessKey: s.people["LOW"].secret}
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), creds, r, hashUnsigned, "s3", testRegion, at, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err != nil {
		s.t.Fatal(err)
	}
	return s.request(method, strings.TrimPrefix(signed, s.url), nil)
}

func TestAPresignedURLLivesAsLongAsItSays(t *testing.T) {
	s := newSite(t, "reports")
	now := time.Now()
	for _, c := range []struct {
		seconds int64
		age     time.Duration
		status  int
		code    string
	}{
		{1, 0, 200, ""}, {604800, 0, 200, ""}, {0, 0, 400, "AuthorizationQueryParametersError"}, {604801, 0, 400, "AuthorizationQueryParametersError"},
		{60, 59 * time.Second, 200, ""}, {60, 62 * time.Second, 403, "AccessDenied"}, {60, -16 * time.Minute, 403, "AccessDenied"},
	} {
		s.now = func() time.Time { return now }
		s.send(s.presign("GET", "/reports", c.seconds, now.Add(-c.age))).want(t, c.status, c.code)
	}
	r := s.presign("GET", "/reports", 60, now)
	r.Header.Set("X-Amz-Meta-Own", "unsigned")
	s.send(r).want(t, 403, "AccessDenied")
}

func TestALabelInAPresignedQueryIsARequest(t *testing.T) {
	s := newSite(t, "reports")
	r := s.presign("PUT", "/reports/k?x-amz-meta-redoubt-label=SECRET", 60, time.Now())
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
	a := s.send(r).want(t, 200, "")
	if got := a.header.Get(headerLabel); got != "SECRET" {
		t.Errorf("got label %q, want SECRET", got)
	}
}

func TestAPresignedURLThatTheSDKGaveTheChecksumOfNothingTakesContent(t *testing.T) {
	s := newSite(t, "reports")
	for sum, code := range map[string]string{"AAAAAA==": "", "AAAAAQ==": "BadDigest"} {
		r := s.presign("PUT", "/reports/k?x-amz-sdk-checksum-algorithm=CRC32&x-amz-checksum-crc32="+url.QueryEscape(sum), 60, time.Now())
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
		if code != "" {
			s.send(r).want(t, 400, code)
		} else if got := s.send(r).want(t, 200, "").header.Get("X-Amz-Checksum-Crc32"); got != "jNwWgw==" { // of "x", by zlib
			t.Errorf("the content's checksum came back as %q", got)
		}
	}
}

func TestContentThatNothingSignsNeedsTLS(t *testing.T) {
	s := newSiteWith(t, false, nil, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("x"), "X-Amz-Content-Sha256", hashUnsigned).want(t, 403, "AccessDenied")
	s.do("LOW", "GET", "/reports", nil, "X-Amz-Content-Sha256", hashUnsigned).want(t, 200, "")
	open := newSiteWith(t, false, func(o *Options) { o.UnsignedInClear = true }, "reports")
	open.do("LOW", "PUT", "/reports/k", []byte("x"), "X-Amz-Content-Sha256", hashUnsigned).want(t, 200, "")
	secure := newSite(t, "reports")
	secure.do("LOW", "PUT", "/reports/k", []byte("x"), "X-Amz-Content-Sha256", hashUnsigned).want(t, 200, "")
}

func TestVirtualHostsNameTheBucket(t *testing.T) {
	s := newSite(t, "reports", "unclass.reports")
	for _, host := range []string{"reports.s3.test", "REPORTS.S3.TEST:9000", "unclass.reports.s3.test"} {
		r := s.request("PUT", "/k/reports", []byte("x"))
		r.Host = host
		s.send(s.sign(r, "LOW", []byte("x"))).want(t, 200, "")
		want := strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(host, ":9000")), ".s3.test")
		if string(s.seen.Name.Bucket) != want || s.seen.Name.Key != "k/reports" {
			t.Errorf("%s: got %v", host, s.seen.Name)
		}
	}
}

func FuzzSignatureHeader(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AK/20260101/r/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0a", 32))
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c,SignedHeaders=,Signature=")
	f.Fuzz(func(t *testing.T, header string) {
		var g signature
		if g.parseHeader(header) != nil {
			return
		}
		if g.accessKey == "" || len(g.scope.Date) != 8 || len(g.signed) == 0 {
			t.Errorf("accepted %q as %+v", header, g)
		}
		var again signature
		b := []byte(sigAlgorithm + " Credential=" + g.accessKey + "/")
		b = g.appendScope(b)
		b = append(b, ", SignedHeaders="+strings.Join(g.signed, ";")+", Signature="...)
		b = append(b, hexOf(g.given[:])...)
		if again.parseHeader(string(b)) != nil || again.accessKey != g.accessKey || again.scope != g.scope {
			t.Errorf("%q does not come back", header)
		}
	})
}

func FuzzQuery(f *testing.F) {
	f.Add("a=b&c=%20+&d")
	f.Add("%zz&&==")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			return
		}
		want, err := url.ParseQuery(raw)
		if err == nil && len(want) != len(q) {
			t.Errorf("got %v, want %v", q, want)
		}
		for _, p := range q {
			if err == nil && (len(want[p.name]) != 1 || want[p.name][0] != p.value) {
				t.Errorf("got %v, want %v", q, want)
			}
		}
		again, err := parseQuery(string(q.appendCanonical(nil)))
		if err != nil && !strings.Contains(raw, "X-Amz-Signature") && len(raw) < maxQueryBytes/3 {
			t.Errorf("canonical form of %q: %v", raw, err)
		}
		_ = again
	})
}

func hexOf(b []byte) string {
	var out bytes.Buffer
	for _, c := range b {
		out.WriteByte("0123456789abcdef"[c>>4])
		out.WriteByte("0123456789abcdef"[c&15])
	}
	return out.String()
}
