package carrytest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
)

// Test holds a pair of Conns, as open makes it, against the contract of carry.Conn. It runs in real time and in a
// testing/synctest bubble. open's cleanup is for what stands behind the Conns; the test closes them.
func Test(t *testing.T, open func(t *testing.T) (a, b carry.Conn)) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, a, b carry.Conn)
	}{
		{"EveryMessageArrivesOnceWholeAndInOrder", everyMessageArrives},
		{"SizesAreLimited", sizesAreLimited},
		{"SendBlocksWhenTheQueueIsFullAndFailedSendsSendNothing", sendBlocks},
		{"OnePrecedenceThatIsNotReceivedHoldsUpNoOther", noHeadOfLine},
		{"TheHighestPrecedenceIsReceivedFirst", highestFirst},
		{"PeersKnowOneAnother", peersKnow},
		{"CloseEndsBothSides", closeEnds},
		{"CloseMayBeCalledAgainAndFromManySides", closeAgain},
		{"ADoneContextEndsACallAndNothingElse", contextEnds},
		{"WhatIsGivenBackIsNotWhatOthersHold", givenBack},
		{"StatsTellWhatStandsInTheQueues", statsTell},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := open(t)
			defer a.Close()
			defer b.Close()
			c.test(t, a, b)
		})
	}
}

