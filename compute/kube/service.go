package kube

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"redoubt"
	"redoubt/compute"
)

const (
	readyTime    = time.Minute            // until a program answers
	readyEvery   = 100 * time.Millisecond // it is asked
	againEvery   = time.Second            // a stream that broke is made anew
	streamWindow = 128 << 10              // bytes of an answer that wait for who asked
	silence      = 10 * time.Second       // until a keeper is asked whether it is there, and until it has to have answered
	inputsAge    = time.Hour              // an instance serves what it has read: longer than that nothing outlives its erasure, or the right to read it
	mostStreams  = 20                     // to one pod, one after another, and one more with each minute: its program can break each, or have it be silent
)

// errWorn is an instance whose streams end too soon.
var errWorn = errors.New("the streams to its pod end too often")

// instance is what runs of a service: a pod.
type instance struct {
	d     *Driver
	p     *pod
	s     compute.Service
	proxy *compute.Proxy
	key   string // that its keeper knows the node by

	ctx  context.Context // of the pod's use
	stop context.CancelFunc

	joining chan struct{} // held while a stream is made, and for keeper, stood and worn
	keeper  *http.ClientConn
	stood   *rate.Limiter // streams
	worn    bool
	mu      sync.Mutex // held where streams grows, and for calls and old
	streams sync.WaitGroup
	calls   int // under way
	old     bool

	until time.Time // what it has read is good until then; zero: it has read nothing
	aging *time.Timer

	over  chan struct{} // closed when it takes no more requests
	ended chan struct{} // closed when nothing of it runs
	why   error         // it is over
}

// Begin begins an instance of a service as a pod, and returns when it answers.
func (d *Driver) Begin(ctx context.Context, s compute.Service) (compute.Instance, error) {
	if !d.begin() {
		return nil, &redoubt.Error{Op: "kube.Begin", Kind: redoubt.Unavailable, Err: errClosed}
	}
	i, err := d.instance(ctx, s)
	if err == nil {
		if err = i.ready(ctx); err == nil {
			return i, nil
		}
		i.Close()
	}
	own, ok := errors.AsType[*stopped](err)
	switch _, known := errors.AsType[*redoubt.Error](err); {
	case ok:
		err = &redoubt.Error{Op: "kube.Begin", Kind: redoubt.Invalid, Hint: own.Why}
	case !known:
		err = &redoubt.Error{Op: "kube.Begin", Kind: redoubt.Unavailable, Err: err, Hint: "the cluster did not begin it: is it in reach, and has it room?"}
	}
	return nil, err
}

// AtOnce is how many requests an instance answers at once.
func (d *Driver) AtOnce() int { return compute.ProxyCalls }

// instance makes a pod and has it begin the program.
func (d *Driver) instance(ctx context.Context, s compute.Service) (*instance, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.stopping, cancel)()
	t := compute.Task{JobRun: s.JobRun, Limits: s.Limits, Timeout: s.Timeout}
	t.Spec.Image, t.Spec.Args, t.Spec.Env = s.Spec.Image, s.Spec.Args, append([]string{"PORT=" + strconv.Itoa(s.Spec.Port)}, s.Spec.Env...)
	p, do, err := d.makePod(ctx, t, true)
	if err != nil {
		d.running.Done()
		return nil, err
	}
	do.Port = s.Spec.Port
	i := &instance{d: d, p: p, s: s, key: rand.Text(), joining: make(chan struct{}, 1), stood: rate.NewLimiter(rate.Every(time.Minute), mostStreams), over: make(chan struct{}), ended: make(chan struct{})}
	i.ctx, i.stop = context.WithCancel(d.stopping)
	i.proxy = compute.NewProxy(s.At, i.dial)
	if err := i.begin(ctx, do); err != nil {
		err = p.because(ctx, err)
		i.finish(err)
		return nil, err
	}
	if !p.fed.IsZero() { // not all at once, so that there are some to answer meanwhile
		i.until = p.fed.Add(inputsAge - mrand.N(inputsAge/4))
		i.aging = time.AfterFunc(time.Until(i.until), i.retire)
	}
	go i.follow()
	return i, nil
}

