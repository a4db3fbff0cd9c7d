package oci_test

import (
	"archive/tar"
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/image"
	"redoubt/compute/oci"
)

// run runs a spec, and fails the test where that is the driver's fault.
func run(t *testing.T, d compute.Driver, r *computetest.Run, spec redoubt.SubmitJob) compute.Exit {
	t.Helper()
	x, err := d.Run(t.Context(), r.Task(spec))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func program(t *testing.T) string { return string(computetest.Build(t, "linux", runtime.GOARCH)) }

func TestAnImageSaysHowItIsRun(t *testing.T) {
	d := newDriver(t)
	l := layer(t, entry{name: "opt/p", content: program(t)}, entry{name: "etc/passwd", content: "app:x:1000:1001::/home/app:/bin/sh\n"})
	conf := object{"User": "app", "WorkingDir": "/work/here", "Env": []string{"A=image", "B=image", "PATH=/opt"}, "Entrypoint": []string{"p"}, "Cmd": []string{"user", "", "pwd", ""}}
	r := computetest.NewRun(nil)
	spec := redoubt.SubmitJob{Image: push(t, r, conf, nil, l)}
	if x := run(t, d, r, spec); x.Code != 0 || r.Said(1) != "1000 1001\n/work/here\n" {
		t.Errorf("got %+v, %q and %q", x, r.Said(1), r.Said(2))
	}
	r = computetest.NewRun(nil)
	spec = redoubt.SubmitJob{Image: push(t, r, conf, nil, l), Args: []string{"env", "A", "env", "B", "env", "HOME", "host", "", "write", "/out/x=1"}, Env: []string{"B=job"}}
	if x := run(t, d, r, spec); x.Code != 0 || r.Said(1) != "A=image\nB=job\nHOME=/home/app\nredoubt\n" || string(r.Outputs()["x"]) != "1" {
		t.Errorf("got %+v, %q, %q and %q", x, r.Said(1), r.Said(2), r.Outputs())
	}
}

func TestAProgramSeesNothingOfTheMachine(t *testing.T) {
	d := newDriver(t)
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"list", "/", "net", "", "dial", "127.0.0.1:22", "dial", "192.0.2.1:443", "kind", "/proc/1/root/etc/shadow", "kind", "/etc/hostname", "device", "/tmp/null"}
	x := run(t, d, r, spec)
	want := "bin/\ndev/\nin/\nout/\nproc/\nsys/\ntmp/\nrefused\nrefused\nno such file or directory\nno such file or directory\noperation not permitted\n"
	if x.Code != 0 || r.Said(1) != want {
		t.Errorf("got %+v, %q and %q", x, r.Said(1), r.Said(2))
	}
}

func TestAFileWithoutANameCanBeUsed(t *testing.T) {
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"unlinked", "/out/x", "write", "/out/a=1", "hardlink", "/out/a", "list", "/out"}
	if x := run(t, newDriver(t), r, spec); x.Code != 0 || r.Said(1) != "5 still\na\na.link\n" || len(r.Outputs()) != 2 {
		t.Errorf("got %+v, %q, %q and %q", x, r.Said(1), r.Said(2), r.Outputs())
	}
}

func TestInputsCanBeMapped(t *testing.T) {
	r := computetest.NewRun(map[string][]byte{"b/f": []byte("0123456789abc")})
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"mmap", "/in/b/f"}
	if x := run(t, newDriver(t), r, spec); x.Code != 0 || r.Said(1) != "0123456789\n" {
		t.Errorf("got %+v, %q and %q", x, r.Said(1), r.Said(2))
	}
}

// layersRead are the objects that a run opened beside manifest and configuration.
func layersRead(r *computetest.Run) (n int) {
	for _, what := range r.Reads() {
		if strings.HasPrefix(what, "object images/test/_blobs/") {
			n++
		}
	}
	return n - 1 // the configuration
}

