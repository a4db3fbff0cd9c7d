package enclave

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"redoubt"
)

// pair is two enclaves that a link joins, as a home and its device.
type pair struct{ home, device *world }

func openPair(t *testing.T, bound string, change func(*Options)) pair {
	t.Helper()
	named := func(name redoubt.NodeName) func(*Options) {
		return func(o *Options) {
			o.Name = name
			if change != nil {
				change(o)
			}
		}
	}
	p := pair{open(t, named("home")), open(t, named("device"))}
	p.join(p.home, p.device, bound)
	return p
}

func (p pair) join(a, b *world, bound string, subs ...redoubt.Subscription) {
	a.t.Helper()
	l, err := a.policy.Parse(bound)
	if err != nil {
		a.t.Fatal(err)
	}
	a.link(b, redoubt.Link{Peer: b.name, Key: b.links.key, Bound: l, Subscriptions: subs})
	b.link(a, redoubt.Link{Peer: a.name, Key: a.links.key, Bound: l})
}

// link adds a link to those that the world has.
func (w *world) link(_ *world, l redoubt.Link) {
	w.t.Helper()
	all := []redoubt.Link{l}
	for _, other := range *w.links.table.Load() {
		if other.Peer != l.Peer {
			all = append(all, other)
		}
	}
	if err := w.SetLinks(context.Background(), all); err != nil {
		w.t.Fatal(err)
	}
}

