package compute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/faketime"
	"redoubt/label"
)

// desk lets every call in, at a label that stands in the credential.
type desk struct {
	mu       sync.Mutex
	spec     redoubt.ServiceSpec
	rev      int
	deployed int // anew, under the same name
	runs     []*deskRun
}

func (d *desk) deployAnew() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deployed++
	d.rev = 1
}

func (d *desk) deploy(change func(*redoubt.ServiceSpec)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.spec)
	d.rev++
}

func (d *desk) CallService(_ context.Context, who redoubt.Credential, name redoubt.ServiceName) (redoubt.ServiceCall, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name[0] != 's' {
		return redoubt.ServiceCall{}, redoubt.NotFound
	}
	return redoubt.ServiceCall{Service: redoubt.Service{Name: name, Label: "UNCLASSIFIED", Revision: d.rev, Spec: d.spec}, At: who.Working, Key: fmt.Sprint(name, who.Working.Banner(), d.deployed),
		Begin: func() redoubt.JobRun { return d.begin() }}, nil
}

// begin gives what an instance runs on. d.runs has it until it has ended.
func (d *desk) begin() redoubt.JobRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &deskRun{d: d, canceled: make(chan struct{})}
	d.runs = append(d.runs, r)
	return r
}

type deskRun struct {
	redoubt.JobRun
	d        *desk
	canceled chan struct{}
}

func (r *deskRun) Canceled() <-chan struct{} { return r.canceled }

func (r *deskRun) Finish(context.Context, redoubt.JobExit) error {
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	r.d.runs = slices.DeleteFunc(r.d.runs, func(x *deskRun) bool { return x == r })
	return nil
}

func (d *desk) running() []*deskRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.runs)
}

// fakeDriver begins instances that say which they are.
type fakeDriver struct {
	Driver
	mu     sync.Mutex
	begun  int
	alive  atomic.Int64
	fail   error
	atOnce int
	before func(ctx context.Context, n int) error // nth that is begun
	n      int
}

func (f *fakeDriver) Available() error { return nil }
func (f *fakeDriver) AtOnce() int      { return max(f.atOnce, 1) }

func (f *fakeDriver) Begin(ctx context.Context, s Service) (Instance, error) {
	f.mu.Lock()
	f.n++
	n, before := f.n, f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, n); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	f.begun++
	f.alive.Add(1)
	fmt.Fprintf(s.Log, "begun %d at %s\n", f.begun, s.At)
	return &fakeInstance{of: f, says: fmt.Sprintf("%d of %s at %s", f.begun, s.Spec.Args, s.At), ended: make(chan struct{})}, nil
}

type fakeInstance struct {
	of    *fakeDriver
	says  string
	once  sync.Once
	ended chan struct{}
}

func (i *fakeInstance) Call(w http.ResponseWriter, r *http.Request) error {
	select {
	case <-i.ended:
		return ErrInstanceGone
	default:
	}
	switch r.URL.Query().Get("do") {
	case "gone":
		return ErrInstanceGone
	case "slow":
		time.Sleep(time.Minute)
	case "abort":
		panic(http.ErrAbortHandler)
	case "die":
		i.Close()
		return errors.New("it died")
	}
	_, err := io.WriteString(w, i.says)
	return err
}

func (i *fakeInstance) Ended() <-chan struct{} { return i.ended }
func (i *fakeInstance) Close() {
	i.once.Do(func() { i.of.alive.Add(-1); close(i.ended) })
}

type host struct {
	*Services
	t *testing.T
	d *desk
	f *fakeDriver
}

func newHost(t *testing.T, change func(*redoubt.ServiceSpec)) *host {
	h := &host{t: t, d: new(desk), f: new(fakeDriver)}
	h.d.deploy(func(q *redoubt.ServiceSpec) {
		q.Module, q.Args, q.Most, q.Idle, q.Seconds = "m", []string{"one"}, 2, 60, 600
		if change != nil {
			change(q)
		}
	})
	h.Services = NewServices(h.d, map[string]Driver{DriverWasm: h.f}, nil)
	return h
}

func at(t *testing.T, marking string) redoubt.Credential {
	p, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Parse(marking)
	if err != nil {
		t.Fatal(err)
	}
	return redoubt.Credential{ID: "X", Subject: "ada", Working: l}
}

