package wasm

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/sandbox"
)

// session is the other side of a worker that runs a module.
type session struct {
	frames
	t        compute.Task
	window   *sandbox.Window // nil: what is read goes by frames
	handles  map[uint32]*handle
	next     uint32
	ahead    *piece // that is being read
	buffers  [2][]byte
	turn     bool   // of buffers
	listed   string // the directory that listing is of
	listing  []byte
	begun    bool // the worker was told what it is for
	end      *ending
	unready  time.Duration // that its worker may take to be ready
	handOver time.Duration // from the module's end to the worker's
	begins   func()        // is told that the module begins,
	ends     func()        // and that it has ended
	refused  error         // by the desk: not the worker's fault
}

func newSession(t compute.Task) *session {
	return &session{t: t, unready: loadTime, handOver: handOverTime + time.Duration(t.Limits.Disk/handOverPace)*time.Second}
}

// handle is a file that the module has open.
type handle struct {
	content redoubt.Content
	at      int64
	r       io.Reader
}

// run has the module run to its end, by a worker that has it ready, or will have. However that came, the worker's process may be there for a while yet.
func (s *session) run(ctx context.Context, r *runner) (exit compute.Exit, err error) {
	defer func() { exit.Gone = r.ended }()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	var unready, late, lingers atomic.Bool
	timer := time.AfterFunc(s.unready, func() { unready.Store(true); cancel() })
	defer func() { timer.Stop() }()
	after := func(d time.Duration, what *atomic.Bool) {
		timer.Stop()
		timer = time.AfterFunc(d, func() { what.Store(true); cancel() })
	}
	defer s.close()
	s.begins = func() { after(s.t.Timeout, &late) }
	s.ends = func() { after(s.handOver, &lingers) }
	said, ended := r.serve(within, s)
	switch {
	case ctx.Err() != nil:
		return compute.Exit{Code: -1, Why: "it was ended"}, nil
	case unready.Load(): // that is the machine's fault
		return compute.Exit{}, fmt.Errorf("its worker was not ready within %s", s.unready)
	case late.Load():
		return compute.Exit{Code: -1, Why: fmt.Sprintf("out of time: it may run for %s; ask for more with --timeout", s.t.Timeout)}, nil
	case lingers.Load():
		return compute.Exit{Code: -1, Why: fmt.Sprintf("its outputs were not handed over within %s of its end", s.handOver)}, nil
	case s.refused != nil:
		return compute.Exit{}, s.refused
	case said == nil && ended == nil && s.end != nil:
		return s.exit(), nil
	}
	var u *unfit
	if errors.As(said, &u) {
		return u.exit(), nil
	}
	var x *sandbox.Exit
	if errors.As(ended, &x) {
		switch {
		case strings.Contains(x.Stderr, "out of memory") || strings.Contains(x.Stderr, "cannot allocate memory"):
			return s.outOfMemory(), nil
		case x.Killed != "":
			return compute.Exit{Code: -1, Why: "the sandbox has ended it: " + x.Killed}, nil
		}
	}
	return compute.Exit{}, errors.Join(said, ended)
}

// talk says what the module is run for, and then answers the worker to its last word. Whatever a worker says that makes no sense ends it.
func (s *session) talk(ctx context.Context) error {
	s.handles = map[uint32]*handle{}
	s.begun = true
	s.begins()
	if err := s.writeJSON(tellTask, task{Args: s.t.Spec.Args, Env: s.t.Spec.Env}); err != nil {
		return err
	}
	for {
		kind, body, err := s.read()
		if err != nil {
			return err
		}
		switch {
		case kind == sayDone && s.end != nil:
			return nil
		case kind == sayFile:
			err = s.put(ctx, body)
		case s.end != nil && kind != sayErr: // the module runs no more; its worker says what it leaves
			err = errFrame
		case kind == sayOut || kind == sayErr:
			s.t.Log(int(kind-'0'), body)
		case kind == sayEnd:
			s.ends()
			s.end = new(ending)
			err = json.Unmarshal(body, s.end)
		default:
			err = s.serve(ctx, kind, body)
		}
		if err != nil {
			return err
		}
	}
}