// finish ends an instance that nobody follows.
func (i *instance) finish(why error) {
	defer i.d.running.Done()
	defer close(i.ended)
	i.why = why
	close(i.over)
	if i.aging != nil {
		i.aging.Stop()
	}
	i.mu.Lock()
	i.stop()
	i.mu.Unlock()
	i.proxy.Close()
	i.joining <- struct{}{}
	if i.keeper != nil {
		i.keeper.Close()
	}
	<-i.joining
	i.streams.Wait()
	i.p.remove(true)
	i.d.leave(i.p.space)
}

// carry has a stream be carried until the instance is over, and is false where it is.
func (i *instance) carry(f func()) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ctx.Err() != nil {
		return false
	}
	i.streams.Go(f)
	return true
}

// follow hears what the program says until it has ended, or its pod has, or is out of reach.
func (i *instance) follow() { i.finish(i.hear()) }

func (i *instance) hear() error {
	heard := time.Now()
	for {
		end, some, err := i.watch()
		if end != nil {
			x, err := end.exit(i.s.Limits)
			switch {
			case err != nil:
				return err
			case x.Why != "":
				return &stopped{x}
			}
			return stop("it ended with exit code 0: a service runs on")
		}
		if some {
			heard = time.Now()
		}
		switch fault := i.p.look(i.ctx); {
		case i.ctx.Err() != nil:
			return errClosed
		case errors.Is(err, errFrame):
			return stop("what came back from its pod makes no sense: it has meddled with what runs beside it")
		case errors.Is(fault, errMemory):
			return outOfMemoryExit(i.s.Limits)
		case fault != nil:
			return fault
		case errors.Is(err, errWorn) && time.Since(heard) > silence: // the cluster has had time to say that its sandbox ended
			return err
		case time.Since(heard) > alone: // its keeper has given up
			return fmt.Errorf("the stream from its pod broke: %w", err)
		}
		select {
		case <-time.After(againEvery):
		case <-i.ctx.Done():
		}
	}
}

// watch hears what the program says, by one stream. some: the stream has stood.
func (i *instance) watch() (_ *ending, some bool, err error) {
	res, err := i.ask(i.ctx, http.MethodGet, watchPath, nil)
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, false, errFrame
	}
	f := &frames{r: bufio.NewReader(res.Body), max: maxFrame}
	for {
		kind, body, err := f.read()
		if err != nil {
			return nil, true, err
		}
		switch kind {
		case sayOut:
			i.s.Log.Write(body)
		case sayExit:
			end := new(ending)
			if json.Unmarshal(body, end) != nil {
				return nil, true, errFrame
			}
			return end, true, nil
		default:
			return nil, true, errFrame
		}
	}
}

// look says what the cluster knows of why a pod runs no more; nil: nothing, as where the cluster does not answer.
func (p *pod) look(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	now, err := p.d.client.CoreV1().Pods(p.space.name).Get(within, p.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return errors.New("somebody has removed the pod")
	case err != nil:
		return nil
	}
	return p.fault(now)
}

// begin tells the keeper what to run.
func (i *instance) begin(ctx context.Context, do task) error {
	b, err := json.Marshal(do)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	res, err := i.ask(ctx, http.MethodPost, beginPath, bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, maxFault))
	switch {
	case res.StatusCode == http.StatusOK:
		return err
	case res.Header.Get(faultHeader) != "":
		return stop("it cannot be begun: %s", compute.Plain(string(said)))
	}
	return fmt.Errorf("the keeper failed: %s", compute.Plain(string(said)))
}

// ready waits until the program answers.
func (i *instance) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for !i.proxy.Answers(ctx, i.s.Spec.Health) {
		select {
		case <-i.over:
			return i.why
		case <-ctx.Done():
			return stop("it did not answer on port %d within %s: --port says on which it listens, and --health where it says that it is up", i.s.Spec.Port, readyTime)
		case <-time.After(readyEvery):
		}
	}
	return nil
}

// ask asks the keeper.
func (i *instance) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	c, err := i.join(ctx)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://keeper"+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set(keyHeader, i.key)
	return c.RoundTrip(r)
}