func (h *host) call(marking, query string) (string, error) {
	w := httptest.NewRecorder()
	err := h.Serve(w, httptest.NewRequest("GET", "/svc/s/?"+query, nil), at(h.t, marking), "s")
	if err == nil && w.Header().Get("Redoubt-Label") != marking {
		h.t.Errorf("the answer says it is %q, want %q", w.Header().Get("Redoubt-Label"), marking)
	}
	return w.Body.String(), err
}

func (h *host) says(marking, want string) {
	h.t.Helper()
	if got, err := h.call(marking, ""); err != nil || got != want {
		h.t.Errorf("got %q %v, want %q", got, err, want)
	}
}

func TestEachLabelHasInstancesOfItsOwn(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		defer h.Close()
		h.says("UNCLASSIFIED", "1 of [one] at UNCLASSIFIED")
		h.says("SECRET", "2 of [one] at SECRET")
		h.says("UNCLASSIFIED", "1 of [one] at UNCLASSIFIED")
		of := redoubt.Service{Name: "s", Label: "UNCLASSIFIED"}
		low, high := at(t, "UNCLASSIFIED").Working, at(t, "SECRET").Working
		if all := h.Running(of, low); len(all) != 1 || all[0].Label != "UNCLASSIFIED" || all[0].Requests != 2 {
			t.Errorf("from below: %+v", all)
		}
		if all := h.Running(of, high); len(all) != 2 {
			t.Errorf("from above: %+v", all)
		}
		if text := string(h.Log(of, low)); strings.Contains(text, "SECRET") || !strings.Contains(text, "begun 1") {
			t.Errorf("the log from below: %q", text)
		}
	})
}

func TestIdleInstancesEndAndComeBack(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		defer h.Close()
		h.says("SECRET", "1 of [one] at SECRET")
		time.Sleep(59 * time.Second)
		h.says("SECRET", "1 of [one] at SECRET")
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if n := h.f.alive.Load(); n != 0 {
			t.Errorf("%d instances are idle and run", n)
		}
		h.says("SECRET", "2 of [one] at SECRET")
	})
}

func TestInstancesGrowToTheirBound(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		defer h.Close()
		var wg sync.WaitGroup
		began := time.Now()
		for range 6 {
			wg.Go(func() {
				if _, err := h.call("SECRET", "do=slow"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := h.f.begun; n != 2 {
			t.Errorf("%d instances were begun, want 2", n)
		}
		if took := time.Since(began); took != 3*time.Minute {
			t.Errorf("six calls of a minute took %v on two instances", took)
		}
	})
}

func TestAnInstanceThatDiesIsReplaced(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		defer h.Close()
		if _, err := h.call("SECRET", "do=die"); err == nil {
			t.Error("the call that it died of was answered")
		}
		synctest.Wait()
		h.says("SECRET", "2 of [one] at SECRET")
	})
}

func TestANewRevisionTakesOverAndAnsweredCallsEnd(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, func(q *redoubt.ServiceSpec) { q.Most, q.Idle = 3, 3600 })
		defer h.Close()
		slow := make(chan string)
		go func() {
			got, _ := h.call("SECRET", "do=slow")
			slow <- got
		}()
		synctest.Wait()
		h.d.deploy(func(q *redoubt.ServiceSpec) { q.Args = []string{"two"} })
		h.says("SECRET", "2 of [two] at SECRET")
		if got := <-slow; got != "1 of [one] at SECRET" {
			t.Errorf("the call that was under way got %q", got)
		}
		synctest.Wait()
		if n := h.f.alive.Load(); n != 1 {
			t.Errorf("%d instances run, want the new one alone", n)
		}
		// One that cannot be begun leaves the old one serving.
		h.f.mu.Lock()
		h.f.fail = &redoubt.Error{Kind: redoubt.Invalid, Hint: "it is no module"}
		h.f.mu.Unlock()
		h.d.deploy(func(q *redoubt.ServiceSpec) { q.Args = []string{"three"} })
		h.says("SECRET", "2 of [two] at SECRET")
		synctest.Wait()
		h.says("SECRET", "2 of [two] at SECRET")
		if all := h.Running(redoubt.Service{Name: "s", Label: "UNCLASSIFIED"}, at(t, "SECRET").Working); len(all) != 1 || all[0].State != "failed" || !strings.Contains(all[0].Fault, "no module") {
			t.Errorf("it tells %+v", all)
		}
		h.f.mu.Lock()
		h.f.fail = nil
		h.f.mu.Unlock()
		time.Sleep(time.Second)
		h.d.deploy(func(q *redoubt.ServiceSpec) { q.Args = []string{"four"} })
		h.says("SECRET", "2 of [two] at SECRET") // it serves while the new one begins
		synctest.Wait()
		h.says("SECRET", "3 of [four] at SECRET")
	})
}

