package enclave

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/replica"
)

// chain is three enclaves of one estate that two guards join: unclass, secret and topsecret.
type chain struct {
	t                   *testing.T
	unclass, secret, ts *world
	hands               hands // the clock of all of them
	files               map[*world]*replica.Bundles
	keys                map[redoubt.SubjectName]ed25519.PrivateKey
	have                map[redoubt.NodeName]redoubt.BundleMark // of each guard's low half
	beat                time.Duration                           // of what is made by bundles from then on; 0: as a node has it
}

const (
	lowGuard  = "guard-us" // joins unclass and secret
	highGuard = "guard-st" // joins secret and topsecret
	testRules = "0123456789abcdef"
)

// chainOrigins has a device at either end.
var chainOrigins = map[redoubt.NodeName]redoubt.NodeName{"unclass": "unclass", "u-device": "unclass", "secret": "secret", "topsecret": "topsecret", "ts-device": "topsecret"}

// chainPeople are who works at releases, beside testPeople.
var chainPeople = []redoubt.Person{
	{Name: "rev-1", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleReviewer}},
	{Name: "rev-2", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleReviewer}},
	{Name: "rev-3", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleReviewer, redoubt.RoleAnalyst}},
	{Name: "u-rev", Clearance: "UNCLASSIFIED", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleReviewer}},
	{Name: "s-rev", Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleReviewer}},
	{Name: "officer-4", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleOfficer}},
	{Name: "ts-admin", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAdmin, redoubt.RoleStorage}},
}

func openChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{t: t, files: map[*world]*replica.Bundles{}, keys: map[redoubt.SubjectName]ed25519.PrivateKey{}, have: map[redoubt.NodeName]redoubt.BundleMark{}}
	withClock(&c.hands)
	c.hands.now.Store(time.Now().UnixNano())
	raised := func(name, floor, ceiling string) redoubt.Bucket {
		return redoubt.Bucket{Name: redoubt.BucketName(name), BucketSettings: redoubt.BucketSettings{ReadOnly: true, Floor: floor, Ceiling: ceiling}}
	}
	rebuilt := redoubt.Bucket{Name: RebuiltBucket, BucketSettings: redoubt.BucketSettings{ReadOnly: true, Closed: true}}
	c.unclass = c.enclave("unclass", "UNCLASSIFIED", raised("secret.reports", "", ""))
	c.secret = c.enclave("secret", "SECRET", raised("unclass.reports", "UNCLASSIFIED", "UNCLASSIFIED"), raised("topsecret.reports", "", ""), rebuilt)
	c.ts = c.enclave("topsecret", "TOP SECRET//SI/TK", raised("unclass.reports", "UNCLASSIFIED", "UNCLASSIFIED"), raised("secret.reports", "UNCLASSIFIED", "SECRET"), rebuilt)
	c.join(c.unclass, c.secret, "reports")
	c.join(c.secret, c.ts, "reports", "unclass.reports")
	return c
}

// enclave opens one of the three. Everybody has one key at all of them.
func (c *chain) enclave(name redoubt.NodeName, ceiling string, more ...redoubt.Bucket) *world {
	c.t.Helper()
	w := open(c.t, func(o *Options) { c.options(o, name, ceiling, more...) })
	w.keys = c.keys
	c.files[w] = c.bundles(w)
	return w
}

