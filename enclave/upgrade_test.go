package enclave

import (
	"context"
	"testing"

	"redoubt"
)

// TestAnUpgradeSaysWhatItComesBefore: its version is the newest, whatever the old one was.
func TestAnUpgradeSaysWhatItComesBefore(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "SECRET//REL TO USA, GBR")
	up := func(of redoubt.VersionID) redoubt.Regraded {
		t.Helper()
		out, err := w.Upgrade(context.Background(), w.spillOfficer(), redoubt.Regrade{Name: named("plan"), Version: of, Label: "SECRET", Reason: "too low"})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := w.put(s, "plan", "first", "")
	if got := up(first.ID).Over; got != "" {
		t.Errorf("what was current: over %q, want nothing", got)
	}
	old, now := w.put(s, "plan", "second", ""), w.put(s, "plan", "third", "")
	if got := up(old.ID).Over; got != now.ID {
		t.Errorf("what was written over: over %q, want %q", got, now.ID)
	}
	if got := w.get(w.as("s-analyst", "SECRET"), "plan"); got != "second" {
		t.Errorf("who reads SECRET sees %q", got)
	}
	if got := w.get(s, "plan"); got != "third" {
		t.Errorf("who reads below sees %q", got)
	}
	if err := w.del(s, "plan", ""); err != nil {
		t.Fatal(err)
	}
	deleted := w.put(s, "other", "x", "")
	if err := w.del(s, "other", ""); err != nil {
		t.Fatal(err)
	}
	out, err := w.Upgrade(context.Background(), w.spillOfficer(), redoubt.Regrade{Name: named("other"), Version: deleted.ID, Label: "SECRET", Reason: "too low"})
	if err != nil || out.Over == "" {
		t.Errorf("what was deleted: over %q, %v", out.Over, err)
	}
}

// TestAnUpgradedVersionGoesWithThePartnersOwn: whoever gave it erases it, whatever it is called here by then.
func TestAnUpgradedVersionGoesWithThePartnersOwn(t *testing.T) {
	for _, erased := range []bool{true, false} {
		a := openAlly(t, nil)
		ctx := context.Background()
		for _, key := range []string{"other", "a"} {
			if rule, err := a.sends(a.key, a.says(key, "hello", "SECRET//REL TO GBR, USA"), "hello"); rule != "" || err != nil {
				t.Fatal(rule, err)
			}
		}
		x := a.says("a", "again", "SECRET//REL TO GBR, USA")
		if rule, err := a.sends(a.key, x, "again"); rule != "" || err != nil {
			t.Fatal(rule, err)
		}
		for _, to := range []string{"SECRET//FGI GBR//NOFORN", "TOP SECRET//FGI GBR//NOFORN"} {
			if _, err := a.Upgrade(ctx, a.spillOfficer(), redoubt.Regrade{Name: theirs, Label: to, Reason: "is more"}); err != nil {
				t.Fatal(err)
			}
		}
		gone := redoubt.JournalEntry{Kind: redoubt.EntryRemoval, Stamp: a.stamp(), Of: x.Stamp, Label: x.Label, Made: x.Label, Maker: gbrGateway, Name: x.Name, Hold: erased}
		if rule, err := a.sends(a.key, gone, ""); rule != "" || err != nil {
			t.Fatal(rule, err)
		}
		if n := a.versions(a.as("ts-analyst", "")); n != 2 {
			t.Errorf("erased %v: %d versions are here, want the other two", erased, n)
		}
	}
}
