package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/enclave"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/tpm"
)

// Region is the S3 region of every node. It is one that no client has a table entry for: those that do know
// a region may fall back to an old signature there (boto3 presigns with SHA-1 for us-east-1).
const Region = "redoubt"

// Options say which node to open, and with what. Everything from outside comes in here.
type Options struct {
	State    State
	Name     redoubt.NodeName
	Estate   *estate.Estate  // with everybody's keys; nil: the one in force
	Document estate.Document // the sources of Estate, with signatures
	Unlock   keys.Unlock     // nil: the key file of an exercise, in the state
	TPM      *tpm.Chip       // that Unlock goes by, and that a device counts its lease by; nil: none
	Version  string          // of this build

	Side    string // of a guard whose halves run apart: HalfLow or HalfHigh
	RoadKey []byte // of such a half: the key of the road between them, which both have

	// Drivers makes what runs the node's jobs and services, and says whom they believe and dial; the node closes them. Nil: it runs none.
	Drivers func(e *estate.Estate, n estate.Node, log *slog.Logger) (map[string]compute.Driver, []redoubt.Trusted, error)

	Half       func(ctx context.Context, c HalfConfig) error // of a guard: runs a half of its raise; nil: as a process of its own
	Invitation *Invitation                                   // of a device that is not enrolled; nil: the one in its folder
	Clock      func() time.Time                              // nil: the machine's, which a change of its setting does not move while the node runs
	Rand       io.Reader                                     // nil: the system's
}

// Node is one node, running.
type Node struct {
	dir     string
	name    redoubt.NodeName
	log     *slog.Logger
	runtime Runtime
	clock   func() time.Time

	telling sync.Mutex // held while runtime is changed and written, once the node serves

	faces   []*face
	peers   *peers
	reach   reach       // for jobs
	device  *deviceSide // of a device
	guard   *guardSide  // of a guard, which has none of the others
	cloud   *enclave.Enclave
	engine  *compute.Engine           // runs its jobs
	outside []redoubt.Trusted         // whom its drivers believe: the API server of its cluster, if it has one
	gateway *gateway                  // of an enclave with agreements
	joins   func(ctx context.Context) // joins the raises of an enclave that guards join to others; nil: none do
	close   []func() error            // in the order of opening
	wiped   chan struct{}             // closed when the keys were destroyed

	stopping context.Context // ends when the node begins to stop
	stop     context.CancelFunc
}

// Open brings up a node: lock, keys, estate, store, enclave, listeners. On return it is bound to its
// addresses and nothing is served yet. Unavailable: it runs already. Erased: it was wiped by order of its home.
func Open(ctx context.Context, o Options) (_ *Node, err error) {
	n := &Node{dir: o.State.NodeDir(o.Name), name: o.Name, clock: o.Clock, wiped: make(chan struct{})}
	n.stopping, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if n.clock == nil {
		n.clock = time.Now
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, &redoubt.Error{Op: "node.Open", Object: n.dir, Err: errors.Unwrap(err)}
	}
	release, err := lockFile(filepath.Join(n.dir, "lock"), "the node runs already", "redoubt status")
	if err != nil {
		return nil, err
	}
	n.closing(func() error { release(); return nil })
	defer func() {
		if err != nil {
			if n.log != nil {
				n.log.Error("node failed to start", slog.String("kind", redoubt.KindOf(err).Error()))
			}
			err = errors.Join(err, n.tell(Failed), n.Close())
		}
	}()
	token := make([]byte, 32)
	if _, err := io.ReadFull(cmp.Or[io.Reader](o.Rand, rand.Reader), token); err != nil {
		return nil, &redoubt.Error{Op: "node.Open", Object: string(o.Name), Err: err}
	}
	n.runtime = Runtime{PID: os.Getpid(), Started: n.clock().UTC(), Version: o.Version, Token: "rdn_" + base64.RawURLEncoding.EncodeToString(token)}
	if err := n.tell(Starting); err != nil {
		return nil, err
	}
	log, file, err := openLog(n.dir)
	if err != nil {
		return nil, err
	}
	n.log = log
	n.closing(file.Close)
	if err := o.State.NotWiped(o.Name); err != nil {
		if errors.Is(err, redoubt.Erased) {
			endWipe(n.dir, o, n.log)
		}
		return nil, err
	}

	ring, err := openKeyring(n.dir, o)
	if err != nil {
		return nil, err
	}
	n.closing(ring.Close)
	e, err := takeEffect(n.dir, ring, o.Estate, o.Document)
	if err != nil {
		return nil, err
	}
	declared, ok := e.Node(o.Name)
	if !ok {
		return nil, &redoubt.Error{Op: "node.Open", Object: string(o.Name), Kind: redoubt.NotFound, Err: errors.New("no node of that name in the estate"),
			Hint: "redoubt estate show FILE lists the nodes"}
	}
	if declared.Kind == estate.KindGuard {
		n.runtime.High, n.runtime.Half = declared.Guard.High, o.Side
		n.guard, err = n.openGuard(o, e, declared, ring)
		return n, err
	}
	if o.Side != "" {
		return nil, &redoubt.Error{Op: "node.Open", Object: string(o.Name), Kind: redoubt.Invalid, Err: errors.New("it is no guard, and has no halves")}
	}
	if declared.Kind == estate.KindDevice {
		chip, err := sealingChip(n.dir, o.TPM)
		if err != nil {
			return nil, err
		}
		if n.device, err = openDevice(ctx, n.dir, ring, declared, o.Invitation, n.clock, chip, n.log); err != nil {
			return nil, err
		}
	}
	h, err := n.wire(ctx, o, e, declared, ring)
	if err != nil {
		return nil, err
	}
	return n, n.listen(declared, ring, h)
}