func (c *chain) options(o *Options, name redoubt.NodeName, ceiling string, more ...redoubt.Bucket) {
	o.Name, o.Kind, o.Estate, o.Origins, o.Clock = name, "enclave", "example", chainOrigins, c.hands.clock
	o.Floor, o.Ceiling = parsed(c.t, "UNCLASSIFIED"), parsed(c.t, ceiling)
	o.Buckets = append(o.Buckets, more...)
	for device, home := range chainOrigins {
		if device != home && home == name {
			o.Devices = append(o.Devices, DeclaredDevice{Name: device, Floor: o.Floor, Ceiling: o.Ceiling, Lease: 24 * time.Hour})
		}
	}
	o.People = nil
	for _, p := range append(append([]redoubt.Person{}, testPeople...), chainPeople...) {
		o.People = append(o.People, c.person(p))
	}
	for _, g := range []DeclaredGuard{
		{Name: lowGuard, Low: "unclass", High: "secret", Floor: parsed(c.t, "UNCLASSIFIED"), Limit: parsed(c.t, "UNCLASSIFIED")},
		{Name: highGuard, Low: "secret", High: "topsecret", Floor: parsed(c.t, "UNCLASSIFIED"), Limit: parsed(c.t, "SECRET")},
	} {
		if g.Low != name && g.High != name {
			continue
		}
		g.Rules, g.PerPersonDay, g.PerDay = testRules, 100, 1000
		o.Guards = append(o.Guards, g)
		if g.Low == name { // for a guard whose halves run apart; no guard of the chain says so
			o.People = append(o.People, c.person(redoubt.Person{Name: redoubt.SubjectName(g.Name) + "-release", Clearance: ceiling, Nation: "USA", Roles: []redoubt.Role{redoubt.RoleGuard}, Workload: true}))
		}
		o.People = append(o.People, c.person(redoubt.Person{Name: redoubt.SubjectName(g.Name), Clearance: ceiling, Nation: "USA", Roles: []redoubt.Role{redoubt.RoleGuard}, Workload: true}))
	}
}

// device opens a device of one of the three, enrolled and told of whom to believe.
func (c *chain) device(name redoubt.NodeName, home *world) *world {
	c.t.Helper()
	ctx := context.Background()
	w := open(c.t, func(o *Options) {
		o.Name, o.Kind, o.Estate, o.Origins, o.Clock = name, "device", "example", chainOrigins, c.hands.clock
		o.Floor, o.Ceiling, o.People, o.Buckets = home.floor, home.ceiling, home.o.People, nil
		o.Links = []redoubt.Link{{Peer: home.name, Key: home.links.key, Bound: home.ceiling}}
	})
	w.keys = c.keys
	inv, err := home.InviteDevice(ctx, home.as("officer", home.ceiling.Banner()), name)
	if err == nil {
		_, err = home.EnrolDevice(ctx, w.enrolRequest(inv.Token))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	w.SetMakers(home.Makers())
	if _, refused := carry(c.t, home, w); len(refused) > 0 {
		c.t.Errorf("%s refuses what it is told: %+v", name, refused)
	}
	return w
}

func (c *chain) person(p redoubt.Person) redoubt.Person {
	key, ok := c.keys[p.Name]
	if !ok {
		_, key, _ = ed25519.GenerateKey(rand.Reader)
		c.keys[p.Name] = key
	}
	p.PublicKey, p.Expires = base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)), c.hands.clock().Add(10*24*365*time.Hour)
	return p
}

// bundles is what makes and takes bundles at a node, with the notes that a node adds.
func (c *chain) bundles(w *world) *replica.Bundles { return c.bundlesBy(w, w) }

// bundlesBy is bundles with another ledger of raises.
func (c *chain) bundlesBy(w *world, raises redoubt.RaiseLedger) *replica.Bundles {
	return replica.NewBundles(replica.BundleOptions{Estate: "example", Node: w.name, Policy: w.policy, Journal: w, State: w, Ledger: w, Tickets: w, Raises: raises,
		Identity: w.BundleIdentity, Sign: w.SignBundle, Clock: w.clock, Stage: c.t.TempDir(), Beat: c.beat,
		Notes: func(context.Context, redoubt.NodeName) ([]replica.Note, error) {
			b, err := json.Marshal(w.Makers())
			return []replica.Note{{Kind: "makers", Body: b}}, err
		},
		Noted: func(ctx context.Context, peer redoubt.NodeName, n replica.Note) error {
			var makers map[redoubt.NodeName][]ed25519.PublicKey
			if err := json.Unmarshal(n.Body, &makers); err != nil {
				return err
			}
			return w.RaisedMakers(ctx, peer, makers)
		}})
}

