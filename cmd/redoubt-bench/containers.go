package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"redoubt"
)

// What the measurement of containers is made of.
const (
	containerStarts = 60
	containerReads  = 5
	containerTimes  = 4 // that each reads its file, so that it takes longer than a start
	containerImage  = "bench/containers/tool:v1"
)

// runContainers measures jobs in images beside podman, turn by turn, on one image: from start to end of a program that does nothing, and what one reads
// and writes, beside one connection of the S3 path.
func runContainers(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "server-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	j, err := startJobs(ctx, o, dir)
	if err != nil {
		return err
	}
	defer j.stop()
	img, err := benchImage(ctx, dir)
	if err != nil {
		return err
	}
	if err := pushImage(ctx, o, dir, img); err != nil {
		return err
	}
	p, err := newPodman(ctx, filepath.Join(dir, "podman"), img)
	if err != nil {
		fmt.Fprintln(os.Stderr, "without podman:", err)
	} else {
		defer p.close()
	}
	if err := containerStartsOf(ctx, j, p); err != nil {
		return err
	}
	return containerStreams(ctx, j, p, dir)
}

// benchImage holds two static programs: one that does nothing, and the contract suite's.
func benchImage(ctx context.Context, dir string) (v1.Image, error) {
	source := filepath.Join(dir, "true.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, of := range map[string]string{"true": source, "program": "redoubt/compute/computetest/program"} {
		out := filepath.Join(dir, name)
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, of)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if said, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, said)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	return mutate.ConfigFile(img, config)
}

// pushImage gives it to the node's registry.
func pushImage(ctx context.Context, o options, dir string, img v1.Image) error {
	vars, err := benchVars(ctx, o, dir)
	if err != nil {
		return err
	}
	at, err := url.Parse(vars["REDOUBT_API_URL"])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if pem, err := os.ReadFile(vars["AWS_CA_BUNDLE"]); err != nil || !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("the node's authority: %w", err)
	}
	return crane.Push(img, at.Host+"/"+containerImage, crane.WithContext(ctx), crane.WithAuth(&authn.Basic{Username: "redoubt", Password: vars["REDOUBT_TOKEN"]}),
		crane.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}))
}

// podman runs containers as Debian's does, without a network.
type podman struct {
	dir, runtime string
	limits       []string
}

func newPodman(ctx context.Context, dir string, img v1.Image) (*podman, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("it is run as root here")
	}
	archive := filepath.Join(filepath.Dir(dir), "image.tar")
	if err := crane.Save(img, "localhost/bench:v1", archive); err != nil {
		return nil, err
	}
	p := &podman{dir: dir, limits: []string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}}
	if out, err := p.command(ctx, "load", "-i", archive).CombinedOutput(); err != nil {
		p.close()
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var last error
	for _, r := range []string{"crun", "runc"} {
		p.runtime = r
		for range 3 { // one that works now and then does not
			if last = p.run(ctx, "", "/bin/true"); last != nil {
				break
			}
		}
		if last == nil {
			return p, nil
		}
		fmt.Fprintf(os.Stderr, "podman with %s: %v\n", r, last)
	}
	p.close()
	return nil, last
}

func (p *podman) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "podman", append([]string{"--root", p.dir + "/graph", "--runroot", p.dir + "/run", "--cgroup-manager", "cgroupfs"}, args...)...)
}

