package enclave

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"redoubt"
)

// lockable makes every bucket of a world one with object lock.
func lockable(o *Options) {
	for i := range o.Buckets {
		o.Buckets[i].Lock.Enabled = true
	}
}

// openLocking is openHome with object lock in every bucket.
func openLocking(t *testing.T) (pair, *hands) {
	t.Helper()
	clock := new(hands)
	home := open(t, func(o *Options) {
		withClock(clock)(o)
		lockable(o)
		o.Name = "home"
		l, err := o.Policy.Parse("SECRET")
		if err != nil {
			t.Fatal(err)
		}
		o.Devices = []DeclaredDevice{{Name: "device", Floor: o.Floor, Ceiling: l, Lease: time.Hour}}
	})
	device := open(t, func(o *Options) {
		lockable(o)
		o.Clock, o.Name, o.People = clock.clock, "device", home.o.People
		l, err := o.Policy.Parse("SECRET")
		if err != nil {
			t.Fatal(err)
		}
		o.Links = []redoubt.Link{{Peer: "home", Key: home.links.key, Bound: l}}
	})
	device.keys = home.keys
	p := pair{home, device}
	p.enrol(t)
	return p, clock
}

// alterAs alters the current version under a key.
func (w *world) alterAs(who redoubt.Credential, key string, in redoubt.AlterObject) error {
	in.Name = named(key)
	_, err := w.AlterObject(context.Background(), who, in)
	return err
}

// lockedAs is what of a version stands: tags, retention and hold.
func (w *world) lockedAs(who redoubt.Credential, key string) string {
	w.t.Helper()
	o, err := w.GetObject(context.Background(), who, redoubt.ReadObject{Name: named(key)})
	if err != nil {
		return redoubt.KindOf(err).Error()
	}
	defer o.Close()
	v := o.Version()
	until := "none"
	if v.Retention.Mode != "" {
		until = fmt.Sprint(v.Retention.Mode, " ", v.Retention.Until.Unix())
	}
	return fmt.Sprint(v.Tags, " ", until, " ", v.Hold)
}

func to[T any](v T) *T { return &v }

func TestADevicesLaterTagLiftsNothingThatItsHomeLocked(t *testing.T) {
	p, clock := openLocking(t)
	home, device := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
	both := func(wantTags string, until time.Time, mode string, hold bool) {
		t.Helper()
		for range 2 {
			carry(t, p.home, p.device)
			carry(t, p.device, p.home)
		}
		want := fmt.Sprint(wantTags, " none ", hold)
		if mode != "" {
			want = fmt.Sprint(wantTags, " ", mode, " ", until.Unix(), " ", hold)
		}
		if a, b := p.home.lockedAs(home, "sighting"), p.device.lockedAs(device, "sighting"); a != want || b != want {
			t.Errorf("at home %s\nat the device %s\nwant %s", a, b, want)
		}
	}
	p.device.put(device, "sighting", "tracks", "")
	both("[]", time.Time{}, "", false)
	until := clock.clock().Add(100 * time.Hour).Truncate(time.Second)
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Hold: to(true)}); err != nil {
		t.Fatal(err)
	}
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Retention: &redoubt.Retention{Mode: "GOVERNANCE", Until: until}}); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Minute) // the device has heard nothing, and tags later
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Tags: &[]redoubt.Tag{{Key: "a", Value: "b"}}}); err != nil {
		t.Fatal(err)
	}
	both("[{a b}]", until, "GOVERNANCE", true)
	// Now that it has, it is told so.
	wantRule(t, p.device.alterAs(device, "sighting", redoubt.AlterObject{Hold: to(false)}), ruleOwn)
	err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Retention: &redoubt.Retention{Mode: "GOVERNANCE", Until: until.Add(-time.Hour)}})
	want(t, err, redoubt.Locked)
	both("[{a b}]", until, "GOVERNANCE", true)
	// It may add to what is kept, and tag.
	later := until.Add(time.Hour)
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Retention: &redoubt.Retention{Mode: "GOVERNANCE", Until: later}}); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Second)
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Tags: &[]redoubt.Tag{{Key: "c", Value: "d"}}}); err != nil {
		t.Fatal(err)
	}
	both("[{c d}]", later, "GOVERNANCE", true)
	// The home lifts what it locked, and what the device did; the device's next word brings nothing back.
	clock.add(time.Second)
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Hold: to(false)}); err != nil {
		t.Fatal(err)
	}
	both("[{c d}]", later, "GOVERNANCE", false)
	clock.add(time.Second)
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Tags: &[]redoubt.Tag{}}); err != nil {
		t.Fatal(err)
	}
	both("[]", later, "GOVERNANCE", false)
	// Nor does what it says before it has heard of that.
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Hold: to(true)}); err != nil {
		t.Fatal(err)
	}
	both("[]", later, "GOVERNANCE", true)
	clock.add(time.Second)
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Hold: to(false)}); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Second)
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Tags: &[]redoubt.Tag{{Key: "e", Value: "f"}}}); err != nil {
		t.Fatal(err)
	}
	both("[{e f}]", later, "GOVERNANCE", false)
	clock.add(time.Second)
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Tags: &[]redoubt.Tag{}}); err != nil {
		t.Fatal(err)
	}
	// What the device locks itself it may open again.
	for _, hold := range []bool{true, false} {
		clock.add(time.Second)
		if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Hold: &hold}); err != nil {
			t.Fatal(err)
		}
		both("[]", later, "GOVERNANCE", hold)
	}
	// COMPLIANCE at home stays so whatever later the device says before it has heard of it.
	far := later.Add(time.Hour)
	clock.add(time.Second)
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Retention: &redoubt.Retention{Mode: "COMPLIANCE", Until: later}}); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Second)
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Retention: &redoubt.Retention{Mode: "GOVERNANCE", Until: far}}); err != nil {
		t.Fatal(err)
	}
	both("[]", far, "COMPLIANCE", false)
}