// join has a guard's raise between two enclaves known to both.
func (c *chain) join(low, high *world, buckets ...redoubt.BucketName) {
	c.t.Helper()
	up := redoubt.Link{Peer: high.name, Key: high.links.key, Recipient: recipientOf(c.t, high), Bound: low.ceiling, Raise: redoubt.RaisedAway}
	here := redoubt.Link{Peer: low.name, Key: low.links.key, Recipient: recipientOf(c.t, low), Bound: low.ceiling, Raise: redoubt.RaisedHere}
	for _, b := range buckets {
		up.Subscriptions = append(up.Subscriptions, redoubt.Subscription{Bucket: b, Out: true})
		name := b
		if !strings.Contains(string(b), ".") {
			name = redoubt.BucketName(low.name) + "." + b
		}
		here.Subscriptions = append(here.Subscriptions, redoubt.Subscription{Bucket: name, In: true})
	}
	for w, l := range map[*world]redoubt.Link{low: up, high: here} {
		if err := w.SetRaises(context.Background(), append(w.links.raises[:len(w.links.raises):len(w.links.raises)], l)); err != nil {
			c.t.Fatal(err)
		}
	}
}

func recipientOf(t *testing.T, w *world) string {
	t.Helper()
	id, err := w.BundleIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String()
}

func parsed(t testing.TB, marking string) label.Label {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	l, err := policy.Parse(marking)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// guardOf is the guard between two enclaves, as either knows it.
func (c *chain) guardOf(low *world) redoubt.SubjectName {
	if low == c.unclass {
		return lowGuard
	}
	return highGuard
}

// quiet is how long is waited for what is not to come.
const quiet = 30 * time.Millisecond

// hand has a guard given the next bundle, which is had once c.have says so.
func (c *chain) hand(low, high *world) ([]byte, redoubt.BundleMark, error) {
	c.t.Helper()
	return c.handWithin(low, high, time.Minute)
}

// handWithin waits so long for something. NotModified: there is nothing.
func (c *chain) handWithin(low, high *world, d time.Duration) ([]byte, redoubt.BundleMark, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var file bytes.Buffer
	mark, err := c.files[low].HandRaise(ctx, low.as(c.guardOf(low), ""), high.name, c.have[high.name], &file)
	return file.Bytes(), mark, err
}

// nothing says that there is nothing more to hand over.
func (c *chain) nothing(low, high *world) {
	c.t.Helper()
	file, mark, err := c.handWithin(low, high, quiet)
	for d := 2 * quiet; err != nil && !errors.Is(err, redoubt.NotModified) && d < time.Minute; d *= 2 { // a busy machine had no time to look
		file, mark, err = c.handWithin(low, high, d)
	}
	if !errors.Is(err, redoubt.NotModified) || len(file) > 0 {
		c.t.Errorf("%s handed over %d bytes as bundle %d (%v), want nothing", low.name, len(file), mark.Serial, err)
	}
}

// next is a bundle that the guard has.
func (c *chain) next(low, high *world) []byte {
	c.t.Helper()
	file, mark, err := c.hand(low, high)
	if err != nil {
		c.t.Fatalf("from %s: %v", low.name, err)
	}
	c.have[high.name] = mark
	return file
}

func (c *chain) take(low, high *world, file []byte) (redoubt.BundleImport, error) {
	c.t.Helper()
	return c.files[high].TakeRaise(context.Background(), high.as(c.guardOf(low), ""), bytes.NewReader(file))
}

// raise moves one bundle up.
func (c *chain) raise(low, high *world) redoubt.BundleImport {
	c.t.Helper()
	out, err := c.take(low, high, c.next(low, high))
	if err != nil {
		c.t.Fatalf("at %s: %v", high.name, err)
	}
	return out
}

// status is what a raise's end says to who may know.
func (c *chain) status(w *world, peer redoubt.NodeName) redoubt.RaiseStatus {
	c.t.Helper()
	all, err := w.Raises(context.Background(), w.as("ts-analyst", w.ceiling.Banner()))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range all {
		if s.Peer == peer {
			return s
		}
	}
	c.t.Fatalf("%s tells of no raise with %s", w.name, peer)
	return redoubt.RaiseStatus{}
}

// in reads a key of a bucket; "" is nothing.
func (w *world) in(who redoubt.Credential, bucket, key string) string {
	w.t.Helper()
	o, err := w.GetObject(context.Background(), who, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: redoubt.BucketName(bucket), Key: key}})
	if errors.Is(err, redoubt.NotFound) {
		return ""
	}
	if err != nil {
		w.t.Fatalf("get %s/%s: %v", bucket, key, err)
	}
	defer o.Close()
	return content(w.t, o, 0, -1)
}

// noise is text that does not compress.
func noise(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}
