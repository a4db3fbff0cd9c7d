package compute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"redoubt"
	"redoubt/label"
)

// Instance is what runs of a service, for one label. It is begun by a ServiceDriver and ended by Close.
type Instance interface {
	// Call answers one request. An error was not answered yet: Unavailable, another instance may answer it; TooLarge, Expired and others are the
	// caller's to be told. After an error of no kind the instance is good for nothing.
	Call(w http.ResponseWriter, r *http.Request) error
	// Ended is closed when it runs no more.
	Ended() <-chan struct{}
	Close()
}

// Service is what an instance is begun for.
type Service struct {
	redoubt.JobRun                     // inputs and program
	Spec           redoubt.ServiceSpec // with the defaults filled in
	Limits         redoubt.JobLimits
	Timeout        time.Duration // of a request
	At             string        // banner of the label that it serves
	Log            io.Writer     // what it writes that is no answer
}

// ServiceDriver is a Driver that runs services too.
type ServiceDriver interface {
	Driver
	// Begin begins an instance, and returns when it can answer. What is the service's own fault is an error of kind Invalid, whose Hint says why.
	Begin(ctx context.Context, s Service) (Instance, error)
	// AtOnce is how many requests one instance answers at once.
	AtOnce() int
}

// Services has the services of a node run: it begins instances as they are called, each for one label, and ends those that are idle, and those of a
// deployment whose name another one has got. Its lock is taken before that of a pool.
type Services struct {
	desk    redoubt.ServiceDesk
	drivers map[string]Driver
	log     *slog.Logger

	mu     sync.Mutex
	closed bool
	pools  map[string]*pool

	work sync.WaitGroup // instances that begin or are being closed; none is added to a pool that is closed
	ctx  context.Context
	stop context.CancelFunc
}

// NewServices makes a host that runs nothing until it is called.
func NewServices(desk redoubt.ServiceDesk, drivers map[string]Driver, log *slog.Logger) *Services {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Services{desk: desk, drivers: drivers, log: log, pools: map[string]*pool{}, ctx: ctx, stop: stop}
}

// Serve answers one request.
func (s *Services) Serve(w http.ResponseWriter, r *http.Request, who redoubt.Credential, name redoubt.ServiceName) error {
	call, err := s.desk.CallService(r.Context(), who, name)
	if err != nil {
		return err
	}
	p, err := s.pool(call)
	if err != nil {
		return err
	}
	spec := defaults(call.Service.Spec)
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(spec.Seconds)*time.Second)
	defer cancel()
	r = r.WithContext(ctx)
	w.Header().Set(redoubt.ServiceLabelHeader, call.At.Banner())
	r.Header.Set(redoubt.ServiceSubjectHeader, string(who.Subject))
	for try := 1; ; try++ {
		x, err := s.take(ctx, p, call, spec)
		if err != nil {
			return err
		}
		err = x.Call(w, r)
		s.give(p, x, err, time.Duration(spec.Idle)*time.Second)
		if redoubt.KindOf(err) == redoubt.Unavailable && err != nil && ctx.Err() == nil && try < maxTries {
			s.retire(p, x, false) // it had ended before it was asked
			continue
		}
		return err
	}
}

// maxTries is how many instances are asked at most, should each have ended before.
const maxTries = 3

// pool gives the pool of a call, and has those of another deployment of the same name, label and At end.
func (s *Services) pool(call redoubt.ServiceCall) (*pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, &redoubt.Error{Op: "Serve", Kind: redoubt.Unavailable}
	}
	p, now := s.pools[call.Key], time.Now()
	if p != nil {
		p.mu.Lock()
		again := p.replaced
		p.called, p.replaced = now, false
		p.mu.Unlock()
		if !again {
			return p, nil
		}
	} else {
		s.makeRoom(call.At)
		p = &pool{name: call.Service.Name, by: call.Service.By, of: call.Service.Label, at: call.At, since: now.UTC(), called: now, wake: make(chan struct{})}
		p.forget = time.AfterFunc(poolKept, func() { s.forget(call.Key, p) })
		s.pools[call.Key] = p
	}
	for _, old := range s.pools {
		if old != p && old.name == p.name && old.of == p.of && old.at.Banner() == p.at.Banner() {
			s.replace(old)
		}
	}
	return p, nil
}

// replace ends what is free of a pool; the rest ends as it becomes free.
func (s *Services) replace(p *pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replaced = true
	for _, x := range slices.Clone(p.all) {
		if x.calls == 0 {
			s.drop(p, x)
		}
	}
}

