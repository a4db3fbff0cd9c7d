package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"redoubt"
)

// Headers of the S3 interface that are ours (CONTRACT, S3).
const (
	labelHeader      = "X-Amz-Meta-Redoubt-Label"
	precedenceHeader = "X-Amz-Meta-Redoubt-Precedence"
	metaPrefix       = "X-Amz-Meta-"
	payloadHeader    = "X-Amz-Content-Sha256"
)

// Payload hashes of SigV4. TLS protects the body; in clear, on a loopback address, the signature has to.
const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	emptyPayload    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of nothing
)

// Objects talks to one node's S3 interface as one credential, addressing buckets by path. It may be used by many
// goroutines at once.
type Objects struct {
	base   *url.URL
	http   *http.Client
	who    *purse
	signer *v4.Signer
	limits limits
}

// NewObjects makes a client of the S3 interface at s3URL with the secrets of a minted credential, trusting roots.
func NewObjects(s3URL string, roots *x509.CertPool, who redoubt.Minted) (*Objects, error) {
	base, err := address(s3URL)
	if err != nil {
		return nil, err
	}
	return &Objects{
		base: base, http: transport(roots), limits: limits{put: redoubt.MaxPutBytes, part: PartBytes}, who: &purse{minted: who, since: time.Now()},
		signer: v4.NewSigner(func(o *v4.SignerOptions) {
			o.DisableURIPathEscaping = true // S3 signs the path as it is sent
		}),
	}, nil
}

// Close closes connections that are idle.
func (o *Objects) Close() { o.http.CloseIdleConnections() }

// Object is what the S3 interface tells of one version. Label is a banner.
type Object struct {
	Name        redoubt.ObjectName
	Version     redoubt.VersionID
	Label       string
	Precedence  string
	Marker      bool // a delete marker
	Latest      bool // current for this credential; set by lists
	SizeBytes   int64
	ETag        string
	Modified    time.Time
	ContentType string
	Meta        map[string]string // without label and precedence
}

// Get opens a version, the current one for "". The caller closes the reader. An error of the reader means that what
// was read is a part.
func (o *Objects) Get(ctx context.Context, name redoubt.ObjectName, id redoubt.VersionID) (Object, io.ReadCloser, error) {
	req, err := o.request(ctx, "GET", name, versionQuery(id), nil)
	if err != nil {
		return Object{}, nil, err
	}
	res, err := o.do("get", name, req)
	if err != nil {
		return Object{}, nil, err
	}
	return described(name, res), res.Body, nil
}

// Head describes a version, the current one for "".
func (o *Objects) Head(ctx context.Context, name redoubt.ObjectName, id redoubt.VersionID) (Object, error) {
	req, err := o.request(ctx, "HEAD", name, versionQuery(id), nil)
	if err != nil {
		return Object{}, err
	}
	res, err := o.do("head", name, req)
	if err != nil {
		return Object{}, err
	}
	defer res.Body.Close()
	return described(name, res), nil
}

// Delete writes a delete marker, or with an ID removes that version. It gives the ID of either, and whether it is a
// marker.
func (o *Objects) Delete(ctx context.Context, name redoubt.ObjectName, id redoubt.VersionID) (redoubt.Deleted, error) {
	req, err := o.request(ctx, "DELETE", name, versionQuery(id), nil)
	if err != nil {
		return redoubt.Deleted{}, err
	}
	res, err := o.do("delete", name, req)
	if err != nil {
		return redoubt.Deleted{}, err
	}
	defer res.Body.Close()
	return redoubt.Deleted{ID: redoubt.VersionID(res.Header.Get("X-Amz-Version-Id")), Marker: res.Header.Get("X-Amz-Delete-Marker") == "true"}, nil
}

// request makes a request for all buckets, one, or with a key an object. It is signed by do.
func (o *Objects) request(ctx context.Context, method string, name redoubt.ObjectName, query url.Values, body io.Reader) (*http.Request, error) {
	if name.Bucket == "" && name.Key != "" || strings.ContainsAny(string(name.Bucket), "/?#") {
		return nil, &redoubt.Error{Op: method, Object: name.String(), Kind: redoubt.Invalid, Err: errors.New("a name is s3://BUCKET/KEY")}
	}
	req, err := http.NewRequestWithContext(ctx, method, o.base.String(), body)
	if err != nil {
		return nil, &redoubt.Error{Op: method, Object: name.String(), Kind: redoubt.Invalid, Err: err}
	}
	base := strings.TrimSuffix(o.base.Path, "/")
	req.URL.Path = base + "/" + string(name.Bucket)
	req.URL.RawPath = base + "/" + string(name.Bucket)
	if name.Key != "" {
		req.URL.Path += "/" + name.Key
		req.URL.RawPath += "/" + escapeKey(name.Key)
	}
	req.URL.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return req, nil
}

