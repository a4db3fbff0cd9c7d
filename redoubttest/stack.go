// Package redoubttest runs whole enclaves inside a test: people with keys of their own, the
// S3 front end over an enclave, and requests signed as a client signs them. Given a
// seed it is deterministic: keys, credentials, version IDs and times are functions of it.
package redoubttest

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/enclave"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/registry"
	"redoubt/s3"
	"redoubt/store"
	"redoubt/store/memory"
)

// People are those of the example estate, and two who do low what is else done high.
var People = []redoubt.Person{
	{Name: "ts-analyst", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst, redoubt.RoleWriteUp}},
	{Name: "s-analyst", Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}},
	{Name: "gbr-liaison", Clearance: "SECRET", Nation: "GBR", Roles: []redoubt.Role{redoubt.RoleAnalyst}},
	{Name: "u-analyst", Clearance: "UNCLASSIFIED", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}},
	{Name: "officer", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleOfficer}},
	{Name: "officer-2", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleOfficer}},
	{Name: "admin", Clearance: "UNCLASSIFIED", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAdmin, redoubt.RoleStorage}},
	{Name: "u-officer", Clearance: "UNCLASSIFIED", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleOfficer}},
}

// Region is what signatures name.
const Region = "redoubt"

// Stack is one enclave behind its S3 front end and its registry.
type Stack struct {
	*enclave.Enclave
	Handler http.Handler       // S3
	Images  *registry.Registry // of container images
	Clock   *Clock
	t       testing.TB
	people  uint64 // the seed of the keys of people
	keys    map[redoubt.SubjectName]ed25519.PrivateKey
	rand    *Rand
	name    redoubt.NodeName
	now     func() time.Time
	disk    *Disk
	cut     bool // it has no power
	stop    sync.Once
}

// Options changes what New makes. The zero Options is the enclave "topsecret" of the example estate in memory.
type Options struct {
	Seed           uint64
	PeopleSeed     uint64 // of the keys of people, where several nodes have the same ones; 0: Seed
	Session        uint64 // how often this state was opened before: the same people, other random bytes
	Name           redoubt.NodeName
	Floor, Ceiling string
	Buckets        []redoubt.Bucket
	People         []redoubt.Person // beside those of People
	Quotas         map[string]int64
	Disk           *Disk            // instead of Engine and Keys: one that a Stack stood on before, or will again
	Engine         store.Engine     // default: in memory
	Keys           *keys.Keyring    // default: a fresh one
	Clock          *Clock           // default: one that stands at 1 March 2026
	Time           func() time.Time // instead of Clock: for tests that run in real time
	Links          []redoubt.Link   // of a device: to its home
	IDKeys         []byte           // of a device: its home's
	Devices        []Device
}

// New starts a Stack and ends it with the test.
func New(t testing.TB, o Options) *Stack {
	t.Helper()
	if o.Disk != nil {
		o.Session = o.Disk.sessions
	}
	s := &Stack{t: t, Clock: o.Clock, disk: o.Disk, rand: NewRand(o.Seed + o.Session<<32), keys: map[redoubt.SubjectName]ed25519.PrivateKey{}, name: o.Name}
	policy, err := label.Builtin("USA")
	s.check(err)
	parse := func(marking, otherwise string) label.Label {
		if marking == "" {
			marking = otherwise
		}
		l, err := policy.Parse(marking)
		s.check(err)
		return l
	}
	if s.name == "" {
		s.name = "topsecret"
	}
	if s.Clock == nil {
		s.Clock = NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	}
	now := s.Clock.Now
	if o.Time != nil {
		now = o.Time
	}
	s.now = now
	if o.Disk != nil {
		o.Engine, o.Keys, err = o.Disk.mount(s.rand)
		s.check(err)
	}
	if o.Engine == nil {
		o.Engine = memory.Open()
	}
	if o.Keys == nil {
		dir := t.TempDir()
		o.Keys, err = keys.Create(filepath.Join(dir, "ring"), keys.KeyFile(filepath.Join(dir, "key")), s.rand)
		s.check(err)
	}
	if o.Buckets == nil {
		o.Buckets = []redoubt.Bucket{{Name: "reports"}, {Name: "imagery"}}
	}
	eo := enclave.Options{Name: s.name, Policy: policy, Floor: parse(o.Floor, "UNCLASSIFIED"), Ceiling: parse(o.Ceiling, "TOP SECRET//SI/TK"),
		Engine: o.Engine, Keys: o.Keys, Buckets: o.Buckets, Quotas: o.Quotas, Region: Region, Version: "test", Clock: now, Rand: s.rand,
		Links: o.Links, IDKeys: o.IDKeys, Devices: o.Devices}
	s.people = cmp.Or(o.PeopleSeed, o.Seed)
	for _, p := range append(slices.Clone(People), o.People...) {
		p.PublicKey = s.Know(p.Name)
		p.Expires = now().AddDate(1, 0, 0)
		eo.People = append(eo.People, p)
	}
	s.Enclave, err = enclave.Open(context.Background(), eo)
	s.check(err)
	t.Cleanup(s.Stop)
	s.Handler = s3.New(s3.Options{Objects: s.Enclave, Lists: s.Enclave, Uploads: s.Enclave, Buckets: s.Enclave, Auth: s.Enclave,
		Policy: policy, Region: Region, Clock: now, UnsignedInClear: true})
	s.Images = registry.New(registry.Options{Objects: s.Enclave, Lists: s.Enclave, Uploads: s.Enclave, Auth: s.Enclave, Clock: now})
	t.Cleanup(func() { s.check(s.Images.Close()) })
	return s
}

