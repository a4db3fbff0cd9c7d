package identity

import (
	"errors"
	"strings"
	"testing"

	"redoubt"
)

func TestGrantsAreReadStrictly(t *testing.T) {
	w := newWorld(t, "SECRET")
	for name, g := range map[string]redoubt.Grant{
		"no bucket":       {Subject: "s-analyst"},
		"system bucket":   {Subject: "s-analyst", Bucket: redoubt.SystemBucket},
		"long bucket":     {Subject: "s-analyst", Bucket: redoubt.BucketName(strings.Repeat("b", 64))},
		"no subject":      {Bucket: "reports"},
		"long prefix":     {Subject: "s-analyst", Bucket: "reports", Prefix: strings.Repeat("k", redoubt.MaxKeyBytes+1)},
		"wild prefix":     {Subject: "s-analyst", Bucket: "reports", Prefix: "\xff"},
		"a slip":          {Subject: "s-analyst", Bucket: "reports", Deny: true, Actions: []redoubt.Action{"GetObjct"}},
		"an officer's":    {Subject: "s-analyst", Bucket: "reports", Actions: []redoubt.Action{redoubt.ActionErase}},
		"twice":           {Subject: "s-analyst", Bucket: "reports", Actions: []redoubt.Action{"GetObject", "GetObject"}},
		"expired already": {Subject: "s-analyst", Bucket: "reports", Expires: noon},
	} {
		if _, _, err := w.r.Grant(g); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
	_, _, err := w.r.Grant(redoubt.Grant{Subject: "nobody", Bucket: "reports"})
	wantKind(t, err, redoubt.NotFound, "")
}

func TestGrantsAreBoundedAndEndForGood(t *testing.T) {
	w := newWorld(t, "SECRET")
	var last redoubt.Grant
	for range MaxGrantsPerSubject {
		g, recs, err := w.r.Grant(redoubt.Grant{Subject: "s-analyst", Bucket: "reports"})
		if err != nil {
			t.Fatal(err)
		}
		w.commit(recs)
		last = g
	}
	_, _, err := w.r.Grant(redoubt.Grant{Subject: "s-analyst", Bucket: "reports"})
	wantKind(t, err, redoubt.QuotaExceeded, "")
	recs, err := w.r.RevokeGrant("officer", last.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.commit(recs)
	for range 3 {
		s, _ := w.r.Subject("s-analyst")
		if len(s.Grants) != MaxGrantsPerSubject-1 || len(w.r.Grants()) != len(s.Grants) {
			t.Errorf("got %d grants", len(s.Grants))
		}
		_, err = w.r.RevokeGrant("officer", last.ID)
		wantKind(t, err, redoubt.NotFound, "")
		w.open()
	}
}
