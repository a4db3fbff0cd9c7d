package node

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"redoubt"
)

// A silent device sends nothing: not for its jobs either.
func TestASilentDeviceReachesNothingForItsJobs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := new(reach)
	c, err := r.dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	r.keep(true)
	if _, err := far.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was connected goes on: %v", err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("it could say something")
	}
	if _, err := r.dial(t.Context(), l.Addr().String()); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("a dial in silence: %v", err)
	}
	r.keep(false)
	again, err := r.dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil || len(r.open) != 0 || len(r.dials) != 0 {
		t.Errorf("closing left %d and %d, %v", len(r.open), len(r.dials), err)
	}
}