// run runs a container to its end, with a folder at /data.
func (p *podman) run(ctx context.Context, data string, args ...string) error {
	line := append([]string{"--runtime", p.runtime, "run", "--rm", "--network", "none"}, p.limits...)
	if data != "" {
		line = append(line, "-v", data+":/data")
	}
	if out, err := p.command(ctx, append(append(line, "localhost/bench:v1"), args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("podman: %w: %s", err, out[:min(len(out), 500)])
	}
	return nil
}

func (p *podman) close() {
	_ = p.command(context.Background(), "rmi", "-a", "-f").Run()
	_ = syscall.Unmount(p.dir+"/graph/overlay", syscall.MNT_DETACH)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// containerStartsOf measures a program that does nothing from start to end.
func containerStartsOf(ctx context.Context, j *jobs, p *podman) error {
	var fresh, warm, freshAll, warmAll, theirs []time.Duration
	job := func(memory int64, into, all *[]time.Duration) error {
		q := redoubt.SubmitJob{Image: containerImage, Args: []string{"/bin/true"}, Limits: redoubt.JobLimits{Memory: memory}}
		whole, attempt, err := j.run(ctx, q)
		*into, *all = append(*into, attempt), append(*all, whole)
		return err
	}
	var none []time.Duration
	if err := job(256<<20, &none, &none); err != nil { // it is unpacked, and a sandbox stands
		return err
	}
	for i := range int64(containerStarts) {
		if err := job(256<<20+(i+1)<<12, &fresh, &freshAll); err != nil { // a sandbox serves the same limits alone
			return err
		}
		if err := job(256<<20, &warm, &warmAll); err != nil {
			return err
		}
		if p != nil {
			began := time.Now()
			if err := p.run(ctx, "", "/bin/true"); err != nil {
				return err
			}
			theirs = append(theirs, time.Since(began))
		}
	}
	fmt.Printf("%-44s %8s %8s   (from submission to the answer)\n", "CONTAINERS: a program that does nothing", "p50 ms", "p99 ms")
	fmt.Printf("%-44s %s   (%s)\n", "a job, in a sandbox of its own", told(fresh), told(freshAll))
	fmt.Printf("%-44s %s   (%s)\n", "a job, in one that was kept", told(warm), told(warmAll))
	if p != nil {
		fmt.Printf("%-44s %s   (%.2f and %.2f times ours)\n", "podman run --network none, "+p.runtime, told(theirs), median(theirs).Seconds()/median(fresh).Seconds(), median(theirs).Seconds()/median(warm).Seconds())
	}
	return nil
}

// containerStreams measures what a program reads and writes, without its start.
func containerStreams(ctx context.Context, j *jobs, p *podman, dir string) error {
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	body := make([]byte, jobBytes)
	for i := range body {
		body[i] = byte(i * i >> 3)
	}
	if err := os.WriteFile(filepath.Join(data, "in"), body, 0o600); err != nil {
		return err
	}
	c, err := j.srv.dial()
	if err != nil {
		return err
	}
	defer c.close()
	image := func(args ...string) (time.Duration, error) {
		_, attempt, err := j.run(ctx, redoubt.SubmitJob{Image: containerImage, Args: append([]string{"/bin/program"}, args...), In: []redoubt.JobInput{{Bucket: "bench", Prefix: "stream/"}},
			Out: redoubt.JobInput{Bucket: "bench", Prefix: "out/"}})
		return attempt, err
	}
	theirs := func(args ...string) (time.Duration, error) {
		began := time.Now()
		err := p.run(ctx, data, append([]string{"/bin/program"}, args...)...)
		return time.Since(began), err
	}
	if err := c.do("PUT", "/bench/stream/in", "", body, nil); err != nil {
		return err
	}
	fill := fmt.Sprintf("=%d", jobBytes)
	steps := []struct {
		name string
		do   func() (time.Duration, error)
	}{
		{"start", func() (time.Duration, error) { return image("exit", "0") }},
		{"S3 GET", func() (time.Duration, error) {
			began := time.Now()
			err := c.do("GET", "/bench/stream/in", "", nil, nil)
			return time.Since(began), err
		}},
		{"read", func() (time.Duration, error) {
			return image(slices.Repeat([]string{"read", "/in/bench/stream/in"}, containerTimes)...)
		}},
		{"S3 PUT", func() (time.Duration, error) {
			began := time.Now()
			err := c.do("PUT", "/bench/put", "", body, nil)
			return time.Since(began), err
		}},
		{"write", func() (time.Duration, error) { return image("fill", "/out/out"+fill) }},
	}
	if p != nil {
		steps = append(steps, []struct {
			name string
			do   func() (time.Duration, error)
		}{
			{"podman start", func() (time.Duration, error) { return theirs("exit", "0") }},
			{"podman read", func() (time.Duration, error) {
				return theirs(slices.Repeat([]string{"read", "/data/in"}, containerTimes)...)
			}},
			{"podman write", func() (time.Duration, error) { return theirs("fill", "/data/out"+fill) }},
		}...)
	}
	took := map[string][]time.Duration{}
	for range containerReads {
		for _, s := range steps {
			t, err := s.do()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			took[s.name] = append(took[s.name], t)
		}
	}
	rate := func(name, start string, times float64) float64 {
		t := median(took[name])
		if start != "" {
			t -= median(took[start])
		}
		return times * jobBytes / mib / max(t, time.Millisecond).Seconds()
	}
	get, read, put, write := rate("S3 GET", "", 1), rate("read", "start", containerTimes), rate("S3 PUT", "", 1), rate("write", "start", 1)
	fmt.Printf("\nSTREAMS of %d MiB in an image, MiB/s without the start: S3 GET %.0f, a job reads %.0f (%.2f); S3 PUT %.0f, a job writes %.0f (%.2f)\n", jobBytes>>20, get, read, read/get, put, write, write/put)
	if p != nil {
		r, w := rate("podman read", "podman start", containerTimes), rate("podman write", "podman start", 1)
		fmt.Printf("podman, a folder of the machine's, in clear and in its page cache: reads %.0f (a job: %.2f of it), writes %.0f, which nothing has synced (%.2f)\n", r, read/r, w, write/w)
	}
	return nil
}

// benchVars is what env prints for who measures.
func benchVars(ctx context.Context, o options, dir string) (map[string]string, error) {
	bin, err := filepath.Abs(o.redoubt)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, bin, "env", "bencher@bench", "--label", "SECRET", "--state", filepath.Join(dir, "state")).Output()
	if err != nil {
		return nil, fmt.Errorf("redoubt env: %w", err)
	}
	vars := exports(string(out))
	if !strings.HasPrefix(vars["REDOUBT_API_URL"], "https://") {
		return nil, errors.New("redoubt env names no interface over TLS")
	}
	return vars, nil
}
