package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// raiseEstate is two enclaves and the guard between them. Clients are on loopback, so TLS is off for them.
const raiseEstate = `redoubt: 1
name: bench
exercise: true
policy: USA
nodes:
  - name: low
    range: {floor: UNCLASSIFIED, ceiling: UNCLASSIFIED}
    s3: {listen: "127.0.0.1:0", tls: false}
    buckets: [bench]
  - name: high
    range: {floor: UNCLASSIFIED, ceiling: SECRET}
    s3: {listen: "127.0.0.1:0", tls: false}
    buckets: [bench]
  - {name: low-high, kind: guard, low: low, high: high}
people:
  - {name: bencher, clearance: SECRET, nation: USA, roles: [analyst], expires: 2099-12-31}
  - {name: officer, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
  - {name: officer-2, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
`

// raiseLoads are what is raised.
var raiseLoads = []struct {
	name    string
	size, n int
}{{"4 KiB", 4 * kib, 24_000}, {"64 KiB", 64 * kib, 6_000}, {"1 MiB", mib, 600}}

// runRaise measures how fast versions become readable in the enclave above, from the first PUT below to the last there, against how fast the same
// store takes them from the same clients when nothing is raised; and how soon one version alone is above. Beside the rates it tells what each of the
// four processes, and the store alone, took of a processor for each version: that moves less with what else runs, and is what would bound the rate if
// each had a machine of its own.
func runRaise(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "raise-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	low, high, stages, stop, err := startRaise(ctx, o, dir)
	if err != nil {
		return err
	}
	defer stop()
	o.each = 24 * time.Hour
	fmt.Printf("%-8s %14s %10s %10s %7s   CPU us each: %8s %8s %8s %8s %8s\n", "RAISE", "store alone/s", "below/s", "above/s", "ratio", "alone", "low", "low half", "high half", "high")
	for _, l := range raiseLoads {
		if len(o.only) > 0 && !slices.Contains(o.only, l.name) {
			continue
		}
		var alone, below, above []figure
		cost := make([][]float64, len(stages))
		for round := range o.rounds {
			a, err := lanAlone(ctx, o, dir, l.size, l.n)
			if err != nil {
				return err
			}
			prefix := fmt.Sprintf("%d-%d", l.size, round)
			var before []time.Duration
			for _, p := range stages {
				before = append(before, p.cpu())
			}
			began := time.Now()
			b, err := puts(prefix, l.size, l.n/o.conns+1)(ctx, o, low)
			if err != nil {
				return err
			}
			if l.size >= mib {
				b.PerSec /= float64(l.size) / mib
			}
			total := 0
			for worker, n := range low.stored[prefix] {
				if err := awaitAbove(ctx, high, key(prefix, worker, n-1)); err != nil {
					return err
				}
				total += n
			}
			c := figure{PerSec: float64(total) / time.Since(began).Seconds()}
			alone, below, above = append(alone, a), append(below, b), append(above, c)
			each := make([]int64, len(stages))
			for i, p := range stages {
				each[i] = (p.cpu() - before[i]).Microseconds() / int64(total)
				cost[i] = append(cost[i], float64(each[i]))
			}
			fmt.Fprintf(os.Stderr, "round %d  %-8s alone %.0f a second, %.0f us of a core each; below %.0f, above %.0f; %v us\n", round+1, l.name, a.PerSec, a.CPUus, b.PerSec, c.PerSec, each)
		}
		rate := func(f figure) float64 { return f.PerSec }
		fmt.Printf("%-8s %14.0f %10.0f %10.0f %7.2f                %8.0f", l.name, middle(alone, rate), middle(below, rate), middle(above, rate), middle(above, rate)/middle(alone, rate),
			middle(alone, func(f figure) float64 { return f.CPUus }))
		for _, c := range cost {
			fmt.Printf(" %8.0f", quantile(c, 0.5))
		}
		fmt.Println()
	}
	return raiseOne(ctx, low, high)
}

