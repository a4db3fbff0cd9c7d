package sim_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// node is a home or a device. What it keeps outside of its disk is what package node would keep, sealed, beside it.
type node struct {
	w     *world
	name  redoubt.NodeName
	index int // 0: the home
	bound string
	subs  []redoubt.Subscription // from the device's side

	disk   *redoubttest.Disk
	stack  *redoubttest.Stack // nil: without power
	life   int                // how many states it had
	skew   atomic.Int64       // of its clock
	idKeys []byte
	home   ed25519.PublicKey
	makers map[redoubt.NodeName][]ed25519.PublicKey

	mu       sync.Mutex
	friends  map[redoubt.NodeName]redoubt.Link
	meetings map[*meeting]bool
	creds    map[string]redoubt.Credential

	captured, retired bool
}

// world is a fleet and what its people were told.
type world struct {
	t      *testing.T
	seed   uint64
	began  time.Time
	nodes  []*node
	rand   *rand.Rand // of what is not drawn in advance: sizes and contents
	ledger ledger
	policy *label.Policy
	states int
	spoken atomic.Int64 // messages of entries
	calm   atomic.Bool  // nothing breaks any more

	mu     sync.Mutex
	faults []string
}

// bounds are those that devices are given in turn.
var bounds = []string{"SECRET", "CONFIDENTIAL", "SECRET//REL TO USA, GBR", "UNCLASSIFIED", "SECRET"}

// carried is what devices are subscribed to in turn; none: everything.
var carried = [][]redoubt.Subscription{
	nil,
	{{Bucket: "reports", Prefix: "a/", In: true, Out: true}, {Bucket: "reports", Prefix: "b/", In: true, Out: true}},
	{{Bucket: "reports", Prefix: "a/", In: true, Out: true}},
	{{Bucket: "reports", Prefix: "a/", In: true}, {Bucket: "reports", Prefix: "b/", In: true, Out: true}, {Bucket: "imagery", Out: true}},
}

const leaseLife = 30 * 24 * time.Hour

func newWorld(t *testing.T, seed uint64, devices int) *world {
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, began: time.Now(), policy: policy, seed: seed, rand: rand.New(rand.NewPCG(seed, 99)), ledger: ledger{made: map[redoubt.VersionID]*fact{}}}
	for i := range devices + 1 {
		n := &node{w: w, index: i, name: redoubt.NodeName(fmt.Sprintf("device-%d", i)), friends: map[redoubt.NodeName]redoubt.Link{}, meetings: map[*meeting]bool{}}
		if i == 0 {
			n.name, n.bound = "home", "TOP SECRET//SI/TK"
		} else {
			n.bound, n.subs = bounds[i%len(bounds)], carried[(i/len(bounds)+i)%len(carried)]
		}
		w.nodes = append(w.nodes, n)
	}
	w.home().fresh()
	for i := range 12 { // what is there before there is any link
		w.play(step{what: "put", subject: subjects[i%len(subjects)], key: fmt.Sprintf("%c/k%d", 'a'+i%3, i%2), size: 100, pick: uint64(i)})
	}
	for _, n := range w.nodes[1:] {
		n.fresh()
	}
	return w
}

func (w *world) home() *node { return w.nodes[0] }

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (n *node) now() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }

// fresh begins a state: an empty disk, and for a device an enrolment.
func (n *node) fresh() {
	n.w.states++
	n.life++
	n.disk, n.idKeys = redoubttest.NewDisk(n.w.t), nil
	n.friends = map[redoubt.NodeName]redoubt.Link{}
	if n.index == 0 {
		n.start()
		return
	}
	home := n.w.home()
	home.start()
	n.start()
	inv, err := home.stack.InviteDevice(context.Background(), home.as("officer", ""), n.name)
	if err != nil {
		n.w.t.Fatal(err)
	}
	req := redoubt.EnrolRequest{Device: n.name, Token: inv.Token, Key: base64.StdEncoding.EncodeToString(n.stack.JournalKey())}
	sig, err := n.stack.SignBundle(redoubt.EnrolMessage(req))
	if err != nil {
		n.w.t.Fatal(err)
	}
	req.Signature = base64.StdEncoding.EncodeToString(sig)
	given, err := home.stack.EnrolDevice(context.Background(), req)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.stop(false)
	n.idKeys, n.home = given.IDKeys, home.stack.JournalKey()
	n.start()
}

