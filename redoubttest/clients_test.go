package redoubttest

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/tags"

	"redoubt"
)

// clientsDir names a folder with what `redoubt env` printed for s-analyst, u-analyst and admin of a running estate; scripts/clients
// sets it. Without it these tests run against an enclave of their own.
const clientsDir = "REDOUBT_CLIENTS_DIR"

const oddName = "naïve ü +plus & space (1).txt"

// clientSite gives clients of people what env prints for them.
type clientSite struct {
	t   *testing.T
	env func(who string) map[string]string
}

func newClientSite(t *testing.T) *clientSite {
	if dir := os.Getenv(clientsDir); dir != "" {
		return &clientSite{t: t, env: func(who string) map[string]string { return readExports(t, filepath.Join(dir, who+".env")) }}
	}
	if fips140.Enforced() {
		t.Skip("the clients themselves use MD5; scripts/clients runs them against a server under enforcement or not")
	}
	s := New(t, Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Time: time.Now})
	server := httptest.NewTLSServer(s.Handler)
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s.check(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return &clientSite{t: t, env: func(who string) map[string]string {
		m := s.Mint(redoubt.SubjectName(who), "")
		return map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": m.Region, "AWS_ACCESS_KEY_ID": m.AccessKeyID,
			"AWS_SECRET_ACCESS_KEY": m.SecretAccessKey, "AWS_CA_BUNDLE": ca}
	}}
}

// readExports reads lines of export NAME=VALUE; the values of a credential need no quotes.
func readExports(t *testing.T, path string) map[string]string {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		env[name] = strings.Trim(value, "'")
	}
	return env
}

