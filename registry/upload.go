package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"strings"

	"redoubt"
	"redoubt/compute/image"
)

// startUpload is POST /v2/NAME/blobs/uploads/: begins an upload, takes a blob whole (?digest=), or takes it over from another repository
// (?mount=DIGEST&from=NAME).
func (c *call) startUpload() error {
	q := c.r.URL.Query()
	if given := q.Get("digest"); given != "" {
		d, err := image.ParseDigest(given)
		if err != nil {
			return as("DIGEST_INVALID", err)
		}
		return c.putWhole(d)
	}
	if given := q.Get("mount"); given != "" {
		done, err := c.mount(given, q.Get("from"))
		if done || err != nil {
			return err
		}
	}
	s, err := c.g.start(c.who, c.repo)
	if err != nil {
		return err
	}
	c.progress(s.id, 0)
	c.w.Header().Set("Content-Length", "0")
	c.begin(http.StatusAccepted)
	return nil
}

// progress says where an upload goes on, and how much of it is there.
func (c *call) progress(id string, size int64) {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.repo.String()+"/blobs/uploads/"+id)
	h.Set("Docker-Upload-Uuid", id)
	h.Set("Range", "0-"+strconv.FormatInt(max(0, size-1), 10))
}

// created answers what made a blob or a manifest.
func (c *call) created(what string, d image.Digest) error {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.repo.String()+"/"+what+"/"+d.String())
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", "0")
	c.begin(http.StatusCreated)
	return nil
}

// mount copies a blob that the caller may read in another repository, with the label of a copy. Whatever is not there to be copied, the client is
// told to send the blob itself, in one and the same answer (done is false).
func (c *call) mount(digest, from string) (done bool, err error) {
	d, err := image.ParseDigest(digest)
	if err != nil {
		return false, as("DIGEST_INVALID", err)
	}
	source, err := image.ParseRepository(from)
	if err != nil {
		return false, nil
	}
	v, content, err := image.OpenBlob(c.ctx, objects{c: c}, source, d)
	if err != nil {
		return false, nil
	}
	defer content.Close()
	if v.SizeBytes > redoubt.MaxPutBytes || summed(&v, d) != nil {
		return false, nil
	}
	if v.Checksums.SHA256 == "" || v.Checksums.Composite { // what it is is found out by reading it
		if _, err := io.Copy(io.Discard, image.Verify(content.Reader(0, -1), d, v.SizeBytes)); err != nil {
			return false, nil
		}
	}
	_, err = c.g.Objects.CopyObject(c.ctx, c.who, redoubt.CopyObject{Source: v.Name, SourceID: v.ID, Target: c.repo.Blob(d), SumAlgorithm: "SHA256"})
	if err != nil {
		return false, err
	}
	return true, c.created("blobs", d)
}

// putWhole takes a blob whose digest comes before it.
func (c *call) putWhole(d image.Digest) error {
	if err := c.g.putBlob(c.ctx, c.who, c.repo, d, c.r.ContentLength, c.r.Body); err != nil {
		return err
	}
	return c.created("blobs", d)
}

// putBlob stores a blob under its digest, once it has it.
func (g *Registry) putBlob(ctx context.Context, who redoubt.Credential, repo image.Repository, d image.Digest, size int64, body io.Reader) error {
	if body == nil {
		body = http.NoBody
	}
	sum := sha256.New()
	_, err := g.Objects.PutObject(ctx, who, redoubt.PutObject{Name: repo.Blob(d), SizeBytes: size, Body: io.TeeReader(body, sum),
		Attributes: redoubt.Attributes{ContentType: "application/octet-stream"},
		Finish: func() (redoubt.Checksums, string, error) {
			got := sum.Sum(nil)
			if image.Digest(got) != d {
				return redoubt.Checksums{}, "", redoubt.BadDigest
			}
			return redoubt.Checksums{SHA256: base64.StdEncoding.EncodeToString(got)}, "", nil
		}})
	return err
}

// putSmall stores a short text.
func (g *Registry) putSmall(ctx context.Context, who redoubt.Credential, name redoubt.ObjectName, text, typ string) error {
	_, err := g.Objects.PutObject(ctx, who, redoubt.PutObject{Name: name, SizeBytes: int64(len(text)), Body: strings.NewReader(text), Attributes: redoubt.Attributes{ContentType: typ}})
	return err
}

// statUpload is GET /v2/NAME/blobs/uploads/ID: how much has come.
func (c *call) statUpload() error {
	s, done, err := c.g.use(c.who, c.repo, c.rest)
	if err != nil {
		return err
	}
	defer done()
	c.progress(s.id, s.size)
	c.begin(http.StatusNoContent)
	return nil
}

// cancelUpload is DELETE /v2/NAME/blobs/uploads/ID.
func (c *call) cancelUpload() error {
	s, done, err := c.g.use(c.who, c.repo, c.rest)
	if err != nil {
		return err
	}
	defer done()
	c.g.drop(c.ctx, s)
	c.begin(http.StatusNoContent)
	return nil
}

// patchUpload is PATCH /v2/NAME/blobs/uploads/ID: more of a blob.
func (c *call) patchUpload() error {
	s, done, err := c.g.use(c.who, c.repo, c.rest)
	if err != nil {
		return err
	}
	defer done()
	if err := c.more(s); err != nil {
		return err
	}
	c.progress(s.id, s.size)
	c.w.Header().Set("Content-Length", "0")
	c.begin(http.StatusAccepted)
	return nil
}

// more takes in the body of a request, where it goes on from what has come.
func (c *call) more(s *session) error {
	if given := c.r.Header.Get("Content-Range"); given != "" {
		first, last, ok := strings.Cut(given, "-")
		from, ok1 := digits(first)
		to, ok2 := digits(last)
		if !ok || !ok1 || !ok2 || to < from || c.r.ContentLength >= 0 && c.r.ContentLength != to-from+1 {
			return as("BLOB_UPLOAD_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "Content-Range is FIRST-LAST, as long as the content"})
		}
		if from != s.size {
			c.progress(s.id, s.size)
			return as("BLOB_UPLOAD_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.RangeInvalid, Rule: "the range does not go on from what has come"})
		}
	}
	kept := context.WithoutCancel(c.ctx) // a client that is gone will ask for what it sent
	broke, err := c.g.take(kept, s, c.r.Body)
	if err != nil {
		c.g.drop(kept, s)
		return err
	}
	if broke {
		return as("BLOB_UPLOAD_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "the content broke off: ask how much has come, and go on from there"})
	}
	return nil
}

// finishUpload is PUT /v2/NAME/blobs/uploads/ID?digest=DIGEST, with the last of the blob, all of it or nothing.
func (c *call) finishUpload() error {
	s, done, err := c.g.use(c.who, c.repo, c.rest)
	if err != nil {
		return err
	}
	defer done()
	d, err := image.ParseDigest(c.r.URL.Query().Get("digest"))
	if err != nil {
		return as("DIGEST_INVALID", err)
	}
	if n := c.r.ContentLength; s.size == 0 && n > redoubt.MinPartBytes && n <= redoubt.MaxPutBytes && c.r.Header.Get("Content-Range") == "" {
		c.g.drop(c.ctx, s) // nothing has come: this is a blob that comes whole
		return c.putWhole(d)
	}
	if err := c.more(s); err != nil {
		return err
	}
	if err := c.g.finish(c.ctx, s, d); err != nil {
		c.g.drop(context.WithoutCancel(c.ctx), s)
		return err
	}
	c.g.forget(s)
	return c.created("blobs", d)
}
