package sim_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"redoubt"
)

// as is a subject's credential at a node.
func (n *node) as(who redoubt.SubjectName, marking string) redoubt.Credential {
	c, err := n.credential(who, marking)
	if err != nil {
		n.w.fault("%s at %s %q: %v", who, n.name, marking, err)
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
	case "large":
		if name.Bucket = "video"; len(w.large) < mostLarge {
			w.put(n, who, name, s)
		}
	case "burst":
		for i := range 12 {
			s.size, s.pick = []int{10, 3000, 60_000}[i%3], s.pick+1
			name.Key = fmt.Sprintf("%s-%d", s.key, i%4)
			w.put(n, who, name, s)
		}
	case "delete":
		gone, err := n.stack.DeleteObject(context.Background(), who, redoubt.DeleteObject{Name: name})
		if w.allowed(n, s, err) {
			w.ledger.wrote(n, n.listed(who, name, gone.ID), "", 0)
		}
	case "remove", "tag", "hold", "retain":
		v, some := w.some(n, who, name, s.pick)
		if s.what != "remove" && w.touched != nil && s.pick>>8%2 == 0 { // mostly what somebody else had a say in
			if c, err := n.credential(s.subject, w.touched.Label.Banner()); err == nil {
				who, v, some = c, *w.touched, true
			}
		}
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
		w.resolve(n, who, all[s.pick%uint64(len(all))], s)
	}
}

// resolve settles a conflict, by a version for each of the others': all of them are noted, also where it ended before the last.
func (w *world) resolve(n *node, who redoubt.Credential, c redoubt.NameConflict, s step) {
	before := map[redoubt.VersionID]bool{}
	under := func(v redoubt.Version) bool { return v.Name == c.Name }
	for _, l := range n.see(who, under) {
		before[l.id] = true
	}
	_, err := n.stack.ResolveConflict(context.Background(), who, c.Name, c.Versions[len(c.Versions)-1].ID)
	w.allowed(n, s, err)
	for _, l := range n.see(who, under) { // of a marker a list has no maker
		if !before[l.id] && w.ledger.made[l.id] == nil && (l.v.Marker || l.v.Maker == n.name) {
			w.ledger.add(n, l.v, l.sum)
		}
	}
}

// listed is a version as a list has it.
func (n *node) listed(who redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID) redoubt.Version {
	for _, l := range n.see(who, func(v redoubt.Version) bool { return v.ID == id }) {
		return l.v
	}
	n.w.fault("%s: %s %s is not listed", n.name, name, id)
	return redoubt.Version{Name: name, ID: id}
}

// mostLarge is how many contents of several segments one history writes.
const mostLarge = 3

// largeContent is a body, or most of the one before it with the beginning and some of the midst of this one.
func (w *world) largeContent(body string, pick uint64) string {
	if n := len(w.large); n > 0 && pick%2 == 0 {
		b := []byte(w.large[n-1])
		at := len(b) / 3
		copy(b[at:], body[:min(len(body), 50_000)])
		copy(b, body[:len(tokenMagic)+8])
		copy(b[at:], make([]byte, len(tokenMagic)+8)) // the number is of this place alone
		body = string(b)
	}
	w.large = append(w.large, body)
	return body
}

// put writes, now and then above the working label.
func (w *world) put(n *node, who redoubt.Credential, name redoubt.ObjectName, s step) {
	marking := ""
	if s.pick%5 == 0 {
		marking = n.bound
	}
	body := w.content(s.size)
	if s.what == "large" {
		body = w.largeContent(body, s.pick)
	}
	before := n.current(who, name)
	v, err := n.stack.PutObject(context.Background(), who, redoubt.PutObject{Name: name, Label: marking, SizeBytes: int64(len(body)), Body: strings.NewReader(body),
		Attributes: redoubt.Attributes{Precedence: []string{"", "flash", "priority", "immediate"}[s.pick%4]}})
	if w.allowed(n, s, err) {
		w.ledger.wrote(n, v, body, w.ledger.number)
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
	case redoubt.Expired: // of a person: it is a year since the home told of her
		return false
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
	if err != nil && redoubt.KindOf(err) != redoubt.Expired {
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
	until := redoubt.Retention{Mode: []string{"GOVERNANCE", "GOVERNANCE", compliance}[s.pick>>4%3], Until: n.stack.Now().Add(time.Duration(1+s.pick%200) * 24 * time.Hour).Truncate(time.Second).UTC()}
	switch s.what {
	case "tag":
		in.Tags = &tags
	case "hold":
		in.Hold = &hold
	default:
		in.Retention = &until
	}
	after, err := n.stack.AlterObject(ctx, who, in)
	if w.allowed(n, s, err) {
		w.touched = &after
		w.ledger.altered(n, after)
	}
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), err
}
