package identity

import (
	"slices"
	"testing"
	"time"

	"redoubt"
)

// TestAFootingNeverComesBack: every change of a person gives another one, but for what prolongs her clearance while that runs.
func TestAFootingNeverComesBack(t *testing.T) {
	w := newWorld(t, "SECRET")
	if got := w.r.Footing("nobody"); got != "" {
		t.Errorf("nobody stands on %q", got)
	}
	is := func(change func(*redoubt.Person)) redoubt.Person {
		p := somebody("reviewer", "SECRET", "USA", redoubt.RoleReviewer)
		p.Expires = w.now.Add(time.Hour)
		if change != nil {
			change(&p)
		}
		return p
	}
	seen := []string{w.r.Footing("reviewer")}
	other := w.r.Footing("officer")
	next := func(what string, another bool, p redoubt.Person) {
		t.Helper()
		w.change(w.personChange(p), "officer", "officer-2")
		got := w.r.Footing("reviewer")
		if last := seen[len(seen)-1]; (got != last) != another || another && slices.Contains(seen, got) {
			t.Errorf("%s: the footing is %q behind %q, want another %v", what, got, last, another)
		}
		seen = append(seen, got)
		w.open() // and is the same after a restart
		if again := w.r.Footing("reviewer"); again != got {
			t.Errorf("%s: after a restart it is %q, was %q", what, again, got)
		}
	}
	next("she is cleared for less", true, is(nil))
	next("prolonged", false, is(func(p *redoubt.Person) { p.Expires = p.Expires.Add(time.Hour) }))
	next("as long", false, is(func(p *redoubt.Person) { p.Expires = p.Expires.Add(time.Hour) }))
	next("shortened", true, is(nil))
	next("a role more", true, is(func(p *redoubt.Person) {
		p.Roles = append(p.Roles, redoubt.RoleAnalyst)
		p.Expires = p.Expires.Add(time.Hour)
	}))
	next("and not any more", true, is(func(p *redoubt.Person) { p.Expires = p.Expires.Add(2 * time.Hour) }))
	next("cleared for less", true, is(func(p *redoubt.Person) { p.Clearance, p.Expires = "CONFIDENTIAL", p.Expires.Add(3*time.Hour) }))
	next("and for more again", true, is(func(p *redoubt.Person) { p.Expires = p.Expires.Add(4 * time.Hour) }))
	next("prolonged", false, is(func(p *redoubt.Person) { p.Expires = p.Expires.Add(5 * time.Hour) }))
	w.now = w.now.Add(7 * time.Hour)
	next("prolonged after it ran out", true, is(nil))
	if got := w.r.Footing("officer"); got != other {
		t.Errorf("who was not changed stands on %q, and did on %q", got, other)
	}
	// In whatever order her records come.
	for range 20 {
		w.open()
		if got := w.r.Footing("reviewer"); got != seen[len(seen)-1] {
			t.Fatalf("in another order it is %q, want %q", got, seen[len(seen)-1])
		}
	}
	// A trial changes nothing here.
	p := is(func(p *redoubt.Person) { p.Clearance = "CONFIDENTIAL" })
	c := w.personChange(p)
	c.Signatures = []redoubt.Signature{sign(c, "officer"), sign(c, "officer-2")}
	_, recs, err := w.r.Propose(c)
	if err != nil {
		t.Fatal(err)
	}
	trial, err := w.r.Trial(recs...)
	if err != nil {
		t.Fatal(err)
	}
	if is, was := trial.Footing("reviewer"), w.r.Footing("reviewer"); is == was || was != seen[len(seen)-1] {
		t.Errorf("in a trial it is %q, and here %q", is, was)
	}
}

// TestAFootingOfTheEstateFollowsFromIt: another clearance, role or key is another, and when the clearance ends is not.
func TestAFootingOfTheEstateFollowsFromIt(t *testing.T) {
	w := newWorld(t, "SECRET")
	at := slices.IndexFunc(w.o.People, func(p redoubt.Person) bool { return p.Name == "reviewer" })
	was, now := w.o.People[at], w.r.Footing("reviewer")
	for what, one := range map[string]struct {
		change func(*redoubt.Person)
		same   bool
	}{
		"nothing":              {func(*redoubt.Person) {}, true},
		"it ends later":        {func(p *redoubt.Person) { p.Expires = p.Expires.Add(time.Hour) }, true},
		"another clearance":    {func(p *redoubt.Person) { p.Clearance = "CONFIDENTIAL" }, false},
		"another role":         {func(p *redoubt.Person) { p.Roles = []redoubt.Role{redoubt.RoleReviewer, redoubt.RoleStorage} }, false},
		"another key":          {func(p *redoubt.Person) { p.PublicKey = public(keyOf("another")) }, false},
		"roles another way up": {func(p *redoubt.Person) { slices.Reverse(p.Roles) }, true},
	} {
		w.o.People[at] = was
		w.o.People[at].Roles = slices.Clone(was.Roles)
		one.change(&w.o.People[at])
		w.open()
		if got := w.r.Footing("reviewer"); (got == now) != one.same {
			t.Errorf("%s: it is %q, and was %q", what, got, now)
		}
	}
}
