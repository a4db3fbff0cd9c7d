package s3

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"redoubt"
)

func TestBucketSettingsInHeadersAndJSON(t *testing.T) {
	s := newSite(t)
	s.do("LOW", "PUT", "/reports", nil, "X-Amz-Redoubt-Default-Label", "SECRET", "X-Amz-Redoubt-Floor", "UNCLASSIFIED", "X-Amz-Redoubt-Ceiling", "SECRET",
		"X-Amz-Redoubt-Current", "highest", "X-Amz-Redoubt-Etag", "md5").want(t, 200, "")
	b := s.buckets["reports"]
	if b.Default != "SECRET" || b.Floor != "UNCLASSIFIED" || b.Ceiling != "SECRET" || b.Current != "highest" || !b.MD5ETag {
		t.Errorf("got %+v", b)
	}
	a := s.do("LOW", "GET", "/reports?redoubt", nil).want(t, 200, "")
	if a.body != `{"default":"SECRET","floor":"UNCLASSIFIED","ceiling":"SECRET","current":"highest","etag":"md5","closed":false,"read_only":false}` {
		t.Errorf("got %s", a.body)
	}
	s.do("LOW", "PUT", "/reports?redoubt", []byte(strings.Replace(a.body, "highest", "newest", 1))).want(t, 200, "")
	if b.Current != "newest" || b.Default != "SECRET" {
		t.Errorf("got %+v", b)
	}
	for _, body := range []string{`{"default":"SECRET","default":""}`, `{"unknown":1}`, `{} {}`, `[]`, ``, `{"current":"oldest"}`, `{"etag":"sha"}`, `{"read_only":true}`} {
		if a := s.do("LOW", "PUT", "/reports?redoubt", []byte(body)); a.status != 400 {
			t.Errorf("%s: got %d", body, a.status)
		}
	}
	s.do("LOW", "PUT", "/other", nil, "X-Amz-Redoubt-Defualt-Label", "SECRET").want(t, 400, "InvalidArgument")
	s.do("LOW", "PUT", "/other", []byte("<CreateBucketConfiguration><LocationConstraint>elsewhere</LocationConstraint></CreateBucketConfiguration>")).want(t, 400, "InvalidLocationConstraint")
	s.do("LOW", "PUT", "/other", []byte("<CreateBucketConfiguration><LocationConstraint>"+testRegion+"</LocationConstraint></CreateBucketConfiguration>")).want(t, 200, "")
	if a := s.do("LOW", "GET", "/reports?location", nil); !strings.Contains(a.body, ">"+testRegion+"</LocationConstraint>") {
		t.Errorf("got %s", a.body)
	}
	if a := s.do("LOW", "HEAD", "/reports", nil); a.header.Get("X-Amz-Bucket-Region") != testRegion {
		t.Errorf("got %v", a.header)
	}
	if a := s.do("LOW", "GET", "/?max-buckets=1", nil); !strings.Contains(a.body, "<Name>other</Name>") || strings.Contains(a.body, "<Name>reports</Name>") || !strings.Contains(a.body, "<ContinuationToken>") {
		t.Errorf("got %s", a.body)
	}
	s.do("LOW", "DELETE", "/other", nil).want(t, 204, "")
	s.do("LOW", "HEAD", "/other", nil).want(t, 404, "")
}

func TestHarmlessReadsAnswerAsS3(t *testing.T) {
	s := newSite(t, "reports")
	for path, want := range map[string]string{
		"?versioning": "<Status>Enabled</Status>", "?encryption": "<SSEAlgorithm>AES256</SSEAlgorithm>", "?acl": "<Permission>FULL_CONTROL</Permission>",
		"?requestPayment": "<Payer>BucketOwner</Payer>", "?logging": "<BucketLoggingStatus", "?notification": "<NotificationConfiguration", "?accelerate": "<AccelerateConfiguration",
	} {
		if a := s.do("LOW", "GET", "/reports"+path, nil).want(t, 200, ""); !strings.Contains(a.body, want) {
			t.Errorf("%s: got %s", path, a.body)
		}
		s.do("LOW", "GET", "/never"+path, nil).want(t, 404, "NoSuchBucket")
	}
	for path, code := range map[string]string{"?ownershipControls": "OwnershipControlsNotFoundError", "?publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
		"?replication": "ReplicationConfigurationNotFoundError", "?website": "NoSuchWebsiteConfiguration", "?policy": "NoSuchBucketPolicy", "?policyStatus": "NoSuchBucketPolicy",
		"?cors": "NoSuchCORSConfiguration", "?lifecycle": "NoSuchLifecycleConfiguration", "?tagging": "NoSuchTagSet", "?object-lock": "ObjectLockConfigurationNotFoundError"} {
		s.do("LOW", "GET", "/reports"+path, nil).want(t, 404, code)
	}
	s.do("LOW", "PUT", "/reports?acl", nil, "X-Amz-Acl", "private").want(t, 200, "")
	s.do("LOW", "PUT", "/reports?acl", []byte("<AccessControlPolicy/>")).want(t, 501, "NotImplemented")
	enc := "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>%s</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
	s.do("LOW", "PUT", "/reports?encryption", fmt.Appendf(nil, enc, "AES256")).want(t, 200, "")
	s.do("LOW", "PUT", "/reports?encryption", fmt.Appendf(nil, enc, "aws:kms")).want(t, 501, "NotImplemented")
	s.do("LOW", "PUT", "/reports?versioning", []byte("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")).want(t, 200, "")
}

