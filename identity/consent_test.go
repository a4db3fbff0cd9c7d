package identity

import (
	"strings"
	"testing"
	"time"

	"redoubt"
)

func TestOnlyTheOriginatorConsents(t *testing.T) {
	w, l := reviewers(t)
	good := sigOver("m", "ts-analyst")
	for what, one := range map[string]struct {
		sig        redoubt.Signature
		originator redoubt.SubjectName
		rule       string
	}{
		"the originator":                 {good, "ts-analyst", ""},
		"an originator who reviews":      {sigOver("m", "both"), "both", ""},
		"somebody else":                  {sigOver("m", "reviewer"), "ts-analyst", RuleConsent},
		"somebody else in her name":      {redoubt.Signature{Signer: "ts-analyst", Sig: sigOver("m", "reviewer").Sig}, "ts-analyst", RuleSignature},
		"her signature in another name":  {redoubt.Signature{Signer: "reviewer", Sig: good.Sig}, "ts-analyst", RuleConsent},
		"over something else":            {sigOver("n", "ts-analyst"), "ts-analyst", RuleSignature},
		"no signature":                   {redoubt.Signature{Signer: "ts-analyst"}, "ts-analyst", RuleSignature},
		"a signature with a tail":        {redoubt.Signature{Signer: "ts-analyst", Sig: good.Sig + "\n"}, "ts-analyst", RuleSignature},
		"nobody":                         {sigOver("m", "nobody"), "nobody", RuleConsent},
		"no name":                        {sigOver("m", ""), "", RuleConsent},
		"an originator cleared for less": {sigOver("m", "s-reviewer"), "s-reviewer", RuleConsent},
	} {
		key, err := w.r.Consented([]byte("m"), one.sig, one.originator, l)
		if one.rule == "" {
			if err != nil || !key.Equal(keyOf(one.originator).Public()) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if key != nil {
			t.Errorf("%s: a key is given", what)
		}
		if wantKind(t, err, redoubt.Denied, one.rule); t.Failed() {
			t.Fatal(what)
		}
	}
	if err := w.r.Originator("ts-analyst", l); err != nil {
		t.Error(err)
	}
	wantKind(t, w.r.NotOriginator("both", "both"), redoubt.Denied, RuleOriginator)
	wantKind(t, w.r.NotOriginator("nobody", "both"), redoubt.Denied, RuleOriginator)
	if err := w.r.NotOriginator("reviewer", "both"); err != nil {
		t.Error(err)
	}
}

func TestAnOriginatorWhoEndedConsentsToNothing(t *testing.T) {
	for what, end := range map[string]func(w *world){
		"revoked": func(w *world) {
			recs, err := w.r.RevokePerson("officer", "ts-analyst", "left")
			if err != nil {
				w.t.Fatal(err)
			}
			w.commit(recs)
		},
		"her clearance has ended": func(w *world) { w.now = noon.Add(365 * 24 * time.Hour) },
	} {
		w, l := reviewers(t)
		end(w)
		_, err := w.r.Consented([]byte("m"), sigOver("m", "ts-analyst"), "ts-analyst", l)
		if wantKind(t, err, redoubt.Denied, RuleConsent); t.Failed() {
			t.Fatal(what)
		}
		wantKind(t, w.r.Originator("ts-analyst", l), redoubt.Denied, RuleConsent)
		if strings.Contains(err.Error(), "reviewer") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
