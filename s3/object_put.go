package s3

import (
	"net/http"

	"redoubt"
)

// putObject is PUT /BUCKET/KEY.
func (s *handler) putObject(c *call) error {
	if c.query.has("versionId") {
		return invalid("versionId", c.query.get("versionId"), "This operation does not take a version.")
	}
	ask, err := c.readAsked()
	if err != nil {
		return err
	}
	cond, err := c.readWriteConditions()
	if err != nil {
		return err
	}
	body, err := c.openPayload(redoubt.MaxPutBytes, s.wantsMD5(c.ctx, c.bucket))
	if err != nil {
		return err
	}
	v, err := s.objects.PutObject(c.ctx, c.who, redoubt.PutObject{
		Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, Label: ask.label, Attributes: ask.attributes,
		Tags: ask.tags, Retention: ask.retention, Hold: ask.hold, If: cond, SizeBytes: body.size, Body: body, Finish: body.finish, Digest: body.digest256,
	})
	if err != nil {
		return conflicting(body.blame(err))
	}
	c.setWritten(&v)
	return c.done(http.StatusOK)
}

// setWritten answers with what a write made.
func (c *call) setWritten(v *redoubt.Version) {
	c.set("Etag", `"`+v.ETag+`"`)
	c.set("X-Amz-Version-Id", string(v.ID))
	c.set(answerLabel, v.Label.Banner())
	c.set("X-Amz-Server-Side-Encryption", "AES256")
	c.setChecksums(&v.Checksums, len(v.PartSizes))
}

// conflicting gives a lost race of a write its S3 name.
func conflicting(err error) error {
	if redoubt.KindOf(err) == redoubt.Conflict {
		return errConditionalRequest
	}
	return err
}
