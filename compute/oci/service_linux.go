package oci

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"redoubt"
	"redoubt/compute"
)

// A service that is an image runs on in a sandbox of its own, which has no network but its own loopback and a link that ends in its keeper
// (network_linux.go). A request reaches it by a connection that the keeper makes over that to the program's port, and of which the other end is a socket
// that the node holds.

// How long a service has until it answers, and how often it is asked whether it does.
const (
	readyTimeout = time.Minute
	readyEvery   = 50 * time.Millisecond
	callTimeout  = 5 * time.Second // until the program's end of a connection stands
	forEver      = 10 * 365 * 24 * time.Hour
)

// dialSpec is what a keeper is told to connect; the descriptor is on the other socket.
type dialSpec struct {
	Port uint16 `json:"port"`
}

// dial gives a connection to a port of the program that runs in the sandbox. Where nobody listens there, it ends at once.
func (b *box) dial(port uint16) (net.Conn, error) {
	theirs, ours, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := b.give(theirs, func() error { return b.wire.sendJSON(doDial, 0, dialSpec{port}) }); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return ours, nil
}

// dial connects what the node holds the other end of to a port in the sandbox.
func (k *keeper) dial(s dialSpec) error {
	fds, err := k.takeDescriptors(1)
	if err != nil {
		return err
	}
	end := os.NewFile(uintptr(fds[0]), "request")
	node, err := net.FileConn(end)
	end.Close()
	if err != nil {
		return err
	}
	go func() {
		defer node.Close()
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		c, err := k.net.dial(ctx, s.Port)
		cancel()
		if err != nil {
			return // the node sees that it ends, and asks again or says so
		}
		defer c.Close()
		answerOver(c, node)
	}()
	return nil
}

// answerOver passes bytes on between a program and the node, until either has ended. The node sends no end of a request before its answer has come: where
// it does, it has given the request up.
func answerOver(program, node net.Conn) {
	relay(program, node, func(io.Writer, error) {
		program.SetDeadline(time.Unix(1, 0))
		node.SetDeadline(time.Unix(1, 0))
	})
}

// apart is a service's attempt as a run of a program: what it says is the service's log.
type apart struct {
	redoubt.JobRun
	log io.Writer
}

func (a apart) Log(_ int, text []byte) { _, _ = a.log.Write(text) }

// Begin begins an instance of a service, and returns when it answers.
func (d *Driver) Begin(ctx context.Context, s compute.Service) (compute.Instance, error) {
	if !d.begin() {
		return nil, &redoubt.Error{Op: "oci.Begin", Kind: redoubt.Unavailable, Err: errors.New("the driver is closed")}
	}
	i, err := d.instance(ctx, s)
	if err == nil {
		err = i.ready(ctx)
		if err == nil {
			return i, nil
		}
		i.Close()
	}
	if own := new(fault); errors.As(err, &own) {
		err = &redoubt.Error{Op: "oci.Begin", Kind: redoubt.Invalid, Hint: own.why}
	}
	return nil, err
}

// AtOnce is how many requests an instance answers at once.
func (d *Driver) AtOnce() int { return compute.ProxyCalls }

// instance is what runs of a service.
type instance struct {
	box   *box
	id    string
	port  uint16
	check string // the path of the health check
	proxy *compute.Proxy
	begun chan struct{}
	ended chan struct{}
	exit  compute.Exit // once it has ended
	err   error
}

// instance starts the program.
func (d *Driver) instance(ctx context.Context, s compute.Service) (_ *instance, err error) {
	done := d.runs.Done
	defer func() {
		if err != nil {
			done()
		}
	}()
	if err := d.Available(); err != nil {
		return nil, err
	}
	t := compute.Task{JobRun: apart{s.JobRun, s.Log}, Limits: s.Limits, Timeout: forEver}
	t.Spec.Image, t.Spec.Args, t.Spec.Env = s.Spec.Image, s.Spec.Args, append([]string{"PORT=" + strconv.Itoa(s.Spec.Port)}, s.Spec.Env...)
	im, err := open(ctx, t, d.o.Policy)
	if err != nil {
		return nil, err
	}
	root, err := d.roots.get(ctx, t.Share()+"\x00"+im.Digest.String(), func() (*root, error) { return d.unpack(ctx, im) })
	if err != nil {
		return nil, err
	}
	p, err := newProcess(im, t.Spec, root.told)
	if err != nil {
		d.roots.put(root)
		return nil, err
	}
	b, err := newBox(bootSpec{Memory: t.Limits.Memory, CPUs: t.Limits.CPUs, Processes: t.Limits.Processes, Disk: t.Limits.Disk, Serves: true}, d.groups, &d.users)
	if err != nil {
		d.roots.put(root)
		return nil, err
	}
	i := &instance{box: b, id: "service", port: uint16(s.Spec.Port), check: s.Spec.Health, begun: make(chan struct{}), ended: make(chan struct{})}
	i.proxy = compute.NewProxy(s.At, func(context.Context) (net.Conn, error) { return b.dial(i.port) })
	running, cancel := context.WithCancel(context.Background())
	r := &run{ctx: running, t: t, b: b, handles: map[uint64]*handle{}, begun: func() { close(i.begun) }}
	go func() {
		defer done()
		defer close(i.ended)
		defer d.roots.put(root)
		defer cancel()
		i.exit, i.err = r.run(runSpec{ID: i.id, Process: p}, root.file)
		b.kill()
	}()
	return i, nil
}

// ready waits until the program answers.
func (i *instance) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case <-i.begun:
	case <-i.ended:
		return i.fault()
	case <-ctx.Done():
		return faultf("it did not begin within %s", readyTimeout)
	}
	for {
		if i.proxy.Answers(ctx, i.check) {
			return nil
		}
		select {
		case <-i.ended:
			return i.fault()
		case <-ctx.Done():
			return faultf("it did not answer on port %d within %s: --port says on which it listens, and --health where it says that it is up", i.port, readyTimeout)
		case <-time.After(readyEvery):
		}
	}
}

// fault says how the program ended before it answered.
func (i *instance) fault() error {
	switch {
	case i.err != nil:
		return i.err
	case i.exit.Why != "":
		return faultf("%s", i.exit.Why)
	}
	return faultf("it ended with exit code %d before it answered: redoubt service logs tells what it said", i.exit.Code)
}

// Call answers one request.
func (i *instance) Call(w http.ResponseWriter, r *http.Request) error {
	select {
	case <-i.ended:
		return compute.ErrInstanceGone
	default:
	}
	r.Body = http.MaxBytesReader(w, r.Body, redoubt.MaxServiceBody)
	return i.proxy.Call(w, r)
}

// Ended is closed when the program runs no more.
func (i *instance) Ended() <-chan struct{} { return i.ended }

// Close ends the program.
func (i *instance) Close() {
	i.box.kill()
	<-i.ended
	i.proxy.Close()
}

var _ compute.ServiceDriver = (*Driver)(nil)
