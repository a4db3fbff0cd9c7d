package enclave

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"redoubt"
)

// openHome is a home with a declared device, and the device, enrolled.
func openHome(t *testing.T, bound string) (p pair, clock *hands) {
	t.Helper()
	clock = new(hands)
	home := open(t, func(o *Options) {
		withClock(clock)(o)
		o.Name = "home"
		l, err := o.Policy.Parse(bound)
		if err != nil {
			t.Fatal(err)
		}
		o.Devices = []DeclaredDevice{{Name: "device", Floor: o.Floor, Ceiling: l, Lease: time.Hour}}
	})
	device := open(t, func(o *Options) {
		o.Clock = clock.clock
		o.Name, o.People = "device", home.o.People
		l, err := o.Policy.Parse(bound)
		if err != nil {
			t.Fatal(err)
		}
		o.Links = []redoubt.Link{{Peer: "home", Key: home.links.key, Bound: l}}
	})
	device.keys = home.keys
	return pair{home, device}, clock
}

// enrolRequest is what the device says, with a token.
func (w *world) enrolRequest(token string) redoubt.EnrolRequest {
	w.t.Helper()
	return w.signEnrol(redoubt.EnrolRequest{Device: w.name, Token: token, Key: base64.StdEncoding.EncodeToString(w.links.key)})
}

// signEnrol signs what the device says.
func (w *world) signEnrol(req redoubt.EnrolRequest) redoubt.EnrolRequest {
	w.t.Helper()
	signer, err := w.keyring.Signer()
	if err != nil {
		w.t.Fatal(err)
	}
	sig, err := signer.Sign(nil, redoubt.EnrolMessage(req), crypto.Hash(0))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Signature = base64.StdEncoding.EncodeToString(sig)
	return req
}

func (p pair) enrol(t *testing.T) redoubt.Enrolment {
	t.Helper()
	inv, err := p.home.InviteDevice(context.Background(), p.home.as("officer", ""), "device")
	if err != nil {
		t.Fatal(err)
	}
	given, err := p.home.EnrolDevice(context.Background(), p.device.enrolRequest(inv.Token))
	if err != nil {
		t.Fatal(err)
	}
	return given
}

func TestATokenEnrolsOneDeviceOnce(t *testing.T) {
	ctx := context.Background()
	p, clock := openHome(t, "SECRET")
	officer := p.home.as("officer", "")
	denied := func(what string, req redoubt.EnrolRequest) {
		t.Helper()
		if _, err := p.home.EnrolDevice(ctx, req); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s: %v, want it denied", what, err)
		}
	}
	denied("no invitation", p.device.enrolRequest(""))
	old, err := p.home.InviteDevice(ctx, officer, "device")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := p.home.InviteDevice(ctx, officer, "device")
	if err != nil {
		t.Fatal(err)
	}
	denied("an invitation that a newer one replaced", p.device.enrolRequest(old.Token))
	other := p.device.enrolRequest(inv.Token)
	other.Key = base64.StdEncoding.EncodeToString(p.home.keys["officer"].Public().(ed25519.PublicKey))
	denied("a key that it does not hold", other)
	posing := p.device.enrolRequest(inv.Token)
	posing.Device = "another"
	denied("another device's name", posing)
	if _, err := p.home.InviteDevice(ctx, officer, "another"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("a device that is not declared was invited: %v", err)
	}
	if _, err := p.home.InviteDevice(ctx, p.home.as("s-analyst", ""), "device"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("an analyst invited a device: %v", err)
	}
	given, err := p.home.EnrolDevice(ctx, p.device.enrolRequest(inv.Token))
	if err != nil {
		t.Fatal(err)
	}
	if given.Lease.Life() != time.Hour || len(given.IDKeys) != 64 {
		t.Errorf("got a lease of %v and %d bytes of keys", given.Lease.Life(), len(given.IDKeys))
	}
	// The answer may be lost: the same request again is given the same one, over a restart too.
	p.home.restart(true)
	officer = p.home.as("officer", "")
	clock.add(time.Minute)
	again, err := p.home.EnrolDevice(ctx, p.device.enrolRequest(inv.Token))
	if err != nil || again.Lease != given.Lease || string(again.IDKeys) != string(given.IDKeys) {
		t.Errorf("the same request again: %+v, %v; want the lease of the first", again.Lease, err)
	}
	taken := p.device.enrolRequest(inv.Token)
	taken.Key = base64.StdEncoding.EncodeToString(p.home.keys["officer"].Public().(ed25519.PublicKey))
	taken.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(p.home.keys["officer"], redoubt.EnrolMessage(taken)))
	denied("the same token with another key", taken)
	if _, err := p.home.InviteDevice(ctx, officer, "device"); !errors.Is(err, redoubt.Conflict) {
		t.Errorf("an enrolled device was invited: %v", err)
	}
	if err := p.home.EndDevice(ctx, officer, "device", false, false, "lost"); err != nil {
		t.Fatal(err)
	}
	inv, err = p.home.InviteDevice(ctx, officer, "device")
	if err != nil {
		t.Fatal(err)
	}
	denied("the key of an enrolment that ended", p.device.enrolRequest(inv.Token))
	clock.add(redoubt.InvitationLife)
	denied("a token past its time", p.device.enrolRequest(inv.Token))
}

