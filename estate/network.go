package estate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"

	"redoubt"
)

// Runc lets jobs of some subjects ask for the driver "runc": their programs stand on the machine's own kernel.
type Runc struct {
	Subjects []redoubt.SubjectName `json:"subjects"`
}

// Granted are the subjects; nil of a node that does not say.
func (c *Runc) Granted() []redoubt.SubjectName {
	if c == nil {
		return nil
	}
	return c.Subjects
}

// MaxGranted is how many subjects one thing is granted to by name.
const MaxGranted = 1000

// destination reads what jobs of a node may connect to. A node of the estate stands for one of its own listeners, whose address and label are known.
func (r *reader) destination(n *yaml.Node, path string) {
	d := destination{path: path, node: len(r.estate.Nodes)}
	r.mapping(n, path,
		field{"name", true, func(n *yaml.Node, path string) {
			if d.Name = r.text(n, path); d.Name != "" && !redoubt.ValidDestination(d.Name) {
				r.fault(n, path, printable(d.Name)+" is not HOST:PORT", "write a host in lower case, no address, and the port that programs dial: weather.example.mil:443")
			}
		}},
		field{"address", false, func(n *yaml.Node, path string) {
			d.Address = r.text(n, path)
			if a, err := netip.ParseAddrPort(d.Address); d.Address != "" && (err != nil || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Zone() != "") {
				r.fault(n, path, printable(d.Address)+" is not an address and a port that can be dialled", "write 192.0.2.7:443 or [2001:db8::7]:443; names are not looked up")
			}
		}},
		field{"at", false, func(n *yaml.Node, path string) { d.at = redoubt.NodeName(r.name(n, path)) }},
		field{"listener", false, func(n *yaml.Node, path string) { d.listener = r.oneOf(n, path, "s3", "api") }},
		field{"label", false, func(n *yaml.Node, path string) { d.Label = r.text(n, path) }},
		field{"subjects", true, func(n *yaml.Node, path string) { d.Subjects = r.granted(n, path) }},
		field{"bytes", false, func(n *yaml.Node, path string) { d.Bytes = r.size(n, path) }},
	)
	r.destinations = append(r.destinations, d)
}

// destination is one as it is written; its node is filled in once all nodes are read.
type destination struct {
	redoubt.Destination
	path     string
	node     int // whose jobs may
	at       redoubt.NodeName
	listener string
}

// granted reads whom something is granted to.
func (r *reader) granted(n *yaml.Node, path string) (all []redoubt.SubjectName) {
	if n.Kind == yaml.ScalarNode && n.Value == "*" {
		return []redoubt.SubjectName{"*"}
	}
	r.list(n, path, MaxGranted, func(n *yaml.Node, path string) {
		s := redoubt.SubjectName(r.name(n, path))
		switch {
		case s == "":
		case slices.Contains(all, s):
			r.fault(n, path, string(s)+" is named twice", "")
		default:
			all = append(all, s)
		}
	})
	if len(all) == 0 && n.Kind == yaml.SequenceNode {
		r.fault(n, path, "grants it to nobody", `name people of the estate, or write "*" for all`)
	}
	return all
}

func (r *reader) runc(n *yaml.Node, path string) *Runc {
	c := &Runc{}
	r.mapping(n, path, field{"subjects", true, func(n *yaml.Node, path string) { c.Subjects = r.granted(n, path) }})
	return c
}

// checkGranted looks at what nodes grant to people, and at whether those are there.
func (r *reader) checkGranted() {
	people := map[redoubt.SubjectName]bool{"*": true}
	for _, p := range r.estate.People {
		people[p.Name] = true
	}
	known := func(all []redoubt.SubjectName, path string) {
		for i, s := range all {
			if !people[s] {
				r.faultAt(fmt.Sprintf("%s.subjects[%d]", path, i), printable(string(s))+" is nobody of this estate", "")
			}
		}
	}
	for i := range r.estate.Nodes {
		if c := r.estate.Nodes[i].Runc; c != nil {
			known(c.Subjects, fmt.Sprintf("nodes[%d].runc", i))
		}
	}
	for i := range r.destinations {
		d := &r.destinations[i]
		n := &r.estate.Nodes[d.node]
		known(d.Subjects, d.path)
		r.checkDestination(d, n)
		if slices.ContainsFunc(n.Destinations, func(o redoubt.Destination) bool { return o.Name == d.Name && d.Name != "" }) {
			r.faultAt(d.path+".name", printable(d.Name)+" is named twice", "")
		}
		n.Destinations = append(n.Destinations, d.Destination)
	}
}

// checkDestination fills in what a node of the estate says of itself, and holds a destination's label to the node's range.
func (r *reader) checkDestination(d *destination, n *Node) {
	switch {
	case (d.Address == "") == (d.at == ""):
		r.faultAt(d.path, "a destination has an address, or is a node's listener", "one of address: IP:PORT with label: MARKING, and at: NODE")
	case d.at != "":
		r.listenerOf(d)
	case d.Label == "":
		r.faultAt(d.path, "lacks label", "add what it is accredited for: what it may be told, and what its answers count as")
	case d.listener != "":
		r.faultAt(d.path+".listener", "listener is of a destination that is a node", "remove it, or write at: NODE in the place of address")
	}
	l := r.marking(&d.Label, d.path+".label")
	if l.IsZero() || n.ceiling.IsZero() || n.floor.IsZero() {
		return
	}
	if len(redoubt.ConsentMarks(l)) > 0 {
		r.faultAt(d.path+".label", d.Label+" has marks that only their originator lets leave", "remove them: nothing that bears them is sent to a destination")
	}
	if !n.ceiling.Dominates(l) || !l.Dominates(n.floor) {
		r.faultAt(d.path+".label", fmt.Sprintf("%s lies outside the node's range, %s to %s: no job could speak with it", l.Banner(), n.Range.Floor, n.Range.Ceiling), "")
	}
}

// listenerOf gives a destination the address and the label of a node. Its label is the node's ceiling: whatever it holds may be in an answer.
func (r *reader) listenerOf(d *destination) {
	to, ok := r.estate.Node(d.at)
	if !ok || to.Kind == KindGuard {
		r.faultAt(d.path+".at", printable(string(d.at))+" is not an enclave or a device of this estate", "")
		return
	}
	if d.Label != "" {
		r.faultAt(d.path+".label", "the label of a node is its ceiling, since whatever it holds may be in an answer", "remove it")
		d.Label = ""
	}
	l, which := to.S3, cmp.Or(d.listener, "s3")
	if which == "api" {
		l = to.API
	}
	a, err := netip.ParseAddrPort(l.Listen)
	if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() {
		r.faultAt(d.path+".at", fmt.Sprintf("%s does not say at which address and port its %s is reached", to.Name, which), "name both in its listen, or write address and label here")
		return
	}
	d.Address, d.Label = a.String(), to.Range.Ceiling
}
