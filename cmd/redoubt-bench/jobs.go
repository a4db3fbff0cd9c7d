package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"redoubt"
	api "redoubt/client"
)

// What the measurement of jobs is made of.
const (
	jobStarts   = 100  // of a module that was compiled before
	jobCold     = 10   // of one that was not
	jobQueue    = 1000 // small jobs at once
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
	program string // its module
}

// runJobs measures jobs, and the S3 path in the same run.
func runJobs(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "server-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	srv, err := startRedoubt(ctx, o, dir)
	if err != nil {
		return err
	}
	defer srv.stop()
	j := &jobs{srv: srv}
	if j.api, err = dialAPI(ctx, o, dir); err != nil {
		return err
	}
	defer j.api.Close()
	program := filepath.Join(dir, "program.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "redoubt/compute/computetest/program")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	module, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if j.program, err = j.put(ctx, module); err != nil {
		return err
	}
	if err := j.starts(ctx, module); err != nil {
		return err
	}
	if err := j.queue(ctx, o); err != nil {
		return err
	}
	return j.streams(ctx, o)
}

// dialAPI gives a client of the node's HTTP interface.
func dialAPI(ctx context.Context, o options, dir string) (*api.Client, error) {
	bin, err := filepath.Abs(o.redoubt)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, bin, "env", "bencher@bench", "--label", "SECRET", "--state", filepath.Join(dir, "state")).Output()
	if err != nil {
		return nil, fmt.Errorf("redoubt env: %w", err)
	}
	vars := exports(string(out))
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(vars["AWS_CA_BUNDLE"])
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the node's authority: %w", err)
	}
	return api.New(vars["REDOUBT_API_URL"], roots, vars["REDOUBT_TOKEN"])
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

// starts measures how soon a job is begun and ended, of a module that does nothing and of a Go program that ends at once.
func (j *jobs) starts(ctx context.Context, module []byte) error {
	fmt.Printf("%-34s %8s %8s\n", "START", "p50 ms", "p99 ms")
	for _, what := range []struct {
		name   string
		module []byte
		args   []string
	}{{"a module that does nothing", nothing, nil}, {fmt.Sprintf("a Go program of %.1f MiB that ends", float64(len(module))/mib), module, []string{"exit", "0"}}} {
		for _, cold := range []bool{true, false} {
			n, name := jobStarts, what.name+", warm"
			if cold {
				n, name = jobCold, what.name+", cold"
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
				all, attempt, err := j.run(ctx, q)
				if err != nil {
					return err
				}
				took, attempts = append(took, all), append(attempts, attempt)
			}
			fmt.Printf("%-44s %s   (its attempt %s)\n", name, told(took), told(attempts))
		}
	}
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
	fmt.Printf("GET of 4 KiB alone: %.0f/s, p50 %.2f ms, p99 %.2f ms; beside them: %.0f/s, p50 %.2f ms, p99 %.2f ms (%.1f times)\n", alone.PerSec, alone.P50ms, alone.P99ms, with.PerSec, with.P50ms, with.P99ms, with.P99ms/alone.P99ms)
	return nil
}

// streams measures what one job reads and writes against one connection of the S3 path.
func (j *jobs) streams(ctx context.Context, o options) error {
	o.conns = 1
	var start []time.Duration
	rates := map[string][]float64{}
	add := func(name string, took time.Duration) {
		rates[name] = append(rates[name], float64(jobBytes)/mib/max(took, time.Millisecond).Seconds())
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
	for range jobRepeats {
		_, attempt, err := j.run(ctx, redoubt.SubmitJob{Module: j.program, Args: []string{"exit", "0"}})
		if err != nil {
			return err
		}
		start = append(start, attempt)
	}
	slices.Sort(start)
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
		add("job reads", attempt-start[len(start)/2])
		_, attempt, err = j.run(ctx, redoubt.SubmitJob{Module: j.program, Args: []string{"fill", fmt.Sprintf("/out/out=%d", jobBytes)}, Out: redoubt.JobInput{Bucket: "bench", Prefix: "stream/"}})
		if err != nil {
			return err
		}
		add("job writes", attempt-start[len(start)/2])
	}
	mid := func(name string) float64 { slices.Sort(rates[name]); return rates[name][len(rates[name])/2] }
	fmt.Printf("\nSTREAMS of %d MiB, one at a time, MiB/s without the start of a job: S3 GET %.0f, a job reads %.0f (%.2f); S3 PUT %.0f, a job writes %.0f (%.2f)\n", jobBytes>>20,
		mid("S3 GET"), mid("job reads"), mid("job reads")/mid("S3 GET"), mid("S3 PUT"), mid("job writes"), mid("job writes")/mid("S3 PUT"))
	return nil
}
