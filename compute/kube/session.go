package kube

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"redoubt"
	"redoubt/compute"
)

// talk starts one of the agent's verbs in a container and speaks with it, until say returns; then its stream is ended. What say says goes first.
func (p *pod) talk(ctx context.Context, container, verb string, say func(*frames) error) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	binary := agentPath
	if container == inContainer {
		binary = imagePath
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errs := &limited{left: maxFault}
	ended := make(chan error, 1)
	defer context.AfterFunc(within, func() { // whatever the stream does then, nobody waits for it
		outW.CloseWithError(context.Canceled)
		inR.CloseWithError(context.Canceled)
	})()
	go func() {
		err := p.d.exec(within, p.space.name, p.name, container, []string{binary, Command, verb}, inR, outW, errs)
		why := err
		if why == nil {
			why = io.EOF
		}
		outW.CloseWithError(why)
		inR.CloseWithError(why)
		ended <- err
	}()
	said := say(&frames{r: bufio.NewReaderSize(outR, 64<<10), w: inW, max: maxFrame})
	inW.Close()
	outR.CloseWithError(errFrame) // whatever more it says
	if said != nil {
		cancel()
	}
	select {
	case <-ended:
	case <-time.After(patience):
		cancel()
		<-ended
	}
	if said != nil && errs.b.Len() > 0 {
		said = errors.Join(said, errors.New(compute.Plain(errs.b.String())))
	}
	return said
}

// limited keeps the beginning of what is written to it.
type limited struct {
	b    bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.b.Write(p[:n])
	return len(p), nil
}

// session is the other side of an agent that runs a program. What it hears is hostile: the program may have said it.
type session struct {
	t    compute.Task
	do   task
	f    *frames
	end  *ending
	done bool // all was told

	files int
	bytes int64
	names map[string]bool
}

// run has the program run to its end.
func (s *session) run(ctx context.Context, p *pod) (compute.Exit, error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	var late atomic.Bool
	timer := time.AfterFunc(patience, cancel) // until it has begun
	defer func() { timer.Stop() }()
	s.names = map[string]bool{}
	var refused error // by the desk
	err := p.talk(within, jobContainer, verbRun, func(f *frames) error {
		s.f = f
		if err := f.writeJSON(tellTask, s.do); err != nil {
			return err
		}
		began := false
		for {
			kind, body, err := f.read()
			if err != nil {
				return err
			}
			switch {
			case kind == sayFault:
				return errors.New("the agent failed: " + compute.Plain(string(body[:min(len(body), maxFault)])))
			case kind == sayBegan && !began:
				began = true
				timer.Stop()
				timer = time.AfterFunc(s.t.Timeout, func() { late.Store(true); cancel() })
			case (kind == sayOut || kind == sayErr) && s.end == nil:
				s.t.Log(int(kind-'0'), body)
			case kind == sayExit && s.end == nil:
				timer.Stop()
				timer = time.AfterFunc(collectTime, cancel)
				s.end = new(ending)
				if err := json.Unmarshal(body, s.end); err != nil {
					return errFrame
				}
			case kind == sayFile && s.clean():
				if err := s.put(within, body); err != nil {
					if !errors.Is(err, errFrame) {
						refused = err
					}
					return err
				}
			case kind == sayLeft && s.clean():
				s.t.Log(2, []byte("not kept, since it is no plain file with a plain name: "+compute.Plain(string(body))+"\n"))
			case kind == sayDone && s.end != nil:
				s.done = true
				return nil
			default:
				return errFrame
			}
		}
	})
	switch {
	case ctx.Err() != nil:
		return ended("it was ended"), nil
	case late.Load() && !s.done:
		return ended("out of time: it may run for %s; ask for more with --timeout", s.t.Timeout), nil
	case refused != nil:
		return compute.Exit{}, refused
	case s.done:
		return s.end.exit(s.t.Limits)
	case errors.Is(err, errFrame):
		return ended("what came back from its pod makes no sense: it has meddled with what runs beside it"), nil
	}
	if err = p.because(ctx, err); errors.Is(err, errMemory) {
		err = outOfMemoryExit(s.t.Limits)
	}
	return compute.Exit{}, err
}

// clean says whether the program has ended well, so that outputs may come.
func (s *session) clean() bool { return s.end != nil && s.end.Code == 0 && s.end.Fault == "" }

// exit is what the agent said of the end.
func (x *ending) exit(l redoubt.JobLimits) (compute.Exit, error) {
	switch {
	case x.Fault != "":
		return ended("it cannot be begun: %s", compute.Plain(x.Fault)), nil
	case x.Code != 0 && x.Memory:
		return compute.Exit{}, outOfMemoryExit(l)
	case x.Crowded:
		return ended("too many processes: it may have %d, with threads; ask for more with --processes", l.Processes), nil
	case x.Code < 0 || x.Code > 255:
		return ended("it ended with an exit code that there is none of"), nil
	case x.Signal != "" && x.Code != 0:
		return compute.Exit{Code: x.Code, Why: "it was ended by a signal: " + compute.Plain(x.Signal)}, nil
	case x.Code != 0:
		return compute.Exit{Code: x.Code, Why: fmt.Sprintf("it ended with exit code %d", x.Code)}, nil
	}
	return compute.Exit{}, nil
}

// put hands one output over while it comes.
func (s *session) put(ctx context.Context, body []byte) error {
	var o entry
	if err := json.Unmarshal(body, &o); err != nil {
		return errFrame
	}
	if o.Bytes < 0 || o.Path == "" || len(o.Path) > redoubt.MaxKeyBytes || path.Clean("/"+o.Path) != "/"+o.Path || !utf8.ValidString(o.Path) || strings.ContainsRune(o.Path, 0) || s.names[o.Path] {
		return errFrame
	}
	s.names[o.Path] = true
	if s.files++; s.files > redoubt.MaxJobOutputs {
		return stop("it has more than %d outputs", redoubt.MaxJobOutputs)
	}
	if o.Bytes > s.t.Limits.Disk-s.bytes {
		return stop("its outputs have more than %d MiB; ask for more with --disk", s.t.Limits.Disk>>20)
	}
	s.bytes += o.Bytes
	r := &content{f: s.f, left: o.Bytes}
	if err := s.t.Put(ctx, o.Path, o.Bytes, r); err != nil {
		return err
	}
	if r.left != 0 || len(r.rest) != 0 {
		return errFrame
	}
	return nil
}
