package s3

import (
	"net/http"
	"strings"
)

// target is what the path names.
type target uint8

const (
	onService target = iota
	onBucket
	onObject
)

// operation is one line of the table: what is asked by which request, and who answers. Without
// a handler it is known and not offered: NotImplemented, by this name.
type operation struct {
	name     string
	method   string
	on       target
	sub      string // subresource in the query, or a marker of selector
	handle   func(*handler, *call) error
	form     form // what NotFound is called; zero: by the target
	authless bool // proves itself otherwise
}

// Markers that stand in the place of a subresource.
const (
	subCopy     = "+copy"         // with x-amz-copy-source
	subPartCopy = "uploadId+copy" // a part with x-amz-copy-source
	subForm     = "+form"         // multipart/form-data
)

// operations is everything that S3 clients ask, offered or not.
var operations = []operation{
	{"ListBuckets", "GET", onService, "", (*handler).listBuckets, 0, false},

	{"CreateBucket", "PUT", onBucket, "", (*handler).createBucket, 0, false},
	{"HeadBucket", "HEAD", onBucket, "", (*handler).headBucket, 0, false},
	{"DeleteBucket", "DELETE", onBucket, "", (*handler).deleteBucket, 0, false},
	{"GetBucketLocation", "GET", onBucket, "location", (*handler).getLocation, 0, false},
	{"GetBucketVersioning", "GET", onBucket, "versioning", (*handler).getVersioning, 0, false},
	{"PutBucketVersioning", "PUT", onBucket, "versioning", (*handler).putVersioning, 0, false},
	{"GetBucketAcl", "GET", onBucket, "acl", (*handler).getBucketACL, 0, false},
	{"PutBucketAcl", "PUT", onBucket, "acl", (*handler).putBucketACL, 0, false},
	{"GetBucketEncryption", "GET", onBucket, "encryption", (*handler).getEncryption, 0, false},
	{"PutBucketEncryption", "PUT", onBucket, "encryption", (*handler).putEncryption, 0, false},
	{"GetBucketTagging", "GET", onBucket, "tagging", (*handler).getBucketTagging, 0, false},
	{"PutBucketTagging", "PUT", onBucket, "tagging", (*handler).putBucketTagging, 0, false},
	{"DeleteBucketTagging", "DELETE", onBucket, "tagging", (*handler).deleteBucketTagging, 0, false},
	{"GetBucketCors", "GET", onBucket, "cors", (*handler).getCORS, 0, false},
	{"PutBucketCors", "PUT", onBucket, "cors", (*handler).putCORS, 0, false},
	{"DeleteBucketCors", "DELETE", onBucket, "cors", (*handler).deleteCORS, 0, false},
	{"GetBucketPolicy", "GET", onBucket, "policy", (*handler).getPolicy, 0, false},
	{"PutBucketPolicy", "PUT", onBucket, "policy", (*handler).putPolicy, 0, false},
	{"DeleteBucketPolicy", "DELETE", onBucket, "policy", (*handler).deletePolicy, 0, false},
	{"GetBucketPolicyStatus", "GET", onBucket, "policyStatus", (*handler).getPolicyStatus, 0, false},
	{"GetBucketLifecycleConfiguration", "GET", onBucket, "lifecycle", (*handler).getLifecycle, 0, false},
	{"PutBucketLifecycleConfiguration", "PUT", onBucket, "lifecycle", (*handler).putLifecycle, 0, false},
	{"DeleteBucketLifecycle", "DELETE", onBucket, "lifecycle", (*handler).deleteLifecycle, 0, false},
	{"GetObjectLockConfiguration", "GET", onBucket, "object-lock", (*handler).getLockConfig, 0, false},
	{"PutObjectLockConfiguration", "PUT", onBucket, "object-lock", (*handler).putLockConfig, 0, false},
	{"GetRedoubtSettings", "GET", onBucket, "redoubt", (*handler).getSettings, 0, false},
	{"PutRedoubtSettings", "PUT", onBucket, "redoubt", (*handler).putSettings, 0, false},
	{"PostObject", "POST", onBucket, subForm, (*handler).postForm, formBucket, true},

	{"ListObjects", "GET", onBucket, "", (*handler).listObjects, 0, false},
	{"ListObjectsV2", "GET", onBucket, "list-type", (*handler).listObjectsV2, 0, false},
	{"ListObjectVersions", "GET", onBucket, "versions", (*handler).listVersions, 0, false},
	{"ListMultipartUploads", "GET", onBucket, "uploads", (*handler).listUploads, 0, false},
	{"DeleteObjects", "POST", onBucket, "delete", (*handler).deleteObjects, 0, false},

	{"GetObject", "GET", onObject, "", (*handler).getObject, 0, false},
	{"HeadObject", "HEAD", onObject, "", (*handler).headObject, 0, false},
	{"PutObject", "PUT", onObject, "", (*handler).putObject, formBucket, false},
	{"CopyObject", "PUT", onObject, subCopy, (*handler).copyObject, 0, false},
	{"DeleteObject", "DELETE", onObject, "", (*handler).deleteObject, 0, false},
	{"GetObjectAttributes", "GET", onObject, "attributes", (*handler).getAttributes, 0, false},
	{"GetObjectTagging", "GET", onObject, "tagging", (*handler).getTagging, 0, false},
	{"PutObjectTagging", "PUT", onObject, "tagging", (*handler).putTagging, 0, false},
	{"DeleteObjectTagging", "DELETE", onObject, "tagging", (*handler).deleteTagging, 0, false},
	{"GetObjectRetention", "GET", onObject, "retention", (*handler).getRetention, 0, false},
	{"PutObjectRetention", "PUT", onObject, "retention", (*handler).putRetention, 0, false},
	{"GetObjectLegalHold", "GET", onObject, "legal-hold", (*handler).getLegalHold, 0, false},
	{"PutObjectLegalHold", "PUT", onObject, "legal-hold", (*handler).putLegalHold, 0, false},
	{"GetObjectAcl", "GET", onObject, "acl", (*handler).getObjectACL, 0, false},
	{"PutObjectAcl", "PUT", onObject, "acl", (*handler).putObjectACL, 0, false},

	{"CreateMultipartUpload", "POST", onObject, "uploads", (*handler).createUpload, formBucket, false},
	{"UploadPart", "PUT", onObject, "uploadId", (*handler).uploadPart, formUpload, false},
	{"UploadPartCopy", "PUT", onObject, subPartCopy, (*handler).uploadPartCopy, formUpload, false},
	{"ListParts", "GET", onObject, "uploadId", (*handler).listParts, formUpload, false},
	{"CompleteMultipartUpload", "POST", onObject, "uploadId", (*handler).completeUpload, formUpload, false},
	{"AbortMultipartUpload", "DELETE", onObject, "uploadId", (*handler).abortUpload, formUpload, false},

	// Reads that S3 answers with "there is none", so that clients which take stock keep going.
	{"GetBucketOwnershipControls", "GET", onBucket, "ownershipControls", answers(errNoOwnership), 0, false},
	{"GetPublicAccessBlock", "GET", onBucket, "publicAccessBlock", answers(errNoPublicBlock), 0, false},
	{"GetBucketReplication", "GET", onBucket, "replication", answers(errNoReplication), 0, false},
	{"GetBucketWebsite", "GET", onBucket, "website", answers(errNoWebsite), 0, false},
	{"GetBucketRequestPayment", "GET", onBucket, "requestPayment", (*handler).getRequestPayment, 0, false},
	{"GetBucketLogging", "GET", onBucket, "logging", emptyAnswer("BucketLoggingStatus"), 0, false},
	{"GetBucketNotificationConfiguration", "GET", onBucket, "notification", emptyAnswer("NotificationConfiguration"), 0, false},
	{"GetBucketAccelerateConfiguration", "GET", onBucket, "accelerate", emptyAnswer("AccelerateConfiguration"), 0, false},

	// Known and not offered.
	{name: "PutBucketOwnershipControls", method: "PUT", on: onBucket, sub: "ownershipControls"},
	{name: "DeleteBucketOwnershipControls", method: "DELETE", on: onBucket, sub: "ownershipControls"},
	{name: "PutPublicAccessBlock", method: "PUT", on: onBucket, sub: "publicAccessBlock"},
	{name: "DeletePublicAccessBlock", method: "DELETE", on: onBucket, sub: "publicAccessBlock"},
	{name: "DeleteBucketEncryption", method: "DELETE", on: onBucket, sub: "encryption"},
	{name: "PutBucketReplication", method: "PUT", on: onBucket, sub: "replication"},
	{name: "DeleteBucketReplication", method: "DELETE", on: onBucket, sub: "replication"},
	{name: "PutBucketWebsite", method: "PUT", on: onBucket, sub: "website"},
	{name: "DeleteBucketWebsite", method: "DELETE", on: onBucket, sub: "website"},
	{name: "PutBucketRequestPayment", method: "PUT", on: onBucket, sub: "requestPayment"},
	{name: "PutBucketLogging", method: "PUT", on: onBucket, sub: "logging"},
	{name: "PutBucketNotificationConfiguration", method: "PUT", on: onBucket, sub: "notification"},
	{name: "PutBucketAccelerateConfiguration", method: "PUT", on: onBucket, sub: "accelerate"},
	{name: "GetBucketInventoryConfiguration", method: "GET", on: onBucket, sub: "inventory"},
	{name: "PutBucketInventoryConfiguration", method: "PUT", on: onBucket, sub: "inventory"},
	{name: "DeleteBucketInventoryConfiguration", method: "DELETE", on: onBucket, sub: "inventory"},
	{name: "GetBucketAnalyticsConfiguration", method: "GET", on: onBucket, sub: "analytics"},
	{name: "PutBucketAnalyticsConfiguration", method: "PUT", on: onBucket, sub: "analytics"},
	{name: "DeleteBucketAnalyticsConfiguration", method: "DELETE", on: onBucket, sub: "analytics"},
	{name: "GetBucketMetricsConfiguration", method: "GET", on: onBucket, sub: "metrics"},
	{name: "PutBucketMetricsConfiguration", method: "PUT", on: onBucket, sub: "metrics"},
	{name: "DeleteBucketMetricsConfiguration", method: "DELETE", on: onBucket, sub: "metrics"},
	{name: "GetBucketIntelligentTieringConfiguration", method: "GET", on: onBucket, sub: "intelligent-tiering"},
	{name: "PutBucketIntelligentTieringConfiguration", method: "PUT", on: onBucket, sub: "intelligent-tiering"},
	{name: "DeleteBucketIntelligentTieringConfiguration", method: "DELETE", on: onBucket, sub: "intelligent-tiering"},
	{name: "GetBucketMetadataTableConfiguration", method: "GET", on: onBucket, sub: "metadataTable"},
	{name: "CreateBucketMetadataTableConfiguration", method: "POST", on: onBucket, sub: "metadataTable"},
	{name: "DeleteBucketMetadataTableConfiguration", method: "DELETE", on: onBucket, sub: "metadataTable"},
	{name: "GetBucketMetadataConfiguration", method: "GET", on: onBucket, sub: "metadataConfiguration"},
	{name: "CreateBucketMetadataConfiguration", method: "POST", on: onBucket, sub: "metadataConfiguration"},
	{name: "DeleteBucketMetadataConfiguration", method: "DELETE", on: onBucket, sub: "metadataConfiguration"},
	{name: "GetBucketAbac", method: "GET", on: onBucket, sub: "abac"},
	{name: "PutBucketAbac", method: "PUT", on: onBucket, sub: "abac"},
	{name: "CreateSession", method: "GET", on: onBucket, sub: "session"},
	{name: "SelectObjectContent", method: "POST", on: onObject, sub: "select"},
	{name: "RestoreObject", method: "POST", on: onObject, sub: "restore"},
	{name: "GetObjectTorrent", method: "GET", on: onObject, sub: "torrent"},
	{name: "RenameObject", method: "PUT", on: onObject, sub: "renameObject"},
	{name: "UpdateObjectEncryption", method: "PUT", on: onObject, sub: "encryption"},
	{name: "WriteGetObjectResponse", method: "POST", on: onService, sub: "WriteGetObjectResponse"},
}