func TestTheAnswerToAnEnrolmentIsGivenAgainUntilItsInvitationEnds(t *testing.T) {
	ctx := context.Background()
	p, clock := openHome(t, "SECRET")
	inv, err := p.home.InviteDevice(ctx, p.home.as("officer", ""), "device")
	if err != nil {
		t.Fatal(err)
	}
	req := p.device.enrolRequest(inv.Token)
	if _, err := p.home.EnrolDevice(ctx, req); err != nil {
		t.Fatal(err)
	}
	clock.add(redoubt.InvitationLife - 1)
	if _, err := p.home.EnrolDevice(ctx, req); err != nil {
		t.Errorf("before the invitation ends: %v", err)
	}
	clock.add(1)
	_, err = p.home.EnrolDevice(ctx, req)
	want(t, err, redoubt.Denied)
	clock.add(-1)
	if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "device", false, false, "lost"); err != nil {
		t.Fatal(err)
	}
	_, err = p.home.EnrolDevice(ctx, req)
	want(t, err, redoubt.Denied) // one that has ended
}

func TestEachLeaseIsRenewedOnceAtADevicesOwnWord(t *testing.T) {
	ctx := context.Background()
	p, clock := openHome(t, "SECRET")
	first := p.enrol(t).Lease
	ask := func(l redoubt.Lease) (redoubt.Lease, error) {
		return p.home.RenewDevice(ctx, p.device.enrolRequest(l.Signature))
	}
	given := func(what string, from redoubt.Lease) redoubt.Lease {
		t.Helper()
		l, err := ask(from)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return l
	}
	_, err := p.home.RenewDevice(ctx, p.device.enrolRequest("no lease at all"))
	want(t, err, redoubt.Denied)
	clock.add(time.Hour)
	second := given("the lease that it enrolled with", first)
	clock.add(time.Minute)
	if l := given("the answer was lost", first); l != second {
		t.Errorf("a request that is sent again makes a lease that ends %v, want %v", l.Expires, second.Expires)
	}
	p.home.restart(true)
	clock.add(time.Hour)
	_, err = ask(first)
	want(t, err, redoubt.Denied) // kept by somebody, and sent when it is of use
	third := given("the next", second)
	// While it is met the home gives leases by itself, and the last ones may not have come.
	clock.add(time.Minute)
	fourth, err := p.home.RenewLease(ctx, "device")
	if err != nil {
		t.Fatal(err)
	}
	clock.add(time.Minute)
	fifth, err := p.home.RenewLease(ctx, "device")
	if err != nil {
		t.Fatal(err)
	}
	if l := given("two were missed", third); l != fifth {
		t.Errorf("got a lease that ends %v, want the last one given, %v", l.Expires, fifth.Expires)
	}
	clock.add(2 * time.Hour)
	sixth := given("one was missed, and has ended", fourth)
	if sixth.Expires != clock.clock().Add(time.Hour).UTC().Truncate(time.Millisecond) {
		t.Errorf("got a lease that ends %v", sixth.Expires)
	}
	clock.add(2 * time.Hour)
	for what, l := range map[string]redoubt.Lease{"the third": third, "the fourth": fourth, "the fifth": fifth} {
		if _, err := ask(l); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s lease gets another after a later one was renewed: %v", what, err)
		}
	}
	if err := p.home.EndDevice(ctx, p.home.as("officer", ""), "device", false, false, "lost"); err != nil {
		t.Fatal(err)
	}
	_, err = ask(sixth)
	want(t, err, redoubt.Denied)
}

