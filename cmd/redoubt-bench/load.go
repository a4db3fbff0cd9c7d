package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"
)

// workload is one measurement.
type workload struct {
	name string
	run  func(ctx context.Context, o options, srv *server) (figure, error)
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// workloads run in this order: a GET reads what the PUT before it stored.
var workloads = []workload{
	{"put-4k", puts("small", 4*kib, 0)},
	{"get-4k", gets("small", 4*kib, 1)},
	{"list-1000", lists("small")},
	{"put-1m", puts("medium", mib, 0)},
	{"get-1m", gets("medium", mib, mib)},
	{"put-64m", puts("large", 64*mib, 6)},
	{"get-64m", gets("large", 64*mib, mib)},
}

// load runs op on o.conns connections for o.each, or until every connection has done most
// operations (most > 0), and measures latency and the server's CPU time.
func load(ctx context.Context, o options, srv *server, most int, op func(c *client, worker, n int) error) (figure, int, error) {
	type result struct {
		took     []time.Duration
		failures int
		err      error
	}
	results := make([]result, o.conns)
	cpu := srv.cpu()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range o.conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := &results[i]
			c, err := srv.dial()
			if err != nil {
				r.err = err
				return
			}
			defer c.close()
			for n := 0; ctx.Err() == nil && time.Since(start) < o.each && (most == 0 || n < most); n++ {
				begin := time.Now()
				if err := op(c, i, n); err != nil {
					r.failures++
					if r.err = err; r.failures > 100 {
						return
					}
					continue
				}
				r.took = append(r.took, time.Since(begin))
			}
		}()
	}
	wg.Wait()
	elapsed := time.Since(start)
	var took []time.Duration
	var f figure
	for _, r := range results {
		took = append(took, r.took...)
		f.Failures += r.failures
		if r.err != nil && len(took) == 0 {
			return f, 0, r.err
		}
	}
	if len(took) == 0 {
		return f, 0, fmt.Errorf("nothing was done")
	}
	slices.Sort(took)
	f.PerSec = float64(len(took)) / elapsed.Seconds()
	f.P50ms = took[len(took)/2].Seconds() * 1e3
	f.P99ms = took[len(took)*99/100].Seconds() * 1e3
	f.CPUus = float64(srv.cpu()-cpu) / float64(time.Microsecond) / float64(len(took))
	return f, len(took), ctx.Err()
}

// puts stores objects of one size under prefix; what they are called is kept for gets.
// unit 0 counts operations for small sizes, MiB otherwise.
func puts(prefix string, size, most int) func(context.Context, options, *server) (figure, error) {
	return func(ctx context.Context, o options, srv *server) (figure, error) {
		bodies := make([][]byte, o.conns)
		for i := range bodies {
			bodies[i] = make([]byte, size)
			rand.Read(bodies[i])
		}
		counts := make([]int, o.conns)
		f, _, err := load(ctx, o, srv, most, func(c *client, worker, n int) error {
			body := bodies[worker]
			copy(body, fmt.Sprintf("%08d-%08d", worker, n)) // no two alike
			if err := c.do("PUT", key(prefix, worker, n), "", body, nil); err != nil {
				return err
			}
			counts[worker] = n + 1
			return nil
		})
		srv.stored[prefix] = counts
		if size >= mib {
			f.PerSec *= float64(size) / mib
		}
		return f, err
	}
}

func key(prefix string, worker, n int) string {
	return fmt.Sprintf("/bench/%s/%02d/%08d", prefix, worker, n)
}

// gets reads what puts stored, in a scattered order, and checks the length.
func gets(prefix string, size, unit int) func(context.Context, options, *server) (figure, error) {
	return func(ctx context.Context, o options, srv *server) (figure, error) {
		counts := srv.stored[prefix]
		if len(counts) == 0 || counts[0] == 0 {
			return figure{}, fmt.Errorf("nothing was stored under %s", prefix)
		}
		f, _, err := load(ctx, o, srv, 0, func(c *client, worker, n int) error {
			at := (n * 7919) % max(counts[worker], 1)
			return c.do("GET", key(prefix, worker, at), "", nil, func(got int64) error {
				if got != int64(size) {
					return fmt.Errorf("got %d bytes, want %d", got, size)
				}
				return nil
			})
		})
		if unit > 1 {
			f.PerSec *= float64(size) / float64(unit)
		}
		return f, err
	}
}

// lists asks for pages of a thousand keys.
func lists(prefix string) func(context.Context, options, *server) (figure, error) {
	return func(ctx context.Context, o options, srv *server) (figure, error) {
		f, _, err := load(ctx, o, srv, 0, func(c *client, worker, n int) error {
			return c.list(prefix, fmt.Sprintf("%s/%02d/", prefix, worker))
		})
		return f, err
	}
}

// list asks for the page of a thousand keys behind after, which must be full.
func (c *client) list(prefix, after string) error {
	c.want = []byte("<KeyCount>1000</KeyCount>")
	defer func() { c.want = nil }()
	return c.do("GET", "/bench", "list-type=2&max-keys=1000&prefix="+prefix+"%2F&start-after="+escapeSlash(after), nil, nil)
}

func escapeSlash(s string) string {
	return string(bytes.ReplaceAll([]byte(s), []byte("/"), []byte("%2F")))
}
