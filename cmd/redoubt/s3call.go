package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"redoubt"
)

// maxSettingsBytes bounds what a node answers about its buckets: a thousand names and dates.
const maxSettingsBytes = 1 << 20

// s3call asks the node's S3 interface about a bucket ("": about all) and gives the answer.
func (s *session) s3call(ctx context.Context, method string, bucket redoubt.BucketName, query string, headers map[string]string, body []byte) ([]byte, error) {
	op := strings.ToLower(method) + " bucket"
	req, err := http.NewRequestWithContext(ctx, method, s.runtime.S3URL+"/"+url.PathEscape(string(bucket)), bytes.NewReader(body))
	if err != nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: err}
	}
	req.URL.RawQuery = query
	for name, v := range headers {
		if v != "" {
			req.Header.Set(name, v)
		}
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	who := aws.Credentials{AccessKeyID: s.minted.AccessKeyID, SecretAccessKey: s.minted.SecretAccessKey}
	if err := signer.SignHTTP(ctx, who, req, hash, "s3", s.minted.Region, time.Now()); err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.roots}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(req)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: string(bucket), Kind: redoubt.Unavailable, Err: err}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxSettingsBytes))
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: string(bucket), Kind: redoubt.Unavailable, Err: err}
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, bucketRefusal(op, bucket, res.StatusCode, answer)
	}
	return answer, nil
}

// bucketRefusal reads an S3 error about a bucket.
func bucketRefusal(op string, bucket redoubt.BucketName, status int, answer []byte) error {
	var doc struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	e := &redoubt.Error{Op: op, Object: string(bucket), Kind: redoubt.Invalid}
	if err := xml.Unmarshal(answer, &doc); err != nil || doc.Code == "" {
		e.Kind, e.Err = redoubt.Unavailable, fmt.Errorf("the answer is %d", status)
		return e
	}
	kinds := map[string]redoubt.Kind{"AccessDenied": redoubt.Denied, "NoSuchBucket": redoubt.NotFound, "BucketAlreadyOwnedByYou": redoubt.Exists,
		"BucketAlreadyExists": redoubt.Exists, "BucketNotEmpty": redoubt.NotEmpty, "NotImplemented": redoubt.NotImplemented, "InternalError": redoubt.Internal,
		"ServiceUnavailable": redoubt.Unavailable, "SlowDown": redoubt.Unavailable, "InvalidAccessKeyId": redoubt.Unauthenticated, "SignatureDoesNotMatch": redoubt.Unauthenticated}
	if k, ok := kinds[doc.Code]; ok {
		e.Kind = k
	}
	switch {
	case e.Kind == redoubt.Denied:
		e.Rule = strings.TrimPrefix(doc.Message, "Access Denied: ")
		e.Hint = "buckets are made, set and removed by the storage role: in the example, --as admin@NODE"
	case e.Kind == redoubt.Invalid:
		e.Err = errors.New(doc.Message)
	}
	return e
}