// close lets go of what the module left open.
func (s *session) close() {
	s.settle(nil, 0, 0)
	for id, h := range s.handles {
		h.content.Close()
		delete(s.handles, id)
	}
}

func (s *session) outOfMemory() compute.Exit {
	return compute.Exit{Code: -1, Why: fmt.Sprintf("out of memory: it may use %d MiB; ask for more with --memory", s.t.Limits.Memory>>20)}
}

// exit is what the worker said of the end.
func (s *session) exit() compute.Exit {
	x := s.end
	switch {
	case x.Code != 0 && x.Memory:
		return s.outOfMemory()
	case x.Program:
		return compute.Exit{Code: -1, Why: "it is no WebAssembly module that can be run here: " + compute.Plain(x.Fault)}
	case x.Fault != "":
		return compute.Exit{Code: -1, Why: "it trapped: " + compute.Plain(x.Fault)}
	case x.Code != 0:
		return compute.Exit{Code: x.Code, Why: fmt.Sprintf("it ended with exit code %d", x.Code)}
	}
	return compute.Exit{}
}

// serve answers one question.
func (s *session) serve(ctx context.Context, kind byte, body []byte) error {
	switch kind {
	case askStat:
		f, err := s.t.Stat(ctx, string(body))
		return s.answerJSON(f, err)
	case askList:
		return s.list(ctx, body)
	case askOpen:
		return s.open(ctx, string(body))
	case askRead:
		if len(body) != 16 {
			return errFrame
		}
		return s.content(binary.BigEndian.Uint32(body), int64(binary.BigEndian.Uint64(body[4:])), int64(binary.BigEndian.Uint32(body[12:])))
	case askPlace:
		if len(body) != 17 {
			return errFrame
		}
		return s.place(binary.BigEndian.Uint32(body), int64(binary.BigEndian.Uint64(body[4:])), binary.BigEndian.Uint32(body[12:]), body[16])
	case askClose:
		if len(body) != 4 {
			return errFrame
		}
		if h := s.handles[binary.BigEndian.Uint32(body)]; h != nil {
			s.settle(nil, 0, 0)
			h.content.Close()
			delete(s.handles, binary.BigEndian.Uint32(body))
		}
		return s.write(answer)
	}
	return errFrame
}

// refusal is how an error is told to the module: as little as it would be told of a file.
func refusal(err error) syscall.Errno {
	switch redoubt.KindOf(err) {
	case redoubt.NotFound, redoubt.NoBucket, redoubt.MethodNotAllowed:
		return syscall.ENOENT
	case redoubt.Denied, redoubt.Unauthenticated, redoubt.Expired:
		return syscall.EACCES
	}
	return syscall.EIO
}

func (s *session) refuse(errno syscall.Errno) error {
	return s.write(refuse, binary.BigEndian.AppendUint16(nil, uint16(errno)))
}

func (s *session) answerJSON(v any, err error) error {
	if err != nil {
		return s.refuse(refusal(err))
	}
	return s.writeJSON(answer, v)
}

// list answers with a piece of a directory's list.
func (s *session) list(ctx context.Context, body []byte) error {
	if len(body) < 4 {
		return errFrame
	}
	from, dir := int(binary.BigEndian.Uint32(body)), string(body[4:])
	if from == 0 {
		files, err := s.t.List(ctx, dir)
		if err != nil {
			return s.refuse(refusal(err))
		}
		if s.listing, err = json.Marshal(files); err != nil || len(s.listing) > maxList {
			return s.refuse(syscall.EIO)
		}
		s.listed = dir
	}
	if dir != s.listed || from > len(s.listing) {
		return errFrame
	}
	piece, more := s.listing[from:], byte(0)
	if len(piece) > maxPiece {
		piece, more = piece[:maxPiece], 1
	}
	return s.write(answer, []byte{more}, piece)
}

func (s *session) open(ctx context.Context, name string) error {
	if len(s.handles) >= maxHandles {
		return s.refuse(syscall.EIO)
	}
	_, c, err := s.t.Open(ctx, name)
	if err != nil {
		return s.refuse(refusal(err))
	}
	s.next++
	s.handles[s.next] = &handle{content: c}
	return s.write(answer, binary.BigEndian.AppendUint32(nil, s.next))
}

