package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows how far one transfer is, on a terminal and only when it takes long enough to wonder.
type progress struct {
	mu    sync.Mutex // guards what follows: transfers tell from their own goroutine
	out   io.Writer  // nil: shown to nobody
	what  string
	total int64
	began time.Time
	last  time.Time
	shown bool
}

const (
	progressAfter = 500 * time.Millisecond
	progressEvery = 100 * time.Millisecond
)

func (a *app) progress(what string, total int64) *progress {
	p := &progress{what: shown(what), total: total, began: time.Now()}
	if f, ok := a.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !a.json {
		p.out = a.err
	}
	return p
}

// at tells how many bytes have moved.
func (p *progress) at(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.out == nil || now.Sub(p.began) < progressAfter || now.Sub(p.last) < progressEvery {
		return
	}
	p.last, p.shown = now, true
	rate := float64(bytes) / now.Sub(p.began).Seconds()
	part := bytesText(bytes)
	if p.total > 0 {
		part += fmt.Sprintf(" of %s, %d %%", bytesText(p.total), bytes*100/p.total)
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s  %s  %s/s", p.what, part, bytesText(int64(rate)))
}

// end clears the line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// counting tells p of what is read through it.
type counting struct {
	r io.Reader
	p *progress
	n int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.p.at(c.n)
	return n, err
}

// pipeGrace is how long the end of a pipe is mistrusted: Ctrl-C ends who writes to it, too, and
// the signal may reach us after the pipe's end.
const pipeGrace = 20 * time.Millisecond

// pipe is what comes from stdin or a named pipe, until ctx ends: a read that waits is given up, and an end that Ctrl-C
// made is none.
func pipe(ctx context.Context, in io.Reader) io.ReadCloser {
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() { // ends with the pipe, or with the process: such a read cannot be given up
		_, err := io.Copy(w, in)
		select {
		case <-ctx.Done():
		case <-time.After(pipeGrace):
		}
		if stop() {
			w.CloseWithError(err)
		}
	}()
	return r
}