// openKeyring opens the node's keyring, or makes it at the first start.
func openKeyring(dir string, o Options) (*keys.Keyring, error) {
	unlock := o.Unlock
	if unlock == nil {
		unlock = keys.KeyFile(filepath.Join(dir, "key"))
	}
	path := filepath.Join(dir, "keyring")
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return keys.Open(path, unlock)
	}
	// Only a node without data gets fresh keys: a lost keyring must not look like a first start.
	if _, err := os.Stat(filepath.Join(dir, storeDir)); err == nil {
		return nil, lostKeyring(path)
	}
	return keys.Create(path, unlock, o.Rand)
}

// listen binds the addresses and puts the faces behind them.
func (n *Node) listen(declared estate.Node, ring *keys.Keyring, h handlers) error {
	s3, api, err := openFaces(n.dir, declared)
	if err != nil {
		return err
	}
	n.closing(closeListener(s3))
	n.closing(closeListener(api))
	hosts := slices.Compact(slices.Sorted(slices.Values(slices.Concat(declared.S3.Hosts, declared.API.Hosts, addressHosts(declared)))))
	authority, err := openAuthority(n.dir, ring, hosts, n.clock)
	if err != nil {
		return err
	}
	front, err := newFace(s3, declared.S3, authority, h.s3, n.log)
	if err != nil {
		return err
	}
	control, err := newFace(api, declared.API, authority, h.api, n.log)
	if err != nil {
		return err
	}
	n.faces = []*face{front, control}
	n.runtime.S3URL, n.runtime.APIURL = front.url, control.url
	if declared.Kind == estate.KindEnclave {
		id, err := n.cloud.BundleIdentity()
		if err != nil {
			return err
		}
		if err := n.writeCard(n.cloud.JournalKey(), id); err != nil {
			return err
		}
	}
	return n.listenForPeers(declared)
}

// listenForPeers opens the place where devices meet a node, and the socket that a device dials from.
func (n *Node) listenForPeers(declared estate.Node) error {
	switch {
	case n.device != nil:
		from, err := n.peers.callFrom()
		n.runtime.From, n.runtime.Dials = from, n.device.kept.Peers
		if err != nil || declared.Peers == nil {
			return err
		}
		at, err := n.peers.bindDoor(func() (net.Listener, net.PacketConn, error) { return openMeetingPlace(n.dir, *declared.Peers) })
		n.runtime.Peers = meetingAddresses(at, *declared.Peers)
		return err
	case declared.Peers == nil:
		return nil
	}
	tcp, udp, err := openMeetingPlace(n.dir, *declared.Peers)
	if err != nil {
		return err
	}
	if err := n.peers.listen(udp, tcp); err != nil {
		return errors.Join(err, tcp.Close(), udp.Close())
	}
	n.runtime.Peers = meetingAddresses(tcp.Addr().String(), *declared.Peers)
	return nil
}

