package estate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"redoubt"
	"redoubt/label"
)

// A guard joins two enclaves: what is in the lower one's buckets it raises, and what two people let out of the higher one it releases.

// GuardSpec is what a node of kind guard says beside its name.
type GuardSpec struct {
	Low     redoubt.NodeName     `json:"low"`
	High    redoubt.NodeName     `json:"high"`
	Raise   []redoubt.BucketName `json:"raise"` // of the lower enclave; none in the file: all that it has
	Release *ReleaseRules        `json:"release,omitempty"`
	LowKey  string               `json:"low_key,omitempty"` // Ed25519, base64: as whom the guard comes to the lower enclave
	HighKey string               `json:"high_key,omitempty"`

	Road       Road   `json:"road,omitzero"`         // between its halves
	ReleaseKey string `json:"release_key,omitempty"` // Ed25519, base64: as whom it brings releases to the lower enclave, where its halves run apart

	Pins map[string]Pin `json:"pins,omitempty"` // of its two enclaves, by name
}

// Pin is by what the other end of a guard knows an enclave. Only in an exercise are they taken from the state instead.
type Pin struct {
	Key       string `json:"key"`       // Ed25519, base64: what it signs with
	Recipient string `json:"recipient"` // what bundles for it are sealed to
	CA        string `json:"ca"`        // SHA-256 of its authority's certificate, hex
}

// ReleaseRules are what a guard holds every release to, before any person sees it.
type ReleaseRules struct {
	Buckets      []redoubt.BucketName `json:"buckets"`           // of the higher enclave, whose releases have a bucket in the lower; none in the file: those that the lower has one of the same name of
	Types        []string             `json:"types"`             // media types; of those that the guard has two filters for
	Words        []string             `json:"words,omitempty"`   // that never leave
	Schemas      map[string]string    `json:"schemas,omitempty"` // media type → the closed schema of its content
	PerPersonDay int                  `json:"per_person_day"`    // releases that one subject may ask for
	PerDay       int                  `json:"per_day"`
}

// What a guard's release rules are where the estate does not say.
const (
	DefaultReleasesPerPerson = 100
	DefaultReleasesPerDay    = 1000
	MaxReleasesPerDay        = 1_000_000
	MaxWords                 = 10_000
	MaxReleaseTypes          = 32
	MaxRaised                = 1000 // buckets of one guard
	MaxSchemaBytes           = 64 << 10
)

// DefaultReleaseTypes need no schema of the estate's.
func DefaultReleaseTypes() []string { return []string{"text/plain", "image/png", "image/jpeg"} }

// ownNames are ORIGIN of the buckets that nodes keep for themselves (enclave.RebuiltBucket, enclave.JobBucket), so no node and no partner has one.
var ownNames = []redoubt.NodeName{"guard", "job"}

// releaseSuffix ends the name of who brings a guard's releases, where that is not the guard itself.
const releaseSuffix = "-release"

// KindGuard is the kind of a node that joins two enclaves.
const KindGuard = "guard"

