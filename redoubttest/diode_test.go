package redoubttest

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// lossy passes datagrams on to an address, and loses a tenth of them; some overtake others. It counts what comes back, which it passes
// on to nobody.
type lossy struct {
	at                string
	mu                sync.Mutex
	came, gone, backs int
}

func newLossy(t *testing.T, to string) *lossy {
	t.Helper()
	in, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	l := &lossy{at: in.LocalAddr().String()}
	var both sync.WaitGroup
	both.Go(func() {
		r := rand.New(rand.NewPCG(1, 5))
		b, late := make([]byte, 10_000), []byte(nil)
		for {
			n, _, err := in.ReadFrom(b)
			if err != nil {
				return
			}
			l.mu.Lock()
			l.came++
			lost := r.IntN(10) == 0
			if lost {
				l.gone++
			}
			l.mu.Unlock()
			switch {
			case lost:
			case late == nil && r.IntN(5) == 0:
				late = bytes.Clone(b[:n])
			default:
				out.Write(b[:n]) // one that fails is lost, too
				if late != nil {
					out.Write(late)
					late = nil
				}
			}
		}
	})
	both.Go(func() {
		b := make([]byte, 10_000)
		for {
			if _, err := out.Read(b); err != nil {
				return
			}
			l.mu.Lock()
			l.backs++
			l.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		in.Close()
		out.Close()
		both.Wait()
	})
	return l
}

func (l *lossy) counts() (came, gone, backs int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.came, l.gone, l.backs
}

func TestVersionsReachTheOutpostOverALossyDiode(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	_, home := r.env("s-analyst", "secret")
	_, there := r.env("s-analyst", "outpost")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	var keys struct {
		Home string `json:"home_key"`
	}
	if err := json.Unmarshal([]byte(r.must("link", "status", "outpost", "--json")), &keys); err != nil {
		t.Fatal(err)
	}
	r.must("link", "cut", "outpost")
	imagery := tracks(9 << 20)
	home.put(t, "imagery", imagery)
	home.put(t, "orders", []byte("advance"))
	folder := t.TempDir()
	file, key, in := filepath.Join(folder, "b.rbundle"), filepath.Join(folder, "diode.key"), filepath.Join(folder, "in")
	r.must("bundle", "export", "--from", "secret", "--for", "outpost", "--to", file)
	r.must("diode", "key", key)

	address := freeUDP(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	receive := exec.CommandContext(ctx, r.exe, "diode", "receive", "--listen", address, "--to", in, "--diode-key", key, "--maker", "secret="+keys.Home,
		"--count", "1", "--import", "--at", "outpost")
	var said bytes.Buffer
	receive.Env, receive.Stderr = r.command().Env, &said
	if err := receive.Start(); err != nil {
		t.Fatal(err)
	}
	var outcome error
	ended := make(chan struct{})
	go func() { outcome = receive.Wait(); close(ended) }()
	defer func() { cancel(); <-ended }() // where the test ends early
	until(t, "the receiver has its folder", func() bool { _, err := os.Stat(filepath.Join(in, ".diode", "lock")); return err == nil })
	road := newLossy(t, address)
	// One pass is enough but for a machine that is so busy that its kernel drops more than the road does: then it is sent again.
	for whole := false; !whole; {
		r.must("diode", "send", file, "--to", road.at, "--rate", "16Mbit", "--diode-key", key)
		select {
		case <-ended:
			whole = true
		case <-time.After(5 * time.Second): // it takes the bundle in, or waits for what it lacks: another process
		}
	}
	if outcome != nil {
		t.Fatalf("the receiver ended with %v (%v): %s", outcome, context.Cause(ctx), said.String())
	}
	if got := there.get(t, "imagery"); !bytes.Equal(got, imagery) {
		t.Errorf("the outpost has %d bytes, want %d: %s", len(got), len(imagery), said.String())
	}
	if got := there.get(t, "orders"); string(got) != "advance" {
		t.Errorf("the outpost has %q", got)
	}
	came, gone, backs := road.counts()
	if gone < came/20 || backs != 0 {
		t.Errorf("of %d datagrams %d were lost, and %d came back", came, gone, backs)
	}
	if out := r.must("diode", "status", in); !strings.Contains(out, "whole    1\n") || !strings.Contains(out, "missing  -") {
		t.Errorf("the status is %s", out)
	}
}

// freeUDP is a loopback address that no datagram socket has.
func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}
