package wasm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"redoubt/compute"
)

// The worker and who started it speak in frames: a length of 4 bytes, big-endian, that counts what follows it; a kind; a body. The worker asks, and
// is answered before it asks again; what it says is not answered.

// The kinds of frames. Those of the worker:
const (
	askList  = 'L' // path -> JSON of []redoubt.JobFile
	askStat  = 'S' // path -> JSON of redoubt.JobFile
	askOpen  = 'O' // path -> handle, 4 bytes, not 0
	askRead  = 'R' // handle, offset, length: 4, 8, 4 bytes -> bytes; fewer at the end alone
	askPlace = 'p' // handle, offset, length, place of the window: 4, 8, 4, 1 bytes -> how many bytes lie there, 4 bytes; fewer at the end alone
	askClose = 'C' // handle, 4 bytes -> nothing
	sayOut   = '1' // to standard output; not answered
	sayErr   = '2' // to standard error; not answered
	sayEnd   = 'X' // JSON of ending; not answered. After code 0 outputs follow
	sayFile  = 'F' // JSON of output: its content follows; not answered
	sayBytes = 'D' // content; not answered
	sayMade  = 'M' // content of what was compiled; not answered
	sayReady = 'V' // the module is ready to be run; not answered
	sayUnfit = 'Z' // why what was compiled of the module is of no use here; not answered, and nothing follows
	sayDone  = 'E' // nothing follows
)

// And those of who started it.
const (
	tellLoad   = 'P' // JSON of loading
	tellModule = 'm' // a piece of the module
	tellMade   = 'M' // a piece of what was compiled of it before
	tellWhole  = 'W' // the module is whole: load it
	tellTask   = 'T' // JSON of task: run it
	answer     = 'A' // bytes
	refuse     = 'N' // a number of errno, 2 bytes
)

const (
	maxFrame   = 1<<20 + 64 // of a body: a piece of content, or a long list in pieces
	maxPiece   = 512 << 10  // of content: half of a pipe, so that who writes one need not wait for who reads it
	places     = 2          // of pieces, in the window of a worker that runs a job: one is written while the other is read
	maxList    = 64 << 20   // of a list, as JSON
	maxHandles = 512
)

// loading is what a worker is told before it knows what for.
type loading struct {
	Memory int64  `json:"memory"`         // bytes of the module's own
	Disk   int64  `json:"disk"`           // bytes below /out
	Module int64  `json:"module"`         // bytes of the module that follow
	Made   string `json:"made,omitempty"` // the name of what was compiled of it; "": nothing was
}

// unfit is what was compiled of a module and is of no use to who is to run it.
type unfit struct{ why string }

func (u *unfit) Error() string { return "what was compiled of the module is of no use: " + u.why }

// exit is how an attempt ends where what was compiled anew is of no use either.
func (u *unfit) exit() compute.Exit {
	return compute.Exit{Code: -1, Why: "it is no WebAssembly module that can be run here: " + compute.Plain(u.why)}
}

// ready hears that a worker has its module ready; an *unfit: it cannot have it of what it was given.
func (f *frames) ready() error {
	kind, body, err := f.read()
	switch {
	case err != nil:
		return err
	case kind == sayReady && len(body) == 0:
		return nil
	case kind == sayUnfit:
		return &unfit{string(body)}
	}
	return errFrame
}

// task is what one run is told.
type task struct {
	Args   []string `json:"args"`
	Env    []string `json:"env"`
	Memory int64    `json:"-"` // of loading
	Disk   int64    `json:"-"`
}

// ending is how the module ended.
type ending struct {
	Code    int    `json:"code"`
	Memory  bool   `json:"memory,omitempty"`  // it asked for more than it may use
	Fault   string `json:"fault,omitempty"`   // it trapped, or is no module
	Program bool   `json:"program,omitempty"` // Fault is about the program itself: it never began
}

// appendStrings writes strings, each behind its length of 4 bytes.
func appendStrings(b []byte, all []string) []byte {
	for _, s := range all {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

// readStrings is the other way.
func readStrings(b []byte) (all []string, err error) {
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return nil, errFrame
		}
		n := 4 + int(binary.BigEndian.Uint32(b))
		all, b = append(all, string(b[4:n])), b[n:]
	}
	return all, nil
}

// output is a file below /out.
type output struct {
	Path  string `json:"path"`
	Bytes int64  `json:"size"`
}

var errFrame = errors.New("a frame that makes no sense")

// frames reads and writes them. The buffer of a body is used again by the next read.
type frames struct {
	r    io.Reader
	w    io.Writer
	hold bool // what is written waits for flush, or for more than maxHeld
	head [5]byte
	body []byte
	out  []byte
}

const maxHeld = 16 << 10

func (f *frames) read() (kind byte, body []byte, err error) { return f.readInto(nil) }

// readInto has the body lie in b, where that has room for it.
func (f *frames) readInto(b []byte) (kind byte, body []byte, err error) {
	if _, err := io.ReadFull(f.r, f.head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(f.head[:4])
	if n < 1 || n > maxFrame {
		return 0, nil, errFrame
	}
	if n--; int(n) > len(b) {
		if cap(f.body) < int(n) {
			f.body = make([]byte, n)
		}
		b = f.body
	}
	body = b[:n]
	_, err = io.ReadFull(f.r, body)
	return f.head[4], body, err
}

// write sends one frame in one piece.
func (f *frames) write(kind byte, body ...[]byte) error {
	at := len(f.out)
	f.out = append(f.out, 0, 0, 0, 0, kind)
	for _, b := range body {
		f.out = append(f.out, b...)
	}
	if len(f.out)-at-4 > maxFrame {
		return fmt.Errorf("a frame of %d bytes", len(f.out)-at)
	}
	binary.BigEndian.PutUint32(f.out[at:], uint32(len(f.out)-at-4))
	if f.hold && len(f.out) < maxHeld {
		return nil
	}
	return f.flush()
}

// flush sends what waits.
func (f *frames) flush() error {
	_, err := f.w.Write(f.out)
	f.out = f.out[:0]
	return err
}

func (f *frames) writeJSON(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(kind, b)
}

// writeAll sends content in pieces of one kind.
func (f *frames) writeAll(kind byte, content io.Reader, buffer []byte) (int64, error) {
	var total int64
	for {
		n, err := io.ReadFull(content, buffer)
		if n > 0 {
			total += int64(n)
			if err := f.write(kind, buffer[:n]); err != nil {
				return total, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
