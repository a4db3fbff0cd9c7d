package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"redoubt"
	"redoubt/node"
)

// startTimeout is how long a node may take to be ready: a large state is checked after a crash.
const startTimeout = 5 * time.Minute

// told is an error that another process put into words, its kind included.
type told string

func (t told) Error() string { return string(t) }

// process is one node's process that we started.
type process struct {
	name  redoubt.NodeName
	cmd   *exec.Cmd
	ready *os.File
	life  *os.File // ours to hold; the node stops when it closes. nil when detached
	ended chan struct{}
}

// start starts a node as a process of its own, in a session of its own, so that Ctrl-C reaches
// us alone. Secrets travel by pipe.
func (a *app) start(st node.State, name redoubt.NodeName, args []string, passphrase []byte, detach bool) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: &exec.Cmd{Path: exe, Args: append([]string{a.self, "serve", string(name), "--state", st.Dir()}, args...)}}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.cmd.Env = os.Environ()
	ready, child, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer child.Close()
	p.ready = ready
	p.hand(readyFDEnv, child)
	if !detach {
		theirs, ours, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer theirs.Close()
		p.life = ours
		p.hand(lifelineFDEnv, theirs)
	}
	if passphrase != nil {
		theirs, ours, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer theirs.Close()
		p.hand(passphraseFDEnv, theirs)
		_, err = ours.Write(passphrase) // a pipe takes 64 KiB before anybody reads
		if err = errors.Join(err, ours.Close()); err != nil {
			return nil, err
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.ended = make(chan struct{})
	go func() { // ends with the process
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended it told us itself
	}()
	return p, nil
}

// hand gives the child an open file and tells its number in the environment.
func (p *process) hand(env string, f *os.File) {
	p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
	p.cmd.Env = append(p.cmd.Env, fmt.Sprintf("%s=%d", env, 2+len(p.cmd.ExtraFiles)))
}

// wait returns when the node is ready, or with why it is not.
func (p *process) wait(ctx context.Context) (node.Runtime, error) {
	defer p.ready.Close()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { p.ready.SetReadDeadline(time.Unix(1, 0)) })()
	line, err := io.ReadAll(io.LimitReader(p.ready, 64<<10))
	var s started
	if err == nil && len(bytes.TrimSpace(line)) > 0 {
		err = json.Unmarshal(line, &s)
	}
	switch {
	case ctx.Err() != nil:
		return node.Runtime{}, ctx.Err()
	case err != nil || s.Runtime.State == "":
		return node.Runtime{}, &redoubt.Error{Object: string(p.name), Kind: redoubt.Unavailable, Err: errors.New("the process ended before it was ready"),
			Hint: fmt.Sprintf("redoubt serve %s shows why", p.name)}
	case s.Error != "":
		kind := redoubt.Unavailable
		if s.Refused {
			kind = redoubt.Denied
		}
		return s.Runtime, &redoubt.Error{Object: string(p.name), Kind: kind, Err: told(s.Error), Hint: s.Hint}
	}
	return s.Runtime, nil
}

// stop ends a process that we started: kindly, and after stopPatience by force.
func (p *process) stop() {
	if p.life != nil {
		p.life.Close()
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopPatience):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// stopPatience is longer than a node gives its requests to finish.
const stopPatience = 40 * time.Second
