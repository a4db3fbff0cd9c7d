package registry

import (
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"redoubt"
	"redoubt/compute/image"
)

// labelHeader tells a reader the label of what she is given.
const labelHeader = "Redoubt-Label"

// getBlob is GET /v2/NAME/blobs/DIGEST, with or without a range.
func (c *call) getBlob() error {
	d, err := c.digest()
	if err != nil {
		return err
	}
	v, content, err := image.OpenBlob(c.ctx, objects{c: c}, c.repo, d)
	if err == nil {
		defer content.Close()
		err = summed(&v, d)
	}
	if err != nil {
		return unknown("BLOB_UNKNOWN", err)
	}
	off, n, partial, err := span(c.r.Header.Get("Range"), v.SizeBytes)
	if err != nil {
		c.w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(v.SizeBytes, 10))
		return err
	}
	c.describe(&v, d, n)
	if !partial {
		return c.send(http.StatusOK, image.Verify(content.Reader(0, -1), d, v.SizeBytes))
	}
	c.w.Header().Set("Content-Range", "bytes "+strconv.FormatInt(off, 10)+"-"+strconv.FormatInt(off+n-1, 10)+"/"+strconv.FormatInt(v.SizeBytes, 10))
	return c.send(http.StatusPartialContent, content.Reader(off, n))
}

// headBlob is HEAD /v2/NAME/blobs/DIGEST.
func (c *call) headBlob() error {
	d, err := c.digest()
	if err != nil {
		return err
	}
	v, err := c.findBlob(c.repo, d)
	if err != nil {
		return unknown("BLOB_UNKNOWN", err)
	}
	c.describe(&v, d, v.SizeBytes)
	c.begin(http.StatusOK)
	return nil
}

// findBlob finds a blob without opening it.
func (c *call) findBlob(repo image.Repository, d image.Digest) (redoubt.Version, error) {
	v, err := c.g.Objects.HeadObject(c.ctx, c.who, redoubt.ReadObject{Name: repo.Blob(d)})
	if redoubt.KindOf(err) == redoubt.NotFound && err != nil {
		var content redoubt.Content
		if v, content, err = image.OpenBlob(c.ctx, objects{c: c, action: redoubt.ActionHeadObject}, repo, d); err == nil {
			content.Close()
		}
	}
	if err != nil {
		return redoubt.Version{}, err
	}
	return v, summed(&v, d)
}

// summed refuses what is known to be something else: whoever wrote it, the enclave has its checksum. What has none is found out by reading it.
func summed(v *redoubt.Version, d image.Digest) error {
	if s := v.Checksums.SHA256; s != "" && !v.Checksums.Composite && s != base64.StdEncoding.EncodeToString(d[:]) {
		return redoubt.BadDigest
	}
	return nil
}

// describe sets what is said of content to whoever may read it.
func (c *call) describe(v *redoubt.Version, d image.Digest, n int64) {
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", `"`+d.String()+`"`)
	h.Set(labelHeader, v.Label.Banner())
}

// span reads one byte range. A malformed or a multiple one is ignored; one that lies outside is an error.
func span(header string, size int64) (off, n int64, partial bool, err error) {
	outside := &redoubt.Error{Op: "registry", Kind: redoubt.RangeInvalid}
	first, last, ok := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	if !strings.HasPrefix(header, "bytes=") || !ok || strings.Contains(header, ",") {
		return 0, size, false, nil
	}
	if first == "" {
		n, ok := digits(last)
		switch {
		case !ok:
			return 0, size, false, nil
		case n == 0 || size == 0:
			return 0, 0, false, outside
		}
		n = min(n, size)
		return size - n, n, true, nil
	}
	off, ok = digits(first)
	end := size - 1
	if last != "" && ok {
		var given int64
		given, ok = digits(last)
		end, ok = min(end, given), ok && given >= off
	}
	switch {
	case !ok:
		return 0, size, false, nil
	case off >= size:
		return 0, 0, false, outside
	}
	return off, end - off + 1, true, nil
}

// digits reads a decimal number that fits.
func digits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

const copyBytes = 256 << 10

var copies = sync.Pool{New: func() any { return new([copyBytes]byte) }}

// send copies content out. The first of it is read before the status is sent, so that what fails at once is an error; what fails later cuts the
// connection before its last bytes.
func (c *call) send(status int, r io.Reader) error {
	buf := copies.Get().(*[copyBytes]byte)
	defer copies.Put(buf)
	for {
		n, err := io.ReadFull(r, buf[:])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return unknown("BLOB_UNKNOWN", err)
		}
		if !c.started {
			c.begin(status)
		}
		if n > 0 {
			if _, err := c.w.Write(buf[:n]); err != nil {
				panic(http.ErrAbortHandler) // the client is gone
			}
		}
		if err != nil {
			return nil
		}
	}
}

// deleteBlob is DELETE /v2/NAME/blobs/DIGEST: a marker at the caller's working label hides what she sees of it, as with any object.
func (c *call) deleteBlob() error {
	d, err := c.digest()
	if err != nil {
		return err
	}
	v, err := c.findBlob(c.repo, d)
	if err != nil {
		return unknown("BLOB_UNKNOWN", err)
	}
	hide := []redoubt.ObjectName{v.Name}
	if v.Name != c.repo.Blob(d) {
		hide = []redoubt.ObjectName{c.repo.Link(d), v.Name}
	}
	return c.remove(hide...)
}

// remove puts delete markers over what is there, and answers.
func (c *call) remove(names ...redoubt.ObjectName) error {
	for _, name := range names {
		if _, err := c.g.Objects.DeleteObject(c.ctx, c.who, redoubt.DeleteObject{Name: name}); err != nil {
			return err
		}
	}
	c.begin(http.StatusAccepted)
	return nil
}
