package s3

import (
	"bytes"
	"crypto/fips140"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestSDKWritesAndReadsAnObjectWithItsLabel(t *testing.T) {
	for _, tls := range []bool{true, false} {
		s := newSiteWith(t, tls, nil)
		c, ctx := s.sdk("HIGH"), t.Context()
		if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("reports"),
			CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: testRegion}}); err != nil {
			t.Fatal(err)
		}
		put, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("reports"), Key: aws.String("a//b/../c d+e%2F\u00e9"), Body: strings.NewReader("content"),
			Metadata: map[string]string{"redoubt-label": "SECRET", "Own": "value"}, ContentType: aws.String("text/plain"), Tagging: aws.String("a=b&c=d")})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: aws.String("reports"), Key: aws.String("a//b/../c d+e%2F\u00e9"), ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil || string(body) != "content" {
			t.Fatalf("got %q, %v", body, err)
		}
		if *got.VersionId != *put.VersionId || got.Metadata["redoubt-label"] != "SECRET" || got.Metadata["own"] != "value" ||
			*got.ContentType != "text/plain" || *got.TagCount != 2 || got.ServerSideEncryption != "AES256" || *got.ETag != *put.ETag {
			t.Errorf("got %+v", got)
		}
		if got.ChecksumCRC32 == nil {
			t.Error("the checksum that the SDK sent does not come back")
		}
		if s.seen.Name.Key != "a//b/../c d+e%2F\u00e9" {
			t.Errorf("got key %q", s.seen.Name.Key)
		}
	}
}

func TestSDKStreamsWithATrailingChecksum(t *testing.T) {
	s := newSite(t, "reports")
	content := make([]byte, 300<<10)
	rand.Read(content)
	for _, algorithm := range []types.ChecksumAlgorithm{"CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"} {
		if algorithm == "SHA1" && fips140.Enforced() {
			continue // the client cannot; our side is tried by TestEveryChecksumIsHeldTo
		}
		in := &awss3.PutObjectInput{Bucket: aws.String("reports"), Key: aws.String("k"), Body: io.MultiReader(bytes.NewReader(content)),
			ContentLength: aws.Int64(int64(len(content))), ChecksumAlgorithm: algorithm}
		if _, err := s.sdk("LOW").PutObject(t.Context(), in); err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		got, err := s.sdk("LOW").GetObject(t.Context(), &awss3.GetObjectInput{Bucket: in.Bucket, Key: in.Key, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		back, err := io.ReadAll(got.Body) // the SDK checks the checksum
		if err != nil || !bytes.Equal(back, content) {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if n := len(s.seen.Attributes.ContentEncoding); n != 0 {
			t.Errorf("got encoding %q", s.seen.Attributes.ContentEncoding)
		}
	}
}

func TestSDKListsInPages(t *testing.T) {
	s := newSite(t, "reports")
	c, ctx := s.sdk("LOW"), t.Context()
	var want []string
	for i := range 25 {
		key := fmt.Sprintf("dir%d/<&>\u00e9 %02d", i%3, i)
		want = append(want, key)
		if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("reports"), Key: &key, Body: strings.NewReader(key)}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]bool{}
	pages := awss3.NewListObjectsV2Paginator(c, &awss3.ListObjectsV2Input{Bucket: aws.String("reports"), MaxKeys: aws.Int32(7), FetchOwner: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			got[*o.Key] = true
			if *o.Size != int64(len(*o.Key)) || o.Owner == nil || *o.Owner.ID != "low" {
				t.Errorf("got %+v", o)
			}
		}
	}
	for _, key := range want {
		if !got[key] {
			t.Errorf("%q is missing", key)
		}
	}
	page, err := c.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: aws.String("reports"), Delimiter: aws.String("/")})
	if err != nil || len(page.CommonPrefixes) != 3 || len(page.Contents) != 0 {
		t.Errorf("got %+v, %v", page, err)
	}
	old, err := c.ListObjects(ctx, &awss3.ListObjectsInput{Bucket: aws.String("reports"), MaxKeys: aws.Int32(20), EncodingType: types.EncodingTypeUrl})
	if err != nil || len(old.Contents) != 20 || !*old.IsTruncated || strings.Contains(*old.Contents[0].Key, " ") {
		t.Errorf("got %+v, %v", old, err)
	}
}

