package estate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"redoubt"
	"redoubt/label"
)

// Limits of an estate file, each with its reason.
const (
	MaxFileBytes  = 4 << 20 // 10,000 people at 300 bytes
	MaxSPIFBytes  = 4 << 20 // the largest national policy seen has 400 KiB
	MaxNodes      = 4096    // enclaves and devices at 200 bytes; a larger fleet has several homes, each with its estate
	MaxPeople     = 10_000  // held in memory by every node
	MaxBuckets    = 1000    // of one node, at genesis; more are made by the storage role
	MaxQuotas     = 256     // of one node: one a label in use
	MaxHosts      = 64      // names in one certificate
	MaxRoles      = 16      // each role once, with room
	MaxScalar     = 4 << 10 // bytes of one value: a marking or a key
	MaxDepth      = 16      // nesting; the schema needs 6
	MaxFaults     = 1000    // told of one file; a thousand is a wrong file
	MaxNameLength = 63      // of nodes, people and the estate: one DNS label
)

// Version is the version of the file format that this package reads.
const Version = 1

// Estate is a checked estate. The zero Estate has no policy and nobody in it.
type Estate struct {
	Version    int              `json:"redoubt"`
	Name       string           `json:"name"`
	Serial     int64            `json:"serial,omitempty"`   // rises with each issue of a real estate, so that an old one cannot come back
	Exercise   bool             `json:"exercise,omitempty"` // made-up people whose keys the state may keep
	Policy     PolicyRef        `json:"policy"`
	Audit      *Audit           `json:"audit,omitempty"`
	Nodes      []Node           `json:"nodes"`
	People     []redoubt.Person `json:"people"`
	Agreements []AgreementRef   `json:"agreements,omitempty"` // with other estates

	agreements     []*SignedAgreement
	agreementFiles [][]byte // likewise, in the order of Agreements

	policy *label.Policy
	text   []byte // the file
	spif   []byte // what Policy.SPIF names
}

// Audit says how long every node's audit log is kept.
type Audit struct {
	KeepSeconds int64 `json:"keep_seconds"` // no younger entry can be archived away
}

// The bounds of Audit.Keep.
const (
	MinAuditKeep = time.Hour
	MaxAuditKeep = 100 * 366 * 24 * time.Hour // what is kept for good needs no archive
)

// AuditKeep is how old an entry of the audit log must be to be archived away; 0 where the estate does not say.
func (e *Estate) AuditKeep() time.Duration {
	if e.Audit == nil {
		return 0
	}
	return time.Duration(e.Audit.KeepSeconds) * time.Second
}

// PolicyRef names the marking policy: a built-in one, or a SPIF file beside the estate.
type PolicyRef struct {
	Builtin string `json:"builtin,omitempty"`
	SPIF    string `json:"spif,omitempty"`
	Digest  string `json:"digest,omitempty"` // SHA-256 of the SPIF file, hex: so that a signature covers it
}

// Node is one node as declared.
type Node struct {
	Name    redoubt.NodeName `json:"name"`
	Kind    string           `json:"kind"` // "enclave", "device" or "guard"
	Machine string           `json:"machine,omitempty"`
	Range   redoubt.Range    `json:"range"`
	S3      Listener         `json:"s3"`
	API     Listener         `json:"api"`
	Quotas  map[string]int64 `json:"quotas,omitempty"` // banner, or redoubt.QuotaOfOthers → bytes
	Buckets []redoubt.Bucket `json:"buckets,omitempty"`

	Peers *Listener `json:"peers,omitempty"` // where devices meet it, UDP and TCP on one port; nil: none do

	// Of a device:
	Home         redoubt.NodeName       `json:"home,omitempty"`
	LeaseSeconds int64                  `json:"lease_seconds,omitempty"` // how long it works without having met its home
	Carries      []redoubt.Subscription `json:"carries,omitempty"`       // In is towards the device; none: every bucket, both ways
	Meets        []redoubt.NodeName     `json:"meets,omitempty"`         // devices of the same home that it dials when that is not in reach
	Budget       map[string]int64       `json:"budget,omitempty"`        // banner, or redoubt.QuotaOfOthers → bytes that each side sends in a day

	Guard *GuardSpec `json:"guard,omitempty"` // of a guard

	Images *redoubt.ImagePolicy `json:"images,omitempty"` // which images may run here; nil: all that can be read

	Kubernetes *Kubernetes `json:"kubernetes,omitempty"` // nil: images run on the node's own machine alone

	Destinations []redoubt.Destination `json:"destinations,omitempty"` // what jobs here may connect to; none: nothing
	Runc         *Runc                 `json:"runc,omitempty"`         // nil: no job runs on the machine's own kernel

	floor, ceiling label.Label
}

// Listener is where a front end listens.
type Listener struct {
	Listen string   `json:"listen"`          // host:port; port 0 is chosen once and remembered in the state
	Hosts  []string `json:"hosts,omitempty"` // further names and addresses for the certificate; "*.NAME" for virtual-host buckets
	Clear  bool     `json:"clear,omitempty"` // no TLS; loopback only
}

// Lease is how long a device works without having met its home.
func (n Node) Lease() time.Duration { return time.Duration(n.LeaseSeconds) * time.Second }

// Devices are those whose home the node is.
func (e *Estate) Devices(home redoubt.NodeName) (all []Node) {
	for _, n := range e.Nodes {
		if n.Kind == KindDevice && n.Home == home {
			all = append(all, n)
		}
	}
	return all
}

