package redoubttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"redoubt"
)

// wire is an S3 client of a server that is reached over a network: as little code as will do, so that what a test
// sends is what it says, and an answer is seen whole.
type wire struct {
	base string
	http *http.Client
	who  redoubt.Minted
}

// httpClient makes a client that trusts roots (nil: nobody), follows nothing, decodes nothing and keeps its
// connections to itself.
func httpClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, DisableCompression: true,
			MaxIdleConnsPerHost: 16, ExpectContinueTimeout: time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}
}

// sign makes the signed request for in, dated at.
func (w wire) sign(ctx context.Context, in Request, at time.Time) (*http.Request, error) {
	target := w.base + "/"
	if in.Bucket != "" {
		target += in.Bucket
		if in.Key != "" {
			target += "/" + escape(in.Key)
		}
	}
	if q := strings.ReplaceAll(in.Query.Encode(), "+", "%20"); q != "" {
		target += "?" + q
	}
	req, err := http.NewRequestWithContext(ctx, in.Method, target, bytes.NewReader(in.Body))
	if err != nil {
		return nil, err
	}
	for name, values := range in.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	digest := req.Header.Get("X-Amz-Content-Sha256")
	if digest == "" {
		sum := sha256.Sum256(in.Body)
		digest = hex.EncodeToString(sum[:])
		req.Header.Set("X-Amz-Content-Sha256", digest)
	}
	err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(ctx,
		aws.Credentials{AccessKeyID: w.who.AccessKeyID, SecretAccessKey: w.who.SecretAccessKey}, req, digest, "s3", w.who.Region, at)
	return req, err
}

// presign makes an address that stands for in, a request without a body, for a while from at.
func (w wire) presign(ctx context.Context, in Request, life time.Duration, at time.Time) (string, error) {
	address := w.base + "/" + in.Bucket + "/" + escape(in.Key) + "?X-Amz-Expires=" + strconv.Itoa(int(life/time.Second))
	req, err := http.NewRequestWithContext(ctx, in.Method, address, nil)
	if err != nil {
		return "", err
	}
	signed, _, err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).PresignHTTP(ctx,
		aws.Credentials{AccessKeyID: w.who.AccessKeyID, SecretAccessKey: w.who.SecretAccessKey}, req, "UNSIGNED-PAYLOAD", "s3", w.who.Region, at)
	return signed, err
}

// do sends in and reads the whole answer. An error says that there was none.
func (w wire) do(ctx context.Context, in Request) (Response, error) {
	req, err := w.sign(ctx, in, time.Now())
	if err != nil {
		return Response{}, err
	}
	return w.send(req)
}

func (w wire) send(req *http.Request) (Response, error) {
	res, err := w.http.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return Response{Status: res.StatusCode, Header: res.Header, Body: body}, err
}

// code is the S3 error code of an answer, "" when it has none.
func (r Response) code() string {
	var e struct {
		XMLName xml.Name
		Code    string
	}
	if xml.Unmarshal(r.Body, &e) != nil || e.XMLName.Local != "Error" {
		return ""
	}
	return e.Code
}

func (r Response) version() redoubt.VersionID {
	return redoubt.VersionID(r.Header.Get("X-Amz-Version-Id"))
}

// errStatus is an answer that a caller has no use for.
type errStatus struct{ Response }

func (e errStatus) Error() string {
	return http.StatusText(e.Status) + " " + e.code() + ": " + string(e.Body[:min(len(e.Body), 400)])
}

// want is do for a request that must be answered with one of the statuses.
func (w wire) want(ctx context.Context, in Request, statuses ...int) (Response, error) {
	r, err := w.do(ctx, in)
	if err != nil {
		return r, err
	}
	for _, s := range statuses {
		if r.Status == s {
			return r, nil
		}
	}
	return r, errStatus{r}
}

func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// answered tells an answer that came, whatever it says, from a connection that broke.
func answered(err error) bool {
	var e errStatus
	return err == nil || errors.As(err, &e)
}
