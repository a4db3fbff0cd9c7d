package s3

import (
	"net/http"
	"strings"
	"sync"

	"redoubt"
)

// deleteObject is DELETE /BUCKET/KEY. Removing what is not there, or may not be known of, succeeds, as in S3.
func (s *handler) deleteObject(c *call) error {
	in, err := c.readDelete()
	if err != nil {
		return err
	}
	gone, err := s.objects.DeleteObject(c.ctx, c.who, in)
	if unseen(in, err) {
		gone, err = redoubt.Deleted{ID: in.ID}, nil
	}
	if err != nil {
		return conflicting(err)
	}
	if gone.ID != "" {
		c.set("X-Amz-Version-Id", string(gone.ID))
	}
	if gone.Marker {
		c.set("X-Amz-Delete-Marker", "true")
	}
	return c.done(http.StatusNoContent)
}

// unseen holds for a NotFound of a key or version that was to go without conditions.
func unseen(in redoubt.DeleteObject, err error) bool {
	return err != nil && redoubt.KindOf(err) == redoubt.NotFound && len(in.If.IfMatch) == 0
}

func (c *call) readDelete() (redoubt.DeleteObject, error) {
	in := redoubt.DeleteObject{Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, ID: redoubt.VersionID(c.query.get("versionId"))}
	var err error
	if in.If, err = c.readWriteConditions(); err == nil && len(in.If.IfNoneMatch) > 0 {
		err = notImplemented("If-None-Match on a delete")
	}
	in.BypassGovernance = c.bypassGovernance()
	return in, err
}

// bypassGovernance says whether the client asks to go past GOVERNANCE retention. boto3 writes "True", as S3 takes it.
func (c *call) bypassGovernance() bool {
	return strings.EqualFold(c.header("X-Amz-Bypass-Governance-Retention"), "true")
}

// doomed is one entry of a DeleteObjects request and what became of it.
type doomed struct {
	in   redoubt.DeleteObject
	gone redoubt.Deleted
	err  error
}

// deleteObjects is POST /BUCKET?delete.
func (s *handler) deleteObjects(c *call) error {
	body, hashed, err := c.readSmall(maxDeleteXMLBytes)
	if err != nil {
		return tooLargeXML(err)
	}
	if !hashed {
		return errMissingHash // a signed digest serves as well: it covers more
	}
	entries, quiet, err := c.parseDelete(body)
	if err != nil {
		return err
	}
	if _, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket); err != nil {
		return err
	}
	s.deleteAll(c, entries)
	x := newXML()
	defer x.release()
	writeDeleted(x, entries, quiet)
	c.respondXML(http.StatusOK, x)
	return nil
}

// deleteAll removes entries, several at once so that they share a commit; it returns when all are done.
func (s *handler) deleteAll(c *call, entries []doomed) {
	var wg sync.WaitGroup
	next := make(chan *doomed)
	for range min(deleteWorkers, len(entries)) {
		wg.Go(func() {
			for e := range next {
				s.deleteOne(c, e)
			}
		})
	}
	for i := range entries {
		next <- &entries[i]
	}
	close(next)
	wg.Wait()
}

// deleteOne removes one entry. A panic in the service stays one entry's internal error.
func (s *handler) deleteOne(c *call, e *doomed) {
	e.err = redoubt.Internal
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(c, v)
		}
	}()
	e.gone, e.err = s.objects.DeleteObject(c.ctx, c.who, e.in)
	if unseen(e.in, e.err) {
		e.gone, e.err = redoubt.Deleted{ID: e.in.ID}, nil
	}
}

func (c *call) parseDelete(body []byte) (entries []doomed, quiet bool, err error) {
	root, err := parseXML(body, "Delete")
	if err != nil {
		return nil, false, err
	}
	bypass, seenQuiet := c.bypassGovernance(), false
	err = root.each(func(kid *element) error {
		switch {
		case kid.name == "Quiet" && !seenQuiet:
			seenQuiet = true
			return intoBool(&quiet)(kid)
		case kid.name == "Object":
			if len(entries) == redoubt.MaxDeletesPerCall {
				return errMalformedXML
			}
			e, err := c.parseDoomed(kid)
			e.in.BypassGovernance = bypass
			entries = append(entries, e)
			return err
		}
		return malformed(kid.name)
	})
	if err == nil && len(entries) == 0 {
		err = errMalformedXML
	}
	return entries, quiet, err
}

func (c *call) parseDoomed(kid *element) (e doomed, err error) {
	var key, version string
	var etag []string // nil: no condition
	err = kid.fields(map[string]func(*element) error{
		"Key": into(&key), "VersionId": into(&version), "ETag": func(tag *element) error { etag = make([]string, 1); return into(&etag[0])(tag) },
		"LastModifiedTime": func(*element) error { return notImplemented("LastModifiedTime in DeleteObjects") },
		"Size":             func(*element) error { return notImplemented("Size in DeleteObjects") },
	})
	if err != nil {
		return e, err
	}
	if key == "" {
		return e, malformed("Key")
	}
	if err := checkKey(key); err != nil {
		return e, err
	}
	e.in = redoubt.DeleteObject{Name: redoubt.ObjectName{Bucket: c.bucket, Key: key}, ID: redoubt.VersionID(version)}
	return e, readETags(etag, &e.in.If.IfMatch)
}

func writeDeleted(x *xmlWriter, entries []doomed, quiet bool) {
	x.root("DeleteResult")
	for i := range entries {
		e := &entries[i]
		if e.err != nil {
			f := formKey
			if e.in.ID != "" {
				f = formVersion
			}
			answer := answerFor(e.err, f)
			x.open("Error")
			x.text("Key", e.in.Name.Key)
			x.some("VersionId", string(e.in.ID))
			x.text("Code", answer.code)
			x.text("Message", answer.message)
			x.close("Error")
			continue
		}
		if quiet {
			continue
		}
		x.open("Deleted")
		x.text("Key", e.in.Name.Key)
		x.some("VersionId", string(e.in.ID))
		if e.gone.Marker {
			x.bool("DeleteMarker", true)
			x.some("DeleteMarkerVersionId", string(e.gone.ID))
		}
		x.close("Deleted")
	}
	x.close("DeleteResult")
}