// aws is the SDK as its users have it: everything from the environment.
func (s *clientSite) aws(who string) *awss3.Client {
	for name, value := range s.env(who) {
		s.t.Setenv(name, value)
	}
	cfg, err := config.LoadDefaultConfig(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return awss3.NewFromConfig(cfg, func(o *awss3.Options) { o.UsePathStyle = true })
}

func (s *clientSite) http(who string) *http.Client {
	transport, err := minio.DefaultTransport(true)
	if err != nil {
		s.t.Fatal(err)
	}
	bundle, err := os.ReadFile(s.env(who)["AWS_CA_BUNDLE"])
	if err != nil {
		s.t.Fatal(err)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(bundle) {
		s.t.Fatal("no authority in the bundle")
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (s *clientSite) minio(who string) *minio.Client {
	e := s.env(who)
	o := &minio.Options{Secure: true, Region: e["AWS_REGION"], TrailingHeaders: true, Transport: s.http(who).Transport,
		Creds: credentials.NewStaticV4(e["AWS_ACCESS_KEY_ID"], e["AWS_SECRET_ACCESS_KEY"], "")}
	endpoint := strings.TrimPrefix(e["AWS_ENDPOINT_URL"], "https://")
	if who == "s-analyst" && os.Getenv("MINIO_ENDPOINT") != "" { // as env --client minio prints it; trust by SSL_CERT_FILE
		endpoint, o.Region, o.Creds, o.Transport = os.Getenv("MINIO_ENDPOINT"), os.Getenv("MINIO_REGION"), credentials.NewEnvMinio(), nil
	}
	c, err := minio.New(endpoint, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func clientContent(n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(n)})
	src.Read(b)
	return b
}

func fetch(t *testing.T, c *http.Client, method, address string, body []byte) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, got
}

// looksLikeMD5 is what clients decide by.
var looksLikeMD5 = regexp.MustCompile(`^"?[0-9a-fA-F]{32}"?$`)

func checkETag(t *testing.T, content []byte, etag string) {
	t.Helper()
	if sum := md5.Sum(content); looksLikeMD5.MatchString(etag) && strings.Trim(etag, `"`) != hex.EncodeToString(sum[:]) {
		t.Errorf("the ETag %s looks like an MD5 and is not the content's", etag)
	}
}

// clientStep is one check of a client. Steps build on one another, so a failed one ends the client's test.
type clientStep struct {
	name string
	run  func(t *testing.T)
}

func runSteps(t *testing.T, steps []clientStep) {
	for _, s := range steps {
		if !t.Run(s.name, s.run) {
			t.FailNow()
		}
	}
}

func TestClientMinioGo(t *testing.T) {
	site := newClientSite(t)
	s, u, admin, web := site.minio("s-analyst"), site.minio("u-analyst"), site.minio("admin"), site.http("s-analyst")
	const bucket = "c-minio-go"
	ctx := t.Context()
	small, million, twenty := []byte("CONVOY 7 AT GRID 38TLN 4521\n"), clientContent(1_000_000), clientContent(20<<20+7)
	no := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(t *testing.T, err error, code string) {
		t.Helper()
		if got := minio.ToErrorResponse(err); err == nil || got.Code != code {
			t.Fatalf("got %v (%s), want %s", err, got.Code, code)
		}
	}
	put := func(t *testing.T, c *minio.Client, key string, content []byte, o minio.PutObjectOptions) minio.UploadInfo {
		t.Helper()
		info, err := c.PutObject(ctx, bucket, key, bytes.NewReader(content), int64(len(content)), o)
		no(t, err)
		return info
	}
	get := func(c *minio.Client, key string, o minio.GetObjectOptions) ([]byte, error) {
		r, err := c.GetObject(ctx, bucket, key, o)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	same := func(t *testing.T, key string, o minio.GetObjectOptions, want []byte) {
		t.Helper()
		got, err := get(s, key, o)
		no(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes are not those %d", key, len(got), len(want))
		}
	}
	labelled := func(t *testing.T, key, want string) minio.ObjectInfo {
		t.Helper()
		info, err := s.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
		no(t, err)
		if got := info.UserMetadata["Redoubt-Label"]; got != want {
			t.Fatalf("%s is labelled %q, want %q", key, got, want)
		}
		return info
	}
	list := func(t *testing.T, c *minio.Client, o minio.ListObjectsOptions) (keys []string) {
		t.Helper()
		for info := range c.ListObjects(ctx, bucket, o) {
			no(t, info.Err)
			keys = append(keys, info.Key)
		}
		return keys
	}
	runSteps(t, []clientStep{
		{"make bucket, and who may not", func(t *testing.T) {
			no(t, admin.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}))
			refused(t, s.MakeBucket(ctx, "c-minio-go-refused", minio.MakeBucketOptions{}), "AccessDenied")
			if ok, err := s.BucketExists(ctx, bucket); err != nil || !ok {
				t.Fatal(ok, err)
			}
			if ok, err := s.BucketExists(ctx, "c-minio-go-refused"); err != nil || ok {
				t.Fatal(ok, err)
			}
		}},
		{"put, get, label, ETag", func(t *testing.T) {
			checkETag(t, small, put(t, s, "small", small, minio.PutObjectOptions{}).ETag)
			checkETag(t, small, put(t, s, "summed", small, minio.PutObjectOptions{SendContentMd5: true}).ETag)
			same(t, "small", minio.GetObjectOptions{}, small)
			labelled(t, "small", "SECRET")
			put(t, s, "million", million, minio.PutObjectOptions{})
			put(t, s, "empty", nil, minio.PutObjectOptions{})
			same(t, "empty", minio.GetObjectOptions{}, []byte{})
		}},
		{"metadata and label by UserMetadata", func(t *testing.T) {
			put(t, s, "meta", small, minio.PutObjectOptions{UserMetadata: map[string]string{"color": "blue", "redoubt-label": "(S)"}})
			if info := labelled(t, "meta", "SECRET"); info.UserMetadata["Color"] != "blue" {
				t.Fatal(info.UserMetadata)
			}
			_, err := s.PutObject(ctx, bucket, "down", bytes.NewReader(small), int64(len(small)), minio.PutObjectOptions{UserMetadata: map[string]string{"redoubt-label": "UNCLASSIFIED"}})
			refused(t, err, "AccessDenied")
		}},
		{"range", func(t *testing.T) {
			var o minio.GetObjectOptions
			no(t, o.SetRange(1000, 1999))
			same(t, "million", o, million[1000:2000])
			r, err := s.GetObject(ctx, bucket, "million", minio.GetObjectOptions{})
			no(t, err)
			defer r.Close()
			part := make([]byte, 7)
			if _, err := r.ReadAt(part, 500_000); err != nil || !bytes.Equal(part, million[500_000:500_007]) {
				t.Fatal(err)
			}
		}},
		{"multipart, 20 MiB, of known and of unknown size", func(t *testing.T) {
			put(t, s, "twenty", twenty, minio.PutObjectOptions{PartSize: 5 << 20})
			same(t, "twenty", minio.GetObjectOptions{}, twenty)
			_, err := s.PutObject(ctx, bucket, "streamed", bytes.NewReader(twenty), -1, minio.PutObjectOptions{PartSize: 16 << 20})
			no(t, err)
			same(t, "streamed", minio.GetObjectOptions{}, twenty)
			for upload := range s.ListIncompleteUploads(ctx, bucket, "", true) {
				t.Fatal(upload)
			}
		}},
		{"copy, and copy by parts, label carried", func(t *testing.T) {
			put(t, u, "low", small, minio.PutObjectOptions{UserMetadata: map[string]string{"color": "red"}})
			_, err := s.CopyObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "copied"}, minio.CopySrcOptions{Bucket: bucket, Object: "low"})
			no(t, err)
			if info := labelled(t, "copied", "SECRET"); info.UserMetadata["Color"] != "red" {
				t.Fatal(info.UserMetadata)
			}
			_, err = s.ComposeObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "joined"}, minio.CopySrcOptions{Bucket: bucket, Object: "twenty", MatchRange: true, Start: 0, End: 6<<20 - 1},
				minio.CopySrcOptions{Bucket: bucket, Object: "small"})
			no(t, err)
			same(t, "joined", minio.GetObjectOptions{}, slices.Concat(twenty[:6<<20], small))
			labelled(t, "joined", "SECRET")
			_, err = u.CopyObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "stolen"}, minio.CopySrcOptions{Bucket: bucket, Object: "small"})
			refused(t, err, "NoSuchKey")
		}},
		{"versions and delete markers", func(t *testing.T) {
			one, two := put(t, s, "v", []byte("one"), minio.PutObjectOptions{}).VersionID, put(t, s, "v", []byte("two"), minio.PutObjectOptions{}).VersionID
			var ids []string
			for info := range s.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: "v", WithVersions: true, Recursive: true}) {
				no(t, info.Err)
				ids = append(ids, info.VersionID)
			}
			if !slices.Equal(ids, []string{two, one}) {
				t.Fatal(ids, one, two)
			}
			same(t, "v", minio.GetObjectOptions{VersionID: one}, []byte("one"))
			_, err := get(u, "v", minio.GetObjectOptions{VersionID: one})
			refused(t, err, "NoSuchVersion")
			no(t, s.RemoveObject(ctx, bucket, "v", minio.RemoveObjectOptions{}))
			_, err = get(s, "v", minio.GetObjectOptions{})
			refused(t, err, "NoSuchKey")
			for info := range s.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: "v", WithVersions: true, Recursive: true}) {
				if info.IsDeleteMarker || info.VersionID == two {
					no(t, s.RemoveObject(ctx, bucket, "v", minio.RemoveObjectOptions{VersionID: info.VersionID}))
				}
			}
			same(t, "v", minio.GetObjectOptions{}, []byte("one"))
		}},
		{"presigned GET and PUT, and a POST policy", func(t *testing.T) {
			to, err := s.PresignedPutObject(ctx, bucket, "signed/"+oddName, time.Minute)
			no(t, err)
			if status, body := fetch(t, web, http.MethodPut, to.String(), small); status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			from, err := s.PresignedGetObject(ctx, bucket, "signed/"+oddName, time.Minute, url.Values{"response-content-type": {"text/x-note"}})
			no(t, err)
			if status, body := fetch(t, web, http.MethodGet, from.String(), nil); status != http.StatusOK || !bytes.Equal(body, small) {
				t.Fatalf("%d %s", status, body)
			}
			p := minio.NewPostPolicy()
			no(t, errors.Join(p.SetBucket(bucket), p.SetKey("posted"), p.SetExpires(time.Now().Add(time.Minute)), p.SetContentLengthRange(1, 100)))
			_, fields, err := s.PresignedPostPolicy(ctx, p)
			no(t, err)
			if fields["policy"] == "" || fields["x-amz-signature"] == "" {
				t.Fatal(fields)
			}
		}},
		{"tags", func(t *testing.T) {
			set, err := tags.NewTags(map[string]string{"topic": "a b+c"}, true)
			no(t, err)
			no(t, s.PutObjectTagging(ctx, bucket, "small", set, minio.PutObjectTaggingOptions{}))
			got, err := s.GetObjectTagging(ctx, bucket, "small", minio.GetObjectTaggingOptions{})
			no(t, err)
			if got.ToMap()["topic"] != "a b+c" {
				t.Fatal(got)
			}
			_, err = u.GetObjectTagging(ctx, bucket, "small", minio.GetObjectTaggingOptions{})
			refused(t, err, "NoSuchKey")
			no(t, s.RemoveObjectTagging(ctx, bucket, "small", minio.RemoveObjectTaggingOptions{}))
		}},
		{"names and lists in pages", func(t *testing.T) {
			var want []string
			for _, name := range []string{oddName, "a//b", "日本/語", "per%20cent", `quote"'<&>`} {
				put(t, s, "names/"+name, []byte(name), minio.PutObjectOptions{})
				same(t, "names/"+name, minio.GetObjectOptions{}, []byte(name))
				want = append(want, "names/"+name)
			}
			slices.Sort(want)
			for _, v1 := range []bool{true, false} {
				if got := list(t, s, minio.ListObjectsOptions{Prefix: "names/", Recursive: true, MaxKeys: 2, UseV1: v1}); !slices.Equal(got, want) {
					t.Fatal(got)
				}
			}
			if got := list(t, s, minio.ListObjectsOptions{Prefix: "names/"}); !slices.Contains(got, "names/a/") {
				t.Fatal(got)
			}
		}},
		{"a lower subject gets 404 and empty lists", func(t *testing.T) {
			_, err := u.StatObject(ctx, bucket, "small", minio.StatObjectOptions{})
			refused(t, err, "NoSuchKey")
			for _, o := range []minio.ListObjectsOptions{{Recursive: true}, {Recursive: true, WithVersions: true}, {UseV1: true}} {
				if got := list(t, u, o); !slices.Equal(got, []string{"low"}) {
					t.Fatal(got)
				}
			}
		}},
		{"delete, and delete many", func(t *testing.T) {
			no(t, s.RemoveObject(ctx, bucket, "small", minio.RemoveObjectOptions{}))
			for r := range s.RemoveObjects(ctx, bucket, s.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}), minio.RemoveObjectsOptions{}) {
				t.Fatal(r)
			}
			if got := list(t, s, minio.ListObjectsOptions{Recursive: true}); len(got) > 0 {
				t.Fatal(got)
			}
		}},
	})
}

