package s3

import (
	"net/http"
	"strings"

	"redoubt"
)

// copyObject is PUT /BUCKET/KEY with x-amz-copy-source.
func (s *handler) copyObject(c *call) error {
	source, id, err := c.copySource()
	if err != nil {
		return err
	}
	in, err := c.readCopy(source, id)
	if err != nil {
		return err
	}
	if in.Label != "" && in.ReplaceAttributes == nil {
		if err := s.repeatedLabel(c, &in); err != nil {
			return err
		}
	}
	v, err := s.objects.CopyObject(c.ctx, c.who, in)
	if err != nil {
		return conflicting(copyCondition(err))
	}
	c.set("X-Amz-Version-Id", string(v.ID))
	c.set(answerLabel, v.Label.Banner())
	c.set("X-Amz-Server-Side-Encryption", "AES256")
	c.setSome("X-Amz-Copy-Source-Version-Id", string(in.SourceID))
	x := newXML()
	defer x.release()
	x.root("CopyObjectResult")
	x.time("LastModified", v.Modified)
	x.etag(v.ETag)
	if hasChecksum(&v.Checksums) {
		xmlChecksums(x, &v.Checksums, len(v.PartSizes))
		x.text("ChecksumType", sumType(&v.Checksums))
	}
	x.close("CopyObjectResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

// copyCondition: a copy has no 304; S3 answers 412 for any condition of the source.
func copyCondition(err error) error {
	if redoubt.KindOf(err) == redoubt.NotModified {
		return redoubt.PreconditionFail
	}
	return err
}

// copySource reads "[/]BUCKET/KEY[?versionId=ID]", percent-encoded. What NotFound is called follows from it.
func (c *call) copySource() (name redoubt.ObjectName, id redoubt.VersionID, err error) {
	raw, err := c.single("X-Amz-Copy-Source")
	if err != nil {
		return name, "", err
	}
	bad := invalid("x-amz-copy-source", raw, "You can only specify a copy source header in the form bucket/key")
	path, version, versioned := strings.Cut(raw, "?versionId=")
	path, ok := unescapePath(path)
	version, ok2 := unescape(version)
	bucket, key, found := cut(strings.TrimPrefix(path, "/"), '/')
	if !ok || !ok2 || !found || key == "" || !plausibleBucket(bucket) || versioned && (version == "" || !validText(version)) {
		return name, "", bad
	}
	if err := checkKey(key); err != nil {
		return name, "", err
	}
	if c.op.form == 0 { // a part's form is that of its upload
		c.form = formKey
		if versioned {
			c.form = formVersion
		}
	}
	return redoubt.ObjectName{Bucket: redoubt.BucketName(bucket), Key: key}, redoubt.VersionID(version), nil
}

// unescapePath decodes %XX and leaves "+" alone.
func unescapePath(s string) (string, bool) {
	return unescape(strings.ReplaceAll(s, "+", "%2B"))
}

// readCopy reads directives, conditions, and what is to replace the source's.
func (c *call) readCopy(source redoubt.ObjectName, id redoubt.VersionID) (in redoubt.CopyObject, err error) {
	in = redoubt.CopyObject{Source: source, SourceID: id, Target: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}}
	replaceMeta, err := c.directive("X-Amz-Metadata-Directive")
	if err != nil {
		return in, err
	}
	replaceTags, err := c.directive("X-Amz-Tagging-Directive")
	if err != nil {
		return in, err
	}
	ask, err := c.readAsked()
	if err != nil {
		return in, err
	}
	in.Label, in.Retention, in.Hold = ask.label, ask.retention, ask.hold
	if replaceMeta {
		in.ReplaceAttributes = &ask.attributes
	}
	if replaceTags {
		in.ReplaceTags = &ask.tags
	}
	if in.Source == in.Target && id == "" && !replaceMeta && !replaceTags && in.Label == "" && c.r.Header["X-Amz-Storage-Class"] == nil &&
		c.r.Header["X-Amz-Server-Side-Encryption"] == nil && in.Retention.Mode == "" && !in.Hold {
		return in, errInvalidRequest.say("This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	if in.SourceIf, err = readConditions(c.r.Header, "X-Amz-Copy-Source-"); err != nil {
		return in, err
	}
	if in.If, err = c.readWriteConditions(); err != nil {
		return in, err
	}
	if v := c.header("X-Amz-Checksum-Algorithm"); v != "" {
		a := sumNamed(v)
		if a == sumNone {
			return in, errInvalidRequest.say("Checksum algorithm provided is unsupported.")
		}
		in.SumAlgorithm = sumInfo[a].name
	}
	return in, nil
}

func (c *call) directive(name string) (replace bool, err error) {
	switch v := c.header(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, invalid(strings.ToLower(name), v, "Unknown directive.")
	}
}

// repeatedLabel settles what a label header means on a copy that keeps the source's metadata. The source's own
// label, repeated, is not a request; another one is, for what somebody asked to be marked must not end up
// without that mark. The version looked at is then the one that is copied.
func (s *handler) repeatedLabel(c *call, in *redoubt.CopyObject) error {
	v, err := s.objects.HeadObject(c.ctx, c.who, redoubt.ReadObject{Name: in.Source, ID: in.SourceID})
	if err != nil {
		return err
	}
	in.SourceID = v.ID
	repeated := in.Label == v.Label.Banner()
	if !repeated && s.policy != nil {
		asked, err := s.policy.Parse(in.Label)
		repeated = err == nil && asked.Equivalent(v.Label)
	}
	if repeated {
		in.Label = ""
	}
	return nil
}