// The kinds of nodes.
const (
	KindEnclave = "enclave"
	KindDevice  = "device"
)

// Leases of devices.
const (
	DefaultLease = 72 * time.Hour
	MinLease     = time.Minute
	MaxLease     = 366 * 24 * time.Hour
	MaxCarries   = 256 // subscriptions of one device
)

// DefaultListen is where a node listens that does not say.
const DefaultListen = "127.0.0.1:0"

// Loopback reports whether the listener can be reached from its own machine only.
func (l Listener) Loopback() bool {
	a, err := netip.ParseAddrPort(l.Listen)
	return err == nil && a.Addr().IsLoopback()
}

// MarkingPolicy is the compiled marking policy.
func (e *Estate) MarkingPolicy() *label.Policy { return e.policy }

// Floor is the lowest label that the node may hold.
func (n Node) Floor() label.Label { return n.floor }

// Ceiling is the highest label that the node may hold.
func (n Node) Ceiling() label.Label { return n.ceiling }

// Node finds a node by its name.
func (e *Estate) Node(name redoubt.NodeName) (Node, bool) {
	i := slices.IndexFunc(e.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return e.Nodes[i], true
}

// Person finds a person by name.
func (e *Estate) Person(name redoubt.SubjectName) (redoubt.Person, bool) {
	i := slices.IndexFunc(e.People, func(p redoubt.Person) bool { return p.Name == name })
	if i < 0 {
		return redoubt.Person{}, false
	}
	return e.People[i], true
}

// Canonical is what signatures speak of: a domain line and the JSON of all that the file
// declares, markings as banners, defaults filled in. Comments and layout are not part of it.
func (e *Estate) Canonical() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("estate: plain fields do not encode: %v", err))
	}
	return append([]byte("redoubt estate v1\n"), b...)
}

// Digest is the SHA-256 of Canonical, hex.
func (e *Estate) Digest() string {
	sum := sha256.Sum256(e.Canonical())
	return hex.EncodeToString(sum[:])
}

// Keyless lists the people that have no public key yet: none, but in an exercise estate.
func (e *Estate) Keyless() []redoubt.SubjectName {
	var names []redoubt.SubjectName
	for _, p := range e.People {
		if p.PublicKey == "" {
			names = append(names, p.Name)
		}
	}
	for _, n := range e.Nodes {
		if g := n.Guard; g != nil && g.LowKey == "" {
			names = append(names, GuardSide(n.Name, g.Low))
		}
		if g := n.Guard; g != nil && g.HighKey == "" {
			names = append(names, GuardSide(n.Name, g.High))
		}
	}
	return names
}

// GuardSide is what the keys of a guard are kept under where an exercise makes them: one for each of its enclaves.
func GuardSide(guard, enclave redoubt.NodeName) redoubt.SubjectName {
	return redoubt.SubjectName(guard + "/" + enclave)
}

// WithKeys is the estate with the public keys (base64) filled in for people and guards that have none.
// Only an exercise estate has such people, so only there does it change anything.
func (e *Estate) WithKeys(keys map[redoubt.SubjectName]string) *Estate {
	out := *e
	out.People = slices.Clone(e.People)
	for i := range out.People {
		if p := &out.People[i]; p.PublicKey == "" {
			p.PublicKey = keys[p.Name]
		}
	}
	out.Nodes = slices.Clone(e.Nodes)
	for i := range out.Nodes {
		if out.Nodes[i].Guard == nil {
			continue
		}
		g, name := *out.Nodes[i].Guard, out.Nodes[i].Name
		g.LowKey = cmp.Or(g.LowKey, keys[GuardSide(name, g.Low)])
		g.HighKey = cmp.Or(g.HighKey, keys[GuardSide(name, g.High)])
		out.Nodes[i].Guard = &g
	}
	return &out
}

// Document is an estate's sources, complete: what a state keeps of it, sealed.
type Document struct {
	Text       []byte                         `json:"text"`
	SPIF       []byte                         `json:"spif,omitempty"`
	Agreements map[string][]byte              `json:"agreements,omitempty"` // by the names of their files
	Keys       map[redoubt.SubjectName]string `json:"keys,omitempty"`       // made for an exercise
	Sigs       []redoubt.Signature            `json:"signatures,omitempty"`
}

// Document gives the sources that e was read from.
func (e *Estate) Document() Document {
	d := Document{Text: e.text, SPIF: e.spif}
	for i, ref := range e.Agreements {
		if d.Agreements == nil {
			d.Agreements = map[string][]byte{}
		}
		d.Agreements[ref.File] = e.agreementFiles[i]
	}
	return d
}

// Read reads a document that took effect before.
func (d Document) Read() (*Estate, error) {
	e, err := read(d.Text, func(name string) ([]byte, error) {
		if a, ok := d.Agreements[name]; ok {
			return a, nil
		}
		return d.SPIF, nil
	}, true)
	if err != nil {
		return nil, err
	}
	return e.WithKeys(d.Keys), nil
}

// Address is the IP address that the listener is bound to; ok is false when it is every address.
func (l Listener) Address() (ip string, ok bool) {
	a, err := netip.ParseAddrPort(l.Listen)
	if err != nil || a.Addr().IsUnspecified() {
		return "", false
	}
	return a.Addr().String(), true
}
