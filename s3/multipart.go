package s3

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"redoubt"
)

// createUpload is POST /BUCKET/KEY?uploads.
func (s *handler) createUpload(c *call) error {
	ask, err := c.readAsked()
	if err != nil {
		return err
	}
	algorithm, composite, err := c.readUploadSum()
	if err != nil {
		return err
	}
	u, err := s.uploads.CreateUpload(c.ctx, c.who, redoubt.CreateUpload{
		Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, Label: ask.label, Attributes: ask.attributes, Tags: ask.tags,
		Retention: ask.retention, Hold: ask.hold, SumAlgorithm: algorithm, SumComposite: composite,
	})
	if err != nil {
		return err
	}
	c.set(answerLabel, u.Label.Banner())
	c.set("X-Amz-Server-Side-Encryption", "AES256")
	if c.header("X-Amz-Checksum-Algorithm") != "" {
		c.set("X-Amz-Checksum-Algorithm", algorithm)
		c.set("X-Amz-Checksum-Type", sumType(&redoubt.Checksums{Composite: composite}))
	}
	x := newXML()
	defer x.release()
	x.root("InitiateMultipartUploadResult")
	x.text("Bucket", string(c.bucket))
	x.text("Key", c.key)
	x.text("UploadId", string(u.ID))
	x.close("InitiateMultipartUploadResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

// readUploadSum reads the checksum that the whole will have. SHA sums can only be composite, CRC64NVME only
// of the full object ("Checking object integrity", S3 user guide).
func (c *call) readUploadSum() (name string, composite bool, err error) {
	v, kind := c.header("X-Amz-Checksum-Algorithm"), c.header("X-Amz-Checksum-Type")
	if v == "" {
		if kind != "" {
			return "", false, errInvalidRequest.say("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return sumInfo[sumCRC64NVME].name, false, nil // as S3: parts without a checksum get one of this kind
	}
	a := sumNamed(v)
	if a == sumNone {
		return "", false, errInvalidRequest.say("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
	}
	switch kind {
	case "":
		composite = a != sumCRC64NVME
	case "COMPOSITE":
		composite = true
	case "FULL_OBJECT":
	default:
		return "", false, errInvalidRequest.say("Value for x-amz-checksum-type header is invalid.")
	}
	if composite == (a == sumCRC64NVME) || !composite && (a == sumSHA1 || a == sumSHA256) {
		return "", false, errInvalidRequest.say("The " + kind + " checksum type cannot be used with the " + strings.ToLower(sumInfo[a].name) + " checksum algorithm.")
	}
	return sumInfo[a].name, composite, nil
}

// uploadPart is PUT /BUCKET/KEY?partNumber=N&uploadId=ID.
func (s *handler) uploadPart(c *call) error {
	number, err := partNumber(c.query.get("partNumber"))
	if err != nil {
		return err
	}
	body, err := c.openPayload(redoubt.MaxPutBytes, s.wantsMD5(c.ctx, c.bucket))
	if err != nil {
		return err
	}
	part, err := s.uploads.PutPart(c.ctx, c.who, redoubt.PutPart{
		Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, Upload: c.uploadID(), Number: number,
		SizeBytes: body.size, Body: body, Finish: body.finish,
	})
	if err != nil {
		return body.blame(err)
	}
	c.set("Etag", `"`+part.ETag+`"`)
	c.set("X-Amz-Server-Side-Encryption", "AES256")
	for a := sumCRC32; a < sumCount; a++ {
		c.setSome(sumInfo[a].header, *a.of(&part.Checksums))
	}
	return c.done(http.StatusOK)
}

func (c *call) uploadID() redoubt.UploadID { return redoubt.UploadID(c.query.get("uploadId")) }

// uploadPartCopy is UploadPart with x-amz-copy-source. A NotFound is of the upload, whichever of the two is missing.
func (s *handler) uploadPartCopy(c *call) error {
	number, err := partNumber(c.query.get("partNumber"))
	if err != nil {
		return err
	}
	source, id, err := c.copySource()
	if err != nil {
		return err
	}
	cond, err := readConditions(c.r.Header, "X-Amz-Copy-Source-")
	if err != nil {
		return err
	}
	off, n, err := c.copyRange()
	if err != nil {
		return err
	}
	part, from, err := s.uploads.CopyPart(c.ctx, c.who, redoubt.CopyPart{
		Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, Upload: c.uploadID(), Number: number,
		Source: source, SourceID: id, SourceIf: cond, Off: off, N: n,
	})
	if err != nil {
		return copyCondition(err)
	}
	c.set("X-Amz-Copy-Source-Version-Id", string(from.ID))
	c.set(answerLabel, from.Label.Banner())
	c.set("X-Amz-Server-Side-Encryption", "AES256")
	x := newXML()
	defer x.release()
	x.root("CopyPartResult")
	x.time("LastModified", part.Modified)
	x.etag(part.ETag)
	xmlChecksums(x, &part.Checksums, 0)
	x.close("CopyPartResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

// copyRange reads bytes=FIRST-LAST, both of which must be there.
func (c *call) copyRange() (off, n int64, err error) {
	v, err := c.single("X-Amz-Copy-Source-Range")
	if err != nil || v == "" {
		return 0, -1, err
	}
	spec, ok := strings.CutPrefix(v, "bytes=")
	first, last, dash := cut(spec, '-')
	off, ok1 := parseDigits(first)
	end, ok2 := parseDigits(last)
	if !ok || !dash || !ok1 || !ok2 || end < off {
		return 0, 0, invalid("x-amz-copy-source-range", v, "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
	}
	return off, end - off + 1, nil
}

// completeUpload is POST /BUCKET/KEY?uploadId=ID.
func (s *handler) completeUpload(c *call) error {
	in, err := c.readComplete()
	if err != nil {
		return err
	}
	v, err := s.uploads.CompleteUpload(c.ctx, c.who, in)
	if err != nil {
		return conflicting(completeError(err))
	}
	c.set("X-Amz-Version-Id", string(v.ID))
	c.set(answerLabel, v.Label.Banner())
	c.set("X-Amz-Server-Side-Encryption", "AES256")
	x := newXML()
	defer x.release()
	x.root("CompleteMultipartUploadResult")
	x.b = append(x.b, "<Location>"...)
	x.b = appendEscaped(x.b, c.location())
	x.b = append(x.b, "</Location>"...)
	x.text("Bucket", string(c.bucket))
	x.text("Key", c.key)
	x.etag(v.ETag)
	if hasChecksum(&v.Checksums) {
		xmlChecksums(x, &v.Checksums, len(v.PartSizes))
		x.text("ChecksumType", sumType(&v.Checksums))
	}
	x.close("CompleteMultipartUploadResult")
	c.respondXML(http.StatusOK, x)
	return nil
}

// location is the address of the object as the client reached it.
func (c *call) location() string {
	scheme := "http://"
	if c.r.TLS != nil {
		scheme = "https://"
	}
	b := append([]byte(scheme), c.r.Host...)
	if c.virtualHost() == "" {
		b = append(append(b, '/'), c.bucket...)
	}
	return string(appendURI(append(b, '/'), c.key, false))
}

// readComplete reads the list of parts: ascending, each once.
func (c *call) readComplete() (in redoubt.CompleteUpload, err error) {
	in = redoubt.CompleteUpload{Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, Upload: c.uploadID(), SizeBytes: -1}
	if v := c.header("X-Amz-Mp-Object-Size"); v != "" {
		n, ok := parseDigits(v)
		if !ok {
			return in, invalid("x-amz-mp-object-size", v, "The size is not a number.")
		}
		in.SizeBytes = n
	}
	if in.If, err = c.readWriteConditions(); err != nil {
		return in, err
	}
	body, err := c.readUploadDocument(&in)
	if err != nil {
		return in, err
	}
	in.Parts, err = parseComplete(body)
	return in, err
}

// readUploadDocument reads the body. A x-amz-checksum- header here is of the object, not of the body.
func (c *call) readUploadDocument(in *redoubt.CompleteUpload) ([]byte, error) {
	for a := sumCRC32; a < sumCount; a++ {
		name := sumInfo[a].header
		if v := c.header(name); v != "" {
			value, _, composite := strings.Cut(v, "-")
			if !a.plausible(value) {
				return nil, errInvalidRequest.say("Value for " + sumInfo[a].trailer + " header is invalid.")
			}
			*a.of(&in.Checksums) = v
			in.Checksums.Composite = composite
			delete(c.r.Header, name)
		}
	}
	if c.header("X-Amz-Checksum-Type") == "COMPOSITE" {
		in.Checksums.Composite = true
	}
	body, _, err := c.readSmall(maxUploadXMLBytes)
	if err != nil {
		return nil, tooLargeXML(err)
	}
	return body, nil
}

func parseComplete(body []byte) (parts []redoubt.CompletePart, err error) {
	doc, err := parseXML(body, "CompleteMultipartUpload", "CompleteMultipartUploadRequest", "MultipartUpload")
	if err != nil {
		return nil, err
	}
	err = doc.each(func(kid *element) error {
		if kid.name != "Part" || len(parts) == redoubt.MaxParts {
			return malformed(kid.name)
		}
		p, err := parseCompletePart(kid)
		if err != nil {
			return err
		}
		if n := len(parts); n > 0 && parts[n-1].Number >= p.Number {
			return errInvalidPartOrder
		}
		parts = append(parts, p)
		return nil
	})
	if err == nil && len(parts) == 0 {
		err = errMalformedXML
	}
	return parts, err
}

func parseCompletePart(e *element) (p redoubt.CompletePart, err error) {
	seen := 0
	err = e.each(func(kid *element) error {
		bit, place := 0, (*string)(nil)
		switch kid.name {
		case "PartNumber":
			n, err := strconv.Atoi(strings.TrimSpace(kid.text))
			if err != nil || n < 1 || n > redoubt.MaxParts {
				return invalid("PartNumber", kid.text, "PartNumber must be >= 1 and <= 10000")
			}
			p.Number, bit, place = n, 1, new(string)
		case "ETag":
			bit, place = 2, &p.ETag
		default:
			a := sumNamed(strings.TrimPrefix(kid.name, "Checksum"))
			if a == sumNone || !strings.HasPrefix(kid.name, "Checksum") {
				return malformed(kid.name)
			}
			bit, place = 4<<a, a.of(&p.Checksums)
		}
		if seen&bit != 0 {
			return malformed(kid.name)
		}
		seen |= bit
		return into(place)(kid)
	})
	p.ETag = strings.Trim(strings.TrimSpace(p.ETag), `"`)
	if err == nil && seen&3 != 3 {
		err = malformed("Part")
	}
	return p, err
}

// completeError gives what is wrong with the list of parts its S3 name.
func completeError(err error) error {
	switch {
	case errors.Is(err, redoubt.ErrInvalidPart):
		return errInvalidPart
	case errors.Is(err, redoubt.ErrInvalidPartOrder):
		return errInvalidPartOrder
	case errors.Is(err, redoubt.ErrPartTooSmall):
		return errEntityTooSmall
	}
	return err
}

// abortUpload is DELETE /BUCKET/KEY?uploadId=ID.
func (s *handler) abortUpload(c *call) error {
	if err := s.uploads.AbortUpload(c.ctx, c.who, redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, c.uploadID()); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}
