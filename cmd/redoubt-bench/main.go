// Command redoubt-bench measures an enclave against the peers that the Go module proxy
// serves, in one run, with one load generator: the same requests, signed the same way,
// over the same number of connections, on fresh data, in rotated rounds. It prints medians,
// ratios, server CPU an operation and peak memory. `make bench` builds what it needs and runs it. With -nodes, -link and -lan it
// measures a home and its device over emulated links, carriage alone over them, and a device over a fast link: `make bench-link`,
// `make bench-carry` and `make bench-lan`.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.redoubt, "redoubt", "./redoubt", "the binary to measure")
	flag.StringVar(&o.versitygw, "versitygw", "", "versitygw's binary; empty: leave it out")
	flag.StringVar(&o.minio, "minio", "", "MinIO's binary; empty: leave it out")
	flag.StringVar(&o.dir, "dir", "", "where the servers keep their data (default: a new temporary folder)")
	flag.DurationVar(&o.each, "each", 4*time.Second, "how long each measurement runs")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, each in another order of servers")
	flag.IntVar(&o.conns, "conns", 8, "connections")
	flag.StringVar(&o.json, "json", "", "also write every figure to this file")
	only := flag.String("only", "", "comma-separated measurements (default: all); with -jobs: calls, starts, queue, streams")
	flag.IntVar(&o.versions, "versions", 0, "instead: fill a bucket with this many versions, and as many above the reader, and time LIST pages")
	flag.StringVar(&o.link, "link", "", "instead: measure carriage over emulated links, B and C, comma-separated (needs root)")
	flag.Uint64Var(&o.seed, "seed", 1, "what emulated links lose")
	flag.StringVar(&o.nodes, "nodes", "", "instead: measure a home and its device over emulated links, B and C, comma-separated, beside rsync and git on B (needs root)")
	flag.BoolVar(&o.full, "full", false, "with -nodes: the peers on C too")
	flag.BoolVar(&o.fromHome, "from-home", false, "with -nodes: what is put at the home goes to the device, instead of the other way")
	lan := flag.Bool("lan", false, "instead: measure what a device takes over a fast link against what the same store takes from clients")
	raise := flag.Bool("raise", false, "instead: measure what a guard raises into a higher enclave against what the lower store takes from clients")
	flag.BoolVar(&o.fresh, "fresh", false, "with -raise: do not touch the memory first that a run will need; a virtual machine may be given it only then")
	flag.Float64Var(&o.share, "share", 0, "with -raise: every server has this share of a processor, as if each had a machine of its own (needs root)")
	timing := flag.Bool("timing", false, "instead: measure how well a low listener can tell by latency what lies above it and goes on there")
	jobs := flag.Bool("jobs", false, "instead: measure how soon jobs start, how many a second run, and what they read and write against the S3 path")
	containers := flag.Bool("containers", false, "instead: measure jobs in images beside podman (needs root for podman)")
	flag.Parse()
	o.only = strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measured := run
	if *timing {
		measured = runTiming
	}
	if *lan {
		measured = runLAN
	}
	if *raise {
		measured = runRaise
	}
	if *jobs {
		measured = runJobs
	}
	if *containers {
		measured = runContainers
	}
	if err := measured(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "redoubt-bench:", err)
		os.Exit(1)
	}
}

type options struct {
	redoubt, versitygw, minio, dir, json string
	each                                 time.Duration
	rounds, conns, versions              int
	only                                 []string
	link                                 string
	seed                                 uint64
	nodes                                string
	full, fromHome                       bool
	prefix                               []string  // what the server is run under
	fresh                                bool      // memory is not touched before a run
	share                                float64   // of a processor, of each server; 0: what it gets
	machines                             *machines // by that share; nil: none
}

