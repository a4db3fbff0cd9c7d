package enclave

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"redoubt"
)

// openPatrol is a home with two declared devices, which may meet without it, both enrolled and told of one another.
func openPatrol(t *testing.T) (p pair, patrol *world, clock *hands) {
	return openPatrolTo(t, "SECRET//REL TO USA, GBR")
}

// openPatrolTo is the same with another ceiling of the patrol's.
func openPatrolTo(t *testing.T, ceiling string) (p pair, patrol *world, clock *hands) {
	t.Helper()
	ctx := context.Background()
	clock = new(hands)
	clock.now.Store(time.Now().UnixNano())
	home := open(t, func(o *Options) {
		o.Name, o.Clock = "home", clock.clock
		low, err := o.Policy.Parse(ceiling)
		if err != nil {
			t.Fatal(err)
		}
		high, err := o.Policy.Parse("SECRET")
		if err != nil {
			t.Fatal(err)
		}
		o.Devices = []DeclaredDevice{{Name: "device", Floor: o.Floor, Ceiling: high, Lease: time.Hour, Addresses: []string{"192.0.2.1:7000"}},
			{Name: "patrol", Floor: o.Floor, Ceiling: low, Lease: time.Hour, Meets: []redoubt.NodeName{"device"}, Carries: []redoubt.Subscription{{Bucket: "reports", In: true, Latest: true}}},
			{Name: "absent", Floor: o.Floor, Ceiling: low, Lease: time.Hour, Meets: []redoubt.NodeName{"device"}}}
	})
	opened := func(name redoubt.NodeName, bound string) *world {
		w := open(t, func(o *Options) {
			o.Name, o.Clock = name, clock.clock
			l, err := o.Policy.Parse(bound)
			if err != nil {
				t.Fatal(err)
			}
			o.Ceiling = l
			o.Links = []redoubt.Link{{Peer: "home", Key: home.links.key, Bound: l}}
		})
		inv, err := home.InviteDevice(ctx, home.as("officer", ""), name)
		if err == nil {
			_, err = home.EnrolDevice(ctx, w.enrolRequest(inv.Token))
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	p, patrol = pair{home, opened("device", "SECRET")}, opened("patrol", ceiling)
	for _, w := range []*world{p.device, patrol} {
		w.SetMakers(home.Makers())
		if err := w.SetNeighbours(ctx, home.Neighbours(w.name)); err != nil {
			t.Fatal(err)
		}
	}
	return p, patrol, clock
}

func TestAHomeTellsEachDeviceOfThoseThatItMayMeet(t *testing.T) {
	p, patrol, _ := openPatrol(t)
	mine, others := p.home.Neighbours("device"), p.home.Neighbours("patrol")
	if len(mine) != 1 || len(others) != 1 {
		t.Fatalf("the device is told of %v, the patrol of %v; want one another: absent is not enrolled", mine, others)
	}
	if n := others[0]; n.Device != "device" || n.Bound != "SECRET//REL TO USA, GBR" || !slices.Equal(n.Addresses, []string{"192.0.2.1:7000"}) ||
		!slices.Equal(n.Subscriptions, []redoubt.Subscription{{Bucket: "reports", In: true, Out: true, Latest: true}}) {
		t.Errorf("the patrol is told %+v", n)
	}
	if n := mine[0]; n.Device != "patrol" || len(n.Addresses) != 0 || !slices.Equal(n.Key, patrol.links.key) ||
		!slices.Equal(n.Subscriptions, []redoubt.Subscription{{Bucket: "reports", In: true, Out: true, Latest: true}}) {
		t.Errorf("the device is told %+v", n)
	}
	if err := p.home.EndDevice(context.Background(), p.home.as("officer", ""), "patrol", false, false, "lost"); err != nil {
		t.Fatal(err)
	}
	if n := p.home.Neighbours("device"); len(n) != 0 {
		t.Errorf("the device is still told of a patrol that was revoked: %v", n)
	}
}

func TestWhatADeviceHearsOfNeighboursIsHeldAgainstItsRange(t *testing.T) {
	p, patrol, _ := openPatrol(t)
	good := p.home.Neighbours("patrol")[0]
	for what, change := range map[string]func(*redoubt.Neighbour){
		"a bound above its range": func(n *redoubt.Neighbour) { n.Bound = "SECRET" },
		"no marking":              func(n *redoubt.Neighbour) { n.Bound = "WRONG" },
		"itself":                  func(n *redoubt.Neighbour) { n.Device = "patrol" },
		"its home":                func(n *redoubt.Neighbour) { n.Device = "home" },
		"nobody":                  func(n *redoubt.Neighbour) { n.Device = "" },
		"half a key":              func(n *redoubt.Neighbour) { n.Key = n.Key[:16] },
		"a subscription's marking": func(n *redoubt.Neighbour) {
			n.Subscriptions = []redoubt.Subscription{{Bucket: "reports", Bound: "WRONG", In: true}}
		},
	} {
		bad := good
		change(&bad)
		if err := patrol.SetNeighbours(context.Background(), []redoubt.Neighbour{bad}); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: %v, want it refused", what, err)
		}
	}
	if err := patrol.SetNeighbours(context.Background(), make([]redoubt.Neighbour, redoubt.MaxNeighbours+1)); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("too many: %v", err)
	}
	if l := patrol.Links()["device"]; !slices.Equal(l.Key, p.device.links.key) {
		t.Error("what was refused has taken the place of what stood")
	}
}