// Know makes the key that a subject signs with, a function of the seed and her name, and gives its public half: of somebody who
// is no person of the Options.
func (s *Stack) Know(who redoubt.SubjectName) (publicKey string) {
	seed := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(who), s.people))
	s.keys[who] = ed25519.NewKeyFromSeed(seed[:])
	return base64.StdEncoding.EncodeToString(s.keys[who].Public().(ed25519.PublicKey))
}

// Name is the node's.
func (s *Stack) Name() redoubt.NodeName { return s.name }

// Label parses a marking.
func (s *Stack) Label(marking string) label.Label {
	s.t.Helper()
	policy, err := label.Builtin("USA")
	s.check(err)
	l, err := policy.Parse(marking)
	s.check(err)
	return l
}

// Stop closes the enclave, with its engine and keys; once. The test's end does it otherwise.
func (s *Stack) Stop() {
	s.stop.Do(func() {
		if err := s.Close(); err != nil && !s.cut {
			s.t.Errorf("close: %v", err)
		}
	})
}

func (s *Stack) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// Mint gives a subject a credential with its secrets; marking "" is the default working label.
func (s *Stack) Mint(who redoubt.SubjectName, marking string) redoubt.Minted {
	s.t.Helper()
	return s.MintFor(who, marking, redoubt.DefaultCredentialLife)
}

// MintFor is Mint for a life of its own.
func (s *Stack) MintFor(who redoubt.SubjectName, marking string, life time.Duration) redoubt.Minted {
	s.t.Helper()
	m, err := s.TryMint(who, marking, life)
	if err != nil {
		s.t.Fatalf("mint for %s at %q: %v", who, marking, err)
	}
	return m
}

// TryMint is MintFor for who may be refused.
func (s *Stack) TryMint(who redoubt.SubjectName, marking string, life time.Duration) (redoubt.Minted, error) {
	nonce := make([]byte, 16)
	s.rand.Read(nonce)
	req := redoubt.MintRequest{Subject: who, Node: s.name, Label: marking, Seconds: int64(life / time.Second), Issued: s.now(), Nonce: base64.RawURLEncoding.EncodeToString(nonce)}
	req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(s.keys[who], redoubt.MintMessage(req)))
	return s.MintCredential(context.Background(), req)
}

// As is the credential that a token proves.
func (s *Stack) As(m redoubt.Minted) redoubt.Credential {
	s.t.Helper()
	c, err := s.Bearer(context.Background(), m.Token)
	s.check(err)
	return c
}

// Sign signs a change as an officer.
func (s *Stack) Sign(by redoubt.SubjectName, c redoubt.Change) redoubt.Signature {
	return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(s.keys[by], redoubt.ChangeMessage(c)))}
}

// Clock stands still until it is moved.
type Clock struct{ now atomic.Int64 }

// NewClock makes a clock that stands at t.
func NewClock(t time.Time) *Clock {
	c := new(Clock)
	c.now.Store(t.UnixNano())
	return c
}

// Now is the time that the clock stands at.
func (c *Clock) Now() time.Time { return time.Unix(0, c.now.Load()).UTC() }

// Set moves the clock.
func (c *Clock) Set(t time.Time) { c.now.Store(t.UnixNano()) }

// Add moves the clock on.
func (c *Clock) Add(d time.Duration) { c.now.Add(int64(d)) }

// Rand is a seeded source of bytes, safe for concurrent use. It is for tests only.
type Rand struct {
	mu  sync.Mutex
	src *rand.ChaCha8
}

// NewRand makes a source.
func NewRand(seed uint64) *Rand {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return &Rand{src: rand.NewChaCha8(key)}
}

func (r *Rand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Read(p)
}

var _ io.Reader = (*Rand)(nil)
