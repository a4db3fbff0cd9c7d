package estate

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"redoubt"
	"redoubt/label"
)

// minOfficers is how many security officers an estate needs: two sign what matters.
const minOfficers = 2

// check looks at what depends on several parts of the estate.
func (r *reader) check() {
	e := r.estate
	if e.policy == nil {
		return // its fault is told; markings cannot be read without it
	}
	if n := r.at["nodes"]; len(e.Nodes) == 0 && n != nil && len(n.Content) == 0 {
		r.faultAt("nodes", "an estate has at least one node", "")
	}
	names := map[redoubt.NodeName]string{}
	for i := range e.Nodes {
		path := fmt.Sprintf("nodes[%d]", i)
		taken(r, names, e.Nodes[i].Name, path+".name", "node")
		if slices.Contains(ownNames, e.Nodes[i].Name) {
			r.faultAt(path+".name", "buckets that begin with "+string(e.Nodes[i].Name)+". are nodes' own", "choose another name")
		}
		r.checkNode(&e.Nodes[i], path)
	}
	r.checkDevices()
	r.checkGuards()
	r.checkAddresses()
	r.checkGranted()
	r.checkPeople()
	r.checkOfficers()
	r.checkAgreements()
}

// checkOfficers asks for two officers who can work at each node's ceiling: the records of people lie there, and so does what two must
// sign. Of a node without them people change by a newly signed estate only.
func (r *reader) checkOfficers() {
	e := r.estate
	var cleared []label.Label
	for _, p := range e.People {
		if !slices.Contains(p.Roles, redoubt.RoleOfficer) || p.Revoked {
			continue
		}
		if l, err := e.policy.Clearance(p.Clearance, p.Nation); err == nil {
			cleared = append(cleared, l)
		}
	}
	if r.taken || len(cleared) < minOfficers { // of too few it is told already
		return
	}
	for i, n := range e.Nodes {
		if n.ceiling.IsZero() || n.Kind == KindGuard {
			continue
		}
		able := 0
		for _, l := range cleared {
			if l.Dominates(n.ceiling) {
				able++
			}
		}
		if able < minOfficers {
			r.faultAt(fmt.Sprintf("nodes[%d].range.ceiling", i), fmt.Sprintf("the ceiling %s of %s has %s cleared for it; two are needed to sign what takes effect there",
				n.Range.Ceiling, printable(string(n.Name)), officersText(able)), "clear two people with the role officer for it, or lower the ceiling")
		}
	}
}

// officersText counts security officers.
func officersText(n int) string {
	if n == 1 {
		return "1 security officer"
	}
	return fmt.Sprintf("%d security officers", n)
}

// checkDevices looks at what joins a device to its home.
func (r *reader) checkDevices() {
	for i := range r.estate.Nodes {
		n, path := &r.estate.Nodes[i], fmt.Sprintf("nodes[%d]", i)
		if n.Kind != KindDevice {
			if n.Home != "" || n.LeaseSeconds != 0 || len(n.Carries) > 0 || n.Budget != nil || len(n.Meets) > 0 {
				r.faultAt(path, "home, lease, carries, meets and budget are a device's", "add kind: device, or remove them")
			}
			continue
		}
		if a, err := netip.ParseAddrPort(listenOf(n.Peers)); err == nil && a.Port() == 0 {
			r.faultAt(path+".peers.listen", "a device that others meet has a port of its own, which its home tells them", "name the port")
		}
		r.checkMeets(n, path)
		if n := len(r.neighbours(n)); n > redoubt.MaxNeighbours {
			r.faultAt(path, fmt.Sprintf("%d devices meet this one, and %d may: those in its meets, and those whose meets name it", n, redoubt.MaxNeighbours), "take it out of the meets of some")
		}
		home, ok := r.estate.Node(n.Home)
		switch {
		case n.Home == "":
			r.faultAt(path, "a device has a home", "add home: ENCLAVE")
		case !ok || home.Kind != KindEnclave:
			r.faultAt(path+".home", printable(string(n.Home))+" is not an enclave of this estate", "")
		case home.Peers == nil:
			r.faultAt(path+".home", "the enclave "+string(n.Home)+" says nowhere that devices may meet it", "add peers: {listen: ADDRESS:PORT} to it")
		case !n.ceiling.IsZero() && !home.ceiling.IsZero() && (!home.ceiling.Dominates(n.ceiling) || !n.floor.Dominates(home.floor)):
			r.faultAt(path+".range", "the device's range lies outside its home's, "+home.Range.Floor+" to "+home.Range.Ceiling, "")
		}
	}
}

func listenOf(l *Listener) string {
	if l == nil {
		return ""
	}
	return l.Listen
}