// start gives a node power.
func (n *node) start() {
	if n.stack != nil || n.retired {
		return
	}
	o := redoubttest.Options{Seed: n.w.seed<<16 + uint64(n.index)<<8 + uint64(n.life), PeopleSeed: n.w.seed + 1, Name: n.name, Ceiling: n.bound, Disk: n.disk, Time: n.now, IDKeys: n.idKeys,
		People: []redoubt.Person{{Name: "c-analyst", Clearance: "CONFIDENTIAL", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}}}}
	switch {
	case n.index == 0:
		for _, d := range n.w.nodes[1:] {
			o.Devices = append(o.Devices, redoubttest.Device{Name: d.name, Floor: d.label("UNCLASSIFIED"), Ceiling: d.label(d.bound), Lease: leaseLife, Carries: d.subs})
		}
	case n.home != nil:
		o.Links = []redoubt.Link{n.homeLink()}
	}
	n.stack = redoubttest.New(n.w.t, o)
	n.creds = map[string]redoubt.Credential{}
	if n.index == 0 || n.home == nil {
		return
	}
	n.stack.SetMakers(n.makers)
	n.relink()
}

func (n *node) homeLink() redoubt.Link {
	return redoubt.Link{Peer: "home", Key: n.home, Bound: n.label(n.bound), Subscriptions: n.subs}
}

// relink makes a device's links: to its home, and to the devices that it knows.
func (n *node) relink() {
	all := []redoubt.Link{n.homeLink()}
	n.mu.Lock()
	for _, l := range n.friends {
		all = append(all, l)
	}
	n.mu.Unlock()
	if err := n.stack.SetLinks(context.Background(), all); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *node) label(marking string) label.Label { return parse(n.w.t, marking) }

// stop takes a node's power, by a crash or cleanly.
func (n *node) stop(crash bool) {
	if n.stack == nil {
		return
	}
	if crash {
		n.stack.Cut()
	}
	n.partAll()
	n.stack.Stop()
	n.stack = nil
}

