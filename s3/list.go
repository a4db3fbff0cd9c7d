package s3

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"redoubt"
)

// listing is what the three object listings ask alike.
type listing struct {
	prefix, delimiter string
	max               int
	encode            bool // encoding-type=url
	owner             bool
	label             bool // each entry's marking, on request
}

func (c *call) readListing(maxName string) (l listing, err error) {
	l.prefix, l.delimiter = c.query.get("prefix"), c.query.get("delimiter")
	if len(l.prefix) > redoubt.MaxKeyBytes || len(l.delimiter) > redoubt.MaxKeyBytes {
		return l, errKeyTooLong
	}
	switch v, ok := c.query.find("encoding-type"); {
	case v == "url":
		l.encode = true
	case ok && v != "":
		return l, invalid("encoding-type", v, "Invalid Encoding Method specified in Request")
	}
	l.label = c.header("X-Amz-Optional-Object-Attributes") == "RedoubtLabel"
	l.max, err = c.readMax(maxName)
	return l, err
}

// readMax reads a page size; S3 takes a larger one for the largest.
func (c *call) readMax(name string) (int, error) {
	v, ok := c.query.find(name)
	if !ok || v == "" {
		return redoubt.MaxListKeys, nil
	}
	n, digits := parseDigits(v)
	if !digits || n > 1<<31-1 {
		return 0, invalid(name, v, "Provided "+name+" not an integer or within integer range")
	}
	return int(min(n, redoubt.MaxListKeys)), nil
}

// listObjects is GET /BUCKET.
func (s *handler) listObjects(c *call) error {
	l, err := c.readListing("max-keys")
	if err != nil {
		return err
	}
	l.owner = true
	marker := c.query.get("marker")
	page, err := s.objectPage(c, l, behind(marker))
	if err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("ListBucketResult")
	x.text("Name", string(c.bucket))
	x.key("Prefix", l.prefix, l.encode)
	x.key("Marker", marker, l.encode)
	x.int("MaxKeys", int64(l.max))
	l.writeShape(x)
	x.bool("IsTruncated", page.Truncated)
	if page.Truncated {
		x.key("NextMarker", l.marker(page.Next), l.encode)
	}
	l.writeContents(x, &page)
	x.close("ListBucketResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

// listObjectsV2 is GET /BUCKET?list-type=2.
func (s *handler) listObjectsV2(c *call) error {
	l, err := c.readListing("max-keys")
	if err != nil {
		return err
	}
	l.owner = c.query.get("fetch-owner") == "true"
	startAfter := c.query.get("start-after")
	after := startAfter
	token, continued := c.query.find("continuation-token")
	if continued {
		if after, err = openToken(token); err != nil {
			return err
		}
	}
	page, err := s.objectPage(c, l, after)
	if err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.root("ListBucketResult")
	x.text("Name", string(c.bucket))
	x.key("Prefix", l.prefix, l.encode)
	if continued {
		x.text("ContinuationToken", token)
	}
	if startAfter != "" {
		x.key("StartAfter", startAfter, l.encode)
	}
	x.int("KeyCount", int64(len(page.Versions)+len(page.Prefixes)))
	x.int("MaxKeys", int64(l.max))
	l.writeShape(x)
	x.bool("IsTruncated", page.Truncated)
	if page.Truncated {
		x.text("NextContinuationToken", sealToken(page.Next))
	}
	l.writeContents(x, &page)
	x.close("ListBucketResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

// objectPage asks for a page. A page of no keys is empty and says of the bucket only that it is there.
func (s *handler) objectPage(c *call, l listing, after string) (redoubt.ObjectPage, error) {
	if l.max == 0 {
		_, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
		return redoubt.ObjectPage{}, err
	}
	return s.lists.ListObjects(c.ctx, c.who, redoubt.ListObjects{Bucket: c.bucket, Prefix: l.prefix, Delimiter: l.delimiter, After: after, Max: l.max})
}

// tokenVersion leads a continuation token, so that a later form can be told from this one.
const tokenVersion = "1"

// sealToken makes a continuation token of the last name that the caller was shown. It tells nothing else.
func sealToken(after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenVersion + after))
}

func openToken(token string) (string, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) == 0 || string(raw[:1]) != tokenVersion || len(raw) > 1+2*redoubt.MaxKeyBytes || !validText(string(raw)) {
		return "", invalid("continuation-token", token, "The continuation token provided is incorrect")
	}
	return string(raw[1:]), nil
}

// markerForm begins a marker that stands for a name which XML cannot carry, in base64url: the client would ask behind U+FFFD in its place, and pass over all
// that lies between, so whoever may write could keep others from seeing what is theirs. It is longer than any name, so that nobody can name something
// as such a marker.
const markerForm = "redoubt-behind:"

// marker is what a client is told to go on behind.
func (l *listing) marker(last string) string {
	if l.encode || carried(last) {
		return last
	}
	m := markerForm + base64.RawURLEncoding.EncodeToString([]byte(last))
	return m + strings.Repeat(".", max(0, redoubt.MaxKeyBytes+1-len(m)))
}

// behind is the name that a client's marker says.
func behind(marker string) string {
	text, is := strings.CutPrefix(marker, markerForm)
	if !is || len(marker) <= redoubt.MaxKeyBytes {
		return marker
	}
	name, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "."))
	if err != nil || !validText(string(name)) {
		return marker
	}
	return string(name)
}

