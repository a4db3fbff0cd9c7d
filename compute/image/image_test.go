package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"redoubt"
)

// shelf is an enclave's objects as one reader sees them.
type shelf map[redoubt.ObjectName][]byte

type content []byte

func (c content) Reader(off, n int64) io.Reader {
	if n < 0 {
		n = int64(len(c)) - off
	}
	return bytes.NewReader(c[off : off+n])
}

func (content) Close() error { return nil }

func (s shelf) Object(_ context.Context, name redoubt.ObjectName) (redoubt.Version, redoubt.Content, error) {
	b, ok := s[name]
	if !ok {
		return redoubt.Version{}, nil, &redoubt.Error{Op: "GetObject", Object: name.String(), Kind: redoubt.NotFound}
	}
	return redoubt.Version{Name: name, SizeBytes: int64(len(b))}, content(b), nil
}

func (s shelf) blob(repo Repository, typ string, b []byte) Descriptor {
	d := Descriptor{MediaType: typ, Digest: DigestOf(b), Size: int64(len(b))}
	s[repo.Blob(d.Digest)] = b
	return d
}

func (s shelf) manifest(t *testing.T, repo Repository, v any) Digest {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	s[repo.Manifest(DigestOf(b))] = b
	return DigestOf(b)
}

var tools = Repository{Bucket: "tools", Name: "shell/dash"}

