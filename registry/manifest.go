package registry

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"strings"

	"redoubt"
	"redoubt/compute/image"
)

// named reads the rest of the path as a digest, or as a tag that the caller may see.
func (c *call) named() (image.Digest, error) {
	if strings.Contains(c.rest, ":") {
		return c.digest()
	}
	if !image.ValidTag(c.rest) {
		return image.Digest{}, as("MANIFEST_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "no tag looks like that"})
	}
	d, err := image.ResolveTag(c.ctx, objects{c: c}, c.repo, c.rest)
	if redoubt.KindOf(err) == redoubt.Invalid && err != nil {
		err = redoubt.NotFound // whatever lies there is no tag
	}
	return d, err
}

// getManifest is GET and HEAD /v2/NAME/manifests/REFERENCE. HEAD reads it too: what lies there is held to its digest before it is said to be it.
func (c *call) getManifest() error {
	d, err := c.named()
	if err != nil {
		return unknown("MANIFEST_UNKNOWN", err)
	}
	from := &labelled{objects: objects{c: c}}
	raw, m, err := c.readManifest(from, d)
	if err != nil {
		return unknown("MANIFEST_UNKNOWN", err)
	}
	v := redoubt.Version{Label: from.last.Label}
	c.describe(&v, d, int64(len(raw)))
	h := c.w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Del("Accept-Ranges")
	c.begin(http.StatusOK)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(raw)
	}
	return nil
}

// labelled remembers what was opened last.
type labelled struct {
	objects
	last redoubt.Version
}

func (l *labelled) Object(ctx context.Context, name redoubt.ObjectName) (redoubt.Version, redoubt.Content, error) {
	v, content, err := l.objects.Object(ctx, name)
	l.last = v
	return v, content, err
}

// readManifest reads a manifest that the caller may see. What lies there and is none is like nothing.
func (c *call) readManifest(o image.Objects, d image.Digest) ([]byte, *image.Manifest, error) {
	raw, err := image.ManifestBytes(c.ctx, o, c.repo, d)
	if err != nil {
		return nil, nil, err
	}
	m, err := c.g.parse(c.ctx, raw, "")
	if redoubt.KindOf(err) == redoubt.Invalid && err != nil {
		err = redoubt.NotFound
	}
	return raw, m, err
}

// parse takes a manifest apart: a few at a time, for one of 4 MiB becomes many times that.
func (g *Registry) parse(ctx context.Context, raw []byte, typ string) (*image.Manifest, error) {
	select {
	case g.reading <- struct{}{}:
		defer func() { <-g.reading }()
	case <-ctx.Done():
		return nil, redoubt.Unavailable
	}
	return image.ReadManifest(raw, typ)
}

// putManifest is PUT /v2/NAME/manifests/REFERENCE. What it points at is there already, and the caller may see it.
func (c *call) putManifest() error {
	raw, err := io.ReadAll(io.LimitReader(c.r.Body, image.MaxManifestBytes+1))
	if err != nil {
		return as("MANIFEST_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "the manifest did not arrive whole"})
	}
	typ, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil {
		return as("MANIFEST_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "send the manifest's media type as Content-Type"})
	}
	m, err := c.g.parse(c.ctx, raw, typ)
	if err != nil {
		return as("MANIFEST_INVALID", err)
	}
	d, tag := image.DigestOf(raw), ""
	if strings.Contains(c.rest, ":") {
		if named, err := c.digest(); err != nil {
			return err
		} else if named != d {
			return as("DIGEST_INVALID", redoubt.BadDigest)
		}
	} else if tag = c.rest; !image.ValidTag(tag) {
		return as("MANIFEST_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "no tag looks like that"})
	}
	if err := c.holds(m); err != nil {
		return err
	}
	return c.keepManifest(raw, d, m, tag)
}

// keepManifest stores a manifest; what makes it found by others comes after it.
func (c *call) keepManifest(raw []byte, d image.Digest, m *image.Manifest, tag string) error {
	_, err := c.g.Objects.PutObject(c.ctx, c.who, redoubt.PutObject{Name: c.repo.Manifest(d), SizeBytes: int64(len(raw)), Body: bytes.NewReader(raw),
		Attributes: redoubt.Attributes{ContentType: m.MediaType}})
	if err != nil {
		return err
	}
	if m.Subject != nil {
		if err := c.g.putSmall(c.ctx, c.who, c.repo.Referrer(m.Subject.Digest, d), "", ""); err != nil {
			return err
		}
		c.w.Header().Set("Oci-Subject", m.Subject.Digest.String())
	}
	if tag != "" {
		if err := c.g.putSmall(c.ctx, c.who, c.repo.Tag(tag), d.String(), "text/plain"); err != nil {
			return err
		}
	}
	return c.created("manifests", d)
}

// holds says whether everything that a manifest needs is in its repository, as far as the caller sees.
func (c *call) holds(m *image.Manifest) error {
	for i := range m.Manifests {
		v, err := c.g.Objects.HeadObject(c.ctx, c.who, redoubt.ReadObject{Name: c.repo.Manifest(m.Manifests[i].Digest)})
		if err := heldTo(&m.Manifests[i], &v, err); err != nil {
			return err
		}
	}
	needs := m.Layers
	if m.Config != nil {
		needs = append([]image.Descriptor{*m.Config}, needs...)
	}
	seen := map[image.Digest]int64{}
	for i := range needs {
		d := &needs[i]
		if len(d.URLs) > 0 || strings.Contains(d.MediaType, "nondistributable") {
			continue // it lies elsewhere; such an image is not run here
		}
		if size, ok := seen[d.Digest]; ok && size == d.Size {
			continue
		}
		v, err := c.findBlob(c.repo, d.Digest)
		if err := heldTo(d, &v, err); err != nil {
			return err
		}
		seen[d.Digest] = d.Size
	}
	return nil
}

func heldTo(d *image.Descriptor, v *redoubt.Version, err error) error {
	if err != nil {
		return unknown("MANIFEST_BLOB_UNKNOWN", err)
	}
	if v.SizeBytes != d.Size {
		return as("MANIFEST_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "something that it points at has another size"})
	}
	return nil
}

// deleteManifest is DELETE /v2/NAME/manifests/REFERENCE: of a tag, the tag alone.
func (c *call) deleteManifest() error {
	d, err := c.named()
	if err != nil {
		return unknown("MANIFEST_UNKNOWN", err)
	}
	if !strings.Contains(c.rest, ":") {
		return c.remove(c.repo.Tag(c.rest))
	}
	_, m, err := c.readManifest(objects{c: c}, d)
	if err != nil {
		return unknown("MANIFEST_UNKNOWN", err)
	}
	names := []redoubt.ObjectName{c.repo.Manifest(d)}
	if m.Subject != nil {
		names = append(names, c.repo.Referrer(m.Subject.Digest, d))
	}
	return c.remove(names...)
}