// checkMeets looks at the devices that one meets without their home.
func (r *reader) checkMeets(n *Node, path string) {
	for i, name := range n.Meets {
		at := fmt.Sprintf("%s.meets[%d]", path, i)
		other, ok := r.estate.Node(name)
		switch {
		case name == "":
		case !ok || other.Kind != KindDevice || other.Home != n.Home || name == n.Name:
			r.faultAt(at, printable(string(name))+" is not another device of the same home", "")
		case other.Peers == nil:
			r.faultAt(at, "the device "+string(name)+" says nowhere that others may meet it", "add peers: {listen: ADDRESS:PORT} to it")
		case slices.Contains(n.Meets[:i], name):
			r.faultAt(at, string(name)+" is named twice", "")
		case !n.ceiling.IsZero() && !other.ceiling.IsZero() && !n.ceiling.Dominates(other.ceiling) && !other.ceiling.Dominates(n.ceiling):
			r.faultAt(at, "neither device's ceiling dominates the other's, so no bound is right for both", "")
		}
	}
}

// neighbours are the other devices of its home that a device is to meet, whichever of the two names the other.
func (r *reader) neighbours(n *Node) map[redoubt.NodeName]bool {
	all := map[redoubt.NodeName]bool{}
	for i := range r.estate.Nodes {
		o := &r.estate.Nodes[i]
		if o.Kind == KindDevice && o.Home == n.Home && o.Name != n.Name && (slices.Contains(n.Meets, o.Name) || slices.Contains(o.Meets, n.Name)) {
			all[o.Name] = true
		}
	}
	return all
}

// taken reports a name that an earlier thing has.
func taken[T ~string](r *reader, seen map[T]string, name T, path, noun string) {
	if name == "" {
		return
	}
	if first, ok := seen[name]; ok {
		line := 0
		if n := r.at[first]; n != nil {
			line = n.Line
		}
		r.faultAt(path, fmt.Sprintf("another %s is named %s, at line %d", noun, name, line), "")
		return
	}
	seen[name] = path
}

func (r *reader) checkNode(n *Node, path string) {
	if n.Kind == KindGuard {
		return // checkGuards: it stands on its enclaves
	}
	n.floor = r.marking(&n.Range.Floor, path+".range.floor")
	n.ceiling = r.marking(&n.Range.Ceiling, path+".range.ceiling")
	ranged := !n.floor.IsZero() && !n.ceiling.IsZero()
	if ranged && !n.ceiling.Dominates(n.floor) {
		r.faultAt(path+".range", "the ceiling does not dominate the floor", "")
		ranged = false
	}
	within := func(l label.Label, path string) {
		if ranged && !l.IsZero() && !(n.ceiling.Dominates(l) && l.Dominates(n.floor)) {
			r.faultAt(path, fmt.Sprintf("%s lies outside the node's range, %s to %s", l.Banner(), n.Range.Floor, n.Range.Ceiling), "")
		}
	}
	n.Quotas = r.checkShares(n.Quotas, path+".quotas", "a quota", within)
	n.Budget = r.checkShares(n.Budget, path+".budget", "a budget", within)
	for i := range n.Carries {
		s, at := &n.Carries[i], fmt.Sprintf("%s.carries[%d].bound", path, i)
		s.Limit = r.marking(&s.Bound, at)
		within(s.Limit, at)
	}
	seen := map[redoubt.BucketName]string{}
	for i := range n.Buckets {
		b, at := &n.Buckets[i], fmt.Sprintf("%s.buckets[%d]", path, i)
		taken(r, seen, b.Name, at, "bucket")
		for _, m := range []struct {
			marking *string
			name    string
		}{{&b.Default, "default"}, {&b.Floor, "floor"}, {&b.Ceiling, "ceiling"}} {
			if *m.marking != "" {
				within(r.marking(m.marking, at+"."+m.name), at+"."+m.name)
			}
		}
		if ranged {
			r.checkBucketRange(n, b, at)
		}
	}
	r.checkListener(n.S3, path+".s3")
	r.checkListener(n.API, path+".api")
	if n.Peers != nil {
		r.checkListener(*n.Peers, path+".peers")
		if n.Peers.Clear {
			r.faultAt(path+".peers.tls", "nodes meet under TLS alone", "remove tls: false")
		}
	}
}

// checkShares looks at sizes by marking, and gives them by banner.
func (r *reader) checkShares(all map[string]int64, path, what string, within func(label.Label, string)) map[string]int64 {
	if all == nil {
		return nil
	}
	out := map[string]int64{}
	for marking, size := range all {
		if marking == redoubt.QuotaOfOthers {
			out[marking] = size
			continue
		}
		at := path + "." + printable(marking)
		within(r.marking(&marking, at), at)
		if _, twice := out[marking]; twice {
			r.faultAt(at, what+" for "+marking+" is given twice, in two spellings", "")
		}
		out[marking] = size
	}
	return out
}