func TestClientAWSSDKGo(t *testing.T) {
	site := newClientSite(t)
	s, u, admin, web := site.aws("s-analyst"), site.aws("u-analyst"), site.aws("admin"), site.http("s-analyst")
	bucket := aws.String("c-aws-go")
	ctx := t.Context()
	small, million, twenty := []byte("CONVOY 7 AT GRID 38TLN 4521\n"), clientContent(1_000_000), clientContent(20<<20+7)
	no := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(t *testing.T, err error, code string) {
		t.Helper()
		var got smithy.APIError
		if !errors.As(err, &got) || got.ErrorCode() != code {
			t.Fatalf("got %v, want %s", err, code)
		}
	}
	put := func(t *testing.T, c *awss3.Client, key string, content []byte) *awss3.PutObjectOutput {
		t.Helper()
		out, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: &key, Body: bytes.NewReader(content)})
		no(t, err)
		return out
	}
	get := func(ctx context.Context, c *awss3.Client, in *awss3.GetObjectInput) ([]byte, error) {
		in.Bucket = bucket
		out, err := c.GetObject(ctx, in)
		if err != nil {
			return nil, err
		}
		defer out.Body.Close()
		return io.ReadAll(out.Body)
	}
	same := func(t *testing.T, in *awss3.GetObjectInput, want []byte) {
		t.Helper()
		got, err := get(ctx, s, in)
		no(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes are not those %d", *in.Key, len(got), len(want))
		}
	}
	labelled := func(t *testing.T, key, want string) *awss3.HeadObjectOutput {
		t.Helper()
		out, err := s.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: bucket, Key: &key})
		no(t, err)
		if got := out.Metadata["redoubt-label"]; got != want {
			t.Fatalf("%s is labelled %q, want %q", key, got, want)
		}
		return out
	}
	runSteps(t, []clientStep{
		{"make bucket, and who may not", func(t *testing.T) {
			_, err := admin.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket})
			no(t, err)
			_, err = s.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("c-aws-go-refused")})
			refused(t, err, "AccessDenied")
		}},
		{"put, get, label, ETag, with the default checksum", func(t *testing.T) {
			out := put(t, s, "small", small)
			if out.ChecksumCRC32 == nil {
				t.Error("the checksum that the SDK sent does not come back")
			}
			checkETag(t, small, *out.ETag)
			same(t, &awss3.GetObjectInput{Key: aws.String("small")}, small)
			labelled(t, "small", "SECRET")
			put(t, s, "million", million)
			put(t, s, "empty", nil)
			same(t, &awss3.GetObjectInput{Key: aws.String("empty")}, []byte{})
		}},
		{"metadata and label by Metadata", func(t *testing.T) {
			in := &awss3.PutObjectInput{Bucket: bucket, Key: aws.String("meta"), Body: bytes.NewReader(small), Metadata: map[string]string{"color": "blue", "redoubt-label": "(S)"}}
			_, err := s.PutObject(ctx, in)
			no(t, err)
			if out := labelled(t, "meta", "SECRET"); out.Metadata["color"] != "blue" {
				t.Fatal(out.Metadata)
			}
			in.Metadata["redoubt-label"] = "UNCLASSIFIED"
			_, err = s.PutObject(ctx, in)
			refused(t, err, "AccessDenied")
		}},
		{"range and conditions", func(t *testing.T) {
			same(t, &awss3.GetObjectInput{Key: aws.String("million"), Range: aws.String("bytes=1000-1999")}, million[1000:2000])
			_, err := get(ctx, s, &awss3.GetObjectInput{Key: aws.String("million"), Range: aws.String("bytes=1000000-")})
			refused(t, err, "InvalidRange")
			_, err = s.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: aws.String("million"), Body: bytes.NewReader(small), IfNoneMatch: aws.String("*")})
			refused(t, err, "PreconditionFailed")
		}},
		{"multipart by the manager, 20 MiB", func(t *testing.T) {
			_, err := manager.NewUploader(s).Upload(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: aws.String("twenty"), Body: io.MultiReader(bytes.NewReader(twenty))})
			no(t, err)
			got := manager.NewWriteAtBuffer(nil)
			_, err = manager.NewDownloader(s).Download(ctx, got, &awss3.GetObjectInput{Bucket: bucket, Key: aws.String("twenty")})
			no(t, err)
			if !bytes.Equal(got.Bytes(), twenty) {
				t.Fatal("other bytes")
			}
		}},
		{"copy, and copy a part, label carried", func(t *testing.T) {
			put(t, u, "low", small)
			_, err := s.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: bucket, Key: aws.String("copied"), CopySource: aws.String("c-aws-go/low")})
			no(t, err)
			labelled(t, "copied", "SECRET")
			_, err = u.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: bucket, Key: aws.String("stolen"), CopySource: aws.String("c-aws-go/small")})
			refused(t, err, "NoSuchKey")
			key := aws.String("joined")
			up, err := s.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
			no(t, err)
			part, err := s.UploadPartCopy(ctx, &awss3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1),
				CopySource: aws.String("c-aws-go/twenty"), CopySourceRange: aws.String("bytes=7-6000006")})
			no(t, err)
			_, err = s.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId,
				MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.CopyPartResult.ETag, PartNumber: aws.Int32(1)}}}})
			no(t, err)
			same(t, &awss3.GetObjectInput{Key: key}, twenty[7:6_000_007])
			labelled(t, "joined", "SECRET")
		}},
		{"versions and delete markers", func(t *testing.T) {
			one, two := put(t, s, "v", []byte("one")).VersionId, put(t, s, "v", []byte("two")).VersionId
			listed, err := s.ListObjectVersions(ctx, &awss3.ListObjectVersionsInput{Bucket: bucket, Prefix: aws.String("v")})
			no(t, err)
			if len(listed.Versions) != 2 || *listed.Versions[0].VersionId != *two || *listed.Versions[1].VersionId != *one {
				t.Fatal(listed.Versions)
			}
			same(t, &awss3.GetObjectInput{Key: aws.String("v"), VersionId: one}, []byte("one"))
			gone, err := s.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: aws.String("v")})
			no(t, err)
			_, err = get(ctx, s, &awss3.GetObjectInput{Key: aws.String("v")})
			refused(t, err, "NoSuchKey")
			for _, id := range []*string{gone.VersionId, two} {
				_, err = s.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: aws.String("v"), VersionId: id})
				no(t, err)
			}
			same(t, &awss3.GetObjectInput{Key: aws.String("v")}, []byte("one"))
			_, err = get(ctx, u, &awss3.GetObjectInput{Key: aws.String("v"), VersionId: one})
			refused(t, err, "NoSuchVersion")
		}},
		{"presigned GET and PUT", func(t *testing.T) {
			p, key := awss3.NewPresignClient(s), aws.String("signed/"+oddName)
			to, err := p.PresignPutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key})
			no(t, err)
			if status, body := fetch(t, web, to.Method, to.URL, small); status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			from, err := p.PresignGetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key})
			no(t, err)
			if status, body := fetch(t, web, from.Method, from.URL, nil); status != http.StatusOK || !bytes.Equal(body, small) {
				t.Fatalf("%d %s", status, body)
			}
		}},
		{"tags", func(t *testing.T) {
			key := aws.String("small")
			_, err := s.PutObjectTagging(ctx, &awss3.PutObjectTaggingInput{Bucket: bucket, Key: key, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("topic"), Value: aws.String("a b")}}}})
			no(t, err)
			out, err := s.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: bucket, Key: key})
			no(t, err)
			if len(out.TagSet) != 1 || *out.TagSet[0].Value != "a b" {
				t.Fatal(out.TagSet)
			}
			_, err = s.DeleteObjectTagging(ctx, &awss3.DeleteObjectTaggingInput{Bucket: bucket, Key: key})
			no(t, err)
		}},
		{"1,100 objects in pages, and names", func(t *testing.T) {
			var want []string
			for i := range 1100 {
				want = append(want, fmt.Sprintf("many/%04d", i))
			}
			want[7] = "many/0007 " + oddName
			todo := make(chan string)
			errs := make(chan error, 16)
			for range cap(errs) {
				go func() { // ends when todo is closed
					var err error
					for key := range todo {
						_, e := s.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader(key)})
						err = errors.Join(err, e)
					}
					errs <- err
				}()
			}
			for _, key := range want {
				todo <- key
			}
			close(todo)
			for range cap(errs) {
				no(t, <-errs)
			}
			var got []string
			pages := awss3.NewListObjectsV2Paginator(s, &awss3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("many/")})
			for pages.HasMorePages() {
				page, err := pages.NextPage(ctx)
				no(t, err)
				for _, o := range page.Contents {
					got = append(got, *o.Key)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d keys, want %d", len(got), len(want))
			}
		}},
		{"a lower subject gets 404 and empty lists", func(t *testing.T) {
			_, err := u.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: bucket, Key: aws.String("small")})
			refused(t, err, "NotFound")
			out, err := u.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: bucket})
			no(t, err)
			if len(out.Contents) != 1 || *out.KeyCount != 1 || *out.Contents[0].Key != "low" {
				t.Fatal(out.Contents)
			}
		}},
		{"delete, and delete many", func(t *testing.T) {
			_, err := s.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: aws.String("small")})
			no(t, err)
			for {
				page, err := s.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: bucket})
				no(t, err)
				if len(page.Contents) == 0 {
					return
				}
				in := &types.Delete{}
				for _, o := range page.Contents {
					in.Objects = append(in.Objects, types.ObjectIdentifier{Key: o.Key})
				}
				out, err := s.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: bucket, Delete: in})
				no(t, err)
				if len(out.Errors) > 0 || len(out.Deleted) != len(in.Objects) {
					t.Fatal(out.Errors)
				}
			}
		}},
	})
}
