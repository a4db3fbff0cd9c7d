package sim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/label"
)

// fact is a version that somebody was told is written.
type fact struct {
	v       redoubt.Version
	at      *node
	life    int // of the state that it was written in
	content string
	altered []string // what its tags and hold were told to be
	gone    *node    // where it was removed for good; nil: nowhere
	maybe   bool     // it, or its removal, may have been lost with the only state that had it
}

// ledger is what people were told.
type ledger struct {
	mu     sync.Mutex // guards tokens: who overhears runs beside
	made   map[redoubt.VersionID]*fact
	order  []redoubt.VersionID
	tokens []label.Label // of the content with each number
	last   uint64
}

func (l *ledger) token() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = uint64(len(l.tokens))
	l.tokens = append(l.tokens, label.Label{})
	return l.last
}

func (l *ledger) wrote(n *node, v redoubt.Version, content string, token uint64) {
	sum := ""
	if !v.Marker {
		sum, _ = digest(strings.NewReader(content))
		l.mu.Lock()
		l.tokens[token] = v.Label
		l.mu.Unlock()
	}
	l.made[v.ID] = &fact{v: v, at: n, life: n.life, content: sum, altered: []string{fmt.Sprint(v.Tags, v.Hold)}}
	l.order = append(l.order, v.ID)
}

func (l *ledger) removed(n *node, id redoubt.VersionID) {
	if f := l.made[id]; f != nil && f.gone == nil {
		f.gone = n
	}
}

func (l *ledger) altered(id redoubt.VersionID, as string) {
	if f := l.made[id]; f != nil {
		f.altered = append(f.altered, as)
	}
}

// uncertain marks what a device wrote or removed and its home has not heard of.
func (l *ledger) uncertain(n, home *node) {
	held := home.holds()
	for id, f := range l.made {
		if f.at == n && f.life == n.life && !held[id] || f.gone == n && held[id] {
			f.maybe = true
		}
	}
}

// holds is every version that a node has.
func (n *node) holds() map[redoubt.VersionID]bool {
	out := map[redoubt.VersionID]bool{}
	for _, l := range n.see(n.as("ts-analyst", ""), nil) {
		out[l.id] = true
	}
	return out
}

// line is a version as a subject sees it.
type line struct {
	id   redoubt.VersionID
	text string
	name redoubt.ObjectName
	of   label.Label
	sum  string
	how  string // tags and hold
}

// see is everything that a subject sees of a node, in order, of names that carried says yes to.
func (n *node) see(who redoubt.Credential, carried func(redoubt.ObjectName) bool) (out []line) {
	ctx := context.Background()
	for _, bucket := range []redoubt.BucketName{"reports", "imagery"} {
		q := redoubt.ListVersions{Bucket: bucket, Max: 1000}
		for more := true; more; {
			page, err := n.stack.ListVersions(ctx, who, q)
			if err != nil {
				n.w.fault("%s: list: %v", n.name, err)
				return nil
			}
			for _, v := range page.Versions {
				if carried == nil || carried(v.Name) {
					out = append(out, n.line(who, v))
				}
			}
			more, q.AfterKey, q.AfterID = page.Truncated, page.NextKey, page.NextID
		}
	}
	return out
}

func (n *node) line(who redoubt.Credential, v redoubt.Version) line {
	l := line{id: v.ID, name: v.Name, of: v.Label, text: fmt.Sprintf("%s %s %s marker=%v latest=%v", v.Name, v.ID, v.Label.Banner(), v.Marker, v.Latest)}
	if v.Marker {
		return l
	}
	o, err := n.stack.GetObject(context.Background(), who, redoubt.ReadObject{Name: v.Name, ID: v.ID})
	if err != nil {
		n.w.fault("%s: %s does not open: %v", n.name, v.ID, err)
		return l
	}
	defer o.Close()
	if l.sum, err = digest(o.Reader(0, -1)); err != nil {
		n.w.fault("%s: %s does not read: %v", n.name, v.ID, err)
	}
	full := o.Version()
	l.how = fmt.Sprint(full.Tags, full.Hold)
	l.text += fmt.Sprintf(" %s %s %s %s %s", l.sum, l.how, full.Author, full.Maker, full.ETag)
	return l
}

// carries says whether a device is subscribed to a name in a direction.
func (n *node) carries(name redoubt.ObjectName, in bool) bool {
	return n.subs == nil || slices.ContainsFunc(n.subs, func(s redoubt.Subscription) bool {
		return s.Bucket == name.Bucket && strings.HasPrefix(name.Key, s.Prefix) && (in && s.In || !in && s.Out)
	})
}

// compare holds every node against what people were told, and against the home.
func (w *world) compare() {
	for _, n := range w.nodes {
		if n.captured || n.retired {
			continue
		}
		w.compareFacts(n)
		w.compareViews(n)
		w.compareStore(n)
	}
}

// compareFacts looks for every version that was acknowledged and that a node is to have, and for those that were removed.
func (w *world) compareFacts(n *node) {
	held := map[redoubt.VersionID]line{}
	for _, l := range n.see(n.as("ts-analyst", ""), nil) {
		held[l.id] = l
	}
	for _, id := range w.ledger.order {
		f := w.ledger.made[id]
		l, here := held[id]
		there := f.at == n && f.life == n.life || (f.at.index == 0 || f.at.carries(f.v.Name, false)) && (n.index == 0 || n.carries(f.v.Name, true))
		switch {
		case !n.label(n.bound).Dominates(f.v.Label):
			if here {
				w.fault("%s holds %s %s, above its bound", n.name, f.v.Name, f.v.Label.Banner())
			}
		case f.maybe || !there:
		case f.gone != nil && here:
			w.fault("%s holds %s %s, which was removed at %s", n.name, f.v.Name, id, f.gone.name)
		case f.gone == nil && !here:
			w.fault("%s lacks %s %s %s, written at %s", n.name, f.v.Name, id, f.v.Label.Banner(), f.at.name)
		case f.gone == nil && (l.of != f.v.Label || l.sum != f.content):
			w.fault("%s holds %s %s as %s with content %s, written as %s with %s", n.name, f.v.Name, id, l.of.Banner(), l.sum, f.v.Label.Banner(), f.content)
		case f.gone == nil && !f.v.Marker && !slices.Contains(f.altered, l.how):
			w.fault("%s holds %s %s with %s, which nobody gave it: %v", n.name, f.v.Name, id, l.how, f.altered)
		}
	}
}