// escapeKey writes a key as AWS does in a path: everything but letters, digits and -_.~/ (SigV4, "UriEncode").
func escapeKey(key string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// do signs and sends, and gives a response of 2xx or the node's error.
func (o *Objects) do(op string, name redoubt.ObjectName, req *http.Request) (*http.Response, error) {
	if req.Header.Get(payloadHeader) == "" {
		req.Header.Set(payloadHeader, emptyPayload)
	}
	m := o.who.open(req.Context())
	who := aws.Credentials{AccessKeyID: m.AccessKeyID, SecretAccessKey: m.SecretAccessKey}
	if err := o.signer.SignHTTP(req.Context(), who, req, req.Header.Get(payloadHeader), "s3", m.Region, time.Now()); err != nil {
		return nil, &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.Invalid, Err: err}
	}
	res, err := o.http.Do(req)
	if err != nil {
		return nil, unreachable(op, err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		return nil, s3Refusal(op, name, res)
	}
	return res, nil
}

// send makes, signs and sends a request with a small body or none; the caller closes the answer. Empty headers are left out.
func (o *Objects) send(ctx context.Context, op, method string, name redoubt.ObjectName, query url.Values, headers map[string]string, body []byte) (*http.Response, error) {
	req, err := o.request(ctx, method, name, query, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for h, v := range headers {
		if v != "" {
			req.Header.Set(h, v)
		}
	}
	sum := sha256.Sum256(body)
	req.Header.Set(payloadHeader, hex.EncodeToString(sum[:]))
	return o.do(op, name, req)
}

// codes are the S3 error codes that say more than their status.
var codes = map[string]redoubt.Kind{
	"NoSuchKey": redoubt.NotFound, "NoSuchVersion": redoubt.NotFound, "NoSuchUpload": redoubt.NotFound, "NoSuchBucket": redoubt.NoBucket,
	"AccessDenied": redoubt.Denied, "InvalidAccessKeyId": redoubt.Unauthenticated, "SignatureDoesNotMatch": redoubt.Unauthenticated,
	"ExpiredToken": redoubt.Expired, "RequestTimeTooSkewed": redoubt.Unauthenticated, "EntityTooLarge": redoubt.TooLarge,
	"BucketAlreadyExists": redoubt.Exists, "BucketAlreadyOwnedByYou": redoubt.Exists, "OperationAborted": redoubt.Conflict,
	"BucketNotEmpty": redoubt.NotEmpty, "PreconditionFailed": redoubt.PreconditionFail, "InvalidRange": redoubt.RangeInvalid,
	"BadDigest": redoubt.BadDigest, "SlowDown": redoubt.Unavailable, "ServiceUnavailable": redoubt.Unavailable,
	"NotImplemented": redoubt.NotImplemented, "MethodNotAllowed": redoubt.MethodNotAllowed, "QuotaExceeded": redoubt.QuotaExceeded,
	"InsufficientCapacity": redoubt.DiskFull, "ObjectErased": redoubt.Erased, "XAmzContentSHA256Mismatch": redoubt.BadDigest,
	"InvalidArgument": redoubt.Invalid, "InvalidRequest": redoubt.Invalid, "MalformedXML": redoubt.Invalid,
}

// s3Refusal reads an S3 error. The message of AccessDenied holds the rule.
func s3Refusal(op string, name redoubt.ObjectName, res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
	return s3Error(op, name, kindOfStatus(res.StatusCode), b)
}

// s3Error reads the document of an S3 error; kind is for a code that says no more than its status.
func s3Error(op string, name redoubt.ObjectName, kind redoubt.Kind, answer []byte) error {
	var in struct {
		Code      string `xml:"Code"`
		Message   string `xml:"Message"`
		RequestID string `xml:"RequestId"`
	}
	e := &redoubt.Error{Op: op, Object: name.String(), Kind: kind}
	if xml.Unmarshal(answer, &in) == nil && in.Code != "" {
		if kind, ok := codes[in.Code]; ok {
			e.Kind = kind
		}
		if e.Kind == redoubt.Denied {
			e.Rule, e.Hint = denied(in.Message)
		} else {
			e.Err = errors.New(in.Code + ": " + in.Message)
		}
		if e.Err == nil && in.RequestID != "" {
			e.Err = requestID(in.RequestID)
		}
	}
	return e
}

// denied takes the message of AccessDenied apart: "Access Denied: RULE (hint: HINT)".
func denied(message string) (rule, hint string) {
	rule = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(message, "Access Denied"), ": "), ".")
	if before, after, ok := strings.Cut(rule, " (hint: "); ok {
		rule, hint = before, strings.TrimSuffix(after, ")")
	}
	return rule, hint
}

// described reads what the headers of a response tell of a version.
func described(name redoubt.ObjectName, res *http.Response) Object {
	h := res.Header
	out := Object{Name: name, Version: redoubt.VersionID(h.Get("X-Amz-Version-Id")), Label: h.Get(labelHeader), Precedence: h.Get(precedenceHeader),
		SizeBytes: res.ContentLength, ETag: trimQuotes(h.Get("ETag")), ContentType: h.Get("Content-Type"), Meta: map[string]string{}}
	out.Modified, _ = http.ParseTime(h.Get("Last-Modified"))
	for k := range h {
		if name, ok := strings.CutPrefix(k, metaPrefix); ok && k != labelHeader && k != precedenceHeader {
			out.Meta[strings.ToLower(name)] = h.Get(k)
		}
	}
	return out
}

func trimQuotes(s string) string { return strings.Trim(s, `"`) }

func versionQuery(id redoubt.VersionID) url.Values {
	if id == "" {
		return nil
	}
	return url.Values{"versionId": {string(id)}}
}
