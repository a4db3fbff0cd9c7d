package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/label"
)

// fact is a version that somebody was told is written.
type fact struct {
	v       redoubt.Version
	at      *node
	life    int // of the state that it was written in
	content string
	tags    []string  // what its tags were told to be
	gone    *node     // where it was removed for good; nil: nowhere
	maybe   bool      // it, its removal or an alteration may have been lost with the only state that had it
	by      []*node   // where it was altered or removed
	locked  bool      // at home, at some time
	held    bool      // somebody ever said that it is on hold
	hold    bool      // what the home said last
	until   time.Time // and of how long it is retained
	altered bool      // at home
	firm    time.Time // until when somebody was told that COMPLIANCE keeps it: nothing lifts that
	firmAt  *node
}

const compliance = "COMPLIANCE"

// place is where versions supersede one another.
type place struct {
	name redoubt.ObjectName
	of   label.Label
}

// ledger is what people were told.
type ledger struct {
	mu     sync.Mutex // guards tokens and last: who overhears runs beside
	last   []byte     // the beginning of the last message of entries
	made   map[redoubt.VersionID]*fact
	order  []redoubt.VersionID
	newest map[place][]*fact // all of a place
	tokens []label.Label     // of the content with each number
	number uint64            // the last one
}

func (l *ledger) token() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number = uint64(len(l.tokens))
	l.tokens = append(l.tokens, label.Label{})
	return l.number
}

func (l *ledger) wrote(n *node, v redoubt.Version, content string, token uint64) {
	sum := ""
	if !v.Marker {
		sum, _ = digest(strings.NewReader(content))
		l.mu.Lock()
		l.tokens[token] = v.Label
		l.mu.Unlock()
	}
	l.add(n, v, sum)
}

// forged notes what a captured device made under a name and another node took. Its home may yet end it, and take none of that.
func (l *ledger) forged(n, at *node, name redoubt.ObjectName) {
	for _, x := range at.see(at.as("ts-analyst", ""), func(v redoubt.Version) bool { return v.Name == name }) {
		if l.made[x.id] == nil {
			l.add(n, x.v, x.sum)
			l.made[x.id].maybe = true
		}
	}
}

// add notes a version by its content's digest.
func (l *ledger) add(n *node, v redoubt.Version, sum string) {
	f := &fact{v: v, at: n, life: n.life, content: sum, tags: []string{fmt.Sprint(v.Tags)}}
	l.made[v.ID] = f
	l.order = append(l.order, v.ID)
	at := place{v.Name, v.Label}
	l.newest[at] = append(l.newest[at], f)
}

func (l *ledger) removed(n *node, id redoubt.VersionID) {
	f := l.made[id]
	if f == nil {
		return
	}
	if f.by = append(f.by, n); f.gone == nil {
		f.gone = n
	}
}

// altered notes what a version was told to be at a node.
func (l *ledger) altered(n *node, after redoubt.Version) {
	f := l.made[after.ID]
	if f == nil {
		return
	}
	f.tags = append(f.tags, fmt.Sprint(after.Tags))
	f.by = append(f.by, n)
	f.held = f.held || after.Hold
	if r := after.Retention; r.Mode == compliance && r.Until.After(f.firm) {
		f.firm, f.firmAt = r.Until, n
	}
	if n.index == 0 {
		f.altered, f.hold, f.until = true, after.Hold, after.Retention.Until
		f.locked = f.locked || after.Hold || after.Retention.Mode != ""
	}
}

// uncertain marks what a device wrote, altered or removed and its home has not heard of.
func (l *ledger) uncertain(n, home *node) {
	held, mine := home.holds(), map[redoubt.VersionID]line{}
	if _, err := n.credential("ts-analyst", ""); err == nil { // else it is a year since the home told of her
		mine = n.holds()
	}
	for id, f := range l.made {
		_, there := held[id]
		if f.at == n && f.life == n.life && !there || f.gone == n && there || slices.Contains(f.by, n) && mine[id].text != held[id].text {
			f.maybe = true
		}
	}
}

// apart says whether nodes may differ in a version for good: its device removed it, and its home had locked it by then.
func (f *fact) apart() bool { return f.locked && f.gone != nil && f.gone.index > 0 }

// superseded says whether there is a newer version of its name and label, which stands somewhere. That may be at one device alone, which
// leaves the older out for it, and its home takes none of the newer since its maker ended: then the home has neither (docs/spec/replica.md).
func (l *ledger) superseded(f *fact) bool {
	for _, g := range l.newest[place{f.v.Name, f.v.Label}] {
		if g != f && (g.gone == nil || g.maybe || g.apart()) && !g.v.Modified.Before(f.v.Modified) {
			return true
		}
	}
	return false
}

// carries says whether a node is subscribed to a name at a label in a direction. The home carries everything.
func (n *node) carries(name redoubt.ObjectName, of label.Label, in bool) bool {
	if n.subs == nil {
		return true
	}
	for _, s := range n.subs {
		if s.Carries(name, of, in) {
			return true
		}
	}
	return false
}

// latestOnly says whether a device's link to its home carries the latest version of a name alone.
func (n *node) latestOnly(name redoubt.ObjectName, of label.Label) bool {
	latest := false
	for _, s := range n.subs {
		if s.Carries(name, of, true) || s.Carries(name, of, false) {
			if !s.Latest {
				return false
			}
			latest = true
		}
	}
	return latest
}

// limited says whether a device carries a name at some labels alone.
func (n *node) limited(name redoubt.ObjectName) bool {
	for _, s := range n.subs {
		if s.Bound != "" && s.Bucket == name.Bucket && strings.HasPrefix(name.Key, s.Prefix) {
			return true
		}
	}
	return false
}

// hears says whether what is said at one node of a name comes to another over the home, or back to one that lost its state.
func hears(n, from *node, name redoubt.ObjectName, of label.Label) bool {
	return from.carries(name, of, false) && n.carries(name, of, true)
}