// compareViews compares what each subject sees at a device with what she sees at home, of names that go both ways.
func (w *world) compareViews(n *node) {
	if n.index == 0 {
		return
	}
	divided := map[redoubt.ObjectName]bool{} // by what a device wrote before it ended: its home takes none of it from others (ADR 23)
	for _, f := range w.ledger.made {
		if f.maybe {
			divided[f.v.Name] = true
		}
	}
	both := func(name redoubt.ObjectName) bool {
		return n.carries(name, true) && n.carries(name, false) && !divided[name]
	}
	for _, s := range subjects {
		here, err := n.credential(s, "")
		if err != nil {
			continue
		}
		there, err := w.home().credential(s, here.Working.Banner())
		if err != nil {
			continue
		}
		a, b := n.texts(here, both), w.home().texts(there, both)
		if !slices.Equal(a, b) {
			w.fault("%s sees at %s and at home, working at %s:\n%s", s, n.name, here.Working.Banner(), difference(a, b))
		}
	}
}

// texts is what a subject sees, but for what a captured device made after it was, which is its own to make.
func (n *node) texts(who redoubt.Credential, carried func(redoubt.ObjectName) bool) (out []string) {
	for _, l := range n.see(who, carried) {
		out = append(out, l.text)
	}
	return out
}

func difference(a, b []string) string {
	var out strings.Builder
	for _, x := range a {
		if !slices.Contains(b, x) {
			fmt.Fprintln(&out, "\t\tdevice:", x)
		}
	}
	for _, x := range b {
		if !slices.Contains(a, x) {
			fmt.Fprintln(&out, "\t\thome:  ", x)
		}
	}
	return out.String()
}

// compareStore looks at every label that anything in a device's store is kept under.
func (w *world) compareStore(n *node) {
	all, err := n.disk.Labels()
	if err != nil {
		w.fault("%s: %v", n.name, err)
	}
	for _, l := range all {
		if !n.label(n.bound).Dominates(l) {
			w.fault("the store of %s, whose bound is %s, has the label %s", n.name, n.bound, l.Banner())
		}
	}
}

// reconcile has nodes that hold the same compare all of it anew: nothing may travel but the comparison.
func (w *world) reconcile() {
	if time.Since(w.began) > bundle.MaxLife {
		return // marks of removals are being forgotten, by each node at its time
	}
	for _, n := range w.nodes[1:] {
		if n.captured || n.retired {
			continue
		}
		for _, x := range [][2]*node{{n, w.home()}, {w.home(), n}} {
			if err := x[0].stack.Forget(context.Background(), x[1].name); err != nil {
				w.t.Fatal(err)
			}
		}
		w.spoken.Store(0)
		w.meet(n, w.home(), 0)
		synctest.Wait()
		n.partAll()
		if sent := w.spoken.Load(); sent > 0 && !w.divided(n) {
			w.fault("%s and home hold the same, and compared anew sent one another %d messages of entries", n.name, sent)
		}
	}
}

// divided says whether a device has what another wrote before it ended, and its home does not take it.
func (w *world) divided(n *node) bool {
	home := map[redoubt.VersionID]bool{}
	for _, l := range w.home().see(w.home().as("ts-analyst", ""), nil) {
		home[l.id] = true
	}
	return slices.ContainsFunc(n.see(n.as("ts-analyst", ""), nil), func(l line) bool {
		f := w.ledger.made[l.id]
		return f != nil && f.maybe && !home[l.id]
	})
}

// overhear looks for what is above a link's bound in what a node says over it.
func (w *world) overhear(from, to *node, msg []byte) {
	if msg[0] == 'i' || msg[0] == 'b' {
		w.spoken.Add(1)
	}
	bound := from.linkBound(to)
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for rest := msg; ; {
		at := bytes.Index(rest, []byte(tokenMagic))
		if at < 0 || len(rest) < at+len(tokenMagic)+8 {
			break
		}
		rest = rest[at+len(tokenMagic):]
		if n := binary.BigEndian.Uint64(rest); n < uint64(len(w.ledger.tokens)) && !w.ledger.tokens[n].IsZero() && !bound.Dominates(w.ledger.tokens[n]) {
			w.fault("%s sent %s content at %s", from.name, to.name, w.ledger.tokens[n].Banner())
		}
	}
	const policy = "USA@1 "
	for rest := msg; ; {
		at := bytes.Index(rest, []byte(policy))
		if at < 0 {
			return
		}
		if at > 0 && len(rest) >= at+int(rest[at-1]) {
			if l, err := label.ParseText(rest[at:at+int(rest[at-1])], w.policy); err == nil && !bound.Dominates(l) {
				w.fault("%s sent %s the label %s", from.name, to.name, l.Banner())
			}
		}
		rest = rest[at+len(policy):]
	}
}

// linkBound is the bound of the link between two nodes.
func (n *node) linkBound(to *node) label.Label {
	if n.index == 0 {
		return to.label(to.bound)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if l, ok := n.friends[to.name]; ok {
		return l.Bound
	}
	return n.label(n.bound)
}
