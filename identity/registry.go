package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/label"
)

// SecretBytes is the length of Options.Secret: that of the HMAC-SHA256 which it keys.
const SecretBytes = 32

// Options is what a Registry is made from.
type Options struct {
	Node           redoubt.NodeName
	Policy         *label.Policy
	Floor, Ceiling label.Label      // the node's accredited range
	Secret         []byte           // SecretBytes; secret access keys and tokens are derived from it
	People         []redoubt.Person // of the signed genesis estate
	Partners       []redoubt.Person // of signed agreements with other estates: their gateways and people
	Region         string           // handed out with credentials
	Clock          func() time.Time // nil: time.Now
	Rand           io.Reader        // nil: crypto/rand
}

// Registry is the people of one node. See the package doc for who may call what at once.
type Registry struct {
	o     Options
	dummy ed25519.PublicKey // verified against for names that do not exist

	// Read without a lock; values are immutable but for the atomics in them.
	people      sync.Map // redoubt.SubjectName → *person
	credentials sync.Map // access key ID → *credential

	mu        sync.Mutex
	keys      map[string]redoubt.SubjectName    // every public key ever seen, and whose it is for good
	past      map[redoubt.SubjectName][]*person // what each was by the estate and by every change, oldest first
	grants    map[string]redoubt.Grant          // in force
	granted   map[redoubt.SubjectName][]string  // IDs of the grants that name a subject, sorted
	revoked   map[string]revocationRecord       // by KIND/NAME
	told      map[redoubt.SubjectName]bool      // of whom the home tells
	withdrawn map[redoubt.SubjectName]bool      // whom it tells to be no more
	changes   map[string]changeRecord           // by ID
	held      map[redoubt.SubjectName]held      // live and promised credentials
	nonces    nonces
	swept     time.Time
}

// New makes a Registry of the genesis estate's people. It fails on an option that is missing and on a person
// who is malformed, named twice, or holds another's key.
func New(o Options) (*Registry, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	switch {
	case o.Node == "" || o.Policy == nil || o.Region == "":
		return nil, errors.New("identity: node, policy and region are needed")
	case len(o.Secret) != SecretBytes:
		return nil, fmt.Errorf("identity: the secret has %d bytes, want %d", len(o.Secret), SecretBytes)
	case !o.Ceiling.Dominates(o.Floor):
		return nil, errors.New("identity: the node's ceiling does not dominate its floor")
	}
	o.Secret = slices.Clone(o.Secret)
	r := &Registry{
		o:         o,
		keys:      make(map[string]redoubt.SubjectName),
		past:      make(map[redoubt.SubjectName][]*person),
		grants:    make(map[string]redoubt.Grant),
		granted:   make(map[redoubt.SubjectName][]string),
		revoked:   make(map[string]revocationRecord),
		told:      make(map[redoubt.SubjectName]bool),
		withdrawn: make(map[redoubt.SubjectName]bool),
		changes:   make(map[string]changeRecord),
		held:      make(map[redoubt.SubjectName]held),
	}
	seed := r.mac("unknown subject", "")
	r.dummy = ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	for _, of := range []struct {
		all  []redoubt.Person
		take func(redoubt.Person) error
	}{{o.People, r.genesis}, {o.Partners, r.partner}} {
		for _, p := range of.all {
			if _, twice := r.person(p.Name); twice {
				return nil, fmt.Errorf("identity: %s is declared twice", p.Name)
			}
			if err := of.take(p); err != nil {
				return nil, fmt.Errorf("identity: %s: %w", p.Name, err)
			}
		}
	}
	return r, nil
}

// Subject resolves a name as it stands now, with the grants that name it or everyone. It is false for whom
// does not exist and for whom was revoked. It takes no lock and allocates nothing.
// The slices in the Subject are shared: callers only read them.
func (r *Registry) Subject(name redoubt.SubjectName) (redoubt.Subject, bool) {
	p, ok := r.person(name)
	if !ok || p.Revoked {
		return redoubt.Subject{}, false
	}
	return p.subject, true
}

// Live says whether a credential is good now: nil, Expired, or Unauthenticated for one that is not of this
// registry's making, was revoked, or acts for a subject who was revoked or has another key by now. It
// takes no lock and allocates nothing.
func (r *Registry) Live(who redoubt.Credential) error {
	c, ok := r.credential(who.ID)
	if !ok || c.Subject != who.Subject || c.Working != who.Working || !c.Expires.Equal(who.Expires) {
		return errUnknownCredential
	}
	return r.live(c)
}

// Ended says whether a credential was revoked, now or before it expired. It is false of one that was forgotten, or never was.
func (r *Registry) Ended(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ended := r.revoked[KindCredential+"/"+id]
	return ended
}

func (r *Registry) live(c *credential) error {
	p, ok := r.person(c.Subject)
	switch {
	case c.revoked.Load():
		return errRevoked
	case !ok || p.Revoked || p.key != c.key || p.life != c.life:
		return errRevoked
	case !r.o.Clock().Before(c.Expires):
		return errExpired
	}
	return nil
}

// What Live answers; made once, for it is asked on every request.
var (
	errUnknownCredential = &redoubt.Error{Op: "identity.Live", Kind: redoubt.Unauthenticated, Err: errors.New("no such credential")}
	errRevoked           = &redoubt.Error{Op: "identity.Live", Kind: redoubt.Unauthenticated, Err: errors.New("revoked")}
	errExpired           = &redoubt.Error{Op: "identity.Live", Kind: redoubt.Expired}
)

// People lists everybody, the revoked too, by name.
func (r *Registry) People() []redoubt.Person {
	var all []redoubt.Person
	r.people.Range(func(_, v any) bool {
		p := v.(*person).Person
		p.Roles = slices.Clone(p.Roles)
		all = append(all, p)
		return true
	})
	slices.SortFunc(all, func(a, b redoubt.Person) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
}

func (r *Registry) person(name redoubt.SubjectName) (*person, bool) {
	v, ok := r.people.Load(name)
	if !ok {
		return nil, false
	}
	return v.(*person), true
}

// credential finds one that did not expire long ago. Whether one that did is still in memory hangs on when anybody
// was last given one, at whatever label, and so nobody is told.
func (r *Registry) credential(id string) (*credential, bool) {
	v, ok := r.credentials.Load(id)
	if !ok {
		return nil, false
	}
	c := v.(*credential)
	return c, !c.longGone(r.o.Clock())
}

func (r *Registry) inRange(l label.Label) bool {
	return r.o.Ceiling.Dominates(l) && l.Dominates(r.o.Floor)
}

// random gives n characters of the alphabet of access key IDs, 5 bits each.
func (r *Registry) random(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r.o.Rand, b); err != nil {
		return "", err
	}
	for i := range b {
		b[i] = idAlphabet[b[i]&31]
	}
	return string(b), nil
}

func refused(op, object string, rule, hint string) error {
	return &redoubt.Error{Op: op, Object: object, Kind: redoubt.Denied, Rule: rule, Hint: hint}
}

func invalid(op, object string, err error) error {
	return &redoubt.Error{Op: op, Object: object, Kind: redoubt.Invalid, Err: err}
}