func TestSDKDeletesAndSeesVersions(t *testing.T) {
	s := newSite(t, "reports")
	c, ctx := s.sdk("LOW"), t.Context()
	bucket, key := aws.String("reports"), aws.String("k")
	first, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("1")})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: key})
	if err != nil || !*gone.DeleteMarker {
		t.Fatalf("got %+v, %v", gone, err)
	}
	if _, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key}); apiCode(err) != "NoSuchKey" {
		t.Errorf("got %v", err)
	}
	if _, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key, VersionId: gone.VersionId}); apiCode(err) != "MethodNotAllowed" {
		t.Errorf("got %v", err)
	}
	if _, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key, VersionId: first.VersionId}); err != nil {
		t.Error(err)
	}
	all, err := c.ListObjectVersions(ctx, &awss3.ListObjectVersionsInput{Bucket: bucket})
	if err != nil || len(all.Versions) != 1 || len(all.DeleteMarkers) != 1 || !*all.DeleteMarkers[0].IsLatest {
		t.Fatalf("got %+v, %v", all, err)
	}
	out, err := c.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: key, VersionId: first.VersionId}, {Key: aws.String("never")}, {Key: key, VersionId: aws.String("never")}}}})
	if err != nil || len(out.Deleted) != 3 || len(out.Errors) != 0 || !*out.Deleted[1].DeleteMarker {
		t.Fatalf("got %+v, %v", out, err)
	}
}

func TestSDKUploadsInParts(t *testing.T) {
	s := newSite(t, "reports")
	c, ctx := s.sdk("LOW"), t.Context()
	bucket, key := aws.String("reports"), aws.String("k")
	up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ChecksumAlgorithm: "CRC32C",
		Metadata: map[string]string{"redoubt-label": "UNCLASSIFIED"}})
	if err != nil || up.ChecksumType != types.ChecksumTypeComposite {
		t.Fatalf("got %+v, %v", up, err)
	}
	one, err := c.UploadPart(ctx, &awss3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("first "), ChecksumAlgorithm: "CRC32C"})
	if err != nil || one.ChecksumCRC32C == nil {
		t.Fatalf("got %+v, %v", one, err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: aws.String("source"), Body: strings.NewReader("a second b")}); err != nil {
		t.Fatal(err)
	}
	two, err := c.UploadPartCopy(ctx, &awss3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(2),
		CopySource: aws.String("reports/source"), CopySourceRange: aws.String("bytes=2-7")})
	if err != nil || two.CopySourceVersionId == nil {
		t.Fatalf("got %+v, %v", two, err)
	}
	parts, err := c.ListParts(ctx, &awss3.ListPartsInput{Bucket: bucket, Key: key, UploadId: up.UploadId})
	if err != nil || len(parts.Parts) != 2 || *parts.Parts[1].Size != 6 {
		t.Fatalf("got %+v, %v", parts, err)
	}
	ups, err := c.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: bucket})
	if err != nil || len(ups.Uploads) != 1 || *ups.Uploads[0].UploadId != *up.UploadId {
		t.Fatalf("got %+v, %v", ups, err)
	}
	done, err := c.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{
			{PartNumber: aws.Int32(1), ETag: one.ETag, ChecksumCRC32C: one.ChecksumCRC32C}, {PartNumber: aws.Int32(2), ETag: two.CopyPartResult.ETag}}}})
	if err != nil || done.VersionId == nil {
		t.Fatalf("got %+v, %v", done, err)
	}
	got, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key, PartNumber: aws.Int32(2)})
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(got.Body); string(body) != "second" || *got.PartsCount != 2 || *got.ContentRange != "bytes 6-11/12" {
		t.Errorf("got %q %+v", body, got)
	}
	attrs, err := c.GetObjectAttributes(ctx, &awss3.GetObjectAttributesInput{Bucket: bucket, Key: key, ObjectAttributes: []types.ObjectAttributes{"ETag", "ObjectParts", "ObjectSize", "StorageClass", "Checksum"}})
	if err != nil || *attrs.ObjectSize != 12 || *attrs.ObjectParts.TotalPartsCount != 2 {
		t.Errorf("got %+v, %v", attrs, err)
	}
	if _, err := c.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId}); apiCode(err) != "NoSuchUpload" {
		t.Errorf("got %v", err)
	}
}