func TestAPolicyThatCannotBeMappedIsRefusedByName(t *testing.T) {
	s := newSite(t, "reports")
	statement := func(fields string) []byte {
		return []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",` + fields + `}]}`)
	}
	base := `"Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/*"`
	for fields, name := range map[string]string{
		base + `,"Condition":{}`:                                                  "Condition",
		base + `,"NotPrincipal":"*"`:                                              "NotPrincipal",
		`"NotAction":"s3:*","Resource":"arn:aws:s3:::reports/*"`:                  "NotAction",
		`"Action":"s3:GetObject","NotResource":"arn:aws:s3:::reports/*"`:          "NotResource",
		`"Action":"s3:PutBucketPolicy","Resource":"arn:aws:s3:::reports"`:         "s3:PutBucketPolicy",
		`"Action":"s3:Get*","Resource":"arn:aws:s3:::reports/*"`:                  "s3:Get*",
		`"Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/a"`:             "trailing *",
		`"Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/a*b*"`:          "wildcard",
		`"Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/${aws:user}/*"`: "variable",
	} {
		if a := s.do("LOW", "PUT", "/reports?policy", statement(fields)).want(t, 501, "NotImplemented"); !strings.Contains(a.body, name) {
			t.Errorf("%s is not named: %s", name, a.body)
		}
	}
	for _, fields := range []string{
		`"Action":"s3:GetObject","Resource":"arn:aws:s3:::other/*"`, `"Action":"s3:GetObject","Resource":"arn:aws:s3:::reports"`,
		`"Action":"s3:ListBucket","Resource":"arn:aws:s3:::reports/*"`, base + `,"Unknown":1`, `"Action":"s3:GetObject"`, base + `,` + base,
	} {
		s.do("LOW", "PUT", "/reports?policy", statement(fields)).want(t, 400, "MalformedPolicy")
	}
	ok := statement(`"Action":["s3:*"],"Resource":["arn:aws:s3:::reports","arn:aws:s3:::reports/a/*"]`)
	s.do("LOW", "PUT", "/reports?policy", append(ok, bytes.Repeat([]byte(" "), maxPolicyBytes-len(ok))...)).want(t, 204, "")
	s.do("LOW", "PUT", "/reports?policy", append(ok, bytes.Repeat([]byte(" "), maxPolicyBytes-len(ok)+1)...)).want(t, 400, "MalformedPolicy")
	if g := s.buckets["reports"].Grants; len(g) != 2 || g[0].Prefix != "" || g[1].Prefix != "a/" || g[0].Actions != nil {
		t.Errorf("got %+v", g)
	}
	s.do("LOW", "PUT", "/reports?policy", statement(`"Action":"s3:BypassGovernanceRetention","Resource":"arn:aws:s3:::reports/*"`)).want(t, 204, "")
	if g := s.buckets["reports"].Grants; len(g) != 1 || !slices.Equal(g[0].Actions, []redoubt.Action{redoubt.ActionBypassLock}) {
		t.Errorf("got %+v", g)
	}
	s.do("LOW", "DELETE", "/reports?policy", nil).want(t, 204, "")
	if b := s.buckets["reports"]; b.Policy != "" || b.Grants != nil {
		t.Errorf("got %+v", b)
	}
}