// routeKey is what an operation is found by.
type routeKey struct {
	method string
	on     target
	sub    string
}

var (
	routes       = indexRoutes()
	subresources = indexSubresources()
)

func indexRoutes() map[routeKey]*operation {
	m := make(map[routeKey]*operation, len(operations))
	for i := range operations {
		o := &operations[i]
		m[routeKey{o.method, o.on, o.sub}] = o
	}
	return m
}

func indexSubresources() map[string]bool {
	m := make(map[string]bool)
	for _, o := range operations {
		if o.sub != "" && !strings.Contains(o.sub, "+") {
			m[o.sub] = true
		}
	}
	return m
}

// route finds the operation that a request asks for.
func (c *call) route() error {
	on := onService
	switch {
	case c.key != "":
		on = onObject
	case c.bucket != "":
		on = onBucket
	}
	sub, err := c.selector(on)
	if err != nil {
		return err
	}
	op := routes[routeKey{c.r.Method, on, sub}]
	if op == nil {
		return errMethodNotAllowed
	}
	c.op = op
	if err := c.checkParams(); err != nil {
		return err
	}
	return c.setForm(on)
}

// selector finds the one thing that tells operations of a method and a target apart.
func (c *call) selector(on target) (string, error) {
	sub := ""
	for _, p := range c.query {
		if !subresources[p.name] {
			continue
		}
		if sub != "" {
			return "", invalid(p.name, p.value, "The request names two subresources: "+sub+" and "+p.name+".")
		}
		sub = p.name
	}
	switch {
	case c.r.Method == http.MethodPut && on == onObject && (c.r.Header["X-Amz-Copy-Source"] != nil || c.query.hasHeader("X-Amz-Copy-Source")):
		sub += subCopy
	case c.r.Method == http.MethodPost && on == onBucket && sub == "" && isForm(c.header("Content-Type")):
		sub = subForm
	case sub == "list-type" && c.query.get(sub) != "2":
		return "", invalid(sub, c.query.get(sub), "list-type must be 2.")
	}
	return sub, nil
}

