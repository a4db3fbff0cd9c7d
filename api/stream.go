package api

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
)

// lines writes JSON lines, each an object with one member. The last is "end", "report" or "error": a stream
// without one was cut off. Until the first line is out an error is still answered with its status.
type lines struct {
	w  http.ResponseWriter
	rc *http.ResponseController

	mu    sync.Mutex // services may report progress from several goroutines
	began bool
	err   error
}

func newLines(w http.ResponseWriter) *lines {
	return &lines{w: w, rc: http.NewResponseController(w)}
}

// write sends one line at once.
func (l *lines) write(member string, v any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	b, err := json.Marshal(map[string]any{member: v})
	if err != nil {
		return err
	}
	if !l.began {
		l.began = true
		l.w.Header().Set("Content-Type", "application/jsonl")
	}
	if _, err := l.w.Write(append(b, '\n')); err != nil {
		l.err = err
		return err
	}
	_ = l.rc.Flush()
	return nil
}

// end finishes the stream with its last line, or with the error that ended it.
func (l *lines) end(member string, v any, err error) error {
	if err == nil {
		return l.write(member, v)
	}
	l.mu.Lock()
	began := l.began
	l.mu.Unlock()
	if !began {
		return err
	}
	p, _ := told(err)
	_ = l.write("error", p)
	return nil
}

// body is a stream of bytes. An error after its first byte cuts the connection, so that nobody takes a part for
// the whole: HTTP/1.1 and HTTP/2 both tell a cut body from a finished one.
type body struct {
	w     http.ResponseWriter
	typ   string
	began bool
}

func (b *body) Write(p []byte) (int, error) {
	if !b.began {
		b.began = true
		b.w.Header().Set("Content-Type", b.typ)
	}
	return b.w.Write(p)
}

// end finishes the stream. It does not return when it must be cut.
func (b *body) end(err error) error {
	switch {
	case err == nil && !b.began:
		b.w.Header().Set("Content-Type", b.typ)
		b.w.WriteHeader(http.StatusOK)
	case err != nil && b.began:
		panic(http.ErrAbortHandler)
	}
	return err
}

var _ io.Writer = (*body)(nil)
