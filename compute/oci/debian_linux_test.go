package oci_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

// debian makes the userland of a Debian machine, with the programs that are named.
func debian(t *testing.T, packages ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("mmdebstrap")
	if err != nil || os.Getuid() != 0 {
		if os.Getenv("CLIENTS_REQUIRE") == "1" {
			t.Fatal("mmdebstrap is needed, and root: make deps installs it")
		}
		t.Skip("mmdebstrap is needed, and root: make deps installs it")
	}
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	out := filepath.Join(t.TempDir(), "root.tar")
	c := exec.CommandContext(t.Context(), tool, "--variant=minbase", "--include="+strings.Join(packages, ","), "--dpkgopt=path-exclude=/usr/share/doc/*",
		`--aptopt=Acquire::Check-Valid-Until "false"`, "stable", out)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Run(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, said.String())
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A real userland, with a user of its own, works on real files.
func TestADebianUserlandWorks(t *testing.T) {
	d := driverWith(t, oci.Options{})
	l := debian(t, "imagemagick", "jq", "curl")
	conf := object{"User": "nobody", "WorkingDir": "/tmp", "Env": []string{"LANG=C.UTF-8"}, "Cmd": []string{"/bin/sh", "-ec", "id -un; dpkg -l | grep -c ^ii >/out/packages; sort -r /in/b/words"}}
	var words bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&words, "word-%04d\n", i)
	}
	files := map[string][]byte{"b/words": words.Bytes(), "b/data.json": []byte(`{"a":[1,2,3]}`)}
	r := computetest.NewRun(files)
	ref := push(t, r, conf, nil, l)
	spec := redoubt.SubmitJob{Image: ref, Seconds: 300}
	if x := run(t, d, r, spec); x.Code != 0 || !strings.HasPrefix(r.Said(1), "nobody\nword-0999\n") || len(r.Outputs()["packages"]) < 3 {
		t.Fatalf("got %+v, %.200q, %q and %q", x, r.Said(1), r.Said(2), r.Outputs())
	}
	script := `
		jq -c '.a|add' /in/b/data.json
		convert -size 320x200 gradient:red-blue picture.png
		convert picture.png -resize 50% /out/small.png
		identify -format '%wx%h\n' /out/small.png
		tar -C /usr/share -cf /out/share.tar base-files
		gzip -9 </out/share.tar | gzip -d | cmp - /out/share.tar
		mkdir /out/a && cp -p /in/b/words /out/a/ && mv /out/a /out/b && ln -s words /out/b/link
		find /out -type f | sort
		sha256sum /out/b/words | cut -c1-64`
	r2 := computetest.NewRun(files)
	push(t, r2, conf, nil, l)
	spec.Args = []string{"/bin/sh", "-ec", script}
	x := run(t, d, r2, spec)
	want := fmt.Sprintf("6\n160x100\n/out/b/words\n/out/share.tar\n/out/small.png\n%x\n", sha256.Sum256(words.Bytes()))
	if x.Code != 0 || r2.Said(1) != want || !bytes.HasPrefix(r2.Outputs()["small.png"], []byte("\x89PNG")) || !bytes.Equal(r2.Outputs()["b/words"], words.Bytes()) {
		t.Errorf("got %+v, %q and %q", x, r2.Said(1), r2.Said(2))
	}

	if _, err := exec.LookPath("runc"); err == nil { // and on the machine's own kernel
		with := computetest.NewRun(files)
		push(t, with, conf, nil, l)
		spec.Args = nil
		if x := run(t, trusted(t), with, spec); x.Code != 0 || !strings.HasPrefix(with.Said(1), "nobody\nword-0999\n") || len(with.Outputs()["packages"]) < 3 {
			t.Errorf("with runc: got %+v, %.200q, %q and %q", x, with.Said(1), with.Said(2), with.Outputs())
		}
	}
	// An ordinary client reaches what the job may, by its name, and nothing by any other.
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Host, r.URL.Path) }))
	defer site.Close()
	at := strings.TrimPrefix(site.URL, "http://")
	r3 := computetest.NewRun(files).Reach("index.example.mil:8080", func(ctx context.Context) (redoubt.JobConn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", at)
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	})
	push(t, r3, conf, nil, l)
	spec.Network = []string{"index.example.mil:8080"}
	spec.Args = []string{"/bin/sh", "-ec", `
		curl -sS http://index.example.mil:8080/a
		echo
		getent hosts index.example.mil
		for url in http://index.example.mil/ http://` + at + `/ http://other.example.mil:8080/ http://198.18.0.9:8080/ http://169.254.169.254/ http://deb.debian.org/; do
			curl -sS --max-time 5 $url 2>/dev/null && exit 1 || echo none
		done`}
	if x := run(t, d, r3, spec); x.Code != 0 || r3.Said(1) != "index.example.mil:8080 /a\n198.18.0.2      index.example.mil\n"+strings.Repeat("none\n", 6) {
		t.Errorf("got %+v, %q and %q", x, r3.Said(1), r3.Said(2))
	}
}

