package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/access"
)

// person has two officers sign a person; a key is made for who has none yet.
func (w *world) person(p redoubt.Person) {
	w.t.Helper()
	ctx := context.Background()
	if w.keys[p.Name] == nil {
		_, w.keys[p.Name], _ = ed25519.GenerateKey(rand.Reader)
	}
	p.PublicKey = base64.StdEncoding.EncodeToString(w.keys[p.Name].Public().(ed25519.PublicKey))
	if p.Expires.IsZero() {
		p.Expires = w.clock().Add(1000 * time.Hour).Truncate(time.Second)
	}
	if p.Nation == "" {
		p.Nation = "USA"
	}
	c := redoubt.Change{Kind: redoubt.ChangePerson, Person: &p, Reason: "the reason why", Made: w.clock(), Expires: w.clock().Add(time.Hour)}
	sign := func(by redoubt.SubjectName) redoubt.Signature {
		return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[by], redoubt.ChangeMessage(c)))}
	}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{sign("officer")}
	if _, err := w.ProposeChange(ctx, w.as("officer", ""), c); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.ApproveChange(ctx, w.as("officer-2", ""), c.ID, sign("officer-2")); err != nil {
		w.t.Fatal(err)
	}
}

// mint asks for a credential and gives what is answered.
func (w *world) mint(who redoubt.SubjectName, marking string) (redoubt.Credential, error) {
	w.t.Helper()
	nonce := make([]byte, 16)
	rand.Read(nonce)
	req := redoubt.MintRequest{Subject: who, Node: w.name, Label: marking, Issued: w.clock(), Nonce: base64.RawURLEncoding.EncodeToString(nonce)}
	req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[who], redoubt.MintMessage(req)))
	m, err := w.MintCredential(context.Background(), req)
	if err != nil {
		return redoubt.Credential{}, err
	}
	return w.Bearer(context.Background(), m.Token)
}

// toldOf is every system record that a peer would be sent, old ones too, by its name, its contents in the order in which they were made.
func (w *world) toldOf(peer *world) map[string][]string {
	w.t.Helper()
	ctx, out := context.Background(), map[string][]string{}
	sets, err := w.Sets(ctx, peer.name)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, set := range sets {
		var all []redoubt.Stamp
		if _, err := w.Inventory(ctx, peer.name, set, func(s redoubt.Stamp) error { all = append(all, s); return nil }); err != nil {
			w.t.Fatal(err)
		}
		items, err := w.Fetch(ctx, peer.name, set, all)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, in := range received(w.t, items) {
			if in.Entry.Name.Bucket == redoubt.SystemBucket {
				b := make([]byte, in.Entry.SizeBytes)
				if _, err := in.Content.Read(b); err != nil && len(b) > 0 {
					w.t.Fatal(err)
				}
				out[in.Entry.Name.Key] = append(out[in.Entry.Name.Key], string(b))
			}
		}
	}
	return out
}

// numbers are how far the journals of the sets that a peer is told of have come, and the clocks of these sets.
func (w *world) numbers(peer *world) (out []string) {
	w.t.Helper()
	sets, err := w.Sets(context.Background(), peer.name)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range sets {
		for _, set := range w.sets.all() {
			if set.name != name {
				continue
			}
			end, err := journalEnd(w.engine, set)
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, fmt.Sprint(name, end, set.clock.Load()))
		}
	}
	return out
}