// plainParams are the query parameters that qualify an operation without choosing it.
var plainParams = map[string]bool{
	"versionId": true, "partNumber": true, "response-content-type": true, "response-content-language": true, "response-expires": true,
	"response-cache-control": true, "response-content-disposition": true, "response-content-encoding": true, "prefix": true,
	"delimiter": true, "marker": true, "max-keys": true, "encoding-type": true, "continuation-token": true, "fetch-owner": true,
	"start-after": true, "key-marker": true, "version-id-marker": true, "upload-id-marker": true, "max-uploads": true,
	"max-parts": true, "part-number-marker": true, "id": true, "select-type": true, "max-buckets": true, "bucket-region": true,
}

// checkParams refuses what is not known on a request that changes something: it may be an operation that we have
// never heard of. Reads ignore it, as S3 does; so does everybody "x-…".
func (c *call) checkParams() error {
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		return nil
	}
	for _, p := range c.query {
		if !plainParams[p.name] && !subresources[p.name] && !(len(p.name) > 2 && strings.EqualFold(p.name[:2], "x-")) {
			return notImplemented("The query parameter " + p.name)
		}
	}
	return nil
}

// setForm settles what a NotFound will be called, from the request alone.
func (c *call) setForm(on target) error {
	version, ok := c.query.find("versionId")
	if ok && version == "" {
		return invalid("versionId", "", "Version id cannot be the empty string")
	}
	switch {
	case c.op.form != 0:
		c.form = c.op.form
	case on == onObject && ok:
		c.form, c.marker = formVersion, true
	case on == onObject:
		c.form = formKey
	case on == onBucket:
		c.form = formBucket
	}
	return nil
}

// answers is the handler of a read that S3 answers with "there is none" of a bucket that exists.
func answers(e *apiError) func(*handler, *call) error {
	return func(s *handler, c *call) error {
		if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
			return err
		}
		return e
	}
}

// emptyAnswer is the handler of a read that S3 answers with an empty document.
func emptyAnswer(root string) func(*handler, *call) error {
	return func(s *handler, c *call) error {
		if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
			return err
		}
		x := newXML()
		defer x.release()
		x.root(root)
		x.close(root)
		c.respondXML(http.StatusOK, x)
		return nil
	}
}