// makeRoom forgets pools of a label in which nothing runs, those that were not called for longest, until there may be one more. Those of other labels
// do not count: what is done at one label is not seen at another. s.mu is held.
func (s *Services) makeRoom(at label.Label) {
	type idle struct {
		key    string
		called time.Time
	}
	var all []idle
	for key, p := range s.pools {
		p.mu.Lock()
		if p.at.Banner() == at.Banner() && p.empty() {
			all = append(all, idle{key, p.called})
		}
		p.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b idle) int { return a.called.Compare(b.called) })
	for _, i := range all[:max(0, len(all)+1-emptyPools)] {
		p := s.pools[i.key]
		p.mu.Lock()
		if p.empty() { // a call that has just found it is refused
			p.closed = true
			p.forget.Stop()
			delete(s.pools, i.key)
		}
		p.mu.Unlock()
	}
}

// forget removes a pool in which nothing runs and that was not called for poolKept.
func (s *Services) forget(key string, p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case s.closed || s.pools[key] != p:
	case p.empty() && time.Since(p.called) >= poolKept:
		p.closed = true
		delete(s.pools, key)
	default:
		p.forget.Reset(poolKept)
	}
}

// take gives an instance that can answer: one of the newest revision that can be begun.
func (s *Services) take(ctx context.Context, p *pool, call redoubt.ServiceCall, spec redoubt.ServiceSpec) (*running, error) {
	p.mu.Lock()
	p.requests++
	if p.closed {
		p.failed++
		p.mu.Unlock()
		return nil, &redoubt.Error{Op: "Serve", Object: string(p.name), Kind: redoubt.Unavailable}
	}
	if p.waiting >= redoubt.MaxServiceWaiting {
		p.failed++
		p.mu.Unlock()
		return nil, &redoubt.Error{Op: "Serve", Object: string(p.name), Kind: redoubt.QuotaExceeded, Hint: fmt.Sprintf("%d requests wait for it already", redoubt.MaxServiceWaiting)}
	}
	p.waiting++
	p.revision = max(p.revision, call.Service.Revision)
	defer func() {
		p.waiting--
		p.mu.Unlock()
	}()
	for {
		if n := p.newest(); n > 0 && n < call.Service.Revision && p.starting == 0 && p.bad < call.Service.Revision && !time.Now().Before(p.after) {
			s.start(p, call, spec) // behind the one that serves meanwhile
		}
		if x := p.free(); x != nil {
			return x, nil
		}
		wait := time.Until(p.after)
		switch room := p.count(call.Service.Revision)+p.starting < spec.Most; {
		case wait > 0 && len(p.all) == 0 && p.starting == 0:
			p.failed++
			return nil, p.faulty(wait)
		case room && p.starting < p.waiting && wait <= 0 && (p.bad < call.Service.Revision || len(p.all) == 0):
			s.start(p, call, spec)
		}
		wake := p.wake
		p.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if ctx.Err() != nil || p.closed {
			p.failed++
			return nil, &redoubt.Error{Op: "Serve", Object: string(p.name), Kind: redoubt.Unavailable, Hint: "no instance was free in time"}
		}
	}
}

// start has an instance begin. p.mu is held, and p is not closed.
func (s *Services) start(p *pool, call redoubt.ServiceCall, spec redoubt.ServiceSpec) {
	p.starting++
	s.work.Go(func() { s.begin(p, call, spec) })
}