func TestADeviceDoesNotRemoveWhatItsHomeHolds(t *testing.T) {
	p, clock := openLocking(t)
	home, device := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
	v := p.device.put(device, "sighting", "tracks", "")
	carry(t, p.device, p.home)
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Hold: to(true)}); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Second)
	if err := p.device.del(device, "sighting", v.ID); err != nil { // it has not heard of it
		t.Fatal(err)
	}
	_, refused := carry(t, p.device, p.home)
	if len(refused) != 1 || refused[0].Rule != ruleLocked || refused[0].Later {
		t.Errorf("refused %+v", refused)
	}
	if got := p.home.get(home, "sighting"); got != "tracks" {
		t.Errorf("what the home holds reads %q", got)
	}
	if _, refused := carry(t, p.home, p.device); len(refused) != 0 {
		t.Errorf("refused %+v", refused)
	}
}

// TestLocksConverge gives every node the same alterations, in an order of its own and some twice, and holds what they make of them
// against one another, and against what was locked at home last.
func TestLocksConverge(t *testing.T) {
	const nodes = 3
	rapid.Check(t, func(r *rapid.T) {
		own, other := makeVersionID(0, 7, 9), makeVersionID(0, 8, 9)
		type word struct {
			own bool
			x   redoubt.JournalEntry
		}
		var all []word
		used, device := map[int]bool{}, rapid.Bool().Draw(r, "made at a device")
		retained := func() (out redoubt.Retention) {
			if mode := rapid.SampledFrom(modes).Draw(r, "mode"); mode != "" {
				out = redoubt.Retention{Mode: mode, Until: time.Unix(int64(10*rapid.IntRange(1, 6).Draw(r, "until")), 0).UTC()}
			}
			return out
		}
		first := retained()
		for range rapid.IntRange(1, 7).Draw(r, "alterations") {
			at := rapid.IntRange(1, 30).Filter(func(n int) bool { return !used[n] }).Draw(r, "at")
			used[at] = true
			s := word{own: rapid.Bool().Draw(r, "own")}
			maker := other
			if s.own {
				maker = own
			}
			s.x = redoubt.JournalEntry{Kind: redoubt.EntryAlteration, Stamp: redoubt.Stamp(makeVersionID(int64(at)*int64(time.Second), maker.maker(), 9)),
				Hold: rapid.Bool().Draw(r, "hold"), Tags: []redoubt.Tag{{Key: "at", Value: fmt.Sprint(at)}}}
			s.x.Retention = retained()
			all = append(all, s)
		}
		var seen []string
		for range nodes {
			order := rapid.Permutation(append(slices.Clone(all), all[:len(all)/2]...)).Draw(r, "order")
			var f fates
			kept := map[versionID]*redoubt.JournalEntry{}
			for _, s := range order {
				id := versionID(s.x.Stamp)
				if f.stands(saidBy(&s.x, s.own)) {
					continue
				}
				next, gone := f.with(saidBy(&s.x, s.own))
				for _, g := range gone {
					delete(kept, g)
				}
				f, kept[id] = next, &s.x
			}
			if len(kept) > 3 {
				r.Fatalf("%d alterations are kept", len(kept))
			}
			f.first = first
			if back, err := decodeAltered(f.encode()[1:]); err != nil || back != f {
				r.Fatalf("%+v is read back as %+v, %v", f, back, err)
			}
			got := settle(f, kept[f.own], kept[f.other], device)
			seen = append(seen, fmt.Sprint(got, f))
			var home, maker *redoubt.JournalEntry
			firm := int64(0) // until when COMPLIANCE stands that had not ended when the last of them was given
			if first.Mode == compliance {
				firm = first.Until.Unix()
			}
			for _, s := range all {
				if s.x.Retention.Mode == compliance {
					firm = max(firm, s.x.Retention.Until.Unix())
				}
				last := &maker
				if !s.own {
					last = &home
				}
				if *last == nil || s.x.Stamp.Time() > (*last).Stamp.Time() {
					*last = &s.x
				}
			}
			newest := maker == nil || home != nil && home.Stamp.Time() > maker.Stamp.Time()
			last := maker
			if newest {
				last = home
			}
			if firm <= time.Unix(0, last.Stamp.Time()).Unix() {
				firm = 0
			}
			switch {
			case firm > 0 && (got.retention.Mode != compliance || got.retention.Until.Unix() < firm):
				r.Fatalf("COMPLIANCE until %d was lifted: %+v", firm, got)
			case newest && (got.hold != home.Hold || firm == 0 && got.retention != home.Retention):
				r.Fatalf("the home said last %+v, and %+v stands", home, got)
			case newest:
			case home == nil && device && first.Mode != "" && first.Until.UnixNano() > maker.Stamp.Time() && got.retention.Until.Before(first.Until):
				r.Fatalf("a device lifted what its version came with, %v: %+v", first, got)
			case home == nil:
			case home.Hold && !got.hold:
				r.Fatalf("a hold of the home's was lifted: %+v", got)
			case home.Retention.Mode != "" && home.Retention.Until.UnixNano() > maker.Stamp.Time() &&
				(got.retention.Until.Before(home.Retention.Until) || home.Retention.Mode == compliance && got.retention.Mode != compliance):
				r.Fatalf("the home retained %v, and %v stands", home.Retention, got.retention)
			}
		}
		for _, s := range seen[1:] {
			if s != seen[0] {
				r.Fatalf("nodes that heard the same differ:\n%s\n%s", seen[0], s)
			}
		}
	})
}

