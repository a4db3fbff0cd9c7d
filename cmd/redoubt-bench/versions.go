package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// runVersions fills a bucket with n objects at one label and as many at a label above the reader, and prints how
// long the reader's LIST pages take at ten thousand, at n, and with the invisible ones added.
func runVersions(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "server-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	high, err := startRedoubt(ctx, o, dir)
	if err != nil {
		return err
	}
	defer high.stop()
	low := *high
	low.stored = map[string][]int{}
	if low.access, low.secret, err = credential(ctx, o, dir, "UNCLASSIFIED"); err != nil {
		return err
	}
	fill := func(srv *server, prefix string, from, to int) error {
		per := (to - from) / o.conns
		body := []byte("x")
		long := o
		long.each = 24 * time.Hour
		_, _, err := load(ctx, long, srv, per, func(c *client, worker, n int) error {
			return c.do("PUT", key(prefix, worker, from/o.conns+n), "", body, nil)
		})
		return err
	}
	page := func(what string, among int) error {
		if err := settle(ctx, high); err != nil {
			return err
		}
		if _, err := pages("many", among/o.conns)(ctx, o, &low); err != nil { // warms what will be warm
			return err
		}
		f, err := pages("many", among/o.conns)(ctx, o, &low)
		if err != nil {
			return err
		}
		fmt.Printf("%-44s %8.1f pages/s  p50 %6.2f ms  p99 %6.2f ms  CPU %6.0f us  RSS %4.0f MiB\n", what, f.PerSec, f.P50ms, f.P99ms, f.CPUus, high.peakMiB())
		return nil
	}
	first := min(10_000*o.conns/8+o.conns*1100, o.versions)
	steps := []struct {
		what           string
		srv            *server
		from, to, seen int
	}{
		{fmt.Sprintf("LIST of 1000 among %d", first), &low, 0, first, first},
		{fmt.Sprintf("LIST of 1000 among %d", o.versions), &low, first, o.versions, o.versions},
		{fmt.Sprintf("… and %d that the reader cannot see", o.versions), high, 0, o.versions, o.versions},
	}
	for _, s := range steps {
		start := time.Now()
		if err := fill(s.srv, "many", s.from, s.to); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "stored %d in %s\n", s.to-s.from, time.Since(start).Round(time.Second))
		if err := page(s.what, s.seen); err != nil {
			return err
		}
	}
	return nil
}

// pages asks for pages of a thousand keys that begin anywhere among the per keys that each connection stored.
func pages(prefix string, per int) func(context.Context, options, *server) (figure, error) {
	return func(ctx context.Context, o options, srv *server) (figure, error) {
		f, _, err := load(ctx, o, srv, 0, func(c *client, worker, n int) error {
			at := (n*7919 + worker*131) % max(per-1000, 1)
			return c.list(prefix, fmt.Sprintf("%s/%02d/%08d", prefix, worker, at))
		})
		return f, err
	}
}

// settle waits until the server has done what it does behind what it was asked for: until it takes less than a twentieth of a core.
func settle(ctx context.Context, srv *server) error {
	const look, most = time.Second, 2 * time.Minute
	for range most / look {
		before := srv.cpu()
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
		if srv.cpu()-before < look/20 {
			return nil
		}
	}
	return nil
}

// credential mints one for the bencher at a working label.
func credential(ctx context.Context, o options, dir, marking string) (access, secret string, err error) {
	bin, err := filepath.Abs(o.redoubt)
	if err != nil {
		return "", "", err
	}
	out, err := exec.CommandContext(ctx, bin, "env", "bencher@bench", "--label", marking, "--state", filepath.Join(dir, "state")).Output()
	if err != nil {
		return "", "", fmt.Errorf("redoubt env: %w", err)
	}
	vars := exports(string(out))
	return vars["AWS_ACCESS_KEY_ID"], vars["AWS_SECRET_ACCESS_KEY"], nil
}

// exports reads the lines that "redoubt env" prints.
func exports(out string) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			vars[name] = strings.Trim(value, `'"`)
		}
	}
	return vars
}