func TestWhatDevicesWroteGoesBetweenThemAndOnToTheirHome(t *testing.T) {
	p, patrol, _ := openPatrol(t)
	low, high := patrol.as("s-analyst", "SECRET//REL TO USA, GBR"), p.device.as("s-analyst", "")
	patrol.put(low, "sighting", "tracks", "")
	p.device.put(high, "above", "for the owner alone", "")
	p.device.put(p.device.as("s-analyst", "SECRET//REL TO USA, GBR"), "orders", "hold", "")
	for range 2 {
		carry(t, patrol, p.device)
		carry(t, p.device, patrol)
	}
	if got := patrol.picture(low); len(got) != 2 {
		t.Errorf("the patrol shows %v, want its own and what it may be told", got)
	}
	if got := p.device.picture(high); len(got) != 3 {
		t.Errorf("the device shows %v, want all three", got)
	}
	if moved, refused := carry(t, p.device, p.home); moved != 3 || len(refused) != 0 {
		t.Errorf("%d entries went on to the home, refused %v", moved, refused)
	}
	if want, got := p.device.picture(high), p.home.picture(p.home.as("s-analyst", "")); !slices.Equal(got, want) {
		t.Errorf("the home shows %v, want %v", got, want)
	}
}

func TestTheMarkOfARemovalWaitsForEveryNeighbour(t *testing.T) {
	p, patrol, clock := openPatrol(t)
	low := p.device.as("s-analyst", "SECRET//REL TO USA, GBR")
	v := p.device.put(low, "a", "a", "")
	left := func() int64 { return patrol.sets.table.Load().byLabel[low.Working].versions.Load() }
	carry(t, p.device, patrol)
	if err := p.device.del(low, "a", v.ID); err != nil {
		t.Fatal(err)
	}
	carry(t, p.device, p.home)
	p.device.trim()
	clock.add(forgetAfter + time.Hour)
	p.device.trim()
	if n := p.device.kept(recFate); n != 1 {
		t.Fatalf("%d marks while a neighbour has not heard of the removal, want 1", n)
	}
	if n := p.device.entries(); n != 0 {
		t.Errorf("%d entries are kept for a neighbour, want none: who comes later is compared with", n)
	}
	if n := left(); n != 1 {
		t.Fatalf("the patrol has %d versions, want what it never heard to be gone", n)
	}
	for range 2 {
		carry(t, patrol, p.device)
		carry(t, p.device, patrol)
	}
	if n := left(); n != 0 {
		t.Errorf("the patrol has %d versions when it has heard of the removal", n)
	}
	p.device.trim()
	clock.add(forgetAfter + time.Hour)
	p.device.trim()
	if n := p.device.kept(recFate); n != 0 {
		t.Errorf("%d marks are left when everybody has heard, want none", n)
	}
}

