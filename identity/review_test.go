package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

// reviewers is a registry with reviewers of several clearances.
func reviewers(t *testing.T) (*world, label.Label) {
	t.Helper()
	w := newWorld(t, "TOP SECRET//SI/TK")
	w.o.People = append(w.o.People, somebody("reviewer-2", "TOP SECRET", "USA", redoubt.RoleReviewer), somebody("s-reviewer", "SECRET", "USA", redoubt.RoleReviewer),
		somebody("gbr-reviewer", "TOP SECRET", "GBR", redoubt.RoleReviewer), somebody("both", "TOP SECRET", "USA", redoubt.RoleReviewer, redoubt.RoleAnalyst))
	w.open()
	return w, w.mark(w.o.Policy, "TOP SECRET//NOFORN")
}

func sigOver(message string, by redoubt.SubjectName) redoubt.Signature {
	return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(keyOf(by), []byte(message)))}
}

func TestAReviewerSignsForWhatSheIsClearedForAndDidNotAskFor(t *testing.T) {
	w, l := reviewers(t)
	flipped := sigOver("m", "reviewer")
	raw, _ := base64.StdEncoding.DecodeString(flipped.Sig)
	raw[3] ^= 1
	flipped.Sig = base64.StdEncoding.EncodeToString(raw)
	for what, one := range map[string]struct {
		sig       redoubt.Signature
		requester redoubt.SubjectName
		rule      string
	}{
		"a reviewer":              {sigOver("m", "reviewer"), "ts-analyst", ""},
		"another":                 {sigOver("m", "reviewer-2"), "nobody", ""},
		"nobody":                  {sigOver("m", "nobody"), "ts-analyst", RuleReviewer},
		"no name":                 {sigOver("m", ""), "ts-analyst", RuleReviewer},
		"an analyst":              {sigOver("m", "ts-analyst"), "officer", RuleReviewer},
		"an officer":              {sigOver("m", "officer"), "ts-analyst", RuleReviewer},
		"who asked":               {sigOver("m", "both"), "both", RuleRequester},
		"cleared for less":        {sigOver("m", "s-reviewer"), "ts-analyst", RuleCleared},
		"of another nation":       {sigOver("m", "gbr-reviewer"), "ts-analyst", RuleCleared},
		"over something else":     {sigOver("n", "reviewer"), "ts-analyst", RuleSignature},
		"another's signature":     {redoubt.Signature{Signer: "reviewer", Sig: sigOver("m", "reviewer-2").Sig}, "ts-analyst", RuleSignature},
		"a bit of it is another":  {flipped, "ts-analyst", RuleSignature},
		"no signature":            {redoubt.Signature{Signer: "reviewer"}, "ts-analyst", RuleSignature},
		"a signature with a tail": {redoubt.Signature{Signer: "reviewer", Sig: sigOver("m", "reviewer").Sig + "\n"}, "ts-analyst", RuleSignature},
	} {
		key, err := w.r.Review([]byte("m"), one.sig, one.requester, l)
		if one.rule == "" {
			if err != nil || !key.Equal(keyOf(one.sig.Signer).Public()) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if key != nil {
			t.Errorf("%s: a key is given", what)
		}
		wantKind(t, err, redoubt.Denied, one.rule)
	}
	if _, err := w.r.Review([]byte("m"), sigOver("m", "reviewer"), "ts-analyst", label.Label{}); err == nil {
		t.Error("a reviewer of no label at all stands")
	}
}

func TestAReviewerWhoEndedStandsForNothing(t *testing.T) {
	for what, end := range map[string]func(w *world){
		"revoked": func(w *world) {
			recs, err := w.r.RevokePerson("officer", "reviewer", "left")
			if err != nil {
				w.t.Fatal(err)
			}
			w.commit(recs)
		},
		"her clearance has ended": func(w *world) { w.now = noon.Add(365 * 24 * time.Hour) },
		"a change took her role": func(w *world) {
			p := somebody("reviewer", "TOP SECRET", "USA", redoubt.RoleAnalyst)
			w.now = w.now.Add(time.Minute)
			c := redoubt.Change{Kind: redoubt.ChangePerson, Person: &p, Reason: "r", Made: w.now, Expires: w.now.Add(time.Hour)}
			for _, by := range []redoubt.SubjectName{"officer", "officer-2"} {
				c.Signatures = append(c.Signatures, redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(keyOf(by), redoubt.ChangeMessage(c)))})
			}
			_, recs, err := w.r.Propose(c)
			if err != nil {
				w.t.Fatal(err)
			}
			w.commit(recs)
		},
	} {
		w, l := reviewers(t)
		end(w)
		_, err := w.r.Review([]byte("m"), sigOver("m", "reviewer"), "ts-analyst", l)
		if wantKind(t, err, redoubt.Denied, RuleReviewer); t.Failed() {
			t.Fatal(what)
		}
		if what != "her clearance has ended" {
			w.open() // as after a restart
			_, err = w.r.Review([]byte("m"), sigOver("m", "reviewer"), "ts-analyst", l)
			wantKind(t, err, redoubt.Denied, RuleReviewer)
		}
	}
}