// meeting is a session between two nodes over a road in memory.
type meeting struct {
	sides [2]*node
	road  [2]*redoubttest.Road
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// meet begins one, if both have power and a link. Like package node, each side ends its older meeting with the peer first.
func (w *world) meet(a, b *node, limit int) {
	w.meetBeside(a, b, limit, false)
}

// meetBeside may leave an older meeting of the two as it is.
func (w *world) meetBeside(a, b *node, limit int, beside bool) {
	if a.stack == nil || b.stack == nil || a == b || a.retired || b.retired {
		return
	}
	w.befriend(a, b)
	for m := range a.meetings {
		if !beside && (m.sides[0] == b || m.sides[1] == b) {
			m.part()
		}
	}
	m := &meeting{sides: [2]*node{a, b}}
	m.road[0], m.road[1] = redoubttest.NewRoad(limit)
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	for i, n := range m.sides {
		peer := m.sides[1-i]
		m.road[i].Watch(func(msg []byte) { w.overhear(n, peer, msg) })
		var conn replica.Conn = m.road[i]
		if n.captured {
			conn = &liar{Conn: conn, dice: rand.New(rand.NewPCG(w.rand.Uint64(), 1))}
		}
		end := replica.New(replica.Options{Estate: "example", Node: n.name, Peer: peer.name, Journal: n.stack, State: n.stack, Conn: conn, Met: n.met, Noted: n.noted(peer)})
		m.done.Go(func() {
			if err := end.Run(ctx); err != nil && w.calm.Load() && !n.captured && !peer.captured {
				w.fault("%s: a meeting with %s that nothing disturbed ended: %v", n.name, peer.name, err)
			}
		})
		n.meetings[m] = true
	}
}

// befriend joins two devices that know one another's keys, within both their bounds and subscriptions.
func (w *world) befriend(a, b *node) {
	if a.index == 0 || b.index == 0 {
		return
	}
	for _, x := range [2][2]*node{{a, b}, {b, a}} {
		n, peer := x[0], x[1]
		key := peer.stack.JournalKey()
		if l, known := n.friends[peer.name]; known && bytes.Equal(l.Key, key) {
			continue
		}
		bound := a.label(a.bound)
		if other := b.label(b.bound); bound.Dominates(other) {
			bound = other
		} else if !other.Dominates(bound) {
			bound = a.label("UNCLASSIFIED")
		}
		n.mu.Lock()
		n.friends[peer.name] = redoubt.Link{Peer: peer.name, Key: key, Bound: bound, Subscriptions: common(a.subs, b.subs)}
		n.mu.Unlock()
		n.relink()
	}
}

// common is what two devices both take and give.
func common(a, b []redoubt.Subscription) (out []redoubt.Subscription) {
	whole := []redoubt.Subscription{{Bucket: "reports", In: true, Out: true}, {Bucket: "imagery", In: true, Out: true}}
	if a == nil {
		a = whole
	}
	if b == nil {
		b = whole
	}
	for _, x := range a {
		for _, y := range b {
			if x.Bucket == y.Bucket && x.In && x.Out && y.In && y.Out {
				long, short := x.Prefix, y.Prefix
				if len(long) < len(short) {
					long, short = short, long
				}
				if strings.HasPrefix(long, short) {
					out = append(out, redoubt.Subscription{Bucket: x.Bucket, Prefix: long, In: true, Out: true})
				}
			}
		}
	}
	if out == nil { // nothing: a link without a subscription would carry everything
		out = []redoubt.Subscription{{Bucket: "nothing"}}
	}
	return out
}

// met says what a home says at the beginning of a meeting, as package node does.
func (n *node) met(ctx context.Context, s *replica.Session) error {
	if n.index != 0 {
		return nil
	}
	makers, err := json.Marshal(n.stack.Makers())
	if err != nil {
		return err
	}
	return s.Tell(ctx, "makers", makers)
}

func (n *node) noted(peer *node) func(context.Context, *replica.Session, string, []byte) error {
	return func(_ context.Context, _ *replica.Session, kind string, body []byte) error {
		if kind != "makers" || peer.index != 0 {
			return nil
		}
		var makers map[redoubt.NodeName][]ed25519.PublicKey
		if err := json.Unmarshal(body, &makers); err != nil {
			return err
		}
		n.mu.Lock()
		n.makers = makers
		n.mu.Unlock()
		n.stack.SetMakers(makers)
		return nil
	}
}

// part ends a meeting.
func (m *meeting) part() {
	m.stop()
	m.done.Wait()
	for _, n := range m.sides {
		delete(n.meetings, m)
	}
}

func (n *node) partAll() {
	for m := range n.meetings {
		m.part()
	}
}

// connectAll gives everybody power, has every device meet the home, once and at the same time, and waits until nothing moves.
// Devices do not meet one another any more: what one has of another the home has, or hears of now.
func (w *world) connectAll() {
	for _, n := range w.nodes {
		n.partAll()
		n.skew.Store(0)
		n.start()
	}
	w.calm.Store(true)
	for _, n := range w.nodes[1:] {
		w.meet(n, w.home(), 0)
	}
	time.Sleep(40 * time.Minute) // clocks that were ahead are not any more, and what was refused for now was sent again
	before := w.sizes()
	time.Sleep(time.Minute)
	if after := w.sizes(); after != before {
		w.fault("the fleet does not settle:\n%s\n%s", before, after)
	}
	for _, n := range w.nodes {
		n.partAll()
	}
}

// sizes is how much every node holds, as a text.
func (w *world) sizes() string {
	var b strings.Builder
	for _, n := range w.nodes {
		n.start()
		if !n.captured && !n.retired {
			entries, err := n.disk.Entries()
			if err != nil {
				w.t.Fatal(err)
			}
			fmt.Fprintln(&b, n.name, entries)
		}
	}
	return b.String()
}

func (w *world) end() {
	for _, n := range w.nodes {
		n.stop(false)
	}
}
