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

// MaxPipeBytes bounds a body of unknown length. It is held in memory, for no plaintext is spooled to a disk.
const MaxPipeBytes = 64 << 20

// Objects talks to one node's S3 interface as one credential, addressing buckets by path. It may be used by many
// goroutines at once.
type Objects struct {
	base   *url.URL
	http   *http.Client
	who    aws.Credentials
	region string
	signer *v4.Signer
}

// NewObjects makes a client of the S3 interface at s3URL with the secrets of a minted credential, trusting roots.
func NewObjects(s3URL string, roots *x509.CertPool, who redoubt.Minted) (*Objects, error) {
	base, err := address(s3URL)
	if err != nil {
		return nil, err
	}
	return &Objects{
		base: base, http: transport(roots), region: who.Region,
		who: aws.Credentials{AccessKeyID: who.AccessKeyID, SecretAccessKey: who.SecretAccessKey},
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

// Upload is what Put sends.
type Upload struct {
	Name        redoubt.ObjectName
	Label       string // the marking asked for; "": the join of working label and the bucket's default
	Precedence  string
	ContentType string
	Meta        map[string]string
	SizeBytes   int64 // of Body; -1 when not known: then it is held in memory, MaxPipeBytes at most
	Body        io.Reader
	Progress    func(sentBytes int64) // may be nil; called from the sending goroutine
}

// Put stores a new version and returns when it is durable. The largest is redoubt.MaxPutBytes.
func (o *Objects) Put(ctx context.Context, in Upload) (Object, error) {
	op := "put"
	if in.SizeBytes < 0 { // S3 wants to know the length first
		b, err := io.ReadAll(io.LimitReader(in.Body, MaxPipeBytes+1))
		if err != nil {
			return Object{}, &redoubt.Error{Op: op, Object: in.Name.String(), Kind: redoubt.Invalid, Err: err}
		}
		if len(b) > MaxPipeBytes {
			return Object{}, &redoubt.Error{Op: op, Object: in.Name.String(), Kind: redoubt.TooLarge, Hint: "from a pipe at most 64 MiB are taken: put a file"}
		}
		in.SizeBytes, in.Body = int64(len(b)), bytes.NewReader(b)
	}
	if in.SizeBytes > redoubt.MaxPutBytes {
		return Object{}, &redoubt.Error{Op: op, Object: in.Name.String(), Kind: redoubt.TooLarge,
			Hint: "more than 5 GiB goes up in parts: use an S3 client, see redoubt env"}
	}
	hash, err := o.payload(in)
	if err != nil {
		return Object{}, err
	}
	var body io.Reader = http.NoBody
	if in.SizeBytes != 0 {
		body = &counted{r: in.Body, tell: in.Progress}
	}
	req, err := o.request(ctx, "PUT", in.Name, nil, body)
	if err != nil {
		return Object{}, err
	}
	req.ContentLength = in.SizeBytes
	for name, v := range in.Meta {
		req.Header.Set(metaPrefix+name, v)
	}
	for name, v := range map[string]string{labelHeader: in.Label, precedenceHeader: in.Precedence, "Content-Type": in.ContentType} {
		if v != "" {
			req.Header.Set(name, v)
		}
	}
	req.Header.Set(payloadHeader, hash)
	res, err := o.do(op, in.Name, req)
	if err != nil {
		return Object{}, err
	}
	defer res.Body.Close()
	out := described(in.Name, res)
	out.SizeBytes = in.SizeBytes
	if counted, ok := body.(*counted); ok {
		out.SizeBytes = counted.n
	}
	return out, nil
}

// payload is the hash that a body is signed with. In clear it is read twice, so it has to be one that seeks.
func (o *Objects) payload(in Upload) (string, error) {
	switch {
	case in.SizeBytes == 0:
		return emptyPayload, nil
	case o.base.Scheme == "https":
		return unsignedPayload, nil
	}
	seeker, ok := in.Body.(io.ReadSeeker)
	if !ok {
		return "", &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.Invalid, Hint: "without TLS only a file can be put, not a pipe"}
	}
	at, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.Invalid, Err: err}
	}
	sum := sha256.New()
	if _, err = io.Copy(sum, seeker); err == nil {
		_, err = seeker.Seek(at, io.SeekStart)
	}
	if err != nil {
		return "", &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.Invalid, Err: err}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
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

// request makes a request for a bucket or, with a key, an object. It is signed by do.
func (o *Objects) request(ctx context.Context, method string, name redoubt.ObjectName, query url.Values, body io.Reader) (*http.Request, error) {
	if name.Bucket == "" || strings.ContainsAny(string(name.Bucket), "/?#") {
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
	if err := o.signer.SignHTTP(req.Context(), o.who, req, req.Header.Get(payloadHeader), "s3", o.region, time.Now()); err != nil {
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
	var in struct {
		Code      string `xml:"Code"`
		Message   string `xml:"Message"`
		RequestID string `xml:"RequestId"`
	}
	e := &redoubt.Error{Op: op, Object: name.String(), Kind: kindOfStatus(res.StatusCode)}
	if xml.Unmarshal(b, &in) == nil && in.Code != "" {
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
		SizeBytes: res.ContentLength, ETag: strings.Trim(h.Get("ETag"), `"`), ContentType: h.Get("Content-Type"), Meta: map[string]string{}}
	out.Modified, _ = http.ParseTime(h.Get("Last-Modified"))
	for k := range h {
		if name, ok := strings.CutPrefix(k, metaPrefix); ok && k != labelHeader && k != precedenceHeader {
			out.Meta[strings.ToLower(name)] = h.Get(k)
		}
	}
	return out
}

func versionQuery(id redoubt.VersionID) url.Values {
	if id == "" {
		return nil
	}
	return url.Values{"versionId": {string(id)}}
}

// counted tells how much has been read.
type counted struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.tell != nil && n > 0 {
		c.tell(c.n)
	}
	return n, err
}
