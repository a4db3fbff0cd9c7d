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

// raiseFigure is one run of a load: how fast it was, and what each of the four processes took of a processor for each version.
type raiseFigure struct {
	below, above float64 // a second
	cost         []float64
}

// runRaise measures how fast versions become readable in the enclave above, against how fast the same store takes them from the same clients when nothing
// is raised, in two ways. *While it is put*: from the first PUT below to the last version there, so clients, store and raise share the two cores. *Catching
// up*: what gathered below while the guard was away, from the first that is readable above to the last, as bench-lan has it of a device; then nothing is
// put. Beside the rates it tells what each of the four processes, and the store alone, took of a processor for each version: that moves less with what else
// runs, and is what would bound the rate if each had a machine of its own. Then how soon one version alone is above.
func runRaise(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "raise-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.machines, err = newMachines(o.share); err != nil {
		return err
	}
	defer o.machines.end()
	r, err := startRaise(ctx, o, dir)
	if err != nil {
		return err
	}
	defer r.stop()
	o.each = 24 * time.Hour
	fmt.Printf("%-8s %-16s %14s %10s %10s %7s   CPU us each: %8s %8s %8s %8s %8s %8s\n", "RAISE", "", "store alone/s", "below/s", "above/s", "ratio", "alone", "low", "low half", "high half", "high", "all four")
	ways := []struct {
		name string
		run  func(ctx context.Context, o options, prefix string, size, n int) (raiseFigure, error)
	}{{"while it is put", r.whilePut}, {"catching up", r.catchUp}}
	for _, l := range raiseLoads {
		if len(o.only) > 0 && !slices.Contains(o.only, l.name) {
			continue
		}
		var alone []figure
		raised := make([][]raiseFigure, len(ways))
		for round := range o.rounds {
			begin, err := o.warm(l.size, l.n)
			if err != nil {
				return err
			}
			begin()
			a, err := lanAlone(ctx, o, dir, l.size, l.n)
			if err != nil {
				return err
			}
			alone = append(alone, a)
			fmt.Fprintf(os.Stderr, "round %d  %-8s alone %.0f a second, %.0f us of a core each\n", round+1, l.name, a.PerSec, a.CPUus)
			for i, way := range ways {
				f, err := way.run(ctx, o, fmt.Sprintf("%d-%d-%d", l.size, round, i), l.size, l.n)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", l.name, way.name, err)
				}
				raised[i] = append(raised[i], f)
				fmt.Fprintf(os.Stderr, "round %d  %-8s %s: below %.0f a second, above %.0f: %.2f; %.0f us\n", round+1, l.name, way.name, f.below, f.above, f.above/a.PerSec, f.cost)
			}
		}
		for i, way := range ways {
			of := func(pick func(raiseFigure) float64) float64 {
				var v []float64
				for _, f := range raised[i] {
					v = append(v, pick(f))
				}
				return quantile(v, 0.5)
			}
			store, above := middle(alone, func(f figure) float64 { return f.PerSec }), of(func(f raiseFigure) float64 { return f.above })
			fmt.Printf("%-8s %-16s %14.0f %10.0f %10.0f %7.2f                %8.0f", l.name, way.name, store, of(func(f raiseFigure) float64 { return f.below }), above, above/store,
				middle(alone, func(f figure) float64 { return f.CPUus }))
			all := 0.0
			for p := range r.stages {
				cost := of(func(f raiseFigure) float64 { return f.cost[p] })
				fmt.Printf(" %8.0f", cost)
				all += cost
			}
			fmt.Printf(" %8.0f\n", all)
		}
	}
	return raiseOne(ctx, r.low, r.high)
}

// cpus is what each process took of a processor so far.
func (r *raising) cpus() (all []time.Duration) {
	for _, p := range r.stages {
		all = append(all, p.cpu())
	}
	return all
}

func (r *raising) costs(since []time.Duration, versions int) (each []float64) {
	for i, now := range r.cpus() {
		each = append(each, float64((now-since[i]).Microseconds())/float64(versions))
	}
	return each
}

// whilePut puts a load below while the guard raises it.
func (r *raising) whilePut(ctx context.Context, o options, prefix string, size, n int) (f raiseFigure, err error) {
	begin, err := o.warm(size, n)
	if err != nil {
		return f, err
	}
	begin()
	before, began := r.cpus(), time.Now()
	stored, below, err := r.put(ctx, o, prefix, size, n)
	if err == nil {
		err = r.awaitAll(ctx, prefix)
	}
	if err != nil {
		return f, err
	}
	return raiseFigure{below, float64(stored) / time.Since(began).Seconds(), r.costs(before, stored)}, nil
}

