package tpm

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"redoubt/tpm/tpmtest"
)

func TestPullingThePowerTurnsTheClockForward(t *testing.T) {
	m := tpmtest.Start(t)
	c := Chip{m.Path}
	// A clock that the TPM has saved, well ahead of what it counts itself in this test.
	if err := m.Do(func(tp transport.TPM) error { return setClock(tp, 500_000_000) }); err != nil {
		t.Fatal(err)
	}
	before := must[time.Duration](t)(c.Clock())
	if before < 500_000*time.Second {
		t.Fatalf("got %v", before)
	}
	if err := m.Off(); err != nil {
		t.Fatal(err)
	}
	must[int](t)(0, m.On())
	orderly := must[time.Duration](t)(c.Clock())
	if orderly < before || orderly > before+time.Minute {
		t.Errorf("after an orderly stop: got %v, from %v", orderly, before)
	}
	m.Kill()
	must[int](t)(0, m.On())
	pulled := must[time.Duration](t)(c.Clock())
	var lost uint32
	if err := m.Do(func(tp transport.TPM) (err error) {
		lost, err = property(tp, tpm2.TPMPTClockUpdate)
		return err
	}); err != nil || lost == 0 {
		t.Fatal(lost, err)
	}
	if pulled < before+asDuration(uint64(lost)) { // it was saved when it was switched off, and all since may be lost
		t.Errorf("after power was pulled: got %v, from %v, of which %d ms may be lost", pulled, before, lost)
	}
	if again := must[time.Duration](t)(c.Clock()); again < pulled || again > pulled+time.Minute {
		t.Errorf("one loss of power was added twice: %v, then %v", pulled, again)
	}
}

func TestATPMsAnswerHasALimit(t *testing.T) {
	for size, ok := range map[uint32]bool{9: false, 10: true, maxAnswerBytes: true, maxAnswerBytes + 1: false, 1 << 31: false} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the connection
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.ReadFull(c, make([]byte, 2))
			_, _ = c.Write(append(binary.BigEndian.AppendUint32([]byte{0x80, 1}, size), make([]byte, max(4, min(size, 8192)-6))...))
		}()
		tp, err := Chip{path}.open("test")
		if err != nil {
			t.Fatal(err)
		}
		got, err := tp.Send([]byte{1, 2})
		if ok != (err == nil) || ok && len(got) != int(size) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		tp.Close()
		l.Close()
	}
}
