package oci

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"redoubt"
	"redoubt/compute"
)

// run is one run of a program in a sandbox.
type run struct {
	ctx     context.Context
	t       compute.Task
	b       *box
	clean   bool // the keeper has said that all is done, and nobody has ended it
	timer   *time.Timer
	eager   bool // its time begins before its program does: inputs are read first
	started bool
	begun   func() // when it has started; may be nil

	serving sync.WaitGroup
	mu      sync.Mutex // guards what follows
	handles map[uint64]*handle
	last    uint64
	why     string // it was ended
}

// handle is an open input. Ranges of it are read one at a time.
type handle struct {
	mu sync.Mutex
	c  redoubt.Content
}

// maxHandles are inputs that are open at once, maxServing questions that are answered at once.
const (
	maxHandles = 8192
	maxServing = 32
)

// run sends the program off and serves it until its end, and puts its outputs.
func (r *run) run(s runSpec, root *os.File) (x compute.Exit, err error) {
	connected, hangUp := context.WithCancel(r.ctx)
	defer hangUp()
	stop := context.AfterFunc(r.ctx, r.b.kill)
	defer func() { r.clean = stop() && r.clean }()
	stdout, theirOut, err := os.Pipe()
	if err != nil {
		return x, err
	}
	stderr, theirErr, err := os.Pipe()
	if err != nil {
		return x, errors.Join(err, stdout.Close(), theirOut.Close())
	}
	var logging sync.WaitGroup
	logging.Go(func() { r.log(1, stdout) })
	logging.Go(func() { r.log(2, stderr) })
	if r.eager {
		r.limit(hangUp)
	}
	defer func() {
		if r.timer != nil {
			r.timer.Stop()
		}
	}()
	err = r.b.run(s, theirOut, theirErr, root)
	theirOut.Close()
	theirErr.Close()
	logged := sync.OnceFunc(func() {
		// All that the program wrote is in the pipes: the sandbox wrote it there before it said that the program had ended.
		stdout.SetReadDeadline(time.Now())
		stderr.SetReadDeadline(time.Now())
		logging.Wait()
		drain(r.t, 1, stdout)
		drain(r.t, 2, stderr)
		stdout.Close()
		stderr.Close()
	})
	if err == nil {
		x, err = r.serve(connected, hangUp, func() {
			hangUp()
			logged()
		})
	}
	if err != nil {
		r.b.kill()
	}
	logged()
	hangUp()
	r.serving.Wait()
	for _, h := range r.handles {
		err = errors.Join(err, h.c.Close())
	}
	if why := r.endedFor(); why != "" && !r.clean {
		return compute.Exit{Code: -1, Why: why}, nil
	}
	if r.ctx.Err() != nil {
		return x, r.ctx.Err()
	}
	if err != nil && r.b.oom {
		return compute.Exit{Code: -1, Why: outOfMemory(r.t.Limits.Memory)}, nil
	}
	if err != nil {
		return x, sandboxError(err)
	}
	return x, nil
}

// log hands over what comes through a pipe until its end or its deadline.
func (r *run) log(stream int, f *os.File) {
	b := make([]byte, 32<<10)
	for {
		n, err := f.Read(b)
		if n > 0 {
			r.t.Log(stream, b[:n])
		}
		if err != nil {
			return
		}
	}
}

// drain hands over what is in a pipe, and does not wait for more.
func drain(t compute.Task, stream int, f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, 32<<10)
	f.SetReadDeadline(time.Time{})
	c.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), b)
			if n > 0 {
				t.Log(stream, b[:n])
			}
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return true
			}
		}
	})
}

func (r *run) endedFor() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// limit begins the time that the run may take. It ends what waits for inputs too.
func (r *run) limit(hangUp func()) {
	r.timer = time.AfterFunc(r.t.Timeout, func() {
		r.mu.Lock()
		r.why = fmt.Sprintf("out of time: it may run for %v; ask for more with --timeout", r.t.Timeout)
		r.mu.Unlock()
		hangUp()
		r.b.kill()
	})
}

