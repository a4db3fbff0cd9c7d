package s3

import (
	"net/http"

	"redoubt"
)

// listVersions is GET /BUCKET?versions.
func (s *handler) listVersions(c *call) error {
	l, err := c.readListing("max-keys")
	if err != nil {
		return err
	}
	l.owner = true
	key, id := c.query.get("key-marker"), c.query.get("version-id-marker")
	if id != "" && key == "" {
		return invalid("version-id-marker", id, "A version-id marker cannot be specified without a key marker.")
	}
	page, err := s.versionPage(c, l, behind(key), redoubt.VersionID(id))
	if err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("ListVersionsResult")
	x.text("Name", string(c.bucket))
	x.key("Prefix", l.prefix, l.encode)
	x.key("KeyMarker", key, l.encode)
	x.text("VersionIdMarker", id)
	x.int("MaxKeys", int64(l.max))
	l.writeShape(x)
	x.bool("IsTruncated", page.Truncated)
	if page.Truncated {
		x.key("NextKeyMarker", l.marker(page.NextKey), l.encode)
		x.some("NextVersionIdMarker", string(page.NextID))
	}
	for i := range page.Versions {
		l.writeVersion(x, &page.Versions[i])
	}
	l.writePrefixes(x, page.Prefixes)
	x.close("ListVersionsResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

func (s *handler) versionPage(c *call, l listing, key string, id redoubt.VersionID) (redoubt.VersionPage, error) {
	if l.max == 0 {
		_, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
		return redoubt.VersionPage{}, err
	}
	return s.lists.ListVersions(c.ctx, c.who, redoubt.ListVersions{Bucket: c.bucket, Prefix: l.prefix, Delimiter: l.delimiter,
		AfterKey: key, AfterID: id, Max: l.max})
}

func (l *listing) writeVersion(x *xmlWriter, v *redoubt.Version) {
	name := "Version"
	if v.Marker {
		name = "DeleteMarker"
	}
	x.open(name)
	x.key("Key", v.Name.Key, l.encode)
	x.text("VersionId", string(v.ID))
	x.bool("IsLatest", v.Latest)
	x.time("LastModified", v.Modified)
	if v.Marker {
		writeOwner(x, "Owner", string(v.Author))
		if l.label {
			x.text("RedoubtLabel", v.Label.Banner())
		}
	} else {
		x.etag(v.ETag)
		x.int("Size", v.SizeBytes)
		l.writeListed(x, v)
	}
	x.close(name)
}