func TestWhoIsClearedAtHomeWorksAtADeviceOfALowerCeiling(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	p.home.person(redoubt.Person{Name: "newcomer", Clearance: "TOP SECRET//SI", Roles: []redoubt.Role{redoubt.RoleStorage, redoubt.RoleAnalyst, redoubt.RoleReviewer}})
	if _, refused := carry(t, p.home, p.device); len(refused) > 0 {
		t.Fatalf("refused %+v", refused)
	}
	who, err := p.device.mint("newcomer", "SECRET")
	if err != nil {
		t.Fatal(err)
	}
	p.device.put(who, "sighting", "tracks", "")
	if _, err := p.device.mint("newcomer", "TOP SECRET"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("at the device she may work above its bound: %v", err)
	}
	s, _ := p.device.identity.Subject("newcomer")
	if s.Clearance.Banner() != "SECRET" || !slices.Equal(s.Roles, []redoubt.Role{redoubt.RoleAnalyst}) || s.Nation != "USA" {
		t.Errorf("the device knows her as %+v", s)
	}
	for name, values := range p.home.toldOf(p.device) {
		for _, v := range values {
			for _, above := range []string{"TOP SECRET", "the reason", `"storage"`, `"reviewer"`, `"signatures"`} {
				if strings.Contains(v, above) {
					t.Errorf("the device is told %q in %s: %s", above, name, v)
				}
			}
		}
	}
	// What ends her ends what she holds there, as soon as it comes, and over a cold start.
	if err := p.home.RevokePerson(ctx, p.home.as("officer", "UNCLASSIFIED"), "newcomer", "the reason why not"); err != nil {
		t.Fatal(err)
	}
	if got := p.device.get(who, "sighting"); got != "tracks" {
		t.Errorf("before it has heard of it the device reads her %q", got)
	}
	carry(t, p.home, p.device)
	for range 2 {
		_, err = p.device.ListBuckets(ctx, who)
		want(t, err, redoubt.Unauthenticated)
		_, err = p.device.mint("newcomer", "")
		want(t, err, redoubt.Unauthenticated)
		p.device.restart(true)
	}
}

func TestADeviceBelievesItsHomeOverWhatItsOwnOfficersSigned(t *testing.T) {
	p, clock := openHome(t, "SECRET")
	p.enrol(t)
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	// Before it was told, the device's own officers may sign for somebody.
	p.device.person(redoubt.Person{Name: "guest", Clearance: "SECRET", Roles: []redoubt.Role{redoubt.RoleAnalyst}})
	p.home.keys["guest"] = p.device.keys["guest"]
	clock.add(time.Second)
	p.home.person(redoubt.Person{Name: "guest", Clearance: "UNCLASSIFIED", Roles: []redoubt.Role{redoubt.RoleAnalyst}})
	carry(t, p.home, p.device)
	for range 2 {
		if _, err := p.device.mint("guest", "SECRET"); !errors.Is(err, redoubt.Denied) {
			t.Errorf("she works at what the device's officers said: %v", err)
		}
		p.device.restart(false)
	}
}

