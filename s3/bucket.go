package s3

import (
	"net/http"
	"strings"

	"redoubt"
)

// createBucket is PUT /BUCKET.
func (s *handler) createBucket(c *call) error {
	if err := s.readLocation(c); err != nil {
		return err
	}
	settings, err := c.readBucketHeaders()
	if err != nil {
		return err
	}
	if _, err := s.buckets.CreateBucket(c.ctx, c.who, c.bucket, settings); err != nil {
		return err
	}
	c.set("Location", "/"+string(c.bucket))
	return c.done(http.StatusOK)
}

// readLocation reads the optional document of CreateBucket: the region must be this one.
func (s *handler) readLocation(c *call) error {
	if c.r.ContentLength == 0 {
		return nil
	}
	doc, err := c.readDocument("CreateBucketConfiguration", "CreateBucketRequest")
	if err != nil {
		return err
	}
	region := ""
	err = doc.fields(map[string]func(*element) error{
		"LocationConstraint": into(&region),
		"Location":           func(*element) error { return notImplemented("CreateBucketConfiguration.Location") },
		"Bucket":             func(*element) error { return notImplemented("CreateBucketConfiguration.Bucket") },
		"Tags":               func(*element) error { return notImplemented("CreateBucketConfiguration.Tags") },
	})
	if err != nil {
		return err
	}
	if region != "" && region != s.region {
		return &apiError{code: "InvalidLocationConstraint", status: 400, message: "The specified location constraint is not valid. This endpoint serves " + s.region + "."}
	}
	return nil
}

// readBucketHeaders reads the settings that may be given at creation.
func (c *call) readBucketHeaders() (b redoubt.BucketSettings, err error) {
	switch v := c.header("X-Amz-Bucket-Object-Lock-Enabled"); {
	case strings.EqualFold(v, "true"):
		b.Lock.Enabled = true
	case v != "" && !strings.EqualFold(v, "false"):
		return b, invalid("x-amz-bucket-object-lock-enabled", v, "The value must be true or false.")
	}
	for name := range c.r.Header {
		if !strings.HasPrefix(name, bucketPrefix) {
			continue
		}
		v, err := c.single(name)
		if err != nil {
			return b, err
		}
		switch strings.TrimPrefix(name, bucketPrefix) {
		case "Default-Label":
			b.Default = v
		case "Floor":
			b.Floor = v
		case "Ceiling":
			b.Ceiling = v
		case "Current":
			b.Current = v
		case "Etag":
			if v != "md5" && v != "opaque" {
				return b, invalid("x-amz-redoubt-etag", v, "The value must be md5 or opaque.")
			}
			b.MD5ETag = v == "md5"
		default:
			return b, invalid(strings.ToLower(name), v, "There is no such setting.")
		}
	}
	return b, checkCurrent(b.Current)
}

func checkCurrent(v string) error {
	if v != "" && v != "newest" && v != "highest" {
		return invalid("current", v, "The value must be newest or highest.")
	}
	return nil
}

// headBucket is HEAD /BUCKET.
func (s *handler) headBucket(c *call) error {
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	c.set("X-Amz-Bucket-Region", s.region)
	return c.done(http.StatusOK)
}

// deleteBucket is DELETE /BUCKET.
func (s *handler) deleteBucket(c *call) error {
	if err := s.buckets.DeleteBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

// listBuckets is GET /, in pages if the client asks for them.
func (s *handler) listBuckets(c *call) error {
	most, err := c.readMax("max-buckets")
	if err != nil {
		return err
	}
	after := ""
	if token := c.query.get("continuation-token"); token != "" {
		if after, err = openToken(token); err != nil {
			return err
		}
	}
	all, err := s.buckets.ListBuckets(c.ctx, c.who)
	if err != nil {
		return err
	}
	paged := c.query.has("max-buckets")
	prefix := c.query.get("prefix")
	x := newXML()
	defer x.release()
	x.root("ListAllMyBucketsResult")
	writeOwner(x, "Owner", string(c.who.Subject))
	x.open("Buckets")
	n, last, next := 0, "", ""
	for i := range all {
		name := string(all[i].Name)
		if name <= after || !strings.HasPrefix(name, prefix) {
			continue
		}
		if paged && n == most {
			next = last
			break
		}
		n, last = n+1, name
		x.open("Bucket")
		x.text("Name", name)
		x.time("CreationDate", all[i].Created)
		x.text("BucketRegion", s.region)
		x.close("Bucket")
	}
	x.close("Buckets")
	if next != "" {
		x.text("ContinuationToken", sealToken(next))
	}
	x.some("Prefix", prefix)
	x.close("ListAllMyBucketsResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

// getLocation is GET /BUCKET?location. S3 leaves the text empty for us-east-1.
func (s *handler) getLocation(c *call) error {
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("LocationConstraint")
	if s.region != unsetRegion {
		x.b = appendEscaped(x.b, s.region)
	}
	x.close("LocationConstraint")
	c.respondXML(http.StatusOK, x)
	return nil
}

// getVersioning is GET /BUCKET?versioning: always on.
func (s *handler) getVersioning(c *call) error {
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("VersioningConfiguration")
	x.text("Status", "Enabled")
	x.close("VersioningConfiguration")
	c.respondXML(http.StatusOK, x)
	return nil
}

// putVersioning is PUT /BUCKET?versioning: to enable it changes nothing, to suspend it is refused.
func (s *handler) putVersioning(c *call) error {
	doc, err := c.readDocument("VersioningConfiguration")
	if err != nil {
		return err
	}
	var status, mfa string
	if err := doc.fields(map[string]func(*element) error{"Status": into(&status), "MfaDelete": into(&mfa)}); err != nil {
		return err
	}
	switch {
	case mfa == "Enabled":
		return notImplemented("MfaDelete")
	case status == "Suspended":
		return errVersioningIsFixed
	case status != "Enabled":
		return malformed("Status")
	}
	return s.change(c, func(*redoubt.BucketSettings) error { return nil }, http.StatusOK)
}

// change applies f to the bucket's settings and answers with status.
func (s *handler) change(c *call, f func(*redoubt.BucketSettings) error, status int) error {
	if _, err := s.buckets.UpdateBucket(c.ctx, c.who, c.bucket, f); err != nil {
		return err
	}
	return c.done(status)
}

// getRequestPayment is GET /BUCKET?requestPayment: nobody but the owner pays.
func (s *handler) getRequestPayment(c *call) error {
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("RequestPaymentConfiguration")
	x.text("Payer", "BucketOwner")
	x.close("RequestPaymentConfiguration")
	c.respondXML(http.StatusOK, x)
	return nil
}
