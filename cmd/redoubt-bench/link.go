package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
)

// The links that `-link` measures, by their letters in docs/benchmarks.md.
var roads = map[string]carrytest.Road{"B": carrytest.LinkB, "C": carrytest.LinkC}

// runLinks measures carriage over emulated links, all of them at the same time, since each waits for its link and not
// for the processor.
func runLinks(ctx context.Context, o options) error {
	var work sync.WaitGroup
	var mu sync.Mutex
	var all error
	for name := range strings.SplitSeq(o.link, ",") {
		road, ok := roads[name]
		if !ok {
			return fmt.Errorf("no link %q: B or C", name)
		}
		work.Go(func() {
			err := runLink(ctx, o, name, road)
			mu.Lock()
			defer mu.Unlock()
			all = errors.Join(all, err)
		})
	}
	work.Wait()
	return all
}

// linkBench is two nodes at the ends of an emulated link, in namespaces of their own.
type linkBench struct {
	name   string
	road   carrytest.Road
	link   *emulator
	a, b   carry.Conn
	server *tls.Config
	client *tls.Config
	random *rand.Rand
}

func runLink(ctx context.Context, o options, name string, road carrytest.Road) error {
	l, err := startEmulator(name, road, o.seed)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	defer l.close()
	b := &linkBench{name: name, road: road, link: l, random: rand.New(rand.NewPCG(o.seed, 1))}
	ea, eb, err := b.endpoints()
	if err != nil {
		return err
	}
	defer ea.Close()
	defer eb.Close()
	start := time.Now()
	if b.a, err = ea.Dial(ctx, b.client, netip.AddrPortFrom(l.addressB, carryPort)); err != nil {
		return err
	}
	if b.b, err = eb.Accept(ctx); err != nil {
		return err
	}
	b.print("dial", "%.2f s", time.Since(start).Seconds())
	for _, m := range []struct {
		name string
		run  func(context.Context) error
		when bool
	}{
		{"initial", b.initial, true},
		{"bulk", b.bulk, true},
		{"update", b.update, true},
		{"flash", b.flash, true},
		{"fair", b.fair, road.Down == 0}, // TCP beside it would sleep through what is up
	} {
		if !m.when || len(o.only) > 0 && !slices.Contains(o.only, m.name) {
			continue
		}
		if err := m.run(ctx); err != nil {
			return fmt.Errorf("link %s: %s: %w", name, m.name, err)
		}
	}
	return nil
}

func (b *linkBench) print(what, format string, args ...any) {
	fmt.Printf("link %-4s %-34s %s\n", b.name, what, fmt.Sprintf(format, args...))
}

// endpoints puts one in each namespace.
func (b *linkBench) endpoints() (ea, eb *carry.Endpoint, err error) {
	authority, err := carrytest.NewAuthority(time.Now())
	if err != nil {
		return nil, nil, err
	}
	if b.server, _, err = authority.Node("b", "a", time.Now()); err != nil {
		return nil, nil, err
	}
	if _, b.client, err = authority.Node("a", "b", time.Now()); err != nil {
		return nil, nil, err
	}
	listen := func(namespace string, address netip.Addr, port uint16) (s net.PacketConn, err error) {
		return s, within(namespace, func() error {
			s, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, port)))
			return err
		})
	}
	sa, err := listen(b.link.namespaceA, b.link.addressA, 0)
	if err != nil {
		return nil, nil, err
	}
	sb, err := listen(b.link.namespaceB, b.link.addressB, carryPort)
	if err != nil {
		return nil, nil, errors.Join(err, sa.Close())
	}
	if ea, err = carry.NewEndpoint(carry.Config{}, sa); err != nil {
		return nil, nil, err
	}
	eb, err = carry.NewEndpoint(carry.Config{Server: b.server}, sb)
	return ea, eb, err
}

const carryPort = 4711

// content is what no compression makes smaller; it begins with its number.
func (b *linkBench) content(n uint32, size int) []byte {
	msg := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(msg[i:], b.random.Uint64())
	}
	binary.BigEndian.PutUint32(msg, n)
	return msg
}