func TestCORS(t *testing.T) {
	s := newSite(t, "reports")
	s.buckets["reports"].CORS = []redoubt.CORSRule{{Origins: []string{"https://*.example"}, Methods: []string{"GET", "PUT"}, Headers: []string{"x-amz-*"}, Expose: []string{"ETag"}, MaxAgeSeconds: 60}}
	ask := func(bucket, origin, method, headers string) answer {
		return s.send(s.request("OPTIONS", "/"+bucket+"/k", nil, "Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", headers))
	}
	a := ask("reports", "https://a.example", "PUT", "X-Amz-Date, x-amz-meta-a").want(t, 200, "")
	if a.header.Get("Access-Control-Allow-Origin") != "https://a.example" || a.header.Get("Access-Control-Max-Age") != "60" ||
		a.header.Get("Access-Control-Allow-Methods") != "GET, PUT" || a.header.Get("Access-Control-Allow-Headers") != "x-amz-date, x-amz-meta-a" {
		t.Errorf("got %v", a.header)
	}
	ask("reports", "https://evil.test", "PUT", "").want(t, 403, "AccessForbidden")
	ask("reports", "https://a.example", "DELETE", "").want(t, 403, "AccessForbidden")
	ask("reports", "https://a.example", "PUT", "other").want(t, 403, "AccessForbidden")
	if got, want := stripped(ask("never-made", "https://a.example", "PUT", "")), stripped(ask("reports", "https://evil.test", "PUT", "")); got != want {
		t.Errorf("a preflight tells whether a bucket exists:\n%s\n%s", got, want)
	}
	if a := s.do("LOW", "GET", "/reports", nil, "Origin", "https://a.example"); a.header.Get("Access-Control-Expose-Headers") != "ETag" {
		t.Errorf("got %v", a.header)
	}
	if a := s.do("LOW", "GET", "/reports", nil, "Origin", "https://evil.test"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("got %v", a.header)
	}
}

// form is a browser's upload, made from the S3 API reference.
type postedTest struct {
	fields [][2]string
	policy string
	file   string
	secret string
	change func([][2]string) [][2]string
}

func (s *site) post(f postedTest) answer { return s.postTo("/reports", f) }

// form is the signed form and its content type.
func (s *site) form(f postedTest) ([]byte, string) {
	now := s.now().UTC()
	date := now.Format("20060102T150405Z")
	credential := "LOW/" + date[:8] + "/" + testRegion + "/s3/aws4_request"
	policy := base64.StdEncoding.EncodeToString([]byte(strings.NewReplacer("$EXPIRES", now.Add(time.Minute).Format(time.RFC3339), "$CRED", credential, "$DATE", date).Replace(f.policy)))
	m := hmac.New(sha256.New, signingKey(s.people["LOW"].secret, redoubt.Scope{Date: date[:8], Region: testRegion, Service: "s3"}))
	m.Write([]byte(policy))
	fields := append(f.fields, [][2]string{{"x-amz-algorithm", sigAlgorithm}, {"x-amz-credential", credential}, {"x-amz-date", date},
		{"policy", policy}, {"x-amz-signature", hex.EncodeToString(m.Sum(nil))}}...)
	if f.change != nil {
		fields = f.change(fields)
	}
	return formOf(fields, f.file)
}

const auth = `{"x-amz-algorithm":"AWS4-HMAC-SHA256"},{"x-amz-credential":"$CRED"},{"x-amz-date":"$DATE"}`

func policyOf(conditions string) string {
	return `{"expiration":"$EXPIRES","conditions":[{"bucket":"reports"},` + auth + `,` + conditions + `]}`
}