// join gives a connection with the keeper: the one that there is, or else a new one.
func (i *instance) join(ctx context.Context) (*http.ClientConn, error) {
	select {
	case i.joining <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-i.joining }()
	if i.keeper != nil {
		if i.keeper.Err() == nil {
			return i.keeper, nil
		}
		i.keeper.Close()
	}
	if i.worn {
		return nil, errWorn
	}
	within, cancel := context.WithCancel(i.ctx)
	near, theirs := net.Pipe()
	ours := &tunnel{near, cancel} // who gives it up ends what exec has begun for it, whether or not that answers
	if !i.carry(func() {
		defer cancel()
		defer theirs.Close()
		i.d.exec(within, i.p.space.name, i.p.name, jobContainer, []string{agentPath, Command, verbJoin}, theirs, theirs, io.Discard)
	}) {
		ours.Close()
		return nil, compute.ErrInstanceGone
	}
	t := &http.Transport{Protocols: new(http.Protocols), MaxResponseHeaderBytes: 8 << 10, DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil },
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: keeperStreams * streamWindow, SendPingTimeout: silence, PingTimeout: silence, WriteByteTimeout: silence}}
	t.Protocols.SetUnencryptedHTTP2(true)
	c, err := t.NewClientConn(ctx, "http", "keeper:80")
	if err != nil {
		ours.Close()
		return nil, err
	}
	i.keeper = c
	i.worn = !i.stood.Allow() // it took what is first said, which a cluster out of reach does not
	return c, nil
}

// dial connects with the program's port.
func (i *instance) dial(ctx context.Context) (net.Conn, error) {
	within, cancel := context.WithCancel(i.ctx)
	begun := context.AfterFunc(ctx, cancel)
	ours, theirs := net.Pipe()
	res, err := i.ask(within, http.MethodPost, connectPath, theirs)
	if err == nil && res.StatusCode != http.StatusOK {
		res.Body.Close()
		err = errors.New("nobody listens on its port")
	}
	if !begun() && err == nil {
		res.Body.Close()
		err = ctx.Err()
	}
	if err == nil && !i.carry(func() {
		defer cancel()
		defer theirs.Close()
		defer res.Body.Close()
		io.Copy(theirs, res.Body)
	}) {
		res.Body.Close()
		err = compute.ErrInstanceGone
	}
	if err != nil {
		cancel()
		ours.Close()
		return nil, err
	}
	return &tunnel{ours, cancel}, nil
}

// tunnel is a connection that ends its stream when it is closed.
type tunnel struct {
	net.Conn
	end context.CancelFunc
}

func (t *tunnel) Close() error {
	t.end()
	return t.Conn.Close()
}

// enter counts one more call, and is false where it takes none.
func (i *instance) enter() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-i.over:
		return false
	default:
	}
	if !i.old {
		i.calls++
	}
	return !i.old
}

func (i *instance) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.calls--; i.old && i.calls == 0 {
		i.stop()
	}
}

// retire has it take no more requests, and end when those that it has are answered, or have had their time.
func (i *instance) retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.old = true; i.calls == 0 {
		i.stop()
		return
	}
	time.AfterFunc(i.s.Timeout, i.stop)
}

// Call answers one request.
func (i *instance) Call(w http.ResponseWriter, r *http.Request) error {
	if !i.enter() {
		return compute.ErrInstanceGone
	}
	defer i.leave()
	r.Body = http.MaxBytesReader(w, r.Body, redoubt.MaxServiceBody)
	return i.proxy.Call(w, r)
}

// Ended is closed when nothing of it runs any more.
func (i *instance) Ended() <-chan struct{} { return i.ended }

// Close ends the program, and with it the pod. One that retires ends by itself: who closes it has been told that it takes no more requests, and others wait
// for it yet.
func (i *instance) Close() {
	i.mu.Lock()
	if !i.old {
		i.stop()
	}
	i.mu.Unlock()
	<-i.ended
}

var _ compute.ServiceDriver = (*Driver)(nil)
