package s3

import (
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"redoubt"
)

func TestEveryKindHasAnAnswer(t *testing.T) {
	for _, k := range redoubt.Kinds() {
		a := kindAnswer[k]
		if a == nil || a.code == "" || a.status < 300 || a.message == "" {
			t.Errorf("%v has no answer", k)
		}
	}
	if len(kindAnswer) != len(redoubt.Kinds()) {
		t.Errorf("got %d answers for %d kinds", len(kindAnswer), len(redoubt.Kinds()))
	}
}

func TestOnlyKindRuleAndHintReachTheClient(t *testing.T) {
	s := newSite(t, "reports")
	for _, k := range redoubt.Kinds() {
		s.fail = &redoubt.Error{Op: "op-text", Object: "object-text", Kind: k, Rule: "rule-text", Hint: "hint-text", Err: errors.New("cause-text")}
		for _, path := range []string{"/reports/k", "/reports", "/reports/k?tagging", "/reports?cors"} {
			a := s.do("LOW", "GET", path, nil)
			if a.status != kindAnswer[k].status {
				t.Errorf("%v: got %d, want %d", k, a.status, kindAnswer[k].status)
			}
			for _, text := range []string{"op-text", "object-text", "cause-text"} {
				if strings.Contains(a.body, text) {
					t.Errorf("%v: the answer tells %q: %s", k, text, a.body)
				}
			}
			quiet := k == redoubt.Internal || k == redoubt.NotFound || k == redoubt.NoBucket || k == redoubt.Corrupt || k == redoubt.NotModified
			if got := strings.Contains(a.body, "rule-text"); got == quiet {
				t.Errorf("%v: rule shown: %v", k, got)
			}
		}
	}
	s.fail = fmt.Errorf("unclassified cause-text")
	if a := s.do("LOW", "GET", "/reports/k", nil).want(t, 500, "InternalError"); strings.Contains(a.body, "cause-text") {
		t.Errorf("got %s", a.body)
	}
}

var names = regexp.MustCompile(`<(RequestId|HostId|Resource)>[^<]*</`)

// stripped is an answer without what differs between any two requests.
func stripped(a answer) string {
	h := a.header.Clone()
	for _, n := range []string{"Date", "X-Amz-Request-Id", "X-Amz-Id-2", "Content-Length"} {
		h.Del(n)
	}
	return fmt.Sprint(a.status, h, names.ReplaceAllString(a.body, "<$1></"))
}

func TestWhatMayNotBeKnownAnswersAsWhatNeverWas(t *testing.T) {
	s := newSite(t, "reports")
	put := s.do("HIGH", "PUT", "/reports/seen", []byte("x")).want(t, 200, "")
	id := put.header.Get("X-Amz-Version-Id")
	up := s.do("HIGH", "POST", "/reports/seen?uploads", nil).want(t, 200, "")
	_, rest, _ := strings.Cut(up.body, "<UploadId>")
	upload, _, _ := strings.Cut(rest, "</UploadId>")
	s.do("LOW", "PUT", "/reports/own", []byte("x")).want(t, 200, "")
	for _, c := range []struct{ method, hidden, never, code string }{
		{"GET", "/reports/seen", "/reports/nevr", "NoSuchKey"},
		{"HEAD", "/reports/seen", "/reports/nevr", ""},
		{"GET", "/reports/seen?versionId=" + id, "/reports/nevr?versionId=" + id, "NoSuchVersion"},
		{"GET", "/reports/own?versionId=" + id, "/reports/own?versionId=abc", "NoSuchVersion"},
		{"DELETE", "/reports/seen?versionId=" + id, "/reports/nevr?versionId=" + id, ""},
		{"GET", "/reports/seen?tagging", "/reports/nevr?tagging", "NoSuchKey"},
		{"GET", "/reports/seen?retention", "/reports/nevr?retention", "NoSuchKey"},
		{"GET", "/reports/seen?legal-hold&versionId=" + id, "/reports/nevr?legal-hold&versionId=" + id, "NoSuchVersion"},
		{"GET", "/reports/seen?acl", "/reports/nevr?acl", "NoSuchKey"},
		{"DELETE", "/reports/seen?tagging", "/reports/nevr?tagging", "NoSuchKey"},
		{"GET", "/reports/seen?uploadId=" + upload, "/reports/seen?uploadId=abc", "NoSuchUpload"},
		{"DELETE", "/reports/seen?uploadId=" + upload, "/reports/seen?uploadId=abc", "NoSuchUpload"},
		{"PUT", "/reports/seen?partNumber=1&uploadId=" + upload, "/reports/seen?partNumber=1&uploadId=abc", "NoSuchUpload"},
	} {
		hidden, never := s.do("LOW", c.method, c.hidden, nil), s.do("LOW", c.method, c.never, nil)
		if hidden.code() != c.code {
			t.Errorf("%s %s: got %d %s, want %q", c.method, c.hidden, hidden.status, hidden.code(), c.code)
		}
		if got, want := stripped(hidden), stripped(never); got != want {
			t.Errorf("%s %s tells:\n%s\n%s", c.method, c.hidden, got, want)
		}
	}
	hidden := s.do("LOW", "PUT", "/reports/copy", nil, "X-Amz-Copy-Source", "reports/seen").want(t, 404, "NoSuchKey")
	never := s.do("LOW", "PUT", "/reports/copy", nil, "X-Amz-Copy-Source", "reports/nevr")
	if stripped(hidden) != stripped(never) {
		t.Errorf("a copy tells:\n%s\n%s", stripped(hidden), stripped(never))
	}
	s.do("LOW", "GET", "/nosuchbucket/k", nil).want(t, 404, "NoSuchBucket")
	s.do("LOW", "GET", "/nosuchbucket", nil).want(t, 404, "NoSuchBucket")
	s.do("LOW", "PUT", "/nosuchbucket/k", []byte("x")).want(t, 404, "NoSuchBucket")
	s.do("LOW", "DELETE", "/nosuchbucket/k", nil).want(t, 404, "NoSuchBucket")
}