func TestAServiceThatCannotBeginIsTriedAgainSlowly(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		defer h.Close()
		h.f.fail = &redoubt.Error{Kind: redoubt.Invalid, Hint: "it is no module"}
		for range 5 {
			if _, err := h.call("SECRET", ""); !errors.Is(err, redoubt.Unavailable) || !strings.Contains(err.Error()+hintOf(err), "no module") {
				t.Fatalf("got %v", err)
			}
		}
		h.f.mu.Lock()
		h.f.fail = nil
		h.f.mu.Unlock()
		time.Sleep(time.Minute)
		h.says("SECRET", "1 of [one] at SECRET")
	})
}

func hintOf(err error) string {
	var e *redoubt.Error
	errors.As(err, &e)
	return e.Hint
}

func TestNothingRunsAfterClose(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		h.says("SECRET", "1 of [one] at SECRET")
		h.Close()
		if n := h.f.alive.Load(); n != 0 {
			t.Errorf("%d instances run", n)
		}
		if _, err := h.call("SECRET", ""); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// TestAnotherDeploymentEndsTheInstancesOfTheOneBefore: at once, but for what is being answered; and nothing of it is shown.
func TestAnotherDeploymentEndsTheInstancesOfTheOneBefore(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, func(q *redoubt.ServiceSpec) { q.Idle = 3600 })
		defer h.Close()
		slow := make(chan string)
		go func() {
			got, _ := h.call("SECRET", "do=slow")
			slow <- got
		}()
		synctest.Wait()
		h.says("SECRET", "2 of [one] at SECRET")
		h.says("UNCLASSIFIED", "3 of [one] at UNCLASSIFIED")
		h.d.deployAnew()
		h.says("SECRET", "4 of [one] at SECRET")
		synctest.Wait()
		if n := h.f.alive.Load(); n != 3 {
			t.Errorf("%d instances run, want the new one, the one that answers, and the one of another label", n)
		}
		of, at := redoubt.Service{Name: "s", Label: "UNCLASSIFIED"}, at(t, "SECRET").Working
		for _, i := range h.Running(of, at) {
			if i.Label == "SECRET" && i.Requests != 1 {
				t.Errorf("what was before is shown: %+v", i)
			}
		}
		if text := string(h.Log(of, at)); strings.Contains(text, "begun 1 ") || !strings.Contains(text, "begun 4 ") {
			t.Errorf("the log is %q", text)
		}
		if got := <-slow; got != "1 of [one] at SECRET" {
			t.Errorf("the call that was under way got %q", got)
		}
		synctest.Wait()
		if n := h.f.alive.Load(); n != 2 {
			t.Errorf("%d instances run, want the new one and the one of another label", n)
		}
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if n := h.f.alive.Load(); n != 0 {
			t.Errorf("%d instances run after their idle time", n)
		}
	})
}

// TestPoolsDoNotPileUp: services come and go under new names; what they leave is bounded, of one label at the cost of that label alone, and goes.
func TestPoolsDoNotPileUp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, func(q *redoubt.ServiceSpec) { q.Idle = 1 })
		defer h.Close()
		h.says("UNCLASSIFIED", "1 of [one] at UNCLASSIFIED")
		for i := range 3 * emptyPools {
			if err := h.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), at(t, "SECRET"), redoubt.ServiceName(fmt.Sprint("s", i))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		pools := func() int {
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.pools)
		}
		if n := pools(); n > emptyPools+1 {
			t.Errorf("%d pools are kept, want %d of one label", n, emptyPools)
		}
		if len(h.Log(redoubt.Service{Name: "s", Label: "UNCLASSIFIED"}, at(t, "UNCLASSIFIED").Working)) == 0 {
			t.Error("what another label did cost this one its log")
		}
		time.Sleep(2 * poolKept)
		synctest.Wait()
		if n := pools(); n != 0 {
			t.Errorf("%d pools are kept though nobody has called them for %s", n, 2*poolKept)
		}
		h.says("UNCLASSIFIED", fmt.Sprintf("%d of [one] at UNCLASSIFIED", 3*emptyPools+2))
	})
}