func TestAnOrderToWipeThatNobodyConfirmsIsClosedByAnOfficer(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	officer := p.home.as("officer", "")
	state := func() redoubt.Device {
		t.Helper()
		all, err := p.home.Devices(ctx, officer)
		if err != nil || len(all) != 1 {
			t.Fatalf("%d devices, %v", len(all), err)
		}
		return all[0]
	}
	end := func(wipe bool, reason string) {
		t.Helper()
		if err := p.home.EndDevice(ctx, officer, "device", wipe, false, reason); err != nil {
			t.Fatal(err)
		}
	}
	end(true, "end of the exercise")
	if d := state(); d.State != redoubt.DeviceWiping || d.WipeUnheard {
		t.Errorf("ordered: %+v", d)
	}
	end(false, "burnt with the vehicle")
	p.home.restart(true)
	officer = p.home.as("officer", "")
	if d := state(); d.State != redoubt.DeviceRevoked || !d.WipeUnheard || d.Reason != "burnt with the vehicle" {
		t.Errorf("closed: %+v", d)
	}
	if _, err := p.home.Sets(ctx, "device"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("it is met still: %v", err)
	}
	end(true, "it was found")
	if d := state(); d.State != redoubt.DeviceWiping || d.WipeUnheard {
		t.Errorf("ordered again: %+v", d)
	}
	if err := p.home.DeviceWiped(ctx, "device"); err != nil {
		t.Fatal(err)
	}
	end(false, "for the record")
	if d := state(); d.WipeUnheard {
		t.Errorf("one that was confirmed: %+v", d)
	}
}

func TestARevokedDeviceIsMetNoMore(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	who := p.device.as("s-analyst", "")
	p.device.put(who, "sighting", "tracks", "")
	carry(t, p.device, p.home)
	p.device.put(who, "later", "made after", "")
	// An officer at any label ends it at once.
	if err := p.home.EndDevice(ctx, p.home.as("officer", "UNCLASSIFIED"), "device", false, false, "captured"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.home.Sets(ctx, "device"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("the home still tells the device of its sets: %v", err)
	}
	if _, err := p.home.RenewLease(ctx, "device"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("its lease was renewed: %v", err)
	}
	if _, err := p.home.RenewDevice(ctx, p.device.enrolRequest("")); !errors.Is(err, redoubt.Denied) {
		t.Errorf("its lease was renewed at its own word: %v", err)
	}
	if _, err := p.home.Apply(ctx, "device", nil); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("what it sends is still taken: %v", err)
	}
	p.home.restart(false)
	if _, err := p.home.Sets(ctx, "device"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("after a restart the device is met again: %v", err)
	}
	if got := p.home.get(p.home.as("s-analyst", ""), "sighting"); got != "tracks" {
		t.Errorf("what it made before is %q", got)
	}
}

func TestAWipeIsOrderedOnceAndConfirmed(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	p.enrol(t)
	officer := p.home.as("officer", "")
	state := func() string {
		t.Helper()
		all, err := p.home.Devices(ctx, officer)
		if err != nil || len(all) != 1 {
			t.Fatalf("%d devices, %v", len(all), err)
		}
		return all[0].State
	}
	if err := p.home.DeviceWiped(ctx, "device"); err == nil {
		t.Error("a wipe was confirmed that nobody ordered")
	}
	if err := p.home.EndDevice(ctx, officer, "device", true, false, "end of the exercise"); err != nil {
		t.Fatal(err)
	}
	if wipe, now := p.home.WipeOrdered("device"); !wipe || now || state() != redoubt.DeviceWiping {
		t.Errorf("ordered %v, at once %v, state %s", wipe, now, state())
	}
	// Until it is wiped it is met, to hand over its work. Nothing is sent to it any more, and its lease is not renewed.
	p.home.put(p.home.as("s-analyst", ""), "orders", "not for the device", "")
	if sets, err := p.home.Sets(ctx, "device"); err != nil || len(sets) != 0 {
		t.Errorf("a device that is to be wiped is told of %v (%v)", sets, err)
	}
	if _, _, err := p.home.Since(ctx, "device", "USA@1 SECRET", 0, 10); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("it may read the journal: %v", err)
	}
	p.device.put(p.device.as("s-analyst", ""), "last", "work", "")
	carry(t, p.device, p.home)
	if got := p.home.get(p.home.as("s-analyst", ""), "last"); got != "work" {
		t.Errorf("its last work is %q", got)
	}
	if _, err := p.home.RenewLease(ctx, "device"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("its lease was renewed: %v", err)
	}
	if err := p.home.DeviceWiped(ctx, "device"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.home.Sets(ctx, "device"); !errors.Is(err, redoubt.NotFound) || state() != redoubt.DeviceWiped {
		t.Errorf("after it was wiped: %v, %s", err, state())
	}
}