// serve reads what the keeper says until all is done. ended is called when the program has; connections and questions last until then, as their context does.
func (r *run) serve(connected context.Context, hangUp, ended func()) (x compute.Exit, err error) {
	var outputs int
	places, lines := make(chan struct{}, maxServing), make(chan struct{}, redoubt.MaxJobConnections)
	for {
		f, err := r.b.wire.receive()
		if err != nil {
			return x, err
		}
		switch f.kind {
		case askStat, askList, askOpen, askRead:
			places <- struct{}{}
			r.serving.Go(func() {
				defer func() { <-places }()
				r.b.wire.send(answer, f.number, r.answer(connected, f))
			})
		case askDial:
			select {
			case lines <- struct{}{}:
				r.serving.Go(func() {
					defer func() { <-lines }()
					r.dial(connected, f)
				})
			default:
				r.b.wire.send(answer, f.number, binary.BigEndian.AppendUint32(nil, uint32(unix.EAGAIN)))
			}
		case askClose:
			if len(f.payload) == 8 {
				r.closeHandle(binary.BigEndian.Uint64(f.payload))
			}
		case tellStarted:
			if r.started {
				return x, errors.New("a second beginning")
			}
			if r.begun != nil {
				r.begun()
			}
			if r.started = true; !r.eager {
				r.limit(hangUp)
			}
		case tellEnded:
			var e ending
			if err := json.Unmarshal(f.payload, &e); err != nil {
				return x, err
			}
			ended()
			if r.timer != nil && !r.timer.Stop() {
				return x, errEnded // for its time, however well it ended just then
			}
			if syscall.Signal(e.Signal) == syscall.SIGKILL && r.b.group.killed() {
				e = ending{Code: -1, Why: outOfMemory(r.t.Limits.Memory)}
			}
			if e.Code == -1 {
				return compute.Exit{Code: -1, Why: why(e)}, nil
			}
			x = compute.Exit{Code: e.Code}
			if e.Signal != 0 {
				x.Why = "it was ended by a signal: " + syscall.Signal(e.Signal).String()
			}
		case tellLeft:
			r.t.Log(2, append([]byte("redoubt: "), append(f.payload, '\n')...))
		case tellPut:
			if outputs++; outputs > redoubt.MaxJobOutputs {
				return compute.Exit{Code: -1, Why: fmt.Sprintf("it wrote more than %d files under /out: put many into one archive", redoubt.MaxJobOutputs)}, nil
			}
			if err := r.put(f); err != nil {
				return x, err
			}
		case tellDone:
			r.clean = true
			return x, nil
		case tellFault:
			return x, errors.New(string(f.payload))
		default:
			return x, fmt.Errorf("a frame %q", f.kind)
		}
	}
}

// why is what a submitter is told of a program that never began, or was ended.
func why(e ending) string {
	s := e.Why
	if i := len("starting sub-container"); len(s) > i && s[:i] == "starting sub-container" {
		s = s[i:]
	}
	if len(s) > 500 {
		s = s[:500]
	}
	return s
}