func TestWhoComesBackIntoReachGetsNoOldCredentialBack(t *testing.T) {
	ctx := context.Background()
	p, clock := openHome(t, "SECRET")
	p.enrol(t)
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	carry(t, p.home, p.device)
	old, err := p.device.mint("s-analyst", "")
	if err != nil {
		t.Fatal(err)
	}
	clock.add(time.Second)
	p.home.person(redoubt.Person{Name: "s-analyst", Clearance: "SECRET", Roles: []redoubt.Role{redoubt.RoleReviewer}}) // nothing that a device needs
	carry(t, p.home, p.device)
	_, err = p.device.ListBuckets(ctx, old)
	want(t, err, redoubt.Unauthenticated)
	clock.add(time.Second)
	p.home.person(redoubt.Person{Name: "s-analyst", Clearance: "SECRET", Roles: []redoubt.Role{redoubt.RoleAnalyst}})
	carry(t, p.home, p.device)
	for range 2 {
		_, err = p.device.ListBuckets(ctx, old)
		want(t, err, redoubt.Unauthenticated)
		fresh, err := p.device.mint("s-analyst", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.device.ListBuckets(ctx, fresh); err != nil {
			t.Errorf("who may work again: %v", err)
		}
		p.device.restart(true)
		if _, err := p.device.ListBuckets(ctx, fresh); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
}

func TestWhatChangesAboveABoundTellsADeviceNothing(t *testing.T) {
	ctx := context.Background()
	p, clock := openHome(t, "SECRET")
	p.home.links.declared["device"] = func(d DeclaredDevice) DeclaredDevice {
		d.Carries = []redoubt.Subscription{{Bucket: "reports", In: true, Out: true}}
		return d
	}(p.home.links.declared["device"])
	p.enrol(t)
	p.home.person(redoubt.Person{Name: "deep", Clearance: "SECRET", Roles: []redoubt.Role{redoubt.RoleAnalyst}})
	carry(t, p.home, p.device)
	before, numbers := p.home.toldOf(p.device), p.home.numbers(p.device)
	deep := func(p redoubt.Person) redoubt.Person {
		p.Name, p.Roles = "deep", append(p.Roles, redoubt.RoleAnalyst)
		return p
	}
	expires := p.home.clock().Add(1000 * time.Hour).Truncate(time.Second)
	acts := []func(){
		func() { p.home.person(deep(redoubt.Person{Clearance: "TOP SECRET", Expires: expires})) },
		func() { p.home.person(deep(redoubt.Person{Clearance: "TOP SECRET//SI/TK", Expires: expires})) },
		func() {
			p.home.person(deep(redoubt.Person{Clearance: "TOP SECRET//SI", Expires: expires, Roles: []redoubt.Role{redoubt.RoleReviewer, redoubt.RoleStorage}}))
		},
		func() {
			p.home.person(redoubt.Person{Name: "unseen", Clearance: "TOP SECRET//SI/TK", Roles: []redoubt.Role{redoubt.RoleReviewer}})
		},
		func() {
			if _, err := p.home.Grant(ctx, p.home.as("officer", ""), redoubt.Grant{Subject: "unseen", Bucket: "reports"}); err != nil {
				t.Fatal(err)
			}
		},
		func() {
			if _, err := p.home.Grant(ctx, p.home.as("officer", ""), redoubt.Grant{Subject: "deep", Bucket: "locked"}); err != nil {
				t.Fatal(err)
			}
		},
		func() {
			if err := p.home.RevokePerson(ctx, p.home.as("officer", ""), "unseen", "secret reason"); err != nil {
				t.Fatal(err)
			}
		},
		func() { p.home.as("ts-analyst", "") },
		func() { p.home.restart(false) },
		func() { p.home.restart(true) },
	}
	p.home.o.Devices[0].Carries = p.home.links.declared["device"].Carries
	clock.add(0)
	for i, act := range acts {
		// The clock stands still, so that a time that moves was moved.
		p.home.o.Clock = clock.clock
		clock.add(1)
		numbers = p.home.numbers(p.device)
		act()
		if got := p.home.toldOf(p.device); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("act %d: the device is told\n%v\nand was told\n%v", i, got, before)
		}
		if got := p.home.numbers(p.device); !slices.Equal(got, numbers) {
			t.Errorf("act %d: journals and clocks stood at %v and stand at %v", i, numbers, got)
		}
	}
	if moved, _ := carry(t, p.home, p.device); moved != 0 {
		t.Errorf("%d entries travelled", moved)
	}
}

func TestGrantsReachADeviceOfALowerCeilingAndGoWithTheirEnd(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	officer, who := p.home.as("officer", ""), p.device.as("s-analyst", "")
	p.device.put(who, "a", "x", "")
	g, err := p.home.Grant(ctx, officer, redoubt.Grant{Subject: "s-analyst", Bucket: "reports", Deny: true})
	if err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	if _, err := p.device.mint("s-analyst", ""); err != nil {
		t.Fatal(err)
	}
	if got := p.device.get(who, "a"); got != "" {
		t.Errorf("what was denied her at home reads %q at the device", got)
	}
	p.device.restart(true)
	if got := p.device.get(who, "a"); got != "" {
		t.Errorf("after a restart it reads %q", got)
	}
	if err := p.home.RevokeGrant(ctx, officer, g.ID); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	for range 2 {
		if got := p.device.get(who, "a"); got != "x" {
			t.Errorf("after the denial ended it reads %q", got)
		}
		p.device.restart(false)
	}
}

func TestAProjectionIsTakenFromTheHomeAndForThisRangeAlone(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	carry(t, p.home, p.device)
	bound, _ := p.home.policy.Parse("SECRET")
	tag, err := rangeTag(p.home.floor, bound)
	if err != nil {
		t.Fatal(err)
	}
	// said has a node write a record as its own and the other take it.
	said := func(from, to *world, key, value, at string) []redoubt.Refusal {
		t.Helper()
		l, err := from.policy.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		set, err := from.sets.of(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		at2, err := from.nextTime(ctx, set)
		if err != nil {
			t.Fatal(err)
		}
		rec := &record{id: makeVersionID(at2, from.maker, set.tag), made: set.id, maker: string(from.name), inline: []byte(value)}
		x, _, _, err := from.signable((*from.buckets.Load())[redoubt.SystemBucket], found{set: set, rec: rec}, key, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := x.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		c, err := redoubt.SealBatch(from.name, [][]byte{b}, from.links.sign)
		if err != nil {
			t.Fatal(err)
		}
		refused, err := to.Apply(ctx, from.name, []redoubt.Received{{Entry: x, Custody: c[0], Content: strings.NewReader(value)}})
		if err != nil {
			t.Fatal(err)
		}
		return refused
	}
	gone := `{"name":"s-analyst","revoked":true}`
	name := "projection/" + tag + "/person/s-analyst"
	for what, c := range map[string]struct {
		from, to         *world
		key, value, rule string
		at               string
	}{
		"a device's word":              {p.device, p.home, name, gone, ruleSubscribe, "SECRET"},
		"another range":                {p.home, p.device, "projection/0123456789abcdef/person/s-analyst", gone, ruleSubscribe, "SECRET"},
		"no range":                     {p.home, p.device, "projection/person", gone, ruleSubscribe, "SECRET"},
		"another label than the bound": {p.home, p.device, name, gone, "within-link-bound (4.3)", "CONFIDENTIAL"},
		"another name":                 {p.home, p.device, name, `{"name":"ts-analyst","revoked":true}`, ruleSound, "SECRET"},
		"an unknown field":             {p.home, p.device, name, `{"name":"s-analyst","revoked":true,"why":1}`, ruleSound, "SECRET"},
		"a key that is another's": {p.home, p.device, "projection/" + tag + "/person/thief",
			fmt.Sprintf(`{"name":"thief","clearance":"SECRET","nation":"USA","roles":["analyst"],"expires":"2099-01-01T00:00:00Z","public_key":%q}`,
				base64.StdEncoding.EncodeToString(p.home.keys["officer"].Public().(ed25519.PublicKey))), ruleSound, "SECRET"},
		"a bucket of another name": {p.home, p.device, "projection/" + tag + "/bucket/other", `{"bucket":{"name":"reports","created":"2030-01-01T00:00:00Z"}}`, ruleSound, "SECRET"},
		"the node's own bucket":    {p.home, p.device, "projection/" + tag + "/bucket/.system", `{"bucket":{"name":".system","created":"2030-01-01T00:00:00Z"}}`, ruleSound, "SECRET"},
		"a bucket above the node":  {p.home, p.device, "projection/" + tag + "/bucket/high", `{"bucket":{"name":"high","created":"2030-01-01T00:00:00Z","floor":"COSMIC"}}`, ruleSound, "SECRET"},
	} {
		if no := said(c.from, c.to, c.key, c.value, c.at); len(no) != 1 || no[0].Rule != c.rule || no[0].Later != (what == "another range" || c.rule == ruleSound) { // a newer node may understand it
			t.Errorf("%s: refused %+v, want by %s", what, no, c.rule)
		}
	}
	p.device.as("s-analyst", "")
	// What was refused is on record, and nothing of it is kept.
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	p.device.restart(true)
	if no := said(p.home, p.device, name, gone, "SECRET"); len(no) != 0 {
		t.Errorf("what is sound was refused: %+v", no)
	}
	if _, err := p.device.mint("s-analyst", ""); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("and had no effect: %v", err)
	}
}

func TestAnOlderProjectionThatComesLateChangesNothing(t *testing.T) {
	ctx := context.Background()
	p, clock := openHome(t, "SECRET")
	p.enrol(t)
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	p.home.person(redoubt.Person{Name: "newcomer", Clearance: "SECRET", Roles: []redoubt.Role{redoubt.RoleAnalyst}})
	clock.add(time.Second)
	if err := p.home.RevokePerson(ctx, p.home.as("officer", ""), "newcomer", ""); err != nil {
		t.Fatal(err)
	}
	for _, set := range func() []string { all, _ := p.home.Sets(ctx, "device"); return all }() {
		var all []redoubt.Stamp
		if _, err := p.home.Inventory(ctx, "device", set, func(s redoubt.Stamp) error { all = append(all, s); return nil }); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(all)
		for _, s := range all {
			items, err := p.home.Fetch(ctx, "device", set, []redoubt.Stamp{s})
			if err != nil {
				t.Fatal(err)
			}
			if _, refused := apply(t, p.home, p.device, items); len(refused) > 0 {
				t.Fatalf("refused %+v", refused)
			}
		}
	}
	for range 2 {
		if _, err := p.device.mint("newcomer", ""); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("who was revoked was brought back by what came late: %v", err)
		}
		p.device.restart(true)
	}
}

func TestWhoWasRevokedBeforeTheDeviceWasDeclaredIsRevokedThere(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "CONFIDENTIAL")
	devices := p.home.o.Devices
	p.home.o.Devices = nil
	p.home.restart(false)
	secret, err := p.home.policy.Parse("SECRET")
	if err != nil {
		t.Fatal(err)
	}
	devices[0].Ceiling, p.device.o.Links[0].Bound = secret, secret // a range that nobody was told for before
	p.device.restart(false)
	if err := p.home.RevokePerson(ctx, p.home.as("officer", ""), "s-analyst", ""); err != nil {
		t.Fatal(err)
	}
	p.home.o.Devices = devices
	p.home.restart(false)
	p.enrol(t)
	old := p.device.as("s-analyst", "") // the device knows her by the estate
	carry(t, p.home, p.device)
	_, err = p.device.ListBuckets(ctx, old)
	want(t, err, redoubt.Unauthenticated)
	told := p.home.toldOf(p.device)
	p.home.restart(false)
	if again := p.home.toldOf(p.device); fmt.Sprint(again) != fmt.Sprint(told) {
		t.Errorf("a restart told anew: %v, and before %v", again, told)
	}
}