// IsDevice says whether the node is a device.
func (n *Node) IsDevice() bool { return n.device != nil }

// Runtime is what the node tells of itself.
func (n *Node) Runtime() Runtime { return n.runtime }

// Serve answers requests until ctx ends, then lets those in progress finish (stopTimeout),
// and closes the node. ready, when not nil, is called once the node takes requests. It
// returns nil after an orderly stop.
func (n *Node) Serve(ctx context.Context, ready func(Runtime)) (err error) {
	var wg sync.WaitGroup
	failed := make(chan error, len(n.faces)+1)
	for _, f := range n.faces {
		wg.Go(func() {
			if err := f.serve(); err != nil {
				failed <- err
			}
		})
	}
	if n.peers != nil {
		n.peers.run()
	}
	guard, unguard := context.WithCancel(ctx)
	defer unguard()
	if n.device != nil {
		wg.Go(func() {
			if err := n.device.watch(guard); err != nil {
				failed <- err
			}
		})
	}
	if n.guard != nil {
		wg.Go(func() { n.guard.serve(guard) })
	}
	if n.joins != nil {
		wg.Go(func() { n.joins(guard) })
	}
	if n.gateway != nil {
		wg.Go(func() { n.gateway.serve(guard) })
	}
	if n.engine != nil {
		wg.Go(func() { n.engine.Run(guard) })
	}
	if err = n.tell(Ready); err == nil {
		n.log.Info("node is ready", slog.Int("pid", os.Getpid()))
		if ready != nil {
			ready(n.runtime)
		}
		select {
		case <-ctx.Done():
		case err = <-failed:
		case <-n.wiped:
			err = &redoubt.Error{Op: "node.Serve", Object: string(n.name), Kind: redoubt.Erased, Err: errors.New("its home ordered its keys destroyed")}
		}
	}
	unguard()
	n.stop()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, f := range n.faces {
		err = errors.Join(err, f.stop(stopping))
	}
	wg.Wait()
	n.log.Info("node stopped")
	n.runtime.Token = "" // it opens nothing any more
	after := Stopped
	if err != nil {
		after = Failed
	}
	return errors.Join(err, n.tell(after), n.Close())
}

// Close gives back everything, the last opened first. Closing twice is no error.
func (n *Node) Close() error {
	n.stop()
	var err error
	for _, c := range slices.Backward(n.close) {
		err = errors.Join(err, c())
	}
	n.close = nil
	if err != nil {
		return &redoubt.Error{Op: "node.Close", Object: string(n.name), Kind: redoubt.KindOf(err), Err: err}
	}
	return nil
}

func (n *Node) closing(c func() error) { n.close = append(n.close, c) }

// tellOfGuard writes whom a guard dials, and which processes it has.
func (n *Node) tellOfGuard(trusts []redoubt.Trusted, halves []int) {
	n.telling.Lock()
	n.runtime.Trusts, n.runtime.Halves = trusts, halves
	state := n.runtime.State
	n.telling.Unlock()
	if err := n.tell(state); err != nil {
		n.log.Warn("what the guard dials is not told", slog.String("kind", redoubt.KindOf(err).Error()))
	}
}

// tell writes the runtime file.
func (n *Node) tell(state string) error {
	n.telling.Lock()
	defer n.telling.Unlock()
	n.runtime.State = state
	return writeJSON(runtimeFile(n.dir), n.runtime)
}

func closeListener(l io.Closer) func() error {
	return func() error {
		l.Close() // the server has closed it, unless the start failed before
		return nil
	}
}

// addressHosts are the addresses that the node listens at, for its certificate.
func addressHosts(n estate.Node) []string {
	var hosts []string
	for _, l := range []estate.Listener{n.S3, n.API} {
		if h, ok := l.Address(); ok {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// String names the node, for messages.
func (n *Node) String() string { return fmt.Sprintf("node %s", n.name) }