// initial is the 200 files of the measured workload, each as large as zstd leaves it.
func (b *linkBench) initial(ctx context.Context) error {
	var sizes []int
	for _, k := range []struct{ n, size int }{{150, 4 << 10}, {45, 100 << 10}, {5, 1 << 20}} {
		for range k.n {
			sizes = append(sizes, k.size*5/8)
		}
	}
	return b.transfer(ctx, "initial, 200 files", sizes)
}

func (b *linkBench) bulk(ctx context.Context) error {
	return b.transfer(ctx, "5 MiB bulk", slices.Repeat([]int{1 << 20}, 5))
}

// transfer sends messages one after the other, and prints how long they took against the link's floor.
func (b *linkBench) transfer(ctx context.Context, what string, sizes []int) error {
	start, age := time.Now(), b.link.age()
	sentBefore := b.a.Stats().SentBytes
	failed := make(chan error, 1)
	go func() {
		for i, size := range sizes {
			if err := b.a.Send(ctx, redoubt.Routine, b.content(uint32(i), size)); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	var total int64
	for i, size := range sizes {
		_, msg, err := b.b.Receive(ctx)
		if err != nil {
			return err
		}
		if len(msg) != size || binary.BigEndian.Uint32(msg) != uint32(i) {
			return fmt.Errorf("message %d is not the one that was sent", i)
		}
		total += int64(size)
	}
	took, floor := time.Since(start), b.road.Floor(total, age)
	sent := b.a.Stats().SentBytes - sentBefore
	up := b.road.UpTime(age, took).Seconds() / b.road.UpTime(age, floor).Seconds()
	b.print(what, "%.1f s, floor %.1f s, ratio %.3f, of the time up %.3f; %.3f bytes sent for each", took.Seconds(), floor.Seconds(),
		took.Seconds()/floor.Seconds(), up, float64(sent)/float64(total))
	return <-failed
}

// update sends what a small change of many files comes to, 15 messages of 4,200 bytes, now and then on a link at rest.
func (b *linkBench) update(ctx context.Context) error {
	const updates, messages, size, rest = 40, 15, 4200, 3 * time.Second
	floor := b.road.Floor(messages*size, 0)
	sentBefore := b.a.Stats().SentBytes
	var took []float64
	cut := 0
	for n := range uint32(updates) {
		select {
		case <-time.After(rest + time.Duration(b.random.Int64N(int64(rest)))):
		case <-ctx.Done():
			return ctx.Err()
		}
		start, age := time.Now(), b.link.age()
		for i := range uint32(messages) {
			if err := b.a.Send(ctx, redoubt.Routine, b.content(n*messages+i, size)); err != nil {
				return err
			}
		}
		for i := range uint32(messages) {
			if _, msg, err := b.b.Receive(ctx); err != nil || binary.BigEndian.Uint32(msg) != n*messages+i {
				return fmt.Errorf("update %d: message %d is not the one that was sent: %w", n, i, err)
			}
		}
		if b.road.DownAt(age-time.Second) || b.road.DownAt(age) || b.road.DownAt(age+2*floor) { // it met an outage
			cut++
		} else {
			took = append(took, time.Since(start).Seconds())
		}
	}
	if len(took) == 0 {
		return errors.New("every update met an outage")
	}
	slices.Sort(took)
	p50, p90 := took[len(took)/2], took[len(took)*9/10]
	b.print("update of 62 KB", "p50 %.2f s, p90 %.2f s, most %.2f s, floor %.2f s, ratio %.2f and %.2f (%d while up, %d met an outage); %.2f bytes sent for each",
		p50, p90, took[len(took)-1], floor.Seconds(), p50/floor.Seconds(), p90/floor.Seconds(), len(took), cut,
		float64(b.a.Stats().SentBytes-sentBefore)/(updates*messages*size))
	return nil
}

// flash sends 4 KiB of FLASH now and then while the link is full of routine.
func (b *linkBench) flash(ctx context.Context) error {
	const flashes, every = 60, 3 * time.Second
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() {
		for i := uint32(0); b.a.Send(ctx, redoubt.Routine, b.content(i, 200<<10)) == nil; i++ {
		}
	})
	sentAt := make([]time.Time, flashes)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(9, 9))
	work.Go(func() {
		for i := range sentAt {
			select {
			case <-time.After(every/2 + time.Duration(random.Int64N(int64(every)))):
			case <-ctx.Done():
				return
			}
			mu.Lock()
			sentAt[i] = time.Now()
			mu.Unlock()
			msg := make([]byte, 4<<10)
			binary.BigEndian.PutUint32(msg, uint32(i))
			if b.a.Send(ctx, redoubt.Flash, msg) != nil {
				return
			}
		}
	})
	var took []float64
	cut := 0
	for n := 0; n < flashes; {
		p, msg, err := b.b.Receive(ctx)
		if err != nil {
			return err
		}
		if p != redoubt.Flash {
			continue
		}
		mu.Lock()
		at := sentAt[binary.BigEndian.Uint32(msg)]
		mu.Unlock()
		age := b.link.age() - time.Since(at)
		if b.road.DownAt(age) || b.road.DownAt(age+time.Second) { // it met an outage
			cut++
		} else {
			took = append(took, time.Since(at).Seconds())
		}
		n++
	}
	slices.Sort(took)
	b.print("4 KiB FLASH under bulk", "p50 %.2f s, p90 %.2f s, most %.2f s (%d while up, %d met an outage)",
		took[len(took)/2], took[len(took)*9/10], took[len(took)-1], len(took), cut)
	return nil
}