// put takes one output.
func (r *run) put(f frame) error {
	var h putHeader
	if err := json.Unmarshal(f.payload, &h); err != nil {
		return err
	}
	if h.Bytes < 0 || h.Bytes > r.t.Limits.Disk || path.Clean("/"+h.Path) != "/"+h.Path || h.Path == "" {
		return fmt.Errorf("an output of %d bytes", h.Bytes)
	}
	in := &pieces{w: r.b.wire, left: h.Bytes}
	if err := r.t.Put(r.ctx, h.Path, h.Bytes, in); err != nil {
		return &putError{err}
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// putError is what Put said, and Run's error.
type putError struct{ error }

func (p *putError) Unwrap() error { return p.error }

// pieces are the bytes of an output.
type pieces struct {
	w    *wire
	left int64
	have []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.have) == 0 {
		if p.left == 0 {
			return 0, io.EOF
		}
		f, err := p.w.receive()
		if err != nil {
			return 0, err
		}
		if f.kind != tellData || len(f.payload) == 0 || int64(len(f.payload)) > p.left {
			return 0, fmt.Errorf("a frame %q of %d bytes within an output", f.kind, len(f.payload))
		}
		p.have = f.payload
		p.left -= int64(len(p.have))
	}
	n := copy(b, p.have)
	p.have = p.have[n:]
	return n, nil
}

// answer is what a question about /in is answered with.
func (r *run) answer(ctx context.Context, f frame) []byte {
	if f.kind == askRead {
		b, err := r.read(f.payload)
		binary.BigEndian.PutUint32(b, uint32(errno(err)))
		return b
	}
	b, err := r.reply(ctx, f)
	return append(binary.BigEndian.AppendUint32(nil, uint32(errno(err))), b...)
}

func (r *run) reply(ctx context.Context, f frame) ([]byte, error) {
	name := string(f.payload)
	if len(name) > maxPathBytes || name != "" && path.Clean("/"+name) != "/"+name {
		return nil, unix.EINVAL
	}
	switch f.kind {
	case askStat:
		i, err := r.t.Stat(ctx, name)
		if err != nil {
			return nil, err
		}
		return json.Marshal(infoOf(i))
	case askList:
		all, err := r.t.List(ctx, name)
		if err != nil {
			return nil, err
		}
		list := make([]fileInfo, 0, len(all))
		for _, i := range all {
			list = append(list, infoOf(i))
		}
		return json.Marshal(list)
	}
	i, c, err := r.t.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.handles) >= maxHandles {
		return nil, errors.Join(unix.EMFILE, c.Close())
	}
	r.last++
	r.handles[r.last] = &handle{c: c}
	return json.Marshal(openReply{Handle: r.last, File: infoOf(i)})
}

func infoOf(f redoubt.JobFile) fileInfo {
	i := fileInfo{Name: f.Name, Dir: f.Dir, Bytes: f.Bytes}
	if !f.Modified.IsZero() {
		i.MTime = f.Modified.UnixNano()
	}
	return i
}

// read gives a part of an input behind four bytes that are for the error number.
func (r *run) read(q []byte) ([]byte, error) {
	const head = 4
	if len(q) != 32 {
		return make([]byte, head), unix.EINVAL
	}
	number, off, n := binary.BigEndian.Uint64(q), binary.BigEndian.Uint64(q[8:]), binary.BigEndian.Uint64(q[16:])
	r.mu.Lock()
	h := r.handles[number]
	r.mu.Unlock()
	if h == nil || n > pieceBytes || off > 1<<62 {
		return make([]byte, head), unix.EBADF
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.c == nil {
		return make([]byte, head), unix.EBADF
	}
	fill := func(b []byte) (int, error) {
		m, err := io.ReadFull(h.c.Reader(int64(off), int64(n)), b)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil
		}
		return m, err
	}
	if place := binary.BigEndian.Uint64(q[24:]); int64(place) != noPlace {
		m, err := r.b.window.Put(place, n, fill)
		return binary.BigEndian.AppendUint64(make([]byte, head), uint64(m)), err
	}
	b := make([]byte, head+n)
	m, err := fill(b[head:])
	return b[:head+m], err
}

func (r *run) closeHandle(number uint64) {
	r.mu.Lock()
	h := r.handles[number]
	delete(r.handles, number)
	r.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.c.Close()
	h.c = nil
}

// errno is what a program is told of an error. What lies beyond MAX is told as what is not there.
func errno(err error) unix.Errno {
	var e unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e
	}
	switch k := redoubt.KindOf(err); {
	case k == redoubt.NotFound || k == redoubt.Denied || k == redoubt.NoBucket:
		return unix.ENOENT
	case k == redoubt.TooLarge:
		return unix.EOVERFLOW
	case slices.Contains([]redoubt.Kind{redoubt.Erased, redoubt.Corrupt}, k):
		return unix.EIO
	}
	return unix.EIO
}
