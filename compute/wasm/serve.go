package wasm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/sandbox"
)

// A service that is a module is run anew for each request, in a process that serves one share and one label: the module is compiled once, and each
// request has an instance with a memory of its own, which stands ready before the request comes. The request is what RFC 3875 (CGI/1.1) says: variables of the environment, the body on
// standard input, the answer on standard output.

// Beside those of a job, a worker that serves hears these, once it was told its task.
const (
	tellCall = 'Q' // the variables of one request, each behind its length of 4 bytes
	tellBody = 'B' // a piece of its body
	tellGo   = 'G' // the body is whole
)

const (
	server      = "wasm-serve"
	maxCGIHead  = 64 << 10
	serveMemory = workerMemory
)

// serve is a worker that answers requests one after the other.
func serve(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGXFSZ)
	w := &worker{frames: frames{r: bufio.NewReaderSize(in, 64<<10), w: out}}
	var body bytes.Buffer
	m, err := w.ready(&body, false)
	if err != nil {
		return w.tellUnfit(err)
	}
	m.stand()
	if err := w.write(sayReady); err != nil {
		return err
	}
	if err := w.hear(); err != nil {
		return err
	}
	w.hold = true
	var env []string
	for {
		kind, b, err := w.read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case tellCall:
			if env, err = readStrings(b); err != nil {
				return err
			}
			body.Reset()
		case tellBody:
			body.Write(b)
		case tellGo:
			x := m.run(w.task.Args, append(w.task.Env[:len(w.task.Env):len(w.task.Env)], env...))
			if err := errors.Join(w.writeJSON(sayEnd, x), w.flush()); err != nil {
				return err
			}
			m.stand()
		default:
			return errFrame
		}
	}
}

// Begin begins an instance.
func (d *Driver) Begin(ctx context.Context, s compute.Service) (compute.Instance, error) {
	fault := func(x compute.Exit) error {
		return &redoubt.Error{Op: "Begin", Kind: redoubt.Invalid, Hint: x.Why}
	}
	t := compute.Task{JobRun: s.JobRun, Limits: s.Limits, Timeout: s.Timeout}
	t.Spec.Module = s.Spec.Module
	m, exit, err := d.compiled(ctx, t, nil)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fault(exit)
	}
	i, err := d.begin(ctx, s, t, m)
	var u *unfit
	if !errors.As(err, &u) {
		return i, err
	}
	if m, exit, err = d.compiled(ctx, t, m); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fault(exit)
	}
	if i, err = d.begin(ctx, s, t, m); errors.As(err, &u) {
		return nil, fault(u.exit())
	}
	return i, err
}

