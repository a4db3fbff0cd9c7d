package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"redoubt"
)

// bare answers at once, so that what is measured is the front end alone: routing, SigV4, digests, headers, XML.
type bare struct {
	*fake
	version redoubt.Version
	content []byte
	page    redoubt.ObjectPage
	key     [32]byte
}

func (b *bare) SigningKey(context.Context, string, redoubt.Scope) ([32]byte, redoubt.Credential, error) {
	return b.key, b.people["LOW"].cred, nil
}

func (b *bare) PutObject(_ context.Context, _ redoubt.Credential, in redoubt.PutObject) (redoubt.Version, error) {
	if _, err := io.ReadFull(in.Body, b.content[:in.SizeBytes]); err != nil {
		return redoubt.Version{}, err
	}
	sums, _, err := in.Finish()
	v := b.version
	v.Checksums = sums
	return v, err
}

func (b *bare) GetObject(context.Context, redoubt.Credential, redoubt.ReadObject) (redoubt.Object, error) {
	return fakeObject{&fakeVersion{b.version, b.content}}, nil
}

func (b *bare) HeadObject(context.Context, redoubt.Credential, redoubt.ReadObject) (redoubt.Version, error) {
	return b.version, nil
}

func (b *bare) ListObjects(context.Context, redoubt.Credential, redoubt.ListObjects) (redoubt.ObjectPage, error) {
	return b.page, nil
}

// sink is a ResponseWriter that keeps nothing.
type sink struct {
	h      http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

func benchmark(b *testing.B, method, path string, size int, keys int) {
	f := newFake()
	back := &bare{fake: f, content: make([]byte, max(size, 1))}
	p := f.people["LOW"]
	now := time.Now()
	copy(back.key[:], signingKey(p.secret, redoubt.Scope{Date: now.UTC().Format("20060102"), Region: testRegion, Service: "s3"}))
	back.version = redoubt.Version{ID: "0123456789abcdef0123456789abcdef", ETag: "0123456789abcdef-1", Label: p.cred.Working, Modified: now, SizeBytes: int64(size),
		Checksums: redoubt.Checksums{CRC64NVME: "AAAAAAAAAAA="}}
	for i := range keys {
		v := back.version
		v.Name.Key = fmt.Sprintf("some/folder/with/a/name/object-%06d.txt", i)
		back.page.Versions = append(back.page.Versions, v)
	}
	o := optionsOf(f)
	o.Objects, o.Lists, o.Auth = back, back, back
	h := New(o)
	body := make([]byte, size)
	if method != "PUT" {
		body = nil
	}
	sum := sha256.Sum256(body)
	r := httptest.NewRequest(method, "http://s3.example:9000"+path, bytes.NewReader(body))
	r.RequestURI = path
	r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	r.Header.Set("User-Agent", "aws-sdk-go-v2/1.0 os/linux lang/go#1.26 md/GOOS#linux md/GOARCH#amd64 api/s3#1.0")
	if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "LOW", SecretAccessKey: p.secret}, r,
		r.Header.Get("X-Amz-Content-Sha256"), "s3", testRegion, now, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(size))
	reader := bytes.NewReader(body)
	for b.Loop() {
		reader.Reset(body)
		r.Body = io.NopCloser(reader)
		w := &sink{h: make(http.Header, 24)}
		h.ServeHTTP(w, r)
		if w.status != 200 {
			b.Fatalf("got status %d", w.status)
		}
	}
}

func BenchmarkPut4KiB(b *testing.B) { benchmark(b, "PUT", "/reports/folder/key", 4<<10, 0) }
func BenchmarkPut1MiB(b *testing.B) { benchmark(b, "PUT", "/reports/folder/key", 1<<20, 0) }
func BenchmarkGet4KiB(b *testing.B) { benchmark(b, "GET", "/reports/folder/key", 4<<10, 0) }
func BenchmarkGet1MiB(b *testing.B) { benchmark(b, "GET", "/reports/folder/key", 1<<20, 0) }
func BenchmarkHead(b *testing.B)    { benchmark(b, "HEAD", "/reports/folder/key", 4<<10, 0) }
func BenchmarkList1000(b *testing.B) {
	benchmark(b, "GET", "/reports?list-type=2&prefix=some%2F", 0, 1000)
}
