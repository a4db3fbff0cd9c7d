package s3

import (
	"io"
	"strconv"
	"sync"
	"time"

	"redoubt"
)

// getObject is GET /BUCKET/KEY.
func (s *handler) getObject(c *call) error {
	in, err := c.readObject()
	if err != nil {
		return err
	}
	obj, err := s.objects.GetObject(c.ctx, c.who, in)
	if err != nil {
		return c.unmodified(in, err)
	}
	defer obj.Close()
	v := obj.Version()
	part, err := c.span(&v)
	if err != nil {
		return err
	}
	c.setVersion(&v, part)
	return c.send(obj.Reader(part.off, part.n), part)
}

// headObject is HEAD /BUCKET/KEY.
func (s *handler) headObject(c *call) error {
	in, err := c.readObject()
	if err != nil {
		return err
	}
	v, err := s.objects.HeadObject(c.ctx, c.who, in)
	if err != nil {
		return c.unmodified(in, err)
	}
	part, err := c.span(&v)
	if err != nil {
		return err
	}
	c.setVersion(&v, part)
	c.begin(part.status())
	return nil
}

// readObject reads which version is asked for, and on which conditions.
func (c *call) readObject() (redoubt.ReadObject, error) {
	in := redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: c.bucket, Key: c.key}, ID: redoubt.VersionID(c.query.get("versionId"))}
	var err error
	in.If, err = readConditions(c.r.Header, "")
	return in, err
}

// unmodified gives a 304 the entity tag that it must carry (RFC 9110 section 15.4.5), when
// the request named a single one: then it is that which matched.
func (c *call) unmodified(in redoubt.ReadObject, err error) error {
	if tags := in.If.IfNoneMatch; len(tags) == 1 && tags[0] != "*" && redoubt.KindOf(err) == redoubt.NotModified {
		c.set("Etag", `"`+tags[0]+`"`)
	}
	return err
}

// setVersion describes a version to whoever may read it.
func (c *call) setVersion(v *redoubt.Version, part span) {
	c.set("Content-Length", strconv.FormatInt(part.n, 10))
	c.set("Accept-Ranges", "bytes")
	c.set("Last-Modified", string(appendHTTPTime(make([]byte, 0, 32), v.Modified)))
	c.set("Etag", `"`+v.ETag+`"`)
	c.set("X-Amz-Version-Id", string(v.ID))
	c.set("X-Amz-Server-Side-Encryption", "AES256")
	c.setAttributes(&v.Attributes)
	c.set(answerLabel, v.Label.Banner())
	if part.partial {
		c.set("Content-Range", part.contentRange(v.SizeBytes))
	}
	if part.parts > 0 {
		c.set("X-Amz-Mp-Parts-Count", strconv.Itoa(part.parts))
	}
	if n := len(v.Tags); n > 0 {
		c.set("X-Amz-Tagging-Count", strconv.Itoa(n))
	}
	c.setLock(v)
	if !part.partial && c.header("X-Amz-Checksum-Mode") == "ENABLED" {
		c.setChecksums(&v.Checksums, len(v.PartSizes))
	}
	c.override()
}

// setAttributes gives back what travelled with the version, as it came.
func (c *call) setAttributes(a *redoubt.Attributes) {
	contentType := a.ContentType
	if contentType == "" {
		contentType = "binary/octet-stream"
	}
	c.set("Content-Type", contentType)
	c.setSome("Content-Encoding", a.ContentEncoding)
	c.setSome("Content-Language", a.ContentLanguage)
	c.setSome("Content-Disposition", a.ContentDisposition)
	c.setSome("Cache-Control", a.CacheControl)
	c.setSome("Expires", a.Expires)
	if a.StorageClass != "STANDARD" {
		c.setSome("X-Amz-Storage-Class", a.StorageClass)
	}
	c.setSome(answerPrecedence, a.Precedence)
	for name, value := range a.Meta {
		c.set(answerMeta+name, value)
	}
}

