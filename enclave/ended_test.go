package enclave

import (
	"context"
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
)

const shared = "SECRET//REL TO USA, GBR"

// said is an entry as a captured device signs it: it keeps to nothing but the form.
func (w *world) said(set *labelSet, x redoubt.JournalEntry) redoubt.Received {
	w.t.Helper()
	if x.Stamp == (redoubt.Stamp{}) {
		id, err := w.newID(context.Background(), set, set)
		if err != nil {
			w.t.Fatal(err)
		}
		x.Stamp = redoubt.Stamp(id)
	}
	x.Maker, x.Label, x.Made = w.name, set.name, set.name
	b, err := x.MarshalBinary()
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := redoubt.SealBatch(w.name, [][]byte{b}, w.links.sign)
	if err != nil {
		w.t.Fatal(err)
	}
	return redoubt.Received{Entry: x, Custody: c[0]}
}

// stamp is that of a version that is held.
func (w *world) stamp(marking, key string, id redoubt.VersionID) redoubt.Stamp {
	w.t.Helper()
	f, err := w.byID(w.engine, (*w.buckets.Load())["reports"], w.set(marking).label, key, id)
	if err != nil || f.rec == nil {
		w.t.Fatal(f, err)
	}
	return redoubt.Stamp(f.rec.id)
}

// openSpeaking is openPatrol with a patrol that also sends to its home.
func openSpeaking(t *testing.T) (p pair, patrol *world) {
	t.Helper()
	p, patrol, _ = openPatrol(t)
	d := p.home.links.declared["patrol"]
	d.Carries = nil
	p.home.links.declared["patrol"] = d
	p.home.declaredAnew()
	p.device.keys["s-analyst"] = p.home.keys["s-analyst"] // of whom the home will have told
	return p, patrol
}

// declaredAnew makes effective what a test declares.
func (w *world) declaredAnew() {
	w.t.Helper()
	w.links.deviceMu.Lock()
	defer w.links.deviceMu.Unlock()
	if err := w.relink(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// refusedBy holds refusals against how many there must be, all of one rule and for good.
func refusedBy(t *testing.T, no []redoubt.Refusal, n int, rule string) {
	t.Helper()
	if len(no) != n {
		t.Errorf("%d are refused, want %d: %+v", len(no), n, no)
	}
	for _, r := range no {
		if r.Rule != rule || r.Later {
			t.Errorf("refused %+v, want it by %s", r, rule)
		}
	}
}

func TestADeviceThatHasEndedSpeaksNoMoreByWhateverRoad(t *testing.T) {
	ctx := context.Background()
	for what, end := range map[string]func(p pair){
		"revoked": func(p pair) {
			if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "patrol", false, false, "captured"); err != nil {
				t.Fatal(err)
			}
		},
		"wiped": func(p pair) {
			if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "patrol", true, false, "lost"); err != nil {
				t.Fatal(err)
			}
			if err := p.home.DeviceWiped(ctx, "patrol"); err != nil {
				t.Fatal(err)
			}
		},
		"not declared any more": func(p pair) {
			delete(p.home.links.declared, "patrol") // the home was started with an estate without it
			p.home.declaredAnew()
		},
	} {
		t.Run(what, func(t *testing.T) {
			p, patrol, clock := openPatrol(t)
			low, atHome := patrol.as("s-analyst", shared), p.home.as("s-analyst", shared)
			v := patrol.put(low, "sighting", "tracks", "")
			before := time.Unix(0, clock.now.Load())
			carry(t, patrol, p.device)
			if _, no := carry(t, p.device, p.home); len(no) != 0 {
				t.Fatalf("refused %+v", no)
			}
			held := p.home.picture(atHome)
			end(p)
			of := patrol.stamp(shared, "sighting", v.ID)
			if err := patrol.del(low, "sighting", v.ID); err != nil {
				t.Fatal(err)
			}
			patrol.put(low, "forged", "lies", "")
			carry(t, patrol, p.device) // which has not heard of it
			_, no := carry(t, p.device, p.home)
			refusedBy(t, no, 2, ruleEnded)
			// It may put what it says before its end.
			set, early := patrol.set(shared), before.Add(-time.Hour)
			stamp := redoubt.Stamp(makeVersionID(early.UnixNano(), makerOf("patrol"), set.tag))
			no, err := p.home.Apply(ctx, "device", []redoubt.Received{
				patrol.said(set, redoubt.JournalEntry{Kind: redoubt.EntryAlteration, Stamp: stamp, Of: of, Name: named("sighting")})})
			if err != nil {
				t.Fatal(err)
			}
			refusedBy(t, no, 1, ruleEnded)
			if got := p.home.picture(p.home.as("s-analyst", shared)); !slices.Equal(got, held) {
				t.Errorf("the home shows %v, want what was there before: %v", got, held)
			}
		})
	}
}

