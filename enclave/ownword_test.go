package enclave

import (
	"context"
	"errors"
	"testing"

	"redoubt"
)

func TestADeviceSpeaksForWhatItMadeAlone(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	atHome, there := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
	homes := p.home.put(atHome, "orders", "advance", "")
	mine := p.device.put(there, "sighting", "tracks", "")
	carry(t, p.home, p.device)
	carry(t, p.device, p.home)
	page, err := p.device.ListVersions(ctx, there, redoubt.ListVersions{Bucket: "reports", Prefix: "orders", Max: 10})
	if err != nil || len(page.Versions) != 1 {
		t.Fatal(page, err)
	}
	tags := []redoubt.Tag{{Key: "seen", Value: "yes"}}
	if err := p.device.del(there, "orders", page.Versions[0].ID); !errors.Is(err, redoubt.Denied) {
		t.Errorf("the device removed what its home made: %v", err)
	}
	if _, err := p.device.AlterObject(ctx, there, redoubt.AlterObject{Name: named("orders"), Tags: &tags}); !errors.Is(err, redoubt.Denied) {
		t.Errorf("the device altered what its home made: %v", err)
	}
	if _, err := p.device.AlterObject(ctx, there, redoubt.AlterObject{Name: named("sighting"), ID: mine.ID, Tags: &tags}); err != nil {
		t.Errorf("the device may not alter what it made: %v", err)
	}
	// One whose software was changed says it all the same, under its own signature.
	f, err := p.device.byID(p.device.engine, (*p.device.buckets.Load())["reports"], there.Working, "orders", page.Versions[0].ID)
	if err != nil || f.rec == nil {
		t.Fatal(err)
	}
	sent := func(kind redoubt.EntryKind, change func(*redoubt.JournalEntry)) []redoubt.Refusal {
		t.Helper()
		x, err := p.device.fateEntry(ctx, kind, (*p.device.buckets.Load())["reports"], f, "orders")
		if err != nil {
			t.Fatal(err)
		}
		change(x)
		b, err := x.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		custody, err := redoubt.SealBatch("device", [][]byte{b}, p.device.links.sign)
		if err != nil {
			t.Fatal(err)
		}
		refused, err := p.home.Apply(ctx, "device", []redoubt.Received{{Entry: *x, Custody: custody[0]}})
		if err != nil {
			t.Fatal(err)
		}
		return refused
	}
	for _, kind := range []redoubt.EntryKind{redoubt.EntryRemoval, redoubt.EntryAlteration} {
		if no := sent(kind, func(*redoubt.JournalEntry) {}); len(no) != 1 || no[0].Rule != ruleOwn || no[0].Later {
			t.Errorf("kind %d of what the home made: %+v, want it refused for good", kind, no)
		}
		own := redoubt.Stamp(f.rec.id)
		copy(own[8:12], []byte{byte(p.device.maker >> 24), byte(p.device.maker >> 16), byte(p.device.maker >> 8), byte(p.device.maker)})
		if no := sent(kind, func(x *redoubt.JournalEntry) { x.Of = own; x.Of[12] ^= 1 }); len(no) != 1 || no[0].Rule != ruleStamp {
			t.Errorf("kind %d of a version of another label set: %+v", kind, no)
		}
		var id versionID
		page, err := p.device.ListVersions(ctx, there, redoubt.ListVersions{Bucket: "reports", Prefix: "sighting", Max: 10})
		if err != nil || len(page.Versions) != 1 {
			t.Fatal(page, err)
		}
		id, _ = p.device.ids.parse(string(page.Versions[0].ID))
		if no := sent(kind, func(x *redoubt.JournalEntry) { x.Of = redoubt.Stamp(id) }); len(no) != 1 || no[0].Rule != ruleForm {
			t.Errorf("kind %d of its own version under another's name: %+v, want it refused", kind, no)
		}
	}
	if got := p.home.get(atHome, "orders"); got != "advance" {
		t.Errorf("at home orders is %q", got)
	}
	carry(t, p.device, p.home)
	// The home speaks for all, also for what the device made.
	list, err := p.home.ListVersions(ctx, atHome, redoubt.ListVersions{Bucket: "reports", Prefix: "sighting", Max: 10})
	if err != nil || len(list.Versions) != 1 {
		t.Fatal(list, err)
	}
	o, err := p.home.GetObject(ctx, atHome, redoubt.ReadObject{Name: named("sighting")})
	if err != nil || len(o.Version().Tags) != 1 {
		t.Errorf("what the device altered of its own is not at home: %v", err)
	}
	o.Close()
	if err := p.home.del(atHome, "sighting", list.Versions[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := p.home.del(atHome, "orders", homes.ID); err != nil {
		t.Fatal(err)
	}
	if _, refused := carry(t, p.home, p.device); len(refused) != 0 {
		t.Errorf("refused %+v", refused)
	}
	if got := p.device.list(there); len(got) != 0 {
		t.Errorf("the device still shows %v", got)
	}
}

func TestADeviceThatLostItsStateTakesWhatItMadeBefore(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	p.device.put(p.device.as("s-analyst", ""), "sighting", "tracks", "")
	carry(t, p.device, p.home)
	if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "device", false, false, "lost"); err != nil {
		t.Fatal(err)
	}
	o := p.device.o
	again := open(t, func(n *Options) { n.Name, n.Clock, n.Links, n.People = "device", o.Clock, o.Links, o.People })
	again.keys = p.home.keys
	p.device = again
	p.enrol(t)
	if err := p.home.Forget(ctx, "device"); err != nil {
		t.Fatal(err)
	}
	who := again.as("s-analyst", "")
	if _, refused := carry(t, p.home, again); len(refused) != 1 || !refused[0].Later {
		t.Errorf("before the home told of its old key: refused %+v, want it refused for now", refused)
	}
	again.SetMakers(p.home.Makers())
	if err := p.home.Forget(ctx, "device"); err != nil {
		t.Fatal(err)
	}
	if _, refused := carry(t, p.home, again); len(refused) != 0 {
		t.Errorf("refused %+v", refused)
	}
	if got := again.get(who, "sighting"); got != "tracks" {
		t.Errorf("the device holds %q", got)
	}
}
