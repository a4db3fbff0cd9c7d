package oci

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"redoubt"
	"redoubt/compute"
	"redoubt/sandbox"
)

// Driver runs container images on gVisor. It holds processes and memory until Close.
type Driver struct {
	o      Options
	groups *groups
	roots  *roots
	pool   *pool
	users  users
	made   atomic.Int64 // sandboxes

	probing sync.Mutex // guards what follows
	stood   bool
	lacks   error
	probed  time.Time

	mu     sync.Mutex // guards closed
	closed bool
	runs   sync.WaitGroup
}

var _ compute.Driver = (*Driver)(nil)

// New makes a driver. What the machine lacks, Available tells.
func New(o Options) (*Driver, error) {
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		return nil, os.NewSyscallError("sysinfo", err)
	}
	o.defaults(int64(machine.Totalram) * int64(machine.Unit))
	d := &Driver{o: o, groups: findGroups(), roots: newRoots(o.CacheBytes), pool: &pool{max: o.Warm, keep: o.WarmFor}}
	return d, nil
}

// dynamic reports whether our own binary needs shared libraries.
func dynamic() bool {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// probeAgain is how long it is believed that nothing runs here.
const probeAgain = 15 * time.Second

// Available starts a sandbox, until one has stood, and tells why it did not.
func (d *Driver) Available() error {
	d.probing.Lock()
	defer d.probing.Unlock()
	if d.stood || time.Since(d.probed) < probeAgain {
		return d.lacks
	}
	d.lacks = d.probe()
	d.stood, d.probed = d.lacks == nil, time.Now()
	return d.lacks
}

func (d *Driver) probe() error {
	if !entered.Load() {
		return unavailable("", errors.New("this program's main does not begin with oci.Enter"))
	}
	if dynamic() {
		return unavailable("build it with CGO_ENABLED=0, as make build does", errors.New("this binary needs shared libraries, and there are none in a sandbox"))
	}
	b, err := newBox(bootSpec{Memory: 64 << 20, CPUs: 1, Processes: 16, Disk: 1 << 20, Runc: d.o.Runc}, d.groups, &d.users)
	if err == nil {
		b.kill()
	}
	return err
}

// Details say what holds a program's limits here.
func (d *Driver) Details() []sandbox.Mechanism {
	m := sandbox.Mechanism{Name: "gVisor", OK: true, Detail: "a sandbox was started"}
	if err := d.Available(); err != nil {
		m.OK, m.Detail = false, err.Error()
	}
	return []sandbox.Mechanism{m, {Name: "limits of images", OK: m.OK, Detail: d.groups.String()}}
}

// Close ends all runs, and everything that is kept.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.pool.close()
	d.runs.Wait()
	d.pool.close()
	d.roots.close()
	return nil
}

// begin counts a run, unless the driver is closed.
func (d *Driver) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.runs.Add(1)
	}
	return !d.closed
}

// Run implements compute.Driver.
func (d *Driver) Run(ctx context.Context, t compute.Task) (compute.Exit, error) {
	if !d.begin() {
		return compute.Exit{}, &redoubt.Error{Op: "oci.Run", Kind: redoubt.Unavailable, Err: errors.New("the driver is closed")}
	}
	defer d.runs.Done()
	x, err := d.run(ctx, t)
	if own := new(fault); errors.As(err, &own) {
		return compute.Exit{Code: -1, Why: own.why}, nil
	}
	return x, err
}

func (d *Driver) run(ctx context.Context, t compute.Task) (x compute.Exit, err error) {
	if err := d.Available(); err != nil {
		return x, err
	}
	if d.o.Runc != "" && len(t.Spec.Network) > 0 {
		return x, faultf("with runc an image has no network: leave out --network, or --driver")
	}
	im, err := open(ctx, t, d.o.Policy)
	if err != nil {
		return x, err
	}
	root, err := d.roots.get(ctx, t.Share()+"\x00"+im.Digest.String(), func() (*root, error) { return d.unpack(ctx, im) })
	if err != nil {
		return x, err
	}
	defer d.roots.put(root)
	p, err := newProcess(im, t.Spec, root.told)
	if err != nil {
		return x, err
	}
	for {
		b, err := d.box(t)
		if err != nil {
			return x, err
		}
		b.runs++
		r := &run{ctx: ctx, t: t, b: b, handles: map[uint64]*handle{}, eager: d.o.Runc != ""}
		x, err = r.run(runSpec{ID: fmt.Sprintf("run-%d", b.runs), Process: p}, root.file)
		// A label that could rise may have: then nothing of the sandbox is used again. Nor is one that had a network: what comes late is of no other run.
		if job := t.Job(); err == nil && r.clean && job.Start == job.Max && len(t.Spec.Network) == 0 && d.o.Runc == "" {
			d.pool.give(b)
		} else {
			b.kill()
		}
		if err != nil && b.runs > 1 && !r.started && ctx.Err() == nil {
			continue // the sandbox that was kept had gone
		}
		return x, err
	}
}

// box gives a sandbox for a task: one of its own share that is idle, or a new one.
func (d *Driver) box(t compute.Task) (*box, error) {
	spec := bootSpec{Memory: t.Limits.Memory, CPUs: t.Limits.CPUs, Processes: t.Limits.Processes, Disk: t.Limits.Disk, Network: t.Spec.Network, Runc: d.o.Runc}
	key := fmt.Sprintf("%s\x00%v", t.Share(), spec)
	if b := d.pool.take(key); b != nil {
		return b, nil
	}
	d.made.Add(1)
	b, err := newBox(spec, d.groups, &d.users)
	if err == nil {
		b.key = key
	}
	return b, err
}