func TestTwoDifferentReviewersStandTogether(t *testing.T) {
	w, l := reviewers(t)
	a, b, both := sigOver("m", "reviewer"), sigOver("m", "reviewer-2"), sigOver("m", "both")
	keys, err := w.r.Reviewed([]byte("m"), []redoubt.Signature{b, a}, "ts-analyst", l)
	if err != nil || len(keys) != 2 || !keys[0].Equal(keyOf("reviewer-2").Public()) || !keys[1].Equal(keyOf("reviewer").Public()) {
		t.Errorf("got %v, %v: want both keys in the order of the signatures", keys, err)
	}
	for what, one := range map[string]struct {
		sigs      []redoubt.Signature
		requester redoubt.SubjectName
		rule      string
	}{
		"none":               {nil, "ts-analyst", RuleReviewers},
		"one":                {[]redoubt.Signature{a}, "ts-analyst", RuleReviewers},
		"one twice":          {[]redoubt.Signature{a, a}, "ts-analyst", RuleReviewers},
		"three":              {[]redoubt.Signature{a, b, both}, "ts-analyst", RuleReviewers},
		"one who asked":      {[]redoubt.Signature{a, both}, "both", RuleRequester},
		"one for the other":  {[]redoubt.Signature{a, {Signer: "reviewer-2", Sig: a.Sig}}, "ts-analyst", RuleSignature},
		"one of a lower one": {[]redoubt.Signature{a, sigOver("m", "s-reviewer")}, "ts-analyst", RuleCleared},
	} {
		_, err := w.r.Reviewed([]byte("m"), one.sigs, one.requester, l)
		if wantKind(t, err, redoubt.Denied, one.rule); t.Failed() {
			t.Fatal(what)
		}
	}
	if err := w.r.Apart("reviewer", "reviewer"); err == nil {
		t.Error("one person is apart from herself")
	}
	wantKind(t, w.r.Apart("reviewer", "nobody"), redoubt.NotFound, "")
}

// TestNobodyIsMadeAGuard: the role is of those that the signed estate declares.
func TestNobodyIsMadeAGuard(t *testing.T) {
	w, _ := reviewers(t)
	p := somebody("new", "SECRET", "USA", redoubt.RoleGuard)
	c := redoubt.Change{Kind: redoubt.ChangePerson, Person: &p, Reason: "r", Made: w.now, Expires: w.now.Add(time.Hour)}
	for _, by := range []redoubt.SubjectName{"officer", "officer-2"} {
		c.Signatures = append(c.Signatures, redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(keyOf(by), redoubt.ChangeMessage(c)))})
	}
	if _, _, err := w.r.Propose(c); redoubt.KindOf(err) != redoubt.Invalid {
		t.Errorf("two officers make a guard: %v", err)
	}
}