func TestAnUnpackedImageIsOneSharesAlone(t *testing.T) {
	d := newDriver(t)
	p := []byte(program(t))
	for i, c := range []struct {
		by         redoubt.SubjectName
		start, max string
		layers     int
	}{{"alice", "SECRET", "SECRET", 1}, {"alice", "SECRET", "SECRET", 0}, {"bob", "SECRET", "SECRET", 1}, {"alice", "SECRET", "TOP SECRET", 1}, {"alice", "TOP SECRET", "TOP SECRET", 1}, {"bob", "SECRET", "SECRET", 0}} {
		r := computetest.NewRun(nil).Between(c.by, c.start, c.max)
		spec := withProgram(t, r, p)
		spec.Args = []string{"exit", "0"}
		if x := run(t, d, r, spec); x.Code != 0 || layersRead(r) != c.layers {
			t.Errorf("%d: got %+v and %d layers read, want %d: %q", i, x, layersRead(r), c.layers, r.Reads())
		}
		if !slices.Contains(r.Reads(), "object images/test/_tags/v1") {
			t.Errorf("%d: the image was not asked for: %q", i, r.Reads())
		}
	}
}

// A policy is asked in each run, also of an image that has been unpacked.
func TestAPolicySaysWhatRuns(t *testing.T) {
	p := &redoubt.ImagePolicy{Rules: []redoubt.ImageRule{{Repository: "images/test", Digests: []string{digest(nil)}}}}
	d := driverWith(t, oci.Options{Policy: p})
	for _, pinned := range []bool{false, true, false} {
		r := computetest.NewRun(nil)
		spec := withProgram(t, r, []byte(program(t)))
		spec.Args = []string{"say", "ran"}
		if p.Rules[0].Digests = []string{digest(nil)}; pinned {
			p.Rules[0].Digests = []string{string(readObject(t, r, repo.Tag("v1")))}
		}
		if x := run(t, d, r, spec); (x.Code == 0) != pinned || (r.Said(1) != "") != pinned || !pinned && !strings.Contains(x.Why, "policy") {
			t.Errorf("pinned %v: got %+v and %q", pinned, x, r.Said(1))
		}
	}
}

func TestTheCacheOfImagesIsBounded(t *testing.T) {
	d := driverWith(t, oci.Options{CacheBytes: 1})
	for range 2 {
		r := computetest.NewRun(nil)
		spec := withProgram(t, r, []byte(program(t)))
		spec.Args = []string{"exit", "0"}
		if x := run(t, d, r, spec); x.Code != 0 || layersRead(r) != 1 {
			t.Errorf("got %+v and %d layers read, want them read anew", x, layersRead(r))
		}
	}
}

// What is wrong with an image is told to who submitted the job, and nothing runs.
func TestAnImageThatCannotBeTakenIsTheSubmittersFault(t *testing.T) {
	d := driverWith(t, oci.Options{ImageBytes: 64 << 20})
	good := layer(t, entry{name: "bin/program", content: program(t)})
	conf := object{"Entrypoint": []string{"/bin/program"}, "Cmd": []string{"say", "ran"}}
	for _, c := range []struct {
		what, why string
		load      func(t *testing.T, r *computetest.Run) string
	}{
		{"none", "there is none", func(t *testing.T, r *computetest.Run) string { return "images/none:v1" }},
		{"no program", "no program", func(t *testing.T, r *computetest.Run) string { return push(t, r, object{}, nil, good) }},
		{"no such program", "/bin/none", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, object{"Cmd": []string{"/bin/none"}}, nil, good)
		}},
		{"no such user", "no user", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, object{"Cmd": []string{"/bin/program"}, "User": "who"}, nil, good)
		}},
		{"other machine", "this node runs", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, func(c, m object) { c["architecture"] = "riscv64" }, good)
		}},
		{"fewer layers", "layers", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, func(c, m object) { c["rootfs"] = object{"type": "layers", "diff_ids": []string{}} }, good)
		}},
		{"other content", "unpacks to", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, func(c, m object) { c["rootfs"] = object{"type": "layers", "diff_ids": []string{digest(nil)}} }, good)
		}},
		{"foreign layer", "media type", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, func(c, m object) {
				m["layers"].([]object)[0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
			}, good)
		}},
		{"layer gone", "missing", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, func(c, m object) { m["layers"].([]object)[0]["digest"] = digest([]byte("other")) }, good)
		}},
		{"layer altered", "its digest says", func(t *testing.T, r *computetest.Run) string {
			ref := push(t, r, conf, nil, good)
			packed := gzipped(t, good)
			name := repo.Blob(image.DigestOf(packed))
			packed[len(packed)-1] ^= 1
			r.SetObject(name, packed)
			return ref
		}},
		{"manifest altered", "something else", func(t *testing.T, r *computetest.Run) string {
			r.SetObject(repo.Manifest(image.DigestOf(nil)), []byte("{}"))
			return "images/test@" + digest(nil)
		}},
		{"weak digest", "sha256", func(t *testing.T, r *computetest.Run) string { return "images/test@md5:00" }},
		{"out of the root", "out of the image", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, nil, good, layer(t, entry{name: "../../etc/cron.d/x", content: "x"}))
		}},
		{"through a link", "links", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, nil, good, layer(t, entry{name: "a", h: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "a"}}, entry{name: "a/x", content: "x"}))
		}},
		{"a bomb", "MiB", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, conf, nil, good, layer(t, entry{name: "zeros", content: string(make([]byte, 96<<20))}))
		}},
		{"bad environment", "NAME=VALUE", func(t *testing.T, r *computetest.Run) string {
			return push(t, r, object{"Cmd": []string{"/bin/program"}, "Env": []string{"nothing"}}, nil, good)
		}},
	} {
		r := computetest.NewRun(nil)
		x := run(t, d, r, redoubt.SubmitJob{Image: c.load(t, r)})
		if x.Code != -1 || !strings.Contains(x.Why, c.why) || r.Said(1) != "" {
			t.Errorf("%s: got %+v and %q, want %q", c.what, x, r.Said(1), c.why)
		}
		if n := r.LeftOpen(); n != 0 {
			t.Errorf("%s: %d contents were left open", c.what, n)
		}
	}
}