// TestNodesConvergeOnLocks lets a home and two devices lock, open and tag what the devices made, cut off and not, and compares.
func TestNodesConvergeOnLocks(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p, clock := openLocking(t)
		who := map[*world]redoubt.Credential{p.home: p.home.as("s-analyst", ""), p.device: p.device.as("s-analyst", "")}
		for _, key := range []string{"a", "b"} {
			w := p.device
			if key == "b" {
				w = p.home
			}
			w.put(who[w], key, "x", "")
		}
		carry(t, p.home, p.device)
		carry(t, p.device, p.home)
		held := map[string]bool{}
		for step := range rapid.IntRange(1, 14).Draw(r, "steps") {
			clock.add(time.Second)
			w := rapid.SampledFrom([]*world{p.home, p.device}).Draw(r, "node")
			key := rapid.SampledFrom([]string{"a", "b"}).Draw(r, "key")
			in := redoubt.AlterObject{}
			switch rapid.IntRange(0, 4).Draw(r, "what") {
			case 0:
				in.Tags = &[]redoubt.Tag{{Key: "step", Value: fmt.Sprint(step)}}
			case 1, 2:
				in.Hold = to(rapid.Bool().Draw(r, "hold"))
			case 3:
				in.Retention = &redoubt.Retention{Mode: "GOVERNANCE", Until: clock.clock().Add(time.Duration(rapid.IntRange(1, 50).Draw(r, "hours")) * time.Hour).Truncate(time.Second)}
			case 4:
				from, to := p.home, p.device
				if w == p.device {
					from, to = to, from
				}
				carry(t, from, to)
				continue
			}
			err := w.alterAs(who[w], key, in)
			if k := redoubt.KindOf(err); err != nil && k != redoubt.Denied && k != redoubt.Locked {
				r.Fatal(err)
			}
			if err == nil && w == p.home && in.Hold != nil {
				held[key] = *in.Hold
			}
		}
		for range 3 {
			if _, refused := carry(t, p.home, p.device); len(refused) > 0 {
				r.Fatalf("refused %+v", refused)
			}
			if _, refused := carry(t, p.device, p.home); len(refused) > 0 {
				r.Fatalf("refused %+v", refused)
			}
		}
		for _, key := range []string{"a", "b"} {
			a, b := p.home.lockedAs(who[p.home], key), p.device.lockedAs(who[p.device], key)
			if a != b {
				r.Fatalf("%s is %s at home and %s at the device", key, a, b)
			}
			if held[key] && a[len(a)-4:] != "true" {
				r.Fatalf("the home holds %s, and what stands is %s", key, a)
			}
		}
		p.home.charges()
		p.device.charges()
	})
}

