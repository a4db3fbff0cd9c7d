package enclave

import (
	"context"
	"errors"
	"slices"
	"testing"

	"redoubt"
	"redoubt/keys"
	"redoubt/store"
)

// lose takes a state's life from it, as a restore does.
func (w *world) lose() {
	w.t.Helper()
	b := new(store.Batch)
	b.Delete(lifeMark)
	if err := w.engine.Commit(context.Background(), b); err != nil {
		w.t.Fatal(err)
	}
}

func TestEachBundleHasANumberOfItsOwn(t *testing.T) {
	ctx := context.Background()
	p := openPair(t, "SECRET", nil)
	admin := p.home.as("admin", "")
	made := func() redoubt.BundleMark {
		t.Helper()
		m, err := p.home.Made(ctx, "device")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := made()
	if first.Serial != 0 || first.Numbering == [16]byte{} || first.ID != [32]byte{} {
		t.Fatalf("before the first: %+v", first)
	}
	next := func(after redoubt.BundleMark, id byte) redoubt.BundleMark {
		after.Serial++
		after.ID = [32]byte{id}
		return after
	}
	one := next(first, 1)
	if err := p.home.Make(ctx, admin, "device", one); err != nil {
		t.Fatal(err)
	}
	if got := made(); got != one {
		t.Errorf("got %+v, want %+v", got, one)
	}
	other := next(one, 2)
	other.Numbering[0] ^= 1
	for what, m := range map[string]redoubt.BundleMark{"the same number": one, "one left out": next(next(one, 2), 3), "another numbering": other} {
		if err := p.home.Make(ctx, admin, "device", m); !errors.Is(err, redoubt.Conflict) {
			t.Errorf("%s: %v, want Conflict", what, err)
		}
	}
	if err := p.home.Make(ctx, admin, "device", next(one, 2)); err != nil {
		t.Fatal(err)
	}
	if err := p.home.Forget(ctx, "device"); err != nil {
		t.Fatal(err)
	}
	again := made()
	if again.Serial != 0 || again.Numbering == one.Numbering {
		t.Errorf("after the link was forgotten: %+v", again)
	}
	if err := p.home.Make(ctx, admin, "device", next(again, 3)); err != nil {
		t.Fatal(err)
	}
	p.home.lose()
	if got := made(); got.Serial != 0 || got.Numbering == again.Numbering {
		t.Errorf("after the state was restored: %+v: a number may be given twice", got)
	}
	if got := p.home.decisions(redoubt.ActionExportBundle); len(got) != 3 {
		t.Errorf("three bundles were made, and on record are %q", got)
	}
}

func TestWhatWasTakenIsKeptWhenTheLinkIsForgotten(t *testing.T) {
	ctx := context.Background()
	p := openPair(t, "SECRET", nil)
	taking := redoubt.BundleTaking{Last: redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 4, ID: [32]byte{4}, Created: p.home.clock().UTC()}, Tickets: [][]byte{[]byte("t")}, Lacking: true}
	if err := p.home.Take(ctx, p.home.as("admin", ""), "device", taking); err != nil {
		t.Fatal(err)
	}
	if err := p.home.Forget(ctx, "device"); err != nil {
		t.Fatal(err)
	}
	got, err := p.home.Taken(ctx, "device")
	if err != nil || got.Last != taking.Last || len(got.Tickets) != 1 || !got.Lacking {
		t.Errorf("got %+v, %v: an old bundle may be played again", got, err)
	}
	if err := p.home.Take(ctx, p.home.as("admin", ""), "nobody", taking); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("of a node without a link: %v", err)
	}
	if got := p.home.decisions(redoubt.ActionImportBundle); !slices.Equal(got, []string{"ok"}) {
		t.Errorf("on record are %q", got)
	}
}

