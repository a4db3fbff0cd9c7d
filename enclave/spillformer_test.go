package enclave

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// wantUnproven says that a report names a node as one that may have a copy, and is not proven.
func wantUnproven(t *testing.T, r redoubt.SpillReport, peer redoubt.NodeName) {
	t.Helper()
	if r.Proven {
		t.Errorf("it is proven: %+v", r)
	}
	for _, p := range r.Peers {
		if p.Node == peer && p.Why != "" && p.Had+p.May > p.Gone {
			return
		}
	}
	t.Errorf("%s is not named as one that may have it: %+v", peer, r.Peers)
}

func TestADeviceThatHasEndedMayHoldASpill(t *testing.T) {
	for what, after := range map[string]func(c *chain){
		"revoked":                         func(c *chain) { c.ends("ts-device", false) },
		"to be wiped":                     func(c *chain) { c.ends("ts-device", true) },
		"a wipe that nobody confirmed":    func(c *chain) { c.ends("ts-device", true); c.ends("ts-device", false) },
		"revoked, and the node restarted": func(c *chain) { c.ends("ts-device", false); c.ts.restart(true) },
	} {
		t.Run(what, func(t *testing.T) {
			c := openChain(t)
			d := c.device("ts-device", c.ts)
			c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
			carry(t, c.ts, d)
			if got := d.in(d.as("ts-analyst", "SECRET"), "reports", "plan"); got != "the plan, dirty" {
				t.Fatalf("the device has %q", got)
			}
			after(c)
			wantUnproven(t, c.spill("", true), "ts-device")
		})
	}
}

// ends ends a device of topsecret's.
func (c *chain) ends(name redoubt.NodeName, wipe bool) {
	c.t.Helper()
	if err := c.ts.EndDevice(context.Background(), c.ts.spillOfficer(), name, wipe, false, "lost"); err != nil {
		c.t.Fatal(err)
	}
}

func TestAPartnerWhoseAgreementIsOverMayHoldASpill(t *testing.T) {
	for what, over := range map[string]func(*ally){
		"ended":   func(a *ally) { _ = a.EndAgreement(context.Background(), a.as("officer", ""), "us-gbr", "over") },
		"expired": func(a *ally) { a.time.add(13 * time.Hour); _ = a.RefreshPartners(context.Background()) },
	} {
		t.Run(what, func(t *testing.T) {
			a := openAlly(t, nil)
			ctx := context.Background()
			a.put(a.as("s-analyst", "SECRET//REL TO USA, GBR"), "shared", "for friends", "")
			err := a.PartnerGiving().HandOver(ctx, a.as(redoubt.SubjectName(gbrGateway), ""), gbrGateway, redoubt.BundleMark{Serial: 1}, redoubt.RaisedBundle{})
			if err != nil {
				t.Fatal(err)
			}
			over(a)
			r, err := a.ReportSpill(ctx, a.spillOfficer(), redoubt.Spill{Name: named("shared"), Reason: "too low", Erase: true})
			if err != nil {
				t.Fatal(err)
			}
			wantUnproven(t, r, gbrGateway)
		})
	}
}

// TestWhatCameOfAPartnerIsNotProvenGone: it is there still.
func TestWhatCameOfAPartnerIsNotProvenGone(t *testing.T) {
	a := openAlly(t, nil)
	if rule, err := a.sends(a.key, a.says("a", "hello", "SECRET//REL TO GBR, USA"), "hello"); rule != "" || err != nil {
		t.Fatal(rule, err)
	}
	r, err := a.ReportSpill(context.Background(), a.spillOfficer(), redoubt.Spill{Name: theirs, Reason: "too low", Erase: true})
	if err != nil {
		t.Fatal(err)
	}
	wantUnproven(t, r, gbrGateway)
}

// TestAnEnrolmentBeforeMayHoldASpill: the device came back with another disk, and acknowledges the erasure.
func TestAnEnrolmentBeforeMayHoldASpill(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
	carry(t, c.ts, d)
	c.ends("ts-device", false)
	c.hands.add(time.Hour)
	d = c.device("ts-device", c.ts)
	r := c.spill("", true)
	carry(t, c.ts, d)
	wantUnproven(t, c.stands(r.ID), "ts-device")
}

// TestADeviceThatWasWipedHoldsNoSpill: nor does one that was never met, or what is newer than the end of its link.
func TestADeviceThatWasWipedHoldsNoSpill(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
	carry(t, c.ts, d)
	c.ends("ts-device", true)
	if err := c.ts.DeviceWiped(context.Background(), "ts-device"); err != nil {
		t.Fatal(err)
	}
	wantSpill(t, c.spill("", true), true, "itself gone")

	c = openChain(t)
	d = c.device("ts-device", c.ts)
	carry(t, c.ts, d)
	c.ends("ts-device", false)
	c.hands.add(time.Hour)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
	wantSpill(t, c.spill("", true), true, "itself gone")
}

