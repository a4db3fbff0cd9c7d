package s3

import (
	"net/http"
	"strings"

	"redoubt"
)

// attributeNames are what x-amz-object-attributes may ask for.
var attributeNames = map[string]bool{"ETag": true, "Checksum": true, "ObjectParts": true, "StorageClass": true, "ObjectSize": true}

// getAttributes is GET /BUCKET/KEY?attributes.
func (s *handler) getAttributes(c *call) error {
	want, err := c.readAttributeNames()
	if err != nil {
		return err
	}
	after, most, err := c.readPartPage()
	if err != nil {
		return err
	}
	in, err := c.readObject()
	if err != nil {
		return err
	}
	v, err := s.objects.HeadObject(c.ctx, c.who, in)
	if err != nil {
		return err
	}
	c.set("Last-Modified", string(appendHTTPTime(nil, v.Modified)))
	c.set("X-Amz-Version-Id", string(v.ID))
	c.set(answerLabel, v.Label.Banner())
	x := newXML()
	defer x.release()
	x.root("GetObjectAttributesResponse")
	if want["ETag"] {
		x.text("ETag", v.ETag)
	}
	if want["Checksum"] && hasChecksum(&v.Checksums) {
		x.open("Checksum")
		xmlChecksums(x, &v.Checksums, len(v.PartSizes))
		x.text("ChecksumType", sumType(&v.Checksums))
		x.close("Checksum")
	}
	if want["ObjectParts"] && v.PartSizes != nil {
		writeObjectParts(x, &v, after, most)
	}
	if want["StorageClass"] {
		class := v.Attributes.StorageClass
		if class == "" {
			class = "STANDARD"
		}
		x.text("StorageClass", class)
	}
	if want["ObjectSize"] {
		x.int("ObjectSize", v.SizeBytes)
	}
	x.close("GetObjectAttributesResponse")
	c.respondXML(http.StatusOK, x)
	return nil
}

func (c *call) readAttributeNames() (map[string]bool, error) {
	want := map[string]bool{}
	for _, v := range c.r.Header["X-Amz-Object-Attributes"] {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			if !attributeNames[name] {
				return nil, invalid("x-amz-object-attributes", name, "Invalid attribute name specified.")
			}
			want[name] = true
		}
	}
	if len(want) == 0 {
		return nil, invalid("x-amz-object-attributes", "", "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty")
	}
	return want, nil
}

func (c *call) readPartPage() (after, most int, err error) {
	most = redoubt.MaxListKeys
	if v := c.header("X-Amz-Max-Parts"); v != "" {
		n, ok := parseDigits(v)
		if !ok {
			return 0, 0, invalid("x-amz-max-parts", v, "The value is not a number.")
		}
		most = int(min(n, redoubt.MaxListKeys))
	}
	if v := c.header("X-Amz-Part-Number-Marker"); v != "" {
		n, ok := parseDigits(v)
		if !ok {
			return 0, 0, invalid("x-amz-part-number-marker", v, "The value is not a number.")
		}
		after = int(min(n, redoubt.MaxParts))
	}
	return after, most, nil
}

func writeObjectParts(x *xmlWriter, v *redoubt.Version, after, most int) {
	total := len(v.PartSizes)
	end := min(total, after+most)
	x.open("ObjectParts")
	x.int("PartsCount", int64(total))
	x.int("PartNumberMarker", int64(after))
	x.int("NextPartNumberMarker", int64(max(end, after)))
	x.int("MaxParts", int64(most))
	x.bool("IsTruncated", end < total)
	for i := after; i < end; i++ {
		x.open("Part")
		x.int("PartNumber", int64(i+1))
		x.int("Size", v.PartSizes[i])
		x.close("Part")
	}
	x.close("ObjectParts")
}