func TestATicketAcknowledgesWhatFollowsOnWhatIsAcknowledged(t *testing.T) {
	ctx := context.Background()
	p := openPair(t, "SECRET", nil)
	h := p.home
	const set = "a set"
	ticket := func(from, to uint64, whole bool) []byte {
		t.Helper()
		b, err := h.Ticket(ctx, "device", redoubt.JournalSpan{Set: set, From: from, To: to, Whole: whole})
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != 101 {
			t.Errorf("a ticket has %d bytes, want 101 whatever it says", len(b))
		}
		return b
	}
	redeem := func(what string, b []byte, want uint64, wantKnown bool) {
		t.Helper()
		if err := h.Redeem(ctx, "device", b); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if at, known, err := h.Acknowledged(ctx, "device", set); err != nil || at != want || known != wantKnown {
			t.Errorf("%s: acknowledged up to %d (%v), %v; want %d (%v)", what, at, known, err, want, wantKnown)
		}
	}
	life := [16]byte{9}
	early := ticket(0, 5, false)
	redeem("a part while nothing is known", early, 0, false)
	unknown := ticket(0, 3, true)
	if err := h.Remember(ctx, "device", life); err != nil {
		t.Fatal(err)
	}
	redeem("a part that was sent before the peer was known", early, 0, false)
	redeem("all that was sent before the peer was known", unknown, 3, true)
	redeem("a part that was sent before the peer was known, again", early, 3, true)
	redeem("what follows", ticket(3, 7, false), 7, true)
	redeem("what follows on less", ticket(2, 9, false), 9, true)
	redeem("what leaves something out", ticket(10, 20, false), 9, true)
	redeem("an older one", ticket(3, 7, false), 9, true)
	redeem("all of less", ticket(0, 4, true), 9, true)
	gone := ticket(9, 30, false)
	if err := h.Forget(ctx, "device"); err != nil {
		t.Fatal(err)
	}
	if err := h.Remember(ctx, "device", [16]byte{8}); err != nil {
		t.Fatal(err)
	}
	redeem("a part of another life of the peer's", gone, 0, false)
	lost := ticket(0, 50, true)
	h.lose()
	redeem("all of another life of this state", lost, 0, false)
	redeem("nobody's", []byte("not a ticket at all"), 0, false)
	bad := ticket(0, 60, true)
	bad[20] ^= 1
	redeem("an altered one", bad, 0, false)
	p.device.link(h, redoubt.Link{Peer: "device-2", Key: p.home.links.key, Bound: h.ceiling})
	redeem("another node's", must(p.device.Ticket(ctx, "home", redoubt.JournalSpan{Set: set, To: 70, Whole: true})), 0, false)
	h.link(p.device, redoubt.Link{Peer: "device-2", Key: p.device.links.key, Bound: h.ceiling})
	redeem("another peer's", must(h.Ticket(ctx, "device-2", redoubt.JournalSpan{Set: set, To: 80, Whole: true})), 0, false)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestADeviceAndItsHomeLearnWhatTheirBundlesAreSealedTo(t *testing.T) {
	ctx := context.Background()
	p, _ := openHome(t, "SECRET")
	inv, err := p.home.InviteDevice(ctx, p.home.as("officer", ""), "device")
	if err != nil {
		t.Fatal(err)
	}
	req := p.device.enrolRequest(inv.Token)
	req.Recipient = "redoubt-recipient-1:AAAA"
	if _, err := p.home.EnrolDevice(ctx, p.device.signEnrol(req)); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a recipient that is no key: %v", err)
	}
	id, err := p.device.BundleIdentity()
	if err != nil {
		t.Fatal(err)
	}
	req.Recipient = id.Recipient().String()
	if _, err := p.home.EnrolDevice(ctx, req); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a recipient that the device did not sign: %v", err)
	}
	given, err := p.home.EnrolDevice(ctx, p.device.signEnrol(req))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.home.Links()["device"].Recipient; got != req.Recipient {
		t.Errorf("the home seals to %.40s, want %.40s", got, req.Recipient)
	}
	mine, err := p.home.BundleIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.ParseRecipient(given.Recipient); err != nil || got.String() != mine.Recipient().String() {
		t.Errorf("the device was given %.40s, %v", given.Recipient, err)
	}
}