// content answers with bytes of an open file. Who reads on where it has read before finds the next piece read already.
func (s *session) content(id uint32, off, n int64) error {
	h := s.handles[id]
	if h == nil || off < 0 || n < 1 || n > maxPiece {
		return errFrame
	}
	on := h.at == off && off > 0
	p := s.settle(h, off, n)
	if p == nil {
		if h.r == nil || h.at != off {
			h.r, h.at = h.content.Reader(off, -1), off
		}
		p = &piece{h: h, text: s.buffer()}
		p.read(n)
	}
	if p.err != nil {
		h.r = nil
		return s.refuse(syscall.EIO)
	}
	h.at += int64(p.n)
	if on && p.n == maxPiece {
		s.ahead = &piece{h: h, text: s.buffer(), done: make(chan struct{})}
		go s.ahead.read(maxPiece)
	}
	p.text[4] = answer
	binary.BigEndian.PutUint32(p.text, uint32(p.n+1))
	_, err := s.w.Write(p.text[:5+p.n])
	return err
}

// place has bytes of an open file lie in the window.
func (s *session) place(id uint32, off int64, n uint32, at byte) error {
	h := s.handles[id]
	if h == nil || off < 0 || n < 1 || n > maxPiece || at >= places {
		return errFrame
	}
	s.settle(nil, 0, 0)
	if h.r == nil || h.at != off {
		h.r, h.at = h.content.Reader(off, -1), off
	}
	got, err := s.window.Put(uint64(at), uint64(n), func(b []byte) (int, error) {
		m, err := io.ReadFull(h.r, b)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil
		}
		return m, err
	})
	if err != nil {
		h.r = nil
		return s.refuse(syscall.EIO)
	}
	h.at += int64(got)
	return s.write(answer, binary.BigEndian.AppendUint32(nil, uint32(got)))
}

// piece is a part of a file that is open, with room for the head of a frame.
type piece struct {
	h    *handle
	text []byte
	n    int
	err  error
	done chan struct{} // nil: nobody waits for it
}

func (p *piece) read(n int64) {
	if p.done != nil {
		defer close(p.done)
	}
	p.n, p.err = io.ReadFull(p.h.r, p.text[5:5+n])
	if p.err == io.EOF || p.err == io.ErrUnexpectedEOF {
		p.err = nil
	}
}

// settle waits for the piece that is read ahead, if there is one: no two read a file at once, and none reads one that is closed. It gives it where it is
// what is asked for; else its file is read anew from where that is.
func (s *session) settle(h *handle, off, n int64) *piece {
	p := s.ahead
	if p == nil {
		return nil
	}
	<-p.done
	s.ahead = nil
	if p.h == h && h.at == off && int64(p.n) <= n {
		return p
	}
	p.h.r = nil
	return nil
}

// buffer gives room for a piece: there are two, of which one is being read ahead.
func (s *session) buffer() []byte {
	s.turn = !s.turn
	b := &s.buffers[0]
	if s.turn {
		b = &s.buffers[1]
	}
	if *b == nil {
		*b = make([]byte, 5+maxPiece)
	}
	return *b
}

// put hands one output over while it comes.
func (s *session) put(ctx context.Context, body []byte) error {
	var o output
	if err := json.Unmarshal(body, &o); err != nil {
		return err
	}
	if s.end == nil || s.end.Code != 0 || o.Bytes < 0 || o.Path == "" || path.Clean("/"+o.Path) != "/"+o.Path {
		return errFrame
	}
	r := &pieces{s: s, left: o.Bytes}
	if err := s.t.Put(ctx, o.Path, o.Bytes, r); err != nil {
		if r.wrong == nil {
			s.refused = err
		}
		return err
	}
	if r.left != 0 || len(r.rest) != 0 {
		return errFrame
	}
	return nil
}

// pieces is content as it comes in frames.
type pieces struct {
	s     *session
	left  int64 // that has not come
	rest  []byte
	wrong error // of what came
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		if p.left == 0 {
			return 0, io.EOF
		}
		kind, body, err := p.s.read()
		if err == nil && (kind != sayBytes || len(body) == 0 || int64(len(body)) > p.left) {
			err = errFrame
		}
		if err != nil {
			p.wrong = err
			return 0, err
		}
		p.left -= int64(len(body))
		p.rest = body
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