// catchUp puts a load below while the guard is away, starts that, and sees how fast the load is above from when the first of it is. What is there by
// then counts for nothing.
func (r *raising) catchUp(ctx context.Context, o options, prefix string, size, n int) (f raiseFigure, err error) {
	if _, err := r.call(ctx, "down", raiseGuard); err != nil {
		return f, err
	}
	stored, below, err := r.put(ctx, o, prefix, size, n)
	if err != nil {
		return f, err
	}
	begin, err := o.warm(size, n)
	if err != nil {
		return f, err
	}
	defer begin()
	if _, err := r.call(ctx, "up", "--detach"); err != nil {
		return f, err
	}
	if err := r.find(); err != nil {
		return f, err
	}
	if err := awaitAbove(ctx, r.high, key(prefix, 0, 0)); err != nil {
		return f, err
	}
	begin()
	before, began := r.cpus(), time.Now()
	there, err := listed(r.high, raisedBench, prefix)
	if err == nil && there >= stored {
		err = fmt.Errorf("all %d were above before they could be counted", stored)
	}
	if err == nil {
		stop := profile(r.pids()...)
		err = r.awaitAll(ctx, prefix)
		f = raiseFigure{below, float64(stored-there) / time.Since(began).Seconds(), r.costs(before, stored-there)}
		stop()
	}
	return f, err
}

// put stores a load below, and says how much that was, and how many a second.
func (r *raising) put(ctx context.Context, o options, prefix string, size, n int) (stored int, rate float64, err error) {
	f, err := puts(prefix, size, n/o.conns+1)(ctx, o, r.low)
	if size >= mib {
		f.PerSec /= float64(size) / mib // it counts MiB
	}
	for _, n := range r.low.stored[prefix] {
		stored += n
	}
	return stored, f.PerSec, err
}

// awaitAll waits until the last that each client put is read above: what a client put before it was raised before it.
func (r *raising) awaitAll(ctx context.Context, prefix string) error {
	for worker, n := range r.low.stored[prefix] {
		if err := awaitAbove(ctx, r.high, key(prefix, worker, n-1)); err != nil {
			return err
		}
	}
	return nil
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
	at := "/" + raisedBench + path[len("/bench"):]
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

// raising is the estate of a raise: its two enclaves as a client of each sees them, and the processes that a raised version goes through.
type raising struct {
	bin, state string
	low, high  *server
	stages     []*server
	machines   *machines // of each of them
}

const (
	raiseGuard  = "low-high"
	raisedBench = "low.bench"
)

func (r *raising) call(ctx context.Context, args ...string) ([]byte, error) {
	return said(exec.CommandContext(ctx, r.bin, append(args, "--state", r.state)...), args[0])
}

func (r *raising) stop() {
	exec.Command(r.bin, "down", "--state", r.state).Run()
}

// startRaise brings the estate up.
func startRaise(ctx context.Context, o options, dir string) (r *raising, err error) {
	r = &raising{state: filepath.Join(dir, "state"), machines: o.machines}
	if r.bin, err = filepath.Abs(o.redoubt); err != nil {
		return nil, err
	}
	file, declared := filepath.Join(dir, "raise.yaml"), raiseEstate
	if o.share > 0 { // the guard sees all processors of this machine: the road of one that has its share is as fast as with one processor
		declared = strings.Replace(declared, "high: high}", "high: high, road: {pace: 1Gbit}}", 1)
	}
	if err := os.WriteFile(file, []byte(declared), 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	if _, err := r.call(ctx, "up", file, "--detach"); err != nil {
		return nil, err
	}
	for name, marking := range map[string]string{"low": "UNCLASSIFIED", "high": "SECRET"} {
		out, err := r.call(ctx, "env", "bencher@"+name, "--label", marking)
		if err != nil {
			return nil, err
		}
		vars := exports(string(out))
		u, err := url.Parse(vars["AWS_ENDPOINT_URL"])
		if err != nil {
			return nil, err
		}
		s := &server{name: name, stored: map[string][]int{}, addr: u.Host, access: vars["AWS_ACCESS_KEY_ID"], secret: vars["AWS_SECRET_ACCESS_KEY"], region: vars["AWS_REGION"], stop: func() {}}
		if name == "low" {
			r.low = s
		} else {
			r.high = s
		}
	}
	return r, r.find()
}

// find waits for the processes that a raised version goes through, and notes which they are. The halves start when their enclaves are there.
func (r *raising) find() (err error) {
	var all map[string]int
	for range 100 {
		if all, err = raiseProcesses(r.state); err == nil && len(all) == 5 {
			r.stages = nil
			for _, p := range []string{"low", "half low", "half high", "high"} {
				r.stages = append(r.stages, &server{name: p, pid: all[p]})
				err = errors.Join(err, r.machines.give(strings.ReplaceAll(p, " ", "-"), all[p]))
			}
			if err == nil { // else a half was just ending
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.Join(err, errors.New("the guard's halves did not start"))
}

func (r *raising) pids() (all []int) {
	for _, p := range r.stages {
		all = append(all, p.pid)
	}
	return all
}

// raiseProcesses are the PIDs of the enclaves and of the guard's halves.
func raiseProcesses(state string) (map[string]int, error) {
	out := map[string]int{}
	for _, name := range []string{"low", "high", raiseGuard} {
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
