package compute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"redoubt"
)

// Options is what an engine is made from. Desk and Drivers are needed.
type Options struct {
	Desk    redoubt.JobDesk
	Drivers map[string]Driver // by name: "wasm" runs modules, "oci" images, and any that jobs may ask for
	Slots   int               // jobs at once of each MAX; 0: one for each processor
	Log     *slog.Logger
}

// The drivers that a job gets which asks for none.
const (
	DriverWasm = "wasm"
	DriverOCI  = "oci"
)

// Engine takes jobs and has them run. Each MAX has slots of its own, so that no job waits for those above it.
type Engine struct {
	o    Options
	mu   sync.Mutex
	busy map[string]int // by lane

	lacks sync.Map // driver -> why it cannot run, as the log has it
}

// NewEngine makes an engine that runs nothing until Run.
func NewEngine(o Options) *Engine {
	if o.Slots <= 0 {
		o.Slots = runtime.NumCPU()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{o: o, busy: map[string]int{}}
}

// Run takes jobs until ctx ends. What runs then is handed back, to be begun anew when an engine runs again; nothing of it runs when Run has returned.
func (e *Engine) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		r, err := e.o.Desk.NextJob(ctx, e.accept)
		if ctx.Err() != nil {
			if err == nil {
				e.finish(r, redoubt.JobExit{Code: -1, Retry: true})
			}
			return
		}
		if err != nil {
			e.o.Log.Error("no job could be begun", slog.String("kind", redoubt.KindOf(err).Error()))
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second): // the store may recover
			}
			continue
		}
		lane := r.Lane()
		e.count(lane, 1)
		running.Go(func() {
			defer func() {
				e.count(lane, -1)
				e.o.Desk.Retry()
			}()
			e.attempt(ctx, r)
		})
	}
}

func (e *Engine) accept(lane string, _ redoubt.SubmitJob) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.busy[lane] < e.o.Slots
}

func (e *Engine) count(lane string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[lane] += n; e.busy[lane] == 0 {
		delete(e.busy, lane)
	}
}

// attempt runs one to its end.
func (e *Engine) attempt(ctx context.Context, r redoubt.JobRun) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-r.Canceled():
			cancel()
		case <-stop:
		}
	}()
	x, gone := e.run(within, r)
	if ctx.Err() != nil && (x.Code != 0 || x.Retry) { // the node stops: that is nobody's fault
		x = redoubt.JobExit{Code: -1, Retry: true}
	}
	e.finish(r, x)
	if gone != nil { // it has its slot until then
		<-gone
	}
}

// finish tells the desk, also when the engine stops. What cannot be kept now may be a little later.
func (e *Engine) finish(r redoubt.JobRun, x redoubt.JobExit) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause *= 2 {
		err := r.Finish(ctx, x)
		if err == nil {
			return
		}
		select {
		case <-time.After(pause):
			if ctx.Err() == nil && pause < 30*time.Second {
				continue
			}
		case <-ctx.Done():
		}
		// The job is as it was: it begins anew when the node does.
		e.o.Log.Error("the end of a job could not be kept", slog.String("job", string(r.Job().ID)), slog.String("kind", redoubt.KindOf(err).Error()))
		return
	}
}

// cannotRun says that a driver cannot run where this node does. What is missing is for who runs the machine: doctor, run by hand, has not the walls that
// a service manager puts around a node, so the node's own log has it.
// It has it once, and not each time that somebody's job asks.
func cannotRun(log *slog.Logger, said *sync.Map, name string, why error) string {
	if last, ok := said.Swap(name, why.Error()); !ok || last != why.Error() {
		log.Warn("a driver cannot run here", slog.String("driver", name), slog.String("why", why.Error()))
	}
	return fmt.Sprintf("the driver %q cannot run here: the node's log tells what is missing, and redoubt doctor what the machine lacks", name)
}

// run finds the driver, and says what came of it, and where something of it runs yet, when that is gone.
func (e *Engine) run(ctx context.Context, r redoubt.JobRun) (x redoubt.JobExit, gone <-chan struct{}) {
	failed := func(why string) (redoubt.JobExit, <-chan struct{}) { return redoubt.JobExit{Code: -1, Why: why}, nil }
	q := r.Job().Spec
	name := q.Driver
	if name == "" {
		if name = DriverWasm; q.Image != "" {
			name = DriverOCI
		}
	}
	d := e.o.Drivers[name]
	if d == nil {
		return failed(fmt.Sprintf("this node has no driver %q: redoubt doctor tells which it has", name))
	}
	if err := d.Available(); err != nil {
		return failed(cannotRun(e.o.Log, &e.lacks, name, err))
	}
	l := limits(q.Limits)
	far, ok := d.(interface{ Remote() bool })
	here := !ok || !far.Remote()                                            // what runs on other machines is theirs to have room for
	if has := machineMemory(); here && has > 0 && l.Memory+l.Disk > has/2 { // what it writes lies in memory too, and others run beside it
		return failed(fmt.Sprintf("this machine has %d MiB for one job's memory and disk together: ask for less with --memory and --disk", has/2>>20))
	}
	ended, err := d.Run(ctx, Task{JobRun: r, Spec: q, Limits: l, Timeout: timeout(q.Seconds)})
	switch {
	case err == nil:
		return redoubt.JobExit{Code: ended.Code, Why: ended.Why}, ended.Gone
	case theirs(err):
		return failed("what it wrote cannot be kept: " + told(err))
	}
	e.o.Log.Error("a driver failed", slog.String("driver", name), slog.String("job", string(r.Job().ID)), slog.String("error", err.Error()))
	return redoubt.JobExit{Code: -1, Why: "the driver failed", Retry: true}, nil
}

// theirs says whether an error is about what the job wrote or may do, and not about the machine.
func theirs(err error) bool {
	switch redoubt.KindOf(err) {
	case redoubt.Denied, redoubt.Unauthenticated, redoubt.Expired, redoubt.Invalid, redoubt.TooLarge, redoubt.NoBucket, redoubt.QuotaExceeded, redoubt.DiskFull, redoubt.NotFound, redoubt.Locked:
		return true
	}
	return false
}

// told is what the submitter is told of an error.
func told(err error) string {
	var known *redoubt.Error
	if !errors.As(err, &known) {
		return redoubt.KindOf(err).Error()
	}
	text := known.Kind.Error()
	for _, more := range []string{known.Object, known.Rule, known.Hint} {
		if more != "" {
			text += ": " + more
		}
	}
	return text
}

func limits(l redoubt.JobLimits) redoubt.JobLimits {
	if l.Memory == 0 {
		l.Memory = redoubt.DefaultJobMemory
	}
	if l.Disk == 0 {
		l.Disk = redoubt.DefaultJobDisk
	}
	if l.CPUs == 0 {
		l.CPUs = 1
	}
	if l.Processes == 0 {
		l.Processes = 256
	}
	return l
}

func timeout(seconds int64) time.Duration {
	if seconds == 0 {
		return redoubt.DefaultJobTime
	}
	return time.Duration(seconds) * time.Second
}
