package sim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/label"
)

// holds is every version that a node has.
func (n *node) holds() map[redoubt.VersionID]line {
	out := map[redoubt.VersionID]line{}
	for _, l := range n.see(n.as("ts-analyst", ""), nil) {
		out[l.id] = l
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
	v    redoubt.Version
	tags string
	last bool // it is current for the reader
}

// see is everything that a subject sees of a node, in order, of which carried says yes to.
func (n *node) see(who redoubt.Credential, carried func(redoubt.Version) bool) (out []line) {
	ctx := context.Background()
	for _, bucket := range []redoubt.BucketName{"reports", "imagery", "video"} {
		q := redoubt.ListVersions{Bucket: bucket, Max: 1000}
		for more := true; more; {
			page, err := n.stack.ListVersions(ctx, who, q)
			if err != nil {
				n.w.fault("%s: list: %v", n.name, err)
				return nil
			}
			for _, v := range page.Versions {
				if carried == nil || carried(v) {
					out = append(out, n.line(who, v))
				}
			}
			more, q.AfterKey, q.AfterID = page.Truncated, page.NextKey, page.NextID
		}
	}
	return out
}

func (n *node) line(who redoubt.Credential, v redoubt.Version) line {
	l := line{v: v, id: v.ID, name: v.Name, of: v.Label, last: v.Latest, text: fmt.Sprintf("%s %s %s marker=%v", v.Name, v.ID, v.Label.Banner(), v.Marker)}
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
	l.v = o.Version()
	l.tags = fmt.Sprint(l.v.Tags)
	l.text += fmt.Sprintf(" %s %s hold=%v %s %d %s %s %s", l.sum, l.tags, l.v.Hold, l.v.Retention.Mode, l.v.Retention.Until.Unix(), l.v.Author, l.v.Maker, l.v.ETag)
	return l
}

// compare holds every node against what people were told, and against the home.
func (w *world) compare() {
	for _, n := range w.nodes {
		if !n.honest() {
			continue
		}
		w.compareFacts(n)
		w.compareViews(n)
		w.compareStore(n)
		w.comparePeople(n)
	}
}

// compareFacts looks for every version that was acknowledged and that a node is to have, and for those that were removed.
func (w *world) compareFacts(n *node) {
	held := n.holds()
	for _, id := range w.ledger.order {
		f := w.ledger.made[id]
		l, here := held[id]
		own := f.at == n && f.life == n.life
		switch {
		case !n.top.Dominates(f.v.Label):
			if here {
				w.fault("%s holds %s %s, above its bound", n.name, f.v.Name, f.v.Label.Banner())
			}
		case f.maybe || f.apart() || !own && !hears(n, f.at, f.v.Name, f.v.Label):
		case f.gone != nil:
			if here && (n == f.gone || hears(n, f.gone, f.v.Name, f.v.Label)) {
				w.fault("%s holds %s %s, which was removed at %s", n.name, f.v.Name, id, f.gone.name)
			}
		case !here:
			if own || !w.mayLack(n, f) {
				w.fault("%s lacks %s %s %s, written at %s", n.name, f.v.Name, id, f.v.Label.Banner(), f.at.name)
			}
		default:
			w.compareFact(n, f, l)
		}
	}
}

// mayLack says whether a link that carries the latest alone is on the way of a version to a node, and a newer one of its place stands.
func (w *world) mayLack(n *node, f *fact) bool {
	return (n.latestOnly(f.v.Name, f.v.Label) || f.at.latestOnly(f.v.Name, f.v.Label)) && w.ledger.superseded(f)
}

// compareFact holds a version as a node has it against what was said of it.
func (w *world) compareFact(n *node, f *fact, l line) {
	if l.of != f.v.Label || l.sum != f.content {
		w.fault("%s holds %s %s as %s with content %s, written as %s with %s", n.name, f.v.Name, l.id, l.of.Banner(), l.sum, f.v.Label.Banner(), f.content)
	}
	if f.v.Marker {
		return
	}
	if !slices.Contains(f.tags, l.tags) {
		w.fault("%s holds %s %s with %s, which nobody gave it: %v", n.name, f.v.Name, l.id, l.tags, f.tags)
	}
	if l.v.Hold && !f.held {
		w.fault("%s holds %s %s on hold, which nobody said", n.name, f.v.Name, l.id)
	}
	lifted := f.until.After(time.Now()) && l.v.Retention.Until.Before(f.until) // what is over need not stand
	if f.altered && hears(n, w.home(), f.v.Name, f.v.Label) && (f.hold && !l.v.Hold || lifted) {
		w.fault("%s holds %s %s with hold %v until %v, its home said %v until %v", n.name, f.v.Name, l.id, l.v.Hold, l.v.Retention.Until, f.hold, f.until)
	}
	if f.firm.After(time.Now()) && (n == f.firmAt || hears(n, f.firmAt, f.v.Name, f.v.Label)) && (l.v.Retention.Mode != compliance || l.v.Retention.Until.Before(f.firm)) {
		w.fault("%s holds %s %s with %s until %v, %s said COMPLIANCE until %v", n.name, f.v.Name, l.id, l.v.Retention.Mode, l.v.Retention.Until, f.firmAt.name, f.firm)
	}
}

// compareViews compares what each subject sees at a device with what she sees at home, of names that go both ways: all of it, or what
// is current for her, where the link carries the latest alone.
func (w *world) compareViews(n *node) {
	if n.index == 0 {
		return
	}
	divided := w.divided(n)
	both := func(v redoubt.Version) bool {
		return n.carries(v.Name, v.Label, true) && n.carries(v.Name, v.Label, false) && !divided[v.Name] && (v.Latest || !n.latestOnly(v.Name, v.Label))
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
		a, b := n.texts(n, here, both), w.home().texts(n, there, both)
		if !slices.Equal(a, b) {
			w.fault("%s sees at %s and at home, working at %s:\n%s", s, n.name, here.Working.Banner(), difference(a, b))
		}
	}
}

// texts is what a subject sees of what a device carries; which version is current is left out where it carries some labels alone.
func (n *node) texts(device *node, who redoubt.Credential, carried func(redoubt.Version) bool) (out []string) {
	for _, l := range n.see(who, carried) {
		if !device.limited(l.name) {
			l.text += fmt.Sprintf(" latest=%v", l.last)
		}
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
		if !n.top.Dominates(l) {
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
		if !n.honest() || n.isApart() {
			continue
		}
		for _, x := range [][2]*node{{n, w.home()}, {w.home(), n}} {
			if err := x[0].stack.Forget(context.Background(), x[1].name); err != nil {
				w.t.Fatal(err)
			}
		}
		w.spoken.Store(0)
		w.meet(n, w.home(), way{})
		synctest.Wait()
		n.partAll()
		if sent := w.spoken.Load(); sent > 0 && len(w.divided(n)) == 0 {
			w.fault("%s and home hold the same, and compared anew sent one another %d messages of entries, the last %q", n.name, sent, w.ledger.last)
		}
	}
}

// divided is under which names a device and its home differ for good: in what its home had locked when its device removed it, and in what
// another device wrote, altered or removed before it ended, of which its home takes no more word (ADR 23).
func (w *world) divided(n *node) map[redoubt.ObjectName]bool {
	here, there, names := n.holds(), w.home().holds(), map[redoubt.ObjectName]bool{}
	for id, f := range w.ledger.made {
		if (f.maybe || f.apart()) && here[id].text != there[id].text && n.top.Dominates(f.v.Label) {
			names[f.v.Name] = true
		}
	}
	return names
}

// isApart says whether a device may differ from its home in something that goes between them: comparing would find it each time. Of what
// goes from the device alone it is not told what its home says; and of what became of a version it may have the word of one that has ended.
func (n *node) isApart() bool {
	home := n.w.home()
	for _, f := range n.w.ledger.made {
		in, out := n.carries(f.v.Name, f.v.Label, true), n.carries(f.v.Name, f.v.Label, false)
		untold := out && !in && slices.Contains(f.by, home)
		ended := f.maybe && len(f.by) > 0
		if n.top.Dominates(f.v.Label) && (untold || (in || out) && (ended || f.apart())) {
			return true
		}
	}
	return false
}

// overhear looks for what is above a link's bound in what a node says over it.
func (w *world) overhear(from, to *node, bound label.Label, msg []byte) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	if msg[0] == 'i' || msg[0] == 'o' {
		w.spoken.Add(1)
		w.ledger.last = bytes.Clone(msg[:min(len(msg), 400)])
	}
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
