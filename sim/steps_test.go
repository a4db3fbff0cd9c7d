package sim_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/label"
)

func parse(t testing.TB, marking string) label.Label {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	l, err := policy.Parse(marking)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// step is one thing that happens. It says all of it, so that a history that lacks others still means the same.
type step struct {
	what    string
	node    int
	peer    int
	subject redoubt.SubjectName
	key     string
	pick    uint64 // of several, which
	size    int
	limit   int // messages until the road breaks; 0: it does not
	span    time.Duration
}

func (s step) String() string {
	switch s.what {
	case "put", "delete", "remove", "tag", "hold", "resolve":
		return fmt.Sprintf("%s by %s at node %d of %s (%d bytes, pick %d)", s.what, s.subject, s.node, s.key, s.size, s.pick)
	case "meet", "again":
		return s.what + fmt.Sprintf(": nodes %d and %d meet, for %d messages", s.node, s.peer, s.limit)
	case "wait", "years", "skew":
		return fmt.Sprintf("%s %v at node %d", s.what, s.span, s.node)
	}
	return fmt.Sprintf("%s: node %d, peer %d, pick %d", s.what, s.node, s.peer, s.pick)
}

// weights is how often each thing happens.
var weights = []struct {
	what string
	n    int
}{
	{"put", 60}, {"burst", 12}, {"delete", 10}, {"remove", 14}, {"tag", 16}, {"hold", 4}, {"resolve", 3},
	{"meet", 60}, {"again", 6}, {"part", 10}, {"settle", 12}, {"wait", 16}, {"skew", 6}, {"forget", 4}, {"trim", 20},
	{"crash", 6}, {"off", 6}, {"on", 6}, {"homeless", 2}, {"lose", 2}, {"years", 1}, {"ahead", 1}, {"capture", 1}, {"forge", 12}, {"revoke", 1},
}

var subjects = []redoubt.SubjectName{"ts-analyst", "s-analyst", "c-analyst", "gbr-liaison", "u-analyst"}

// draw makes a history of a seed.
func draw(seed uint64, devices, steps int) (all []step) {
	r := rand.New(rand.NewPCG(seed, 7))
	total := 0
	for _, w := range weights {
		total += w.n
	}
	for range steps {
		s := step{node: r.IntN(devices + 1), peer: r.IntN(devices + 1), subject: subjects[r.IntN(len(subjects))], pick: r.Uint64()}
		n := r.IntN(total)
		for _, w := range weights {
			if n -= w.n; n < 0 {
				s.what = w.what
				break
			}
		}
		if r.IntN(3) > 0 { // most things happen between a device and its home
			s.peer = 0
		}
		s.key = []string{"a/", "b/", "c/"}[r.IntN(3)] + fmt.Sprint("k", r.IntN(2))
		s.size = []int{0, 10, 200, 4000, 40_000, 300_000}[r.IntN(6)]
		if r.IntN(2) == 0 {
			s.limit = 2 + r.IntN(14)
		}
		s.span = time.Duration(1+r.IntN(90)) * time.Second
		switch s.what {
		case "skew":
			s.span = time.Duration(r.IntN(240)-120) * time.Second
		case "years":
			s.span = time.Duration(30+r.IntN(400)) * 24 * time.Hour
		}
		all = append(all, s)
	}
	return all
}

// play makes one step happen, as far as it can.
func (w *world) play(s step) {
	n, peer := w.nodes[s.node], w.nodes[s.peer]
	switch s.what {
	case "meet":
		w.meet(n, peer, s.limit)
	case "again":
		w.meetBeside(n, peer, s.limit, true)
	case "part":
		n.partAll()
	case "settle":
		synctest.Wait()
	case "wait":
		time.Sleep(s.span)
	case "skew":
		n.skew.Store(int64(s.span))
	case "ahead":
		if s.node > 0 { // what it writes is refused for now until the others' clocks have caught up
			n.skew.Store(int64(20 * time.Minute))
		}
	case "crash":
		n.stop(true)
		n.start()
	case "off":
		n.stop(s.pick%2 == 0)
	case "on":
		n.start()
	case "homeless":
		w.home().stop(s.pick%2 == 0)
	case "years":
		for _, n := range w.nodes {
			n.stop(s.pick%2 == 0)
		}
		time.Sleep(s.span)
		for _, n := range w.nodes {
			if s.pick>>uint(n.index%60)&2 == 0 {
				n.start()
			}
		}
	case "forget":
		if n.stack != nil && n != peer {
			if err := n.stack.Forget(context.Background(), peer.name); err != nil {
				w.t.Fatal(err)
			}
		}
	case "trim":
		if n.stack != nil {
			if err := n.stack.Trim(context.Background()); err != nil {
				w.fault("%s: trim: %v", n.name, err)
			}
		}
	case "lose", "revoke", "capture":
		if s.node > 0 && !n.captured && !n.retired {
			w.lose(n, s.what)
		}
	case "forge":
		w.forge(s)
	default:
		if n.stack != nil && !n.captured {
			w.act(n, s)
		}
	}
}

// lose ends a device as it was: its state is gone and another takes its name, it is revoked, or somebody else has it.
func (w *world) lose(n *node, how string) {
	home := w.home()
	home.start()
	w.ledger.uncertain(n, home)
	switch how {
	case "capture":
		n.start()
		n.captured = true
		return
	case "revoke":
		n.retired = true
	}
	n.stop(true)
	who := home.as("officer", "")
	if err := home.stack.EndDevice(context.Background(), who, n.name, false, false, how); err != nil {
		w.t.Fatal(err)
	}
	for m := range home.meetings {
		if m.sides[0] == n || m.sides[1] == n {
			m.part()
		}
	}
	if how == "lose" {
		n.home, n.makers = nil, nil
		n.fresh()
	}
}

// as is a subject's credential at a node.
func (n *node) as(who redoubt.SubjectName, marking string) redoubt.Credential {
	c, err := n.credential(who, marking)
	if err != nil {
		n.w.t.Fatalf("%s at %s %q: %v", who, n.name, marking, err)
	}
	return c
}

func (n *node) credential(who redoubt.SubjectName, marking string) (redoubt.Credential, error) {
	id := string(who) + "@" + marking
	if c, held := n.creds[id]; held && n.stack.Now().Before(c.Expires.Add(-time.Minute)) {
		return c, nil
	}
	m, err := n.stack.TryMint(who, marking, redoubt.DefaultCredentialLife)
	if err != nil {
		return redoubt.Credential{}, err
	}
	c := n.stack.As(m)
	n.creds[id] = c
	return c, nil
}

// tokenMagic begins every content that is long enough, so that it is found wherever it shows in clear.
const tokenMagic = "\xfe\xedsim\x00"

// content is something nobody else wrote. The ledger knows its number.
func (w *world) content(size int) string {
	b := make([]byte, max(size, len(tokenMagic)+8))
	for i := 0; i+8 <= len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], w.rand.Uint64())
	}
	copy(b, tokenMagic)
	binary.BigEndian.PutUint64(b[len(tokenMagic):], w.ledger.token())
	return string(b)
}