func TestADenialSaysItsRule(t *testing.T) {
	s := newSite(t, "reports")
	a := s.do("HIGH", "PUT", "/reports/k", []byte("x"), headerLabel, "UNCLASSIFIED").want(t, 403, "AccessDenied")
	if !strings.Contains(a.body, "<Message>Access Denied: no write-down</Message>") {
		t.Errorf("got %s", a.body)
	}
}

func TestErrorsAreWellFormed(t *testing.T) {
	s := newSite(t, "reports")
	a := s.do("LOW", "GET", "/reports/%3Cscript%3E&%22?versionId=%3C", nil).want(t, 404, "NoSuchVersion")
	var e struct {
		XMLName                            xml.Name `xml:"Error"`
		Code, Message, Resource, RequestId string
		HostId                             string
	}
	if err := xml.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatal(err)
	}
	if e.Resource != "/reports/%3Cscript%3E&%22" || e.RequestId != a.header.Get("X-Amz-Request-Id") || e.HostId != a.header.Get("X-Amz-Id-2") {
		t.Errorf("got %+v", e)
	}
}

func TestWhatIsNotOfferedIsRefusedByName(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("x")).want(t, 200, "")
	for _, o := range operations {
		if o.handle != nil || o.on == onService {
			continue
		}
		path := "/reports"
		if o.on == onObject {
			path += "/k"
		}
		a := s.do("LOW", o.method, path+"?"+o.sub, nil).want(t, 501, "NotImplemented")
		if !strings.Contains(a.body, o.name) {
			t.Errorf("%s is not named: %s", o.name, a.body)
		}
	}
	for _, h := range [][2]string{{"X-Amz-Acl", "public-read"}, {"X-Amz-Grant-Read", "id=x"}, {"X-Amz-Server-Side-Encryption", "aws:kms"},
		{"X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256"}, {"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "k"},
		{"X-Amz-Website-Redirect-Location", "/"}, {"X-Amz-Storage-Class", "GLACIER"}, {"X-Amz-Write-Offset-Bytes", "1"}} {
		s.do("LOW", "PUT", "/reports/k", []byte("x"), h[0], h[1]).want(t, 501, "NotImplemented")
	}
	s.do("LOW", "PUT", "/reports/k?something=new", []byte("x")).want(t, 501, "NotImplemented")
	s.do("LOW", "GET", "/reports/k?acl&tagging", nil).want(t, 400, "InvalidArgument")
	s.do("LOW", "PUT", "/reports?versioning", []byte("<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>")).want(t, 409, "InvalidBucketState")
	for _, h := range [][2]string{{"X-Amz-Acl", "private"}, {"X-Amz-Acl", "bucket-owner-full-control"}, {"X-Amz-Server-Side-Encryption", "AES256"}} {
		s.do("LOW", "PUT", "/reports/k", []byte("x"), h[0], h[1]).want(t, 200, "")
	}
}

func TestEveryOfferedOperationHasItsOwnRoute(t *testing.T) {
	if len(routes) != len(operations) {
		t.Errorf("got %d routes for %d operations: two share a key", len(routes), len(operations))
	}
	seen := map[string]bool{}
	for _, o := range operations {
		if seen[o.name] {
			t.Errorf("%s stands twice", o.name)
		}
		seen[o.name] = true
	}
}
