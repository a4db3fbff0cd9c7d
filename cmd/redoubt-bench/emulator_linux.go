package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"redoubt/carry/carrytest"
)

// tcpCongestion is whom fairness is measured beside.
const tcpCongestion = "bbr"

// emulator is a link between two network namespaces: a TUN device in each, and a road in each direction between them. It needs root.
type emulator struct {
	namespaceA, namespaceB string
	addressA, addressB     netip.Addr
	devices                [2]*os.File
	work                   sync.WaitGroup

	mu    sync.Mutex
	began time.Time             // of the road
	ways  [2]*carrytest.Traffic // from a to b, and back
	moved [2]map[byte]int64     // bytes that arrived, by IP protocol
}

// startEmulator makes the namespaces, the devices and their addresses, and moves packets from then on. The zero Road is instant and perfect.
func startEmulator(name string, road carrytest.Road, seed uint64) (*emulator, error) {
	e := &emulator{
		namespaceA: fmt.Sprintf("redoubt-bench-%d-%s-a", os.Getpid(), name), namespaceB: fmt.Sprintf("redoubt-bench-%d-%s-b", os.Getpid(), name),
		addressA: netip.MustParseAddr("10.214.0.1"), addressB: netip.MustParseAddr("10.214.0.2"),
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("an emulated link needs root: namespaces and TUN devices")
	}
	for i, namespace := range []string{e.namespaceA, e.namespaceB} {
		if err := ip("netns", "add", namespace); err != nil {
			return nil, errors.Join(err, e.close())
		}
		err := within(namespace, func() (err error) {
			e.devices[i], err = openTUN("link0")
			return err
		})
		address := []netip.Addr{e.addressA, e.addressB}[i].String() + "/30"
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", address, "dev", "link0"}, {"link", "set", "link0", "mtu", "1500", "txqueuelen", "1000", "up"}} {
			if err == nil {
				err = ip(append([]string{"-n", namespace}, args...)...)
			}
		}
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	e.become(road, seed)
	e.move(0)
	e.move(1)
	return e, nil
}

// become makes the link another one, which begins now. What is on the way still arrives.
func (e *emulator) become(road carrytest.Road, seed uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.began = time.Now()
	for i := range e.ways {
		e.ways[i], e.moved[i] = carrytest.NewTraffic(road, seed, uint64(i)+1, e.began), map[byte]int64{}
	}
}

// age is how long the link has been there: its outages count from its beginning.
func (e *emulator) age() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Since(e.began)
}

// sent is how many bytes were sent into the link from a to b and back, in whole packets, lost ones included.
func (e *emulator) sent() [2]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return [2]int64{e.ways[0].SentBytes, e.ways[1].SentBytes}
}

// arrived is how many bytes of an IP protocol came out of the link, both ways together.
func (e *emulator) arrived(protocol byte) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.moved[0][protocol] + e.moved[1][protocol]
}

// take says when a packet that goes in one direction arrives.
func (e *emulator) take(way int, packet []byte) []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := e.ways[way].Take(len(packet), time.Now())
	if len(packet) >= 20 && packet[0]>>4 == 4 {
		e.moved[way][packet[9]] += int64(len(at) * len(packet))
	}
	return at
}

// onTheWay is how many packets may be on one direction of a link.
const onTheWay = 1 << 16

type moving struct {
	packet []byte
	at     time.Time
}

// move takes packets from one device to the other, until the devices are closed.
func (e *emulator) move(direction int) {
	from, to := e.devices[direction], e.devices[1-direction]
	way := make(chan moving, onTheWay)
	e.work.Go(func() {
		for m := range way {
			time.Sleep(time.Until(m.at))
			to.Write(m.packet) // a device that takes no more is one that was closed
		}
	})
	e.work.Go(func() {
		defer close(way)
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			for _, at := range e.take(direction, buf[:n]) {
				way <- moving{append([]byte(nil), buf[:n]...), at}
			}
		}
	})
}

// close takes everything down again.
func (e *emulator) close() error {
	var all error
	for _, d := range e.devices {
		if d != nil {
			all = errors.Join(all, d.Close())
		}
	}
	e.work.Wait()
	for _, namespace := range []string{e.namespaceA, e.namespaceB} {
		all = errors.Join(all, ip("netns", "del", namespace))
	}
	return all
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %q: %w: %s", args, err, out)
	}
	return nil
}

// within runs f in a network namespace: what it opens belongs there. The thread is thrown away with it.
func within(namespace string, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		handle, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			err = unix.Setns(int(handle.Fd()), unix.CLONE_NEWNET)
			handle.Close()
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// openTUN makes a TUN device.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// dialWith opens a TCP connection under a congestion control.
func dialWith(ctx context.Context, congestion, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		})
		return errors.Join(err, controlErr)
	}}
	return d.DialContext(ctx, "tcp", address)
}