// act is what a person does at a node.
func (w *world) act(n *node, s step) {
	who, err := n.credential(s.subject, "")
	if err != nil {
		return // nobody of hers works there
	}
	bucket := redoubt.BucketName("reports")
	if s.pick%7 == 0 {
		bucket = "imagery"
	}
	name := redoubt.ObjectName{Bucket: bucket, Key: s.key}
	switch s.what {
	case "put":
		w.put(n, who, name, s)
	case "burst":
		for i := range 12 {
			s.size, s.pick = []int{10, 3000, 60_000}[i%3], s.pick+1
			name.Key = fmt.Sprintf("%s-%d", s.key, i%4)
			w.put(n, who, name, s)
		}
	case "delete":
		gone, err := n.stack.DeleteObject(context.Background(), who, redoubt.DeleteObject{Name: name})
		if w.allowed(n, s, err) {
			w.ledger.wrote(n, redoubt.Version{Name: name, ID: gone.ID, Marker: true, Label: who.Working}, "", 0)
		}
	case "remove", "tag", "hold":
		v, some := w.some(n, who, name, s.pick)
		if !some {
			return
		}
		w.alter(n, who, v, s)
		if home := w.home(); home != n && home.stack != nil && s.pick%3 == 0 { // and the same, or something else, at home
			if there, err := home.credential(s.subject, who.Working.Banner()); err == nil {
				s.pick++
				w.alter(home, there, v, s)
			}
		}
	case "resolve":
		all, err := n.stack.Conflicts(context.Background(), who)
		if !w.allowed(n, s, err) || len(all) == 0 {
			return
		}
		c := all[s.pick%uint64(len(all))]
		_, err = n.stack.ResolveConflict(context.Background(), who, c.Name, c.Versions[len(c.Versions)-1].ID)
		w.allowed(n, s, err)
	}
}

