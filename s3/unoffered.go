package s3

import (
	"net/http"
	"slices"
	"strings"
)

// unoffered are the headers that S3 gives a meaning and that are not offered: a client that is answered 200 would
// believe in the meaning. Each has the values that ask for nothing; nil is none.
var unoffered = map[string][]string{
	"X-Amz-Expected-Bucket-Owner":          nil, // buckets have no owner account to compare with
	"X-Amz-Source-Expected-Bucket-Owner":   nil,
	"X-Amz-Request-Payer":                  nil,
	"X-Amz-Mfa":                            nil,
	"X-Amz-Write-Offset-Bytes":             nil,
	"X-Amz-Website-Redirect-Location":      nil,
	"X-Amz-If-Match-Initiated-Time":        nil,
	"X-Amz-If-Match-Last-Modified-Time":    nil,
	"X-Amz-If-Match-Size":                  nil,
	"X-Amz-Object-If-Match-Initiated-Time": nil,
	"X-Amz-Bucket-Object-Lock-Token":       nil,
	"X-Amz-Object-Ownership":               {"BucketOwnerEnforced"},
	"X-Amz-Acl":                            {"private", "bucket-owner-full-control"},
	"X-Amz-Bucket-Key-Enabled":             {"false"},
	headerBucketKey:                        {"false"},
}

const headerBucketKey = "X-Amz-Server-Side-Encryption-Bucket-Key-Enabled"

// refuseUnoffered names the header of a request, of whatever operation, that asks for what is not offered.
func refuseUnoffered(h http.Header) error {
	for name, values := range h {
		if !strings.HasPrefix(name, "X-Amz-") || strings.HasPrefix(name, metaPrefix) {
			continue
		}
		if strings.HasPrefix(name, "X-Amz-Grant-") {
			return notImplemented("The header " + strings.ToLower(name))
		}
		harmless, listed := unoffered[name]
		if !listed {
			continue
		}
		for _, v := range values {
			if harmless == nil {
				return notImplemented("The header " + strings.ToLower(name))
			}
			if !slices.Contains(harmless, v) {
				return notImplemented(strings.ToLower(name) + ": " + v)
			}
		}
	}
	return checkEncryption(h)
}