// TestOneThatFailsBesideOneThatBeginsHarmsNobody: who waits for either is answered, and nobody spins until the time of the fault is over.
func TestOneThatFailsBesideOneThatBeginsHarmsNobody(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		defer h.Close()
		h.f.before = func(_ context.Context, n int) error {
			time.Sleep(time.Duration(n) * 50 * time.Millisecond)
			if n == 1 {
				return &redoubt.Error{Kind: redoubt.Internal}
			}
			return nil
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := h.call("SECRET", ""); err != nil {
					t.Errorf("beside one that failed: %v", err)
				}
			})
		}
		wg.Wait()
		if _, err := h.call("SECRET", "do=die"); err == nil {
			t.Error("the call that it died of was answered")
		}
		synctest.Wait()
		if _, err := h.call("SECRET", ""); err != nil {
			t.Errorf("after it died: %v", err)
		}
	})
}

// TestInstancesThatEndAtOnceAreNotBegunForEver for one request.
func TestInstancesThatEndAtOnceAreNotBegunForEver(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		defer h.Close()
		if _, err := h.call("SECRET", "do=gone"); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("got %v", err)
		}
		if h.f.begun != maxTries {
			t.Errorf("%d were begun", h.f.begun)
		}
	})
}

// TestCloseEndsWhatBegins, and refuses who waits for it.
func TestCloseEndsWhatBegins(t *testing.T) {
	for name, before := range map[string]func(context.Context, int) error{
		"it gives up": func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() },
		"it does not": func(context.Context, int) error { time.Sleep(time.Minute); return nil },
	} {
		faketime.Test(t, func(t *testing.T) {
			h := newHost(t, nil)
			h.f.before = before
			waits := make(chan error, 1)
			go func() {
				_, err := h.call("SECRET", "")
				waits <- err
			}()
			synctest.Wait()
			began := time.Now()
			h.Close()
			if n, took := h.f.alive.Load(), time.Since(began); n != 0 || took > time.Minute {
				t.Errorf("%s: %d instances run; it took %v", name, n, took)
			}
			if err := <-waits; !errors.Is(err, redoubt.Unavailable) {
				t.Errorf("%s: who waited got %v", name, err)
			}
		})
	}
}

// TestAnInstanceWhoseReadingWasTakenOutEnds: nothing that it knows is answered any more, and what it wrote is gone.
func TestAnInstanceWhoseReadingWasTakenOutEnds(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := newHost(t, nil)
		h.says("UNCLASSIFIED", "1 of [one] at UNCLASSIFIED")
		of, low := redoubt.Service{Name: "s", Label: "UNCLASSIFIED"}, at(t, "UNCLASSIFIED").Working
		runs := h.d.running()
		if len(runs) != 1 || len(h.Log(of, low)) == 0 {
			t.Fatalf("%d are known to run, and have written %q", len(runs), h.Log(of, low))
		}
		close(runs[0].canceled)
		synctest.Wait()
		if n, text := h.d.running(), h.Log(of, low); len(n) > 0 || len(text) > 0 || h.f.alive.Load() > 0 {
			t.Errorf("%d are known to run, %d do, and have written %q", len(n), h.f.alive.Load(), text)
		}
		h.says("UNCLASSIFIED", "2 of [one] at UNCLASSIFIED")
		h.Close()
		if n := len(h.d.running()); n > 0 {
			t.Errorf("%d that have ended are still known", n)
		}
	})
}

// TestACallThatBreaksOffGivesItsInstanceBack: a caller that goes in mid-answer ends the handler by a panic.
func TestACallThatBreaksOffGivesItsInstanceBack(t *testing.T) {
	h := newHost(t, func(q *redoubt.ServiceSpec) { q.Most = 1 })
	h.f.atOnce = 2
	defer h.Close()
	for range 5 {
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("got %v, want the server to be told", p)
				}
			}()
			_, _ = h.call("SECRET", "do=abort")
		}()
	}
	h.says("SECRET", "1 of [one] at SECRET")
}