func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := bytes.Repeat([]byte("all of it "), 10_000)
	if err := w.WriteHeader(&tar.Header{Name: "bin/sh", Mode: 0o755, Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pack(t *testing.T, how string, b []byte) (typ string, packed []byte) {
	t.Helper()
	typ = "application/vnd.oci.image.layer.v1.tar"
	var out bytes.Buffer
	var w io.WriteCloser
	switch how {
	case "":
		return typ, b
	case "gzip":
		w = gzip.NewWriter(&out)
	case "zstd":
		w, _ = zstd.NewWriter(&out)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return typ + "+" + how, out.Bytes()
}

// dash is a shelf with one image that lies there packed in some way, and that image.
func dash(t *testing.T, how string) (shelf, *Image) {
	t.Helper()
	s := shelf{}
	s.put(t, how)
	ref, _ := ParseReference("tools/shell/dash")
	found, err := Open(t.Context(), s, ref, Linux("amd64"))
	if err != nil {
		t.Fatal(err)
	}
	return s, found
}

// put makes an index with one image for amd64 and one for arm64, tagged latest.
func (s shelf) put(t *testing.T, how string) {
	t.Helper()
	plain := archive(t)
	typ, packed := pack(t, how, plain)
	var of []Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		config := fmt.Sprintf(`{"os":"linux","architecture":%q,"config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, arch, DigestOf(plain))
		c := s.blob(tools, TypeConfig, []byte(config))
		d := s.manifest(t, tools, map[string]any{"schemaVersion": 2, "mediaType": TypeManifest, "config": c, "layers": []Descriptor{s.blob(tools, typ, packed)}})
		of = append(of, Descriptor{MediaType: TypeManifest, Digest: d, Size: int64(len(s[tools.Manifest(d)])), Platform: &Platform{OS: "linux", Architecture: arch}})
	}
	root := s.manifest(t, tools, map[string]any{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": of})
	s[tools.Tag("latest")] = []byte(root.String())
}

func TestAnImageIsFoundForItsPlatformAndUnpacks(t *testing.T) {
	for _, how := range []string{"", "gzip", "zstd"} {
		s := shelf{}
		s.put(t, how)
		ref, err := ParseReference("tools/shell/dash")
		if err != nil {
			t.Fatal(err)
		}
		for _, arch := range []string{"amd64", "arm64"} {
			found, err := Open(t.Context(), s, ref, Linux(arch))
			if err != nil {
				t.Fatal(err)
			}
			if found.Config.Architecture != arch || found.Root == found.Digest || len(found.Layers) != 1 {
				t.Errorf("%s: got %s, root %s, image %s, %d layers", arch, found.Config.Architecture, found.Root, found.Digest, len(found.Layers))
			}
			r, err := found.LayerTar(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(iotest.OneByteReader(r))
			if err != nil || !bytes.Equal(got, archive(t)) {
				t.Errorf("%q: %d bytes, %v", how, len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := Open(t.Context(), s, ref, Linux("riscv64")); redoubt.KindOf(err) != redoubt.Invalid || !strings.Contains(err.Error(), "linux/amd64") {
			t.Errorf("for no such processor: %v", err)
		}
		ref.Tag = "other"
		if _, err := Open(t.Context(), s, ref, Linux("amd64")); redoubt.KindOf(err) != redoubt.NotFound {
			t.Errorf("of no such tag: %v", err)
		}
	}
}

func TestABlobThatCameBeforeItsDigestIsFound(t *testing.T) {
	s, found := dash(t, "gzip")
	d, id := found.Layers[0].Digest, strings.Repeat("0123456789abcdef", 2)
	s[tools.Data(id)], s[tools.Link(d)] = s[tools.Blob(d)], []byte(id)
	delete(s, tools.Blob(d))
	r, err := found.LayerTar(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, archive(t)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, bad := range []string{"", "../../../../../../secret/object1", id[:31], id + "0", strings.ToUpper(id)} {
		s[tools.Link(d)] = []byte(bad)
		if _, err := found.LayerTar(t.Context(), 0); err == nil {
			t.Errorf("followed the link %q", bad)
		}
	}
}

// Whoever may write a key may write it under an image's name.
func TestNothingIsBelievedForTheNameItLiesUnder(t *testing.T) {
	ref, _ := ParseReference("tools/shell/dash:latest")
	everything := func(s shelf) error {
		found, err := Open(t.Context(), s, ref, Linux("amd64"))
		if err != nil {
			return err
		}
		r, err := found.LayerTar(t.Context(), 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return err
	}
	whole := shelf{}
	whole.put(t, "gzip")
	found, err := Open(t.Context(), whole, ref, Linux("amd64"))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]redoubt.ObjectName{"index": tools.Manifest(found.Root), "manifest": tools.Manifest(found.Digest),
		"config": tools.Blob(found.ConfigID), "layer": tools.Blob(found.Layers[0].Digest)}
	for what, name := range parts {
		for i := range len(whole[name]) {
			s := shelf{}
			for n, b := range whole {
				s[n] = b
			}
			s[name] = bytes.Clone(whole[name])
			s[name][i] ^= 1
			if err := everything(s); err == nil {
				t.Errorf("%s: byte %d was changed, and it is run", what, i)
			}
			s[name] = whole[name][:i]
			if err := everything(s); err == nil {
				t.Errorf("%s: cut at %d, and it is run", what, i)
			}
		}
		s := shelf{}
		for n, b := range whole {
			s[n] = b
		}
		s[name] = append(bytes.Clone(whole[name]), ' ')
		if err := everything(s); err == nil {
			t.Errorf("%s: a byte follows, and it is run", what)
		}
	}
}

func TestALayerIsWhatItsConfigurationSaysUnpacked(t *testing.T) {
	_, found := dash(t, "gzip")
	found.Config.RootFS.DiffIDs[0] = DigestOf([]byte("another"))
	r, err := found.LayerTar(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); redoubt.KindOf(err) != redoubt.BadDigest {
		t.Errorf("got %v", err)
	}
}

func TestTheLastOfWhatIsWrongIsNeverGiven(t *testing.T) {
	b := bytes.Repeat([]byte("x"), 100_000)
	for size, want := range map[int64]redoubt.Kind{100_000: redoubt.BadDigest, 99_999: redoubt.BadDigest, 100_001: redoubt.BadDigest} {
		got, err := io.ReadAll(Verify(bytes.NewReader(b), DigestOf([]byte("other")), size))
		if redoubt.KindOf(err) != want || len(got) >= int(size) {
			t.Errorf("%d: %d bytes, %v", size, len(got), err)
		}
	}
	if got, err := io.ReadAll(Verify(iotest.DataErrReader(bytes.NewReader(b)), DigestOf(b), 100_000)); err != nil || len(got) != len(b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := io.ReadAll(Verify(bytes.NewReader(nil), DigestOf(nil), 0)); err != nil || len(got) != 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestReferences(t *testing.T) {
	d := strings.Repeat("ab", 32)
	for in, want := range map[string]string{
		"images/tool":                          "images/tool:latest",
		"images/a/b/c:1.2":                     "images/a/b/c:1.2",
		"images/tool@sha256:" + d:              "images/tool@sha256:" + d,
		"unclass.images/tool:v1@sha256:" + d:   "unclass.images/tool:v1@sha256:" + d,
		"images/a--b__c.d:" + "_":              "images/a--b__c.d:_",
		"images/" + strings.Repeat("a", 248):   "images/" + strings.Repeat("a", 248) + ":latest",
		"images/a:" + strings.Repeat("T", 128): "images/a:" + strings.Repeat("T", 128),
	} {
		if got, err := ParseReference(in); err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "tool", "images/", "/tool", "images//tool", "images/../tool", "images/./tool", "images/_tags/x", "Images/tool",
		"images/tool:", "images/tool:-a", "images/tool:.a", "images/tool:a/b", "images/tool@sha256:" + d[1:], "images/tool@sha256:" + strings.ToUpper(d),
		"images/tool@sha512:" + d, "images/tool@", "models/tool", "health/tool", "images/a___b", "images/a..b", "images/-a", "images/a\n", "images/a:b\n", "images/tool:a:b",
		"images/" + strings.Repeat("a", 249), "images/a:" + strings.Repeat("T", 129), "images/a\x00"} {
		if got, err := ParseReference(in); err == nil {
			t.Errorf("%q: taken as %s", in, got)
		}
	}
}

func TestManifestsThatCouldBeTwoThings(t *testing.T) {
	d := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":2}`, TypeConfig, DigestOf([]byte("{}")))
	good := `{"schemaVersion":2,"mediaType":"` + TypeManifest + `","config":` + d + `,"layers":[],"annotations":{"a":"1","A":"2"},"x-other":[{}]}`
	if _, err := ReadManifest([]byte(good), TypeManifest); err != nil {
		t.Fatal(err)
	}
	for why, in := range map[string]string{
		"both kinds":        `{"schemaVersion":2,"mediaType":"` + TypeManifest + `","config":` + d + `,"layers":[],"manifests":[]}`,
		"an index that is":  `{"schemaVersion":2,"mediaType":"` + TypeIndex + `","config":` + d + `}`,
		"twice":             `{"schemaVersion":2,"config":` + d + `,"layers":[],"layers":[]}`,
		"another spelling":  `{"schemaVersion":2,"config":` + d + `,"layers":[],"Layers":[]}`,
		"only misspelled":   `{"schemaVersion":2,"config":` + d + `,"LAYERS":[]}`,
		"twice, deeper":     `{"schemaVersion":2,"config":` + d + `,"layers":[],"annotations":{"a":"1","a":"2"}}`,
		"trailing":          good + ` {}`,
		"another type":      strings.Replace(good, TypeManifest, TypeDockerManifest, 1),
		"an unknown type":   strings.Replace(good, TypeManifest, "text/plain", 1),
		"schema 1":          `{"schemaVersion":1,"config":` + d + `}`,
		"no config":         `{"schemaVersion":2,"layers":[]}`,
		"no digest":         `{"schemaVersion":2,"config":{"mediaType":"a/b","size":1}}`,
		"negative":          `{"schemaVersion":2,"config":` + strings.Replace(d, `"size":2`, `"size":-2`, 1) + `}`,
		"too large":         `{"schemaVersion":2,"config":` + strings.Replace(d, `"size":2`, `"size":6000000000000`, 1) + `}`,
		"a header's end":    `{"schemaVersion":2,"config":` + strings.Replace(d, "config.v1+json", `x\r\nSet-Cookie: a`, 1) + `}`,
		"deep":              `{"schemaVersion":2,"config":` + d + `,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
		"an array":          `[]`,
		"a number":          `2`,
		"nothing":           ``,
		"not UTF-8":         "{\"schemaVersion\":2,\"x\":\"\xff\",\"config\":" + d + `}`,
		"too many layers":   `{"schemaVersion":2,"config":` + d + `,"layers":[` + strings.TrimSuffix(strings.Repeat(d+",", MaxLayers+1), ",") + `]}`,
		"too many in index": `{"schemaVersion":2,"manifests":[` + strings.TrimSuffix(strings.Repeat(d+",", MaxIndexed+1), ",") + `]}`,
	} {
		if _, err := ReadManifest([]byte(in), TypeManifest); err == nil {
			t.Errorf("%s: taken as a manifest", why)
		}
	}
	if _, err := ReadManifest([]byte(`{"schemaVersion":2,"config":`+d+`,"layers":[`+strings.TrimSuffix(strings.Repeat(d+",", MaxLayers), ",")+`]}`), ""); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ReadManifest(bytes.Repeat([]byte(" "), MaxManifestBytes+1), ""); redoubt.KindOf(err) != redoubt.TooLarge {
		t.Errorf("too large: %v", err)
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))
	f.Add([]byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ReadManifest(b, ""); err == nil {
			if m.Index() == (m.Config != nil) {
				t.Error("neither a manifest nor an index")
			}
			for d := range m.descriptors {
				if d.Digest.IsZero() || d.Size < 0 || strings.ContainsAny(d.MediaType, "\r\n") {
					t.Errorf("passed %+v", d)
				}
			}
		}
		if c, err := ReadConfig(b); err == nil && len(c.RootFS.DiffIDs) > MaxLayers {
			t.Error("too many layers")
		}
		_, _ = ParseReference(string(b))
	})
}
