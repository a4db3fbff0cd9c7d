package oci_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
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
	l := debian(t, "imagemagick", "jq")
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
}