func TestABucketOfTheHomeIsUsedAtItsDevices(t *testing.T) {
	ctx := context.Background()
	p, clock := openHome(t, "SECRET")
	p.enrol(t)
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	storage := p.home.as("admin", "")
	plans := func(w *world, who redoubt.Credential, key, body string) error {
		_, err := w.PutObject(ctx, who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "plans", Key: key}, SizeBytes: int64(len(body)), Body: strings.NewReader(body)})
		return err
	}
	read := func(w *world, who redoubt.Credential, key string) redoubt.Kind {
		o, err := w.GetObject(ctx, who, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "plans", Key: key}})
		if err == nil {
			o.Close()
			return 0
		}
		return redoubt.KindOf(err)
	}
	// The numbers of buckets differ: the device has others.
	p.device.bucketsMu.Lock()
	err := p.device.saveBucket(ctx, bucketRecord{ID: p.device.nextBucketID(), Bucket: redoubt.Bucket{Name: "of-the-device"}}, (*p.device.buckets.Load())["reports"].gate, nil)
	p.device.bucketsMu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.home.CreateBucket(ctx, storage, "plans", redoubt.BucketSettings{Ceiling: "TOP SECRET", Default: "CONFIDENTIAL", MD5ETag: true,
		Grants: []redoubt.Grant{{ID: "p", Subject: "u-analyst", Bucket: "plans", Deny: true}}})
	if err != nil {
		t.Fatal(err)
	}
	atHome := p.home.as("s-analyst", "")
	if err := plans(p.home, atHome, "one", "x"); err != nil {
		t.Fatal(err)
	}
	if _, refused := carry(t, p.home, p.device); len(refused) > 0 {
		t.Fatalf("refused %+v", refused)
	}
	who := p.device.as("s-analyst", "")
	b, err := p.device.HeadBucket(ctx, who, "plans")
	if err != nil || b.Ceiling != "SECRET" || b.Default != "CONFIDENTIAL" || !b.MD5ETag || len(b.Grants) != 1 {
		t.Fatalf("at the device it is %+v, %v", b, err)
	}
	if k := read(p.device, who, "one"); k != 0 {
		t.Errorf("what was written at home is %v at the device", k)
	}
	if err := plans(p.device, who, "two", "y"); err != nil {
		t.Fatal(err)
	}
	if k := read(p.device, p.device.as("u-analyst", ""), "nothing"); k != redoubt.NotFound {
		t.Errorf("whom the policy denies is answered %v", k)
	}
	_, refused := carry(t, p.device, p.home)
	if len(refused) > 0 || read(p.home, atHome, "two") != 0 {
		t.Errorf("what was written at the device is not at home: %+v", refused)
	}
	// Settings follow.
	if _, err := p.home.UpdateBucket(ctx, storage, "plans", func(s *redoubt.BucketSettings) error { s.Default, s.Closed = "", true; return nil }); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Second)
	carry(t, p.home, p.device)
	if b, err := p.device.HeadBucket(ctx, who, "plans"); err != nil || b.Default != "" || !b.Closed {
		t.Errorf("after it was closed it is %+v, %v", b, err)
	}
	// And so does its end: what is in it above who removed it stays readable to its readers, what is not sent yet too.
	if _, err := p.home.UpdateBucket(ctx, storage, "plans", func(s *redoubt.BucketSettings) error { s.Closed = false; return nil }); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	if err := plans(p.device, who, "three", "not sent yet"); err != nil {
		t.Fatal(err)
	}
	if err := p.home.DeleteBucket(ctx, storage, "plans"); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	for range 2 {
		if err := plans(p.device, who, "four", "z"); redoubt.KindOf(err) != redoubt.NoBucket {
			t.Errorf("a bucket that was removed at home takes a write at the device: %v", err)
		}
		if read(p.device, who, "one") != 0 || read(p.device, who, "three") != 0 {
			t.Error("what is in it is not readable any more")
		}
		p.device.restart(true)
	}
	if _, refused := carry(t, p.device, p.home); len(refused) != 1 || !refused[0].Later {
		t.Errorf("what came for a removed bucket: refused %+v, want it refused for now", refused)
	}
}