// checkBucketRange looks at a bucket's own range, once its markings are known to be good.
func (r *reader) checkBucketRange(n *Node, b *redoubt.Bucket, path string) {
	parsed := func(marking string, otherwise label.Label) label.Label {
		if marking == "" {
			return otherwise
		}
		l, _ := r.estate.policy.Parse(marking)
		return l
	}
	floor, ceiling := parsed(b.Floor, n.floor), parsed(b.Ceiling, n.ceiling)
	if floor.IsZero() || ceiling.IsZero() {
		return
	}
	if !ceiling.Dominates(floor) {
		r.faultAt(path, "the bucket's ceiling does not dominate its floor", "")
		return
	}
	if l := parsed(b.Default, floor); !l.IsZero() && !(ceiling.Dominates(l) && l.Dominates(floor)) {
		r.faultAt(path+".default", "the default label lies outside the bucket's own range", "")
	}
}

// marking parses in place: what stays is the canonical banner.
func (r *reader) marking(m *string, path string) label.Label {
	if *m == "" {
		return label.Label{}
	}
	l, err := r.estate.policy.Parse(*m)
	if err != nil {
		r.faultAt(path, err.Error(), "redoubt label parse MARKING explains a marking")
		return label.Label{}
	}
	*m = l.Banner()
	return l
}

func (r *reader) checkListener(l Listener, path string) {
	a, err := netip.ParseAddrPort(l.Listen)
	switch {
	case l.Listen == "":
	case err != nil:
		r.faultAt(path+".listen", printable(l.Listen)+" is not an address and a port", "write 127.0.0.1:9000 or [::1]:9000; names are not looked up")
	case !l.Loopback() && l.Clear:
		r.faultAt(path+".tls", "TLS may be off on a loopback address only", "listen on 127.0.0.1, or leave TLS on")
	case !l.Loopback() && a.Port() == 0:
		r.faultAt(path+".listen", "a port of 0 is for loopback addresses", "name the port that others will dial")
	case a.Addr().IsUnspecified() && len(l.Hosts) == 0:
		r.faultAt(path+".listen", "listens on every address and has no host name for its certificate", "add hosts: [NAME, ADDRESS]")
	}
	for i, h := range l.Hosts {
		if h != "" && !validHost(h) {
			r.faultAt(fmt.Sprintf("%s.hosts[%d]", path, i), printable(h)+" is not a host name or an IP address", "")
		}
	}
}

// validHost takes an IP address or a DNS name, the name with one leading "*." at most.
func validHost(h string) bool {
	if net.ParseIP(h) != nil {
		return true
	}
	h = strings.TrimPrefix(h, "*.")
	if len(h) > 253 {
		return false
	}
	for part := range strings.SplitSeq(h, ".") {
		if !validName(strings.ToLower(part)) {
			return false
		}
	}
	return true
}

// checkAddresses finds two listeners of one machine on one address.
func (r *reader) checkAddresses() {
	type place struct{ machine, address string }
	seen := map[place]string{}
	for i, n := range r.estate.Nodes {
		if n.Kind == KindGuard {
			continue
		}
		listeners := []struct{ name, listen string }{{"s3", n.S3.Listen}, {"api", n.API.Listen}}
		if n.Peers != nil {
			listeners = append(listeners, struct{ name, listen string }{"peers", n.Peers.Listen})
		}
		for _, l := range listeners {
			a, err := netip.ParseAddrPort(l.listen)
			if err != nil || a.Port() == 0 {
				continue
			}
			path, at := fmt.Sprintf("nodes[%d].%s.listen", i, l.name), place{n.Machine, a.String()}
			if first, ok := seen[at]; ok {
				r.faultAt(path, "the address is taken by "+first, "give each listener its own port")
				continue
			}
			seen[at] = path
		}
	}
}

func (r *reader) checkPeople() {
	e := r.estate
	names := map[redoubt.SubjectName]string{}
	keys := map[string]redoubt.SubjectName{}
	officers := 0
	for i := range e.People {
		p, path := &e.People[i], fmt.Sprintf("people[%d]", i)
		taken(r, names, p.Name, path+".name", "person")
		if slices.Contains(p.Roles, redoubt.RoleOfficer) {
			officers++
		}
		if p.Clearance != "" && p.Nation != "" {
			if _, err := e.policy.Clearance(p.Clearance, p.Nation); err != nil {
				r.faultAt(path+".clearance", err.Error(), "redoubt label parse MARKING explains a marking")
			}
		}
		if p.PublicKey == "" {
			if exercise := r.at["exercise"]; !e.Exercise && (exercise == nil || exercise.Tag == "!!bool") {
				r.faultAt(path, "has no public_key", "redoubt person key FILE makes a key and prints its public half; only an estate with exercise: true may do without")
			}
			continue
		}
		if other, ok := keys[p.PublicKey]; ok {
			r.faultAt(path+".public_key", fmt.Sprintf("%s has the same key: two people never share one", other), "")
			continue
		}
		keys[p.PublicKey] = p.Name
	}
	if officers < minOfficers && r.at["people"] != nil {
		r.faultAt("people", officersText(officers)+"; two are needed to sign what takes effect", "give two people the role officer")
	}
}
