package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/image"
	"redoubt/compute/oci"
	"redoubt/sandbox"
)

func TestMain(m *testing.M) {
	oci.Enter()
	sandbox.Enter(oci.Workers())
	if os.Getenv(asNode) != "" {
		node()
		return
	}
	os.Exit(m.Run())
}

// repo is where the images of these tests lie.
var repo = image.Repository{Bucket: "images", Name: "test"}

// entry is one of a layer. A name that ends in a slash is a folder.
type entry struct {
	name, content string
	h             tar.Header
}

func layer(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.h
		h.Name, h.Size = e.name, int64(len(e.content))
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func digest(b []byte) string { return image.DigestOf(b).String() }

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type object map[string]any

// push puts an image of layers into a run, and gives what names it. change may alter its configuration and manifest.
func push(t testing.TB, r *computetest.Run, conf object, change func(config, manifest object), layers ...[]byte) string {
	t.Helper()
	var diffs []string
	var descriptors []object
	for _, l := range layers {
		packed := gzipped(t, l)
		diffs = append(diffs, digest(l))
		descriptors = append(descriptors, object{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(packed), "size": len(packed)})
		r.SetObject(repo.Blob(image.DigestOf(packed)), packed)
	}
	config := object{"architecture": runtime.GOARCH, "os": "linux", "config": conf, "rootfs": object{"type": "layers", "diff_ids": diffs}}
	manifest := object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": descriptors}
	if change != nil {
		change(config, manifest)
	}
	c := marshal(t, config)
	r.SetObject(repo.Blob(image.DigestOf(c)), c)
	manifest["config"] = object{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(c), "size": len(c)}
	m := marshal(t, manifest)
	r.SetObject(repo.Manifest(image.DigestOf(m)), m)
	r.SetObject(repo.Tag("v1"), []byte(digest(m)))
	return "images/test:v1"
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withProgram is an image that holds a program alone.
func withProgram(t testing.TB, r *computetest.Run, program []byte) redoubt.SubmitJob {
	l := layer(t, entry{name: "bin/"}, entry{name: "bin/program", content: string(program)})
	return redoubt.SubmitJob{Image: push(t, r, object{"Entrypoint": []string{"/bin/program"}}, nil, l)}
}

func newDriver(t *testing.T) compute.Driver {
	t.Helper()
	return driverWith(t, oci.Options{})
}

func driverWith(t *testing.T, o oci.Options) *oci.Driver {
	t.Helper()
	if oci.Dynamic() {
		t.Skip("built with cgo: a sandbox needs a static binary")
	}
	d, err := oci.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestContract(t *testing.T) {
	computetest.Suite(t, newDriver, computetest.Programs{GOOS: "linux", GOARCH: runtime.GOARCH, Load: func(t *testing.T, r *computetest.Run, p []byte) redoubt.SubmitJob { return withProgram(t, r, p) }, Processes: true, Network: true})
}