// fair fills the link beside one TCP flow, and prints what each had.
func (b *linkBench) fair(ctx context.Context) error {
	const settle, measure = 20 * time.Second, 60 * time.Second
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tcp, err := startTCP(ctx, b.link.namespaceA, b.link.namespaceB, b.link.addressB)
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() {
		for i := uint32(0); b.a.Send(ctx, redoubt.Routine, b.content(i, 100<<10)) == nil; i++ {
		}
	})
	ours := &counter{}
	work.Go(func() {
		for {
			_, msg, err := b.b.Receive(ctx)
			if err != nil {
				return
			}
			ours.add(len(msg))
		}
	})
	for _, phase := range []time.Duration{settle, measure} {
		ours.reset()
		tcp.reset()
		select {
		case <-time.After(phase):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	us, them := float64(ours.get()), float64(tcp.get())
	b.print("beside one TCP flow ("+tcpCongestion+")", "it keeps %.0f %%, we %.0f %%; together %.0f kbit/s",
		100*them/(us+them), 100*us/(us+them), (us+them)*8/measure.Seconds()/1000)
	return nil
}

// startTCP keeps one TCP connection full from one namespace to an address in another until ctx is done.
func startTCP(ctx context.Context, from, to string, at netip.Addr) (*counter, error) {
	var l net.Listener
	err := within(to, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(at, carryPort).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	var out net.Conn
	in := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			in <- c
		}
		close(in)
	}()
	err = within(from, func() (err error) {
		out, err = dialWith(ctx, tcpCongestion, l.Addr().String())
		return err
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	received := <-in
	context.AfterFunc(ctx, func() { out.Close(); received.Close(); l.Close() })
	n := &counter{}
	go func() {
		block := make([]byte, 64<<10)
		for {
			if _, err := out.Write(block); err != nil {
				return
			}
		}
	}()
	go io.Copy(n, received)
	return n, nil
}

// counter counts bytes.
type counter struct {
	mu sync.Mutex
	n  int64
}

func (c *counter) add(n int) { c.mu.Lock(); c.n += int64(n); c.mu.Unlock() }
func (c *counter) reset()    { c.mu.Lock(); c.n = 0; c.mu.Unlock() }
func (c *counter) get() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) { c.add(len(b)); return len(b), nil }
