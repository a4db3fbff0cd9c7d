package sim_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
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
	w      *world
	name   redoubt.NodeName
	index  int // 0: the home
	bound  string
	top    label.Label            // the bound
	subs   []redoubt.Subscription // from the device's side
	budget map[string]int64       // of both sides of the link to the home
	meets  []redoubt.NodeName     // without the home

	disk   *redoubttest.Disk
	stack  *redoubttest.Stack // nil: without power
	life   int                // how many states it had
	skew   atomic.Int64       // of its clock
	idKeys []byte
	home   ed25519.PublicKey
	lease  atomic.Int64 // when it ends, ns since 1970

	mu         sync.Mutex // guards what sessions note
	makers     map[redoubt.NodeName][]ed25519.PublicKey
	neighbours []redoubt.Neighbour

	meetings map[*meeting]bool
	creds    map[string]redoubt.Credential
	heard    map[redoubt.SubjectName]int // of whose changes it has heard, at least up to which

	captured, retired bool
	disowned          bool // captured, and revoked by its home
}

// honest says whether a node does as it should, and is there.
func (n *node) honest() bool { return !n.captured && !n.retired }

// world is a fleet and what its people were told.
type world struct {
	t       *testing.T
	seed    uint64
	began   time.Time
	nodes   []*node
	byName  map[redoubt.NodeName]*node
	people  []*member
	codecs  *replica.Codecs  // of all: one each would be most of what a fleet has in memory
	large   []string         // contents of several segments that were written
	touched *redoubt.Version // what was altered last
	rand    *rand.Rand       // of what is not drawn in advance: sizes and contents
	ledger  ledger
	policy  *label.Policy
	low     label.Label // the floor
	states  int
	spoken  atomic.Int64 // messages of entries
	calm    atomic.Bool  // nothing breaks any more

	mu     sync.Mutex
	faults []string
}

// bounds are those that devices are given in turn.
var bounds = []string{"SECRET", "CONFIDENTIAL", "SECRET//REL TO USA, GBR", "UNCLASSIFIED", "SECRET"}

// carried is what devices are subscribed to in turn; none: everything.
var carried = [][]redoubt.Subscription{
	nil,
	{{Bucket: "reports", Prefix: "a/", In: true, Out: true}, {Bucket: "reports", Prefix: "b/", In: true, Out: true}},
	{{Bucket: "reports", Prefix: "a/", In: true, Out: true, Latest: true}, {Bucket: "reports", Prefix: "b/", In: true, Out: true, Bound: "UNCLASSIFIED"},
		{Bucket: "imagery", In: true, Out: true}},
	{{Bucket: "reports", Prefix: "a/", In: true}, {Bucket: "reports", Prefix: "b/", In: true, Out: true}, {Bucket: "imagery", Out: true}},
	{{Bucket: "reports", In: true, Out: true, Latest: true}},
}

// large content is in a bucket of its own, which few devices carry: it is what costs.
var video = redoubt.Subscription{Bucket: "video", In: true, Out: true}

const (
	leaseLife = 30 * 24 * time.Hour
	longLease = 5 * 365 * 24 * time.Hour
)

// leaseLife is how long a device works and meets neighbours that has not met its home.
func (n *node) leaseLife() time.Duration {
	if n.index%3 == 1 {
		return longLease
	}
	return leaseLife
}

func newWorld(t *testing.T, seed uint64, devices int) *world {
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, began: time.Now(), policy: policy, low: parse(t, "UNCLASSIFIED"), seed: seed, rand: rand.New(rand.NewPCG(seed, 99)),
		ledger: ledger{made: map[redoubt.VersionID]*fact{}, newest: map[place][]*fact{}}, byName: map[redoubt.NodeName]*node{}, codecs: new(replica.Codecs)}
	for i := range devices + 1 {
		n := &node{w: w, index: i, name: redoubt.NodeName(fmt.Sprintf("device-%d", i)), meetings: map[*meeting]bool{}}
		if i == 0 {
			n.name, n.bound = "home", "TOP SECRET//SI/TK"
		} else {
			n.bound = bounds[i%len(bounds)]
			n.declare(max(1, int64(devices)/10))
		}
		n.top = parse(t, n.bound)
		w.nodes, w.byName[n.name] = append(w.nodes, n), n
	}
	w.acquaint()
	w.home().fresh()
	for i := range 12 { // what is there before there is any link
		w.play(step{what: "put", subject: subjects[i%len(subjects)], key: fmt.Sprintf("%c/k%d", 'a'+i%3, i%2), size: 100, pick: uint64(i)})
	}
	for _, n := range w.nodes[1:] {
		n.fresh()
	}
	return w
}