// setLock shows retention and hold.
func (c *call) setLock(v *redoubt.Version) {
	if v.Retention.Mode != "" {
		c.set("X-Amz-Object-Lock-Mode", v.Retention.Mode)
		c.set("X-Amz-Object-Lock-Retain-Until-Date", string(appendTime(nil, v.Retention.Until)))
	}
	if v.Hold {
		c.set("X-Amz-Object-Lock-Legal-Hold", "ON")
	}
}

// override replaces headers of the answer as the (signed) query asks.
func (c *call) override() {
	for _, p := range c.query {
		switch p.name {
		case "response-content-type":
			c.set("Content-Type", p.value)
		case "response-content-language":
			c.set("Content-Language", p.value)
		case "response-expires":
			c.set("Expires", p.value)
		case "response-cache-control":
			c.set("Cache-Control", p.value)
		case "response-content-disposition":
			c.set("Content-Disposition", p.value)
		case "response-content-encoding":
			c.set("Content-Encoding", p.value)
		}
	}
}

// Copy buffers: a small one for what is small, so that many slow readers of little do not hold much.
const (
	smallCopy = 32 << 10
	largeCopy = 512 << 10
)

// oneAnswer is up to where content goes out in one piece with the head of the answer.
const oneAnswer = 16 << 10

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallCopy]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeCopy]byte) }}
)

// send copies content out. The first bytes are read before the status is sent, so that content which fails
// its authentication is an error and not a short answer.
func (c *call) send(r io.Reader, part span) error {
	to, ok := r.(io.WriterTo)
	switch {
	case ok && part.n > smallCopy:
		return c.sendFrom(to, part)
	case ok && part.n <= oneAnswer:
		return c.inOnePiece(func() error { return c.sendFrom(to, part) })
	}
	var buf []byte
	if part.n <= smallCopy {
		b := smallBuffers.Get().(*[smallCopy]byte)
		defer smallBuffers.Put(b)
		buf = b[:]
	} else {
		b := largeBuffers.Get().(*[largeCopy]byte)
		defer largeBuffers.Put(b)
		buf = b[:]
	}
	for left := part.n; left > 0; {
		n, err := io.ReadFull(r, buf[:min(left, int64(len(buf)))])
		if err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				err = redoubt.Corrupt // the service gave less than the version is long
			}
			c.clearContentHeaders()
			return err
		}
		if !c.started {
			c.begin(part.status())
		}
		if err := c.writeAll(buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	if !c.started {
		c.begin(part.status())
	}
	return nil
}

// sendFrom lets a large content write itself, a chunk at a time, without a copy between.
func (c *call) sendFrom(content io.WriterTo, part span) error {
	w := &contentWriter{c: c, part: part}
	n, err := content.WriteTo(w)
	if err == nil && n != part.n {
		err = redoubt.Corrupt // the service gave less than the version is long
	}
	if err != nil {
		c.clearContentHeaders()
		return err
	}
	if !c.started { // there was no content
		c.begin(part.status())
	}
	return nil
}

// contentWriter sends what is written to it; the answer begins with the first of it.
type contentWriter struct {
	c    *call
	part span
}

func (w *contentWriter) Write(b []byte) (int, error) {
	if !w.c.started {
		w.c.begin(w.part.status())
	}
	if err := w.c.writeAll(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// clearContentHeaders takes back what was set for content that will not be sent.
func (c *call) clearContentHeaders() {
	if c.started {
		return
	}
	h := c.w.Header()
	for name := range h {
		switch name {
		case "X-Amz-Request-Id", "X-Amz-Id-2", "Vary", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers":
		default:
			delete(h, name)
		}
	}
}

var (
	dayNames   = [...]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	monthNames = [...]string{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}
)

// appendHTTPTime writes http.TimeFormat.
func appendHTTPTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(b, dayNames[t.Weekday()]...)
	b = append2(append(b, ',', ' '), day)
	b = append(append(b, ' '), monthNames[month-1]...)
	b = append4(append(b, ' '), year)
	b = append2(append(b, ' '), hour)
	b = append2(append(b, ':'), minute)
	b = append2(append(b, ':'), second)
	return append(b, " GMT"...)
}