func TestPostForms(t *testing.T) {
	s := newSite(t, "reports")
	key := [2]string{"key", "up/${filename}"}
	a := s.post(postedTest{fields: [][2]string{key, {"Content-Type", "text/plain"}, {"x-amz-meta-redoubt-label", "SECRET"}, {"success_action_status", "201"}},
		policy: policyOf(`["starts-with","$key","up/"],["eq","$Content-Type","text/plain"],{"x-amz-meta-redoubt-label":"SECRET"},{"success_action_status":"201"},["content-length-range",1,10]`), file: "0123456789"}).want(t, 201, "")
	if !strings.Contains(a.body, "<Key>up/report.txt</Key>") || a.header.Get(headerLabel) != "SECRET" {
		t.Errorf("got %v %s", a.header, a.body)
	}
	if v := s.versions["reports"]["up/report.txt"][0]; string(v.content) != "0123456789" || v.Attributes.ContentType != "text/plain" {
		t.Errorf("got %+v", v)
	}
	a = s.post(postedTest{fields: [][2]string{key, {"success_action_redirect", "https://back.example/?a=b"}}, policy: policyOf(`["starts-with","$key",""],["starts-with","$success_action_redirect","https://"]`), file: "x"}).want(t, 303, "")
	if loc := a.header.Get("Location"); !strings.HasPrefix(loc, "https://back.example/?a=b&bucket=reports&etag=") || !strings.Contains(loc, "key=up%2Freport.txt") {
		t.Errorf("got %s", loc)
	}
	s.post(postedTest{fields: [][2]string{key}, policy: policyOf(`["starts-with","$key","up/"]`), file: "x"}).want(t, 204, "")
	anyKey := `["starts-with","$key",""]`
	for name, c := range map[string]struct {
		f      postedTest
		status int
		code   string
	}{
		"another key":       {postedTest{fields: [][2]string{{"key", "other"}}, policy: policyOf(`["starts-with","$key","up/"]`)}, 403, "AccessDenied"},
		"an extra field":    {postedTest{fields: [][2]string{key, {"x-amz-meta-redoubt-label", "SECRET"}}, policy: policyOf(anyKey)}, 403, "AccessDenied"},
		"ignored field":     {postedTest{fields: [][2]string{key, {"x-ignore-me", "x"}}, policy: policyOf(anyKey), file: "x"}, 204, ""},
		"too large":         {postedTest{fields: [][2]string{key}, policy: policyOf(anyKey + `,["content-length-range",0,3]`), file: "1234"}, 400, "EntityTooLarge"},
		"too small":         {postedTest{fields: [][2]string{key}, policy: policyOf(anyKey + `,["content-length-range",3,9]`), file: "12"}, 400, "EntityTooSmall"},
		"expired":           {postedTest{fields: [][2]string{key}, policy: strings.Replace(policyOf(anyKey), "$EXPIRES", "2020-01-01T00:00:00Z", 1)}, 403, "AccessDenied"},
		"another bucket":    {postedTest{fields: [][2]string{key}, policy: strings.Replace(policyOf(anyKey), `"reports"`, `"other"`, 1)}, 403, "AccessDenied"},
		"a strange policy":  {postedTest{fields: [][2]string{key}, policy: policyOf(anyKey + `,["matches","$key","x"]`)}, 400, "InvalidPolicyDocument"},
		"an unknown member": {postedTest{fields: [][2]string{key}, policy: `{"expiration":"$EXPIRES","conditions":[],"x":1}`}, 400, "InvalidPolicyDocument"},
		"no key":            {postedTest{policy: policyOf(anyKey)}, 400, "InvalidArgument"},
		"a repeated field":  {postedTest{fields: [][2]string{key, key}, policy: policyOf(anyKey)}, 400, "MalformedPOSTRequest"},
		"no policy": {postedTest{fields: [][2]string{key}, policy: policyOf(anyKey), change: func(f [][2]string) [][2]string {
			return [][2]string{f[0]}
		}}, 403, "AccessDenied"},
		"a changed policy": {postedTest{fields: [][2]string{key}, policy: policyOf(anyKey), change: func(f [][2]string) [][2]string {
			f[4][1] = base64.StdEncoding.EncodeToString([]byte(`{"expiration":"2099-01-01T00:00:00Z","conditions":[]}`))
			return f
		}}, 403, "SignatureDoesNotMatch"},
		"fields to the limit":  {postedTest{fields: append([][2]string{key}, ignoredFields(maxFormFields-6)...), policy: policyOf(anyKey), file: "x"}, 204, ""},
		"too many fields":      {postedTest{fields: append([][2]string{key}, ignoredFields(maxFormFields-5)...), policy: policyOf(anyKey), file: "x"}, 400, "MalformedPOSTRequest"},
		"a field to the limit": {postedTest{fields: [][2]string{key, {"x-ignore-a", strings.Repeat("v", maxFormFieldBytes)}}, policy: policyOf(anyKey), file: "x"}, 204, ""},
		"too long a field":     {postedTest{fields: [][2]string{key, {"x-ignore-a", strings.Repeat("v", maxFormFieldBytes+1)}}, policy: policyOf(anyKey), file: "x"}, 400, "MaxPostPreDataLengthExceededError"},
	} {
		t.Run(name, func(t *testing.T) { s.post(c.f).want(t, c.status, c.code) })
	}
	clear := newSiteWith(t, false, nil, "reports")
	clear.post(postedTest{fields: [][2]string{key}, policy: policyOf(anyKey), file: "x"}).want(t, 403, "AccessDenied")
}

func ignoredFields(n int) (fields [][2]string) {
	for i := range n {
		fields = append(fields, [2]string{"x-ignore-" + strconv.Itoa(i), "x"})
	}
	return fields
}