func TestSDKSetsTagsLockAndBucketConfiguration(t *testing.T) {
	s := newSite(t)
	c, ctx := s.sdk("LOW"), t.Context()
	bucket, key := aws.String("reports"), aws.String("k")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket, ObjectLockEnabledForBucket: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); apiCode(err) != "BucketAlreadyOwnedByYou" {
		t.Errorf("got %v", err)
	}
	lock, err := c.GetObjectLockConfiguration(ctx, &awss3.GetObjectLockConfigurationInput{Bucket: bucket})
	if err != nil || lock.ObjectLockConfiguration.ObjectLockEnabled != "Enabled" {
		t.Errorf("got %+v, %v", lock, err)
	}
	if _, err := c.PutObjectLockConfiguration(ctx, &awss3.PutObjectLockConfigurationInput{Bucket: bucket, ObjectLockConfiguration: &types.ObjectLockConfiguration{
		ObjectLockEnabled: "Enabled", Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: "GOVERNANCE", Days: aws.Int32(3)}}}}); err != nil {
		t.Error(err)
	}
	if s.buckets["reports"].Lock.Days != 3 {
		t.Errorf("got %+v", s.buckets["reports"].Lock)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObjectTagging(ctx, &awss3.PutObjectTaggingInput{Bucket: bucket, Key: key, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("a"), Value: aws.String("<b>")}}}}); err != nil {
		t.Fatal(err)
	}
	tags, err := c.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: bucket, Key: key})
	if err != nil || len(tags.TagSet) != 1 || *tags.TagSet[0].Value != "<b>" {
		t.Errorf("got %+v, %v", tags, err)
	}
	if _, err := c.DeleteObjectTagging(ctx, &awss3.DeleteObjectTaggingInput{Bucket: bucket, Key: key}); err != nil {
		t.Error(err)
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	if _, err := c.PutObjectRetention(ctx, &awss3.PutObjectRetentionInput{Bucket: bucket, Key: key, Retention: &types.ObjectLockRetention{Mode: "GOVERNANCE", RetainUntilDate: &until}}); err != nil {
		t.Fatal(err)
	}
	kept, err := c.GetObjectRetention(ctx, &awss3.GetObjectRetentionInput{Bucket: bucket, Key: key})
	if err != nil || !kept.Retention.RetainUntilDate.Equal(until) {
		t.Errorf("got %+v, %v", kept, err)
	}
	if _, err := c.PutObjectLegalHold(ctx, &awss3.PutObjectLegalHoldInput{Bucket: bucket, Key: key, LegalHold: &types.ObjectLockLegalHold{Status: "ON"}}); err != nil {
		t.Error(err)
	}
	head, err := c.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: bucket, Key: key})
	if err != nil || head.ObjectLockLegalHoldStatus != "ON" || head.ObjectLockMode != "GOVERNANCE" {
		t.Errorf("got %+v, %v", head, err)
	}
	if _, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: key, VersionId: head.VersionId}); apiCode(err) != "AccessDenied" {
		t.Errorf("got %v", err)
	}
}

