package oci

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// The node and a keeper speak frames over a stream socket: length, kind, number, payload. The keeper asks for what lies under /in by number, and is
// answered under the same; whatever else either says has number 0.
const (
	// from the keeper
	askStat     = 's' // path
	askList     = 'l' // path
	askOpen     = 'o' // path; answered with an openReply
	askRead     = 'r' // handle, offset, length and place in the window, 8 bytes each; answered with how much is there, or where there is no place, with the bytes
	askClose    = 'c' // handle; not answered
	askDial     = 'n' // a destination's name; answered with doConnect, or an error number
	tellReady   = 'y' // it stands
	tellStarted = 'b' // the program runs
	tellEnded   = 'e' // an ending
	tellPut     = 'p' // a putHeader; as many bytes follow in tellData
	tellData    = 'd'
	tellLeft    = 'x' // something under /out that is not taken, in words for the log
	tellDone    = 'z' // all outputs were told
	tellFault   = 'f' // the keeper's fault, in words
	// from the node
	doBoot    = 'B' // a bootSpec
	doRun     = 'R' // a runSpec; the descriptors are on the other socket
	doDial    = 'D' // a dialSpec; the descriptor is on the other socket
	doConnect = 'C' // a connection to a destination, under the number that it was asked for; the descriptor is on the other socket
	doCut     = 'H' // the connection of that number was cut off
	answer    = 'a' // an error number of 4 bytes, and where it is 0, what was asked for
)

// What a frame holds at most. A keeper is nearer to the tenant than the node, and may not have it hold much.
const (
	frameHeader  = 13
	maxFromKeep  = 1<<20 + 64
	maxFromNode  = 256 << 20
	pieceBytes   = 1 << 20 // of a file at once
	maxPathBytes = 4096
)

type frame struct {
	kind    byte
	number  uint64
	payload []byte
	end     *os.File // that came with it
}

// wire is one end. Frames may be sent by many at once, and are read by one.
type wire struct {
	mu  sync.Mutex
	w   io.Writer
	r   *bufio.Reader
	max int
}

func newWire(rw io.ReadWriter, max int) *wire {
	return &wire{w: rw, r: bufio.NewReaderSize(rw, 64<<10), max: max}
}

func (w *wire) send(kind byte, number uint64, payload []byte) error {
	h := make([]byte, frameHeader, frameHeader+min(len(payload), 4096))
	binary.BigEndian.PutUint32(h, uint32(len(payload)))
	h[4] = kind
	binary.BigEndian.PutUint64(h[5:], number)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(payload) <= 4096 {
		_, err := w.w.Write(append(h, payload...))
		return err
	}
	if _, err := w.w.Write(h); err != nil {
		return err
	}
	_, err := w.w.Write(payload)
	return err
}

func (w *wire) sendJSON(kind byte, number uint64, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.send(kind, number, b)
}

// receive reads a frame. Its payload is the caller's.
func (w *wire) receive() (f frame, err error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(w.r, h[:]); err != nil {
		return f, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if int64(n) > int64(w.max) {
		return f, fmt.Errorf("a frame of %d bytes", n)
	}
	f = frame{kind: h[4], number: binary.BigEndian.Uint64(h[5:]), payload: make([]byte, n)}
	_, err = io.ReadFull(w.r, f.payload)
	return f, err
}

// expect reads a frame of one kind into v; one of the other side's faults is an error.
func (w *wire) expect(kind byte, v any) error {
	f, err := w.receive()
	switch {
	case err != nil:
		return err
	case f.kind == tellFault:
		return errors.New(string(f.payload))
	case f.kind != kind:
		return fmt.Errorf("a frame %q, and %q was expected", f.kind, kind)
	case v == nil:
		return nil
	}
	return json.Unmarshal(f.payload, v)
}

// bootSpec is what a sandbox is begun with. It is the same for every run in it.
type bootSpec struct {
	Memory    int64    `json:"memory"`
	CPUs      float64  `json:"cpus"`
	Processes int      `json:"processes"`
	Disk      int64    `json:"disk"`
	Runc      string   `json:"runc,omitempty"`    // "": gVisor
	Devices   bool     `json:"devices,omitempty"` // a mount of them follows
	Serves    bool     `json:"serves,omitempty"`  // connections are made to its program
	Network   []string `json:"network,omitempty"` // destinations that its program connects to
}

// linked says whether the sandbox has a link beside its loopback.
func (b bootSpec) linked() bool { return b.Serves || len(b.Network) > 0 }

// runSpec is one run in a sandbox.
type runSpec struct {
	ID      string  `json:"id"`
	Process process `json:"process"`
}

// ending is how a program ended.
type ending struct {
	Code   int    `json:"code"`
	Signal int    `json:"signal"`
	Why    string `json:"why"` // it was ended, or never began
}

// fileInfo is a file under /in.
type fileInfo struct {
	Name  string `json:"n"`
	Dir   bool   `json:"d,omitempty"`
	Bytes int64  `json:"s,omitempty"`
	MTime int64  `json:"t,omitempty"` // Unix nanoseconds
}

type openReply struct {
	Handle uint64   `json:"h"`
	File   fileInfo `json:"f"`
}

type putHeader struct {
	Path  string `json:"p"`
	Bytes int64  `json:"s"`
}
