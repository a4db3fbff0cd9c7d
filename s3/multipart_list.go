package s3

import (
	"net/http"

	"redoubt"
)

// listParts is GET /BUCKET/KEY?uploadId=ID.
func (s *handler) listParts(c *call) error {
	most, err := c.readMax("max-parts")
	if err != nil {
		return err
	}
	after := int64(0)
	if v := c.query.get("part-number-marker"); v != "" {
		var ok bool
		if after, ok = parseDigits(v); !ok || after > 1<<31-1 {
			return invalid("part-number-marker", v, "Provided part-number-marker not an integer or within integer range")
		}
	}
	page, err := s.uploads.ListParts(c.ctx, c.who, redoubt.ListParts{Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, Upload: c.uploadID(), After: int(after), Max: most})
	if err != nil {
		return err
	}
	c.set(answerLabel, page.Upload.Label.Banner())
	x := newXML()
	defer x.release()
	x.root("ListPartsResult")
	x.text("Bucket", string(c.bucket))
	x.text("Key", c.key)
	x.text("UploadId", string(c.uploadID()))
	writeOwner(x, "Initiator", string(page.Upload.Author))
	writeOwner(x, "Owner", string(page.Upload.Author))
	x.text("StorageClass", "STANDARD")
	x.int("PartNumberMarker", after)
	x.int("NextPartNumberMarker", int64(page.Next))
	x.int("MaxParts", int64(most))
	x.bool("IsTruncated", page.Truncated)
	writeUploadSum(x, &page.Upload)
	for i := range page.Parts {
		p := &page.Parts[i]
		x.open("Part")
		x.int("PartNumber", int64(p.Number))
		x.time("LastModified", p.Modified)
		x.etag(p.ETag)
		x.int("Size", p.SizeBytes)
		xmlChecksums(x, &p.Checksums, 0)
		x.close("Part")
	}
	x.close("ListPartsResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

func writeUploadSum(x *xmlWriter, u *redoubt.Upload) {
	if u.SumAlgorithm == "" {
		return
	}
	x.text("ChecksumAlgorithm", u.SumAlgorithm)
	x.text("ChecksumType", sumType(&redoubt.Checksums{Composite: u.SumComposite}))
}

// listUploads is GET /BUCKET?uploads.
func (s *handler) listUploads(c *call) error {
	l, err := c.readListing("max-uploads")
	if err != nil {
		return err
	}
	key, id := c.query.get("key-marker"), c.query.get("upload-id-marker")
	if key == "" {
		id = "" // S3 ignores it then
	}
	var page redoubt.UploadPage
	if l.max == 0 {
		_, err = s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	} else {
		page, err = s.lists.ListUploads(c.ctx, c.who, redoubt.ListUploads{Bucket: c.bucket, Prefix: l.prefix, Delimiter: l.delimiter,
			AfterKey: behind(key), AfterID: redoubt.UploadID(id), Max: l.max})
	}
	if err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("ListMultipartUploadsResult")
	x.text("Bucket", string(c.bucket))
	x.key("KeyMarker", key, l.encode)
	x.text("UploadIdMarker", id)
	if page.Truncated {
		x.key("NextKeyMarker", l.marker(page.NextKey), l.encode)
		x.text("NextUploadIdMarker", string(page.NextID))
	}
	x.key("Prefix", l.prefix, l.encode)
	l.writeShape(x)
	x.int("MaxUploads", int64(l.max))
	x.bool("IsTruncated", page.Truncated)
	for i := range page.Uploads {
		u := &page.Uploads[i]
		x.open("Upload")
		x.key("Key", u.Name.Key, l.encode)
		x.text("UploadId", string(u.ID))
		writeOwner(x, "Initiator", string(u.Author))
		writeOwner(x, "Owner", string(u.Author))
		x.text("StorageClass", "STANDARD")
		x.time("Initiated", u.Started)
		writeUploadSum(x, u)
		x.close("Upload")
	}
	l.writePrefixes(x, page.Prefixes)
	x.close("ListMultipartUploadsResult")
	c.respondXML(http.StatusOK, x)
	return nil
}