func fill(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// everyMessageArrives sends in both directions at once, in every precedence, sizes from 1 byte up.
func everyMessageArrives(t *testing.T, a, b carry.Conn) {
	ctx := t.Context()
	var work sync.WaitGroup
	for i, ends := range [][2]carry.Conn{{a, b}, {b, a}} {
		from, to := ends[0], ends[1]
		sizes := []int{1, 2, 1199, 1200, 1201, 70_000, 3, 200_000, 1}
		make := func(p redoubt.Precedence, n int) []byte {
			return fill(rand.New(rand.NewPCG(uint64(i), uint64(p)<<32|uint64(n))), sizes[n%len(sizes)])
		}
		const each = 27
		for p := range redoubt.Precedence(redoubt.Precedences) {
			work.Go(func() {
				for n := range each {
					msg := make(p, n)
					if err := from.Send(ctx, p, msg); err != nil {
						t.Errorf("Send: %v", err)
						return
					}
					clear(msg) // it was copied
				}
			})
		}
		work.Go(func() {
			var next [redoubt.Precedences]int
			for range each * redoubt.Precedences {
				p, msg, err := to.Receive(ctx)
				if err != nil {
					t.Errorf("Receive: %v", err)
					return
				}
				if want := make(p, next[p]); !bytes.Equal(msg, want) {
					t.Errorf("%v message %d: got %d bytes, want %d, or not the same", p, next[p], len(msg), len(want))
					return
				}
				next[p]++
			}
		})
	}
	work.Wait()
}

func sizesAreLimited(t *testing.T, a, b carry.Conn) {
	ctx := t.Context()
	for _, c := range []struct {
		p    redoubt.Precedence
		n    int
		kind error
	}{
		{redoubt.Routine, 0, redoubt.Invalid},
		{redoubt.Precedence(redoubt.Precedences), 1, redoubt.Invalid},
		{redoubt.Routine, carry.MaxMessage + 1, redoubt.TooLarge},
	} {
		if err := a.Send(ctx, c.p, make([]byte, c.n)); !errors.Is(err, c.kind) {
			t.Errorf("%d bytes of %v: got %v, want %v", c.n, c.p, err, c.kind)
		}
	}
	largest := fill(rand.New(rand.NewPCG(1, 1)), carry.MaxMessage)
	for range 3 { // more than a window holds
		if err := a.Send(ctx, redoubt.Priority, largest); err != nil {
			t.Fatal(err)
		}
		if p, msg, err := b.Receive(ctx); err != nil || p != redoubt.Priority || !bytes.Equal(msg, largest) {
			t.Fatalf("got %v, %d bytes, %v", p, len(msg), err)
		}
	}
}

// sendBlocks fills a queue until a Send does not return, and looks that nothing of that Send arrives.
func sendBlocks(t *testing.T, a, b carry.Conn) {
	msg := fill(rand.New(rand.NewPCG(2, 2)), 256<<10)
	sent := 0
	for ; sent < 4096; sent++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := a.Send(ctx, redoubt.Routine, msg)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if sent == 4096 {
		t.Fatal("a gigabyte was taken, and nobody receives it")
	}
	for range sent {
		if _, got, err := b.Receive(t.Context()); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	if err := a.Send(t.Context(), redoubt.Routine, []byte("after")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := b.Receive(t.Context()); err != nil || string(got) != "after" {
		t.Errorf("after %d messages came %d bytes, %v", sent, len(got), err)
	}
}

// givenBack has every second message given back while the others are held on to.
func givenBack(t *testing.T, a, b carry.Conn) {
	const messages = 24
	made := func(i int) []byte { return fill(rand.New(rand.NewPCG(8, uint64(i))), 17_000+i*4_000) }
	go func() {
		for i := range messages {
			if err := a.Send(t.Context(), redoubt.Routine, made(i)); err != nil {
				return
			}
		}
	}()
	held := map[int][]byte{}
	for i := range messages {
		_, got, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, made(i)) {
			t.Fatalf("message %d came changed", i)
		}
		if i%2 == 0 {
			b.Recycle(got)
		} else {
			held[i] = got
		}
	}
	for i, got := range held {
		if !bytes.Equal(got, made(i)) {
			t.Errorf("message %d changed while it was held", i)
		}
	}
}

// noHeadOfLine leaves routine unreceived until it blocks its sender; priority still passes.
func noHeadOfLine(t *testing.T, a, b carry.Conn) {
	ctx, cancel := context.WithCancel(t.Context())
	blocked := make(chan int)
	go func() {
		n := 0
		for a.Send(ctx, redoubt.Routine, make([]byte, 512<<10)) == nil {
			n++
		}
		blocked <- n
	}()
	for i := range 50 {
		msg := []byte{byte(i)}
		if err := a.Send(t.Context(), redoubt.Priority, msg); err != nil {
			t.Fatal(err)
		}
		for {
			p, got, err := b.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if p == redoubt.Priority {
				if !bytes.Equal(got, msg) {
					t.Errorf("message %d: got %v", i, got)
				}
				break
			}
		}
	}
	cancel()
	<-blocked
}

func highestFirst(t *testing.T, a, b carry.Conn) {
	const size = 50_000
	before := b.Stats().ReceivedBytes
	for p := range redoubt.Precedence(redoubt.Precedences) {
		if err := a.Send(t.Context(), p, bytes.Repeat([]byte{byte(p)}, size)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { // all of it is there: by what was acknowledged, or by what came
		s := a.Stats()
		return s.QueuedBytes == [redoubt.Precedences]int{} && s.UnackedBytes == [redoubt.Precedences]int{} &&
			b.Stats().ReceivedBytes-before >= redoubt.Precedences*size
	})
	for i := redoubt.Precedences - 1; i >= 0; i-- {
		if p, msg, err := b.Receive(t.Context()); err != nil || int(p) != i || len(msg) != size || msg[0] != byte(i) {
			t.Errorf("got %v, %d bytes, %v, want precedence %d", p, len(msg), err, i)
		}
	}
}

// waitFor returns when a condition holds that the Conns come to by themselves.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	for range 10_000 {
		if holds() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it does not come about")
}

func peersKnow(t *testing.T, a, b carry.Conn) {
	if a.Peer() == nil || b.Peer() == nil {
		t.Fatal("no certificate")
	}
	if got, want := a.Peer().Subject.CommonName, "b"; got != want {
		t.Errorf("a talks to %q, want %q", got, want)
	}
	if got, want := b.Peer().Subject.CommonName, "a"; got != want {
		t.Errorf("b talks to %q, want %q", got, want)
	}
}

func closeEnds(t *testing.T, a, b carry.Conn) {
	if err := a.Send(t.Context(), redoubt.Routine, []byte("last")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := b.Receive(t.Context()); err != nil || string(msg) != "last" {
		t.Fatalf("got %q, %v", msg, err)
	}
	waiting := make(chan error)
	go func() {
		_, _, err := b.Receive(t.Context())
		waiting <- err
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("the other side's Receive: got %v, want Unavailable", err)
	}
	for _, c := range []carry.Conn{a, b} {
		if err := c.Send(t.Context(), redoubt.Routine, []byte("x")); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("Send after the end: got %v, want Unavailable", err)
		}
		if _, _, err := c.Receive(t.Context()); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("Receive after the end: got %v, want Unavailable", err)
		}
	}
}

func closeAgain(t *testing.T, a, b carry.Conn) {
	var work sync.WaitGroup
	for range 4 {
		for _, c := range []carry.Conn{a, b} {
			work.Go(func() {
				if err := c.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
	}
	work.Wait()
	if err := a.Close(); err != nil {
		t.Errorf("Close once more: %v", err)
	}
}

func contextEnds(t *testing.T, a, b carry.Conn) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Send(gone, redoubt.Flash, []byte("never")); !errors.Is(err, context.Canceled) {
		t.Errorf("Send: got %v", err)
	}
	if _, _, err := b.Receive(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Receive: got %v", err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := b.Receive(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive of nothing: got %v", err)
	}
	if err := a.Send(t.Context(), redoubt.Flash, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := b.Receive(t.Context()); err != nil || string(msg) != "still here" {
		t.Errorf("got %q, %v", msg, err)
	}
}

func statsTell(t *testing.T, a, b carry.Conn) {
	if err := a.Send(t.Context(), redoubt.Immediate, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, r := a.Stats(), b.Stats()
	if s.SentBytes < 5000 || r.ReceivedBytes < 5000 {
		t.Errorf("5,000 bytes crossed, and the counters say %d and %d", s.SentBytes, r.ReceivedBytes)
	}
	if s.State != carry.Up || s.Remote == "" || s.QueuedBytes[redoubt.Immediate] != 0 {
		t.Errorf("got %+v", s)
	}
}