func TestADeviceMakesNoBucketsAndConfiguresNoneOfItsHomes(t *testing.T) {
	ctx := context.Background()
	for bound, rule := range map[string]string{"TOP SECRET//SI/TK": ruleHomesBucket, "SECRET": access.RuleStorage} { // below it nobody has the role
		p, _ := openHome(t, bound)
		p.enrol(t)
		_, err := p.device.CreateBucket(ctx, p.device.as("admin", ""), "mine", redoubt.BucketSettings{}) // as the estate has her
		wantRule(t, err, ruleHomesBucket)
		if _, err := p.home.CreateBucket(ctx, p.home.as("admin", ""), "plans", redoubt.BucketSettings{}); err != nil {
			t.Fatal(err)
		}
		carry(t, p.home, p.device)
		admin := p.device.as("admin", "")
		_, err = p.device.CreateBucket(ctx, admin, "mine", redoubt.BucketSettings{})
		wantRule(t, err, rule)
		_, err = p.device.UpdateBucket(ctx, admin, "plans", func(s *redoubt.BucketSettings) error { s.Closed = true; return nil })
		wantRule(t, err, rule)
		wantRule(t, p.device.DeleteBucket(ctx, admin, "plans"), rule)
		if b, err := p.device.HeadBucket(ctx, admin, "plans"); err != nil || b.Closed {
			t.Errorf("bound %s: the bucket is %+v, %v", bound, b, err)
		}
		if got := p.device.decisions(redoubt.ActionCreateBucket); !slices.Contains(got, redoubt.Denied.Error()) {
			t.Errorf("bound %s: on record are %v", bound, got)
		}
	}
}