func TestADeviceThatIsNotDeclaredAnyMoreMayHoldASpill(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
	carry(t, c.ts, d)
	c.ts.o.Devices = nil
	c.ts.restart(true)
	wantUnproven(t, c.spill("", true), "ts-device")
}

// TestACopyThatDoesNotComeBackIsNotProvenGone: by hand, on a device that is given a bucket and sends nothing of it.
func TestACopyThatDoesNotComeBackIsNotProvenGone(t *testing.T) {
	for what, tt := range map[string]struct {
		carries redoubt.Subscription
		proven  bool
	}{
		"both ways":        {redoubt.Subscription{Bucket: "reports", In: true, Out: true}, true},
		"to the device":    {redoubt.Subscription{Bucket: "reports", In: true}, false},
		"below a prefix":   {redoubt.Subscription{Bucket: "reports", Prefix: "p", In: true, Out: true}, false},
		"the latest alone": {redoubt.Subscription{Bucket: "reports", In: true, Out: true, Latest: true}, false},
	} {
		t.Run(what, func(t *testing.T) {
			c := openChain(t)
			c.carries([]redoubt.Subscription{tt.carries})
			d := c.device("ts-device", c.ts)
			c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
			carry(t, c.ts, d)
			r := c.spill("", true)
			carry(t, c.ts, d)
			if r = c.stands(r.ID); r.Proven != tt.proven || len(r.Peers) != 1 || r.Peers[0].Gone != 1 {
				t.Errorf("proven %v, peers %+v", r.Proven, r.Peers)
			}
		})
	}
}

// carries has the estate say what the devices carry from now on.
func (c *chain) carries(what []redoubt.Subscription) {
	for i := range c.ts.o.Devices {
		c.ts.o.Devices[i].Carries = what
	}
	c.ts.restart(true)
}

// TestADeviceThatCarriesLessNowMayHoldASpill: it is told of no erasure of what it does not carry any more.
func TestADeviceThatCarriesLessNowMayHoldASpill(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
	carry(t, c.ts, d)
	c.carries([]redoubt.Subscription{{Bucket: "imagery", In: true, Out: true}})
	r := c.spill("", true)
	carry(t, c.ts, d)
	wantUnproven(t, c.stands(r.ID), "ts-device")
	c.carries(nil)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "another, dirty", "")
	r = c.spill("", true)
	carry(t, c.ts, d)
	wantSpill(t, c.stands(r.ID), true, "itself gone")
}

// TestWhatADeviceCarriedUnderAnEarlierPolicyMayBeASpill: a marking that the policy has no more keeps nobody from a report.
func TestWhatADeviceCarriedUnderAnEarlierPolicyMayBeASpill(t *testing.T) {
	c := openChain(t)
	d := c.device("ts-device", c.ts)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan, dirty", "")
	carry(t, c.ts, d)
	c.carries([]redoubt.Subscription{{Bucket: "imagery", In: true, Out: true}})
	var all []carriedRecord
	if _, err := c.ts.bundleRecord(carriedKey("ts-device"), &all); err != nil || len(all) != 2 || all[0].Until.IsZero() {
		t.Fatalf("got %v %v, want what was carried before and now", all, err)
	}
	all[0].Ceiling, all[0].Carries = "SECRET//GONE", []redoubt.Subscription{{Bucket: "reports", In: true, Bound: "SECRET//GONE"}}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	b := new(store.Batch)
	b.Set(carriedKey("ts-device"), raw)
	if err := c.ts.engine.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	wantUnproven(t, c.stands(c.spill("", true).ID), "ts-device")
}

// looking tells of what is read of the catalogue.
type looking struct {
	store.Engine
	at func(key []byte)
}

func (l *looking) Get(key []byte) ([]byte, bool, error) {
	l.at(key)
	return l.Engine.Get(key)
}

// TestAReportOfFormerLinksHoldsNoDeviceUp: what devices carried is read with their lock free, so a disk that is slow, or that fails, keeps none from being met.
func TestAReportOfFormerLinksHoldsNoDeviceUp(t *testing.T) {
	p, _ := openSpeaking(t)
	read, held := 0, 0
	engine := p.home.engine
	p.home.engine = &looking{engine, func(key []byte) {
		if !bytes.Equal(key, carriedKey("patrol")) {
			return
		}
		if read++; !p.home.links.deviceMu.TryLock() {
			held++
			return
		}
		p.home.links.deviceMu.Unlock()
	}}
	_, err := p.home.spillLinks()
	p.home.engine = engine
	if err != nil || read == 0 || held > 0 {
		t.Errorf("of %d reads %d were with the lock held: %v", read, held, err)
	}
}