// begin begins one with what was compiled of its module; an *unfit: that is of no use.
func (d *Driver) begin(ctx context.Context, s compute.Service, t compute.Task, m *made) (compute.Instance, error) {
	p, err := d.startServer(s.Limits.Memory, m)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	i := &instance{s: s, cancel: cancel, broken: make(chan error, 1), ended: make(chan struct{}), log: s.Log}
	i.session = session{t: t}
	ready := make(chan error, 1)
	go func() {
		defer close(i.ended)
		defer cancel()
		said, ended := p.Talk(run, func(in io.Writer, out io.Reader) error { return i.talk(run, in, out, m, ready) })
		select {
		case ready <- errors.Join(said, ended):
		default:
		}
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// startServer begins the process of a worker that serves.
func (d *Driver) startServer(memory int64, m *made) (*sandbox.Process, error) {
	return sandbox.Start(sandbox.Program{Name: "wasm service", Worker: server, Binary: d.binary, Nice: 1, Prompt: true, Scratch: int64(m.size()) + 1<<20,
		Limits: sandbox.Limits{Memory: memory + serveMemory + int64(m.size()), CPU: 365 * 24 * time.Hour, Files: 256}})
}

// AtOnce is one: a module answers one request in one memory.
func (d *Driver) AtOnce() int { return 1 }

// instance is the other side of a worker that serves.
type instance struct {
	session
	s      compute.Service
	cancel context.CancelFunc
	turn   sync.Mutex // of who talks with the worker, once that serves
	broken chan error // what ended the talk
	ended  chan struct{}
	log    io.Writer
}

// call is one request on its way through the worker.
type call struct {
	ctx   context.Context
	w     http.ResponseWriter
	env   []string
	body  []byte
	head  []byte // of the answer, as far as it has come
	wrote bool
	err   error
}

// Ended is closed when the worker runs no more.
func (i *instance) Ended() <-chan struct{} { return i.ended }

// Close ends the worker.
func (i *instance) Close() {
	i.cancel()
	<-i.ended
	i.turn.Lock() // a call that was under way ends with the worker
	defer i.turn.Unlock()
	i.close()
}

// talk answers calls until the worker ends.
func (i *instance) talk(ctx context.Context, in io.Writer, out io.Reader, m *made, ready chan<- error) error {
	i.frames = frames{r: bufio.NewReaderSize(out, 64<<10), w: in}
	i.handles = map[uint32]*handle{}
	if err := i.load(loading{Memory: i.s.Limits.Memory, Made: m.name}, m.bare, m.code); err != nil {
		return err
	}
	if err := i.frames.ready(); err != nil { // before it is told more: one that has no use for what it was given says so, and ends
		return err
	}
	if err := i.writeJSON(tellTask, task{Args: i.s.Spec.Args, Env: i.s.Spec.Env}); err != nil {
		return err
	}
	ready <- nil
	select { // from here on each call talks for itself
	case <-ctx.Done():
		return ctx.Err()
	case err := <-i.broken:
		return err
	}
}

// Call answers one request.
func (i *instance) Call(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, redoubt.MaxServiceBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return &redoubt.Error{Op: "Call", Kind: redoubt.TooLarge, Hint: fmt.Sprintf("a request has at most %d bytes", redoubt.MaxServiceBody)}
	}
	if err != nil {
		return &redoubt.Error{Op: "Call", Kind: redoubt.Invalid, Hint: "the body did not arrive whole"}
	}
	r.Body = io.NopCloser(bytes.NewReader(body)) // whole, for another instance should this one have ended
	c := &call{ctx: r.Context(), w: w, env: variables(r, i.s.At, len(body)), body: body}
	i.turn.Lock()
	defer i.turn.Unlock()
	select {
	case <-i.ended:
		return compute.ErrInstanceGone
	default:
	}
	stop := context.AfterFunc(r.Context(), i.cancel) // a module that never ends is ended with its process
	defer stop()
	if err = i.answerCall(r.Context(), c); err != nil {
		select {
		case i.broken <- err:
		default:
		}
		i.cancel()
	}
	err = errors.Join(c.err, err)
	switch {
	case r.Context().Err() != nil && !c.wrote:
		return &redoubt.Error{Op: "Call", Kind: redoubt.Unavailable, Hint: fmt.Sprintf("it did not answer within %s; --timeout gives it more", i.s.Timeout)}
	case err == nil:
		return nil
	case c.wrote:
		panic(http.ErrAbortHandler) // nobody takes a part for the whole
	}
	var known *redoubt.Error
	if !errors.As(err, &known) {
		return &redoubt.Error{Op: "Call", Kind: redoubt.Internal, Err: err}
	}
	return err
}

// answerCall has the worker answer one request. An error is the worker's end; what the module did wrong is c.err.
func (i *instance) answerCall(ctx context.Context, c *call) error {
	i.hold = true
	if err := i.write(tellCall, appendStrings(nil, c.env)); err != nil {
		return err
	}
	for rest := c.body; len(rest) > 0; {
		n := min(len(rest), maxPiece)
		if err := i.write(tellBody, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := errors.Join(i.write(tellGo), i.flush()); err != nil {
		return err
	}
	i.hold = false
	for {
		kind, body, err := i.read()
		if err != nil {
			return err
		}
		switch kind {
		case sayOut:
			c.take(body)
		case sayErr:
			_, _ = i.log.Write(body)
		case sayEnd:
			var x ending
			if err := json.Unmarshal(body, &x); err != nil {
				return err
			}
			i.end = &x
			i.close()
			c.finish(i.exit(), i.log)
			return nil
		default:
			if err := i.serve(ctx, kind, body); err != nil {
				return err
			}
		}
	}
}

// take passes the answer on, once its head is whole.
func (c *call) take(text []byte) {
	if c.err != nil {
		return
	}
	if c.wrote {
		if _, err := c.w.Write(text); err != nil {
			c.err = err
		}
		return
	}
	c.head = append(c.head, text...)
	end, size := bytes.Index(c.head, []byte("\r\n\r\n")), 4
	if plain := bytes.Index(c.head, []byte("\n\n")); plain >= 0 && (end < 0 || plain < end) {
		end, size = plain, 2
	}
	if end < 0 {
		if len(c.head) > maxCGIHead {
			c.err = badAnswer("its header is too long, or none")
		}
		return
	}
	if c.err = c.answer(c.head[:end+size]); c.err == nil {
		c.wrote = true
		_, c.err = c.w.Write(c.head[end+size:])
	}
}

func badAnswer(why string) error {
	return &redoubt.Error{Op: "Call", Kind: redoubt.Internal, Err: errors.New(why), Hint: why}
}

// answer writes the head of the answer (RFC 3875 section 6).
func (c *call) answer(head []byte) error {
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(head))).ReadMIMEHeader()
	if err != nil && err != io.EOF {
		return badAnswer("its header is none of RFC 3875")
	}
	status := http.StatusOK
	if s := h.Get("Status"); s != "" {
		code, _, _ := strings.Cut(s, " ")
		if status, err = strconv.Atoi(code); err != nil || status < 200 || status > 599 {
			return badAnswer("its status is none")
		}
	} else if h.Get("Location") != "" {
		status = http.StatusFound
	}
	compute.AnswerHeader(c.w.Header(), http.Header(h))
	c.w.WriteHeader(status)
	return nil
}

// finish is the end of the module's run.
func (c *call) finish(x compute.Exit, log io.Writer) {
	if x.Why != "" {
		fmt.Fprintf(log, "redoubt: %s\n", x.Why)
	}
	switch {
	case c.err != nil:
	case x.Code != 0 && !c.wrote:
		c.err = &redoubt.Error{Op: "Call", Kind: redoubt.Internal, Err: errors.New(x.Why), Hint: x.Why}
	case x.Code != 0:
		c.err = errors.New(x.Why)
	case !c.wrote:
		c.err = badAnswer("it gave no answer: a header, an empty line, then the body, as RFC 3875 says")
	}
}

// variables are those of RFC 3875 section 4.1. The credential is not among them.
func variables(r *http.Request, at string, body int) []string {
	script, info := r.URL.Path, ""
	if rest, ok := strings.CutPrefix(r.URL.Path, redoubt.ServicePath); ok {
		name, more, slash := strings.Cut(rest, "/")
		script = redoubt.ServicePath + name
		if slash {
			info = "/" + more
		}
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, "443"
	}
	env := []string{"GATEWAY_INTERFACE=CGI/1.1", "SERVER_PROTOCOL=" + r.Proto, "SERVER_SOFTWARE=redoubt", "REQUEST_METHOD=" + r.Method, "SCRIPT_NAME=" + script, "PATH_INFO=" + info,
		"QUERY_STRING=" + r.URL.RawQuery, "REQUEST_URI=" + r.URL.RequestURI(), "SERVER_NAME=" + host, "SERVER_PORT=" + port, "HTTP_HOST=" + r.Host, "HTTPS=on", "REMOTE_USER=" + r.Header.Get(redoubt.ServiceSubjectHeader), "REDOUBT_LABEL=" + at}
	if body > 0 {
		env = append(env, "CONTENT_LENGTH="+strconv.Itoa(body))
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		env = append(env, "CONTENT_TYPE="+t)
	}
	for name, values := range r.Header {
		switch {
		case strings.Contains(name, "_"): // it would be taken for the one with "-"
			continue
		case name == "Authorization" || name == "Cookie" || name == "Proxy" || name == "Content-Type" || name == "Content-Length" || strings.HasPrefix(name, "Redoubt-"):
			continue
		}
		value := strings.Join(values, ", ")
		if strings.IndexByte(value, 0) < 0 {
			env = append(env, "HTTP_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+value)
		}
	}
	return env
}
