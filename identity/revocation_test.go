package identity

import (
	"errors"
	"slices"
	"testing"

	"redoubt"
)

func TestRevocationBitesAtOnceAndOutlivesARestart(t *testing.T) {
	w := newWorld(t, "SECRET")
	m, who := w.mint("s-analyst", "")
	_, other := w.mint("s-analyst", "")
	recs, err := w.r.RevokeCredential("officer", who.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.commit(recs)
	for range 3 {
		if err := w.r.Live(who); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("got %v", err)
		}
		if _, err := w.r.Bearer(m.Token); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("bearer: got %v", err)
		}
		if _, _, err := w.r.SigningKey(who.ID, redoubt.Scope{}); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("signing: got %v", err)
		}
		if err := w.r.Live(other); err != nil {
			t.Errorf("the other one: %v", err)
		}
		w.open()
	}
	recs, err = w.r.RevokePerson("officer", "s-analyst", "left")
	if err != nil {
		t.Fatal(err)
	}
	w.commit(recs)
	for range 3 {
		if err := w.r.Live(other); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("after the person: got %v", err)
		}
		if _, ok := w.r.Subject("s-analyst"); ok {
			t.Error("a revoked person was resolved")
		}
		_, _, _, err = w.r.Mint(w.request("s-analyst", ""))
		wantKind(t, err, redoubt.Unauthenticated, "")
		_, _, err = w.r.Grant(redoubt.Grant{Subject: "s-analyst", Bucket: "reports"})
		wantKind(t, err, redoubt.NotFound, "")
		w.open()
	}
	_, err = w.r.RevokeCredential("officer", "RDAAAAAAAAAAAAAAAAAA")
	wantKind(t, err, redoubt.NotFound, "")
	_, err = w.r.RevokePerson("officer", "nobody", "")
	wantKind(t, err, redoubt.NotFound, "")
}

func TestRevocationsMayBeLoadedBeforeWhatTheyRevoke(t *testing.T) {
	w := newWorld(t, "SECRET")
	w.change(w.personChange(somebody("new", "SECRET", "USA", redoubt.RoleAnalyst)), "officer", "officer-2")
	_, who := w.mint("s-analyst", "")
	_, hers := w.mint("new", "")
	g, recs, err := w.r.Grant(redoubt.Grant{Subject: "s-analyst", Bucket: "reports"})
	if err != nil {
		t.Fatal(err)
	}
	w.commit(recs)
	var ends, rest []Record
	for _, plan := range []func() ([]Record, error){
		func() ([]Record, error) { return w.r.RevokeCredential("officer", who.ID) },
		func() ([]Record, error) { return w.r.RevokePerson("officer", "new", "left") },
		func() ([]Record, error) { return w.r.RevokeGrant("officer", g.ID) },
	} {
		recs, err := plan()
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, recs...)
	}
	for _, rec := range w.stored {
		rest = append(rest, rec)
	}
	for _, order := range [][]Record{append(slices.Clone(ends), rest...), append(slices.Clone(rest), ends...)} {
		w.stored = nil
		w.open()
		for _, rec := range order {
			if err := w.r.Load(rec); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []redoubt.Credential{who, hers} {
			if err := w.r.Live(c); !errors.Is(err, redoubt.Unauthenticated) {
				t.Errorf("%s: got %v", c.Subject, err)
			}
		}
		if s, ok := w.r.Subject("s-analyst"); !ok || len(s.Grants) != 0 {
			t.Errorf("got %+v, %v", s, ok)
		}
		if _, ok := w.r.Subject("new"); ok {
			t.Error("a revoked person was resolved")
		}
	}
}
