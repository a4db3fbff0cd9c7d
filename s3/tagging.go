package s3

import (
	"net/http"
	"strconv"
	"unicode/utf8"

	"redoubt"
)

// getTagging is GET /BUCKET/KEY?tagging.
func (s *handler) getTagging(c *call) error {
	v, err := s.objects.HeadObject(c.ctx, c.who, c.look(redoubt.ActionGetTags))
	if err != nil {
		return err
	}
	c.set("X-Amz-Version-Id", string(v.ID))
	c.set(answerLabel, v.Label.Banner())
	c.respondTags(v.Tags)
	return nil
}

// putTagging is PUT /BUCKET/KEY?tagging.
func (s *handler) putTagging(c *call) error {
	tags, err := c.readTagging(redoubt.MaxTags)
	if err != nil {
		return err
	}
	return s.alterTags(c, tags, http.StatusOK)
}

// deleteTagging is DELETE /BUCKET/KEY?tagging.
func (s *handler) deleteTagging(c *call) error {
	return s.alterTags(c, []redoubt.Tag{}, http.StatusNoContent)
}

func (s *handler) alterTags(c *call, tags []redoubt.Tag, status int) error {
	in := c.alter()
	in.Tags = &tags
	v, err := s.objects.AlterObject(c.ctx, c.who, in)
	if err != nil {
		return err
	}
	c.set("X-Amz-Version-Id", string(v.ID))
	return c.done(status)
}

// look asks for the version that the request names, under another action than reading it.
func (c *call) look(a redoubt.Action) redoubt.ReadObject {
	return redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, ID: redoubt.VersionID(c.query.get("versionId")), Action: a}
}

func (c *call) alter() redoubt.AlterObject {
	return redoubt.AlterObject{Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, ID: redoubt.VersionID(c.query.get("versionId"))}
}

// getBucketTagging is GET /BUCKET?tagging.
func (s *handler) getBucketTagging(c *call) error {
	b, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	if err != nil {
		return err
	}
	if len(b.Tags) == 0 {
		return errNoTagSet
	}
	c.respondTags(b.Tags)
	return nil
}

// putBucketTagging is PUT /BUCKET?tagging.
func (s *handler) putBucketTagging(c *call) error {
	tags, err := c.readTagging(maxBucketTags)
	if err != nil {
		return err
	}
	return s.change(c, func(b *redoubt.BucketSettings) error { b.Tags = tags; return nil }, http.StatusNoContent)
}

// deleteBucketTagging is DELETE /BUCKET?tagging.
func (s *handler) deleteBucketTagging(c *call) error {
	return s.change(c, func(b *redoubt.BucketSettings) error { b.Tags = nil; return nil }, http.StatusNoContent)
}

func (c *call) respondTags(tags []redoubt.Tag) {
	x := newXML()
	defer x.release()
	x.root("Tagging")
	x.open("TagSet")
	for _, t := range tags {
		x.open("Tag")
		x.text("Key", t.Key)
		x.text("Value", t.Value)
		x.close("Tag")
	}
	x.close("TagSet")
	x.close("Tagging")
	c.respondXML(http.StatusOK, x)
}

func (c *call) readTagging(most int) ([]redoubt.Tag, error) {
	body, _, err := c.readSmall(maxXMLBytes)
	if err != nil {
		return nil, tooLargeXML(err)
	}
	return parseTagging(body, most)
}

// parseTagging reads a Tagging document.
func parseTagging(body []byte, most int) ([]redoubt.Tag, error) {
	doc, err := parseXML(body, "Tagging")
	if err != nil {
		return nil, err
	}
	tags := []redoubt.Tag{}
	err = doc.fields(map[string]func(*element) error{"TagSet": func(set *element) error {
		return set.each(func(kid *element) error {
			if kid.name != "Tag" {
				return malformed(kid.name)
			}
			t, err := parseTag(kid)
			tags = append(tags, t)
			return err
		})
	}})
	if err != nil {
		return nil, err
	}
	return tags, checkTags(tags, most)
}

func parseTag(e *element) (t redoubt.Tag, err error) {
	err = e.fields(map[string]func(*element) error{"Key": into(&t.Key), "Value": into(&t.Value)})
	return t, err
}

// readTagHeader reads x-amz-tagging: k=v pairs, encoded as a query.
func readTagHeader(header string, most int) ([]redoubt.Tag, error) {
	if header == "" {
		return nil, nil
	}
	pairs, err := parseQuery(header)
	if err != nil {
		return nil, invalid("x-amz-tagging", header, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	tags := make([]redoubt.Tag, 0, len(pairs))
	for _, p := range pairs {
		tags = append(tags, redoubt.Tag{Key: p.name, Value: p.value})
	}
	return tags, checkTags(tags, most)
}

// checkTags holds tags to S3's limits.
func checkTags(tags []redoubt.Tag, most int) error {
	if len(tags) > most {
		return (&apiError{code: "BadRequest", status: 400}).say("Object tags cannot be greater than " + strconv.Itoa(most))
	}
	seen := make(map[string]bool, len(tags))
	for _, t := range tags {
		switch {
		case t.Key == "" || utf8.RuneCountInString(t.Key) > redoubt.MaxTagKeyRunes:
			return errInvalidTag.say("The TagKey you have provided is invalid")
		case utf8.RuneCountInString(t.Value) > redoubt.MaxTagValueRunes:
			return errInvalidTag.say("The TagValue you have provided is invalid")
		case seen[t.Key]:
			return errInvalidTag.say("Cannot provide multiple Tags with the same key")
		}
		seen[t.Key] = true
	}
	return nil
}