func TestADeviceThatIsToBeWipedHandsOverByItsOwnLinkAlone(t *testing.T) {
	ctx := context.Background()
	p, patrol := openSpeaking(t)
	low := patrol.as("s-analyst", shared)
	patrol.put(low, "first", "tracks", "")
	carry(t, patrol, p.device)
	if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "patrol", true, false, "sold"); err != nil {
		t.Fatal(err)
	}
	_, no := carry(t, p.device, p.home)
	refusedBy(t, no, 1, ruleEnded)
	if _, no := carry(t, patrol, p.home); len(no) != 0 {
		t.Errorf("what it hands over is refused: %+v", no)
	}
	if got := p.home.list(p.home.as("s-analyst", shared)); !slices.Equal(got, []string{"first"}) {
		t.Errorf("the home lists %v", got)
	}
}

func TestWhatIsSignedWithTheKeyOfAnEnrolmentThatEndedIsNotTaken(t *testing.T) {
	ctx := context.Background()
	p, patrol := openSpeaking(t)
	low := patrol.as("s-analyst", shared)
	patrol.put(low, "old", "by the old key", "")
	carry(t, patrol, p.device)
	if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "patrol", false, false, "captured"); err != nil {
		t.Fatal(err)
	}
	o := patrol.o
	again := open(t, func(n *Options) { n.Name, n.Clock, n.Links, n.Ceiling = "patrol", o.Clock, o.Links, o.Ceiling })
	inv, err := p.home.InviteDevice(ctx, p.home.as("officer", ""), "patrol")
	if err == nil {
		_, err = p.home.EnrolDevice(ctx, again.enrolRequest(inv.Token))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, no := carry(t, p.device, p.home)
	refusedBy(t, no, 1, ruleEnded)
	again.put(again.as("s-analyst", shared), "new", "by the new one", "")
	if _, no := carry(t, again, p.home); len(no) != 0 {
		t.Errorf("refused %+v", no)
	}
}

func TestADeviceThatHeardOfAnEndTakesThatOnesWorkFromItsHomeAlone(t *testing.T) {
	ctx := context.Background()
	p, patrol := openSpeaking(t)
	patrol.put(patrol.as("s-analyst", shared), "sighting", "tracks", "")
	carry(t, patrol, p.home)
	stale := p.home.Makers()
	if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "patrol", false, false, "captured"); err != nil {
		t.Fatal(err)
	}
	p.device.SetMakers(p.home.Makers())
	p.device.SetMakers(stale) // an older word that comes late
	patrol.put(patrol.as("s-analyst", shared), "forged", "lies", "")
	_, no := carry(t, patrol, p.device)
	refusedBy(t, no, 2, ruleEnded)
	if _, no := carry(t, p.home, p.device); len(no) != 0 {
		t.Errorf("what the home passes on is refused: %+v", no)
	}
	if got := p.device.list(p.device.as("s-analyst", shared)); !slices.Equal(got, []string{"sighting"}) {
		t.Errorf("the device lists %v", got)
	}
}

func TestADeviceThatTheEstateDropsDoesNotSpeakForAll(t *testing.T) {
	ctx := context.Background()
	p, patrol, _ := openPatrol(t)
	v := p.home.put(p.home.as("s-analyst", shared), "plan", "the plan", "")
	of := p.home.stamp(shared, "plan", v.ID)
	patrol.put(patrol.as("s-analyst", shared), "any", "to have the set", "")
	for _, declared := range []bool{true, false} {
		if !declared {
			delete(p.home.links.declared, "patrol")
			p.home.declaredAnew()
		}
		if p.home.speaksForAll("patrol") || p.home.speaksForAll("absent") || p.home.speaksForAll("nobody") || !p.home.speaksForAll("home") {
			t.Errorf("declared %v: who speaks for all is not the home alone", declared)
		}
		no, err := p.home.Apply(ctx, "device", []redoubt.Received{patrol.said(patrol.set(shared), redoubt.JournalEntry{Kind: redoubt.EntryRemoval, Of: of, Name: named("plan")})})
		if err != nil || len(no) != 1 {
			t.Errorf("declared %v: a removal of the home's version: %+v, %v", declared, no, err)
		}
	}
	if got := p.home.picture(p.home.as("s-analyst", shared)); !strings.Contains(strings.Join(got, "\n"), "plan") {
		t.Errorf("the home shows %v", got)
	}
	if keys := p.home.Makers()[endedMakers]; !slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return k.Equal(patrol.links.key) }) {
		t.Error("devices are not told that its key has ended")
	}
}
