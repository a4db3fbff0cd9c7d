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