func TestADeviceOpensNoComplianceAtItsHomeNorGovernanceThatItsVersionCameWith(t *testing.T) {
	ctx := context.Background()
	for _, r := range []struct {
		what, mode string
		came       bool // with the version; else an alteration says it
		stays      bool
	}{{"COMPLIANCE that the device said", compliance, false, true}, {"COMPLIANCE that it came with", compliance, true, true},
		{"GOVERNANCE that it came with", "GOVERNANCE", true, true}, {"GOVERNANCE that the device said", "GOVERNANCE", false, false}} {
		t.Run(r.what, func(t *testing.T) {
			p, clock := openLocking(t)
			home, device := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
			kept := redoubt.Retention{Mode: r.mode, Until: clock.clock().Add(100 * time.Hour).Truncate(time.Second)}
			in := redoubt.PutObject{Name: named("sighting"), SizeBytes: -1}
			if r.came {
				in.Retention = kept
			}
			v, err := p.device.PutObject(ctx, device, in)
			if err == nil && !r.came {
				err = p.device.alterAs(device, "sighting", redoubt.AlterObject{Retention: &kept})
			}
			if err != nil {
				t.Fatal(err)
			}
			carry(t, p.device, p.home)
			locked := p.home.lockedAs(home, "sighting")
			set, of := p.device.set("SECRET"), p.device.stamp("SECRET", "sighting", v.ID)
			clock.add(time.Second)
			for _, x := range []redoubt.JournalEntry{{Kind: redoubt.EntryAlteration}, {Kind: redoubt.EntryRemoval}} {
				x.Of, x.Name = of, named("sighting")
				if _, err := p.home.Apply(ctx, "device", []redoubt.Received{p.device.said(set, x)}); err != nil {
					t.Fatal(err)
				}
			}
			if got := p.home.lockedAs(home, "sighting"); (got == locked) != r.stays {
				t.Errorf("the home had %s, and has %s", locked, got)
			}
			p.home.charges()
		})
	}
}

