package redoubttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"redoubt"
)

// Request is one S3 request, before it is signed.
type Request struct {
	Method string
	Bucket string
	Key    string // raw; escaped here
	Query  url.Values
	Header http.Header
	Body   []byte
}

// Response is all that a client receives, but for what is random in every answer by
// design: the request IDs and the Date.
type Response struct {
	Status    int
	Header    http.Header
	Body      []byte
	RequestID string // the one thing kept of what is random: audit records name it
}

// randomHeaders differ between two runs of the same request.
var randomHeaders = []string{"X-Amz-Request-Id", "X-Amz-Id-2", "Date"}

// Do signs a request with the credential and hands it to the front end.
func (s *Stack) Do(m redoubt.Minted, in Request) Response {
	s.t.Helper()
	u := url.URL{Scheme: "http", Host: "s3.test", Path: "/"}
	if in.Bucket != "" {
		u.Path += in.Bucket
		if in.Key != "" {
			u.Path += "/" + in.Key
			u.RawPath = "/" + in.Bucket + "/" + escape(in.Key)
		}
	}
	u.RawQuery = strings.ReplaceAll(in.Query.Encode(), "+", "%20")
	req := httptest.NewRequest(in.Method, u.String(), bytes.NewReader(in.Body))
	req.URL = &u
	for name, values := range in.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	sum := sha256.Sum256(in.Body)
	digest := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", digest)
	req.ContentLength = int64(len(in.Body))
	err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(context.Background(),
		aws.Credentials{AccessKeyID: m.AccessKeyID, SecretAccessKey: m.SecretAccessKey}, req, digest, "s3", Region, s.now())
	s.check(err)
	if in.Method == http.MethodPut && len(in.Body) == 0 {
		req.Header.Set("Content-Length", "0") // as clients do: an empty object is an object
	}
	w := httptest.NewRecorder()
	s.Handler.ServeHTTP(w, req)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	s.check(err)
	out := Response{Status: res.StatusCode, Header: http.Header{}, Body: body, RequestID: res.Header.Get("X-Amz-Request-Id")}
	for name, values := range res.Header {
		out.Header[http.CanonicalHeaderKey(name)] = values
	}
	for _, name := range randomHeaders {
		if id := out.Header.Get(name); id != "" && len(id) > 8 {
			out.Body = bytes.ReplaceAll(out.Body, []byte(id), []byte("RANDOM"))
		}
		out.Header.Del(name)
	}
	return out
}

// escape writes a key as S3 clients write it in a path: everything but unreserved characters and "/".
func escape(key string) string {
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if c == '/' || c == '-' || c == '_' || c == '.' || c == '~' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
			continue
		}
		b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
	}
	return b.String()
}
