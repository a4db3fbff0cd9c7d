package redoubttest

import (
	"archive/tar"
	"bytes"
	"crypto/fips140"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"redoubt/compute/computetest"
)

// programImage is an image that holds the contract suite's program alone.
func programImage(t *testing.T) v1.Image {
	t.Helper()
	program := computetest.Build(t, "linux", runtime.GOARCH)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", Config: v1.Config{Entrypoint: []string{"/program"}}, RootFS: mustConfig(t, img).RootFS})
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func mustConfig(t *testing.T, img v1.Image) *v1.ConfigFile {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// From the estate file to a program in a sandbox and back: what is named and granted is reached, is on record and on the list of what the node dials; so
// is the machine's own kernel, for whom it is granted to.
func TestAJobReachesWhatTheEstateGrants(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("the client that pushes the image is not held to it")
	}
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	go func() {
		for {
			c, err := far.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	r := newEstate(t)
	node := "    destinations:\n      - {name: \"index.example.mil:8080\", address: \"" + far.Addr().String() + "\", label: SECRET, subjects: [s-analyst]}\n    runc: {subjects: [s-analyst]}\n"
	example, file := r.must("estate", "show", "example"), filepath.Join(t.TempDir(), "estate.yaml")
	at := strings.Index(example, "  - name: secret\n") + len("  - name: secret\n")
	if err := os.WriteFile(file, []byte(example[:at]+node+example[at:]), 0o600); err != nil {
		t.Fatal(err)
	}
	r.must("up", file, "--detach", "--no-samples")
	env, _ := r.env("s-analyst", "secret")
	newImages(t, env).push(t, programImage(t), "reports/program:v1")
	run := func(args ...string) said {
		return r.try(append([]string{"job", "run", "--image", "reports/program:v1", "--as", "s-analyst@secret"}, args...)...)
	}
	if s := run("--network", "index.example.mil:8080", "--", "talk", "index.example.mil:8080=hello"); s.code != 0 || s.out != "hello" {
		t.Fatalf("got %+v", s)
	}
	if s := run("--", "dial", "index.example.mil:8080", "dial", far.Addr().String()); s.code != 0 || s.out != "refused\nrefused\n" {
		t.Errorf("of a job that did not ask: %+v", s)
	}
	if s := run("--network", "other.example.mil:443", "--", "exit", "0"); s.code == 0 || !strings.Contains(s.err, "estate file names those of a node") {
		t.Errorf("of one that is not named: %+v", s)
	}
	if s := r.try("job", "run", "--image", "reports/program:v1", "--as", "u-analyst@secret", "--network", "index.example.mil:8080"); s.code == 0 || !strings.Contains(s.err, "estate file names those of a node") {
		t.Errorf("of one that was granted to others: %+v", s)
	}
	if s := r.try("job", "run", "--driver", "runc", "--image", "reports/program:v1", "--as", "u-analyst@secret"); s.code != 3 {
		t.Errorf("the machine's own kernel, granted to others: %+v", s)
	}
	if _, err := exec.LookPath("runc"); err == nil {
		if s := run("--driver", "runc", "--out", "s3://reports/trusted/", "--", "write", "/out/x=1", "say", "well"); s.code != 0 || s.out != "well\n" {
			t.Errorf("with runc: %+v", s)
		}
		if s := r.try("doctor", "--estate", file); !strings.Contains(s.out, "node secret lets jobs of 1 subjects stand on this machine's own kernel") {
			t.Errorf("doctor says %s", s.out)
		}
	}
	if s := r.must("audit", "search", "--action", "Connect", "--as", "officer@secret"); !strings.Contains(s, "Connect") {
		t.Errorf("on record is %s", s)
	}
	if s := r.try("doctor", "--sovereignty"); !strings.Contains(s.out, far.Addr().String()) || !strings.Contains(s.out, "what jobs of node secret may connect to, by the estate") {
		t.Errorf("doctor says %s", s.out)
	}
}
