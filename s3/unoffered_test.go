package s3

import (
	"net/http"
	"strings"
	"testing"
)

func TestHeadersThatAreNotOfferedAreRefusedOnEveryOperation(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("x")).want(t, 200, "")
	for _, h := range [][2]string{
		{"x-amz-expected-bucket-owner", "111122223333"}, {"x-amz-source-expected-bucket-owner", "111122223333"}, {"x-amz-request-payer", "requester"},
		{"x-amz-mfa", "serial 123456"}, {"x-amz-write-offset-bytes", "1"}, {"x-amz-website-redirect-location", "/"},
		{"x-amz-bucket-object-lock-token", "t"}, {"x-amz-if-match-size", "1"}, {"x-amz-if-match-last-modified-time", "x"},
		{"x-amz-if-match-initiated-time", "x"}, {"x-amz-object-if-match-initiated-time", "x"},
		{"x-amz-grant-read", "id=x"}, {"x-amz-grant-full-control", "id=x"}, {"x-amz-grant-write-acp", "id=x"}, {"x-amz-grant-new", "id=x"},
		{"x-amz-acl", "public-read"}, {"x-amz-object-ownership", "ObjectWriter"}, {"x-amz-bucket-key-enabled", "true"},
		{"x-amz-server-side-encryption", "aws:kms"}, {"x-amz-server-side-encryption-bucket-key-enabled", "true"},
		{"x-amz-server-side-encryption-context", "e30="}, {"x-amz-server-side-encryption-aws-kms-key-id", "k"},
		{"x-amz-server-side-encryption-customer-algorithm", "AES256"}, {"x-amz-server-side-encryption-customer-key", "k"},
		{"x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256"}, {"x-amz-copy-source-server-side-encryption-customer-key-md5", "k"},
	} {
		for _, o := range [][2]string{{"GET", "/"}, {"PUT", "/reports/k"}, {"GET", "/reports/k"}, {"DELETE", "/reports/k"}, {"GET", "/reports?list-type=2"},
			{"PUT", "/reports-new"}, {"PUT", "/reports?object-lock"}, {"POST", "/reports?delete"}, {"POST", "/reports/k?uploads"},
			{"PUT", "/reports/k?partNumber=1&uploadId=u"}, {"DELETE", "/reports/k?uploadId=u"}, {"GET", "/reports/k?tagging"}} {
			a := s.do("LOW", o[0], o[1], nil, http.CanonicalHeaderKey(h[0]), h[1]).want(t, 501, "NotImplemented")
			if !strings.Contains(a.body, h[0]) {
				t.Errorf("%s %s does not name %s: %s", o[0], o[1], h[0], a.body)
			}
		}
	}
	s.do("LOW", "GET", "/reports/k", nil).want(t, 200, "") // what was refused has changed nothing
}

// What SDKs send by themselves, and what is offered, is not caught by the table.
func TestHeadersThatAreOfferedPass(t *testing.T) {
	h := http.Header{}
	for name, value := range map[string]string{
		"x-amz-sdk-checksum-algorithm": "CRC32", "x-amz-te": "append-md5", "x-amz-trailer": "x-amz-checksum-crc32", "x-amz-decoded-content-length": "1",
		"x-amz-user-agent": "sdk", "x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "FULL_OBJECT", "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
		"x-amz-date": "20310102T030405Z", "x-amz-acl": "private", "x-amz-storage-class": "STANDARD", "x-amz-server-side-encryption": "AES256",
		"x-amz-tagging": "a=b", "x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "2031-01-02T03:04:05Z",
		"x-amz-object-lock-legal-hold": "ON", "x-amz-bypass-governance-retention": "true", "x-amz-bucket-object-lock-enabled": "true",
		"x-amz-meta-a": "b", "x-amz-meta-redoubt-label": "SECRET", "x-amz-copy-source": "/reports/k", "x-amz-copy-source-range": "bytes=0-1",
		"x-amz-copy-source-if-match": "e", "x-amz-metadata-directive": "COPY", "x-amz-tagging-directive": "COPY", "x-amz-checksum-mode": "ENABLED",
		"x-amz-object-attributes": "ETag", "x-amz-max-parts": "1", "x-amz-part-number-marker": "1", "x-amz-optional-object-attributes": "RedoubtLabel",
		"x-amz-fetch-owner": "true", "x-amz-mp-object-size": "1", "x-amz-redoubt-floor": "SECRET", "x-amz-redoubt-etag": "md5",
		"x-amz-object-ownership": "BucketOwnerEnforced", "x-amz-bucket-key-enabled": "false", "x-amz-server-side-encryption-bucket-key-enabled": "false",
		"x-amz-meta-grant-read": "a user's own name", "x-amz-security-token": "", "amz-sdk-invocation-id": "i", "amz-sdk-request": "attempt=1",
	} {
		h.Set(name, value)
		if err := refuseUnoffered(http.Header{http.CanonicalHeaderKey(name): {value}}); err != nil {
			t.Errorf("%s: %s was refused: %v", name, value, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = refuseUnoffered(h) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("x"), "X-Amz-Te", "append-md5", "X-Amz-User-Agent", "sdk", "X-Amz-Sdk-Checksum-Algorithm", "CRC32",
		"X-Amz-Acl", "private", "X-Amz-Storage-Class", "STANDARD", "X-Amz-Server-Side-Encryption", "AES256", "X-Amz-Tagging", "a=b", "X-Amz-Meta-A", "b",
		"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled", "false").want(t, 200, "")
	s.do("LOW", "GET", "/reports/k", nil, "X-Amz-Checksum-Mode", "ENABLED").want(t, 200, "")
	s.do("LOW", "GET", "/reports/k?attributes", nil, "X-Amz-Object-Attributes", "ETag", "X-Amz-Max-Parts", "1", "X-Amz-Part-Number-Marker", "0").want(t, 200, "")
	s.do("LOW", "GET", "/reports?list-type=2", nil, "X-Amz-Optional-Object-Attributes", "RedoubtLabel", "X-Amz-Fetch-Owner", "true").want(t, 200, "")
	s.do("LOW", "DELETE", "/reports/k", nil, "X-Amz-Bypass-Governance-Retention", "true").want(t, 204, "")
}