func TestAnIndexGivesTheManifestForThisMachine(t *testing.T) {
	r := computetest.NewRun(nil)
	l := layer(t, entry{name: "bin/program", content: program(t)})
	push(t, r, object{"Cmd": []string{"/bin/program", "say", "ours"}}, nil, l)
	d := string(readObject(t, r, repo.Tag("v1")))
	index := marshal(t, object{"schemaVersion": 2, "mediaType": image.TypeIndex, "manifests": []object{
		{"mediaType": image.TypeManifest, "digest": digest([]byte("other")), "size": 5, "platform": object{"os": "linux", "architecture": "riscv64"}},
		{"mediaType": image.TypeManifest, "digest": d, "size": 1000, "platform": object{"os": "linux", "architecture": runtime.GOARCH}},
	}})
	r.SetObject(repo.Manifest(image.DigestOf(index)), index)
	r.SetObject(repo.Tag("multi"), []byte(digest(index)))
	if x := run(t, newDriver(t), r, redoubt.SubmitJob{Image: "images/test:multi"}); x.Code != 0 || r.Said(1) != "ours\n" {
		t.Errorf("got %+v and %q", x, r.Said(1))
	}
}

func readObject(t *testing.T, r *computetest.Run, name redoubt.ObjectName) []byte {
	t.Helper()
	_, c, err := r.Object(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(c.Reader(0, -1)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A sandbox is kept for the next run of its share, and only where the label could not rise.
func TestASandboxServesOneShare(t *testing.T) {
	d := driverWith(t, oci.Options{WarmFor: time.Hour})
	p := []byte(program(t))
	for i, c := range []struct {
		by    redoubt.SubjectName
		max   string
		again bool
	}{{"alice", "SECRET", false}, {"alice", "SECRET", true}, {"bob", "SECRET", false}, {"alice", "TOP SECRET", false}, {"alice", "TOP SECRET", false}, {"alice", "SECRET", true}, {"bob", "SECRET", true}} {
		r := computetest.NewRun(nil).Between(c.by, "SECRET", c.max)
		spec := withProgram(t, r, p)
		spec.Args = []string{"exit", "0"}
		made := oci.Made(d)
		if x := run(t, d, r, spec); x.Code != 0 || (oci.Made(d) == made) != c.again {
			t.Errorf("%d: got %+v and %d new sandboxes", i, x, oci.Made(d)-made)
		}
	}
	for range 2 { // one that had a network is of no further use, nor does one without become one
		r := computetest.NewRun(nil).Between("alice", "SECRET", "SECRET")
		spec := withProgram(t, r, p)
		spec.Args, spec.Network = []string{"exit", "0"}, []string{"a:1"}
		made := oci.Made(d)
		if x := run(t, d, r, spec); x.Code != 0 || oci.Made(d) != made+1 {
			t.Errorf("with a network: got %+v and %d new sandboxes", x, oci.Made(d)-made)
		}
	}
}
