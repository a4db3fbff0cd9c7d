package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute/image"
	"redoubt/redoubttest"
)

const repo = "reports/tools/a"

func TestManifestsByTagAndByDigest(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	one, two := c.push(repo, "v1", []byte("one")), c.push(repo, "v1", []byte("two"))
	for ref, want := range map[string]image.Digest{"v1": two, one.String(): one, two.String(): two} {
		path := "/v2/" + repo + "/manifests/" + ref
		head, got := c.want(200, "", "HEAD", path, nil), c.want(200, "", "GET", path, nil)
		if image.DigestOf([]byte(got.body)) != want || got.header.Get("Content-Type") != image.TypeManifest || got.header.Get("Docker-Content-Digest") != want.String() ||
			head.header.Get("Content-Length") != fmt.Sprint(len(got.body)) || head.body != "" || head.header.Get("Redoubt-Label") != "SECRET" {
			t.Errorf("%s: %s %v", ref, got, head.header)
		}
	}
	index := manifest(map[string]any{"mediaType": image.TypeIndex, "manifests": []image.Descriptor{
		{MediaType: image.TypeManifest, Digest: one, Size: int64(len(c.do("GET", "/v2/"+repo+"/manifests/"+one.String(), nil).body)), Platform: &image.Platform{OS: "linux", Architecture: "amd64"}}}})
	c.want(201, "", "PUT", "/v2/"+repo+"/manifests/all", bytes.NewReader(index), "Content-Type", image.TypeIndex)
	if got := c.want(200, "", "GET", "/v2/"+repo+"/manifests/all", nil); got.body != string(index) || got.header.Get("Content-Type") != image.TypeIndex {
		t.Errorf("the index: %s", got)
	}

	c.want(202, "", "DELETE", "/v2/"+repo+"/manifests/v1", nil)
	c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/"+repo+"/manifests/v1", nil)
	c.want(200, "", "GET", "/v2/"+repo+"/manifests/"+two.String(), nil) // of a tag, the tag alone
	c.want(202, "", "DELETE", "/v2/"+repo+"/manifests/"+two.String(), nil)
	c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/"+repo+"/manifests/"+two.String(), nil)
	c.want(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/"+repo+"/manifests/"+two.String(), nil)
	c.want(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/"+repo+"/manifests/v1", nil)
}

func TestManifestsThatAreNotTaken(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	layer, config := c.blob(repo, []byte("layer")), c.blob(repo, []byte("{}"))
	config.MediaType = image.TypeConfig
	put := "/v2/" + repo + "/manifests/bad"
	good := func() map[string]any {
		return map[string]any{"config": config, "layers": []image.Descriptor{layer}}
	}
	with := func(key string, v any) []byte { m := good(); m[key] = v; return manifest(m) }
	other := layer
	other.Digest = image.DigestOf([]byte("never pushed"))
	c.want(404, "MANIFEST_BLOB_UNKNOWN", "PUT", put, bytes.NewReader(with("layers", []image.Descriptor{other})), "Content-Type", image.TypeManifest)
	c.want(404, "MANIFEST_BLOB_UNKNOWN", "PUT", put, bytes.NewReader(manifest(map[string]any{"mediaType": image.TypeIndex, "manifests": []image.Descriptor{other}})), "Content-Type", image.TypeIndex)
	other = layer
	other.Size++
	c.want(400, "MANIFEST_INVALID", "PUT", put, bytes.NewReader(with("layers", []image.Descriptor{other})), "Content-Type", image.TypeManifest)
	for typ, body := range map[string][]byte{
		"":                       manifest(good()),
		image.TypeDockerManifest: manifest(good()),
		"text/plain":             with("mediaType", "text/plain"),
		image.TypeIndex:          with("mediaType", image.TypeIndex),
		image.TypeManifest:       with("manifests", []image.Descriptor{}),
		image.TypeConfig:         []byte("{}"),
	} {
		if a := c.do("PUT", put, bytes.NewReader(body), "Content-Type", typ); a.status != 400 || a.code() != "MANIFEST_INVALID" {
			t.Errorf("as %s: %s", typ, a)
		}
	}
	annotated := func(n int) []byte { return with("annotations", map[string]string{"a": strings.Repeat("x", n)}) }
	room := image.MaxManifestBytes - len(annotated(0))
	c.want(413, "MANIFEST_INVALID", "PUT", put, bytes.NewReader(annotated(room+1)), "Content-Type", image.TypeManifest)
	c.want(404, "MANIFEST_UNKNOWN", "GET", put, nil)
	c.want(201, "", "PUT", put, bytes.NewReader(annotated(room)), "Content-Type", image.TypeManifest)
}

func TestTagsAreListedInPages(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	c.want(404, "NAME_UNKNOWN", "GET", "/v2/"+repo+"/tags/list", nil)
	c.blob(repo, []byte("x"))
	if a := c.want(200, "", "GET", "/v2/"+repo+"/tags/list", nil); a.body != `{"name":"`+repo+`","tags":[]}`+"\n" {
		t.Errorf("of a repository without tags: %s", a)
	}
	want := []string{"A", "_", "a", "b", "v1", "v1.0", "v10", "v2"}
	for _, tag := range want {
		c.push(repo, tag, []byte("x"))
	}
	for n := 1; n <= len(want)+1; n++ {
		var got []string
		next := fmt.Sprintf("/v2/%s/tags/list?n=%d", repo, n)
		for pages := 0; next != "" && pages < 20; pages++ {
			a := c.want(200, "", "GET", next, nil)
			var page struct{ Tags []string }
			if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(page.Tags) > n {
				t.Fatalf("%s, %v", a, err)
			}
			got = append(got, page.Tags...)
			next, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: got %v", n, got)
		}
	}
	if a := c.want(200, "", "GET", "/v2/"+repo+"/tags/list?last=b", nil); !strings.Contains(a.body, `["v1","v1.0","v10","v2"]`) {
		t.Errorf("after b: %s", a)
	}
	if a := c.want(200, "", "GET", "/v2/"+repo+"/tags/list?n=0", nil); !strings.Contains(a.body, `[]`) {
		t.Errorf("none: %s", a)
	}
	for _, bad := range []string{"n=-1", "n=x", "last=" + url.QueryEscape("../../x"), "last=%00"} {
		c.want(400, "UNSUPPORTED", "GET", "/v2/"+repo+"/tags/list?"+bad, nil)
	}
	c.want(413, "SIZE_INVALID", "GET", "/v2/"+repo+"/tags/list?last="+strings.Repeat("a", 5000), nil)
}

func (c *client) referrers(path string) (all []image.Descriptor, header http.Header) {
	c.t.Helper()
	a := c.want(200, "", "GET", path, nil)
	var index struct {
		MediaType string
		Manifests []image.Descriptor
	}
	if err := json.Unmarshal([]byte(a.body), &index); err != nil || index.MediaType != image.TypeIndex || a.header.Get("Content-Type") != image.TypeIndex {
		c.t.Fatalf("%s: %s, %v", path, a, err)
	}
	return index.Manifests, a.header
}

func TestReferrersAreFound(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	d := c.push(repo, "v1", []byte("one"))
	path := "/v2/" + repo + "/referrers/" + d.String()
	if all, _ := c.referrers(path); len(all) != 0 {
		t.Errorf("of none: %v", all)
	}
	if all, _ := c.referrers("/v2/nowhere/at-all/referrers/" + d.String()); len(all) != 0 {
		t.Errorf("of no bucket: %v", all)
	}
	empty := c.blob(repo, []byte("{}"))
	empty.MediaType = image.TypeEmpty
	subject := image.Descriptor{MediaType: image.TypeManifest, Digest: d, Size: 1}
	attach := func(c *client, kind string, n int) image.Digest {
		m := manifest(map[string]any{"config": empty, "layers": []image.Descriptor{empty}, "subject": subject, "artifactType": kind, "annotations": map[string]string{"n": fmt.Sprint(n)}})
		a := c.want(201, "", "PUT", "/v2/"+repo+"/manifests/"+image.DigestOf(m).String(), bytes.NewReader(m), "Content-Type", image.TypeManifest)
		if a.header.Get("Oci-Subject") != d.String() {
			t.Errorf("OCI-Subject is %q", a.header.Get("Oci-Subject"))
		}
		return image.DigestOf(m)
	}
	first := attach(c, "application/vnd.example.sbom", 0)
	for i := range 104 {
		attach(c, "application/vnd.example.note", i)
	}
	all, header := c.referrers(path)
	for header.Get("Link") != "" {
		next, _, _ := strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
		var more []image.Descriptor
		more, header = c.referrers(next)
		all = append(all, more...)
	}
	if len(all) != 105 {
		t.Errorf("got %d referrers", len(all))
	}
	found := 0
	for next := path + "?artifactType=" + url.QueryEscape("application/vnd.example.sbom"); next != ""; {
		some, header := c.referrers(next)
		for _, r := range some {
			if found++; r.Digest != first || r.ArtifactType != "application/vnd.example.sbom" || r.Annotations["n"] != "0" {
				t.Errorf("got %+v", r)
			}
		}
		if header.Get("Oci-Filters-Applied") != "artifactType" {
			t.Error("the filter is not told of")
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	}
	if found != 1 {
		t.Errorf("the filter found %d", found)
	}
	c.want(202, "", "DELETE", "/v2/"+repo+"/manifests/"+first.String(), nil)
	if some, _ := c.referrers(path + "?artifactType=" + url.QueryEscape("application/vnd.example.sbom")); len(some) != 0 {
		t.Errorf("what was deleted refers still: %v", some)
	}
	// A key alone makes no referrer.
	as := s.As(c.minted)
	name := image.Repository{Bucket: "reports", Name: "tools/a"}
	for _, fake := range []image.Digest{image.DigestOf([]byte("none")), d} {
		if _, err := s.PutObject(t.Context(), as, redoubt.PutObject{Name: name.Referrer(subject.Digest, fake)}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for next := path; next != ""; {
		some, header := c.referrers(next)
		n += len(some)
		next, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	}
	if n != 104 {
		t.Errorf("got %d referrers", n)
	}
}
