package identity

import (
	"errors"
	"strings"
	"testing"

	"redoubt"
)

// cutFor is a range of devices that carry everything.
func (w *world) cutFor(floor, ceiling string) Cut {
	return Cut{Floor: w.mark(w.o.Policy, floor), Ceiling: w.mark(w.o.Policy, ceiling), Carries: func(redoubt.BucketName, string) bool { return true }}
}

// told is what devices of a range are told, by name.
func (w *world) told(c Cut) map[string]string {
	w.t.Helper()
	recs, err := w.r.Project(c, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range recs {
		out[r.Name] = string(r.Value)
	}
	return out
}

func TestAPersonIsCutToWhatABoundDominates(t *testing.T) {
	w := newWorld(t, "TOP SECRET//SI/TK")
	w.change(w.personChange(somebody("mixed", "TOP SECRET//SI", "USA", redoubt.RoleStorage, redoubt.RoleWriteUp, redoubt.RoleAnalyst)), "officer", "officer-2")
	for _, c := range []struct{ floor, ceiling, name, want string }{
		{"UNCLASSIFIED", "SECRET", "mixed", `"clearance":"SECRET","nation":"USA","roles":["analyst","write-up"]`},
		{"UNCLASSIFIED", "TOP SECRET//TK", "mixed", `"clearance":"TOP SECRET","nation":"USA"`},
		{"UNCLASSIFIED", "TOP SECRET//SI", "mixed", `"clearance":"TOP SECRET//SI","nation":"USA"`},
		{"UNCLASSIFIED", "UNCLASSIFIED", "mixed", `"clearance":"UNCLASSIFIED","nation":"USA"`},
		{"UNCLASSIFIED", "SECRET", "gbr-liaison", `"clearance":"SECRET","nation":"GBR"`},
		{"UNCLASSIFIED", "SECRET//REL TO USA, GBR", "s-analyst", `"clearance":"SECRET","nation":"USA"`},
		{"SECRET", "SECRET", "gbr-liaison", ""}, // no label in common
		{"SECRET", "SECRET", "u-analyst", ""},
		{"UNCLASSIFIED", "SECRET", "reviewer", ""}, // nothing to do there
		{"UNCLASSIFIED", "SECRET", "admin", `"roles":["admin"]`},
	} {
		got := w.told(w.cutFor(c.floor, c.ceiling))["person/"+c.name]
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s at %s to %s is told as %s, want %s", c.name, c.floor, c.ceiling, got, c.want)
		}
	}
}

func TestWhoMadeAnOfficerCannotSignWithHerAtADeviceEither(t *testing.T) {
	w := newWorld(t, "TOP SECRET//SI/TK")
	w.change(w.personChange(somebody("officer-3", "SECRET", "USA", redoubt.RoleOfficer)), "officer", "officer-2")
	got := w.told(w.cutFor("UNCLASSIFIED", "SECRET"))["person/officer-3"]
	if !strings.Contains(got, `"granted_by":["officer","officer-2"]`) {
		t.Fatalf("told %s", got)
	}
	d := newWorld(t, "SECRET")
	for name, value := range w.told(w.cutFor("UNCLASSIFIED", "SECRET")) {
		if err := d.r.Load(Record{Kind: KindProjection, Name: name, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	c := d.personChange(somebody("guest", "SECRET", "USA", redoubt.RoleAnalyst))
	if _, err := d.propose(c, "officer", "officer-3"); ruleOfError(err) != RuleIndependent {
		t.Errorf("the two sign together at the device: %v", err)
	}
	other := d.personChange(somebody("guest", "SECRET", "USA", redoubt.RoleAnalyst))
	if _, err := d.propose(other, "officer", "officer-2"); err != nil {
		t.Errorf("two whom neither made: %v", err)
	}
}

func TestWhomItsHomeTellsOfANodeDoesNotChange(t *testing.T) {
	w := newWorld(t, "SECRET")
	w.change(w.personChange(somebody("s-analyst", "SECRET", "USA", redoubt.RoleAnalyst)), "officer", "officer-2")
	told := Record{Kind: KindProjection, Name: "person/s-analyst", Value: []byte(w.told(w.cutFor("UNCLASSIFIED", "CONFIDENTIAL"))["person/s-analyst"])}
	if err := w.r.Load(told); err != nil {
		t.Fatal(err)
	}
	if _, err := w.propose(w.personChange(somebody("s-analyst", "SECRET", "USA", redoubt.RoleAnalyst)), "officer", "officer-2"); ruleOfError(err) != RuleHome {
		t.Errorf("got %v, want it refused by %s", err, RuleHome)
	}
	var again Record
	for _, r := range w.stored {
		if r.Kind == KindPerson {
			again = r
		}
	}
	if err := w.r.Load(again); err != nil { // an older word of officers comes late
		t.Fatal(err)
	}
	if s, _ := w.r.Subject("s-analyst"); s.Clearance.Banner() == "SECRET" || !strings.HasPrefix(s.Clearance.Classification(), "CONF") {
		t.Errorf("she is cleared for %s, and her home says CONFIDENTIAL", s.Clearance.Banner())
	}
}

func TestATrialChangesNothing(t *testing.T) {
	w := newWorld(t, "SECRET")
	gone := Record{Kind: KindProjection, Name: "person/s-analyst", Value: []byte(`{"name":"s-analyst","revoked":true}`)}
	trial, err := w.r.Trial()
	if err != nil {
		t.Fatal(err)
	}
	if err := trial.Load(gone); err != nil {
		t.Fatal(err)
	}
	if _, there := trial.Subject("s-analyst"); there {
		t.Error("a trial does not do what it tries")
	}
	if _, there := w.r.Subject("s-analyst"); !there {
		t.Error("a trial revoked somebody")
	}
	for _, bad := range []Record{
		{Kind: KindProjection, Name: "person/s-analyst", Value: []byte(`{"name":"s-analyst","revoked":true} `)},
		{Kind: KindProjection, Name: "person/s-analyst", Value: []byte(`{"name":"s-analyst","clearance":"SECRET","revoked":true}`)},
		{Kind: KindProjection, Name: "person/s-analyst", Value: []byte(`{"name":"s-analyst"}`)},
		{Kind: KindProjection, Name: "person/s-analyst", Value: []byte(`{"name":"s-analyst","revoked":true,"life":-1}`)},
		{Kind: KindProjection, Name: "grant/x", Value: []byte(`{"grant":{"id":"x","subject":"s-analyst","bucket":"reports","prefix":"","actions":null}}`)},
		{Kind: KindProjection, Name: "bucket/x", Value: []byte(`{}`)},
		{Kind: KindProjection, Name: "", Value: []byte(`{}`)},
		{Kind: KindProjection, Name: "person/s-analyst"},
	} {
		if err := trial.Load(bad); err == nil {
			t.Errorf("took %s %s", bad.Name, bad.Value)
		}
	}
}

func ruleOfError(err error) string {
	var e *redoubt.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Rule
}