// raiseOne is how soon one version that is put alone is readable above.
func raiseOne(ctx context.Context, low, high *server) error {
	var took []float64
	c, err := low.dial()
	if err != nil {
		return err
	}
	defer c.close()
	for i := range 40 {
		at := fmt.Sprintf("/bench/one-%d", i)
		began := time.Now()
		if err := c.do("PUT", at, "", []byte(at), nil); err != nil {
			return err
		}
		if err := awaitAbove(ctx, high, at); err != nil {
			return err
		}
		took = append(took, time.Since(began).Seconds())
	}
	fmt.Printf("one version: p50 %.0f ms, p99 %.0f ms from its PUT below until it is read above\n", quantile(took, 0.5)*1e3, quantile(took, 0.99)*1e3)
	return nil
}

// awaitAbove waits until a name of the lower enclave is read in the higher one.
func awaitAbove(ctx context.Context, high *server, path string) error {
	c, err := high.dial()
	if err != nil {
		return err
	}
	defer c.close()
	at := "/low.bench" + path[len("/bench"):]
	for deadline := time.Now().Add(5 * time.Minute); ; {
		err := c.do("HEAD", at, "", nil, nil)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("%s did not come", at), err, ctx.Err())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startRaise brings the estate up, and gives its two enclaves as a client of each sees them, and the processes that a raised version goes through.
func startRaise(ctx context.Context, o options, dir string) (low, high *server, stages []*server, stop func(), err error) {
	bin, err := filepath.Abs(o.redoubt)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	file, state := filepath.Join(dir, "raise.yaml"), filepath.Join(dir, "state")
	if err := os.WriteFile(file, []byte(raiseEstate), 0o600); err != nil {
		return nil, nil, nil, nil, err
	}
	call := func(args ...string) ([]byte, error) {
		return said(exec.CommandContext(ctx, bin, append(args, "--state", state)...), args[0])
	}
	stop = func() { exec.Command(bin, "down", "--state", state).Run() }
	if _, err := call("up", file, "--detach"); err != nil {
		stop()
		return nil, nil, nil, nil, err
	}
	servers := map[string]*server{}
	for name, marking := range map[string]string{"low": "UNCLASSIFIED", "high": "SECRET"} {
		out, err := call("env", "bencher@"+name, "--label", marking)
		if err != nil {
			stop()
			return nil, nil, nil, nil, err
		}
		vars := exports(string(out))
		u, err := url.Parse(vars["AWS_ENDPOINT_URL"])
		if err != nil {
			stop()
			return nil, nil, nil, nil, err
		}
		servers[name] = &server{name: name, stored: map[string][]int{}, addr: u.Host, access: vars["AWS_ACCESS_KEY_ID"], secret: vars["AWS_SECRET_ACCESS_KEY"], region: vars["AWS_REGION"], stop: func() {}}
	}
	var halves map[string]int
	for range 100 { // they start when their enclaves are there
		if halves, err = raiseProcesses(state); err == nil && len(halves) == 5 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		stop()
		return nil, nil, nil, nil, err
	}
	for _, p := range []string{"low", "half low", "half high", "high"} {
		stages = append(stages, &server{name: p, pid: halves[p]})
	}
	return servers["low"], servers["high"], stages, stop, nil
}

// raiseProcesses are the PIDs of the enclaves and of the guard's halves.
func raiseProcesses(state string) (map[string]int, error) {
	out := map[string]int{}
	for _, name := range []string{"low", "high", "low-high"} {
		var r struct {
			PID    int
			Halves []int
		}
		raw, err := os.ReadFile(filepath.Join(state, name, "runtime.json"))
		if err == nil {
			err = json.Unmarshal(raw, &r)
		}
		if err != nil {
			return nil, err
		}
		out[name] = r.PID
		for _, pid := range r.Halves {
			args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil {
				return nil, err
			}
			all := strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
			out["half "+all[len(all)-1]] = pid
		}
	}
	return out, nil
}
