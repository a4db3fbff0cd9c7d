package compute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

// Services has the services of a node run: it begins instances as they are called, each for one label, and ends those that are idle.
type Services struct {
	desk    redoubt.ServiceDesk
	drivers map[string]Driver
	log     *slog.Logger

	mu     sync.Mutex
	closed bool
	pools  map[string]*pool
	ended  sync.WaitGroup // instances being closed
}

// NewServices makes a host that runs nothing until it is called.
func NewServices(desk redoubt.ServiceDesk, drivers map[string]Driver, log *slog.Logger) *Services {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Services{desk: desk, drivers: drivers, log: log, pools: map[string]*pool{}}
}

// pool is what runs of one service at one label.
type pool struct {
	name  redoubt.ServiceName
	of    string // banner of the service's own label
	at    label.Label
	since time.Time
	log   ring

	mu       sync.Mutex
	wake     chan struct{} // closed and replaced when an instance is free, begun or gone
	revision int
	all      []*running
	starting int
	waiting  int
	requests int64
	failed   int64
	fault    string
	faults   int       // in a row
	after    time.Time // of the last fault: not before it is another begun
	bad      int       // the newest revision that could not be begun
}

// running is one instance.
type running struct {
	Instance
	revision int
	atOnce   int
	calls    int // under way
	idle     *time.Timer
	gone     bool
}

const maxBackoff = 30 * time.Second

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
	for {
		x, err := s.take(ctx, p, call, spec)
		if err != nil {
			return err
		}
		err = x.Call(w, r)
		s.give(p, x, err, time.Duration(spec.Idle)*time.Second)
		if redoubt.KindOf(err) == redoubt.Unavailable && err != nil && ctx.Err() == nil {
			continue // it had ended before it was asked
		}
		return err
	}
}

func (s *Services) pool(call redoubt.ServiceCall) (*pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, &redoubt.Error{Op: "Serve", Kind: redoubt.Unavailable}
	}
	p := s.pools[call.Key]
	if p == nil {
		p = &pool{name: call.Service.Name, of: call.Service.Label, at: call.At, since: time.Now().UTC(), wake: make(chan struct{})}
		s.pools[call.Key] = p
	}
	return p, nil
}

// news tells those that wait for an instance to look again. p.mu is held.
func (p *pool) news() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// take gives an instance that can answer: one of the newest revision that can be begun.
func (s *Services) take(ctx context.Context, p *pool, call redoubt.ServiceCall, spec redoubt.ServiceSpec) (*running, error) {
	p.mu.Lock()
	p.requests++
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
			p.starting++ // behind the one that serves meanwhile
			go s.begin(p, call, spec)
		}
		if x := p.free(); x != nil {
			return x, nil
		}
		wait := time.Until(p.after)
		switch room := p.count(call.Service.Revision)+p.starting < spec.Most; {
		case p.faults > 0 && wait > 0 && len(p.all) == 0:
			p.failed++
			return nil, p.faulty(wait)
		case room && p.bad < call.Service.Revision && p.starting < p.waiting && wait <= 0:
			p.starting++
			go s.begin(p, call, spec)
		case len(p.all) == 0 && p.starting == 0:
			p.bad = 0 // it is tried once more
			continue
		}
		wake := p.wake
		p.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if ctx.Err() != nil {
			p.failed++
			return nil, &redoubt.Error{Op: "Serve", Object: string(p.name), Kind: redoubt.Unavailable, Hint: "no instance was free in time"}
		}
	}
}

// faulty is the answer while nothing can be begun.
func (p *pool) faulty(wait time.Duration) error {
	return &redoubt.Error{Op: "Serve", Object: string(p.name), Kind: redoubt.Unavailable, Hint: fmt.Sprintf("it cannot be begun, and is tried again in %s: %s", wait.Round(time.Second), p.fault)}
}

// count counts the instances of a revision.
func (p *pool) count(revision int) (n int) {
	for _, x := range p.all {
		if x.revision == revision {
			n++
		}
	}
	return n
}

// newest is the newest revision that there is an instance of; 0: there is none. p.mu is held.
func (p *pool) newest() (n int) {
	for _, x := range p.all {
		n = max(n, x.revision)
	}
	return n
}

// free takes an instance that has room, of the newest revision there is one of. p.mu is held.
func (p *pool) free() *running {
	newest := p.newest()
	for _, x := range p.all {
		if x.revision == newest && x.calls < x.atOnce {
			x.calls++
			x.idle.Stop()
			return x
		}
	}
	return nil
}

// begin begins an instance.
func (s *Services) begin(p *pool, call redoubt.ServiceCall, spec redoubt.ServiceSpec) {
	d, err := s.driver(spec)
	var i Instance
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		i, err = d.Begin(ctx, Service{JobRun: call.Begin(), Spec: spec, Limits: limits(spec.Limits), Timeout: time.Duration(spec.Seconds) * time.Second, At: call.At.Banner(), Log: &p.log})
		cancel()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.news()
	p.starting--
	if err != nil {
		p.fault, p.faults = told(err), p.faults+1
		p.after = time.Now().Add(min(time.Second<<min(p.faults-1, 10), maxBackoff))
		if redoubt.KindOf(err) != redoubt.Invalid {
			s.log.Error("an instance of a service did not begin", slog.String("service", string(p.name)), slog.String("kind", redoubt.KindOf(err).Error()))
		}
		if len(p.all) > 0 {
			p.bad = call.Service.Revision // the revision before it serves on
		}
		return
	}
	p.fault, p.faults = "", 0
	x := &running{Instance: i, revision: call.Service.Revision, atOnce: d.AtOnce()}
	x.idle = time.AfterFunc(time.Duration(spec.Idle)*time.Second, func() { s.retire(p, x, true) })
	p.all = append(p.all, x)
	for _, old := range slices.Clone(p.all) { // what is older ends as it becomes free
		if old.revision < x.revision && old.calls == 0 {
			s.drop(p, old)
		}
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		s.drop(p, x)
		return
	}
	go func() {
		<-x.Ended()
		s.retire(p, x, false)
	}()
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
		return nil, bad(fmt.Sprintf("the driver %q cannot run on this machine: redoubt doctor tells what is missing", name))
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
	case x.calls == 0 && x.revision < p.newest():
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
	s.ended.Go(x.Close)
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
		if p.name == of.Name && p.of == of.Label && at.Dominates(p.at) {
			all = append(all, p)
		}
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

// Close ends every instance. Requests must have ended.
func (s *Services) Close() error {
	s.mu.Lock()
	s.closed = true
	pools := s.pools
	s.mu.Unlock()
	for _, p := range pools {
		p.mu.Lock()
		for _, x := range slices.Clone(p.all) {
			s.drop(p, x)
		}
		p.mu.Unlock()
	}
	s.ended.Wait()
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

// ring keeps the end of what is written to it.
type ring struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, p...)
	if over := len(r.text) - redoubt.MaxServiceLogBytes; over > redoubt.MaxServiceLogBytes/4 {
		r.text = append(r.text[:0:0], r.text[over:]...)
	}
	return len(p), nil
}

func (r *ring) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.text[max(0, len(r.text)-redoubt.MaxServiceLogBytes):])
}

// ErrInstanceGone is an instance that had ended before it was asked.
var ErrInstanceGone = &redoubt.Error{Op: "Call", Kind: redoubt.Unavailable, Err: errors.New("the instance has ended")}
