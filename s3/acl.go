package s3

import (
	"net/http"
	"strings"

	"redoubt"
)

// Access lists are not offered: labels, grants and roles decide. What clients send without thinking
// ("private") is accepted because it is what holds; refuseUnoffered refuses everything else.

// getBucketACL is GET /BUCKET?acl: the canned answer that the asker has full control of what the asker sees.
func (s *handler) getBucketACL(c *call) error {
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	c.respondACL(string(c.who.Subject))
	return nil
}

// getObjectACL is GET /BUCKET/KEY?acl.
func (s *handler) getObjectACL(c *call) error {
	v, err := s.objects.HeadObject(c.ctx, c.who, c.look(""))
	if err != nil {
		return err
	}
	c.set("X-Amz-Version-Id", string(v.ID))
	c.set(answerLabel, v.Label.Banner())
	c.respondACL(string(c.who.Subject))
	return nil
}

func (c *call) respondACL(owner string) {
	x := newXML()
	defer x.release()
	x.root("AccessControlPolicy")
	writeOwner(x, "Owner", owner)
	x.open("AccessControlList")
	x.open("Grant")
	x.b = append(x.b, `<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">`...)
	x.text("ID", owner)
	x.text("DisplayName", owner)
	x.close("Grantee")
	x.text("Permission", "FULL_CONTROL")
	x.close("Grant")
	x.close("AccessControlList")
	x.close("AccessControlPolicy")
	c.respondXML(http.StatusOK, x)
}

// putBucketACL is PUT /BUCKET?acl.
func (s *handler) putBucketACL(c *call) error {
	if err := c.readPrivateACL(); err != nil {
		return err
	}
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

// putObjectACL is PUT /BUCKET/KEY?acl.
func (s *handler) putObjectACL(c *call) error {
	if err := c.readPrivateACL(); err != nil {
		return err
	}
	if _, err := s.objects.HeadObject(c.ctx, c.who, c.look("")); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

// readPrivateACL accepts a canned list that changes nothing, and nothing else.
func (c *call) readPrivateACL() error {
	if c.r.ContentLength != 0 {
		return notImplemented("AccessControlPolicy")
	}
	if c.r.Header["X-Amz-Acl"] == nil {
		return errInvalidRequest.say("Your request was missing a required header: x-amz-acl")
	}
	return nil
}

// getEncryption is GET /BUCKET?encryption: everything is encrypted with AES-256.
func (s *handler) getEncryption(c *call) error {
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("ServerSideEncryptionConfiguration")
	x.open("Rule")
	x.open("ApplyServerSideEncryptionByDefault")
	x.text("SSEAlgorithm", "AES256")
	x.close("ApplyServerSideEncryptionByDefault")
	x.bool("BucketKeyEnabled", false)
	x.close("Rule")
	x.close("ServerSideEncryptionConfiguration")
	c.respondXML(http.StatusOK, x)
	return nil
}

// putEncryption is PUT /BUCKET?encryption: AES256 is what holds already; keys of a KMS are refused by name.
func (s *handler) putEncryption(c *call) error {
	doc, err := c.readDocument("ServerSideEncryptionConfiguration")
	if err != nil {
		return err
	}
	if err := parseEncryption(doc); err != nil {
		return err
	}
	return s.change(c, func(*redoubt.BucketSettings) error { return nil }, http.StatusOK)
}

func parseEncryption(doc *element) error {
	algorithm := ""
	err := doc.fields(map[string]func(*element) error{"Rule": func(rule *element) error {
		bucketKey := false
		return rule.fields(map[string]func(*element) error{
			"BucketKeyEnabled":       intoBool(&bucketKey),
			"BlockedEncryptionTypes": func(*element) error { return notImplemented("BlockedEncryptionTypes") },
			"ApplyServerSideEncryptionByDefault": func(e *element) error {
				return e.fields(map[string]func(*element) error{
					"SSEAlgorithm":   into(&algorithm),
					"KMSMasterKeyID": func(*element) error { return notImplemented("KMSMasterKeyID") },
				})
			},
		})
	}})
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(algorithm, "aws:"):
		return notImplemented("SSEAlgorithm " + algorithm)
	case algorithm != "AES256":
		return malformed("SSEAlgorithm")
	}
	return nil
}