// Rules is the digest of what the guard holds releases to: an approval dies with it.
func (r *ReleaseRules) Rules() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("estate: plain fields do not encode: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Guards are those that join the enclave to others.
func (e *Estate) Guards(of redoubt.NodeName) (all []Node) {
	for _, n := range e.Nodes {
		if n.Guard != nil && (n.Guard.Low == of || n.Guard.High == of) {
			all = append(all, n)
		}
	}
	return all
}

// GuardPeople are the guards of an enclave as it knows them: subjects with a role of their own, whose key is for that side alone.
func (e *Estate) GuardPeople(of redoubt.NodeName) (all []redoubt.Person) {
	node, ok := e.Node(of)
	if !ok {
		return nil
	}
	for _, g := range e.Guards(of) {
		key := g.Guard.HighKey
		if g.Guard.Low == of {
			key = g.Guard.LowKey
		}
		one := redoubt.Person{Name: redoubt.SubjectName(g.Name), Clearance: node.Range.Ceiling, Nation: e.policy.Nation(), Roles: []redoubt.Role{redoubt.RoleGuard},
			Expires: guardsEnd, PublicKey: key, Workload: true}
		all = append(all, one)
		if g.Guard.Low == of && g.Guard.ReleaseKey != "" {
			one.Name, one.PublicKey = g.Guard.Releaser(g.Name), g.Guard.ReleaseKey
			all = append(all, one)
		}
	}
	return all
}

// Releaser is as whom a guard brings releases to its lower enclave: where its halves run apart the low one, which takes what is raised, has another
// key than who releases.
func (g *GuardSpec) Releaser(guard redoubt.NodeName) redoubt.SubjectName {
	if g.ReleaseKey != "" {
		return redoubt.SubjectName(guard + releaseSuffix)
	}
	return redoubt.SubjectName(guard)
}

// guardsEnd is when a guard's clearance ends: with the estate that names it, which is long before.
var guardsEnd = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Origins says of every enclave and device which enclave its content is of.
func (e *Estate) Origins() map[redoubt.NodeName]redoubt.NodeName {
	out := map[redoubt.NodeName]redoubt.NodeName{}
	for _, n := range e.Nodes {
		switch n.Kind {
		case KindEnclave:
			out[n.Name] = n.Name
		case KindDevice:
			out[n.Name] = n.Home
		}
	}
	return out
}

// RaisedName is what a bucket of the lower enclave is called in the higher: ORIGIN.BUCKET, unchanged over hops.
func RaisedName(low redoubt.NodeName, b redoubt.BucketName) redoubt.BucketName {
	if slices.Contains([]byte(b), '.') {
		return b
	}
	return redoubt.BucketName(low) + "." + b
}

// GuardBuckets are the buckets that guards write in an enclave: those that are raised into it, and those that are released into it. They exist,
// empty, from the start (RULES 2.5), so that whether anything came tells nothing. Of the higher enclave's names the lower has those alone that
// it has itself, or that the estate lets be known there.
func (e *Estate) GuardBuckets(of redoubt.NodeName) []redoubt.Bucket {
	var all []redoubt.Bucket
	add := func(name redoubt.BucketName, floor, ceiling string) {
		if !slices.ContainsFunc(all, func(b redoubt.Bucket) bool { return b.Name == name }) {
			all = append(all, redoubt.Bucket{Name: name, BucketSettings: redoubt.BucketSettings{ReadOnly: true, Floor: floor, Ceiling: ceiling}})
		}
	}
	for _, g := range e.Guards(of) {
		if g.Guard.High == of {
			for _, b := range g.Guard.Raise {
				name := RaisedName(g.Guard.Low, b)
				if from, ok := e.Node(originOf(name)); ok {
					add(name, from.Range.Floor, from.Range.Ceiling)
				}
			}
		} else {
			for _, b := range g.Guard.Release.Buckets {
				add(redoubt.BucketName(g.Guard.High)+"."+b, "", "")
			}
		}
	}
	return all
}

// originOf is the ORIGIN of ORIGIN.BUCKET.
func originOf(b redoubt.BucketName) redoubt.NodeName {
	for i := range len(b) {
		if b[i] == '.' {
			return redoubt.NodeName(b[:i])
		}
	}
	return ""
}

// guard reads what a guard says.
func (r *reader) guard(node *Node) []field {
	g := func() *GuardSpec {
		if node.Guard == nil {
			node.Guard = &GuardSpec{}
		}
		return node.Guard
	}
	return []field{
		{"low", false, func(n *yaml.Node, p string) { g().Low = redoubt.NodeName(r.name(n, p)) }},
		{"high", false, func(n *yaml.Node, p string) { g().High = redoubt.NodeName(r.name(n, p)) }},
		{"raise", false, func(n *yaml.Node, p string) {
			g().Raise = []redoubt.BucketName{}
			r.list(n, p, MaxRaised, func(n *yaml.Node, p string) { g().Raise = append(g().Raise, redoubt.BucketName(r.text(n, p))) })
		}},
		{"release", false, func(n *yaml.Node, p string) { g().Release = r.releaseRules(n, p) }},
		{"low_key", false, func(n *yaml.Node, p string) { g().LowKey = r.publicKey(n, p) }},
		{"high_key", false, func(n *yaml.Node, p string) { g().HighKey = r.publicKey(n, p) }},
		{"release_key", false, func(n *yaml.Node, p string) { g().ReleaseKey = r.publicKey(n, p) }},
		{"road", false, func(n *yaml.Node, p string) { g().Road = r.road(n, p) }},
		{"pins", false, func(n *yaml.Node, p string) {
			g().Pins = map[string]Pin{}
			r.entries(n, p, 2, func(key, value *yaml.Node, p string) {
				var pin Pin
				r.mapping(value, p,
					field{"key", true, func(n *yaml.Node, p string) { pin.Key = r.publicKey(n, p) }},
					field{"recipient", true, func(n *yaml.Node, p string) { pin.Recipient = r.text(n, p) }},
					field{"ca", true, func(n *yaml.Node, p string) { pin.CA = r.text(n, p) }})
				g().Pins[key.Value] = pin
			})
		}},
	}
}

// releaseRules reads what releases are held to.
func (r *reader) releaseRules(n *yaml.Node, path string) *ReleaseRules {
	out := &ReleaseRules{Types: DefaultReleaseTypes(), PerPersonDay: DefaultReleasesPerPerson, PerDay: DefaultReleasesPerDay}
	texts := func(into *[]string, most int) func(*yaml.Node, string) {
		return func(n *yaml.Node, p string) {
			*into = []string{}
			r.list(n, p, most, func(n *yaml.Node, p string) { *into = append(*into, r.text(n, p)) })
		}
	}
	r.mapping(n, path,
		field{"buckets", false, func(n *yaml.Node, p string) {
			out.Buckets = []redoubt.BucketName{}
			r.list(n, p, MaxRaised, func(n *yaml.Node, p string) { out.Buckets = append(out.Buckets, redoubt.BucketName(r.text(n, p))) })
		}},
		field{"types", false, texts(&out.Types, MaxReleaseTypes)},
		field{"words", false, texts(&out.Words, MaxWords)},
		field{"per_person_day", false, func(n *yaml.Node, p string) { out.PerPersonDay = int(r.number(n, p, 1, MaxReleasesPerDay)) }},
		field{"per_day", false, func(n *yaml.Node, p string) { out.PerDay = int(r.number(n, p, 1, MaxReleasesPerDay)) }},
		field{"schemas", false, func(n *yaml.Node, p string) {
			out.Schemas = map[string]string{}
			r.entries(n, p, MaxReleaseTypes, func(key, value *yaml.Node, p string) {
				if value.Kind != yaml.ScalarNode || value.Value == "" || len(value.Value) > MaxSchemaBytes {
					r.fault(value, p, fmt.Sprintf("want the text of a schema, at most %d bytes", MaxSchemaBytes), "write it as a block: |")
					return
				}
				out.Schemas[key.Value] = value.Value
			})
		}},
	)
	return out
}

// checkGuards looks at what joins a guard to its enclaves, once those are known to be good.
func (r *reader) checkGuards() {
	pairs := map[[2]redoubt.NodeName]bool{}
	for _, i := range r.lowestFirst() {
		n, path := &r.estate.Nodes[i], fmt.Sprintf("nodes[%d]", i)
		if n.Kind != KindGuard {
			if n.Guard != nil {
				r.faultAt(path, "low, high, raise, release, road, low_key, high_key, release_key and pins are a guard's", "add kind: guard, or remove them")
			}
			continue
		}
		if n.Guard == nil {
			n.Guard = &GuardSpec{}
		}
		if n.Range != (redoubt.Range{}) || len(n.Buckets) > 0 || n.Quotas != nil || n.Peers != nil {
			r.faultAt(path, "a guard has no range, buckets, quotas or peers of its own", "its range is that of its two enclaves")
		}
		r.checkGuard(n, path, pairs)
	}
}

func (r *reader) checkGuard(n *Node, path string, pairs map[[2]redoubt.NodeName]bool) {
	g := n.Guard
	low, ok := r.estate.Node(g.Low)
	high, also := r.estate.Node(g.High)
	switch {
	case g.Low == "" || g.High == "":
		r.faultAt(path, "a guard joins two enclaves", "add low: ENCLAVE and high: ENCLAVE")
		return
	case !ok || low.Kind != KindEnclave:
		r.faultAt(path+".low", printable(string(g.Low))+" is not an enclave of this estate", "")
		return
	case !also || high.Kind != KindEnclave:
		r.faultAt(path+".high", printable(string(g.High))+" is not an enclave of this estate", "")
		return
	case low.ceiling.IsZero() || high.ceiling.IsZero():
		return // their faults are told
	case g.Low == g.High || !high.ceiling.Dominates(low.ceiling) || !low.floor.Dominates(high.floor) || low.ceiling.Dominates(high.ceiling):
		r.faultAt(path, fmt.Sprintf("the range of %s does not lie below that of %s", g.Low, g.High), "the higher enclave's ceiling strictly dominates the lower's, and its floor is no higher")
		return
	case pairs[[2]redoubt.NodeName{g.Low, g.High}]:
		r.faultAt(path, "another guard joins the same two enclaves", "")
	}
	pairs[[2]redoubt.NodeName{g.Low, g.High}] = true
	n.floor, n.ceiling = high.floor, high.ceiling
	n.Range = redoubt.Range{Floor: high.Range.Floor, Ceiling: high.Range.Ceiling}
	r.checkRaised(n, low, path)
	if g.Release == nil {
		g.Release = &ReleaseRules{Types: DefaultReleaseTypes(), PerPersonDay: DefaultReleasesPerPerson, PerDay: DefaultReleasesPerDay}
	}
	r.checkReleased(g.Release, low, high, path)
	for name := range g.Pins {
		if redoubt.NodeName(name) != g.Low && redoubt.NodeName(name) != g.High {
			r.faultAt(path+".pins."+printable(name), "is neither of the guard's two enclaves", "")
		}
	}
	if e := r.estate; !e.Exercise && !r.taken && (g.LowKey == "" || g.HighKey == "" || len(g.Pins) != 2) {
		r.faultAt(path, "has no keys of its own, or no pins of its enclaves", "redoubt guard key NAME prints low_key and high_key, and redoubt node card what is pinned; only an estate with exercise: true may do without")
	}
	r.checkRoad(n, path)
	for _, name := range []redoubt.SubjectName{redoubt.SubjectName(n.Name), g.Releaser(n.Name)} {
		if _, ok := r.estate.Person(name); ok {
			r.faultAt(path+".name", "a person is named "+string(name)+", as the guard is", "")
			return
		}
	}
}

// checkReleased fills in which buckets have releases, and looks at what the file names.
func (r *reader) checkReleased(g *ReleaseRules, low, high Node, path string) {
	has := func(n Node, name redoubt.BucketName) bool {
		return slices.ContainsFunc(n.Buckets, func(b redoubt.Bucket) bool { return b.Name == name })
	}
	if g.Buckets == nil {
		g.Buckets = []redoubt.BucketName{}
		for _, b := range high.Buckets {
			if has(low, b.Name) {
				g.Buckets = append(g.Buckets, b.Name)
			}
		}
	}
	for i, b := range g.Buckets {
		at := fmt.Sprintf("%s.release.buckets[%d]", path, i)
		if !has(high, b) {
			r.faultAt(at, printable(string(b))+" is not a bucket of "+string(high.Name), "")
		}
		if slices.Contains(g.Buckets[:i], b) {
			r.faultAt(at, printable(string(b))+" is named twice", "")
		}
	}
}

// checkRaised fills in what is raised, and looks at what the file names: buckets of the lower enclave, and those that are raised into it.
func (r *reader) checkRaised(n *Node, low Node, path string) {
	g := n.Guard
	var can []redoubt.BucketName
	for _, b := range low.Buckets {
		can = append(can, b.Name)
	}
	for _, other := range r.estate.Nodes { // what another guard raises into the lower one; guards are checked from the lowest up
		if other.Kind == KindGuard && other.Guard != nil && other.Guard.High == g.Low {
			for _, b := range other.Guard.Raise {
				can = append(can, RaisedName(other.Guard.Low, b))
			}
		}
	}
	if g.Raise == nil {
		g.Raise = can
	}
	for i, b := range g.Raise {
		at := fmt.Sprintf("%s.raise[%d]", path, i)
		if !slices.Contains(can, b) {
			r.faultAt(at, printable(string(b))+" is not a bucket of "+string(g.Low), "a bucket that is released into it is never raised")
		}
		if slices.Contains(g.Raise[:i], b) {
			r.faultAt(at, printable(string(b))+" is named twice", "")
		}
	}
}

// lowestFirst has guards checked in the order of their higher ends, so that what one raises is known to the next.
func (r *reader) lowestFirst() []int {
	order := make([]int, len(r.estate.Nodes))
	for i := range order {
		order[i] = i
	}
	ceiling := func(i int) label.Label {
		if g := r.estate.Nodes[i].Guard; g != nil {
			if high, ok := r.estate.Node(g.High); ok {
				return high.ceiling
			}
		}
		return label.Label{}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := ceiling(a), ceiling(b); {
		case x == y:
			return 0
		case y.Dominates(x):
			return -1
		case x.Dominates(y):
			return 1
		}
		return 0
	})
	return order
}