// TestADeviceForgetsNoMarkUntilItKnowsItsNeighbours: whom a mark waits for is not known after a start, nor after a word that was not taken.
func TestADeviceForgetsNoMarkUntilItKnowsItsNeighbours(t *testing.T) {
	ctx := context.Background()
	p, _, clock := openPatrol(t)
	low := p.device.as("s-analyst", "SECRET//REL TO USA, GBR")
	v := p.device.put(low, "a", "a", "")
	if err := p.device.del(low, "a", v.ID); err != nil {
		t.Fatal(err)
	}
	carry(t, p.device, p.home)
	p.device.trim()
	clock.add(forgetAfter + time.Hour)
	stays := func(when string) {
		t.Helper()
		p.device.trim()
		if n := p.device.kept(recFate); n != 1 {
			t.Fatalf("%s: %d marks, want 1", when, n)
		}
	}
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	p.device.restart(true)
	stays("after a start")
	patrol := p.home.Neighbours("device")
	bad := slices.Clone(patrol)
	bad[0].Bound = "NONSENSE"
	if err := p.device.SetNeighbours(ctx, bad); err == nil {
		t.Fatal("a word with a fault is taken")
	}
	stays("after a word with a fault")
	if err := p.device.SetNeighbours(ctx, patrol); err != nil {
		t.Fatal(err)
	}
	stays("while the neighbours are known and have not heard")
	if err := p.device.SetNeighbours(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.device.SetNeighbours(ctx, bad); err == nil {
		t.Fatal("a word with a fault is taken")
	}
	stays("after a word with a fault that followed another")
	if err := p.device.SetNeighbours(ctx, nil); err != nil {
		t.Fatal(err)
	}
	p.device.trim()
	if n := p.device.kept(recFate); n != 0 {
		t.Errorf("%d marks when there is no neighbour, want none", n)
	}
}

func TestWhatTheHomeToldOneDeviceGoesOnToAnotherOfTheSameRange(t *testing.T) {
	ctx := context.Background()
	for ceiling, alike := range map[string]bool{"SECRET": true, "SECRET//REL TO USA, GBR": false} {
		p, patrol, _ := openPatrolTo(t, ceiling)
		for _, w := range []*world{p.device, patrol} { // what there is to tell at the beginning
			carry(t, p.home, w)
		}
		p.device.keys["s-analyst"] = p.home.keys["s-analyst"] // of whom the home has told
		who := p.device.as("s-analyst", "SECRET//REL TO USA, GBR")
		p.device.put(who, "before", "she works here", "")
		if err := p.home.RevokePerson(ctx, p.home.as("officer", ""), "s-analyst", "left"); err != nil {
			t.Fatal(err)
		}
		carry(t, p.home, patrol) // the device does not meet its home any more
		if _, refused := carry(t, patrol, p.device); len(refused) != 0 {
			t.Errorf("refused %+v", refused)
		}
		_, err := p.device.PutObject(ctx, who, redoubt.PutObject{Name: named("more"), SizeBytes: -1})
		if errors.Is(err, redoubt.Unauthenticated) != alike {
			t.Errorf("of a patrol to %s the device heard that she was revoked: %v", ceiling, err)
		}
		if alike {
			neighboursWord(t, patrol, p.device)
		}
	}
}

// neighboursWord is refused: a system record that the home made, as if the neighbour had.
func neighboursWord(t *testing.T, from, to *world) {
	t.Helper()
	ctx := context.Background()
	sets, err := from.Sets(ctx, to.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range sets {
		refs, _, err := from.Since(ctx, to.name, set, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range fetch(t, from, to, set, refs) {
			if item.Entry.Name.Bucket != redoubt.SystemBucket {
				continue
			}
			in := received(t, []redoubt.JournalItem{item})
			in[0].Entry.Maker = from.name
			encoded, err := in[0].Entry.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			c, err := redoubt.SealBatch(from.name, [][]byte{encoded}, from.links.sign)
			if err != nil {
				t.Fatal(err)
			}
			in[0].Custody = c[0]
			refused, err := to.Apply(ctx, from.name, in)
			if err != nil || len(refused) != 1 || refused[0].Rule != ruleSigner {
				t.Errorf("a system record of a neighbour's own: %+v, %v", refused, err)
			}
			return
		}
	}
	t.Error("no system record went on")
}