func TestNothingIsTakenFromADeviceThatIsToBeWipedAtOnce(t *testing.T) {
	ctx := context.Background()
	for _, revokedFirst := range []bool{false, true} {
		p, _ := openHome(t, "SECRET")
		p.enrol(t)
		officer := p.home.as("officer", "")
		if revokedFirst { // what was revoked is not taken again because a wipe was ordered later
			if err := p.home.EndDevice(ctx, officer, "device", false, false, "captured"); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.home.EndDevice(ctx, officer, "device", true, !revokedFirst, "captured"); err != nil {
			t.Fatal(err)
		}
		p.device.put(p.device.as("s-analyst", ""), "forged", "by its captor", "")
		_, refused := carry(t, p.device, p.home)
		if len(refused) == 0 || refused[0].Rule != "device-ended (4.4)" {
			t.Errorf("revoked first %v: refused %+v", revokedFirst, refused)
		}
		if got := p.home.get(p.home.as("s-analyst", ""), "forged"); got != "" {
			t.Errorf("revoked first %v: the home took %q", revokedFirst, got)
		}
		if sets, err := p.home.Sets(ctx, "device"); err != nil || len(sets) != 0 {
			t.Errorf("revoked first %v: it is told of %v (%v)", revokedFirst, sets, err)
		}
	}
}

func TestWhatOfficersDecideReachesADeviceAndNobodyElseSaysSo(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "TOP SECRET//SI/TK") // the records of people lie at the home's ceiling
	p.enrol(t)
	device := p.device.as("s-analyst", "")
	p.device.put(device, "mine", "x", "")
	if err := p.home.RevokePerson(ctx, p.home.as("officer", ""), "s-analyst", "left"); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	_, err := p.device.PutObject(ctx, device, redoubt.PutObject{Name: named("more"), SizeBytes: -1})
	if !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("who was revoked at home may write at the device: %v", err)
	}
	p.device.o.Links = []redoubt.Link{p.device.Links()["home"]}
	p.device.restart(true)
	if _, err := p.device.PutObject(ctx, device, redoubt.PutObject{Name: named("more"), SizeBytes: -1}); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("after a cold start she may write again: %v", err)
	}

	// A device's word about people is not taken, whoever it says it is of.
	if err := p.device.RevokePerson(ctx, p.device.as("officer", ""), "ts-analyst", "forged"); err != nil {
		t.Fatal(err)
	}
	carry(t, p.device, p.home)
	top := p.home.as("ts-analyst", "")
	p.home.put(top, "still", "here", "")
	set := p.home.recordLabel("revocation")
	text, err := set.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	// One that is sent all the same is refused by the signer that its kind names.
	refs, _, err := p.home.Since(ctx, "device", string(text), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range fetch(t, p.home, p.device, string(text), refs) {
		if item.Entry.Name.Bucket != redoubt.SystemBucket {
			continue
		}
		in := received(t, []redoubt.JournalItem{item})
		in[0].Entry.Maker = "device"
		encoded, err := in[0].Entry.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		c, err := redoubt.SealBatch("device", [][]byte{encoded}, p.device.links.sign)
		if err != nil {
			t.Fatal(err)
		}
		in[0].Custody = c[0]
		refused, err := p.home.Apply(ctx, "device", in)
		if err != nil || len(refused) != 1 || refused[0].Kind != redoubt.Denied {
			t.Errorf("a system record from a device: %+v, %v", refused, err)
		}
		return
	}
	t.Error("no system record travelled")
}
