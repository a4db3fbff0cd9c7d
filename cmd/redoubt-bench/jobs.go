package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"redoubt"
	api "redoubt/client"
	"redoubt/compute/computetest"
)

// What the measurement of jobs is made of.
const (
	jobStarts   = 100 // of a module that was compiled before
	jobCold     = 10  // of one that was not
	jobPace     = 200 * time.Millisecond
	jobQueue    = 1000 // small jobs at once
	jobCalls    = 4000 // of a service
	jobOwn      = 200  // of a module in this process
	jobBytes    = 256 << 20
	jobRepeats  = 3
	jobGetBytes = 4096
)

// nothing is the smallest module: _start, which returns. Its own time is none, so what a job of it takes is ours.
var nothing = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x04\x01\x02\x00\x0b")

// unlike is a module that nobody has compiled: the same, and a section of its own that means nothing.
func unlike(module []byte, n uint32) []byte {
	return append(slices.Clip(module), 0, 6, 1, 'n', byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

// jobs is one enclave and who submits.
type jobs struct {
	srv     *server
	api     *api.Client
	url     string // of the node's interface
	token   string
	roots   *x509.CertPool
	module  []byte
	program string // its digest
}

// jobParts are what is measured of jobs, in this order; -only names some.
var jobParts = []struct {
	name string
	run  func(*jobs, context.Context, options) error
}{{"calls", (*jobs).calls}, {"starts", (*jobs).starts}, {"queue", (*jobs).queue}, {"streams", (*jobs).streams}}

// runJobs measures jobs, and the S3 path in the same run.
func runJobs(ctx context.Context, o options) error {
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
	program := filepath.Join(dir, "program.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "redoubt/compute/computetest/program")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if j.module, err = os.ReadFile(program); err != nil {
		return err
	}
	if j.program, err = j.put(ctx, j.module); err != nil {
		return err
	}
	for _, part := range jobParts {
		if len(o.only) > 0 && !slices.Contains(o.only, part.name) {
			continue
		}
		if err := part.run(j, ctx, o); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// startJobs begins an enclave whose state is below dir, and a client of it.
func startJobs(ctx context.Context, o options, dir string) (*jobs, error) {
	srv, err := startRedoubt(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	j := &jobs{srv: srv}
	if err := j.dial(ctx, o, dir); err != nil {
		srv.stop()
		return nil, err
	}
	return j, nil
}

func (j *jobs) stop() {
	j.api.Close()
	j.srv.stop()
}

// dial makes a client of the node's HTTP interface, and what it is made of.
func (j *jobs) dial(ctx context.Context, o options, dir string) error {
	bin, err := filepath.Abs(o.redoubt)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, bin, "env", "bencher@bench", "--label", "SECRET", "--state", filepath.Join(dir, "state")).Output()
	if err != nil {
		return fmt.Errorf("redoubt env: %w", err)
	}
	vars := exports(string(out))
	j.url, j.token, j.roots = vars["REDOUBT_API_URL"], vars["REDOUBT_TOKEN"], x509.NewCertPool()
	pem, err := os.ReadFile(vars["AWS_CA_BUNDLE"])
	if err != nil || !j.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("the node's authority: %w", err)
	}
	j.api, err = api.New(j.url, j.roots, j.token)
	return err
}

// put has the node keep a module.
func (j *jobs) put(ctx context.Context, module []byte) (string, error) {
	sum := sha256.Sum256(module)
	digest := hex.EncodeToString(sum[:])
	return digest, j.api.PutModule(ctx, digest, bytes.NewReader(module))
}

// run has a job run to its end, and gives what it took from submission to the answer that it is done, and its attempt alone.
func (j *jobs) run(ctx context.Context, q redoubt.SubmitJob) (all, attempt time.Duration, err error) {
	began := time.Now()
	job, err := j.api.SubmitJob(ctx, q)
	for err == nil && !job.State.Final() {
		job, err = j.api.WaitJob(ctx, job.ID, job.State)
	}
	if err == nil && job.State != redoubt.JobDone {
		err = fmt.Errorf("a job is %s: %s", job.State, job.Why)
	}
	return time.Since(began), job.Ended.Sub(job.Began), err
}

// told is the middle and the 99th of a hundred, in milliseconds.
func told(took []time.Duration) string {
	slices.Sort(took)
	return fmt.Sprintf("%8.1f %8.1f", took[len(took)/2].Seconds()*1e3, took[len(took)*99/100].Seconds()*1e3)
}

// own is what a module takes by itself: instantiated in this process, of what was compiled before, it runs to its end.
func own(ctx context.Context, module []byte, args ...string) (time.Duration, error) {
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return 0, err
	}
	m, err := r.CompileModule(ctx, module)
	if err != nil {
		return 0, err
	}
	took := make([]time.Duration, jobOwn)
	for i := range took {
		began := time.Now()
		_, err := r.InstantiateModule(ctx, m, wazero.NewModuleConfig().WithName("").WithArgs(append([]string{"program"}, args...)...).WithSysNanotime().WithSysWalltime())
		if exit := (*sys.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 0) {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// calls measures a service that is the least module, through the node's interface, beside requests that ask for nothing.
func (j *jobs) calls(ctx context.Context, _ options) error {
	module := computetest.Answering("Content-Type: text/plain\n\nhi")
	digest, err := j.put(ctx, module)
	if err != nil {
		return err
	}
	if _, err := j.api.DeployService(ctx, "bench", redoubt.ServiceSpec{Module: digest}); err != nil {
		return err
	}
	alone, err := own(ctx, module)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: j.roots}, MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	ask := func(path string) (time.Duration, error) {
		r, err := http.NewRequestWithContext(ctx, "GET", j.url+path, nil)
		if err != nil {
			return 0, err
		}
		r.Header.Set("Authorization", "Bearer "+j.token)
		began := time.Now()
		a, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err == nil && a.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %.200s", path, a.Status, text)
		}
		return time.Since(began), err
	}
	const called, empty = "/svc/bench/", "/v1/node"
	took := map[string][]time.Duration{}
	for i := range jobCalls {
		for _, path := range []string{empty, called} {
			d, err := ask(path)
			if err != nil {
				return err
			}
			if i >= jobCalls/10 { // those before begin the instance and the connection
				took[path] = append(took[path], d)
			}
		}
	}
	for _, all := range took {
		slices.Sort(all)
	}
	at := func(path string, of int) float64 { return took[path][len(took[path])*of/100].Seconds() * 1e6 }
	fmt.Printf("CALLS, one after the other: a service p50 %.0f µs, p99 %.0f; an empty request p50 %.0f, p99 %.0f; the module's own time %.0f: %.0f µs above that and the empty request, p50; asked: 100\n",
		at(called, 50), at(called, 99), at(empty, 50), at(empty, 99), alone.Seconds()*1e6, at(called, 50)-at(empty, 50)-alone.Seconds()*1e6)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	began := time.Now()
	for w := range errs {
		wg.Go(func() {
			for i := w; i < 2*jobCalls && errs[w] == nil; i += len(errs) {
				_, errs[w] = ask(called)
			}
		})
	}
	wg.Wait()
	fmt.Printf("CALLS, four at once, their client on the same processors: %.0f a second; asked: 5,000\n\n", 2*jobCalls/time.Since(began).Seconds())
	return errors.Join(errs...)
}

// starts measures how soon a job is begun and ended, of a module that does nothing and of a Go program that ends at once.
func (j *jobs) starts(ctx context.Context, _ options) error {
	fmt.Printf("%-52s %8s %8s   its attempt, p50 and p99, and the module's own time\n", "START", "p50 ms", "p99 ms")
	for _, what := range []struct {
		name   string
		module []byte
		args   []string
	}{{"a module that does nothing", nothing, nil}, {fmt.Sprintf("a Go program of %.1f MiB that ends", float64(len(j.module))/mib), j.module, []string{"exit", "0"}}} {
		alone, err := own(ctx, what.module, what.args...)
		if err != nil {
			return err
		}
		for _, how := range []string{"cold", "warm", "warm and paced"} { // paced: there is time for a worker to stand ready
			n, name, cold := jobStarts, what.name+", "+how, how == "cold"
			if cold {
				n = jobCold
			}
			var took, attempts []time.Duration
			for i := range n {
				m := what.module
				if cold {
					m = unlike(m, uint32(i)+binary.BigEndian.Uint32([]byte("cold")))
				}
				digest, err := j.put(ctx, m)
				if err != nil {
					return err
				}
				q := redoubt.SubmitJob{Module: digest, Args: what.args}
				if !cold && i == 0 {
					if _, _, err := j.run(ctx, q); err != nil {
						return err
					}
				}
				if how == "warm and paced" {
					time.Sleep(jobPace)
				}
				all, attempt, err := j.run(ctx, q)
				if err != nil {
					return err
				}
				took, attempts = append(took, all), append(attempts, attempt)
			}
			fmt.Printf("%-52s %s   %s %8.1f\n", name, told(took), told(attempts), alone.Seconds()*1e3)
		}
	}
	fmt.Printf("asked: a compiled module of 2.5 MB in 10 ms above its own time\n")
	return nil
}

// queue measures small jobs that all wait at once, and small GETs alone and beside them.
func (j *jobs) queue(ctx context.Context, o options) error {
	if _, err := puts("small", jobGetBytes, 500)(ctx, o, j.srv); err != nil {
		return err
	}
	alone, err := gets("small", jobGetBytes, 1)(ctx, o, j.srv)
	if err != nil {
		return err
	}
	digest, err := j.put(ctx, nothing)
	if err != nil {
		return err
	}
	began := time.Now()
	ids := make([]redoubt.JobID, jobQueue)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for w := range errs {
		wg.Go(func() {
			for i := w; i < jobQueue && errs[w] == nil; i += len(errs) {
				job, err := j.api.SubmitJob(ctx, redoubt.SubmitJob{Module: digest})
				ids[i], errs[w] = job.ID, err
			}
		})
	}
	wg.Wait()
	submitted := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	beside := make(chan figure, 1)
	go func() {
		f, err := gets("small", jobGetBytes, 1)(ctx, o, j.srv)
		if err != nil {
			fmt.Fprintln(os.Stderr, "GETs beside jobs:", err)
		}
		beside <- f
	}()
	for _, id := range ids {
		job, err := j.api.Job(ctx, id)
		for err == nil && !job.State.Final() {
			job, err = j.api.WaitJob(ctx, id, job.State)
		}
		if err != nil || job.State != redoubt.JobDone {
			return fmt.Errorf("a job is %s: %s %w", job.State, job.Why, err)
		}
	}
	took := time.Since(began)
	with := <-beside
	fmt.Printf("\nQUEUE of %d jobs: submitted in %.1f s, done in %.1f s, %.0f a second\n", jobQueue, submitted.Seconds(), took.Seconds(), jobQueue/took.Seconds())
	fmt.Printf("GET of 4 KiB alone: %.0f/s, p50 %.2f ms, p99 %.2f ms; beside them: %.0f/s, p50 %.2f ms, p99 %.2f ms (%.1f times; asked: twice at most)\n", alone.PerSec, alone.P50ms, alone.P99ms, with.PerSec, with.P50ms, with.P99ms, with.P99ms/alone.P99ms)
	return nil
}

// streams measures what one job reads and writes against one connection of the S3 path.
func (j *jobs) streams(ctx context.Context, o options) error {
	o.conns = 1
	rates := map[string][]float64{}
	add := func(name string, took time.Duration) {
		rates[name] = append(rates[name], float64(jobBytes)/mib/took.Seconds())
	}
	body := make([]byte, jobBytes)
	for i := range body {
		body[i] = byte(i * i >> 3)
	}
	c, err := j.srv.dial()
	if err != nil {
		return err
	}
	defer c.close()
	if _, _, err := j.run(ctx, redoubt.SubmitJob{Module: j.program, Args: []string{"exit", "0"}}); err != nil { // so that it is compiled
		return err
	}
	for range jobRepeats {
		began := time.Now()
		if err := c.do("PUT", "/bench/stream/in", "", body, nil); err != nil {
			return err
		}
		add("S3 PUT", time.Since(began))
		began = time.Now()
		if err := c.do("GET", "/bench/stream/in", "", nil, nil); err != nil {
			return err
		}
		add("S3 GET", time.Since(began))
		_, attempt, err := j.run(ctx, redoubt.SubmitJob{Module: j.program, Args: []string{"read", "/in/bench/stream/in"}, In: []redoubt.JobInput{{Bucket: "bench", Prefix: "stream/"}}})
		if err != nil {
			return err
		}
		add("job reads", attempt)
		_, attempt, err = j.run(ctx, redoubt.SubmitJob{Module: j.program, Args: []string{"fill", fmt.Sprintf("/out/out=%d", jobBytes)}, Out: redoubt.JobInput{Bucket: "bench", Prefix: "stream/"}})
		if err != nil {
			return err
		}
		add("job writes", attempt)
	}
	mid := func(name string) float64 { slices.Sort(rates[name]); return rates[name][len(rates[name])/2] }
	fmt.Printf("\nSTREAMS of %d MiB, one at a time, MiB/s, the start of a job counted: S3 GET %.0f, a job reads %.0f (%.2f); S3 PUT %.0f, a job writes %.0f (%.2f); asked: 0.70\n", jobBytes>>20,
		mid("S3 GET"), mid("job reads"), mid("job reads")/mid("S3 GET"), mid("S3 PUT"), mid("job writes"), mid("job writes")/mid("S3 PUT"))
	return nil
}
