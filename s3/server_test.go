package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"redoubt"
)

const testRegion = "estate-1"

// site is a front end over the fake, behind a real listener.
type site struct {
	*fake
	t   *testing.T
	url string
	*http.Client
}

func optionsOf(f *fake) Options {
	return Options{Objects: f, Lists: f, Uploads: f, Buckets: f, Auth: f, Policy: f.policy, Region: testRegion, Domain: "s3.test",
		Clock: func() time.Time { return f.now() }}
}

// newSite serves over TLS; with buckets made beforehand.
func newSite(t *testing.T, buckets ...string) *site { return newSiteWith(t, true, nil, buckets...) }

func newSiteWith(t *testing.T, tls bool, change func(*Options), buckets ...string) *site {
	t.Helper()
	f := newFake()
	o := optionsOf(f)
	if change != nil {
		change(&o)
	}
	srv := httptest.NewUnstartedServer(New(o))
	if tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	for _, b := range buckets {
		if _, err := f.CreateBucket(t.Context(), redoubt.Credential{}, redoubt.BucketName(b), redoubt.BucketSettings{}); err != nil {
			t.Fatal(err)
		}
	}
	client := srv.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &site{f, t, srv.URL, client}
}

// sdk gives an AWS client for a person.
func (s *site) sdk(id string) *awss3.Client {
	return awss3.New(awss3.Options{
		Region: testRegion, BaseEndpoint: aws.String(s.url), UsePathStyle: true, HTTPClient: s.Client,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: s.people[id].secret}, nil
		}),
		RetryMaxAttempts: 1, RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	})
}

// request makes an unsigned request with headers in turn.
func (s *site) request(method, path string, body []byte, headers ...string) *http.Request {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// sign signs with the AWS signer, not with our own code.
func (s *site) sign(r *http.Request, id string, body []byte) *http.Request {
	s.t.Helper()
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if hash == "" {
		sum := sha256.Sum256(body)
		hash = hex.EncodeToString(sum[:])
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	creds := aws.Credentials{AccessKeyID: id, SecretAccessKey: s.people[id].secret}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hash, "s3", testRegion, s.now(), func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = true
	}); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// answer is a response read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (s *site) send(r *http.Request) answer {
	s.t.Helper()
	resp, err := s.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// do signs as id and sends.
func (s *site) do(id, method, path string, body []byte, headers ...string) answer {
	s.t.Helper()
	return s.send(s.sign(s.request(method, path, body, headers...), id, body))
}

// code is the S3 error code of an answer.
func (a answer) code() string {
	_, rest, ok := strings.Cut(a.body, "<Code>")
	if !ok {
		return ""
	}
	code, _, _ := strings.Cut(rest, "</Code>")
	return code
}

func (a answer) want(t *testing.T, status int, code string) answer {
	t.Helper()
	if a.status != status || a.code() != code {
		t.Fatalf("got %d %s, want %d %s: %s", a.status, a.code(), status, code, a.body)
	}
	return a
}

// apiCode is the S3 error code of an SDK error.
func apiCode(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	if err == nil {
		return ""
	}
	return err.Error()
}