func TestSDKConfiguresLifecycleCORSAndPolicy(t *testing.T) {
	s := newSite(t, "reports")
	c, ctx := s.sdk("LOW"), t.Context()
	bucket := aws.String("reports")
	if _, err := c.GetBucketLifecycleConfiguration(ctx, &awss3.GetBucketLifecycleConfigurationInput{Bucket: bucket}); apiCode(err) != "NoSuchLifecycleConfiguration" {
		t.Errorf("got %v", err)
	}
	rule := types.LifecycleRule{ID: aws.String("r"), Status: "Enabled", Filter: &types.LifecycleRuleFilter{And: &types.LifecycleRuleAndOperator{
		Prefix: aws.String("logs/"), ObjectSizeGreaterThan: aws.Int64(10), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}},
		Expiration: &types.LifecycleExpiration{Days: aws.Int32(5)}, NoncurrentVersionExpiration: &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(2)}}
	if _, err := c.PutBucketLifecycleConfiguration(ctx, &awss3.PutBucketLifecycleConfigurationInput{Bucket: bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{rule}}}); err != nil {
		t.Fatal(err)
	}
	life, err := c.GetBucketLifecycleConfiguration(ctx, &awss3.GetBucketLifecycleConfigurationInput{Bucket: bucket})
	if err != nil || len(life.Rules) != 1 || *life.Rules[0].Filter.And.ObjectSizeGreaterThan != 10 || *life.Rules[0].Expiration.Days != 5 {
		t.Errorf("got %+v, %v", life, err)
	}
	rule.Transitions = []types.Transition{{Days: aws.Int32(1), StorageClass: "GLACIER"}}
	if _, err := c.PutBucketLifecycleConfiguration(ctx, &awss3.PutBucketLifecycleConfigurationInput{Bucket: bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{rule}}}); apiCode(err) != "NotImplemented" || !strings.Contains(err.Error(), "Transition") {
		t.Errorf("got %v", err)
	}
	if _, err := c.PutBucketCors(ctx, &awss3.PutBucketCorsInput{Bucket: bucket, CORSConfiguration: &types.CORSConfiguration{CORSRules: []types.CORSRule{{
		AllowedMethods: []string{"GET"}, AllowedOrigins: []string{"https://*.example"}, AllowedHeaders: []string{"x-*"}, MaxAgeSeconds: aws.Int32(9)}}}}); err != nil {
		t.Fatal(err)
	}
	cors, err := c.GetBucketCors(ctx, &awss3.GetBucketCorsInput{Bucket: bucket})
	if err != nil || len(cors.CORSRules) != 1 || *cors.CORSRules[0].MaxAgeSeconds != 9 {
		t.Errorf("got %+v, %v", cors, err)
	}
	doc := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["high"]},"Action":["s3:GetObject"],"Resource":"arn:aws:s3:::reports/x/*"}]}`
	if _, err := c.PutBucketPolicy(ctx, &awss3.PutBucketPolicyInput{Bucket: bucket, Policy: &doc}); err != nil {
		t.Fatal(err)
	}
	if g := s.buckets["reports"].Grants; len(g) != 1 || g[0].Subject != "high" || g[0].Prefix != "x/" || g[0].Deny {
		t.Errorf("got %+v", g)
	}
	back, err := c.GetBucketPolicy(ctx, &awss3.GetBucketPolicyInput{Bucket: bucket})
	if err != nil || *back.Policy != doc {
		t.Errorf("got %+v, %v", back, err)
	}
	status, err := c.GetBucketPolicyStatus(ctx, &awss3.GetBucketPolicyStatusInput{Bucket: bucket})
	if err != nil || *status.PolicyStatus.IsPublic {
		t.Errorf("got %+v, %v", status, err)
	}
}

func TestSDKPresignsBothWays(t *testing.T) {
	s := newSite(t, "reports")
	p := awss3.NewPresignClient(s.sdk("LOW"))
	put, err := p.PresignPutObject(t.Context(), &awss3.PutObjectInput{Bucket: aws.String("reports"), Key: aws.String("k k"), Metadata: map[string]string{"redoubt-label": "UNCLASSIFIED"}})
	if err != nil {
		t.Fatal(err)
	}
	r := s.request("PUT", strings.TrimPrefix(put.URL, s.url), []byte("hello"))
	for name, v := range put.SignedHeader {
		if name != "Content-Length" && name != "Host" {
			r.Header[name] = v
		}
	}
	s.send(r).want(t, 200, "")
	get, err := p.PresignGetObject(t.Context(), &awss3.GetObjectInput{Bucket: aws.String("reports"), Key: aws.String("k k"), ResponseContentType: aws.String("x/y")})
	if err != nil {
		t.Fatal(err)
	}
	a := s.send(s.request("GET", strings.TrimPrefix(get.URL, s.url), nil)).want(t, 200, "")
	if a.body != "hello" || a.header.Get("Content-Type") != "x/y" {
		t.Errorf("got %+v", a)
	}
}

func TestSDKCopies(t *testing.T) {
	s := newSite(t, "reports")
	c, ctx := s.sdk("LOW"), t.Context()
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("reports"), Key: aws.String("a +\u00e9"), Body: strings.NewReader("x"), Metadata: map[string]string{"own": "1"}}); err != nil {
		t.Fatal(err)
	}
	out, err := c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: aws.String("reports"), Key: aws.String("b"), CopySource: aws.String("reports/a%20%2B%C3%A9"),
		Metadata: map[string]string{"redoubt-label": "UNCLASSIFIED"}})
	if err != nil {
		t.Fatal(err)
	}
	if out.VersionId == nil || s.copied.Label != "" || s.copied.ReplaceAttributes != nil {
		t.Errorf("got %+v", s.copied)
	}
	if _, err := c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: aws.String("reports"), Key: aws.String("c"), CopySource: aws.String("reports/b"),
		MetadataDirective: "REPLACE", Metadata: map[string]string{"own": "2"}}); err != nil {
		t.Fatal(err)
	}
	if s.copied.ReplaceAttributes == nil || s.copied.ReplaceAttributes.Meta["own"] != "2" {
		t.Errorf("got %+v", s.copied)
	}
	if _, err := c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: aws.String("reports"), Key: aws.String("d"), CopySource: aws.String("reports/b"),
		Metadata: map[string]string{"redoubt-label": "SECRET"}}); err != nil || s.copied.Label != "SECRET" {
		t.Errorf("another label than the source's is a request: got %q, %v", s.copied.Label, err)
	}
}
