package compute_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
)

// one is a desk with one job, and the attempt of it.
type one struct {
	*computetest.Run
	spec  redoubt.SubmitJob
	given bool
	ended chan redoubt.JobExit
}

func (o *one) Job() redoubt.Job {
	j := o.Run.Job()
	j.Spec = o.spec
	return j
}

func (o *one) NextJob(ctx context.Context, _ func(string, redoubt.SubmitJob) bool) (redoubt.JobRun, error) {
	if !o.given {
		o.given = true
		return o, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (o *one) Retry() {}

func (o *one) Finish(_ context.Context, x redoubt.JobExit) error {
	o.ended <- x
	return nil
}

// idle runs nothing, and well.
type idle struct{ far bool }

func (idle) Run(context.Context, compute.Task) (compute.Exit, error) { return compute.Exit{}, nil }
func (idle) Available() error                                        { return nil }
func (idle) Close() error                                            { return nil }
func (d idle) Remote() bool                                          { return d.far }

var _ io.Closer = idle{}

func TestThisMachinesMemoryBoundsWhatRunsOnIt(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a machine's memory is known of Linux")
	}
	for far, code := range map[bool]int{false: -1, true: 0} {
		ctx, cancel := context.WithCancel(t.Context())
		o := &one{Run: computetest.NewRun(nil), ended: make(chan redoubt.JobExit, 1)}
		o.spec = redoubt.SubmitJob{Driver: "idle", Limits: redoubt.JobLimits{Memory: 1 << 50}}
		e := compute.NewEngine(compute.Options{Desk: o, Drivers: map[string]compute.Driver{"idle": idle{far}}})
		gone := make(chan struct{})
		go func() { defer close(gone); e.Run(ctx) }()
		if x := <-o.ended; x.Code != code || code != 0 && !strings.Contains(x.Why, "this machine has") {
			t.Errorf("elsewhere is %v: got %+v", far, x)
		}
		cancel()
		<-gone
	}
}

// ending is a driver whose program is being ended when it has run.
type ending struct {
	idle
	gone chan struct{}
}

func (d ending) Run(context.Context, compute.Task) (compute.Exit, error) {
	return compute.Exit{Gone: d.gone}, nil
}

// asked is a desk that hears whether one more would be accepted.
type asked struct {
	one
	accept  func(string, redoubt.SubmitJob) bool
	retried chan struct{}
}

func (a *asked) NextJob(ctx context.Context, accept func(string, redoubt.SubmitJob) bool) (redoubt.JobRun, error) {
	a.accept = accept
	return a.one.NextJob(ctx, accept)
}

func (a *asked) Retry() { close(a.retried) }

// TestAJobHasItsSlotUntilNothingOfItRuns, and is told as ended before.
func TestAJobHasItsSlotUntilNothingOfItRuns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := ending{gone: make(chan struct{})}
	o := &asked{one: one{Run: computetest.NewRun(nil), ended: make(chan redoubt.JobExit, 1), spec: redoubt.SubmitJob{Driver: "ending"}}, retried: make(chan struct{})}
	e := compute.NewEngine(compute.Options{Desk: o, Drivers: map[string]compute.Driver{"ending": d}, Slots: 1})
	var closed atomic.Bool
	over := make(chan bool)
	go func() { e.Run(ctx); over <- closed.Load() }()
	if x := <-o.ended; x.Code != 0 {
		t.Errorf("got %+v", x)
	}
	lane := o.Run.Lane()
	if o.accept(lane, o.spec) {
		t.Error("another has its slot while something of it runs")
	}
	cancel()
	closed.Store(true)
	close(d.gone)
	if !<-over {
		t.Error("the engine has ended before what it ran")
	}
	<-o.retried
	if !o.accept(lane, o.spec) {
		t.Error("its slot is taken when nothing of it runs")
	}
}

// walled is a driver that finds no walls here.
type walled struct{ idle }

func (walled) Available() error {
	return &redoubt.Error{Op: "sandbox", Kind: redoubt.Unavailable, Err: errors.New("no landlock")}
}

func TestWhyADriverCannotRunIsForWhoRunsTheMachine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	o := &one{Run: computetest.NewRun(nil), ended: make(chan redoubt.JobExit, 1)}
	o.spec = redoubt.SubmitJob{Driver: "walled"}
	e := compute.NewEngine(compute.Options{Desk: o, Drivers: map[string]compute.Driver{"walled": walled{}}, Log: slog.New(slog.NewJSONHandler(&log, nil))})
	gone := make(chan struct{})
	go func() { defer close(gone); e.Run(ctx) }()
	if x := <-o.ended; x.Code != -1 || !strings.Contains(x.Why, "cannot run here") || strings.Contains(x.Why, "landlock") {
		t.Errorf("got %+v", x)
	}
	cancel()
	<-gone
	if !strings.Contains(log.String(), "no landlock") {
		t.Errorf("the log says %s", log.String())
	}
}
