package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Who takes runs on one core and who gives on another: a store that takes from clients has as much of the machine as a device that takes
// from its home, and so have the clients and the home.
var (
	takes = []string{"taskset", "-c", "0"}
	gives = []string{"taskset", "-c", "1"}
)

// lanLoads are what goes over a fast link: how many objects of each size, some seconds' worth.
var lanLoads = []struct {
	name    string
	size, n int
	unit    float64 // bytes that count as one
}{
	{"4 KiB", 4 * kib, 24_000, 4 * kib},
	{"1 MiB", mib, 640, mib},
	{"64 MiB", 64 * mib, 12, mib},
}

// runLAN measures how fast versions become durable at a device that meets its home again over loopback, against how fast the same store
// takes them from eight clients, in turns.
func runLAN(ctx context.Context, o options) error {
	if err := exec.CommandContext(ctx, "taskset", "-apc", "1", strconv.Itoa(os.Getpid())).Run(); err != nil {
		return fmt.Errorf("a LAN run needs taskset and two cores: %w", err)
	}
	dir, err := os.MkdirTemp(o.dir, "lan-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := newPair(ctx, o, dir, "127.0.0.1:0", "127.0.0.1:0", nil, map[string][]string{home: gives, outpost: takes})
	if err != nil {
		return err
	}
	defer p.close()
	o.each, o.prefix = 24*time.Hour, takes
	p.lookEvery = 50 * time.Millisecond // asking costs the device's core
	fmt.Printf("%-8s %14s %10s %7s %16s %12s\n", "LAN", "store alone/s", "device/s", "ratio", "store CPU us", "device CPU us")
	for _, l := range lanLoads {
		if len(o.only) > 0 && !slices.Contains(o.only, l.name) {
			continue
		}
		var alone, linked []figure
		for round := range o.rounds {
			a, err := lanAlone(ctx, o, dir, l.size, l.n)
			if err != nil {
				return err
			}
			b, err := lanLinked(ctx, o, p, fmt.Sprintf("%d-%d", l.size, round), l.size, l.n)
			if err != nil {
				return err
			}
			alone, linked = append(alone, a), append(linked, b)
			fmt.Fprintf(os.Stderr, "round %d  %-8s alone %.0f a second, %.0f us of a core each; linked %.0f, %.0f us\n", round+1, l.name, a.PerSec, a.CPUus, b.PerSec, b.CPUus)
		}
		rate := func(f figure) float64 { return f.PerSec }
		cost := func(f figure) float64 { return f.CPUus }
		a, b := middle(alone, rate)*float64(l.size)/l.unit, middle(linked, rate)*float64(l.size)/l.unit
		fmt.Printf("%-8s %14.0f %10.0f %7.2f %16.0f %12.0f\n", l.name, a, b, b/a, middle(alone, cost), middle(linked, cost))
	}
	fmt.Printf("device: peak RSS %.0f MiB; home: %.0f MiB\n", p.peakMiB(outpost), p.peakMiB(home))
	return nil
}

func middle(all []figure, of func(figure) float64) float64 {
	var v []float64
	for _, f := range all {
		v = append(v, of(f))
	}
	return quantile(v, 0.5)
}

// lanAlone is how many objects a second a fresh enclave without links takes, on a machine of its own where there are any.
func lanAlone(ctx context.Context, o options, dir string, size, n int) (figure, error) {
	at, err := os.MkdirTemp(dir, "alone-")
	if err != nil {
		return figure{}, err
	}
	defer os.RemoveAll(at)
	s, err := startRedoubt(ctx, o, at)
	if err != nil {
		return figure{}, err
	}
	defer s.stop()
	if err := o.machines.give("alone", s.pid); err != nil {
		return figure{}, err
	}
	f, err := puts("alone", size, n/o.conns+1)(ctx, o, s)
	if size >= mib {
		f.PerSec /= float64(size) / mib // it counts MiB
	}
	return f, err
}

// lanLinked puts objects at the home while the device is down, starts it, and is how many a second become readable there, from the
// first to the last.
func lanLinked(ctx context.Context, o options, p *pair, prefix string, size, n int) (f figure, err error) {
	p.end(outpost, syscall.SIGTERM)
	if _, err := puts(prefix, size, n/o.conns+1)(ctx, o, &p.nodes[home].server); err != nil {
		return f, err
	}
	if err := p.start(ctx, outpost); err != nil {
		return f, err
	}
	counts, total := p.nodes[home].stored[prefix], 0
	last := make([]arrived, o.conns)
	for worker, k := range counts {
		last[worker] = arrived{path: key(prefix, worker, k-1)}
		total += k
	}
	begin, err := p.await(ctx, outpost, []arrived{{path: key(prefix, 0, 0)}})
	if err != nil {
		return f, err
	}
	cpu := p.nodes[outpost].cpu()
	stopProfile := profile(p.nodes[outpost].pid, p.nodes[home].pid)
	end, err := p.await(ctx, outpost, last)
	stopProfile()
	if err != nil {
		return f, err
	}
	f.PerSec = float64(total) / end[len(end)-1].at.Sub(begin[0].at).Seconds()
	f.CPUus = float64((p.nodes[outpost].cpu() - cpu).Microseconds()) / float64(total)
	return f, p.complete(ctx, outpost, prefix, total)
}

// profile samples processes with perf, for whoever looks for what is slow, where the environment's PROFILE names a folder.
func profile(pids ...int) (stop func()) {
	dir := os.Getenv("PROFILE")
	if dir == "" {
		return func() {}
	}
	var all []*exec.Cmd
	for i, pid := range pids {
		c := exec.Command("perf", "record", "-q", "-F", "499", "-g", "-p", strconv.Itoa(pid), "-o", filepath.Join(dir, fmt.Sprintf("perf.%d", i)))
		if c.Start() == nil {
			all = append(all, c)
		}
	}
	return func() {
		for _, c := range all {
			c.Process.Signal(os.Interrupt)
			c.Wait()
		}
	}
}