// begin begins an instance.
func (s *Services) begin(p *pool, call redoubt.ServiceCall, spec redoubt.ServiceSpec) {
	d, err := s.driver(spec)
	var i Instance
	var run redoubt.JobRun
	if err == nil {
		ctx, cancel := context.WithTimeout(s.ctx, 2*time.Minute)
		run = call.Begin()
		i, err = d.Begin(ctx, Service{JobRun: run, Spec: spec, Limits: limits(spec.Limits), Timeout: time.Duration(spec.Seconds) * time.Second, At: call.At.Banner(), Log: &p.log})
		cancel()
		if err != nil {
			s.ended(p, run)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.news()
	p.starting--
	if p.closed {
		if err == nil {
			s.work.Go(func() { // Close waits for this one, and so for that too
				i.Close()
				s.ended(p, run)
			})
		}
		return
	}
	if err != nil {
		p.fault, p.faults = told(err), p.faults+1
		p.after = time.Now().Add(min(time.Second<<min(p.faults-1, 10), maxBackoff))
		if redoubt.KindOf(err) != redoubt.Invalid {
			s.log.Error("an instance of a service did not begin", slog.String("service", string(p.name)), slog.String("kind", redoubt.KindOf(err).Error()))
		}
		if n := p.newest(); n > 0 && n < call.Service.Revision {
			p.bad = call.Service.Revision // the revision before it serves on
		}
		return
	}
	p.fault, p.faults, p.after = "", 0, time.Time{}
	x := &running{Instance: i, revision: call.Service.Revision, atOnce: d.AtOnce()}
	x.idle = time.AfterFunc(time.Duration(spec.Idle)*time.Second, func() { s.retire(p, x, true) })
	p.all = append(p.all, x)
	for _, old := range slices.Clone(p.all) { // what is older ends as it becomes free
		if old.revision < x.revision && old.calls == 0 {
			s.drop(p, old)
		}
	}
	s.work.Go(func() {
		select {
		case <-x.Ended():
		case <-run.Canceled():
			p.log.clear()
		}
		s.retire(p, x, false)
		<-x.Ended()
		s.ended(p, run)
	})
}

// ended says that an instance runs no more. What it wrote last is gone if what it had read was taken out.
func (s *Services) ended(p *pool, run redoubt.JobRun) {
	select {
	case <-run.Canceled():
		p.log.clear()
	default:
	}
	if err := run.Finish(context.Background(), redoubt.JobExit{}); err != nil {
		s.log.Error("an instance of a service did not end in order", slog.String("service", string(p.name)), slog.String("kind", redoubt.KindOf(err).Error()))
	}
}

func (s *Services) driver(spec redoubt.ServiceSpec) (ServiceDriver, error) {
	name := spec.Driver
	if name == "" {
		if name = DriverWasm; spec.Image != "" {
			name = DriverOCI
		}
	}
	bad := func(why string) error {
		return &redoubt.Error{Op: "Begin", Kind: redoubt.Invalid, Hint: why}
	}
	d := s.drivers[name]
	if d == nil {
		return nil, bad(fmt.Sprintf("this node has no driver %q: redoubt doctor tells which it has", name))
	}
	sd, ok := d.(ServiceDriver)
	if !ok {
		return nil, bad(fmt.Sprintf("the driver %q runs no services", name))
	}
	if err := d.Available(); err != nil {
		return nil, bad(cannotRun(s.log, name, err))
	}
	return sd, nil
}

// give gives an instance back after a call.
func (s *Services) give(p *pool, x *running, err error, idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.news()
	x.calls--
	if err != nil {
		p.failed++
	}
	switch {
	case x.gone:
	case x.calls == 0 && (p.replaced || x.revision < p.newest()):
		s.drop(p, x)
	case x.calls == 0:
		x.idle.Reset(idle)
	}
}

// retire ends an instance that is idle, or takes one out that has ended.
func (s *Services) retire(p *pool, x *running, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.gone || idle && x.calls > 0 {
		return
	}
	s.drop(p, x)
	p.news()
}

// drop takes an instance out and closes it. p.mu is held.
func (s *Services) drop(p *pool, x *running) {
	if x.gone {
		return
	}
	x.gone = true
	x.idle.Stop()
	p.all = slices.DeleteFunc(p.all, func(o *running) bool { return o == x })
	s.work.Go(x.Close)
}

// Running tells what runs of a service.
func (s *Services) Running(of redoubt.Service, at label.Label) (all []redoubt.ServiceInstance) {
	for _, p := range s.seen(of, at) {
		p.mu.Lock()
		i := redoubt.ServiceInstance{Label: p.at.Banner(), Revision: p.revision, State: "ready", Running: len(p.all), Requests: p.requests, Failed: p.failed, Fault: p.fault, Since: p.since}
		if p.fault != "" {
			i.State = "failed"
		}
		p.mu.Unlock()
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b redoubt.ServiceInstance) int {
		if a.Label < b.Label {
			return -1
		}
		return 1
	})
	return all
}

// seen are the pools of a service at labels that one dominates.
func (s *Services) seen(of redoubt.Service, at label.Label) (all []*pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		if p.name != of.Name || p.by != of.By || p.of != of.Label || !at.Dominates(p.at) {
			continue
		}
		p.mu.Lock()
		if !p.replaced {
			all = append(all, p)
		}
		p.mu.Unlock()
	}
	return all
}

// Log gives what a service's instances have written last.
func (s *Services) Log(of redoubt.Service, at label.Label) (text []byte) {
	for _, p := range s.seen(of, at) {
		text = append(text, p.log.bytes()...)
	}
	return text
}

// Close ends every instance, and what begins. A request that has none yet is refused; one that is being answered has its instance end.
func (s *Services) Close() error {
	s.mu.Lock()
	s.closed = true
	pools := slices.Collect(maps.Values(s.pools))
	s.mu.Unlock()
	s.stop()
	for _, p := range pools {
		p.mu.Lock()
		p.closed = true
		p.forget.Stop()
		for _, x := range slices.Clone(p.all) {
			s.drop(p, x)
		}
		p.news()
		p.mu.Unlock()
	}
	s.work.Wait()
	return nil
}

func defaults(q redoubt.ServiceSpec) redoubt.ServiceSpec {
	if q.Seconds == 0 {
		q.Seconds = int64(redoubt.DefaultServiceTime / time.Second)
	}
	if q.Idle == 0 {
		q.Idle = int64(redoubt.DefaultServiceIdle / time.Second)
	}
	if q.Most == 0 {
		q.Most = runtime.NumCPU()
	}
	if q.Port == 0 {
		q.Port = 8080
	}
	return q
}

// ErrInstanceGone is an instance that had ended before it was asked.
var ErrInstanceGone = &redoubt.Error{Op: "Call", Kind: redoubt.Unavailable, Err: errors.New("the instance has ended")}