// put writes, now and then above the working label.
func (w *world) put(n *node, who redoubt.Credential, name redoubt.ObjectName, s step) {
	marking := ""
	if s.pick%5 == 0 {
		marking = n.bound
	}
	body := w.content(s.size)
	before := n.current(who, name)
	v, err := n.stack.PutObject(context.Background(), who, redoubt.PutObject{Name: name, Label: marking, SizeBytes: int64(len(body)), Body: strings.NewReader(body),
		Attributes: redoubt.Attributes{Precedence: []string{"", "flash", "priority", "immediate"}[s.pick%4]}})
	if w.allowed(n, s, err) {
		w.ledger.wrote(n, v, body, w.ledger.last)
		if before != "" && v.Label == who.Working && n.current(who, name) == before {
			w.fault("%s: who wrote %s %s still sees what was there before, %s", n.name, name, v.ID, before)
		}
	}
}

// current is what a subject sees under a name; "" is nothing.
func (n *node) current(who redoubt.Credential, name redoubt.ObjectName) redoubt.VersionID {
	o, err := n.stack.GetObject(context.Background(), who, redoubt.ReadObject{Name: name})
	if err != nil {
		return ""
	}
	defer o.Close()
	return o.Version().ID
}

// allowed says whether something was done. What was refused is no fault; what broke is.
func (w *world) allowed(n *node, s step, err error) bool {
	switch redoubt.KindOf(err) {
	case redoubt.Denied, redoubt.NotFound, redoubt.NoBucket, redoubt.Locked, redoubt.MethodNotAllowed, redoubt.Invalid, redoubt.QuotaExceeded, redoubt.Conflict:
		return err == nil
	}
	if err != nil {
		w.fault("%s: %v: %v", n.name, s, err)
	}
	return err == nil
}

// some is a version that a subject sees under a name.
func (w *world) some(n *node, who redoubt.Credential, name redoubt.ObjectName, pick uint64) (redoubt.Version, bool) {
	page, err := n.stack.ListVersions(context.Background(), who, redoubt.ListVersions{Bucket: name.Bucket, Prefix: name.Key, Max: 100})
	if err != nil {
		w.fault("%s: list: %v", n.name, err)
	}
	if pick%4 > 0 { // mostly one that a device may alter
		if own := slices.DeleteFunc(slices.Clone(page.Versions), func(v redoubt.Version) bool { return v.Maker != n.name }); len(own) > 0 {
			page.Versions = own
		}
	}
	if len(page.Versions) == 0 {
		return redoubt.Version{}, false
	}
	return page.Versions[pick%uint64(len(page.Versions))], true
}

func (w *world) alter(n *node, who redoubt.Credential, v redoubt.Version, s step) {
	ctx := context.Background()
	if s.what == "remove" {
		_, err := n.stack.DeleteObject(ctx, who, redoubt.DeleteObject{Name: v.Name, ID: v.ID})
		if w.allowed(n, s, err) {
			w.ledger.removed(n, v.ID)
		}
		return
	}
	in := redoubt.AlterObject{Name: v.Name, ID: v.ID}
	tags, hold := []redoubt.Tag{{Key: "step", Value: fmt.Sprint(s.pick)}}, s.pick%2 == 0
	if s.what == "tag" {
		in.Tags = &tags
	} else {
		in.Hold = &hold
	}
	after, err := n.stack.AlterObject(ctx, who, in)
	if w.allowed(n, s, err) {
		w.ledger.altered(v.ID, fmt.Sprint(after.Tags, after.Hold))
	}
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), err
}