// A film and its sound, made by one job, cut and made anew by another. Its packages are many: make media.
func TestFFmpegWorks(t *testing.T) {
	if os.Getenv("MEDIA") == "" {
		t.Skip("make media: it fetches 400 MB of Debian")
	}
	d := driverWith(t, oci.Options{})
	l := debian(t, "ffmpeg", "imagemagick")
	conf := object{"User": "nobody", "WorkingDir": "/tmp", "Env": []string{"LANG=C.UTF-8"}}
	works := func(files map[string][]byte, script string) *computetest.Run {
		t.Helper()
		r := computetest.NewRun(files)
		spec := redoubt.SubmitJob{Image: push(t, r, conf, nil, l), Seconds: 300, Args: []string{"/bin/sh", "-ec", script}}
		if x := run(t, d, r, spec); x.Code != 0 {
			t.Fatalf("got %+v, %q and %q", x, r.Said(1), r.Said(2))
		}
		return r
	}
	made := works(nil, `ffmpeg -v error -f lavfi -i testsrc2=duration=4:size=320x240:rate=25 -f lavfi -i sine=frequency=440:duration=4 -c:v mpeg4 -q:v 3 -c:a flac /out/clip.mkv`)
	clip := made.Outputs()["clip.mkv"]
	if !bytes.HasPrefix(clip, []byte("\x1a\x45\xdf\xa3")) {
		t.Fatalf("it made %d bytes", len(clip))
	}
	cut := works(map[string][]byte{"b/clip.mkv": clip}, `
		ffmpeg -v error -ss 1 -t 2 -i /in/b/clip.mkv -c:v libx264 -preset veryfast -c:a aac -movflags +faststart /out/cut.mp4
		ffprobe -v error -count_frames -show_entries stream=codec_name,width,nb_read_frames -select_streams v -of csv=p=0 /out/cut.mp4
		ffprobe -v error -show_entries stream=codec_name,sample_rate -select_streams a -of csv=p=0 /out/cut.mp4
		ffmpeg -v error -ss 1.5 -i /in/b/clip.mkv -frames:v 1 /out/frame.png
		convert /out/frame.png -resize 50% -format '%wx%h\n' info:
		ffmpeg -v error -i /in/b/clip.mkv -map 0:v -f framemd5 - | grep -vc '^#'`)
	if got, want := cut.Said(1), "h264,320,50\naac,44100\n160x120\n100\n"; got != want {
		t.Errorf("got %q, want %q; it said %q", got, want, cut.Said(2))
	}
	if out := cut.Outputs(); !bytes.HasPrefix(out["frame.png"], []byte("\x89PNG")) || !bytes.Equal(out["cut.mp4"][4:8], []byte("ftyp")) {
		t.Error("the outputs are not what their names say")
	}
}
