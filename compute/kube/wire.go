package kube

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"
)

// The node and what it has started in a pod speak in frames: a length of 4 bytes, big-endian, that counts what follows it; a kind; a body.

// What the node tells.
const (
	tellTask  = 'T' // JSON of task: to run
	tellEntry = 'N' // JSON of entry: to take. Of a file the content follows
	bytesOf   = 'B' // content; either way
	tellEnd   = 'E' // nothing follows
)

// And what it is told.
const (
	sayBegan = 'b' // the program is begun
	sayOut   = '1' // to standard output
	sayErr   = '2' // to standard error
	sayExit  = 'X' // JSON of ending. After code 0 outputs follow
	sayFile  = 'F' // JSON of entry: an output; its content follows
	sayLeft  = 'x' // the path of something below /out that is no plain file
	sayDone  = 'E' // nothing follows
	sayFault = 'f' // the agent cannot do what it is there for, in words
)

const (
	maxPiece = 256 << 10       // of content
	maxFrame = maxPiece + 64   // of a body from a pod
	maxTask  = 4 << 20         // of a body from the node: arguments and environment
	maxFault = 4 << 10         // of words from a pod
	maxLeft  = 1000            // things below /out that are told of
	patience = 2 * time.Minute // for the answer to something that takes no time
)

// task is what is to run.
type task struct {
	Args      [][]byte `json:"args"` // the program's own name first; bytes, since JSON's text cannot hold all that may be one
	Env       [][]byte `json:"env"`
	Dir       string   `json:"dir"`
	Processes int      `json:"processes"`
	Port      int      `json:"port,omitempty"` // that a service answers on
}

// raw and texts turn what a program is given into what JSON carries unchanged, and back.
func raw(texts []string) (all [][]byte) {
	for _, t := range texts {
		all = append(all, []byte(t))
	}
	return all
}

func texts(raw [][]byte) []string {
	all := make([]string, 0, len(raw)) // not nil, which to package exec is this process's own environment
	for _, b := range raw {
		all = append(all, string(b))
	}
	return all
}

// entry is something below /in or /out.
type entry struct {
	Path     string    `json:"path"`
	Dir      bool      `json:"dir,omitempty"`
	Bytes    int64     `json:"size,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
}

// ending is how the program ended.
type ending struct {
	Code    int    `json:"code"`              // its own; -1: it did not end by itself
	Signal  string `json:"signal,omitempty"`  // that it ended by
	Memory  bool   `json:"memory,omitempty"`  // the kernel has ended something of the container for want of memory
	Crowded bool   `json:"crowded,omitempty"` // it was ended, since it had too many processes
	Fault   string `json:"fault,omitempty"`   // it could not be begun
}

var errFrame = errors.New("a frame that makes no sense")

// frames reads and writes them. One goroutine reads; the buffer of a body is used again by the next read. Many may write.
type frames struct {
	r    io.Reader
	max  int // of a body
	head [5]byte
	body []byte

	mu  sync.Mutex
	w   io.Writer
	out []byte
}

func (f *frames) read() (kind byte, body []byte, err error) {
	if _, err := io.ReadFull(f.r, f.head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(f.head[:4])
	if n < 1 || int64(n) > int64(f.max)+1 {
		return 0, nil, errFrame
	}
	if n--; cap(f.body) < int(n) {
		f.body = make([]byte, n)
	}
	body = f.body[:n]
	if _, err = io.ReadFull(f.r, body); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return f.head[4], body, err
}

// write sends one frame in one piece.
func (f *frames) write(kind byte, body []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out = binary.BigEndian.AppendUint32(f.out[:0], uint32(len(body)+1))
	f.out = append(append(f.out, kind), body...)
	_, err := f.w.Write(f.out)
	return err
}

func (f *frames) writeJSON(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(kind, b)
}

// writeContent sends exactly size bytes.
func (f *frames) writeContent(r io.Reader, size int64) error {
	piece := make([]byte, min(size, maxPiece))
	for size > 0 {
		n, err := io.ReadFull(r, piece[:min(size, maxPiece)])
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		if err := f.write(bytesOf, piece[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// content reads what the other side's writeContent sends.
type content struct {
	f    *frames
	left int64 // that has not come
	rest []byte
}

func (c *content) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if c.left == 0 {
			return 0, io.EOF
		}
		kind, body, err := c.f.read()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		if kind != bytesOf || len(body) == 0 || int64(len(body)) > c.left {
			return 0, errFrame
		}
		c.left -= int64(len(body))
		c.rest = body
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