// declare gives a device what the estate says of its link. The more there are, the more has to come in a day.
func (n *node) declare(crowd int64) {
	all := carried[(n.index/len(bounds)+n.index)%len(carried)]
	if all == nil && n.index > 2*len(bounds) { // else every fifth would carry what is large
		all = []redoubt.Subscription{{Bucket: "reports", In: true, Out: true}, {Bucket: "imagery", In: true, Out: true}}
	}
	for _, s := range all {
		if s.Bound != "" {
			s.Limit = parse(n.w.t, s.Bound)
		}
		n.subs = append(n.subs, s)
	}
	if n.subs != nil && n.index <= len(bounds) {
		n.subs = append(n.subs, video)
	}
	if n.index%7 == 3 {
		n.budget = map[string]int64{redoubt.QuotaOfOthers: crowd << 20, "UNCLASSIFIED": crowd * 200_000}
	}
}

// acquaint says which devices may meet without the home: some that are near, where the ceiling of one dominates the other's.
func (w *world) acquaint() {
	for _, n := range w.nodes[1:] {
		for _, far := range []int{1, 3, len(bounds)} {
			if n.index+far < len(w.nodes) {
				if other := w.nodes[n.index+far]; n.top.Dominates(other.top) || other.top.Dominates(n.top) {
					n.meets = append(n.meets, other.name)
				}
			}
		}
	}
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
	n.neighbours, n.heard = nil, map[redoubt.SubjectName]int{}
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
	n.lease.Store(given.Lease.Expires.UnixNano())
	n.start()
}

// start gives a node power.
func (n *node) start() {
	if n.stack != nil || n.retired {
		return
	}
	o := redoubttest.Options{Seed: n.w.seed<<16 + uint64(n.index)<<8 + uint64(n.life), PeopleSeed: n.w.seed + 1, Name: n.name, Ceiling: n.bound, Disk: n.disk, Time: n.now, IDKeys: n.idKeys,
		Buckets: []redoubt.Bucket{lockable("reports"), lockable("imagery"), lockable("video")},
		People:  []redoubt.Person{{Name: "c-analyst", Clearance: "CONFIDENTIAL", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}}}}
	switch {
	case n.index == 0:
		for _, d := range n.w.nodes[1:] {
			o.Devices = append(o.Devices, redoubttest.Device{Name: d.name, Floor: n.w.low, Ceiling: d.top, Lease: d.leaseLife(), Carries: d.subs, Budget: d.budget, Meets: d.meets})
		}
	case n.home != nil:
		o.Links = []redoubt.Link{n.homeLink()}
	}
	n.stack = redoubttest.New(n.w.t, o)
	for _, m := range n.w.people {
		n.stack.Know(m.name)
	}
	n.creds = map[string]redoubt.Credential{}
	if n.index == 0 || n.home == nil {
		return
	}
	n.stack.SetMakers(n.makers)
	if err := n.stack.SetNeighbours(context.Background(), n.neighbours); err != nil {
		n.w.t.Fatal(err)
	}
}

// clearance is the most that a person has at a device.
func (n *node) clearance() label.Label {
	l, err := n.w.policy.Clearance(n.bound, "USA")
	if err != nil {
		n.w.t.Fatal(err)
	}
	return l
}

func lockable(name redoubt.BucketName) redoubt.Bucket {
	return redoubt.Bucket{Name: name, BucketSettings: redoubt.BucketSettings{Lock: redoubt.LockSettings{Enabled: true}}}
}

func (n *node) homeLink() redoubt.Link {
	return redoubt.Link{Peer: "home", Key: n.home, Bound: n.top, Subscriptions: n.subs, Budget: n.budget}
}

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

// sizes is how much every node holds, as a text.
func (w *world) sizes() string {
	var b strings.Builder
	for _, n := range w.nodes {
		n.start()
		if n.honest() {
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
