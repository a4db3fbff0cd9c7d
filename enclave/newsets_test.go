package enclave

import (
	"context"
	"fmt"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

// deletion is an entry of a deletion at a label, by a device that need not have the set; a wrong stamp is one that it cannot have given.
func (w *world) deletion(l label.Label, at time.Time, wrong bool) redoubt.Received {
	w.t.Helper()
	text, err := l.MarshalText()
	if err != nil {
		w.t.Fatal(err)
	}
	tag, _ := w.sets.tagOf(l)
	maker := makerOf(w.name)
	if wrong {
		maker++
	}
	return w.said(&labelSet{name: string(text)}, redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: redoubt.Stamp(makeVersionID(at.UnixNano(), maker, tag)),
		Name: named("x"), Marker: true, Author: "s-analyst"})
}

// audiences are n labels at SECRET.
func audiences(t *testing.T, w *world, n int) (all []label.Label) {
	t.Helper()
	nations := []string{"AUS", "CAN", "NZL", "FRA", "DEU", "GBR", "ITA", "NLD", "NOR"}
	for bits := 1; bits < 1<<len(nations) && len(all) < n; bits++ {
		text := "SECRET//REL TO USA"
		for i, nation := range nations {
			if bits>>i&1 == 1 {
				text += ", " + nation
			}
		}
		l, err := w.policy.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if w.sets.table.Load().byLabel[l] == nil {
			all = append(all, l)
		}
	}
	if len(all) < n {
		t.Fatalf("%d labels, want %d", len(all), n)
	}
	return all
}

func TestADeviceHasFewLabelSetsMadeADayAndNoneByWhatIsRefused(t *testing.T) {
	ctx := context.Background()
	p, _, clock := openPatrol(t)
	labels := audiences(t, p.home, maxNewSets+1)
	apply := func(l label.Label, wrong bool) []redoubt.Refusal {
		t.Helper()
		no, err := p.home.Apply(ctx, "device", []redoubt.Received{p.device.deletion(l, clock.clock(), wrong)})
		if err != nil {
			t.Fatal(err)
		}
		return no
	}
	before := len(p.home.sets.all())
	for _, l := range labels {
		refusedBy(t, apply(l, true), 1, ruleStamp)
	}
	if n := len(p.home.sets.all()); n != before {
		t.Errorf("what is refused made %d sets", n-before)
	}
	for i, l := range labels[:maxNewSets] {
		if no := apply(l, false); len(no) != 0 {
			t.Fatalf("set %d of %d is refused: %+v", i+1, maxNewSets, no)
		}
	}
	last := labels[maxNewSets]
	if no := apply(last, false); len(no) != 1 || no[0].Rule != ruleSets || !no[0].Later || no[0].Kind != redoubt.QuotaExceeded {
		t.Errorf("one set more: %+v, want it refused for now", no)
	}
	clock.add(time.Second)
	if no := apply(labels[0], false); len(no) != 0 {
		t.Errorf("more of a set that is there: %+v", no)
	}
	clock.add(24 * time.Hour)
	if no := apply(last, false); len(no) != 0 {
		t.Errorf("the day after: %+v", no)
	}
	if n := len(p.home.sets.all()); n != before+maxNewSets+1 {
		t.Errorf("%d sets were made, want %d", n-before, maxNewSets+1)
	}
}

func TestALabelWhoseTagAnotherSetHasIsNotTaken(t *testing.T) {
	p, _, clock := openPatrol(t)
	l := audiences(t, p.home, 1)[0]
	tag, free := p.home.sets.tagOf(l)
	if !free {
		t.Fatal("it is taken already")
	}
	grown := newSetTable(p.home.sets.table.Load())
	grown.byTag[tag] = p.home.set("SECRET")
	p.home.sets.table.Store(grown)
	no, err := p.home.Apply(context.Background(), "device", []redoubt.Received{p.device.deletion(l, clock.clock(), false)})
	if err != nil {
		t.Fatal(err)
	}
	refusedBy(t, no, 1, ruleStamp)
	if p.home.sets.table.Load().byLabel[l] != nil {
		t.Error("the set was made")
	}
}

func TestWhatArrivesAtAHigherLabelPushesNothingOutBelow(t *testing.T) {
	h := new(hands)
	a := newArriving(t, withClock(h))
	ctx := context.Background()
	a.device.put(a.device.as("s-analyst", shared), "low", string(a.content), "")
	low := a.device.set(shared).name
	refs, _, err := a.device.Since(ctx, "home", low, 0, 2000)
	if err != nil || len(refs) == 0 {
		t.Fatal(refs, err)
	}
	item := fetch(t, a.device, a.home, low, refs[len(refs)-1:])[0]
	if no, err := a.home.Keep(ctx, "device", redoubt.Received{Entry: item.Entry, Custody: item.Custody}, a.content[:50_000]); err != nil || no != nil {
		t.Fatal(no, err)
	}
	for i := range 2 * redoubt.MaxArrivals {
		a.next(fmt.Sprint("k", i))
		h.add(time.Second)
		a.keep(50_000)
	}
	left := a.left()
	if len(left) != 1+redoubt.MaxArrivals {
		t.Errorf("%d are kept, want those of both labels", len(left))
	}
	if left[0].Set != low { // a session tells of the first few
		t.Errorf("%s is told of first, want %s", left[0].Set, low)
	}
}

// TestAPartnerHasFewLabelSetsMadeADay: what is over the limit is taken the day after, and more of what is there at once.
func TestAPartnerHasFewLabelSetsMadeADay(t *testing.T) {
	labels := audiences(t, open(t, nil), maxPartnerSets+1)
	n := 0
	a := openAlly(t, func(p *Agreement) {
		p.Expires = p.Expires.Add(48 * time.Hour)
		bound, secret := p.Takes.Bound, parsed(t, "SECRET//NOFORN")  // which all of them lie within
		p.Takes.Convert = func(l label.Label) (label.Label, error) { // every version at another label here
			if l == bound {
				return secret, nil
			}
			return labels[n], nil
		}
	})
	sends := func(key string) (string, error) {
		return a.sends(a.key, a.says(key, "hello", "SECRET//REL TO GBR, FRA, USA"), "hello")
	}
	before := len(a.sets.all())
	for n = range maxPartnerSets {
		if rule, err := sends(fmt.Sprint(n)); rule != "" || err != nil {
			t.Fatalf("set %d of %d: %s %v", n+1, maxPartnerSets, rule, err)
		}
	}
	n = maxPartnerSets
	if rule, err := sends("last"); rule != ruleSets || err != nil {
		t.Errorf("one set more: %q %v, want it refused", rule, err)
	}
	n = 0
	if rule, err := sends("again"); rule != "" || err != nil {
		t.Errorf("more of a set that is there: %s %v", rule, err)
	}
	if made := len(a.sets.all()) - before; made != maxPartnerSets {
		t.Errorf("%d sets were made, want %d", made, maxPartnerSets)
	}
	n = maxPartnerSets
	a.time.add(24 * time.Hour)
	if rule, err := sends("last"); rule != "" || err != nil {
		t.Errorf("the day after: %s %v", rule, err)
	}
}
