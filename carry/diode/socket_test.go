package diode

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// queuedAt gives a datagram that lies in a socket's queue now, if there is one.
func queuedAt(t *testing.T, c *net.UDPConn) (n int, ok bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, MaxDatagram)
	if err := raw.Control(func(fd uintptr) { n, _, err = syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT) }); err != nil {
		t.Fatal(err)
	}
	if err != nil && !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
	return n, err == nil
}

func TestTheReceiverNeverSendsAnything(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	p := newPost(t)
	from, at, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The datagrams come from a socket that can be sent to, as an answer would be.
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Receive(ctx, from) }()
	q := plan()
	q.Rate = 200_000_000
	w := writer(func(b []byte) (int, error) { return c.WriteTo(b, at) })
	s, err := NewSender(w, q)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Load(ctx, InMemory(file), int64(len(file)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // the kernel of a busy machine may drop some
		if err := s.Send(ctx, l, nil); err != nil {
			t.Fatal(err)
		}
		w([]byte("no datagram of ours"))
		for p.Counts().Foreign == 0 { // all before it were read
			if ctx.Err() != nil {
				break
			}
			w([]byte("again"))
		}
		if len(p.files()) > 0 {
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	p.has(file)
	if n, ok := queuedAt(t, c); ok {
		t.Errorf("the receiver sent %d bytes back", n)
	}
	// That this would have been seen:
	if _, err := c.WriteTo([]byte("answer"), c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if n, ok := queuedAt(t, c); !ok || n != 6 {
		t.Errorf("an answer is not seen: %d, %v", n, ok)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestNothingReachesTheSender(t *testing.T) {
	closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := closed.LocalAddr().String()
	s, err := Dial(at, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	closed.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, from, err := closed.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := closed.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	if n, ok := queuedAt(t, s.c); ok {
		t.Errorf("%d bytes lie in the sender's queue", n)
	}
	// Where nobody listens the kernel says so by ICMP, and the sender is not told.
	closed.Close()
	for range 3 {
		if _, err := s.Write([]byte("into nothing")); err != nil {
			t.Errorf("a refusal came back: %v", err)
		}
	}
	if _, err := Dial("127.0.0.1:9", "no address"); err == nil {
		t.Error("a source that is no address is taken")
	}
	if _, err := Dial("no address", ""); err == nil {
		t.Error("no address is one")
	}
}

func TestASourceThatFailsEndsTheReceiving(t *testing.T) {
	p := newPost(t)
	if err := p.Receive(context.Background(), broken{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

type broken struct{}

func (broken) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, os.ErrPermission }
func (broken) Close() error                           { return nil }

// TestWhatComesTogetherIsReadTogether, and each is taken for what it is.
func TestWhatComesTogetherIsReadTogether(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere datagrams come one by one")
	}
	var ours [][]byte
	s, err := NewSender(writer(func(b []byte) (int, error) { ours = append(ours, bytes.Clone(b)); return len(b), nil }), plan())
	if err != nil {
		t.Fatal(err)
	}
	file := newBundle(t, 1, 1<<20)
	l, err := s.Load(t.Context(), InMemory(file), int64(len(file)), nil, nil)
	if err == nil {
		err = s.Send(t.Context(), l, nil)
	}
	if err != nil || len(ours) < 3*batched {
		t.Fatalf("%d datagrams, %v", len(ours), err)
	}
	foreign := slices.Repeat([][]byte{[]byte("nothing of ours")}, 3*batched)
	for name, come := range map[string][][]byte{"few": ours[:batched-1], "many": ours[:3*batched], "foreign": foreign} {
		p := newPost(t)
		from, at, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		out, err := net.Dial("udp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range come {
			if _, err := out.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ended := make(chan error, 1)
		go func() { ended <- p.Receive(ctx, from) }()
		for ctx.Err() == nil && p.Counts().Foreign+p.Counts().Datagrams < int64(len(come)) {
			runtime.Gosched()
		}
		if ctx.Err() != nil {
			t.Errorf("%s: %+v came", name, p.Counts())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		out.Close()
	}
}

// listenAndDial is a way in, and a socket that leads there.
func listenAndDial(t *testing.T) (from Source, out net.Conn) {
	t.Helper()
	from, at, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close() })
	if out, err = net.Dial("udp", at.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return from, out
}

// TestWhoReadsIsBehindWhereMuchWaits: of what the kernel has room for so much is taken that the rest may not do, by who sends what is ours.
func TestWhoReadsIsBehindWhereMuchWaits(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere nobody tells what waits")
	}
	p := newPost(t)
	from, out := listenAndDial(t)
	if p.Behind() {
		t.Error("nothing is read, and it is behind")
	}
	source := from.(*udpSource)
	p.source.Store(source)
	now := func() { p.ours.Store(int64(time.Since(p.opened)) + 1) }
	if now(); p.Behind() {
		t.Error("nothing waits, and it is behind")
	}
	_, room := backlog(source.c)
	wrote, waits := 0, 0
	for ; waits <= room/8*behindEighths && wrote < room; wrote += 8192 {
		if _, err := out.Write(make([]byte, 8192)); err != nil {
			t.Fatal(err)
		}
		if waits, _ = backlog(source.c); waits <= room/8*behindEighths && p.Behind() {
			t.Fatalf("%d of %d wait, and it is behind", waits, room)
		}
	}
	if now(); wrote == 0 || !p.Behind() {
		t.Errorf("%d were written, %d of %d wait, and it is not behind", wrote, waits, room)
	}
	if p.ours.Store(0); p.Behind() {
		t.Error("nothing of ours ever came, and it is behind")
	}
	p.ours.Store(int64(time.Since(p.opened)) - int64(oursFor) - 1)
	if p.Behind() {
		t.Error("nothing of ours came lately, and it is behind")
	}
	p.source.Store(nil)
	if now(); p.Behind() {
		t.Error("nobody reads any more, and it is behind")
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- p.Receive(ctx, from) }()
	for p.source.Load() != source && ctx.Err() == nil {
		runtime.Gosched()
	}
	if ctx.Err() != nil {
		t.Error("what is received from is not what is asked")
	}
	if stop(); <-ended != nil || p.source.Load() != nil {
		t.Error("it ended, and is asked yet")
	}
}

// TestOneCallReadsManyDatagrams that wait.
func TestOneCallReadsManyDatagrams(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere datagrams come one by one")
	}
	from, out := listenAndDial(t)
	for i := range batched + 1 {
		if _, err := out.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	b := newBatch()
	if err := b.read(from); err != nil || b.n != batched {
		t.Fatalf("%d of %d, %v", b.n, batched+1, err)
	}
	for i := range batched {
		if m := b.all[i]; m.N != 1 || m.Buffers[0][0] != byte(i) {
			t.Errorf("number %d: %d bytes of another", i, m.N)
		}
	}
}
