package registry

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"redoubt"
	"redoubt/compute/image"
)

// listTags is GET /v2/NAME/tags/list?n=N&last=TAG. A repository of which the caller sees nothing is none.
func (c *call) listTags() error {
	q := c.r.URL.Query()
	n := maxPage
	if given := q.Get("n"); given != "" {
		asked, ok := digits(given)
		if !ok {
			return as("UNSUPPORTED", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "n is a number"})
		}
		n = int(min(asked, maxPage))
	}
	last := q.Get("last")
	if last != "" && !image.ValidTag(last) {
		return as("UNSUPPORTED", &redoubt.Error{Op: "registry", Kind: redoubt.Invalid, Rule: "last is a tag"})
	}
	prefix := c.repo.Tags()
	in := redoubt.ListObjects{Bucket: c.repo.Bucket, Prefix: prefix, Max: max(1, n)}
	if last != "" {
		in.After = prefix + last
	}
	page, err := c.g.Lists.ListObjects(c.ctx, c.who, in)
	if err != nil {
		return unknown("NAME_UNKNOWN", err)
	}
	if len(page.Versions) == 0 {
		if err := c.exists(); err != nil {
			return err
		}
	}
	tags := []string{}
	for _, v := range page.Versions {
		if tag := strings.TrimPrefix(v.Name.Key, prefix); n > 0 && image.ValidTag(tag) {
			tags = append(tags, tag)
		}
	}
	if page.Truncated && n > 0 {
		c.next("tags/list", url.Values{"n": {strconv.Itoa(n)}, "last": {strings.TrimPrefix(page.Next, prefix)}})
	}
	return c.answer("application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{c.repo.String(), tags})
}

// exists says whether the caller sees anything of the repository.
func (c *call) exists() error {
	page, err := c.g.Lists.ListObjects(c.ctx, c.who, redoubt.ListObjects{Bucket: c.repo.Bucket, Prefix: c.repo.Name + "/_", Max: 1})
	if err == nil && len(page.Versions) == 0 {
		err = redoubt.NotFound
	}
	return unknown("NAME_UNKNOWN", err)
}

// next says where a list goes on.
func (c *call) next(what string, q url.Values) {
	c.w.Header().Set("Link", "</v2/"+c.repo.String()+"/"+what+"?"+q.Encode()+`>; rel="next"`)
}

func (c *call) answer(typ string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", typ)
	c.begin(http.StatusOK)
	_, _ = c.w.Write(append(body, '\n'))
	return nil
}

// listReferrers is GET /v2/NAME/referrers/DIGEST?artifactType=TYPE: an index of the manifests that name the digest as their subject. Of what is
// not known, or refers to nothing that the caller may see, it is empty.
func (c *call) listReferrers() error {
	subject, err := c.digest()
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	kind, prefix := q.Get("artifactType"), c.repo.Referrers(subject)
	in := redoubt.ListObjects{Bucket: c.repo.Bucket, Prefix: prefix, Max: maxReferrers}
	if last := q.Get("last"); last != "" {
		d, err := image.ParseDigest(last)
		if err != nil {
			return as("DIGEST_INVALID", err)
		}
		in.After = prefix + d.Hex()
	}
	page, err := c.g.Lists.ListObjects(c.ctx, c.who, in)
	if err != nil && redoubt.KindOf(err) != redoubt.NoBucket && redoubt.KindOf(err) != redoubt.NotFound {
		return err
	}
	found, size := []image.Descriptor{}, 0
	for i, v := range page.Versions {
		d, ok := c.repo.ReferrerOf(subject, v.Name.Key)
		if !ok {
			continue
		}
		desc, bytes, err := c.referrer(subject, d)
		if err != nil {
			return err
		}
		if desc != nil && (kind == "" || desc.ArtifactType == kind) {
			found = append(found, *desc)
		}
		if size += bytes; size > maxReferrerBytes || page.Truncated && i == len(page.Versions)-1 {
			if i < len(page.Versions)-1 || page.Truncated {
				more := url.Values{"last": {d.String()}}
				if kind != "" {
					more.Set("artifactType", kind)
				}
				c.next("referrers/"+subject.String(), more)
			}
			break
		}
	}
	if kind != "" {
		c.w.Header().Set("Oci-Filters-Applied", "artifactType")
	}
	return c.answer(image.TypeIndex, struct {
		SchemaVersion int                `json:"schemaVersion"`
		MediaType     string             `json:"mediaType"`
		Manifests     []image.Descriptor `json:"manifests"`
	}{2, image.TypeIndex, found})
}

// referrer describes a manifest, if it is one that refers to the subject; bytes is how much of it was read.
func (c *call) referrer(subject, d image.Digest) (desc *image.Descriptor, bytes int, err error) {
	raw, m, err := c.readManifest(objects{c: c}, d)
	if err != nil {
		if _, status := told(unknown("", err)); status == http.StatusNotFound {
			err = nil
		}
		return nil, 0, err
	}
	if m.Subject == nil || m.Subject.Digest != subject {
		return nil, len(raw), nil
	}
	kind := m.ArtifactType
	if kind == "" && m.Config != nil {
		kind = m.Config.MediaType
	}
	return &image.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(raw)), ArtifactType: kind, Annotations: m.Annotations}, len(raw), nil
}