// writeShape writes delimiter and encoding.
func (l *listing) writeShape(x *xmlWriter) {
	if l.delimiter != "" {
		x.key("Delimiter", l.delimiter, l.encode)
	}
	if l.encode {
		x.text("EncodingType", "url")
	}
}

// writeContents writes keys and common prefixes: the hot loop of a listing.
func (l *listing) writeContents(x *xmlWriter, page *redoubt.ObjectPage) {
	for i := range page.Versions {
		v := &page.Versions[i]
		x.open("Contents")
		l.writeEntry(x, v)
		x.close("Contents")
	}
	l.writePrefixes(x, page.Prefixes)
}

func (l *listing) writeEntry(x *xmlWriter, v *redoubt.Version) {
	x.key("Key", v.Name.Key, l.encode)
	x.b = append(x.b, "<LastModified>"...)
	x.b = appendTime(x.b, v.Modified)
	x.b = append(x.b, "</LastModified>"...)
	x.etag(v.ETag)
	x.b = append(x.b, "<Size>"...)
	x.b = strconv.AppendInt(x.b, v.SizeBytes, 10)
	x.b = append(x.b, "</Size>"...)
	l.writeListed(x, v)
}

// writeListed writes what keys and versions have in common behind the size.
func (l *listing) writeListed(x *xmlWriter, v *redoubt.Version) {
	class := v.Attributes.StorageClass
	if class == "" {
		class = "STANDARD"
	}
	x.text("StorageClass", class)
	if l.owner {
		writeOwner(x, "Owner", string(v.Author))
	}
	if l.label {
		x.text("RedoubtLabel", v.Label.Banner())
	}
	if hasChecksum(&v.Checksums) {
		for a := sumCRC32; a < sumCount; a++ {
			if *a.of(&v.Checksums) != "" {
				x.text("ChecksumAlgorithm", sumInfo[a].name)
			}
		}
		x.text("ChecksumType", sumType(&v.Checksums))
	}
}

func (l *listing) writePrefixes(x *xmlWriter, prefixes []string) {
	for _, p := range prefixes {
		x.open("CommonPrefixes")
		x.key("Prefix", p, l.encode)
		x.close("CommonPrefixes")
	}
}

func writeOwner(x *xmlWriter, element, name string) {
	x.open(element)
	x.text("ID", name)
	x.text("DisplayName", name)
	x.close(element)
}
