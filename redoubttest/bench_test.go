package redoubttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"redoubt"
	"redoubt/store/embedded"
)

// served is a Stack on the embedded store behind a loopback listener, in real time.
type served struct {
	*Stack
	url    string
	minted redoubt.Minted
	client *http.Client
	signer *v4.Signer
}

func serve(b *testing.B) *served {
	b.Helper()
	engine, err := embedded.Open(b.TempDir(), embedded.Options{Key: make([]byte, 32)})
	if err != nil {
		b.Fatal(err)
	}
	s := &served{Stack: New(b, Options{Seed: 1, Engine: engine, Time: time.Now, Clock: NewClock(time.Now())}),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}},
		signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })}
	s.minted = s.Mint("s-analyst", "")
	srv := httptest.NewServer(s.Handler)
	b.Cleanup(func() {
		s.client.CloseIdleConnections()
		srv.Close()
	})
	s.url = srv.URL
	return s
}

func (s *served) do(method, path string, body []byte) error {
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", digest)
	if err := s.signer.SignHTTP(context.Background(), aws.Credentials{AccessKeyID: s.minted.AccessKeyID, SecretAccessKey: s.minted.SecretAccessKey},
		req, digest, "s3", Region, time.Now()); err != nil {
		return err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		text, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s", res.Status, text)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func (s *served) parallel(b *testing.B, op func(n int64) error) {
	var n atomic.Int64
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := op(n.Add(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.StopTimer()
}

// The whole path of a request, client included: signed, decided, sealed, recorded, synced.

func BenchmarkServePut4K(b *testing.B) {
	s, body := serve(b), make([]byte, 4096)
	s.parallel(b, func(n int64) error { return s.do(http.MethodPut, fmt.Sprintf("/reports/%08d", n), body) })
}

func BenchmarkServeGet4K(b *testing.B) {
	s, body := serve(b), make([]byte, 4096)
	for n := range 1000 {
		if err := s.do(http.MethodPut, fmt.Sprintf("/reports/%08d", n), body); err != nil {
			b.Fatal(err)
		}
	}
	s.parallel(b, func(n int64) error { return s.do(http.MethodGet, fmt.Sprintf("/reports/%08d", n%1000), nil) })
}

func BenchmarkServeList1000(b *testing.B) {
	s := serve(b)
	for n := range 2000 {
		if err := s.do(http.MethodPut, fmt.Sprintf("/reports/%08d", n), nil); err != nil {
			b.Fatal(err)
		}
	}
	s.parallel(b, func(n int64) error { return s.do(http.MethodGet, "/reports?list-type=2&max-keys=1000", nil) })
}