// figure is one measurement of one server in one round.
type figure struct {
	Server   string  `json:"server"`
	What     string  `json:"what"`
	Round    int     `json:"round"`
	PerSec   float64 `json:"per_second"` // operations, or MiB where the unit says so
	P50ms    float64 `json:"p50_ms"`
	P99ms    float64 `json:"p99_ms"`
	CPUus    float64 `json:"server_cpu_us_per_op"`
	PeakMiB  float64 `json:"peak_rss_mib"`
	Failures int     `json:"failures"`
}

func run(ctx context.Context, o options) error {
	if o.nodes != "" {
		return runNodes(ctx, o)
	}
	if o.link != "" {
		return runLinks(ctx, o)
	}
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "redoubt-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	starters := []starter{startRedoubt}
	if o.versions > 0 {
		return runVersions(ctx, o)
	}
	if o.versitygw != "" {
		starters = append(starters, startVersitygw)
	}
	if o.minio != "" {
		starters = append(starters, startMinIO)
	}
	var all []figure
	for round := range o.rounds {
		for i := range starters {
			start := starters[(i+round)%len(starters)]
			figures, err := measure(ctx, o, start, round)
			all = append(all, figures...)
			if err != nil {
				return err
			}
		}
	}
	if o.json != "" {
		b, err := json.MarshalIndent(all, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, b, 0o644); err != nil {
			return err
		}
	}
	report(all)
	return nil
}

// measure starts a server on fresh data, runs every workload against it and stops it.
func measure(ctx context.Context, o options, start starter, round int) ([]figure, error) {
	dir, err := os.MkdirTemp(o.dir, "server-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	srv, err := start(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	defer srv.stop()
	var out []figure
	for _, w := range workloads {
		if len(o.only) > 0 && !slices.Contains(o.only, w.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "round %d  %-10s %s\n", round+1, srv.name, w.name)
		f, err := w.run(ctx, o, srv)
		if err != nil {
			return out, fmt.Errorf("%s: %s: %w", srv.name, w.name, err)
		}
		f.Server, f.What, f.Round = srv.name, w.name, round+1
		f.PeakMiB = srv.peakMiB()
		out = append(out, f)
	}
	return out, nil
}

// report prints medians over the rounds and, for each peer, the ratio of medians.
func report(all []figure) {
	median := func(server, what string, of func(figure) float64) float64 {
		var v []float64
		for _, f := range all {
			if f.Server == server && f.What == what {
				v = append(v, of(f))
			}
		}
		if len(v) == 0 {
			return 0
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	var servers []string
	for _, f := range all {
		if !slices.Contains(servers, f.Server) {
			servers = append(servers, f.Server)
		}
	}
	slices.SortStableFunc(servers, func(a, b string) int {
		if (a == "redoubt") != (b == "redoubt") {
			if a == "redoubt" {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	fmt.Printf("%-12s %-12s %10s %9s %9s %12s %9s %8s %8s\n", "measurement", "server", "median/s", "p50 ms", "p99 ms", "CPU us/op", "RSS MiB", "failed", "ratio")
	for _, w := range workloads {
		ours := median("redoubt", w.name, func(f figure) float64 { return f.PerSec })
		for _, s := range servers {
			per := median(s, w.name, func(f figure) float64 { return f.PerSec })
			if per == 0 {
				continue
			}
			ratio := ""
			if s != "redoubt" {
				ratio = fmt.Sprintf("%.2f", ours/per)
			}
			fmt.Printf("%-12s %-12s %10.1f %9.2f %9.2f %12.0f %9.0f %8.0f %8s\n", w.name, s, per,
				median(s, w.name, func(f figure) float64 { return f.P50ms }), median(s, w.name, func(f figure) float64 { return f.P99ms }),
				median(s, w.name, func(f figure) float64 { return f.CPUus }), median(s, w.name, func(f figure) float64 { return f.PeakMiB }),
				median(s, w.name, func(f figure) float64 { return float64(f.Failures) }), ratio)
		}
	}
	fmt.Println("\nput-*, get-*: operations a second at 4 KiB, MiB a second at 1 MiB and 64 MiB; list-1000: pages a second. ratio: redoubt over the peer.")
}