// carry moves everything that from has for to since the last time, through the wire form, and gives what was refused.
func carry(t testing.TB, from, to *world) (moved int, refused []redoubt.Refusal) {
	t.Helper()
	ctx := context.Background()
	sets, err := from.Sets(ctx, to.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range sets {
		at, known, err := from.Acknowledged(ctx, to.name, set)
		if err != nil {
			t.Fatal(err)
		}
		if !known {
			var all []redoubt.Stamp
			upTo, err := from.Inventory(ctx, to.name, set, func(s redoubt.Stamp) error { all = append(all, s); return nil })
			if err != nil {
				t.Fatal(err)
			}
			if !slices.IsSortedFunc(all, func(a, b redoubt.Stamp) int { return bytes.Compare(a[:], b[:]) }) {
				t.Error("the inventory is not in order")
			}
			items, err := from.Fetch(ctx, to.name, set, all)
			if err != nil {
				t.Fatal(err)
			}
			n, no := apply(t, from, to, items)
			moved, refused, at = moved+n, append(refused, no...), upTo
		}
		for {
			refs, upTo, err := from.Since(ctx, to.name, set, at, 7)
			if err != nil {
				t.Fatal(err)
			}
			if upTo == at {
				break
			}
			items := fetch(t, from, to, set, refs)
			n, no := apply(t, from, to, items)
			moved, refused, at = moved+n, append(refused, no...), upTo
		}
		if err := from.Acknowledge(ctx, to.name, set, at); err != nil {
			t.Fatal(err)
		}
	}
	return moved, refused
}

func fetch(t testing.TB, from, to *world, set string, refs []redoubt.JournalRef) []redoubt.JournalItem {
	t.Helper()
	var stamps []redoubt.Stamp
	for _, r := range refs {
		stamps = append(stamps, r.Stamp)
	}
	items, err := from.Fetch(context.Background(), to.name, set, stamps)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func apply(t testing.TB, from, to *world, items []redoubt.JournalItem) (int, []redoubt.Refusal) {
	t.Helper()
	refused, err := to.Apply(context.Background(), from.name, received(t, items))
	if err != nil {
		t.Fatal(err)
	}
	return len(items), refused
}

// received is what a peer makes of items that travelled.
func received(t testing.TB, items []redoubt.JournalItem) []redoubt.Received {
	t.Helper()
	in := make([]redoubt.Received, len(items))
	for i := range items {
		encoded, err := items[i].Entry.MarshalBinary()
		if err == nil {
			err = in[i].Entry.UnmarshalBinary(encoded)
		}
		if err != nil {
			t.Fatal(err)
		}
		custody, _ := items[i].Custody.AppendBinary(nil)
		if err := in[i].Custody.UnmarshalBinary(custody); err != nil {
			t.Fatal(err)
		}
		if items[i].Open != nil {
			r, err := items[i].Open()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r.Reader(0, -1))
			r.Close()
			if err != nil {
				t.Fatal(err)
			}
			in[i].Content = bytes.NewReader(content)
		}
	}
	return in
}

// picture is everything that a subject can see: every version's key, content, tags and order, newest first.
func (w *world) picture(who redoubt.Credential) (out []string) {
	w.t.Helper()
	ctx := context.Background()
	page, err := w.ListVersions(ctx, who, redoubt.ListVersions{Bucket: "reports", Max: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range page.Versions {
		if v.Marker {
			out = append(out, fmt.Sprintf("%s marker %s latest=%v", v.Name.Key, v.Label.Banner(), v.Latest))
			continue
		}
		o, err := w.GetObject(ctx, who, redoubt.ReadObject{Name: v.Name, ID: v.ID})
		if err != nil {
			w.t.Fatal(err)
		}
		content, err := io.ReadAll(o.Reader(0, -1))
		if err != nil {
			w.t.Fatal(err)
		}
		full := o.Version()
		o.Close()
		out = append(out, fmt.Sprintf("%s %q %s latest=%v %v %v %v %v %s %s", v.Name.Key, content, v.Label.Banner(), v.Latest, full.Tags, full.Hold,
			full.Attributes, full.PartSizes, full.Author, full.Maker))
	}
	return out
}

func TestWhatIsWrittenOnEitherSideIsOnBoth(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	at := func(w *world) redoubt.Credential { return w.as("s-analyst", "") }
	home, device := at(p.home), at(p.device)
	p.home.put(home, "orders", "advance", "")
	p.device.put(device, "sighting", strings.Repeat("tracks ", 40_000), "")
	u, list := p.home.upload(home, "map", "", 5<<20, 17)
	if _, err := p.home.complete(home, u, list); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	carry(t, p.device, p.home)
	if got := p.device.get(device, "orders"); got != "advance" {
		t.Errorf("at the device orders is %q", got)
	}
	if a, b := p.home.picture(home), p.device.picture(device); !slices.Equal(a, b) || len(a) != 3 {
		t.Errorf("the two differ:\n%.300q\n%.300q", a, b)
	}
	// What came from the other is not sent back, and nothing travels twice.
	p.home.put(home, "more", "orders", "")
	if n, _ := carry(t, p.home, p.device); n != 1 {
		t.Errorf("home sent %d entries, want the new one", n)
	}
	for _, way := range [][2]*world{{p.device, p.home}, {p.home, p.device}} {
		if n, _ := carry(t, way[0], way[1]); n != 0 {
			t.Errorf("%s sent %d entries that the other has", way[0].name, n)
		}
	}
}

// TestContentThatWasReadForItsDigestIsNotReadAgain: what was taken away meanwhile is still there for who fetched it.
func TestContentThatWasReadForItsDigestIsNotReadAgain(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	s := p.home.as("s-analyst", "SECRET")
	sizes := map[string]int{"small": 4 << 10, "whole": keptContent - 4<<10, "more": keptContent}
	var versions []redoubt.Version
	for _, key := range []string{"small", "whole", "more"} {
		versions = append(versions, p.home.put(s, key, strings.Repeat("x", sizes[key]), ""))
	}
	set := p.home.set("SECRET").name
	refs, _, err := p.home.Since(context.Background(), p.device.name, set, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	items := fetch(t, p.home, p.device, set, refs)
	if len(items) != len(sizes) {
		t.Fatalf("%d items, want %d", len(items), len(sizes))
	}
	for _, v := range versions {
		if err := p.home.del(s, v.Name.Key, v.ID); err != nil {
			t.Fatal(err)
		}
	}
	for _, item := range items {
		key := item.Entry.Name.Key
		r, err := item.Open()
		if key == "more" { // there was no room for it: it is read when it is opened, and is gone
			if err == nil {
				_, err = io.ReadAll(r.Reader(0, -1))
			}
			if err == nil {
				t.Error("more than the room for it was kept")
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if got, err := io.ReadAll(r.Reader(0, -1)); err != nil || len(got) != sizes[key] {
			t.Errorf("%s: %d bytes, %v", key, len(got), err)
		}
	}
}

func TestNothingAboveTheBoundTravels(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	low := p.home.as("s-analyst", "")
	p.home.put(low, "plan", "secret", "")
	before, _ := p.home.Sets(context.Background(), "device")
	p.home.put(p.home.as("ts-analyst", ""), "plan", "top secret", "")
	p.home.put(p.home.as("ts-analyst", "SECRET"), "up", "written up", "TOP SECRET")
	after, err := p.home.Sets(context.Background(), "device")
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("the peer is told of sets %v after something high was written, and before of %v (%v)", after, before, err)
	}
	if _, _, err := p.home.Since(context.Background(), "device", "USA@1 TOP SECRET", 0, 10); redoubt.KindOf(err) != redoubt.NotFound {
		t.Errorf("a set above the bound answers %v, want the answer for one that is not there", err)
	}
	if n, _ := carry(t, p.home, p.device); n != 1 {
		t.Errorf("%d entries travelled, want the one at SECRET", n)
	}
	// A peer that sends what is above the bound is refused, on record.
	top := p.home.as("ts-analyst", "")
	set := p.home.sets.table.Load().byLabel[top.Working]
	l := (*p.home.links.table.Load())["device"]
	l.Bound = p.home.ceiling
	p.home.link(nil, l)
	refs, _, err := p.home.Since(context.Background(), "device", set.name, 0, 10)
	if err != nil || len(refs) != 1 {
		t.Fatalf("%d entries, %v", len(refs), err)
	}
	items := fetch(t, p.home, p.device, set.name, refs)
	_, refused := apply(t, p.home, p.device, items)
	if len(refused) != 1 || refused[0].Rule != "within-link-bound (4.3)" || refused[0].Later {
		t.Errorf("refused %+v, want the link's bound", refused)
	}
	if got := p.device.get(p.device.as("ts-analyst", ""), "plan"); got != "secret" {
		t.Errorf("the device holds %q", got)
	}
}

func TestWhatIsForgedIsRefused(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	p.home.put(p.home.as("s-analyst", ""), "orders", "advance at dawn", "")
	refs, _, err := p.home.Since(context.Background(), "device", "USA@1 SECRET", 0, 10)
	if err != nil || len(refs) != 1 {
		t.Fatalf("%d entries, %v", len(refs), err)
	}
	items := fetch(t, p.home, p.device, "USA@1 SECRET", refs)
	for what, forge := range map[string]func(*redoubt.Received){
		"other content":   func(r *redoubt.Received) { r.Content = strings.NewReader("advance at noon") },
		"shorter content": func(r *redoubt.Received) { r.Content = strings.NewReader("advance") },
		"longer content":  func(r *redoubt.Received) { r.Content = strings.NewReader("advance at dawn!") },
		"no content":      func(r *redoubt.Received) { r.Content = nil },
		"another key":     func(r *redoubt.Received) { r.Entry.Name.Key = "other" },
		"another author":  func(r *redoubt.Received) { r.Entry.Author = "ts-analyst" },
		"a lower label":   func(r *redoubt.Received) { r.Entry.Label, r.Entry.Made = "USA@1 UNCLASSIFIED", "USA@1 UNCLASSIFIED" },
		"another maker":   func(r *redoubt.Received) { r.Entry.Maker = "device" },
		"a stranger":      func(r *redoubt.Received) { r.Entry.Maker = "nobody" },
		"a newer stamp":   func(r *redoubt.Received) { r.Entry.Stamp[7]++ },
		"a signature":     func(r *redoubt.Received) { r.Custody.Signature[5] ^= 1 },
		"a count":         func(r *redoubt.Received) { r.Custody.Count++ },
		"another root":    func(r *redoubt.Received) { r.Custody.Root[0] ^= 1 },
		"an empty key":    func(r *redoubt.Received) { r.Entry.Name.Key = "" },
		"a label made up": func(r *redoubt.Received) { r.Entry.Label = "USA@1 COSMIC" },
		"another policy":  func(r *redoubt.Received) { r.Entry.Label = "GBR@1 SECRET" },
		"a removal":       func(r *redoubt.Received) { r.Entry.Kind = redoubt.EntryRemoval },
	} {
		in := received(t, items)
		forge(&in[0])
		refused, err := p.device.Apply(context.Background(), "home", in)
		if err != nil || len(refused) != 1 {
			t.Errorf("%s: %+v, %v: want one refusal", what, refused, err)
		}
	}
	who := p.device.as("s-analyst", "")
	if got := p.device.list(who); len(got) != 0 {
		t.Errorf("the device holds %v", got)
	}
	if refused, err := p.device.Apply(context.Background(), "home", received(t, items)); err != nil || len(refused) != 0 {
		t.Errorf("the entry as it is: %+v, %v", refused, err)
	}
	if got := p.device.get(who, "orders"); got != "advance at dawn" {
		t.Errorf("got %q", got)
	}
}

func TestAVersionFromTheFutureIsNotTakenAndMovesNoClock(t *testing.T) {
	var ahead, here hands
	ahead.now.Store(time.Now().Add(6 * time.Minute).UnixNano())
	p := pair{open(t, func(o *Options) { o.Name = "home"; o.Clock = ahead.clock }), open(t, func(o *Options) { o.Name = "device"; withClock(&here)(o) })}
	p.join(p.home, p.device, "SECRET")
	p.home.put(p.home.as("s-analyst", ""), "orders", "advance", "")
	_, refused := carry(t, p.home, p.device)
	if len(refused) != 1 || refused[0].Rule != "clock-ahead (4.4)" || !refused[0].Later {
		t.Fatalf("refused %+v", refused)
	}
	if v := p.device.put(p.device.as("s-analyst", ""), "mine", "x", ""); v.Modified.After(here.clock().Add(time.Second)) {
		t.Errorf("the device's clock moved to %v", v.Modified)
	}
}

func TestARemovalReachesWhoComesBackLateAndNothingIsResurrected(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	who := p.home.as("s-analyst", "")
	v := p.home.put(who, "orders", "advance", "")
	carry(t, p.home, p.device)
	if err := p.home.del(who, "orders", v.ID); err != nil {
		t.Fatal(err)
	}
	// The device, which has not heard of it, is asked for everything anew.
	if err := p.device.Forget(context.Background(), "home"); err != nil {
		t.Fatal(err)
	}
	carry(t, p.device, p.home)
	if got := p.home.get(who, "orders"); got != "" {
		t.Errorf("the removed version came back: %q", got)
	}
	carry(t, p.home, p.device)
	if got := p.device.get(p.device.as("s-analyst", ""), "orders"); got != "" {
		t.Errorf("the device still has %q", got)
	}
}

func TestAWriteAfterASyncIsTheNewestOnEveryNode(t *testing.T) {
	for _, crash := range []bool{false, true} {
		var fast, slow hands
		p := pair{open(t, func(o *Options) { o.Name = "home"; withClock(&fast)(o) }), open(t, func(o *Options) { o.Name = "device"; withClock(&slow)(o) })}
		p.join(p.home, p.device, "SECRET")
		fast.add(4 * time.Minute) // within what is taken
		p.home.put(p.home.as("s-analyst", ""), "orders", "first", "")
		carry(t, p.home, p.device)
		if crash { // what it observed must outlive one
			p.device.o.Links = []redoubt.Link{(*p.device.links.table.Load())["home"]}
			p.device.restart(true)
		}
		p.device.put(p.device.as("s-analyst", ""), "orders", "second", "")
		carry(t, p.device, p.home)
		for _, w := range []*world{p.home, p.device} {
			if got := w.get(w.as("s-analyst", ""), "orders"); got != "second" {
				t.Errorf("crash %v: at %s orders is %q, want what was written last", crash, w.name, got)
			}
		}
	}
}

func TestVersionsPassThroughAThirdNode(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	other := open(t, func(o *Options) { o.Name = "other" })
	p.join(p.home, other, "SECRET")
	who := p.device.as("s-analyst", "")
	v := p.device.put(who, "sighting", "tracks", "")
	carry(t, p.device, p.home)
	atHome := p.home.as("s-analyst", "")
	tags := []redoubt.Tag{{Key: "seen", Value: "yes"}}
	if _, err := p.home.AlterObject(context.Background(), atHome, redoubt.AlterObject{Name: named("sighting"), Tags: &tags}); err != nil {
		t.Fatal(err)
	}
	// other knows the device's key, as the home would have told it.
	l := (*p.device.links.table.Load())["home"]
	other.link(nil, redoubt.Link{Peer: "device", Key: p.device.links.key, Bound: l.Bound})
	if _, refused := carry(t, p.home, other); len(refused) != 0 {
		t.Fatalf("refused %+v", refused)
	}
	carry(t, p.home, p.device)
	want := p.home.picture(atHome)
	for _, w := range []*world{p.device, other} {
		if got := w.picture(w.as("s-analyst", "")); !slices.Equal(got, want) || len(got) != 1 {
			t.Errorf("%s shows %v, want %v", w.name, got, want)
		}
	}
	_ = v
}

func TestAConflictIsToldOnBothSidesAndSettledOnBoth(t *testing.T) {
	ctx := context.Background()
	for _, settleAt := range []int{0, 1} {
		p := openPair(t, "SECRET", nil)
		sides := []*world{p.home, p.device}
		who := []redoubt.Credential{p.home.as("s-analyst", ""), p.device.as("s-analyst", "")}
		exchange := func() {
			for range 2 {
				carry(t, p.home, p.device)
				carry(t, p.device, p.home)
			}
		}
		conflicts := func(i int) []redoubt.NameConflict {
			t.Helper()
			all, err := sides[i].Conflicts(ctx, who[i])
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		p.home.put(who[0], "plan", "first", "")
		p.home.put(who[0], "calm", "no conflict", "")
		exchange()
		p.device.put(who[1], "calm", "built on the first", "")
		p.home.put(who[0], "plan", "from home", "")
		p.device.put(who[1], "plan", "from the device", "")
		p.device.put(who[1], "plan", "from the device, later", "")
		exchange()
		for i, w := range sides {
			c := conflicts(i)
			if len(c) != 1 || c[0].Name.Key != "plan" || len(c[0].Versions) != 2 || c[0].Versions[0].Maker == c[0].Versions[1].Maker {
				t.Fatalf("%s tells of %+v", w.name, c)
			}
			if got := w.get(who[i], "plan"); got != "from the device, later" {
				t.Errorf("at %s plan is %q, want the newest", w.name, got)
			}
			if low, err := w.Conflicts(ctx, w.as("u-analyst", "")); err != nil || len(low) != 0 {
				t.Errorf("who may not see the versions is told of %+v (%v)", low, err)
			}
		}
		keep := conflicts(settleAt)[0].Versions[1] // the older one
		w := sides[settleAt]
		if _, err := w.ResolveConflict(ctx, who[settleAt], named("calm"), ""); redoubt.KindOf(err) != redoubt.NotFound {
			t.Errorf("what is no conflict was resolved: %v", err)
		}
		if _, err := w.ResolveConflict(ctx, w.as("u-analyst", ""), named("plan"), ""); redoubt.KindOf(err) != redoubt.NotFound {
			t.Errorf("who does not see it was answered %v", err)
		}
		if _, err := w.ResolveConflict(ctx, who[settleAt], named("plan"), keep.ID); err != nil {
			t.Fatal(err)
		}
		exchange()
		for i, w := range sides {
			if c := conflicts(i); len(c) != 0 {
				t.Errorf("after it was settled at %s, %s still tells of %+v", sides[settleAt].name, w.name, c)
			}
			if got := w.get(who[i], "plan"); got != "from home" {
				t.Errorf("at %s plan is %q, want what was kept", w.name, got)
			}
			if got := len(w.picture(who[i])); got != 7 {
				t.Errorf("%s shows %d versions, want all seven", w.name, got)
			}
		}
	}
}

// TestNodesConverge lets random people write, delete, tag and remove at three nodes that exchange now and then, over
// links that any may lose the memory of, and then compares everything that anybody can see.
func TestNodesConverge(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := openPair(t, "SECRET", nil)
		third := open(t, func(o *Options) { o.Name = "third" })
		p.join(p.home, third, "SECRET")
		p.join(p.device, third, "SECRET")
		all := []*world{p.home, p.device, third}
		subjects := []redoubt.SubjectName{"s-analyst", "u-analyst", "gbr-liaison"}
		who := map[string]redoubt.Credential{}
		for _, w := range all {
			for _, s := range subjects {
				who[string(w.name)+string(s)] = w.as(s, "")
			}
		}
		for step := range rapid.IntRange(1, 25).Draw(r, "steps") {
			w := rapid.SampledFrom(all).Draw(r, "node")
			c := who[string(w.name)+string(rapid.SampledFrom(subjects).Draw(r, "subject"))]
			key := rapid.SampledFrom([]string{"a", "b"}).Draw(r, "key")
			switch rapid.IntRange(0, 6).Draw(r, "what") {
			case 0, 1:
				w.put(c, key, fmt.Sprint(step), "")
			case 2:
				if err := w.del(c, key, ""); err != nil {
					r.Fatal(err)
				}
			case 3:
				w.alterAny(r, c, key, step)
			case 4:
				other := rapid.SampledFrom(all).Draw(r, "peer")
				if other != w {
					carry(t, w, other)
				}
			case 5:
				w.removeAny(r, c, key)
			case 6:
				other := rapid.SampledFrom(all).Draw(r, "lost")
				if other != w {
					if err := w.Forget(context.Background(), other.name); err != nil {
						r.Fatal(err)
					}
				}
			}
		}
		for moved := 1; moved > 0; {
			moved = 0
			for _, a := range all {
				for _, b := range all {
					if a != b {
						_, refused := carry(t, a, b)
						if len(refused) > 0 {
							r.Fatalf("refused %+v", refused)
						}
					}
				}
			}
			for _, a := range all { // until a round in which nobody's journal grew
				for _, b := range all {
					if a != b {
						n, _ := carry(t, a, b)
						moved += n
					}
				}
			}
		}
		for _, w := range all {
			w.charges()
			for _, set := range p.home.sets.all() {
				here, err := w.sets.of(context.Background(), set.label)
				if err != nil {
					r.Fatal(err)
				}
				if a, b := set.charged.Load(), here.charged.Load(); a != b {
					r.Fatalf("%s is charged %d at home and %d at %s for the same versions", set.name, a, b, w.name)
				}
			}
		}
		for _, s := range subjects {
			want := p.home.picture(who["home"+string(s)])
			for _, w := range all[1:] {
				if got := w.picture(who[string(w.name)+string(s)]); !slices.Equal(got, want) {
					r.Fatalf("%s sees at %s\n%q\nand at home\n%q", s, w.name, got, want)
				}
			}
		}
	})
}

// alterAny tags what the subject sees, if it may.
func (w *world) alterAny(r *rapid.T, who redoubt.Credential, key string, step int) {
	tags := []redoubt.Tag{{Key: "step", Value: fmt.Sprint(step)}}
	_, err := w.AlterObject(context.Background(), who, redoubt.AlterObject{Name: named(key), Tags: &tags})
	if k := redoubt.KindOf(err); err != nil && k != redoubt.NotFound && k != redoubt.Denied && k != redoubt.MethodNotAllowed {
		r.Fatal(err)
	}
}

// removeAny removes a version that the subject sees, if it may.
func (w *world) removeAny(r *rapid.T, who redoubt.Credential, key string) {
	page, err := w.ListVersions(context.Background(), who, redoubt.ListVersions{Bucket: "reports", Prefix: key, Max: 100})
	if err != nil {
		r.Fatal(err)
	}
	if len(page.Versions) == 0 {
		return
	}
	v := rapid.SampledFrom(page.Versions).Draw(r, "version")
	if err := w.del(who, key, v.ID); err != nil && redoubt.KindOf(err) != redoubt.Denied {
		r.Fatal(err)
	}
}

func TestJournalEntriesComeBackExactly(t *testing.T) {
	e := redoubt.JournalEntry{Kind: redoubt.EntryVersion, Label: "USA@1 SECRET", Made: "USA@1 UNCLASSIFIED", Maker: "home", Author: "s-analyst",
		Name: redoubt.ObjectName{Bucket: "reports", Key: "a/b"}, SizeBytes: 1 << 40, PartSizes: []int64{1 << 39, 1 << 39}, MD5: "0123456789abcdef0123456789abcdef-2",
		Attributes: redoubt.Attributes{ContentType: "text/plain", Precedence: "flash", Meta: map[string]string{"b": "2", "a": "1"}},
		Checksums:  redoubt.Checksums{CRC32C: "AAAA", Composite: true}, Tags: []redoubt.Tag{{Key: "k", Value: "v"}},
		Retention: redoubt.Retention{Mode: "GOVERNANCE", Until: time.Unix(1_900_000_000, 0).UTC()}, Hold: true}
	rand.Read(e.Stamp[:])
	rand.Read(e.Base[:])
	rand.Read(e.Content[:])
	whole, err := e.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var got redoubt.JournalEntry
	if err := got.UnmarshalBinary(whole); err != nil || fmt.Sprint(got) != fmt.Sprint(e) {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range whole {
		if err := got.UnmarshalBinary(whole[:n]); err == nil {
			t.Errorf("the first %d bytes were taken for an entry", n)
		}
	}
	if err := got.UnmarshalBinary(append(whole, 0)); err == nil {
		t.Error("a trailing byte was taken")
	}
}

func TestWhatIsTheLatestAgainTravelsWhenTheNewerIsRemoved(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	sub := []redoubt.Subscription{{Bucket: "reports", In: true, Out: true, Latest: true}}
	p.join(p.home, p.device, "SECRET", sub...)
	l := p.device.Links()["home"]
	l.Subscriptions = sub
	p.device.link(p.home, l)
	for _, from := range []*world{p.device, p.home} {
		who, key := from.as("s-analyst", ""), "track-"+string(from.name)
		both := func() {
			for range 2 {
				carry(t, p.device, p.home)
				carry(t, p.home, p.device)
			}
		}
		both() // each knows what the other has
		from.put(who, key, "first", "")
		v := from.put(who, key, "second", "")
		both()
		if err := from.del(who, key, v.ID); err != nil {
			t.Fatal(err)
		}
		both()
		for _, w := range []*world{p.device, p.home} {
			if got := w.get(w.as("s-analyst", ""), key); got != "first" {
				t.Errorf("%s has %q of %s, want what is the latest again", w.name, got, key)
			}
		}
	}
}

func TestMemoryForContentIsOfTheLeastClassThatHoldsIt(t *testing.T) {
	for size, want := range map[int64]int{0: -1, keptLeast / 2: -1, keptLeast/2 + 1: 0, keptLeast: 0, keptLeast + 1: 1, 64 << 10: 2, keptContent/2 + 1: keptClasses - 1, keptContent: keptClasses - 1} {
		if got := keptClass(size); got != want {
			t.Errorf("%d bytes: class %d, want %d", size, got, want)
		}
		if b, release := keptBuffer(size); int64(len(b)) != size || (release == nil) != (want < 0) || want >= 0 && cap(b) != keptLeast<<want {
			t.Errorf("%d bytes of %d, given back: %v", len(b), cap(b), release != nil)
		}
	}
}