func wantRule(t *testing.T, err error, rule string) {
	t.Helper()
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Rule != rule || e.Hint == "" {
		t.Errorf("got %v, want it denied by %s with a hint", err, rule)
	}
}

func TestABucketIsCutToTheRangeOfItsDevices(t *testing.T) {
	w := open(t, nil)
	for _, c := range []struct{ floor, ceiling, bFloor, bCeiling, bDefault, want string }{
		{"UNCLASSIFIED", "SECRET", "", "", "", "//"},
		{"UNCLASSIFIED", "SECRET", "CONFIDENTIAL", "TOP SECRET//SI", "TOP SECRET", "CONFIDENTIAL/SECRET/SECRET"},
		{"CONFIDENTIAL", "SECRET", "UNCLASSIFIED", "", "UNCLASSIFIED", "CONFIDENTIAL//CONFIDENTIAL"},
		{"UNCLASSIFIED", "SECRET", "", "CONFIDENTIAL", "", "/CONFIDENTIAL/"},
		{"UNCLASSIFIED", "SECRET", "TOP SECRET", "", "", "left out"},
		{"CONFIDENTIAL", "SECRET", "", "UNCLASSIFIED", "", "left out"},
	} {
		var a audience
		var err error
		if a.floor, err = w.policy.Parse(c.floor); err == nil {
			a.ceiling, err = w.policy.Parse(c.ceiling)
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.compile(bucketRecord{ID: 9, Bucket: redoubt.Bucket{Name: "b-b", BucketSettings: redoubt.BucketSettings{Floor: c.bFloor, Ceiling: c.bCeiling, Default: c.bDefault}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := "left out"
		if out, fits := w.cutBucket(a, b); fits {
			got = out.Bucket.Floor + "/" + out.Bucket.Ceiling + "/" + out.Bucket.Default
		}
		if got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}