func TestComplianceThatTheHomeHadNotHeardOfStandsOverItsLaterWord(t *testing.T) {
	p, clock := openLocking(t)
	home, device := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
	p.device.put(device, "sighting", "tracks", "")
	carry(t, p.device, p.home)
	until := clock.clock().Add(100 * time.Hour).Truncate(time.Second)
	clock.add(time.Second)
	if err := p.device.alterAs(device, "sighting", redoubt.AlterObject{Retention: &redoubt.Retention{Mode: compliance, Until: until}}); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Second)
	if err := p.home.alterAs(home, "sighting", redoubt.AlterObject{Tags: &[]redoubt.Tag{{Key: "a", Value: "b"}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		carry(t, p.device, p.home)
		carry(t, p.home, p.device)
	}
	want := fmt.Sprint("[{a b}] COMPLIANCE ", until.Unix(), " false")
	if a, b := p.home.lockedAs(home, "sighting"), p.device.lockedAs(device, "sighting"); a != want || b != want {
		t.Errorf("at home %s\nat the device %s\nwant %s", a, b, want)
	}
}

func TestAStateWithOneAlterationReadsAsBefore(t *testing.T) {
	p, clock := openLocking(t)
	home, device := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
	for _, by := range []*world{p.device, p.home} {
		key := "by-" + string(by.name)
		p.device.put(device, key, "x", "")
		carry(t, p.device, p.home)
		who := map[*world]redoubt.Credential{p.home: home, p.device: device}[by]
		clock.add(time.Second)
		if err := by.alterAs(who, key, redoubt.AlterObject{Hold: to(true)}); err != nil {
			t.Fatal(err)
		}
		carry(t, p.home, p.device)
		carry(t, p.device, p.home)
		set := p.home.set("SECRET")
		page, err := p.home.ListVersions(context.Background(), home, redoubt.ListVersions{Bucket: "reports", Prefix: key, Max: 10})
		if err != nil || len(page.Versions) != 1 {
			t.Fatal(page, err)
		}
		of, _ := p.home.ids.parse(string(page.Versions[0].ID))
		now, err := p.home.fates(p.home.engine, set, of)
		if err != nil || now.altered() == false || now.own.isZero() != (by == p.home) {
			t.Fatalf("%s: %+v, %v", key, now, err)
		}
		id := now.last()
		p.home.overwrite(fateKey(set.id, of), append([]byte{byte(redoubt.EntryAlteration)}, id[:]...))
		if was, err := p.home.fates(p.home.engine, set, of); err != nil || was != now {
			t.Errorf("%s: an earlier state's is read as %+v, %v; want %+v", key, was, err, now)
		}
		p.home.overwrite(fateKey(set.id, of), append(append([]byte{byte(redoubt.EntryAlteration)}, now.own[:]...), now.other[:]...))
		if was, err := p.home.fates(p.home.engine, set, of); err != nil || was != now {
			t.Errorf("%s: one with two is read as %+v, %v; want %+v", key, was, err, now)
		}
	}
}

// A case that once failed: the home retained, both tagged cut off, and each went on with its own tag for good.
func TestBothEndsAgreeOnATagAfterTheHomeRetainedAndBothTaggedCutOff(t *testing.T) {
	p, clock := openLocking(t)
	home, device := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
	p.device.put(device, "a", "x", "")
	carry(t, p.device, p.home)
	say := func(w *world, who redoubt.Credential, in redoubt.AlterObject) {
		t.Helper()
		clock.add(time.Second)
		if err := w.alterAs(who, "a", in); err != nil {
			t.Fatal(err)
		}
	}
	tag := func(v string) redoubt.AlterObject {
		return redoubt.AlterObject{Tags: &[]redoubt.Tag{{Key: "step", Value: v}}}
	}
	until := clock.clock().Add(time.Hour).Truncate(time.Second)
	say(p.home, home, tag("0"))
	say(p.home, home, redoubt.AlterObject{Hold: to(false)})
	say(p.home, home, redoubt.AlterObject{Retention: &redoubt.Retention{Mode: "GOVERNANCE", Until: until}})
	say(p.device, device, tag("4"))
	say(p.home, home, tag("9"))
	for _, road := range [][2]*world{{p.device, p.home}, {p.home, p.device}, {p.device, p.home}, {p.home, p.device}} {
		if _, refused := carry(t, road[0], road[1]); len(refused) > 0 {
			t.Fatalf("refused %+v", refused)
		}
	}
	want := fmt.Sprint("[{step 9}] GOVERNANCE ", until.Unix(), " false")
	if a, b := p.home.lockedAs(home, "a"), p.device.lockedAs(device, "a"); a != want || b != want {
		t.Errorf("at home %s\nat the device %s\nwant %s", a, b, want)
	}
}
